// Package demo is what the demo county runs with besides its devices.
package demo

import (
	"embed"
	"io/fs"
	"testing/fstest"

	"github.com/citywarden/citywarden/rules"
)

//go:embed rules
var own embed.FS

// Rules returns the rule files of the demo: the rule library, with files of its
// own in place of those whose holding times are too long for a visitor.
func Rules() (fs.FS, error) {
	hurried, err := fs.Sub(own, "rules")
	if err != nil {
		return nil, err
	}
	out := fstest.MapFS{}
	for _, from := range []fs.FS{rules.Library(), hurried} {
		err := fs.WalkDir(from, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := fs.ReadFile(from, path)
			out[path] = &fstest.MapFile{Data: text, Mode: 0o600}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
