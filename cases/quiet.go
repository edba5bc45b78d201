package cases

import (
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// Quiet are the hours of each day in which a receiver is told only what can't
// wait. The zero value is none.
type Quiet struct {
	from, to time.Duration // after midnight; to may lie on the next day, before from
	zone     *time.Location
}

// ParseQuiet reads hours like "22:00-07:00" in zone; "" is none.
func ParseQuiet(s string, zone *time.Location) (Quiet, error) {
	if s == "" {
		return Quiet{}, nil
	}
	from, to, _ := strings.Cut(s, "-")
	a, err := time.Parse("15:04", strings.TrimSpace(from))
	b, berr := time.Parse("15:04", strings.TrimSpace(to))
	if err != nil || berr != nil || a.Equal(b) {
		return Quiet{}, citywarden.Errorf(citywarden.CodeInvalid, "quiet hours %q: write them like 22:00-07:00", s)
	}
	midnight := func(t time.Time) time.Duration {
		return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	}
	return Quiet{midnight(a), midnight(b), zone}, nil
}

// String returns q as ParseQuiet reads it.
func (q Quiet) String() string {
	if q.zone == nil {
		return ""
	}
	clock := func(d time.Duration) string { return time.Time{}.Add(d).Format("15:04") }
	return clock(q.from) + "-" + clock(q.to)
}

// End returns when the quiet hours that t lies in end; t itself outside of them.
func (q Quiet) End(t time.Time) time.Time {
	if q.zone == nil {
		return t
	}
	local := t.In(q.zone)
	year, month, day := local.Date()
	on := func(days int, at time.Duration) time.Time {
		return time.Date(year, month, day+days, int(at.Hours()), int(at.Minutes())%60, 0, 0, q.zone)
	}
	for _, d := range []int{-1, 0} { // they may have begun yesterday
		from, to := on(d, q.from), on(d, q.to)
		if q.to < q.from {
			to = on(d+1, q.to)
		}
		if !local.Before(from) && local.Before(to) {
			return to.UTC()
		}
	}
	return t
}
