package ingest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
)

// decoders are those that decode the log at the time. What one of them has read to know the duplicates
// serves another that begins where it does or later, so that of many small groups each is read once
// for all of them.
type decoders struct {
	mu     sync.Mutex
	added  uint64
	active []*logDecoder
}

// add returns a decoder of what comes after from, to be opened and closed. It waits for what those that were added
// before read, so whoever opens it does so while they are opened too.
func (s *decoders) add(p *Pipeline, from citywarden.Position) *logDecoder {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.added++
	d := &logDecoder{p: p, from: from, number: s.added}
	s.active = append(s.active, d)
	return d
}

func (s *decoders) remove(d *logDecoder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = slices.DeleteFunc(s.active, func(x *logDecoder) bool { return x == d })
}

// before returns the others that began where d does or before, the nearest first.
func (s *decoders) before(d *logDecoder) []*logDecoder {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*logDecoder
	for _, x := range s.active {
		// Of two at one group only one waits for the other.
		if g := x.from.Group(); g < d.from.Group() || g == d.from.Group() && x.number < d.number {
			list = append(list, x)
		}
	}
	slices.SortFunc(list, func(a, b *logDecoder) int { return cmp.Compare(b.from, a.from) })
	return list
}

// logDecoder decodes the log from some position on. One goroutine works with it.
type logDecoder struct {
	p      *Pipeline
	from   citywarden.Position // what is before is only looked at for duplicates
	number uint64              // how many were added before

	waiting func() // called when the log can't be read, before it is tried again; nil for nothing

	decoding time.Time // when the newest group came to be decoded

	mu    sync.Mutex // for those that want to go on from its window
	state *decoder
	after citywarden.Position // what was read so far
	ready bool                // all groups before that of from were read, or it is closed
	asked []chan window       // who waits for that; each has room for the answer
}

// window is what a decoder knows at a position.
type window struct {
	state *decoder // nil for none
	after citywarden.Position
}

// open reads nothing yet, but finds where to begin: so far before d.from that it knows
// the same duplicates as a decoder that has been running for ever, or where another does already.
func (d *logDecoder) open(ctx context.Context) {
	own := window{newDecoder(d.p.directory), d.from}
	for wait := minBackoff; d.from > 0; wait = min(2*wait, maxBackoff) {
		back, err := d.p.log.Back(ctx, d.from, duplicateWindow)
		if err == nil {
			own.after = back
			break
		}
		if ctx.Err() != nil {
			break
		}
		d.p.logger.Error("log not read", "err", err)
		d.refuse()
		if !pause(ctx, wait) {
			break
		}
	}
	for _, x := range d.p.decoders.before(d) {
		if w := x.window(ctx, own.after, d.from); w.state != nil {
			own = w
			break
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state, d.after = own.state, own.after
}

// close ends the use of d by others.
func (d *logDecoder) close() {
	d.p.decoders.remove(d)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.share(window{})
}

// window returns what d knows at a position after back and before the group of from, which is its own or a later one.
// It waits until d has read so far; none when d has nothing to tell there.
func (d *logDecoder) window(ctx context.Context, back, from citywarden.Position) window {
	d.mu.Lock()
	if d.ready {
		defer d.mu.Unlock()
		if d.state == nil || d.after <= back || d.after.Group() >= from.Group() {
			return window{}
		}
		return window{d.state.fork(), d.after}
	}
	if d.from.Group() <= back.Group()+1 { // too far back
		d.mu.Unlock()
		return window{}
	}
	answer := make(chan window, 1)
	d.asked = append(d.asked, answer)
	d.mu.Unlock()
	select {
	case w := <-answer:
		return w
	case <-ctx.Done():
		return window{}
	}
}

// refuse lets those who wait go on by themselves, as d can't read what lies before it: they may need less of it.
func (d *logDecoder) refuse() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, answer := range d.asked {
		answer <- window{}
	}
	d.asked = nil
}

// share answers those who wait with w; d.mu is locked.
func (d *logDecoder) share(w window) {
	d.ready = true
	for _, answer := range d.asked {
		if w.state == nil {
			answer <- w
		} else {
			answer <- window{w.state.fork(), w.after}
		}
	}
	d.asked = nil
}

// next returns the next group; ok is false when ctx is done.
func (d *logDecoder) next(ctx context.Context) (entries []citywarden.Entry, ok bool) {
	for wait := minBackoff; ; {
		if ctx.Err() != nil {
			return nil, false
		}
		recs, err := d.p.log.Read(ctx, d.after)
		if err != nil {
			if ctx.Err() != nil {
				return nil, false
			}
			d.p.logger.Error("log not read", "err", err)
			d.refuse()
			if d.waiting != nil {
				d.waiting()
			}
			if !pause(ctx, wait) {
				return nil, false
			}
			wait = min(2*wait, maxBackoff)
			continue
		}
		wait = minBackoff
		d.decoding = time.Now()
		if entries = d.group(recs); len(entries) > 0 {
			return entries, true
		}
	}
}

// group decodes recs, the next group, and returns what of it is after d.from.
func (d *logDecoder) group(recs []citywarden.Record) []citywarden.Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ready && recs[0].Position.Group() >= d.from.Group() {
		d.share(window{d.state, d.after})
	}
	entries := since(d.state.group(recs), d.from)
	d.after = groupEnd(recs[len(recs)-1].Position)
	return entries
}

// fork returns a decoder that knows what d does, and goes on without it.
func (d *decoder) fork() *decoder {
	return &decoder{directory: d.directory, only: d.only, seed: d.seed, n: d.n, old: d.old, cur: maps.Clone(d.cur), begun: d.begun}
}
