package store

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/store/pgtest"
)

// Everything here holds for PostgreSQL, too.
func TestOnPostgres(t *testing.T) { pgtest.Rerun(t, Open) }

func TestAnyTextIsTaken(t *testing.T) {
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), Open)
	dead := []citywarden.DeadLetter{{Position: 1, Device: "d", Topic: "a\x00b\xff", Reason: "数据\x00"}}
	if err := db.SaveLedger(t.Context(), "ingest", 0, 1, citywarden.LedgerAdd{Dead: dead}); err != nil {
		t.Errorf("a dead letter with a topic that is no text: %v", err)
	}
}

func TestWrongPostgres(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"postgres://u:secret@:bad/x", "write sql.url like postgres://"},
		{"postgres://u:secret@/x?host=" + t.TempDir(), "look at sql.url, and whether the server runs"},
	} {
		_, err := Open(t.Context(), c.url)
		if citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open(%s): %v; want %q in it", c.url, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%s) gives the password away: %v", c.url, err)
		}
	}
}

// startPostgres returns a server of the test alone.
func startPostgres(t *testing.T) *pgtest.Server {
	t.Helper()
	if pgtest.Rerunning() {
		t.Skip("has a server of its own, and ran already")
	}
	s, err := pgtest.Start()
	if errors.Is(err, pgtest.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Of two processes on one PostgreSQL only one writes; when its connection breaks, the
// other may follow, and then the first is told.
func TestOnePostgresOwner(t *testing.T) {
	url, err := startPostgres(t).Create("one")
	if err != nil {
		t.Fatal(err)
	}
	first, err := Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if second, err := Open(t.Context(), url); citywarden.CodeOf(err) != citywarden.CodeConflict {
		if err == nil {
			second.Close()
		}
		t.Fatalf("a second process: %v, want a conflict", err)
	}
	cut := func() {
		t.Helper()
		if _, err := first.sql.ExecContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'`); err != nil {
			t.Fatal(err)
		}
		if err := first.SetCursor(t.Context(), "desk", 1); err == nil {
			t.Fatal("a write on a connection that is gone succeeds")
		}
	}
	cut()
	if err := first.SetCursor(t.Context(), "desk", 2); err != nil {
		t.Errorf("the owner after it lost its connection: %v", err)
	}
	cut()
	second, err := Open(t.Context(), url)
	if err != nil {
		t.Fatalf("a second process after the first lost its connection: %v", err)
	}
	if err := first.SetCursor(t.Context(), "desk", 3); citywarden.CodeOf(err) != citywarden.CodeConflict {
		t.Errorf("the first writes on beside the second: %v, want a conflict", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if err := first.SetCursor(t.Context(), "desk", 4); err != nil {
		t.Errorf("the first, when the second is gone: %v", err)
	}
	if p, err := first.Cursor(t.Context(), "desk"); err != nil || p != 4 {
		t.Errorf("the cursor is %d, %v; want 4", p, err)
	}
}
