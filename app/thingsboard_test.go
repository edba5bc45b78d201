package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server/ats"

	"github.com/citywarden/citywarden"
)

// valveModel is a model whose devices are told two of their attributes.
const valveModel = `name: test-valve
title: {zh: 阀, en: Valve}
domain: pipe
report: 1m
heartbeat: 5m
metrics:
- {name: level, title: {zh: 位, en: Level}, kind: number}
attributes:
- {name: every, title: {zh: 间隔, en: Interval}, kind: number, default: 60, shared: true}
- {name: led, title: {zh: 灯, en: Light}, kind: bool, shared: true}
- {name: gateway, title: {zh: 网关, en: Gateway}, kind: text}
`

// client is a device that speaks MQTT and keeps what it hears.
type client struct {
	t *testing.T
	c paho.Client

	mu  sync.Mutex
	got []string
}

func (w *world) device(t *testing.T, id, model string, attrs map[string]any) {
	t.Helper()
	if err := w.call("admin", "POST", "/devices", map[string]any{"id": id, "name": "The " + id, "model": model, "attributes": attrs}, nil); err != nil {
		t.Fatal(err)
	}
	var c struct{ Token string }
	if err := w.call("admin", "POST", "/devices/"+id+"/credentials", map[string]string{"type": "token"}, &c); err != nil {
		t.Fatal(err)
	}
	w.devices[id] = c.Token
}

func (w *world) client(t *testing.T, id string) *client {
	t.Helper()
	d := &client{t: t}
	dial := w.mqtt.Dial
	d.c = paho.NewClient(paho.NewClientOptions().AddBroker("pipe://citywarden").SetClientID(id).SetUsername(w.devices[id]).
		SetAutoReconnect(false).SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return dial(context.Background()) }).
		SetDefaultPublishHandler(d.take)) // of what the filter alone does not explain: v2/fw/response/+
	if tok := d.c.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	w.clients[id] = d.c
	return d
}

func (d *client) take(_ paho.Client, m paho.Message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.got = append(d.got, m.Topic()+" "+string(m.Payload()))
}

func (d *client) subscribe(filters ...string) {
	d.t.Helper()
	for _, f := range filters {
		tok := d.c.Subscribe(f, 1, d.take)
		if !tok.WaitTimeout(time.Minute) || tok.Error() != nil {
			d.t.Fatalf("subscribe to %s: %v", f, tok.Error())
		}
	}
}

func (d *client) publish(topic, body string) {
	d.t.Helper()
	if tok := d.c.Publish(topic, 1, false, body); !tok.WaitTimeout(time.Minute) || tok.Error() != nil {
		d.t.Fatalf("publish %s to %s: %v", body, topic, tok.Error())
	}
}

// heard returns what came since the last call.
func (d *client) heard() []string {
	time.Sleep(time.Second)
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	got := d.got
	d.got = nil
	return got
}

// inWorld opens the platform with the model of the valve.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	if testing.Short() {
		t.Skip("opens the whole platform")
	}
	ats.Register() // see TestScenarios
	t.Cleanup(ats.Unregister)
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w := &world{t: t, dir: dir, data: filepath.Join(dir, "data"), tokens: map[string]string{}, devices: map[string]string{}}
		if err := os.MkdirAll(filepath.Join(w.data, "models"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.data, "models", "valve.yaml"), []byte(valveModel), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(time.Date(2026, 11, 23, 9, 0, 0, 0, shanghai)))
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		defer w.end()
		f(t, w)
	})
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestThingsBoardDevice replays what ThingsBoard's client SDK sends: telemetry in
// its three forms, attributes of all scopes, over MQTT and HTTP.
func TestThingsBoardDevice(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.device(t, "v1", "test-valve", map[string]any{"led": true})
		d := w.client(t, "v1")
		d.subscribe("v1/devices/me/attributes", "v1/devices/me/attributes/response/+", "v1/devices/me/rpc/request/+")
		now := time.Now().UnixMilli()
		d.publish("v1/devices/me/telemetry", `{"level":1}`)
		d.publish("v1/devices/me/telemetry", fmt.Sprintf(`{"ts":%d,"values":{"level":2}}`, now+1000))
		d.publish("v1/devices/me/telemetry", fmt.Sprintf(`[{"ts":%d,"values":{"level":3}},{"ts":%d,"values":{"level":4}}]`, now+3000, now+2000))
		d.publish("v1/devices/me/attributes", `{"firmwareVersion":"1.0.3","serialNumber":"SN-001"}`)
		d.publish("v1/devices/me/attributes/request/1", `{"clientKeys":"firmwareVersion","sharedKeys":"every,led"}`)
		want(t, d.heard(), `v1/devices/me/attributes/response/1 {"client":{"firmwareVersion":"1.0.3"},"shared":{"every":60,"led":true}}`)

		var view citywarden.DeviceView
		if err := w.call("admin", "GET", "/devices/v1", nil, &view); err != nil {
			t.Fatal(err)
		}
		if view.Latest["level"].Value.String() != "3" || view.Client["serialNumber"] != "SN-001" || view.Status != citywarden.StatusOnline {
			t.Errorf("%+v", view)
		}
		set := map[string]any{"name": "x", "model": "test-valve", "attributes": map[string]any{"every": 30}}
		if err := w.call("admin", "PUT", "/devices/v1", set, nil); err != nil {
			t.Fatal(err)
		}
		want(t, d.heard(), `v1/devices/me/attributes {"deleted":["led"],"every":30}`)

		req, _ := http.NewRequest("GET", "http://citywarden/api/v1/"+w.devices["v1"]+"/attributes?clientKeys=serialNumber&sharedKeys=every", nil)
		res, err := w.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		want(t, []string{res.Status, strings.TrimSpace(string(body))}, "200 OK", `{"client":{"serialNumber":"SN-001"},"shared":{"every":30}}`)
	})
}

// TestThingsBoardSDK replays how ThingsBoard's Python SDK begins: it subscribes to
// all that a device may, asks for the limits of its session, and a device without a
// clock for the time.
func TestThingsBoardSDK(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.device(t, "v1", "test-valve", nil)
		d := w.client(t, "v1")
		d.subscribe("v1/devices/me/attributes", "v1/devices/me/attributes/response/+", "v1/devices/me/rpc/request/+", "v1/devices/me/rpc/response/+")
		d.publish("v1/devices/me/rpc/request/1", `{"method":"getSessionLimits","params":{"timeout":5000}}`)
		d.publish("v1/devices/me/rpc/request/2", `{"method":"getCurrentTime","params":{}}`)
		now := time.Now()
		d.publish("v1/devices/me/rpc/request/3", `{"method":"getForecast","params":{}}`)
		want(t, d.heard(),
			`v1/devices/me/rpc/response/1 {"maxPayloadSize":262144,"maxInflightMessages":256,"rateLimits":{}}`,
			fmt.Sprintf("v1/devices/me/rpc/response/2 %d", now.UnixMilli()),
			`v1/devices/me/rpc/response/3 {"error":"no method getForecast; the platform answers getCurrentTime, getTime, getSessionLimits"}`)
	})
}

// TestThingsBoardGateway replays what ThingsBoard's gateway sends from its start
// to the disconnect of a device.
func TestThingsBoardGateway(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.device(t, "gw", "iot-gateway", nil)
		for _, id := range []string{"v1", "v2"} {
			w.device(t, id, "test-valve", map[string]any{"gateway": "gw"})
		}
		w.device(t, "v3", "test-valve", nil)
		g := w.client(t, "gw")
		g.subscribe("v1/devices/me/attributes", "v1/devices/me/attributes/response/+", "v1/devices/me/rpc/request/+",
			"v1/gateway/attributes", "v1/gateway/attributes/response", "v1/gateway/rpc")
		status := func(id string) string {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			var v citywarden.DeviceView
			if err := w.call("admin", "GET", "/devices/"+id, nil, &v); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(v.Status, " ", v.Left, " ", v.Latest["level"].Value, " ", v.Client)
		}
		g.publish("v1/gateway/connect", `{"device":"The v1","type":"default"}`)
		g.publish("v1/gateway/connect", `{"device":"v2"}`)
		want(t, []string{status("v1"), status("v2"), status("v3")}, "online false <invalid> map[]", "online false <invalid> map[]", "never false <invalid> map[]")
		g.publish("v1/gateway/telemetry", fmt.Sprintf(`{"The v1":[{"ts":%d,"values":{"level":7}}],"v2":[{"level":8}],"v3":[{"level":9}]}`, time.Now().UnixMilli()))
		g.publish("v1/gateway/attributes", `{"The v1":{"serialNumber":"SN-1"}}`)
		g.publish("v1/gateway/attributes/request", `{"id":1,"device":"The v1","client":true,"key":"serialNumber"}`)
		g.publish("v1/gateway/attributes/request", `{"id":2,"device":"The v1","client":false,"keys":["every","led"]}`)
		want(t, g.heard(),
			`v1/gateway/attributes/response {"id":1,"device":"The v1","value":"SN-1"}`,
			`v1/gateway/attributes/response {"id":2,"device":"The v1","values":{"every":60}}`)
		if err := w.call("admin", "PUT", "/devices/v1", map[string]any{"name": "The v1", "model": "test-valve", "attributes": map[string]any{"gateway": "gw", "led": true}}, nil); err != nil {
			t.Fatal(err)
		}
		want(t, g.heard(), `v1/gateway/attributes {"device":"The v1","data":{"led":true}}`)
		g.publish("v1/gateway/disconnect", `{"device":"v2"}`)
		want(t, []string{status("v1"), status("v2"), status("v3")}, "online false 7 map[serialNumber:SN-1]", "silent true 8 map[]", "never false <invalid> map[]")

		var letters struct{ Items []citywarden.DeadLetter }
		time.Sleep(time.Minute)
		if err := w.call("admin", "GET", "/deadletters?device=gw", nil, &letters); err != nil {
			t.Fatal(err)
		}
		if len(letters.Items) != 1 || !strings.Contains(letters.Items[0].Reason, `no device "v3" behind gateway gw; register it`) {
			t.Errorf("dead letters of the gateway: %+v", letters.Items)
		}
	})
}

// TestThingsBoardClaim replays how ThingsBoard's SDK has a device claimed, and its gateway the
// devices behind it.
func TestThingsBoardClaim(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.device(t, "v1", "test-valve", nil)
		w.device(t, "gw", "iot-gateway", nil)
		w.device(t, "v2", "test-valve", map[string]any{"gateway": "gw"})
		w.device(t, "v3", "test-valve", nil)
		w.client(t, "v1").publish("v1/devices/me/claim", `{"secretKey":"DEVICE_SECRET_KEY","durationMs":60000}`)
		w.client(t, "gw").publish("v1/gateway/claim", `{"The v2":{"secretKey":"DEVICE_SECRET_KEY","durationMs":60000},"v3":{"secretKey":"DEVICE_SECRET_KEY"}}`)
		claim := func(id, secret string) string {
			err := w.call("admin", "POST", "/devices/"+id+"/claim", map[string]any{"secret": secret, "location": citywarden.Point{Lat: 24.1, Lon: 117.6}}, nil)
			if err != nil {
				return string(citywarden.CodeOf(err)) + " " + err.Error()
			}
			return "claimed"
		}
		for _, c := range []struct{ id, secret, want string }{
			{"v1", "another", "that is not the secret"}, {"v1", "DEVICE_SECRET_KEY", "claimed"}, {"v1", "DEVICE_SECRET_KEY", "was claimed since"},
			{"v2", "DEVICE_SECRET_KEY", "claimed"}, {"v3", "DEVICE_SECRET_KEY", "device v3 has not said that it may be claimed"}, {"gw", "DEVICE_SECRET_KEY", "has not said"},
		} {
			if got := claim(c.id, c.secret); !strings.Contains(got, c.want) {
				t.Errorf("%s with %s: %s, want %s", c.id, c.secret, got, c.want)
			}
		}
		w.clients["v1"].Publish("v1/devices/me/claim", 1, false, `{"secretKey":"s","durationMs":60000}`).Wait()
		time.Sleep(time.Minute)
		want(t, []string{fmt.Sprint(strings.Contains(claim("v1", "s"), "could be claimed until"))}, "true")
	})
}

// TestThingsBoardCommands replays RPC of ThingsBoard's SDK and gateway: a command
// waits for a device that sleeps, over a restart too, and one of a device behind a
// gateway goes through it.
func TestThingsBoardCommands(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.device(t, "v1", "valve", nil)
		w.device(t, "gw", "iot-gateway", nil)
		w.device(t, "v2", "valve", map[string]any{"gateway": "gw"})
		tell := func(id, body string) citywarden.Command {
			t.Helper()
			var c citywarden.Command
			if err := w.call("admin", "POST", "/devices/"+id+"/commands", json.RawMessage(body), &c); err != nil {
				t.Fatal(err)
			}
			return c
		}
		state := func(id string) string {
			t.Helper()
			synctest.Wait()
			var page struct{ Items []citywarden.Command }
			if err := w.call("admin", "GET", "/devices/"+id+"/commands", nil, &page); err != nil || len(page.Items) == 0 {
				t.Fatal(err)
			}
			return strings.TrimSpace(fmt.Sprint(page.Items[0].State, " ", string(page.Items[0].Answer)))
		}
		if c := tell("v1", `{"method":"set_position","params":{"position":40}}`); c.State != citywarden.CommandQueued || c.By != "admin" {
			t.Errorf("%+v", c)
		}
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		d := w.client(t, "v1")
		d.subscribe("v1/devices/me/rpc/request/+")
		want(t, d.heard(), `v1/devices/me/rpc/request/1 {"method":"set_position","params":{"position":40}}`)
		want(t, []string{state("v1")}, "delivered")
		d.publish("v1/devices/me/rpc/response/1", `{"position":40}`)
		want(t, []string{state("v1")}, `answered {"position":40}`)

		g := w.client(t, "gw")
		g.subscribe("v1/gateway/rpc")
		g.publish("v1/gateway/connect", `{"device":"The v2"}`)
		tell("v2", `{"method":"set_position","params":{"position":0}}`)
		want(t, g.heard(), `v1/gateway/rpc {"device":"The v2","data":{"id":2,"method":"set_position","params":{"position":0}}}`)
		g.publish("v1/gateway/rpc", `{"device":"The v2","id":2,"data":{"success":true}}`)
		want(t, []string{state("v2")}, `answered {"success":true}`)

		d.c.Disconnect(0)
		tell("v1", `{"method":"set_position","params":{"position":10},"expires":"2m"}`)
		time.Sleep(3 * time.Minute)
		want(t, []string{state("v1")}, "timed_out")
		for body, says := range map[string]string{
			`{"method":"set_position","params":{"position":101}}`: "it is 0 to 100",
			`{"method":"set"}`: "no command",
		} {
			if err := w.call("admin", "POST", "/devices/v1/commands", json.RawMessage(body), nil); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, want %s", body, err, says)
			}
		}

		var audit struct{ Items []citywarden.AuditEntry }
		if err := w.call("admin", "GET", "/audit?limit=100", nil, &audit); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(audit.Items, func(e citywarden.AuditEntry) bool { return strings.Contains(fmt.Sprintf("%+v", e), "send-command") }) {
			t.Error("the audit log has no command")
		}
	})
}

// now is in a minute, in milliseconds: newer than what arrives in a test.
func (w *world) now() int64 { return time.Now().Add(time.Minute).UnixMilli() }

// tell sends a command to a device.
func (w *world) tell(id, body string) (citywarden.Command, error) {
	var c citywarden.Command
	err := w.call("admin", "POST", "/devices/"+id+"/commands", json.RawMessage(body), &c)
	return c, err
}

// firmware adds a package for a model and gives it to all of its devices.
func (w *world) firmware(t *testing.T, model, title, version string, file []byte) {
	t.Helper()
	var form bytes.Buffer
	f := multipart.NewWriter(&form)
	for k, v := range map[string]string{"title": title, "version": version, "model": model} {
		_ = f.WriteField(k, v)
	}
	part, err := f.CreateFormFile("file", "image.bin")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = part.Write(file)
	_ = f.Close()
	if err := w.call("admin", "GET", "/firmware", nil, nil); err != nil { // which signs in
		t.Fatal(err)
	}
	req, err := http.NewRequest("POST", "http://citywarden/api/v1/firmware", &form)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.tokens["admin"])
	req.Header.Set("Content-Type", f.FormDataContentType())
	res, err := w.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		b, _ := io.ReadAll(res.Body)
		t.Fatalf("firmware: %s %s", res.Status, b)
	}
	if err := w.call("admin", "POST", "/firmware/assign", map[string]string{"scope": "model", "name": model, "title": title, "version": version}, nil); err != nil {
		t.Fatal(err)
	}
}

// noDeadLetters fails when a device has some.
func (w *world) noDeadLetters(t *testing.T, id string) {
	t.Helper()
	time.Sleep(time.Minute)
	var letters struct{ Items []citywarden.DeadLetter }
	if err := w.call("admin", "GET", "/deadletters?device="+id, nil, &letters); err != nil {
		t.Fatal(err)
	}
	for _, x := range letters.Items {
		t.Errorf("dead letter of %s: %s %s: %s", id, x.Topic, x.Payload, x.Reason)
	}
}
