package mqtt

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
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

// TestDeviceThatTakesNothing: one that subscribes and reads nothing holds nobody
// up, and is disconnected.
func TestDeviceThatTakesNothing(t *testing.T) {
	s := shelved{newJournal(), &shelf{}}
	addr, book, _ := serveTCP(t, s)
	p := dial(t, addr, 4)
	p.connect("x", "token-of-a")
	p.subscribe(attributesTopic)
	begin := time.Now()
	for range maxDown + 2 { // one is sent and waits for its PUBACK
		s.send("a", "a", `{"report":60}`)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("the platform waited %s", d)
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
	done := func(id int64) func(bool) {
		return func(delivered bool) {
			mu.Lock()
			defer mu.Unlock()
			ends = append(ends, fmt.Sprint(id, delivered))
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
		if s.command("a", "a", id, `{"method":"open","params":{}}`, func(d bool) { ends <- d }) != 1 {
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
	ends := make(chan bool, 2)
	for id, text := range []string{strings.Repeat("x", 4096), "y"} {
		s.command("a", "a", int64(id), `{"method":"show","params":{"text":"`+text+`"}}`, func(d bool) { ends <- d })
	}
	if <-ends {
		t.Error("the long one is delivered, says the platform")
	}
	if pk := p.read(packets.Publish); pk.TopicName != rpcRequest+"1" {
		t.Errorf("got %s", pk.TopicName)
	}
	book.mustSay(t, "message not sent", "topic="+rpcRequest+"0", "larger than the maximum packet size")
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
