package influx

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	influxhttp "github.com/influxdata/influxdb-client-go/v2/api/http"

	"github.com/citywarden/citywarden"
)

// Rollups lie in a retention policy for each level, rollup_1m to rollup_1d: in
// InfluxDB 2 and 3 in buckets or databases named DATABASE/rollup_1m and so on. A line has the
// device as its only tag, so that a window is one point whatever the device is
// changed to, and for each metric the fields
//
//	METRIC.last
//	METRIC.count, METRIC.min, METRIC.max, METRIC.sum, METRIC.first  when there was more than one reading
//	METRIC.increase                                                 and it is a counter
//
// A window with one reading, as most of devices that report each minute or less
// often, costs one field.

// policyName returns the name of the retention policy of a level.
func policyName(level int) string {
	return [...]string{"rollup_1m", "rollup_15m", "rollup_1h", "rollup_1d"}[level]
}

// levelOf returns the number of the level with windows of that length.
func levelOf(length time.Duration) (int, error) {
	levels := citywarden.RollupLevels()
	if i := slices.Index(levels[:], length); i >= 0 {
		return i, nil
	}
	return 0, citywarden.Errorf(citywarden.CodeInternal, "no rollups of %s", length)
}

// WriteRollups stores rows, over those of the same device and window. A row that
// is older than the retention of its level is not kept; what the server refuses for itself, as beyond a limit of its
// own, is left out and logged. anew says that what the level held before was gone, and that none of rows is kept either. It is called by one goroutine at a time.
func (s *Series) WriteRollups(ctx context.Context, length time.Duration, domain citywarden.Domain, rows []citywarden.RollupRow) (anew bool, err error) {
	level, err := levelOf(length)
	if err != nil {
		return false, err
	}
	if err := s.preparePolicy(ctx, level); err != nil {
		return false, err
	}
	var lost lostRollups
	defer func() {
		if lost.n > 0 {
			s.rejected.Add(float64(lost.n))
			s.log.Warn("rollups refused by the time series are left out", "level", policyName(level), "rollups", lost.n, "first", lost.first)
		}
	}()
	for part := range slices.Chunk(rows, batch) {
		if err := s.sendRollups(ctx, level, domain, part, &lost); err != nil {
			return lost.anew, err
		}
	}
	return lost.anew, nil
}

// lostRollups are what the server did not take of one write.
type lostRollups struct {
	anew  bool   // all that was there before is lost, too
	n     int    // metrics of windows
	first string // why
}

// sendRollups sends rows, and what the server refuses for itself as send does with readings: in
// halves until each bad row stands alone, then by metric. What is left is lost: there is nobody
// to correct it, and the readings are kept.
func (s *Series) sendRollups(ctx context.Context, level int, domain citywarden.Domain, rows []citywarden.RollupRow, lost *lostRollups) error {
	if lost.anew {
		return nil
	}
	var body []byte
	for i := range rows {
		body = appendRollup(body, domain, &rows[i])
	}
	err := s.postRollups(ctx, level, string(body), lost)
	var e *influxhttp.Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &e) || !blames(e, len(rows)):
		return s.explain(err)
	case says(e, "beyond retention", "outside retention"): // the others were written
		return nil
	case len(rows) > 1:
		for _, half := range [][]citywarden.RollupRow{rows[:len(rows)/2], rows[len(rows)/2:]} {
			if err := s.sendRollups(ctx, level, domain, half, lost); err != nil {
				return err
			}
		}
		return nil
	case len(rows[0].Metrics) > 1:
		for m, x := range rows[0].Metrics {
			one := citywarden.RollupRow{Device: rows[0].Device, Time: rows[0].Time, Metrics: map[citywarden.MetricName]citywarden.Rollup{m: x}}
			if err := s.sendRollups(ctx, level, domain, []citywarden.RollupRow{one}, lost); err != nil {
				return err
			}
		}
		return nil
	}
	if lost.n == 0 {
		for m := range rows[0].Metrics {
			lost.first = fmt.Sprintf("%s of %s: %s", m, rows[0].Device, clip(e.Message))
		}
	}
	lost.n++
	return nil
}

// postRollups writes body; when the bucket or the retention policy of the level is not there it is made first.
func (s *Series) postRollups(ctx context.Context, level int, body string, lost *lostRollups) error {
	err := s.rollups[level].WriteRecord(ctx, body)
	if !missing(err) && !policyMissing(err) {
		s.policies[level] = s.policies[level] || err == nil
		return err
	}
	gone := s.policies[level]
	var create error
	if s.opt.Org != "" {
		create = s.createBucket(ctx, s.opt.Database+"/"+policyName(level), s.opt.Rollups[level])
	} else {
		s.policies[level] = false
		create = s.preparePolicy(ctx, level)
	}
	if create != nil {
		return fmt.Errorf("%w (and it can't be created: %w)", err, create)
	}
	if gone {
		lost.anew = true // the level begins with the windows that come
		s.log.Warn("rollups were gone and are made anew; older series are read from the readings", "level", policyName(level))
	}
	if lost.anew {
		return nil
	}
	return s.rollups[level].WriteRecord(ctx, body)
}

// policyMissing reports whether a write failed because InfluxDB 1 has the database and not the
// retention policy, which it says with a 500.
func policyMissing(err error) bool {
	var e *influxhttp.Error
	return errors.As(err, &e) && says(e, "retention policy not found")
}

// preparePolicy makes the retention policy of a level, and the database when that is missing, once.
// InfluxDB 2 and 3 have no such thing: the write makes a bucket that is missing, and a database makes itself.
func (s *Series) preparePolicy(ctx context.Context, level int) error {
	if s.policies[level] || s.opt.Org != "" {
		return nil
	}
	if s.opt.URL == "" {
		if err := s.create(ctx); err != nil {
			return citywarden.Errorf(citywarden.CodeTransient, "prepare %s: %w", s.where(), err)
		}
	}
	keep := s.opt.Rollups[level]
	settings := fmt.Sprintf("DURATION %s REPLICATION 1 SHARD DURATION %s", duration(keep), duration(shardDuration(keep)))
	where := fmt.Sprintf("RETENTION POLICY %s ON %s ", ident(policyName(level)), ident(s.opt.Database))
	_, err := s.influxQL(ctx, http.MethodPost, "CREATE "+where+settings)
	switch {
	case nothingThere(err):
		if err = s.create(ctx); err == nil {
			_, err = s.influxQL(ctx, http.MethodPost, "CREATE "+where+settings)
		}
	case err != nil && s.opt.URL == "": // it is there, with another retention
		_, err = s.influxQL(ctx, http.MethodPost, "ALTER "+where+settings)
	}
	switch code := citywarden.CodeOf(err); {
	case err == nil, s.opt.URL != "" && code == citywarden.CodeInvalid && !nothingThere(err):
	case s.opt.URL != "" && code == citywarden.CodeDenied:
		s.log.Warn("retention policy not made; it is used when it is there", "policy", policyName(level), "err", err)
	case s.opt.URL != "" && strings.Contains(err.Error(), "404"): // InfluxDB 3 has no such statement's path
	default:
		return citywarden.Errorf(citywarden.CodeTransient, "make retention policy %s: %w", policyName(level), err)
	}
	s.policies[level] = true
	return nil
}

func appendRollup(b []byte, domain citywarden.Domain, r *citywarden.RollupRow) []byte {
	b = appendEscaped(b, string(domain), `, `)
	b = appendTag(b, deviceName, string(r.Device))
	sep := byte(' ')
	field := func(m citywarden.MetricName, stat string, v float64) {
		b = append(b, sep)
		sep = ','
		b = appendEscaped(b, string(m)+"."+stat, `,= `)
		b = append(b, '=')
		b = strconv.AppendFloat(b, v, 'g', -1, 64)
	}
	for m, x := range r.Metrics {
		field(m, "last", x.Last)
		if x.Count == 1 {
			continue
		}
		field(m, "count", float64(x.Count))
		field(m, "min", x.Min)
		field(m, "max", x.Max)
		field(m, "sum", x.Sum)
		field(m, "first", x.First)
		if x.Counter {
			field(m, "increase", x.Increase)
		}
	}
	b = append(b, ' ')
	b = strconv.AppendInt(b, r.Time.UnixNano(), 10)
	return append(b, '\n')
}

// RollupRows returns the rollups of a level whose windows begin in q's time, as Rows does.
func (s *Series) RollupRows(ctx context.Context, length time.Duration, domain citywarden.Domain, q citywarden.HistoryQuery) ([]citywarden.RollupRow, error) {
	level, err := levelOf(length)
	if err != nil {
		return nil, err
	}
	rows, err := s.rows(ctx, level, domain, q)
	if err != nil {
		return nil, err
	}
	out := make([]citywarden.RollupRow, len(rows))
	for i := range rows {
		out[i] = rollupRow(&rows[i])
	}
	return out, nil
}

func rollupRow(r *citywarden.SeriesRow) citywarden.RollupRow {
	out := citywarden.RollupRow{Device: r.Device, Time: r.Time, Metrics: map[citywarden.MetricName]citywarden.Rollup{}}
	for field, v := range r.Values {
		metric, ok := strings.CutSuffix(string(field), ".last")
		if !ok {
			continue
		}
		stat := func(name string) (float64, bool) {
			x, ok := r.Values[citywarden.MetricName(metric+"."+name)]
			return x.Float(), ok
		}
		x := citywarden.RollupOf(v.Float())
		if n, many := stat("count"); many {
			x.Count = int64(n)
			x.Min, _ = stat("min")
			x.Max, _ = stat("max")
			x.Sum, _ = stat("sum")
			x.First, _ = stat("first")
			x.Increase, x.Counter = stat("increase")
		}
		out.Metrics[citywarden.MetricName(metric)] = x
	}
	return out
}

// OldestRollup returns the begin of the oldest window of a level that is kept, with length 0 the time of the oldest reading, zero for none.
func (s *Series) OldestRollup(ctx context.Context, length time.Duration, domain citywarden.Domain) (time.Time, error) {
	level := readings
	if length > 0 {
		var err error
		if level, err = levelOf(length); err != nil {
			return time.Time{}, err
		}
	}
	source, database, w := s.source(level, domain)
	at, err := s.oldest(ctx, database, "SELECT *::field FROM "+source+" ORDER BY time ASC LIMIT 1")
	if tooManyFiles(err) {
		at, err = s.oldestBetween(ctx, source, database, time.Unix(0, 0).UTC(), time.Now().UTC().Add(48*time.Hour))
	}
	if err != nil {
		return time.Time{}, s.absent(ctx, w, err)
	}
	return at, nil
}

// oldest returns the time of the first row of a statement's answer, zero for none.
func (s *Series) oldest(ctx context.Context, database, text string) (time.Time, error) {
	t, err := s.run(ctx, http.MethodGet, database, text)
	if err != nil || len(t.Values) == 0 || len(t.Values[0]) == 0 {
		return time.Time{}, err
	}
	ns, err := strconv.ParseInt(string(t.Values[0][0]), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("answer of %s: time %s is not in nanoseconds", s.where(), t.Values[0][0])
	}
	return time.Unix(0, ns).UTC(), nil
}

// oldestBetween is the oldest row between two times of which one statement may not read all: where it may not, there are
// many rows, and the halves are asked, the older one first. That is twice the binary logarithm of the time, 30 statements or so.
func (s *Series) oldestBetween(ctx context.Context, source, database string, from, to time.Time) (time.Time, error) {
	at, err := s.oldest(ctx, database, fmt.Sprintf("SELECT *::field FROM %s WHERE time >= %d AND time < %d ORDER BY time ASC LIMIT 1", source, from.UnixNano(), to.UnixNano()))
	if !tooManyFiles(err) || to.Sub(from) < 2*time.Minute {
		return at, err
	}
	middle := from.Add(to.Sub(from) / 2)
	if at, err := s.oldestBetween(ctx, source, database, from, middle); err != nil || !at.IsZero() {
		return at, err
	}
	return s.oldestBetween(ctx, source, database, middle, to)
}

// tooManyFiles reports whether an InfluxDB 3 Core refuses a statement, as its times are in more files than it reads at once.
func tooManyFiles(err error) bool {
	return err != nil && fileLimit.MatchString(err.Error())
}

// fileLimit is how 3.0 and 3.9 say so.
var fileLimit = regexp.MustCompile(`exceed file limit|exceeding the file limit`)
