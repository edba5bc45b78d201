package cases_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/store"
)

// called is an alarm that is annunciated at a time after monday.
type called struct {
	at       time.Duration
	rule     citywarden.RuleID
	entity   string
	severity citywarden.Severity
	change   func(*citywarden.Transition)
}

// loadOf returns the load from monday on, as long as span.
func loadOf(t *testing.T, operators int, span time.Duration, all ...called) citywarden.AlarmLoad {
	t.Helper()
	d, _ := openDesk(t, filepath.Join(t.TempDir(), "x.db"), cases.Options{Operators: operators})
	f := &feed{}
	for i, c := range all {
		if c.severity == 0 {
			c.severity = citywarden.Minor
		}
		tr := f.next(citywarden.Raised, c.rule, c.entity, uint64(i+1), c.severity, nil)
		tr.Logged = monday().Add(c.at)
		if c.change != nil {
			c.change(&tr)
		}
		over := f.next(citywarden.Cleared, c.rule, c.entity, uint64(i+1), c.severity, nil)
		over.Alarm.RaisedAt, over.Alarm.State = tr.Alarm.RaisedAt, citywarden.AlarmCleared
		apply(t, d, f, tr, over)
	}
	l, err := d.Load(t.Context(), "", monday(), monday().Add(span))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// every returns n alarms of entities of their own, from first on.
func every(n int, first, pause time.Duration) []called {
	var out []called
	for i := range n {
		out = append(out, called{at: first + time.Duration(i)*pause, rule: "r", entity: fmt.Sprintf("%s-%d", first, i)})
	}
	return out
}

const (
	minute = time.Minute
	second = time.Second
)

func TestLoadCountsAnnunciations(t *testing.T) {
	work := func(tr *citywarden.Transition) {
		tr.Case = &citywarden.CaseOrder{Key: "m/" + tr.Alarm.Entity, WorkOrder: true}
	}
	kind := func(k citywarden.TransitionKind, annunciated bool) func(*citywarden.Transition) {
		return func(tr *citywarden.Transition) { tr.Kind, tr.Annunciated = k, annunciated }
	}
	l := loadOf(t, 1, time.Hour,
		called{-time.Millisecond, "r", "before", 0, nil},
		called{0, "r", "first", 0, nil},
		called{minute, "r", "shelved, by design, out of service or shadow", 0, kind(citywarden.Raised, false)},
		called{2 * minute, "r", "up", 0, kind(citywarden.Escalated, true)},
		called{3 * minute, "r", "down", 0, kind(citywarden.Lowered, false)},
		called{4 * minute, "r", "back", 0, kind(citywarden.CameInService, true)},
		called{5 * minute, "r", "latched", 0, kind(citywarden.Resumed, true)},
		called{6 * minute, "r", "battery", 0, work},
		called{time.Hour - time.Millisecond, "r", "last", 0, nil},
		called{time.Hour, "r", "after", 0, nil})
	if l.Alarms != 5 || l.WorkOrders != 1 {
		t.Errorf("%d alarms and %d work orders, want 5 and 1", l.Alarms, l.WorkOrders)
	}
	var series []int
	for i, p := range l.Series {
		if !p.At.Equal(monday().Add(time.Duration(i) * 10 * minute)) {
			t.Errorf("interval %d begins at %s", i, p.At)
		}
		series = append(series, p.Alarms)
	}
	if want := []int{4, 0, 0, 0, 0, 1}; !slices.Equal(series, want) {
		t.Errorf("series %v, want %v", series, want)
	}
}

func TestLoadPerOperator(t *testing.T) {
	alarms := slices.Concat(every(1, 0, 0), every(2, 10*minute, second), every(3, 20*minute, second), every(3, 40*minute, second))
	for _, c := range []struct {
		operators int
		span      time.Duration
		want      citywarden.OperatorLoad
	}{
		{1, time.Hour, citywarden.OperatorLoad{Mean: 9.0 / 6, Peak: 3, PeakAt: monday().Add(20 * minute), Goal: 1, OverGoalShare: 3.0 / 6}}, // one is within the goal
		{2, time.Hour, citywarden.OperatorLoad{Mean: 9.0 / 12, Peak: 1.5, PeakAt: monday().Add(20 * minute), Goal: 1, OverGoalShare: 2.0 / 6}},
		{1, 25 * minute, citywarden.OperatorLoad{Mean: 6.0 / 2.5, Peak: 3, PeakAt: monday().Add(20 * minute), Goal: 1, OverGoalShare: 2.0 / 3}}, // the last interval is short
	} {
		l := loadOf(t, c.operators, c.span, alarms...)
		if diff := cmp.Diff(c.want, l.PerOperator, cmpopts.EquateApprox(0, 1e-9)); diff != "" || l.Operators != c.operators {
			t.Errorf("%d operators, %s (-want +got):\n%s", c.operators, c.span, diff)
		}
	}
	l := loadOf(t, 1, time.Hour)
	if diff := cmp.Diff(citywarden.OperatorLoad{Goal: 1}, l.PerOperator); diff != "" {
		t.Errorf("without alarms (-want +got):\n%s", diff)
	}
}

func TestFloods(t *testing.T) {
	for _, c := range []struct {
		name      string
		operators int
		alarms    []called
		want      string // from-to alarms, minutes after monday
	}{
		{"ten in ten minutes", 1, every(10, 0, second), ""},
		{"eleven", 1, every(11, 0, second), "0s-10m6s 11"},
		{"the eleventh comes when the first has left", 1, every(11, 0, minute), ""},
		{"just before it leaves", 1, every(11, 0, minute-100*time.Millisecond), "0s-15m59.4s 11"},
		{"twenty for two operators", 2, every(20, 0, second), ""},
		{"twenty-one for two operators", 2, every(21, 0, second), "0s-10m11s 21"},
		{"more come while it lasts", 1, slices.Concat(every(11, 0, second), every(5, 9*minute, second)), "0s-19m0s 16"},
		{"over, and again", 1, slices.Concat(every(11, 0, second), every(11, 20*minute, second)), "0s-10m6s 11, 20m0s-30m6s 11"},
		{"not over at the end", 1, every(11, 55*minute, second), "55m0s-1h0m0s 11"},
	} {
		var got []string
		for _, f := range loadOf(t, c.operators, time.Hour, c.alarms...).Floods {
			got = append(got, fmt.Sprintf("%s-%s %d", f.From.Sub(monday()), f.To.Sub(monday()), f.Alarms))
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s: %q, want %q", c.name, s, c.want)
		}
	}
}

func TestChattering(t *testing.T) {
	at := func(entity string, times ...time.Duration) []called {
		var out []called
		for _, x := range times {
			out = append(out, called{at: x, rule: "door", entity: entity})
		}
		return out
	}
	all := slices.Concat(
		at("calm", 0, 30*second),
		at("three in exactly a minute", minute, 90*second, 2*minute),
		at("three in a minute", 3*minute, 3*minute+30*second, 4*minute-time.Millisecond, 50*minute),
		at("more", 5*minute, 5*minute+second, 5*minute+2*second, 5*minute+3*second))
	slices.SortStableFunc(all, func(a, b called) int { return int(a.at - b.at) })
	var got []string
	for _, c := range loadOf(t, 1, time.Hour, all...).Chattering {
		got = append(got, fmt.Sprintf("%s %s %s %s %d %d", c.Rule, c.Title.EN, c.Entity, c.Device, c.MostPerMinute, c.Count))
	}
	want := []string{"door Pipe burst more more 4 4", "door Pipe burst three in a minute three in a minute 3 4"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("chattering (-want +got):\n%s", diff)
	}
}

// An alarm that gets worse is one alarm, and one that goes up and down chatters.
func TestGettingWorseIsNotChattering(t *testing.T) {
	d, _ := openDesk(t, filepath.Join(t.TempDir(), "x.db"), cases.Options{})
	f := &feed{}
	for _, x := range []struct {
		kind     citywarden.TransitionKind
		entity   string
		severity citywarden.Severity
	}{
		{citywarden.Raised, "worse", citywarden.Minor}, {citywarden.Escalated, "worse", citywarden.Major}, {citywarden.Escalated, "worse", citywarden.Critical},
		{citywarden.Raised, "up and down", citywarden.Minor}, {citywarden.Escalated, "up and down", citywarden.Major},
		{citywarden.Escalated, "up and down", citywarden.Major}, {citywarden.Escalated, "up and down", citywarden.Major},
	} {
		apply(t, d, f, f.next(x.kind, "r", x.entity, 1, x.severity, nil))
	}
	l, err := d.Load(t.Context(), "", monday(), monday().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Chattering) != 1 || l.Chattering[0].Entity != "up and down" || l.Chattering[0].Count != 3 {
		t.Errorf("chattering: %+v", l.Chattering)
	}
}

func TestTopRulesAndPriorities(t *testing.T) {
	var all []called
	add := func(n int, rule citywarden.RuleID, s citywarden.Severity) {
		for range n {
			all = append(all, called{time.Duration(len(all)) * second, rule, fmt.Sprint(len(all)), s, nil})
		}
	}
	add(4, "many", citywarden.Minor)
	add(2, "critical", citywarden.Critical)
	add(2, "big", citywarden.Major)
	for i := range 10 {
		add(1, citywarden.RuleID(fmt.Sprintf("one.%d", i)), []citywarden.Severity{citywarden.Warning, citywarden.Indeterminate}[i%2])
	}
	l := loadOf(t, 1, time.Hour, all...)
	if n := len(l.TopRules); n != 10 {
		t.Fatalf("%d rules, want 10", n)
	}
	title := citywarden.Text{ZH: "管网爆管", EN: "Pipe burst"}
	want := []citywarden.RuleLoad{{Rule: "many", Title: title, Alarms: 4, Share: 4.0 / 18}, {Rule: "big", Title: title, Alarms: 2, Share: 2.0 / 18},
		{Rule: "critical", Title: title, Alarms: 2, Share: 2.0 / 18}, {Rule: "one.0", Title: title, Alarms: 1, Share: 1.0 / 18}}
	if diff := cmp.Diff(want, l.TopRules[:4], cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Errorf("top rules (-want +got):\n%s", diff)
	}
	shares := map[citywarden.Priority]citywarden.Share{
		citywarden.PriorityCritical: {Alarms: 2, Share: 2.0 / 18, Target: 0.05}, citywarden.PriorityMajor: {Alarms: 2, Share: 2.0 / 18, Target: 0.15},
		citywarden.PriorityMinor: {Alarms: 14, Share: 14.0 / 18, Target: 0.8},
	}
	if diff := cmp.Diff(shares, l.Priorities, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Errorf("priorities (-want +got):\n%s", diff)
	}
}

func TestStaleAlarmsAndMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(monday()))
		reg := prometheus.NewPedanticRegistry()
		d, db := openDesk(t, filepath.Join(t.TempDir(), "x.db"), cases.Options{Metrics: reg})
		f := &feed{}
		raise := func(entity string, at time.Time, order *citywarden.CaseOrder, change func(*citywarden.Alarm)) citywarden.Transition {
			tr := f.next(citywarden.Raised, "r", entity, 1, citywarden.Major, order)
			tr.Alarm.RaisedAt = at
			change(&tr.Alarm)
			tr.Annunciated = !tr.Alarm.Suppressed()
			return tr
		}
		none := func(*citywarden.Alarm) {}
		old := monday().Add(-time.Hour)
		ts := []citywarden.Transition{
			raise("old", old, nil, none), raise("older", old.Add(-second), nil, func(a *citywarden.Alarm) { a.Acked = true }),
			raise("out", old, nil, func(a *citywarden.Alarm) { a.OutOfService = old }), raise("new", monday(), nil, none),
			raise("battery", monday(), &citywarden.CaseOrder{Key: "m", WorkOrder: true}, none),
		}
		apply(t, d, f, ts...)
		apply(t, d, f, ts...) // again, as after a crash
		look := func(at time.Time, want ...string) {
			t.Helper()
			time.Sleep(time.Until(at))
			l, err := d.Load(t.Context(), "", monday(), monday().Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range l.Stale {
				got = append(got, a.Entity)
			}
			if !slices.Equal(got, want) {
				t.Errorf("at %s stale are %v, want %v", at, got, want)
			}
		}
		look(old.Add(24*time.Hour), "older") // 24 h to the millisecond are not more than that
		look(old.Add(24*time.Hour+time.Millisecond), "older", "old")
		gather := func(want map[string]float64) {
			t.Helper()
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]float64{}
			for _, f := range families {
				for _, m := range f.GetMetric() {
					name := f.GetName()
					for _, l := range m.GetLabel() {
						name += " " + l.GetValue()
					}
					if v := m.GetCounter().GetValue() + m.GetGauge().GetValue(); v != 0 || len(m.GetLabel()) == 0 {
						got[name] = v
					}
				}
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
				t.Errorf("metrics (-want +got):\n%s", diff)
			}
		}
		want := map[string]float64{
			"citywarden_alarms_active major": 5, "citywarden_alarms_annunciated_total major": 3, "citywarden_alarms_stale": 2, "citywarden_alarms_unacked": 3,
			"citywarden_alarm_load_mean": 3.0 / 144, "citywarden_alarm_load_peak": 3, "citywarden_alarm_load_floods": 0, "citywarden_alarm_load_flooded": 0,
			"citywarden_alarm_load_chattering": 0, "citywarden_alarm_load_share major": 1, "citywarden_alarm_load_top_rules r": 3,
		}
		gather(want)
		ts = nil
		for i := range 11 {
			tr := f.next(citywarden.Raised, "q", fmt.Sprint("q", i), 1, citywarden.Critical, nil)
			tr.Logged, tr.Annunciated = time.Now(), true
			ts = append(ts, tr)
		}
		apply(t, d, f, ts...)
		time.Sleep(time.Millisecond) // they are before now
		for name, v := range map[string]float64{
			"citywarden_alarms_active critical": 11, "citywarden_alarms_annunciated_total critical": 11, "citywarden_alarms_unacked": 14,
		} {
			want[name] = v
		}
		gather(want) // the load is that of a minute ago at most
		time.Sleep(time.Minute)
		for name, v := range map[string]float64{
			"citywarden_alarm_load_mean": 14.0 / 144, "citywarden_alarm_load_peak": 11, "citywarden_alarm_load_floods": 1, "citywarden_alarm_load_flooded": 1,
			"citywarden_alarm_load_share major": 3.0 / 14, "citywarden_alarm_load_share critical": 11.0 / 14, "citywarden_alarm_load_top_rules q": 11,
		} {
			want[name] = v
		}
		gather(want)
		broken := time.Now().Add(time.Minute)
		time.Sleep(time.Until(broken))
		if err := db.Close(); err != nil { // then the rest of the metrics is left
			t.Fatal(err)
		}
		gather(map[string]float64{"citywarden_alarms_annunciated_total major": 3, "citywarden_alarms_annunciated_total critical": 11})
	})
}

// BenchmarkLoad measures the load of a day that has 100,000 transitions, of
// which a third are annunciations.
func BenchmarkLoad(b *testing.B) { onBoth(b, benchLoad) }

func benchLoad(b *testing.B, place string) {
	const alarms = 33_334
	db, err := store.Open(b.Context(), place)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	d, err := cases.New(db, cases.Options{})
	if err != nil {
		b.Fatal(err)
	}
	f := &feed{}
	err = db.UpdateDesk(b.Context(), func(tx *store.DeskTx) error {
		for n := range uint64(alarms) {
			rule, entity, episode := citywarden.RuleID(fmt.Sprintf("rule.%d", n%50)), fmt.Sprintf("d%d", n%2000), n/2000+1
			for _, kind := range []citywarden.TransitionKind{citywarden.Raised, citywarden.Acked, citywarden.Cleared} {
				tr := f.next(kind, rule, entity, episode, citywarden.Severity(n%5+1), nil)
				tr.Logged = monday().Add(time.Duration(n) * 24 * time.Hour / alarms)
				if _, err := tx.AddTransition(b.Context(), tr); err != nil {
					return err
				}
				if kind != citywarden.Cleared || n < alarms-2000 {
					continue
				}
				if err := tx.SaveAlarm(b.Context(), tr.Alarm); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		l, err := d.Load(b.Context(), "", monday(), monday().Add(24*time.Hour))
		if err != nil || l.Alarms != alarms {
			b.Fatalf("%d alarms, %v", l.Alarms, err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)*95/100].Seconds()*1e3, "p95-ms")
}
