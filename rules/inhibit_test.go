package rules

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

const gatewayRules = `
rules:
- {id: gateway.offline, select: {model: parking-gateway}, levels: [{severity: major, when: 'not mains'}]}
- {id: child, select: {model: smoke-detector}, inhibit_by: [{rule: gateway.offline, equal: [attr.gateway]}], levels: [{severity: minor, when: 'smoke > 1'}, {severity: major, when: 'smoke > 5'}], case: {class: event/0501, key: 'k/{{device}}'}}
`

func gatewayDevices() []*citywarden.Device {
	return []*citywarden.Device{dev("g1", "parking-gateway"), dev("g2", "parking-gateway"),
		dev("a", "smoke-detector", "gateway", "g1"), dev("b", "smoke-detector", "gateway", "g2")}
}

func TestInhibitorThatArrivesLater(t *testing.T) {
	w := newWorld(t, gatewayRules, gatewayDevices()...)
	w.put("a", 1*s, "smoke", 2.0)
	w.put("b", 1*s, "smoke", 2.0)
	w.order(2*s, citywarden.OrderAck, "child:a:1", 0)
	w.put("g1", 10*s, "mains", false)
	w.put("a", 20*s, "smoke", 6.0) // goes on being evaluated, and calls nobody
	w.order(30*s, citywarden.OrderAck, "child:a:1", 0)
	w.put("g1", 40*s, "mains", true)
	w.put("g1", 50*s, "mains", false)
	w.put("a", 60*s, "smoke", 0.1)
	w.put("a", 70*s, "smoke", 6.0) // as it opened after its inhibitor, it is held back
	w.put("g1", 80*s, "mains", true)
	w.expect(`
		1s raised a minor
		1s raised b minor
		2s acked a minor acked
		10s raised g1 major
		10s suppressed a minor acked by-gateway.offline:g1:1
		20s escalated a major by-gateway.offline:g1:1
		30s acked a major acked by-gateway.offline:g1:1
		40s cleared g1 major
		40s unsuppressed a major
		50s raised g1 major
		50s suppressed a major by-gateway.offline:g1:2
		1m0s cleared a major by-gateway.offline:g1:2
		1m20s cleared g1 major
		1m20s raised a major`)
	for i, tr := range w.got {
		called := tr.Kind == citywarden.Raised || tr.Kind == citywarden.Unsuppressed
		if tr.Annunciated != called || tr.Alarm.Rule == "child" && tr.Case == nil {
			t.Errorf("transition %d, %s: annunciated %t, case %v", i, tr.Kind, tr.Annunciated, tr.Case)
		}
	}
}

// The engine's own call for alarms that another explains, like the members of a
// storm, beside what inhibitors do.
func TestSuppressAndInhibitorTogether(t *testing.T) {
	w := newWorld(t, gatewayRules, gatewayDevices()...)
	w.put("a", 1*s, "smoke", 2.0)
	w.put("b", 1*s, "smoke", 2.0)
	child := func(id string) *instance { return w.e.runs[1].insts[id] }
	call := func(by citywarden.AlarmID) {
		w.e.out = nil
		w.e.suppress(child("a"), w.e.now, by)
		w.got = append(w.got, w.e.out...)
	}
	call("outage:D1:1")
	call("outage:D1:1") // twice is once
	w.put("g1", 10*s, "mains", false)
	snap := snapshot(t, w.e)
	again := w.engine()
	if err := again.Restore(snap); err != nil {
		t.Fatal(err)
	}
	w.e = again
	w.to(20 * s)
	call("") // the inhibitor explains it as well
	w.put("g1", 30*s, "mains", true)
	call("outage:D1:1")
	w.put("a", 40*s, "smoke", 0.1) // it holds for the episode
	w.put("a", 50*s, "smoke", 2.0)
	w.expect(`
		1s raised a minor
		1s raised b minor
		1s suppressed a minor by-outage:D1:1
		10s raised g1 major
		10s suppressed a minor by-gateway.offline:g1:1
		30s cleared g1 major
		30s unsuppressed a minor
		30s suppressed a minor by-outage:D1:1
		40s cleared a minor by-outage:D1:1
		50s raised a minor`)
}

func TestAnAlarmNeverSuppressesItself(t *testing.T) {
	// Each of two rules inhibits the other, and one inhibits itself. Both alarms
	// are open because the attribute that ties them came later.
	w := newWorld(t, `
rules:
- {id: a, select: {model: probe}, inhibit_by: [{rule: b, equal: [attr.zone]}, {rule: a, equal: [attr.zone]}], levels: [{severity: minor, when: 'x > 1'}]}
- {id: b, select: {model: probe}, inhibit_by: [{rule: a, equal: [attr.zone]}], levels: [{severity: minor, when: 'x > 1'}]}
`, dev("p", "probe", "zone", "1"), dev("q", "probe", "zone", "2"))
	w.put("p", 0, "x", 2.0)
	w.put("q", 1*s, "x", 2.0)
	w.expect("0s raised p minor\n1s raised q minor") // of rule a; b is held back
	moved := *w.device("q")
	moved.Attributes, moved.Updated = map[string]any{"zone": "1"}, t0
	w.devices[1] = &moved
	w.e.DeviceChanged(moved, false)
	if !w.e.unsettled() {
		t.Error("nobody would write the record that brings the change to effect")
	}
	w.put("q", 2*s, "x", 2.0)
	w.expect("0s raised p minor\n1s raised q minor")
	w.put("p", 3*s, "x", 0.0)
	w.put("q", 4*s, "x", 0.0)
	if n := w.e.Stats().Active; n != 0 {
		t.Errorf("%d alarms active, want none:\n%s", n, w.story())
	}
}

func TestTwoRulesThatInhibitEachOtherAndOneIsEdited(t *testing.T) {
	// What b explained explains b from then on.
	held := ", inhibit_by: [{rule: b, equal: [attr.zone]}]"
	rule := func(inhibitor string) string {
		return "rules:\n- {id: a, select: {model: probe}" + inhibitor + ", levels: [{severity: minor, when: 'x > 1'}]}\n" +
			"- {id: b, select: {model: probe}, inhibit_by: [{rule: a, equal: [attr.zone]}], levels: [{severity: major, when: 'y > 1'}]}\n"
	}
	w := newWorld(t, rule(""), dev("p", "probe", "zone", "1"), dev("q", "probe", "zone", "2"))
	w.put("p", 0, "x", 2.0)
	w.put("q", 1*s, "y", 2.0)
	moved := *w.device("q")
	moved.Attributes, moved.Updated = map[string]any{"zone": "1"}, t0
	w.reload(2*s, rule(held))
	w.devices[1] = &moved
	w.e.DeviceChanged(moved, false)
	w.tick(3 * s)
	w.reload(4*s, rule(""))
	w.reload(5*s, strings.ReplaceAll(rule(held), "b, inhibit_by", "b, title: other, inhibit_by"))
	w.expect(`
		0s raised p minor
		1s raised q major
		3s suppressed p minor by-b:q:1
		4s unsuppressed p minor
		4s suppressed q major by-a:p:1`)
}

func TestAnInhibitorOfASilence(t *testing.T) {
	// A silence is about arrivals, and so is when it is looked at again: not when
	// the readings say that the inhibitor ended, a minute before.
	w := newWorld(t, `
rules:
- {id: a, select: {model: probe}, late: 60s, levels: [{severity: major, when: on}]}
- {id: b, select: {model: probe}, inhibit_by: [{rule: a, equal: [attr.zone]}], levels: [{severity: minor, when: 'not silent("1m")', for: 5s}]}
`, dev("p", "probe", "zone", "1"))
	w.put("p", 0, "on", true)
	w.put("p", 65*s, "on", false)
	w.put("p", 110*s, "x", 1.0)
	w.to(10 * time.Minute)
	w.expect(`
		5s raised p minor
		0s raised p major
		5s suppressed p minor by-a:p:1
		1m0s cleared p minor by-a:p:1
		1m5s cleared p major
		2m5s raised p minor
		2m50s cleared p minor`)
}

func TestInhibitorsFollowAttributesAndRules(t *testing.T) {
	w := newWorld(t, gatewayRules, gatewayDevices()...)
	w.put("a", 1*s, "smoke", 2.0)
	w.put("g2", 2*s, "mains", false)
	move := func(to string, at time.Duration) {
		d := *w.device("a")
		d.Attributes, d.Updated = map[string]any{"gateway": to}, t0.Add(at)
		w.devices[2] = &d
		w.e.DeviceChanged(d, false)
		w.put("g1", at, "mains", true)
	}
	move("g2", 10*s)
	move("g1", 20*s)
	move("g2", 30*s)
	w.set = load(t, `
rules:
- {id: child, select: {model: smoke-detector}, levels: [{severity: minor, when: 'smoke > 1'}]}
- {id: gateway.offline, select: {model: parking-gateway}, levels: [{severity: major, when: 'not mains'}]}
`)
	if err := w.e.SetRules(w.set); err != nil {
		t.Fatal(err)
	}
	w.put("g1", 40*s, "mains", true)
	w.expect(`
		1s raised a minor
		2s raised g2 major
		10s suppressed a minor by-gateway.offline:g2:1
		20s unsuppressed a minor
		30s suppressed a minor by-gateway.offline:g2:1
		40s unsuppressed a minor`)
}

// The inhibitor's device is removed: what it held back or suppressed comes out.
func TestInhibitorThatIsRemoved(t *testing.T) {
	for _, crash := range []bool{false, true} {
		w := newWorld(t, gatewayRules, append(gatewayDevices(), dev("c", "smoke-detector", "gateway", "g1"))...)
		w.put("a", 1*s, "smoke", 2.0)
		w.put("g1", 2*s, "mains", false)
		w.put("c", 3*s, "smoke", 2.0)
		snap := snapshot(t, w.e)
		gone := *w.device("g1")
		w.devices = w.devices[1:]
		if crash {
			w.e = w.engine()
			if err := w.e.Restore(snap); err != nil {
				t.Fatal(err)
			}
		} else {
			w.e.DeviceChanged(gone, true)
		}
		w.put("g2", 10*s, "mains", true)
		w.to(20 * s)
		w.expect(`
			1s raised a minor
			2s raised g1 major
			2s suppressed a minor by-gateway.offline:g1:1
			10s cleared g1 major
			10s unsuppressed a minor
			10s raised c minor`)
	}
}

// BenchmarkInhibitor opens and closes the alarm of one gateway of 10,000, each
// with one child whose alarm is open.
func BenchmarkInhibitor(b *testing.B) {
	var devices []*citywarden.Device
	for i := range 10_000 {
		g := fmt.Sprintf("g%d", i)
		devices = append(devices, dev(g, "parking-gateway"), dev("s"+g, "smoke-detector", "gateway", g))
	}
	w := newWorld(b, gatewayRules, devices...)
	for i := 1; i < len(devices); i += 2 {
		w.put(string(devices[i].ID), s, "smoke", 2.0)
	}
	w.log, w.got = nil, nil
	entry := func(i int, on bool) citywarden.Entry {
		at := t0.Add(10*s + time.Duration(i)*time.Millisecond)
		return citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordUplink, At: at}, Device: devices[i%10_000*2],
			Readings: []citywarden.Reading{{Metric: "mains", Value: citywarden.Bool(on), Time: at}}}
	}
	i := 0
	for b.Loop() {
		off, on := entry(i, false), entry(i, true)
		if n := len(w.e.Step(&off)) + len(w.e.Step(&on)); n != 4 {
			b.Fatalf("%d transitions, want 4", n)
		}
		i++
	}
}
