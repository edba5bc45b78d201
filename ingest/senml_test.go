package ingest

import (
	encoding "encoding/hex"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

func measuringModel() *citywarden.Model {
	return &citywarden.Model{
		Name: "station", Domain: citywarden.Pipe, Codec: "json",
		Metrics: []citywarden.Metric{
			{Name: "temperature", Kind: citywarden.KindNumber, Unit: "Cel", IPSO: "3303/5700"},
			{Name: "humidity", Kind: citywarden.KindNumber, Unit: "%"},
			{Name: "pressure", Kind: citywarden.KindNumber, Unit: "bar"},
			{Name: "flow", Kind: citywarden.KindNumber, Unit: "m3/h"},
			{Name: "energy", Kind: citywarden.KindNumber, Unit: "kW.h"},
			{Name: "tilt", Kind: citywarden.KindNumber, Unit: "deg", IPSO: "3429/1"},
			{Name: "pulses", Kind: citywarden.KindNumber},
			{Name: "button", Kind: citywarden.KindBool},
			{Name: "state", Kind: citywarden.KindText},
		},
	}
}

func decodeStation(payload []byte) (message, dropped) {
	up := &citywarden.Uplink{Device: "d", Topic: "v1/devices/me/telemetry", Payload: payload, Received: testArrival}
	m, _, d := decode(&citywarden.Device{ID: "d"}, measuringModel(), up)
	return m, d
}

func TestSenML(t *testing.T) {
	long := strings.Repeat("x", 1001)
	for _, tt := range []struct {
		name     string
		payload  string
		want     string // readings
		rejected int
		reason   string // the whole of it
	}{
		// What RFC 8428 5.1 shows, with names of ours.
		{name: "one", payload: `[{"n":"urn:dev:ow:10e2073a01080063:temperature","u":"Cel","v":23.1}]`, want: "temperature=23.1@arrival\n"},
		{name: "base name and time", payload: `[{"bn":"urn:dev:ow:10e2073a0108006:","bt":1.795420000001e+09,"bu":"Cel","bver":5,"n":"temperature","v":20.1},
			{"n":"humidity","u":"%RH","t":-5,"v":61.2}]`,
			want: "temperature=20.1@2026-11-23T07:46:40.001\nhumidity=61.2@2026-11-23T07:46:35.001\n"},
		{name: "times from the arrival", payload: `[{"bn":"urn:dev:mac:0024befffe804ff1/","n":"temperature","t":-60,"v":1},{"n":"temperature","t":0,"v":2}]`,
			want: "temperature=1@2026-11-23T07:59:00.123\ntemperature=2@arrival\n"},
		{name: "what is negative counts from the arrival, however far", payload: `[{"n":"temperature","t":-300000000,"v":1},{"n":"temperature","bt":1795420000,"t":-1,"v":2}]`,
			want: "temperature=1@2017-05-22T02:40:00.123\ntemperature=2@2026-11-23T07:46:39.000\n"},
		{name: "a text and a sum", payload: `[{"n":"state","vs":"on","s":3}]`, want: "state=on@arrival\n"},
		{name: "other values", payload: `[{"bn":"x/","n":"button","vb":true},{"n":"state","vs":"未知"},{"n":"pulses","s":7},{"n":"pulses","v":8,"s":9}]`,
			want: "button=true@arrival\nstate=未知@arrival\npulses=7@arrival\npulses=8@arrival\n"},
		{name: "bases alone, then what is theirs", payload: `[{"bn":"x:","bv":20,"bs":100},{"n":"temperature","v":0.5},{"n":"pulses","s":1}]`,
			want: "temperature=20.5@arrival\npulses=101@arrival\n"},
		{name: "the base name is the metric", payload: `[{"bn":"temperature","v":1},{"v":2,"t":-1}]`, want: "temperature=1@arrival\ntemperature=2@2026-11-23T07:59:59.123\n"},
		{name: "milliseconds by mistake", payload: `[{"n":"temperature","t":1795420000000,"v":1}]`, want: "temperature=1@2026-11-23T07:46:40.000\n"},
		{name: "what nobody has to understand", payload: `[{"n":"temperature","v":1,"ut":60,"x":{}}]`, want: "temperature=1@arrival\n"},

		// Units.
		{name: "converted", payload: `[{"n":"temperature","u":"K","v":293.15},{"n":"pressure","u":"kPa","v":250},{"n":"flow","u":"l/s","v":5},{"n":"energy","u":"Wh","v":1500}]`,
			want: "temperature=20@arrival\npressure=2.5@arrival\nflow=18@arrival\nenergy=1.5@arrival\n"},
		{name: "of something else", payload: `[{"n":"temperature","u":"V","v":3.3},{"n":"humidity","v":50},{"bu":"m","n":"pulses","v":1}]`,
			want: "humidity=50@arrival\n", rejected: 2,
			reason: `byte 1: temperature is in Cel, found the unit "V"; byte 61: pulses is in no unit, found the unit "m" (1 of 3 readings were taken)`},

		{name: "ratios and angles", payload: `[{"n":"humidity","u":"/","v":0.5},{"n":"humidity","u":"/100","v":51},{"n":"tilt","u":"rad","v":1.5707963267948966},{"n":"pulses","u":"count","v":7}]`,
			want: "humidity=50@arrival\nhumidity=51@arrival\ntilt=90@arrival\npulses=7@arrival\n"},
		{name: "resources of LwM2M", payload: `[{"bn":"/3303/0/","n":"5700","v":21.5},{"bn":"/","n":"3429/0/1","v":1.5707963267948966},{"bn":"/3429/0/1","u":"deg","v":45}]`,
			want: "temperature=21.5@arrival\ntilt=90@arrival\ntilt=45@arrival\n"},
		{name: "another instance of an object", payload: `[{"bn":"/3303/1/5700","v":21.5}]`, rejected: 1,
			reason: `byte 1: unknown metric "/3303/1/5700"; station has temperature, humidity, pressure, flow, energy, tilt, pulses, button, state`},
		{name: "a count of degrees", payload: `[{"n":"temperature","u":"count","v":1}]`, rejected: 1, reason: `byte 1: temperature is in Cel, found the unit "count"`},

		// Mistakes.
		{name: "unknown", payload: `[{"bn":"urn:dev:x:","n":"temprature","v":1}]`, rejected: 1, reason: `byte 1: unknown metric "urn:dev:x:temprature"; station has temperature, humidity, pressure, flow, energy, tilt, pulses, button, state`},
		{name: "kinds", payload: `[{"bn":"","n":"button","v":1},{"n":"temperature","vs":"20"},{"n":"state","vb":true},{"n":"temperature","vd":"aGk"},{"n":"temperature","v":null}]`,
			rejected: 5, reason: `byte 1: button is a bool in "vb", found the number 1 in "v"; byte 30: temperature is a number in "v", found the string "20" in "vs"; ` +
				`byte 60: state is a text in "vs", found true in "vb"; byte 84: temperature is a number in "v", found the string "aGk" in "vd"; byte 115: temperature is a number in "v", found null in "v"`},
		{name: "two values", payload: `[{"n":"temperature","v":1,"vs":"x"},{"n":"temperature"}]`, rejected: 2, reason: "byte 1: more than one value; byte 36: no value; send v, vs or vb"},
		{name: "must be understood", payload: `[{"n":"temperature","v":1,"calibrated_":true}]`, rejected: 1, reason: `byte 1: field "calibrated_" has to be understood (RFC 8428, 4.4), and is not`},
		{name: "must be understood, in the last record", payload: `[{"n":"temperature","v":1},{"n":"humidity","v":2,"calibrated_":true}]`, rejected: 1,
			reason: `byte 27: field "calibrated_" has to be understood (RFC 8428, 4.4), and is not`},
		{name: "a version that is none", payload: `[{"bver":0.5,"n":"temperature","v":1}]`, rejected: 1, reason: `byte 1: "bver" can't be the number 0.5`},
		{name: "a base that is wrong", payload: `[{"n":"temperature","v":1},{"bt":"now","n":"temperature","v":2}]`, rejected: 1, reason: `byte 27: "bt" can't be the string "now"`},
		{name: "a later version", payload: `[{"bver":11,"n":"temperature","v":1}]`, rejected: 1, reason: "byte 1: SenML version 11; send version 10"},
		{name: "a base name without end", payload: `[{"bn":"` + long + `"},{"v":1},{"v":1}]`, rejected: 1, reason: `byte 1: "bn" has 1001 bytes; a name or a unit has at most 1000`},
		{name: "a base unit without end", payload: `[{"n":"temperature","v":1},{"bu":"` + long + `"}]`, rejected: 1, reason: `byte 27: "bu" has 1001 bytes; a name or a unit has at most 1000`},
		{name: "a name and a unit without end", payload: `[{"n":"` + long + `","v":1},{"n":"temperature","v":1},{"n":"temperature","u":"` + long + `","v":1}]`, want: "temperature=1@arrival\n", rejected: 2,
			reason: `byte 1: "n" has 1001 bytes; a name or a unit has at most 1000; byte 1043: "u" has 1001 bytes; a name or a unit has at most 1000 (1 of 3 readings were taken)`},
		{name: "as long as can be", payload: `[{"bn":"` + long[1:] + `"},{"n":":temperature","v":1},{"n":"/3429/0/1","u":"deg","v":2}]`, want: "temperature=1@arrival\ntilt=2@arrival\n"},
		{name: "paths that are cut", payload: `[{"n":"13303/0/5700","v":1},{"n":"1/13303/0/5700","v":1},{"n":"urn:/3303/0/5700","v":1}]`, want: "temperature=1@arrival\n", rejected: 2,
			reason: `byte 1: unknown metric "13303/0/5700"; station has temperature, humidity, pressure, flow, energy, tilt, pulses, button, state; byte 28: unknown metric "1/13303/0/5700"; station has temperature, humidity, pressure, flow, energy, tilt, pulses, button, state (1 of 3 readings were taken)`},
		{name: "no time", payload: `[{"n":"temperature","t":1e30,"v":1},{"n":"temperature","t":"x","v":1}]`, rejected: 2,
			reason: `byte 1: 1e+30 is no time; send seconds since 1970, or seconds from now; byte 36: "t" can't be the string "x"`},
		{name: "no record", payload: `[{"n":"temperature","v":1},7]`, want: "temperature=1@arrival\n", rejected: 1, reason: "byte 27: expected a record in the SenML pack, found the number 7 (1 of 2 readings were taken)"},
		{name: "no JSON", payload: `[{"bn":"x","n":"temperature","v":1]`, rejected: 1, reason: "byte 34: expected ',' or '}' in an object, found ']'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, d := decodeStation([]byte(tt.payload))
			if diff := cmp.Diff(tt.want, readings(m.readings)); diff != "" {
				t.Errorf("readings (-want +got)\n%s", diff)
			}
			if d.rejected != tt.rejected || d.reason() != tt.reason {
				t.Errorf("%d rejected: %s\nwant %d: %s", d.rejected, d.reason(), tt.rejected, tt.reason)
			}
		})
	}
}

// A model may name its metrics like the fields of SenML.
func TestTelemetryThatLooksLikeSenML(t *testing.T) {
	model := &citywarden.Model{Name: "odd", Codec: "json", Metrics: []citywarden.Metric{{Name: "n", Kind: citywarden.KindNumber}, {Name: "v", Kind: citywarden.KindNumber}}}
	m, _, d := decode(&citywarden.Device{ID: "d"}, model, &citywarden.Uplink{Topic: "v1/devices/me/telemetry", Payload: []byte(`[{"n":1,"v":2}]`), Received: testArrival})
	if got := readings(m.readings); got != "n=1@arrival\nv=2@arrival\n" || d.reason() != "" {
		t.Errorf("%s %s", got, d.reason())
	}
}

func TestSenMLInCBOR(t *testing.T) {
	for _, tt := range []struct {
		name, hex, want string
		rejected        int
		reason          string // its beginning
	}{
		// [{-2: "urn:dev:mac:1:", -3: 1795420000.5, 0: "temperature", 1: "Cel", 2: 20.5}, {0: "button", 4: true}]
		{name: "integer labels", hex: "82a5216e75726e3a6465763a6d61633a313a22fb41dac0f4d820000000" + "6b74656d7065726174757265" + "016343656c02f94d20" + "a200" + "66627574746f6e" + "04f5"},
		// [{"n": "pulses", "v": 4([-2, 12345])}, {0: "pulses", 2: 18446744073709551615}]
		{name: "text labels, decimal fraction, large number", hex: "82a2616e6670756c7365736176c48221193039a2006670756c736573021bffffffffffffffff", want: "pulses=123.45@arrival\npulses=1.8446744073709552e+19@arrival\n"},
		{name: "not a number", hex: "81a2006b74656d706572617475726502f97e00", rejected: 1, reason: "record 1: temperature is NaN; leave it out when there is no value"},
		{name: "bytes", hex: "81a2006b74656d70657261747572650842ffff", rejected: 1, reason: `record 1: temperature is a number in "v", found bytes in "vd"`},
		{name: "cut off", hex: "81a2006b74656d70", rejected: 1, reason: "no SenML pack in CBOR (RFC 8428, 6): unexpected EOF"},
		{name: "no records", hex: "820102", rejected: 1, reason: "no SenML pack in CBOR (RFC 8428, 6): cbor: cannot unmarshal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			payload, err := encoding.DecodeString(tt.hex)
			if err != nil {
				t.Fatal(err)
			}
			if tt.name == "integer labels" {
				payload, err = cbor.Marshal([]map[int]any{
					{-2: "urn:dev:mac:1:", -3: 1795420000.5, 0: "temperature", 1: "Cel", 2: 20.5}, {0: "button", 4: true},
				})
				if err != nil {
					t.Fatal(err)
				}
				tt.want = "temperature=20.5@2026-11-23T07:46:40.500\nbutton=true@2026-11-23T07:46:40.500\n"
			}
			m, d := decodeStation(payload)
			if got := readings(m.readings); got != tt.want {
				t.Errorf("readings:\n%swant:\n%s", got, tt.want)
			}
			if d.rejected != tt.rejected || !strings.HasPrefix(d.reason(), tt.reason) || tt.reason == "" && d.reason() != "" {
				t.Errorf("%d rejected: %s\nwant %d: %s", d.rejected, d.reason(), tt.rejected, tt.reason)
			}
		})
	}
}

// A time that counts from the arrival says nothing about the device's clock.
func TestRelativeTimesAreNoClock(t *testing.T) {
	for payload, stated := range map[string]bool{
		`[{"n":"temperature","t":-3600,"v":1}]`: false, `[{"n":"temperature","v":1}]`: false, `[{"n":"temperature","t":1795420000,"v":1}]`: true,
	} {
		if m, _ := decodeStation([]byte(payload)); m.stated.IsZero() == stated {
			t.Errorf("%s states the time %v", payload, m.stated)
		}
	}
}

func FuzzSenML(f *testing.F) {
	for _, s := range []string{
		`[{"bn":"urn:dev:x:","bt":1795420000,"n":"temperature","u":"Cel","v":1},{"n":"button","vb":true}]`, `[{"n":"state","vs":"\u0000","t":-1e9}]`, `[{"bn":1}]`,
		`[{"bn":"` + strings.Repeat("x", 1000) + `"},{"n":"/3303/0/5700","v":1}]`, `[{"bn":"` + strings.Repeat("x", 1001) + `"},{"v":1},{"v":1}]`,
	} {
		f.Add([]byte(s))
	}
	for _, s := range []string{"82a2616e6670756c7365736176c48221193039a2006670756c736573021bffffffffffffffff", "81a2006b74656d706572617475726502f97e00", "9fa0ff"} {
		b, err := encoding.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		before := string(payload)
		m, d := decodeStation(payload)
		again, e := decodeStation(payload)
		if string(payload) != before {
			t.Fatal("the payload was changed")
		}
		if readings(m.readings) != readings(again.readings) || d.reason() != e.reason() {
			t.Fatalf("decoded in two ways: %s %s, %s %s", readings(m.readings), d.reason(), readings(again.readings), e.reason())
		}
		for _, r := range m.readings {
			if v := r.Value.Float(); r.Value.Kind() == citywarden.KindNumber && v-v != 0 {
				t.Fatalf("%s = %v", r.Metric, v)
			}
			if r.Time.IsZero() || r.Time.Before(earliest()) {
				t.Fatalf("%s at %v", r.Metric, r.Time)
			}
		}
	})
}
