package simulators

import (
	"bytes"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/simulators/county"
	hydraulic "github.com/citywarden/citywarden/simulators/network"
)

// dev is a device of a script, x metres east of the county's corner.
func dev(id string, model citywarden.ModelName, x float64, attrs map[string]any) citywarden.Device {
	p := county.PointAt(x, 0)
	return citywarden.Device{ID: citywarden.DeviceID(id), Model: model, Location: &p, Attributes: attrs}
}

// happens is an incident at a device from minutes after start on.
func happens(kind, id string, start time.Time, from, to, size float64) Incident {
	at := func(m float64) time.Time { return start.Add(time.Duration(m * float64(time.Minute))) }
	return Incident{Kind: kind, Device: citywarden.DeviceID(id), From: at(from), To: at(to), Size: size}
}

func scripted(t *testing.T, s Script) *World {
	t.Helper()
	w, err := NewScript(s)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// town returns a county that has the devices and nothing else.
func town(devices ...citywarden.Device) *county.County { return &county.County{Devices: devices} }

func most(rs []report, name string) (v float64) {
	v = math.Inf(-1)
	for _, r := range rs {
		v = max(v, r.number[name])
	}
	return v
}

// firstTrue returns when flag name was true first, zero for never.
func firstTrue(rs []report, name string) time.Time {
	for _, r := range rs {
		if r.flag[name] {
			return r.at
		}
	}
	return time.Time{}
}

func between(rs []report, from, to time.Time) []report {
	var out []report
	for _, r := range rs {
		if !r.at.Before(from) && r.at.Before(to) {
			out = append(out, r)
		}
	}
	return out
}

// TestFireInABuilding: the detector, the heat detector, the call point, the
// panel and the sprinklers of a zone see a fire in that order; a fire that grows
// slowly is seen later, by fewer of them.
func TestFireInABuilding(t *testing.T) {
	zone := map[string]any{"zone": "lobby", "building": "gov"}
	c := town(dev("s1", "smoke-detector", 0, zone), dev("h1", "heat-detector", 2, zone), dev("c1", "call-point", 9, zone),
		dev("p1", "fire-panel", 0, map[string]any{"building": "gov"}), dev("y1", "hydrant", 0, zone),
		dev("s2", "smoke-detector", 40, map[string]any{"zone": "attic", "building": "homes"}))
	var last time.Duration
	for _, growth := range []float64{0.19, 0.047, 0.012} {
		w := scripted(t, Script{County: c, Start: monday, Incidents: []Incident{happens(Fire, "s1", monday, 10, 20, growth)}})
		begin, end := monday.Add(10*time.Minute), monday.Add(40*time.Minute)
		smoke := func(id citywarden.DeviceID) time.Duration {
			for _, r := range reports(t, w, id, end) {
				if r.number["smoke"] > 0.12 {
					return r.at.Sub(begin)
				}
			}
			return 0
		}
		seen := smoke("s1")
		if seen <= last {
			t.Errorf("a fire of %g kW/s² is seen after %s, a quicker one after %s", growth, seen, last)
		}
		last = seen
		panel := firstTrue(reports(t, w, "p1", end), "fire").Sub(begin)
		if panel < seen || panel > seen+15*time.Second {
			t.Errorf("growth %g: the detector sees it after %s, the panel after %s", growth, seen, panel)
		}
		if call := firstTrue(reports(t, w, "c1", end), "button").Sub(begin); call < 80*time.Second || call > 90*time.Second {
			t.Errorf("somebody presses the call point after %s", call)
		}
		if s := smoke("s2"); s != 0 {
			t.Errorf("another building sees smoke after %s", s)
		}
		water := reports(t, w, "y1", end)
		opens := firstTrue(water, "flowing")
		if hot := growth > 0.02; hot == opens.IsZero() {
			t.Errorf("growth %g: the sprinklers open at %s", growth, opens)
		} else if hot {
			calm, flows := between(water, monday, begin), between(water, opens, opens.Add(time.Minute))
			if d := most(calm, "pressure") - most(flows, "pressure"); d < 80 {
				t.Errorf("open sprinklers lower the pressure by %.0f kPa", d)
			}
		}
		heat := reports(t, w, "h1", end)
		if m := most(heat, "temperature"); growth == 0.19 && m < 80 || growth == 0.012 && m > 75 {
			t.Errorf("growth %g: it gets %.0f °C warm", growth, m)
		}
		if r := heat[len(heat)-1]; r.number["temperature"] > 30 {
			t.Errorf("%.1f °C after the fire", r.number["temperature"])
		}
	}
}

// TestWhatTestersDo: a test shows smoke, gas and fire, and says that it is one.
func TestWhatTestersDo(t *testing.T) {
	c := town(dev("s", "smoke-detector", 0, map[string]any{"zone": "a"}), dev("h", "heat-detector", 0, nil), dev("c", "call-point", 0, nil),
		dev("p", "fire-panel", 0, map[string]any{"building": "gov"}), dev("g", "gas-detector", 0, nil))
	var tests []Incident
	for _, d := range c.Devices {
		tests = append(tests, happens(Test, string(d.ID), monday, 10, 15, 0))
	}
	w := scripted(t, Script{County: c, Start: monday, Incidents: tests})
	shows := map[citywarden.DeviceID]func(report) bool{
		"s": func(r report) bool { return r.number["smoke"] > 0.3 }, "h": func(r report) bool { return r.number["temperature"] > 60 },
		"c": func(r report) bool { return r.flag["button"] }, "p": func(r report) bool { return r.flag["fire"] }, "g": func(r report) bool { return r.number["gas"] > 50 },
	}
	for id, shows := range shows {
		n := 0
		for _, r := range reports(t, w, id, monday.Add(time.Hour)) {
			if in := !r.at.Before(tests[0].From) && r.at.Before(tests[0].To); r.flag["test"] != in {
				t.Errorf("%s at %s: test is %t", id, r.at, r.flag["test"])
			}
			if shows(r) {
				n++
				if !r.flag["test"] {
					t.Errorf("%s at %s: %+v, and it does not say that it is a test", id, r.at, r)
				}
			}
		}
		if n == 0 {
			t.Errorf("%s: the test shows nothing", id)
		}
	}
}

// TestSensorsErr: a sensor misses one car in a hundred and takes a lorry for a
// car now and then; one in a fire lane does neither.
func TestSensorsErr(t *testing.T) {
	w := NewWorld(county.Demo(), 3, monday)
	cars, missed, ghosts, days := 0, 0, 0, 0.0
	for _, d := range w.county.Devices {
		if d.Model != "parking-bay" {
			continue
		}
		truth, b := newBay(w, &d, hash(string(d.ID))), newBay(w, &d, hash(string(d.ID)))
		days += 5
		for s := truth.cur; s.from.Before(monday.AddDate(0, 0, 5)); s = truth.arrival() {
			cars++
			if !b.seen(s) {
				missed++
				if attr(&d, "kind") == "fire_lane" {
					t.Errorf("%s misses a car", d.ID)
				}
			}
		}
		if b.exact {
			continue
		}
		for p := b.pass; p.from.Before(monday.AddDate(0, 0, 5)); p = b.passing(p.to) {
			ghosts++
			if l := p.to.Sub(p.from); l < 5*time.Second || l > 21*time.Second {
				t.Errorf("%s takes a lorry for a car for %s", d.ID, l)
			}
		}
	}
	if r := float64(missed) / float64(cars); r < 0.004 || r > 0.02 {
		t.Errorf("%d of %d cars are missed", missed, cars)
	}
	if r := float64(ghosts) / days; r < 0.2 || r > 0.8 {
		t.Errorf("%.2f lorries a day and sensor", r)
	}
}

// TestCarPark: a day in a car park of a mall and one of offices.
func TestCarPark(t *testing.T) {
	for zone, z := range parkingZones {
		c := town(dev("l", "parking-lot", 0, map[string]any{"capacity": 120.0, "zone": zone}))
		w := scripted(t, Script{County: c, Start: monday})
		rs := reports(t, w, "l", monday.AddDate(0, 0, 1))
		var taken [24]float64
		for i, r := range rs {
			free, in, out := r.number["free"], r.number["entries"], r.number["exits"]
			if free < 0 || free > 120 || 120-free != in-out {
				t.Fatalf("%s: %v free after %v came and %v left", zone, free, in, out)
			}
			if i > 0 && (in < rs[i-1].number["entries"] || out < rs[i-1].number["exits"]) {
				t.Fatalf("%s: a counter goes back at %s", zone, r.at)
			}
			h := r.at.In(shanghai).Hour()
			taken[h] = max(taken[h], 120-free)
		}
		first, second := slices.Max(taken[int(z.peaks[0].hour):int(z.peaks[0].hour)+3]), slices.Max(taken[int(z.peaks[1].hour):int(z.peaks[1].hour)+3])
		if night := taken[3]; first < 60 || second < 60 || night > 25 {
			t.Errorf("%s: %.0f and %.0f of 120 at the peaks, %.0f at night", zone, first, second, night)
		}
	}
}

func TestOverstayAndMagnet(t *testing.T) {
	c := town(dev("b", "parking-bay", 0, map[string]any{"kind": "bay", "zone": "zhongshan"}))
	w := scripted(t, Script{County: c, Start: monday.Add(8 * time.Hour), Incidents: []Incident{
		happens(Overstay, "b", monday, 9*60, 14*60, 0), happens(Magnet, "b", monday, 28*60, 28*60+5, 0),
	}})
	rs := reports(t, w, "b", monday.AddDate(0, 0, 2))
	for _, r := range between(rs, monday.Add(9*time.Hour), monday.Add(14*time.Hour)) {
		if !r.flag["occupied"] {
			t.Fatalf("the bay is free at %s", r.at)
		}
	}
	strong := 0
	for _, r := range between(rs, monday.Add(28*time.Hour), monday.Add(28*time.Hour+5*time.Minute)) {
		if r.number["magnetic_x"] > 100 {
			strong++
		}
	}
	if strong == 0 {
		t.Error("the magnet shows nothing")
	}
}

// TestRain: levels rise after the rain and fall again; more rain, more water;
// only what the gullies do not take stands on the street.
func TestRain(t *testing.T) {
	c := town(dev("d", "drain-level", 0, map[string]any{"pipe_height": 0.8}), dev("f", "road-flood", 0, nil))
	var lastLevel, lastDepth float64
	for _, rain := range []float64{5, 20, 50, 90} {
		w := scripted(t, Script{County: c, Start: monday, Incidents: []Incident{{Kind: Rain, From: monday.Add(time.Hour), To: monday.Add(3 * time.Hour), Size: rain}}})
		end := monday.Add(9 * time.Hour)
		levels, depths := reports(t, w, "d", end), reports(t, w, "f", end)
		level, depth := most(levels, "level"), most(depths, "depth")
		if level <= lastLevel || depth < lastDepth-0.5 {
			t.Errorf("%g mm/h: %.2f m and %.1f cm; with less rain %.2f m and %.1f cm", rain, level, depth, lastLevel, lastDepth)
		}
		lastLevel, lastDepth = level, depth
		// The peak of the water comes after that of the rain.
		for _, r := range levels {
			if r.number["level"] == level && (r.at.Before(monday.Add(108*time.Minute)) || r.at.After(monday.Add(3*time.Hour))) {
				t.Errorf("%g mm/h: the level is highest at %s", rain, r.at)
			}
		}
		if last := levels[len(levels)-1].number["level"]; last > 0.3 || depths[len(depths)-1].number["depth"] > 1 {
			t.Errorf("%g mm/h: six hours after the rain the level is %.2f m", rain, last)
		}
		if (depth > 3) != (rain >= 50) {
			t.Errorf("%g mm/h: %.1f cm stand on the street", rain, depth)
		}
	}
	w := scripted(t, Script{County: c, Start: monday, Incidents: []Incident{happens(Blockage, "d", monday, 600, 700, 0)}})
	for _, r := range reports(t, w, "d", monday.Add(12*time.Hour)) {
		if blocked := !r.at.Before(monday.Add(625*time.Minute)) && r.at.Before(monday.Add(700*time.Minute)); (r.number["level"] > 0.7*0.8) != blocked && r.at.Before(monday.Add(600*time.Minute)) {
			t.Errorf("at %s the level is %.2f m", r.at, r.number["level"])
		}
	}
}

func TestGasAndCovers(t *testing.T) {
	c := town(dev("g", "gas-detector", 0, nil), dev("s", "gas-detector", 0, map[string]any{"medium": "sewer"}), dev("m", "manhole-cover", 0, nil))
	w := scripted(t, Script{County: c, Start: monday, Incidents: []Incident{happens(Gas, "g", monday, 60, 120, 0), happens(OpenCover, "m", monday, 60, 120, 0)}})
	last := 0.0
	for _, r := range reports(t, w, "g", monday.Add(5*time.Hour)) {
		gas := r.number["gas"]
		switch m := r.at.Sub(monday).Minutes(); {
		case m >= 60 && m < 120:
			if gas < last-1 {
				t.Fatalf("gas falls from %.1f to %.1f while it leaks", last, gas)
			}
			last = gas
		case m < 60 || m > 240:
			if gas > 2 {
				t.Errorf("%.1f %%LEL after %.0f minutes", gas, m)
			}
		}
	}
	if last < 50 || last > 62 {
		t.Errorf("gas settles at %.1f %%LEL", last)
	}
	for _, r := range reports(t, w, "s", monday.AddDate(0, 0, 1)) {
		if g := r.number["gas"]; g < 1 || g > 10 {
			t.Errorf("a sewer has %.1f %%LEL", g)
		}
	}
	for _, r := range reports(t, w, "m", monday.Add(5*time.Hour)) {
		open := !r.at.Before(monday.Add(time.Hour)) && r.at.Before(monday.Add(2*time.Hour))
		if r.flag["opened"] != open || (r.number["tilt"] > 20) != open {
			t.Errorf("the cover at %s: %+v", r.at, r)
		}
	}
}

func TestWeather(t *testing.T) {
	w := NewWorld(county.Demo(), 1, monday)
	mean := func(month time.Month, hour int) (sum float64) {
		for d := range 28 {
			v := w.outdoors(time.Date(2026, month, d+1, hour, 0, 0, 0, shanghai))
			if v < -3 || v > 41 {
				t.Errorf("%.1f °C on %s %d", v, month, d+1)
			}
			sum += v / 28
		}
		return sum
	}
	if january, july := mean(1, 12), mean(7, 12); january < 9 || january > 20 || july < january+10 {
		t.Errorf("at noon %.1f °C in January and %.1f in July", january, july)
	}
	if night, day := mean(5, 4), mean(5, 15); day < night+4 {
		t.Errorf("in May %.1f °C at night and %.1f in the afternoon", night, day)
	}
}

// TestWeatherInTheMeters: cooling draws in July, heating in January, both by
// day, and the register counts what is drawn.
func TestWeatherInTheMeters(t *testing.T) {
	c := town(dev("e", "energy-meter", 0, map[string]any{"building": "b"}), dev("q", "heat-meter", 0, map[string]any{"building": "b"}))
	c.Buildings = []county.Building{{Code: "b", Use: "office"}}
	w := scripted(t, Script{County: c, Start: monday})
	mean := func(id citywarden.DeviceID, month time.Month, hour int) (sum float64) {
		m := newMeter(w, c.Device(id), 7)
		for d := range 28 {
			sum += m.mean(time.Date(2026, month, d+1, hour, 0, 0, 0, shanghai)) / 28
		}
		return sum
	}
	if july, january := mean("e", 7, 15), mean("e", 1, 15); july < january*1.2 {
		t.Errorf("electricity: %.1f kW in July, %.1f in January", july, january)
	}
	if july, january := mean("q", 7, 10), mean("q", 1, 10); january < july+3 {
		t.Errorf("heat: %.1f kW in January, %.1f in July", january, july)
	}
	if day, night := mean("e", 7, 15), mean("e", 7, 3); night > 0.2*day {
		t.Errorf("electricity in July: %.1f kW at night, %.1f by day", night, day)
	}
	for id, from := range map[citywarden.DeviceID]time.Time{
		"e": time.Date(2026, 7, 1, 5, 13, 0, 0, shanghai), "q": time.Date(2026, 1, 14, 5, 13, 0, 0, shanghai),
	} {
		m, sum := newMeter(w, c.Device(id), 7), 0.0
		for at := from; at.Before(from.AddDate(0, 0, 3)); at = at.Add(time.Minute) {
			sum += (m.mean(at) + m.mean(at.Add(time.Minute))) / 2 / 60
		}
		if got := m.register(from.AddDate(0, 0, 3)) - m.register(from); math.Abs(got-sum) > 1e-3*sum {
			t.Errorf("the register of %s counts %.2f kWh in three days, the load says %.2f", id, got, sum)
		}
	}
}

// TestConsumptionByUse looks at four weeks of a winter in buildings of each use,
// at electricity, heat and water: what is drawn when nobody is there, when it is most,
// and that weekends are as they should be.
func TestConsumptionByUse(t *testing.T) {
	begin := time.Date(2026, 1, 5, 0, 0, 0, 0, shanghai) // a Monday
	const weeks = 4
	for use, want := range map[string]struct {
		busy    [2]int  // hours in which a working day has its highest
		night   float64 // most that is drawn at three, as a share of the highest
		weekend float64 // most of a Sunday, as a share of a working day
		least   float64
	}{
		"office": {[2]int{8, 17}, 0.3, 0.45, 0.03},
		"school": {[2]int{7, 16}, 0.3, 0.35, 0.01},
		"mall":   {[2]int{10, 21}, 0.3, 1.4, 0.9},
		"homes":  {[2]int{18, 21}, 0.55, 1.4, 0.9},
	} {
		for _, model := range []citywarden.ModelName{"energy-meter", "heat-meter", "water-meter"} {
			d := dev("m", model, 0, map[string]any{"building": "b"})
			c := town(d)
			c.Buildings = []county.Building{{Code: "b", Use: use}}
			m := newMeter(scripted(t, Script{County: c, Start: begin}), &d, 7)
			var hours [24]float64 // of the working days
			workday, sunday := 0.0, 0.0
			for h := range weeks * 7 * 24 {
				v := m.mean(begin.Add(time.Duration(h)*time.Hour)) / weeks
				if v < 0 {
					t.Fatalf("%s, %s: %.2f is drawn in hour %d", use, model, v, h)
				}
				switch day := h / 24 % 7; {
				case day < 5:
					hours[h%24] += v / 5
					workday += v / 5
				case day == 6:
					sunday += v
				}
			}
			highest := slices.Max(hours[:])
			// A heating has most to do in the cold of the morning.
			if h := slices.Index(hours[:], highest); h > want.busy[1] || h < want.busy[0] && (model != "heat-meter" || h < 6) {
				t.Errorf("%s, %s: most is drawn at %d o'clock", use, model, h)
			}
			if night := hours[3]; night > want.night*highest || night <= 0 {
				t.Errorf("%s, %s: %.2f is drawn at night, %.2f at most", use, model, night, highest)
			}
			if share := sunday / workday; share > want.weekend || share < want.least {
				t.Errorf("%s, %s: on Sunday %.2f of a working day", use, model, share)
			}
		}
	}
}

// TestHeatIsWhatTheWaterCarries: output, flow and both temperatures of a heat
// meter go together, as do its two registers; the colder, the warmer the supply.
func TestHeatIsWhatTheWaterCarries(t *testing.T) {
	supply := map[time.Month]float64{}
	for _, month := range []time.Month{time.January, time.July} {
		c := town(dev("q", "heat-meter", 0, map[string]any{"building": "b"}))
		c.Buildings = []county.Building{{Code: "b", Use: "homes"}}
		start := time.Date(2026, month, 14, 0, 0, 0, 0, shanghai)
		rs := reports(t, scripted(t, Script{County: c, Start: start}), "q", start.AddDate(0, 0, 1))
		for i, r := range rs {
			v := r.number
			if carried := waterHeat * v["flow"] * (v["supply"] - v["return"]); math.Abs(carried-v["power"]) > 0.03*v["power"]+0.1 {
				t.Fatalf("%s: %.2f kW, the water carries %.2f", r.at, v["power"], carried)
			}
			if v["return"] < 20 || v["supply"] > 80 || v["supply"] < v["return"]+15 {
				t.Fatalf("%s: supply %.1f °C, return %.1f °C", r.at, v["supply"], v["return"])
			}
			if i > 0 && (v["energy"] < rs[i-1].number["energy"] || v["volume"] < rs[i-1].number["volume"]) {
				t.Fatalf("%s: a register goes back", r.at)
			}
			supply[month] += v["supply"] / float64(len(rs))
		}
		first, last := rs[0].number, rs[len(rs)-1].number
		kWh, m3 := last["energy"]-first["energy"], last["volume"]-first["volume"]
		if math.Abs(kWh-waterHeat*spread*m3) > 0.01*kWh {
			t.Errorf("%s: %.1f kWh of %.2f m³", month, kWh, m3)
		}
	}
	if supply[time.January] < supply[time.July]+5 {
		t.Errorf("the supply is %.1f °C in January and %.1f in July", supply[time.January], supply[time.July])
	}
}

// TestRegistersWrapAndAreReplaced: apart from that they only count up.
func TestRegistersWrapAndAreReplaced(t *testing.T) {
	c := town(dev("e", "energy-meter", 0, nil), dev("w", "water-meter", 0, nil), dev("q", "heat-meter", 0, nil))
	w := scripted(t, Script{County: c, Start: monday, Incidents: []Incident{
		happens(Replaced, "e", monday, 600, 601, 0), happens(Replaced, "w", monday, 600, 601, 0), happens(Replaced, "q", monday, 600, 601, 0), happens(RunningTap, "w", monday, 60, 120, 2),
	}})
	for id, name := range map[citywarden.DeviceID]string{"e": "energy", "w": "volume", "q": "energy"} {
		rs := reports(t, w, id, monday.Add(20*time.Hour))
		back := 0
		for i := 1; i < len(rs); i++ {
			if a, b := rs[i-1].number[name], rs[i].number[name]; b < a {
				if back++; b > 1 || rs[i].at.Before(monday.Add(10*time.Hour)) {
					t.Errorf("%s goes from %g back to %g at %s", name, a, b, rs[i].at)
				}
			}
		}
		if back != 1 {
			t.Errorf("%s went back %d times", name, back)
		}
	}
	m := newMeter(w, c.Device("q"), 7)
	m.wraps = 50
	if v := m.shown(monday.AddDate(0, 0, 30), m.register); v < 0 || v >= 50 {
		t.Errorf("a heat register up to 50 shows %g", v)
	}
	m = newMeter(w, c.Device("w"), 7)
	if night, day := m.mean(monday.Add(3*time.Hour)), m.mean(monday.Add(10*time.Hour)); night > 0.1*day {
		t.Errorf("water: %.2f m³/h at night, %.2f by day", night, day)
	}
	m.wraps = 100
	turns, last := 0, 0.0
	for h := range 24 * 14 {
		v := m.shown(monday.Add(-time.Duration(24*14-h)*time.Hour), m.register)
		if v < 0 || v >= 100 {
			t.Fatalf("a register of two digits shows %g", v)
		}
		if v < last {
			turns++
		}
		last = v
	}
	if turns == 0 {
		t.Error("the register did not wrap")
	}
}

func TestRoomsAndLifts(t *testing.T) {
	c := town(dev("k", "climate-sensor", 0, nil), dev("l", "lift", 0, map[string]any{"building": "b"}), dev("g", "iot-gateway", 0, nil))
	c.Buildings = []county.Building{{Code: "b", Use: "office", Floors: 8}}
	w := scripted(t, Script{County: c, Start: monday.Add(9 * time.Hour), Incidents: []Incident{
		happens(HotRoom, "k", monday, 600, 660, 15), happens(Trapped, "l", monday, 600, 620, 0), happens(MainsLost, "g", monday, 600, 660, 0),
	}})
	rs := reports(t, w, "k", monday.Add(12*time.Hour))
	if calm, hot := most(between(rs, w.start, monday.Add(10*time.Hour)), "temperature"), most(rs, "temperature"); calm > 28 || hot < calm+10 {
		t.Errorf("the room has up to %.1f °C, without its air conditioner %.1f", calm, hot)
	}
	floors := map[float64]bool{}
	var stands float64
	for _, r := range reports(t, w, "l", monday.Add(12*time.Hour)) {
		f := r.number["floor"]
		floors[f] = true
		if f < 1 || f > 8 {
			t.Errorf("the lift is on floor %g of 8", f)
		}
		if r.flag["trapped"] {
			if stands == 0 {
				stands = f
			}
			if f != stands {
				t.Errorf("the lift with somebody trapped goes from floor %g to %g", stands, f)
			}
		}
	}
	if len(floors) < 4 || stands == 0 {
		t.Errorf("in three hours the lift was on %d floors, stuck on %g", len(floors), stands)
	}
	for _, r := range between(reports(t, w, "g", monday.Add(12*time.Hour)), monday.Add(10*time.Hour), monday.Add(11*time.Hour)) {
		if r.flag["mains"] || r.number["battery"] < 85 {
			t.Errorf("the gateway without mains: %+v", r)
		}
	}
}

// net3 returns a script on EPANET's example network: loggers at four nodes.
func net3(t *testing.T, incidents ...Incident) *World {
	t.Helper()
	f, err := os.Open("network/testdata/Net3.inp")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := hydraulic.Read("Net3.inp", f)
	if err != nil {
		t.Fatal(err)
	}
	nodes := map[citywarden.DeviceID]string{"p105": "105", "p143": "143", "p191": "191", "p251": "251", "f1": "111"}
	c := town(dev("v", "valve", 0, map[string]any{"pipe": "177"}))
	for _, id := range []string{"p105", "p143", "p191", "p251"} {
		c.Devices = append(c.Devices, dev(id, "pressure-logger", 0, nil))
	}
	c.Devices = append(c.Devices, dev("f1", "flow-meter", 0, map[string]any{"pipe": "101"}))
	if c.Water, err = WaterOf(n, nodes); err != nil {
		t.Fatal(err)
	}
	return scripted(t, Script{County: c, Start: monday, Incidents: incidents, Network: n, Lasts: 3 * time.Hour, Every: map[citywarden.DeviceID]time.Duration{"p191": time.Second}})
}

func TestBurstInNet3(t *testing.T) {
	calm := net3(t)
	end := monday.Add(3 * time.Hour)
	burst := net3(t, happens(Burst, "p191", monday, 60, 120, 150))
	drop := map[citywarden.DeviceID]float64{}
	for _, id := range []citywarden.DeviceID{"p105", "p143", "p191", "p251"} {
		a, b := reports(t, calm, id, end), reports(t, burst, id, end)
		for i, r := range a {
			if r.number["pressure"] < 0.5 || r.number["pressure"] > 12 {
				t.Fatalf("%s: %.2f bar", id, r.number["pressure"])
			}
			if d := r.number["pressure"] - b[i].number["pressure"]; r.at.Equal(monday.Add(90 * time.Minute)) {
				drop[id] = d
			}
		}
	}
	for id, d := range drop {
		if id != "p191" && d >= drop["p191"] {
			t.Errorf("a burst at p191 lowers the pressure there by %.2f bar, at %s by %.2f", drop["p191"], id, d)
		}
	}
	if drop["p191"] < 0.3 {
		t.Errorf("the burst lowers the pressure by %.2f bar", drop["p191"])
	}
	// A logger that samples every second sees the wave, which is over after a minute.
	rs := reports(t, burst, "p191", end)
	least := func(from, to time.Duration) float64 {
		v := math.Inf(1)
		for _, r := range between(rs, monday.Add(from), monday.Add(to)) {
			v = min(v, r.number["pressure"])
		}
		return v
	}
	first, settled := least(time.Hour, time.Hour+15*time.Second), least(time.Hour+90*time.Second, time.Hour+2*time.Minute)
	if first > settled-0.1 {
		t.Errorf("the wave goes down to %.2f bar, where it settles at %.2f", first, settled)
	}
	volume := 0.0
	for _, r := range reports(t, burst, "f1", end) {
		if r.number["volume"] < volume {
			t.Fatalf("the flow meter counts back at %s", r.at)
		}
		volume = r.number["volume"]
	}
}

func TestValveAndLeakInNet3(t *testing.T) {
	w := net3(t, happens(ShutValve, "v", monday, 30, 60, 0), happens(Leak, "p105", monday, 30, 150, 20))
	pipe := w.pipe(w.county.Device("v"))
	for _, m := range []float64{20, 40, 70} {
		q := w.hydraulics(monday.Add(time.Duration(m * float64(time.Minute)))).flow[pipe]
		if shut := m == 40; (q == 0) != shut {
			t.Errorf("after %.0f minutes %.4f m³/s flow through the valve", m, q)
		}
	}
	operated, s := 0, mustStream(t, w, "v")
	for m := s.Next(); s.last.Before(monday.Add(2 * time.Hour)); m = s.Next() {
		if slices.Contains([]time.Time{monday.Add(30 * time.Minute), monday.Add(time.Hour)}, s.last.In(shanghai)) {
			if want := `"event":"valve.operated"`; !bytes.Contains(m.Payload, []byte(want)) {
				t.Errorf("%s says %s", s.last, m.Payload)
			}
			operated++
		} else if bytes.Contains(m.Payload, []byte("event")) {
			t.Errorf("%s says %s", s.last, m.Payload)
		}
	}
	if operated != 2 {
		t.Errorf("the valve was operated %d times", operated)
	}
	calm := net3(t)
	last := 0.0
	for m := 35; m < 145; m += 20 {
		at := monday.Add(time.Duration(m) * time.Minute)
		if m >= 30 && m <= 75 { // while the valve is shut the two differ by that too
			continue
		}
		d := calm.hydraulics(at).head[w.nodes["p105"]] - w.hydraulics(at).head[w.nodes["p105"]]
		if d <= last {
			t.Errorf("after %d minutes the leak lowers the pressure by %.2f m, before by %.2f", m, d, last)
		}
		last = d
	}
}

func mustStream(t *testing.T, w *World, id citywarden.DeviceID) *Stream {
	t.Helper()
	s, err := w.Stream(id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestScriptsThatCannotBe(t *testing.T) {
	c := town(dev("s", "smoke-detector", 0, nil), dev("b", "parking-bay", 0, nil))
	for _, i := range []Incident{
		happens("flood", "s", monday, 1, 2, 0), happens(Fire, "b", monday, 1, 2, 0), happens(Fire, "x", monday, 1, 2, 0), happens(Fire, "", monday, 1, 2, 0),
		happens(Fire, "s", monday, 2, 1, 0), happens(Fire, "s", monday, 1, 2, -1), happens(Press, "s", monday, 1, 2, 3), {Kind: Burst, Node: "9", From: monday, To: monday.Add(1)},
	} {
		if _, err := NewScript(Script{County: c, Start: monday, Incidents: []Incident{i}}); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("%v: %v", i, err)
		}
	}
	for _, d := range []citywarden.Device{dev("p", "pressure-logger", 0, nil), dev("f", "flow-meter", 0, nil)} {
		if _, err := NewScript(Script{County: town(d), Start: monday}); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("%s without a node: %v", d.Model, err)
		}
	}
	w := scripted(t, Script{County: town(dev("x", "toaster", 0, nil)), Start: monday})
	if _, err := w.Stream("x"); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("a toaster: %v", err)
	}
}
