package app

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// pipes is a net.Listener in memory: each connection is a net.Pipe.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

// Accept waits for the next Dial.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Dial; connections stay.
func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// Addr is that of nothing in particular.
func (p *pipes) Addr() net.Addr { return pipeAddr{} }

// Dial connects to whoever accepts.
func (p *pipes) Dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// datagrams is a UDP socket in memory, with its peers.
type datagrams struct {
	in     chan datagram
	ended  chan struct{} // closed when reads have to end
	closed sync.Once

	mu    sync.Mutex
	peers map[netip.AddrPort]*peer
	last  uint16
}

type datagram struct {
	b    []byte
	from netip.AddrPort
}

func newDatagrams() *datagrams {
	return &datagrams{in: make(chan datagram, 1024), ended: make(chan struct{}), peers: map[netip.AddrPort]*peer{}}
}

// ReadFromUDPAddrPort implements CoAPConn.
func (d *datagrams) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case m := <-d.in:
		return copy(b, m.b), m.from, nil
	case <-d.ended:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

// WriteToUDPAddrPort implements CoAPConn. What nobody takes is lost.
func (d *datagrams) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	d.mu.Lock()
	p := d.peers[to]
	d.mu.Unlock()
	if p != nil {
		select {
		case p.in <- bytes.Clone(b):
		default:
		}
	}
	return len(b), nil
}

// SetReadDeadline ends reads: nobody sets another one than now.
func (d *datagrams) SetReadDeadline(time.Time) error { return d.Close() }

// Close implements CoAPConn.
func (d *datagrams) Close() error {
	d.closed.Do(func() { close(d.ended) })
	return nil
}

// LocalAddr implements CoAPConn.
func (*datagrams) LocalAddr() net.Addr { return pipeAddr{} }

// Dial returns a socket of a device towards d.
func (d *datagrams) Dial(context.Context) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	p := &peer{d: d, addr: netip.AddrPortFrom(netip.IPv4Unspecified(), d.last), in: make(chan []byte, 16), done: make(chan struct{})}
	d.peers[p.addr] = p
	return p, nil
}

// peer is the socket of one device.
type peer struct {
	pipeDeadlines
	d    *datagrams
	addr netip.AddrPort
	in   chan []byte
	done chan struct{}
	once sync.Once
}

func (p *peer) Read(b []byte) (int, error) {
	select {
	case m := <-p.in:
		return copy(b, m), nil
	case <-p.done:
		return 0, net.ErrClosed
	}
}

func (p *peer) Write(b []byte) (int, error) {
	select {
	case p.d.in <- datagram{bytes.Clone(b), p.addr}:
	default: // lost
	}
	return len(b), nil
}

func (p *peer) Close() error {
	p.once.Do(func() { close(p.done) })
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	delete(p.d.peers, p.addr)
	return nil
}

func (p *peer) LocalAddr() net.Addr  { return net.UDPAddrFromAddrPort(p.addr) }
func (p *peer) RemoteAddr() net.Addr { return p.d.LocalAddr() }

// pipeDeadlines are deadlines that nobody sets.
type pipeDeadlines struct{}

func (pipeDeadlines) SetDeadline(time.Time) error      { return nil }
func (pipeDeadlines) SetReadDeadline(time.Time) error  { return nil }
func (pipeDeadlines) SetWriteDeadline(time.Time) error { return nil }

// Who hands listeners over need not close them, whatever becomes of Open.
func TestOpenThatFailsClosesTheListeners(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"bad config": func(c *Config) { c.TimeZone = "Peking" },
		"no folder":  func(c *Config) { c.Data = "pipe_test.go" },
	} {
		t.Run(name, func(t *testing.T) {
			c, web, devices := Default(), newPipes(), newPipes()
			c.Data = t.TempDir()
			spoil(&c)
			loggers := newDatagrams()
			if _, err := Open(t.Context(), c, Options{Listeners: Listeners{HTTP: web, MQTT: devices, CoAP: loggers}}); err == nil {
				t.Fatal("it opened")
			}
			if _, _, err := loggers.ReadFromUDPAddrPort(nil); !errors.Is(err, net.ErrClosed) {
				t.Errorf("a read after Open failed: %v, want %v", err, net.ErrClosed)
			}
			for _, l := range []*pipes{web, devices} {
				if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept after Open failed: %v, want %v", err, net.ErrClosed)
				}
			}
		})
	}
}
