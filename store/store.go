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
	"sync"
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
	// stmts is nil for PostgreSQL, whose driver has its own.
	stmts *statements
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
	d := &DB{sql: db, turn: make(chan struct{}, 1), stmts: &statements{db: db, by: map[string]*sql.Stmt{}}}
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
// past it: that would wait for itself. When ctx ends, a statement of f fails by it and the
// transaction is undone before others write. (Were it begun with ctx, database/sql would
// undo it in a goroutine of its own, maybe when the next has begun on the connection, and then
// PostgreSQL would commit both.)
func (d *DB) tx(ctx context.Context, f func(querier) error) error {
	w, done, err := d.await(ctx)
	if err != nil {
		return err
	}
	defer done()
	t, err := w.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer t.Rollback() // no effect after Commit
	q := querier(t)
	if d.stmts != nil {
		q = prepared{t, d.stmts}
	}
	if err := f(q); err != nil {
		return err
	}
	if err := t.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// statements keeps what writers run again and again, compiled: SQLite takes
// about as long to compile a statement as to run it.
type statements struct {
	db *sql.DB
	mu sync.Mutex
	by map[string]*sql.Stmt
}

// maxStatements bounds statements; nearly all texts are constants.
const maxStatements = 500

// of returns the compiled query, nil when there is none: let the query itself say why.
func (s *statements) of(ctx context.Context, query string) *sql.Stmt {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.by[query]
	if st != nil || len(s.by) == maxStatements {
		return st
	}
	st, err := s.db.PrepareContext(ctx, query)
	if err != nil {
		return nil
	}
	s.by[query] = st
	return st
}

// prepared is a transaction that runs its queries compiled. The rows of one must
// be read before the same query is run again.
type prepared struct {
	*sql.Tx
	stmts *statements
}

func (p prepared) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if st := p.stmts.of(ctx, query); st != nil {
		return p.StmtContext(ctx, st).ExecContext(ctx, args...)
	}
	return p.Tx.ExecContext(ctx, query, args...)
}

func (p prepared) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if st := p.stmts.of(ctx, query); st != nil {
		return p.StmtContext(ctx, st).QueryContext(ctx, args...)
	}
	return p.Tx.QueryContext(ctx, query, args...)
}

func (p prepared) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if st := p.stmts.of(ctx, query); st != nil {
		return p.StmtContext(ctx, st).QueryRowContext(ctx, args...)
	}
	return p.Tx.QueryRowContext(ctx, query, args...)
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
