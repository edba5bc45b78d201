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
// as the building is used. Electricity and heat in kW, water in m³/h.
// Each kelvin above 26 °C, or for heat below 16 °C, draws more while the
// building is used.
type load struct{ base, span, cool, heat float64 }

var loads = map[citywarden.DeviceID]load{
	"em-gov-00": {base: 16, span: 92, cool: 6}, "em-gov-01": {base: 2.6, span: 24}, "em-gov-02": {base: 1.9, span: 21}, "em-gov-03": {base: 1.9, span: 20}, "em-gov-04": {base: 8.4, span: 6},
	"em-mall-00": {base: 38, span: 310, cool: 18}, "em-mall-01": {base: 7.5, span: 82}, "em-mall-02": {base: 6.2, span: 66}, "em-mall-03": {base: 6.2, span: 61}, "em-mall-04": {base: 8.8, span: 74},
	"em-theatre-01": {base: 0.12, span: 0}, "em-theatre-02": {base: 0.18, span: 0}, "em-school-00": {base: 3.8, span: 42}, "em-homes-00": {base: 11, span: 19},
	"wm-gov-00": {base: 0.02, span: 2.4}, "wm-gov-01": {base: 0, span: 1.1}, "wm-mall-00": {base: 0.08, span: 9.5}, "wm-mall-01": {base: 0.02, span: 5.2}, "wm-school-00": {base: 0.03, span: 4.6},
	"wm-theatre-00": {base: 0, span: 0}, "wm-homes-01": {base: 0.05, span: 3.1}, "wm-homes-02": {base: 0.04, span: 2.8}, "wm-homes-03": {base: 0.06, span: 3.3}, "wm-homes-04": {base: 0.05, span: 2.7},
}

// usualLoads are the loads of meters that loads does not name, by the use of
// their building. What heat has besides the weather is hot water.
var usualLoads = map[string]struct{ power, heat, water load }{
	"office": {load{base: 6, span: 54, cool: 3}, load{base: 1, span: 1, heat: 7}, load{base: 0.02, span: 1.6}},
	"mall":   {load{base: 24, span: 210, cool: 11}, load{base: 2, span: 4, heat: 12}, load{base: 0.06, span: 7}},
	"school": {load{base: 4, span: 38, cool: 2}, load{base: 1, span: 1, heat: 9}, load{base: 0.03, span: 4}},
	"homes":  {load{base: 11, span: 19, cool: 4}, load{base: 3, span: 6, heat: 11}, load{base: 0.04, span: 3}},
	"shut":   {load{base: 0.15}, load{}, load{}},
}

// quietLoad is what somebody draws who should not be in a shut building, kW.
const quietLoad = 6.4

// registersBegan is when the meters were installed; a Monday.
var registersBegan = time.Date(2022, 1, 3, 0, 0, 0, 0, shanghai)

// meter is an energy, heat or water meter.
type meter struct {
	w       *World
	dev     *citywarden.Device
	id      uint64
	changes *gauge
	use     use
	load    load
	wraps   float64 // its register goes on at 0 there

	hours   int64   // since registersBegan, up to which thermal is known
	thermal float64 // what the weather added to the register up to then
	drawn   float64 // what the weather draws then

	installed time.Time // when it was replaced, zero for never
	before    float64   // what had been counted then
}

// Reporting of the meters.
const (
	energyReport = 10 * time.Second
	slowReport   = 30 * time.Second // of those that run on a battery
)

// The water of a heating: the valve keeps spread kelvin between supply and
// return; each kelvin of a cubic metre carries waterHeat kWh.
const (
	spread    = 20.0
	waterHeat = 1.163
)

func newMeter(w *World, dev *citywarden.Device, id uint64) *meter {
	m := &meter{w: w, dev: dev, id: id}
	kind := "office"
	if b := w.county.Building(attr(dev, "building")); b != nil {
		kind = b.Use
	}
	m.use = uses[kind]
	report := slowReport
	m.wraps = 1e6 // XXXXXX.XX kWh of DL/T 645, kWh or m³ of CJ/T 188
	switch dev.Model {
	case "water-meter":
		m.load = usualLoads[kind].water
	case "heat-meter":
		m.load = usualLoads[kind].heat
	default:
		report, m.load = energyReport, usualLoads[kind].power
	}
	if l, ok := loads[dev.ID]; ok {
		m.load = l
	}
	if dev.Model == "energy-meter" && m.load.base+m.load.span > 25 {
		m.wraps = 1e8 // it has a current transformer
	}
	m.changes = newGauge(w, dev, id, w.beat(dev, id, report), 0, nil, QuietLoad, RunningTap, Replaced, MainsLost)
	return m
}

func (m *meter) next(t time.Time) time.Time {
	if m.w.script == nil { // in a county that lives by itself it notices nothing
		return m.changes.beat.next(t)
	}
	return m.changes.next(t)
}

// share returns how much of it the building is used at t, 0 to 1.
func (m *meter) share(t time.Time) float64 {
	h, work := hour(t)
	if work {
		return m.use.work.at(h)
	}
	return m.use.rest.at(h)
}

// mean returns the load at t without noise and incidents.
func (m *meter) mean(t time.Time) float64 {
	sum := m.load.base + m.load.span*m.share(t)
	if m.load.cool+m.load.heat > 0 {
		hours := t.Sub(registersBegan).Hours()
		k := int64(math.Floor(hours))
		a, b := m.weather(k), m.weather(k+1)
		sum += a + (b-a)*(hours-float64(k))
	}
	return sum
}

// weather returns what cooling and heating draw k hours after registersBegan.
func (m *meter) weather(k int64) float64 {
	t := registersBegan.Add(time.Duration(k) * time.Hour)
	share := m.share(t)
	if share == 0 { // years of such nights are summed up
		return 0
	}
	out := m.w.outdoors(t)
	return share * (m.load.cool*math.Max(0, out-26) + m.load.heat*math.Max(0, 16-out))
}

// register returns what the meter has counted up to t: the integral of mean, so
// that it does not matter when a simulator was started.
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
	sum := 100*m.w.unit(m.id, "register", 0) + m.load.base*hours + m.load.span*used
	if m.load.cool+m.load.heat == 0 {
		return sum
	}
	k := int64(math.Floor(hours))
	if k < m.hours || m.hours == 0 {
		m.hours, m.thermal, m.drawn = 0, 0, m.weather(0)
	}
	for ; m.hours < k; m.hours++ {
		next := m.weather(m.hours + 1)
		m.thermal += (m.drawn + next) / 2
		m.drawn = next
	}
	f, a, b := hours-float64(k), m.drawn, m.weather(k+1)
	return sum + m.thermal + f*(a+(b-a)*f/2)
}

// day returns the curve of day d of the week, Monday is 0.
func (m *meter) day(d int) *curve {
	if d < 5 {
		return &m.use.work
	}
	return &m.use.rest
}

// extra returns the load of incidents at t in kW or m³/h, and what they added to
// the register up to t. A world that lives by itself and begins later begins
// with at least what any earlier one can have counted, so that the register
// never goes back.
func (m *meter) extra(t time.Time) (rate, sum float64) {
	kind := QuietLoad
	if m.dev.Model == "water-meter" {
		kind = RunningTap
	}
	if m.w.script == nil {
		if attr(m.dev, "quiet") == "" {
			return 0, 0
		}
		sum = quietLoad * math.Max(0, m.w.start.Sub(registersBegan).Hours())
	}
	for i := range m.w.all(kind, m.w.start) {
		if t.Before(i.From) {
			return rate, sum
		}
		if i.Device != m.dev.ID {
			continue
		}
		sum += i.size() * earlier(t, i.To).Sub(i.From).Hours()
		if i.during(t) {
			rate = i.size()
		}
	}
	return rate, sum
}

// shown returns what the register shows at t when sum was counted since it was
// installed first: it wraps, and that of a meter that was replaced began at 0.
// t goes forward.
func (m *meter) shown(t time.Time, total func(time.Time) float64) float64 {
	for _, i := range m.w.script[Replaced] {
		if i.Device == m.dev.ID && !t.Before(i.From) && i.From.After(m.installed) {
			m.installed, m.before = i.From, total(i.From)
		}
	}
	return math.Mod(total(t)-m.before, m.wraps)
}

func (m *meter) read(b *body, t time.Time) {
	now := m.mean(t) * (1 + 0.02*m.w.noise(m.id, "load", t))
	more, _ := m.extra(t)
	if more > 0 {
		more *= 1 + 0.02*m.w.noise(m.id, "extra", t)
	}
	total := m.shown(t, func(t time.Time) float64 {
		_, sum := m.extra(t)
		return m.register(t) + sum
	})
	switch m.dev.Model {
	case "water-meter":
		b.number("volume", total, 3)
		b.number("flow", math.Max(0, now+more), 3)
		m.w.battery(b, m.id, t)
		return
	case "heat-meter":
		// The colder it is, the warmer the supply.
		supply := math.Min(75, math.Max(45, 75-1.5*m.w.outdoors(t))) + 0.2*m.w.noise(m.id, "supply", t)
		between := spread + 0.2*m.w.noise(m.id, "return", t)
		b.number("energy", total, 2)
		b.number("power", math.Max(0, now), 3)
		b.number("volume", math.Mod(total/(waterHeat*spread), m.wraps), 3)
		b.number("flow", math.Max(0, now)/(waterHeat*between), 3)
		b.number("supply", supply, 1)
		b.number("return", supply-between, 1)
		m.w.battery(b, m.id, t)
		return
	}
	_, dark := m.changes.now(MainsLost, t)
	volts := 231 + 1.2*m.w.noise(m.id, "voltage", t)
	if dark { // its own battery reports
		now, more, volts = 0, 0, 0
	}
	b.number("power", math.Max(0, now+more), 3)
	b.number("energy", total, 2)
	b.number("voltage", volts, 1)
	b.bool("mains", !dark)
}
