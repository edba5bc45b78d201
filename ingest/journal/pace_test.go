package journal

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
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
		{"one message at a time", 1, 0, 0, 1, false},
		{"more than one connection may have in flight", 200, 100, 0, 1, false},
		{"in vain a moment ago", 32, 32, crowdPause, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w crowd
			w.note(records(1))
			w.took = time.Millisecond
			w.note(records(c.commit))
			w.pause = c.pause
			w.noteEnd(records(c.commit), c.waiting)
			want, d, _ := w.wait([]pending{{rec: records(1)[0]}})
			if want != c.want || (d > 0) != c.waits || d > time.Millisecond {
				t.Errorf("waits %s for %d records, want %d", d, want, c.want)
			}
		})
	}
}

// TestOneConnectionAfterMany: what many devices sent before does not keep one connection from its window, and that it was
// in vain once does not for long.
func TestOneConnectionAfterMany(t *testing.T) {
	of := func(n int, device func(i int) string) []citywarden.Record {
		all := make([]citywarden.Record, n)
		for i := range all {
			all[i] = uplink(i)
			all[i].Uplink.Device = citywarden.DeviceID(device(i))
		}
		return all
	}
	one := of(64, func(int) string { return "d1" })
	many := of(enough-1, func(i int) string { return fmt.Sprint("m", i) })
	var w crowd
	w.took = time.Millisecond
	commit := func(recs []citywarden.Record) (want int) {
		w.note(recs)
		w.noteEnd(recs, 0)
		want, _, _ = w.wait([]pending{{rec: recs[0]}})
		return want
	}
	for range 4 {
		commit(many)
	}
	commit(of(enough-1, func(i int) string { return fmt.Sprint("n", i) }))
	if want := commit(of(200, func(i int) string { return fmt.Sprint("o", i%100) })); want != enough {
		t.Errorf("of many devices it waits for %d records, want %d", want, enough)
	}
	for range 3 {
		commit(one)
	}
	if want := commit(one); want != len(one) {
		t.Errorf("of one connection it waits for %d records, want %d", want, len(one))
	}
	var pauses []int
	for range 8 {
		w.inVain()
		n := 0
		for ; commit(one) != len(one); n++ {
		}
		pauses = append(pauses, n)
	}
	if d := cmp.Diff([]int{0, 2, 6, 14, 30, 62, 63, 63}, pauses); d != "" {
		t.Errorf("commits for which nobody waits after it was in vain: %s", d)
	}
}

// Devices that send their next message when the last one was acknowledged, some time after it, with a sync of 1 ms.
func TestWaitForThoseWhoHurry(t *testing.T) {
	const aSync = time.Millisecond
	for _, c := range []struct {
		name   string
		think  []time.Duration // of each device
		leaves int             // the last device sends so many messages, 0 for as many as all
		took   time.Duration   // an acknowledgement at most, once the devices are known
		syncs  float64         // a message of the first device, on average, at most
	}{
		{"alone", []time.Duration{aSync / 10}, 0, aSync, 1},
		{"three share each sync", []time.Duration{aSync / 10, aSync / 5, aSync / 4}, 0, 5 * aSync / 4, 1.02},
		{"thirty share each sync", slices.Repeat([]time.Duration{aSync / 10, aSync / 4}, 15), 0, 5 * aSync / 4, 1.02},
		{"nobody waits for one that is slow", []time.Duration{aSync / 10, aSync / 10, 10 * aSync}, 0, 2 * aSync, 1.2},
		{"nobody waits longer than a sync", []time.Duration{aSync / 10, 9 * aSync / 10}, 0, 2 * aSync, 1.02},
		{"one that left is waited for once", []time.Duration{aSync / 10, aSync / 10, aSync / 2}, 100, 2 * aSync, 1.02},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const rounds = 1000
				var crowd crowd
				due := make([]time.Time, len(c.think)) // of the next message of each device
				sent := make([]int, len(c.think))
				for i := range due {
					due[i] = time.Now().Add(aSync * time.Duration(i) / time.Duration(len(due)))
				}
				syncs, longest := 0, time.Duration(0)
				for sent[0] < rounds {
					var queue []pending
					fetch := func() {
						queue = queue[:0]
						for i, at := range due {
							if !at.After(time.Now()) {
								queue = append(queue, pending{rec: citywarden.Record{At: at, Uplink: &citywarden.Uplink{Device: citywarden.DeviceID(fmt.Sprint("d", i))}}})
							}
						}
					}
					for fetch(); len(queue) == 0; fetch() {
						time.Sleep(slices.MinFunc(due, time.Time.Compare).Sub(time.Now()))
					}
					missing, d := crowd.missing(queue, time.Now())
					for want, end := len(queue)+missing, time.Now().Add(d); len(queue) < want && time.Now().Before(end); fetch() {
						time.Sleep(aSync / 100)
					}
					recs := make([]citywarden.Record, len(queue))
					for i := range queue {
						recs[i] = queue[i].rec
					}
					crowd.note(recs)
					time.Sleep(aSync)
					crowd.noteEnd(recs, 0)
					syncs++
					for i, at := range due {
						if !slices.ContainsFunc(recs, func(r citywarden.Record) bool { return string(r.Uplink.Device) == fmt.Sprint("d", i) }) {
							continue
						}
						if sent[0] > 100 {
							longest = max(longest, time.Since(at))
						}
						due[i] = time.Now().Add(c.think[i])
						if sent[i]++; c.leaves > 0 && i == len(due)-1 && sent[i] == c.leaves {
							due[i] = time.Now().Add(time.Hour)
						}
					}
				}
				if each := float64(syncs) / rounds; longest > c.took || each > c.syncs {
					t.Errorf("an acknowledgement took up to %s, %.2f syncs for a message of the first; want at most %s, %.2f", longest, each, c.took, c.syncs)
				}
			})
		})
	}
}
