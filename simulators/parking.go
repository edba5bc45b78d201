package simulators

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/citywarden/citywarden"
)

// parkingZone says how cars come to the bays of a zone: a non-homogeneous
// Poisson process per bay with two peaks; a car that finds its bay taken drives on.
type parkingZone struct {
	base   float64 // arrivals per hour and bay in the dead of night
	peaks  [2]peak
	rest   float64       // factor of the peaks on days off
	stay   time.Duration // the median; stays are log-normal
	spread float64       // standard deviation of the logarithm of a stay
}

type peak struct{ hour, width, rate float64 }

var parkingZones = map[string]parkingZone{
	"fuqian":    {0.02, [2]peak{{9.5, 1.2, 1.7}, {15.5, 1.3, 1.5}}, 0.35, 50 * time.Minute, 0.6}, // offices
	"zhongshan": {0.05, [2]peak{{10, 1.6, 1.6}, {18.5, 1.8, 1.9}}, 0.9, 35 * time.Minute, 0.7},   // shops along the road
	"mall":      {0.01, [2]peak{{11.5, 1.2, 1.2}, {18.5, 1.6, 1.9}}, 1.3, 80 * time.Minute, 0.5},
}

// rate returns the arrivals per hour at t.
func (z *parkingZone) rate(t time.Time) float64 {
	h, work := hour(t)
	sum := 0.0
	for _, p := range z.peaks {
		d := math.Abs(h - p.hour)
		d = math.Min(d, 24-d) / p.width
		sum += p.rate * math.Exp(-d*d/2)
	}
	if !work {
		sum *= z.rest
	}
	return z.base + sum
}

// most returns a bound of rate.
func (z *parkingZone) most() float64 {
	return z.base + (z.peaks[0].rate+z.peaks[1].rate)*math.Max(1, z.rest)
}

// stay is the time from the moment that a car stands on a sensor until it has left.
type stay struct{ from, to time.Time }

// bay is a geomagnetic sensor in a parking bay or a fire lane.
type bay struct {
	w       *World
	id      uint64
	beat    clock
	cur     stay
	arrival func() stay // the next stay, in order and not overlapping
}

// heartbeat of a bay; it also reports each change at once.
const bayHeartbeat = time.Minute

func newBay(w *World, dev *citywarden.Device, id uint64) *bay {
	b := &bay{w: w, id: id, beat: w.clock(id, bayHeartbeat)}
	rnd := rand.New(rand.NewPCG(w.seed, id))
	// A day before the start is enough to fill a car park.
	begin := w.start.In(shanghai)
	begin = time.Date(begin.Year(), begin.Month(), begin.Day()-1, 0, 0, 0, 0, shanghai)
	if attr(dev, "kind") == "fire_lane" {
		b.arrival = laneStays(w, dev, rnd, begin)
	} else {
		b.arrival = bayStays(parkingZones[attr(dev, "zone")], rnd, begin)
	}
	b.cur = b.arrival()
	return b
}

func bayStays(z parkingZone, rnd *rand.Rand, t time.Time) func() stay {
	return func() stay {
		t = thinned(rnd, t, z.most(), z.rate)
		s := time.Duration(float64(z.stay) * math.Exp(z.spread*rnd.NormFloat64()))
		from := t.Truncate(time.Millisecond).UTC()
		to := from.Add(min(max(s, 3*time.Minute), 10*time.Hour).Truncate(time.Millisecond))
		t = to.Add(15 * time.Second) // no two cars fit
		return stay{from, to}
	}
}

// thinned returns the next event after t of a Poisson process whose rate per
// hour changes with time and is at most most (Lewis and Shedler's thinning).
func thinned(rnd *rand.Rand, t time.Time, most float64, rate func(time.Time) float64) time.Time {
	for {
		t = t.Add(time.Duration(rnd.ExpFloat64() / most * float64(time.Hour)))
		if rnd.Float64()*most < rate(t) {
			return t
		}
	}
}

// laneStays of a fire lane: now and then somebody stops for some seconds, which
// nobody should be called for, and there are the incidents.
func laneStays(w *World, dev *citywarden.Device, rnd *rand.Rand, t time.Time) func() stay {
	brief := func() stay {
		t = thinned(rnd, t, 0.25, func(t time.Time) float64 {
			if h, _ := hour(t); h < 7 || h > 22 {
				return 0.02
			}
			return 0.25
		})
		from := t.Truncate(time.Millisecond).UTC()
		t = from.Add(time.Duration(6000+rnd.IntN(12000)) * time.Millisecond)
		return stay{from, t}
	}
	blocked := func(r int64) (stay, int64) {
		for ; ; r++ {
			if i, _ := w.incident(BlockedLane, r); i.Device == dev.ID {
				return stay{i.From, i.To}, r + 1
			}
		}
	}
	nextBrief := brief()
	nextBlocked, r := blocked(0)
	const apart = 2 * time.Minute
	return func() stay {
		for nextBrief.to.Add(apart).After(nextBlocked.from) && nextBrief.from.Before(nextBlocked.to.Add(apart)) {
			nextBrief = brief()
		}
		if nextBrief.from.Before(nextBlocked.from) {
			s := nextBrief
			nextBrief = brief()
			return s
		}
		s := nextBlocked
		nextBlocked, r = blocked(r)
		return s
	}
}

func (b *bay) advance(t time.Time) {
	for !t.Before(b.cur.to) {
		b.cur = b.arrival()
	}
}

func (b *bay) next(t time.Time) time.Time {
	b.advance(t)
	change := b.cur.to
	if t.Before(b.cur.from) {
		change = b.cur.from
	}
	return earlier(b.beat.next(t), change)
}

func (b *bay) read(out *body, t time.Time) {
	b.advance(t)
	occupied := !t.Before(b.cur.from)
	out.bool("occupied", occupied)
	earth := [3]float64{24, -3, 36} // µT; the earth's field at that place
	for i, name := range [...]string{"magnetic_x", "magnetic_y", "magnetic_z"} {
		v := earth[i] + 8*(b.w.unit(b.id, name, 0)-0.5) + 0.4*b.w.noise(b.id, name, t)
		if occupied { // every car bends the field in its own way
			v += (20 + 50*b.w.unit(b.id, name, b.cur.from.UnixMilli())) * float64(1-2*(i%2))
		}
		out.number(name, v, 1)
	}
	b.w.battery(out, b.id, t)
}
