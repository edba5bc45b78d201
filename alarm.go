package citywarden

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
)

type (
	// RuleID names a rule, like "fire.zone-smoke".
	RuleID string
	// AlarmID names one episode of one rule on one entity; see NewAlarmID.
	AlarmID string
)

// Severity follows ITU-T X.733 perceived severity.
type Severity uint8

// The severities, from the least; the zero Severity means none.
const (
	Indeterminate Severity = iota + 1
	Warning
	Minor
	Major
	Critical
)

var severityNames = [...]string{"", "indeterminate", "warning", "minor", "major", "critical"}

func (s Severity) String() string {
	if int(s) < len(severityNames) {
		return severityNames[s]
	}
	return "invalid"
}

// Text returns the name as people read it.
func (s Severity) Text() Text {
	zh := [...]string{"", "不确定", "警告", "次要", "重要", "紧急"}
	if int(s) < len(zh) {
		return Text{ZH: zh[s], EN: s.String()}
	}
	return Text{EN: s.String()}
}

// ParseSeverity returns the severity named s.
func ParseSeverity(s string) (Severity, error) {
	for i, n := range severityNames {
		if n == s && i > 0 {
			return Severity(i), nil
		}
	}
	return 0, Errorf(CodeInvalid, "unknown severity %q; it is critical, major, minor, warning or indeterminate", s)
}

// MarshalText writes the name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the name; "" is the zero Severity.
func (s *Severity) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*s = 0
		return nil
	}
	v, err := ParseSeverity(string(b))
	if err == nil {
		*s = v
	}
	return err
}

// AlarmState is whether the condition of an alarm still holds.
type AlarmState string

// The states of an alarm.
const (
	AlarmActive  AlarmState = "active"
	AlarmCleared AlarmState = "cleared"
)

// Alarm is one episode of a rule on an entity (a device, or a group of
// devices), from raise to clear. At most one per rule and entity is open.
// Its dimensions are independent (ISA-18.2 / IEC 62682): the state of the
// process, the acknowledgement, the suppression.
type Alarm struct {
	ID        AlarmID    `json:"id"`
	Rule      RuleID     `json:"rule"`
	Title     Text       `json:"title"`
	Entity    string     `json:"entity"`            // the device's id, or the group's key
	Device    DeviceID   `json:"device"`            // the device whose reading raised it
	Members   []DeviceID `json:"members,omitempty"` // of a group or a storm: those that satisfied the condition
	Episode   uint64     `json:"episode"`           // counts the alarms of this rule on this entity from 1
	Severity  Severity   `json:"severity"`          // the highest level that is active; of a cleared alarm the highest it had
	State     AlarmState `json:"state"`
	Clearing  bool       `json:"clearing,omitempty"` // active, and its clear condition is true but not long enough yet
	Latched   bool       `json:"latched,omitempty"`  // waits for an operator's reset after its condition is gone
	NoData    bool       `json:"no_data,omitempty"`  // its device fell silent; it stays as it was
	Flapping  bool       `json:"flapping,omitempty"` // came and went too often; it is held until that is over
	Acked     bool       `json:"acked"`
	AckedBy   string     `json:"acked_by,omitempty"`
	AckedAt   time.Time  `json:"acked_at,omitzero"`
	Assignee  string     `json:"assignee,omitempty"` // the user who shall look after it
	Reason    string     `json:"reason,omitempty"`   // of the shelving while it is shelved, else why it was closed without a clear condition
	RaisedAt  time.Time  `json:"raised_at"`          // event time
	ClearedAt time.Time  `json:"cleared_at,omitzero"`
	Case      CaseID     `json:"case,omitempty"`
	Shadow    bool       `json:"shadow,omitempty"` // of a rule in mode shadow: recorded, not acted upon

	// What keeps it from being annunciated, see Suppressed. A shelf and being out
	// of service hold for the rule and entity, from one episode to the next.
	Shelved            time.Time `json:"shelved_until,omitzero"`
	ShelvedBy          string    `json:"shelved_by,omitempty"`
	SuppressedBy       AlarmID   `json:"suppressed_by,omitempty"` // by design: the alarm that explains this one; its rule only for who does not see it
	OutOfService       time.Time `json:"out_of_service_since,omitzero"`
	OutOfServiceUntil  time.Time `json:"out_of_service_until,omitzero"` // zero: until a person returns it
	OutOfServiceBy     string    `json:"out_of_service_by,omitempty"`
	OutOfServiceReason string    `json:"out_of_service_reason,omitempty"`
	OutOfServiceWith   DeviceID  `json:"out_of_service_with,omitempty"` // the device that is out of service, and this open alarm with it
}

// OutOfService is what a person took out of service, as for maintenance, whether
// there is an alarm or not: a device, and the alarms of all rules with it, or
// what one rule says of one entity.
type OutOfService struct {
	Device DeviceID  `json:"device,omitempty"`
	Rule   RuleID    `json:"rule,omitempty"`
	Entity string    `json:"entity,omitempty"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until a person returns it
	By     string    `json:"by"`
	Reason string    `json:"reason"`
}

// OutOfService returns what o takes out of service at a time of ours; ok is false when
// o says an end that is over.
func (o *AlarmOrder) OutOfService(at time.Time) (x OutOfService, ok bool) {
	x = OutOfService{Device: o.Device, Rule: o.Rule, Entity: o.Entity, Since: at, Until: o.Until.UTC().Truncate(time.Millisecond), By: o.By, Reason: o.Reason}
	return x, o.Until.IsZero() || x.Until.After(at)
}

// Suppression is one way in which an alarm is kept from being annunciated
// (ISA-18.2). An alarm may be suppressed in several at once; it is evaluated
// all the same.
type Suppression string

// The suppressions, and what a filter may ask for besides.
const (
	SuppressionShelved      Suppression = "shelved"        // by a person, until a time
	SuppressionByDesign     Suppression = "by_design"      // by another alarm that explains it
	SuppressionOutOfService Suppression = "out_of_service" // by a person, until they return it
	SuppressionAny          Suppression = "any"
	SuppressionNone         Suppression = "none"
)

// Suppressions returns in which ways a is suppressed, nil for none.
func (a *Alarm) Suppressions() []Suppression {
	var out []Suppression
	if !a.Shelved.IsZero() {
		out = append(out, SuppressionShelved)
	}
	if a.SuppressedBy != "" && a.State == AlarmActive {
		out = append(out, SuppressionByDesign)
	}
	if !a.OutOfService.IsZero() {
		out = append(out, SuppressionOutOfService)
	}
	return out
}

// Suppressed reports whether anything keeps a from being annunciated: it does
// not count as unacknowledged and opens no case.
func (a *Alarm) Suppressed() bool { return len(a.Suppressions()) > 0 }

// Unack makes a unacknowledged again, as it is when somebody has to look anew.
func (a *Alarm) Unack() { a.Acked, a.AckedBy, a.AckedAt = false, "", time.Time{} }

// Do carries out a person's order at a time of ours, as far as it concerns
// acknowledgement, suppression and who looks after the alarm: dimensions that
// don't depend on each other nor on the process, but that an active alarm is
// unacknowledged again when its last suppression ends. ok is false, and nothing
// changed, for an order that has no effect any more and for OrderReset, which is
// about the process.
func (a *Alarm) Do(o *AlarmOrder, at time.Time) (kind TransitionKind, ok bool) {
	switch o.Kind {
	case OrderAck:
		if a.Acked {
			return "", false
		}
		a.Acked, a.AckedBy, a.AckedAt = true, o.By, at
		return Acked, true
	case OrderShelve:
		until := o.Until.UTC().Truncate(time.Millisecond)
		if !until.After(at) {
			return "", false
		}
		a.Shelved, a.ShelvedBy, a.Reason = until, o.By, o.Reason
		return Shelved, true
	case OrderUnshelve:
		return Unshelved, a.Unshelve()
	case OrderOutOfService:
		x, ok := o.OutOfService(at)
		if !ok || a.OutOfServiceItself() && a.OutOfServiceUntil.Equal(x.Until) {
			return "", false
		}
		a.TakeOut(x)
		return WentOutOfService, true
	case OrderInService:
		return CameInService, a.OutOfServiceItself() && a.Return()
	case OrderComment:
		return Commented, o.Text != ""
	case OrderAssign:
		if a.Assignee == o.To {
			return "", false
		}
		a.Assignee = o.To
		return Assigned, true
	}
	return "", false
}

// OutOfServiceItself reports whether a is out of service by an order of its own,
// not with a device.
func (a *Alarm) OutOfServiceItself() bool {
	return !a.OutOfService.IsZero() && a.OutOfServiceWith == ""
}

// TakeOut takes a out of service, by itself or with the device that x names.
func (a *Alarm) TakeOut(x OutOfService) {
	a.OutOfService, a.OutOfServiceUntil, a.OutOfServiceBy, a.OutOfServiceReason, a.OutOfServiceWith = x.Since, x.Until, x.By, x.Reason, x.Device
}

// Return ends the being out of service, by order or because its time is over;
// false when a is in service.
func (a *Alarm) Return() bool {
	if a.OutOfService.IsZero() {
		return false
	}
	a.TakeOut(OutOfService{})
	a.released()
	return true
}

// Unshelve ends the shelving, by order or because its time is over; false when
// a is not shelved.
func (a *Alarm) Unshelve() bool {
	if a.Shelved.IsZero() {
		return false
	}
	a.Shelved, a.ShelvedBy = time.Time{}, ""
	if a.State == AlarmActive {
		a.Reason = ""
	}
	a.released()
	return true
}

// Suppress says which alarm explains a, "" for none any more; false when that is
// so already.
func (a *Alarm) Suppress(by AlarmID) (kind TransitionKind, ok bool) {
	switch {
	case a.SuppressedBy == by:
		return "", false
	case by == "":
		a.SuppressedBy = by
		a.released()
		return Unsuppressed, true
	}
	a.SuppressedBy = by
	return Suppressed, true
}

// Forsake ends the shelving and the being out of service of an alarm that the
// engine does not hold any more, and so nobody could.
func (a *Alarm) Forsake() {
	a.Shelved, a.ShelvedBy = time.Time{}, ""
	a.TakeOut(OutOfService{})
}

// released is called when one suppression ended.
func (a *Alarm) released() {
	if a.State == AlarmActive && !a.Suppressed() {
		a.Unack()
	}
}

// plainEntity reports whether s is 1 to 80 of A-Z, a-z, 0-9, dot, hyphen and underscore.
func plainEntity(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return 0 < len(s) && len(s) <= 80
}

// NewAlarmID returns "rule:entity:episode". An entity that could not stand in a
// URL as it is, is replaced by the first 12 hex digits of its SHA-256.
func NewAlarmID(rule RuleID, entity string, episode uint64) AlarmID {
	if !plainEntity(entity) {
		h := sha256.Sum256([]byte(entity))
		entity = hex.EncodeToString(h[:6])
	}
	return AlarmID(string(rule) + ":" + entity + ":" + strconv.FormatUint(episode, 10))
}

// AlarmFilter selects alarms; zero fields select all.
type AlarmFilter struct {
	IDs      []AlarmID // nil for all
	Area     AreaCode  // that has all devices the alarm ever concerned
	State    AlarmState
	Severity Severity
	Rule     RuleID
	Device   DeviceID // raised it, or is a member of its group
	Shadow   bool     // those of rules in mode shadow instead of the others

	// Suppressed selects alarms by how they are suppressed now; what is shelved or
	// out of service is found by its newest alarm, even when that is cleared.
	Suppressed Suppression
	Assignee   string
	Acked      *bool
	Page
}

// AlarmStep is one entry of an alarm's history.
type AlarmStep struct {
	Kind         TransitionKind `json:"kind"`
	Severity     Severity       `json:"severity"` // after the change
	At           time.Time      `json:"at"`       // event time
	Logged       time.Time      `json:"logged"`   // our time of the record that caused it
	By           string         `json:"by,omitempty"`
	Reason       string         `json:"reason,omitempty"` // of an order, or why it was closed without a clear condition
	Text         string         `json:"text,omitempty"`   // of a comment
	Assignee     string         `json:"assignee,omitempty"`
	SuppressedBy AlarmID        `json:"suppressed_by,omitempty"` // the alarm that explains it from then on; its rule only for who does not see it
	Why          *Explanation   `json:"why,omitempty"`
}

// TransitionKind says what happened to an alarm.
type TransitionKind string

// The transitions.
const (
	Raised    TransitionKind = "raised"
	Escalated TransitionKind = "escalated" // the severity went up; it is unacknowledged again
	Lowered   TransitionKind = "lowered"   // the severity went down
	Clearing  TransitionKind = "clearing"  // the clear condition became true
	Resumed   TransitionKind = "resumed"   // the clear condition became false again before it held long enough
	Latched   TransitionKind = "latched"   // its condition is gone; it stays active until an operator resets it
	Cleared   TransitionKind = "cleared"
	Acked     TransitionKind = "acked"
	Shelved   TransitionKind = "shelved"
	Unshelved TransitionKind = "unshelved"
	Joined    TransitionKind = "joined"   // another member of the group satisfies the condition
	Flapped   TransitionKind = "flapping" // it came and went so often that it is held now
	Steadied  TransitionKind = "steady"   // that is over, and it is still active
	WentDark  TransitionKind = "no_data"
	CameBack  TransitionKind = "data_back"
	Commented TransitionKind = "commented"
	Assigned  TransitionKind = "assigned" // to a user, or to nobody any more

	Suppressed       TransitionKind = "suppressed"     // by design: another alarm explains it
	Unsuppressed     TransitionKind = "unsuppressed"   // nothing explains it any more
	WentOutOfService TransitionKind = "out_of_service" // by a person
	CameInService    TransitionKind = "in_service"
)

// Transition is one change of one alarm, the only output of the rule engine.
// Key names it for ever: "rule/entity/episode/n"; whoever applies transitions
// ignores a key that was applied before.
type Transition struct {
	Key      string
	Position Position  // of the record that caused it
	At       time.Time // event time of the change
	Logged   time.Time // Record.At of the record that caused it
	Kind     TransitionKind
	Alarm    Alarm        // as it is after the change
	Shadow   bool         // of a rule in mode shadow: to be recorded, never to be acted upon
	Case     *CaseOrder   // the case the rule asks for, nil for none
	Why      *Explanation // nil for acknowledgements and the like
	By       string       // who ordered it; "" when nobody did
	Note     string       // the reason of an order, the text of a comment, why it was closed without a clear condition

	// Annunciated is set when the change calls for a person: the alarm was raised,
	// went up, came back while it was latched or from a suppression, is of a live
	// rule, and nothing suppresses it. Only then is a case opened.
	Annunciated bool
}

// CaseOrder is what a rule says about the case of its alarms, with its
// templates filled in.
type CaseOrder struct {
	Class      ClassCode    `json:"class"`
	Key        string       `json:"key"`                   // one open case per key
	Merge      Duration     `json:"merge,omitempty"`       // an alarm within that time after the case closed reopens it
	WorkOrder  bool         `json:"work_order,omitempty"`  // maintenance, kept out of the case statistics
	Storm      bool         `json:"storm,omitempty"`       // the alarm is that of a storm: its members are no news
	Parent     string       `json:"parent,omitempty"`      // while the alarm of a storm explains this one: the key of its case
	Hold       Duration     `json:"hold,omitempty"`        // the first notice waits that long, unless the alarm is critical
	ClearedFor Duration     `json:"cleared_for,omitempty"` // the platform closes the case when all was normal for that long; 0 never
	Escalate   []Escalation `json:"escalate,omitempty"`
	Limit      CaseLimit    `json:"limit,omitzero"`
	LifeSafety bool         `json:"life_safety,omitempty"` // nothing waits, nothing is closed by itself, nothing is put together
}

// Escalation tells somebody else of a case that stands for too long.
type Escalation struct {
	After       Duration `json:"after"`
	UnlessAcked bool     `json:"unless_acked,omitempty"` // not when its active alarms are acknowledged by then
	To          string   `json:"to"`                     // a receiver of notices
}

// CaseLimit bounds how many cases the alarms of one rule open within a time;
// what is more goes into one summary case. The zero value is the desk's default.
type CaseLimit struct {
	Cases int      `json:"cases"`
	In    Duration `json:"in"`
}

// OrderKind is what a person orders of an alarm.
type OrderKind string

// The orders.
const (
	OrderAck      OrderKind = "ack"
	OrderShelve   OrderKind = "shelve"
	OrderUnshelve OrderKind = "unshelve"
	OrderReset    OrderKind = "reset" // of an alarm that is latched or whose device is silent
	OrderComment  OrderKind = "comment"
	OrderAssign   OrderKind = "assign"

	OrderOutOfService OrderKind = "out_of_service" // until OrderInService, or a time
	OrderInService    OrderKind = "in_service"
)

// AlarmOrder is a person's order to the rule engine; it goes through the log
// like everything that changes an alarm.
type AlarmOrder struct {
	Kind   OrderKind `json:"kind"`
	Alarm  AlarmID   `json:"alarm,omitempty"`
	Device DeviceID  `json:"device,omitempty"` // OrderOutOfService and OrderInService: instead of an alarm
	Rule   RuleID    `json:"rule,omitempty"`   // the same, with Entity
	Entity string    `json:"entity,omitempty"`
	By     string    `json:"by"`
	Until  time.Time `json:"until,omitzero"` // OrderShelve; OrderOutOfService: zero for no end
	Reason string    `json:"reason,omitempty"`
	Text   string    `json:"text,omitempty"` // OrderComment
	To     string    `json:"to,omitempty"`   // OrderAssign: a user's name; "" takes the alarm from whoever has it
}

// Explanation says why an alarm changed, from the very values that were used.
type Explanation struct {
	Rule       RuleID          `json:"rule"`
	Version    string          `json:"version"` // of the rule: the first 12 hex digits of its text's SHA-256
	At         time.Time       `json:"at"`      // event time of the evaluation
	Severity   Severity        `json:"severity"`
	Condition  string          `json:"condition"`      // the expression as the engineer wrote it
	Held       Duration        `json:"held"`           // how long it had to hold (for)
	Since      time.Time       `json:"since,omitzero"` // since when it held
	Summary    Text            `json:"summary"`        // one sentence for operators
	Leaves     []ExplainLeaf   `json:"leaves"`
	Inputs     []ExplainInput  `json:"inputs"`
	Attributes []ExplainAttr   `json:"attributes,omitempty"`
	Windows    []ExplainWindow `json:"windows,omitempty"`
	Members    []ExplainMember `json:"members,omitempty"`

	OutOfService OutOfService `json:"out_of_service,omitzero"` // why nobody was told of the alarm that was raised
}

// ExplainLeaf is one comparison of a condition.
type ExplainLeaf struct {
	Device DeviceID `json:"device,omitempty"` // whose readings; "" for those of a whole group
	Text   string   `json:"text"`
	Left   any      `json:"left"`
	Op     string   `json:"op"`
	Right  any      `json:"right"`
	Result string   `json:"result" enum:"true,false,unknown"`
}

// ExplainInput is a reading that a condition looked at.
type ExplainInput struct {
	Device  DeviceID   `json:"device"`
	Metric  MetricName `json:"metric"`
	Value   Value      `json:"value"`
	Unit    string     `json:"unit,omitempty"`
	Time    time.Time  `json:"time"`
	Arrived time.Time  `json:"arrived"`
}

// ExplainAttr is an attribute that a condition looked at.
type ExplainAttr struct {
	Name  string `json:"name"`
	Value any    `json:"value"`
	From  string `json:"from"` // "device", "site", "model" or "rule" (the ?? default)
}

// ExplainWindow is what a window function saw.
type ExplainWindow struct {
	Device  DeviceID  `json:"device,omitempty"` // whose readings; "" for those of a whole group
	Text    string    `json:"text"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Samples int       `json:"samples"`
	Result  any       `json:"result"`
}

// ExplainMember is one member of a group, or one neighbour.
type ExplainMember struct {
	Device DeviceID  `json:"device"`
	Result string    `json:"result" enum:"true,false,unknown"`
	Time   time.Time `json:"time,omitzero"`
}

// RuleStatus is what became of the rule files.
type RuleStatus struct {
	Loaded   time.Time `json:"loaded_at"` // when the rules that run were read
	Rules    int       `json:"rules"`
	Tests    int       `json:"tests"` // that are in the files and passed
	Warnings Problems  `json:"warnings,omitempty"`
	Refused  time.Time `json:"refused_at,omitzero"` // when the files were last found unusable; zero when those that run are the newest
	Problems Problems  `json:"problems,omitempty"`  // why; the rules before that go on
}

// Rule is a rule as people see it; the rules package knows how to run it.
type Rule struct {
	ID       RuleID      `json:"id"`
	Title    Text        `json:"title"`
	Version  string      `json:"version"` // the first 12 hex digits of its text's SHA-256
	Mode     string      `json:"mode" enum:"live,shadow"`
	Of       RuleID      `json:"of,omitempty"` // the rule whose text this is, when it is that of the rule's storms
	Models   []ModelName `json:"models"`
	Severity Severity    `json:"severity"` // the highest of its levels
	File     string      `json:"file"`
	Line     int         `json:"line"`
	Text     string      `json:"text"` // YAML
}
