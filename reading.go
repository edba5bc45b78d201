package citywarden

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Position is a place in the durable log. Positions grow with the order of the
// log; a consumer's cursor is the position of the last record it has dealt with.
// The upper 48 bits number the commit group, the lower 16 the record in it.
type Position uint64

// MaxGroup is how many records one commit group can hold.
const MaxGroup = 1 << 16

// PositionAt returns the position of record i in commit group seq.
func PositionAt(seq uint64, i int) Position { return Position(seq<<16 | uint64(i)) }

// Group returns the number of the commit group that p lies in.
func (p Position) Group() uint64 { return uint64(p) >> 16 }

// RecordKind says what a Record is.
type RecordKind uint8

// The kinds of record.
const (
	RecordUplink RecordKind = iota + 1 // a message of a device
	RecordTick                         // time passed: a deadline of the rule engine is due, or nothing else was logged for half an Outage
	RecordOrder                        // a person's order to the rule engine, about one alarm
	RecordStart                        // the platform began to run: it heard nothing since the record before
	RecordDeaf                         // messages can't be stored: nothing was heard from Since to At, or since the RecordDeaf before
	_                                  // stands for a RecordDeaf with Lasted in the log's encoding
	_                                  // stands for a RecordUplink with Ahead there
)

// Outage is from how long on a time in which nobody could be heard is one for which nobody counts as silent. What is shorter
// is a stumble: whoever has something to say says it again.
const Outage = 30 * time.Second

// Record is one entry of the durable log, the only input of everything after
// it. At was stamped once, when the record was appended; no consumer looks at
// another clock, so that a replay gives what the first run gave.
type Record struct {
	Position Position
	Kind     RecordKind
	At       time.Time
	Ahead    time.Duration // RecordUplink: by how much At is ahead of our clock, which was set back; times in the message are of that clock
	Lasted   time.Duration // RecordDeaf: for how long nothing was heard up to At, see Since
	Uplink   *Uplink       // RecordUplink
	Order    *AlarmOrder   // RecordOrder
}

// Since returns since when nothing was heard, for a RecordDeaf that says so, else the zero time.
func (r *Record) Since() time.Time {
	if r.Lasted == 0 {
		return time.Time{}
	}
	return r.At.Add(-r.Lasted)
}

// Uplink is one message from a device as it came, not yet decoded.
type Uplink struct {
	Device   DeviceID
	Protocol string // "mqtt", "coap", "http", "uplink", or ProtocolWill
	Topic    string // MQTT topic, or the path after the token: "v1/devices/me/telemetry"
	Payload  []byte
	Received time.Time // our clock, UTC

	// Untold says that nobody waits for an answer, as of MQTT with QoS 0: a message that would be
	// refused as one too many is a dead letter instead, unless its device has many already. It is not in the log.
	Untold bool
}

// ProtocolWill is Uplink.Protocol of the will of a connection over MQTT: what a device
// has asked to be said once it is gone.
const ProtocolWill = "mqtt-will"

// Alive reports whether the device, or its gateway of it, has spoken: what says that it left, or
// was said in its name when it was gone, is no sign of its life.
func (u *Uplink) Alive() bool { return u.Topic != DeviceDisconnected && u.Protocol != ProtocolWill }

// Link is how the connection to a broker elsewhere is.
type Link struct {
	Name      string           `json:"name"`
	URL       string           `json:"url"`
	Connected bool             `json:"connected"`
	Since     time.Time        `json:"since"`                 // since when it is connected, or is not
	Last      time.Time        `json:"last_message,omitzero"` // when the newest message came
	Waiting   int              `json:"waiting"`               // messages that came and are not acknowledged to the broker yet
	Messages  map[string]int64 `json:"messages"`              // by result, as the metric citywarden_uplink_messages_total has them
	Error     string           `json:"error,omitempty"`       // why it is not connected, or was not the last time
}

// Reading is one value of one metric.
type Reading struct {
	Metric  MetricName
	Value   Value
	Time    time.Time // event time: when the device measured, UTC
	Quality Quality
}

// Quality says how far a Reading may be trusted. Rules see Good and Clamped
// readings only.
type Quality uint8

// The qualities.
const (
	Good       Quality = iota
	Clamped            // its time was more than 5 minutes ahead; the arrival is used instead
	OutOfRange         // outside the metric's Min..Max
)

var qualityNames = [...]string{"good", "clamped", "out_of_range"}

func (q Quality) String() string {
	if int(q) < len(qualityNames) {
		return qualityNames[q]
	}
	return "invalid"
}

// MarshalJSON writes the name.
func (q Quality) MarshalJSON() ([]byte, error) { return json.Marshal(q.String()) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (q *Quality) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	for i, n := range qualityNames {
		if n == s {
			*q = Quality(i)
			return nil
		}
	}
	return Errorf(CodeInvalid, "unknown quality %q", s)
}

// Entry is a record of the log once decoded: what every consumer of the log
// receives. Consumers share it and must not change it.
type Entry struct {
	Record
	Device     *Device        // nil unless Kind is RecordUplink and the device is known
	Model      *Model         // of Device
	Readings   []Reading      // in the order of the payload; empty when Reject is set
	Attrs      map[string]any // client attributes the device reported, nil when none
	Stated     time.Time      // the newest time that the message gives, before it is clamped or quarantined; zero when it gives none
	Duplicates int            // readings left out because the same one (metric, time, value) was there before
	Reject     *DeadLetter    // set when the uplink could not be used, or a part of it

	Rejected    int // readings left out because they can't be used, Reject says why; 1 for a message that can't be decoded
	Quarantined int // readings left out because their time can't be true, Reject says why
	Missing     int // messages of the device that got lost on their way, as this one says
}

// SeriesQuery asks for the readings of one metric of one device.
type SeriesQuery struct {
	Device DeviceID
	Domain Domain // of the device's model: the measurement
	Metric MetricName
	From   time.Time     // inclusive
	To     time.Time     // exclusive
	Every  time.Duration // interval of the aggregate; 0 for raw points
	Agg    string        // mean, min, max, sum, count, last, increase; "" means mean
	Limit  int           // at most so many points; 0 means 10,000
}

// AggIncrease is the Agg that says by how much a counter went up in each
// interval, since the last reading before it. Before From that is looked for in one interval.
const AggIncrease = "increase"

// SeriesAggregates are what an Agg may be.
var SeriesAggregates = [...]string{"mean", "min", "max", "sum", "count", "last", AggIncrease}

// GroupQuery asks for the readings of one metric of all devices of a domain, put
// together by a tag of the devices and by interval.
type GroupQuery struct {
	Domain Domain
	Metric MetricName
	By     string        // device, model, grid, site or zone; "" puts all into one group
	Area   AreaCode      // only devices there
	From   time.Time     // inclusive
	To     time.Time     // exclusive
	Every  time.Duration // the interval
	Agg    string        // as that of a SeriesQuery, but not last
}

// GroupTags are what a GroupQuery may group by.
var GroupTags = [...]string{"device", "model", "grid", "site", "zone"}

// Check returns a CodeInvalid error when q makes no sense.
func (q *GroupQuery) Check() error {
	switch {
	case q.Domain == "" || q.Metric == "":
		return Errorf(CodeInvalid, "a query by groups needs a domain and a metric")
	case q.By != "" && !slices.Contains(GroupTags[:], q.By):
		return Errorf(CodeInvalid, "group by %q: it is %s", q.By, strings.Join(GroupTags[:], ", "))
	case !q.From.Before(q.To):
		return Errorf(CodeInvalid, "from %s is not before to %s", q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	case q.Every < time.Second:
		return Errorf(CodeInvalid, "every %s: the interval is at least 1s", q.Every)
	case q.Agg == "last" || q.Agg != "" && !slices.Contains(SeriesAggregates[:], q.Agg):
		return Errorf(CodeInvalid, "agg %q of a group: it is mean, min, max, sum, count or increase", q.Agg)
	}
	return nil
}

// Tag returns what d is grouped by.
func (q *GroupQuery) Tag(d *Device) string {
	switch q.By {
	case "device":
		return string(d.ID)
	case "model":
		return string(d.Model)
	case "grid":
		return string(d.Grid)
	case "":
		return ""
	}
	s, _ := d.Attributes[q.By].(string)
	return s
}

// SeriesGroup is the points of one group.
type SeriesGroup struct {
	Name   string // the value of the tag, "" for those without
	Points []SeriesPoint
}

// DeviceReading is a reading and whose it is.
type DeviceReading struct {
	Device DeviceID
	Reading
}

// SeriesPoint is one point of a series.
type SeriesPoint struct {
	Time  time.Time
	Value Value
}

// SeriesRow is what the time series hold of a device at one time.
type SeriesRow struct {
	Device DeviceID
	Time   time.Time
	Values map[MetricName]Value
}

// Event is something that happened, for those who watch live.
type Event struct {
	ID   uint64 // grows by one; 0 until the hub numbers it
	Kind string // "reading", "alarm", "case", "device"
	Time time.Time
	Data any // JSON-encodable: ReadingEvent, Alarm, Case, DeviceView
}

// ReadingEvent is the Data of a "reading" event. It is written as JSON with the newest
// of each metric under "latest".
type ReadingEvent struct {
	Device DeviceID
	New    []Reading // that are not older than what was there before
}

// Latest returns the newest of each metric.
func (e ReadingEvent) Latest() map[MetricName]Latest {
	m := make(map[MetricName]Latest, len(e.New))
	for _, r := range e.New {
		if !r.Time.Before(m[r.Metric].Time) {
			m[r.Metric] = Latest{Value: r.Value, Time: r.Time, Quality: r.Quality}
		}
	}
	return m
}

type readingEvent struct {
	Device DeviceID              `json:"device"`
	Latest map[MetricName]Latest `json:"latest"`
}

// MarshalJSON writes the newest of each metric.
func (e ReadingEvent) MarshalJSON() ([]byte, error) {
	return json.Marshal(readingEvent{e.Device, e.Latest()})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (e *ReadingEvent) UnmarshalJSON(b []byte) error {
	var x readingEvent
	if err := json.Unmarshal(b, &x); err != nil {
		return err
	}
	*e = ReadingEvent{Device: x.Device}
	for m, l := range x.Latest {
		e.New = append(e.New, Reading{Metric: m, Value: l.Value, Time: l.Time, Quality: l.Quality})
	}
	return nil
}
