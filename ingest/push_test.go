package ingest

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

// network is a directory with the device "bay" behind the gateway "ns".
type network struct{ one }

func (network) Child(gateway citywarden.DeviceID, name string) (citywarden.DeviceID, error) {
	if name == "disabled" {
		return "", citywarden.Errorf(citywarden.CodeDenied, "device %s is disabled", name)
	}
	if gateway != "ns" || name != "0080e115000a1234" && name != "860000000000001" && name != "0f1e" {
		return "", citywarden.Errorf(citywarden.CodeNotFound, "no device %q behind gateway %s; register it and set its attribute gateway to %q", name, gateway, gateway)
	}
	return "bay", nil
}

// first is a codec of one byte behind the port.
type first struct{}

func (first) Decode(p citywarden.RawPayload) (citywarden.Decoded, error) {
	if len(p.Bytes) == 0 || p.Bytes[0] == '!' {
		return citywarden.Decoded{}, fmt.Errorf("byte 0: no reading")
	}
	return citywarden.Decoded{Readings: []citywarden.Reading{{Metric: "smoke", Value: citywarden.Number(float64(p.Bytes[0]) + 1000*float64(p.Port))}}}, nil
}

func pushModel(own bool) citywarden.Model {
	m := testModel()
	if own {
		m.Raw = first{}
	}
	for i := range m.Metrics {
		m.Metrics[i].Min, m.Metrics[i].Max = nil, nil
	}
	for _, name := range []citywarden.MetricName{"rssi", "snr", "fcnt", "battery"} {
		m.Metrics = append(m.Metrics, citywarden.Metric{Name: name, Kind: citywarden.KindNumber})
	}
	return *m
}

const (
	v4 = `{"deduplicationId":"3ac7e3c4-4401-4b8d-9386-a5c902f9202d","time":"2026-11-23T07:59:58.5+00:00","deviceInfo":{"tenantId":"52f14cd4","tenantName":"county","applicationId":"17c82e96",
		"applicationName":"parking","deviceProfileName":"bay","deviceName":"Bay 1","devEui":"0080e115000a1234","tags":{}},"devAddr":"00189440","adr":true,"dr":1,"fCnt":4,"fPort":2,"confirmed":false,"data":"BQ==",
		"object":{"smoke":9},"rxInfo":[{"gatewayId":"0016c001f153a14c","uplinkId":4217106255,"rssi":-96,"snr":9.5},{"gatewayId":"0016c001f153a14d","rssi":-36,"snr":10.5}],"txInfo":{"frequency":867100000}}`
	v3 = `{"applicationID":"1","applicationName":"parking","deviceName":"Bay 1","devEUI":"AIDhFQAKEjQ=","rxInfo":[{"gatewayID":"ABbAAfFToUw=","time":"2026-11-23T07:59:58Z","rssi":-57,"loRaSNR":10}],
		"txInfo":{"frequency":868100000,"dr":5},"adr":true,"fCnt":10,"fPort":5,"data":"BQ==","object":{"smoke":9}}`
	geomagnetic = `{"upPacketSN":-1,"upDataSN":-1,"topic":"v1/up/ad19","timestamp":1795420798500,"tenantId":"2000030881","serviceId":1,"protocol":"lwm2m","productId":"15034864",
		"payload":{"smoke":0.5,"button":false},"messageType":"dataReport","deviceType":"","deviceId":"00000000000000000000000000000001","assocAssetId":"","IMSI":"undefined","IMEI":"860000000000001"}`
)

func TestPushed(t *testing.T) {
	for _, tt := range []struct {
		name, topic, payload string
		own                  bool // the model has a codec
		want                 string
		reason               string
	}{
		{"ChirpStack 4", citywarden.GatewayLoRaWAN, v4, true,
			"smoke=2005@2026-11-23T07:59:58.500\nrssi=-36@2026-11-23T07:59:58.500\nsnr=10.5@2026-11-23T07:59:58.500\nfcnt=4@2026-11-23T07:59:58.500\n", ""},
		{"ChirpStack 4, decoded there", citywarden.GatewayLoRaWAN, v4, false,
			"smoke=9@2026-11-23T07:59:58.500\nrssi=-36@2026-11-23T07:59:58.500\nsnr=10.5@2026-11-23T07:59:58.500\nfcnt=4@2026-11-23T07:59:58.500\n", ""},
		{"ChirpStack 3", citywarden.GatewayLoRaWAN, v3, true,
			"smoke=5005@2026-11-23T07:59:58.000\nrssi=-57@2026-11-23T07:59:58.000\nsnr=10@2026-11-23T07:59:58.000\nfcnt=10@2026-11-23T07:59:58.000\n", ""},
		{"ChirpStack 3, hexadecimal", citywarden.GatewayLoRaWAN, `{"devEUI":"0080E115000A1234","fCnt":1,"fPort":1,"data":"AQ=="}`, true, "smoke=1001@arrival\nfcnt=1@arrival\n", ""},
		{"ChirpStack 3 with the marshaler json", citywarden.GatewayLoRaWAN, `{"devEUI":"AIDhFQAKEjQ=","fCnt":10,"fPort":5,"data":"BQ==","objectJSON":"{\"smoke\":9}","devAddr":"ABiUQA=="}`, false, "smoke=9@arrival\nfcnt=10@arrival\n", ""},
		{"ChirpStack 3, an acknowledgement", citywarden.GatewayLoRaWAN, `{"devEUI":"0080e115000a1234","acknowledged":true,"fCnt":12}`, true, "", ""},
		{"ChirpStack 3, sent to the device", citywarden.GatewayLoRaWAN, `{"devEUI":"0080e115000a1234","gatewayID":"ABbAAfFToUw=","fCnt":12,"txInfo":{"frequency":868100000}}`, true, "", ""},
		{"the first of a session, without its 0", citywarden.GatewayLoRaWAN, `{"deviceInfo":{"devEui":"0080e115000a1234"},"devAddr":"00189440","fPort":2,"data":"BQ==","rxInfo":[{"rssi":-36}]}`, true,
			"smoke=2005@arrival\nrssi=-36@arrival\nsnr=0@arrival\nfcnt=0@arrival\n", ""},
		{"without port and data, which are 0 and nothing", citywarden.GatewayLoRaWAN, `{"deviceInfo":{"devEui":"0080e115000a1234"},"devAddr":"00189440","fCnt":3,"rxInfo":[{"rssi":-36,"snr":1}]}`, true,
			"rssi=-36@arrival\nsnr=1@arrival\nfcnt=3@arrival\n", ""},
		{"no object of the model", citywarden.GatewayLoRaWAN, `{"deviceInfo":{"devEui":"0080e115000a1234"},"fCnt":7,"fPort":1,"object":"decoded"}`, false, "", "object: byte 0: "},
		{"a disabled one", citywarden.GatewayLoRaWAN, `{"deviceInfo":{"devEui":"disabled"},"fCnt":7}`, true, "", "= device disabled is disabled"},
		{"join", citywarden.GatewayLoRaWAN, `{"time":"2026-11-23T07:59:58Z","deviceInfo":{"devEui":"0080e115000a1234"},"devAddr":"00189440"}`, true, "", ""},
		{"status", citywarden.GatewayLoRaWAN, `{"deviceInfo":{"devEui":"0080e115000a1234"},"margin":10,"externalPowerSource":false,"batteryLevelUnavailable":false,"batteryLevel":88.5}`, true, "battery=88.5@arrival\n", ""},
		{"status of one on mains", citywarden.GatewayLoRaWAN, `{"deviceInfo":{"devEui":"0080e115000a1234"},"externalPowerSource":true,"batteryLevel":0}`, true, "", ""},
		{"no payload", citywarden.GatewayLoRaWAN, `{"deviceInfo":{"devEui":"0080e115000a1234"},"fCnt":7,"fPort":0}`, true, "fcnt=7@arrival\n", ""},
		{"a payload that the codec can't read", citywarden.GatewayLoRaWAN, `{"deviceInfo":{"devEui":"0080e115000a1234"},"fCnt":7,"fPort":1,"data":"IQ=="}`, true, "", "data: byte 0: no reading"},
		{"no codec and nothing decoded", citywarden.GatewayLoRaWAN, `{"deviceInfo":{"devEui":"0080e115000a1234"},"fCnt":7,"fPort":1,"data":"IQ==","object":{}}`, false, "", "model smoke-detector has no codec"},
		{"no base64", citywarden.GatewayLoRaWAN, `{"deviceInfo":{"devEui":"0080e115000a1234"},"fCnt":7,"fPort":1,"data":"*"}`, true, "", "data: illegal base64"},
		{"of no type", citywarden.GatewayLoRaWAN, `{"deviceInfo":{"devEui":"0080e115000a1234"},"fCnt":"7"}`, true, "", "byte 54: fCnt can't be the string that it is"},
		{"a stranger", citywarden.GatewayLoRaWAN, `{"deviceInfo":{"devEui":"0080e115000affff"},"fCnt":7}`, true, "",
			`no device "0080e115000affff" behind gateway ns; register it and set its attribute gateway to "ns", and its attribute dev_eui to "0080e115000affff"`},
		{"nobody", citywarden.GatewayLoRaWAN, `{"fCnt":7}`, true, "", "the event has no deviceInfo.devEui"},

		{"a metric that the model has not", citywarden.GatewayLoRaWAN, `{"deviceInfo":{"devEui":"0080e115000a1234"},"fCnt":7,"fPort":1,"object":{"smoke":1,"nope":2}}`, false, "smoke=1@arrival\nfcnt=7@arrival\n", `object: unknown metric "nope"`},
		{"CTWing, a metric that the model has not", citywarden.GatewayCTWing, `{"messageType":"dataReport","IMEI":"860000000000001","payload":{"smoke":1,"nope":2}}`, false, "smoke=1@arrival\n", `payload: unknown metric "nope"`},
		{"too long for the log", "oversized/300000/v1/devices/me/telemetry", `{"smoke":1,`, false, "", "a message of 300000 bytes to v1/devices/me/telemetry is more than can be kept"},
		{"CTWing", citywarden.GatewayCTWing, geomagnetic, false, "smoke=0.5@2026-11-23T07:59:58.500\nbutton=false@2026-11-23T07:59:58.500\n", ""},
		{"CTWing with base64", citywarden.GatewayCTWing, `{"messageType":"dataReport","IMEI":"860000000000001","timestamp":1795420798500,"payload":{"APPdata":"BQ=="}}`, true, "smoke=5@2026-11-23T07:59:58.500\n", ""},
		{"CTWing, known by its id there", citywarden.GatewayCTWing, `{"messageType":"dataReport","IMEI":"1","deviceId":"0f1e","payload":{"smoke":1}}`, false, "smoke=1@arrival\n", ""},
		{"CTWing, an event", citywarden.GatewayCTWing, `{"messageType":"eventReport","eventType":1,"IMEI":"860000000000001","eventContent":{"button":true}}`, false, "button=true@arrival\n", ""},
		{"CTWing, it went", citywarden.GatewayCTWing, `{"messageType":"deviceOnlineOfflineReport","eventType":0,"IMEI":"860000000000001"}`, false, "", ""},
		{"CTWing, a response", citywarden.GatewayCTWing, `{"messageType":"commandResponse","IMEI":"860000000000001","result":{}}`, false, "", ""},
		{"CTWing, not of the codec", citywarden.GatewayCTWing, `{"messageType":"dataReport","IMEI":"860000000000001","payload":{"APPdata":"IQ=="}}`, true, "", "payload.APPdata: byte 0: no reading"},
		{"CTWing, no object", citywarden.GatewayCTWing, `{"messageType":"dataReport","IMEI":"860000000000001","payload":7}`, false, "", "payload: byte 0: "},
		{"CTWing, no object in an event", citywarden.GatewayCTWing, `{"messageType":"eventReport","IMEI":"860000000000001","eventContent":7}`, false, "", "eventContent: byte 0: "},
		{"CTWing, a disabled one", citywarden.GatewayCTWing, `{"messageType":"dataReport","IMEI":"disabled","payload":{}}`, true, "", "= device disabled is disabled"},
		{"CTWing, no base64", citywarden.GatewayCTWing, `{"messageType":"dataReport","IMEI":"860000000000001","payload":{"APPdata":"*"}}`, true, "", "payload.APPdata: illegal base64"},
		{"CTWing, a stranger", citywarden.GatewayCTWing, `{"messageType":"dataReport","IMEI":"42","payload":{}}`, true, "", `no device "42" behind gateway ns`},
		{"CTWing, nobody", citywarden.GatewayCTWing, `{"messageType":"dataReport","IMEI":"undefined"}`, true, "", "no IMEI and no deviceId"},
		{"a list", citywarden.GatewayCTWing, `[]`, true, "", "a gateway sends an object"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDecoder(network{one{func() *citywarden.Model { m := pushModel(tt.own); return &m }()}})
			up := citywarden.Uplink{Device: "ns", Protocol: "http", Topic: tt.topic, Payload: []byte(tt.payload), Received: testArrival}
			parts, reasons := split(d.directory, &up)
			if len(parts) != 1 {
				t.Fatalf("%d parts", len(parts))
			}
			e := d.group([]citywarden.Record{{Kind: citywarden.RecordUplink, Uplink: &parts[0]}})[0]
			why := strings.Join(reasons, "; ")
			if e.Reject != nil {
				why = e.Reject.Reason
				if string(e.Reject.Payload) != tt.payload {
					t.Errorf("the dead letter has %s", e.Reject.Payload)
				}
			}
			if got := readings(e.Readings); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if whole, ok := strings.CutPrefix(tt.reason, "= "); ok && why != whole {
				t.Errorf("reason %q, want only %q", why, whole)
			} else if !ok && !strings.Contains(why, tt.reason) || (why == "") != (tt.reason == "") {
				t.Errorf("reason %q, want %q", why, tt.reason)
			}
		})
	}
}

// TestPushedTwice: a network server that repeats a message repeats its readings,
// though it comes later. One that says when it was heard is told from others by that: a
// device whose address is its own for ever begins to count anew with each start. Where nothing says so,
// address and count do, and the next session has another address.
func TestPushedTwice(t *testing.T) {
	m := pushModel(true)
	d := newDecoder(network{one{&m}})
	event := func(address string, fcnt int, value byte) string {
		return fmt.Sprintf(`{"deviceInfo":{"devEui":"0080e115000a1234"},"devAddr":%q,"fCnt":%d,"fPort":1,"data":%q}`, address, fcnt, base64.StdEncoding.EncodeToString([]byte{value}))
	}
	heard := func(at string) string {
		return strings.Replace(event("01", 0, 9), "{", `{"time":"2026-11-23T`+at+`Z",`, 1)
	}
	for i, tt := range []struct {
		payload    string
		duplicates int
	}{
		{heard("07:00:00"), 0}, {heard("07:30:00"), 0}, {heard("07:30:00"), 2}, {heard("07:00:00"), 2},
		{event("01", 7, 5), 0}, {event("01", 7, 5), 2}, {event("01", 8, 5), 0}, {event("02", 7, 5), 0}, {event("02", 7, 5), 2},
	} {
		up := citywarden.Uplink{Device: "bay", Topic: citywarden.DeviceLoRaWAN, Payload: []byte(tt.payload), Received: testArrival.Add(time.Duration(i) * time.Second)}
		e := d.group([]citywarden.Record{{Kind: citywarden.RecordUplink, Uplink: &up}})[0]
		if e.Duplicates != tt.duplicates {
			t.Errorf("message %d has %d duplicates, want %d", i, e.Duplicates, tt.duplicates)
		}
	}
}

// FuzzPush: whatever a network server pushes is a message of a device or a dead letter.
func FuzzPush(f *testing.F) {
	for _, s := range []string{v4, v3, geomagnetic, `{"devEUI":"AIDhFQAKEjQ=","fCnt":10,"fPort":5,"objectJSON":"{\"smoke\":9}"}`, `{"messageType":"dataReport","IMEI":"860000000000001","payload":{"APPdata":"BQ=="}}`} {
		f.Add(s, false)
		f.Add(s, true)
	}
	m := pushModel(true)
	f.Fuzz(func(t *testing.T, payload string, ct bool) {
		up := citywarden.Uplink{Device: "ns", Topic: citywarden.GatewayLoRaWAN, Payload: []byte(payload), Received: testArrival}
		if ct {
			up.Topic = citywarden.GatewayCTWing
		}
		d := newDecoder(network{one{&m}})
		parts, reasons := split(d.directory, &up)
		for i := range parts {
			e := d.group([]citywarden.Record{{Kind: citywarden.RecordUplink, Uplink: &parts[i]}})[0]
			if len(reasons) > 0 && e.Reject == nil {
				t.Errorf("%v, and no dead letter", reasons)
			}
			for _, r := range e.Readings {
				if r.Time.IsZero() || r.Value.Kind() == 0 {
					t.Errorf("reading %+v", r)
				}
			}
		}
	})
}
