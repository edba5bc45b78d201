package citywarden

import (
	"crypto/x509"
	"time"
)

// Provisioning lets devices of a model that know its key and secret get a
// credential by themselves, as ThingsBoard has it.
type Provisioning struct {
	Model     ModelName `json:"model"`
	Key       string    `json:"key" doc:"provisionDeviceKey"`
	CreateNew bool      `json:"create_new" doc:"Devices that are not registered are registered; otherwise only those that are and have no credential get one"`
	Since     time.Time `json:"since"`
	Secret    []byte    `json:"-"` // SHA-256 of provisionDeviceSecret
}

// Where devices ask for a credential over MQTT, as the user ProvisionUser, and
// where they are answered.
const (
	ProvisionUser     = "provision"
	ProvisionRequest  = "/provision/request"
	ProvisionResponse = "/provision/response"
)

// Asker is who asks for a credential.
type Asker struct {
	Protocol    string            // "mqtt", "http" or "coap"
	Address     string            // where from, with or without the port
	Certificate *x509.Certificate // that it showed in a handshake, which proved that it has the key; nil for none
}
