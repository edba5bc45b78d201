package coap

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	streamcoder "github.com/plgd-dev/go-coap/v3/tcp/coder"
)

// The limits of CoAP over TCP.
const (
	maxStreamed   = maxBody + 4<<10 // bytes of a message: a body and its options
	messageWithin = 30 * time.Second
	pongWithin    = 30 * time.Second
	maxAsked      = maxTold / 2 // requests of one connection that are not answered; then no more are read
)

// Stream is a listener of CoAP over TCP (RFC 8323), over TLS when it is given.
type Stream struct {
	net.Listener // closed by Run
	TLS          *tls.Config
}

// acceptStreams serves a listener until ctx is done.
func (l *loop) acceptStreams(ctx context.Context, from Stream) error {
	for {
		c, err := from.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("coap: accept on %s: %w", from.Addr(), err)
		case err != nil: // out of file descriptors, or the peer gave up: it passes
			l.log.Error("accept a connection", "err", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		addr := netip.Addr{}
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			addr = a.AddrPort().Addr()
		}
		if _, crowded := l.door.come(addr); crowded {
			l.crowded.WithLabelValues("tcp").Inc()
			_ = c.Close()
			continue
		}
		s := l.newSession(c, "tcp", c.RemoteAddr().String(), l.door.place(addr).leave)
		s.stream, s.out, s.asked = true, make(chan outgoing, maxTold), make(chan struct{}, maxAsked)
		if from.TLS != nil {
			s.conn = tls.Server(c, from.TLS)
		}
		l.sessionsOpen.Go(func() { l.stream(ctx, s) })
	}
}

// newSession returns a session that has knownWithin to show whose it is.
func (l *loop) newSession(c net.Conn, kind, remote string, admit func()) *session {
	s := &session{conn: c, name: fmt.Sprintf("%s %s #%d", kind, remote, l.serial.Add(1)), ended: make(chan struct{}), admit: admit, tokens: make(map[string]bool)}
	s.within(time.Now().Add(knownWithin))
	return s
}

// stream serves one connection over TCP.
func (l *loop) stream(ctx context.Context, s *session) {
	if !l.enter(s) {
		s.admit()
		_ = s.conn.Close()
		return
	}
	l.writers.Go(s.carry)
	err := l.readStream(ctx, s)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, errStopping):
		l.log.Debug("connection ended", "device", s.device, "remote", s.name)
	case ctx.Err() != nil: // in the middle of a TLS handshake
	default:
		l.warn("connection ended", "device", s.device, "remote", s.name, "err", err)
		l.send(endpoint{session: s}, message.Message{Code: codes.Abort, Payload: []byte(clip(err.Error()))})
	}
	l.depart(s, err)
}

func (l *loop) readStream(ctx context.Context, s *session) error {
	if c, ok := s.conn.(*tls.Conn); ok {
		hctx, cancel := context.WithTimeout(ctx, knownWithin)
		err := c.HandshakeContext(hctx)
		cancel()
		if err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
		if err := l.recognise(s, nil, c.ConnectionState().PeerCertificates); err != nil {
			return err
		}
	}
	l.send(endpoint{session: s}, message.Message{Code: codes.CSM, Options: message.Options{
		{ID: message.TCPMaxMessageSize, Value: uintValue(maxStreamed)}, {ID: message.TCPBlockWiseTransfer},
	}})
	r := bufio.NewReaderSize(s, 512)
	for {
		m, err := readMessage(r, func() {
			if s.device != "" {
				s.within(time.Now().Add(messageWithin))
			}
		})
		if err != nil {
			return err
		}
		if s.device != "" {
			s.within(time.Now().Add(sessionIdle))
		}
		if m.Code == codes.Ping || m.Code > codes.Empty && m.Code <= 31 {
			if !s.ask(ctx) {
				continue // the next read says why
			}
		}
		switch {
		case m.Code == codes.Ping:
			if b, err := encodeStream(message.Message{Code: codes.Pong, Token: m.Token}); err == nil {
				l.transmit(endpoint{session: s}, b, true)
			}
		case m.Code == codes.Pong:
			l.ponged(s)
		case m.Code == codes.Release:
			return io.EOF
		case m.Code > 31 && m.Code < codes.CSM:
			m.Type = message.NonConfirmable
			l.answered(endpoint{session: s}, &m)
			if err := s.check(); err != nil {
				return err
			}
		case m.Code == codes.Abort:
			return fmt.Errorf("the device ended it: %.128q", m.Payload)
		case m.Code > codes.Empty && m.Code <= 31:
			x := newExchange(endpoint{session: s}, &m)
			l.begin(ctx, x, &m)
			if err := s.check(); err != nil {
				return err
			}
		}
	}
}

// ponged notes that the device has read the oldest notification that it had not. libcoap
// leaves the token out of its Pong, but as all they come in order.
func (l *loop) ponged(s *session) {
	l.mu.Lock()
	if len(s.pings) == 0 {
		l.mu.Unlock()
		return
	}
	id := s.pings[0]
	s.pings = s.pings[1:]
	l.mu.Unlock()
	l.acknowledged(id, true)
}

// readMessage reads one message (RFC 8323 §3.2); begun is called when its first byte is
// there. It takes no more memory than what has come.
func readMessage(r *bufio.Reader, begun func()) (message.Message, error) {
	first, err := r.ReadByte()
	if err != nil {
		return message.Message{}, err
	}
	begun()
	whole := []byte{first}
	n, extended := int(first>>4), 0
	switch n {
	case 13:
		n, extended = streamcoder.MessageLength13Base, 1
	case 14:
		n, extended = streamcoder.MessageLength14Base, 2
	case 15:
		n, extended = streamcoder.MessageLength15Base, 4
	}
	more := 0
	for range extended {
		b, err := r.ReadByte()
		if err != nil {
			return message.Message{}, err
		}
		whole, more = append(whole, b), more<<8|int(b)
	}
	if n += more; n > maxStreamed {
		return message.Message{}, fmt.Errorf("a message of %d bytes; at most %d are taken", n, maxStreamed)
	}
	rest, err := io.ReadAll(io.LimitReader(r, int64(1+int(first&15)+n)))
	if err == nil && len(rest) < 1+int(first&15)+n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return message.Message{}, err
	}
	m := message.Message{Options: make(message.Options, 0, 32)}
	if _, err := streamcoder.DefaultCoder.Decode(append(whole, rest...), &m); err != nil {
		return message.Message{}, fmt.Errorf("not CoAP: %w", err)
	}
	return m, nil
}

func encodeStream(m message.Message) ([]byte, error) {
	size, err := streamcoder.DefaultCoder.Size(m)
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	n, err := streamcoder.DefaultCoder.Encode(m, b)
	return b[:max(n, 0)], err
}
