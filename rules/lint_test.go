package rules

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/citywarden/citywarden"
)

var update = flag.Bool("update", false, "write golden files anew")

// lintModels are models with units, ranges and reporting times.
func lintModels() models {
	m := cityModels()
	m.add("tank", time.Hour, "pressure:number:bar level:number:m flow:number:m3/h temperature:number:Cel open:bool", "limit:number:kPa site:text limit_bar:number:bar max_rate:number:bar/s")
	t := m["tank"]
	lo, hi := 0.0, 16.0
	t.Metrics[0].Min, t.Metrics[0].Max = &lo, &hi
	for i, unit := range []string{"kPa", "", "bar", "bar/s"} {
		t.Attributes[i].Unit = unit
	}
	t.Report = citywarden.Duration(15 * time.Minute)
	t.Metrics[1].StaleAfter = citywarden.Duration(10 * time.Minute)
	return m
}

// TestEachMistakeHasItsMessage compares what Load says to testdata/lint/NAME.yaml
// with NAME.txt; -update writes those anew.
func TestEachMistakeHasItsMessage(t *testing.T) {
	files, _ := filepath.Glob("testdata/lint/*.yaml")
	if len(files) == 0 {
		t.Fatal("no files")
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		set, err := Load(fstest.MapFS{filepath.Base(name): {Data: text}}, lintModels())
		got := ""
		if err != nil {
			got = err.Error() + "\n"
		} else {
			for _, w := range set.Warnings() {
				got += "warning: " + w.Error() + "\n"
			}
		}
		golden := strings.TrimSuffix(name, ".yaml") + ".txt"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, _ := os.ReadFile(golden)
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		if wantNone := strings.HasPrefix(filepath.Base(name), "good-"); wantNone != (got == "") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// ruleSchema compiles what JSONSchema returns.
func ruleSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(JSONSchema())))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("rules.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("rules.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	j, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(j)))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

func TestTheSchemaIsFresh(t *testing.T) {
	const name = "../docs/rules.schema.json"
	if *update {
		if err := os.WriteFile(name, JSONSchema(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil || string(got) != string(JSONSchema()) {
		t.Errorf("%s is not what JSONSchema returns (%v); go test ./rules -run Schema -update", name, err)
	}
}

func TestTheSchemaTakesEveryRuleFileOfTheProject(t *testing.T) {
	s := ruleSchema(t)
	for _, pattern := range []string{"testdata/*/*.yaml", "../app/demo/rules/*.yaml", "library/*/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			refused := slices.Contains([]string{"unknown-key.yaml", "wrong-place.yaml", "list-without-rules.yaml", "schedule-no-list.yaml", "schedule-empty.yaml"}, filepath.Base(name)) // the only mistakes there that a schema knows
			if err := validate(t, s, text); (err != nil) != refused {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestTheSchemaRefusesWhatTheLoaderRefuses(t *testing.T) {
	s := ruleSchema(t)
	good := probeRule("levels: [{severity: major, when: 'x > 5', for: 10s}]", "late: 1m30s")
	if err := validate(t, s, []byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to string }{
		{"levels", "level"}, {"major", "mayor"}, {"10s", "10 seconds"}, {"1m30s", "5"}, {"id: r", "id: A b"},
		{"when: 'x > 5'", "wen: 'x > 5'"}, {"late: 1m30s", "case: {class: event/501, key: k}"}, {"late: 1m30s", "case: {class: event/0501}"},
		{"late: 1m30s", "latch: maybe"}, {"late: 1m30s", "mode: shadw"}, {"late: 1m30s", "group: {by: zone}"},
		{"late: 1m30s", "flap: {changes: 1, in: 10m}"}, {"late: 1m30s", "schedule: {tz: Asia/Shanghai}"},
		{"late: 1m30s", "schedule: {active: []}"}, {"[{severity: major, when: 'x > 5', for: 10s}]", "[]"},
	} {
		text := strings.Replace(good, c.from, c.to, 1)
		if validate(t, s, []byte(text)) == nil {
			t.Errorf("the schema takes %q instead of %q", c.to, c.from)
		}
		if loadErr(t, text) == "" {
			t.Errorf("the loader takes %q instead of %q", c.to, c.from)
		}
	}
}

// FuzzLint looks for conditions that are right and that lint takes long over or
// can't stand.
func FuzzLint(f *testing.F) {
	for _, x := range []string{"pressure > 5", "not (pressure > 1 or 2 >= pressure) and true", `avg(pressure, "1h") > (attr.limit_bar ?? 3) / 0`,
		"hour in [1, 2]", "pressure == -(1 - 2) * 3", "true", "pressure != pressure", `rate(pressure, "1h") > attr.max_rate`, "weekday > 9"} {
		f.Add(x, "pressure < 3")
	}
	f.Fuzz(func(t *testing.T, when, clear string) {
		text, err := yaml.Marshal(map[string]any{"rules": []any{map[string]any{"id": "r", "select": map[string]any{"model": "tank"},
			"levels": []any{map[string]any{"severity": "major", "when": when}, map[string]any{"severity": "minor", "when": clear}},
			"clear":  map[string]any{"when": clear}}}})
		if err != nil {
			t.Skip()
		}
		began := time.Now()
		Load(fstest.MapFS{"r.yaml": {Data: text}}, lintModels())
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("Load took %s", took)
		}
	})
}

// TestEventThatNoModelHas: where every model declares what its devices may say, a rule
// can't wait for anything else.
func TestEventThatNoModelHas(t *testing.T) {
	m := cityModels()
	delete(m, "probe")
	rule := func(event string) string {
		return fmt.Sprintf(`rules: [{id: r, select: {model: pressure-logger}, levels: [{severity: minor, when: 'event("%s", "10m")'}]}]`, event)
	}
	if _, err := Load(mapFS(rule("valve.stuck")), m); err != nil {
		t.Errorf("of a neighbour: %v", err)
	}
	_, err := Load(mapFS(rule("valve.stock")), m)
	if want := `r.yaml:1:91: no model has the event "valve.stock"; did you mean "valve.stuck"?`; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}
