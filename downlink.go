package citywarden

import (
	"encoding/json"
	"fmt"
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

	DeviceConnected    = "v1/devices/me/connect"    // what becomes of GatewayConnect
	DeviceDisconnected = "v1/devices/me/disconnect" // and of GatewayDisconnect
)

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
	DownlinkAttributes DownlinkKind = iota // shared attributes that changed
	DownlinkCommand                        // something to do
	DownlinkRevoked                        // its token may not be good any more: who holds a session looks again; no Body
)

// Downlink is one message to a device.
type Downlink struct {
	Device DeviceID
	Kind   DownlinkKind
	Body   json.RawMessage // as ThingsBoard's device API has it, of a command {"method": …, "params": …}; nobody changes it
	ID     int64           // of a command

	// Done is called once by who took a command: whether the device has it. It may
	// block for a moment. Nil when nobody wants to know.
	Done func(delivered bool)
}

// WithID returns the body of a command together with its id, as ThingsBoard has
// it where no topic carries the id.
func (d *Downlink) WithID() json.RawMessage {
	return append(fmt.Appendf(nil, `{"id":%d,`, d.ID), d.Body[1:]...)
}
