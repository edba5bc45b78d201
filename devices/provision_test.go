package devices_test

import (
	"bytes"
	"crypto/x509"
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
	authority := certtest.New(t)
	cert, other := authority.Valid("x"), authority.Valid("y")
	der := base64.StdEncoding.EncodeToString(cert.Leaf.Raw)
	const (
		notFound = `{"errorMsg":"Provision data was not found!","status":"NOT_FOUND"}`
		failure  = `{"errorMsg":"Failed to provision device!","status":"FAILURE"}`
	)
	const agreed = "a9Xk2Lq8ZpT4mWcR7vBn"
	var shown *x509.Certificate
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
		{"agreed token", fresh.Key, freshSecret, "s-2", `,"credentialsType":"ACCESS_TOKEN","token":"` + agreed + `"`, `{"credentialsValue":"` + agreed + `","credentialsType":"ACCESS_TOKEN","status":"SUCCESS"}`},
		{"bad token", fresh.Key, freshSecret, "s-3", `,"credentialsType":"ACCESS_TOKEN","token":"not a token, but long enough"`, failure},
		{"user and password", fresh.Key, freshSecret, "s-4", `,"credentialsType":"MQTT_BASIC","username":"u","password":"open sesame","clientId":"c"`,
			`{"credentialsValue":{"clientId":"c","userName":"u","password":"open sesame"},"credentialsType":"MQTT_BASIC","status":"SUCCESS"}`},
		{"the same user, another password", fresh.Key, freshSecret, "s-3", `,"credentialsType":"MQTT_BASIC","username":"u","password":"open barley","clientId":"c"`, failure},
		{"the same user, the right password", fresh.Key, freshSecret, "s-3", `,"credentialsType":"MQTT_BASIC","username":"u","password":"open sesame","clientId":"c"`, failure},
		{"certificate that is not shown", fresh.Key, freshSecret, "s-3", `,"credentialsType":"X509_CERTIFICATE","hash":"` + der + `"`, failure},
		{"another certificate is shown", fresh.Key, freshSecret, "s-3", `,"credentialsType":"X509_CERTIFICATE","hash":"` + der + `"`, failure},
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
		switch c.name {
		case "certificate":
			shown = cert.Leaf
		case "another certificate is shown":
			shown = other.Leaf
		default:
			shown = nil
		}
		got := string(p.Provision(ctx, citywarden.Asker{Protocol: "mqtt", Address: "192.0.2.7:1883", Certificate: shown}, fmt.Appendf(nil, `{"deviceName":%q,"provisionDeviceKey":%q,"provisionDeviceSecret":%q%s}`, c.device, c.key, c.secret, c.rest)))
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
		if got := string(p.Provision(ctx, citywarden.Asker{}, []byte(body))); got != failure {
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
	if got := string(p.Provision(ctx, citywarden.Asker{}, last)); got != notFound {
		t.Errorf("after the end: %s", got)
	}
	log.Reset()
	for range 1000 { // who has no key holds up nobody who has one
		if got := string(p.Provision(ctx, citywarden.Asker{}, last)); got != notFound {
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
	if got := string(p.Provision(ctx, citywarden.Asker{}, ask)); !strings.Contains(got, "SUCCESS") {
		t.Error(got)
	}
	for range 1000 { // more than a second's worth
		p.Provision(ctx, citywarden.Asker{}, ask)
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
	other := certtest.New(t).Valid("other")
	for _, shown := range []*x509.Certificate{nil, other.Leaf} {
		got := p.Provision(ctx, citywarden.Asker{Certificate: shown}, fmt.Appendf(nil, `{"deviceName":"evil","provisionDeviceKey":%q,"provisionDeviceSecret":%q,"credentialsType":"X509_CERTIFICATE","hash":%q}`, x.Key, secret, certtest.PEM(cert)))
		if !strings.Contains(string(got), "FAILURE") {
			t.Errorf("who does not have its key is answered %s", got)
		}
	}
	if id, err := r.AuthenticateCertificate(cert.Leaf, func() bool { return true }); id != "m-7" || err != nil {
		t.Errorf("m-7 is %q now, %v", id, err)
	}
}

// Who has the key of a model does not find out with it which tokens there are: a token that
// can be guessed is answered alike whether a device has it or not, and one that can't be tells
// only who has it.
func TestProvisioningIsNoOracle(t *testing.T) {
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
	const weak, strong = "SD-2026-00000017", "a9Xk2Lq8ZpT4mWcR7vBn"
	for id, token := range map[citywarden.DeviceID]string{"has-weak": weak, "has-strong": strong} {
		if _, err := r.Create(ctx, citywarden.Device{ID: id, Model: "smoke-detector"}); err != nil {
			t.Fatal(err)
		}
		if err := r.SetToken(ctx, id, token); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range []struct {
		token string
		taken bool // as the device's
	}{{weak, false}, {"SD-2026-00000018", false}, {strong, false}, {"b9Xk2Lq8ZpT4mWcR7vBn", true}, {"aaaaaaaaaaaaaaaaaaaaaaaa", false}} {
		id := fmt.Sprintf("asks-%d", i)
		got := p.Provision(ctx, citywarden.Asker{}, fmt.Appendf(nil, `{"deviceName":%q,"provisionDeviceKey":%q,"provisionDeviceSecret":%q,"credentialsType":"ACCESS_TOKEN","token":%q}`, id, x.Key, secret, c.token))
		var answer struct {
			Value  string `json:"credentialsValue"`
			Status string `json:"status"`
		}
		if err := json.Unmarshal(got, &answer); err != nil {
			t.Fatal(err)
		}
		if answer.Status != "SUCCESS" || len(answer.Value) != 20 || (answer.Value == c.token) != c.taken {
			t.Errorf("%s is answered %s", c.token, got)
		}
		if owner, err := r.Authenticate(answer.Value); string(owner) != id || err != nil {
			t.Errorf("%s: what it got is that of %q, %v", c.token, owner, err)
		}
	}
	for token, id := range map[string]citywarden.DeviceID{weak: "has-weak", strong: "has-strong"} {
		if owner, err := r.Authenticate(token); owner != id || err != nil {
			t.Errorf("%s is the token of %q now, %v", token, owner, err)
		}
	}
}

// A device that registers itself is in the audit before it is registered: with which key, as
// what, and where from.
func TestProvisioningIsAudited(t *testing.T) {
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
	for range 2 { // the second is refused, and not worth an entry: a key's holder could fill the disk
		p.Provision(ctx, citywarden.Asker{Protocol: "coap", Address: "192.0.2.7:40001"}, fmt.Appendf(nil, `{"deviceName":"s-1","provisionDeviceKey":%q,"provisionDeviceSecret":%q}`, x.Key, secret))
	}
	all, _, err := db.Audit(ctx, citywarden.AuditFilter{Action: "provision-device"})
	if err != nil || len(all) != 1 {
		t.Fatalf("%d entries, %v", len(all), err)
	}
	e := all[0]
	var after citywarden.Device
	if err := json.Unmarshal(e.After, &after); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(e.Detail+string(e.After), secret) || after.ID != "s-1" {
		t.Errorf("%s, after it %s", e.Detail, e.After)
	}
	got := []string{e.User, e.Address, e.Target, e.Detail, fmt.Sprint(e.Status)}
	want := []string{"provisioning key " + x.Key, "192.0.2.7", "/api/v1/devices/s-1", `{"create_new":true,"credential":"ACCESS_TOKEN","model":"smoke-detector","protocol":"coap"}`, "201"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
