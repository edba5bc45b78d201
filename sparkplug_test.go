package citywarden_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// tahuBirth was written by Eclipse Tahu's sparkplug-payload 1.0.3.
const tahuBirth = "0880d0dfb4ab33120b0a05626453657120085807121a0a144e6f646520436f6e74726f6c2f52656269727468200b700012200a1850726f706572746965732f4861726477617265204d616b65200c7a02506912240a12496e707574732f74656d706572617475726510011881d0dfb4ab332009650000ac4112120a06636f756e74381002200150fdffffff0f12130a07636f756e7431361003200250d4fdffff0f12130a07636f756e743332100420035090ddfbff0f12180a07636f756e7436341005200458809ce8afedffffffff01120b0a0275381006200550ff01120d0a037531361007200650ffff03120f0a037533321008200758ffffffff0f120f0a03753634100920085880e497d01212140a05726174696f100a200a69000000000000d03f120b0a03776574100b200b700112100a057374617465100c200c7a03e6b9bf120c0a047768656e100d200d5800120d0a046e6f7465100e200e7a0174122e0a026964100f200f7a2436626137623831302d396461642d313164312d383062342d303063303466643433306338120e0a06616273656e74101020093801121c0a057461626c65101120108a010e0801120161180c22050a03320178120f0a04626c6f6210122011820102010212190a0573686170651013201392010b12070a016d200350012801121f0a03626164101420094a0f0a075175616c69747912040803180065000010411800"

// TestSparkplugOfTahu: what Tahu writes is read, and written again as it was read.
func TestSparkplugOfTahu(t *testing.T) {
	b, err := hex.DecodeString(tahuBirth)
	if err != nil {
		t.Fatal(err)
	}
	p, err := citywarden.ParseSparkplug(b)
	if err != nil {
		t.Fatal(err)
	}
	show := func(p citywarden.SparkplugPayload) (got []string) {
		got = append(got, fmt.Sprintf("%d seq %d %t", p.Time, p.Seq, p.HasSeq))
		for i := range p.Metrics {
			m := &p.Metrics[i]
			s := fmt.Sprintf("%s %d %s ", m.Name, m.Alias, m.Type)
			v, err := m.Value()
			switch {
			case m.Null:
				s += "null"
			case err != nil:
				s += err.Error()
			default:
				s += v.String()
			}
			if m.Time > 0 {
				s += fmt.Sprintf(" at %d", m.Time)
			}
			if m.Quality != 192 {
				s += fmt.Sprintf(" quality %d", m.Quality)
			}
			got = append(got, s)
		}
		return got
	}
	want := []string{
		"1764000000000 seq 0 true", "bdSeq 0 UInt64 7", "Node Control/Rebirth 0 Boolean false", "Properties/Hardware Make 0 String Pi",
		"Inputs/temperature 1 Float 21.5 at 1764000000001", "count8 2 Int8 -3", "count16 3 Int16 -300", "count32 4 Int32 -70000", "count64 5 Int64 -5e+09",
		"u8 6 UInt8 255", "u16 7 UInt16 65535", "u32 8 UInt32 4.294967295e+09", "u64 9 UInt64 5e+09", "ratio 10 Double 0.25", "wet 11 Boolean true",
		"state 12 String 湿", "when 13 DateTime 0", "note 14 Text t", "id 15 UUID 6ba7b810-9dad-11d1-80b4-00c04fd430c8", "absent 16 Float null",
		"table 17 DataSet is a DataSet, which can't be a reading; send its parts as metrics of their own",
		"blob 18 Bytes is a Bytes, which can't be a reading; send its parts as metrics of their own",
		"shape 19 Template is a Template, which can't be a reading; send its parts as metrics of their own",
		"bad 20 Float 9 quality 0",
	}
	if d := cmp.Diff(want, show(p)); d != "" {
		t.Error(d)
	}
	again, err := citywarden.ParseSparkplug(p.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, show(again)); d != "" {
		t.Errorf("written and read again:\n%s", d)
	}
}

func TestSparkplugThatIsNone(t *testing.T) {
	for _, c := range []struct{ hex, want string }{
		{"7b2261223a317d", "byte 0: the payload is no protocol buffer of Sparkplug B: wire type 3"}, // JSON
		{"12", "byte 0: the payload is no protocol buffer of Sparkplug B: a field is cut off"},
		{"1205", "byte 0: the payload is no protocol buffer of Sparkplug B: a field is cut off"},
		{"12030a0561", "byte 2: the payload is no protocol buffer of Sparkplug B: a field is cut off"},
		{"0a00", "byte 2: field 1 has wire type 2, and has to have 0"},
		{"0000", "byte 0: the payload is no protocol buffer of Sparkplug B: there is no field 0"},
		{"12030a01ff", "byte 4: the name of a metric is not UTF-8"},
		{"08ffffffffffffffffffff01", "byte 0: the payload is no protocol buffer of Sparkplug B: a field is cut off"},
		{"15000000", "byte 0: the payload is no protocol buffer of Sparkplug B: a field is cut off"},
	} {
		b, _ := hex.DecodeString(c.hex)
		if _, err := citywarden.ParseSparkplug(b); err == nil || err.Error() != c.want || citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("%s: %v, want %s", c.hex, err, c.want)
		}
	}
}

// TestSparkplugOfManyMetrics: a metric takes two bytes of a payload, and far more memory.
func TestSparkplugOfManyMetrics(t *testing.T) {
	if p, err := citywarden.ParseSparkplug(bytes.Repeat([]byte{0x12, 0}, 16384)); err != nil || len(p.Metrics) != 16384 {
		t.Errorf("%d metrics, %v", len(p.Metrics), err)
	}
	if _, err := citywarden.ParseSparkplug(bytes.Repeat([]byte{0x12, 0}, 16385)); err == nil || err.Error() != "byte 32770: a payload has at most 16384 metrics" {
		t.Errorf("one more: %v", err)
	}
}

func TestSparkplugSet(t *testing.T) {
	number := citywarden.Number
	for _, c := range []struct {
		kind citywarden.SparkplugType
		v    citywarden.Value
		err  string
	}{
		{0, number(2.5), ""}, {0, citywarden.Bool(true), ""}, {0, citywarden.TextValue("开"), ""},
		{citywarden.SparkplugInt8, number(-128), ""}, {citywarden.SparkplugInt16, number(-2), ""}, {citywarden.SparkplugInt32, number(-2), ""},
		{citywarden.SparkplugInt64, number(-1 << 53), ""}, {citywarden.SparkplugUInt8, number(255), ""}, {citywarden.SparkplugUInt64, number(1 << 53), ""},
		{citywarden.SparkplugUInt32, number(math.MaxUint32), ""}, {citywarden.SparkplugFloat, number(2.5), ""}, {citywarden.SparkplugDateTime, number(1764e9), ""},
		{citywarden.SparkplugBoolean, citywarden.Bool(false), ""}, {citywarden.SparkplugUUID, citywarden.TextValue("x"), ""},
		{citywarden.SparkplugInt8, number(128), "is an Int8, 128 is none"}, {citywarden.SparkplugUInt8, number(-1), "is an UInt8, -1 is none"},
		{citywarden.SparkplugInt32, number(2.5), "is an Int32, 2.5 is none"}, {citywarden.SparkplugBoolean, number(1), "is a Boolean, and can't be a number"},
		{16, number(1), "is a DataSet, and can't be a number"},
	} {
		m := citywarden.SparkplugMetric{Name: "valve", Type: c.kind}
		err := m.Set(c.v)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s = %v: %v, want %q", c.kind, c.v, err, c.err)
		}
		if err != nil {
			continue
		}
		p := citywarden.SparkplugPayload{Metrics: []citywarden.SparkplugMetric{m}}
		again, err := citywarden.ParseSparkplug(p.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := again.Metrics[0].Value(); err != nil || got != c.v {
			t.Errorf("%s = %v is read as %v, %v", c.kind, c.v, got, err)
		}
	}
}
