package coap

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/protocol/handshake"
	"github.com/pion/logging"
	"github.com/pion/transport/v4/deadline"

	"github.com/citywarden/citywarden"
)

// Keys knows what devices show in a handshake.
type Keys interface {
	// PreSharedKey returns the key that goes with an identity: CodeUnauthenticated when
	// there is none, CodeDenied when the device is disabled.
	PreSharedKey(identity string) ([]byte, error)
	// AuthenticateCertificate returns whose certificate it is, of which the caller has
	// seen that the peer has its key, as Authenticate. certified says whether an
	// authority that we trust issued it.
	AuthenticateCertificate(c *x509.Certificate, certified func() bool) (citywarden.DeviceID, error)
}

// DTLS is where devices speak CoAP over DTLS 1.2, by pre-shared keys and by certificates.
type DTLS struct {
	Conn                                // closed by Run
	Certificate func() *tls.Certificate // that we show; nil: pre-shared keys only
}

// suites are the cipher suites of DTLS. RFC 7252 §9.1.3 wants the ones with CCM_8; none
// has an RSA key exchange or SHA-1.
var suites = []dtls.CipherSuiteID{
	dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, dtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM, dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8,
	dtls.TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256,
	dtls.TLS_PSK_WITH_AES_128_GCM_SHA256, dtls.TLS_PSK_WITH_AES_128_CBC_SHA256, dtls.TLS_PSK_WITH_AES_128_CCM, dtls.TLS_PSK_WITH_AES_128_CCM_8, dtls.TLS_PSK_WITH_AES_256_CCM_8,
}

const (
	maxRecord  = 8192     // bytes of a datagram, as pion takes
	maxShake   = 64 << 10 // bytes of a handshake
	maxWaiting = 32       // datagrams that wait for a session; more are lost
)

// The parts of a record that tell where it goes, RFC 6347 §4.1 and RFC 9146 §4.
const (
	recordHeader  = 13
	typeChange    = 20 // of the cipher
	typeHandshake = 22
	typeWithCID   = 25
	cidAt         = 11
	clientHello   = 1
)

type connectionID [8]byte

// preSharedKey is what a handshake used.
type preSharedKey struct {
	identity string
	key      []byte
}

// remoteAddr is an address as pion wants it.
type remoteAddr struct{ netip.AddrPort }

func (remoteAddr) Network() string { return "udp" }

// secured shares one UDP socket out to sessions: by their connection id, so that a device
// keeps its session when its address changes, else by their address. pion's own listener
// has no bound for handshakes, and loses a device that begins again at its old address.
type secured struct {
	*loop
	config DTLS

	mu      sync.Mutex
	byID    map[connectionID]*association
	byAddr  map[netip.AddrPort]*association // whose handshake is over
	greeted map[netip.AddrPort]*association // whose handshake is going on
	order   []*association                  // of greeted, by age
}

// association is one session's part of the socket, a net.PacketConn.
type association struct {
	of     *secured
	id     connectionID
	addr   netip.AddrPort // of its handshake
	place  *place         // in the doorway
	in     chan datagram
	closed chan struct{}
	once   sync.Once
	late   *deadline.Deadline

	room    int  // bytes that it may still send unencrypted, which anybody could have, guarded by of.mu
	settled bool // the handshake is over, guarded by of.mu

	proven atomic.Bool // it returned the cookie: the address is its own
	usesID atomic.Bool
	key    *preSharedKey // the handshake's, which is over when it is read
}

type datagram struct {
	bytes []byte
	from  netip.AddrPort
}

// serveDTLS serves the socket until ctx is done.
func (l *loop) serveDTLS(ctx context.Context, config DTLS) error {
	d := &secured{loop: l, config: config, byID: map[connectionID]*association{}, byAddr: map[netip.AddrPort]*association{}, greeted: map[netip.AddrPort]*association{}}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := config.ReadFromUDPAddrPort(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("coap: read: %w", err)
		case err != nil:
			l.log.Debug("read datagram", "err", err)
			continue
		}
		if n < recordHeader || n > maxRecord {
			l.malformed.Inc()
			continue
		}
		d.share(ctx, buf[:n], from)
	}
}

// share gives a datagram to those that it may be for: only a session that has its keys
// can read it.
func (d *secured) share(ctx context.Context, b []byte, from netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b[0] == typeWithCID {
		if len(b) >= cidAt+len(connectionID{}) {
			d.byID[connectionID(b[cidAt:])].take(b, from)
		}
		return
	}
	hello := b[0] == typeHandshake && b[3] == 0 && b[4] == 0 && len(b) > recordHeader && b[recordHeader] == clientHello
	greeted := d.greeted[from]
	if hello && greeted == nil {
		if greeted = d.greet(from); greeted == nil {
			d.crowded.WithLabelValues("dtls").Inc()
			return
		}
		d.sessionsOpen.Go(func() { d.shake(ctx, greeted) })
	}
	greeted.take(b, from)
	if !hello {
		d.byAddr[from].take(b, from)
	}
}

// take queues a datagram; a nil association has nobody to read it. pion keeps 2 MB of a
// handshake, and adds what comes unencrypted later to it; a session it has end by an alert that
// anybody could have sent. It needs the mu of its socket.
func (a *association) take(b []byte, from netip.AddrPort) {
	if a == nil {
		return
	}
	cid := 0
	if a.usesID.Load() {
		cid = len(a.id)
	}
	plain, foreign := unencrypted(b, cid)
	if a.settled && foreign {
		return
	}
	if !a.settled || plain {
		if a.room -= len(b); a.room < 0 {
			return
		}
	}
	select {
	case a.in <- datagram{append([]byte(nil), b...), from}:
	default: // lost, as UDP loses
	}
}

// unencrypted reports whether a record of a datagram is of the first epoch, and whether one of
// those is nothing that a handshake repeats. Where the walk ends early pion takes nothing.
func unencrypted(b []byte, cid int) (plain, foreign bool) {
	for len(b) >= recordHeader {
		head := recordHeader
		if b[0] == typeWithCID {
			head += cid
		}
		if len(b) < head {
			break
		}
		next := head + int(b[head-2])<<8 + int(b[head-1])
		if b[3] == 0 && b[4] == 0 {
			plain = true
			change := b[0] == typeChange && next == head+1 && next <= len(b) && b[head] == 1
			foreign = foreign || b[0] != typeHandshake && !change
		}
		if next > len(b) {
			break
		}
		b = b[next:]
	}
	return plain, foreign
}

// greet begins a handshake, nil when there are too many. It needs mu.
func (d *secured) greet(from netip.AddrPort) *association {
	for {
		there, crowded := d.door.come(from.Addr())
		if !crowded {
			break
		}
		if !d.dismiss(from, there) {
			return nil
		}
	}
	a := &association{of: d, addr: from, place: d.door.place(from.Addr()), in: make(chan datagram, maxWaiting), closed: make(chan struct{}), late: deadline.New(), room: maxShake}
	rand.Read(a.id[:])
	d.byID[a.id], d.greeted[from] = a, a
	d.order = append(d.order, a)
	return a
}

// dismiss ends the oldest handshake whose peer may have given another's address, of those
// at the address of from or of all, and reports whether there was one. It needs mu.
func (d *secured) dismiss(from netip.AddrPort, there bool) bool {
	i := slices.IndexFunc(d.order, func(a *association) bool {
		return !a.proven.Load() && (!there || neighbourhood(a.addr.Addr()) == neighbourhood(from.Addr()))
	})
	if i < 0 {
		return false
	}
	oldest := d.order[i]
	oldest.forget()
	oldest.place.leave()
	oldest.once.Do(func() { close(oldest.closed) })
	return true
}

// forget has nothing more come to a. It needs the mu of its socket.
func (a *association) forget() {
	d := a.of
	delete(d.byID, a.id)
	a.shaken()
	if d.byAddr[a.addr] == a {
		delete(d.byAddr, a.addr)
	}
}

// shaken takes a from those whose handshake is going on. It needs the mu of its socket.
func (a *association) shaken() {
	d := a.of
	if d.greeted[a.addr] != a {
		return
	}
	delete(d.greeted, a.addr)
	if i := slices.Index(d.order, a); i >= 0 {
		d.order = slices.Delete(d.order, i, i+1)
	}
}

// settle has a, whose handshake is over, take the place of the session that was at its
// address before: that device began again. One with a connection id may be elsewhere.
func (a *association) settle() {
	d := a.of
	d.mu.Lock()
	defer d.mu.Unlock()
	a.settled = true
	a.shaken()
	before := d.byAddr[a.addr]
	d.byAddr[a.addr] = a
	if before != nil && !before.usesID.Load() {
		before.once.Do(func() { close(before.closed) })
	}
}

// ReadFrom reads a datagram.
func (a *association) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case m := <-a.in:
		return copy(b, m.bytes), remoteAddr{m.from}, nil
	case <-a.closed:
		return 0, nil, net.ErrClosed
	case <-a.late.Done():
		return 0, nil, os.ErrDeadlineExceeded
	}
}

// WriteTo sends a datagram.
func (a *association) WriteTo(b []byte, to net.Addr) (int, error) {
	return a.of.config.WriteToUDPAddrPort(b, to.(remoteAddr).AddrPort)
}

// Close ends it; the socket stays.
func (a *association) Close() error {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	a.forget()
	a.once.Do(func() { close(a.closed) })
	return nil
}

// LocalAddr is not asked for.
func (a *association) LocalAddr() net.Addr { return remoteAddr{} }

// SetReadDeadline has reads end at t.
func (a *association) SetReadDeadline(t time.Time) error { a.late.Set(t); return nil }

// SetWriteDeadline does nothing: UDP doesn't wait.
func (a *association) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline is SetReadDeadline.
func (a *association) SetDeadline(t time.Time) error { return a.SetReadDeadline(t) }

// options are how pion speaks with a.
func (a *association) options() []dtls.ServerOption {
	o := []dtls.ServerOption{
		dtls.WithCipherSuites(suites...),
		dtls.WithClientAuth(dtls.RequestClientCert),
		dtls.WithExtendedMasterSecret(dtls.RequestExtendedMasterSecret),
		dtls.WithLoggerFactory(&logging.DefaultLoggerFactory{Writer: io.Discard}),
		dtls.WithConnectionIDGenerator(func() []byte {
			a.usesID.Store(true)
			return a.id[:]
		}),
		dtls.WithServerHelloMessageHook(func(m handshake.MessageServerHello) handshake.Message {
			a.proven.Store(true)
			a.place.prove()
			return &m
		}),
		dtls.WithPSK(func(identity []byte) ([]byte, error) {
			key, err := a.of.opts.Keys.PreSharedKey(string(identity))
			a.key = &preSharedKey{string(identity), key}
			return key, err
		}),
	}
	if f := a.of.config.Certificate; f != nil {
		o = append(o, dtls.WithGetCertificate(func(*dtls.ClientHelloInfo) (*tls.Certificate, error) { return f(), nil }))
	}
	return o
}

// shake does the handshake of a and serves the session.
func (d *secured) shake(ctx context.Context, a *association) {
	conn, err := dtls.ServerWithOptions(a, remoteAddr{a.addr}, a.options()...)
	if err != nil {
		d.log.Error("DTLS", "err", err)
		a.place.leave()
		_ = a.Close()
		return
	}
	within, cancel := context.WithTimeout(ctx, provenWithin)
	defer cancel()
	defer time.AfterFunc(knownWithin, func() {
		if !a.proven.Load() {
			cancel()
		}
	}).Stop()
	if err := conn.HandshakeContext(within); err != nil {
		d.unshaken(ctx, a, err)
		a.place.leave()
		_ = conn.Close()
		_ = a.Close()
		return
	}
	a.settle()
	s := d.newSession(conn, "dtls", a.addr.String(), a.place.leave)
	if !d.enter(s) {
		s.admit()
		_ = conn.Close()
		return
	}
	err = d.readSession(ctx, a, s)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, errStopping):
		d.log.Debug("session ended", "device", s.device, "remote", s.name)
	default:
		d.warn("session ended", "device", s.device, "remote", s.name, "err", err)
	}
	d.depart(s, err)
}

// unshaken says why a handshake came to nothing. A wrong key looks like a device that went away:
// what it encrypts can't be read.
func (d *secured) unshaken(ctx context.Context, a *association, err error) {
	switch {
	case ctx.Err() != nil:
	case !a.proven.Load():
		var late net.Error
		if errors.Is(err, net.ErrClosed) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.As(err, &late) && late.Timeout() {
			return // nobody may have been there
		}
		d.warn("DTLS handshake not begun", "remote", a.addr, "err", err, "do", "see which cipher suites and versions the device has")
	case a.key != nil && a.key.key != nil:
		d.warn("DTLS handshake refused", "remote", a.addr, "identity", fmt.Sprintf("%.64q", a.key.identity),
			"err", fmt.Sprintf("it did not end within %s; the key in the device may not be the one that was issued", provenWithin))
	case a.key != nil:
		d.warn("DTLS handshake refused", "remote", a.addr, "identity", fmt.Sprintf("%.64q", a.key.identity), "err", err,
			"do", "issue a key with: citywarden devices secret DEVICE --psk")
	default:
		d.warn("DTLS handshake refused", "remote", a.addr, "err", err)
	}
}

func (d *secured) readSession(ctx context.Context, a *association, s *session) error {
	var chain []*x509.Certificate
	if state, ok := s.conn.(*dtls.Conn).ConnectionState(); ok && a.key == nil {
		for _, der := range state.PeerCertificates {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				return fmt.Errorf("client certificate: %w", err)
			}
			chain = append(chain, c)
		}
	}
	if err := d.recognise(s, a.key, chain); err != nil {
		return err
	}
	buf := make([]byte, maxRecord)
	for {
		n, err := s.Read(buf)
		if err != nil {
			return err
		}
		if s.device != "" {
			s.within(time.Now().Add(sessionIdle))
		}
		d.datagram(ctx, buf[:n], endpoint{session: s})
		if err := s.check(); err != nil {
			return err
		}
	}
}
