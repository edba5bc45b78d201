package devices

import (
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
)

// How the clock of a device is followed. A message tells by how much its time is ahead of
// ours less the time that it was under way; of the messages of a while the one that says most is nearest to
// the truth. The slope through those is the drift.
const (
	clockWidth  = 15 * time.Minute // what a point stands for at first; doubled when there are too many
	clockPoints = 24
	clockSpan   = 30 * 24 * time.Hour // what is older does not count
	driftSpan   = 6 * time.Hour       // that drift needs at least: 1 s of doubt is 46 ppm then, 12 after a day
	driftPoints = 5
	// clockStep is how far a clock jumps that was set, and did not drift there.
	clockStep = citywarden.MaxSkew / 2
)

// clock is what is known of the clock of one device: about 240 bytes.
type clock struct {
	width  int64 // of a point, in seconds
	points []clockPoint
	untrue int64 // unix seconds, 0 for never
	last   int64 // when a time came last, true or not
	drift  float32
	known  bool // drift is
}

// clockPoint is the message of a while that was under way for the shortest time.
type clockPoint struct {
	at    uint32 // when it arrived, unix seconds
	ahead int32  // how far ahead its time was, milliseconds
}

// observe takes the newest time that a message gave, and whether it can't be true; the message may be an old one
// that is brought in again. It reports whether there is something new to store.
func (c *clock) observe(now, received, stated time.Time, untrue bool) bool {
	at := received.Unix()
	newest := max(c.last, c.untrue)
	if n := len(c.points); n > 0 {
		newest = max(newest, int64(c.points[n-1].at))
	}
	if newest > now.Add(clockWidth).Unix() { // our clock was ahead, and what it said of this one is wrong
		*c = clock{}
	}
	c.last = max(c.last, at)
	if untrue {
		news := at-c.untrue > int64(clockWidth/time.Second)
		c.untrue = max(c.untrue, at)
		return news
	}
	ahead := int32(min(max(stated.Sub(received).Milliseconds(), math.MinInt32), math.MaxInt32))
	if c.width == 0 {
		c.width = int64(clockWidth / time.Second)
	}
	p := clockPoint{uint32(at), ahead}
	n := len(c.points)
	if n == 0 {
		c.points = append(c.points, p)
		return true
	}
	last := &c.points[n-1]
	if at < int64(last.at) { // the log in another order, an old message, or our clock was set back a little
		return false
	}
	if c.jumped(p) {
		c.points = append(c.points[:0], p)
		c.known, c.drift = false, 0
		return true
	}
	if at/c.width == int64(last.at)/c.width {
		if ahead >= last.ahead {
			*last = p
		}
		return false
	}
	c.points = append(c.points, p)
	oldest := uint32(max(at-int64(clockSpan/time.Second), 0))
	c.points = slices.DeleteFunc(c.points, func(x clockPoint) bool { return x.at < oldest })
	for len(c.points) > clockPoints {
		c.coarser()
	}
	c.fit()
	return true
}

// jumped reports whether p shows that the clock was set: forward, which no way of a message
// explains, or back, when it was ahead and the last three while are all that much behind it.
func (c *clock) jumped(p clockPoint) bool {
	n := len(c.points)
	step := int32(clockStep / time.Millisecond)
	if last := c.points[n-1].ahead; p.ahead > last+step && p.ahead > step {
		return true
	}
	if n < 4 {
		return false
	}
	before := c.points[n-4].ahead
	return before > step && slices.IndexFunc(c.points[n-3:], func(x clockPoint) bool { return x.ahead > before-step }) < 0 && p.ahead <= before-step
}

// coarser doubles the width of points.
func (c *clock) coarser() {
	c.width *= 2
	out := c.points[:0]
	for _, p := range c.points {
		if n := len(out); n > 0 && int64(out[n-1].at)/c.width == int64(p.at)/c.width {
			if p.ahead >= out[n-1].ahead {
				out[n-1] = p
			}
			continue
		}
		out = append(out, p)
	}
	c.points = out
}

// fit computes the drift: the median of the slopes between any two points (Theil and
// Sen), so that a few messages which were all under way for long don't matter.
func (c *clock) fit() {
	n := len(c.points)
	c.drift = 0
	if c.known = n >= driftPoints && time.Duration(c.points[n-1].at-c.points[0].at)*time.Second >= driftSpan; !c.known {
		return
	}
	var slopes []float64
	for i, p := range c.points {
		for _, q := range c.points[i+1:] {
			if q.at > p.at {
				slopes = append(slopes, float64(q.ahead-p.ahead)/1000/float64(q.at-p.at))
			}
		}
	}
	slices.Sort(slopes)
	m := len(slopes)
	c.drift = float32((slopes[(m-1)/2] + slopes[m/2]) / 2 * 1e6)
}

// view is c for people, nil when no time ever came.
func (c *clock) view() *citywarden.Clock {
	if c == nil {
		return nil
	}
	v := &citywarden.Clock{State: citywarden.ClockGood}
	n := len(c.points)
	if n > 0 {
		newest := c.points[n-1]
		v.Offset = float64(newest.ahead) / 1000
		if n > 1 && c.last/c.width == int64(newest.at)/c.width { // the while that runs may have had no fast message yet
			before := c.points[n-2]
			expected := float64(before.ahead)/1000 + float64(c.drift)/1e6*float64(newest.at-before.at)
			v.Offset = max(v.Offset, math.Round(expected*1000)/1000)
		}
		v.Since, v.At = time.Unix(int64(c.points[0].at), 0).UTC(), time.Unix(int64(newest.at), 0).UTC()
	}
	if c.known {
		drift := math.Round(float64(c.drift)*10) / 10
		v.Drift = &drift
	}
	switch most := citywarden.MaxSkew.Seconds(); {
	case c.untrue > 0 && c.untrue >= c.last:
		v.State = citywarden.ClockUnset
	case n == 0:
	case v.Offset > most:
		v.State = citywarden.ClockAhead
	case v.Offset < -most:
		v.State = citywarden.ClockBehind
	case v.Drift != nil && math.Abs(*v.Drift) > citywarden.MaxDrift:
		v.State = citywarden.ClockDrifting
	}
	return v
}

// history is c as it is stored.
func (c *clock) history() *citywarden.ClockHistory {
	h := &citywarden.ClockHistory{Width: c.width, Untrue: c.untrue, Points: make([][2]int64, len(c.points))}
	for i, p := range c.points {
		h.Points[i] = [2]int64{int64(p.at), int64(p.ahead)}
	}
	return h
}

// clockOf is history back.
func clockOf(h *citywarden.ClockHistory) *clock {
	if h == nil {
		return nil
	}
	c := &clock{width: h.Width, untrue: h.Untrue, last: h.Untrue}
	for _, p := range h.Points {
		c.points = append(c.points, clockPoint{uint32(p[0]), int32(p[1])})
		c.last = max(c.last, p[0])
	}
	if c.width > 0 {
		c.fit()
	}
	return c
}

// clocks counts the devices by the state of their clocks.
type clocks struct{ r *Registry }

var clocksDesc = prometheus.NewDesc("citywarden_device_clocks", "Devices that give times of their own, by how good their clock is.", []string{"state"}, nil)

// Clocks returns a metric: how many devices have which ClockState.
func (r *Registry) Clocks() prometheus.Collector { return clocks{r} }

// Describe implements prometheus.Collector.
func (clocks) Describe(ch chan<- *prometheus.Desc) { ch <- clocksDesc }

// Collect implements prometheus.Collector.
func (c clocks) Collect(ch chan<- prometheus.Metric) {
	n := map[citywarden.ClockState]int{}
	c.r.mu.RLock()
	c.r.valuesMu.RLock()
	for _, e := range c.r.order {
		if v := e.clock.view(); v != nil {
			n[v.State]++
		}
	}
	c.r.valuesMu.RUnlock()
	c.r.mu.RUnlock()
	for _, s := range []citywarden.ClockState{citywarden.ClockGood, citywarden.ClockAhead, citywarden.ClockBehind, citywarden.ClockDrifting, citywarden.ClockUnset} {
		ch <- prometheus.MustNewConstMetric(clocksDesc, prometheus.GaugeValue, float64(n[s]), string(s))
	}
}
