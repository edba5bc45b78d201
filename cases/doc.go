// Package cases is the desk where alarms become city-management cases and
// people work them to their end: it keeps the alarms and their history, opens
// and joins cases, sets deadlines in working time and finds the unit grid.
//
//	classes, err := cases.LoadClasses()
//	calendar, err := cases.NewCalendar(cases.CalendarOptions{})
//	grids, err := cases.LoadGrids(ctx, db)
//	desk, err := cases.New(db, cases.Options{Classes: classes, Calendar: calendar, Grids: grids})
//
//	err = desk.Apply(ctx, position, transitions) // what the rule engine says
//	c, err := desk.Do(ctx, id, citywarden.CaseStep{Action: citywarden.File, By: "lin", Role: citywarden.RoleSupervisor}, 0)
//
// Apply keeps alarms, their history, cases, timelines and the engine's cursor
// in one transaction and may be repeated, so that after a crash nothing is
// missing and nothing is there twice.
package cases
