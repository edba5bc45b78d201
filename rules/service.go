package rules

import (
	"cmp"
	"maps"
	"slices"

	"github.com/citywarden/citywarden"
)

// A device, or what a rule says of one entity, is out of service from a person's
// order until another one or the end that it gave, whether there is an alarm or
// not. The rules are evaluated all the same, and their alarms are out of service
// from the beginning. That of a group is so with its devices only while all that
// satisfied its condition are: one in service is always heard.

// service carries out an order to take something out of service or to return it.
func (e *Engine) service(o *citywarden.AlarmOrder) {
	if o.Device != "" {
		e.serviceOfDevice(o)
		return
	}
	inst := e.byAlarm[o.Alarm]
	if o.Rule != "" {
		inst = e.watcher(o.Rule, o.Entity)
	}
	if inst == nil || inst.dropped {
		return
	}
	if o.Kind == citywarden.OrderInService {
		e.comeBack(inst, e.now, o.By, o.Reason)
	} else if kind, ok := inst.do(o, fromMS(e.now)); ok {
		e.setAside(inst)
		e.tell(inst, e.now, kind, o.By, o.Reason)
	}
	e.rearm(inst)
}

// comeBack ends that inst is out of service by itself. With its device it may
// still be.
func (e *Engine) comeBack(inst *instance, t int64, by, note string) {
	if inst.outItself() == nil {
		return
	}
	kind := citywarden.CameInService
	if d := e.outWith(inst); d != nil {
		inst.takeOut(d.out)
		kind = citywarden.WentOutOfService
	} else {
		inst.amend(func(a *citywarden.Alarm) { a.Return() })
	}
	e.setAside(inst)
	e.tell(inst, t, kind, by, note)
}

// watcher returns the state of a rule on an entity, which is made when there is
// none yet; nil when the rule does not watch it.
func (e *Engine) watcher(id citywarden.RuleID, entity string) *instance {
	r := e.set.byID[id]
	if r == nil {
		return nil
	}
	x := e.runs[r.index]
	if inst := x.insts[entity]; inst != nil {
		return inst
	}
	switch {
	case r.of != nil:
		for _, d := range e.devices {
			raw, _ := d.attribute(r.of.storm.by)
			if v, ok := citywarden.ValueOf(raw); ok && v.String() == entity && d.bindingOf(r.of) != nil {
				return e.stormInstance(x, entity)
			}
		}
	case r.groupBy != "":
		if g := x.groups[entity]; g != nil && len(g.members) > 0 {
			return e.groupInstance(g, g.members[0].plan.binding(r).prog)
		}
	default:
		if d := e.devices[citywarden.DeviceID(entity)]; d != nil && !d.gone {
			if b := d.bindingOf(r); b != nil && !d.skips(b) {
				return e.instance(b, d)
			}
		}
	}
	return nil
}

// serviceOfDevice is service for an order about a device.
func (e *Engine) serviceOfDevice(o *citywarden.AlarmOrder) {
	d := e.devices[o.Device]
	if d == nil || d.reg == nil {
		return
	}
	if o.Kind == citywarden.OrderInService {
		if d.out != nil {
			d.out = nil
			e.serve(d, e.now, o.By, o.Reason)
		}
		return
	}
	x, ok := o.OutOfService(fromMS(e.now))
	if !ok || d.out != nil && d.out.Until.Equal(x.Until) {
		return
	}
	d.out = &x
	e.armService(d)
	e.serve(d, e.now, o.By, o.Reason)
}

// armService sets the timer of the end of d's being out of service.
func (e *Engine) armService(d *device) {
	if d.out != nil && !d.out.Until.IsZero() {
		e.push(timer{due: ms(d.out.Until), kind: timerService, d: d})
	}
}

// serviceDue is the timer of armService.
func (e *Engine) serviceDue(d *device) {
	d.out = nil
	e.serve(d, e.now, "", "")
}

// serve brings the open alarms that d is concerned in to whether d is in service.
func (e *Engine) serve(d *device, t int64, by, note string) {
	for _, inst := range d.insts {
		e.attend(inst, t, by, note)
	}
	for _, g := range d.groups {
		if g != nil && g.inst != nil {
			e.attend(g.inst, t, by, note)
		}
	}
}

// attend brings the open alarm of inst, unless it is out of service itself, to
// whether its devices are in service.
func (e *Engine) attend(inst *instance, t int64, by, note string) {
	if inst.dropped || !inst.open || inst.outItself() != nil {
		return
	}
	switch d, x := e.outWith(inst), inst.out(); {
	case d == nil:
		if x != nil {
			inst.amend(func(a *citywarden.Alarm) { a.Return() })
			e.tell(inst, t, citywarden.CameInService, by, note)
		}
	case x == nil || x.Device != d.id || !x.Since.Equal(d.out.Since) || !x.Until.Equal(d.out.Until):
		inst.takeOut(d.out)
		e.tell(inst, t, citywarden.WentOutOfService, d.out.By, d.out.Reason)
	}
}

// outWith returns the device with which the open alarm of inst is out of service,
// of a group one that satisfied its condition; nil for none.
func (e *Engine) outWith(inst *instance) *device {
	if !inst.open {
		return nil
	}
	if inst.d != nil {
		if inst.d.out == nil {
			return nil
		}
		return inst.d
	}
	if inst.g == nil {
		return nil
	}
	first, with := (*device)(nil), inst.outOf()
	for _, d := range inst.g.members {
		if _, met := slices.BinarySearch(inst.members(), d.id); !met {
			continue
		}
		if d.out == nil {
			return nil
		}
		if first == nil || d.id == with {
			first = d
		}
	}
	return first
}

// reattend has the next record attend to the alarm of a group that has other
// members now.
func (e *Engine) reattend(inst *instance) {
	if e.unattended(inst) {
		e.retied = append(e.retied, inst)
	}
}

// unattended reports whether attend would change the alarm of inst.
func (e *Engine) unattended(inst *instance) bool {
	if !inst.open || inst.outItself() != nil {
		return false
	}
	with := citywarden.DeviceID("")
	if d := e.outWith(inst); d != nil {
		with = d.id
	}
	return inst.outOf() != with
}

// tell emits a change that a person ordered, of an instance that has had an alarm.
func (e *Engine) tell(inst *instance, t int64, kind citywarden.TransitionKind, by, note string) {
	inst.touch()
	if inst.alarm.ID == "" {
		return
	}
	tr := e.emit(inst, t, kind, nil)
	tr.By, tr.Note = by, note
}

// setAside keeps the list of what is out of service by itself.
func (e *Engine) setAside(inst *instance) {
	if inst.outItself() != nil {
		e.aside[inst] = true
		return
	}
	delete(e.aside, inst)
}

// OutOfService returns what people have taken out of service: devices by their
// id, then what is by rule and entity.
func (e *Engine) OutOfService() []citywarden.OutOfService {
	var out []citywarden.OutOfService
	for _, d := range e.known {
		if d.out != nil {
			out = append(out, *d.out)
		}
	}
	slices.SortFunc(out, func(a, b citywarden.OutOfService) int { return cmp.Compare(a.Device, b.Device) })
	for _, inst := range slices.SortedFunc(maps.Keys(e.aside), byRuleAndEntity) {
		x := *inst.outItself()
		x.Rule, x.Entity = inst.run.rule.ID, inst.entity
		out = append(out, x)
	}
	return out
}
