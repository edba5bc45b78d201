package ingest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

var testArrival = time.Date(2026, 11, 23, 8, 0, 0, 123_000_000, time.UTC)

func ptr(f float64) *float64 { return &f }

func testModel() *citywarden.Model {
	return &citywarden.Model{
		Name: "smoke-detector", Domain: citywarden.Fire, Codec: "json",
		Metrics: []citywarden.Metric{
			{Name: "smoke", Kind: citywarden.KindNumber, Min: ptr(0), Max: ptr(10)},
			{Name: "temperature", Kind: citywarden.KindNumber, Min: ptr(-40), Max: ptr(125)},
			{Name: "button", Kind: citywarden.KindBool},
			{Name: "firmware", Kind: citywarden.KindText},
		},
	}
}

// readings writes readings as "metric=value@time quality".
func readings(list []citywarden.Reading) string {
	var b strings.Builder
	for _, r := range list {
		at := "arrival"
		if !r.Time.Equal(testArrival) {
			at = r.Time.Format("2006-01-02T15:04:05.000")
		}
		fmt.Fprintf(&b, "%s=%v@%s", r.Metric, r.Value, at)
		if r.Quality != citywarden.Good {
			fmt.Fprintf(&b, " %s", r.Quality)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestJSONTelemetry(t *testing.T) {
	const whole = 1 // a message that can't be decoded counts as one reading
	tests := []struct {
		name        string
		payload     string
		want        string // readings
		rejected    int
		quarantined int
		reason      string // the whole of it
	}{
		// ThingsBoard's three forms.
		{name: "object", payload: `{"smoke":0.31,"button":true,"firmware":"v1"}`,
			want: "smoke=0.31@arrival\nbutton=true@arrival\nfirmware=v1@arrival\n"},
		{name: "ts and values", payload: `{"ts":1795420000000,"values":{"smoke":1,"temperature":-3.5e1}}`,
			want: "smoke=1@2026-11-23T07:46:40.000\ntemperature=-35@2026-11-23T07:46:40.000\n"},
		{name: "values before ts", payload: `{"values":{"smoke":1},"ts":1795420000000}`, want: "smoke=1@2026-11-23T07:46:40.000\n"},
		{name: "array of objects", payload: `[{"smoke":1},{"temperature":2}]`, want: "smoke=1@arrival\ntemperature=2@arrival\n"},
		{name: "array of both", payload: ` [ {"ts":1795420000000,"values":{"smoke":1}} , {"smoke":2} ] `,
			want: "smoke=1@2026-11-23T07:46:40.000\nsmoke=2@arrival\n"},
		{name: "nothing in it", payload: `{}`},
		{name: "empty array", payload: `[]`},
		{name: "escaped key and text", payload: `{"smok\u0065":1,"firmware":"\u7248\n\"1\""}`, want: "smoke=1@arrival\nfirmware=版\n\"1\"@arrival\n"},

		// Times.
		{name: "ts in seconds", payload: `{"ts":1795420000,"values":{"smoke":1}}`, want: "smoke=1@2026-11-23T07:46:40.000\n"},
		{name: "ts in seconds with a fraction", payload: `{"ts":1795420000.25,"values":{"smoke":1}}`, want: "smoke=1@2026-11-23T07:46:40.250\n"},
		{name: "ts in microseconds", payload: `{"ts":1795420000000500,"values":{"smoke":1}}`, want: "smoke=1@2026-11-23T07:46:40.000\n"},
		{name: "ts in nanoseconds", payload: `{"ts":1795420000000999999,"values":{"smoke":1}}`, want: "smoke=1@2026-11-23T07:46:40.000\n"},
		{name: "ts with an exponent", payload: `{"ts":1.79542e12,"values":{"smoke":1}}`, want: "smoke=1@2026-11-23T07:46:40.000\n"},
		{name: "4 minutes ahead", payload: `{"ts":1795421040123,"values":{"smoke":1}}`, want: "smoke=1@2026-11-23T08:04:00.123\n"},
		{name: "a day ahead", payload: `{"ts":1795507200000,"values":{"smoke":1}}`, want: "smoke=1@arrival clamped\n"},
		{name: "a day ahead and implausible", payload: `{"ts":1795507200000,"values":{"smoke":99}}`, want: "smoke=99@arrival out_of_range\n"},
		{name: "more than a day ahead", payload: `[{"ts":1795510800000,"values":{"smoke":1}},{"ts":1795420000000,"values":{"smoke":2}}]`, want: "smoke=2@2026-11-23T07:46:40.000\n", quarantined: 1,
			reason: `time 2026-11-24T09:00:00Z is more than a day ahead; set the clock of the device, or leave ts out (1 of 2 readings were taken)`},
		{name: "years late", payload: `{"ts":1500000000000,"values":{"smoke":1}}`, want: "smoke=1@2017-07-14T02:40:00.000\n"},
		{name: "ts zero", payload: `{"ts":0,"values":{"smoke":1,"temperature":2}}`, quarantined: 2,
			reason: `time 1970-01-01T00:00:00Z is before 2015; set the clock of the device, or leave ts out`},
		{name: "uptime as ts", payload: `[{"ts":86400000,"values":{"smoke":1}},{"smoke":2}]`, want: "smoke=2@arrival\n", quarantined: 1,
			reason: `time 1972-09-27T00:00:00Z is before 2015; set the clock of the device, or leave ts out (1 of 2 readings were taken)`},
		{name: "milliseconds of 2001", payload: `{"ts":1000000000000,"values":{"smoke":1}}`, quarantined: 1,
			reason: `time 2001-09-09T01:46:40Z is before 2015; set the clock of the device, or leave ts out`},
		{name: "negative ts", payload: `{"ts":-5,"values":{"smoke":1}}`, quarantined: 1,
			reason: `time 1969-12-31T23:59:55Z is before 2015; set the clock of the device, or leave ts out`},
		{name: "ts beyond everything", payload: `{"ts":99999999999999999999,"values":{"smoke":1,"temperature":2}}`, rejected: 2,
			reason: `byte 6: ts 99999999999999999999 is no time; send milliseconds since 1970`},
		{name: "ts as a string", payload: `{"ts":"1795420000000","values":{"smoke":1}}`, rejected: 1,
			reason: `byte 6: ts is a number of milliseconds, found the string "1795420000000"; send it without quotes`},
		{name: "ts null", payload: `{"ts":null,"values":{}}`, rejected: 1, reason: `byte 6: ts is a number of milliseconds, found null`},
		{name: "ts without values", payload: `{"ts":1795420000000,"smoke":1}`, want: "smoke=1@arrival\n", rejected: 1,
			reason: `"ts" without "values"; send {"ts": …, "values": {…}} (1 of 2 readings were taken)`},
		{name: "values without ts", payload: `{"values":{"smoke":1}}`, rejected: 1,
			reason: `"values" without "ts"; send {"ts": …, "values": {…}}, or the readings alone`},
		{name: "values not an object", payload: `{"ts":1795420000000,"values":[1]}`, rejected: 1, reason: `byte 29: "values" is an object, found an array`},
		{name: "beside ts and values", payload: `{"ts":1795420000000,"values":{"smoke":1},"smoke":2}`, want: "smoke=1@2026-11-23T07:46:40.000\n", rejected: 1,
			reason: `"smoke" stands beside "ts" and "values"; put it into "values" (1 of 2 readings were taken)`},

		// Metrics and their kinds.
		{name: "a slip of the pen", payload: `{"smok":0.5,"temperature":20}`, want: "temperature=20@arrival\n", rejected: 1,
			reason: `unknown metric "smok"; did you mean "smoke"? (1 of 2 readings were taken)`},
		{name: "other case", payload: `{"Temperature":20}`, rejected: 1, reason: `unknown metric "Temperature"; did you mean "temperature"?`},
		{name: "nothing like it", payload: `{"x":20}`, rejected: 1, reason: `unknown metric "x"; smoke-detector has smoke, temperature, button, firmware`},
		{name: "number in a string", payload: `{"smoke":"0.31"}`, rejected: 1, reason: `byte 9: smoke is a number, found the string "0.31"; send it without quotes`},
		{name: "number in a string for a text", payload: `{"firmware":"0.31"}`, want: "firmware=0.31@arrival\n"},
		{name: "number for a text", payload: `{"firmware":31}`, rejected: 1, reason: `byte 12: firmware is a text, found the number 31; send it in quotes`},
		{name: "number for a bool", payload: `{"button":1}`, rejected: 1, reason: `byte 10: button is a bool, found the number 1; send true or false`},
		{name: "bool for a number", payload: `{"smoke":true}`, rejected: 1, reason: `byte 9: smoke is a number, found true`},
		{name: "null", payload: `{"smoke":null,"temperature":1}`, want: "temperature=1@arrival\n"},
		{name: "nested object", payload: `{"smoke":{"value":1},"temperature":1}`, want: "temperature=1@arrival\n", rejected: 1,
			reason: `byte 9: smoke is a number, found an object (1 of 2 readings were taken)`},
		{name: "nested array", payload: `{"smoke":[1,2]}`, rejected: 1, reason: `byte 9: smoke is a number, found an array`},
		{name: "same key twice", payload: `{"smoke":1,"smoke":2}`, want: "smoke=2@arrival\n", rejected: 1,
			reason: `byte 1: "smoke" stands in one object twice; the last one counts (1 of 2 readings were taken)`},
		{name: "out of range", payload: `{"smoke":10.5,"temperature":-41}`, want: "smoke=10.5@arrival out_of_range\ntemperature=-41@arrival out_of_range\n"},
		{name: "at the edge of the range", payload: `{"smoke":10}`, want: "smoke=10@arrival\n"},
		{name: "too large a number", payload: `{"smoke":1e999}`, rejected: 1, reason: `byte 9: smoke is too large a number: 1e999`},
		{name: "very small number", payload: `{"smoke":1e-999}`, want: "smoke=0@arrival\n"},
		{name: "many digits", payload: `{"smoke":` + strings.Repeat("9", 400) + `}`, rejected: 1,
			reason: `byte 9: smoke is too large a number: ` + strings.Repeat("9", 40) + `…`},
		{name: "minus zero", payload: `{"smoke":-0.0}`, want: "smoke=-0@arrival\n"},
		{name: "GBK text", payload: "{\"firmware\":\"\xb0\xe6\",\"smoke\":1}", want: "smoke=1@arrival\n", rejected: 1,
			reason: `byte 12: firmware is not UTF-8; is the device sending GBK? (1 of 2 readings were taken)`},
		{name: "more mistakes than are told", payload: `{"aaaaa":1,"bbbbb":1,"ccccc":1,"ddddd":1,"eeeee":1,"fffff":1,"ggggg":1,"hhhhh":1}`, rejected: 8,
			reason: strings.Join([]string{
				`unknown metric "aaaaa"; smoke-detector has smoke, temperature, button, firmware`,
				`unknown metric "bbbbb"; smoke-detector has smoke, temperature, button, firmware`,
				`unknown metric "ccccc"; smoke-detector has smoke, temperature, button, firmware`,
				`unknown metric "ddddd"; smoke-detector has smoke, temperature, button, firmware`,
				`unknown metric "eeeee"; smoke-detector has smoke, temperature, button, firmware`,
				`unknown metric "fffff"; smoke-detector has smoke, temperature, button, firmware`,
				`and 2 more`}, "; ")},
		{name: "array with something else in it", payload: `[1,{"smoke":2}]`, want: "smoke=2@arrival\n", rejected: 1,
			reason: `byte 1: expected an object in the array, found the number 1 (1 of 2 readings were taken)`},

		// Not JSON, with the place.
		{name: "empty", payload: ``, rejected: whole, reason: `empty message; send a JSON object like {"smoke": …}`},
		{name: "only space", payload: " \n", rejected: whole, reason: `empty message; send a JSON object like {"smoke": …}`},
		{name: "a number", payload: `5`, rejected: whole, reason: `byte 0: expected an object or an array of objects, found '5'`},
		{name: "a word", payload: `hello`, rejected: whole, reason: `byte 0: expected an object or an array of objects, found 'h'`},
		{name: "binary", payload: "\xff\x01", rejected: whole, reason: `byte 0: expected an object or an array of objects, found byte 0xff`},
		{name: "cut off", payload: `{"smoke":0.31,"temp`, rejected: whole, reason: `byte 14: the string that begins here does not end`},
		{name: "cut off after the colon", payload: `{"smoke":`, rejected: whole, reason: `byte 9: expected a value, found the end`},
		{name: "no colon", payload: `{"smoke" 1}`, rejected: whole, reason: `byte 9: expected ':' after the key "smoke", found '1'`},
		{name: "comma at the end", payload: `{"smoke":1,}`, rejected: whole, reason: `byte 11: expected a key in double quotes, found '}'`},
		{name: "NaN", payload: `{"smoke":NaN}`, rejected: whole, reason: `byte 9: expected a value, found NaN, which is not JSON (leave a metric out when there is no value)`},
		{name: "nan", payload: `{"smoke":nan}`, rejected: whole, reason: `byte 9: expected a value, found nan, which is not JSON (leave a metric out when there is no value)`},
		{name: "minus infinity", payload: `{"smoke":-Infinity}`, rejected: whole, reason: `byte 9: expected a value, found -Infinity, which is not JSON (leave a metric out when there is no value)`},
		{name: "single quotes", payload: `{'smoke':1}`, rejected: whole, reason: `byte 1: expected a key in double quotes, found a single quote; JSON uses double quotes`},
		{name: "leading zero", payload: `{"smoke":007}`, rejected: whole, reason: `byte 9: a number may not begin with 0`},
		{name: "no digit after the point", payload: `{"smoke":1.}`, rejected: whole, reason: `byte 11: expected a digit after the decimal point, found '}'`},
		{name: "something after it", payload: `{"smoke":1}{"smoke":2}`, rejected: whole, reason: `byte 11: something follows the end of the JSON value: '{'`},
		{name: "control character", payload: "{\"firmware\":\"a\x01\"}", rejected: whole, reason: `byte 14: control character 0x01 in a string; write it as \u0001`},
		{name: "bad escape", payload: `{"firmware":"\x41"}`, rejected: whole, reason: `byte 13: unknown escape in a string`},
		{name: "deep", payload: `{"smoke":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, rejected: whole, reason: `byte 73: nested deeper than 64 levels`},
		{name: "second element is broken", payload: `[{"smoke":1},{"smoke":]`, rejected: whole, reason: `byte 22: expected a value, found ']'`},
		{name: "key is not UTF-8", payload: "{\"\xb0\xe6\":1}", rejected: whole, reason: `byte 1: a key is not UTF-8; is the device sending GBK?`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			up := citywarden.Uplink{Device: "d", Topic: "v1/devices/me/telemetry", Payload: []byte(tt.payload), Received: testArrival}
			m, _, d := decode(&citywarden.Device{}, testModel(), &up)
			if diff := cmp.Diff(tt.want, readings(m.readings)); diff != "" {
				t.Errorf("readings (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.reason, d.reason()); diff != "" {
				t.Errorf("reason (-want +got):\n%s", diff)
			}
			if d.rejected != tt.rejected || d.quarantined != tt.quarantined {
				t.Errorf("%d rejected and %d quarantined, want %d and %d", d.rejected, d.quarantined, tt.rejected, tt.quarantined)
			}
		})
	}
}

func TestStatedTime(t *testing.T) {
	for _, tt := range []struct{ payload, want string }{
		{`{"smoke":1}`, ""},
		{`{"ts":1795420000000,"values":{"smoke":1}}`, "2026-11-23T07:46:40Z"},
		{`[{"ts":1795420000000,"values":{"smoke":1}},{"smoke":2},{"ts":1795420060000,"values":{"smoke":3}}]`, "2026-11-23T07:47:40Z"},
		{`{"ts":1795507200000,"values":{"smoke":1}}`, "2026-11-24T08:00:00Z"}, // clamped
		{`{"ts":0,"values":{"smoke":1}}`, "1970-01-01T00:00:00Z"},             // quarantined
	} {
		up := citywarden.Uplink{Device: "d", Topic: "v1/devices/me/telemetry", Payload: []byte(tt.payload), Received: testArrival}
		m, _, _ := decode(&citywarden.Device{}, testModel(), &up)
		got := ""
		if !m.stated.IsZero() {
			got = m.stated.UTC().Format(time.RFC3339)
		}
		if got != tt.want {
			t.Errorf("%s states %q, want %q", tt.payload, got, tt.want)
		}
	}
}

func TestJSONAttributes(t *testing.T) {
	tests := []struct {
		payload string
		want    map[string]any
		reason  string
	}{
		{`{"fw":"1.2","slots":4,"roof":false}`, map[string]any{"fw": "1.2", "slots": 4.0, "roof": false}, ""},
		{`{"fw":"1.2","pos":{"x":1},"n":null}`, map[string]any{"fw": "1.2", "pos": `{"x":1}`}, ""},
		{`[{"fw":1}]`, nil, `byte 0: expected an object, found '['`},
		{`{"fw":}`, nil, `byte 6: expected a value, found '}'`},
	}
	for _, tt := range tests {
		up := citywarden.Uplink{Device: "d", Topic: "v1/devices/me/attributes", Payload: []byte(tt.payload), Received: testArrival}
		m, _, d := decode(&citywarden.Device{}, testModel(), &up)
		if diff := cmp.Diff(tt.want, m.attrs); diff != "" {
			t.Errorf("attributes of %s:\n%s", tt.payload, diff)
		}
		if diff := cmp.Diff(tt.reason, d.reason()); diff != "" {
			t.Errorf("reason for %s:\n%s", tt.payload, diff)
		}
		if len(m.readings) > 0 {
			t.Errorf("%s gave readings", tt.payload)
		}
	}
}

func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{"smoke":0.31,"button":true,"firmware":"v1"}`, `[{"ts":1795420000000,"values":{"smoke":1}},{"smoke":2}]`,
		`{"smoke":1e999}`, `{"a":[1,2,{"b":null}]}`, `{"firmware":"\ud83d\ude00\u00e9\\"}`, `{"smoke":-0.5E+3}`, ` { } `, `{"ts":5`, `[[]]`, "{\"\xff\":1}",
	} {
		f.Add([]byte(s))
	}
	model := testModel()
	f.Fuzz(func(t *testing.T, payload []byte) {
		up := citywarden.Uplink{Device: "d", Topic: "v1/devices/me/telemetry", Payload: payload, Received: testArrival}
		m, raw, d := decode(&citywarden.Device{}, model, &up)
		if len(raw) != len(m.readings) || d.taken != len(m.readings) {
			t.Fatalf("%d readings, %d times, %d taken", len(m.readings), len(raw), d.taken)
		}
		if (d.reason() == "") != (d.rejected+d.quarantined == 0) {
			t.Fatalf("%d rejected, %d quarantined, reason %q", d.rejected, d.quarantined, d.reason())
		}
		for _, r := range m.readings {
			if _, ok := model.Metric(r.Metric); !ok || r.Value.Kind() == 0 || r.Time.Before(earliest()) || r.Time.Sub(testArrival) > maxAhead || r.Time.Nanosecond()%1e6 != 0 {
				t.Fatalf("bad reading %+v", r)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Fatalf("reading %+v: %v", r, err)
			}
		}
		// What is JSON is what encoding/json says it is, but for the depth.
		s := scanner{b: payload}
		_, err := s.value(0)
		if err == nil {
			err = s.end()
		}
		if err != nil && strings.Contains(err.Error(), "nested deeper") {
			return
		}
		if valid := json.Valid(payload); valid != (err == nil) {
			t.Fatalf("encoding/json says valid is %t, the scanner %v", valid, err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	model := testModel()
	up := citywarden.Uplink{Device: "d", Topic: "v1/devices/me/telemetry", Payload: []byte(`{"ts":1795420000000,"values":{"smoke":0.31,"temperature":21.5,"button":false}}`), Received: testArrival}
	b.ReportAllocs()
	for b.Loop() {
		decode(nil, model, &up)
	}
}

// BenchmarkBaselineJSON only unmarshals the same payload.
func BenchmarkBaselineJSON(b *testing.B) {
	payload := []byte(`{"ts":1795420000000,"values":{"smoke":0.31,"temperature":21.5,"button":false}}`)
	b.ReportAllocs()
	for b.Loop() {
		var x struct {
			TS     int64          `json:"ts"`
			Values map[string]any `json:"values"`
		}
		if err := json.Unmarshal(payload, &x); err != nil {
			b.Fatal(err)
		}
	}
}
