package rules

import (
	"cmp"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// Options are the surroundings of an engine. The zero value works: devices
// become known with their first message, and no day is a holiday.
type Options struct {
	Devices Devices
	Holiday func(day time.Time) bool // for schedules with holidays
}

// Engine turns log entries into transitions. It is not safe for concurrent use.
type Engine struct {
	set      *Set
	opt      Options
	now      int64 // arrival clock, ms: Record.At of the newest record, or the timer that fires
	up       int64 // since when the platform has been running, ms
	pos      citywarden.Position
	logged   time.Time
	devices  map[citywarden.DeviceID]*device
	heard    map[*citywarden.Device]*device // by how it was registered when it was last heard
	last     *device                        // whose message was the last one
	next     *device                        // whose message is probably the next
	known    []*device                      // in the order in which they became known
	gateways map[citywarden.DeviceID]bool   // behind which devices are, or were
	newest   []byte                         // the last snapshot; nil when it is not kept
	written  []byte                         // its rules
	spare    []byte                         // the snapshot before
	size     int                            // of the last snapshot, bytes; 0 before the first
	runs     []*run                         // by rule
	retired  []*run                         // of rules that are gone: their alarms until they are closed, and their episodes for ever
	timers   timerHeap
	sweepAt  int // how many timers have them swept
	byAlarm  map[citywarden.AlarmID]*instance
	aside    map[*instance]bool // out of service by themselves
	out      []citywarden.Transition
	orphans  []orphan
	changed  []*rule           // since the last record, or new
	dirty    []*instance       // of rules that changed
	empty    []*group          // that lost their last member
	retied   []*instance       // that have other inhibitors now
	anew     []*device         // whose silence or waiting readings may matter to other rules now
	recalled []recalled        // since the last record
	before   []citywarden.Rule // that ran before Restore: id and version, "" for one that was not reviewed
	scratch  env
	durs     map[string]int64
	reads    []citywarden.Reading
	hits     []int // bindings to evaluate; a stack, as one evaluation may lead to another
}

// run is the state of one rule.
type run struct {
	rule   *rule
	sched  *schedule
	zone   zone
	insts  map[string]*instance // by entity
	list   []*instance          // the same ones
	pages  []page               // of list, as in the last snapshot
	slab   slab                 // makes them
	spare  []*rare              // that instances don't need any more
	groups map[string]*group

	fronts map[string]*front // of a rule with storm: by the value of its attribute

	inhibitors []*bond // with the rules that inhibit it
	inhibits   []*bond // with the rules that it inhibits

	// episodes counts those of entities whose instance was dropped
	episodes map[string]uint64
}

// add takes up an instance.
func (x *run) add(inst *instance) {
	inst.place = int32(len(x.list))
	x.list = append(x.list, inst)
	x.insts[inst.entity] = inst
	if len(x.list) > len(x.pages)*pageSize {
		x.pages = append(x.pages, page{})
	}
	inst.touch()
}

// remove is the opposite of add.
func (x *run) remove(inst *instance) {
	last := len(x.list) - 1
	moved := x.list[last]
	moved.touch() // its page lost it
	x.list[inst.place], moved.place = moved, inst.place
	moved.touch()
	x.list[last], x.list = nil, x.list[:last]
	x.pages = x.pages[:(last+pageSize-1)/pageSize]
	if x.insts[inst.entity] == inst {
		delete(x.insts, inst.entity)
	}
}

// orphan is an instance that is to be closed.
type orphan struct {
	inst   *instance
	reason string
}

// outage is how much later than its deadline a timer may fire before the
// engine concludes that the platform was down in between, ms.
const outage = int64(citywarden.Outage / time.Millisecond)

// New returns an engine that has seen nothing yet.
func New(set *Set, opt Options) *Engine {
	e := &Engine{
		set: set, opt: opt,
		devices: map[citywarden.DeviceID]*device{}, gateways: map[citywarden.DeviceID]bool{},
		heard:   map[*citywarden.Device]*device{},
		byAlarm: map[citywarden.AlarmID]*instance{},
		aside:   map[*instance]bool{},
		durs:    map[string]int64{},
	}
	for _, r := range slices.Concat(set.rules, set.storms) {
		x := &run{rule: r, insts: map[string]*instance{}, groups: map[string]*group{}, fronts: map[string]*front{}, episodes: map[string]uint64{}}
		x.zone.loc = defaultLocation()
		if r.schedule != nil {
			s := *r.schedule
			x.sched, x.zone.loc = &s, s.loc
		}
		e.runs = append(e.runs, x)
	}
	e.bonds()
	e.enlist()
	return e
}

func defaultLocation() *time.Location {
	loc, err := time.LoadLocation(DefaultZone)
	if err != nil { // the zones are embedded
		return time.FixedZone(DefaultZone, 8*3600)
	}
	return loc
}

// enlist binds all registered devices.
func (e *Engine) enlist() {
	if e.opt.Devices == nil {
		return
	}
	var all []*citywarden.Device
	e.opt.Devices.Each(func(d *citywarden.Device, _ *citywarden.Model) { all = append(all, d) })
	slices.SortFunc(all, func(a, b *citywarden.Device) int { return cmp.Compare(a.ID, b.ID) })
	for _, d := range all {
		e.bind(d)
	}
	for _, d := range all { // a gateway may come after those behind it
		if e.bars(d) && !e.devices[d.ID].barred {
			e.bind(d)
		}
	}
}

func (e *Engine) env(d *device, g *group, r *rule, at int64) *env {
	e.scratch = env{e: e, d: d, g: g, at: at, now: e.now, tz: &e.runs[r.index].zone}
	return &e.scratch
}

// parseDuration returns the duration that an attribute says, ms, -1 when it
// says none.
func (e *Engine) parseDuration(s string) int64 {
	if w, ok := e.durs[s]; ok {
		return w
	}
	w := int64(-1)
	if d, err := citywarden.ParseDuration(s); err == nil && d > 0 && d <= maxDuration {
		w = d.Std().Milliseconds()
	}
	if len(e.durs) < 10_000 {
		e.durs[s] = w
	}
	return w
}

// Step takes the next entry of the log and returns what it changed, in order.
// First, deadlines that fell due before the entry fire. The transitions belong
// to the caller, and so does the entry.
func (e *Engine) Step(x *citywarden.Entry) []citywarden.Transition {
	e.out = nil
	e.pos, e.logged = x.Position, x.At
	at := max(ms(x.At), e.now)
	heard := at // until when, at the latest, messages were taken
	if x.Lasted > 0 {
		heard = max(min(ms(x.Since()), at), e.now)
	}
	if e.up == 0 {
		e.now, e.up = at, at
		for _, id := range slices.Sorted(maps.Keys(e.devices)) {
			d := e.devices[id]
			if d.since == 0 {
				d.since = at
			}
			e.armQuiet(d)
		}
	} else if e.soon(heard-outage-1) && e.due(heard-outage-1) > 0 {
		e.up = heard
	}
	if e.unsettled() {
		e.closeOrphans(at)
		e.unheard(x, heard, at)
		e.fire(at - 1)
		e.now = at
		e.await()
		e.review()
		e.settleTies(at)
		e.lookAnew()
	} else if e.unheard(x, heard, at); e.soon(at - 1) {
		e.fire(at - 1)
	}
	e.now = at
	switch x.Kind {
	case citywarden.RecordUplink:
		if x.Device != nil {
			e.uplink(x)
		}
	case citywarden.RecordOrder:
		if x.Order != nil {
			e.order(x.Order)
		}
	case citywarden.RecordDeaf: // as after an outage, nobody is silent for what was not heard
		e.up = at
	}
	if e.soon(at) {
		e.fire(at)
	}
	return e.out
}

// unheard fires what fell due before heard, since when nobody was heard as x tells: what falls due from there on does
// not do so for want of a message.
func (e *Engine) unheard(x *citywarden.Entry, heard, at int64) {
	if x.Lasted == 0 {
		return
	}
	if e.soon(heard - 1) {
		e.fire(heard - 1)
	}
	e.up = at
}

// uplink takes the readings of a message into the history and evaluates them.
func (e *Engine) uplink(x *citywarden.Entry) {
	d := e.next
	if d == nil || d.heardAs != x.Device {
		d = e.another(x.Device)
	}
	e.last, e.next = d, d.then
	if !x.Stated.IsZero() {
		d.skew = x.Stated.UnixMilli() + x.Ahead.Milliseconds() - e.now
	}
	if len(x.Readings) == 0 {
		e.sign(d, x)
		return
	}
	spoke := x.Uplink == nil || x.Uplink.Protocol != citywarden.ProtocolWill
	if spoke {
		d.arrived = e.now
	}
	if d.plan == nil {
		e.foreignEvents(d, x)
		return
	}
	if spoke && d.silent(e.now) {
		e.speaks(d)
	}
	rs := x.Readings
	if len(rs) > 1 {
		rs = e.ordered(rs)
	}
	// A reading from the future counts at its arrival; all are of a clock that is behind that of the log by so much.
	ahead := x.Ahead.Milliseconds()
	next := min(ms(rs[0].Time)+ahead, e.now)
	last := next
	if len(rs) > 1 {
		last = min(ms(rs[len(rs)-1].Time)+ahead, e.now)
	}
	if last >= d.newestTS {
		d.lag = e.now - last
	}
	full, unread := uint64(0), false // metrics whose rings are; a moment at which no rule reads anything
	for i := 0; i < len(rs); {
		ts := next
		p := point{ts: ts, arr: e.now}
		current, stirs := uint64(0), uint64(0)
		for {
			m := e.remember(d, &rs[i], ts)
			p.mask |= m.mask
			current |= m.current
			stirs |= m.stirs
			full |= m.full
			if i++; i == len(rs) {
				break
			}
			if next = min(ms(rs[i].Time)+ahead, e.now); next != ts {
				break
			}
		}
		if p.mask != 0 {
			e.arrive(d, p, current, stirs)
		}
		d.newestTS = max(d.newestTS, ts)
		unread = unread || p.mask == 0
	}
	if unread {
		for k, late := range d.plan.lates {
			if l := &d.lanes[k]; len(l.wait) > 0 && l.wait[0].ts <= d.newestTS-late {
				e.release(d, k, d.newestTS-late)
				e.armLane(d, k)
			}
		}
	}
	if len(d.plan.onAny) > 0 {
		e.evaluateAny(d)
	}
	if full != 0 {
		d.trim(full)
	}
}

// another returns the device that is registered as reg, which is not the one that
// was to come next, and has it come after the last one from now on.
func (e *Engine) another(reg *citywarden.Device) *device {
	d := e.heard[reg]
	if d == nil {
		d = e.hear(reg)
	}
	if e.last != nil {
		e.last.then = d
	}
	return d
}

// sign takes a message without readings.
func (e *Engine) sign(d *device, x *citywarden.Entry) {
	alive := x.Uplink != nil && x.Uplink.Topic == citywarden.DeviceConnected
	if alive {
		d.alive = e.now
	}
	if d.plan == nil || !alive && x.Stated.IsZero() {
		return
	}
	if alive {
		e.speaks(d)
	}
	e.evaluateAny(d)
}

// ordered returns rs in the order of event time, until the next call.
func (e *Engine) ordered(rs []citywarden.Reading) []citywarden.Reading {
	if slices.IsSortedFunc(rs, byTime) {
		return rs
	}
	e.reads = append(e.reads[:0], rs...)
	slices.SortStableFunc(e.reads, byTime)
	return e.reads
}

// silent reports whether it changes something that d is heard at now.
func (d *device) silent(now int64) bool {
	return d.dark || d.hush > 0 && (d.quietDue == 0 || d.quietDue > now+d.hush)
}

// speaks ends the silence of d.
func (e *Engine) speaks(d *device) {
	if d.hush > 0 && (d.quietDue == 0 || d.quietDue > e.now+d.hush) {
		e.armQuiet(d)
	}
	if d.dark {
		d.dark = false
		e.darkness(d)
	}
}

// hear returns the device that is registered as reg, and takes over how it is
// when that changed. From now on heard has it.
func (e *Engine) hear(reg *citywarden.Device) *device {
	d := e.devices[reg.ID]
	if d == nil || d.gone || d.reg == nil || d.reg != reg && !d.reg.Updated.Equal(reg.Updated) {
		d = e.rebind(reg)
		e.closeOrphans(e.now)
	}
	delete(e.heard, d.heardAs)
	d.heardAs = reg
	e.heard[reg] = d
	return d
}

// evaluateAny evaluates the rules that run on the arrival clock.
func (e *Engine) evaluateAny(d *device) {
	for _, i := range d.plan.onAny {
		e.evaluate(d.plan.bindings[i], d, e.now)
	}
}

func byTime(a, b citywarden.Reading) int { return a.Time.Compare(b.Time) }

// remembered is what became of a reading, as bits of its metric: all 0 when no rule
// reads it or it can't be used.
type remembered struct {
	mask    uint64
	current uint64 // when no newer one of the metric is known
	stirs   uint64 // when it may raise a rule that doesn't wait for late data
	full    uint64 // when the ring of the metric is
}

// remember puts a reading into the history.
func (e *Engine) remember(d *device, r *citywarden.Reading, ts int64) (m remembered) {
	if r.Quality != citywarden.Good && r.Quality != citywarden.Clamped {
		return m
	}
	p := d.plan
	i := d.next
	if i >= len(p.names) || p.names[i] != r.Metric {
		if i = p.metric(r.Metric); i < 0 {
			return m
		}
	}
	d.next = i + 1
	mem := &p.memory[i]
	f := r.Value.Float()
	if r.Value.Kind() != mem.kind || f-f != 0 { // NaN or infinite
		return m
	}
	var text *string
	if mem.kind == citywarden.KindText {
		text = e.text(d, i, r, ts)
	}
	if mem.keep < 0 {
		return m
	}
	g := d.rings[i]
	if g == nil {
		g = &ring{}
		d.rings[i] = g
	}
	m.mask, m.current = mem.bit, mem.bit
	if x := newSample(ts, e.now, f); text != nil || !g.push(x) {
		if !g.insert(x, text, mem) {
			d.late++
			return remembered{}
		}
		if g.s[len(g.s)-1].ts != ts {
			m.current = 0
		}
	}
	if f < mem.low || f > mem.high {
		m.stirs = m.mask
	}
	if g.full() {
		m.full = m.mask
	}
	return m
}

// text returns what is remembered of a text of metric i.
func (e *Engine) text(d *device, i int, r *citywarden.Reading, ts int64) *string {
	t := beginning(r.Value.String())
	if i == d.plan.event {
		d.event(t, ts)
	}
	return &t
}

// foreignEvents remembers the events of a device that no rule selects.
func (e *Engine) foreignEvents(d *device, x *citywarden.Entry) {
	for _, r := range x.Readings {
		if r.Metric == "event" && r.Value.Kind() == citywarden.KindText {
			d.event(beginning(r.Value.String()), min(ms(r.Time)+x.Ahead.Milliseconds(), e.now))
		}
	}
}

// beginning returns what is remembered of a text.
func beginning(t string) string {
	if len(t) <= textBytes {
		return t
	}
	return strings.Clone(t[:textBytes])
}

// arrive evaluates a point in the lanes without delay, and lets it wait in the
// others. One that is older than the device's newest reading by more than late
// is history only, unless it is the newest of its metric.
func (e *Engine) arrive(d *device, p point, current, stirs uint64) {
	for k := range d.lanes {
		l, late := &d.lanes[k], d.plan.lates[k]
		if p.ts < d.newestTS-late {
			if current == 0 {
				d.late++
				continue
			}
			e.evaluateLate(d, k, point{ts: p.ts, arr: p.arr, mask: current})
			continue
		}
		if late == 0 {
			l.done = p.ts
			if stirs != 0 || len(d.awake) > 0 {
				e.evaluatePoint(d, k, p)
			}
			continue
		}
		l.add(p)
		e.release(d, k, max(d.newestTS, p.ts)-late)
		if len(l.wait) > maxWaiting {
			e.release(d, k, l.wait[len(l.wait)-maxWaiting-1].ts)
		}
		e.armLane(d, k)
	}
}

// add has p wait.
func (l *lane) add(p point) {
	i, found := slices.BinarySearchFunc(l.wait, p.ts, func(a point, ts int64) int { return cmp.Compare(a.ts, ts) })
	if found {
		l.wait[i].mask |= p.mask
		return
	}
	l.wait = slices.Insert(l.wait, i, p)
}

// release evaluates the points of a lane up to that event time.
func (e *Engine) release(d *device, k int, upTo int64) {
	l := &d.lanes[k]
	for len(l.wait) > 0 && l.wait[0].ts <= upTo {
		p := l.wait[0]
		l.wait = l.wait[1:]
		l.done = max(l.done, p.ts)
		e.evaluatePoint(d, k, p)
	}
	if len(l.wait) == 0 {
		l.wait = nil
	}
}

// armLane sets the timer that releases what waits when nothing newer comes.
func (e *Engine) armLane(d *device, k int) {
	l := &d.lanes[k]
	due := int64(0)
	for i := range l.wait {
		if t := l.wait[i].arr + d.plan.lates[k]; due == 0 || t < due {
			due = t
		}
	}
	if due != l.due && due > 0 {
		e.push(timer{due: due, kind: timerLane, d: d, lane: k})
	}
	l.due = due
}

// laneDue is the timer of armLane.
func (e *Engine) laneDue(d *device, k int) {
	l := &d.lanes[k]
	l.due = 0
	upTo := int64(math.MinInt64)
	for i := range l.wait {
		if l.wait[i].arr+d.plan.lates[k] <= e.now {
			upTo = l.wait[i].ts
		}
	}
	e.release(d, k, upTo)
	e.armLane(d, k)
}

// evaluatePoint evaluates the rules of lane k that p may concern.
func (e *Engine) evaluatePoint(d *device, k int, p point) {
	begin := len(e.hits)
	e.hits = e.candidates(e.hits, d, k, p)
	for i, end := begin, len(e.hits); i < end; i++ {
		e.evaluate(d.plan.bindings[e.hits[i]], d, p.ts)
	}
	e.hits = e.hits[:begin]
}

// evaluateLate is evaluatePoint for values that are the newest of their metrics
// and older than others of the device: each rule is evaluated as of the newest
// of what it reads, as if there were no other rules.
func (e *Engine) evaluateLate(d *device, k int, p point) {
	begin := len(e.hits)
	e.hits = e.candidates(e.hits, d, k, p)
	for m := p.mask; m != 0; m &= m - 1 {
		e.hits = append(e.hits, d.plan.watches[k][bits.TrailingZeros64(m)].wide...)
	}
	slices.Sort(e.hits[begin:])
	e.hits = e.hits[:begin+len(slices.Compact(e.hits[begin:]))]
	for i, end := begin, len(e.hits); i < end; i++ {
		b := d.plan.bindings[e.hits[i]]
		e.evaluate(b, d, max(p.ts, d.reached(b)))
	}
	e.hits = e.hits[:begin]
}

// reached returns the newest event time of what b reads, of what was evaluated.
func (d *device) reached(b *binding) int64 {
	done, ts := d.lanes[b.lane].done, int64(math.MinInt64)
	for m := b.reads; m != 0; m &= m - 1 {
		i := bits.TrailingZeros64(m)
		for last := i; i <= last || last == 63 && i < len(d.rings); i++ { // those beyond 63 share a bit
			if s := d.rings[i].value(done, 0, true); s != nil {
				ts = max(ts, s.ts)
			}
		}
	}
	return ts
}

// evaluate evaluates the rule of b because device d has something new at ts.
func (e *Engine) evaluate(b *binding, d *device, ts int64) {
	if d.skips(b) {
		return
	}
	if g := d.group(b); g != nil {
		e.evaluateGroup(g, b, d, ts)
		return
	}
	e.evaluateOwn(b, d, ts)
	if b.prog.adj {
		for _, o := range d.others {
			if o.plan == nil || o.gone {
				continue
			}
			if ob := o.plan.binding(b.rule); ob != nil && !o.skips(ob) && o.arrived > 0 {
				e.evaluateFor(o, ob, ts)
			}
		}
	}
}

// binding returns the binding of r, nil when r does not select the model.
func (p *plan) binding(r *rule) *binding { return p.byRule[r] }

func (e *Engine) evaluateOwn(b *binding, d *device, ts int64) {
	inst := d.instance(b)
	if inst.resting() && !b.prog.raises(e.env(d, nil, b.rule, ts)) {
		return
	}
	if inst == nil {
		inst = e.instance(b, d)
	}
	ts = max(ts, inst.clock)
	inst.trigger = d
	e.advance(inst, ts-1)
	e.apply(inst, ts)
	e.rearm(inst)
}

// evaluateFor evaluates a device's rule because a neighbour has something new
// at ts: at once when the device's own readings up to ts must have come, else
// when they must have.
func (e *Engine) evaluateFor(d *device, b *binding, ts int64) {
	inst := d.instance(b)
	if inst == nil {
		inst = e.instance(b, d)
	}
	e.wake(inst, ts)
}

// maxWakes bounds the event times that an instance waits for.
const maxWakes = 256

// wake evaluates the instance at ts, now or as soon as it can be.
func (e *Engine) wake(inst *instance, ts int64) {
	ts = max(ts, inst.clock)
	if ts+e.delay(inst) < e.now {
		e.catchUp(inst, ts)
		e.advance(inst, ts-1)
		e.apply(inst, max(ts, inst.clock))
	} else {
		o := inst.own()
		if i, found := slices.BinarySearch(o.wakes, ts); !found {
			o.wakes = slices.Insert(o.wakes, i, ts)
		}
		if len(o.wakes) > maxWakes {
			o.wakes = slices.Delete(o.wakes, 1, 2) // the newest matters, and the oldest sets the timer
		}
		inst.touch()
	}
	e.rearm(inst)
}

func (e *Engine) evaluateGroup(g *group, b *binding, d *device, ts int64) {
	ts = max(ts, g.clock())
	inst := g.inst
	g.fresh = false
	if g.census != nil {
		g.census.unasked = 0
	}
	if g.pace() > 0 {
		if inst == nil {
			inst = e.groupInstance(g, b.prog)
		}
		o := inst.own()
		waits := len(o.wakes) > 0
		ts = max(ts, inst.clock)
		inst.trigger, inst.lag = d, min(d.lag, max(e.now-b.rule.late-ts, 0)) // ts may be that of a member whose clock is ahead of d's
		inst.touch()
		if o.wakes = append(o.wakes[:0], ts); !waits {
			e.rearm(inst)
		}
		return
	}
	if inst.resting() && !b.prog.raises(e.env(nil, g, b.rule, ts)) {
		return
	}
	if inst == nil {
		inst = e.groupInstance(g, b.prog)
	}
	inst.trigger = d
	inst.lag = d.lag
	e.advance(inst, ts-1)
	e.apply(inst, max(ts, inst.clock))
	e.rearm(inst)
}

// clock returns the newest event time of what the rule reads of a member and
// was evaluated: the group is never evaluated as of an earlier one.
func (g *group) clock() int64 {
	if g.census != nil {
		return g.census.done
	}
	at := int64(math.MinInt64)
	for _, m := range g.members {
		at = max(at, m.reached(m.plan.binding(g.run.rule)))
	}
	return at
}

// pace is how far apart a group is evaluated whose members take long to look at,
// ms; 0 for one that every reading of a member evaluates. It takes less than a
// sixth of a processor like that.
func (g *group) pace() int64 {
	if len(g.members) < censusFrom {
		return 0
	}
	each := g.members[0].plan.binding(g.run.rule).prog.each
	cost := min(len(g.members)*each, maxGroupCost)
	if cost <= maxCost {
		return 0
	}
	return int64(cost / 20_000)
}

// delay is how long after an event time of the instance the readings up to it
// must have arrived, ms.
func (e *Engine) delay(inst *instance) int64 {
	r := inst.run.rule
	switch {
	case r.arrival:
		return 0
	case inst.d != nil:
		return inst.d.lag + r.late
	}
	return inst.lag + r.late
}

// Deadline returns when the next timer is due by the arrival clock; zero when
// none is set. Some timers only look whether something is due.
func (e *Engine) Deadline() time.Time { return fromMS(e.due(never)) }

// unsettled reports whether rules or devices changed in a way that the next
// record brings to effect, whatever it is.
func (e *Engine) unsettled() bool {
	return len(e.orphans)+len(e.changed)+len(e.dirty)+len(e.empty)+len(e.retied)+len(e.anew)+len(e.recalled) > 0
}

// Now returns Record.At of the newest record, in whole milliseconds.
func (e *Engine) Now() time.Time { return fromMS(e.now) }

// Stats counts what an engine holds.
type Stats struct {
	Rules     int    `json:"rules"`
	Devices   int    `json:"devices"`
	Instances int    `json:"instances"` // pairs of rule and entity that have a state
	Active    int    `json:"active"`    // open alarms
	Timers    int    `json:"timers"`
	Late      uint64 `json:"late"` // readings that came too late to be evaluated
}

// Stats returns the counts of now. It visits every device.
func (e *Engine) Stats() Stats {
	s := Stats{Rules: len(e.runs), Timers: len(e.timers)}
	for _, d := range e.devices {
		if !d.gone {
			s.Devices++
		}
		s.Late += d.late
	}
	for _, r := range e.runs {
		s.Instances += len(r.insts)
		for _, inst := range r.insts {
			if inst.open {
				s.Active++
			}
		}
	}
	return s
}

// timer is an entry of the heap; it is void when its target is set to another time.
type timer struct {
	due  int64
	kind timerKind
	d    *device
	lane int
	inst *instance
}

type timerKind uint8

const (
	timerLane timerKind = iota
	timerInstance
	timerQuiet
	timerService
)

// void reports whether the timer was superseded.
func (t *timer) void() bool {
	switch t.kind {
	case timerLane:
		return t.d.plan == nil || t.lane >= len(t.d.lanes) || t.d.lanes[t.lane].due != t.due
	case timerInstance:
		return t.inst.dropped || t.inst.due != t.due
	case timerService:
		return t.d.out == nil || ms(t.d.out.Until) != t.due
	}
	return t.d.quietDue != t.due
}

// compare orders timers by what they are, never by when they were set, so that
// a restored engine fires them in the same order.
func (t *timer) compare(o *timer) int {
	if c := cmp.Or(cmp.Compare(t.due, o.due), cmp.Compare(t.kind, o.kind)); c != 0 {
		return c
	}
	if t.kind == timerInstance {
		return cmp.Or(cmp.Compare(t.inst.run.rule.ID, o.inst.run.rule.ID), cmp.Compare(t.inst.entity, o.inst.entity))
	}
	return cmp.Or(cmp.Compare(t.d.id, o.d.id), cmp.Compare(t.lane, o.lane))
}

// timerHeap is a heap, whose methods hand over timers as they are: container/heap's
// would take memory for each.
type timerHeap []timer

func (h *timerHeap) push(t timer) {
	*h = append(*h, t)
	l := *h
	i := len(l) - 1
	for i > 0 {
		up := (i - 1) / 2
		if t.compare(&l[up]) >= 0 {
			break
		}
		l[i], i = l[up], up
	}
	l[i] = t
}

// pop takes the first timer away; there has to be one.
func (h *timerHeap) pop() timer {
	l := *h
	first, last := l[0], len(l)-1
	t := l[last]
	l[last] = timer{}
	l = l[:last]
	*h = l
	if last == 0 {
		return first
	}
	i := 0
	for {
		down := 2*i + 1
		if down >= last {
			break
		}
		if down+1 < last && l[down+1].compare(&l[down]) < 0 {
			down++
		}
		if t.compare(&l[down]) <= 0 {
			break
		}
		l[i], i = l[down], down
	}
	l[i] = t
	return first
}

func (e *Engine) push(t timer) {
	if len(e.timers) >= e.sweepAt {
		e.sweep()
	}
	e.timers.push(t)
}

// sweep drops the timers that are void or there twice. Those of a deadline that
// moves with every message would lie there until it is due.
func (e *Engine) sweep() {
	list := slices.DeleteFunc(e.timers, func(t timer) bool { return t.void() })
	slices.SortFunc(list, func(a, b timer) int { return a.compare(&b) })
	e.timers = slices.CompactFunc(list, func(a, b timer) bool { return a.compare(&b) == 0 }) // ascending, so a heap
	e.sweepAt = 2*len(e.timers) + 1000
}

// soon reports whether a timer may be due at upTo or before.
func (e *Engine) soon(upTo int64) bool { return len(e.timers) > 0 && e.timers[0].due <= upTo }

// due returns when the next timer is due, 0 for none at upTo or before.
func (e *Engine) due(upTo int64) int64 {
	for e.soon(upTo) {
		if !e.timers[0].void() {
			return e.timers[0].due
		}
		e.timers.pop()
	}
	return 0
}

// fire fires the timers that are due at upTo or before, in order.
func (e *Engine) fire(upTo int64) {
	for {
		due := e.due(upTo)
		if due == 0 {
			return
		}
		t := e.timers.pop()
		e.now = max(e.now, due)
		switch t.kind {
		case timerLane:
			e.laneDue(t.d, t.lane)
		case timerInstance:
			e.instanceDue(t.inst)
		case timerQuiet:
			e.silence(t.d)
		case timerService:
			e.serviceDue(t.d)
		}
	}
}
