package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/ingest/journal"
)

// counting is a log that counts the groups which are read of it, and looks back no further than need be.
type counting struct {
	*memLog
	groups atomic.Int64
}

func (c *counting) Read(ctx context.Context, after citywarden.Position) ([]citywarden.Record, error) {
	recs, err := c.memLog.Read(ctx, after)
	if err == nil {
		c.groups.Add(1)
	}
	return recs, err
}

func (c *counting) Back(ctx context.Context, p citywarden.Position, n uint64) (citywarden.Position, error) {
	return c.memLog.Back(ctx, p, n/2+2) // of its groups three have six records
}

// TestConsumersThatAreBehindShareTheirWindow starts with consumers at the same position, in the middle of a group,
// a little further on, and so far on that they share nothing: each gets what one got that was there all the time, with
// the duplicates from before its position, and what lies before is read once for those that are near.
func TestConsumersThatAreBehindShareTheirWindow(t *testing.T) {
	if raceDetector {
		t.Skip("takes minutes; TestAWindowThatCannotBeReadHoldsUpNobody shares windows too")
	}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(testArrival))
		l := &counting{memLog: new(memLog)}
		always := &recorder{name: "always"}
		p, stop := start(t, l, always)
		const w = duplicateWindow
		const n, most = 3 * w, w / 2 // what a window has of groups
		for i := range n {
			v := i
			switch i % 8 {
			case 3: // of a moment ago
				v = i - 3
			case 5: // so far back that it just is a duplicate, or is none any more
				v = i - 5 - w + 16*(i/8%2)
			}
			send(t, p, "d", sample(max(v, 0)))
		}
		end := l.seal()
		if err := p.Wait(t.Context(), "always", end); err != nil {
			t.Fatal(err)
		}
		stop()
		dups := 0
		for i := range always.got {
			dups += always.got[i].Duplicates
		}
		if len(always.got) != n || dups < n/8+n/50 || dups > n/4-n/50 {
			t.Fatalf("%d entries, %d duplicates", len(always.got), dups)
		}

		for name, tt := range map[string]struct {
			at    []int
			reads int64 // of groups at most
		}{
			"at two positions":              {[]int{5 * w / 2, 5 * w / 2, 5 * w / 2, 5*w/2 + 4000, 5*w/2 + 4000}, most + 4*2000 + w/4},
			"in one group, and a little on": {[]int{5 * w / 2, 5*w/2 + 1, 5*w/2 + 2, 5*w/2 + 3, 5*w/2 + 4}, most + w/4},
			"one after the other":           {[]int{2 * w, 9 * w / 4, 5 * w / 2, n - 1}, w/2 + w/2 + 9*w/8},
			"far from each other":           {[]int{3 * w / 2, 5*w/2 + 10, n - 1}, 2*most + w/4 + w},
		} {
			var attached []Consumer
			for i, k := range tt.at {
				attached = append(attached, &recorder{name: fmt.Sprint("c", i), cursor: always.got[k].Position})
			}
			slices.Reverse(attached) // the lowest need not be the first
			l.groups.Store(0)
			p, stop := start(t, l, attached...)
			for _, c := range attached {
				if err := p.Wait(t.Context(), c.Name(), end); err != nil {
					t.Fatal(err)
				}
			}
			stop()
			t.Logf("%s: %d groups read", name, l.groups.Load())
			if got := l.groups.Load(); got > tt.reads+100 {
				t.Errorf("%s: %d groups were read, want at most %d", name, got, tt.reads)
			}
			for _, c := range attached {
				c := c.(*recorder)
				want := slices.Clone(always.got)
				for len(want) > 0 && want[0].Position <= c.cursor {
					want = want[1:]
				}
				if len(want) != len(c.got) {
					t.Fatalf("%s: after %d %d entries, want %d", name, c.cursor, len(c.got), len(want))
				}
				for i := range want {
					if a, b := &want[i], &c.got[i]; a.Position != b.Position || a.Duplicates != b.Duplicates || !slices.Equal(a.Readings, b.Readings) {
						t.Fatalf("%s: after %d\n%s, and all the time\n%s", name, c.cursor, summary(b), summary(a))
					}
				}
			}
		}
	})
}

// torn is a log of which one group can't be read.
type torn struct {
	*counting
	group uint64
}

func (l *torn) Read(ctx context.Context, after citywarden.Position) ([]citywarden.Record, error) {
	recs, err := l.counting.Read(ctx, after)
	if err == nil && recs[0].Position.Group() == l.group {
		return nil, citywarden.Errorf(citywarden.CodeInternal, "commit group %d is damaged", l.group)
	}
	return recs, err
}

// TestAWindowThatCannotBeReadHoldsUpNobody has a damaged group that only the window of the one that is furthest behind reaches.
func TestAWindowThatCannotBeReadHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(testArrival))
		l := &torn{counting: &counting{memLog: new(memLog)}}
		const n = duplicateWindow + 3000
		for i := range n {
			l.Append(citywarden.Record{Kind: citywarden.RecordTick, Uplink: nil, At: testArrival.Add(time.Duration(i))}, func(citywarden.Position, error) {})
		}
		end := l.seal()
		behind := &recorder{name: "behind", cursor: citywarden.PositionAt(end.Group()-1000, 0)}
		ahead := &recorder{name: "ahead", cursor: citywarden.PositionAt(end.Group()-10, 0)}
		back, err := l.Back(t.Context(), behind.cursor, duplicateWindow)
		if err != nil {
			t.Fatal(err)
		}
		l.group = back.Group() + 5
		p, _ := start(t, l, behind, ahead)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.Wait(ctx, "ahead", end); err != nil {
			t.Errorf("the one that is ahead: %v", err)
		}
		if err := p.Wait(ctx, "behind", end); err == nil {
			t.Error("the other one did not read the damaged group; the test proves nothing")
		}
	})
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkStartBehind opens what five consumers and the end of the log begin with, a second of messages between them, in a
// log of small groups; "for itself" is each with a window of its own, as it was once.
func BenchmarkStartBehind(b *testing.B) {
	log := slog.New(slog.DiscardHandler)
	j, err := journal.Open(b.Context(), journal.Options{Dir: b.TempDir(), Logger: log})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { j.Run(ctx) })
	defer running.Wait()
	defer cancel()
	const groups = 50_000
	for i := 0; j.Last().Group() < groups; i++ {
		done := make(chan struct{})
		up := &citywarden.Uplink{Device: citywarden.DeviceID(fmt.Sprint("d", i%1000)), Protocol: "mqtt", Topic: "v1/devices/me/telemetry",
			Payload: []byte(sample(i)), Received: testArrival.Add(time.Duration(i) * time.Millisecond)}
		j.Append(citywarden.Record{Kind: citywarden.RecordUplink, Uplink: up}, func(_ citywarden.Position, err error) {
			if err != nil {
				b.Error(err)
			}
			close(done)
		})
		<-done
	}
	for _, shared := range []bool{false, true} {
		b.Run(map[bool]string{false: "for itself", true: "shared"}[shared], func(b *testing.B) {
			begin := cpu()
			for range b.N {
				pipeline := func() *Pipeline {
					p, err := New(Options{Log: j, Directory: one{testModel()}, Logger: log})
					if err != nil {
						b.Fatal(err)
					}
					return p
				}
				p := pipeline()
				var all []*logDecoder
				for i := range 6 {
					if !shared {
						p = pipeline()
					}
					all = append(all, p.decoders.add(p, citywarden.PositionAt(groups-6*100+uint64(i)*100, 0)))
				}
				var opening sync.WaitGroup
				for _, d := range all {
					opening.Go(func() {
						defer d.close()
						d.open(ctx)
						d.next(ctx)
					})
				}
				opening.Wait()
			}
			b.ReportMetric((cpu()-begin).Seconds()/float64(b.N), "cpu-s/start")
		})
	}
}
