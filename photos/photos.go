// Package photos keeps the photos of cases as files, each named by the SHA-256
// of what it holds. Before a photo is kept, everything but the picture is taken
// out of it: where it was taken, by which camera, comments and what stands
// behind its end. Only which way up it is stays.
//
//	d, err := photos.Open(filepath.Join(data, "photos"))
//	p, err := d.Keep(bytes)
//	b, err := d.Read(p.ID)
package photos

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/citywarden/citywarden"
)

// MaxPixels is how many pixels a photo may have.
const MaxPixels = 50_000_000

// Dir is a folder of photos. It may be used by several goroutines.
type Dir struct{ path string }

// Open returns the folder at path, and creates it when there is none. What a
// crash left of photos that were being written is deleted.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("photos: %w", err)
	}
	left, err := fs.Glob(os.DirFS(path), Partial+"*")
	if err != nil {
		return nil, fmt.Errorf("photos: %w", err)
	}
	for _, f := range left {
		if err := os.Remove(filepath.Join(path, f)); err != nil {
			return nil, fmt.Errorf("photos: %w", err)
		}
	}
	return &Dir{path}, nil
}

// Partial begins the name of a file that is still being written.
const Partial = "partial-"

var hash = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (d *Dir) file(id citywarden.PhotoID) (string, error) {
	if !hash.MatchString(string(id)) { // also keeps the name inside the folder
		return "", citywarden.Errorf(citywarden.CodeNotFound, "no photo %q", id)
	}
	return filepath.Join(d.path, string(id[:2]), string(id)), nil
}

// Keep cleans a photo and writes it to disk; when it returns, the file is
// durable. The same photo is kept once. CodeInvalid says what is wrong with it.
func (d *Dir) Keep(b []byte) (citywarden.Photo, error) {
	p, clean, err := Clean(b)
	if err != nil {
		return p, err
	}
	sum := sha256.Sum256(clean)
	p.ID, p.Bytes = citywarden.PhotoID(hex.EncodeToString(sum[:])), len(clean)
	path, err := d.file(p.ID)
	if err != nil {
		return p, err
	}
	if _, err := os.Stat(path); err == nil {
		return p, syncDir(filepath.Dir(path)) // who wrote it may not have come so far
	}
	if err := d.write(path, clean); err != nil {
		return p, fmt.Errorf("keep photo %s: %w", p.ID, err)
	}
	return p, nil
}

// write puts b at path at once: no reader sees half of it, and after a crash it
// is there whole or not at all.
func (d *Dir) write(path string, b []byte) error {
	folder := filepath.Dir(path)
	if err := os.Mkdir(folder, 0o700); err == nil {
		if err := syncDir(d.path); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.CreateTemp(d.path, Partial)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(folder)
}

// syncDir makes the names in a folder durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Read returns a photo; CodeNotFound when there is none of that id.
func (d *Dir) Read(id citywarden.PhotoID) ([]byte, error) {
	path, err := d.file(id)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, citywarden.Errorf(citywarden.CodeNotFound, "no photo %q", id)
	}
	return b, err
}
