package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/store/pgtest"
)

func deskDB(t *testing.T) *DB {
	t.Helper()
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "desk.db"), Open)
	return db
}

// Who applies transitions to years of alarms and cases must not go through a
// table for one, however quick that is in a test.
func TestTheDeskScansNoTable(t *testing.T) {
	db := deskDB(t)
	if db.stmts == nil {
		t.Skip("asks SQLite for its plans")
	}
	ctx, a, c := t.Context(), deskAlarm(1, citywarden.AlarmActive), citywarden.Case{ID: "E1", Key: "k", Rule: "r"}
	n := citywarden.Notice{Key: "n", Case: c.ID, Receiver: "all", State: citywarden.NoticePending}
	a.Case = c.ID
	err := db.desk(t, func(tx *DeskTx) error {
		_, err := tx.AddTransition(ctx, citywarden.Transition{Key: "t", Alarm: a})
		errs := []error{err, tx.SetCursor(ctx, "c", 1), tx.SaveAlarm(ctx, a), tx.SaveCase(ctx, c, 0), tx.MoveAlarms(ctx, "E1", "E2"), tx.SaveNotice(ctx, n),
			tx.SetTimer(ctx, citywarden.CaseTimer{Case: "E1", Kind: citywarden.TimerClose}), tx.ParkTimers(ctx, "E1", citywarden.TimerClose, true)}
		_, err = tx.Alarm(ctx, a.ID)
		errs = append(errs, err)
		_, err = tx.ActiveAlarm(ctx, a.Rule, a.Entity)
		errs = append(errs, err)
		_, err = tx.CaseByKey(ctx, c.Key)
		errs = append(errs, err)
		_, err = tx.Case(ctx, c.ID)
		errs = append(errs, err)
		_, err = tx.StepsAfter(ctx, c.ID, 0)
		errs = append(errs, err)
		_, err = tx.NextSerial(ctx, "20261123")
		errs = append(errs, err)
		_, err = tx.AddNotices(ctx, []citywarden.Notice{n})
		errs = append(errs, err)
		_, err = tx.PendingNotices(ctx, c.ID)
		errs = append(errs, err)
		_, _, err = tx.TakeTimer(ctx, time.UnixMilli(1))
		errs = append(errs, err)
		_, err = tx.DropTimers(ctx, c.ID, citywarden.TimerClose)
		errs = append(errs, err)
		_, err = tx.Tally(ctx, c.ID)
		errs = append(errs, err)
		_, err = tx.Devices(ctx, c.ID)
		errs = append(errs, err)
		_, err = tx.OpenedBy(ctx, c.Rule, time.UnixMilli(1))
		errs = append(errs, err)
		_, err = tx.Held(ctx, c.ID)
		errs = append(errs, err)
		_, err = tx.Attachments(ctx, c.ID)
		return errors.Join(append(errs, err)...)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(db.stmts.by) < 20 {
		t.Errorf("only %d queries were looked at", len(db.stmts.by))
	}
	for query := range db.stmts.by {
		rows, err := db.sql.Query("EXPLAIN QUERY PLAN "+query, make([]any, parameters(query))...)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		for rows.Next() {
			var id, parent, unused int
			var step string
			if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
				t.Error(err)
			}
			if strings.HasPrefix(step, "SCAN") {
				t.Errorf("%s\n\t%s", query, step)
			}
		}
		if err := rows.Err(); err != nil {
			t.Error(err)
		}
	}
}

// parameters returns how many parameters a query has: the highest $n.
func parameters(query string) (n int) {
	for _, m := range regexp.MustCompile(`\$(\d+)`).FindAllStringSubmatch(query, -1) {
		i, _ := strconv.Atoi(m[1])
		n = max(n, i)
	}
	return n
}

func (d *DB) desk(t *testing.T, f func(*DeskTx) error) error {
	t.Helper()
	return d.UpdateDesk(t.Context(), f)
}

func deskAlarm(episode uint64, state citywarden.AlarmState) citywarden.Alarm {
	return citywarden.Alarm{
		ID: citywarden.NewAlarmID("r", "e", episode), Rule: "r", Entity: "e", Device: "d1", Episode: episode,
		Severity: citywarden.Major, State: state, RaisedAt: time.UnixMilli(int64(episode) * 1000).UTC(),
	}
}

func TestOneActiveAlarmPerRuleAndEntity(t *testing.T) {
	db := deskDB(t)
	save := func(a citywarden.Alarm) error {
		return db.desk(t, func(tx *DeskTx) error { return tx.SaveAlarm(t.Context(), a) })
	}
	if err := save(deskAlarm(1, citywarden.AlarmActive)); err != nil {
		t.Fatal(err)
	}
	if err := save(deskAlarm(2, citywarden.AlarmActive)); err == nil {
		t.Fatal("two alarms of one rule on one entity are active")
	}
	if err := save(deskAlarm(1, citywarden.AlarmCleared)); err != nil {
		t.Fatal(err)
	}
	if err := save(deskAlarm(2, citywarden.AlarmActive)); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Alarm(t.Context(), "r:e:3"); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Errorf("an unknown alarm: %v, want not_found", err)
	}
}

func TestSaveAlarmKeepsTheCase(t *testing.T) {
	db := deskDB(t)
	a := deskAlarm(1, citywarden.AlarmActive)
	a.Case = "E1"
	later := deskAlarm(1, citywarden.AlarmCleared)
	for _, x := range []citywarden.Alarm{a, later} {
		if err := db.desk(t, func(tx *DeskTx) error { return tx.SaveAlarm(t.Context(), x) }); err != nil {
			t.Fatal(err)
		}
	}
	later.Case = "E1"
	got, err := db.Alarm(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(later, got); diff != "" {
		t.Errorf("the alarm (-want +got):\n%s", diff)
	}
}

func TestTransitionsAreKeptOnce(t *testing.T) {
	db := deskDB(t)
	tr := citywarden.Transition{Key: "r/a/b/1/12", Kind: citywarden.Shelved, Position: 7, At: time.UnixMilli(5).UTC(), Alarm: deskAlarm(1, citywarden.AlarmActive)}
	tr.By, tr.Note = "lin", "maintenance"
	for i, want := range []bool{true, false} {
		var fresh bool
		err := db.desk(t, func(tx *DeskTx) (err error) {
			fresh, err = tx.AddTransition(t.Context(), tr)
			return err
		})
		if err != nil || fresh != want {
			t.Errorf("time %d: fresh %v, %v; want %v", i+1, fresh, err, want)
		}
	}
	got, err := db.AlarmSteps(t.Context(), tr.Alarm.ID)
	want := []citywarden.AlarmStep{{Kind: citywarden.Shelved, Severity: citywarden.Major, At: tr.At, By: "lin", Reason: "maintenance"}}
	if err != nil || !cmp.Equal(want, got) {
		t.Errorf("history %+v, %v; want %+v", got, err, want)
	}
	short := citywarden.Transition{Key: tr.Key, Kind: tr.Kind, Position: tr.Position, Alarm: citywarden.Alarm{Severity: citywarden.Major}}
	for after, want := range map[citywarden.Position][]citywarden.Transition{tr.Position - 1: {short}, tr.Position: {}} {
		if got, err := db.TransitionsAfter(t.Context(), after); err != nil || !cmp.Equal(want, got) {
			t.Errorf("TransitionsAfter(%d) = %+v, %v; want %+v", after, got, err, want)
		}
	}
}

func TestHistorySaysWhoAndWhat(t *testing.T) {
	db := deskDB(t)
	at := time.UnixMilli(5).UTC()
	a := deskAlarm(1, citywarden.AlarmActive)
	a.Assignee, a.SuppressedBy, a.Reason = "wu", "gateway.offline:g1:1", "reset by lin"
	var want []citywarden.AlarmStep
	for i, s := range []citywarden.AlarmStep{
		{Kind: citywarden.Raised},
		{Kind: citywarden.Commented, By: "lin", Text: "现场已查看"},
		{Kind: citywarden.Assigned, By: "lin", Assignee: "wu"},
		{Kind: citywarden.Suppressed, SuppressedBy: "gateway.offline:g1:1"},
		{Kind: citywarden.WentOutOfService, By: "lin", Reason: "works"},
		{Kind: citywarden.Cleared, By: "lin", Reason: "reset by lin"},
	} {
		s.Severity, s.At, s.Logged = a.Severity, at, at
		want = append(want, s)
		tr := citywarden.Transition{Key: fmt.Sprintf("r/e/1/%d", i+1), Kind: s.Kind, At: at, Logged: at, Alarm: a, By: s.By, Note: s.Text + s.Reason}
		if err := db.desk(t, func(tx *DeskTx) error { _, err := tx.AddTransition(t.Context(), tr); return err }); err != nil {
			t.Fatal(err)
		}
	}
	got, err := db.AlarmSteps(t.Context(), a.ID)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("history: %v (-want +got):\n%s", err, diff)
	}
}

func TestAlarmsByHowTheyAreSuppressed(t *testing.T) {
	db := deskDB(t)
	yes, no := true, false
	save := func(name string, episode uint64, state citywarden.AlarmState, change func(*citywarden.Alarm)) {
		t.Helper()
		a := deskAlarm(episode, state)
		a.ID, a.Entity = citywarden.NewAlarmID("r", name, episode), name
		change(&a)
		if err := db.desk(t, func(tx *DeskTx) error { return tx.SaveAlarm(t.Context(), a) }); err != nil {
			t.Fatal(err)
		}
	}
	at := time.UnixMilli(9000).UTC()
	out := func(a *citywarden.Alarm) { a.OutOfService = at }
	save("plain", 1, citywarden.AlarmActive, func(a *citywarden.Alarm) { a.Assignee = "wu" })
	save("shelf", 2, citywarden.AlarmActive, func(a *citywarden.Alarm) { a.Shelved, a.Acked = at, true })
	save("design", 3, citywarden.AlarmActive, func(a *citywarden.Alarm) { a.SuppressedBy = "x:y:1" })
	save("was", 4, citywarden.AlarmCleared, func(a *citywarden.Alarm) { a.SuppressedBy = "x:y:1" })
	save("out", 5, citywarden.AlarmActive, out)
	save("out", 5, citywarden.AlarmCleared, out)
	save("both", 6, citywarden.AlarmActive, func(a *citywarden.Alarm) { out(a); a.Shelved = at })
	// An episode that ended while it was out of service, and the next one.
	save("old", 7, citywarden.AlarmCleared, out)
	save("old", 8, citywarden.AlarmActive, out)
	for _, c := range []struct {
		f    citywarden.AlarmFilter
		want string
	}{
		{citywarden.AlarmFilter{Suppressed: citywarden.SuppressionAny}, "old:8 both:6 out:5 design:3 shelf:2"},
		{citywarden.AlarmFilter{Suppressed: citywarden.SuppressionNone}, "old:7 was:4 plain:1"},
		{citywarden.AlarmFilter{Suppressed: citywarden.SuppressionShelved}, "both:6 shelf:2"},
		{citywarden.AlarmFilter{Suppressed: citywarden.SuppressionByDesign}, "design:3"},
		{citywarden.AlarmFilter{Suppressed: citywarden.SuppressionOutOfService}, "old:8 both:6 out:5"},
		{citywarden.AlarmFilter{Suppressed: citywarden.SuppressionOutOfService, State: citywarden.AlarmActive}, "old:8 both:6"},
		{citywarden.AlarmFilter{Assignee: "wu"}, "plain:1"},
		{citywarden.AlarmFilter{Acked: &yes}, "shelf:2"},
		{citywarden.AlarmFilter{Acked: &no, State: citywarden.AlarmActive, Suppressed: citywarden.SuppressionNone}, "plain:1"},
		{citywarden.AlarmFilter{Suppressed: citywarden.SuppressionAny, Rule: "r", Page: citywarden.Page{Limit: 1}}, "old:8"},
	} {
		items, _, err := db.Alarms(t.Context(), c.f)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range items {
			got = append(got, strings.TrimPrefix(string(a.ID), "r:"))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%+v = %s, want %s", c.f, s, c.want)
		}
	}
	bySeverity, unacked, err := db.AlarmCounts(t.Context())
	if err != nil || bySeverity[citywarden.Major] != 5 || unacked != 1 {
		t.Errorf("counts %v, unacked %d, %v; want 5 active, 1 of them unacked", bySeverity, unacked, err)
	}
	if db.owner != nil {
		return // PostgreSQL reads a table this small from end to end
	}
	for _, part := range []string{"suppressed <> 0 AND suppressed & 4 <> 0", "assignee <> '' AND assignee = 'wu'"} {
		var plan string
		err := db.sql.QueryRowContext(t.Context(), `EXPLAIN QUERY PLAN SELECT data FROM alarms WHERE `+part+` AND +shadow = 0
			ORDER BY alarms.raised_at DESC, alarms.id DESC LIMIT 101`).Scan(new(int), new(int), new(int), &plan)
		if err != nil || !strings.Contains(plan, "USING INDEX") {
			t.Errorf("where %s: %s, %v; want an index", part, plan, err)
		}
	}
}

func TestAFailedDeskTransactionLeavesNothing(t *testing.T) {
	db := deskDB(t)
	stop := errors.New("stop")
	err := db.desk(t, func(tx *DeskTx) error {
		if _, err := tx.NextSerial(t.Context(), "20261123"); err != nil {
			return err
		}
		if err := tx.SaveAlarm(t.Context(), deskAlarm(1, citywarden.AlarmActive)); err != nil {
			return err
		}
		if err := tx.SetCursor(t.Context(), "desk", 7); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if p, err := db.Cursor(t.Context(), "desk"); err != nil || p != 0 {
		t.Errorf("cursor %d, %v; want 0", p, err)
	}
	if _, err := db.Alarm(t.Context(), "r:e:1"); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Errorf("the alarm is there: %v", err)
	}
	var n []int64
	err = db.desk(t, func(tx *DeskTx) error {
		for _, day := range []string{"20261123", "20261123", "20261124"} {
			i, err := tx.NextSerial(t.Context(), day)
			if err != nil {
				return err
			}
			n = append(n, i)
		}
		return nil
	})
	if err != nil || !cmp.Equal(n, []int64{1, 2, 1}) {
		t.Errorf("serials %v, %v; want 1 2 1", n, err)
	}
}

func TestSaveCase(t *testing.T) {
	db := deskDB(t)
	save := func(c citywarden.Case, was int64) error {
		return db.desk(t, func(tx *DeskTx) error { return tx.SaveCase(t.Context(), c, was) })
	}
	step := func(n int64) citywarden.CaseStep {
		return citywarden.CaseStep{Action: citywarden.Comment, Stage: citywarden.PendingFiling, By: "lin", Note: "x", At: time.UnixMilli(n).UTC()}
	}
	c := citywarden.Case{ID: "E1", Key: "k", Stage: citywarden.PendingFiling, Opened: time.UnixMilli(1).UTC(), Revision: 1, Timeline: []citywarden.CaseStep{step(1)}}
	if err := save(c, 0); err != nil {
		t.Fatal(err)
	}
	if err := save(c, 0); citywarden.CodeOf(err) != citywarden.CodeConflict {
		t.Errorf("the same case added again: %v, want conflict", err)
	}
	other := c
	other.ID = "E2"
	if err := save(other, 0); err == nil {
		t.Error("two open cases have one key")
	}
	own := citywarden.CaseStep{
		Action: citywarden.Evidence, Stage: citywarden.PendingFiling, By: citywarden.Platform, Alarm: "a",
		Text: &citywarden.Text{ZH: "已恢复正常", EN: "back to normal"}, At: time.UnixMilli(2).UTC(),
	}
	c.Revision, c.Timeline = 3, []citywarden.CaseStep{own, step(3)}
	if err := save(c, 1); err != nil {
		t.Fatal(err)
	}
	if err := save(c, 1); citywarden.CodeOf(err) != citywarden.CodeConflict {
		t.Errorf("saved over a newer revision: %v, want conflict", err)
	}
	got, err := db.Case(t.Context(), "E1")
	if err != nil {
		t.Fatal(err)
	}
	c.Timeline, c.Alarms = []citywarden.CaseStep{step(1), own, step(3)}, []citywarden.AlarmID{}
	if diff := cmp.Diff(c, got); diff != "" {
		t.Errorf("the case (-want +got):\n%s", diff)
	}
	c.Stage, c.Revision, c.Timeline = citywarden.Closed, 4, []citywarden.CaseStep{step(4)}
	if err := save(c, 3); err != nil {
		t.Fatal(err)
	}
	if err := save(other, 0); err != nil {
		t.Errorf("the key is free again, but: %v", err)
	}
	err = db.desk(t, func(tx *DeskTx) error {
		got, err := tx.CaseByKey(t.Context(), "k")
		if err == nil && got.ID != "E2" {
			t.Errorf("CaseByKey = %s, want the open one, E2", got.ID)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestCasesSayWhichDevice(t *testing.T) {
	db := deskDB(t)
	ctx := t.Context()
	save := func(ds ...citywarden.Device) {
		t.Helper()
		if err := db.SaveDevices(ctx, ds, nil); err != nil {
			t.Fatal(err)
		}
	}
	save(citywarden.Device{ID: "d1", Name: "东门水位计"}, citywarden.Device{ID: "d2", Name: "West gate"})
	alarm := func(entity string, device citywarden.DeviceID, raised int64, of citywarden.CaseID) citywarden.Alarm {
		return citywarden.Alarm{ID: citywarden.NewAlarmID("r", entity, 1), Rule: "r", Entity: entity, Device: device, Episode: 1,
			State: citywarden.AlarmActive, RaisedAt: time.UnixMilli(raised).UTC(), Case: of}
	}
	err := db.desk(t, func(tx *DeskTx) error {
		var errs []error
		for i, id := range []citywarden.CaseID{"E1", "E2", "E3", "E4", "E5"} {
			c := citywarden.Case{ID: id, Key: string(id), Opened: time.UnixMilli(int64(9 - i)).UTC(), Revision: 1, DeviceName: "old"}
			if id == "E5" {
				c.Device = "d1" // opened about it; the others take theirs from their alarms
			}
			errs = append(errs, tx.SaveCase(ctx, c, 0))
		}
		for _, a := range []citywarden.Alarm{
			alarm("later", "d2", 2000, "E1"), alarm("first", "d1", 1000, "E1"), // the first by time
			alarm("a group", "d1", 3000, "E2"),
			alarm("gone", "d9", 4000, "E3"), // the device is deleted
			alarm("another", "d2", 5000, "E5"),
			alarm("of no case", "d2", 500, ""),
		} {
			errs = append(errs, tx.SaveAlarm(ctx, a))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		t.Fatal(err)
	}
	devices := func() string {
		t.Helper()
		all, _, err := db.Cases(ctx, citywarden.CaseFilter{})
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, c := range all {
			lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s", c.ID, c.Device, c.DeviceName)))
			one, err := db.Case(ctx, c.ID)
			if err != nil || one.Device != c.Device || one.DeviceName != c.DeviceName {
				t.Errorf("%s by itself is of %q %q, %v; in the list of %q %q", c.ID, one.Device, one.DeviceName, err, c.Device, c.DeviceName)
			}
		}
		return strings.Join(lines, "; ")
	}
	if got, want := devices(), "E1 d1 东门水位计; E2 d1 东门水位计; E3 d9; E4; E5 d1 东门水位计"; got != want {
		t.Errorf("the cases are of %s; want %s", got, want)
	}
	save(citywarden.Device{ID: "d1", Name: "East gate"})
	if got, want := devices(), "E1 d1 East gate; E2 d1 East gate; E3 d9; E4; E5 d1 East gate"; got != want {
		t.Errorf("with another name the cases are of %s; want %s", got, want)
	}
	if err := db.desk(t, func(tx *DeskTx) error { return tx.MoveAlarms(ctx, "E1", "E4") }); err != nil {
		t.Fatal(err)
	}
	if got, want := devices(), "E1; E2 d1 East gate; E3 d9; E4 d1 East gate; E5 d1 East gate"; got != want {
		t.Errorf("with its alarms moved the cases are of %s; want %s", got, want)
	}
}
