package scenario

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/simulators"
)

const good = `title: {zh: 火灾, en: A fire}
lasts: 30m
devices:
- {id: s1, model: smoke-detector, at: [10, 20], attr: {zone: a, floor: 2, spare: true}}
- {id: s2, model: smoke-detector, every: 30s}
happens:
- {what: fire, at: 5m, for: 8m, device: s1}
faults:
- {what: lost, device: s2, at: 1m, for: 2m, size: 0.5}
expect:
- {alarm: fire.zone-smoke, of: a, at: 5m, within: 2m, severity: critical, case: fire/a, class: event/0595}
allow:
- {alarm: device.clock}
`

func nothing(path string) (io.ReadCloser, error) { return nil, os.ErrNotExist }

func load(t *testing.T, text string) *Scenario {
	t.Helper()
	s, err := Load("s.yaml", []byte(text), nothing)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLoad(t *testing.T) {
	s := load(t, good)
	d := s.Devices[0]
	if d.Attributes["floor"] != 2.0 || d.Attributes["spare"] != true || d.Attributes["zone"] != "a" || s.every["s2"] != 30*time.Second || d.Location == nil {
		t.Errorf("read as %+v", d)
	}
	if x := s.Expect[0]; x.Severity != citywarden.Critical || x.Within != 2*time.Minute || x.Key != "fire/a" {
		t.Errorf("read as %+v", x)
	}
}

// TestMistakes: each says the line and what to do.
func TestMistakes(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"lasts: 30m\n", "", "s.yaml:1:6: a scenario needs the key lasts"},
		{"lasts: 30m", "last: 30m", `s.yaml:2:1: unknown key "last"; did you mean "lasts"?`},
		{"lasts: 30m", "lasts: soon", `s.yaml:2:8: lasts: bad duration "soon"; write it like 90s`},
		{"lasts: 30m", "lasts: 30m\nstart: noon", `s.yaml:3:8: start: "noon"; write a day and a time, like Mon 02:30`},
		{"lasts: 30m", "lasts: 30m\nnetwork: x.inp", `s.yaml:3:10: network: file does not exist`},
		{"model: smoke-detector, at", "model: smoke-detectr, at", `did you mean "smoke-detector"?`},
		{"id: s2", "id: s1", "there are two devices s1"},
		{"[10, 20]", "[10]", "s.yaml:4:39: at: write [metres east, metres north]"},
		{"what: fire", "what: flood", `no kind of incident "flood"; there are blockage, blocked-lane`},
		{"for: 8m, device: s1", "for: 8m, device: s9", "there is no device s9"},
		{"for: 8m", "for: 0s", "it ends before it begins"},
		{"what: lost", "what: tired", `no kind of fault "tired"; there are stuck, wrong-model`},
		{"size: 0.5", "size: 5", "is a share, 0 to 1"},
		{"severity: critical", "severity: bad", "severity"},
		{"every: 30s", "protocol: http", `s.yaml:5:45: protocol: "http" is neither mqtt nor coap`},
		{"at: 5m, within", "at: 29m, within", "the scenario lasts 30m"},
		{"- {alarm: device.clock}", "- {alarm: device.clock, if: ever}", `unknown key "if"`},
		{"devices:", "devices: none\nx:", "devices: write a list here"},
		{"title: {zh", "title: {zh: [", "s.yaml:1"},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		if text == good {
			t.Fatalf("%q is not there", c.old)
		}
		_, err := Load("s.yaml", []byte(text), nothing)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant %s", c.new, err, c.want)
		}
	}
}

// shipped returns the scenarios that come with the simulators, by file.
func shipped(t *testing.T) map[string]*Scenario {
	t.Helper()
	const dir = "../scenarios"
	files, err := filepath.Glob(dir + "/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	out := map[string]*Scenario{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if out[f], err = Load(f, text, func(path string) (io.ReadCloser, error) { return os.Open(filepath.Join(dir, path)) }); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestShippedScenarios: they load, in both languages, and cover the domains, the
// protocols, all that can happen and all that can go wrong.
func TestShippedScenarios(t *testing.T) {
	domains, covered := map[string]int{}, map[string]bool{}
	for f, s := range shipped(t) {
		domain, _, _ := strings.Cut(filepath.Base(f), "-")
		domains[domain]++
		for _, i := range s.Incidents {
			covered[i.Kind] = true
		}
		for _, f := range s.Faults {
			covered[f.Kind] = true
		}
		for _, d := range s.Devices {
			covered["coap"] = covered["coap"] || s.coap[d.ID]
		}
		if s.Title.ZH == s.Title.EN || len(s.Incidents)+len(s.Faults)+len(s.Expect) == 0 {
			t.Errorf("%s: nothing happens, or its title is in one language", f)
		}
	}
	for _, d := range []string{"fire", "pipe", "parking", "building", "device"} {
		if domains[d] < 3 {
			t.Errorf("%d scenarios of %s", domains[d], d)
		}
	}
	for _, what := range append(slices.Concat(simulators.Kinds(), simulators.Faults()), "coap") {
		if !covered[what] {
			t.Errorf("no scenario has %s", what)
		}
	}
}

func TestClockNext(t *testing.T) {
	c := Clock{time.Monday, 2, 30}
	for _, x := range []struct{ from, want string }{
		{"2026-11-23T02:30:00+08:00", "2026-11-23T02:30:00+08:00"},
		{"2026-11-23T02:31:00+08:00", "2026-11-30T02:30:00+08:00"},
		{"2026-11-22T20:00:00Z", "2026-11-30T02:30:00+08:00"},
		{"2026-11-26T00:00:00+08:00", "2026-11-30T02:30:00+08:00"},
	} {
		from, err := time.Parse(time.RFC3339, x.from)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Next(from).Format(time.RFC3339); got != x.want {
			t.Errorf("after %s: %s, want %s", x.from, got, x.want)
		}
	}
}

// TestJudge: what is found, missed and false.
func TestJudge(t *testing.T) {
	start := time.Date(2026, 11, 23, 9, 0, 0, 0, shanghai)
	alarm := func(change func(*raised)) raised {
		r := raised{
			Alarm: citywarden.Alarm{ID: "fire.zone-smoke:a:1", Rule: "fire.zone-smoke", Entity: "a", Device: "s1", Severity: citywarden.Critical, State: citywarden.AlarmActive, RaisedAt: start.Add(350 * time.Second), Case: "E1"},
			known: start.Add(351 * time.Second), of: &citywarden.Case{ID: "E1", Key: "fire/a", Class: "event/0595"},
		}
		change(&r)
		return r
	}
	for name, c := range map[string]struct {
		alarms []raised
		want   string
	}{
		"found":     {[]raised{alarm(func(*raised) {})}, "found    fire.zone-smoke of a after 51s E1"},
		"nothing":   {nil, "missed   fire.zone-smoke of a, 2026-11-23 09:05:00: no such alarm"},
		"too late":  {[]raised{alarm(func(r *raised) { r.known = start.Add(8 * time.Minute) })}, "known after 3m0s, want within 2m"},
		"too early": {[]raised{alarm(func(r *raised) { r.RaisedAt = start })}, "before it happened"},
		"milder":    {[]raised{alarm(func(r *raised) { r.Severity = citywarden.Warning })}, "it was warning, want critical"},
		"no case":   {[]raised{alarm(func(r *raised) { r.of = nil })}, "it has no case"},
		"other key": {[]raised{alarm(func(r *raised) { r.of.Key = "fire/b" })}, "its case is of fire/b, want fire/a"},
		"class":     {[]raised{alarm(func(r *raised) { r.of.Class = "" })}, "want \"event/0595\""},
		"twice":     {[]raised{alarm(func(*raised) {}), alarm(func(*raised) {})}, "false    fire.zone-smoke of a, critical"},
		"other":     {[]raised{alarm(func(*raised) {}), alarm(func(r *raised) { r.Entity = "b" })}, "false    fire.zone-smoke of b"},
		"allowed":   {[]raised{alarm(func(*raised) {}), alarm(func(r *raised) { r.Rule = "device.clock" })}, "A fire: good"},
	} {
		s := load(t, good)
		w, err := s.World(start)
		if err != nil {
			t.Fatal(err)
		}
		v := s.verdict(start, w)
		v.judge(s, start, c.alarms)
		var b strings.Builder
		v.Write(&b)
		if !strings.Contains(b.String(), c.want) {
			t.Errorf("%s:\n%swant %s", name, b.String(), c.want)
		}
		if good := name == "found" || name == "allowed"; v.Good != good {
			t.Errorf("%s: good is %t", name, v.Good)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(good))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := Load("s.yaml", text, nothing); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}
