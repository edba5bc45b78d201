// Package scenario plays stories with virtual devices against any platform and
// judges what the platform made of them.
//
//	s, err := scenario.Load("fire.yaml", text, open)
//	verdict, err := s.Play(ctx, scenario.Options{Dial: simulators.TCP("127.0.0.1:1883"), Platform: api})
//	fmt.Println(verdict)
//
// A scenario says which devices there are, what happens (the truth), what goes
// wrong with the devices, and which alarms and cases a platform ought to have
// because of it, and no others. It uses a platform as hardware and people do:
// MQTT or CoAP for the devices, the HTTP API for registering them and for looking at
// the alarms. The same scenario is played in virtual time by tests and in real
// time by `citywarden simulate`.
package scenario

import (
	"io"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/simulators"
)

// Scenario is one story.
type Scenario struct {
	Title     citywarden.Text
	Seed      uint64
	Start     *Clock        // when it must begin, nil for any time
	Lasts     time.Duration // all that happens and is expected lies in it
	Devices   []citywarden.Device
	Incidents []Incident
	Faults    []Fault
	Expect    []Expected
	Allow     []Allowed // alarms that may be there or not

	county  *simulators.County
	network *simulators.Network
	every   map[citywarden.DeviceID]time.Duration
	coap    map[citywarden.DeviceID]bool // what speaks CoAP; the others speak MQTT
}

// Clock is a time of the week, in the county's time.
type Clock struct {
	Day          time.Weekday
	Hour, Minute int
}

// shanghai is the time of the county.
var shanghai = time.FixedZone("CST", 8*3600)

// Next returns the first such moment that is not before t.
func (c Clock) Next(t time.Time) time.Time {
	l := t.In(shanghai)
	at := time.Date(l.Year(), l.Month(), l.Day()+(int(c.Day-l.Weekday())+7)%7, c.Hour, c.Minute, 0, 0, shanghai)
	if at.Before(t) {
		at = at.AddDate(0, 0, 7)
	}
	return at
}

// Incident is what happens, with its time since the beginning.
type Incident struct {
	simulators.Incident
	At, For time.Duration
	where   node
}

// Fault is what goes wrong with a device, with its time since the beginning.
type Fault struct {
	simulators.Fault
	Device  citywarden.DeviceID
	At, For time.Duration
	where   node
}

// Expected is an alarm that the platform ought to have.
type Expected struct {
	Rule       citywarden.RuleID   `json:"rule"`
	Entity     string              `json:"entity"`             // device or group
	Severity   citywarden.Severity `json:"severity,omitempty"` // the highest it had; 0 for any
	At         time.Duration       `json:"-"`                  // since the beginning: when it happens
	Within     time.Duration       `json:"-"`                  // after that, the platform must know
	Key        string              `json:"key,omitempty"`      // of its case or work order; "" for any or none
	Class      string              `json:"class,omitempty"`    // of its case; a work order has none
	Cleared    bool                `json:"cleared,omitempty"`  // it must be over at the end
	Suppressed bool                `json:"suppressed,omitempty"`
}

// Allowed is an alarm that is no mistake.
type Allowed struct {
	Rule   citywarden.RuleID
	Entity string // "" for any
}

// expectWithin is how soon a platform must know, unless the scenario says
// otherwise.
const expectWithin = 5 * time.Minute

// Load reads a scenario; open opens a file that it names, by its path beside the
// scenario. Mistakes say the line, what is wrong and what is allowed.
func Load(name string, file []byte, open func(path string) (io.ReadCloser, error)) (*Scenario, error) {
	root, d := parse(name, file)
	s := &Scenario{county: &simulators.County{}, every: map[citywarden.DeviceID]time.Duration{}, coap: map[citywarden.DeviceID]bool{}}
	nodes := map[citywarden.DeviceID]string{}
	var water, expect node
	root.fields("a scenario",
		field{"title", true, func(n node) {
			n.fields("title", field{"zh", true, text(&s.Title.ZH)}, field{"en", true, text(&s.Title.EN)})
		}},
		field{"about", false, func(n node) { n.scalar("about") }},
		field{"seed", false, func(n node) { s.Seed = n.whole("seed") }},
		field{"start", false, func(n node) { s.Start = n.clock() }},
		field{"lasts", true, func(n node) { s.Lasts = n.duration("lasts") }},
		field{"network", false, func(n node) { water = n }},
		field{"buildings", false, func(n node) { s.buildings(n) }},
		field{"devices", true, func(n node) { n.items("devices", func(n node) { s.device(n, nodes) }) }},
		field{"happens", false, func(n node) { n.items("happens", s.incident) }},
		field{"faults", false, func(n node) { n.items("faults", s.fault) }},
		field{"expect", false, func(n node) { expect = n; n.items("expect", s.expected) }},
		field{"allow", false, func(n node) { n.items("allow", s.allowed) }},
	)
	if d.err != nil {
		return nil, d.err
	}
	if s.Lasts <= 0 || s.Lasts > 31*24*time.Hour {
		root.fail("lasts: %s; a scenario lasts up to 31 days", citywarden.Duration(s.Lasts))
	}
	s.county.Devices = s.Devices
	s.water(water, nodes, open)
	for _, x := range s.Expect {
		if x.At+x.Within > s.Lasts {
			expect.fail("%s for %s is expected %s after the beginning, the scenario lasts %s", x.Rule, x.Entity, citywarden.Duration(x.At+x.Within), citywarden.Duration(s.Lasts))
		}
	}
	if d.err != nil {
		return nil, d.err
	}
	// What can't happen would show when the world is made; here it shows where.
	begin := time.Date(2026, time.November, 23, 0, 0, 0, 0, shanghai)
	for _, i := range s.Incidents {
		i.where.check(i.at(begin).Check(s.county))
	}
	if d.err != nil {
		return nil, d.err
	}
	w, err := s.World(begin)
	if err != nil {
		root.check(err)
		return nil, d.err
	}
	for _, dev := range s.Devices {
		if _, err := w.Stream(dev.ID); err != nil {
			root.check(err)
		}
	}
	for _, f := range s.Faults {
		_, err := w.Faulty(f.Device, f.at(begin))
		f.where.check(err)
	}
	if d.err != nil {
		return nil, d.err
	}
	return s, nil
}

// World returns the truth when the scenario begins at start.
func (s *Scenario) World(start time.Time) (*simulators.World, error) {
	var incidents []simulators.Incident
	for _, i := range s.Incidents {
		incidents = append(incidents, i.at(start))
	}
	return simulators.NewScript(simulators.Script{
		County: s.county, Seed: s.Seed, Start: start, Incidents: incidents, Every: s.every, Network: s.network, Lasts: s.Lasts,
	})
}

func (i Incident) at(start time.Time) simulators.Incident {
	out := i.Incident
	out.From, out.To = start.Add(i.At), start.Add(i.At+i.For)
	return out
}

func (f Fault) at(start time.Time) simulators.Fault {
	out := f.Fault
	out.From, out.To = start.Add(f.At), start.Add(f.At+f.For)
	return out
}

// faultsOf returns the faults of a device when the scenario begins at start.
func (s *Scenario) faultsOf(id citywarden.DeviceID, start time.Time) []simulators.Fault {
	var out []simulators.Fault
	for _, f := range s.Faults {
		if f.Device == id {
			out = append(out, f.at(start))
		}
	}
	return out
}

var days = []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

// ParseClock reads a Clock like "Mon 02:30".
func ParseClock(text string) (Clock, error) {
	day, hm, _ := strings.Cut(text, " ")
	k := slices.Index(days, day)
	t, err := time.Parse("15:04", hm)
	if k < 0 || err != nil {
		return Clock{}, citywarden.Errorf(citywarden.CodeInvalid, "%q; write a day and a time, like Mon 02:30", text)
	}
	return Clock{time.Weekday(k), t.Hour(), t.Minute()}, nil
}

func (n node) clock() *Clock {
	c, err := ParseClock(n.scalar("start"))
	if err != nil {
		n.fail("start: %v", err)
	}
	return &c
}

func (s *Scenario) buildings(n node) {
	n.pairs("buildings", func(key, value node) {
		b := simulators.Building{Code: key.scalar("building")}
		allowed := []string{"office", "mall", "school", "homes", "shut"}
		value.fields("a building",
			field{"use", true, func(n node) {
				if b.Use = n.scalar("use"); !slices.Contains(allowed, b.Use) {
					n.fail("use: %q is none of %s", b.Use, strings.Join(allowed, ", "))
				}
			}},
			field{"floors", false, func(n node) { b.Floors = int(n.whole("floors")) }},
		)
		s.county.Buildings = append(s.county.Buildings, b)
	})
}

func (s *Scenario) device(n node, nodes map[citywarden.DeviceID]string) {
	d := citywarden.Device{Attributes: map[string]any{}}
	at := simulators.PointAt(simulators.Size/2, simulators.Size/2)
	var every time.Duration
	coap := false
	n.fields("a device",
		field{"id", true, func(n node) {
			d.ID = citywarden.DeviceID(n.scalar("id"))
			n.check(d.ID.Check())
			if slices.ContainsFunc(s.Devices, func(o citywarden.Device) bool { return o.ID == d.ID }) {
				n.fail("there are two devices %s", d.ID)
			}
		}},
		field{"model", true, func(n node) {
			d.Model = citywarden.ModelName(n.scalar("model"))
			if known := simulators.Models(); !slices.Contains(known, string(d.Model)) {
				hint := citywarden.DidYouMean(string(d.Model), known)
				if hint == "" {
					hint = "; there are " + strings.Join(known, ", ")
				}
				n.fail("model: nobody simulates a %q%s", d.Model, hint)
			}
		}},
		field{"at", false, func(n node) {
			var xy []float64
			n.items("at", func(n node) { xy = append(xy, n.number("at")) })
			if len(xy) != 2 {
				n.fail("at: write [metres east, metres north]")
				return
			}
			at = simulators.PointAt(xy[0], xy[1])
		}},
		field{"attr", false, func(n node) {
			n.pairs("attr", func(k, v node) { d.Attributes[k.scalar("attr")] = v.value("attr") })
		}},
		field{"adjacent", false, func(n node) {
			n.items("adjacent", func(n node) { d.Adjacent = append(d.Adjacent, citywarden.DeviceID(n.scalar("adjacent"))) })
		}},
		field{"node", false, func(n node) { nodes[d.ID] = n.scalar("node") }},
		field{"protocol", false, func(n node) {
			switch p := n.scalar("protocol"); p {
			case "mqtt":
			case "coap":
				coap = true
			default:
				n.fail("protocol: %q is neither mqtt nor coap", p)
			}
		}},
		field{"every", false, func(n node) {
			if every = n.duration("every"); every < time.Second {
				n.fail("every: at least 1s")
			}
		}},
	)
	d.Name, d.Location = string(d.ID), &at
	if every > 0 {
		s.every[d.ID] = every
	}
	s.coap[d.ID] = coap
	s.Devices = append(s.Devices, d)
}

// water makes the water network of the scenario.
func (s *Scenario) water(n node, nodes map[citywarden.DeviceID]string, open func(string) (io.ReadCloser, error)) {
	if n.n == nil {
		return
	}
	path := n.scalar("network")
	f, err := open(path)
	if err != nil {
		n.fail("network: %v", err)
		return
	}
	defer f.Close()
	if s.network, err = simulators.ReadNetwork(path, f); err != nil {
		n.fail("network: %v", err)
		return
	}
	s.county.Water, err = simulators.WaterOf(s.network, nodes)
	n.check(err)
}

func (s *Scenario) incident(n node) {
	i := Incident{where: n}
	n.fields("what happens",
		field{"what", true, text(&i.Kind)},
		field{"at", true, func(n node) { i.At = n.duration("at") }},
		field{"for", true, func(n node) { i.For = n.duration("for") }},
		field{"device", false, func(n node) { i.Device = citywarden.DeviceID(n.scalar("device")) }},
		field{"place", false, text(&i.Place)},
		field{"node", false, text(&i.Node)},
		field{"size", false, func(n node) { i.Size = n.number("size") }},
	)
	s.Incidents = append(s.Incidents, i)
}

func (s *Scenario) fault(n node) {
	f := Fault{where: n}
	n.fields("a fault",
		field{"what", true, text(&f.Kind)},
		field{"device", true, func(n node) { f.Device = citywarden.DeviceID(n.scalar("device")) }},
		field{"at", true, func(n node) { f.At = n.duration("at") }},
		field{"for", true, func(n node) { f.For = n.duration("for") }},
		field{"size", false, func(n node) { f.Size = n.number("size") }},
		field{"as", false, func(n node) { f.As = citywarden.ModelName(n.scalar("as")) }},
	)
	s.Faults = append(s.Faults, f)
}

func (s *Scenario) expected(n node) {
	x := Expected{Within: expectWithin}
	n.fields("an alarm",
		field{"alarm", true, func(n node) { x.Rule = citywarden.RuleID(n.scalar("alarm")) }},
		field{"of", true, text(&x.Entity)},
		field{"at", true, func(n node) { x.At = n.duration("at") }},
		field{"within", false, func(n node) { x.Within = n.duration("within") }},
		field{"severity", false, func(n node) { n.check(x.Severity.UnmarshalText([]byte(n.scalar("severity")))) }},
		field{"case", false, text(&x.Key)},
		field{"class", false, text(&x.Class)},
		field{"cleared", false, func(n node) { x.Cleared = n.flag("cleared") }},
		field{"suppressed", false, func(n node) { x.Suppressed = n.flag("suppressed") }},
	)
	s.Expect = append(s.Expect, x)
}

func (s *Scenario) allowed(n node) {
	var a Allowed
	n.fields("an alarm",
		field{"alarm", true, func(n node) { a.Rule = citywarden.RuleID(n.scalar("alarm")) }},
		field{"of", false, text(&a.Entity)},
	)
	s.Allow = append(s.Allow, a)
}
