package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker/certtest"
)

// A certificate is read again when its files change; one that can't be used changes nothing.
func TestCertificateIsReadAgain(t *testing.T) {
	ca, dir := certtest.New(t), t.TempDir()
	cert, key := certtest.Write(t, dir, "server", ca.Valid("first"))
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		c, err := openCertificate(TLSConfig{Cert: cert, Key: key}, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = c.Run(ctx) })
		must := func(name string) {
			t.Helper()
			time.Sleep(2*pollCertificate + time.Second) // virtual
			synctest.Wait()
			pair, err := c.config().GetCertificate(nil)
			if err != nil || pair.Leaf.Subject.CommonName != name {
				t.Errorf("shows %v, %v; want %s", pair.Leaf.Subject, err, name)
			}
		}
		must("first")
		certtest.Write(t, dir, "server", ca.Valid("the second"))
		must("the second")
		if err := os.WriteFile(cert, []byte("no certificate"), 0o600); err != nil {
			t.Fatal(err)
		}
		must("the second")
		if !strings.Contains(log.String(), "certificate not taken; the one before goes on") || !strings.Contains(log.String(), cert) {
			t.Errorf("log:\n%s", &log)
		}
		certtest.Write(t, dir, "server", ca.Issue("short", time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)))
		must("short")
		if !strings.Contains(log.String(), "expires soon") {
			t.Errorf("log:\n%s", &log)
		}
		cancel()
		wg.Wait()
	})
}

func TestBadCertificate(t *testing.T) {
	ca, dir := certtest.New(t), t.TempDir()
	cert, key := certtest.Write(t, dir, "a", ca.Valid("a"))
	_, other := certtest.Write(t, dir, "b", ca.Valid("b"))
	for _, c := range []struct {
		files TLSConfig
		says  string
	}{
		{TLSConfig{Cert: cert, Key: filepath.Join(dir, "none")}, "none: no such file"},
		{TLSConfig{Cert: cert, Key: other}, "private key does not match"},
		{TLSConfig{Cert: cert, Key: key, ClientCA: key}, "holds no certificate in PEM"},
	} {
		if _, err := openCertificate(c.files, slog.New(slog.DiscardHandler)); citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v; want %q", c.files, err, c.says)
		}
	}
}

// Every listener that is asked for serves, over TLS with the certificate.
func TestSecuredListeners(t *testing.T) {
	ca := certtest.New(t)
	c := Default()
	c.Data = filepath.Join(t.TempDir(), "data")
	for _, a := range c.addresses() {
		*a.addr = "127.0.0.1:0"
	}
	c.TLS.Cert, c.TLS.Key = certtest.Write(t, t.TempDir(), "server", ca.Valid("server"))
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
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, ForceAttemptHTTP2: true}}
	defer web.CloseIdleConnections()
	var token string
	for _, u := range []string{"http://" + a.Addr("http.addr").String(), "https://" + a.Addr("http.tls").String()} {
		r, err := web.Post(u+"/api/v1/login", "application/json", strings.NewReader(`{"user":"admin","password":"a good one"}`))
		if err != nil {
			t.Fatal(err)
		}
		var signed struct {
			Token string `json:"token"`
		}
		if err := json.NewDecoder(r.Body).Decode(&signed); err != nil {
			t.Fatal(err)
		}
		token = signed.Token
		r.Body.Close()
		secure := strings.HasPrefix(u, "https")
		if r.StatusCode != http.StatusOK || len(r.Cookies()) == 0 || r.Cookies()[0].Secure != secure {
			t.Errorf("%s: %s, cookies %v", u, r.Status, r.Cookies())
		}
	}
	for key, url := range map[string]string{"mqtt.addr": "tcp://%s", "mqtt.tls": "ssl://%s", "mqtt.ws": "ws://%s/mqtt", "mqtt.wss": "wss://%s/mqtt"} {
		p := paho.NewClient(paho.NewClientOptions().AddBroker(strings.Replace(url, "%s", a.Addr(key).String(), 1)).SetUsername("nobody's").
			SetConnectTimeout(10 * time.Second).SetTLSConfig(&tls.Config{RootCAs: ca.Pool()}))
		tok := p.Connect()
		if tok.Wait(); tok.Error() == nil || !strings.Contains(strings.ToLower(tok.Error().Error()), "not authorized") {
			t.Errorf("%s: %v, want not authorized", key, tok.Error())
		}
	}

	// A device with a certificate, from its registration to its revocation.
	own := ca.Valid("meter 7")
	ask := func(method, path, body string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "https://"+a.Addr("http.tls").String()+"/api/v1"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+token)
		answer, err := web.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if text, _ := io.ReadAll(answer.Body); answer.StatusCode >= 300 {
			t.Fatalf("%s %s: %s %s", method, path, answer.Status, text)
		}
	}
	ask("POST", "/devices", `{"id":"m-7","name":"","model":"smoke-detector"}`)
	ask("POST", "/devices/m-7/credentials", `{"type":"x509","certificate":`+strconv.Quote(string(certtest.PEM(own)))+`}`)
	lost := make(chan struct{})
	p := paho.NewClient(paho.NewClientOptions().AddBroker("ssl://" + a.Addr("mqtt.tls").String()).SetAutoReconnect(false).
		SetConnectionLostHandler(func(paho.Client, error) { close(lost) }).
		SetTLSConfig(&tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{own}}))
	if tok := p.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	if tok := p.Publish("v1/devices/me/telemetry", 1, false, `{"smoke":0.03}`); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatal("not acknowledged", tok.Error())
	}
	ask("DELETE", "/devices/m-7/credentials", "")
	select {
	case <-lost:
	case <-time.After(10 * time.Second):
		t.Error("the session goes on after the certificate was revoked")
	}
}

// A listener with TLS needs a certificate.
func TestTLSNeedsACertificate(t *testing.T) {
	c := Default()
	c.MQTT.TLS = ":8883"
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "mqtt.tls: it needs a certificate; name its files in tls.cert and tls.key") {
		t.Error(err)
	}
}
