package app

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/citywarden/citywarden/cases"
)

// TestLayersOfAnyPath: the path of the data folder is no pattern.
func TestLayersOfAnyPath(t *testing.T) {
	grids, err := cases.LoadGrids(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "data[1]", "map")
	l := &layers{dir: dir, grids: grids}
	if got := l.Names(); len(got) != 0 {
		t.Errorf("layers without a folder: %v", got)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"trees.geojson", "pipes.geojson", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.Names(); !slices.Equal(got, []string{"pipes", "trees"}) {
		t.Errorf("layers: %v", got)
	}
}
