package certify

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/citywarden/citywarden"
)

// TestPeriod: what decides whether a device reports often enough is how long nothing at all came of it, and that the
// platform played an outage is not its silence.
func TestPeriod(t *testing.T) {
	const telemetry, attributes, connect = "v1/devices/me/telemetry", "v1/devices/me/attributes", "CONNECT"
	type event struct {
		after time.Duration
		what  string // a topic, or connect
	}
	const s = time.Second
	for _, c := range []struct {
		name   string
		outage time.Duration
		events []event
		last   time.Duration // until the end
		state  State
		says   string
	}{
		{"often", 0, []event{{0, telemetry}, {10 * s, telemetry}, {50 * s, telemetry}}, s, Passed, "at most 50s between two messages; the model says 1m"},
		{"with a gap", 0, []event{{0, telemetry}, {61 * s, telemetry}}, s, Failed, "at most 1m1s between two messages; the model says 1m"},
		{"once, and then nothing", 0, []event{{0, telemetry}}, 61 * s, Failed, "nothing came for 1m1s; the model says 1m"},
		{"once, a moment ago", 0, []event{{0, telemetry}}, s, NotSeen, ""},
		{"nothing", 0, []event{{0, connect}}, 61 * s, NotSeen, ""},
		{"attributes between two messages", 0, []event{{0, telemetry}, {40 * s, attributes}, {40 * s, telemetry}}, s, Passed, "at most 40s between two messages; the model says 1m"},
		{"attributes at last", 0, []event{{0, telemetry}, {s, telemetry}, {59 * s, attributes}}, 50 * s, Passed, "at most 59s between two messages; the model says 1m"},
		{"a will is no sign of life", 0, []event{{0, telemetry}, {61 * s, citywarden.ProtocolWill}}, s, Failed, "nothing came for 1m2s; the model says 1m"},
		{"back a moment ago", 3 * time.Minute, []event{{0, telemetry}, {s, telemetry}, {s, telemetry}, {s, telemetry}, {185 * s, connect}}, s, Passed,
			"at most 1s between two messages; the model says 1m"},
		{"back, and then nothing", 3 * time.Minute, []event{{0, telemetry}, {s, telemetry}, {s, telemetry}, {s, telemetry}, {185 * s, connect}}, 61 * s, Failed,
			"nothing came for 1m1s; the model says 1m"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				model := &citywarden.Model{Name: "quick", Heartbeat: citywarden.Duration(time.Minute),
					Metrics: []citywarden.Metric{{Name: "level", Kind: citywarden.KindNumber}}}
				b, err := newBench(Options{Model: model, Outage: c.outage})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- b.pipeline.Run(ctx) }()
				for _, e := range c.events {
					time.Sleep(e.after)
					if e.what == connect {
						b.connected("MQTT", 60)
						continue
					}
					up := citywarden.Uplink{Device: Device, Protocol: "mqtt", Topic: e.what, Payload: []byte(`{"level":1}`), Received: time.Now()}
					if e.what == citywarden.ProtocolWill {
						up.Protocol, up.Topic = e.what, telemetry
					}
					b.Accept(ctx, up, func(error) {})
					synctest.Wait()
				}
				time.Sleep(c.last)
				for _, x := range b.report().Checks {
					if x.ID == "period" && (x.State != c.state || x.Seen.EN != c.says) {
						t.Errorf("%s, %q; want %s, %q", x.State, x.Seen, c.state, c.says)
					}
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
