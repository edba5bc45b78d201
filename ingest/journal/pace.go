package journal

import (
	"time"

	"github.com/citywarden/citywarden"
)

// A commit costs the same for one record as for a hundred. So one may begin a little
// later, when more records will be there by then:
//
//   - Many devices send a message now and then. A commit for each few of them would be most
//     of the platform's work, so it begins no sooner than pace after the one before, or when
//     enough are there and those that come don't add much to them any more.
//   - Few devices send their next message when the last one is acknowledged. All of
//     them are acknowledged by one commit when each waits for the slowest of them, for at most half as
//     long as a commit takes; else half of them wait for the commit of the other half, too.
//   - So it is with one connection that has many messages in flight: each commit that ends has it send
//     as many more. They are waited for with those that wait already, for at most as long as a commit takes.
//
// A lone device with one message at a time never waits, and of many devices nobody when enough records are there. When it was in vain, it is
// not done again for some time.
const (
	pace       = 4 * time.Millisecond
	enough     = 32
	glance     = 500 * time.Microsecond // after which it is looked whether enough became more by half
	crowdOf    = 64                     // records that are looked at
	crowdFrom  = crowdOf / 2            // devices that sent them, to be many
	maxGather  = 20 * time.Millisecond  // for few devices, however long a commit took
	crowdPause = 64                     // commits for which nobody waits after it was in vain
	maxFlying  = 256                    // records in flight, to be those of few connections
)

// crowd knows from how many devices the newest records are.
type crowd struct {
	newest [crowdOf]citywarden.DeviceID
	next   int                           // in newest
	counts map[citywarden.DeviceID]uint8 // of newest
	pause  int
	began  time.Time     // when the newest commit began
	took   time.Duration // a commit, on average
	flying int           // records that the newest commit released or that waited when it ended
}

// note takes the records of a commit that begins. So many that nobody waited for more say nothing.
func (c *crowd) note(recs []citywarden.Record) {
	c.began = time.Now()
	if c.pause > 0 {
		c.pause--
	}
	if len(recs) >= enough {
		return
	}
	for i := range recs {
		if recs[i].Uplink == nil {
			continue
		}
		if c.counts == nil {
			c.counts = make(map[citywarden.DeviceID]uint8, crowdOf)
		}
		if old := c.newest[c.next]; c.counts[old] > 1 {
			c.counts[old]--
		} else {
			delete(c.counts, old)
		}
		c.newest[c.next] = recs[i].Uplink.Device
		c.counts[recs[i].Uplink.Device]++
		c.next = (c.next + 1) % crowdOf
	}
}

// noteEnd notes that the commit has ended, and how many records were in flight then.
func (c *crowd) noteEnd(flying int) {
	c.took += (time.Since(c.began) - c.took) / 8
	c.flying = flying
}

// wait returns how many records the next commit should have, and how long at most to wait
// for them.
func (c *crowd) wait() (want int, d time.Duration) {
	if c.pause > 0 {
		return 0, 0
	}
	if len(c.counts) >= crowdFrom {
		return enough, pace - time.Since(c.began)
	}
	if few := len(c.counts); c.flying <= few || c.flying > maxFlying {
		return few, min(c.took/2, maxGather)
	}
	return c.flying, min(c.took, maxGather)
}

// gather waits for more records when that is worth it, or until stop is closed.
func (j *Journal) gather(stop <-chan struct{}) {
	want, d := j.crowd.wait()
	if want < 2 || d <= 0 {
		return
	}
	had := j.expect(want)
	if had == 0 || had >= want {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-j.plenty:
		if want == enough {
			j.linger(stop)
		}
	case <-stop:
	case <-t.C:
		if n := j.expect(0); n < min(want, had+2) {
			j.crowd.pause = crowdPause
		}
	}
}

// linger waits while what waits grows by half in a glance, but not beyond pace.
func (j *Journal) linger(stop <-chan struct{}) {
	for n := j.expect(0); time.Since(j.crowd.began) < pace-glance; {
		select {
		case <-time.After(glance):
		case <-stop:
			return
		}
		before := n
		if n = j.expect(0); 2*n < 3*before {
			return
		}
	}
}

// expect has plenty signalled when want records wait, and returns how many do.
func (j *Journal) expect(want int) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	select {
	case <-j.plenty: // of what was expected before
	default:
	}
	j.want = want
	return len(j.queue)
}
