package citywarden

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// everyAlarm calls f with an alarm in every combination of the dimensions.
func everyAlarm(f func(Alarm)) {
	at := time.Unix(1000, 0).UTC()
	for n := range 1 << 6 {
		on := func(bit int) bool { return n>>bit&1 == 1 }
		a := Alarm{ID: "r:e:1", State: AlarmActive, Severity: Minor}
		if on(0) {
			a.State, a.ClearedAt = AlarmCleared, at
		}
		if on(1) {
			a.Acked, a.AckedBy, a.AckedAt = true, "li", at
		}
		if on(2) {
			a.Shelved, a.ShelvedBy, a.Reason = at.Add(time.Hour), "li", "works"
		}
		if on(3) {
			a.SuppressedBy = "parent:e:1"
		}
		if on(4) {
			a.OutOfService, a.OutOfServiceBy, a.OutOfServiceReason = at, "li", "works"
		}
		if on(5) {
			a.Assignee = "wu"
		}
		f(a)
	}
}

// Every order in every state changes its own dimension and no other, but that
// an active alarm is unacknowledged again when its last suppression ends.
func TestDimensionsAreIndependent(t *testing.T) {
	now := time.Unix(2000, 0).UTC()
	until := now.Add(time.Hour)
	type step struct {
		name  string
		do    func(*Alarm) (TransitionKind, bool)
		kind  TransitionKind
		works func(Alarm) bool // whether it changes anything in that state
		want  func(*Alarm)     // the change in its own dimension
		ends  bool             // a suppression
	}
	order := func(o AlarmOrder) func(*Alarm) (TransitionKind, bool) {
		o.By = "chen"
		return func(a *Alarm) (TransitionKind, bool) { return a.Do(&o, now) }
	}
	always := func(Alarm) bool { return true }
	never := func(Alarm) bool { return false }
	suppress := func(by AlarmID) func(*Alarm) (TransitionKind, bool) {
		return func(a *Alarm) (TransitionKind, bool) { return a.Suppress(by) }
	}
	unshelve := func(a *Alarm) {
		a.Shelved, a.ShelvedBy = time.Time{}, ""
		if a.State == AlarmActive {
			a.Reason = ""
		}
	}
	steps := []step{
		{"ack", order(AlarmOrder{Kind: OrderAck}), Acked, func(a Alarm) bool { return !a.Acked },
			func(a *Alarm) { a.Acked, a.AckedBy, a.AckedAt = true, "chen", now }, false},
		{"shelve", order(AlarmOrder{Kind: OrderShelve, Until: until, Reason: "why"}), Shelved, always,
			func(a *Alarm) { a.Shelved, a.ShelvedBy, a.Reason = until, "chen", "why" }, false},
		{"shelve until now", order(AlarmOrder{Kind: OrderShelve, Until: now}), "", never, nil, false},
		{"unshelve", order(AlarmOrder{Kind: OrderUnshelve}), Unshelved, func(a Alarm) bool { return !a.Shelved.IsZero() }, unshelve, true},
		{"shelf over", func(a *Alarm) (TransitionKind, bool) { return Unshelved, a.Unshelve() }, Unshelved,
			func(a Alarm) bool { return !a.Shelved.IsZero() }, unshelve, true},
		{"out of service", order(AlarmOrder{Kind: OrderOutOfService, Reason: "new head"}), WentOutOfService, func(a Alarm) bool { return a.OutOfService.IsZero() },
			func(a *Alarm) { a.OutOfService, a.OutOfServiceBy, a.OutOfServiceReason = now, "chen", "new head" }, false},
		{"out of service until", order(AlarmOrder{Kind: OrderOutOfService, Reason: "new head", Until: until}), WentOutOfService, always,
			func(a *Alarm) {
				a.OutOfService, a.OutOfServiceUntil, a.OutOfServiceBy, a.OutOfServiceReason = now, until, "chen", "new head"
			}, false},
		{"out of service until now", order(AlarmOrder{Kind: OrderOutOfService, Until: now}), "", never, nil, false},
		{"in service", order(AlarmOrder{Kind: OrderInService}), CameInService, func(a Alarm) bool { return !a.OutOfService.IsZero() },
			func(a *Alarm) { a.OutOfService, a.OutOfServiceBy, a.OutOfServiceReason = time.Time{}, "", "" }, true},
		{"suppress", suppress("other:e:1"), Suppressed, always, func(a *Alarm) { a.SuppressedBy = "other:e:1" }, false},
		{"unsuppress", suppress(""), Unsuppressed, func(a Alarm) bool { return a.SuppressedBy != "" }, func(a *Alarm) { a.SuppressedBy = "" }, true},
		{"comment", order(AlarmOrder{Kind: OrderComment, Text: "seen"}), Commented, always, func(*Alarm) {}, false},
		{"empty comment", order(AlarmOrder{Kind: OrderComment}), Commented, never, nil, false},
		{"assign", order(AlarmOrder{Kind: OrderAssign, To: "zhao"}), Assigned, always, func(a *Alarm) { a.Assignee = "zhao" }, false},
		{"assign nobody", order(AlarmOrder{Kind: OrderAssign}), Assigned, func(a Alarm) bool { return a.Assignee != "" }, func(a *Alarm) { a.Assignee = "" }, false},
		{"reset", order(AlarmOrder{Kind: OrderReset}), "", never, nil, false},
		{"unknown", order(AlarmOrder{Kind: "explode"}), "", never, nil, false},
	}
	for _, s := range steps {
		everyAlarm(func(a Alarm) {
			got, want := a, a
			kind, ok := s.do(&got)
			if works := s.works(a); ok != works || ok && kind != s.kind {
				t.Errorf("%s on %+v: %s, %t; want %s, %t", s.name, a, kind, ok, s.kind, works)
			}
			if ok {
				s.want(&want)
				if s.ends && want.State == AlarmActive && !want.Suppressed() {
					want.Unack()
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s on %+v\n got %+v\nwant %+v", s.name, a, got, want)
			}
		})
	}
}

// An alarm that is out of service with its device comes back with the device,
// not by an order of its own; one of its own takes its place.
func TestOutOfServiceWithTheDevice(t *testing.T) {
	now := time.Unix(2000, 0).UTC()
	a := Alarm{ID: "r:e:1", State: AlarmActive, Severity: Minor}
	a.TakeOut(OutOfService{Device: "e", Since: now, By: "lin", Reason: "works"})
	if !a.Suppressed() || a.OutOfServiceItself() {
		t.Errorf("%+v is not out of service with its device", a)
	}
	if _, ok := a.Do(&AlarmOrder{Kind: OrderInService, By: "wu"}, now); ok {
		t.Error("an order to the alarm returned the device")
	}
	if kind, ok := a.Do(&AlarmOrder{Kind: OrderOutOfService, By: "wu", Reason: "dust"}, now); !ok || kind != WentOutOfService || !a.OutOfServiceItself() || a.OutOfServiceReason != "dust" {
		t.Errorf("out of service by itself: %s, %t, %+v", kind, ok, a)
	}
	if !a.Return() || a.Suppressed() || a.Return() {
		t.Errorf("returned: %+v", a)
	}
}

func TestSuppressions(t *testing.T) {
	all := []Suppression{SuppressionShelved, SuppressionByDesign, SuppressionOutOfService}
	everyAlarm(func(a Alarm) {
		is := map[Suppression]bool{
			SuppressionShelved: !a.Shelved.IsZero(), SuppressionOutOfService: !a.OutOfService.IsZero(),
			SuppressionByDesign: a.SuppressedBy != "" && a.State == AlarmActive, // of a cleared alarm it is history
		}
		want := slices.DeleteFunc(slices.Clone(all), func(s Suppression) bool { return !is[s] })
		if got := a.Suppressions(); !slices.Equal(got, want) || a.Suppressed() != (len(want) > 0) {
			t.Errorf("%+v: %v, %t; want %v", a, got, a.Suppressed(), want)
		}
	})
}
