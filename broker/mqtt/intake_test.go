package mqtt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
	"weak"

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
			want = append(want, citywarden.Uplink{Device: "a", Protocol: "mqtt", Topic: topic, Payload: []byte(payload), Untold: qos == 0})
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

// TestKeepAliveWhileSending: who sends without a pause is not silent, also when each read ends in the
// middle of a message, and when the messages are held up longer than the keep-alive.
func TestKeepAliveWhileSending(t *testing.T) {
	var b bytes.Buffer
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, ProtocolVersion: 4, TopicName: telemetryTopic, Payload: []byte(`{"level":1}`)}
	if err := pk.PublishEncode(&b); err != nil {
		t.Fatal(err)
	}
	message := b.Bytes()
	half := len(message) / 2
	t.Run("in halves", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			j, ln := newJournal(), newPipeListener()
			book, stop := serve(t, ln, j)
			p := pipePeer(t, ln, 4).login("x", "a", keepAlive(2))
			rest := message[:0]
			const n = 40
			for range n {
				if _, err := p.conn.Write(slices.Concat(rest, message[:half])); err != nil {
					t.Fatalf("%v\n%s", err, book)
				}
				rest = message[half:]
				time.Sleep(time.Second)
			}
			j.wait(t, n-1)
			_ = p.conn.Close()
			stop()
		})
	})
	for name, next := range map[string][]byte{
		"":                             nil,
		"before half a message":        message[:half],
		"before half a payload":        message[:len(message)-2],
		"before half a packet of else": {packets.Subscribe<<4 | 2, 40, 0, 1},
	} {
		t.Run("held up "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				held := slowly(func() { time.Sleep(4 * time.Second) })
				ln := newPipeListener()
				book, _ := serve(t, ln, held)
				p := pipePeer(t, ln, 4).login("x", "a", keepAlive(2))
				begin := time.Now()
				_, _ = p.conn.Write(slices.Concat(message, next))
				_ = p.conn.SetReadDeadline(time.Time{})
				_, _ = io.Copy(io.Discard, p.conn)
				if d := time.Since(begin); d != 7*time.Second { // 4 and 1.5 times 2
					t.Errorf("the connection ended after %s\n%s", d, book)
				}
			})
		})
	}
}

// slowly is an acceptor that does something before it takes a message.
type slowly func()

func (s slowly) Accept(_ context.Context, _ citywarden.Uplink, done func(error)) {
	s()
	done(nil)
}

// TestRevokedInTheMiddle: of messages that came together, those after the end of the credential are
// not taken: it is told, or has gone by while they were held up.
func TestRevokedInTheMiddle(t *testing.T) {
	for _, told := range []bool{true, false} {
		t.Run(fmt.Sprintf("told %v", told), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := keys{fickle: &fickle{journal: newJournal()}, shelf: &shelf{}}
				n, want := 0, 2
				if !told {
					want = int(lookEvery/(20*time.Millisecond)) + 1
				}
				k.each = func() {
					if n++; n == 2 {
						k.fickle.mu.Lock()
						k.err = citywarden.Errorf(citywarden.CodeUnauthenticated, "the token has ended")
						k.fickle.mu.Unlock()
						if told {
							k.pass(place{"a", citywarden.DownlinkRevoked}, citywarden.Downlink{Device: "a", Kind: citywarden.DownlinkRevoked})
						}
					}
					time.Sleep(20 * time.Millisecond)
				}
				ln := newPipeListener()
				book, _ := serve(t, ln, k)
				p := pipePeer(t, ln, 4).login("x", "a")
				var all bytes.Buffer
				for range 20 {
					pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, ProtocolVersion: 4, TopicName: telemetryTopic, Payload: []byte("1")}
					if err := pk.PublishEncode(&all); err != nil {
						t.Fatal(err)
					}
				}
				_, _ = p.conn.Write(all.Bytes())
				p.closed()
				if got := len(k.wait(t, want)); got != want {
					t.Errorf("%d messages were taken, want %d\n%s", got, want, book)
				}
			})
		})
	}
}

// keys is fickle, with something to do before each message.
type keys struct {
	*fickle
	*shelf
	each func()
}

func (k keys) Accept(ctx context.Context, up citywarden.Uplink, done func(error)) {
	k.each()
	k.fickle.Accept(ctx, up, done)
}

// forgetful is an acceptor that keeps nothing of a message.
type forgetful chan weak.Pointer[byte]

func (f forgetful) Accept(_ context.Context, up citywarden.Uplink, done func(error)) {
	f <- weak.Make(unsafe.SliceData(up.Payload))
	done(nil)
}

// TestIdleConnectionKeepsNoMessage: once a message is acknowledged, its connection does not hold it in memory.
func TestIdleConnectionKeepsNoMessage(t *testing.T) {
	f := make(forgetful, 1)
	addr, _, _ := serveTCP(t, f)
	p := dial(t, addr, 5).login("x", "a")
	p.publish(telemetryTopic, strings.Repeat("x", maxPacket/2), 1, 1)
	p.read(packets.Puback)
	message := <-f
	eventually(t, func() error {
		if runtime.GC(); message.Value() != nil {
			return errors.New("the payload is in memory still")
		}
		return nil
	})
	p.ping() // the connection is there
}
