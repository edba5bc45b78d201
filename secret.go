package citywarden

import (
	"crypto/sha256"
	"time"
)

// SecretKind is what a device shows to be known.
type SecretKind string

// The kinds of secrets.
const (
	SecretToken SecretKind = "token"
	SecretMQTT  SecretKind = "mqtt" // user name and password
	SecretX509  SecretKind = "x509" // a certificate, which is no secret but whose key is; or the name in one
	SecretPSK   SecretKind = "psk"  // the identity and the pre-shared key of DTLS
)

// Secret is what a device shows to be known, as it is kept. While one replaces
// another a device has two.
type Secret struct {
	Kind  SecretKind // "" of one that was issued before kinds were kept: token or mqtt
	Hash  []byte     // SHA-256 of a token, an MQTTSecret, a PSKSecret, a CertificateSecret or a SubjectSecret
	Hint  string     // by which people recognise it; it does not help who wants to guess it
	Since time.Time
	Until time.Time // zero: until it is replaced

	Identity string // of a pre-shared key
	Sealed   []byte // that key, which a handshake needs as it is, encrypted
}

// MQTTSecret is what a client id, a user name and a password of MQTT are together,
// where a token is asked for; clientID is "" when any will do. No token equals one.
func MQTTSecret(clientID, user, password string) string {
	return "mqtt\x00" + clientID + "\x00" + user + "\x00" + password // MQTT has no U+0000 in names [MQTT-1.5.4-2]
}

// PSKSecret is what an identity of DTLS and its pre-shared key are together, where a
// token is asked for. No token equals one.
func PSKSecret(identity string, key []byte) string {
	return "psk\x00" + identity + "\x00" + string(key)
}

// CertificateSecret is what stands for the certificate with that SHA-256.
func CertificateSecret(fingerprint [sha256.Size]byte) string {
	return "x509\x00" + string(fingerprint[:])
}

// SubjectSecret is what stands for every certificate with that common name that
// was issued under the authority of the configuration.
func SubjectSecret(commonName string) string { return "x509 name\x00" + commonName }

// SecretRequest asks for a new secret of a device. The zero value is a random
// token in place of the secret before.
type SecretRequest struct {
	Token    string        // as agreed on
	User     string        // of MQTT
	ClientID string        // with User: the only one that may use it; "" for any
	Password string        // with User: as agreed on; "" for a random one
	Overlap  time.Duration // how long the secret before stays good

	Certificate string // PEM, or its SHA-256 in hex digits
	Subject     string // the common name in certificates that the client CA issued

	PSK      bool   // a pre-shared key of DTLS
	Identity string // with PSK; "" for the device's id
	Key      string // with PSK: as agreed on, as text or in hex digits after 0x; "" for a random one
}

// DeviceCredential is what people see of a Secret.
type DeviceCredential struct {
	Kind     SecretKind `json:"kind" doc:"token, mqtt, x509, psk; empty for one that was issued before kinds were kept"`
	Hint     string     `json:"hint,omitempty" doc:"By which it is recognised: the beginning of a token, the user name, the identity of a pre-shared key, the name and SHA-256 of a certificate"`
	Since    time.Time  `json:"since,omitzero"`
	Until    time.Time  `json:"until,omitzero" doc:"When it ends by itself"`
	Replaced bool       `json:"replaced,omitempty" doc:"It is good until then beside the one that replaced it"`
}
