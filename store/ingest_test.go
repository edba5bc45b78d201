package store

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

func TestLedger(t *testing.T) {
	db, err := Open(t.Context(), filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	nine := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	ten := nine.Add(time.Hour)
	at := func(seq uint64, i int) citywarden.Position { return citywarden.PositionAt(seq, i) }
	letter := func(p citywarden.Position, device citywarden.DeviceID) citywarden.DeadLetter {
		return citywarden.DeadLetter{Position: p, Device: device, Protocol: "mqtt", Topic: "t", Payload: []byte{0xff, 0, '{'},
			Received: nine.Add(5 * time.Millisecond), Reason: "byte 0: …"}
	}
	save := func(from, to citywarden.Position, dead ...citywarden.DeadLetter) error {
		return db.SaveLedger(t.Context(), "ledger", from, to, []citywarden.LedgerRow{
			{Device: "a", Hour: nine, Messages: 1, Received: 10, Stored: 4, Rejected: 3, Duplicate: 2, Quarantined: 1},
			{Device: "b", Hour: ten, Messages: 1, Received: 1, Stored: 1},
		}, dead)
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

	a := citywarden.LedgerRow{Device: "a", Hour: nine, Messages: 2, Received: 20, Stored: 8, Rejected: 6, Duplicate: 4, Quarantined: 2}
	b := citywarden.LedgerRow{Device: "b", Hour: ten, Messages: 2, Received: 2, Stored: 2}
	tests := []struct {
		name     string
		from, to time.Time
		device   citywarden.DeviceID
		want     []citywarden.LedgerRow
	}{
		{"all", time.Time{}, time.Time{}, "", []citywarden.LedgerRow{a, b}},
		{"one device", time.Time{}, time.Time{}, "b", []citywarden.LedgerRow{b}},
		{"from is inclusive", ten, time.Time{}, "", []citywarden.LedgerRow{b}},
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

	first, next, err := db.DeadLetters(t.Context(), "", citywarden.Page{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]citywarden.DeadLetter{letter(at(2, 0), "a"), letter(at(1, 2), "b")}, first); diff != "" || next == "" {
		t.Errorf("first page, next %q:\n%s", next, diff)
	}
	second, end, err := db.DeadLetters(t.Context(), "", citywarden.Page{Limit: 2, After: next})
	if err != nil || end != "" {
		t.Fatalf("next = %q, %v", end, err)
	}
	if diff := cmp.Diff([]citywarden.DeadLetter{letter(at(1, 0), "a")}, second); diff != "" {
		t.Errorf("second page:\n%s", diff)
	}
	if of, _, err := db.DeadLetters(t.Context(), "b", citywarden.Page{}); err != nil || len(of) != 1 {
		t.Errorf("dead letters of b = %v, %v", of, err)
	}
	if _, _, err := db.DeadLetters(t.Context(), "", citywarden.Page{After: "x"}); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("a bad cursor = %v, want CodeInvalid", err)
	}
}
