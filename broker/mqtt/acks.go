package mqtt

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker"
)

// pending is a message that has no answer yet.
type pending struct {
	id      uint16
	qos     byte
	settled bool
	bytes   int
	topic   string
	up      *citywarden.Uplink // to check once it is durable; nil when the device can't be told
	err     error
	read    time.Time // from the socket
}

// accept hands a message on and returns when it is queued, not when it is
// durable. Only the goroutine that reads the connection calls it.
func (c *conn) accept(pk *packets.Packet, received citywarden.Uplink) {
	n, ok := c.push(pk, c.toCheck(pk, received))
	if !ok {
		return
	}
	received.Untold = pk.FixedHeader.Qos == 0
	c.listener.broker.opts.Accept.Accept(c.ctx, received, func(err error) { c.settle(n, err) })
}

// toCheck returns what to check of up once it is durable, nil when the device can't be told.
func (c *conn) toCheck(pk *packets.Packet, up citywarden.Uplink) *citywarden.Uplink {
	if pk.FixedHeader.Qos > 0 && c.client.Properties.ProtocolVersion == 5 {
		kept := up // else each message would be copied
		return &kept
	}
	return nil
}

// acceptAll is accept for a message that is in the log as several: it is answered once all
// are durable, and with what can't be used of own.
func (c *conn) acceptAll(pk *packets.Packet, own citywarden.Uplink, all []citywarden.Uplink) {
	n, ok := c.push(pk, c.toCheck(pk, own))
	if !ok {
		return
	}
	for i := range all {
		all[i].Untold = pk.FixedHeader.Qos == 0
	}
	broker.AcceptAll(c.ctx, c.listener.broker.opts.Accept, all, func(err error) { c.settle(n, err) })
}

// refuse answers a message with no. The answer waits for its turn, because
// acknowledgements keep the order of the messages [MQTT-4.6.0-2].
func (c *conn) refuse(pk *packets.Packet, err error) {
	if n, ok := c.push(pk, nil); ok {
		c.settle(n, err)
	}
}

// push queues a message, and what to check of it once it is durable (nil for
// nothing), and returns its number. When maxInFlight messages or
// maxInFlightBytes are waiting it blocks, so that the device's socket is not
// read; an MQTT 5 device was told the number and is disconnected [MQTT-3.3.4-7].
func (c *conn) push(pk *packets.Packet, check *citywarden.Uplink) (n uint64, ok bool) {
	qos, read := pk.FixedHeader.Qos, time.Now()
	for {
		c.mu.Lock()
		if qos > 0 && c.unacked >= maxInFlight && c.client.Properties.ProtocolVersion == 5 {
			c.mu.Unlock()
			c.warn("device disconnected", "err", "more messages in flight than the receive maximum of the CONNACK allows")
			c.disconnect(packets.ErrReceiveMaximum, "")
			return 0, false
		}
		if len(c.queue) == 0 || len(c.queue) < maxInFlight && c.bytes+len(pk.Payload) <= maxInFlightBytes {
			break
		}
		c.mu.Unlock()
		select {
		case <-c.room:
		case <-c.gone:
			return 0, false
		}
	}
	defer c.mu.Unlock()
	c.queue = append(c.queue, pending{id: pk.PacketID, qos: qos, bytes: len(pk.Payload), topic: clip(pk.TopicName), up: check, read: read})
	c.bytes += len(pk.Payload)
	if qos > 0 {
		c.unacked++
	}
	return c.base + uint64(len(c.queue)) - 1, true
}

// settle records the outcome of message n. The committer of the log calls it:
// it never blocks.
func (c *conn) settle(n uint64, err error) {
	c.mu.Lock()
	i := n - c.base
	if n < c.base || i >= uint64(len(c.queue)) || c.queue[i].settled {
		c.mu.Unlock()
		return // the connection is gone, or done was called twice
	}
	c.queue[i].settled, c.queue[i].err = true, err
	answer := i == 0 && !c.answering
	if answer {
		c.answering = true
	}
	c.mu.Unlock()
	if answer {
		c.listener.broker.crew.add(c)
	}
}

// answerReady writes the answers of the messages at the head of the queue that have one, all in one write, as long as there are
// any and it need not wait for the device; else another goroutine goes on. s is used meanwhile. One goroutine at a time
// answers, the one that settle called for.
func (c *conn) answerReady(s *answers) {
	for {
		s.batch = c.take(s.batch[:0])
		n, rest := c.answerAtOnce(s)
		if n < len(s.batch) || len(rest) > 0 {
			w, rest := &answers{batch: slices.Clone(s.batch)}, slices.Clone(rest)
			c.listener.broker.crew.wg.Go(func() { c.answerSlowly(w, n, rest) })
			clear(s.batch)
			return
		}
		if !c.answered(s.batch) {
			return
		}
	}
}

// answers are messages that are answered, and what acknowledges those that are durable.
type answers struct {
	batch []pending
	buf   []byte
}

// answerAtOnce acknowledges the first n messages of s, as many as are durable and of use. When the socket has room for a part of that
// only, rest is what is left, and the caller has writing: nothing may come between. When it has none, n is 0, and on what is not
// a socket alone, as writing may wait for the device there.
func (c *conn) answerAtOnce(s *answers) (n int, rest []byte) {
	s.buf = s.buf[:0]
	if c.atOnce == nil {
		return 0, nil
	}
	for ; n < len(s.batch) && s.batch[n].err == nil && c.check(&s.batch[n]) == nil; n++ {
		s.buf = c.appendAck(s.buf, &s.batch[n])
	}
	switch written := c.tryWrite(s.buf); {
	case written == len(s.buf):
		return n, nil
	case written > 0:
		return n, s.buf[written:]
	}
	return 0, nil
}

// answerSlowly writes rest, then the answers of w.batch from n on, and those that come meanwhile, until there are none or the
// connection is gone. With a rest the caller had writing.
func (c *conn) answerSlowly(w *answers, n int, rest []byte) {
	if len(rest) > 0 && !c.writeRest(rest) {
		return
	}
	for {
		for i := n; i < len(w.batch); i++ {
			p := &w.batch[i]
			answer := c.answerError
			if p.err == nil {
				if p.err = c.check(p); p.err == nil {
					w.buf = c.appendAck(w.buf, p)
					continue
				}
				answer = c.answerUnusable
			}
			if !c.flush(w.buf) || !answer(p) {
				return
			}
			w.buf = w.buf[:0]
		}
		if !c.flush(w.buf) || !c.answered(w.batch) {
			return
		}
		w.batch, w.buf, n = c.take(w.batch[:0]), w.buf[:0], 0
	}
}

// take moves the settled messages at the head of the queue to batch.
func (c *conn) take(batch []pending) []pending {
	c.mu.Lock()
	defer signal(c.room)
	defer c.mu.Unlock()
	n := 0
	for n < len(c.queue) && c.queue[n].settled {
		if c.queue[n].qos > 0 {
			c.unacked--
		}
		if c.queue[n].qos == 2 && c.queue[n].err == nil {
			if c.received == nil {
				c.received = make(map[uint16]struct{})
			}
			c.received[c.queue[n].id] = struct{}{}
		}
		c.bytes -= c.queue[n].bytes
		n++
	}
	batch = append(batch, c.queue[:n]...)
	rest := copy(c.queue, c.queue[n:])
	clear(c.queue[rest:])
	c.queue = c.queue[:rest]
	c.base += uint64(n)
	return batch
}

// answered notes that batch is, and reports whether there is more to answer.
func (c *conn) answered(batch []pending) (more bool) {
	c.listener.broker.metrics.acknowledged(batch)
	clear(batch) // an idle connection keeps no message
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) > 0 && c.queue[0].settled {
		return true
	}
	c.answering = false
	if c.empty != nil && len(c.queue) == 0 {
		close(c.empty)
		c.empty = nil
	}
	return false
}

// drain waits until every message is answered, the connection gone or ctx done.
func (c *conn) drain(ctx context.Context) {
	c.mu.Lock()
	if len(c.queue) == 0 && !c.answering {
		c.mu.Unlock()
		return
	}
	if c.empty == nil {
		c.empty = make(chan struct{})
	}
	empty := c.empty
	c.mu.Unlock()
	select {
	case <-empty:
	case <-c.gone:
	case <-ctx.Done():
	}
}

// appendAck appends the acknowledgement of a message that is durable.
func (c *conn) appendAck(buf []byte, p *pending) []byte {
	switch p.qos {
	case 1:
		return append(buf, packets.Puback<<4, 2, byte(p.id>>8), byte(p.id))
	case 2:
		return append(buf, packets.Pubrec<<4, 2, byte(p.id>>8), byte(p.id))
	}
	return buf
}

// repeated reports whether a QoS 2 message was stored and answered before, and
// answers it again [MQTT-4.3.3-10]. mochi could do it from its in-flight table,
// but that one deadlocks when two goroutines use it.
func (c *conn) repeated(pk *packets.Packet) bool {
	if pk.FixedHeader.Qos != 2 {
		return false
	}
	c.mu.Lock()
	_, ok := c.received[pk.PacketID]
	c.mu.Unlock()
	if !ok {
		return false
	}
	if n, ok := c.push(pk, nil); ok {
		c.settle(n, nil)
	}
	return true
}

// released reports whether a QoS 2 message was stored, and forgets it: its
// PUBREL came.
func (c *conn) released(id uint16) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.received[id]
	delete(c.received, id)
	return ok
}

// unreleased returns how many QoS 2 messages wait for their PUBREL.
func (c *conn) unreleased() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.received)
}

func (c *conn) flush(buf []byte) bool {
	if len(buf) == 0 {
		return true
	}
	_, err := c.Write(buf)
	return err == nil // else the connection is closed, and the device will send again
}

// answerError answers a message that was not stored and reports whether the
// connection goes on. Nothing that was not stored is ever acknowledged as
// stored: MQTT 5 has reason codes for it, an MQTT 3.1.1 connection is closed.
func (c *conn) answerError(p *pending) bool {
	b := c.listener.broker
	v5 := c.client.Properties.ProtocolVersion == 5
	if errors.Is(p.err, context.Canceled) && (c.stopping.Load() || c.ctx.Err() != nil) {
		c.explained.Store(true)
		_ = c.Close()
		return false
	}
	code := packets.ErrNotAuthorized
	switch citywarden.CodeOf(p.err) {
	case citywarden.CodeLimited:
		b.metrics.refused.WithLabelValues("limit").Inc()
		if c.warnOnce("limit") {
			c.warn("message refused; the device sends too much", "topic", p.topic, "qos", p.qos, "err", p.err)
		}
		if v5 && p.qos > 0 {
			return c.explain(p, packets.ErrQuotaExceeded)
		}
		c.disconnect(packets.ErrQuotaExceeded, p.err.Error()) // without an acknowledgement: it sends again
		return false
	case citywarden.CodeInvalid:
		code = packets.ErrPayloadFormatInvalid
	case citywarden.CodeDenied, citywarden.CodeUnauthenticated, citywarden.CodeNotFound, citywarden.CodeConflict:
	default:
		b.metrics.refused.WithLabelValues("store").Inc()
		if p.qos == 0 { // there is no acknowledgement to withhold
			if c.warnOnce("store") {
				b.log.Error("uplink with QoS 0 not stored: it is lost", "device", c.device, "topic", p.topic, "err", p.err)
			}
			return true
		}
		b.unkept.Do(func() {
			b.log.Error("uplink not stored; the device is disconnected without acknowledgement and will send it again",
				"device", c.device, "topic", p.topic, "qos", p.qos, "err", p.err)
		})
		c.disconnect(packets.ErrServerBusy, "the message could not be stored; send it again")
		return false
	}
	b.metrics.refused.WithLabelValues("publish").Inc()
	if c.warnOnce("publish " + p.topic) {
		c.warn("uplink refused", "topic", p.topic, "qos", p.qos, "err", p.err)
	}
	switch {
	case p.qos == 0:
		return true
	case !v5:
		c.disconnect(code, "")
		return false
	}
	return c.explain(p, code)
}

// check returns why a message that is durable can't be used.
func (c *conn) check(p *pending) error {
	if p.up == nil {
		return nil
	}
	err := c.listener.broker.opts.Check.Check(*p.up)
	switch citywarden.CodeOf(err) {
	case citywarden.CodeInvalid, citywarden.CodeTooLarge:
		return err
	}
	return nil // a device that was deleted meanwhile is told so by the next message
}

// answerUnusable tells an MQTT 5 device that its message lies in the dead
// letters, and reports whether the connection goes on.
func (c *conn) answerUnusable(p *pending) bool {
	if c.warnOnce("unusable") {
		c.warn("message not usable; it lies in the dead letters", "topic", p.topic, "err", p.err)
	}
	if p.qos == 2 {
		c.released(p.id) // the error ends the exchange, no PUBREL follows
	}
	return c.explain(p, packets.ErrPayloadFormatInvalid)
}

// explain answers an MQTT 5 device with code and the reason.
func (c *conn) explain(p *pending, code packets.Code) bool {
	ack := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Puback},
		PacketID:    p.id,
		ReasonCode:  code.Code,
		Properties:  packets.Properties{ReasonString: p.err.Error()},
	}
	if p.qos == 2 {
		ack.FixedHeader.Type = packets.Pubrec // ends the exchange, no PUBREL follows
	}
	return c.client.WritePacket(ack) == nil
}

func (c *conn) warn(msg string, args ...any) {
	c.listener.broker.log.With("device", c.device, "client", c.clientID, "remote", c.remote).Warn(msg, args...)
}

// signal wakes the one who waits on ch, a channel of capacity 1.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
