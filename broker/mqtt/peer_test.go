package mqtt

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
)

// registry knows the token "token-of-" + id of every device.
type registry struct{}

func (registry) Authenticate(token string) (citywarden.DeviceID, error) {
	id, ok := strings.CutPrefix(token, "token-of-")
	switch {
	case token == citywarden.MQTTSecret("", "meter", "open sesame"):
		return "m", nil
	case token == citywarden.MQTTSecret("bay-7", "bay", "open sesame"):
		return "p", nil
	case !ok:
		return "", citywarden.Errorf(citywarden.CodeUnauthenticated, "no device has this token")
	case id == "disabled":
		return "", citywarden.Errorf(citywarden.CodeDenied, "device disabled is disabled")
	}
	return citywarden.DeviceID(id), nil
}

// AuthenticateCertificate knows certificates by their names: "device a", and "name b"
// only when it is certified.
func (registry) AuthenticateCertificate(c *x509.Certificate, certified func() bool) (citywarden.DeviceID, error) {
	id, ok := strings.CutPrefix(c.Subject.CommonName, "device ")
	if !ok && certified() {
		id, ok = strings.CutPrefix(c.Subject.CommonName, "name ")
	}
	switch {
	case time.Now().After(c.NotAfter):
		return "", citywarden.Errorf(citywarden.CodeDenied, "certificate %q has expired", c.Subject.CommonName)
	case !ok:
		return "", citywarden.Errorf(citywarden.CodeUnauthenticated, "certificate %q: no device has it", c.Subject.CommonName)
	}
	return citywarden.DeviceID(id), nil
}

// reader understands every message but those that begin with "bad".
type reader struct{}

func (reader) Check(up citywarden.Uplink) error {
	if bytes.HasPrefix(up.Payload, []byte("bad")) {
		return citywarden.Errorf(citywarden.CodeInvalid, "byte 1: expected {")
	}
	return nil
}

// journal is an acceptor in memory: it keeps what it took, and settles it at
// once, or when told, or with an error.
type journal struct {
	mu    sync.Mutex
	taken []citywarden.Uplink
	held  []func(error)
	hold  func(citywarden.Uplink) bool // nil to hold nothing
	fail  func(citywarden.Uplink) error
	more  chan struct{}
}

func newJournal() *journal { return &journal{more: make(chan struct{}, 1)} }

func (j *journal) Accept(_ context.Context, up citywarden.Uplink, done func(error)) {
	var err error
	j.mu.Lock()
	j.taken = append(j.taken, up)
	if j.fail != nil {
		err = j.fail(up)
	}
	hold := j.hold != nil && j.hold(up)
	if hold {
		j.held = append(j.held, done)
	}
	j.mu.Unlock()
	signal(j.more)
	if !hold {
		done(err)
	}
}

// wait returns what was taken once there are n messages.
func (j *journal) wait(t testing.TB, n int) []citywarden.Uplink {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		j.mu.Lock()
		got := slices.Clone(j.taken)
		j.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-j.more:
		case <-late:
			t.Fatalf("%d messages were taken, want %d", len(got), n)
		}
	}
}

// release returns the outcomes that are held.
func (j *journal) release() []func(error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	h := j.held
	j.held = nil
	return h
}

// logBook is a log that tests read.
type logBook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBook) mustSay(t *testing.T, words ...string) {
	t.Helper()
	eventually(t, func() error {
		for _, w := range words {
			if !strings.Contains(b.String(), w) {
				return fmt.Errorf("the log does not say %q:\n%s", w, b)
			}
		}
		return nil
	})
}

// eventually waits for a condition.
func eventually(t *testing.T, ok func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if err = ok(); err == nil {
			return
		}
		<-time.After(time.Millisecond)
	}
	t.Fatal(err)
}

// pipeListener is a net.Listener over net.Pipe, for tests in virtual time.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) dial() (net.Conn, error) {
	device, server := net.Pipe()
	select {
	case l.conns <- server:
		return device, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// serve runs a broker on ln until the test ends, or stop is called. An acceptor
// that knows tokens is asked for them instead of a registry.
func serve(t testing.TB, ln net.Listener, a Acceptor) (book *logBook, stop func()) {
	t.Helper()
	return serveOn(t, Listener{Listener: ln}, a)
}

func serveOn(t testing.TB, l Listener, a Acceptor) (book *logBook, stop func()) {
	t.Helper()
	book = new(logBook)
	auth, ok := a.(Authenticator)
	if !ok {
		auth = registry{}
	}
	var trusted func([]*x509.Certificate) bool
	if c, ok := a.(certified); ok {
		trusted = c.certified
	}
	provisioner, _ := a.(Provisioner)
	claims, _ := a.(Claims)
	b, err := New(Options{Listeners: []Listener{l}, Certified: trusted, Provision: provisioner, Claims: claims, Accept: a, Check: reader{}, Auth: auth, Down: downOf(a),
		Logger: slog.New(slog.NewTextHandler(book, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return book, stop
}

// shelf is what goes to devices, in memory. Behind the gateway "gw" are the
// devices child-1 and child-2, which it calls "Device 1" and "Device 2". Command 9
// waits for an answer of nobody.
type shelf struct {
	mu      sync.Mutex
	listen  map[place][]*func(citywarden.Downlink) bool
	answers []string
}

type place struct {
	id   citywarden.DeviceID
	kind citywarden.DownlinkKind
}

// shelved is an acceptor with a shelf that the test knows.
type shelved struct {
	*journal
	*shelf
}

func downOf(a Acceptor) Downlinks {
	if d, ok := a.(Downlinks); ok {
		return d
	}
	return &shelf{}
}

func (*shelf) Attributes(_ context.Context, id citywarden.DeviceID, client, shared []string) (citywarden.DeviceAttributes, error) {
	pick := func(all map[string]any, names []string) map[string]any {
		if names != nil {
			maps.DeleteFunc(all, func(k string, _ any) bool { return !slices.Contains(names, k) })
		}
		return all
	}
	return citywarden.DeviceAttributes{
		Client: pick(map[string]any{"firmware": "1.2 of " + string(id), "uptime": 60.0}, client),
		Shared: pick(map[string]any{"report": 30.0, "led": true}, shared),
	}, nil
}

func (*shelf) Child(gateway citywarden.DeviceID, name string) (citywarden.DeviceID, error) {
	n, ok := strings.CutPrefix(name, "Device ")
	if gateway != "gw" || !ok {
		return "", citywarden.Errorf(citywarden.CodeNotFound, "no device %q behind gateway %s", name, gateway)
	}
	return citywarden.DeviceID("child-" + n), nil
}

func (s *shelf) Listen(id citywarden.DeviceID, kind citywarden.DownlinkKind, send func(citywarden.Downlink) bool) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listen == nil {
		s.listen = map[place][]*func(citywarden.Downlink) bool{}
	}
	s.listen[place{id, kind}] = append(s.listen[place{id, kind}], &send)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.listen[place{id, kind}] = slices.DeleteFunc(s.listen[place{id, kind}], func(f *func(citywarden.Downlink) bool) bool { return f == &send })
	}
}

func (s *shelf) Answer(_ context.Context, device citywarden.DeviceID, id int64, body []byte) error {
	switch {
	case id == 9:
		return citywarden.Errorf(citywarden.CodeNotFound, "no command 9 waits")
	case !json.Valid(body):
		return citywarden.Errorf(citywarden.CodeInvalid, "the answer is not JSON")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = append(s.answers, fmt.Sprintf("%s %d %s", device, id, body))
	return nil
}

func (s *shelf) answered() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.answers)
}

// send hands a body for device to who listens at at, and reports how many do.
func (s *shelf) send(at, device citywarden.DeviceID, body string) int {
	return s.pass(place{at, citywarden.DownlinkAttributes}, citywarden.Downlink{Device: device, Body: json.RawMessage(body)})
}

// command hands a command to who listens at at, and reports how many take it.
func (s *shelf) command(at, device citywarden.DeviceID, id int64, body string, done func(error)) int {
	return s.pass(place{at, citywarden.DownlinkCommand},
		citywarden.Downlink{Device: device, Kind: citywarden.DownlinkCommand, ID: id, Body: json.RawMessage(body), Done: done})
}

func (s *shelf) pass(p place, m citywarden.Downlink) (taken int) {
	s.mu.Lock()
	to := slices.Clone(s.listen[p])
	s.mu.Unlock()
	for _, f := range to {
		if (*f)(m) {
			taken++
		}
	}
	return taken
}

// serveTCP runs a broker on a free port.
func serveTCP(t testing.TB, a Acceptor) (addr string, book *logBook, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	book, stop = serve(t, ln, a)
	return ln.Addr().String(), book, stop
}

// peer is a device that speaks MQTT packet by packet.
type peer struct {
	t       testing.TB
	conn    net.Conn
	r       *bufio.Reader
	version byte
}

func dial(t testing.TB, addr string, version byte) *peer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &peer{t: t, conn: c, r: bufio.NewReader(c), version: version}
}

type connectOption func(*packets.Packet)

func will(topic, payload string) connectOption {
	return func(pk *packets.Packet) {
		pk.Connect.WillFlag, pk.Connect.WillTopic, pk.Connect.WillPayload = true, topic, []byte(payload)
	}
}

func password(text string) connectOption {
	return func(pk *packets.Packet) { pk.Connect.Password, pk.Connect.PasswordFlag = []byte(text), true }
}

func keepAlive(seconds uint16) connectOption {
	return func(pk *packets.Packet) { pk.Connect.Keepalive = seconds }
}

// connect sends a CONNECT and returns the CONNACK.
func (p *peer) connect(clientID, token string, opts ...connectOption) packets.Packet {
	p.t.Helper()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: p.version}
	pk.Connect = packets.ConnectParams{ProtocolName: []byte("MQTT"), ClientIdentifier: clientID, Clean: true, Keepalive: 60,
		Username: []byte(token), UsernameFlag: token != ""}
	for _, o := range opts {
		o(&pk)
	}
	p.write(pk.ConnectEncode)
	return p.read(packets.Connack)
}

// login connects and must be let in.
func (p *peer) login(clientID, device string, opts ...connectOption) *peer {
	p.t.Helper()
	if ack := p.connect(clientID, "token-of-"+device, opts...); ack.ReasonCode != 0 {
		p.t.Fatalf("CONNACK %#x %s", ack.ReasonCode, ack.Properties.ReasonString)
	}
	return p
}

func (p *peer) write(encode func(*bytes.Buffer) error) {
	p.t.Helper()
	var b bytes.Buffer
	if err := encode(&b); err != nil {
		p.t.Fatal(err)
	}
	_, _ = p.conn.Write(b.Bytes()) // when the broker has hung up, the next read says so
}

type publishOption func(*packets.Packet)

func alias(n uint16) publishOption {
	return func(pk *packets.Packet) { pk.Properties.TopicAlias, pk.Properties.TopicAliasFlag = n, true }
}

func (p *peer) publish(topic, payload string, qos byte, id uint16, opts ...publishOption) {
	p.t.Helper()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}, ProtocolVersion: p.version,
		TopicName: topic, Payload: []byte(payload), PacketID: id}
	for _, o := range opts {
		o(&pk)
	}
	p.write(pk.PublishEncode)
}

func (p *peer) subscribe(filters ...string) packets.Packet {
	p.t.Helper()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, ProtocolVersion: p.version, PacketID: 1}
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: f, Qos: 1})
	}
	p.write(pk.SubscribeEncode)
	return p.read(packets.Suback)
}

// ping shows that the broker has dealt with everything sent before: whatever it
// answered at once comes before the PINGRESP.
func (p *peer) ping() {
	p.t.Helper()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}}
	p.write(pk.PingreqEncode)
	p.read(packets.Pingresp)
}

// read reads the next packet, which must be of type want.
func (p *peer) read(want byte) packets.Packet {
	p.t.Helper()
	pk, err := p.next()
	if err != nil {
		p.t.Fatalf("reading %s: %v", packets.PacketNames[want], err)
	}
	if pk.FixedHeader.Type != want {
		p.t.Fatalf("got %s (id %d, code %#x %s), want %s", packets.PacketNames[pk.FixedHeader.Type], pk.PacketID,
			pk.ReasonCode, pk.Properties.ReasonString, packets.PacketNames[want])
	}
	return pk
}

// closed reads up to the end of the connection; only a DISCONNECT may come,
// which is returned.
func (p *peer) closed() (disconnect packets.Packet) {
	p.t.Helper()
	for {
		pk, err := p.next()
		if err != nil {
			return disconnect
		}
		if pk.FixedHeader.Type != packets.Disconnect {
			p.t.Fatalf("got %s (id %d), want the end of the connection", packets.PacketNames[pk.FixedHeader.Type], pk.PacketID)
		}
		disconnect = pk
	}
}

func (p *peer) next() (packets.Packet, error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	pk := packets.Packet{ProtocolVersion: p.version}
	b, err := p.r.ReadByte()
	if err != nil {
		return pk, err
	}
	if err := pk.FixedHeader.Decode(b); err != nil {
		return pk, err
	}
	if pk.FixedHeader.Remaining, _, err = packets.DecodeLength(p.r); err != nil {
		return pk, err
	}
	body := make([]byte, pk.FixedHeader.Remaining)
	if _, err := io.ReadFull(p.r, body); err != nil {
		return pk, err
	}
	switch pk.FixedHeader.Type {
	case packets.Connack:
		err = pk.ConnackDecode(body)
	case packets.Publish:
		err = pk.PublishDecode(body)
	case packets.Puback:
		err = pk.PubackDecode(body)
	case packets.Pubrec:
		err = pk.PubrecDecode(body)
	case packets.Pubcomp:
		err = pk.PubcompDecode(body)
	case packets.Suback:
		err = pk.SubackDecode(body)
	case packets.Unsuback:
		err = pk.UnsubackDecode(body)
	case packets.Disconnect:
		if len(body) > 0 {
			err = pk.DisconnectDecode(body)
		}
	}
	return pk, err
}
