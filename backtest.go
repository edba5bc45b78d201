package citywarden

import "time"

// HistoryQuery says which part of the stored history is wanted.
type HistoryQuery struct {
	From    time.Time         // by arrival, inclusive
	To      time.Time         // exclusive
	Devices map[DeviceID]bool // whose readings are wanted, nil for all; messages of others come without
	Rows    int               // of the time series at once at most, 0 for 10,000; more are faster, and take memory
}

// BacktestRequest asks what rules would have done over stored history. Either
// Text or Rule is set.
type BacktestRequest struct {
	Text    string     // a rule file
	Rule    RuleID     // a rule that runs
	From    time.Time  // inclusive
	To      time.Time  // exclusive; zero means now
	Devices []DeviceID // the only ones that there are, nil for all
}

// BacktestProgress says how far a backtest is.
type BacktestProgress struct {
	Done     float64   `json:"done"` // 0 to 1, by the time of the history
	At       time.Time `json:"at"`   // the engine's clock
	Readings uint64    `json:"readings"`
}

// Backtest is what rules would have done over stored history, and beside each
// what the rule of the same id that runs now would have done over the same.
type Backtest struct {
	From     time.Time      `json:"from"`
	To       time.Time      `json:"to"`
	Warmup   time.Time      `json:"warmup"` // from here to From the history was stepped but not counted
	Logged   time.Time      `json:"logged"` // what lies before comes from the time series instead of the log
	Messages uint64         `json:"messages"`
	Readings uint64         `json:"readings"`
	Took     Duration       `json:"took"`
	Rules    []BacktestRule `json:"rules"`
	Notes    []Text         `json:"notes"` // what to keep in mind when reading the figures
}

// BacktestRule compares a rule that was tried with the one that runs.
type BacktestRule struct {
	Rule      RuleID          `json:"rule"`
	Title     Text            `json:"title"`
	Version   string          `json:"version"`           // of the rule that was tried
	Running   string          `json:"running,omitempty"` // version of the one that runs; "" when none has that id, or none was asked for
	Tried     BacktestCounts  `json:"tried"`
	Now       *BacktestCounts `json:"now,omitempty"` // of the one that runs
	OnlyTried int             `json:"only_tried"`    // alarms of the tried rule while the running one had none on the same entity
	OnlyNow   int             `json:"only_now"`      // the other way round
	Both      int             `json:"both"`          // alarms of the tried rule that overlap with one of the running rule
	Alarms    []BacktestAlarm `json:"alarms"`        // by time; when there are too many, the differences go first
	More      int             `json:"more,omitempty"`
}

// BacktestCounts sums up the alarms of one rule between From and To.
type BacktestCounts struct {
	Raises      int       `json:"raises"`
	Clears      int       `json:"clears"`
	Escalations int       `json:"escalations"`
	Standing    int       `json:"standing"`   // alarms that were active at From already
	Open        int       `json:"open"`       // alarms that were active at To still
	Entities    int       `json:"entities"`   // devices or groups that had an alarm
	Active      Duration  `json:"active"`     // summed over the alarms
	Longest     Duration  `json:"longest"`    // alarm
	Shortest    Duration  `json:"shortest"`   // alarm that began and ended between From and To
	PerTenMin   float64   `json:"per_10min"`  // raises in ten minutes, mean
	Peak        int       `json:"peak_10min"` // most raises in any ten minutes
	PeakAt      time.Time `json:"peak_at,omitzero"`
	Chattering  []string  `json:"chattering"` // entities with three raises within a minute (EEMUA 191), at most 100
}

// BacktestAlarm is one alarm of a backtest. Raised may lie before From.
type BacktestAlarm struct {
	In         string    `json:"in" enum:"both,tried,now"`
	Entity     string    `json:"entity"`
	Device     DeviceID  `json:"device"`
	Severity   Severity  `json:"severity"` // the highest it had
	Raised     time.Time `json:"raised"`
	Cleared    time.Time `json:"cleared,omitzero"`     // zero when it was active at To
	NowRaised  time.Time `json:"now_raised,omitzero"`  // in both: of the running rule's alarm
	NowCleared time.Time `json:"now_cleared,omitzero"` // in both: the same, zero when it was active at To
}

// RuleReport is what checking and testing rule files found.
type RuleReport struct {
	OK       bool         `json:"ok"`
	Problems Problems     `json:"problems"`
	Warnings Problems     `json:"warnings"`
	Results  []RuleResult `json:"results"` // of the tests in the files; none when there are problems
}

// RuleResult is the outcome of one test in a rule file.
type RuleResult struct {
	Name     string   `json:"name"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
	OK       bool     `json:"ok"`
	Problems Problems `json:"problems"` // expectations that were not met
	TookMS   int64    `json:"took_ms"`
}
