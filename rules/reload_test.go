package rules

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// reload runs yaml from now on, as Runner.Reload does: with what the history
// has, and a record at once.
func (w *world) reload(at time.Duration, yaml string) {
	w.t.Helper()
	w.to(at - time.Millisecond)
	w.set = load(w.t, yaml)
	past := w.e.recall(w.set)
	if past != nil {
		for i := range w.log {
			past.hear(&w.log[i])
		}
	}
	if err := w.e.SetRules(w.set); err != nil {
		w.t.Fatal(err)
	}
	if past != nil {
		past.fill(w.e)
	}
	w.tick(at)
}

func (w *world) tick(at time.Duration) {
	w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordTick, At: t0.Add(at)}})
}

func TestReloadWhileANeighboursReadingWaits(t *testing.T) {
	rule := func(limit string) string {
		return probeRule(`levels: [{severity: major, when: 'avg(x, "1m") > ` + limit + ` and n_adj(x > 5, "90s") >= 1'}]`)
	}
	w := newWorld(t, rule("5"), dev("p1", "probe", "adjacent", "p2"), dev("p2", "probe", "adjacent", "p1"))
	w.send("p1", 1*s, 11*s, "x", 6.0) // it is 10 s behind, so what a neighbour says waits for it
	w.put("p2", 12*s, "x", 6.0)
	w.reload(15*s, rule("4"))
	w.to(60 * s)
	w.expect("12s raised p2 major\n12s raised p1 major")
}

func TestTwoReloadsWithoutARecordBetweenThem(t *testing.T) {
	rule := func(f string) string {
		return probeRule(`levels: [{severity: major, when: 'x > 5', for: ` + f + `}]`)
	}
	w := newWorld(t, rule("60s"), dev("d", "probe"))
	w.put("d", 0, "x", 6.0)
	w.to(10 * s)
	for range 2 {
		w.set = load(t, rule("90s"))
		if err := w.e.SetRules(w.set); err != nil {
			t.Fatal(err)
		}
	}
	w.tick(20 * s)
	w.to(200 * s)
	w.expect("1m30s raised d major")
}

func TestASilentDeviceIsSeenByARuleThatComesLater(t *testing.T) {
	silent := func(w string) string {
		return probeRule(`levels: [{severity: minor, when: 'silent("` + w + `")'}]`)
	}
	t.Run("shorter", func(t *testing.T) {
		w := newWorld(t, silent("15m"), dev("d", "probe"))
		w.put("d", 10*s, "x", 1.0)
		w.reload(20*s, silent("1m"))
		w.to(2 * time.Minute)
		w.expect("1m10s raised d minor")
	})
	t.Run("shorter than it is silent", func(t *testing.T) {
		w := newWorld(t, silent("15m"), dev("d", "probe"))
		w.put("d", 10*s, "x", 1.0)
		w.reload(5*time.Minute, silent("1m"))
		w.expect("5m0s raised d minor")
	})
	t.Run("new", func(t *testing.T) {
		w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'x > 5'}]`), dev("d", "probe"))
		w.put("d", 10*s, "x", 1.0)
		w.reload(5*time.Hour, silent("15m"))
		w.expect("5h0m0s raised d minor")
	})
	t.Run("attribute", func(t *testing.T) {
		w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'silent(attr.wait ?? "15m")'}]`), dev("d", "probe"))
		w.put("d", 10*s, "x", 1.0)
		w.to(5 * time.Minute)
		w.devices = []*citywarden.Device{dev("d", "probe", "wait", "1m")}
		w.e.DeviceChanged(*w.devices[0], false)
		w.tick(5 * time.Minute)
		w.expect("5m0s raised d minor")
	})
}

// Nothing is to be heard of a device that is disabled, or whose gateway is: that is
// no silence. Once let in again it has its full time, whatever else changes.
func TestADisabledDeviceIsNotSilent(t *testing.T) {
	rule := probeRule(`levels: [{severity: minor, when: 'silent("1m")'}]`)
	change := func(w *world, at time.Duration, id string, disabled bool) {
		w.to(at - time.Millisecond)
		w.devices = slices.Clone(w.devices)
		i := slices.IndexFunc(w.devices, func(d *citywarden.Device) bool { return string(d.ID) == id })
		d := *w.devices[i]
		d.Disabled, d.Updated = disabled, t0.Add(at)
		w.devices[i] = &d
		w.e.DeviceChanged(d, false)
		w.tick(at)
	}
	t.Run("itself", func(t *testing.T) {
		w := newWorld(t, rule, dev("d", "probe"))
		w.put("d", 10*s, "x", 1.0)
		change(w, 30*s, "d", true)
		w.to(10 * time.Minute)
		w.expect("")
		change(w, 10*time.Minute, "d", false)
		w.reload(10*time.Minute+20*s, rule+"- {id: other, select: {model: probe}, levels: [{severity: minor, when: 'x > 5'}]}\n")
		w.to(20 * time.Minute)
		w.expect("11m0s raised d minor")
	})
	t.Run("when it is silent already", func(t *testing.T) {
		w := newWorld(t, rule, dev("d", "probe"))
		w.put("d", 10*s, "x", 1.0)
		change(w, 3*time.Minute, "d", true)
		w.to(10 * time.Minute)
		change(w, 10*time.Minute, "d", false)
		w.put("d", 10*time.Minute+30*s, "x", 1.0)
		w.to(11*time.Minute + 29*s)
		w.expect(`
			1m10s raised d minor
			3m0s cleared d minor`)
	})
	t.Run("its gateway", func(t *testing.T) {
		w := newWorld(t, rule, dev("d", "probe", "gateway", "g"), dev("e", "probe"), dev("g", "probe"))
		for _, id := range []string{"d", "e", "g"} {
			w.put(id, 10*s, "x", 1.0)
		}
		change(w, 30*s, "g", true)
		w.to(5 * time.Minute)
		w.expect("1m10s raised e minor")
		w.e = w.engine() // anew: g is bound after d
		w.got = nil
		w.put("e", 5*time.Minute, "x", 1.0)
		w.to(7 * time.Minute)
		w.expect("6m0s raised e minor")
		change(w, 7*time.Minute, "g", false)
		w.to(9 * time.Minute)
		w.expect(`
			6m0s raised e minor
			8m0s raised d minor
			8m0s raised g minor`)
	})
	t.Run("the rest of its rules", func(t *testing.T) {
		w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'x > 5'}]`), dev("d", "probe"))
		w.put("d", 10*s, "x", 6.0)
		change(w, 30*s, "d", true)
		w.expect("10s raised d minor")
	})
}

// TestADeviceThatWasLetInIsRestored: an engine that goes on from a snapshot has let a device in when the one did that wrote it.
func TestADeviceThatWasLetInIsRestored(t *testing.T) {
	rule := `rules:
- {id: one, select: {model: probe}, levels: [{severity: minor, when: 'silent("1m")'}]}
- {id: zone, select: {model: probe}, group: {by: attr.zone}, levels: [{severity: major, when: 'n_of(silent("1m"), "1s") >= 1'}]}
`
	change := func(w *world, at time.Duration, disabled bool) {
		d := *w.devices[0]
		d.Disabled, d.Updated = disabled, t0.Add(at)
		w.devices = []*citywarden.Device{&d, w.devices[1]}
		w.e.DeviceChanged(d, false)
	}
	for _, c := range []struct {
		name string
		at   time.Duration // of the snapshot, after d was enabled; there is a record between when it is not 0
	}{{"and looked at since", 10 * s}, {"and not looked at yet", 0}} {
		t.Run(c.name, func(t *testing.T) {
			run := func(anew bool) (*world, []byte) {
				w := newWorld(t, rule, dev("d", "probe", "zone", "Z"), dev("e", "probe", "zone", "Z"))
				w.put("d", 10*s, "x", 1.0)
				w.put("e", 10*s, "x", 1.0)
				w.to(30 * s)
				change(w, 30*s, true)
				for at := time.Minute; at < 10*time.Minute; at += 30 * s {
					w.put("e", at, "x", 1.0)
				}
				w.to(10*time.Minute - time.Millisecond)
				w.expect("")
				change(w, 10*time.Minute, false)
				if c.at > 0 {
					w.tick(10 * time.Minute)
					w.to(10*time.Minute + c.at)
				}
				if data := snapshot(t, w.e); anew {
					w.e = w.engine()
					if err := w.e.Restore(data); err != nil {
						t.Fatal(err)
					}
				}
				w.tick(10*time.Minute + c.at + time.Second) // as the runner gives one each second
				w.put("e", 10*time.Minute+20*s, "x", 1.0)   // evaluates its zone
				change(w, 10*time.Minute+20*s, false)       // and d is evaluated
				w.put("e", 10*time.Minute+50*s, "x", 1.0)
				w.put("e", 11*time.Minute+10*s, "x", 1.0)
				w.to(11*time.Minute + 40*s)
				return w, snapshot(t, w.e)
			}
			live, end := run(false)
			again, end2 := run(true)
			if diff := cmp.Diff(live.got, again.got); diff != "" {
				t.Errorf("transitions (-live +restored):\n%s", diff)
			}
			if string(end) != string(end2) {
				t.Error("the restored engine ends in another state")
			}
			if len(live.got) != 2 {
				t.Errorf("%d transitions, want that of d and that of its zone", len(live.got))
			}
		})
	}
}

func TestALaneThatChangesItsLateKeepsWhatWaits(t *testing.T) {
	rule := func(late string) string {
		return probeRule(`late: `+late, `levels: [{severity: major, when: 'x > 5'}]`, `clear: {when: 'x < 1'}`)
	}
	for _, late := range []string{"0s", "30s", "90s"} {
		w := newWorld(t, rule("60s"), dev("d", "probe"))
		w.put("d", 10*s, "x", 9.0)
		w.put("d", 20*s, "x", 4.0)
		w.reload(25*s, rule(late))
		w.to(5 * time.Minute)
		w.put("d", 6*time.Minute, "x", 4.0)
		if len(w.got) == 0 {
			t.Errorf("late %s: what waited under 60s was never evaluated", late)
			continue
		}
		w.expect("10s raised d major")
	}
}

func TestALoweredThresholdIsEvaluatedAtOnce(t *testing.T) {
	// Devices that report once in an hour would be watched by the old one until then.
	for _, c := range []struct{ name, was, now string }{
		{"lowered", `levels: [{severity: major, when: 'x > 5'}]`, `levels: [{severity: major, when: 'x > 3'}]`},
		{"with for", `levels: [{severity: major, when: 'x > 5'}]`, `levels: [{severity: major, when: 'x > 3', for: 10s}]`},
		{"late", `{late: 60s, levels: [{severity: major, when: 'x > 5'}]}`, `{late: 60s, levels: [{severity: major, when: 'x > 3'}]}`},
		{"in a group", `{group: {by: attr.zone}, levels: [{severity: major, when: 'n_of(x > 5, "10m") >= 1'}]}`, `{group: {by: attr.zone}, levels: [{severity: major, when: 'n_of(x > 3, "10m") >= 1'}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			rule := func(x string) string {
				if strings.HasPrefix(x, "{") {
					return "rules:\n- {id: r, select: {model: probe}, " + x[1:] + "\n"
				}
				return probeRule(x)
			}
			w := newWorld(t, rule(c.was), dev("d", "probe"))
			w.put("d", 0, "x", 4.0)
			w.reload(2*time.Minute, rule(c.now))
			w.to(5 * time.Minute)
			w.expect(map[string]string{"lowered": "2m0s", "with for": "2m10s", "late": "1m0s", "in a group": "2m0s"}[c.name] + " raised d major")
		})
	}
}

func TestANewRuleSeesWhatIsThere(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: major, when: 'x > 5'}]`), dev("d", "probe"), dev("old", "probe"))
	w.put("old", 0, "x", 4.0)
	w.put("d", 30*time.Minute, "x", 4.0)
	w.reload(31*time.Minute, probeRule(`levels: [{severity: major, when: 'x > 5'}]`)+"- {id: s, select: {model: probe}, levels: [{severity: minor, when: 'x > 3'}]}\n")
	w.expect("31m0s raised d minor") // what old measured is no more known
}

func TestWhatAReloadDoesIsDatedWhenItWas(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: major, when: 'x > 5', for: 1h}]`), dev("d", "probe"), dev("e", "probe"))
	w.put("d", 0, "x", 6.0)
	w.put("e", 5*s, "x", 9.0)
	w.reload(2*time.Minute, probeRule(`levels: [{severity: major, when: 'x > 5', for: 30s}]`))
	w.expect("2m0s raised d major\n2m0s raised e major")
	w.reload(3*time.Minute, probeRule(`levels: [{severity: major, when: 'x > 7', for: 30s}]`))
	w.expect("2m0s raised d major\n2m0s raised e major\n3m0s cleared d major")
}

func TestARuleThatGroupsDifferentlyAndIsInhibited(t *testing.T) {
	rule := func(group, n string) string {
		return "rules:\n- {id: a, select: {model: probe}, levels: [{severity: minor, when: 'y > 5'}]}\n" +
			"- {id: r, select: {model: probe}, " + group + "inhibit_by: [{rule: a, equal: [attr.site]}], levels: [{severity: major, when: '" + n + "'}]}\n"
	}
	each, group := rule("", "x > 5"), rule("group: {by: attr.zone}, ", `n_of(x > 5, "1m") >= 1`)
	for _, c := range []struct{ was, is, want string }{
		{each, group, "0s raised d major\n10s cleared d major\n10s raised Z major"},
		{group, each, "0s raised Z major\n10s cleared Z major\n10s raised d major"},
	} {
		w := newWorld(t, c.was, dev("d", "probe", "site", "s", "zone", "Z"))
		w.put("d", 0, "x", 9.0)
		w.reload(10*s, c.is)
		w.expect(c.want)
		if reason := w.got[1].Alarm.Reason; reason != "rule groups differently now" {
			t.Errorf("reason %q", reason)
		}
	}
}

func TestAReloadRaisesNothingThatAnInhibitorHoldsAnew(t *testing.T) {
	held := "- {id: b, select: {model: probe}, inhibit_by: [{rule: a, equal: [attr.zone]}], levels: [{severity: minor, when: 'x > 5'}]}\n"
	w := newWorld(t, "rules:\n- {id: a, select: {model: probe}, group: {by: attr.zone}, levels: [{severity: major, when: 'n_of(on, \"10m\") >= 1'}]}\n"+held, dev("d", "probe", "zone", "Z"))
	w.put("d", 0, "on", true)
	w.put("d", 5*s, "x", 9.0)
	w.reload(10*s, "rules:\n- {id: a, select: {model: probe}, levels: [{severity: major, when: 'on'}]}\n"+held)
	w.to(60 * s)
	w.expect("0s raised Z major\n10s cleared Z major\n10s raised d major")
}

func TestASilenceIsLookedAtOnlyWhenARuleAsksForIt(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'x > 5 and count(y, "15m") > 9'}]`), dev("d", "probe"))
	w.put("d", 0, "y", 1.0) // the model's silence, 20 minutes, is timed from here
	w.put("d", 10*s, "y", 1.0)
	w.reload(4*time.Minute, probeRule(`levels: [{severity: minor, when: 'silent("3m") and count(y, "15m") >= 1'}]`))
	w.to(time.Hour)
	w.expect("4m0s raised d minor\n20m10s cleared d minor")

	one := probeRule(`levels: [{severity: minor, when: 'not silent("1m") or delta(y, "90s") > 0.5'}]`)
	w = newWorld(t, one+"- {id: s, select: {model: probe}, levels: [{severity: minor, when: 'silent(\"3m\") and x > 5'}]}\n", dev("d", "probe"))
	w.put("d", 0, "y", 1.0)
	w.to(2 * time.Minute) // r is unknown after a minute, false after 90 s, and the next silence is that of s
	w.reload(150*s, one)
	w.to(time.Hour)
	w.expect("0s raised d minor\n20m0s cleared d minor")
}

func TestAReloadEvaluatesNothingBecauseItIsOutOfService(t *testing.T) {
	// Neither device was ever heard. That nobody is to be told of one of them
	// doesn't make its condition matter.
	rule := func(w string) string {
		return probeRule(`levels: [{severity: minor, when: 'not silent("` + w + `")', for: 90s}]`)
	}
	w := newWorld(t, rule("1m"), dev("d", "probe"), dev("e", "probe"))
	w.e.evaluateAny(w.e.devices["d"]) // as a message without readings does
	w.e.evaluateAny(w.e.devices["e"])
	w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordOrder, At: t0.Add(5 * s),
		Order: &citywarden.AlarmOrder{Kind: citywarden.OrderOutOfService, Rule: "r", Entity: "d", By: "li", Reason: "why"}}})
	w.reload(70*s, rule("5m"))
	w.to(time.Hour)
	w.expect("")
}

// Of several alarms that a reload raises the first explains what they inhibit,
// whichever of the devices was at rest before.
func TestWhichInhibitorAReloadRaisesFirst(t *testing.T) {
	rule := func(when string) string {
		return "rules:\n- {id: a, select: {model: probe}, levels: [{severity: major, when: '" + when + "', for: 10s}]}\n" +
			"- {id: b, select: {model: probe}, inhibit_by: [{rule: a, equal: [attr.zone]}], levels: [{severity: minor, when: on}]}\n"
	}
	for _, x := range [][2]float64{{6, 6}, {6, 3}, {3, 6}, {3, 3}} {
		w := newWorld(t, rule("x > 5"), dev("p1", "probe", "zone", "Z"), dev("p2", "probe", "zone", "Z"), dev("p3", "probe", "zone", "Z"))
		w.put("p3", 0, "on", true)
		w.put("p1", 1*s, "x", x[0])
		w.put("p2", 2*s, "x", x[1])
		w.reload(5*s, strings.Replace(rule("x > 1"), ", for: 10s", "", 1))
		if last := w.got[len(w.got)-2]; last.Kind != citywarden.Suppressed || last.Alarm.SuppressedBy != "a:p1:1" {
			t.Errorf("x %v: %s %s by %s\n%s", x, last.Key, last.Kind, last.Alarm.SuppressedBy, w.story())
		}
	}
}

func TestANewRuleWithALateOfItsOwnSeesWhatItWouldHaveWaitedFor(t *testing.T) {
	old := "rules:\n- {id: old, select: {model: probe}, levels: [{severity: major, when: 'avg(x, \"10m\") > 100', for: 10m}]}\n"
	w := newWorld(t, old, dev("d", "probe"))
	w.put("d", 10*s, "x", 9.0)
	w.put("d", 20*s, "x", 1.0)
	w.put("d", 40*s, "x", 9.0)
	w.put("d", 50*s, "x", 1.0)
	// As of 25 s, x is 1: what came since waits for the new rule, and 9 is seen.
	w.reload(85*s, old+"- {id: new, select: {model: probe}, late: 60s, levels: [{severity: minor, when: 'x > 5'}]}\n")
	w.to(5 * time.Minute)
	w.expect("40s raised d minor\n50s cleared d minor")
}

// registered tells the devices of w, of other models than it has.
type registered struct {
	w *world
	models
}

// Each calls f for every device.
func (r registered) Each(f func(*citywarden.Device, *citywarden.Model)) {
	for _, d := range r.w.devices {
		f(d, r.models[d.Model])
	}
}

func TestAReloadAfterADeviceGotAnotherModel(t *testing.T) {
	// Its readings of before are of something else, perhaps in another unit.
	rule := func(when string) string {
		return "rules:\n- {id: r, select: {model: [probe, meter]}, levels: [{severity: major, when: '" + when + "'}]}\n"
	}
	for _, restart := range []bool{false, true} {
		was := models{}
		was.add("probe", time.Hour, "x:number:bar", "")
		was.add("meter", time.Hour, "x:number:kPa", "")
		get := func(when string) *Set {
			set, err := Load(mapFS(rule(when)), was)
			if err != nil {
				t.Fatal(err)
			}
			return set
		}
		w := &world{t: t, set: get(`x > 5000`), devices: []*citywarden.Device{dev("d", "meter")}}
		e := New(w.set, Options{Devices: registered{w, was}})
		w.e = e
		w.tick(0)
		w.put("d", 10*s, "x", 400.0)
		snap := snapshot(t, e)
		changed := dev("d", "probe")
		changed.Updated = t0.Add(20 * s)
		w.devices = []*citywarden.Device{changed}
		if restart {
			w.e = New(w.set, Options{Devices: registered{w, was}})
			if err := w.e.Restore(snap); err != nil {
				t.Fatal(err)
			}
		} else {
			w.e.DeviceChanged(*changed, false)
		}
		w.put("d", 30*s, "x", 4.0)
		w.set = get(`avg(x, "10m") > 5`)
		past := w.e.recall(w.set)
		for i := range w.log {
			past.hear(&w.log[i])
		}
		if err := w.e.SetRules(w.set); err != nil {
			t.Fatal(err)
		}
		past.fill(w.e)
		w.tick(40 * s)
		w.put("d", 50*s, "x", 4.0)
		w.expect("")
		if n := len(w.e.devices["d"].rings[0].s); n != 2 {
			t.Errorf("restart %t: %d readings remembered, want those as a probe", restart, n)
		}
	}
}
