package app

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/ingest/influx"
	"github.com/citywarden/citywarden/ingest/journal"
	"github.com/citywarden/citywarden/photos"
)

// Names in a backup, which is a zip file, and in the data folder.
const (
	manifestFile = "manifest.json"
	dbFile       = "citywarden.db"
	logFile      = "log.groups"
	logDir       = "log"
	seriesDir    = "series"
	modelsDir    = "models"
	rulesDir     = "rules"
	filesDir     = "files" // in a backup only: the rest of the data folder
)

// backupFormat is Manifest.Format of the backups that this version writes and reads.
const backupFormat = 1

// Manifest says what a backup holds.
type Manifest struct {
	Format     int       `json:"format"`
	Version    string    `json:"version"` // of the citywarden that wrote it
	Time       time.Time `json:"time"`    // when it was begun
	FirstGroup uint64    `json:"first_group"`
	LastGroup  uint64    `json:"last_group"` // newest commit group of the log
	Series     bool      `json:"series"`     // false when they are in an InfluxDB of its own
	PostgreSQL bool      `json:"postgresql"` // the database is in one, and not in here
}

// backup writes the whole platform to w while it runs. The database comes
// first, so that the log and the series reach at least as far as the cursors in it.
func (b *building) backup(ctx context.Context, w io.Writer) error {
	z := zip.NewWriter(w)
	m := Manifest{Format: backupFormat, Version: b.options.Version, Time: time.Now().UTC(), Series: b.core != nil, PostgreSQL: b.config.SQL.URL != ""}
	if !m.PostgreSQL {
		if err := b.backupDatabase(ctx, z); err != nil {
			return err
		}
	}
	for name, dir := range map[string]string{modelsDir: b.config.modelsDir(), rulesDir: b.config.rulesDir(), filesDir: b.config.Data} {
		if err := backupFolder(z, name, dir); err != nil {
			return fmt.Errorf("back up %s: %w", dir, err)
		}
	}
	out, err := z.Create(logFile)
	if err != nil {
		return err
	}
	if m.FirstGroup, m.LastGroup, err = b.journal.Backup(ctx, out); err != nil {
		return err
	}
	if b.core != nil {
		create := func(name string) (io.Writer, error) { return z.Create(path.Join(seriesDir, name)) }
		if err := b.core.Backup(create); err != nil {
			return err
		}
	}
	if out, err = z.Create(manifestFile); err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(m); err != nil {
		return err
	}
	return z.Close()
}

func (b *building) backupDatabase(ctx context.Context, z *zip.Writer) error {
	dir, err := os.MkdirTemp(b.config.Data, "backup-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, dbFile)
	if err := b.db.Backup(ctx, file); err != nil {
		return err
	}
	return backupFile(z, dbFile, file)
}

// backupFolder adds the files below dir as name/…; of the data folder only what
// has no place of its own in a backup.
func backupFolder(z *zip.Writer, name, dir string) error {
	own := []string{dbFile, dbFile + "-wal", dbFile + "-shm", logDir, seriesDir, modelsDir, rulesDir, "lock"}
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		switch {
		case name == filesDir && (slices.Contains(own, rel) || strings.HasPrefix(rel, "backup-")),
			strings.HasPrefix(d.Name(), photos.Partial): // not there for long
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case d.Type().IsRegular():
			return backupFile(z, path.Join(name, filepath.ToSlash(rel)), p)
		}
		return nil
	})
}

func backupFile(z *zip.Writer, name, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	out, err := z.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, f)
	return err
}

// ReadManifest opens a backup far enough to say what it holds; CodeInvalid when
// it is none, or not whole.
func ReadManifest(file string) (Manifest, error) {
	z, err := zip.OpenReader(file)
	if err != nil {
		return Manifest{}, citywarden.Errorf(citywarden.CodeInvalid, "%s is no backup, or not whole: %w", file, err)
	}
	defer z.Close()
	return manifest(file, &z.Reader)
}

func manifest(file string, z *zip.Reader) (m Manifest, err error) {
	f, err := z.Open(manifestFile)
	if err != nil {
		return m, citywarden.Errorf(citywarden.CodeInvalid, "%s is no backup of citywarden: it has no %s", file, manifestFile)
	}
	defer f.Close()
	if err := json.NewDecoder(f).Decode(&m); err != nil {
		return m, citywarden.Errorf(citywarden.CodeInvalid, "%s: %s: %w", file, manifestFile, err)
	}
	if m.Format != backupFormat {
		return m, citywarden.Errorf(citywarden.CodeInvalid, "%s is a backup in format %d, this citywarden reads format %d; it was written by citywarden %s", file, m.Format, backupFormat, m.Version)
	}
	return m, nil
}

// Restore makes the data folder dir of a backup. The folder must be empty or
// not there, and appears only when it is whole.
func Restore(ctx context.Context, file, dir string, log *slog.Logger) (m Manifest, err error) {
	if list, err := os.ReadDir(dir); err == nil && len(list) > 0 {
		return m, citywarden.Errorf(citywarden.CodeConflict, "%s is not empty; name another folder with --data, or move it away", dir)
	}
	z, err := zip.OpenReader(file)
	if err != nil {
		return m, citywarden.Errorf(citywarden.CodeInvalid, "%s is no backup, or not whole: %w", file, err)
	}
	defer z.Close()
	if m, err = manifest(file, &z.Reader); err != nil {
		return m, err
	}
	tmp := strings.TrimRight(dir, string(filepath.Separator)) + ".restoring"
	if err := os.RemoveAll(tmp); err != nil {
		return m, err
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return m, err
	}
	defer os.RemoveAll(tmp) // nothing is left of it after the renaming
	if err := restoreInto(ctx, tmp, &z.Reader, m, log); err != nil {
		return m, fmt.Errorf("restore %s: %w", file, err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	return m, os.Rename(tmp, dir)
}

func restoreInto(ctx context.Context, dir string, z *zip.Reader, m Manifest, log *slog.Logger) error {
	for _, f := range z.File {
		name := f.Name
		switch first, rest, _ := strings.Cut(name, "/"); first {
		case manifestFile, logFile, seriesDir:
			continue
		case filesDir:
			name = rest
		}
		if !filepath.IsLocal(name) {
			return citywarden.Errorf(citywarden.CodeInvalid, "the name %q leads out of the folder", f.Name)
		}
		if err := restoreFile(filepath.Join(dir, filepath.FromSlash(name)), f); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	in, err := z.Open(logFile)
	if err != nil {
		return err
	}
	err = journal.Restore(ctx, filepath.Join(dir, logDir), in, log)
	if err = errors.Join(err, in.Close()); err != nil || !m.Series {
		return err
	}
	return influx.RestoreCore(filepath.Join(dir, seriesDir), func(name string) (io.ReadCloser, error) { return z.Open(path.Join(seriesDir, name)) })
}

func restoreFile(name string, from *zip.File) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	in, err := from.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in) // the zip's checksum is looked at
	return errors.Join(err, out.Sync(), out.Close())
}
