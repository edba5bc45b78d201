package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing/fstest"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/devices"
	"github.com/citywarden/citywarden/rules"
)

type rulesCmd struct {
	Check    ruleCheckCmd    `cmd:"" help:"Check rule files: every mistake with its line."`
	Test     ruleTestCmd     `cmd:"" help:"Check rule files and run the tests in them, in virtual time."`
	Reload   ruleReloadCmd   `cmd:"" help:"Let a running platform take its rule files as they are now."`
	Schema   ruleSchemaCmd   `cmd:"" help:"Print the JSON Schema of rule files, for editors."`
	Library  ruleLibraryCmd  `cmd:"" help:"List the rules that come with the platform, or write their files."`
	Backtest ruleBacktestCmd `cmd:"" help:"Try the rules of a file over the stored history of a running platform."`
	WhyNot   ruleWhyNotCmd   `cmd:"" help:"Say why a rule had no alarm on a device at a moment."`
}

type ruleFiles struct {
	Path   string `arg:"" optional:"" default:"data/rules" help:"Folder of rule files, or one file (default data/rules)." type:"path"`
	Models string `help:"Folder of device models of your own (default data/models when it is there)." type:"path" placeholder:"DIR"`

	Classes string `help:"CSV file of classes of your own, as cases.classes of the configuration." type:"path" placeholder:"FILE"`
}

func (r *ruleFiles) load() (*rules.Set, error) {
	folders := []string{"data/models"}
	if r.Models != "" {
		folders = []string{r.Models}
	}
	fsys := []fs.FS{devices.Builtin()}
	for _, f := range folders {
		if _, err := os.Stat(f); err == nil {
			fsys = append(fsys, os.DirFS(f))
		} else if r.Models != "" {
			return nil, &usageError{fmt.Sprintf("--models: %v", err)}
		}
	}
	models, err := devices.LoadModels(fsys...)
	if err != nil {
		return nil, err
	}
	files, err := r.files()
	if err != nil {
		return nil, &usageError{err.Error()}
	}
	set, err := rules.Load(files, models)
	if err != nil {
		return nil, err
	}
	var own []fs.FS
	if r.Classes != "" {
		b, err := os.ReadFile(r.Classes)
		if err != nil {
			return nil, &usageError{fmt.Sprintf("--classes: %v", err)}
		}
		own = append(own, fstest.MapFS{"classes.csv": {Data: b}})
	}
	classes, err := cases.LoadClasses("", own...)
	if err != nil {
		return nil, err
	}
	return set, set.CheckClasses(classes.Check)
}

// files returns the folder that Path names, or one with the file alone.
func (r *ruleFiles) files() (fs.FS, error) {
	info, err := os.Stat(r.Path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return os.DirFS(r.Path), nil
	}
	b, err := os.ReadFile(r.Path)
	return fstest.MapFS{filepath.Base(r.Path): {Data: b}}, err
}

// shown prints what was found, as "file:line:col: …" with files as the working
// directory has them, so that an editor or a terminal finds the place.
func (r *ruleFiles) shown(w io.Writer, lead string, ps citywarden.Problems) {
	folder := r.Path
	if info, err := os.Stat(folder); err == nil && !info.IsDir() {
		folder = filepath.Dir(folder)
	}
	if here, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(here, folder); err == nil && filepath.IsLocal(rel) {
			folder = rel
		}
	}
	for _, p := range ps {
		p.File = filepath.Join(folder, p.File)
		fmt.Fprintf(w, "%s%v\n", lead, p)
	}
}

// mistakes prints those that err tells of, if any, and returns how many.
func (r *ruleFiles) mistakes(o output, err error) error {
	var wrong citywarden.Problems
	if !errors.As(err, &wrong) {
		return err
	}
	r.shown(o.err, "", wrong)
	r.shown(o.err, "warning: ", rules.WarningsOf(err))
	return fmt.Errorf("found %s", counted(len(wrong), "mistake"))
}

type ruleCheckCmd struct {
	ruleFiles
	Strict bool `help:"Fail on warnings, too."`
	JSON   bool `help:"Print what was found as JSON, for editors and CI."`
}

// finding is what rules check --json prints of each thing that it found. Names
// stay as they are: editors and CI read them.
type finding struct {
	File       string `json:"file"` // in the folder
	Line       int    `json:"line"` // from 1; 0 when it has no place
	Col        int    `json:"col"`  // in characters, from 1
	Severity   string `json:"severity"`
	Message    string `json:"message"`
	Suggestion string `json:"suggestion"` // the word that was probably meant, "" for none
}

// findings are ps as severity.
func findings(severity string, ps citywarden.Problems) []finding {
	out := make([]finding, len(ps))
	for i, p := range ps {
		out[i] = finding{p.File, p.Line, p.Col, severity, p.Message, p.Suggestion}
	}
	return out
}

// Run checks the files and says how many rules they hold.
func (r *ruleCheckCmd) Run(o output) error {
	set, err := r.load()
	var wrong citywarden.Problems
	if err != nil && (!r.JSON || !errors.As(err, &wrong)) {
		return r.mistakes(o, err)
	}
	var report struct {
		Rules    int       `json:"rules"`
		Findings []finding `json:"findings"`
	}
	report.Findings = slices.Concat(findings("error", wrong), findings("warning", rules.WarningsOf(err)))
	warnings := 0
	if set != nil {
		warnings, report.Rules = len(set.Warnings()), set.Len()
		report.Findings = slices.Concat(report.Findings, findings("warning", set.Warnings()), findings("hint", set.Untested()))
	}
	if r.JSON {
		if err := toJSON(o.out, report); err != nil {
			return err
		}
	} else {
		r.shown(o.err, "warning: ", set.Warnings())
		r.shown(o.err, "hint: ", set.Untested())
		if set.Len() == 0 {
			fmt.Fprintf(o.err, "hint: there is no rule in %s; rules stand in its *.yaml files under the key rules\n", r.Path)
		}
	}
	switch {
	case len(wrong) > 0:
		return fmt.Errorf("found %s", counted(len(wrong), "mistake"))
	case r.Strict && warnings > 0:
		return fmt.Errorf("%s, and --strict takes none", counted(warnings, "warning"))
	case !r.JSON && warnings > 0:
		fmt.Fprintf(o.out, "%s, all good but for %s\n", counted(set.Len(), "rule"), counted(warnings, "warning"))
	case !r.JSON:
		fmt.Fprintf(o.out, "%s, all good\n", counted(set.Len(), "rule"))
	}
	return nil
}

type ruleTestCmd struct{ ruleFiles }

// Run runs the tests in the files, and fails when one of them does.
func (r *ruleTestCmd) Run(o output) error {
	set, err := r.load()
	if err != nil {
		return r.mistakes(o, err)
	}
	failed := 0
	results := rules.Test(set)
	for _, t := range results {
		if !t.OK() {
			failed++
			fmt.Fprintf(o.out, "FAIL  %s (%s:%d)\n", t.Name, t.File, t.Line)
			r.shown(o.out, "", t.Problems)
			continue
		}
		fmt.Fprintf(o.out, "ok    %s (%s:%d)\n", t.Name, t.File, t.Line)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %s failed", failed, counted(len(results), "test"))
	}
	fmt.Fprintf(o.out, "%s of %s, all good\n", counted(len(results), "test"), counted(set.Len(), "rule"))
	return nil
}

type ruleReloadCmd struct{ remote }

// Run has the rule files read again and says what runs then.
func (r *ruleReloadCmd) Run(ctx context.Context, o output) error {
	c, err := r.client(ctx)
	if err != nil {
		return err
	}
	var s citywarden.RuleStatus
	if err := c.call(ctx, "POST", "/rules/reload", nil, &s); err != nil {
		return err
	}
	if r.JSON {
		return toJSON(o.out, s)
	}
	for _, w := range s.Warnings {
		fmt.Fprintf(o.err, "warning: %s\n", w.Error())
	}
	verb := "run"
	if s.Rules == 1 {
		verb = "runs"
	}
	fmt.Fprintf(o.out, "%s %s, %s passed\n", counted(s.Rules, "rule"), verb, counted(s.Tests, "test"))
	return nil
}

type ruleSchemaCmd struct{}

// Run prints the schema.
func (ruleSchemaCmd) Run(o output) error {
	_, err := o.out.Write(rules.JSONSchema())
	return err
}
