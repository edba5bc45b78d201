package devices

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

type tokenHash [sha256.Size]byte

// Authenticate returns whose token, or MQTTSecret, it is: CodeUnauthenticated when
// nobody's, CodeDenied when the device is disabled. Tokens are looked up by their SHA-256,
// so the time it takes tells nothing about tokens that exist.
func (r *Registry) Authenticate(token string) (citywarden.DeviceID, error) {
	return r.authenticate(token, false)
}

// AuthenticateCertificate returns whose certificate it is, of which the caller has
// seen that the peer has its key: CodeDenied when it has expired, is not valid yet or the
// device is disabled, CodeUnauthenticated when it is nobody's. It is known by its common
// name when certified says that it was issued under the authority of the configuration,
// else by itself: certificates are public, and who provisions may give another's.
func (r *Registry) AuthenticateCertificate(c *x509.Certificate, certified func() bool) (id citywarden.DeviceID, err error) {
	now := time.Now()
	name, fingerprint := c.Subject.CommonName, sha256.Sum256(c.Raw)
	switch {
	case now.After(c.NotAfter):
		return "", citywarden.Errorf(citywarden.CodeDenied, "certificate %q has expired: it was valid until %s; put a new one into the device", name, c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return "", citywarden.Errorf(citywarden.CodeDenied, "certificate %q is not valid before %s; it is %s here", name, c.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	secrets := []string{citywarden.CertificateSecret(fingerprint)}
	if name != "" && certified() {
		secrets = []string{citywarden.SubjectSecret(name), citywarden.CertificateSecret(fingerprint)}
	}
	for _, secret := range secrets {
		if id, err = r.authenticate(secret, true); citywarden.CodeOf(err) != citywarden.CodeUnauthenticated {
			break
		}
	}
	if citywarden.CodeOf(err) == citywarden.CodeUnauthenticated {
		err = citywarden.Errorf(citywarden.CodeUnauthenticated, "certificate %q with SHA-256 %x: %w", name, fingerprint, err)
	}
	return id, err
}

// authenticate returns whose secret it is. What stands for a certificate is known
// to everybody: it counts only from who has seen that the peer has its key.
func (r *Registry) authenticate(secret string, certificate bool) (citywarden.DeviceID, error) {
	h := sha256.Sum256([]byte(secret))
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.byHash[h]
	if e == nil {
		return "", citywarden.Errorf(citywarden.CodeUnauthenticated, "no device has it")
	}
	s := e.secrets[slices.IndexFunc(e.secrets, func(s citywarden.Secret) bool { return bytes.Equal(s.Hash, h[:]) })]
	if certificate != (s.Kind == citywarden.SecretX509) {
		return "", citywarden.Errorf(citywarden.CodeUnauthenticated, "no device has it")
	}
	if err := e.good(s); err != nil {
		return "", err
	}
	return e.device.ID, nil
}

// good returns why a secret of e does not count, CodeUnauthenticated or CodeDenied.
func (e *entry) good(s citywarden.Secret) error {
	switch {
	case !s.Until.IsZero() && !time.Now().Before(s.Until):
		return citywarden.Errorf(citywarden.CodeUnauthenticated, "that of device %s ended at %s", e.device.ID, s.Until.Format(time.RFC3339))
	case e.device.Disabled:
		return citywarden.Errorf(citywarden.CodeDenied, "device %s is disabled", e.device.ID)
	}
	return nil
}

// give has e known by secrets and by nothing else. It needs mu.
func (r *Registry) give(e *entry, secrets []citywarden.Secret) {
	for _, s := range e.secrets {
		delete(r.byHash, tokenHash(s.Hash))
		delete(r.byIdentity, s.Identity)
	}
	e.secrets = secrets
	for _, s := range secrets {
		r.byHash[tokenHash(s.Hash)] = e
		if s.Identity != "" {
			r.byIdentity[s.Identity] = e
		}
	}
}

const (
	tokenAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	tokenLength   = 20 // 119 bits
	minPassword   = 8
	maxSecret     = 128 // bytes of a user name, a client id or a password
)

var tokenForm = regexp.MustCompile(`^[A-Za-z0-9._~-]{8,64}$`)

// IssueToken gives a device a new random token of 20 letters and digits, in
// place of the one it had, and returns it. Only its SHA-256 is kept: nobody can
// read it again.
func (r *Registry) IssueToken(ctx context.Context, id citywarden.DeviceID) (string, error) {
	return r.Issue(ctx, id, citywarden.SecretRequest{})
}

func newToken() string {
	token := make([]byte, 0, tokenLength)
	var b [tokenLength]byte
	for len(token) < tokenLength {
		rand.Read(b[:])
		for _, x := range b {
			// 248 is the largest multiple of 62 that fits: no letter is likelier.
			if x < 248 && len(token) < tokenLength {
				token = append(token, tokenAlphabet[x%62])
			}
		}
	}
	return string(token)
}

// SetToken gives a device the token that was agreed on, in place of the one it
// had: 8 to 64 letters, digits, '.', '_', '~' and '-'. The same token again
// changes nothing; another device's is CodeConflict.
func (r *Registry) SetToken(ctx context.Context, id citywarden.DeviceID, token string) error {
	s, err := agreedToken(token)
	if err != nil {
		return err
	}
	return r.replace(ctx, id, s, 0)
}

// maxOverlap is how long a secret may stay good beside the one that replaces it.
const maxOverlap = 90 * 24 * time.Hour

// Issue gives a device a new secret and returns the token or the password, which
// only the device knows from then on; of a certificate there is nothing to return. The
// secret before is good for the overlap asked for; the one before that, if it
// still was, is not any more. CodeConflict when another device has the same.
func (r *Registry) Issue(ctx context.Context, id citywarden.DeviceID, q citywarden.SecretRequest) (string, error) {
	if q.Overlap < 0 || q.Overlap > maxOverlap {
		return "", citywarden.Errorf(citywarden.CodeInvalid, "an overlap of %s; it is 0 to 90d", q.Overlap)
	}
	if q.PSK && q.Identity == "" {
		q.Identity = string(id)
		if old := r.secretsOf(id); q.Overlap > 0 && len(old) > 0 && old[0].Identity == q.Identity {
			q.Identity += ".2" // a handshake tells the two keys apart by it
		}
	}
	text, s, err := r.secretOf(q)
	if err != nil {
		return "", err
	}
	return text, r.replace(ctx, id, s, q.Overlap)
}

// secretOf returns the secret that q asks for, and what only the device knows of it.
func (r *Registry) secretOf(q citywarden.SecretRequest) (text string, s citywarden.Secret, err error) {
	given := 0
	if q.PSK {
		given++
	}
	for _, x := range []string{q.Token, q.User, q.Certificate, q.Subject} {
		if x != "" {
			given++
		}
	}
	switch {
	case given > 1:
		err = citywarden.Errorf(citywarden.CodeInvalid, "a token, a user name, a pre-shared key, a certificate and the name in certificates are each a credential of their own; give one")
	case q.User == "" && (q.ClientID != "" || q.Password != ""):
		err = citywarden.Errorf(citywarden.CodeInvalid, "a client id or a password needs a user name")
	case q.PSK:
		return r.pskSecret(q.Identity, q.Key)
	case q.Certificate != "":
		s, err = certificateSecret(q.Certificate)
	case q.Subject != "":
		err = citywarden.CheckText("common name", q.Subject, maxSecret)
		s = newSecret(citywarden.SecretX509, citywarden.SubjectSecret(q.Subject), fmt.Sprintf("CN=%s under the client CA", q.Subject))
	case q.User != "":
		return mqttSecret(q)
	default:
		if text = q.Token; text == "" {
			text = newToken()
		}
		s, err = agreedToken(text)
	}
	return text, s, err
}

func newSecret(kind citywarden.SecretKind, text, hint string) citywarden.Secret {
	h := sha256.Sum256([]byte(text))
	return citywarden.Secret{Kind: kind, Hash: h[:], Hint: hint, Since: time.Now().UTC().Truncate(time.Millisecond)}
}

// hint shows so much of a token that people recognise it and nobody guesses it.
func hint(token string) string {
	if len(token) < 16 {
		return fmt.Sprintf("%d characters", len(token))
	}
	return token[:4] + "…"
}

// agreedToken is the secret of a token that was agreed on.
func agreedToken(token string) (citywarden.Secret, error) {
	if !tokenForm.MatchString(token) {
		return citywarden.Secret{}, citywarden.Errorf(citywarden.CodeInvalid, "a token has 8 to 64 letters, digits, '.', '_', '~' or '-'")
	}
	return newSecret(citywarden.SecretToken, token, hint(token)), nil
}

// mqttSecret returns the password, which may be a new one, and what is kept of it.
func mqttSecret(q citywarden.SecretRequest) (string, citywarden.Secret, error) {
	for _, c := range []struct{ what, text string }{{"user name", q.User}, {"client id", q.ClientID}, {"password", q.Password}} {
		if err := citywarden.CheckText(c.what, c.text, maxSecret); err != nil {
			return "", citywarden.Secret{}, err
		}
	}
	if q.Password == "" {
		q.Password = newToken()
	}
	if len(q.Password) < minPassword {
		return "", citywarden.Secret{}, citywarden.Errorf(citywarden.CodeInvalid, "a password has at least %d bytes; leave it out to get a random one", minPassword)
	}
	seen := "user " + q.User
	if q.ClientID != "" {
		seen += ", client id " + q.ClientID
	}
	return q.Password, newSecret(citywarden.SecretMQTT, citywarden.MQTTSecret(q.ClientID, q.User, q.Password), seen), nil
}

// fingerprintOf returns the SHA-256 that text is, as tools print it.
func fingerprintOf(text string) ([]byte, bool) {
	f, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(strings.TrimSpace(text)))
	return f, err == nil && len(f) == sha256.Size
}

// certificateSecret reads a certificate in PEM, with or without its first and last
// line, or its SHA-256 as tools print it.
func certificateSecret(text string) (citywarden.Secret, error) {
	if f, ok := fingerprintOf(text); ok {
		return newSecret(citywarden.SecretX509, citywarden.CertificateSecret(tokenHash(f)), fmt.Sprintf("SHA-256 %x", f)), nil
	}
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if block, _ := pem.Decode([]byte(text)); block != nil && block.Type == "CERTIFICATE" {
		der, err = block.Bytes, nil
	}
	if err != nil || len(der) < 64 {
		return citywarden.Secret{}, citywarden.Errorf(citywarden.CodeInvalid, "the certificate is neither in PEM, beginning with -----BEGIN CERTIFICATE-----, nor the 64 hex digits of its SHA-256")
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return citywarden.Secret{}, citywarden.Errorf(citywarden.CodeInvalid, "the certificate: %w", err)
	}
	if time.Now().After(c.NotAfter) {
		return citywarden.Secret{}, citywarden.Errorf(citywarden.CodeInvalid, "the certificate %q has expired: it was valid until %s", c.Subject.CommonName, c.NotAfter.UTC().Format(time.RFC3339))
	}
	f := sha256.Sum256(c.Raw)
	s := newSecret(citywarden.SecretX509, citywarden.CertificateSecret(f), fmt.Sprintf("CN=%s, SHA-256 %x", c.Subject.CommonName, f))
	s.Until = c.NotAfter.UTC()
	return s, nil
}

// replace makes s the secret of a device.
func (r *Registry) replace(ctx context.Context, id citywarden.DeviceID, s citywarden.Secret, overlap time.Duration) error {
	r.changeMu.Lock()
	defer r.changeMu.Unlock()
	d, m, err := r.Device(id)
	if err != nil {
		return err
	}
	old := r.secretsOf(id)
	switch owner := r.owner(s); {
	case owner != "" && owner != id:
		return citywarden.Errorf(citywarden.CodeConflict, "that credential belongs to device %s", owner)
	case len(old) > 0 && bytes.Equal(s.Hash, old[0].Hash):
		return nil
	case overlap > 0 && len(old) > 0 && s.Identity != "" && s.Identity == old[0].Identity:
		return citywarden.Errorf(citywarden.CodeInvalid, "device %s has a key with the identity %q; while both are good the new one needs another identity", id, s.Identity)
	}
	secrets := []citywarden.Secret{s}
	if overlap > 0 && len(old) > 0 {
		before := old[0]
		if end := time.Now().UTC().Add(overlap).Truncate(time.Millisecond); before.Until.IsZero() || end.Before(before.Until) {
			before.Until = end
		}
		secrets = append(secrets, before)
	}
	return r.save(ctx, []change{{device: d, model: m, secrets: secrets}})
}

// Revoke takes away what a device is known by: its sessions end at once, and
// nothing of it is taken until it is issued something new. While its model provisions it
// can ask for that by itself: disable it to keep it out.
func (r *Registry) Revoke(ctx context.Context, id citywarden.DeviceID) error {
	r.changeMu.Lock()
	defer r.changeMu.Unlock()
	d, m, err := r.Device(id)
	if err != nil {
		return err
	}
	return r.save(ctx, []change{{device: d, model: m, secrets: []citywarden.Secret{}}})
}

// Credentials returns what a device is known by, the newest first, without those
// that have ended, or CodeNotFound.
func (r *Registry) Credentials(id citywarden.DeviceID) ([]citywarden.DeviceCredential, error) {
	if _, _, err := r.Device(id); err != nil {
		return nil, err
	}
	out := []citywarden.DeviceCredential{}
	for i, s := range r.secretsOf(id) {
		if s.Until.IsZero() || time.Now().Before(s.Until) {
			out = append(out, citywarden.DeviceCredential{Kind: s.Kind, Hint: s.Hint, Since: s.Since, Until: s.Until, Replaced: i > 0})
		}
	}
	return out, nil
}

// secretsOf returns the secrets of a device; nobody changes them.
func (r *Registry) secretsOf(id citywarden.DeviceID) []citywarden.Secret {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e := r.byID[id]; e != nil {
		return e.secrets
	}
	return nil
}

// owner returns whose secret s is, or whose its identity is, "" for nobody's.
func (r *Registry) owner(s citywarden.Secret) citywarden.DeviceID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.byHash[tokenHash(s.Hash)]
	if e == nil && s.Identity != "" {
		e = r.byIdentity[s.Identity]
	}
	if e == nil {
		return ""
	}
	return e.device.ID
}
