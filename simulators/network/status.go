package network

import "math"

// status is what a link does, in an order that matters: up to closed nothing
// flows.
type status int

const (
	overHead   status = iota // a pump that cannot lift so high
	tempClosed               // into a full tank, out of an empty one
	closed
	open
	active    // a valve that keeps its setting
	overFlow  // not used in computing
	underFlow // an FCV that cannot reach its flow
	underHead // a PRV or PSV that cannot keep its pressure
)

// valveStatuses updates the valves that keep a pressure.
func (s *solver) valveStatuses() bool {
	changed := false
	for _, i := range s.n.valves {
		k := &s.n.links[i]
		if s.setting[i] == missing || k.kind != PRV && k.kind != PSV {
			continue
		}
		before := s.status[i]
		keeps := k.to
		next := s.prvStatus
		if k.kind == PSV {
			keeps, next = k.from, s.psvStatus
		}
		s.status[i] = next(i, k, s.n.nodes[keeps].elevation+s.setting[i])
		changed = changed || s.status[i] != before
	}
	return changed
}

func (s *solver) prvStatus(i int, k *link, set float64) status {
	is, q, h1, h2 := s.status[i], s.flow[i], s.head[k.from], s.head[k.to]
	headTol, flowTol := s.n.options.headTol, s.n.options.flowTol
	switch {
	case is != closed && q < -flowTol && is >= open:
		return closed
	case is == active && h1-k.minor*q*q < set-headTol:
		return open
	case is == open && h2 >= set+headTol:
		return active
	case is == closed && h1 >= set+headTol && h2 < set-headTol:
		return active
	case is == closed && h1 < set-headTol && h1 > h2+headTol:
		return open
	}
	return is
}

func (s *solver) psvStatus(i int, k *link, set float64) status {
	is, q, h1, h2 := s.status[i], s.flow[i], s.head[k.from], s.head[k.to]
	headTol, flowTol := s.n.options.headTol, s.n.options.flowTol
	switch {
	case is != closed && q < -flowTol && is >= open:
		return closed
	case is == active && h2+k.minor*q*q > set+headTol:
		return open
	case is == open && h1 < set-headTol:
		return active
	case is == closed && h2 > set+headTol && h1 > h2+headTol:
		return open
	case is == closed && h1 >= set+headTol && h1 > h2+headTol:
		return active
	}
	return is
}

// linkStatuses updates check valves, pumps, FCVs and links of tanks.
func (s *solver) linkStatuses() bool {
	changed := false
	for i := range s.n.links {
		k := &s.n.links[i]
		dh := s.head[k.from] - s.head[k.to]
		before := s.status[i]
		if before == overHead || before == tempClosed {
			s.status[i] = open
		}
		switch {
		case k.kind == CheckValve:
			s.status[i] = s.checkStatus(s.status[i], dh, s.flow[i])
		case k.kind == Pump && s.status[i] >= open && s.setting[i] > 0:
			s.status[i] = s.pumpStatus(i, k.pump, -dh)
		case k.kind == FCV && s.setting[i] != missing:
			s.status[i] = s.fcvStatus(i, k, before, dh)
		}
		s.tankStatus(i, k.from, s.flow[i])
		s.tankStatus(i, k.to, -s.flow[i])
		changed = changed || s.status[i] != before
	}
	return changed
}

func (s *solver) checkStatus(is status, dh, q float64) status {
	o := &s.n.options
	switch {
	case dh < -o.headTol, q < -o.flowTol:
		return closed
	case dh > o.headTol:
		return open
	}
	return is
}

func (s *solver) pumpStatus(i int, p *pump, lift float64) status {
	if p.kind == constantPower {
		if s.flow[i] < tiny {
			return tempClosed
		}
		return open
	}
	if lift > s.setting[i]*s.setting[i]*p.headMax+s.n.options.headTol {
		return overHead
	}
	return open
}

func (s *solver) fcvStatus(i int, k *link, is status, dh float64) status {
	o := &s.n.options
	q := s.flow[i]
	switch {
	case dh < -o.headTol, q < -o.flowTol:
		return underFlow
	case is == underFlow && q >= s.setting[i]:
		return active
	case is == active && dh/(q*q) < k.minor:
		return underFlow
	}
	return is
}

// tankStatus closes link i if it carries q out of the empty or, negative, into
// the full tank at node at.
func (s *solver) tankStatus(i, at int, q float64) {
	t := s.n.nodes[at].tank
	if t == nil || s.status[i] <= closed {
		return
	}
	if s.head[at] >= t.headMax && !t.overflow && q < 0 || s.head[at] <= t.headMin && q > 0 {
		s.status[i] = tempClosed
	}
}

// release fixes the valve that makes the equations contradict each other at
// node at, and reports whether there is one.
func (s *solver) release(at int) bool {
	for _, i := range s.n.valves {
		k := &s.n.links[i]
		if k.from != at && k.to != at {
			continue
		}
		if s.status[i] == active {
			switch k.kind {
			case FCV:
				s.status[i] = underFlow
				return true
			case PRV, PSV:
				s.status[i] = underHead
				return true
			}
		}
		return false
	}
	return false
}

// setStatus opens or closes a link.
func (s *solver) setStatus(i int, to status) {
	k := &s.n.links[i]
	if k.kind == Pump {
		if to == open && s.status[i] == closed {
			s.resetPump(i)
		}
		s.setting[i] = map[status]float64{open: 1, closed: 0}[to]
	} else if !k.isPipe() && k.kind != GPV {
		s.setting[i] = missing
	}
	s.status[i] = to
}

// setSetting sets the speed of a pump or what a valve keeps.
func (s *solver) setSetting(i int, v float64) {
	switch s.n.links[i].kind {
	case Pump:
		if v > 0 && s.status[i] <= closed {
			s.resetPump(i)
			s.status[i] = open
		}
		if v == 0 && s.status[i] > closed {
			s.status[i] = closed
		}
	case FCV:
		s.status[i] = active
	default:
		if s.setting[i] == missing && s.status[i] <= closed {
			s.status[i] = open
		}
	}
	s.setting[i] = v
}

// resetPump lets a pump of constant power begin anew, for which no flow is no
// beginning.
func (s *solver) resetPump(i int) {
	if p := s.n.links[i].pump; p.kind == constantPower {
		s.flow[i] = p.flow
	}
}

// startFlow is the flow with which the iteration begins: 1 ft/s in a pipe.
func (s *solver) startFlow(i int) float64 {
	k := &s.n.links[i]
	switch {
	case s.status[i] <= closed:
		return zeroFlow
	case k.kind == Pump:
		return s.setting[i] * k.pump.flow
	}
	return math.Pi * k.diameter * k.diameter / 4
}
