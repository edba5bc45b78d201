package influx

import (
	"context"
	"fmt"
	"hash/maphash"
	"net/http"
	"strconv"
	"strings"
	"time"

	influxhttp "github.com/influxdata/influxdb-client-go/v2/api/http"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
)

const (
	// recountUsual is how often at most the server is asked how many series it holds, when there are new ones;
	// recountFull when there are as many as may be.
	recountUsual = time.Minute
	recountFull  = time.Second
)

// cardinality bounds how many series the database holds. A series is a set of tags: a
// device has one, and another with each site, zone, grid or model that it is changed to, until
// the retention has dropped the old one; its rollups are one more.
type cardinality struct {
	max     int
	seed    maphash.Seed
	current map[citywarden.DeviceID]tagged // what was let in of each device last
	known   map[uint64]struct{}            // hashes of those that were let in since the start
	barred  map[uint64]struct{}            // and of those that were refused since there was no room
	count   int                            // in the database; some of before a start may be counted twice until the server is asked
	asked   time.Time
	guessed bool // some were let in and counted that may have been in the database already
	tells   bool // the server says how many it holds: InfluxDB 2 and 3 don't
	gauge   prometheus.Gauge
}

// tagged is what the tags of a device are made of. Both are replaced and never changed.
type tagged struct {
	device *citywarden.Device
	model  *citywarden.Model
}

func newCardinality(limit int) cardinality {
	return cardinality{
		max: limit, seed: maphash.MakeSeed(),
		current: map[citywarden.DeviceID]tagged{}, known: map[uint64]struct{}{}, barred: map[uint64]struct{}{},
		gauge: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "citywarden_series_count",
			Help: "Series (sets of tags) in the database; of InfluxDB 2 and 3 those that were written since the start. 0 without series.max_series.",
		}),
	}
}

// arriving are the series that were let in and are not written yet.
type arriving struct {
	made   int    // that the server does not hold
	unsure []line // one of each that it may hold already
}

// admit returns those of ls whose series are in the database or may be made; the
// others are added to lost.
func (s *Series) admit(ctx context.Context, ls []line, lost *rejects) ([]line, error) {
	s.seriesMu.Lock() // across asking the server: an import beside the log waits for it
	defer s.seriesMu.Unlock()
	c := &s.series
	if c.max == 0 {
		return ls, nil
	}
	kept := ls[:0]
	var a arriving
	for _, l := range ls {
		now := tagged{l.entry.Device, l.entry.Model}
		if c.current[now.device.ID] != now {
			in, err := s.letIn(ctx, l, &a)
			if err != nil {
				return nil, err
			}
			if !in {
				s.bar(l, lost)
				continue
			}
			c.current[now.device.ID] = now
		}
		kept = append(kept, l)
	}
	return kept, nil
}

// bar adds the readings of l to lost.
func (s *Series) bar(l line, lost *rejects) {
	why := influxhttp.Error{Message: fmt.Sprintf(
		"its device with this model, grid, site and zone would be a new series; there are %d and at most %d may be (series.max_series)", s.series.count, s.series.max)}
	for i := range l.readings {
		if one := (line{l.entry, l.readings[i : i+1]}); writable(one) > 0 {
			s.rejected.Inc()
			lost.add(one, &why)
		}
	}
}

// letIn reports whether the series of l is in the database or may be made; then it is noted in a.
func (s *Series) letIn(ctx context.Context, l line, a *arriving) (bool, error) {
	c := &s.series
	key := maphash.Bytes(c.seed, l.appendTags(nil))
	if _, ok := c.known[key]; ok {
		return true, nil
	}
	if since := time.Since(c.asked); since >= recountUsual || c.count >= c.max && since >= recountFull {
		if err := s.countSeries(ctx, a); err != nil {
			return false, err
		}
	}
	if c.count < c.max {
		a.unsure = append(a.unsure, l)
		c.guessed = true
		c.note(key, 1)
		return true, nil
	}
	if _, ok := c.barred[key]; ok {
		return false, nil
	}
	there, err := s.holds(ctx, l)
	if err != nil {
		return false, err
	}
	if there { // it is among them
		c.note(key, 0)
		return true, nil
	}
	if room, err := s.recount(ctx, a); err != nil {
		return false, err
	} else if !room {
		c.barred[key] = struct{}{}
		return false, nil
	}
	a.made++
	c.note(key, 1)
	return true, nil
}

// note notes that a series was let in, and how many it is more than were counted.
func (c *cardinality) note(key uint64, more int) {
	c.known[key] = struct{}{}
	c.count += more
	c.gauge.Set(float64(c.count))
}

// recount reports whether there is room after all, because series that were let in
// since the server was asked are counted twice.
func (s *Series) recount(ctx context.Context, a *arriving) (bool, error) {
	c := &s.series
	if !c.tells || !c.guessed {
		return false, nil
	}
	made := a.made
	for _, l := range a.unsure {
		there, err := s.holds(ctx, l)
		if err != nil {
			return false, err
		}
		if !there {
			made++
		}
	}
	*a = arriving{made: made}
	err := s.countSeries(ctx, a)
	return c.count < c.max, err
}

// countSeries asks the server how many series it holds; those that arrive are added.
func (s *Series) countSeries(ctx context.Context, a *arriving) error {
	c := &s.series
	pending := a.made + len(a.unsure)
	rows, err := s.influxQL(ctx, http.MethodGet, "SHOW SERIES CARDINALITY ON "+ident(s.opt.Database))
	switch {
	case err == nil && len(rows) > 0 && len(rows[0]) > 0:
		n, err := strconv.Atoi(string(rows[0][0]))
		if err != nil {
			return fmt.Errorf("answer of %s: number of series %s: %w", s.where(), rows[0][0], err)
		}
		c.count, c.tells = n+pending, true
	case err == nil, nothingThere(err):
		c.count, c.tells = pending, true
	case citywarden.CodeOf(err) == citywarden.CodeInvalid: // it does not know the statement
		c.count, c.tells = len(c.known), false
	default:
		return fmt.Errorf("count the series: %w", err)
	}
	c.asked, c.guessed = time.Now(), len(a.unsure) > 0
	c.gauge.Set(float64(c.count))
	if c.count < c.max || len(c.barred) > c.max {
		clear(c.barred)
	}
	return nil
}

// holds reports whether the server says that it has the series of l.
func (s *Series) holds(ctx context.Context, l line) (bool, error) {
	if !s.series.tells {
		return false, nil
	}
	var where []string
	for _, t := range l.tags() {
		where = append(where, ident(t[0])+" = "+quote(tagValue(t[1])))
	}
	rows, err := s.influxQL(ctx, http.MethodGet, fmt.Sprintf("SHOW SERIES ON %s FROM %s WHERE %s LIMIT 1",
		ident(s.opt.Database), ident(string(l.entry.Model.Domain)), strings.Join(where, " AND ")))
	if err != nil && !nothingThere(err) {
		return false, fmt.Errorf("look for a series of %s: %w", l.entry.Device.ID, err)
	}
	return len(rows) > 0, nil
}
