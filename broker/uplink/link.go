package uplink

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"golang.org/x/time/rate"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker"
)

// link is the connection to one broker, over all of its sessions.
type link struct {
	broker  Broker
	accept  Acceptor
	barred  func(citywarden.DeviceID) bool
	log     *slog.Logger
	metrics linkMetrics
	queue   chan *message // in the order in which they came; full: the connection is not read

	nodesMu sync.Mutex               // held while a message is taken: a connection that was lost may still have one
	nodes   map[nodeKey]*broker.Node // of Sparkplug B
	room    *broker.Room             // of all of nodes
	full    rate.Sometimes           // paces what is logged when there is none

	mu   sync.Mutex
	open map[uint16]*message // by packet identifier: not acknowledged, so the broker sends them again

	statusMu sync.Mutex
	status   citywarden.Link
}

// set changes the status.
func (l *link) set(f func(*citywarden.Link)) {
	l.statusMu.Lock()
	defer l.statusMu.Unlock()
	f(&l.status)
}

// connected notes that the connection is there, or why it is not any more.
func (l *link) connected(err error) {
	up := 0.0
	if err == nil {
		up = 1
	}
	l.metrics.connected.Set(up)
	l.set(func(s *citywarden.Link) {
		if s.Connected != (err == nil) {
			s.Connected, s.Since = err == nil, time.Now().UTC()
		}
		if err != nil {
			s.Error = err.Error()
		}
	})
}

// wait notes that n messages more, or less, wait for their acknowledgement.
func (l *link) wait(n int) {
	l.metrics.waiting.Add(float64(n))
	l.set(func(s *citywarden.Link) { s.Waiting += n })
}

// message is one that came and is not acknowledged yet.
type message struct {
	paho.Message
	client paho.Client // that it came from
	sum    uint64      // of topic and payload
	up     citywarden.Uplink
	ups    []citywarden.Uplink // what goes into the log
	done   chan error
	before *message      // the same as it came before; nil for none
	empty  bool          // it says nothing, and only is acknowledged in its turn
	good   bool          // to be acknowledged; only settleAll looks at it
	mark   chan struct{} // no message: closed when those before it are settled
}

var seed = maphash.MakeSeed()

// run connects again and again until ctx is done.
func (l *link) run(ctx context.Context) {
	settling, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { l.settleAll(ctx, settling) })
	for wait := tryFirst; ctx.Err() == nil; {
		begin := time.Now()
		err := l.session(ctx)
		if ctx.Err() != nil {
			l.metrics.connected.Set(0)
			break
		}
		l.connected(err)
		if time.Since(begin) > tryMost {
			wait = tryFirst
		}
		l.log.Warn("broker not connected; its messages wait there", "err", err, "again_in", wait)
		pause(ctx, wait)
		wait = min(2*wait, tryMost)
	}
	stop()
	wg.Wait()
}

// pause returns after d, or when ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// session is one connection from its beginning to its end.
func (l *link) session(ctx context.Context) error {
	b := &l.broker
	lost := make(chan error, 1)
	o := paho.NewClientOptions().AddBroker(b.URL).SetClientID(b.ClientID).SetUsername(b.User).SetPassword(b.Password).
		SetProtocolVersion(4).SetCleanSession(false).SetAutoAckDisabled(true).SetOrderMatters(true).
		SetAutoReconnect(false).SetConnectTimeout(dialTimeout).SetKeepAlive(keepAlive).
		SetConnectionLostHandler(func(_ paho.Client, err error) { lost <- err }).
		SetDefaultPublishHandler(func(c paho.Client, m paho.Message) { l.receive(ctx, c, m) }) // also what comes before the SUBACK
	if b.TLS != nil {
		o.SetTLSConfig(b.TLS)
	}
	since, host := time.Now(), b.hosts()
	if host {
		l.unsure()
		o.SetBinaryWill(broker.SparkplugHost, broker.HostState(false, since), 1, true)
	}
	c := paho.NewClient(o)
	connect := c.Connect().(*paho.ConnectToken)
	if err := await(ctx, connect); err != nil {
		c.Disconnect(0)
		return fmt.Errorf("connect: %w", err)
	}
	if !connect.SessionPresent() {
		l.mu.Lock()
		clear(l.open) // the broker does not know them any more
		l.mu.Unlock()
	}
	defer l.leave(ctx, c)
	filters := map[string]byte{}
	for i := range b.Topics {
		filters[b.Topics[i].filter(b.Group)] = b.Topics[i].QoS
	}
	subscribe := c.SubscribeMultiple(filters, nil).(*paho.SubscribeToken)
	if err := await(ctx, subscribe); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	for filter, qos := range subscribe.Result() {
		const refused = 0x80 // [MQTT-3.9.3-2]
		if qos == refused {
			return fmt.Errorf("subscribe to %s: the broker refuses it; let user %q read there", filter, b.User)
		}
	}
	if host {
		if err := l.sayHost(ctx, c, true, since); err != nil {
			return fmt.Errorf("publish to %s: %w", broker.SparkplugHost, err)
		}
	}
	l.connected(nil)
	l.log.Info("broker connected", "session_present", connect.SessionPresent())
	select {
	case err := <-lost:
		return err
	case <-ctx.Done():
		return nil
	}
}

// await returns when t has ended, with its error.
func await(ctx context.Context, t paho.Token) error {
	late := time.NewTimer(dialTimeout)
	defer late.Stop()
	select {
	case <-t.Done():
		return t.Error()
	case <-late.C:
		return fmt.Errorf("no answer within %s", dialTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leave ends a connection. At the end of the platform, what is durable by then is
// acknowledged before.
func (l *link) leave(ctx context.Context, c paho.Client) {
	const quiesce = 100 // milliseconds, for paho to write the last acknowledgements
	if ctx.Err() == nil {
		c.Disconnect(0)
		return
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainLimit)
	defer cancel()
	mark := &message{mark: make(chan struct{})}
	select {
	case l.queue <- mark:
		select {
		case <-mark.mark:
		case <-end.Done():
		}
	case <-end.Done():
	}
	if l.broker.hosts() {
		_ = l.sayHost(end, c, false, time.Now()) // else the broker says so: it is our will
	}
	c.Disconnect(quiesce)
}

// receive takes a message; paho calls it for one after the other.
func (l *link) receive(ctx context.Context, c paho.Client, m paho.Message) {
	if ctx.Err() != nil {
		return // it is not acknowledged, so it comes again
	}
	l.set(func(s *citywarden.Link) { s.Last = time.Now().UTC() })
	if m.Retained() {
		// Nobody knows how old it is, and without a time of its own it would count as measured now.
		l.count("retained")
		m.Ack()
		return
	}
	x := &message{Message: m, client: c, done: make(chan error, 1)}
	var kind string
	x.up, kind = l.broker.uplink(m.Topic(), m.Payload(), time.Now().UTC())
	x.ups = []citywarden.Uplink{x.up}
	if l.barred(x.up.Device) {
		l.count("barred")
		m.Ack()
		return
	}
	if m.Qos() > 0 {
		l.note(x)
	}
	if kind == asSparkplug && x.before == nil {
		x.empty = !l.sparkplug(c, x)
	}
	l.wait(1)
	select {
	case l.queue <- x:
	case <-ctx.Done():
		l.wait(-1)
		return
	}
	if x.before == nil && !x.empty {
		l.store(ctx, x)
	}
}

// store puts x into the log; how that went comes to x.done.
func (l *link) store(ctx context.Context, x *message) {
	broker.AcceptAll(ctx, l.accept, x.ups, func(err error) { x.done <- err })
}

// note remembers x until it is acknowledged, and finds what it repeats: a message
// that was not acknowledged on an earlier connection is sent again with the same
// packet identifier [MQTT-4.4.0-1], which no other message has until then.
func (l *link) note(x *message) {
	var h maphash.Hash
	h.SetSeed(seed)
	h.WriteString(x.Topic())
	h.WriteByte(0)
	h.Write(x.Payload())
	x.sum = h.Sum64()
	l.mu.Lock()
	defer l.mu.Unlock()
	if o := l.open[x.MessageID()]; o != nil && x.Duplicate() && o.sum == x.sum {
		if x.before = o; o.before != nil {
			x.before = o.before
		}
	}
	l.open[x.MessageID()] = x
}

// settleAll acknowledges messages in their order, each once it is durable, until
// over is done.
func (l *link) settleAll(ctx, over context.Context) {
	unkept := rate.Sometimes{Interval: 10 * time.Second}
	for {
		select {
		case x := <-l.queue:
			if x.mark != nil {
				close(x.mark)
				continue
			}
			if x.good = l.settle(ctx, over, x, &unkept); x.good {
				l.ack(x)
			}
			l.wait(-1)
		case <-over.Done():
			return
		}
	}
}

// settle returns when x is durable, or can never be, and true; false when the
// platform ends before. What could not be stored is tried again, and holds up what
// came after it: the broker keeps that.
func (l *link) settle(ctx, over context.Context, x *message, unkept *rate.Sometimes) bool {
	if x.before != nil { // it came first, so it is settled
		if x.before.good {
			l.count("repeated")
		}
		return x.before.good
	}
	if x.empty {
		l.count("ignored")
		return true
	}
	for wait := time.Duration(0); ; wait = min(max(2*wait, tryFirst), tryMost) { // at once first: the one before may have waited
		var err error
		select {
		case err = <-x.done:
		case <-over.Done():
			return false
		}
		switch citywarden.CodeOf(err) {
		case "":
			if _, _, cut := citywarden.Oversized(x.up.Topic); cut {
				return true
			}
			if x.up.Device.Check() != nil {
				l.count("unmatched")
				unkept.Do(func() {
					l.log.Warn("message that names no device; it is a dead letter", "topic", clip(x.Topic()), "device", x.up.Device)
				})
				return true
			}
			l.count("stored")
			return true
		case citywarden.CodeInvalid:
			l.count("refused")
			l.log.Error("message can never be stored; its beginning is a dead letter", "topic", clip(x.Topic()), "device", x.up.Device, "bytes", len(x.Payload()), "err", err)
			if _, _, cut := citywarden.Oversized(x.up.Topic); cut {
				return true // not even that can be stored
			}
			x.up = citywarden.Oversize(x.up)
			x.ups = []citywarden.Uplink{x.up}
			l.store(ctx, x)
			continue
		}
		if ctx.Err() != nil {
			return false
		}
		l.count("retried")
		unkept.Do(func() {
			l.log.Error("message not stored and not acknowledged to the broker; it is tried again", "device", x.up.Device, "err", err)
		})
		pause(ctx, wait)
		l.store(ctx, x)
	}
}

// ack acknowledges x. When its connection is gone it stays remembered: it
// comes again.
func (l *link) ack(x *message) {
	x.Ack()
	if x.Qos() == 0 || !x.client.IsConnectionOpen() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[x.MessageID()] == x {
		delete(l.open, x.MessageID())
	}
}

func (l *link) count(result string) {
	l.metrics.messages.WithLabelValues(result).Inc()
	l.set(func(s *citywarden.Link) { s.Messages[result]++ })
}

// clip shortens what somebody else wrote, for the log.
func clip(s string) string {
	if len(s) > 128 {
		return s[:128] + "…"
	}
	return s
}
