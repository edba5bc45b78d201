package simulators

import (
	"time"

	"github.com/citywarden/citywarden"
)

// gauge is a device that reports by its timer, at once when something begins or
// ends that happens to it, and often meanwhile.
type gauge struct {
	w     *World
	dev   *citywarden.Device
	id    uint64
	beat  clock
	fast  time.Duration // between reports while something happens; 0 for no more than ever
	write func(b *body, t time.Time)
	kinds []string // what may happen to it

	also func(t, next time.Time) time.Time // an earlier report than next, after t; may be nil
}

func newGauge(w *World, dev *citywarden.Device, id uint64, beat clock, fast time.Duration, write func(*body, time.Time), kinds ...string) *gauge {
	return &gauge{w: w, dev: dev, id: id, beat: beat, fast: fast, write: write, kinds: kinds}
}

// hit reports whether i happens to the device: to itself, to its zone or
// building, or everywhere.
func (g *gauge) hit(i Incident) bool {
	switch {
	case i.Device == g.dev.ID, i.Device == "" && i.Place == "":
		return true
	case i.Kind == Fire:
		return i.Place == attr(g.dev, "zone")
	default:
		return i.Device == "" && i.Place == attr(g.dev, "building")
	}
}

// now returns what of kind happens to the device at t.
func (g *gauge) now(kind string, t time.Time) (Incident, bool) {
	for i := range g.w.now(kind, t) {
		if g.hit(i) {
			return i, true
		}
	}
	return Incident{}, false
}

func (g *gauge) next(t time.Time) time.Time {
	next := g.beat.next(t)
	for _, kind := range g.kinds {
		for i := range g.w.all(kind, t) {
			if i.From.After(next) {
				break
			}
			switch {
			case !g.hit(i):
			case t.Before(i.From):
				next = earlier(next, i.From)
			default:
				next = earlier(next, i.To)
				if g.fast > 0 {
					next = earlier(next, i.From.Add((t.Sub(i.From)/g.fast+1)*g.fast))
				}
			}
		}
	}
	if g.also != nil {
		next = g.also(t, next)
	}
	return next
}

func (g *gauge) read(b *body, t time.Time) { g.write(b, t) }
