package rules

import (
	"slices"
	"sort"
)

// sample is one reading in the memory of the engine.
type sample struct {
	ts  int64   // event time, ms
	arr int64   // arrival, ms
	v   float64 // 1 and 0 for true and false
	s   *string // of a text
}

func (s *sample) text() string {
	if s.s == nil {
		return ""
	}
	return *s.s
}

// ring holds the newest samples of one metric of one device, ordered by event
// time, as far back as the longest window that some rule looks at.
type ring struct {
	s []sample
}

// maxSamples bounds a ring; when a window holds more, it sees the newest.
const maxSamples = 4096

// index returns the last sample with an event time <= at, -1 when there is none.
func (r *ring) index(at int64) int {
	n := len(r.s)
	if n == 0 {
		return -1
	}
	if r.s[n-1].ts <= at {
		return n - 1
	}
	return sort.Search(n, func(i int) bool { return r.s[i].ts > at }) - 1
}

// value returns the sample that holds at that time, nil when there is none or
// it is older than stale (0: never stale) and held is false.
func (r *ring) value(at, stale int64, held bool) *sample {
	if r == nil {
		return nil
	}
	i := r.index(at)
	if i < 0 {
		return nil
	}
	s := &r.s[i]
	if stale > 0 && !held && at-s.ts > stale {
		return nil
	}
	return s
}

// between returns the samples after from, up to and with to.
func (r *ring) between(from, to int64) []sample {
	if r == nil {
		return nil
	}
	end := r.index(to) + 1
	begin := sort.Search(end, func(i int) bool { return r.s[i].ts > from })
	return r.s[begin:end]
}

// insert adds x in the order of event time and replaces a sample of the same
// time. It reports whether x is new enough to be remembered: not more than keep
// before the newest.
func (r *ring) insert(x sample, keep int64) bool {
	n := len(r.s)
	if n == 0 || r.s[n-1].ts < x.ts {
		r.s = append(r.s, x)
	} else {
		i := r.index(x.ts)
		switch {
		case i >= 0 && r.s[i].ts == x.ts:
			r.s[i] = x
			return true
		case i < 0 && (n >= maxSamples || r.s[n-1].ts-x.ts > keep && n >= 2):
			return false
		}
		r.s = slices.Insert(r.s, i+1, x)
	}
	if n >= maxSamples {
		r.s = r.s[1:] // append copies only the rest when it grows
	}
	return true
}

// trim forgets what nobody will look at who looks back from the event time
// from on by keep: all but the samples since then and the two before.
func (r *ring) trim(from, keep int64) {
	horizon := from - keep
	drop := 0
	for drop < len(r.s)-2 && r.s[drop+2].ts <= horizon {
		drop++
	}
	r.s = r.s[drop:]
}
