package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A key to seal with is made where nothing is sealed yet, and never in place of one that is missing.
func TestSealIsMissing(t *testing.T) {
	file := filepath.Join(t.TempDir(), sealFile)
	var log strings.Builder
	open := func(used bool) error {
		_, err := openSeal(file, func() (bool, error) { return used, nil }, slog.New(slog.NewTextHandler(&log, nil)))
		return err
	}
	if err := open(true); err == nil || !strings.Contains(err.Error(), "bring it back") {
		t.Errorf("without the key: %v", err)
	}
	if _, err := os.Stat(file); err == nil || log.String() != "" {
		t.Errorf("a key was made in its place; log:\n%s", &log)
	}
	if err := open(false); err != nil || !strings.Contains(log.String(), "level=INFO") {
		t.Errorf("at the first start: %v; log:\n%s", err, &log)
	}
	if err := open(true); err != nil {
		t.Errorf("with the key: %v", err)
	}
}
