package simulators

import (
	"math"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/simulators/county"
)

// network solves the steady state of a water network: Hazen-Williams losses,
// one head per junction, by the global gradient algorithm (Todini and Pilati),
// with dense matrices since it is for tens of junctions.
type network struct {
	w    *county.Water
	r    []float64 // resistance of each pipe: loss in m = r·Q^1.852, Q in m³/s
	free []int     // place of each node among the junctions, -1 for a reservoir
	n    int       // junctions
}

// hydraulics is the state of a network.
type hydraulics struct {
	head []float64 // m above ground, by node
	flow []float64 // m³/s, by pipe, in the direction From to To
}

const exponent = 1.852 // of the flow, Hazen-Williams

func newNetwork(w *county.Water) *network {
	n := &network{w: w, r: make([]float64, len(w.Pipes)), free: make([]int, len(w.Nodes))}
	for i, p := range w.Pipes {
		n.r[i] = 10.667 * p.Length / (math.Pow(p.Rough, exponent) * math.Pow(p.Diameter/1000, 4.871))
	}
	for i := range w.Nodes {
		n.free[i] = -1
		if w.Nodes[i].Head == 0 {
			n.free[i] = n.n
			n.n++
		}
	}
	return n
}

// solve returns the state when every demand is its mean times factor and water
// leaves at node leak (an emitter) with coefficient emit in m³/s per √m; emit
// is 0 for none.
func (n *network) solve(factor float64, leak int, emit float64) *hydraulics {
	h := &hydraulics{head: make([]float64, len(n.w.Nodes)), flow: make([]float64, len(n.w.Pipes))}
	for i := range h.flow {
		h.flow[i] = 0.01
	}
	for i, node := range n.w.Nodes {
		h.head[i] = node.Head
		if n.free[i] >= 0 {
			h.head[i] = 35
		}
	}
	a := make([][]float64, n.n)
	for i := range a {
		a[i] = make([]float64, n.n+1)
	}
	gain := make([]float64, len(n.w.Pipes))
	for range 60 {
		for i := range a {
			clear(a[i])
		}
		for i, node := range n.w.Nodes {
			if k := n.free[i]; k >= 0 {
				a[k][n.n] -= node.Demand * factor / 3600
				if i == leak && emit > 0 {
					root := math.Sqrt(math.Max(h.head[i], 0.1))
					g := emit / (2 * root)
					a[k][k] += g
					a[k][n.n] -= emit*root - g*h.head[i]
				}
			}
		}
		for i, p := range n.w.Pipes {
			q := math.Max(math.Abs(h.flow[i]), 1e-6)
			gain[i] = 1 / (exponent * n.r[i] * math.Pow(q, exponent-1))
			kept := h.flow[i] * (1 - 1/exponent)
			n.join(a, h.head, p.From, p.To, gain[i], -kept)
			n.join(a, h.head, p.To, p.From, gain[i], kept)
		}
		eliminate(a)
		for i, k := range n.free {
			if k >= 0 {
				h.head[i] = a[k][n.n]
			}
		}
		change := 0.0
		for i, p := range n.w.Pipes {
			q := h.flow[i]*(1-1/exponent) + gain[i]*(h.head[p.From]-h.head[p.To])
			change = math.Max(change, math.Abs(q-h.flow[i]))
			h.flow[i] = q
		}
		if change < 1e-9 {
			break
		}
	}
	return h
}

// join adds one end of a pipe to the equation of node i.
func (n *network) join(a [][]float64, head []float64, i, other int, gain, in float64) {
	k := n.free[i]
	if k < 0 {
		return
	}
	a[k][k] += gain
	a[k][n.n] += in
	if o := n.free[other]; o >= 0 {
		a[k][o] -= gain
	} else {
		a[k][n.n] += gain * head[other]
	}
}

// eliminate solves a·x = b, where b is the last column of a and x ends up. The
// matrix is symmetric and positive definite, so no pivoting is needed.
func eliminate(a [][]float64) {
	n := len(a)
	for k := range n {
		for i := k + 1; i < n; i++ {
			f := a[i][k] / a[k][k]
			if f == 0 {
				continue
			}
			for j := k; j <= n; j++ {
				a[i][j] -= f * a[k][j]
			}
		}
	}
	for k := n - 1; k >= 0; k-- {
		for j := k + 1; j < n; j++ {
			a[k][n] -= a[k][j] * a[j][n]
		}
		a[k][n] /= a[k][k]
	}
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
