// Package uplink takes messages from MQTT brokers that a city has already:
// EMQX, mosquitto, a vendor's cloud. It subscribes there with a persistent
// session and puts what comes into the log like the messages of devices that
// connect to the platform itself.
//
//	u, err := uplink.New(uplink.Options{Brokers: []uplink.Broker{{
//		Name: "emqx", URL: "ssl://emqx.example:8883", ClientID: "citywarden",
//		Topics: []uplink.Topic{{Filter: "factory/{device}/telemetry", QoS: 1, As: "telemetry"}},
//	}}, Accept: pipeline, Logger: log})
//	…
//	err = u.Run(ctx) // until ctx is done
//
// A message is acknowledged to the broker once it is durable, in the order in
// which it came. Until then the broker keeps it and sends it again when the
// connection, the platform or the broker itself ends; one that was stored and is
// sent again is known by its packet identifier and stored once, unless the platform
// was killed between: then readings with a time of their own are still counted once.
//
// The MQTT is paho's; reconnecting is ours, with a new client for each connection.
// paho's own hides whether the session was still there, and what was not
// acknowledged with it.
package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker"
)

// The limits of one broker's connection.
const (
	maxWaiting  = 256              // messages that are not durable yet; then the connection is not read
	keepAlive   = 30 * time.Second // between signs of life
	dialTimeout = 10 * time.Second // to connect and to subscribe
	tryFirst    = time.Second      // until a connection, or storing a message, is tried again; then twice that
	tryMost     = 30 * time.Second
	drainLimit  = time.Second // at the end, for acknowledgements that are under way
)

// Acceptor takes responsibility for messages.
type Acceptor interface {
	// Accept calls done exactly once, with nil once up is durable. It may block
	// to push back; then the broker's connection is not read.
	Accept(ctx context.Context, up citywarden.Uplink, done func(error))
}

// Broker is a broker elsewhere.
type Broker struct {
	Name     string // a word, for people and metrics
	URL      string // tcp, ssl, ws or wss
	ClientID string // the name of the session: nobody else may use it there
	User     string
	Password string
	TLS      *tls.Config // nil for the system's certificate authorities
	Group    string      // of a shared subscription, so that several platforms share the messages; "" for none
	Topics   []Topic     // the first that matches a message counts
}

// Topic is what is subscribed to, and what its messages are.
type Topic struct {
	Filter  string              // of MQTT; a level may be {device}
	QoS     byte                // 0 or 1
	As      string              // one of Kinds
	Device  string              // the device's id, with {device} for what stands in the topic; "" for that alone
	Gateway citywarden.DeviceID // the body is that of ThingsBoard's gateway topic, said by this device; "" for a device's
}

// Kinds are what messages can be.
var Kinds = [...]string{"telemetry", "attributes", "connect", "disconnect", "raw", "lorawan", "ctwing", asSparkplug}

const placeholder = "{device}"

// Check returns a CodeInvalid error that says what of t can't be.
func (t *Topic) Check() error {
	levels := strings.Split(t.Filter, "/")
	named := 0
	for i, l := range levels {
		switch {
		case l == placeholder:
			named++
		case strings.Contains(l, placeholder):
			return citywarden.Errorf(citywarden.CodeInvalid, "topic %q: {device} is a whole level, between slashes; text around the id is cut in device", t.Filter)
		case l == "#" && i < len(levels)-1, l != "#" && l != "+" && strings.ContainsAny(l, "#+"):
			return citywarden.Errorf(citywarden.CodeInvalid, "topic %q: + is a whole level, # the last one", t.Filter)
		}
	}
	switch {
	case t.Filter == "" || levels[0] == "$share":
		return citywarden.Errorf(citywarden.CodeInvalid, "topic %q: write a topic filter; group is for shared subscriptions", t.Filter)
	case !slices.Contains(Kinds[:], t.As):
		return citywarden.Errorf(citywarden.CodeInvalid, "%q is none; messages are %s", t.As, strings.Join(Kinds[:], ", "))
	case t.QoS > 1:
		return citywarden.Errorf(citywarden.CodeInvalid, "QoS %d; write 1, or 0 for what may get lost: what is sent twice is counted once anyway", t.QoS)
	case t.As == asSparkplug && !strings.HasPrefix(t.Filter, broker.SparkplugSpace), t.As == asSparkplug && named > 0 && (len(levels) != 5 || levels[3] != placeholder):
		return citywarden.Errorf(citywarden.CodeInvalid, "topic %q: nodes of Sparkplug B speak at spBv1.0/GROUP/+/{device}/#, where {device} is the node; or at spBv1.0/GROUP/#, with gateway for who all of them are", t.Filter)
	case t.Gateway == "" && (t.As == "lorawan" || t.As == "ctwing"):
		return citywarden.Errorf(citywarden.CodeInvalid, "topic %q: %s names the devices in its body; write the integration's device as gateway", t.Filter, t.As)
	case t.Gateway != "" && t.As == "raw":
		return citywarden.Errorf(citywarden.CodeInvalid, "topic %q: raw is of one device; leave gateway out", t.Filter)
	case t.Gateway != "" && (named > 0 || t.Device != ""):
		return citywarden.Errorf(citywarden.CodeInvalid, "topic %q: a gateway's body names the devices; leave {device} and device out", t.Filter)
	case t.Gateway != "":
		return t.Gateway.Check()
	case named != 1:
		return citywarden.Errorf(citywarden.CodeInvalid, "topic %q: one level is {device}, or gateway says whose body it is", t.Filter)
	case t.Device != "" && strings.Count(t.Device, placeholder) != 1:
		return citywarden.Errorf(citywarden.CodeInvalid, "device %q: write it with {device}, like acme-{device}", t.Device)
	}
	return nil
}

// Check returns a CodeInvalid error that says what of b can't be.
func (b *Broker) Check() error {
	for i := range b.Topics {
		if err := b.Topics[i].Check(); err != nil {
			return err
		}
	}
	if b.Group != "" && b.hosts() {
		return citywarden.Errorf(citywarden.CodeInvalid, "group %s: messages of Sparkplug B can't be shared, as the births of a node explain its data; leave group out", b.Group)
	}
	return nil
}

// filter is what is subscribed to.
func (t *Topic) filter(group string) string {
	f := strings.Replace(t.Filter, placeholder, "+", 1)
	if group != "" {
		f = "$share/" + group + "/" + f
	}
	return f
}

// match reports whether a message to topic is one of t, and what stands for {device}.
func (t *Topic) match(topic string) (name string, ok bool) {
	want, have := strings.Split(t.Filter, "/"), strings.Split(topic, "/")
	for i, l := range want {
		switch {
		case l == "#":
			return name, true
		case i == len(have):
			return "", false
		case l == placeholder:
			name = have[i]
		case l != "+" && l != have[i]:
			return "", false
		}
	}
	return name, len(have) == len(want)
}

// uplink is the message as a device, or a gateway, would have sent it, and of which kind. What
// no topic of ours matches is that of no device, and so a dead letter.
func (b *Broker) uplink(topic string, payload []byte, at time.Time) (up citywarden.Uplink, kind string) {
	up = citywarden.Uplink{Protocol: "uplink", Payload: payload, Received: at}
	for i := range b.Topics {
		t := &b.Topics[i]
		name, ok := t.match(topic)
		switch {
		case !ok:
			continue
		case t.Gateway != "":
			if up.Device, up.Topic = t.Gateway, "v1/gateway/"+t.As; t.As == asSparkplug {
				up.Topic = citywarden.DeviceSparkplug
			}
			return up, t.As
		case t.Device != "":
			name = strings.Replace(t.Device, placeholder, name, 1)
		}
		up.Device, up.Topic = printable(name), "v1/devices/me/"+t.As
		return up, t.As
	}
	up.Device, up.Topic = printable("uplink "+b.Name), strings.ToValidUTF8(topic, "\ufffd")
	return up, ""
}

// printable is a name that may be no device's id, as it can be kept.
func printable(name string) citywarden.DeviceID {
	const most = 128
	name = strings.ReplaceAll(name, "\x00", "\ufffd")
	return citywarden.DeviceID(strings.ToValidUTF8(name[:min(len(name), most)], "\ufffd"))
}

// Options are what Uplinks work with. Brokers and Accept are required.
type Options struct {
	Brokers []Broker // at least one
	Accept  Acceptor
	Barred  func(citywarden.DeviceID) bool // whether nothing of a device is taken; nil for none
	Logger  *slog.Logger                   // nil for slog.Default()
	Metrics prometheus.Registerer          // nil for none
}

// Uplinks are the connections to the brokers.
type Uplinks struct {
	links []*link
}

// New returns Uplinks. They connect in Run.
func New(o Options) (*Uplinks, error) {
	if o.Accept == nil || len(o.Brokers) == 0 {
		return nil, errors.New("uplink: Options need Brokers and Accept")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Barred == nil {
		o.Barred = func(citywarden.DeviceID) bool { return false }
	}
	m, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, fmt.Errorf("metrics of the uplinks: %w", err)
	}
	u := &Uplinks{}
	for _, b := range o.Brokers {
		at, err := url.Parse(b.URL)
		if err != nil {
			return nil, fmt.Errorf("uplink %s: %w", b.Name, err)
		}
		if err := b.Check(); err != nil {
			return nil, fmt.Errorf("uplink %s: %w", b.Name, err)
		}
		u.links = append(u.links, &link{
			broker: b, accept: o.Accept, barred: o.Barred, log: o.Logger.With("uplink", b.Name, "url", at.Redacted()), metrics: m.of(b.Name),
			queue: make(chan *message, maxWaiting), open: map[uint16]*message{}, nodes: map[nodeKey]*broker.Node{}, room: broker.NewRoom(maxNodeMetrics), full: rate.Sometimes{Interval: time.Minute},
			status: citywarden.Link{Name: b.Name, URL: at.Redacted(), Since: time.Now().UTC(), Messages: map[string]int64{}},
		})
	}
	return u, nil
}

// Run keeps the connections until ctx is done, gives acknowledgements that are
// under way a second, and returns nil. It can run once.
func (u *Uplinks) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, l := range u.links {
		wg.Go(func() { l.run(ctx) })
	}
	wg.Wait()
	return nil
}

// Links returns how each connection is.
func (u *Uplinks) Links() []citywarden.Link {
	out := make([]citywarden.Link, len(u.links))
	for i, l := range u.links {
		l.set(func(s *citywarden.Link) {
			out[i] = *s
			out[i].Messages = maps.Clone(s.Messages)
		})
	}
	return out
}

// metrics are the numbers of all brokers.
type metrics struct {
	connected, waiting *prometheus.GaugeVec
	messages           *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		connected: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "citywarden_uplink_connected", Help: "Whether the broker is connected and the topics are subscribed to.",
		}, []string{"uplink"}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "citywarden_uplink_waiting", Help: "Messages that came and are not acknowledged to the broker yet.",
		}, []string{"uplink"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "citywarden_uplink_messages_total",
			Help: "Messages of brokers by result: stored, ignored (of Sparkplug B: what is no message of a node, and deaths of earlier births), repeated (stored before), retained (not taken, their age is unknown), barred (not taken, the device is disabled), unmatched (names no device: stored as a dead letter), refused (too long to be stored: its beginning is, as a dead letter), retried (not stored at the time).",
		}, []string{"uplink", "result"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.connected, m.waiting, m.messages} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// linkMetrics are the numbers of one broker.
type linkMetrics struct {
	connected, waiting prometheus.Gauge
	messages           *prometheus.CounterVec
}

func (m *metrics) of(name string) linkMetrics {
	return linkMetrics{
		connected: m.connected.WithLabelValues(name), waiting: m.waiting.WithLabelValues(name),
		messages: m.messages.MustCurryWith(prometheus.Labels{"uplink": name}),
	}
}
