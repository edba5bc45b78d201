package ingest

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

const (
	// groupTimeout is how long a query by groups may take.
	groupTimeout = 30 * time.Second
	// groupPoints is how many points the groups of a query may have together.
	groupPoints = 100_000
)

// Groups returns the points of one metric of all devices of a domain, put
// together by a tag and an interval: from the rollups as far as they go, like Query. Devices
// without the tag are the group "". An increase is the sum of those of the devices. CodeInvalid
// for a query that makes no sense or has too many points, CodeTransient when it takes more than 30 s.
func (r *Rollups) Groups(ctx context.Context, q citywarden.GroupQuery) ([]citywarden.SeriesGroup, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, groupTimeout)
	defer cancel()
	g := groups{r: r, q: q, devices: map[citywarden.DeviceID]*groupMember{}, points: map[string]map[int64]*citywarden.Rollup{}}
	level, from, to := r.span(citywarden.SeriesQuery{Domain: q.Domain, From: q.From, To: q.To, Every: q.Every})
	parts := []groupPart{{0, q.From, from}, {level, from, to}, {0, to, q.To}}
	if level == 0 {
		parts = []groupPart{{0, q.From, q.To}}
	}
	for _, p := range parts {
		if err := g.read(ctx, p); err != nil {
			if ctx.Err() != nil {
				return nil, citywarden.Errorf(citywarden.CodeTransient, "group %s of %s: %w; ask for a shorter time or a longer interval", q.Metric, q.Domain, ctx.Err())
			}
			return nil, err
		}
	}
	return g.result(), nil
}

// groupPart is a part of a query: of a level, or with 0 of the readings.
type groupPart struct {
	level    time.Duration
	from, to time.Time
}

type groups struct {
	r       *Rollups
	q       citywarden.GroupQuery
	devices map[citywarden.DeviceID]*groupMember // nil for one without the metric
	points  map[string]map[int64]*citywarden.Rollup
	n       int
}

// groupMember is a device of a group.
type groupMember struct {
	group    string
	rollover float64
	seen     bool
	last     float64
}

func (g *groups) member(id citywarden.DeviceID) *groupMember {
	m, known := g.devices[id]
	if known {
		return m
	}
	if d, model, err := g.r.opt.Directory.Device(id); err == nil && g.q.Area.Has(d.Grid) {
		if metric, ok := model.Metric(g.q.Metric); ok && metric.Kind == citywarden.KindNumber && (g.q.Agg != citywarden.AggIncrease || metric.Counter) {
			m = &groupMember{group: g.q.Tag(d), rollover: metric.Rollover()}
		}
	}
	g.devices[id] = m
	return m
}

func (g *groups) read(ctx context.Context, p groupPart) error {
	if !p.from.Before(p.to) {
		return nil
	}
	q := citywarden.HistoryQuery{From: p.from, To: p.to}
	var failed error
	take := func(id citywarden.DeviceID, metric citywarden.MetricName, at time.Time, x citywarden.Rollup) {
		if metric != g.q.Metric {
			return
		}
		if m := g.member(id); m != nil && failed == nil {
			failed = g.add(m, at, x)
		}
	}
	if err := g.r.each(ctx, p.level, g.q.Domain, q, take); err != nil {
		return err
	}
	return failed
}

func (g *groups) add(m *groupMember, at time.Time, x citywarden.Rollup) error {
	if m.seen && m.rollover >= 0 {
		x.Increase += citywarden.Increase(m.last, x.First, m.rollover)
	}
	m.seen, m.last = true, x.Last
	group := g.points[m.group]
	if group == nil {
		group = map[int64]*citywarden.Rollup{}
		g.points[m.group] = group
	}
	begin := floor(at, g.q.Every).UnixNano()
	total := group[begin]
	if total == nil {
		if g.n++; g.n > groupPoints {
			return citywarden.Errorf(citywarden.CodeInvalid, "group %s of %s: more than %d points; ask for a shorter time or a longer interval", g.q.Metric, g.q.Domain, groupPoints)
		}
		group[begin] = &x
		return nil
	}
	increase := total.Increase + x.Increase
	total.Merge(x, -1)
	total.Increase = increase
	return nil
}

func (g *groups) result() []citywarden.SeriesGroup {
	out := []citywarden.SeriesGroup{}
	for _, name := range slices.Sorted(maps.Keys(g.points)) {
		group := citywarden.SeriesGroup{Name: name}
		for _, at := range slices.Sorted(maps.Keys(g.points[name])) {
			group.Points = append(group.Points, citywarden.SeriesPoint{
				Time: time.Unix(0, at).UTC(), Value: citywarden.Number(g.points[name][at].Value(g.q.Agg)),
			})
		}
		out = append(out, group)
	}
	return out
}
