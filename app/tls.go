package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/citywarden/citywarden"
)

// TLSConfig is how the platform shows who it is, and how devices may.
type TLSConfig struct {
	Cert     string `yaml:"cert"`      // PEM file of the certificate, with the intermediate ones after it
	Key      string `yaml:"key"`       // PEM file of its key
	ClientCA string `yaml:"client_ca"` // PEM file of those who certify devices by name; "" for none
}

const (
	pollCertificate = 5 * time.Second
	soonExpired     = 14 * 24 * time.Hour
)

// certificate is what TLSConfig names, read again when a file changes: who
// connects from then on gets the new one, and connections that are open stay.
type certificate struct {
	files TLSConfig
	log   *slog.Logger
	now   atomic.Pointer[loaded]
	tried string // state of the files when they were read last
}

type loaded struct {
	pair    *tls.Certificate
	clients *x509.CertPool // nil without ClientCA
}

// openCertificate reads the files that c names.
func openCertificate(c TLSConfig, log *slog.Logger) (*certificate, error) {
	t := &certificate{files: c, log: log}
	return t, t.load()
}

// load takes the files as they are, or none of them.
func (t *certificate) load() error {
	t.tried = t.state()
	pair, err := tls.LoadX509KeyPair(t.files.Cert, t.files.Key)
	if err != nil {
		return citywarden.Errorf(citywarden.CodeInvalid, "tls.cert %s with tls.key %s: %w; both are PEM, and the key is that of the certificate", t.files.Cert, t.files.Key, err)
	}
	l := loaded{pair: &pair}
	if t.files.ClientCA != "" {
		text, err := os.ReadFile(t.files.ClientCA)
		if l.clients = x509.NewCertPool(); err == nil && !l.clients.AppendCertsFromPEM(text) {
			err = fmt.Errorf("%s holds no certificate in PEM", t.files.ClientCA)
		}
		if err != nil {
			return citywarden.Errorf(citywarden.CodeInvalid, "tls.client_ca: %w", err)
		}
	}
	t.now.Store(&l)
	switch left := time.Until(pair.Leaf.NotAfter); {
	case left <= 0:
		t.log.Error("the certificate has expired: devices and browsers will refuse it", "file", t.files.Cert, "until", pair.Leaf.NotAfter)
	case left < soonExpired:
		t.log.Warn("the certificate expires soon", "file", t.files.Cert, "until", pair.Leaf.NotAfter)
	default:
		t.log.Info("certificate taken", "file", t.files.Cert, "subject", pair.Leaf.Subject, "until", pair.Leaf.NotAfter)
	}
	return nil
}

// certified reports whether a certificate, with the intermediate ones after it, was
// issued under tls.client_ca. Nobody's was without one.
func (t *certificate) certified(chain []*x509.Certificate) bool {
	if t == nil || t.now.Load().clients == nil {
		return false
	}
	o := x509.VerifyOptions{Roots: t.now.Load().clients, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(o)
	return err == nil
}

// state tells whether a file was changed or replaced.
func (t *certificate) state() string {
	var b strings.Builder
	for _, name := range []string{t.files.Cert, t.files.Key, t.files.ClientCA} {
		if info, err := os.Stat(name); err == nil {
			fmt.Fprintf(&b, "%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
		}
	}
	return b.String()
}

// Run reads the files again when they have changed and rest, until ctx is done.
func (t *certificate) Run(ctx context.Context) error {
	tick := time.NewTicker(pollCertificate)
	defer tick.Stop()
	before := t.tried
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := t.state()
		if now == before && now != t.tried {
			if err := t.load(); err != nil {
				t.log.Error("certificate not taken; the one before goes on", "err", err)
			}
		}
		before = now
	}
}

// config is for browsers and programs.
func (t *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return t.now.Load().pair, nil },
	}
}

// forWeb is config for who offers HTTP/2, as every browser does, and forDevices for others: a
// browser that is asked for a certificate asks the person.
func (t *certificate) forWeb() *tls.Config {
	c, devices := t.config(), t.forDevices()
	c.NextProtos, devices.NextProtos = []string{"h2", "http/1.1"}, []string{"http/1.1"} // else Serve, when it is first, leaves HTTP/2 out that ServeTLS offers
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, "h2") {
			return nil, nil
		}
		return devices, nil
	}
	return c
}

// forDevices lets who connects show a certificate. Whose it is, is found out
// later, where the device can be told what is wrong with it.
func (t *certificate) forDevices() *tls.Config {
	c := t.config()
	c.ClientAuth = tls.RequestClientCert
	return c
}
