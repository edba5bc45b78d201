package mqtt

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices"
	"github.com/citywarden/citywarden/store"
)

// heard collects what a paho client receives.
type heard struct {
	mu  sync.Mutex
	got []string
}

func (h *heard) take(_ paho.Client, m paho.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got = append(h.got, fmt.Sprintf("%s %d %s", m.Topic(), m.Qos(), m.Payload()))
}

func (h *heard) must(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if d := cmp.Diff(want, h.got); d != "" {
			return fmt.Errorf("received (-want +got):\n%s", d)
		}
		return nil
	})
}

func subscribe(t *testing.T, c paho.Client, h *heard, qos byte, filters ...string) {
	t.Helper()
	for _, f := range filters {
		if tok := c.Subscribe(f, qos, h.take); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatalf("subscribe to %s: %v", f, tok.Error())
		}
	}
}

func publish(t *testing.T, c paho.Client, topic, body string) {
	t.Helper()
	if tok := c.Publish(topic, 1, false, body); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatalf("publish %s to %s: %v", body, topic, tok.Error())
	}
}

// TestDeviceAttributes: what ThingsBoard's client SDK sends for attributes, and
// what it waits for.
func TestDeviceAttributes(t *testing.T) {
	for _, version := range []uint{3, 4} {
		s := shelved{newJournal(), &shelf{}}
		addr, _, _ := serveTCP(t, s)
		c := pahoClient(t, paho.NewClientOptions().AddBroker("tcp://"+addr).SetClientID("x").SetUsername("token-of-a").SetProtocolVersion(version))
		var h heard
		subscribe(t, c, &h, 1, attributesTopic, attributesFilter, rpcFilter)
		publish(t, c, attributesTopic, `{"firmware":"1.2"}`)
		publish(t, c, requestTopic+"1", `{"clientKeys":"firmware,x","sharedKeys":"report"}`)
		publish(t, c, requestTopic+"2", `{"sharedKeys":"led,report"}`)
		publish(t, c, requestTopic+"3", `{}`)
		want := []string{
			responseTopic + `1 1 {"client":{"firmware":"1.2 of a"},"shared":{"report":30}}`,
			responseTopic + `2 1 {"shared":{"led":true,"report":30}}`,
			responseTopic + `3 1 {"client":{"firmware":"1.2 of a","uptime":60},"shared":{"led":true,"report":30}}`,
		}
		h.must(t, want...)
		if n := s.send("a", "a", `{"report":60}`); n != 1 {
			t.Errorf("%d listen", n)
		}
		s.send("a", "a", `{"deleted":["led"]}`)
		want = append(want, attributesTopic+` 1 {"report":60}`, attributesTopic+` 1 {"deleted":["led"]}`)
		h.must(t, want...)
		if tok := c.Unsubscribe(attributesTopic); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
		if n := s.send("a", "a", `{"report":90}`); n != 0 {
			t.Errorf("%d listen after the end of the subscription", n)
		}
		got := s.wait(t, 1)
		if len(got) != 1 || string(got[0].Payload) != `{"firmware":"1.2"}` {
			t.Errorf("into the log went %v, want the attributes only", got)
		}
	}
}

// TestGatewaySequence: what ThingsBoard's gateway sends from its start to its end.
func TestGatewaySequence(t *testing.T) {
	s := shelved{newJournal(), &shelf{}}
	addr, _, _ := serveTCP(t, s)
	c := pahoClient(t, paho.NewClientOptions().AddBroker("tcp://"+addr).SetClientID("tb-gateway").SetUsername("token-of-gw"))
	var h heard
	subscribe(t, c, &h, 1, citywarden.GatewayAttributes, gatewayResponse, gatewayRPC, attributesTopic, attributesFilter)
	sent := [][2]string{
		{citywarden.GatewayConnect, `{"device":"Device 1","type":"default"}`},
		{citywarden.GatewayTelemetry, `{"Device 1":[{"ts":1764000000000,"values":{"level":1}}]}`},
		{citywarden.GatewayAttributes, `{"Device 1":{"firmware":"3"}}`},
		{citywarden.GatewayDisconnect, `{"device":"Device 1"}`},
	}
	for _, m := range sent[:3] {
		publish(t, c, m[0], m[1])
	}
	publish(t, c, gatewayRequest, `{"id":1,"device":"Device 1","client":true,"key":"firmware"}`)
	publish(t, c, gatewayRequest, `{"id":2,"device":"Device 1","client":false,"keys":["report","led"]}`)
	publish(t, c, gatewayRequest, `{"id":3,"device":"Device 1","client":false,"key":"x"}`)
	want := []string{
		gatewayResponse + ` 1 {"id":1,"device":"Device 1","value":"1.2 of child-1"}`,
		gatewayResponse + ` 1 {"id":2,"device":"Device 1","values":{"led":true,"report":30}}`,
		gatewayResponse + ` 1 {"id":3,"device":"Device 1"}`,
	}
	h.must(t, want...)
	s.send("gw", "child-1", `{"report":60}`)
	s.send("gw", "child-2", `{"report":70}`)
	want = append(want, citywarden.GatewayAttributes+` 1 {"device":"Device 1","data":{"report":60}}`,
		citywarden.GatewayAttributes+` 1 {"device":"child-2","data":{"report":70}}`) // it never said what it calls that one
	h.must(t, want...)
	publish(t, c, sent[3][0], sent[3][1])
	var logged [][2]string
	for _, up := range s.wait(t, 4) {
		logged = append(logged, [2]string{up.Topic, string(up.Payload)})
	}
	if d := cmp.Diff(sent, logged); d != "" {
		t.Error(d)
	}
}

// TestMosquittoSub: mosquitto's client asks and is told.
func TestMosquittoSub(t *testing.T) {
	sub, err := exec.LookPath("mosquitto_sub")
	if err != nil {
		t.Skip("mosquitto_sub is not installed (Debian: mosquitto-clients)")
	}
	s := shelved{newJournal(), &shelf{}}
	addr, _, _ := serveTCP(t, s)
	host, port, _ := strings.Cut(addr, ":")
	for _, version := range []string{"mqttv311", "mqttv5"} {
		done := make(chan string, 1)
		go func() {
			out, _ := exec.Command(sub, "-h", host, "-p", port, "-V", version, "-u", "token-of-a", "-q", "1", "-t", attributesTopic, "-C", "1", "-W", "20").CombinedOutput()
			done <- string(out)
		}()
		eventually(t, func() error {
			if s.send("a", "a", `{"report":60}`) == 0 {
				return fmt.Errorf("nobody listens")
			}
			return nil
		})
		if out := <-done; strings.TrimSpace(out) != `{"report":60}` {
			t.Errorf("%s: mosquitto_sub says %q", version, out)
		}
		eventually(t, func() error {
			if n := s.send("a", "a", `{}`); n > 0 {
				return fmt.Errorf("%d still listen", n)
			}
			return nil
		})
	}
}

// TestRequestsThatCannotBe are answered with the reason in MQTT 5.
func TestRequestsThatCannotBe(t *testing.T) {
	addr, _, _ := serveTCP(t, shelved{newJournal(), &shelf{}})
	for _, c := range []struct{ topic, body, says string }{
		{requestTopic + "1", "x", `"clientKeys"`},
		{requestTopic, "{}", "and a number"},
		{requestTopic + "1/2", "{}", "and a number"},
		{gatewayRequest, `{"id":1}`, `"device"`},
		{gatewayRequest, `{"id":1,"device":"Device 1","key":"x"}`, "no device"},
		{"v1/devices/me/telemtry", "{}", `; did you mean "v1/devices/me/telemetry"?`},
	} {
		p := dial(t, addr, 5)
		p.connect("x", "token-of-a")
		p.publish(c.topic, c.body, 1, 7)
		pk := p.read(packets.Puback)
		if pk.ReasonCode < 0x80 || !strings.Contains(pk.Properties.ReasonString, c.says) {
			t.Errorf("%s %s: %+v, want %s", c.topic, c.body, pk, c.says)
		}
	}
}

// TestDeviceThatTakesNothing: one that subscribes and acknowledges nothing holds nobody
// up, and is disconnected when it asks for ever more.
func TestDeviceThatTakesNothing(t *testing.T) {
	s := shelved{newJournal(), &shelf{}}
	addr, book, _ := serveTCP(t, s)
	p := dial(t, addr, 4)
	p.connect("x", "token-of-a")
	p.subscribe(attributesTopic, attributesFilter)
	begin := time.Now()
	for range maxDown + 2 { // one is sent and waits for its PUBACK
		s.send("a", "a", `{"report":60}`)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("the platform waited %s", d)
	}
	for i := range maxDown + 2 {
		p.publish(requestTopic+"1", "{}", 1, uint16(i+1))
	}
	book.mustSay(t, "it does not take what is sent to it")
	eventually(t, func() error {
		if s.send("a", "a", `{"report":60}`) > 0 {
			return fmt.Errorf("it still listens")
		}
		return nil
	})
	if !slices.ContainsFunc(strings.Split(book.String(), "\n"), func(l string) bool { return strings.Contains(l, "device=a") }) {
		t.Error("the log does not name the device")
	}
}

// TestCommands: what ThingsBoard's SDK does for RPC, of a device and of a gateway.
func TestCommands(t *testing.T) {
	s := shelved{newJournal(), &shelf{}}
	addr, _, _ := serveTCP(t, s)
	c := pahoClient(t, paho.NewClientOptions().AddBroker("tcp://"+addr).SetClientID("x").SetUsername("token-of-a"))
	var h, hg heard
	var mu sync.Mutex
	var ends []string
	done := func(id int64) func(error) {
		return func(err error) {
			mu.Lock()
			defer mu.Unlock()
			ends = append(ends, fmt.Sprint(id, err == nil))
		}
	}
	if n := s.command("a", "a", 1, `{"method":"open","params":{}}`, done(1)); n != 0 {
		t.Errorf("%d took a command before the device listened", n)
	}
	subscribe(t, c, &h, 1, rpcFilter)
	s.command("a", "a", 2, `{"method":"open","params":{"pct":50}}`, done(2))
	s.command("a", "a", 3, `{"method":"close","params":{}}`, done(3))
	h.must(t, rpcRequest+`2 1 {"method":"open","params":{"pct":50}}`, rpcRequest+`3 1 {"method":"close","params":{}}`)
	publish(t, c, rpcResponse+"2", `{"ok":true}`)
	publish(t, c, rpcResponse+"9", `{"late":true}`)

	g := pahoClient(t, paho.NewClientOptions().AddBroker("tcp://"+addr).SetClientID("tb-gateway").SetUsername("token-of-gw"))
	subscribe(t, g, &hg, 0, gatewayRPC)
	publish(t, g, citywarden.GatewayConnect, `{"device":"Device 1"}`)
	s.command("gw", "child-1", 4, `{"method":"open","params":{}}`, done(4))
	hg.must(t, gatewayRPC+` 0 {"device":"Device 1","data":{"id":4,"method":"open","params":{}}}`)
	publish(t, g, gatewayRPC, `{"device":"Device 1","id":4,"data":{"success":true}}`)
	if d := cmp.Diff([]string{`a 2 {"ok":true}`, `child-1 4 {"success":true}`}, s.answered()); d != "" {
		t.Error(d)
	}
	eventually(t, func() error {
		mu.Lock()
		defer mu.Unlock()
		if d := cmp.Diff([]string{"2 true", "3 true", "4 true"}, ends); d != "" {
			return fmt.Errorf("ends: %s", d)
		}
		return nil
	})
	for _, c := range []struct{ topic, body, says string }{
		{rpcResponse + "x", "{}", "not the number"},
		{rpcResponse + "1", "x", "not JSON"},
		{rpcRequest + "1", "{}", "getCurrentTime"},
		{rpcRequest + "1/2", `{"method":"getTime"}`, "and a number"},
		{gatewayRPC, "{}", `"device"`},
		{gatewayRPC, `{"device":"Device 1","id":"x","data":{}}`, `"id": 1`},
		{gatewayRPC, `{"device":"Stranger","id":1,"data":{}}`, "no device"},
	} {
		p := dial(t, addr, 5)
		p.connect("y", "token-of-gw")
		p.publish(c.topic, c.body, 1, 7)
		if pk := p.read(packets.Puback); pk.ReasonCode < 0x80 || !strings.Contains(pk.Properties.ReasonString, c.says) {
			t.Errorf("%s %s: %+v, want %s", c.topic, c.body, pk, c.says)
		}
	}
}

// TestCommandThatIsNotTaken: one that the device did not acknowledge before its
// connection ended is said not to be delivered, and so is what waited behind it.
func TestCommandThatIsNotTaken(t *testing.T) {
	s := shelved{newJournal(), &shelf{}}
	addr, _, _ := serveTCP(t, s)
	p := dial(t, addr, 4)
	p.connect("x", "token-of-a")
	p.subscribe(rpcFilter)
	ends := make(chan bool, 3)
	for id := range int64(3) {
		if s.command("a", "a", id, `{"method":"open","params":{}}`, func(err error) { ends <- err == nil }) != 1 {
			t.Fatal("not taken")
		}
	}
	p.read(packets.Publish)
	_ = p.conn.Close()
	for range 3 {
		if <-ends {
			t.Error("delivered, says the platform")
		}
	}
}

// TestMaximumPacketSize: what is larger than a device takes is not sent, what comes
// after it is.
func TestMaximumPacketSize(t *testing.T) {
	s := shelved{newJournal(), &shelf{}}
	addr, book, _ := serveTCP(t, s)
	p := dial(t, addr, 5).login("x", "a", func(pk *packets.Packet) { pk.Properties.MaximumPacketSize = 4096 })
	p.subscribe(rpcFilter)
	ends := make(chan error, 2)
	for id, text := range []string{strings.Repeat("x", 4096), "y"} {
		s.command("a", "a", int64(id), `{"method":"show","params":{"text":"`+text+`"}}`, func(err error) { ends <- err })
	}
	if err := <-ends; citywarden.CodeOf(err) != citywarden.CodeTooLarge || !strings.Contains(err.Error(), "4096") {
		t.Errorf("of the long one the platform says %v", err)
	}
	if pk := p.read(packets.Publish); pk.TopicName != rpcRequest+"1" {
		t.Errorf("got %s", pk.TopicName)
	}
	book.mustSay(t, "message not sent", "topic="+rpcRequest+"0", "larger than the 4096 bytes")
}

// differing is a shelf on which each device behind a gateway, called by its id, is to be told something
// whenever somebody begins to listen.
type differing struct{ shelved }

func (differing) Child(_ citywarden.DeviceID, name string) (citywarden.DeviceID, error) {
	return citywarden.DeviceID(name), nil
}

func (d differing) Listen(id citywarden.DeviceID, kind citywarden.DownlinkKind, send func(citywarden.Downlink) bool) func() {
	if kind == citywarden.DownlinkAttributes && id != "gw" {
		send(citywarden.Downlink{Device: id, Kind: kind, Body: []byte(`{"report":30}`)})
	}
	return d.shelved.Listen(id, kind, send)
}

// TestGatewayIsRemindedOfMany: a gateway with more devices that differ from what is desired than messages may
// wait for it is told of each, whether it subscribes before or after it connects them, and stays.
func TestGatewayIsRemindedOfMany(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprintf("subscribes before %v", before), func(t *testing.T) {
			addr, book, _ := serveTCP(t, differing{shelved{newJournal(), &shelf{}}})
			p := dial(t, addr, 4).login("x", "gw")
			if before {
				p.subscribe(citywarden.GatewayAttributes)
			}
			const n = 4 * maxDown
			for i := range n {
				p.publish(citywarden.GatewayConnect, fmt.Sprintf(`{"device":"c%d"}`, i), 1, uint16(i+1))
			}
			told := map[string]int{}
			subscribed := before
			for answered := 0; answered < n || len(told) < n; {
				if !subscribed && answered == n {
					subscribed = true
					pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, ProtocolVersion: 4, PacketID: n + 1,
						Filters: packets.Subscriptions{{Filter: citywarden.GatewayAttributes, Qos: 1}}}
					p.write(pk.SubscribeEncode)
				}
				pk, err := p.next()
				if err != nil {
					t.Fatalf("%d were answered, told of %d: %v\n%s", answered, len(told), err, book)
				}
				switch pk.FixedHeader.Type {
				case packets.Puback:
					answered++
				case packets.Publish:
					told[string(pk.Payload)]++
					ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, ProtocolVersion: 4, PacketID: pk.PacketID}
					p.write(ack.PubackEncode)
				}
			}
			p.ping()
			for m, times := range told {
				if times != 1 {
					t.Errorf("%s came %d times", m, times)
				}
			}
		})
	}
}

// TestGatewayIsToldOfManyChanges: a gateway is told of more changed attributes at once than messages may wait for
// it, of each device what holds in the end, and stays.
func TestGatewayIsToldOfManyChanges(t *testing.T) {
	s := differing{shelved{newJournal(), &shelf{}}}
	addr, book, _ := serveTCP(t, s)
	p := dial(t, addr, 4).login("x", "gw")
	p.subscribe(citywarden.GatewayAttributes)
	const n = 4 * maxDown
	for _, body := range []string{`{"report":30,"led":true}`, `{"report":60}`, `{"deleted":["led"]}`} {
		for i := range n {
			s.send("gw", citywarden.DeviceID(fmt.Sprint("c", i)), body)
		}
	}
	held := map[string]map[string]any{}
	over := func() bool {
		for _, h := range held {
			if h["report"] != 60.0 || len(h) != 1 {
				return false
			}
		}
		return len(held) == n
	}
	for !over() {
		pk, err := p.next()
		if err != nil || pk.FixedHeader.Type != packets.Publish {
			t.Fatalf("packet of type %d, %v; told of %d\n%s", pk.FixedHeader.Type, err, len(held), book)
		}
		var m struct {
			Device string
			Data   map[string]any
		}
		if err := json.Unmarshal(pk.Payload, &m); err != nil {
			t.Fatal(err)
		}
		if held[m.Device] == nil {
			held[m.Device] = map[string]any{}
		}
		for k, v := range m.Data {
			held[m.Device][k] = v
		}
		if names, ok := m.Data["deleted"].([]any); ok {
			delete(held[m.Device], "deleted")
			for _, k := range names {
				delete(held[m.Device], k.(string))
			}
		}
		ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, ProtocolVersion: 4, PacketID: pk.PacketID}
		p.write(ack.PubackEncode)
	}
	p.ping()
}

// meanwhile is a shelf on which what lies behind a gateway is looked up slowly: during the first time that it is for device
// last, it gets another value.
type meanwhile struct {
	differing
	once *sync.Once
}

func (m meanwhile) Child(gateway citywarden.DeviceID, name string) (citywarden.DeviceID, error) {
	if name == "last" {
		m.once.Do(func() { m.send(gateway, "last", `{"report":60}`) })
	}
	return m.differing.Child(gateway, name)
}

// TestNewerAttributeComesLast: a change that had to wait does not come after a newer one of the same attribute.
func TestNewerAttributeComesLast(t *testing.T) {
	s := meanwhile{differing{shelved{newJournal(), &shelf{}}}, &sync.Once{}}
	addr, _, _ := serveTCP(t, s)
	p := dial(t, addr, 4).login("x", "gw")
	p.subscribe(citywarden.GatewayAttributes)
	for i := range 2 * maxCommands {
		s.send("gw", citywarden.DeviceID(fmt.Sprint("c", i)), `{"report":30}`)
	}
	s.send("gw", "last", `{"report":30}`)
	var told []string
	for {
		pk := p.read(packets.Publish)
		ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, ProtocolVersion: 4, PacketID: pk.PacketID}
		p.write(ack.PubackEncode)
		m := string(pk.Payload)
		if strings.Contains(m, `"end"`) {
			break
		}
		if strings.Contains(m, `"last"`) {
			if told = append(told, m); strings.Contains(m, "60") {
				s.send("gw", "end", `{"report":30}`)
			}
		}
	}
	if len(told) == 0 || !strings.Contains(told[len(told)-1], "60") {
		t.Errorf("told %q, want 60 as the last", told)
	}
}

// TestNothingIsKeptForOneThatIsGone: a connection that is over, or has no subscription any more, takes no change, however
// many messages wait.
func TestNothingIsKeptForOneThatIsGone(t *testing.T) {
	for _, tt := range []struct{ subscribed, deaf, want bool }{{true, false, true}, {true, true, false}, {false, false, false}} {
		c := &conn{device: "a", down: make(chan downlink, maxDown), more: make(chan struct{}, 1), subs: map[string]subscription{}, deaf: tt.deaf}
		if tt.subscribed {
			c.subs[attributesTopic] = subscription{}
		}
		for range maxCommands {
			c.down <- downlink{}
		}
		m := citywarden.Downlink{Device: "a", Kind: citywarden.DownlinkAttributes, Body: []byte(`{"report":60}`)}
		if got := c.tell(attributesTopic, m, false); got != tt.want || len(c.changes) > 0 != tt.want {
			t.Errorf("%+v: it takes the change: %v, %v wait", tt, got, c.changes)
		}
	}
}

// TestChangesFitIntoPackets: changes that wait together and are larger than a device takes come in several messages; only
// the one that is too large by itself does not come.
func TestChangesFitIntoPackets(t *testing.T) {
	const n = 3 * maxDown
	for _, device := range []citywarden.DeviceID{"gw", "c0"} { // its own, and those of one behind it
		s := differing{shelved{newJournal(), &shelf{}}}
		addr, book, _ := serveTCP(t, s)
		p := dial(t, addr, 5).login("x", "gw", func(pk *packets.Packet) { pk.Properties.MaximumPacketSize = 512 })
		p.subscribe(attributesTopic, citywarden.GatewayAttributes)
		for i := range n {
			s.send("gw", device, fmt.Sprintf(`{"key-%d":"a value of it"}`, i))
		}
		s.send("gw", device, `{"long":"`+strings.Repeat("x", 512)+`"}`)
		s.send("gw", device, `{"deleted":["gone"]}`)
		told := map[string]bool{}
		for len(told) < n+1 {
			pk := p.read(packets.Publish)
			body := pk.Payload
			if device == "c0" {
				var m struct{ Data json.RawMessage }
				if err := json.Unmarshal(body, &m); err != nil {
					t.Fatal(err)
				}
				body = m.Data
			}
			var m map[string]any
			if err := json.Unmarshal(body, &m); err != nil || m["long"] != nil {
				t.Fatalf("%s: %v", body, err)
			}
			for k := range m {
				told[k] = true
			}
			ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, ProtocolVersion: 5, PacketID: pk.PacketID}
			p.write(ack.PubackEncode)
		}
		if !told["deleted"] {
			t.Error("it is not told of what was deleted")
		}
		p.ping()
		book.mustSay(t, "message not sent")
	}
}

// TestDeviceThatAcknowledgesNothing: one that goes on pinging and acknowledges nothing of what it is sent is disconnected,
// so that it is told again when it comes back.
func TestDeviceThatAcknowledgesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ln := shelved{newJournal(), &shelf{}}, newPipeListener()
		book, _ := serve(t, ln, s)
		p := pipePeer(t, ln, 4).login("x", "a")
		p.subscribe(attributesTopic)
		ends := make(chan error, 1)
		began := time.Now()
		s.pass(place{"a", citywarden.DownlinkAttributes}, citywarden.Downlink{Device: "a", Kind: citywarden.DownlinkAttributes, Body: []byte(`{"report":60}`), Done: func(err error) { ends <- err }})
		p.read(packets.Publish)
		for time.Since(began) < 2*maxUnacknowledged {
			time.Sleep(30 * time.Second)
			p.write((&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}}).PingreqEncode)
			if _, err := p.next(); err != nil {
				break
			}
		}
		if d := time.Since(began); d < maxUnacknowledged || d > maxUnacknowledged+time.Minute {
			t.Errorf("it is disconnected after %s, want %s", d, maxUnacknowledged)
		}
		if err := <-ends; err == nil {
			t.Error("it is delivered, says the platform")
		}
		book.mustSay(t, "device disconnected", "no PUBACK for", "device=a")
	})
}

// control is the platform with its commands, whose Listen and Answer they are.
type control struct {
	*journal
	*devices.Commands
	registry *devices.Registry
}

func (o control) Attributes(_ context.Context, id citywarden.DeviceID, client, shared []string) (citywarden.DeviceAttributes, error) {
	return o.registry.Attributes(id, client, shared)
}

func (o control) Child(gateway citywarden.DeviceID, name string) (citywarden.DeviceID, error) {
	return o.registry.Child(gateway, name)
}

// newControl has the gateway gw and behind it valves called c0, c1 and so on.
func newControl(t *testing.T, valves int) control {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	models, err := devices.LoadModels(devices.Builtin(), fstest.MapFS{"valve.yaml": {Data: []byte(`name: test-valve
title: {zh: 阀, en: Valve}
domain: pipe
report: 1m
heartbeat: 5m
metrics:
- {name: level, title: {zh: 位, en: Level}, kind: number}
attributes:
- {name: gateway, title: {zh: 网关, en: Gateway}, kind: text}
commands:
- name: open
  title: {zh: 开, en: Open}
  params:
  - {name: pct, title: {zh: 开度, en: Opening}, kind: number, unit: "%", min: 0, max: 100}
`)}})
	if err != nil {
		t.Fatal(err)
	}
	o := control{journal: newJournal()}
	if o.registry, err = devices.New(t.Context(), db, models, devices.Options{}); err != nil {
		t.Fatal(err)
	}
	all := []citywarden.Device{{ID: "gw", Model: "iot-gateway"}}
	for i := range valves {
		all = append(all, citywarden.Device{ID: citywarden.DeviceID(fmt.Sprint("c", i)), Model: "test-valve", Attributes: map[string]any{"gateway": "gw"}})
	}
	for _, d := range all {
		if _, err := o.registry.Create(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if o.Commands, err = devices.NewCommands(t.Context(), db, o.registry, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = o.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return o
}

func (o control) order(t *testing.T, device string, pct int, expires time.Duration) {
	t.Helper()
	if _, err := o.Tell(t.Context(), citywarden.DeviceID(device), "open", map[string]any{"pct": float64(pct)}, expires, "li"); err != nil {
		t.Error(err)
	}
}

// TestGatewayGetsManyCommands: a gateway for whose devices more commands wait than messages may wait for it
// gets each once, those of a device in their order, however slowly it acknowledges, and stays; those that
// are given meanwhile come after those that waited, and what expires while it waits does not come.
func TestGatewayGetsManyCommands(t *testing.T) {
	const sparkplugTopic = "spBv1.0/county/"
	for name, c := range map[string]struct {
		filter string
		before bool // it subscribes before it connects the devices
	}{
		"subscribes first": {gatewayRPC, true},
		"connects first":   {gatewayRPC, false},
		"Sparkplug":        {sparkplugTopic + "DCMD/e1/#", true}, // its devices get them when they are born
		"Sparkplug again":  {sparkplugTopic + "DCMD/e1/#", false},
	} {
		t.Run(name, func(t *testing.T) {
			const valves, each, later = 40, 5, 2
			o := newControl(t, valves+1)
			for pct := range each {
				for i := range valves {
					o.order(t, fmt.Sprint("c", i), pct, 0)
				}
			}
			last := fmt.Sprint("c", valves) // is asked for last: it waits
			o.order(t, last, 100, time.Second)
			addr, book, _ := serveTCP(t, o)
			p := dial(t, addr, 4).login("x", "gw")
			subscribe := func() {
				pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, ProtocolVersion: 4, PacketID: 999,
					Filters: packets.Subscriptions{{Filter: c.filter, Qos: 1}}}
				p.write(pk.SubscribeEncode)
			}
			if c.before {
				subscribe()
			}
			if c.filter != gatewayRPC {
				p.publish(sparkplugTopic+"NBIRTH/e1", string(sparkplug(0, nodeBirth...)), 0, 0)
			}
			for i := range valves + 1 {
				if c.filter == gatewayRPC {
					p.publish(citywarden.GatewayConnect, fmt.Sprintf(`{"device":"c%d"}`, i), 1, uint16(i+1))
				} else {
					p.publish(fmt.Sprintf("%sDBIRTH/e1/c%d", sparkplugTopic, i), string(sparkplug(i+1, pumpBirth...)), 0, 0)
				}
			}
			if !c.before {
				subscribe()
			}
			got, n := map[string][]int{}, 0
			for n < valves*(each+later) {
				pk, err := p.next()
				if err != nil {
					t.Fatalf("%d commands came: %v\n%s", n, err, book)
				}
				if pk.FixedHeader.Type != packets.Publish {
					continue
				}
				switch n++; n {
				case 1: // the others wait until the last one has expired
					eventually(t, func() error {
						cs, _, err := o.List(t.Context(), citywarden.CommandFilter{Device: citywarden.DeviceID(last)})
						if err == nil && cs[0].State != citywarden.CommandTimedOut {
							err = fmt.Errorf("it is %s", cs[0].State)
						}
						return err
					})
				case valves: // more are given while many wait, and go on while they are sent
					go func() {
						for pct := range later {
							for i := range valves {
								o.order(t, fmt.Sprint("c", i), each+pct, 0)
							}
						}
					}()
				}
				var m struct {
					Device string
					Data   struct{ Params struct{ Pct int } }
				}
				if device, ok := strings.CutPrefix(pk.TopicName, sparkplugTopic+"DCMD/e1/"); ok {
					m.Device = device
					_, err = fmt.Sscanf(plain(t, pk.Payload), "open(0)=%d", &m.Data.Params.Pct)
				} else {
					err = json.Unmarshal(pk.Payload, &m)
				}
				if err != nil {
					t.Fatal(err)
				}
				got[m.Device] = append(got[m.Device], m.Data.Params.Pct)
				time.Sleep(time.Millisecond)
				ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, ProtocolVersion: 4, PacketID: pk.PacketID}
				p.write(ack.PubackEncode)
			}
			p.ping()
			want := map[string][]int{}
			for i := range valves {
				want[fmt.Sprint("c", i)] = []int{0, 1, 2, 3, 4, 5, 6}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
