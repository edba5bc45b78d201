package store

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/store/pgtest"
)

func TestLedger(t *testing.T) {
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), Open)
	nine := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	ten := nine.Add(time.Hour)
	at := func(seq uint64, i int) citywarden.Position { return citywarden.PositionAt(seq, i) }
	letter := func(p citywarden.Position, device citywarden.DeviceID) citywarden.DeadLetter {
		return citywarden.DeadLetter{Position: p, Stage: citywarden.FailedDecode, Device: device, Protocol: "mqtt", Topic: "t", Payload: []byte{0xff, 0, '{'},
			Received: nine.Add(5 * time.Nanosecond), Reason: "byte 0: …"}
	}
	save := func(from, to citywarden.Position, dead ...citywarden.DeadLetter) error {
		return db.SaveLedger(t.Context(), "ledger", from, to, citywarden.LedgerAdd{Rows: []citywarden.LedgerRow{
			{Device: "a", Hour: nine, Messages: 1, Received: 10, Stored: 4, Rejected: 3, Duplicate: 2, Quarantined: 1},
			{Device: "b", Hour: ten, Messages: 1, Received: 1, Stored: 1, Missing: 3, Silent: 60},
			{Device: "c", Hour: ten, Messages: 1, Received: 2, Stored: 2},
		}, Dead: dead, Heard: []citywarden.LastHeard{{At: nine}, {Device: "b", At: ten, Sequence: int64(to), Sequenced: true}}, Outages: []citywarden.Gap{{From: nine, To: nine.Add(time.Duration(to.Group()) * time.Minute)}}})
	}
	if err := save(0, at(1, 3), letter(at(1, 0), "a"), letter(at(1, 2), "b")); err != nil {
		t.Fatal(err)
	}
	if err := save(0, at(1, 3), letter(at(1, 0), "a")); err != nil { // again: its caller did not learn that it was saved
		t.Fatal(err)
	}
	if err := save(0, at(9, 9)); citywarden.CodeOf(err) != citywarden.CodeConflict {
		t.Errorf("SaveLedger from another position = %v, want CodeConflict", err)
	}
	if err := save(at(1, 3), at(2, 0), letter(at(2, 0), "a")); err != nil {
		t.Fatal(err)
	}
	if p, err := db.Cursor(t.Context(), "ledger"); err != nil || p != at(2, 0) {
		t.Errorf("Cursor = %d, %v", p, err)
	}

	heard, err := db.LastHeard(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]citywarden.LastHeard{{At: nine}, {Device: "b", At: ten, Sequence: int64(at(2, 0)), Sequenced: true}}, heard); diff != "" {
		t.Errorf("last heard:\n%s", diff)
	}
	outages := func(from, to time.Time, want ...citywarden.Gap) {
		t.Helper()
		got, err := db.Outages(t.Context(), from, to)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("%v, outages from %s to %s:\n%s", err, from, to, diff)
		}
	}
	long := citywarden.Gap{From: nine, To: nine.Add(2 * time.Minute), Outage: true} // it lasted longer than at first
	outages(nine, ten, long)
	outages(long.To, ten)
	outages(time.Time{}, nine)
	later := citywarden.Gap{From: ten, To: ten.Add(time.Hour), Outage: true}
	if err := db.SaveLedger(t.Context(), "other", 0, 1, citywarden.LedgerAdd{Outages: []citywarden.Gap{later}}); err != nil {
		t.Fatal(err)
	}
	outages(time.Time{}, time.Time{}, long, later)
	if err := db.TrimGaps(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	outages(time.Time{}, time.Time{}, later)

	a := citywarden.LedgerRow{Device: "a", Hour: nine, Messages: 2, Received: 20, Stored: 8, Rejected: 6, Duplicate: 4, Quarantined: 2}
	b := citywarden.LedgerRow{Device: "b", Hour: ten, Messages: 2, Received: 2, Stored: 2, Missing: 6, Silent: 120}
	c := citywarden.LedgerRow{Device: "c", Hour: ten, Messages: 2, Received: 4, Stored: 4}
	tests := []struct {
		name     string
		from, to time.Time
		device   citywarden.DeviceID
		want     []citywarden.LedgerRow
	}{
		{"all", time.Time{}, time.Time{}, "", []citywarden.LedgerRow{a, b, c}},
		{"one device", time.Time{}, time.Time{}, "b", []citywarden.LedgerRow{b}},
		{"from is inclusive", ten, time.Time{}, "", []citywarden.LedgerRow{b, c}},
		{"to is exclusive", nine, ten, "", []citywarden.LedgerRow{a}},
		{"nothing", ten.Add(1), time.Time{}, "a", []citywarden.LedgerRow{}},
	}
	for _, tt := range tests {
		got, err := db.LedgerRows(t.Context(), tt.from, tt.to, tt.device)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
	}

	var rows []citywarden.LedgerRow
	for after := ""; len(rows) < 4; {
		got, next, err := db.LedgerPage(t.Context(), citywarden.LedgerFilter{Page: citywarden.Page{Limit: 1, After: after}})
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, got...)
		if after = next; next == "" {
			break
		}
	}
	if diff := cmp.Diff([]citywarden.LedgerRow{a, b, c}, rows); diff != "" {
		t.Errorf("page by page:\n%s", diff)
	}

	uneven, _, err := db.LedgerPage(t.Context(), citywarden.LedgerFilter{Uneven: true})
	if diff := cmp.Diff([]citywarden.LedgerRow{a, b}, uneven); err != nil || diff != "" {
		t.Errorf("where not all was stored (%v):\n%s", err, diff)
	}
	hours, _, err := db.LedgerPage(t.Context(), citywarden.LedgerFilter{ByHour: true, Page: citywarden.Page{Limit: 1}})
	want := []citywarden.LedgerRow{a, {Hour: ten, Messages: 4, Received: 6, Stored: 6, Missing: 6, Silent: 120}}
	want[0].Device = ""
	if diff := cmp.Diff(want, hours); err != nil || diff != "" {
		t.Errorf("the sums by hour (%v):\n%s", err, diff)
	}

	first, next, err := db.DeadLetters(t.Context(), citywarden.DeadLetterFilter{Page: citywarden.Page{Limit: 2}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]citywarden.DeadLetter{letter(at(2, 0), "a"), letter(at(1, 2), "b")}, first); diff != "" || next == "" {
		t.Errorf("first page, next %q:\n%s", next, diff)
	}
	second, end, err := db.DeadLetters(t.Context(), citywarden.DeadLetterFilter{Page: citywarden.Page{Limit: 2, After: next}})
	if err != nil || end != "" {
		t.Fatalf("next = %q, %v", end, err)
	}
	if diff := cmp.Diff([]citywarden.DeadLetter{letter(at(1, 0), "a")}, second); diff != "" {
		t.Errorf("second page:\n%s", diff)
	}
	if of, _, err := db.DeadLetters(t.Context(), citywarden.DeadLetterFilter{Device: "b"}); err != nil || len(of) != 1 {
		t.Errorf("dead letters of b = %v, %v", of, err)
	}
	if _, _, err := db.DeadLetters(t.Context(), citywarden.DeadLetterFilter{Page: citywarden.Page{After: "x"}}); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("a bad cursor = %v, want CodeInvalid", err)
	}
}

func TestRefusedReadingsAreCountedOnce(t *testing.T) {
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), Open)
	nine := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	at := citywarden.PositionAt(1, 0)
	half := citywarden.DeadLetter{Position: at, Stage: citywarden.FailedDecode, Device: "a", Payload: []byte("{}"), Received: nine, Reason: "half of it"}
	rows := []citywarden.LedgerRow{{Device: "a", Hour: nine, Messages: 1, Received: 3, Stored: 2, Rejected: 1}}
	if err := db.SaveLedger(t.Context(), "ledger", 0, at, citywarden.LedgerAdd{Rows: rows, Dead: []citywarden.DeadLetter{half}}); err != nil {
		t.Fatal(err)
	}
	refused := citywarden.Refused{DeadLetter: half, Logged: nine.Add(59 * time.Minute), Readings: 2}
	refused.Stage, refused.Reason = citywarden.FailedSeries, "partial write: field type conflict"
	for range 2 { // after a crash the series writes the same again
		if err := db.SaveRefused(t.Context(), []citywarden.Refused{refused}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := db.LedgerRows(t.Context(), nine, nine.Add(time.Hour), "a")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]citywarden.LedgerRow{{Device: "a", Hour: nine, Messages: 1, Received: 3, Rejected: 3}}, got); diff != "" {
		t.Errorf("ledger:\n%s", diff)
	}

	replayed := nine.Add(24 * time.Hour)
	if err := db.SetReplayed(t.Context(), []citywarden.DeadLetter{half}, replayed); err != nil {
		t.Fatal(err)
	}
	done := half
	done.Replayed = replayed
	for _, tt := range []struct {
		name string
		f    citywarden.DeadLetterFilter
		want []citywarden.DeadLetter
	}{
		{"newest first", citywarden.DeadLetterFilter{}, []citywarden.DeadLetter{refused.DeadLetter, done}},
		{"oldest first", citywarden.DeadLetterFilter{Oldest: true}, []citywarden.DeadLetter{done, refused.DeadLetter}},
		{"open", citywarden.DeadLetterFilter{Open: true}, []citywarden.DeadLetter{refused.DeadLetter}},
		{"second of the oldest first", citywarden.DeadLetterFilter{Oldest: true, Page: citywarden.Page{After: pageCursor(int64(at), "decode")}}, []citywarden.DeadLetter{refused.DeadLetter}},
	} {
		got, _, err := db.DeadLetters(t.Context(), tt.f)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
	}
}

// TestAmended: of all dead letters these are what the ledger can't be held against any more.
func TestAmended(t *testing.T) {
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), Open)
	letter := func(group uint64, stage citywarden.Failed) citywarden.DeadLetter {
		return citywarden.DeadLetter{Position: citywarden.PositionAt(group, 0), Stage: stage, Device: "a", Payload: []byte("{}")}
	}
	var letters []citywarden.DeadLetter
	for group := uint64(1); group <= 4; group++ {
		letters = append(letters, letter(group, citywarden.FailedDecode))
	}
	letters = append(letters, letter(2, citywarden.FailedSeries), letter(3, citywarden.FailedSeries), letter(5, citywarden.FailedSeries))
	if err := db.SaveLedger(t.Context(), "ledger", 0, 1, citywarden.LedgerAdd{Dead: letters}); err != nil {
		t.Fatal(err)
	}
	replayed := []citywarden.DeadLetter{letter(1, citywarden.FailedDecode), letter(3, citywarden.FailedDecode), letter(5, citywarden.FailedSeries)}
	if err := db.SetReplayed(t.Context(), replayed, time.Now()); err != nil {
		t.Fatal(err)
	}
	at := func(groups ...uint64) (ps []citywarden.Position) {
		for _, g := range groups {
			ps = append(ps, citywarden.PositionAt(g, 0))
		}
		return ps
	}
	for _, tt := range []struct {
		after          citywarden.Position
		refused, again []citywarden.Position
	}{
		{0, at(2, 3, 5), at(1, 3)},
		{citywarden.PositionAt(2, 0), at(3, 5), at(3)},
		{citywarden.PositionAt(5, 0), nil, nil},
	} {
		refused, again, err := db.Amended(t.Context(), tt.after)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([][]citywarden.Position{tt.refused, tt.again}, [][]citywarden.Position{refused, again}); diff != "" {
			t.Errorf("behind %d:\n%s", tt.after, diff)
		}
	}
}

func TestTrimDeadLettersKeepsTheNewest(t *testing.T) {
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), Open)
	var letters []citywarden.DeadLetter
	for i := range 5 {
		letters = append(letters, citywarden.DeadLetter{Position: citywarden.PositionAt(1, i), Stage: citywarden.FailedDecode, Device: "a"})
	}
	if err := db.SaveLedger(t.Context(), "ledger", 0, citywarden.PositionAt(1, 4), citywarden.LedgerAdd{Dead: letters}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ keep, removed, left int }{{9, 0, 5}, {5, 0, 5}, {3, 2, 3}} {
		n, err := db.TrimDeadLetters(t.Context(), tt.keep)
		left, _, lerr := db.DeadLetters(t.Context(), citywarden.DeadLetterFilter{})
		if err != nil || lerr != nil || n != int64(tt.removed) || len(left) != tt.left {
			t.Errorf("keep %d: %d removed, %d left, %v, %v; want %d and %d", tt.keep, n, len(left), err, lerr, tt.removed, tt.left)
		}
		if left[0].Position != citywarden.PositionAt(1, 4) {
			t.Errorf("keep %d: the newest is gone", tt.keep)
		}
	}
}
