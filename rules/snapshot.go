package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

// snapshotVersion is the first byte of a snapshot. Those from oldestVersion on can
// be read.
const (
	snapshotVersion = 7
	oldestVersion   = 4 // has no begun of devices, and all times as they are; 5 has times of instances by the engine's clock, and no alive; 6 has no let
)

// entering is what a snapshot has as the let of a device that enters.
const entering = -1

var (
	errSnapshot = errors.New("snapshot is damaged")
	errVersion  = errors.New("snapshot is of another version")
)

// codec writes or reads a snapshot with the same code: every method writes what
// its argument points at, or sets it.
type codec struct {
	buf     []byte
	reading bool
	version byte
	base    int64                 // what moments are written by, at least 1: none is math.MinInt64 from it
	ids     []citywarden.DeviceID // by seat; of what is read
	rules   int                   // where those that are written begin
	err     error
}

func (c *codec) fail() {
	if c.err == nil {
		c.err = errSnapshot
	}
	c.buf = nil
}

// put appends v.
func put(b []byte, v uint64) []byte {
	if v < 0x80 { // most are
		return append(b, byte(v))
	}
	return binary.AppendUvarint(b, v)
}

// zigzag returns v as a number that is small when v is near 0.
func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }

// apart returns how a moment is written: 0 for none, else one more than how far it is from base.
func apart(t, base int64) uint64 {
	if t == 0 {
		return 0
	}
	return zigzag(t-base) + 1 // may wrap around, and back again
}

func (c *codec) uint(p *uint64) {
	if !c.reading {
		c.buf = put(c.buf, *p)
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
		c.buf = put(c.buf, zigzag(*p))
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
	b := byteOf(*p)
	c.byte(&b)
	*p = b == 1
}

func byteOf(b bool) byte {
	if b {
		return 1
	}
	return 0
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
		*p = (*p)[:0]
		if n > cap(*p) {
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
	title    citywarden.Text
	order    bool
	caseOrd  citywarden.CaseOrder
	insts    []savedInstance
	episodes []savedEpisode
	slab     slab
}

type savedEpisode struct {
	entity string
	n      uint64
}

// savedInstance is an instance, of which the snapshot has the plain fields, and
// what stands for the others.
type savedInstance struct {
	*instance
	at       uint64 // 1 + its seat in the snapshot, 0 for none
	group    bool
	by       citywarden.DeviceID // trigger
	progress []savedLevel        // levels
	few      [2]savedLevel       // what progress is read into when that is enough
}

type savedLevel struct {
	severity byte
	levelState
}

// savedDevice is what the snapshot says of a device.
type savedDevice struct {
	id    citywarden.DeviceID
	gone  bool // and nothing but its name is left
	model citywarden.ModelName
	d     *device // its plain fields
	rings []savedRing
	lanes []savedLane
}

type savedRing struct {
	metric  citywarden.MetricName
	windows []int64
	ring
}

type savedLane struct {
	late int64
	lane
}

type saved struct {
	now, up int64
	devices []savedDevice
	rules   []savedRule
}

func (c *codec) all(s *saved) {
	c.int(&s.now)
	c.base = max(s.now, 1)
	c.int(&s.up)
	list(c, &s.devices, c.device)
	list(c, &s.rules, func(r *savedRule) {
		c.rule(r)
		list(c, &r.insts, func(inst *savedInstance) { c.instance(r, inst) })
	})
}

// rule is all of a rule but its instances.
func (c *codec) rule(r *savedRule) {
	text(c, &r.id)
	text(c, &r.version)
	text(c, &r.mode)
	text(c, &r.title.ZH)
	text(c, &r.title.EN)
	c.bool(&r.order)
	text(c, &r.caseOrd.Class)
	merge := int64(r.caseOrd.Merge)
	c.int(&merge)
	r.caseOrd.Merge = citywarden.Duration(merge)
	c.bool(&r.caseOrd.WorkOrder)
	list(c, &r.episodes, func(e *savedEpisode) {
		text(c, &e.entity)
		c.uint(&e.n)
	})
}

// moment is int for a time, which most often is near base, or 0.
func (c *codec) moment(p *int64) {
	if c.version < 5 {
		c.int(p)
		return
	}
	if !c.reading {
		c.buf = put(c.buf, apart(*p, c.base))
		return
	}
	var u uint64
	if c.uint(&u); u == 0 {
		*p = 0
		return
	}
	u--
	*p = c.base + (int64(u>>1) ^ -int64(u&1))
}

func (c *codec) time(p *time.Time) {
	t := ms(*p)
	c.moment(&t)
	if c.reading {
		*p = fromMS(t)
	}
}

func (c *codec) device(s *savedDevice) {
	text(c, &s.id)
	if c.reading {
		c.ids = append(c.ids, s.id)
	}
	c.bool(&s.gone)
	if s.gone {
		return
	}
	text(c, &s.model)
	if c.reading {
		s.d = &device{}
	}
	d := s.d
	out := d.out != nil
	if c.bool(&out); out {
		if c.reading {
			d.out = &citywarden.OutOfService{Device: s.id}
		}
		c.time(&d.out.Since)
		c.time(&d.out.Until)
		text(c, &d.out.By)
		text(c, &d.out.Reason)
	}
	for _, p := range []*int64{&d.since, &d.arrived, &d.newestTS, &d.lag, &d.skew, &d.quietDue} {
		c.int(p)
	}
	if c.version >= 5 {
		c.int(&d.begun)
	}
	if c.version >= 6 {
		c.int(&d.alive)
	}
	if c.version >= 7 {
		let := d.let
		if d.enters {
			let = entering
		}
		c.int(&let)
		if c.reading {
			if d.enters = let == entering; !d.enters {
				d.let = let
			}
		}
	}
	c.bool(&d.dark)
	c.uint(&d.late)
	list(c, &d.events, func(e *eventAt) {
		text(c, &e.name)
		c.int(&e.ts)
	})
	c.rings(s)
	c.lanes(s)
}

func (c *codec) rings(s *savedDevice) {
	if c.reading {
		list(c, &s.rings, func(r *savedRing) { c.ring(&r.metric, &r.windows, &r.ring) })
		return
	}
	n := 0
	for _, r := range s.d.rings {
		if r != nil {
			n++
		}
	}
	c.count(n)
	for i, r := range s.d.rings {
		if r != nil {
			c.ring(&s.d.plan.names[i], &s.d.plan.memory[i].windows, r)
		}
	}
}

func (c *codec) ring(metric *citywarden.MetricName, windows *[]int64, r *ring) {
	text(c, metric)
	c.samples(r)
	list(c, &r.texts, func(t *string) { text(c, t) })
	c.int(&r.merged)
	list(c, windows, c.int)
	list(c, &r.panes, func(ps *[]pane) {
		list(c, ps, func(p *pane) {
			n := uint64(p.n)
			c.uint(&n)
			p.n = int(n)
			c.int(&p.ts)
			for _, f := range []*float64{&p.sum, &p.m2, &p.min, &p.max, &p.last} {
				c.float(f)
			}
		})
	})
}

// samples has each as the time since the one before, the lag and the value.
func (c *codec) samples(r *ring) {
	ts := int64(0)
	if !c.reading {
		c.count(len(r.s))
		for i := range r.s {
			x := &r.s[i]
			c.buf = binary.AppendVarint(c.buf, x.ts-ts)
			c.buf = binary.AppendVarint(c.buf, int64(x.lag))
			c.buf = binary.LittleEndian.AppendUint64(c.buf, math.Float64bits(x.v))
			ts = x.ts
		}
		return
	}
	list(c, &r.s, func(x *sample) {
		var step, lag int64
		c.int(&step)
		c.int(&lag)
		ts += step
		x.ts, x.lag = ts, uint32(lag)
		c.float(&x.v)
	})
}

func (c *codec) lanes(s *savedDevice) {
	if c.reading {
		list(c, &s.lanes, func(l *savedLane) { c.lane(&l.late, &l.lane) })
		return
	}
	c.count(len(s.d.lanes))
	for k := range s.d.lanes {
		c.lane(&s.d.plan.lates[k], &s.d.lanes[k])
	}
}

func (c *codec) lane(late *int64, l *lane) {
	c.int(late)
	c.int(&l.done)
	c.int(&l.due)
	list(c, &l.wait, func(p *point) {
		c.int(&p.ts)
		c.int(&p.arr)
		c.uint(&p.mask)
	})
}

// trait says what of an instance is true, and what of it stands in the snapshot: most
// have little of what they can have.
type trait uint64

const (
	isGroup trait = 1 << iota
	isInhibited
	isRaising
	isOpen
	isClearing
	isLatched
	isNoData
	isAcked
	isRaised
	hasTitle   // another one than its rule
	hasDevice  // another one than its entity
	hasTrigger // another one than its entity
	hasWaits
	hasMembers
	hasAck
	hasShelf
	hasReason
	hasClear
	hasOut
	hasCause
	hasAssignee
	isFlapping
	hasReport
	hasKey
)

func (f trait) has(x trait) bool { return f&x != 0 }

// when is f when b is true.
func (f trait) when(b bool) trait {
	if b {
		return f
	}
	return 0
}

func (s *savedInstance) traits(device citywarden.DeviceID) trait {
	a := &s.alarm
	f := isGroup.when(s.group) | isInhibited.when(s.inhibited) | isRaising.when(s.raising) | isOpen.when(s.open) |
		isClearing.when(a.Clearing) | isLatched.when(a.Latched) | isNoData.when(a.NoData) | isAcked.when(a.Acked) |
		isRaised.when(a.ID != "") | hasTitle.when(s.title != nil) | hasTrigger.when(s.by != device) | hasClear.when(a.cleared != 0) |
		isFlapping.when(a.Flapping) | hasKey.when(s.key != "")
	o := s.rare
	if o == nil {
		return f
	}
	return f | hasDevice.when(o.device != "") |
		hasWaits.when(len(o.wakes)+len(o.flips) > 0) | hasMembers.when(len(o.members) > 0) | hasAck.when(o.ackedBy != "") |
		hasShelf.when(o.shelvedBy != "" || o.shelved != 0) | hasReason.when(o.reason != "") |
		hasOut.when(o.out != nil) | hasCause.when(o.under != "" || o.suppressedBy != "") | hasAssignee.when(o.assignee != "") |
		hasReport.when(o.report > 0)
}

func (c *codec) instance(r *savedRule, s *savedInstance) {
	if c.reading {
		s.instance = r.slab.next()
	}
	a := &s.alarm
	c.entity(s)
	device := citywarden.DeviceID(s.entity)
	var f trait
	if !c.reading {
		f = s.traits(device)
	}
	c.uint((*uint64)(&f))
	if c.reading {
		s.group, s.inhibited, s.raising, s.open = f.has(isGroup), f.has(isInhibited), f.has(isRaising), f.has(isOpen)
		a.Clearing, a.Latched, a.NoData, a.Acked, a.Flapping = f.has(isClearing), f.has(isLatched), f.has(isNoData), f.has(isAcked), f.has(isFlapping)
	}
	if f.has(hasKey) {
		text(c, &s.key)
	}
	if c.version < 6 {
		c.moment(&s.clock)
	} else { // by nothing that others change
		c.int(&s.clock)
		c.base = max(s.clock, 1)
	}
	c.int(&s.lag)
	c.moment(&s.due)
	c.uint(&s.n)
	c.levels(s)
	c.uint(&a.Episode)
	if f.has(hasTrigger) {
		text(c, &s.by)
	} else {
		s.by = device
	}
	if f.has(hasWaits) {
		o := s.own()
		list(c, &o.wakes, c.int)
		list(c, &o.flips, c.int)
	}
	if f.has(hasOut) {
		o := s.own()
		if c.reading {
			o.out = &citywarden.OutOfService{}
		}
		c.time(&o.out.Since)
		c.time(&o.out.Until)
		text(c, &o.out.By)
		text(c, &o.out.Reason)
		text(c, &o.out.Device)
	}
	if !f.has(isRaised) {
		return
	}
	if c.reading {
		a.ID = citywarden.NewAlarmID(r.id, s.entity, a.Episode)
	}
	c.byte((*byte)(&a.Severity))
	c.moment(&a.raised)
	if f.has(hasTitle) {
		if c.reading {
			s.title = &citywarden.Text{}
		}
		text(c, &s.title.ZH)
		text(c, &s.title.EN)
	}
	if f.has(hasDevice) {
		text(c, &s.own().device)
	}
	if f.has(hasMembers) {
		list(c, &s.own().members, func(id *citywarden.DeviceID) { text(c, id) })
	}
	if f.has(hasAck) {
		o := s.own()
		text(c, &o.ackedBy)
		c.moment(&o.ackedAt)
	}
	if f.has(hasShelf) {
		o := s.own()
		text(c, &o.shelvedBy)
		c.moment(&o.shelved)
	}
	if f.has(hasReason) {
		text(c, &s.own().reason)
	}
	if f.has(hasClear) {
		c.moment(&a.cleared)
	}
	if f.has(hasCause) {
		o := s.own()
		text(c, &o.under)
		text(c, &o.suppressedBy)
	}
	if f.has(hasAssignee) {
		text(c, &s.own().assignee)
	}
	if f.has(hasReport) {
		c.moment(&s.own().report)
	}
}

// entity is the name of a device as its seat and one, or another name after 0.
func (c *codec) entity(s *savedInstance) {
	s.at = 0
	if !c.reading && s.d != nil {
		s.at = uint64(s.seat) + 1
	}
	c.uint(&s.at)
	switch {
	case s.at == 0:
		text(c, &s.entity)
	case !c.reading:
	case s.at > uint64(len(c.ids)):
		c.fail()
	default:
		s.entity = string(c.ids[s.at-1])
	}
}

func (c *codec) levels(s *savedInstance) {
	if c.reading {
		s.progress = s.few[:0]
		list(c, &s.progress, c.level)
		return
	}
	c.count(len(s.instance.levels))
	for i := range s.instance.levels {
		l := savedLevel{levelState: s.instance.levels[i]}
		if i < len(s.run.rule.levels) {
			l.severity = byte(s.run.rule.levels[i].severity)
		}
		c.level(&l)
	}
}

func (c *codec) level(l *savedLevel) {
	c.byte(&l.severity)
	c.byte((*byte)(&l.state))
	if l.state > clearing {
		c.fail()
	}
	c.moment(&l.since)
	c.bool(&l.stalled)
}

// Snapshot returns the state of the engine. An engine with the same rules and
// devices that restores it goes on exactly where this one stands. Its size is
// about 15 bytes per remembered sample and 40 per alarm. It belongs to the engine:
// it must not be changed, and stays as it is until the next call.
func (e *Engine) Snapshot() ([]byte, error) {
	c := &codec{buf: e.room(), version: snapshotVersion}
	c.buf = append(c.buf, snapshotVersion)
	c.int(&e.now)
	c.base = max(e.now, 1)
	c.int(&e.up)
	c.count(len(e.known))
	var sd savedDevice
	for _, d := range e.known {
		sd.id, sd.gone, sd.model, sd.d = d.id, d.gone, d.model, d
		c.device(&sd)
	}
	c.count(len(e.runs) + len(e.retired))
	c.rules = len(c.buf)
	var inst savedInstance
	for _, x := range slices.Concat(e.runs, e.retired) {
		r := x.save()
		if x.rule.silent && len(e.anew) > 0 || slices.Contains(e.changed, x.rule) || slices.ContainsFunc(e.dirty, func(i *instance) bool { return i.run == x }) {
			r.version = "" // who restores it evaluates what this engine has not yet
		}
		c.rule(&r)
		c.count(len(x.list))
		for i := range x.pages {
			c.page(e.written, &r, &inst, &x.pages[i], x.list[i*pageSize:min((i+1)*pageSize, len(x.list))])
		}
	}
	if c.err != nil {
		return nil, c.err
	}
	e.keep(c.buf, c.rules)
	return c.buf, nil
}

// room returns where to write a snapshot.
func (e *Engine) room() []byte {
	n := e.size
	if n == 0 {
		n = 100 * len(e.known)
		for _, x := range e.runs {
			n += 40 * len(x.list)
		}
	}
	b := e.spare
	if e.spare = nil; cap(b) < n || cap(b) > 2*n {
		b = make([]byte, 0, n+n/8+1024)
	}
	return b[:0]
}

// keep keeps the newest snapshot, of which the next one takes what did not change, and the one before to write
// the next one to. Where most of it is the devices', who all change, only what is taken from is worth the memory.
func (e *Engine) keep(all []byte, rules int) {
	e.size = len(all)
	e.spare, e.newest, e.written = e.newest, all, all[rules:]
	if rules > len(all)/2 {
		e.spare, e.newest, e.written = nil, nil, slices.Clone(all[rules:])
	}
}

// save returns all but the instances.
func (x *run) save() savedRule {
	r := savedRule{id: x.rule.ID, version: x.rule.Version, mode: x.rule.Mode, title: x.rule.Title}
	if o := x.rule.order; o != nil {
		r.order, r.caseOrd = true, o.CaseOrder
	}
	for _, k := range slices.Sorted(maps.Keys(x.episodes)) {
		r.episodes = append(r.episodes, savedEpisode{k, x.episodes[k]})
	}
	return r
}

// page says where the last snapshot has a part of run.list, so that the next one
// writes only what changed since.
type page struct {
	begin int              // in Engine.written
	ends  [pageSize]uint32 // of the instances, from begin
	stale uint16           // bits of those that changed
}

const pageSize = 16

// touch notes that the instance changed. Whatever sets one of its fields that
// codec.instance writes, calls it before the step is over.
func (inst *instance) touch() {
	if i := int(inst.place / pageSize); i < len(inst.run.pages) { // one that was dropped has no place
		inst.run.pages[i].stale |= 1 << (inst.place % pageSize)
	}
}

// page writes the instances of a page, of which last has the rules of the snapshot before; s is
// for its use.
func (c *codec) page(last []byte, r *savedRule, s *savedInstance, p *page, list []*instance) {
	begin, from := len(c.buf), uint32(0)
	last, p.begin = last[p.begin:], begin-c.rules
	if p.stale == 0 {
		c.buf = append(c.buf, last[:p.ends[len(list)-1]]...)
		return
	}
	for i, inst := range list {
		to := p.ends[i]
		if p.stale&(1<<i) != 0 {
			if !c.plain(inst) {
				inst.save(s)
				c.instance(r, s)
			}
		} else {
			c.buf = append(c.buf, last[from:to]...)
		}
		from, p.ends[i] = to, uint32(len(c.buf)-begin)
	}
	p.stale = 0
}

// plain writes an instance of a device as most are, and reports whether it is one: it has nothing rare. It writes
// what instance does, in half the time.
func (c *codec) plain(inst *instance) bool {
	if inst.d == nil || inst.trigger != inst.d || inst.rare != nil || inst.title != nil {
		return false
	}
	a := &inst.alarm
	f := isInhibited.when(inst.inhibited) | isRaising.when(inst.raising) | isOpen.when(inst.open) |
		isClearing.when(a.Clearing) | isLatched.when(a.Latched) | isNoData.when(a.NoData) | isAcked.when(a.Acked) |
		isRaised.when(a.ID != "") | hasClear.when(a.cleared != 0) | isFlapping.when(a.Flapping) | hasKey.when(inst.key != "")
	b := put(put(c.buf, uint64(inst.seat)+1), uint64(f))
	if inst.key != "" {
		b = append(put(b, uint64(len(inst.key))), inst.key...)
	}
	b = binary.AppendVarint(b, inst.clock)
	base := max(inst.clock, 1)
	b = put(b, zigzag(inst.lag))
	b = put(b, apart(inst.due, base))
	b = put(b, inst.n)
	b = put(b, uint64(len(inst.levels)))
	for i := range inst.levels {
		l := &inst.levels[i]
		b = append(b, byte(inst.run.rule.levels[i].severity), byte(l.state))
		b = append(put(b, apart(l.since, base)), byteOf(l.stalled))
	}
	b = put(b, a.Episode)
	if a.ID != "" {
		b = put(append(b, byte(a.Severity)), apart(a.raised, base))
		if a.cleared != 0 {
			b = put(b, apart(a.cleared, base))
		}
	}
	c.buf = b
	return true
}

func (inst *instance) save(s *savedInstance) {
	s.instance, s.group, s.by = inst, inst.g != nil, ""
	switch inst.trigger {
	case nil:
	case inst.d:
		s.by = citywarden.DeviceID(inst.entity)
	default:
		s.by = inst.trigger.id
	}
}

// Restore replaces the state of an engine that has seen nothing yet by a
// snapshot. Rules keep their state by id: the alarms of rules and devices that
// are gone are closed by the next Step, those of changed rules are evaluated
// again by it.
func (e *Engine) Restore(data []byte) error {
	if len(data) == 0 {
		return errSnapshot
	}
	if data[0] < oldestVersion || data[0] > snapshotVersion {
		return fmt.Errorf("%w: %d instead of %d to %d", errVersion, data[0], oldestVersion, snapshotVersion)
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
	e.now, e.up, e.size = s.now, s.up, len(data)
	e.timers, e.before = nil, nil
	seats := make([]*device, len(s.devices))
	for i := range s.devices {
		if !s.devices[i].gone {
			e.restoreDevice(&s.devices[i])
		}
		seats[i] = e.devices[s.devices[i].id]
	}
	n := 0
	for i := range s.rules {
		n += len(s.rules[i].insts)
	}
	e.byAlarm = make(map[citywarden.AlarmID]*instance, n)
	e.anew = nil // what was bound above is as it was
	versions, edited := map[citywarden.RuleID]string{}, false
	for i := range s.rules {
		e.restoreRule(&s.rules[i], seats)
		versions[s.rules[i].id] = s.rules[i].version
		e.before = append(e.before, citywarden.Rule{ID: s.rules[i].id, Version: s.rules[i].version})
		edited = edited || e.set.byID[s.rules[i].id] == nil
	}
	for _, r := range e.set.rules {
		if versions[r.ID] != r.Version {
			e.changed = append(e.changed, r)
		}
	}
	edited = edited || len(e.changed) > 0
	if slices.ContainsFunc(e.changed, func(r *rule) bool { return r.silent }) {
		for _, id := range slices.Sorted(maps.Keys(e.devices)) {
			e.anew = append(e.anew, e.devices[id])
		}
	}
	e.reattach()
	for _, x := range e.runs {
		for _, inst := range x.list { // whose rule or attributes changed since
			if inst.inhibited && !e.inhibited(inst) || inst.open && inst.suppressedBy() != e.suppressor(inst) || e.unattended(inst) {
				e.retied = append(e.retied, inst)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(e.devices)) {
		d := e.devices[id]
		if d.plan == nil {
			continue
		}
		switch next := e.nextSilence(d); {
		case d.quietDue == 0: // registered since
			e.armQuiet(d)
		case edited && (next == 0 || d.quietDue < next): // it was set for a silence that no rule asks for now
			d.quietDue = 0
			e.armQuiet(d)
		}
	}
	return nil
}

// ranBefore returns the rules that the engine was restored from. One that it had
// just taken, and not looked at, counts as the one that it runs now.
func (e *Engine) ranBefore() []citywarden.Rule {
	var out []citywarden.Rule
	for _, r := range e.before {
		if now := e.set.byID[r.ID]; r.Version == "" && now != nil {
			r.Version = now.Version
		}
		if r.Version != "" {
			out = append(out, r)
		}
	}
	return out
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
	d.since, d.arrived, d.alive, d.newestTS, d.lag, d.skew, d.dark, d.late, d.events = s.d.since, s.d.arrived, s.d.alive, s.d.newestTS, s.d.lag, s.d.skew, s.d.dark, s.d.late, s.d.events
	if s.d.out != nil {
		d.out = s.d.out
		e.armService(d)
	}
	if d.let = s.d.let; s.d.enters { // rules that count as changed are evaluated before it is looked at
		d.let, d.enters = e.now, len(d.quiet) > 0
	}
	d.quietDue, d.begun = 0, s.d.begun
	if d.model != s.model && s.model != "" {
		d.begun = e.now
	}
	if d.plan == nil || d.model != s.model {
		return
	}
	for k := range s.rings {
		r := &s.rings[k]
		i := slices.IndexFunc(d.plan.model.Metrics, func(m citywarden.Metric) bool { return m.Name == r.metric })
		if i >= 0 && d.plan.memory[i].keep >= 0 && len(r.s) > 0 && (d.plan.model.Metrics[i].Kind == citywarden.KindText) == (len(r.texts) == len(r.s)) {
			d.rings[i] = r.restore(&d.plan.memory[i])
		}
	}
	for k, late := range d.plan.lates {
		i := slices.IndexFunc(s.lanes, func(l savedLane) bool { return l.late == late })
		if i < 0 { // of rules that are new: they see what they would have waited for
			for metric, r := range d.rings {
				if late > 0 && r != nil {
					e.recalled = append(e.recalled, recalled{d, metric})
				}
			}
			continue
		}
		d.lanes[k] = s.lanes[i].lane
		if due := d.lanes[k].due; due > 0 {
			e.push(timer{due: due, kind: timerLane, d: d, lane: k})
		}
	}
	if s.d.quietDue > 0 {
		d.quietDue = s.d.quietDue
		e.push(timer{due: d.quietDue, kind: timerQuiet, d: d})
	}
}

// restore returns the ring for what the rules need now. The panes of a window
// that is new are made of those of the longest that was there.
func (s *savedRing) restore(m *memory) *ring {
	r := &ring{s: s.s, texts: s.texts, merged: s.merged}
	if len(s.panes) == 0 || len(s.panes) != len(s.windows) || len(m.windows) == 0 {
		return r
	}
	r.panes = make([][]pane, len(m.windows))
	longest := slices.Index(s.windows, slices.Max(s.windows))
	for w, within := range m.windows {
		if i := slices.Index(s.windows, within); i >= 0 {
			r.panes[w] = s.panes[i]
			continue
		}
		for i := range s.panes[longest] {
			p := &s.panes[longest][i]
			if n := len(r.panes[w]); n == 0 || paneOf(r.panes[w][n-1].ts, within) != paneOf(p.ts, within) {
				r.panes[w] = append(r.panes[w], *p)
				continue
			}
			q := &r.panes[w][len(r.panes[w])-1]
			q.join(p)
			q.min, q.max, q.ts, q.last = min(q.min, p.min), max(q.max, p.max), p.ts, p.last
		}
	}
	return r
}

func (e *Engine) restoreRule(s *savedRule, seats []*device) {
	r := e.set.byID[s.id]
	var x *run
	if r != nil {
		x = e.runs[r.index]
	} else {
		x = retiredRun(s.id, s.mode)
		if s.order {
			x.rule.order = &caseOrder{CaseOrder: s.caseOrd}
		}
		if len(s.insts) > 0 || len(s.episodes) > 0 {
			e.retired = append(e.retired, x)
		}
	}
	for _, ep := range s.episodes {
		x.episodes[ep.entity] = ep.n
	}
	if len(x.list) == 0 {
		x.insts, x.list = make(map[string]*instance, len(s.insts)), make([]*instance, 0, len(s.insts))
	}
	var was *citywarden.Text // what its alarms were called
	if s.title != x.rule.Title {
		was = &citywarden.Text{ZH: s.title.ZH, EN: s.title.EN}
	}
	for i := range s.insts {
		inst := &s.insts[i]
		switch {
		case inst.alarm.ID == "":
		case inst.title == nil:
			inst.title = was
		case *inst.title == x.rule.Title:
			inst.title = nil
		}
		var d *device
		if inst.at > 0 {
			d = seats[inst.at-1]
		} else {
			d = e.devices[citywarden.DeviceID(inst.entity)]
		}
		e.restoreInstance(x, inst, d, r != nil && r.Version != s.version)
	}
}

// restoreInstance takes up an instance whose entity is named like d, if any is.
func (e *Engine) restoreInstance(x *run, s *savedInstance, d *device, changed bool) {
	inst := s.instance
	due := inst.due
	inst.run, inst.trigger, inst.due = x, d, 0
	if string(s.by) != s.entity {
		inst.trigger = e.devices[s.by]
	}
	reason := ""
	switch {
	case x.rule.index < 0:
		reason = "rule removed"
	case x.rule.of != nil:
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
		inst.d, inst.seat, inst.b = d, int32(d.seat), d.plan.binding(x.rule)
		inst.prog = inst.b.prog
		if d.skips(inst.b) {
			reason = "not selected any more"
			break
		}
		i, _ := d.place(inst.b)
		d.insts = slices.Insert(d.insts, i, inst)
	}
	if inst.alarm.ID != "" {
		e.byAlarm[inst.alarm.ID] = inst
	}
	e.setAside(inst)
	if reason != "" {
		x.add(inst)
		e.orphan(inst, reason)
		return
	}
	inst.grow(len(x.rule.levels))
	for i := range x.rule.levels {
		for _, l := range s.progress {
			if citywarden.Severity(l.severity) == x.rule.levels[i].severity {
				inst.levels[i] = l.levelState
			}
		}
	}
	x.add(inst)
	inst.tie()
	inst.rouse()
	e.enrol(inst)
	if changed {
		e.dirty = append(e.dirty, inst)
		return
	}
	if inst.due = due; due > 0 {
		e.push(timer{due: inst.due, kind: timerInstance, inst: inst})
	}
}

// SetRules runs set from now on. The engine keeps its history and the state of
// rules by their id. The next Step closes the alarms of removed rules and
// evaluates new and changed rules: an active alarm stays active until its new
// condition is false, a pending one keeps the time since when it holds.
func (e *Engine) SetRules(set *Set) error {
	e.await()
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
	fresh.takeOverWaiting(e)
	*e = *fresh
	e.scratch = env{} // pointed at the engine that was copied
	return nil
}

// takeOverWaiting has the readings that wait for a rule of old evaluated by the
// same rule of e when its late is another one.
func (e *Engine) takeOverWaiting(old *Engine) {
	for _, r := range e.set.rules {
		was := old.set.byID[r.ID]
		if was == nil || was.of != nil || was.late == r.late {
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(e.devices)) {
			d, o := e.devices[id], old.devices[id]
			if d.plan == nil || o == nil || o.plan == nil || d.model != o.model {
				continue
			}
			to, from := d.plan.binding(r), o.plan.binding(was)
			if to == nil || from == nil {
				continue
			}
			l := &d.lanes[to.lane]
			for _, p := range o.lanes[from.lane].wait {
				l.add(p)
			}
			e.anew = append(e.anew, d)
		}
	}
}

// Rules returns the rules that the engine runs.
func (e *Engine) Rules() []citywarden.Rule { return e.set.Rules() }

// review evaluates what rules say now that are new or changed, of every device
// and group: at once, and not with its next reading. It is for Step, as the
// engine's clock may have stood for long before it. Its order does not depend on
// what is at rest.
func (e *Engine) review() {
	rules, list := e.changed, e.dirty
	e.changed, e.dirty = nil, nil
	slices.SortFunc(list, byRuleAndEntity)
	dirty := make(map[*instance]bool, len(list))
	for _, inst := range list {
		dirty[inst] = true
	}
	var all []citywarden.DeviceID
	if len(rules) > 0 {
		all = slices.Sorted(maps.Keys(e.devices))
	}
	for _, r := range rules {
		for _, id := range all {
			d := e.devices[id]
			if d.plan == nil || d.arrived == 0 {
				continue
			}
			b := d.plan.binding(r)
			if b == nil || d.skips(b) {
				continue
			}
			g, inst := d.group(b), d.instance(b)
			if g != nil {
				inst = g.inst
			}
			if dirty[inst] {
				delete(dirty, inst)
				e.reviewInstance(inst)
			}
			ts := e.now
			if !r.arrival {
				ts -= d.lag + r.late
			}
			if r.late > 0 {
				e.release(d, b.lane, ts)
			}
			switch {
			case g == nil && d.instance(b).untouched():
				e.evaluateOwn(b, d, max(ts, d.reached(b)))
			case g != nil && g.inst.untouched():
				e.evaluateGroup(g, b, d, ts)
			}
		}
	}
	for _, inst := range list { // of storms, and of devices that were never heard
		if dirty[inst] {
			e.reviewInstance(inst)
		}
	}
}

// reviewInstance is review for an instance of a changed rule.
func (e *Engine) reviewInstance(inst *instance) {
	switch {
	case inst.dropped:
	case inst.run.rule.of != nil:
		e.reviewStorm(inst)
	case inst.clock == math.MinInt64: // waits to be evaluated for the first time
		e.rearm(inst)
	default:
		ts := e.now - e.delay(inst)
		e.catchUp(inst, ts)
		e.apply(inst, max(ts, inst.clock))
		e.rearm(inst)
	}
}
