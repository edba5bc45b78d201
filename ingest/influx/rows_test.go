package influx_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/ingest/influx"
)

// rowsOf reads all pages of a domain as "offset device metric=value…" lines.
func rowsOf(t *testing.T, s *influx.Series, domain citywarden.Domain, q citywarden.HistoryQuery) (lines []string, pages int) {
	t.Helper()
	for {
		rows, err := s.Rows(t.Context(), domain, q)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) == 0 {
			return lines, pages
		}
		pages++
		for _, r := range rows {
			l := fmt.Sprintf("%s %s", r.Time.Sub(begin), r.Device)
			for _, m := range []citywarden.MetricName{"smoke", "button", "event", "volume", "device"} {
				if v, ok := r.Values[m]; ok {
					l += fmt.Sprintf(" %s=%s", m, v)
				}
			}
			lines = append(lines, l)
		}
		q.From = rows[len(rows)-1].Time.Add(1)
	}
}

func TestRowsOfEveryDeviceByTime(t *testing.T) {
	t.Parallel()
	s := newSeries(t, influx.Options{Transport: openCore(t).Transport()})
	q := citywarden.HistoryQuery{From: begin, To: begin.Add(time.Hour)}
	if got, _ := rowsOf(t, s, citywarden.Fire, q); got != nil {
		t.Errorf("rows of an empty database: %q", got)
	}
	a, b, w := device("a", smokeModel), device("b'; DROP", smokeModel), device("w", waterModel)
	moved := *a
	moved.Attributes = map[string]any{"zone": "elsewhere"}
	num := citywarden.Number
	if err := s.Consume(t.Context(), []citywarden.Entry{
		entry(1, a, smokeModel, reading("smoke", num(1), time.Minute), reading("button", citywarden.Bool(true), time.Minute)),
		entry(2, b, smokeModel, reading("smoke", num(2), time.Second), reading("event", citywarden.TextValue("null"), time.Minute)),
		entry(3, w, waterModel, reading("volume", num(3), time.Second)),
		entry(4, &moved, smokeModel, reading("smoke", num(4), 2*time.Minute)),
		entry(5, a, smokeModel, reading("smoke", num(5), time.Hour)), // not before To
	}); err != nil {
		t.Fatal(err)
	}
	want := "1s b'; DROP smoke=2|1m0s a smoke=1 button=true|1m0s b'; DROP event=null|2m0s a smoke=4"
	if got, _ := rowsOf(t, s, citywarden.Fire, q); strings.Join(got, "|") != want {
		t.Errorf("rows = %q, want %q", strings.Join(got, "|"), want)
	}
	q.Devices = map[citywarden.DeviceID]bool{"b'; DROP": true}
	want = "1s b'; DROP smoke=2|1m0s b'; DROP event=null"
	if got, _ := rowsOf(t, s, citywarden.Fire, q); strings.Join(got, "|") != want {
		t.Errorf("rows of one device = %q, want %q", strings.Join(got, "|"), want)
	}
	q.Devices = map[citywarden.DeviceID]bool{}
	if got, _ := rowsOf(t, s, citywarden.Fire, q); got != nil {
		t.Errorf("rows of no device = %q", got)
	}
}

// A page that is full must not cut a moment in two, not even when more rows
// than a page holds have one time.
func TestRowsKeepAMomentTogether(t *testing.T) {
	t.Parallel()
	s := newSeries(t, influx.Options{Transport: openCore(t).Transport()})
	var es []citywarden.Entry
	for i := range 12_000 {
		at := time.Minute
		if i < 3 {
			at = time.Duration(i) * time.Second
		}
		d := device(fmt.Sprintf("d%05d", i), smokeModel)
		es = append(es, entry(uint64(i+1), d, smokeModel, reading("smoke", citywarden.Number(float64(i)), at)))
	}
	if err := s.Consume(t.Context(), es); err != nil {
		t.Fatal(err)
	}
	lines, pages := rowsOf(t, s, citywarden.Fire, citywarden.HistoryQuery{From: begin, To: begin.Add(time.Hour)})
	if len(lines) != 12_000 || lines[0] != "0s d00000 smoke=0" || lines[11_999] != "1m0s d11999 smoke=11999" || pages != 2 {
		t.Errorf("%d rows in %d pages, from %q to %q", len(lines), pages, lines[0], lines[len(lines)-1])
	}
	many := map[citywarden.DeviceID]bool{}
	for i := range 200 { // more than a statement names
		many[citywarden.DeviceID(fmt.Sprintf("d%05d", i*60))] = true
	}
	lines, _ = rowsOf(t, s, citywarden.Fire, citywarden.HistoryQuery{From: begin, To: begin.Add(time.Hour), Devices: many})
	if len(lines) != 200 {
		t.Errorf("%d rows of 200 devices", len(lines))
	}
}

// An InfluxDB 1 with a max-row-limit cuts an answer before the LIMIT of its statement, and says so: the rest is asked for.
func TestAnswersThatTheServerCuts(t *testing.T) {
	t.Parallel()
	const recording = "influxdb1/row-limit"
	write := func(t *testing.T, url string, n int, at func(i int) (string, time.Duration)) {
		t.Helper()
		es := make([]citywarden.Entry, n)
		for i := range es {
			name, after := at(i)
			es[i] = entry(uint64(i+1), device(name, smokeModel), smokeModel, reading("smoke", citywarden.Number(float64(i)), after))
		}
		if err := newSeries(t, influx.Options{URL: url}).Consume(t.Context(), es); err != nil {
			t.Fatal(err)
		}
	}
	scenario := func(t *testing.T, url string) {
		s := newSeries(t, influx.Options{URL: url})
		for _, page := range []int{0, 4, 50_000} { // a limit of 4 cuts one moment in two, as that of the server does
			lines, _ := rowsOf(t, s, citywarden.Fire, citywarden.HistoryQuery{From: begin, To: begin.Add(time.Hour), Rows: page})
			if got, want := strings.Join(lines, "|"), "0s a smoke=0|0s b smoke=1|2s a smoke=2|2s b smoke=3|4s a smoke=4|4s b smoke=5|6s a smoke=6"; got != want {
				t.Errorf("rows in pages of %d = %s, want %s", page, got, want)
			}
		}
		q := citywarden.SeriesQuery{Device: "d", Domain: citywarden.Fire, Metric: "smoke", From: begin, To: begin.Add(48 * time.Hour)}
		ask := func(limit int, every time.Duration, agg string) string {
			t.Helper()
			q.Limit, q.Every, q.Agg = limit, every, agg
			ps, err := s.Query(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			out := ""
			for _, p := range ps {
				out += fmt.Sprintf(" %s=%s", p.Time.Sub(begin), p.Value)
			}
			return out
		}
		for _, c := range []struct {
			limit int
			every time.Duration
			agg   string
			want  string
		}{
			{0, 0, "", " 24h0m0s=9 24h0m1s=10 24h0m2s=11 24h0m3s=12 24h0m4s=13 24h0m5s=14 24h0m6s=15 24h0m7s=16"},
			{5, 0, "", " 24h0m0s=9 24h0m1s=10 24h0m2s=11 24h0m3s=12 24h0m4s=13"},
			{3, 0, "", " 24h0m0s=9 24h0m1s=10 24h0m2s=11"},
			{0, 2 * time.Second, "count", " 24h0m0s=2 24h0m2s=2 24h0m4s=2 24h0m6s=2"},
			{0, 2 * time.Second, "", " 24h0m0s=9.5 24h0m2s=11.5 24h0m4s=13.5 24h0m6s=15.5"},
		} {
			if got := ask(c.limit, c.every, c.agg); got != c.want {
				t.Errorf("at most %d points, %s every %s =%s, want%s", c.limit, c.agg, c.every, got, c.want)
			}
		}
		_, err := s.Rows(t.Context(), citywarden.Fire, citywarden.HistoryQuery{From: begin.Add(12 * time.Hour), To: begin.Add(13 * time.Hour)})
		if want := "cuts its answers after 3 rows, and has more for " + begin.Add(12*time.Hour).Format(time.RFC3339); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "raise max-row-limit") {
			t.Errorf("a moment with more rows than the server gives: %v, want %q", err, want)
		}
	}
	t.Run("InfluxDB 1", func(t *testing.T) {
		url := startServer(t, "max-row-limit = 3")
		write(t, url, 21, func(i int) (string, time.Duration) {
			switch {
			case i < 7:
				return string("ab"[i%2]), time.Duration(i/2) * 2 * time.Second
			case i < 9:
				return string("ab"[i%2]), time.Hour
			case i < 17:
				return "d", 24*time.Hour + time.Duration(i-9)*time.Second
			}
			return fmt.Sprint("m", i), 12 * time.Hour
		})
		srv, rec := recorded(t, influxDB2{url: url})
		scenario(t, srv.url)
		if *update && !t.Failed() {
			writeRecording(t, recording, rec.exchanges)
		}
	})
	t.Run("recorded InfluxDB 1", func(t *testing.T) { scenario(t, replayed(t, recording).url) })
	t.Run("pages of an audit", func(t *testing.T) {
		const n = 45_000
		url := startServer(t, "max-row-limit = 20000")
		write(t, url, n, func(i int) (string, time.Duration) {
			return fmt.Sprintf("d%02d", i%90), time.Duration(i/90) * time.Second
		})
		s := newSeries(t, influx.Options{URL: url})
		seen := map[string]bool{}
		lines, pages := rowsOf(t, s, citywarden.Fire, citywarden.HistoryQuery{From: begin, To: begin.Add(time.Hour), Rows: 50_000})
		for _, l := range lines {
			seen[l] = true
		}
		if len(lines) != n || len(seen) != n || pages != 3 {
			t.Errorf("%d rows, %d different ones, in %d pages, want %d in 3", len(lines), len(seen), pages, n)
		}
	})
}

// BenchmarkRows reads readings of many devices in pages of two lengths, as a backtest and an audit do.
func BenchmarkRows(b *testing.B) {
	s := newSeries(b, influx.Options{Transport: openCore(b).Transport()})
	const devices, rounds = 1000, 200
	var es []citywarden.Entry
	for i := range devices * rounds {
		d := device(fmt.Sprintf("d%04d", i%devices), smokeModel)
		es = append(es, entry(uint64(i+1), d, smokeModel, reading("smoke", citywarden.Number(float64(i)), time.Duration(i)*time.Millisecond),
			reading("button", citywarden.Bool(i%7 == 0), time.Duration(i)*time.Millisecond)))
	}
	if err := s.Consume(b.Context(), es); err != nil {
		b.Fatal(err)
	}
	for _, page := range []int{0, 50_000} {
		b.Run(fmt.Sprint(page), func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for range b.N {
				for q := (citywarden.HistoryQuery{From: begin, To: begin.Add(time.Hour), Rows: page}); ; {
					rows, err := s.Rows(b.Context(), citywarden.Fire, q)
					if err != nil {
						b.Fatal(err)
					}
					if n += len(rows); len(rows) == 0 {
						break
					}
					q.From = rows[len(rows)-1].Time.Add(1)
				}
			}
			if n != b.N*devices*rounds {
				b.Fatalf("%d rows of %d", n, b.N*devices*rounds)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
