package ingest

import (
	"testing"

	"github.com/citywarden/citywarden"
)

// TestResolutionAndEvents: values are rounded to the step that they are measured in, and an event that the model does
// not declare is a dead letter that says which was meant.
func TestResolutionAndEvents(t *testing.T) {
	m := &citywarden.Model{Name: "valve", Metrics: []citywarden.Metric{
		{Name: "volts", Kind: citywarden.KindNumber, Resolution: 0.001}, {Name: "count", Kind: citywarden.KindNumber, Resolution: 5},
		{Name: "cold", Kind: citywarden.KindNumber, Resolution: 0.1},
		{Name: "raw", Kind: citywarden.KindNumber}, {Name: "event", Kind: citywarden.KindText},
	}, Events: []citywarden.ModelEvent{{Name: "valve.operated"}}}
	up := citywarden.Uplink{Device: "a", Topic: "v1/devices/me/telemetry", Received: testArrival,
		Payload: []byte(`[{"volts":3.6559998989105225,"count":12.4,"cold":-0.04,"raw":3.6559998989105225,"event":"valve.operated"},{"event":"valve.operatd"}]`)}
	got, _, dropped := decode(&citywarden.Device{ID: "a"}, m, &up)
	want := map[citywarden.MetricName]string{"volts": "3.656", "count": "10", "cold": "0", "raw": "3.6559998989105225", "event": "valve.operated"}
	for _, r := range got.readings {
		if r.Value.String() != want[r.Metric] {
			t.Errorf("%s is %s, want %s", r.Metric, r.Value, want[r.Metric])
		}
	}
	if s := dropped.reason(); len(got.readings) != 5 || s != `unknown event "valve.operatd"; did you mean "valve.operated"? (5 of 6 readings were taken)` {
		t.Errorf("%d readings, %s", len(got.readings), s)
	}
}
