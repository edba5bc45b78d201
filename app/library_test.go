package app

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/rules"
)

// played says what raises a rule of the library, and the case or work order with
// class and limit that follows. Lines of play:
//
//	device ID MODEL [K=V, …]    register a device
//	ID JSON                     it publishes telemetry; @+10m in JSON stands for in ten minutes
//	N x EVERY ID JSON           it publishes N such readings at once, which it took by the clock until now
//	sleep DURATION              let the time pass
type played struct {
	rule     citywarden.RuleID
	entity   string
	severity citywarden.Severity
	key      string // of the case or work order, "" for none
	class    citywarden.ClassCode
	limit    string
	play     string
}

var libraryRules = []played{
	// It is 04:20.
	{"building.night-base-load", "e5", citywarden.Minor, "night/mall", "", "", `
		device e5 energy-meter building=mall, night_limit=10
		20 x 1m e5 {"power": 30}`},
	{"building.night-water", "w1", citywarden.Minor, "water/school", "", "", `
		device w1 water-meter building=school, night_limit=0.05
		6 x 15m w1 {"flow": 0.2}`},
	{"pipe.slow-leak", "f1", citywarden.Minor, "leak/D1", "", "", `
		device f1 flow-meter dma=D1, night_flow=10
		9 x 15m f1 {"flow": 14}
		sleep 31m`},

	{"fire.zone-smoke", "lobby", citywarden.Critical, "fire/lobby", "event/0595", "2紧急工作时", `
		device s1 smoke-detector zone=lobby
		device s2 smoke-detector zone=lobby
		s1 {"smoke": 0.13}
		s2 {"smoke": 0.3}`},
	{"fire.call-point", "c1", citywarden.Critical, "fire/c1", "event/0595", "2紧急工作时", `
		device c1 call-point
		c1 {"button": true}`},
	{"fire.heat", "h1", citywarden.Major, "fire/garage", "event/0595", "2紧急工作时", `
		device h1 heat-detector zone=garage
		h1 {"temperature": 61}
		sleep 11s`},
	{"fire.detector-silent", "s3", citywarden.Minor, "maint/g1", "", "", `
		device s3 smoke-detector zone=z3, gateway=g1
		s3 {"smoke": 0}
		sleep 16m`},
	{"fire.battery-low", "s4", citywarden.Minor, "battery/s4", "", "", `
		device s4 smoke-detector zone=z4
		7 x 10m s4 {"battery": 14}`},
	{"fire.hydrant-pressure", "y1", citywarden.Minor, "hydrant/y1", "", "", `
		device y1 hydrant
		3 x 15m y1 {"pressure": 90}
		sleep 121s`},
	{"fire.panel-power", "u1", citywarden.Major, "panel/u1", "", "", `
		device u1 fire-panel
		u1 {"mains": false, "backup": false}
		sleep 11s`},
	{"fire.panel-bus-fault", "u2", citywarden.Minor, "panel/u2", "", "", `
		device u2 fire-panel
		u2 {"bus_fault": true}
		sleep 31s`},
	{"fire.panel-alarm", "u3", citywarden.Major, "fire/school", "event/0595", "2紧急工作时", `
		device u3 fire-panel building=school
		u3 {"fire": true}`},
	{"fire.test-left-on", "s5", citywarden.Minor, "test/s5", "", "", `
		device s5 smoke-detector zone=z5
		7 x 5m s5 {"test": true}`},

	{"pipe.burst", "p1", citywarden.Major, "burst/D7", "event/0501", "1紧急工作时", `
		device p1 pressure-logger dma=D7, adjacent=p2
		device p2 pressure-logger dma=D7, adjacent=p1
		p1 {"pressure": 4}
		p2 {"pressure": 4.1}
		sleep 2m
		p1 {"pressure": 3.2}
		p2 {"pressure": 3.6}
		sleep 3m`},
	{"pipe.pressure-low", "p3", citywarden.Minor, "pressure/D8", "", "", `
		device p3 pressure-logger dma=D8
		p3 {"pressure": 1.3}
		sleep 13m`},
	{"pipe.pressure-high", "p4", citywarden.Minor, "pressure/D9", "", "", `
		device p4 pressure-logger dma=D9
		p4 {"pressure": 6.5}
		sleep 13m`},
	{"pipe.gas", "k1", citywarden.Critical, "gas/k1", "event/0502", "1紧急工作时", `
		device k1 gas-detector
		k1 {"gas": 50}`},
	{"pipe.sewer-gas", "k2", citywarden.Major, "gas/k2", "event/0595", "2紧急工作时", `
		device k2 gas-detector medium=sewer
		k2 {"gas": 25}`},
	{"pipe.manhole-water", "m1", citywarden.Major, "cover/m1", "component/0101", "2紧急工作时", `
		device m1 manhole-cover owner=water
		m1 {"tilt": 35, "opened": true}
		sleep 61s`},
	{"pipe.manhole-sewage", "m2", citywarden.Major, "cover/m2", "component/0102", "2紧急工作时", `
		device m2 manhole-cover owner=sewage
		m2 {"tilt": 35}
		sleep 61s`},
	{"pipe.manhole-storm", "m3", citywarden.Major, "cover/m3", "component/0103", "2紧急工作时", `
		device m3 manhole-cover owner=storm
		m3 {"opened": true}
		sleep 61s`},
	{"pipe.manhole-gas", "m4", citywarden.Major, "cover/m4", "component/0111", "2紧急工作时", `
		device m4 manhole-cover owner=gas
		m4 {"opened": true}
		sleep 61s`},
	{"pipe.manhole-other", "m5", citywarden.Major, "cover/m5", "component/0123", "2紧急工作时", `
		device m5 manhole-cover
		m5 {"opened": true}
		sleep 61s`},
	{"pipe.drain-level", "d1", citywarden.Minor, "drain/d1", "event/0503", "4小时", `
		device d1 drain-level pipe_height=0.8
		4 x 5m d1 {"level": 0.9}`},
	{"pipe.flooding", "r1", citywarden.Minor, "flood/r1", "event/0506", "2紧急工作时", `
		device r1 road-flood
		r1 {"depth": 15.5}
		sleep 121s`},

	{"parking.fire-lane", "b1", citywarden.Minor, "lane/north", "event/0496", "2小时", `
		device b1 parking-bay kind=fire_lane, lane=north
		b1 {"occupied": true}
		sleep 181s`},
	{"parking.overstay", "b2", citywarden.Warning, "", "", "", `
		device b2 parking-bay max_stay=120
		13 x 10m b2 {"occupied": true}`},
	{"parking.lot-full", "l1", citywarden.Warning, "", "", "", `
		device l1 parking-lot
		l1 {"free": 0}
		sleep 121s`},

	{"building.quiet-load", "e1", citywarden.Minor, "quiet/theatre", "component/0128", "4天", `
		device e1 energy-meter building=theatre, night_limit=1, quiet=all hours
		11 x 1m e1 {"power": 6}`},
	{"building.demand-limit", "e2", citywarden.Minor, "demand/mall", "", "", `
		device e2 energy-meter building=mall, demand_limit=100
		10 x 1m e2 {"power": 104}`},
	{"building.mains-lost", "e3", citywarden.Minor, "power/homes", "", "", `
		device e3 energy-meter building=homes
		e3 {"mains": false}
		sleep 61s`},
	{"building.district-outage", "south", citywarden.Critical, "outage/south", "", "", outage()},
	{"building.temperature", "t1", citywarden.Minor, "climate/t1", "", "", `
		device t1 climate-sensor
		t1 {"temperature": 36}
		sleep 13m`},
	{"building.humidity", "t2", citywarden.Warning, "climate/t2", "", "", `
		device t2 climate-sensor
		7 x 5m t2 {"humidity": 90}
		sleep 121s`},
	{"building.lift-trapped", "i1", citywarden.Major, "lift/i1", "event/0595", "2紧急工作时", `
		device i1 lift
		i1 {"trapped": true}
		sleep 31s`},
	{"building.lift-fault", "i2", citywarden.Minor, "lift-fault/i2", "", "", `
		device i2 lift
		i2 {"fault": true}
		sleep 121s`},

	{"gateway.offline", "gw1", citywarden.Minor, "maint/gw1", "", "", `
		device gw1 iot-gateway
		gw1 {"mains": true, "devices": 12}
		sleep 11m`},
	{"device.offline", "e4", citywarden.Minor, "maint/g2", "", "", `
		device e4 energy-meter gateway=g2
		e4 {"power": 3}
		sleep 31m`},
	{"device.network-outage", "south", citywarden.Major, "contact/south", "", "", "sleep 1m"}, // the meters without power
	{"device.battery-low", "v1", citywarden.Warning, "battery/v1", "", "", `
		device v1 valve
		2 x 1h v1 {"battery": 10, "position": 100}`},
	{"device.clock", "t3", citywarden.Warning, "clock/t3", "", "", `
		device t3 climate-sensor
		t3 {"ts": @+20m, "values": {"temperature": 20}}
		sleep 31m`},

	{"pipe.sensor-stuck", "p5", citywarden.Warning, "sensor/p5", "", "", `
		device p5 pressure-logger dma=D10
		60 x 15m p5 {"pressure": 3.2}
		sleep 3m`},
	{"parking.sensor-stuck", "b3", citywarden.Warning, "sensor/b3", "", "", `
		device b3 parking-bay
		50 x 30m b3 {"occupied": false, "magnetic_x": 24, "magnetic_y": -3, "magnetic_z": 36}`},
	{"fire.network-outage", "west", citywarden.Major, "contact/west", "", "", hush()},
}

// hush is 21 detectors of a district that fall silent.
func hush() string {
	var b strings.Builder
	for i := range 21 {
		fmt.Fprintf(&b, "device n%d smoke-detector district=west\n", i)
	}
	for i := range 21 {
		fmt.Fprintf(&b, "n%d {\"smoke\": 0.02}\n", i)
	}
	return b.String() + "sleep 16m"
}

// outage is a power cut at 21 meters of a district.
func outage() string {
	var b strings.Builder
	for i := range 21 {
		fmt.Fprintf(&b, "device o%d energy-meter building=o%d, district=south\n", i, i)
	}
	for i := range 21 {
		fmt.Fprintf(&b, "o%d {\"mains\": false}\n", i)
	}
	return b.String() + "sleep 61s"
}

// TestLibrary plays every rule of the library through the whole platform, in
// virtual time: a device of its model publishes JSON over MQTT, and its alarm and
// the case or work order come out.
func TestLibrary(t *testing.T) {
	if testing.Short() || raced {
		t.Skip("opens the whole platform, as the scenarios do")
	}
	ats.Register() // see TestScenarios
	t.Cleanup(ats.Unregister)
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, tokens: map[string]string{}, devices: map[string]string{}}
		w.data = filepath.Join(t.TempDir(), "data")
		if err := os.CopyFS(filepath.Join(w.data, "rules"), rules.Library()); err != nil {
			t.Fatal(err)
		}
		begin, err := moment("2026-11-23 04:20")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(begin))
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		defer w.end()
		var all struct{ Items []citywarden.Rule }
		if err := w.call("admin", "GET", "/rules", nil, &all); err != nil {
			t.Fatal(err)
		}
		if len(all.Items) == 0 {
			t.Fatal("the platform runs no rules")
		}
		for _, r := range all.Items {
			if !slices.ContainsFunc(libraryRules, func(x played) bool { return x.rule == r.ID }) {
				t.Errorf("rule %s of the library is not played", r.ID)
			}
		}
		for _, x := range libraryRules {
			if err := w.play(x.play); err != nil {
				t.Fatalf("%s: %v", x.rule, err)
			}
			if err := w.found(&x); err != nil {
				t.Errorf("%s: %v", x.rule, err)
			}
		}
	})
}

var inFuture = regexp.MustCompile(`@\+(\w+)`)

func (w *world) play(script string) error {
	for line := range strings.Lines(strings.TrimSpace(script)) {
		line = strings.TrimSpace(line)
		first, rest, _ := strings.Cut(line, " ")
		switch first {
		case "device":
			f := strings.SplitN(line, " ", 4)
			var attrs []string
			if len(f) > 3 {
				attrs = strings.Split(f[3], ", ")
			}
			if err := w.add(f[1], f[2], attrs); err != nil {
				return err
			}
		case "sleep":
			d, err := citywarden.ParseDuration(rest)
			if err != nil {
				return err
			}
			time.Sleep(d.Std())
		default:
			id, body := first, inFuture.ReplaceAllStringFunc(rest, func(s string) string {
				d, _ := citywarden.ParseDuration(s[2:])
				return strconv.FormatInt(time.Now().Add(d.Std()).UnixMilli(), 10)
			})
			if n, err := strconv.Atoi(first); err == nil {
				f := strings.SplitN(line, " ", 5)
				every, err := citywarden.ParseDuration(f[2])
				if err != nil {
					return err
				}
				id, body = f[3], batch(n, every.Std(), f[4])
			}
			if err := w.publish(id, body); err != nil {
				return err
			}
		}
		synctest.Wait()
	}
	return nil
}

// batch returns n readings with these values, the last of now.
func batch(n int, every time.Duration, values string) string {
	list := make([]string, n)
	for i := range list {
		at := time.Now().Add(-time.Duration(n-1-i) * every)
		list[i] = fmt.Sprintf(`{"ts": %d, "values": %s}`, at.UnixMilli(), values)
	}
	return "[" + strings.Join(list, ",") + "]"
}

// found looks whether the alarm of x is there, with its case.
func (w *world) found(x *played) error {
	var alarms struct{ Items []citywarden.Alarm }
	if err := w.call("admin", "GET", "/alarms?state=active&rule="+url.QueryEscape(string(x.rule)), nil, &alarms); err != nil {
		return err
	}
	i := slices.IndexFunc(alarms.Items, func(a citywarden.Alarm) bool { return a.Entity == x.entity })
	if i < 0 {
		return fmt.Errorf("no alarm for %s", x.entity)
	}
	a := &alarms.Items[i]
	if a.Severity != x.severity {
		return fmt.Errorf("the alarm is %s, want %s", a.Severity, x.severity)
	}
	if x.key == "" {
		if a.Case != "" {
			return fmt.Errorf("it opened %s, want none", a.Case)
		}
		return nil
	}
	var c citywarden.Case
	if err := w.call("admin", "GET", "/cases/"+url.PathEscape(string(a.Case)), nil, &c); err != nil {
		return err
	}
	if c.Key != x.key || c.Class != x.class || c.Limit != x.limit || c.WorkOrder != (x.class == "") || !slices.Contains(c.Alarms, a.ID) {
		return fmt.Errorf("it opened %s %q, class %s, limit %s, work order %t, alarms %v", c.ID, c.Key, c.Class, c.Limit, c.WorkOrder, c.Alarms)
	}
	return nil
}
