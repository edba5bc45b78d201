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
		for range 2 { // of one that is gone nothing is remembered, of the others all is
			p.limits.forget(one{model})
			if len(p.limits.devices) != 3 {
				t.Errorf("%d devices are remembered", len(p.limits.devices))
			}
			p.limits.of("nobody", model)
		}
	})
}

// TestOverALimitNothingIsLost: all of what is too much is kept and can be brought in again, and what is said
// when something went is not held up by what it said before.
func TestOverALimitNothingIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := testModel()
		model.Limits = citywarden.Limits{Messages: citywarden.Rate{Count: 1, Per: citywarden.Duration(time.Hour)}, Payload: 10000}
		log := &memLog{}
		dir := family{one{model}}
		p, err := New(Options{Log: log, Directory: dir})
		if err != nil {
			t.Fatal(err)
		}
		send := func(protocol string, id citywarden.DeviceID, topic, payload string) error {
			got := make(chan error, 1)
			protocol, qos0 := strings.CutSuffix(protocol, "-0")
			p.Accept(t.Context(), citywarden.Uplink{Device: id, Protocol: protocol, Topic: topic, Payload: []byte(payload), Untold: qos0}, func(err error) { got <- err })
			return <-got
		}
		padded := func(payload string, bytes int) string { return strings.Repeat(" ", bytes-len(payload)) + payload }
		const telemetry, told = "v1/devices/me/telemetry", citywarden.DeviceLwM2M + "110/3318/0/5700"
		for _, c := range []struct {
			name                                  string
			protocol, topic, payload, first, then string
			id                                    citywarden.DeviceID
		}{
			{"a long one that came too fast", "uplink", telemetry, padded(`{"smoke":1}`, 9000), "overrate/" + telemetry, telemetry, "a"},
			{"one that is too long", "mqtt", telemetry, padded(`{"smoke":1}`, 11000), "oversized/11000/" + telemetry, telemetry, "b"},
			{"one that is too long and came too fast", "uplink", telemetry, padded(`{"smoke":1}`, 11000), "overrate/oversized/11000/" + telemetry, telemetry, "a"},
			{"one that is too long, of a gateway", "mqtt", "v1/gateway/telemetry", padded(`{"d1":{"smoke":1}}`, 11000), "oversized/11000/v1/gateway/telemetry", "v1/gateway/telemetry", "gw"},
			{"one over MQTT with QoS 0", "mqtt-0", telemetry, `{"smoke":1}`, "overrate/" + telemetry, telemetry, "a"},
			{"one of a gateway over MQTT with QoS 0", "mqtt-0", "v1/gateway/attributes", `{"d1":{"a":1}}`, "overrate/v1/gateway/attributes", "v1/gateway/attributes", "gw"},
			{"what a client of LwM2M tells", "coap", told, `[]`, "overrate/" + told, told, "a"},
			{"a will", citywarden.ProtocolWill, telemetry, `{"smoke":2}`, telemetry, telemetry, "a"},
			{"a will of a gateway", citywarden.ProtocolWill, "v1/gateway/disconnect", `{"device":"d1"}`, citywarden.DeviceDisconnected, citywarden.DeviceDisconnected, "gw"},
			{"a device that went with its node", "mqtt", citywarden.GatewaySparkplug + "NDEATH/d2", "", citywarden.DeviceDisconnected, citywarden.DeviceDisconnected, "gw"},
		} {
			for c.id != "b" && c.topic != "v1/gateway/telemetry" && send("coap", c.id, telemetry, `{"smoke":1}`) == nil {
			} // its rate is used up
			began := time.Now()
			held := time.Duration(0)
			if strings.HasSuffix(c.protocol, "-0") { // held up first, as its connection is its own
				held = maxDelay
			}
			if err := send(c.protocol, c.id, c.topic, c.payload); err != nil || time.Since(began) > held {
				t.Errorf("%s: %v after %s", c.name, err, time.Since(began))
				continue
			}
			log.seal()
			newest := log.groups[len(log.groups)-1]
			up := newest[len(newest)-1].Uplink
			if up.Topic != c.first || string(up.Payload) != c.payload || up.Untold {
				t.Errorf("%s: kept are %d of %d bytes, to %s", c.name, len(up.Payload), len(c.payload), up.Topic)
			}
			e := newDecoder(dir).group([]citywarden.Record{{Kind: citywarden.RecordUplink, Uplink: up}})[0]
			if c.first != c.then && (e.Reject == nil || strings.Contains(e.Reject.Reason, "its beginning")) {
				t.Errorf("%s: %+v", c.name, e.Reject)
			}
			again := citywarden.AsSent(*up)
			if again.Topic != c.then {
				t.Errorf("%s: %s comes in again", c.name, again.Topic)
			}
			long := len(c.payload) > model.Limits.Payload
			if err := p.Check(again); long != (citywarden.CodeOf(err) == citywarden.CodeTooLarge) {
				t.Errorf("%s, while the model takes no more: %v", c.name, err)
			}
			model.Limits.Payload = 20000
			if err := p.Check(again); long && err != nil {
				t.Errorf("%s, when the model takes it: %v", c.name, err)
			}
			model.Limits.Payload = 10000
		}
	})
}

// TestAFloodWithQoS0Ends: of what a device sends with QoS 0 beyond its limits a few messages are dead letters, and later one now
// and then, over however many connections it comes; the others are refused, which ends their connection.
func TestAFloodWithQoS0Ends(t *testing.T) {
	for _, topic := range []string{"v1/devices/me/telemetry", "v1/gateway/telemetry"} {
		synctest.Test(t, func(t *testing.T) {
			model := testModel()
			model.Limits.Messages = citywarden.Rate{Count: 1, Per: citywarden.Duration(time.Hour)}
			log := &memLog{}
			p, err := New(Options{Log: log, Directory: family{one{model}}})
			if err != nil {
				t.Fatal(err)
			}
			send := func() error {
				got := make(chan error, 1)
				p.Accept(t.Context(), citywarden.Uplink{Device: "gw", Protocol: "mqtt", Topic: topic, Payload: []byte(`{"smoke":1}`), Untold: true}, func(err error) { got <- err })
				return <-got
			}
			if err := send(); err != nil {
				t.Fatal(err)
			}
			began, kept := time.Now(), 0
			for ; send() == nil; kept++ {
				if kept > 2*maxLetters {
					t.Fatal("the flood does not end")
				}
			}
			if kept < maxLetters {
				t.Errorf("%d are kept before the first is refused, want at least %d", kept, maxLetters)
			}
			for time.Since(began) < 50*time.Minute {
				switch err := send(); citywarden.CodeOf(err) {
				case "":
					kept++
				case citywarden.CodeLimited:
				default:
					t.Fatal(err)
				}
			}
			if most := maxLetters + 50; kept < 50 || kept > most {
				t.Errorf("%d are kept in 50 minutes, want %d at most", kept, most)
			}
		})
	}
}
