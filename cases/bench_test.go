package cases_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

// year is the year of the benchmarks' cases.
var year = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// BenchmarkCases lists, filters and evaluates a year of 100,000 cases, of which
// 1,000 are open, in SQLite and in PostgreSQL. p95-ms should stay below 300.
func BenchmarkCases(b *testing.B) { onBoth(b, benchCases) }

// onBoth runs a benchmark on SQLite and on PostgreSQL.
func onBoth(b *testing.B, f func(b *testing.B, place string)) {
	b.Run("sqlite", func(b *testing.B) { f(b, filepath.Join(b.TempDir(), "x.db")) })
	b.Run("postgres", func(b *testing.B) {
		s, err := pgtest.Start()
		if err != nil {
			b.Skip(err)
		}
		b.Cleanup(func() {
			if err := s.Stop(); err != nil {
				b.Error(err)
			}
		})
		url, err := s.Create("bench")
		if err != nil {
			b.Fatal(err)
		}
		f(b, url)
	})
}

func benchCases(b *testing.B, place string) {
	db, err := store.Open(b.Context(), place)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	d, err := cases.New(db, cases.Options{})
	if err != nil {
		b.Fatal(err)
	}
	fill(b, db, 100000)
	for name, f := range map[string]citywarden.CaseFilter{
		"all":                {},
		"open":               {Open: true},
		"stage":              {Stage: citywarden.Handling},
		"department":         {Department: "department 7"},
		"open of department": {Open: true, Department: "department 7"},
		"grid":               {Grid: "350623107007001"},
		"open of grid":       {Open: true, Grid: "350623107007001"},
		"alarm":              {Alarm: "pipe.burst:p500:1"},
		"deep page":          {Page: citywarden.Page{After: fmt.Sprintf("%d.%s", year.AddDate(0, 6, 0).UnixMilli(), "E0501202611230001")}},
	} {
		b.Run(name, func(b *testing.B) {
			measure(b, func() error { _, _, err := d.Cases(b.Context(), f); return err })
		})
	}
	b.Run("counts", func(b *testing.B) {
		measure(b, func() error { _, _, err := d.CaseCounts(b.Context()); return err })
	})
	for name, q := range map[string]citywarden.EvaluationQuery{
		"evaluation of departments": {By: citywarden.ByDepartment},
		"evaluation of towns":       {By: citywarden.ByArea},
		"evaluation of villages":    {By: citywarden.ByArea, Level: citywarden.LevelVillage},
		"evaluation of grids":       {By: citywarden.ByArea, Level: citywarden.LevelGrid, Under: "350623107"},
		"evaluation of posts":       {By: citywarden.ByPost},
	} {
		q.From, q.To = year, year.AddDate(1, 0, 0)
		b.Run(name, func(b *testing.B) {
			measure(b, func() error { _, err := d.Evaluate(b.Context(), q); return err })
		})
	}
	b.Run("cases behind a figure", func(b *testing.B) {
		q := citywarden.EvaluationQuery{By: citywarden.ByDepartment, From: year, To: year.AddDate(1, 0, 0)}
		measure(b, func() error {
			_, _, err := d.EvaluatedCases(b.Context(), q, "handle_on_time_rate", "", citywarden.PartRest, citywarden.Page{})
			return err
		})
	})
	b.Run("apply one alarm that opens a case", func(b *testing.B) {
		feed := &feed{n: 1 << 20}
		for b.Loop() {
			e := fmt.Sprintf("q%d", feed.n)
			apply(b, d, feed, feed.next(citywarden.Raised, "pipe.burst", e, 1, citywarden.Major, burst(e)))
		}
	})
}

// measure runs f and reports how long it takes at the 95th percentile.
func measure(b *testing.B, f func() error) {
	b.Helper()
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*95/100])/1e6, "p95-ms")
}

func fill(b *testing.B, db *store.DB, n int) {
	b.Helper()
	f := &feed{}
	for from := 0; from < n; from += 10000 {
		err := db.UpdateDesk(b.Context(), func(tx *store.DeskTx) error {
			for i := from; i < from+10000; i++ {
				t := f.next(citywarden.Raised, "pipe.burst", fmt.Sprintf("p%d", i), 1, citywarden.Major, nil)
				opened := year.Add(time.Duration(i) * 365 * 24 * time.Hour / time.Duration(n))
				c := citywarden.Case{
					ID: citywarden.CaseID(fmt.Sprintf("E0501%s%06d", "20261123", i)), Class: "event/0501", Title: t.Alarm.Title,
					Stage: citywarden.Closed, Department: fmt.Sprintf("department %d", i%80), Opened: opened, Revision: 1,
					Grid: citywarden.GridCode(fmt.Sprintf("350623%03d%03d%03d", 100+i%20, i%300, 1+i%14)), Source: citywarden.SourceSensor,
					Timeline: []citywarden.CaseStep{{Action: citywarden.Open, At: opened}},
				}
				if i%100 == 0 {
					c.Stage = []citywarden.Stage{citywarden.Handling, citywarden.PendingDispatch}[i/100%2]
				}
				if err := tx.SaveCase(b.Context(), c, 0); err != nil {
					return err
				}
				if err := tx.SetWork(b.Context(), c.ID, workOf(&c, i)); err != nil {
					return err
				}
				t.Alarm.Case = c.ID
				if err := tx.SaveAlarm(b.Context(), t.Alarm); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// workOf is the work on a case that goes the usual way, of 20 people of each post
// and 97 officers; a tenth of it late.
func workOf(c *citywarden.Case, i int) []citywarden.CaseWork {
	kinds := []citywarden.WorkKind{citywarden.WorkReport, citywarden.WorkAccept, citywarden.WorkFile, citywarden.WorkDispatch,
		citywarden.WorkHandle, citywarden.WorkSendCheck, citywarden.WorkCheck, citywarden.WorkClose}
	var out []citywarden.CaseWork
	for n, kind := range kinds {
		began := c.Opened.Add(time.Duration(n) * time.Hour)
		w := citywarden.CaseWork{
			Kind: kind, Person: fmt.Sprintf("%s-%d", kind, i%20), Department: c.Department, Grid: c.Grid,
			Began: began, Due: began.Add(time.Hour), Done: began.Add(30 * time.Minute),
		}
		switch {
		case kind == citywarden.WorkReport:
			w.Marks = citywarden.MarkFiled | citywarden.MarkValid | []citywarden.WorkMark{citywarden.MarkSensor, citywarden.MarkOfficer, citywarden.MarkPublic}[i%3]
			w.Person = fmt.Sprintf("officer-%d", i%97)
		case kind == citywarden.WorkCheck:
			w.Person = fmt.Sprintf("officer-%d", i%97)
		case (i+n)%10 == 0:
			w.Marks = citywarden.MarkLate
		}
		if c.Stage.Open() && kind == citywarden.WorkHandle {
			w.Done = time.Time{}
			return append(out, w)
		}
		out = append(out, w)
	}
	return out
}

// BenchmarkGrids adds 10,000 grids, more than a county has, and looks one up.
func BenchmarkGrids(b *testing.B) {
	grids := mesh(100)
	g, err := cases.LoadGrids(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("add 10000", func(b *testing.B) {
		for b.Loop() {
			if err := g.Add(b.Context(), grids); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("at", func(b *testing.B) {
		for b.Loop() {
			g.At(citywarden.Point{Lat: 24.1234, Lon: 117.6567})
		}
	})
}
