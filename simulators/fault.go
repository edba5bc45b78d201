package simulators

import (
	"bytes"
	"container/heap"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// The kinds of fault of a device: what goes wrong between what it measures and
// what arrives. Several may go on at once.
const (
	StuckValues = "stuck"       // it repeats the values that it had when that began
	WrongModel  = "wrong-model" // it sends what a device of Fault.As would
	LowBattery  = "low-battery" // its battery runs down to Size percent
	Skew        = "skew"        // its clock is off by Size seconds
	Drift       = "drift"       // its clock gains Size seconds a day
	BrownOut    = "brown-out"   // it reboots every Size seconds and then has no time for a minute
	WrongUnit   = "wrong-unit"  // it sends seconds where milliseconds are asked for
	Malformed   = "malformed"   // a share Size of its frames is cut or garbled
	Lost        = "lost"        // a share Size of its messages is lost
	Repeated    = "repeated"    // a share Size of its messages comes twice
	Disorder    = "disorder"    // its messages are held up by up to Size seconds, each as it comes
	Offline     = "offline"     // it has no network, keeps its messages and sends them all at the end
	Silent      = "silent"      // it has no power
)

// faults are the kinds in the order in which they are applied: to the values,
// to the clock, to the message, on the way. The sizes are the usual ones.
var faults = []struct {
	kind  string
	size  float64 // 0: it has none
	apply func(f *fault, m Message) []Message
}{
	{StuckValues, 0, (*fault).stuck},
	{WrongModel, 0, (*fault).wrongModel},
	{LowBattery, 5, (*fault).lowBattery},
	{Skew, 300, (*fault).skew},
	{Drift, 60, (*fault).drift},
	{BrownOut, 600, (*fault).brownOut},
	{WrongUnit, 0, (*fault).wrongUnit},
	{Malformed, 0.1, (*fault).malformed},
	{Lost, 0.1, (*fault).lost},
	{Repeated, 0.1, (*fault).repeated},
	{Disorder, 60, (*fault).disorder},
	{Offline, 0, (*fault).offline},
	{Silent, 0, func(*fault, Message) []Message { return nil }},
}

// Faults returns the kinds of fault.
func Faults() []string {
	var out []string
	for _, k := range faults {
		out = append(out, k.kind)
	}
	return out
}

// Fault is something wrong with a device for a while.
type Fault struct {
	Kind     string
	From, To time.Time
	Size     float64              // see the kinds; 0 for the usual
	As       citywarden.ModelName // of WrongModel
}

// fault is a Fault at work.
type fault struct {
	Fault
	w      *World
	id     uint64
	apply  func(f *fault, m Message) []Message
	values []byte // that are stuck
	other  source // of the wrong model
	kept   []Message
}

// Faulty is what arrives of a device: its stream with all that is wrong with it.
// It is for one goroutine.
type Faulty struct {
	src    *Stream
	faults []*fault
	ahead  Message // of src, not looked at yet
	queue  messages
	last   time.Time
}

// Faulty returns the device id with its faults.
func (w *World) Faulty(id citywarden.DeviceID, list ...Fault) (*Faulty, error) {
	src, err := w.Stream(id)
	if err != nil {
		return nil, err
	}
	d := &Faulty{src: src, ahead: src.Next()}
	fail := func(f Fault, format string, args ...any) error {
		return citywarden.Errorf(citywarden.CodeInvalid, "device %s, fault %s: %s", id, f.Kind, fmt.Sprintf(format, args...))
	}
	for _, k := range faults {
		for _, f := range list {
			if f.Kind != k.kind {
				continue
			}
			switch {
			case f.Size == 0:
				f.Size = k.size
			case k.size == 0:
				return nil, fail(f, "it has no size")
			case f.Size < 0 && f.Kind != Skew && f.Kind != Drift:
				return nil, fail(f, "its size %g is negative", f.Size)
			case k.size < 1 && f.Size > 1:
				return nil, fail(f, "its size %g is a share, 0 to 1", f.Size)
			}
			if !f.From.Before(f.To) {
				return nil, fail(f, "it ends before it begins")
			}
			x := &fault{Fault: f, w: w, id: src.id, apply: k.apply}
			if f.Kind == WrongModel {
				make, ok := hardware[f.As]
				if !ok || f.As == src.dev.Model || f.As == "pressure-logger" || f.As == "flow-meter" {
					return nil, fail(f, "as: %q is no other model that needs no water network; there are %s", f.As, strings.Join(Models(), ", "))
				}
				posing := *src.dev
				posing.Model = f.As
				x.other = make(w, &posing, src.id)
			} else if f.As != "" {
				return nil, fail(f, "as: only %s has that", WrongModel)
			}
			d.faults = append(d.faults, x)
		}
	}
	for _, f := range list {
		if !slices.Contains(Faults(), f.Kind) {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "device %s: no kind of fault %q; there are %s", id, f.Kind, strings.Join(Faults(), ", "))
		}
	}
	return d, nil
}

// Next returns the next message that is sent before until, and false when there
// is none.
func (d *Faulty) Next(until time.Time) (Message, bool) {
	for d.ahead.At.Before(until) && (len(d.queue) == 0 || !d.queue[0].At.Before(d.ahead.At)) {
		all := []Message{d.ahead}
		d.ahead = d.src.Next()
		for _, f := range d.faults {
			var out []Message
			for _, m := range all {
				out = append(out, f.pass(m)...)
			}
			all = out
		}
		for _, m := range all {
			heap.Push(&d.queue, m)
		}
	}
	if len(d.queue) == 0 || !d.queue[0].At.Before(until) {
		return Message{}, false
	}
	m := heap.Pop(&d.queue).(Message)
	if m.At.Before(d.last) { // the beginning of a backlog, after what came meanwhile
		m.At = d.last
	}
	d.last = m.At
	return m, true
}

// pass returns what becomes of m.
func (f *fault) pass(m Message) []Message {
	if m.At.Before(f.From) {
		return []Message{m}
	}
	if !m.At.Before(f.To) {
		return append(f.flush(), m)
	}
	return f.apply(f, m)
}

// chance returns a number in [0, 1) for m.
func (f *fault) chance(m Message, what string) float64 {
	return f.w.unit(f.id, f.Kind+what, m.Measured.UnixMilli())
}

// share of the time of f that has passed.
func (f *fault) passed(t time.Time) float64 {
	return t.Sub(f.From).Seconds() / f.To.Sub(f.From).Seconds()
}

func (f *fault) stuck(m Message) []Message {
	if f.values == nil {
		f.values = valuesOf(m.Payload)
	}
	m.Payload = withValues(m.Payload, f.values)
	return []Message{m}
}

func (f *fault) wrongModel(m Message) []Message {
	b := body{buf: []byte{'{'}}
	f.other.next(m.Measured)
	f.other.read(&b, m.Measured)
	m.Payload = withValues(m.Payload, append(b.buf, '}'))
	return []Message{m}
}

func (f *fault) lowBattery(m Message) []Message {
	const key = `"battery":`
	at := bytes.Index(m.Payload, []byte(key))
	if at < 0 {
		return []Message{m}
	}
	at += len(key)
	end := at + bytes.IndexAny(m.Payload[at:], ",}")
	was, err := strconv.ParseFloat(string(m.Payload[at:end]), 64)
	if err != nil {
		return []Message{m}
	}
	now := math.Round(was + (f.Size-was)*math.Min(1, 2*f.passed(m.At))) // half of the time it stays there
	m.Payload = slices.Concat(m.Payload[:at], strconv.AppendFloat(nil, now, 'f', 0, 64), m.Payload[end:])
	return []Message{m}
}

func (f *fault) skew(m Message) []Message {
	return []Message{m.stamped(func(ms int64) int64 { return ms + int64(f.Size*1000) })}
}

func (f *fault) drift(m Message) []Message {
	days := m.Measured.Sub(f.From).Hours() / 24
	return []Message{m.stamped(func(ms int64) int64 { return ms + int64(f.Size*days*1000) })}
}

func (f *fault) brownOut(m Message) []Message {
	on := m.Measured.Sub(f.From).Seconds()
	k := math.Floor(on / f.Size)
	up := on - f.Size*(k+0.2*f.w.unit(f.id, f.Kind, int64(k)))
	switch {
	case up < 0: // not yet this time
	case up < 5: // it boots
		return nil
	case up < 65: // the clock begins in 1970
		return []Message{m.stamped(func(int64) int64 { return int64(up * 1000) })}
	}
	return []Message{m}
}

func (f *fault) wrongUnit(m Message) []Message {
	return []Message{m.stamped(func(ms int64) int64 { return ms / 1000 })}
}

func (f *fault) malformed(m Message) []Message {
	if f.chance(m, "") >= f.Size {
		return []Message{m}
	}
	p := slices.Clone(m.Payload)
	cut := 1 + int(f.chance(m, "cut")*float64(len(p)-2))
	if f.chance(m, "how") < 0.5 {
		p = p[:cut]
	} else {
		p[cut] ^= 0x80 // a bit fell over
	}
	m.Payload = p
	return []Message{m}
}

func (f *fault) lost(m Message) []Message {
	if f.chance(m, "") < f.Size {
		return nil
	}
	return []Message{m}
}

func (f *fault) repeated(m Message) []Message {
	if f.chance(m, "") >= f.Size {
		return []Message{m}
	}
	again := m
	again.At = m.At.Add(share(30*time.Second, f.chance(m, "delay")) + time.Second)
	return []Message{m, again}
}

func (f *fault) disorder(m Message) []Message {
	m.At = m.At.Add(share(time.Duration(f.Size*float64(time.Second)), f.chance(m, "")))
	return []Message{m}
}

func (f *fault) offline(m Message) []Message {
	f.kept = append(f.kept, m)
	return nil
}

// backlog is how many messages a device sends at once when it is back, and how
// long it waits between two times.
const (
	backlog      = 50
	backlogPause = 200 * time.Millisecond
)

// flush returns what was kept, as arrays of messages.
func (f *fault) flush() []Message {
	var out []Message
	for at := f.To; len(f.kept) > 0; at = at.Add(backlogPause) {
		n := min(backlog, len(f.kept))
		all := []byte{'['}
		for i, m := range f.kept[:n] {
			if i > 0 {
				all = append(all, ',')
			}
			all = append(all, m.Payload...)
		}
		m := f.kept[0]
		m.At, m.Payload = at, append(all, ']')
		out = append(out, m)
		f.kept = f.kept[n:]
	}
	return out
}

// valuesKey comes between the time stamp and the values of a message.
const (
	stampKey  = `{"ts":`
	valuesKey = `,"values":`
)

// stamped returns m with another time stamp.
func (m Message) stamped(f func(ms int64) int64) Message {
	at := bytes.Index(m.Payload, []byte(valuesKey))
	ms, err := strconv.ParseInt(string(m.Payload[len(stampKey):at]), 10, 64)
	if err != nil {
		panic(fmt.Sprintf("a stream sent %q: %v", m.Payload, err))
	}
	m.Payload = slices.Concat([]byte(stampKey), strconv.AppendInt(nil, f(ms), 10), m.Payload[at:])
	return m
}

func valuesOf(payload []byte) []byte {
	return payload[bytes.Index(payload, []byte(valuesKey))+len(valuesKey) : len(payload)-1]
}

// withValues returns payload with other values.
func withValues(payload, values []byte) []byte {
	return slices.Concat(payload[:bytes.Index(payload, []byte(valuesKey))+len(valuesKey)], values, []byte{'}'})
}

// messages is a heap, the earliest first.
type messages []Message

func (q messages) Len() int           { return len(q) }
func (q messages) Less(i, j int) bool { return q[i].At.Before(q[j].At) }
func (q messages) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *messages) Push(x any) { *q = append(*q, x.(Message)) }

// Pop implements heap.Interface.
func (q *messages) Pop() any {
	m := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return m
}
