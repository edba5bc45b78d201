// Package mqtt is where devices connect over MQTT 3.1, 3.1.1 and 5, on TCP, TLS
// and WebSocket. It speaks
// ThingsBoard's device API: the user name is the device's access token, unless it
// shows a certificate; a device
// publishes to v1/devices/me/telemetry and v1/devices/me/attributes, asks for its
// attributes at v1/devices/me/attributes/request/ID and is told when they change; it
// gets commands at v1/devices/me/rpc/request/ID and answers at rpc/response/ID, and calls
// the platform the other way round. A
// gateway does the same for the devices behind it below v1/gateway/. An edge node of
// Sparkplug B (3.0) does so below spBv1.0/, see sparkplug.go.
//
//	ln, err := net.Listen("tcp", ":1883")
//	…
//	b, err := mqtt.New(mqtt.Options{Listeners: []mqtt.Listener{{Listener: ln}}, Accept: pipeline, Check: pipeline, Auth: registry, Down: registry, Logger: log})
//	…
//	err = b.Run(ctx) // serves until ctx is done
//
// A PUBACK means that the message is durable; one of MQTT 5 with reason code 0x99
// that it is a dead letter, and why. The protocol is mochi's, but the
// acknowledgement is ours, see hook.publish. What mochi leaves open to a
// hostile or broken client is closed in conn and hook; the tests name each case.
package mqtt

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/citywarden/citywarden"
)

// The limits of the broker.
const (
	connectTimeout   = 10 * time.Second // from the accepted connection to the end of its CONNECT packet
	writeTimeout     = 5 * time.Second  // for one write to a device
	writeSlack       = time.Second      // by which it may be longer, so that not each write sets a deadline
	lingerTimeout    = time.Second      // for the device to read why it was disconnected
	drainTimeout     = time.Second      // at shutdown, for acknowledgements that are under way
	maxConnect       = 16 << 10         // bytes of a CONNECT packet, sent by we don't know whom
	maxUnknownBytes  = 64 << 10         // bytes of a connection until the device is known, with the handshakes of TLS and WebSocket
	maxPacket        = 256 << 10        // bytes of any other packet
	maxInFlight      = 256              // messages of one connection that are not durable yet
	maxInFlightBytes = 1 << 20          // of the payloads of those
	maxProvision     = 8                // requests for a credential of one connection
	maxGuests        = 128              // connections that ask for a credential
	provisionTimeout = time.Minute      // for one of those
	maxUnreleased    = 1024             // QoS 2 messages of one connection between PUBREC and PUBREL
	maxUnknown       = 1024             // connections of a listener that have not authenticated yet
	maxAliases       = 16               // topic aliases of one connection, MQTT 5
	maxTopic         = 1024             // bytes, of a filter too
	maxSubscriptions = 128              // of one connection; a node of Sparkplug with more devices has DCMD/NODE/#
	idleKeepAlive    = 600              // seconds; told to an MQTT 5 device that asks for none
	safeKeepAlive    = 43690            // seconds; 1.5 times more would overflow mochi's uint16
	maxClientID      = 1024             // bytes
	sysTopicSeconds  = 24 * 3600        // nobody may read $SYS, and each round stops the world
)

// Acceptor takes responsibility for messages.
type Acceptor interface {
	// Accept calls done exactly once, with nil once up is durable. It may block
	// to push back; then the device's connection is not read. done may be called
	// from any goroutine, also before Accept returns.
	Accept(ctx context.Context, up citywarden.Uplink, done func(error))
}

// Checker says whether a message can be understood.
type Checker interface {
	// Check returns CodeInvalid and the reason when it can't. It stores nothing.
	Check(up citywarden.Uplink) error
}

// Authenticator knows what devices show to be known.
type Authenticator interface {
	// Authenticate returns the device that a token, or MQTTSecret, belongs to, or an
	// error with CodeUnauthenticated (unknown) or CodeDenied (disabled).
	Authenticate(token string) (citywarden.DeviceID, error)
	// AuthenticateCertificate does so for a certificate whose key the device has;
	// certified says whether it was issued under the client CA. CodeDenied when it is
	// not valid now.
	AuthenticateCertificate(c *x509.Certificate, certified func() bool) (citywarden.DeviceID, error)
}

// Downlinks knows what goes to devices.
type Downlinks interface {
	// Attributes returns the client and shared attributes that are named, all of a
	// scope for nil, or CodeNotFound.
	Attributes(ctx context.Context, id citywarden.DeviceID, client, shared []string) (citywarden.DeviceAttributes, error)
	// Child returns the device that a gateway calls name, or CodeNotFound.
	Child(gateway citywarden.DeviceID, name string) (citywarden.DeviceID, error)
	// Listen has send called with the messages of a kind for a device, and for
	// those behind it, until cancel is called. send reports whether it took the
	// message, and does not block.
	Listen(id citywarden.DeviceID, kind citywarden.DownlinkKind, send func(citywarden.Downlink) bool) (cancel func())
	// Answer takes what a device answers to a command, durable when it returns nil.
	// CodeNotFound when none waits for it.
	Answer(ctx context.Context, device citywarden.DeviceID, id int64, body []byte) error
}

// Limiter knows what devices may send.
type Limiter interface {
	// Connect returns CodeLimited when a device connects too often.
	Connect(id citywarden.DeviceID, protocol string) error
	// Limits returns what a device may send.
	Limits(citywarden.DeviceID) citywarden.Limits
}

// Provisioner gives credentials to devices that ask for one.
type Provisioner interface {
	// Provision answers a request.
	Provision(ctx context.Context, from citywarden.Asker, request []byte) []byte
	// Provisioning returns the models whose devices may ask.
	Provisioning() []citywarden.Provisioning
}

// Claims knows which devices may be claimed.
type Claims interface {
	// Announce takes what a device says of being claimed, durable when it returns nil.
	Announce(ctx context.Context, device citywarden.DeviceID, body []byte) error
	// AnnounceBehind takes what a gateway says so of the devices behind it.
	AnnounceBehind(ctx context.Context, gateway citywarden.DeviceID, body []byte) error
}

// Firmware knows what devices are to load.
type Firmware interface {
	// Image returns the file that a device is to have; CodeNotFound when there is
	// none, or title and version, unless they are "", are those of another.
	Image(ctx context.Context, id citywarden.DeviceID, title, version string) ([]byte, error)
}

// Options is what a Broker works with. All but Firmware, Limits, Claims, Provision, Certified, Logger and Metrics are required.
type Options struct {
	Listeners []Listener    // at least one; closed by Run
	Accept    Acceptor      // takes the messages
	Check     Checker       // tells MQTT 5 devices what can't be used
	Auth      Authenticator // tells who is who
	Down      Downlinks     // what goes to devices
	Firmware  Firmware      // nil for none
	Limits    Limiter       // nil for none
	Claims    Claims        // nil when no device may be claimed

	// Provision gives credentials to devices that ask for one; nil when none may.
	Provision Provisioner

	// Certified reports whether a certificate, with the intermediate ones after it,
	// was issued under the client CA; nil when there is none.
	Certified func([]*x509.Certificate) bool

	Logger  *slog.Logger          // nil for slog.Default()
	Metrics prometheus.Registerer // nil for none
}

// Broker is the MQTT listener.
type Broker struct {
	opts    Options
	log     *slog.Logger
	metrics metrics
	crew    crew
	since   time.Time      // when it began to run
	nodes   sync.Map       // by nodeKey, the connection in which a node of Sparkplug B was born last, while it lasts
	guests  chan struct{}  // a slot per connection that asks for a credential
	unkept  rate.Sometimes // paces what is logged of messages that can't be stored: on a full disk that is each
}

// unkeptEvery is how often at most it is logged that a message could not be stored; the metrics count them.
const unkeptEvery = 10 * time.Second

// New returns a Broker. It serves nothing before Run.
func New(opts Options) (*Broker, error) {
	if len(opts.Listeners) == 0 || opts.Accept == nil || opts.Check == nil || opts.Auth == nil || opts.Down == nil {
		return nil, errors.New("mqtt: Options need Listeners, Accept, Check, Auth and Down")
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	m, err := newMetrics(opts.Metrics)
	if err != nil {
		return nil, fmt.Errorf("mqtt metrics: %w", err)
	}
	return &Broker{opts: opts, log: opts.Logger, metrics: m, guests: make(chan struct{}, maxGuests), unkept: rate.Sometimes{Interval: unkeptEvery}}, nil
}

// Run serves until ctx is done, then waits up to a second for acknowledgements
// that are under way, closes every connection and returns nil. It can run once.
func (b *Broker) Run(ctx context.Context) error {
	b.since = time.Now()
	caps := mochi.NewDefaultServerCapabilities()
	caps.MaximumPacketSize = maxPacket
	caps.MaximumClientWritesPending = 1 // nothing goes that way, see down.go
	caps.MaximumInflight = maxUnreleased
	caps.ReceiveMaximum = maxInFlight
	caps.TopicAliasMaximum = maxAliases
	caps.SharedSubAvailable = 0
	caps.MaximumMessageExpiryInterval = 0 // else mochi drops what it holds after a day
	caps.MaximumSessionExpiryInterval = 0 // a session ends with its connection: nothing is queued for a device here
	caps.Compatibilities.NoInheritedPropertiesOnAck = true
	caps.Compatibilities.ObscureNotAuthorized = true // SUBACK 0x80, as MQTT 3.1.1 has it; hook.OnPacketEncode adds the reason
	// PassiveClientDisconnect stays off: with it a taken-over connection lives on
	// and Close waits for ever. conn.Close sees to it that the DISCONNECT is read.

	server := mochi.New(&mochi.Options{
		Capabilities:            caps,
		Logger:                  slog.New(slog.DiscardHandler), // the hook and the listener log with the device's id and what to do
		SysTopicResendInterval:  sysTopicSeconds,
		ClientNetReadBufferSize: 128, // what comes often does not get there, see intake
	})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dismiss := b.crew.start()
	defer dismiss()
	if err := server.AddHook(&hook{broker: b, server: server}, nil); err != nil {
		return fmt.Errorf("mqtt: add hook: %w", err)
	}
	failed := make(chan error, len(b.opts.Listeners))
	var all []*listener
	for _, from := range b.opts.Listeners {
		l := newListener(ctx, b, from, failed)
		if err := server.AddListener(l); err != nil {
			return fmt.Errorf("mqtt: add listener %s: %w", l.ID(), err)
		}
		all = append(all, l)
	}
	if err := server.Serve(); err != nil {
		return fmt.Errorf("mqtt: serve: %w", err)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	cancel()
	var shutting sync.WaitGroup
	for _, l := range all {
		shutting.Go(l.shut)
	}
	shutting.Wait()
	for _, l := range all {
		l.wg.Wait()
	}
	if cerr := server.Close(); cerr != nil && err == nil { // waits for its event loop's clients only: there are none left
		err = fmt.Errorf("mqtt: close: %w", cerr)
	}
	return err
}

type metrics struct {
	connections prometheus.Gauge
	refused     *prometheus.CounterVec
	acks        prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) (metrics, error) {
	m := metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "citywarden_mqtt_connections", Help: "Devices connected over MQTT.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "citywarden_mqtt_refused_total",
			Help: "What the MQTT listener refused: connect, publish, subscribe, session for one whose token was revoked, limit for a message of a device that sends too much, or store for one that could not be stored.",
		}, []string{"what"}),
		acks: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "citywarden_mqtt_ack_seconds",
			Help:    "Time from a message of MQTT being read from the socket to its acknowledgement being written, with QoS 1 and 2.",
			Buckets: prometheus.ExponentialBuckets(0.00015625, 2, 14), // 10 ms is one of them
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, what := range []string{"connect", "publish", "subscribe", "session", "limit", "store"} {
		m.refused.WithLabelValues(what) // from 0 on, so that the first one shows as an increase
	}
	for _, c := range []prometheus.Collector{m.connections, m.refused, m.acks} {
		if err := r.Register(c); err != nil {
			return metrics{}, err
		}
	}
	return m, nil
}

// acknowledged counts messages whose acknowledgement was written just now.
func (m *metrics) acknowledged(batch []pending) {
	now := time.Now()
	for i := range batch {
		if batch[i].qos > 0 && batch[i].err == nil {
			m.acks.Observe(now.Sub(batch[i].read).Seconds())
		}
	}
}
