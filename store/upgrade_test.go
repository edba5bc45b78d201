package store

import (
	"cmp"
	"database/sql"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/pressly/goose/v3"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/store/pgtest"
)

// rewritten is what migrations make of what is there already, by number, table and column: nil drops the column. Whatever else is in
// a row stays as it is.
var rewritten = map[string]func(was string) string{
	"12 dead_letters.received": func(was string) string { return was + "000000" }, // ms became ns
	"32 devices.token":         func(string) string { return "<nil>" },            // these went to device_secrets
	"32 devices.token_before":  nil,
	"32 devices.token_until":   nil,
}

// derived is what migrations put into new columns and tables, from what is there already. Other new columns have nothing.
var derived = map[string]string{
	"12 dead_letters.stage": "decode",
	"15 cases.source":       "sensor",
	"28 cases.area":         `{"grid":1}`,
	"28 case_work_sums": fmt.Sprintf(`[map[by_what:department key_value:{"department":1} kind:{"kind":1} marks:%[1]d month:%[2]d n:1]`+
		` map[by_what:person key_value:{"person":1} kind:{"kind":1} marks:%[1]d month:%[2]d n:1]`+
		` map[by_what:village key_value:{"village":1} kind:{"kind":1} marks:%[1]d month:%[2]d n:1]]`, filler("marks", ""), filler("month", "")),
	"32 device_secrets": fmt.Sprintf(`[map[device:{"id":1} hash:{"token":1} hint: kind: replaced:0 since:0 until:0]`+
		` map[device:{"id":1} hash:{"token_before":1} hint: kind: replaced:1 since:0 until:%d]]`, filler("token_until", "")),
}

// TestOlderSchemasAreBroughtUp begins with the schema of the first migration and
// goes up one by one, with a row in each table and something in each column from when it is there: whatever
// version wrote a database, opening it loses nothing of it and changes nothing but what is meant to be.
func TestOlderSchemasAreBroughtUp(t *testing.T) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil || len(files) < 21 {
		t.Fatal(files, err)
	}
	// A number left out invites a migration that comes later than a higher one; no database that has the
	// higher one would start then. 38 and 39 were left out, and stay so.
	next := int64(1)
	for _, f := range files {
		if next == 38 {
			next = 40
		}
		if v, err := goose.NumericComponent(f); err != nil || v != next {
			t.Fatalf("%s has number %d, %v; renumber it to %05d, or the newer one of two", f, v, err, next)
		}
		next++
	}
	place := pgtest.Place(t, filepath.Join(t.TempDir(), "old.db"))
	old, p := older(t, place)
	list := "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'goose_%' ORDER BY rowid"
	if IsURL(place) {
		list = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname NOT LIKE 'goose_%' ORDER BY oid"
	}
	was := map[string][]row{} // by table, after the migration before
	sources := p.ListSources()
	for i, source := range sources {
		if i < len(sources)-1 {
			if _, err := p.UpTo(t.Context(), source.Version); err != nil {
				t.Fatal(err)
			}
		} else { // as the platform does it
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			db, err := Open(t.Context(), place)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			old = db.sql
		}
		is := map[string][]row{}
		for _, table := range column(t, old, list) {
			name := fmt.Sprintf("%d %s", source.Version, table)
			rows, known := was[table]
			now := content(t, old, table)
			switch {
			case !known && len(now) == 0:
				fill(t, old, table)
			case !known:
				if got := fmt.Sprint(now); got != derived[name] {
					t.Errorf("%s: filled with\n%s\nwant, by derived,\n%s", name, got, derived[name])
				}
			case len(rows) != len(now):
				t.Errorf("%s: there were %d rows, now there are %d", name, len(rows), len(now))
			default:
				for i := range rows {
					unharmed(t, name, rows[i], now[i])
				}
				if len(rows) > 0 {
					fillNew(t, old, table, rows[0])
				}
			}
			is[table] = content(t, old, table)
		}
		for table := range was {
			if is[table] == nil {
				t.Errorf("%d %s: the table is gone", source.Version, table)
			}
		}
		was = is
	}
}

// row is what is in a row of a table, by column.
type row map[string]string

// content returns the rows of a table in some order that stays.
func content(t *testing.T, db *sql.DB, table string) (all []row) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT * FROM "+table)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		values, into := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		r := row{}
		for i, name := range names {
			if b, ok := values[i].([]byte); ok {
				values[i] = string(b)
			}
			r[name] = fmt.Sprint(values[i])
		}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b row) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return all
}

// unharmed fails the test if a migration did something to a row that it is not known to do.
func unharmed(t *testing.T, name string, was, is row) {
	t.Helper()
	for column, want := range was {
		name := name + "." + column
		got, there := is[column]
		change, meant := rewritten[name]
		if meant && change != nil {
			want = change(want)
		}
		switch gone := meant && change == nil; {
		case there == gone:
			t.Errorf("%s: the column is there: %t, want, by rewritten, %t", name, there, !gone)
		case there && got != want:
			t.Errorf("%s was %s and is %s, want, by rewritten, %s", name, was[column], got, want)
		}
	}
	for column, got := range is {
		if _, old := was[column]; old {
			continue
		}
		want := derived[name+"."+column]
		if got != want && (want != "" || got != "0" && got != "<nil>") {
			t.Errorf("%s.%s is new and %s, want, by derived, %q", name, column, got, want)
		}
	}
}

// older empties the database at place, and returns it with what brings it up to the schema of a version.
func older(t *testing.T, place string) (*sql.DB, *goose.Provider) {
	t.Helper()
	driver, dialect, source := "sqlite", goose.DialectSQLite3, place
	if IsURL(place) {
		u, err := url.Parse(place)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set("default_query_exec_mode", "exec") // no plan outlives the schema that it was made for
		u.RawQuery = q.Encode()
		driver, dialect, source = "pgx", goose.DialectPostgres, u.String()
	}
	old, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { old.Close() })
	if IsURL(place) { // it is a copy of one that is up to date
		for _, query := range []string{"DROP SCHEMA public CASCADE", "CREATE SCHEMA public", "CREATE DOMAIN blob AS bytea"} {
			if _, err := old.ExecContext(t.Context(), query); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(dialect, old, dir)
	if err != nil {
		t.Fatal(err)
	}
	return old, p
}

// refers are columns that have in them what another one has.
var refers = map[string]string{"device": "id", "alarm": "id", "case_id": "id", "owner": "name"}

// filler is for a column of that name and kind, in each table; other names have something else.
func filler(column, kind string) any {
	column = cmp.Or(refers[column], column)
	switch strings.ToUpper(kind) {
	case "TEXT":
		return fmt.Sprintf(`{%q:1}`, column)
	case "BLOB", "BYTEA":
		return []byte(column)
	}
	return 2 + crc32.ChecksumIEEE([]byte(column))%30000 // not what flags are by default, and fits a SMALLINT
}

// columns returns the columns of a table.
func columns(t *testing.T, db *sql.DB, table string) []*sql.ColumnType {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT * FROM "+table)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all, err := rows.ColumnTypes()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// fill adds a row to a table.
func fill(t *testing.T, db *sql.DB, table string) {
	t.Helper()
	var names, places []string
	var values []any
	for i, c := range columns(t, db, table) {
		names = append(names, c.Name())
		places = append(places, fmt.Sprintf("$%d", i+1))
		values = append(values, filler(c.Name(), c.DatabaseTypeName()))
	}
	query := fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", table, strings.Join(names, ", "), strings.Join(places, ", "))
	if _, err := db.ExecContext(t.Context(), query, values...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// fillNew puts something into the columns that a table was given.
func fillNew(t *testing.T, db *sql.DB, table string, was row) {
	t.Helper()
	for _, c := range columns(t, db, table) {
		if _, old := was[c.Name()]; old {
			continue
		}
		query := fmt.Sprintf("UPDATE %s SET %s = $1", table, c.Name())
		if _, err := db.ExecContext(t.Context(), query, filler(c.Name(), c.DatabaseTypeName())); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
}

// column returns the first column of what query finds.
func column(t *testing.T, db *sql.DB, query string) (all []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// upgraded returns a database that had the schema of version when it was written, and was brought up then.
func upgraded(t *testing.T, version int64, write func(exec func(query string, args ...any))) *DB {
	t.Helper()
	place := pgtest.Place(t, filepath.Join(t.TempDir(), "old.db"))
	old, p := older(t, place)
	if _, err := p.UpTo(t.Context(), version); err != nil {
		t.Fatal(err)
	}
	write(func(query string, args ...any) {
		if _, err := old.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	})
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := Open(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// TestTokensOfOlderSchemasStayGood: what devices were known by before secrets had a
// table of their own is what they are known by after.
func TestTokensOfOlderSchemasStayGood(t *testing.T) {
	const insert = `INSERT INTO devices (id, token, token_before, token_until, name, model, attributes, grid, adjacent, disabled, created, updated)
		VALUES ($1, $2, $3, $4, '', 'smoke-detector', '{}', '', '[]', 0, 0, 0)`
	db := upgraded(t, 31, func(exec func(query string, args ...any)) {
		exec(insert, "a", "0a", "0b", 1000)
		exec(insert, "b", nil, nil, 0)
	})
	got := map[citywarden.DeviceID][]citywarden.Secret{}
	if _, err := db.LoadDevices(t.Context(), func(v citywarden.DeviceView, s []citywarden.Secret) { got[v.ID] = s }); err != nil {
		t.Fatal(err)
	}
	want := map[citywarden.DeviceID][]citywarden.Secret{"a": {{Hash: []byte{10}}, {Hash: []byte{11}, Until: time.UnixMilli(1000).UTC()}}, "b": nil}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestOutagesOfOlderSchemas: the upgrade knows when the platform did not run from when it did, or where that was not noted yet from
// when it began and, if nobody was heard since, when a device was heard last. What it heard last is then the newest that is known.
func TestOutagesOfOlderSchemas(t *testing.T) {
	hour := func(h float64) time.Time { return time.UnixMilli(int64(h * 3_600_000)).UTC() }
	outage := func(from, to float64) citywarden.Gap {
		return citywarden.Gap{From: hour(from), To: hour(to), Outage: true}
	}
	for _, c := range []struct {
		name   string
		ran    [][2]float64
		heard  map[string]float64 // "" is when the platform began to run, or had no room last
		want   []citywarden.Gap
		newest float64 // of what is known to have been heard
	}{
		{"two restarts", [][2]float64{{1, 4}, {6, 8}, {9, 11}}, map[string]float64{"gone": 2, "a": 3, "b": 10, "": 9.0001}, []citywarden.Gap{outage(4, 6), outage(8, 9)}, 11},
		{"it ended at once", [][2]float64{{1, 4}}, map[string]float64{"a": 3, "": 6}, []citywarden.Gap{outage(4, 6)}, 6},
		{"one run", [][2]float64{{1, 4}}, map[string]float64{"a": 3, "": 1.0001}, nil, 4},
		{"our clock was set back", [][2]float64{{1, 4}, {3, 6}, {8, 9}}, map[string]float64{"a": 8.5, "": 8.0001}, []citywarden.Gap{outage(6, 8)}, 9},
		{"not noted, nobody heard since", nil, map[string]float64{"gone": 1, "a": 3, "": 9}, []citywarden.Gap{outage(3, 9)}, 9},
		{"not noted, one heard since", nil, map[string]float64{"gone": 1, "a": 10, "": 9}, nil, 10},
		{"nobody was ever heard", nil, map[string]float64{"": 9}, nil, 9},
		{"it never ran", nil, nil, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := upgraded(t, 41, func(exec func(query string, args ...any)) {
				for _, u := range c.ran {
					exec("INSERT INTO uptimes (began, ended) VALUES ($1, $2)", hour(u[0]).UnixMilli(), hour(u[1]).UnixMilli())
				}
				for device, at := range c.heard {
					exec("INSERT INTO last_heard (device, at) VALUES ($1, $2)", device, hour(at).UnixMilli())
				}
			})
			got, err := db.Outages(t.Context(), time.Time{}, time.Time{})
			if d := gocmp.Diff(c.want, got, cmpopts.EquateEmpty()); d != "" || err != nil {
				t.Errorf("%v, outages (-want +got):\n%s", err, d)
			}
			heard, err := db.LastHeard(t.Context())
			if err != nil || len(heard) != len(c.heard) || len(heard) > 0 && (heard[0].Device != "" || !heard[0].At.Equal(hour(c.newest))) {
				t.Errorf("%v, heard %v, want the newest at %s", err, heard, hour(c.newest))
			}
		})
	}
}
