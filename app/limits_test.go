package app

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/citywarden/citywarden"
)

// limitedModel is a model whose devices may send five messages a minute, connect four times a minute, and
// send 64 bytes at once.
const limitedModel = `name: limited
title: {zh: 受限, en: Limited}
domain: pipe
report: 1m
heartbeat: 5m
metrics:
- {name: flow, title: {zh: 流, en: Flow}, kind: number}
attributes:
- {name: gateway, title: {zh: 网关, en: Gateway}, kind: text}
limits: {messages: 5/1m, connections: 4/1m, payload: 64}
`

// TestLimits: what reaches a limit of its model is answered, or a dead letter, over every protocol, and never
// dropped in silence.
func TestLimits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.data, "models", "limited.yaml"), []byte(limitedModel), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"h", "m", "c"} {
			w.device(t, id, "limited", nil)
		}
		w.device(t, "gw", "iot-gateway", nil)
		w.device(t, "child", "limited", map[string]any{"gateway": "gw"})
		rejected := func(id string) (reasons []string) {
			t.Helper()
			time.Sleep(time.Minute)
			var letters struct{ Items []citywarden.DeadLetter }
			if err := w.call("admin", "GET", "/deadletters?device="+id, nil, &letters); err != nil {
				t.Fatal(err)
			}
			for _, x := range letters.Items {
				reasons = append(reasons, x.Reason)
			}
			return reasons
		}
		post := func(body string) (*http.Response, string) {
			t.Helper()
			req, _ := http.NewRequest("POST", "http://citywarden/api/v1/"+w.devices["h"]+"/telemetry", bytes.NewReader([]byte(body)))
			res, err := w.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			b, _ := io.ReadAll(res.Body)
			return res, string(b)
		}

		// HTTP: five at once, then 429 with when to come again; what it says holds.
		for range 5 {
			if res, body := post(`{"flow":1}`); res.StatusCode != 200 {
				t.Fatalf("%s %s", res.Status, body)
			}
		}
		res, body := post(`{"flow":1}`)
		if res.StatusCode != 429 || res.Header.Get("Retry-After") != "12" || !strings.Contains(body, "device h sends more than the 5/1m messages of model limited") {
			t.Errorf("%s %v %s", res.Status, res.Header, body)
		}
		time.Sleep(12 * time.Second)
		if res, body := post(`{"flow":1}`); res.StatusCode != 200 {
			t.Errorf("after Retry-After: %s %s", res.Status, body)
		}
		time.Sleep(8 * time.Second) // less than 5 s are missing: it is held up, not refused
		began := time.Now()
		if res, body := post(`{"flow":1}`); res.StatusCode != 200 || time.Since(began).Round(time.Second) != 4*time.Second {
			t.Errorf("%s after %s: %s", res.Status, time.Since(began), body)
		}
		time.Sleep(time.Minute)
		long := `{"flow":` + strings.Repeat(" ", 60) + `1}`
		if res, body := post(long); res.StatusCode != 413 || !strings.Contains(body, "model limited takes 64") {
			t.Errorf("%s %s", res.Status, body)
		}
		if got := rejected("h"); len(got) != 1 || !strings.Contains(got[0], "; model limited takes 64") {
			t.Errorf("dead letters of h: %q", got)
		}

		// MQTT 3.1.1: the message that is too much is not acknowledged and the connection ends; sent again later it is stored.
		d := w.client(t, "m")
		for range 5 {
			d.publish("v1/devices/me/telemetry", `{"flow":1}`)
		}
		if tok := d.c.Publish("v1/devices/me/telemetry", 1, false, `{"flow":2}`); tok.WaitTimeout(6*time.Second) && tok.Error() == nil || d.c.IsConnectionOpen() {
			t.Error("the sixth message was acknowledged, or the connection goes on")
		}
		time.Sleep(7 * time.Second)
		d = w.client(t, "m")
		d.publish("v1/devices/me/telemetry", `{"flow":2}`)
		d.subscribe("v1/devices/me/rpc/response/+")
		d.publish("v1/devices/me/rpc/request/1", `{"method":"getSessionLimits","params":{}}`)
		want(t, d.heard(), `v1/devices/me/rpc/response/1 {"maxPayloadSize":64,"maxInflightMessages":256,"rateLimits":{"messages":"5:60","telemetryMessages":"5:60"}}`)
		time.Sleep(time.Minute)
		d.publish("v1/devices/me/telemetry", long)
		if got := rejected("m"); len(got) != 1 {
			t.Errorf("dead letters of m: %q", got)
		}

		// Connections: four at once, the fifth is refused with "server unavailable".
		dial := w.mqtt.Dial
		connect := func() error {
			c := paho.NewClient(paho.NewClientOptions().AddBroker("pipe://citywarden").SetClientID("c").SetUsername(w.devices["c"]).SetAutoReconnect(false).SetProtocolVersion(4).
				SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return dial(context.Background()) }))
			tok := c.Connect()
			tok.Wait()
			c.Disconnect(0)
			return tok.Error()
		}
		for range 4 {
			if err := connect(); err != nil {
				t.Fatal(err)
			}
		}
		if err := connect(); err == nil || !strings.Contains(err.Error(), "server Unavailable") {
			t.Errorf("the fifth connection of a minute: %v", err)
		}
		time.Sleep(15 * time.Second)
		if err := connect(); err != nil {
			t.Errorf("15 s later: %v", err)
		}

		// A child that sends too much has no answer of its own: what is too much is a dead letter, and its
		// gateway goes on.
		g := w.client(t, "gw")
		for range 7 {
			g.publish("v1/gateway/telemetry", `{"child":[{"flow":3}]}`)
		}
		g.publish("v1/gateway/telemetry", `{"child":`+long+`}`)
		if got := rejected("child"); len(got) != 3 || !strings.Contains(got[0], "came too fast: model limited takes 5/1m of a device") || !g.c.IsConnectionOpen() {
			t.Errorf("dead letters of child: %q", got)
		}
		var replay citywarden.Replay
		if err := w.call("admin", "POST", "/deadletters/replay", map[string]string{"device": "child"}, &replay); err != nil || replay.Replayed != 2 || replay.Failing != 1 || !strings.Contains(replay.First[0].Reason, "model limited takes 64") {
			t.Errorf("%+v, %v", replay, err)
		}
	})
}
