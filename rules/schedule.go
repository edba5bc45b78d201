package rules

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // time zones of schedules, on machines without their own
)

// DefaultZone is the time zone of hour, weekday and of schedules without tz.
const DefaultZone = "Asia/Shanghai"

// zone computes local clock readings, and remembers the last.
type zone struct {
	loc      *time.Location
	from, to int64 // ms: hour and weekday hold in [from, to)
	local    clockReading
}

type clockReading struct {
	hour    int
	weekday int // 1 is Monday, 7 is Sunday
}

func (z *zone) at(ms int64) clockReading {
	if ms >= z.from && ms < z.to {
		return z.local
	}
	t := time.UnixMilli(ms).In(z.loc)
	z.local = clockReading{t.Hour(), isoDay(t)}
	// No zone's offset changes inside a quarter of an hour.
	z.from = ms - ms%(15*60*1000)
	z.to = z.from + 15*60*1000
	return z.local
}

func isoDay(t time.Time) int { return (int(t.Weekday())+6)%7 + 1 }

// interval is a daily time of a schedule; one that ends before it begins goes
// on after midnight and belongs to the day it begins.
type interval struct {
	days     [8]bool // by isoDay
	from, to int     // minutes of the day; to may be 24*60
}

// schedule says when a rule is in force.
type schedule struct {
	loc       *time.Location
	intervals []interval
	holidays  string // "", "off" or "all-day"

	// the segment that the last answer holds in
	begin, end int64
	in         bool
}

var dayNames = []string{"", "mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// parseInterval reads "mon-fri 22:00-06:00", "sat,sun 00:00-24:00" or
// "08:00-18:00" for every day.
func parseInterval(s string) (interval, error) {
	var iv interval
	parts := strings.Fields(strings.ToLower(s))
	days, hours := "mon-sun", ""
	switch len(parts) {
	case 1:
		hours = parts[0]
	case 2:
		days, hours = parts[0], parts[1]
	default:
		return iv, fmt.Errorf("bad interval %q; write it like %q", s, "mon-fri 22:00-06:00")
	}
	for _, d := range strings.Split(days, ",") {
		first, last, isRange := strings.Cut(d, "-")
		if !isRange {
			last = first
		}
		a, b := dayIndex(first), dayIndex(last)
		if a == 0 || b == 0 {
			return iv, fmt.Errorf("bad day in %q; the days are mon, tue, wed, thu, fri, sat, sun", s)
		}
		for i := a; ; i = i%7 + 1 {
			iv.days[i] = true
			if i == b {
				break
			}
		}
	}
	from, to, ok := strings.Cut(hours, "-")
	var err1, err2 error
	iv.from, err1 = minuteOfDay(from)
	iv.to, err2 = minuteOfDay(to)
	if !ok || err1 != nil || err2 != nil || iv.from == 24*60 || iv.from == iv.to {
		return iv, fmt.Errorf("bad time in %q; write it like 22:00-06:00, from 00:00 to 24:00", s)
	}
	return iv, nil
}

func dayIndex(s string) int {
	for i, n := range dayNames {
		if i > 0 && n == s {
			return i
		}
	}
	return 0
}

func minuteOfDay(s string) (int, error) {
	var h, m int
	if len(s) != 5 || s[2] != ':' {
		return 0, fmt.Errorf("bad time %q", s)
	}
	if _, err := fmt.Sscanf(s, "%2d:%2d", &h, &m); err != nil || h < 0 || m < 0 || m > 59 || h > 24 || h == 24 && m > 0 {
		return 0, fmt.Errorf("bad time %q", s)
	}
	return h*60 + m, nil
}

// active reports whether the rule is in force at ms, and until when that holds.
func (s *schedule) active(ms int64, holiday func(time.Time) bool) (in bool, until int64) {
	if s == nil {
		return true, 1<<63 - 1
	}
	if ms >= s.begin && ms < s.end {
		return s.in, s.end
	}
	t := time.UnixMilli(ms).In(s.loc)
	y, m, d := t.Date()
	type span struct{ a, b int64 }
	var spans []span
	lo := time.Date(y, m, d-2, 0, 0, 0, 0, s.loc).UnixMilli()
	hi := time.Date(y, m, d+9, 0, 0, 0, 0, s.loc).UnixMilli()
	for i := -2; i <= 9; i++ {
		day := time.Date(y, m, d+i, 12, 0, 0, 0, s.loc)
		free := s.holidays != "" && holiday != nil && holiday(day)
		at := func(minute int) int64 { return time.Date(y, m, d+i, 0, minute, 0, 0, s.loc).UnixMilli() }
		if free && s.holidays == "all-day" {
			spans = append(spans, span{at(0), at(24 * 60)})
		}
		if free && s.holidays == "off" {
			continue
		}
		for _, iv := range s.intervals {
			if !iv.days[isoDay(day)] {
				continue
			}
			to := iv.to
			if to <= iv.from {
				to += 24 * 60
			}
			spans = append(spans, span{at(iv.from), at(to)})
		}
	}
	begin, end := lo, hi
	for changed := true; changed; { // join spans that overlap or touch
		changed = false
		for _, sp := range spans {
			switch {
			case sp.a <= ms && ms < sp.b && !in:
				in, begin, end, changed = true, sp.a, sp.b, true
			case in && sp.a <= end && sp.b > end:
				end, changed = sp.b, true
			}
		}
	}
	if !in {
		for _, sp := range spans {
			if sp.a > ms {
				end = min(end, sp.a)
			} else {
				begin = max(begin, sp.b)
			}
		}
	}
	s.begin, s.end, s.in = max(begin, lo), end, in
	return in, end
}
