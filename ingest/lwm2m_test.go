package ingest

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

func lwm2mModel() *citywarden.Model {
	return &citywarden.Model{Name: "climate", Metrics: []citywarden.Metric{
		{Name: "temperature", Kind: citywarden.KindNumber, Unit: "Cel", IPSO: "3303/5700"}, {Name: "battery", Kind: citywarden.KindNumber, Unit: "%", IPSO: "3/9"},
		{Name: "voltage", Kind: citywarden.KindNumber, Unit: "V", IPSO: "3/7"}, {Name: "occupied", Kind: citywarden.KindBool, IPSO: "3302/5500"},
		{Name: "maker", Kind: citywarden.KindText, IPSO: "3/0"}, {Name: "outside", Kind: citywarden.KindNumber, Unit: "Cel", IPSO: "3303/2/5700"},
		{Name: "feed", Kind: citywarden.KindNumber, Unit: "kW", IPSO: "3305/1/5800"},
	}}
}

func TestLwM2M(t *testing.T) {
	for _, c := range []struct{ name, topic, payload, want, reason string }{
		{"text", "0/3303/0/5700", "21.5", "temperature=21.5@arrival\n", ""},
		{"text, a bool", "0/3302/0/5500", "1", "occupied=true@arrival\n", ""},
		{"text, a text", "0/3/0/0", "宏", "maker=宏@arrival\n", ""},
		{"text, in millivolts", "0/3/0/7", "3600", "voltage=3.6@arrival\n", ""},
		{"text, no number", "0/3303/0/5700", "warm", "", `temperature is a number, found "warm"`},
		{"text, NaN", "0/3303/0/5700", "NaN", "", "temperature is NaN"},
		{"text, no bool", "0/3302/0/5500", "true", "", `occupied is a bool, 0 or 1, found "true"`},
		{"text, not a metric", "0/3303/0/5701", "Cel", "", "no metric of climate is /3303/0/5701"},
		{"text, another instance", "0/3303/1/5700", "1", "", "no metric of climate is /3303/1/5700"},
		{"text of an object", "0/3303/0", "1", "", "a text holds one resource, and /3303/0 is an object"},
		{"SenML", "110/3303/0/5700", `[{"n":"/3303/0/5700","v":21.5}]`, "temperature=21.5@arrival\n", ""},
		{"SenML in CBOR", "112/3303/0/5700", "\x81\xa2\x00\x6c/3303/0/5700\x02\xf9\x4d\x60", "temperature=21.5@arrival\n", ""},
		{"SenML, instances of a resource", "110/3/0/7", `[{"bn":"/3/0/7/","n":"0","v":3500},{"n":"1","v":5000}]`, "voltage=3.5@arrival\n", `unknown metric "/3/0/7/1"`},
		{"SenML, a resource 0", "110/3/0/0", `[{"n":"/3/0/0","vs":"x"}]`, "maker=x@arrival\n", ""},
		{"text, an instance", "0/3303/2/5700", "-3.5", "outside=-3.5@arrival\n", ""},
		{"TLV, an instance", "11542/3303/2/5700", "\xe1\x16\x44\xfb", "outside=-5@arrival\n", ""},
		{"TLV, of its instance", "11542/3303/2", "\x05\x02\xe2\x16\x44\x00\x14", "outside=20@arrival\n", ""},
		{"TLV, an instance in its unit", "11542/3305/1/5800", "\xe2\x16\xa8\x05\xdc", "feed=1.5@arrival\n", ""},
		{"SenML, instances", "110/3303/0/5700", `[{"bn":"/3303/","n":"0/5700","v":21},{"n":"2/5700","v":-3}]`, "temperature=21@arrival\noutside=-3@arrival\n", ""},
		{"SenML, an instance that is no metric", "110/3303/0/5700", `[{"n":"/3303/1/5700","v":21}]`, "", `unknown metric "/3303/1/5700"`},
		{"SenML, an instance in its unit", "110/3305/1/5800", `[{"n":"/3305/1/5800","v":1500}]`, "feed=1.5@arrival\n", ""},
		// LwM2M 1.1, 7.4.5.1: an instance of object 3, with more resources than are metrics.
		{"TLV of the specification", "11542/3/0", "\xc8\x00\x14Open Mobile Alliance\xc8\x01\x16Lightweight M2M Client\xc8\x02\x09345000123\xc3\x03\x31\x2e\x30" +
			"\x86\x06\x41\x00\x01\x41\x01\x05\x88\x07\x08\x42\x00\x0e\xd8\x42\x01\x13\x88\x87\x08\x41\x00\x7d\x42\x01\x03\x84\xc1\x09\x64\xc1\x0a\x0f\x83\x0b\x41\x00\x00\xc4\x0d\x51\x82\x42\x8f\xc6\x0e+02:00\xc1\x10U",
			"maker=Open Mobile Alliance@arrival\nbattery=100@arrival\n", ""},
		{"TLV, a float", "11542/3303/0/5700", "\xe4\x16\x44\x41\xac\x00\x00", "temperature=21.5@arrival\n", ""},
		{"TLV, a double", "11542/3303/0/5700", "\xe8\x16\x44\x08\x40\x35\x80\x00\x00\x00\x00\x00", "temperature=21.5@arrival\n", ""},
		{"TLV, an integer of four bytes", "11542/3/0/9", "\xc4\x09\x00\x00\x00\x32", "battery=50@arrival\n", ""},
		{"TLV, an integer of eight bytes", "1542/3/0/9", "\xc8\x09\x08\x00\x00\x00\x00\x00\x00\x00\x32", "battery=50@arrival\n", ""},
		{"TLV, negative", "11542/3303/0/5700", "\xe1\x16\x44\xfb", "temperature=-5@arrival\n", ""},
		{"TLV, a bool", "11542/3302/0", "\xe1\x15\x7c\x01", "occupied=true@arrival\n", ""},
		{"TLV, in its instance", "11542/3303/0", "\x05\x00\xe2\x16\x44\x00\x14", "temperature=20@arrival\n", ""},
		{"TLV, of another instance", "11542/3303/0", "\x05\x01\xe2\x16\x44\x00\x14", "", ""},
		{"TLV, an instance in a resource", "11542/3303/0/5700", "\x05\x00\xe2\x16\x44\x00\x14", "", "byte 0: an instance where a resource is expected"},
		{"TLV, nothing", "11542/3303/0", "", "", ""},
		{"TLV, cut off", "11542/3303/0", "\xe4\x16\x44\x41", "", "byte 0: the entry of the TLV is cut off"},
		{"TLV, three bytes", "11542/3/0", "\xc3\x09abc", "", "byte 0: battery is a number of 1, 2, 4 or 8 bytes, found 3"},
		{"TLV, a bool of two", "11542/3302/0", "\xe1\x15\x7c\x02", "", "byte 0: occupied is a bool"},
		{"CBOR", "60/3/0/9", "\x18\x32", "", "content format 60 is not read"},
		{"no path", "0/3303", "1", "", "no content format and path"},
		{"no number", "0/a/0/1", "1", "", "no content format and path"},
	} {
		m, _, d := decode(nil, lwm2mModel(), &citywarden.Uplink{Topic: citywarden.DeviceLwM2M + c.topic, Payload: []byte(c.payload), Received: testArrival})
		if diff := cmp.Diff(c.want, readings(m.readings)); diff != "" {
			t.Errorf("%s: %s\n%s", c.name, d.reason(), diff)
		}
		if reason := d.reason(); (reason == "") != (c.reason == "") || !strings.Contains(reason, c.reason) {
			t.Errorf("%s: %s, want %s", c.name, reason, c.reason)
		}
	}
}

func FuzzTLV(f *testing.F) {
	for _, s := range []string{"\xc8\x00\x14Open Mobile Alliance\xc1\x09\x64", "\xe4\x16\x44\x41\xac\x00\x00", "\x06\x00\xe2\x16\x44\x00\x14", "\x86\x06\x41\x00\x01\x41\x01\x05"} {
		f.Add(uint16(3), []byte(s))
		f.Add(uint16(3303), []byte(s))
	}
	model := lwm2mModel()
	f.Fuzz(func(t *testing.T, object uint16, b []byte) {
		for _, path := range []string{"/0", "/0/9", "/0/5700"} {
			decode(nil, model, &citywarden.Uplink{Topic: citywarden.DeviceLwM2M + "11542/" + strconv.Itoa(int(object)) + path, Payload: b, Received: testArrival})
		}
	})
}
