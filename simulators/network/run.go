package network

import (
	"io"
	"math"
	"time"

	"github.com/citywarden/citywarden"
)

// Options says how a run differs from what the file says. The zero value is the
// file as it is.
type Options struct {
	Duration time.Duration // 0: that of the file
	// Step is the longest time between two moments that are solved, in whole
	// seconds; 0: that of the file.
	Step   time.Duration
	Events []Event // in any order
	// Begin moves patterns and clocks: the run begins that long after their
	// beginning, in whole seconds, so that patterns of a day fit the time of day.
	Begin time.Duration
}

// Event is what happens to a network from outside.
type Event struct {
	At time.Duration // since the start, in whole seconds

	// Node loses water from now on, in addition to its demand: Leak units of flow
	// at a pressure of 1 psi or 1 m, growing with the root of the pressure (the
	// emitter exponent of the file). 0 is the repair.
	Node string
	Leak float64

	// Link is operated: opened, closed, or set to a speed or what a valve keeps.
	// A control, a rule or the pattern of a pump may operate it again.
	Link    string
	Do      Operation
	Setting float64
}

// Operation is what is done to a link.
type Operation string

// The operations.
const (
	Open  Operation = "open"
	Close Operation = "close"
	Set   Operation = "set" // to Event.Setting, in the units of the file
)

// Run is a network going through time. It is for one goroutine.
type Run struct {
	s        *solver
	events   []event
	duration int
	longest  int // step
	report   int // next moment that the file wants reported
	done     bool
}

// event is an Event with its indexes; one of node and link is -1.
type event struct {
	Event
	at, node, link int
}

// NewRun returns a run of n from its start on. Events of nodes and links that
// the network does not have are an error.
func NewRun(n *Network, o Options) (*Run, error) {
	r := &Run{s: newSolver(n), duration: n.options.duration, longest: n.options.hydraulicStep, report: n.options.reportStep}
	for _, d := range []time.Duration{o.Duration, o.Step, o.Begin} {
		if d < 0 || d%time.Second != 0 || d > maxTime*time.Second {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "a run of %s in steps of %s that begins at %s: all must be whole seconds up to twenty years", o.Duration, o.Step, o.Begin)
		}
	}
	r.s.begin = int(o.Begin / time.Second)
	if o.Duration > 0 {
		r.duration = int(o.Duration / time.Second)
	}
	if o.Step > 0 {
		r.longest = min(r.longest, int(o.Step/time.Second))
	}
	for _, e := range o.Events {
		v, err := n.event(e)
		if err != nil {
			return nil, err
		}
		r.events = append(r.events, v)
	}
	return r, nil
}

func (n *Network) event(e Event) (event, error) {
	v := event{Event: e, at: int(e.At / time.Second), node: -1, link: -1}
	if e.At < 0 || e.At%time.Second != 0 {
		return v, citywarden.Errorf(citywarden.CodeInvalid, "an event at %s: events are at whole seconds since the start", e.At)
	}
	switch {
	case (e.Node == "") == (e.Link == ""):
		return v, citywarden.Errorf(citywarden.CodeInvalid, "an event at %s: it needs either a node or a link", e.At)
	case e.Node != "":
		if v.node = n.Node(e.Node); v.node < 0 {
			return v, citywarden.Errorf(citywarden.CodeNotFound, "an event at %s: there is no node %s", e.At, e.Node)
		}
		if v.node >= n.junctions || !(e.Leak >= 0 && e.Leak <= largest) {
			return v, citywarden.Errorf(citywarden.CodeInvalid, "an event at %s: node %s leaks %g; only junctions leak, and from 0 on", e.At, e.Node, e.Leak)
		}
		return v, nil
	}
	if v.link = n.Link(e.Link); v.link < 0 {
		return v, citywarden.Errorf(citywarden.CodeNotFound, "an event at %s: there is no link %s", e.At, e.Link)
	}
	k := &n.links[v.link]
	switch {
	case k.kind == CheckValve:
		return v, citywarden.Errorf(citywarden.CodeInvalid, "an event at %s: link %s is a check valve, which nobody operates", e.At, e.Link)
	case e.Do == Open || e.Do == Close:
	case e.Do == Set && !k.isPipe() && k.kind != GPV && math.Abs(e.Setting) <= largest && !(k.kind == Pump && e.Setting < 0):
	default:
		return v, citywarden.Errorf(citywarden.CodeInvalid, "an event at %s: a %s cannot be %q (%g); open and close always go, set with pumps and with valves that have a setting", e.At, k.kind, e.Do, e.Setting)
	}
	return v, nil
}

// Next goes on to the next moment at which something changes (a step has
// passed, a pattern goes on, a tank is full or empty, a control, rule or event
// acts) and returns the state there. After the last it returns io.EOF. The
// first is the start.
func (r *Run) Next() (*State, error) {
	s := r.s
	if r.done {
		return nil, io.EOF
	}
	s.demands()
	s.control()
	for i := range r.events {
		if e := &r.events[i]; e.at == s.now {
			s.apply(e)
		}
	}
	warnings, err := s.balance()
	if err != nil {
		r.done = true
		return nil, err
	}
	state := s.state()
	state.Warnings = warnings
	if len(warnings) > 0 && s.n.options.extra < 0 && s.change > s.accuracy {
		r.done = true // UNBALANCED STOP
	}
	if s.now >= r.duration {
		r.done = true
		return state, nil
	}
	s.now += r.step()
	if s.now >= r.report {
		r.report += s.n.options.reportStep
	}
	return state, nil
}

// step finds how long everything stays as it is, and fills and drains the tanks
// for so long.
func (r *Run) step() int {
	s, o := r.s, &r.s.n.options
	step := r.longest
	shorten := func(t int) {
		if t > 0 {
			step = min(step, t)
		}
	}
	shorten(((s.now+s.begin+o.patternStart)/o.patternStep+1)*o.patternStep - s.begin - s.now)
	shorten(r.report - s.now)
	for i := range r.events {
		shorten(r.events[i].at - s.now)
	}
	step = s.tankStep(step)
	step = s.controlStep(step)
	if len(s.n.rules) > 0 {
		return s.ruleStep(step)
	}
	s.fill(step)
	return step
}

// apply does what an event says.
func (s *solver) apply(e *event) {
	switch {
	case e.node >= 0:
		s.leaks[e.node] = e.Leak
		s.setEmitter(e.node)
	case e.Do == Set:
		s.setSetting(e.link, s.n.settingIn(&s.n.links[e.link], e.Setting))
		if k := &s.n.links[e.link]; k.kind == PRV || k.kind == PSV {
			s.status[e.link] = active
		}
	case e.Do == Open:
		s.setStatus(e.link, open)
	default:
		s.setStatus(e.link, closed)
	}
}

// tankStep shortens step to the time until a tank is full or empty.
func (s *solver) tankStep(step int) int {
	for i := s.n.junctions; i < len(s.n.nodes); i++ {
		t, q := s.n.nodes[i].tank, s.demand[i]
		if t == nil || math.Abs(q) <= zeroFlow {
			continue
		}
		var v float64
		switch {
		case q > 0 && s.head[i] < t.headMax:
			v = t.volumeMax - s.volume[i]
		case q < 0 && s.head[i] > t.headMin:
			v = t.volumeMin - s.volume[i]
		default:
			continue
		}
		if t := seconds(v / q); t > 0 && t < step {
			step = t
		}
	}
	return step
}

// fill lets the tanks fill and drain for dt seconds.
func (s *solver) fill(dt int) {
	for i := s.n.junctions; i < len(s.n.nodes); i++ {
		d, q := &s.n.nodes[i], s.demand[i]
		t := d.tank
		if t == nil || math.Abs(q) <= zeroFlow {
			continue
		}
		s.volume[i] += q * float64(dt)
		switch { // full or empty within a second is full or empty
		case s.volume[i]+q >= t.volumeMax:
			s.volume[i] = t.volumeMax
		case s.volume[i]-q <= t.volumeMin:
			s.volume[i] = t.volumeMin
		}
		s.head[i] = s.n.headAt(d, s.volume[i])
	}
}

// state returns what is, in the units of the file.
func (s *solver) state() *State {
	n, f := s.n, s.n.factors
	out := &State{Time: time.Duration(s.now) * time.Second, Nodes: make([]NodeState, len(n.nodes)), Links: make([]LinkState, len(n.links))}
	for i := range n.nodes {
		out.Nodes[i] = NodeState{Head: s.head[i] * f.length, Demand: s.demand[i] * f.flow, Pressure: (s.head[i] - n.nodes[i].elevation) * f.pressure}
	}
	for i := range n.links {
		if k := &n.links[i]; s.status[i] > closed {
			out.Links[i] = LinkState{Flow: s.flow[i] * f.flow, Open: true, Active: !k.isPipe() && k.kind != Pump && s.status[i] > open}
		}
	}
	return out
}

// Solver finds states at single moments, each from nothing: the same question
// always has the same answer, whatever was asked before. It iterates until
// heads and flows are as exact as numbers are, where a Run stops at the accuracy
// that the file asks for. It is for one goroutine.
type Solver struct{ s *solver }

// NewSolver returns a solver for n.
func NewSolver(n *Network) *Solver {
	s := newSolver(n)
	s.accuracy = 1e-9
	return &Solver{s}
}

// Moment says when and under which load a Solver solves.
type Moment struct {
	Time  time.Duration // of the patterns; tanks are as at the start
	Load  float64       // factor of every demand; 0 counts as 1
	Leaks []Leak
}

// Leak is water that leaves at a junction: Coefficient units of flow at a
// pressure of 1 psi or 1 m, see Event.
type Leak struct {
	Node        int // index of Network.Nodes
	Coefficient float64
}

// Solve returns the state at m.
func (v *Solver) Solve(m Moment) (*State, error) {
	s := v.s
	s.reset()
	s.now = int(m.Time / time.Second)
	s.load = m.Load
	if m.Load == 0 {
		s.load = 1
	}
	for _, l := range m.Leaks {
		if l.Node < 0 || l.Node >= s.n.junctions || !(l.Coefficient >= 0 && l.Coefficient <= largest) {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "node %d leaks %g; only junctions leak, and from 0 on", l.Node, l.Coefficient)
		}
		s.leaks[l.Node] += l.Coefficient
		s.setEmitter(l.Node)
	}
	s.demands()
	s.control()
	warnings, err := s.balance()
	if err != nil {
		return nil, err
	}
	state := s.state()
	state.Warnings = warnings
	return state, nil
}
