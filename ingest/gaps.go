package ingest

import (
	"math"
	"time"

	"github.com/citywarden/citywarden"
)

const (
	// maxMissing is the longest gap in sequence numbers that is believed: a
	// larger one is a device that began to count anew.
	maxMissing = 10_000
	// maxLate is how far back a sequence number may be to be a message that comes late.
	maxLate = 64
	// maxSilence is how long before a message silence is counted at most.
	maxSilence = 31 * 24 * time.Hour
)

// maxOutages is how many outages are remembered one by one; beyond, the oldest become one.
const maxOutages = 1024

// gaps notices what is missing between the messages of each device. What it
// remembers is saved with the ledger.
type gaps struct {
	heard   map[citywarden.DeviceID]citywarden.LastHeard
	changed map[citywarden.DeviceID]bool // since the last save
	last    time.Time                    // when the newest record was logged: until then the platform heard
	outages []citywarden.Gap             // in which it heard nobody, by time, as far back as silence is counted
	unsaved []citywarden.Gap             // those that began, or lasted longer, since the last save
}

// load takes what was saved.
func (g *gaps) load(heard []citywarden.LastHeard, outages []citywarden.Gap) {
	for _, h := range heard {
		if h.Device == "" {
			g.last = h.At
			continue
		}
		g.heard[h.Device] = h
	}
	g.outages = outages
	g.bound()
}

// save returns what is to be saved of g.
func (g *gaps) save() (heard []citywarden.LastHeard, outages []citywarden.Gap) {
	heard = make([]citywarden.LastHeard, 0, len(g.changed)+1)
	for id := range g.changed {
		heard = append(heard, g.heard[id])
	}
	return append(heard, citywarden.LastHeard{At: g.last}), g.unsaved
}

// saved notes that what save returned is.
func (g *gaps) saved() {
	clear(g.changed)
	g.unsaved = nil
}

func (g *gaps) set(h citywarden.LastHeard) {
	g.heard[h.Device] = h
	g.changed[h.Device] = true
}

// outage notes that nobody was heard from since to at. What follows an outage within what is none is part of it.
func (g *gaps) outage(since, at time.Time) {
	if since.After(at) { // our clock was set back
		since = at
	}
	o := citywarden.Gap{From: since, To: at, Outage: true}
	if n := len(g.outages); n > 0 && since.Sub(g.outages[n-1].To) < citywarden.Outage {
		o.From = g.outages[n-1].From
		if o.To.Before(g.outages[n-1].To) {
			o.To = g.outages[n-1].To
		}
		g.outages = g.outages[:n-1]
	}
	g.outages = append(g.outages, o)
	if n := len(g.unsaved); n > 0 && g.unsaved[n-1].From.Equal(o.From) {
		g.unsaved = g.unsaved[:n-1]
	}
	g.unsaved = append(g.unsaved, o)
	g.bound()
}

// bound forgets outages of before silence is counted from, and makes the oldest one of those that are too many: nobody is
// silent for what lies between them.
func (g *gaps) bound() {
	for len(g.outages) > 0 && g.last.Sub(g.outages[0].To) > maxSilence {
		g.outages = g.outages[1:]
	}
	if n := len(g.outages) - maxOutages; n > 0 {
		g.outages[n].From = g.outages[0].From
		g.outages = g.outages[n:]
	}
}

// silences calls f for each time in which a device was silent by itself before it was heard at at. It is from a
// heartbeat after it was heard before, and counted says that it lasted for another one, so that the device counted as silent.
// An outage of ours is no silence. A device that did not count as silent when it began has a heartbeat to come back. One that did
// was silent until then, and after it from its end, unless it was heard within a heartbeat: then it may have come back meanwhile.
// What is shorter than an outage does not interrupt a silence.
func (g *gaps) silences(before, at time.Time, heartbeat time.Duration, f func(from, to time.Time, counted bool)) {
	from, silent := before.Add(heartbeat), false
	if oldest := at.Add(-maxSilence); oldest.After(from) {
		from = oldest
	}
	until := func(to time.Time) {
		switch d := to.Sub(from); {
		case d > heartbeat:
			f(from, to, true)
			silent = true
		case d > 0 && !silent:
			f(from, to, false)
		}
	}
	i := len(g.outages)
	for i > 0 && g.outages[i-1].To.After(before) {
		i--
	}
	for _, o := range g.outages[i:] {
		if o.To.Sub(o.From) < citywarden.Outage && (silent || o.From.Sub(from) > heartbeat) {
			continue
		}
		until(o.From)
		again := o.To
		if !silent {
			again = again.Add(heartbeat)
		}
		if again.After(from) {
			from = again
		}
	}
	until(at)
}

// note counts what was missing before e; row returns the row of an hour.
func (g *gaps) note(e *citywarden.Entry, row func(citywarden.DeviceID, time.Time) *citywarden.LedgerRow) {
	last := g.last
	g.last = e.At
	switch {
	case e.Kind == citywarden.RecordStart && last.IsZero(): // for the first time
		return
	case e.Kind == citywarden.RecordStart:
		g.outage(last, e.At)
		return
	case e.Kind == citywarden.RecordDeaf:
		since := e.At
		if e.Lasted > 0 {
			since = e.Since()
		}
		g.outage(since, e.At)
		return
	case e.Device == nil, e.Uplink != nil && e.Uplink.Protocol == citywarden.ProtocolWill:
		return
	}
	h, known := g.heard[e.Device.ID]
	now := e.At.UTC().Truncate(time.Hour)
	if heartbeat := e.Model.Heartbeat.Std(); known && e.At.Sub(h.At) > heartbeat {
		g.silences(h.At, e.At, heartbeat, func(from, to time.Time, counted bool) {
			if counted {
				r := row(e.Device.ID, now)
				r.Gaps = append(r.Gaps, citywarden.Gap{From: from, To: to})
			}
			for from.Before(to) {
				hour := from.UTC().Truncate(time.Hour)
				end := hour.Add(time.Hour)
				if to.Before(end) {
					end = to
				}
				if s := int64(end.Sub(from) / time.Second); s > 0 {
					row(e.Device.ID, hour).Silent += s
				}
				from = end
			}
		})
	}
	if e.Missing > 0 {
		row(e.Device.ID, e.At.UTC().Truncate(time.Hour)).Missing += int64(e.Missing)
	}
	h.Device, h.At = e.Device.ID, e.At
	for i := range e.Model.Metrics {
		if m := &e.Model.Metrics[i]; m.Sequence {
			for k := range e.Readings {
				if r := &e.Readings[k]; r.Metric == m.Name {
					before := h.Numbered
					missing := next(&h, m, r)
					if missing == 0 {
						continue
					}
					l := row(e.Device.ID, now)
					l.Missing += missing
					gap := citywarden.Gap{From: before, To: r.Time, Missing: missing}
					if missing < 0 {
						gap = citywarden.LateMessage
					}
					if missing < 0 || !gap.From.IsZero() && gap.From.Before(gap.To) {
						l.Gaps = append(l.Gaps, gap)
					}
				}
			}
		}
	}
	g.set(h)
}

// next takes a sequence number and returns how many messages are missing before it, -1 for
// one that was counted as missing and comes late.
func next(h *citywarden.LastHeard, m *citywarden.Metric, r *citywarden.Reading) int64 {
	number := r.Value.Float()
	if number != math.Trunc(number) || math.Abs(number) > 1<<53 {
		return 0
	}
	n := int64(number)
	if !h.Sequenced {
		h.Sequence, h.Sequenced, h.Numbered = n, true, r.Time
		return 0
	}
	ahead := n - h.Sequence
	if m.Max != nil {
		first := int64(0)
		if m.Min != nil {
			first = int64(*m.Min)
		}
		if around := int64(*m.Max) - first + 1; around > 2*maxLate {
			ahead = ((ahead % around) + around) % around
			if ahead > around-maxLate-1 {
				ahead -= around
			}
		}
	}
	switch {
	case ahead == 0:
		return 0
	case ahead < 0 && ahead >= -maxLate:
		return -1
	}
	h.Sequence, h.Numbered = n, r.Time
	if ahead < 0 || ahead > maxMissing {
		return 0
	}
	return ahead - 1
}
