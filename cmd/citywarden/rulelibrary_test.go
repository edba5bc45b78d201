package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices"
	"github.com/citywarden/citywarden/rules"
)

var update = flag.Bool("update", false, "write the table of docs/rule-library.md anew")

// TestManualWithBuiltinModels: the rule file that the specification of the
// language prints, with its test, is right for the models that come with the
// platform.
func TestManualWithBuiltinModels(t *testing.T) {
	for _, c := range []struct{ command, want string }{
		{"check", "6 rules, all good but for 1 warning\n"},
		{"test", "1 test of 6 rules, all good\n"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{"rules", c.command, "../../rules/testdata/manual"}, output{&out, &errs}); code != 0 {
			t.Errorf("rules %s: exit code %d\n%s", c.command, code, errs.String())
		}
		if !strings.HasSuffix(out.String(), c.want) {
			t.Errorf("rules %s says %q, want %q", c.command, out.String(), c.want)
		}
	}
}

// TestRuleLibrary: the library has no warning, every rule has two tests, and
// they pass.
func TestRuleLibrary(t *testing.T) {
	set, err := loadLibrary()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range set.Warnings() {
		t.Errorf("warning: %v", w)
	}
	files := map[string]string{}
	tests := map[string]int{}
	for _, r := range rules.Test(set) {
		if err := r.Err(); err != nil {
			t.Error(err)
		}
		tests[r.File]++
	}
	for _, r := range set.Rules() {
		if r.Title.ZH == "" || r.Title.EN == "" || r.Title.ZH == r.Title.EN {
			t.Errorf("rule %s has the title %+v, want one in each language", r.ID, r.Title)
		}
		files[r.File] += string(r.ID) + " "
		if tests[r.File] < 2 {
			t.Errorf("rule %s has %d tests", r.ID, tests[r.File])
		}
	}
	for file, ids := range files {
		text, err := os.ReadFile(path.Join("../../rules/library", file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "# ") || !strings.Contains(string(text), "restart_at:") {
			t.Errorf("%s: it begins with a comment that says what it detects, and a test restarts", file)
		}
		for _, id := range strings.Fields(ids) {
			for _, what := range []string{"alarm: " + id + ",", "state: cleared"} {
				if !strings.Contains(string(text), what) {
					t.Errorf("%s: no test expects %q", file, what)
				}
			}
		}
	}
}

const (
	tableBegin = "<!-- written by go test ./cmd/citywarden -run TestRuleLibraryPage -update -->\n"
	tableEnd   = "<!-- end -->\n"
)

// TestRuleLibraryPage holds the tables of docs/rule-library.md to the library and
// the built-in models.
func TestRuleLibraryPage(t *testing.T) {
	const page = "../../docs/rule-library.md"
	set, err := loadLibrary()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	folder := ""
	for _, r := range byFile(set) {
		if f := path.Dir(r.File); f != folder {
			folder = f
			fmt.Fprintf(&b, "\n### %s\n\n| rule | title | worst | models | a device needs | may be set (default) |\n|---|---|---|---|---|---|\n", folder)
		}
		needed, settable := attributes(set, r.ID)
		fmt.Fprintf(&b, "| [%s](../rules/library/%s) | %s · %s | %s | %s | %s | %s |\n", r.ID, r.File,
			r.Title.EN, r.Title.ZH, r.Severity, join(r.Models), strings.Join(needed, ", "), strings.Join(settable, ", "))
	}
	b.WriteString("\n### device models\n\n| model | title | domain | reports every | metrics |\n|---|---|---|---|---|\n")
	models, err := devices.LoadModels(devices.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range models.All() {
		metrics := make([]string, len(m.Metrics))
		for i, x := range m.Metrics {
			metrics[i] = strings.TrimSpace(fmt.Sprintf("%s %s", x.Name, cmp.Or(x.Unit, map[citywarden.Kind]string{citywarden.KindBool: "true/false", citywarden.KindText: "text"}[x.Kind])))
		}
		fmt.Fprintf(&b, "| %s | %s · %s | %s | %s | %s |\n", m.Name, m.Title.EN, m.Title.ZH, m.Domain, m.Report, strings.Join(metrics, ", "))
	}
	b.WriteString("\n")
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has lost the lines around its table", page)
	}
	want := before + tableBegin + b.String() + tableEnd + after
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(text) {
		t.Errorf("the table of %s is not that of the library; write it anew with -update", page)
	}
}
