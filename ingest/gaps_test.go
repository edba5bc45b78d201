package ingest_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/ingest"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

// unsaved is a store that can't be written.
type unsaved struct{ *store.DB }

func (unsaved) SaveLedger(context.Context, string, citywarden.Position, citywarden.Position, citywarden.LedgerAdd) error {
	return errors.New("disk is full")
}

// TestGapsOfBefore are told while the ledger can't be saved: charts show them.
func TestGapsOfBefore(t *testing.T) {
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
	l := ingest.NewLedger(unsaved{db}, 0, nil)
	ten := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)
	gap := citywarden.Gap{From: ten, To: ten.Add(time.Minute), Missing: 2}
	if err := db.SaveLedger(t.Context(), "ledger", 0, citywarden.PositionAt(1, 0), citywarden.LedgerAdd{Rows: []citywarden.LedgerRow{{Device: "d", Hour: ten, Missing: 2, Gaps: []citywarden.Gap{gap}}}}); err != nil {
		t.Fatal(err)
	}
	if err := l.Consume(t.Context(), []citywarden.Entry{{Record: citywarden.Record{Position: citywarden.PositionAt(2, 0), Kind: citywarden.RecordStart, At: ten}}}); err != nil {
		t.Fatal(err)
	}
	got, err := l.Gaps(t.Context(), "d", ten, ten.Add(time.Hour))
	if d := cmp.Diff([]citywarden.Gap{gap}, got); d != "" || err != nil {
		t.Errorf("%v, gaps:\n%s", err, d)
	}
}

// busy is a store that can't be written the first time.
type busy struct {
	*store.DB
	saved int
}

func (b *busy) SaveLedger(ctx context.Context, name string, from, to citywarden.Position, add citywarden.LedgerAdd) error {
	if b.saved++; b.saved == 1 {
		return errors.New("database is locked")
	}
	return b.DB.SaveLedger(ctx, name, from, to, add)
}

// TestWhatCouldNotBeSavedIsCountedOnce: the entries that come again, as the ledger could not be saved, were counted before.
func TestWhatCouldNotBeSavedIsCountedOnce(t *testing.T) {
	db := &busy{DB: pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)}
	l := ingest.NewLedger(db, 0, nil)
	at := time.Now().UTC()
	const n = 1000 // dead letters, with which it is saved
	entries := make([]citywarden.Entry, n)
	for i := range entries {
		p := citywarden.PositionAt(1, i)
		entries[i] = citywarden.Entry{
			Record:   citywarden.Record{Position: p, Kind: citywarden.RecordUplink, At: at, Uplink: &citywarden.Uplink{Device: "d"}},
			Rejected: 1, Reject: &citywarden.DeadLetter{Position: p, Stage: citywarden.FailedDecode, Device: "d", Received: at},
		}
	}
	if err := l.Consume(t.Context(), entries); err == nil {
		t.Fatal("it was saved at once")
	}
	if err := l.Consume(t.Context(), entries); err != nil {
		t.Fatal(err)
	}
	rows, _, err := l.Rows(t.Context(), citywarden.LedgerFilter{Page: citywarden.Page{Limit: 10}, From: at.Add(-time.Hour), To: at.Add(time.Hour)})
	if err != nil || len(rows) != 1 || rows[0].Messages != n || rows[0].Received != n || rows[0].Rejected != n {
		t.Errorf("%v, rows %+v, want one with %d", err, rows, n)
	}
	letters, _, err := l.DeadLetters(t.Context(), citywarden.DeadLetterFilter{Page: citywarden.Page{Limit: citywarden.MaxPage}})
	if err != nil || len(letters) != n {
		t.Errorf("%v, %d dead letters, want %d", err, len(letters), n)
	}
}

// paced is a store that notes when it was made to remove rows.
type paced struct {
	*store.DB
	at []time.Time
}

func (p *paced) TrimLedger(ctx context.Context, before time.Time) (int64, error) {
	n, err := p.DB.TrimLedger(ctx, before)
	if n > 0 {
		p.at = append(p.at, time.Now())
	}
	return n, err
}

// TestTheLedgerIsTrimmed: the rows of hours that are not to be kept go, all others stay. They go one
// hour at a time, with a pause: after years it may be many, and others write meanwhile.
func TestTheLedgerIsTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
		const keep = 90 * 24 * time.Hour
		now := time.Now().UTC().Truncate(time.Hour)
		var rows []citywarden.LedgerRow
		for _, age := range []time.Duration{400 * 24 * time.Hour, keep + 2*time.Hour, keep - 2*time.Hour, 0} {
			for _, id := range []citywarden.DeviceID{"a", "b"} {
				rows = append(rows, citywarden.LedgerRow{Device: id, Hour: now.Add(-age), Messages: 1, Received: 1, Stored: 1})
			}
		}
		if err := db.SaveLedger(t.Context(), "ledger", 0, citywarden.PositionAt(1, 0), citywarden.LedgerAdd{Rows: rows}); err != nil {
			t.Fatal(err)
		}
		p := &paced{DB: db}
		l := ingest.NewLedger(p, keep, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		time.Sleep(time.Hour + time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if len(p.at) != 2 || p.at[1].Sub(p.at[0]) < 100*time.Millisecond {
			t.Errorf("hours were removed at %v", p.at)
		}
		got, err := db.LedgerRows(t.Context(), time.Time{}, time.Time{}, "")
		if d := cmp.Diff(rows[4:], got); d != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, d)
		}
	})
}

// TestGaps: what never came stands in the ledger, by sequence numbers and by silence, whenever
// the platform is restarted in between.
func TestGaps(t *testing.T) {
	ten := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)
	first, top := 1.0, 255.0
	plain := &citywarden.Model{Name: "logger", Heartbeat: citywarden.Duration(10 * time.Minute), Metrics: []citywarden.Metric{
		{Name: "pressure", Kind: citywarden.KindNumber}, {Name: "seq", Kind: citywarden.KindNumber, Sequence: true}}}
	around := &citywarden.Model{Name: "around", Heartbeat: plain.Heartbeat, Metrics: []citywarden.Metric{
		{Name: "seq", Kind: citywarden.KindNumber, Sequence: true, Min: &first, Max: &top}}}
	type message struct {
		at  time.Duration // after ten
		seq float64       // -1 for none
	}
	const (
		start  = -2 // as seq: the platform begins to run
		deaf   = -3 // it has no room for messages
		willed = -4 // the will of the device
		other  = -5 // something else is logged
		unread = -6 // the log was not written for 20 minutes
	)
	const min = time.Minute
	full := func(from, to time.Duration, after ...message) []message { // with no room
		out := []message{{0, -1}}
		for at := from; at <= to; at += 10 * time.Second {
			out = append(out, message{at, deaf})
		}
		return append(out, after...)
	}
	steps := func(seqs ...float64) (out []message) {
		for i, s := range seqs {
			out = append(out, message{time.Duration(i) * time.Minute, s})
		}
		return out
	}
	daily := &citywarden.Model{Name: "daily", Heartbeat: citywarden.Duration(24 * time.Hour), Metrics: plain.Metrics}
	lateInTheNextHour := []message{{0, 1}}
	for h := range 6 {
		at, n := time.Duration(h)*time.Hour, float64(2*h)
		lateInTheNextHour = append(lateInTheNextHour, message{at + time.Minute, n + 3}, message{at + time.Hour, n + 2})
	}
	gap := func(from, to time.Duration, missing int64) []citywarden.Gap {
		return []citywarden.Gap{{From: ten.Add(from), To: ten.Add(to), Missing: missing}}
	}
	row := func(hour int, missing, silent int64) citywarden.LedgerRow {
		return citywarden.LedgerRow{Hour: ten.Add(time.Duration(hour) * time.Hour), Missing: missing, Silent: silent}
	}
	for _, c := range []struct {
		name  string
		model *citywarden.Model
		sent  []message
		want  []citywarden.LedgerRow // hours in which something is missing
		gaps  []citywarden.Gap
	}{
		{"none", plain, steps(7, 8, 9), nil, nil},
		{"no numbers", plain, steps(-1, -1), nil, nil},
		{"three missing", plain, steps(7, 9, 12), []citywarden.LedgerRow{row(0, 3, 0)}, append(gap(0, time.Minute, 1), gap(time.Minute, 2*time.Minute, 2)...)},
		{"one of three comes late", plain, steps(7, 11, 9), []citywarden.LedgerRow{row(0, 2, 0)}, gap(0, time.Minute, 2)},
		{"the only one comes late", plain, steps(7, 9, 8), []citywarden.LedgerRow{}, nil},
		{"each comes late in the next hour", daily, lateInTheNextHour, []citywarden.LedgerRow{row(0, 1, 0), row(6, -1, 0)}, nil},
		{"the same again", plain, steps(7, 8, 8, 9), nil, nil},
		{"counts anew", plain, steps(5000, 5001, 1, 2), nil, nil},
		{"jumps", plain, steps(1, 500_000, 500_001), nil, nil},
		{"half a number", plain, steps(1, 1.5, 2), nil, nil},
		{"rolls over", around, steps(254, 255, 1, 2), nil, nil},
		{"rolls over a gap", around, steps(254, 3), []citywarden.LedgerRow{row(0, 3, 0)}, gap(0, time.Minute, 3)},
		{"late across the end", around, steps(254, 2, 255), []citywarden.LedgerRow{row(0, 1, 0)}, gap(0, time.Minute, 1)},
		{"silent in one hour", plain, []message{{0, -1}, {30 * time.Minute, -1}}, []citywarden.LedgerRow{row(0, 0, 20*60)}, gap(10*time.Minute, 30*time.Minute, 0)},
		{"within the heartbeat", plain, []message{{0, -1}, {10 * time.Minute, -1}}, nil, nil},
		{"a little late", plain, []message{{0, -1}, {11 * time.Minute, -1}}, []citywarden.LedgerRow{row(0, 0, 60)}, nil},
		{"silent over hours", plain, []message{{30 * time.Minute, -1}, {2*time.Hour + 15*time.Minute, -1}},
			[]citywarden.LedgerRow{row(0, 0, 20*60), row(1, 0, 3600), row(2, 0, 15*60)}, gap(40*time.Minute, 135*time.Minute, 0)},
		{"the platform was away", plain, []message{{0, -1}, {50 * time.Minute, start}, {65 * time.Minute, -1}},
			[]citywarden.LedgerRow{row(1, 0, 5*60)}, nil},
		{"the platform had no room", plain, full(9*min, 50*min, message{65 * min, -1}), []citywarden.LedgerRow{row(1, 0, 5*60)}, nil},
		{"silent before and after an outage", plain, []message{{0, -1}, {30 * min, other}, {50 * min, start}, {65 * min, -1}},
			[]citywarden.LedgerRow{row(0, 0, 30*60), row(1, 0, 5*60)}, append(gap(10*min, 30*min, 0), gap(50*min, 65*min, 0)...)},
		{"silent before and after there was no room", plain, full(30*min, 50*min, message{65 * min, -1}),
			[]citywarden.LedgerRow{row(0, 0, 30*60), row(1, 0, 5*60)}, append(gap(10*min, 30*min, 0), gap(50*min, 65*min, 0)...)},
		{"silent before and after the log was not written", plain, []message{{0, -1}, {50 * min, unread}, {65 * min, -1}},
			[]citywarden.LedgerRow{row(0, 0, 30*60), row(1, 0, 5*60)}, append(gap(10*min, 30*min, 0), gap(50*min, 65*min, 0)...)},
		{"back within a heartbeat after an outage", plain, []message{{0, -1}, {50 * min, unread}, {60 * min, -1}},
			[]citywarden.LedgerRow{row(0, 0, 20*60)}, gap(10*min, 30*min, 0)},
		{"late, and then there is an outage", plain, []message{{0, -1}, {15 * min, other}, {50 * min, start}, {65 * min, -1}},
			[]citywarden.LedgerRow{row(0, 0, 5*60), row(1, 0, 5*60)}, nil},
		{"silent only after an outage", plain, []message{{0, -1}, {50 * min, unread}, {51 * min, -1}, {50*min + 30*min, -1}},
			[]citywarden.LedgerRow{row(0, 0, 20*60), row(1, 0, 19*60)}, append(gap(10*min, 30*min, 0), gap(61*min, 80*min, 0)...)},
		{"silent between outages", plain, []message{{0, -1}, {30 * min, other}, {40 * min, start}, {60 * min, other}, {70 * min, start}, {100 * min, -1}},
			[]citywarden.LedgerRow{row(0, 0, 40*60), row(1, 0, 30*60)}, append(append(gap(10*min, 30*min, 0), gap(40*min, 60*min, 0)...), gap(70*min, 100*min, 0)...)},
		{"outages soon after one another", plain, []message{{0, -1}, {30 * min, other}, {40 * min, start}, {45 * min, other}, {50 * min, start}, {65 * min, -1}},
			[]citywarden.LedgerRow{row(0, 0, 30*60), row(1, 0, 5*60)}, append(gap(10*min, 30*min, 0), gap(50*min, 65*min, 0)...)},
		{"started again while there was no room", plain, full(30*min, 40*min, message{45 * min, start}, message{65 * min, -1}),
			[]citywarden.LedgerRow{row(0, 0, 35*60), row(1, 0, 5*60)}, append(gap(10*min, 30*min, 0), gap(45*min, 65*min, 0)...)},
		{"a start that was quick", plain, []message{{0, -1}, {30 * min, other}, {30*min + 20*time.Second, start}, {65 * min, -1}},
			[]citywarden.LedgerRow{row(0, 0, 50*60), row(1, 0, 5*60)}, gap(10*min, 65*min, 0)},
		{"a start that was quick, of one that was not silent", plain, []message{{0, -1}, {10 * min, other}, {10*min + 20*time.Second, start}, {20 * min, -1}}, nil, nil},
		{"the first start", plain, []message{{0, start}, {10 * min, -1}, {20 * min, -1}}, nil, nil},
		{"our clock was set back", plain, []message{{0, -1}, {30 * min, other}, {20 * min, start}, {60 * min, -1}}, []citywarden.LedgerRow{row(0, 0, 40*60)}, gap(30*min, 60*min, 0)},
		{"its will is no message of it", plain, []message{{0, -1}, {5 * time.Minute, willed}, {30 * time.Minute, -1}},
			[]citywarden.LedgerRow{row(0, 0, 20*60)}, gap(10*time.Minute, 30*time.Minute, 0)},
	} {
		for _, restarts := range []bool{false, true} {
			db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
			l := ingest.NewLedger(db, 0, nil)
			for i, m := range c.sent {
				e := citywarden.Entry{Record: citywarden.Record{Position: citywarden.PositionAt(uint64(i+1), 0), Kind: citywarden.RecordStart, At: ten.Add(m.at)}}
				switch m.seq {
				case start:
				case deaf:
					e.Kind = citywarden.RecordDeaf
				case unread:
					e.Kind, e.Lasted = citywarden.RecordDeaf, 20*time.Minute
				case other:
					e.Kind = citywarden.RecordTick
				default:
					e.Kind, e.Uplink = citywarden.RecordUplink, &citywarden.Uplink{Device: "d"}
					e.Device, e.Model = &citywarden.Device{ID: "d"}, c.model
					if m.seq == willed {
						e.Uplink.Protocol = citywarden.ProtocolWill
					}
				}
				if m.seq >= 0 {
					e.Readings = []citywarden.Reading{{Metric: "seq", Value: citywarden.Number(m.seq), Time: e.At}}
				}
				if err := l.Consume(t.Context(), []citywarden.Entry{e}); err != nil {
					t.Fatal(err)
				}
				if restarts {
					if _, _, err := l.Rows(t.Context(), citywarden.LedgerFilter{From: ten, To: ten.Add(time.Hour), Device: "d"}); err != nil { // saves
						t.Fatal(err)
					}
					l = ingest.NewLedger(db, 0, nil)
				}
			}
			rows, _, err := l.Rows(t.Context(), citywarden.LedgerFilter{From: ten.Add(-time.Hour), To: ten.Add(100 * time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			gaps, err := l.Gaps(t.Context(), "d", ten.Add(-time.Hour), ten.Add(100*time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			gaps = slices.DeleteFunc(gaps, func(g citywarden.Gap) bool { return g.Outage })
			if diff := cmp.Diff(c.gaps, gaps, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s, restarts %t, gaps (-want +got):\n%s", c.name, restarts, diff)
			}
			var got []citywarden.LedgerRow
			for _, r := range rows {
				if r.Missing != 0 || r.Silent != 0 {
					got = append(got, citywarden.LedgerRow{Hour: r.Hour, Missing: r.Missing, Silent: r.Silent})
				}
			}
			if diff := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s, restarts %t (-want +got):\n%s", c.name, restarts, diff)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestOutagesAreUnknownToo: when the platform itself heard nobody for half a minute or more is told with the gaps of a device, as
// one outage while it lasts, also across a restart; and of many the oldest become one, for which nobody is blamed.
func TestOutagesAreUnknownToo(t *testing.T) {
	ten := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
	l, pos := ingest.NewLedger(db, 0, nil), uint64(0)
	note := func(kind citywarden.RecordKind, at time.Duration, device citywarden.DeviceID) {
		t.Helper()
		pos++
		e := citywarden.Entry{Record: citywarden.Record{Position: citywarden.PositionAt(pos, 0), Kind: kind, At: ten.Add(at)}}
		if kind == citywarden.RecordUplink {
			e.Uplink, e.Device = &citywarden.Uplink{Device: device}, &citywarden.Device{ID: device}
			e.Model = &citywarden.Model{Name: "logger", Heartbeat: citywarden.Duration(10 * time.Minute)}
		}
		if err := l.Consume(t.Context(), []citywarden.Entry{e}); err != nil {
			t.Fatal(err)
		}
	}
	gaps := func(to time.Duration, want ...citywarden.Gap) {
		t.Helper()
		got, err := l.Gaps(t.Context(), "d", ten, ten.Add(to))
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%v, gaps to %s:\n%s", err, to, d)
		}
	}
	outage := func(from, to time.Duration) citywarden.Gap {
		return citywarden.Gap{From: ten.Add(from), To: ten.Add(to), Outage: true}
	}
	note(citywarden.RecordUplink, 0, "d")
	note(citywarden.RecordUplink, 0, "e")
	note(citywarden.RecordStart, 20*time.Second, "") // a stumble
	for at := 5 * time.Minute; at <= 8*time.Minute; at += 10 * time.Second {
		note(citywarden.RecordDeaf, at, "")
		if at%time.Minute == 0 && at > 5*time.Minute {
			gaps(time.Hour, outage(5*time.Minute, at))
		}
		if at == 7*time.Minute {
			l = ingest.NewLedger(db, 0, nil)
		}
	}
	note(citywarden.RecordUplink, 9*time.Minute, "d")
	note(citywarden.RecordUplink, 9*time.Minute, "e")
	gaps(time.Hour, outage(5*time.Minute, 8*time.Minute))
	gaps(5*time.Minute+time.Second, outage(5*time.Minute, 8*time.Minute))

	const many = 1100
	at := time.Duration(0)
	for range many {
		at += 30 * time.Minute
		note(citywarden.RecordTick, at, "")
		note(citywarden.RecordStart, at+time.Minute, "")
	}
	for _, device := range []citywarden.DeviceID{"d", "e"} {
		note(citywarden.RecordUplink, at+31*time.Minute, device)
		rows, _, err := l.Rows(t.Context(), citywarden.LedgerFilter{From: ten, Device: device, Page: citywarden.Page{Limit: citywarden.MaxPage}})
		if err != nil {
			t.Fatal(err)
		}
		silent := time.Duration(0)
		for _, r := range rows {
			silent += time.Duration(r.Silent) * time.Second
		}
		// After the 77 oldest a heartbeat to come back, then 29 minutes between each two, and half an hour in the end.
		if want := 19*time.Minute + 1022*29*time.Minute + 30*time.Minute; silent != want {
			t.Errorf("%s was silent for %s, want %s", device, silent, want)
		}
		l = ingest.NewLedger(db, 0, nil) // reads the outages again
	}
}
