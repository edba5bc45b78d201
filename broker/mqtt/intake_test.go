package mqtt

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
)

// TestPacketsInPieces: wherever what a device sends is cut into pieces, every message is taken
// once and in order, those that mochi never sees and those between them that it does.
func TestPacketsInPieces(t *testing.T) {
	for _, version := range []byte{4, 5} {
		var all bytes.Buffer
		var want []citywarden.Uplink
		var acks []byte
		id := uint16(0)
		publish := func(topic, payload string, qos byte, opts ...publishOption) {
			pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}, ProtocolVersion: version, TopicName: topic, Payload: []byte(payload)}
			if qos > 0 {
				id++
				pk.PacketID = id
				acks = append(acks, map[byte]byte{1: packets.Puback, 2: packets.Pubrec}[qos])
			}
			for _, o := range opts {
				o(&pk)
			}
			if err := pk.PublishEncode(&all); err != nil {
				t.Fatal(err)
			}
			if topic == "" {
				topic = telemetryTopic // of the alias
			}
			want = append(want, citywarden.Uplink{Device: "a", Protocol: "mqtt", Topic: topic, Payload: []byte(payload)})
		}
		ping := func() {
			if err := (&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}}).PingreqEncode(&all); err != nil {
				t.Fatal(err)
			}
		}
		publish(telemetryTopic, "1", 1)
		publish(attributesTopic, "2", 1)
		ping()
		publish(telemetryTopic, "without an answer", 0)
		publish(citywarden.GatewayConnect, "4", 1) // by mochi
		publish(telemetryTopic, "", 1)
		publish(citywarden.DeviceRaw, strings.Repeat("6", intakeBytes), 1)
		publish(telemetryTopic, strings.Repeat("7", 3*intakeBytes+1), 1)
		publish(telemetryTopic, "8", 2)
		ping()
		publish(telemetryTopic, "9", 1)
		if version == 5 {
			publish(telemetryTopic, "10", 1, alias(3))
			publish("", "11", 1, alias(3))
		}
		publish(citywarden.GatewayTelemetry, "12", 1)
		stream := all.Bytes()
		for _, piece := range []int{1, 2, 3, 5, 7, 64, intakeBytes - 1, intakeBytes, len(stream)} {
			t.Run(fmt.Sprintf("version %d, %d bytes", version, piece), func(t *testing.T) {
				t.Parallel()
				j := newJournal()
				addr, _, _ := serveTCP(t, j)
				p := dial(t, addr, version).login("x", "a")
				go func() {
					for rest := stream; len(rest) > 0; {
						n := min(piece, len(rest))
						if _, err := p.conn.Write(rest[:n]); err != nil {
							return // the test says that something is missing
						}
						if rest = rest[n:]; piece < 8 && len(stream)-len(rest) < 600 {
							time.Sleep(100 * time.Microsecond) // so that they are read one by one
						}
					}
				}()
				var got []byte
				for pings := 0; len(got) < len(acks) || pings < 2; {
					pk, err := p.next()
					if err != nil {
						t.Fatalf("after %d acknowledgements: %v", len(got), err)
					}
					if pk.FixedHeader.Type == packets.Pingresp {
						pings++
						continue
					}
					if got = append(got, pk.FixedHeader.Type); int(pk.PacketID) != len(got) || pk.ReasonCode != 0 {
						t.Errorf("acknowledgement %d is of message %d, with code %#x", len(got), pk.PacketID, pk.ReasonCode)
					}
				}
				if d := cmp.Diff(acks, got); d != "" {
					t.Error(d)
				}
				if d := cmp.Diff(want, j.wait(t, len(want)), ignoreReceived); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

// TestBrokenPublish: what no PUBLISH may be ends the connection, and nothing of it is taken.
func TestBrokenPublish(t *testing.T) {
	body := func(topic string, rest ...byte) []byte {
		return append(append([]byte{0, byte(len(topic))}, topic...), rest...)
	}
	for name, packet := range map[string][]byte{
		"no packet id":           append([]byte{0x32, byte(2 + len(telemetryTopic))}, body(telemetryTopic)...),
		"packet id 0":            append([]byte{0x32, byte(4 + len(telemetryTopic))}, body(telemetryTopic, 0, 0)...),
		"QoS 3":                  append([]byte{0x36, byte(4 + len(telemetryTopic))}, body(telemetryTopic, 0, 1)...),
		"topic beyond the end":   {0x32, 4, 0, 40, 0, 1},
		"a length of five bytes": {0x32, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"longer than is taken":   {0x32, 0xff, 0xff, 0x7f},
		"nothing":                {0x32, 0},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJournal()
			addr, _, _ := serveTCP(t, j)
			p := dial(t, addr, 4).login("x", "a")
			if _, err := p.conn.Write(packet); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if p.closed(); time.Since(begin) > 10*time.Second {
				t.Error("the connection goes on")
			}
			j.mu.Lock()
			defer j.mu.Unlock()
			if len(j.taken) > 0 {
				t.Errorf("taken: %+v", j.taken)
			}
		})
	}
}
