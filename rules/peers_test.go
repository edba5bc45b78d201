package rules

import (
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
)

// TestPeers plays what users of other platforms suffered from: each file names
// the threads. docs/peers.md lists them all, with the tests elsewhere.
func TestPeers(t *testing.T) {
	files, err := filepath.Glob("testdata/peers/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			set, err := Load(fstest.MapFS{filepath.Base(name): {Data: text}}, cityModels())
			if err != nil {
				t.Fatal(err)
			}
			results := Test(set)
			if len(results) < 2 {
				t.Errorf("%d tests", len(results))
			}
			for _, r := range results {
				if !r.OK() {
					t.Error(r.Err())
				}
			}
		})
	}
}
