// Package citywarden is the vocabulary of the platform: devices and what they
// measure, uplinks and readings, rules and the alarms they raise,
// city-management cases and the places all of them belong to.
//
// It holds types, their invariants and their state machines as tables. It does
// no I/O and imports only the standard library, so every other package may
// import it:
//
//	v := citywarden.Number(0.31)
//	r := citywarden.Reading{Metric: "smoke", Value: v, Time: time.Now()}
//
//	err := c.Do(citywarden.CaseStep{Action: citywarden.Dispatch, By: "li", Role: citywarden.RoleDispatcher})
//	if citywarden.CodeOf(err) == citywarden.CodeConflict {
//		// the case is not in a stage that can be dispatched
//	}
package citywarden
