package cases

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/citywarden/citywarden"
)

// StageLimits returns how long each stage before and after the handling may take
// unless the configuration says otherwise: a day on the clock to verify, two hours
// to check, an hour of work for each desk. While the department works, the limit
// of the class counts.
func StageLimits() map[citywarden.Stage]Limit {
	desk := Limit{1, WorkHours}
	return map[citywarden.Stage]Limit{
		citywarden.Reported: desk, citywarden.Verifying: {24, UrgentHours}, citywarden.PendingFiling: desk, citywarden.PendingDispatch: desk,
		citywarden.Handled: desk, citywarden.Checking: {2, UrgentHours}, citywarden.PendingClose: desk,
	}
}

// advance takes step in c and sets the limits that begin with it. Registering or
// filing as another class, or by another of its rules, takes the conditions and the
// limit from the table as it is now; else the case keeps those that it has.
func (d *Desk) advance(c *citywarden.Case, step citywarden.CaseStep) error {
	before := *c
	if step.Action != citywarden.Register && step.Action != citywarden.File {
		step.Class, step.FilingRule = "", ""
	}
	if step.FilingRule == "" && (step.Class == "" || step.Class == c.Class) {
		if err := c.Do(step); err != nil {
			return err
		}
		return d.begun(before, c, step.At)
	}
	k, ok := d.opt.Classes.Class(cmp.Or(step.Class, c.Class))
	if !ok {
		return citywarden.Errorf(citywarden.CodeInvalid, "%s case %s: %w", step.Action, c.ID, d.opt.Classes.Check(step.Class))
	}
	step.FilingRule = cmp.Or(step.FilingRule, k.Rules[0].ID)
	if err := c.Do(step); err != nil {
		return err
	}
	if err := d.opt.Classes.put(k, step.FilingRule, c); err != nil {
		return fmt.Errorf("%s case %s: %w", step.Action, c.ID, err)
	}
	return d.begun(before, c, step.At)
}

// begun sets the limits that begin with the last step of c, which was before.
func (d *Desk) begun(before citywarden.Case, c *citywarden.Case, at time.Time) error {
	l, err := ParseLimit(c.Limit)
	if err != nil {
		return err
	}
	var yellow, deadline, warn, due time.Time
	switch c.Timeline[len(c.Timeline)-1].Action {
	case citywarden.File, citywarden.Reopen:
		yellow, deadline = d.opt.Calendar.Yellow(at, l), d.opt.Calendar.Deadline(at, l)
	case citywarden.ApproveExtension:
		yellow, deadline = d.opt.Calendar.Extended(before.Deadline, l, before.Extensions+1)
	case citywarden.Resume:
		yellow = d.opt.Calendar.Paused(l.Unit, before.SuspendedAt, at, before.Yellow)
		deadline = d.opt.Calendar.Paused(l.Unit, before.SuspendedAt, at, before.Deadline)
	}
	c.TimeIs(yellow, deadline, time.Time{}, time.Time{})
	switch {
	case c.Stage == citywarden.PendingHandling || c.Stage == citywarden.Handling:
		warn, due = c.Yellow, c.Deadline
	case c.Stage != before.Stage && !c.WorkOrder: // nobody is told when maintenance waits
		s := d.opt.Limits[c.Stage]
		if s.Unit == WorkHours && l.Unit == UrgentHours {
			s.Unit = UrgentHours // who must hurry at night can't wait for a desk until the morning
		}
		warn, due = d.opt.Calendar.Yellow(at, s), d.opt.Calendar.Deadline(at, s)
	}
	if !due.Equal(c.StageDue) {
		c.TimeIs(time.Time{}, time.Time{}, warn, due)
	}
	return nil
}

// save saves c, which was at revision was, and sets the timers of what it waits for.
func (d *Desk) save(ctx context.Context, tx Tx, c citywarden.Case, was int64) error {
	if err := d.keep(ctx, tx, c, was); err != nil {
		return err
	}
	if _, moved := citywarden.Moved(c.Timeline); !moved {
		return nil
	}
	if !c.Stage.Open() {
		_, err := tx.DropTimers(ctx, c.ID, "")
		return err
	}
	for _, kind := range []citywarden.TimerKind{citywarden.TimerOverdue, citywarden.TimerResume} {
		if _, err := tx.DropTimers(ctx, c.ID, kind); err != nil {
			return err
		}
	}
	if c.Stage == citywarden.Suspended {
		return tx.SetTimer(ctx, citywarden.CaseTimer{Case: c.ID, Kind: citywarden.TimerResume, Due: c.SuspendedUntil})
	}
	if c.StageDue.IsZero() {
		return nil
	}
	for i, e := range append([]citywarden.Escalation{{}}, d.opt.Overdue...) {
		err := tx.SetTimer(ctx, citywarden.CaseTimer{
			Case: c.ID, Kind: citywarden.TimerOverdue, N: i, Due: c.StageDue.Add(time.Millisecond + e.After.Std()), After: e.After, To: e.To,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// overdue tells that the limit of c's stage has passed, and notes it, once for
// each limit.
func (d *Desk) overdue(ctx context.Context, tx Tx, x citywarden.CaseTimer, c citywarden.Case, now time.Time, out *changes) error {
	if c.StageDue.IsZero() || !now.After(c.StageDue) {
		return nil
	}
	name := c.Stage.Text()
	text := &citywarden.Text{EN: "overdue, still " + name.EN, ZH: "已超时，仍为“" + name.ZH + "”"}
	if x.After > 0 {
		after := x.After.Text()
		text.EN, text.ZH = "overdue for "+after.EN+", still "+name.EN, "已超时 "+after.ZH+"，仍为“"+name.ZH+"”"
	}
	parts := []string{strconv.FormatInt(c.StageDue.UnixMilli(), 10), strconv.Itoa(x.N)}
	if x.To != "" {
		return d.tell(ctx, tx, c, notice(c, citywarden.NoticeOverdue, "", text, now, parts...), x.To, now, out)
	}
	fresh, err := d.write(ctx, tx, c, citywarden.NoticeOverdue, "", text, now, false, parts...)
	if err != nil || !fresh {
		return err
	}
	was := c.Revision
	if err := c.Do(citywarden.CaseStep{Action: citywarden.Overdue, By: citywarden.Platform, Text: text, At: now}); err != nil {
		return err
	}
	out.inCase(c.ID)
	return tx.SaveCase(ctx, c, was)
}

// resume ends the suspension of c, whose time is over.
func (d *Desk) resume(ctx context.Context, tx Tx, c citywarden.Case, now time.Time, out *changes) error {
	if c.Stage != citywarden.Suspended {
		return nil
	}
	was := c.Revision
	err := d.advance(&c, citywarden.CaseStep{Action: citywarden.Resume, By: citywarden.Platform, At: now, Text: &citywarden.Text{
		EN: "the time of the suspension is over", ZH: "挂账到期，自动恢复办理",
	}})
	if err != nil {
		return err
	}
	out.inCase(c.ID)
	return d.save(ctx, tx, c, was)
}

// follow does what the last step of c, a person's, brings about besides c, which
// was before.
func (d *Desk) follow(ctx context.Context, tx Tx, before, c citywarden.Case, out *changes) error {
	if err := d.withdraw(ctx, tx, before, c); err != nil {
		return err
	}
	s := c.Timeline[len(c.Timeline)-1]
	var kind citywarden.NoticeKind
	var text *citywarden.Text
	switch s.Action {
	case citywarden.Merge:
		return d.merge(ctx, tx, c, s, out)
	case citywarden.Dispatch, citywarden.Redispatch, citywarden.Rework:
		kind, text = citywarden.NoticeDispatched, d.task(c, s)
	case citywarden.Supervise:
		kind = citywarden.NoticeSupervised
	case citywarden.Urge:
		kind = citywarden.NoticeUrged
	default:
		return nil
	}
	if text == nil {
		text = &citywarden.Text{EN: string(kind) + " by " + s.By, ZH: s.By + " " + s.Action.Text().ZH}
	}
	if s.Note != "" {
		text.EN, text.ZH = text.EN+": "+s.Note, text.ZH+"："+s.Note
	}
	_, err := d.write(ctx, tx, c, kind, "", text, s.At, false, strconv.FormatInt(c.Revision, 10))
	return err
}

// task says what the department of c has to do after s, its last step: of which
// class, where, as far as names of places are known, and until when in the
// county's zone.
func (d *Desk) task(c citywarden.Case, s citywarden.CaseStep) *citywarden.Text {
	text := &citywarden.Text{EN: "dispatched to " + c.Department + " by " + s.By, ZH: s.By + " " + s.Action.Text().ZH + "给 " + c.Department}
	if s.Action == citywarden.Rework {
		text = &citywarden.Text{EN: "to be done again by " + c.Department + ", says " + s.By, ZH: s.By + " 要求 " + c.Department + " 返工"}
	}
	d.of(c, text)
	until := c.Deadline.In(d.opt.Calendar.Zone()).Format("2006-01-02 15:04")
	switch {
	case c.Deadline.IsZero():
	case s.At.After(c.Deadline):
		text.EN, text.ZH = text.EN+", was due by "+until, text.ZH+"，处置时限 "+until+" 已过"
	default:
		text.EN, text.ZH = text.EN+", due by "+until, text.ZH+"，处置时限 "+until
	}
	return text
}

// of adds to text of which class c is and where, as far as names of places are known.
func (d *Desk) of(c citywarden.Case, text *citywarden.Text) {
	text.EN, text.ZH = text.EN+", "+c.ClassName.In("en"), text.ZH+"，"+c.ClassName.In("zh")
	grid, _ := d.opt.Grids.Grid(c.Grid) // empty when there is none
	for _, where := range []string{grid.Town, grid.Village, c.ComponentName} {
		if where != "" {
			text.EN, text.ZH = text.EN+", "+where, text.ZH+"，"+where
		}
	}
}

// withdraw tells the department that worked on the case, as it was before its last
// step, that it does so no longer. It tells nothing when the department has not
// accepted the case and nothing was sent to it yet; of what is being sent, or failed,
// nobody knows whether it arrived.
func (d *Desk) withdraw(ctx context.Context, tx Tx, before, c citywarden.Case) error {
	former := before.Department
	atWork := before.Stage == citywarden.PendingHandling || before.Stage == citywarden.Handling || before.Stage == citywarden.Suspended
	i := slices.IndexFunc(d.opt.Notify, func(r Receiver) bool { return r.Name == former })
	if i < 0 || !atWork || c.Stage.Open() && c.Department == former {
		return nil
	}
	if before.Stage == citywarden.PendingHandling {
		waits, err := tx.PendingNotices(ctx, c.ID)
		if err != nil {
			return err
		}
		untold := func(n citywarden.Notice) bool {
			return n.Kind == citywarden.NoticeDispatched && n.Receiver == former && !n.At.Before(before.TaskSince) && n.Tries == 0
		}
		if slices.ContainsFunc(waits, untold) {
			return nil
		}
	}
	s := c.Timeline[len(c.Timeline)-1]
	text := &citywarden.Text{ZH: s.By + " " + s.Action.Text().ZH}
	switch {
	case !c.Stage.Open():
		text.EN = c.Stage.Text().EN + " by " + s.By + ", " + former + " has nothing to do any more"
	case c.Department != "":
		text.EN, text.ZH = "taken from "+former+" by "+s.By+" and dispatched to "+c.Department, text.ZH+"给 "+c.Department
	default:
		text.EN = "taken back from " + former + " by " + s.By + ", as it asked"
	}
	text.ZH += "，" + former + " 不再处理"
	d.of(c, text)
	if s.Note != "" {
		text.EN, text.ZH = text.EN+": "+s.Note, text.ZH+"："+s.Note
	}
	n := notice(c, citywarden.NoticeWithdrawn, "", text, s.At, strconv.FormatInt(c.Revision, 10))
	n.Receiver, n.Department, n.Next = former, former, d.opt.Notify[i].when(&n, s.At)
	_, err := tx.AddNotices(ctx, []citywarden.Notice{n})
	return err
}

// merge gives the alarms of own, a duplicate, to the case that step names.
func (d *Desk) merge(ctx context.Context, tx Tx, own citywarden.Case, step citywarden.CaseStep, out *changes) error {
	into, err := tx.Case(ctx, step.Case)
	switch {
	case citywarden.CodeOf(err) == citywarden.CodeNotFound:
		return citywarden.Errorf(citywarden.CodeInvalid, "merge case %s: %w", own.ID, err)
	case err != nil:
		return err
	case !into.Stage.Open():
		return citywarden.Errorf(citywarden.CodeConflict, "merge case %s: case %s is %s", own.ID, into.ID, into.Stage.Text().EN)
	case into.WorkOrder != own.WorkOrder:
		return citywarden.Errorf(citywarden.CodeInvalid, "merge case %s: one of it and %s is a work order", own.ID, into.ID)
	}
	if err := tx.MoveAlarms(ctx, own.ID, into.ID); err != nil {
		return err
	}
	if err := d.hush(ctx, tx, own.ID); err != nil {
		return err
	}
	was := into.Revision
	err = into.Do(citywarden.CaseStep{Action: citywarden.Evidence, By: citywarden.Platform, At: step.At, Text: &citywarden.Text{
		EN: fmt.Sprintf("case %s is a duplicate of this one, says %s", own.ID, step.By), ZH: fmt.Sprintf("案件 %s 与本案重复，由 %s 并入", own.ID, step.By),
	}})
	if err != nil {
		return err
	}
	into.Spread(cmp.Or(string(own.Area), string(own.Grid)))
	into.Severity, into.Normal = max(into.Severity, own.Severity), into.Normal && (own.Normal || own.Members == 0)
	into.LifeSafety = into.LifeSafety || own.LifeSafety
	if into.Members, err = tx.Devices(ctx, into.ID); err != nil {
		return err
	}
	out.inCase(into.ID)
	return tx.SaveCase(ctx, into, was)
}

// Duplicates returns the cases that the one called id may be a duplicate of: of
// the same class, near in place and time, and not given up; the nearest first.
// CodeNotFound when there is no such case.
func (d *Desk) Duplicates(ctx context.Context, id citywarden.CaseID) ([]citywarden.Duplicate, error) {
	c, err := d.read.Case(ctx, id)
	if err != nil || c.Location == nil || c.WorkOrder {
		return nil, err
	}
	return d.alike(ctx, c)
}

// Near returns the cases that one of class which is opened at p now might be a
// duplicate of, as Duplicates does. CodeInvalid for a class that there is not.
func (d *Desk) Near(ctx context.Context, class citywarden.ClassCode, p citywarden.Point) ([]citywarden.Duplicate, error) {
	if err := d.opt.Classes.Check(class); err != nil {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "look for duplicates: %w", err)
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	return d.alike(ctx, citywarden.Case{Class: class, Location: &p, Opened: time.Now()})
}

// alike returns the cases of c's class, in either numbering, that are near it in
// place and time.
func (d *Desk) alike(ctx context.Context, c citywarden.Case) ([]citywarden.Duplicate, error) {
	var like []citywarden.Case
	for _, class := range d.opt.Classes.alike(c.Class) {
		some, err := d.read.CasesLike(ctx, class, c.Opened.Add(-d.opt.Within), c.Opened.Add(d.opt.Within))
		if err != nil {
			return nil, err
		}
		like = append(like, some...)
	}
	now := time.Now()
	var out []citywarden.Duplicate
	for _, o := range like {
		if o.ID == c.ID || o.Location == nil || o.Stage == citywarden.Rejected || o.Stage == citywarden.Voided {
			continue
		}
		if away := c.Location.Distance(*o.Location); away <= d.opt.Near {
			shine(&o, now)
			out = append(out, citywarden.Duplicate{Case: o, Distance: away})
		}
	}
	slices.SortFunc(out, func(a, b citywarden.Duplicate) int {
		return cmp.Or(cmp.Compare(a.Distance, b.Distance), a.Case.Opened.Compare(b.Case.Opened))
	})
	return out, nil
}
