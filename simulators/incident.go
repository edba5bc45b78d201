package simulators

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/simulators/county"
)

// The kinds of incident.
const (
	Fire        = "fire"         // a t-squared fire at a detector; Size is its growth in kW/s²
	Steam       = "steam"        // a kettle or dust at a smoke detector; Size in dB/m
	Press       = "press"        // somebody presses a call point
	Test        = "test"         // a device is tested, and says so
	Broken      = "fault"        // a device has a fault, and says so
	BusFault    = "bus-fault"    // the loop of a fire panel is cut
	MainsLost   = "mains-lost"   // a building, or one device, has no mains
	Draw        = "draw"         // water is drawn from a hydrant; a fire does that at the sprinklers of its zone
	ShutHydrant = "shut-hydrant" // the valve before a hydrant is shut; Size is what is left, in kPa
	Hit         = "hit"          // a hydrant is hit
	Burst       = "burst"        // a pipe bursts; Size is the emitter, in m³/h per √m
	Leak        = "leak"         // a pipe leaks more and more, up to the end; Size as of a burst
	ShutValve   = "shut-valve"   // somebody shuts a valve
	Rain        = "rain"         // it rains everywhere; Size is the peak in mm/h
	Blockage    = "blockage"     // a drain is blocked; Size is the share of it, 0 to 1
	OpenCover   = "open-cover"   // a manhole cover is taken away
	Gas         = "gas"          // gas leaks at a detector; Size is where it settles, in %LEL
	BlockedLane = "blocked-lane" // somebody parks in a fire lane
	Overstay    = "overstay"     // somebody parks in a bay and does not leave
	Magnet      = "magnet"       // something magnetic near a bay that is no car
	QuietLoad   = "quiet-load"   // somebody draws power who should not; Size in kW
	RunningTap  = "running-tap"  // water runs all the time; Size in m³/h
	Replaced    = "replaced"     // a meter is replaced: its register begins at zero
	HotRoom     = "hot-room"     // the air conditioner of a room fails; Size in K
	Trapped     = "trapped"      // somebody is trapped in a lift
)

// usual is the Size of an incident that states none; the kinds that are not
// here have no size.
var usual = map[string]float64{
	Fire: fireGrowth, Steam: 0.2, ShutHydrant: 20, Burst: burstEmit * 3600, Leak: 2, Rain: 60, Blockage: 0.95, Gas: 60,
	QuietLoad: quietLoad, RunningTap: 0.3, HotRoom: 12,
}

// suits says which models of devices each kind of incident happens to.
var suits = map[string][]citywarden.ModelName{
	Fire: {"smoke-detector", "heat-detector"}, Steam: {"smoke-detector"}, Press: {"smoke-detector", "call-point"},
	Test:     {"smoke-detector", "call-point", "heat-detector", "fire-panel", "gas-detector"},
	Broken:   {"fire-panel", "gas-detector", "lift"},
	BusFault: {"fire-panel"}, MainsLost: {"smoke-detector", "heat-detector", "fire-panel", "iot-gateway", "parking-gateway", "energy-meter", "lift"},
	Draw: {"hydrant"}, ShutHydrant: {"hydrant"}, Hit: {"hydrant"},
	Burst: {"pressure-logger", "flow-meter"}, Leak: {"pressure-logger", "flow-meter"}, ShutValve: {"valve"},
	Rain: nil, Blockage: {"drain-level"}, OpenCover: {"manhole-cover"}, Gas: {"gas-detector"},
	BlockedLane: {"parking-bay"}, Overstay: {"parking-bay"}, Magnet: {"parking-bay"},
	QuietLoad: {"energy-meter"}, RunningTap: {"water-meter"}, Replaced: {"energy-meter", "heat-meter", "water-meter"},
	HotRoom: {"climate-sensor"}, Trapped: {"lift"},
}

// Kinds returns the kinds of incident, sorted.
func Kinds() []string { return slices.Sorted(maps.Keys(suits)) }

// Incident is something that happens in the county, and is over after some
// time: what the platform ought to notice.
type Incident struct {
	Kind   string
	Place  string              // the zone, the area, the lane, or the building
	Device citywarden.DeviceID // the device nearest to it
	Node   string              // of a burst or a leak: the node of the water network
	Size   float64             // how large it is, see the kinds; 0 for the usual
	From   time.Time
	To     time.Time
}

// String reads "fire at gov-2f from 08:00:25 to 08:07:25".
func (i Incident) String() string {
	where := i.Place
	if where == "" {
		where = string(i.Device)
	}
	if where != "" {
		where = " at " + where
	}
	return fmt.Sprintf("%s%s from %s to %s", i.Kind, where, i.From.Format(time.TimeOnly), i.To.Format(time.TimeOnly))
}

func (i Incident) during(t time.Time) bool { return !t.Before(i.From) && t.Before(i.To) }

func (i Incident) size() float64 {
	if i.Size == 0 {
		return usual[i.Kind]
	}
	return i.Size
}

// age returns the seconds since the incident began.
func (i Incident) age(t time.Time) float64 { return t.Sub(i.From).Seconds() }

// Check returns a CodeInvalid error unless i can happen in c.
func (i Incident) Check(c *County) error { return i.check(c) }

// check is Check, and fills in where the device is.
func (i *Incident) check(c *county.County) error {
	models, ok := suits[i.Kind]
	fail := func(format string, args ...any) error {
		return citywarden.Errorf(citywarden.CodeInvalid, "incident %s: %s", i.Kind, fmt.Sprintf(format, args...))
	}
	if !ok {
		return citywarden.Errorf(citywarden.CodeInvalid, "no kind of incident %q; there are %s", i.Kind, strings.Join(Kinds(), ", "))
	}
	if !i.From.Before(i.To) {
		return fail("it ends before it begins")
	}
	if i.Size != 0 && usual[i.Kind] == 0 {
		return fail("it has no size")
	}
	if i.Size < 0 {
		return fail("its size %g is negative", i.Size)
	}
	d := c.Device(i.Device)
	switch {
	case i.Device != "" && d == nil:
		return fail("there is no device %s", i.Device)
	case d != nil && !slices.Contains(models, d.Model):
		return fail("it does not happen to %s, a %s", d.ID, d.Model)
	case i.Kind == Burst || i.Kind == Leak:
		if d != nil && i.Node == "" {
			for _, n := range c.Water.Nodes {
				if n.Logger == d.ID {
					i.Node = n.Code
				}
			}
		}
		n := slices.IndexFunc(c.Water.Nodes, func(n county.Node) bool { return n.Code == i.Node })
		if n < 0 || c.Water.Nodes[n].Head > 0 {
			return fail("there is no junction %q in the water network", i.Node)
		}
		if i.Place == "" {
			i.Place = c.Water.Nodes[n].DMA
		}
	case d == nil && i.Kind == MainsLost && i.Place != "" || i.Kind == Rain:
	case d == nil:
		return fail("it needs a device")
	}
	if i.Place == "" && d != nil && i.Kind != MainsLost {
		i.Place = placeOf(i.Kind, d)
	}
	return nil
}

// placeOf returns what the place of an incident of kind at d is called.
func placeOf(kind string, d *citywarden.Device) string {
	switch kind {
	case Fire, Steam:
		return attr(d, "zone")
	case BlockedLane:
		return attr(d, "lane")
	case QuietLoad:
		return attr(d, "building")
	}
	return ""
}

// Incidents come in rounds: the first one right after the start of the world,
// so that a newcomer sees all four within three minutes; then seldom.
const (
	round       = 4 * time.Hour
	roundSpread = time.Hour // after the first round, each incident is up to that much later
)

var incidentTimes = map[string]struct{ after, takes time.Duration }{
	Fire:        {25 * time.Second, 7 * time.Minute},
	BlockedLane: {30 * time.Second, 6 * time.Minute},
	QuietLoad:   {45 * time.Second, 8 * time.Minute},
	Burst:       {65 * time.Second, 9 * time.Minute},
}

type place struct {
	name   string
	device citywarden.DeviceID
	node   string // of the burst
}

// findPlaces returns where each kind of incident can happen in c.
func findPlaces(c *county.County) map[string][]place {
	out := map[string][]place{}
	for i := range c.Devices {
		d := &c.Devices[i]
		switch {
		case attr(d, "kind") == "fire_lane":
			out[BlockedLane] = append(out[BlockedLane], place{name: placeOf(BlockedLane, d), device: d.ID})
		case d.Model == "smoke-detector":
			out[Fire] = append(out[Fire], place{name: placeOf(Fire, d), device: d.ID})
		case attr(d, "quiet") != "":
			out[QuietLoad] = append(out[QuietLoad], place{name: placeOf(QuietLoad, d), device: d.ID})
		}
	}
	for n, node := range c.Water.Nodes {
		if node.Burst {
			out[Burst] = append(out[Burst], place{name: node.DMA, device: nearestLogger(&c.Water, n), node: node.Code})
		}
	}
	return out
}

func nearestLogger(w *county.Water, n int) citywarden.DeviceID {
	var best citywarden.DeviceID
	least := 0.0
	for i := range w.Nodes {
		if w.Nodes[i].Logger == "" {
			continue
		}
		if d := w.Nodes[i].At.Distance(w.Nodes[n].At); best == "" || d < least {
			best, least = w.Nodes[i].Logger, d
		}
	}
	return best
}

// incident returns the one of kind in round r, counted from 0.
func (w *World) incident(kind string, r int64) Incident {
	places, when := w.places[kind], incidentTimes[kind]
	n := int64(len(places))
	first := int64(w.unit(0, "first "+kind, 0) * float64(n))
	// Each round is somewhere else, seven places on: more than a zone has
	// detectors. The step has no factor in common with the number of places, so
	// that every place has its turn.
	step := int64(7)
	for gcd(step, n) != 1 {
		step++
	}
	p := places[(first+step*r)%n]
	from := w.start.Add(when.after)
	if r > 0 {
		from = from.Add(time.Duration(r)*round + share(roundSpread, w.unit(0, kind, r)))
	}
	return Incident{Kind: kind, Place: p.name, Device: p.device, Node: p.node, From: from, To: from.Add(when.takes)}
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// upcoming returns the first incident of kind that is not over at t.
func (w *World) upcoming(kind string, t time.Time) Incident {
	for r := max(0, int64(t.Sub(w.start)/round)-1); ; r++ {
		if i := w.incident(kind, r); t.Before(i.To) {
			return i
		}
	}
}

// all yields the incidents of kind in the order of time, from the first that is
// not over at t on. In a county that lives on by itself there is always one more.
func (w *World) all(kind string, t time.Time) iter.Seq[Incident] {
	return func(yield func(Incident) bool) {
		if w.script != nil {
			for _, i := range w.script[kind] {
				if t.Before(i.To) && !yield(i) {
					return
				}
			}
			return
		}
		if len(w.places[kind]) == 0 {
			return
		}
		for i := w.upcoming(kind, t); yield(i); i = w.upcoming(kind, i.To) {
		}
	}
}

// now yields the incidents of kind that go on at t.
func (w *World) now(kind string, t time.Time) iter.Seq[Incident] {
	return func(yield func(Incident) bool) {
		for i := range w.all(kind, t) {
			if t.Before(i.From) {
				return
			}
			if !yield(i) {
				return
			}
		}
	}
}

// Incidents returns what happens between from and to, the truth that the
// platform can be judged by, in the order of time.
func (w *World) Incidents(from, to time.Time) []Incident {
	var out []Incident
	for _, kind := range Kinds() {
		for i := range w.all(kind, from) {
			if !i.From.Before(to) {
				break
			}
			out = append(out, i)
		}
	}
	slices.SortStableFunc(out, func(a, b Incident) int { return a.From.Compare(b.From) })
	return out
}
