package cases_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

// monday is a Monday, 10:00 in Shanghai.
func monday() time.Time { return time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC) }

func openDesk(t testing.TB, path string, o cases.Options) (*cases.Desk, *store.DB) {
	t.Helper()
	db := pgtest.Open(t, path, store.Open)
	d, err := cases.New(db, o)
	if err != nil {
		t.Fatal(err)
	}
	return d, db
}

func newDesk(t testing.TB) *cases.Desk {
	d, _ := openDesk(t, filepath.Join(t.TempDir(), "desk.db"), cases.Options{})
	return d
}

// feed makes transitions as the engine does: one position and one second each.
type feed struct {
	n   uint64
	seq map[citywarden.AlarmID]int
}

func (f *feed) next(kind citywarden.TransitionKind, rule citywarden.RuleID, entity string, episode uint64, severity citywarden.Severity, order *citywarden.CaseOrder) citywarden.Transition {
	f.n++
	id := citywarden.NewAlarmID(rule, entity, episode)
	if f.seq == nil {
		f.seq = map[citywarden.AlarmID]int{}
	}
	f.seq[id]++
	at := monday().Add(time.Duration(f.n) * time.Second)
	a := citywarden.Alarm{
		ID: id, Rule: rule, Title: citywarden.Text{ZH: "管网爆管", EN: "Pipe burst"}, Entity: entity, Device: citywarden.DeviceID(entity),
		Episode: episode, Severity: severity, State: citywarden.AlarmActive, RaisedAt: monday().Add(time.Duration(episode) * time.Minute),
	}
	if kind == citywarden.Cleared {
		a.State, a.ClearedAt = citywarden.AlarmCleared, at
	}
	called := kind == citywarden.Raised || kind == citywarden.Escalated
	return citywarden.Transition{
		Key:      fmt.Sprintf("%s/%s/%d/%d", rule, entity, episode, f.seq[id]),
		Position: citywarden.PositionAt(f.n, 0), At: at, Logged: at, Kind: kind, Alarm: a, Case: order, Annunciated: called,
		Why: &citywarden.Explanation{Rule: rule, At: at, Severity: severity, Summary: citywarden.Text{ZH: "压力正常", EN: "pressure is " + string(kind)}},
	}
}

func (f *feed) position() citywarden.Position { return citywarden.PositionAt(f.n, 0) }

func burst(key string) *citywarden.CaseOrder {
	return &citywarden.CaseOrder{Class: "event/0501", Key: key, Merge: citywarden.Duration(15 * time.Minute)}
}

func apply(t testing.TB, d *cases.Desk, f *feed, ts ...citywarden.Transition) {
	t.Helper()
	if err := d.Apply(t.Context(), f.position(), ts); err != nil {
		t.Fatal(err)
	}
}

func allCases(t testing.TB, d *cases.Desk, f citywarden.CaseFilter) []citywarden.Case {
	t.Helper()
	list, _, err := d.Cases(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func timeline(t testing.TB, d *cases.Desk, id citywarden.CaseID) []string {
	t.Helper()
	c, err := d.Case(t.Context(), id, "x", citywarden.RoleViewer)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, s := range c.Timeline {
		out = append(out, fmt.Sprintf("%s %s by %s: %s", s.Action, s.Stage, s.By, s.Said("en")))
	}
	return out
}

func do(t testing.TB, d *cases.Desk, id citywarden.CaseID, steps ...citywarden.CaseStep) citywarden.Case {
	t.Helper()
	var c citywarden.Case
	var err error
	for _, s := range steps {
		if c, err = d.Do(t.Context(), id, s, 0); err != nil {
			t.Fatalf("%s: %v", s.Action, err)
		}
	}
	return c
}

func toClosed() []citywarden.CaseStep {
	return []citywarden.CaseStep{
		{Action: citywarden.File, By: "lin", Role: citywarden.RoleSupervisor},
		{Action: citywarden.Dispatch, By: "chen", Role: citywarden.RoleDispatcher},
		{Action: citywarden.Accept, By: "wu", Role: citywarden.RoleDepartment},
		{Action: citywarden.Handle, By: "wu", Role: citywarden.RoleDepartment, Note: "sleeve fitted"},
		{Action: citywarden.Verify, By: "huang", Role: citywarden.RoleOfficer},
		{Action: citywarden.Close, By: "lin", Role: citywarden.RoleSupervisor},
	}
}

func TestAnAlarmOpensACase(t *testing.T) {
	ring := []citywarden.Point{{Lat: 24.1, Lon: 117.6}, {Lat: 24.1, Lon: 117.61}, {Lat: 24.11, Lon: 117.61}, {Lat: 24.11, Lon: 117.6}}
	grids, err := cases.LoadGrids(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := grids.Add(t.Context(), []citywarden.UnitGrid{{Code: "350623100001001", Ring: ring}}); err != nil {
		t.Fatal(err)
	}
	var events []string
	d, _ := openDesk(t, filepath.Join(t.TempDir(), "x.db"), cases.Options{
		Grids: grids,
		Where: func(id citywarden.DeviceID) (citywarden.Point, bool) {
			return citywarden.Point{Lat: 24.105, Lon: 117.605}, id == "p1"
		},
		Publish: func(e citywarden.Event) { events = append(events, e.Kind) },
	})
	f := &feed{}
	apply(t, d, f, f.next(citywarden.Raised, "pipe.burst", "p1", 1, citywarden.Major, burst("burst/D7")))

	list := allCases(t, d, citywarden.CaseFilter{Open: true})
	if len(list) != 1 {
		t.Fatalf("there are %d cases, want 1", len(list))
	}
	c := list[0]
	want := citywarden.Case{
		ID: "E0501202611230001", Class: "event/0501", ClassName: citywarden.Text{ZH: "供水管道破裂", EN: "water main burst"},
		Title: citywarden.Text{ZH: "管网爆管", EN: "Pipe burst"}, Key: "burst/D7", Source: citywarden.SourceSensor,
		Severity: citywarden.Major, Stage: citywarden.PendingFiling, Location: &citywarden.Point{Lat: 24.105, Lon: 117.605},
		Grid: "350623100001001", Condition: "跑冒滴漏、路面溢水", Closing: "止水，消除安全隐患", FilingRule: "1", Limit: "1紧急工作时",
		Opened: monday().Add(time.Second), Alarms: []citywarden.AlarmID{"pipe.burst:p1:1"}, Device: "p1", Members: 1, Rule: "pipe.burst", Revision: 1,
		Entered: monday().Add(time.Second), StageWarn: monday().Add(48*time.Minute + time.Second), StageDue: monday().Add(time.Hour + time.Second),
		StageLight: c.StageLight, // of today
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("the case (-want +got):\n%s", diff)
	}
	if got := d.Worst("p1"); got != citywarden.Major {
		t.Errorf("Worst(p1) = %s, want major", got)
	}
	a, err := d.Alarm(t.Context(), "pipe.burst:p1:1")
	if err != nil || a.Case != c.ID {
		t.Errorf("the alarm's case is %q, %v; want %s", a.Case, err, c.ID)
	}
	why, err := d.Why(t.Context(), a.ID)
	if err != nil || why.Summary.EN != "pressure is raised" {
		t.Errorf("Why = %+v, %v", why, err)
	}
	if diff := cmp.Diff([]string{"alarm", "case"}, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if p, err := d.Cursor(t.Context()); err != nil || p != f.position() {
		t.Errorf("Cursor = %d, %v; want %d", p, err, f.position())
	}
}

func TestAlarmsJoinAndClear(t *testing.T) {
	d, f := newDesk(t), &feed{}
	raise := func(entity string, episode uint64) citywarden.Transition {
		return f.next(citywarden.Raised, "pipe.burst", entity, episode, citywarden.Major, burst("burst/D7"))
	}
	change := func(kind citywarden.TransitionKind, entity string, episode uint64, s citywarden.Severity) citywarden.Transition {
		return f.next(kind, "pipe.burst", entity, episode, s, burst("burst/D7"))
	}
	apply(t, d, f, raise("p1", 1), raise("p2", 1), change(citywarden.Escalated, "p1", 1, citywarden.Critical))
	apply(t, d, f, change(citywarden.Cleared, "p1", 1, citywarden.Critical))
	id := allCases(t, d, citywarden.CaseFilter{})[0].ID
	if c := allCases(t, d, citywarden.CaseFilter{})[0]; c.Normal || c.Severity != citywarden.Critical {
		t.Errorf("one of two cleared: normal %v, severity %s; want false, critical", c.Normal, c.Severity)
	}
	apply(t, d, f, change(citywarden.Cleared, "p2", 1, citywarden.Major))
	if c := allCases(t, d, citywarden.CaseFilter{})[0]; !c.Normal || !c.Stage.Open() {
		t.Errorf("all cleared: normal %v, stage %s; want true, still open", c.Normal, c.Stage)
	}
	if got := d.Worst("p2"); got != 0 {
		t.Errorf("Worst after clearing = %s, want none", got)
	}
	apply(t, d, f, raise("p2", 2))
	c := allCases(t, d, citywarden.CaseFilter{})
	if len(c) != 1 || c[0].Normal {
		t.Errorf("raised again: %d cases, normal %v; want 1, false", len(c), c[0].Normal)
	}
	want := []string{
		"open pending_filing by citywarden: major alarm: Pipe burst (p1), pressure is raised",
		"evidence pending_filing by citywarden: major alarm: Pipe burst (p2), pressure is raised",
		"evidence pending_filing by citywarden: alarm went up to critical: Pipe burst (p1), pressure is escalated",
		"evidence pending_filing by citywarden: alarm cleared, 1 of 2 still active: Pipe burst (p1), pressure is cleared",
		"evidence pending_filing by citywarden: sensor back to normal: Pipe burst (p2), pressure is cleared",
		"evidence pending_filing by citywarden: raised again: major alarm: Pipe burst (p2), pressure is raised",
	}
	if diff := cmp.Diff(want, timeline(t, d, id)); diff != "" {
		t.Errorf("timeline (-want +got):\n%s", diff)
	}
	steps, err := d.History(t.Context(), "pipe.burst:p1:1")
	if err != nil {
		t.Fatal(err)
	}
	var kinds []citywarden.TransitionKind
	for _, s := range steps {
		kinds = append(kinds, s.Kind)
	}
	if diff := cmp.Diff([]citywarden.TransitionKind{citywarden.Raised, citywarden.Escalated, citywarden.Cleared}, kinds); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
}

func TestATroubleThatComesBackReopensItsCase(t *testing.T) {
	d, f := newDesk(t), &feed{}
	clear := func(ep uint64) citywarden.Transition {
		return f.next(citywarden.Cleared, "pipe.burst", "p1", ep, citywarden.Major, burst("k"))
	}
	raiseAt := func(ep uint64, at time.Time) citywarden.Transition {
		tr := f.next(citywarden.Raised, "pipe.burst", "p1", ep, citywarden.Major, burst("k"))
		tr.Logged = at
		return tr
	}
	apply(t, d, f, raiseAt(1, monday()), clear(1))
	id := allCases(t, d, citywarden.CaseFilter{})[0].ID
	closed := do(t, d, id, toClosed()...)
	if closed.Finished.IsZero() || closed.Light != citywarden.Green {
		t.Errorf("closed: finished %v, light %q; want a time, green", closed.Finished, closed.Light)
	}
	apply(t, d, f, raiseAt(2, closed.Finished.Add(15*time.Minute)), clear(2))
	c, err := d.Case(t.Context(), id, "chen", citywarden.RoleDispatcher)
	if err != nil {
		t.Fatal(err)
	}
	if c.Stage != citywarden.PendingDispatch || !c.Finished.IsZero() || !c.Deadline.Equal(closed.Finished.Add(75*time.Minute)) || len(c.Alarms) != 2 {
		t.Errorf("within the merge time: stage %s, finished %v, deadline %v, alarms %v", c.Stage, c.Finished, c.Deadline, c.Alarms)
	}
	if want := []citywarden.Action{citywarden.Dispatch, citywarden.SendBack, citywarden.RequestVoid, citywarden.Urge, citywarden.Comment}; !slices.Equal(c.Actions, want) {
		t.Errorf("a dispatcher may %v, want %v", c.Actions, want)
	}
	closed = do(t, d, id, toClosed()[1:]...)
	apply(t, d, f, raiseAt(3, closed.Finished.Add(15*time.Minute+time.Millisecond)))
	if n := len(allCases(t, d, citywarden.CaseFilter{})); n != 2 {
		t.Errorf("after the merge time there are %d cases, want 2", n)
	}
}

func TestShadowAlarmsAreOnlyRecorded(t *testing.T) {
	published := 0
	d, _ := openDesk(t, filepath.Join(t.TempDir(), "x.db"), cases.Options{Publish: func(citywarden.Event) { published++ }})
	f := &feed{}
	tr := f.next(citywarden.Raised, "pipe.burst", "p1", 1, citywarden.Critical, burst("k"))
	tr.Shadow, tr.Annunciated = true, false
	apply(t, d, f, tr)
	if n := len(allCases(t, d, citywarden.CaseFilter{})); n != 0 || d.Worst("p1") != 0 || published != 0 {
		t.Errorf("%d cases, worst %s, %d events; want none", n, d.Worst("p1"), published)
	}
	live, _, err := d.Alarms(t.Context(), citywarden.AlarmFilter{})
	if err != nil || len(live) != 0 {
		t.Errorf("alarms: %v, %v; want none", live, err)
	}
	shadow, _, err := d.Alarms(t.Context(), citywarden.AlarmFilter{Shadow: true})
	if err != nil || len(shadow) != 1 || !shadow[0].Shadow {
		t.Errorf("shadow alarms: %v, %v; want one", shadow, err)
	}
}

// A suppressed alarm opens no case and counts nowhere; when the suppression ends
// while it is active, it does.
func TestSuppressedAlarmsWait(t *testing.T) {
	shelf := monday().Add(24 * time.Hour)
	for _, c := range []struct {
		name string
		by   func(*citywarden.Alarm)
		ends citywarden.TransitionKind
	}{
		{"shelved", func(a *citywarden.Alarm) { a.Shelved = shelf }, citywarden.Unshelved},
		{"by design", func(a *citywarden.Alarm) { a.SuppressedBy = "gateway.offline:g1:1" }, citywarden.Unsuppressed},
		{"out of service", func(a *citywarden.Alarm) { a.OutOfService = monday() }, citywarden.CameInService},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(monday()))
				d, db := openDesk(t, filepath.Join(t.TempDir(), "x.db"), cases.Options{})
				f := &feed{}
				next := func(kind citywarden.TransitionKind, entity string, quiet bool) citywarden.Transition {
					tr := f.next(kind, "pipe.burst", entity, 1, citywarden.Major, burst("k/"+entity))
					if tr.Annunciated = !quiet && kind != citywarden.Cleared; quiet {
						c.by(&tr.Alarm)
					}
					return tr
				}
				look := func(when string, wantCases, wantUnacked int, worst citywarden.Severity) {
					t.Helper()
					active, unacked, err := d.AlarmCounts(t.Context())
					if n := len(allCases(t, d, citywarden.CaseFilter{})); err != nil || n != wantCases || unacked != wantUnacked || active[citywarden.Major] != 1 || d.Worst("p1") != worst {
						t.Errorf("%s: %d cases, %d unacked, active %v, worst %s, %v; want %d, %d, 1 major, %s",
							when, n, unacked, active, d.Worst("p1"), err, wantCases, wantUnacked, worst)
					}
				}
				apply(t, d, f, next(citywarden.Raised, "p1", true))
				look("raised", 0, 0, 0)
				apply(t, d, f, next(citywarden.Escalated, "p1", true))
				look("escalated", 0, 0, 0)
				d, err := cases.New(db, cases.Options{})
				if err != nil {
					t.Fatal(err)
				}
				if d.Worst("p1") != 0 {
					t.Errorf("after a restart Worst = %s", d.Worst("p1"))
				}
				tr := next(c.ends, "p1", false)
				tr.Why = nil
				apply(t, d, f, tr)
				look("the suppression ended", 1, 1, citywarden.Major)
				apply(t, d, f, tr)
				look("told twice", 1, 1, citywarden.Major)
				want := []string{"open pending_filing by citywarden: major alarm that was suppressed until now: Pipe burst (p1)"}
				if diff := cmp.Diff(want, timeline(t, d, allCases(t, d, citywarden.CaseFilter{})[0].ID)); diff != "" {
					t.Errorf("timeline (-want +got):\n%s", diff)
				}
				over := next(c.ends, "p2", false)
				over.Alarm.State, over.Annunciated = citywarden.AlarmCleared, false
				apply(t, d, f, next(citywarden.Raised, "p2", true), next(citywarden.Cleared, "p2", true), over)
				look("one that cleared before", 1, 1, citywarden.Major)
			})
		})
	}
}

func TestALostClearDoesNotHideTheNextEpisode(t *testing.T) {
	d, f := newDesk(t), &feed{}
	apply(t, d, f, f.next(citywarden.Raised, "pipe.burst", "p1", 1, citywarden.Major, nil))
	apply(t, d, f, f.next(citywarden.Raised, "pipe.burst", "p1", 2, citywarden.Major, nil))
	open, _, err := d.Alarms(t.Context(), citywarden.AlarmFilter{State: citywarden.AlarmActive})
	if err != nil || len(open) != 1 || open[0].Episode != 2 {
		t.Fatalf("active alarms: %+v, %v; want episode 2 alone", open, err)
	}
	old, err := d.Alarm(t.Context(), "pipe.burst:p1:1")
	if err != nil || old.State != citywarden.AlarmCleared || old.Reason != "replaced by episode 2" {
		t.Errorf("episode 1: %+v, %v", old, err)
	}
}

// Whatever part of the log is applied again, after it nothing is there twice.
func TestReplayChangesNothing(t *testing.T) {
	f := &feed{}
	r := rand.New(rand.NewPCG(1, 2))
	ts := storm(f, r, 40)
	once, _ := openDesk(t, filepath.Join(t.TempDir(), "once.db"), cases.Options{})
	apply(t, once, f, ts...)
	often, _ := openDesk(t, filepath.Join(t.TempDir(), "often.db"), cases.Options{})
	for i := 0; i < len(ts); {
		n := min(len(ts), i+1+r.IntN(9))
		back := r.IntN(i + 1)
		batch := append(slices.Clone(ts[back:n]), ts[back:n]...) // and twice in one call
		if err := often.Apply(t.Context(), ts[n-1].Position, batch); err != nil {
			t.Fatal(err)
		}
		i = n
	}
	if diff := cmp.Diff(dump(t, once), dump(t, often)); diff != "" {
		t.Errorf("applied once and often differ (-once +often):\n%s", diff)
	}
}

// storm returns transitions of n episodes on five entities and three case keys.
func storm(f *feed, r *rand.Rand, n int) []citywarden.Transition {
	var ts []citywarden.Transition
	episode := map[string]uint64{}
	active := map[string]bool{}
	for len(ts) < n*3 {
		e := fmt.Sprintf("p%d", r.IntN(5))
		order := burst(fmt.Sprintf("burst/%d", r.IntN(3)))
		switch {
		case !active[e]:
			episode[e]++
			active[e] = true
			ts = append(ts, f.next(citywarden.Raised, "pipe.burst", e, episode[e], citywarden.Minor, order))
		case r.IntN(3) == 0:
			ts = append(ts, f.next(citywarden.Escalated, "pipe.burst", e, episode[e], citywarden.Major, order))
		default:
			active[e] = false
			ts = append(ts, f.next(citywarden.Cleared, "pipe.burst", e, episode[e], citywarden.Major, order))
		}
	}
	return ts
}

// dump returns everything a desk holds.
func dump(t testing.TB, d *cases.Desk) map[string]any {
	t.Helper()
	out := map[string]any{}
	alarms, _, err := d.Alarms(t.Context(), citywarden.AlarmFilter{Page: citywarden.Page{Limit: citywarden.MaxPage}})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range alarms {
		out[string(a.ID)] = a
		h, err := d.History(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		out["history of "+string(a.ID)] = h
	}
	for _, c := range allCases(t, d, citywarden.CaseFilter{Page: citywarden.Page{Limit: citywarden.MaxPage}}) {
		full, err := d.Case(t.Context(), c.ID, "", "")
		if err != nil {
			t.Fatal(err)
		}
		out[string(c.ID)] = full
	}
	cursor, err := d.Cursor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out["cursor"] = cursor
	notices, _, err := d.Notices(t.Context(), citywarden.NoticeFilter{Page: citywarden.Page{Limit: citywarden.MaxPage}})
	if err != nil {
		t.Fatal(err)
	}
	out["notices"] = notices
	return out
}

// failing is a store whose transactions fail at their end now and then, before
// or after the commit.
type failing struct {
	*store.DB
	r *rand.Rand
}

var errLost = errors.New("connection lost")

func (s *failing) UpdateDesk(ctx context.Context, f func(*store.DeskTx) error) error {
	switch s.r.IntN(3) {
	case 0:
		return s.DB.UpdateDesk(ctx, func(tx *store.DeskTx) error {
			if err := f(tx); err != nil {
				return err
			}
			return errLost
		})
	case 1:
		if err := s.DB.UpdateDesk(ctx, f); err != nil {
			return err
		}
		return errLost
	}
	return s.DB.UpdateDesk(ctx, f)
}

func TestACommitOfUnknownOutcomeIsRepeated(t *testing.T) {
	f := &feed{}
	r := rand.New(rand.NewPCG(3, 4))
	ts := storm(f, r, 30)
	once := newDesk(t)
	apply(t, once, f, ts...)
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
	d, err := cases.New(&failing{db, r}, cases.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range ts {
		for errors.Is(d.Apply(t.Context(), tr.Position, []citywarden.Transition{tr}), errLost) {
		}
	}
	if diff := cmp.Diff(dump(t, once), dump(t, d)); diff != "" {
		t.Errorf("with failures (-without +with):\n%s", diff)
	}
	for i := range 5 {
		id := citywarden.DeviceID(fmt.Sprintf("p%d", i))
		if d.Worst(id) != once.Worst(id) {
			t.Errorf("Worst(%s) = %s, want %s", id, d.Worst(id), once.Worst(id))
		}
	}
}

func TestTwoDispatchersAtOnce(t *testing.T) {
	d, f := newDesk(t), &feed{}
	for round := range 10 {
		apply(t, d, f, f.next(citywarden.Raised, "pipe.burst", fmt.Sprintf("p%d", round), 1, citywarden.Major, burst(fmt.Sprint("k", round))))
		id := allCases(t, d, citywarden.CaseFilter{Stage: citywarden.PendingFiling})[0].ID
		seen := do(t, d, id, toClosed()[0]).Revision
		apply(t, d, f, f.next(citywarden.Cleared, "pipe.burst", fmt.Sprintf("p%d", round), 1, citywarden.Major, nil)) // evidence in between does not count
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for i, who := range []string{"chen", "zhou"} {
			wg.Go(func() {
				_, errs[i] = d.Do(t.Context(), id, citywarden.CaseStep{
					Action: citywarden.Dispatch, By: who, Role: citywarden.RoleDispatcher, Department: "部门" + who}, seen)
			})
		}
		wg.Wait()
		slices.SortFunc(errs, func(a, b error) int {
			return strings.Compare(string(citywarden.CodeOf(a)), string(citywarden.CodeOf(b)))
		})
		if errs[0] != nil || citywarden.CodeOf(errs[1]) != citywarden.CodeConflict || !strings.Contains(errs[1].Error(), "was faster (dispatch at ") {
			t.Fatalf("two dispatched the same case: %v; want nil and a conflict", errs)
		}
	}
}

func TestDo(t *testing.T) {
	d, f := newDesk(t), &feed{}
	apply(t, d, f, f.next(citywarden.Raised, "pipe.burst", "p1", 1, citywarden.Major, burst("k")))
	id := allCases(t, d, citywarden.CaseFilter{})[0].ID
	before := time.Now()
	c := do(t, d, id, toClosed()[0])
	if c.Filed.Before(before.Truncate(time.Millisecond)) || c.Deadline.Sub(c.Filed) != time.Hour || c.Light != citywarden.Green {
		t.Errorf("filed %v, deadline %v, light %q; want an hour from now, green", c.Filed, c.Deadline, c.Light)
	}
	c = do(t, d, id, citywarden.CaseStep{Action: citywarden.Dispatch, By: "chen", Role: citywarden.RoleDispatcher})
	if c.Department != "供水公司" {
		t.Errorf("dispatched to %q, want the department of the class", c.Department)
	}
	for _, tt := range []struct {
		step     citywarden.CaseStep
		revision int64
		want     citywarden.Code
	}{
		{citywarden.CaseStep{Action: citywarden.Close, By: "lin", Role: citywarden.RoleSupervisor}, 0, citywarden.CodeConflict},
		{citywarden.CaseStep{Action: citywarden.Accept, By: "wu", Role: citywarden.RoleDepartment, Department: "燃气公司"}, 0, citywarden.CodeDenied},
		{citywarden.CaseStep{Action: citywarden.Accept, By: "lin", Role: citywarden.RoleSupervisor}, 0, citywarden.CodeDenied},
		{citywarden.CaseStep{Action: citywarden.Void, By: "lin", Role: citywarden.RoleSupervisor}, 0, citywarden.CodeInvalid},
		{citywarden.CaseStep{Action: citywarden.Reopen, By: citywarden.Platform}, 0, citywarden.CodeDenied},
		{citywarden.CaseStep{Action: citywarden.Reopen, By: "root", Role: citywarden.RoleAdmin}, 0, citywarden.CodeDenied},
		{citywarden.CaseStep{Action: "explode", By: "root", Role: citywarden.RoleAdmin}, 0, citywarden.CodeNotFound},
		{citywarden.CaseStep{Action: citywarden.Accept, By: "wu", Role: citywarden.RoleDepartment}, 99, citywarden.CodeInvalid},
		{citywarden.CaseStep{Action: citywarden.Comment, By: "wu", Role: citywarden.RoleDepartment, Note: strings.Repeat("长", cases.MaxNote+1)}, 0, citywarden.CodeInvalid},
	} {
		if _, err := d.Do(t.Context(), id, tt.step, tt.revision); citywarden.CodeOf(err) != tt.want {
			t.Errorf("%s by %s: %v, want %s", tt.step.Action, tt.step.Role, err, tt.want)
		}
	}
	if _, err := d.Do(t.Context(), "E0", toClosed()[0], 0); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Errorf("an unknown case: %v, want not_found", err)
	}
	byStage, overdue, err := d.CaseCounts(t.Context())
	if err != nil || overdue != 0 || !cmp.Equal(byStage, map[citywarden.Stage]int{citywarden.PendingHandling: 1}) {
		t.Errorf("CaseCounts = %v, %d, %v", byStage, overdue, err)
	}
	bySeverity, unacked, err := d.AlarmCounts(t.Context())
	if err != nil || unacked != 1 || !cmp.Equal(bySeverity, map[citywarden.Severity]int{citywarden.Major: 1}) {
		t.Errorf("AlarmCounts = %v, %d, %v", bySeverity, unacked, err)
	}
}

func TestTheLightFollowsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f := newDesk(t), &feed{}
		apply(t, d, f, f.next(citywarden.Raised, "pipe.burst", "p1", 1, citywarden.Major, burst("k")))
		id := allCases(t, d, citywarden.CaseFilter{})[0].ID
		do(t, d, id, toClosed()[:3]...) // one urgent hour from now
		check := func(want citywarden.Light, wantOverdue int) {
			t.Helper()
			_, overdue, err := d.CaseCounts(t.Context())
			if got := allCases(t, d, citywarden.CaseFilter{})[0].Light; got != want || overdue != wantOverdue || err != nil {
				t.Errorf("at %v: light %q, %d overdue, %v; want %q, %d", time.Now(), got, overdue, err, want, wantOverdue)
			}
		}
		check(citywarden.Green, 0)
		time.Sleep(48 * time.Minute)
		check(citywarden.Green, 0)
		time.Sleep(time.Minute)
		check(citywarden.Yellow, 0)
		time.Sleep(12 * time.Minute)
		check(citywarden.Red, 1)
		do(t, d, id, toClosed()[3:]...)
		time.Sleep(time.Hour)
		check(citywarden.Red, 0)
	})
}

func TestWhatCountsAsBackToNormal(t *testing.T) {
	for name, tt := range map[string]struct {
		before  func(*citywarden.Alarm)
		cleared func(*citywarden.Transition)
		normal  bool
		en, zh  string
	}{
		"cleared by its condition": {
			func(*citywarden.Alarm) {}, func(*citywarden.Transition) {},
			true, "sensor back to normal: Pipe burst (p1), pressure is cleared",
			"传感器已恢复正常：管网爆管（p1），压力正常",
		},
		"cleared while shelved": {
			func(a *citywarden.Alarm) { a.Reason = "pipe works" }, func(tr *citywarden.Transition) { tr.Alarm.Reason = "pipe works" },
			true, "sensor back to normal: Pipe burst (p1), pressure is cleared",
			"传感器已恢复正常：管网爆管（p1），压力正常",
		},
		"silent, then reset": {
			func(a *citywarden.Alarm) { a.NoData = true }, func(tr *citywarden.Transition) { tr.Note = "reset by lin" },
			false, "alarm closed: Pipe burst (p1), pressure is cleared",
			"告警已关闭：管网爆管（p1），压力正常",
		},
		"rule removed": {
			func(*citywarden.Alarm) {}, func(tr *citywarden.Transition) { tr.Note = "rule removed" },
			false, "alarm closed: Pipe burst (p1), pressure is cleared",
			"告警已关闭：管网爆管（p1），压力正常",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, f := newDesk(t), &feed{}
			raised := f.next(citywarden.Raised, "pipe.burst", "p1", 1, citywarden.Major, burst("k"))
			tt.before(&raised.Alarm)
			cleared := f.next(citywarden.Cleared, "pipe.burst", "p1", 1, citywarden.Major, nil)
			tt.cleared(&cleared)
			apply(t, d, f, raised, cleared)
			c := allCases(t, d, citywarden.CaseFilter{})[0]
			full, err := d.Case(t.Context(), c.ID, "", "")
			if err != nil {
				t.Fatal(err)
			}
			last := full.Timeline[len(full.Timeline)-1]
			if got := last.Said("en"); c.Normal != tt.normal || got != tt.en {
				t.Errorf("normal %v, %q; want %v, %q", c.Normal, got, tt.normal, tt.en)
			}
			if got := last.Said("zh"); got != tt.zh {
				t.Errorf("in Chinese %q, want %q", got, tt.zh)
			}
		})
	}
}

func TestALatchedAlarmIsBackToNormalBeforeItsReset(t *testing.T) {
	d, f := newDesk(t), &feed{}
	step := func(kind citywarden.TransitionKind, latched bool) {
		t.Helper()
		tr := f.next(kind, "fire", "z1", 1, citywarden.Critical, burst("fire/z1"))
		tr.Alarm.Latched = latched
		if kind == citywarden.Cleared {
			tr.Note = "reset by lin"
		}
		apply(t, d, f, tr)
	}
	var normal []bool
	for _, s := range []struct {
		kind    citywarden.TransitionKind
		latched bool
	}{{citywarden.Raised, false}, {citywarden.Acked, false}, {citywarden.Latched, true}, {citywarden.Resumed, false}, {citywarden.Latched, true}, {citywarden.Cleared, false}} {
		step(s.kind, s.latched)
		normal = append(normal, allCases(t, d, citywarden.CaseFilter{})[0].Normal)
	}
	if want := []bool{false, false, true, false, true, true}; !slices.Equal(normal, want) {
		t.Errorf("back to normal: %v, want %v", normal, want)
	}
	want := []string{
		"open pending_filing by citywarden: critical alarm: Pipe burst (z1), pressure is raised",
		"evidence pending_filing by citywarden: sensor back to normal, the alarm waits for a reset: Pipe burst (z1), pressure is latched",
		"evidence pending_filing by citywarden: raised again: Pipe burst (z1), pressure is resumed",
		"evidence pending_filing by citywarden: sensor back to normal, the alarm waits for a reset: Pipe burst (z1), pressure is latched",
		"evidence pending_filing by citywarden: latched alarm closed: Pipe burst (z1), pressure is cleared",
	}
	if diff := cmp.Diff(want, timeline(t, d, allCases(t, d, citywarden.CaseFilter{})[0].ID)); diff != "" {
		t.Errorf("timeline (-want +got):\n%s", diff)
	}
}

func TestCreate(t *testing.T) {
	d := newDesk(t)
	c, err := d.Create(t.Context(), citywarden.NewCase{Class: "component/0101", Title: "井盖缺失", Description: "opposite no. 12"}, "huang", citywarden.RoleOfficer)
	if err != nil {
		t.Fatal(err)
	}
	if c.ID[0] != 'C' || c.Source != citywarden.SourceOfficer || c.Stage != citywarden.Reported || c.OpenedBy != "huang" || c.Limit != "2紧急工作时" || c.Timeline[0].By != "huang" || c.Timeline[0].Note != "opposite no. 12" {
		t.Errorf("the case: %+v", c)
	}
	for _, tt := range []struct {
		in   citywarden.NewCase
		role citywarden.Role
		want string
	}{
		{citywarden.NewCase{Class: "component/0101", Title: "x"}, citywarden.RoleViewer, "denied"},
		{citywarden.NewCase{Class: "component/101", Title: "x"}, citywarden.RoleAdmin, "invalid"},
		{citywarden.NewCase{Class: "component/0101"}, citywarden.RoleAdmin, "invalid"},
		{citywarden.NewCase{Class: "component/0101", Title: "x", Location: &citywarden.Point{Lat: 117, Lon: 24}}, citywarden.RoleAdmin, "invalid"},
	} {
		if _, err := d.Create(t.Context(), tt.in, "x", tt.role); string(citywarden.CodeOf(err)) != tt.want {
			t.Errorf("Create(%+v) by %s: %v, want %s", tt.in, tt.role, err, tt.want)
		}
	}
}

func TestNear(t *testing.T) {
	d := newDesk(t)
	at := citywarden.Point{Lat: 24.1170, Lon: 117.6130}
	var ids []citywarden.CaseID
	for _, n := range []citywarden.NewCase{
		{Class: "event/0506", Title: "30 m away", Location: &citywarden.Point{Lat: 24.11727, Lon: 117.6130}},
		{Class: "event/0506", Title: "there", Location: &at},
		{Class: "event/0506", Title: "500 m away", Location: &citywarden.Point{Lat: 24.1215, Lon: 117.6130}},
		{Class: "event/0501", Title: "of another class", Location: &at},
		{Class: "event/0506", Title: "nobody knows where"},
	} {
		c, err := d.Create(t.Context(), n, "lin", citywarden.RoleAcceptor)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, c.ID)
	}
	ds, err := d.Near(t.Context(), "event/0506", at)
	if err != nil || len(ds) != 2 || ds[0].Case.ID != ids[1] || ds[1].Case.ID != ids[0] || ds[1].Distance < 29 || ds[1].Distance > 31 {
		t.Errorf("Near = %+v, %v", ds, err)
	}
	for _, bad := range []struct {
		class citywarden.ClassCode
		at    citywarden.Point
	}{{"event/9", at}, {"event/0506", citywarden.Point{Lat: 117, Lon: 24}}} {
		if _, err := d.Near(t.Context(), bad.class, bad.at); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("Near(%s, %v) = %v", bad.class, bad.at, err)
		}
	}
}

func TestFiltersAndPages(t *testing.T) {
	d, f := newDesk(t), &feed{}
	var ts []citywarden.Transition
	for i := range 25 {
		tr := f.next(citywarden.Raised, "pipe.burst", fmt.Sprintf("p%d", i), 1, citywarden.Major, burst(fmt.Sprint("k", i)))
		if i%5 == 0 {
			tr.Alarm.Rule, tr.Alarm.Severity = "meter.silent", citywarden.Minor
			tr.Alarm.ID = citywarden.NewAlarmID("meter.silent", tr.Alarm.Entity, 1)
			tr.Alarm.Members = []citywarden.DeviceID{"m1", "m2"}
			tr.Case = &citywarden.CaseOrder{Key: fmt.Sprint("maint/", i), WorkOrder: true}
		}
		ts = append(ts, tr)
	}
	apply(t, d, f, ts...)
	seen := map[citywarden.CaseID]bool{}
	pages, after := 0, ""
	for {
		list, next, err := d.Cases(t.Context(), citywarden.CaseFilter{Open: true, Page: citywarden.Page{Limit: 8, After: after}})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			if seen[c.ID] || c.WorkOrder {
				t.Errorf("case %s comes twice or is a work order", c.ID)
			}
			seen[c.ID] = true
		}
		pages++
		if after = next; next == "" {
			break
		}
	}
	if len(seen) != 20 || pages != 3 {
		t.Errorf("%d cases on %d pages, want 20 on 3", len(seen), pages)
	}
	for name, tt := range map[string]struct {
		f    citywarden.CaseFilter
		want int
	}{
		"work orders":        {citywarden.CaseFilter{WorkOrders: true}, 5},
		"stage":              {citywarden.CaseFilter{Stage: citywarden.Handling}, 0},
		"alarm":              {citywarden.CaseFilter{Alarm: "pipe.burst:p3:1"}, 1},
		"work order's alarm": {citywarden.CaseFilter{Alarm: "meter.silent:p5:1"}, 1},
		"no such alarm":      {citywarden.CaseFilter{Alarm: "x"}, 0},
		"grid":               {citywarden.CaseFilter{Grid: "350623100001001"}, 0},
		"department":         {citywarden.CaseFilter{Department: "供水公司"}, 0},
	} {
		if got := allCases(t, d, tt.f); len(got) != tt.want {
			t.Errorf("%s: %d cases, want %d", name, len(got), tt.want)
		}
	}
	for name, tt := range map[string]struct {
		f    citywarden.AlarmFilter
		want int
	}{
		"all":      {citywarden.AlarmFilter{}, 25},
		"member":   {citywarden.AlarmFilter{Device: "m2"}, 5},
		"device":   {citywarden.AlarmFilter{Device: "p3"}, 1},
		"rule":     {citywarden.AlarmFilter{Rule: "meter.silent"}, 5},
		"severity": {citywarden.AlarmFilter{Severity: citywarden.Major, State: citywarden.AlarmActive}, 20},
		"cleared":  {citywarden.AlarmFilter{State: citywarden.AlarmCleared}, 0},
	} {
		got, _, err := d.Alarms(t.Context(), tt.f)
		if err != nil || len(got) != tt.want {
			t.Errorf("%s: %d alarms, %v; want %d", name, len(got), err, tt.want)
		}
	}
	if _, _, err := d.Alarms(t.Context(), citywarden.AlarmFilter{Page: citywarden.Page{After: "x"}}); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("a made-up cursor: %v, want invalid", err)
	}
	if wo := allCases(t, d, citywarden.CaseFilter{WorkOrders: true})[0]; wo.ID[0] != 'W' {
		t.Errorf("work order %s, want W…", wo.ID)
	}
	if d.Worst("m1") != citywarden.Minor {
		t.Errorf("Worst of a member = %s, want minor", d.Worst("m1"))
	}
}

// Random people do random things, legal or not; the case takes only what the
// workflow allows, and its stored timeline rebuilds its state.
func TestTimelineRebuildsTheCase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(monday()))
		d := newDesk(t)
		r := rand.New(rand.NewPCG(5, 6))
		people := []citywarden.CaseStep{
			{By: "ma", Role: citywarden.RoleAcceptor}, {By: "lin", Role: citywarden.RoleShiftLeader}, {By: "he", Role: citywarden.RoleSupervisor},
			{By: "chen", Role: citywarden.RoleDispatcher}, {By: "wu", Role: citywarden.RoleDepartment, Department: "供水公司"},
			{By: "xu", Role: citywarden.RoleDepartment, Department: "市政处"}, {By: "huang", Role: citywarden.RoleOfficer},
			{By: "zhang", Role: citywarden.RoleOfficer}, {By: "root", Role: citywarden.RoleAdmin}, {By: "guest", Role: citywarden.RoleViewer},
			{By: "somebody", Role: citywarden.RoleCitizen},
		}
		var actions []citywarden.Action
		for _, m := range citywarden.Workflow {
			actions = append(actions, m.Action)
		}
		other, err := d.Create(t.Context(), citywarden.NewCase{Class: "event/0501", Title: "other"}, "he", citywarden.RoleSupervisor)
		if err != nil {
			t.Fatal(err)
		}
		done, refused, photos := map[citywarden.Action]int{}, 0, 0
		stages := map[citywarden.Stage]bool{}
		for range 15 {
			c, err := d.Create(t.Context(), citywarden.NewCase{Class: "event/0501", Title: "x"}, "somebody", citywarden.RoleCitizen)
			if err != nil {
				t.Fatal(err)
			}
			id := c.ID
			for range 40 {
				step := people[r.IntN(len(people))]
				now, err := d.Case(t.Context(), id, step.By, step.Role)
				if err != nil {
					t.Fatal(err)
				}
				next := now.Next(citywarden.CaseStep{By: step.By, Role: step.Role, Department: step.Department, At: time.Now()})
				if r.IntN(8) == 0 {
					photos++
					_, err := d.Attach(t.Context(), id, photo(photos), citywarden.AttachmentKinds[photos%5], step)
					if slices.Contains(next, citywarden.Comment) != (err == nil) {
						t.Fatalf("a photo by %s in %s: %v, but allowed were %v", step.Role, now.Stage, err, next)
					}
					continue
				}
				step.Action = actions[r.IntN(len(actions))]
				if len(next) > 0 && r.IntN(3) > 0 {
					step.Action = next[r.IntN(len(next))]
				}
				if r.IntN(6) > 0 {
					step.Note, step.Officer, step.Case, step.Satisfaction = "because", []string{"huang", "zhang"}[r.IntN(2)], other.ID, citywarden.Satisfied
					step.Until = time.Now().Add(time.Duration(1+r.IntN(400*24)) * time.Hour)
					if step.Role != citywarden.RoleDepartment {
						step.Department = []string{"供水公司", "市政处"}[r.IntN(2)]
					}
				}
				after, err := d.Do(t.Context(), id, step, now.Revision)
				allowed := slices.Contains(next, step.Action)
				switch code := citywarden.CodeOf(err); {
				case err == nil && (!allowed || after.Revision != now.Revision+1):
					t.Fatalf("%s by %s in %s: done, but allowed were %v; revision %d after %d", step.Action, step.Role, now.Stage, next, after.Revision, now.Revision)
				case err == nil:
					done[step.Action]++
					stages[after.Stage] = true
				case allowed && code != citywarden.CodeInvalid:
					t.Fatalf("%s by %s in %s was offered, but: %v", step.Action, step.Role, now.Stage, err)
				default:
					refused++
					same, err := d.Case(t.Context(), id, step.By, step.Role)
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(now, same); diff != "" {
						t.Fatalf("a refused %s changed the case (-before +after):\n%s", step.Action, diff)
					}
				}
				time.Sleep(time.Duration(r.IntN(40)) * time.Minute)
			}
			got, err := d.Case(t.Context(), id, "", "")
			if err != nil {
				t.Fatal(err)
			}
			want, err := citywarden.ReplayCase(got, got.Timeline)
			if err != nil {
				t.Fatal(err)
			}
			// What the class table, the place and the clock say is not in the timeline.
			want.ClassName, want.Title, want.OpenedBy, want.Condition, want.Closing, want.Limit, want.FilingRule, want.ClassVersion = got.ClassName, got.Title, got.OpenedBy, got.Condition, got.Closing, got.Limit, got.FilingRule, got.ClassVersion
			want.Alarms, want.Actions, want.Light, want.StageLight = got.Alarms, got.Actions, got.Light, got.StageLight
			want.Proposed = got.Proposed
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("case %s (-from its timeline +stored):\n%s", id, diff)
			}
		}
		if len(done) < 15 || refused < 200 || len(stages) < 8 {
			t.Errorf("the walks were too tame: %d refused, done %v, stages %v", refused, done, stages)
		}
	})
}
