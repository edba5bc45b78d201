package citywarden

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// GatewayAttribute is the attribute of a device that names the gateway it is
// connected through; that gateway may speak for it.
const GatewayAttribute = "gateway"

// Gateway returns the gateway that d is connected through, "" for none.
func (d *Device) Gateway() DeviceID {
	s, _ := d.Attributes[GatewayAttribute].(string)
	return DeviceID(s)
}

// The topics of a gateway's messages, ThingsBoard's. What it says of a device
// goes into the log as that device's message.
const (
	GatewayTelemetry  = "v1/gateway/telemetry"
	GatewayAttributes = "v1/gateway/attributes"
	GatewayConnect    = "v1/gateway/connect"
	GatewayDisconnect = "v1/gateway/disconnect"

	// What network servers and platforms push, with the identity of the device in it:
	// ChirpStack's events, and those of China Telecom's AEP (CTWing).
	GatewayLoRaWAN = "v1/gateway/lorawan"
	GatewayCTWing  = "v1/gateway/ctwing"

	DeviceLoRaWAN      = "v1/devices/me/lorawan"    // what becomes of GatewayLoRaWAN
	DeviceCTWing       = "v1/devices/me/ctwing"     // and of GatewayCTWing
	DeviceLwM2M        = "v1/devices/me/lwm2m/"     // what a client of LwM2M tells of a resource: and the number of the content format, and the path
	DeviceConnected    = "v1/devices/me/connect"    // what becomes of GatewayConnect
	DeviceDisconnected = "v1/devices/me/disconnect" // and of GatewayDisconnect
)

// keptOf is how many bytes are kept of a message that is too long for the log.
const keptOf = 4096

// oversized begins the topic of a message that is longer than its model takes, and of what is kept of
// one that is too long for the log.
const oversized = "oversized/"

// Overlong returns a message that is longer than its model takes as a dead letter: all of it is kept.
func Overlong(up Uplink) Uplink {
	up.Topic = fmt.Sprintf("%s%d/%s", oversized, len(up.Payload), up.Topic)
	return up
}

// Oversize returns what is kept of a message that is too long for the log, so that it
// is a dead letter: its beginning, and in the topic how long it was.
func Oversize(up Uplink) Uplink {
	up = Overlong(up)
	up.Payload = slices.Clone(up.Payload[:min(len(up.Payload), keptOf)])
	return up
}

// Oversized reports whether topic is one of Oversize or Overlong, and how many bytes went to which.
func Oversized(topic string) (bytes int, original string, ok bool) {
	rest, ok := strings.CutPrefix(topic, oversized)
	if !ok {
		return 0, "", false
	}
	n, original, ok := strings.Cut(rest, "/")
	bytes, err := strconv.Atoi(n)
	return bytes, original, ok && err == nil
}

// The attributes by which a device is known to networks: the EUI of LoRaWAN, as 16
// hexadecimal digits, the IMEI of mobile networks, and the id that the platform
// of a vendor gave it.
var identities = [...]string{"dev_eui", "imei", "device_id"}

// Identities returns by what names d is known to its gateway beside its own, in
// the form of Identity.
func (d *Device) Identities() []string {
	var out []string
	for _, name := range identities {
		if s, ok := d.Attributes[name].(string); ok && s != "" {
			out = append(out, Identity(s))
		}
	}
	return out
}

// IsIdentity reports whether the attribute called name is one; it is a text, of
// which zeros at the beginning count.
func IsIdentity(name string) bool { return slices.Contains(identities[:], name) }

// Identity returns an identity of a device as it is compared: 00-80-E1 and 0080e1 are one.
func Identity(s string) string {
	return strings.ToLower(strings.NewReplacer("-", "", ":", "", " ", "").Replace(s))
}

// IsLoRaWAN reports whether topic is one to which ChirpStack publishes the events
// of devices: application/ID/device/EUI/event/up.
func IsLoRaWAN(topic string) bool {
	l := strings.Split(topic, "/")
	return len(l) == 6 && l[0] == "application" && l[2] == "device" && l[4] == "event"
}

// DeviceAttributes are the attributes of a device in the two scopes that it may
// read itself: client, what it reported, and shared, what it is told.
type DeviceAttributes struct {
	Client map[string]any `json:"client,omitempty"`
	Shared map[string]any `json:"shared,omitempty"`
}

// AttributeKeys reads which attributes a device asks for, "a,b" in each scope, as
// ThingsBoard does: none in both scopes are all, nil; else none are none.
func AttributeKeys(client, shared string) (c, s []string) {
	if client == "" && shared == "" {
		return nil, nil
	}
	split := func(s string) []string {
		return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
	}
	return split(client), split(shared)
}

// DownlinkKind says what a Downlink is.
type DownlinkKind uint8

// The kinds of downlink.
const (
	DownlinkAttributes  DownlinkKind = iota // shared attributes that changed
	DownlinkCommand                         // something to do
	DownlinkRevoked                         // its token may not be good any more: who holds a session looks again; no Body
	DownlinkRevokedDTLS                     // the same, of who holds a session over DTLS, which goes on when the device is gone
)

// Downlink is one message to a device.
type Downlink struct {
	Device DeviceID
	Kind   DownlinkKind
	Body   json.RawMessage // as ThingsBoard's device API has it, of a command {"method": …, "params": …}; nobody changes it
	ID     int64           // of a command

	// Done is called once by who took a command: nil when the device has it,
	// CodeTooLarge when it is larger than the device will ever take, and what else kept it
	// from the device, which may be there later. It may
	// block for a moment. Nil when nobody wants to know.
	Done func(error)
}

// WithID returns the body of a command together with its id, as ThingsBoard has
// it where no topic carries the id.
func (d *Downlink) WithID() json.RawMessage {
	return append(fmt.Appendf(nil, `{"id":%d,`, d.ID), d.Body[1:]...)
}
