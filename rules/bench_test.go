package rules

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"

	"github.com/citywarden/citywarden"
)

// many writes n rules over the 20 metrics of a model, a twentieth of them per metric.
func many(n int, form string) (fstest.MapFS, models) {
	m := models{}
	var metrics []string
	for i := range 20 {
		metrics = append(metrics, fmt.Sprintf("m%d:number", i))
	}
	m.add("wide", time.Hour, strings.Join(metrics, " "), "zone:text limit:number")
	files := fstest.MapFS{}
	for i := range n {
		name := fmt.Sprintf("%d.yaml", i/1000)
		if files[name] == nil {
			files[name] = &fstest.MapFile{Data: []byte("rules:\n")}
		}
		group := ""
		if strings.Contains(form, "n_of") {
			group = "group: {by: attr.zone}, "
		}
		files[name].Data = fmt.Appendf(files[name].Data, "- {id: r%d, select: {model: wide}, %slevels: [{severity: minor, when: '%s'}]}\n", i, group, strings.ReplaceAll(strings.ReplaceAll(form, "M", fmt.Sprintf("m%d", i%20)), "K", fmt.Sprint(100+i)))
	}
	return files, m
}

// undisturbed is how many messages a piece of a benchmark has. The piece that
// takes least had the processor's caches for itself.
const undisturbed = 20_000

// cpu returns the processor time that this process has used. The machines that
// benchmarks run on do other things too.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkMessage is one message with one metric, against n rules of its model:
// a twentieth of them read the metric. Next to it stands what expr's VM takes
// for all rules of the model, over the same windows and members, and how much more
// that many rules take than 100.
func BenchmarkMessage(b *testing.B) {
	for _, kind := range []struct{ name, form, vm string }{
		{"threshold", "M > K", "M > K"},
		{"attribute", "M > (attr.limit ?? K)", "M > (attr.limit ?? K)"},
		{"rate", `rate(M, "2m") > K`, "(last(M) - first(M)) / 120 > K"},
		{"average", `avg(M, "5m") > K`, "mean(M) > K"},
		{"2-of-n", `n_of(M > K, "60s") >= 2`, "count(M, # > K) >= 2"},
	} {
		few := math.NaN() // what 100 rules take
		for _, n := range []int{100, 1000, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", kind.name, n), func(b *testing.B) {
				yaml, m := many(n, kind.form)
				set, err := Load(yaml, m)
				if err != nil {
					b.Fatal(err)
				}
				var devices []*citywarden.Device
				for i := range 20 {
					devices = append(devices, dev(fmt.Sprintf("d%d", i), "wide", "zone", "Z"))
				}
				e := New(set, Options{Devices: fixed{devices, m}})
				entries := make([]citywarden.Entry, 400)
				for i := range entries {
					entries[i] = citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordUplink}, Device: devices[i%20],
						Readings: []citywarden.Reading{{Metric: m["wide"].Metrics[i/20].Name, Value: citywarden.Number(float64(i % 90))}}}
				}
				at := t0
				next := func(i int) *citywarden.Entry {
					at = at.Add(25 * time.Millisecond)
					x := &entries[i%len(entries)]
					x.At, x.Readings[0].Time = at, at
					return x
				}
				for i := range 40 * len(entries) { // windows are full, rings as large as they get
					e.Step(next(i))
				}
				runtime.GC() // what loading left behind is no part of a message
				b.ReportAllocs()
				began := cpu()
				piece, quiet := began, math.Inf(1)
				for i := 0; b.Loop(); i++ {
					if len(e.Step(next(i))) > 0 {
						b.Fatal("an alarm")
					}
					if i%undisturbed == undisturbed-1 {
						now := cpu()
						quiet, piece = min(quiet, float64(now-piece)/undisturbed), now
					}
				}
				ours := float64(cpu()-began) / float64(b.N)
				began = cpu()
				for i := range b.N {
					next(i)
				}
				self := float64(cpu()-began) / float64(b.N) // what the benchmark takes for itself
				ours, quiet = ours-self, quiet-self
				theirs := vmTakes(b, n, kind.vm)
				b.ReportMetric(ours, "cpu-ns/op")
				if b.N >= undisturbed {
					if n == 100 {
						few = quiet
					}
					b.ReportMetric(quiet, "quiet-cpu-ns/op")
					b.ReportMetric(quiet/few, "times-100-rules")
				}
				b.ReportMetric(theirs, "vm-cpu-ns/op")
				b.ReportMetric(theirs/ours, "times-faster")
			})
		}
	}
}

// BenchmarkWindow is one aggregate over a window alone: of 30 readings, each
// looked at, and of 43,200, which are panes. Beside it stands how much memory the device's
// history of the metric takes with it.
func BenchmarkWindow(b *testing.B) {
	for _, w := range []struct {
		name          string
		within, every time.Duration
	}{{"30", 5 * time.Minute, 10 * time.Second}, {"43200", 24 * time.Hour, 2 * time.Second}} {
		m := memory{keep: w.within.Milliseconds(), each: 0}
		within := w.within.Milliseconds()
		at, r := int64(0), &ring{}
		i := m.window(within)
		for ; at < 2*within; at += w.every.Milliseconds() {
			r.insert(newSample(at, at, float64(at%97)), nil, &m)
			r.trim(at, &m)
		}
		for name, a := range map[string]aggregate{"average": avgOf, "max": maxOf} {
			b.Run(name+"/"+w.name, func(b *testing.B) {
				began := cpu()
				for b.Loop() {
					if x := r.over(a, i, within, at); x != x {
						b.Fatal("no average")
					}
				}
				b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op")
				b.ReportMetric(float64(r.bytes()), "bytes/window")
			})
		}
	}
}

// BenchmarkGroupInAlarm is a message of a member of a group, half of which is in
// alarm, beside the same with the members looked at one by one.
func BenchmarkGroupInAlarm(b *testing.B) {
	for _, n := range []int{100, 1000} {
		for _, how := range []string{"counted", "one-by-one"} {
			b.Run(fmt.Sprintf("%d/%s", n, how), func(b *testing.B) {
				m := models{}
				m.add("probe", time.Hour, "x:number", "zone:text")
				set, err := Load(mapFS(fmt.Sprintf(`rules: [{id: r, select: {model: probe}, group: {by: attr.zone}, levels: [{severity: minor, when: 'n_of(x > 5, "60s") >= %d', for: 5s}], clear: {when: 'n_of(x > 4, "2m") <= %d', for: 10s}}]`, n/4, n/8)), m)
				if err != nil {
					b.Fatal(err)
				}
				if how == "one-by-one" {
					uncounted(set)
				}
				var devices []*citywarden.Device
				for i := range n {
					devices = append(devices, dev(fmt.Sprintf("d%d", i), "probe", "zone", "Z"))
				}
				e := New(set, Options{Devices: fixed{devices, m}})
				readings := []citywarden.Reading{{Metric: "x"}}
				at := t0
				step := func(i int) int {
					at = at.Add(45 * time.Second / time.Duration(n))
					readings[0].Value, readings[0].Time = citywarden.Number(float64(6*(i%2))+float64(i%7)/7), at
					return len(e.Step(&citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordUplink, At: at}, Device: devices[i%n], Readings: readings}))
				}
				for i := range 40 * n {
					step(i)
				}
				if s := e.Stats(); s.Active != 1 || len(e.runs[0].groups["Z"].inst.members()) != n/2 {
					b.Fatalf("%+v", s)
				}
				b.ReportAllocs()
				began := cpu()
				for i := 0; b.Loop(); i++ {
					if step(i) > 0 {
						b.Fatal("a transition")
					}
				}
				b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// neighbours has n devices stand in a ring, and returns what has the next of them send a
// reading: it returns how many transitions that made.
func neighbours(t testing.TB, n int) func() int {
	m := models{}
	m.add("probe", time.Hour, "x:number", "")
	set, err := Load(mapFS(`rules: [{id: r, select: {model: probe}, late: 2m, levels: [{severity: minor, when: 'delta(x, "2m") < -50 and n_adj(delta(x, "2m") < -50, "3m") >= 1', for: 30s}], clear: {when: 'x > 90', for: 10s}}]`), m)
	if err != nil {
		t.Fatal(err)
	}
	var devices []*citywarden.Device
	for i := range n {
		d := dev(fmt.Sprintf("d%d", i), "probe")
		for _, k := range []int{i + 1, i + n - 1} {
			d.Adjacent = append(d.Adjacent, citywarden.DeviceID(fmt.Sprintf("d%d", k%n)))
		}
		devices = append(devices, d)
	}
	e := New(set, Options{Devices: fixed{devices, m}})
	readings := []citywarden.Reading{{Metric: "x"}}
	at, i := t0, 0
	return func() int {
		at, i = at.Add(30*time.Second/time.Duration(n)), i+1
		readings[0].Value, readings[0].Time = citywarden.Number(float64(i%7)), at
		return len(e.Step(&citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordUplink, At: at}, Device: devices[i%n], Readings: readings}))
	}
}

// BenchmarkNeighbours is a message of a device whose neighbours wait for it.
func BenchmarkNeighbours(b *testing.B) {
	step := neighbours(b, 100)
	for range 4000 {
		step()
	}
	b.ReportAllocs()
	began := cpu()
	for b.Loop() {
		if step() > 0 {
			b.Fatal("a transition")
		}
	}
	b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op")
}

// TestWaitingAgainTakesNoMemory: who waits for neighbours does so with each of their messages.
func TestWaitingAgainTakesNoMemory(t *testing.T) {
	step := neighbours(t, 100)
	for range 4000 {
		step()
	}
	if n := testing.AllocsPerRun(4000, func() { step() }); n > 0 { // rounded down
		t.Errorf("%v allocations a message", n)
	}
}

// vmTakes returns how much processor time expr's VM takes for n rules, ns.
func vmTakes(b *testing.B, n int, form string) float64 {
	names, in := types.Map{}, map[string]any{"attr": map[string]any{"limit": nil}}
	names["attr"] = types.Map{"limit": types.Any}
	for i := range 20 {
		m := fmt.Sprintf("m%d", i)
		if strings.Contains(form, "(M") && !strings.Contains(form, "attr") {
			values := make([]float64, 20)
			if strings.Contains(form, "mean") {
				values = make([]float64, 30)
			}
			names[m], in[m] = types.Array(types.Float64), values
			continue
		}
		names[m], in[m] = types.Float64, float64(i)
	}
	var progs []*vm.Program
	for i := range n {
		p, err := expr.Compile(strings.ReplaceAll(strings.ReplaceAll(form, "M", fmt.Sprintf("m%d", i%20)), "K", fmt.Sprint(100+i)), expr.Env(names))
		if err != nil {
			b.Fatal(err)
		}
		progs = append(progs, p)
	}
	machine := vm.VM{}
	began, rounds := cpu(), 0
	for ; cpu()-began < 100*time.Millisecond; rounds++ {
		for _, p := range progs {
			if out, err := machine.Run(p, in); err != nil || out.(bool) {
				b.Fatal(out, err)
			}
		}
	}
	return float64(cpu()-began) / float64(rounds)
}

// BenchmarkLoad reads, checks and compiles so many rules, with a test of each.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		files, m := many(n, `M > K and (M + 1) * 2 > K or count(M > K, "1h") > 5`)
		for i := range n / 1000 {
			f := files[fmt.Sprintf("%d.yaml", i)]
			f.Data = append(f.Data, "tests:\n"...)
			for k := range 1000 {
				f.Data = fmt.Appendf(f.Data, "- {name: t%d, devices: {d: {model: wide}}, input: [{device: d, metric: m%d, values: 1}], expect: [{none: r%d}]}\n", k, k%20, i*1000+k)
			}
		}
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) {
			b.ReportAllocs()
			began := cpu()
			for b.Loop() {
				set, err := Load(files, m)
				if err != nil || len(set.rules) != n || len(set.Untested()) > 0 {
					b.Fatal(err)
				}
			}
			b.ReportMetric((cpu()-began).Seconds()*1e3/float64(b.N), "cpu-ms/load")
		})
	}
}

// BenchmarkSnapshot is a snapshot with a million open alarms, ten on each device:
// when all of them, a tenth, or none changed since the one before.
func BenchmarkSnapshot(b *testing.B) {
	const n = 1_000_000
	m := models{}
	m.add("probe", time.Hour, "on:bool", "")
	var yaml strings.Builder
	yaml.WriteString("rules:\n")
	for i := range 10 {
		fmt.Fprintf(&yaml, "- {id: r%d, select: {model: probe}, levels: [{severity: major, when: on}]}\n", i)
	}
	set, err := Load(mapFS(yaml.String()), m)
	if err != nil {
		b.Fatal(err)
	}
	e := New(set, Options{})
	for i := range n / 10 {
		e.Step(&citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordUplink, At: t0}, Device: dev(fmt.Sprintf("device-%d", i), "probe"),
			Readings: []citywarden.Reading{{Metric: "on", Value: citywarden.Bool(true), Time: t0}}})
	}
	if s := e.Stats(); s.Active != n {
		b.Fatalf("%d alarms", s.Active)
	}
	run := func(name string, before, f func()) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			used, least := time.Duration(0), time.Duration(math.MaxInt64)
			for b.Loop() {
				b.StopTimer()
				before()
				b.StartTimer()
				began := cpu()
				f()
				took := cpu() - began
				used, least = used+took, min(least, took)
			}
			b.ReportMetric(used.Seconds()*1e3/float64(b.N), "cpu-ms/op")
			b.ReportMetric(least.Seconds()*1e3, "quiet-cpu-ms/op")
		})
	}
	var snap []byte
	for _, x := range []struct {
		name  string
		every int // instance that changed
	}{{"all", 1}, {"tenth", 10}, {"none", n}} {
		run("write/"+x.name, func() {
			for _, r := range e.runs {
				for i := 0; i < len(r.list); i += x.every {
					r.list[i].touch()
				}
			}
		}, func() {
			if snap, err = e.Snapshot(); err != nil {
				b.Fatal(err)
			}
		})
	}
	e = nil // who restores has no other engine
	run("restore", func() {}, func() {
		if err := New(set, Options{}).Restore(snap); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkBacktest is a reading of a history against 100 rules, with both
// engines and the ticks, beside BenchmarkMessage.
func BenchmarkBacktest(b *testing.B) {
	yaml, m := many(100, "M > K")
	set, err := Load(yaml, m)
	if err != nil {
		b.Fatal(err)
	}
	d := &diary{}
	var devices []*citywarden.Device
	for i := range 20 {
		devices = append(devices, dev(fmt.Sprintf("d%d", i), "wide", "zone", "Z"))
	}
	const n = 100_000
	begin := time.Now().Add(-2 * time.Hour).Truncate(time.Millisecond)
	for i := range n {
		at := begin.Add(time.Duration(i) * 25 * time.Millisecond)
		d.entries = append(d.entries, citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordUplink, At: at}, Device: devices[i%20],
			Readings: []citywarden.Reading{{Metric: citywarden.MetricName(fmt.Sprintf("m%d", i/20%20)), Value: citywarden.Number(float64(i % 90)), Time: at}}})
	}
	l := NewLab(NewRunner(New(set, Options{Devices: fixed{devices, m}}), nil, nil, RunnerOptions{}), d, d, anyClass, time.UTC)
	text := "rules: [{id: r0, select: {model: wide}, levels: [{severity: minor, when: 'm0 > 99'}]}]"
	for b.Loop() {
		if _, err := l.Backtest(b.Context(), citywarden.BacktestRequest{Text: text, From: begin}, func(citywarden.BacktestProgress) {}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "readings/s")
}
