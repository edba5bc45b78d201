package ingest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// Written by Eclipse Tahu's sparkplug-payload 1.0.3.
const (
	sparkplugBirth = "0880d0dfb4ab33120b0a05626453657120085807121a0a144e6f646520436f6e74726f6c2f52656269727468200b700012200a1850726f706572746965732f4861726477617265204d616b65200c7a02506912240a12496e707574732f74656d706572617475726510011881d0dfb4ab332009650000ac4112120a06636f756e74381002200150fdffffff0f12130a07636f756e7431361003200250d4fdffff0f12130a07636f756e743332100420035090ddfbff0f12180a07636f756e7436341005200458809ce8afedffffffff01120b0a0275381006200550ff01120d0a037531361007200650ffff03120f0a037533321008200758ffffffff0f120f0a03753634100920085880e497d01212140a05726174696f100a200a69000000000000d03f120b0a03776574100b200b700112100a057374617465100c200c7a03e6b9bf120c0a047768656e100d200d5800120d0a046e6f7465100e200e7a0174122e0a026964100f200f7a2436626137623831302d396461642d313164312d383062342d303063303466643433306338120e0a06616273656e74101020093801121c0a057461626c65101120108a010e0801120161180c22050a03320178120f0a04626c6f6210122011820102010212190a0573686170651013201392010b12070a016d200350012801121f0a03626164101420094a0f0a075175616c69747912040803180065000010411800"
	sparkplugData  = "08e8d7dfb4ab33121010011884d7dfb4ab332009650000b441120a1002200150fcffffff0f1801" // two metrics by their aliases
)

func sparkplugModel() *citywarden.Model {
	m := &citywarden.Model{Name: "pump", Commands: []citywarden.ModelCommand{{Name: "note"}, {Name: "count16", Params: []citywarden.Param{{Name: "x"}}}}}
	for _, name := range []citywarden.MetricName{"temperature", "count8", "count32", "count64", "u8", "u16", "u32", "u64", "absent", "table", "bad"} {
		m.Metrics = append(m.Metrics, citywarden.Metric{Name: name, Kind: citywarden.KindNumber})
	}
	for _, name := range []citywarden.MetricName{"state", "when", "ratio", "id"} {
		m.Metrics = append(m.Metrics, citywarden.Metric{Name: name, Kind: citywarden.KindText})
	}
	m.Metrics = append(m.Metrics, citywarden.Metric{Name: "wet", Kind: citywarden.KindBool})
	return m
}

func TestSparkplug(t *testing.T) {
	for _, c := range []struct {
		name    string
		payload []byte
		want    string
		attrs   map[string]any
		reasons []string
	}{
		{"a birth", unhex(sparkplugBirth), `temperature=21.5@2025-11-24T16:00:00.001
count8=-3@2025-11-24T16:00:00.000
count32=-70000@2025-11-24T16:00:00.000
count64=-5e+09@2025-11-24T16:00:00.000
u8=255@2025-11-24T16:00:00.000
u16=65535@2025-11-24T16:00:00.000
u32=4.294967295e+09@2025-11-24T16:00:00.000
u64=5e+09@2025-11-24T16:00:00.000
wet=true@2025-11-24T16:00:00.000
state=湿@2025-11-24T16:00:00.000
when=1970-01-01T00:00:00Z@2025-11-24T16:00:00.000
id=6ba7b810-9dad-11d1-80b4-00c04fd430c8@2025-11-24T16:00:00.000
`, map[string]any{"Hardware Make": "Pi"}, []string{"ratio is a text, found a Double", `"table" is a DataSet, which can't be a reading`,
			`"blob" is a Bytes`, `"shape" is a Template`, `"bad" is of quality 0`}},
		{"aliases that nobody knows", unhex(sparkplugData), "", nil, []string{"alias 1 stands in no birth", "alias 2 stands in no birth"}},
		{"nothing", nil, "", nil, nil},
		{"a name with a path", doubles("Inputs/count8"), "count8=1@arrival\n", nil, nil},
		{"two that would be one", doubles("A/count8", "B/count8"), "count8=1@arrival\n", nil, []string{`"A/count8" and "B/count8" would both be metric count8`}},
		{"one that no model knows", doubles("cont8"), "", nil, []string{`unknown metric "cont8"; did you mean "count8"?`}},
		{"no name and no alias", doubles(""), "", nil, []string{"metric 1 has no name"}},
		{"commands", doubles("Outputs/note", "count16/x", "Device Control/Reboot"), "", nil, nil},
		{"JSON", []byte(`{"smoke":1}`), "", nil, []string{"no protocol buffer of Sparkplug B"}},
	} {
		m, _, d := decode(nil, sparkplugModel(), &citywarden.Uplink{Topic: citywarden.DeviceSparkplug, Payload: c.payload, Received: testArrival})
		if diff := cmp.Diff(c.want, readings(m.readings)); diff != "" {
			t.Errorf("%s:\n%s", c.name, diff)
		}
		if diff := cmp.Diff(c.attrs, m.attrs); diff != "" {
			t.Errorf("%s:\n%s", c.name, diff)
		}
		if d.rejected != len(c.reasons) {
			t.Errorf("%s: %d are rejected, want %d: %s", c.name, d.rejected, len(c.reasons), d.reason())
		}
		for _, r := range c.reasons {
			if !strings.Contains(d.reason(), r) {
				t.Errorf("%s: %s does not say %s", c.name, d.reason(), r)
			}
		}
	}
}

// TestSparkplugOfDevices: what a node says of a device becomes the device's.
func TestSparkplugOfDevices(t *testing.T) {
	for _, c := range []struct{ topic, device, want, reason string }{
		{"DBIRTH/Device 1", "d1", citywarden.DeviceSparkplug, ""},
		{"DDATA/d2", "d2", citywarden.DeviceSparkplug, ""},
		{"DDEATH/d2", "d2", citywarden.DeviceDisconnected, ""},
		{"NDEATH/d2", "d2", citywarden.DeviceDisconnected, ""},
		{"DDATA/stranger", "gw", citywarden.GatewaySparkplug + "DDATA/stranger", `no device "stranger" behind gateway gw`},
	} {
		up := citywarden.Uplink{Device: "gw", Topic: citywarden.GatewaySparkplug + c.topic}
		parts, reasons := split(family{}, &up)
		if len(parts) != 1 || string(parts[0].Device) != c.device || parts[0].Topic != c.want || strings.Join(reasons, "") != c.reason {
			t.Errorf("%s: %v, %v", c.topic, parts, reasons)
		}
	}
}

// TestMissing: what the broker noticed stands in the ledger.
func TestMissing(t *testing.T) {
	l := NewLedger(nil, 0, nil)
	d := newDecoder(one{sparkplugModel()})
	for _, e := range d.group([]citywarden.Record{{Kind: citywarden.RecordUplink, At: testArrival,
		Uplink: &citywarden.Uplink{Device: "gw", Topic: citywarden.DeviceMissing, Payload: []byte("3"), Received: testArrival}}}) {
		l.count(&e)
	}
	if got := l.row("gw", testArrival.Truncate(time.Hour)).Missing; got != 3 {
		t.Errorf("%d messages are missing, want 3", got)
	}
}

func unhex(s string) []byte {
	var b []byte
	if _, err := fmt.Sscanf(s, "%x", &b); err != nil {
		panic(err)
	}
	return b
}

// doubles returns a payload of metrics that are 1, 2 and so on.
func doubles(names ...string) []byte {
	var p citywarden.SparkplugPayload
	for i, name := range names {
		m := citywarden.SparkplugMetric{Name: name}
		if err := m.Set(citywarden.Number(float64(i + 1))); err != nil {
			panic(err)
		}
		p.Metrics = append(p.Metrics, m)
	}
	return p.Append(nil)
}

// FuzzSparkplug: whatever a device sends, it is decoded without a panic, and a payload that
// is written again says the same.
func FuzzSparkplug(f *testing.F) {
	for _, b := range [][]byte{unhex(sparkplugBirth), unhex(sparkplugData), doubles("count8"), doubles("A/count8", "B/count8")} {
		f.Add(b)
	}
	model := sparkplugModel()
	f.Fuzz(func(t *testing.T, b []byte) {
		decode(nil, model, &citywarden.Uplink{Topic: citywarden.DeviceSparkplug, Payload: b, Received: testArrival})
		p, err := citywarden.ParseSparkplug(b)
		if err != nil {
			return
		}
		once := p.Append(nil)
		again, err := citywarden.ParseSparkplug(once)
		if err != nil {
			t.Fatalf("%x was written as %x: %v", b, once, err)
		}
		if twice := again.Append(nil); !bytes.Equal(once, twice) {
			t.Fatalf("%x was written as %x and then as %x", b, once, twice)
		}
	})
}
