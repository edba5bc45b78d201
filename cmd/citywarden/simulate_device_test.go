package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices"
)

// TestSimulateDevicePrintsEveryModel: of every model that the platform ships, a
// vendor sees frames in order whose values the model declares, and the same
// again with the same seed.
func TestSimulateDevicePrintsEveryModel(t *testing.T) {
	models, err := devices.LoadModels(devices.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range models.All() {
		frames := func() string {
			var out, complaints bytes.Buffer
			c := simulateDeviceCmd{Model: string(m.Name), Print: true, For: 2 * time.Hour, Start: "Mon 09:00", Seed: 1}
			if err := c.Run(output{out: &out, err: &complaints}); err != nil || complaints.Len() > 0 {
				t.Fatalf("%s: %v, %s", m.Name, err, &complaints)
			}
			return out.String()
		}
		text := frames()
		if text != frames() {
			t.Errorf("%s: the same seed, other frames", m.Name)
		}
		n := 0
		var last time.Time
		for line := range strings.Lines(text) {
			n++
			f := strings.SplitN(strings.TrimSpace(line), " ", 3)
			if len(f) != 3 || f[1] != "v1/devices/me/telemetry" {
				t.Fatalf("%s: %s", m.Name, line)
			}
			at, err := time.Parse(time.RFC3339, f[0])
			if err != nil || at.Before(last) {
				t.Fatalf("%s: %s after %s: %v", m.Name, f[0], last, err)
			}
			last = at
			var body struct {
				TS     int64
				Values map[citywarden.MetricName]citywarden.Value
			}
			if err := json.Unmarshal([]byte(f[2]), &body); err != nil || len(body.Values) == 0 || body.TS > at.UnixMilli() {
				t.Fatalf("%s: %s: %v", m.Name, f[2], err)
			}
			for name, v := range body.Values {
				if metric, ok := m.Metric(name); !ok || metric.Kind != v.Kind() {
					t.Fatalf("%s has no %s like in %s", m.Name, name, f[2])
				}
			}
		}
		if n < 3 {
			t.Errorf("%s: %d frames in two hours", m.Name, n)
		}
	}
}
