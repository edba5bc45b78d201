package rules

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/citywarden/citywarden"
)

// A storm is that more than storm.over entities of a rule, which share the value
// of an attribute, were raised within storm.in of each other. One alarm is raised
// for all of them, and they are its children: those that made the storm, and those
// that are raised while it stands. They are suppressed by design until fewer than
// half of storm.over are active.
//
// Raises are counted by their event time. A storm says that they have one cause,
// and a cause is a moment where the devices are: meters that report a power cut
// minutes apart belong together, and what loggers upload of a whole day, or what
// comes in after an outage of the platform, does not. It also needs no state:
// which alarms count follows from the alarms.

// front lists the instances of a rule with storm that were raised at least once
// and have the same value of its attribute, by the time of their last raise.
type front struct {
	key    string
	raised []*instance
}

// reportPause is how long the new members of a storm are collected before its
// alarm tells them, ms.
const reportPause = 10_000

func byRaise(a, b *instance) int {
	return cmp.Or(cmp.Compare(a.alarm.raised, b.alarm.raised), cmp.Compare(a.entity, b.entity))
}

// enrol enters an instance that was raised where its attribute says now.
func (e *Engine) enrol(inst *instance) {
	st := inst.run.rule.storm
	if st == nil || inst.alarm.ID == "" {
		return
	}
	inst.resign()
	raw, _ := inst.attribute(st.by)
	v, ok := citywarden.ValueOf(raw)
	key := v.String()
	if !ok || key == "" {
		return
	}
	f := inst.run.fronts[key]
	if f == nil {
		f = &front{key: key}
		inst.run.fronts[key] = f
	}
	i, _ := slices.BinarySearchFunc(f.raised, inst, byRaise)
	f.raised, inst.front = slices.Insert(f.raised, i, inst), f
}

// resign is the inverse of enrol.
func (inst *instance) resign() {
	f := inst.front
	if f == nil {
		return
	}
	if i, found := slices.BinarySearchFunc(f.raised, inst, byRaise); found {
		f.raised = slices.Delete(f.raised, i, i+1)
	}
	if inst.front = nil; len(f.raised) == 0 {
		delete(inst.run.fronts, f.key)
	}
}

// crowd returns the most instances that were raised within in of each other, inst
// among them; not those that are suppressed: something else explains them, or
// somebody knows of them.
func (f *front) crowd(inst *instance, in int64) []*instance {
	first, _ := slices.BinarySearchFunc(f.raised, inst.alarm.raised-in, func(x *instance, t int64) int {
		return cmp.Compare(x.alarm.raised, t)
	})
	var best, window []*instance
	for _, x := range f.raised[first:] {
		if x.alarm.raised-inst.alarm.raised > in {
			break
		}
		if x.suppressed() {
			continue
		}
		window = append(window, x)
		for x.alarm.raised-window[0].alarm.raised > in {
			window = window[1:]
		}
		if len(window) > len(best) && byRaise(window[0], inst) <= 0 && byRaise(x, inst) >= 0 {
			best = slices.Clone(window)
		}
	}
	return best
}

// gather makes inst, which begins to be raised at t, a child of the storm that
// stands where it is, or that it brings about.
func (e *Engine) gather(inst *instance, t int64) {
	st := inst.run.rule.storm
	if st == nil {
		return
	}
	e.enrol(inst)
	if inst.front == nil {
		return
	}
	run := e.runs[st.parent.index]
	parent := run.insts[inst.front.key]
	if parent == nil || !parent.open {
		if inst.suppressed() || e.suppressor(inst) != "" {
			return
		}
		crowd := inst.front.crowd(inst, st.in)
		active := slices.DeleteFunc(slices.Clone(crowd), func(x *instance) bool { return !x.standsOut() })
		if len(crowd) <= st.over || 2*len(active) < st.over {
			return
		}
		if parent == nil {
			parent = e.stormInstance(run, inst.front.key)
		}
		parent.trigger = inst.trigger
		last := crowd[len(crowd)-1]
		e.erupt(parent, last.alarm.raised, crowd)
	}
	e.attach(parent, inst, t)
}

// stormInstance makes the state of the storms at one place.
func (e *Engine) stormInstance(run *run, key string) *instance {
	inst := &instance{run: run, entity: key, clock: math.MinInt64}
	inst.alarm.Episode = run.episodes[key]
	run.add(inst)
	return inst
}

// standsOut reports whether the condition of the open alarm still holds.
func (inst *instance) standsOut() bool { return inst.open && !inst.alarm.Latched }

// erupt raises the alarm of a storm; those of the crowd whose alarms have been
// told already become its children at once.
func (e *Engine) erupt(parent *instance, t int64, crowd []*instance) {
	e.begin(parent, t, parent.run.rule.Severity)
	o := parent.own()
	parent.clock, o.report, o.children = t, 0, nil
	parent.comesFrom(crowd[len(crowd)-1].device())
	for _, x := range crowd {
		parent.adopt(x)
	}
	e.announce(parent, t, parent.explainStorm(t, citywarden.Raised))
	slices.SortFunc(crowd, byRuleAndEntity)
	for _, x := range crowd {
		if x.open && x.n > 0 {
			e.attach(parent, x, t)
		}
	}
	e.rearm(parent)
}

// attach makes the open alarm of x a child of the storm.
func (e *Engine) attach(parent, x *instance, t int64) {
	o := parent.own()
	if o.children == nil {
		o.children = map[*instance]bool{}
	}
	o.children[x] = true
	parent.clock = max(parent.clock, t)
	parent.touch()
	if parent.adopt(x) && o.report == 0 {
		o.report = e.now + reportPause
		e.rearm(parent)
	}
	if x.n == 0 { // it is about to be announced
		x.own().under = parent.alarm.ID
		return
	}
	e.suppress(x, t, parent.alarm.ID)
}

// adopt adds the devices of x to the members of the storm and reports whether
// there is a new one.
func (inst *instance) adopt(x *instance) bool {
	grew := false
	for _, id := range append([]citywarden.DeviceID{x.device()}, x.members()...) {
		grew = inst.enter(id) || grew
	}
	return grew
}

// reportMembers tells the members that came since the storm's alarm last changed.
func (e *Engine) reportMembers(parent *instance) {
	parent.own().report = 0
	e.emit(parent, parent.clock, citywarden.Joined, parent.explainStorm(parent.clock, citywarden.Joined))
}

// leave takes an instance whose alarm ended from its storm, if it is in one.
func (e *Engine) leave(inst *instance, t int64) {
	parent := e.byAlarm[inst.under()]
	if inst.rare != nil {
		inst.rare.under = ""
	}
	inst.touch()
	if parent != nil && parent.children()[inst] {
		delete(parent.children(), inst)
		e.abate(parent, t)
	}
}

// detach takes instances that will be closed from their storms all at once, so
// that a storm that ends by it does not annunciate them. It returns the storms.
func (e *Engine) detach(list []orphan) []*instance {
	var storms []*instance
	for _, o := range list {
		if parent := e.byAlarm[o.inst.under()]; parent != nil {
			delete(parent.children(), o.inst)
			storms = append(storms, parent)
		}
	}
	slices.SortFunc(storms, byRuleAndEntity)
	return slices.Compact(storms)
}

// abate ends the storm when fewer than half of what made it are active.
func (e *Engine) abate(parent *instance, t int64) {
	if parent == nil || !parent.open || parent.run.rule.of == nil {
		return
	}
	active := 0
	for x := range parent.children() {
		if x.standsOut() {
			active++
		}
		if 2*active >= parent.run.rule.of.storm.over {
			return
		}
	}
	parent.clock = max(parent.clock, t)
	e.close(parent, parent.clock, "", "")
	e.rearm(parent)
}

// free ends the suppression of the children of a storm that is over; those that
// are still active are annunciated.
func (e *Engine) free(parent *instance, t int64) {
	children := slices.SortedFunc(maps.Keys(parent.children()), byRuleAndEntity)
	if o := parent.rare; o != nil {
		o.children, o.report = nil, 0
	}
	for _, x := range children {
		e.suppress(x, t, "")
	}
}

// reviewStorm brings the storm to what its changed rule says.
func (e *Engine) reviewStorm(parent *instance) {
	if !parent.open {
		e.rearm(parent)
		return
	}
	parent.clock = max(parent.clock, e.now)
	parent.touch()
	a, now := &parent.alarm, parent.run.rule.Severity
	kind := citywarden.Lowered
	if now > a.Severity {
		kind = citywarden.Escalated
		parent.amend((*citywarden.Alarm).Unack)
	}
	if now != a.Severity {
		a.Severity = now
		e.emit(parent, parent.clock, kind, parent.explainStorm(parent.clock, kind))
	}
	e.abate(parent, parent.clock)
	e.rearm(parent)
}

// reattach finds the children of storms again after a restore.
func (e *Engine) reattach() {
	for _, x := range slices.Concat(e.runs, e.retired) {
		for _, inst := range x.list {
			parent := e.byAlarm[inst.under()]
			if parent == nil {
				continue
			}
			o := parent.own()
			if o.children == nil {
				o.children = map[*instance]bool{}
			}
			o.children[inst] = true
		}
	}
}

// explainStorm says why the alarm of a storm changed.
func (inst *instance) explainStorm(t int64, kind citywarden.TransitionKind) *citywarden.Explanation {
	r, a, met := inst.run.rule, &inst.alarm, inst.members()
	st, of := r.of.storm, r.of
	in := citywarden.Duration(time.Duration(st.in) * time.Millisecond)
	x := &citywarden.Explanation{
		Rule: r.ID, Version: r.Version, At: fromMS(t), Severity: a.Severity,
		Condition: fmt.Sprintf("more than %d entities of %s raised within %s, by attr.%s", st.over, of.ID, in, st.by),
	}
	n := strconv.Itoa(len(met))
	switch kind {
	case citywarden.Raised:
		x.Summary = citywarden.Text{
			EN: fmt.Sprintf("%s: %s at %s devices within %s.", inst.entity, of.Title.In("en"), n, in),
			ZH: fmt.Sprintf("%s：%s内 %s 台设备发生“%s”。", inst.entity, spanZH(in.Std()), n, of.Title.In("zh")),
		}
	case citywarden.Joined:
		x.Summary = citywarden.Text{EN: fmt.Sprintf("%s: %s devices by now.", inst.entity, n), ZH: fmt.Sprintf("%s：现已涉及 %s 台设备。", inst.entity, n)}
	case citywarden.Cleared:
		x.Summary = citywarden.Text{
			EN: fmt.Sprintf("%s: back to normal but for %d of %s devices.", inst.entity, len(inst.children()), n),
			ZH: fmt.Sprintf("%s：%s 台设备中，除 %d 台外均已恢复。", inst.entity, n, len(inst.children())),
		}
	default:
		x.Summary = citywarden.Text{EN: inst.entity + ": the rule says another severity now.", ZH: inst.entity + "：规则的告警级别已变更。"}
	}
	for _, id := range met[:min(len(met), 1000)] {
		x.Members = append(x.Members, citywarden.ExplainMember{Device: id, Result: "true"})
	}
	return x
}
