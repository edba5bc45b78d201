package mqtt

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/ingest"
)

// metric is one of Sparkplug B, written with protobuf's own encoder.
type metric struct {
	name  string
	alias uint64 // 0 for none
	kind  uint64 // 0 for none
	bool  bool   // the value, of kind 11
	long  uint64 // of kind 8
	float float64
}

const (
	uint64Kind  = 8
	doubleKind  = 10
	booleanKind = 11
)

// sparkplug writes a payload; seq is -1 for none.
func sparkplug(seq int, ms ...metric) []byte {
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1764000000000)
	for _, m := range ms {
		var x []byte
		if m.name != "" {
			x = protowire.AppendString(protowire.AppendTag(x, 1, protowire.BytesType), m.name)
		}
		if m.alias > 0 {
			x = protowire.AppendVarint(protowire.AppendTag(x, 2, protowire.VarintType), m.alias)
		}
		if m.kind > 0 {
			x = protowire.AppendVarint(protowire.AppendTag(x, 4, protowire.VarintType), m.kind)
		}
		switch {
		case m.kind == booleanKind:
			x = protowire.AppendVarint(protowire.AppendTag(x, 14, protowire.VarintType), protowire.EncodeBool(m.bool))
		case m.kind == uint64Kind:
			x = protowire.AppendVarint(protowire.AppendTag(x, 11, protowire.VarintType), m.long)
		default:
			x = protowire.AppendFixed64(protowire.AppendTag(x, 13, protowire.Fixed64Type), math.Float64bits(m.float))
		}
		b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), x)
	}
	if seq >= 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), uint64(seq))
	}
	return b
}

// plain writes a payload for people.
func plain(t *testing.T, b []byte) string {
	t.Helper()
	if len(b) > 0 && b[0] == '{' || len(b) < 3 {
		return string(b)
	}
	p, err := citywarden.ParseSparkplug(b)
	if err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	var out []string
	for i := range p.Metrics {
		m := &p.Metrics[i]
		v, err := m.Value()
		s := fmt.Sprintf("%s(%d)=%v", m.Name, m.Alias, v)
		if err != nil {
			s = fmt.Sprintf("%s(%d) %v", m.Name, m.Alias, err)
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

// edge is a client that plays an edge node.
type edge struct {
	t *testing.T
	paho.Client
	heard
}

func newEdge(t *testing.T, addr, client string, bdSeq uint64) *edge {
	t.Helper()
	e := &edge{t: t}
	o := paho.NewClientOptions().AddBroker("tcp://"+addr).SetClientID(client).SetUsername("token-of-gw").
		SetBinaryWill("spBv1.0/county/NDEATH/e1", sparkplug(-1, metric{name: "bdSeq", kind: uint64Kind, long: bdSeq}), 1, false)
	e.Client = pahoClient(t, o)
	for _, f := range []string{"spBv1.0/county/NCMD/e1", "spBv1.0/county/DCMD/e1/#", "spBv1.0/STATE/citywarden"} {
		if tok := e.Subscribe(f, 1, func(_ paho.Client, m paho.Message) {
			e.mu.Lock()
			defer e.mu.Unlock()
			body := plain(t, m.Payload())
			if strings.HasPrefix(body, `{"online"`) {
				var s struct {
					Online    bool
					Timestamp int64
				}
				if err := json.Unmarshal(m.Payload(), &s); err != nil || time.Since(time.UnixMilli(s.Timestamp)).Abs() > time.Minute {
					t.Errorf("STATE is %s", body)
				}
				body = fmt.Sprintf("online %t, retained %t", s.Online, m.Retained())
			}
			e.got = append(e.got, m.Topic()+" "+body)
		}); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatalf("subscribe to %s: %v", f, tok.Error())
		}
	}
	return e
}

// send publishes as nodes do, with QoS 0.
func (e *edge) send(topic string, payload []byte) {
	e.t.Helper()
	if tok := e.Publish("spBv1.0/county/"+topic, 0, false, payload); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		e.t.Fatalf("publish to %s: %v", topic, tok.Error())
	}
}

// logged returns what is in the log once there are n messages.
func logged(t *testing.T, j *journal, n int) []string {
	t.Helper()
	var got []string
	for _, up := range j.wait(t, n) {
		got = append(got, fmt.Sprintf("%s %s %s", up.Device, up.Topic, plain(t, up.Payload)))
	}
	return got
}

var (
	nodeBirth = []metric{{name: "bdSeq", kind: uint64Kind, long: 7}, {name: "Node Control/Rebirth", kind: booleanKind}, {name: "level", alias: 1, kind: doubleKind, float: 2}}
	pumpBirth = []metric{{name: "Inputs/flow", alias: 2, kind: doubleKind, float: 3}, {name: "Outputs/valve", alias: 3, kind: doubleKind, float: 10}, {name: "name", kind: doubleKind}}
)

// TestSparkplugSequence is an edge node from its birth to its death.
func TestSparkplugSequence(t *testing.T) {
	s := shelved{newJournal(), &shelf{}}
	addr, book, stop := serveTCP(t, s)
	e := newEdge(t, addr, "edge", 7)
	want := []string{"spBv1.0/STATE/citywarden online true, retained true"}
	e.must(t, want...)
	if n := s.command("gw", "child-1", 4, `{"method":"valve","params":{"position":50}}`, nil); n != 0 {
		t.Errorf("%d take a command before the birth", n)
	}

	e.send("NBIRTH/e1", sparkplug(0, nodeBirth...))
	e.send("DBIRTH/e1/Device 1", sparkplug(1, pumpBirth...))
	e.send("DDATA/e1/Device 1", sparkplug(2, metric{alias: 2, float: 3.5}, metric{name: "name", float: 1}))
	e.send("NDATA/e1", sparkplug(3, metric{alias: 1, float: 2.5}))
	log := []string{
		"gw v1/devices/me/sparkplug bdSeq(0)=7 Node Control/Rebirth(0)=false level(1)=2",
		"gw v1/gateway/sparkplug/DBIRTH/Device 1 Inputs/flow(2)=3 Outputs/valve(3)=10 name(0)=0",
		"gw v1/gateway/sparkplug/DDATA/Device 1 Inputs/flow(2)=3.5 name(0)=1",
		"gw v1/devices/me/sparkplug level(1)=2.5",
	}
	if d := cmp.Diff(log, logged(t, s.journal, 4)); d != "" {
		t.Fatal(d)
	}

	done := make(chan bool, 1)
	if n := s.command("gw", "child-1", 5, `{"method":"valve","params":{"position":50}}`, func(err error) { done <- err == nil }); n != 1 {
		t.Fatalf("%d take a command, want 1", n)
	}
	if !<-done {
		t.Error("the command was not delivered")
	}
	want = append(want, "spBv1.0/county/DCMD/e1/Device 1 (3)=50")
	e.must(t, want...)
	e.send("DDATA/e1/Device 1", sparkplug(4, metric{alias: 3, float: 10})) // not yet
	e.send("DDATA/e1/Device 1", sparkplug(5, metric{alias: 3, float: 50}))
	eventually(t, func() error {
		if d := cmp.Diff([]string{`child-1 5 {"value":50}`}, s.answered()); d != "" {
			return fmt.Errorf("answers:\n%s", d)
		}
		return nil
	})
	s.command("gw", "gw", 6, `{"method":"restart","params":{}}`, nil)
	s.command("gw", "gw", 7, `{"method":"limits","params":{"high":2,"low":1}}`, nil)
	want = append(want, "spBv1.0/county/NCMD/e1 restart(0)=true", "spBv1.0/county/NCMD/e1 limits/high(0)=2 limits/low(0)=1")
	e.must(t, want...)
	e.send("NDATA/e1", sparkplug(6, metric{name: "limits/low", float: 1})) // not all of it yet
	e.send("NDATA/e1", sparkplug(7, metric{name: "limits/high", float: 2}))
	eventually(t, func() error {
		if d := cmp.Diff([]string{`child-1 5 {"value":50}`, `gw 7 {"values":{"limits/high":2,"limits/low":1}}`}, s.answered()); d != "" {
			return fmt.Errorf("answers:\n%s", d)
		}
		return nil
	})

	// Three messages are missing.
	e.send("DDATA/e1/Device 1", sparkplug(11, metric{alias: 2, float: 4}))
	want = append(want, "spBv1.0/county/NCMD/e1 Node Control/Rebirth(0)=true")
	e.must(t, want...)
	log = append(log, "gw v1/gateway/sparkplug/DDATA/Device 1 Outputs/valve(3)=10", "gw v1/gateway/sparkplug/DDATA/Device 1 Outputs/valve(3)=50",
		"gw v1/devices/me/sparkplug limits/low(0)=1", "gw v1/devices/me/sparkplug limits/high(0)=2",
		"gw v1/gateway/sparkplug/DDATA/Device 1 Inputs/flow(2)=4", "gw v1/devices/me/missing 3")
	if d := cmp.Diff(log, logged(t, s.journal, len(log))); d != "" {
		t.Fatal(d)
	}
	e.send("NBIRTH/e1", sparkplug(0, nodeBirth...))
	e.send("DBIRTH/e1/Device 2", sparkplug(1, pumpBirth...))
	e.send("DDEATH/e1/Device 2", sparkplug(2))
	e.send("DBIRTH/e1/Device 1", sparkplug(3, pumpBirth...))
	e.send("DDATA/e1/Device 1", sparkplug(4, metric{alias: 9, float: 1})) // in no birth: it stays as it is, for the dead letters; it was asked just now
	log = append(log, log[0],
		"gw v1/gateway/sparkplug/DBIRTH/Device 2 Inputs/flow(2)=3 Outputs/valve(3)=10 name(0)=0",
		"gw v1/gateway/sparkplug/DDEATH/Device 2 ", log[1],
		"gw v1/gateway/sparkplug/DDATA/Device 1 (9)=1")
	if d := cmp.Diff(log, logged(t, s.journal, len(log))); d != "" {
		t.Fatal(d)
	}

	// It goes, and its devices with it.
	e.send("NDEATH/e1", sparkplug(-1, metric{name: "bdSeq", kind: uint64Kind, long: 6})) // of a session before
	eventually(t, func() error {
		if !strings.Contains(book.String(), "the bdSeq of the death is not 7") {
			return fmt.Errorf("the log does not tell of the death that is ignored:\n%s", book)
		}
		return nil
	})
	e.send("NDEATH/e1", sparkplug(-1, metric{name: "bdSeq", kind: uint64Kind, long: 7}))
	log = append(log, "gw v1/gateway/sparkplug/NDEATH/Device 1 ", "gw v1/devices/me/disconnect bdSeq(0)=7")
	if d := cmp.Diff(log, logged(t, s.journal, len(log))); d != "" {
		t.Fatal(d)
	}
	if n := s.command("gw", "child-1", 8, `{"method":"valve","params":{"position":50}}`, nil); n != 0 {
		t.Errorf("%d take a command after the death", n)
	}
	stop()
	e.must(t, append(want, "spBv1.0/STATE/citywarden online false, retained false")...)
	if n := len(s.wait(t, len(log))); n != len(log) {
		t.Errorf("%d messages are in the log, want %d", n, len(log))
	}
}

// TestSparkplugWill: a node that falls silent dies by its will, unless it was born again
// elsewhere before.
func TestSparkplugWill(t *testing.T) {
	j := newJournal()
	addr, _, _ := serveTCP(t, j)
	born := func(client string, bdSeq uint64) *peer {
		p := dial(t, addr, 4)
		p.connect(client, "token-of-gw", will("spBv1.0/county/NDEATH/e1", string(sparkplug(-1, metric{name: "bdSeq", kind: uint64Kind, long: bdSeq}))))
		p.publish("spBv1.0/county/NBIRTH/e1", string(sparkplug(0, metric{name: "bdSeq", kind: uint64Kind, long: bdSeq})), 0, 0)
		return p
	}
	first := born("a", 1)
	j.wait(t, 1)
	second := born("b", 2)
	j.wait(t, 2)
	_ = first.conn.Close() // its death comes late
	_ = second.conn.Close()
	got := logged(t, j, 3)
	want := []string{"gw v1/devices/me/sparkplug bdSeq(0)=1", "gw v1/devices/me/sparkplug bdSeq(0)=2", "gw v1/devices/me/disconnect bdSeq(0)=2"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestSparkplugNodesOfOneGateway: each of its nodes dies by its own will, and the devices that
// spoke without a birth die with it.
func TestSparkplugNodesOfOneGateway(t *testing.T) {
	j := newJournal()
	addr, _, _ := serveTCP(t, j)
	born := func(name string) *peer {
		p := dial(t, addr, 4)
		bdSeq := metric{name: "bdSeq", kind: uint64Kind, long: 1}
		p.connect(name, "token-of-gw", will("spBv1.0/county/NDEATH/"+name, string(sparkplug(-1, bdSeq))))
		p.publish("spBv1.0/county/NBIRTH/"+name, string(sparkplug(0, bdSeq)), 0, 0)
		p.publish("spBv1.0/county/DDATA/"+name+"/of "+name, string(sparkplug(1, metric{name: "level"})), 0, 0)
		return p
	}
	first := born("e1")
	j.wait(t, 2)
	second := born("e2")
	j.wait(t, 4)
	_ = first.conn.Close()
	j.wait(t, 6)
	_ = second.conn.Close()
	want := []string{
		"gw v1/gateway/sparkplug/NDEATH/of e1 ", "gw v1/devices/me/disconnect bdSeq(0)=1",
		"gw v1/gateway/sparkplug/NDEATH/of e2 ", "gw v1/devices/me/disconnect bdSeq(0)=1",
	}
	if d := cmp.Diff(want, logged(t, j, 8)[4:]); d != "" {
		t.Error(d)
	}
}

// chronicle is a log of which the test reads what was appended.
type chronicle struct {
	ingest.Log
	recs []citywarden.Record
}

func (c *chronicle) Append(r citywarden.Record, done func(citywarden.Position, error)) {
	c.recs = append(c.recs, r)
	done(citywarden.PositionAt(uint64(len(c.recs)), 0), nil)
}

func (c *chronicle) Last() citywarden.Position { return 0 }

// household is a directory with the gateway gw and any device behind it.
type household struct{}

func (household) Device(id citywarden.DeviceID) (*citywarden.Device, *citywarden.Model, error) {
	return &citywarden.Device{ID: id}, &citywarden.Model{}, nil
}

func (household) Child(_ citywarden.DeviceID, name string) (citywarden.DeviceID, error) {
	return citywarden.DeviceID(name), nil
}

// TestSparkplugDeathInTheLog: a gateway counts as alive when it speaks for devices, and not by what is said
// of them when its node died; the last of that is that it went.
func TestSparkplugDeathInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, ln := &chronicle{}, newPipeListener()
		pipeline, err := ingest.New(ingest.Options{Log: log, Directory: household{}})
		if err != nil {
			t.Fatal(err)
		}
		serve(t, ln, pipeline)
		p := pipePeer(t, ln, 4)
		bdSeq := metric{name: "bdSeq", kind: uint64Kind, long: 1}
		p.connect("e1", "token-of-gw", will("spBv1.0/county/NDEATH/e1", string(sparkplug(-1, bdSeq))))
		p.publish("spBv1.0/county/NBIRTH/e1", string(sparkplug(0, bdSeq)), 0, 0)
		p.publish("spBv1.0/county/DBIRTH/e1/pump", string(sparkplug(1, pumpBirth...)), 0, 0)
		time.Sleep(time.Minute) // then it would count as alive again
		_ = p.conn.Close()
		synctest.Wait()
		var got []string
		for _, r := range log.recs {
			got = append(got, string(r.Uplink.Device)+" "+r.Uplink.Topic)
		}
		want := []string{
			"gw " + citywarden.DeviceSparkplug, "pump " + citywarden.DeviceSparkplug, "gw " + citywarden.DeviceConnected,
			"pump " + citywarden.DeviceDisconnected, "gw " + citywarden.DeviceDisconnected,
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("in the log:\n%s", d)
		}
	})
}

// patient holds a command for child-1 until somebody takes it.
type patient struct{ shelved }

func (p patient) Listen(id citywarden.DeviceID, kind citywarden.DownlinkKind, send func(citywarden.Downlink) bool) func() {
	if id == "child-1" {
		send(citywarden.Downlink{Device: id, Kind: kind, ID: 4, Body: json.RawMessage(`{"method":"valve","params":{"position":50}}`)})
	}
	return p.shelved.Listen(id, kind, send)
}

// TestSparkplugCommandWaits for the birth of its device, and the birth asks for no other's.
func TestSparkplugCommandWaits(t *testing.T) {
	s := patient{shelved{newJournal(), &shelf{}}}
	addr, _, _ := serveTCP(t, s)
	e := newEdge(t, addr, "edge", 7)
	e.send("NBIRTH/e1", sparkplug(0, nodeBirth...))
	e.send("DBIRTH/e1/Device 1", sparkplug(1, pumpBirth...))
	e.must(t, "spBv1.0/STATE/citywarden online true, retained true", "spBv1.0/county/DCMD/e1/Device 1 (3)=50")
}

// TestSparkplugWithoutBirth: data of a node that did not begin with its birth are kept, and
// it is asked for it, but not with each message.
func TestSparkplugWithoutBirth(t *testing.T) {
	j := newJournal()
	addr, _, _ := serveTCP(t, j)
	e := newEdge(t, addr, "edge", 7)
	for i := range 3 {
		e.send("NDATA/e1", sparkplug(10+i, metric{alias: 1, float: 1}))
	}
	e.send("DBIRTH/e1/Device 1", sparkplug(13, pumpBirth...))
	logged(t, j, 4)
	e.must(t, "spBv1.0/STATE/citywarden online true, retained true", "spBv1.0/county/NCMD/e1 Node Control/Rebirth(0)=true")
}

// TestSparkplugOfOthers: a connection is one node, and sends what nodes send.
func TestSparkplugOfOthers(t *testing.T) {
	j := newJournal()
	addr, book, _ := serveTCP(t, j)
	p := dial(t, addr, 5)
	p.connect("x", "token-of-gw", will("spBv1.0/county/NDEATH/e1", string(sparkplug(-1))))
	for i, topic := range []string{
		"spBv1.0/county/NBIRTH/e2", "spBv1.0/other/NBIRTH/e1", "spBv1.0/county/NCMD/e1", "spBv1.0/county/DCMD/e1/d", "spBv1.0/STATE/citywarden",
		"spBv1.0/county/NBIRTH/e1/d", "spBv1.0/county/DDATA/e1", "spBv1.0/county/NBIRTH", "spBv1.0/", "spBv1.0/county/XDATA/e1", "spBv1.0//NBIRTH/e1",
	} {
		p.publish(topic, string(sparkplug(0)), 1, uint16(i+1))
		if ack := p.read(packets.Puback); ack.ReasonCode != 0x87 {
			t.Errorf("%s is answered with %#x", topic, ack.ReasonCode)
		}
	}
	for _, filter := range []string{"spBv1.0/county/NCMD/e2", "spBv1.0/+/NCMD/e1", "spBv1.0/#", "spBv1.0/county/NCMD/+", "spBv1.0/county/NBIRTH/e1", "spBv1.0/STATE/scada", "spBv1.0/county/DCMD/e2/#"} {
		if ack := p.subscribe(filter); len(ack.ReasonCodes) != 1 || ack.ReasonCodes[0] < 0x80 {
			t.Errorf("%s may be subscribed to: %v", filter, ack.ReasonCodes)
		}
	}
	if got := j.wait(t, 0); len(got) != 0 {
		t.Errorf("into the log went %v", got)
	}
	book.mustSay(t, "this connection is node e1 of group county")
}
