package store

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/store/pgtest"
)

func TestRuleSnapshotSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db := pgtest.Open(t, path, Open)
	if pos, data, err := db.LoadSnapshot(t.Context()); err != nil || pos != 0 || data != nil {
		t.Fatalf("LoadSnapshot before any = %d, %v, %v; want 0, nil, nil", pos, data, err)
	}
	for _, want := range [][]byte{{1}, {0, 2, 255}} {
		if err := db.SaveSnapshot(t.Context(), citywarden.PositionAt(uint64(len(want)), 3), want); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = pgtest.Open(t, path, Open)
	pos, data, err := db.LoadSnapshot(t.Context())
	if err != nil || pos != citywarden.PositionAt(3, 3) || !bytes.Equal(data, []byte{0, 2, 255}) {
		t.Fatalf("LoadSnapshot = %d, %v, %v; want the one saved last", pos, data, err)
	}
}
