package cases

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
)

// Store is where the desk keeps everything. Its transactions, of type T, run
// one after the other and see what the ones before have written.
type Store[T Tx] interface {
	UpdateDesk(ctx context.Context, f func(T) error) error // commits when f returns nil
	reader
}

type reader interface {
	Cursor(ctx context.Context, name string) (citywarden.Position, error)
	AlarmReader
	CaseReader
	TransitionReader
	LoadReader
	WorkReader
	NoticeReader
	AttachmentReader
	ReportReader
	Users(context.Context) ([]citywarden.User, error)
}

// AlarmReader reads alarms outside of a transaction.
type AlarmReader interface {
	Alarm(context.Context, citywarden.AlarmID) (citywarden.Alarm, error)
	Alarms(context.Context, citywarden.AlarmFilter) (items []citywarden.Alarm, next string, err error)
	AlarmSteps(context.Context, citywarden.AlarmID) ([]citywarden.AlarmStep, error)
	AlarmCounts(context.Context) (bySeverity map[citywarden.Severity]int, unacked int, err error)
}

// TransitionReader reads what was applied, outside of a transaction.
type TransitionReader interface {
	// TransitionsAfter returns key, kind and severity of those after a position.
	TransitionsAfter(context.Context, citywarden.Position) ([]citywarden.Transition, error)
	ActiveAlarm(ctx context.Context, rule citywarden.RuleID, entity string) (citywarden.Alarm, error)
}

// CaseReader reads cases outside of a transaction.
type CaseReader interface {
	Case(context.Context, citywarden.CaseID) (citywarden.Case, error) // with timeline and alarms
	Cases(context.Context, citywarden.CaseFilter) (items []citywarden.Case, next string, err error)
	CasesLike(ctx context.Context, class citywarden.ClassCode, from, to time.Time) ([]citywarden.Case, error) // opened then
	CaseCounts(ctx context.Context, workOrders bool, nowMS int64) (byStage map[citywarden.Stage]int, overdue int, err error)
}

// Tx is one transaction.
type Tx interface {
	AlarmTx
	CaseTx
	WorkTx
	CountTx
	TimerTx
	NoticeTx
	AttachmentTx
	ReportTx
	SetCursor(ctx context.Context, name string, p citywarden.Position) error
	NextSerial(ctx context.Context, day string) (int64, error) // 1, 2, 3 … of each day
}

// AlarmTx is what a transaction does with alarms.
type AlarmTx interface {
	// AddTransition keeps the history; fresh is false, and nothing changes, when
	// the key of the transition is there already.
	AddTransition(context.Context, citywarden.Transition) (fresh bool, err error)
	// SaveAlarm adds or replaces an alarm; an empty Case keeps the one stored.
	SaveAlarm(context.Context, citywarden.Alarm) error
	Alarm(context.Context, citywarden.AlarmID) (citywarden.Alarm, error)
	ActiveAlarm(ctx context.Context, rule citywarden.RuleID, entity string) (citywarden.Alarm, error)
}

// CaseTx is what a transaction does with cases.
type CaseTx interface {
	// CaseByKey returns the open case of that key, else the newest, without timeline.
	CaseByKey(ctx context.Context, key string) (citywarden.Case, error)
	Case(context.Context, citywarden.CaseID) (citywarden.Case, error) // without timeline
	// StepsAfter returns the steps after a revision, the oldest first.
	StepsAfter(ctx context.Context, id citywarden.CaseID, revision int64) ([]citywarden.CaseStep, error)
	// SaveCase adds c (was 0) or replaces it; c.Timeline holds the new steps
	// only. CodeConflict unless the revision stored is was.
	SaveCase(ctx context.Context, c citywarden.Case, was int64) error
	MoveAlarms(ctx context.Context, from, to citywarden.CaseID) error // all of them
}

// CountTx counts within a transaction.
type CountTx interface {
	Tally(context.Context, citywarden.CaseID) (citywarden.CaseTally, error)
	Devices(context.Context, citywarden.CaseID) (int, error) // that the alarms of a case concern
	OpenedBy(ctx context.Context, rule citywarden.RuleID, since time.Time) (int, error)
	Held(context.Context, citywarden.CaseID) (bool, error) // the first notice of a case waits
}

// Options of a Desk; the zero value works.
type Options struct {
	Classes  *Classes                                           // nil for the built-in table
	Calendar *Calendar                                          // nil for mainland China's; case numbers use its days
	Grids    *Grids                                             // nil for none
	Where    func(citywarden.DeviceID) (citywarden.Point, bool) // where a device is; nil when nobody knows. Called inside a transaction: it must not use the database
	Attached func(citywarden.DeviceID) citywarden.ComponentID   // the component that a device is attached to, "" for none; as Where
	Notify   []Receiver                                         // who is told of cases
	Publish  func(citywarden.Event)                             // told of alarms and cases after they are stored, in order; it must not block. nil for nobody
	Logger   *slog.Logger                                       // nil for none

	Components *Components // nil for none

	Limits   map[citywarden.Stage]Limit                        // of the stages before and after the handling; nil for StageLimits. A stage without one has none
	Overdue  []citywarden.Escalation                           // who else is told when a limit has passed for so long
	Near     float64                                           // how far from each other duplicates may lie, in metres; 0 means 50
	Within   time.Duration                                     // and how far apart in time; 0 means 24 h
	Photos   map[citywarden.Action][]citywarden.AttachmentKind // that actions demand, as CheckPhotos allows; nil for none
	Officers func(citywarden.GridCode) string                  // who is sent to look in a unit grid when nobody is named; nil for nobody

	Measures *Measures // of evaluations; nil for the usual ones

	Operators int                   // on duty at a time, for the alarm load; 0 means 1
	Metrics   prometheus.Registerer // nil for none
}

// Desk keeps alarms and cases. It may be used by several goroutines.
type Desk struct {
	read   reader
	update func(context.Context, func(Tx) error) error
	opt    Options
	counts *metrics
	moved  []chan struct{} // of Run's goroutines: has a token when there may be something to do

	// mu is held across a transaction and the publishing of what came out of
	// it, so that events come in the order of the commits.
	mu      sync.Mutex
	cursor  citywarden.Position // as stored
	saved   time.Time           // when cursor was stored
	doubted bool                // a commit failed with an unknown outcome: worst may be behind

	worst worst
}

// cursorName is the desk's row in the table of cursors.
const cursorName = "desk"

// New returns a desk that keeps everything in s, and reads the open alarms
// from it.
func New[T Tx](s Store[T], o Options) (*Desk, error) {
	var err error
	if o.Classes == nil {
		if o.Classes, err = LoadClasses(""); err != nil {
			return nil, err
		}
	}
	if o.Calendar == nil {
		if o.Calendar, err = NewCalendar(CalendarOptions{}); err != nil {
			return nil, err
		}
	}
	if o.Grids == nil {
		o.Grids = &Grids{}
	}
	if o.Where == nil {
		o.Where = func(citywarden.DeviceID) (citywarden.Point, bool) { return citywarden.Point{}, false }
	}
	if o.Components == nil {
		o.Components = &Components{}
	}
	if o.Attached == nil {
		o.Attached = func(citywarden.DeviceID) citywarden.ComponentID { return "" }
	}
	if o.Publish == nil {
		o.Publish = func(citywarden.Event) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Operators == 0 {
		o.Operators = 1
	}
	if o.Limits == nil {
		o.Limits = StageLimits()
	}
	if o.Near == 0 {
		o.Near = 50
	}
	if o.Within == 0 {
		o.Within = 24 * time.Hour
	}
	if o.Measures == nil {
		if o.Measures, err = NewMeasures(MeasureOptions{}); err != nil {
			return nil, err
		}
	}
	if err := CheckPhotos(o.Photos); err != nil {
		return nil, err
	}
	if o.Officers == nil {
		o.Officers = func(citywarden.GridCode) string { return "" }
	}
	d := &Desk{
		read: s,
		update: func(ctx context.Context, f func(Tx) error) error {
			return s.UpdateDesk(ctx, func(t T) error { return f(t) })
		},
		opt: o,
	}
	for range len(o.Notify) + 1 {
		d.moved = append(d.moved, make(chan struct{}, 1))
	}
	ctx := context.Background()
	if d.cursor, err = s.Cursor(ctx, cursorName); err != nil {
		return nil, err
	}
	if err := d.reload(ctx); err != nil {
		return nil, err
	}
	if d.counts, err = newMetrics(o.Metrics, d); err != nil {
		return nil, err
	}
	return d, nil
}

// Cursor returns the position up to which transitions are stored.
func (d *Desk) Cursor(ctx context.Context) (citywarden.Position, error) {
	return d.read.Cursor(ctx, cursorName)
}

// Applied returns key, kind and severity of the transitions after a position
// that are stored.
func (d *Desk) Applied(ctx context.Context, after citywarden.Position) ([]citywarden.Transition, error) {
	return d.read.TransitionsAfter(ctx, after)
}

// Active returns the active alarm of a rule on an entity; CodeNotFound when
// there is none.
func (d *Desk) Active(ctx context.Context, rule citywarden.RuleID, entity string) (citywarden.Alarm, error) {
	return d.read.ActiveAlarm(ctx, rule, entity)
}

// Apply stores the transitions ts, which the engine made of the log up to upTo,
// with everything that follows from them and the cursor, in one transaction. A
// transition whose key is stored already is ignored, wherever it stands in the
// log, so Apply may be repeated after any error or crash.
//
// With no transitions the cursor is stored at most once per second.
func (d *Desk) Apply(ctx context.Context, upTo citywarden.Position, ts []citywarden.Transition) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(ts) == 0 && (upTo <= d.cursor || time.Since(d.saved) < time.Second) {
		return nil
	}
	var out changes
	err := d.update(ctx, func(tx Tx) error {
		out = changes{} // the store may run it again
		for _, t := range ts {
			if err := d.apply(ctx, tx, t, &out); err != nil {
				return fmt.Errorf("apply transition %s: %w", t.Key, err)
			}
		}
		if upTo <= d.cursor {
			return nil
		}
		return tx.SetCursor(ctx, cursorName, upTo)
	})
	if err != nil {
		d.doubted = true
		return err
	}
	d.cursor, d.saved = max(d.cursor, upTo), time.Now()
	for _, a := range out.alarms {
		d.worst.set(a)
	}
	for _, s := range out.annunciated {
		d.counts.annunciated.WithLabelValues(s.String()).Inc()
	}
	if d.doubted {
		if err := d.reload(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		d.doubted = false
	}
	d.publish(ctx, &out)
	return nil
}

// changes are what a transaction changed, to be published after it: each alarm
// and case once, in the order of their first change.
type changes struct {
	alarms []citywarden.Alarm
	cases  []citywarden.CaseID
	at     map[string]int // index in alarms by id, and of the cases there are

	annunciated []citywarden.Severity // of each call for an operator
}

func (o *changes) alarm(a citywarden.Alarm) {
	if i, ok := o.at[string(a.ID)]; ok {
		o.alarms[i] = a
		return
	}
	o.mark(string(a.ID), len(o.alarms))
	o.alarms = append(o.alarms, a)
}

// inCase notes a change of the case called id. Alarm ids contain a colon, case
// ids do not: they share a map.
func (o *changes) inCase(id citywarden.CaseID) {
	if _, ok := o.at[string(id)]; !ok {
		o.mark(string(id), 0)
		o.cases = append(o.cases, id)
	}
}

func (o *changes) mark(id string, i int) {
	if o.at == nil {
		o.at = map[string]int{}
	}
	o.at[id] = i
}

func (d *Desk) publish(ctx context.Context, out *changes) {
	now := time.Now().UTC()
	if len(out.cases)+len(out.alarms) > 0 {
		d.move()
	}
	for _, a := range out.alarms {
		if !a.Shadow {
			d.opt.Publish(citywarden.Event{Kind: "alarm", Time: now, Data: a})
		}
	}
	for _, id := range out.cases {
		c, err := d.read.Case(context.WithoutCancel(ctx), id)
		if err != nil {
			d.opt.Logger.Error("case not published", "case", id, "err", err)
			continue
		}
		c.Timeline = nil
		shine(&c, now)
		d.opt.Publish(citywarden.Event{Kind: "case", Time: now, Data: c})
	}
}

func (d *Desk) apply(ctx context.Context, tx Tx, t citywarden.Transition, out *changes) error {
	fresh, err := tx.AddTransition(ctx, t)
	if err != nil || !fresh {
		return err
	}
	if t.Annunciated && (t.Case == nil || !t.Case.WorkOrder) {
		out.annunciated = append(out.annunciated, t.Alarm.Severity)
	}
	a := t.Alarm
	a.Shadow = t.Shadow
	old, err := tx.Alarm(ctx, a.ID)
	switch {
	case err == nil:
		a.Case = old.Case
	case citywarden.CodeOf(err) != citywarden.CodeNotFound:
		return err
	case a.State == citywarden.AlarmActive:
		if err := d.replace(ctx, tx, t, out); err != nil {
			return err
		}
	}
	if t.Case != nil && !t.Shadow {
		if err := d.adopt(ctx, tx, t, &a, out); err != nil {
			return err
		}
		calls, err := d.needsCase(ctx, tx, t, a)
		if err != nil {
			return err
		}
		if calls {
			return d.take(ctx, tx, t, a, out)
		}
	}
	if err := tx.SaveAlarm(ctx, a); err != nil {
		return err
	}
	out.alarm(a)
	if a.Case != "" {
		if err := d.evidence(ctx, tx, t, old, a, out); err != nil {
			return err
		}
	}
	if t.Kind == citywarden.Flapped && t.Case != nil && !t.Shadow && !a.Suppressed() {
		return d.maintain(ctx, tx, t, a, out)
	}
	return nil
}

// needsCase reports whether the alarm that t annunciated has no case that is
// open. One whose case people closed while it was active stays in it until its
// suppression ends.
func (d *Desk) needsCase(ctx context.Context, tx Tx, t citywarden.Transition, a citywarden.Alarm) (bool, error) {
	if !t.Annunciated || a.Case == "" {
		return t.Annunciated, nil
	}
	switch t.Kind {
	case citywarden.Unshelved, citywarden.Unsuppressed, citywarden.CameInService:
		c, err := tx.Case(ctx, a.Case)
		return err == nil && !c.Stage.Open(), err
	}
	return false, nil
}

// replace closes an earlier episode that is still active although t raises a
// later one. The engine never does that; but if its state was lost, the later
// alarm must get through.
func (d *Desk) replace(ctx context.Context, tx Tx, t citywarden.Transition, out *changes) error {
	old, err := tx.ActiveAlarm(ctx, t.Alarm.Rule, t.Alarm.Entity)
	if citywarden.CodeOf(err) == citywarden.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	d.opt.Logger.Error("alarm was still active when the next was raised; closed it", "alarm", old.ID, "next", t.Alarm.ID)
	old.State, old.ClearedAt, old.Clearing = citywarden.AlarmCleared, t.At, false
	old.Reason = fmt.Sprintf("replaced by episode %d", t.Alarm.Episode)
	old.Forsake()
	if err := tx.SaveAlarm(ctx, old); err != nil {
		return err
	}
	out.alarm(old)
	return nil
}

// take puts the alarm that t annunciated into its case: the open one of the same
// key, one that was closed within the merge time, or a new one. When its rule has
// opened too many cases of late, one summary case stands for the new one.
func (d *Desk) take(ctx context.Context, tx Tx, t citywarden.Transition, a citywarden.Alarm, out *changes) error {
	at := stamp(t)
	c, err := caseByKey(ctx, tx, t.Case.Key)
	if err != nil {
		return err
	}
	name := a.Severity.Text()
	what := citywarden.Text{EN: name.EN + " alarm", ZH: name.ZH + "级告警"}
	switch t.Kind {
	case citywarden.Unshelved, citywarden.Unsuppressed, citywarden.CameInService:
		what.EN, what.ZH = what.EN+" that was suppressed until now", "此前被抑制的"+what.ZH
	}
	text := sentence(what, t, a)
	reopens := c.Stage == citywarden.Closed && t.Case.Merge > 0 && !at.After(c.Finished.Add(t.Case.Merge.Std()))
	summary := false
	if !c.Stage.Open() && !reopens || c.ID == "" {
		if c, summary, err = d.overflow(ctx, tx, t, at); err != nil {
			return err
		}
	}
	before := c
	kind := citywarden.NoticeMembers
	switch {
	case c.ID == "":
		kind = citywarden.NoticeOpened
		c, err = d.open(ctx, tx, t, a, text, summary)
	case c.Stage.Open():
		if c.Normal {
			text.EN, text.ZH = "raised again: "+text.EN, "再次发生，"+text.ZH
		}
		err = c.Do(citywarden.CaseStep{Action: citywarden.Evidence, By: citywarden.Platform, Alarm: a.ID, Text: text, At: at})
	default:
		kind = citywarden.NoticeReopened
		err = d.advance(&c, citywarden.CaseStep{Action: citywarden.Reopen, By: citywarden.Platform, Alarm: a.ID, Text: text, At: at})
	}
	if err != nil {
		return fmt.Errorf("case of alarm %s: %w", a.ID, err)
	}
	a.Case = c.ID
	if err := tx.SaveAlarm(ctx, a); err != nil {
		return err
	}
	out.alarm(a)
	c.Normal = false
	c.Severity = max(c.Severity, a.Severity)
	c.LifeSafety = c.LifeSafety || t.Case.LifeSafety
	if err := d.members(ctx, tx, &c, a); err != nil {
		return err
	}
	if err := d.save(ctx, tx, c, before.Revision); err != nil {
		return err
	}
	out.inCase(c.ID)
	return d.call(ctx, tx, t, a, before, c, kind, text)
}

// members notes how many devices c concerns with those of a, and in which area.
func (d *Desk) members(ctx context.Context, tx Tx, c *citywarden.Case, a citywarden.Alarm) (err error) {
	for _, id := range append([]citywarden.DeviceID{a.Device}, a.Members...) {
		if len(c.Area) == 6 { // a whole county: it can't be wider
			break
		}
		if p, ok := d.opt.Where(id); ok {
			c.Spread(string(d.opt.Grids.At(p)))
		}
	}
	c.Members, err = tx.Devices(ctx, c.ID)
	return err
}

// caseByKey returns the open case of a key, or the newest; a zero one when there
// is none.
func caseByKey(ctx context.Context, tx Tx, key string) (citywarden.Case, error) {
	if key == "" {
		return citywarden.Case{}, nil
	}
	c, err := tx.CaseByKey(ctx, key)
	if citywarden.CodeOf(err) == citywarden.CodeNotFound {
		return citywarden.Case{}, nil
	}
	return c, err
}

// defaultLimit is how many cases the alarms of one rule open unless it says
// otherwise.
var defaultLimit = citywarden.CaseLimit{Cases: 50, In: citywarden.Duration(10 * time.Minute)}

// overflow reports whether the rule of t has opened as many cases as it may; then
// c is the summary case that is open for what is more, a zero one when there is
// none yet. Cases of life safety are never put together.
func (d *Desk) overflow(ctx context.Context, tx Tx, t citywarden.Transition, at time.Time) (c citywarden.Case, over bool, err error) {
	l := t.Case.Limit
	if l.Cases == 0 {
		l = defaultLimit
	}
	if t.Case.LifeSafety {
		return c, false, nil
	}
	n, err := tx.OpenedBy(ctx, t.Alarm.Rule, at.Add(-l.In.Std()))
	if err != nil || n < l.Cases {
		return c, false, err
	}
	if c, err = caseByKey(ctx, tx, summaryKey(t.Alarm.Rule)); !c.Stage.Open() {
		c = citywarden.Case{}
	}
	return c, true, err
}

func summaryKey(rule citywarden.RuleID) string { return "summary/" + string(rule) }

func (d *Desk) open(ctx context.Context, tx Tx, t citywarden.Transition, a citywarden.Alarm, text *citywarden.Text, summary bool) (citywarden.Case, error) {
	c := citywarden.Case{
		Class: t.Case.Class, Title: a.Title, Key: t.Case.Key, Rule: a.Rule, Source: citywarden.SourceSensor, WorkOrder: t.Case.WorkOrder,
		Opened: stamp(t),
	}
	if summary {
		c.Key = summaryKey(a.Rule)
		c.Title = citywarden.Text{EN: a.Title.In("en") + ": too many for a case each", ZH: a.Title.In("zh") + "：数量过多，合并为一案"}
	}
	if p, ok := d.opt.Where(a.Device); ok {
		c.Location = &p
	}
	if id := d.opt.Attached(a.Device); id != "" && !summary {
		if _, err := d.about(&c, id); err != nil {
			d.opt.Logger.Warn("component of a device is not there", "device", a.Device, "component", id)
		}
	}
	return d.begin(ctx, tx, c, citywarden.CaseStep{By: citywarden.Platform, Alarm: a.ID, Text: text})
}

// about notes that c is about a component, and thereby where it is, and returns the
// component; CodeInvalid when there is none of that code.
func (d *Desk) about(c *citywarden.Case, id citywarden.ComponentID) (citywarden.Component, error) {
	x, err := d.opt.Components.Component(id)
	if err != nil {
		return x, citywarden.Errorf(citywarden.CodeInvalid, "%w", err)
	}
	c.Component, c.ComponentName = x.ID, x.Name
	if c.Location == nil {
		c.Location = &x.Location
	}
	return x, nil
}

// named is about for a component that a person names: when c is of a class of
// components, it must be one of that class, and it must not be removed.
func (d *Desk) named(c *citywarden.Case, id citywarden.ComponentID) error {
	x, err := d.about(c, id)
	if err == nil && x.State == citywarden.Removed {
		err = citywarden.Errorf(citywarden.CodeInvalid, "component %s was removed; leave it out, or correct its state", id)
	}
	if err == nil && c.Class.Kind() == "component" && !slices.Contains(d.opt.Classes.alike(c.Class), x.Class) {
		err = citywarden.Errorf(citywarden.CodeInvalid, "component %s is of class %s, the case of class %s; correct one of them", id, x.Class, c.Class)
	}
	return err
}

// begin completes c with its class, grid and number and the first step, which
// says at which stage it begins; pending filing when it does not.
func (d *Desk) begin(ctx context.Context, tx Tx, c citywarden.Case, step citywarden.CaseStep) (citywarden.Case, error) {
	if k, ok := d.opt.Classes.Class(c.Class); ok {
		if err := d.opt.Classes.put(k, c.FilingRule, &c); err != nil {
			return c, err
		}
	} else {
		c.ClassName = citywarden.Text{ZH: string(c.Class), EN: string(c.Class)}
	}
	if c.Location != nil {
		c.Grid = d.opt.Grids.At(*c.Location)
	}
	day := c.Opened.In(d.opt.Calendar.Zone()).Format("20060102")
	n, err := tx.NextSerial(ctx, day)
	if err != nil {
		return c, err
	}
	c.ID = caseID(c.Class, c.WorkOrder, day, n)
	if step.Stage == "" {
		step.Stage = citywarden.PendingFiling
	}
	step.At = c.Opened
	c.Begin(step)
	return c, d.begun(citywarden.Case{}, &c, step.At)
}

// caseID returns the number of a case as citywarden.CaseID describes it; after
// 9,999 cases of one day the serial has five digits.
func caseID(class citywarden.ClassCode, workOrder bool, day string, n int64) citywarden.CaseID {
	digits := class.Digits()
	if len(digits) != 4 {
		digits = "0000"
	}
	letter := "E"
	switch {
	case workOrder:
		letter = "W"
	case class.Kind() == "component":
		letter = "C"
	}
	return citywarden.CaseID(fmt.Sprintf("%s%s%s%04d", letter, digits, day, n))
}

// evidence writes what t says into the timeline of the alarm's case. The alarm
// was old and is a now.
func (d *Desk) evidence(ctx context.Context, tx Tx, t citywarden.Transition, old, a citywarden.Alarm, out *changes) error {
	if t.Kind == citywarden.Acked {
		return tx.ParkTimers(ctx, a.Case, citywarden.TimerClose, false)
	}
	n, err := tx.Tally(ctx, a.Case)
	if err != nil {
		return err
	}
	c, err := tx.Case(ctx, a.Case)
	if err != nil {
		return err
	}
	before := c
	if t.Kind == citywarden.Joined {
		if err := d.members(ctx, tx, &c, a); err != nil {
			return err
		}
	}
	what, measured := says(t, old, a, n)
	if t.Kind == citywarden.Joined && citywarden.Milestone(c.Members) > citywarden.Milestone(before.Members) {
		what = citywarden.Text{EN: fmt.Sprintf("%d devices by now", c.Members), ZH: fmt.Sprintf("现已涉及 %d 台设备", c.Members)}
	}
	if what.EN == "" && c.Members == before.Members {
		return nil
	}
	var text *citywarden.Text
	if what.EN != "" {
		text = sentence(what, t, a)
		step := citywarden.CaseStep{Action: citywarden.Evidence, By: citywarden.Platform, Alarm: a.ID, Text: text, At: stamp(t)}
		if err := c.Do(step); err != nil {
			return err
		}
		c.Severity, c.Normal = max(c.Severity, a.Severity), n.Active == 0 && (measured || c.Normal)
	}
	if err := tx.SaveCase(ctx, c, before.Revision); err != nil {
		return err
	}
	out.inCase(c.ID)
	switch {
	case t.Case == nil: // its rule was changed since, and asks for no case any more
		return nil
	case t.Annunciated && t.Kind == citywarden.Unsuppressed:
		return d.call(ctx, tx, t, a, before, c, citywarden.NoticeRemaining, text)
	case t.Annunciated || text != nil && t.Kind == citywarden.Joined && !t.Case.Storm && !a.Suppressed():
		return d.call(ctx, tx, t, a, before, c, citywarden.NoticeMembers, text)
	}
	return d.closeLater(ctx, tx, t, a, c)
}

// says tells what t means for the case of an alarm that was old and is a, when n
// counts the alarms of the case now; nothing when it is no news. measured is false
// when that says nothing about the sensor.
func says(t citywarden.Transition, old, a citywarden.Alarm, n citywarden.CaseTally) (what citywarden.Text, measured bool) {
	measured = true
	switch {
	case t.Kind == citywarden.Escalated:
		name := a.Severity.Text()
		what = citywarden.Text{EN: "alarm went up to " + name.EN, ZH: "告警升级为“" + name.ZH + "”"}
	case t.Kind == citywarden.Resumed && old.Latched:
		what = citywarden.Text{EN: "raised again", ZH: "告警再次发生"}
	case t.Kind == citywarden.Suppressed && t.Case != nil && t.Case.Parent == "":
		what = citywarden.Text{EN: "explained by alarm " + string(a.SuppressedBy), ZH: "由告警 " + string(a.SuppressedBy) + " 引起"}
	case t.Kind == citywarden.Unsuppressed && t.Annunciated:
		what = citywarden.Text{EN: "still active, though nothing explains it any more", ZH: "相关告警已恢复，该告警仍未恢复"}
	case t.Kind == citywarden.Flapped:
		what = citywarden.Text{EN: "comes and goes too often; held as active, without notices", ZH: "反复抖动，暂按未恢复处理，不再通知"}
	case t.Kind == citywarden.Cleared && old.Latched && !old.NoData:
		what = citywarden.Text{EN: "latched alarm closed", ZH: "保持的告警已关闭"}
	case t.Kind == citywarden.Cleared && t.Note != "":
		// Closed for a reason, like a removed rule: that says nothing about the sensor.
		what, measured = citywarden.Text{EN: "alarm closed", ZH: "告警已关闭"}, false
	case t.Kind != citywarden.Cleared && t.Kind != citywarden.Latched:
	case n.Active > 0 && t.Case != nil && t.Case.Parent != "": // one of a storm's many
	case n.Active > 0:
		what = citywarden.Text{
			EN: fmt.Sprintf("alarm cleared, %d of %d still active", n.Active, n.All),
			ZH: fmt.Sprintf("告警已恢复，%d 条中还有 %d 条未恢复", n.All, n.Active),
		}
	case t.Kind == citywarden.Latched:
		what = citywarden.Text{EN: "sensor back to normal, the alarm waits for a reset", ZH: "传感器已恢复正常，告警待复位"}
	default:
		what = citywarden.Text{EN: "sensor back to normal", ZH: "传感器已恢复正常"}
	}
	return what, measured
}

// stamp returns our time of t: people's deadlines run on it.
func stamp(t citywarden.Transition) time.Time {
	at := t.Logged
	if at.IsZero() {
		at = t.At
	}
	return at.UTC().Truncate(time.Millisecond)
}

// sentence says what happened to a in one line of each language.
func sentence(what citywarden.Text, t citywarden.Transition, a citywarden.Alarm) *citywarden.Text {
	line := func(lang, colon, open, shut, comma string) string {
		title := a.Title.In(lang)
		if title == "" {
			title = string(a.Rule)
		}
		s, more := what.In(lang)+colon+title, ""
		switch {
		case t.Why != nil:
			more = t.Why.Summary.In(lang)
		case a.Reason != "":
			more = a.Reason
		}
		if !strings.Contains(more, a.Entity) {
			s += open + a.Entity + shut
		}
		if more != "" {
			s += comma + more
		}
		return s
	}
	return &citywarden.Text{EN: line("en", ": ", " (", ")", ", "), ZH: line("zh", "：", "（", "）", "，")}
}

// Do takes one step in the case called id and returns the case afterwards, with
// what the same person may do next. The time of the step is now. Errors are
// those of citywarden.Case.Do; CodeDenied for the platform's own actions, and
// when a department's person acts on another department's case (step.Department
// is the person's then); CodeNotFound for an unknown case.
//
// revision is the Revision of the case that the person saw, 0 for any. When
// somebody else has moved the case since, Do returns CodeConflict; comments,
// evidence and notices that came in meanwhile do not count.
//
// Dispatch without a department takes the one of the class, SendVerify and
// SendCheck without an officer the one of the unit grid.
func (d *Desk) Do(ctx context.Context, id citywarden.CaseID, step citywarden.CaseStep, revision int64) (citywarden.Case, error) {
	if step.Role == "" || step.By == "" {
		return citywarden.Case{}, citywarden.Errorf(citywarden.CodeDenied, "%s case %s: nobody is named who does it", step.Action, id)
	}
	if utf8.RuneCountInString(step.Note) > MaxNote {
		return citywarden.Case{}, citywarden.Errorf(citywarden.CodeInvalid, "%s case %s: the note has more than %d characters", step.Action, id, MaxNote)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var out changes
	err := d.update(ctx, func(tx Tx) error {
		out = changes{}
		c, err := tx.Case(ctx, id)
		if err != nil {
			return err
		}
		if err := unmoved(ctx, tx, &c, revision); err != nil {
			return err
		}
		before := c
		if err := d.step(&c, step); err != nil {
			return err
		}
		if err := d.shown(ctx, tx, &before, step.Action); err != nil {
			return err
		}
		out.inCase(id)
		if err := d.save(ctx, tx, c, before.Revision); err != nil {
			return err
		}
		return d.follow(ctx, tx, before, c, &out)
	})
	if err != nil {
		return citywarden.Case{}, err
	}
	d.publish(ctx, &out)
	return d.Case(context.WithoutCancel(ctx), id, step.By, step.Role)
}

// MaxNote is the greatest length of a note, in characters.
const MaxNote = 4000

// unmoved returns CodeConflict when a step other than a comment, evidence or a
// notice came after revision.
func unmoved(ctx context.Context, tx Tx, c *citywarden.Case, revision int64) error {
	if revision == 0 || revision == c.Revision {
		return nil
	}
	if revision < 0 || revision > c.Revision {
		return citywarden.Errorf(citywarden.CodeInvalid, "case %s has no revision %d, it is at %d", c.ID, revision, c.Revision)
	}
	steps, err := tx.StepsAfter(ctx, c.ID, revision)
	if err != nil {
		return err
	}
	if s, moved := citywarden.Moved(steps); moved {
		return citywarden.Errorf(citywarden.CodeConflict, "%s was faster (%s at %s): look at case %s again",
			s.By, s.Action, s.At.Format(time.RFC3339), c.ID)
	}
	return nil
}

func (d *Desk) step(c *citywarden.Case, step citywarden.CaseStep) error {
	step.At = time.Now().UTC().Truncate(time.Millisecond)
	switch step.Action {
	case citywarden.Dispatch:
		if step.Department == "" {
			step.Department = d.department(c)
		}
	case citywarden.SendVerify, citywarden.SendCheck:
		if step.Officer == "" {
			step.Officer = d.opt.Officers(c.Grid)
		}
	}
	return d.advance(c, step)
}

// department returns who handles the case unless somebody says otherwise: whom
// the class names, else who maintains its component, else whom the component's own
// class names; "" for nobody.
func (d *Desk) department(c *citywarden.Case) string {
	name := d.opt.Classes.department(c)
	if name != "" || c.Component == "" {
		return name
	}
	x, err := d.opt.Components.Component(c.Component)
	if err != nil {
		return ""
	}
	k, _ := d.opt.Classes.Class(x.Class)
	return cmp.Or(x.Maintainer, k.Department)
}

// Create opens a case for a person. What an officer or a citizen says is reported
// and waits to be registered; what the supervision centre enters is registered by
// that. CodeDenied when the role may not open cases, CodeInvalid when the class,
// the source or the component is unknown, the title missing or the place impossible.
func (d *Desk) Create(ctx context.Context, n citywarden.NewCase, by string, role citywarden.Role) (citywarden.Case, error) {
	if err := role.May(citywarden.MayOpenCases); err != nil {
		return citywarden.Case{}, err
	}
	c, err := d.draft(n, role)
	if err != nil {
		return citywarden.Case{}, err
	}
	c.OpenedBy = by
	first := citywarden.CaseStep{By: by, Role: role, Note: n.Description}
	if role == citywarden.RoleOfficer || role == citywarden.RoleCitizen {
		first.Stage = citywarden.Reported
	}
	err = d.once(ctx, func(ctx context.Context, tx Tx, out *changes) error {
		opened, err := d.begin(ctx, tx, c, first)
		if err != nil {
			return err
		}
		out.inCase(opened.ID)
		if err := d.save(ctx, tx, opened, 0); err != nil {
			return err
		}
		c.ID = opened.ID
		if n.Reporter == nil {
			return nil
		}
		return tx.AddReport(ctx, citywarden.Report{
			Case: c.ID, Source: c.Source, Class: c.Class, Description: n.Description, Location: c.Location, Reporter: *n.Reporter, At: c.Opened,
		}, "")
	})
	if err != nil {
		return citywarden.Case{}, err
	}
	return d.Case(context.WithoutCancel(ctx), c.ID, by, role)
}

// sourceOf returns the source of a case that somebody of that role opens and
// says to be of source s.
func sourceOf(role citywarden.Role, s citywarden.Source) (citywarden.Source, error) {
	own := citywarden.SourceOperator
	switch role {
	case citywarden.RoleOfficer:
		own = citywarden.SourceOfficer
	case citywarden.RoleCitizen:
		own = citywarden.SourceCitizen
	}
	switch {
	case s == "" || s == own:
		return own, nil
	case s == citywarden.SourceSensor || !slices.Contains(citywarden.Sources, s):
		return "", citywarden.Errorf(citywarden.CodeInvalid, "new case: a person can't enter the source %q; take hotline, transfer, citizen, app, officer or operator", s)
	case own != citywarden.SourceOperator:
		return "", citywarden.Errorf(citywarden.CodeDenied, "new case: a case of role %s has the source %s", role, own)
	}
	return s, nil
}

func (d *Desk) draft(n citywarden.NewCase, role citywarden.Role) (citywarden.Case, error) {
	title := strings.TrimSpace(n.Title)
	switch {
	case title == "" || utf8.RuneCountInString(title) > 200:
		return citywarden.Case{}, citywarden.Errorf(citywarden.CodeInvalid, "new case: give a title of 1 to 200 characters")
	case utf8.RuneCountInString(n.Description) > MaxNote:
		return citywarden.Case{}, citywarden.Errorf(citywarden.CodeInvalid, "new case: the description has more than %d characters", MaxNote)
	}
	if err := d.opt.Classes.Check(n.Class); err != nil {
		return citywarden.Case{}, citywarden.Errorf(citywarden.CodeInvalid, "new case: %w", err)
	}
	source, err := sourceOf(role, n.Source)
	if err != nil {
		return citywarden.Case{}, err
	}
	c := citywarden.Case{
		Class: n.Class, FilingRule: n.FilingRule, Title: citywarden.Text{ZH: title, EN: title}, Source: source, Device: n.Device,
		Opened: time.Now().UTC().Truncate(time.Millisecond),
	}
	if n.Location != nil {
		p, err := citywarden.PointIn(n.CRS, *n.Location)
		if err != nil {
			return c, err
		}
		c.Location = &p
	} else if n.Device != "" && n.Component == "" {
		if p, ok := d.opt.Where(n.Device); ok {
			c.Location = &p
		}
	}
	if n.Component != "" {
		return c, d.named(&c, n.Component)
	}
	if id := d.opt.Attached(n.Device); id != "" {
		_, err = d.about(&c, id)
	}
	return c, err
}

// Alarms returns the alarms that f selects, the newest raised first, and the
// cursor of the next page, "" after the last.
func (d *Desk) Alarms(ctx context.Context, f citywarden.AlarmFilter) (items []citywarden.Alarm, next string, err error) {
	return d.read.Alarms(ctx, f)
}

// Alarm returns one alarm; CodeNotFound when there is none called id.
func (d *Desk) Alarm(ctx context.Context, id citywarden.AlarmID) (citywarden.Alarm, error) {
	return d.read.Alarm(ctx, id)
}

// History returns everything that happened to an alarm, the oldest first.
func (d *Desk) History(ctx context.Context, id citywarden.AlarmID) ([]citywarden.AlarmStep, error) {
	if _, err := d.read.Alarm(ctx, id); err != nil {
		return nil, err
	}
	return d.read.AlarmSteps(ctx, id)
}

// Why explains an alarm: why it was raised, or why it has the severity it has
// when that changed later. CodeNotFound when there is no such alarm or nothing
// was recorded for it.
func (d *Desk) Why(ctx context.Context, id citywarden.AlarmID) (*citywarden.Explanation, error) {
	steps, err := d.History(ctx, id)
	if err != nil {
		return nil, err
	}
	var any *citywarden.Explanation
	for _, s := range slices.Backward(steps) {
		if s.Why == nil {
			continue
		}
		switch s.Kind {
		case citywarden.Raised, citywarden.Escalated, citywarden.Lowered:
			return s.Why, nil
		}
		if any == nil {
			any = s.Why
		}
	}
	if any == nil {
		return nil, citywarden.Errorf(citywarden.CodeNotFound, "alarm %s has no explanation", id)
	}
	return any, nil
}

// AlarmCounts returns how many alarms are active by severity, and how many of
// them are neither acknowledged nor suppressed. Shadow rules do not count.
func (d *Desk) AlarmCounts(ctx context.Context) (bySeverity map[citywarden.Severity]int, unacked int, err error) {
	return d.read.AlarmCounts(ctx)
}

// Cases returns the cases that f selects without their timelines, the newest
// first, and the cursor of the next page, "" after the last.
func (d *Desk) Cases(ctx context.Context, f citywarden.CaseFilter) (items []citywarden.Case, next string, err error) {
	items, next, err = d.read.Cases(ctx, f)
	now := time.Now()
	for i := range items {
		shine(&items[i], now)
	}
	return items, next, err
}

// Case returns one case with its timeline, its photos and what the person called
// by may do next; CodeNotFound when there is none called id.
func (d *Desk) Case(ctx context.Context, id citywarden.CaseID, by string, role citywarden.Role) (citywarden.Case, error) {
	c, err := d.read.Case(ctx, id)
	if err != nil {
		return citywarden.Case{}, err
	}
	if c.Attachments, err = d.read.Attachments(ctx, id); err != nil {
		return citywarden.Case{}, err
	}
	now := time.Now().UTC()
	shine(&c, now)
	c.GridOfficer = d.opt.Officers(c.Grid)
	if c.Department == "" {
		c.Proposed = d.department(&c)
	}
	c.Actions = c.Next(citywarden.CaseStep{By: by, Role: role, At: now})
	for _, a := range c.Actions {
		if kinds := d.missing(&c, a, c.Attachments); kinds != nil {
			if c.MissingPhotos == nil {
				c.MissingPhotos = map[citywarden.Action][]citywarden.AttachmentKind{}
			}
			c.MissingPhotos[a] = kinds
		}
	}
	return c, nil
}

// CaseCounts returns how many open cases are in each stage, and how many that
// are not handled yet are past their deadline. Work orders do not count.
func (d *Desk) CaseCounts(ctx context.Context) (byStage map[citywarden.Stage]int, overdue int, err error) {
	return d.read.CaseCounts(ctx, false, time.Now().UnixMilli())
}

// shine sets the lights of c as they are at now. What was handled keeps the light
// of that moment, what is suspended that of the moment when its clock was stopped;
// what was rejected or voided has none.
func shine(c *citywarden.Case, now time.Time) {
	c.StageLight = citywarden.LightAt(c.StageWarn, c.StageDue, now)
	switch {
	case c.Stage == citywarden.Rejected, c.Stage == citywarden.Voided:
		c.Light = ""
		return
	case !c.HandledAt.IsZero():
		now = c.HandledAt
	case !c.SuspendedAt.IsZero():
		now = c.SuspendedAt
	}
	c.Light = citywarden.LightAt(c.Yellow, c.Deadline, now)
}

// Worst returns the highest severity of the active alarms of a device, as
// itself or as a member of a group; 0 for none. Suppressed alarms and those of
// shadow rules do not count. It does not touch the store.
func (d *Desk) Worst(id citywarden.DeviceID) citywarden.Severity { return d.worst.of(id, time.Now()) }

func (d *Desk) reload(ctx context.Context) error {
	var open []citywarden.Alarm
	f := citywarden.AlarmFilter{State: citywarden.AlarmActive, Page: citywarden.Page{Limit: citywarden.MaxPage}}
	for {
		items, next, err := d.read.Alarms(ctx, f)
		if err != nil {
			return fmt.Errorf("read the open alarms: %w", err)
		}
		open = append(open, items...)
		if next == "" {
			break
		}
		f.After = next
	}
	d.worst.reset(open)
	return nil
}

// worst knows the active alarms of each device.
type worst struct {
	mu      sync.RWMutex
	devices map[citywarden.DeviceID]map[citywarden.AlarmID]mark
	alarms  map[citywarden.AlarmID][]citywarden.DeviceID
}

type mark struct {
	severity citywarden.Severity
	shelved  time.Time
	silenced bool // suppressed by design or out of service
}

func (w *worst) reset(open []citywarden.Alarm) {
	w.mu.Lock()
	w.devices = map[citywarden.DeviceID]map[citywarden.AlarmID]mark{}
	w.alarms = map[citywarden.AlarmID][]citywarden.DeviceID{}
	w.mu.Unlock()
	for _, a := range open {
		w.set(a)
	}
}

func (w *worst) set(a citywarden.Alarm) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range w.alarms[a.ID] {
		delete(w.devices[id], a.ID)
		if len(w.devices[id]) == 0 {
			delete(w.devices, id)
		}
	}
	delete(w.alarms, a.ID)
	if a.State != citywarden.AlarmActive || a.Shadow {
		return
	}
	ids := append(slices.Clone(a.Members), a.Device)
	for _, id := range ids {
		if w.devices[id] == nil {
			w.devices[id] = map[citywarden.AlarmID]mark{}
		}
		w.devices[id][a.ID] = mark{a.Severity, a.Shelved, a.SuppressedBy != "" || !a.OutOfService.IsZero()}
	}
	w.alarms[a.ID] = ids
}

func (w *worst) of(id citywarden.DeviceID, now time.Time) citywarden.Severity {
	w.mu.RLock()
	defer w.mu.RUnlock()
	var s citywarden.Severity
	for _, m := range w.devices[id] {
		if !m.silenced && !m.shelved.After(now) {
			s = max(s, m.severity)
		}
	}
	return s
}
