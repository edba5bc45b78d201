package main

import (
	"testing"
	"time"
	_ "time/tzdata"
)

func TestMoment(t *testing.T) {
	for _, c := range []struct{ said, zone, want string }{
		{"2026-11-23T08:00:00Z", "Asia/Shanghai", "2026-11-23T08:00:00Z"},
		{"2026-11-23T08:00:00.25-05:00", "Asia/Shanghai", "2026-11-23T08:00:00.25-05:00"},
		{"2026-11-23 08:00:00+08:00", "UTC", "2026-11-23T08:00:00+08:00"}, // as it is printed
		{"2026-11-23T08:00+08:00", "UTC", "2026-11-23T08:00:00+08:00"},
		{"2026-11-23T08:00:30", "Asia/Shanghai", "2026-11-23T08:00:30+08:00"},
		{"2026-11-23 08:00", "Asia/Shanghai", "2026-11-23T08:00:00+08:00"},
		{"2026-11-23", "Asia/Shanghai", "2026-11-23T00:00:00+08:00"},
		{"2026-07-01", "Europe/Berlin", "2026-07-01T00:00:00+02:00"},
		{"2026-03-29T02:30", "Europe/Berlin", "there is no 2026-03-29T02:30 in Europe/Berlin: clocks are put forward then"},
		{"2026-11-23T8:00", "Asia/Shanghai", "2026-11-23T08:00:00+08:00"},
		{"2026-11-23T08:00:00.25", "Asia/Shanghai", "2026-11-23T08:00:00.25+08:00"},
		{"2026-11-23T08:00:00,500", "Asia/Shanghai", "2026-11-23T08:00:00.5+08:00"},
		{"2026-03-29T2:30:00.5", "Europe/Berlin", "there is no 2026-03-29T2:30:00.5 in Europe/Berlin: clocks are put forward then"},
		{"2018-11-04", "America/Sao_Paulo", "2018-11-04T01:00:00-02:00"}, // which has no midnight
		{"2018-11-04T00:30", "America/Sao_Paulo", "there is no 2018-11-04T00:30 in America/Sao_Paulo: clocks are put forward then"},
		{"2018-02-18", "America/Sao_Paulo", "2018-02-18T00:00:00-03:00"}, // the day after that on which 23:00 comes twice
		{"2022-09-11", "America/Santiago", "2022-09-11T01:00:00-03:00"},
		{"2020-11-01", "America/Havana", "2020-11-01T00:00:00-04:00"}, // whose midnight comes twice
		{"2011-12-30", "Pacific/Apia", "there is no 2011-12-30 in Pacific/Apia: the calendar leaves it out"},
		{"2026-13-01", "UTC", `"2026-13-01" is no time like 2026-11-23T08:00 (the county's) or 2026-11-23T08:00:00+08:00`},
		{"08:00", "UTC", `"08:00" is no time like 2026-11-23T08:00 (the county's) or 2026-11-23T08:00:00+08:00`},
		{"", "UTC", `"" is no time like 2026-11-23T08:00 (the county's) or 2026-11-23T08:00:00+08:00`},
	} {
		zone, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		var m moment
		got := ""
		if err = m.UnmarshalText([]byte(c.said)); err == nil {
			var at time.Time
			at, err = m.in(zone)
			got = at.Format(time.RFC3339Nano)
		}
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q in %s is %s, want %s", c.said, c.zone, got, c.want)
		}
	}
}
