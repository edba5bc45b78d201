package rules

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// serve gives an order about a device, or a rule and entity.
func (w *world) serve(at time.Duration, o citywarden.AlarmOrder) {
	w.t.Helper()
	w.to(at - time.Millisecond)
	o.By = "li"
	w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordOrder, At: t0.Add(at), Order: &o}})
}

func outOf(x citywarden.AlarmOrder, until time.Duration) citywarden.AlarmOrder {
	x.Kind, x.Reason = citywarden.OrderOutOfService, "works"
	if until > 0 {
		x.Until = t0.Add(until)
	}
	return x
}

func into(x citywarden.AlarmOrder) citywarden.AlarmOrder {
	x.Kind, x.Reason = citywarden.OrderInService, "done"
	return x
}

func TestOutOfServiceBeforeThereIsAnAlarm(t *testing.T) {
	ruleD := citywarden.AlarmOrder{Rule: "r", Entity: "d"}
	device := citywarden.AlarmOrder{Device: "d"}
	raise := func(w *world, at time.Duration) { w.put("d", at, "x", 6.0) }
	clear := func(w *world, at time.Duration) { w.put("d", at, "x", 1.0) }
	for _, c := range []struct {
		name, want string
		play       func(w *world)
	}{
		{"a rule on a device, until it is returned", `
			10s raised d minor out-of-service
			10s out_of_service d minor out-of-service
			20s in_service d minor`, func(w *world) {
			w.serve(1*s, outOf(ruleD, 0))
			raise(w, 10*s)
			w.serve(20*s, into(ruleD))
		}},
		{"it clears meanwhile", `
			10s raised d minor out-of-service
			10s out_of_service d minor out-of-service
			20s cleared d minor out-of-service
			30s in_service d minor
			40s raised d minor`, func(w *world) {
			w.serve(1*s, outOf(ruleD, 0))
			raise(w, 10*s)
			clear(w, 20*s)
			w.serve(30*s, into(ruleD))
			raise(w, 40*s)
		}},
		{"a device, until a time", `
			10s raised d minor out-of-service
			10s out_of_service d minor out-of-service
			1m0s in_service d minor`, func(w *world) {
			w.serve(1*s, outOf(device, 60*s))
			raise(w, 10*s)
		}},
		{"a device whose alarm comes and goes", `
			10s raised d minor out-of-service
			10s out_of_service d minor out-of-service
			20s cleared d minor
			30s raised d minor out-of-service
			30s out_of_service d minor out-of-service
			40s cleared d minor
			1m10s raised d minor`, func(w *world) {
			w.serve(1*s, outOf(device, 60*s))
			raise(w, 10*s)
			clear(w, 20*s)
			raise(w, 30*s)
			clear(w, 40*s)
			raise(w, 70*s)
		}},
		{"a device that has an alarm", `
			10s raised d minor
			20s out_of_service d minor out-of-service
			30s in_service d minor`, func(w *world) {
			raise(w, 10*s)
			w.serve(20*s, outOf(device, 0))
			w.serve(30*s, into(device))
		}},
		{"the end is over while nothing happens", `
			10m0s raised d minor`, func(w *world) {
			w.serve(1*s, outOf(ruleD, 60*s))
			raise(w, 10*time.Minute)
		}},
		{"another end takes its place", `
			1s raised d minor
			10s out_of_service d minor out-of-service
			20s out_of_service d minor out-of-service
			2m0s in_service d minor`, func(w *world) {
			raise(w, 1*s)
			w.serve(10*s, outOf(device, 60*s))
			w.serve(20*s, outOf(device, 120*s))
			w.serve(25*s, outOf(device, 120*s)) // said already
		}},
		{"both, of which one ends", `
			10s raised d minor out-of-service
			10s out_of_service d minor out-of-service
			20s out_of_service d minor out-of-service
			30s in_service d minor`, func(w *world) {
			w.serve(1*s, outOf(device, 0))
			w.serve(2*s, outOf(ruleD, 0))
			raise(w, 10*s)
			w.serve(20*s, into(ruleD)) // it is with the device now
			w.serve(30*s, into(device))
		}},
		{"both, of which the other ends", `
			10s raised d minor out-of-service
			10s out_of_service d minor out-of-service
			30s in_service d minor`, func(w *world) {
			w.serve(1*s, outOf(device, 0))
			w.serve(2*s, outOf(ruleD, 0))
			raise(w, 10*s)
			w.serve(20*s, into(device))
			w.serve(30*s, into(ruleD))
		}},
		{"what nobody watches", `
			10s raised d minor`, func(w *world) {
			w.serve(1*s, outOf(citywarden.AlarmOrder{Rule: "none", Entity: "d"}, 0))
			w.serve(2*s, outOf(citywarden.AlarmOrder{Rule: "r", Entity: "e"}, 0))
			w.serve(3*s, outOf(citywarden.AlarmOrder{Device: "e"}, 0))
			w.serve(4*s, into(device))
			w.serve(5*s, into(ruleD))
			w.serve(6*s, outOf(device, 2*s)) // over already
			raise(w, 10*s)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'x > 5'}]`), dev("d", "probe"))
			c.play(w)
			w.to(20 * time.Minute)
			var shown world
			for _, tr := range w.got {
				if tr.Kind != citywarden.WentDark {
					shown.got = append(shown.got, tr)
				}
				if tr.Annunciated && tr.Alarm.Suppressed() {
					t.Errorf("%s %s calls for a person", tr.At.Sub(t0), tr.Kind)
				}
			}
			shown.t = t
			shown.expect(c.want)
			if got := replay(w, w.engine(), w.log); tell(got) != tell(w.got) {
				t.Errorf("the second run: %s", tell(got))
			}
		})
	}
}

// Of a group, one member in service is heard.
func TestAGroupIsOutOfServiceWithAllThatRaisedIt(t *testing.T) {
	w := newWorld(t, probeRule(`group: {by: attr.zone}`, `levels: [{severity: warning, when: 'n_of(x > 5, "10m") >= 1'}, {severity: critical, when: 'n_of(x > 5, "10m") >= 2'}]`),
		dev("p1", "probe", "zone", "Z"), dev("p2", "probe", "zone", "Z"))
	w.serve(1*s, outOf(citywarden.AlarmOrder{Device: "p1"}, 0))
	w.put("p1", 10*s, "x", 6.0)
	w.put("p2", 20*s, "x", 6.0)
	w.serve(30*s, outOf(citywarden.AlarmOrder{Device: "p2"}, 0))
	w.serve(40*s, into(citywarden.AlarmOrder{Device: "p1"}))
	w.serve(50*s, outOf(citywarden.AlarmOrder{Rule: "r", Entity: "Z"}, 0))
	w.expect(`
		10s raised Z warning out-of-service
		10s out_of_service Z warning out-of-service
		20s escalated Z critical out-of-service
		20s in_service Z critical
		30s out_of_service Z critical out-of-service
		40s in_service Z critical
		50s out_of_service Z critical out-of-service`)
	for i, loud := range []bool{false, false, false, true, false, true, false} {
		if w.got[i].Annunciated != loud {
			t.Errorf("%s annunciated %t", w.got[i].Kind, !loud)
		}
	}
}

// What is out of service is listed, survives a crash and new rules, and ends with
// the device or the rule.
func TestWhatIsOutOfServiceStaysSo(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'x > 5'}]`), dev("d", "probe"), dev("e", "probe"))
	w.serve(1*s, outOf(citywarden.AlarmOrder{Rule: "r", Entity: "e"}, 0))
	w.serve(2*s, outOf(citywarden.AlarmOrder{Device: "e"}, 300*s))
	w.serve(3*s, outOf(citywarden.AlarmOrder{Device: "d"}, 0))
	d := citywarden.OutOfService{Device: "d", Since: t0.Add(3 * s), By: "li", Reason: "works"}
	e := citywarden.OutOfService{Device: "e", Since: t0.Add(2 * s), Until: t0.Add(300 * s), By: "li", Reason: "works"}
	r := citywarden.OutOfService{Rule: "r", Entity: "e", Since: t0.Add(1 * s), By: "li", Reason: "works"}
	list := func(what string, want ...citywarden.OutOfService) {
		t.Helper()
		if diff := cmp.Diff(want, w.e.OutOfService()); diff != "" {
			t.Errorf("%s (-want +got)\n%s", what, diff)
		}
	}
	list("ordered", d, e, r)
	snap := snapshot(t, w.e)
	w.e = w.engine()
	if err := w.e.Restore(snap); err != nil {
		t.Fatal(err)
	}
	list("restored", d, e, r)
	w.reload(10*s, probeRule(`levels: [{severity: major, when: 'x > 7'}]`))
	list("with other rules", d, e, r)
	w.to(300 * s)
	list("at the end", d, r)
	w.reload(310*s, `rules: [{id: other, select: {model: probe}, levels: [{severity: minor, when: 'x > 5'}]}]`)
	list("without the rule", d)
	w.e.DeviceChanged(*w.device("d"), true)
	w.devices = w.devices[1:]
	w.tick(320 * s)
	list("without the device")
	w.expect("")
}

// The explanation of an alarm that was raised out of service says why nobody was told.
func TestWhyNobodyWasTold(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'x > 5'}]`), dev("d", "probe"))
	w.serve(1*s, outOf(citywarden.AlarmOrder{Device: "d"}, 60*s))
	w.put("d", 10*s, "x", 6.0)
	want := citywarden.OutOfService{Device: "d", Since: t0.Add(1 * s), Until: t0.Add(60 * s), By: "li", Reason: "works"}
	if diff := cmp.Diff(want, w.got[0].Why.OutOfService); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
