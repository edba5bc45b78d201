package grafana

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"testing"
)

// Grafana 9.4 shares these modules with plugins, and newer ones do too; what
// else the built frontend asked for would not load there.
var shared = []string{"@grafana/data", "@grafana/runtime", "@grafana/ui", "react", "react-dom", "rxjs", "lodash", "@emotion/css"}

func TestFrontendLoadsWithWhatGrafanaShares(t *testing.T) {
	b, err := os.ReadFile("plugin/dist/module.js")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`^define\((\[[^\]]*\])`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("module.js is no AMD module: %.80s", b)
	}
	var asked []string
	if err := json.Unmarshal(m[1], &asked); err != nil {
		t.Fatal(err)
	}
	for _, name := range asked {
		if !slices.Contains(shared, name) {
			t.Errorf("module.js asks for %s, which Grafana 9.4 does not share", name)
		}
	}
	if len(asked) == 0 {
		t.Error("module.js asks for nothing at all")
	}
}

// The manifest names the program that make plugin builds, and the id that the
// dashboards and the provisioning use.
func TestManifest(t *testing.T) {
	var p struct {
		ID, Executable, Type string
		Backend              bool
	}
	b, err := os.ReadFile("plugin/dist/plugin.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	if p.ID != "citywarden-datasource" || p.Executable != "gpx_citywarden_datasource" || p.Type != "datasource" || !p.Backend {
		t.Errorf("%+v", p)
	}
}
