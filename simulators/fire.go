package simulators

import (
	"math"
	"sort"
	"time"

	"github.com/citywarden/citywarden"
)

// A fire grows with the square of time ("fast": 1 MW after 147 s), until the
// sprinkler and the guards put it out.
const (
	fireGrowth = 0.047             // kW/s²
	fireOut    = 130 * time.Second // it stops growing
	fireDecay  = 35.0              // seconds until a third is left
	jetSpeed   = 0.5               // m/s, of smoke along the ceiling
	ceiling    = 3.0               // m
)

// blaze is a fire by its growth in kW/s².
type blaze float64

// heat returns the power of a fire s seconds after it began, in kW.
func (f blaze) heat(s float64) float64 {
	switch end := fireOut.Seconds(); {
	case s <= 0:
		return 0
	case s <= end:
		return float64(f) * s * s
	default:
		return float64(f) * end * end * math.Exp((end-s)/fireDecay)
	}
}

// smokeAt returns the obscuration in dB/m that a fire of age s adds at a
// detector r metres from it.
func (f blaze) smokeAt(s, r float64) float64 {
	m := 0.12 * f.heat(s-r/jetSpeed) / 19 * 1.5 / (1 + r/4) // 0.12 dB/m at 19 kW, two metres away
	return 2.5 * (1 - math.Exp(-m/2.5))
}

// warmthAt returns how many kelvin a fire of age s adds at a detector r metres
// from it (Alpert's ceiling jet).
func (f blaze) warmthAt(s, r float64) float64 {
	r = math.Max(r, 0.6)
	return 5.38 * math.Pow(f.heat(s-r/jetSpeed)/r, 2.0/3) / ceiling
}

// detector is a smoke detector with a call point.
type detector struct {
	w     *World
	dev   *citywarden.Device
	id    uint64
	beat  clock
	drift float64 // dB/m in a month

	others *gauge // what else happens to it
}

// Reporting of a smoke detector: regularly, and often while its zone burns.
const (
	detectorReport = 20 * time.Second
	detectorAlarm  = 3 * time.Second
)

func newDetector(w *World, dev *citywarden.Device, id uint64) source {
	d := &detector{w: w, dev: dev, id: id, beat: w.beat(dev, id, detectorReport), drift: 0.004 + 0.012*w.unit(id, "drift", 0)}
	d.others = newGauge(w, dev, id, d.beat, 10*time.Second, nil, Steam, Press, Test, MainsLost)
	return d
}

func (d *detector) next(t time.Time) time.Time {
	next := d.others.next(t)
	for i := range d.w.all(Fire, t) {
		// Each detector samples at a moment of its own.
		first := i.From.Add(share(detectorAlarm, d.w.unit(d.id, "sample", 0)))
		if first.After(next) {
			break
		}
		switch {
		case i.Place != attr(d.dev, "zone"):
		case t.Before(first):
			next = first
		default:
			k := t.Sub(first)/detectorAlarm + 1
			next = earlier(next, first.Add(k*detectorAlarm))
		}
	}
	return next
}

func (d *detector) read(b *body, t time.Time) {
	const month = 30 * 24 * time.Hour
	// Dust lets the clean-air value rise until the detector compensates for it.
	age := math.Mod(float64(t.Unix())/month.Seconds()+d.w.unit(d.id, "dust", 0), 1)
	smoke := 0.012 + d.drift*age + 0.002*d.w.noise(d.id, "smoke", t)
	warm := d.w.room(d.id, t)
	pressed := false
	for i := range d.w.now(Fire, t) {
		fire, seat := blaze(i.size()), d.w.county.Device(i.Device)
		age, r := i.age(t), away(seat, d.dev)+2
		switch {
		case i.Place == attr(d.dev, "zone"):
			smoke += fire.smokeAt(age, r)
			warm += fire.warmthAt(age, r)
			// Somebody sees it and presses the call point at the far end.
			pressed = pressed || d.dev.ID == farthest(d.w.county.Devices, seat) && age > 80 && t.Before(i.To.Add(-time.Minute))
		case attr(seat, "building") == attr(d.dev, "building"):
			smoke += math.Min(0.012, 0.01*fire.smokeAt(age-30, r)) // a little finds its way to other floors
		}
	}
	if i, ok := d.others.now(Steam, t); ok { // a cloud that comes and goes
		smoke += i.size() * math.Min(1, i.age(t)/20)
	}
	test, tested := d.others.now(Test, t)
	if tested && spray(test, t) {
		smoke += 0.5
	}
	if _, ok := d.others.now(Press, t); ok {
		pressed = true
	}
	_, dark := d.others.now(MainsLost, t)
	b.number("smoke", math.Max(0, smoke), 4)
	b.number("temperature", math.Min(warm, 200), 1) // the end of its range
	b.bool("button", pressed)
	b.bool("test", tested)
	b.bool("mains", !dark)
	d.w.battery(b, d.id, t)
}

// spray reports whether a tester holds his can at the detector at t: for a
// minute, half a minute after the test began.
func spray(test Incident, t time.Time) bool { return test.age(t) >= 30 && test.age(t) < 90 }

// room returns the temperature of a room without a fire.
func (w *World) room(id uint64, t time.Time) float64 {
	h, _ := hour(t)
	return 22 + 3*math.Sin((h-9)/24*2*math.Pi) + 2*w.unit(id, "room", 0) + 0.15*w.noise(id, "temperature", t)
}

// away returns the distance of two devices in metres, 0 when one has no place.
func away(a, b *citywarden.Device) float64 {
	if a.Location == nil || b.Location == nil {
		return 0
	}
	return a.Location.Distance(*b.Location)
}

// farthest returns the detector of the same zone that is farthest from seat.
func farthest(devices []citywarden.Device, seat *citywarden.Device) citywarden.DeviceID {
	best, most := seat.ID, 0.0
	for i := range devices {
		d := &devices[i]
		if d.Model != seat.Model || attr(d, "zone") != attr(seat, "zone") {
			continue
		}
		if r := away(d, seat); r > most {
			best, most = d.ID, r
		}
	}
	return best
}

// newHeatDetector: it feels a fire in its zone.
func newHeatDetector(w *World, dev *citywarden.Device, id uint64) source {
	var g *gauge
	g = newGauge(w, dev, id, w.beat(dev, id, time.Minute), 5*time.Second, func(b *body, t time.Time) {
		warm := w.room(id, t)
		for i := range w.now(Fire, t) {
			if i.Place == attr(dev, "zone") {
				warm += blaze(i.size()).warmthAt(i.age(t), away(w.county.Device(i.Device), dev)+1)
			}
		}
		test, tested := g.now(Test, t)
		if tested && spray(test, t) {
			warm += 45 // a hot air gun
		}
		_, dark := g.now(MainsLost, t)
		b.number("temperature", math.Min(warm, 300), 1) // the end of its range
		b.bool("test", tested)
		b.bool("mains", !dark)
		w.battery(b, id, t)
	}, Fire, Test, MainsLost)
	return g
}

// newCallPoint: somebody presses it a while after a fire began in its zone.
func newCallPoint(w *World, dev *citywarden.Device, id uint64) source {
	var g *gauge
	g = newGauge(w, dev, id, w.beat(dev, id, 5*time.Minute), 5*time.Second, func(b *body, t time.Time) {
		_, pressed := g.now(Press, t)
		if i, ok := g.now(Fire, t); ok && i.age(t) > 80 {
			pressed = true
		}
		test, tested := g.now(Test, t)
		if tested && spray(test, t) {
			pressed = true
		}
		b.bool("button", pressed)
		b.bool("test", tested)
		w.battery(b, id, t)
	}, Fire, Press, Test)
	return g
}

// detected returns when a detector right at the seat of a fire gives alarm, and
// false when it never does.
func (w *World) detected(i Incident) (time.Time, bool) {
	seat, fire := w.county.Device(i.Device), blaze(i.size())
	felt := func(s float64) bool { return fire.smokeAt(s, 2) > number(seat, "smoke_limit", 0.12) }
	if seat.Model == "heat-detector" {
		felt = func(s float64) bool { return 24+fire.warmthAt(s, 1) > number(seat, "heat_limit", 60) }
	}
	if !felt(fireOut.Seconds()) {
		return time.Time{}, false
	}
	s := sort.Search(int(fireOut.Seconds()*10), func(n int) bool { return felt(float64(n) / 10) })
	return i.From.Add(time.Duration(s) * 100 * time.Millisecond), true
}

// panelDelay is how long a panel takes to confirm what a detector says.
const panelDelay = 4 * time.Second

// newPanel: the panel of a building reports what the detectors of the building
// find, and its own faults.
func newPanel(w *World, dev *citywarden.Device, id uint64) source {
	alarm := func(i Incident) (from time.Time, ok bool) {
		if attr(w.county.Device(i.Device), "building") != attr(dev, "building") {
			return from, false
		}
		if i.Kind == Press {
			return i.From.Add(panelDelay), true
		}
		from, ok = w.detected(i)
		return from.Add(panelDelay), ok
	}
	var g *gauge
	g = newGauge(w, dev, id, w.beat(dev, id, time.Minute), 10*time.Second, func(b *body, t time.Time) {
		fire := false
		for _, kind := range [...]string{Fire, Press} {
			for i := range w.now(kind, t) {
				from, ok := alarm(i)
				fire = fire || ok && !t.Before(from)
			}
		}
		test, tested := g.now(Test, t)
		if tested && spray(test, t) {
			fire = true
		}
		_, fault := g.now(Broken, t)
		_, bus := g.now(BusFault, t)
		_, dark := g.now(MainsLost, t)
		b.bool("fire", fire)
		b.bool("fault", fault || bus || dark)
		b.bool("shielded", false)
		b.bool("mains", !dark)
		b.bool("backup", true)
		b.bool("bus_fault", bus)
		b.bool("link", true)
		b.bool("test", tested)
	}, Broken, BusFault, MainsLost, Test)
	g.also = func(t, next time.Time) time.Time {
		for _, kind := range [...]string{Fire, Press} {
			for i := range w.all(kind, t) {
				if i.From.After(next) {
					break
				}
				from, ok := alarm(i)
				switch {
				case !ok:
				case t.Before(from):
					next = earlier(next, from)
				default:
					next = earlier(next, i.To)
				}
			}
		}
		return next
	}
	return g
}

// sprinklerOpens is the temperature at which the glass of a sprinkler bursts.
const sprinklerOpens = 68.0

// newHydrant: the pressure at a hydrant, or at the end of the sprinklers of a
// zone. It falls while water flows, and sinks behind a valve that is shut.
func newHydrant(w *World, dev *citywarden.Device, id uint64) source {
	var g *gauge
	g = newGauge(w, dev, id, w.beat(dev, id, 5*time.Minute), 15*time.Second, func(b *body, t time.Time) {
		h, _ := hour(t)
		kPa := 300 + 40*w.unit(id, "head", 0) - 25*demandOfDay.at(h) + 2*w.noise(id, "pressure", t)
		_, flowing := g.now(Draw, t)
		for i := range w.now(Fire, t) {
			hot := 24+blaze(i.size()).warmthAt(math.Min(i.age(t), fireOut.Seconds()), 2) > sprinklerOpens
			flowing = flowing || hot && i.Place == attr(dev, "zone")
		}
		if flowing {
			kPa -= 130
		}
		if i, ok := g.now(ShutHydrant, t); ok {
			kPa = i.size() + (kPa-i.size())*math.Exp(-i.age(t)/60)
		}
		_, hit := g.now(Hit, t)
		b.number("pressure", kPa, 1)
		b.bool("flowing", flowing)
		b.bool("tilted", hit)
		w.battery(b, id, t)
		w.signal(b, id, t, 0)
	}, Fire, Draw, ShutHydrant, Hit)
	return g
}
