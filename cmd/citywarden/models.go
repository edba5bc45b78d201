package main

import (
	"fmt"
	"io/fs"

	"github.com/citywarden/citywarden/devices"
)

type modelsCmd struct {
	Check modelCheckCmd `cmd:"" help:"Check device models, and run the vectors of their codecs: every mistake with its line."`
}

type modelCheckCmd struct {
	Path string `arg:"" optional:"" default:"data/models" help:"Folder of device models, or one file (default data/models)." type:"path"`
}

// Run checks the files, beside the models that come with the platform, and says how many they hold.
func (m *modelCheckCmd) Run(o output) error {
	own := ruleFiles{Path: m.Path}
	files, err := own.files()
	if err != nil {
		return &usageError{err.Error()}
	}
	if _, err := devices.LoadModels(devices.Builtin(), files); err != nil {
		return own.mistakes(o, err)
	}
	n := 0
	for _, pattern := range []string{"*.yaml", "*.yml"} {
		found, err := fs.Glob(files, pattern)
		if err != nil {
			return err
		}
		n += len(found)
	}
	fmt.Fprintf(o.out, "%s, all good\n", counted(n, "model"))
	return nil
}
