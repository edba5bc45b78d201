package citywarden

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The topics of what edge nodes of Sparkplug B send once it is in the log.
const (
	DeviceSparkplug = "v1/devices/me/sparkplug" // data and births, with the names and types of all metrics
	DeviceMissing   = "v1/devices/me/missing"   // how many messages of a device got lost on their way, a number: by their own numbers

	// What a node says of a device behind it: DBIRTH, DDATA or DDEATH, "/", and what the node calls it;
	// NDEATH is the node's own death, said of each of its devices.
	GatewaySparkplug = "v1/gateway/sparkplug/"
)

// Metrics of Sparkplug B with a meaning of their own.
const (
	SparkplugBdSeq   = "bdSeq"                // of a birth and of the death that belongs to it
	SparkplugRebirth = "Node Control/Rebirth" // asks a node for its births
)

// SparkplugType is the data type of a metric of Sparkplug B (3.0, 6.4.16).
type SparkplugType uint32

// The data types of which there can be readings.
const (
	SparkplugInt8 SparkplugType = iota + 1
	SparkplugInt16
	SparkplugInt32
	SparkplugInt64
	SparkplugUInt8
	SparkplugUInt16
	SparkplugUInt32
	SparkplugUInt64
	SparkplugFloat
	SparkplugDouble
	SparkplugBoolean
	SparkplugString
	SparkplugDateTime
	SparkplugText
	SparkplugUUID
)

var sparkplugTypes = [...]string{
	"unknown", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float", "Double", "Boolean", "String", "DateTime", "Text",
	"UUID", "DataSet", "Bytes", "File", "Template", "PropertySet", "PropertySetList", "Int8Array", "Int16Array", "Int32Array", "Int64Array",
	"UInt8Array", "UInt16Array", "UInt32Array", "UInt64Array", "FloatArray", "DoubleArray", "BooleanArray", "StringArray", "DateTimeArray",
}

func (t SparkplugType) String() string {
	if int(t) < len(sparkplugTypes) {
		return sparkplugTypes[t]
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// SparkplugPayload is the payload of a message of Sparkplug B (3.0, 6.4).
type SparkplugPayload struct {
	Time    uint64 // in milliseconds since 1970, 0 for none
	Seq     uint64
	HasSeq  bool
	Metrics []SparkplugMetric
	rest    []byte // fields of no consequence here
}

// SparkplugMetric is one metric of a SparkplugPayload.
type SparkplugMetric struct {
	Name     string
	Alias    uint64
	HasAlias bool
	Time     uint64 // in milliseconds since 1970, 0 for none
	Type     SparkplugType
	Null     bool
	Quality  uint64 // the property Quality: 0 bad, 192 good, 500 stale; 192 when there is none
	rest     []byte // fields of no consequence here

	value protoField
	props protoField
}

// The fields of the messages (sparkplug_b.proto).
const (
	payloadTime, payloadMetrics, payloadSeq = 1, 2, 3

	metricName, metricAlias, metricTime, metricType, metricNull, metricProperties                   = 1, 2, 3, 4, 7, 9
	metricInt, metricLong, metricFloat, metricDouble, metricBool, metricString, metricLast protoNum = 10, 11, 12, 13, 14, 15, 19

	qualityGood = 192

	maxSparkplugMetrics = 16384 // of one payload; each takes a hundred times the memory that it may have bytes
)

// ParseSparkplug reads a payload; the error says at which byte it is none. What it
// returns refers to b.
func ParseSparkplug(b []byte) (SparkplugPayload, error) {
	var p SparkplugPayload
	err := protoFields(b, 0, func(f protoField) error {
		switch f.num {
		case payloadTime:
			p.Time = f.n
		case payloadSeq:
			p.Seq, p.HasSeq = f.n, true
		case payloadMetrics:
			if len(p.Metrics) == maxSparkplugMetrics {
				return f.errorf("a payload has at most %d metrics", maxSparkplugMetrics)
			}
			m, err := parseSparkplugMetric(f)
			if err != nil {
				return err
			}
			p.Metrics = append(p.Metrics, m)
			return nil
		default:
			p.rest = append(p.rest, f.raw...)
			return nil
		}
		return f.want(protoVarint)
	})
	return p, err
}

func parseSparkplugMetric(of protoField) (SparkplugMetric, error) {
	m := SparkplugMetric{Quality: qualityGood}
	if err := of.want(protoBytes); err != nil {
		return m, err
	}
	err := protoFields(of.data, of.at, func(f protoField) error {
		switch {
		case f.num == metricName:
			m.Name = string(f.data)
			if !utf8.Valid(f.data) {
				return f.errorf("the name of a metric is not UTF-8")
			}
			return f.want(protoBytes)
		case f.num == metricAlias:
			m.Alias, m.HasAlias = f.n, true
		case f.num == metricTime:
			m.Time = f.n
		case f.num == metricType:
			m.Type = SparkplugType(f.n)
		case f.num == metricNull:
			m.Null = f.n != 0
		case f.num == metricProperties:
			m.props = f
			return m.properties(f)
		case f.num >= metricInt && f.num <= metricLast:
			m.value = f
			return nil
		default:
			m.rest = append(m.rest, f.raw...)
			return nil
		}
		return f.want(protoVarint)
	})
	return m, err
}

// properties looks for Quality.
func (m *SparkplugMetric) properties(f protoField) error {
	if err := f.want(protoBytes); err != nil {
		return err
	}
	var keys []string
	var values []protoField
	err := protoFields(f.data, f.at, func(f protoField) error {
		switch f.num {
		case 1:
			keys = append(keys, string(f.data))
		case 2:
			values = append(values, f)
		default:
			return nil
		}
		return f.want(protoBytes)
	})
	if i := slices.Index(keys, "Quality"); err == nil && i >= 0 && i < len(values) {
		err = protoFields(values[i].data, values[i].at, func(f protoField) error {
			if f.num == 3 || f.num == 4 { // int_value, long_value
				m.Quality = f.n
			}
			return nil
		})
	}
	return err
}

// Append appends the payload to b.
func (p *SparkplugPayload) Append(b []byte) []byte {
	if p.Time > 0 {
		b = appendProto(b, payloadTime, p.Time)
	}
	var one []byte
	for i := range p.Metrics {
		one = p.Metrics[i].append(one[:0])
		b = appendProtoBytes(b, payloadMetrics, one)
	}
	if p.HasSeq {
		b = appendProto(b, payloadSeq, p.Seq)
	}
	return append(b, p.rest...)
}

func (m *SparkplugMetric) append(b []byte) []byte {
	if m.Name != "" {
		b = appendProtoBytes(b, metricName, []byte(m.Name))
	}
	if m.HasAlias {
		b = appendProto(b, metricAlias, m.Alias)
	}
	if m.Time > 0 {
		b = appendProto(b, metricTime, m.Time)
	}
	if m.Type > 0 {
		b = appendProto(b, metricType, uint64(m.Type))
	}
	if m.Null {
		b = appendProto(b, metricNull, 1)
	}
	b = append(append(b, m.rest...), m.props.raw...)
	return append(b, m.value.raw...)
}

// Value returns what m is; that of a DateTime is the number of milliseconds since
// 1970. The error says why there is none, and continues a sentence that begins with the name.
func (m *SparkplugMetric) Value() (Value, error) {
	v := &m.value
	t := m.Type
	if t == 0 { // where there was no birth the field tells, but not whether an integer has a sign
		t = map[protoNum]SparkplugType{metricFloat: SparkplugFloat, metricDouble: SparkplugDouble, metricBool: SparkplugBoolean, metricString: SparkplugString}[v.num]
	}
	if v.num == 0 {
		return Value{}, fmt.Errorf("has no value; send is_null where there is none")
	}
	whole := v.wire == protoVarint && (v.num == metricInt || v.num == metricLong)
	switch {
	case t == 0:
		return Value{}, fmt.Errorf("has no datatype; send it in the birth")
	case t > SparkplugUUID:
		return Value{}, fmt.Errorf("is a %s, which can't be a reading; send its parts as metrics of their own", t)
	case t == SparkplugInt8 && whole:
		return Number(float64(int8(v.n))), nil
	case t == SparkplugInt16 && whole:
		return Number(float64(int16(v.n))), nil
	case t == SparkplugInt32 && whole:
		return Number(float64(int32(v.n))), nil
	case t == SparkplugInt64 && whole:
		return Number(float64(int64(v.n))), nil
	case (t >= SparkplugUInt8 && t <= SparkplugUInt64 || t == SparkplugDateTime) && whole:
		return Number(float64(v.n)), nil
	case t == SparkplugFloat && v.num == metricFloat && v.wire == protoFixed32:
		return finite(float64(math.Float32frombits(uint32(v.n))))
	case (t == SparkplugDouble || t == SparkplugFloat) && v.num == metricDouble && v.wire == protoFixed64:
		return finite(math.Float64frombits(v.n))
	case t == SparkplugBoolean && v.num == metricBool && v.wire == protoVarint:
		return Bool(v.n != 0), nil
	case (t == SparkplugString || t == SparkplugText || t == SparkplugUUID) && v.num == metricString && v.wire == protoBytes:
		if !utf8.Valid(v.data) {
			return Value{}, fmt.Errorf("is not UTF-8; is the device sending GBK?")
		}
		return TextValue(string(v.data)), nil
	}
	return Value{}, fmt.Errorf("is a %s, and field %d holds no such value", t, v.num)
}

func finite(f float64) (Value, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Value{}, fmt.Errorf("is %v; send is_null where there is no value", f)
	}
	return Number(f), nil
}

// Set makes v the value of m, in the type of m or, where that is 0, in the one that fits v.
func (m *SparkplugMetric) Set(v Value) error {
	if m.Type == 0 {
		m.Type = map[Kind]SparkplugType{KindNumber: SparkplugDouble, KindBool: SparkplugBoolean, KindText: SparkplugString}[v.Kind()]
	}
	f, t := v.Float(), m.Type
	bits := map[SparkplugType]int{
		SparkplugInt8: 8, SparkplugInt16: 16, SparkplugInt32: 32, SparkplugInt64: 64, SparkplugUInt8: 8, SparkplugUInt16: 16, SparkplugUInt32: 32,
		SparkplugUInt64: 64, SparkplugDateTime: 64,
	}[t]
	var b []byte
	switch {
	case bits > 0 && v.Kind() == KindNumber:
		least, most := 0.0, math.Exp2(float64(bits))-1
		if t <= SparkplugInt64 {
			least, most = -math.Exp2(float64(bits-1)), math.Exp2(float64(bits-1))-1
		}
		if f != math.Trunc(f) || f < least || f > most || math.Abs(f) > 1<<53 {
			return Errorf(CodeInvalid, "metric %s of the device is an %s, %v is none", m.Name, t, f)
		}
		field, n := metricLong, uint64(int64(f))
		if bits <= 32 {
			field, n = metricInt, n&(1<<32-1)
		}
		b = appendProto(nil, field, n)
	case t == SparkplugFloat && v.Kind() == KindNumber:
		b = binary.LittleEndian.AppendUint32(appendTag(nil, metricFloat, protoFixed32), math.Float32bits(float32(f)))
	case t == SparkplugDouble && v.Kind() == KindNumber:
		b = binary.LittleEndian.AppendUint64(appendTag(nil, metricDouble, protoFixed64), math.Float64bits(f))
	case t == SparkplugBoolean && v.Kind() == KindBool:
		b = appendProto(nil, metricBool, uint64(v.Float()))
	case (t == SparkplugString || t == SparkplugText || t == SparkplugUUID) && v.Kind() == KindText:
		b = appendProtoBytes(nil, metricString, []byte(v.String()))
	default:
		return Errorf(CodeInvalid, "metric %s of the device is a %s, and can't be a %s", m.Name, t, v.Kind())
	}
	return protoFields(b, 0, func(f protoField) error { m.value = f; return nil })
}

// SparkplugTime returns the time that n milliseconds after 1970 are, zero for 0.
func SparkplugTime(n uint64) (time.Time, error) {
	if n == 0 {
		return time.Time{}, nil
	}
	if n <= math.MaxInt64 {
		if t, ok := UnixTime(int64(n)); ok {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("timestamp %d is no time; send milliseconds since 1970", n)
}

// IsSparkplugControl reports whether the metric called name controls a node or a device
// and measures nothing.
func IsSparkplugControl(name string) bool {
	return name == SparkplugBdSeq || strings.HasPrefix(name, "Node Control/") || strings.HasPrefix(name, "Device Control/")
}

// The wire format of protocol buffers.
type (
	protoNum  uint32
	protoWire uint8
)

const (
	protoVarint  protoWire = 0
	protoFixed64 protoWire = 1
	protoBytes   protoWire = 2
	protoFixed32 protoWire = 5
)

// protoField is one field of a message.
type protoField struct {
	num  protoNum
	wire protoWire
	at   int    // of data in the payload
	n    uint64 // unless it is protoBytes
	data []byte // of protoBytes
	raw  []byte // all of it
}

func (f *protoField) errorf(format string, args ...any) error {
	return Errorf(CodeInvalid, "byte %d: %s", f.at, fmt.Sprintf(format, args...))
}

func (f *protoField) want(w protoWire) error {
	if f.wire != w {
		return f.errorf("field %d has wire type %d, and has to have %d", f.num, f.wire, w)
	}
	return nil
}

// protoFields calls each with the fields of the message b, which begins at byte at of the payload.
func protoFields(b []byte, at int, each func(protoField) error) error {
	for i := 0; i < len(b); {
		begin := i
		cut := func() error {
			return Errorf(CodeInvalid, "byte %d: the payload is no protocol buffer of Sparkplug B: a field is cut off", at+begin)
		}
		tag, n := binary.Uvarint(b[i:])
		if n <= 0 {
			return cut()
		}
		i += n
		f := protoField{num: protoNum(tag >> 3), wire: protoWire(tag & 7), at: at + i}
		if tag>>3 == 0 || tag>>3 >= 1<<29 {
			return Errorf(CodeInvalid, "byte %d: the payload is no protocol buffer of Sparkplug B: there is no field %d", at+begin, tag>>3)
		}
		switch f.wire {
		case protoVarint:
			if f.n, n = binary.Uvarint(b[i:]); n <= 0 {
				return cut()
			}
			i += n
		case protoFixed64:
			if len(b)-i < 8 {
				return cut()
			}
			f.n = binary.LittleEndian.Uint64(b[i:])
			i += 8
		case protoFixed32:
			if len(b)-i < 4 {
				return cut()
			}
			f.n = uint64(binary.LittleEndian.Uint32(b[i:]))
			i += 4
		case protoBytes:
			size, n := binary.Uvarint(b[i:])
			if n <= 0 || size > uint64(len(b)-i-n) {
				return cut()
			}
			i += n
			f.at, f.data = at+i, b[i:i+int(size)]
			i += int(size)
		default:
			return Errorf(CodeInvalid, "byte %d: the payload is no protocol buffer of Sparkplug B: wire type %d", at+begin, f.wire)
		}
		f.raw = b[begin:i]
		if err := each(f); err != nil {
			return err
		}
	}
	return nil
}

func appendTag(b []byte, num protoNum, w protoWire) []byte {
	return binary.AppendUvarint(b, uint64(num)<<3|uint64(w))
}

func appendProto(b []byte, num protoNum, n uint64) []byte {
	return binary.AppendUvarint(appendTag(b, num, protoVarint), n)
}

func appendProtoBytes(b []byte, num protoNum, data []byte) []byte {
	return append(binary.AppendUvarint(appendTag(b, num, protoBytes), uint64(len(data))), data...)
}
