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

// gaps notices what is missing between the messages of each device. What it
// remembers is saved with the ledger; that of the device "" is when the platform itself began to run, or had no
// room for messages last, as it heard nobody before.
type gaps struct {
	heard   map[citywarden.DeviceID]citywarden.LastHeard
	changed map[citywarden.DeviceID]bool // since the last save
}

func (g *gaps) set(h citywarden.LastHeard) {
	g.heard[h.Device] = h
	g.changed[h.Device] = true
}

// note counts what was missing before e; row returns the row of an hour.
func (g *gaps) note(e *citywarden.Entry, row func(citywarden.DeviceID, time.Time) *citywarden.LedgerRow) {
	switch {
	case e.Kind == citywarden.RecordStart, e.Kind == citywarden.RecordDeaf:
		g.set(citywarden.LastHeard{At: e.At})
		return
	case e.Device == nil, e.Uplink != nil && e.Uplink.Protocol == citywarden.ProtocolWill:
		return
	}
	h, known := g.heard[e.Device.ID]
	now := e.At.UTC().Truncate(time.Hour)
	if known {
		from := h.At
		if start := g.heard[""].At; start.After(from) {
			from = start
		}
		heartbeat := e.Model.Heartbeat.Std()
		from = from.Add(heartbeat)
		if oldest := e.At.Add(-maxSilence); oldest.After(from) {
			from = oldest
		}
		if e.At.Sub(from) > heartbeat { // it counted as silent
			r := row(e.Device.ID, now)
			r.Gaps = append(r.Gaps, citywarden.Gap{From: from, To: e.At})
		}
		for from.Before(e.At) {
			hour := from.UTC().Truncate(time.Hour)
			end := hour.Add(time.Hour)
			if e.At.Before(end) {
				end = e.At
			}
			if s := int64(end.Sub(from) / time.Second); s > 0 {
				row(e.Device.ID, hour).Silent += s
			}
			from = hour.Add(time.Hour)
		}
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
