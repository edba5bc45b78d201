package influx_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	neturl "net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/ingest"
	"github.com/citywarden/citywarden/ingest/influx"
)

var rollover = 1000.0

var meterModel = &citywarden.Model{Name: "meter", Domain: citywarden.Building, Metrics: []citywarden.Metric{
	{Name: "power", Kind: citywarden.KindNumber},
	{Name: "energy", Kind: citywarden.KindNumber, Counter: true, Max: &rollover},
	{Name: "on", Kind: citywarden.KindBool},
}}

// meters is a directory in which every device is a meter.
type meters struct{}

func (meters) Child(_ citywarden.DeviceID, name string) (citywarden.DeviceID, error) {
	return "", citywarden.Errorf(citywarden.CodeNotFound, "no device %q", name)
}

func (meters) Device(id citywarden.DeviceID) (*citywarden.Device, *citywarden.Model, error) {
	return device(string(id), meterModel), meterModel, nil
}

// flaky lets requests to the core fail while it is set.
type flaky struct {
	http.RoundTripper
	rnd *rand.Rand // nil: none fails
}

func (f *flaky) RoundTrip(r *http.Request) (*http.Response, error) {
	if f.rnd != nil && f.rnd.IntN(8) == 0 {
		return nil, errors.New("connection lost")
	}
	return f.RoundTripper.RoundTrip(r)
}

// history is what devices reported, and how the log holds it.
type history struct {
	entries []citywarden.Entry
	values  map[citywarden.DeviceID]map[citywarden.MetricName]map[int64]float64 // what the series end up with
}

// randomHistory is some hours of four devices: one reports every second for a
// while, one many times a second and not in order, one now and then, one in batches that come late, some twice; all of
// them change a reading that they sent before now and then.
func randomHistory(rnd *rand.Rand, start time.Time) history {
	h := history{values: map[citywarden.DeviceID]map[citywarden.MetricName]map[int64]float64{}}
	pos := uint64(0)
	add := func(at time.Time, id string, rs ...citywarden.Reading) {
		pos++
		e := entry(pos, device(id, meterModel), meterModel, rs...)
		e.At = at
		e.Uplink.Received = at
		h.entries = append(h.entries, e)
		d := h.values[e.Device.ID]
		if d == nil {
			d = map[citywarden.MetricName]map[int64]float64{}
			h.values[e.Device.ID] = d
		}
		for _, r := range rs {
			if r.Value.Kind() == citywarden.KindNumber {
				if d[r.Metric] == nil {
					d[r.Metric] = map[int64]float64{}
				}
				d[r.Metric][r.Time.UnixNano()] = r.Value.Float()
			}
		}
	}
	energy := map[string]float64{}
	sample := func(id string, at time.Time) []citywarden.Reading {
		energy[id] += float64(rnd.IntN(120)) / 4
		if energy[id] > rollover || rnd.IntN(50) == 0 {
			energy[id] = float64(rnd.IntN(40)) / 4
		}
		return []citywarden.Reading{
			{Metric: "power", Value: citywarden.Number(float64(rnd.IntN(400)-200) / 4), Time: at},
			{Metric: "energy", Value: citywarden.Number(energy[id]), Time: at},
			{Metric: "on", Value: citywarden.Bool(rnd.IntN(2) == 0), Time: at},
		}
	}
	var batch, sent []citywarden.Reading
	now := start
	for now.Before(start.Add(6 * time.Hour)) {
		now = now.Add(time.Duration(rnd.IntN(int(2 * time.Minute))))
		switch rnd.IntN(9) {
		case 8:
			if rnd.IntN(4) > 0 {
				break
			}
			late := []int{1, 10, 2000}[rnd.IntN(3)]
			for range rnd.IntN(50) {
				var some []citywarden.Reading
				for range 30 {
					now = now.Add(40 * time.Millisecond)
					at := now
					if rnd.IntN(100) == 0 {
						at = now.Add(-time.Duration(rnd.IntN(late)) * 40 * time.Millisecond)
					}
					some = append(some, sample("hasty", at)...)
				}
				add(now, "hasty", some...)
			}
		case 0:
			for range rnd.IntN(30) {
				now = now.Add(time.Second)
				add(now, "busy", sample("busy", now)...)
			}
		case 1, 2:
			at := now.Add(time.Duration(rnd.IntN(int(5 * time.Minute)))) // its clock is ahead
			add(now, "calm", sample("calm", at)...)
		case 3:
			add(now, "calm", sample("calm", now.Add(-time.Duration(rnd.IntN(int(3*time.Hour)))))...)
		case 4, 5:
			batch = append(batch, sample("logger", now)...)
		case 6:
			if rnd.IntN(3) == 0 {
				add(now, "logger", batch...)
				sent, batch = batch, nil
			}
		case 7:
			if len(sent) > 0 && rnd.IntN(3) == 0 { // again, one of them corrected
				again := slices.Clone(sent)
				again[0].Value = citywarden.Number(float64(rnd.IntN(100)))
				add(now, "logger", again...)
			}
		}
	}
	add(now.Add(49*time.Hour), "busy", sample("busy", now)...) // by then every window is closed
	add(now.Add(50*time.Hour), "busy")
	return h
}

// brute is what the readings of a metric come to in each window.
func brute(values map[int64]float64, length time.Duration, metric citywarden.MetricName) map[int64]citywarden.Rollup {
	m, _ := meterModel.Metric(metric)
	times := make([]int64, 0, len(values))
	for at := range values {
		times = append(times, at)
	}
	slices.Sort(times)
	out := map[int64]citywarden.Rollup{}
	for _, at := range times {
		v := values[at]
		begin := time.Unix(0, at).Truncate(length).Unix()
		r, ok := out[begin]
		if !ok {
			r = citywarden.Rollup{Min: v, Max: v, First: v, Last: v}
		}
		if m.Counter {
			switch {
			case v >= r.Last:
				r.Increase += v - r.Last
			case r.Last >= 900 && v <= 100:
				r.Increase += 1000 - r.Last + v
			default:
				r.Increase += v
			}
		}
		r.Count++
		r.Sum += v
		r.Min, r.Max, r.Last = min(r.Min, v), max(r.Max, v), v
		out[begin] = r
	}
	return out
}

// TestRollupsAreWhatTheReadingsComeTo compares the rollups of random histories,
// with restarts and failing requests at random moments, with a brute force over
// the readings, and queries with one over the intervals.
func TestRollupsAreWhatTheReadingsComeTo(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rolled(t, rand.New(rand.NewPCG(seed, 7)), influx.Options{Transport: openCore(t).Transport()})
		})
	}
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		rolled(t, rand.New(rand.NewPCG(99, 7)), influx.Options{URL: startServer(t), Transport: http.DefaultTransport})
	})
	t.Run("InfluxDB 2", func(t *testing.T) {
		t.Parallel()
		srv := realInfluxDB2(t)
		rolled(t, rand.New(rand.NewPCG(100, 7)), influx.Options{URL: srv.url, Transport: http.DefaultTransport, Token: srv.token("all"), Org: "county"})
	})
	t.Run("as InfluxDB 2 answers", func(t *testing.T) {
		t.Parallel()
		srv := likeInfluxDB2(t, openCore(t))
		rolled(t, rand.New(rand.NewPCG(100, 7)), influx.Options{URL: srv.url, Transport: http.DefaultTransport, Token: srv.token("all"), Org: "county"})
	})
	for _, release := range []release3{influxDB30, influxDB310} {
		t.Run("as InfluxDB "+release.name+" answers", func(t *testing.T) {
			t.Parallel()
			rolled(t, rand.New(rand.NewPCG(101, 7)), influx.Options{URL: likeInfluxDB3(t, openCore(t), release), Transport: http.DefaultTransport, Token: "secret"})
		})
	}
}

func rolled(t *testing.T, rnd *rand.Rand, o influx.Options) {
	ctx := t.Context()
	// It begins in the evening, so that a day is complete.
	start := time.Now().UTC().Truncate(24 * time.Hour).Add(-76*time.Hour + time.Duration(rnd.IntN(2*60))*time.Minute)
	h := randomHistory(rnd, start)
	net := &flaky{RoundTripper: o.Transport}
	o.Transport = net
	db := openStore(t)
	o.Cursors = db
	s := newSeries(t, o)

	newRollups := func() *ingest.Rollups {
		return ingest.NewRollups(ingest.RollupOptions{Store: s, Series: s, Cursors: db, Directory: meters{}, Domains: []citywarden.Domain{citywarden.Building}})
	}
	r := newRollups()
	restarts := 0
	for i := 0; i < len(h.entries); {
		n := min(1+rnd.IntN(20), len(h.entries)-i)
		part := h.entries[i : i+n]
		if err := s.Consume(ctx, part); err != nil {
			t.Fatal(err)
		}
		net.rnd = rnd
		err := r.Consume(ctx, part)
		for range 1000 {
			if err == nil {
				break
			}
			err = r.Consume(ctx, part)
		}
		net.rnd = nil
		if err != nil {
			t.Fatal(err)
		}
		i += n
		if rnd.IntN(20) == 0 && i < len(h.entries) { // as after kill -9: what is after the cursor comes again
			restarts++
			r = newRollups()
			at, err := r.Cursor(ctx)
			if err != nil {
				t.Fatal(err)
			}
			i = 0
			for h.entries[i].Position <= at {
				i++
			}
		}
	}
	t.Logf("%d messages, %d restarts", len(h.entries), restarts)

	first := h.entries[0].At.Add(6 * time.Minute) // what the log begins in is not rolled up
	for id, metrics := range h.values {
		for metric, values := range metrics {
			for _, level := range citywarden.RollupLevels() {
				oldest, err := s.OldestRollup(ctx, level, citywarden.Building)
				if err != nil || oldest.IsZero() || oldest.After(first.Add(level+time.Hour)) {
					t.Fatalf("the oldest rollup by %s is of %s, %v; the first message came at %s", level, oldest, err, h.entries[0].At)
				}
				want := brute(values, level, metric)
				got := map[int64]citywarden.Rollup{}
				for q := (citywarden.HistoryQuery{From: start.Add(-48 * time.Hour), To: start.Add(96 * time.Hour), Devices: map[citywarden.DeviceID]bool{id: true}}); ; {
					rows, err := s.RollupRows(ctx, level, citywarden.Building, q)
					if err != nil {
						t.Fatal(err)
					}
					if len(rows) == 0 {
						break
					}
					for _, row := range rows {
						if x, ok := row.Metrics[metric]; ok {
							x.Counter = false // a field that is not compared
							got[row.Time.Unix()] = x
						}
					}
					q.From = rows[len(rows)-1].Time.Add(1)
				}
				for at := range want {
					if time.Unix(at, 0).Before(oldest) {
						delete(want, at)
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("%s of %s by %s (-readings +rollups):\n%s", metric, id, level, diff)
				}
			}
			if err := queries(ctx, rnd, r, start, id, metric, values); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// queries compares random queries with a brute force.
func queries(ctx context.Context, rnd *rand.Rand, r *ingest.Rollups, start time.Time, id citywarden.DeviceID, metric citywarden.MetricName, values map[int64]float64) error {
	for range 10 {
		every := []time.Duration{time.Minute, 90 * time.Second, 5 * time.Minute, 15 * time.Minute, 45 * time.Minute, time.Hour, 2 * time.Hour, 24 * time.Hour, 48 * time.Hour}[rnd.IntN(9)]
		agg := []string{"", "min", "max", "sum", "count", "last", "mean"}[rnd.IntN(7)]
		from := start.Add(time.Duration(rnd.IntN(int(8*time.Hour))) - time.Hour)
		to := from.Add(time.Duration(rnd.IntN(int(9 * time.Hour))))
		part := map[int64]float64{}
		for at, v := range values {
			if at >= from.UnixNano() && at < to.UnixNano() {
				part[at] = v
			}
		}
		byInterval := map[int64]map[int64]float64{}
		for at, v := range part {
			begin := at - at%int64(every)
			if byInterval[begin] == nil {
				byInterval[begin] = map[int64]float64{}
			}
			byInterval[begin][at] = v
		}
		want := map[string]float64{}
		for begin, vs := range byInterval {
			for _, x := range brute(vs, 1<<62, metric) {
				want[time.Unix(0, begin).UTC().Format(time.RFC3339)] = x.Value(agg)
			}
		}
		points, err := r.Query(ctx, citywarden.SeriesQuery{Device: id, Domain: citywarden.Building, Metric: metric, From: from, To: to, Every: every, Agg: agg})
		if err != nil {
			return err
		}
		got := map[string]float64{}
		for i, p := range points {
			got[p.Time.Format(time.RFC3339)] = p.Value.Float()
			if i > 0 && !points[i-1].Time.Before(p.Time) {
				return fmt.Errorf("%s of %s: the points are not in the order of time", metric, id)
			}
		}
		near := cmp.Comparer(func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 }) // the server divides in another order
		if diff := cmp.Diff(want, got, near); diff != "" {
			return fmt.Errorf("%s %s of %s every %s from %s to %s (-readings +query):\n%s", agg, metric, id, every, from, to, diff)
		}
	}
	return nil
}

// TestIncreaseOfACounter is by how much a register went up, with a reset, a
// rollover and an interval without readings.
func TestIncreaseOfACounter(t *testing.T) {
	ctx := t.Context()
	db := openStore(t)
	s := newSeries(t, influx.Options{Transport: openCore(t).Transport(), Cursors: db})
	r := ingest.NewRollups(ingest.RollupOptions{Store: s, Series: s, Cursors: db, Directory: meters{}, Domains: []citywarden.Domain{citywarden.Building}})
	var pos uint64
	put := func(at time.Duration, v float64) {
		t.Helper()
		pos++
		e := entry(pos, device("m", meterModel), meterModel, reading("energy", citywarden.Number(v), at))
		e.At = begin.Add(at)
		consume(t, []citywarden.Entry{e}, s, r)
	}
	put(0, 100) // the log begins: the first minutes have no rollups
	for _, x := range []struct {
		at time.Duration
		v  float64
	}{
		{10 * time.Minute, 110}, {20 * time.Minute, 130},
		{61 * time.Minute, 140}, {70 * time.Minute, 5}, {80 * time.Minute, 9}, // replaced: counts from 0
		{190 * time.Minute, 950}, {200 * time.Minute, 20}, // rolled over at 1000
		{241 * time.Minute, 21}, {300 * time.Minute, 22},
	} {
		put(x.at, x.v)
	}
	for name, q := range map[string]citywarden.SeriesQuery{
		"by hour":       {From: begin, To: begin.Add(5 * time.Hour), Every: time.Hour},
		"by hour, open": {Every: time.Hour},
	} {
		q.Device, q.Domain, q.Metric, q.Agg = "m", citywarden.Building, "energy", citywarden.AggIncrease
		points, err := r.Query(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		var got []any
		for _, p := range points {
			got = append(got, p.Time.Sub(begin).Hours(), p.Value.Float())
		}
		want := []any{0.0, 30.0, 1.0, 10.0 + 5 + 4, 3.0, 941.0 + 70, 4.0, 1.0}
		if q.To.IsZero() {
			want = append(want, 5.0, 1.0)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for name, q := range map[string]citywarden.SeriesQuery{
		"no counter":  {Metric: "power", Every: time.Hour},
		"no interval": {Metric: "energy"},
	} {
		q.Device, q.Domain, q.Agg = "m", citywarden.Building, citywarden.AggIncrease
		if _, err := r.Query(ctx, q); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("%s: %v, want an invalid query", name, err)
		}
	}
}

// TestQueriesReadRollups: a year by the hour must not read every reading.
func TestQueriesReadRollups(t *testing.T) {
	ctx := t.Context()
	db := openStore(t)
	var raw atomic.Int32
	s := newSeries(t, influx.Options{Transport: openCore(t).Transport(), Cursors: db})
	r := ingest.NewRollups(ingest.RollupOptions{Store: s, Series: counting{s, &raw}, Cursors: db, Directory: meters{}, Domains: []citywarden.Domain{citywarden.Building}})
	var log []citywarden.Entry
	for i := range 300 {
		e := entry(uint64(i+1), device("m", meterModel), meterModel, reading("power", citywarden.Number(float64(i)), time.Duration(i)*time.Minute))
		e.At = begin.Add(time.Duration(i) * time.Minute)
		log = append(log, e)
	}
	consume(t, log, s, r)
	q := citywarden.SeriesQuery{Device: "m", Domain: citywarden.Building, Metric: "power", Every: time.Hour, From: begin.Add(time.Hour), To: begin.Add(4 * time.Hour)}
	points, err := r.Query(ctx, q)
	if err != nil || len(points) != 3 || points[0].Value.Float() != 89.5 {
		t.Fatalf("%v, %v; want the means of three hours", points, err)
	}
	if n := raw.Load(); n != 0 {
		t.Errorf("the readings were asked %d times", n)
	}
	q.To = time.Time{}
	if points, err = r.Query(ctx, q); err != nil || len(points) != 4 || raw.Load() != 1 {
		t.Errorf("%v, %v, readings asked %d times; want four hours, the last from the readings", points, err, raw.Load())
	}
}

// TestQueriesReadNoRollupsThatAreGone: once a write has found that somebody deleted them, older hours come from the readings.
func TestQueriesReadNoRollupsThatAreGone(t *testing.T) {
	db := openStore(t)
	srv := likeInfluxDB2(t, openCore(t))
	s := newSeries(t, influx.Options{URL: srv.url, Token: srv.token("all"), Org: "county", Cursors: db})
	var raw atomic.Int32
	r := ingest.NewRollups(ingest.RollupOptions{Store: s, Series: counting{s, &raw}, Cursors: db, Directory: meters{}, Domains: []citywarden.Domain{citywarden.Building}})
	var log []citywarden.Entry
	for i := range 600 {
		e := entry(uint64(i+1), device("m", meterModel), meterModel, reading("power", citywarden.Number(float64(i)), time.Duration(i)*time.Minute))
		e.At = begin.Add(time.Duration(i) * time.Minute)
		log = append(log, e)
	}
	hours := func(what string, from, to, readings int) {
		t.Helper()
		raw.Store(0)
		points, err := r.Query(t.Context(), citywarden.SeriesQuery{Device: "m", Domain: citywarden.Building, Metric: "power", Every: time.Hour,
			From: begin.Add(time.Duration(from) * time.Hour), To: begin.Add(time.Duration(to) * time.Hour)})
		if err != nil || len(points) != to-from || points[0].Value.Float() != float64(from*60)+29.5 || int(raw.Load()) != readings {
			t.Errorf("%s: %v, %v, the readings were asked %d times; want %d hours and %d times", what, points, err, raw.Load(), to-from, readings)
		}
	}
	consume(t, log[:300], s, r)
	hours("before", 1, 4, 0)
	srv.drop("citywarden/rollup_1h")
	consume(t, log[300:400], s, r)
	hours("from the quarters of an hour", 1, 4, 0)
	for _, level := range []string{"1m", "15m", "1h"} {
		srv.drop("citywarden/rollup_" + level)
	}
	consume(t, log[400:], s, r)
	hours("older than what is there again", 1, 4, 1)
	hours("what is there again", 8, 9, 0)
	hours("both", 2, 9, 1)
}

// TestRollupsAfterSomeWereGone: what is rolled up after somebody deleted levels is what the readings come to, window by window, also
// for a platform that does not know of it any more.
func TestRollupsAfterSomeWereGone(t *testing.T) {
	const minutes, dropped, restarted = 900, 380, 560
	for _, gone := range [][]string{{"1m", "15m", "1h"}, {"1m"}, {"15m"}, {"1h"}} {
		t.Run(strings.Join(gone, " "), func(t *testing.T) {
			db := openStore(t)
			srv := likeInfluxDB2(t, openCore(t))
			start := func() (*influx.Series, *ingest.Rollups) {
				s := newSeries(t, influx.Options{URL: srv.url, Token: srv.token("all"), Org: "county", Cursors: db})
				return s, ingest.NewRollups(ingest.RollupOptions{Store: s, Series: s, Cursors: db, Directory: meters{}, Domains: []citywarden.Domain{citywarden.Building}})
			}
			var log []citywarden.Entry
			for i := range minutes {
				readings := []citywarden.Reading{reading("power", citywarden.Number(float64(i*i%97)), time.Duration(i)*time.Minute)}
				late := map[int]int{90: 80, dropped - 1: 80, dropped + 1: 3, dropped + 5: 3, dropped + 90: 400, restarted - 3: 500, restarted + 5: 3, restarted + 30: 400}[i] // minutes
				if late > 0 {
					readings = append(readings, reading("power", citywarden.Number(1000), time.Duration(i-late)*time.Minute+time.Second))
				}
				e := entry(uint64(i+1), device("m", meterModel), meterModel, readings...)
				e.At = begin.Add(time.Duration(i) * time.Minute)
				log = append(log, e)
			}
			s, r := start()
			consume(t, log[:dropped], s, r)
			for _, level := range gone {
				srv.drop("citywarden/rollup_" + level)
			}
			check := func(when string, to int) {
				t.Helper()
				for _, every := range []time.Duration{time.Minute, 15 * time.Minute, time.Hour} {
					for _, agg := range []string{"count", "sum", "last"} {
						q := citywarden.SeriesQuery{Device: "m", Domain: citywarden.Building, Metric: "power", Every: every, Agg: agg, From: begin, To: begin.Add(time.Duration(to) * time.Minute)}
						want, err := s.Query(t.Context(), q)
						if err != nil {
							t.Fatal(err)
						}
						got, err := r.Query(t.Context(), q)
						if err != nil {
							t.Fatal(err)
						}
						if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b citywarden.Value) bool { return a == b })); diff != "" {
							t.Errorf("%s, %s every %s (-readings +rollups):\n%s", when, agg, every, diff)
						}
					}
				}
			}
			consume(t, log[dropped:restarted], s, r)
			time.Sleep(1100 * time.Millisecond) // as late readings wait
			consume(t, log[restarted-1:restarted], s, r)
			check("before the restart", restarted)
			s, r = start()
			at, err := r.Cursor(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			consume(t, log[at.Group():], s, r)
			check("after the restart", minutes)
		})
	}
}

// forgetful is a series that has no readings of before any more.
type forgetful struct {
	*influx.Series
	before time.Time
}

func (f *forgetful) Rows(ctx context.Context, domain citywarden.Domain, q citywarden.HistoryQuery) ([]citywarden.SeriesRow, error) {
	if q.From.Before(f.before) {
		q.From = f.before
	}
	return f.Series.Rows(ctx, domain, q)
}

func (f *forgetful) OldestRollup(ctx context.Context, level time.Duration, domain citywarden.Domain) (time.Time, error) {
	at, err := f.Series.OldestRollup(ctx, level, domain)
	if level == 0 && at.Before(f.before) {
		at = f.before
	}
	return at, err
}

// TestALateReadingMakesNoRollupLess: where what an hour is made of is not all kept any more, readings that come late for it leave its
// rollup as it is, also when they are as many as what is gone; where it is, though the levels below are gone, they are in it.
func TestALateReadingMakesNoRollupLess(t *testing.T) {
	late := map[int]int{160: 0, 190: 0} // at which minute readings come late, and how many more seconds of it
	for m := 150; m < 180; m++ {
		late[m] = 1
	}
	for _, c := range []struct {
		name    string
		first   int // minute of the first reading
		forgets int // minutes of which the readings are gone
		late    map[int]int
		want    []float64
		says    bool
	}{
		{"one of a part", 0, 150, map[int]int{160: 0, 190: 0}, []float64{60, 60, 61}, true},
		{"more of a part than is gone", 0, 150, late, []float64{60, 60, 61}, true},
		{"of all, in the first hour that has any", 63, 0, map[int]int{62: 0, 190: 0}, []float64{58, 60, 61}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := openStore(t)
			srv := likeInfluxDB2(t, openCore(t))
			s := newSeries(t, influx.Options{URL: srv.url, Token: srv.token("all"), Org: "county", Cursors: db})
			f := &forgetful{Series: s}
			var said bytes.Buffer
			r := ingest.NewRollups(ingest.RollupOptions{Store: f, Series: s, Cursors: db, Directory: meters{}, Domains: []citywarden.Domain{citywarden.Building},
				Logger: slog.New(slog.NewTextHandler(&said, nil))})
			var log []citywarden.Entry
			for i := range 322 {
				var readings []citywarden.Reading
				if i >= c.first {
					readings = append(readings, reading("power", citywarden.Number(1), time.Duration(i)*time.Minute))
				}
				if i == 320 {
					for m, more := range c.late {
						for s := 1; s <= 1+more; s++ {
							readings = append(readings, reading("power", citywarden.Number(1), time.Duration(m)*time.Minute+time.Duration(s)*time.Second))
						}
					}
				}
				e := entry(uint64(i+1), device("m", meterModel), meterModel, readings...)
				e.At = begin.Add(time.Duration(i) * time.Minute)
				log = append(log, e)
			}
			consume(t, log[:300], s, r)
			srv.drop("citywarden/rollup_1m")
			srv.drop("citywarden/rollup_15m")
			consume(t, log[300:320], s, r)
			f.before = begin.Add(time.Duration(c.forgets) * time.Minute)
			time.Sleep(1100 * time.Millisecond) // as late readings wait
			consume(t, log[320:], s, r)
			got, err := r.Query(t.Context(), citywarden.SeriesQuery{Device: "m", Domain: citywarden.Building, Metric: "power", Every: time.Hour, Agg: "count", From: begin.Add(time.Hour), To: begin.Add(4 * time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			var counts []float64
			for _, p := range got {
				counts = append(counts, p.Value.Float())
			}
			if d := cmp.Diff(c.want, counts); d != "" {
				t.Errorf("readings of the hours (-want +got):\n%s", d)
			}
			if says := strings.Contains(said.String(), "these stay as they are"); says != c.says {
				t.Errorf("it is said %t that windows stay: %s", says, &said)
			}
		})
	}
}

// counting counts the queries.
type counting struct {
	*influx.Series
	n *atomic.Int32
}

func (c counting) Query(ctx context.Context, q citywarden.SeriesQuery) ([]citywarden.SeriesPoint, error) {
	c.n.Add(1)
	return c.Series.Query(ctx, q)
}

// TestGroupsAndImport: readings of the past that are imported change the
// rollups that are closed, and groups are what their devices come to together.
func TestGroupsAndImport(t *testing.T) {
	ctx := t.Context()
	db := openStore(t)
	s := newSeries(t, influx.Options{Transport: openCore(t).Transport(), Cursors: db})
	r := ingest.NewRollups(ingest.RollupOptions{Store: s, Series: s, Cursors: db, Directory: zones{}, Domains: []citywarden.Domain{citywarden.Building}})
	read := func(id, metric string, v float64, at time.Duration) citywarden.DeviceReading {
		return citywarden.DeviceReading{Device: citywarden.DeviceID(id), Reading: reading(metric, citywarden.Number(v), at)}
	}
	if _, err := r.Import(ctx, []citywarden.DeviceReading{read("a1", "power", 1, 0)}); citywarden.CodeOf(err) != citywarden.CodeTransient {
		t.Errorf("import before the log is read = %v, want a transient error", err)
	}
	var log []citywarden.Entry
	for i := range 240 { // a1 and b1 each minute, 4 h
		at := time.Duration(i) * time.Minute
		es := []citywarden.Entry{
			entry(uint64(2*i+1), device("a1", meterModel), meterModel, reading("power", citywarden.Number(float64(i)), at), reading("energy", citywarden.Number(float64(i)), at)),
			entry(uint64(2*i+2), device("b1", meterModel), meterModel, reading("power", citywarden.Number(1), at), reading("energy", citywarden.Number(float64(2*i)), at)),
		}
		for k := range es {
			es[k].At = begin.Add(at)
		}
		log = append(log, es...)
	}
	consume(t, log, s, r)
	groups := func(q citywarden.GroupQuery) map[string][]float64 {
		t.Helper()
		q.Domain, q.From, q.To, q.Every = citywarden.Building, begin.Add(time.Hour), begin.Add(4*time.Hour), time.Hour
		gs, err := r.Groups(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string][]float64{}
		for _, g := range gs {
			for i, p := range g.Points {
				if !p.Time.Equal(q.From.Add(time.Duration(i) * time.Hour)) {
					t.Errorf("point %d of %q is of %s", i, g.Name, p.Time)
				}
				out[g.Name] = append(out[g.Name], p.Value.Float())
			}
		}
		return out
	}
	check := func(what string, q citywarden.GroupQuery, want map[string][]float64) {
		t.Helper()
		if diff := cmp.Diff(want, groups(q)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("max by zone", citywarden.GroupQuery{Metric: "power", By: "zone", Agg: "max"}, map[string][]float64{"a": {119, 179, 239}, "b": {1, 1, 1}})
	check("count of all", citywarden.GroupQuery{Metric: "power", Agg: "count"}, map[string][]float64{"": {120, 120, 120}})
	check("count in an area", citywarden.GroupQuery{Metric: "power", Agg: "count", Area: "350623100"}, map[string][]float64{"": {60, 60, 60}})
	check("increase of all", citywarden.GroupQuery{Metric: "energy", Agg: citywarden.AggIncrease}, map[string][]float64{"": {59 + 118, 60 + 120, 60 + 120}})

	refused, err := r.Import(ctx, []citywarden.DeviceReading{
		read("a2", "power", 1000, 90*time.Minute), read("a2", "power", 2000, 90*time.Minute+time.Second),
		read("a2", "nothing", 1, time.Hour), {Device: "a2", Reading: reading("power", citywarden.Bool(true), time.Hour)},
		{Device: "a2", Reading: citywarden.Reading{Metric: "power", Value: citywarden.Number(1), Time: time.Now()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range refused {
		if (err != nil) != (i >= 2) {
			t.Errorf("reading %d: %v", i, err)
		}
	}
	check("after the import", citywarden.GroupQuery{Metric: "power", By: "zone", Agg: "max"}, map[string][]float64{"a": {2000, 179, 239}, "b": {1, 1, 1}})
	for _, level := range []time.Duration{time.Minute, 15 * time.Minute, time.Hour} {
		rows, err := s.RollupRows(ctx, level, citywarden.Building, citywarden.HistoryQuery{From: begin, To: begin.Add(4 * time.Hour), Devices: map[citywarden.DeviceID]bool{"a2": true}})
		want := citywarden.Rollup{Count: 2, Min: 1000, Max: 2000, Sum: 3000, First: 1000, Last: 2000}
		if err != nil || len(rows) != 1 || rows[0].Metrics["power"] != want {
			t.Errorf("rollups of %s after the import: %+v, %v", level, rows, err)
		}
	}
	n := 0
	if err := r.Export(ctx, citywarden.HistoryQuery{From: begin, To: begin.Add(24 * time.Hour)}, func(rows []citywarden.SeriesRow) error {
		n += len(rows)
		return nil
	}); err != nil || n != 482 {
		t.Errorf("exported %d rows, %v; want 482", n, err)
	}
}

// consume hands entries to consumers of the log, one after the other.
func consume(t *testing.T, entries []citywarden.Entry, to ...ingest.Consumer) {
	t.Helper()
	for _, c := range to {
		if err := c.Consume(t.Context(), entries); err != nil {
			t.Fatal(err)
		}
	}
}

// zones is meters in the zone that their id begins with.
type zones struct{}

func (zones) Child(_ citywarden.DeviceID, name string) (citywarden.DeviceID, error) {
	return "", citywarden.Errorf(citywarden.CodeNotFound, "no device %q", name)
}

func (zones) Device(id citywarden.DeviceID) (*citywarden.Device, *citywarden.Model, error) {
	d := device(string(id), meterModel)
	d.Attributes = map[string]any{"zone": string(id[:1])}
	d.Grid = map[citywarden.DeviceID]citywarden.GridCode{"b1": "350623100001001"}[id]
	return d, meterModel, nil
}

// TestRollupsOfADatabaseThatIsGone has an InfluxDB 1 lose the database, or its retention policies: the
// next rollups make again what they need, whether or not readings came before.
func TestRollupsOfADatabaseThatIsGone(t *testing.T) {
	url := startServer(t)
	ctx := t.Context()
	statement := func(q string) {
		t.Helper()
		r, err := http.PostForm(url+"/query", neturl.Values{"q": {q}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if body, err := io.ReadAll(r.Body); err != nil || strings.Contains(string(body), "error") { // it is done when the answer has come
			t.Fatalf("%s: %s, %v", q, body, err)
		}
	}
	for i, c := range []struct{ name, lost string }{
		{"never there", ""},
		{"dropped", `DROP DATABASE "%s"`},
		{"dropped and made by somebody else", `DROP DATABASE "%[1]s"; CREATE DATABASE "%[1]s"`},
		{"policy dropped", `DROP RETENTION POLICY "rollup_1m" ON "%s"`},
	} {
		for _, first := range []string{"readings", "rollups"} {
			t.Run(c.name+", "+first+" first", func(t *testing.T) {
				o := influx.Options{URL: url, Database: fmt.Sprintf("gone-%d-%s", i, first), Cursors: openStore(t)}
				var log bytes.Buffer
				o.Logger = slog.New(slog.NewTextHandler(&log, nil))
				s := newSeries(t, o)
				rows := []citywarden.RollupRow{{Device: "m", Time: begin, Metrics: map[citywarden.MetricName]citywarden.Rollup{"power": citywarden.RollupOf(3)}}}
				pos := uint64(0)
				write := func(what string) {
					t.Helper()
					var err error
					if what == "rollups" {
						var anew bool
						if anew, err = s.WriteRollups(ctx, time.Minute, citywarden.Building, rows); anew { // the next are kept again
							_, err = s.WriteRollups(ctx, time.Minute, citywarden.Building, rows)
						}
					} else {
						pos++
						err = s.Consume(ctx, []citywarden.Entry{entry(pos, device("m", meterModel), meterModel, reading("power", citywarden.Number(3), 0))})
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				pos++ // of the log's first record nothing is written: after it the cursor is not at the beginning any more
				if err := s.Consume(ctx, []citywarden.Entry{entry(pos, device("m", meterModel), meterModel)}); err != nil {
					t.Fatal(err)
				}
				if c.lost != "" {
					write("readings")
					write("rollups")
					statement(fmt.Sprintf(c.lost, o.Database))
				}
				if first == "readings" {
					write("readings")
				}
				write("rollups")
				write("readings")
				got, err := s.RollupRows(ctx, time.Minute, citywarden.Building, citywarden.HistoryQuery{From: begin, To: begin.Add(time.Hour)})
				if diff := cmp.Diff(rows, got); err != nil || diff != "" {
					t.Errorf("rollups: %v (-want +got):\n%s", err, diff)
				}
				if points, err := s.Query(ctx, citywarden.SeriesQuery{Device: "m", Domain: citywarden.Building, Metric: "power"}); err != nil || len(points) != 1 {
					t.Errorf("readings: %v, %v; want one", points, err)
				}
				if c.lost == "" && strings.Contains(log.String(), "database of the series was gone") {
					t.Errorf("a database that was never there was gone:\n%s", &log)
				}
				if logged := strings.Contains(log.String(), "rollups were gone"); logged != (c.lost != "") {
					t.Errorf("that the rollups were gone is logged: %t\n%s", logged, &log)
				}
			})
		}
	}
}

// TestRollupsOfABucketThatIsGone is the same of an InfluxDB 2.
func TestRollupsOfABucketThatIsGone(t *testing.T) {
	srv := likeInfluxDB2(t, openCore(t))
	var log bytes.Buffer
	s := newSeries(t, influx.Options{URL: srv.url, Token: srv.token("all"), Org: "county", Logger: slog.New(slog.NewTextHandler(&log, nil))})
	rows := []citywarden.RollupRow{{Device: "m", Time: begin, Metrics: map[citywarden.MetricName]citywarden.Rollup{"power": citywarden.RollupOf(3)}}}
	for i, want := range []int{0, 0, 1, 1} {
		if i == 2 {
			srv.drop("citywarden/rollup_1m")
		}
		if anew, err := s.WriteRollups(t.Context(), time.Minute, citywarden.Building, rows); err != nil || anew != (i == 2) {
			t.Fatal(anew, err)
		}
		if n := strings.Count(log.String(), "rollups were gone"); n != want {
			t.Errorf("write %d: logged %d times, want %d\n%s", i, n, want, &log)
		}
	}
	got, err := s.RollupRows(t.Context(), time.Minute, citywarden.Building, citywarden.HistoryQuery{From: begin, To: begin.Add(time.Hour)})
	if diff := cmp.Diff(rows, got); err != nil || diff != "" {
		t.Errorf("rollups: %v (-want +got):\n%s", err, diff)
	}
}

// TestRollupsThatTheServerRefuses has a server that will never take some of them: the others are
// kept, those are left out, counted and logged, and the rollups go on.
func TestRollupsThatTheServerRefuses(t *testing.T) {
	row := func(device string, metrics ...citywarden.MetricName) citywarden.RollupRow {
		r := citywarden.RollupRow{Device: citywarden.DeviceID(device), Time: begin, Metrics: map[citywarden.MetricName]citywarden.Rollup{}}
		for _, m := range metrics {
			r.Metrics[m] = citywarden.RollupOf(1)
		}
		return r
	}
	check := func(t *testing.T, o influx.Options, written, want []citywarden.RollupRow, lost float64, words string) {
		t.Helper()
		var log bytes.Buffer
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		reg := prometheus.NewRegistry()
		o.Metrics = reg
		s := newSeries(t, o)
		if _, err := s.WriteRollups(t.Context(), time.Minute, citywarden.Fire, written); err != nil {
			t.Fatal(err)
		}
		got, err := s.RollupRows(t.Context(), time.Minute, citywarden.Fire, citywarden.HistoryQuery{From: begin, To: begin.Add(time.Hour)})
		slices.SortFunc(got, func(a, b citywarden.RollupRow) int { return strings.Compare(string(a.Device), string(b.Device)) })
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("rollups: %v (-want +got):\n%s", err, diff)
		}
		if n := metric(t, reg, "citywarden_series_points_total", "rejected"); n != lost {
			t.Errorf("%g rejected, want %g", n, lost)
		}
		if n := strings.Count(log.String(), "rollups refused"); n != 1 || !strings.Contains(log.String(), words) {
			t.Errorf("logged %d times, want once with %q:\n%s", n, words, &log)
		}
	}
	t.Run("server with a limit of series", func(t *testing.T) {
		t.Setenv("INFLUXDB_DATA_MAX_SERIES_PER_DATABASE", "2")
		check(t, influx.Options{URL: startServer(t), Cursors: openStore(t)},
			[]citywarden.RollupRow{row("sd-1", "smoke"), row("sd-2", "smoke"), row("sd-3", "co", "smoke")},
			[]citywarden.RollupRow{row("sd-1", "smoke"), row("sd-2", "smoke")}, 2, "max-series-per-database limit exceeded")
	})
	for _, words := range []string{ // InfluxDB 1 and 3.10
		`partial write: max-values-per-tag limit exceeded (100000/100000): measurement="fire" tag="device" value="sd-2" dropped=1`,
		"write buffer error: line protocol parse failed: Update to schema would exceed number of columns per table limit of 500 columns",
	} {
		t.Run(words, func(t *testing.T) {
			core := openCore(t)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if strings.HasSuffix(r.URL.Path, "/write") && strings.Contains(string(body), "co.last") {
					say(w, http.StatusBadRequest, map[string]any{"code": "invalid", "message": words})
					return
				}
				rec := ask(core, r, body)
				maps.Copy(w.Header(), rec.Header())
				w.WriteHeader(rec.Code)
				_, _ = w.Write(rec.Body.Bytes())
			}))
			defer srv.Close()
			check(t, influx.Options{URL: srv.URL, Cursors: openStore(t)},
				[]citywarden.RollupRow{row("sd-1", "smoke"), row("sd-2", "co", "smoke"), row("sd-3", "smoke"), row("sd-4", "co")},
				[]citywarden.RollupRow{row("sd-1", "smoke"), row("sd-2", "smoke"), row("sd-3", "smoke")}, 2, words[:30])
		})
	}
}

// TestOldestRollupOfMoreThanAStatementMayRead has more in an InfluxDB 3 Core than it reads at a time, with
// a gap: after a restart the rollups have to go on.
func TestOldestRollupOfMoreThanAStatementMayRead(t *testing.T) {
	for _, release := range []release3{influxDB30, influxDB34, influxDB310} {
		t.Run(release.name, func(t *testing.T) {
			s := newSeries(t, influx.Options{URL: likeInfluxDB3(t, openCore(t), release), Token: "secret"})
			oldest := time.Now().UTC().Truncate(time.Hour).Add(-400 * 24 * time.Hour)
			var rows []citywarden.RollupRow
			write := func(at time.Time) {
				rows = append(rows, citywarden.RollupRow{Device: "m", Time: at, Metrics: map[citywarden.MetricName]citywarden.Rollup{"power": citywarden.RollupOf(1)}})
			}
			write(oldest)
			for i := range 5 * 144 { // five days
				write(begin.Add(-time.Duration(i) * fileSpan))
			}
			if _, err := s.WriteRollups(t.Context(), time.Minute, citywarden.Building, rows); err != nil {
				t.Fatal(err)
			}
			if at, err := s.OldestRollup(t.Context(), time.Minute, citywarden.Building); err != nil || !at.Equal(oldest) {
				t.Errorf("oldest rollup: %s, %v; want %s", at, err, oldest)
			}
		})
	}
}
