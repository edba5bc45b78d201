package rules

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

// Devices tells an engine which devices there are. Each calls f for every
// registered device with its model; neither is changed afterwards.
type Devices interface {
	Each(f func(*citywarden.Device, *citywarden.Model))
}

// device is what the engine remembers of a device. There may be a hundred thousand,
// so that every message finds its own far from the processor: what is read with each
// of them stands first.
type device struct {
	heardAs  *citywarden.Device // its key in Engine.heard, nil when it has none
	then     *device            // was heard after it the last time; those behind a gateway come in the same order again
	plan     *plan              // nil when no rule selects its model
	arrived  int64              // when its newest readings arrived, ms; 0 never
	newestTS int64              // newest event time, ms
	lag      int64              // arrival - event time of the message that brought newestTS, ms
	hush     int64              // the first of quiet, 0 for none
	quietDue int64              // when the timer of silence is set, ms; 0 not set
	rings    []*ring            // by metric; nil when no rule reads it
	lanes    []lane             // by plan.lates
	awake    []int              // bindings that every value concerns; those at rest are struck when they are met
	next     int                // the metric after the one that was read last: most messages have them in the same order
	dark     bool               // not heard for plan.quiet
	gone     bool               // not registered any more
	barred   bool               // it or its gateway is disabled: nothing is to be heard of it
	enters   bool               // it was barred until just now: the next record says since when it is not
	late     uint64             // readings that came too late to be evaluated

	id       citywarden.DeviceID
	seat     int                // in Engine.known
	reg      *citywarden.Device // as registered; nil when only its name is known
	model    citywarden.ModelName
	attrs    []attr
	insts    []*instance // of rules per device, by binding
	groups   []*group    // by binding.group; nil where skip
	skip     []bool      // by binding.skip: select.where excludes it
	adjacent []*device
	others   []*device // those that have it as a neighbour
	events   []eventAt
	out      *citywarden.OutOfService // nil while it is in service

	since int64   // when the engine first knew it, ms
	let   int64   // when it was let in again after it was barred, ms; 0 never
	begun int64   // when it became one of this model, ms; 0 when it was no other before
	alive int64   // when its newest sign of life without readings arrived, as of a gateway that speaks for others, ms; 0 never
	skew  int64   // time that the newest message with a time of its own gave - its arrival, ms; 0 before
	quiet []int64 // thresholds of silence that matter, ms, ascending
}

// attr is the resolved value of an attribute.
type attr struct {
	num  float64
	tri  tri
	text string
	from string // as citywarden.Device.Attribute has it, "" when it has no value
}

type eventAt struct {
	name string
	ts   int64
}

// maxEvents bounds the events remembered of one device.
const maxEvents = 64

// lane orders the readings of a device for the rules of one late.
type lane struct {
	done int64   // evaluated up to here, event time, ms
	wait []point // later ones, ordered by event time
	due  int64   // when the timer is set, ms; 0 not set
}

// point is a moment at which metrics of a device have new values.
type point struct {
	ts, arr int64
	mask    uint64 // of metrics
}

// maxWaiting bounds a lane; the oldest point is evaluated early when it is full.
const maxWaiting = 4096

// bit returns the mask bit of a metric; those beyond 63 share one.
func bit(metric int) uint64 { return 1 << min(metric, 63) }

// attribute returns the value of an attribute; ok is false when it has none.
func (d *device) attribute(name string) (v any, ok bool) {
	if d == nil || d.reg == nil || d.plan == nil {
		return nil, false
	}
	v, from := d.reg.Attribute(d.plan.model, name)
	return v, from != ""
}

// heard returns when silence began to count: the newest arrival or sign of life,
// or the registration of a device that never gave one; when it was let in again
// after it was barred.
func (d *device) heard() int64 {
	if at := max(d.arrived, d.alive, d.let); at > 0 {
		return at
	}
	return d.since
}

// newest returns the newest event time <= at of the metrics.
func (d *device) newest(metrics []int, at int64) int64 {
	ts := int64(math.MinInt64)
	for _, i := range metrics {
		if s := d.rings[i].value(at, 0, true); s != nil {
			ts = max(ts, s.ts)
		}
	}
	return ts
}

func (d *device) hadEvent(name string, from, to int64) bool {
	for _, ev := range d.events {
		if ev.ts > from && ev.ts <= to && ev.name == name {
			return true
		}
	}
	return false
}

func (d *device) event(name string, ts int64) {
	i, found := slices.BinarySearchFunc(d.events, eventAt{name, ts}, func(a, b eventAt) int {
		return cmp.Or(cmp.Compare(a.ts, b.ts), cmp.Compare(a.name, b.name))
	})
	if found {
		return
	}
	d.events = slices.Insert(d.events, i, eventAt{name, ts})
	if len(d.events) > maxEvents {
		d.events = slices.Delete(d.events, 0, 1)
	}
}

// group is a set of devices that share an attribute, for one rule.
type group struct {
	run     *run
	key     string
	members []*device // ordered by id
	inst    *instance
	fresh   bool    // members or their attributes changed since it was evaluated
	census  *census // nil as long as nobody needs it
}

// instance returns the state of b for the device, nil when it has none.
func (d *device) instance(b *binding) *instance {
	if i, found := d.place(b); found {
		return d.insts[i]
	}
	return nil
}

// place returns where in d.insts that of b is, or would be.
func (d *device) place(b *binding) (int, bool) {
	return slices.BinarySearchFunc(d.insts, b.index, func(inst *instance, i int) int { return cmp.Compare(inst.b.index, i) })
}

// group returns the device's group for b, nil when it has none.
func (d *device) group(b *binding) *group {
	if b.rule.groupBy == "" {
		return nil
	}
	return d.groups[b.group]
}

// skips reports that the rule of b leaves the device out: by select.where, or because
// it asks for silence and nothing is to be heard of the device.
func (d *device) skips(b *binding) bool {
	return b.where != nil && d.skip[b.skip] || (d.barred || d.enters) && b.rule.silent
}

// trim bounds the history of the metrics in mask, once they are evaluated. What
// waits in a lane, or may still come to it, will look back from where it stands.
func (d *device) trim(mask uint64) {
	from := d.newestTS
	for k := range d.lanes {
		from = min(from, d.newestTS-d.plan.lates[k])
		if w := d.lanes[k].wait; len(w) > 0 {
			from = min(from, w[0].ts)
		}
	}
	for ; mask != 0; mask &= mask - 1 {
		i := bits.TrailingZeros64(mask)
		for last := i; i <= last || last == 63 && i < len(d.rings); i++ { // those beyond 63 share a bit
			if r := d.rings[i]; r != nil {
				r.trim(from, &d.plan.memory[i])
			}
		}
	}
}

// find returns the device named id, and makes it known.
func (e *Engine) find(id citywarden.DeviceID) *device {
	d := e.devices[id]
	if d == nil {
		d = &device{id: id, seat: len(e.known), since: e.now}
		e.devices[id] = d
		e.known = append(e.known, d)
	}
	return d
}

// unhear has the next message of d look at how it is registered.
func (e *Engine) unhear(d *device) {
	delete(e.heard, d.heardAs)
	d.heardAs = nil
}

// bind takes over how a device is registered: its model, attributes, groups and
// neighbours. Alarms of rules that don't select it any more are closed with the
// next record.
func (e *Engine) bind(reg *citywarden.Device) *device {
	d := e.find(reg.ID)
	e.unhear(d)
	e.unlink(d)
	d.gone = false
	if d.model != reg.Model || d.plan == nil {
		e.dropInstances(d, "model changed")
		if d.model != "" && d.model != reg.Model {
			d.begun = e.now
		}
		d.model = reg.Model
		d.plan = e.set.plans[reg.Model]
		d.rings, d.lanes, d.insts, d.awake = nil, nil, nil, nil
		if p := d.plan; p != nil {
			d.rings = make([]*ring, len(p.model.Metrics))
			d.lanes = make([]lane, len(p.lates))
		}
	}
	d.reg = reg
	if g := reg.Gateway(); g != "" {
		e.gateways[g] = true
	}
	was := d.barred || d.enters
	d.barred, d.enters = e.bars(reg), false
	if ms := reg.Created.UnixMilli(); !reg.Created.IsZero() && ms > 0 {
		d.since = ms
	}
	d.adjacent = nil
	for _, id := range reg.Adjacent {
		if id == d.id {
			continue
		}
		n := e.find(id)
		if !slices.Contains(d.adjacent, n) {
			d.adjacent = append(d.adjacent, n)
			n.others = insertDevice(n.others, d)
		}
	}
	if d.plan == nil {
		return d
	}
	d.resolve()
	d.skip = make([]bool, d.plan.wheres)
	d.groups = make([]*group, d.plan.grouped)
	for _, b := range d.plan.bindings {
		if b.where != nil {
			d.skip[b.skip] = b.where(e.env(d, nil, b.rule, e.now)) != yes
		}
		if d.skips(b) {
			if inst := d.instance(b); inst != nil {
				e.orphan(inst, "not selected any more")
			}
			continue
		}
		if b.rule.groupBy != "" {
			d.groups[b.group] = e.join(d, b)
		}
	}
	for _, inst := range d.insts {
		if !d.skips(inst.b) {
			e.retie(inst)
		}
	}
	for _, g := range d.groups {
		if g != nil && g.inst != nil {
			e.retie(g.inst)
			e.reattend(g.inst)
		}
	}
	d.thresholds(e)
	if e.up > 0 && len(d.quiet) > 0 {
		e.anew = append(e.anew, d)
		d.enters = was && !d.barred
	}
	return d
}

// bars reports whether nothing is to be heard of a device: it is disabled, or the
// gateway is that speaks for it.
func (e *Engine) bars(reg *citywarden.Device) bool {
	g := reg.Gateway()
	if g == "" || reg.Disabled {
		return reg.Disabled
	}
	d := e.devices[g]
	return d != nil && d.reg != nil && d.reg.Disabled
}

// rebind is bind for a device that may have been known otherwise, and binds those
// anew that it bars as a gateway, or no longer does.
func (e *Engine) rebind(reg *citywarden.Device) *device {
	old := e.devices[reg.ID]
	was := old != nil && old.reg != nil && old.reg.Disabled
	d := e.bind(reg)
	if reg.Disabled != was {
		e.rebar(d.id)
	}
	return d
}

// rebar binds the devices behind a gateway anew whose being barred changed.
func (e *Engine) rebar(gateway citywarden.DeviceID) {
	if !e.gateways[gateway] {
		return
	}
	for _, d := range e.known {
		if d.reg != nil && !d.gone && d.reg.Gateway() == gateway && d.barred != e.bars(d.reg) {
			e.bind(d.reg)
		}
	}
}

// lookAnew looks at the devices whose rules or attributes changed: at a silence
// that is as long already as matters now, and at what waits for another time.
// It is for Step, as the engine's clock may have stood for long before it.
func (e *Engine) lookAnew() {
	list := e.anew
	e.anew = nil
	for _, d := range list {
		if d.gone || d.plan == nil {
			continue
		}
		if d.enters {
			d.enters, d.let = false, e.now
		}
		if len(d.quiet) > 0 && e.now-max(d.heard(), e.up) >= d.quiet[0] {
			e.evaluateAny(d)
		}
		d.quietDue = 0 // it may have been set for a silence that no rule asks for now
		e.armQuiet(d)
		for k := range d.lanes {
			e.release(d, k, d.newestTS-d.plan.lates[k])
			e.armLane(d, k)
		}
	}
}

// resolve computes the values of the attributes.
func (d *device) resolve() {
	m := d.plan.model
	d.attrs = make([]attr, len(m.Attributes))
	for i := range m.Attributes {
		decl := &m.Attributes[i]
		a := attr{num: nan, tri: unknown}
		raw, from := d.reg.Attribute(m, decl.Name)
		if v, ok := citywarden.ValueOf(raw); ok && v.Kind() == decl.Kind {
			switch decl.Kind {
			case citywarden.KindNumber:
				a.num = v.Float()
			case citywarden.KindBool:
				a.tri = triOf(v.IsTrue())
			case citywarden.KindText:
				a.text = v.String()
			}
			a.from = from
		}
		d.attrs[i] = a
	}
}

// join puts the device into its group for r. A device without the attribute is
// a group of its own, so that it is not left unwatched.
func (e *Engine) join(d *device, b *binding) *group {
	key := string(d.id)
	if v, ok := d.attribute(b.rule.groupBy); ok {
		if x, ok := citywarden.ValueOf(v); ok && x.String() != "" {
			key = x.String()
		}
	}
	run := e.runs[b.rule.index]
	g := run.groups[key]
	if g == nil {
		g = &group{run: run, key: key}
		run.groups[key] = g
	}
	g.members = insertDevice(g.members, d)
	g.freshen()
	d.rouse(b)
	return g
}

// freshen makes every member's next value evaluate the group.
func (g *group) freshen() {
	g.census = nil
	if g.fresh {
		return
	}
	g.fresh = true
	for _, m := range g.members {
		m.rouse(m.plan.binding(g.run.rule))
	}
}

func insertDevice(list []*device, d *device) []*device {
	i, found := slices.BinarySearchFunc(list, d.id, func(a *device, id citywarden.DeviceID) int { return cmp.Compare(a.id, id) })
	if found {
		return list
	}
	return slices.Insert(list, i, d)
}

func removeDevice(list []*device, d *device) []*device {
	return slices.DeleteFunc(list, func(x *device) bool { return x == d })
}

// unlink takes the device out of its groups and its neighbours' lists.
func (e *Engine) unlink(d *device) {
	for _, n := range d.adjacent {
		n.others = removeDevice(n.others, d)
	}
	for _, g := range d.groups {
		if g == nil {
			continue
		}
		g.members = removeDevice(g.members, d)
		g.freshen()
		if len(g.members) == 0 {
			e.empty = append(e.empty, g)
		} else if g.inst != nil {
			e.retie(g.inst)
			e.reattend(g.inst)
		}
	}
	d.groups = nil
}

func (e *Engine) dropInstances(d *device, reason string) {
	for _, inst := range d.insts {
		e.orphan(inst, reason)
	}
}

// thresholds computes after how much silence something about d may change.
func (d *device) thresholds(e *Engine) {
	d.quiet = d.quiet[:0]
	if d.plan.quiet > 0 {
		d.quiet = append(d.quiet, d.plan.quiet)
	}
	for _, b := range d.plan.bindings {
		if d.skips(b) {
			continue
		}
		for _, dur := range b.silent {
			if w := dur(e.env(d, nil, b.rule, e.now)); w > 0 {
				d.quiet = append(d.quiet, w)
			}
		}
	}
	slices.Sort(d.quiet)
	d.quiet = slices.Compact(d.quiet)
	if d.hush = 0; len(d.quiet) > 0 {
		d.hush = d.quiet[0]
	}
}

// armQuiet sets the timer of silence to the next threshold; the first entry and
// Restore do it for the devices that are registered before.
func (e *Engine) armQuiet(d *device) {
	if due := e.nextSilence(d); due > 0 && (d.quietDue == 0 || d.quietDue > due || d.quietDue <= e.now) {
		d.quietDue = due
		e.push(timer{due: due, kind: timerQuiet, d: d})
	}
}

// nextSilence returns when the next silence of d that matters is over, 0 for none.
func (e *Engine) nextSilence(d *device) int64 {
	if d.gone || e.up == 0 {
		return 0
	}
	base := max(d.heard(), e.up)
	for _, w := range d.quiet {
		if base+w > e.now {
			return base + w
		}
	}
	return 0
}

// silence is the timer of armQuiet.
func (e *Engine) silence(d *device) {
	d.quietDue = 0
	if d.gone || d.plan == nil {
		return
	}
	base := max(d.heard(), e.up)
	passed := e.now - base
	if len(d.quiet) > 0 && passed >= d.quiet[0] {
		e.evaluateAny(d)
		if q := d.plan.quiet; q > 0 && passed >= q && d.arrived > 0 && !d.dark {
			d.dark = true
			e.darkness(d)
		}
	}
	e.armQuiet(d)
}

// darkness tells the open alarms of d that it went dark or came back.
func (e *Engine) darkness(d *device) {
	for _, inst := range d.insts {
		if !inst.run.rule.silent {
			e.noData(inst, d.dark)
		}
	}
	for _, g := range d.groups {
		if g != nil && g.inst != nil && !g.run.rule.silent {
			all := !slices.ContainsFunc(g.members, func(m *device) bool { return m.arrived > 0 && !m.dark })
			e.noData(g.inst, all)
		}
	}
}

// DeviceChanged tells the engine that a device was registered, changed or
// deleted. Alarms that end by it are closed by the next Step.
func (e *Engine) DeviceChanged(dev citywarden.Device, deleted bool) {
	if !deleted {
		e.rebind(&dev)
		return
	}
	d := e.devices[dev.ID]
	if d == nil || d.gone {
		return
	}
	e.unhear(d)
	e.unlink(d)
	e.dropInstances(d, "device removed")
	disabled := d.reg != nil && d.reg.Disabled
	d.gone, d.plan, d.model, d.reg, d.adjacent, d.out = true, nil, "", nil, nil, nil
	d.rings, d.lanes, d.insts, d.awake, d.skip, d.events = nil, nil, nil, nil, nil, nil
	d.arrived, d.alive, d.let, d.newestTS, d.lag, d.skew, d.dark, d.barred, d.enters, d.quietDue = 0, 0, 0, 0, 0, 0, false, false, false, 0
	if disabled {
		e.rebar(d.id)
	}
}

func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMS(v int64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return time.UnixMilli(v).UTC()
}
