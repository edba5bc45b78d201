package grafana

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

var noon = time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)

// lineOf has a value every so often from noon on; -1 stands for unknown.
func lineOf(every time.Duration, values ...float64) line {
	var l line
	for i, v := range values {
		l.times = append(l.times, noon.Add(time.Duration(i)*every))
		l.values = append(l.values, &v)
		if v == -1 {
			l.values[i] = nil
		}
	}
	return l
}

// text writes a line as minutes after noon and values, - for unknown.
func text(l line) (out []any) {
	for i, t := range l.times {
		out = append(out, int(t.Sub(noon).Minutes()))
		if l.values[i] == nil {
			out = append(out, "-")
		} else {
			out = append(out, *l.values[i])
		}
	}
	return out
}

func TestGaps(t *testing.T) {
	l := lineOf(time.Minute, 1, 2)
	l.times[1] = noon.Add(10 * time.Minute)
	l.withGaps(time.Minute)
	if d := cmp.Diff([]any{0, 1.0, 1, "-", 10, 2.0}, text(l)); d != "" {
		t.Error(d)
	}
}

// A state stands until the next report, but not for ever.
func TestStatesHold(t *testing.T) {
	l := lineOf(time.Minute, 1, 0)
	l.times[1] = noon.Add(3 * time.Minute)
	l.hold(window{noon, noon.Add(10 * time.Minute), time.Minute}, 4*time.Minute)
	if d := cmp.Diff([]any{0, 1.0, 1, 1.0, 2, 1.0, 3, 0.0, 4, 0.0, 5, 0.0, 6, 0.0, 7, 0.0}, text(l)); d != "" {
		t.Error(d)
	}
}

func TestDevicesTogether(t *testing.T) {
	devices := []citywarden.DeviceView{
		{Device: citywarden.Device{ID: "a", Attributes: map[string]any{"site": "x"}}},
		{Device: citywarden.Device{ID: "b", Attributes: map[string]any{"site": "x"}}},
		{Device: citywarden.Device{ID: "c", Attributes: map[string]any{"site": "y"}}},
	}
	site := func(d *citywarden.DeviceView) string { return models{}.tag(d, "site") }
	for how, want := range map[string][2][]any{
		"":    {{0, 2.0, 1, 3.0}, {0, 7.0}},
		"sum": {{0, 4.0, 1, 3.0}, {0, 7.0}},
		"min": {{0, 1.0, 1, 3.0}, {0, 7.0}},
		"max": {{0, 3.0, 1, 3.0}, {0, 7.0}},
	} {
		// b's second reading is unknown: what is known makes up the group.
		got, err := across([]line{lineOf(time.Minute, 1, 3), lineOf(time.Minute, 3, -1), lineOf(time.Minute, 7)}, devices, site, how)
		if err != nil || len(got) != 2 || got[0].name != "x" || got[1].name != "y" {
			t.Fatalf("%q: %v, %v", how, got, err)
		}
		if d := cmp.Diff(want, [2][]any{text(got[0]), text(got[1])}); d != "" {
			t.Errorf("%q: %s", how, d)
		}
	}
	if _, err := across(nil, nil, site, "median"); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("median: %v", err)
	}
}

func TestHours(t *testing.T) {
	zone := time.FixedZone("county", 8*3600)
	h, err := parseHours("02:00-04:30")
	if err != nil {
		t.Fatal(err)
	}
	for clock, in := range map[string]bool{"01:59": false, "02:00": true, "04:29": true, "04:30": false} {
		at, err := time.ParseInLocation("2006-01-02 15:04", "2026-11-02 "+clock, zone)
		if err != nil {
			t.Fatal(err)
		}
		day, ok := h.day(at)
		if ok != in || !day.Equal(time.Date(2026, 11, 2, 0, 0, 0, 0, zone)) {
			t.Errorf("%s: %v of %s", clock, ok, day)
		}
	}
	for _, bad := range []string{"", "2", "02:00", "04:00-02:00", "02:00-02:00", "02:00-25:00", "a-b"} {
		if _, err := parseHours(bad); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("hours %q: %v", bad, err)
		}
	}
	if _, err := parseHours("00:00-24:00"); err != nil {
		t.Error(err)
	}
}

func TestFilters(t *testing.T) {
	for _, tt := range []struct {
		operator, value, of string
		keep                bool
	}{
		{"=", "mall", "mall", true}, {"=", "mall", "gov", false}, {"!=", "mall", "gov", true}, {"!=", "mall", "mall", false},
		{"=~", "m.*", "mall", true}, {"=~", "m", "mall", false}, {"!~", "m.*", "gov", true},
		{"=|", "gov,mall", "mall", true}, {"!=|", "gov,mall", "mall", false},
	} {
		f := Filter{"site", tt.operator, tt.value}
		if keep, err := f.keep(tt.of); keep != tt.keep || err != nil {
			t.Errorf("%s %s %s: %v, %v", tt.of, tt.operator, tt.value, keep, err)
		}
	}
	for _, f := range []Filter{{"site", "<", "1"}, {"site", "=~", "("}} {
		if _, err := f.keep("1"); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("%v: %v", f, err)
		}
	}
}
