package certify

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"
)

// tap is a listener that looks at the packets which come in.
type tap struct {
	net.Listener
	bench *bench
}

// Accept lets nobody in while the outage lasts.
func (t *tap) Accept() (net.Conn, error) {
	for {
		c, err := t.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tc := &tapped{Conn: c, bench: t.bench}
		if t.bench.lets(tc) {
			return tc, nil
		}
		_ = c.Close()
	}
}

// maxHeld is how much of a packet is held to look at it.
const maxHeld = 512 << 10

// tapped is one connection.
type tapped struct {
	net.Conn
	bench   *bench
	greeted bool // something came
	buf     []byte
	version byte // of MQTT, 0 before CONNECT
	lost    bool // the packets can't be told apart any more
	once    sync.Once
}

// Read reads for the broker and looks at what came.
func (c *tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if s, ok := c.Conn.(*tls.Conn); ok && !c.greeted {
		switch state := s.ConnectionState(); {
		case n > 0:
			c.bench.pass("tls", same(tls.VersionName(state.Version)+", "+tls.CipherSuiteName(state.CipherSuite)))
		case err != nil && !state.HandshakeComplete && !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed):
			c.bench.fail("tls", same(err.Error()), "")
		}
	}
	if n > 0 && !c.lost {
		c.greeted = true
		c.buf = append(c.buf, p[:n]...)
		c.packets()
	}
	return n, err
}

// Close ends the connection.
func (c *tapped) Close() error {
	c.once.Do(func() { c.bench.left(c) })
	return c.Conn.Close()
}

// packets takes the whole packets off buf.
func (c *tapped) packets() {
	for len(c.buf) > 1 && !c.lost {
		size, width := 0, 0
		for i := 1; ; i++ {
			if i > 4 || i == len(c.buf) {
				c.lost = i > 4
				return
			}
			size |= int(c.buf[i]&0x7f) << (7 * (i - 1))
			if width = i; c.buf[i]&0x80 == 0 {
				break
			}
		}
		if c.version == 0 && c.buf[0] != packets.Connect<<4 || size > maxHeld {
			c.lost = true
			return
		}
		if len(c.buf) < 1+width+size {
			return
		}
		c.packet(c.buf[0], c.buf[1+width:1+width+size])
		c.buf = append(c.buf[:0], c.buf[1+width+size:]...)
	}
}

// packet looks at one packet. What can't be read, the broker will refuse.
func (c *tapped) packet(head byte, body []byte) {
	pk := packets.Packet{ProtocolVersion: c.version}
	if pk.FixedHeader.Decode(head) != nil {
		return
	}
	pk.FixedHeader.Remaining = len(body)
	switch pk.FixedHeader.Type {
	case packets.Connect:
		if pk.ConnectDecode(body) != nil {
			return
		}
		c.version = pk.ProtocolVersion
		c.bench.connected(fmt.Sprintf("MQTT %s, client id %q", versions[pk.ProtocolVersion], clip(pk.Connect.ClientIdentifier)), pk.Connect.Keepalive)
	case packets.Publish:
		if pk.PublishDecode(body) == nil {
			c.bench.published(pk.TopicName, pk.FixedHeader.Qos, pk.FixedHeader.Retain)
		}
	}
}

var versions = map[byte]string{3: "3.1", 4: "3.1.1", 5: "5"}
