package app

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
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
			if _, err := Open(t.Context(), c, Options{Listeners: Listeners{HTTP: web, MQTT: devices}}); err == nil {
				t.Fatal("it opened")
			}
			for _, l := range []*pipes{web, devices} {
				if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept after Open failed: %v, want %v", err, net.ErrClosed)
				}
			}
		})
	}
}
