package rules

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

const stormRule = `
rules:
- id: mains
  title: {zh: 市电中断, en: Mains lost}
  select: {model: [energy-meter]}
  levels: [{severity: major, when: 'not mains', for: 20s}]
  clear: {when: 'mains', for: 60s}
  storm: {by: attr.district, over: 3, in: 2m, raise: outage, severity: critical}
  case: {class: event/0501, key: 'power/{{attr.building}}', parent: 'outage/{{attr.district}}'}
`

// meters returns n energy meters m1 … of district D1.
func meters(n int) []*citywarden.Device {
	var out []*citywarden.Device
	for i := range n {
		out = append(out, dev(fmt.Sprintf("m%d", i+1), "energy-meter", "district", "D1", "building", fmt.Sprintf("B%d", i/2)))
	}
	return out
}

func (w *world) mains(at time.Duration, on bool, ids ...string) {
	for _, id := range ids {
		w.put(id, at, "mains", on)
	}
}

func (w *world) alarm(rule, entity string) citywarden.Alarm {
	for _, tr := range slices.Backward(w.got) {
		if string(tr.Alarm.Rule) == rule && tr.Alarm.Entity == entity {
			return tr.Alarm
		}
	}
	w.t.Fatalf("no alarm of %s on %s", rule, entity)
	return citywarden.Alarm{}
}

func TestAStormRaisesOneAlarmForAll(t *testing.T) {
	w := newWorld(t, stormRule, append(meters(6), dev("x1", "energy-meter", "district", "D2"), dev("x2", "energy-meter"))...)
	w.mains(10*s, false, "m1", "m2", "x1", "x2")
	w.mains(40*s, false, "m3")
	w.mains(60*s, false, "m4")
	w.mains(90*s, false, "m5")
	w.to(3 * time.Minute)
	w.expect(`
		30s raised m1 major
		30s raised m2 major
		30s raised x1 major
		30s raised x2 major
		1m0s raised m3 major
		1m20s raised D1 critical
		1m20s suppressed m1 major by-outage:D1:1
		1m20s suppressed m2 major by-outage:D1:1
		1m20s suppressed m3 major by-outage:D1:1
		1m20s raised m4 major by-outage:D1:1
		1m50s raised m5 major by-outage:D1:1
		1m50s joined D1 critical`)
	parent := w.alarm("outage", "D1")
	if fmt.Sprint(parent.Members) != "[m1 m2 m3 m4 m5]" || parent.Title.EN != "Mains lost: many at once" || parent.Device != "m4" {
		t.Errorf("the parent: %+v", parent)
	}
	for i, tr := range w.got {
		switch {
		case tr.Annunciated != (tr.Kind == citywarden.Raised && tr.Alarm.SuppressedBy == ""):
			t.Errorf("transition %d, %s: annunciated %t", i, tr.Key, tr.Annunciated)
		case tr.Alarm.Rule == "outage" && (tr.Case.Key != "outage/D1" || tr.Case.Hold != 0 || tr.Case.Parent != ""):
			t.Errorf("the parent's case: %+v", tr.Case)
		case tr.Alarm.SuppressedBy != "" && tr.Case.Parent != "outage/D1":
			t.Errorf("the case of child %s: %+v", tr.Key, tr.Case)
		}
	}
	if hold := w.got[0].Case.Hold.Std(); hold != 2*time.Minute {
		t.Errorf("the children's notices wait for %s, want as long as the storm takes to show", hold)
	}
	why := w.got[5].Why
	if why.Summary.EN != "D1: Mains lost at 4 devices within 2m." || why.Summary.ZH != "D1：2 分钟内 4 台设备发生“市电中断”。" || len(why.Members) != 4 {
		t.Errorf("why: %+v", why)
	}

	// It ends when fewer than half of three are active; the last one is annunciated.
	w.got = nil
	w.mains(5*time.Minute, true, "m1", "m2", "m3")
	w.to(7 * time.Minute)
	if n := strings.Count(w.story(), "cleared m"); n != 3 || strings.Contains(w.story(), " D1 ") {
		t.Errorf("two of five are active:\n%s", w.story())
	}
	w.got = nil
	w.mains(8*time.Minute, true, "m4")
	w.to(10 * time.Minute)
	w.expect(`
		8m0s clearing m4 major by-outage:D1:1
		9m0s cleared m4 major by-outage:D1:1
		9m0s cleared D1 critical
		9m0s unsuppressed m5 major`)
	if last := w.got[3]; !last.Annunciated || last.Case.Parent != "" {
		t.Errorf("the one that is still active: %+v", last)
	}
}

// What is raised within the window by its event time makes a storm, however late
// it arrives; what arrives together but is hours apart does not.
func TestStormsAreCountedByEventTime(t *testing.T) {
	w := newWorld(t, strings.ReplaceAll(stormRule, "for: 20s", "for: 0s"), meters(4)...)
	for i := range 4 {
		id := fmt.Sprintf("m%d", i+1)
		w.send(id, time.Duration(i)*time.Hour, 5*time.Hour+time.Duration(i)*s, "mains", false)
	}
	if strings.Contains(w.story(), "D1") {
		t.Errorf("hours apart:\n%s", w.story())
	}
	w = newWorld(t, strings.ReplaceAll(stormRule, "for: 20s", "for: 0s"), meters(4)...)
	for i := range 4 {
		id := fmt.Sprintf("m%d", i+1)
		w.send(id, time.Duration(4-i)*10*s, time.Duration(i+1)*20*time.Minute, "mains", false)
	}
	if !strings.Contains(w.story(), "40s raised D1 critical") {
		t.Errorf("together, but reported late and out of order:\n%s", w.story())
	}
}

func TestWhatIsKnownMakesNoStorm(t *testing.T) {
	w := newWorld(t, stormRule, meters(5)...)
	w.mains(10*s, false, "m1")
	w.to(40 * s)
	w.order(41*s, citywarden.OrderOutOfService, "mains:m1:1", 0)
	w.mains(50*s, false, "m2", "m3", "m4")
	w.to(3 * time.Minute)
	if strings.Contains(w.story(), "D1") {
		t.Errorf("three, and one that is out of service:\n%s", w.story())
	}
	// One device that comes and goes is one entity.
	w = newWorld(t, strings.ReplaceAll(strings.ReplaceAll(stormRule, "for: 20s", "for: 0s"), "for: 60s", "for: 0s"), meters(3)...)
	for i := range 10 {
		w.mains(time.Duration(i)*5*s, i%2 == 1, "m1")
	}
	if strings.Contains(w.story(), "D1") {
		t.Errorf("one device:\n%s", w.story())
	}
	// Four that are over at once leave nothing to explain.
	w = newWorld(t, strings.ReplaceAll(strings.ReplaceAll(stormRule, "for: 20s", "for: 0s"), "for: 60s", "for: 0s"), meters(4)...)
	for i := range 4 {
		w.mains(time.Duration(i)*10*s, false, fmt.Sprintf("m%d", i+1))
		w.mains(time.Duration(i)*10*s+5*s, true, fmt.Sprintf("m%d", i+1))
	}
	if strings.Contains(w.story(), "D1") {
		t.Errorf("one after the other:\n%s", w.story())
	}
}

func TestAStormInhibits(t *testing.T) {
	w := newWorld(t, stormRule+`
- {id: weak, select: {model: [smoke-detector]}, levels: [{severity: minor, when: 'battery < 10'}], clear: {when: 'battery > 15'}, inhibit_by: [{rule: outage, equal: [attr.district]}]}
`, append(meters(4), dev("s1", "smoke-detector", "district", "D1"), dev("s2", "smoke-detector", "district", "D2"))...)
	w.mains(10*s, false, "m1", "m2", "m3", "m4")
	w.put("s1", 60*s, "battery", 5.0)
	w.put("s2", 60*s, "battery", 5.0)
	if strings.Contains(w.story(), "s1") || !strings.Contains(w.story(), "raised s2") {
		t.Errorf("story:\n%s", w.story())
	}
	if len(w.set.Warnings()) > 0 {
		t.Errorf("warnings: %v", w.set.Warnings())
	}
}

func TestStormsAndChangedRulesAndDevices(t *testing.T) {
	begin := func() *world {
		w := newWorld(t, stormRule, meters(6)...)
		w.mains(10*s, false, "m1", "m2", "m3", "m4", "m5")
		w.to(2 * time.Minute)
		w.got = nil
		return w
	}
	t.Run("rule removed", func(t *testing.T) {
		w := begin()
		w.set = load(t, "rules:\n- {id: other, select: {model: [energy-meter]}, levels: [{severity: minor, when: 'power > 1'}]}\n")
		if err := w.e.SetRules(w.set); err != nil {
			t.Fatal(err)
		}
		w.mains(3*time.Minute, true, "m6")
		if n := strings.Count(w.story(), "cleared"); n != 6 || strings.Contains(w.story(), "unsuppressed") {
			t.Errorf("story:\n%s", w.story())
		}
	})
	t.Run("storm removed", func(t *testing.T) {
		w := begin()
		w.set = load(t, stormRule[:strings.Index(stormRule, "  storm:")]+"  case: {class: event/0501, key: 'power/{{attr.building}}'}\n")
		if err := w.e.SetRules(w.set); err != nil {
			t.Fatal(err)
		}
		w.mains(3*time.Minute, true, "m6")
		if n := strings.Count(w.story(), "unsuppressed m"); n != 5 || !strings.Contains(w.story(), "cleared D1") {
			t.Errorf("story:\n%s", w.story())
		}
	})
	t.Run("rule changed", func(t *testing.T) {
		w := begin()
		w.set = load(t, strings.NewReplacer("over: 3", "over: 12", "severity: critical", "severity: minor").Replace(stormRule))
		if err := w.e.SetRules(w.set); err != nil {
			t.Fatal(err)
		}
		w.mains(3*time.Minute, true, "m6")
		if got := w.story(); !strings.HasPrefix(got, "3m0s lowered D1 minor\n3m0s cleared D1 minor\n3m0s unsuppressed m1 major\n") || strings.Count(got, "unsuppressed m") != 5 {
			t.Errorf("story:\n%s", got)
		}
	})
	t.Run("devices deleted", func(t *testing.T) {
		w := begin()
		for _, id := range []string{"m1", "m2", "m3", "m4"} {
			w.e.DeviceChanged(*w.device(id), true)
		}
		w.mains(3*time.Minute, true, "m6")
		w.expect(`
			3m0s cleared m1 major by-outage:D1:1
			3m0s cleared m2 major by-outage:D1:1
			3m0s cleared m3 major by-outage:D1:1
			3m0s cleared m4 major by-outage:D1:1
			3m0s cleared D1 critical
			3m0s unsuppressed m5 major`)
	})
	t.Run("device moved", func(t *testing.T) {
		w := newWorld(t, stormRule, meters(6)...)
		w.mains(10*s, false, "m1", "m2", "m3")
		w.to(40 * s)
		moved := *w.device("m1")
		moved.Attributes = map[string]any{"district": "D9"}
		moved.Updated = t0.Add(40 * s)
		w.devices[0] = &moved
		w.e.DeviceChanged(moved, false)
		w.mains(41*s, false, "m4")
		w.to(80 * s)
		if strings.Contains(w.story(), "D1") {
			t.Errorf("three are left in the district:\n%s", w.story())
		}
	})
}

func TestAFlappingAlarmSaysSo(t *testing.T) {
	w := newWorld(t, `
rules:
- {id: r, select: {model: probe}, levels: [{severity: minor, when: 'on'}], clear: {when: 'not on', for: 5s}, flap: {changes: 4, in: 2m, then: hold}}
`, dev("d", "probe"))
	for i := range 4 {
		w.put("d", time.Duration(i)*10*s, "on", i%2 == 0)
	}
	w.put("d", 40*s, "on", true)
	w.to(4 * time.Minute)
	w.expect(`
		0s raised d minor
		10s clearing d minor
		15s cleared d minor
		20s raised d minor
		30s clearing d minor
		30s flapping d minor clearing
		40s resumed d minor
		2m10s steady d minor`)
	if a := w.got[5].Alarm; !a.Flapping || w.got[7].Alarm.Flapping || w.got[5].Annunciated {
		t.Errorf("flapping: %+v", a)
	}
}

func TestStormAndCaseMistakes(t *testing.T) {
	m := cityModels()
	m["smoke-detector"].Domain = citywarden.Fire
	rule := func(rest string) string {
		return "rules:\n- {id: r, select: {model: [smoke-detector]}, levels: [{severity: minor, when: 'smoke > 1'}], clear: {when: 'smoke < 0.5'}, " + rest + "}\n"
	}
	for _, c := range []struct{ yaml, want string }{
		{rule("storm: {by: attr.dma, over: 2, in: 1m, raise: s, severity: major}"), `r.yaml:2:`},
		{rule("storm: {by: attr.dma, over: 2, in: 1m, raise: s, severity: major}"), `counted by attr.dma, but model smoke-detector has no such attribute`},
		{rule("storm: {by: attr.zone, over: 2, in: 1m, raise: r, severity: major}"), `rule r is there already`},
		{rule("case: {key: k, parent: p}"), `rule r has no storm`},
		{rule("case: {key: k, parent: 'p/{{attr.dma}}'}, storm: {by: attr.zone, over: 2, in: 1m, raise: s, severity: major}"), `no attribute "dma"`},
		{rule("case: {key: k, hold: 5m}"), `never waits`},
		{rule("case: {key: k, close: {cleared_for: 5m}}"), `people close the cases of fire devices`},
		{rule("workorder: {key: k, close: {cleared_for: 5m}}, latch: true"), `of latched alarms`},
		{rule("workorder: {key: k, close: {}}"), `close needs cleared_for`},
		{rule("case: {key: k, limit: {cases: 3}}"), `limit needs cases and in`},
		{rule("case: {key: k, escalate: [{after: 5m}]}"), `an escalation needs after and to`},
		{rule("case: {key: k, escalate: [{after: 5m, to: x, unless: seen}]}"), `unless "seen"; it is acked`},
	} {
		_, err := Load(mapFS(c.yaml), m)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\ngives %v, want %q", c.yaml, err, c.want)
		}
	}
	set, err := Load(mapFS(rule("workorder: {key: k, hold: 5m, close: {cleared_for: 30m}}")), m)
	if err != nil || len(set.Warnings()) > 0 || set.rules[0].order.LifeSafety {
		t.Errorf("a work order of a fire device: %v, %v", err, set.Warnings())
	}
}
