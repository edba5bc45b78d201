//go:build unix

package app

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/citywarden/citywarden"
)

// lockFolder makes sure that no other process uses the data folder, and returns
// what gives it free. The system gives it free too when the process dies.
func lockFolder(dir string) (func() error, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w; choose another with --data", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, citywarden.Errorf(citywarden.CodeConflict, "data folder %s is used by another citywarden; stop it, or choose another folder with --data", dir)
	}
	return f.Close, nil
}
