// Package certify looks at one device that speaks to the platform, and says what
// of it is right, what is wrong and how to change it, and what was not seen.
//
// It needs no running platform: it listens with the platform's own listeners and
// decodes with its pipeline, over a log in memory. After a few messages it plays an
// outage: it withholds an acknowledgement, ends the connection and lets nobody in for
// a while.
package certify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker/coap"
	devicehttp "github.com/citywarden/citywarden/broker/http"
	"github.com/citywarden/citywarden/broker/mqtt"
	"github.com/citywarden/citywarden/ingest"
)

// Device is the id of the device that is looked at.
const Device citywarden.DeviceID = "device"

// beforeOutage is after how many messages over MQTT the outage begins.
const beforeOutage = 3

// Options say what to look at. A listener that is nil is left out; Run closes the others.
type Options struct {
	Model   *citywarden.Model
	Token   string            // that the device shows
	MQTT    net.Listener      // plain
	MQTTS   net.Listener      // with TLS
	TLS     *tls.Config       // of MQTTS, CoAPS and CoAPTLS
	HTTP    net.Listener      // plain
	CoAP    coap.Conn         // UDP
	CoAPS   coap.Conn         // UDP with DTLS: by the key Token for the identity Device, or with the token in the path
	CoAPTCP net.Listener      // plain
	CoAPTLS net.Listener      // TCP with TLS
	Child   *citywarden.Model // of the devices behind it; nil when it is no gateway
	Outage  time.Duration     // how long; 0 for none
	Command string            // a method of the model to send, "" for none
	Params  json.RawMessage
	Told    func(Check) // of each check that is decided; nil for nobody
}

// Run looks at the device until ctx is done.
func Run(ctx context.Context, o Options) (*Report, error) {
	b, err := newBench(o)
	if err != nil {
		return nil, err
	}
	heard := slog.New(ears{b})
	parts := []func(context.Context) error{b.pipeline.Run}
	var listeners []net.Listener
	if o.MQTT != nil {
		listeners = append(listeners, o.MQTT)
	}
	if o.MQTTS != nil {
		listeners = append(listeners, tls.NewListener(o.MQTTS, o.TLS)) // here, as what is looked at is inside of TLS
	}
	for _, l := range listeners {
		m, err := mqtt.New(mqtt.Options{Listeners: []mqtt.Listener{{Listener: &tap{Listener: l, bench: b}}}, Accept: b, Check: b.pipeline, Auth: b, Down: b, Logger: heard})
		if err != nil {
			return nil, err
		}
		parts = append(parts, m.Run)
	}
	if s, err := b.coap(heard); err != nil {
		return nil, err
	} else if s != nil {
		parts = append(parts, s.Run)
	}
	if o.HTTP != nil {
		parts = append(parts, func(ctx context.Context) error { return b.serveHTTP(ctx, heard) })
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	ended := make(chan error, len(parts))
	for _, run := range parts {
		wg.Go(func() { ended <- run(ctx) })
	}
	select {
	case <-ctx.Done():
	case err = <-ended: // one that could not go on
	}
	cancel()
	wg.Wait()
	return b.report(), err
}

func newBench(o Options) (*bench, error) {
	b := &bench{Options: o, device: &citywarden.Device{ID: Device, Name: string(Device), Model: o.Model.Name, Attributes: map[string]any{}}, began: time.Now(), checks: newChecks(o.Child != nil)}
	log := &memory{grown: make(chan struct{})}
	var err error
	if b.pipeline, err = ingest.New(ingest.Options{Log: log, Directory: b, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		return nil, err
	}
	b.pipeline.Attach(b)
	return b, nil
}

// coap returns who listens for CoAP, nil when nobody is to.
func (b *bench) coap(log *slog.Logger) (*coap.Server, error) {
	o := coap.Options{Keys: b, Accept: b, Check: b.pipeline, Auth: b, Down: b, Logger: log}
	if b.CoAP != nil {
		o.Conn = &datagrams{Conn: b.CoAP, bench: b, plain: true}
	}
	if b.CoAPS != nil {
		o.DTLS = &coap.DTLS{Conn: &datagrams{Conn: b.CoAPS, bench: b}}
		if b.TLS != nil && len(b.TLS.Certificates) > 0 {
			o.DTLS.Certificate = func() *tls.Certificate { return &b.TLS.Certificates[0] }
		}
	}
	if b.CoAPTCP != nil {
		o.Streams = append(o.Streams, coap.Stream{Listener: &gate{Listener: b.CoAPTCP, bench: b}})
	}
	if b.CoAPTLS != nil {
		c := b.TLS.Clone()
		c.NextProtos = []string{"coap"} // RFC 8323 §8.2
		c.VerifyConnection = func(s tls.ConnectionState) error {
			b.pass("tls", same(tls.VersionName(s.Version)+", "+tls.CipherSuiteName(s.CipherSuite)))
			return nil
		}
		o.Streams = append(o.Streams, coap.Stream{Listener: &gate{Listener: b.CoAPTLS, bench: b}, TLS: c})
	}
	if o.Conn == nil && o.DTLS == nil && len(o.Streams) == 0 {
		return nil, nil
	}
	return coap.New(o)
}

func (b *bench) serveHTTP(ctx context.Context, log *slog.Logger) error {
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		Handler: devicehttp.New(devicehttp.Options{Accept: b, Check: b.pipeline, Auth: b, Down: b, Logger: log, Next: http.HandlerFunc(b.elsewhere)})}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(b.HTTP); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (b *bench) elsewhere(w http.ResponseWriter, r *http.Request) {
	b.fail("topic", same(r.Method+" "+r.URL.Path), "")
	http.Error(w, "POST to /api/v1/TOKEN/telemetry", http.StatusNotFound)
}

// memory is the log of one run.
type memory struct {
	mu    sync.Mutex
	recs  []citywarden.Record
	grown chan struct{}
}

// Append implements ingest.Log.
func (m *memory) Append(rec citywarden.Record, done func(citywarden.Position, error)) {
	m.mu.Lock()
	rec.At, rec.Position = time.Now().UTC(), citywarden.PositionAt(uint64(len(m.recs)+1), 0)
	m.recs = append(m.recs, rec)
	close(m.grown)
	m.grown = make(chan struct{})
	m.mu.Unlock()
	done(rec.Position, nil)
}

// Read implements ingest.Log.
func (m *memory) Read(ctx context.Context, after citywarden.Position) ([]citywarden.Record, error) {
	for {
		m.mu.Lock()
		n, grown := after.Group(), m.grown
		if n < uint64(len(m.recs)) {
			defer m.mu.Unlock()
			return m.recs[n : n+1 : n+1], nil
		}
		m.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Last implements ingest.Log.
func (m *memory) Last() citywarden.Position {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.recs) == 0 {
		return 0
	}
	return m.recs[len(m.recs)-1].Position
}

// Back implements ingest.Log: there is nothing before the run.
func (m *memory) Back(context.Context, citywarden.Position, uint64) (citywarden.Position, error) {
	return 0, nil
}

// ears hear what the listeners say to whoever operates them.
type ears struct{ b *bench }

// Enabled implements slog.Handler.
func (ears) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// WithAttrs implements slog.Handler.
func (e ears) WithAttrs([]slog.Attr) slog.Handler { return e }

// WithGroup implements slog.Handler.
func (e ears) WithGroup(string) slog.Handler { return e }

// Handle implements slog.Handler.
func (e ears) Handle(_ context.Context, r slog.Record) error {
	said, where := "", ""
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "err":
			said = a.Value.String()
		case "topic", "filter", "identity":
			where = a.Value.String()
		}
		return true
	})
	switch r.Message {
	case "connection refused":
		e.b.refused(said)
	case "uplink refused", "subscription refused":
		e.b.fail("topic", same(said), where)
	case "DTLS handshake not begun":
		e.b.fail("tls", same(said), "")
	case "DTLS handshake refused":
		if where != "" { // it has shown an identity
			e.b.fail("auth", same(said), where)
		} else {
			e.b.fail("tls", same(said), "")
		}
	case "connection ended":
		if strings.HasPrefix(said, "TLS:") {
			e.b.fail("tls", same(said), "")
		}
	case "device disconnected for an error of protocol", "device disconnected":
		e.b.fail("connect", same(said), "")
	}
	return nil
}

// Authenticate implements the listeners' Authenticator.
func (b *bench) Authenticate(token string) (citywarden.DeviceID, error) {
	if token == citywarden.PSKSecret(string(Device), []byte(b.Token)) {
		b.pass("auth", fact("pre-shared key", "预共享密钥"))
		b.pass("tls", fact("DTLS 1.2, pre-shared key", "DTLS 1.2，预共享密钥"))
		return Device, nil
	}
	if strings.Contains(token, "\x00") { // a user name with its password: the listener asks for the user name alone next
		return "", citywarden.Errorf(citywarden.CodeUnauthenticated, "unknown user name and password")
	}
	if token != b.Token {
		b.fail("auth", fact("it shows %q as its token; expected %q", "它出示的令牌是 %q；应为 %q", clip(token), b.Token), "")
		return "", citywarden.Errorf(citywarden.CodeUnauthenticated, "unknown token")
	}
	b.pass("auth", citywarden.Text{})
	return Device, nil
}

// AuthenticateCertificate implements the MQTT listener's Authenticator: a device
// under test has the token.
func (*bench) AuthenticateCertificate(*x509.Certificate, func() bool) (citywarden.DeviceID, error) {
	return "", citywarden.Errorf(citywarden.CodeUnauthenticated, "set the token as the MQTT user name")
}

// PreSharedKey implements coap.Keys: the key is the token.
func (b *bench) PreSharedKey(identity string) ([]byte, error) {
	if identity != string(Device) {
		b.fail("auth", fact("it shows the identity %q in the handshake; expected %q", "它在握手中出示的身份是 %q；应为 %q", clip(identity), Device), "")
		return nil, citywarden.Errorf(citywarden.CodeUnauthenticated, "unknown identity")
	}
	return []byte(b.Token), nil
}

// Device implements ingest.Directory.
func (b *bench) Device(id citywarden.DeviceID) (*citywarden.Device, *citywarden.Model, error) {
	if id == Device {
		return b.device, b.Model, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if d := b.children[id]; d != nil {
		return d, b.Options.Child, nil
	}
	return nil, nil, citywarden.Errorf(citywarden.CodeNotFound, "no device %s", id)
}

// maxChildren is how many devices behind a gateway are looked at.
const maxChildren = 200

// Child implements ingest.Directory: whatever a gateway calls a device behind it, is one.
func (b *bench) Child(_ citywarden.DeviceID, name string) (citywarden.DeviceID, error) {
	if b.Options.Child == nil {
		return "", citywarden.Errorf(citywarden.CodeNotFound, "no device %q behind this one: say --child MODEL to have a gateway looked at", name)
	}
	id := citywarden.DeviceID("child " + name) // no device has a blank in its id
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.children[id] == nil {
		if len(b.children) >= maxChildren || name == "" {
			return "", citywarden.Errorf(citywarden.CodeNotFound, "no device %q: at most %d devices behind a gateway are looked at", name, maxChildren)
		}
		if b.children == nil {
			b.children = map[citywarden.DeviceID]*citywarden.Device{}
		}
		b.children[id] = &citywarden.Device{ID: id, Name: name, Model: b.Options.Child.Name, Attributes: map[string]any{}}
	}
	return id, nil
}

// Attributes implements the listeners' Downlinks.
func (b *bench) Attributes(context.Context, citywarden.DeviceID, []string, []string) (citywarden.DeviceAttributes, error) {
	return citywarden.DeviceAttributes{}, nil
}

// Listen implements the listeners' Downlinks: the command goes to whoever first listens.
func (b *bench) Listen(_ citywarden.DeviceID, kind citywarden.DownlinkKind, send func(citywarden.Downlink) bool) (cancel func()) {
	b.mu.Lock()
	first := kind == citywarden.DownlinkCommand && b.Command != "" && !b.commanded
	b.commanded = b.commanded || first
	b.mu.Unlock()
	if first {
		body, _ := json.Marshal(map[string]any{"method": b.Command, "params": b.Params}) // a text and JSON
		// Not from here: the subscription is noted when Listen returns.
		time.AfterFunc(commandAfter, func() {
			send(citywarden.Downlink{Device: Device, Kind: kind, ID: 1, Body: body, Done: b.delivered})
		})
	}
	return func() {}
}

// commandAfter is how long after a device listens it gets the command.
const commandAfter = 200 * time.Millisecond

func (b *bench) delivered(err error) {
	c, known := b.Model.Command(b.Command)
	switch {
	case citywarden.CodeOf(err) == citywarden.CodeTooLarge:
		b.fail("command", same(err.Error()), "")
	case err == nil && known && c.OneWay:
		b.pass("command", same(b.Command))
	}
}

// Answer implements the listeners' Downlinks.
func (b *bench) Answer(_ context.Context, _ citywarden.DeviceID, id int64, body []byte) error {
	switch {
	case id != 1:
		b.fail("command", fact("it answers command %d, which there is none of", "它应答了没有的命令 %d", id), string(body))
		return citywarden.Errorf(citywarden.CodeNotFound, "no command %d waits", id)
	case !json.Valid(body):
		b.fail("command", fact("the answer is no JSON", "应答不是 JSON"), string(body))
		return citywarden.Errorf(citywarden.CodeInvalid, "the answer is not JSON")
	}
	b.pass("command", same(b.Command+" "+clip(string(body))))
	return nil
}
