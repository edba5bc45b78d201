package devices

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/citywarden/citywarden"
)

// The lengths of a pre-shared key. Its SHA-256 is kept, so that it must not be one that can be guessed.
const (
	minKey = 16
	maxKey = 64
)

// PreSharedKey returns the key that goes with an identity of DTLS, for who finds out with it
// whether a device has the same: CodeUnauthenticated when no device has that identity, or its
// key has ended, CodeDenied when the device is disabled.
func (r *Registry) PreSharedKey(identity string) ([]byte, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.byIdentity[identity]
	if e == nil {
		return nil, citywarden.Errorf(citywarden.CodeUnauthenticated, "no device has the identity %.64q", identity)
	}
	for _, s := range e.secrets {
		if s.Kind != citywarden.SecretPSK || s.Identity != identity {
			continue
		}
		if err := e.good(s); err != nil {
			return nil, err
		}
		key, err := r.unseal(s)
		if err != nil {
			return nil, fmt.Errorf("key of device %s: %w", e.device.ID, err)
		}
		return key, nil
	}
	return nil, citywarden.Errorf(citywarden.CodeUnauthenticated, "no device has the identity %.64q", identity)
}

// pskSecret returns a pre-shared key, which may be a new one, and what is kept of it.
func (r *Registry) pskSecret(identity, text string) (string, citywarden.Secret, error) {
	if r.opt.Seal == nil {
		return "", citywarden.Secret{}, citywarden.Errorf(citywarden.CodeInvalid, "this platform keeps no pre-shared keys: it has nothing to seal them with")
	}
	if err := citywarden.CheckText("identity", identity, maxSecret); err != nil {
		return "", citywarden.Secret{}, err
	}
	for text == "" {
		if text = newToken(); strings.HasPrefix(text, "0x") { // would be read as hex digits
			text = ""
		}
	}
	key := []byte(text)
	if digits, ok := strings.CutPrefix(text, "0x"); ok {
		var err error
		if key, err = hex.DecodeString(digits); err != nil {
			return "", citywarden.Secret{}, citywarden.Errorf(citywarden.CodeInvalid, "after 0x a key has pairs of hex digits")
		}
	} else if err := citywarden.CheckText("key", text, maxKey); err != nil {
		return "", citywarden.Secret{}, err
	}
	if len(key) < minKey || len(key) > maxKey {
		return "", citywarden.Secret{}, citywarden.Errorf(citywarden.CodeInvalid, "a pre-shared key has %d to %d bytes, this one %d; leave it out to get a random one", minKey, maxKey, len(key))
	}
	s := newSecret(citywarden.SecretPSK, citywarden.PSKSecret(identity, key), "identity "+identity)
	s.Identity, s.Sealed = identity, seal(r.opt.Seal, key, identity)
	return text, s, nil
}

// seal encrypts a key so that it opens for its identity only.
func seal(a cipher.AEAD, key []byte, identity string) []byte {
	nonce := make([]byte, a.NonceSize())
	rand.Read(nonce)
	return a.Seal(nonce, nonce, key, []byte(identity))
}

func (r *Registry) unseal(s citywarden.Secret) ([]byte, error) {
	a := r.opt.Seal
	if a == nil || len(s.Sealed) < a.NonceSize() {
		return nil, citywarden.Errorf(citywarden.CodeInternal, "there is nothing to open it with")
	}
	key, err := a.Open(nil, s.Sealed[:a.NonceSize()], s.Sealed[a.NonceSize():], []byte(s.Identity))
	if err != nil {
		return nil, citywarden.Errorf(citywarden.CodeInternal, "it was sealed with another key than the platform has now; bring the file secret.key back, or issue the device a new key")
	}
	return key, nil
}
