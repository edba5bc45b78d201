package rules

import (
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

// alarm is what the engine keeps of the last alarm of an instance. With rare, it is
// all that citywarden.Alarm can't be made of otherwise.
type alarm struct {
	ID       citywarden.AlarmID // "" before the first
	Episode  uint64
	raised   int64 // event time, ms
	cleared  int64 // event time, ms; 0 while it is open
	Severity citywarden.Severity
	Clearing bool
	Latched  bool
	NoData   bool
	Flapping bool
	Acked    bool
}

// rare is what few instances have, or not for long.
type rare struct {
	wakes    []int64            // event times to evaluate at when they are due, ascending
	flips    []int64            // when it last was raised, began to clear or resumed; for flap
	under    citywarden.AlarmID // the alarm of a storm that explains the open one
	children map[*instance]bool // of a storm's open alarm: those that it explains
	report   int64              // of a storm's open alarm: when to tell its new members, arrival clock, ms; 0 no new ones

	// Of its alarm, as citywarden.Alarm has them.
	device       citywarden.DeviceID // "" for its entity
	members      []citywarden.DeviceID
	ackedBy      string
	ackedAt      int64 // ms
	assignee     string
	reason       string
	shelved      int64 // ms
	shelvedBy    string
	suppressedBy citywarden.AlarmID
	out          *citywarden.OutOfService // with Device, when it is so with that
}

// maxSpare bounds the rare parts that a rule keeps for whoever needs one next: an
// instance that waits for its neighbours does with each message of theirs.
const maxSpare = 1024

// own returns the rare part of inst, which it gets when it has none.
func (inst *instance) own() *rare {
	if inst.rare != nil {
		return inst.rare
	}
	x := inst.run
	if x == nil || len(x.spare) == 0 { // there is no run yet while a snapshot is read
		inst.rare = &rare{}
		return inst.rare
	}
	last := len(x.spare) - 1
	inst.rare, x.spare = x.spare[last], x.spare[:last]
	return inst.rare
}

func (inst *instance) wakes() []int64 {
	if inst.rare == nil {
		return nil
	}
	return inst.rare.wakes
}

func (inst *instance) flips() []int64 {
	if inst.rare == nil {
		return nil
	}
	return inst.rare.flips
}

func (inst *instance) under() citywarden.AlarmID {
	if inst.rare == nil {
		return ""
	}
	return inst.rare.under
}

func (inst *instance) children() map[*instance]bool {
	if inst.rare == nil {
		return nil
	}
	return inst.rare.children
}

func (inst *instance) report() int64 {
	if inst.rare == nil {
		return 0
	}
	return inst.rare.report
}

// device returns the device whose reading raised the alarm.
func (inst *instance) device() citywarden.DeviceID {
	if inst.rare == nil || inst.rare.device == "" {
		return citywarden.DeviceID(inst.entity)
	}
	return inst.rare.device
}

// comesFrom sets what device returns.
func (inst *instance) comesFrom(id citywarden.DeviceID) {
	switch {
	case string(id) != inst.entity:
		inst.own().device = id
	case inst.rare != nil:
		inst.rare.device = ""
	}
}

func (inst *instance) members() []citywarden.DeviceID {
	if inst.rare == nil {
		return nil
	}
	return inst.rare.members
}

// enter adds a member and reports whether it is a new one.
func (inst *instance) enter(id citywarden.DeviceID) bool {
	i, found := slices.BinarySearch(inst.members(), id)
	if !found {
		o := inst.own()
		o.members = slices.Insert(o.members, i, id)
	}
	return !found
}

func (inst *instance) suppressedBy() citywarden.AlarmID {
	if inst.rare == nil {
		return ""
	}
	return inst.rare.suppressedBy
}

// suppressed reports whether anything keeps the alarm from being annunciated.
func (inst *instance) suppressed() bool {
	if inst.rare == nil {
		return false
	}
	a := inst.told()
	return a.Suppressed()
}

func (inst *instance) shelved() int64 {
	if inst.rare == nil {
		return 0
	}
	return inst.rare.shelved
}

// out returns how inst is out of service, nil when it is in service.
func (inst *instance) out() *citywarden.OutOfService {
	if inst.rare == nil {
		return nil
	}
	return inst.rare.out
}

// outItself is out for what is so by an order of its own, not with a device.
func (inst *instance) outItself() *citywarden.OutOfService {
	if x := inst.out(); x != nil && x.Device == "" {
		return x
	}
	return nil
}

// told returns the alarm as others are told of it; one that was never raised has
// nothing but its episode and what suppresses it. It shares its members with inst.
func (inst *instance) told() citywarden.Alarm {
	x := &inst.alarm
	a := citywarden.Alarm{Episode: x.Episode}
	if x.ID != "" {
		a = citywarden.Alarm{
			ID: x.ID, Rule: inst.run.rule.ID, Title: inst.run.rule.Title, Entity: inst.entity, Device: inst.device(),
			Episode: x.Episode, Severity: x.Severity, State: citywarden.AlarmCleared,
			Clearing: x.Clearing, Latched: x.Latched, NoData: x.NoData, Flapping: x.Flapping, Acked: x.Acked,
			RaisedAt: fromMS(x.raised), ClearedAt: fromMS(x.cleared),
		}
		if inst.open {
			a.State = citywarden.AlarmActive
		}
		if inst.title != nil {
			a.Title = *inst.title
		}
	}
	o := inst.rare
	if o == nil {
		return a
	}
	a.Members, a.AckedBy, a.AckedAt, a.Assignee, a.Reason = o.members, o.ackedBy, fromMS(o.ackedAt), o.assignee, o.reason
	a.Shelved, a.ShelvedBy, a.SuppressedBy = fromMS(o.shelved), o.shelvedBy, o.suppressedBy
	if o.out != nil {
		a.TakeOut(*o.out)
	}
	return a
}

// amend has f change the acknowledgement, the suppression and the assignee of the
// alarm.
func (inst *instance) amend(f func(*citywarden.Alarm)) {
	a := inst.told()
	f(&a)
	inst.alarm.Acked = a.Acked
	var out *citywarden.OutOfService
	if !a.OutOfService.IsZero() {
		out = &citywarden.OutOfService{Device: a.OutOfServiceWith, Since: a.OutOfService, Until: a.OutOfServiceUntil, By: a.OutOfServiceBy, Reason: a.OutOfServiceReason}
	}
	o := inst.own()
	o.ackedBy, o.ackedAt, o.assignee, o.reason = a.AckedBy, ms(a.AckedAt), a.Assignee, a.Reason
	o.shelved, o.shelvedBy, o.suppressedBy, o.out = ms(a.Shelved), a.ShelvedBy, a.SuppressedBy, out
	inst.shed()
}

// outOf returns the device with which inst is out of service, "" for none.
func (inst *instance) outOf() citywarden.DeviceID {
	if x := inst.out(); x != nil {
		return x.Device
	}
	return ""
}

// do carries out an order as citywarden.Alarm.Do says.
func (inst *instance) do(o *citywarden.AlarmOrder, at time.Time) (kind citywarden.TransitionKind, ok bool) {
	inst.amend(func(a *citywarden.Alarm) { kind, ok = a.Do(o, at) })
	return kind, ok
}

// takeOut takes the alarm out of service as x says, nil: it is in service.
func (inst *instance) takeOut(x *citywarden.OutOfService) {
	if x != nil {
		inst.own().out = x
	} else if inst.rare != nil {
		inst.rare.out = nil
	}
}

// shed drops the rare part when it is empty.
func (inst *instance) shed() {
	if o := inst.rare; o != nil && len(o.wakes)+len(o.flips)+len(o.children)+len(o.members) == 0 && o.under == "" && o.report == 0 && o.device == "" && o.ackedBy == "" && o.ackedAt == 0 &&
		o.assignee == "" && o.reason == "" && o.shelved == 0 && o.shelvedBy == "" && o.suppressedBy == "" && o.out == nil {
		inst.rare = nil
		if x := inst.run; len(x.spare) < maxSpare && cap(o.wakes)+cap(o.flips) <= 64 {
			*o = rare{wakes: o.wakes[:0], flips: o.flips[:0]}
			x.spare = append(x.spare, o)
		}
	}
}
