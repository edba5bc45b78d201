package ingest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

// rollupsThere is what of the rollups a query can use.
type rollupsThere struct {
	closed time.Time
	since  []map[citywarden.Domain]time.Time // by level
}

// publish lets queries use what is written.
func (r *Rollups) publish() {
	t := &rollupsThere{closed: r.closed}
	for _, l := range r.levels {
		t.since = append(t.since, l.since)
	}
	r.there.Store(t)
}

// Query returns the points of one metric of one device, as the series have
// them: raw, or one for each interval that has readings. Intervals of numbers come from the
// rollups of the longest windows that they are made of, as far as those are
// written; what is before them, the newest minutes, and the part of an
// interval that q begins or ends with, come from the readings.
func (r *Rollups) Query(ctx context.Context, q citywarden.SeriesQuery) ([]citywarden.SeriesPoint, error) {
	_, model, err := r.opt.Directory.Device(q.Device)
	if err != nil {
		return r.opt.Series.Query(ctx, q)
	}
	m, ok := model.Metric(q.Metric)
	if q.Agg == citywarden.AggIncrease && (!ok || !m.Counter || q.Every < time.Second) {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "series agg %s: the metric %s of a %s is no counter, or there is no interval of at least 1s", q.Agg, q.Metric, model.Name)
	}
	backwards := !q.From.IsZero() && !q.To.IsZero() && !q.From.Before(q.To)
	if !ok || m.Kind != citywarden.KindNumber || q.Every < time.Second || q.Limit < 0 || backwards || q.Agg != "" && !slices.Contains(citywarden.SeriesAggregates[:], q.Agg) {
		return r.opt.Series.Query(ctx, q) // which says what is wrong, if anything
	}
	if q.Limit == 0 {
		q.Limit = 10_000
	}
	s := intervals{r: r, q: q, rollover: m.Rollover()}
	level, from, to := r.span(q)
	for _, part := range []struct {
		from, to time.Time
		rolled   bool
	}{{q.From, from, false}, {from, to, true}, {to, q.To, false}} {
		switch {
		case len(s.points) >= q.Limit:
			return s.points[:q.Limit], nil
		case !part.from.IsZero() && !part.to.IsZero() && !part.from.Before(part.to):
			continue
		case part.rolled:
			err = s.rolled(ctx, level, part.from, part.to)
		default:
			err = s.raw(ctx, part.from, part.to)
		}
		if err != nil {
			return nil, err
		}
		if level == 0 {
			break // all of it was raw
		}
	}
	return s.points, nil
}

// span returns from which rollups q can be answered, and which part of it; 0 when it can't.
func (r *Rollups) span(q citywarden.SeriesQuery) (level time.Duration, from, to time.Time) {
	there := r.there.Load()
	if there == nil {
		return 0, q.To, q.To
	}
	levels := citywarden.RollupLevels()
	for i := len(levels) - 1; i >= 0; i-- {
		since, ok := there.since[i][q.Domain]
		if q.Every%levels[i] != 0 || !ok {
			continue
		}
		from, to = since, there.closed.Truncate(levels[i])
		if q.From.After(from) {
			from = q.From
		}
		if !q.To.IsZero() && q.To.Before(to) {
			to = q.To
		}
		if begin := floor(from, q.Every); begin.Before(from) {
			from = begin.Add(q.Every)
		}
		if to = floor(to, q.Every); from.Before(to) {
			return levels[i], from, to
		}
	}
	return 0, q.To, q.To
}

// floor returns the begin of the interval that t lies in; intervals begin at
// multiples of every since 1970.
func floor(t time.Time, every time.Duration) time.Time {
	ns := t.UnixNano() % int64(every)
	if ns < 0 {
		ns += int64(every)
	}
	return t.Add(-time.Duration(ns)).UTC()
}

// intervals collects the points of a query.
type intervals struct {
	r        *Rollups
	q        citywarden.SeriesQuery
	rollover float64
	before   citywarden.Rollup // the last interval with readings of the parts that were collected
	points   []citywarden.SeriesPoint
}

// raw appends what the readings in [from, to) come to.
func (s *intervals) raw(ctx context.Context, from, to time.Time) error {
	q := s.q
	q.From, q.To, q.Limit = from, to, q.Limit-len(s.points)
	if q.Agg != citywarden.AggIncrease {
		points, err := s.r.opt.Series.Query(ctx, q)
		s.points = append(s.points, points...)
		return err
	}
	q.Agg, q.Every = "", 0
	c := s.collect(from)
	if !from.IsZero() && s.before.Count == 0 {
		q.From = from.Add(-s.q.Every)
	}
	for q.Limit = 10_000; ; {
		points, err := s.r.opt.Series.Query(ctx, q)
		if err != nil {
			return err
		}
		for _, p := range points {
			if !c.add(p.Time, citywarden.RollupOf(p.Value.Float())) {
				return nil
			}
		}
		if len(points) < q.Limit {
			c.end()
			return nil
		}
		q.From = points[len(points)-1].Time.Add(1)
	}
}

// rolled appends what the rollups of a level in [from, to) come to.
func (s *intervals) rolled(ctx context.Context, level time.Duration, from, to time.Time) error {
	c := s.collect(from)
	q := citywarden.HistoryQuery{From: from, To: to, Devices: map[citywarden.DeviceID]bool{s.q.Device: true}}
	if s.q.Agg == citywarden.AggIncrease && s.before.Count == 0 {
		q.From = from.Add(-s.q.Every)
	}
	for q.From.Before(q.To) {
		rows, err := s.r.opt.Store.RollupRows(ctx, level, s.q.Domain, q)
		if err != nil {
			return fmt.Errorf("rollups of %s of %s: %w", s.q.Metric, s.q.Device, err)
		}
		if len(rows) == 0 {
			break
		}
		for i := range rows {
			if x, ok := rows[i].Metrics[s.q.Metric]; ok && !c.add(rows[i].Time, x) {
				return nil
			}
		}
		q.From = rows[len(rows)-1].Time.Add(1)
	}
	c.end()
	return nil
}

// collector merges readings or rollups, which come in the order of time, into
// the intervals of a query.
type collector struct {
	s     *intervals
	from  time.Time // what is before only precedes
	begin time.Time // of the interval that is open, zero for none
	total citywarden.Rollup
}

func (s *intervals) collect(from time.Time) *collector {
	return &collector{s: s, from: from, total: s.before}
}

// add takes the next one; false means that there are points enough.
func (c *collector) add(at time.Time, x citywarden.Rollup) bool {
	if at.Before(c.from) {
		c.total = citywarden.RollupOf(x.Last)
		return true
	}
	begin := floor(at, c.s.q.Every)
	switch {
	case c.begin.Equal(begin):
		c.total.Merge(x, c.s.rollover)
		return true
	case !c.begin.IsZero():
		c.end()
	}
	before := c.total
	c.begin, c.total = begin, x
	if before.Count > 0 {
		c.total.Increase += citywarden.Increase(before.Last, x.First, c.s.rollover)
	}
	return len(c.s.points) < c.s.q.Limit
}

// end appends the point of the interval that is open.
func (c *collector) end() {
	c.s.before = c.total
	if !c.begin.IsZero() {
		c.s.points = append(c.s.points, citywarden.SeriesPoint{Time: c.begin, Value: citywarden.Number(c.total.Value(c.s.q.Agg))})
	}
}
