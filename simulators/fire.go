package simulators

import (
	"math"
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

// heat returns the power of a fire s seconds after it began, in kW.
func heat(s float64) float64 {
	switch end := fireOut.Seconds(); {
	case s <= 0:
		return 0
	case s <= end:
		return fireGrowth * s * s
	default:
		return fireGrowth * end * end * math.Exp((end-s)/fireDecay)
	}
}

// smokeAt returns the obscuration in dB/m that a fire of age s adds at a
// detector r metres from it.
func smokeAt(s, r float64) float64 {
	m := 0.12 * heat(s-r/jetSpeed) / 19 * 1.5 / (1 + r/4) // 0.12 dB/m at 19 kW, two metres away
	return 2.5 * (1 - math.Exp(-m/2.5))
}

// warmthAt returns how many kelvin a fire of age s adds at a detector r metres
// from it (Alpert's ceiling jet).
func warmthAt(s, r float64) float64 {
	r = math.Max(r, 0.6)
	return 5.38 * math.Pow(heat(s-r/jetSpeed)/r, 2.0/3) / ceiling
}

// detector is a smoke detector with a call point.
type detector struct {
	w     *World
	dev   *citywarden.Device
	id    uint64
	beat  clock
	drift float64 // dB/m in a month
}

// Reporting of a smoke detector: regularly, and often while its zone burns.
const (
	detectorReport = 20 * time.Second
	detectorAlarm  = 3 * time.Second
)

func newDetector(w *World, dev *citywarden.Device, id uint64) *detector {
	return &detector{w: w, dev: dev, id: id, beat: w.clock(id, detectorReport), drift: 0.004 + 0.012*w.unit(id, "drift", 0)}
}

func (d *detector) next(t time.Time) time.Time {
	next := d.beat.next(t)
	i, _ := d.w.upcoming(Fire, t)
	if i.Place != attr(d.dev, "zone") {
		return next
	}
	// Each detector samples at a moment of its own.
	first := i.From.Add(share(detectorAlarm, d.w.unit(d.id, "sample", 0)))
	if t.Before(first) {
		return earlier(next, first)
	}
	k := t.Sub(first)/detectorAlarm + 1
	return earlier(next, first.Add(k*detectorAlarm))
}

func (d *detector) read(b *body, t time.Time) {
	const month = 30 * 24 * time.Hour
	// Dust lets the clean-air value rise until the detector compensates for it.
	age := math.Mod(float64(t.Unix())/month.Seconds()+d.w.unit(d.id, "dust", 0), 1)
	smoke := 0.012 + d.drift*age + 0.002*d.w.noise(d.id, "smoke", t)
	h, _ := hour(t)
	warm := 22 + 3*math.Sin((h-9)/24*2*math.Pi) + 2*d.w.unit(d.id, "room", 0) + 0.15*d.w.noise(d.id, "temperature", t)
	pressed := false

	if i, _ := d.w.upcoming(Fire, t); i.during(t) {
		seat := d.w.county.Device(i.Device)
		age := t.Sub(i.From).Seconds()
		switch r := seat.Location.Distance(*d.dev.Location) + 2; {
		case i.Place == attr(d.dev, "zone"):
			smoke += smokeAt(age, r)
			warm += warmthAt(age, r)
			// Somebody sees it and presses the call point at the far end.
			pressed = d.dev.ID == farthest(d.w.county.Devices, seat) && age > 80 && t.Before(i.To.Add(-time.Minute))
		case attr(seat, "building") == attr(d.dev, "building"):
			smoke += math.Min(0.012, 0.01*smokeAt(age-30, r)) // a little finds its way to other floors
		}
	}
	b.number("smoke", math.Max(0, smoke), 4)
	b.number("temperature", warm, 1)
	b.bool("button", pressed)
	b.bool("mains", true)
	d.w.battery(b, d.id, t)
}

// farthest returns the detector of the same zone that is farthest from seat.
func farthest(devices []citywarden.Device, seat *citywarden.Device) citywarden.DeviceID {
	best, most := seat.ID, 0.0
	for i := range devices {
		d := &devices[i]
		if d.Model != seat.Model || attr(d, "zone") != attr(seat, "zone") {
			continue
		}
		if r := d.Location.Distance(*seat.Location); r > most {
			best, most = d.ID, r
		}
	}
	return best
}
