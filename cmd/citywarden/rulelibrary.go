package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices"
	"github.com/citywarden/citywarden/rules"
)

type ruleLibraryCmd struct {
	Write string   `help:"Write the files into this folder, to be owned and edited; a file that is there stays as it is." placeholder:"DIR" type:"path"`
	Only  []string `help:"Only these folders of the library: fire, pipe, parking, building, device." placeholder:"FOLDER"`
}

// Run lists the rules of the library, or writes its files.
func (r *ruleLibraryCmd) Run(o output) error {
	folders, err := r.folders()
	if err != nil {
		return err
	}
	if r.Write == "" {
		return r.list(o, folders)
	}
	for _, folder := range folders {
		if err := r.copy(o, folder); err != nil {
			return err
		}
	}
	return nil
}

// folders returns those of the library that were asked for.
func (r *ruleLibraryCmd) folders() ([]string, error) {
	entries, err := fs.ReadDir(rules.Library(), ".")
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	for _, name := range r.Only {
		if !slices.Contains(all, name) {
			return nil, &usageError{fmt.Sprintf("--only: the library has no folder %q; it has %s", name, strings.Join(all, ", "))}
		}
	}
	if len(r.Only) > 0 {
		return r.Only, nil
	}
	return all, nil
}

// copy writes the files of a folder, and never over one that is there.
func (r *ruleLibraryCmd) copy(o output, folder string) error {
	files, err := fs.ReadDir(rules.Library(), folder)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(r.Write, folder), 0o755); err != nil {
		return err
	}
	for _, f := range files {
		text, err := fs.ReadFile(rules.Library(), path.Join(folder, f.Name()))
		if err != nil {
			return err
		}
		name := filepath.Join(r.Write, folder, f.Name())
		w, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			fmt.Fprintln(o.out, "kept ", name)
			continue
		}
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		if err := errors.Join(err, w.Close()); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		fmt.Fprintln(o.out, "wrote", name)
	}
	return nil
}

// loadLibrary returns the rules of the library, checked against the built-in models.
func loadLibrary() (*rules.Set, error) {
	models, err := devices.LoadModels(devices.Builtin())
	if err != nil {
		return nil, err
	}
	return rules.Load(rules.Library(), models)
}

func (r *ruleLibraryCmd) list(o output, folders []string) error {
	set, err := loadLibrary()
	if err != nil {
		return err
	}
	for _, x := range byFile(set) {
		if !slices.Contains(folders, path.Dir(x.File)) {
			continue
		}
		fmt.Fprintf(o.out, "%s  %s  %s · %s\n  models: %s\n", x.ID, x.Severity, x.Title.EN, x.Title.ZH, join(x.Models))
		needed, settable := attributes(set, x.ID)
		if len(needed) > 0 {
			fmt.Fprintf(o.out, "  needs: %s\n", strings.Join(needed, ", "))
		}
		if len(settable) > 0 {
			fmt.Fprintf(o.out, "  may be set: %s\n", strings.Join(settable, ", "))
		}
	}
	return nil
}

// byFile returns the rules of set in the order of their files, those of storms
// beside the rules that make them.
func byFile(set *rules.Set) []citywarden.Rule {
	all := set.Rules()
	slices.SortStableFunc(all, func(a, b citywarden.Rule) int { return cmp.Compare(a.File, b.File) })
	return all
}

// attributes returns the attributes that a device must have for the rule, and
// those that it may have, with their defaults.
func attributes(set *rules.Set, id citywarden.RuleID) (needed, settable []string) {
	for _, a := range set.Attributes(id) {
		switch {
		case a.Needed:
			needed = append(needed, a.Name)
		case a.Default != "":
			settable = append(settable, fmt.Sprintf("%s (%s)", a.Name, a.Default))
		default:
			settable = append(settable, a.Name)
		}
	}
	return needed, settable
}

func join(models []citywarden.ModelName) string {
	words := make([]string, len(models))
	for i, m := range models {
		words[i] = string(m)
	}
	return strings.Join(words, ", ")
}
