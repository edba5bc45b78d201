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
)

// Secret is what a device shows to be known, as it is kept. While one replaces
// another a device has two.
type Secret struct {
	Kind  SecretKind // "" of one that was issued before kinds were kept: token or mqtt
	Hash  []byte     // SHA-256 of a token, an MQTTSecret, a CertificateSecret or a SubjectSecret
	Hint  string     // by which people recognise it; it does not help who wants to guess it
	Since time.Time
	Until time.Time // zero: until it is replaced
}

// MQTTSecret is what a client id, a user name and a password of MQTT are together,
// where a token is asked for; clientID is "" when any will do. No token equals one.
func MQTTSecret(clientID, user, password string) string {
	return "mqtt\x00" + clientID + "\x00" + user + "\x00" + password // MQTT has no U+0000 in names [MQTT-1.5.4-2]
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
}

// DeviceCredential is what people see of a Secret.
type DeviceCredential struct {
	Kind     SecretKind `json:"kind" doc:"token, mqtt, x509; empty for one that was issued before kinds were kept"`
	Hint     string     `json:"hint,omitempty" doc:"By which it is recognised: the beginning of a token, the user name, the name and SHA-256 of a certificate"`
	Since    time.Time  `json:"since,omitzero"`
	Until    time.Time  `json:"until,omitzero" doc:"When it ends by itself"`
	Replaced bool       `json:"replaced,omitempty" doc:"It is good until then beside the one that replaced it"`
}
