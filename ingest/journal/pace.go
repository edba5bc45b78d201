package journal

import (
	"time"

	"github.com/citywarden/citywarden"
)

// A commit costs the same for one record as for a hundred. When many devices send a
// message now and then, one for each few of them would be most of the platform's work, so
// that a commit then begins no sooner than pace after the one before, unless enough
// records wait for it. Few devices, each of which may send its next message when the last
// one is acknowledged, never wait for that.
const (
	pace       = 2 * time.Millisecond
	enough     = 32
	crowdOf    = 64          // records that are looked at
	crowdFrom  = crowdOf / 2 // devices that sent them, to be many
	crowdPause = 64          // commits for which nobody waits after it was in vain
)

// crowd knows whether the newest records are from many devices.
type crowd struct {
	newest [crowdOf]citywarden.DeviceID
	next   int                           // in newest
	counts map[citywarden.DeviceID]uint8 // of newest
	pause  int
}

// note takes the records of a commit. So many that nobody waited for more say nothing.
func (c *crowd) note(recs []citywarden.Record) {
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

func (c *crowd) many() bool { return c.pause == 0 && len(c.counts) >= crowdFrom }

// gather waits for more records when that is worth it: until enough are there, pace has
// gone by since the last commit began, or stop is closed.
func (j *Journal) gather(stop <-chan struct{}) {
	if !j.crowd.many() {
		return
	}
	select {
	case <-j.plenty: // of records that are written already
	default:
	}
	had, d := j.waiting(), pace-time.Since(j.began)
	if d <= 0 || had == 0 || had >= enough {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-j.plenty:
	case <-stop:
	case <-t.C:
		if j.waiting() <= had+1 { // one sender with the messages of many devices, one after the other
			j.crowd.pause = crowdPause
		}
	}
}

// waiting returns how many records wait for their commit.
func (j *Journal) waiting() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.queue)
}
