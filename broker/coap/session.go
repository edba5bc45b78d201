package coap

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
)

// The limits of sessions, which are over DTLS or TCP.
const (
	maxSessions  = 32768 // more than that, and the one that said nothing for longest goes
	maxUnknown   = 1024  // of them, whose device is not known yet
	maxUnknownAt = 64    // of those, at one address
	maxProvenAt  = 256   // of those in a handshake that showed that the address is theirs, at one address
	knownWithin  = 10 * time.Second
	provenWithin = 60 * time.Second // the same for those: a slow network repeats much
	sessionIdle  = 24 * time.Hour   // of a device that says nothing
	writeWithin  = 10 * time.Second
)

// endpoint is where messages come from and go to.
type endpoint struct {
	addr    netip.AddrPort // over UDP without DTLS
	session *session       // else
}

func (e endpoint) stream() bool { return e.session != nil && e.session.stream }

// String is different for each endpoint that there is.
func (e endpoint) String() string {
	if e.session != nil {
		return e.session.name
	}
	return e.addr.String()
}

// asker says who asks for a credential.
func (e endpoint) asker() citywarden.Asker {
	from := citywarden.Asker{Protocol: "coap", Address: e.addr.String()}
	if s := e.session; s != nil {
		from.Address, from.Certificate = s.conn.RemoteAddr().String(), s.shown
	}
	return from
}

// session is a device's session over DTLS or its connection over TCP.
type session struct {
	conn   net.Conn // of DTLS, TLS or TCP
	stream bool     // TLS or TCP
	name   string
	out    chan outgoing // of a stream: messages to be written
	asked  chan struct{} // of a stream: one for each request whose answer is not written; a full one has the device wait
	ended  chan struct{} // closed by end
	once   sync.Once

	// Its reader's.
	device  citywarden.DeviceID                 // "" of one that is not known yet
	known   func() (citywarden.DeviceID, error) // by the key or certificate that it showed; nil: each request has a token
	refused error                               // why the certificate that it showed is nobody's
	shown   *x509.Certificate                   // that certificate; nil for none
	unwatch func()                              // ends what calls doubt
	admit   func()                              // gives the place of one that is not known yet to another

	mu       sync.Mutex
	doubtful bool // the reader is to look whether the device is still who it was
	stopping bool // nothing is read any more
	until    time.Time
	heard    time.Time

	// Guarded by loop.mu.
	watched bool            // its device is known
	tokens  map[string]bool // of what it observes
	pings   []exchangeID    // of a stream: notifications whose Pong has not come, which come in their order
}

// outgoing is a message to be written to a stream.
type outgoing struct {
	bytes  []byte
	answer bool // to something in asked
}

var (
	errStopping = errors.New("the platform stops")
	errBehind   = errors.New("it does not read what it is told")
)

// Read reads what the device sends. It fails when what the device is known by is not good any more.
func (s *session) Read(b []byte) (int, error) {
	for {
		n, err := s.conn.Read(b)
		var late net.Error
		if err == nil || n > 0 || !errors.As(err, &late) || !late.Timeout() {
			return n, err
		}
		s.mu.Lock()
		doubtful, stopping := s.doubtful, s.stopping
		if s.doubtful = false; doubtful && !stopping {
			_ = s.conn.SetReadDeadline(s.until)
		}
		s.mu.Unlock()
		switch {
		case stopping:
			return 0, errStopping
		case !doubtful:
			return 0, err
		}
		if err := s.check(); err != nil {
			return 0, err
		}
	}
}

// within has reads end at t.
func (s *session) within(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = time.Now()
	if s.until = t; !s.doubtful && !s.stopping {
		_ = s.conn.SetReadDeadline(t)
	}
}

// doubt has the reader look whether the device is still who it was, also when that says
// nothing.
func (s *session) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubtful = true
	_ = s.conn.SetReadDeadline(time.Now())
}

// stop ends reading; what is to be answered still is.
func (s *session) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	_ = s.conn.SetReadDeadline(time.Now())
}

// idle returns since when the device has said nothing.
func (s *session) idle() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard
}

// check returns why the device is not any more who it was.
func (s *session) check() error {
	if s.known == nil {
		return nil
	}
	id, err := s.known()
	switch citywarden.CodeOf(err) {
	case "":
		if id != s.device {
			return citywarden.Errorf(citywarden.CodeUnauthenticated, "its credential belongs to device %s now", id)
		}
	case citywarden.CodeUnauthenticated, citywarden.CodeNotFound, citywarden.CodeDenied:
		return fmt.Errorf("the credential of device %s is not valid any more: %w", s.device, err)
	}
	return nil
}

// write sends b, an answer or not, and does not wait for the device: of a stream that takes nothing any
// more the session ends.
func (s *session) write(b []byte, answer bool) error {
	if !s.stream {
		_, err := s.conn.Write(b)
		return err
	}
	select {
	case s.out <- outgoing{b, answer}:
		return nil
	case <-s.ended:
		return net.ErrClosed
	default:
		s.end()
		return fmt.Errorf("%w: %d messages wait", errBehind, cap(s.out))
	}
}

// ask waits until the device may ask something more, and reports whether it may.
func (s *session) ask(ctx context.Context) bool {
	select {
	case s.asked <- struct{}{}:
		return true
	case <-s.ended:
	case <-ctx.Done():
	}
	return false
}

// unanswered is called when a request gets no answer.
func (e endpoint) unanswered() {
	if e.stream() {
		e.session.answered()
	}
}

// answered is called when there is no answer, or it is written.
func (s *session) answered() {
	select {
	case <-s.asked:
	default: // it was not asked
	}
}

// end ends the session. What waits to be written still is, for a while.
func (s *session) end() { s.once.Do(func() { close(s.ended) }) }

// carry writes what a stream is to get, and closes the connection in the end.
func (s *session) carry() {
	defer s.conn.Close()
	defer s.end()
	put := func(m outgoing) bool {
		_ = s.conn.SetWriteDeadline(time.Now().Add(writeWithin))
		_, err := s.conn.Write(m.bytes)
		if m.answer {
			s.answered()
		}
		return err == nil
	}
	for {
		select {
		case m := <-s.out:
			if !put(m) {
				return
			}
			continue
		case <-s.ended:
		}
		break
	}
	for {
		select {
		case m := <-s.out:
			if !put(m) {
				return
			}
		default:
			return
		}
	}
}

// recognise finds out whose session it is by what the device showed in the handshake;
// nothing of it is an error, as each request may have a token.
func (l *loop) recognise(s *session, key *preSharedKey, chain []*x509.Certificate) error {
	switch {
	case key != nil:
		secret := citywarden.PSKSecret(key.identity, key.key)
		s.known = func() (citywarden.DeviceID, error) { return l.opts.Auth.Authenticate(secret) }
	case len(chain) > 0:
		s.shown = chain[0]
		certified := sync.OnceValue(func() bool { return l.opts.Certified != nil && l.opts.Certified(chain) })
		s.known = func() (citywarden.DeviceID, error) { return l.opts.Keys.AuthenticateCertificate(chain[0], certified) }
	default:
		return nil
	}
	id, err := s.known()
	switch {
	case err == nil:
		if err := l.opts.connect(id); err != nil {
			l.warn("connection refused", "remote", s.name, "err", err)
			return err
		}
		s.device = id
		l.watch(s)
		return nil
	case key != nil:
		return err
	}
	s.known, s.refused = nil, err
	l.warn("client certificate refused", "remote", s.name, "err", err)
	return nil
}

// watch has s end when the credential of its device is revoked, and gives the place of
// one that is not known yet to another.
func (l *loop) watch(s *session) {
	if s.known != nil {
		kind := citywarden.DownlinkRevokedDTLS
		if s.stream {
			kind = citywarden.DownlinkRevoked
		}
		s.unwatch = l.opts.Down.Listen(s.device, kind, func(m citywarden.Downlink) bool {
			if m.Device == s.device {
				s.doubt()
			}
			return m.Device == s.device
		})
	}
	l.makeRoom(s)
	s.admit()
	s.within(time.Now().Add(sessionIdle))
}

// makeRoom has s, whose device is known now, take the place of another when there are too many:
// what anybody can open has a bound of its own, and ends no device's session.
func (l *loop) makeRoom(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.watched = true; len(l.sessions) <= maxSessions {
		return
	}
	var longest *session
	var since time.Time
	for x := range l.sessions {
		if t := x.idle(); x.watched && x != s && (longest == nil || t.Before(since)) {
			longest, since = x, t
		}
	}
	if longest == nil {
		return
	}
	delete(l.sessions, longest)
	longest.stop()
	l.warn("too many sessions; the one that said nothing for longest ended", "remote", longest.name, "since", since, "most", maxSessions)
}

// enter takes s among the sessions, or returns false when we are stopping.
func (l *loop) enter(s *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopping {
		return false
	}
	l.sessions[s] = true
	return true
}

// depart is called when nothing more comes from s.
func (l *loop) depart(s *session, why error) {
	if s.unwatch != nil {
		s.unwatch()
	}
	s.admit()
	l.mu.Lock()
	if errors.Is(why, errStopping) && l.stopping && l.sessions[s] {
		l.mu.Unlock()
		return // what was asked is still answered
	}
	delete(l.sessions, s)
	for token := range s.tokens {
		id := observerID{endpoint{session: s}, token}
		if o := l.observers[id]; o != nil {
			l.end(id, o)
		}
	}
	l.mu.Unlock()
	s.end()
	if !s.stream {
		_ = s.conn.Close()
	}
}

// doorway bounds the sessions whose device is not known yet.
type doorway struct {
	mu     sync.Mutex
	total  int
	from   map[netip.Addr]int
	proven map[netip.Addr]int // who has shown that the address is theirs; not in from
}

// place is what one has that came. Its fields are guarded by d.mu.
type place struct {
	d            *doorway
	at           netip.Addr
	proven, left bool
}

// neighbourhood is what an address shares its share with: a network of IPv6 is one household.
func neighbourhood(a netip.Addr) netip.Addr {
	if a = a.Unmap(); a.Is6() {
		p, _ := a.Prefix(64) // of an IPv6 address: no error
		return p.Addr()
	}
	return a
}

// come takes one more at that address, or reports whether there are too many there, or
// too many at all.
func (d *doorway) come(a netip.Addr) (crowdedThere, crowded bool) {
	a = neighbourhood(a)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.from[a] >= maxUnknownAt:
		return true, true
	case d.total >= maxUnknown:
		return false, true
	}
	d.total++
	d.from[a]++
	return false, false
}

// place returns the place of one that came from that address.
func (d *doorway) place(a netip.Addr) *place { return &place{d: d, at: neighbourhood(a)} }

// prove takes it out of the share that anybody can use up by inventing addresses.
func (p *place) prove() {
	d := p.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.proven || p.left || d.proven[p.at] >= maxProvenAt {
		return
	}
	p.proven = true
	if d.proven == nil {
		d.proven = map[netip.Addr]int{}
	}
	less(d.from, p.at)
	d.proven[p.at]++
}

// leave gives it back; it may be called more than once.
func (p *place) leave() {
	d := p.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.left {
		return
	}
	p.left = true
	if d.total--; p.proven {
		less(d.proven, p.at)
	} else {
		less(d.from, p.at)
	}
}

// less counts one less at an address.
func less(m map[netip.Addr]int, a netip.Addr) {
	if m[a]--; m[a] == 0 {
		delete(m, a)
	}
}
