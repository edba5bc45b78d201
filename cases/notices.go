package cases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
)

// Receiver is somebody who is told of cases.
type Receiver struct {
	Name    string
	Channel string // how, for people to read: mail, webhook, …
	All     bool   // gets every notice, not only the escalations to it
	Quiet   Quiet  // when only urgent ones are sent; others wait for the end
	Sender
}

// Sender takes a notice to its receiver. It is called again with the same notice
// after an error, and after a crash that came between the sending and our noting
// it: the notice's key tells. A *citywarden.BusyError is no try: nothing goes to
// the receiver until its time has passed; after one with a notice that is not
// urgent, urgent ones still do.
type Sender interface {
	Send(context.Context, citywarden.Notice) error
}

// NoticeReader reads notices and timers outside of a transaction.
type NoticeReader interface {
	Notices(context.Context, citywarden.NoticeFilter) (items []citywarden.Notice, next string, err error)
	// DueNotice returns the pending notice to a receiver that comes first, of those
	// that are due at now an urgent one; ok is false for none.
	DueNotice(ctx context.Context, receiver string, now time.Time) (n citywarden.Notice, ok bool, err error)
	NextTimer(context.Context) (time.Time, error) // zero when none is set
}

// NoticeTx is what a transaction does with notices.
type NoticeTx interface {
	// AddNotices adds notices of one key, unless there is one of that key.
	AddNotices(context.Context, []citywarden.Notice) (fresh bool, err error)
	SaveNotice(context.Context, citywarden.Notice) error
	Notice(ctx context.Context, key, receiver string) (citywarden.Notice, error)
	PendingNotices(context.Context, citywarden.CaseID) ([]citywarden.Notice, error)
}

// TimerTx is what a transaction does with the timers of cases.
type TimerTx interface {
	SetTimer(context.Context, citywarden.CaseTimer) error // no effect when one of its kind and number is set
	// DropTimers drops those of a kind, "" for all, and reports whether there were any.
	DropTimers(context.Context, citywarden.CaseID, citywarden.TimerKind) (bool, error)
	ParkTimers(ctx context.Context, id citywarden.CaseID, kind citywarden.TimerKind, parked bool) error
	// TakeTimer removes and returns the first that is due; ok is false for none.
	TakeTimer(ctx context.Context, now time.Time) (x citywarden.CaseTimer, ok bool, err error)
}

// call writes the notices, and sets the timers, that follow from t, which made
// case before into c. kind is what it did to the case.
//
// The first notice waits for the hold of the rule, so that what explains the alarm
// can come first; not for a critical alarm. While it waits nothing else is told:
// it tells all. A flapping alarm tells nothing.
func (d *Desk) call(ctx context.Context, tx Tx, t citywarden.Transition, a citywarden.Alarm, before, c citywarden.Case, kind citywarden.NoticeKind, text *citywarden.Text) error {
	at := stamp(t)
	if _, err := tx.DropTimers(ctx, c.ID, citywarden.TimerClose); err != nil {
		return err
	}
	if t.Annunciated {
		for i, e := range t.Case.Escalate {
			err := tx.SetTimer(ctx, citywarden.CaseTimer{Case: c.ID, Kind: citywarden.TimerEscalate, N: i, Due: at.Add(e.After.Std()), Alarm: a.ID,
				After: e.After, Unless: e.UnlessAcked, To: e.To, Urgent: t.Case.LifeSafety})
			if err != nil {
				return err
			}
		}
	}
	urgent := a.Severity >= citywarden.Critical || t.Case.LifeSafety
	if a.Flapping && !urgent {
		return nil
	}
	if kind == citywarden.NoticeOpened && t.Case.Hold > 0 && !urgent {
		return tx.SetTimer(ctx, citywarden.CaseTimer{Case: c.ID, Kind: citywarden.TimerHold, Due: at.Add(t.Case.Hold.Std()), Alarm: a.ID, After: t.Case.Hold})
	}
	if urgent {
		if _, err := tx.DropTimers(ctx, c.ID, citywarden.TimerHold); err != nil {
			return err
		}
	} else if held, err := tx.Held(ctx, c.ID); err != nil || held {
		return err
	}
	// The first notice may have been spared, because something explained the alarms then.
	if fresh, err := d.first(ctx, tx, c, a, text, at, urgent); err != nil || fresh {
		return err
	}
	if kind == citywarden.NoticeRemaining { // they come all at once: one notice tells of them
		_, err := d.write(ctx, tx, c, kind, a.ID, text, at, urgent, strconv.FormatUint(uint64(t.Position), 10))
		return err
	}
	if c.Severity > before.Severity {
		_, err := d.write(ctx, tx, c, citywarden.NoticeSeverity, a.ID, text, at, urgent, c.Severity.String())
		return err
	}
	if m := citywarden.Milestone(c.Members); m > citywarden.Milestone(before.Members) {
		_, err := d.write(ctx, tx, c, citywarden.NoticeMembers, a.ID, text, at, urgent, strconv.Itoa(m))
		return err
	}
	return nil
}

// first writes the first notice of c since it was opened or reopened, unless that
// was done.
func (d *Desk) first(ctx context.Context, tx Tx, c citywarden.Case, a citywarden.Alarm, text *citywarden.Text, at time.Time, urgent bool) (fresh bool, err error) {
	kind := citywarden.NoticeOpened
	if c.Reopened > 0 {
		kind = citywarden.NoticeReopened
	}
	return d.write(ctx, tx, c, kind, a.ID, text, at, urgent)
}

// write writes a notice to all that get every notice, and to the receiver that is
// called like the department that works on the case. fresh is false, and nothing
// is written, when it was written before.
func (d *Desk) write(ctx context.Context, tx Tx, c citywarden.Case, kind citywarden.NoticeKind, alarm citywarden.AlarmID, text *citywarden.Text, at time.Time, urgent bool, parts ...string) (fresh bool, err error) {
	n := notice(c, kind, alarm, text, at, parts...)
	n.Urgent = n.Urgent || urgent
	var ns []citywarden.Notice
	for _, r := range d.opt.Notify {
		if r.All || r.Name == c.Department {
			n.Receiver, n.Next, n.Department = r.Name, r.when(&n, at), ""
			if !r.All {
				n.Department = c.Department
			}
			ns = append(ns, n)
		}
	}
	if len(ns) == 0 {
		ns = []citywarden.Notice{kept(n, "no receiver gets every notice; see notices in the configuration")}
	}
	return tx.AddNotices(ctx, ns)
}

func notice(c citywarden.Case, kind citywarden.NoticeKind, alarm citywarden.AlarmID, text *citywarden.Text, at time.Time, parts ...string) citywarden.Notice {
	return citywarden.Notice{
		Key: citywarden.NoticeKey(&c, kind, parts...), Kind: kind, Case: c.ID, Alarm: alarm, Severity: c.Severity, Title: c.Title, Text: *text,
		Class: c.Class, Grid: c.Grid, Location: c.Location, At: at, State: citywarden.NoticePending, Next: at,
		Urgent: c.Severity >= citywarden.Critical || c.LifeSafety,
	}
}

// when returns when n may go to r, at a moment or after it.
func (r *Receiver) when(n *citywarden.Notice, at time.Time) time.Time {
	if n.Urgent {
		return at
	}
	return r.Quiet.End(at)
}

func kept(n citywarden.Notice, why string) citywarden.Notice {
	n.State, n.Next, n.Error = citywarden.NoticeKept, time.Time{}, why
	return n
}

// hush drops what a case that was merged into another would still tell.
func (d *Desk) hush(ctx context.Context, tx Tx, id citywarden.CaseID) error {
	if _, err := tx.DropTimers(ctx, id, ""); err != nil {
		return err
	}
	ns, err := tx.PendingNotices(ctx, id)
	if err != nil {
		return err
	}
	for _, n := range ns {
		n.State, n.Next = citywarden.NoticeDropped, time.Time{}
		if err := tx.SaveNotice(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// closeLater sets the timer that closes c when everything in it is normal, and
// drops it when not.
func (d *Desk) closeLater(ctx context.Context, tx Tx, t citywarden.Transition, a citywarden.Alarm, c citywarden.Case) error {
	if !c.Normal {
		_, err := tx.DropTimers(ctx, c.ID, citywarden.TimerClose)
		return err
	}
	if t.Case.ClearedFor == 0 || !c.Stage.Open() {
		return nil
	}
	return tx.SetTimer(ctx, citywarden.CaseTimer{Case: c.ID, Kind: citywarden.TimerClose, Due: stamp(t).Add(t.Case.ClearedFor.Std()), Alarm: a.ID, After: t.Case.ClearedFor})
}

// Notices returns the notices that f selects, the newest first, and the cursor
// of the next page, "" after the last.
func (d *Desk) Notices(ctx context.Context, f citywarden.NoticeFilter) (items []citywarden.Notice, next string, err error) {
	return d.read.Notices(ctx, f)
}

// Resend sends a notice that was given up once more, as if it were new: the same
// key goes to the same receiver. It drops one that is moot by now. CodeNotFound when there is no such notice,
// CodeConflict unless it is dead and the receiver is still there.
func (d *Desk) Resend(ctx context.Context, key, receiver string) (citywarden.Notice, error) {
	var n citywarden.Notice
	err := d.once(ctx, func(ctx context.Context, tx Tx, out *changes) (err error) {
		if n, err = tx.Notice(ctx, key, receiver); err != nil {
			return err
		}
		if n.State != citywarden.NoticeDead {
			return citywarden.Errorf(citywarden.CodeConflict, "notice %s to %s is %s; only a dead one can be sent again", key, receiver, n.State)
		}
		if moot, err := d.dropMoot(ctx, tx, &n, out); err != nil || moot {
			return err
		}
		i := slices.IndexFunc(d.opt.Notify, func(r Receiver) bool { return r.Name == receiver })
		if i < 0 {
			return citywarden.Errorf(citywarden.CodeConflict, "there is no receiver %s any more; see notices in the configuration", receiver)
		}
		n.State, n.Tries, n.Error, n.Next = citywarden.NoticePending, 0, "", d.opt.Notify[i].when(&n, time.Now().UTC().Truncate(time.Millisecond))
		out.inCase(n.Case) // wakes who sends
		return tx.SaveNotice(ctx, n)
	})
	return n, err
}

// Receivers returns who is told of cases, in the order of the configuration.
func (d *Desk) Receivers() []citywarden.Receiver {
	out := []citywarden.Receiver{}
	for _, r := range d.opt.Notify {
		out = append(out, citywarden.Receiver{Name: r.Name, Channel: r.Channel, All: r.All, Quiet: r.Quiet.String()})
	}
	return out
}

// TestReceiver sends a notice of no case to the receiver called name, now, and
// returns what its channel says. CodeNotFound when there is no such receiver.
func (d *Desk) TestReceiver(ctx context.Context, name, by string) error {
	i := slices.IndexFunc(d.opt.Notify, func(r Receiver) bool { return r.Name == name })
	if i < 0 {
		return citywarden.Errorf(citywarden.CodeNotFound, "there is no receiver %s; see notices in the configuration", name)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	ctx, cancel := context.WithTimeout(ctx, sendLimit)
	defer cancel()
	err := d.opt.Notify[i].Send(ctx, citywarden.Notice{
		Key: "test/" + name + "/" + now.Format(time.RFC3339Nano), Receiver: name, Kind: citywarden.NoticeTest, Severity: citywarden.Indeterminate, At: now, Urgent: true,
		Title: citywarden.Text{ZH: "通知测试", EN: "Test of the notices"},
		Text:  citywarden.Text{ZH: "由 " + by + " 发出，无需处置", EN: "sent by " + by + "; nothing is to be done"},
	})
	if err != nil {
		return citywarden.Errorf(citywarden.CodeTransient, "the test did not reach %s: %w", name, err)
	}
	return nil
}

// keepOrphans marks pending notices whose receiver is not configured any more:
// nobody would ever send them.
func (d *Desk) keepOrphans(ctx context.Context) error {
	const why = "the receiver was taken out of notices in the configuration"
	var known []string
	for _, r := range d.opt.Notify {
		known = append(known, r.Name)
	}
	for after := ""; ; {
		ns, next, err := d.read.Notices(ctx, citywarden.NoticeFilter{State: citywarden.NoticePending, Page: citywarden.Page{Limit: 1000, After: after}})
		if err != nil {
			return err
		}
		for _, n := range ns {
			if slices.Contains(known, n.Receiver) {
				continue
			}
			err := d.once(ctx, func(ctx context.Context, tx Tx, out *changes) error {
				if err := tx.SaveNotice(ctx, kept(n, why)); err != nil {
					return err
				}
				c, err := tx.Case(ctx, n.Case)
				if err != nil {
					return err
				}
				return d.noticeStep(ctx, tx, c, n, time.Now().UTC().Truncate(time.Millisecond), out,
					"notice to "+n.Receiver+" could not be sent, there is no receiver of that name any more: ", "通知 "+n.Receiver+" 未能发出（该接收人已取消）：")
			})
			if err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		after = next
	}
}

// Run lets what cases wait for come about, and sends notices, until ctx is done.
// Everything it knows is stored: after a crash it goes on with what is due.
func (d *Desk) Run(ctx context.Context) error {
	var all sync.WaitGroup
	all.Go(func() { d.loop(ctx, nil, func() (time.Time, error) { return time.Time{}, d.accountAll(ctx) }) })
	all.Go(func() { d.loop(ctx, nil, func() (time.Time, error) { return time.Time{}, d.keepOrphans(ctx) }) })
	for i, r := range d.opt.Notify {
		var busy lull
		all.Go(func() { d.loop(ctx, d.moved[i+1], func() (time.Time, error) { return d.deliver(ctx, r, &busy) }) })
	}
	d.loop(ctx, d.moved[0], func() (time.Time, error) { return d.expire(ctx) })
	all.Wait()
	return nil
}

// pause is how long a loop waits after an error of the store, and at the most.
const pause = 10 * time.Second

// loop calls work when it is due, as work says, and when something moved.
func (d *Desk) loop(ctx context.Context, moved <-chan struct{}, work func() (time.Time, error)) {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-moved:
		case <-wait.C:
		}
		due, err := work()
		switch {
		case err != nil && ctx.Err() == nil:
			d.opt.Logger.Error("notices, deadlines or evaluation of cases are late", "err", err)
			wait.Reset(pause)
		case due.IsZero():
			wait.Stop()
		default:
			wait.Reset(time.Until(due))
		}
	}
}

// move wakes the loops of Run.
func (d *Desk) move() {
	for _, c := range d.moved {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// expire deals with the timers that are due, each in a transaction of its own,
// and returns when the next one is.
func (d *Desk) expire(ctx context.Context) (next time.Time, err error) {
	for {
		next, err = d.read.NextTimer(ctx)
		if err != nil || next.IsZero() || next.After(time.Now()) || ctx.Err() != nil {
			return next, err
		}
		if err := d.once(ctx, d.fire); err != nil {
			return next, err
		}
	}
}

// once runs f in a transaction and publishes what it changed.
func (d *Desk) once(ctx context.Context, f func(context.Context, Tx, *changes) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out changes
	if err := d.update(ctx, func(tx Tx) error {
		out = changes{}
		return f(ctx, tx, &out)
	}); err != nil {
		return err
	}
	d.publish(ctx, &out)
	return nil
}

// fire deals with the timer that was due first.
func (d *Desk) fire(ctx context.Context, tx Tx, out *changes) error {
	now := time.Now().UTC().Truncate(time.Millisecond)
	x, ok, err := tx.TakeTimer(ctx, now)
	if err != nil || !ok {
		return err
	}
	c, err := tx.Case(ctx, x.Case)
	if err != nil || !c.Stage.Open() {
		return err
	}
	n, err := tx.Tally(ctx, c.ID)
	if err != nil {
		return err
	}
	switch x.Kind {
	case citywarden.TimerHold:
		return d.holdOver(ctx, tx, x, c, n, now, out)
	case citywarden.TimerEscalate:
		return d.escalate(ctx, tx, x, c, n, now, out)
	case citywarden.TimerOverdue:
		return d.overdue(ctx, tx, x, c, now, out)
	case citywarden.TimerResume:
		return d.resume(ctx, tx, c, now, out)
	}
	return d.autoClose(ctx, tx, x, c, n, now, out)
}

// holdOver tells of a case for the first time, unless by now every alarm of it is
// explained by another, or all is normal and the platform will close it.
func (d *Desk) holdOver(ctx context.Context, tx Tx, x citywarden.CaseTimer, c citywarden.Case, n citywarden.CaseTally, now time.Time, out *changes) error {
	if n.Unexplained == 0 {
		return nil
	}
	a, err := tx.Alarm(ctx, x.Alarm)
	if err != nil {
		return err
	}
	name := c.Severity.Text()
	text := sentence(citywarden.Text{EN: name.EN + " alarm", ZH: name.ZH + "级告警"}, citywarden.Transition{}, a)
	if c.Members > 1 {
		text.EN += fmt.Sprintf(", %d devices", c.Members)
		text.ZH += fmt.Sprintf("，涉及 %d 台设备", c.Members)
	}
	if c.Normal {
		text.EN += "; back to normal by now"
		text.ZH += "；现已恢复正常"
	}
	_, err = d.first(ctx, tx, c, a, text, now, false)
	out.inCase(c.ID)
	return err
}

// escalate tells somebody else of a case that has active alarms; not when they
// are acknowledged and the rule says so, nor when the work is reported done. It
// tells once for each severity that the case reaches.
func (d *Desk) escalate(ctx context.Context, tx Tx, x citywarden.CaseTimer, c citywarden.Case, n citywarden.CaseTally, now time.Time, out *changes) error {
	if n.Standing == 0 || x.Unless && n.Unacked == 0 || c.Stage == citywarden.Handled || c.Stage == citywarden.PendingClose {
		return nil
	}
	after := x.After.Text()
	what := citywarden.Text{EN: "open for " + after.EN, ZH: after.ZH + "后仍未处置"}
	if x.Unless {
		what = citywarden.Text{EN: "not acknowledged for " + after.EN, ZH: after.ZH + "内无人确认"}
	}
	a, err := tx.Alarm(ctx, x.Alarm)
	if err != nil {
		return err
	}
	text := sentence(what, citywarden.Transition{}, a)
	msg := notice(c, citywarden.NoticeEscalated, a.ID, text, now, c.Severity.String(), strconv.Itoa(x.N))
	msg.Urgent = msg.Urgent || x.Urgent
	return d.tell(ctx, tx, c, msg, x.To, now, out)
}

// tell writes a notice to the one receiver called to, and a step when there is
// none of that name; nothing when that was done before.
func (d *Desk) tell(ctx context.Context, tx Tx, c citywarden.Case, msg citywarden.Notice, to string, now time.Time, out *changes) error {
	msg.Receiver = to
	i := slices.IndexFunc(d.opt.Notify, func(r Receiver) bool { return r.Name == to })
	known := i >= 0
	if known {
		msg.Next = d.opt.Notify[i].when(&msg, now)
	} else {
		msg = kept(msg, "no receiver of that name; see notices in the configuration")
	}
	fresh, err := tx.AddNotices(ctx, []citywarden.Notice{msg})
	if err != nil || !fresh {
		return err
	}
	if known {
		out.inCase(c.ID)
		return nil
	}
	return d.noticeStep(ctx, tx, c, msg, now, out,
		"notice to "+to+" could not be sent, there is no receiver of that name: ", "通知 "+to+" 未能发出（没有该接收人）：")
}

// autoClose closes c when all is settled, parks when somebody has to acknowledge
// an alarm before, and leaves alone what people work on and what is of life safety.
func (d *Desk) autoClose(ctx context.Context, tx Tx, x citywarden.CaseTimer, c citywarden.Case, n citywarden.CaseTally, now time.Time, out *changes) error {
	if !c.Normal || c.LifeSafety || c.Stage != citywarden.PendingFiling && c.Stage != citywarden.PendingDispatch {
		return nil
	}
	if n.Unsettled > 0 {
		x.Parked = true
		return tx.SetTimer(ctx, x)
	}
	was := c.Revision
	err := c.Do(citywarden.CaseStep{Action: citywarden.AutoClose, By: citywarden.Platform, At: now, Text: &citywarden.Text{
		EN: "closed by itself: all normal for " + x.After.Text().EN, ZH: "全部恢复正常已达 " + x.After.Text().ZH + "，自动结案",
	}})
	if err != nil {
		return err
	}
	if _, err := tx.DropTimers(ctx, c.ID, ""); err != nil {
		return err
	}
	out.inCase(c.ID)
	return d.keep(ctx, tx, c, was)
}

// Notices are tried again after 10 s, 20 s, 40 s and so on up to 15 minutes, and
// given up after an hour or so.
const (
	maxTries   = 10
	firstRetry = 10 * time.Second
	lastRetry  = 15 * time.Minute
	sendLimit  = 15 * time.Second
)

// lull is until when a receiver takes nothing.
type lull struct{ ordinary, urgent time.Time }

func (l *lull) until(urgent bool) *time.Time {
	if urgent {
		return &l.urgent
	}
	return &l.ordinary
}

// deliver sends the notices to r that are due, the urgent ones first, and returns
// when the next is.
func (d *Desk) deliver(ctx context.Context, r Receiver, busy *lull) (next time.Time, err error) {
	for {
		began := time.Now()
		n, ok, err := d.read.DueNotice(ctx, r.Name, began)
		if err != nil || !ok || n.Next.After(began) || ctx.Err() != nil {
			return n.Next, err
		}
		until := busy.until(n.Urgent)
		if began.Before(*until) {
			return *until, nil
		}
		if n.Department != "" {
			moot := false
			err := d.once(ctx, func(ctx context.Context, tx Tx, out *changes) (err error) {
				if moot, err = d.dropMoot(ctx, tx, &n, out); err != nil || moot {
					return err
				}
				tried := n
				tried.Tries++ // it may arrive from now on, whatever we hear of it, see withdraw
				return tx.SaveNotice(ctx, tried)
			})
			if err != nil {
				return n.Next, err
			}
			if moot {
				continue
			}
		}
		sctx, cancel := context.WithTimeout(ctx, sendLimit)
		failed := r.Send(sctx, n)
		cancel()
		if failed != nil && ctx.Err() != nil {
			return n.Next, nil // we stop; it is tried again
		}
		now := time.Now().UTC().Truncate(time.Millisecond)
		n.Tries++
		n.Error = ""
		en, zh := "", ""
		var full *citywarden.BusyError
		switch {
		case errors.As(failed, &full):
			*until = now.Add(full.After)
			if n.Urgent {
				busy.ordinary = *until
			}
			n.Tries, n.Error = n.Tries-1, failed.Error()
		case failed == nil:
			n.State, n.SentAt, n.Next = citywarden.NoticeSent, now, time.Time{}
			en, zh = "notice sent to "+r.Name+": ", "已通知 "+r.Name+"："
		case n.Tries >= maxTries:
			n.State, n.Next, n.Error = citywarden.NoticeDead, time.Time{}, failed.Error()
			en = fmt.Sprintf("notice to %s could not be sent in %d tries: ", r.Name, n.Tries)
			zh = fmt.Sprintf("通知 %s 未能发出（已尝试 %d 次）：", r.Name, n.Tries)
			d.opt.Logger.Warn("notice given up", "receiver", r.Name, "notice", n.Key, "err", failed)
		default:
			n.Next, n.Error = r.when(&n, now.Add(min(firstRetry<<(n.Tries-1), lastRetry))), failed.Error()
		}
		err = d.once(context.WithoutCancel(ctx), func(ctx context.Context, tx Tx, out *changes) error {
			pending, err := tx.PendingNotices(ctx, n.Case)
			if err != nil {
				return err
			}
			dropped := !slices.ContainsFunc(pending, func(p citywarden.Notice) bool { return p.Key == n.Key && p.Receiver == n.Receiver })
			if dropped && failed != nil {
				return nil
			}
			if err := tx.SaveNotice(ctx, n); err != nil || en == "" {
				return err
			}
			c, err := tx.Case(ctx, n.Case)
			if err != nil {
				return err
			}
			return d.noticeStep(ctx, tx, c, n, now, out, en, zh)
		})
		if err != nil {
			return n.Next, err
		}
	}
}

// dropMoot drops n when it is moot by now, and notes that in the timeline.
func (d *Desk) dropMoot(ctx context.Context, tx Tx, n *citywarden.Notice, out *changes) (moot bool, err error) {
	if n.Department == "" {
		return false, nil
	}
	c, err := tx.Case(ctx, n.Case)
	if err != nil {
		return false, err
	}
	why := n.Moot(&c)
	if why == (citywarden.Text{}) {
		return false, nil
	}
	n.State, n.Next, n.Error = citywarden.NoticeDropped, time.Time{}, why.EN
	if err := tx.SaveNotice(ctx, *n); err != nil {
		return false, err
	}
	return true, d.noticeStep(ctx, tx, c, *n, time.Now().UTC().Truncate(time.Millisecond), out,
		"notice to "+n.Receiver+" was not sent, "+why.EN+": ", "未通知 "+n.Receiver+"（"+why.ZH+"）：")
}

// noticeStep writes into the timeline of c what became of n.
func (d *Desk) noticeStep(ctx context.Context, tx Tx, c citywarden.Case, n citywarden.Notice, at time.Time, out *changes, en, zh string) error {
	was := c.Revision
	step := citywarden.CaseStep{Action: citywarden.Notify, By: citywarden.Platform, Alarm: n.Alarm, At: at, Text: &citywarden.Text{EN: en + n.Text.In("en"), ZH: zh + n.Text.In("zh")}}
	if err := c.Do(step); err != nil {
		return err
	}
	out.inCase(c.ID)
	return tx.SaveCase(ctx, c, was)
}
