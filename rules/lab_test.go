package rules

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// diary is the stored history and the recorded alarms of a world.
type diary struct {
	entries []citywarden.Entry
	alarms  []citywarden.Alarm // the newest first
	told    []citywarden.Transition
	logged  time.Time // since when it is from the log; zero for ever
	before  func()    // called before each entry, nil for nothing
}

func (d *diary) Entries(_ context.Context, q citywarden.HistoryQuery, f func([]citywarden.Entry) error) (time.Time, error) {
	for _, x := range d.entries {
		if x.At.Before(q.From) || !x.At.Before(q.To) {
			continue
		}
		if x.Device != nil && q.Devices != nil && !q.Devices[x.Device.ID] {
			x.Device, x.Readings = nil, nil
		}
		if d.before != nil {
			d.before()
		}
		if err := f([]citywarden.Entry{x}); err != nil {
			return d.logged, err
		}
	}
	if d.logged.Before(q.From) {
		return q.From, nil
	}
	return d.logged, nil
}

func (d *diary) Alarms(_ context.Context, f citywarden.AlarmFilter) (out []citywarden.Alarm, _ string, _ error) {
	for _, a := range d.alarms {
		if a.Rule == f.Rule && a.Shadow == f.Shadow {
			out = append(out, a)
		}
	}
	return out, "", nil
}

func (d *diary) History(_ context.Context, id citywarden.AlarmID) (out []citywarden.AlarmStep, _ error) {
	for _, tr := range d.told {
		if tr.Alarm.ID == id {
			out = append(out, citywarden.AlarmStep{Kind: tr.Kind, At: tr.At, Logged: tr.Logged, By: tr.By, Reason: tr.Note})
		}
	}
	return out, nil
}

// diary returns what w went through. Orders for an alarm that is not the newest
// of its entity are left out: the API refuses those that would do anything.
func (w *world) diary() *diary {
	d := &diary{told: w.got}
	e := w.engine()
	for i, x := range w.log {
		if i == 0 {
			x.Kind = citywarden.RecordStart
		}
		if x.Order == nil || e.byAlarm[x.Order.Alarm] != nil {
			d.entries = append(d.entries, x)
		}
		e.Step(&x)
	}
	newest := map[citywarden.AlarmID]citywarden.Alarm{}
	for _, tr := range w.got {
		a := tr.Alarm
		a.Shadow = tr.Shadow
		newest[a.ID] = a
	}
	for _, a := range newest {
		d.alarms = append(d.alarms, a)
	}
	slices.SortFunc(d.alarms, func(a, b citywarden.Alarm) int { return b.RaisedAt.Compare(a.RaisedAt) })
	return d
}

func anyClass(c citywarden.ClassCode) error {
	if c == "event/9999" {
		return citywarden.Errorf(citywarden.CodeNotFound, "no class %s", c)
	}
	return nil
}

// lab returns a lab beside the rules of w.
func (w *world) lab(d *diary) *Lab {
	return NewLab(NewRunner(w.engine(), nil, nil, RunnerOptions{}), d, d, anyClass, defaultLocation())
}

// inJanuary runs a test in virtual time, a day after t0.
func inJanuary(t *testing.T, f func(*testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(t0.Add(24 * time.Hour)))
		f(t)
	})
}

func quiet(citywarden.BacktestProgress) {}

func backtest(t *testing.T, l *Lab, q citywarden.BacktestRequest) citywarden.Backtest {
	t.Helper()
	out, err := l.Backtest(t.Context(), q, quiet)
	if err != nil {
		t.Fatalf("Backtest: %v", err)
	}
	return out
}

// episodes tells alarms as "both d1 major 10s..20s (now 11s..20s)" lines.
func episodes(as []citywarden.BacktestAlarm) string {
	at := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.Sub(t0).String()
	}
	var b strings.Builder
	for _, a := range as {
		fmt.Fprintf(&b, "%s %s %s %s..%s", a.In, a.Entity, a.Severity, at(a.Raised), at(a.Cleared))
		if !a.NowRaised.IsZero() {
			fmt.Fprintf(&b, " (now %s..%s)", at(a.NowRaised), at(a.NowCleared))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// TestABacktestRaisesWhatWasRaisedLive: ThingsBoard #14214, #15114. The history
// has late readings, orders and outages; the backtest steps its own ticks.
func TestABacktestRaisesWhatWasRaisedLive(t *testing.T) {
	inJanuary(t, func(t *testing.T) {
		alarms := 0
		for seed := range repeats(12, 2) {
			w := history(t, 500+seed, 300)
			d := w.diary()
			w.got, w.e = nil, w.engine()
			for _, x := range d.entries { // without the orders that the diary leaves out
				w.got = append(w.got, w.e.Step(&x)...)
			}
			end := d.entries[len(d.entries)-1].At.Add(time.Millisecond)
			bare := *d
			bare.entries = slices.DeleteFunc(slices.Clone(d.entries), func(x citywarden.Entry) bool { return x.Kind == citywarden.RecordTick })
			for _, r := range w.set.Rules() {
				live := &tally{open: map[string]int{}}
				for i := range w.got {
					if w.got[i].Alarm.Rule == r.ID {
						live.take(&w.got[i], t0)
					}
				}
				counts := live.counts(t0, end)
				var want []citywarden.BacktestAlarm
				for i := range live.episodes {
					want = append(want, live.episodes[i].alarm("tried"))
				}
				alarms += len(want)
				for name, h := range map[string]*diary{"with": d, "without": &bare} {
					all := backtest(t, w.lab(h), citywarden.BacktestRequest{Rule: r.ID, From: t0, To: end}).Rules // with its storms, if there were any
					i := slices.IndexFunc(all, func(x citywarden.BacktestRule) bool { return x.Rule == r.ID })
					if i < 0 && len(want) == 0 {
						continue
					}
					got := all[i]
					if diff := cmp.Diff(episodes(want), episodes(got.Alarms)); diff != "" {
						t.Fatalf("seed %d, %s, %s the logged ticks: the backtest differs from live:\n%s", seed, r.ID, name, diff)
					}
					if diff := cmp.Diff(counts, got.Tried); diff != "" {
						t.Fatalf("seed %d, %s: counts: %s", seed, r.ID, diff)
					}
				}
			}
		}
		t.Logf("%d alarms", alarms)
	})
}

// The rule of the text beside the rule that runs.
const limitRule = `
rules:
- {id: limit, title: {zh: 超限, en: Too much}, select: {model: probe}, levels: [{severity: minor, when: 'x > 5', for: 10s}, {severity: major, when: 'x > 8'}], clear: {when: 'x < 5'}}
`

func TestABacktestComparesWithTheRuleThatRuns(t *testing.T) {
	inJanuary(t, func(t *testing.T) {
		w := newWorld(t, limitRule, dev("a", "probe"), dev("b", "probe"), dev("c", "probe"))
		put := func(id string, from time.Duration, xs ...float64) {
			for i, x := range xs {
				w.put(id, from+time.Duration(i)*10*s, "x", x)
			}
		}
		put("a", time.Hour, 6, 6, 6, 1, 1)                // both
		put("b", time.Hour+time.Minute, 4.5, 4.5, 4.5, 1) // only tried
		put("a", 2*time.Hour, 9, 1, 9, 1, 9, 1)           // only major: chatters now, is not tried
		put("c", 3*time.Hour, 6, 6, 9, 9)                 // stays active
		put("b", 5*time.Hour, 6, 6, 1)                    // after to
		d := w.diary()
		l := w.lab(d)
		q := citywarden.BacktestRequest{From: t0.Add(30 * time.Minute), To: t0.Add(4 * time.Hour),
			Text: "rules:\n- {id: limit, select: {model: probe}, levels: [{severity: minor, when: 'x > 4', for: 15s}, {severity: major, when: 'x > 8', for: 10s}], clear: {when: 'x < 2'}}\n"}
		got := backtest(t, l, q)
		r := got.Rules[0]
		want := `both a minor 1h0m15s..1h0m30s (now 1h0m10s..1h0m30s)
tried b minor 1h1m15s..1h1m30s
now a major 2h0m0s..2h0m10s
now a major 2h0m20s..2h0m30s
now a major 2h0m40s..2h0m50s
both c major 3h0m15s.. (now 3h0m10s..)
`
		if diff := cmp.Diff(want, episodes(r.Alarms)); diff != "" {
			t.Errorf("alarms: %s", diff)
		}
		if r.OnlyTried != 1 || r.OnlyNow != 3 || r.Both != 2 || r.Running == "" || r.Running == r.Version {
			t.Errorf("difference: %+v", r)
		}
		if diff := cmp.Diff(citywarden.BacktestCounts{
			Raises: 3, Clears: 2, Escalations: 1, Open: 1, Entities: 3, Active: citywarden.Duration(15*s + 15*s + time.Hour - 15*s),
			Longest: citywarden.Duration(time.Hour - 15*s), Shortest: citywarden.Duration(15 * s),
			PerTenMin: 3.0 / 21, Peak: 2, PeakAt: t0.Add(time.Hour + 15*s), Chattering: []string{},
		}, r.Tried); diff != "" {
			t.Errorf("tried: %s", diff)
		}
		if r.Now == nil || r.Now.Raises != 5 || r.Now.Peak != 3 || !slices.Equal(r.Now.Chattering, []string{"a"}) {
			t.Errorf("now: %+v", r.Now)
		}
		if got.Readings != 19 || got.Warmup.After(q.From) || len(got.Notes) == 0 {
			t.Errorf("result: %+v", got)
		}
		if live := w.lab(d); live.runner.e.Stats().Instances != 0 {
			t.Error("the backtest touched the engine that runs")
		}

		q.Devices = []citywarden.DeviceID{"b"}
		if got := episodes(backtest(t, l, q).Rules[0].Alarms); got != "tried b minor 1h1m15s..1h1m30s\n" {
			t.Errorf("with device b only:\n%s", got)
		}
		q.Devices, q.From = nil, t0.Add(3*time.Hour+10*time.Minute)
		if r := backtest(t, l, q).Rules[0]; r.Tried.Standing != 1 || r.Tried.Raises != 0 || r.Tried.Active != citywarden.Duration(50*time.Minute) || r.Both != 1 {
			t.Errorf("an alarm that was active before: %+v", r)
		}
		q.Text = strings.Replace(q.Text, "id: limit", "id: another", 1)
		if r := backtest(t, l, q).Rules[0]; r.Now != nil || r.Running != "" || r.OnlyTried != 1 {
			t.Errorf("a rule that does not run: %+v", r)
		}
	})
}

func TestABacktestKnowsInhibitorsThatRun(t *testing.T) {
	inJanuary(t, func(t *testing.T) {
		w := newWorld(t, `
rules:
- {id: gateway, select: {model: parking-gateway}, levels: [{severity: major, when: 'not mains'}], clear: {when: mains}}
- {id: quiet, select: {model: probe}, levels: [{severity: minor, when: 'x > 5'}]}
`, dev("g", "parking-gateway", "district", "D"), dev("p", "probe"))
		w.put("g", time.Hour, "mains", false)
		w.put("p", time.Hour+s, "x", 9.0)
		text := "rules: [{id: quiet, select: {model: probe}, levels: [{severity: minor, when: 'x > 5'}], inhibit_by: [{rule: gateway}]}]"
		r := backtest(t, w.lab(w.diary()), citywarden.BacktestRequest{Text: text, From: t0, To: t0.Add(2 * time.Hour)})
		if len(r.Rules) != 1 || r.Rules[0].Tried.Raises != 0 || r.Rules[0].OnlyNow != 1 {
			t.Errorf("a rule held back by one that runs: %+v", r.Rules)
		}
	})
}

func TestABacktestIsRefused(t *testing.T) {
	inJanuary(t, func(t *testing.T) {
		w := newWorld(t, limitRule, dev("a", "probe"))
		l := w.lab(w.diary())
		now := time.Now()
		for _, c := range []struct {
			name, want string
			code       citywarden.Code
			q          citywarden.BacktestRequest
		}{
			{"nothing to test", "one of the two", citywarden.CodeInvalid, citywarden.BacktestRequest{From: t0}},
			{"both", "one of the two", citywarden.CodeInvalid, citywarden.BacktestRequest{From: t0, Text: limitRule, Rule: "limit"}},
			{"no from", "from when", citywarden.CodeInvalid, citywarden.BacktestRequest{Rule: "limit"}},
			{"from after to", "from is not before to", citywarden.CodeInvalid, citywarden.BacktestRequest{Rule: "limit", From: t0, To: t0}},
			{"from in the future", "from is not before to", citywarden.CodeInvalid, citywarden.BacktestRequest{Rule: "limit", From: now.Add(time.Hour), To: now.Add(2 * time.Hour)}},
			{"too long", "31 days", citywarden.CodeInvalid, citywarden.BacktestRequest{Rule: "limit", From: now.AddDate(0, 0, -40)}},
			{"no such rule", `no rule limits; did you mean "limit"?`, citywarden.CodeNotFound, citywarden.BacktestRequest{Rule: "limits", From: t0}},
			{"no rules", "no rules in the text", citywarden.CodeInvalid, citywarden.BacktestRequest{Text: "rules: []", From: t0}},
			{"mistakes", "rules.yaml:3:62: ", citywarden.CodeInvalid, citywarden.BacktestRequest{Text: strings.Replace(limitRule, "model: probe", "model: prob", 1), From: t0}},
			{"not YAML", "not valid YAML", citywarden.CodeInvalid, citywarden.BacktestRequest{Text: "rules: [", From: t0}},
			{"too large", "larger than", citywarden.CodeInvalid, citywarden.BacktestRequest{Text: strings.Repeat("# and so on\n", 100_000), From: t0}},
		} {
			_, err := l.Backtest(t.Context(), c.q, quiet)
			if citywarden.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("%s: %v, want %s with %q", c.name, err, c.code, c.want)
			}
			if c.name == "mistakes" || c.name == "not YAML" || c.name == "too large" {
				if ps := problemsOf(err); len(ps) == 0 || ps[0].Line == 0 {
					t.Errorf("%s: no place in %+v", c.name, ps)
				}
			}
		}
	})
}

func TestABacktestEndsWithItsCaller(t *testing.T) {
	inJanuary(t, func(t *testing.T) {
		w := newWorld(t, limitRule, dev("a", "probe"))
		for i := range 2000 {
			w.put("a", time.Duration(i)*s, "x", 1.0)
		}
		d := w.diary()
		ctx, cancel := context.WithCancel(t.Context())
		seen := 0
		d.before = func() {
			time.Sleep(10 * time.Millisecond)
			if seen++; seen == 500 {
				cancel()
			}
		}
		progressed := 0
		_, err := w.lab(d).Backtest(ctx, citywarden.BacktestRequest{Rule: "limit", From: t0}, func(p citywarden.BacktestProgress) {
			if p.Done <= 0 || p.Done >= 1 || p.Readings == 0 || p.At.Before(t0) {
				t.Errorf("progress %+v", p)
			}
			progressed++
		})
		if !errors.Is(err, context.Canceled) || seen > 510 || progressed < 5 {
			t.Errorf("a backtest whose caller went: %v after %d entries and %d reports of progress", err, seen, progressed)
		}
	})
}

func TestTheLabHasTwoPlaces(t *testing.T) {
	inJanuary(t, func(t *testing.T) {
		w := newWorld(t, limitRule, dev("a", "probe"))
		w.put("a", s, "x", 1.0)
		d := w.diary()
		goOn := make(chan struct{})
		d.before = func() { <-goOn }
		l := w.lab(d)
		var all sync.WaitGroup
		for range maxRuns {
			all.Go(func() { backtest(t, l, citywarden.BacktestRequest{Rule: "limit", From: t0}) })
		}
		synctest.Wait()
		if _, err := l.Backtest(t.Context(), citywarden.BacktestRequest{Rule: "limit", From: t0}, quiet); citywarden.CodeOf(err) != citywarden.CodeTransient {
			t.Errorf("a third backtest: %v", err)
		}
		if _, err := l.WhyNot(t.Context(), "limit", "a", t0); citywarden.CodeOf(err) != citywarden.CodeTransient {
			t.Errorf("a question beside two backtests: %v", err)
		}
		close(goOn)
		all.Wait()
		backtest(t, l, citywarden.BacktestRequest{Rule: "limit", From: t0})
	})
}

// A rule that raises all the time ends the backtest before memory does.
func TestABacktestOfTooManyAlarmsEnds(t *testing.T) {
	inJanuary(t, func(t *testing.T) {
		w := newWorld(t, limitRule, dev("a", "probe"))
		for i := range 20 {
			w.put("a", time.Duration(i)*s, "x", float64(9*(i%2)))
		}
		d := w.diary()
		for _, raised := range []int{maxEpisodes - 10, maxEpisodes - 9} {
			x, err := w.lab(d).trial(&citywarden.BacktestRequest{Rule: "limit", From: t0, To: t0.Add(time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			x.all = raised
			err = x.run(t.Context(), d)
			if raised+10 <= maxEpisodes && err != nil {
				t.Errorf("as many as are kept in mind: %v", err)
			}
			if raised+10 > maxEpisodes && (citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), "more than 200000 alarms by 2026-01-05T00:00:19Z")) {
				t.Errorf("too many alarms: %v", err)
			}
		}
	})
}

func TestTheListOfAlarmsIsCut(t *testing.T) {
	inJanuary(t, func(t *testing.T) {
		w := newWorld(t, limitRule, dev("a", "probe"))
		for i := range 2 * (maxListed + 10) {
			w.put("a", time.Duration(i)*s, "x", float64(9*(i%2)))
		}
		for i := range 2 * 20 {
			w.put("a", time.Duration(i)*s+2*time.Hour, "x", float64(7*(i%2)))
		}
		text := "rules: [{id: limit, select: {model: probe}, levels: [{severity: minor, when: 'x > 5'}]}]"
		r := backtest(t, w.lab(w.diary()), citywarden.BacktestRequest{Text: text, From: t0, To: t0.Add(3 * time.Hour)}).Rules[0]
		only := 0
		for _, a := range r.Alarms {
			if a.In != "both" {
				only++
			}
		}
		if len(r.Alarms) != maxListed || r.More != 30 || r.Tried.Raises != maxListed+30 || only != 19 || r.OnlyTried != 19 {
			t.Errorf("%d alarms in the list and %d more of %d, %d of them differ", len(r.Alarms), r.More, r.Tried.Raises, only)
		}
	})
}

func TestTheLabTestsRules(t *testing.T) {
	test := `
tests:
- {name: good, devices: {d: {model: probe}}, input: [{device: d, metric: x, values: "9"}], expect: [{at: 1s, alarm: limit, device: d}]}
- {name: bad, devices: {d: {model: probe}}, input: [{device: d, metric: x, values: "1"}], expect: [{at: 1s, alarm: limit, device: d}]}
`
	w := newWorld(t, limitRule+strings.Split(test, "- {name: bad")[0], dev("a", "probe"))
	l := w.lab(&diary{})
	for _, c := range []struct{ name, text, want string }{
		{"running files", "", "true; good true"},
		{"a text", limitRule + test, "false; good true, bad false r"},
		{"mistakes", "rules: [{id: UP}]", "false rules.yaml:1:14"},
		{"a class that is not there", strings.Replace(limitRule, "select:", "case: {class: event/9999, key: k}, select:", 1), "false rules.yaml:3:60"},
	} {
		r, err := l.Test(t.Context(), c.text)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(r.OK)
		for _, p := range r.Problems[:min(1, len(r.Problems))] {
			got += fmt.Sprintf(" %s:%d:%d", p.File, p.Line, p.Col)
		}
		sep := "; "
		for _, x := range r.Results {
			got += fmt.Sprintf("%s%s %t", sep, x.Name, x.OK)
			sep = ", "
			for _, p := range x.Problems {
				got += " " + p.File[:1]
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// Tests that would run for hours are given up, and values that would take all
// memory are refused.
func TestHostileTestsEnd(t *testing.T) {
	w := newWorld(t, limitRule, dev("a", "probe"))
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range 60 {
		fmt.Fprintf(&b, "- {id: r%d, select: {model: probe}, levels: [{severity: minor, when: 'stddev(x, \"1d\") + stddev(x, \"2d\") + stddev(x, \"3d\") + stddev(x, \"4d\") > 9e9 and count(x > 3, \"9d\") > 4e9'}]}\n", i)
	}
	b.WriteString("tests:\n- {name: long, devices: {d: {model: probe}}, input: [{device: d, metric: x, every: 1s, values: \"1x50000\"}], expect: [{at: 1d, none: r1}]}\n")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	set := load(t, b.String())
	rs := test(ctx, set)
	if took := time.Since(began); rs[0].OK() || !strings.Contains(rs[0].Err().Error(), "did not end in time") || took > 20*time.Second {
		t.Errorf("%v after %s", rs[0].Err(), took)
	}
	b.Reset()
	b.WriteString(limitRule + "tests:\n")
	for range 1000 {
		b.WriteString("- {name: wide, devices: {d: {model: probe}}, input: [{device: d, metric: x, every: 1s, values: \"1x99999\"}, {device: d, metric: x, every: 1s, values: \"1x99999\"}], expect: [{at: 1s, none: limit}]}\n")
	}
	r, err := w.lab(&diary{}).Test(t.Context(), b.String())
	if err != nil || r.OK || !strings.Contains(r.Problems.Error(), "more than 100000 values in one test") {
		t.Errorf("a hundred million values: %v %v", r.OK, err)
	}
}
