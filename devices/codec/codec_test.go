package codec_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices/codec"
)

var model = &citywarden.Model{Name: "probe", Metrics: []citywarden.Metric{
	{Name: "x", Kind: citywarden.KindNumber}, {Name: "on", Kind: citywarden.KindBool}, {Name: "event", Kind: citywarden.KindText},
}}

func f64(f float64) *float64 { return &f }
func at(n int) *int          { return &n }

// compile returns the codec, and the mistakes as "path:at message".
func compile(s codec.Spec) (*codec.Codec, string) {
	var b strings.Builder
	c := codec.Compile(&s, model, func(path string, at int, format string, args ...any) {
		fmt.Fprintf(&b, "%s:%d %s\n", path, at, fmt.Sprintf(format, args...))
	})
	return c, b.String()
}

// shown writes what came out, one after the other.
func shown(d citywarden.Decoded, err error) string {
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, r := range d.Readings {
		s := fmt.Sprintf("%s=%v", r.Metric, r.Value)
		if !r.Time.IsZero() {
			s += "@" + r.Time.Format(time.RFC3339)
		}
		out = append(out, s)
	}
	if len(d.Attrs) > 0 {
		out = append(out, fmt.Sprint(d.Attrs))
	}
	return strings.Join(append(out, d.Rejected...), " ")
}

func TestDecode(t *testing.T) {
	x := func(f codec.Field) codec.Field { f.Metric = "x"; return f }
	one := func(f codec.Field) codec.Spec { return codec.Spec{Fields: []codec.Field{x(f)}} }
	for _, tt := range []struct {
		name string
		spec codec.Spec
		hex  string
		want string
	}{
		{"uint, most significant byte first", one(codec.Field{Bits: 16}), "0102", "x=258"},
		{"uint, least significant byte first", one(codec.Field{Bits: 16, Order: "little"}), "0102", "x=513"},
		{"24 bits", one(codec.Field{Bits: 24, Order: "little"}), "010203", "x=197121"},
		{"int", one(codec.Field{Type: "int", Bits: 12}), "fff0", "x=-1"},
		{"int of 64 bits", one(codec.Field{Type: "int", Bits: 64}), "fffffffffffffffe", "x=-2"},
		{"float", one(codec.Field{Type: "float", Bits: 32}), "3fc00000", "x=1.5"},
		{"double, little", one(codec.Field{Type: "float", Bits: 64, Order: "little"}), "000000000000f83f", "x=1.5"},
		{"no number", one(codec.Field{Type: "float", Bits: 32}), "7fc00000", "byte 0: x is NaN, which is no number"},
		{"BCD", one(codec.Field{Type: "bcd", Bits: 24, Scale: f64(0.01)}), "012345", "x=123.45"},
		{"BCD, little", one(codec.Field{Type: "bcd", Bits: 32, Order: "little", Scale: f64(0.01)}), "86010000", "x=1.86"},
		{"no BCD", one(codec.Field{Type: "bcd", Bits: 8}), "1a", "byte 0: x is 0x1A, which is no BCD"},
		{"scale and add", one(codec.Field{Bits: 8, Scale: f64(0.5), Add: f64(-40)}), "7f", "x=23.5"},
		{"a scale that is a decimal", one(codec.Field{Bits: 16, Scale: f64(0.1)}), "021a", "x=53.8"},
		{"too short", one(codec.Field{Bits: 16}), "01", "byte 0: x has 2 bytes, the payload ends after byte 1"},
		{"too long", one(codec.Field{Bits: 8}), "010203", "byte 1: 2 bytes follow the last field"},
		{"nothing", one(codec.Field{Bits: 8}), "", "byte 0: x has 1 bytes, the payload ends after byte 0"},
		{"at the end", codec.Spec{Fields: []codec.Field{x(codec.Field{Bits: 8, Offset: at(-1)})}}, "010203", "x=3"},
		{"before the beginning", codec.Spec{Fields: []codec.Field{x(codec.Field{Bits: 8, Offset: at(-4)})}}, "010203", "byte 3: x is at byte -4, the payload has 3"},
		{"a bit of a byte, most significant first", codec.Spec{Fields: []codec.Field{{Type: "bool", Metric: "on", Offset: at(1), Bit: 1}}}, "0040", "on=true"},
		{"a bit of a byte, least significant first", codec.Spec{Order: "little", Fields: []codec.Field{{Type: "bool", Metric: "on", Offset: at(1), Bit: 6}}}, "0040", "on=true"},
		{"bits one after the other", codec.Spec{Fields: []codec.Field{{Bits: 3}, x(codec.Field{Bits: 5}), {Type: "bool", Metric: "on"}, {Bits: 7}}}, "f4ff", "x=20 on=true"},
		{"bits across bytes, little", codec.Spec{Order: "little", Fields: []codec.Field{{Bits: 4}, x(codec.Field{Bits: 12})}}, "f512", "x=303"},
		{"enum", codec.Spec{Fields: []codec.Field{{Bits: 8, Enum: []codec.Choice{{0, nil}, {11, "vacated"}}, Metric: "event"}}}, "0b", "event=vacated"},
		{"enum that says nothing", codec.Spec{Fields: []codec.Field{{Bits: 8, Enum: []codec.Choice{{0, nil}, {11, "vacated"}}, Metric: "event"}}}, "00", ""},
		{"enum without it", codec.Spec{Fields: []codec.Field{{Bits: 8, Enum: []codec.Choice{{11, "vacated"}}, Metric: "event"}}}, "07", "byte 0: event is 7, which the model does not know"},
		{"condition", codec.Spec{Fields: []codec.Field{{Name: "kind", Bits: 8}, x(codec.Field{Bits: 8, When: "kind == 1"}), {Bits: 8, When: "kind != 1"}}}, "0107", "x=7"},
		{"condition on the port", codec.Spec{Fields: []codec.Field{x(codec.Field{Bits: 8, When: "port == 2", Scale: f64(10)}), {Bits: 8, When: "port != 2"}}}, "07", "x=70"},
		{"repeated by a count", codec.Spec{Fields: []codec.Field{{Name: "n", Bits: 8}, {Repeat: "n", Fields: []codec.Field{x(codec.Field{Bits: 8})}}}}, "020708", "x=7 x=8"},
		{"repeated three times", codec.Spec{Fields: []codec.Field{{Repeat: "3", Fields: []codec.Field{x(codec.Field{Bits: 4})}}, {Bits: 4}}}, "1230", "x=1 x=2 x=3"},
		{"repeated to the end", codec.Spec{Fields: []codec.Field{{Repeat: "end", Fields: []codec.Field{x(codec.Field{Bits: 16})}}}}, "00010002", "x=1 x=2"},
		{"repeated to the end, and torn", codec.Spec{Fields: []codec.Field{{Repeat: "end", Fields: []codec.Field{x(codec.Field{Bits: 16})}}}}, "000100", "byte 2: x has 2 bytes, the payload ends after byte 3"},
		{"a count that can't be", codec.Spec{Fields: []codec.Field{{Name: "n", Type: "int", Bits: 8}, {Name: "list", Repeat: "n", Fields: []codec.Field{x(codec.Field{Bits: 8})}}}}, "ff",
			"byte 1: list: repeat: it has to be a whole number of 0 or more that fits"},
		{"without end", codec.Spec{Fields: []codec.Field{{Name: "n", Bits: 32}, {Repeat: "60000", Fields: []codec.Field{{Bits: 8, When: "n == 9"}, {Bits: 8, When: "n == 8"}}}, x(codec.Field{Bits: 8})}}, strings.Repeat("00", 2000),
			"byte 4: more than 65536 fields; the payload repeats without end"},
		{"more often than a payload has room", codec.Spec{Fields: []codec.Field{{Name: "n", Bits: 16}, {Name: "list", Repeat: "n", Fields: []codec.Field{x(codec.Field{Bits: 8, When: "n == 9"})}}}}, "ffff",
			"byte 2: list: repeat: it has to be a whole number of 0 or more that fits"},
		{"more often than a payload has room, one in the other", codec.Spec{Fields: []codec.Field{{Name: "n", Bits: 8}, {Repeat: "n", Fields: []codec.Field{{Name: "list", Repeat: "n", Fields: []codec.Field{x(codec.Field{Bits: 8, When: "n == 9"})}}}}}}, "08",
			"byte 1: list: repeat: it has to be a whole number of 0 or more that fits"},
		{"what one repetition left out", codec.Spec{Fields: []codec.Field{{Repeat: "end", Fields: []codec.Field{
			{Name: "k", Bits: 8}, {Name: "v", Bits: 8, When: "k == 1"}, {Name: "e", Bits: 8, Enum: []codec.Choice{{0, nil}, {7, 70.0}}}, x(codec.Field{Expr: "v + e"})}}}}, "01050700000107000007",
			"x=75 x=0 x=7 x=70"},
		{"what one repetition left out, one in the other", codec.Spec{Fields: []codec.Field{{Repeat: "2", Fields: []codec.Field{{Name: "n", Bits: 8}, {Repeat: "n", Fields: []codec.Field{{Name: "v", Bits: 8}}}, x(codec.Field{Expr: "v"})}}}}, "010500", "x=5 x=0"},
		{"what the fields after a repetition know", codec.Spec{Fields: []codec.Field{{Repeat: "2", Fields: []codec.Field{{Name: "v", Bits: 8}}}, x(codec.Field{Expr: "v"})}}, "0506", "x=6"},
		{"a checksum of each part", codec.Spec{Fields: []codec.Field{{Repeat: "end", Fields: []codec.Field{{Name: "start", Expr: "at"}, x(codec.Field{Bits: 8}), {Bits: 8, Checksum: "sum8", From: "start"}}}}}, "05050606", "x=5 x=6"},
		{"checksums of the same again and again", codec.Spec{Fields: []codec.Field{{Repeat: "end", Fields: []codec.Field{x(codec.Field{Bits: 8}), {Bits: 8, Checksum: "xor8"}}}}}, "0505" + strings.Repeat("0000", 100),
			"byte 115: the uint is a checksum; those before are of more than 16 times the payload"},
		{"fields inside of fields", codec.Spec{Fields: []codec.Field{{Repeat: "end", Fields: []codec.Field{{Name: "n", Bits: 8}, {Repeat: "n", Fields: []codec.Field{x(codec.Field{Bits: 8, Expr: "value * 10 + index"})}}}}}}, "0101020203",
			"x=10 x=20 x=31"},
		{"times of samples", codec.Spec{Fields: []codec.Field{{Name: "utc", Bits: 32}, {Repeat: "end", Fields: []codec.Field{x(codec.Field{Bits: 8, Time: "utc - index * 60"})}}}}, "5d1966b60102",
			"x=1@2019-07-01T01:49:42Z x=2@2019-07-01T01:48:42Z"},
		{"time of all", codec.Spec{Time: "utc", Fields: []codec.Field{x(codec.Field{Bits: 8}), {Name: "utc", Bits: 32}}}, "015d1966b6", "x=1@2019-07-01T01:49:42Z"},
		{"time in milliseconds", codec.Spec{Time: "utc", Fields: []codec.Field{x(codec.Field{Bits: 8}), {Name: "utc", Bits: 64}}}, "010000016bab3936f0", "x=1@2019-07-01T01:49:42Z"},
		{"no time", codec.Spec{Time: "utc", Fields: []codec.Field{x(codec.Field{Bits: 8}), {Name: "utc", Bits: 32}}}, "0100000000", "x=1"},
		{"time before the arrival", codec.Spec{Time: "received - age", Fields: []codec.Field{x(codec.Field{Bits: 8}), {Name: "age", Bits: 8}}}, "013c", "x=1@2026-11-26T07:59:00Z"},
		{"a date", codec.Spec{Time: "date(2000 + y, m, d, 0, 0, 0)", Fields: []codec.Field{{Name: "y", Bits: 8}, {Name: "m", Bits: 8}, {Name: "d", Bits: 8}, x(codec.Field{Bits: 8})}}, "13070109", "x=9@2019-07-01T00:00:00Z"},
		{"no date", codec.Spec{Time: "date(2000 + y, m, d, 0, 0, 0)", Fields: []codec.Field{{Name: "y", Bits: 8}, {Name: "m", Bits: 8}, {Name: "d", Bits: 8}, x(codec.Field{Bits: 8})}}, "130d0109", "x=9"},
		{"computed", codec.Spec{Fields: []codec.Field{{Name: "a", Bits: 8}, {Name: "b", Bits: 8}, x(codec.Field{Expr: "a * 256 + b"}), {Metric: "on", Expr: "bit(a, 0)"}}}, "0102", "x=258 on=true"},
		{"no value", codec.Spec{Fields: []codec.Field{{Name: "a", Bits: 8}, x(codec.Field{Expr: "1 / a"})}}, "00", "byte 1: x: the expression has no value, like 1/0"},
		{"texts", codec.Spec{Fields: []codec.Field{{Type: "ascii", Bytes: "4", Attribute: "serial"}, {Type: "bytes", Bytes: "2", Attribute: "id"}, {Type: "bytes", Bytes: "end", Order: "little", Attribute: "rest"}}}, "4142200001ff0203",
			"map[id:01FF rest:0302 serial:AB]"},
		{"no text", codec.Spec{Fields: []codec.Field{{Type: "ascii", Bytes: "end", Attribute: "serial"}}}, "ff", "byte 0: serial is not UTF-8"},
		{"as long as a field says", codec.Spec{Fields: []codec.Field{{Name: "n", Bits: 8}, {Type: "ascii", Bytes: "n", Metric: "event"}, x(codec.Field{Bits: 8})}}, "02616209", "event=ab x=9"},
		{"a constant", codec.Spec{Fields: []codec.Field{{Bits: 8, Equals: f64(0x68)}, x(codec.Field{Bits: 8})}}, "6901", "byte 0: the uint is 105 (0x69), and has to be 104 (0x68)"},
		{"sum8", codec.Spec{Fields: []codec.Field{x(codec.Field{Bits: 16}), {Bits: 8, Checksum: "sum8"}}}, "ff0403", "x=65284"},
		{"xor8", codec.Spec{Fields: []codec.Field{x(codec.Field{Bits: 16}), {Bits: 8, Checksum: "xor8"}}}, "ff04fb", "x=65284"},
		{"crc16-modbus, as it is sent", codec.Spec{Fields: []codec.Field{x(codec.Field{Bits: 48}), {Bits: 16, Order: "little", Checksum: "crc16-modbus"}}}, "010300000001840a", "x=1.112396529665e+12"},
		{"crc16-ccitt", codec.Spec{Fields: []codec.Field{{Type: "ascii", Bytes: "9", Metric: "event"}, {Bits: 16, Checksum: "crc16-ccitt"}}}, "31323334353637383929b1", "event=123456789"},
		{"crc16-xmodem", codec.Spec{Fields: []codec.Field{{Type: "ascii", Bytes: "9", Metric: "event"}, {Bits: 16, Checksum: "crc16-xmodem"}}}, "31323334353637383931c3", "event=123456789"},
		{"crc8", codec.Spec{Fields: []codec.Field{{Type: "ascii", Bytes: "9", Metric: "event"}, {Bits: 8, Checksum: "crc8"}}}, "313233343536373839f4", "event=123456789"},
		{"crc32", codec.Spec{Fields: []codec.Field{{Type: "ascii", Bytes: "9", Metric: "event"}, {Bits: 32, Checksum: "crc32"}}}, "313233343536373839cbf43926", "event=123456789"},
		{"a wrong checksum", codec.Spec{Fields: []codec.Field{{Bits: 8}, x(codec.Field{Bits: 8}), {Bits: 8, Checksum: "sum8", From: "1"}}}, "ff0403", "byte 2: the uint is 0x03, the sum8 of bytes 1 to 1 is 0x04"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, wrong := compile(tt.spec)
			if wrong != "" {
				t.Fatal(wrong)
			}
			payload, err := hex.DecodeString(tt.hex)
			if err != nil {
				t.Fatal(err)
			}
			got := shown(c.Decode(citywarden.RawPayload{Bytes: payload, Port: 2, Received: time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)}))
			if got != tt.want {
				t.Errorf("decoded %s, want %s", got, tt.want)
			}
		})
	}
}

func TestDecodeJSON(t *testing.T) {
	c, wrong := compile(codec.Spec{Format: "json", Time: "ts", Fields: []codec.Field{
		{Name: "ts", Key: "time"}, {Key: "data.level", Metric: "x", Scale: f64(0.001)}, {Key: "open", Type: "bool", Metric: "on"},
		{Key: "id", Type: "ascii", Attribute: "serial"}, {Key: "list", Repeat: "end", Fields: []codec.Field{{Key: "v", Metric: "x", Time: "ts - index"}}},
	}})
	if wrong != "" {
		t.Fatal(wrong)
	}
	for _, tt := range []struct{ payload, want string }{
		{`{"time": 1561945782, "data": {"level": "1500"}, "open": 1, "id": 7, "more": []}`, "x=1.5@2019-07-01T01:49:42Z on=true@2019-07-01T01:49:42Z map[serial:7]"},
		{`{"list": [{"v": 1}, {"v": 2}], "time": 1561945782, "data": null}`, "x=1@2019-07-01T01:49:42Z x=2@2019-07-01T01:49:41Z"},
		{`{"data": {"level": "high"}, "open": false}`, `on=false data.level is "high", and no number`},
		{`{"list": 1}`, "list is no array"},
		{`{"other": 1}`, "byte 0: the JSON has nothing of what the codec reads"},
		{`[1]`, "byte 0: the JSON has nothing of what the codec reads"},
		{`{"open": tru}`, "byte 12: invalid character '}' in literal true (expecting 'e')"},
		{`{"open": true} x`, "byte 15: something follows the JSON"},
		{``, "byte 0: not JSON: EOF"},
	} {
		if got := shown(c.Decode(citywarden.RawPayload{Bytes: []byte(tt.payload)})); got != tt.want {
			t.Errorf("%s: decoded %s, want %s", tt.payload, got, tt.want)
		}
	}
}

// TestDecodeJSONAgain: what one element of an array says is not the next one's.
func TestDecodeJSONAgain(t *testing.T) {
	c, wrong := compile(codec.Spec{Format: "json", Fields: []codec.Field{{Key: "list", Repeat: "end", Fields: []codec.Field{
		{Name: "t", Key: "t"}, {Key: "in", Fields: []codec.Field{{Name: "u", Key: "u"}}}, {Metric: "x", Expr: "t * 2 + u", When: "bcd(t) >= 0"},
	}}}})
	if wrong != "" {
		t.Fatal(wrong)
	}
	for _, tt := range []struct{ payload, want string }{
		{`{"list": [{"t": 5, "in": {"u": 1}}, {}, {"in": {"u": 3}}]}`, "x=11 x=0 x=3"},
		{`{"list": [{"t": 10}]}`, "x: when: not a byte of BCD"},
	} {
		if got := shown(c.Decode(citywarden.RawPayload{Bytes: []byte(tt.payload)})); !strings.HasSuffix(got, tt.want) {
			t.Errorf("%s: decoded %s, want %s", tt.payload, got, tt.want)
		}
	}
}

func TestMistakes(t *testing.T) {
	x := codec.Field{Bits: 8, Metric: "x"}
	for _, tt := range []struct {
		name string
		spec codec.Spec
		want string
	}{
		{"nothing", codec.Spec{}, "a codec has at least one field"},
		{"for nothing", codec.Spec{Fields: []codec.Field{{Bits: 8}}}, "no field is a metric or an attribute"},
		{"format", codec.Spec{Format: "jason", Fields: []codec.Field{x}}, `format:0 unknown format "jason"; did you mean "json"?`},
		{"order", codec.Spec{Order: "litle", Fields: []codec.Field{x}}, `order:0 unknown byte order "litle"; did you mean "little"?`},
		{"type", codec.Spec{Fields: []codec.Field{{Type: "unit", Bits: 8, Metric: "x"}}}, `fields[0].type:0 unknown type "unit"; did you mean "uint"?`},
		{"length", codec.Spec{Fields: []codec.Field{{Metric: "x"}}}, "fields[0]:0 the field has no bits, bytes or expr"},
		{"two lengths", codec.Spec{Fields: []codec.Field{{Bits: 8, Bytes: "1", Metric: "x"}}}, "a field has bits or bytes, not both"},
		{"too long", codec.Spec{Fields: []codec.Field{{Bits: 65, Metric: "x"}}}, "fields[0].bits:0 65 bits; a number has 64 at most"},
		{"float", codec.Spec{Fields: []codec.Field{{Type: "float", Bits: 16, Metric: "x"}}}, "a float has 32 or 64 bits"},
		{"BCD", codec.Spec{Fields: []codec.Field{{Type: "bcd", Bits: 7, Metric: "x"}}}, "a digit of BCD has 4 bits"},
		{"metric", codec.Spec{Fields: []codec.Field{{Bits: 8, Metric: "y"}}}, `fields[0].metric:0 the model has no metric "y"`},
		{"kind", codec.Spec{Fields: []codec.Field{{Bits: 8, Metric: "on"}}}, "fields[0].metric:0 on is a bool, the field a number"},
		{"both", codec.Spec{Fields: []codec.Field{{Bits: 8, Metric: "x", Attribute: "y"}}}, "a metric or an attribute, not both"},
		{"name", codec.Spec{Fields: []codec.Field{{Bits: 8, Name: "size", Metric: "x"}}}, `a field can't be called "size"`},
		{"name of another kind", codec.Spec{Fields: []codec.Field{{Bits: 8, Name: "a", Metric: "x"}, {Type: "bool", Name: "a"}}}, "field a is there already, as a number"},
		{"unknown name", codec.Spec{Fields: []codec.Field{x, {When: "a > 1", Bits: 8}}}, "fields[1].when:0 unknown name a"},
		{"name of a later field", codec.Spec{Fields: []codec.Field{{When: "a > 1", Bits: 8, Metric: "x"}, {Name: "a", Bits: 8}}}, "fields[0].when:0 unknown name a"},
		{"syntax", codec.Spec{Fields: []codec.Field{x, {When: "size >", Bits: 8}}}, "fields[1].when:5 unexpected token EOF"},
		{"no condition", codec.Spec{Fields: []codec.Field{x, {When: "size", Bits: 8}}}, "fields[1].when:0 this has to be a bool, and is a number"},
		{"a range", codec.Spec{Fields: []codec.Field{x, {When: "size in 1..2000000000", Bits: 8}}}, "is not part of the codec language"},
		{"a predicate", codec.Spec{Fields: []codec.Field{x, {When: "all([1, 2], # > 1)", Bits: 8}}}, "fields[1].when:12 this is not part of the codec language"},
		{"a pattern", codec.Spec{Fields: []codec.Field{{Name: "s", Type: "ascii", Bytes: "1", Metric: "event"}, {When: "s matches '(a*)*b'", Bits: 8}}}, "matches is not part of the codec language"},
		{"texts that grow", codec.Spec{Fields: []codec.Field{{Name: "s", Type: "ascii", Bytes: "1", Metric: "event"}, {Attribute: "long", Expr: "s + s"}}}, "+ of what may be a text is not part"},
		{"a member", codec.Spec{Fields: []codec.Field{x, {Attribute: "a", Expr: "[1, 2][0]"}}}, "is not part of the codec language"},
		{"let", codec.Spec{Fields: []codec.Field{x, {Attribute: "a", Expr: "let a = 1; a"}}}, "is not part of the codec language"},
		{"nested", codec.Spec{Fields: []codec.Field{x, {Attribute: "a", Expr: strings.Repeat("(", 500) + "1" + strings.Repeat(")", 500)}}}, "characters"},
		{"checksum", codec.Spec{Fields: []codec.Field{x, {Bits: 16, Checksum: "crc-modbus"}}}, `unknown checksum "crc-modbus"`},
		{"length of a checksum", codec.Spec{Fields: []codec.Field{x, {Bits: 8, Checksum: "crc16-modbus"}}}, "crc16-modbus has 16 bits, the field 8"},
		{"frame", codec.Spec{Fields: []codec.Field{{Bits: 8, Fields: []codec.Field{x}}}}, "what has fields is only their frame"},
		{"deep", codec.Spec{Fields: []codec.Field{{Fields: []codec.Field{{Fields: []codec.Field{{Fields: []codec.Field{{Fields: []codec.Field{x}}}}}}}}}}, "fields stand at most 4 deep"},
		{"many", codec.Spec{Fields: make([]codec.Field, 600)}, "a codec has at most 512 fields"},
		{"bits in JSON", codec.Spec{Format: "json", Fields: []codec.Field{x}}, "in JSON a field has a key"},
		{"a key in bytes", codec.Spec{Fields: []codec.Field{{Key: "a", Bits: 8, Metric: "x"}}}, "a key is of JSON"},
	} {
		if _, got := compile(tt.spec); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s\nis not in\n%s", tt.name, tt.want, got)
		}
	}
}

// FuzzDecode: whatever comes in, a codec ends soon and what it returns is bounded.
func FuzzDecode(f *testing.F) {
	all, wrong := compile(codec.Spec{Time: "utc", Fields: []codec.Field{
		{Name: "n", Bits: 4}, {Name: "k", Bits: 4, Enum: []codec.Choice{{1, 1.0}, {2, 2.0}, {3, nil}}}, {Name: "utc", Bits: 32, When: "k == 1"},
		{Repeat: "n * k", Fields: []codec.Field{{Name: "v", Type: "int", Bits: 12, Metric: "x", Time: "utc - index"}, {Type: "bool", Metric: "on"}, {Bits: 3}}},
		{Repeat: "end", Fields: []codec.Field{
			{Name: "n2", Bits: 8}, {Name: "s", Type: "ascii", Bytes: "n2", Metric: "event"}, {Type: "float", Bits: 32, Order: "little", Metric: "x", When: "n2 > 3"},
			{Repeat: "n2", Fields: []codec.Field{{Type: "bcd", Bits: 4, Metric: "x", Expr: "value / n2"}}},
			{Metric: "on", Expr: "bit(n2, 1) or bits(n2, 2, 3) == mod(n2, 5) or byte(-n2) == 1"},
		}},
	}})
	if wrong != "" {
		f.Fatal(wrong)
	}
	js, wrong := compile(codec.Spec{Format: "json", Fields: []codec.Field{
		{Name: "a", Key: "a.b", Metric: "x"}, {Key: "l", Repeat: "end", Fields: []codec.Field{{Key: "v", Type: "ascii", Metric: "event"}, {Repeat: "end", Key: "m", Fields: []codec.Field{{Metric: "on", Type: "bool"}}}}}, {Metric: "on", Expr: "a > 1"},
	}})
	if !strings.Contains(wrong, "the field has no key and no expr") {
		f.Fatal(wrong)
	}
	f.Add([]byte("\x215d1966b6\x02ab"), 1)
	f.Add([]byte{0x11, 0, 0, 0, 1, 0x23, 0x40, 4, 'a', 'b', 'c', 'd', 0, 0, 0, 0, 0x12, 0x34}, 7)
	f.Add([]byte(`{"a": {"b": 1}, "l": [{"v": "x", "m": [true]}]}`), 0)
	f.Fuzz(func(t *testing.T, payload []byte, port int) {
		for _, c := range []*codec.Codec{all, js} {
			begin := time.Now()
			got, err := c.Decode(citywarden.RawPayload{Bytes: payload, Port: port, Received: begin})
			if took := time.Since(begin); took > 10*time.Second {
				t.Fatalf("took %s", took)
			}
			if len(got.Readings) > 4096 || len(got.Rejected) > 4097 {
				t.Fatalf("%d readings, %d rejected", len(got.Readings), len(got.Rejected))
			}
			for _, r := range got.Readings {
				if r.Value.Kind() == citywarden.KindText && len(r.Value.String()) > 2000 {
					t.Fatalf("a text of %d bytes", len(r.Value.String()))
				}
			}
			if err != nil && err.Error() == "" {
				t.Fatal("an error that says nothing")
			}
		}
	})
}

// FuzzCompile: an expression is refused or has a value soon.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{"v * 2 + at", "bit(v, 3) ? 1 : 0", "v in [1, 2]", "date(2000, 1, 1, 0, 0, 0)", "lower('A') == 'a'", "byte(size - 1) ** 2", "1..9", "max(1, v)", "-v ?? 1"} {
		f.Add(s, []byte{1, 2})
	}
	f.Fuzz(func(t *testing.T, text string, payload []byte) {
		begin := time.Now()
		c, wrong := compile(codec.Spec{Fields: []codec.Field{{Name: "v", Bits: 8}, {Metric: "x", Expr: text}, {Type: "bytes", Bytes: "end"}}})
		if wrong == "" {
			_, _ = c.Decode(citywarden.RawPayload{Bytes: payload}) // any answer will do
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Fatalf("%q took %s", text, took)
		}
	})
}
