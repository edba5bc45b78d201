package simulators

import (
	"math"
	"time"

	"github.com/citywarden/citywarden"
)

// curve is a value by hour of the day, linear between the hours and around midnight.
type curve [24]float64

func (c *curve) at(h float64) float64 {
	i := int(h)
	f := h - float64(i)
	return c[i%24]*(1-f) + c[(i+1)%24]*f
}

// until returns the integral from midnight to hour h.
func (c *curve) until(h float64) float64 {
	sum, i := 0.0, int(h)
	for k := range i {
		sum += (c[k] + c[(k+1)%24]) / 2
	}
	f := h - float64(i)
	return sum + f*(c[i%24]+c.at(h))/2
}

// use says how much of its load a building draws over the day, 0 to 1. Both
// curves agree at midnight, so that there is no jump between days.
type use struct{ work, rest curve }

var (
	flat = curve{}
	uses = map[string]use{
		"office": {
			work: curve{7: 0.2, 8: 0.85, 9: 1, 10: 1, 11: 0.95, 12: 0.5, 13: 0.6, 14: 0.95, 15: 1, 16: 0.95, 17: 0.75, 18: 0.3, 19: 0.12, 20: 0.06},
			rest: curve{9: 0.05, 10: 0.08, 15: 0.08, 16: 0.05},
		},
		"mall": {
			work: curve{8: 0.15, 9: 0.45, 10: 0.8, 11: 0.9, 12: 0.95, 13: 0.88, 14: 0.85, 15: 0.85, 16: 0.88, 17: 0.95, 18: 1, 19: 1, 20: 0.97, 21: 0.85, 22: 0.3},
			rest: curve{8: 0.2, 9: 0.55, 10: 0.9, 11: 1, 12: 1, 13: 0.98, 14: 0.97, 15: 0.97, 16: 1, 17: 1, 18: 1, 19: 1, 20: 1, 21: 0.9, 22: 0.3},
		},
		"school": {work: curve{6: 0.1, 7: 0.6, 8: 1, 9: 1, 10: 1, 11: 0.95, 12: 0.5, 13: 0.55, 14: 1, 15: 1, 16: 0.8, 17: 0.3, 18: 0.1}},
		"homes": {
			work: curve{0.2, 0.14, 0.1, 0.1, 0.12, 0.25, 0.6, 0.7, 0.45, 0.35, 0.35, 0.5, 0.6, 0.4, 0.3, 0.3, 0.35, 0.55, 0.85, 1, 1, 0.9, 0.65, 0.4},
			rest: curve{0.2, 0.15, 0.1, 0.1, 0.1, 0.15, 0.3, 0.5, 0.65, 0.7, 0.65, 0.75, 0.8, 0.6, 0.5, 0.5, 0.55, 0.7, 0.9, 1, 1, 0.9, 0.7, 0.45},
		},
		"shut": {flat, flat},
	}
)

// load is what a meter's building draws: base at all hours, span on top of it
// as the building is used. Electricity in kW, water in m³/h.
type load struct{ base, span float64 }

var loads = map[citywarden.DeviceID]load{
	"em-gov-00": {16, 92}, "em-gov-01": {2.6, 24}, "em-gov-02": {1.9, 21}, "em-gov-03": {1.9, 20}, "em-gov-04": {8.4, 6},
	"em-mall-00": {38, 310}, "em-mall-01": {7.5, 82}, "em-mall-02": {6.2, 66}, "em-mall-03": {6.2, 61}, "em-mall-04": {8.8, 74},
	"em-theatre-01": {0.12, 0}, "em-theatre-02": {0.18, 0}, "em-school-00": {3.8, 42}, "em-homes-00": {11, 19},
	"wm-gov-00": {0.02, 2.4}, "wm-gov-01": {0, 1.1}, "wm-mall-00": {0.08, 9.5}, "wm-mall-01": {0.02, 5.2}, "wm-school-00": {0.03, 4.6},
	"wm-theatre-00": {0, 0}, "wm-homes-01": {0.05, 3.1}, "wm-homes-02": {0.04, 2.8}, "wm-homes-03": {0.06, 3.3}, "wm-homes-04": {0.05, 2.7},
}

// quietLoad is what somebody draws who should not be in a shut building, kW.
const quietLoad = 6.4

// registersBegan is when the meters were installed; a Monday.
var registersBegan = time.Date(2022, 1, 3, 0, 0, 0, 0, shanghai)

// meter is an energy or water meter.
type meter struct {
	w     *World
	dev   *citywarden.Device
	id    uint64
	beat  clock
	use   use
	load  load
	water bool
}

// Reporting of the meters.
const (
	energyReport = 10 * time.Second
	waterReport  = 30 * time.Second
)

func newMeter(w *World, dev *citywarden.Device, id uint64) *meter {
	m := &meter{w: w, dev: dev, id: id, load: loads[dev.ID], water: dev.Model == "water-meter"}
	if b := w.county.Building(attr(dev, "building")); b != nil {
		m.use = uses[b.Use]
	}
	m.beat = w.clock(id, energyReport)
	if m.water {
		m.beat = w.clock(id, waterReport)
	}
	return m
}

func (m *meter) next(t time.Time) time.Time { return m.beat.next(t) }

// mean returns the load at t without noise and incidents.
func (m *meter) mean(t time.Time) float64 {
	h, work := hour(t)
	c := &m.use.rest
	if work {
		c = &m.use.work
	}
	return m.load.base + m.load.span*c.at(h)
}

// register returns what the meter has counted up to t: the integral of mean,
// in closed form, so that it does not matter when a simulator was started.
func (m *meter) register(t time.Time) float64 {
	hours := t.Sub(registersBegan).Hours()
	days := int(hours / 24)
	h := hours - float64(days)*24
	weeks := float64(days / 7)
	used := weeks * (5*m.use.work.until(24) + 2*m.use.rest.until(24))
	for d := range days % 7 {
		used += m.day(d).until(24)
	}
	used += m.day(days % 7).until(h)
	return 100*m.w.unit(m.id, "register", 0) + m.load.base*hours + m.load.span*used
}

// day returns the curve of day d of the week, Monday is 0.
func (m *meter) day(d int) *curve {
	if d < 5 {
		return &m.use.work
	}
	return &m.use.rest
}

// extra returns the load of incidents at t in kW, and what they added to the
// register up to t in kWh. A world that begins later begins with at least what
// any earlier one can have counted, so that the register never goes back.
func (m *meter) extra(t time.Time) (kW, kWh float64) {
	if attr(m.dev, "quiet") == "" {
		return 0, 0
	}
	kWh = quietLoad * math.Max(0, m.w.start.Sub(registersBegan).Hours())
	for r := int64(0); ; r++ {
		i, _ := m.w.incident(QuietLoad, r)
		if t.Before(i.From) {
			return kW, kWh
		}
		if i.Device != m.dev.ID {
			continue
		}
		kWh += quietLoad * earlier(t, i.To).Sub(i.From).Hours()
		if i.during(t) {
			kW = quietLoad
		}
	}
}

func (m *meter) read(b *body, t time.Time) {
	now := m.mean(t) * (1 + 0.02*m.w.noise(m.id, "load", t))
	if m.water {
		b.number("volume", m.register(t), 3)
		b.number("flow", math.Max(0, now), 3)
		m.w.battery(b, m.id, t)
		return
	}
	kW, kWh := m.extra(t)
	if kW > 0 {
		kW *= 1 + 0.02*m.w.noise(m.id, "extra", t)
	}
	b.number("power", math.Max(0, now+kW), 3)
	b.number("energy", m.register(t)+kWh, 2)
	b.number("voltage", 231+1.2*m.w.noise(m.id, "voltage", t), 1)
	b.bool("mains", true)
}
