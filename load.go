package citywarden

import "time"

// LoadInterval is the interval that alarm load is measured in (ANSI/ISA-18.2,
// EEMUA 191).
const LoadInterval = 10 * time.Minute

// Annunciation is one call for a person.
type Annunciation struct {
	At        time.Time // our time
	Alarm     AlarmID
	Severity  Severity
	WorkOrder bool // for maintenance
}

// AlarmLoad says what alarms demanded of the operators in a span of time, in the
// terms of EEMUA 191 and ANSI/ISA-18.2.
//
// What counts is each annunciation: an alarm was raised or went up, came back
// while it was latched, or came back from a suppression while it was active.
// Alarms that were suppressed then and those of shadow rules do not count.
// Maintenance work orders are counted apart, in WorkOrders only: they go to those
// who plan the maintenance and don't ask an operator to act now.
type AlarmLoad struct {
	From        time.Time          `json:"from"`
	To          time.Time          `json:"to"`
	Operators   int                `json:"operators"`   // on duty at a time
	Alarms      int                `json:"alarms"`      // annunciated
	WorkOrders  int                `json:"work_orders"` // annunciations that ordered maintenance; they count nowhere else
	PerOperator OperatorLoad       `json:"per_operator_10min"`
	Floods      []AlarmFlood       `json:"floods"`
	Chattering  []ChatteringAlarm  `json:"chattering"` // the worst first, at most 100
	Stale       []Alarm            `json:"stale"`      // active for more than 24 h now and not suppressed, the oldest first, at most 1000
	TopRules    []RuleLoad         `json:"top_rules"`  // the ten with the most alarms
	Priorities  map[Priority]Share `json:"priorities"`
	Series      []LoadPoint        `json:"series"`
}

// OperatorLoad is how many alarms one operator got in 10 minutes.
type OperatorLoad struct {
	Mean          float64   `json:"mean"`
	Peak          float64   `json:"peak"` // in the worst interval
	PeakAt        time.Time `json:"peak_at,omitzero"`
	Goal          float64   `json:"goal"`            // "very likely to be acceptable"
	OverGoalShare float64   `json:"over_goal_share"` // of the intervals, 0 to 1
}

// AlarmFlood is a time in which operators can't follow: it begins with the first
// of more than 10 alarms per operator in 10 minutes and ends when fewer than 5
// came in the last 10 minutes.
type AlarmFlood struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Alarms int       `json:"alarms"`
}

// ChatteringAlarm was annunciated three times or more within a minute, not counted that it got
// worse than it had been since it was raised.
type ChatteringAlarm struct {
	Rule          RuleID   `json:"rule"`
	Title         Text     `json:"title"`
	Entity        string   `json:"entity"`
	Device        DeviceID `json:"device"`
	MostPerMinute int      `json:"most_per_minute"`
	Count         int      `json:"count"` // in the whole span
}

// RuleLoad is what one rule contributed.
type RuleLoad struct {
	Rule   RuleID  `json:"rule"`
	Title  Text    `json:"title"`
	Alarms int     `json:"alarms"`
	Share  float64 `json:"share"` // of all alarms, 0 to 1
}

// Priority is one of the three that EEMUA 191 knows.
type Priority string

// The priorities.
const (
	PriorityCritical Priority = "critical"
	PriorityMajor    Priority = "major"
	PriorityMinor    Priority = "minor" // warning and indeterminate, too
)

// Priority returns the priority of an alarm of severity s.
func (s Severity) Priority() Priority {
	switch s {
	case Critical:
		return PriorityCritical
	case Major:
		return PriorityMajor
	}
	return PriorityMinor
}

// Share is how many alarms had a priority, next to the share it should have.
type Share struct {
	Alarms int     `json:"alarms"`
	Share  float64 `json:"share"`  // 0 to 1
	Target float64 `json:"target"` // about 5 % critical, 15 % major, 80 % minor
}

// LoadPoint is one interval.
type LoadPoint struct {
	At     time.Time `json:"at"` // its beginning
	Alarms int       `json:"alarms"`
}
