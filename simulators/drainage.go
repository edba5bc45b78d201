package simulators

import (
	"math"
	"time"

	"github.com/citywarden/citywarden"
)

// What a drain and a street can take, in mm/h of rain on their catchment.
const (
	pipeTakes   = 30.0 // a full pipe
	gullyTakes  = 25.0 // the gullies of a street
	dryWeather  = 1.5  // sewage, as if it were rain
	runoffTakes = 15 * time.Minute
)

// rainAt returns the intensity at t in mm/h: it rises to its peak after two
// fifths of the rain and falls off more slowly.
func (w *World) rainAt(t time.Time) float64 {
	sum := 0.0
	for i := range w.now(Rain, t) {
		x := i.age(t) / i.To.Sub(i.From).Seconds()
		if x < 0.4 {
			x /= 0.4
		} else {
			x = (1 - x) / 0.6
		}
		sum += i.size() * x * x
	}
	return sum
}

// runoff is what arrives in the drains of a catchment: the rain, held back as in
// a basin that empties by itself. It goes forward by steps of ten seconds.
type runoff struct {
	w     *World
	at    time.Time
	flow  float64 // mm/h
	depth float64 // cm that stand on the street
}

const runoffStep = 10 * time.Second

// forward goes on to t.
func (r *runoff) forward(t time.Time) {
	dt := runoffStep.Hours()
	for ; r.at.Add(runoffStep).Before(t); r.at = r.at.Add(runoffStep) {
		r.flow += (r.w.rainAt(r.at) - r.flow) * dt / runoffTakes.Hours()
		// What the gullies do not take stands on the street, which is a trough; when
		// they can again, half a centimetre a minute runs off.
		switch over := r.flow - gullyTakes; {
		case over > 0:
			r.depth += 2.5 * over * dt
		default:
			r.depth = math.Max(0, r.depth-30*dt)
		}
	}
}

// newDrain: the level in a well. A pipe is full at its height; what it does not
// take then rises in the well.
func newDrain(w *World, dev *citywarden.Device, id uint64) source {
	water, height := &runoff{w: w, at: w.start}, number(dev, "pipe_height", 0.6)
	var g *gauge
	g = newGauge(w, dev, id, w.beat(dev, id, 5*time.Minute), time.Minute, func(b *body, t time.Time) {
		water.forward(t)
		h, _ := hour(t)
		flow, free := water.flow+dryWeather*demandOfDay.at(h), 1.0
		if i, ok := g.now(Blockage, t); ok {
			free = 1 - i.size()*math.Min(1, i.age(t)/1200) // within twenty minutes
		}
		ratio := flow / (pipeTakes * math.Max(free, 0.01))
		level := height * 0.95 * math.Sqrt(ratio)
		if ratio > 1 {
			level = height * (0.95 + 0.5*math.Min(ratio-1, 4))
		}
		b.number("level", level+0.003*w.noise(id, "level", t), 3)
		w.battery(b, id, t)
	}, Rain, Blockage)
	return g
}

// newFlood: how deep the water stands on a street.
func newFlood(w *World, dev *citywarden.Device, id uint64) source {
	water := &runoff{w: w, at: w.start}
	depth := func(t time.Time) float64 { water.forward(t); return water.depth }
	g := newGauge(w, dev, id, w.beat(dev, id, 5*time.Minute), 30*time.Second, func(b *body, t time.Time) {
		b.number("depth", math.Max(0, depth(t)+0.1*w.noise(id, "depth", t)), 1)
		w.battery(b, id, t)
	}, Rain)
	g.also = func(t, next time.Time) time.Time {
		if depth(t) > 0 { // often, while there is water
			next = earlier(next, t.Truncate(30*time.Second).Add(30*time.Second))
		}
		return next
	}
	return g
}

// newCover: a manhole cover. Lorries make it bounce for a moment.
func newCover(w *World, dev *citywarden.Device, id uint64) source {
	var g *gauge
	g = newGauge(w, dev, id, w.beat(dev, id, 30*time.Minute), time.Minute, func(b *body, t time.Time) {
		_, opened := g.now(OpenCover, t)
		tilt := 1.5*w.unit(id, "lies", 0) + 0.2*math.Abs(w.noise(id, "tilt", t))
		if opened {
			tilt = 70 + 20*w.unit(id, "leans", 0)
		}
		b.number("tilt", tilt, 1)
		b.bool("opened", opened)
		w.battery(b, id, t)
	}, OpenCover)
	return g
}

// gasFills is how long a leak takes to fill two thirds of a chamber, and fresh
// air to clear it.
const gasFills = 10 * time.Minute

// newGasDetector: methane in a chamber. A sewer always has a little.
func newGasDetector(w *World, dev *citywarden.Device, id uint64) source {
	base := 0.3
	if attr(dev, "medium") == "sewer" {
		base = 4
	}
	var g *gauge
	g = newGauge(w, dev, id, w.beat(dev, id, 10*time.Minute), 20*time.Second, func(b *body, t time.Time) {
		h, _ := hour(t)
		gas := base * (1 + 0.4*math.Sin((h-9)/24*2*math.Pi) + 0.1*w.noise(id, "gas", t))
		for _, i := range w.script[Gas] {
			if t.Before(i.From) || !g.hit(i) {
				continue
			}
			end := i.To
			if t.Before(end) {
				end = t
			}
			reached := i.size() * (1 - math.Exp(-end.Sub(i.From).Seconds()/gasFills.Seconds()))
			gas += reached * math.Exp(-t.Sub(end).Seconds()/gasFills.Seconds())
		}
		test, tested := g.now(Test, t)
		if tested && spray(test, t) {
			gas = 60 // of test gas
		}
		_, fault := g.now(Broken, t)
		b.number("gas", math.Min(100, math.Max(0, gas)), 1)
		b.bool("fault", fault)
		b.bool("test", tested)
		w.battery(b, id, t)
	}, Gas, Test, Broken)
	return g
}
