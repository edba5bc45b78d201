package ingest

import (
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/citywarden/citywarden"
)

// The content formats in which clients of LwM2M tell of resources.
const (
	lwm2mText      = 0
	lwm2mSenMLJSON = 110
	lwm2mSenMLCBOR = 112
	lwm2mTLV       = 11542
	lwm2mOldTLV    = 1542
)

// lwm2mIntegers are resources beside those of objects 0 to 5 that are integers: in TLV, four
// or eight bytes could be a float too.
var lwm2mIntegers = []string{"5501", "5518", "5534"}

// decodeLwM2M reads what a client of LwM2M tells of the resource, or of the instance of an
// object, that the topic names (LwM2M 1.1, 7.4). What no metric of the model is, is of no
// consequence: an instance has more resources than were asked for.
func decodeLwM2M(model *citywarden.Model, up *citywarden.Uplink, drop *dropped) (message, error) {
	text, path, _ := strings.Cut(strings.TrimPrefix(up.Topic, citywarden.DeviceLwM2M), "/")
	format, err := strconv.Atoi(text)
	var ids []uint16
	for _, s := range strings.Split(path, "/") {
		n, bad := strconv.ParseUint(s, 10, 16)
		if err == nil {
			err = bad
		}
		ids = append(ids, uint16(n))
	}
	if err != nil || len(ids) < 2 || len(ids) > 3 {
		return message{}, citywarden.Errorf(citywarden.CodeInvalid, "%q is no content format and path of a resource", clip(up.Topic))
	}
	d := lwm2m{model: model, drop: drop}
	switch format {
	case lwm2mText:
		if len(ids) < 3 {
			return message{}, citywarden.Errorf(citywarden.CodeInvalid, "a text holds one resource, and /%s is an object", path)
		}
		d.text(ids, up.Payload)
	case lwm2mSenMLJSON, lwm2mSenMLCBOR:
		return decodeJSON(model, up, drop)
	case lwm2mTLV, lwm2mOldTLV:
		err = d.tlv(ids, up.Payload, 0)
	default:
		err = citywarden.Errorf(citywarden.CodeInvalid, "content format %d is not read; answer in SenML (110, 112), TLV (11542) or text (0)", format)
	}
	return d.out, err
}

type lwm2m struct {
	model *citywarden.Model
	drop  *dropped
	out   message
}

// metric returns the metric that a resource of an instance of an object is.
func (d *lwm2m) metric(ids []uint16) *citywarden.Metric {
	path := strconv.Itoa(int(ids[0])) + "/" + strconv.Itoa(int(ids[2]))
	if ids[1] != 0 {
		path = strconv.Itoa(int(ids[0])) + "/" + strconv.Itoa(int(ids[1])) + "/" + strconv.Itoa(int(ids[2]))
	}
	if i := slices.IndexFunc(d.model.Metrics, func(m citywarden.Metric) bool { return m.IPSO == path }); i >= 0 {
		return &d.model.Metrics[i]
	}
	return nil
}

func (d *lwm2m) text(ids []uint16, b []byte) {
	m := d.metric(ids)
	if m == nil {
		d.drop.reject(1, "no metric of %s is /%d/%d/%d", d.model.Name, ids[0], ids[1], ids[2])
		return
	}
	s := strings.TrimSpace(string(b))
	switch m.Kind {
	case citywarden.KindNumber:
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			d.drop.reject(1, "%s is a number, found %s", m.Name, quote(s))
			return
		}
		d.number(m, f)
	case citywarden.KindBool:
		if s != "0" && s != "1" {
			d.drop.reject(1, "%s is a bool, 0 or 1, found %s", m.Name, quote(s))
			return
		}
		d.take(m, citywarden.Bool(s == "1"))
	default:
		d.string(m, b)
	}
}

// number takes a number in the unit that its resource has.
func (d *lwm2m) number(m *citywarden.Metric, f float64) {
	f, err := inUnit(m, f, unitOfResource(m.IPSO))
	switch {
	case err != nil:
		d.drop.reject(1, "%v", err)
	case math.IsNaN(f) || math.IsInf(f, 0):
		d.drop.reject(1, "%s is %v; leave it out when there is no value", m.Name, f)
	default:
		d.take(m, citywarden.Number(f))
	}
}

func (d *lwm2m) string(m *citywarden.Metric, b []byte) {
	if !utf8.Valid(b) {
		d.drop.reject(1, "%s is not UTF-8; is the device sending GBK?", m.Name)
		return
	}
	d.take(m, citywarden.TextValue(string(b)))
}

func (d *lwm2m) take(m *citywarden.Metric, v citywarden.Value) {
	d.out.readings = append(d.out.readings, citywarden.Reading{Metric: m.Name, Value: v})
}

// The kinds of entries of OMA-TLV (LwM2M 1.1, 7.4.5).
const (
	tlvInstance = iota // of an object, with its resources
	tlvResourceInstance
	tlvMultiple // a resource with several instances
	tlvResource
)

// tlv reads entries of the object or the instance that ids name; at is where b begins in the payload.
func (d *lwm2m) tlv(ids []uint16, b []byte, at int) error {
	for i := 0; i < len(b); {
		begin, kind := i, int(b[i]>>6)
		idBytes, sizeBytes, size := 1+int(b[i]>>5&1), int(b[i]>>3&3), int(b[i]&7)
		i++
		if len(b)-i < idBytes+sizeBytes {
			return tlvCut(at + begin)
		}
		id := uint16(b[i])
		if idBytes == 2 {
			id = binary.BigEndian.Uint16(b[i:])
		}
		i += idBytes
		if sizeBytes > 0 {
			size = 0
		}
		for range sizeBytes {
			size = size<<8 | int(b[i])
			i++
		}
		if size > len(b)-i {
			return tlvCut(at + begin)
		}
		value := b[i : i+size]
		switch {
		case kind == tlvInstance && len(ids) == 2:
			if id == ids[1] {
				if err := d.tlv(ids, value, at+i); err != nil {
					return err
				}
			}
		case kind == tlvResource && (len(ids) == 2 || ids[2] == id):
			d.value([]uint16{ids[0], ids[1], id}, value, at+begin)
		case kind == tlvResource || kind == tlvMultiple: // several values can't be one reading
		default:
			return citywarden.Errorf(citywarden.CodeInvalid, "byte %d: an instance where a resource is expected", at+begin)
		}
		i += size
	}
	return nil
}

func tlvCut(at int) error {
	return citywarden.Errorf(citywarden.CodeInvalid, "byte %d: the entry of the TLV is cut off", at)
}

// value takes the value of a resource.
func (d *lwm2m) value(ids []uint16, b []byte, at int) {
	m := d.metric(ids)
	if m == nil {
		return
	}
	resource := strconv.Itoa(int(ids[2]))
	whole := ids[0] <= 5 || slices.Contains(lwm2mIntegers, resource)
	switch {
	case m.Kind == citywarden.KindText:
		d.string(m, b)
	case m.Kind == citywarden.KindBool && len(b) == 1 && b[0] <= 1:
		d.take(m, citywarden.Bool(b[0] == 1))
	case m.Kind == citywarden.KindBool:
		d.drop.reject(1, "byte %d: %s is a bool, one byte that is 0 or 1, found %d", at, m.Name, len(b))
	case len(b) == 1:
		d.number(m, float64(int8(b[0])))
	case len(b) == 2:
		d.number(m, float64(int16(binary.BigEndian.Uint16(b))))
	case len(b) == 4 && whole:
		d.number(m, float64(int32(binary.BigEndian.Uint32(b))))
	case len(b) == 4:
		d.number(m, float64(math.Float32frombits(binary.BigEndian.Uint32(b))))
	case len(b) == 8 && whole:
		d.number(m, float64(int64(binary.BigEndian.Uint64(b))))
	case len(b) == 8:
		d.number(m, math.Float64frombits(binary.BigEndian.Uint64(b)))
	default:
		d.drop.reject(1, "byte %d: %s is a number of 1, 2, 4 or 8 bytes, found %d", at, m.Name, len(b))
	}
}
