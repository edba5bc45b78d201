package network

import (
	"math"
	"strings"
)

type controlKind int

const (
	below controlKind = iota // the grade at a node
	above
	atTime  // since the start
	atClock // of the day
)

// control is a line of [CONTROLS].
type control struct {
	link    int
	kind    controlKind
	node    int
	grade   float64
	time    int
	status  status
	setting float64
}

func (r *reader) control(l line) error {
	n := len(l.words)
	if n > 0 && l.is(n-1, "DISABLED") {
		return nil
	}
	const form = "a control is: LINK id status IF NODE id ABOVE|BELOW value, LINK id status AT TIME time or LINK id status AT CLOCKTIME time AM|PM"
	if n < 6 {
		return r.fail(l, form)
	}
	at, err := r.findLink(l, 1)
	if err != nil {
		return err
	}
	k := &r.n.links[at]
	if k.kind == CheckValve {
		return r.fail(l, "link %s is a check valve, which nothing controls", k.id)
	}
	c := control{link: at, status: active, setting: missing}
	switch {
	case l.is(2, "OPEN"), l.is(2, "CLOSED"):
		c.status = open
		if l.is(2, "CLOSED") {
			c.status = closed
		}
		switch k.kind {
		case Pump:
			c.setting = map[status]float64{open: 1, closed: 0}[c.status]
		case GPV:
			c.setting = k.setting
		}
	case k.kind == GPV:
		return r.fail(l, "valve %s is a GPV, which can only be OPEN or CLOSED", k.id)
	default:
		if c.setting, err = r.number(l, 2, "status or setting", anything); err != nil {
			return err
		}
		if k.kind == Pump || k.kind == Pipe {
			if c.setting < 0 {
				return r.fail(l, "the setting of %s is below 0", k.id)
			}
			c.status = open
			if c.setting == 0 {
				c.status = closed
			}
		}
		c.setting = r.n.settingIn(k, c.setting)
	}
	if l.is(4, "TIME") || l.is(4, "CLOCKTIME") {
		hours, ok := clock(l.words[5], l.word(6))
		if !ok {
			return r.fail(l, "%q is not a time; write hours, h:mm, h:mm:ss, a number with SEC, MIN, HOURS or DAYS, or a clock time with AM or PM", strings.Join(l.words[5:], " "))
		}
		c.kind, c.time = atTime, int(math.Min(3600*hours, maxTime))
		if l.is(4, "CLOCKTIME") {
			c.kind, c.time = atClock, c.time%day
		}
	} else {
		if n < 8 {
			return r.fail(l, form)
		}
		if c.node, err = r.findNode(l, 5); err != nil {
			return err
		}
		word, err := r.choose(l, 6, "condition", "BELOW", "ABOVE")
		if err != nil {
			return err
		}
		if word == "ABOVE" {
			c.kind = above
		}
		if c.grade, err = r.number(l, 7, "level or pressure", anything); err != nil {
			return err
		}
		f := r.n.factors.pressure
		if c.node >= r.n.junctions {
			f = r.n.factors.length
		}
		c.grade = r.n.nodes[c.node].elevation + c.grade/f
	}
	r.n.controls = append(r.n.controls, c)
	return nil
}

// control applies the controls by time and by the level of tanks.
func (s *solver) control() {
	n := s.n
	for i := range n.controls {
		c := &n.controls[i]
		k := &n.links[c.link]
		due := false
		switch c.kind {
		case atTime:
			due = c.time == s.now
		case atClock:
			due = (s.now+s.begin+n.options.startClock)%day == c.time
		default:
			d := &n.nodes[c.node]
			if c.node < n.junctions {
				continue // pressures are looked at when they are known
			}
			v, limit, soon := s.head[c.node], c.grade, 0.0
			if d.tank != nil { // within the next second
				v, limit, soon = n.volumeAt(d, v), n.volumeAt(d, limit), math.Abs(s.demand[c.node])
			}
			due = c.kind == below && v <= limit+soon || c.kind == above && v >= limit-soon
		}
		if !due {
			continue
		}
		was := s.status[c.link] > closed
		if k.kind == Pump && !was && c.status == open {
			s.resetPump(c.link)
		}
		setting := s.setting[c.link]
		if !k.isPipe() {
			setting = c.setting
		}
		if was != (c.status > closed) || c.status == active || setting != s.setting[c.link] {
			s.status[c.link], s.setting[c.link] = c.status, setting
		}
	}
}

// controlByPressure applies the controls by the pressure at junctions to a
// solution, and reports whether any changed something.
func (s *solver) controlByPressure() bool {
	n, any := s.n, false
	for i := range n.controls {
		c := &n.controls[i]
		if c.kind > above || c.node >= n.junctions {
			continue
		}
		h := s.head[c.node]
		if !(c.kind == below && h <= c.grade+n.options.headTol || c.kind == above && h >= c.grade-n.options.headTol) {
			continue
		}
		k := &n.links[c.link]
		change := s.setting[c.link] != c.setting
		if k.isPipe() {
			change = s.status[c.link] != c.status
		} else if k.kind != Pump && !change {
			change = c.setting == missing && s.status[c.link] != c.status
		}
		if change {
			s.status[c.link] = c.status
			if !k.isPipe() {
				s.setting[c.link] = c.setting
			}
			any = true
		}
	}
	return any
}

// controlStep shortens step to the time until a control acts.
func (s *solver) controlStep(step int) int {
	n := s.n
	for i := range n.controls {
		c := &n.controls[i]
		t := 0
		switch c.kind {
		case atTime:
			t = c.time - s.now
		case atClock:
			t = (c.time - (s.now+s.begin+n.options.startClock)%day + day) % day
		default:
			q := s.demand[c.node]
			d := &n.nodes[c.node]
			if d.tank == nil || math.Abs(q) <= zeroFlow {
				continue
			}
			h := s.head[c.node]
			if h < c.grade && c.kind == above && q > 0 || h > c.grade && c.kind == below && q < 0 {
				t = seconds((n.volumeAt(d, c.grade) - s.volume[c.node]) / q)
			}
		}
		if t > 0 && t < step {
			k := &n.links[c.link]
			if !k.isPipe() && s.setting[c.link] != c.setting || s.status[c.link] != c.status {
				step = t
			}
		}
	}
	return step
}

// seconds rounds to the nearest whole second, away from zero in between.
func seconds(t float64) int {
	return int(math.Max(-maxTime, math.Min(maxTime, math.Round(t))))
}
