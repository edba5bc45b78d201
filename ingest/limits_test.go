package ingest

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// TestLimitOfAModel: what the devices of a model send together is held up and refused like what one of them
// sends; one that is refused takes nothing from the others; what another broker brings is a dead letter.
func TestLimitOfAModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := testModel()
		model.Limits = citywarden.Limits{Messages: citywarden.Rate{Count: 8, Per: citywarden.Duration(time.Minute)}, AllMessages: citywarden.Rate{Count: 12, Per: citywarden.Duration(time.Minute)}}
		log := &memLog{}
		p, err := New(Options{Log: log, Directory: one{model}})
		if err != nil {
			t.Fatal(err)
		}
		send := func(protocol string, id citywarden.DeviceID) (time.Duration, error) {
			began, got := time.Now(), make(chan error, 1)
			p.Accept(t.Context(), citywarden.Uplink{Device: id, Protocol: protocol, Topic: "v1/devices/me/telemetry", Payload: []byte(`{"smoke":1}`)}, func(err error) { got <- err })
			err := <-got
			return time.Since(began), err
		}
		for range 8 {
			if wait, err := send("mqtt", "a"); err != nil || wait > 0 {
				t.Fatal(err, wait)
			}
		}
		wait, err := send("mqtt", "a") // 7.5 s until the next of a
		if wait != 5*time.Second {
			t.Errorf("the ninth of a is refused after %s", wait)
		}
		var limit *citywarden.LimitError
		if citywarden.CodeOf(err) != citywarden.CodeLimited || !errors.As(err, &limit) || limit.After != 2500*time.Millisecond || !strings.Contains(err.Error(), "device a sends more than the 8/1m messages") {
			t.Errorf("the ninth of a: %v", err)
		}
		for range 5 { // one of all has come back meanwhile
			if wait, err := send("http", "b"); err != nil || wait > 0 {
				t.Fatal(err, wait)
			}
		}
		if wait, err := send("mqtt", "b"); err != nil || wait != 5*time.Second { // of all together one comes back in 5 s
			t.Errorf("the thirteenth of all: %v after %s", err, wait)
		}
		if _, err := send("coap", "c"); citywarden.CodeOf(err) != citywarden.CodeLimited || !strings.Contains(err.Error(), "the devices of model smoke-detector send more than its 12/1m messages together") {
			t.Errorf("over CoAP, which can't hold it up: %v", err)
		}
		if _, err := send("uplink", "c"); err != nil {
			t.Error(err)
		}
		log.seal()
		newest := log.groups[len(log.groups)-1]
		up := newest[len(newest)-1].Uplink
		if topic, ok := citywarden.Overrated(up.Topic); !ok || topic != "v1/devices/me/telemetry" || string(up.Payload) != `{"smoke":1}` {
			t.Errorf("of what another broker brought is kept: %+v", up)
		}
		e := newDecoder(one{model}).group([]citywarden.Record{{Kind: citywarden.RecordUplink, Uplink: up}})[0]
		if e.Rejected != 1 || e.Reject == nil || !strings.Contains(e.Reject.Reason, "came too fast: model smoke-detector takes 8/1m of a device and 12/1m of all together") {
			t.Errorf("%+v", e)
		}
		if d := cmp.Diff(model.Limits, p.Limits("a")); d != "" {
			t.Error(d)
		}
		p.limits.forget(one{model})
		if len(p.limits.devices) != 3 {
			t.Errorf("%d devices are remembered", len(p.limits.devices))
		}
	})
}
