package mqtt

import (
	"maps"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker"
)

// Sparkplug B, version 3.0 of its specification; what there is to know of a node is in
// package broker. A connection is one node, whose births are known as long as it lasts.
//
// The platform is the host application: it publishes its STATE to each node that
// subscribes to it, and asks for births when a message got lost, or when data came
// that no birth explains. Those are dead letters.

// nodeKey names a node of a gateway.
type nodeKey struct {
	gateway     citywarden.DeviceID
	group, node string
}

// is reports whether t is of this node; the first one that is asked for is.
func (c *conn) is(t broker.NodeTopic) bool {
	if c.node == nil {
		c.node = broker.NewNode(t.Group, t.Node, nil)
	}
	return c.node.Group == t.Group && c.node.Name == t.Node
}

// mayControl reports whether the node may subscribe to filter.
func (c *conn) mayControl(filter string) bool {
	t := broker.ParseNodeTopic(filter)
	switch t.What {
	case broker.STATE:
		return true
	case broker.NCMD, broker.DCMD:
		return c.is(t)
	}
	return false
}

// sparkplug takes a message of an edge node.
func (c *conn) sparkplug(pk *packets.Packet) {
	t := broker.ParseNodeTopic(pk.TopicName)
	if !t.Said() {
		c.refuse(pk, citywarden.Errorf(citywarden.CodeDenied, "topic %q: %s", clip(pk.TopicName), publishAdvice))
		return
	}
	if !c.is(t) {
		c.refuse(pk, citywarden.Errorf(citywarden.CodeDenied, "topic %q: this connection is node %s of group %s", clip(pk.TopicName), clip(c.node.Name), clip(c.node.Group)))
		return
	}
	if c.repeated(pk) {
		return
	}
	if t.What == broker.NDEATH {
		ups, err := c.death(pk.Payload)
		if err != nil {
			c.refuse(pk, err)
			return
		}
		c.acceptAll(pk, ups[len(ups)-1], ups)
		return
	}
	m := c.node.Take(c.device, "mqtt", t, pk.Payload)
	pk.Payload = m.Uplinks[0].Payload // for what waits is counted in bytes
	for _, why := range m.Asks {
		c.askForBirth(why)
	}
	if m.Partly && c.warnOnce("metrics") {
		c.warn("births of a Sparkplug node are not all remembered; send the names of metrics with their data", "most", broker.MaxNodeMetrics, "most_bytes_of_a_name", broker.MaxNodeName)
	}
	if m.Cut && c.warnOnce("completed") {
		c.warn("message of a Sparkplug node is too long with the names of its metrics; the rest of them are dead letters; let it send fewer at once", "topic", clip(pk.TopicName))
	}
	if t.What == broker.NBIRTH || t.What == broker.DBIRTH {
		c.birth(t, m.BdSeq)
	}
	c.acceptAll(pk, m.Uplinks[0], m.Uplinks)
	if t.What == broker.NDATA || t.What == broker.DDATA {
		c.carriedOut(t.Device, &m.Payload)
	}
}

// birth is called when the node, or a device of it, was born. Commands that wait go out now.
func (c *conn) birth(t broker.NodeTopic, bdSeq uint64) {
	if t.What == broker.NBIRTH {
		c.listener.broker.nodes.Store(c.nodeKey(), c)
		if c.will != nil && strings.HasPrefix(c.will.Topic, broker.SparkplugSpace) {
			if will, ok := broker.BdSeq(c.will.Payload); ok && will != bdSeq && c.warnOnce(citywarden.SparkplugBdSeq) {
				c.warn("birth and will of a Sparkplug node do not belong together; its death will be ignored", "bdSeq", bdSeq, "bdSeq_of_will", will)
			}
		}
		c.listenAgain()
		return
	}
	device := strings.Clone(t.Device) // not the whole topic
	if id, err := c.listener.broker.opts.Down.Child(c.device, device); err == nil {
		c.call(id, device)
		c.listenOnce(id, device)
	}
}

// nodeKey returns which node c is.
func (c *conn) nodeKey() nodeKey { return nodeKey{c.device, c.node.Group, c.node.Name} }

// listenAgain asks for the node's commands that have waited for its birth.
func (c *conn) listenAgain() {
	c.mu.Lock()
	subs := maps.Clone(c.subs)
	c.mu.Unlock()
	for filter, s := range subs {
		if broker.ParseNodeTopic(filter).What == broker.NCMD {
			c.subscribe(filter, s.qos, s.id)
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
		if broker.ParseNodeTopic(filter).Reaches(device) {
			c.listener.broker.opts.Down.Listen(id, citywarden.DownlinkCommand, func(m citywarden.Downlink) bool { return c.tell(filter, m, false) })()
		}
	}
}

// death returns what a death is in the log.
func (c *conn) death(payload []byte) ([]citywarden.Uplink, error) {
	return c.node.Death(c.device, "mqtt", payload, func() error {
		if !c.listener.broker.nodes.CompareAndDelete(c.nodeKey(), c) {
			return citywarden.Errorf(citywarden.CodeInvalid, "the node was born again in another connection")
		}
		return nil
	})
}

// askForBirth asks the node for its births.
func (c *conn) askForBirth(why string) {
	if !c.node.MayAsk(why, time.Now()) {
		return
	}
	filter := ""
	c.mu.Lock()
	for f := range c.subs {
		if broker.ParseNodeTopic(f).What == broker.NCMD {
			filter = f
		}
	}
	c.mu.Unlock()
	topic, payload := c.node.Rebirth()
	if !c.deliver(filter, topic, payload, nil) {
		c.warn("Sparkplug node can't be asked for its births", "because", why, "do", "let it subscribe to "+topic)
		return
	}
	c.listener.broker.log.Info("Sparkplug node was asked for its births", "device", c.device, "because", why)
}

// tellNode sends a command to the node or to a device of it, once it is born.
func (c *conn) tellNode(filter string, m citywarden.Downlink, again bool) bool {
	t, own, device := broker.ParseNodeTopic(filter), m.Device == c.device, ""
	if !own {
		device = c.name(m.Device)
	}
	if own && t.What != broker.NCMD || !own && !t.Reaches(device) {
		return false
	}
	topic := broker.SparkplugSpace + c.node.Group + "/" + t.What + "/" + c.node.Name
	if device != "" {
		topic += "/" + device
	}
	sent, err := c.node.Tell(device, m, func(payload []byte) bool {
		return c.mayTake(waiting{filter, m.Device}, again) && c.deliver(filter, topic, payload, m.Done)
	})
	if err != nil {
		c.warn("command can't be sent over Sparkplug", "to", m.Device, "command", m.ID, "err", err)
	}
	return sent
}

// carriedOut answers commands of which data show that they were carried out.
func (c *conn) carriedOut(device string, p *citywarden.SparkplugPayload) {
	for _, a := range c.node.Shown(device, p) {
		if err := c.listener.broker.opts.Down.Answer(c.ctx, a.Device, a.ID, a.Body); err != nil && citywarden.CodeOf(err) != citywarden.CodeNotFound {
			c.warn("answer not stored", "device", a.Device, "command", a.ID, "err", err)
		}
	}
}

// state is what the platform says of itself as the primary host.
func (b *Broker) state(online bool) []byte {
	at := b.since
	if !online {
		at = time.Now()
	}
	return broker.HostState(online, at)
}

// sayOffline tells a node that the platform stops.
func (c *conn) sayOffline() {
	c.mu.Lock()
	var told bool
	for f := range c.subs {
		told = told || broker.ParseNodeTopic(f).What == broker.STATE
	}
	c.mu.Unlock()
	if told {
		_ = c.client.WritePacket(packets.Packet{ // the connection ends anyway
			FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: broker.SparkplugHost, Payload: c.listener.broker.state(false)})
	}
}
