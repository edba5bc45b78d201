package ingest

import (
	"context"
	"time"

	"github.com/citywarden/citywarden"
)

// importAge is how old readings must be to be imported: what is newer comes from the devices.
const importAge = time.Hour

// Import stores readings of the past beside those that came in: they raise no
// alarms and are in no ledger, but in the series and the rollups. It may be
// called again with the same. refused says of each reading why it was not stored, nil when it
// was. An error says that some may be stored and some not.
func (r *Rollups) Import(ctx context.Context, readings []citywarden.DeviceReading) (refused []error, err error) {
	refused = make([]error, len(readings))
	newest := time.Now().Add(-importAge)
	entries := make([]citywarden.Entry, 0, len(readings))
	index := make([]int, 0, len(readings)) // of the reading of each entry
	for i := range readings {
		x := &readings[i]
		d, model, err := r.opt.Directory.Device(x.Device)
		if err != nil {
			refused[i] = err
			continue
		}
		m, ok := model.Metric(x.Metric)
		switch {
		case !ok:
			refused[i] = citywarden.Errorf(citywarden.CodeInvalid, "a %s has no metric %q", model.Name, x.Metric)
			continue
		case m.Kind != x.Value.Kind():
			refused[i] = citywarden.Errorf(citywarden.CodeInvalid, "%s of a %s is a %s, not %s", x.Metric, model.Name, m.Kind, x.Value)
			continue
		case x.Time.Before(earliest()) || x.Time.After(newest):
			refused[i] = citywarden.Errorf(citywarden.CodeInvalid, "time %s: history lies between 2015 and an hour ago", x.Time.Format(time.RFC3339))
			continue
		}
		entries = append(entries, citywarden.Entry{
			Record: citywarden.Record{Kind: citywarden.RecordUplink, At: x.Time, Uplink: &citywarden.Uplink{Device: d.ID, Received: x.Time}},
			Device: d, Model: model, Readings: []citywarden.Reading{x.Reading},
		})
		index = append(index, i)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.begun {
		return nil, citywarden.Errorf(citywarden.CodeTransient, "the rollups have not begun since the start; try again in a minute")
	}
	if !r.to.IsZero() { // a flush that failed before
		if err := r.flush(ctx); err != nil {
			return nil, err
		}
	}
	bad, err := r.opt.Series.Store(ctx, entries)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		if bad[i] != nil {
			refused[index[i]] = bad[i]
			continue
		}
		entries[i].Position = r.reached // a cursor must not wait for it
		r.add(&entries[i])
	}
	if !r.late {
		return refused, nil
	}
	r.to = r.closed
	return refused, r.flush(ctx)
}

// Export calls f with the readings in q's time, a domain after the other, each
// in the order of time.
func (r *Rollups) Export(ctx context.Context, q citywarden.HistoryQuery, f func([]citywarden.SeriesRow) error) error {
	for _, d := range r.opt.Domains {
		for q := q; q.From.Before(q.To); {
			rows, err := r.opt.Store.Rows(ctx, d, q)
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
			if err := f(rows); err != nil {
				return err
			}
			q.From = rows[len(rows)-1].Time.Add(1)
		}
	}
	return nil
}
