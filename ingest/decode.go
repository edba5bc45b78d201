package ingest

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"math"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

const (
	// maxAhead is how far ahead of its arrival a reading may be dated; up to farAhead a
	// clock is fast, and the arrival counts, beyond that it is none.
	maxAhead = 5 * time.Minute
	farAhead = 24 * time.Hour
	// duplicateWindow is how many records back in the log a duplicate of a
	// reading is recognised.
	duplicateWindow = 65536
	// duplicateKeys bounds the readings remembered for that, in each of two
	// generations. Only messages with more than 15 readings on average reach it.
	duplicateKeys = 1 << 20
	// maxReasons is how many different things are said about one message.
	maxReasons = 6
	// roomEntries is for how many entries room is made at once: more than a batch of a consumer, which ends where the room does.
	roomEntries = 2 * batchEntries
)

// earliest is the oldest time a reading may have; a device that is further back has no clock.
func earliest() time.Time { return time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC) }

// message is what was found in a payload.
type message struct {
	readings []citywarden.Reading // zero Time: none was given
	attrs    map[string]any
	stated   time.Time // the newest time that was given, zero when none was
	at       time.Time // of readings that give none: when a network server had them; zero for the arrival
	once     string    // tells the message from others of its device whenever it comes, "" when nothing does
	relative bool      // times count from the arrival, and say nothing about the clock of the device
	missing  int       // messages that got lost before this one
}

// decodeRaw reads what is in the model's own format.
func decodeRaw(model *citywarden.Model, up *citywarden.Uplink, port int, drop *dropped) (message, error) {
	if model.Raw == nil {
		return message{}, citywarden.Errorf(citywarden.CodeInvalid, "model %s has no codec for payloads of its own; give it one, or send JSON to v1/devices/me/telemetry", model.Name)
	}
	got, err := model.Raw.Decode(citywarden.RawPayload{Bytes: up.Payload, Port: port, Received: up.Received})
	if err != nil {
		return message{}, citywarden.Errorf(citywarden.CodeInvalid, "%w", err)
	}
	for _, r := range got.Rejected {
		drop.reject(1, "%s", r)
	}
	return message{readings: got.Readings, attrs: got.Attrs, relative: got.Relative}, nil
}

// dropped counts and names what of a message could not be used.
type dropped struct {
	rejected    int
	quarantined int
	taken       int
	where       string // what of the message the reasons are about, "data: "; "" for all of it
	reasons     []string
	more        int
}

// reject notes n readings that can't be used.
func (d *dropped) reject(n int, format string, args ...any) {
	d.rejected += n
	d.say(format, args...)
}

// quarantine notes n readings whose time can't be true.
func (d *dropped) quarantine(n int, format string, args ...any) {
	d.quarantined += n
	d.say(format, args...)
}

func (d *dropped) say(format string, args ...any) {
	if len(d.reasons) >= maxReasons {
		d.more++
		return
	}
	d.reasons = append(d.reasons, d.where+fmt.Sprintf(format, args...))
}

// reason says what was wrong, "" when nothing was.
func (d *dropped) reason() string {
	if len(d.reasons) == 0 {
		return ""
	}
	s := strings.Join(d.reasons, "; ")
	if d.more > 0 {
		s += fmt.Sprintf("; and %d more", d.more)
	}
	if d.taken > 0 {
		s += fmt.Sprintf(" (%d of %d readings were taken)", d.taken, d.taken+d.rejected+d.quarantined)
	}
	return s
}

// decode is scratch.decode for one message.
func decode(device *citywarden.Device, model *citywarden.Model, up *citywarden.Uplink) (message, []time.Time, dropped) {
	var s scratch
	m := s.decode(device, model, up)
	return m, s.raw, s.dropped
}

// scratch is what is known besides of the message that was decoded last.
type scratch struct {
	raw     []time.Time // of each reading the time as the device gave it, zero when that does not matter
	dropped dropped
}

// decode turns up into readings of known metrics with a time and a quality.
func (s *scratch) decode(device *citywarden.Device, model *citywarden.Model, up *citywarden.Uplink) message {
	s.raw, s.dropped = s.raw[:0], dropped{}
	var m message
	d := &s.dropped
	if up.Topic == citywarden.DeviceConnected || up.Topic == citywarden.DeviceDisconnected {
		return message{} // only a sign of life
	}
	if bytes, topic, ok := citywarden.Oversized(up.Topic); ok {
		if bytes == len(up.Payload) {
			d.reject(1, "a message of %d bytes to %s; model %s takes %d: send less at once, or let the model take more and replay the dead letter", bytes, topic, model.Name, cmp.Or(model.Limits.Payload, citywarden.MaxPayload))
			return message{}
		}
		most := ""
		if model.Limits.Payload > 0 && bytes > model.Limits.Payload {
			most = fmt.Sprintf("; model %s takes %d", model.Name, model.Limits.Payload)
		}
		d.reject(1, "a message of %d bytes to %s is more than can be kept, and what is here is its beginning; send less at once%s", bytes, topic, most)
		return message{}
	}
	if topic, ok := citywarden.Overrated(up.Topic); ok {
		d.reject(1, "a message to %s that came too fast: model %s takes %s of a device and %s of all together", topic, model.Name, orAny(model.Limits.Messages), orAny(model.Limits.AllMessages))
		return message{}
	}
	var err error
	switch up.Topic {
	case citywarden.DeviceRaw:
		m, err = decodeRaw(model, up, 0, d)
	case citywarden.DeviceLoRaWAN:
		m, err = decodeLoRaWAN(model, up, d)
	case citywarden.DeviceCTWing:
		m, err = decodeCTWing(model, up, d)
	case citywarden.DeviceSparkplug:
		m, err = decodeSparkplug(model, up, d)
	case citywarden.DeviceMissing:
		m, err = decodeMissing(up)
	default:
		if strings.HasPrefix(up.Topic, citywarden.DeviceLwM2M) {
			m, err = decodeLwM2M(model, up, d)
			break
		}
		m, err = decodeJSON(model, up, d)
	}
	if err != nil {
		*d = dropped{}
		d.reject(1, "%v", err)
		return message{}
	}
	arrived := up.Received.UTC()
	oldest := earliest()
	kept := m.readings[:0]
	tooOld, tooNew := 0, 0
	var oldTime, newTime time.Time
	for _, r := range m.readings {
		def, known := model.Metric(r.Metric)
		switch {
		case known && def.Resolution > 0 && r.Value.Kind() == citywarden.KindNumber:
			r.Value = citywarden.Number(def.Round(r.Value.Float()))
		case r.Metric == citywarden.EventMetric && r.Value.Kind() == citywarden.KindText:
			if err := model.CheckEvent(r.Value.String()); err != nil {
				d.reject(1, "%v", err)
				continue
			}
		}
		given := r.Time
		if given.After(m.stated) && !m.relative {
			m.stated = given
		}
		switch {
		case given.IsZero() && m.at.After(oldest) && m.at.Sub(arrived) <= maxAhead:
			r.Time = m.at
		case given.IsZero():
			r.Time = arrived
		case given.Before(oldest):
			tooOld++
			oldTime = given
			continue
		case given.Sub(arrived) > farAhead:
			tooNew++
			newTime = given
			continue
		default:
			r.Time = given.UTC()
			if r.Time.Sub(arrived) > maxAhead {
				r.Time, r.Quality = arrived, citywarden.Clamped
			}
		}
		if known && outside(def, r.Value) {
			r.Quality = citywarden.OutOfRange
		}
		if given.IsZero() && m.once == "" {
			given = r.Time
		}
		kept = append(kept, r)
		s.raw = append(s.raw, given)
	}
	if tooOld > 0 {
		d.quarantine(tooOld, "time %s is before 2015; set the clock of the device, or leave ts out", oldTime.UTC().Format(time.RFC3339))
	}
	if tooNew > 0 {
		d.quarantine(tooNew, "time %s is more than a day ahead; set the clock of the device, or leave ts out", newTime.UTC().Format(time.RFC3339))
	}
	m.readings = kept
	d.taken = len(kept)
	return m
}

// orAny is a rate in words.
func orAny(r citywarden.Rate) string {
	if r.IsZero() {
		return "any number"
	}
	return r.String()
}

func outside(m *citywarden.Metric, v citywarden.Value) bool {
	if v.Kind() != citywarden.KindNumber {
		return false
	}
	return m.Min != nil && v.Float() < *m.Min || m.Max != nil && v.Float() > *m.Max
}

// decoder turns records into entries, in the order of the log.
type decoder struct {
	directory Directory
	only      map[citywarden.DeviceID]bool // whose messages are decoded, nil for all
	seed      maphash.Seed
	n         uint64 // records decoded so far
	old, cur  map[uint64]sight
	begun     uint64 // n when cur was begun
	scratch   scratch
	room      []citywarden.Entry // for the next groups
}

func newDecoder(dir Directory) *decoder {
	return &decoder{directory: dir, seed: maphash.MakeSeed(), cur: map[uint64]sight{}}
}

// group decodes a commit group. Its entries lie behind those of the group before it as long as there is room, see joined.
func (d *decoder) group(recs []citywarden.Record) []citywarden.Entry {
	if len(recs) > len(d.room) {
		d.room = make([]citywarden.Entry, max(len(recs), roomEntries))
	}
	entries := d.room[:len(recs)]
	d.room = d.room[len(recs):]
	for i := range recs {
		d.n++
		entries[i].Record = recs[i]
		if u := recs[i].Uplink; u != nil && (d.only == nil || d.only[u.Device]) {
			d.uplink(&entries[i])
		}
	}
	return entries
}

func (d *decoder) uplink(e *citywarden.Entry) {
	up := e.Uplink
	device, model, err := d.directory.Device(up.Device)
	if err != nil {
		e.Rejected = 1
		e.Reject = deadLetter(e, err.Error())
		return
	}
	e.Device, e.Model = device, model
	if strings.HasPrefix(up.Topic, gatewayTopics) {
		dropped := decodeGateway(d.directory, up)
		e.Rejected, e.Reject = dropped.rejected, deadLetter(e, dropped.reason())
		return
	}
	m := d.scratch.decode(device, model, up)
	dropped := &d.scratch.dropped
	e.Attrs, e.Stated, e.Rejected, e.Quarantined, e.Missing = m.attrs, m.stated, dropped.rejected, dropped.quarantined, m.missing
	if reason := dropped.reason(); reason != "" {
		e.Reject = deadLetter(e, reason)
	}
	e.Readings = m.readings[:0]
	for i, r := range m.readings {
		if d.repeated(up, &r, d.scratch.raw[i], m.once) {
			e.Duplicates++
			continue
		}
		e.Readings = append(e.Readings, r)
	}
}

func deadLetter(e *citywarden.Entry, reason string) *citywarden.DeadLetter {
	up := e.Uplink
	return &citywarden.DeadLetter{
		Position: e.Position, Stage: citywarden.FailedDecode, Device: up.Device, Protocol: up.Protocol, Topic: up.Topic,
		Payload: up.Payload, Received: up.Received, Reason: reason,
	}
}

// sight is where a reading was seen last.
type sight struct {
	n        uint64 // the number of the record
	received int64  // when its message arrived, in nanoseconds since 1970: no two messages do at one time; 0 unknown
}

// repeated reports whether the same reading of the same device was in one of
// the last duplicateWindow records, and remembers it. It depends on nothing
// before that window, so a decoder that begins there gives the same answers.
//
// A message that is brought in again, see Replay, repeats only itself: whether a
// reading of it was taken the first time, with the models of then, can't be known any more.
func (d *decoder) repeated(up *citywarden.Uplink, r *citywarden.Reading, at time.Time, once string) bool {
	var h maphash.Hash
	h.SetSeed(d.seed)
	h.WriteString(string(up.Device))
	h.WriteByte(0)
	h.WriteString(string(r.Metric))
	h.WriteByte(byte(r.Value.Kind()))
	if r.Value.Kind() == citywarden.KindText {
		h.WriteString(r.Value.String())
	}
	maphash.WriteComparable(&h, math.Float64bits(r.Value.Float()))
	maphash.WriteComparable(&h, at.UnixNano())
	h.WriteString(once)
	key := h.Sum64()

	if d.n-d.begun > duplicateWindow || len(d.cur) >= duplicateKeys {
		d.old, d.cur, d.begun = d.cur, make(map[uint64]sight, len(d.cur)), d.n
	}
	before, known := d.cur[key]
	if !known {
		before, known = d.old[key]
	}
	now := sight{n: d.n}
	if !up.Received.IsZero() {
		now.received = up.Received.UnixNano()
	}
	d.cur[key] = now
	return known && d.n-before.n <= duplicateWindow && (before.n == now.n || before.received != now.received || now.received == 0)
}
