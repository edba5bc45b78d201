package app

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

// TestClockOfADevice: a clock that gains 15 s a day is found in eight hours, over a restart, one in 1970 at once; both
// are in the API, its filter and the metrics.
func TestClockOfADevice(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.device(t, "fast", "test-valve", nil)
		w.device(t, "good", "test-valve", nil)
		w.device(t, "unset", "test-valve", nil)
		w.device(t, "none", "test-valve", nil)
		post := func(id, body string) {
			t.Helper()
			req, _ := http.NewRequest("POST", "http://citywarden/api/v1/"+w.devices[id]+"/telemetry", strings.NewReader(body))
			res, err := w.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
		}
		began := time.Now()
		for i := range 16 {
			since := time.Since(began)
			post("fast", fmt.Sprintf(`{"ts":%d,"values":{"level":%d}}`, time.Now().Add(since*174/1e6).UnixMilli(), i))
			post("good", fmt.Sprintf(`{"ts":%d,"values":{"level":%d}}`, time.Now().UnixMilli(), i))
			post("none", fmt.Sprintf(`{"level":%d}`, i))
			if i == 8 {
				if err := w.close(); err != nil {
					t.Fatal(err)
				}
				if err := w.open(); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(30 * time.Minute)
		}
		post("unset", `{"ts":60000,"values":{"level":1}}`)
		time.Sleep(10 * time.Second)
		clock := func(id string) *citywarden.Clock {
			t.Helper()
			var v citywarden.DeviceView
			if err := w.call("admin", "GET", "/devices/"+id, nil, &v); err != nil {
				t.Fatal(err)
			}
			return v.Clock
		}
		if c := clock("fast"); c == nil || c.State != citywarden.ClockDrifting || c.Drift == nil || math.Abs(*c.Drift-174) > 5 || math.Abs(c.Offset-4.7) > 0.1 || !c.Since.Before(began.Add(time.Hour)) {
			t.Errorf("fast: %+v", c)
		}
		if c := clock("good"); c == nil || c.State != citywarden.ClockGood || c.Drift == nil || math.Abs(*c.Drift) > 1 || math.Abs(c.Offset) > 0.1 {
			t.Errorf("good: %+v", c)
		}
		if c := clock("unset"); c == nil || c.State != citywarden.ClockUnset || c.Drift != nil {
			t.Errorf("unset: %+v", c)
		}
		if c := clock("none"); c != nil {
			t.Errorf("a device that gives no times: %+v", c)
		}
		var page struct{ Items []citywarden.DeviceView }
		if err := w.call("admin", "GET", "/devices?clock=drifting", nil, &page); err != nil || len(page.Items) != 1 || page.Items[0].ID != "fast" {
			t.Errorf("%v %+v", err, page.Items)
		}
		res, err := w.http.Get("http://citywarden/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		for _, line := range []string{`citywarden_device_clocks{state="drifting"} 1`, `citywarden_device_clocks{state="good"} 1`, `citywarden_device_clocks{state="unset"} 1`} {
			if !strings.Contains(string(b), line) {
				t.Errorf("the metrics have no %s", line)
			}
		}
	})
}
