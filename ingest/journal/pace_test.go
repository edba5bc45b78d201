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
		{"many that hurry do not wait for the pace of others, but now and then", 64, 10, 0, own, 640, pace, 5 * pace}, // as some are slow to be run
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
		tick            bool // in the same commit
		pause           int
		later           time.Duration // that the next message comes
		want            int
		waits           bool // at most as long as a commit takes
	}{
		{"half of a window waits while the other is written", 32, 32, false, 0, 0, 64, true},
		{"with a tick", 32, 32, true, 0, 0, 64, true},
		{"a few of it", 3, 61, false, 0, 0, 64, true},
		{"one message at a time", 1, 0, false, 0, 0, 1, false},
		{"one message at a time and a tick", 1, 0, true, 0, 0, 1, false},
		{"what was in flight a minute ago", 32, 32, false, 0, time.Minute, 1, false},
		{"more than one connection may have in flight", 200, 100, false, 0, 0, 1, false},
		{"in vain a moment ago", 32, 32, false, crowdPause, 0, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var w crowd
				w.note(records(1))
				w.took = time.Millisecond
				recs := records(c.commit)
				if c.tick {
					recs = append(recs, citywarden.Record{Kind: citywarden.RecordTick})
				}
				w.note(recs)
				w.pause = c.pause
				w.noteEnd(recs, c.waiting)
				w.took = time.Millisecond
				time.Sleep(c.later)
				x := w.wait([]pending{{rec: records(1)[0]}})
				if x.records != c.want || (x.most > 0) != c.waits || x.most > time.Millisecond {
					t.Errorf("waits %s for %d records, want %d", x.most, x.records, c.want)
				}
			})
		})
	}
}

// TestNobodyWaitsOnceAllAreThere: the commit begins when the last of those that one connection had in flight is there, however
// many they are.
func TestNobodyWaitsOnceAllAreThere(t *testing.T) {
	ats.Register()
	defer ats.Unregister()
	const aSync, think = 300 * time.Microsecond, 50 * time.Microsecond
	for _, flying := range []int{2, enough - 1, enough, enough + 1, 2 * enough} {
		t.Run(fmt.Sprint(flying), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := open(t, Options{Dir: t.TempDir()})
				var done atomic.Int32
				send := func() {
					r := uplink(0)
					r.Uplink.Device = "d1"
					j.Append(r, func(_ citywarden.Position, err error) {
						if err != nil {
							t.Error(err)
						}
						done.Add(1)
					})
				}
				for range flying {
					send()
				}
				stop := run(t, j)
				synctest.Wait()
				j.crowd.took = aSync
				send()
				time.Sleep(think)
				if n := done.Load(); int(n) != flying {
					t.Errorf("%d of %d are acknowledged: nobody waited", n, flying)
				}
				for range flying - 1 {
					send()
				}
				synctest.Wait()
				if n := done.Load(); int(n) != 2*flying {
					t.Errorf("%d of %d are acknowledged when all are there", n, 2*flying)
				}
				stop()
				j.Close()
			})
		})
	}
}

// TestVainWaitsAreNotMadeUpForByOthers: a wait for a device that hurries says nothing of those in flight that nobody came of.
func TestVainWaitsAreNotMadeUpForByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits := uplink(0)
		waits.Uplink.Device = "d1"
		j := &Journal{plenty: make(chan struct{}, 1), queue: []pending{{rec: waits}}, crowd: crowd{took: time.Millisecond, vain: 3,
			senders: map[citywarden.DeviceID]*sender{"d2": {records: 1, acked: time.Now().Round(0), think: time.Millisecond / 2}}}}
		began := time.Now()
		j.gather(nil)
		if d := time.Since(began); d != time.Millisecond {
			t.Fatalf("it waited %s for d2, want 1 ms", d)
		}
		if j.crowd.vain != 3 {
			t.Errorf("nobody waits for %d commits when it is in vain again, want 3", j.crowd.vain)
		}
	})
}

// TestOurClockIsSetBack: nobody waits until the time at which a device was acknowledged has come again.
func TestOurClockIsSetBack(t *testing.T) {
	now := time.Now().Round(0)
	w := crowd{took: time.Millisecond, senders: map[citywarden.DeviceID]*sender{"d1": {records: 1, acked: now.Add(time.Hour), think: time.Millisecond / 2}}}
	if n, d := w.missing([]pending{{rec: uplink(0)}}, now); n != 0 || d != 0 {
		t.Errorf("waits %s for %d", d, n)
	}
	if n, d := w.missing([]pending{{rec: uplink(0)}}, now.Add(time.Hour)); n != 1 || d != time.Millisecond {
		t.Errorf("as it was acknowledged: waits %s for %d, want a device and 1 ms", d, n)
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
	commit := func(recs []citywarden.Record) int {
		w.note(recs)
		w.noteEnd(recs, 0)
		return w.wait([]pending{{rec: recs[0]}}).records
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
		slow   int             // one of so many messages of each device comes 20 syncs later, 0 for none
		took   time.Duration   // an acknowledgement at most, once the devices are known
		syncs  float64         // a message of the first device, on average, at most
		mean   float64         // an acknowledgement of the first device takes, in syncs, at most
	}{
		{"alone", []time.Duration{aSync / 10}, 0, 0, aSync, 1, 1},
		{"three share each sync", []time.Duration{aSync / 10, aSync / 5, aSync / 4}, 0, 0, 5 * aSync / 4, 1.02, 1.2},
		{"thirty share each sync", slices.Repeat([]time.Duration{aSync / 10, aSync / 4}, 15), 0, 0, 5 * aSync / 4, 1.02, 1.2},
		{"nobody waits for one that is slow", []time.Duration{aSync / 10, aSync / 10, 10 * aSync}, 0, 0, 2 * aSync, 1.2, 1.05},
		{"nobody waits longer than a sync", []time.Duration{aSync / 10, 9 * aSync / 10}, 0, 0, 2 * aSync, 1.02, 1.85},
		{"one that left is waited for once", []time.Duration{aSync / 10, aSync / 10, aSync / 2}, 100, 0, 2 * aSync, 1.02, 1.1},
		{"three that are slow now and then share the others", []time.Duration{aSync / 10, aSync / 5, aSync / 4}, 0, 20, 5 * aSync / 2, 2, 1.2},
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
				syncs, longest, first := 0, time.Duration(0), time.Duration(0)
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
						time.Sleep(time.Until(slices.MinFunc(due, time.Time.Compare)))
					}
					x := crowd.wait(queue)
					for end := time.Now().Add(x.most); len(queue) < x.records && time.Now().Before(end); fetch() {
						time.Sleep(aSync / 100)
					}
					recs := make([]citywarden.Record, len(queue))
					for i := range queue {
						recs[i] = queue[i].rec
					}
					crowd.note(recs)
					time.Sleep(aSync)
					before := len(queue)
					fetch()
					crowd.noteEnd(recs, len(queue)-before)
					syncs++
					for i, at := range due {
						if !slices.ContainsFunc(recs, func(r citywarden.Record) bool { return string(r.Uplink.Device) == fmt.Sprint("d", i) }) {
							continue
						}
						if sent[0] > 100 {
							longest = max(longest, time.Since(at))
						}
						if i == 0 {
							first += time.Since(at)
						}
						due[i] = time.Now().Add(c.think[i])
						if c.slow > 0 && sent[i]%c.slow == i {
							due[i] = due[i].Add(20 * aSync)
						}
						if sent[i]++; c.leaves > 0 && i == len(due)-1 && sent[i] == c.leaves {
							due[i] = time.Now().Add(time.Hour)
						}
					}
				}
				each, mean := float64(syncs)/rounds, float64(first)/rounds/float64(aSync)
				if longest > c.took || each > c.syncs || mean > c.mean {
					t.Errorf("an acknowledgement took up to %s, %.2f syncs for a message of the first, which took the time of %.2f on average; want at most %s, %.2f, %.2f",
						longest, each, mean, c.took, c.syncs, c.mean)
				}
			})
		})
	}
}
