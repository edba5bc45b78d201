package coap

import (
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/citywarden/citywarden"
)

// exchangeID tells a request from its repetition (RFC 7252 §4.5).
type exchangeID struct {
	from    endpoint
	message uint16
}

// exchange is one request and its answer.
type exchange struct {
	id          exchangeID
	at          time.Time
	confirmable bool
	token       message.Token
	noResponse  uint32            // classes of answers the device does not want, RFC 7967
	block       *block            // Block1, nil when the body came in one piece
	up          citywarden.Uplink // of a POST
	ask         *ask              // of what is not for the log, nil otherwise
	reg         *registration     // of LwM2M, nil of anything else
	entry       *entry            // what the client says of its registration
	notified    bool              // it is a notification of a client's

	// Guarded by loop.mu.
	settled  bool
	err      error
	body     []byte // of the answer to ask
	observer *observer
	separate bool   // acknowledged before it was answered
	reply    []byte // the answer as it was sent
}

func newExchange(from endpoint, m *message.Message) *exchange {
	x := &exchange{
		id:          exchangeID{from, uint16(m.MessageID)},
		at:          time.Now(),
		confirmable: m.Type == message.Confirmable,
		token:       slices.Clone(m.Token),
	}
	if v, err := m.Options.GetUint32(message.NoResponse); err == nil {
		x.noResponse = v
	}
	return x
}

// silent reports whether the device does not want an answer of this code.
func (x *exchange) silent(c codes.Code) bool { return x.noResponse&(1<<(c>>5-1)) != 0 }

// exchanges remembers requests for lifetime, at most maxExchanges; when there
// are more the oldest is forgotten first.
type exchanges struct {
	byID  map[exchangeID]*exchange
	order []*exchange // by age; order[head] is the oldest
	head  int
}

// add remembers x unless the same request is remembered already, which it
// returns then.
func (e *exchanges) add(x *exchange) *exchange {
	for len(e.order) > e.head && (len(e.order)-e.head >= maxExchanges || x.at.Sub(e.order[e.head].at) > lifetime) {
		old := e.order[e.head]
		delete(e.byID, old.id)
		e.order[e.head] = nil
		e.head++
	}
	if e.head > maxExchanges/2 {
		n := copy(e.order, e.order[e.head:])
		clear(e.order[n:])
		e.order, e.head = e.order[:n], 0
	}
	if before := e.byID[x.id]; before != nil {
		return before
	}
	e.byID[x.id] = x
	e.order = append(e.order, x)
	return nil
}

// open returns the requests without an answer, the oldest first.
func (e *exchanges) open() iter.Seq[*exchange] {
	return func(yield func(*exchange) bool) {
		for _, x := range e.order[e.head:] {
			if x.reply == nil && !yield(x) {
				return
			}
		}
	}
}

// ask is what a device wants to know, or its answer to a command.
type ask struct {
	device         citywarden.DeviceID
	access         string   // its token; "" of one whose session says who it is
	client, shared []string // attributes, see AttributeKeys
	block          block    // Block2, the part that it wants
	rpc            bool     // commands, not attributes
	observe        bool

	provision bool // it asks for a credential, with body

	firmware                    bool   // that it is to load
	title, version, size, chunk string // of it, as they stand in the query

	call    bool // it calls the platform, with body
	post    bool // the answer to command, or with announce
	command int64

	announce bool // it says that it may be claimed
	body     []byte
}

// answer is what a request is answered with; the zero answer means that it goes on.
type answer struct {
	code   codes.Code
	body   []byte // JSON or a firmware, of which the device gets the block that it asked for
	detail string // diagnostic payload, RFC 7252 §5.5.2
	size   uint32 // Size1, 0 for none
	again  uint32 // Max-Age of tooMany, in seconds

	location []string // of what was created

	observed bool // notifications follow
}

var unavailable = answer{code: codes.ServiceUnavailable, detail: "the message was not stored; send it again"}

// tooMany is 4.29 (RFC 8516), with when to come again.
func tooMany(err error) answer {
	a := answer{code: codes.TooManyRequests, detail: err.Error(), again: 1}
	if limit := (*citywarden.LimitError)(nil); errors.As(err, &limit) {
		a.again = uint32(limit.Seconds())
	}
	return a
}

func (a answer) options(x *exchange) message.Options {
	var o message.Options
	for _, p := range a.location {
		o = append(o, message.Option{ID: message.LocationPath, Value: []byte(p)})
	}
	if a.code == codes.TooManyRequests {
		o = append(o, message.Option{ID: message.MaxAge, Value: uintValue(a.again)})
	}
	if a.code == codes.ServiceUnavailable {
		o = append(o, message.Option{ID: message.MaxAge, Value: []byte{maxAge}})
	}
	if a.observed {
		o = append(o, message.Option{ID: message.Observe, Value: uintValue(x.observer.number & 0xffffff)})
	}
	if a.body != nil {
		format := message.AppJSON
		if x.ask.firmware {
			format = message.AppOctets
		}
		o = append(o, message.Option{ID: message.ContentFormat, Value: []byte{byte(format)}})
		if b := x.ask.block; b.number > 0 || b.more {
			o = append(o, message.Option{ID: message.Block2, Value: b.value()})
		}
	}
	if x.block != nil {
		o = append(o, message.Option{ID: message.Block1, Value: x.block.value()})
	}
	if a.size > 0 {
		o = append(o, message.Option{ID: message.Size1, Value: uintValue(a.size)})
	}
	return o
}

// uintValue is the shortest form of v, RFC 7252 §3.2.
func uintValue(v uint32) []byte {
	b := []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	return b
}

// clip shortens a diagnostic payload to maxDetail bytes, between characters.
func clip(s string) string {
	if len(s) <= maxDetail {
		return s
	}
	n := maxDetail
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}

// quiet lets one line per second and topic through to the log: a sender of UDP
// can claim any address and would fill the disk.
type quiet struct {
	mu    sync.Mutex
	last  map[string]time.Time
	count map[string]int
}

// allow reports whether a line may be logged, and how many were not before it.
func (q *quiet) allow(topic string) (suppressed int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.last == nil {
		q.last, q.count = make(map[string]time.Time), make(map[string]int)
	}
	if time.Since(q.last[topic]) < time.Second {
		q.count[topic]++
		return 0, false
	}
	n := q.count[topic]
	q.last[topic], q.count[topic] = time.Now(), 0
	return n, true
}
