package coap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp"
	"github.com/plgd-dev/go-coap/v3/udp/coder"

	"github.com/citywarden/citywarden"
)

// platform is an acceptor, checker and authenticator in memory. It knows the
// token "token-of-" + id of every device, and understands what begins with '{'.
type platform struct {
	mu    sync.Mutex
	taken []citywarden.Uplink
	held  []func(error)
	hold  bool
	err   error
	more  chan struct{}

	listen  map[citywarden.DownlinkKind]func(citywarden.Downlink) bool
	answers []string
	revoked bool // nothing of a is good any more
}

func newPlatform() *platform { return &platform{more: make(chan struct{}, 1)} }

func (p *platform) Accept(_ context.Context, up citywarden.Uplink, done func(error)) {
	p.mu.Lock()
	p.taken = append(p.taken, up)
	hold, err := p.hold, p.err
	if hold {
		p.held = append(p.held, done)
	}
	p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
	if !hold {
		done(err)
	}
}

func (*platform) Check(up citywarden.Uplink) error {
	if !bytes.HasPrefix(up.Payload, []byte("{")) {
		return citywarden.Errorf(citywarden.CodeInvalid, "byte 1: expected { or [")
	}
	return nil
}

func (p *platform) Authenticate(token string) (citywarden.DeviceID, error) {
	id, ok := strings.CutPrefix(token, "token-of-")
	if token == citywarden.PSKSecret("identity-of-a", []byte(keyOfA)) {
		id, ok = "a", true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case id == "a" && p.revoked:
		return "", citywarden.Errorf(citywarden.CodeUnauthenticated, "no device has it")
	case !ok:
		return "", citywarden.Errorf(citywarden.CodeUnauthenticated, "no device has this token")
	case id == "disabled":
		return "", citywarden.Errorf(citywarden.CodeDenied, "device disabled is disabled")
	}
	return citywarden.DeviceID(id), nil
}

// Attributes gives every device two attributes, and c one that fills blocks.
func (*platform) Attributes(_ context.Context, id citywarden.DeviceID, client, shared []string) (citywarden.DeviceAttributes, error) {
	a := citywarden.DeviceAttributes{Client: map[string]any{"firmware": "1.2"}, Shared: map[string]any{"report": 30.0}}
	if id == "c" {
		a.Client["note"] = strings.Repeat("x", 3000)
	}
	if client != nil && !slices.Contains(client, "firmware") {
		a.Client = nil
	}
	if shared != nil && !slices.Contains(shared, "report") {
		a.Shared = nil
	}
	return a, nil
}

func (p *platform) Listen(_ citywarden.DeviceID, kind citywarden.DownlinkKind, send func(citywarden.Downlink) bool) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listen == nil {
		p.listen = map[citywarden.DownlinkKind]func(citywarden.Downlink) bool{}
	}
	p.listen[kind] = send
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.listen, kind)
	}
}

// listens waits until somebody listens, or nobody does.
func (p *platform) listens(t testing.TB, kind citywarden.DownlinkKind, want bool) func(citywarden.Downlink) bool {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-time.After(time.Millisecond) {
		p.mu.Lock()
		f := p.listen[kind]
		p.mu.Unlock()
		if (f != nil) == want {
			return f
		}
	}
	t.Fatalf("somebody listens: want %t", want)
	return nil
}

func (p *platform) Answer(_ context.Context, device citywarden.DeviceID, id int64, body []byte) error {
	if id == 9 {
		return citywarden.Errorf(citywarden.CodeNotFound, "no command 9 waits for an answer")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = append(p.answers, fmt.Sprintf("%s %d %s", device, id, body))
	return nil
}

func (p *platform) announce(_ context.Context, device citywarden.DeviceID, body []byte) error {
	switch string(body) {
	case "[]":
		return citywarden.Errorf(citywarden.CodeInvalid, "that is a list")
	case "too often":
		return citywarden.Errorf(citywarden.CodeTransient, "too often")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = append(p.answers, fmt.Sprintf("%s may be claimed %s", device, body))
	return nil
}

// provision answers with the certificate that was sent.
func (*platform) provision(_ context.Context, _ citywarden.Asker, request []byte) []byte {
	return fmt.Appendf(nil, `{"credentialsValue":%q,"credentialsType":"X509_CERTIFICATE","status":"SUCCESS"}`, request)
}

// wait returns what was taken once there are n messages.
func (p *platform) wait(t testing.TB, n int) []citywarden.Uplink {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		p.mu.Lock()
		got := slices.Clone(p.taken)
		p.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-p.more:
		case <-late:
			t.Fatalf("%d messages were taken, want %d", len(got), n)
		}
	}
}

func (p *platform) release(err error) {
	p.mu.Lock()
	held := p.held
	p.held = nil
	p.mu.Unlock()
	for _, done := range held {
		done(err)
	}
}

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

func serve(t testing.TB, p *platform) (addr string, book *logBook, stop func()) {
	t.Helper()
	conn := listenUDP(t)
	book, stop = serveOptions(t, p, Options{Conn: conn})
	return conn.LocalAddr().String(), book, stop
}

func listenUDP(t testing.TB) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// serveOptions serves what o says.
func serveOptions(t testing.TB, p *platform, o Options) (book *logBook, stop func()) {
	t.Helper()
	book = new(logBook)
	o.Announce = p.announce
	o.Provision, o.Accept, o.Check, o.Auth, o.Down, o.Keys, o.Models, o.Logger = p.provision, p, p, p, p, p, p, slog.New(slog.NewTextHandler(book, nil))
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
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

// peer is a device that speaks CoAP datagram by datagram.
type peer struct {
	t     testing.TB
	conn  net.Conn
	early []message.Message // requests that came before the answer of ask
}

func dial(t testing.TB, addr string) *peer {
	t.Helper()
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &peer{t: t, conn: c}
}

func (p *peer) send(m message.Message) {
	p.t.Helper()
	b, err := encode(m)
	if err != nil {
		p.t.Fatal(err)
	}
	p.raw(b)
}

func (p *peer) raw(b []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) receive() message.Message {
	p.t.Helper()
	if len(p.early) > 0 {
		m := p.early[0]
		p.early = p.early[1:]
		return m
	}
	return p.read()
}

func (p *peer) read() message.Message {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 2000)
	n, err := p.conn.Read(buf)
	if err != nil {
		p.t.Fatal(err)
	}
	m := message.Message{Options: make(message.Options, 0, 16)}
	if _, err := coder.DefaultCoder.Decode(buf[:n], &m); err != nil {
		p.t.Fatal(err)
	}
	return m
}

// ask returns the answer to m; what is asked of p before it came is received next.
func (p *peer) ask(m message.Message) message.Message {
	p.t.Helper()
	p.send(m)
	for {
		answer := p.read()
		if answer.Code == codes.Empty || answer.Code > 31 {
			return answer
		}
		p.early = append(p.early, answer) // its code is of class 0: a request
	}
}

// post is a confirmable POST to a path.
func post(id int32, path, payload string, opts ...message.Option) message.Message {
	m := message.Message{Type: message.Confirmable, Code: codes.POST, MessageID: id, Token: message.Token{1, byte(id)}, Payload: []byte(payload)}
	for s := range strings.SplitSeq(path, "/") {
		m.Options = append(m.Options, message.Option{ID: message.URIPath, Value: []byte(s)})
	}
	for _, o := range opts {
		m.Options = m.Options.Add(o)
	}
	return m
}

func option(id message.OptionID, v uint32) message.Option {
	return message.Option{ID: id, Value: uintValue(v)}
}

const goodPath = "api/v1/token-of-a/telemetry"

var ignoreReceived = cmpopts.IgnoreFields(citywarden.Uplink{}, "Received")

func telemetry(payload string) citywarden.Uplink {
	return citywarden.Uplink{Device: "a", Protocol: "coap", Topic: "v1/devices/me/telemetry", Payload: []byte(payload)}
}

// libcoapClient returns libcoap's client, or skips the test.
func libcoapClient(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"coap-client", "coap-client-notls", "coap-client-openssl"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("coap-client is not installed (Debian: libcoap3-bin)")
	return ""
}

func TestLibcoap(t *testing.T) {
	client := libcoapClient(t)
	big := `{"note":"` + strings.Repeat("x", 3000) + `"}`
	file := filepath.Join(t.TempDir(), "big.json")
	if err := os.WriteFile(file, []byte(big), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		path string
		args []string
		says string // "" for an answer without a word
		want string // payload that must have been taken
	}{
		{"confirmable", goodPath, []string{"-e", `{"p":1}`}, "", `{"p":1}`},
		{"non-confirmable", goodPath, []string{"-N", "-e", `{"p":2}`}, "", `{"p":2}`},
		{"blocks of 64", goodPath, []string{"-b", "64", "-f", file}, "", big},
		{"blocks of 1024", goodPath, []string{"-b", "1024", "-f", file}, "", big},
		{"blocks chosen by itself", goodPath, []string{"-f", file}, "", big},
		{"blocks, non-confirmable", goodPath, []string{"-N", "-b", "256", "-f", file}, "", big},
		{"undecodable", goodPath, []string{"-e", `nonsense`}, "4.00 byte 1: expected { or [", `nonsense`},
		{"attributes", "api/v1/token-of-a/attributes", []string{"-m", "get"}, `{"client":{"firmware":"1.2"},"shared":{"report":30}}`, ""},
		{"shared attributes", "api/v1/token-of-a/attributes?sharedKeys=report,x", []string{"-m", "get"}, `{"shared":{"report":30}}`, ""},
		{"attributes in blocks", "api/v1/token-of-c/attributes", []string{"-m", "get", "-b", "256"}, `{"client":{"firmware":"1.2","note":"` + strings.Repeat("x", 3000) + `"},"shared":{"report":30}}`, ""},
		{"unknown token", "api/v1/12345678/telemetry", []string{"-e", "{}"}, "4.01", ""},
		{"unknown path", "api/v1/token-of-a/telemetries", []string{"-e", "{}"}, "4.04", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlatform()
			addr, _, _ := serve(t, p)
			args := append([]string{"-m", "post", "-B", "10", "-v", "4"}, c.args...)
			out, err := exec.Command(client, append(args, "coap://"+addr+"/"+c.path)...).CombinedOutput()
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
}

func TestGoCoap(t *testing.T) {
	p := newPlatform()
	addr, _, _ := serve(t, p)
	c, err := udp.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, body := range []string{`{"p":1}`, `{"note":"` + strings.Repeat("x", 5000) + `"}`} {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		r, err := c.Post(ctx, "/"+goodPath, message.AppJSON, strings.NewReader(body))
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if r.Code() != codes.Changed {
			t.Errorf("answered %v, want 2.04", r.Code())
		}
	}
	if got := p.wait(t, 2); len(got) != 2 || len(got[1].Payload) != 5011 {
		t.Errorf("taken: %d messages", len(got))
	}
}

func TestAnswers(t *testing.T) {
	with := func(m message.Message, change func(*message.Message)) message.Message { change(&m); return m }
	for _, c := range []struct {
		name   string
		m      message.Message
		code   codes.Code
		detail string
	}{
		{"telemetry", post(1, goodPath, "{}"), codes.Changed, ""},
		{"attributes", post(1, "api/v1/token-of-a/attributes", "{}"), codes.Changed, ""},
		{"with a host, query and JSON", post(1, goodPath, "{}", message.Option{ID: message.URIHost, Value: []byte("x")}, option(message.ContentFormat, 50),
			message.Option{ID: message.URIQuery, Value: []byte("q")}, option(message.Size1, 2)), codes.Changed, ""},
		{"unknown token", post(1, "api/v1/nobody/telemetry", "{}"), codes.Unauthorized, "the access token in the path is unknown"},
		{"disabled device", post(1, "api/v1/token-of-disabled/telemetry", "{}"), codes.Forbidden, "device disabled is disabled"},
		{"undecodable", post(1, goodPath, "x"), codes.BadRequest, "byte 1: expected { or ["},
		{"GET", with(post(1, goodPath, ""), func(m *message.Message) { m.Code = codes.GET }), codes.MethodNotAllowed, "use POST"},
		{"other path", post(1, "api/v1/token-of-a", "{}"), codes.NotFound, "POST to /api/v1/{token}/telemetry, attributes, raw, claim or rpc; GET /api/v1/{token}/attributes or rpc, /fw/{token}"},
		{"bootstrap of LwM2M", post(1, "bs", ""), codes.NotFound, "there is no bootstrap server: write address, identity and key of the platform into objects 0 and 1, then register at /rd"},
		{"CBOR", post(1, goodPath, "{}", option(message.ContentFormat, 60)), codes.UnsupportedMediaType, "content format 60; send JSON (50) or SenML (110, 112)"},
		{"SenML", post(1, goodPath, "{}", option(message.ContentFormat, 112)), codes.Changed, ""},
		{"unknown critical option", post(1, goodPath, "{}", option(2049, 1)), codes.BadOption, "option 2049 is not supported"},
		{"unknown elective option", post(1, goodPath, "{}", option(2050, 1)), codes.Changed, ""},
		{"proxy", post(1, goodPath, "{}", message.Option{ID: message.ProxyScheme, Value: []byte("http")}), codes.ProxyingNotSupported, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, _, _ := serve(t, newPlatform())
			r := dial(t, addr).ask(c.m)
			if r.Type != message.Acknowledgement || r.MessageID != 1 || !bytes.Equal(r.Token, c.m.Token) {
				t.Errorf("answered with type %v, id %d, token %x", r.Type, r.MessageID, r.Token)
			}
			if r.Code != c.code || string(r.Payload) != c.detail {
				t.Errorf("answered %s %q, want %s %q", codeLabel(r.Code), r.Payload, codeLabel(c.code), c.detail)
			}
		})
	}
}

func TestUnknownTokenIsLogged(t *testing.T) {
	addr, book, _ := serve(t, newPlatform())
	d := dial(t, addr)
	for id := range int32(50) {
		d.ask(post(id, "api/v1/secret-secret/telemetry", "{}"))
	}
	for _, w := range []string{"uplink refused", "secr…", "POST /api/v1/devices/{id}/credentials"} {
		if !strings.Contains(book.String(), w) {
			t.Errorf("the log does not say %q:\n%s", w, book)
		}
	}
	if n := strings.Count(book.String(), "\n"); n > 5 || strings.Contains(book.String(), "secret-secret") {
		t.Errorf("%d lines in the log:\n%s", n, book)
	}
}

func TestStoreFailure(t *testing.T) {
	p := newPlatform()
	p.err = errors.New("disk is full")
	addr, book, _ := serve(t, p)
	r := dial(t, addr).ask(post(1, goodPath, "{}"))
	age, err := r.Options.GetUint32(message.MaxAge)
	if r.Code != codes.ServiceUnavailable || err != nil || age != maxAge {
		t.Errorf("answered %s, Max-Age %d (%v)", codeLabel(r.Code), age, err)
	}
	if !strings.Contains(book.String(), "disk is full") {
		t.Errorf("the log does not say why:\n%s", book)
	}
}

// TestTooManyMessages: 4.29 says when to come again, and 4.13 how much is taken.
func TestTooManyMessages(t *testing.T) {
	p := newPlatform()
	p.err = citywarden.Errorf(citywarden.CodeLimited, "%w", &citywarden.LimitError{Reason: "device a sends too much", After: 89*time.Second + time.Millisecond})
	addr, _, _ := serve(t, p)
	r := dial(t, addr).ask(post(1, goodPath, "{}"))
	age, err := r.Options.GetUint32(message.MaxAge)
	if r.Code != codes.TooManyRequests || err != nil || age != 90 || string(r.Payload) != "device a sends too much; come again in 1m30s" {
		t.Errorf("answered %s %s, Max-Age %d (%v)", codeLabel(r.Code), r.Payload, age, err)
	}
}

func TestRepetitionIsStoredOnce(t *testing.T) {
	p := newPlatform()
	p.hold = true
	addr, _, _ := serve(t, p)
	d := dial(t, addr)
	m := post(7, goodPath, "{}")
	for range 3 {
		d.send(m)
	}
	p.wait(t, 1)
	d.send(message.Message{Type: message.Confirmable, MessageID: 9}) // a ping: everything before it was dealt with
	if r := d.receive(); r.Type != message.Reset || r.MessageID != 9 {
		t.Errorf("ping answered with %v %d before the message was durable", r.Type, r.MessageID)
	}
	p.release(nil)
	first := d.receive()
	second := d.ask(m)
	if first.Code != codes.Changed || second.Code != codes.Changed || second.MessageID != 7 || second.Type != message.Acknowledgement {
		t.Errorf("answered %v, then %v", first, second)
	}
	non := post(8, goodPath, "{}")
	non.Type = message.NonConfirmable
	p.mu.Lock()
	p.hold = false
	p.mu.Unlock()
	if r := d.ask(non); r.Type != message.NonConfirmable || r.Code != codes.Changed {
		t.Errorf("answered %v", r)
	}
	d.send(non)
	d.ask(message.Message{Type: message.Confirmable, MessageID: 10})
	if n := len(p.wait(t, 2)); n != 2 {
		t.Errorf("%d messages were taken, want 2", n)
	}
	// The same id from another port is another message.
	if r := dial(t, addr).ask(m); r.Code != codes.Changed {
		t.Errorf("answered %v", r)
	}
	p.wait(t, 3)
}

// A commit may take longer than a device waits for its acknowledgement.
func TestSlowCommitIsAnsweredSeparately(t *testing.T) {
	p := newPlatform()
	p.hold = true
	addr, _, _ := serve(t, p)
	d := dial(t, addr)
	m := post(7, goodPath, "{}")
	start := time.Now()
	ack := d.ask(m)
	if since := time.Since(start); ack.Type != message.Acknowledgement || ack.Code != codes.Empty || ack.MessageID != 7 || since > 2*time.Second {
		t.Fatalf("got %v %v after %v, want an empty acknowledgement before 2s", ack.Type, ack.Code, since)
	}
	p.release(nil)
	r := d.receive()
	if r.Type != message.NonConfirmable || r.Code != codes.Changed || !bytes.Equal(r.Token, m.Token) {
		t.Errorf("then %v", r)
	}
	if r := d.ask(m); r.Type != message.Acknowledgement || r.Code != codes.Empty { // it missed both
		t.Errorf("repetition answered with %v", r)
	}
	if r := d.receive(); r.Code != codes.Changed {
		t.Errorf("then %v", r)
	}
	if n := len(p.wait(t, 1)); n != 1 {
		t.Errorf("%d messages were taken, want 1", n)
	}
}

// A handler that hangs must not stop the answers to others: RFC 7252 has no
// connection whose reading could be stopped.
func TestFullIsAnsweredAtOnce(t *testing.T) {
	p := newPlatform()
	p.hold = true
	addr, _, _ := serve(t, p)
	d := dial(t, addr)
	for id := range int32(maxInFlight) {
		d.send(post(id, goodPath, "{}"))
		if id%64 == 63 { // in step, so that the socket's buffer does not overflow
			p.wait(t, int(id)+1)
		}
	}
	other := dial(t, addr)
	if r := other.ask(post(1, goodPath, "{}")); r.Code != codes.ServiceUnavailable {
		t.Errorf("answered %s, want 5.03", codeLabel(r.Code))
	}
	if r := other.ask(post(2, "api/v1/nobody/telemetry", "{}")); r.Code != codes.Unauthorized {
		t.Errorf("answered %s, want 4.01", codeLabel(r.Code))
	}
	p.release(nil)
	p.mu.Lock()
	p.hold = false
	p.mu.Unlock()
	for id := int32(3); ; id++ {
		if r := other.ask(post(id, goodPath, "{}")); r.Code == codes.Changed {
			break
		}
	}
}

func TestMalformed(t *testing.T) {
	addr, _, _ := serve(t, newPlatform())
	d := dial(t, addr)
	for _, b := range [][]byte{{}, {0x40}, {0x00, 1, 2, 3}, {0x4f, 2, 0, 1}, {0x50, 2, 0, 1, 0xf0}, []byte("GET / HTTP/1.1\r\n\r\n"),
		bytes.Repeat([]byte{0xff}, 1500)} {
		d.raw(b)
	}
	for _, id := range []int32{0x0001, 0x5420} { // those that look confirmable: a token of 15 bytes, and "GET "
		if r := d.receive(); r.Type != message.Reset || r.MessageID != id {
			t.Errorf("got %v %d, want a Reset of %d", r.Type, r.MessageID, id)
		}
	}
	d.send(message.Message{Type: message.Reset, MessageID: 5})
	d.send(message.Message{Type: message.Acknowledgement, MessageID: 5, Code: codes.Content})
	d.send(message.Message{Type: message.NonConfirmable, MessageID: 5, Code: codes.Content})
	if r := d.ask(post(1, goodPath, "{}")); r.Code != codes.Changed {
		t.Errorf("after malformed datagrams: %v", r)
	}
}

func TestNoResponse(t *testing.T) {
	p := newPlatform()
	addr, _, _ := serve(t, p)
	d := dial(t, addr)
	if r := d.ask(post(1, goodPath, "{}", option(message.NoResponse, 2))); r.Code != codes.Empty || r.Type != message.Acknowledgement {
		t.Errorf("2.xx not wanted: %v", r)
	}
	non := post(2, goodPath, "{}", option(message.NoResponse, 2))
	non.Type = message.NonConfirmable
	d.send(non)
	p.wait(t, 2)
	if r := d.ask(post(3, goodPath, "x", option(message.NoResponse, 2))); r.Code != codes.BadRequest {
		t.Errorf("4.xx wanted: %v", r)
	}
}

func TestBlocks(t *testing.T) {
	b := func(number uint32, more bool) message.Option {
		return message.Option{ID: message.Block1, Value: block{number: number, more: more, szx: 0}.value()}
	}
	const x16 = "{123456789abcdef"
	type step struct {
		m    message.Message
		code codes.Code
	}
	for _, c := range []struct {
		name  string
		steps []step
		want  []citywarden.Uplink
	}{
		{"in order, a token each", []step{
			{post(1, goodPath, x16, b(0, true)), codes.Continue},
			{post(2, goodPath, x16, b(1, true)), codes.Continue},
			{post(3, goodPath, "end", b(2, false)), codes.Changed},
		}, []citywarden.Uplink{telemetry(x16 + x16 + "end")}},
		{"one block", []step{{post(1, goodPath, "{}", b(0, false)), codes.Changed}}, []citywarden.Uplink{telemetry("{}")}},
		{"without a beginning", []step{
			{post(1, goodPath, "end", b(1, false)), codes.RequestEntityIncomplete},
		}, nil},
		{"with a gap", []step{
			{post(1, goodPath, x16, b(0, true)), codes.Continue},
			{post(2, goodPath, "end", b(2, false)), codes.RequestEntityIncomplete},
			{post(3, goodPath, x16, b(1, true)), codes.RequestEntityIncomplete},
		}, nil},
		{"a block again under a new id", []step{
			{post(1, goodPath, x16, b(0, true)), codes.Continue},
			{post(2, goodPath, x16, b(1, true)), codes.Continue},
			{post(3, goodPath, x16, b(1, true)), codes.Continue},
			{post(4, goodPath, "end", b(2, false)), codes.Changed},
		}, []citywarden.Uplink{telemetry(x16 + x16 + "end")}},
		{"started again", []step{
			{post(1, goodPath, x16, b(0, true)), codes.Continue},
			{post(2, goodPath, x16, b(1, true)), codes.Continue},
			{post(3, goodPath, x16, b(0, true)), codes.Continue},
			{post(4, goodPath, "end", b(1, false)), codes.Changed},
		}, []citywarden.Uplink{telemetry(x16 + "end")}},
		{"two at once by Request-Tag", []step{
			{post(1, goodPath, x16, b(0, true), option(requestTag, 1)), codes.Continue},
			{post(2, goodPath, x16, b(0, true), option(requestTag, 2)), codes.Continue},
			{post(3, goodPath, "one", b(1, false), option(requestTag, 1)), codes.Changed},
			{post(4, goodPath, "two", b(1, false), option(requestTag, 2)), codes.Changed},
		}, []citywarden.Uplink{telemetry(x16 + "one"), telemetry(x16 + "two")}},
		{"by another device in between", []step{
			{post(1, goodPath, x16, b(0, true)), codes.Continue},
			{post(2, "api/v1/token-of-b/telemetry", "end", b(1, false)), codes.RequestEntityIncomplete},
			{post(3, "api/v1/nobody/telemetry", x16, b(1, true)), codes.Unauthorized},
		}, nil},
		{"block too short", []step{{post(1, goodPath, "{", b(0, true)), codes.BadRequest}}, nil},
		{"reserved size", []step{{post(1, goodPath, "{", option(message.Block1, 7)), codes.BadRequest}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlatform()
			addr, _, _ := serve(t, p)
			d := dial(t, addr)
			for i, s := range c.steps {
				r := d.ask(s.m)
				if r.Code != s.code {
					t.Fatalf("step %d: answered %s %q, want %s", i+1, codeLabel(r.Code), r.Payload, codeLabel(s.code))
				}
				asked, _ := s.m.Options.GetUint32(message.Block1)
				if told, err := r.Options.GetUint32(message.Block1); s.code < codes.BadRequest && (err != nil || told != asked) {
					t.Errorf("step %d: Block1 %d answered with %d (%v)", i+1, asked, told, err)
				}
			}
			if d := cmp.Diff(c.want, p.wait(t, len(c.want)), ignoreReceived); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestBodyTooLarge(t *testing.T) {
	p := newPlatform()
	addr, _, _ := serve(t, p)
	d := dial(t, addr)
	body := strings.Repeat("x", 1024)
	for n := range uint32(maxBody/1024 + 1) {
		r := d.ask(post(int32(n), goodPath, body, option(message.Block1, n<<4|8|6)))
		switch {
		case n < maxBody/1024 && r.Code != codes.Continue:
			t.Fatalf("block %d answered %s", n, codeLabel(r.Code))
		case n == maxBody/1024 && r.Code != codes.RequestEntityTooLarge:
			t.Errorf("answered %s, want 4.13", codeLabel(r.Code))
		case n == maxBody/1024:
			if size, err := r.Options.GetUint32(message.Size1); err != nil || size != maxBody {
				t.Errorf("Size1 %d (%v)", size, err)
			}
		}
	}
}

// Who asks for a credential needs no token: many bodies that never end take no room
// from those of devices.
func TestStrangersTakeNoRoom(t *testing.T) {
	p := newPlatform()
	addr, _, _ := serve(t, p)
	begin := []message.Option{option(message.Block1, 0<<4|8|2)}
	rest := option(message.Block1, 1<<4|2)
	part := strings.Repeat("{", 64)
	for i := range maxTransfers + 1 {
		r := dial(t, addr).ask(post(1, "api/v1/provision", part, begin...))
		if i <= maxStrangers && (r.Code == codes.Continue) != (i < maxStrangers) {
			t.Fatalf("stranger %d answered %s", i, codeLabel(r.Code))
		}
	}
	d := dial(t, addr)
	if r := d.ask(post(1, goodPath, part, begin...)); r.Code != codes.Continue {
		t.Fatalf("block 0 of a device answered %s", codeLabel(r.Code))
	}
	if r := d.ask(post(2, goodPath, "}", rest)); r.Code != codes.Changed {
		t.Errorf("block 1 of a device answered %s", codeLabel(r.Code))
	}
}

// The answer is whole in one block: a certificate that is too long for it is left out.
func TestProvisionInBlocks(t *testing.T) {
	addr, _, _ := serve(t, newPlatform())
	for blocks, want := range map[int]string{
		1:       `{"credentialsValue":"` + strings.Repeat("x", 512) + `","credentialsType":"X509_CERTIFICATE","status":"SUCCESS"}`,
		3:       `{"credentialsType":"X509_CERTIFICATE","status":"SUCCESS"}`,
		17 << 1: "a body may have 16384 bytes",
	} {
		d := dial(t, addr)
		var r message.Message
		for n := range blocks {
			v := uint32(n)<<4 | 5
			if n < blocks-1 {
				v |= 8
			}
			r = d.ask(post(int32(n), "api/v1/provision", strings.Repeat("x", 512), option(message.Block1, v)))
			if r.Code != codes.Continue {
				break
			}
		}
		if _, err := r.Options.GetUint32(message.Block2); string(r.Payload) != want || err == nil {
			t.Errorf("%d blocks answered %s %s", blocks, codeLabel(r.Code), r.Payload)
		}
	}
}

// Memory is bounded: what is remembered of requests and of bodies in blocks.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := exchanges{byID: make(map[exchangeID]*exchange)}
		peer := netip.MustParseAddrPort("192.0.2.1:5683")
		add := func(id int) *exchange {
			return e.add(&exchange{id: exchangeID{from: endpoint{addr: netip.AddrPortFrom(peer.Addr(), uint16(id>>16))}, message: uint16(id)}, at: time.Now()})
		}
		for id := range 3 * maxExchanges {
			if add(id) != nil {
				t.Fatalf("%d is remembered before it came", id)
			}
		}
		if len(e.byID) != maxExchanges || len(e.order) > 2*maxExchanges {
			t.Errorf("%d remembered, %d places", len(e.byID), len(e.order))
		}
		if add(3*maxExchanges-1) == nil {
			t.Error("the newest is forgotten")
		}
		time.Sleep(246 * time.Second) // EXCHANGE_LIFETIME is 247 s
		if add(3*maxExchanges-1) == nil {
			t.Error("the newest is forgotten after 246 s, and its repetition would be stored again")
		}
		time.Sleep(2 * time.Second)
		if add(3*maxExchanges-1) != nil || len(e.byID) != 1 {
			t.Errorf("%d remembered after 248 s", len(e.byID))
		}

		tr := newTransfers(maxTransfers, maxBody, transferIdle)
		begin := func(key string) codes.Code {
			_, a := tr.add(key, block{more: true}, make([]byte, 16), time.Now())
			return a.code
		}
		for i := range maxTransfers {
			if c := begin(fmt.Sprint(i)); c != codes.Continue {
				t.Fatalf("transfer %d: %s", i, codeLabel(c))
			}
		}
		if c := begin("one more"); c != codes.ServiceUnavailable {
			t.Errorf("transfer %d: %s", maxTransfers, codeLabel(c))
		}
		time.Sleep(transferIdle + time.Second)
		if c := begin("one more"); c != codes.Continue || len(tr.byKey) != 1 {
			t.Errorf("after %v: %s, %d transfers", transferIdle, codeLabel(c), len(tr.byKey))
		}
	})
}

func TestShutdown(t *testing.T) {
	before := runtime.NumGoroutine()
	p := newPlatform()
	p.hold = true
	addr, _, stop := serve(t, p)
	d := dial(t, addr)
	d.send(post(1, goodPath, "{}"))
	p.wait(t, 1)
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	p.release(nil)
	if r := d.receive(); r.Code != codes.Changed { // what was under way is still answered
		t.Errorf("answered %v", r)
	}
	<-stopped
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		<-time.After(time.Millisecond)
	}
}
