package network

import (
	"fmt"
	"math"

	"github.com/citywarden/citywarden"
)

// solver is the state of a network that is being computed, in feet and cubic
// feet per second.
type solver struct {
	*system
	n     *Network
	node  []int     // of each row of the equations
	now   int       // s since the start
	begin int       // s that the patterns are ahead
	leaks []float64 // discharge coefficient added to the emitter of each junction
	load  float64   // factor of all demands

	head     []float64 // by node
	demand   []float64 // by node: all that leaves; into tanks and reservoirs
	wanted   []float64 // by junction: the demand
	served   []float64 // by junction: of it, what is served
	emitter  []float64 // by junction: resistance of its emitter, 0 for none
	emitted  []float64 // by junction: flow of its emitter
	excess   []float64 // by node: what flows in more than out
	volume   []float64 // by node: of tanks
	flow     []float64 // by link
	status   []status  // by link
	setting  []float64 // by link
	p, y     []float64 // by link: inverse gradient of the head loss, and head loss times that
	total    float64   // demand of all
	relax    float64
	change   float64 // of the flows in the last trial, as a share of them
	maxFlow  float64 // largest change of a flow in the last trial
	accuracy float64
}

func newSolver(n *Network) *solver {
	nodes, links := len(n.nodes), len(n.links)
	s := &solver{
		system: newSystem(n.matrix), n: n, node: make([]int, n.junctions), leaks: make([]float64, n.junctions), load: 1,
		head: make([]float64, nodes), demand: make([]float64, nodes), wanted: make([]float64, n.junctions), served: make([]float64, n.junctions),
		emitter: make([]float64, n.junctions), emitted: make([]float64, n.junctions), excess: make([]float64, nodes), volume: make([]float64, nodes),
		flow: make([]float64, links), status: make([]status, links), setting: make([]float64, links), p: make([]float64, links), y: make([]float64, links),
		accuracy: n.options.accuracy,
	}
	for at, row := range n.matrix.row {
		s.node[row] = at
	}
	s.reset()
	return s
}

// reset goes back to the start.
func (s *solver) reset() {
	s.now = 0
	clear(s.demand)
	clear(s.leaks)
	clear(s.emitted)
	for i := range s.n.nodes {
		d := &s.n.nodes[i]
		s.head[i] = d.elevation
		if d.tank != nil {
			s.head[i], s.volume[i] = d.tank.head, d.tank.volume
		}
	}
	for i := range s.leaks {
		s.setEmitter(i)
	}
	for i := range s.n.links {
		k := &s.n.links[i]
		s.status[i], s.setting[i] = k.status, k.setting
		switch k.kind {
		case PRV, PSV, FCV, PBV, TCV:
			if k.status != active {
				s.setting[i] = missing
			}
		}
		s.flow[i] = s.startFlow(i)
	}
}

// setEmitter joins the emitter of a junction and the leak there.
func (s *solver) setEmitter(i int) {
	was := s.emitter[i]
	s.emitter[i] = s.n.resistance(s.n.nodes[i].discharge + s.leaks[i])
	switch {
	case s.emitter[i] == 0:
		s.emitted[i] = 0
	case was == 0 || s.emitted[i] == 0:
		s.emitted[i] = 1 // to begin with
	}
}

// factorAt returns the factor of a pattern at this moment.
func (s *solver) factorAt(pattern int) float64 {
	p, o := s.n.patterns[pattern], &s.n.options
	return p[(s.now+s.begin+o.patternStart)/o.patternStep%len(p)]
}

// demands finds what the patterns say for this moment.
func (s *solver) demands() {
	n := s.n
	s.total = 0
	for i := range s.wanted {
		sum := 0.0
		for _, d := range n.nodes[i].demands {
			p := d.pattern
			if p == 0 {
				p = n.options.pattern
			}
			q := d.base * s.factorAt(p) * n.options.demandFactor * s.load
			s.total += math.Max(q, 0)
			sum += q
		}
		s.wanted[i], s.served[i] = sum, sum
	}
	for i := n.junctions; i < len(n.nodes); i++ {
		if d := &n.nodes[i]; d.pattern > 0 {
			s.head[i] = d.elevation * s.factorAt(d.pattern)
		}
	}
	for _, i := range n.pumps {
		if p := n.links[i].pump.pattern; p > 0 {
			s.setSetting(i, s.factorAt(p))
		}
	}
}

// balance finds heads and flows by the global gradient algorithm and returns
// what is odd about them.
//
// Every link has a head loss h(q), made linear at its flow: the inverse
// gradient is p. Inserted into the balance of every junction this gives a
// system of equations for the heads, symmetric and positive definite; from the
// heads follow new flows. Between the trials links change their status.
func (s *solver) balance() ([]string, error) {
	o := &s.n.options
	s.relax = 1
	trials := o.trials + max(o.extra, 0)
	check := o.checkEvery
	trial := 1
	for ; trial <= trials; trial++ {
		s.losses()
		s.equations()
		for {
			row := s.solve()
			if row < 0 {
				break
			}
			at := s.node[row]
			if !s.release(at) {
				return nil, citywarden.Errorf(citywarden.CodeInvalid,
					"the network cannot be solved at %s: the equations contradict each other at node %s; is it cut off from all tanks and reservoirs?",
					clockText(s.now), s.n.nodes[at].id)
			}
			s.losses()
			s.equations()
		}
		for i := range s.wanted {
			s.head[i] = s.right[s.row[i]]
		}
		s.change = s.newFlows()
		s.relax = 1
		changed := false
		switch {
		case o.dampLimit <= 0:
			changed = s.valveStatuses()
		case s.change <= o.dampLimit:
			s.relax = 0.6
			changed = s.valveStatuses()
		}
		if s.converged() {
			if trial > o.trials {
				break
			}
			// All three may change something, so all three are asked.
			links := s.linkStatuses()
			pressures := s.controlByPressure()
			if !changed && !links && !pressures {
				break
			}
			check = trial + o.checkEvery
		} else if trial <= o.checkUntil && trial == check {
			s.linkStatuses()
			check += o.checkEvery
		}
	}
	for i := range s.wanted {
		s.demand[i] = s.served[i] + s.emitted[i]
		if math.IsNaN(s.head[i]) || math.IsInf(s.head[i], 0) {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "the network cannot be solved at %s: no head is found for node %s", clockText(s.now), s.n.nodes[i].id)
		}
	}
	return s.warnings(trial), nil
}

// equations sets up the system for the heads.
func (s *solver) equations() {
	n := s.n
	s.clear()
	clear(s.excess)
	for i := range n.links {
		if s.p[i] == 0 {
			continue
		}
		k := &n.links[i]
		s.excess[k.from] -= s.flow[i]
		s.excess[k.to] += s.flow[i]
		s.join(i, k, s.y[i])
	}
	for i, e := range s.emitter {
		if e > 0 {
			loss, gradient := s.emitterLoss(i)
			s.diagonal[s.row[i]] += 1 / gradient
			s.right[s.row[i]] += (loss + n.nodes[i].elevation) / gradient
			s.excess[i] -= s.emitted[i]
		}
	}
	if n.options.byPressure {
		span := n.options.pressureFull - n.options.pressureMin
		for i, full := range s.wanted {
			if full > 0 {
				loss, gradient := s.demandLoss(i, span)
				s.diagonal[s.row[i]] += 1 / gradient
				s.right[s.row[i]] += (loss + n.nodes[i].elevation + n.options.pressureMin) / gradient
			}
		}
	}
	for i, d := range s.served {
		s.excess[i] -= d
		s.right[s.row[i]] += s.excess[i]
	}
	for _, i := range n.valves {
		if k := &n.links[i]; s.setting[i] != missing {
			s.keep(i, k)
		}
	}
}

// join adds link i to the equations of its ends; y goes out of the first.
func (s *solver) join(i int, k *link, y float64) {
	j := s.n.junctions
	if slot := s.slot[i]; slot >= 0 {
		s.lower[slot] -= s.p[i]
	}
	if k.from < j {
		row := s.row[k.from]
		s.diagonal[row] += s.p[i]
		s.right[row] += y
		if k.to >= j {
			s.right[row] += s.p[i] * s.head[k.to]
		}
	}
	if k.to < j {
		row := s.row[k.to]
		s.diagonal[row] += s.p[i]
		s.right[row] -= y
		if k.from >= j {
			s.right[row] += s.p[i] * s.head[k.from]
		}
	}
}

// keep adds a valve that keeps a pressure or a flow. Both of its ends are
// junctions.
func (s *solver) keep(i int, k *link) {
	if k.kind != PRV && k.kind != PSV && k.kind != FCV {
		return
	}
	if s.status[i] != active { // not in excess yet
		s.valveLoss(i, k.minor)
		s.join(i, k, s.y[i]-s.flow[i])
		return
	}
	from, to := s.row[k.from], s.row[k.to]
	switch k.kind {
	case PRV: // the head behind it is set, its flow is what is missing there
		s.p[i], s.y[i] = 0, s.flow[i]+s.excess[k.to]
		s.diagonal[to] += huge
		s.right[to] += huge * (s.n.nodes[k.to].elevation + s.setting[i])
		if s.excess[k.to] < 0 {
			s.right[from] += s.excess[k.to]
		}
	case PSV: // the head before it is set, its flow is what is too much there
		s.p[i], s.y[i] = 0, s.flow[i]-s.excess[k.from]
		s.diagonal[from] += huge
		s.right[from] += huge * (s.n.nodes[k.from].elevation + s.setting[i])
		if s.excess[k.from] > 0 {
			s.right[to] += s.excess[k.from]
		}
		s.lower[s.slot[i]] -= 1 / huge // so that what is behind it stays connected
		s.diagonal[to] += 1 / huge
	case FCV: // its flow is a demand before it and a supply behind it
		q := s.setting[i]
		s.excess[k.from] -= q
		s.excess[k.to] += q
		s.p[i], s.y[i] = 1/huge, s.flow[i]-q
		s.join(i, k, -q)
	}
}

// newFlows finds the flows that go with the new heads and returns the sum of
// their changes as a share of their sum.
func (s *solver) newFlows() float64 {
	n := s.n
	sum, changes := 0.0, 0.0
	s.maxFlow = 0
	count := func(q, dq float64) {
		sum += math.Abs(q)
		changes += math.Abs(dq)
		s.maxFlow = math.Max(s.maxFlow, math.Abs(dq))
	}
	clear(s.demand[n.junctions:])
	for i := range n.links {
		k := &n.links[i]
		dq := (s.y[i] - s.p[i]*(s.head[k.from]-s.head[k.to])) * s.relax
		if k.kind == Pump && k.pump.kind == constantPower && dq > s.flow[i] {
			dq = s.flow[i] / 2 // it must not turn round
		}
		s.flow[i] -= dq
		count(s.flow[i], dq)
		if s.status[i] > closed {
			if k.from >= n.junctions {
				s.demand[k.from] -= s.flow[i]
			}
			if k.to >= n.junctions {
				s.demand[k.to] += s.flow[i]
			}
		}
	}
	for i, e := range s.emitter {
		if e > 0 {
			loss, gradient := s.emitterLoss(i)
			dq := (loss - s.head[i] + n.nodes[i].elevation) / gradient * s.relax
			s.emitted[i] -= dq
			count(s.emitted[i], dq)
		}
	}
	if n.options.byPressure {
		span := math.Max(n.options.pressureFull-n.options.pressureMin, minPressureRange)
		for i, full := range s.wanted {
			if full > 0 {
				loss, gradient := s.demandLoss(i, span)
				dq := (loss - s.head[i] + n.nodes[i].elevation + n.options.pressureMin) / gradient * s.relax
				if math.Abs(dq) > 0.4*full {
					dq = math.Copysign(0.4*full, dq)
				}
				s.served[i] -= dq
				count(s.served[i], dq)
			}
		}
	}
	if sum > s.accuracy {
		return changes / sum
	}
	return changes
}

// converged reports whether nothing needs to change any more.
func (s *solver) converged() bool {
	o := &s.n.options
	if !(s.change <= s.accuracy) {
		return false
	}
	if o.headError > 0 {
		s.losses()
		for i := range s.n.links {
			k := &s.n.links[i]
			if s.status[i] > closed && s.p[i] != 0 && math.Abs(s.head[k.from]-s.head[k.to]-s.y[i]/s.p[i]) > o.headError {
				return false
			}
		}
	}
	if o.flowChange > 0 && s.maxFlow > o.flowChange {
		return false
	}
	if o.byPressure {
		for i, full := range s.wanted {
			q := full
			switch p := s.head[i] - s.n.nodes[i].elevation; {
			case full <= 0:
				continue
			case p <= o.pressureMin:
				q = 0
			case p < o.pressureFull:
				q = full * math.Pow((p-o.pressureMin)/(o.pressureFull-o.pressureMin), o.pressureExp)
			}
			if math.Abs(q-s.served[i]) > 0.0001 {
				return false
			}
		}
	}
	return true
}

func (s *solver) warnings(trial int) []string {
	var out []string
	o := &s.n.options
	if trial > o.trials {
		if s.change > s.accuracy {
			out = append(out, fmt.Sprintf("not balanced after %d trials", trial-1))
		} else {
			out = append(out, "balanced only with valves, pumps and pipes held as they are")
		}
	}
	negative, worst := 0, ""
	lowest := 0.0
	for i := range s.wanted {
		if p := s.head[i] - s.n.nodes[i].elevation; p < 0 && s.demand[i] > 0 && !o.byPressure {
			if negative++; p < lowest {
				lowest, worst = p, s.n.nodes[i].id
			}
		}
	}
	if negative > 0 {
		out = append(out, fmt.Sprintf("negative pressure at %d nodes with demand, lowest at %s", negative, worst))
	}
	for i := range s.n.links {
		k := &s.n.links[i]
		switch {
		case s.status[i] == underFlow:
			out = append(out, fmt.Sprintf("valve %s cannot deliver its flow", k.id))
		case s.status[i] == underHead:
			out = append(out, fmt.Sprintf("valve %s cannot keep its pressure", k.id))
		case k.kind == Pump && (s.status[i] == overHead || s.status[i] >= open && s.flow[i] < 0):
			out = append(out, fmt.Sprintf("pump %s cannot lift so high", k.id))
		case k.kind == Pump && s.status[i] >= open && s.flow[i] > s.setting[i]*k.pump.flowMax:
			out = append(out, fmt.Sprintf("pump %s delivers more than its curve goes to", k.id))
		}
	}
	return out
}

func clockText(t int) string { return fmt.Sprintf("%d:%02d:%02d", t/3600, t/60%60, t%60) }
