package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker/certtest"
)

// secured runs a broker with TLS, WebSocket, or both.
func secured(t *testing.T, a Acceptor, ca *certtest.Authority, webSocket bool) (addr string, book *logBook) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Listener{Listener: ln, WebSocket: webSocket}
	if ca != nil {
		l.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Valid("server")}, MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
	}
	book, _ = serveOn(t, l, a)
	return ln.Addr().String(), book
}

// trust writes the authority's certificate into a file.
func trust(t *testing.T, ca *certtest.Authority) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestMosquittoOverTLS(t *testing.T) {
	pub, err := exec.LookPath("mosquitto_pub")
	if err != nil {
		t.Skip("mosquitto_pub is not installed (Debian: mosquitto-clients)")
	}
	ca, j := certtest.New(t), newJournal()
	addr, _ := secured(t, j, ca, false)
	host, port, _ := net.SplitHostPort(addr)
	for i, version := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		out, err := exec.Command(pub, "--cafile", trust(t, ca), "-h", host, "-p", port, "-V", version,
			"-u", "token-of-mh-1", "-t", telemetryTopic, "-q", "1", "-m", "{}").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", version, err, out)
		}
		j.wait(t, i+1)
	}
	for _, version := range []string{"mqttv311", "mqttv5"} { // it gets to read why it is refused
		out, err := exec.Command(pub, "--cafile", trust(t, ca), "-h", host, "-p", port, "-V", version,
			"-u", "not-a-token", "-t", telemetryTopic, "-q", "1", "-m", "{}").CombinedOutput()
		if err == nil || !strings.Contains(strings.ToLower(string(out)), "not authori") {
			t.Errorf("%s with a wrong token: %v: %s", version, err, out)
		}
	}
}

// A device may show a certificate; a user name counts when that is nobody's.
func TestClientCertificate(t *testing.T) {
	server, ca := certtest.New(t), certtest.New(t)
	now := time.Now()
	for _, c := range []struct {
		name, user string
		cert       *tls.Certificate
		device     citywarden.DeviceID // "" when it is refused
		says       string
	}{
		{"its own", "", ptr(ca.Valid("device a")), "a", ""},
		{"of the client CA", "", ptr(ca.Valid("name b")), "b", ""},
		{"of another CA", "", ptr(certtest.New(t).Valid("name b")), "", `client certificate is unknown: certificate \"name b\"`},
		{"expired", "", ptr(ca.Issue("device a", now.Add(-2*time.Hour), now.Add(-time.Hour))), "", `client certificate: certificate \"device a\" has expired`},
		{"nobody's, and a token", "token-of-c", ptr(ca.Valid("x")), "c", ""},
		{"nobody's, and nobody's token", "nobody's", ptr(ca.Valid("x")), "", `access token \"nobo\"… is unknown`},
		{"none", "", nil, "", "no user name; set the device's access token"},
	} {
		for _, webSocket := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, WebSocket %v", c.name, webSocket), func(t *testing.T) {
				j := newJournal()
				addr, book := secured(t, certified{j, ca}, server, webSocket)
				o := paho.NewClientOptions().SetClientID("x").SetUsername(c.user).SetConnectTimeout(10 * time.Second).SetAutoReconnect(false)
				config := &tls.Config{RootCAs: server.Pool()}
				if c.cert != nil {
					config.Certificates = []tls.Certificate{*c.cert}
				}
				url := "ssl://" + addr
				if webSocket {
					url = "wss://" + addr + WebSocketPath
				}
				p := paho.NewClient(o.AddBroker(url).SetTLSConfig(config))
				tok := p.Connect()
				tok.Wait()
				defer p.Disconnect(0)
				if c.device == "" {
					if tok.Error() == nil {
						t.Error("let in")
					}
					book.mustSay(t, "connection refused", c.says)
					return
				}
				if tok.Error() != nil {
					t.Fatalf("refused: %v\n%s", tok.Error(), book)
				}
				if tok := p.Publish(telemetryTopic, 1, false, "{}"); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
					t.Fatalf("not acknowledged: %v", tok.Error())
				}
				if d := cmp.Diff(telemetry(c.device, "{}"), j.wait(t, 1)[0], ignoreReceived); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

// certified is a journal with a client CA.
type certified struct {
	*journal
	ca *certtest.Authority
}

func (c certified) certified(chain []*x509.Certificate) bool {
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: c.ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err == nil
}

func ptr[T any](v T) *T { return &v }

func TestMosquittoShowsACertificate(t *testing.T) {
	pub, err := exec.LookPath("mosquitto_pub")
	if err != nil {
		t.Skip("mosquitto_pub is not installed (Debian: mosquitto-clients)")
	}
	ca, j, dir := certtest.New(t), newJournal(), t.TempDir()
	addr, book := secured(t, j, ca, false)
	host, port, _ := net.SplitHostPort(addr)
	say := func(name string, c tls.Certificate) (string, error) {
		cert, key := certtest.Write(t, dir, name, c)
		out, err := exec.Command(pub, "--cafile", trust(t, ca), "--cert", cert, "--key", key, "-h", host, "-p", port, "-V", "mqttv5",
			"-t", telemetryTopic, "-q", "1", "-m", "{}").CombinedOutput()
		return string(out), err
	}
	if out, err := say("good", ca.Valid("device a")); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := j.wait(t, 1); got[0].Device != "a" {
		t.Errorf("taken for %q", got[0].Device)
	}
	out, err := say("expired", ca.Issue("device a", time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)))
	if err == nil || !strings.Contains(strings.ToLower(out), "not authori") {
		t.Errorf("with an expired certificate: %v: %s", err, out)
	}
	book.mustSay(t, "has expired")
}

func TestPahoOverWebSocket(t *testing.T) {
	for _, ca := range []*certtest.Authority{nil, certtest.New(t)} {
		j := newJournal()
		addr, _ := secured(t, j, ca, true)
		o := paho.NewClientOptions().SetClientID("x").SetUsername("token-of-mh-1").AddBroker("ws://" + addr + WebSocketPath)
		if ca != nil {
			o = paho.NewClientOptions().SetClientID("x").SetUsername("token-of-mh-1").AddBroker("wss://" + addr + WebSocketPath).
				SetTLSConfig(&tls.Config{RootCAs: ca.Pool()})
		}
		c := pahoClient(t, o)
		large := `{"text":"` + strings.Repeat("x", 100_000) + `"}` // more than a frame or a record holds
		for i, body := range []string{"{}", large} {
			if tok := c.Publish(telemetryTopic, 1, false, body); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
				t.Fatalf("not acknowledged: %v", tok.Error())
			}
			if d := cmp.Diff(telemetry("mh-1", body), j.wait(t, i+1)[i], ignoreReceived); d != "" {
				t.Error(d)
			}
		}
	}
}

// A session over WebSocket or TLS goes on after somebody has looked whether its token
// is still good, and ends at once when it is not.
func TestRevokedOverEachTransport(t *testing.T) {
	ca := certtest.New(t)
	for _, c := range []struct {
		name, url string
		ca        *certtest.Authority
		webSocket bool
	}{{"tls", "ssl://%s", ca, false}, {"ws", "ws://%s/mqtt", nil, true}, {"wss", "wss://%s/mqtt", ca, true}} {
		t.Run(c.name, func(t *testing.T) {
			f, down := &fickle{journal: newJournal()}, &shelf{}
			addr, book := secured(t, struct {
				shelved
				Authenticator
			}{shelved{f.journal, down}, f}, c.ca, c.webSocket)
			lost := make(chan struct{})
			p := pahoClient(t, paho.NewClientOptions().SetClientID("x").SetUsername("token-of-a").AddBroker(fmt.Sprintf(c.url, addr)).
				SetTLSConfig(&tls.Config{RootCAs: ca.Pool()}).
				SetConnectionLostHandler(func(paho.Client, error) { close(lost) }))
			look := func() { // at the token, and wait until it was done
				f.mu.Lock()
				before := f.asked
				f.mu.Unlock()
				down.pass(place{"a", citywarden.DownlinkRevoked}, citywarden.Downlink{Device: "a", Kind: citywarden.DownlinkRevoked})
				eventually(t, func() error {
					f.mu.Lock()
					defer f.mu.Unlock()
					if f.asked == before {
						return errors.New("nobody looks at the token")
					}
					return nil
				})
			}
			look()
			if tok := p.Publish(telemetryTopic, 1, false, "{}"); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
				t.Fatalf("a session with a good token does not go on: %v", tok.Error())
			}
			f.mu.Lock()
			f.err = citywarden.Errorf(citywarden.CodeUnauthenticated, "unknown token")
			f.mu.Unlock()
			look()
			select {
			case <-lost:
			case <-time.After(10 * time.Second):
				t.Fatal("the session goes on with a revoked token")
			}
			book.mustSay(t, "not valid any more")
		})
	}
}

// What a stranger sends to a secured port costs no more than it does on the plain one.
func TestBeforeAuthenticationOverEachTransport(t *testing.T) {
	ca := certtest.New(t)
	hello := func(version uint16) func(net.Conn) {
		return func(c net.Conn) {
			_ = tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version}).Handshake()
		}
	}
	within := func(packet []byte) func(net.Conn) { // in TLS
		return func(c net.Conn) {
			_, _ = tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Write(packet)
		}
	}
	text := func(s string) func(net.Conn) {
		return func(c net.Conn) { _, _ = io.WriteString(c, s) }
	}
	const upgrade = " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	for _, c := range []struct {
		name      string
		ca        *certtest.Authority
		webSocket bool
		send      func(net.Conn)
		says      string
	}{
		{"plain MQTT to the TLS port", ca, false, text("\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"), "is not TLS: switch TLS on in the device"},
		{"TLS 1.1", ca, false, hello(tls.VersionTLS11), "client offered only unsupported versions"},
		{"oversized CONNECT in TLS", ca, false, within([]byte{0x10, 0xff, 0xff, 0xff, 0x7f}), "more than 16384 bytes"},
		{"endless headers", nil, true, text("GET /mqtt HTTP/1.1\r\nX: " + strings.Repeat("x", maxUnknownBytes)), "more than 65536 bytes before the end of CONNECT"},
		{"another path", nil, true, text("GET /" + upgrade + "\r\n"), "MQTT is at /mqtt"},
		{"no subprotocol", nil, true, text("GET /mqtt" + upgrade + "\r\n"), "does not offer the subprotocol mqtt"},
		{"no upgrade", nil, true, text("GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n"), "websocket: the client is not using the websocket protocol"},
		{"plain MQTT to the WebSocket port", nil, true, text("\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00\r\n\r\n"), "malformed HTTP request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, book := secured(t, newJournal(), c.ca, c.webSocket)
			p, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			c.send(p)
			_ = p.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.Copy(io.Discard, p); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the connection stays: %v", err)
			}
			book.mustSay(t, "connection refused", c.says)
		})
	}
}

func TestWebSocketFrames(t *testing.T) {
	j := newJournal()
	addr, book := secured(t, j, nil, true)
	d := websocket.Dialer{Subprotocols: []string{"mqtt"}}
	w, answer, err := d.Dial("ws://"+addr+WebSocketPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := answer.Header.Get("Sec-WebSocket-Protocol"); got != "mqtt" {
		t.Errorf("subprotocol %q", got)
	}
	connect := []byte("\x10\x19\x00\x04MQTT\x04\x82\x00\x3c\x00\x01x\x00\x0atoken-of-a")
	for _, b := range connect { // a packet need not be in one frame [MQTT-6.0.0-2]
		if err := w.WriteMessage(websocket.BinaryMessage, []byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if _, ack, err := w.ReadMessage(); err != nil || len(ack) != 4 || ack[0] != packets.Connack<<4 || ack[3] != 0 {
		t.Fatalf("answered %x, %v", ack, err)
	}
	if err := w.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil { // [MQTT-6.0.0-1]
		t.Fatal(err)
	}
	if _, _, err := w.ReadMessage(); err == nil {
		t.Error("a text frame does not end the connection")
	}
	_ = w.Close()
	book.mustSay(t, "binary frames, not in text")

	r, err := http.Get("http://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if text, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusNotFound || !strings.Contains(string(text), WebSocketPath) {
		t.Errorf("answered %s %s", r.Status, text)
	}
}
