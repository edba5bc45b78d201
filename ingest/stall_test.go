package ingest

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

// slowLog is a log that completes nothing while it is told so.
type slowLog struct {
	memLog
	mu   sync.Mutex
	slow bool
	held []func()
}

func (l *slowLog) Append(rec citywarden.Record, done func(citywarden.Position, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.slow {
		l.held = append(l.held, func() { l.memLog.Append(rec, done) })
		return
	}
	l.memLog.Append(rec, done)
}

func (l *slowLog) set(slow bool) {
	l.mu.Lock()
	l.slow = slow
	held := l.held
	l.held = nil
	l.mu.Unlock()
	for _, f := range held {
		f()
	}
}

// runWith runs a pipeline with o until the test ends.
func runWith(t *testing.T, o Options, consumers ...Consumer) *Pipeline {
	t.Helper()
	o.Directory = one{testModel()}
	p, err := New(o)
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
	t.Cleanup(func() { cancel(); done.Wait() })
	return p
}

// sayings are what a log said so far.
type sayings struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *sayings) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *sayings) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestItIsSaidWhyNothingIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said sayings
		l := new(slowLog)
		var began atomic.Pointer[time.Time]
		begin := func() { now := time.Now(); began.Store(&now) }
		begin()
		p := runWith(t, Options{Log: l, Logger: slog.New(slog.NewTextHandler(&said, nil)), Doing: func() (string, time.Time) { return "writing and syncing", *began.Load() }})
		synctest.Wait()
		send(t, p, "d", sample(1))
		time.Sleep(time.Hour) // nothing waits
		l.set(true)
		begin()
		send(t, p, "d", sample(2))
		time.Sleep(4 * time.Second)
		if said.String() != "" {
			t.Errorf("said after 4 s: %s", &said)
		}
		if w := p.metrics.waited(time.Now()); w != 4*time.Second {
			t.Errorf("waited %s, want 4s", w)
		}
		time.Sleep(86 * time.Second)
		if n := strings.Count(said.String(), `msg="messages wait for their acknowledgement" cause=log`); n != 2 {
			t.Errorf("said %d times in 90 s, want 2: %s", n, &said)
		}
		for _, want := range []string{"waited=6s", "messages=1", `log="writing and syncing" for=6s woken_late=0s`} {
			if !strings.Contains(said.String(), want) {
				t.Errorf("%s is not said: %s", want, &said)
			}
		}
		if n := number(t, p.metrics.stalls["log"]); n != 1 {
			t.Errorf("%v stalls of the log", n)
		}
		l.set(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !strings.Contains(said.String(), `msg="messages are acknowledged again" waited=1m`) || p.metrics.waited(time.Now()) != 0 {
			t.Errorf("waited %s: %s", p.metrics.waited(time.Now()), &said)
		}
	})
}

func TestAConsumerThatHoldsBackIsTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var said sayings
		p := runWith(t, Options{Log: new(memLog), Logger: slog.New(slog.NewTextHandler(&said, nil))}, &leader{recorder{name: "alarms", before: func(int) error { <-gate; return nil }}})
		synctest.Wait()
		_, over := sendAll(t.Context(), p, "d", 2000)
		time.Sleep(9 * time.Second)
		if !strings.Contains(said.String(), "cause=consumer") || !strings.Contains(said.String(), "consumer=alarms") {
			t.Errorf("said: %s", &said)
		}
		close(gate)
		<-over
	})
}

// TestNobodyIsHeardOnAFullDisk: the log tells when it was, so that nobody counts as silent for it.
func TestNobodyIsHeardOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var full error
		set := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			full = err
		}
		l, c := new(memLog), &recorder{name: "c"}
		begin := time.Now()
		runWith(t, Options{Log: l, Logger: slog.New(slog.DiscardHandler), Full: func() error {
			mu.Lock()
			defer mu.Unlock()
			return full
		}}, c)
		time.Sleep(time.Minute + 500*time.Millisecond)
		set(citywarden.Errorf(citywarden.CodeTransient, "full"))
		time.Sleep(25 * time.Second)
		set(nil)
		time.Sleep(time.Minute)
		l.seal()
		synctest.Wait()
		var at []time.Duration
		for _, e := range c.got {
			switch e.Kind {
			case citywarden.RecordDeaf:
				at = append(at, e.At.Sub(begin))
			case citywarden.RecordTick: // says that somebody would have been heard
				if d := e.At.Sub(begin); d > 62*time.Second && d <= 86*time.Second {
					t.Errorf("it hears at %s", d)
				}
			default:
				t.Errorf("a record of kind %d", e.Kind)
			}
		}
		if d := cmp.Diff([]time.Duration{62 * time.Second, 72 * time.Second, 82 * time.Second, 86 * time.Second}, at); d != "" {
			t.Error(d)
		}
	})
}

// TestNobodyIsHeardWhileAConsumerHoldsBack: alarms that can't be stored for long keep messages from being taken, and the log
// tells when, as on a full disk; what is short is a stumble, of which it tells nothing.
func TestNobodyIsHeardWhileAConsumerHoldsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gate atomic.Pointer[chan struct{}]
		shut := func() (open func()) {
			ch := make(chan struct{})
			gate.Store(&ch)
			return func() { close(ch) }
		}
		open := shut()
		l := new(memLog)
		alarms := &leader{recorder{name: "alarms", before: func(int) error { <-*gate.Load(); return nil }}}
		p := runWith(t, Options{Log: l, Logger: slog.New(slog.DiscardHandler)}, alarms)
		synctest.Wait()
		begin := time.Now()
		_, over := sendAll(t.Context(), p, "d", 2000)
		time.Sleep(20 * time.Second)
		open()
		<-over
		time.Sleep(time.Minute)
		l.seal()
		synctest.Wait()
		deaf := func() (told []string) {
			for _, e := range alarms.got {
				if e.Kind == citywarden.RecordDeaf {
					told = append(told, e.At.Sub(begin).String()+" after "+e.Lasted.String())
				}
			}
			return told
		}
		if told := deaf(); told != nil {
			t.Errorf("of 20 s it is told that nobody was heard: %v", told)
		}

		open, begin = shut(), time.Now()
		_, over = sendAll(t.Context(), p, "d", 2000)
		time.Sleep(45 * time.Second)
		open()
		<-over
		time.Sleep(time.Minute)
		l.seal()
		synctest.Wait()
		if d := cmp.Diff([]string{"30s after 30s", "40s after 0s", "46s after 0s"}, deaf()); d != "" {
			t.Error(d)
		}
	})
}

// TestARestartAfterQuietIsNoOutageOfThatTime: nobody has anything to say for hours, and then the platform is restarted in a few
// seconds. It heard all the time, so a device that does not speak again before long was silent by itself, and the log has little of it.
func TestARestartAfterQuietIsNoOutageOfThatTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const heartbeat, quiet = 10 * time.Minute, 2 * time.Hour
		m := testModel()
		m.Heartbeat = citywarden.Duration(heartbeat)
		db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
		l := new(memLog)
		run := func() (p *Pipeline, ledger *Ledger, stop func()) {
			p, err := New(Options{Log: l, Directory: one{m}, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			ledger = NewLedger(db, 0, nil)
			p.Attach(ledger)
			l.Append(citywarden.Record{Kind: citywarden.RecordStart}, func(citywarden.Position, error) {})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- p.Run(ctx) }()
			return p, ledger, func() {
				l.seal()
				synctest.Wait()
				if err := ledger.flush(t.Context()); err != nil {
					t.Error(err)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		}
		p, _, stop := run()
		synctest.Wait()
		began := time.Now()
		send(t, p, "d", sample(1))
		time.Sleep(quiet)
		stop()
		if n := len(l.groups); n > 300 {
			t.Errorf("%d groups in two hours in which nobody spoke", n)
		}
		time.Sleep(3 * time.Second)
		p, ledger, stop := run()
		time.Sleep(time.Minute)
		send(t, p, "d", sample(2))
		end := time.Now()
		stop()
		gaps, err := ledger.Gaps(t.Context(), "d", began, end.Add(time.Second))
		if d := cmp.Diff([]citywarden.Gap{{From: began.Add(heartbeat).UTC(), To: end.UTC()}}, gaps); d != "" || err != nil {
			t.Errorf("%v, gaps (-want +got):\n%s", err, d)
		}
		rows, _, err := ledger.Rows(t.Context(), citywarden.LedgerFilter{From: began.Add(-time.Hour), To: end.Add(time.Hour), Device: "d"})
		silent := int64(0)
		for _, r := range rows {
			silent += r.Silent
		}
		if want := int64((end.Sub(began) - heartbeat) / time.Second); err != nil || silent != want {
			t.Errorf("%v, silent for %d s, want %d", err, silent, want)
		}
	})
}
