package app

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/citywarden/citywarden"
)

// step is one message of a client of ThingsBoard's, and what it hears after it.
type step struct {
	topic, body string // subscribes where body is "SUBSCRIBE"
	hears       []string
}

// subscribed is the body of a step that subscribes.
const subscribed = "SUBSCRIBE"

// replay plays steps, $NOW in a body being the time in milliseconds.
func (d *client) replay(t *testing.T, now int64, steps []step) {
	t.Helper()
	for i, s := range steps {
		if s.body == subscribed {
			d.subscribe(s.topic)
		} else {
			d.publish(s.topic, strings.ReplaceAll(s.body, "$NOW", fmt.Sprint(now)))
		}
		got := d.heard()
		if fmt.Sprint(got) != fmt.Sprint(s.hears) {
			t.Errorf("step %d, %s %s:\nhears %q\nwant  %q", i+1, s.topic, s.body, got, s.hears)
		}
	}
}

const anyAttribute = "v1/devices/me/attributes/response/+"

// TestThingsBoardPythonDevice replays a device of ThingsBoard's Python SDK, from the CONNACK over an update of
// its firmware to the answer to a command.
func TestThingsBoardPythonDevice(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.device(t, "v1", "valve", nil)
		w.firmware(t, "valve", "pump", "1.1", []byte("0123456789ab"))
		d := w.client(t, "v1")
		d.replay(t, w.now(), []step{
			{"v1/devices/me/attributes", subscribed, nil},
			{anyAttribute, subscribed, nil},
			{"v1/devices/me/rpc/request/+", subscribed, nil},
			{"v1/devices/me/rpc/response/+", subscribed, nil},
			{"v1/devices/me/rpc/request/1", `{"method":"getSessionLimits","params":{"timeout":5000}}`,
				[]string{`v1/devices/me/rpc/response/1 {"maxPayloadSize":262144,"maxInflightMessages":256,"rateLimits":{}}`}},
			{"v1/devices/me/telemetry", `{"position":41.5,"battery":null}`, nil},
			{"v1/devices/me/telemetry", `{"ts":$NOW,"values":{"position":42}}`, nil},
			{"v1/devices/me/telemetry", `[{"ts":$NOW,"values":{"position":43}},{"battery":90}]`, nil},
			{"v1/devices/me/attributes", `{"sensorModel":"DHT-22","attr_2":true,"n":12.5,"deep":{"a":[1]}}`, nil},
			{"v1/devices/me/attributes/request/1", `{"clientKeys":"sensorModel,attr_2,missing","sharedKeys":"missing"}`,
				[]string{`v1/devices/me/attributes/response/1 {"client":{"attr_2":true,"sensorModel":"DHT-22"}}`}},
			{"v1/devices/me/attributes/request/2", `{"sharedKeys":"missing"}`, []string{`v1/devices/me/attributes/response/2 {}`}},
			// An update of the firmware.
			{"v2/fw/response/+", subscribed, nil},
			{"v1/devices/me/telemetry", `{"current_fw_title":"Initial","current_fw_version":"v0","fw_state":"IDLE","fw_error":""}`, nil},
			{"v1/devices/me/attributes/request/3", `{"sharedKeys":"fw_checksum,fw_checksum_algorithm,fw_size,fw_title,fw_version"}`,
				[]string{`v1/devices/me/attributes/response/3 {"shared":{"fw_checksum":"d407ad901895723f32d31e6515f5284beb4c01e70e56720d65099da4771f3193","fw_checksum_algorithm":"SHA256","fw_size":12,"fw_title":"pump","fw_version":"1.1"}}`}},
			{"v1/devices/me/telemetry", `{"current_fw_title":"Initial","current_fw_version":"v0","fw_state":"DOWNLOADING","fw_error":""}`, nil},
			{"v2/fw/request/1/chunk/0", `5`, []string{`v2/fw/response/1/chunk/0 01234`}},
			{"v2/fw/request/1/chunk/1", ``, []string{`v2/fw/response/1/chunk/1 56789`}}, // the size is that of before
			{"v2/fw/request/1/chunk/2", `5`, []string{`v2/fw/response/1/chunk/2 ab`}},
			{"v2/fw/request/1/chunk/3", `5`, []string{`v2/fw/response/1/chunk/3 `}},
			{"v2/fw/request/2/chunk/0", ``, []string{`v2/fw/response/2/chunk/0 0123456789ab`}}, // no size: all of it
			{"v1/devices/me/telemetry", `{"current_fw_title":"pump","current_fw_version":"1.1","fw_state":"UPDATED","fw_error":""}`, nil},
		})
		if _, err := w.tell("v1", `{"method":"set_position","params":{"position":40}}`); err != nil {
			t.Fatal(err)
		}
		want(t, d.heard(), `v1/devices/me/rpc/request/1 {"method":"set_position","params":{"position":40}}`)
		d.publish("v1/devices/me/rpc/response/1", `{"CPU":12.5}`)
		var view citywarden.DeviceView
		if err := w.call("admin", "GET", "/devices/v1", nil, &view); err != nil {
			t.Fatal(err)
		}
		if view.Latest["position"].Value.String() != "43" || view.Latest["battery"].Value.String() != "90" || view.Client["fw_state"] != "UPDATED" || view.Client["deep"] != `{"a":[1]}` {
			t.Errorf("%+v", view)
		}
		w.noDeadLetters(t, "v1")
	})
}

// TestThingsBoardPythonGateway replays ThingsBoard's gateway: its own session, devices that
// connect, report, ask for attributes and get commands, and its end.
func TestThingsBoardPythonGateway(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.device(t, "gw", "iot-gateway", nil)
		w.device(t, "v1", "test-valve", map[string]any{"gateway": "gw", "led": true})
		w.device(t, "v2", "valve", map[string]any{"gateway": "gw"})
		g := w.client(t, "gw")
		g.replay(t, w.now(), []step{
			{"v1/devices/me/attributes", subscribed, nil},
			{anyAttribute, subscribed, nil},
			{"v1/devices/me/rpc/request/+", subscribed, nil},
			{"v1/devices/me/rpc/response/+", subscribed, nil},
			{"v1/gateway/attributes", subscribed, nil},
			{"v1/gateway/attributes/response", subscribed, nil},
			{"v1/gateway/rpc", subscribed, nil},
			{"v1/devices/me/rpc/request/1", `{"method":"getSessionLimits","params":{"timeout":5000}}`,
				[]string{`v1/devices/me/rpc/response/1 {"maxPayloadSize":262144,"maxInflightMessages":256,"rateLimits":{}}`}},
			{"v1/devices/me/attributes", `{"Version":"3.7","active_connectors":["MQTT","Modbus"]}`, nil},
			{"v1/gateway/connect", `{"device":"The v1","type":"default"}`, nil},
			{"v1/gateway/connect", `{"device":"v2","type":"thermometer"}`, nil},
			{"v1/gateway/attributes", `{"The v1":{"connectorType":"mqtt","connectorName":"MQTT"}}`, nil},
			{"v1/gateway/telemetry", `{"The v1":[{"ts":$NOW.75,"values":{"level":7},"metadata":{"connector":"MQTT","receivedTs":$NOW,"publishedTs":$NOW}}],"v2":[{"position":1},{"ts":$NOW,"values":{"position":2}}]}`, nil},
			{"v1/gateway/attributes/request", `{"keys":["connectorType"],"device":"The v1","client":true,"id":1}`,
				[]string{`v1/gateway/attributes/response {"id":1,"device":"The v1","value":"mqtt"}`}},
			{"v1/gateway/attributes/request", `{"keys":["every","led","missing"],"device":"The v1","client":false,"id":2}`,
				[]string{`v1/gateway/attributes/response {"id":2,"device":"The v1","values":{"every":60,"led":true}}`}},
			{"v1/gateway/attributes/request", `{"keys":[],"device":"The v1","client":false,"id":3}`, // all of both scopes
				[]string{`v1/gateway/attributes/response {"id":3,"device":"The v1","values":{"connectorName":"MQTT","connectorType":"mqtt","every":60,"led":true}}`}},
			{"v1/gateway/attributes/request", `{"keys":["missing"],"device":"v2","client":false,"id":4}`,
				[]string{`v1/gateway/attributes/response {"id":4,"device":"v2"}`}},
			{"v1/gateway/attributes/request", `{"id":5,"device":"The v1","client":false,"key":"led"}`,
				[]string{`v1/gateway/attributes/response {"id":5,"device":"The v1","value":true}`}},
		})
		if _, err := w.tell("v2", `{"method":"set_position","params":{"position":0}}`); err != nil {
			t.Fatal(err)
		}
		want(t, g.heard(), `v1/gateway/rpc {"device":"v2","data":{"id":1,"method":"set_position","params":{"position":0}}}`)
		g.replay(t, w.now(), []step{
			{"v1/gateway/rpc", `{"device":"v2","id":1,"data":"{\"success\": true}"}`, nil}, // the gateway dumps it twice
			{"v1/gateway/disconnect", `{"device":"The v1"}`, nil},
		})
		var page struct{ Items []citywarden.Command }
		if err := w.call("admin", "GET", "/devices/v2/commands", nil, &page); err != nil || len(page.Items) != 1 || string(page.Items[0].Answer) != `"{\"success\": true}"` {
			t.Errorf("%+v, %v", page, err)
		}
		for _, id := range []string{"gw", "v1", "v2"} {
			w.noDeadLetters(t, id)
		}
	})
}

// TestGatewayTellsPending: what was desired of a device while its gateway was away is told
// when the gateway connects it again.
func TestGatewayTellsPending(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.device(t, "gw", "iot-gateway", nil)
		w.device(t, "v1", "test-valve", map[string]any{"gateway": "gw"})
		g := w.client(t, "gw")
		g.replay(t, w.now(), []step{
			{"v1/gateway/attributes", subscribed, nil},
			{"v1/gateway/connect", `{"device":"The v1"}`, nil},
			{"v1/gateway/attributes", `{"The v1":{"every":60}}`, nil},
		})
		g.c.Disconnect(0)
		if err := w.call("admin", "PUT", "/devices/v1", map[string]any{"name": "The v1", "model": "test-valve", "attributes": map[string]any{"gateway": "gw", "every": 15}}, nil); err != nil {
			t.Fatal(err)
		}
		g = w.client(t, "gw")
		g.replay(t, w.now(), []step{
			{"v1/gateway/attributes", subscribed, nil},
			{"v1/gateway/connect", `{"device":"The v1"}`, []string{`v1/gateway/attributes {"device":"The v1","data":{"every":15}}`}},
		})
	})
}

// TestThingsBoardShortTopics: v2/t and the like are v1/devices/me/telemetry, and the answer
// comes to the topic of the same form.
func TestThingsBoardShortTopics(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.device(t, "v1", "test-valve", nil)
		d := w.client(t, "v1")
		d.replay(t, w.now(), []step{
			{"v2/a", subscribed, nil},
			{"v2/a/res/+", subscribed, nil},
			{"v2/a/res/j/+", subscribed, nil},
			{"v2/r/req/+", subscribed, nil},
			{"v2/r/res/+", subscribed, nil},
			{"v2/sw/response/+/chunk/+", subscribed, nil},
			{"v2/sw/error", subscribed, nil},
			{"v2/fw/error", subscribed, nil},
			{"v2/t", `{"level":1}`, nil},
			{"v2/t/j", `{"ts":$NOW,"values":{"level":2}}`, nil},
			{"v2/a", `{"serial":"a"}`, nil},
			{"v2/a/j", `{"batch":"b"}`, nil},
			{"v2/a/req/1", `{"clientKeys":"serial"}`, []string{`v2/a/res/1 {"client":{"serial":"a"}}`}},
			{"v2/a/req/j/2", `{"clientKeys":"batch"}`, []string{`v2/a/res/j/2 {"client":{"batch":"b"}}`}},
			{"v2/r/req/3", `{"method":"nothing","params":{}}`, []string{`v2/r/res/3 {"error":"no method nothing; the platform answers getCurrentTime, getTime, getSessionLimits"}`}},
			{"v2/sw/request/1/chunk/0", `1024`, []string{`v2/sw/error NOT_FOUND`}},
			{"v2/fw/request/1/chunk/0", `1024`, []string{`v2/fw/error NOT_FOUND`}},
		})
		if err := w.call("admin", "PUT", "/devices/v1", map[string]any{"name": "x", "model": "test-valve", "attributes": map[string]any{"every": 30}}, nil); err != nil {
			t.Fatal(err)
		}
		want(t, d.heard(), `v2/a {"every":30}`)
		w.noDeadLetters(t, "v1")
	})
}

// TestThingsBoardHTTP replays ThingsBoard's Python SDK for HTTP, and what its server answers to
// what can't be had.
func TestThingsBoardHTTP(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.device(t, "v1", "test-valve", nil)
		w.firmware(t, "test-valve", "pump", "1.1", []byte("0123456789ab"))
		for _, x := range []struct {
			method, path, body string
			status             int
			answer             string // "*" for any
		}{
			{"POST", "telemetry", `{}`, 200, ""}, // the test of the connection
			{"POST", "telemetry", `{"level":1}`, 200, ""},
			{"POST", "telemetry", `{"ts":1764000000000,"values":{"level":1}}`, 200, ""},
			{"POST", "telemetry", `[{"ts":1764000001000,"values":{"level":1}}]`, 200, ""},
			{"POST", "telemetry", `{"level"`, 400, "*"},
			{"POST", "attributes", `{"serial":"<1>"}`, 200, ""},
			{"GET", "attributes?clientKeys=serial&sharedKeys=every", "", 200, `{"client":{"serial":"<1>"},"shared":{"every":60}}`},
			{"GET", "attributes?clientKeys=missing", "", 200, `{}`},
			{"GET", "rpc?timeout=1000", "", 408, ""},
			{"GET", "attributes/updates?timeout=1000", "", 408, ""},
			{"GET", "rpc?timeout=0", "", 408, ""}, // after a minute of the bubble
			{"POST", "rpc", `{"method":"getTime","params":{}}`, 200, "*"},
			{"GET", "firmware?title=pump&version=1.1&size=5&chunk=1", "", 200, "56789"},
			{"GET", "firmware?title=pump&version=1.1", "", 200, "0123456789ab"},
			{"GET", "firmware?title=pump&version=2", "", 400, "*"},
			{"GET", "software?title=pump&version=1.1", "", 404, "*"},
		} {
			req, _ := http.NewRequest(x.method, "http://citywarden/api/v1/"+w.devices["v1"]+"/"+x.path, bytes.NewReader([]byte(x.body)))
			req.Header.Set("Content-Type", "application/json")
			res, err := w.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil || res.StatusCode != x.status || x.answer != "*" && string(body) != x.answer {
				t.Errorf("%s %s %s: %d %q, %v; want %d %q", x.method, x.path, x.body, res.StatusCode, body, err, x.status, x.answer)
			}
		}
	})
}
