package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/store/pgtest"
)

func TestCursorSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b", "x.db")
	path = filepath.Join(filepath.Dir(filepath.Dir(path)), "x y.db")
	db := pgtest.Open(t, path, Open)
	if p, err := db.Cursor(t.Context(), "series"); err != nil || p != 0 {
		t.Fatalf("Cursor before any = %d, %v; want 0", p, err)
	}
	for _, want := range []uint64{7 << 16, 9<<16 | 3} {
		if err := db.SetCursor(t.Context(), "series", 0); err != nil {
			t.Fatal(err)
		}
		if err := db.SetCursor(t.Context(), "series", citywarden.Position(want)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = pgtest.Open(t, path, Open)
	if p, err := db.Cursor(t.Context(), "series"); err != nil || p != citywarden.Position(9<<16|3) {
		t.Fatalf("Cursor after reopening = %d, %v; want %d", p, err, 9<<16|3)
	}
}

// A write that takes long makes the others wait for their turn; it doesn't make
// them fail, as SQLite's own waiting would, and they need not look again and again.
func TestWritersQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), Open)
		slow, begun := make(chan struct{}), make(chan struct{})
		first := make(chan error)
		go func() {
			first <- db.UpdateDesk(t.Context(), func(tx *DeskTx) error {
				close(begun)
				<-slow
				return tx.SetCursor(t.Context(), "desk", 1)
			})
		}()
		<-begun
		second, third := make(chan error, 1), make(chan error, 1)
		go func() { second <- db.SetCursor(t.Context(), "series", 2) }()
		impatient, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() { third <- db.SaveSnapshot(impatient, 3, []byte{3}) }()
		time.Sleep(time.Hour)
		if err := <-third; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who had a minute got %v, want %v", err, context.DeadlineExceeded)
		}
		close(slow)
		for _, c := range []chan error{first, second} {
			if err := <-c; err != nil {
				t.Errorf("write: %v", err)
			}
		}
	})
}

// A transaction that ends because its caller went away is undone before the next
// begins: nothing of it is committed with that.
func TestCancelledTransaction(t *testing.T) {
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), Open)
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		name := fmt.Sprintf("lost-%d", i)
		err := db.UpdateDesk(ctx, func(tx *DeskTx) error {
			if err := tx.SetCursor(ctx, name, 1); err != nil {
				return err
			}
			cancel()
			return ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("update %d: %v", i, err)
		}
		if err := db.UpdateDesk(t.Context(), func(tx *DeskTx) error { return tx.SetCursor(t.Context(), "kept", citywarden.Position(i+1)) }); err != nil {
			t.Fatal(err)
		}
		if at, err := db.Cursor(t.Context(), name); err != nil || at != 0 {
			t.Fatalf("what was undone is there: %v, %v", at, err)
		}
	}
}
