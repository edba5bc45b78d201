package rules

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/citywarden/citywarden"
)

// plant is a log, a desk and a place for snapshots, with state.
type plant struct {
	mu      sync.Mutex
	log     []citywarden.Entry
	more    chan struct{}
	ticks   int
	cursor  citywarden.Position
	applied []citywarden.Transition
	keys    map[string]int
	broken  error
	noSnaps error // what SaveSnapshot answers
	snapPos citywarden.Position
	snap    []byte
	reading func() // called while the history is read, nil for nothing
}

func newPlant() *plant { return &plant{more: make(chan struct{}, 1), keys: map[string]int{}} }

func (p *plant) append(x citywarden.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x.At = time.Now().UTC()
	x.Position = citywarden.PositionAt(uint64(len(p.log)+1), 0)
	p.log = append(p.log, x)
	select {
	case p.more <- struct{}{}:
	default:
	}
}

func (p *plant) Tick(context.Context) error {
	p.append(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordTick}})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ticks++
	return nil
}

func (p *plant) Entries(_ context.Context, q citywarden.HistoryQuery, f func([]citywarden.Entry) error) (time.Time, error) {
	if p.reading != nil {
		p.reading()
	}
	p.mu.Lock()
	log := slices.Clone(p.log)
	p.mu.Unlock()
	for _, x := range log {
		if x.At.Before(q.From) || !x.At.Before(q.To) {
			continue
		}
		if err := f([]citywarden.Entry{x}); err != nil {
			return q.From, err
		}
	}
	return q.From, nil
}

func (p *plant) Cursor(context.Context) (citywarden.Position, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cursor, nil
}

func (p *plant) Apply(_ context.Context, upTo citywarden.Position, ts []citywarden.Transition) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return p.broken
	}
	for _, tr := range ts {
		if tr.Position > p.cursor {
			p.applied = append(p.applied, tr)
			p.keys[tr.Key]++
		}
	}
	p.cursor = max(p.cursor, upTo)
	return nil
}

func (p *plant) Applied(_ context.Context, after citywarden.Position) ([]citywarden.Transition, error) {
	all := p.view().applied
	return slices.DeleteFunc(all, func(t citywarden.Transition) bool { return t.Position <= after }), nil
}

func (p *plant) Active(_ context.Context, rule citywarden.RuleID, entity string) (citywarden.Alarm, error) {
	for _, t := range slices.Backward(p.view().applied) {
		if t.Alarm.Rule != rule || t.Alarm.Entity != entity {
			continue
		}
		if t.Alarm.State == citywarden.AlarmActive {
			return t.Alarm, nil
		}
		break
	}
	return citywarden.Alarm{}, citywarden.Errorf(citywarden.CodeNotFound, "no active alarm of %s on %s", rule, entity)
}

func (p *plant) LoadSnapshot(context.Context) (citywarden.Position, []byte, error) {
	v := p.view()
	return v.snapPos, v.snap, nil
}

func (p *plant) SaveSnapshot(_ context.Context, pos citywarden.Position, data []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.noSnaps != nil {
		return p.noSnaps
	}
	if pos > p.cursor {
		return errors.New("snapshot beyond the desk's cursor")
	}
	p.snapPos, p.snap = pos, slices.Clone(data)
	return nil
}

// view is what the plant holds now.
type view struct {
	ticks   int
	applied []citywarden.Transition
	cursor  citywarden.Position
	snapPos citywarden.Position
	snap    []byte
}

func (p *plant) view() view {
	p.mu.Lock()
	defer p.mu.Unlock()
	return view{p.ticks, slices.Clone(p.applied), p.cursor, p.snapPos, p.snap}
}

func (p *plant) set(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = err
}

// consume runs r as ingest does, until ctx is done.
func (p *plant) consume(ctx context.Context, t *testing.T, r *Runner) {
	pos, err := r.Cursor(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	for ctx.Err() == nil {
		p.mu.Lock()
		i := slices.IndexFunc(p.log, func(x citywarden.Entry) bool { return x.Position > pos })
		var batch []citywarden.Entry
		if i >= 0 {
			batch = slices.Clone(p.log[i:])
		}
		p.mu.Unlock()
		if len(batch) == 0 {
			select {
			case <-ctx.Done():
			case <-p.more:
			}
			continue
		}
		if err := r.Consume(ctx, batch); err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		pos = batch[len(batch)-1].Position
	}
}

// start runs a runner; stop ends it, with a last snapshot only when clean.
func (p *plant) start(t *testing.T, set *Set, devices Devices, every time.Duration) (r *Runner, stop func(clean bool)) {
	ctx, cancel := context.WithCancel(t.Context())
	r = NewRunner(New(set, Options{Devices: devices}), p, p, RunnerOptions{Tick: p, History: p, Past: p, Every: every})
	var wg sync.WaitGroup
	wg.Go(func() { p.consume(ctx, t, r) })
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return r, func(clean bool) {
		before := p.view()
		cancel()
		wg.Wait()
		if !clean {
			p.snapPos, p.snap = before.snapPos, before.snap
		}
	}
}

func (p *plant) send(d *citywarden.Device, metric string, v float64) {
	p.append(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordUplink}, Device: d,
		Readings: []citywarden.Reading{{Metric: citywarden.MetricName(metric), Value: citywarden.Number(v), Time: time.Now()}}})
}

func TestRunnerTicksWhenNothingElseComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := newPlant(), dev("d", "probe")
		w := &world{t: t, devices: []*citywarden.Device{d}}
		_, stop := p.start(t, load(t, probeRule(`levels: [{severity: major, when: 'x > 5', for: 30s}]`)), w, 0)
		p.send(d, "x", 6)
		time.Sleep(29 * time.Second)
		synctest.Wait()
		if got := p.view().applied; len(got) != 0 {
			t.Errorf("raised after 29 s: %s", tell(got))
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := p.view().applied; len(got) != 1 || got[0].Kind != citywarden.Raised {
			t.Errorf("after 31 s: %s", tell(got))
		}
		if n := p.view().ticks; n > 3 {
			t.Errorf("%d ticks for one deadline", n)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := p.view().ticks; n > 10 {
			t.Errorf("%d ticks in a day in which nothing happens", n)
		}
		stop(true)
	})
}

func TestRunnerCrashesAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := newPlant(), dev("d", "probe")
		w := &world{t: t, devices: []*citywarden.Device{d}}
		set := load(t, probeRule(`levels: [{severity: major, when: 'x > 5', for: 30s}]`))
		_, stop := p.start(t, set, w, 7*time.Second)
		for i := range 600 {
			v := 0.0
			if i%100 < 50 {
				v = 6
			}
			p.send(d, "x", v)
			time.Sleep(time.Second)
			synctest.Wait()
			if i%37 == 36 {
				stop(i%2 == 0)
				_, stop = p.start(t, set, w, 7*time.Second)
			}
		}
		synctest.Wait()
		stop(true)
		raised := 0
		for _, tr := range p.applied {
			if tr.Kind == citywarden.Raised {
				raised++
			}
		}
		if raised != 6 || len(p.applied) != 12 {
			t.Errorf("%d raised, %d transitions, want 6 and 12:\n%s", raised, len(p.applied), tell(p.applied))
		}
		for k, n := range p.keys {
			if n != 1 {
				t.Errorf("transition %s was applied %d times", k, n)
			}
		}
	})
}

func TestASnapshotOfAnotherVersionIsReplayedFromTheLog(t *testing.T) {
	w := history(t, 402, 30)
	old := snapshot(t, w.e)
	old[0] = oldestVersion - 1
	p := newPlant()
	p.cursor, p.snapPos, p.snap = 7, 7, old
	r := NewRunner(w.engine(), p, p, RunnerOptions{})
	if pos, err := r.Cursor(t.Context()); err != nil || pos != 0 {
		t.Errorf("Cursor gives %d, %v; want the beginning of the log", pos, err)
	}
}

func TestASnapshotOfBeforeIsRead(t *testing.T) {
	w := history(t, 402, 60) // of which they are
	a := snapshot(t, w.e)
	for _, name := range []string{"snapshot-4", "snapshot-5", "snapshot-6"} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		old := w.engine()
		if err := old.Restore(data); err != nil {
			t.Fatal(name, err)
		}
		if string(a) != string(snapshot(t, old)) {
			t.Errorf("an engine restored from %s differs from the one that wrote it", name)
		}
	}
}

func TestRunnerKeepsTransitionsWhileTheDeskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := newPlant(), dev("d", "probe")
		w := &world{t: t, devices: []*citywarden.Device{d}}
		_, stop := p.start(t, load(t, probeRule(`levels: [{severity: major, when: 'x > 5'}]`)), w, time.Second)
		p.set(errors.New("disk full"))
		p.send(d, "x", 6)
		time.Sleep(10 * time.Second)
		p.send(d, "x", 1)
		time.Sleep(10 * time.Second)
		p.set(nil)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		stop(true)
		if got := len(p.applied); got != 2 {
			t.Errorf("%d transitions applied, want 2", got)
		}
	})
}

// TestAlarmsGoOnWithoutSnapshots: a snapshot for which there is no room, as it is large, keeps no alarm from anybody: the
// same entries would come again and again, and those behind them never.
func TestAlarmsGoOnWithoutSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every = 30 * time.Second
		p, d := newPlant(), dev("d", "probe")
		set := load(t, probeRule(`levels: [{severity: major, when: 'x > 5'}]`))
		r := NewRunner(New(set, Options{Devices: &world{t: t, devices: []*citywarden.Device{d}}}), p, p, RunnerOptions{Every: every})
		if _, err := r.Cursor(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.noSnaps = errors.New("disk full")
		value := 0.0
		step := func() {
			t.Helper()
			time.Sleep(every)
			value = 6 - value
			p.send(d, "x", value)
			if err := r.Consume(t.Context(), p.log[len(p.log)-1:]); err != nil {
				t.Fatal(err)
			}
		}
		for range 4 {
			step()
		}
		if got := len(p.applied); got != 4 {
			t.Errorf("%d transitions applied, want 4", got)
		}
		at, err := r.Cursor(t.Context())
		if err != nil || at != 0 || p.snap != nil {
			t.Errorf("the log is needed from %d on, %v, and there is a snapshot of %d bytes: want all of it and none", at, err, len(p.snap))
		}
		p.noSnaps = nil
		step()
		if at, err := r.Cursor(t.Context()); err != nil || at != p.cursor || p.snapPos != p.cursor {
			t.Errorf("with room again the snapshot is of %d, the cursor %d, %v; want %d", p.snapPos, at, err, p.cursor)
		}
	})
}

// TestRunnerAgreesWithTheDesk changes the rules around a crash: what the desk
// has from before must not stay open for ever, and nothing must get lost because
// a number was used before.
func TestRunnerAgreesWithTheDesk(t *testing.T) {
	above := func(limit string) string { return probeRule("levels: [{severity: major, when: 'x > " + limit + "'}]") }
	for _, c := range []struct {
		name, before, after string
		values              []float64 // one a second before the crash
		last                []float64 // and after it
		want                string
	}{
		{"the same rules", above("5"), above("5"), []float64{6, 1, 6}, []float64{6, 1}, "raised 1, cleared 1, raised 2, cleared 2"},
		{"rule removed", above("5"), "rules: []\n", []float64{6}, []float64{6}, "raised 1, cleared 1"},
		{"limit went up", above("5"), above("50"), []float64{6}, []float64{6, 60}, "raised 1, cleared 1, raised 2"},
		{"limit went up after an episode", above("5"), above("50"), []float64{6, 1}, []float64{60, 1}, "raised 1, cleared 1, raised 2, cleared 2"},
		{"limit went down", above("50"), above("5"), []float64{6}, []float64{6, 1}, "raised 2, cleared 2"},
		{"limit went down, raised again", above("50"), above("5"), []float64{60, 6}, []float64{6, 1}, "raised 1, cleared 1, raised 2, cleared 2"},
		{"other severity", above("5"), strings.Replace(above("5"), "major", "critical", 1), []float64{6}, []float64{6, 1}, "raised 1, escalated 1, cleared 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, d := newPlant(), dev("d", "probe")
				w := &world{t: t, devices: []*citywarden.Device{d}}
				feed := func(values []float64) {
					for _, v := range values {
						p.send(d, "x", v)
						time.Sleep(time.Second)
						synctest.Wait()
					}
				}
				_, stop := p.start(t, load(t, c.before), w, time.Hour)
				feed([]float64{0})
				stop(true)
				_, stop = p.start(t, load(t, c.before), w, time.Hour)
				feed(c.values)
				stop(false)
				_, stop = p.start(t, load(t, c.after), w, time.Hour)
				feed(c.last)
				stop(true)
				var got []string
				for _, tr := range p.view().applied {
					got = append(got, fmt.Sprintf("%s %d", tr.Kind, tr.Alarm.Episode))
				}
				if got := strings.Join(got, ", "); got != c.want {
					t.Errorf("applied %s, want %s", got, c.want)
				}
				for k, n := range p.keys {
					if n != 1 {
						t.Errorf("key %s was used %d times", k, n)
					}
				}
			})
		})
	}
}

// TestEpisodesOutliveTheirRule: the desk ignores a key that it has.
func TestEpisodesOutliveTheirRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := newPlant(), dev("d", "probe")
		w := &world{t: t, devices: []*citywarden.Device{d}}
		rule := probeRule(`levels: [{severity: major, when: 'x > 5'}]`)
		for _, text := range []string{rule, "rules: []\n", rule} {
			_, stop := p.start(t, load(t, text), w, time.Hour)
			p.send(d, "x", 6)
			synctest.Wait()
			stop(true)
		}
		for k, n := range p.keys {
			if n != 1 {
				t.Errorf("key %s was used %d times", k, n)
			}
		}
		if n := len(p.applied); n != 3 {
			t.Errorf("applied %s, want raised, cleared, raised", tell(p.applied))
		}
	})
}

// TestEpisodesOutliveARuleThatWentInACrash: the engine has never seen the rule
// that the desk has an alarm of; when the rule comes back, its next alarm must
// not have the number of that one, or the desk would take it for known.
func TestEpisodesOutliveARuleThatWentInACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := newPlant(), dev("d", "probe")
		w := &world{t: t, devices: []*citywarden.Device{d}}
		rule := probeRule(`levels: [{severity: major, when: 'x > 5'}]`)
		for _, x := range []struct {
			rules string
			clean bool
		}{{rule, false}, {"rules: []\n", true}, {rule, true}} {
			_, stop := p.start(t, load(t, x.rules), w, time.Hour)
			p.send(d, "x", 6)
			synctest.Wait()
			stop(x.clean)
		}
		var got []string
		for _, tr := range p.view().applied {
			got = append(got, fmt.Sprintf("%s %d", tr.Kind, tr.Alarm.Episode))
		}
		if got, want := strings.Join(got, ", "), "raised 1, cleared 1, raised 2"; got != want {
			t.Errorf("applied %s, want %s", got, want)
		}
	})
}

// TestWhatIsGoneClosesWithoutAMessage: an alarm of a device or rule that is gone
// does not wait for the next message of somebody else.
func TestWhatIsGoneClosesWithoutAMessage(t *testing.T) {
	rule := probeRule(`levels: [{severity: major, when: 'x > 5'}]`)
	for _, c := range []struct {
		name string
		gone func(t *testing.T, p *plant, r *Runner, stop func(bool), d *citywarden.Device, w *world) (last func(bool))
		want string
	}{
		{"device", func(_ *testing.T, _ *plant, r *Runner, stop func(bool), d *citywarden.Device, _ *world) func(bool) {
			r.DeviceChanged(*d, true)
			return stop
		}, "device removed"},
		{"rule, clean stop", func(t *testing.T, p *plant, _ *Runner, stop func(bool), _ *citywarden.Device, w *world) func(bool) {
			stop(true)
			_, stop = p.start(t, load(t, "rules: []\n"), w, time.Hour)
			return stop
		}, "rule removed"},
		{"rule, crash", func(t *testing.T, p *plant, _ *Runner, stop func(bool), _ *citywarden.Device, w *world) func(bool) {
			stop(false)
			_, stop = p.start(t, load(t, "rules: []\n"), w, time.Hour)
			return stop
		}, changedMeanwhile},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, d := newPlant(), dev("d", "probe")
				w := &world{t: t, devices: []*citywarden.Device{d}}
				r, stop := p.start(t, load(t, rule), w, time.Hour)
				p.send(d, "x", 6)
				synctest.Wait()
				stop = c.gone(t, p, r, stop, d, w)
				time.Sleep(6 * time.Second)
				synctest.Wait()
				got := p.view()
				if n := len(got.applied); n != 2 || got.applied[1].Kind != citywarden.Cleared || got.applied[1].Alarm.Reason != c.want {
					t.Errorf("applied %s, want it cleared: %s", tell(got.applied), c.want)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if n := p.view().ticks; n > 3 {
					t.Errorf("%d ticks", n)
				}
				stop(true)
			})
		})
	}
}

func TestRunnerReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := newPlant(), dev("d", "probe")
		w := &world{t: t, devices: []*citywarden.Device{d}}
		r, stop := p.start(t, load(t, probeRule(`levels: [{severity: major, when: 'x > 5'}]`)), w, time.Hour)
		p.send(d, "x", 6)
		synctest.Wait()
		if err := r.Reload(t.Context(), load(t, "rules: []\n")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got := p.view()
		if len(got.applied) != 2 || got.applied[1].Alarm.Reason != "rule removed" {
			t.Errorf("applied %s", tell(got.applied))
		}
		if len(r.Rules()) != 0 || got.snapPos != got.cursor {
			t.Errorf("rules %v, snapshot at %d, cursor %d", r.Rules(), got.snapPos, got.cursor)
		}
		stop(true)
	})
}

func TestALongerWindowRefillsFromHistory(t *testing.T) {
	rule := func(when string) string { return probeRule(`levels: [{severity: major, when: '` + when + `'}]`) }
	for _, c := range []struct{ name, was, is string }{
		{"longer", `avg(x, "30s") > 50`, `avg(x, "10m") < 4 and count(x, "10m") == 12`},
		{"of a metric that nothing read", `y > 50`, `avg(x, "10m") < 4 and count(x, "10m") == 12`},
		{"one by one", `x > 50`, `count(x < 4, "10m") == 12`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, d := newPlant(), dev("d", "probe")
				w := &world{t: t, devices: []*citywarden.Device{d}}
				r, stop := p.start(t, load(t, rule(c.was)), w, time.Hour)
				for range 10 {
					p.send(d, "x", 3)
					time.Sleep(40 * time.Second)
				}
				p.reading = func() { // the platform goes on meanwhile
					p.send(d, "x", 3.5)
					time.Sleep(10 * time.Second)
					p.send(d, "x", 3.5)
					time.Sleep(10 * time.Second)
					synctest.Wait()
				}
				synctest.Wait()
				if err := r.Reload(t.Context(), load(t, rule(c.is))); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				got := p.view()
				if len(got.applied) != 1 || got.applied[0].Kind != citywarden.Raised {
					t.Errorf("applied %s", tell(got.applied))
				}
				if len(got.snap) == 0 {
					t.Error("no snapshot followed")
				}
				stop(true)
			})
		})
	}
}

func TestRulesEditedWhileThePlatformWasDown(t *testing.T) {
	// They look back at what was there before, and it is known which they are.
	rule := func(lines ...string) string { return probeRule(lines...) }
	was := rule(`levels: [{severity: major, when: 'y > 50'}]`) + "- {id: gone, select: {model: probe}, levels: [{severity: minor, when: 'y > 50'}]}\n"
	for _, c := range []struct{ name, is, want string }{
		{"longer", rule(`levels: [{severity: major, when: 'avg(x, "10m") < 4 and count(x, "10m") == 12'}]`), "raised d major"},
		{"one by one", rule(`levels: [{severity: major, when: 'count(x < 4, "10m") == 12'}]`), "raised d major"},
		{"with a late", rule(`late: 5m`, `levels: [{severity: major, when: 'count(x < 4, "10m") == 12'}]`), "raised d major"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, d := newPlant(), dev("d", "probe")
				w := &world{t: t, devices: []*citywarden.Device{d}}
				old := load(t, was)
				_, stop := p.start(t, old, w, time.Hour)
				for range 11 {
					p.send(d, "x", 3)
					time.Sleep(40 * time.Second)
				}
				synctest.Wait()
				stop(true)
				r, stop := p.start(t, load(t, c.is), w, time.Hour)
				p.send(d, "x", 3)
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if got := p.view(); len(got.applied) == 0 || !strings.Contains(tell(got.applied[:1]), c.want) {
					t.Errorf("applied %s", tell(got.applied))
				}
				before := <-r.Restored()
				if diff := cmp.Diff(old.Rules(), before, cmpopts.IgnoreFields(citywarden.Rule{}, "Title", "Models", "Severity", "Text", "File", "Line", "Mode")); diff != "" {
					t.Errorf("ran before (-want +got):\n%s", diff)
				}
				stop(true)
			})
		})
	}
}

func TestAReloadWithoutHistoryGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := newPlant(), dev("d", "probe")
		w := &world{t: t, devices: []*citywarden.Device{d}}
		r, stop := p.start(t, load(t, probeRule(`levels: [{severity: major, when: 'y > 5'}]`)), w, time.Hour)
		r.opt.History = broken{}
		if err := r.Reload(t.Context(), load(t, probeRule(`levels: [{severity: major, when: 'avg(x, "10m") > 5'}]`))); err != nil {
			t.Fatal(err)
		}
		p.send(d, "x", 6)
		synctest.Wait()
		if got := p.view(); len(got.applied) != 1 {
			t.Errorf("applied %s", tell(got.applied))
		}
		stop(true)
	})
}

// broken is a History that can't be read.
type broken struct{}

func (broken) Entries(context.Context, citywarden.HistoryQuery, func([]citywarden.Entry) error) (time.Time, error) {
	return time.Time{}, errors.New("disk gone")
}
