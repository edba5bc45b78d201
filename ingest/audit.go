package ingest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

const (
	// auditPoints is how many points at most are held before they are looked for.
	auditPoints = 500_000
	// auditRows is how many rows of the time series at most are read at once: a statement that has to go through many
	// devices costs as much as 50,000 rows of its answer. With four metrics they take 24 MB, and up to 55 MB while the answer is
	// read, that of an InfluxDB of its own as that of the core.
	auditRows = 50_000
	// auditStep is for how long there may be no point to be looked for in what one statement reads.
	auditStep = 5 * time.Minute
	// auditFirst is how many differences are told one by one.
	auditFirst = 100
)

// Auditor compares the durable log, the ledger and the time series.
type Auditor struct {
	History
	Ledger *Ledger
	// Written returns up to where the time series are written.
	Written   func(context.Context) (citywarden.Position, error)
	Retention time.Duration // of the time series, 0 for ever
}

// Audit reads the log again, from the full hour at or before from to its end,
// with the models and devices of now, and compares what it says with the ledger, hour by hour,
// and with the time series, reading by reading. What cannot be compared is in
// the notes. An error says that the comparison could not be made.
func (a *Auditor) Audit(ctx context.Context, from time.Time) (citywarden.Audit, error) {
	now := time.Now().UTC()
	r := auditRun{
		Auditor: a, from: from.UTC().Truncate(time.Hour), current: now.Truncate(time.Hour), old: now.Add(-a.Retention),
		unknown: map[citywarden.DeviceID]bool{}, points: map[auditPoint]bool{},
		out: citywarden.Audit{Differences: []citywarden.Difference{}, Notes: []string{}},
	}
	if err := r.run(ctx); err != nil {
		return citywarden.Audit{}, fmt.Errorf("audit: %w", err)
	}
	return r.out, nil
}

// auditRun is one Audit.
type auditRun struct {
	*Auditor
	from    time.Time // the first hour
	current time.Time // the hour that is not over
	old     time.Time // before it the time series may hold nothing any more

	end    citywarden.Position // up to where the ledger counts
	series citywarden.Position // up to where the series are written

	refused map[citywarden.Position]bool // messages of which the series refused something
	again   map[citywarden.Position]bool // messages that were brought in again, the ledger has what they were before
	newest  []citywarden.LedgerRow       // of the current hour, as of end
	unknown map[citywarden.DeviceID]bool

	hour  time.Time // whose rows are in rows; zero before the first
	rows  map[citywarden.DeviceID]*citywarden.LedgerRow
	vague map[citywarden.DeviceID]bool // some of its readings were refused
	since map[citywarden.DeviceID]bool // some of its messages can be used since they were brought in again

	points   map[auditPoint]bool
	replayed int // messages that were brought in again
	out      citywarden.Audit
}

// auditPoint is a point of the series that must be there.
type auditPoint struct {
	domain citywarden.Domain
	device citywarden.DeviceID
	metric citywarden.MetricName
	at     int64 // nanoseconds since 1970
}

func (r *auditRun) run(ctx context.Context) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	before, oldest, err := r.Log.Seek(ctx, r.from)
	if err != nil || oldest.IsZero() {
		r.out.From, r.out.To = r.from, r.from
		return err
	}
	d := newDecoder(r.Directory)
	after := citywarden.Position(0)
	if before > 0 {
		if after, err = r.Log.Back(ctx, before, duplicateWindow); err != nil {
			return err
		}
	}
	if err := r.amended(ctx, after); err != nil {
		return err
	}
	trimmed := false
	for first := true; after < r.end; first = false {
		recs, err := r.Log.Read(ctx, after)
		if err != nil {
			return err
		}
		if first && after == 0 {
			trimmed = recs[0].Position.Group() > 1
		}
		after = groupEnd(recs[len(recs)-1].Position)
		entries := d.group(recs)
		for i := range entries {
			e := &entries[i]
			hour := e.At.UTC().Truncate(time.Hour)
			if e.Position > r.end || hour.Before(r.from) {
				continue
			}
			if trimmed { // what is in front is needed to know the duplicates, and the whole of an hour
				if d.n < duplicateWindow || hour.Before(oldest) {
					r.from = hour.Add(time.Hour)
					continue
				}
			}
			if err := r.entry(ctx, e, hour); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if err := r.advance(ctx, r.current.Add(time.Hour)); err != nil {
		return err
	}
	if err := r.look(ctx); err != nil {
		return err
	}
	r.out.From = r.from
	if r.out.To.IsZero() {
		r.out.To = r.from
	}
	if trimmed {
		r.note("the log begins at %s: what came before, and what is needed to tell duplicates, can't be compared", oldest.Format(time.RFC3339))
	}
	if r.replayed > 0 {
		r.note("dead letters brought in again since: %d; the ledger keeps what they were, so of those devices and hours only the messages were compared with it", r.replayed)
	}
	if n := len(r.unknown); n > 0 {
		r.note("the messages of %d devices that are not registered any more were not compared", n)
	}
	return nil
}

// begin notes up to where each book is written.
func (r *auditRun) begin(ctx context.Context) error {
	var err error
	if r.series, err = r.Written(ctx); err != nil {
		return err
	}
	r.newest, r.end, err = r.Ledger.balance(ctx, r.current)
	if err != nil {
		return err
	}
	if last := r.Log.Last(); last > r.end {
		r.note("the ledger is %d commit groups behind the log", last.Group()-r.end.Group())
	}
	if r.series < r.end {
		r.note("the time series are %d commit groups behind the ledger: what lies there was not looked for", r.end.Group()-r.series.Group())
	}
	return nil
}

// amended notes which messages behind after are not in the books any more as they were logged.
func (r *auditRun) amended(ctx context.Context, after citywarden.Position) error {
	refused, again, err := r.Ledger.store.Amended(ctx, after)
	if err != nil {
		return err
	}
	r.refused, r.again = map[citywarden.Position]bool{}, map[citywarden.Position]bool{}
	for _, p := range refused {
		r.refused[p] = true
	}
	for _, p := range again {
		r.again[p] = true
	}
	return nil
}

func (r *auditRun) note(format string, args ...any) {
	r.out.Notes = append(r.out.Notes, fmt.Sprintf(format, args...))
}

func (r *auditRun) differ(d citywarden.Difference) {
	if r.out.Found++; len(r.out.Differences) < auditFirst {
		r.out.Differences = append(r.out.Differences, d)
	}
}

// entry counts e, which was logged in hour.
func (r *auditRun) entry(ctx context.Context, e *citywarden.Entry, hour time.Time) error {
	r.out.To = e.At
	if e.Kind != citywarden.RecordUplink {
		return nil
	}
	if err := r.advance(ctx, hour); err != nil {
		return err
	}
	id := e.Uplink.Device
	if e.Device == nil {
		r.unknown[id] = true
		return nil
	}
	row := r.rows[id]
	if row == nil {
		row = &citywarden.LedgerRow{Device: id, Hour: hour}
		r.rows[id] = row
	}
	row.Add(e)
	if r.again[e.Position] {
		r.since[id] = true
		r.replayed++
	}
	r.out.Messages++
	r.out.Readings += int64(len(e.Readings))
	if r.refused[e.Position] {
		r.vague[id] = true
		return nil
	}
	if e.Position > r.series {
		return nil
	}
	for i := range e.Readings {
		x := &e.Readings[i]
		if f := x.Value.Float(); f-f != 0 || r.Retention > 0 && x.Time.Before(r.old) {
			continue // infinite, or too old to be kept
		}
		r.points[auditPoint{e.Model.Domain, id, x.Metric, x.Time.UnixNano()}] = true
	}
	if len(r.points) >= auditPoints {
		return r.look(ctx)
	}
	return nil
}

// advance compares every hour before hour with the ledger.
func (r *auditRun) advance(ctx context.Context, hour time.Time) error {
	if r.hour.IsZero() {
		r.open(r.from)
	}
	for r.hour.Before(hour) {
		if err := r.close(ctx); err != nil {
			return err
		}
		r.open(r.hour.Add(time.Hour))
	}
	return nil
}

func (r *auditRun) open(hour time.Time) {
	r.hour, r.rows = hour, map[citywarden.DeviceID]*citywarden.LedgerRow{}
	r.vague, r.since = map[citywarden.DeviceID]bool{}, map[citywarden.DeviceID]bool{}
}

// close compares the hour that ended with the ledger.
func (r *auditRun) close(ctx context.Context) error {
	rows := r.newest
	if r.hour.Before(r.current) {
		var err error
		if rows, err = r.Ledger.store.LedgerRows(ctx, r.hour, r.hour.Add(time.Hour), ""); err != nil {
			return err
		}
	}
	for _, got := range rows {
		if want := r.rows[got.Device]; got.Hour.Equal(r.hour) && !r.unknown[got.Device] {
			if want == nil {
				want = &citywarden.LedgerRow{}
			}
			r.compare(want, &got)
		}
		delete(r.rows, got.Device)
	}
	for _, id := range slices.Sorted(maps.Keys(r.rows)) {
		if !r.unknown[id] {
			r.compare(r.rows[id], &citywarden.LedgerRow{Device: id, Hour: r.hour})
		}
	}
	return nil
}

// compare compares a row as the log has it with that of the ledger.
func (r *auditRun) compare(want, got *citywarden.LedgerRow) {
	var off []string
	tell := func(what string, w, g int64) {
		if w != g {
			off = append(off, fmt.Sprintf("%s: %d in the log, %d in the ledger", what, w, g))
		}
	}
	tell("messages", want.Messages, got.Messages)
	if !r.since[got.Device] { // else what was one rejected message may be many readings now
		if r.vague[got.Device] { // some are rejected by now
			tell("stored and rejected", want.Stored+want.Rejected, got.Stored+got.Rejected)
		} else {
			tell("stored", want.Stored, got.Stored)
			tell("rejected", want.Rejected, got.Rejected)
		}
		tell("duplicate", want.Duplicate, got.Duplicate)
		tell("quarantined", want.Quarantined, got.Quarantined)
	}
	if len(off) > 0 {
		if want.Messages == got.Messages {
			off = append(off, "a model, or the device, that was changed since then is decoded differently now")
		}
		r.differ(citywarden.Difference{
			Book: ledgerName, Device: got.Device, Hour: r.hour, Expected: want.Received, Found: got.Received,
			Text: strings.Join(off, "; "),
		})
	}
}

// look looks for the points that were collected.
func (r *auditRun) look(ctx context.Context) error {
	r.out.Points += int64(len(r.points))
	for _, s := range r.spans() {
		q := citywarden.HistoryQuery{From: time.Unix(0, s.from), To: time.Unix(0, s.to+1), Devices: s.devices, Rows: auditRows}
		for q.From.Before(q.To) {
			rows, err := r.Series.Rows(ctx, s.domain, q)
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
			for i := range rows {
				for metric := range rows[i].Values {
					delete(r.points, auditPoint{s.domain, rows[i].Device, metric, rows[i].Time.UnixNano()})
				}
			}
			q.From = rows[len(rows)-1].Time.Add(1)
		}
	}
	r.missing()
	clear(r.points)
	return nil
}

// auditSpan is a time in which there are points to be looked for.
type auditSpan struct {
	domain   citywarden.Domain
	step     int64 // the last auditStep of it, counted since 1970
	from, to int64 // the oldest and the newest, in nanoseconds since 1970
	devices  map[citywarden.DeviceID]bool
}

// spans returns where points are to be looked for: nothing is read in which there are none for long, so that little is read
// again for the next points, and a statement is made for many.
func (r *auditRun) spans() []*auditSpan {
	type place struct {
		domain citywarden.Domain
		step   int64
	}
	where := map[place]*auditSpan{}
	for p := range r.points {
		at := place{p.domain, p.at / int64(auditStep)}
		s := where[at]
		if s == nil {
			s = &auditSpan{at.domain, at.step, p.at, p.at, map[citywarden.DeviceID]bool{}}
			where[at] = s
		}
		s.from, s.to = min(s.from, p.at), max(s.to, p.at)
		s.devices[p.device] = true
	}
	all := slices.SortedFunc(maps.Values(where), func(a, b *auditSpan) int {
		return cmp.Or(cmp.Compare(a.domain, b.domain), cmp.Compare(a.step, b.step))
	})
	spans := all[:0]
	for _, s := range all {
		if n := len(spans); n > 0 {
			if x := spans[n-1]; x.domain == s.domain && x.step+1 == s.step && s.to-x.from <= int64(time.Hour) {
				x.step, x.to = s.step, s.to
				maps.Copy(x.devices, s.devices)
				continue
			}
		}
		spans = append(spans, s)
	}
	return spans
}

// missing tells of the points that are left.
func (r *auditRun) missing() {
	type group struct {
		device citywarden.DeviceID
		metric citywarden.MetricName
		hour   int64
	}
	count := map[group]int64{}
	for p := range r.points {
		count[group{p.device, p.metric, p.at / int64(time.Hour)}]++
	}
	groups := make([]group, 0, len(count))
	for g := range count {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b group) int {
		return strings.Compare(fmt.Sprint(a.device, "\x00", a.metric, "\x00", a.hour), fmt.Sprint(b.device, "\x00", b.metric, "\x00", b.hour))
	})
	for _, g := range groups {
		r.differ(citywarden.Difference{
			Book: "series", Device: g.device, Metric: g.metric, Hour: time.Unix(0, g.hour*int64(time.Hour)).UTC(), Expected: count[g],
			Text: fmt.Sprintf("%d readings are in the log and not in the time series", count[g]),
		})
	}
}
