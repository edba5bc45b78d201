package ingest

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// TestAWindowHoldsItsNewestReadings: one of many readings holds few of them, and takes what finds its place among those.
func TestAWindowHoldsItsNewestReadings(t *testing.T) {
	const n = 100_000
	var w rollupWindow
	for i := range int64(n) {
		if !w.put(rollupPoint{10 * i, float64(i % 1000)}) {
			t.Fatalf("reading %d finds no place", i)
		}
	}
	if held := len(w.points); held < rollupApart || held >= 2*rollupApart {
		t.Errorf("it holds %d readings", held)
	}
	want := citywarden.Rollup{Count: n, Sum: 499.5 * n, Max: 999, Last: 999}
	for i, c := range []struct {
		late  int64 // before the newest
		v     float64
		takes bool
	}{
		{0, 999, true}, // again
		{10 * (rollupApart - 1), 744, true},
		{5, 1000, true}, // between two
		{10 * 2 * rollupApart, 487, false},
		{10 * n, 0, false},
	} {
		if takes := w.put(rollupPoint{10*(n-1) - c.late, c.v}); takes != c.takes {
			t.Errorf("a reading %d before the newest: taken is %t", c.late, takes)
		}
		if i == 2 {
			want.Count, want.Sum, want.Max = want.Count+1, want.Sum+1000, 1000
		}
	}
	got := w.sum()
	got.Increase, got.Counter = 0, false // of counters
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
