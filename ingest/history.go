package ingest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

// Archive is the durable log as History reads it.
type Archive interface {
	Read(ctx context.Context, after citywarden.Position) ([]citywarden.Record, error)
	Last() citywarden.Position
	Back(ctx context.Context, p citywarden.Position, n uint64) (citywarden.Position, error)
	// Seek returns the position of the last record before t, 0 for none, and
	// when the oldest record was logged, zero in an empty log.
	Seek(ctx context.Context, t time.Time) (before citywarden.Position, oldest time.Time, err error)
}

// Rows is what the time series hold.
type Rows interface {
	// Rows returns the readings of a measurement in the order of time, those of
	// one device at one time together, and never only some of those of one time.
	// None means that there are no more.
	Rows(ctx context.Context, domain citywarden.Domain, q citywarden.HistoryQuery) ([]citywarden.SeriesRow, error)
}

// History reads again what came in. It reads on its own, beside the consumers.
type History struct {
	Log       Archive
	Directory Directory
	Series    Rows
	Domains   []citywarden.Domain // the measurements in Series
}

// seriesEntries is how many entries at most are made of the series at a time.
const seriesEntries = 2048

// Entries calls f with what came in during q's time, in the order in which it
// did, as the consumers of the log got it: decoded with the models and devices
// of now, the same readings left out as repeated. What lies before the log
// comes from the time series, which know no arrivals, orders and ticks: each
// reading arrives when it was measured, and not once more with the message in the
// log that brought it late. A history that does not go back to q.From
// begins with a RecordStart. It returns since when the entries are
// from the log, q.To when none is. f owns the entries; its error ends the
// reading and is returned.
func (h *History) Entries(ctx context.Context, q citywarden.HistoryQuery, f func([]citywarden.Entry) error) (logged time.Time, err error) {
	before, oldest, err := h.Log.Seek(ctx, q.From)
	if err != nil {
		return time.Time{}, err
	}
	logged = q.From
	if oldest.IsZero() || oldest.After(q.To) {
		oldest = q.To
	}
	if oldest.After(q.From) {
		logged = oldest
		old := q
		old.To = oldest
		f = begun(f)
		if err := h.series(ctx, old, f); err != nil {
			return logged, err
		}
		f = unlike(old, f)
	}
	return logged, h.log(ctx, before, q, f)
}

// begun puts a RecordStart before the first entry.
func begun(f func([]citywarden.Entry) error) func([]citywarden.Entry) error {
	first := true
	return func(entries []citywarden.Entry) error {
		if first {
			first = false
			if err := f([]citywarden.Entry{{Record: citywarden.Record{Kind: citywarden.RecordStart, At: entries[0].At}}}); err != nil {
				return err
			}
		}
		return f(entries)
	}
}

// unlike leaves out the readings of told, the time that the series told of.
func unlike(told citywarden.HistoryQuery, f func([]citywarden.Entry) error) func([]citywarden.Entry) error {
	return func(entries []citywarden.Entry) error {
		for i := range entries {
			entries[i].Readings = slices.DeleteFunc(entries[i].Readings, func(r citywarden.Reading) bool {
				return !r.Time.Before(told.From) && r.Time.Before(told.To)
			})
		}
		return f(entries)
	}
}

// log reads what the log holds after a position.
func (h *History) log(ctx context.Context, before citywarden.Position, q citywarden.HistoryQuery, f func([]citywarden.Entry) error) error {
	end := h.Log.Last()
	if before >= end {
		return nil
	}
	d := newDecoder(h.Directory)
	d.only = q.Devices
	after := citywarden.Position(0)
	if before > 0 {
		var err error
		if after, err = h.Log.Back(ctx, before, duplicateWindow); err != nil {
			return err
		}
	}
	for after < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		recs, err := h.Log.Read(ctx, after)
		if err != nil {
			return err
		}
		after = groupEnd(recs[len(recs)-1].Position)
		entries := since(d.group(recs), before)
		for n := len(entries); n > 0 && !entries[n-1].At.Before(q.To); n = len(entries) {
			entries, after = entries[:n-1], end
		}
		if len(entries) == 0 {
			continue
		}
		if err := f(entries); err != nil {
			return err
		}
	}
	return nil
}

// series reads what the time series hold, the measurements merged by time.
func (h *History) series(ctx context.Context, q citywarden.HistoryQuery, f func([]citywarden.Entry) error) error {
	heads := make([]seriesHead, len(h.Domains))
	for i := range heads {
		heads[i] = seriesHead{domain: h.Domains[i], q: q}
	}
	var entries []citywarden.Entry
	flush := func() error {
		list := entries
		entries = nil // f may have kept it
		if len(list) == 0 {
			return ctx.Err()
		}
		return f(list)
	}
	for {
		var first *seriesHead
		for i := range heads {
			x := &heads[i]
			if err := x.fill(ctx, h.Series); err != nil {
				return fmt.Errorf("history before the log: %w", err)
			}
			if len(x.rows) > 0 && (first == nil || x.rows[0].Time.Before(first.rows[0].Time)) {
				first = x
			}
		}
		if first == nil {
			return flush()
		}
		if e, ok := h.entry(&first.rows[0]); ok {
			entries = append(entries, e)
		}
		first.rows = first.rows[1:]
		if len(entries) >= seriesEntries {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// seriesHead is how far a measurement is read.
type seriesHead struct {
	domain citywarden.Domain
	q      citywarden.HistoryQuery
	rows   []citywarden.SeriesRow
	end    bool
}

// fill fetches the next rows when there are none left.
func (s *seriesHead) fill(ctx context.Context, series Rows) (err error) {
	if len(s.rows) > 0 || s.end {
		return nil
	}
	if !s.q.From.Before(s.q.To) {
		s.end = true
		return nil
	}
	if s.rows, err = series.Rows(ctx, s.domain, s.q); err != nil {
		return err
	}
	if s.end = len(s.rows) == 0; !s.end {
		s.q.From = s.rows[len(s.rows)-1].Time.Add(1)
	}
	return nil
}

// entry makes of a row the message that it came with; ok is false when its
// device, or every metric of it, is not known any more.
func (h *History) entry(r *citywarden.SeriesRow) (e citywarden.Entry, ok bool) {
	device, model, err := h.Directory.Device(r.Device)
	if err != nil {
		return e, false
	}
	e = citywarden.Entry{
		Record: citywarden.Record{Kind: citywarden.RecordUplink, At: r.Time, Uplink: &citywarden.Uplink{Device: r.Device, Received: r.Time}},
		Device: device, Model: model,
	}
	for _, m := range model.Metrics {
		v, ok := r.Values[m.Name]
		if !ok || v.Kind() != m.Kind {
			continue
		}
		x := citywarden.Reading{Metric: m.Name, Value: v, Time: r.Time}
		if outside(&m, v) {
			x.Quality = citywarden.OutOfRange
		}
		e.Readings = append(e.Readings, x)
	}
	return e, len(e.Readings) > 0
}
