package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker"
)

// conn is one connection of a device: it guards the socket that mochi reads and
// writes, and keeps the messages that wait for their acknowledgement.
//
//   - Before the device is known, only a CONNECT packet of at most maxConnect
//     bytes gets through, within connectTimeout: mochi allocates what a packet's
//     length says before it has the packet, and waits for it without limit.
//   - mochi's deadlines count for reading only. Each write has writeTimeout, and
//     a write that is not taken ends the connection.
type conn struct {
	net.Conn // that carries MQTT; replaced by handshake
	socket   *socket
	listener *listener
	ctx      context.Context // ends with the connection or Run; mochi's callbacks carry none
	cancel   context.CancelFunc
	remote   string
	gone     chan struct{} // closed with the connection
	once     sync.Once     // of Close
	writing  chan struct{} // held while writing; a mutex would stop virtual time in tests
	writeEnd time.Time     // the deadline for writing; the zero time for none. Whoever writes owns it

	// Used by the reading goroutine only, until established is set.
	header  connectHeader
	release sync.Once // of the slot in listener.unknown

	// Set once, before established.
	atOnce   func([]byte) int // writes as much as there is room for; nil for a connection that is not a socket and nothing else
	client   *mochi.Client
	device   citywarden.DeviceID
	known    func() (citywarden.DeviceID, error) // whose what the device showed is now
	clientID string                              // as the device calls itself
	will     *citywarden.Uplink
	node     *broker.Node // of Sparkplug B; set by the reading goroutine, before there is a subscription for it
	asks     int          // requests for a credential that it may still make; nothing else is taken from it then
	guest    bool         // it has come for a credential, and has a slot in Broker.guests
	refusal  *refusal     // why the CONNECT is answered with no

	established atomic.Bool // CONNACK with success is due or sent
	explained   atomic.Bool // it was logged why the connection ends
	graceful    atomic.Bool // the device said goodbye: no will
	linger      atomic.Bool // the last thing written explains the end: let the device read it
	stopping    atomic.Bool // nothing is to be read any more

	aliases    map[uint16]string // MQTT 5, by the reading goroutine only
	chunkSizes map[string]int    // by the request for firmware that said it; by the reading goroutine only
	granting   int               // filters of the SUBSCRIBE packet that is looked at; by the reading goroutine only
	in         intake            // by the reading goroutine only

	deadline sync.Mutex // held while the read deadline is set
	last     bool       // the read deadline is set for good
	suspect  bool       // the credential may have been revoked: the reader is to look, at once
	usual    time.Time  // the read deadline that mochi wants

	unwatch func() // ends what sets suspect; set before established

	mu        sync.Mutex
	queue     []pending           // messages in the order they came, from the oldest that is not answered
	base      uint64              // number of queue[0]
	unacked   int                 // of queue, those with QoS 1 or 2
	bytes     int                 // of queue, their payloads
	received  map[uint16]struct{} // QoS 2 messages answered with PUBREC whose PUBREL has not come
	answering bool                // the crew, or another goroutine, writes answers, or is about to; for ever once the connection is gone
	empty     chan struct{}       // closed when queue is empty and nothing is being written; nil when nobody waits
	warned    map[string]bool
	subs      map[string]subscription
	names     map[citywarden.DeviceID]string // what the gateway calls those behind it
	down      chan downlink                  // to be sent to the device; nil before it subscribes
	deaf      bool                           // nothing is sent any more

	reminders map[citywarden.DeviceID]struct{} // the devices that the gateway is to be reminded of, see addReminder

	commands map[waiting]bool // for which there was no room in down; true when again since they were asked for

	changes map[waiting]map[string]json.RawMessage // attributes for which there was no room in down, nil for one that was deleted

	more chan struct{} // for the sender of down: there are reminders, commands or changes; made with down

	pubacks chan uint16 // the device acknowledged what came from down
	lastID  uint16      // of what was sent from down, its sender's

	room chan struct{} // for the reader: queue became shorter
}

// refusal answers a CONNECT with no.
type refusal struct {
	code   packets.Code // of MQTT 5
	code3  byte         // of MQTT 3.1.1
	reason string
}

func newConn(l *listener, nc net.Conn) *conn {
	c := &conn{
		listener: l,
		remote:   nc.RemoteAddr().String(),
		gone:     make(chan struct{}),
		writing:  make(chan struct{}, 1),
		pubacks:  make(chan uint16, 1),
		room:     make(chan struct{}, 1),
	}
	c.socket = &socket{Conn: nc, conn: c}
	c.Conn = c.socket
	c.ctx, c.cancel = context.WithCancel(l.ctx)
	_ = nc.SetDeadline(time.Now().Add(connectTimeout))
	return c
}

// Read reads for mochi.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.next(p)
	if c.ending() {
		<-c.gone
		return 0, net.ErrClosed
	}
	if !c.established.Load() {
		if herr := c.header.feed(p[:n]); herr != nil {
			return 0, herr
		}
	}
	return n, err
}

// ending reports whether nothing more is to be read.
func (c *conn) ending() bool { return c.stopping.Load() || c.linger.Load() }

// suspectNow has the reader look whether the credential is still good, also when the
// device says nothing.
func (c *conn) suspectNow() {
	c.deadline.Lock()
	defer c.deadline.Unlock()
	if c.suspect = true; !c.last {
		_ = c.socket.SetReadDeadline(time.Now())
	}
}

// cleared reports whether the session was suspect, which it is not any more.
func (c *conn) cleared() bool {
	c.deadline.Lock()
	defer c.deadline.Unlock()
	if !c.suspect {
		return false
	}
	if c.suspect = false; !c.last {
		_ = c.socket.SetReadDeadline(c.usual)
	}
	return true
}

// revoked reports whether the credential is not good any more; then it has told the
// device and ended the session.
func (c *conn) revoked() bool {
	b := c.listener.broker
	err := b.revoked(c)
	if err == nil {
		return false
	}
	b.metrics.refused.WithLabelValues("session").Inc()
	c.warn("device disconnected", "err", fmt.Sprintf("its access token or certificate is not valid any more: %v", err))
	c.disconnect(packets.ErrNotAuthorized, "the access token or certificate is not valid any more")
	return true
}

// Write writes the whole of p or ends the connection.
func (c *conn) Write(p []byte) (int, error) {
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
	case <-c.gone:
		return 0, net.ErrClosed
	}
	return c.write(p)
}

// write is Write for who has writing.
func (c *conn) write(p []byte) (int, error) {
	c.limitWrite()
	n, err := c.Conn.Write(p)
	if err != nil {
		_ = c.Close()
	}
	return n, err
}

// tryWrite writes as much of p as there is room for, nothing while somebody else writes, and returns how much that is. When
// that is a part of p the caller has writing, for writeRest. An error is left to the next Write.
func (c *conn) tryWrite(p []byte) (n int) {
	if len(p) == 0 {
		return 0
	}
	select {
	case c.writing <- struct{}{}:
	default:
		return 0
	}
	c.limitWrite()
	if n = c.atOnce(p); n == 0 || n == len(p) {
		<-c.writing
	}
	return n
}

// writeRest writes what tryWrite left, and reports whether the connection goes on.
func (c *conn) writeRest(p []byte) bool {
	defer func() { <-c.writing }()
	_, err := c.write(p)
	return err == nil
}

// limitWrite sets the deadline of a write. The caller has writing.
func (c *conn) limitWrite() {
	end := time.Now().Add(writeTimeout)
	if c.stopping.Load() {
		end = end.Add(drainTimeout - writeTimeout)
	}
	if late := c.writeEnd.Sub(end); late < 0 || late > writeSlack { // setting it for each acknowledgement costs more than it is worth
		c.writeEnd = end.Add(writeSlack)
		_ = c.Conn.SetWriteDeadline(c.writeEnd)
	}
}

// SetDeadline sets the deadline for reading; mochi calls it before each packet.
func (c *conn) SetDeadline(t time.Time) error {
	c.deadline.Lock()
	defer c.deadline.Unlock()
	if c.usual = t; c.last || c.suspect {
		return nil
	}
	return c.socket.SetReadDeadline(t)
}

// setLastDeadline sets the deadline for reading for good.
func (c *conn) setLastDeadline(t time.Time) {
	c.deadline.Lock()
	defer c.deadline.Unlock()
	c.last = true
	_ = c.socket.SetReadDeadline(t)
}

// Close ends the connection and everything that waits on it.
func (c *conn) Close() error {
	c.once.Do(func() {
		if c.linger.Load() && !c.stopping.Load() {
			c.awaitPeer()
		}
		c.cancel()
		_ = c.socket.Close() // a TLS connection would wait for a peer that does not read
		close(c.gone)
		c.admit()
	})
	return nil
}

// awaitPeer lets the device read the last packet: closing a TCP socket that has
// unread data resets the connection, and the packet may be lost with it.
func (c *conn) awaitPeer() {
	half, ok := c.Conn.(interface{ CloseWrite() error }) // TLS or WebSocket
	if c.Conn == net.Conn(c.socket) {
		half, ok = c.socket.Conn.(*net.TCPConn)
	}
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.setLastDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.CopyN(io.Discard, c.socket.Conn, 4*maxPacket)
}

// admit gives the slot for unknown connections back.
func (c *conn) admit() { c.release.Do(func() { <-c.listener.unknown }) }

// silent reports whether the peer has not sent a byte.
func (c *conn) silent() bool { return c.socket.read == 0 }

// stopReading makes Read wait for Close, and a write that lasts come to an end.
func (c *conn) stopReading() {
	c.stopping.Store(true)
	_ = c.socket.SetWriteDeadline(time.Now().Add(drainTimeout)) // of a write that has begun
	c.setLastDeadline(time.Now())
}

// warnOnce reports whether key was not given before; it remembers 16 keys.
func (c *conn) warnOnce(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.warned[key] || len(c.warned) >= 16 {
		return false
	}
	if c.warned == nil {
		c.warned = make(map[string]bool)
	}
	c.warned[key] = true
	return true
}

// writeDisconnect tells an MQTT 5 device why its connection ends; MQTT 3.1.1
// has no such packet.
func (c *conn) writeDisconnect(code packets.Code, reason string) {
	if c.client == nil || c.client.Properties.ProtocolVersion != 5 {
		return
	}
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ReasonCode: code.Code}
	pk.Properties.ReasonString = reason
	if reason == "" {
		pk.Properties.ReasonString = code.Reason
	}
	_ = c.client.WritePacket(pk) // the connection ends anyway
	c.linger.Store(true)
}

// disconnect ends the connection for reason.
func (c *conn) disconnect(code packets.Code, reason string) {
	c.explained.Store(true)
	c.writeDisconnect(code, reason)
	c.client.Stop(code)
}

// connectHeader looks at the first bytes of a connection: they must begin a
// CONNECT packet of a sensible size [MQTT-3.1.0-1].
type connectHeader struct {
	n      int // bytes seen, up to 5
	length int // of what follows the header
	done   bool
}

var errNotMQTT = errors.New("this is not MQTT: the first packet must be CONNECT")

func (h *connectHeader) feed(p []byte) error {
	for _, b := range p {
		if h.done {
			return nil
		}
		h.n++
		switch {
		case h.n == 1 && b == 0x16:
			return errors.New("a TLS handshake came to the plain MQTT port: switch TLS off in the device, or send it to a TLS port")
		case h.n == 1 && b != packets.Connect<<4:
			return errNotMQTT
		case h.n == 1:
			continue
		case h.n > 5:
			return errNotMQTT
		}
		h.length |= int(b&0x7f) << (7 * (h.n - 2))
		h.done = b&0x80 == 0
		if h.length > maxConnect {
			return fmt.Errorf("CONNECT packet of more than %d bytes", maxConnect)
		}
	}
	return nil
}
