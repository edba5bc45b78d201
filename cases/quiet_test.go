package cases

import (
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

func TestQuiet(t *testing.T) {
	zone := func(name string) *time.Location {
		z, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	for _, c := range []struct{ zone, hours, at, want string }{
		{"Asia/Shanghai", "22:00-07:00", "2026-11-23T21:59:59", "2026-11-23T21:59:59"},
		{"Asia/Shanghai", "22:00-07:00", "2026-11-23T22:00:00", "2026-11-24T07:00:00"},
		{"Asia/Shanghai", "22:00-07:00", "2026-11-24T06:59:59", "2026-11-24T07:00:00"},
		{"Asia/Shanghai", "22:00-07:00", "2026-11-24T07:00:00", "2026-11-24T07:00:00"},
		{"Asia/Shanghai", "12:30-14:00", "2026-11-24T13:00:00", "2026-11-24T14:00:00"},
		{"Asia/Shanghai", "12:30-14:00", "2026-11-24T12:29:00", "2026-11-24T12:29:00"},
		{"Asia/Shanghai", "00:00-07:00", "2026-12-31T23:59:00", "2026-12-31T23:59:00"},
		{"Asia/Shanghai", "22:00-00:00", "2026-12-31T23:59:00", "2027-01-01T00:00:00"},
		{"Asia/Shanghai", "", "2026-11-24T02:00:00", "2026-11-24T02:00:00"},
		{"Europe/Berlin", "22:00-07:00", "2026-03-28T23:00:00", "2026-03-29T07:00:00"}, // an hour shorter
		{"Europe/Berlin", "22:00-07:00", "2026-10-24T23:00:00", "2026-10-25T07:00:00"}, // an hour longer
	} {
		z := zone(c.zone)
		q, err := ParseQuiet(c.hours, z)
		if err != nil {
			t.Fatal(err)
		}
		if q.String() != c.hours {
			t.Errorf("%s is written as %s", c.hours, q)
		}
		at, err := time.ParseInLocation("2006-01-02T15:04:05", c.at, z)
		if err != nil {
			t.Fatal(err)
		}
		if got := q.End(at.UTC()).In(z).Format("2006-01-02T15:04:05"); got != c.want {
			t.Errorf("%s %s at %s: %s, want %s", c.zone, c.hours, c.at, got, c.want)
		}
	}
	for _, bad := range []string{"22", "22:00", "22:00-", "22:00-25:00", "7-9", "07:00-07:00", "night"} {
		if _, err := ParseQuiet(bad, time.UTC); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("ParseQuiet(%q): %v", bad, err)
		}
	}
}
