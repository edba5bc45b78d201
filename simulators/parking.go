package simulators

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

// parkingZone says how cars come to the bays of a zone: a non-homogeneous
// Poisson process per bay with two peaks; a car that finds its bay taken drives on.
type parkingZone struct {
	base   float64 // arrivals per hour and bay in the dead of night
	peaks  [2]peak
	day    float64       // at least so many between the peaks
	rest   float64       // factor of the day on days off
	stay   time.Duration // the median; stays are log-normal
	spread float64       // standard deviation of the logarithm of a stay
}

type peak struct{ hour, width, rate float64 }

var parkingZones = map[string]parkingZone{
	"fuqian":    {0.02, [2]peak{{9.5, 1.2, 1.7}, {15.5, 1.3, 1.5}}, 0.7, 0.35, 50 * time.Minute, 0.6}, // offices
	"zhongshan": {0.05, [2]peak{{10, 1.6, 1.6}, {18.5, 1.8, 1.9}}, 0.9, 0.9, 35 * time.Minute, 0.7},   // shops along the road
	"mall":      {0.01, [2]peak{{11.5, 1.2, 1.2}, {18.5, 1.6, 1.9}}, 0.75, 1.3, 80 * time.Minute, 0.5},
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
	if h > z.peaks[0].hour && h < z.peaks[1].hour {
		sum = math.Max(sum, z.day)
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
	exact   bool // it misses no car and takes nothing for one
	cur     stay
	arrival func() stay // the next stay, in order and not overlapping
	pass    stay        // a lorry in the next lane, which the sensor takes for a car
	others  *gauge      // what else happens to it
}

// How often a sensor errs: it misses one car in a hundred, whose body bends the
// field too little, and takes a lorry that waits beside it for a car now and then.
const (
	missed     = 0.01
	missedBend = 0.1 // of what other cars do
	lorries    = 60 * time.Hour
)

// seen reports whether the sensor notices the car of a stay.
func (b *bay) seen(s stay) bool {
	return b.exact || b.w.unit(b.id, "missed", s.from.UnixMilli()) >= missed
}

// passing returns the next lorry after t.
func (b *bay) passing(t time.Time) stay {
	k := t.Truncate(lorries)
	for ; ; k = k.Add(lorries) {
		from := k.Add(share(lorries, b.w.unit(b.id, "lorry", k.Unix()))).UTC()
		if to := from.Add(time.Duration(6000+14000*b.w.unit(b.id, "wait", k.Unix())) * time.Millisecond); to.After(t) {
			return stay{from, to}
		}
	}
}

// heartbeat of a bay; it also reports each change at once.
const bayHeartbeat = time.Minute

func newBay(w *World, dev *citywarden.Device, id uint64) *bay {
	b := &bay{w: w, id: id, beat: w.beat(dev, id, bayHeartbeat)}
	b.others = newGauge(w, dev, id, b.beat, 0, nil, Magnet)
	rnd := rand.New(rand.NewPCG(w.seed, id))
	// A day before the start is enough to fill a car park.
	begin := w.start.In(shanghai)
	begin = time.Date(begin.Year(), begin.Month(), begin.Day()-1, 0, 0, 0, 0, shanghai)
	if attr(dev, "kind") == "fire_lane" {
		b.arrival = laneStays(w, dev, rnd, begin)
		b.exact = true // it is set up more carefully
	} else {
		b.arrival = overstays(w, dev, bayStays(zoneOf(dev), rnd, begin))
	}
	b.cur = b.arrival()
	b.pass = b.passing(begin)
	return b
}

// zoneOf returns how people park in the zone of a device: as along shops where
// nobody said how.
func zoneOf(dev *citywarden.Device) parkingZone {
	if z, ok := parkingZones[attr(dev, "zone")]; ok {
		return z
	}
	return parkingZones["zhongshan"]
}

// length returns how long a car stays.
func (z *parkingZone) length(rnd *rand.Rand) time.Duration {
	s := time.Duration(float64(z.stay) * math.Exp(z.spread*rnd.NormFloat64()))
	return min(max(s, 3*time.Minute), 10*time.Hour).Truncate(time.Millisecond)
}

func bayStays(z parkingZone, rnd *rand.Rand, t time.Time) func() stay {
	return func() stay {
		t = thinned(rnd, t, z.most(), z.rate)
		from := t.Truncate(time.Millisecond).UTC()
		to := from.Add(z.length(rnd))
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
	after := time.Time{}
	blocked := func() stay {
		for i := range w.all(BlockedLane, after) {
			after = i.To
			if i.Device == dev.ID {
				return stay{i.From, i.To}
			}
		}
		return never
	}
	nextBrief := brief()
	nextBlocked := blocked()
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
		nextBlocked = blocked()
		return s
	}
}

// never is a stay that nobody lives to see.
var never = stay{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 1, 2, 0, 0, 0, 0, time.UTC)}

// overstays puts the cars that do not leave in between: whoever would come
// meanwhile finds the bay taken.
func overstays(w *World, dev *citywarden.Device, arrival func() stay) func() stay {
	var long []stay
	for _, i := range w.script[Overstay] {
		if i.Device == dev.ID {
			long = append(long, stay{i.From, i.To})
		}
	}
	if long == nil {
		return arrival
	}
	next := arrival()
	return func() stay {
		for len(long) > 0 && next.from.Before(long[0].to) {
			if !next.to.After(long[0].from.Add(-time.Minute)) {
				break
			}
			if next.from.Before(long[0].from.Add(-2 * time.Minute)) {
				next.to = long[0].from.Add(-time.Minute) // the one before leaves just in time
				break
			}
			next = arrival()
		}
		if len(long) > 0 && long[0].from.Before(next.from) {
			s := long[0]
			long = long[1:]
			return s
		}
		s := next
		next = arrival()
		return s
	}
}

func (b *bay) advance(t time.Time) {
	for !t.Before(b.cur.to) {
		b.cur = b.arrival()
	}
	for !b.exact && !t.Before(b.pass.to) {
		b.pass = b.passing(b.pass.to)
	}
}

func (b *bay) next(t time.Time) time.Time {
	b.advance(t)
	next := b.others.next(t)
	change := func(s stay) {
		if t.Before(s.from) {
			next = earlier(next, s.from)
		} else {
			next = earlier(next, s.to)
		}
	}
	change(b.cur)
	if !b.exact {
		change(b.pass)
	}
	return next
}

func (b *bay) read(out *body, t time.Time) {
	b.advance(t)
	// What stands over the sensor, by what bends the field: the beginning of its
	// stay, and how much of a car it is.
	var by time.Time
	much := 0.0
	switch _, magnet := b.others.now(Magnet, t); {
	case !t.Before(b.cur.from):
		by, much = b.cur.from, 1
		if !b.seen(b.cur) {
			much = missedBend
		}
	case !b.exact && !t.Before(b.pass.from):
		by, much = b.pass.from, 1
	case magnet:
		by, much = t.Truncate(time.Minute), 4
	}
	out.bool("occupied", much >= 1)
	earth := [3]float64{24, -3, 36} // µT; the earth's field at that place
	for i, name := range [...]string{"magnetic_x", "magnetic_y", "magnetic_z"} {
		v := earth[i] + 8*(b.w.unit(b.id, name, 0)-0.5) + 0.4*b.w.noise(b.id, name, t)
		if much > 0 { // every car bends the field in its own way
			v += much * (20 + 50*b.w.unit(b.id, name, by.UnixMilli())) * float64(1-2*(i%2))
		}
		out.number(name, v, 1)
	}
	b.w.battery(out, b.id, t)
	out.number("battery_voltage", 3.66-0.1*(1-b.w.charge(b.id, t)), 2) // a lithium cell holds its voltage almost to its end
	b.w.signal(out, b.id, t, 12*min(much, 1))                          // the car lies over the antenna
}

// lot is a counter at the entrances of a car park: cars come as in its zone,
// find a place or turn round, and leave after a while.
type lot struct {
	w        *World
	id       uint64
	beat     clock
	capacity int
	zone     parkingZone
	rnd      *rand.Rand
	arrives  time.Time
	leaves   []time.Time // of the cars inside, the next to leave first
	in, out  int
}

func newLot(w *World, dev *citywarden.Device, id uint64) source {
	l := &lot{
		w: w, id: id, beat: w.beat(dev, id, time.Minute), capacity: int(number(dev, "capacity", 100)),
		zone: zoneOf(dev), rnd: rand.New(rand.NewPCG(w.seed, id)),
	}
	begin := w.start.In(shanghai)
	l.arrives = l.arrival(time.Date(begin.Year(), begin.Month(), begin.Day()-1, 0, 0, 0, 0, shanghai))
	return l
}

func (l *lot) arrival(t time.Time) time.Time {
	n := float64(l.capacity)
	return thinned(l.rnd, t, n*l.zone.most(), func(t time.Time) float64 { return n * l.zone.rate(t) })
}

func (l *lot) next(t time.Time) time.Time { return l.beat.next(t) }

func (l *lot) read(b *body, t time.Time) {
	for {
		if len(l.leaves) > 0 && !l.leaves[0].After(t) && l.leaves[0].Before(l.arrives) {
			l.leaves = l.leaves[1:]
			l.out++
			continue
		}
		if l.arrives.After(t) {
			break
		}
		if len(l.leaves) < l.capacity {
			l.in++
			end := l.arrives.Add(l.zone.length(l.rnd))
			at, _ := slices.BinarySearchFunc(l.leaves, end, time.Time.Compare)
			l.leaves = slices.Insert(l.leaves, at, end)
		}
		l.arrives = l.arrival(l.arrives)
	}
	b.number("free", float64(l.capacity-len(l.leaves)), 0)
	b.number("entries", float64(l.in), 0)
	b.number("exits", float64(l.out), 0)
}

// newGateway: what collects the devices of a neighbourhood.
func newGateway(w *World, dev *citywarden.Device, id uint64) source {
	behind := 0
	for i := range w.county.Devices {
		if attr(&w.county.Devices[i], "gateway") == string(dev.ID) {
			behind++
		}
	}
	count := "devices"
	if dev.Model == "parking-gateway" {
		count = "bays"
	}
	var g *gauge
	g = newGauge(w, dev, id, w.beat(dev, id, time.Minute), 0, func(b *body, t time.Time) {
		i, dark := g.now(MainsLost, t)
		left := 100.0
		if dark {
			left = math.Max(0, 100-i.age(t)/(8*3600)*100) // the battery lasts eight hours
		}
		b.bool("mains", !dark)
		b.number("battery", left, 0)
		b.number(count, float64(behind), 0)
		b.number("temperature", w.outdoors(t)+12+w.noise(id, "temperature", t), 1)
	}, MainsLost)
	return g
}
