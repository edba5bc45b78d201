package citywarden

import "time"

// Secrets are the SHA-256 of what a device shows to be known: a token, or an
// MQTTSecret. While one replaces another both are good.
type Secrets struct {
	Current []byte    // nil: the device has none
	Before  []byte    // the one before, good until Until; nil for none
	Until   time.Time // of Before
}

// MQTTSecret is what a client id, a user name and a password of MQTT are together,
// where a token is asked for; clientID is "" when any will do. No token equals one.
func MQTTSecret(clientID, user, password string) string {
	return "mqtt\x00" + clientID + "\x00" + user + "\x00" + password // MQTT has no U+0000 in names [MQTT-1.5.4-2]
}

// SecretRequest asks for a new secret of a device. The zero value is a random
// token in place of the secret before.
type SecretRequest struct {
	User     string        // of MQTT; "" asks for a token
	ClientID string        // with User: the only one that may use it; "" for any
	Password string        // with User: as agreed on; "" for a random one
	Overlap  time.Duration // how long the secret before stays good
}
