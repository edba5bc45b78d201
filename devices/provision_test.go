package devices_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker/certtest"
	"github.com/citywarden/citywarden/devices"
)

// Answers are ThingsBoard's, member by member.
func TestProvision(t *testing.T) {
	ctx := t.Context()
	db := openStore(t, filepath.Join(t.TempDir(), "x.db"))
	r := registryOn(t, db, devices.Options{})
	var log bytes.Buffer
	open := func() *devices.Provisioner {
		p, err := devices.NewProvisioner(ctx, db, r, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := open()
	fresh, freshSecret, err := p.SetProvisioning(ctx, "smoke-detector", true)
	if err != nil {
		t.Fatal(err)
	}
	known, knownSecret, err := p.SetProvisioning(ctx, "energy-meter", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.SetProvisioning(ctx, "smoke-detectr", false); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Errorf("unknown model: %v", err)
	}
	for _, d := range []citywarden.Device{{ID: "m-1", Model: "energy-meter"}, {ID: "m-2", Model: "energy-meter"}, {ID: "m-4", Model: "energy-meter", Disabled: true}, {ID: "s-0", Model: "smoke-detector"}} {
		if _, err := r.Create(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.SetToken(ctx, "m-2", "token-of-m-2"); err != nil {
		t.Fatal(err)
	}
	p = open() // a restart changes nothing
	cert := certtest.New(t).Valid("x")
	der := base64.StdEncoding.EncodeToString(cert.Leaf.Raw)
	const (
		notFound = `{"errorMsg":"Provision data was not found!","status":"NOT_FOUND"}`
		failure  = `{"errorMsg":"Failed to provision device!","status":"FAILURE"}`
	)
	for _, c := range []struct {
		name, key, secret, device, rest string
		want                            string // TOKEN for any token
	}{
		{"no key", "", "", "s-1", "", notFound},
		{"wrong secret", fresh.Key, knownSecret, "s-1", "", notFound},
		{"new device", fresh.Key, freshSecret, "s-1", "", `{"credentialsValue":"TOKEN","credentialsType":"ACCESS_TOKEN","status":"SUCCESS"}`},
		{"once more", fresh.Key, freshSecret, "s-1", "", failure},
		{"registered, but only new ones may", fresh.Key, freshSecret, "s-0", "", failure},
		{"bad id", fresh.Key, freshSecret, "a b", "", failure},
		{"agreed token", fresh.Key, freshSecret, "s-2", `,"credentialsType":"ACCESS_TOKEN","token":"token-of-s-2"`, `{"credentialsValue":"token-of-s-2","credentialsType":"ACCESS_TOKEN","status":"SUCCESS"}`},
		{"another device's token", fresh.Key, freshSecret, "s-3", `,"credentialsType":"ACCESS_TOKEN","token":"token-of-s-2"`, failure},
		{"user and password", fresh.Key, freshSecret, "s-4", `,"credentialsType":"MQTT_BASIC","username":"u","password":"open sesame","clientId":"c"`,
			`{"credentialsValue":{"clientId":"c","userName":"u","password":"open sesame"},"credentialsType":"MQTT_BASIC","status":"SUCCESS"}`},
		{"certificate", fresh.Key, freshSecret, "s-5", `,"credentialsType":"X509_CERTIFICATE","hash":"` + der + `"`,
			`{"credentialsValue":"` + der + `","credentialsType":"X509_CERTIFICATE","status":"SUCCESS"}`},
		{"the SHA-256 of a certificate", fresh.Key, freshSecret, "s-6", fmt.Sprintf(`,"credentialsType":"X509_CERTIFICATE","hash":"%064d"`, 1), failure},
		{"no certificate", fresh.Key, freshSecret, "s-6", `,"credentialsType":"X509_CERTIFICATE"`, failure},
		{"another type", fresh.Key, freshSecret, "s-6", `,"credentialsType":"LWM2M_CREDENTIALS"`, failure},
		{"registered", known.Key, knownSecret, "m-1", "", `{"credentialsValue":"TOKEN","credentialsType":"ACCESS_TOKEN","status":"SUCCESS"}`},
		{"registered, once more", known.Key, knownSecret, "m-1", "", failure},
		{"registered, with a token", known.Key, knownSecret, "m-2", "", failure},
		{"registered, but disabled", known.Key, knownSecret, "m-4", "", failure},
		{"not registered", known.Key, knownSecret, "m-3", "", failure},
		{"of another model", known.Key, knownSecret, "s-0", "", failure},
	} {
		got := string(p.Provision(ctx, fmt.Appendf(nil, `{"deviceName":%q,"provisionDeviceKey":%q,"provisionDeviceSecret":%q%s}`, c.device, c.key, c.secret, c.rest)))
		if strings.Contains(c.want, "TOKEN\"") && strings.Contains(got, "SUCCESS") && strings.Contains(c.want, `"TOKEN"`) {
			var answer struct {
				Value string `json:"credentialsValue"`
			}
			if err := json.Unmarshal([]byte(got), &answer); err != nil {
				t.Fatal(err)
			}
			if id, err := r.Authenticate(answer.Value); string(id) != c.device || err != nil {
				t.Errorf("%s: the token is that of %q, %v", c.name, id, err)
			}
			got = strings.Replace(got, answer.Value, "TOKEN", 1)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s:\n%s", c.name, d)
		}
	}
	if id, err := r.Authenticate(citywarden.MQTTSecret("c", "u", "open sesame")); id != "s-4" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
	if id, err := r.AuthenticateCertificate(cert.Leaf, func() bool { return false }); id != "s-5" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
	if _, _, err := r.Device("s-3"); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Error("a device whose credential can't be is registered all the same")
	}
	for _, body := range []string{"", "[]", strings.Repeat(" ", 17<<10) + "{}"} {
		if got := string(p.Provision(ctx, []byte(body))); got != failure {
			t.Errorf("%.10q: %s", body, got)
		}
	}
	if d := cmp.Diff([]citywarden.Provisioning{known, fresh}, p.Provisioning()); d != "" {
		t.Error(d)
	}
	if err := p.EndProvisioning(ctx, "smoke-detector"); err != nil {
		t.Fatal(err)
	}
	if err := p.EndProvisioning(ctx, "smoke-detector"); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Error(err)
	}
	last := fmt.Appendf(nil, `{"deviceName":"s-9","provisionDeviceKey":%q,"provisionDeviceSecret":%q}`, fresh.Key, freshSecret)
	if got := string(p.Provision(ctx, last)); got != notFound {
		t.Errorf("after the end: %s", got)
	}
	log.Reset()
	for range 1000 { // who has no key holds up nobody who has one
		if got := string(p.Provision(ctx, last)); got != notFound {
			t.Fatal(got)
		}
	}
	if n := strings.Count(log.String(), "\n"); n > 10 {
		t.Errorf("%d lines of 1000 strangers are in the log", n)
	}
	ask := fmt.Appendf(nil, `{"deviceName":"m-9","provisionDeviceKey":%q,"provisionDeviceSecret":%q}`, known.Key, knownSecret)
	if _, err := r.Create(ctx, citywarden.Device{ID: "m-9", Model: "energy-meter"}); err != nil {
		t.Fatal(err)
	}
	if got := string(p.Provision(ctx, ask)); !strings.Contains(got, "SUCCESS") {
		t.Error(got)
	}
	for range 1000 { // more than a second's worth
		p.Provision(ctx, ask)
	}
	if !strings.Contains(log.String(), "more than 20 devices a second ask") {
		t.Error("1000 requests at once are looked at")
	}
}

// Who knows a model's key and the certificate of a device, which is public, does not
// become that device, nor does the device become another.
func TestProvisionWithAnothersCertificate(t *testing.T) {
	ctx, db := t.Context(), openStore(t, filepath.Join(t.TempDir(), "x.db"))
	r := registryOn(t, db, devices.Options{})
	p, err := devices.NewProvisioner(ctx, db, r, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	x, secret, err := p.SetProvisioning(ctx, "smoke-detector", true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(ctx, citywarden.Device{ID: "m-7", Model: "energy-meter"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Issue(ctx, "m-7", citywarden.SecretRequest{Subject: "m-7"}); err != nil {
		t.Fatal(err)
	}
	cert := certtest.New(t).Valid("m-7")
	p.Provision(ctx, fmt.Appendf(nil, `{"deviceName":"evil","provisionDeviceKey":%q,"provisionDeviceSecret":%q,"credentialsType":"X509_CERTIFICATE","hash":%q}`, x.Key, secret, certtest.PEM(cert)))
	if id, err := r.AuthenticateCertificate(cert.Leaf, func() bool { return true }); id != "m-7" || err != nil {
		t.Errorf("m-7 is %q now, %v", id, err)
	}
}
