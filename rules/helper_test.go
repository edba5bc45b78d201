package rules

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/citywarden/citywarden"
)

// models is a Schema with state.
type models map[citywarden.ModelName]*citywarden.Model

func (m models) Model(n citywarden.ModelName) (*citywarden.Model, bool) {
	x, ok := m[n]
	return x, ok
}

func (m models) All() []citywarden.Model {
	var out []citywarden.Model
	for _, x := range m {
		out = append(out, *x)
	}
	return out
}

// model builds one from words like "smoke:number:dB/m" and "zone:text", an
// attribute's default after "=".
func (m models) add(name string, heartbeat time.Duration, metrics, attrs string) {
	x := &citywarden.Model{Name: citywarden.ModelName(name), Heartbeat: citywarden.Duration(heartbeat)}
	for _, w := range strings.Fields(metrics) {
		p := strings.Split(w+"::", ":")
		k, err := citywarden.ParseKind(p[1])
		if err != nil {
			panic(err)
		}
		x.Metrics = append(x.Metrics, citywarden.Metric{Name: citywarden.MetricName(p[0]), Kind: k, Unit: strings.TrimPrefix(p[2], "counter"), Counter: p[2] == "counter"})
	}
	for _, w := range strings.Fields(attrs) {
		w, def, _ := strings.Cut(w, "=")
		p := strings.Split(w, ":")
		k, err := citywarden.ParseKind(p[1])
		if err != nil {
			panic(err)
		}
		a := citywarden.Attribute{Name: p[0], Kind: k}
		if v, ok := parseValue(def, k); ok && def != "" {
			a.Default = v.Any()
		}
		x.Attributes = append(x.Attributes, a)
	}
	m[x.Name] = x
}

func cityModels() models {
	m := models{}
	m.add("smoke-detector", 10*time.Minute, "smoke:number:dB/m temperature:number:Cel button:bool battery:number:% mains:bool",
		"zone:text building:text district:text gateway:text heartbeat:text smoke_limit:number=0.12")
	m.add("pressure-logger", time.Hour, "pressure:number:bar flow:number:m3/h battery:number:%", "dma:text gateway:text")
	m.add("parking-bay", time.Hour, "occupied:bool battery:number:%", "kind:text=bay lane:text zone:text district:text")
	m.add("parking-gateway", 5*time.Minute, "mains:bool", "building:text district:text")
	m.add("energy-meter", 15*time.Minute, "power:number:kW energy:number:counter mains:bool", "night_limit:number=5 building:text district:text")
	// probe has one metric of each kind for tests of single functions.
	m.add("probe", 10*time.Minute, "x:number:bar y:number on:bool mode:text c:number:counter event:text", "limit:number site:text armed:bool zone:text wait:text level:number=7")
	m.add("valve", time.Hour, "position:number:% event:text", "dma:text")
	m["valve"].Events = []citywarden.ModelEvent{{Name: "valve.operated"}, {Name: "valve.stuck"}}
	return m
}

func load(t testing.TB, yaml string) *Set {
	t.Helper()
	s, err := Load(fstest.MapFS{"r.yaml": {Data: []byte(yaml)}}, cityModels())
	if err != nil {
		t.Fatalf("Load:\n%v", err)
	}
	return s
}

func mapFS(yaml string) fstest.MapFS { return fstest.MapFS{"r.yaml": {Data: []byte(yaml)}} }

// loadErr returns what Load complains about.
func loadErr(t testing.TB, yaml string) string {
	t.Helper()
	_, err := Load(fstest.MapFS{"r.yaml": {Data: []byte(yaml)}}, cityModels())
	if err == nil {
		return ""
	}
	if citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("Load gives code %s, want invalid", citywarden.CodeOf(err))
	}
	return err.Error()
}

var t0 = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC) // Monday 08:00 in Asia/Shanghai

// snapshot returns that of e, and sees that it is the same when all of it is
// written anew, and when what is plain is written as what is not.
func snapshot(t testing.TB, e *Engine) []byte {
	t.Helper()
	data, err := e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	data = slices.Clone(data)
	for _, x := range slices.Concat(e.runs, e.retired) {
		for _, inst := range x.list {
			inst.touch()
			short, long, s := &codec{version: snapshotVersion}, &codec{version: snapshotVersion}, savedInstance{}
			if !short.plain(inst) {
				continue
			}
			inst.save(&s)
			if long.instance(nil, &s); !bytes.Equal(short.buf, long.buf) {
				t.Fatalf("%s of %s is written as % x when it is plain, else as % x", x.rule.ID, inst.entity, short.buf, long.buf)
			}
		}
	}
	if anew, _ := e.Snapshot(); !bytes.Equal(anew, data) {
		t.Fatal("the snapshot lacks what changed since the one before")
	}
	return data
}

// world runs an engine over a log that it writes itself, with a tick at every deadline.
type world struct {
	t       testing.TB
	set     *Set
	devices []*citywarden.Device
	e       *Engine
	log     []citywarden.Entry
	got     []citywarden.Transition
	pos     citywarden.Position
	noTicks bool
}

func newWorld(t testing.TB, yaml string, devices ...*citywarden.Device) *world {
	t.Helper()
	w := &world{t: t, set: load(t, yaml), devices: devices}
	w.e = w.engine()
	w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordTick, At: t0}})
	return w
}

func (w *world) Each(f func(*citywarden.Device, *citywarden.Model)) {
	for _, d := range w.devices {
		m, _ := cityModels().Model(d.Model)
		f(d, m)
	}
}

func (w *world) engine() *Engine { return New(w.set, Options{Devices: w}) }

func (w *world) step(x citywarden.Entry) {
	w.pos++
	x.Position = w.pos
	w.log = append(w.log, x)
	w.got = append(w.got, w.e.Step(&x)...)
}

// to lets time pass until at after t0, with a tick at every deadline.
func (w *world) to(at time.Duration) {
	end := t0.Add(at)
	for i := 0; !w.noTicks; i++ {
		due := w.e.Deadline()
		if due.IsZero() || due.After(end) {
			return
		}
		if i > 100_000 {
			w.t.Fatalf("timers never come to rest at %s", due)
		}
		w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordTick, At: maxTime(due, w.e.Now())}})
	}
}

func (w *world) device(id string) *citywarden.Device {
	for _, d := range w.devices {
		if string(d.ID) == id {
			return d
		}
	}
	w.t.Fatalf("no device %s", id)
	return nil
}

// send has a message with values name, value, … measured at ts arrive at at.
func (w *world) send(id string, ts, at time.Duration, pairs ...any) {
	w.t.Helper()
	w.to(at - time.Millisecond)
	w.step(w.message(id, ts, at, pairs...))
}

// message makes the message of send.
func (w *world) message(id string, ts, at time.Duration, pairs ...any) citywarden.Entry {
	w.t.Helper()
	x := citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordUplink, At: t0.Add(at)}, Device: w.device(id), Stated: t0.Add(ts)}
	for i := 0; i < len(pairs); i += 2 {
		v, ok := citywarden.ValueOf(pairs[i+1])
		if !ok {
			w.t.Fatalf("bad value %v", pairs[i+1])
		}
		x.Readings = append(x.Readings, citywarden.Reading{Metric: citywarden.MetricName(pairs[i].(string)), Value: v, Time: t0.Add(ts)})
	}
	return x
}

// put is send without delay.
func (w *world) put(id string, at time.Duration, pairs ...any) {
	w.t.Helper()
	w.send(id, at, at, pairs...)
}

func (w *world) order(at time.Duration, kind citywarden.OrderKind, alarm citywarden.AlarmID, until time.Duration) {
	w.to(at - time.Millisecond)
	o := &citywarden.AlarmOrder{Kind: kind, Alarm: alarm, By: "li", Reason: "why"}
	switch kind {
	case citywarden.OrderComment:
		o.Text = "seen"
	case citywarden.OrderAssign:
		o.To = "wu"
	}
	if until > 0 {
		o.Until = t0.Add(until)
	}
	w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordOrder, At: t0.Add(at), Order: o}})
}

// story tells the transitions as "10s raised d1 major" lines.
func (w *world) story() string { return tell(w.got) }

func tell(ts []citywarden.Transition) string {
	var b strings.Builder
	for _, tr := range ts {
		a := tr.Alarm
		fmt.Fprintf(&b, "%s %s %s %s", tr.At.Sub(t0), tr.Kind, a.Entity, a.Severity)
		for _, f := range []struct {
			on   bool
			name string
		}{{a.Clearing && tr.Kind != citywarden.Clearing, "clearing"}, {a.Latched, "latched"}, {a.NoData, "nodata"}, {a.Acked, "acked"}, {!a.Shelved.IsZero(), "shelved"},
			{!a.OutOfService.IsZero(), "out-of-service"}, {a.SuppressedBy != "", "by-" + string(a.SuppressedBy)}} {
			if f.on {
				b.WriteString(" " + f.name)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (w *world) expect(want string) {
	w.t.Helper()
	var lines []string
	for _, l := range strings.Split(strings.TrimSpace(want), "\n") {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	want = strings.Join(lines, "\n")
	if got := strings.TrimSpace(w.story()); got != want {
		w.t.Errorf("transitions:\n%s\nwant:\n%s", got, want)
	}
}

func dev(id, model string, attrs ...any) *citywarden.Device {
	d := &citywarden.Device{ID: citywarden.DeviceID(id), Model: citywarden.ModelName(model), Attributes: map[string]any{}}
	for i := 0; i < len(attrs); i += 2 {
		if attrs[i] == "adjacent" {
			for _, a := range strings.Fields(attrs[i+1].(string)) {
				d.Adjacent = append(d.Adjacent, citywarden.DeviceID(a))
			}
			continue
		}
		d.Attributes[attrs[i].(string)] = attrs[i+1]
	}
	return d
}
