package cases

import (
	"embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

//go:embed data/*.csv
var data embed.FS

// Calendar knows when people work, and counts handling limits with it.
type Calendar struct {
	zone  *time.Location
	hours []Hours
	days  map[string]bool // "2006-01-02": true is a weekend day that is worked, false a holiday
}

// Hours is one stretch of working time of a day, in time since midnight.
type Hours struct {
	From, To time.Duration
}

// CalendarOptions describe a calendar; the zero value is mainland China's.
type CalendarOptions struct {
	Zone  *time.Location // nil for Asia/Shanghai
	Hours []Hours        // in order, apart from each other; nil for 08:00-12:00 and 14:00-18:00
	// Days holds days.csv with the columns date, kind, name. date is one day or
	// "from/to" (both included), kind is "holiday" (nobody works) or "workday" (a
	// weekend day that is worked, 调休). nil for the State Council's days of 2025
	// and 2026; without a row, Monday to Friday are worked.
	Days fs.FS
}

// NewCalendar returns the calendar that o describes. A mistake in days.csv is
// a CodeInvalid error that names the line.
func NewCalendar(o CalendarOptions) (*Calendar, error) {
	c := &Calendar{zone: o.Zone, hours: slices.Clone(o.Hours), days: map[string]bool{}}
	if c.zone == nil {
		c.zone = shanghai()
	}
	if c.hours == nil {
		c.hours = []Hours{{8 * time.Hour, 12 * time.Hour}, {14 * time.Hour, 18 * time.Hour}}
	}
	if len(c.hours) == 0 {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "a calendar needs working hours")
	}
	end := time.Duration(0)
	for _, h := range c.hours {
		if h.From < end || h.To <= h.From || h.To > 24*time.Hour {
			return nil, citywarden.Errorf(citywarden.CodeInvalid,
				"working hours %v to %v: they are within one day, in order and do not overlap", h.From, h.To)
		}
		end = h.To
	}
	if o.Days == nil {
		sub, err := fs.Sub(data, "data")
		if err != nil {
			return nil, err
		}
		o.Days = sub
	}
	return c, readCSV(o.Days, "days.csv", []string{"date", "kind", "name"}, func(row map[string]string) error {
		return c.addDays(row["date"], row["kind"])
	})
}

// shanghai is UTC+8 without summer time, also on a machine without a time zone
// database; before 1992 the two differ.
func shanghai() *time.Location {
	if z, err := time.LoadLocation("Asia/Shanghai"); err == nil {
		return z
	}
	return time.FixedZone("Asia/Shanghai", 8*60*60)
}

func (c *Calendar) addDays(dates, kind string) error {
	if kind != "holiday" && kind != "workday" {
		return fmt.Errorf("unknown kind %q; it is holiday or workday", kind)
	}
	first, last, isRange := strings.Cut(dates, "/")
	if !isRange {
		last = first
	}
	from, err1 := time.Parse(time.DateOnly, first)
	to, err2 := time.Parse(time.DateOnly, last)
	if err1 != nil || err2 != nil || to.Before(from) || to.Sub(from) > 366*24*time.Hour {
		return fmt.Errorf("bad date %q; write 2026-10-01, or 2026-10-01/2026-10-07", dates)
	}
	for d := from; !d.After(to); d = d.AddDate(0, 0, 1) {
		key := d.Format(time.DateOnly)
		if old, ok := c.days[key]; ok && old != (kind == "workday") {
			return fmt.Errorf("%s is a holiday and a workday", key)
		}
		c.days[key] = kind == "workday"
	}
	return nil
}

// Zone returns the time zone the calendar counts in.
func (c *Calendar) Zone() *time.Location { return c.zone }

// Workday reports whether the day of t, in the calendar's zone, is worked.
func (c *Calendar) Workday(t time.Time) bool {
	t = t.In(c.zone)
	if worked, ok := c.days[t.Format(time.DateOnly)]; ok {
		return worked
	}
	return t.Weekday() != time.Saturday && t.Weekday() != time.Sunday
}

// Holiday reports whether the day of t, in the calendar's zone, is a holiday by
// law; an ordinary weekend is none.
func (c *Calendar) Holiday(t time.Time) bool {
	worked, ok := c.days[t.In(c.zone).Format(time.DateOnly)]
	return ok && !worked
}

// Unit is what a handling limit is counted in.
type Unit string

// The units.
const (
	UrgentHours Unit = "urgent_hour" // 紧急工作时: the clock runs at night, on weekends and holidays
	WorkHours   Unit = "work_hour"   // 小时, 工作时: working time only
	WorkDays    Unit = "work_day"    // 天, 工作日: days of working time
	NaturalDays Unit = "natural_day" // 紧急工作日, 自然日: all days count
)

// Limit is a handling limit (处置时限); the zero Limit is none.
type Limit struct {
	N    int
	Unit Unit
}

// limitUnits is ordered so that no suffix hides a longer one.
func limitUnits() []struct {
	suffix string
	unit   Unit
} {
	return []struct {
		suffix string
		unit   Unit
	}{
		{"紧急工作时", UrgentHours}, {"紧急工作日", NaturalDays}, {"自然日", NaturalDays},
		{"工作时", WorkHours}, {"小时", WorkHours}, {"工作日", WorkDays}, {"天", WorkDays},
	}
}

// ParseLimit reads a limit in the words of the class tables: 2紧急工作时, 4小时,
// 4工作时, 1天, 3工作日, 2紧急工作日, 5自然日. "" is the zero Limit.
func ParseLimit(s string) (Limit, error) {
	if s == "" {
		return Limit{}, nil
	}
	for _, u := range limitUnits() {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		if n, err := strconv.Atoi(digits); err == nil && n > 0 && n <= 9999 {
			return Limit{n, u.unit}, nil
		}
		break
	}
	return Limit{}, citywarden.Errorf(citywarden.CodeInvalid,
		"handling limit %q: write a number and 紧急工作时, 小时, 工作时, 天, 工作日, 紧急工作日 or 自然日", s)
}

// Deadline returns when a limit that begins at start is used up, in UTC; the
// zero time for the zero Limit.
//
// A work day is one day's worth of working time (8 h with the usual hours), so
// that 1天 from Tuesday 10:00 ends on Wednesday 10:00, and from Friday 19:00 on
// Monday 18:00. A natural day ends at the same time of the next day. When time
// is used up exactly as a stretch of work ends, the deadline is that end, not
// the beginning of the next stretch.
func (c *Calendar) Deadline(start time.Time, l Limit) time.Time {
	switch l.Unit {
	case UrgentHours:
		return start.Add(time.Duration(l.N) * time.Hour).UTC()
	case NaturalDays:
		return start.In(c.zone).AddDate(0, 0, l.N).UTC()
	case WorkHours, WorkDays:
		return c.addWork(start, c.work(l))
	}
	return time.Time{}
}

// Yellow returns when 80 % of a limit that begins at start are used, in UTC; the
// zero time for the zero Limit. Of a limit in working time, lunch, nights and
// weekends use nothing.
func (c *Calendar) Yellow(start time.Time, l Limit) time.Time {
	switch l.Unit {
	case UrgentHours, NaturalDays:
		return start.Add(c.Deadline(start, l).Sub(start) / 5 * 4).UTC()
	case WorkHours, WorkDays:
		return c.addWork(start, c.work(l)/5*4)
	}
	return time.Time{}
}

// Extended returns the limits after n limits that ended at deadline got one more:
// 80 % of all, and the new end. n is small enough that these 80 % lie after deadline.
func (c *Calendar) Extended(deadline time.Time, l Limit, n int) (yellow, end time.Time) {
	if l.N == 0 {
		return time.Time{}, time.Time{}
	}
	end = c.Deadline(deadline, l)
	part := c.between(l.Unit, deadline, end) / 5 * time.Duration(4*(n+1)-5*n)
	return c.add(l.Unit, deadline, part), end
}

// Paused returns when a limit ends that would have ended at end, when its clock
// stood still from one time to another. One that had ended before stays as it is.
func (c *Calendar) Paused(u Unit, from, to, end time.Time) time.Time {
	if !end.After(from) {
		return end
	}
	return c.add(u, to, c.between(u, from, end))
}

// between returns how much of a limit in that unit passes from one time to a later one.
func (c *Calendar) between(u Unit, from, to time.Time) time.Duration {
	switch u {
	case UrgentHours:
		return to.Sub(from)
	case NaturalDays:
		return c.naive(to).Sub(c.naive(from))
	}
	var sum time.Duration
	y, m, d := from.In(c.zone).Date()
	for ; ; d++ {
		day := time.Date(y, m, d, 12, 0, 0, 0, c.zone)
		if wall(day, 0).After(to) {
			return sum
		}
		if !c.Workday(day) {
			continue
		}
		for _, h := range c.hours {
			begin, end := wall(day, h.From), wall(day, h.To)
			if begin.Before(from) {
				begin = from
			}
			if end.After(to) {
				end = to
			}
			sum += max(0, end.Sub(begin))
		}
	}
}

// add returns when d of a limit in that unit has passed since start; the inverse
// of between.
func (c *Calendar) add(u Unit, start time.Time, d time.Duration) time.Time {
	switch u {
	case UrgentHours:
		return start.Add(d).UTC()
	case NaturalDays:
		t := c.naive(start).Add(d)
		return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), c.zone).UTC()
	}
	return c.addWork(start, d)
}

// naive returns what the clocks of the zone show at t, as if they were never changed.
func (c *Calendar) naive(t time.Time) time.Time {
	t = t.In(c.zone)
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// work returns the working time of a limit in work hours or work days.
func (c *Calendar) work(l Limit) time.Duration {
	if l.Unit == WorkHours {
		return time.Duration(l.N) * time.Hour
	}
	var day time.Duration
	for _, h := range c.hours {
		day += h.To - h.From
	}
	return time.Duration(l.N) * day
}

func (c *Calendar) addWork(start time.Time, left time.Duration) time.Time {
	local := start.In(c.zone)
	y, m, d := local.Date()
	for ; ; d++ {
		day := time.Date(y, m, d, 12, 0, 0, 0, c.zone)
		if !c.Workday(day) {
			continue
		}
		for _, h := range c.hours {
			from, to := wall(day, h.From), wall(day, h.To)
			if from.Before(start) {
				from = start
			}
			if worked := to.Sub(from); worked >= left {
				return from.Add(left).UTC()
			} else if worked > 0 {
				left -= worked
			}
		}
	}
}

// wall returns the moment at which the clocks of day's zone show since.
func wall(day time.Time, since time.Duration) time.Time {
	y, m, d := day.Date()
	return time.Date(y, m, d, 0, 0, int(since/time.Second), 0, day.Location())
}

// readCSV calls row for each line of the file called name after the header,
// which must be want. Errors say file:line.
func readCSV(fsys fs.FS, name string, want []string, row func(map[string]string) error) error {
	f, err := fsys.Open(name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord = len(want)
	r.TrimLeadingSpace = true
	for first := true; ; first = false {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return citywarden.Errorf(citywarden.CodeInvalid, "%s: %w", path.Base(name), err)
		}
		line, _ := r.FieldPos(0)
		if first {
			fields[0] = strings.TrimPrefix(fields[0], "\ufeff") // as Excel writes it
			if !slices.Equal(fields, want) {
				return citywarden.Errorf(citywarden.CodeInvalid, "%s:1: the first line is %q, not %q",
					path.Base(name), strings.Join(want, ","), strings.Join(fields, ","))
			}
			continue
		}
		m := make(map[string]string, len(want))
		for i, k := range want {
			m[k] = strings.TrimSpace(fields[i])
		}
		if err := row(m); err != nil {
			return citywarden.Errorf(citywarden.CodeInvalid, "%s:%d: %w", path.Base(name), line, err)
		}
	}
}
