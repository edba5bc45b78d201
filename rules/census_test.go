package rules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// uncounted has the members of every group looked at one by one.
func uncounted(set *Set) {
	for _, p := range set.order {
		for _, b := range p.bindings {
			for _, c := range b.prog.all() {
				for _, m := range c.members {
					m.steady = false
				}
			}
		}
	}
}

// crowd is a random history of large groups, whose members move, change and
// come late. It also returns how often a group had a census after a message.
func crowd(t *testing.T, seed uint64, counted bool, crash int) (w *world, taken int) {
	var devices []*citywarden.Device
	for i := range 30 {
		devices = append(devices, dev(fmt.Sprintf("p%02d", i), "probe", "zone", []string{"A", "A", "A", "B"}[i%4]))
	}
	w = newWorld(t, `
rules:
- {id: share, select: {model: probe}, group: {by: attr.zone}, levels: [{severity: minor, when: 'n_of(x > (attr.limit ?? 5), "60s") >= 6', for: 10s}, {severity: major, when: 'n_of(x > 8, "40s") >= 5 or n_of(mode == "fault", "30s") >= 6'}], clear: {when: 'n_of(x > 4, "90s") <= 5', for: 15s}}
- {id: none, select: {model: probe}, group: {by: attr.zone}, levels: [{severity: warning, when: 'n_of(y < 3, "2m") == 0', for: 5s}]}
- {id: two, select: {model: probe, where: 'attr.limit != 6'}, group: {by: attr.zone}, levels: [{severity: minor, when: 'n_of(on and y > 4, "45s") >= 2 and n_of(attr.limit > 5, "1s") >= 3'}], latch: true}
- {id: moving, select: {model: probe}, group: {by: attr.zone}, levels: [{severity: minor, when: 'n_of(delta(x, "1m") > 3, "1m") >= 3 or n_of(x > 9, "20s") >= 4'}]}
- {id: silent, select: {model: probe}, group: {by: attr.zone}, levels: [{severity: minor, when: 'n_of(silent("40s"), "1h") >= 9 and n_of(x > 3, "2m") >= 4'}]}
- {id: late, select: {model: probe}, late: 20s, group: {by: attr.zone}, levels: [{severity: minor, when: 'n_of(x > 6, "60s") >= 7'}]}
`, devices...)
	if !counted {
		uncounted(w.set)
	}
	r := rand.New(rand.NewPCG(seed, 3))
	mood, at := 5, time.Duration(0)
	for i := range 600 {
		if i%60 == 0 {
			mood = 2 + r.IntN(7)
		}
		at += time.Duration(r.IntN(2500)) * time.Millisecond
		if r.IntN(200) == 0 {
			at += time.Duration(r.IntN(150)) * time.Second
		}
		k := r.IntN(len(w.devices))
		if r.IntN(40) == 0 {
			d := *w.devices[k]
			d.Updated = t0.Add(at)
			d.Attributes = map[string]any{"zone": []string{"A", "B"}[r.IntN(2)], "limit": float64(3 + r.IntN(5))}
			w.devices[k] = &d
			w.e.DeviceChanged(d, false)
		}
		ts := at - time.Duration(max(0, r.IntN(60)-40))*time.Second
		var pairs []any
		for _, p := range []struct {
			name string
			v    any
		}{{"x", float64(min(r.IntN(2*mood), 10))}, {"y", float64(r.IntN(3 + mood))}, {"on", r.IntN(3) > 0}, {"mode", []string{"auto", "fault"}[r.IntN(12)*mood/60]}} {
			if r.IntN(3) > 0 {
				pairs = append(pairs, p.name, p.v)
			}
		}
		w.send(string(w.devices[k].ID), ts, at, pairs...)
		for _, x := range w.e.runs {
			for _, g := range x.groups {
				taken += one(g.census != nil)
			}
		}
		if crash > 0 && i%crash == 0 {
			snap := snapshot(t, w.e)
			w.e = w.engine()
			if err := w.e.Restore(snap); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.to(at + 10*time.Minute)
	return w, taken
}

func TestCensusChangesNothing(t *testing.T) {
	kinds := map[string]int{}
	for seed := range repeats(12, 4) {
		plain, taken := crowd(t, seed, false, 0)
		if taken > 0 {
			t.Fatalf("a census of groups that are to be looked at one by one")
		}
		want := tellAll(plain.got)
		for _, crash := range []int{7, 0}[:repeats(2, 1)] {
			w, taken := crowd(t, seed, true, crash)
			if taken == 0 {
				t.Fatal("no group had a census")
			}
			if got := tellAll(w.got); got != want {
				t.Fatalf("seed %d, crash every %d: %s", seed, crash, cmp.Diff(want, got))
			}
		}
		for _, tr := range plain.got {
			kinds[string(tr.Alarm.Rule)+" "+string(tr.Kind)]++
		}
	}
	for _, k := range []string{"share raised", "share escalated", "share joined", "share cleared", "none raised", "none cleared", "two raised", "two joined", "moving raised", "silent raised", "late raised"} {
		if kinds[k] == 0 {
			t.Errorf("no transition %q in the random histories: %v", k, kinds)
		}
	}
}

// A group at rest doesn't keep what nobody asks for.
func TestCensusEnds(t *testing.T) {
	var devices []*citywarden.Device
	for i := range 20 {
		devices = append(devices, dev(fmt.Sprintf("p%02d", i), "probe", "zone", "A"))
	}
	w := newWorld(t, `rules: [{id: r, select: {model: probe}, group: {by: attr.zone}, levels: [{severity: minor, when: 'n_of(x > 5, "60s") >= 2'}]}]`, devices...)
	g := w.e.runs[0].groups["A"]
	for i := range 5 {
		w.put(string(devices[i].ID), time.Duration(i)*time.Second, "x", 9.0)
	}
	if g.census == nil || !g.inst.open {
		t.Fatal("no alarm, or no census of it")
	}
	for i := range 60 {
		w.put(string(devices[i%20].ID), time.Duration(10+i)*time.Second, "x", 1.0)
	}
	if g.census != nil {
		t.Error("the census stays for ever")
	}
	if slices.ContainsFunc(devices, func(d *citywarden.Device) bool { return len(w.e.devices[d.ID].awake) > 1 }) {
		t.Error("a device lists a rule twice")
	}
}
