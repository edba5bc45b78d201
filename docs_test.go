package citywarden_test

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestPeersPage holds docs/peers.md to tests and files that exist.
func TestPeersPage(t *testing.T) {
	page, err := os.ReadFile("docs/peers.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	err = fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git") {
			return fs.SkipDir
		}
		if err != nil || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		b, err := os.ReadFile(name)
		tests.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(string(page), -1)
	if len(names) < 30 {
		t.Errorf("only %d tests are named", len(names))
	}
	for row := range strings.Lines(string(page)) {
		if strings.HasPrefix(row, "| ") && !strings.Contains(row, "`") && !strings.HasPrefix(row, "| what happened") {
			t.Errorf("no test is named in %s", row)
		}
	}
	for _, n := range names {
		if strings.HasPrefix(n[1], "Test") {
			if !strings.Contains(tests.String(), "\nfunc "+n[1]+"(t *testing.T)") {
				t.Errorf("there is no test %s", n[1])
			}
		} else if _, err := os.Stat(n[1]); err != nil {
			t.Error(err)
		}
	}
}
