package broker

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// TestSparkplugLimits: one token takes a bounded piece of memory, whatever its births say.
func TestSparkplugLimits(t *testing.T) {
	n := NewNode("county", "e1", nil)
	n.born, n.metrics, n.aliases = true, map[string]map[string]bornMetric{}, map[uint64]bornMetric{}
	long := strings.Repeat("x", MaxNodeName+1)
	birth := func(device string, ms ...citywarden.SparkplugMetric) bool {
		n.hear(device)
		return n.remember(device, &citywarden.SparkplugPayload{Metrics: ms})
	}
	name := long[1:]
	if birth("long", citywarden.SparkplugMetric{Name: long, Alias: 1, HasAlias: true}, citywarden.SparkplugMetric{Name: name, Alias: 2, HasAlias: true}) || n.size != 1 || len(n.aliases) != 1 {
		t.Errorf("of names that are too long %d metrics and %d aliases are remembered", n.size, len(n.aliases))
	}
	same := make([]citywarden.SparkplugMetric, 1000)
	for i := range same {
		same[i] = citywarden.SparkplugMetric{Name: "x", Alias: uint64(10 + i), HasAlias: true}
	}
	if !birth("same", same...) || n.size != 2 || len(n.aliases) != 2 {
		t.Errorf("of equal names %d metrics and %d aliases are remembered", n.size, len(n.aliases))
	}
	if birth(long, same[0]) || birth("many", make([]citywarden.SparkplugMetric, MaxNodeMetrics)...) || n.size != 2 || len(n.devices) != 3 {
		t.Errorf("%d metrics of %d devices are remembered", n.size, len(n.devices))
	}
	n.devices["many"] = true

	calls := citywarden.SparkplugPayload{Metrics: make([]citywarden.SparkplugMetric, MaxNodeMetrics)}
	for i := range calls.Metrics {
		calls.Metrics[i] = citywarden.SparkplugMetric{Alias: 2, HasAlias: true}
	}
	n.devices["long"] = true
	b := calls.Append(nil)
	size, known, whole := n.complete("long", &calls, len(b))
	if got := len(calls.Append(nil)); got > size || size > maxCompleted || size < maxCompleted-2*MaxNodeName || !known || whole {
		t.Errorf("%d bytes were completed to %d, said to be %d; known %t, whole %t", len(b), got, size, known, whole)
	}
	for _, device := range []string{"many", long} { // no birth would help
		named := citywarden.SparkplugPayload{Metrics: []citywarden.SparkplugMetric{{Name: "y"}, {Alias: 7, HasAlias: true}}}
		if _, known, _ := n.complete(device, &named, 10); !known {
			t.Errorf("%.8s is asked for a birth that can't be remembered", device)
		}
	}
	unborn := citywarden.SparkplugPayload{Metrics: []citywarden.SparkplugMetric{{Name: "y"}}}
	if _, known, _ := n.complete("unborn", &unborn, 10); known {
		t.Error("a device that was not born is not asked for its birth")
	}
}

// TestSparkplugAsks: requests for births come less and less often while the reason stays.
func TestSparkplugAsks(t *testing.T) {
	n := NewNode("county", "e1", nil)
	begin := time.Now()
	var got []time.Duration
	for at := time.Duration(0); at < 30*time.Minute; at += time.Second {
		if n.MayAsk(dataUnexplained, begin.Add(at)) {
			got = append(got, at/time.Second)
		}
	}
	if d := cmp.Diff([]time.Duration{0, 10, 30, 70, 150, 310, 630, 1230}, got); d != "" {
		t.Error(d)
	}
	at := begin.Add(30 * time.Minute)
	if !n.MayAsk(messagesMissing, at) || n.MayAsk(deviceBeforeNode, at.Add(birthPause-1)) || !n.MayAsk(deviceBeforeNode, at.Add(birthPause)) {
		t.Error("another reason does not wait for the pause between two requests, or for more")
	}
	at = at.Add(time.Hour)
	if !n.MayAsk(dataUnexplained, at) || !n.MayAsk(dataUnexplained, at.Add(birthPause)) {
		t.Error("the pause does not begin anew when the reason was away")
	}
}

// TestSparkplugOfTahu takes the birth that Eclipse Tahu writes.
func TestSparkplugOfTahu(t *testing.T) {
	b, err := hex.DecodeString(tahuData)
	if err != nil {
		t.Fatal(err)
	}
	n := NewNode("county", "e1", nil)
	n.born, n.metrics = true, map[string]map[string]bornMetric{"": {}}
	n.aliases = map[uint64]bornMetric{1: {nodeMetric{"", "temperature"}, 1, true, citywarden.SparkplugFloat}, 2: {nodeMetric{"", "count"}, 2, true, citywarden.SparkplugInt8}}
	p, err := citywarden.ParseSparkplug(b)
	if err != nil {
		t.Fatal(err)
	}
	if size, known, whole := n.complete("", &p, len(b)); size <= len(b) || !known || !whole {
		t.Errorf("%d bytes of %d, known %t, whole %t", size, len(b), known, whole)
	}
	p, err = citywarden.ParseSparkplug(p.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range p.Metrics {
		v, err := p.Metrics[i].Value()
		got = append(got, fmt.Sprintf("%s(%d)=%v %v", p.Metrics[i].Name, p.Metrics[i].Alias, v, err))
	}
	if diff := cmp.Diff([]string{"temperature(1)=22.5 <nil>", "count(2)=-4 <nil>"}, got); diff != "" {
		t.Error(diff)
	}
}

const tahuData = "08e8d7dfb4ab33121010011884d7dfb4ab332009650000b441120a1002200150fcffffff0f1801"

// payload is a message with one metric, called by name, or by its alias alone.
func payload(t *testing.T, seq int, name string, alias uint64, value float64) []byte {
	t.Helper()
	m := citywarden.SparkplugMetric{Name: name, Alias: alias, HasAlias: alias > 0, Type: citywarden.SparkplugDouble}
	if err := m.Set(citywarden.Number(value)); err != nil {
		t.Fatal(err)
	}
	p := citywarden.SparkplugPayload{Time: 1764000000000, Seq: uint64(seq), HasSeq: seq >= 0, Metrics: []citywarden.SparkplugMetric{m}}
	return p.Append(nil)
}

// TestSparkplugUnsure: after messages may have got lost a birth counts as long as the numbers go on, and
// not when they do not: what is called by a number could be something else by now.
func TestSparkplugUnsure(t *testing.T) {
	n := NewNode("county", "e1", nil)
	take := func(what, device string, b []byte) Message {
		return n.Take("gw", "uplink", NodeTopic{"county", what, "e1", device}, b)
	}
	name := func(m Message) string { return m.Payload.Metrics[0].Name }
	take(NBIRTH, "", payload(t, 0, "level", 1, 1))
	n.Unsure()
	if m := take(NDATA, "", payload(t, 1, "", 1, 2)); name(m) != "level" || len(m.Asks) > 0 {
		t.Errorf("the next message is %q, asks %v", name(m), m.Asks)
	}
	if m := take(NDATA, "", payload(t, 3, "", 1, 2)); name(m) != "level" || len(m.Uplinks) != 2 || string(m.Uplinks[1].Payload) != "1" {
		t.Errorf("a gap that the numbers tell: %q, %v", name(m), m.Uplinks)
	}
	n.Unsure()
	if m := take(NDATA, "", payload(t, 9, "", 1, 2)); name(m) != "" || n.Born() {
		t.Errorf("after a gap that may hide a birth it is %q", name(m))
	}
	take(NBIRTH, "", payload(t, 0, "depth", 1, 1))
	if m := take(NDATA, "", payload(t, 1, "", 1, 2)); name(m) != "depth" {
		t.Errorf("after the birth it is %q", name(m))
	}
}

// TestSparkplugRoom: nodes that share room take no more than there is, and give back what they forget.
func TestSparkplugRoom(t *testing.T) {
	room := NewRoom(3)
	one, two := NewNode("county", "e1", room), NewNode("county", "e2", room)
	birth := NodeTopic{"county", NBIRTH, "e1", ""}
	for range 3 { // again and again the same
		if one.Take("gw", "uplink", birth, payload(t, 0, "level", 1, 1)).Partly {
			t.Fatal("no room for the first")
		}
	}
	if two.Take("gw", "uplink", birth, payload(t, 0, "level", 1, 1)).Partly {
		t.Error("no room for the second")
	}
	// A device takes one, also when it was never born; then there is none for its metric.
	if device := (NodeTopic{"county", DBIRTH, "e1", "d"}); !one.Take("gw", "uplink", device, payload(t, 1, "flow", 2, 1)).Partly {
		t.Error("room for a third")
	}
	for i := range 10 {
		one.Take("gw", "uplink", NodeTopic{"county", DDATA, "e1", fmt.Sprint("x", i)}, payload(t, 2+i, "flow", 2, 1))
	}
	if len(one.devices) != 1 {
		t.Errorf("devices without room: %v", one.devices)
	}
	two.Leave()
	if device := (NodeTopic{"county", DBIRTH, "e1", "d"}); one.Take("gw", "uplink", device, payload(t, 2, "flow", 2, 1)).Partly {
		t.Error("the room of one that died is not given back")
	}
}

// FuzzNode gives a node messages of any kind and content: what is remembered of it is counted, and in bounds.
func FuzzNode(f *testing.F) {
	message := func(kind byte, b []byte) []byte { return append([]byte{kind, byte(len(b))}, b...) }
	tahu, err := hex.DecodeString(tahuData)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(message(0, []byte("\x12\x08\x0a\x01x\x10\x01\x20\x0a\x18\x00")), message(1, []byte("\x12\x04\x10\x01\x20\x0a\x18\x01"))...))
	f.Add(append(message(2, tahu), message(3, tahu)...))
	f.Add(message(5, tahu))
	kinds := []NodeTopic{{What: NBIRTH}, {What: NDATA}, {What: DBIRTH, Device: "d"}, {What: DDATA, Device: "d"}, {What: DDEATH, Device: "d"}, {What: NDEATH}, {What: DBIRTH, Device: strings.Repeat("d", MaxNodeName+1)}}
	f.Fuzz(func(t *testing.T, b []byte) {
		const most = 5
		room := NewRoom(most)
		n := NewNode("county", "e1", room)
		for len(b) >= 2 {
			topic, size := kinds[int(b[0])%len(kinds)], min(int(b[1]), len(b)-2)
			body := b[2 : 2+size]
			if unsure := b[0]&0x80 != 0; unsure {
				n.Unsure()
			}
			b = b[2+size:]
			if topic.What == NDEATH {
				_, _ = n.Death("gw", "mqtt", body, func() error { return nil })
			} else {
				m := n.Take("gw", "mqtt", topic, body)
				n.Shown(topic.Device, &m.Payload)
				_, _ = n.Tell(topic.Device, citywarden.Downlink{ID: 1, Body: []byte(`{"method":"x","params":{}}`)}, func([]byte) bool { return true })
			}
			all := 0
			for _, of := range n.metrics {
				all += len(of)
			}
			if all != n.size || all+len(n.devices) > most || int(room.left.Load()) != most-all-len(n.devices) || len(n.aliases) > all || len(n.devices) > 2 {
				t.Fatalf("%d metrics are remembered, counted %d, room for %d of %d; %d aliases, %d devices", all, n.size, room.left.Load(), most, len(n.aliases), len(n.devices))
			}
		}
	})
}

// held takes messages and keeps what says that they are durable.
type held []func(error)

func (h *held) Accept(_ context.Context, _ citywarden.Uplink, done func(error)) {
	*h = append(*h, done)
}

// TestAcceptedOnceAllAreDurable: a message that is in the log as several is acknowledged with the last of them, in
// whatever order they are synced, and not at all when one is not.
func TestAcceptedOnceAllAreDurable(t *testing.T) {
	full := errors.New("disk is full")
	for _, fails := range []int{-1, 0, 1, 2} {
		var h held
		var got []error
		AcceptAll(t.Context(), &h, make([]citywarden.Uplink, 3), func(err error) { got = append(got, err) })
		for n, i := range []int{1, 2, 0} {
			if len(got) > 0 {
				t.Fatalf("message %d fails: done with %v when %d of 3 are durable", fails, got, n)
			}
			var err error
			if i == fails {
				err = full
			}
			h[i](err)
		}
		want := error(nil)
		if fails >= 0 {
			want = full
		}
		if len(got) != 1 || got[0] != want {
			t.Errorf("message %d fails: done with %v, want once, %v", fails, got, want)
		}
	}
	AcceptAll(t.Context(), nil, nil, func(err error) {
		if err != nil {
			t.Errorf("of none: %v", err)
		}
	})
}
