package simulators

import (
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/simulators/county"
	hydraulic "github.com/citywarden/citywarden/simulators/network"
)

// network solves the steady state of a water network: Hazen-Williams losses,
// one head per junction.
type network struct {
	solver *hydraulic.Solver
	r      []float64 // resistance of each pipe: loss in m = r·Q^1.852, Q in m³/s
	node   []int     // of each node of the county, its index in the solver's states
}

// hydraulics is the state of a network.
type hydraulics struct {
	head []float64 // m above ground, by node
	flow []float64 // m³/s, by pipe, in the direction From to To
}

const exponent = 1.852 // of the flow, Hazen-Williams

// newNetwork writes the network as the EPANET file that it would be, in m³/h.
func newNetwork(w *county.Water) *network {
	n := &network{r: make([]float64, len(w.Pipes)), node: make([]int, len(w.Nodes))}
	var junctions, reservoirs, pipes strings.Builder
	for i, d := range w.Nodes {
		if d.Head > 0 {
			fmt.Fprintf(&reservoirs, "n%d %g\n", i, d.Head)
		} else {
			fmt.Fprintf(&junctions, "n%d 0 %g\n", i, d.Demand)
		}
	}
	for i, p := range w.Pipes {
		fmt.Fprintf(&pipes, "p%d n%d n%d %g %g %g\n", i, p.From, p.To, p.Length, p.Diameter, p.Rough)
		n.r[i] = 10.667 * p.Length / (math.Pow(p.Rough, exponent) * math.Pow(p.Diameter/1000, 4.871))
	}
	file := "[JUNCTIONS]\n" + junctions.String() + "[RESERVOIRS]\n" + reservoirs.String() + "[PIPES]\n" + pipes.String() + "[OPTIONS]\nUNITS CMH\n"
	read, err := hydraulic.Read("county.inp", strings.NewReader(file))
	if err != nil {
		panic(fmt.Sprintf("a county's water network is no network: %v", err))
	}
	for i := range w.Nodes {
		n.node[i] = read.Node(fmt.Sprintf("n%d", i))
	}
	n.solver = hydraulic.NewSolver(read)
	return n
}

// leak is water that leaves at a node: emit in m³/s per √m.
type leak struct {
	node int
	emit float64
}

// solve returns the state when every demand is its mean times factor and water
// leaves at the leaks.
func (n *network) solve(factor float64, leaks ...leak) *hydraulics {
	m := hydraulic.Moment{Load: factor}
	for _, l := range leaks {
		m.Leaks = append(m.Leaks, hydraulic.Leak{Node: n.node[l.node], Coefficient: l.emit * 3600})
	}
	s, err := n.solver.Solve(m)
	if err != nil {
		panic(fmt.Sprintf("a county's water network has no solution: %v", err))
	}
	h := &hydraulics{head: make([]float64, len(n.node)), flow: make([]float64, len(s.Links))}
	for i, at := range n.node {
		h.head[i] = s.Nodes[at].Head
	}
	for i, l := range s.Links {
		h.flow[i] = l.Flow / 3600
	}
	return h
}

// A burst opens within seconds and is repaired by closing a valve slowly, as
// valves must be.
const (
	burstOpens  = 6 * time.Second
	burstCloses = time.Minute
	burstEmit   = 0.0095 // m³/s per √m: some 160 m³/h
)

// opened returns how far a burst or a leak is open at t, 0 to 1: a leak grows
// from the beginning to its end.
func opened(i Incident, t time.Time) float64 {
	if i.Kind == Leak {
		return i.age(t) / i.To.Sub(i.From).Seconds()
	}
	open := math.Min(1, i.age(t)/burstOpens.Seconds())
	return math.Min(open, i.To.Sub(t).Seconds()/burstCloses.Seconds())
}

// node returns the index of a node of the water network, -1 for none.
func (w *World) node(code string) int {
	return slices.IndexFunc(w.county.Water.Nodes, func(n county.Node) bool { return n.Code == code })
}

// demandOfDay is the demand by hour as a share of its mean.
var demandOfDay = curve{0.52, 0.45, 0.42, 0.42, 0.47, 0.66, 1.02, 1.36, 1.38, 1.22, 1.12, 1.15, 1.26, 1.16, 1.02, 0.98, 1.04, 1.22, 1.42, 1.46, 1.36, 1.16, 0.92, 0.68}

// hydraulics returns the state of the water network at t.
func (w *World) hydraulics(t time.Time) *hydraulics {
	w.mu.Lock()
	defer w.mu.Unlock() // held while solving: the loggers of one moment share one solution
	if w.run != nil {
		return w.run.at(t)
	}
	key := t.UnixMilli()
	if h := w.solved[key]; h != nil {
		return h
	}
	hr, _ := hour(t)
	var leaks []leak
	for _, kind := range [...]string{Burst, Leak} {
		for i := range w.now(kind, t) {
			leaks = append(leaks, leak{w.node(i.Node), i.size() / 3600 * opened(i, t)})
		}
	}
	h := w.net.solve(demandOfDay.at(hr), leaks...)
	if w.recent = append(w.recent, key); len(w.recent) > 8 {
		delete(w.solved, w.recent[0])
		w.recent = w.recent[1:]
	}
	w.solved[key] = h
	return h
}

// surge returns how far the pressure at a node is off its steady value at t, in
// m: a burst that opens, or a valve that shuts, sends a wave through the pipes
// (Joukowsky's a·Δv/g, less where the change takes longer than the wave needs),
// which arrives, rings and dies away with the distance.
func (w *World) surge(node int, t time.Time) float64 {
	const (
		speed = 1000.0 // m/s, of the wave
		reach = 250.0  // m, until a third is left
		ring  = 5.0    // s, until a third is left
		pipe  = 250.0  // m, to the next branch
	)
	sum := 0.0
	wave := func(i Incident, from int, dv, takes, sign float64) {
		d := w.county.Water.Nodes[from].At.Distance(w.county.Water.Nodes[node].At)
		s := i.age(t) - d/speed
		if s < 0 || s > 8*ring {
			return
		}
		a := speed * dv / 9.81 * math.Min(1, 2*pipe/(speed*takes)) * math.Exp(-d/reach)
		sum += sign * a * math.Exp(-s/ring) * math.Cos(2*math.Pi*s*speed/(4*pipe))
	}
	for i := range w.now(Burst, t) {
		// Two thirds of a m/s for the usual one: it draws from both sides.
		wave(i, w.node(i.Node), 0.7*i.size()/usual[Burst], burstOpens.Seconds(), -1)
	}
	for i := range w.now(ShutValve, t) {
		if p := w.pipe(w.county.Device(i.Device)); p >= 0 {
			wave(i, w.county.Water.Pipes[p].From, 0.5, valveTakes.Seconds(), 1)
		}
	}
	return sum
}

// logger is a pressure logger or a flow meter.
type logger struct {
	w     *World
	dev   *citywarden.Device
	id    uint64
	beat  clock
	node  int
	inlet int     // the pipe whose flow it measures, -1 for none
	rise  float64 // m, of the ground there
	meter *counter
}

// loggerReport is when the loggers of the demo sample, all at the same moments.
const loggerReport = 10 * time.Second

const barPerMetre = 0.0980665

func newLogger(w *World, dev *citywarden.Device, id uint64) source {
	l := &logger{w: w, dev: dev, id: id, inlet: -1, rise: 3 * (w.unit(id, "ground", 0) - 0.3), beat: clock{every: loggerReport}}
	if own := w.every[dev.ID]; own > 0 {
		l.beat.every = own
	}
	l.node = w.nodes[dev.ID]
	if w.run != nil {
		l.rise = 0 // the file says where the ground is
	}
	if w.county.Water.Nodes[l.node].FlowMeter {
		for i, p := range w.county.Water.Pipes {
			if p.Inlet && p.To == l.node {
				l.inlet = i
			}
		}
	}
	if dev.Model == "flow-meter" {
		l.inlet = w.pipe(dev)
		l.meter = &counter{start: w.start, total: 5000 * w.unit(id, "volume", 0), rate: l.flow}
	}
	return l
}

func (l *logger) next(t time.Time) time.Time { return l.beat.next(t) }

// flow returns m³/h into the area.
func (l *logger) flow(t time.Time) float64 {
	return l.w.hydraulics(t).flow[l.inlet] * 3600
}

func (l *logger) read(b *body, t time.Time) {
	head := l.w.hydraulics(t).head[l.node] - l.rise + l.w.surge(l.node, t)
	b.number("pressure", head*barPerMetre+0.006*l.w.noise(l.id, "pressure", t), 3)
	if l.inlet >= 0 {
		b.number("flow", l.flow(t)*(1+0.005*l.w.noise(l.id, "flow", t)), 1)
	}
	if l.meter != nil {
		b.number("volume", l.meter.at(t), 1)
	}
	l.w.battery(b, l.id, t)
}

// counter is the register of a meter whose rate is known at every moment only:
// it adds up by the minute from the start of the world on.
type counter struct {
	start time.Time
	total float64
	rate  func(t time.Time) float64 // per hour
}

// at returns what was counted up to t; t goes forward.
func (c *counter) at(t time.Time) float64 {
	for ; !t.Before(c.start.Add(time.Minute)); c.start = c.start.Add(time.Minute) {
		c.total += (c.rate(c.start) + c.rate(c.start.Add(time.Minute))) / 2 / 60
	}
	return c.total + c.rate(c.start)*t.Sub(c.start).Hours()
}

// valveTakes is how long it takes to shut a valve.
const valveTakes = 20 * time.Second

// pipe returns the pipe that a valve or a flow meter is in, -1 for none.
func (w *World) pipe(dev *citywarden.Device) int {
	return slices.IndexFunc(w.county.Water.Pipes, func(p county.Pipe) bool { return p.Code == attr(dev, "pipe") })
}

// newValve: it says its position, and when it is operated.
func newValve(w *World, dev *citywarden.Device, id uint64) source {
	var g *gauge
	g = newGauge(w, dev, id, w.beat(dev, id, 10*time.Minute), 0, func(b *body, t time.Time) {
		open := 100.0
		i, shut := g.now(ShutValve, t)
		if shut {
			open = 100 * math.Max(0, 1-i.age(t)/valveTakes.Seconds())
		}
		b.number("position", open, 0)
		for i := range w.edges(ShutValve, dev.ID) {
			if t.Equal(i) {
				b.text("event", "valve.operated")
			}
		}
		w.battery(b, id, t)
	}, ShutValve)
	g.also = func(t, next time.Time) time.Time {
		for i := range w.now(ShutValve, t) {
			if end := i.From.Add(valveTakes); g.hit(i) && t.Before(end) {
				next = earlier(next, end)
			}
		}
		return next
	}
	return g
}

// edges yields when incidents of kind begin and end at a device.
func (w *World) edges(kind string, id citywarden.DeviceID) iter.Seq[time.Time] {
	return func(yield func(time.Time) bool) {
		for _, i := range w.script[kind] {
			if i.Device == id && (!yield(i.From) || !yield(i.To)) {
				return
			}
		}
	}
}

// networkRun is a water network of an EPANET file, computed as far as anybody
// has asked, in steps of runStep.
type networkRun struct {
	w          *World
	net        *hydraulic.Network
	run        *hydraulic.Run
	states     []*hydraulics // by step
	head, flow float64       // metres and m³/s in the units of the file
}

const runStep = 10 * time.Second

// metres and m³/s in the units that EPANET's files know.
var (
	metresIn = map[string]float64{"psi": 0.703070, "m": 1, "kPa": 0.101972, "bar": 10.19716, "ft": 0.3048}
	flowIn   = map[string]float64{
		"CFS": 0.0283168, "GPM": 6.30902e-5, "MGD": 0.0438126, "IMGD": 0.0526168, "AFD": 0.0142764,
		"LPS": 1e-3, "LPM": 1. / 60000, "MLD": 1. / 86.4, "CMH": 1. / 3600, "CMD": 1. / 86400, "CMS": 1,
	}
)

func newNetworkRun(w *World, net *hydraulic.Network, lasts time.Duration) (*networkRun, error) {
	r := &networkRun{w: w, net: net, head: metresIn[net.Units.Pressure], flow: flowIn[net.Units.Flow]}
	// m³/h per √m in units of flow at a pressure of 1 psi or 1 m.
	perRoot := 1. / 3600 / r.flow
	if !net.Units.Metric {
		perRoot *= math.Sqrt(metresIn["psi"])
	}
	at := func(t time.Time) time.Duration { return max(0, t.Sub(w.start)).Truncate(time.Second) }
	var events []hydraulic.Event
	for _, i := range w.script[Burst] {
		events = append(events, hydraulic.Event{At: at(i.From), Node: i.Node, Leak: i.size() * perRoot}, hydraulic.Event{At: at(i.To), Node: i.Node})
	}
	const steps = 60 // in which a leak grows
	for _, i := range w.script[Leak] {
		for k := range time.Duration(steps) {
			events = append(events, hydraulic.Event{At: at(i.From.Add(i.To.Sub(i.From) * k / steps)), Node: i.Node, Leak: i.size() * perRoot * float64(k+1) / steps})
		}
		events = append(events, hydraulic.Event{At: at(i.To), Node: i.Node})
	}
	for _, i := range w.script[ShutValve] {
		link := attr(w.county.Device(i.Device), "pipe")
		events = append(events, hydraulic.Event{At: at(i.From.Add(valveTakes)), Link: link, Do: hydraulic.Close}, hydraulic.Event{At: at(i.To), Link: link, Do: hydraulic.Open})
	}
	h, _ := hour(w.start)
	var err error
	r.run, err = hydraulic.NewRun(net, hydraulic.Options{
		Duration: lasts.Truncate(runStep) + runStep, Step: runStep, Events: events, Begin: time.Duration(h * float64(time.Hour)).Truncate(time.Second),
	})
	return r, err
}

// at returns the state at t, that of the last step before it; after the run its
// last state.
func (r *networkRun) at(t time.Time) *hydraulics {
	k := max(0, int(t.Sub(r.w.start)/runStep))
	for k >= len(r.states) && r.run != nil {
		s, err := r.run.Next()
		if err != nil { // the end; NewRun has looked at the events
			r.run = nil
			break
		}
		h := &hydraulics{head: make([]float64, len(s.Nodes)), flow: make([]float64, len(s.Links))}
		for i, d := range s.Nodes {
			h.head[i] = d.Pressure * r.head
		}
		for i, l := range s.Links {
			h.flow[i] = l.Flow * r.flow
		}
		for len(r.states) < int(s.Time/runStep) {
			r.states = append(r.states, r.states[len(r.states)-1])
		}
		if s.Time%runStep == 0 {
			r.states = append(r.states, h)
		}
	}
	return r.states[min(k, len(r.states)-1)]
}

// WaterOf returns the nodes and pipes of an EPANET network as those of a county,
// for Script.County: loggers says at which node each device is.
func WaterOf(net *Network, loggers map[citywarden.DeviceID]string) (county.Water, error) {
	var w county.Water
	used := map[string]citywarden.DeviceID{}
	for id, node := range loggers {
		if net.Node(node) < 0 {
			return w, citywarden.Errorf(citywarden.CodeInvalid, "device %s: the network has no node %q", id, node)
		}
		if other := used[node]; other != "" {
			return w, citywarden.Errorf(citywarden.CodeInvalid, "devices %s and %s: one node has one of them", min(id, other), max(id, other))
		}
		used[node] = id
	}
	// EPANET's coordinates are of any size: the map is a square of four kilometres.
	least, most := math.Inf(1), math.Inf(-1)
	for _, d := range net.Nodes() {
		least, most = min(least, d.X, d.Y), max(most, d.X, d.Y)
	}
	metre := 4000 / max(most-least, 1)
	for _, d := range net.Nodes() {
		n := county.Node{Code: d.ID, Logger: used[d.ID], At: county.PointAt((d.X-least)*metre, (d.Y-least)*metre)}
		if d.Kind != hydraulic.Junction {
			n.Head = max(d.Elevation, 1)
		}
		w.Nodes = append(w.Nodes, n)
	}
	for _, l := range net.Links() {
		w.Pipes = append(w.Pipes, county.Pipe{Code: l.ID, From: l.From, To: l.To, Length: l.Length, Diameter: l.Diameter})
	}
	return w, nil
}
