package rules

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/citywarden/citywarden"
)

// snapshotVersion is the first byte of a snapshot. Those of older versions are
// read, too: what they lack is as if it had not been.
const snapshotVersion = 2

var errSnapshot = errors.New("snapshot is damaged")

// codec writes or reads a snapshot with the same code: every method writes what
// its argument points at, or sets it.
type codec struct {
	buf     []byte
	reading bool
	version byte
	err     error
}

func (c *codec) fail() {
	if c.err == nil {
		c.err = errSnapshot
	}
	c.buf = nil
}

func (c *codec) uint(p *uint64) {
	if !c.reading {
		c.buf = binary.AppendUvarint(c.buf, *p)
		return
	}
	v, n := binary.Uvarint(c.buf)
	if n <= 0 {
		c.fail()
		return
	}
	*p, c.buf = v, c.buf[n:]
}

func (c *codec) int(p *int64) {
	if !c.reading {
		c.buf = binary.AppendVarint(c.buf, *p)
		return
	}
	v, n := binary.Varint(c.buf)
	if n <= 0 {
		c.fail()
		return
	}
	*p, c.buf = v, c.buf[n:]
}

func (c *codec) byte(p *byte) {
	if !c.reading {
		c.buf = append(c.buf, *p)
		return
	}
	if len(c.buf) == 0 {
		c.fail()
		return
	}
	*p, c.buf = c.buf[0], c.buf[1:]
}

func (c *codec) bool(p *bool) {
	var b byte
	if *p {
		b = 1
	}
	c.byte(&b)
	*p = b == 1
}

func (c *codec) float(p *float64) {
	if !c.reading {
		c.buf = binary.LittleEndian.AppendUint64(c.buf, math.Float64bits(*p))
		return
	}
	if len(c.buf) < 8 {
		c.fail()
		return
	}
	*p, c.buf = math.Float64frombits(binary.LittleEndian.Uint64(c.buf)), c.buf[8:]
}

// count writes or reads the length of a list.
func (c *codec) count(n int) int {
	u := uint64(n)
	c.uint(&u)
	if c.reading && u > uint64(len(c.buf)) { // every element takes a byte at least
		c.fail()
		return 0
	}
	if c.err != nil {
		return 0
	}
	return int(u)
}

func text[S ~string](c *codec, p *S) {
	n := c.count(len(*p))
	if !c.reading {
		c.buf = append(c.buf, *p...)
		return
	}
	if c.err == nil {
		*p, c.buf = S(c.buf[:n]), c.buf[n:]
	}
}

func list[T any](c *codec, p *[]T, each func(*T)) {
	n := c.count(len(*p))
	if c.reading {
		*p = nil
		if n > 0 {
			*p = make([]T, 0, min(n, 1<<16))
		}
	}
	for i := 0; i < n && c.err == nil; i++ {
		if c.reading {
			var x T
			*p = append(*p, x)
		}
		each(&(*p)[i])
	}
}

// savedRule is what the snapshot says of a rule, enough to close its alarms
// when it is gone.
type savedRule struct {
	id       citywarden.RuleID
	version  string
	mode     string
	order    bool
	caseOrd  citywarden.CaseOrder
	insts    []savedInstance
	episodes []savedEpisode
}

type savedEpisode struct {
	entity string
	n      uint64
}

type savedInstance struct {
	entity, key     string
	group           bool
	clock, lag, due int64
	trigger         citywarden.DeviceID
	wakes, flips    []int64
	inhibited, open bool
	under           citywarden.AlarmID
	levels          []savedLevel
	alarm           *citywarden.Alarm
	n               uint64
}

type savedLevel struct {
	severity byte
	levelState
}

type savedGroup struct {
	rule  citywarden.RuleID
	key   string
	clock int64
}

// savedDevice is what the snapshot says of a device.
type savedDevice struct {
	id    citywarden.DeviceID
	model citywarden.ModelName
	d     *device // its plain fields
	rings []savedRing
	lanes []savedLane
}

type savedRing struct {
	metric citywarden.MetricName
	s      []sample
}

type savedLane struct {
	late int64
	lane
}

type saved struct {
	now, up int64
	devices []savedDevice
	rules   []savedRule
	groups  []savedGroup
}

func (c *codec) all(s *saved) {
	c.int(&s.now)
	c.int(&s.up)
	list(c, &s.devices, c.device)
	list(c, &s.groups, func(g *savedGroup) {
		text(c, &g.rule)
		text(c, &g.key)
		c.int(&g.clock)
	})
	list(c, &s.rules, func(r *savedRule) {
		text(c, &r.id)
		text(c, &r.version)
		text(c, &r.mode)
		c.bool(&r.order)
		text(c, &r.caseOrd.Class)
		merge := int64(r.caseOrd.Merge)
		c.int(&merge)
		r.caseOrd.Merge = citywarden.Duration(merge)
		c.bool(&r.caseOrd.WorkOrder)
		list(c, &r.insts, c.instance)
		list(c, &r.episodes, func(e *savedEpisode) {
			text(c, &e.entity)
			c.uint(&e.n)
		})
	})
}

func (c *codec) device(s *savedDevice) {
	text(c, &s.id)
	text(c, &s.model)
	if c.reading {
		s.d = &device{}
	}
	d := s.d
	for _, p := range []*int64{&d.since, &d.arrived, &d.newestTS, &d.lag, &d.quietDue} {
		c.int(p)
	}
	if c.version >= 2 {
		c.int(&d.skew)
	}
	c.bool(&d.dark)
	c.uint(&d.late)
	list(c, &d.events, func(e *eventAt) {
		text(c, &e.name)
		c.int(&e.ts)
	})
	list(c, &s.rings, func(r *savedRing) {
		text(c, &r.metric)
		var ts int64
		list(c, &r.s, func(x *sample) {
			step, lag := x.ts-ts, x.arr-x.ts
			c.int(&step)
			c.int(&lag)
			ts += step
			x.ts, x.arr = ts, ts+lag
			c.float(&x.v)
			has := x.s != nil
			c.bool(&has)
			if has {
				t := x.text()
				text(c, &t)
				x.s = &t
			}
		})
	})
	list(c, &s.lanes, func(l *savedLane) {
		c.int(&l.late)
		c.int(&l.done)
		c.int(&l.due)
		list(c, &l.wait, func(p *point) {
			c.int(&p.ts)
			c.int(&p.arr)
			c.uint(&p.mask)
		})
	})
}

func (c *codec) instance(s *savedInstance) {
	text(c, &s.entity)
	text(c, &s.key)
	c.bool(&s.group)
	c.int(&s.clock)
	c.int(&s.lag)
	c.int(&s.due)
	text(c, &s.trigger)
	list(c, &s.wakes, c.int)
	list(c, &s.flips, c.int)
	c.bool(&s.inhibited)
	c.bool(&s.open)
	c.uint(&s.n)
	list(c, &s.levels, func(l *savedLevel) {
		c.byte(&l.severity)
		c.byte((*byte)(&l.state))
		if l.state > clearing {
			c.fail()
		}
		c.int(&l.since)
		c.bool(&l.stalled)
	})
	if c.reading {
		s.alarm = &citywarden.Alarm{}
	}
	a := s.alarm
	c.uint(&a.Episode)
	text(c, &a.ID)
	if a.ID == "" {
		return
	}
	text(c, &a.Rule)
	text(c, &a.Title.ZH)
	text(c, &a.Title.EN)
	text(c, &a.Entity)
	text(c, &a.Device)
	list(c, &a.Members, func(id *citywarden.DeviceID) { text(c, id) })
	c.byte((*byte)(&a.Severity))
	text(c, &a.State)
	for _, p := range []*bool{&a.Clearing, &a.Latched, &a.NoData, &a.Acked} {
		c.bool(p)
	}
	text(c, &a.AckedBy)
	text(c, &a.ShelvedBy)
	text(c, &a.Reason)
	acked, shelved, raised, cleared := ms(a.AckedAt), ms(a.Shelved), ms(a.RaisedAt), ms(a.ClearedAt)
	for _, p := range []*int64{&acked, &shelved, &raised, &cleared} {
		c.int(p)
	}
	a.AckedAt, a.Shelved, a.RaisedAt, a.ClearedAt = fromMS(acked), fromMS(shelved), fromMS(raised), fromMS(cleared)
	if c.version < 2 {
		return
	}
	text(c, &s.under)
	text(c, &a.Assignee)
	text(c, &a.SuppressedBy)
	text(c, &a.OutOfServiceBy)
	text(c, &a.OutOfServiceReason)
	out := ms(a.OutOfService)
	c.int(&out)
	a.OutOfService = fromMS(out)
}

// Snapshot returns the state of the engine. An engine with the same rules and
// devices that restores it goes on exactly where this one stands. Its size is
// about 20 bytes per remembered sample and 100 per alarm.
func (e *Engine) Snapshot() ([]byte, error) {
	s := saved{now: e.now, up: e.up, devices: make([]savedDevice, 0, len(e.devices))}
	for _, id := range slices.Sorted(maps.Keys(e.devices)) {
		d := e.devices[id]
		if d.gone {
			continue
		}
		sd := savedDevice{id: id, model: d.model, d: d}
		if d.plan != nil {
			for i, r := range d.rings {
				if r != nil {
					sd.rings = append(sd.rings, savedRing{d.plan.model.Metrics[i].Name, r.s})
				}
			}
			for k := range d.lanes {
				sd.lanes = append(sd.lanes, savedLane{d.plan.lates[k], d.lanes[k]})
			}
		}
		s.devices = append(s.devices, sd)
	}
	for _, x := range slices.Concat(e.runs, e.retired) {
		r := savedRule{id: x.rule.ID, version: x.rule.Version, mode: x.rule.Mode}
		if o := x.rule.order; o != nil {
			r.order, r.caseOrd = true, citywarden.CaseOrder{Class: o.class, Merge: o.merge, WorkOrder: o.workOrder}
		}
		r.insts = make([]savedInstance, 0, len(x.insts))
		for _, k := range slices.Sorted(maps.Keys(x.insts)) {
			r.insts = append(r.insts, x.insts[k].save())
		}
		for _, k := range slices.Sorted(maps.Keys(x.episodes)) {
			r.episodes = append(r.episodes, savedEpisode{k, x.episodes[k]})
		}
		s.rules = append(s.rules, r)
		for _, k := range slices.Sorted(maps.Keys(x.groups)) {
			if g := x.groups[k]; g.clock != 0 {
				s.groups = append(s.groups, savedGroup{x.rule.ID, k, g.clock})
			}
		}
	}
	c := &codec{buf: []byte{snapshotVersion}, version: snapshotVersion}
	c.all(&s)
	return c.buf, c.err
}

func (inst *instance) save() savedInstance {
	s := savedInstance{entity: inst.entity, key: inst.key, group: inst.g != nil, clock: inst.clock, lag: inst.lag, due: inst.due, wakes: inst.wakes, flips: inst.flips,
		inhibited: inst.inhibited, open: inst.open, under: inst.under, alarm: &inst.alarm, n: inst.n}
	if inst.trigger != nil {
		s.trigger = inst.trigger.id
	}
	for i, l := range inst.levels {
		sev := byte(0)
		if i < len(inst.run.rule.levels) {
			sev = byte(inst.run.rule.levels[i].severity)
		}
		s.levels = append(s.levels, savedLevel{sev, l})
	}
	return s
}

// Restore replaces the state of an engine that has seen nothing yet by a
// snapshot. Rules keep their state by id: the alarms of rules and devices that
// are gone are closed by the next Step, those of changed rules are evaluated
// again by it.
func (e *Engine) Restore(data []byte) error {
	if len(data) == 0 || data[0] == 0 || data[0] > snapshotVersion {
		return fmt.Errorf("%w: unknown version", errSnapshot)
	}
	var s saved
	c := &codec{buf: data[1:], reading: true, version: data[0]}
	c.all(&s)
	if c.err == nil && len(c.buf) > 0 {
		c.fail()
	}
	if c.err != nil {
		return c.err
	}
	e.now, e.up = s.now, s.up
	e.timers = nil
	for i := range s.devices {
		e.restoreDevice(&s.devices[i])
	}
	for _, g := range s.groups {
		if r := e.set.byID[g.rule]; r != nil {
			if g2 := e.runs[r.index].groups[g.key]; g2 != nil {
				g2.clock = g.clock
			}
		}
	}
	for i := range s.rules {
		e.restoreRule(&s.rules[i])
	}
	for _, x := range e.runs {
		for _, inst := range x.insts { // whose rule or attributes changed since
			if inst.inhibited && !e.inhibited(inst) || inst.open && inst.alarm.SuppressedBy != e.suppressor(inst) {
				e.retied = append(e.retied, inst)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(e.devices)) { // registered since
		if d := e.devices[id]; d.plan != nil && d.quietDue == 0 {
			e.armQuiet(d)
		}
	}
	return nil
}

func (e *Engine) restoreDevice(s *savedDevice) {
	if s.model != "" && e.opt.Devices == nil {
		// Nobody tells the devices: this one is as it was, without attributes.
		e.bind(&citywarden.Device{ID: s.id, Model: s.model})
	}
	d := e.devices[s.id]
	if d == nil {
		return
	}
	d.since, d.arrived, d.newestTS, d.lag, d.skew, d.dark, d.late, d.events = s.d.since, s.d.arrived, s.d.newestTS, s.d.lag, s.d.skew, s.d.dark, s.d.late, s.d.events
	d.quietDue = 0
	if d.plan == nil || d.model != s.model {
		return
	}
	for _, r := range s.rings {
		i := slices.IndexFunc(d.plan.model.Metrics, func(m citywarden.Metric) bool { return m.Name == r.metric })
		if i >= 0 && d.plan.keep[i] >= 0 && len(r.s) > 0 {
			d.rings[i] = &ring{s: r.s}
		}
	}
	for _, l := range s.lanes {
		if k := slices.Index(d.plan.lates, l.late); k >= 0 {
			d.lanes[k] = l.lane
			if l.due > 0 {
				e.push(timer{due: l.due, kind: timerLane, d: d, lane: k})
			}
		}
	}
	if s.d.quietDue > 0 {
		d.quietDue = s.d.quietDue
		e.push(timer{due: d.quietDue, kind: timerQuiet, d: d})
	}
}

func (e *Engine) restoreRule(s *savedRule) {
	r := e.set.byID[s.id]
	var x *run
	if r != nil {
		x = e.runs[r.index]
	} else {
		x = retiredRun(s.id, s.mode)
		if s.order {
			x.rule.order = &caseOrder{class: s.caseOrd.Class, merge: s.caseOrd.Merge, workOrder: s.caseOrd.WorkOrder}
		}
		if len(s.insts) > 0 || len(s.episodes) > 0 {
			e.retired = append(e.retired, x)
		}
	}
	for _, ep := range s.episodes {
		x.episodes[ep.entity] = ep.n
	}
	for i := range s.insts {
		e.restoreInstance(x, &s.insts[i], r != nil && r.Version != s.version)
	}
}

func (e *Engine) restoreInstance(x *run, s *savedInstance, changed bool) {
	inst := &instance{run: x, entity: s.entity, key: s.key, clock: s.clock, lag: s.lag, trigger: e.devices[s.trigger],
		wakes: s.wakes, flips: s.flips, inhibited: s.inhibited, open: s.open, under: s.under, alarm: *s.alarm, n: s.n}
	reason := ""
	switch d := e.devices[citywarden.DeviceID(s.entity)]; {
	case x.rule.index < 0:
		reason = "rule removed"
	case s.group != (x.rule.groupBy != ""):
		reason = "rule groups differently now"
	case s.group:
		g := x.groups[s.entity]
		if g == nil || len(g.members) == 0 {
			reason = "group has no members"
			break
		}
		inst.g, g.inst = g, inst
		inst.prog = g.members[0].plan.binding(x.rule).prog
	case d == nil || d.plan == nil || d.plan.binding(x.rule) == nil:
		reason = "device removed"
	default:
		inst.d, inst.b = d, d.plan.binding(x.rule)
		inst.prog = inst.b.prog
		if d.skip[inst.b.index] {
			reason = "not selected any more"
			break
		}
		d.insts[inst.b.index] = inst
	}
	if inst.alarm.ID != "" {
		e.byAlarm[inst.alarm.ID] = inst
	}
	if reason != "" {
		x.insts[inst.entity] = inst
		e.orphan(inst, reason)
		return
	}
	inst.levels = make([]levelState, len(x.rule.levels))
	for i := range x.rule.levels {
		for _, l := range s.levels {
			if citywarden.Severity(l.severity) == x.rule.levels[i].severity {
				inst.levels[i] = l.levelState
			}
		}
	}
	x.insts[inst.entity] = inst
	inst.tie()
	if changed {
		e.dirty = append(e.dirty, inst)
		return
	}
	if inst.due = s.due; inst.due > 0 {
		e.push(timer{due: inst.due, kind: timerInstance, inst: inst})
	}
}

// SetRules runs set from now on. The engine keeps its history and the state of
// rules by their id. The next Step closes the alarms of removed rules and
// evaluates those of changed rules again: an active alarm stays active until
// its new condition is false, a pending one keeps the time since when it holds.
func (e *Engine) SetRules(set *Set) error {
	data, err := e.Snapshot()
	if err != nil {
		return err
	}
	fresh := New(set, e.opt)
	for _, id := range slices.Sorted(maps.Keys(e.devices)) {
		if d := e.devices[id]; d.reg != nil && (fresh.devices[id] == nil || fresh.devices[id].reg == nil) {
			fresh.bind(d.reg)
		}
	}
	if err := fresh.Restore(data); err != nil {
		return fmt.Errorf("carry the state over to the new rules: %w", err)
	}
	fresh.pos, fresh.logged = e.pos, e.logged
	*e = *fresh
	e.scratch = env{} // pointed at the engine that was copied
	return nil
}

// Rules returns the rules that the engine runs.
func (e *Engine) Rules() []citywarden.Rule { return e.set.Rules() }

// evaluateDirty evaluates the instances of changed rules.
func (e *Engine) evaluateDirty() {
	list := e.dirty
	e.dirty = nil
	slices.SortFunc(list, func(a, b *instance) int {
		return cmp.Or(cmp.Compare(a.run.rule.ID, b.run.rule.ID), cmp.Compare(a.entity, b.entity))
	})
	for _, inst := range list {
		if !inst.dropped {
			e.apply(inst, inst.clock)
			e.rearm(inst)
		}
	}
}
