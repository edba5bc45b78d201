package journal

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"

	"github.com/citywarden/citywarden"
)

// In virtual time a sync takes no time: what passes is what the log waits of itself.
func TestWhoWaitsForOthers(t *testing.T) {
	ats.Register()
	defer ats.Unregister()
	// send has so many senders append n records each, the next every so often after the last was acknowledged, and
	// returns the longest that an acknowledgement took.
	send := func(t *testing.T, j *Journal, senders, n int, every time.Duration, device func(sender, k int) string) time.Duration {
		var all sync.WaitGroup
		var longest atomic.Int64
		for s := range senders {
			all.Go(func() {
				time.Sleep(every * time.Duration(s) / time.Duration(senders))
				for k := range n {
					begin := time.Now()
					r := uplink(k)
					r.Uplink.Device = citywarden.DeviceID(device(s, k))
					if _, err := put(j, r); err != nil {
						t.Error(err)
					}
					took := time.Since(begin)
					for {
						was := longest.Load()
						if int64(took) <= was || longest.CompareAndSwap(was, int64(took)) {
							break
						}
					}
					time.Sleep(every - took)
				}
			})
		}
		all.Wait()
		return time.Duration(longest.Load())
	}
	own := func(sender, _ int) string { return fmt.Sprint("d", sender) }
	for _, c := range []struct {
		name       string
		senders, n int
		every      time.Duration
		device     func(sender, k int) string
		groups     uint64        // at most
		took       time.Duration // at most
		all        time.Duration // at most
	}{
		{"many that send now and then share commits", 100, 10, 20 * time.Millisecond, own, 250, pace, 220 * time.Millisecond},
		{"few never wait", 3, 100, 0, own, 300, 0, 0},
		{"many that hurry do not wait for the pace of others", 64, 10, 0, own, 640, pace, 2 * pace},
		{"one sender for many devices waits once in a while", 1, 640, 0, func(_, k int) string { return fmt.Sprint("d", k%100) }, 640, pace, 10 * pace},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := open(t, Options{Dir: t.TempDir()})
				stop := run(t, j)
				begin := time.Now()
				took := send(t, j, c.senders, c.n, c.every, c.device)
				all := time.Since(begin)
				if groups := j.Last().Group(); groups > c.groups || took > c.took || all > c.all {
					t.Errorf("%d groups, an acknowledgement took up to %s, all %s; want at most %d, %s, %s", groups, took, all, c.groups, c.took, c.all)
				}
				t.Logf("%d groups, %s, %s", j.Last().Group(), took, all)
				stop()
				j.Close()
			})
		})
	}
}

// TestOneConnectionWaitsForItsWindow: what a commit released comes back as new messages of the same sender,
// which one commit takes together with those that waited meanwhile.
func TestOneConnectionWaitsForItsWindow(t *testing.T) {
	records := func(n int) []citywarden.Record {
		all := make([]citywarden.Record, n)
		for i := range all {
			all[i] = uplink(i)
			all[i].Uplink.Device = "d1"
		}
		return all
	}
	for _, c := range []struct {
		name            string
		commit, waiting int
		pause           int
		want            int
		waits           bool // at most as long as a commit takes
	}{
		{"half of a window waits while the other is written", 32, 32, 0, 64, true},
		{"a few of it", 3, 61, 0, 64, true},
		{"one message at a time", 1, 0, 0, 1, true}, // of which gather makes nothing: it is there
		{"more than one connection may have in flight", 200, 100, 0, 1, true},
		{"in vain a moment ago", 32, 32, crowdPause, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w crowd
			w.note(records(1))
			w.took = time.Millisecond
			w.note(records(c.commit))
			w.pause = c.pause
			w.noteEnd(c.commit + c.waiting)
			want, d := w.wait()
			if want != c.want || (d > 0) != c.waits || d > time.Millisecond {
				t.Errorf("waits %s for %d records, want %d", d, want, c.want)
			}
		})
	}
}
