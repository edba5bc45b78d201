package rules

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// everyRule uses every part of the language, for random histories.
const everyRule = `
rules:
- {id: a.limit, select: {model: probe}, levels: [{severity: minor, when: 'x > (attr.limit ?? 5)', for: 20s}, {severity: major, when: 'x > 8'}], clear: {when: 'x < 4', for: 30s}, latch: true}
- {id: a.window, select: {model: probe}, late: 90s, levels: [{severity: minor, when: 'avg(x, "2m") > 5 and max(x, "1m") - min(x, "1m") > 1', for: 15s}]}
- {id: a.delta, select: {model: probe}, late: 30s, levels: [{severity: major, when: 'delta(x, "60s") > 2 or rate(c, "60s") > 0.5 or count(changed(on), "2m") >= 4'}], clear: {when: 'stddev(x, "1m") < 3', for: 10s}}
- {id: b.group, select: {model: probe}, group: {by: attr.zone}, levels: [{severity: warning, when: 'n_of(x > 6, "60s") >= 1', for: 10s}, {severity: critical, when: 'n_of(x > 6, "60s") >= 2 or n_of(on, "30s") >= 3'}], clear: {when: 'n_of(x > 4, "120s") == 0', for: 20s}, case: {class: event/0501, key: 'z/{{zone}}'}}
- {id: c.silent, select: {model: probe}, levels: [{severity: minor, when: 'silent(attr.wait ?? "3m")', for: 20s}], inhibit_by: [{rule: d.event, equal: [attr.zone]}]}
- {id: d.event, select: {model: probe}, levels: [{severity: minor, when: 'event("boom", "2m")'}], clear: {when: 'not event("boom", "1m")'}}
- {id: e.adj, select: {model: probe}, late: 20s, levels: [{severity: major, when: 'x > 5 and n_adj(x > 5, "90s") >= 1', for: 15s}]}
- {id: g.late, select: {model: probe}, levels: [{severity: minor, when: 'y > 6', for: 5s}], clear: {when: 'y < 2'}, inhibit_by: [{rule: d.event, equal: [attr.zone]}, {rule: b.group, equal: [attr.zone]}]}
- {id: h.mains, select: {model: probe}, levels: [{severity: minor, when: 'y > 4', for: 5s}], clear: {when: 'y < 3', for: 5s}, storm: {by: attr.zone, over: 1, in: 3m, raise: i.outage, severity: critical}, flap: {changes: 3, in: 1m}, case: {key: 'm/{{device}}', parent: 'o/{{attr.zone}}'}}
- {id: k.under, select: {model: probe}, levels: [{severity: minor, when: 'x > 6'}], inhibit_by: [{rule: i.outage, equal: [attr.zone]}]}
- {id: f.night, select: {model: probe}, schedule: {active: ["mon-sun 08:10-08:20", "mon-sun 23:00-01:00"]}, levels: [{severity: minor, when: 'on or mode matches "^f"', for: 20s}], flap: {changes: 4, in: 3m, then: hold}}
- {id: g.clock, select: {model: probe}, levels: [{severity: warning, when: 'skew() > 5 or skew() < -20', for: 15s}], clear: {when: 'skew() < 3 and skew() > -10', for: 5s}}
`

func everyDevices() []*citywarden.Device {
	return []*citywarden.Device{
		dev("p1", "probe", "zone", "Z", "adjacent", "p2 p3"), dev("p2", "probe", "zone", "Z", "limit", 7.0, "adjacent", "p1"),
		dev("p3", "probe", "zone", "Z", "wait", "2m"), dev("p4", "probe", "zone", "Y"), dev("p5", "probe"),
	}
}

// history is a random log, as it would have been written: with ticks where timers were due.
func history(t testing.TB, seed uint64, n int) *world {
	w := newWorld(t, everyRule, everyDevices()...)
	r, more := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
	at := time.Duration(0)
	for range n {
		at += time.Duration(r.IntN(9000)) * time.Millisecond
		if r.IntN(60) == 0 {
			at += time.Duration(r.IntN(600)) * time.Second
			if w.noTicks = r.IntN(3) == 0; w.noTicks { // an outage
				w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordStart, At: t0.Add(at)}})
			}
		}
		if more.IntN(30) == 0 {
			o := citywarden.AlarmOrder{Kind: citywarden.OrderOutOfService, Device: citywarden.DeviceID(fmt.Sprintf("p%d", 1+more.IntN(5))), By: "li", Reason: "why"}
			switch more.IntN(6) {
			case 0:
				o.Kind = citywarden.OrderInService
			case 1, 2:
				o.Until = t0.Add(at + time.Duration(more.IntN(400))*time.Second)
			case 3:
				o.Rule, o.Entity, o.Device = []citywarden.RuleID{"a.limit", "e.adj", "h.mains"}[more.IntN(3)], string(o.Device), ""
			case 4:
				o.Rule, o.Entity, o.Device = []citywarden.RuleID{"b.group", "i.outage"}[more.IntN(2)], "Z", ""
			}
			w.to(at - time.Millisecond)
			w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordOrder, At: t0.Add(at), Order: &o}})
		}
		if r.IntN(15) == 0 && len(w.got) > 0 {
			kinds := []citywarden.OrderKind{citywarden.OrderAck, citywarden.OrderShelve, citywarden.OrderUnshelve, citywarden.OrderReset,
				citywarden.OrderOutOfService, citywarden.OrderInService, citywarden.OrderComment, citywarden.OrderAssign}
			a := w.got[len(w.got)-1-r.IntN(min(len(w.got), 15))].Alarm.ID
			w.order(at, kinds[r.IntN(len(kinds))], a, at+time.Duration(r.IntN(200))*time.Second)
			continue
		}
		ts := at - time.Duration(max(0, r.IntN(60)-30))*time.Second + time.Duration(max(0, r.IntN(50)-45))*time.Second
		var pairs []any
		for _, p := range []struct {
			name string
			v    any
		}{{"x", float64(r.IntN(100)) / 10}, {"y", float64(r.IntN(10))}, {"on", r.IntN(3) == 0}, {"mode", []string{"auto", "fault"}[r.IntN(2)]},
			{"c", float64(len(w.log))}, {"event", []string{"boom", "tick"}[r.IntN(2)]}} {
			if r.IntN(3) == 0 {
				pairs = append(pairs, p.name, p.v)
			}
		}
		w.send(fmt.Sprintf("p%d", 1+r.IntN(5)), ts, at, pairs...)
		w.noTicks = false
	}
	w.to(at + 20*time.Minute)
	return w
}

func replay(w *world, e *Engine, log []citywarden.Entry) []citywarden.Transition {
	var out []citywarden.Transition
	for _, x := range log {
		out = append(out, e.Step(&x)...)
	}
	return out
}

var byText = cmp.Comparer(func(a, b citywarden.Value) bool { return a == b })

func TestSameLogSameTransitions(t *testing.T) {
	seen := map[citywarden.TransitionKind]bool{}
	for seed := range repeats(20, 6) {
		w := history(t, seed, 300)
		if seed == 0 {
			for _, id := range []string{"a.limit", "a.window", "a.delta", "b.group", "c.silent", "d.event", "e.adj", "f.night", "g.late", "g.clock", "h.mains", "i.outage", "k.under"} {
				if !slices.ContainsFunc(w.got, func(tr citywarden.Transition) bool { return string(tr.Alarm.Rule) == id }) {
					t.Errorf("no transition of %s in the random history", id)
				}
			}
		}
		if got := replay(w, w.engine(), w.log); !reflect.DeepEqual(got, w.got) {
			t.Fatalf("seed %d: the second run differs:\n%s", seed, cmp.Diff(w.got, got, byText))
		}
		for _, tr := range w.got {
			seen[tr.Kind] = true
		}
	}
	for _, k := range []citywarden.TransitionKind{citywarden.Suppressed, citywarden.Unsuppressed, citywarden.WentOutOfService,
		citywarden.CameInService, citywarden.Shelved, citywarden.Unshelved, citywarden.Commented, citywarden.Assigned} {
		if !seen[k] {
			t.Errorf("no transition %s in the random histories", k)
		}
	}
}

func TestKeysAreUniqueAndOneEpisodeIsOpen(t *testing.T) {
	for seed := range repeats(30, 3) {
		w := history(t, 100+seed, 300)
		keys := map[string]bool{}
		open := map[string]citywarden.AlarmID{}
		for _, tr := range w.got {
			if keys[tr.Key] {
				t.Fatalf("seed %d: key %s twice", seed, tr.Key)
			}
			keys[tr.Key] = true
			who := string(tr.Alarm.Rule) + "/" + tr.Alarm.Entity
			if tr.Kind == citywarden.Raised {
				if open[who] != "" {
					t.Fatalf("seed %d: %s raised while %s is open", seed, tr.Alarm.ID, open[who])
				}
				open[who] = tr.Alarm.ID
			}
			if tr.Kind == citywarden.Cleared {
				if open[who] != tr.Alarm.ID {
					t.Fatalf("seed %d: %s cleared, but open is %q", seed, tr.Alarm.ID, open[who])
				}
				delete(open, who)
			}
			if (tr.Alarm.State == citywarden.AlarmActive) != (open[who] == tr.Alarm.ID) {
				t.Fatalf("seed %d: %s is %s", seed, tr.Key, tr.Alarm.State)
			}
		}
	}
}

// Whatever happens in whatever order: an open alarm is suppressed exactly while
// an inhibitor of it is open or a storm has it, what is out of service stays so from episode to
// episode, and nothing suppressed calls for a person.
func TestSuppressionHolds(t *testing.T) {
	for seed := range repeats(20, 3) {
		w := history(t, 500+seed, 300)
		e := w.engine()
		out := map[string]bool{}
		for _, x := range w.log {
			for _, tr := range e.Step(&x) {
				a := tr.Alarm
				who := string(a.Rule) + "/" + a.Entity
				switch tr.Kind {
				case citywarden.WentOutOfService:
					out[who] = true
				case citywarden.CameInService:
					delete(out, who)
				case citywarden.Cleared:
					if a.OutOfService.IsZero() { // it was with its device
						delete(out, who)
					}
				}
				if tr.Kind != citywarden.Raised && !a.OutOfService.IsZero() != out[who] { // the next says that it was raised so
					t.Fatalf("seed %d: %s: out of service since %s, want %t", seed, tr.Key, a.OutOfService, out[who])
				}
				if tr.Annunciated && (a.Acked || a.Suppressed() || a.State != citywarden.AlarmActive) {
					t.Fatalf("seed %d: %s %s calls for a person: %+v", seed, tr.Key, tr.Kind, a)
				}
			}
			for _, run := range e.runs {
				for _, inst := range run.insts {
					if by := e.byAlarm[inst.suppressedBy()]; inst.open && (by != nil) != (e.inhibited(inst) || inst.under() != "") || by != nil && inst.open && !by.open {
						t.Fatalf("seed %d at %s: %s is suppressed by %q, but inhibited %t", seed, x.At, inst.alarm.ID, inst.suppressedBy(), e.inhibited(inst))
					}
					if parent := e.byAlarm[inst.under()]; inst.under() != "" && (!inst.open || parent == nil || !parent.open || !parent.children()[inst]) {
						t.Fatalf("seed %d at %s: %s is a child of %s, which does not know it", seed, x.At, inst.alarm.ID, inst.under())
					}
				}
			}
		}
	}
}

func TestCrashAtEveryPoint(t *testing.T) {
	// ThingsBoard and eKuiper restart windows and durations from zero (eKuiper #3847).
	for seed := range repeats(3, 1) {
		w := history(t, 200+seed, int(repeats(150, 50)))
		e := w.engine()
		done := 0
		for i := range w.log {
			snap := snapshot(t, e)
			again := w.engine()
			if i > 0 {
				if err := again.Restore(snap); err != nil {
					t.Fatal(err)
				}
			}
			got, want := replay(w, again, w.log[i:]), w.got[done:]
			if len(got) != len(want) {
				t.Fatalf("seed %d: crash before entry %d of %d: %d transitions, want %d", seed, i, len(w.log), len(got), len(want))
			}
			if i%10 == 0 {
				if got, want := tellAll(got), tellAll(want); got != want {
					t.Fatalf("seed %d: crash before entry %d: %s", seed, i, cmp.Diff(want, got))
				}
			}
			done += len(e.Step(&w.log[i]))
		}
	}
}

// tellAll writes transitions with everything that matters.
func tellAll(ts []citywarden.Transition) string {
	var b strings.Builder
	for _, tr := range ts {
		fmt.Fprintf(&b, "%s pos %d %s %s %+v case %+v by %s %s %t", tr.Key, tr.Position, tr.At, tr.Kind, tr.Alarm, tr.Case, tr.By, tr.Note, tr.Annunciated)
		if tr.Why != nil {
			fmt.Fprintf(&b, " why %+v", *tr.Why)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestSnapshotOfARestoredEngineIsTheSame(t *testing.T) {
	w := history(t, 300, 300)
	a := snapshot(t, w.e)
	e := w.engine()
	if err := e.Restore(a); err != nil {
		t.Fatal(err)
	}
	b := snapshot(t, e)
	if string(a) != string(b) {
		t.Errorf("snapshots differ: %d and %d bytes", len(a), len(b))
	}
}

func TestASnapshotLacksWhatWasForgotten(t *testing.T) {
	var all []*citywarden.Device
	for i := range 40 { // more than a page
		all = append(all, dev(fmt.Sprintf("d%02d", i), "probe"))
	}
	w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'x > 5', for: 1h}]`), all...)
	for i, d := range all {
		w.put(string(d.ID), time.Duration(i)*s, "x", 6.0)
	}
	snapshot(t, w.e)
	without := func(n int) {
		t.Helper()
		e := w.engine()
		if err := e.Restore(snapshot(t, w.e)); err != nil {
			t.Fatal(err)
		}
		if got := e.Stats().Instances; got != n {
			t.Errorf("%d instances, want %d", got, n)
		}
	}
	for i, id := range []string{"d03", "d20", "d38", "d39"} {
		w.put(id, time.Duration(60+i)*s, "x", 1.0)
		without(39 - i)
	}
	w.devices = slices.Delete(w.devices, 10, 11)
	w.e.DeviceChanged(citywarden.Device{ID: "d10"}, true)
	w.tick(70 * s)
	without(35)
}

// TestASnapshotIsWrittenToOnePiece: an engine that knows how large the last one was does not
// write the next one to ever larger pieces, of which each is copied to the next.
func TestASnapshotIsWrittenToOnePiece(t *testing.T) {
	var all []*citywarden.Device
	for i := range 40 {
		all = append(all, dev(fmt.Sprintf("d%02d", i), "probe"))
	}
	w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'avg(x, "1h") > 5'}]`), all...)
	for i := range 20_000 {
		w.put(string(all[i%40].ID), time.Duration(i)*s/10, "x", float64(i%11))
	}
	data := snapshot(t, w.e)
	restored := w.engine()
	if err := restored.Restore(data); err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]*Engine{"the next": w.e, "after a start": restored} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		data, err := e.Snapshot()
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > uint64(len(data))*3/2 {
			t.Errorf("%s: %d bytes were allocated to write %d", name, took, len(data))
		}
	}
}

// TestASnapshotStaysAsItIs: until the next one is taken, whatever the engine does. What it
// holds for the next one is what that can take from it.
func TestASnapshotStaysAsItIs(t *testing.T) {
	for _, c := range []struct {
		name, when string
		every      time.Duration
		most       float64 // of the size of a snapshot
	}{{"readings", `avg(x, "1h") > 5`, s / 10, 0.2}, {"alarms", "x >= 0", 10 * time.Minute, 2.5}} {
		var all []*citywarden.Device
		for i := range 40 {
			all = append(all, dev(fmt.Sprintf("d%02d", i), "probe"))
		}
		w := newWorld(t, probeRule(fmt.Sprintf(`levels: [{severity: minor, when: '%s'}]`, c.when)), all...)
		for i := range 4000 {
			w.put(string(all[i%40].ID), time.Duration(i)*c.every, "x", float64(i%11))
		}
		var was, copied []byte
		for round := range 4 {
			if !bytes.Equal(was, copied) {
				t.Errorf("%s: the snapshot has changed by round %d", c.name, round)
			}
			data, err := w.e.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(data, copied) {
				t.Errorf("%s: round %d has changed nothing", c.name, round)
			}
			was, copied = data, slices.Clone(data)
			for i := range 40 {
				w.put(string(all[i].ID), time.Duration(4000+40*round+i)*c.every, "x", float64(round))
			}
		}
		held := cap(w.e.written) + cap(w.e.spare)
		if w.e.newest != nil {
			held = cap(w.e.newest) + cap(w.e.spare)
		}
		if float64(held) > c.most*float64(len(was)) {
			t.Errorf("%s: the engine holds %d bytes for the next snapshot, of %d", c.name, held, len(was))
		}
	}
}

func TestWhatIsRareIsNotKept(t *testing.T) {
	for seed := range uint64(10) {
		w := history(t, seed, 300)
		for _, x := range slices.Concat(w.e.runs, w.e.retired) {
			for _, inst := range x.list {
				had := inst.rare
				if inst.shed(); had != nil && inst.rare == nil {
					t.Errorf("history %d: %s on %s keeps %+v, which is nothing", seed, x.rule.ID, inst.entity, *had)
				}
			}
		}
	}
}

func TestReorderedWithinLateIsTheSame(t *testing.T) {
	// Readings that arrive in another order, but less than late apart, change
	// neither what happens nor when.
	rule := `
rules:
- {id: r.for, select: {model: probe}, late: 60s, levels: [{severity: minor, when: 'x > 5', for: 20s}, {severity: major, when: 'x > 8', for: 7s}], clear: {when: 'x < 4', for: 11s}}
- {id: r.window, select: {model: probe}, late: 60s, levels: [{severity: minor, when: 'avg(x, "40s") > 5 and delta(x, "20s") > -3', for: 15s}]}
- {id: r.count, select: {model: probe}, late: 60s, levels: [{severity: minor, when: 'count(x > 6, "45s") >= 2 and not changed(on)', for: 5s}], latch: true}
- {id: r.prev, select: {model: probe}, late: 60s, levels: [{severity: minor, when: 'prev(x) < x and y > 3'}], clear: {when: 'y < 3', for: 3s}}
`
	type message struct {
		ts    time.Duration
		pairs []any
	}
	runs, transitions := 0, 0
	for seed := range repeats(400, 40) {
		r := rand.New(rand.NewPCG(seed, 7))
		var ms []message
		ts := time.Duration(0)
		for range 60 {
			ts += time.Duration(1000+r.IntN(15000)) * time.Millisecond
			m := message{ts: ts, pairs: []any{"x", float64(r.IntN(100)) / 10}}
			if r.IntN(2) == 0 {
				m.pairs = append(m.pairs, "y", float64(r.IntN(7)))
			}
			if r.IntN(3) == 0 {
				m.pairs = append(m.pairs, "on", r.IntN(2) == 0)
			}
			ms = append(ms, m)
		}
		play := func(delay func() time.Duration) string {
			w := newWorld(t, rule, dev("d", "probe"))
			type arrival struct {
				at time.Duration
				m  message
			}
			var as []arrival
			for _, m := range ms {
				as = append(as, arrival{m.ts + delay(), m})
			}
			slices.SortStableFunc(as, func(a, b arrival) int { return int(a.at - b.at) })
			for _, a := range as {
				w.send("d", a.m.ts, a.at, a.m.pairs...)
			}
			w.to(ts + 30*time.Minute)
			var out []string
			for _, tr := range w.got {
				if tr.Kind == citywarden.WentDark || tr.Kind == citywarden.CameBack {
					continue // presence is about arrivals
				}
				out = append(out, fmt.Sprintf("%s %s %s", tr.Key, tr.At.Sub(t0), tr.Kind))
				transitions++
			}
			slices.Sort(out)
			return strings.Join(out, "\n")
		}
		want := play(func() time.Duration { return 0 })
		got := play(func() time.Duration { return time.Duration(r.IntN(59_000)) * time.Millisecond })
		if got != want {
			t.Fatalf("seed %d: reordered history differs:\n%s", seed, cmp.Diff(want, got))
		}
		runs++
	}
	t.Logf("%d histories, %d transitions", runs, transitions)
}

func TestReloadKeepsState(t *testing.T) {
	// Grafana resets to Normal when a rule is edited; Home Assistant loses `for`.
	base := `
rules:
- {id: keep, select: {model: probe}, levels: [{severity: minor, when: 'x > 5', for: 60s}]}
- {id: edit, select: {model: probe}, levels: [{severity: major, when: 'x > 5'}]}
- {id: gone, select: {model: probe}, levels: [{severity: minor, when: 'x > 5'}], case: {class: event/0501, key: 'k/{{device}}'}}
`
	w := newWorld(t, base, dev("d", "probe"))
	w.put("d", 0, "x", 6.0)
	w.set = load(t, `
rules:
- {id: edit, select: {model: probe}, levels: [{severity: major, when: 'x > 5.5', for: 10m}]}
- {id: keep, select: {model: probe}, levels: [{severity: minor, when: 'x > 5', for: 90s}]}
`)
	w.to(30 * s)
	if err := w.e.SetRules(w.set); err != nil {
		t.Fatal(err)
	}
	w.put("d", 40*s, "y", 1.0)
	w.to(100 * s)
	w.expect("0s raised d major\n0s raised d minor\n40s cleared d minor\n1m30s raised d minor")
	if tr := w.got[2]; tr.Alarm.Rule != "gone" || tr.Alarm.Reason != "rule removed" || tr.Case == nil || tr.Case.Key != "k/d" {
		t.Errorf("removed rule: %+v %+v", tr.Alarm, tr.Case)
	}
	w.set = load(t, `
rules:
- {id: edit, select: {model: probe}, levels: [{severity: major, when: 'x > 7'}]}
- {id: keep, select: {model: probe}, levels: [{severity: minor, when: 'x > 5', for: 90s}]}
`)
	if err := w.e.SetRules(w.set); err != nil {
		t.Fatal(err)
	}
	w.put("d", 110*s, "y", 1.0)
	if last := w.got[len(w.got)-1]; last.Alarm.Rule != "edit" || last.Kind != citywarden.Cleared {
		t.Errorf("the new condition is false, but:\n%s", w.story())
	}
}

func TestDamagedSnapshotsAreRefused(t *testing.T) {
	w := history(t, 400, 60)
	snap := snapshot(t, w.e)
	for i := 0; i < len(snap); i += 7 {
		if err := w.engine().Restore(snap[:i]); err == nil {
			t.Fatalf("a snapshot cut at %d of %d bytes was taken", i, len(snap))
		}
	}
	if err := w.engine().Restore(append(slices.Clone(snap), 0)); err == nil {
		t.Error("a snapshot with a byte too many was taken")
	}
}

func FuzzRestore(f *testing.F) {
	w := history(f, 401, 40)
	snap := snapshot(f, w.e)
	f.Add(snap)
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = w.engine().Restore(data) // must return, and not take memory that data can't stand for
	})
}
