package ingest_test

import (
	"context"
	"errors"
	"path/filepath"
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

func (unsaved) SaveLedger(context.Context, string, citywarden.Position, citywarden.Position, []citywarden.LedgerRow, []citywarden.DeadLetter, []citywarden.LastHeard) error {
	return errors.New("disk is full")
}

// TestGapsOfBefore are told while the ledger can't be saved: charts show them.
func TestGapsOfBefore(t *testing.T) {
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
	l := ingest.NewLedger(unsaved{db}, 0, nil)
	ten := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)
	gap := citywarden.Gap{From: ten, To: ten.Add(time.Minute), Missing: 2}
	if err := db.SaveLedger(t.Context(), "ledger", 0, citywarden.PositionAt(1, 0), []citywarden.LedgerRow{{Device: "d", Hour: ten, Missing: 2, Gaps: []citywarden.Gap{gap}}}, nil, nil); err != nil {
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
		if err := db.SaveLedger(t.Context(), "ledger", 0, citywarden.PositionAt(1, 0), rows, nil, nil); err != nil {
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
	)
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
		{"the platform had no room", plain, []message{{0, -1}, {30 * time.Minute, deaf}, {50 * time.Minute, deaf}, {65 * time.Minute, -1}},
			[]citywarden.LedgerRow{row(1, 0, 5*60)}, nil},
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
