package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/citywarden/citywarden"
)

// A commit group as it lies in the log:
//
//	byte     version, 1
//	uvarint  how many records the log held before this group
//	uvarint  how many records follow
//	records
//
// A record: byte kind; varint nanoseconds from the At of the record before it
// (from 1970 for the first); then by kind
//
//	uplink  string device, name protocol, name topic, varint nanoseconds from At
//	        back to Received, string payload; as the kind after the next before all that
//	        uvarint nanoseconds of Ahead
//	tick    nothing
//	start   nothing
//	deaf    nothing, or as the kind after it uvarint nanoseconds that it lasted
//	order   string JSON of the AlarmOrder
//
// A string is a uvarint length and its bytes. A name is a byte that stands for
// one of the usual strings, or 0 and a string.
const groupVersion = 1

// deafSince is the kind byte of a RecordDeaf that says how long it lasted. A binary from before there was one does not read a log that
// holds it: "unknown kind".
const deafSince = byte(citywarden.RecordDeaf) + 1

// uplinkAhead is, as deafSince, the kind byte of a RecordUplink that says how far At is ahead.
const uplinkAhead = deafSince + 1

// usualNames are the strings that a name is one byte for. Their numbers are
// in logs on disk: only ever append.
func usualNames() []string {
	return []string{"", "mqtt", "coap", "http", "v1/devices/me/telemetry", "v1/devices/me/attributes"}
}

// errShort says that a group ended in the middle.
var errShort = errors.New("ends too early")

func appendName(b []byte, s string, usual []string) []byte {
	for i, u := range usual {
		if i > 0 && u == s {
			return append(b, byte(i))
		}
	}
	return appendString(append(b, 0), s)
}

func appendString[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendGroup appends the encoding of recs to b; base is how many records
// lie before them. It fails only for a record that has no encoding: a kind
// without its part.
func appendGroup(b []byte, base uint64, recs []citywarden.Record) ([]byte, error) {
	usual := usualNames()
	b = append(b, groupVersion)
	b = binary.AppendUvarint(b, base)
	b = binary.AppendUvarint(b, uint64(len(recs)))
	var before int64
	for i := range recs {
		r := &recs[i]
		at := r.At.UnixNano()
		kind := byte(r.Kind)
		switch {
		case r.Lasted > 0:
			kind = deafSince
		case r.Ahead > 0 && r.Kind == citywarden.RecordUplink:
			kind = uplinkAhead
		}
		b = append(b, kind)
		b = binary.AppendVarint(b, at-before)
		before = at
		if kind == deafSince {
			b = binary.AppendUvarint(b, uint64(r.Lasted))
			continue
		}
		switch r.Kind {
		case citywarden.RecordUplink:
			u := r.Uplink
			if kind == uplinkAhead {
				b = binary.AppendUvarint(b, uint64(r.Ahead))
			}
			b = appendString(b, u.Device)
			b = appendName(b, u.Protocol, usual)
			b = appendName(b, u.Topic, usual)
			b = binary.AppendVarint(b, at-u.Received.UnixNano())
			b = appendString(b, u.Payload)
		case citywarden.RecordTick, citywarden.RecordStart, citywarden.RecordDeaf:
		case citywarden.RecordOrder:
			o, err := json.Marshal(r.Order)
			if err != nil {
				return nil, fmt.Errorf("encode order: %w", err)
			}
			b = appendString(b, o)
		default:
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "record of unknown kind %d", r.Kind)
		}
	}
	return b, nil
}

// decodeGroup reads what appendGroup wrote as commit group seq. Payloads share
// b's memory. Any b is safe: what is not a group gives an error.
func decodeGroup(seq uint64, b []byte) (base uint64, recs []citywarden.Record, err error) {
	d := decoder{b: b, usual: usualNames()}
	if v := d.byte(); d.err == nil && v != groupVersion {
		return 0, nil, fmt.Errorf("format version %d is not known; it was written by a newer citywarden", v)
	}
	base = d.uvarint()
	n := d.uvarint()
	if d.err == nil && (n == 0 || n >= citywarden.MaxGroup || n > uint64(len(d.b))) {
		return 0, nil, fmt.Errorf("%d records in %d bytes", n, len(b))
	}
	if d.err != nil {
		return 0, nil, d.err
	}
	recs = make([]citywarden.Record, 0, n)
	uplinks := make([]citywarden.Uplink, 0, n) // one allocation for all; never grows, so pointers into it stay
	var at int64
	for i := range int(n) {
		r := citywarden.Record{Position: citywarden.PositionAt(seq, i), Kind: citywarden.RecordKind(d.byte())}
		at += d.varint()
		r.At = time.Unix(0, at).UTC()
		if r.Kind == citywarden.RecordKind(uplinkAhead) {
			r.Kind, r.Ahead = citywarden.RecordUplink, time.Duration(d.uvarint())
			if r.Ahead <= 0 {
				d.fail(errors.New("ahead by no time"))
			}
		}
		switch r.Kind {
		case citywarden.RecordUplink:
			u := citywarden.Uplink{Device: citywarden.DeviceID(d.string()), Protocol: d.name(), Topic: d.name()}
			u.Received = time.Unix(0, at-d.varint()).UTC()
			u.Payload = d.string()
			uplinks = append(uplinks, u)
			r.Uplink = &uplinks[len(uplinks)-1]
		case citywarden.RecordTick, citywarden.RecordStart, citywarden.RecordDeaf:
		case citywarden.RecordKind(deafSince):
			r.Kind, r.Lasted = citywarden.RecordDeaf, time.Duration(d.uvarint())
			if r.Lasted <= 0 {
				d.fail(errors.New("lasted no time"))
			}
		case citywarden.RecordOrder:
			r.Order = new(citywarden.AlarmOrder)
			if o := d.string(); d.err == nil {
				if err := json.Unmarshal(o, r.Order); err != nil {
					return 0, nil, fmt.Errorf("record %d: order: %w", i, err)
				}
			}
		default:
			d.fail(fmt.Errorf("unknown kind %d", r.Kind))
		}
		if d.err != nil {
			return 0, nil, fmt.Errorf("record %d: %w", i, d.err)
		}
		recs = append(recs, r)
	}
	if len(d.b) > 0 {
		return 0, nil, fmt.Errorf("%d bytes after the last record", len(d.b))
	}
	return base, recs, nil
}

// decoder reads from b; after an error everything it returns is zero.
type decoder struct {
	b     []byte
	usual []string
	err   error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail(errShort)
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail(errShort)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail(errShort)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) || n > math.MaxInt32 {
		d.fail(errShort)
		return nil
	}
	s := d.b[:n:n]
	d.b = d.b[n:]
	return s
}

func (d *decoder) name() string {
	i := int(d.byte())
	switch {
	case i == 0:
		return string(d.string())
	case i < len(d.usual):
		return d.usual[i]
	}
	d.fail(fmt.Errorf("unknown name %d", i))
	return ""
}
