package mqtt

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
)

// The tests of this file, and the ones that they name, hold what Eclipse Paho's interoperability suite
// (client_test for MQTT 3.1.1, client_test5 for MQTT 5) expects, as far as it goes for a broker of devices:
// what one publishes reaches no other, so that it is seen in the log, or at what the platform tells.
//
//	basic                          TestPahoOverTCP, TestConnectTwice
//	retained messages              TestRetainedMessages, TestNoFanOut
//	will, will delay               TestWill, TestSessionExpiry
//	zero-length and assigned id    TestZeroLengthClientID
//	offline message queueing       TestSessionExpiry; commands wait in the registry, see devices
//	overlapping subscriptions      TestOverlappingSubscriptions
//	redelivery on reconnect        TestRedeliveryOnReconnect, TestCommandThatIsNotTaken
//	subscribe failure, $-topics    TestSubscribe, TestPublishElsewhereIsRefused
//	payload format, publication expiry, user properties, request and response, subscribe options   TestProperties
//	subscription identifiers       TestSubscriptionIdentifiers
//	client topic alias             TestTopicAlias; the platform uses none itself
//	maximum packet size            TestMaximumPacketSize, TestPacketTooLarge
//	flow control                   TestReceiveMaximum, TestReceiveMaximumOfDevice
//	keep alive, server keep alive  TestKeepAlive
//	session expiry                 TestSessionExpiry
//	shared subscriptions           TestSharedSubscriptions
//	unsubscribe                    TestUnsubscribe
//	unicode                        TestUnicode

// TestConnectTwice: a second CONNECT ends the connection [MQTT-3.1.0-2], and so does a protocol that is none.
func TestConnectTwice(t *testing.T) {
	for _, version := range []byte{4, 5} {
		addr, _, _ := serveTCP(t, newJournal())
		p := dial(t, addr, version).login("x", "a")
		pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: version,
			Connect: packets.ConnectParams{ProtocolName: []byte("MQTT"), ClientIdentifier: "x", Clean: true, Username: []byte("token-of-a"), UsernameFlag: true}}
		p.write(pk.ConnectEncode)
		p.closed()
		p = dial(t, addr, version)
		if _, err := p.conn.Write([]byte{0x10, 12, 0, 4, 'M', 'Q', 'T', 'X', version, 2, 0, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		for {
			pk, err := p.next()
			if err != nil {
				break
			}
			if pk.FixedHeader.Type != packets.Connack || pk.ReasonCode == 0 {
				t.Errorf("version %d: MQTX is let in", version)
			}
		}
	}
}

// TestRetainedMessages: one is stored as any other, and kept for nobody, the empty one too that would
// clear it elsewhere.
func TestRetainedMessages(t *testing.T) {
	retain := func(pk *packets.Packet) { pk.FixedHeader.Retain = true }
	for _, version := range []byte{4, 5} {
		j := newJournal()
		addr, _, _ := serveTCP(t, j)
		p := dial(t, addr, version).login("x", "a")
		for i, qos := range []byte{0, 1, 2} {
			p.publish(attributesTopic, fmt.Sprintf(`{"n":%d}`, i), qos, uint16(i), retain)
			if qos > 0 {
				p.read([]byte{1: packets.Puback, 2: packets.Pubrec}[qos])
			}
		}
		p.publish(attributesTopic, "", 1, 3, retain)
		p.read(packets.Puback)
		if got := j.wait(t, 4); len(got) != 4 || string(got[2].Payload) != `{"n":2}` || len(got[3].Payload) != 0 {
			t.Errorf("version %d: taken %v", version, got)
		}
		again := dial(t, addr, version).login("y", "a")
		if ack := again.subscribe(attributesTopic); ack.ReasonCodes[0] > 2 {
			t.Fatalf("SUBACK %x", ack.ReasonCodes)
		}
		again.ping() // nothing came before
	}
}

func TestZeroLengthClientID(t *testing.T) {
	j := newJournal()
	addr, _, _ := serveTCP(t, j)
	persistent := func(pk *packets.Packet) { pk.Connect.Clean = false }
	if ack := dial(t, addr, 4).connect("", "token-of-a", persistent); ack.ReasonCode != 2 { // [MQTT-3.1.3-8]
		t.Errorf("MQTT 3.1.1 with a session: %#x, want 2", ack.ReasonCode)
	}
	one, two := dial(t, addr, 4), dial(t, addr, 4)
	if ack := one.connect("", "token-of-a"); ack.ReasonCode != 0 {
		t.Errorf("MQTT 3.1.1: %#x", ack.ReasonCode)
	}
	if ack := two.connect("", "token-of-a"); ack.ReasonCode != 0 {
		t.Errorf("MQTT 3.1.1: %#x", ack.ReasonCode)
	}
	one.ping() // each has an id of its own
	names := map[string]bool{}
	for _, opts := range [][]connectOption{nil, {persistent}} {
		p := dial(t, addr, 5)
		ack := p.connect("", "token-of-a", opts...)
		if name := ack.Properties.AssignedClientID; ack.ReasonCode != 0 || name == "" || names[name] { // [MQTT-3.2.2-16]
			t.Errorf("MQTT 5: %#x, called %q", ack.ReasonCode, name)
		}
		names[ack.Properties.AssignedClientID] = true
		p.ping()
	}
	if ack := dial(t, addr, 5).connect("mine", "token-of-a"); ack.Properties.AssignedClientID != "" {
		t.Errorf("one that has an id is called %q", ack.Properties.AssignedClientID)
	}
}

// TestSessionExpiry: a session ends with its connection, which MQTT 5 is told; a subscription of it delivers
// nothing to the next, and a will is not delayed beyond it [MQTT-3.1.2-8].
func TestSessionExpiry(t *testing.T) {
	persistent := func(pk *packets.Packet) {
		pk.Connect.Clean = false
		pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = 3600, true
		pk.Connect.WillProperties.WillDelayInterval = 600
	}
	for _, version := range []byte{4, 5} {
		s := shelved{newJournal(), &shelf{}}
		addr, _, _ := serveTCP(t, s)
		p := dial(t, addr, version)
		ack := p.connect("x", "token-of-a", persistent, will(attributesTopic, `{"online":false}`))
		if ack.ReasonCode != 0 || ack.SessionPresent {
			t.Fatalf("CONNACK %+v", ack)
		}
		if version == 5 && (!ack.Properties.SessionExpiryIntervalFlag || ack.Properties.SessionExpiryInterval != 0) {
			t.Errorf("MQTT 5 is told that a session lasts %d s (%t), want 0", ack.Properties.SessionExpiryInterval, ack.Properties.SessionExpiryIntervalFlag)
		}
		p.subscribe(attributesTopic)
		_ = p.conn.Close()
		if got := s.wait(t, 1); string(got[0].Payload) != `{"online":false}` {
			t.Errorf("the will is %v", got)
		}
		eventually(t, func() error {
			if n := s.send("a", "a", `{"report":60}`); n > 0 {
				return fmt.Errorf("%d still listen", n)
			}
			return nil
		})
		p = dial(t, addr, version)
		if ack := p.connect("x", "token-of-a", persistent); ack.SessionPresent {
			t.Errorf("version %d: a session is there", version)
		}
		if n := s.send("a", "a", `{"report":60}`); n > 0 {
			t.Errorf("version %d: the subscription of the session before delivers", version)
		}
		p.ping()
		over := dial(t, addr, version) // it takes the session over
		if ack := over.connect("x", "token-of-a", persistent); ack.SessionPresent {
			t.Errorf("version %d: the session that is taken over is there", version)
		}
		p.closed()
		over.ping()
	}
}

// TestOverlappingSubscriptions: what two filters match comes once.
func TestOverlappingSubscriptions(t *testing.T) {
	s := shelved{newJournal(), &shelf{}}
	addr, _, _ := serveTCP(t, s)
	p := dial(t, addr, 5).login("x", "a")
	p.subscribe(rpcFilter, attributesTopic, attributesTopic)
	p.subscribe(attributesTopic) // again
	if n := s.send("a", "a", `{"report":60}`); n != 1 {
		t.Errorf("%d listen", n)
	}
	if pk := p.read(packets.Publish); string(pk.Payload) != `{"report":60}` {
		t.Errorf("got %s", pk.Payload)
	}
	p.ping() // and no second one before it
}

// TestRedeliveryOnReconnect: a message that was not acknowledged is sent again with DUP in the next connection, and
// acknowledged; a QoS 2 message, too. In the log it is twice, and what reads the log counts a reading with a time once.
func TestRedeliveryOnReconnect(t *testing.T) {
	for _, version := range []byte{4, 5} {
		for _, qos := range []byte{1, 2} {
			j := newJournal()
			j.hold = func(citywarden.Uplink) bool { return true }
			addr, _, _ := serveTCP(t, j)
			p := dial(t, addr, version).login("x", "a")
			p.publish(telemetryTopic, `{"ts":1764000000000,"values":{"level":1}}`, qos, 7)
			j.wait(t, 1)
			_ = p.conn.Close()
			j.mu.Lock()
			j.hold = nil
			j.mu.Unlock()
			p = dial(t, addr, version).login("x", "a")
			p.publish(telemetryTopic, `{"ts":1764000000000,"values":{"level":1}}`, qos, 7, func(pk *packets.Packet) { pk.FixedHeader.Dup = true })
			if ack := p.read([]byte{1: packets.Puback, 2: packets.Pubrec}[qos]); ack.PacketID != 7 || ack.ReasonCode != 0 {
				t.Errorf("version %d QoS %d: acknowledged %d with %#x", version, qos, ack.PacketID, ack.ReasonCode)
			}
			for _, done := range j.release() { // that of the connection before, which is gone
				done(nil)
			}
			p.ping()
		}
	}
}

// TestProperties: what MQTT 5 lets a publisher and a subscriber say besides is taken, goes into no
// acknowledgement, and changes nothing of what is stored.
func TestProperties(t *testing.T) {
	j := newJournal()
	addr, _, _ := serveTCP(t, j)
	p := dial(t, addr, 5)
	ack := p.connect("x", "token-of-a", func(pk *packets.Packet) {
		pk.Properties.RequestResponseInfo, pk.Properties.RequestProblemInfo, pk.Properties.RequestProblemInfoFlag = 1, 1, true
		pk.Properties.User = []packets.UserProperty{{Key: "maker", Val: "宏电"}}
	})
	if ack.ReasonCode != 0 || len(ack.Properties.User) > 0 {
		t.Fatalf("CONNACK %+v", ack)
	}
	for i, change := range []publishOption{
		func(pk *packets.Packet) { pk.Properties.PayloadFormat, pk.Properties.PayloadFormatFlag = 1, true },
		func(pk *packets.Packet) { pk.Properties.MessageExpiryInterval = 1 },
		func(pk *packets.Packet) { pk.Properties.ContentType = "application/json" },
		func(pk *packets.Packet) {
			pk.Properties.User = []packets.UserProperty{{Key: "a", Val: "1"}, {Key: "a", Val: "2"}}
		},
		func(pk *packets.Packet) {
			pk.Properties.ResponseTopic, pk.Properties.CorrelationData = "v1/devices/me/rpc/response/1", []byte{0, 1}
		},
	} {
		p.publish(telemetryTopic, fmt.Sprintf(`{"n":%d}`, i), 1, uint16(i+1), change)
		ack := p.read(packets.Puback)
		if d := cmp.Diff(packets.Properties{}, ack.Properties); ack.ReasonCode != 0 || d != "" {
			t.Errorf("message %d is answered %#x with\n%s", i, ack.ReasonCode, d)
		}
	}
	for i, up := range j.wait(t, 5) {
		if string(up.Payload) != fmt.Sprintf(`{"n":%d}`, i) {
			t.Errorf("message %d is %s", i, up.Payload)
		}
	}
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, ProtocolVersion: 5, PacketID: 2,
		Filters: packets.Subscriptions{{Filter: attributesTopic, Qos: 1, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}}}
	p.write(pk.SubscribeEncode)
	if ack := p.read(packets.Suback); string(ack.ReasonCodes) != "\x01" {
		t.Errorf("SUBACK %x", ack.ReasonCodes)
	}
}

// TestSubscriptionIdentifiers: what comes by a subscription has its number [MQTT-3.3.4-3].
func TestSubscriptionIdentifiers(t *testing.T) {
	s := shelved{newJournal(), &shelf{}}
	addr, _, _ := serveTCP(t, s)
	p := dial(t, addr, 5).login("x", "a")
	for i, filter := range []string{attributesTopic, attributesFilter, rpcFilter} {
		pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, ProtocolVersion: 5, PacketID: uint16(i + 1), Filters: packets.Subscriptions{{Filter: filter}}}
		if i < 2 {
			pk.Properties.SubscriptionIdentifier = []int{200 + i}
		}
		p.write(pk.SubscribeEncode)
		p.read(packets.Suback)
	}
	s.send("a", "a", `{"report":60}`)
	s.command("a", "a", 1, `{"method":"open","params":{}}`, nil)
	p.publish(requestTopic+"1", `{"sharedKeys":"report"}`, 0, 0)
	for _, want := range []struct {
		topic string
		ids   []int
	}{{attributesTopic, []int{200}}, {rpcRequest + "1", nil}, {responseTopic + "1", []int{201}}} {
		if pk := p.read(packets.Publish); pk.TopicName != want.topic || !cmp.Equal(want.ids, pk.Properties.SubscriptionIdentifier) {
			t.Errorf("%s has the identifiers %v, want %s with %v", pk.TopicName, pk.Properties.SubscriptionIdentifier, want.topic, want.ids)
		}
	}
}

// TestReceiveMaximumOfDevice: to a device that takes one message at a time the next goes when it has
// acknowledged the one before, and all come in order.
func TestReceiveMaximumOfDevice(t *testing.T) {
	s := shelved{newJournal(), &shelf{}}
	addr, _, _ := serveTCP(t, s)
	p := dial(t, addr, 5).login("x", "a", func(pk *packets.Packet) { pk.Properties.ReceiveMaximum = 1 })
	p.subscribe(rpcFilter)
	const n = 20
	for id := range int64(n) {
		s.command("a", "a", id, `{"method":"open","params":{}}`, nil)
	}
	for id := range n {
		pk := p.read(packets.Publish)
		if pk.TopicName != rpcRequest+fmt.Sprint(id) || pk.FixedHeader.Qos != 1 {
			t.Fatalf("command %d comes as %s with QoS %d", id, pk.TopicName, pk.FixedHeader.Qos)
		}
		p.ping() // nothing more before it is acknowledged
		ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, ProtocolVersion: 5, PacketID: pk.PacketID}
		p.write(ack.PubackEncode)
	}
}

// TestSharedSubscriptions: there are none, which MQTT 5 is told.
func TestSharedSubscriptions(t *testing.T) {
	addr, _, _ := serveTCP(t, newJournal())
	p := dial(t, addr, 5)
	ack := p.connect("x", "token-of-a")
	if !ack.Properties.SharedSubAvailableFlag || ack.Properties.SharedSubAvailable != 0 {
		t.Errorf("CONNACK tells of shared subscriptions: %d (%t)", ack.Properties.SharedSubAvailable, ack.Properties.SharedSubAvailableFlag)
	}
	if ack := p.subscribe("$share/g/" + attributesTopic); len(ack.ReasonCodes) != 1 || ack.ReasonCodes[0] < 0x80 {
		t.Errorf("SUBACK %x", ack.ReasonCodes)
	}
}

func TestUnsubscribe(t *testing.T) {
	for _, version := range []byte{4, 5} {
		s := shelved{newJournal(), &shelf{}}
		addr, _, _ := serveTCP(t, s)
		p := dial(t, addr, version).login("x", "a")
		p.subscribe(attributesTopic, rpcFilter)
		pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, ProtocolVersion: version, PacketID: 9,
			Filters: packets.Subscriptions{{Filter: attributesTopic}, {Filter: "v1/devices/me/rpc/response/+"}}}
		p.write(pk.UnsubscribeEncode)
		ack := p.read(packets.Unsuback)
		if ack.PacketID != 9 || version == 5 && string(ack.ReasonCodes) != "\x00\x11" { // 0x11: there was none
			t.Errorf("version %d: UNSUBACK %d %x", version, ack.PacketID, ack.ReasonCodes)
		}
		if n := s.send("a", "a", `{"report":60}`); n > 0 {
			t.Errorf("version %d: it still listens", version)
		}
		if n := s.command("a", "a", 1, `{"method":"open","params":{}}`, nil); n != 1 {
			t.Errorf("version %d: %d listen for commands", version, n)
		}
		p.read(packets.Publish)
	}
}

// TestUnicode: names and texts are UTF-8; what is not, and the sign U+0000, end the connection [MQTT-1.5.4-1].
func TestUnicode(t *testing.T) {
	for _, version := range []byte{4, 5} {
		j := newJournal()
		addr, _, _ := serveTCP(t, j)
		p := dial(t, addr, version).login("烟感-🔥", "泵-1", will(attributesTopic, `{"状态":"离线"}`))
		p.publish(telemetryTopic, `{"备注":"漳浦县🚒"}`, 1, 1)
		p.read(packets.Puback)
		_ = p.conn.Close()
		want := []citywarden.Uplink{telemetry("泵-1", `{"备注":"漳浦县🚒"}`), {Device: "泵-1", Protocol: citywarden.ProtocolWill, Topic: attributesTopic, Payload: []byte(`{"状态":"离线"}`)}}
		if d := cmp.Diff(want, j.wait(t, 2), ignoreReceived); d != "" {
			t.Error(d)
		}
		for _, topic := range []string{"v1/devices/me/\xff\xfe", "v1/devices/me/\xed\xa0\x80", "v1/devices/me/\x00"} {
			p := dial(t, addr, version).login("x", "a")
			p.publish(topic, "{}", 1, 1)
			for {
				pk, err := p.next()
				if err != nil {
					break
				}
				if pk.FixedHeader.Type == packets.Puback && pk.ReasonCode < 0x80 {
					t.Errorf("version %d: %q is acknowledged", version, topic)
				}
				if pk.FixedHeader.Type == packets.Puback { // refused is as good
					break
				}
			}
		}
		for _, id := range []string{"\xff", "a\x00b"} {
			if ack, err := func() (packets.Packet, error) {
				p := dial(t, addr, version)
				pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: version,
					Connect: packets.ConnectParams{ProtocolName: []byte("MQTT"), ClientIdentifier: id, Clean: true, Username: []byte("token-of-a"), UsernameFlag: true}}
				p.write(pk.ConnectEncode)
				return p.next()
			}(); err == nil && ack.ReasonCode == 0 {
				t.Errorf("version %d: client %q is let in", version, id)
			}
		}
		if got := j.wait(t, 2); len(got) != 2 {
			t.Errorf("taken: %v", got)
		}
	}
}

// TestStrangersWait: connections whose device is not known have a bound; one more waits until one of them has
// shown who it is, or 10 s are over.
func TestStrangersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		serve(t, ln, newJournal())
		for range maxUnknown {
			c, err := ln.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		begin := time.Now()
		pipePeer(t, ln, 4).login("x", "a").ping()
		if d := time.Since(begin); d < connectTimeout || d > connectTimeout+time.Second {
			t.Errorf("let in after %v, want %v", d, connectTimeout)
		}
		begin = time.Now()
		pipePeer(t, ln, 4).login("y", "a").ping()
		if d := time.Since(begin); d > 0 {
			t.Errorf("then after %v", d)
		}
	})
}
