package devices_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices"
)

func builtin(t testing.TB) *devices.Models {
	t.Helper()
	m, err := devices.LoadModels(devices.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestBuiltin names what rules, simulators and the demo rely on.
func TestBuiltin(t *testing.T) {
	m := builtin(t)
	for name, want := range map[citywarden.ModelName]struct {
		domain     citywarden.Domain
		metrics    string
		attributes string
	}{
		"smoke-detector": {citywarden.Fire, "smoke:number:dB/m temperature:number:Cel button:bool: mains:bool: battery:number:%",
			"zone:text building:text district:text gateway:text heartbeat:text smoke_limit:number"},
		"pressure-logger": {citywarden.Pipe, "pressure:number:bar flow:number:m3/h battery:number:%", "dma:text"},
		"parking-bay": {citywarden.Parking, "occupied:bool: magnetic_x:number:uT magnetic_y:number:uT magnetic_z:number:uT battery:number:%",
			"kind:text lane:text zone:text"},
		"parking-gateway": {citywarden.Parking, "mains:bool:", "building:text district:text"},
		"energy-meter":    {citywarden.Building, "power:number:kW energy:number:kW.h mains:bool:", "night_limit:number building:text district:text"},
		"heat-meter":      {citywarden.Building, "energy:number:kW.h power:number:kW volume:number:m3 flow:number:m3/h supply:number:Cel return:number:Cel", "building:text"},
		"water-meter":     {citywarden.Building, "volume:number:m3 flow:number:m3/h", "dma:text"},
	} {
		model, ok := m.Model(name)
		if !ok {
			t.Errorf("no model %s", name)
			continue
		}
		if model.Domain != want.domain || model.Codec != "json" || model.Title.ZH == "" || model.Title.EN == "" {
			t.Errorf("%s: domain %s, codec %s, title %+v", name, model.Domain, model.Codec, model.Title)
		}
		for _, w := range strings.Fields(want.metrics) {
			f := strings.Split(w, ":")
			x, ok := model.Metric(citywarden.MetricName(f[0]))
			if !ok || x.Kind.String() != f[1] || x.Unit != f[2] || x.StaleAfter != 2*model.Heartbeat {
				t.Errorf("%s: metric %s is %+v", name, w, x)
			}
		}
		for _, w := range strings.Fields(want.attributes) {
			n, kind, _ := strings.Cut(w, ":")
			if x, ok := model.Attribute(n); !ok || x.Kind.String() != kind {
				t.Errorf("%s: attribute %s is %+v", name, w, x)
			}
		}
	}
	all := m.All()
	if !slices.IsSortedFunc(all, func(a, b citywarden.Model) int { return strings.Compare(string(a.Name), string(b.Name)) }) {
		t.Error("All is not sorted")
	}
	for _, x := range all {
		// The rules for silent devices and wrong clocks are for all models.
		for _, name := range []string{"heartbeat", "max_lag"} {
			if a, ok := x.Attribute(name); !ok || a.Default == nil {
				t.Errorf("%s: attribute %s has no default", x.Name, name)
			}
		}
		beat, _ := x.Attribute("heartbeat")
		if d, err := citywarden.ParseDuration(fmt.Sprint(beat.Default)); err != nil || d < x.Heartbeat {
			t.Errorf("%s: attribute heartbeat is %v, the model's is %s: every device would be silent", x.Name, beat.Default, x.Heartbeat)
		}
		for _, a := range x.Attributes {
			if limit, ok := a.Default.(float64); ok && a.Unit == "%{LEL}" && limit > 50 {
				t.Errorf("%s: default of %s is %g %%LEL, GB/T 50493-2019 allows 50", x.Name, a.Name, limit)
			}
		}
	}
	smoke, _ := m.Model("smoke-detector")
	if a, _ := smoke.Attribute("smoke_limit"); a.Default != 0.12 {
		t.Errorf("default smoke_limit = %v, want 0.12", a.Default)
	}
	if x, _ := smoke.Metric("smoke"); x.Max == nil || *x.Max != 20 || x.Min == nil || *x.Min != 0 {
		t.Errorf("smoke = %+v, want 0 to 20", x)
	}
	meter, _ := m.Model("energy-meter")
	if x, _ := meter.Metric("energy"); !x.Counter {
		t.Error("energy is not a counter")
	}
	if _, ok := m.Model("nothing"); ok {
		t.Error("there is a model called nothing")
	}
}

const good = `name: tank-level
title: {zh: 水箱液位, en: Tank level}
domain: fire
report: 1m
heartbeat: 1h
metrics:
- {name: level, title: {zh: 液位, en: Level}, kind: number, unit: m, min: 0, max: 10, stale_after: 10m}
attributes:
- {name: low, title: {zh: 低限, en: Low}, kind: number, default: 1}
`

func load(files ...string) (*devices.Models, error) {
	fsys := fstest.MapFS{}
	for i, f := range files {
		fsys[string(rune('a'+i))+".yaml"] = &fstest.MapFile{Data: []byte(f)}
	}
	return devices.LoadModels(devices.Builtin(), fsys)
}

func TestOwnModel(t *testing.T) {
	m, err := load(good, "# own\n"+strings.ReplaceAll(good, "tank-level", "water-meter"))
	if err != nil {
		t.Fatal(err)
	}
	ten, zero := 10.0, 0.0
	got, _ := m.Model("tank-level")
	want := &citywarden.Model{Name: "tank-level", Title: citywarden.Text{ZH: "水箱液位", EN: "Tank level"}, Domain: citywarden.Fire, Codec: "json",
		Report: citywarden.Duration(time.Minute), Heartbeat: citywarden.Duration(time.Hour),
		Metrics: []citywarden.Metric{{Name: "level", Title: citywarden.Text{ZH: "液位", EN: "Level"}, Kind: citywarden.KindNumber, Unit: "m",
			Min: &zero, Max: &ten, StaleAfter: citywarden.Duration(10 * time.Minute)}},
		Attributes: []citywarden.Attribute{{Name: "low", Title: citywarden.Text{ZH: "低限", EN: "Low"}, Kind: citywarden.KindNumber, Default: 1.0}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("model (-want +got):\n%s", diff)
	}
	if w, _ := m.Model("water-meter"); w.Domain != citywarden.Fire {
		t.Error("an own model does not replace the built-in one of its name")
	}
	if n, want := len(m.All()), len(builtin(t).All())+1; n != want {
		t.Errorf("%d models, want %d", n, want)
	}
}

func TestModelFromDisk(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x.yml"), []byte(strings.ReplaceAll(good, "\n", "\r\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "readme.txt"), []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	if m, err := devices.LoadModels(os.DirFS(dir)); err != nil || len(m.All()) != 1 {
		t.Errorf("LoadModels = %v, %v", m, err)
	}
	if _, err := devices.LoadModels(os.DirFS(filepath.Join(dir, "nowhere"))); err == nil {
		t.Error("a folder that does not exist is no error")
	}
}

// TestModelMistakes has one mistake each: old is replaced by new in the good model.
func TestModelMistakes(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown key", "unit: m,", "unti: m,", `a.yaml:7:` + `59: unknown key "unti"; did you mean "unit"?`},
		{"unknown key at the top", "report: 1m", "repport: 1m", `a.yaml:4:1: unknown key "repport"; did you mean "report"?`},
		{"missing key", "heartbeat: 1h\n", "", `the model has no heartbeat`},
		{"missing title", "title: {zh: 液位, en: Level}, ", "", `a.yaml:7:4: metrics[0] has no title`},
		{"one language", "title: {zh: 液位, en: Level}", "title: {zh: 液位}", `metrics[0].title has no en`},
		{"kind", "kind: number, unit", "kind: nubmer, unit", `unknown kind "nubmer"; did you mean "number"?`},
		{"two sequences", "stale_after: 10m}\n", "sequence: true}\n- {name: number, title: {zh: 序号, en: Number}, kind: number, sequence: true}\n",
			`a.yaml:8:71: one metric numbers the messages, and one before number does already`},
		{"number for text", "name: level", "name: 5", `metrics[0].name is a text, not the number 5; put it in quotes`},
		{"text for number", "min: 0", "min: low", `metrics[0].min is a number, not the text "low"`},
		{"infinite", "min: 0", "min: -.inf", `min`},
		{"bool", "unit: m,", "counter: maybe,", `metrics[0].counter is true or false, not the text "maybe"`},
		{"duration without unit", "report: 1m", "report: 60", `a.yaml:4:9: report is a duration like 90s, 15m, 24h or 7d, not the number 60`},
		{"bad duration", "report: 1m", "report: 1 minute", `bad duration "1 minute"`},
		{"negative duration", "report: 1m", "report: -1m", `a duration is not negative`},
		{"heartbeat below report", "heartbeat: 1h", "heartbeat: 1s", `a.yaml:5:12: heartbeat 1s is shorter than report 1m`},
		{"domain", "domain: fire", "domain: fier", `a.yaml:3:9: unknown domain "fier"; did you mean "fire"?`},
		{"model name", "name: tank-level", "name: Tank Level", `a.yaml:1:7: model name "Tank Level"`},
		{"metric name", "name: level", "name: water-level", `metric name "water-level"`},
		{"reserved name", "name: level", "name: time", `a metric can't be called "time"`},
		{"event as a number", "name: level", "name: event", `event is a text, the name of what happened`},
		{"min above max", "min: 0", "min: 11", `min 11 is not below max 10`},
		{"unit of a bool", "kind: number, unit", "kind: bool, unit", `unit, min, max, resolution, counter and sequence belong to a number, level is a bool`},
		{"resource of a command", "attributes:", "commands:\n- {name: silence, title: {zh: 消, en: S}, ipso: 3/0/4}\nattributes:", `a.yaml:9:48: ipso "3/0/4": write object and resource, like 3/4`},
		{"resource with two values", "attributes:", "commands:\n- name: set\n  title: {zh: 设, en: S}\n  ipso: 3/4\n  params: [{name: a, title: {zh: 甲, en: A}, kind: bool}, {name: b, title: {zh: 乙, en: B}, kind: bool}]\nattributes:", `a resource of LwM2M is executed, or written with one value; command set has 2 parameters`},
		{"default of another kind", "default: 1", "default: one", `default of low is a text, not a number`},
		{"metrics no list", "metrics:\n- {", "metrics:\n  {", `metrics is a list`},
		{"no metrics", good[strings.Index(good, "metrics:"):], "metrics: []\n", `a model has at least one metric`},
		{"twice", "domain: fire\n", "domain: fire\ndomain: fire\n", `a.yaml:4:1`},
		{"resource", "unit: m,", "unit: m, ipso: 3303x,", `a.yaml:7:74: ipso "3303x": write object and resource, like 3303/5700`},
		{"first instance written out", "unit: m,", "unit: m, ipso: 3303/0/5700,", `with an instance between them when it is not 0, like 3303/1/5700`},
		{"instance of another kind", "unit: m,", "unit: m, ipso: 3302/1/5500,", `resource 5500 of LwM2M is a bool, level is a number`},
		{"property of FIWARE", "unit: m,", "unit: m, fiware: waterlevel,", `a.yaml:7:76: fiware "waterlevel": write a controlledProperty of FIWARE's Device, like waterLevel, or an attribute of an entity, like ParkingSpot.status; did you mean "waterLevel"?`},
		{"resource of another kind", "unit: m,", "unit: m, ipso: 3302/5500,", `resource 5500 of LwM2M is a bool, level is a number`},
		{"resource twice", "min: 0, max: 10, stale_after: 10m}\n", "ipso: 3319/5700}\n- {name: depth, title: {zh: 深, en: D}, kind: number, ipso: 3319/5700}\n", `a.yaml:8:60: another metric is 3319/5700 already`},
		{"resolution", "unit: m,", "unit: m, resolution: 0,", `a.yaml:7:80: metrics[0].resolution is the smallest step of the values, more than 0`},
		{"coarse resolution", "unit: m,", "unit: m, resolution: 50,", `a step of 50 is more than all of the range from 0 to 10`},
		{"events without the metric", "report: 1m", "events: [{name: full, title: {zh: 满, en: Full}}]\nreport: 1m", `a.yaml:4:9: events come as values of the metric event, a text; the model has no such metric`},
		{"event name", "report: 1m", "events: [{name: is full, title: {zh: 满, en: Full}}]\nreport: 1m", `a.yaml:4:17: event name "is full"`},
		{"event twice", "report: 1m", "events: [{name: full, title: {zh: 满, en: Full}}, {name: full, title: {zh: 满, en: Full}}]\nreport: 1m", `event full is there twice`},
		{"rate", "report: 1m", "limits: {messages: 10 a minute}\nreport: 1m", `a.yaml:4:20: limits.messages: bad rate "10 a minute"; write how many in what time, like 60/1m: 1 to 1000000 in 1s to 1d`},
		{"rate over a week", "report: 1m", "limits:\n  connections: 5/7d\nreport: 1m", `a.yaml:5:16: limits.connections: bad rate "5/7d"; the time is 1s to 1d, as in 60/1m`},
		{"rate below report", "report: 1m", "limits: {messages: 5/1h}\nreport: 1m", `a.yaml:4:20: 5/1h is one message in 12m, and the model reports every 1m: every device would be held up`},
		{"rate of all", "report: 1m", "limits: {messages: 10/1m, all_messages: 5/1m}\nreport: 1m", `a.yaml:4:41: 5/1m for all devices is less than 10/1m for each`},
		{"payload", "report: 1m", "limits: {payload: 1000000}\nreport: 1m", `a.yaml:4:19: limits.payload is 1e+06; it is a whole number of bytes, 16 to 262144`},
		{"limit", "report: 1m", "limits: {mesages: 5/1m}\nreport: 1m", `unknown key "mesages"; did you mean "messages"?`},
		{"codec", "report: 1m", "codec: jason\nreport: 1m", `a.yaml:4:8: unknown codec "jason"; did you mean "json"?`},
		{"codec without vectors", "report: 1m", "codec: {fields: [{bits: 8, metric: level}]}\nreport: 1m", `codec has no vectors`},
		{"metric twice", "attributes:", "- {name: level, title: {zh: 液, en: L}, kind: bool}\nattributes:", `a.yaml:8:10: metric level is there twice`},
		{"attribute twice", "default: 1}\n", "default: 1}\n- {name: low, title: {zh: 液, en: L}, kind: bool}\n", `attribute low is there twice`},
		{"empty value", "domain: fire", "domain:", `domain is a text, not empty`},
		{"anchor", "domain: fire", "domain: &a fire", `anchors, aliases and tags are not used`},
		{"syntax", "title: {zh: 水箱液位, en: Tank level}", "title: {zh: 水箱液位, en: Tank level", `a.yaml:`},
		{"two documents", "attributes:", "---\nattributes:", `one model, this one 2`},
		{"no mapping", good, "- a\n- b\n", `the model is a mapping (key: value), not a list`},
		{"empty", good, "", `a model file holds one model`},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := strings.Replace(good, c.old, c.new, 1)
			if src == good {
				t.Fatal("the case changes nothing")
			}
			_, err := load(src)
			if citywarden.CodeOf(err) != citywarden.CodeInvalid {
				t.Fatalf("LoadModels = %v, want %s", err, citywarden.CodeInvalid)
			}
			if !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "a.yaml:") {
				t.Errorf("LoadModels =\n%v\nwant it to have %s", err, c.want)
			}
			var ps citywarden.Problems
			if !errors.As(err, &ps) || len(ps) == 0 {
				t.Error("no Problems in the error")
			}
		})
	}
}

// TestAllMistakes wants every mistake of every file at once, and the caret under
// the word also behind wide characters.
func TestAllMistakes(t *testing.T) {
	_, err := load(strings.Replace(strings.Replace(good, "unit: m,", "unti: m,", 1), "report: 1m", "report: soon", 1),
		strings.NewReplacer("kind: number, default", "knid: number, default", "tank-level", "other").Replace(good))
	var ps citywarden.Problems
	if !errors.As(err, &ps) || len(ps) != 4 {
		t.Fatalf("%d problems, want 4 (soon, unti, knid, and no kind):\n%v", len(ps), err)
	}
	want := "  - {name: level, title: {zh: 液位, en: Level}, kind: number, unti: m, min: 0, max: 10, stale_after: 10m}\n" +
		"  " + strings.Repeat(" ", 58+2) + "^" // 58 characters before it, two of them wide
	if ps[1].Snippet != want {
		t.Errorf("snippet is\n%s\nwant\n%s", ps[1].Snippet, want)
	}
}

func TestModelsTogether(t *testing.T) {
	if _, err := load(good, good); err == nil || !strings.Contains(err.Error(), "b.yaml:1:7: model tank-level is in a.yaml already") {
		t.Errorf("the same model twice: %v", err)
	}
	conflict := strings.Replace(good, "{name: level, title: {zh: 液位, en: Level}, kind: number, unit: m, min: 0, max: 10, stale_after: 10m}",
		"{name: smoke, title: {zh: 烟, en: Smoke}, kind: bool}", 1)
	if _, err := load(conflict); err == nil || !strings.Contains(err.Error(), "metric smoke is a number in model smoke-detector and a bool in tank-level") {
		t.Errorf("two kinds in one series: %v", err)
	}
}

func FuzzModel(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("name: &x\n  - *x"))
	f.Fuzz(func(t *testing.T, src []byte) {
		_, err := devices.LoadModels(fstest.MapFS{"a.yaml": &fstest.MapFile{Data: src}})
		if err != nil && citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("LoadModels = %v", err)
		}
	})
}
