package store

import (
	"path/filepath"
	"testing"

	"github.com/citywarden/citywarden"
)

func TestCursorSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b", "x.db")
	path = filepath.Join(filepath.Dir(filepath.Dir(path)), "x y.db")
	db, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
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
	if db, err = Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if p, err := db.Cursor(t.Context(), "series"); err != nil || p != citywarden.Position(9<<16|3) {
		t.Fatalf("Cursor after reopening = %d, %v; want %d", p, err, 9<<16|3)
	}
}
