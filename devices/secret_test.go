package devices_test

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker/certtest"
	"github.com/citywarden/citywarden/devices"
)

// A certificate names its device by its SHA-256, or by its common name under the
// client CA; it is replaced with an overlap as tokens are.
func TestCertificates(t *testing.T) {
	ctx, ca := t.Context(), certtest.New(t)
	db := openStore(t, filepath.Join(t.TempDir(), "x.db"))
	r := registryOn(t, db, devices.Options{})
	for _, id := range []citywarden.DeviceID{"a", "b", "c"} {
		if _, err := r.Create(ctx, citywarden.Device{ID: id, Model: "smoke-detector"}); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	first, second := ca.Valid("meter a"), ca.Valid("meter a")
	issue := func(id citywarden.DeviceID, q citywarden.SecretRequest) {
		t.Helper()
		if text, err := r.Issue(ctx, id, q); err != nil || text != "" {
			t.Fatalf("Issue = %q, %v", text, err)
		}
	}
	yes, no := func() bool { return true }, func() bool { return false }
	must := func(c *x509.Certificate, certified func() bool, want citywarden.DeviceID, code citywarden.Code, says string) {
		t.Helper()
		id, err := r.AuthenticateCertificate(c, certified)
		if id != want || citywarden.CodeOf(err) != code || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s is that of %q, %v; want %q, %s %s", c.Subject, id, err, want, code, says)
		}
	}
	must(first.Leaf, no, "", citywarden.CodeUnauthenticated, `certificate "meter a" with SHA-256`)
	issue("a", citywarden.SecretRequest{Certificate: string(certtest.PEM(first))})
	must(first.Leaf, no, "a", "", "")
	fingerprint := sha256.Sum256(second.Leaf.Raw)
	issue("a", citywarden.SecretRequest{Certificate: fmt.Sprintf("% X", fingerprint), Overlap: time.Minute}) // as tools print it
	must(first.Leaf, no, "a", "", "")
	must(second.Leaf, no, "a", "", "")
	got, err := r.Credentials("a")
	if err != nil {
		t.Fatal(err)
	}
	want := []citywarden.DeviceCredential{
		{Kind: citywarden.SecretX509, Hint: fmt.Sprintf("SHA-256 %x", fingerprint)},
		{Kind: citywarden.SecretX509, Hint: fmt.Sprintf("CN=meter a, SHA-256 %x", sha256.Sum256(first.Leaf.Raw)), Replaced: true},
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(citywarden.DeviceCredential{}, "Since", "Until")); d != "" {
		t.Error(d)
	}
	if left := got[1].Until.Sub(now); left < 50*time.Second || left > 70*time.Second || !got[0].Until.IsZero() {
		t.Errorf("until %v and %v", got[0].Until, got[1].Until)
	}

	// What stands for a certificate is known to everybody: shown as a token it is nothing.
	for _, public := range []string{citywarden.CertificateSecret(fingerprint), citywarden.SubjectSecret("meter c"), string(second.Leaf.Raw)} {
		if id, err := r.Authenticate(public); citywarden.CodeOf(err) != citywarden.CodeUnauthenticated {
			t.Errorf("Authenticate = %q, %v", id, err)
		}
	}

	issue("c", citywarden.SecretRequest{Subject: "meter c"})
	must(ca.Valid("meter c").Leaf, yes, "c", "", "")
	must(ca.Valid("meter c").Leaf, no, "", citywarden.CodeUnauthenticated, "no device has it")
	must(ca.Issue("meter c", now.Add(-time.Hour), now.Add(-time.Minute)).Leaf, yes, "", citywarden.CodeDenied, "has expired: it was valid until")
	must(ca.Issue("meter c", now.Add(time.Hour), now.Add(2*time.Hour)).Leaf, yes, "", citywarden.CodeDenied, "is not valid before")

	for _, q := range []citywarden.SecretRequest{
		{Certificate: "no certificate"}, {Certificate: strings.Repeat("0", 63)}, {Certificate: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
		{Certificate: string(certtest.PEM(ca.Issue("x", now.Add(-time.Hour), now.Add(-time.Minute))))},
		{Subject: "x", User: "y"}, {Certificate: "x", Subject: "y"}, {Subject: strings.Repeat("x", 200)},
	} {
		if _, err := r.Issue(ctx, "b", q); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("Issue(%+v) = %v", q, err)
		}
	}
	if _, err := r.Issue(ctx, "b", citywarden.SecretRequest{Certificate: string(certtest.PEM(second))}); citywarden.CodeOf(err) != citywarden.CodeConflict {
		t.Errorf("another device's certificate: %v", err)
	}

	// A restart changes none of it.
	r = registryOn(t, db, devices.Options{})
	must(first.Leaf, no, "a", "", "")
	must(ca.Valid("meter c").Leaf, yes, "c", "", "")
	if again, err := r.Credentials("a"); err != nil || !cmp.Equal(got, again) {
		t.Errorf("after a restart %v, %v; before %v", again, err, got)
	}

	commands, err := devices.NewCommands(ctx, db, r, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var told []citywarden.DownlinkKind
	defer commands.Listen("a", citywarden.DownlinkRevoked, func(m citywarden.Downlink) bool {
		told = append(told, m.Kind)
		return true
	})()
	if err := r.Revoke(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	must(first.Leaf, no, "", citywarden.CodeUnauthenticated, "")
	must(second.Leaf, no, "", citywarden.CodeUnauthenticated, "")
	if got, err := r.Credentials("a"); err != nil || len(got) != 0 || len(told) != 1 {
		t.Errorf("after Revoke %v, %v; sessions told %d times", got, err, len(told))
	}
	_, err = r.Credentials("none")
	for _, err := range []error{r.Revoke(ctx, "none"), err} {
		if citywarden.CodeOf(err) != citywarden.CodeNotFound {
			t.Error(err)
		}
	}
}

// Certificates come by CSV, too; and the same token once more leaves the one before as long as was said.
func TestImportCertificates(t *testing.T) {
	ctx, ca := t.Context(), certtest.New(t)
	r := newRegistry(t, devices.Options{})
	c := ca.Valid("x")
	csv := fmt.Sprintf("id,model,token,x509\nsd-1,smoke-detector,token-of-sd-1,\nsd-2,smoke-detector,,%x\nsd-3,smoke-detector,token-of-sd-3,%064d\nsd-4,smoke-detector,,%[1]x\nsd-5,smoke-detector,,1234\n",
		sha256.Sum256(c.Leaf.Raw), 3)
	report, err := r.Import(ctx, strings.NewReader(csv))
	if err != nil {
		t.Fatal(err)
	}
	var bad []string
	for _, l := range report.Lines {
		if !l.OK {
			bad = append(bad, fmt.Sprintf("%d %s", l.Line, l.Error))
		}
	}
	want := []string{"4 a device has one credential: give one of token, x509 and psk", "5 the x509 belongs to device sd-2", "6 the certificate is neither in PEM, beginning with -----BEGIN CERTIFICATE-----, nor the 64 hex digits of its SHA-256"}
	if d := cmp.Diff(want, bad); d != "" {
		t.Error(d)
	}
	if id, err := r.AuthenticateCertificate(c.Leaf, func() bool { return false }); id != "sd-2" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
	if _, err := r.Issue(ctx, "sd-1", citywarden.SecretRequest{User: "u", Password: "open sesame"}); err != nil {
		t.Fatal(err)
	}
	again := func(token string) {
		t.Helper()
		if report, err := r.Import(ctx, strings.NewReader("id,model,token\nsd-1,smoke-detector,"+token+"\n")); err != nil || report.Updated != 1 {
			t.Fatal(report, err)
		}
	}
	again("token-of-sd-1")
	fresh, err := r.Issue(ctx, "sd-1", citywarden.SecretRequest{Overlap: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	again(fresh)
	for _, token := range []string{fresh, "token-of-sd-1"} {
		if id, err := r.Authenticate(token); id != "sd-1" || err != nil {
			t.Errorf("%s: %q, %v", token, id, err)
		}
	}
}
