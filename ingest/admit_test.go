package ingest

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/citywarden/citywarden"
)

// leader is a recorder for which messages wait.
type leader struct{ recorder }

func (*leader) HoldsBack() bool { return true }

// sendAll sends n messages of a device and returns the numbers of those that
// were acknowledged, in the order in which that happened.
func sendAll(ctx context.Context, p *Pipeline, device citywarden.DeviceID, n int) (acked func() []int, done <-chan struct{}) {
	var mu sync.Mutex
	var list []int
	over := make(chan struct{})
	go func() {
		defer close(over)
		for i := range n {
			p.Accept(ctx, citywarden.Uplink{Device: device, Protocol: "mqtt", Payload: []byte(sample(i))}, func(err error) {
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					list = append(list, i)
				}
			})
		}
	}()
	return func() []int {
		mu.Lock()
		defer mu.Unlock()
		return append([]int(nil), list...)
	}, over
}

func TestAcceptWaitsForTheAlarms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		alarms := &leader{recorder{name: "alarms", before: func(int) error { <-gate; return nil }}}
		l := new(memLog)
		p, stop := start(t, l, &recorder{name: "series"}, alarms)
		synctest.Wait()
		const n = 2000
		acked, over := sendAll(t.Context(), p, "d", n)
		others := make([]<-chan struct{}, 50)
		for i := range others {
			_, others[i] = sendAll(t.Context(), p, "other", 10)
		}
		synctest.Wait()
		if lag := p.Lag()["alarms"]; lag <= maxBehind || lag > maxBehind+1+uint64(len(others)) {
			t.Errorf("the alarms are %d groups behind when no message is taken any more, want %d and at most one for each device more", lag, maxBehind+1)
		}
		held := len(acked())
		if held == n {
			t.Fatal("all messages were acknowledged while the alarms stood still")
		}
		time.Sleep(time.Hour) // virtual
		if got := len(acked()); got != held {
			t.Errorf("%d messages were acknowledged while the alarms stood still", got-held)
		}
		// What does not come from a device is not held up: the alarms may need it.
		if err := p.Tick(t.Context()); err != nil {
			t.Errorf("Tick = %v", err)
		}
		close(gate)
		<-over
		for _, o := range others {
			<-o
		}
		got := acked()
		for i := range n {
			if len(got) != n || got[i] != i {
				t.Fatalf("%d of %d messages were acknowledged, or not in their order", len(got), n)
			}
		}
		if err := p.Wait(t.Context(), "alarms", l.seal()); err != nil {
			t.Fatal(err)
		}
		stop()
		deaf := 0 // that nobody was heard for an hour
		for _, e := range alarms.got {
			if e.Kind == citywarden.RecordDeaf {
				deaf++
			}
		}
		if want := n + 50*10 + 1; len(alarms.got)-deaf != want || deaf < 300 {
			t.Errorf("the alarms got %d of %d entries, and %d times that nobody is heard", len(alarms.got)-deaf, want, deaf)
		}
	})
}

func TestAcceptGoesOnAtHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(memLog)
		p, err := New(Options{Log: l, Directory: one{testModel()}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		p.Attach(new(leader))
		for p.log.Last().Group() < 300 { // nothing runs yet, so nothing holds back
			send(t, p, "d", sample(1))
		}
		end := l.seal().Group()
		c := p.consumers[0]
		c.running.Store(true)
		reach := func(behind uint64) {
			e := citywarden.Entry{Record: citywarden.Record{Position: citywarden.PositionAt(end-behind, citywarden.MaxGroup-1)}}
			p.deliver(t.Context(), c, []citywarden.Entry{e})
			synctest.Wait()
		}
		taken := func(over <-chan struct{}) bool {
			select {
			case <-over:
				return true
			default:
				return false
			}
		}
		reach(maxBehind + 1)
		_, over := sendAll(t.Context(), p, "d", 1)
		for _, n := range []uint64{maxBehind + 1, maxBehind, resumeBehind + 1} {
			if reach(n); taken(over) {
				t.Fatalf("a message was taken when the consumer had come down to %d groups", n)
			}
		}
		if reach(resumeBehind); !taken(over) {
			t.Fatalf("no message was taken at %d groups", resumeBehind)
		}
		end = l.seal().Group()
		reach(maxBehind)
		_, over = sendAll(t.Context(), p, "d", 1)
		synctest.Wait()
		if !taken(over) {
			t.Fatalf("no message was taken at %d groups after the consumer had caught up", maxBehind)
		}
	})
}

func TestAnOutageOfTheSeriesHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		l := new(memLog)
		p, _ := start(t, l, &recorder{name: "series", before: func(int) error { <-gate; return nil }}, &leader{recorder{name: "alarms"}})
		acked, over := sendAll(t.Context(), p, "d", 2000)
		<-over
		if n := len(acked()); n != 2000 {
			t.Errorf("%d of 2000 messages were acknowledged", n)
		}
		if lag := p.Lag()["series"]; lag <= maxBehind {
			t.Errorf("the series are only %d groups behind; the test proves nothing", lag)
		}
		close(gate)
	})
}

func TestAConsumerThatFailsForLongIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		broken := errors.New("database is locked")
		alarms := &leader{recorder{name: "alarms", before: func(int) error { mu.Lock(); defer mu.Unlock(); return broken }}}
		var out bytes.Buffer // a slog handler locks
		l := new(memLog)
		p, err := New(Options{Log: l, Directory: one{testModel()}, Logger: slog.New(slog.NewTextHandler(&out, nil))})
		if err != nil {
			t.Fatal(err)
		}
		p.Attach(alarms)
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- p.Run(ctx) }()
		synctest.Wait()
		var over []<-chan struct{}
		for range 20 {
			_, o := sendAll(t.Context(), p, "d", 100)
			over = append(over, o)
		}
		time.Sleep(10*time.Minute + time.Second) // virtual
		synctest.Wait()

		// One that has no patience is told to send again.
		short, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		var refused error
		p.Accept(short, citywarden.Uplink{Device: "e"}, func(err error) { refused = err })
		if citywarden.CodeOf(refused) != citywarden.CodeTransient || !strings.Contains(refused.Error(), "alarms") {
			t.Errorf("Accept whose context ends while it waits = %v, want a transient error that names the consumer", refused)
		}

		mu.Lock()
		broken = nil
		mu.Unlock()
		for _, o := range over {
			<-o
		}
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		said := strings.Count(out.String(), "messages are not acknowledged")
		if said < 5 || said > 12 {
			t.Errorf("it was said %d times in 10 minutes", said)
		}
		if !strings.Contains(out.String(), "consumer=alarms groups=2") {
			t.Errorf("consumer and lag are not said:\n%.2000s", out.String())
		}
	})
}

func TestNobodyWaitsForAPipelineThatEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		alarms := &leader{recorder{name: "alarms", before: func(int) error { <-gate; return errors.New("stopping") }}}
		p, stop := start(t, new(memLog), alarms)
		synctest.Wait()
		acked, over := sendAll(t.Context(), p, "d", 2000)
		synctest.Wait()
		if n := len(acked()); n == 2000 {
			t.Fatal("nothing was held back; the test proves nothing")
		}
		close(gate)
		stop()
		<-over
	})
}

// TestNothingIsTakenWithoutRoom: while there is no room a message is refused at
// once and not logged, but what the alarms need goes on.
func TestNothingIsTakenWithoutRoom(t *testing.T) {
	full := citywarden.Errorf(citywarden.CodeTransient, "the disk is full")
	room := full
	l := new(memLog)
	p, err := New(Options{Log: l, Directory: one{testModel()}, Logger: slog.New(slog.DiscardHandler), Full: func() error { return room }})
	if err != nil {
		t.Fatal(err)
	}
	accept := func() (err error) {
		p.Accept(t.Context(), citywarden.Uplink{Device: "d", Protocol: "mqtt", Payload: []byte(sample(1))}, func(e error) { err = e })
		return err
	}
	if err := accept(); !errors.Is(err, full) || citywarden.CodeOf(err) != citywarden.CodeTransient {
		t.Errorf("Accept without room = %v, want %v", err, full)
	}
	if end := l.seal(); end != 0 {
		t.Errorf("a refused message is in the log at %d", end)
	}
	if err := p.Tick(t.Context()); err != nil {
		t.Errorf("Tick without room = %v", err)
	}
	room = nil
	if err := accept(); err != nil {
		t.Errorf("Accept with room = %v", err)
	}
}
