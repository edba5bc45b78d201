package certify

import (
	"net"
	"net/netip"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp/coder"

	"github.com/citywarden/citywarden/broker/coap"
)

// datagrams is a socket of UDP that looks at what comes in, and through which nothing goes while an outage over CoAP lasts.
type datagrams struct {
	coap.Conn
	bench *bench
	plain bool // CoAP without DTLS
}

// ReadFromUDPAddrPort implements coap.Conn.
func (d *datagrams) ReadFromUDPAddrPort(p []byte) (int, netip.AddrPort, error) {
	for {
		n, from, err := d.Conn.ReadFromUDPAddrPort(p)
		if err != nil || !d.bench.unheard() {
			if err == nil && d.plain {
				d.bench.datagram(p[:n])
			}
			return n, from, err
		}
	}
}

// WriteToUDPAddrPort implements coap.Conn.
func (d *datagrams) WriteToUDPAddrPort(p []byte, to netip.AddrPort) (int, error) {
	if d.bench.cutOff() {
		return len(p), nil
	}
	return d.Conn.WriteToUDPAddrPort(p, to)
}

// unheard reports whether a datagram gets lost, and counts it.
func (b *bench) unheard() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	lost := b.protocol == "coap" && b.out(time.Now())
	if lost {
		b.attempts++
	}
	return lost
}

func (b *bench) cutOff() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.protocol == "coap" && b.out(time.Now())
}

// datagram looks at one of CoAP.
func (b *bench) datagram(p []byte) {
	m := message.Message{Options: make(message.Options, 0, 32)}
	if _, err := coder.DefaultCoder.Decode(p, &m); err != nil {
		b.fail("connect", fact("a datagram on the CoAP port is not CoAP: %v", "CoAP 端口收到的数据报不是 CoAP：%v", err), printable(p))
		return
	}
	if m.Code != codes.POST {
		return
	}
	if m.Type == message.NonConfirmable {
		b.fail("qos", same("NON"), printable(m.Payload))
	} else {
		b.pass("qos", same("CON"))
	}
}

// gate is a listener of CoAP over TCP that lets nobody in while the outage lasts.
type gate struct {
	net.Listener
	bench *bench
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tc := &passed{Conn: c, bench: g.bench}
		if g.bench.lets(tc) {
			return tc, nil
		}
		_ = c.Close()
	}
}

// passed is a connection that the outage ends.
type passed struct {
	net.Conn
	bench *bench
}

// Close ends the connection.
func (c *passed) Close() error {
	c.bench.left(c)
	return c.Conn.Close()
}
