package app

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// TestEveryMetricIsExplained: the table for administrators has each metric that
// is registered, with its labels, and no other.
func TestEveryMetricIsExplained(t *testing.T) {
	c := Default()
	c.Data = filepath.Join(t.TempDir(), "data")
	c.HTTP.Addr, c.MQTT.Addr, c.CoAP.Addr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	c.Uplinks = []UplinkConfig{{Name: "city", URL: "tcp://127.0.0.1:1", ClientID: "citywarden", Topics: []UplinkTopicConfig{{Topic: "devices/{device}"}}}}
	a, err := Open(t.Context(), c, Options{AdminPassword: "a good one"})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	descs := make(chan *prometheus.Desc)
	go func() {
		a.metrics.Describe(descs)
		close(descs)
	}()
	desc := regexp.MustCompile(`fqName: "(citywarden_\w+)".* variableLabels: (\{.*?\})`)
	var registered []string
	for d := range descs {
		if m := desc.FindStringSubmatch(d.String()); m != nil {
			registered = append(registered, m[1]+labels(m[2]))
		}
	}
	text, err := os.ReadFile("../docs/administrators.md")
	if err != nil {
		t.Fatal(err)
	}
	var explained []string
	for _, row := range regexp.MustCompile("(?m)^\\| `citywarden_.*").FindAllString(string(text), -1) {
		cell := regexp.MustCompile(`^\| [^|]*`).FindString(row)
		for _, m := range regexp.MustCompile("`(citywarden_\\w+)(\\{[a-z_,]+\\})?`").FindAllStringSubmatch(cell, -1) {
			explained = append(explained, m[1]+labels(m[2]))
		}
	}
	slices.Sort(registered)
	slices.Sort(explained)
	if len(registered) < 15 {
		t.Errorf("only %d metrics are registered", len(registered))
	}
	if diff := cmp.Diff(registered, explained); diff != "" {
		t.Errorf("docs/administrators.md (-registered +explained):\n%s", diff)
	}
}

// labels returns {a,b} without the braces that hold nothing.
func labels(s string) string {
	if s == "{}" {
		return ""
	}
	return s
}
