package influx

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/influxdata/influxdb/models"
	"github.com/influxdata/influxql"

	"github.com/citywarden/citywarden"
)

// FuzzLine holds the line protocol against InfluxDB's own parser: whatever the
// texts hold, one line is one point with these tags, fields and time.
func FuzzLine(f *testing.F) {
	f.Add("sd-1", "zone 1", "a,b=c", "smoke", "text", 0.31, int64(1700000000000000000))
	f.Add(`\`, `\\`, `a\`, `,= "`, `"\`, math.Copysign(0, -1), int64(-1))
	f.Add("x\nfire,device=evil smoke=1 1", "\r\n", "#", "\"", "\n", 1e300, int64(1))
	f.Fuzz(func(t *testing.T, id, zone, site, metric, text string, number float64, ns int64) {
		at := time.Unix(0, ns).UTC()
		if y := at.Year(); y < 1700 || y > 2250 || metric == "" || !finite(citywarden.Number(number)) ||
			strings.ContainsAny(metric, "\n\r\t\\\x00") || len(metric)+len(id)+len(zone)+len(site) > 10_000 {
			t.Skip() // the registry and the models keep these out
		}
		e := &citywarden.Entry{
			Device: &citywarden.Device{ID: citywarden.DeviceID(id), Model: "m", Grid: "350623001001001",
				Attributes: map[string]any{"zone": zone, "site": site, "floor": 3.0}},
			Model: &citywarden.Model{Name: "m", Domain: citywarden.Fire},
			Readings: []citywarden.Reading{
				{Metric: citywarden.MetricName(metric), Value: citywarden.Number(number), Time: at},
				{Metric: "other", Value: citywarden.TextValue(text), Time: at},
				{Metric: "third", Value: citywarden.Bool(true), Time: at},
			},
		}
		if metric == "other" || metric == "third" {
			t.Skip()
		}
		ls := lines(nil, e)
		if len(ls) != 1 {
			t.Fatalf("%d lines, want 1", len(ls))
		}
		raw := ls[0].appendTo(nil)
		points, err := models.ParsePointsWithPrecision(raw, time.Time{}, "ns")
		if err != nil || len(points) != 1 {
			t.Fatalf("%q: %d points, %v", raw, len(points), err)
		}
		p := points[0]
		if got := string(p.Name()); got != "fire" {
			t.Errorf("%q: measurement %q", raw, got)
		}
		for name, want := range map[string]string{"device": tagValue(id), "model": "m", "zone": tagValue(zone), "site": tagValue(site)} {
			if got := p.Tags().GetString(name); got != want {
				t.Errorf("%q: tag %s = %q, want %q", raw, name, got, want)
			}
		}
		if !p.Time().Equal(at) {
			t.Errorf("%q: time %s, want %s", raw, p.Time(), at)
		}
		fields, err := p.Fields()
		if err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		if got := fields["third"]; got != true || len(fields) != 3 {
			t.Errorf("%q: fields %v", raw, fields)
		}
		if got := fields["other"]; got != text {
			t.Errorf("%q: text %q, want %q", raw, got, text)
		}
		if got, ok := fields[metric].(float64); !ok || got != number {
			t.Errorf("%q: number %v, want %v", raw, fields[metric], number)
		}
	})
}

// FuzzSelect holds the query text against InfluxDB's own parser: whatever the
// names hold, it is one SELECT from that measurement with that device.
func FuzzSelect(f *testing.F) {
	f.Add("sd-1", "fire", "smoke")
	f.Add(`x' OR '1'='1`, `fire"; DROP DATABASE x`, `a") FROM "b`)
	f.Add("\n\\n\\\\'\"", "\\", "\\\"")
	f.Fuzz(func(t *testing.T, device, domain, metric string) {
		if !utf8.ValidString(device) || !utf8.ValidString(domain) || !utf8.ValidString(metric) || strings.ContainsAny(device+domain+metric, "\x00\r") {
			t.Skip() // InfluxQL's scanner changes these itself
		}
		text, err := selectText(citywarden.SeriesQuery{Device: citywarden.DeviceID(device), Domain: citywarden.Domain(domain),
			Metric: citywarden.MetricName(metric), Every: time.Minute})
		if device == "" || domain == "" || metric == "" {
			if err == nil {
				t.Error("a query without a name was made")
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		q, err := influxql.ParseQuery(text)
		if err != nil || len(q.Statements) != 1 {
			t.Fatalf("%s: %v", text, err)
		}
		s, ok := q.Statements[0].(*influxql.SelectStatement)
		if !ok || len(s.Sources) != 1 || len(s.Fields) != 1 {
			t.Fatalf("%s: %#v", text, q.Statements[0])
		}
		if got := s.Sources[0].(*influxql.Measurement).Name; got != domain {
			t.Errorf("measurement %q, want %q", got, domain)
		}
		if got := s.Fields[0].Expr.(*influxql.Call).Args[0].(*influxql.VarRef).Val; got != metric {
			t.Errorf("field %q, want %q", got, metric)
		}
		c := s.Condition.(*influxql.BinaryExpr)
		if got := c.RHS.(*influxql.StringLiteral).Val; c.Op != influxql.EQ || c.LHS.(*influxql.VarRef).Val != "device" || got != device {
			t.Errorf("condition %s, want device %q", c, device)
		}
	})
}

// TestHeal breaks the engine under the core, as a full disk does, and writes again.
func TestHeal(t *testing.T) {
	core, err := OpenCore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer core.Close()
	s, err := New(Options{Transport: core.Transport(), Cursors: noCursors{}, Refusals: noCursors{}})
	if err != nil {
		t.Fatal(err)
	}
	e := &citywarden.Entry{Record: citywarden.Record{Position: 1}, Device: &citywarden.Device{ID: "a"}, Model: &citywarden.Model{Domain: "fire"},
		Readings: []citywarden.Reading{{Metric: "smoke", Value: citywarden.Number(1), Time: time.Now()}}}
	if err := s.Consume(t.Context(), []citywarden.Entry{*e}); err != nil {
		t.Fatal(err)
	}
	if err := core.engine.store.Close(); err != nil {
		t.Fatal(err)
	}
	e.Position = 2
	e.Readings = []citywarden.Reading{{Metric: "smoke", Value: citywarden.Number(2), Time: time.Now().Add(time.Second)}}
	if err := s.Consume(t.Context(), []citywarden.Entry{*e}); citywarden.CodeOf(err) != citywarden.CodeTransient {
		t.Fatalf("Consume on a broken engine = %v, want %s", err, citywarden.CodeTransient)
	}
	if err := s.Consume(t.Context(), []citywarden.Entry{*e}); err != nil {
		t.Fatalf("Consume after it was opened again: %v", err)
	}
	if got, err := s.Query(t.Context(), citywarden.SeriesQuery{Device: "a", Domain: "fire", Metric: "smoke"}); err != nil || len(got) != 2 {
		t.Errorf("points = %v, %v; want both", got, err)
	}
}

type noCursors struct{}

func (noCursors) Cursor(context.Context, string) (citywarden.Position, error)  { return 0, nil }
func (noCursors) SetCursor(context.Context, string, citywarden.Position) error { return nil }
func (noCursors) SaveRefused(context.Context, []citywarden.Refused) error      { return nil }

func BenchmarkConsume(b *testing.B) {
	core, err := OpenCore(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer core.Close()
	s, err := New(Options{Transport: core.Transport(), Cursors: noCursors{}, Refusals: noCursors{}})
	if err != nil {
		b.Fatal(err)
	}
	model := &citywarden.Model{Domain: "fire"}
	es := make([]citywarden.Entry, 2048)
	for i := range es {
		es[i].Device, es[i].Model = &citywarden.Device{ID: citywarden.DeviceID(fmt.Sprintf("sd-%04d", i)), Model: "smoke-detector", Grid: "350623001001001"}, model
	}
	at, pos := time.Now().Add(-time.Hour).Truncate(time.Second), citywarden.Position(0)
	for b.Loop() {
		at = at.Add(time.Second)
		for i := range es {
			pos++
			es[i].Position = pos
			es[i].Readings = []citywarden.Reading{{Metric: "smoke", Value: citywarden.Number(0.01), Time: at},
				{Metric: "temperature", Value: citywarden.Number(21.5), Time: at}, {Metric: "battery", Value: citywarden.Number(98), Time: at}}
		}
		if err := s.Consume(b.Context(), es); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*2048/b.Elapsed().Seconds(), "messages/s")
}
