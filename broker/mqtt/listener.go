package mqtt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// listener is mochi's listener on one of ours. mochi's own stops for ever
// at the first error of Accept, waits for connections that never say anything,
// and logs neither who was refused nor what to do.
type listener struct {
	Listener
	broker  *Broker
	ctx     context.Context // of Run; mochi's callbacks carry none
	failed  chan<- error    // the net.Listener broke
	unknown chan struct{}   // a slot per connection that has not authenticated
	wg      sync.WaitGroup  // the accept loop, connections and what sends to them from down

	mu    sync.Mutex
	conns map[*conn]struct{}
	ended bool
}

func newListener(ctx context.Context, b *Broker, from Listener, failed chan<- error) *listener {
	return &listener{
		Listener: from,
		broker:   b,
		ctx:      ctx,
		failed:   failed,
		unknown:  make(chan struct{}, maxUnknown),
		conns:    make(map[*conn]struct{}),
	}
}

func (l *listener) ID() string              { return l.name() }
func (l *listener) Address() string         { return l.Addr().String() }
func (l *listener) Protocol() string        { return l.Addr().Network() }
func (l *listener) Init(*slog.Logger) error { l.wg.Add(1); return nil } // of Serve, which mochi starts without waiting for it

// Close does nothing: Run calls shut before mochi's Close, and mochi's way of
// closing would leave out the connections that are still connecting.
func (l *listener) Close(listeners.CloseFn) {}

// Serve accepts connections until shut is called.
func (l *listener) Serve(establish listeners.EstablishFn) {
	defer l.wg.Done()
	const longest = time.Second
	wait := 5 * time.Millisecond
	for {
		nc, err := l.Accept()
		switch {
		case l.isEnded():
			if err == nil {
				_ = nc.Close()
			}
			return
		case errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF):
			l.failed <- fmt.Errorf("mqtt: accept on %s: %w", l.Address(), err)
			return
		case err != nil: // out of file descriptors, or the peer gave up: it passes
			l.broker.log.Error("accept a connection", "err", err, "again_in", wait)
			select {
			case <-time.After(wait):
			case <-l.ctx.Done():
			}
			wait = min(2*wait, longest)
			continue
		}
		wait = 5 * time.Millisecond
		select {
		case l.unknown <- struct{}{}:
		case <-l.ctx.Done():
			_ = nc.Close()
			continue
		}
		c := newConn(l, nc)
		if !l.add(c) {
			_ = c.Close()
			continue
		}
		l.wg.Go(func() {
			err := c.handshake()
			if err == nil {
				err = establish(l.ID(), c)
			}
			l.remove(c)
			l.report(c, err)
		})
	}
}

// report logs why a connection ended, unless the hook did already.
func (l *listener) report(c *conn, err error) {
	_ = c.Close()
	if c.unwatch != nil {
		c.unwatch()
	}
	c.unsubscribeAll()
	if c.guest {
		<-l.broker.guests
	}
	var code packets.Code
	log := l.broker.log
	switch {
	case c.explained.Load(), l.isEnded():
	case !c.established.Load() && c.silent():
		log.Debug("connection without a word", "remote", c.remote)
	case !c.established.Load():
		l.broker.metrics.refused.WithLabelValues("connect").Inc()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("no complete CONNECT packet within %s", connectTimeout)
		}
		log.Warn("connection refused", "remote", c.remote, "listener", l.ID(), "err", err)
	case errors.As(err, &code) && code.Code >= packets.ErrUnspecifiedError.Code:
		log.Warn("device disconnected for an error of protocol", "device", c.device, "client", c.clientID, "remote", c.remote, "err", err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		log.Info("device fell silent for 1.5 times its keep-alive", "device", c.device, "client", c.clientID, "remote", c.remote)
	default:
		log.Debug("device disconnected", "device", c.device, "client", c.clientID, "remote", c.remote, "err", err)
	}
}

// shut stops accepting and reading, gives acknowledgements that are under way
// drainTimeout, tells MQTT 5 devices, and closes all connections.
func (l *listener) shut() {
	l.mu.Lock()
	l.ended = true
	conns := make([]*conn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	_ = l.Listener.Close()
	for _, c := range conns {
		c.stopReading()
	}
	over, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() {
			c.drain(over)
			if c.established.Load() {
				c.sayOffline()
				c.writeDisconnect(packets.ErrServerShuttingDown, "")
			}
			_ = c.Close()
		})
	}
	wg.Wait()
}

func (l *listener) add(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.conns[c] = struct{}{}
	}
	return !l.ended
}

func (l *listener) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

func (l *listener) isEnded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}
