package app

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// TestDomainVectorsJSON: every JSON push of the field's test frames becomes readings of the device
// behind the integration that pushes it.
func TestDomainVectorsJSON(t *testing.T) {
	b, err := os.ReadFile("testdata/json_pushes.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		ID, Path, Model, Identity string
		Frame                     json.RawMessage
		Readings                  map[citywarden.MetricName]any
	}
	if err := json.Unmarshal(b, &vectors); err != nil || len(vectors) == 0 {
		t.Fatalf("%d frames, %v", len(vectors), err)
	}
	inWorld(t, func(t *testing.T, w *world) {
		w.device(t, "push", "iot-gateway", nil)
		for _, v := range vectors {
			id := "behind-" + v.ID
			w.device(t, id, v.Model, map[string]any{"gateway": "push", "device_id": v.Identity})
			req, _ := http.NewRequest("POST", "http://citywarden/api/v1/"+w.devices["push"]+"/"+v.Path, bytes.NewReader(v.Frame))
			res, err := w.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			time.Sleep(time.Second)
			var view citywarden.DeviceView
			if err := w.call("admin", "GET", "/devices/"+id, nil, &view); err != nil {
				t.Fatal(err)
			}
			got := map[citywarden.MetricName]any{}
			for name, l := range view.Latest {
				got[name] = l.Value.Any()
			}
			if d := cmp.Diff(v.Readings, got); d != "" || res.StatusCode != http.StatusOK {
				t.Errorf("%s: %s, readings (-want +got):\n%s", v.ID, res.Status, d)
			}
		}
	})
}
