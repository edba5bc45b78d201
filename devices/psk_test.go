package devices_test

import (
	"crypto/aes"
	"crypto/cipher"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices"
)

// sealing returns what seals with a key of equal bytes.
func sealing(t *testing.T, with byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher([]byte(strings.Repeat(string(with), 32)))
	if err != nil {
		t.Fatal(err)
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A pre-shared key is found by its identity, over restarts and as long as it is good; the
// database does not hold it.
func TestPreSharedKeys(t *testing.T) {
	ctx, db := t.Context(), openStore(t, filepath.Join(t.TempDir(), "x.db"))
	r := registryOn(t, db, devices.Options{Seal: sealing(t, '1')})
	for _, id := range []citywarden.DeviceID{"a", "b"} {
		if _, err := r.Create(ctx, citywarden.Device{ID: id, Model: "smoke-detector"}); err != nil {
			t.Fatal(err)
		}
	}
	must := func(identity, want string, code citywarden.Code) {
		t.Helper()
		key, err := r.PreSharedKey(identity)
		if string(key) != want || citywarden.CodeOf(err) != code {
			t.Errorf("key of %s is %q, %v; want %q, %s", identity, key, err, want, code)
		}
		if id, err := r.Authenticate(citywarden.PSKSecret(identity, key)); err == nil != (code == "") {
			t.Errorf("%s with its key is %q, %v", identity, id, err)
		}
	}
	issue := func(id citywarden.DeviceID, q citywarden.SecretRequest) string {
		t.Helper()
		q.PSK = true
		key, err := r.Issue(ctx, id, q)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	must("a", "", citywarden.CodeUnauthenticated)
	first := issue("a", citywarden.SecretRequest{})
	must("a", first, "")
	second := issue("a", citywarden.SecretRequest{Overlap: time.Hour}) // the handshake has to tell them apart
	must("a", first, "")
	must("a.2", second, "")
	issue("b", citywarden.SecretRequest{Identity: "meter b", Key: "0x" + strings.Repeat("00ff", 8)})
	must("meter b", strings.Repeat("\x00\xff", 8), "")
	must("b", "", citywarden.CodeUnauthenticated)
	if list, err := r.Credentials("b"); err != nil || list[0].Kind != citywarden.SecretPSK || list[0].Hint != "identity meter b" {
		t.Errorf("%+v, %v", list, err)
	}
	for _, c := range []struct {
		q    citywarden.SecretRequest
		code citywarden.Code
		says string
	}{
		{citywarden.SecretRequest{Key: "fifteen letters"}, citywarden.CodeInvalid, "a pre-shared key has 16 to 64 bytes, this one 15"},
		{citywarden.SecretRequest{Key: "0x00"}, citywarden.CodeInvalid, "a pre-shared key has 16 to 64 bytes, this one 1"},
		{citywarden.SecretRequest{Key: "0x0g"}, citywarden.CodeInvalid, "pairs of hex digits"},
		{citywarden.SecretRequest{Identity: strings.Repeat("x", 129)}, citywarden.CodeInvalid, "identity"},
		{citywarden.SecretRequest{Identity: "meter b"}, citywarden.CodeConflict, "belongs to device b"},
		{citywarden.SecretRequest{Identity: "a.2", Overlap: time.Hour}, citywarden.CodeInvalid, "the new one needs another identity"},
		{citywarden.SecretRequest{User: "x"}, citywarden.CodeInvalid, "give one"},
	} {
		c.q.PSK = true
		if _, err := r.Issue(ctx, "a", c.q); citywarden.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("Issue(%+v) = %v, want %s %q", c.q, err, c.code, c.says)
		}
	}

	var sealed int
	if _, err := db.LoadDevices(ctx, func(_ citywarden.DeviceView, all []citywarden.Secret) {
		for _, s := range all {
			sealed++
			for _, key := range []string{first, second, strings.Repeat("\x00\xff", 8)} {
				if len(s.Sealed) == 0 || strings.Contains(string(s.Sealed), key) {
					t.Errorf("the database has %q", s.Sealed)
				}
			}
		}
	}); err != nil || sealed != 3 {
		t.Errorf("%d keys, %v", sealed, err)
	}
	if has, err := db.HasSealed(ctx); err != nil || !has {
		t.Errorf("HasSealed() = %t, %v", has, err)
	}

	d, _, err := r.Device("b")
	if err != nil {
		t.Fatal(err)
	}
	off := *d
	off.Disabled = true
	if _, err := r.Update(ctx, off); err != nil {
		t.Fatal(err)
	}
	must("meter b", "", citywarden.CodeDenied)
	r = registryOn(t, db, devices.Options{Seal: sealing(t, '2')})
	if _, err := r.PreSharedKey("a"); citywarden.CodeOf(err) != citywarden.CodeInternal || !strings.Contains(err.Error(), "bring the file secret.key back") {
		t.Errorf("sealed with another key: %v", err)
	}
	r = registryOn(t, db, devices.Options{Seal: sealing(t, '1')})
	must("a.2", second, "")
	if err := r.Revoke(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	must("a.2", "", citywarden.CodeUnauthenticated)
	must("a", "", citywarden.CodeUnauthenticated)
	if _, err := registryOn(t, db, devices.Options{}).Issue(ctx, "a", citywarden.SecretRequest{PSK: true}); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("kept without anything to seal it: %v", err)
	}
}

// Keys come by CSV, too.
func TestImportKeys(t *testing.T) {
	r := newRegistry(t, devices.Options{Seal: sealing(t, '1')})
	report, err := r.Import(t.Context(), strings.NewReader(`id,model,token,psk,psk_identity
sd-1,smoke-detector,,sixteen letters!,
sd-2,smoke-detector,,0x000102030405060708090a0b0c0d0e0f,detector 2
sd-3,smoke-detector,,another of sixteen,detector 2
sd-4,smoke-detector,token-of-sd-4,sixteen letters!,
sd-5,smoke-detector,,short,
sd-6,smoke-detector,,,detector 6
sd-7,smoke-detector,,,
`))
	if err != nil {
		t.Fatal(err)
	}
	var bad []string
	for _, l := range report.Lines {
		if !l.OK {
			bad = append(bad, string(l.ID)+": "+l.Error)
		}
	}
	want := []string{"sd-3: the psk belongs to device sd-2", "sd-4: a device has one credential: give one of token, x509 and psk",
		"sd-5: a pre-shared key has 16 to 64 bytes, this one 5; leave it out to get a random one", "sd-6: psk_identity: there is no key in psk that goes with it"}
	if d := cmp.Diff(want, bad); d != "" {
		t.Error(d)
	}
	for identity, want := range map[string]string{"sd-1": "sixteen letters!", "detector 2": "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"} {
		if key, err := r.PreSharedKey(identity); string(key) != want || err != nil {
			t.Errorf("key of %s is %q, %v", identity, key, err)
		}
	}
}
