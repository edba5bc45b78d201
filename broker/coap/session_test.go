package coap

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/dtls/v3"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker/certtest"
)

const keyOfA = "a key of 20 letters."

// PreSharedKey knows identity-of-a.
func (p *platform) PreSharedKey(identity string) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if identity != "identity-of-a" || p.revoked {
		return nil, citywarden.Errorf(citywarden.CodeUnauthenticated, "no device has the identity %q", identity)
	}
	return []byte(keyOfA), nil
}

// AuthenticateCertificate knows devices by the name in certificates, as the registry does.
func (p *platform) AuthenticateCertificate(c *x509.Certificate, certified func() bool) (citywarden.DeviceID, error) {
	if time.Now().After(c.NotAfter) {
		return "", citywarden.Errorf(citywarden.CodeDenied, "certificate %q has expired", c.Subject.CommonName)
	}
	if !certified() {
		return "", citywarden.Errorf(citywarden.CodeUnauthenticated, "certificate %q: no device has it", c.Subject.CommonName)
	}
	return p.Authenticate(c.Subject.CommonName)
}

// certifiedBy trusts one authority.
func certifiedBy(ca *certtest.Authority) func([]*x509.Certificate) bool {
	return func(chain []*x509.Certificate) bool {
		_, err := chain[0].Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		return err == nil
	}
}

// secureAddrs are where a server listens that speaks everything.
type secureAddrs struct{ dtls, tcp, tls string }

func serveSecure(t testing.TB, p *platform, ca *certtest.Authority) (at secureAddrs, book *logBook, stop func()) {
	t.Helper()
	conn := listenUDP(t)
	cert := ca.Valid("server")
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	plain, secured := listen(), listen()
	book, stop = serveOptions(t, p, Options{
		DTLS:      &DTLS{Conn: conn, Certificate: func() *tls.Certificate { return &cert }},
		Streams:   []Stream{{Listener: plain}, {Listener: secured, TLS: &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"coap"}}}},
		Certified: certifiedBy(ca),
	})
	return secureAddrs{conn.LocalAddr().String(), plain.Addr().String(), secured.Addr().String()}, book, stop
}

// secret is how a test's device shows who it is.
func secret(identity, key string) []dtls.ClientOption {
	return []dtls.ClientOption{
		dtls.WithPSK(func([]byte) ([]byte, error) { return []byte(key), nil }), dtls.WithPSKIdentityHint([]byte(identity)),
		dtls.WithCipherSuites(dtls.TLS_PSK_WITH_AES_128_CCM_8), dtls.WithConnectionIDGenerator(dtls.OnlySendCIDGenerator()),
	}
}

// dialDTLS does a handshake from a socket of its own.
func dialDTLS(t testing.TB, from net.PacketConn, addr string, o ...dtls.ClientOption) (*peer, error) {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := dtls.ClientWithOptions(from, to, o...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return &peer{t: t, conn: c}, c.HandshakeContext(ctx)
}

func mustDial(t testing.TB, from net.PacketConn, addr string, o ...dtls.ClientOption) *peer {
	t.Helper()
	p, err := dialDTLS(t, from, addr, o...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPreSharedKey: a device that showed its key needs no token, may show one of its own, and
// none of another's; its session ends when the key is revoked.
func TestPreSharedKey(t *testing.T) {
	p := newPlatform()
	at, _, _ := serveSecure(t, p, certtest.New(t))
	d := mustDial(t, listenUDP(t), at.dtls, secret("identity-of-a", keyOfA)...)
	for i, c := range []struct {
		path string
		code codes.Code
	}{
		{"api/v1/telemetry", codes.Changed}, {goodPath, codes.Changed}, {"api/v1/token-of-b/telemetry", codes.Forbidden},
		{"api/v1/12345678/telemetry", codes.Unauthorized}, {"api/v1/rpc/7", codes.Changed}, {"api/v1/telemetries", codes.NotFound},
	} {
		if r := d.ask(post(int32(i), c.path, `{"p":1}`)); r.Code != c.code {
			t.Errorf("%s: %s %s, want %s", c.path, codeLabel(r.Code), r.Payload, codeLabel(c.code))
		}
	}
	if d := cmp.Diff([]citywarden.Uplink{telemetry(`{"p":1}`), telemetry(`{"p":1}`)}, p.wait(t, 2), ignoreReceived); d != "" {
		t.Error(d)
	}
	p.mu.Lock()
	p.revoked = true
	p.mu.Unlock()
	p.listens(t, citywarden.DownlinkRevokedDTLS, true)(citywarden.Downlink{Device: "a", Kind: citywarden.DownlinkRevoked})
	_ = d.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := d.conn.Read(make([]byte, 100)); !errors.Is(err, io.EOF) {
		t.Errorf("after the revocation: %d bytes, %v; want the end of the session", n, err)
	}
	p.listens(t, citywarden.DownlinkRevokedDTLS, false)
	if _, err := dialDTLS(t, listenUDP(t), at.dtls, secret("identity-of-a", keyOfA)...); err == nil {
		t.Error("a revoked key makes a new session")
	}
}

// A device whose key is not the one that was issued gets no session, and the log says so.
func TestWrongKey(t *testing.T) {
	p := newPlatform()
	at, book, _ := serveSecure(t, p, certtest.New(t))
	if _, err := dialDTLS(t, listenUDP(t), at.dtls, secret("identity-of-nobody", keyOfA)...); err == nil {
		t.Error("an unknown identity makes a session")
	}
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(book.String(), `identity="\"identity-of-nobody\""`); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("log:\n%s", book)
		}
	}
	c, err := dtls.ClientWithOptions(listenUDP(t), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at.dtls)), secret("identity-of-a", "another of 20 letter")...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := c.HandshakeContext(ctx); err == nil {
		t.Error("a wrong key makes a session")
	}
}

// TestCipherSuites: a device with a key may have no suite but one with CBC and SHA-256; the log
// tells of one that has none of ours.
func TestCipherSuites(t *testing.T) {
	at, book, _ := serveSecure(t, newPlatform(), certtest.New(t))
	with := func(id dtls.CipherSuiteID) []dtls.ClientOption {
		return append(secret("identity-of-a", keyOfA)[:2:2], dtls.WithCipherSuites(id))
	}
	if a := mustDial(t, listenUDP(t), at.dtls, with(dtls.TLS_PSK_WITH_AES_128_CBC_SHA256)...).ask(post(1, "api/v1/telemetry", "{}")); a.Code != codes.Changed {
		t.Errorf("%s %s", codeLabel(a.Code), a.Payload)
	}
	if _, err := dialDTLS(t, listenUDP(t), at.dtls, with(dtls.TLS_PSK_WITH_CHACHA20_POLY1305_SHA256)...); err == nil {
		t.Error("ChaCha20 makes a session")
	}
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(book.String(), "DTLS handshake not begun"); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("log:\n%s", book)
		}
	}
}

// relay passes datagrams between a device and the server, as a NAT does, and keeps those
// that the device sent.
type relay struct {
	t      testing.TB
	inside *net.UDPConn
	to     netip.AddrPort

	mu      sync.Mutex
	outside *net.UDPConn
	device  netip.AddrPort
	sent    [][]byte
}

func newRelay(t testing.TB, to string) *relay {
	r := &relay{t: t, inside: listenUDP(t), to: netip.MustParseAddrPort(to)}
	r.rebind()
	t.Cleanup(func() { _ = r.inside.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := r.inside.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.device, r.sent = from, append(r.sent, bytes.Clone(buf[:n]))
			_, _ = r.outside.WriteToUDPAddrPort(buf[:n], r.to)
			r.mu.Unlock()
		}
	}()
	return r
}

// rebind gives the device another address.
func (r *relay) rebind() {
	out := listenUDP(r.t)
	r.t.Cleanup(func() { _ = out.Close() })
	r.mu.Lock()
	r.outside = out
	r.mu.Unlock()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := out.Read(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			_, _ = r.inside.WriteToUDPAddrPort(buf[:n], r.device)
			r.mu.Unlock()
		}
	}()
}

// recorded are the datagrams that the device has sent.
func (r *relay) recorded() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sent)
}

// replay sends again all that the device has sent, from where it is now.
func (r *relay) replay() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.sent {
		_, _ = r.outside.WriteToUDPAddrPort(b, r.to)
	}
}

// TestReplayedRecords: who records datagrams of a device and sends them again has nothing
// stored, neither from the device's address nor from another; nor does it take the session over.
func TestReplayedRecords(t *testing.T) {
	p := newPlatform()
	at, _, _ := serveSecure(t, p, certtest.New(t))
	r := newRelay(t, at.dtls)
	d := mustDial(t, listenUDP(t), r.inside.LocalAddr().String(), secret("identity-of-a", keyOfA)...)
	for i := range int32(3) {
		if a := d.ask(post(i, "api/v1/telemetry", fmt.Sprintf(`{"p":%d}`, i))); a.Code != codes.Changed {
			t.Fatalf("%s %s", codeLabel(a.Code), a.Payload)
		}
	}
	r.replay()
	thief := newRelay(t, at.dtls)
	thief.sent = r.recorded()
	thief.replay()
	if a := d.ask(post(9, "api/v1/telemetry", `{"p":9}`)); a.Code != codes.Changed { // after the replayed ones
		t.Fatalf("%s %s", codeLabel(a.Code), a.Payload)
	}
	if got := p.wait(t, 4); len(got) != 4 {
		t.Errorf("%d messages were taken, want 4: %v", len(got), got)
	}
}

// TestConnectionID: a device keeps its session when its NAT gives it another address, and is
// answered there.
func TestConnectionID(t *testing.T) {
	p := newPlatform()
	at, _, _ := serveSecure(t, p, certtest.New(t))
	r := newRelay(t, at.dtls)
	d := mustDial(t, listenUDP(t), r.inside.LocalAddr().String(), secret("identity-of-a", keyOfA)...)
	for i := range int32(3) {
		if a := d.ask(post(i, "api/v1/telemetry", `{"p":1}`)); a.Code != codes.Changed {
			t.Fatalf("%s %s", codeLabel(a.Code), a.Payload)
		}
		r.rebind()
	}
}

// A device that was switched off and on begins again at its old address; the session before
// ends when the new one is there.
func TestDeviceBeginsAgain(t *testing.T) {
	p := newPlatform()
	at, _, _ := serveSecure(t, p, certtest.New(t))
	socket := listenUDP(t)
	addr := socket.LocalAddr().(*net.UDPAddr)
	without := secret("identity-of-a", keyOfA)[:3] // no connection id
	for i := range int32(3) {
		d := mustDial(t, socket, at.dtls, without...)
		if a := d.ask(post(i, "api/v1/telemetry", `{"p":1}`)); a.Code != codes.Changed {
			t.Fatalf("%s %s", codeLabel(a.Code), a.Payload)
		}
		_ = socket.Close() // without a word
		var err error
		if socket, err = net.ListenUDP("udp", addr); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCertificates: a device is known by the certificate that it shows over DTLS or TLS; one
// that is not may show a token, and is told what is wrong with its certificate.
func TestCertificates(t *testing.T) {
	ca, other := certtest.New(t), certtest.New(t)
	expired := ca.Issue("token-of-a", time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	for _, c := range []struct {
		name string
		cert tls.Certificate
		path string
		code codes.Code
		says string
	}{
		{"known", ca.Valid("token-of-a"), "api/v1/telemetry", codes.Changed, ""},
		{"expired", expired, "api/v1/telemetry", codes.Forbidden, `certificate "token-of-a" has expired`},
		{"another authority's", other.Valid("token-of-a"), "api/v1/telemetry", codes.Unauthorized, "no device has it"},
		{"another authority's, with a token", other.Valid("token-of-a"), goodPath, codes.Changed, ""},
		{"none", tls.Certificate{}, "api/v1/telemetry", codes.Unauthorized, "there is none in the path"},
		{"none, with a token", tls.Certificate{}, goodPath, codes.Changed, ""},
		{"known, with another's token", ca.Valid("token-of-a"), "api/v1/token-of-b/telemetry", codes.Forbidden, "not one of device a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at, _, _ := serveSecure(t, newPlatform(), ca)
			o := []dtls.ClientOption{dtls.WithRootCAs(ca.Pool()), dtls.WithServerName("localhost")}
			config := &tls.Config{RootCAs: ca.Pool(), NextProtos: []string{"coap"}}
			if c.cert.Certificate != nil {
				o = append(o, dtls.WithCertificates(c.cert))
				config.Certificates = []tls.Certificate{c.cert}
			}
			r := mustDial(t, listenUDP(t), at.dtls, o...).ask(post(1, c.path, `{"p":1}`))
			if r.Code != c.code || !strings.Contains(string(r.Payload), c.says) {
				t.Errorf("DTLS: %s %s, want %s %q", codeLabel(r.Code), r.Payload, codeLabel(c.code), c.says)
			}
			conn, err := tls.Dial("tcp", at.tls, config)
			if err != nil {
				t.Fatal(err)
			}
			r = newStreamPeer(t, conn).ask(post(1, c.path, `{"p":1}`))
			if r.Code != c.code || !strings.Contains(string(r.Payload), c.says) {
				t.Errorf("TLS: %s %s, want %s %q", codeLabel(r.Code), r.Payload, codeLabel(c.code), c.says)
			}
		})
	}
}

// streamPeer is a device that speaks CoAP over TCP message by message.
type streamPeer struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func newStreamPeer(t testing.TB, c net.Conn) *streamPeer {
	t.Helper()
	t.Cleanup(func() { _ = c.Close() })
	p := &streamPeer{t, c, bufio.NewReader(c)}
	p.send(message.Message{Code: codes.CSM})
	if m := p.receive(); m.Code != codes.CSM {
		t.Fatalf("begins with %s", codeLabel(m.Code))
	}
	return p
}

func dialStream(t testing.TB, addr string) *streamPeer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return newStreamPeer(t, c)
}

func (p *streamPeer) send(m message.Message) {
	p.t.Helper()
	b, err := encodeStream(m)
	if err == nil {
		_, err = p.conn.Write(b)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *streamPeer) receive() message.Message {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	m, err := readMessage(p.r, func() {})
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

func (p *streamPeer) ask(m message.Message) message.Message {
	p.t.Helper()
	p.send(m)
	return p.receive()
}

// ends waits until the server closes the connection, and returns what it said before.
func (p *streamPeer) ends() (said message.Message) {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		m, err := readMessage(p.r, func() {})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			p.t.Fatal("the connection goes on")
		case err != nil:
			return said
		}
		said = m
	}
}

// TestStream: requests over TCP, in one piece and in blocks, are answered in order; the
// connection is the device's whose token came first.
func TestStream(t *testing.T) {
	p := newPlatform()
	at, _, _ := serveSecure(t, p, certtest.New(t))
	d := dialStream(t, at.tcp)
	if r := d.ask(message.Message{Code: codes.Ping, Token: message.Token{7}}); r.Code != codes.Pong || !bytes.Equal(r.Token, []byte{7}) {
		t.Errorf("a ping is answered %s %x", codeLabel(r.Code), r.Token)
	}
	big := `{"note":"` + strings.Repeat("x", 40_000) + `"}`
	for _, c := range []struct {
		path, body string
		code       codes.Code
	}{
		{"api/v1/telemetry", `{}`, codes.Unauthorized}, {goodPath, `{"p":1}`, codes.Changed}, {goodPath, big, codes.Changed},
		{"api/v1/telemetry", `{"p":2}`, codes.Changed}, {goodPath, `nonsense`, codes.BadRequest}, {"api/v1/token-of-b/telemetry", `{}`, codes.Forbidden},
	} {
		if r := d.ask(post(1, c.path, c.body)); r.Code != c.code || !bytes.Equal(r.Token, []byte{1, 1}) {
			t.Errorf("%s: %s %s, want %s", c.path, codeLabel(r.Code), r.Payload, codeLabel(c.code))
		}
	}
	for i, part := range []string{`{"a":1234567`, `1234567"}`} { // blocks of 16
		part = (part + strings.Repeat(" ", 16))[:16]
		r := d.ask(post(1, goodPath, part, message.Option{ID: message.Block1, Value: block{number: uint32(i), more: i == 0}.value()}))
		if want := []codes.Code{codes.Continue, codes.Changed}[i]; r.Code != want {
			t.Errorf("block %d: %s %s", i, codeLabel(r.Code), r.Payload)
		}
	}
	want := []citywarden.Uplink{telemetry(`{"p":1}`), telemetry(big), telemetry(`{"p":2}`), telemetry(`nonsense`), telemetry(`{"a":1234567    1234567"}       `)}
	if d := cmp.Diff(want, p.wait(t, len(want)), ignoreReceived); d != "" {
		t.Error(d)
	}
	p.mu.Lock()
	p.revoked = true
	p.mu.Unlock()
	p.listens(t, citywarden.DownlinkRevoked, true)(citywarden.Downlink{Device: "a", Kind: citywarden.DownlinkRevoked})
	if m := d.ends(); m.Code != codes.Abort || !strings.Contains(string(m.Payload), "not valid any more") {
		t.Errorf("ends with %s %s", codeLabel(m.Code), m.Payload)
	}
}

// TestStreamObserves: a notification over TCP is delivered when the device has read what
// follows it.
func TestStreamObserves(t *testing.T) {
	p := newPlatform()
	at, _, _ := serveSecure(t, p, certtest.New(t))
	d := dialStream(t, at.tcp)
	if r := d.ask(get(1, "api/v1/token-of-a/rpc", 0)); r.Code != codes.Valid || !r.Options.HasOption(message.Observe) {
		t.Fatalf("%s with %v", codeLabel(r.Code), r.Options)
	}
	ends := make(chan bool, 1)
	tell := func() {
		p.listens(t, citywarden.DownlinkCommand, true)(citywarden.Downlink{Device: "a", Kind: citywarden.DownlinkCommand, ID: 7, Body: []byte(`{"method":"open","params":{}}`), Done: func(err error) { ends <- err == nil }})
	}
	tell()
	if n := d.receive(); string(n.Payload) != `{"id":7,"method":"open","params":{}}` {
		t.Errorf("told %s", n.Payload)
	}
	ping := d.receive()
	if ping.Code != codes.Ping {
		t.Fatalf("then %s", codeLabel(ping.Code))
	}
	select {
	case <-ends:
		t.Error("delivered before the device said so")
	default:
	}
	d.send(message.Message{Code: codes.Pong, Token: ping.Token})
	if !<-ends {
		t.Error("not delivered")
	}
	tell()
	_ = d.conn.Close()
	if <-ends {
		t.Error("delivered to a connection that ended")
	}
	p.listens(t, citywarden.DownlinkCommand, false)
}

// pipes is a listener in memory.
type pipes struct {
	conns chan net.Conn
	ended chan struct{}
	once  sync.Once
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.ended:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error { l.once.Do(func() { close(l.ended) }); return nil }
func (*pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipes) dial() net.Conn {
	here, there := net.Pipe()
	l.conns <- there
	return here
}

// TestSlowStream: who has not shown a token in 10 s, says too much or nothing useful is
// disconnected, and so is a device that leaves a message half sent.
func TestSlowStream(t *testing.T) {
	half, err := encodeStream(post(1, goodPath, `{"p":1}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		known bool
		bytes []byte
		after time.Duration // it is disconnected
	}{
		{"nothing", false, nil, knownWithin},
		{"half a message", false, half[:len(half)/2], knownWithin},
		{"a long one", false, []byte{0xf0, 0x7f, 0xff, 0xff, 0xff, 2}, 0},
		{"not CoAP", false, []byte("GET / HTTP/1.1\r\n\r\n"), 0},
		{"half a message of a device", true, half[:len(half)/2], messageWithin},
		{"nothing of a device", true, nil, sessionIdle},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &pipes{conns: make(chan net.Conn), ended: make(chan struct{})}
				_, stop := serveOptions(t, newPlatform(), Options{Streams: []Stream{{Listener: l}}})
				defer stop()
				conn := l.dial()
				r := bufio.NewReader(conn)
				read := func() (message.Message, error) { return readMessage(r, func() {}) }
				if m, err := read(); err != nil || m.Code != codes.CSM {
					t.Fatal(m.Code, err)
				}
				if c.known {
					if _, err := conn.Write(half); err != nil {
						t.Fatal(err)
					}
					if m, err := read(); err != nil || m.Code != codes.Changed {
						t.Fatal(m.Code, err)
					}
				}
				begin := time.Now()
				go func() { _, _ = conn.Write(c.bytes) }()
				for {
					if _, err := read(); err != nil {
						break
					}
				}
				if got := time.Since(begin); got < c.after || got > c.after+time.Second {
					t.Errorf("disconnected after %s, want %s", got, c.after)
				}
				_ = conn.Close()
			})
		})
	}
}

// TestEagerStream: a device that asks more than can be answered at once is kept waiting, not
// disconnected, whether the answers come late or at once.
func TestEagerStream(t *testing.T) {
	const n = 3 * maxTold
	for path, code := range map[string]codes.Code{goodPath: codes.Changed, "api/v1/token-of-a/nothing": codes.NotFound} {
		synctest.Test(t, func(t *testing.T) {
			p := newPlatform()
			p.hold = true
			l := &pipes{conns: make(chan net.Conn), ended: make(chan struct{})}
			_, stop := serveOptions(t, p, Options{Streams: []Stream{{Listener: l}}})
			defer stop()
			d := newStreamPeer(t, l.dial())
			go func() {
				for i := range int32(n) {
					d.send(post(i, path, "{}"))
				}
			}()
			synctest.Wait()
			if got := len(p.wait(t, 0)); got > maxAsked {
				t.Errorf("%d messages are under way, want %d", got, maxAsked)
			}
			p.mu.Lock()
			p.hold = false
			p.mu.Unlock()
			p.release(nil)
			for range n {
				if m := d.receive(); m.Code != code {
					t.Fatalf("answered %s", codeLabel(m.Code))
				}
			}
			_ = d.conn.Close()
		})
	}
}

// TestCrowd: those at one address that have not shown whose they are have a bound, so that
// others come in.
func TestCrowd(t *testing.T) {
	d := doorway{from: map[netip.Addr]int{}}
	at := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}) }
	for range maxUnknownAt {
		if _, crowded := d.come(at(0)); crowded {
			t.Fatal("crowded too soon")
		}
	}
	if there, crowded := d.come(at(0)); !there || !crowded {
		t.Error("one address has no bound")
	}
	for n := 1; d.total < maxUnknown; n++ {
		if _, crowded := d.come(at(n)); crowded {
			t.Fatalf("crowded with %d", d.total)
		}
	}
	if there, crowded := d.come(at(5000)); there || !crowded {
		t.Error("all together have no bound")
	}
	leave := d.place(at(0)).leave
	leave()
	leave()
	if _, crowded := d.come(at(5000)); crowded {
		t.Error("a place that was given back can't be had")
	}
	proven := d.place(at(0))
	proven.prove()
	if d.from[at(0)] != maxUnknownAt-2 || d.total != maxUnknown {
		t.Errorf("%d in the share of an address, %d at all", d.from[at(0)], d.total)
	}
	if proven.leave(); len(d.proven) != 0 || d.total != maxUnknown-1 {
		t.Errorf("%d proven, %d at all", len(d.proven), d.total)
	}
	one, two := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	if neighbourhood(one) != neighbourhood(two) || neighbourhood(at(1)) == neighbourhood(at(2)) {
		t.Error("a household of IPv6 has more than one share, or two addresses of IPv4 have one")
	}
}

// Among too many sessions the one that said nothing for longest ends, but only for one whose device
// is known, and none whose device is not.
func TestTooManySessions(t *testing.T) {
	var book logBook
	l := &loop{Server: &Server{log: slog.New(slog.NewTextHandler(&book, nil))}, sessions: map[*session]bool{}}
	conn, other := net.Pipe()
	defer conn.Close()
	defer other.Close()
	begin := time.Now()
	var first *session
	for i := range maxSessions + 1 {
		s := &session{conn: conn, admit: func() {}, name: fmt.Sprint(i), heard: begin.Add(time.Duration(i) * time.Second)}
		if !l.enter(s) {
			t.Fatal("not let in")
		}
		if i == 1 {
			first = s
		}
		if i > 0 && i < maxSessions {
			l.makeRoom(s)
		}
	}
	if len(l.sessions) != maxSessions+1 {
		t.Errorf("%d sessions", len(l.sessions))
	}
	s := &session{conn: conn, admit: func() {}, heard: begin.Add(-time.Hour)}
	l.enter(s)
	if l.makeRoom(s); l.sessions[first] || !first.stopping || len(l.sessions) != maxSessions+1 || !strings.Contains(book.String(), "too many sessions") {
		t.Errorf("%d sessions; log:\n%s", len(l.sessions), &book)
	}
}

// TestFlood: first messages of handshakes from ever new ports, which a sender can invent,
// leave room for a device, and nothing behind.
func TestFlood(t *testing.T) {
	p := newPlatform()
	at, _, stop := serveSecure(t, p, certtest.New(t))
	r := newRelay(t, at.dtls)
	mustDial(t, listenUDP(t), r.inside.LocalAddr().String(), secret("identity-of-a", keyOfA)...)
	hello := r.recorded()[0]
	for range 3 * maxUnknownAt {
		c, err := net.Dial("udp", at.dtls)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(hello); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	d := mustDial(t, listenUDP(t), at.dtls, secret("identity-of-a", keyOfA)...)
	if a := d.ask(post(1, "api/v1/telemetry", `{"p":1}`)); a.Code != codes.Changed {
		t.Errorf("%s %s", codeLabel(a.Code), a.Payload)
	}
	stop() // waits for every goroutine
}

// What comes unencrypted to a session is not kept without a bound, wherever in a datagram it is.
func TestUnencrypted(t *testing.T) {
	record := func(kind, epoch byte, body int) []byte {
		b := []byte{kind, 254, 253, 0, epoch, 0, 0, 0, 0, 0, 1}
		if kind == typeWithCID {
			b = append(b, make([]byte, len(connectionID{}))...)
		}
		return append(append(b, byte(body>>8), byte(body)), make([]byte, body)...)
	}
	for _, c := range []struct {
		records        [][]byte
		plain, foreign bool
	}{
		{[][]byte{record(22, 0, 20)}, true, false},
		{[][]byte{record(23, 1, 300)}, false, false},
		{[][]byte{record(23, 1, 20), record(22, 0, 20)}, true, false},
		{[][]byte{record(typeWithCID, 1, 20), record(22, 0, 20)}, true, false},
		{[][]byte{record(typeWithCID, 1, 20), record(23, 1, 20)}, false, false},
		{[][]byte{record(23, 1, 20)[:20]}, false, false},
		{nil, false, false},
		{[][]byte{record(22, 0, 20), append(record(20, 0, 1)[:13], 1)}, true, false},
		{[][]byte{record(20, 0, 1)}, true, true},
		{[][]byte{record(21, 1, 2), record(22, 0, 20), record(21, 0, 2)}, true, true},
		{[][]byte{record(typeWithCID, 1, 20), record(23, 0, 2)}, true, true},
	} {
		if plain, foreign := unencrypted(bytes.Join(c.records, nil), len(connectionID{})); plain != c.plain || foreign != c.foreign {
			t.Errorf("%x: %t, %t, want %t, %t", c.records, plain, foreign, c.plain, c.foreign)
		}
	}
	a := &association{in: make(chan datagram, 100), room: maxShake, settled: true}
	for range 20 {
		a.take(record(22, 0, 4000), netip.AddrPort{})
		a.take(record(23, 1, 4000), netip.AddrPort{})
	}
	if n, want := len(a.in), 20+maxShake/4013; n != want {
		t.Errorf("%d datagrams are taken, want %d", n, want)
	}
}

// TestForgedClose: who writes the address of a device onto an alert or onto data that is not encrypted
// does not end its session, with a connection id or without one.
func TestForgedClose(t *testing.T) {
	for _, o := range [][]dtls.ClientOption{secret("identity-of-a", keyOfA), secret("identity-of-a", keyOfA)[:3]} {
		at, _, _ := serveSecure(t, newPlatform(), certtest.New(t))
		r := newRelay(t, at.dtls)
		d := mustDial(t, listenUDP(t), r.inside.LocalAddr().String(), o...)
		if a := d.ask(post(1, "api/v1/telemetry", `{"p":1}`)); a.Code != codes.Changed {
			t.Fatalf("%s %s", codeLabel(a.Code), a.Payload)
		}
		for i, b := range []string{"\x15\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x63\x00\x02\x01\x00", "\x17\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x64\x00\x02\x01\x00", "\x14\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x65\x00\x02\x01\x00"} {
			r.mu.Lock()
			_, _ = r.outside.WriteToUDPAddrPort([]byte(b), r.to)
			r.mu.Unlock()
			_ = d.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if a := d.ask(post(int32(i+2), "api/v1/telemetry", `{"p":1}`)); a.Code != codes.Changed {
				t.Fatalf("%x: %s %s", b, codeLabel(a.Code), a.Payload)
			}
		}
	}
}

// What a handshake takes is given back when it is over.
func TestHandshakesLeaveNothing(t *testing.T) {
	d := &secured{loop: &loop{door: doorway{from: map[netip.Addr]int{}}}, byID: map[connectionID]*association{}, byAddr: map[netip.AddrPort]*association{}, greeted: map[netip.AddrPort]*association{}}
	for i := range uint16(3 * maxUnknownAt) {
		a := d.greet(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), i))
		switch i % 3 {
		case 0:
			a.settle()
			a.place.leave()
			_ = a.Close()
		case 1:
			a.place.leave()
			_ = a.Close()
		} // the others are dismissed when there are too many
	}
	if len(d.byAddr) != 0 || len(d.greeted) != len(d.byID) || len(d.order) != len(d.greeted) || d.door.total != len(d.order) {
		t.Errorf("%d at an address, %d greeted, %d in order, %d ids, %d places", len(d.byAddr), len(d.greeted), len(d.order), len(d.byID), d.door.total)
	}
}

// libcoapSecure returns libcoap's client with OpenSSL, or skips the test.
func libcoapSecure(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("coap-client-openssl")
	if err != nil {
		t.Skip("coap-client-openssl is not installed (Debian: libcoap3-bin)")
	}
	return path
}

// TestLibcoapSecure: libcoap's client over DTLS with a key and with a certificate, and over
// TCP with TLS and without it.
func TestLibcoapSecure(t *testing.T) {
	client, ca, dir := libcoapSecure(t), certtest.New(t), t.TempDir()
	big := `{"note":"` + strings.Repeat("x", 3000) + `"}`
	file, root := filepath.Join(dir, "big.json"), filepath.Join(dir, "ca.pem")
	for name, text := range map[string]string{file: big, root: string(ca.PEM())} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, key := certtest.Write(t, dir, "a", ca.Valid("token-of-a"))
	oldCert, oldKey := certtest.Write(t, dir, "old", ca.Issue("token-of-a", time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)))
	psk := []string{"-u", "identity-of-a", "-k", keyOfA}
	x509 := []string{"-c", cert, "-j", key, "-R", root}
	for _, c := range []struct {
		name, scheme string
		path         string
		args         []string
		says         string
		want         string
	}{
		{"key, confirmable", "coaps", "api/v1/telemetry", append([]string{"-e", `{"p":1}`}, psk...), "", `{"p":1}`},
		{"key, non-confirmable", "coaps", "api/v1/telemetry", append([]string{"-N", "-e", `{"p":1}`}, psk...), "", `{"p":1}`},
		{"key, in blocks", "coaps", "api/v1/telemetry", append([]string{"-b", "256", "-f", file}, psk...), "", big},
		{"key, attributes in blocks", "coaps", "api/v1/attributes", append([]string{"-m", "get", "-b", "16"}, psk...), `{"client":{"firmware":"1.2"},"shared":{"report":30}}`, ""},
		{"certificate", "coaps", "api/v1/telemetry", append([]string{"-e", `{"p":1}`}, x509...), "", `{"p":1}`},
		{"expired certificate", "coaps", "api/v1/telemetry", []string{"-e", `{"p":1}`, "-c", oldCert, "-j", oldKey, "-R", root}, `4.03 certificate "token-of-a" has expired`, ""},
		{"TCP", "coap+tcp", goodPath, []string{"-e", `{"p":1}`}, "", `{"p":1}`},
		{"TCP, long", "coap+tcp", goodPath, []string{"-f", file}, "", big},
		{"TCP, in blocks", "coap+tcp", goodPath, []string{"-b", "256", "-f", file}, "", big},
		{"TCP, answer in blocks", "coap+tcp", "api/v1/token-of-c/attributes", []string{"-m", "get"}, `{"client":{"firmware":"1.2","note":"` + strings.Repeat("x", 3000) + `"}`, ""},
		{"TLS, certificate", "coaps+tcp", "api/v1/telemetry", append([]string{"-e", `{"p":1}`}, x509...), "", `{"p":1}`},
		{"TLS, token", "coaps+tcp", goodPath, []string{"-e", `{"p":1}`, "-R", root}, "", `{"p":1}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlatform()
			at, _, _ := serveSecure(t, p, ca)
			addr := map[string]string{"coaps": at.dtls, "coap+tcp": at.tcp, "coaps+tcp": at.tls}[c.scheme]
			args := append([]string{"-m", "post", "-B", "10", "-v", "4"}, c.args...)
			out, err := exec.Command(client, append(args, c.scheme+"://"+addr+"/"+c.path)...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got := strings.TrimSpace(string(out)); !strings.HasPrefix(got, c.says) || c.says == "" && got != "" {
				t.Errorf("coap-client says %q, want %q", got, c.says)
			}
			var want []citywarden.Uplink
			if c.want != "" {
				want = []citywarden.Uplink{telemetry(c.want)}
			}
			if d := cmp.Diff(want, p.wait(t, len(want)), ignoreReceived); d != "" {
				t.Error(d)
			}
		})
	}
	for scheme, more := range map[string][]string{"coaps": psk, "coap+tcp": nil} {
		t.Run(scheme+" observes", func(t *testing.T) {
			p := newPlatform()
			at, _, _ := serveSecure(t, p, ca)
			addr := map[string]string{"coaps": at.dtls, "coap+tcp": at.tcp}[scheme]
			out := make(chan string, 1)
			go func() {
				args := append([]string{"-m", "get", "-s", "1", "-B", "10", "-v", "4"}, more...)
				b, _ := exec.Command(client, append(args, scheme+"://"+addr+"/api/v1/token-of-a/attributes")...).CombinedOutput()
				out <- string(b)
			}()
			ends := make(chan bool, 1)
			p.listens(t, citywarden.DownlinkAttributes, true)(citywarden.Downlink{Device: "a", Body: []byte(`{"report":60}`), Done: func(err error) { ends <- err == nil }})
			if got := <-out; !strings.Contains(got, `{"report":60}`) {
				t.Errorf("coap-client says %q", got)
			}
			if !<-ends {
				t.Error("not delivered")
			}
		})
	}
}

// few lets no device connect once more.
type few struct{}

func (few) Connect(id citywarden.DeviceID, _ string) error {
	return citywarden.Errorf(citywarden.CodeLimited, "%w", &citywarden.LimitError{Reason: "device " + string(id) + " connects more often than it may", After: 20 * time.Second})
}

func (few) Limits(citywarden.DeviceID) citywarden.Limits { return citywarden.Limits{} }

// TestTooManyConnections: over TCP the request is answered with 4.29, over DTLS the session ends at once.
func TestTooManyConnections(t *testing.T) {
	p, conn := newPlatform(), listenUDP(t)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOptions(t, p, Options{DTLS: &DTLS{Conn: conn}, Streams: []Stream{{Listener: plain}}, Limits: few{}})
	r := dialStream(t, plain.Addr().String()).ask(post(1, goodPath, "{}"))
	if age, err := r.Options.GetUint32(message.MaxAge); r.Code != codes.TooManyRequests || err != nil || age != 20 || !strings.Contains(string(r.Payload), "device a connects more often") {
		t.Errorf("%s %s, Max-Age %d (%v)", codeLabel(r.Code), r.Payload, age, err)
	}
	d := mustDial(t, listenUDP(t), conn.LocalAddr().String(), secret("identity-of-a", keyOfA)...)
	_ = d.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := d.conn.Read(make([]byte, 100)); !errors.Is(err, io.EOF) {
		t.Errorf("over DTLS: %d bytes, %v; want the end of the session", n, err)
	}
}
