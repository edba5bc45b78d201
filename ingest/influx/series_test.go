package influx_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/ingest/influx"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

// begin is when the readings of these tests begin: recent, so that no
// retention drops them.
var begin = time.Now().UTC().Truncate(time.Hour).Add(-24 * time.Hour)

var (
	smokeModel = &citywarden.Model{Name: "smoke-detector", Domain: citywarden.Fire}
	waterModel = &citywarden.Model{Name: "water-meter", Domain: citywarden.Building}
)

func device(id string, m *citywarden.Model) *citywarden.Device {
	return &citywarden.Device{ID: citywarden.DeviceID(id), Model: m.Name, Grid: "350623001001001",
		Attributes: map[string]any{"zone": "z 1,=\"东\\", "site": "厂房 \\ a,b", "floor": 3.0}}
}

// entry is one decoded message.
func entry(pos uint64, d *citywarden.Device, m *citywarden.Model, rs ...citywarden.Reading) citywarden.Entry {
	return citywarden.Entry{
		Record: citywarden.Record{Position: citywarden.PositionAt(pos, 0), Kind: citywarden.RecordUplink, At: begin,
			Uplink: &citywarden.Uplink{Device: d.ID, Received: begin}},
		Device: d, Model: m, Readings: rs,
	}
}

func reading(metric string, v citywarden.Value, at time.Duration) citywarden.Reading {
	return citywarden.Reading{Metric: citywarden.MetricName(metric), Value: v, Time: begin.Add(at)}
}

func openStore(t testing.TB) *store.DB {
	t.Helper()
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
	return db
}

func newSeries(t testing.TB, o influx.Options) *influx.Series {
	t.Helper()
	if o.Cursors == nil {
		o.Cursors = openStore(t)
	}
	if o.Refusals == nil {
		o.Refusals = o.Cursors.(influx.Refusals)
	}
	s, err := influx.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func openCore(t testing.TB) *influx.Core {
	t.Helper()
	c, err := influx.OpenCore(filepath.Join(t.TempDir(), "series"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// freePort returns a port of loopback that nobody listens on.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// startServer starts a real influxd (INFLUXD, or influxd in the PATH), with more lines in the part http of its configuration, and
// returns its URL; the test is skipped when there is none.
func startServer(t *testing.T, more ...string) string {
	t.Helper()
	bin := os.Getenv("INFLUXD")
	if bin == "" {
		var err error
		if bin, err = exec.LookPath("influxd"); err != nil {
			t.Skip("no influxd in the PATH and INFLUXD is not set: go install github.com/influxdata/influxdb/cmd/influxd@v1.8.10")
		}
	}
	dir, port, rpc := t.TempDir(), freePort(t), freePort(t)
	config := fmt.Sprintf(`reporting-disabled = true
bind-address = "127.0.0.1:%d"
[meta]
dir = %q
[data]
dir = %q
wal-dir = %q
[http]
bind-address = "127.0.0.1:%d"
log-enabled = false
%s
[monitor]
store-enabled = false
`, rpc, dir+"/meta", dir+"/data", dir+"/wal", port, strings.Join(more, "\n"))
	file := filepath.Join(dir, "influxdb.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "run", "-config", file)
	out, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		out.Close()
	})
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	deadline := time.Now().Add(30 * time.Second)
	for {
		r, err := http.Get(url + "/ping")
		if err == nil {
			r.Body.Close()
			return url
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(out.Name())
			t.Fatalf("influxd does not answer: %v\n%s", err, log)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

// TestAcceptance is what every InfluxDB must do for us.
func TestAcceptance(t *testing.T) {
	t.Run("core", func(t *testing.T) {
		acceptance(t, influx.Options{Transport: openCore(t).Transport(), Retention: 400 * 24 * time.Hour})
	})
	t.Run("server", func(t *testing.T) {
		acceptance(t, influx.Options{URL: startServer(t), Username: "u", Password: "p", Retention: 400 * 24 * time.Hour})
	})
	onInfluxDB2(t, "acceptance", func(t *testing.T, srv influxDB2) {
		acceptance(t, influx.Options{URL: srv.url, Token: srv.token("all"), Org: "county", MaxSeries: 1000})
	})
	for _, release := range []release3{influxDB30, influxDB34, influxDB310} {
		t.Run("as InfluxDB "+release.name+" answers", func(t *testing.T) {
			acceptance(t, influx.Options{URL: likeInfluxDB3(t, openCore(t), release), Token: "secret", MaxSeries: 1000})
		})
		t.Run("as InfluxDB "+release.name+" answers, with an organisation", func(t *testing.T) {
			acceptance(t, influx.Options{URL: likeInfluxDB3(t, openCore(t), release), Token: "secret", Org: "county"})
		})
	}
	t.Run("core by socket", func(t *testing.T) {
		srv := httptest.NewServer(openCore(t).Handler())
		defer srv.Close()
		acceptance(t, influx.Options{URL: srv.URL, Token: "x"})
	})
}

func acceptance(t *testing.T, o influx.Options) {
	ctx := t.Context()
	db := openStore(t)
	o.Cursors = db
	reg := prometheus.NewRegistry()
	o.Metrics = reg
	s := newSeries(t, o)
	points := func(q citywarden.SeriesQuery) []any {
		t.Helper()
		ps, err := s.Query(ctx, q)
		if err != nil {
			t.Fatalf("Query(%+v): %v", q, err)
		}
		out := []any{}
		for _, p := range ps {
			out = append(out, p.Time.Sub(begin).String(), p.Value.Any())
		}
		return out
	}
	consume := func(es ...citywarden.Entry) {
		t.Helper()
		if err := s.Consume(ctx, es); err != nil {
			t.Fatalf("Consume: %v", err)
		}
	}
	d1, d2 := device("sd-1", smokeModel), device("sd-2", smokeModel)
	smoke := citywarden.SeriesQuery{Device: "sd-1", Domain: citywarden.Fire, Metric: "smoke"}

	if got := points(smoke); len(got) != 0 {
		t.Errorf("points before any write = %v", got)
	}
	text := "line 1\nline \"2\" \\ 'x', y=1 烟"
	consume(
		entry(1, d1, smokeModel, reading("smoke", citywarden.Number(0.31), 0), reading("button", citywarden.Bool(true), 0),
			reading("note", citywarden.TextValue(text), 0), reading("smoke", citywarden.Number(-1e-7), time.Microsecond)),
		entry(2, d2, smokeModel, reading("smoke", citywarden.Number(5), 0)),
		entry(3, d1, smokeModel, reading("smoke", citywarden.Number(1e21), time.Minute), reading("button", citywarden.Bool(false), time.Minute)),
	)
	for _, c := range []struct {
		name string
		q    citywarden.SeriesQuery
		want []any
	}{
		{"raw", smoke, []any{"0s", 0.31, "1µs", -1e-7, "1m0s", 1e21}},
		{"bool", citywarden.SeriesQuery{Device: "sd-1", Domain: citywarden.Fire, Metric: "button"}, []any{"0s", true, "1m0s", false}},
		{"text", citywarden.SeriesQuery{Device: "sd-1", Domain: citywarden.Fire, Metric: "note"}, []any{"0s", text}},
		{"other device", citywarden.SeriesQuery{Device: "sd-2", Domain: citywarden.Fire, Metric: "smoke"}, []any{"0s", 5.0}},
		{"from is inclusive, to exclusive", citywarden.SeriesQuery{Device: "sd-1", Domain: citywarden.Fire, Metric: "smoke",
			From: begin.Add(time.Microsecond), To: begin.Add(time.Minute)}, []any{"1µs", -1e-7}},
		{"limit", citywarden.SeriesQuery{Device: "sd-1", Domain: citywarden.Fire, Metric: "smoke", Limit: 1}, []any{"0s", 0.31}},
		{"max", citywarden.SeriesQuery{Device: "sd-1", Domain: citywarden.Fire, Metric: "smoke", From: begin, To: begin.Add(time.Hour),
			Every: 30 * time.Second, Agg: "max"}, []any{"0s", 0.31, "1m0s", 1e21}},
		{"count", citywarden.SeriesQuery{Device: "sd-1", Domain: citywarden.Fire, Metric: "smoke", From: begin, To: begin.Add(time.Hour),
			Every: time.Minute, Agg: "count"}, []any{"0s", 2.0, "1m0s", 1.0}},
		{"bool per interval", citywarden.SeriesQuery{Device: "sd-1", Domain: citywarden.Fire, Metric: "button", From: begin, To: begin.Add(time.Hour),
			Every: time.Hour}, []any{"0s", false}},
		{"no such device", citywarden.SeriesQuery{Device: "nobody", Domain: citywarden.Fire, Metric: "smoke"}, []any{}},
		{"no such metric", citywarden.SeriesQuery{Device: "sd-1", Domain: citywarden.Fire, Metric: "nothing"}, []any{}},
		{"no such measurement", citywarden.SeriesQuery{Device: "sd-1", Domain: "nothing", Metric: "smoke"}, []any{}},
	} {
		if diff := cmp.Diff(c.want, points(c.q)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}

	// The same entries again, and a device that has moved to another zone meanwhile.
	consume(entry(3, d1, smokeModel, reading("smoke", citywarden.Number(-3), time.Minute)))
	moved := device("sd-1", smokeModel)
	moved.Grid, moved.Attributes = "350623001001002", nil
	consume(entry(4, moved, smokeModel, reading("smoke", citywarden.Number(2), 30*time.Second)))
	if diff := cmp.Diff([]any{"0s", 0.31, "1µs", -1e-7, "30s", 2.0, "1m0s", 1e21}, points(smoke)); diff != "" {
		t.Errorf("after a repetition and a move (-want +got):\n%s", diff)
	}

	// The points that the server rejects are left out, everything else of the
	// same write is kept, the log goes on.
	var es []citywarden.Entry
	for i := range uint64(40) {
		e := entry(10+i, device(fmt.Sprintf("wm-%02d", i), waterModel), waterModel,
			reading("flow", citywarden.Number(float64(i)), 0), reading("volume", citywarden.Number(1), 0))
		if i == 17 {
			e.Readings[0].Value = citywarden.TextValue("much") // flow is a number
		}
		if i == 33 {
			e.Readings = append(e.Readings, reading("flow", citywarden.Number(math.Inf(1)), time.Second))
		}
		es = append(es, e)
	}
	consume(es...)
	for i := range 40 {
		id := citywarden.DeviceID(fmt.Sprintf("wm-%02d", i))
		want := []any{"0s", float64(i)}
		if i == 17 {
			want = []any{}
		}
		if diff := cmp.Diff(want, points(citywarden.SeriesQuery{Device: id, Domain: citywarden.Building, Metric: "flow"})); diff != "" {
			t.Errorf("flow of %s (-want +got):\n%s", id, diff)
		}
		if diff := cmp.Diff([]any{"0s", 1.0}, points(citywarden.SeriesQuery{Device: id, Domain: citywarden.Building, Metric: "volume"})); diff != "" {
			t.Errorf("volume of %s (-want +got):\n%s", id, diff)
		}
	}
	if got := metric(t, reg, "citywarden_series_points_total", "rejected"); got != 1 {
		t.Errorf("rejected points = %g, want 1", got)
	}
	letters, _, err := db.DeadLetters(ctx, citywarden.DeadLetterFilter{})
	if err != nil || len(letters) != 1 || letters[0].Device != "wm-17" || letters[0].Stage != citywarden.FailedSeries ||
		!strings.Contains(letters[0].Reason, "the time series refused flow: ") ||
		!strings.Contains(letters[0].Reason, "type") && !strings.Contains(letters[0].Reason, "parsing for line protocol failed") {
		t.Errorf("dead letters = %+v, %v; want that of wm-17 with the words of the server", letters, err)
	}

	// More than one batch at once.
	es = es[:0]
	for i := range uint64(3) {
		e := entry(100+i, d2, smokeModel)
		for k := range 4000 {
			e.Readings = append(e.Readings, reading("temperature", citywarden.Number(float64(k)), time.Duration(i)*time.Hour+time.Duration(k)*100*time.Millisecond))
		}
		es = append(es, e)
	}
	consume(es...)
	temperature := citywarden.SeriesQuery{Device: "sd-2", Domain: citywarden.Fire, Metric: "temperature", From: begin, To: begin.Add(3 * time.Hour), Every: time.Hour, Agg: "count"}
	if diff := cmp.Diff([]any{"0s", 4000.0, "1h0m0s", 4000.0, "2h0m0s", 4000.0}, points(temperature)); diff != "" {
		t.Errorf("points of three batches by the hour (-want +got):\n%s", diff)
	}

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err := db.Cursor(ctx, "series"); err != nil || p != citywarden.PositionAt(102, 0) {
		t.Errorf("stored cursor = %d, %v; want %d", p, err, citywarden.PositionAt(102, 0))
	}
}

// metric returns the value of a counter with one label.
func metric(t *testing.T, reg *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == name && m.Label[0].GetValue() == label {
				return m.Counter.GetValue()
			}
		}
	}
	t.Fatalf("no metric %s{%s}", name, label)
	return 0
}

// TestOutage breaks the way to a working core in every way and checks that the
// cursor waits and nothing is missing afterwards.
func TestOutage(t *testing.T) {
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			io.WriteString(w, body)
		}
	}
	core := openCore(t)
	for _, c := range []struct {
		name  string
		fault http.HandlerFunc
		code  citywarden.Code
	}{
		{"connection cut", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, citywarden.CodeTransient},
		{"500", status(500, `{"error":"engine: no space left on device"}`), citywarden.CodeTransient},
		{"503", status(503, ``), citywarden.CodeTransient},
		// influxdata/docs.influxdata.com-ARCHIVE#2368
		{"full disk of the server", status(400, `{"error":"partial write: write /var/lib/influxdb/data/x/_series/06/0002: no space left on device dropped=1"}`), citywarden.CodeTransient},
		{"429", status(429, `{"code":"too many requests","message":"limit"}`), citywarden.CodeTransient},
		{"401", status(401, `{"code":"unauthorized","message":"unauthorized access"}`), citywarden.CodeDenied},
		{"403", status(403, `{"error":"forbidden"}`), citywarden.CodeDenied},
		{"404 that stays", status(404, `{"code":"not found","message":"bucket \"x\" not found"}`), citywarden.CodeTransient},
		{"400 of a proxy", status(400, `<html>400 Bad Request</html>`), citywarden.CodeTransient},
		{"302", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, citywarden.CodeTransient},
		{"written, but the answer is lost", func(w http.ResponseWriter, r *http.Request) {
			core.Handler().ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}, citywarden.CodeTransient},
	} {
		t.Run(c.name, func(t *testing.T) {
			var down atomic.Bool
			var writes atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/write") {
					writes.Add(1)
				}
				// The third write is the first to fail: a batch in the middle.
				if down.Load() && (writes.Load() > 2 || c.name == "404 that stays") {
					c.fault(w, r)
					return
				}
				core.Handler().ServeHTTP(w, r)
			}))
			defer srv.Close()
			db := openStore(t)
			s := newSeries(t, influx.Options{URL: srv.URL, Cursors: db, Database: "db-" + strings.ReplaceAll(c.name, " ", "-")})
			d := device("sd-1", smokeModel)
			if err := s.Consume(t.Context(), []citywarden.Entry{entry(1, d, smokeModel, reading("smoke", citywarden.Number(1), 0))}); err != nil {
				t.Fatal(err)
			}
			before, err := s.Cursor(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var es []citywarden.Entry
			for i := range uint64(12_000) {
				es = append(es, entry(2+i, d, smokeModel, reading("smoke", citywarden.Number(float64(i)), time.Second+time.Duration(i)*time.Millisecond)))
			}
			down.Store(true)
			writes.Store(0)
			for range 3 {
				err := s.Consume(t.Context(), es)
				if got := citywarden.CodeOf(err); got != c.code {
					t.Errorf("Consume = %v (%s), want code %s", err, got, c.code)
				}
			}
			if got, _ := s.Cursor(t.Context()); got >= citywarden.PositionAt(2+11_999, 0) || got < before {
				t.Errorf("cursor during the outage = %d", got)
			}
			if stored, _ := db.Cursor(t.Context(), "series"); stored >= citywarden.PositionAt(2+11_999, 0) {
				t.Errorf("stored cursor during the outage = %d, past what is written", stored)
			}
			down.Store(false)
			// A new process goes on from the stored cursor.
			s2 := newSeries(t, influx.Options{URL: srv.URL, Cursors: db, Database: "db-" + strings.ReplaceAll(c.name, " ", "-")})
			if err := s2.Consume(t.Context(), es); err != nil {
				t.Fatal(err)
			}
			got, err := s2.Query(t.Context(), citywarden.SeriesQuery{Device: "sd-1", Domain: citywarden.Fire, Metric: "smoke", Limit: 100_000})
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 12_001 {
				t.Errorf("%d points after the outage, want 12001", len(got))
			}
		})
	}
}

// TestALimitOfTheServerIsADeadLetter has a server that takes no more series: what is of a
// known device is kept, and what would be a new series is a dead letter with the server's words.
func TestALimitOfTheServerIsADeadLetter(t *testing.T) {
	for _, words := range []string{
		"partial write: max-series-per-database limit exceeded: (1000000) dropped=1",
		`partial write: max-values-per-tag limit exceeded (100000/100000): measurement="fire" tag="device" value="sd-new" dropped=1`,
		"partial write: points beyond retention policy dropped=1",
	} {
		core := openCore(t)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/write") {
				core.Handler().ServeHTTP(w, r)
				return
			}
			body, _ := io.ReadAll(r.Body)
			var good []byte
			for line := range strings.Lines(string(body)) {
				if !strings.Contains(line, "device=sd-new") {
					good = append(good, line...)
				}
			}
			if rec := ask(core, r, good); len(good) == len(body) || rec.Code == http.StatusNotFound {
				maps.Copy(w.Header(), rec.Header())
				w.WriteHeader(rec.Code)
				_, _ = w.Write(rec.Body.Bytes())
				return
			}
			say(w, http.StatusBadRequest, map[string]any{"error": words})
		}))
		db := openStore(t)
		s := newSeries(t, influx.Options{URL: srv.URL, Cursors: db})
		var es []citywarden.Entry
		for i, id := range []string{"sd-1", "sd-new", "sd-2"} {
			es = append(es, entry(uint64(1+i), device(id, smokeModel), smokeModel, reading("smoke", citywarden.Number(1), 0)))
		}
		if err := s.Consume(t.Context(), es); err != nil {
			t.Fatal(err)
		}
		for id, want := range map[citywarden.DeviceID]int{"sd-1": 1, "sd-new": 0, "sd-2": 1} {
			got, err := s.Query(t.Context(), citywarden.SeriesQuery{Device: id, Domain: citywarden.Fire, Metric: "smoke", Limit: 10})
			if err != nil || len(got) != want {
				t.Errorf("%s: %v, %v; want %d points", id, got, err, want)
			}
		}
		letters, _, err := db.DeadLetters(t.Context(), citywarden.DeadLetterFilter{})
		if err != nil || len(letters) != 1 || letters[0].Device != "sd-new" || !strings.Contains(letters[0].Reason, words) {
			t.Errorf("dead letters = %+v, %v; want that of sd-new with %q", letters, err, words)
		}
		srv.Close()
	}
}

// TestServerDown has nobody listening.
func TestServerDown(t *testing.T) {
	db := openStore(t)
	s := newSeries(t, influx.Options{URL: fmt.Sprintf("http://127.0.0.1:%d", freePort(t)), Cursors: db})
	err := s.Consume(t.Context(), []citywarden.Entry{entry(1, device("a", smokeModel), smokeModel, reading("smoke", citywarden.Number(1), 0))})
	if citywarden.CodeOf(err) != citywarden.CodeTransient || !strings.Contains(err.Error(), "InfluxDB at http://127.0.0.1") {
		t.Errorf("Consume = %v", err)
	}
	if _, err := s.Query(t.Context(), citywarden.SeriesQuery{Device: "a", Domain: "fire", Metric: "smoke"}); citywarden.CodeOf(err) != citywarden.CodeTransient {
		t.Errorf("Query = %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err := db.Cursor(t.Context(), "series"); p != 0 || err != nil {
		t.Errorf("cursor = %d, %v", p, err)
	}
}

func TestOptions(t *testing.T) {
	db := openStore(t)
	for _, c := range []struct {
		name string
		o    influx.Options
		want string
	}{
		{"nothing", influx.Options{Cursors: db, Refusals: db}, "URL of a server"},
		{"no scheme", influx.Options{Cursors: db, Refusals: db, URL: "influx:8086"}, "write it like"},
		{"short retention", influx.Options{Cursors: db, Refusals: db, URL: "http://x", Retention: time.Minute}, "at least 1h"},
		{"two credentials", influx.Options{Cursors: db, Refusals: db, URL: "http://x", Token: "a", Username: "b"}, "not both"},
	} {
		if _, err := influx.New(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: New = %v, want %q", c.name, err, c.want)
		}
	}
}

func TestBadQuery(t *testing.T) {
	s := newSeries(t, influx.Options{Transport: openCore(t).Transport()})
	ok := citywarden.SeriesQuery{Device: "a", Domain: "fire", Metric: "smoke"}
	for name, change := range map[string]func(*citywarden.SeriesQuery){
		"no device":      func(q *citywarden.SeriesQuery) { q.Device = "" },
		"backwards":      func(q *citywarden.SeriesQuery) { q.From, q.To = begin, begin },
		"tiny interval":  func(q *citywarden.SeriesQuery) { q.Every = time.Millisecond },
		"no interval":    func(q *citywarden.SeriesQuery) { q.Agg = "max" },
		"no such agg":    func(q *citywarden.SeriesQuery) { q.Every, q.Agg = time.Minute, "median" },
		"too many":       func(q *citywarden.SeriesQuery) { q.Limit = 1 << 30 },
		"year 1":         func(q *citywarden.SeriesQuery) { q.From = time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC) },
		"negative every": func(q *citywarden.SeriesQuery) { q.Every = -time.Minute },
	} {
		q := ok
		change(&q)
		if _, err := s.Query(t.Context(), q); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("%s: Query = %v, want %s", name, err, citywarden.CodeInvalid)
		}
	}
}

// TestQueryOfServerThatIsAway: people read why, and not the whole query.
func TestQueryOfServerThatIsAway(t *testing.T) {
	s := newSeries(t, influx.Options{URL: "http://127.0.0.1:1"})
	_, err := s.Query(t.Context(), citywarden.SeriesQuery{Device: "a", Domain: "fire", Metric: "smoke"})
	const want = "series smoke of a: InfluxDB at http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"
	if citywarden.CodeOf(err) != citywarden.CodeTransient || err.Error() != want {
		t.Errorf("Query = %v (%s), want %s", err, citywarden.CodeOf(err), want)
	}
}

// TestRetention has readings older than the retention: they are rejected, and
// the ones beside them are kept.
func TestRetention(t *testing.T) {
	core := openCore(t)
	reg := prometheus.NewRegistry()
	s := newSeries(t, influx.Options{Transport: core.Transport(), Retention: 48 * time.Hour, Metrics: reg})
	d := device("sd-1", smokeModel)
	e := entry(1, d, smokeModel, reading("smoke", citywarden.Number(1), -100*24*time.Hour), reading("smoke", citywarden.Number(2), 0))
	if err := s.Consume(t.Context(), []citywarden.Entry{e}); err != nil {
		t.Fatal(err)
	}
	q := citywarden.SeriesQuery{Device: "sd-1", Domain: "fire", Metric: "smoke"}
	if got, err := s.Query(t.Context(), q); err != nil || len(got) != 1 || got[0].Value.Float() != 2 {
		t.Errorf("points = %v, %v; want the new one", got, err)
	}
	if got := metric(t, reg, "citywarden_series_points_total", "rejected"); got != 1 {
		t.Errorf("rejected = %g, want 1", got)
	}
	// Kept for ever from now on.
	s2 := newSeries(t, influx.Options{Transport: core.Transport()})
	if err := s2.Consume(t.Context(), []citywarden.Entry{e}); err != nil {
		t.Fatal(err)
	}
	if got, err := s2.Query(t.Context(), q); err != nil || len(got) != 2 {
		t.Errorf("points without a limit of time = %v, %v; want both", got, err)
	}
}

// TestInjection asks for and writes under names that try to break out.
func TestInjection(t *testing.T) {
	s := newSeries(t, influx.Options{Transport: openCore(t).Transport()})
	nasty := []string{`x' OR '1'='1`, `x"; DROP DATABASE citywarden; --`, "a\nfire,device=evil smoke=99", `tail\`, `a\,b`, `a\ b`, ` `, "'", `\'`, "\x00", "é😀", `x' OR time > 0 --`}
	pos := uint64(0)
	for _, n := range nasty {
		pos++
		d := &citywarden.Device{ID: "ok", Model: "m", Attributes: map[string]any{"zone": n, "site": n}}
		at := time.Duration(pos) * time.Second
		if err := s.Consume(t.Context(), []citywarden.Entry{entry(pos, d, smokeModel, reading("smoke", citywarden.Number(1), at),
			reading("note", citywarden.TextValue(n), at))}); err != nil {
			t.Errorf("zone %q: %v", n, err)
		}
		for _, q := range []citywarden.SeriesQuery{
			{Device: citywarden.DeviceID(n), Domain: "fire", Metric: "smoke"},
			{Device: "ok", Domain: citywarden.Domain(n), Metric: "smoke"},
			{Device: "ok", Domain: "fire", Metric: citywarden.MetricName(n)},
			{Device: "ok", Domain: "fire", Metric: citywarden.MetricName(n), Every: time.Minute, Agg: "max"},
		} {
			if got, err := s.Query(t.Context(), q); len(got) > 0 {
				t.Errorf("Query(%+v) = %v, %v; want no points", q, got, err)
			}
		}
	}
	all, err := s.Query(t.Context(), citywarden.SeriesQuery{Device: "ok", Domain: "fire", Metric: "note"})
	if err != nil || len(all) != len(nasty) {
		t.Fatalf("%d points, %v; want %d", len(all), err, len(nasty))
	}
	for i, p := range all {
		if p.Value.String() != nasty[i] {
			t.Errorf("text %q came back as %q", nasty[i], p.Value)
		}
	}
	if got, _ := s.Query(t.Context(), citywarden.SeriesQuery{Device: "evil", Domain: "fire", Metric: "smoke"}); len(got) > 0 {
		t.Errorf("a zone's name wrote a point: %v", got)
	}
}

// TestCloseAndReopen also has the data directory closed to others.
func TestCloseAndReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "series")
	db := openStore(t)
	for i := range uint64(3) {
		core, err := influx.OpenCore(dir)
		if err != nil {
			t.Fatal(err)
		}
		s := newSeries(t, influx.Options{Transport: core.Transport(), Cursors: db})
		if err := s.Consume(t.Context(), []citywarden.Entry{entry(i+1, device("a", smokeModel), smokeModel, reading("smoke", citywarden.Number(1), time.Duration(i)*time.Second))}); err != nil {
			t.Fatal(err)
		}
		got, err := s.Query(t.Context(), citywarden.SeriesQuery{Device: "a", Domain: "fire", Metric: "smoke"})
		if err != nil || len(got) != int(i)+1 {
			t.Errorf("opened %d times: %d points, %v", i+1, len(got), err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := core.Close(); err != nil {
			t.Error(err)
		}
		if _, err := s.Query(t.Context(), citywarden.SeriesQuery{Device: "a", Domain: "fire", Metric: "smoke"}); citywarden.CodeOf(err) != citywarden.CodeTransient {
			t.Errorf("Query of a closed core = %v, want %s", err, citywarden.CodeTransient)
		}
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the directory = %v, %v; want 0700", info.Mode(), err)
	}
}

// TestPathsThatArePatterns: InfluxDB looks for its files by pattern, so that below "data[1]" it would find none of
// those it wrote.
func TestPathsThatArePatterns(t *testing.T) {
	for _, name := range []string{"data[1]", "c[1", "a*", "what?"} {
		dir := filepath.Join(t.TempDir(), name, "series")
		core, err := influx.OpenCore(dir)
		if citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), "choose another") {
			t.Errorf("OpenCore(%s) = %v, want CodeInvalid", dir, err)
		}
		if err == nil {
			core.Close()
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s was made: %v", dir, err)
		}
	}
}

// TestKill kills a process with -9 while it writes; every write that it had
// confirmed must be there.
// TestTornTail leaves the write-ahead log as a full disk or a power cut does, in
// the middle of an entry: what is written after it must be there for good.
// InfluxDB writes on behind the torn entry, which it then cuts off.
func TestTornTail(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "series")
	for i := range uint64(4) {
		core, err := influx.OpenCore(dir)
		if err != nil {
			t.Fatal(err)
		}
		s := newSeries(t, influx.Options{Transport: core.Transport()})
		if err := s.Consume(t.Context(), []citywarden.Entry{entry(i+1, device("a", smokeModel), smokeModel, reading("smoke", citywarden.Number(1), time.Duration(i)*time.Second))}); err != nil {
			t.Fatal(err)
		}
		got, err := s.Query(t.Context(), citywarden.SeriesQuery{Device: "a", Domain: "fire", Metric: "smoke"})
		if err != nil || len(got) != int(i)+1 {
			t.Errorf("opened %d times: %d points, %v", i+1, len(got), err)
		}
		if err := core.Close(); err != nil {
			t.Error(err)
		}
		segments, err := filepath.Glob(filepath.Join(dir, "wal", "*", "*", "*", "_*.wal"))
		if err != nil || len(segments) == 0 {
			t.Fatalf("segments of the write-ahead log: %v, %v", segments, err)
		}
		last := segments[len(segments)-1]
		b, err := os.ReadFile(last)
		if err != nil {
			t.Fatal(err)
		}
		torn := append(b, b[:len(b)/2]...)
		if err := os.WriteFile(last, torn, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKill(t *testing.T) {
	if dir := os.Getenv("CITYWARDEN_TEST_WRITER"); dir != "" {
		writer(dir)
		return
	}
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	total := 0
	for round := range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "CITYWARDEN_TEST_WRITER="+dir, fmt.Sprintf("CITYWARDEN_TEST_FROM=%d", total))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var confirmed int
		dec := json.NewDecoder(out)
		for confirmed < total+50_000 {
			if err := dec.Decode(&confirmed); err != nil {
				t.Fatalf("round %d: the writer said: %v", round, err)
			}
		}
		cmd.Process.Kill()
		for dec.Decode(&confirmed) == nil { // what it said before it died
		}
		cmd.Wait()

		core, err := influx.OpenCore(dir)
		if err != nil {
			t.Fatal(err)
		}
		s := newSeries(t, influx.Options{Transport: core.Transport()})
		got, err := s.Query(t.Context(), citywarden.SeriesQuery{Device: "a", Domain: "fire", Metric: "smoke", Limit: 1_000_000})
		if err != nil {
			t.Fatal(err)
		}
		for i := range confirmed {
			if i >= len(got) || got[i].Value.Float() != float64(i) {
				t.Fatalf("round %d: %d points were confirmed, %d are there, point %d is wrong", round, confirmed, len(got), i)
			}
		}
		total = len(got)
		if err := core.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d points written, none of the confirmed is missing", total)
}

// writer writes until it is killed and says after each write how many points
// are confirmed.
func writer(dir string) {
	var from uint64
	fmt.Sscan(os.Getenv("CITYWARDEN_TEST_FROM"), &from)
	core, err := influx.OpenCore(dir)
	if err == nil {
		var s *influx.Series
		cursors := new(memoryCursors)
		if s, err = influx.New(influx.Options{Transport: core.Transport(), Cursors: cursors, Refusals: cursors}); err == nil {
			e := entry(1, device("a", smokeModel), smokeModel)
			start, _ := time.Parse(time.RFC3339, "2026-01-01T00:00:00Z")
			for i := from; err == nil; {
				e.Position = citywarden.PositionAt(i-from+1, 0)
				e.Readings = nil
				for range 1000 {
					e.Readings = append(e.Readings, citywarden.Reading{Metric: "smoke", Value: citywarden.Number(float64(i)), Time: start.Add(time.Duration(i) * time.Second)})
					i++
				}
				if err = s.Consume(context.Background(), []citywarden.Entry{e}); err == nil {
					fmt.Println(i)
				}
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// memoryCursors are cursors in memory.
type memoryCursors struct {
	mu sync.Mutex
	at citywarden.Position
}

func (c *memoryCursors) Cursor(context.Context, string) (citywarden.Position, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at, nil
}

func (c *memoryCursors) SetCursor(_ context.Context, _ string, p citywarden.Position) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = p
	return nil
}

func (c *memoryCursors) SaveRefused(context.Context, []citywarden.Refused) error { return nil }

// brokenCursors can't be stored.
type brokenCursors struct{ memoryCursors }

func (*brokenCursors) SetCursor(context.Context, string, citywarden.Position) error {
	return errors.New("disk full")
}

// TestCursorNotStored has the points written and the cursor not: the entries
// come again and nothing is there twice.
func TestCursorNotStored(t *testing.T) {
	core := openCore(t)
	s := newSeries(t, influx.Options{Transport: core.Transport(), Cursors: new(brokenCursors)})
	es := []citywarden.Entry{entry(1, device("a", smokeModel), smokeModel, reading("smoke", citywarden.Number(1), 0))}
	if err := s.Consume(t.Context(), es); err == nil {
		t.Error("Consume = nil although the cursor was not stored")
	}
	if p, _ := s.Cursor(t.Context()); p != 0 {
		t.Errorf("Cursor = %d, want 0", p)
	}
	s = newSeries(t, influx.Options{Transport: core.Transport()})
	if err := s.Consume(t.Context(), es); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Query(t.Context(), citywarden.SeriesQuery{Device: "a", Domain: "fire", Metric: "smoke"}); err != nil || len(got) != 1 {
		t.Errorf("points = %v, %v; want one", got, err)
	}
}
