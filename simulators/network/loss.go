package network

import "math"

const (
	huge     = 1e8  // resistance of what is closed
	slight   = 1e-6 // resistance of what is open and has none
	zeroFlow = 1e-6
	missing  = -1e10 // a valve without a setting is just open or closed
)

// friction returns the head loss of a pipe per power of the flow; of
// Darcy-Weisbach, without the friction factor, which depends on the flow.
func (o *options) friction(k *link) float64 {
	d := k.diameter
	switch o.formula {
	case hazenWilliams:
		return 4.727 * k.length / math.Pow(k.roughness, o.exponent) / math.Pow(d, 4.871)
	case darcyWeisbach:
		a := math.Pi * d * d / 4
		return k.length / 2 / 32.2 / d / (a * a)
	default:
		v := 4 * k.roughness / (1.49 * math.Pi * d * d)
		return v * v * math.Pow(d/4, -1.333) * k.length
	}
}

// losses finds of every link the inverse gradient p of its head loss and its
// head loss times p, at the flow that it has now. Valves that keep a pressure
// or a flow get theirs in control.
func (s *solver) losses() {
	for i := range s.n.links {
		k := &s.n.links[i]
		switch k.kind {
		case Pipe, CheckValve:
			s.pipeLoss(i, k)
		case Pump:
			s.pumpLoss(i, k)
		case PBV:
			switch set := s.setting[i]; {
			case set == missing, set == 0, k.minor*s.flow[i]*s.flow[i] > set:
				s.valveLoss(i, k.minor)
			default:
				s.p[i], s.y[i] = huge, set*huge
			}
		case TCV:
			m := k.minor
			if s.setting[i] != missing {
				m = minor(s.setting[i], k.diameter)
			}
			s.valveLoss(i, m)
		case GPV:
			s.curveLoss(i, k)
		default:
			s.p[i], s.y[i] = 0, 0
			if s.setting[i] == missing {
				s.valveLoss(i, k.minor)
			}
		}
	}
}

// closedLoss makes link i let through next to nothing.
func (s *solver) closedLoss(i int) { s.p[i], s.y[i] = 1/huge, s.flow[i] }

func (s *solver) pipeLoss(i int, k *link) {
	o := &s.n.options
	if s.status[i] <= closed {
		s.closedLoss(i)
		return
	}
	q := math.Abs(s.flow[i])
	if o.formula == darcyWeisbach {
		s.darcyLoss(i, k, q)
		return
	}
	gradient := o.exponent * k.friction * math.Pow(q, o.exponent-1)
	var loss float64
	if gradient < o.gradTol {
		gradient = o.gradTol / o.exponent
		loss = gradient * q
	} else {
		loss = gradient * q / o.exponent
	}
	loss += k.minor * q * q
	gradient += 2 * k.minor * q
	if s.flow[i] < 0 {
		loss = -loss
	}
	s.p[i], s.y[i] = 1/gradient, loss/gradient
}

// darcyLoss is Hagen and Poiseuille's law for laminar flow, otherwise Darcy and
// Weisbach's.
func (s *solver) darcyLoss(i int, k *link, q float64) {
	viscous := s.n.options.viscosity * k.diameter
	var loss, gradient float64
	if q <= 500*math.Pi*viscous { // Reynolds number up to 2000
		r := 16 * math.Pi * viscous * k.friction
		loss = s.flow[i] * (r + k.minor*q)
		gradient = r + 2*k.minor*q
	} else {
		f, slope := frictionFactor(q, k.roughness/k.diameter, viscous)
		r := f*k.friction + k.minor
		loss = r * q * s.flow[i]
		gradient = 2*r*q + slope*k.friction*q*q
	}
	s.p[i], s.y[i] = 1/gradient, loss/gradient
}

// frictionFactor returns the factor of Darcy and Weisbach and its derivative by
// the flow: Swamee and Jain's approximation of Colebrook and White for
// turbulent flow, Dunlop's polynomial in the transition before.
func frictionFactor(q, roughness, viscous float64) (f, slope float64) {
	const (
		a8 = 4.61841319859066668690e+00  // 5.74·(π/4)^0.9
		a9 = -8.68588963806503655300e-01 // -2/ln 10
		ab = 3.28895476345399058690e-03  // 5.74/4000^0.9
		ac = -5.14214965799093883760e-03 // -1.8·2/ln 10·ab
	)
	w := q / viscous // Reynolds number · π/4
	if w >= 1000*math.Pi {
		y1 := a8 / math.Pow(w, 0.9)
		y2 := roughness/3.7 + y1
		y3 := a9 * math.Log(y2)
		f = 1 / (y3 * y3)
		return f, 1.8 * f * y1 * a9 / y2 / y3 / q
	}
	y2 := roughness/3.7 + ab
	y3 := a9 * math.Log(y2)
	fa := 1 / (y3 * y3)
	fb := (2 + ac/(y2*y3)) * fa
	r := w / (500 * math.Pi)
	x1 := 7*fa - fb
	x2 := 0.128 - 17*fa + 2.5*fb
	x3 := -0.128 + 13*fa - 2*fb
	x4 := 0.032 - 3*fa + 0.5*fb
	return x1 + r*(x2+r*(x3+r*x4)), (x2 + r*(2*x3+r*3*x4)) / viscous / (500 * math.Pi)
}

func (s *solver) pumpLoss(i int, k *link) {
	speed, p := s.setting[i], k.pump
	if s.status[i] <= closed || speed == 0 {
		s.closedLoss(i)
		return
	}
	q := math.Abs(s.flow[i])
	var loss, gradient float64
	switch p.kind {
	case pointCurve:
		f := s.n.factors
		h, slope := p.curve.line(q / speed * f.flow)
		gradient = -slope * f.flow / f.length * speed
		loss = -h/f.length*speed*speed + gradient*s.flow[i]
	case constantPower:
		r := -p.r * math.Pow(speed, 2-p.n)
		switch gradient = -r / q / q; {
		case gradient > huge:
			s.closedLoss(i)
			return
		case gradient < slight:
			s.p[i], s.y[i] = 1/slight, s.flow[i]
			return
		}
		loss = r / s.flow[i]
	default:
		n := p.n
		if math.Abs(n-1) < tiny {
			n = 1
		}
		h, r := -speed*speed*p.shutoff, p.r*math.Pow(speed, 2-n)
		switch {
		case n == 1:
			gradient = r
			loss = h + gradient*s.flow[i]
		default:
			gradient = n * r * math.Pow(q, n-1)
			if gradient < s.n.options.gradTol {
				gradient = s.n.options.gradTol
				loss = h + gradient*s.flow[i]
			} else {
				loss = h + gradient*s.flow[i]/n
			}
		}
	}
	s.p[i], s.y[i] = 1/gradient, loss/gradient
}

func (s *solver) curveLoss(i int, k *link) {
	if s.status[i] == closed {
		s.valveLoss(i, k.minor)
		return
	}
	f := s.n.factors
	q := math.Max(math.Abs(s.flow[i]), tiny)
	h, slope := k.curve.line(q * f.flow)
	h, slope = h/f.length, math.Max(slope*f.flow/f.length, tiny)
	s.p[i], s.y[i] = 1/slope, h/slope+q
	if s.flow[i] < 0 {
		s.y[i] = -s.y[i]
	}
}

// valveLoss is that of a valve that is open, closed or throttled.
func (s *solver) valveLoss(i int, minor float64) {
	q := s.flow[i]
	switch {
	case s.status[i] <= closed:
		s.closedLoss(i)
	case minor > 0:
		gradient := 2 * minor * math.Abs(q)
		if tol := s.n.options.gradTol; gradient < tol {
			gradient = tol / 2
			s.p[i], s.y[i] = 1/gradient, q
		} else {
			s.p[i], s.y[i] = 1/gradient, q/2
		}
	default:
		s.p[i], s.y[i] = 1/slight, q
	}
}

// emitterLoss returns the head loss of the emitter at node i, as if it were a
// pipe to the open air, and its gradient.
func (s *solver) emitterLoss(i int) (loss, gradient float64) {
	o := &s.n.options
	k := math.Max(slight, s.emitter[i])
	q := s.emitted[i]
	gradient = o.emitter * k * math.Pow(math.Abs(q), o.emitter-1)
	if gradient < o.gradTol {
		gradient = o.gradTol / o.emitter
		loss = gradient * q
	} else {
		loss = gradient * q / o.emitter
	}
	if !o.backflow {
		loss, gradient = barrier(q, 1, loss, gradient)
	}
	return loss, gradient
}

// demandLoss is the same for a demand that depends on the pressure.
func (s *solver) demandLoss(i int, span float64) (loss, gradient float64) {
	n := 1 / s.n.options.pressureExp
	d, full := s.served[i], s.wanted[i]
	gradient = n * span * math.Pow(math.Abs(d)/full, n-1) / full
	loss = gradient * d / n
	loss, gradient = barrier(d, 1, loss, gradient)
	return barrier(d-full, -1, loss, gradient)
}

// barrier makes the loss soar where q has the other sign than side.
func barrier(q, side, loss, gradient float64) (float64, float64) {
	a := 1e9 * q
	b := math.Sqrt(a*a + 1e-6)
	return loss + (a-side*b)/2, gradient + 1e9/2*(1-side*a/b)
}

func (k *link) isPipe() bool { return k.kind == Pipe || k.kind == CheckValve }
