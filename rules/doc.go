// Package rules turns readings into alarms: it loads rule files, type-checks
// their conditions against the device models, and runs them as a function from
// log entries to transitions.
//
//	set, err := rules.Load(os.DirFS("rules"), models) // err lists every mistake with line and caret
//	for _, r := range rules.Test(set) { … }           // the tests written in the files
//	e := rules.New(set, rules.Options{Devices: registry})
//	for _, entry := range entries {
//		transitions := e.Step(&entry)
//	}
//
// An Engine has no clock, no goroutine and does no I/O: the same entries give
// the same transitions, live, in a test, in a replay and after a crash.
// Runner drives one as a consumer of the log. Lab steps others over the stored
// history: it backtests rules, and says why there was no alarm.
//
// # How time works
//
// Every reading counts at its event time, but never later than its arrival. A
// condition is evaluated "as of" an event time over the history known by then,
// and the delays of a rule (for, clear.for) are deadlines in event time. When a
// device sends nothing more, they fall due at deadline + the lag of its last
// message + the rule's late. A rule with late > 0 evaluates a reading only once
// the device's newest reading is that much newer, or that long after it arrived;
// whatever comes later still is kept as history and counted. silent() is about
// arrivals, so a rule that uses it runs on the arrival clock.
//
// # Unknown
//
// A value that never came, is stale, or can't be computed is unknown. Logic with
// unknown is Kleene's: false and unknown is false, true or unknown is true, all
// else is unknown. Unknown changes no state.
package rules
