package citywarden

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestErrorCodes(t *testing.T) {
	cause := errors.New("disk full")
	err := fmt.Errorf("save alarm: %w", Errorf(CodeTransient, "write: %w", cause))
	if CodeOf(err) != CodeTransient || !errors.Is(err, cause) || err.Error() != "save alarm: write: disk full" {
		t.Errorf("%s %v", CodeOf(err), err)
	}
	if CodeOf(nil) != "" || CodeOf(cause) != CodeInternal {
		t.Errorf("codes of nil and a plain error: %q, %q", CodeOf(nil), CodeOf(cause))
	}
}

func TestDurations(t *testing.T) {
	for in, want := range map[string]time.Duration{"90s": 90 * time.Second, "7d": 7 * 24 * time.Hour, "1h30m": 90 * time.Minute, "0s": 0} {
		if d, err := ParseDuration(in); err != nil || d.Std() != want {
			t.Errorf("ParseDuration(%q) = %v, %v", in, d, err)
		}
	}
	for _, in := range []string{"", "5", "7 days", "d", "-", "1.5d", "7dd", "213504d", "1000000d", "-1000000d"} {
		if d, err := ParseDuration(in); CodeOf(err) != CodeInvalid {
			t.Errorf("ParseDuration(%q) = %v, %v; want an error", in, d, err)
		}
	}
	for want, d := range map[string]time.Duration{"0s": 0, "45s": 45 * time.Second, "1m": time.Minute, "1m30s": 90 * time.Second,
		"10m": 10 * time.Minute, "1h": time.Hour, "1h5m": 65 * time.Minute, "10h0m1s": 10*time.Hour + time.Second, "168h": 168 * time.Hour, "-5m": -5 * time.Minute} {
		if s := Duration(d).String(); s != want {
			t.Errorf("%v is written %q, want %q", d, s, want)
		}
	}
	var d Duration
	if b, _ := json.Marshal(Duration(time.Minute)); string(b) != `"1m"` || json.Unmarshal(b, &d) != nil || d.Std() != time.Minute {
		t.Errorf("JSON of a minute: %s, back %v", b, d)
	}
}

func TestValues(t *testing.T) {
	for _, tt := range []struct {
		v    Value
		json string
		kind string
	}{{Number(1.5), "1.5", "number"}, {Bool(true), "true", "bool"}, {TextValue("a"), `"a"`, "text"}, {Value{}, "null", "invalid"}} {
		b, err := json.Marshal(tt.v)
		var back Value
		if err != nil || string(b) != tt.json || json.Unmarshal(b, &back) != nil || back != tt.v || tt.v.Kind().String() != tt.kind {
			t.Errorf("%v: JSON %s (%v), back %v, kind %s", tt.v, b, err, back, tt.v.Kind())
		}
	}
	if err := new(Value).UnmarshalJSON([]byte(`{"a":1}`)); err == nil {
		t.Error("an object became a value")
	}
}

func TestNames(t *testing.T) {
	for _, s := range []Severity{Critical, Major, Minor, Warning, Indeterminate} {
		if got, err := ParseSeverity(s.String()); got != s || err != nil {
			t.Errorf("severity %s: %v, %v", s, got, err)
		}
	}
	if _, err := ParseSeverity(""); err == nil {
		t.Error("an empty severity was taken")
	}
	for _, id := range []DeviceID{"a", "p-1.x_Y", DeviceID(strings.Repeat("a", 64))} {
		if err := id.Check(); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []DeviceID{"", "-a", "a b", "a/b", "井", DeviceID(strings.Repeat("a", 65))} {
		if id.Check() == nil {
			t.Errorf("device id %q was taken", id)
		}
	}
	for g, good := range map[GridCode]bool{"350623100001001": true, "35062310000100": false, "35062310000100x": false} {
		if (g.Check() == nil) != good {
			t.Errorf("grid %s: %v", g, g.Check())
		}
	}
	if got := NewAlarmID("fire.zone-smoke", "B1-3F", 2); got != "fire.zone-smoke:B1-3F:2" {
		t.Error(got)
	}
	for _, e := range []string{"", "a b", "a:b", strings.Repeat("x", 81), "a\n"} {
		if got := NewAlarmID("r", e, 1); len(got) != len("r:000000000000:1") {
			t.Errorf("NewAlarmID of %q: %s", e, got)
		}
	}
	if a, b := NewAlarmID("r", "甲/乙", 1), NewAlarmID("r", "甲/丙", 1); a == b || strings.ContainsAny(string(a), "/甲") {
		t.Errorf("%s and %s must differ and be plain", a, b)
	}
}

func TestDidYouMean(t *testing.T) {
	words := []string{"pressure", "flow", "battery", "addr", "x", "humidity", "hub", "soil_1", "soil_2"}
	for in, want := range map[string]string{
		"presure": "pressure", "batery": "battery", "adr": "addr", "folw": "flow", "Flow": "flow", "xx": "x", "X": "x",
		"Humi": "humidity", "hum": "hub", "soil": "soil_1", "pre": "pressure",
		"temperature": "", "y": "", "": "", strings.Repeat("flow", 100): "",
	} {
		if want != "" {
			want = fmt.Sprintf("; did you mean %q?", want)
		}
		if got := DidYouMean(in, words); got != want {
			t.Errorf("DidYouMean(%q) = %q, want %q", in, got, want)
		}
		word := strings.TrimSuffix(strings.TrimPrefix(want, `; did you mean "`), `"?`)
		if got := ProblemAt("", nil, 0, 0, "no metric"+want+" It has more").Suggestion; got != word {
			t.Errorf("after %q the suggestion is %q, want %q", want, got, word)
		}
	}
}

func TestProblem(t *testing.T) {
	lines := []string{"a: 1", "\t名称: {zh: 液位, unti: m}\r"}
	for _, c := range []struct {
		line, col int
		want      string
	}{
		{1, 4, "f.yaml:1:4: wrong\n  a: 1\n     ^"},
		{2, 15, "f.yaml:2:15: wrong\n   名称: {zh: 液位, unti: m}\n  " + strings.Repeat(" ", 14+4) + "^"}, // four are wide
		{2, 99, "f.yaml:2:99: wrong\n   名称: {zh: 液位, unti: m}\n  " + strings.Repeat(" ", 22+4) + "^"},
		{0, 0, "f.yaml:0:0: wrong"},
		{3, 1, "f.yaml:3:1: wrong"},
	} {
		if got := ProblemAt("f.yaml", lines, c.line, c.col, "wrong").Error(); got != c.want {
			t.Errorf("ProblemAt(%d, %d) =\n%s\nwant\n%s", c.line, c.col, got, c.want)
		}
	}
}

func TestPlaces(t *testing.T) {
	a, b := Point{24.117, 117.613}, Point{24.117, 117.623}
	if d := a.Distance(b); d < 1010 || d > 1020 { // 0.01 degrees of longitude at 24.1 N
		t.Errorf("distance %g m", d)
	}
	left := UnitGrid{Ring: []Point{{0, 0}, {0, 1}, {1, 1}, {1, 0}}}
	right := UnitGrid{Ring: []Point{{0, 1}, {0, 2}, {1, 2}, {1, 1}}}
	for _, p := range []Point{{0.5, 0.5}, {0.5, 1}, {0.5, 1.5}, {0, 1}, {0.999, 1}} {
		if left.Contains(p) == right.Contains(p) {
			t.Errorf("%v lies in both grids or in none", p)
		}
	}
	// A slanted edge, seen from its two sides in opposite directions.
	a, b = Point{24.1035102, 117.5982201}, Point{24.1044897, 117.5993377}
	west := UnitGrid{Ring: []Point{{24.1, 117.59}, a, b, {24.11, 117.59}}}
	east := UnitGrid{Ring: []Point{a, {24.1, 117.61}, {24.11, 117.61}, b}}
	for i := range 1000 {
		f := float64(i) / 1000
		p := Point{a.Lat + f*(b.Lat-a.Lat), a.Lon + f*(b.Lon-a.Lon)}
		if west.Contains(p) == east.Contains(p) {
			t.Fatalf("%v, on the edge, lies in both grids or in none", p)
		}
	}
	if (Point{91, 0}).Check() == nil || (Point{0, 181}).Check() == nil || a.Check() != nil {
		t.Error("positions off the earth must be refused, others not")
	}
}

func TestPermissions(t *testing.T) {
	err := RoleViewer.May(MayOperateAlarms)
	if CodeOf(err) != CodeDenied || err.Error() != "viewer may not operate alarms; admin or supervisor or acceptor or shift_leader or dispatcher or officer may" {
		t.Error(err)
	}
	for _, p := range []Permission{MayRead, MayOperateAlarms, MayOutOfService, MayOpenCases, MayWriteDevices, MayTellDevices, MayWriteRules, MayWriteUsers} {
		if RoleAdmin.May(p) != nil {
			t.Errorf("admin may not %s", p)
		}
		if Role("").May(p) == nil || Role("mayor").May(p) == nil {
			t.Errorf("nobody in particular may %s", p)
		}
	}
}

func TestPositions(t *testing.T) {
	p := PositionAt(7, 3)
	if p.Group() != 7 || p <= PositionAt(6, MaxGroup-1) || p >= PositionAt(8, 0) {
		t.Errorf("position %d is out of order", p)
	}
}
