package uplink

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker"
)

// metric is one of a payload of Sparkplug B.
type metric struct {
	name  string
	alias uint64 // 0 for none
	value float64
	kind  citywarden.SparkplugType // 0 for Double
}

// sparkplug writes a payload; seq is -1 for none.
func sparkplug(t *testing.T, seq int, metrics ...metric) []byte {
	t.Helper()
	p := citywarden.SparkplugPayload{Time: uint64(time.Now().UnixMilli()), Seq: uint64(max(seq, 0)), HasSeq: seq >= 0}
	for _, m := range metrics {
		x := citywarden.SparkplugMetric{Name: m.name, Alias: m.alias, HasAlias: m.alias > 0, Type: m.kind}
		if m.kind == 0 {
			x.Type = citywarden.SparkplugDouble
		}
		if err := x.Set(citywarden.Number(m.value)); err != nil {
			t.Fatal(err)
		}
		p.Metrics = append(p.Metrics, x)
	}
	return p.Append(nil)
}

// plain writes a payload for people.
func plain(b []byte) string {
	p, err := citywarden.ParseSparkplug(b)
	if err != nil || len(b) < 3 {
		return string(b)
	}
	var out []string
	for i := range p.Metrics {
		v, _ := p.Metrics[i].Value()
		out = append(out, fmt.Sprintf("%s=%v", p.Metrics[i].Name, v))
	}
	return strings.Join(out, " ")
}

// county is a platform that keeps what nodes said as text.
type county struct {
	platform
	said []string
}

func (c *county) Accept(_ context.Context, up citywarden.Uplink, done func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said = append(c.said, fmt.Sprintf("%s %s %s", up.Device, up.Topic, plain(up.Payload)))
	done(nil)
}

func (c *county) must(t *testing.T, want ...string) {
	t.Helper()
	var d string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		c.mu.Lock()
		d = cmp.Diff(want, c.said)
		c.mu.Unlock()
		if d == "" {
			return
		}
	}
	t.Fatalf("in the log (-want +got):\n%s", d)
}

// hosting runs an uplink to m that takes Sparkplug B, until the test ends or stop is called.
func hosting(t *testing.T, m *mosquitto, c *county) (n numbers, stop func()) {
	t.Helper()
	n = numbers{t, prometheus.NewRegistry(), nil}
	u, err := New(Options{
		Brokers: []Broker{{Name: "city", URL: "tcp://" + m.addr, ClientID: "citywarden", Topics: []Topic{
			{Filter: "spBv1.0/county/+/{device}/#", QoS: 1, As: asSparkplug, Device: "acme-{device}"},
			{Filter: "spBv1.0/#", QoS: 1, As: asSparkplug, Gateway: "others"},
		}}},
		Accept: c, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Metrics: n.Registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	n.await("connected", 1)
	return n, stop
}

// TestSparkplug: nodes at a mosquitto, from their births to their deaths. The platform completes what they
// say, asks them for their births over the same broker when something is missing, says that it is
// their host, and that it is not when it stops.
func TestSparkplug(t *testing.T) {
	m, c := newMosquitto(t), &county{}
	edge := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + m.addr).SetAutoReconnect(true).SetClientID("edge"))
	if tok := edge.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	defer edge.Disconnect(0)
	var mu sync.Mutex
	var told []string
	listen := func() {
		tok := edge.SubscribeMultiple(map[string]byte{"spBv1.0/county/NCMD/#": 1, broker.SparkplugHost: 1}, func(_ paho.Client, m paho.Message) {
			body := plain(m.Payload())
			var s struct{ Online *bool }
			if json.Unmarshal(m.Payload(), &s) == nil && s.Online != nil {
				body = fmt.Sprint("online ", *s.Online)
			}
			mu.Lock()
			defer mu.Unlock()
			told = append(told, m.Topic()+" "+body)
		})
		if !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
	}
	listen()
	hears := func(want ...string) {
		t.Helper()
		until(t, fmt.Sprintf("the node hears %v", want), func() bool {
			mu.Lock()
			defer mu.Unlock()
			return cmp.Equal(want, told)
		})
	}
	say := func(topic string, payload []byte) {
		t.Helper()
		qos := byte(0)
		if strings.Contains(topic, "NDEATH") {
			qos = 1
		}
		if tok := edge.Publish("spBv1.0/"+topic, qos, false, payload); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
	}
	u, stop := hosting(t, m, c)
	heard := []string{broker.SparkplugHost + " online true"}
	hears(heard...)
	number := func(n float64) metric { return metric{name: "bdSeq", kind: citywarden.SparkplugUInt64, value: n} }

	say("county/NBIRTH/e1", sparkplug(t, 0, number(3), metric{name: "level", alias: 1, value: 2}))
	say("county/DBIRTH/e1/pump", sparkplug(t, 1, metric{name: "Inputs/flow", alias: 2, value: 3}))
	say("county/DDATA/e1/pump", sparkplug(t, 2, metric{alias: 2, value: 3.5}))
	say("county/NDATA/e1", sparkplug(t, 3, metric{alias: 1, value: 2.5}))
	say("county/NCMD/e1", sparkplug(t, -1, metric{name: "Node Control/Reboot"})) // of somebody else
	say("town/NBIRTH/e1", sparkplug(t, 0, number(0), metric{name: "level", alias: 1, value: 7}))
	say("town/NDATA/e1", sparkplug(t, 1, metric{alias: 1, value: 8}))
	log := []string{
		"acme-e1 v1/devices/me/sparkplug bdSeq=3 level=2",
		"acme-e1 v1/gateway/sparkplug/DBIRTH/pump Inputs/flow=3",
		"acme-e1 v1/gateway/sparkplug/DDATA/pump Inputs/flow=3.5",
		"acme-e1 v1/devices/me/sparkplug level=2.5",
		"others v1/devices/me/sparkplug bdSeq=0 level=7",
		"others v1/devices/me/sparkplug level=8",
	}
	c.must(t, log...)
	heard = append(heard, "spBv1.0/county/NCMD/e1 Node Control/Reboot=0")
	hears(heard...)

	// Two messages are missing: it is asked for its births.
	say("county/NDATA/e1", sparkplug(t, 6, metric{alias: 1, value: 2.6}))
	log = append(log, "acme-e1 v1/devices/me/sparkplug level=2.6", "acme-e1 v1/devices/me/missing 2")
	c.must(t, log...)
	heard = append(heard, "spBv1.0/county/NCMD/e1 Node Control/Rebirth=true")
	hears(heard...)
	say("county/NBIRTH/e1", sparkplug(t, 0, number(3), metric{name: "depth", alias: 1, value: 2}))
	say("county/DBIRTH/e1/pump", sparkplug(t, 1, metric{name: "Inputs/flow", alias: 2, value: 3}))
	say("county/NDATA/e1", sparkplug(t, 2, metric{alias: 1, value: 4}))
	log = append(log, "acme-e1 v1/devices/me/sparkplug bdSeq=3 depth=2", log[1], "acme-e1 v1/devices/me/sparkplug depth=4")
	c.must(t, log...)

	// The death of an earlier session says nothing, its own does.
	say("county/NDEATH/e1", sparkplug(t, -1, number(2)))
	say("county/NDEATH/e1", sparkplug(t, -1, number(3)))
	log = append(log, "acme-e1 v1/gateway/sparkplug/NDEATH/pump ", "acme-e1 v1/devices/me/disconnect bdSeq=3")
	c.must(t, log...)
	u.await("waiting", 0)
	if n := u.of("ignored"); n < 2 || n > 4 { // the death, the command, perhaps what we say and ask ourselves
		t.Errorf("%d messages ignored", n)
	}

	// The platform that comes after does not know the births: data called by numbers make it ask.
	say("county/NBIRTH/e2", sparkplug(t, 0, number(0), metric{name: "level", alias: 1, value: 1}))
	log = append(log, "acme-e2 v1/devices/me/sparkplug bdSeq=0 level=1")
	c.must(t, log...)
	stop()
	heard = append(heard, broker.SparkplugHost+" online false")
	hears(heard...)
	hosting(t, m, c)
	heard = append(heard, broker.SparkplugHost+" online true")
	hears(heard...)
	say("county/NDATA/e2", sparkplug(t, 1, metric{alias: 1, value: 5}))
	log = append(log, "acme-e2 v1/devices/me/sparkplug =5")
	c.must(t, log...)
	heard = append(heard, "spBv1.0/county/NCMD/e2 Node Control/Rebirth=true")
	hears(heard...)
	say("county/NDEATH/e2", sparkplug(t, -1, number(0))) // its birth is not known, but that it went is
	log = append(log, "acme-e2 v1/devices/me/disconnect bdSeq=0")
	c.must(t, log...)
}

// TestSparkplugNodes: there is a bound for nodes; the dead make room.
func TestSparkplugNodes(t *testing.T) {
	l := &link{nodes: map[nodeKey]*broker.Node{}, room: broker.NewRoom(maxNodeMetrics), log: slog.New(slog.DiscardHandler)}
	for i := range maxNodes {
		n := l.node(nodeKey{"gw", "county", fmt.Sprint(i)})
		if n.Take("gw", "uplink", broker.NodeTopic{Group: "county", What: broker.NBIRTH, Node: n.Name}, sparkplug(t, 0, metric{name: "level", alias: 1})); n != l.node(nodeKey{"gw", "county", fmt.Sprint(i)}) {
			t.Fatal("a node is forgotten")
		}
	}
	if l.node(nodeKey{"gw", "county", "more"}) != nil {
		t.Error("nodes have no bound")
	}
	bdSeq := sparkplug(t, -1, metric{name: "bdSeq", kind: citywarden.SparkplugUInt64})
	if _, err := l.node(nodeKey{"gw", "county", "0"}).Death("gw", "uplink", bdSeq, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if l.node(nodeKey{"gw", "county", "more"}) == nil {
		t.Error("one that died makes no room")
	}
}

// delivery is a message as a connection hands it over.
type delivery struct {
	topic   string
	payload []byte
	again   bool
	acked   chan struct{}
}

func (d *delivery) Duplicate() bool   { return d.again }
func (d *delivery) Qos() byte         { return 1 }
func (d *delivery) Retained() bool    { return false }
func (d *delivery) Topic() string     { return d.topic }
func (d *delivery) MessageID() uint16 { return 7 }
func (d *delivery) Payload() []byte   { return d.payload }
func (d *delivery) Ack()              { close(d.acked) }

// TestIgnoredAndSentAgain: the acknowledgement of a message that says nothing is lost with its
// connection. The broker sends it again on the next one, and it is acknowledged there, or it would come for ever.
func TestIgnoredAndSentAgain(t *testing.T) {
	u, err := New(Options{
		Brokers: []Broker{{Name: "city", URL: "tcp://127.0.0.1:1", ClientID: "citywarden", Topics: []Topic{{Filter: "spBv1.0/#", QoS: 1, As: asSparkplug, Gateway: "gw"}}}},
		Accept:  &county{}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	l := u.links[0]
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { l.settleAll(ctx, ctx) })
	defer wg.Wait()
	defer cancel()
	gone := paho.NewClient(paho.NewClientOptions())
	for _, again := range []bool{false, true, true} {
		d := &delivery{"spBv1.0/county/NCMD/e1", sparkplug(t, -1, metric{name: "Node Control/Reboot"}), again, make(chan struct{})}
		l.receive(ctx, gone, d)
		select {
		case <-d.acked:
		case <-time.After(10 * time.Second):
			t.Fatalf("not acknowledged, sent again: %v", again)
		}
	}
}
