package rules

import (
	"cmp"
	"math"
	"slices"

	"github.com/citywarden/citywarden"
)

// sample is one reading in the memory of the engine.
type sample struct {
	ts  int64   // event time, ms
	v   float64 // 1 and 0 for true and false
	lag uint32  // arrival - event time, ms; no more than 49 days
}

func newSample(ts, arrived int64, v float64) sample {
	return sample{ts: ts, v: v, lag: uint32(min(max(arrived-ts, 0), math.MaxUint32))}
}

// arrived returns when the sample arrived, ms.
func (s *sample) arrived() int64 { return s.ts + int64(s.lag) }

// ring remembers one metric of one device. All rules share it. It holds the
// newest samples one by one; older ones only as panes, so that it stays small
// however many readings a window has.
//
// A window of up to exactSamples readings is exact. One of more begins with the
// pane that its beginning lies in: up to a paneth of its length too early.
// Which it is, and the result to the last bit, depends on the readings alone,
// not on their order of arrival or on how many are still held one by one.
type ring struct {
	s      []sample
	texts  []string // of s, for a text metric
	merged int64    // event time of the newest sample that is held in panes only
	panes  [][]pane // by memory.windows; ascending
}

// Limits of one ring.
const (
	exactSamples = 32   // a window of more consists of panes
	ringSamples  = 37   // held one by one before the oldest are merged: 32 and some, to do it not every time
	maxSamples   = 4096 // where late or count(condition) need more of them one by one
	panesPer     = 16   // panes of a window
	maxWindows   = 32   // of different length over one metric, of all rules
	textBytes    = 256  // of a text; the rest of a longer one is not looked at
)

// memory is what the rules need of a metric.
type memory struct {
	bit  uint64 // of the metric in masks
	kind citywarden.Kind
	keep int64 // how far back it is looked at, ms; -1 not at all

	// A value from low to high raises no rule that is at rest and doesn't wait for
	// late data. There is none such where more than the value has to be looked at.
	low, high float64

	each    int64   // how far back before the oldest evaluation to come each sample is needed, ms
	windows []int64 // the different windows over it, ms
}

// window returns the index of the window of that length.
func (m *memory) window(within int64) int {
	if i := slices.Index(m.windows, within); i >= 0 {
		return i
	}
	m.windows = append(m.windows, within)
	return len(m.windows) - 1
}

// pane sums up the samples of a part of a window.
type pane struct {
	n        int
	sum      float64
	m2       float64 // sum of the squared distances from the mean
	min, max float64
	ts       int64 // of the newest sample
	last     float64
}

func (p *pane) add(ts int64, v float64) {
	if p.n == 0 {
		*p = pane{n: 1, sum: v, min: v, max: v, ts: ts, last: v}
		return
	}
	before := v - p.sum/float64(p.n)
	p.n++
	p.sum += v
	p.m2 += before * (v - p.sum/float64(p.n))
	p.min, p.max = min(p.min, v), max(p.max, v)
	if ts >= p.ts {
		p.ts, p.last = ts, v
	}
}

// join adds the count, sum and m2 of o.
func (p *pane) join(o *pane) {
	if p.n > 0 && o.n > 0 {
		a, b := float64(p.n), float64(o.n)
		d := o.sum/b - p.sum/a
		p.m2 += d * d * a * b / (a + b)
	}
	p.m2 += o.m2
	p.n += o.n
	p.sum += o.sum
}

// paneOf returns when the pane begins that ts lies in, for a window of that length.
func paneOf(ts, within int64) int64 {
	w := paneWidth(within)
	into := ts % w
	if into < 0 {
		into += w
	}
	return ts - into
}

func paneWidth(within int64) int64 { return max(within/panesPer, 1) }

// after returns the index of the first sample later than at.
func (r *ring) after(at int64) int {
	i, n := 0, len(r.s)
	if n > 0 && r.s[n-1].ts <= at {
		return n
	}
	for ; i < n && i < 8; i++ { // where a window of a ring that is full begins
		if r.s[i].ts > at {
			return i
		}
	}
	for i < n {
		if m := (i + n) / 2; r.s[m].ts > at {
			n = m
		} else {
			i = m + 1
		}
	}
	return i
}

// holds returns the index of the sample that holds at that time, -1 when there
// is none or it is older than stale (0: never stale) and held is false.
func (r *ring) holds(at, stale int64, held bool) int {
	if r == nil {
		return -1
	}
	i := r.after(at) - 1
	if i >= 0 && stale > 0 && !held && at-r.s[i].ts > stale {
		return -1
	}
	return i
}

// value is holds for those that need the sample; nil when there is none.
func (r *ring) value(at, stale int64, held bool) *sample {
	if i := r.holds(at, stale, held); i >= 0 {
		return &r.s[i]
	}
	return nil
}

// at returns the sample of exactly that time, nil when there is none.
func (r *ring) at(ts int64) *sample {
	if r == nil || len(r.s) == 0 {
		return nil
	}
	if s := &r.s[len(r.s)-1]; s.ts == ts { // as most of the time
		return s
	}
	if s := r.value(ts, 0, true); s != nil && s.ts == ts {
		return s
	}
	return nil
}

// between returns the samples after from, up to and with to, as far as they are
// held one by one.
func (r *ring) between(from, to int64) []sample {
	if r == nil {
		return nil
	}
	return r.s[r.after(from):r.after(to)]
}

// since returns the panes of window w that begin at border or later, and how
// many samples they and raw stand for.
func (r *ring) since(w int, border int64, raw []sample) (old []pane, n int) {
	n = len(raw)
	if r.panes != nil {
		old = r.panes[w]
	}
	i := len(old)
	for ; i > 0 && old[i-1].ts >= border; i-- {
		n += old[i-1].n
	}
	return old[i:], n
}

// aggregate is a function over a window.
type aggregate uint8

const (
	countOf aggregate = iota
	sumOf
	avgOf
	minOf
	maxOf
	stddevOf
)

// over returns the aggregate of the samples in (at-within, at], NaN when there
// are none. w is the index of the window.
func (r *ring) over(a aggregate, w int, within, at int64) float64 {
	if r == nil {
		return nan
	}
	border := paneOf(at-within, within)
	raw := r.between(border-1, at)
	old, n := r.since(w, border, raw)
	end, width := border, paneWidth(within)
	if n <= exactSamples {
		for len(raw) > 0 && raw[0].ts <= at-within {
			raw = raw[1:]
		}
		old, n, end = nil, len(raw), math.MaxInt64
	}
	if a == countOf {
		return float64(n)
	}
	if n == 0 {
		return nan
	}
	if a == minOf || a == maxOf {
		return extreme(a, old, raw)
	}
	switch a {
	case avgOf:
		return sum(old, raw, end, width) / float64(n)
	case stddevOf:
		p := spread(old, raw, end, width)
		return math.Sqrt(p.m2 / float64(n)) // of the population
	}
	return sum(old, raw, end, width)
}

// sum adds up panes and the samples after them, of which the first pane ends at
// end. Each pane is summed from its beginning, wherever its samples are held, so
// that the result is the same to the last bit.
func sum(old []pane, raw []sample, end, width int64) float64 {
	total, part := 0.0, 0.0
	for i := range old {
		total += part
		part = old[i].sum
	}
	if n := len(old); n > 0 {
		end = after(old[n-1].ts, end, width)
	}
	for i := range raw {
		if raw[i].ts >= end {
			total += part
			part, end = 0, after(raw[i].ts, end, width)
		}
		part += raw[i].v
	}
	return total + part
}

// spread is sum for all of a pane.
func spread(old []pane, raw []sample, end, width int64) pane {
	var total, part pane
	for i := range old {
		total.join(&part)
		part = old[i]
	}
	if n := len(old); n > 0 {
		end = after(old[n-1].ts, end, width)
	}
	for i := range raw {
		if raw[i].ts >= end {
			total.join(&part)
			part, end = pane{}, after(raw[i].ts, end, width)
		}
		part.add(raw[i].ts, raw[i].v)
	}
	total.join(&part)
	return total
}

// after returns the first of end, end+width, … that is later than ts.
func after(ts, end, width int64) int64 {
	if ts >= end {
		end += ((ts-end)/width + 1) * width
	}
	return end
}

func extreme(a aggregate, old []pane, raw []sample) float64 {
	lo, hi := math.Inf(1), math.Inf(-1)
	for i := range old {
		lo, hi = min(lo, old[i].min), max(hi, old[i].max)
	}
	for i := range raw {
		lo, hi = min(lo, raw[i].v), max(hi, raw[i].v)
	}
	if a == minOf {
		return lo
	}
	return hi
}

// ago returns the sample that held at at-within, or, when more than exactSamples
// came since, where the window begins; ok is false when there is none or it was
// stale.
func (r *ring) ago(w int, within, at, stale int64, held bool) (ts int64, v float64, ok bool) {
	if r == nil {
		return 0, 0, false
	}
	then, border := at-within, paneOf(at-within, within)
	old, n := r.since(w, border, r.between(border-1, at))
	if n > exactSamples {
		then = border - 1
	}
	if i := r.after(then) - 1; i >= 0 {
		ts, v = r.s[i].ts, r.s[i].v
	} else if r.panes != nil && len(old) < len(r.panes[w]) {
		p := &r.panes[w][len(r.panes[w])-len(old)-1]
		ts, v = p.ts, p.last
	} else {
		return 0, 0, false
	}
	return ts, v, stale == 0 || held || then-ts <= stale
}

// push adds x when it is newer than all others, there is room, and it is no text, as
// most of the time; it reports whether it did.
func (r *ring) push(x sample) bool {
	n := len(r.s)
	if n == 0 || n == cap(r.s) || r.s[n-1].ts >= x.ts {
		return false
	}
	r.s = append(r.s, x)
	return true
}

// insert adds x in the order of event time and replaces a sample of the same
// time. It reports whether x is new enough to be remembered: not more than
// m.keep before the newest.
func (r *ring) insert(x sample, text *string, m *memory) bool {
	n := len(r.s)
	i := r.after(x.ts)
	switch {
	case i > 0 && r.s[i-1].ts == x.ts:
		r.s[i-1] = x
		if text != nil {
			r.texts[i-1] = *text
		}
		return true
	case i == 0 && n > 1 && r.s[n-1].ts-x.ts > m.keep:
		return false
	case i == 0 && r.merged != 0 && x.ts <= r.merged:
		r.merge(x, m)
		return true
	}
	if n == cap(r.s) {
		size := max(2*n, 2)
		if n < ringSamples {
			size = min(size, ringSamples)
		}
		r.s = append(make([]sample, 0, size), r.s...)
	}
	r.s = slices.Insert(r.s, i, x)
	if text != nil {
		r.texts = slices.Insert(r.texts, i, *text)
	}
	return true
}

// full reports whether the ring would have to grow. It takes eight samples before
// that is worth looking at, however few are needed.
func (r *ring) full() bool { return len(r.s) == cap(r.s) && len(r.s) >= 8 }

// trim merges the oldest samples when the ring is full, as far as nobody who
// evaluates at the event time from or later needs them one by one.
func (r *ring) trim(from int64, m *memory) {
	if !r.full() {
		return
	}
	need := 2 // the value, and the one before
	if len(m.windows) > 0 {
		need = exactSamples
	}
	drop := min(r.after(from-m.each)-2, r.after(from)-need)
	drop = max(drop, len(r.s)-maxSamples)
	if drop <= 0 {
		return
	}
	if len(m.windows) == 0 {
		r.merged = max(r.merged, r.s[drop-1].ts)
	} else {
		for i := range drop {
			r.merge(r.s[i], m)
		}
	}
	r.s = r.s[:copy(r.s, r.s[drop:])]
	if r.texts != nil {
		r.texts = slices.Delete(r.texts, 0, drop)
	}
	for w := range r.panes {
		// One pane before the window is what held when it began.
		oldest := paneOf(from-m.each-m.windows[w], m.windows[w])
		gone := 0
		for gone < len(r.panes[w])-1 && r.panes[w][gone+1].ts < oldest {
			gone++
		}
		r.panes[w] = slices.Delete(r.panes[w], 0, gone)
	}
}

// merge adds x to the panes.
func (r *ring) merge(x sample, m *memory) {
	r.merged = max(r.merged, x.ts)
	if len(m.windows) == 0 {
		return
	}
	if r.panes == nil {
		r.panes = make([][]pane, len(m.windows))
	}
	for w, within := range m.windows {
		ps, begin := r.panes[w], paneOf(x.ts, within)
		if ps == nil {
			ps = make([]pane, 0, panesPer+2)
		}
		i, found := len(ps), false
		switch {
		case i == 0 || ps[i-1].ts < begin:
		case ps[i-1].ts < begin+paneWidth(within): // as most of the time
			i, found = i-1, true
		default:
			i, found = slices.BinarySearchFunc(ps, begin, func(p pane, begin int64) int { return cmp.Compare(paneOf(p.ts, within), begin) })
		}
		if !found {
			ps = slices.Insert(ps, i, pane{})
		}
		ps[i].add(x.ts, x.v)
		r.panes[w] = ps
	}
}
