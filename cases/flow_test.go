package cases_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
)

// steps returns how often each action is in the timeline of a case.
func steps(t *testing.T, d *cases.Desk, id citywarden.CaseID) map[citywarden.Action]int {
	t.Helper()
	c, err := d.Case(t.Context(), id, "x", citywarden.RoleViewer)
	if err != nil {
		t.Fatal(err)
	}
	n := map[citywarden.Action]int{}
	for _, s := range c.Timeline {
		n[s.Action]++
	}
	return n
}

// A limit that passes is told once to those who get every notice, then up the
// chain, across a restart; whoever moves the case in time is left alone.
func TestOverdue(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.stop()
		o.limits = map[citywarden.Stage]cases.Limit{
			citywarden.PendingFiling: {N: 1, Unit: cases.UrgentHours}, citywarden.PendingDispatch: {N: 1, Unit: cases.UrgentHours},
		}
		o.overdue = []citywarden.Escalation{
			{After: citywarden.Duration(30 * time.Minute), To: "chief"}, {After: citywarden.Duration(time.Hour), To: "nobody"},
		}
		path := filepath.Join(t.TempDir(), "limits.db")
		o.db.Close()
		o.open(t, path)
		o.at(t, o.raise("p1", citywarden.Major, burst("k1")), o.raise("p2", citywarden.Major, burst("k2")))
		slow, quick := citywarden.CaseID("E0501202611230001"), citywarden.CaseID("E0501202611230002")
		o.wantMail(t, o.all, "opened "+string(slow), "opened "+string(quick))

		time.Sleep(59 * time.Minute)
		do(t, o.Desk, quick, toClosed()...)
		o.wantMail(t, o.all, "dispatched "+string(quick))
		time.Sleep(2 * time.Minute)
		o.wantMail(t, o.all, "overdue "+string(slow)+" major overdue, still pending filing")
		o.wantMail(t, o.chief)

		o.stop()
		o.db.Close()
		o.open(t, path)
		o.wantMail(t, o.all)
		time.Sleep(30 * time.Minute)
		o.wantMail(t, o.chief, "overdue "+string(slow)+" major overdue for 30m, still pending filing")
		time.Sleep(30 * time.Minute)
		o.wantMail(t, o.all) // that there is no such receiver stands in the timeline
		if got := steps(t, o.Desk, slow); got[citywarden.Overdue] != 1 || got[citywarden.Notify] == 0 {
			t.Errorf("steps of the case that nobody filed: %v; want one overdue and what became of the notices", got)
		}

		// The next stage has a limit of its own, which is told of anew.
		do(t, o.Desk, slow, toClosed()[0])
		time.Sleep(61 * time.Minute)
		o.wantMail(t, o.all, "overdue "+string(slow)+" major overdue, still pending dispatch")
		if got := steps(t, o.Desk, quick)[citywarden.Overdue]; got != 0 {
			t.Errorf("the case that was closed in time is overdue %d times", got)
		}
	})
}

// A suspension that ends by itself gives the case the time that was left.
func TestASuspensionEndsByItself(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.at(t, o.raise("p1", citywarden.Major, burst("k")))
		id := citywarden.CaseID("E0501202611230001")
		do(t, o.Desk, id, toClosed()[:3]...)
		time.Sleep(20 * time.Minute)
		until := time.Now().Add(3 * time.Hour)
		c := do(t, o.Desk, id,
			citywarden.CaseStep{Action: citywarden.RequestSuspension, By: "wu", Role: citywarden.RoleDepartment, Note: "no pump", Until: until},
			citywarden.CaseStep{Action: citywarden.ApproveSuspension, By: "chen", Role: citywarden.RoleDispatcher})
		before := c.Deadline
		time.Sleep(time.Until(until) - time.Millisecond)
		if got := steps(t, o.Desk, id)[citywarden.Resume]; got != 0 {
			t.Errorf("resumed before its time")
		}
		time.Sleep(2 * time.Millisecond)
		if got := steps(t, o.Desk, id)[citywarden.Resume]; got != 1 {
			t.Fatalf("resumed %d times, want 1", got)
		}
		c, err := o.Case(t.Context(), id, "wu", citywarden.RoleDepartment)
		if err != nil || c.Stage != citywarden.Handling || c.Deadline.Sub(before) != 3*time.Hour {
			t.Errorf("after the suspension: %s, deadline moved by %v, %v; want handling, by 3h", c.Stage, c.Deadline.Sub(before), err)
		}
	})
}

// A duplicate is found by class, place and time, and gives the case that stays
// its alarms, its severity and what becomes of its sensors.
func TestMerge(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		open := func(class citywarden.ClassCode, p citywarden.Point) citywarden.CaseID {
			t.Helper()
			c, err := o.Create(t.Context(), citywarden.NewCase{Class: class, Title: "water on the road", Location: &p}, "zhang", citywarden.RoleOfficer)
			if err != nil {
				t.Fatal(err)
			}
			return c.ID
		}
		here := citywarden.Point{Lat: 24.1, Lon: 117.6}
		kept := open("event/0501", here)
		near, nearer := open("event/0501", citywarden.Point{Lat: 24.1004, Lon: 117.6}), open("event/0501", citywarden.Point{Lat: 24.1001, Lon: 117.6})
		open("event/0501", citywarden.Point{Lat: 24.101, Lon: 117.6})                  // 111 m away
		open("event/0502", here)                                                       // something else
		older := open("event/0402@cjt214", citywarden.Point{Lat: 24.1002, Lon: 117.6}) // the same in the other numbering
		found := func() (ids []citywarden.CaseID) {
			t.Helper()
			ds, err := o.Duplicates(t.Context(), kept)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range ds {
				ids = append(ids, d.Case.ID)
			}
			return ids
		}
		if diff := cmp.Diff([]citywarden.CaseID{nearer, older, near}, found()); diff != "" {
			t.Errorf("duplicates, the nearest first (-want +got)\n%s", diff)
		}

		o.at(t, o.raise("p1", citywarden.Critical, burst("k")))
		alarmed := citywarden.CaseID("E0501202611230007")
		merge := citywarden.CaseStep{Action: citywarden.Merge, By: "lin", Role: citywarden.RoleSupervisor, Case: kept}
		for _, tt := range []struct {
			into citywarden.CaseID
			want citywarden.Code
		}{{alarmed, citywarden.CodeInvalid}, {"E0501202611239999", citywarden.CodeInvalid}} {
			wrong := merge
			wrong.Case = tt.into
			if _, err := o.Do(t.Context(), alarmed, wrong, 0); citywarden.CodeOf(err) != tt.want {
				t.Errorf("merge into %s: %v, want %s", tt.into, err, tt.want)
			}
		}
		do(t, o.Desk, alarmed, merge)
		c, err := o.Case(t.Context(), kept, "lin", citywarden.RoleSupervisor)
		if err != nil || c.Severity != citywarden.Critical || c.Members != 1 || len(c.Alarms) != 1 || c.Normal {
			t.Errorf("the case that stays: %s, %d devices, alarms %v, normal %v, %v", c.Severity, c.Members, c.Alarms, c.Normal, err)
		}
		o.at(t, o.f.next(citywarden.Cleared, "r", "p1", 1, citywarden.Critical, burst("k")))
		if c, err = o.Case(t.Context(), kept, "lin", citywarden.RoleSupervisor); err != nil || !c.Normal {
			t.Errorf("its sensor is back to normal, but it does not say so: %v", err)
		}
		if c, err = o.Case(t.Context(), alarmed, "lin", citywarden.RoleSupervisor); err != nil || c.Stage.Open() || len(c.Alarms) != 0 || c.Progress() != citywarden.ProgressMerged {
			t.Errorf("the duplicate: %s (%s), alarms %v, %v; want it ended, without alarms", c.Stage, c.Progress(), c.Alarms, err)
		}

		// One that was merged away can't take another, nor be found again.
		late := merge
		late.Case = alarmed
		if _, err := o.Do(t.Context(), near, late, 0); citywarden.CodeOf(err) != citywarden.CodeConflict {
			t.Errorf("merge into one that was merged away: %v, want conflict", err)
		}
	})
}
