package journal

import (
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

// A commit costs the same for one record as for a hundred. So one may begin a little
// later, when more records will be there by then:
//
//   - Many devices send a message now and then. A commit for each few of them would be most
//     of the platform's work, so it begins no sooner than pace after the one before, or when
//     enough are there and those that come don't add much to them any more. When it was in vain, it is
//     not done again for some time.
//   - Few devices send their next message as soon as the last one is acknowledged. All of
//     them are acknowledged by one commit when each waits for the slowest of them; else half of them wait
//     for the commit of the other half, too. So a commit waits for a device that was acknowledged just now and
//     is known to answer within less than a commit takes, and no longer than that.
//   - So it is with one connection that has many messages in flight: each commit that ends has it send
//     as many more. They are waited for with those that wait already, for at most as long as a commit takes; not
//     for some time after it was in vain, ever longer while it is.
//
// A lone device with one message at a time never waits, nobody waits for one that does not hurry, and nobody but one
// connection for its own when enough records are there. A message that comes as a commit begins thus waits for that one and its
// own, and for as long again at most between them.
const (
	pace       = 4 * time.Millisecond
	enough     = 32
	glance     = 500 * time.Microsecond // after which it is looked whether enough became more by half
	crowdOf    = 64                     // records that are looked at
	crowdFrom  = crowdOf / 2            // devices that sent them, to be many
	maxGather  = 20 * time.Millisecond  // for few devices, however long a commit took, and from when on none of them hurries
	crowdPause = 64                     // commits for which nobody waits after it was in vain
	maxFlying  = 256                    // records in flight, to be those of few connections
)

// crowd knows from which devices the newest records are.
type crowd struct {
	newest  [crowdOf]citywarden.DeviceID
	next    int                             // in newest
	senders map[citywarden.DeviceID]*sender // of newest
	pause   int
	began   time.Time     // when the newest commit began
	took    time.Duration // a commit, on average
	flying  int           // messages that the newest commit released or that waited when it ended
	ended   time.Time     // when that was
	vain    int           // for how many commits nobody waits for those in flight, when it is in vain again
}

// sender is a device of which some of the newest records are.
type sender struct {
	records int           // of the newest
	acked   time.Time     // when a record of it was committed last, zero for never
	think   time.Duration // from there to its next record, on average; 0 when it is not known
}

// note takes the records of a commit that begins. So many that nobody waited for more say nothing, unless all are of one
// device: then those that sent before are gone.
func (c *crowd) note(recs []citywarden.Record) {
	c.began = time.Now()
	if c.pause > 0 {
		c.pause--
	}
	if len(recs) >= enough {
		if len(c.senders) < 2 || !ofOne(recs) {
			return
		}
		recs = recs[:enough]
	}
	for i := range recs {
		if recs[i].Uplink == nil {
			continue
		}
		if c.senders == nil {
			c.senders = make(map[citywarden.DeviceID]*sender, crowdOf)
		}
		id := recs[i].Uplink.Device
		s := c.senders[id]
		if s == nil {
			s = new(sender)
			c.senders[id] = s
		}
		s.records++
		s.thought(recs[i].At)
		if old := c.senders[c.newest[c.next]]; old != nil {
			if old.records--; old.records == 0 {
				delete(c.senders, c.newest[c.next])
			}
		}
		c.newest[c.next] = id
		c.next = (c.next + 1) % crowdOf
	}
}

// ofOne reports whether all records are messages of the same device.
func ofOne(recs []citywarden.Record) bool {
	for i := range recs {
		if u := recs[i].Uplink; u == nil || u.Device != recs[0].Uplink.Device {
			return false
		}
	}
	return true
}

// thought notes that a record of s came at t. That it was slow once, or kept from sending, does not make s one that is slow.
func (s *sender) thought(t time.Time) {
	if s.acked.IsZero() {
		return
	}
	d := max(t.Sub(s.acked), 1)
	if s.think == 0 {
		s.think = d
	}
	s.think += (min(d, 2*s.think) - s.think) / 4
}

// noteEnd notes that the commit of recs has ended, and how many messages waited then.
func (c *crowd) noteEnd(recs []citywarden.Record, waiting int) {
	now := time.Now()
	c.took += (now.Sub(c.began) - c.took) / 8
	c.flying, c.ended = waiting, now
	for i := range recs {
		if recs[i].Uplink != nil {
			c.flying++
		}
	}
	if len(recs) >= enough {
		return
	}
	now = now.Round(0) // as the times of records are
	for i := range recs {
		if u := recs[i].Uplink; u != nil {
			if s := c.senders[u.Device]; s != nil {
				s.acked = now
			}
		}
	}
}

// expected is what a commit waits for.
type expected struct {
	records int           // that it should have
	most    time.Duration // to wait for them
	risky   bool          // it may be in vain
	grows   bool          // more may come when so many are there
}

// wait returns what the next commit should wait for when queue is what waits.
func (c *crowd) wait(queue []pending) (x expected) {
	few := len(c.senders)
	switch {
	case few >= crowdFrom:
		x = expected{enough, pace - time.Since(c.began), true, true}
	case c.flying > few && c.flying <= maxFlying && time.Since(c.ended) < maxGather: // what was sent for it is on its way
		x = expected{c.flying, min(c.took, maxGather), true, false}
	default:
		x.records, x.most = c.missing(queue, time.Now().Round(0))
		x.records += len(queue)
	}
	if x.risky && c.pause > 0 {
		return expected{}
	}
	return x
}

// inVain notes that nobody came who was waited for. A sender that the machine kept from sending is worth the next try,
// one that does not hurry is not.
func (c *crowd) inVain() {
	c.pause = crowdPause
	if len(c.senders) < crowdFrom {
		c.vain = min(2*c.vain+1, crowdPause)
		c.pause = c.vain
	}
}

// missing returns how many of the few devices will send so soon that those who wait should wait for
// them, and for how long at most.
func (c *crowd) missing(queue []pending, now time.Time) (n int, d time.Duration) {
	if len(queue) >= enough {
		return 0, 0
	}
	most := min(c.took, maxGather)
	for id, s := range c.senders {
		if s.think == 0 || s.think > most {
			continue
		}
		left := s.acked.Add(2 * s.think).Sub(now) // more than that when our clock was set back
		if left <= 0 || left > 2*s.think || slices.ContainsFunc(queue, func(p pending) bool { return p.rec.Uplink != nil && p.rec.Uplink.Device == id }) {
			continue
		}
		n, d = n+1, max(d, min(left, most))
	}
	return n, d
}

// gather waits for more records when that is worth it, or until stop is closed.
func (j *Journal) gather(stop <-chan struct{}) {
	had, x := j.expect()
	if had == 0 || had >= x.records || x.most <= 0 {
		return
	}
	t := time.NewTimer(x.most)
	defer t.Stop()
	select {
	case <-j.plenty:
		if x.grows {
			j.linger(stop)
		}
	case <-stop:
	case <-t.C:
		if x.risky && j.waiting() < min(x.records, had+2) {
			j.crowd.inVain()
			return
		}
	}
	if x.risky {
		j.crowd.vain = 0
	}
}

// expect returns how many records wait and what crowd.wait says, and has plenty signalled when there are so many.
func (j *Journal) expect() (had int, x expected) {
	j.mu.Lock()
	defer j.mu.Unlock()
	select {
	case <-j.plenty: // of what was expected before
	default:
	}
	if had = len(j.queue); had > 0 {
		x = j.crowd.wait(j.queue)
	}
	j.want = x.records
	return had, x
}

// linger waits while what waits grows by half in a glance, but not beyond pace.
func (j *Journal) linger(stop <-chan struct{}) {
	for n := j.waiting(); time.Since(j.crowd.began) < pace-glance; {
		select {
		case <-time.After(glance):
		case <-stop:
			return
		}
		before := n
		if n = j.waiting(); 2*n < 3*before {
			return
		}
	}
}
