package citywarden

import "time"

// WhyNotReason is why a rule had no alarm that would be seen.
type WhyNotReason string

// The reasons.
const (
	WhyNotAlarm     WhyNotReason = "alarm"         // there was an alarm
	WhyNotShelved   WhyNotReason = "shelved"       // there was one, put aside, or taken out of service, by a person
	WhyNotLatched   WhyNotReason = "latched"       // there was one, its condition gone; it waits for a reset
	WhyNotShadow    WhyNotReason = "shadow"        // there was one, but the rule runs in mode shadow
	WhyNotModel     WhyNotReason = "model"         // the rule does not watch devices of this model
	WhyNotWhere     WhyNotReason = "where"         // select.where leaves the device out
	WhyNotSchedule  WhyNotReason = "schedule"      // the rule was not in force
	WhyNotNoData    WhyNotReason = "no_data"       // a value that the condition needs was not there, or stale
	WhyNotUnknown   WhyNotReason = "unknown"       // the condition could not be computed, like for want of an attribute
	WhyNotCondition WhyNotReason = "condition"     // the condition was false
	WhyNotHolding   WhyNotReason = "holding"       // true, but not for long enough yet
	WhyNotInhibited WhyNotReason = "inhibited"     // true, but the alarm of another rule explains it
	WhyNotLate      WhyNotReason = "late"          // a reading would have done it, but came too late
	WhyNotDown      WhyNotReason = "down"          // the platform did not run
	WhyNotChanged   WhyNotReason = "changed"       // the rule of now would have raised one: rule, device or model was changed since
	WhyNotNotLooked WhyNotReason = "not_evaluated" // true, but no reading came that would have had it evaluated
)

// WhyNot says why a rule had no alarm on a device at a moment, or that it had
// one, from the history stepped again up to that moment.
type WhyNot struct {
	Rule     RuleID         `json:"rule"`
	Version  string         `json:"version"`
	Device   DeviceID       `json:"device"`
	Entity   string         `json:"entity,omitempty"` // the device, or the group it is a member of
	At       time.Time      `json:"at"`
	Reason   WhyNotReason   `json:"reason"`
	Summary  Text           `json:"summary"` // for people
	Since    time.Time      `json:"since,omitzero"`
	Until    time.Time      `json:"until,omitzero"`     // when it ends: the shelving, the holding time, the time out of schedule
	LastSeen time.Time      `json:"last_seen,omitzero"` // arrival of the device's newest message by then; zero when the history has none
	Alarm    *Alarm         `json:"alarm,omitempty"`    // that was there, or of another rule that held it back
	Levels   []WhyNotLevel  `json:"levels,omitempty"`   // by severity, the least first
	Missing  []WhyNotMetric `json:"missing,omitempty"`  // metrics that the condition reads and that had no current value
	Late     []ExplainInput `json:"late,omitempty"`     // readings that came too late to be evaluated
	After    []ExplainInput `json:"after,omitempty"`    // readings measured by then that came in after it
	From     time.Time      `json:"from"`               // the history was stepped from here on
	Notes    []Text         `json:"notes,omitempty"`

	OutOfService []OutOfService `json:"out_of_service,omitempty"` // the device, or the rule there, as it is now: nobody is told of an alarm
}

// WhyNotLevel is a level of the rule as it stood at the moment.
type WhyNotLevel struct {
	Explanation
	Result string    `json:"result" enum:"true,false,unknown"` // of the condition
	State  string    `json:"state" enum:"normal,pending,active,clearing"`
	Due    time.Time `json:"due,omitzero"`
}

// WhyNotMetric is a metric without a current value.
type WhyNotMetric struct {
	Device DeviceID   `json:"device"`
	Metric MetricName `json:"metric"`
	Last   time.Time  `json:"last,omitzero"`  // event time of its newest reading, zero when the history has none
	Stale  Duration   `json:"stale,omitzero"` // a reading older than that is not current any more
}
