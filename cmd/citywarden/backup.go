package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/citywarden/citywarden/app"
)

type backupCmd struct {
	remote
	File string `arg:"" help:"Where to put it, like citywarden.zip; it must not be there yet."`
}

// Run fetches a backup. The file gets its name only when it is whole.
func (b *backupCmd) Run(ctx context.Context, o output) (err error) {
	if _, err := os.Stat(b.File); err == nil {
		return &usageError{fmt.Sprintf("%s is there already; name another file", b.File)}
	}
	c, err := b.client(ctx)
	if err != nil {
		return err
	}
	c.http.Timeout = 0
	tmp := b.File + ".part"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp) // nothing is left of it after the renaming
	if err = c.call(ctx, "GET", "/backup", nil, io.Writer(f)); errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w; the platform's log says why it ended", err)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	m, err := app.ReadManifest(tmp)
	if err != nil {
		return fmt.Errorf("%w; the platform's log says why", err)
	}
	if err := os.Rename(tmp, b.File); err != nil {
		return err
	}
	if b.JSON {
		return toJSON(o.out, m)
	}
	info, err := os.Stat(b.File)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.out, "%s: %d bytes, as of %s, commit groups %d to %d%s\n", b.File, info.Size(), stampIn(m.Zone())(m.Time), m.FirstGroup, m.LastGroup,
		whatElse(m, "back it up too", "pg_dump it before this"))
	return nil
}

// whatElse says what is in the backup besides the log, and what to do with what is not.
func whatElse(m app.Manifest, series, database string) string {
	s := "; the time series are in an InfluxDB of their own: " + series
	if m.Series {
		s = ", time series"
	}
	if m.PostgreSQL {
		s += "; the database is in a PostgreSQL: " + database
	}
	return s
}

type restoreCmd struct {
	File string `arg:"" help:"A file that citywarden backup has written." type:"existingfile"`
	Data string `help:"Folder to restore into; it must be empty or not there." default:"./data" placeholder:"DIR"`
}

// Run makes a data folder of a backup.
func (r *restoreCmd) Run(ctx context.Context, o output) error {
	begun := time.Now()
	m, err := app.Restore(ctx, r.File, r.Data, slog.New(slog.NewTextHandler(o.err, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return err
	}
	fmt.Fprintf(o.out, "%s holds the platform as of %s: commit groups %d to %d%s (%s)\nstart it with: citywarden serve --data %s\n",
		r.Data, stampIn(m.Zone())(m.Time), m.FirstGroup, m.LastGroup,
		whatElse(m, "restore it too", "pg_restore its dump too"), time.Since(begun).Round(time.Millisecond), r.Data)
	return nil
}
