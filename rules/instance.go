package rules

import (
	"cmp"
	"math"
	"slices"

	"github.com/citywarden/citywarden"
)

// instance is the state of one rule for one entity: a device, or a group. There
// may be a million, and a snapshot walks through all of them: what it reads of
// every one stands first, and what few of them have stands elsewhere.
type instance struct {
	run     *run
	d       *device // of a rule per device
	g       *group  // of a rule with group
	trigger *device
	entity  string
	seat    int32 // of d
	place   int32 // in run.list

	clock  int64  // evaluated up to here, event time, ms
	lag    int64  // of a group: arrival - event time of the newest trigger, ms
	due    int64  // when the timer is set, ms; 0 not set
	n      uint64 // transitions of the episode so far
	levels []levelState
	few    [2]levelState    // what levels is made of when that is enough
	rare   *rare            // nil for nothing of it
	title  *citywarden.Text // of the alarm; nil for that of the rule
	key    string           // of the alarm's case
	alarm  alarm            // the last one

	open      bool // the alarm is active
	inhibited bool // a level waits for an inhibitor to clear
	raising   bool // the condition of a level was true at clock, whatever the schedule says
	dropped   bool // forgotten; only void timers still point at it
	roused    bool // on the lists of all its devices

	b     *binding // of a rule per device
	prog  *program
	ties  []tie  // where it stands in the index of inhibitors
	front *front // where it counts towards a storm; nil for nowhere
}

// slab makes the instances of a rule side by side: who goes through all of them
// waits for memory otherwise. As long as one of a piece is there, the piece is.
type slab struct {
	free []instance
	made int
}

// slabPiece is how many instances at most are made at a time.
const slabPiece = 16

// next returns a new instance.
func (s *slab) next() *instance {
	if len(s.free) == 0 {
		s.free = make([]instance, min(max(s.made, 1), slabPiece))
		s.made += len(s.free)
	}
	inst := &s.free[0]
	s.free = s.free[1:]
	return inst
}

// grow gives inst n levels at rest.
func (inst *instance) grow(n int) {
	if n <= len(inst.few) {
		inst.few = [2]levelState{}
		inst.levels = inst.few[:n]
		return
	}
	inst.levels = make([]levelState, n)
}

// levelState is the state of one level.
type levelState struct {
	since   int64 // pending and clearing: since when the condition holds; active: since when
	state   process
	stalled bool // the delay waits for data: it begins again when they return
}

// process is rules.md's dimension "process".
type process uint8

const (
	normal process = iota
	pending
	active
	clearing
)

var processNames = [...]string{"normal", "pending", "active", "clearing"}

func (p process) String() string { return processNames[p] }

const never = int64(math.MaxInt64)

func (e *Engine) instance(b *binding, d *device) *instance {
	x := e.runs[b.rule.index]
	inst := x.slab.next()
	*inst = instance{run: x, entity: string(d.id), d: d, seat: int32(d.seat), b: b, prog: b.prog, trigger: d,
		clock: math.MinInt64}
	inst.grow(len(b.prog.levels))
	inst.alarm.Episode = inst.run.episodes[inst.entity]
	i, _ := d.place(b)
	d.insts = slices.Insert(d.insts, i, inst)
	inst.run.add(inst)
	inst.tie()
	return inst
}

func (e *Engine) groupInstance(g *group, prog *program) *instance {
	inst := g.run.slab.next()
	*inst = instance{run: g.run, entity: g.key, g: g, prog: prog,
		clock: math.MinInt64}
	inst.grow(len(prog.levels))
	inst.alarm.Episode = g.run.episodes[inst.entity]
	g.inst = inst
	g.run.add(inst)
	inst.tie()
	return inst
}

// forget drops an instance that has nothing to remember.
func (e *Engine) forget(inst *instance) {
	if inst.dropped {
		return
	}
	inst.dropped = true
	delete(e.aside, inst)
	inst.untie()
	inst.resign()
	inst.run.remove(inst)
	if inst.d != nil && inst.d.instance(inst.b) == inst {
		i, _ := inst.d.place(inst.b)
		inst.d.insts = slices.Delete(inst.d.insts, i, i+1)
	}
	if inst.g != nil && inst.g.inst == inst {
		inst.g.inst = nil
	}
}

// clearOf returns the clear condition of level i and how long it has to hold;
// nil when the level ends with its own condition.
func (inst *instance) clearOf(i int) (*compiled, int64) {
	r := inst.run.rule
	switch {
	case r.levels[i].clear != nil:
		return inst.prog.levels[i].clear, r.levels[i].clear.hold
	case r.clear != nil:
		return inst.prog.clear, r.clear.hold
	}
	return nil, 0
}

// deadline returns the event time of the next deadline, never when there is none.
func (e *Engine) deadline(inst *instance) int64 {
	due := never
	for i := range inst.levels {
		l := &inst.levels[i]
		if l.stalled {
			continue
		}
		switch l.state {
		case pending:
			if !inst.inhibited {
				due = min(due, l.since+inst.run.rule.levels[i].hold)
			}
		case clearing:
			_, hold := inst.clearOf(i)
			due = min(due, max(l.since+hold, inst.calm()))
		}
	}
	// At rest the next change of schedule can't matter: the conditions are false,
	// so the next reading decides.
	if inst.run.sched != nil && inst.clock > math.MinInt64 && (inst.raising || !inst.quiet()) {
		_, until := inst.run.sched.active(inst.clock, e.opt.Holiday)
		due = min(due, until)
	}
	return due
}

// calm returns until when a flapping alarm is held, 0 when it may clear.
func (inst *instance) calm() int64 {
	f, flips := inst.run.rule.flap, inst.flips()
	if f == nil || len(flips) < f.changes {
		return 0
	}
	return flips[len(flips)-f.changes] + f.in
}

// flip notes that the condition of a level came or went.
func (inst *instance) flip(t int64) {
	f := inst.run.rule.flap
	if f == nil {
		return
	}
	o := inst.own()
	o.flips = append(o.flips, t)
	if extra := len(o.flips) - f.changes; extra > 0 {
		o.flips = slices.Delete(o.flips, 0, extra)
	}
}

// advance fires the deadlines up to that event time, in order.
func (e *Engine) advance(inst *instance, upTo int64) {
	for !inst.dropped {
		due := e.deadline(inst)
		if calm := inst.calm(); inst.alarm.Flapping && calm <= min(due, upTo) {
			e.flapping(inst, calm, false)
			continue
		}
		if due > upTo {
			return
		}
		e.apply(inst, max(due, inst.clock))
	}
}

// catchUp evaluates what waits in the lane of the instance's device up to ts.
func (e *Engine) catchUp(inst *instance, ts int64) {
	if inst.d != nil && inst.run.rule.late > 0 {
		e.release(inst.d, inst.b.lane, ts)
	}
}

// instanceDue is the timer of rearm.
func (e *Engine) instanceDue(inst *instance) {
	inst.due = 0
	e.lapse(inst)
	if report := inst.report(); report > 0 && report <= e.now {
		e.reportMembers(inst)
	}
	upTo := e.now - e.delay(inst)
	e.catchUp(inst, upTo)
	for len(inst.wakes()) > 0 && inst.rare.wakes[0] <= upTo {
		at := max(inst.rare.wakes[0], inst.clock)
		inst.rare.wakes = slices.Delete(inst.rare.wakes, 0, 1)
		e.advance(inst, at-1)
		e.apply(inst, max(at, inst.clock))
	}
	e.advance(inst, upTo)
	e.rearm(inst)
}

// lapse ends a shelving, and a being out of service, whose time is over.
func (e *Engine) lapse(inst *instance) {
	if until := inst.shelved(); until > 0 && until <= e.now {
		inst.amend(func(a *citywarden.Alarm) { a.Unshelve() })
		e.emit(inst, until, citywarden.Unshelved, nil)
	}
	if x := inst.out(); x != nil && !x.Until.IsZero() && ms(x.Until) <= e.now {
		e.comeBack(inst, ms(x.Until), "", "")
	}
}

// rearm sets the timer of the instance, or forgets an instance at rest.
func (e *Engine) rearm(inst *instance) {
	if inst.dropped {
		return
	}
	inst.shed()
	due := e.deadline(inst)
	if inst.alarm.Flapping {
		due = min(due, inst.calm())
	}
	if wakes := inst.wakes(); len(wakes) > 0 {
		due = min(due, wakes[0])
	}
	if due != never {
		due += e.delay(inst)
		if inst.g != nil {
			if pace := inst.g.pace(); pace > 0 {
				due = max(due, e.now)/pace*pace + pace
			}
		}
	}
	if until := inst.shelved(); until > 0 {
		due = min(due, until)
	}
	if x := inst.outItself(); x != nil && !x.Until.IsZero() {
		due = min(due, ms(x.Until))
	}
	if !inst.resting() {
		inst.rouse()
	}
	if report := inst.report(); report > 0 {
		due = min(due, report)
	}
	if due == never {
		inst.due = 0
		inst.touch()
		if !inst.idle() || inst.alarm.Episode > 0 || len(inst.flips()) > 0 {
			return
		}
		if inst.out() == nil {
			e.forget(inst)
			return
		}
		inst.clock = math.MinInt64 // that nobody is told doesn't change what is evaluated
		return
	}
	due = max(due, 1)
	if inst.due != due {
		inst.due = due
		inst.touch()
		e.push(timer{due: due, kind: timerInstance, inst: inst})
	}
}

// apply evaluates the instance as of event time t and moves its levels.
func (e *Engine) apply(inst *instance, t int64) {
	r := inst.run.rule
	inst.touch()
	inst.clock = t
	in, _ := inst.run.sched.active(t, e.opt.Holiday)
	var raised [maxLevels]tri
	shared := tri(255) // of the rule's clear condition, evaluated when needed
	inhibited, flipped := false, false
	inst.raising = false
	for i := range inst.levels {
		l, hold := &inst.levels[i], r.levels[i].hold
		when := inst.prog.levels[i].when(e.env(inst.d, inst.g, r, t))
		inst.raising = inst.raising || when == yes
		if !in {
			l.state, l.stalled = normal, false
			continue
		}
		raised[i] = when
		if l.state == normal && when == yes {
			l.state, l.since, l.stalled = pending, t, false
		}
		if l.state == pending {
			switch when {
			case no:
				l.state, l.stalled = normal, false
			case unknown:
				l.stalled = true
			case yes:
				if l.stalled {
					l.since, l.stalled = t, false
				}
				if t < l.since+hold {
					break
				}
				if !inst.open && e.inhibited(inst) {
					inhibited = true
					break
				}
				l.state, l.since, flipped = active, t, true
			}
			continue
		}
		if l.state == normal {
			continue
		}
		clear, clearHold := inst.clearOf(i)
		done := when.not()
		if clear != nil {
			if r.levels[i].clear != nil {
				done = clear.when(e.env(inst.d, inst.g, r, t))
			} else {
				if shared == 255 {
					shared = clear.when(e.env(inst.d, inst.g, r, t))
				}
				done = shared
			}
			if when == yes { // both at once: the alarm stays
				done = no
			}
		}
		if l.state == active && done == yes {
			l.state, l.since, l.stalled, flipped = clearing, t, false, true
		}
		if l.state != clearing {
			continue
		}
		switch done {
		case no:
			l.state, l.since, l.stalled, flipped = active, t, false, true
		case unknown:
			l.stalled = true
		case yes:
			if l.stalled {
				l.since, l.stalled = t, false
			}
			if t >= max(l.since+clearHold, inst.calm()) {
				l.state, l.since = normal, t
			}
		}
	}
	inst.inhibited = inhibited
	if flipped {
		inst.flip(t)
	}
	met := len(inst.members())
	e.settle(inst, t, in, raised[:len(inst.levels)])
	if len(inst.members()) != met {
		e.attend(inst, t, "", "")
	}
	e.flapping(inst, t, inst.open && inst.calm() > t)
}

// flapping notes whether the open alarm is held because it comes and goes. That
// it does no more is no occasion to evaluate anything.
func (e *Engine) flapping(inst *instance, t int64, flaps bool) {
	if flaps == inst.alarm.Flapping {
		return
	}
	inst.alarm.Flapping = flaps
	kind := citywarden.Steadied
	if flaps {
		kind = citywarden.Flapped
	}
	e.emit(inst, t, kind, nil)
}

// standing returns the highest level that is active, its severity (0 when none
// is), and whether all that are have begun to clear.
func (inst *instance) standing() (sev citywarden.Severity, level int, ending bool) {
	ending = true
	for i := range inst.levels {
		if s := inst.levels[i].state; s == active || s == clearing {
			ending = ending && s == clearing
			if got := inst.run.rule.levels[i].severity; got > sev {
				sev, level = got, i
			}
		}
	}
	return sev, level, ending
}

// settle compares the levels with the alarm and emits what changed.
func (e *Engine) settle(inst *instance, t int64, in bool, raised []tri) {
	sev, level, ending := inst.standing()
	a := &inst.alarm
	switch {
	case !inst.open && sev > 0:
		e.raise(inst, t, sev, level)
		return
	case !inst.open:
		return
	case sev == 0 && !in:
		e.close(inst, t, "schedule ended", "")
		return
	case sev == 0 && inst.run.rule.latch:
		if !a.Latched {
			a.Latched, a.Clearing = true, false
			e.emit(inst, t, citywarden.Latched, e.explain(inst, t, citywarden.Latched, level))
			e.abate(e.byAlarm[inst.under()], t)
		}
		return
	case sev == 0:
		e.close(inst, t, "", "")
		return
	case sev > a.Severity:
		a.Severity, a.Latched, a.Clearing = sev, false, ending
		inst.amend((*citywarden.Alarm).Unack)
		e.meet(inst, t)
		e.emit(inst, t, citywarden.Escalated, e.explain(inst, t, citywarden.Escalated, level))
		return
	case a.Latched:
		a.Severity, a.Latched, a.Clearing = sev, false, ending
		inst.amend((*citywarden.Alarm).Unack)
		e.meet(inst, t)
		e.emit(inst, t, citywarden.Resumed, e.explain(inst, t, citywarden.Resumed, level)).Annunciated = inst.audible()
		return
	case sev < a.Severity:
		a.Severity = sev
		e.emit(inst, t, citywarden.Lowered, e.explain(inst, t, citywarden.Lowered, level))
	}
	if ending != a.Clearing {
		a.Clearing = ending
		kind := citywarden.Resumed
		if ending {
			kind = citywarden.Clearing
		}
		e.emit(inst, t, kind, e.explain(inst, t, kind, level))
	}
	if inst.g != nil && slices.Contains(raised, yes) {
		if joined := e.meet(inst, t); joined {
			e.emit(inst, t, citywarden.Joined, e.explain(inst, t, citywarden.Joined, level))
		}
	}
}

// raise begins an episode.
func (e *Engine) raise(inst *instance, t int64, sev citywarden.Severity, level int) {
	e.begin(inst, t, sev)
	if inst.d != nil {
		inst.alarm.NoData = inst.d.dark && !inst.run.rule.silent
	} else {
		inst.g.census = nil // all of them are newcomers to this alarm
		e.meet(inst, t)
		inst.comesFrom(inst.raiser())
	}
	if d := e.outWith(inst); d != nil && inst.outItself() == nil {
		inst.takeOut(d.out)
	}
	e.gather(inst, t)
	e.announce(inst, t, e.explain(inst, t, citywarden.Raised, level))
}

// begin makes the alarm of a new episode.
func (e *Engine) begin(inst *instance, t int64, sev citywarden.Severity) {
	e.lapse(inst)
	old := inst.alarm
	if old.ID != "" {
		delete(e.byAlarm, old.ID)
	}
	inst.resign()
	a := alarm{Episode: old.Episode + 1, Severity: sev, raised: t}
	a.ID = citywarden.NewAlarmID(inst.run.rule.ID, inst.entity, a.Episode)
	inst.alarm, inst.title, inst.open, inst.n = a, nil, true, 0
	if o := inst.rare; o != nil {
		// A shelf and being out of service hold for the rule and entity, not for one episode.
		kept := rare{wakes: o.wakes, flips: o.flips, under: o.under, children: o.children, report: o.report, out: inst.outItself()}
		if o.shelved != 0 {
			kept.shelved, kept.shelvedBy, kept.reason = o.shelved, o.shelvedBy, o.reason
		}
		*o = kept
		inst.shed()
	}
	inst.tie()
	e.byAlarm[a.ID] = inst
}

// announce tells of the alarm that began.
func (e *Engine) announce(inst *instance, t int64, why *citywarden.Explanation) {
	if by := e.suppressor(inst); by != "" {
		inst.own().suppressedBy = by
	}
	r, out := inst.run.rule, inst.out()
	if r.order != nil {
		d := inst.d
		if d == nil {
			d = e.devices[inst.device()]
		}
		inst.key = r.order.key.fill(r, inst.entity, d)
	}
	if out != nil {
		why.OutOfService = *out
		if out.Device == "" {
			why.OutOfService.Rule, why.OutOfService.Entity = r.ID, inst.entity
		}
	}
	e.emit(inst, t, citywarden.Raised, why)
	for _, x := range inst.inhibits() {
		e.resolve(x, t)
	}
	if out != nil { // its history says why nobody was told
		e.tell(inst, t, citywarden.WentOutOfService, out.By, out.Reason)
	}
}

// raiser returns the device that raised a group's alarm: the one whose reading
// was evaluated, if it satisfies the condition, else the first that does.
func (inst *instance) raiser() citywarden.DeviceID {
	ms := inst.members()
	if inst.trigger != nil && (len(ms) == 0 || slices.Contains(ms, inst.trigger.id)) {
		return inst.trigger.id
	}
	if len(ms) > 0 {
		return ms[0]
	}
	if len(inst.g.members) > 0 {
		return inst.g.members[0].id
	}
	return ""
}

// meet adds the members that satisfy the condition of a level to the alarm of a
// group and reports whether there is a new one.
func (e *Engine) meet(inst *instance, t int64) bool {
	if inst.g == nil {
		return false
	}
	grew := false
	for i := range inst.prog.levels {
		v := e.env(nil, inst.g, inst.run.rule, t)
		if inst.prog.levels[i].when(v) != yes {
			continue
		}
		for _, m := range inst.prog.levels[i].members {
			v.newcomers(m, func(d *device) {
				grew = inst.enter(d.id) || grew
			})
		}
	}
	return grew
}

// close ends the episode; by is who ordered it, "" for nobody.
func (e *Engine) close(inst *instance, t int64, reason, by string) {
	a := &inst.alarm
	why := e.explainEnd(inst, t, reason)
	a.cleared = t
	a.Clearing, a.Latched, a.NoData, a.Flapping = false, false, false, false
	inst.takeOut(inst.outItself())           // its device still may be, and the next alarm will be with it
	if reason != "" && inst.shelved() == 0 { // the reason of a shelf holds as long as the shelf
		inst.own().reason = reason
	}
	held := inst.inhibits()
	inst.open = false
	inst.tie()
	tr := e.emit(inst, t, citywarden.Cleared, why)
	tr.By, tr.Note = by, reason
	for _, x := range held {
		e.uninhibit(x, t)
	}
	e.free(inst, t)
	e.leave(inst, t)
}

// emit appends a transition and returns it, to be completed at once.
func (e *Engine) emit(inst *instance, t int64, kind citywarden.TransitionKind, why *citywarden.Explanation) *citywarden.Transition {
	inst.n++
	inst.touch()
	a := inst.told()
	a.Members = slices.Clone(a.Members)
	r := inst.run.rule
	tr := citywarden.Transition{
		Key:      entity{r.ID, inst.entity}.key(a.Episode, inst.n),
		Position: e.pos, At: fromMS(t), Logged: e.logged, Kind: kind, Alarm: a, Shadow: r.Mode == "shadow", Why: why,
	}
	if r.order != nil {
		order := r.order.CaseOrder
		order.Key = inst.key
		if parent := e.byAlarm[inst.under()]; parent != nil {
			order.Parent = parent.key
		}
		tr.Case = &order
	}
	switch kind {
	case citywarden.Raised, citywarden.Escalated, citywarden.Unshelved, citywarden.CameInService, citywarden.Unsuppressed:
		tr.Annunciated = inst.audible()
	}
	e.out = append(e.out, tr)
	return &e.out[len(e.out)-1]
}

// audible reports whether a change of the alarm is to call for a person.
func (inst *instance) audible() bool {
	return inst.open && inst.run.rule.Mode != "shadow" && !inst.suppressed()
}

// noData marks an open alarm when its device fell silent or came back.
func (e *Engine) noData(inst *instance, dark bool) {
	if !inst.open || inst.alarm.NoData == dark {
		return
	}
	inst.alarm.NoData = dark
	kind := citywarden.CameBack
	if dark {
		kind = citywarden.WentDark
	}
	e.emit(inst, e.now, kind, nil)
}

// order carries out what a person ordered. Orders that make no sense any more
// (an alarm of an older episode, one that is acknowledged already) change
// nothing.
func (e *Engine) order(o *citywarden.AlarmOrder) {
	if o.Kind == citywarden.OrderOutOfService || o.Kind == citywarden.OrderInService {
		e.service(o)
		return
	}
	inst := e.byAlarm[o.Alarm]
	if inst == nil || inst.dropped {
		return
	}
	if o.Kind != citywarden.OrderReset {
		if kind, ok := inst.do(o, fromMS(e.now)); ok {
			e.tell(inst, e.now, kind, o.By, cmp.Or(o.Text, o.Reason))
			e.rearm(inst)
		}
		return
	}
	// Without data an alarm would stay for ever: a person may end it.
	if !inst.open || !inst.alarm.Latched && !inst.alarm.NoData {
		return
	}
	for i := range inst.levels {
		inst.levels[i] = levelState{}
	}
	reason := "reset by " + o.By
	if o.Reason != "" {
		reason += ": " + o.Reason
	}
	e.close(inst, e.now, reason, o.By)
	e.rearm(inst)
}

// orphan notes that the instance is to be closed with the next record: its
// device or rule is gone.
func (e *Engine) orphan(inst *instance, reason string) {
	e.orphans = append(e.orphans, orphan{inst, reason})
}

func (e *Engine) closeOrphans(at int64) {
	for _, g := range e.empty {
		if len(g.members) == 0 {
			delete(g.run.groups, g.key)
			if g.inst != nil {
				e.orphan(g.inst, "group has no members")
			}
		}
	}
	e.empty = nil
	if len(e.orphans) == 0 {
		return
	}
	list := e.orphans
	e.orphans = nil
	abated := e.detach(list)
	slices.SortStableFunc(list, func(a, b orphan) int {
		return cmp.Or(cmp.Compare(a.inst.run.rule.ID, b.inst.run.rule.ID), cmp.Compare(a.inst.entity, b.inst.entity))
	})
	for _, o := range list {
		if o.inst.dropped {
			continue
		}
		if o.inst.open {
			e.close(o.inst, max(at, o.inst.clock), o.reason, "")
		}
		if o.inst.shelved() != 0 {
			o.inst.amend(func(a *citywarden.Alarm) { a.Unshelve() })
			e.tell(o.inst, at, citywarden.Unshelved, "", o.reason)
		}
		e.comeBack(o.inst, at, "", o.reason)
		e.forgetOrphan(o.inst)
	}
	for _, parent := range abated {
		e.abate(parent, at)
	}
}

// forgetOrphan drops the instance but remembers how many episodes the entity
// had, so that an alarm's id is never used twice.
func (e *Engine) forgetOrphan(inst *instance) {
	if inst.alarm.ID != "" {
		delete(e.byAlarm, inst.alarm.ID)
	}
	e.forget(inst)
	if inst.alarm.Episode > 0 {
		inst.run.episodes[inst.entity] = inst.alarm.Episode
	}
}
