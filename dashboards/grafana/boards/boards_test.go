package boards

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the dashboards' JSON anew")

const folder = "../provisioning/dashboards"

// The JSON that Grafana is provisioned with is what this package renders.
func TestDashboardsAreFresh(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range all {
		path := filepath.Join(folder, name)
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(got)); d != "" {
			t.Errorf("%s is not what the code renders; run go test ./dashboards/grafana/boards -update\n%s", path, d)
		}
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil || len(files) != len(all) {
		t.Errorf("%d files in %s, %d dashboards (%v)", len(files), folder, len(all), err)
	}
}

// What is mounted into Grafana is there, and what its files ask of the
// environment is given.
func TestDeploy(t *testing.T) {
	const root = "../../.."
	b, err := os.ReadFile(filepath.Join(root, "deploy/compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var compose struct {
		Services map[string]struct {
			Environment map[string]string
			Volumes     []string
		}
	}
	if err := yaml.Unmarshal(b, &compose); err != nil {
		t.Fatal(err)
	}
	grafana := compose.Services["grafana"]
	for _, v := range grafana.Volumes {
		from, _, _ := strings.Cut(v, ":")
		if _, err := os.Stat(filepath.Join(root, "deploy", from)); err != nil && strings.HasPrefix(from, "..") && !strings.HasPrefix(from, "../artefacts/") {
			t.Error(err)
		}
	}
	files, err := filepath.Glob("../provisioning/*/*.yaml")
	if err != nil || len(files) != 3 {
		t.Errorf("%v, %v", files, err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(b, &map[string]any{}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for _, name := range regexp.MustCompile(`\$([A-Z_]+)`).FindAllSubmatch(b, -1) {
			if _, ok := grafana.Environment[string(name[1])]; !ok {
				t.Errorf("%s asks for %s, which deploy/compose.yaml does not give", path, name[1])
			}
		}
	}
}

// Each panel says which question it answers and asks the provisioned datasource.
func TestPanelsAnswerQuestions(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := os.ReadFile("../../../docs/administrators.md")
	if err != nil {
		t.Fatal(err)
	}
	metricName := regexp.MustCompile(`(citywarden_[a-z_]+?)(_bucket)?\b`)
	for name, b := range all {
		var d struct {
			UID    string `json:"uid"`
			Panels []struct {
				Title, Description string
				Targets            []struct {
					QueryType  string
					Expr       string
					Datasource struct{ UID, Type string }
				}
			} `json:"panels"`
		}
		if err := json.Unmarshal(b, &d); err != nil {
			t.Fatal(err)
		}
		if d.UID == "" || len(d.Panels) == 0 {
			t.Errorf("%s: uid %q, %d panels", name, d.UID, len(d.Panels))
		}
		for _, p := range d.Panels {
			if !strings.HasSuffix(p.Description, "?") {
				t.Errorf("%s, panel %s: the description is no question: %q", name, p.Title, p.Description)
			}
			if len(p.Targets) == 0 {
				t.Errorf("%s, panel %s asks nothing", name, p.Title)
			}
			for _, q := range p.Targets {
				ours := q.Datasource.UID == UID && q.QueryType != ""
				if metric := metricName.FindStringSubmatch(q.Expr); !ours && (metric == nil || !bytes.Contains(metrics, []byte("`"+metric[1]))) {
					t.Errorf("%s, panel %s: neither a query of ours nor of a metric that administrators.md explains: %+v", name, p.Title, q)
				}
			}
		}
	}
}
