// Package coap is where devices send their messages over CoAP: on UDP (RFC 7252), with
// DTLS or without it, and on TCP (RFC 8323), with TLS or without it. It speaks ThingsBoard's device API:
//
//	POST /api/v1/{token}/telemetry
//	POST /api/v1/{token}/attributes
//	POST /api/v1/{token}/raw
//	GET  /api/v1/{token}/attributes?clientKeys=a,b&sharedKeys=c
//	GET  /api/v1/{token}/rpc
//	GET  /fw/{token}?title=a&version=1&size=4096&chunk=0
//	POST /api/v1/{token}/rpc
//	POST /api/v1/{token}/rpc/{id}
//	POST /api/v1/{token}/claim
//	POST /api/v1/provision
//
// A device that showed a pre-shared key or a certificate in the handshake may leave the token out:
// POST /api/v1/telemetry. One in the path must be its own.
//
// LwM2M is spoken too, see lwm2m.go.
//
// A device that observes attributes or rpc (RFC 7641) is told of changes and gets
// its commands.
//
//	conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: 5683})
//	…
//	s, err := coap.New(coap.Options{Conn: conn, Accept: pipeline, Check: pipeline, Auth: registry, Down: registry, Logger: log})
//	…
//	err = s.Run(ctx) // serves until ctx is done
//
// 2.04 means that the message is durable and was understood. 4.00 means that it
// is durable too, as a dead letter, and says what is wrong with it. 5.03 means
// that it is not stored and when to send it again.
//
// Messages are read and written with go-coap's coder. The exchange layer is our
// own: go-coap's server forgets what it answered after 16 s, gives the handler
// the last block only when each block has a token of its own (libcoap does so),
// and one malformed datagram ends whatever its sender had under way.
package coap

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
)

// The limits of the server.
const (
	maxInFlight  = 4096              // requests that are not answered yet; more get 5.03
	maxExchanges = 32768             // requests remembered to recognise their repetition, about 12 MB
	maxBody      = 64 << 10          // bytes of a body sent in blocks
	maxTransfers = 256               // bodies that are coming in in blocks, 16 MB at most
	maxStrangers = 16                // the same of who asks for a credential, which anybody may
	maxAsk       = 16 << 10          // bytes of such a body
	strangerIdle = 10 * time.Second  // one of those whose next block doesn't come is forgotten
	lifetime     = 247 * time.Second // EXCHANGE_LIFETIME, RFC 7252 §4.8.2
	transferIdle = 93 * time.Second  // a body whose next block doesn't come is forgotten; MAX_TRANSMIT_WAIT, RFC 7252 §4.8.2
	piggyback    = 1500 * time.Millisecond
	drainTimeout = time.Second // at shutdown, for answers that are under way
	maxAge       = 5           // seconds, in 5.03: when to come again
	maxDetail    = 512         // bytes of a diagnostic payload
)

// Acceptor takes responsibility for messages.
type Acceptor interface {
	// Accept calls done exactly once, with nil once up is durable. It may block
	// to push back. done may be called from any goroutine, also before Accept
	// returns.
	Accept(ctx context.Context, up citywarden.Uplink, done func(error))
}

// Checker says whether a message can be understood.
type Checker interface {
	// Check returns CodeInvalid and the reason when it can't. It stores nothing.
	Check(up citywarden.Uplink) error
}

// Authenticator knows the devices' access tokens.
type Authenticator interface {
	// Authenticate returns the device that token belongs to, or an error with
	// CodeUnauthenticated (unknown) or CodeDenied (disabled).
	Authenticate(token string) (citywarden.DeviceID, error)
}

// Downlinks knows what goes to devices.
type Downlinks interface {
	// Attributes returns the client and shared attributes that are named, all of a
	// scope for nil, or CodeNotFound.
	Attributes(ctx context.Context, id citywarden.DeviceID, client, shared []string) (citywarden.DeviceAttributes, error)
	// Listen has send called with the messages of a kind for a device, and for
	// those behind it, until cancel is called. send reports whether it took the
	// message, and does not block.
	Listen(id citywarden.DeviceID, kind citywarden.DownlinkKind, send func(citywarden.Downlink) bool) (cancel func())
	// Answer takes what a device answers to a command, durable when it returns nil.
	// CodeNotFound when none waits for it.
	Answer(ctx context.Context, device citywarden.DeviceID, id int64, body []byte) error
}

// Firmware knows what devices are to load.
type Firmware interface {
	// Image returns the file that a device is to have; CodeNotFound when there is
	// none, or title and version, unless they are "", are those of another.
	Image(ctx context.Context, id citywarden.DeviceID, title, version string) ([]byte, error)
}

// Limiter knows what devices may send.
type Limiter interface {
	// Connect returns CodeLimited when a device connects too often.
	Connect(id citywarden.DeviceID, protocol string) error
	// Limits returns what a device may send.
	Limits(citywarden.DeviceID) citywarden.Limits
}

// Models knows what devices measure.
type Models interface {
	// Device returns a device and its model, or CodeNotFound. It answers from memory.
	Device(citywarden.DeviceID) (*citywarden.Device, *citywarden.Model, error)
}

// Conn is a UDP socket; *net.UDPConn is one.
type Conn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	SetReadDeadline(t time.Time) error // ends a read that waits
	Close() error
}

// Options is what a Server works with. Accept, Check, Auth and Down are required, and one at least
// of Conn, DTLS and Streams; with the last two Keys, too.
type Options struct {
	Conn    Conn     // of UDP without DTLS, closed by Run; nil for none
	DTLS    *DTLS    // nil for none
	Streams []Stream // of TCP

	Keys      Keys
	Certified func(chain []*x509.Certificate) bool // whether an authority that we trust issued chain[0]; nil: none did

	Accept   Acceptor
	Check    Checker
	Auth     Authenticator
	Down     Downlinks
	Firmware Firmware // nil for none
	Limits   Limiter  // nil for none
	Models   Models   // nil when clients of LwM2M are to be told and asked nothing

	// Provision answers a device that asks for a credential; nil when none may.
	Provision func(ctx context.Context, from citywarden.Asker, request []byte) []byte
	// Announce takes what a device says of being claimed, durable when it returns nil; nil when none may be.
	Announce func(ctx context.Context, device citywarden.DeviceID, body []byte) error

	Logger  *slog.Logger          // nil for slog.Default()
	Metrics prometheus.Registerer // nil for none
}

// limitsOf returns what a device may send.
func (o *Options) limitsOf(id citywarden.DeviceID) citywarden.Limits {
	if o.Limits == nil {
		return citywarden.Limits{}
	}
	return o.Limits.Limits(id)
}

// connect returns why a device may not connect once more.
func (o *Options) connect(id citywarden.DeviceID) error {
	if o.Limits == nil {
		return nil
	}
	return o.Limits.Connect(id, "coap")
}

// Server is the CoAP listener.
type Server struct {
	opts      Options
	log       *slog.Logger
	requests  *prometheus.CounterVec
	malformed prometheus.Counter
	crowded   *prometheus.CounterVec
	unasked   prometheus.Counter
}

// New returns a Server. It serves nothing before Run.
func New(opts Options) (*Server, error) {
	if opts.Accept == nil || opts.Check == nil || opts.Auth == nil || opts.Down == nil {
		return nil, errors.New("coap: Options need Accept, Check, Auth and Down")
	}
	if sessions := opts.DTLS != nil || len(opts.Streams) > 0; opts.Conn == nil && !sessions || opts.Keys == nil && sessions {
		return nil, errors.New("coap: Options need Conn, DTLS or Streams, and with the last two Keys")
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	s := &Server{
		opts: opts,
		log:  opts.Logger,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "citywarden_coap_requests_total", Help: "CoAP requests by the code they were answered with.",
		}, []string{"code"}),
		malformed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "citywarden_coap_malformed_total", Help: "UDP datagrams on the CoAP port that are not CoAP.",
		}),
		crowded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "citywarden_coap_crowded_total", Help: "Handshakes over DTLS and connections over TCP that were refused because too many had not shown whose they are.",
		}, []string{"transport"}),
		unasked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "citywarden_coap_unasked_total", Help: "Notifications over CoAP that were not taken because nobody observes what they are of.",
		}),
	}
	if opts.Metrics != nil {
		for _, c := range []prometheus.Collector{s.requests, s.malformed, s.crowded, s.unasked} {
			if err := opts.Metrics.Register(c); err != nil {
				return nil, fmt.Errorf("coap metrics: %w", err)
			}
		}
	}
	return s, nil
}

// closers are the sockets.
func (s *Server) closers() []io.Closer {
	var out []io.Closer
	if s.opts.Conn != nil {
		out = append(out, s.opts.Conn)
	}
	if s.opts.DTLS != nil {
		out = append(out, s.opts.DTLS)
	}
	for _, from := range s.opts.Streams {
		out = append(out, from)
	}
	return out
}
