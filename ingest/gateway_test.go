package ingest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// family is a directory with a gateway "gw" and the devices d1 and d2 behind it,
// which are called "Device 1" and "Device 2" too.
type family struct{ one }

func (family) Child(gateway citywarden.DeviceID, name string) (citywarden.DeviceID, error) {
	n := strings.NewReplacer("Device ", "d").Replace(name)
	if gateway != "gw" || n != "d1" && n != "d2" {
		return "", citywarden.Errorf(citywarden.CodeNotFound, "no device %q behind gateway %s", name, gateway)
	}
	return citywarden.DeviceID(n), nil
}

var gatewayMessages = []struct {
	topic, body string
	want        []string // DEVICE TOPIC BODY
	reason      string   // part of what is said of the rest
}{
	{citywarden.GatewayTelemetry, `{"Device 1":[{"ts":1764000000000,"values":{"smoke":0.1}}], "d2" : [{"smoke":0.2}]}`, []string{
		`d1 v1/devices/me/telemetry [{"ts":1764000000000,"values":{"smoke":0.1}}]`,
		`d2 v1/devices/me/telemetry [{"smoke":0.2}]`,
	}, ""},
	{citywarden.GatewayAttributes, `{"d1":{"firmware":"1"}}`, []string{`d1 v1/devices/me/attributes {"firmware":"1"}`}, ""},
	{citywarden.GatewayConnect, `{"device":"Device 1","type":"default"}`, []string{`d1 v1/devices/me/connect {"device":"Device 1","type":"default"}`}, ""},
	{citywarden.GatewayDisconnect, `{"device":"d2"}`, []string{`d2 v1/devices/me/disconnect {"device":"d2"}`}, ""},
	{citywarden.GatewayTelemetry, `{"d1":[{"smoke":1}],"stranger":[{"smoke":2}],"d2":[{"smoke":3}],"other":[]}`, []string{
		`d1 v1/devices/me/telemetry [{"smoke":1}]`,
		`d2 v1/devices/me/telemetry [{"smoke":3}]`,
		`gw v1/gateway/telemetry {"stranger":[{"smoke":2}],"other":[]}`,
	}, `no device "stranger" behind gateway gw`},
	{citywarden.GatewayConnect, `{"device":"stranger"}`, []string{`gw v1/gateway/connect {"device":"stranger"}`}, `no device "stranger"`},
	{citywarden.GatewayConnect, `{"name":"d1"}`, []string{`gw v1/gateway/connect {"name":"d1"}`}, `expected {"device": "NAME"}`},
	{citywarden.GatewayTelemetry, `[1]`, []string{`gw v1/gateway/telemetry [1]`}, "sends an object"},
	{citywarden.GatewayTelemetry, ``, []string{`gw v1/gateway/telemetry `}, "sends an object"},
	{citywarden.GatewayTelemetry, `{"d1":`, []string{`gw v1/gateway/telemetry {"d1":`}, "byte"},
	{citywarden.GatewayTelemetry, `{}`, nil, ""},
	{"v1/gateway/other", `{}`, []string{`gw v1/gateway/other {}`}, "sends nothing to v1/gateway/other"},
}

func TestSplit(t *testing.T) {
	for _, c := range gatewayMessages {
		up := citywarden.Uplink{Device: "gw", Protocol: "mqtt", Topic: c.topic, Payload: []byte(c.body)}
		parts, reasons := split(family{}, &up)
		var got []string
		for _, p := range parts {
			got = append(got, string(p.Device)+" "+p.Topic+" "+string(p.Payload))
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s %s (-want +got):\n%s", c.topic, c.body, d)
		}
		if why := strings.Join(reasons, "; "); !strings.Contains(why, c.reason) || (why == "") != (c.reason == "") {
			t.Errorf("%s %s: %s, want %s", c.topic, c.body, why, c.reason)
		}
		for _, p := range parts { // what is left stays as it is
			if again, _ := split(family{}, &p); len(again) != 1 || string(again[0].Payload) != string(p.Payload) || again[0].Topic != p.Topic {
				t.Errorf("%s %s: split again it is %v", c.topic, c.body, again)
			}
		}
	}
}

// TestGatewayMessageInTheLog: each device has its readings, the gateway a dead
// letter of what is nobody's, and the gateway one acknowledgement.
func TestGatewayMessageInTheLog(t *testing.T) {
	log := new(memLog)
	p, err := New(Options{Log: log, Directory: family{one{testModel()}}})
	if err != nil {
		t.Fatal(err)
	}
	up := citywarden.Uplink{Device: "gw", Protocol: "mqtt", Topic: citywarden.GatewayTelemetry,
		Payload: []byte(`{"Device 1":[{"smoke":0.1}],"stranger":[{"smoke":0.3}],"d2":[{"smoke":0.2}]}`)}
	if err := p.Check(up); citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), "stranger") {
		t.Errorf("Check = %v", err)
	}
	acks := 0
	p.Accept(t.Context(), up, func(err error) {
		acks++
		if err != nil {
			t.Error(err)
		}
	})
	if acks != 1 {
		t.Errorf("acknowledged %d times", acks)
	}
	// One that only speaks for others is alive too; that is logged now and then.
	up.Payload = []byte(`{"d1":[{"smoke":0.4}]}`)
	for range 3 {
		again := up
		again.Payload = bytes.Clone(up.Payload)
		p.Accept(t.Context(), again, func(error) {})
	}
	p.Accept(t.Context(), citywarden.Uplink{Device: "stranger", Topic: citywarden.GatewayConnect, Payload: []byte(`{}`)}, func(error) {})
	log.seal()
	d := newDecoder(family{one{testModel()}})
	var got []string
	for _, g := range log.groups {
		for _, e := range d.group(g) {
			s := string(e.Uplink.Device)
			for _, r := range e.Readings {
				s += " " + string(r.Metric) + "=" + r.Value.String()
			}
			if e.Reject != nil {
				s += " rejected"
			}
			got = append(got, s)
		}
	}
	if d := cmp.Diff([]string{"d1 smoke=0.1", "d2 smoke=0.2", "gw rejected", "d1 smoke=0.4", "gw", "d1 smoke=0.4", "d1 smoke=0.4", "stranger rejected"}, got); d != "" {
		t.Error(d)
	}
}

// TestGatewayAliveOnceDurable: the sign of life of a gateway that was not stored comes again with
// the next message.
func TestGatewayAliveOnceDurable(t *testing.T) {
	log := new(memLog)
	p, err := New(Options{Log: log, Directory: family{one{testModel()}}})
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk is full")
	for _, broken := range []error{full, nil, nil} {
		log.broken = broken
		up := citywarden.Uplink{Device: "gw", Topic: citywarden.GatewayTelemetry, Payload: []byte(`{"d1":[{"smoke":0.1}]}`)}
		p.Accept(t.Context(), up, func(err error) {
			if !errors.Is(err, broken) {
				t.Errorf("done with %v, want %v", err, broken)
			}
		})
	}
	log.seal()
	var got []citywarden.DeviceID
	for _, g := range log.groups {
		for _, r := range g {
			got = append(got, r.Uplink.Device)
		}
	}
	if d := cmp.Diff([]citywarden.DeviceID{"d1", "gw", "d1"}, got); d != "" {
		t.Error(d)
	}
}

// TestGatewayMessageThatFails is not acknowledged when a part of it is not stored.
func TestGatewayMessageThatFails(t *testing.T) {
	full := errors.New("disk is full")
	p, err := New(Options{Log: new(memLog), Directory: family{one{testModel()}}, Full: func() error { return full }})
	if err != nil {
		t.Fatal(err)
	}
	var got []error
	p.Accept(context.Background(), citywarden.Uplink{Device: "gw", Topic: citywarden.GatewayAttributes, Payload: []byte(`{"d1":{"a":1},"d2":{"a":1}}`)}, func(err error) { got = append(got, err) })
	if len(got) != 1 || !errors.Is(got[0], full) {
		t.Errorf("done with %v, want once, that the disk is full", got)
	}
}

// heldLog keeps what says that a record is durable.
type heldLog struct {
	memLog
	done []func(citywarden.Position, error)
}

func (l *heldLog) Append(_ citywarden.Record, done func(citywarden.Position, error)) {
	l.done = append(l.done, done)
}

// TestGatewayMessageOnceAllIsDurable: a gateway's message is acknowledged with the last of its parts, in whatever order they
// are synced, and not at all when one is not.
func TestGatewayMessageOnceAllIsDurable(t *testing.T) {
	full := errors.New("disk is full")
	for _, fails := range []int{-1, 0, 1, 2} {
		log := new(heldLog)
		p, err := New(Options{Log: log, Directory: family{one{testModel()}}})
		if err != nil {
			t.Fatal(err)
		}
		var got []error
		up := citywarden.Uplink{Device: "gw", Topic: citywarden.GatewayTelemetry, Payload: []byte(`{"d1":[{"smoke":0.1}],"d2":[{"smoke":0.2}]}`)}
		p.Accept(t.Context(), up, func(err error) { got = append(got, err) })
		if len(log.done) != 3 { // both devices, and that the gateway is alive
			t.Fatalf("%d records, want 3", len(log.done))
		}
		for n, i := range []int{1, 2, 0} {
			if len(got) > 0 {
				t.Fatalf("record %d fails: done with %v when %d of 3 are durable", fails, got, n)
			}
			if i == fails {
				log.done[i](0, full)
				continue
			}
			log.done[i](citywarden.PositionAt(1, i), nil)
		}
		if want := fails >= 0; len(got) != 1 || errors.Is(got[0], full) != want || !want && got[0] != nil {
			t.Errorf("record %d fails: done with %v", fails, got)
		}
	}
}

func FuzzSplit(f *testing.F) {
	for _, c := range gatewayMessages {
		f.Add(c.topic, []byte(c.body))
	}
	f.Fuzz(func(t *testing.T, topic string, body []byte) {
		up := citywarden.Uplink{Device: "gw", Topic: gatewayTopics + topic, Payload: body}
		parts, reasons := split(family{}, &up)
		for i := range parts {
			if parts[i].Device == "gw" && len(reasons) == 0 {
				t.Errorf("left to the gateway without a reason: %s", parts[i].Payload)
			}
			if parts[i].Device == "gw" {
				continue
			}
			decode(&citywarden.Device{ID: parts[i].Device}, testModel(), &parts[i])
		}
	})
}
