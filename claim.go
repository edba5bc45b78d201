package citywarden

import "time"

// Where devices say over MQTT with which secret, and for how long, they may be claimed, as
// ThingsBoard has it; over HTTP and CoAP it is "claim" after the token.
const (
	DeviceClaim  = "v1/devices/me/claim"
	GatewayClaim = "v1/gateway/claim" // for those behind a gateway
)

// ClaimOffer is what a device said of being claimed, as it is kept.
type ClaimOffer struct {
	Device DeviceID
	Secret []byte    // SHA-256 of ClaimSecret
	Until  time.Time // when it ends by itself
}

// ClaimSecret is what a device and the secret that it named are together. No token equals one.
func ClaimSecret(id DeviceID, secret string) string {
	return "claim\x00" + string(id) + "\x00" + secret
}

// Claim says where a device is that announced the secret, and what it is called.
type Claim struct {
	Secret    string
	Area      AreaCode    // that the claimer is confined to; "" for nothing
	Location  *Point      // nil: that of the component
	Component ComponentID // that it is attached to; "" for none
	Site      SiteID      // that it is at; "" for none
	Name      string      // for people; "" leaves the one that it has
}
