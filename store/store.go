// Package store keeps what people and devices are registered with, alarms,
// cases and the cursors of the log's consumers in SQL: in SQLite, or in
// PostgreSQL where the place is a URL.
//
//	db, err := store.Open(ctx, filepath.Join(dir, "citywarden.db"))
//	db, err := store.Open(ctx, "postgres://citywarden@db.example/citywarden")
//	defer db.Close()
//
// SQL is text in the file that uses it, with $1 placeholders and in a dialect
// that both understand. Times are stored as BIGINT, milliseconds
// since 1970 UTC; 0 is the zero time. Structures that are never searched by
// their parts are stored as JSON text. Migrations run at Open and only go forward.
package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"net/url"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // registers the driver
)

//go:embed migrations/*.sql
var migrations embed.FS

// DB is the database. Its methods implement the store interfaces that the
// services declare; it may be used by several goroutines.
type DB struct {
	sql *sql.DB
	// turn is held while writing: SQLite has one writer at a time, and those that
	// wait for its lock look again up to 100 ms later, in no order. Here they queue.
	turn chan struct{}
	// owner is nil for SQLite.
	owner *owner
}

// Open opens the SQLite file or the PostgreSQL database at place, and brings
// its schema up to date. An SQLite file is created when there is none. Every
// commit is synced to disk. CodeConflict when another process has the
// PostgreSQL database open.
func Open(ctx context.Context, place string) (*DB, error) {
	if IsURL(place) {
		return openPostgres(ctx, place)
	}
	return openSQLite(ctx, place)
}

func openSQLite(ctx context.Context, path string) (*DB, error) {
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: url.Values{
		"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(10000)", "foreign_keys(1)"},
		"_txlock": {"immediate"},
	}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	d := &DB{sql: db, turn: make(chan struct{}, 1)}
	if err := d.migrate(ctx, goose.DialectSQLite3); err != nil {
		db.Close()
		return nil, fmt.Errorf("database %s: %w", path, err)
	}
	return d, nil
}

// Close closes the database.
func (d *DB) Close() error {
	if d.owner != nil {
		d.owner.release()
	}
	return d.sql.Close()
}

func (d *DB) migrate(ctx context.Context, dialect goose.Dialect) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(dialect, d.sql, dir)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("bring schema up to date: %w", err)
	}
	return nil
}

// querier is what *sql.DB and *sql.Tx have in common.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// writer is what *sql.DB and *sql.Conn have in common for those that write.
type writer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}

// await waits for the turn to write; done gives it to the next.
func (d *DB) await(ctx context.Context) (w writer, done func(), err error) {
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("wait to write: %w", ctx.Err())
	}
	done = func() { <-d.turn }
	if d.owner == nil {
		return d.sql, done, nil
	}
	if w, err = d.owner.writer(ctx); err != nil {
		done()
		return nil, nil, err
	}
	return w, done, nil
}

// exec runs one statement that writes.
func (d *DB) exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	w, done, err := d.await(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return w.ExecContext(ctx, query, args...)
}

// tx runs f in one transaction, committed when f returns nil. f must not write
// past it: that would wait for itself.
func (d *DB) tx(ctx context.Context, f func(querier) error) error {
	w, done, err := d.await(ctx)
	if err != nil {
		return err
	}
	defer done()
	t, err := w.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer t.Rollback() // no effect after Commit
	if err := f(t); err != nil {
		return err
	}
	if err := t.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// toMS returns t as stored: milliseconds since 1970, 0 for the zero time.
func toMS(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// fromMS is the inverse of toMS.
func fromMS(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
