package mqtt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
)

var ignoreReceived = cmpopts.IgnoreFields(citywarden.Uplink{}, "Received")

func telemetry(device citywarden.DeviceID, payload string) citywarden.Uplink {
	return citywarden.Uplink{Device: device, Protocol: "mqtt", Topic: telemetryTopic, Payload: []byte(payload)}
}

func pahoClient(t *testing.T, o *paho.ClientOptions) paho.Client {
	t.Helper()
	c := paho.NewClient(o.SetAutoReconnect(false).SetConnectTimeout(10 * time.Second))
	if tok := c.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func TestPahoOverTCP(t *testing.T) {
	j := newJournal()
	addr, _, _ := serveTCP(t, j)
	c := pahoClient(t, paho.NewClientOptions().AddBroker("tcp://"+addr).SetClientID("x").SetUsername("token-of-mh-1"))
	for qos := range byte(3) {
		tok := c.Publish(telemetryTopic, qos, false, fmt.Sprintf(`{"level":%d}`, qos))
		if !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatalf("QoS %d: not acknowledged: %v", qos, tok.Error())
		}
	}
	want := []citywarden.Uplink{telemetry("mh-1", `{"level":0}`), telemetry("mh-1", `{"level":1}`), telemetry("mh-1", `{"level":2}`)}
	want[0].Untold = true
	got := j.wait(t, 3)
	if d := cmp.Diff(want, got, ignoreReceived); d != "" {
		t.Error(d)
	}
	if age := time.Since(got[0].Received); age < 0 || age > time.Minute || got[0].Received.Location() != time.UTC {
		t.Errorf("Received = %v", got[0].Received)
	}
}

func TestPahoOverPipeInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, ln := newJournal(), newPipeListener()
		serve(t, ln, j)
		c := pahoClient(t, paho.NewClientOptions().AddBroker("tcp://pipe").SetClientID("x").SetUsername("token-of-mh-1").
			SetKeepAlive(30*time.Second).
			SetCustomOpenConnectionFn(func(_ *url.URL, _ paho.ClientOptions) (net.Conn, error) { return ln.dial() }))
		for range 3 {
			time.Sleep(time.Hour) // virtual: kept alive by paho's pings
			if tok := c.Publish(telemetryTopic, 1, false, "{}"); !tok.WaitTimeout(time.Minute) || tok.Error() != nil {
				t.Fatalf("not acknowledged: %v", tok.Error())
			}
		}
		got := j.wait(t, 3)
		if d := got[2].Received.Sub(got[0].Received); d != 2*time.Hour {
			t.Errorf("the messages are %v apart, want 2h", d)
		}
	})
}

func TestMosquitto(t *testing.T) {
	pub, err := exec.LookPath("mosquitto_pub")
	if err != nil {
		t.Skip("mosquitto_pub is not installed (Debian: mosquitto-clients)")
	}
	j := newJournal()
	addr, book, _ := serveTCP(t, j)
	host, port, _ := net.SplitHostPort(addr)
	args := func(version, qos, token string) []string {
		return []string{"-h", host, "-p", port, "-V", version, "-u", token, "-t", telemetryTopic, "-q", qos, "-m", "{}"}
	}
	n := 0
	for _, version := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		for _, qos := range []string{"0", "1", "2"} {
			if out, err := exec.Command(pub, args(version, qos, "token-of-mh-1")...).CombinedOutput(); err != nil {
				t.Errorf("%s QoS %s: %v: %s", version, qos, err, out)
			}
			n++
			j.wait(t, n)
		}
		out, err := exec.Command(pub, args(version, "1", "not-a-token")...).CombinedOutput()
		if err == nil || !strings.Contains(strings.ToLower(string(out)), "not authori") {
			t.Errorf("%s with a wrong token: %v: %s", version, err, out)
		}
	}
	book.mustSay(t, "connection refused", `access token \"not-\"… is unknown`, "POST /api/v1/devices/{id}/credentials")
}

func TestConnectRefused(t *testing.T) {
	for _, c := range []struct {
		name, token  string
		opts         []connectOption
		code3, code5 byte
		says         string
	}{
		{"unknown token", "0123456789abcdef", nil, 5, 0x87, `is unknown`},
		{"no token", "", nil, 5, 0x87, "set the device's access token as the MQTT user name"},
		{"disabled device", "token-of-disabled", nil, 5, 0x87, "device disabled is disabled"},
		{"will on another device's topic", "token-of-a", []connectOption{will("v1/devices/b/telemetry", "x")}, 5, 0x87, "will topic"},
		{"will on a system topic", "token-of-a", []connectOption{will("$SYS/broker/version", "x")}, 5, 0x87, "will topic"},
	} {
		for version, code := range map[byte]byte{4: c.code3, 5: c.code5} {
			t.Run(fmt.Sprintf("%s, version %d", c.name, version), func(t *testing.T) {
				addr, book, _ := serveTCP(t, newJournal())
				p := dial(t, addr, version)
				ack := p.connect("x", c.token, c.opts...)
				if ack.ReasonCode != code {
					t.Errorf("code %#x, want %#x", ack.ReasonCode, code)
				}
				if version == 5 && !strings.Contains(ack.Properties.ReasonString, c.says) {
					t.Errorf("reason %q does not say %q", ack.Properties.ReasonString, c.says)
				}
				p.closed()
				book.mustSay(t, "connection refused", c.says)
				if len(c.token) > 8 && strings.Contains(book.String(), c.token) {
					t.Errorf("the log shows the token:\n%s", book)
				}
			})
		}
	}
}

// A device may have a user name and password instead of a token, for one client id
// or for any.
func TestUserAndPassword(t *testing.T) {
	for _, c := range []struct {
		client, user, password string
		device                 citywarden.DeviceID // "" when it is refused
	}{
		{"x", "meter", "open sesame", "m"},
		{"y", "meter", "open sesame", "m"},
		{"bay-7", "bay", "open sesame", "p"},
		{"bay-8", "bay", "open sesame", ""},
		{"bay-7", "bay", "Open sesame", ""},
		{"bay-7", "bay", "", ""},
		{"x", "token-of-a", "whatever", "a"}, // as ever
	} {
		for _, version := range []byte{4, 5} {
			j := newJournal()
			addr, book, _ := serveTCP(t, j)
			p := dial(t, addr, version)
			ack := p.connect(c.client, c.user, password(c.password))
			if c.device == "" {
				if p.closed(); ack.ReasonCode == 0 {
					t.Errorf("%q %q: let in", c.client, c.user)
				}
				if strings.Contains(book.String(), "esame") {
					t.Errorf("%q %q: the log shows the password:\n%s", c.client, c.user, book)
				}
				continue
			}
			if ack.ReasonCode != 0 {
				t.Errorf("%q %q: refused with %#x %s", c.client, c.user, ack.ReasonCode, ack.Properties.ReasonString)
				continue
			}
			p.publish(telemetryTopic, "1", 1, 1)
			p.read(packets.Puback)
			if d := cmp.Diff([]citywarden.Uplink{telemetry(c.device, "1")}, j.wait(t, 1), ignoreReceived); d != "" {
				t.Error(d)
			}
		}
	}
}

// An attacker that may not connect must not cost memory or time.
func TestBeforeAuthentication(t *testing.T) {
	for _, c := range []struct {
		name string
		send []byte
		says string
	}{
		{"oversized CONNECT", []byte{0x10, 0xff, 0xff, 0xff, 0x7f}, "more than 16384 bytes"},
		{"length without end", []byte{0x10, 0xff, 0xff, 0xff, 0xff, 0xff}, "more than 16384 bytes"},
		{"PUBLISH first", []byte{0x30, 0x02, 0x00, 0x00}, "the first packet must be CONNECT"},
		{"TLS", []byte{0x16, 0x03, 0x01, 0x02, 0x00}, "TLS handshake"},
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), "this is not MQTT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, book, _ := serveTCP(t, newJournal())
			p := dial(t, addr, 4)
			if _, err := p.conn.Write(c.send); err != nil {
				t.Fatal(err)
			}
			p.closed()
			book.mustSay(t, "connection refused", c.says)
		})
	}
	t.Run("slow CONNECT", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ln := newPipeListener()
			book, _ := serve(t, ln, newJournal())
			c, err := ln.dial()
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_, _ = io.Copy(io.Discard, c)
			}()
			connect := []byte{0x10, 0x20}
			for i := 0; ; i++ { // a byte every 3 s must not keep it open
				b := byte(0)
				if i < len(connect) {
					b = connect[i]
				}
				if _, err := c.Write([]byte{b}); err != nil {
					break
				}
				time.Sleep(3 * time.Second)
			}
			<-ended
			if d := time.Since(start); d > connectTimeout+3*time.Second {
				t.Errorf("closed after %v, want %v", d, connectTimeout)
			}
			book.mustSay(t, "no complete CONNECT packet within 10s")
		})
	})
}

func TestPublishElsewhereIsRefused(t *testing.T) {
	topics := []string{"v1/devices/b/telemetry", "v1/devices/me/telemetry/extra", "V1/devices/me/telemetry", "/v1/devices/me/telemetry",
		"v1/gateway/other", "$SYS/broker/version", "$share/g", "$other", "a", strings.Repeat("x", 60000)}
	for _, topic := range topics {
		for qos := range byte(3) {
			name := fmt.Sprintf("%.30s QoS %d", topic, qos)
			t.Run(name+" version 5", func(t *testing.T) {
				j := newJournal()
				addr, book, _ := serveTCP(t, j)
				p := dial(t, addr, 5).login("x", "a")
				p.publish(topic, "{}", qos, uint16(min(qos, 1)))
				if qos > 0 {
					ack := p.read([]byte{1: packets.Puback, 2: packets.Pubrec}[qos])
					if ack.ReasonCode != 0x87 || !strings.Contains(ack.Properties.ReasonString, "may publish to v1/devices/me/telemetry") {
						t.Errorf("answered %#x %q, want 0x87 and what is allowed", ack.ReasonCode, ack.Properties.ReasonString)
					}
				}
				p.publish(telemetryTopic, "good", 1, 2)
				p.read(packets.Puback)
				if d := cmp.Diff([]citywarden.Uplink{telemetry("a", "good")}, j.wait(t, 1), ignoreReceived); d != "" {
					t.Error(d)
				}
				book.mustSay(t, "uplink refused", "device=a")
			})
			t.Run(name+" version 3.1.1", func(t *testing.T) {
				j := newJournal()
				addr, book, _ := serveTCP(t, j)
				p := dial(t, addr, 4).login("x", "a")
				p.publish(topic, "{}", qos, uint16(min(qos, 1)))
				if qos > 0 {
					p.closed() // there is no other way to say no
				} else {
					p.ping()
				}
				book.mustSay(t, "uplink refused", "device=a", "may publish to")
				if got := j.wait(t, 0); len(got) > 0 {
					t.Errorf("taken: %v", got)
				}
			})
		}
	}
}

func TestSubscribe(t *testing.T) {
	addr, book, _ := serveTCP(t, newJournal())
	allowed := []string{rpcFilter, attributesTopic, attributesFilter}
	refused := []string{"#", "+/devices/me/attributes", "v1/devices/me/#", "v1/devices/+/attributes", "v1/devices/b/attributes",
		telemetryTopic, "$SYS/#", "$share/g/" + attributesTopic, "v1/devices/me/rpc/request/#", rpcFilter + "/extra"}
	for _, version := range []byte{4, 5} {
		p := dial(t, addr, version).login("x", "a")
		if ack := p.subscribe(allowed...); string(ack.ReasonCodes) != "\x01\x01\x01" {
			t.Errorf("version %d: allowed filters answered %x", version, ack.ReasonCodes)
		}
		for _, f := range refused {
			ack := p.subscribe(f)
			if string(ack.ReasonCodes) != "\x80" {
				t.Errorf("version %d: %s answered %x, want 80", version, f, ack.ReasonCodes)
			}
			if version == 5 && !strings.Contains(ack.Properties.ReasonString, "may subscribe to") {
				t.Errorf("%s: reason %q", f, ack.Properties.ReasonString)
			}
		}
	}
	book.mustSay(t, "subscription refused", "filter=#", "device=a")
}

// TestSubscriptionsAreBounded: a connection has so many subscriptions, also where a device may
// name its topics itself, and filters have a length.
func TestSubscriptionsAreBounded(t *testing.T) {
	addr, book, _ := serveTCP(t, newJournal())
	p := dial(t, addr, 5).login("x", "a")
	var filters []string
	for i := range maxSubscriptions + 2 {
		filters = append(filters, fmt.Sprintf("spBv1.0/g/DCMD/n/d-%d", i))
	}
	want := strings.Repeat("\x01", maxSubscriptions) + "\x80\x80"
	if ack := p.subscribe(filters...); string(ack.ReasonCodes) != want {
		t.Errorf("answered %x", ack.ReasonCodes)
	}
	for filter, want := range map[string]string{filters[0]: "\x01", rpcFilter: "\x80", "v2/fw/response/1/chunk/+": "\x80"} {
		if ack := p.subscribe(filter); string(ack.ReasonCodes) != want {
			t.Errorf("%s answered %x", filter, ack.ReasonCodes)
		}
	}
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, ProtocolVersion: 5, PacketID: 7, Filters: packets.Subscriptions{{Filter: filters[0]}}}
	p.write(pk.UnsubscribeEncode)
	p.read(packets.Unsuback)
	long := "spBv1.0/g/DCMD/n/" + strings.Repeat("d", maxTopic)
	for _, c := range []struct{ filter, want string }{{long, "\x80"}, {rpcFilter, "\x01"}, {filters[0], "\x80"}} {
		if ack := p.subscribe(c.filter); string(ack.ReasonCodes) != c.want {
			t.Errorf("%.40s answered %x", c.filter, ack.ReasonCodes)
		}
	}
	book.mustSay(t, "a connection has 128 subscriptions at most")
}

// What one device publishes never reaches another, whatever it subscribed to.
func TestNoFanOut(t *testing.T) {
	j := newJournal()
	addr, _, _ := serveTCP(t, j)
	watcher := dial(t, addr, 5).login("w", "b")
	watcher.subscribe(attributesTopic)
	p := dial(t, addr, 5).login("x", "a")
	p.publish(attributesTopic, `{"secret":1}`, 1, 1, func(pk *packets.Packet) { pk.FixedHeader.Retain = true })
	p.read(packets.Puback)
	watcher.ping()
	watcher.subscribe(attributesTopic) // retained messages would come now
	watcher.ping()
}

func TestWill(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*peer)
		want bool
	}{
		{"connection lost", func(p *peer) { _ = p.conn.Close() }, true},
		{"DISCONNECT", func(p *peer) {
			pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ProtocolVersion: p.version}
			p.write(pk.DisconnectEncode)
			p.closed()
		}, false},
		{"DISCONNECT with will", func(p *peer) {
			pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ProtocolVersion: p.version, ReasonCode: 4}
			p.write(pk.DisconnectEncode)
			p.closed()
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := newJournal()
			addr, book, _ := serveTCP(t, j)
			p := dial(t, addr, 5).login("x", "a", will(attributesTopic, `{"online":false}`))
			c.end(p)
			book.mustSay(t, "device disconnected")
			want := []citywarden.Uplink(nil)
			if c.want {
				want = []citywarden.Uplink{{Device: "a", Protocol: citywarden.ProtocolWill, Topic: attributesTopic, Payload: []byte(`{"online":false}`)}}
			}
			if d := cmp.Diff(want, j.wait(t, len(want)), ignoreReceived); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestClientIDBelongsToCredential(t *testing.T) {
	j := newJournal()
	addr, _, _ := serveTCP(t, j)
	a := dial(t, addr, 4).login("ESP8266Client", "a")
	b := dial(t, addr, 4).login("ESP8266Client", "b")
	a.ping() // b has not taken it over
	b.ping()

	again := dial(t, addr, 4).login("ESP8266Client", "a", will(attributesTopic, "bye"))
	a.closed() // the same device has [MQTT-3.1.4-2]
	again.ping()
	b.ping()
}

// fickle is a journal whose registry changes its mind about the token of "a".
type fickle struct {
	registry
	*journal
	mu  sync.Mutex
	now citywarden.DeviceID
	err error

	asked int
}

func (f *fickle) Authenticate(token string) (citywarden.DeviceID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if token == "token-of-a" && (f.now != "" || f.err != nil) {
		return f.now, f.err
	}
	return registry{}.Authenticate(token)
}

// TestRevokedAtOnce: a device that says nothing is disconnected when its token is
// revoked, and one whose token is still good stays.
func TestRevokedAtOnce(t *testing.T) {
	for _, version := range []byte{4, 5} {
		f := &fickle{journal: newJournal()}
		down := &shelf{}
		addr, _, _ := serveTCP(t, struct {
			shelved
			Authenticator
		}{shelved{f.journal, down}, f})
		a, b := dial(t, addr, version).login("x", "a"), dial(t, addr, version).login("y", "b")
		revoke := func(id citywarden.DeviceID) {
			down.pass(place{id, citywarden.DownlinkRevoked}, citywarden.Downlink{Device: id, Kind: citywarden.DownlinkRevoked})
		}
		revoke("a") // its token is as good as ever
		a.ping()
		f.mu.Lock()
		f.err = citywarden.Errorf(citywarden.CodeUnauthenticated, "unknown token")
		f.mu.Unlock()
		revoke("a")
		revoke("b")
		if d := a.closed(); version == 5 && d.ReasonCode != packets.ErrNotAuthorized.Code {
			t.Errorf("disconnected with %#x", d.ReasonCode)
		}
		b.ping()
		eventually(t, func() error {
			if n := down.pass(place{"a", citywarden.DownlinkRevoked}, citywarden.Downlink{Device: "a"}); n > 0 {
				return fmt.Errorf("the session is still watched")
			}
			return nil
		})
	}
}

// TestRevokedWhileConnected: a session is worth as much as its token is now.
func TestRevokedWhileConnected(t *testing.T) {
	for _, c := range []struct {
		name string
		now  citywarden.DeviceID
		err  error
	}{
		{"token replaced or device deleted", "", citywarden.Errorf(citywarden.CodeUnauthenticated, "unknown token")},
		{"device disabled", "", citywarden.Errorf(citywarden.CodeDenied, "device a is disabled")},
		{"token given to another device", "b", nil},
	} {
		for _, version := range []byte{4, 5} {
			t.Run(fmt.Sprintf("%s, version %d", c.name, version), func(t *testing.T) {
				f := &fickle{journal: newJournal()}
				addr, book, _ := serveTCP(t, f)
				publisher := dial(t, addr, version).login("p", "a", will(telemetryTopic, "lost"))
				idle := dial(t, addr, version).login("i", "a")
				other := dial(t, addr, version).login("o", "c")
				publisher.publish(telemetryTopic, "1", 1, 1)
				publisher.read(packets.Puback)
				f.mu.Lock()
				f.now, f.err = c.now, c.err
				f.mu.Unlock()
				publisher.publish(telemetryTopic, "2", 1, 2)
				d := publisher.closed()
				if version == 5 && (d.ReasonCode != packets.ErrNotAuthorized.Code || d.Properties.ReasonString == "") {
					t.Errorf("DISCONNECT %#x %q", d.ReasonCode, d.Properties.ReasonString)
				}
				idle.write((&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}}).PingreqEncode)
				idle.closed()
				book.mustSay(t, "access token or certificate is not valid any more", "device=a")
				other.publish(telemetryTopic, "3", 1, 1)
				other.read(packets.Puback)
				want := []citywarden.Uplink{telemetry("a", "1"), telemetry("c", "3")}
				if d := cmp.Diff(want, f.wait(t, 2), ignoreReceived); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

// TestRegistryAwayWhileConnected: when the token can't be checked the session
// stays as it is.
func TestRegistryAwayWhileConnected(t *testing.T) {
	f := &fickle{journal: newJournal()}
	addr, _, _ := serveTCP(t, f)
	p := dial(t, addr, 4).login("p", "a")
	f.mu.Lock()
	f.err = citywarden.Errorf(citywarden.CodeTransient, "database is locked")
	f.mu.Unlock()
	p.publish(telemetryTopic, "1", 1, 1)
	p.read(packets.Puback)
}

// TestTooManyMessages: what comes too fast is answered with 0x97 in MQTT 5, and in MQTT 3.1.1 the
// connection ends without an acknowledgement. With QoS 0 the pipeline is told that nobody waits for an answer, and
// should it refuse it nevertheless, the connection ends.
func TestTooManyMessages(t *testing.T) {
	for _, tt := range []struct{ version, qos byte }{{5, 1}, {5, 2}, {5, 0}, {4, 1}, {4, 0}} {
		j := newJournal()
		var untold atomic.Bool
		j.fail = func(up citywarden.Uplink) error {
			untold.Store(up.Untold)
			return citywarden.Errorf(citywarden.CodeLimited, "%w", &citywarden.LimitError{Reason: "device a sends more than the 1/1m messages", After: time.Minute})
		}
		addr, book, _ := serveTCP(t, j)
		p := dial(t, addr, tt.version).login("p", "a")
		p.publish(telemetryTopic, "{}", tt.qos, 1)
		switch {
		case tt.version == 5 && tt.qos > 0:
			if ack := p.read(map[byte]byte{1: packets.Puback, 2: packets.Pubrec}[tt.qos]); ack.ReasonCode != 0x97 || !strings.Contains(ack.Properties.ReasonString, "more than the 1/1m messages; come again in 1m0s") {
				t.Errorf("%+v: %#x %q", tt, ack.ReasonCode, ack.Properties.ReasonString)
			}
		case tt.version == 5:
			if d := p.closed(); d.ReasonCode != 0x97 {
				t.Errorf("%+v: DISCONNECT %#x", tt, d.ReasonCode)
			}
		default:
			p.closed()
		}
		book.mustSay(t, "the device sends too much")
		if untold.Load() != (tt.qos == 0) { // with QoS 0 the pipeline makes a dead letter of it and refuses nothing
			t.Errorf("%+v: the pipeline is told that nobody waits for an answer: %t", tt, untold.Load())
		}
	}
}

func TestTopicAlias(t *testing.T) {
	t.Run("unknown", func(t *testing.T) {
		j := newJournal()
		addr, book, _ := serveTCP(t, j)
		p := dial(t, addr, 5).login("x", "a")
		p.publish("", "{}", 1, 1, alias(3))
		if d := p.closed(); d.ReasonCode != 0x94 {
			t.Errorf("DISCONNECT %#x, want 0x94", d.ReasonCode)
		}
		book.mustSay(t, "topic alias 3 was never set")
		if got := j.wait(t, 0); len(got) > 0 {
			t.Errorf("taken: %v", got)
		}
	})
	t.Run("known", func(t *testing.T) {
		j := newJournal()
		addr, _, _ := serveTCP(t, j)
		p := dial(t, addr, 5)
		if ack := p.connect("x", "token-of-a"); ack.Properties.TopicAliasMaximum != maxAliases || ack.Properties.MaximumPacketSize != maxPacket ||
			ack.Properties.ReceiveMaximum != maxInFlight {
			t.Errorf("CONNACK tells %+v", ack.Properties)
		}
		p.publish(telemetryTopic, "1", 1, 1, alias(3))
		p.publish("", "2", 1, 2, alias(3))
		p.read(packets.Puback)
		p.read(packets.Puback)
		if d := cmp.Diff([]citywarden.Uplink{telemetry("a", "1"), telemetry("a", "2")}, j.wait(t, 2), ignoreReceived); d != "" {
			t.Error(d)
		}
	})
	t.Run("of a long topic", func(t *testing.T) {
		j := newJournal()
		addr, book, _ := serveTCP(t, j)
		p := dial(t, addr, 5)
		p.connect("x", "token-of-gw")
		topic := "spBv1.0/county/DDATA/e1/" + strings.Repeat("d", 200)
		p.publish(topic, "1", 1, 1, alias(3))
		p.publish("", "2", 1, 2, alias(3))
		for _, up := range j.wait(t, 2) {
			if up.Topic != citywarden.GatewaySparkplug+"DDATA/"+topic[len(topic)-200:] {
				t.Errorf("into the log went %s", up.Topic)
			}
		}
		p.read(packets.Puback)
		p.read(packets.Puback)
		p.publish(topic+strings.Repeat("d", maxTopic), "1", 1, 3, alias(3))
		if ack := p.read(packets.Puback); ack.ReasonCode != 0x87 {
			t.Errorf("PUBACK %#x, want 0x87", ack.ReasonCode)
		}
		p.publish("", "2", 1, 4, alias(3))
		if d := p.closed(); d.ReasonCode != 0x94 {
			t.Errorf("DISCONNECT %#x, want 0x94", d.ReasonCode)
		}
		book.mustSay(t, "at most 1024 are taken")
	})
	t.Run("of a foreign topic", func(t *testing.T) {
		j := newJournal()
		addr, _, _ := serveTCP(t, j)
		p := dial(t, addr, 5).login("x", "a")
		p.publish("v1/devices/b/telemetry", "1", 1, 1, alias(3))
		p.publish("", "2", 1, 2, alias(3))
		for range 2 {
			if ack := p.read(packets.Puback); ack.ReasonCode != 0x87 {
				t.Errorf("PUBACK %#x, want 0x87", ack.ReasonCode)
			}
		}
		if got := j.wait(t, 0); len(got) > 0 {
			t.Errorf("taken: %v", got)
		}
	})
}

func TestAcknowledgedOnlyWhenDurable(t *testing.T) {
	for _, version := range []byte{4, 5} {
		for _, qos := range []byte{1, 2} {
			t.Run(fmt.Sprintf("version %d QoS %d", version, qos), func(t *testing.T) {
				j := newJournal()
				j.hold = func(citywarden.Uplink) bool { return true }
				addr, _, _ := serveTCP(t, j)
				p := dial(t, addr, version).login("x", "a")
				p.publish(telemetryTopic, "1", qos, 7)
				j.wait(t, 1)
				p.ping() // nothing came before the answer to it
				for _, done := range j.release() {
					done(nil)
					done(errors.New("a second time")) // must not matter
				}
				if ack := p.read([]byte{1: packets.Puback, 2: packets.Pubrec}[qos]); ack.PacketID != 7 || ack.ReasonCode != 0 {
					t.Errorf("acknowledged %d with %#x", ack.PacketID, ack.ReasonCode)
				}
			})
		}
	}
}

func TestQoS2StoredOnce(t *testing.T) {
	j := newJournal()
	addr, _, _ := serveTCP(t, j)
	p := dial(t, addr, 5).login("x", "a")
	pubrel := func() byte {
		pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, ProtocolVersion: 5, PacketID: 7}
		p.write(pk.PubrelEncode)
		return p.read(packets.Pubcomp).ReasonCode
	}
	for range 3 { // sent again, because a PUBREC got lost
		p.publish(telemetryTopic, "1", 2, 7)
		if ack := p.read(packets.Pubrec); ack.ReasonCode != 0 {
			t.Errorf("PUBREC %#x", ack.ReasonCode)
		}
	}
	if code := pubrel(); code != 0 {
		t.Errorf("PUBCOMP %#x, want 0", code)
	}
	if code := pubrel(); code != 0x92 {
		t.Errorf("second PUBCOMP %#x, want 0x92", code)
	}
	p.publish(telemetryTopic, "2", 2, 7) // the id is free again
	p.read(packets.Pubrec)
	if d := cmp.Diff([]citywarden.Uplink{telemetry("a", "1"), telemetry("a", "2")}, j.wait(t, 2), ignoreReceived); d != "" {
		t.Error(d)
	}
}

func TestQoS2NeverReleased(t *testing.T) {
	addr, book, _ := serveTCP(t, newJournal())
	p := dial(t, addr, 4).login("x", "a")
	for id := range uint16(maxUnreleased) {
		p.publish(telemetryTopic, "1", 2, id+1)
		p.read(packets.Pubrec)
	}
	p.publish(telemetryTopic, "1", 2, maxUnreleased+1)
	p.closed()
	book.mustSay(t, "wait for their PUBREL")
}

func TestStoreFailureDisconnectsWithoutAck(t *testing.T) {
	for _, version := range []byte{4, 5} {
		for i, qos := range []byte{1, 2, 1, 2} {
			full := citywarden.Errorf(citywarden.CodeTransient, "write to the log: disk is full") // as the pipeline has it
			if i > 1 {
				full = errors.New("disk is full") // of who knows where
			}
			t.Run(fmt.Sprintf("version %d QoS %d: %v", version, qos, full), func(t *testing.T) {
				j := newJournal()
				j.hold = func(citywarden.Uplink) bool { return true }
				addr, book, _ := serveTCP(t, j)
				p := dial(t, addr, version).login("x", "a")
				for id := range uint16(4) {
					p.publish(telemetryTopic, "1", qos, id+1)
				}
				j.wait(t, 4)
				held := j.release()
				held[1](full)
				held[2](nil) // durable, but must not be acknowledged before message 2
				held[0](nil)
				if ack := p.read([]byte{1: packets.Puback, 2: packets.Pubrec}[qos]); ack.PacketID != 1 {
					t.Errorf("acknowledged %d, want 1", ack.PacketID)
				}
				d := p.closed()
				if version == 5 && (d.ReasonCode != 0x89 || !strings.Contains(d.Properties.ReasonString, "send it again")) {
					t.Errorf("DISCONNECT %#x %q", d.ReasonCode, d.Properties.ReasonString)
				}
				book.mustSay(t, "uplink not stored", "disk is full", "device=a")
			})
		}
	}
}

func TestRefusedByThePipeline(t *testing.T) {
	j := newJournal()
	j.fail = func(citywarden.Uplink) error { return citywarden.Errorf(citywarden.CodeInvalid, "empty message") }
	addr, _, _ := serveTCP(t, j)
	p := dial(t, addr, 5).login("x", "a")
	p.publish(telemetryTopic, "", 1, 1)
	if ack := p.read(packets.Puback); ack.ReasonCode != 0x99 || ack.Properties.ReasonString != "empty message" {
		t.Errorf("PUBACK %#x %q", ack.ReasonCode, ack.Properties.ReasonString)
	}
	p3 := dial(t, addr, 4).login("y", "a")
	p3.publish(telemetryTopic, "", 1, 1)
	p3.closed() // a PUBACK would say that it is stored
}

// TestALongReasonIsCut: a text of MQTT has 65,535 bytes at most; with more of them the packet could not be read.
func TestALongReasonIsCut(t *testing.T) {
	j := newJournal()
	j.fail = func(up citywarden.Uplink) error {
		code := citywarden.CodeInvalid
		if string(up.Payload) == "too much" {
			code = citywarden.CodeLimited
		}
		return citywarden.Errorf(code, "-%s", strings.Repeat("错", 30000))
	}
	addr, _, _ := serveTCP(t, j)
	p := dial(t, addr, 5).login("x", "a")
	p.publish(telemetryTopic, "", 1, 1)
	ack := p.read(packets.Puback)
	p.publish(telemetryTopic, "too much", 0, 0)
	for _, reason := range []string{ack.Properties.ReasonString, p.read(packets.Disconnect).Properties.ReasonString} {
		if n := len(reason); n < 4000 || n > 4200 || !utf8.ValidString(reason) || !strings.HasPrefix(reason, "-错") || !strings.HasSuffix(reason, "错…") {
			t.Errorf("a reason of %d bytes: %.40q", n, reason)
		}
	}
}

// A device learns that its message is stored but can't be used where the
// protocol has words for it; an MQTT 3.1.1 device would send it again for ever.
func TestUnusableIsStoredAndExplained(t *testing.T) {
	for _, version := range []byte{4, 5} {
		for _, qos := range []byte{1, 2} {
			t.Run(fmt.Sprintf("version %d QoS %d", version, qos), func(t *testing.T) {
				j := newJournal()
				addr, book, _ := serveTCP(t, j)
				p := dial(t, addr, version).login("x", "a")
				var code byte
				reason := ""
				if version == 5 {
					code, reason = 0x99, "byte 1: expected {"
				}
				for id := range uint16(2) { // the id is free again after an error, PUBREL or not
					p.publish(telemetryTopic, fmt.Sprintf("bad %d", id), qos, 7)
					ack := p.read([]byte{1: packets.Puback, 2: packets.Pubrec}[qos])
					if ack.PacketID != 7 || ack.ReasonCode != code || ack.Properties.ReasonString != reason {
						t.Errorf("acknowledged %d with %#x %q, want 7 with %#x %q", ack.PacketID, ack.ReasonCode, ack.Properties.ReasonString, code, reason)
					}
					if version == 4 && qos == 2 {
						break
					}
				}
				p.publish(telemetryTopic, "good", 1, 8)
				if ack := p.read(packets.Puback); ack.PacketID != 8 || ack.ReasonCode != 0 {
					t.Errorf("acknowledged %d with %#x after that, want 8 with 0", ack.PacketID, ack.ReasonCode)
				}
				want := []citywarden.Uplink{telemetry("a", "bad 0"), telemetry("a", "bad 1"), telemetry("a", "good")}
				if version == 4 && qos == 2 {
					want = slices.Delete(want, 1, 2)
				}
				if d := cmp.Diff(want, j.wait(t, len(want)), ignoreReceived); d != "" {
					t.Error(d)
				}
				if version == 5 {
					book.mustSay(t, "message not usable", "byte 1: expected {")
				}
			})
		}
	}
}

func TestAcksKeepOrder(t *testing.T) {
	j := newJournal()
	j.hold = func(citywarden.Uplink) bool { return true }
	addr, _, _ := serveTCP(t, j)
	p := dial(t, addr, 5).login("x", "a")
	const n = 64
	for id := range uint16(n) {
		topic := telemetryTopic
		if id%8 == 3 {
			topic = "elsewhere" // refused at once, answered in its turn
		}
		p.publish(topic, "1", 1, id+1)
	}
	j.wait(t, n-n/8)
	p.ping()
	held := j.release()
	for i := len(held) - 1; i >= 0; i-- {
		held[i](nil)
	}
	for id := range uint16(n) {
		if ack := p.read(packets.Puback); ack.PacketID != id+1 || (ack.ReasonCode == 0x87) != (id%8 == 3) {
			t.Fatalf("acknowledged %d with %#x, want %d", ack.PacketID, ack.ReasonCode, id+1)
		}
	}
}

func TestOneWritePerCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, ln := newJournal(), newPipeListener()
		j.hold = func(citywarden.Uplink) bool { return true }
		serve(t, ln, j)
		p := pipePeer(t, ln, 4).login("x", "a")
		const n = 64
		for id := range uint16(n) {
			p.publish(telemetryTopic, "1", 1, id+1)
		}
		j.wait(t, n)
		held := j.release()
		for _, done := range held[1:] {
			done(nil)
		}
		held[0](nil)
		buf := make([]byte, 1000)
		got, err := p.conn.Read(buf) // a read takes what one write gave
		if err != nil || got != 4*n {
			t.Errorf("the first write had %d bytes (%v), want %d", got, err, 4*n)
		}
	})
}

func pipePeer(t *testing.T, ln *pipeListener, version byte) *peer {
	t.Helper()
	c, err := ln.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &peer{t: t, conn: c, r: bufio.NewReader(c), version: version}
}

func TestSlowClientDoesNotHoldUpOthers(t *testing.T) {
	j := newJournal()
	j.hold = func(up citywarden.Uplink) bool { return up.Device == "slow" }
	addr, _, _ := serveTCP(t, j)
	slow := dial(t, addr, 4).login("x", "slow")
	go func() { // more than may be in flight: its reading stops
		for id := range uint16(3 * maxInFlight) {
			slow.publish(telemetryTopic, "1", 1, id+1)
		}
	}()
	j.wait(t, maxInFlight)
	fast := dial(t, addr, 4).login("x", "fast")
	for id := range uint16(200) {
		fast.publish(telemetryTopic, "1", 1, id+1)
		fast.read(packets.Puback)
	}
	count := 0
	for _, up := range j.wait(t, maxInFlight+200) {
		if up.Device == "slow" {
			count++
		}
	}
	if count != maxInFlight {
		t.Errorf("%d messages of the slow device in flight, want %d", count, maxInFlight)
	}
	acked := 0
	for acked < 3*maxInFlight { // and it goes on when the log does
		for _, done := range j.release() {
			done(nil)
			slow.read(packets.Puback)
			acked++
		}
	}
}

func TestBytesInFlightAreBounded(t *testing.T) {
	j := newJournal()
	j.hold = func(citywarden.Uplink) bool { return true }
	addr, _, _ := serveTCP(t, j)
	p := dial(t, addr, 4).login("x", "a")
	const size, n = 200 << 10, 20
	go func() {
		for id := range uint16(n) {
			p.publish(telemetryTopic, strings.Repeat("x", size), 1, id+1)
		}
	}()
	for acked := 0; acked < n; {
		inFlight := len(j.wait(t, acked+1)) - acked
		if inFlight*size > maxInFlightBytes {
			t.Fatalf("%d bytes in flight, want at most %d", inFlight*size, maxInFlightBytes)
		}
		for _, done := range j.release() {
			done(nil)
			p.read(packets.Puback)
			acked++
		}
	}
}

func TestReceiveMaximum(t *testing.T) {
	j := newJournal()
	j.hold = func(citywarden.Uplink) bool { return true }
	addr, book, _ := serveTCP(t, j)
	p := dial(t, addr, 5).login("x", "a")
	for id := range uint16(maxInFlight + 1) {
		p.publish(telemetryTopic, "1", 1, id+1)
	}
	if d := p.closed(); d.ReasonCode != 0x93 {
		t.Errorf("DISCONNECT %#x, want 0x93", d.ReasonCode)
	}
	book.mustSay(t, "receive maximum")
}

func TestClientThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, ln := newJournal(), newPipeListener()
		serve(t, ln, j)
		p := pipePeer(t, ln, 4).login("x", "a", keepAlive(3600))
		p.publish(telemetryTopic, "1", 1, 1)
		j.wait(t, 1)
		start := time.Now()
		for { // its PUBACK is not taken
			time.Sleep(time.Second)
			if _, err := p.conn.Write([]byte{packets.Pingreq << 4, 0}); err != nil {
				break
			}
		}
		if d := time.Since(start); d > 7*time.Second {
			t.Errorf("disconnected after %v, want 5s", d)
		}
	})
}

func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		book, _ := serve(t, ln, newJournal())
		for _, c := range []struct {
			version byte
			asked   uint16
			told    uint16
			after   time.Duration
		}{
			{4, 60, 0, 90 * time.Second},
			{5, 0, idleKeepAlive, idleKeepAlive * 3 / 2 * time.Second},
			{4, 65535, 0, 65535 * time.Second},
		} {
			p := pipePeer(t, ln, c.version)
			ack := p.connect("x", "token-of-a", keepAlive(c.asked))
			if ack.Properties.ServerKeepAlive != c.told {
				t.Errorf("server keep-alive %d, want %d", ack.Properties.ServerKeepAlive, c.told)
			}
			start := time.Now()
			_ = p.conn.SetReadDeadline(time.Time{})
			if _, err := io.Copy(io.Discard, p.conn); err != nil {
				t.Error(err)
			}
			if d := time.Since(start); d != c.after {
				t.Errorf("keep-alive %d: disconnected after %v, want %v", c.asked, d, c.after)
			}
		}
		book.mustSay(t, "fell silent")
	})
}

func TestPacketTooLarge(t *testing.T) {
	j := newJournal()
	addr, book, _ := serveTCP(t, j)
	p := dial(t, addr, 4).login("x", "a")
	p.publish(telemetryTopic, strings.Repeat("x", maxPacket), 1, 1)
	p.closed()
	book.mustSay(t, "packet too large")
	if got := j.wait(t, 0); len(got) > 0 {
		t.Errorf("taken: %d messages", len(got))
	}
}

func TestShutdown(t *testing.T) {
	before := runtime.NumGoroutine()
	j := newJournal()
	j.hold = func(up citywarden.Uplink) bool { return up.Device != "done" }
	addr, _, stop := serveTCP(t, j)
	quiet, err := net.Dial("tcp", addr) // has not sent its CONNECT
	if err != nil {
		t.Fatal(err)
	}
	stuck := dial(t, addr, 5).login("x", "stuck")
	stuck.publish(telemetryTopic, "1", 1, 1)
	flushed := dial(t, addr, 5).login("x", "flushed", will(attributesTopic, "bye"))
	flushed.publish(telemetryTopic, "1", 1, 1)
	j.wait(t, 2)
	held := j.release()
	if j.taken[0].Device == "stuck" {
		held[0], held[1] = held[1], held[0]
	}

	start := time.Now()
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	eventually(t, func() error {
		_, err := net.Dial("tcp", addr)
		if err == nil {
			return errors.New("still accepting")
		}
		return nil
	})
	held[0](nil)
	flushed.read(packets.Puback) // what was under way is still acknowledged
	if d := flushed.read(packets.Disconnect); d.ReasonCode != 0x8b {
		t.Errorf("DISCONNECT %#x, want 0x8b", d.ReasonCode)
	}
	stuck.closed() // and what is not durable is not
	<-stopped
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("stopped after %v", d)
	}
	held[1](nil) // too late: must not matter
	_ = quiet.Close()
	if got := j.wait(t, 2); len(got) != 2 {
		t.Errorf("taken: %v, want no will of a device that we disconnected", got)
	}
	eventually(t, func() error {
		if n := runtime.NumGoroutine(); n > before {
			buf := make([]byte, 1<<20)
			return fmt.Errorf("%d goroutines, %d before:\n%s", n, before, buf[:runtime.Stack(buf, true)])
		}
		return nil
	})
}

// brokenListener fails a few times, as when file descriptors run out.
type brokenListener struct {
	net.Listener
	fails int
}

func (l *brokenListener) Accept() (net.Conn, error) {
	if l.fails > 0 {
		l.fails--
		return nil, errors.New("too many open files")
	}
	return l.Listener.Accept()
}

func TestAcceptErrorPasses(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	book, _ := serve(t, &brokenListener{ln, 3}, newJournal())
	dial(t, ln.Addr().String(), 4).login("x", "a").ping()
	book.mustSay(t, "too many open files")
}

func TestListenerBroken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(Options{Listeners: []Listener{{Listener: ln}}, Accept: newJournal(), Check: reader{}, Auth: registry{}, Down: &shelf{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if err := b.Run(context.Background()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run = %v, want %v", err, net.ErrClosed)
	}
}

func TestOptions(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("New took empty Options")
	}
	ln, r := newPipeListener(), prometheus.NewRegistry()
	o := Options{Listeners: []Listener{{Listener: ln}}, Accept: newJournal(), Check: reader{}, Auth: registry{}, Down: &shelf{}, Metrics: r}
	if _, err := New(o); err != nil {
		t.Error(err)
	}
	if _, err := New(o); err == nil {
		t.Error("the same metrics were registered twice")
	}
}
