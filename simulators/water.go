package simulators

import (
	"fmt"
	"math"
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

// solve returns the state when every demand is its mean times factor and water
// leaves at node leak (an emitter) with coefficient emit in m³/s per √m; emit
// is 0 for none.
func (n *network) solve(factor float64, leak int, emit float64) *hydraulics {
	m := hydraulic.Moment{Load: factor}
	if emit > 0 {
		m.Leaks = []hydraulic.Leak{{Node: n.node[leak], Coefficient: emit * 3600}}
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

// demandOfDay is the demand by hour as a share of its mean.
var demandOfDay = curve{0.52, 0.45, 0.42, 0.42, 0.47, 0.66, 1.02, 1.36, 1.38, 1.22, 1.12, 1.15, 1.26, 1.16, 1.02, 0.98, 1.04, 1.22, 1.42, 1.46, 1.36, 1.16, 0.92, 0.68}

// hydraulics returns the state of the water network at t.
func (w *World) hydraulics(t time.Time) *hydraulics {
	w.mu.Lock()
	defer w.mu.Unlock() // held while solving: the loggers of one moment share one solution
	key := t.UnixMilli()
	if h := w.solved[key]; h != nil {
		return h
	}
	hr, _ := hour(t)
	leak, emit := -1, 0.0
	if i, p := w.upcoming(Burst, t); i.during(t) {
		open := math.Min(1, t.Sub(i.From).Seconds()/burstOpens.Seconds())
		open = math.Min(open, i.To.Sub(t).Seconds()/burstCloses.Seconds())
		leak, emit = p.node, burstEmit*open
	}
	h := w.net.solve(demandOfDay.at(hr), leak, emit)
	if w.recent = append(w.recent, key); len(w.recent) > 8 {
		delete(w.solved, w.recent[0])
		w.recent = w.recent[1:]
	}
	w.solved[key] = h
	return h
}

// logger is a pressure logger. All of them sample at the same moments.
type logger struct {
	w     *World
	id    uint64
	node  int
	inlet int     // the pipe whose flow it measures, -1 for none
	rise  float64 // m, of the ground there
}

const loggerReport = 10 * time.Second

const barPerMetre = 0.0980665

func newLogger(w *World, dev *citywarden.Device, id uint64) *logger {
	l := &logger{w: w, id: id, node: w.nodes[dev.ID], inlet: -1, rise: 3 * (w.unit(id, "ground", 0) - 0.3)}
	if w.county.Water.Nodes[l.node].FlowMeter {
		for i, p := range w.county.Water.Pipes {
			if p.Inlet && p.To == l.node {
				l.inlet = i
			}
		}
	}
	return l
}

func (l *logger) next(t time.Time) time.Time { return clock{every: loggerReport}.next(t) }

func (l *logger) read(b *body, t time.Time) {
	h := l.w.hydraulics(t)
	b.number("pressure", (h.head[l.node]-l.rise)*barPerMetre+0.006*l.w.noise(l.id, "pressure", t), 3)
	if l.inlet >= 0 {
		b.number("flow", h.flow[l.inlet]*3600*(1+0.005*l.w.noise(l.id, "flow", t)), 1)
	}
	l.w.battery(b, l.id, t)
}
