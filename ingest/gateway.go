package ingest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/citywarden/citywarden"
)

// gatewayTopics begin the topics of gateways, which speak for devices behind them.
const gatewayTopics = "v1/gateway/"

// ofDevice is what a gateway's message is once it is that of a device.
var ofDevice = map[string]string{
	citywarden.GatewayTelemetry:  "v1/devices/me/telemetry",
	citywarden.GatewayAttributes: "v1/devices/me/attributes",
	citywarden.GatewayConnect:    citywarden.DeviceConnected, citywarden.GatewayDisconnect: citywarden.DeviceDisconnected,
}

// nodeDeath begins the topic of what is said of each device of a node that died.
const nodeDeath = citywarden.GatewaySparkplug + "NDEATH/"

// split takes a gateway's message apart into one of each device it speaks of.
// What can't be read, or names no device behind the gateway, is left in a message
// of the gateway itself, and reasons say why. Any other message comes back as it is.
func split(dir Directory, up *citywarden.Uplink) (parts []citywarden.Uplink, reasons []string) {
	if !strings.HasPrefix(up.Topic, gatewayTopics) {
		return []citywarden.Uplink{*up}, nil
	}
	whole := func(format string, args ...any) ([]citywarden.Uplink, []string) {
		return []citywarden.Uplink{*up}, []string{fmt.Sprintf(format, args...)}
	}
	if what, ok := strings.CutPrefix(up.Topic, citywarden.GatewaySparkplug); ok {
		what, name, _ := strings.Cut(what, "/")
		part := *up
		var err error
		if part.Device, err = dir.Child(up.Device, name); err != nil {
			return whole("%v", err)
		}
		if part.Topic = citywarden.DeviceSparkplug; what == "DDEATH" || what == "NDEATH" {
			part.Topic = citywarden.DeviceDisconnected
		}
		return []citywarden.Uplink{part}, nil
	}
	s := &scanner{b: up.Payload}
	s.space()
	if s.i == len(s.b) || s.peek() != '{' {
		return whole("a gateway sends an object like {\"device\": …} to %s", up.Topic)
	}
	t, err := s.value(0)
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return whole("%v", err)
	}
	list, err := s.members(t, nil)
	if err != nil {
		return whole("%v", err)
	}
	topic, ok := ofDevice[up.Topic]
	switch up.Topic {
	case citywarden.GatewayLoRaWAN, citywarden.GatewayCTWing:
		part := *up
		if part.Device, part.Topic, err = pushed(dir, up); err != nil {
			return whole("%v", err)
		}
		return []citywarden.Uplink{part}, nil
	case citywarden.GatewayConnect, citywarden.GatewayDisconnect:
		for _, m := range list {
			if string(m.key) == "device" && m.value.kind() == '"' {
				name, _ := m.value.text()
				id, err := dir.Child(up.Device, string(name))
				if err != nil {
					return whole("%v", err)
				}
				part := *up
				part.Device, part.Topic = id, topic
				return []citywarden.Uplink{part}, nil
			}
		}
		return whole("expected {\"device\": \"NAME\"}")
	}
	if !ok {
		return whole("a gateway sends nothing to %s", up.Topic)
	}
	var rest []byte
	for _, m := range list {
		id, err := dir.Child(up.Device, string(m.key))
		if err != nil {
			reasons = append(reasons, err.Error())
			rest = append(append(rest, ','), s.b[m.at:m.value.at+len(m.value.raw)]...)
			continue
		}
		part := *up
		part.Device, part.Topic, part.Payload = id, topic, m.value.raw
		parts = append(parts, part)
	}
	if rest != nil {
		rest[0] = '{'
		part := *up
		part.Payload = append(rest, '}')
		parts = append(parts, part)
	}
	return parts, reasons
}

// gatewayAlive is how often at most a gateway that speaks for others gets a record
// of its own.
const gatewayAlive = 30 * time.Second

// alive adds a sign of life of the gateway itself, so that one that only speaks for
// others does not count as silent, and reports whether it did.
func (p *Pipeline) alive(parts []citywarden.Uplink, up *citywarden.Uplink, now time.Time) ([]citywarden.Uplink, bool) {
	if !up.Alive() || strings.HasPrefix(up.Topic, nodeDeath) || slices.ContainsFunc(parts, func(x citywarden.Uplink) bool { return x.Device == up.Device }) {
		return parts, false
	}
	if _, _, err := p.directory.Device(up.Device); err != nil {
		return parts, false // nobody to be alive
	}
	if last, ok := p.gateways.Load(up.Device); ok && now.Sub(last.(time.Time)) < gatewayAlive {
		return parts, false
	}
	own := *up
	own.Topic, own.Payload = citywarden.DeviceConnected, nil
	return append(parts, own), true
}

// acceptGateway is Accept for a gateway's message: done is called once all of its
// parts are durable, with the first error.
func (p *Pipeline) acceptGateway(ctx context.Context, up citywarden.Uplink, done func(error)) {
	if _, m, err := p.directory.Device(up.Device); err == nil { // its own limits, whoever it speaks of
		if oversize(m, len(up.Payload)) != nil {
			p.metrics.limit(up.Protocol, "payload")
			p.accept(ctx, citywarden.Overlong(up), true, done)
			return
		}
		var err error
		if up.Protocol != citywarden.ProtocolWill && !strings.HasPrefix(up.Topic, nodeDeath) { // not of its making, one of each device
			err = p.pace(ctx, up.Device, m, up.Protocol, held(up.Protocol))
		}
		if citywarden.CodeOf(err) == citywarden.CodeLimited && p.keeps(&up, m) {
			p.accept(ctx, citywarden.Overrate(up), true, done)
			return
		}
		if err != nil {
			p.metrics.began()
			p.metrics.ended(up.Protocol, time.Now(), err)
			done(err)
			return
		}
	}
	parts, _ := split(p.directory, &up)
	now := time.Now()
	parts, alive := p.alive(parts, &up, now)
	if len(parts) == 0 { // {}
		done(nil)
		return
	}
	var left atomic.Int64
	var first atomic.Pointer[error]
	left.Store(int64(len(parts)))
	for _, part := range parts {
		p.accept(ctx, part, false, func(err error) {
			if err != nil {
				first.CompareAndSwap(nil, &err)
			}
			if left.Add(-1) > 0 {
				return
			}
			if e := first.Load(); e != nil {
				done(*e)
				return
			}
			if alive {
				p.gateways.Store(up.Device, now) // now that it is durable
			}
			done(nil)
		})
	}
}

// decodeGateway says what is wrong with a message that split left as it is.
func decodeGateway(dir Directory, up *citywarden.Uplink) (d dropped) {
	_, reasons := split(dir, up)
	for _, r := range reasons {
		d.reject(1, "%s", r)
	}
	if len(reasons) == 0 {
		d.reject(1, "the devices behind the gateway were registered afterwards; replay the dead letter")
	}
	return d
}
