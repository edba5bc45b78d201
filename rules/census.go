package rules

import (
	"container/heap"
	"slices"
)

// census keeps which members of a large group satisfy the n_of(…) of its rule,
// so that a new value costs what its own device costs, not all members. It
// follows from the readings and is no part of the state: the group can lose it
// at any time and is counted again when it is next evaluated. While it is there,
// every member has the rule on its list of those that every value concerns.
type census struct {
	done    int64           // group.clock
	seats   map[*device]int // in group.members
	counts  []*headcount
	unasked int // values since the group was last evaluated
}

// censusFrom is of how many members on a group has a census.
const censusFrom = 8

// headcount is the census for one call.
type headcount struct {
	call     *memberCall
	at       int64 // as of this event time, ms
	all      int   // members that satisfy it
	sure     int   // of those, on a reading that is new enough
	members  []counted
	again    []int // to be looked at again
	aging    aging // those that satisfy it, the oldest reading first
	incoming []int // sure since newcomers asked
}

// counted is what a headcount knows of a member.
type counted struct {
	newest                 int64 // event time of its newest reading, ms
	yes, sure              bool
	again, aging, incoming bool // is on that list
}

// aging is a heap. A newest that is behind that of the member is corrected when
// its turn comes.
type aging []aged

type aged struct {
	newest int64
	member int
}

func (h aging) Len() int           { return len(h) }
func (h aging) Less(i, j int) bool { return h[i].newest < h[j].newest }
func (h aging) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *aging) Push(x any)        { *h = append(*h, x.(aged)) }
func (h *aging) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// headcount returns the members of v.g that satisfy m as of v.at; nil when they
// have to be looked at one by one.
func (v *env) headcount(m *memberCall) *headcount {
	g := v.g
	if g == nil || !m.steady || g.run.rule.arrival || len(g.members) < censusFrom {
		return nil
	}
	if g.census == nil {
		c := &census{done: g.clock(), seats: make(map[*device]int, len(g.members))}
		for i, d := range g.members {
			c.seats[d] = i
			d.rouse(d.plan.binding(g.run.rule))
		}
		g.census = c
	}
	h := g.census.of(m)
	h.bring(v)
	return h
}

func (c *census) of(m *memberCall) *headcount {
	for _, h := range c.counts {
		if h.call == m {
			return h
		}
	}
	h := &headcount{call: m}
	c.counts = append(c.counts, h)
	return h
}

// hear takes note that member d has new values of what its binding b reads.
func (c *census) hear(d *device, b *binding) {
	c.done = max(c.done, d.reached(b))
	i := c.seats[d]
	for _, h := range c.counts {
		h.doubt(i)
	}
}

// attended reports whether the group, which is at rest, keeps its census: not
// when nobody asked for it while every member could have had a value.
func (g *group) attended() bool {
	if g.census == nil {
		return false
	}
	if g.census.unasked++; g.census.unasked > len(g.members) {
		g.census = nil
	}
	return g.census != nil
}

// doubt has member i looked at again.
func (h *headcount) doubt(i int) {
	if s := &h.members[i]; !s.again {
		s.again = true
		h.again = append(h.again, i)
	}
}

// bring brings the count to v.at.
func (h *headcount) bring(v *env) {
	if h.members == nil || v.at < h.at {
		*h = headcount{call: h.call, members: make([]counted, len(v.g.members))}
		for i := range h.members {
			h.doubt(i)
		}
	}
	h.at = v.at
	own, held := v.d, v.held
	v.held = true
	list := h.again
	h.again = list[:0] // look puts back at most the one that it was given
	for _, i := range list {
		h.members[i].again = false
		h.look(v, i)
	}
	v.d, v.held = own, held
	oldest := h.at - h.call.within
	for len(h.aging) > 0 && h.aging[0].newest < oldest {
		x := &h.aging[0]
		s := &h.members[x.member]
		if s.sure && s.newest >= oldest {
			x.newest = s.newest
			heap.Fix(&h.aging, 0)
			continue
		}
		s.aging = false
		h.count(x.member, s.yes, s.newest)
		heap.Pop(&h.aging)
	}
}

// look evaluates the condition for member i.
func (h *headcount) look(v *env, i int) {
	d := v.g.members[i]
	cond := h.call.conds[d.plan.index]
	if cond == nil {
		return
	}
	v.d = d
	newest := never
	if len(cond.uses.metrics) > 0 {
		newest = d.newest(cond.uses.metrics, v.at)
		if d.newest(cond.uses.metrics, never) > v.at { // its time is to come
			h.doubt(i)
		}
	}
	h.count(i, cond.tri(v) == yes, newest)
}

// count replaces what is known of member i.
func (h *headcount) count(i int, yes bool, newest int64) {
	s := &h.members[i]
	sure := yes && newest >= h.at-h.call.within
	h.all += one(yes) - one(s.yes)
	h.sure += one(sure) - one(s.sure)
	if sure && !s.sure && !s.incoming {
		s.incoming = true
		h.incoming = append(h.incoming, i)
	}
	s.yes, s.sure, s.newest = yes, sure, newest
	if sure && !s.aging {
		s.aging = true
		heap.Push(&h.aging, aged{newest, i})
	}
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// newcomers calls f for the members that satisfy m for sure; when there is a
// census, only for those that did not when it was last called.
func (v *env) newcomers(m *memberCall, f func(d *device)) {
	h := v.headcount(m)
	if h == nil {
		v.members(m, func(d *device, sure bool) {
			if sure {
				f(d)
			}
		})
		return
	}
	slices.Sort(h.incoming)
	for _, i := range h.incoming {
		s := &h.members[i]
		if s.incoming = false; s.sure {
			f(v.g.members[i])
		}
	}
	h.incoming = h.incoming[:0]
}
