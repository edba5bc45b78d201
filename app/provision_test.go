package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/citywarden/citywarden"
)

// A device asks for a credential over MQTT, HTTP or CoAP and is known by it from then on.
func TestDevicesProvisionThemselves(t *testing.T) {
	c := Default()
	c.Data = filepath.Join(t.TempDir(), "data")
	c.HTTP.Addr, c.MQTT.Addr, c.CoAP.Addr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	a, err := Open(t.Context(), c, Options{AdminPassword: "a good one"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	web := "http://" + a.HTTPAddr().String()
	ask := func(method, path, token, body string, into any) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, web+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if err := json.NewDecoder(answer.Body).Decode(into); err != nil || answer.StatusCode >= 300 {
			t.Fatalf("%s %s: %s, %v", method, path, answer.Status, err)
		}
	}
	var admin struct {
		Token string `json:"token"`
	}
	ask("POST", "/api/v1/login", "", `{"user":"admin","password":"a good one"}`, &admin)
	var model struct {
		Key    string `json:"key"`
		Secret string `json:"secret"`
	}
	ask("PUT", "/api/v1/provisioning/smoke-detector", admin.Token, `{"create_new":true}`, &model)

	type given struct {
		Value, Type, Status string
	}
	read := func(b []byte) (g given) {
		t.Helper()
		var answer struct {
			Value  string `json:"credentialsValue"`
			Type   string `json:"credentialsType"`
			Status string `json:"status"`
		}
		if err := json.Unmarshal(b, &answer); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		return given(answer)
	}
	request := func(device string) string {
		return fmt.Sprintf(`{"deviceName":%q,"provisionDeviceKey":%q,"provisionDeviceSecret":%q}`, device, model.Key, model.Secret)
	}

	// Over MQTT, as the user provision, which may do nothing else.
	p := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + a.MQTTAddr().String()).SetUsername(citywarden.ProvisionUser).SetAutoReconnect(false))
	if tok := p.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	answers := make(chan []byte, 1)
	if tok := p.Subscribe(citywarden.ProvisionResponse, 1, func(_ paho.Client, m paho.Message) { answers <- m.Payload() }); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	if tok := p.Subscribe("v1/devices/me/attributes", 1, nil); tok.Wait() && tok.(*paho.SubscribeToken).Result()["v1/devices/me/attributes"] != 0x80 {
		t.Error("the user provision may subscribe to a device's topic")
	}
	p.Publish(citywarden.ProvisionRequest, 1, false, request("sd-mqtt"))
	got := map[string]given{}
	select {
	case b := <-answers:
		got["sd-mqtt"] = read(b)
	case <-time.After(10 * time.Second):
		t.Fatal("no answer over MQTT")
	}
	lost := p.Publish("v1/devices/me/telemetry", 1, false, "{}")
	if lost.WaitTimeout(10*time.Second) && lost.Error() == nil && p.IsConnected() {
		t.Error("the user provision may publish telemetry")
	}

	var overHTTP json.RawMessage
	ask("POST", "/api/v1/provision", "", request("sd-http"), &overHTTP)
	got["sd-http"] = read(overHTTP)

	if client, err := exec.LookPath("coap-client-notls"); err == nil {
		out, err := exec.Command(client, "-m", "post", "-t", "json", "-e", request("sd-coap"), "coap://"+a.CoAPAddr().String()+"/api/v1/provision").Output()
		if err != nil {
			t.Fatal(err)
		}
		got["sd-coap"] = read(out)
	}
	for device, g := range got {
		if g.Type != "ACCESS_TOKEN" || g.Status != "SUCCESS" {
			t.Errorf("%s: %+v", device, g)
			continue
		}
		r, err := http.Post(web+"/api/v1/"+g.Value+"/telemetry", "application/json", strings.NewReader(`{"smoke":0.03}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		var d citywarden.DeviceView
		ask("GET", "/api/v1/devices/"+device, admin.Token, "", &d)
		if r.StatusCode != http.StatusOK || d.Model != "smoke-detector" {
			t.Errorf("%s: telemetry %s, model %s", device, r.Status, d.Model)
		}
	}
}
