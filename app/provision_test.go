package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker/certtest"
)

// signedIn signs in and returns what asks the API at web and reads the answer.
func signedIn(t *testing.T, web string) func(method, path, body string, into any) {
	var admin struct {
		Token string `json:"token"`
	}
	ask := func(method, path, body string, into any) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, web+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if admin.Token != "" {
			r.Header.Set("Authorization", "Bearer "+admin.Token)
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
	ask("POST", "/api/v1/login", `{"user":"admin","password":"a good one"}`, &admin)
	return ask
}

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
	ask := signedIn(t, web)
	var model struct {
		Key    string `json:"key"`
		Secret string `json:"secret"`
	}
	ask("PUT", "/api/v1/provisioning/smoke-detector", `{"create_new":true}`, &model)

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
	ask("POST", "/api/v1/provision", request("sd-http"), &overHTTP)
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
		ask("GET", "/api/v1/devices/"+device, "", &d)
		if r.StatusCode != http.StatusOK || d.Model != "smoke-detector" {
			t.Errorf("%s: telemetry %s, model %s", device, r.Status, d.Model)
		}
	}
}

// A device is known by a certificate that it asks to be known by only when the handshake in
// which it asks has shown that it has the key: over MQTT, HTTP and CoAP.
func TestProvisioningTakesTheCertificateThatIsShown(t *testing.T) {
	ca, dir := certtest.New(t), t.TempDir()
	c := Default()
	c.Data = filepath.Join(dir, "data")
	for _, a := range c.addresses() {
		*a.addr = "127.0.0.1:0"
	}
	c.TLS.Cert, c.TLS.Key = certtest.Write(t, dir, "server", ca.Valid("server"))
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
	admin := signedIn(t, "http://"+a.HTTPAddr().String())
	var model struct {
		Key    string `json:"key"`
		Secret string `json:"secret"`
	}
	admin("PUT", "/api/v1/provisioning/smoke-detector", `{"create_new":true}`, &model)
	request := func(device string, cert tls.Certificate) string {
		return fmt.Sprintf(`{"deviceName":%q,"provisionDeviceKey":%q,"provisionDeviceSecret":%q,"credentialsType":"X509_CERTIFICATE","hash":%q}`, device, model.Key, model.Secret, certtest.PEM(cert))
	}
	shows := func(own *tls.Certificate) *tls.Config {
		o := &tls.Config{RootCAs: ca.Pool()}
		if own != nil {
			o.Certificates = []tls.Certificate{*own}
		}
		return o
	}
	ask := map[string]func(device, body string, own *tls.Certificate) string{
		"mqtt": func(_, body string, own *tls.Certificate) string {
			p := paho.NewClient(paho.NewClientOptions().AddBroker("ssl://" + a.Addr("mqtt.tls").String()).SetUsername(citywarden.ProvisionUser).SetAutoReconnect(false).SetTLSConfig(shows(own)))
			if tok := p.Connect(); tok.Wait() && tok.Error() != nil {
				t.Fatal(tok.Error())
			}
			defer p.Disconnect(0)
			answers := make(chan string, 1)
			if tok := p.Subscribe(citywarden.ProvisionResponse, 1, func(_ paho.Client, m paho.Message) { answers <- string(m.Payload()) }); tok.Wait() && tok.Error() != nil {
				t.Fatal(tok.Error())
			}
			p.Publish(citywarden.ProvisionRequest, 1, false, body)
			select {
			case got := <-answers:
				return got
			case <-time.After(10 * time.Second):
				t.Fatal("no answer over MQTT")
				return ""
			}
		},
		"http": func(_, body string, own *tls.Certificate) string {
			web := &http.Client{Transport: &http.Transport{TLSClientConfig: shows(own), DisableKeepAlives: true}}
			r, err := web.Post("https://"+a.Addr("http.tls").String()+"/api/v1/provision", "application/json", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			got, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			return string(got)
		},
	}
	if client, err := exec.LookPath("coap-client-openssl"); err == nil {
		trusted := filepath.Join(dir, "ca.pem")
		if err := os.WriteFile(trusted, ca.PEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		ask["coap"] = func(device, body string, own *tls.Certificate) string {
			args := []string{"-B", "10", "-m", "post", "-t", "json", "-e", body, "-R", trusted}
			if own != nil {
				cert, key := certtest.Write(t, dir, device, *own)
				args = append(args, "-c", cert, "-j", key)
			}
			got, err := exec.Command(client, append(args, "coaps://"+a.Addr("coap.dtls").String()+"/api/v1/provision")...).CombinedOutput()
			if err != nil {
				t.Fatal(err, string(got))
			}
			return string(got)
		}
	}
	for protocol, ask := range ask {
		own, other := ca.Valid(protocol+" own"), ca.Valid(protocol+" other")
		for name, show := range map[string]*tls.Certificate{"none": nil, "another": &other} {
			if got := ask("evil-"+protocol, request("evil-"+protocol, own), show); !strings.Contains(got, "FAILURE") {
				t.Errorf("%s, %s shown: %s", protocol, name, got)
			}
		}
		device := "own-" + protocol
		if got := ask(device, request(device, own), &own); !strings.Contains(got, "SUCCESS") {
			t.Errorf("%s: %s", protocol, got)
		}
		var known struct {
			Items []citywarden.DeviceCredential `json:"items"`
		}
		admin("GET", "/api/v1/devices/"+device+"/credentials", "", &known)
		if len(known.Items) != 1 || !strings.HasPrefix(known.Items[0].Hint, "CN="+protocol+" own") {
			t.Errorf("%s: it is known by %+v", protocol, known.Items)
		}
	}
	var devices struct {
		Items []citywarden.DeviceView `json:"items"`
	}
	if admin("GET", "/api/v1/devices", "", &devices); len(devices.Items) != len(ask) {
		t.Errorf("who did not show its certificate is registered: %+v", devices.Items)
	}
	var entries struct {
		Items []citywarden.AuditEntry `json:"items"`
	}
	if admin("GET", "/api/v1/audit?action=provision-device", "", &entries); len(entries.Items) != len(ask) {
		t.Errorf("%d entries in the audit", len(entries.Items))
	}
	for _, e := range entries.Items {
		if e.Address != "127.0.0.1" {
			t.Errorf("from %s: %+v", e.Address, e)
		}
	}
}
