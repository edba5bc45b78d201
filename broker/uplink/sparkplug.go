package uplink

import (
	"context"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker"
)

// The nodes of Sparkplug B at a broker elsewhere. What is known of a node outlasts the connection, but
// not the platform: then it is asked for its births, over the broker, when it sends data.

// asSparkplug is the kind of topics at which nodes of Sparkplug B speak.
const asSparkplug = "sparkplug"

// The limits of the nodes at one broker.
const (
	maxNodes       = 4096
	maxNodeMetrics = 16 * broker.MaxNodeMetrics // and devices, of all of them together
)

// nodeKey names a node.
type nodeKey struct {
	gateway     citywarden.DeviceID
	group, node string
}

// hosts reports whether the platform is the host application of nodes there.
func (b *Broker) hosts() bool {
	for i := range b.Topics {
		if b.Topics[i].As == asSparkplug {
			return true
		}
	}
	return false
}

// unsure is called before a connection begins: what nodes said since the last one with QoS 0, as their births, is lost.
func (l *link) unsure() {
	l.nodesMu.Lock()
	defer l.nodesMu.Unlock()
	for _, n := range l.nodes {
		n.Unsure()
	}
}

// node returns a node, nil when there is no room for one more or its names are too long. It needs nodesMu.
func (l *link) node(key nodeKey) *broker.Node {
	if n := l.nodes[key]; n != nil {
		return n
	}
	if len(key.group) > broker.MaxNodeName || len(key.node) > broker.MaxNodeName {
		return nil
	}
	if len(l.nodes) >= maxNodes {
		for k, n := range l.nodes {
			if !n.Born() {
				n.Leave()
				delete(l.nodes, k)
			}
		}
		if len(l.nodes) >= maxNodes {
			return nil
		}
	}
	n := broker.NewNode(key.group, key.node, l.room)
	l.nodes[nodeKey{key.gateway, n.Group, n.Name}] = n // not the whole topic
	return n
}

// sparkplug makes of x, which names the gateway, what goes into the log, and asks the node for its births
// where that is of use. It reports false when it says nothing: what the host or somebody else tells nodes,
// and a death that belongs to an earlier birth.
func (l *link) sparkplug(c paho.Client, x *message) bool {
	t := broker.ParseNodeTopic(x.Topic())
	if !t.Said() {
		return false
	}
	n, asks, ok := l.take(x, t)
	for _, why := range asks {
		if !n.MayAsk(why, time.Now()) {
			continue
		}
		topic, payload := n.Rebirth()
		c.Publish(topic, 0, false, payload) // QoS 0 [tck-id-topics-ncmd-mqtt]; asked again when it does not arrive
		l.log.Info("Sparkplug node was asked for its births", "device", x.up.Device, "topic", clip(topic), "because", why)
	}
	return ok
}

// take is sparkplug without the asking; it returns why the node is to be asked for its births.
func (l *link) take(x *message, t broker.NodeTopic) (n *broker.Node, asks []string, ok bool) {
	l.nodesMu.Lock()
	defer l.nodesMu.Unlock()
	n = l.node(nodeKey{x.up.Device, t.Group, t.Node})
	if n == nil {
		l.full.Do(func() {
			l.log.Warn("too many nodes of Sparkplug B, or too long a name; what they call by numbers is a dead letter", "most", maxNodes, "topic", clip(x.Topic()))
		})
		n = broker.NewNode(t.Group, t.Node, broker.NewRoom(0))
		x.ups = n.Take(x.up.Device, x.up.Protocol, t, x.Payload()).Uplinks
		return n, nil, true
	}
	if t.What == broker.NDEATH {
		if !n.Born() { // nothing is known of it, but that it went
			x.up.Topic = citywarden.DeviceDisconnected
			x.ups = []citywarden.Uplink{x.up}
			return n, nil, true
		}
		ups, err := n.Death(x.up.Device, x.up.Protocol, x.Payload(), func() error { return nil })
		if err != nil {
			l.log.Debug("death of a Sparkplug node that is none", "topic", clip(x.Topic()), "err", err)
			return n, nil, false
		}
		x.ups, x.up = ups, ups[len(ups)-1]
		return n, nil, true
	}
	m := n.Take(x.up.Device, x.up.Protocol, t, x.Payload())
	x.ups, x.up = m.Uplinks, m.Uplinks[0]
	if m.Partly || m.Cut {
		l.full.Do(func() {
			l.log.Warn("births of Sparkplug nodes are not all remembered, or data are too long with the names of their metrics; what is called by its number then is a dead letter", "topic", clip(x.Topic()), "most", maxNodeMetrics)
		})
	}
	return n, m.Asks, true
}

// sayHost says that the platform is there, or not any more, to nodes that wait for their primary host.
func (l *link) sayHost(ctx context.Context, c paho.Client, online bool, at time.Time) error {
	return await(ctx, c.Publish(broker.SparkplugHost, 1, true, broker.HostState(online, at)))
}
