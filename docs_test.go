package citywarden_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// TestArchitectureNamesEachPackage: the table of packages has each that the module has, and no other.
func TestArchitectureNamesEachPackage(t *testing.T) {
	page, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n| package | kind |")
	table, _, _ = strings.Cut(table, "\n\n")
	named := map[string]bool{".": true} // the root, by its name
	for row := range strings.Lines(table) {
		first, _, _ := strings.Cut(strings.TrimPrefix(row, "| "), " | ")
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(first, -1) {
			named[m[1]] = true
		}
	}
	delete(named, "citywarden")
	err = fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || d.Name() == ".git" || d.Name() == "third_party") {
			return fs.SkipDir
		}
		if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(name))
		if in, there := named[dir]; !there {
			t.Errorf("docs/architecture.md does not say what %s is", dir)
		} else if in {
			named[dir] = false
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, missing := range named {
		if missing {
			t.Errorf("docs/architecture.md tells of %s, where no package is", dir)
		}
	}
}

// TestLinks: every link of README and docs leads to a file, and to a heading in it, that is there.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	adrs, err := filepath.Glob("docs/adr/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, page := range append(append(pages, adrs...), "README.md", "CHANGELOG.md") {
		text, _ := prose(t, page)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(m[1], "#")
			to := page
			if path != "" {
				to = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			if anchor == "" {
				continue
			}
			if _, anchors := prose(t, to); !anchors[anchor] {
				t.Errorf("%s: %s has no heading #%s", page, to, anchor)
			}
		}
	}
}

// prose reads a page without its blocks of code, and the anchors that GitHub gives its headings.
func prose(t *testing.T, path string) (string, map[string]bool) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	anchors := map[string]bool{}
	code := false
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		if code {
			continue
		}
		text.WriteString(line)
		if heading := strings.TrimLeft(line, "#"); heading != line {
			anchors[strings.Map(func(r rune) rune {
				switch {
				case r == ' ':
					return '-'
				case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
					return unicode.ToLower(r)
				}
				return -1
			}, strings.TrimSpace(heading))] = true
		}
	}
	return text.String(), anchors
}

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

// TestChangelog: it is what Keep a Changelog says, with headings by topic below, and says nothing twice.
func TestChangelog(t *testing.T) {
	b, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`^## \[(Unreleased|\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d)`)
	change := regexp.MustCompile(`^### (Added|Changed|Deprecated|Removed|Fixed|Security)$`)
	under, said := "", map[string]bool{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		level, _, _ := strings.Cut(line, " ")
		switch {
		case level == "##" && !version.MatchString(line), level == "###" && !change.MatchString(line),
			level == "###" && under == "", level == "####" && under == "##", level == "-" && (under == "" || under == "##"):
			t.Errorf("%q does not stand there: a version, below it Added, Changed, Deprecated, Removed, Fixed or Security, below that topics and entries", line)
		case level == "-" && said[line]:
			t.Errorf("twice: %s", line)
		}
		if strings.HasPrefix(level, "##") {
			under = level
		}
		said[line] = true
	}
}
