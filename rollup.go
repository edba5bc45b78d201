package citywarden

import "time"

// RollupLevels returns the lengths of the windows that readings are rolled up
// in, the shortest first. Each is a multiple of the one before. Windows begin at multiples
// of their length since 1970 UTC.
func RollupLevels() [4]time.Duration {
	return [...]time.Duration{time.Minute, 15 * time.Minute, time.Hour, 24 * time.Hour}
}

// Rollup is what the readings of one metric in a window come to. The zero Rollup
// is that of no readings.
type Rollup struct {
	Count int64
	Min   float64
	Max   float64
	Sum   float64
	First float64 // by time
	Last  float64
	// Increase is by how much a counter went up from the first reading to the
	// last; see Increase for what lies between two readings. 0 for other metrics.
	Increase float64
	Counter  bool // Increase counts
}

// RollupOf returns the rollup of one reading.
func RollupOf(v float64) Rollup {
	return Rollup{Count: 1, Min: v, Max: v, Sum: v, First: v, Last: v}
}

// Merge adds the readings of a later window. rollover is that of the metric, see Metric.Rollover.
func (r *Rollup) Merge(later Rollup, rollover float64) {
	switch {
	case later.Count == 0:
		return
	case r.Count == 0:
		*r = later
		r.Counter = rollover >= 0
		return
	}
	if r.Counter = rollover >= 0; r.Counter {
		r.Increase += Increase(r.Last, later.First, rollover) + later.Increase
	}
	r.Count += later.Count
	r.Sum += later.Sum
	r.Min, r.Max, r.Last = min(r.Min, later.Min), max(r.Max, later.Max), later.Last
}

// Mean returns the mean of the readings.
func (r *Rollup) Mean() float64 { return r.Sum / float64(r.Count) }

// Value returns what agg, one of those of a SeriesQuery, is of the readings.
func (r *Rollup) Value(agg string) float64 {
	switch agg {
	case "min":
		return r.Min
	case "max":
		return r.Max
	case "sum":
		return r.Sum
	case "count":
		return float64(r.Count)
	case "last":
		return r.Last
	case AggIncrease:
		return r.Increase
	}
	return r.Mean()
}

// Increase returns by how much a counter went up between two readings. One that
// went down has rolled over when it was in the last tenth of its range and is in
// the first; else it was reset, and counted from 0.
func Increase(before, after, rollover float64) float64 {
	switch {
	case after >= before:
		return after - before
	case rollover > 0 && before >= 0.9*rollover && before <= rollover && after <= 0.1*rollover:
		return rollover - before + after
	}
	return after
}

// Rollover returns the largest value of m, a counter, before it begins again at
// 0; 0 when it never does, and -1 when m is no counter.
func (m *Metric) Rollover() float64 {
	switch {
	case !m.Counter:
		return -1
	case m.Max == nil:
		return 0
	}
	return *m.Max
}

// RollupRow is what the metrics of a device come to in one window.
type RollupRow struct {
	Device  DeviceID
	Time    time.Time // the begin of the window
	Metrics map[MetricName]Rollup
}
