package cases_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/store"
)

// BenchmarkCases lists and filters 100,000 cases, of which 1,000 are open.
func BenchmarkCases(b *testing.B) {
	d, db := openDesk(b, filepath.Join(b.TempDir(), "x.db"), cases.Options{})
	fill(b, db, 100000)
	for name, f := range map[string]citywarden.CaseFilter{
		"all":                {},
		"open":               {Open: true},
		"stage":              {Stage: citywarden.Handling},
		"department":         {Department: "department 7"},
		"open of department": {Open: true, Department: "department 7"},
		"grid":               {Grid: "350623100001042"},
		"open of grid":       {Open: true, Grid: "350623100001042"},
		"alarm":              {Alarm: "pipe.burst:p500:1"},
		"deep page":          {Page: citywarden.Page{After: fmt.Sprintf("%d.%s", monday().UnixMilli()+50000*1000, "E0501202611230001")}},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := d.Cases(b.Context(), f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("counts", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := d.CaseCounts(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("apply one alarm that opens a case", func(b *testing.B) {
		feed := &feed{n: 1 << 20}
		for b.Loop() {
			e := fmt.Sprintf("q%d", feed.n)
			apply(b, d, feed, feed.next(citywarden.Raised, "pipe.burst", e, 1, citywarden.Major, burst(e)))
		}
	})
}

func fill(b *testing.B, db *store.DB, n int) {
	b.Helper()
	f := &feed{}
	for from := 0; from < n; from += 10000 {
		err := db.UpdateDesk(b.Context(), func(tx *store.DeskTx) error {
			for i := from; i < from+10000; i++ {
				t := f.next(citywarden.Raised, "pipe.burst", fmt.Sprintf("p%d", i), 1, citywarden.Major, nil)
				c := citywarden.Case{
					ID: citywarden.CaseID(fmt.Sprintf("E0501%s%06d", "20261123", i)), Class: "event/0501", Title: t.Alarm.Title,
					Stage: citywarden.Closed, Department: fmt.Sprintf("department %d", i%80), Opened: t.At, Revision: 1,
					Grid: citywarden.GridCode(fmt.Sprintf("350623100001%03d", i%900)), Source: citywarden.SourceSensor,
					Timeline: []citywarden.CaseStep{{Action: citywarden.Open, At: t.At}},
				}
				if i%100 == 0 {
					c.Stage = []citywarden.Stage{citywarden.Handling, citywarden.PendingDispatch}[i/100%2]
				}
				if err := tx.SaveCase(b.Context(), c, 0); err != nil {
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
