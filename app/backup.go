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
	photosDir    = "photos"
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
	TimeZone   string    `json:"time_zone"`  // of the county (IANA name); "" in older backups
}

// Zone returns the county's time zone, UTC when the backup does not say it.
func (m Manifest) Zone() *time.Location {
	zone, err := time.LoadLocation(m.TimeZone)
	if err != nil {
		return time.UTC
	}
	return zone
}

// backup writes the whole platform to w while it runs. The database comes
// first, so that the log and the series reach at least as far as the cursors in it.
func (b *building) backup(ctx context.Context, w io.Writer) error {
	z := zip.NewWriter(w)
	m := Manifest{Format: backupFormat, Version: b.options.Version, Time: time.Now().UTC(), Series: b.core != nil, PostgreSQL: b.config.SQL.URL != "", TimeZone: b.config.TimeZone}
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

// copies is how the folders begin in which the database is copied for a backup: a
// name that nobody chooses, as what is left of them is removed at the start.
const copies = ".copying-"

// backupDatabase copies the database, for which there has to be room beside log.reserve.
func (b *building) backupDatabase(ctx context.Context, z *zip.Writer) error {
	var need uint64
	for _, name := range []string{dbFile, dbFile + "-wal"} {
		if info, err := os.Stat(b.path(name)); err == nil {
			need += uint64(info.Size())
		}
	}
	free, err := journal.Free(b.config.Data)
	if reserve := uint64(b.config.Log.Reserve); err == nil && free < need+reserve {
		return citywarden.Errorf(citywarden.CodeTransient, "a backup needs a copy of the database, %d MiB, and the disk of %s has %d MiB free of which log.reserve keeps %d MiB; make room",
			need>>20+1, b.config.Data, free>>20, reserve>>20)
	}
	dir, err := os.MkdirTemp(b.config.Data, copies+"*")
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
	own := []string{dbFile, dbFile + "-wal", dbFile + "-shm", logDir, seriesDir, modelsDir, rulesDir, "lock", lostFound}
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		in, base := filepath.Split(rel)
		passing := in == "" && d.IsDir() && strings.HasPrefix(base, copies) ||
			filepath.Clean(in) == photosDir && strings.HasPrefix(base, photos.Partial) // not there for long
		switch {
		case name == filesDir && (passing || slices.Contains(own, rel)):
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
	info, err := f.Stat()
	if err != nil {
		return err
	}
	out, err := z.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(f, info.Size())) // one that grows may be the backup itself
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

// lostFound is a folder that some file systems have in their root.
const lostFound = "lost+found"

// restoring is the folder in a data folder where a restore works until all is
// there. With it in a data folder the platform does not start.
const restoring = ".restoring"

// Restore makes the data folder dir of a backup. The folder must be empty or not
// there; it may be a link, or where a disk is mounted. What is restored appears
// in it when it is whole, and after an error nothing is left; what can't be taken
// away again then does not start.
func Restore(ctx context.Context, file, dir string, log *slog.Logger) (m Manifest, err error) {
	there, err := restorable(dir)
	if err != nil {
		return m, err
	}
	z, err := zip.OpenReader(file)
	if err != nil {
		return m, citywarden.Errorf(citywarden.CodeInvalid, "%s is no backup, or not whole: %w", file, err)
	}
	defer z.Close()
	if m, err = manifest(file, &z.Reader); err != nil {
		return m, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return m, err
	}
	if !there {
		defer func() {
			if err != nil {
				_ = os.Remove(dir) // not when there is something in it
			}
		}()
	}
	tmp := filepath.Join(dir, restoring)
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return m, err
	}
	half := false
	defer func() {
		if !half {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := roomFor(file, dir, &z.Reader, m); err != nil {
		return m, err
	}
	if err := restoreInto(ctx, tmp, &z.Reader, m, log); err != nil {
		return m, fmt.Errorf("restore %s: %w", file, err)
	}
	if half, err = moveAll(tmp, dir); err != nil {
		return m, fmt.Errorf("restore %s: %w", file, err)
	}
	return m, nil
}

// moveAll moves what is in one folder into another, or after an error nothing; half says
// that then not all could be taken back.
func moveAll(from, to string) (half bool, err error) {
	list, err := os.ReadDir(from)
	if err != nil {
		return false, err
	}
	for i, e := range list {
		if err = os.Rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err == nil {
			continue
		}
		for _, e := range list[:i] {
			if back := os.Rename(filepath.Join(to, e.Name()), filepath.Join(from, e.Name())); back != nil {
				half, err = true, errors.Join(err, back)
			}
		}
		return half, err
	}
	return false, nil
}

// restorable says whether there is a folder dir, and an error when it is not empty.
func restorable(dir string) (there bool, err error) {
	list, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, citywarden.Errorf(citywarden.CodeConflict, "%w; name another folder with --data", err)
	}
	for _, e := range list {
		if e.Name() != lostFound {
			return true, citywarden.Errorf(citywarden.CodeConflict, "%s is not empty, it has %s; name another folder with --data, or move it away", dir, e.Name())
		}
	}
	return true, nil
}

// roomFor returns an error when the disk of dir has no room for what is in a backup.
func roomFor(file, dir string, z *zip.Reader, m Manifest) error {
	const group = 64 // bytes that the log takes beside each commit group
	var need uint64
	for _, f := range z.File {
		need += f.UncompressedSize64
	}
	need += need/16 + (m.LastGroup-m.FirstGroup+1)*group
	free, err := journal.Free(dir)
	if err != nil || free >= need { // where it can't be known, the writing tells
		return nil
	}
	return citywarden.Errorf(citywarden.CodeTransient, "what is in %s takes %d MiB, and the disk of %s has %d MiB free; make room, or name another folder with --data",
		file, need>>20+1, dir, free>>20)
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
