package citywarden

import (
	"math"
	"regexp"
	"strings"
	"time"
)

// Names and identifiers each have their own type so that the compiler catches
// a swapped argument.
type (
	// DeviceID names one registered sensor or gateway: 1 to 64 letters, digits, '.', '_' and '-'.
	DeviceID string
	// ModelName names a device model, like "smoke-detector".
	ModelName string
	// MetricName names one quantity of a model, like "pressure".
	MetricName string
)

var deviceID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Check returns a CodeInvalid error unless id has the form that DeviceID states.
func (id DeviceID) Check() error {
	if !deviceID.MatchString(string(id)) {
		return Errorf(CodeInvalid, "device id %q: use 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit", id)
	}
	return nil
}

// Domain is a line of business; it is also the measurement that a model's
// series are stored under.
type Domain string

// The domains.
const (
	Parking  Domain = "parking"
	Fire     Domain = "fire"
	Pipe     Domain = "pipe"
	Building Domain = "building"
)

// Device is one registered sensor or gateway.
type Device struct {
	ID         DeviceID       `json:"id"`
	Name       string         `json:"name"`
	Model      ModelName      `json:"model"`
	Attributes map[string]any `json:"attributes" nullable:"true"` // string, float64 or bool; what rules call attr.x, see Attribute
	Location   *Point         `json:"location,omitempty"`
	Grid       GridCode       `json:"grid,omitempty"`      // the unit grid that Location lies in; set by the platform
	Adjacent   []DeviceID     `json:"adjacent,omitempty"`  // neighbours, for n_adj in rules
	Component  ComponentID    `json:"component,omitempty"` // that it is attached to; "" for none
	Disabled   bool           `json:"disabled,omitempty"`  // its messages are refused
	Created    time.Time      `json:"created"`
	Updated    time.Time      `json:"updated"`

	SiteAttributes map[string]any `json:"site_attributes,omitempty"` // of its Site; set by the platform
}

// Model is a kind of device: how its payload is encoded and what it measures.
type Model struct {
	Name       ModelName    `json:"name"`
	Title      Text         `json:"title"`
	Domain     Domain       `json:"domain"`
	Codec      string       `json:"codec"`                    // "json": ThingsBoard's bodies and SenML
	Raw        Decoder      `json:"-"`                        // reads what is sent to DeviceRaw; nil: nothing is
	Report     Duration     `json:"report"`                   // the usual time between two messages
	Heartbeat  Duration     `json:"heartbeat"`                // the longest time between two messages; silent after twice that
	Metrics    []Metric     `json:"metrics" nullable:"false"` // in the order that people want to see them
	Events     []ModelEvent `json:"events,omitempty"`         // what its metric "event" may say; none: anything
	Attributes []Attribute  `json:"attributes"`               // what a device of this model may be configured with

	Commands []ModelCommand `json:"commands,omitempty"` // what it can be told to do

	Limits Limits `json:"limits,omitzero"` // of what its devices may send
}

// Metric declares one quantity a model reports.
type Metric struct {
	Name       MetricName `json:"name"`
	Title      Text       `json:"title"`
	Kind       Kind       `json:"kind"`
	Unit       string     `json:"unit,omitempty"` // UCUM; "" when dimensionless
	Min        *float64   `json:"min,omitempty"`  // plausible range; a reading outside has quality OutOfRange
	Max        *float64   `json:"max,omitempty"`
	Resolution float64    `json:"resolution,omitempty"`  // the smallest step that it is measured in, to which readings are rounded; 0 for unknown
	Counter    bool       `json:"counter,omitempty"`     // only counts up, like a meter's register
	Sequence   bool       `json:"sequence,omitempty"`    // numbers the device's messages: each has one more than that before, after Max comes Min
	StaleAfter Duration   `json:"stale_after,omitempty"` // a value older than that is not current any more
	IPSO       string     `json:"ipso,omitempty"`        // resource of LwM2M that it is, see SplitIPSO; "" for none
	FIWARE     string     `json:"fiware,omitempty"`      // what FIWARE's Smart Data Models call it: a controlledProperty, "waterLevel", or an attribute, "ParkingSpot.status"; "" for none
}

// Round returns v as it is measured: a multiple of m's Resolution, without what binary fractions add.
func (m *Metric) Round(v float64) float64 {
	if m.Resolution <= 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return v
	}
	out := math.Round(v/m.Resolution) * m.Resolution
	if per := math.Round(1 / m.Resolution); per >= 1 && math.Abs(per*m.Resolution-1) < 1e-9 {
		out = math.Round(v*per) / per
	}
	if math.IsInf(out, 0) || math.IsNaN(out) {
		return v
	}
	return out + 0 // no -0
}

// EventMetric is the metric by which a device says that something happened: a text, the name of it.
const EventMetric MetricName = "event"

// ModelEvent declares what a model's devices may say that happened.
type ModelEvent struct {
	Name  string `json:"name"`
	Title Text   `json:"title"`
}

// CheckEvent returns a CodeInvalid error unless the model's devices may say that name happened.
func (m *Model) CheckEvent(name string) error {
	if len(m.Events) == 0 {
		return nil
	}
	names := make([]string, len(m.Events))
	for i, e := range m.Events {
		if names[i] = e.Name; e.Name == name {
			return nil
		}
	}
	hint := DidYouMean(name, names)
	if hint == "" {
		hint = "; " + string(m.Name) + " has " + strings.Join(names, ", ")
	}
	return Errorf(CodeInvalid, "unknown event %.64q%s", name, hint)
}

// Attribute declares one attribute of a model's devices.
type Attribute struct {
	Name    string `json:"name"`
	Title   Text   `json:"title"`
	Kind    Kind   `json:"kind"`
	Unit    string `json:"unit,omitempty"`
	Default any    `json:"default,omitempty"` // nil when a device without it has none
	Shared  bool   `json:"shared,omitempty"`  // the device itself may read it, and is told when it changes
}

// Metric returns the declaration of name.
func (m *Model) Metric(name MetricName) (*Metric, bool) {
	for i := range m.Metrics {
		if m.Metrics[i].Name == name {
			return &m.Metrics[i], true
		}
	}
	return nil, false
}

// Attribute returns the declaration of name.
func (m *Model) Attribute(name string) (*Attribute, bool) {
	for i := range m.Attributes {
		if m.Attributes[i].Name == name {
			return &m.Attributes[i], true
		}
	}
	return nil, false
}

// Status is what is known of a device's presence.
type Status string

// The statuses.
const (
	StatusNever  Status = "never"  // it has not reported yet
	StatusOnline Status = "online" // it reported within twice its model's heartbeat
	StatusSilent Status = "silent" // it did not, it or its gateway said that it left, or it is disabled
)

// SilentReason is why a device is silent, as far as that can be known.
type SilentReason string

// The reasons, the first that holds counts.
const (
	SilentDisabled SilentReason = "disabled" // its messages are refused
	SilentLeft     SilentReason = "left"     // it said that it leaves, or its gateway did
	SilentGateway  SilentReason = "gateway"  // its gateway is silent too
	SilentMute     SilentReason = "mute"     // it is connected, and says nothing
	SilentGone     SilentReason = "gone"     // it is not connected: without power, out of reach, or broken
)

// Presence is when a device was last heard. It follows from its messages, not from
// its connections: one that connects again changes nothing.
type Presence struct {
	Status    Status       `json:"status"`
	Reason    SilentReason `json:"reason,omitempty" enum:"disabled,left,gateway,mute,gone"` // of StatusSilent
	LastSeen  time.Time    `json:"last_seen,omitzero"`                                      // our time of its newest message
	Left      bool         `json:"left,omitempty"`                                          // that one says that it left
	Connected bool         `json:"connected,omitempty"`                                     // it holds a connection over MQTT
}

// Uptime is a time in which the platform ran.
type Uptime struct{ From, To time.Time }

// DeviceView is a device as people see it: with its presence, its latest
// values and the worst alarm that is open for it.
type DeviceView struct {
	Device
	Presence
	Latest map[MetricName]Latest `json:"latest,omitempty"`
	Client map[string]any        `json:"client,omitempty"`                                                  // attributes that the device reported
	Clock  *Clock                `json:"clock,omitempty"`                                                   // nil when it gave no times
	Alarm  string                `json:"alarm,omitempty" enum:"critical,major,minor,warning,indeterminate"` // severity of its worst active alarm

	ClaimableUntil time.Time `json:"claimable_until,omitzero"` // by who knows the secret that it announced; zero: not now

	ClockHistory *ClockHistory `json:"-"` // for the store; nil when it is as stored
}

// AttributeState is an attribute of a device as it is set and as the device reported it.
type AttributeState struct {
	Name     string `json:"name"`
	Scope    string `json:"scope" enum:"shared,server,client"`                // told to the device, kept from it, or only reported by it
	Value    any    `json:"value,omitempty"`                                  // what is set; of a shared one what is desired
	From     string `json:"from,omitempty" enum:"device,site,model,firmware"` // where Value is set
	Reported any    `json:"reported,omitempty"`                               // under the same name
	State    string `json:"state,omitempty" enum:"agreed,differs,unreported"` // of a shared one: whether Reported is Value
}

// DeletedDevice is what is told of a device that is gone.
type DeletedDevice struct {
	ID      DeviceID `json:"id"`
	Grid    GridCode `json:"grid,omitempty"` // that it lay in
	Deleted bool     `json:"deleted"`
}

// Latest is the newest reading of one metric by event time.
type Latest struct {
	Value   Value     `json:"value"`
	Time    time.Time `json:"time"`
	Quality Quality   `json:"quality"`
}

// DeviceFilter selects devices; zero fields select all.
type DeviceFilter struct {
	Model  ModelName
	Domain Domain
	Grid   GridCode
	Area   AreaCode
	Search string // part of the id or name, any case
	Status Status
	Clock  ClockState

	Component ComponentID
	Page
}

// Page asks for a part of a list.
type Page struct {
	After string // the cursor that the page before returned; "" for the first page
	Limit int    // 1 to 1000; 0 means 100
}

// MaxPage is the largest Page.Limit.
const MaxPage = 1000

// Size returns the limit of p: 100 for 0, at most MaxPage.
func (p Page) Size() int {
	switch {
	case p.Limit <= 0:
		return 100
	case p.Limit > MaxPage:
		return MaxPage
	}
	return p.Limit
}
