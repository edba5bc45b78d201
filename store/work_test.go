package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// Whatever the period, what is counted is what there is: whole months come from sums,
// which must follow each change of a case's work, in other months, too.
func TestWorkIsCountedRight(t *testing.T) {
	db := deskDB(t)
	r := rand.New(rand.NewPCG(3, 4))
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	moment := func() time.Time { // often the first millisecond of a month
		if r.IntN(3) == 0 {
			return begin.AddDate(0, r.IntN(6), 0)
		}
		return begin.Add(time.Duration(r.Int64N(int64(180 * 24 * time.Hour)))).Truncate(time.Millisecond)
	}
	grids := []citywarden.GridCode{"", "350623100001001", "350623100001002", "350623100002001", "350623101001001"}
	all := map[citywarden.CaseID][]citywarden.CaseWork{}
	err := db.desk(t, func(tx *DeskTx) error {
		for n := range 120 {
			id := citywarden.CaseID(fmt.Sprint("E", n%40))
			if n < 40 {
				if err := tx.SaveCase(t.Context(), citywarden.Case{ID: id}, 0); err != nil {
					return err
				}
			}
			all[id] = nil
			for range r.IntN(4) {
				w := citywarden.CaseWork{
					Kind: []citywarden.WorkKind{"file", "handle"}[r.IntN(2)], Person: []string{"", "lin", "xu"}[r.IntN(3)], Department: []string{"", "roads", "water"}[r.IntN(3)],
					Grid: grids[r.IntN(len(grids))], Began: begin, Marks: citywarden.WorkMark(r.IntN(3)),
				}
				if r.IntN(4) > 0 {
					w.Done = moment()
				}
				all[id] = append(all[id], w)
			}
			if err := tx.SetWork(t.Context(), id, all[id]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	type count struct {
		key   string
		marks citywarden.WorkMark
	}
	for range 200 {
		f := citywarden.WorkFilter{Kind: "file", From: moment(), To: moment(), States: citywarden.WorkDone,
			By: []citywarden.WorkKey{citywarden.WorkByVillage, citywarden.WorkByGrid, citywarden.WorkByDepartment, citywarden.WorkByPerson}[r.IntN(4)]}
		if r.IntN(4) == 0 {
			f.Need = 1
		}
		area := f.By == citywarden.WorkByVillage || f.By == citywarden.WorkByGrid
		if r.IntN(3) == 0 {
			key := []string{"", "lin", "water"}[r.IntN(3)]
			if area {
				key = []string{"350623", "350623100", "350623100001", "350623100001002"}[r.IntN(4)]
			}
			f.Key = &key
		}
		if r.IntN(4) == 0 {
			f.Area = []citywarden.AreaCode{"350623", "350623100", "350623100001"}[r.IntN(3)]
		}
		want := map[count]int{}
		for _, work := range all {
			for _, w := range work {
				key := map[citywarden.WorkKey]string{citywarden.WorkByVillage: w.Grid.In(citywarden.LevelVillage), citywarden.WorkByGrid: string(w.Grid),
					citywarden.WorkByDepartment: w.Department, citywarden.WorkByPerson: w.Person}[f.By]
				switch {
				case w.Kind != f.Kind || w.Done.Before(f.From) || !w.Done.Before(f.To) || w.Marks&f.Need != f.Need || !f.Area.Has(w.Grid):
				case f.Key == nil && f.By == citywarden.WorkByDepartment && key == "":
				case f.Key != nil && area && !strings.HasPrefix(string(w.Grid), *f.Key), f.Key != nil && !area && key != *f.Key:
				default:
					want[count{key, w.Marks}]++
				}
			}
		}
		got := map[count]int{}
		if err := db.CountWork(t.Context(), f, func(c citywarden.WorkCount) { got[count{c.Key, c.Marks}] += c.N }); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(want, got) {
			key := "any"
			if f.Key != nil {
				key = *f.Key
			}
			t.Fatalf("%+v, key %s:\n%s", f, key, cmp.Diff(fmt.Sprint(want), fmt.Sprint(got)))
		}
	}
}
