// Package broker is what the listeners of devices and the connections to brokers elsewhere
// have in common: an edge node of Sparkplug B, as the host application sees it.
package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/citywarden/citywarden"
)

// Sparkplug B, version 3.0 of its specification. An edge node is a gateway here, its
// devices are those behind it. The births of a node tell the names and types of the
// metrics that its data call by numbers; a message is completed from them before it
// goes into the log: there it can be understood alone, whenever it is read again.

// SparkplugSpace begins the topics of Sparkplug B, SparkplugHost is where the platform says
// that it is there: with that id nodes name it as their primary host.
const (
	SparkplugSpace = "spBv1.0/"
	SparkplugHost  = SparkplugSpace + STATE + "/citywarden"
)

// What a topic of Sparkplug B is for.
const (
	STATE  = "STATE"
	NBIRTH = "NBIRTH"
	NDATA  = "NDATA"
	NDEATH = "NDEATH"
	NCMD   = "NCMD"
	DBIRTH = "DBIRTH"
	DDATA  = "DDATA"
	DDEATH = "DDEATH"
	DCMD   = "DCMD"
)

// The limits of what is remembered of a node.
const (
	MaxNodeMetrics = 16384 // of a node and its devices
	MaxNodeName    = 256   // bytes of the name of a metric, a device, or a node at a broker elsewhere and its group

	maxDevices     = 4096             // of a node
	maxCompleted   = 1 << 20          // bytes of a message with the names of its metrics: the log takes no more
	birthPause     = 10 * time.Second // between two requests for births; between those for one reason it doubles
	longBirthPause = 10 * time.Minute // up to this
	calmBirths     = 20 * time.Minute // without a request for that reason; then it begins anew
)

// Why a node is asked for its births.
const (
	messagesMissing  = "messages are missing"
	dataUnexplained  = "data came that no birth explains"
	deviceBeforeNode = "a device was born before its node"
)

// NodeTopic is a topic, or a filter, of Sparkplug B; the zero NodeTopic is none.
type NodeTopic struct{ Group, What, Node, Device string }

// ParseNodeTopic takes topic apart.
func ParseNodeTopic(topic string) NodeTopic {
	rest, ok := strings.CutPrefix(topic, SparkplugSpace)
	if !ok {
		return NodeTopic{}
	}
	p := strings.Split(rest, "/")
	if len(p) == 2 && p[0] == STATE {
		if topic == SparkplugHost || p[1] == "+" || p[1] == "#" {
			return NodeTopic{What: STATE}
		}
		return NodeTopic{}
	}
	if len(p) < 3 || len(p) > 4 || slices.Contains(p, "") || strings.ContainsAny(p[0]+p[2], "+#") {
		return NodeTopic{}
	}
	t := NodeTopic{Group: p[0], What: p[1], Node: p[2]}
	if len(p) == 4 {
		t.Device = p[3]
	}
	switch t.What {
	case NBIRTH, NDATA, NDEATH:
		ok = t.Device == ""
	case NCMD:
		ok = t.Device == "" || t.Device == "#"
	case DBIRTH, DDATA, DDEATH:
		ok = t.Device != "" && !strings.ContainsAny(t.Device, "+#")
	case DCMD:
		ok = t.Device != ""
	default:
		ok = false
	}
	if !ok {
		return NodeTopic{}
	}
	return t
}

// Said reports whether t is of what nodes say.
func (t NodeTopic) Said() bool {
	switch t.What {
	case NBIRTH, NDATA, NDEATH, DBIRTH, DDATA, DDEATH:
		return true
	}
	return false
}

// Reaches reports whether t is a filter for the commands of the device.
func (t NodeTopic) Reaches(device string) bool {
	return t.What == DCMD && (t.Device == "#" || t.Device == "+" || t.Device == device)
}

// Room is how many metrics and devices several nodes together may have remembered.
type Room struct{ left atomic.Int64 }

// NewRoom returns room for so many metrics and devices.
func NewRoom(things int) *Room {
	r := &Room{}
	r.left.Store(int64(things))
	return r
}

// take takes room for n more, or gives it back when n is negative.
func (r *Room) take(n int) bool {
	if r == nil || r.left.Add(int64(-n)) >= 0 || n < 0 {
		return true
	}
	r.left.Add(int64(n))
	return false
}

// full reports whether there is no room for one more.
func (r *Room) full() bool { return r != nil && r.left.Load() <= 0 }

// Node is an edge node. Any goroutine may use it, but its messages are taken one after the other.
type Node struct {
	Group, Name string

	room *Room

	mu      sync.Mutex
	born    bool
	unsure  bool // messages may be missing of which its numbers would not tell
	bdSeq   uint64
	seq     uint64                           // of its next message
	devices map[string]bool                  // that spoke and did not die since; whether they were born after the node was
	metrics map[string]map[string]bornMetric // by device, "" for the node itself, and name
	aliases map[uint64]bornMetric
	size    int               // of metrics, all together
	asked   time.Time         // when it was asked for its births last
	asks    map[string]asking // by reason
	told    map[nodeMetric]awaited
}

// asking is when a node was asked for a reason last, and for how long it isn't again.
type asking struct {
	at    time.Time
	pause time.Duration
}

// nodeMetric names a metric of a node or a device.
type nodeMetric struct{ device, name string }

// bornMetric is what a birth tells of a metric.
type bornMetric struct {
	nodeMetric
	alias    uint64
	hasAlias bool
	kind     citywarden.SparkplugType
}

// order is a command, which is carried out when each of its metrics has shown its value.
type order struct {
	device citywarden.DeviceID
	id     int64
	left   int            // metrics that have not
	shown  map[string]any // by their names
}

// awaited is the value that a metric is to show.
type awaited struct {
	order *order
	value citywarden.Value
}

// NewNode returns a node that was not born yet. Others may share the room for its metrics and devices; nil
// for MaxNodeMetrics of its own.
func NewNode(group, name string, room *Room) *Node {
	return &Node{Group: strings.Clone(group), Name: strings.Clone(name), room: room, devices: map[string]bool{}, asks: map[string]asking{}}
}

// BdSeq returns the number of a birth or a death, if it has one.
func BdSeq(payload []byte) (uint64, bool) {
	p, err := citywarden.ParseSparkplug(payload)
	if err != nil {
		return 0, false
	}
	return bdSeq(&p)
}

func bdSeq(p *citywarden.SparkplugPayload) (uint64, bool) {
	for i := range p.Metrics {
		if m := &p.Metrics[i]; m.Name == citywarden.SparkplugBdSeq {
			v, err := m.Value()
			return uint64(max(v.Float(), 0)), err == nil
		}
	}
	return 0, false
}

// Message is what becomes of a message of a node.
type Message struct {
	Uplinks []citywarden.Uplink         // what goes into the log, the message itself first
	Payload citywarden.SparkplugPayload // with the names of its metrics; empty when it can't be read
	BdSeq   uint64                      // of an NBIRTH
	Asks    []string                    // why the node is to be asked for its births, if it may be: see MayAsk
	Partly  bool                        // not all of a birth is remembered
	Cut     bool                        // with the names of all its metrics it would be too long: the rest are dead letters
}

// Take takes a message but an NDEATH, said over protocol by the node that is gateway. What it
// returns refers to payload.
func (n *Node) Take(gateway citywarden.DeviceID, protocol string, t NodeTopic, payload []byte) Message {
	up := citywarden.Uplink{Device: gateway, Protocol: protocol, Topic: citywarden.DeviceSparkplug, Payload: payload, Received: time.Now().UTC()}
	if t.Device != "" {
		up.Topic = citywarden.GatewaySparkplug + t.What + "/" + t.Device
	}
	m := Message{Uplinks: []citywarden.Uplink{up}}
	p, err := citywarden.ParseSparkplug(payload)
	if err != nil { // the decoder says why
		return m
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if missing := n.count(t.What, &p); missing > 0 {
		m.Asks = append(m.Asks, messagesMissing)
		m.Uplinks = append(m.Uplinks, citywarden.Uplink{Device: gateway, Protocol: protocol, Topic: citywarden.DeviceMissing, Payload: strconv.AppendUint(nil, missing, 10), Received: up.Received})
	}
	switch t.What {
	case NBIRTH, DBIRTH:
		m.Partly = !n.birth(t, &p)
		if m.BdSeq = n.bdSeq; !n.born && !m.Partly {
			m.Asks = append(m.Asks, deviceBeforeNode)
		}
	case DDEATH:
		n.forget(t.Device)
		if _, ok := n.devices[t.Device]; ok {
			delete(n.devices, t.Device)
			n.room.take(-1)
		}
	case NDATA, DDATA:
		size, known, whole := n.complete(t.Device, &p, len(payload))
		if size > len(payload) {
			m.Uplinks[0].Payload = p.Append(make([]byte, 0, size))
		}
		if m.Cut = !whole; !known {
			m.Asks = append(m.Asks, dataUnexplained)
		}
	}
	m.Payload = p
	return m
}

// Unsure is called when messages may have got lost without a number that tells: a birth may be among them.
func (n *Node) Unsure() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unsure = true
}

// Born reports whether the node was born and did not die since.
func (n *Node) Born() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.born
}

// count notes the number of a message and returns how many before it are missing. It needs mu.
func (n *Node) count(what string, p *citywarden.SparkplugPayload) (missing uint64) {
	if what == NBIRTH {
		n.seq, n.unsure = (p.Seq+1)%256, false
		return 0
	}
	if !p.HasSeq || !n.born {
		return 0
	}
	if missing = (p.Seq - n.seq) % 256; missing == 255 { // the one before again
		return 0
	}
	n.seq = (p.Seq + 1) % 256
	if missing > 0 && n.unsure { // its births may say something else by now
		n.die()
	}
	n.unsure = false
	return missing
}

// birth notes the metrics of a birth and reports whether it noted all. It needs mu.
func (n *Node) birth(t NodeTopic, p *citywarden.SparkplugPayload) (whole bool) {
	device := strings.Clone(t.Device) // not the whole topic
	if t.What == NBIRTH {
		n.room.take(-n.size)
		n.born = true
		n.size, n.metrics, n.aliases, n.told = 0, map[string]map[string]bornMetric{}, map[uint64]bornMetric{}, map[nodeMetric]awaited{}
		for d := range n.devices {
			n.devices[d] = false
		}
		if seq, ok := bdSeq(p); ok {
			n.bdSeq = seq
		}
	}
	n.forget(device)
	n.hear(device)
	if _, ok := n.devices[device]; ok && n.born {
		n.devices[device] = true
	}
	return n.remember(device, p)
}

// hear notes that a device speaks. It needs mu.
func (n *Node) hear(device string) {
	if _, ok := n.devices[device]; !ok && n.remembers(device) && n.room.take(1) {
		n.devices[strings.Clone(device)] = false
	}
}

// remembers reports whether a device is, or has room, in devices. It needs mu.
func (n *Node) remembers(device string) bool {
	_, ok := n.devices[device]
	return ok || device != "" && len(device) <= MaxNodeName && len(n.devices) < maxDevices && !n.room.full()
}

// remember notes the metrics of a birth and reports whether it noted all: a node may have
// too many, and too long names. It needs mu.
func (n *Node) remember(device string, p *citywarden.SparkplugPayload) (whole bool) {
	switch {
	case !n.born:
		return true
	case n.size+len(p.Metrics) > MaxNodeMetrics || len(n.metrics) >= maxDevices || len(device) > MaxNodeName || !n.room.take(len(p.Metrics)):
		return false
	}
	whole = true
	of := map[string]bornMetric{} // without room for all, which may be the same
	n.metrics[device] = of
	for i := range p.Metrics {
		m := &p.Metrics[i]
		if len(m.Name) > MaxNodeName {
			whole = false
			continue
		}
		if _, twice := of[m.Name]; twice || m.Name == "" {
			continue
		}
		b := bornMetric{nodeMetric{device, m.Name}, m.Alias, m.HasAlias, m.Type}
		of[m.Name] = b
		if m.HasAlias {
			n.aliases[m.Alias] = b
		}
	}
	n.size += len(of)
	n.room.take(len(of) - len(p.Metrics))
	return whole
}

// forget forgets the metrics of a device, or of the node itself. It needs mu.
func (n *Node) forget(device string) {
	for _, m := range n.metrics[device] {
		if n.aliases[m.alias].nodeMetric == m.nodeMetric {
			delete(n.aliases, m.alias)
		}
	}
	n.size -= len(n.metrics[device])
	n.room.take(-len(n.metrics[device]))
	delete(n.metrics, device)
	maps.DeleteFunc(n.told, func(m nodeMetric, _ awaited) bool { return m.device == device })
}

// die forgets all that the births told. It needs mu.
func (n *Node) die() {
	n.room.take(-n.size)
	n.born, n.size, n.metrics, n.aliases, n.told = false, 0, nil, nil, nil
}

// leave forgets the devices, too. It needs mu.
func (n *Node) leave() {
	n.die()
	n.room.take(-len(n.devices))
	n.devices = map[string]bool{}
}

// Leave gives back the room of a node that is not asked any more.
func (n *Node) Leave() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leave()
}

// complete gives the metrics of data of size bytes the names and types that their births
// told. It returns at most how many bytes the data have now, more when it changed
// anything, whether a request for births would tell nothing new, and whether there was room for all. It needs mu.
func (n *Node) complete(device string, p *citywarden.SparkplugPayload, size int) (completed int, known, whole bool) {
	n.hear(device)
	_, remembered := n.metrics[device]
	known = n.born && (device == "" || n.devices[device] || !n.remembers(device))
	completed, whole = size, true
	for i := range p.Metrics {
		m := &p.Metrics[i]
		b, ok := n.metrics[device][m.Name]
		if m.Name == "" && m.HasAlias {
			b, ok = n.aliases[m.Alias]
			ok = ok && b.device == device
			known = known && (ok || !remembered)
		}
		if !ok || m.Name != "" && (m.Type != 0 || b.kind == 0) {
			continue
		}
		more := 16 // the fields, without the name
		if m.Name == "" {
			more += len(b.name)
		}
		if completed+more > maxCompleted {
			whole = false
			continue
		}
		completed += more
		if m.Name == "" {
			m.Name = b.name
		}
		if m.Type == 0 {
			m.Type = b.kind
		}
	}
	return completed, known, whole
}

// Death returns what an NDEATH is in the log: the devices of the node went, and then itself,
// last as what they say of it counts as its sign of life. It
// belongs to a birth; one that comes after the node was born again says nothing, which is an error, as
// is what own returns.
func (n *Node) Death(gateway citywarden.DeviceID, protocol string, payload []byte, own func() error) ([]citywarden.Uplink, error) {
	number, ok := BdSeq(payload)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !n.born:
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "a death without a birth before it")
	case !ok || number != n.bdSeq:
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "the bdSeq of the death is not %d, as that of the birth is", n.bdSeq)
	}
	if err := own(); err != nil {
		return nil, err
	}
	devices := slices.Sorted(maps.Keys(n.devices))
	n.leave()
	now := time.Now().UTC()
	ups := make([]citywarden.Uplink, 0, len(devices)+1)
	for _, device := range devices {
		ups = append(ups, citywarden.Uplink{Device: gateway, Protocol: protocol, Topic: citywarden.GatewaySparkplug + NDEATH + "/" + device, Received: now})
	}
	return append(ups, citywarden.Uplink{Device: gateway, Protocol: protocol, Topic: citywarden.DeviceDisconnected, Payload: payload, Received: now}), nil
}

// MayAsk reports whether the node may be asked for its births, which is noted: not more
// often than it can send them, and ever less often while they don't help.
func (n *Node) MayAsk(why string, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := n.asks[why]
	since := now.Sub(a.at)
	if now.Sub(n.asked) < birthPause || since < a.pause {
		return false
	}
	a.at, a.pause = now, min(2*a.pause, longBirthPause)
	if since >= calmBirths {
		a.pause = birthPause
	}
	n.asked, n.asks[why] = now, a
	return true
}

// Rebirth returns the topic and the payload that ask the node for its births.
func (n *Node) Rebirth() (topic string, payload []byte) {
	m := citywarden.SparkplugMetric{Name: citywarden.SparkplugRebirth, Type: citywarden.SparkplugBoolean}
	_ = m.Set(citywarden.Bool(true)) // of that type: no error
	return SparkplugSpace + n.Group + "/" + NCMD + "/" + n.Name, commandPayload(m)
}

func commandPayload(ms ...citywarden.SparkplugMetric) []byte {
	p := citywarden.SparkplugPayload{Time: uint64(time.Now().UnixMilli()), Metrics: ms}
	return p.Append(nil)
}

// call gives m the type that the birth told, and its number instead of its name where
// there is one [tck-id-payloads-alias-data-cmd-requirement]. It needs mu.
func (n *Node) call(device string, m *citywarden.SparkplugMetric) {
	b, ok := n.metrics[device][m.Name]
	if !ok { // as the names of readings are found
		for _, name := range slices.Sorted(maps.Keys(n.metrics[device])) {
			if strings.HasSuffix(name, "/"+m.Name) {
				b, ok = n.metrics[device][name], true
				break
			}
		}
	}
	if ok {
		m.Name, m.Type, m.Alias, m.HasAlias = b.name, b.kind, b.alias, b.hasAlias
	}
}

// Tell sends a command to the device of the node, "" for the node itself, once it is born, and
// reports whether send took it. The error says why it can't be told over Sparkplug.
func (n *Node) Tell(device string, m citywarden.Downlink, send func(payload []byte) bool) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.born || n.metrics[device] == nil {
		return false, nil
	}
	metrics, err := n.command(device, m.Body)
	if err != nil {
		return false, err
	}
	names := make([]string, len(metrics))
	for i := range metrics {
		if names[i] = metrics[i].Name; metrics[i].HasAlias {
			metrics[i].Name = ""
		}
	}
	if !send(commandPayload(metrics...)) {
		return false, nil
	}
	o := &order{m.Device, m.ID, len(metrics), map[string]any{}}
	for i := range metrics {
		v, _ := metrics[i].Value() // it was set
		n.told[nodeMetric{device, names[i]}] = awaited{o, v}
	}
	return true, nil
}

// command returns a command as metrics: its name with true, or with its one
// parameter, or NAME/PARAMETER with each of several. It needs mu.
func (n *Node) command(device string, body []byte) ([]citywarden.SparkplugMetric, error) {
	var command struct {
		Method string         `json:"method"`
		Params map[string]any `json:"params"`
	}
	if err := json.Unmarshal(body, &command); err != nil {
		return nil, err
	}
	values := map[string]any{command.Method: true}
	if len(command.Params) > 0 {
		delete(values, command.Method)
	}
	for name, x := range command.Params {
		if len(command.Params) == 1 {
			values[command.Method] = x
			break
		}
		values[command.Method+"/"+name] = x
	}
	var out []citywarden.SparkplugMetric
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v, _ := citywarden.ValueOf(values[name]) // of a kind that the model declares
		m := citywarden.SparkplugMetric{Name: name}
		n.call(device, &m)
		if err := m.Set(v); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// Answer is what a device answered to a command, in JSON.
type Answer struct {
	Device citywarden.DeviceID
	ID     int64
	Body   []byte
}

// Shown returns the answers to the commands of which data, completed by Take, show that they
// were carried out, each metric of them.
func (n *Node) Shown(device string, p *citywarden.SparkplugPayload) []Answer {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []Answer
	for i := range p.Metrics {
		o := n.show(device, &p.Metrics[i])
		if o == nil {
			continue
		}
		all := map[string]any{"values": o.shown}
		if len(o.shown) == 1 {
			for _, v := range o.shown {
				all = map[string]any{"value": v}
			}
		}
		body, _ := json.Marshal(all) // values: no error
		out = append(out, Answer{o.device, o.id, body})
	}
	return out
}

// show returns the command of which m was the last metric to show its value, nil for none. It needs mu.
func (n *Node) show(device string, m *citywarden.SparkplugMetric) *order {
	key := nodeMetric{device, m.Name}
	a, ok := n.told[key]
	if !ok {
		return nil
	}
	if v, err := m.Value(); err != nil || v != a.value {
		return nil
	}
	delete(n.told, key)
	a.order.shown[m.Name] = a.value.Any()
	if a.order.left--; a.order.left > 0 {
		return nil
	}
	return a.order
}

// HostState is what the platform says at SparkplugHost, of the time since when it is so.
func HostState(online bool, since time.Time) []byte {
	return fmt.Appendf(nil, `{"online":%t,"timestamp":%d}`, online, since.UnixMilli())
}

// Acceptor takes responsibility for messages.
type Acceptor interface {
	// Accept calls done exactly once, with nil once up is durable.
	Accept(ctx context.Context, up citywarden.Uplink, done func(error))
}

// AcceptAll has a take all of ups, and calls done once all are durable, or with the first error. Of
// none it calls done at once.
func AcceptAll(ctx context.Context, a Acceptor, ups []citywarden.Uplink, done func(error)) {
	if len(ups) == 0 {
		done(nil)
		return
	}
	var mu sync.Mutex
	var first error
	left := len(ups)
	for _, up := range ups {
		a.Accept(ctx, up, func(err error) {
			mu.Lock()
			first = cmp.Or(first, err)
			left--
			over := left == 0
			mu.Unlock()
			if over {
				done(first)
			}
		})
	}
}
