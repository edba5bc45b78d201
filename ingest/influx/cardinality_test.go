package influx_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/ingest/influx"
)

// TestCardinality: the database does not come to hold more series than it may, whoever
// changes zones or registers devices. What would be one more is a dead letter that says so; what is
// there goes on, also after a restart, and there is room again when the limit is raised.
func TestCardinality(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) influx.Options{
		"embedded": func(t *testing.T) influx.Options { return influx.Options{Transport: openCore(t).Transport()} },
		"server":   func(t *testing.T) influx.Options { return influx.Options{URL: startServer(t)} },
		"InfluxDB 2": func(t *testing.T) influx.Options {
			srv := realInfluxDB2(t)
			return influx.Options{URL: srv.url, Org: "county", Token: srv.token("all")}
		},
		"like InfluxDB 2": func(t *testing.T) influx.Options {
			srv := likeInfluxDB2(t, openCore(t))
			return influx.Options{URL: srv.url, Org: "county", Token: srv.token("all")}
		},
		"like InfluxDB 3.0": func(t *testing.T) influx.Options {
			return influx.Options{URL: likeInfluxDB3(t, openCore(t), influxDB30), Token: "secret"}
		},
		"like InfluxDB 3.10": func(t *testing.T) influx.Options {
			return influx.Options{URL: likeInfluxDB3(t, openCore(t), influxDB310), Token: "secret"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := openStore(t)
			o := start(t)
			o.MaxSeries, o.Cursors, o.Database = 3, db, "cardinality"
			s := newSeries(t, o)
			n := uint64(0)
			send := func(ds ...*citywarden.Device) {
				t.Helper()
				var es []citywarden.Entry
				for _, d := range ds {
					n++
					es = append(es, entry(n, d, smokeModel, reading("smoke", citywarden.Number(float64(n)), 0), reading("battery", citywarden.Number(1), 0)))
				}
				if err := s.Consume(t.Context(), es); err != nil {
					t.Fatal(err)
				}
			}
			letters := func() (out []string) {
				t.Helper()
				ls, _, err := db.DeadLetters(t.Context(), citywarden.DeadLetterFilter{Oldest: true})
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range ls {
					if !strings.Contains(l.Reason, "refused smoke: ") || !strings.Contains(l.Reason, "; battery: ") || !strings.Contains(l.Reason, "at most 3 may be (series.max_series)") {
						t.Errorf("reason of %s: %s", l.Device, l.Reason)
					}
					out = append(out, fmt.Sprint(l.Position.Group(), " ", l.Device))
				}
				return out
			}
			moved := device("sd-1", smokeModel)
			moved.Attributes["zone"] = "elsewhere, it's 'far'"
			send(device("sd-1", smokeModel), device("sd-2", smokeModel), device("sd-2", smokeModel))
			send(moved)
			send(device("sd-1", smokeModel), moved)
			send(device("sd-3", smokeModel), device("sd-2", smokeModel), device("sd-3", smokeModel))
			want := []string{"7 sd-3", "9 sd-3"}
			if diff := cmp.Diff(want, letters()); diff != "" {
				t.Fatalf("dead letters:\n%s", diff)
			}
			count := func(id string) (n int) {
				ps, err := s.Query(t.Context(), citywarden.SeriesQuery{Device: citywarden.DeviceID(id), Domain: citywarden.Fire, Metric: "battery"})
				if err != nil {
					t.Fatal(err)
				}
				return len(ps)
			}
			if a, b, c := count("sd-1"), count("sd-2"), count("sd-3"); a == 0 || b == 0 || c != 0 {
				t.Errorf("%d, %d and %d points of sd-1, sd-2 and sd-3", a, b, c)
			}
			if strings.Contains(name, "InfluxDB") { // they don't tell what they hold: what is written again after a restart is counted
				return
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = newSeries(t, o)
			send(device("sd-3", smokeModel), moved, device("sd-2", smokeModel), device("sd-1", smokeModel))
			if diff := cmp.Diff(append(want, "10 sd-3"), letters()); diff != "" {
				t.Fatalf("dead letters after a restart:\n%s", diff)
			}
			refused, err := s.Store(t.Context(), []citywarden.Entry{entry(1, device("sd-4", smokeModel), smokeModel, reading("smoke", citywarden.Number(1), 0)), entry(2, moved, smokeModel, reading("smoke", citywarden.Number(1), 0))})
			if err != nil || len(refused) != 2 || refused[0] == nil || refused[1] != nil {
				t.Errorf("import = %v, %v; want the first refused", refused, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			o.MaxSeries = 4
			s = newSeries(t, o)
			send(device("sd-3", smokeModel))
			if diff := cmp.Diff(append(want, "10 sd-3"), letters()); diff != "" || count("sd-3") != 1 {
				t.Fatalf("with room for one more: %d points, dead letters:\n%s", count("sd-3"), diff)
			}
			for _, first := range [][]*citywarden.Device{{device("sd-1", smokeModel)}, {}} { // what is there is not counted twice, written or not
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				o.MaxSeries++
				s = newSeries(t, o)
				send(first...)
				id := fmt.Sprint("sd-", o.MaxSeries)
				send(device("sd-2", smokeModel), moved, device(id, smokeModel))
				if diff := cmp.Diff(append(want, "10 sd-3"), letters()); diff != "" || count(id) != 1 {
					t.Fatalf("with room for one more, %d sent before: %d points, dead letters:\n%s", len(first), count(id), diff)
				}
			}
			send(device("sd-7", smokeModel))
			if n := count("sd-7"); n != 0 {
				t.Fatalf("without room: %d points", n)
			}
		})
	}
}
