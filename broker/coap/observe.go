package coap

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/citywarden/citywarden"
)

// The limits of observers, and how a notification is sent again (RFC 7252 §4.8).
const (
	maxObservers = 32768 // devices that are told of changes or commands; more get the answer only
	maxTold      = 64    // messages that wait for one of them

	ackTimeout = 2 * time.Second
	maxRepeats = 4
)

// observerID tells observers apart (RFC 7641 §4.1).
type observerID struct {
	from  endpoint
	token string
}

// resource is what somebody observes.
type resource struct {
	from endpoint
	rpc  bool
}

// observer is a device that is told of what comes (RFC 7641). Each notification is
// confirmable and waits for its acknowledgement; a device that gives none, or
// rejects one, is told nothing any more.
type observer struct {
	x      *exchange // its request
	queue  chan citywarden.Downlink
	ready  chan struct{} // closed once its request is answered
	stop   chan struct{} // closed by unobserve
	number uint32        // of the answer to it

	mu   sync.Mutex
	deaf bool // nothing is put into queue any more
}

// take queues m and reports whether it did.
func (o *observer) take(m citywarden.Downlink) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.deaf {
		return false
	}
	select {
	case o.queue <- m:
		return true
	default:
		return false
	}
}

// observe returns who tells the device of x, once x is answered; nil when there
// are too many, or its session has ended.
func (l *loop) observe(ctx context.Context, x *exchange) *observer {
	kind := citywarden.DownlinkAttributes
	if x.ask.rpc {
		kind = citywarden.DownlinkCommand
	}
	o := &observer{x: x,
		queue: make(chan citywarden.Downlink, maxTold), ready: make(chan struct{}), stop: make(chan struct{})}
	id := observerID{x.id.from, string(x.token)}
	l.unobserve(id)
	l.mu.Lock()
	s := x.id.from.session
	if len(l.observers) >= maxObservers || ctx.Err() != nil || s != nil && !l.sessions[s] { // it departed meanwhile
		l.mu.Unlock()
		return nil
	}
	l.observers[id] = o
	if s != nil {
		s.tokens[id.token] = true
	}
	o.number = l.number()
	l.mu.Unlock()
	l.asking.Go(func() {
		select {
		case <-o.ready:
		case <-ctx.Done():
		}
		cancel := l.opts.Down.Listen(x.ask.device, kind, func(m citywarden.Downlink) bool {
			switch {
			case m.Device != x.ask.device:
				return false // a gateway speaks MQTT
			case len(m.Body) > maxBody:
				l.warn("too long for a notification over CoAP", "device", m.Device, "bytes", len(m.Body), "most", maxBody)
				return false
			}
			return o.take(m)
		})
		l.tellAll(ctx, o)
		l.forget(id, o)
		cancel()
		o.mu.Lock()
		o.deaf = true
		o.mu.Unlock()
		for {
			select {
			case m := <-o.queue:
				settle(m, false)
			default:
				return
			}
		}
	})
	return o
}

// unobserve ends what the device asked for with that token before.
func (l *loop) unobserve(id observerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o := l.observers[id]; o != nil {
		l.end(id, o)
	}
}

// forget is unobserve for an observer that ended by itself.
func (l *loop) forget(id observerID, o *observer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.observers[id] == o {
		l.end(id, o)
	}
}

// number is that of the next notification. They are counted for all devices together, so that one
// which registers anew does not take what follows for older (RFC 7641 §4.4). It needs mu.
func (l *loop) number() uint32 {
	l.nextTold++
	return l.nextTold
}

// end needs mu.
func (l *loop) end(id observerID, o *observer) {
	delete(l.observers, id)
	if s := id.from.session; s != nil {
		delete(s.tokens, id.token)
	}
	delete(l.long, resource{o.x.id.from, o.x.ask.rpc})
	close(o.stop)
}

// tellAll notifies o until it ends.
func (l *loop) tellAll(ctx context.Context, o *observer) {
	for {
		select {
		case m := <-o.queue:
			taken := l.notify(ctx, o, m)
			settle(m, taken)
			if !taken {
				return
			}
		case <-o.stop:
			return
		case <-ctx.Done():
			return
		}
	}
}

func settle(m citywarden.Downlink, delivered bool) {
	if m.Done == nil {
		return
	}
	var err error
	if !delivered {
		err = errNotTaken
	}
	m.Done(err)
}

// errNotTaken is why a message did not come to the device.
var errNotTaken = errors.New("the device did not acknowledge it")

// notify sends one notification until it is acknowledged, and reports whether it was.
// Of a body that takes more than one block it is the first; the device gets the rest
// (RFC 7959 §2.6).
func (l *loop) notify(ctx context.Context, o *observer, m citywarden.Downlink) bool {
	if id, err := l.stillIs(o.x); err != nil || id != m.Device {
		return false // its credential was revoked
	}
	body := m.Body
	if m.Kind == citywarden.DownlinkCommand {
		body = m.WithID()
	}
	begin := ask{block: block{szx: o.x.ask.block.szx}}
	payload, _ := begin.part(body)
	acked := make(chan bool, 1)
	l.mu.Lock()
	if r := (resource{o.x.id.from, o.x.ask.rpc}); begin.block.more {
		l.long[r] = body
	} else {
		delete(l.long, r)
	}
	l.nextID++
	id := exchangeID{o.x.id.from, l.nextID}
	l.told[id] = acked
	number := l.number()
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.told, id)
	}()
	msg := message.Message{
		Type: message.Confirmable, Code: codes.Content, MessageID: int32(id.message), Token: o.x.token, Payload: payload,
		Options: message.Options{
			{ID: message.Observe, Value: uintValue(number & 0xffffff)},
			{ID: message.ContentFormat, Value: []byte{byte(message.AppJSON)}},
		},
	}
	if begin.block.more {
		msg.Options = append(msg.Options, message.Option{ID: message.Block2, Value: begin.block.value()})
	}
	wait, repeats := ackTimeout, maxRepeats
	if id.from.stream() { // a Ping after it is answered when the device has read both (RFC 8323 §5.4)
		wait, repeats = pongWithin, 0
	}
	for range repeats + 1 {
		l.put(id, msg)
		t := time.NewTimer(wait)
		select {
		case ok := <-acked:
			t.Stop()
			return ok
		case <-t.C:
			wait *= 2
		case <-o.stop:
			t.Stop()
			return false
		case <-ctx.Done():
			t.Stop()
			return false
		}
	}
	if id.from.stream() {
		id.from.session.end()
	}
	l.log.Debug("device takes no notifications", "device", m.Device, "remote", id.from)
	return false
}

// put sends a notification, over a stream with the Ping that tells when it was read.
func (l *loop) put(id exchangeID, msg message.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.send(id.from, msg)
	if s := id.from.session; id.from.stream() {
		l.send(id.from, message.Message{Code: codes.Ping})
		s.pings = append(s.pings, id)
	}
}

// acknowledged notes that a device took, or rejected, a notification.
func (l *loop) acknowledged(id exchangeID, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.told[id]; c != nil {
		select {
		case c <- ok:
		default: // said twice
		}
	}
}

// rest returns the notification of which x asks for a block but the first, nil when
// it asks for something else.
func (l *loop) rest(x *exchange) []byte {
	if x.ask.block.number == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.long[resource{x.id.from, x.ask.rpc}]
}

// inOneBlock takes a certificate out of the answer to who asked for a credential when it
// is too long for one block: the device has it, and nobody keeps the answer for it.
func inOneBlock(answer []byte) []byte {
	var m map[string]any
	if len(answer) <= (block{szx: maxSZX}).size() || json.Unmarshal(answer, &m) != nil || m["credentialsType"] != "X509_CERTIFICATE" {
		return answer
	}
	delete(m, "credentialsValue")
	b, _ := json.Marshal(m) // from JSON: no error
	return b
}

// look finds out what a device wants to know, or takes its answer to a command.
// slots bounds how many do.
func (l *loop) look(ctx context.Context, x *exchange) {
	var body []byte
	var err error
	var o *observer
	switch a := x.ask; {
	case a.announce:
		err = l.opts.Announce(ctx, a.device, a.body)
	case a.post:
		err = l.opts.Down.Answer(ctx, a.device, a.command, a.body)
	case a.provision:
		body = inOneBlock(l.opts.Provision(ctx, x.id.from.asker(), a.body))
	case a.firmware:
		if err = citywarden.Errorf(citywarden.CodeNotFound, "there is no firmware"); l.opts.Firmware != nil {
			body, err = l.opts.Firmware.Image(ctx, a.device, a.title, a.version)
		}
		if citywarden.CodeOf(err) == citywarden.CodeNotFound && l.opts.Firmware != nil && (a.title != "" || a.version != "") {
			if _, none := l.opts.Firmware.Image(ctx, a.device, "", ""); none == nil { // ThingsBoard's answer to who asks for another
				err = citywarden.Errorf(citywarden.CodeInvalid, "%w", err)
			}
		}
		if err == nil {
			body, err = citywarden.Chunk(body, a.size, a.chunk)
		}
	case a.call:
		body, err = citywarden.AnswerCall(a.body, time.Now(), l.opts.limitsOf(a.device))
	case a.rpc:
		body = l.rest(x) // commands come as notifications
	default:
		if body = l.rest(x); body != nil {
			break
		}
		var attrs citywarden.DeviceAttributes
		attrs, err = l.opts.Down.Attributes(ctx, a.device, a.client, a.shared)
		switch none := len(attrs.Client)+len(attrs.Shared) == 0; {
		case err != nil:
		case a.observe: // as it will be told of changes
			if attrs.Shared == nil {
				attrs.Shared = map[string]any{}
			}
			body, err = citywarden.PlainJSON(attrs.Shared)
		case none:
			err = citywarden.Errorf(citywarden.CodeNotFound, "it has none of these attributes")
		default:
			body, err = citywarden.PlainJSON(attrs)
		}
	}
	if x.ask.observe && err == nil {
		o = l.observe(ctx, x)
	}
	l.mu.Lock()
	x.settled, x.err, x.body, x.observer = true, err, body, o
	l.mu.Unlock()
	l.out <- x
}
