// Package demo_test holds the rules of the demo county against the life of the
// county: what its simulators do must raise what it ought to, and nothing else.
package demo_test

import (
	"container/heap"
	"encoding/json"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/app/demo"
	"github.com/citywarden/citywarden/devices"
	"github.com/citywarden/citywarden/rules"
	"github.com/citywarden/citywarden/simulators"
	"github.com/citywarden/citywarden/simulators/county"
)

func load(t *testing.T) (*rules.Set, *devices.Models) {
	t.Helper()
	models, err := devices.LoadModels(devices.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	files, err := demo.Rules()
	if err != nil {
		t.Fatal(err)
	}
	set, err := rules.Load(files, models)
	if err != nil {
		t.Fatalf("the demo's rules don't load:\n%v", err)
	}
	return set, models
}

// registry is the devices of a county as the rule engine sees them.
type registry struct {
	c      *county.County
	models *devices.Models
}

func (r registry) Each(f func(*citywarden.Device, *citywarden.Model)) {
	for i := range r.c.Devices {
		m, _ := r.models.Model(r.c.Devices[i].Model)
		f(&r.c.Devices[i], m)
	}
}

// inbox holds the next message of every stream, the earliest on top.
type inbox []waiting

type waiting struct {
	simulators.Message
	from *simulators.Stream
}

func (b inbox) Len() int           { return len(b) }
func (b inbox) Less(i, j int) bool { return b[i].At.Before(b[j].At) }
func (b inbox) Swap(i, j int)      { b[i], b[j] = b[j], b[i] }
func (b *inbox) Push(x any)        { *b = append(*b, x.(waiting)) }
func (b *inbox) Pop() any          { x := (*b)[len(*b)-1]; *b = (*b)[:len(*b)-1]; return x }

// live plays the county from start for the time span through the rules, and
// returns the world and what the engine said.
func live(t *testing.T, seed uint64, start time.Time, span time.Duration) (*simulators.World, []citywarden.Transition) {
	t.Helper()
	set, models := load(t)
	c := county.Demo()
	w := simulators.NewWorld(c, seed, start)
	engine := rules.New(set, rules.Options{Devices: registry{c, models}})
	var in inbox
	for i := range c.Devices {
		s, err := w.Stream(c.Devices[i].ID)
		if err != nil {
			t.Fatal(err)
		}
		heap.Push(&in, waiting{s.Next(), s})
	}
	var out []citywarden.Transition
	seq := uint64(0)
	step := func(e citywarden.Entry) {
		seq++
		e.Position = citywarden.PositionAt(seq, 0)
		out = append(out, engine.Step(&e)...)
	}
	for in[0].At.Before(start.Add(span)) {
		m := in[0]
		in[0].Message = m.from.Next()
		heap.Fix(&in, 0)
		at := m.At.Add(5 * time.Millisecond) // the way to the log
		for d := engine.Deadline(); seq > 0 && !d.IsZero() && d.Before(at); d = engine.Deadline() {
			step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordTick, At: d}})
		}
		step(decode(t, c, models, m.Message, at))
	}
	return w, out
}

func decode(t *testing.T, c *county.County, models *devices.Models, m simulators.Message, at time.Time) citywarden.Entry {
	t.Helper()
	var body struct {
		TS     int64                                      `json:"ts"`
		Values map[citywarden.MetricName]citywarden.Value `json:"values"`
	}
	if err := json.Unmarshal(m.Payload, &body); err != nil {
		t.Fatalf("%s: %v", m.Payload, err)
	}
	dev := c.Device(m.Device)
	model, ok := models.Model(dev.Model)
	if !ok {
		t.Fatalf("no model %s", dev.Model)
	}
	e := citywarden.Entry{Device: dev, Model: model}
	e.Kind, e.At = citywarden.RecordUplink, at
	for _, metric := range model.Metrics {
		v, ok := body.Values[metric.Name]
		if !ok {
			continue
		}
		delete(body.Values, metric.Name)
		if v.Kind() != metric.Kind {
			t.Fatalf("%s sent %s: %s is a %s, the model says %s", m.Device, m.Payload, metric.Name, v.Kind(), metric.Kind)
		}
		if metric.Min != nil && v.Float() < *metric.Min || metric.Max != nil && v.Float() > *metric.Max {
			t.Fatalf("%s sent %s: %s is outside of its range", m.Device, m.Payload, metric.Name)
		}
		e.Readings = append(e.Readings, citywarden.Reading{Metric: metric.Name, Value: v, Time: time.UnixMilli(body.TS).UTC()})
	}
	if len(body.Values) > 0 {
		t.Fatalf("%s sent %s: its model has no %v", m.Device, m.Payload, body.Values)
	}
	return e
}

// cause says which rule each kind of incident shows in.
var cause = map[citywarden.RuleID]string{
	"fire.zone-smoke": simulators.Fire, "pipe.burst": simulators.Burst,
	"parking.fire-lane": simulators.BlockedLane, "building.quiet-load": simulators.QuietLoad,
}

// TestAttributesAreDeclared: the registry refuses attributes that a model does
// not have.
func TestAttributesAreDeclared(t *testing.T) {
	_, models := load(t)
	for _, d := range county.Demo().Devices {
		m, ok := models.Model(d.Model)
		if !ok {
			t.Fatalf("no model %s", d.Model)
		}
		for name, v := range d.Attributes {
			a, ok := m.Attribute(name)
			val, _ := citywarden.ValueOf(v)
			if !ok || a.Kind != val.Kind() {
				t.Errorf("%s: the model %s has no attribute %s of kind %s", d.ID, d.Model, name, val.Kind())
			}
		}
	}
}

func TestRuleFiles(t *testing.T) {
	set, _ := load(t)
	for _, r := range set.Rules() {
		if r.Title.ZH == "" || r.Title.EN == "" || r.Title.ZH == r.Title.EN {
			t.Errorf("rule %s has the title %+v, want one in each language", r.ID, r.Title)
		}
	}
	for _, w := range set.Warnings() {
		t.Errorf("warning: %v", w)
	}
	results := rules.Test(set)
	for _, r := range results {
		if err := r.Err(); err != nil {
			t.Error(err)
		}
	}
	if len(results) < 6 {
		t.Errorf("%d tests in the rule files", len(results))
	}
	for _, path := range files(t, os.DirFS("rules")) {
		if !slices.Contains(files(t, rules.Library()), path) {
			t.Errorf("%s replaces no file of the rule library", path)
		}
	}
}

func files(t *testing.T, fsys fs.FS) []string {
	t.Helper()
	found, err := fs.Glob(fsys, "*/*.yaml")
	if err != nil || len(found) == 0 {
		t.Fatalf("no files: %v", err)
	}
	return found
}

// TestFirstHalfHour: whenever the demo is started, all four incidents raise
// their alarm within three minutes, with the case or work order that belongs to
// them, and nothing else does for 35 minutes.
func TestFirstHalfHour(t *testing.T) {
	for i, start := range []string{
		"Mon 00:02", "Mon 03:30", "Mon 05:25", "Mon 07:10", "Tue 09:00", "Tue 12:20", "Wed 16:05", "Wed 18:45",
		"Thu 21:40", "Thu 22:55", "Fri 23:20", "Fri 23:55", "Sat 10:30", "Sun 19:00", "Sun 23:29",
	} {
		t.Run(start, func(t *testing.T) {
			begin := moment(t, start)
			w, said := live(t, uint64(i), begin, 35*time.Minute)
			incidents := w.Incidents(begin, begin.Add(35*time.Minute))
			raised := map[string]time.Duration{}
			open := map[citywarden.AlarmID]bool{}
			worst := map[citywarden.RuleID]citywarden.Severity{}
			for _, tr := range said {
				a := tr.Alarm
				worst[a.Rule] = max(worst[a.Rule], a.Severity)
				switch tr.Kind {
				case citywarden.Cleared:
					delete(open, a.ID)
				case citywarden.Raised:
					open[a.ID] = true
					k := slices.IndexFunc(incidents, func(i simulators.Incident) bool { return i.Kind == cause[a.Rule] })
					if k < 0 {
						t.Errorf("%s raised for %s after %s, nothing happened there", a.Rule, a.Entity, tr.Logged.Sub(begin))
						continue
					}
					inc := incidents[k]
					if _, again := raised[inc.Kind]; !again {
						raised[inc.Kind] = tr.Logged.Sub(begin)
					}
					if tr.Logged.Before(inc.From) || tr.Logged.After(inc.To) {
						t.Errorf("%s raised after %s, the %v", a.Rule, tr.Logged.Sub(begin), inc)
					}
					order(t, tr, inc)
				}
			}
			for _, inc := range incidents {
				at, ok := raised[inc.Kind]
				if !ok || at > 3*time.Minute {
					t.Errorf("%v raised an alarm after %s (%t), want within 3 minutes", inc, at, ok)
				}
			}
			if worst["fire.zone-smoke"] != citywarden.Critical {
				t.Errorf("the fire became %s, want critical", worst["fire.zone-smoke"])
			}
			if n := count(said, "fire.zone-smoke"); n != 1 {
				t.Errorf("%d alarms of one fire", n)
			}
			if n := count(said, "pipe.burst"); n != 2 {
				t.Errorf("%d alarms of one burst, want those of the two loggers next to it", n)
			}
			if n := count(said, "parking.fire-lane") + count(said, "building.quiet-load"); n != 2 {
				t.Errorf("%d alarms of the blocked lane and of the shut building, want one each", n)
			}
			for id := range open {
				if !strings.HasPrefix(string(id), "fire.") { // latched until an operator resets it
					t.Errorf("%s is still active after half an hour", id)
				}
			}
			t.Logf("raised after %v", raised)
		})
	}
}

// order checks the case or work order of a raised alarm.
func order(t *testing.T, tr citywarden.Transition, inc simulators.Incident) {
	t.Helper()
	want := map[string]citywarden.CaseOrder{
		simulators.Fire:        {Class: "event/0595", Key: "fire/" + inc.Place},
		simulators.Burst:       {Class: "event/0501", Key: "burst/" + inc.Place},
		simulators.BlockedLane: {Class: "event/0496", Key: "lane/" + inc.Place},
		simulators.QuietLoad:   {Class: "component/0128", Key: "quiet/" + inc.Place},
	}[inc.Kind]
	got := tr.Case
	if got == nil || got.Key != want.Key || got.WorkOrder != want.WorkOrder || got.Class != want.Class {
		t.Errorf("%s asks for %+v, want %+v", tr.Alarm.Rule, got, want)
	}
}

func count(said []citywarden.Transition, rule citywarden.RuleID) (n int) {
	for _, tr := range said {
		if tr.Kind == citywarden.Raised && tr.Alarm.Rule == rule {
			n++
		}
	}
	return n
}

// TestANightAndADay: over fourteen hours that hold a night, every alarm is of
// an incident and every incident raises one.
func TestANightAndADay(t *testing.T) {
	if testing.Short() {
		t.Skip("plays fourteen hours")
	}
	begin := moment(t, "Fri 19:00")
	const span = 14 * time.Hour
	w, said := live(t, 350623, begin, span)
	incidents := w.Incidents(begin, begin.Add(span))
	found := map[string]bool{}
	for _, tr := range said {
		if tr.Kind != citywarden.Raised && tr.Kind != citywarden.Escalated {
			continue
		}
		k := slices.IndexFunc(incidents, func(i simulators.Incident) bool {
			return i.Kind == cause[tr.Alarm.Rule] && !tr.Logged.Before(i.From) && tr.Logged.Before(i.To)
		})
		if k < 0 {
			t.Errorf("%s %s for %s at %s, nothing happened there", tr.Alarm.Rule, tr.Kind, tr.Alarm.Entity, tr.Logged.Sub(begin))
			continue
		}
		found[incidents[k].String()] = true
	}
	for _, i := range incidents {
		if i.To.Before(begin.Add(span)) && !found[i.String()] {
			t.Errorf("%v raised no alarm", i)
		}
	}
	if len(incidents) < 14 {
		t.Errorf("only %d incidents in %s", len(incidents), span)
	}
}

// moment returns a time in the week of Monday 23 November 2026 in the county.
func moment(t *testing.T, s string) time.Time {
	t.Helper()
	days := []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}
	day, clock, _ := strings.Cut(s, " ")
	at, err := time.Parse("15:04", clock)
	if err != nil {
		t.Fatal(err)
	}
	return time.Date(2026, 11, 23+slices.Index(days, day), at.Hour(), at.Minute(), 7, 0, time.FixedZone("CST", 8*3600))
}

// TestEveryModelIsSimulated: whatever model the platform ships, there is a
// virtual device of it, and what it sends is what its model declares.
func TestEveryModelIsSimulated(t *testing.T) {
	_, models := load(t)
	begin := moment(t, "Mon 09:00")
	c := &county.County{Buildings: []county.Building{{Code: "gov", Use: "office", Floors: 4}}, Water: county.Demo().Water}
	for _, m := range models.All() {
		d := citywarden.Device{ID: citywarden.DeviceID("x-" + m.Name), Model: m.Name, Attributes: map[string]any{"pipe": c.Water.Pipes[0].Code, "building": "gov"}}
		c.Devices = append(c.Devices, d)
	}
	c.Water.Nodes = slices.Clone(c.Water.Nodes)
	c.Water.Nodes[2].Logger, c.Water.Nodes[3].Logger = "x-pressure-logger", "x-flow-meter"
	incidents := []simulators.Incident{{Kind: simulators.Rain, From: begin, To: begin.Add(time.Hour)}}
	for _, kind := range simulators.Kinds() {
		for _, d := range c.Devices {
			i := simulators.Incident{Kind: kind, Device: d.ID, From: begin.Add(time.Hour), To: begin.Add(2 * time.Hour)}
			if _, err := simulators.NewScript(simulators.Script{County: c, Start: begin, Incidents: []simulators.Incident{i}}); err == nil {
				incidents = append(incidents, i)
			}
		}
	}
	w, err := simulators.NewScript(simulators.Script{County: c, Start: begin, Incidents: incidents})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range c.Devices {
		s, err := w.Stream(d.ID)
		if err != nil {
			t.Error(err)
			continue
		}
		sent := map[citywarden.MetricName]bool{}
		for m := s.Next(); m.At.Before(begin.Add(3 * time.Hour)); m = s.Next() {
			for _, r := range decode(t, c, models, m, m.At).Readings {
				sent[r.Metric] = true
			}
		}
		model, _ := models.Model(d.Model)
		for _, metric := range model.Metrics {
			// Only the loggers at the inlet of an area measure flow; only a valve is operated.
			if !sent[metric.Name] && metric.Name != "event" && (d.Model != "pressure-logger" || metric.Name != "flow") {
				t.Errorf("a %s never sends %s", d.Model, metric.Name)
			}
		}
	}
	if len(simulators.Models()) != len(c.Devices) {
		t.Errorf("%d models are simulated, the platform has %d", len(simulators.Models()), len(c.Devices))
	}
}
