package rules

import (
	"fmt"
	"strings"
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
	m.add("wide", time.Hour, strings.Join(metrics, " "), "zone:text")
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

// BenchmarkMessage is one message with one metric, against n rules of its model.
func BenchmarkMessage(b *testing.B) {
	for _, kind := range []struct{ name, form string }{
		{"threshold", "M > K"},
		{"rate", `rate(M, "2m") > K`},
		{"average", `avg(M, "5m") > K`},
		{"2-of-n", `n_of(M > K, "60s") >= 2`},
	} {
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
						Readings: []citywarden.Reading{{Metric: citywarden.MetricName(fmt.Sprintf("m%d", i/20)), Value: citywarden.Number(float64(i % 90))}}}
				}
				at := t0
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					at = at.Add(25 * time.Millisecond)
					x := &entries[i%len(entries)]
					x.At, x.Readings[0].Time = at, at
					if len(e.Step(*x)) > 0 {
						b.Fatal("an alarm")
					}
				}
			})
		}
	}
}

// BenchmarkVM is what expr's VM takes for all threshold rules of the model.
func BenchmarkVM(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			names, in := types.Map{}, map[string]any{}
			for i := range 20 {
				names[fmt.Sprintf("m%d", i)] = types.Float64
				in[fmt.Sprintf("m%d", i)] = float64(i)
			}
			var progs []*vm.Program
			for i := range n {
				p, err := expr.Compile(fmt.Sprintf("m%d > %d", i%20, 100+i), expr.Env(names))
				if err != nil {
					b.Fatal(err)
				}
				progs = append(progs, p)
			}
			machine := vm.VM{}
			b.ReportAllocs()
			for b.Loop() {
				for _, p := range progs {
					if out, err := machine.Run(p, in); err != nil || out.(bool) {
						b.Fatal(out, err)
					}
				}
			}
		})
	}
}

// BenchmarkSnapshot is a snapshot with so many open alarms.
func BenchmarkSnapshot(b *testing.B) {
	const n = 100_000
	m := cityModels()
	set, err := Load(mapFS(probeRule(`levels: [{severity: major, when: on}]`)), m)
	if err != nil {
		b.Fatal(err)
	}
	e := New(set, Options{})
	for i := range n {
		e.Step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordUplink, At: t0}, Device: dev(fmt.Sprintf("d%d", i), "probe"),
			Readings: []citywarden.Reading{{Metric: "on", Value: citywarden.Bool(true), Time: t0}}})
	}
	b.ReportAllocs()
	for b.Loop() {
		snap, err := e.Snapshot()
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(snap)))
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N)/n*1e6, "ms/million-alarms")
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
	l := NewLab(NewRunner(New(set, Options{Devices: fixed{devices, m}}), nil, nil, RunnerOptions{}), d, d, anyClass)
	text := "rules: [{id: r0, select: {model: wide}, levels: [{severity: minor, when: 'm0 > 99'}]}]"
	for b.Loop() {
		if _, err := l.Backtest(b.Context(), citywarden.BacktestRequest{Text: text, From: begin}, func(citywarden.BacktestProgress) {}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "readings/s")
}
