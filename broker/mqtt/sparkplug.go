package mqtt

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
)

// Sparkplug B, version 3.0 of its specification. An edge node is a gateway here, its
// devices are those behind it. The births of a node tell the names and types of the
// metrics that its data call by numbers; each session begins with them, so they live as
// long as the connection does, and a message is completed from them before it
// goes into the log: there it can be understood alone, whenever it is read again.
//
// The platform is the host application: it publishes its STATE to each node that
// subscribes to it, and asks for births when a message got lost, or when data came
// that no birth explains. Those are dead letters.

const (
	sparkplugSpace = "spBv1.0/"
	sparkplugHost  = sparkplugSpace + "STATE/citywarden" // with that id nodes name the platform as their primary host

	sparkplugSTATE  = "STATE"
	sparkplugNBIRTH = "NBIRTH"
	sparkplugNDATA  = "NDATA"
	sparkplugNDEATH = "NDEATH"
	sparkplugNCMD   = "NCMD"
	sparkplugDBIRTH = "DBIRTH"
	sparkplugDDATA  = "DDATA"
	sparkplugDDEATH = "DDEATH"
	sparkplugDCMD   = "DCMD"

	maxNodeMetrics = 16384            // of a node and its devices, that are remembered
	maxNodeName    = 256              // bytes of the name of a metric or a device that is remembered
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

// nodeTopic is a topic, or a filter, of Sparkplug B; the zero nodeTopic is none.
type nodeTopic struct{ group, what, node, device string }

// sparkplugTopic takes topic apart.
func sparkplugTopic(topic string) nodeTopic {
	rest, ok := strings.CutPrefix(topic, sparkplugSpace)
	if !ok {
		return nodeTopic{}
	}
	p := strings.Split(rest, "/")
	if len(p) == 2 && p[0] == sparkplugSTATE {
		if topic == sparkplugHost || p[1] == "+" || p[1] == "#" {
			return nodeTopic{what: sparkplugSTATE}
		}
		return nodeTopic{}
	}
	if len(p) < 3 || len(p) > 4 || slices.Contains(p, "") || strings.ContainsAny(p[0]+p[2], "+#") {
		return nodeTopic{}
	}
	t := nodeTopic{group: p[0], what: p[1], node: p[2]}
	if len(p) == 4 {
		t.device = p[3]
	}
	switch t.what {
	case sparkplugNBIRTH, sparkplugNDATA, sparkplugNDEATH:
		ok = t.device == ""
	case sparkplugNCMD:
		ok = t.device == "" || t.device == "#"
	case sparkplugDBIRTH, sparkplugDDATA, sparkplugDDEATH:
		ok = t.device != "" && !strings.ContainsAny(t.device, "+#")
	case sparkplugDCMD:
		ok = t.device != ""
	default:
		ok = false
	}
	if !ok {
		return nodeTopic{}
	}
	return t
}

// node is an edge node. The reading goroutine uses it, and who tells it something.
type node struct {
	group, name string
	will        uint64 // bdSeq of its will
	hasWill     bool

	mu      sync.Mutex
	born    bool
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

// nodeKey names a node of a gateway.
type nodeKey struct {
	gateway     citywarden.DeviceID
	group, node string
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

func newNode(t nodeTopic, will []byte) *node {
	n := &node{group: strings.Clone(t.group), name: strings.Clone(t.node), devices: map[string]bool{}, asks: map[string]asking{}}
	n.will, n.hasWill = bdSeq(will)
	return n
}

// bdSeq returns the number of a birth or a death.
func bdSeq(payload []byte) (uint64, bool) {
	p, err := citywarden.ParseSparkplug(payload)
	if err != nil {
		return 0, false
	}
	for i := range p.Metrics {
		if m := &p.Metrics[i]; m.Name == citywarden.SparkplugBdSeq {
			v, err := m.Value()
			return uint64(max(v.Float(), 0)), err == nil
		}
	}
	return 0, false
}

// is reports whether t is of this node; the first one that is asked for is.
func (c *conn) is(t nodeTopic) bool {
	if c.node == nil {
		c.node = newNode(t, nil)
	}
	return c.node.group == t.group && c.node.name == t.node
}

// mayControl reports whether the node may subscribe to filter.
func (c *conn) mayControl(filter string) bool {
	t := sparkplugTopic(filter)
	switch t.what {
	case sparkplugSTATE:
		return true
	case sparkplugNCMD, sparkplugDCMD:
		return c.is(t)
	}
	return false
}

// sparkplug takes a message of an edge node.
func (c *conn) sparkplug(pk *packets.Packet) {
	t := sparkplugTopic(pk.TopicName)
	switch t.what {
	case sparkplugNBIRTH, sparkplugNDATA, sparkplugNDEATH, sparkplugDBIRTH, sparkplugDDATA, sparkplugDDEATH:
	default:
		c.refuse(pk, citywarden.Errorf(citywarden.CodeDenied, "topic %q: %s", clip(pk.TopicName), publishAdvice))
		return
	}
	if !c.is(t) {
		c.refuse(pk, citywarden.Errorf(citywarden.CodeDenied, "topic %q: this connection is node %s of group %s", clip(pk.TopicName), clip(c.node.name), clip(c.node.group)))
		return
	}
	if c.repeated(pk) {
		return
	}
	if t.what == sparkplugNDEATH {
		ups, err := c.death(pk.Payload)
		if err != nil {
			c.refuse(pk, err)
			return
		}
		c.acceptAll(pk, ups[len(ups)-1], ups)
		return
	}
	up := citywarden.Uplink{Device: c.device, Protocol: "mqtt", Topic: citywarden.DeviceSparkplug, Payload: pk.Payload, Received: time.Now().UTC()}
	if t.device != "" {
		up.Topic = citywarden.GatewaySparkplug + t.what + "/" + t.device
	}
	ups := []citywarden.Uplink{up}
	p, err := citywarden.ParseSparkplug(pk.Payload)
	if err != nil { // the decoder says why
		c.acceptAll(pk, up, ups)
		return
	}
	if missing := c.node.count(t.what, &p); missing > 0 {
		c.askForBirth(messagesMissing)
		ups = append(ups, citywarden.Uplink{Device: c.device, Protocol: "mqtt", Topic: citywarden.DeviceMissing, Payload: strconv.AppendUint(nil, missing, 10), Received: up.Received})
	}
	switch t.what {
	case sparkplugNBIRTH, sparkplugDBIRTH:
		c.birth(t, &p)
	case sparkplugDDEATH:
		c.node.forget(t.device)
	case sparkplugNDATA, sparkplugDDATA:
		size, known, whole := c.node.complete(t.device, &p, len(pk.Payload))
		if size > len(pk.Payload) {
			ups[0].Payload = p.Append(make([]byte, 0, size))
			pk.Payload = ups[0].Payload // for what waits is counted in bytes
		}
		if !known {
			c.askForBirth(dataUnexplained)
		}
		if !whole && c.warnOnce("completed") {
			c.warn("message of a Sparkplug node is too long with the names of its metrics; the rest of them are dead letters; let it send fewer at once", "topic", clip(pk.TopicName), "most_bytes", maxCompleted)
		}
	}
	c.acceptAll(pk, ups[0], ups)
	if t.what == sparkplugNDATA || t.what == sparkplugDDATA {
		c.carriedOut(t.device, &p)
	}
}

// count notes the number of a message and returns how many before it are missing.
func (n *node) count(what string, p *citywarden.SparkplugPayload) (missing uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if what == sparkplugNBIRTH {
		n.seq = (p.Seq + 1) % 256
		return 0
	}
	if !p.HasSeq || !n.born {
		return 0
	}
	if missing = (p.Seq - n.seq) % 256; missing == 255 { // the one before again
		return 0
	}
	n.seq = (p.Seq + 1) % 256
	return missing
}

// birth notes the metrics of a birth. Commands that wait go out now.
func (c *conn) birth(t nodeTopic, p *citywarden.SparkplugPayload) {
	n, device := c.node, strings.Clone(t.device) // not the whole topic
	n.mu.Lock()
	if t.what == sparkplugNBIRTH {
		n.born = true
		n.size, n.metrics, n.aliases, n.told = 0, map[string]map[string]bornMetric{}, map[uint64]bornMetric{}, map[nodeMetric]awaited{}
		for d := range n.devices {
			n.devices[d] = false
		}
		for i := range p.Metrics {
			if m := &p.Metrics[i]; m.Name == citywarden.SparkplugBdSeq {
				v, _ := m.Value()
				n.bdSeq = uint64(max(v.Float(), 0))
			}
		}
		if n.hasWill && n.will != n.bdSeq && c.warnOnce(citywarden.SparkplugBdSeq) {
			c.warn("birth and will of a Sparkplug node do not belong together; its death will be ignored", "bdSeq", n.bdSeq, "bdSeq_of_will", n.will)
		}
		c.listener.broker.nodes.Store(c.nodeKey(), c)
	}
	n.forgetLocked(device)
	if n.hear(device); n.born && n.remembers(device) {
		n.devices[device] = true
	}
	whole := n.remember(device, p)
	born := n.born
	n.mu.Unlock()
	switch {
	case !whole && c.warnOnce("metrics"):
		c.warn("births of a Sparkplug node are not all remembered; send the names of metrics with their data", "most", maxNodeMetrics, "most_bytes_of_a_name", maxNodeName)
	case !born:
		c.askForBirth(deviceBeforeNode)
	}
	if device == "" {
		c.listenAgain()
		return
	}
	if id, err := c.listener.broker.opts.Down.Child(c.device, device); err == nil {
		c.call(id, device)
		c.listenOnce(id, device)
	}
}

// nodeKey returns which node c is.
func (c *conn) nodeKey() nodeKey { return nodeKey{c.device, c.node.group, c.node.name} }

// hear notes that a device speaks. It needs mu.
func (n *node) hear(device string) {
	if _, ok := n.devices[device]; !ok && device != "" && n.remembers(device) {
		n.devices[strings.Clone(device)] = false
	}
}

// remembers reports whether a device is, or has room, in devices. It needs mu.
func (n *node) remembers(device string) bool {
	_, ok := n.devices[device]
	return ok || device != "" && len(device) <= maxNodeName && len(n.devices) < maxNames
}

// remember notes the metrics of a birth and reports whether it noted all: a node may have
// too many, and too long names. It needs mu.
func (n *node) remember(device string, p *citywarden.SparkplugPayload) (whole bool) {
	switch {
	case !n.born:
		return true
	case n.size+len(p.Metrics) > maxNodeMetrics || len(n.metrics) >= maxNames || len(device) > maxNodeName:
		return false
	}
	whole = true
	of := map[string]bornMetric{} // without room for all, which may be the same
	n.metrics[device] = of
	for i := range p.Metrics {
		m := &p.Metrics[i]
		if len(m.Name) > maxNodeName {
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
	return whole
}

// listenAgain asks for the node's commands that have waited for its birth.
func (c *conn) listenAgain() {
	c.mu.Lock()
	subs := maps.Clone(c.subs)
	c.mu.Unlock()
	for filter, s := range subs {
		if sparkplugTopic(filter).what == sparkplugNCMD {
			c.subscribe(filter, s.qos)
		}
	}
}

// listenOnce asks for the commands that have waited for the birth of a device, and not
// for those of all that are behind the gateway.
func (c *conn) listenOnce(id citywarden.DeviceID, device string) {
	c.mu.Lock()
	subs := maps.Clone(c.subs)
	c.mu.Unlock()
	for filter := range subs {
		if sparkplugTopic(filter).reaches(device) {
			c.listener.broker.opts.Down.Listen(id, citywarden.DownlinkCommand, func(m citywarden.Downlink) bool { return c.tell(filter, m) })()
		}
	}
}

// reaches reports whether t is a filter for the commands of the device.
func (t nodeTopic) reaches(device string) bool {
	return t.what == sparkplugDCMD && (t.device == "#" || t.device == "+" || t.device == device)
}

func (n *node) forget(device string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgetLocked(device)
	delete(n.devices, device)
}

// forgetLocked needs mu.
func (n *node) forgetLocked(device string) {
	for _, m := range n.metrics[device] {
		if n.aliases[m.alias].nodeMetric == m.nodeMetric {
			delete(n.aliases, m.alias)
		}
	}
	n.size -= len(n.metrics[device])
	delete(n.metrics, device)
	maps.DeleteFunc(n.told, func(m nodeMetric, _ awaited) bool { return m.device == device })
}

// complete gives the metrics of data of size bytes the names and types that their births
// told. It returns at most how many bytes the data have now, more when it changed
// anything, whether a request for births would tell nothing new, and whether there was room for all.
func (n *node) complete(device string, p *citywarden.SparkplugPayload, size int) (completed int, known, whole bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
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

// death returns what a death is in the log: the devices of the node went, and then itself,
// last as what they say of it counts as its sign of life. It
// belongs to a birth; one that comes after the node was born again says nothing.
func (c *conn) death(payload []byte) ([]citywarden.Uplink, error) {
	n := c.node
	number, ok := bdSeq(payload)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !n.born:
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "a death without a birth before it")
	case !ok || number != n.bdSeq:
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "the bdSeq of the death is not %d, as that of the birth is", n.bdSeq)
	case !c.listener.broker.nodes.CompareAndDelete(c.nodeKey(), c):
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "the node was born again in another connection")
	}
	devices := slices.Sorted(maps.Keys(n.devices))
	n.born = false
	n.size, n.devices, n.metrics, n.aliases, n.told = 0, map[string]bool{}, nil, nil, nil
	now := time.Now().UTC()
	ups := make([]citywarden.Uplink, 0, len(devices)+1)
	for _, device := range devices {
		ups = append(ups, citywarden.Uplink{Device: c.device, Protocol: "mqtt", Topic: citywarden.GatewaySparkplug + sparkplugDDEATH + "/" + device, Received: now})
	}
	return append(ups, citywarden.Uplink{Device: c.device, Protocol: "mqtt", Topic: citywarden.DeviceDisconnected, Payload: payload, Received: now}), nil
}

// mayAsk reports whether the node may be asked for its births, which is noted: not more
// often than it can send them, and ever less often while they don't help.
func (n *node) mayAsk(why string, now time.Time) bool {
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

// askForBirth asks the node for its births.
func (c *conn) askForBirth(why string) {
	n := c.node
	if !n.mayAsk(why, time.Now()) {
		return
	}
	filter := ""
	c.mu.Lock()
	for f := range c.subs {
		if sparkplugTopic(f).what == sparkplugNCMD {
			filter = f
		}
	}
	c.mu.Unlock()
	m := citywarden.SparkplugMetric{Name: citywarden.SparkplugRebirth, Type: citywarden.SparkplugBoolean}
	if err := m.Set(citywarden.Bool(true)); err != nil || !c.deliver(filter, sparkplugSpace+n.group+"/"+sparkplugNCMD+"/"+n.name, commandPayload(m), nil) {
		c.warn("Sparkplug node can't be asked for its births", "because", why, "do", "let it subscribe to "+sparkplugSpace+n.group+"/NCMD/"+n.name, "err", err)
		return
	}
	c.listener.broker.log.Info("Sparkplug node was asked for its births", "device", c.device, "because", why)
}

func commandPayload(ms ...citywarden.SparkplugMetric) []byte {
	p := citywarden.SparkplugPayload{Time: uint64(time.Now().UnixMilli()), Metrics: ms}
	return p.Append(nil)
}

// call gives m the type that the birth told, and its number instead of its name where
// there is one [tck-id-payloads-alias-data-cmd-requirement]. It needs mu.
func (n *node) call(device string, m *citywarden.SparkplugMetric) {
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

// tellNode sends a command to the node or to a device of it, once it is born.
func (c *conn) tellNode(filter string, m citywarden.Downlink) bool {
	t, own, device := sparkplugTopic(filter), m.Device == c.device, ""
	if !own {
		device = c.name(m.Device)
	}
	if own && t.what != sparkplugNCMD || !own && !t.reaches(device) {
		return false
	}
	n := c.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.born || n.metrics[device] == nil {
		return false
	}
	metrics, err := commandMetrics(n, device, m.Body)
	if err != nil {
		c.warn("command can't be sent over Sparkplug", "to", m.Device, "command", m.ID, "err", err)
		return false
	}
	topic := sparkplugSpace + n.group + "/" + t.what + "/" + n.name
	if device != "" {
		topic += "/" + device
	}
	names := make([]string, len(metrics))
	for i := range metrics {
		if names[i] = metrics[i].Name; metrics[i].HasAlias {
			metrics[i].Name = ""
		}
	}
	if !c.deliver(filter, topic, commandPayload(metrics...), m.Done) {
		return false
	}
	o := &order{m.Device, m.ID, len(metrics), map[string]any{}}
	for i := range metrics {
		v, _ := metrics[i].Value() // it was set
		n.told[nodeMetric{device, names[i]}] = awaited{o, v}
	}
	return true
}

// commandMetrics returns a command as metrics: its name with true, or with its one
// parameter, or NAME/PARAMETER with each of several. n.mu is held.
func commandMetrics(n *node, device string, body []byte) ([]citywarden.SparkplugMetric, error) {
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

// carriedOut answers commands of which data show that they were carried out, each metric of them.
func (c *conn) carriedOut(device string, p *citywarden.SparkplugPayload) {
	for i := range p.Metrics {
		o := c.node.show(device, &p.Metrics[i])
		if o == nil {
			continue
		}
		all := map[string]any{"values": o.shown}
		if len(o.shown) == 1 {
			for _, v := range o.shown {
				all = map[string]any{"value": v}
			}
		}
		answer, _ := json.Marshal(all) // values: no error
		if err := c.listener.broker.opts.Down.Answer(c.ctx, o.device, o.id, answer); err != nil && citywarden.CodeOf(err) != citywarden.CodeNotFound {
			c.warn("answer not stored", "device", o.device, "command", o.id, "err", err)
		}
	}
}

// show returns the command of which m was the last metric to show its value, nil for none.
func (n *node) show(device string, m *citywarden.SparkplugMetric) *order {
	key := nodeMetric{device, m.Name}
	n.mu.Lock()
	defer n.mu.Unlock()
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

// state is what the platform says of itself as the primary host.
func (b *Broker) state(online bool) []byte {
	at := b.since
	if !online {
		at = time.Now()
	}
	return fmt.Appendf(nil, `{"online":%t,"timestamp":%d}`, online, at.UnixMilli())
}

// sayOffline tells a node that the platform stops.
func (c *conn) sayOffline() {
	c.mu.Lock()
	var told bool
	for f := range c.subs {
		told = told || sparkplugTopic(f).what == sparkplugSTATE
	}
	c.mu.Unlock()
	if told {
		_ = c.client.WritePacket(packets.Packet{ // the connection ends anyway
			FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: sparkplugHost, Payload: c.listener.broker.state(false)})
	}
}
