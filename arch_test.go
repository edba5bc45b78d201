package citywarden_test

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/citywarden/citywarden"

// family returns the part of the project that a package belongs to, as the
// table of packages in docs/architecture.md has it: "ingest/journal" is of
// "ingest".
func family(pkg string) string {
	f, _, _ := strings.Cut(pkg, "/")
	return f
}

// TestImports holds packages to the direction that docs/architecture.md states:
// the root imports the standard library only; a package imports the root and
// its own family; only app and cmd know two families.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := 0
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		pkg := strings.Trim(strings.TrimPrefix(f[0], module), "/")
		packages++
		if family(pkg) == "cmd" || family(pkg) == "app" {
			continue
		}
		for _, imp := range f[1:] {
			dep, ours := strings.CutPrefix(imp, module+"/")
			switch {
			case pkg == "" && strings.Contains(imp, "."):
				t.Errorf("the root package imports %s; it may import only the standard library", imp)
			case !ours || family(dep) == family(pkg) && !siblings(pkg, dep):
			default:
				t.Errorf("%s imports %s; declare a small interface instead and let app join them", pkg, dep)
			}
		}
	}
	if packages < 10 {
		t.Errorf("only %d packages were looked at", packages)
	}
}

// siblings reports whether a and b are two adapters of one family, which must
// not know each other either.
func siblings(a, b string) bool {
	return strings.Contains(a, "/") && strings.Contains(b, "/") &&
		!strings.HasPrefix(a, b+"/") && !strings.HasPrefix(b, a+"/")
}
