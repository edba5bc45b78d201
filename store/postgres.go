package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/citywarden/citywarden"
)

const (
	// minPostgres is the oldest PostgreSQL that is taken, as server_version_num has it.
	minPostgres = 130000
	// ownerLock is the advisory lock of the process that owns a database.
	ownerLock = 0x6369747977617264
	// lockNotAvailable is the SQLSTATE of a lock that was not given in time.
	lockNotAvailable = "55P03"
	// maxConns is how many connections are open at a time, one of them the owner's.
	maxConns = 16
)

// IsURL reports whether place is the URL of a PostgreSQL database.
func IsURL(place string) bool {
	return strings.HasPrefix(place, "postgres://") || strings.HasPrefix(place, "postgresql://")
}

func openPostgres(ctx context.Context, url string) (*DB, error) {
	c, err := pgx.ParseConfig(url)
	if err != nil { // it hides the password
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "database: %w; write sql.url like postgres://USER:PASSWORD@HOST:5432/DATABASE", err)
	}
	place := fmt.Sprintf("PostgreSQL database %s on %s", c.Database, c.Host)
	db := sql.OpenDB(connector{stdlib.GetConnector(*c)})
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	d := &DB{sql: db, turn: make(chan struct{}, 1), owner: &owner{sql: db, place: place}}
	if err := d.preparePostgres(ctx); err != nil {
		d.Close()
		if citywarden.CodeOf(err) == citywarden.CodeConflict { // the owner's, which names the place
			return nil, err
		}
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	return d, nil
}

func (d *DB) preparePostgres(ctx context.Context) error {
	var version int
	var encoding, collation string
	err := d.sql.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
		(SELECT datcollate FROM pg_database WHERE datname = current_database())`).Scan(&version, &encoding, &collation)
	if err != nil {
		return citywarden.Errorf(citywarden.CodeInvalid, "%w; look at sql.url, and whether the server runs and lets this user in", err)
	}
	if version < minPostgres {
		return citywarden.Errorf(citywarden.CodeInvalid, "the server is version %d; PostgreSQL %d or newer is needed", version/10000, minPostgres/10000)
	}
	if encoding != "UTF8" || collation != "C" && collation != "POSIX" {
		return citywarden.Errorf(citywarden.CodeInvalid, "it has encoding %s and collation %s; make one with UTF8 and C: "+
			"CREATE DATABASE citywarden TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'", encoding, collation)
	}
	if _, err := d.owner.writer(ctx); err != nil {
		return err
	}
	// The one type that the migrations name and PostgreSQL does not know.
	_, err = d.sql.ExecContext(ctx, `DO $$ BEGIN
		IF to_regtype('blob') IS NULL THEN CREATE DOMAIN blob AS bytea; END IF;
	END $$`)
	if err != nil {
		return fmt.Errorf("make the type blob: %w; the user of sql.url must own the database", err)
	}
	return d.migrate(ctx, goose.DialectPostgres)
}

// owner keeps the one connection of a process that writes. It holds an advisory
// lock of the database, so that of several processes only one writes, and one
// that has lost its connection cannot go on behind the back of its successor.
type owner struct {
	sql   *sql.DB
	place string
	conn  *sql.Conn // nil before the first use and when it broke
}

// writer returns the connection, a new one when the last broke. The caller has
// the turn to write. CodeConflict when another process owns the database.
func (o *owner) writer(ctx context.Context) (writer, error) {
	if o.conn != nil && o.conn.Raw(alive) == nil {
		return o.conn, nil
	}
	o.release()
	conn, err := o.sql.Conn(ctx)
	if err != nil {
		return nil, err
	}
	// One that was just killed may still hold it until the server has noticed.
	if _, err = conn.ExecContext(ctx, `SET lock_timeout = '3s'`); err == nil {
		_, err = conn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, int64(ownerLock))
	}
	if err == nil {
		_, err = conn.ExecContext(ctx, `RESET lock_timeout`)
	}
	if err == nil {
		o.conn = conn
		return conn, nil
	}
	drop(conn)
	if pg := new(pgconn.PgError); errors.As(err, &pg) && pg.Code == lockNotAvailable {
		return nil, citywarden.Errorf(citywarden.CodeConflict, "%s is used by another citywarden; stop it, or give this one a database of its own in sql.url", o.place)
	}
	return nil, fmt.Errorf("lock the database: %w", err)
}

// alive fails for a connection that the driver knows to be broken.
func alive(c any) error {
	if c.(conn).Conn.Conn().IsClosed() {
		return driver.ErrBadConn
	}
	return nil
}

// drop closes a connection, which must not go back into the pool with its lock.
func drop(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	conn.Close()
}

// release closes the connection, which gives the lock free.
func (o *owner) release() {
	if o.conn != nil {
		drop(o.conn)
		o.conn = nil
	}
}

// connector opens connections that take any text.
type connector struct{ driver.Connector }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	x, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return conn{x.(*stdlib.Conn)}, nil
}

type conn struct{ *stdlib.Conn }

// CheckNamedValue makes PostgreSQL take any text, as SQLite does: what it can't
// store, bytes that are not UTF-8 and NUL, becomes U+FFFD.
func (c conn) CheckNamedValue(v *driver.NamedValue) error {
	if s := reflect.ValueOf(v.Value); s.Kind() == reflect.String {
		v.Value = strings.ReplaceAll(strings.ToValidUTF8(s.String(), "\uFFFD"), "\x00", "\uFFFD")
	}
	return nil
}
