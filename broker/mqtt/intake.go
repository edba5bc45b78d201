package mqtt

import (
	"encoding/binary"
	"io"
	"math"
	"net"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
)

// intakeBytes is how much is read from a socket at once, and firstIntake how much until that was once full: most
// devices say little and are silent for long.
const (
	intakeBytes = 2048
	firstIntake = 512
)

// intake is what was read from the connection and mochi has not got. Nearly all that
// devices send are messages for the log, of which mochi makes several copies and which it takes
// through its own in-flight table, only to be told that it may not publish them. So those
// that say nothing out of the ordinary never get to it: see conn.plain. It gets
// everything else, and no more than one packet at a time, so that the beginning of
// the next one is known.
type intake struct {
	buf    []byte
	r, w   int       // what is in buf
	full   bool      // there may have been more to read
	pass   int       // bytes of the packet that mochi is being given
	taken  bool      // a message was, and the read deadline is still of before it
	looked time.Time // at the credential, since the buffer was filled; zero for not yet
}

// lookEvery is for how long the credential counts as good without a look while messages are taken from
// one buffer: what comes in it may be held up, and a certificate expires without a word.
const lookEvery = 100 * time.Millisecond

// next gives mochi the next bytes that are for it, once the messages before them are taken.
func (c *conn) next(p []byte) (int, error) {
	in := &c.in
	for {
		if c.ending() {
			return 0, net.ErrClosed
		}
		if in.pass > 0 {
			return in.give(c, p)
		}
		ok, err := c.plain()
		switch {
		case err != nil:
			return 0, err
		case !ok && in.pass == 0: // there is not enough to tell
			if err := in.fill(c); err != nil {
				return 0, err
			}
		}
	}
}

// give copies of the packet that is for mochi.
func (in *intake) give(c *conn, p []byte) (int, error) {
	p = p[:min(len(p), in.pass)]
	if in.r < in.w {
		n := copy(p, in.buf[in.r:in.w])
		in.r, in.pass = in.r+n, in.pass-n
		return n, nil
	}
	c.refresh()
	n, err := c.Conn.Read(p)
	in.pass -= n
	return n, err
}

// fill reads more into the buffer, which has room for any header and the topics that plain knows.
func (in *intake) fill(c *conn) error {
	switch {
	case in.buf == nil:
		in.buf = make([]byte, firstIntake)
	case in.full && len(in.buf) < intakeBytes:
		in.buf = append(make([]byte, 0, intakeBytes), in.buf...)[:intakeBytes]
	}
	if in.r > 0 {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	c.refresh()
	n, err := c.Conn.Read(in.buf[in.w:])
	in.w += n
	in.full = in.w == len(in.buf)
	in.looked = time.Time{}
	if n > 0 {
		return nil
	}
	return err
}

// plain takes the message that the buffer begins with, when it is one for the log
// that mochi is not needed for. Otherwise it sets pass to the size of the packet,
// or leaves it 0 when more bytes are needed to tell.
func (c *conn) plain() (taken bool, err error) {
	in := &c.in
	b := in.buf[in.r:in.w]
	size, head, ok := packetSize(b)
	if !ok {
		return false, nil
	}
	pass := func() (bool, error) {
		in.pass = size
		return false, nil
	}
	qos := b[0] >> 1 & 3
	if b[0]>>4 != packets.Publish || qos > 1 || b[0]&8 != 0 && qos == 0 || size > maxPacket || !c.established.Load() || c.guest {
		return pass()
	}
	if len(b) < head+2 && len(b) < size {
		return false, nil
	}
	v5 := c.client.Properties.ProtocolVersion == 5
	body := size - head
	rest := 2 + int(qos)*2 // what is there besides the topic, at least
	if v5 {
		rest++
	}
	if body < rest {
		return pass()
	}
	n := int(binary.BigEndian.Uint16(b[head:]))
	if n > maxPlainTopic || n > body-rest {
		return pass()
	}
	if len(b) < head+rest+n {
		return false, nil
	}
	topic := plainTopic(b[head+2 : head+2+n])
	if topic == "" {
		return pass()
	}
	at := head + 2 + n
	id := uint16(0)
	if qos > 0 {
		if id = binary.BigEndian.Uint16(b[at:]); id == 0 {
			return pass()
		}
		at += 2
	}
	if v5 {
		if b[at] != 0 { // properties
			return pass()
		}
		at++
	}
	select {
	case <-c.gone:
		return false, net.ErrClosed
	default:
	}
	now := time.Now()
	if c.cleared() || now.Sub(in.looked) > lookEvery {
		if c.revoked() {
			return false, net.ErrClosed
		}
		in.looked = now
	}
	payload := make([]byte, size-at) // the log's from now on
	have := copy(payload, b[at:])
	in.r += at + have
	if have < len(payload) {
		c.refresh()
		if _, err := io.ReadFull(c.Conn, payload[have:]); err != nil {
			return false, err
		}
		now = time.Now()
	}
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Qos: qos}, PacketID: id, TopicName: topic, Payload: payload}
	c.accept(&pk, citywarden.Uplink{Device: c.device, Protocol: "mqtt", Topic: topic, Payload: payload, Received: now.UTC()})
	in.taken = true
	return true, nil
}

// maxPlainTopic is the length of the longest topic that plain knows.
const maxPlainTopic = 64

// plainTopic returns a topic of messages for the log, "" for others.
func plainTopic(b []byte) string {
	switch string(b) {
	case telemetryTopic:
		return telemetryTopic
	case attributesTopic:
		return attributesTopic
	case citywarden.DeviceRaw:
		return citywarden.DeviceRaw
	case citywarden.GatewayTelemetry:
		return citywarden.GatewayTelemetry
	case citywarden.GatewayAttributes:
		return citywarden.GatewayAttributes
	}
	return ""
}

// packetSize returns how long the packet that b begins with is, and its header; ok is false when
// b ends too early. What has no length that may be is all the rest: let mochi say so.
func packetSize(b []byte) (size, head int, ok bool) {
	length := 0
	for i := 1; i < 5; i++ {
		if i >= len(b) {
			return 0, 0, false
		}
		length |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i]&0x80 == 0 {
			return 1 + i + length, 1 + i, true
		}
	}
	return math.MaxInt32, 5, true
}

// refresh gives the device as long as its keep-alive allows to say something again, if a message
// was taken; mochi does so before it reads a packet [MQTT-3.1.2-22]. It is called when bytes are waited for and not
// before: taking the message may have lasted.
func (c *conn) refresh() {
	if !c.in.taken {
		return
	}
	c.in.taken = false
	var end time.Time
	if k := c.client.State.Keepalive; k > 0 {
		end = time.Now().Add(time.Duration(k) * time.Second * 3 / 2)
	}
	_ = c.SetDeadline(end)
}
