package store

import (
	"database/sql"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/pressly/goose/v3"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/store/pgtest"
)

// TestOlderSchemasAreBroughtUp begins with the schema of the first migration and
// goes up one by one, with a row in each table from when it is there: whatever
// version wrote a database, opening it loses nothing.
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
	rows := map[string]string{} // how many each table has
	sources := p.ListSources()
	for _, source := range sources[:len(sources)-1] {
		if _, err := p.UpTo(t.Context(), source.Version); err != nil {
			t.Fatal(err)
		}
		for _, table := range column(t, old, list) {
			if rows[table] != "" {
				continue
			}
			if rows[table] = column(t, old, "SELECT count(*) FROM "+table)[0]; rows[table] == "0" { // else its migration filled it
				fill(t, old, table)
				rows[table] = "1"
			}
		}
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}

	db, err := Open(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for table, n := range rows {
		if now := column(t, db.sql, "SELECT count(*) FROM "+table); now[0] != n {
			t.Errorf("%s had %s rows, now it has %s", table, n, now[0])
		}
	}
}

// older empties the database at place, and returns it with what brings it up to the schema of a version.
func older(t *testing.T, place string) (*sql.DB, *goose.Provider) {
	t.Helper()
	driver, dialect := "sqlite", goose.DialectSQLite3
	if IsURL(place) {
		driver, dialect = "pgx", goose.DialectPostgres
	}
	old, err := sql.Open(driver, place)
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

// fill adds a row to a table.
func fill(t *testing.T, db *sql.DB, table string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT * FROM "+table)
	if err != nil {
		t.Fatal(err)
	}
	columns, err := rows.ColumnTypes()
	rows.Close()
	if err != nil {
		t.Fatal(err)
	}
	var names, places []string
	var values []any
	for i, c := range columns {
		names = append(names, c.Name())
		places = append(places, fmt.Sprintf("$%d", i+1))
		values = append(values, filler(c.DatabaseTypeName()))
	}
	query := fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", table, strings.Join(names, ", "), strings.Join(places, ", "))
	if _, err := db.ExecContext(t.Context(), query, values...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// filler is the same for all columns of a type, so that rows refer to each other.
func filler(kind string) any {
	switch strings.ToUpper(kind) {
	case "TEXT":
		return "{}"
	case "BLOB", "BYTEA":
		return []byte{1}
	}
	return 1
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

// TestTokensOfOlderSchemasStayGood: what devices were known by before secrets had a
// table of their own is what they are known by after.
func TestTokensOfOlderSchemasStayGood(t *testing.T) {
	place := filepath.Join(t.TempDir(), "old.db")
	old, p := older(t, place)
	if _, err := p.UpTo(t.Context(), 31); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"'a', '0a', '0b', 1000", "'b', NULL, NULL, 0"} {
		if _, err := old.ExecContext(t.Context(), `INSERT INTO devices (id, token, token_before, token_until, name, model, attributes, grid, adjacent, disabled, created, updated)
			VALUES (`+d+`, '', 'smoke-detector', '{}', '', '[]', 0, 0, 0)`); err != nil {
			t.Fatal(err)
		}
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := Open(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	got := map[citywarden.DeviceID][]citywarden.Secret{}
	if _, err := db.LoadDevices(t.Context(), func(v citywarden.DeviceView, s []citywarden.Secret) { got[v.ID] = s }); err != nil {
		t.Fatal(err)
	}
	want := map[citywarden.DeviceID][]citywarden.Secret{"a": {{Hash: []byte{10}}, {Hash: []byte{11}, Until: time.UnixMilli(1000).UTC()}}, "b": nil}
	if d := cmp.Diff(want, got); d != "" {
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
			place := pgtest.Place(t, filepath.Join(t.TempDir(), "old.db"))
			old, p := older(t, place)
			if _, err := p.UpTo(t.Context(), 41); err != nil {
				t.Fatal(err)
			}
			for _, u := range c.ran {
				if _, err := old.ExecContext(t.Context(), "INSERT INTO uptimes (began, ended) VALUES ($1, $2)", hour(u[0]).UnixMilli(), hour(u[1]).UnixMilli()); err != nil {
					t.Fatal(err)
				}
			}
			for device, at := range c.heard {
				if _, err := old.ExecContext(t.Context(), "INSERT INTO last_heard (device, at) VALUES ($1, $2)", device, hour(at).UnixMilli()); err != nil {
					t.Fatal(err)
				}
			}
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			db, err := Open(t.Context(), place)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			got, err := db.Outages(t.Context(), time.Time{}, time.Time{})
			if d := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); d != "" || err != nil {
				t.Errorf("%v, outages (-want +got):\n%s", err, d)
			}
			heard, err := db.LastHeard(t.Context())
			if err != nil || len(heard) != len(c.heard) || len(heard) > 0 && (heard[0].Device != "" || !heard[0].At.Equal(hour(c.newest))) {
				t.Errorf("%v, heard %v, want the newest at %s", err, heard, hour(c.newest))
			}
		})
	}
}
