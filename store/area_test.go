package store

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// Lists have what lies in an area, and what lies in no unit grid for the county.
func TestListsOfAnArea(t *testing.T) {
	db := deskDB(t)
	ctx := t.Context()
	places := []struct {
		name string
		grid citywarden.GridCode
	}{{"first", "350623100001001"}, {"second", "350623100002001"}, {"third", "350623101001001"}, {"nowhere", ""}, {"abroad", "350681100001001"}}
	var dead []citywarden.DeadLetter
	var rows []citywarden.LedgerRow
	began := time.UnixMilli(1000).UTC()
	for i, p := range places {
		if err := db.SaveDevices(ctx, []citywarden.Device{{ID: citywarden.DeviceID(p.name), Grid: p.grid}}, nil); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, citywarden.LedgerRow{Device: citywarden.DeviceID(p.name), Hour: began, Received: 1})
		dead = append(dead, citywarden.DeadLetter{Position: citywarden.Position(i + 1), Stage: "decode", Device: citywarden.DeviceID(p.name)})
		err := db.desk(t, func(tx *DeskTx) error {
			a := citywarden.Alarm{ID: citywarden.AlarmID("r:" + p.name + ":1"), Rule: "r", Entity: p.name, Device: citywarden.DeviceID(p.name), State: citywarden.AlarmActive, RaisedAt: began}
			if err := tx.SaveAlarm(ctx, a); err != nil {
				return err
			}
			if _, err := tx.AddTransition(ctx, citywarden.Transition{Key: "r/" + p.name + "/1/1", Alarm: a, Annunciated: true, Logged: began}); err != nil {
				return err
			}
			if err := tx.SaveCase(ctx, citywarden.Case{ID: citywarden.CaseID(p.name), Grid: p.grid, Stage: citywarden.PendingFiling}, 0); err != nil {
				return err
			}
			if err := tx.SetWork(ctx, citywarden.CaseID(p.name), []citywarden.CaseWork{{Kind: "file", Person: p.name, Grid: p.grid, Began: began, Done: began}}); err != nil {
				return err
			}
			_, err := tx.AddNotices(ctx, []citywarden.Notice{{Key: p.name, Case: citywarden.CaseID(p.name)}})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.SaveLedger(ctx, "ledger", 0, 9, citywarden.LedgerAdd{Rows: rows, Dead: dead}); err != nil {
		t.Fatal(err)
	}
	for area, want := range map[citywarden.AreaCode][]string{
		"350623100001": {"first"}, "350623100": {"first", "second"}, "350623": {"first", "nowhere", "second", "third"},
		"350681": {"abroad", "nowhere"}, "": {"abroad", "first", "nowhere", "second", "third"},
	} {
		got := map[string][]string{}
		add := func(list, name string) { got[list] = append(got[list], name) }
		as, _, err := db.Alarms(ctx, citywarden.AlarmFilter{Area: area})
		for _, a := range as {
			add("alarms", a.Entity)
		}
		fail(t, err)
		cs, _, err := db.Cases(ctx, citywarden.CaseFilter{Area: area})
		for _, c := range cs {
			add("cases", string(c.ID))
		}
		fail(t, err)
		ns, _, err := db.Notices(ctx, citywarden.NoticeFilter{Area: area})
		for _, n := range ns {
			add("notices", n.Key)
		}
		fail(t, err)
		ls, _, err := db.DeadLetters(ctx, citywarden.DeadLetterFilter{Area: area})
		for _, l := range ls {
			add("dead letters", string(l.Device))
		}
		fail(t, err)
		rows, _, err := db.LedgerPage(ctx, citywarden.LedgerFilter{Area: area, Page: citywarden.Page{Limit: max(1, len(want))}}) // no page is filled with others' rows
		for _, r := range rows {
			add("ledger", string(r.Device))
		}
		fail(t, err)
		calls, err := db.Annunciations(ctx, area, began, began.Add(time.Second))
		for _, a := range calls {
			add("annunciations", string(a.Alarm[2:len(a.Alarm)-2]))
		}
		fail(t, err)
		stale, n, err := db.StaleAlarms(ctx, area, began.Add(time.Hour), 10)
		for _, a := range stale {
			add("stale alarms", a.Entity)
		}
		fail(t, err)
		if n != len(stale) {
			t.Errorf("%q has %d stale alarms, and counts %d", area, len(stale), n)
		}
		fail(t, db.CountWork(ctx, citywarden.WorkFilter{Kind: "file", From: began, To: began.Add(time.Hour), States: citywarden.WorkDone, By: citywarden.WorkByPerson, Area: area},
			func(c citywarden.WorkCount) { add("work", c.Key) }))
		for _, list := range []string{"alarms", "cases", "notices", "dead letters", "ledger", "annunciations", "stale alarms", "work"} {
			slices.Sort(got[list])
			if diff := cmp.Diff(want, got[list]); diff != "" {
				t.Errorf("%s in %q (-want +got)\n%s", list, area, diff)
			}
		}
	}
}

// A department has the notices of its cases, to whomever they went, and what it was
// told of others; of an area only those of what lies there.
func TestNoticesOfADepartment(t *testing.T) {
	db := deskDB(t)
	ctx := t.Context()
	err := db.desk(t, func(tx *DeskTx) error {
		for _, c := range []citywarden.Case{{ID: "own", Department: "fire", Grid: "350623100001001"}, {ID: "left", Department: "gas", Grid: "350623101001001"}, {ID: "other", Department: "gas"}} {
			if err := tx.SaveCase(ctx, c, 0); err != nil {
				return err
			}
		}
		for _, n := range []citywarden.Notice{{Case: "own", Receiver: "all"}, {Case: "left", Receiver: "all"}, {Case: "left", Receiver: "fire"}, {Case: "left", Receiver: "gas"}, {Case: "other", Receiver: "gas"}} {
			n.Key = string(n.Case) + "/" + n.Receiver
			if _, err := tx.AddNotices(ctx, []citywarden.Notice{n}); err != nil {
				return err
			}
		}
		return nil
	})
	fail(t, err)
	for _, tt := range []struct {
		f    citywarden.NoticeFilter
		want []string
	}{
		{citywarden.NoticeFilter{Department: "fire"}, []string{"left/fire", "own/all"}},
		{citywarden.NoticeFilter{Department: "fire", Case: "left"}, []string{"left/fire"}},
		{citywarden.NoticeFilter{Department: "fire", Case: "other"}, nil},
		{citywarden.NoticeFilter{Department: "fire", Area: "350623100"}, []string{"own/all"}},
		{citywarden.NoticeFilter{Department: "gas"}, []string{"left/all", "left/fire", "left/gas", "other/gas"}},
	} {
		ns, _, err := db.Notices(ctx, tt.f)
		fail(t, err)
		var got []string
		for _, n := range ns {
			got = append(got, n.Key)
		}
		slices.Sort(got)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%+v (-want +got)\n%s", tt.f, diff)
		}
	}
}

func fail(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
