package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// Seek is for History.
func (l *memLog) Seek(_ context.Context, t time.Time) (before citywarden.Position, oldest time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range l.groups {
		for _, r := range g {
			if oldest.IsZero() {
				oldest = r.At
			}
			if r.At.Before(t) {
				before = r.Position
			}
		}
	}
	return before, oldest, nil
}

// shelf is what the time series hold, in pages of two moments.
type shelf []citywarden.SeriesRow

func (s shelf) Rows(_ context.Context, domain citywarden.Domain, q citywarden.HistoryQuery) (out []citywarden.SeriesRow, _ error) {
	if domain != citywarden.Fire {
		return nil, nil
	}
	moments := map[time.Time]bool{}
	for _, r := range s {
		if r.Time.Before(q.From) || !r.Time.Before(q.To) || q.Devices != nil && !q.Devices[r.Device] {
			continue
		}
		if moments[r.Time] = true; len(moments) > 2 {
			break
		}
		out = append(out, r)
	}
	return out, nil
}

// told tells entries as "10s start" and "11s d smoke=0.1" lines.
func told(entries []citywarden.Entry, from time.Time) string {
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%s", e.At.Sub(from))
		switch e.Kind {
		case citywarden.RecordStart:
			b.WriteString(" start")
		case citywarden.RecordTick:
			b.WriteString(" tick")
		case citywarden.RecordOrder:
			b.WriteString(" order")
		}
		if e.Device != nil {
			fmt.Fprintf(&b, " %s", e.Device.ID)
		}
		for _, r := range e.Readings {
			fmt.Fprintf(&b, " %s=%s@%s", r.Metric, r.Value, r.Time.Sub(from))
			if r.Quality != citywarden.Good {
				fmt.Fprintf(&b, " (%s)", r.Quality)
			}
		}
		if e.Duplicates > 0 {
			fmt.Fprintf(&b, " %d duplicates", e.Duplicates)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestHistoryGoesFromTheSeriesOverToTheLog(t *testing.T) {
	t0 := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	l := &memLog{}
	put := func(s int, rec citywarden.Record) {
		rec.At = at(s)
		rec.Position = citywarden.PositionAt(uint64(len(l.groups)+1), len(l.open))
		l.open = append(l.open, rec)
		if len(l.open) == 2 {
			l.seal()
		}
	}
	up := func(s int, device citywarden.DeviceID, smoke float64) citywarden.Record {
		return citywarden.Record{Kind: citywarden.RecordUplink, Uplink: &citywarden.Uplink{Device: device, Topic: "v1/devices/me/telemetry", Received: at(s + 1),
			Payload: fmt.Appendf(nil, `{"ts":%d,"values":{"smoke":%g}}`, at(s).UnixMilli(), smoke)}}
	}
	put(100, citywarden.Record{Kind: citywarden.RecordStart})
	put(111, up(110, "a", 0.1))
	put(121, up(120, "b", 0.2))
	again := up(110, "a", 0.1) // the same once more
	again.Uplink.Received = at(112)
	put(122, again)
	late := up(50, "b", 0.4) // what it measured before the log began, and something new
	late.Uplink.Payload = fmt.Appendf(nil, `[{"ts":%d,"values":{"smoke":0.4}},{"ts":%d,"values":{"smoke":0.5}}]`, at(50).UnixMilli(), at(123).UnixMilli())
	put(124, late)
	put(124, citywarden.Record{Kind: citywarden.RecordTick})
	put(125, citywarden.Record{Kind: citywarden.RecordTick})
	put(130, citywarden.Record{Kind: citywarden.RecordOrder, Order: &citywarden.AlarmOrder{}})
	put(131, up(130, "nobody", 1))
	put(140, up(139, "a", 0.3))
	smoke := func(s int, device citywarden.DeviceID, v any) citywarden.SeriesRow {
		x, _ := citywarden.ValueOf(v)
		return citywarden.SeriesRow{Device: device, Time: at(s), Values: map[citywarden.MetricName]citywarden.Value{"smoke": x, "gone": citywarden.Number(1)}}
	}
	rows := shelf{smoke(9, "a", 0.9), smoke(20, "a", 0.1), smoke(20, "b", 99.0), smoke(30, "nobody", 0.1), smoke(40, "a", "text"), smoke(50, "b", 0.4), smoke(110, "a", 0.1)}
	h := &History{Log: l, Directory: one{testModel()}, Series: rows, Domains: []citywarden.Domain{citywarden.Pipe, citywarden.Fire}}
	for _, c := range []struct {
		name     string
		from, to int
		only     map[citywarden.DeviceID]bool
		logged   int
		want     string
	}{
		{"over the boundary", 10, 140, nil, 100, `20s start
20s a smoke=0.1@20s
20s b smoke=99@20s (out_of_range)
50s b smoke=0.4@50s
1m40s start
1m51s a smoke=0.1@1m50s
2m1s b smoke=0.2@2m0s
2m2s a 1 duplicates
2m4s b smoke=0.5@2m3s
2m4s tick
2m5s tick
2m10s order
2m11s
`},
		{"of one device", 10, 200, map[citywarden.DeviceID]bool{"b": true}, 100, `20s start
20s b smoke=99@20s (out_of_range)
50s b smoke=0.4@50s
1m40s start
1m51s
2m1s b smoke=0.2@2m0s
2m2s
2m4s b smoke=0.5@2m3s
2m4s tick
2m5s tick
2m10s order
2m11s
2m20s
`},
		{"in the log", 121, 126, nil, 121, "2m1s b smoke=0.2@2m0s\n2m2s a 1 duplicates\n2m4s b smoke=0.4@50s smoke=0.5@2m3s\n2m4s tick\n2m5s tick\n"},
		{"in the series", 45, 60, nil, 60, "50s start\n50s b smoke=0.4@50s\n"},
		{"nothing", 60, 90, nil, 90, ""},
		{"after the log", 500, 600, nil, 500, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []citywarden.Entry
			logged, err := h.Entries(t.Context(), citywarden.HistoryQuery{From: at(c.from), To: at(c.to), Devices: c.only}, func(es []citywarden.Entry) error {
				got = append(got, es...)
				return nil
			})
			if err != nil || !logged.Equal(at(c.logged)) {
				t.Errorf("from the log since %s, %v; want %ds", logged.Sub(t0), err, c.logged)
			}
			if diff := cmp.Diff(c.want, told(got, t0)); diff != "" {
				t.Error(diff)
			}
		})
	}

	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	_, err := h.Entries(ctx, citywarden.HistoryQuery{From: at(0), To: at(200)}, func([]citywarden.Entry) error {
		if n++; n == 3 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || n != 3 {
		t.Errorf("a reading ended by its caller: %v after %d pieces", err, n)
	}
	enough := errors.New("enough")
	if _, err := h.Entries(t.Context(), citywarden.HistoryQuery{From: at(0), To: at(200)}, func([]citywarden.Entry) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("a reading ended by its reader: %v", err)
	}
	l.broken = errors.New("disk gone")
	if _, err := h.Entries(t.Context(), citywarden.HistoryQuery{From: at(100), To: at(200)}, func([]citywarden.Entry) error { return nil }); !errors.Is(err, l.broken) {
		t.Errorf("a log that can't be read: %v", err)
	}
}
