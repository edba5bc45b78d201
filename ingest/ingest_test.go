package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/citywarden/citywarden"
)

// memLog is a log in memory with groups of up to three records.
type memLog struct {
	grown notice

	mu     sync.Mutex
	groups [][]citywarden.Record
	open   []citywarden.Record // the group that is not full yet
	broken error               // what Append and Read answer
}

func (l *memLog) Append(rec citywarden.Record, done func(citywarden.Position, error)) {
	l.mu.Lock()
	if l.broken != nil {
		l.mu.Unlock()
		done(0, l.broken)
		return
	}
	rec.At = time.Now()
	rec.Position = citywarden.PositionAt(uint64(len(l.groups)+1), len(l.open))
	l.open = append(l.open, rec)
	full := len(l.open) > len(l.groups)%3
	l.mu.Unlock()
	if full {
		l.seal()
	}
	done(rec.Position, nil)
}

// seal ends the newest group, so that Read gives it, and returns the end of the log.
func (l *memLog) seal() citywarden.Position {
	l.mu.Lock()
	if len(l.open) > 0 {
		l.groups, l.open = append(l.groups, l.open), nil
	}
	l.mu.Unlock()
	l.grown.broadcast()
	return l.Last()
}

func (l *memLog) Last() citywarden.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.groups) == 0 {
		return 0
	}
	g := l.groups[len(l.groups)-1]
	return g[len(g)-1].Position
}

func (l *memLog) Read(ctx context.Context, after citywarden.Position) ([]citywarden.Record, error) {
	for {
		grown := l.grown.wait()
		l.mu.Lock()
		if l.broken != nil {
			l.mu.Unlock()
			return nil, l.broken
		}
		for i := max(after.Group(), 1); i <= uint64(len(l.groups)); i++ {
			g := l.groups[i-1]
			for k := range g {
				if g[k].Position > after {
					l.mu.Unlock()
					return g[k:], nil
				}
			}
		}
		l.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (l *memLog) Back(_ context.Context, p citywarden.Position, n uint64) (citywarden.Position, error) {
	if p.Group() <= n {
		return 0, nil
	}
	return citywarden.PositionAt(p.Group()-n, 0), nil
}

// one is a directory in which every device is a smoke detector, but "nobody".
type one struct{ model *citywarden.Model }

func (one) Child(_ citywarden.DeviceID, name string) (citywarden.DeviceID, error) {
	return "", citywarden.Errorf(citywarden.CodeNotFound, "no device %q", name)
}

func (o one) Device(id citywarden.DeviceID) (*citywarden.Device, *citywarden.Model, error) {
	if id == "nobody" {
		return nil, nil, citywarden.Errorf(citywarden.CodeNotFound, "no device %s", id)
	}
	return &citywarden.Device{ID: id, Model: o.model.Name}, o.model, nil
}

// recorder is a consumer that keeps what it gets.
type recorder struct {
	name   string
	cursor citywarden.Position
	before func(n int) error // called with the number of the call; nil for nothing

	mu    sync.Mutex
	calls int
	got   []citywarden.Entry
}

func (r *recorder) Name() string                                        { return r.name }
func (r *recorder) Cursor(context.Context) (citywarden.Position, error) { return r.cursor, nil }
func (r *recorder) Consume(_ context.Context, entries []citywarden.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.before != nil {
		if err := r.before(r.calls); err != nil {
			return err
		}
	}
	r.got = append(r.got, entries...)
	return nil
}

// summary tells one entry from another.
func summary(e *citywarden.Entry) string {
	s := fmt.Sprintf("%d %d %d dup %d rejected %d", e.Position, e.Kind, len(e.Readings), e.Duplicates, e.Rejected)
	for _, r := range e.Readings {
		s += fmt.Sprintf(" %s=%v", r.Metric, r.Value)
	}
	return s
}

func summaries(list []citywarden.Entry) []string {
	var all []string
	for i := range list {
		all = append(all, summary(&list[i]))
	}
	return all
}

// start runs a pipeline over l until the test ends or stop is called.
func start(t *testing.T, l Log, consumers ...Consumer) (p *Pipeline, stop func()) {
	t.Helper()
	p, err := New(Options{Log: l, Directory: one{testModel()}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range consumers {
		p.Attach(c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	t.Cleanup(stop)
	return p, stop
}

func send(t *testing.T, p *Pipeline, device citywarden.DeviceID, payload string) {
	t.Helper()
	p.Accept(t.Context(), citywarden.Uplink{Device: device, Protocol: "mqtt", Topic: "v1/devices/me/telemetry", Payload: []byte(payload)}, func(err error) {
		if err != nil {
			t.Errorf("Accept = %v", err)
		}
	})
}

func sample(i int) string {
	return fmt.Sprintf(`{"ts":%d,"values":{"temperature":%d}}`, 1795420000000+i, i%100)
}

func TestAConsumerFallsOffTheRingAndCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(testArrival)) // else the samples are from the far future
		gate := make(chan struct{})
		fast := &recorder{name: "fast"}
		slow := &recorder{name: "slow", before: func(n int) error { <-gate; return nil }}
		l := new(memLog)
		p, stop := start(t, l, slow, fast)
		const n = 3*ringEntries + 5
		for i := range n {
			send(t, p, "d", sample(i/2)) // each twice
		}
		end := l.seal()
		if err := p.Wait(t.Context(), "fast", end); err != nil {
			t.Fatal(err)
		}
		if len(fast.got) != n {
			t.Fatalf("the fast consumer got %d of %d entries", len(fast.got), n)
		}
		if p.ring.reaches(0) {
			t.Fatal("the ring holds everything; the test proves nothing")
		}
		if lag := p.Lag(); lag["slow"] < n/4 || lag["fast"] != 0 {
			t.Errorf("Lag = %v", lag)
		}
		close(gate)
		if err := p.Wait(t.Context(), "slow", end); err != nil {
			t.Fatal(err)
		}
		stop()
		if diff := cmp.Diff(summaries(fast.got), summaries(slow.got)); diff != "" {
			t.Errorf("what the slow consumer got (-fast +slow):\n%.2000s", diff)
		}
		stored, dups := 0, 0
		for _, e := range fast.got {
			stored += len(e.Readings)
			dups += e.Duplicates
		}
		if stored != (n+1)/2 || dups != n/2 {
			t.Errorf("%d readings and %d duplicates, want %d and %d", stored, dups, (n+1)/2, n/2)
		}
	})
}

// weighing is a consumer that keeps how much it got at once at most.
type weighing struct {
	recorder
	most int
}

func (w *weighing) Consume(ctx context.Context, entries []citywarden.Entry) error {
	w.most = max(w.most, weight(entries))
	return w.recorder.Consume(ctx, entries)
}

// TestCatchingUpTakesLongMessagesAFewAtATime has a consumer that was away, as the series while InfluxDB is
// down: it is not given 2,048 of the longest messages at once, half a gigabyte.
func TestCatchingUpTakesLongMessagesAFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(testArrival))
		const n, size = 300, 200 << 10
		gate := make(chan struct{})
		slow := &weighing{recorder: recorder{name: "slow", before: func(int) error { <-gate; return nil }}}
		fast := &recorder{name: "fast"}
		l := new(memLog)
		p, _ := start(t, l, slow, fast)
		for i := range n {
			send(t, p, "d", sample(i)+strings.Repeat(" ", size))
		}
		end := l.seal()
		if err := p.Wait(t.Context(), "fast", end); err != nil {
			t.Fatal(err)
		}
		if p.ring.reaches(0) {
			t.Fatal("the ring holds everything; the test proves nothing")
		}
		close(gate)
		if err := p.Wait(t.Context(), "slow", end); err != nil {
			t.Fatal(err)
		}
		if len(slow.got) != n {
			t.Errorf("%d of %d messages", len(slow.got), n)
		}
		if most := batchBytes + 4*size; slow.most > most {
			t.Errorf("it got %d MiB at once, more than %d", slow.most>>20, most>>20)
		}
	})
}

// While messages come all the time, the consumers are not woken for each of them; what comes now and then is there at once.
func TestConsumersGetSeveralGroupsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		c := &recorder{name: "c", before: func(int) error { calls++; return nil }}
		l := new(memLog)
		p, stop := start(t, l, c)
		defer stop()
		const n, every = 2000, time.Millisecond
		for i := range n {
			send(t, p, "d", sample(i))
			l.seal()
			if synctest.Wait(); i < 100 && calls != i+1 {
				t.Fatalf("%d calls for the first %d messages", calls, i+1)
			}
			time.Sleep(every)
		}
		if err := p.Wait(t.Context(), "c", l.Last()); err != nil {
			t.Fatal(err)
		}
		if want := int(n*every/tailPace) + tailBurst + 2; calls > want || len(c.got) != n {
			t.Errorf("%d messages in %d calls, want %d in at most %d", len(c.got), calls, n, want)
		}
	})
}

// paced is a consumer that wants more at once.
type paced struct{ recorder }

func (*paced) Pace() time.Duration { return 50 * time.Millisecond }

// TestAPacedConsumerWaitsOnlyWhenItHasAll: it gets the first message at once and then what came in its pace, but all that it
// lies behind as fast as it can, however little of it lies behind each other.
func TestAPacedConsumerWaitsOnlyWhenItHasAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		gate := make(chan struct{})
		c := &paced{recorder{name: "c", before: func(int) error { calls.Add(1); <-gate; return nil }}}
		l := new(memLog)
		p, stop := start(t, l, c)
		defer stop()
		const n = 40 * batchEntries // more than the ring holds: the rest is read from the log
		for i := range n {
			send(t, p, "d", sample(i))
			if i%(batchEntries-1) == 0 {
				l.seal()
			}
		}
		end := l.seal()
		synctest.Wait()
		begin := time.Now()
		close(gate)
		if err := p.Wait(t.Context(), "c", end); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); calls.Load() < 40 || took > 2*tailPace {
			t.Errorf("%d messages in %d calls after %s, want 40 calls at least and no waiting", n, calls.Load(), took)
		}
		time.Sleep(time.Second)
		before := calls.Load()
		for range 1000 {
			send(t, p, "d", sample(0))
			l.seal()
			time.Sleep(time.Millisecond)
			if synctest.Wait(); calls.Load() == before {
				t.Fatal("the first message waits")
			}
		}
		if got := calls.Load() - before; got < 18 || got > 21 {
			t.Errorf("%d calls in a second, want one each 50 ms", got)
		}
	})
}

// While there is more in the log, nothing waits for the next time that the consumers are woken: they catch up as fast as they can.
func TestTheTailCatchesUpWithoutAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &recorder{name: "c"}
		l := new(memLog)
		p, stop := start(t, l, c)
		defer stop()
		for i := range tailBurst + 10 { // from now on each waits its turn
			send(t, p, "d", sample(i))
			l.seal()
			synctest.Wait()
		}
		const n = 20 * batchEntries
		for i := range n {
			send(t, p, "d", sample(tailBurst+10+i))
			if i%100 == 0 {
				l.seal()
			}
		}
		begin := time.Now()
		if err := p.Wait(t.Context(), "c", l.seal()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d > 2*tailPace {
			t.Errorf("%d messages took %s", n, d)
		}
	})
}

// TestGroupsAreJoined: what one decoder made of several groups is put together as it lies, and nobody who appends to what he
// got writes over the next. Other groups stay apart.
func TestGroupsAreJoined(t *testing.T) {
	group := func(d *decoder, first, n int) []citywarden.Entry {
		recs := make([]citywarden.Record, n)
		for i := range recs {
			recs[i] = citywarden.Record{Position: citywarden.Position(first + i), Kind: citywarden.RecordTick}
		}
		return d.group(recs)
	}
	d := newDecoder(one{testModel()})
	groups := [][]citywarden.Entry{group(d, 1, 3), group(d, 4, 1), group(d, 5, roomEntries-4)}
	beyond := group(d, roomEntries+1, 2*roomEntries)
	for name, c := range map[string]struct {
		a, b []citywarden.Entry
		want int // entries, 0 when they stay apart
	}{
		"behind each other": {groups[0], groups[1], 4},
		"without the 2nd":   {groups[0], groups[2], 0},
		"into other room":   {groups[2], beyond, 0},
		"another decoder":   {groups[0], group(newDecoder(one{testModel()}), 4, 2), 0},
		"nothing before":    {nil, groups[0], 0},
	} {
		all, ok := joined(c.a, c.b)
		if ok != (c.want > 0) || len(all) != c.want {
			t.Errorf("%s: %d entries, %v, want %d", name, len(all), ok, c.want)
		}
		for i, e := range all {
			if e.Position != citywarden.Position(1+i) {
				t.Errorf("%s: position %d at %d", name, e.Position, i)
			}
		}
	}
	var r ring
	r.start(0)
	for _, g := range groups {
		r.push(g)
	}
	r.push(beyond)
	got, _ := r.after(0)
	_ = append(got, citywarden.Entry{Record: citywarden.Record{Position: 99}})
	if len(got) != 4 || groups[2][0].Position != 5 {
		t.Errorf("%d entries at once, and then position %d, want 4, which is less than a batch, and 5", len(got), groups[2][0].Position)
	}
	if got, _ = r.after(4); len(got) != roomEntries-4 {
		t.Errorf("%d entries behind them, want %d", len(got), roomEntries-4)
	}
	if got, _ = r.after(roomEntries); len(got) != len(beyond) {
		t.Errorf("%d entries in the other room, want %d", len(got), len(beyond))
	}
}

// stuck is a log that is not read beyond a group.
type stuck struct {
	*memLog
	end uint64
	how func(ctx context.Context) error
}

func (l stuck) Read(ctx context.Context, after citywarden.Position) ([]citywarden.Record, error) {
	if after.Group() >= l.end {
		return nil, l.how(ctx)
	}
	return l.memLog.Read(ctx, after)
}

// TestConsumersDoNotWaitForWhatIsStuck: of what is read they get what makes a batch, by bytes too, and all of it
// when the log can't be read further.
func TestConsumersDoNotWaitForWhatIsStuck(t *testing.T) {
	for _, c := range []struct {
		name string
		size int // of a message
		how  func(ctx context.Context) error
		want int // messages
	}{
		{"long messages", 200 << 10, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 10},
		{"an error", 10, func(context.Context) error { return errors.New("the disk is away") }, 16},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := new(memLog)
				for i := range 20 {
					l.Append(citywarden.Record{Kind: citywarden.RecordUplink, Uplink: &citywarden.Uplink{Device: "d", Protocol: "mqtt", Topic: "v1/devices/me/telemetry",
						Payload: []byte(sample(i) + strings.Repeat(" ", c.size))}}, func(citywarden.Position, error) {})
					l.seal()
				}
				got := &recorder{name: "c"}
				_, stop := start(t, stuck{l, 16, c.how}, got)
				synctest.Wait()
				stop()
				if len(got.got) < c.want {
					t.Errorf("%d messages of 16, want %d at least", len(got.got), c.want)
				}
			})
		})
	}
}

func TestAFailingConsumerIsTriedAgainAndStopsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var times []time.Duration
		begin := time.Now()
		bad := &recorder{name: "bad", before: func(n int) error {
			times = append(times, time.Since(begin))
			if n <= 7 {
				return errors.New("the database is away")
			}
			return nil
		}}
		good := &recorder{name: "good"}
		l := new(memLog)
		p, stop := start(t, l, bad, good)
		send(t, p, "d", sample(1))
		first := l.seal()
		if err := p.Wait(t.Context(), "good", first); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the bad one has failed once by now
		if !p.Failing("bad").Equal(begin) || !p.Failing("good").IsZero() {
			t.Errorf("failing since %v and %v, want %v and never", p.Failing("bad"), p.Failing("good"), begin)
		}
		send(t, p, "d", sample(2))
		end := l.seal()
		if err := p.Wait(t.Context(), "good", end); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d > 0 {
			t.Errorf("the good consumer had to wait for %s", d)
		}
		if err := p.Wait(t.Context(), "bad", end); err != nil {
			t.Fatal(err)
		}
		if since := p.Failing("bad"); !since.IsZero() {
			t.Errorf("failing since %v after it could consume", since)
		}
		stop()
		if diff := cmp.Diff(summaries(good.got), summaries(bad.got)); diff != "" {
			t.Errorf("what the failing consumer got (-good +bad):\n%s", diff)
		}
		want := []time.Duration{0, 1, 3, 7, 15, 31, 61, 91, 91}
		for i := range want {
			want[i] *= time.Second
		}
		if diff := cmp.Diff(want, times); diff != "" {
			t.Errorf("when it was tried:\n%s", diff)
		}
	})
}

func TestARestartedConsumerSeesTheSameDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(memLog)
		first := &recorder{name: "first"}
		p, stop := start(t, l, first)
		const n = 600
		for i := range n {
			send(t, p, "d", sample(i*i%97)) // many of them again and again
		}
		end := l.seal()
		if err := p.Wait(t.Context(), "first", end); err != nil {
			t.Fatal(err)
		}
		stop()
		for _, k := range []int{0, 1, 2, n / 2, n - 2, n - 1} {
			// One behind, which reads the log, and one further on, which gets the ring.
			behind := &recorder{name: "behind", cursor: first.got[k].Position}
			ahead := &recorder{name: "ahead", cursor: first.got[min(k+9, n-1)].Position}
			p, stop := start(t, l, behind, ahead)
			for _, name := range []string{"behind", "ahead"} {
				if err := p.Wait(t.Context(), name, end); err != nil {
					t.Fatal(err)
				}
			}
			stop()
			if diff := cmp.Diff(summaries(first.got[k+1:]), summaries(behind.got)); diff != "" {
				t.Errorf("from entry %d (-first +again):\n%s", k, diff)
			}
			if diff := cmp.Diff(summaries(first.got[min(k+10, n):]), summaries(ahead.got)); diff != "" {
				t.Errorf("from entry %d (-first +again):\n%s", k+10, diff)
			}
		}
	})
}

// Readings without a time are dated by their arrival, and two at one time would
// be one point of the series.
func TestNoTwoMessagesArriveAtOneTime(t *testing.T) {
	l := new(memLog)
	p, err := New(Options{Log: l, Directory: one{testModel()}})
	if err != nil {
		t.Fatal(err)
	}
	back := testArrival.Add(-time.Hour) // a clock that was set back is believed
	for _, at := range []time.Time{testArrival, testArrival, testArrival.Add(-10 * time.Microsecond), back, back} {
		p.Accept(t.Context(), citywarden.Uplink{Device: "a", Topic: "v1/devices/me/telemetry", Payload: []byte(`{"smoke":1}`), Received: at}, func(error) {})
	}
	l.seal()
	var got []time.Duration
	d := newDecoder(one{testModel()})
	for _, g := range l.groups {
		for _, e := range d.group(g) {
			if e.Duplicates > 0 {
				t.Error("the same value again counts as a duplicate")
			}
			for _, r := range e.Readings {
				got = append(got, r.Time.Sub(testArrival))
			}
		}
	}
	if diff := cmp.Diff([]time.Duration{0, 1, 2, -time.Hour, -time.Hour + 1}, got); diff != "" {
		t.Errorf("times of the readings (-want +got):\n%s", diff)
	}
}

// A message that is brought in again after its model was corrected is decoded
// twice with the model of now by whoever begins before it, as after a restart.
func TestAMessageThatIsBroughtInAgainIsNoDuplicate(t *testing.T) {
	up := citywarden.Uplink{Device: "a", Topic: "v1/devices/me/telemetry", Payload: []byte(`[{"ts":1795420000000,"values":{"smoke":1}},{"ts":1795420000000,"values":{"smoke":1}}]`), Received: testArrival}
	d := newDecoder(one{testModel()})
	for i := range 2 {
		es := d.group([]citywarden.Record{{Kind: citywarden.RecordUplink, At: testArrival, Uplink: &up}})
		if len(es[0].Readings) != 1 || es[0].Duplicates != 1 {
			t.Errorf("time %d: %d readings and %d duplicates, want 1 and 1", i, len(es[0].Readings), es[0].Duplicates)
		}
	}
}

func TestDuplicates(t *testing.T) {
	d := newDecoder(one{testModel()})
	arrival := testArrival
	decodeOne := func(device citywarden.DeviceID, payload string) citywarden.Entry {
		arrival = arrival.Add(1)
		return d.group([]citywarden.Record{{Kind: citywarden.RecordUplink, At: testArrival, Uplink: &citywarden.Uplink{
			Device: device, Topic: "v1/devices/me/telemetry", Payload: []byte(payload), Received: arrival}}})[0]
	}
	tests := []struct {
		device        citywarden.DeviceID
		payload       string
		stored, again int
	}{
		{"a", `{"ts":1795420000000,"values":{"smoke":1,"button":true,"firmware":"x"}}`, 3, 0},
		{"a", `{"ts":1795420000000,"values":{"smoke":1,"button":true,"firmware":"x"}}`, 0, 3},
		{"a", `{"ts":1795420000,"values":{"smoke":1.0}}`, 0, 1},            // the same in other words
		{"a", `{"ts":1795420000000,"values":{"smoke":2}}`, 1, 0},           // other value
		{"a", `{"ts":1795420000001,"values":{"smoke":1}}`, 1, 0},           // other time
		{"a", `{"ts":1795420000000,"values":{"temperature":1}}`, 1, 0},     // other metric
		{"b", `{"ts":1795420000000,"values":{"smoke":1}}`, 1, 0},           // other device
		{"a", `{"ts":1795420000000,"values":{"firmware":"y"}}`, 1, 0},      // other text
		{"c", `[{"smoke":1},{"smoke":1}]`, 1, 1},                           // within one message
		{"c", `{"ts":1795507200000,"values":{"smoke":3}}`, 1, 0},           // clamped
		{"c", `{"ts":1795507200000,"values":{"smoke":3}}`, 0, 1},           // and sent again
		{"c", `{"ts":5,"values":{"smoke":3}}`, 0, 0},                       // quarantined
		{"c", `{"ts":5,"values":{"smoke":3}}`, 0, 0},                       // quarantined again, not a duplicate
		{"c", `{"ts":1795507200000,"values":{"smoke":3,"nope":1}}`, 0, 1},  // with a part that is rejected
		{"a", `{"ts":1795420000000,"values":{"smoke":1,"smoke":2}}`, 0, 1}, // 2 was there
	}
	for _, tt := range tests {
		e := decodeOne(tt.device, tt.payload)
		if len(e.Readings) != tt.stored || e.Duplicates != tt.again {
			t.Errorf("%s %s: %d readings and %d duplicates, want %d and %d", tt.device, tt.payload, len(e.Readings), e.Duplicates, tt.stored, tt.again)
		}
	}
	for i := range duplicateWindow - 20 {
		decodeOne("x", sample(i))
	}
	if e := decodeOne("b", `{"ts":1795420000000,"values":{"smoke":1}}`); e.Duplicates != 1 {
		t.Error("a duplicate within the window was not recognised")
	}
	for i := range duplicateWindow + 1 {
		decodeOne("x", sample(i))
	}
	if e := decodeOne("b", `{"ts":1795420000000,"values":{"smoke":1}}`); e.Duplicates != 0 {
		t.Error("a duplicate beyond the window was recognised, which another decoder would not do")
	}
	if n := len(d.cur) + len(d.old); n > 2*duplicateWindow+20 {
		t.Errorf("%d readings are remembered", n)
	}
}

func TestRejectedMessagesBecomeDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(memLog)
		c := &recorder{name: "c"}
		p, stop := start(t, l, c)
		send(t, p, "nobody", `{"smoke":1}`)
		send(t, p, "d", `{"smoke":`)
		send(t, p, "d", `{"smoke":1,"smoek":2}`)
		if err := p.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		at, err := p.Order(t.Context(), citywarden.AlarmOrder{Kind: citywarden.OrderAck, Alarm: "r:d:1", By: "li"})
		if err != nil {
			t.Fatal(err)
		}
		end := l.seal()
		if err := p.Wait(t.Context(), "c", end); err != nil {
			t.Fatal(err)
		}
		stop()
		var reasons []string
		for _, e := range c.got {
			if e.Reject != nil {
				reasons = append(reasons, e.Reject.Reason)
				if e.Reject.Position != e.Position || string(e.Reject.Payload) != string(e.Uplink.Payload) {
					t.Errorf("dead letter %+v of %+v", e.Reject, e.Uplink)
				}
			}
		}
		want := []string{"no device nobody", "byte 9: expected a value, found the end", `unknown metric "smoek"; did you mean "smoke"? (1 of 2 readings were taken)`}
		if diff := cmp.Diff(want, reasons); diff != "" {
			t.Errorf("reasons:\n%s", diff)
		}
		if e := c.got[3]; e.Kind != citywarden.RecordTick {
			t.Errorf("entry 3 is %+v", e)
		}
		if e := c.got[4]; e.Position != at || e.Order == nil || e.Order.By != "li" {
			t.Errorf("entry 4 is %+v, want the order at %d", e, at)
		}
		if n := number(t, p.metrics.dead); n != 3 {
			t.Errorf("%v dead letters counted", n)
		}
	})
}

func TestCheck(t *testing.T) {
	p, _ := start(t, new(memLog))
	tests := []struct {
		device  citywarden.DeviceID
		payload string
		want    citywarden.Code
	}{
		{"d", `{"smoke":1}`, ""},
		{"d", `{"smoke":99}`, ""},
		{"d", `{"smoke":1,"x":2}`, citywarden.CodeInvalid},
		{"d", `{"smoke"`, citywarden.CodeInvalid},
		{"nobody", `{"smoke":1}`, citywarden.CodeNotFound},
	}
	for _, tt := range tests {
		err := p.Check(citywarden.Uplink{Device: tt.device, Topic: "v1/devices/me/telemetry", Payload: []byte(tt.payload)})
		if citywarden.CodeOf(err) != tt.want {
			t.Errorf("Check(%s, %s) = %v, want %q", tt.device, tt.payload, err, tt.want)
		}
	}
}

func TestALogThatFailsAcksNothingAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(memLog)
		c := &recorder{name: "c"}
		p, _ := start(t, l, c)
		l.mu.Lock()
		l.broken = citywarden.Errorf(citywarden.CodeTransient, "disk full")
		l.mu.Unlock()
		l.grown.broadcast()
		var got error
		p.Accept(t.Context(), citywarden.Uplink{Device: "d", Payload: []byte(`{}`)}, func(err error) { got = err })
		if citywarden.CodeOf(got) != citywarden.CodeTransient {
			t.Errorf("Accept = %v, want a transient error", got)
		}
		if err := p.Tick(t.Context()); citywarden.CodeOf(err) != citywarden.CodeTransient {
			t.Errorf("Tick = %v, want a transient error", err)
		}
		synctest.Wait()
		l.mu.Lock()
		l.broken = nil
		l.mu.Unlock()
		send(t, p, "d", sample(1))
		if err := p.Wait(t.Context(), "c", l.seal()); err != nil {
			t.Fatal(err)
		}
		if len(c.got) != 1 {
			t.Errorf("got %d entries", len(c.got))
		}
	})
}

func TestWaitAndItsErrors(t *testing.T) {
	p, _ := start(t, new(memLog), &recorder{name: "c"})
	if err := p.Wait(t.Context(), "d", 1); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Errorf("Wait for an unknown consumer = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Wait(ctx, "c", 1); citywarden.CodeOf(err) != citywarden.CodeTransient {
		t.Errorf("Wait with a context that ended = %v", err)
	}
	if err := p.Wait(t.Context(), "c", 0); err != nil {
		t.Errorf("Wait for the beginning = %v", err)
	}
}

func TestRunRefusesADatabaseThatIsNewerThanTheLog(t *testing.T) {
	p, err := New(Options{Log: new(memLog), Directory: one{testModel()}})
	if err != nil {
		t.Fatal(err)
	}
	p.Attach(&recorder{name: "series", cursor: citywarden.PositionAt(7, 1)})
	if err := p.Run(t.Context()); citywarden.CodeOf(err) != citywarden.CodeConflict {
		t.Errorf("Run = %v, want CodeConflict", err)
	}
}

func TestTrimFollowsTheSlowestConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(memLog)
		var trimmed []citywarden.Position
		p, err := New(Options{Log: l, Directory: one{testModel()}, Logger: slog.New(slog.DiscardHandler),
			Trim: func(_ context.Context, at citywarden.Position) error { trimmed = append(trimmed, at); return nil }})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 9 {
			send(t, p, "d", sample(i))
		}
		l.seal()
		p.Attach(&recorder{name: "a", cursor: citywarden.PositionAt(3, 0)})
		p.Attach(&recorder{name: "b", cursor: citywarden.PositionAt(2, 1)})
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
		defer cancel()
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]citywarden.Position{citywarden.PositionAt(2, 1), citywarden.PositionAt(2, 1)}, trimmed); diff != "" {
			t.Errorf("trimmed up to:\n%s", diff)
		}
	})
}

func TestMetrics(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	l := new(memLog)
	p, err := New(Options{Log: l, Directory: one{testModel()}, Metrics: r})
	if err != nil {
		t.Fatal(err)
	}
	p.Attach(&recorder{name: "c"})
	send(t, p, "d", sample(1))
	p.Accept(t.Context(), citywarden.Uplink{Device: "d", Protocol: "pigeon"}, func(error) {})
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	want := []string{"citywarden_ack_seconds", "citywarden_ack_stalls_total", "citywarden_ack_waited_seconds", "citywarden_consumer_lag", "citywarden_dead_letters_total", "citywarden_limited_total", "citywarden_log_depth", "citywarden_uplinks_total"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("metrics:\n%s", diff)
	}
	if n := number(t, p.metrics.results["mqtt"]["stored"]); n != 1 {
		t.Errorf("%v messages over mqtt", n)
	}
	if n := number(t, p.metrics.results["other"]["stored"]); n != 1 {
		t.Errorf("%v messages over something else", n)
	}
	if _, err := New(Options{Log: l, Directory: one{testModel()}, Metrics: r}); err == nil {
		t.Error("registered twice without an error")
	}
}

// number returns the value of a counter.
func number(t *testing.T, c prometheus.Metric) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}
