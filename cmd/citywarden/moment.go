package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// What the help says of the flags of these types.
const (
	momentHelp = "a time of the county like 2026-11-23T08:00, one with an offset like 2026-11-23T08:00:00+08:00, a day for its beginning"
	pastHelp   = momentHelp + ", or how long back, like 24h or 7d"
)

// moment is a time as it is written on the command line. Without an offset it is
// one of the county's time zone, which the platform tells.
type moment struct {
	at   time.Time // zero when nothing was written
	wall string    // as it was written, when it has no offset and at is what the clock shows, in UTC
	day  bool      // no time of the day was written
}

// UnmarshalText reads RFC 3339, also with a space for the T and without seconds,
// the same without an offset, and a day.
func (m *moment) UnmarshalText(b []byte) error {
	s := strings.Replace(string(b), " ", "T", 1)
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if at, err := time.Parse(layout+"Z07:00", s); err == nil && layout != time.DateOnly {
			*m = moment{at: at}
			return nil
		}
		if at, err := time.Parse(layout, s); err == nil {
			*m = moment{at: at, wall: s, day: layout == time.DateOnly}
			return nil
		}
	}
	return fmt.Errorf("%q is no time like 2026-11-23T08:00 (the county's) or 2026-11-23T08:00:00+08:00", b)
}

// in returns the moment, with zone for one that has no offset.
func (m *moment) in(zone *time.Location) (time.Time, error) {
	if m.wall == "" {
		return m.at, nil
	}
	const clock = "2006-01-02T15:04:05.999999999"
	y, month, d := m.at.Date()
	at := time.Date(y, month, d, m.at.Hour(), m.at.Minute(), m.at.Second(), m.at.Nanosecond(), zone)
	if at.Format(clock) == m.at.Format(clock) {
		return at, nil
	}
	if !m.day {
		return at, fmt.Errorf("there is no %s in %s: clocks are put forward then", m.wall, zone)
	}
	before, after := at.ZoneBounds()
	for _, begin := range []time.Time{before, after} { // a day without midnight begins when clocks are put forward
		if !begin.IsZero() && begin.Format(time.DateOnly) == m.at.Format(time.DateOnly) {
			return begin, nil
		}
	}
	return at, fmt.Errorf("there is no %s in %s: the calendar leaves it out", m.wall, zone)
}

// past is a moment, or how long ago it was.
type past struct{ moment }

// UnmarshalText reads a moment, or a duration like 24h or 7d.
func (p *past) UnmarshalText(b []byte) error {
	if d, err := citywarden.ParseDuration(string(b)); err == nil && d >= 0 {
		p.moment = moment{at: time.Now().Add(-d.Std())}
		return nil
	}
	if p.moment.UnmarshalText(b) != nil {
		return fmt.Errorf("%q is neither a time like 2026-11-23T08:00 (the county's) or 2026-11-23T08:00:00+08:00, nor a duration like 24h or 7d", b)
	}
	return nil
}

// stamp prints a time for people: in the county's time zone, with the offset, so
// that it can be given back as a moment. No time is "-".
type stamp func(time.Time) string

func stampIn(zone *time.Location) stamp {
	return func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.In(zone).Format("2006-01-02 15:04:05Z07:00")
	}
}

// stamp returns the stamp of the county.
func (c *client) stamp(ctx context.Context) (stamp, error) {
	zone, err := c.zone(ctx)
	if err != nil {
		return nil, err
	}
	return stampIn(zone), nil
}

// zone returns the county's time zone, as the platform tells it.
func (c *client) zone(ctx context.Context) (*time.Location, error) {
	if c.county != nil {
		return c.county, nil
	}
	var info struct {
		TimeZone string `json:"time_zone"`
	}
	err := c.call(ctx, "GET", "/info", nil, &info)
	if err == nil {
		c.county, err = time.LoadLocation(info.TimeZone)
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the county's time zone: %w", err)
	}
	return c.county, nil
}

// moments puts the moments that were written into set, by the names of their flags, as RFC
// 3339.
func (c *client) moments(ctx context.Context, set func(name, value string), said map[string]moment) error {
	for name, m := range said {
		if m.at.IsZero() {
			continue
		}
		at := m.at
		if m.wall != "" {
			zone, err := c.zone(ctx)
			if err != nil {
				return err
			}
			if at, err = m.in(zone); err != nil {
				return &usageError{fmt.Sprintf("--%s: %v", name, err)}
			}
		}
		set(name, at.Format(time.RFC3339Nano))
	}
	return nil
}
