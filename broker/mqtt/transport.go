package mqtt

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/gorilla/websocket"
)

// Listener is a socket that devices connect to.
type Listener struct {
	net.Listener
	TLS       *tls.Config // nil for a plain one
	WebSocket bool        // MQTT in WebSocket frames, at WebSocketPath
}

// WebSocketPath is where MQTT over WebSocket is.
const WebSocketPath = "/mqtt"

// name is what the listener is called in logs and by mochi.
func (l Listener) name() string {
	switch {
	case l.WebSocket && l.TLS != nil:
		return "wss"
	case l.WebSocket:
		return "ws"
	case l.TLS != nil:
		return "mqtts"
	}
	return "mqtt"
}

// socket is the connection below TLS and WebSocket, neither of which goes on after
// a read that timed out: what interrupts a read is dealt with here. Before the
// device is known it reads no more than maxUnknownBytes.
type socket struct {
	net.Conn
	conn *conn
	read int // bytes, until the device is known
}

// Read reads, and ends a session whose credential was revoked.
func (s *socket) Read(p []byte) (int, error) {
	for {
		n, err := s.Conn.Read(p)
		if !s.conn.established.Load() {
			if s.read += n; s.read > maxUnknownBytes {
				return 0, fmt.Errorf("more than %d bytes before the end of CONNECT", maxUnknownBytes)
			}
			return n, err
		}
		if !s.conn.cleared() {
			return n, err
		}
		if s.conn.revoked() {
			return 0, net.ErrClosed
		}
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// SetDeadline does nothing: the upgrade to WebSocket would take the deadline of
// the CONNECT packet away with it.
func (s *socket) SetDeadline(time.Time) error { return nil }

// handshake takes off what is between the socket and MQTT. The deadline of the
// CONNECT packet counts for it, too.
func (c *conn) handshake() error {
	if config := c.listener.TLS; config != nil {
		t := tls.Server(c.socket, config)
		if err := t.Handshake(); err != nil {
			var record tls.RecordHeaderError
			if errors.As(err, &record) {
				err = errors.New("what came to the TLS port is not TLS: switch TLS on in the device, or send it to the plain port")
			}
			return fmt.Errorf("TLS handshake: %w", err)
		}
		c.Conn = t
	}
	if c.listener.WebSocket {
		w, err := upgrade(c.Conn)
		if err != nil {
			return err
		}
		c.Conn = w
	}
	if tcp, ok := c.socket.Conn.(*net.TCPConn); ok && c.Conn == net.Conn(c.socket) {
		if raw, err := tcp.SyscallConn(); err == nil {
			c.atOnce = func(p []byte) int { return writeAtOnce(raw, p) }
		}
	}
	return nil
}

// certificates returns the one that the device showed over TLS, with those that it
// was issued under; none without TLS. The handshake has proved that it has the key.
func (c *conn) certificates() []*x509.Certificate {
	nc := c.Conn
	if w, ok := nc.(*webSocket); ok {
		nc = w.NetConn()
	}
	if t, ok := nc.(*tls.Conn); ok {
		return t.ConnectionState().PeerCertificates
	}
	return nil
}

var upgrader = websocket.Upgrader{
	Subprotocols:    []string{"mqtt", "mqttv3.1"},
	CheckOrigin:     func(*http.Request) bool { return true }, // a device shows its credential in CONNECT, there is no cookie to abuse
	WriteBufferSize: 1024,
}

// upgrade answers the request that makes nc a WebSocket.
func upgrade(nc net.Conn) (*webSocket, error) {
	in := bufio.NewReaderSize(nc, 2048)
	r, err := http.ReadRequest(in)
	if err != nil {
		return nil, fmt.Errorf("WebSocket: %w", err)
	}
	w := &response{Conn: nc, in: in, header: http.Header{"Connection": {"close"}}}
	protocols := websocket.Subprotocols(r)
	switch {
	case r.URL.Path != WebSocketPath:
		http.Error(w, "MQTT over WebSocket is at "+WebSocketPath, http.StatusNotFound)
		return nil, fmt.Errorf("WebSocket: path %q; MQTT is at %s", clip(r.URL.Path), WebSocketPath)
	case websocket.IsWebSocketUpgrade(r) && !slices.ContainsFunc(upgrader.Subprotocols, func(s string) bool { return slices.Contains(protocols, s) }):
		http.Error(w, "the subprotocol is mqtt", http.StatusBadRequest) // [MQTT-6.0.0-3]
		return nil, errors.New("WebSocket: the client does not offer the subprotocol mqtt")
	}
	ws, err := upgrader.Upgrade(w, r, nil) // answers errors, too
	if err != nil {
		return nil, fmt.Errorf("WebSocket: %w", err)
	}
	return &webSocket{Conn: ws}, nil
}

// response is a response to a request that was read from a connection.
type response struct {
	net.Conn
	in     *bufio.Reader
	header http.Header
}

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	fmt.Fprintf(w.Conn, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	_ = w.header.Write(w.Conn)
	_, _ = io.WriteString(w.Conn, "\r\n") // who hung up gets no answer
}

// Hijack implements http.Hijacker.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.Conn, bufio.NewReadWriter(w.in, bufio.NewWriterSize(w.Conn, 512)), nil
}

// webSocket is a stream of bytes in binary frames: a packet may begin in one and
// end in another [MQTT-6.0.0-2].
type webSocket struct {
	*websocket.Conn
	frame io.Reader // that is being read
}

// Read implements net.Conn.
func (w *webSocket) Read(p []byte) (int, error) {
	for {
		if w.frame == nil {
			kind, r, err := w.NextReader()
			var closed *websocket.CloseError
			switch {
			case errors.As(err, &closed):
				return 0, io.EOF
			case err != nil:
				return 0, err
			case kind != websocket.BinaryMessage: // [MQTT-6.0.0-1]
				return 0, errors.New("WebSocket: MQTT comes in binary frames, not in text")
			}
			w.frame = r
		}
		n, err := w.frame.Read(p)
		if errors.Is(err, io.EOF) {
			w.frame, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (w *webSocket) Write(p []byte) (int, error) {
	if err := w.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetDeadline implements net.Conn.
func (w *webSocket) SetDeadline(t time.Time) error {
	return errors.Join(w.SetReadDeadline(t), w.SetWriteDeadline(t))
}

// CloseWrite says that nothing follows.
func (w *webSocket) CloseWrite() error {
	return w.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(lingerTimeout))
}
