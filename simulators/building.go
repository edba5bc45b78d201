package simulators

import (
	"math"
	"time"

	"github.com/citywarden/citywarden"
)

// outdoors returns the temperature of the air at t: the climate of Fujian's
// coast by season and time of day, and weather that lasts for days.
func (w *World) outdoors(t time.Time) float64 {
	h, _ := hour(t)
	l := t.In(shanghai)
	season := 21.3 - 7.5*math.Cos(2*math.Pi*(float64(l.YearDay())-20)/365)
	day := 3.5 * math.Cos(2*math.Pi*(h-14.5)/24)
	n := l.Unix() + 8*3600
	d, f := n/86400, float64(n%86400)/86400
	weather := func(d int64) float64 { return 6 * (w.unit(0, "weather", d) - 0.5) }
	return season + day + weather(d)*(1-f) + weather(d+1)*f
}

// newClimate: temperature and humidity of a room that an air conditioner keeps.
func newClimate(w *World, dev *citywarden.Device, id uint64) source {
	var g *gauge
	g = newGauge(w, dev, id, w.beat(dev, id, 5*time.Minute), time.Minute, func(b *body, t time.Time) {
		out := w.outdoors(t)
		warm := 23 + 0.1*(out-21) + 1.5*w.unit(id, "room", 0) + 0.1*w.noise(id, "temperature", t)
		damp := 55 + 8*(w.unit(id, "damp", 0)-0.5) - 0.8*(warm-23) + 0.6*w.noise(id, "humidity", t)
		if i, ok := g.now(HotRoom, t); ok {
			warm += i.size() * (1 - math.Exp(-i.age(t)/900))
			damp += 10 * (1 - math.Exp(-i.age(t)/900))
		}
		b.number("temperature", warm, 1)
		b.number("humidity", math.Min(100, damp), 1)
		w.battery(b, id, t)
	}, HotRoom)
	return g
}

// newLift: a lift goes between the floors as its building is used.
func newLift(w *World, dev *citywarden.Device, id uint64) source {
	floors, use := 6, uses["office"]
	if b := w.county.Building(attr(dev, "building")); b != nil {
		floors, use = max(b.Floors, 2), uses[b.Use]
	}
	var g *gauge
	g = newGauge(w, dev, id, w.beat(dev, id, time.Minute), 20*time.Second, func(b *body, t time.Time) {
		trapped, stuck := g.now(Trapped, t)
		fault, broken := g.now(Broken, t)
		_, dark := g.now(MainsLost, t)
		at := t
		switch { // it stands where it stopped
		case stuck:
			at = trapped.From
		case broken:
			at = fault.From
		}
		h, work := hour(at)
		c := &use.rest
		if work {
			c = &use.work
		}
		floor := 1.0
		if k := at.Unix() / 30; w.unit(id, "ride", k) < c.at(h) {
			floor += math.Floor(float64(floors) * w.unit(id, "floor", k))
		}
		b.bool("trapped", stuck)
		b.bool("fault", stuck || broken)
		b.bool("service", false)
		b.bool("mains", !dark)
		b.number("floor", floor, 0)
	}, Trapped, Broken, MainsLost)
	return g
}
