package coap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp/coder"

	"github.com/citywarden/citywarden"
)

// loop is one Run of a Server. A reader for each socket and each session takes
// requests and answers what needs no storing, accept hands messages on in the order they
// came, write answers once they are durable. None waits for a device.
type loop struct {
	*Server
	slots  chan struct{}  // one per request between queue and its answer
	queue  chan *exchange // to accept; never full, because slots bounds it
	out    chan *exchange // to write; likewise
	slow   *time.Ticker   // runs while there are requests that are not answered
	asking sync.WaitGroup // for what devices want to know
	quiet  quiet

	ticking atomic.Bool // slow runs

	door         doorway
	serial       atomic.Uint64  // of the newest session
	sessionsOpen sync.WaitGroup // their readers
	writers      sync.WaitGroup // of streams

	blocksMu  sync.Mutex
	blocks    transfers
	strangers transfers // of who asks for a credential

	mu        sync.Mutex // guards what follows, and the state of each exchange
	exchanges exchanges
	nextID    uint16 // of messages that begin with us
	nextTold  uint32 // number of the next notification
	observers map[observerID]*observer
	long      map[resource][]byte      // the last notification, where it takes more than one block
	told      map[exchangeID]chan bool // notifications and requests that wait for their acknowledgement

	registrations map[string]*registration // clients of LwM2M by what they are registered as
	clients       map[citywarden.DeviceID]*registration
	atPeer        map[endpoint]*registration
	expects       map[expectID]*expecting
	over          bool            // nobody registers any more
	ctx           context.Context // of Run, for who attends to a client

	sessions map[*session]bool
	stopping bool
}

// Run serves until ctx is done, then waits up to a second for answers that are
// under way, closes sockets and sessions and returns nil. It can run once.
func (s *Server) Run(ctx context.Context) error {
	l := &loop{
		Server:    s,
		slots:     make(chan struct{}, maxInFlight),
		queue:     make(chan *exchange, maxInFlight),
		out:       make(chan *exchange, maxInFlight),
		door:      doorway{from: make(map[netip.Addr]int)},
		exchanges: exchanges{byID: make(map[exchangeID]*exchange)},
		observers: make(map[observerID]*observer),
		long:      make(map[resource][]byte),
		told:      make(map[exchangeID]chan bool),
		sessions:  make(map[*session]bool),
		blocks:    newTransfers(maxTransfers, maxBody, transferIdle),
		strangers: newTransfers(maxStrangers, maxAsk, strangerIdle),
		nextID:    uint16(time.Now().UnixNano()),
		nextTold:  uint32(time.Now().UnixMilli()), // higher than before a restart
		slow:      time.NewTicker(piggyback / 6),
	}
	defer l.slow.Stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.ctx, l.registrations, l.clients = ctx, make(map[string]*registration), make(map[citywarden.DeviceID]*registration)
	l.atPeer, l.expects = make(map[endpoint]*registration), make(map[expectID]*expecting)
	defer context.AfterFunc(ctx, l.stopReading)()
	var accepting, writing sync.WaitGroup
	accepting.Go(func() { l.accept(ctx) })
	over := make(chan struct{})
	writing.Go(func() { l.write(over) })

	err := l.readAll(ctx, cancel)
	l.sessionsOpen.Wait()
	close(l.queue)
	accepting.Wait()
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	cancel() // when reading failed, nobody else does
	l.asking.Wait()
	l.drain()
	close(over)
	writing.Wait()
	for x := range l.sessions {
		if x.end(); !x.stream {
			_ = x.conn.Close()
		}
	}
	l.writers.Wait()
	for _, c := range l.closers() {
		if cerr := c.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) && err == nil {
			err = fmt.Errorf("coap: close: %w", cerr)
		}
	}
	return err
}

// readAll reads from every socket until ctx is done, or one fails and has cancel called.
func (l *loop) readAll(ctx context.Context, cancel context.CancelFunc) error {
	var readers sync.WaitGroup
	failed := make(chan error, 2+len(l.opts.Streams))
	read := func(f func() error) {
		readers.Go(func() {
			if err := f(); err != nil {
				failed <- err
				cancel()
			}
		})
	}
	if l.opts.Conn != nil {
		read(func() error { return l.read(ctx) })
	}
	if l.opts.DTLS != nil {
		read(func() error { return l.serveDTLS(ctx, *l.opts.DTLS) })
	}
	for _, from := range l.opts.Streams {
		read(func() error { return l.acceptStreams(ctx, from) })
	}
	readers.Wait()
	close(failed)
	return <-failed
}

// stopReading has every reader end.
func (l *loop) stopReading() {
	if l.opts.Conn != nil {
		_ = l.opts.Conn.SetReadDeadline(time.Now())
	}
	if l.opts.DTLS != nil {
		_ = l.opts.DTLS.SetReadDeadline(time.Now())
	}
	for _, from := range l.opts.Streams {
		_ = from.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopping = true
	for s := range l.sessions {
		s.stop()
	}
}

// drain waits until every request is answered, at most drainTimeout.
func (l *loop) drain() {
	late := time.NewTimer(drainTimeout)
	defer late.Stop()
	for range cap(l.slots) {
		select {
		case l.slots <- struct{}{}:
		case <-late.C:
			return
		}
	}
}

func (l *loop) read(ctx context.Context) error {
	buf := make([]byte, 64<<10)
	for {
		n, peer, err := l.opts.Conn.ReadFromUDPAddrPort(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("coap: read: %w", err)
		case err != nil: // an ICMP error of some peer, or no memory for the moment
			l.log.Debug("read datagram", "err", err)
			continue
		}
		l.datagram(ctx, buf[:n], endpoint{addr: peer})
	}
}

// datagram deals with one datagram; it keeps nothing of buf.
func (l *loop) datagram(ctx context.Context, buf []byte, from endpoint) {
	m := message.Message{Options: make(message.Options, 0, 32)}
	if _, err := coder.DefaultCoder.Decode(buf, &m); err != nil {
		l.malformed.Inc()
		if len(buf) >= 4 && buf[0]>>4 == 4 { // version 1, confirmable: rejected with a Reset, RFC 7252 §4.2
			l.send(from, message.Message{Type: message.Reset, MessageID: int32(buf[2])<<8 | int32(buf[3])})
		}
		return
	}
	switch {
	case m.Code > 31 && l.answered(from, &m):
		return
	case m.Type == message.Acknowledgement || m.Type == message.Reset:
		l.acknowledged(exchangeID{from, uint16(m.MessageID)}, m.Type == message.Acknowledgement)
		return
	case m.Code == codes.Empty || m.Code > 31: // a ping, or a response to nothing
		if m.Options.HasOption(message.Observe) {
			l.unasked.Inc()
			l.warn("notification of what is not observed not taken", "remote", from, "do", "if it goes on, have the client of LwM2M register again")
		}
		if m.Type == message.Confirmable {
			l.send(from, message.Message{Type: message.Reset, MessageID: m.MessageID})
		}
		return
	}
	if x := newExchange(from, &m); l.first(x) {
		l.begin(ctx, x, &m)
	}
}

// begin answers a request, or has it answered.
func (l *loop) begin(ctx context.Context, x *exchange, m *message.Message) {
	body, answer := l.request(x, m)
	if answer.code != codes.Empty {
		l.answer(x, answer)
		return
	}
	if !l.slot() {
		l.answer(x, unavailable)
		return
	}
	if x.ask != nil {
		x.ask.body = body
		l.asking.Go(func() { l.look(ctx, x) })
		return
	}
	x.up.Payload = body
	l.queue <- x
}

// slot takes one of slots, and reports whether there was one.
func (l *loop) slot() bool {
	select {
	case l.slots <- struct{}{}:
		l.tick()
		return true
	default:
		return false
	}
}

// tick has slow run.
func (l *loop) tick() {
	if l.ticking.CompareAndSwap(false, true) {
		l.slow.Reset(piggyback / 6)
	}
}

// first remembers x. If it is a repetition, first answers it as the one before
// and reports false: a message is stored once, however often it is sent.
func (l *loop) first(x *exchange) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.exchanges.add(x)
	if before == nil {
		return true
	}
	if !x.confirmable {
		return false
	}
	if before.separate {
		l.send(x.id.from, message.Message{Type: message.Acknowledgement, MessageID: int32(x.id.message)})
	}
	if before.reply != nil {
		l.transmit(x.id.from, before.reply, true)
	}
	return false
}

// accept hands requests on until queue is closed.
func (l *loop) accept(ctx context.Context) {
	for x := range l.queue {
		l.opts.Accept.Accept(ctx, x.up, func(err error) {
			l.mu.Lock()
			again := x.settled
			x.settled, x.err = true, err
			l.mu.Unlock()
			if !again {
				l.out <- x
			}
		})
	}
}

// write answers requests when they are settled, and acknowledges those that
// take longer than a device waits before it repeats them.
func (l *loop) write(over <-chan struct{}) {
	for {
		select {
		case x := <-l.out:
			if x.notified {
				l.stored(x)
			} else {
				l.answer(x, l.outcome(x))
			}
			if x.observer != nil {
				close(x.observer.ready)
			}
			if x.entry != nil && x.entry.register {
				close(x.reg.ready)
			}
			x.up = citywarden.Uplink{} // x is remembered for minutes, its payload need not be
			<-l.slots
		case <-l.slow.C:
			l.acknowledgeSlow()
			l.slow.Stop()
			if l.ticking.Store(false); len(l.slots) > 0 { // whoever takes one from here on has it run
				l.tick()
			}
		case <-over:
			return
		}
	}
}

// outcome turns what became of a message into an answer.
func (l *loop) outcome(x *exchange) answer {
	l.mu.Lock()
	err, body := x.err, x.body
	x.body = nil // x is remembered for minutes
	l.mu.Unlock()
	switch citywarden.CodeOf(err) {
	case "":
		if x.ask != nil && x.ask.post {
			return answer{code: codes.Changed}
		}
		if x.ask != nil && x.ask.rpc && body == nil && x.ask.block.number == 0 {
			if !x.ask.observe {
				return answer{code: codes.Deleted}
			}
			return answer{code: codes.Valid, observed: x.observer != nil}
		}
		if x.ask != nil {
			part, ok := x.ask.part(body)
			if !ok {
				return answer{code: codes.BadOption, detail: "the answer has fewer blocks"}
			}
			return answer{code: codes.Content, body: part, observed: x.observer != nil}
		}
		if x.entry != nil {
			return l.entered(x)
		}
		if x.reg != nil {
			l.awake(x.reg, x.id.from)
		}
		if err := l.opts.Check.Check(x.up); err != nil {
			if citywarden.CodeOf(err) == citywarden.CodeTooLarge {
				return answer{code: codes.RequestEntityTooLarge, detail: err.Error(), size: uint32(l.opts.limitsOf(x.up.Device).Payload)}
			}
			return answer{code: codes.BadRequest, detail: err.Error()}
		}
		return answer{code: codes.Changed}
	case citywarden.CodeLimited:
		l.warn("message refused; the device sends too much", "device", x.up.Device, "topic", x.up.Topic, "err", err)
		return tooMany(err)
	case citywarden.CodeInvalid:
		return answer{code: codes.BadRequest, detail: err.Error()}
	case citywarden.CodeNotFound:
		if x.ask != nil { // the command was answered, or has expired
			return answer{code: codes.NotFound, detail: err.Error()}
		}
		fallthrough
	case citywarden.CodeDenied:
		l.warn("uplink refused", "device", x.up.Device, "topic", x.up.Topic, "err", err)
		return answer{code: codes.Forbidden, detail: err.Error()}
	}
	if errors.Is(err, context.Canceled) {
		return unavailable // we are stopping
	}
	if n, ok := l.quiet.allow("store"); ok {
		l.log.Error("uplink not stored; the device was told to send it again", "device", x.up.Device, "topic", x.up.Topic, "err", err, "suppressed", n)
	}
	return unavailable
}

func (l *loop) warn(msg string, args ...any) {
	if n, ok := l.quiet.allow(msg); ok {
		l.log.With("suppressed", n).Warn(msg, args...)
	}
}

// answer sends a to the peer of x and keeps it for repetitions.
func (l *loop) answer(x *exchange, a answer) {
	l.requests.WithLabelValues(codeLabel(a.code)).Inc()
	l.mu.Lock()
	defer l.mu.Unlock()
	m := message.Message{Code: a.code, Token: x.token, Type: message.NonConfirmable, Payload: []byte(clip(a.detail))}
	if a.body != nil {
		m.Payload = a.body
	}
	switch {
	case x.silent(a.code) && (!x.confirmable || x.separate):
		x.id.from.unanswered()
		return
	case x.silent(a.code): // RFC 7967 §2.1
		m = message.Message{Type: message.Acknowledgement, MessageID: int32(x.id.message)}
	case x.id.from.stream(): // has neither
	case x.confirmable && !x.separate:
		m.Type, m.MessageID = message.Acknowledgement, int32(x.id.message)
	default:
		l.nextID++
		m.MessageID = int32(l.nextID)
	}
	if m.Code != codes.Empty {
		m.Options = a.options(x)
	}
	reply, err := x.id.from.encode(m)
	if err != nil {
		l.log.Error("encode answer", "code", a.code, "err", err)
		x.id.from.unanswered()
		return
	}
	x.reply = reply
	l.transmit(x.id.from, reply, true)
}

// acknowledgeSlow acknowledges confirmable requests that are older than
// piggyback; their answers follow as messages of their own (RFC 7252 §5.2.2).
func (l *loop) acknowledgeSlow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for x := range l.exchanges.open() {
		if time.Since(x.at) < piggyback {
			return
		}
		if x.confirmable && !x.separate && !x.notified && x.reply == nil {
			x.separate = true
			l.send(x.id.from, message.Message{Type: message.Acknowledgement, MessageID: int32(x.id.message)})
		}
	}
}

// send sends a message that need not be remembered.
func (l *loop) send(to endpoint, m message.Message) {
	b, err := to.encode(m)
	if err != nil {
		l.log.Error("encode message", "type", m.Type, "err", err)
		return
	}
	l.transmit(to, b, false)
}

// transmit sends an encoded message, an answer or not.
func (l *loop) transmit(to endpoint, b []byte, answer bool) {
	var err error
	if to.session != nil {
		err = to.session.write(b, answer)
	} else {
		_, err = l.opts.Conn.WriteToUDPAddrPort(b, to.addr)
	}
	switch {
	case errors.Is(err, errBehind):
		l.warn("connection ended", "remote", to, "err", err)
	case err != nil:
		l.log.Debug("write message", "remote", to, "err", err) // the device asks again
	}
}

func (e endpoint) encode(m message.Message) ([]byte, error) {
	if e.stream() {
		return encodeStream(m)
	}
	return encode(m)
}

func encode(m message.Message) ([]byte, error) {
	size, err := coder.DefaultCoder.Size(m)
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	n, err := coder.DefaultCoder.Encode(m, b)
	return b[:max(n, 0)], err
}

func codeLabel(c codes.Code) string { return fmt.Sprintf("%d.%02d", c>>5, c&31) }
