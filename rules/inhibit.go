package rules

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/citywarden/citywarden"
)

// bond is one entry of inhibit_by: it ties the instances of a rule to the open
// alarms of its inhibitor, each by the values of the attributes that have to be
// equal, so that neither has to be looked for among all instances.
type bond struct {
	equal []string
	open  map[string]map[*instance]bool // alarms of the inhibitor
	held  map[string]map[*instance]bool // instances of the rule
}

// tie is where an instance stands in a bond.
type tie struct {
	bond   *bond
	key    string
	parent bool // as an inhibitor
}

func (t tie) side() map[string]map[*instance]bool {
	if t.parent {
		return t.bond.open
	}
	return t.bond.held
}

// bonds makes the bonds of all rules.
func (e *Engine) bonds() {
	for _, x := range e.runs {
		for _, in := range x.rule.inhibitors {
			r := e.set.byID[in.rule]
			if r == nil {
				continue
			}
			b := &bond{equal: in.equal, open: map[string]map[*instance]bool{}, held: map[string]map[*instance]bool{}}
			parent := e.runs[r.index]
			x.inhibitors = append(x.inhibitors, b)
			parent.inhibits = append(parent.inhibits, b)
		}
	}
}

// tie enters the instance where it belongs now: as one that may be inhibited,
// and while its alarm is open as an inhibitor. It reports whether that changed.
func (inst *instance) tie() bool {
	var now []tie
	add := func(bonds []*bond, parent bool) {
		for _, b := range bonds {
			if key, ok := inst.values(b.equal); ok {
				now = append(now, tie{b, key, parent})
			}
		}
	}
	add(inst.run.inhibitors, false)
	if inst.open {
		add(inst.run.inhibits, true)
	}
	if slices.Equal(now, inst.ties) {
		return false
	}
	inst.untie()
	inst.ties = now
	for _, t := range now {
		side := t.side()
		if side[t.key] == nil {
			side[t.key] = map[*instance]bool{}
		}
		side[t.key][inst] = true
	}
	return true
}

func (inst *instance) untie() {
	for _, t := range inst.ties {
		side := t.side()
		if delete(side[t.key], inst); len(side[t.key]) == 0 {
			delete(side, t.key)
		}
	}
	inst.ties = nil
}

// values returns the values of attributes of the entity; ok is false when it
// lacks one.
func (inst *instance) values(names []string) (key string, ok bool) {
	for _, n := range names {
		v, ok := inst.attribute(n)
		if !ok {
			return "", false
		}
		key += fmt.Sprintf("%#v,", v) // a text is not the number that it reads like
	}
	return key, true
}

// attribute returns an attribute of the entity; a gateway is its own gateway.
func (inst *instance) attribute(name string) (any, bool) {
	d := inst.d
	if d == nil {
		if by := inst.run.rule.of; by != nil {
			return inst.entity, name == by.storm.by
		}
		if name == inst.run.rule.groupBy {
			return inst.entity, true
		}
		if inst.g == nil || len(inst.g.members) == 0 { // about to be closed
			return nil, false
		}
		d = inst.g.members[0]
	}
	if v, ok := d.attribute(name); ok {
		return v, true
	}
	if d.plan != nil && !hasAttr(d.plan.model, name) {
		return string(d.id), true
	}
	return nil, false
}

// inhibits returns the instances that the open alarm of inst may inhibit, in an
// order that does not depend on when they came.
func (inst *instance) inhibits() []*instance {
	all := map[*instance]bool{}
	for _, t := range inst.ties {
		if t.parent {
			maps.Copy(all, t.bond.held[t.key])
		}
	}
	delete(all, inst)
	return slices.SortedFunc(maps.Keys(all), byRuleAndEntity)
}

func byRuleAndEntity(a, b *instance) int {
	return cmp.Or(cmp.Compare(a.run.rule.ID, b.run.rule.ID), cmp.Compare(a.entity, b.entity))
}

// inhibited reports whether an alarm of an inhibitor with the same attributes is open.
func (e *Engine) inhibited(inst *instance) bool {
	for _, t := range inst.ties {
		if others := t.bond.open[t.key]; !t.parent && len(others) > 0 && (len(others) > 1 || !others[inst]) {
			return true
		}
	}
	return false
}

// uninhibit evaluates again what the alarm of an inhibitor, now closed, had held
// back, or annunciates what it had suppressed.
func (e *Engine) uninhibit(inst *instance, t int64) {
	switch {
	case inst.dropped:
	case inst.open:
		e.resolve(inst, t)
	case inst.inhibited && !e.inhibited(inst):
		inst.inhibited = false
		if inst.run.rule.arrival { // its clock is not the inhibitor's
			t = e.now
		}
		inst.clock = max(t, inst.clock) // it is raised now, not when it was held back
		e.wake(inst, inst.clock)
	}
}

// suppress keeps the open alarm of inst from being annunciated from t on,
// because the alarm called by explains it; "" ends that. An alarm that is still
// active then is annunciated again, unless an inhibitor explains it, too. It
// holds for this episode; an alarm that an inhibitor explains needs no call.
func (e *Engine) suppress(inst *instance, t int64, by citywarden.AlarmID) {
	if by != inst.under() {
		inst.own().under = by
	}
	inst.touch()
	e.resolve(inst, t)
}

// resolve brings the alarm of inst, if it is open, to what explains it at t or,
// if it was evaluated later, by then.
func (e *Engine) resolve(inst *instance, t int64) {
	if !inst.open {
		return
	}
	by, now := e.byAlarm[inst.suppressedBy()], e.suppressor(inst)
	if now == inst.suppressedBy() {
		return
	}
	var kind citywarden.TransitionKind
	inst.amend(func(a *citywarden.Alarm) { kind, _ = a.Suppress(now) })
	e.emit(inst, max(t, inst.clock), kind, nil)
	// What explained it in the end may be explained by it now, or by what it explains.
	for by != nil && by.suppressedBy() != "" {
		by = e.byAlarm[by.suppressedBy()]
	}
	if by != nil {
		e.resolve(by, t)
	}
}

// suppressor returns the alarm that explains the open one of inst: the one that
// suppress named, else that of an inhibitor, the one it was before if it is
// still open. Alarms of the same rule hold each other back, but don't explain
// each other; nor does one that is itself explained by inst.
func (e *Engine) suppressor(inst *instance) citywarden.AlarmID {
	if inst.under() != "" && !e.explains(inst, e.byAlarm[inst.under()]) {
		return inst.under()
	}
	var first *instance
	for _, t := range inst.ties {
		if t.parent {
			continue
		}
		for other := range t.bond.open[t.key] {
			switch {
			case other.run == inst.run || e.explains(inst, other):
			case other.alarm.ID == inst.suppressedBy():
				return other.alarm.ID
			case first == nil || byRuleAndEntity(other, first) < 0:
				first = other
			}
		}
	}
	if first == nil {
		return ""
	}
	return first.alarm.ID
}

// explains reports whether the alarm of x is suppressed by that of inst, be it
// through others.
func (e *Engine) explains(inst, x *instance) bool {
	for x != nil && x != inst {
		x = e.byAlarm[x.suppressedBy()]
	}
	return x == inst
}

// retie enters an instance anew whose attributes changed. What follows from it
// comes with the next record.
func (e *Engine) retie(inst *instance) {
	e.enrol(inst)
	if len(inst.run.inhibitors)+len(inst.run.inhibits) == 0 {
		return
	}
	before := inst.inhibits()
	if inst.tie() {
		e.retied = append(e.retied, inst)
		e.retied = append(e.retied, before...)
		e.retied = append(e.retied, inst.inhibits()...)
	}
}

// settleTies brings instances to effect that have other inhibitors, or members,
// than before.
func (e *Engine) settleTies(at int64) {
	list := e.retied
	e.retied = nil
	slices.SortFunc(list, byRuleAndEntity)
	for _, inst := range slices.Compact(list) {
		e.uninhibit(inst, at)
		e.attend(inst, at, "", "")
	}
}
