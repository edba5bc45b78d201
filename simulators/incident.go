package simulators

import (
	"fmt"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/simulators/county"
)

// The kinds of incident.
const (
	Fire        = "fire"         // a t-squared fire in a zone
	Burst       = "burst"        // a pipe of an area bursts
	BlockedLane = "blocked-lane" // somebody parks in a fire lane
	QuietLoad   = "quiet-load"   // somebody draws power in a building that is shut
)

// Incident is something that happens in the county, and is over after some
// minutes: what the platform ought to notice.
type Incident struct {
	Kind   string
	Place  string              // the zone, the area, the lane, or the building
	Device citywarden.DeviceID // the device nearest to it
	From   time.Time
	To     time.Time
}

// String reads "fire at gov-2f from 08:00:25 to 08:07:25".
func (i Incident) String() string {
	return fmt.Sprintf("%s at %s from %s to %s", i.Kind, i.Place, i.From.Format(time.TimeOnly), i.To.Format(time.TimeOnly))
}

func (i Incident) during(t time.Time) bool { return !t.Before(i.From) && t.Before(i.To) }

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
	node   int // of the burst, index of Water.Nodes
}

// findPlaces returns where each kind of incident can happen in c.
func findPlaces(c *county.County) map[string][]place {
	out := map[string][]place{}
	for i := range c.Devices {
		d := &c.Devices[i]
		switch {
		case attr(d, "kind") == "fire_lane":
			out[BlockedLane] = append(out[BlockedLane], place{name: attr(d, "lane"), device: d.ID})
		case d.Model == "smoke-detector":
			out[Fire] = append(out[Fire], place{name: attr(d, "zone"), device: d.ID})
		case attr(d, "quiet") != "":
			out[QuietLoad] = append(out[QuietLoad], place{name: attr(d, "building"), device: d.ID})
		}
	}
	for n, node := range c.Water.Nodes {
		if node.Burst {
			out[Burst] = append(out[Burst], place{name: node.DMA, device: nearestLogger(&c.Water, n), node: n})
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

// incident returns the one of kind in round r, counted from 0, and its place.
func (w *World) incident(kind string, r int64) (Incident, place) {
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
	return Incident{kind, p.name, p.device, from, from.Add(when.takes)}, p
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// upcoming returns the first incident of kind that is not over at t.
func (w *World) upcoming(kind string, t time.Time) (Incident, place) {
	for r := max(0, int64(t.Sub(w.start)/round)-1); ; r++ {
		if i, p := w.incident(kind, r); t.Before(i.To) {
			return i, p
		}
	}
}

// Incidents returns what happens between from and to, the truth that the
// platform can be judged by: of each kind in the order of time.
func (w *World) Incidents(from, to time.Time) []Incident {
	var out []Incident
	for _, kind := range [...]string{Fire, BlockedLane, QuietLoad, Burst} {
		if len(w.places[kind]) == 0 {
			continue
		}
		for t := from; ; {
			i, _ := w.upcoming(kind, t)
			if !i.From.Before(to) {
				break
			}
			out = append(out, i)
			t = i.To
		}
	}
	return out
}
