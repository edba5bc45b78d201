package cases_test

import (
	"testing"
	"testing/fstest"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
)

func TestDeadline(t *testing.T) {
	china, err := cases.NewCalendar(cases.CalendarOptions{})
	if err != nil {
		t.Fatal(err)
	}
	berlinZone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skipf("no time zone database: %v", err)
	}
	berlin, err := cases.NewCalendar(cases.CalendarOptions{
		Zone:  berlinZone,
		Hours: []cases.Hours{{From: 9 * time.Hour, To: 17 * time.Hour}},
		Days:  fstest.MapFS{"days.csv": {Data: []byte("date,kind,name\n2026-04-03/2026-04-06,holiday,Easter\n")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		calendar *cases.Calendar
		start    string // local time of the calendar
		limit    string
		want     string
	}{
		// Urgent hours run at all times.
		{"urgent at night", china, "2026-11-20 23:30", "2紧急工作时", "2026-11-21 01:30"},
		{"urgent in the holidays", china, "2026-10-03 03:00", "1紧急工作时", "2026-10-03 04:00"},
		// Work hours.
		{"before work", china, "2026-11-23 06:00", "2小时", "2026-11-23 10:00"},
		{"within the morning", china, "2026-11-23 08:30", "2小时", "2026-11-23 10:30"},
		{"over lunch", china, "2026-11-23 11:00", "2小时", "2026-11-23 15:00"},
		{"begun at lunch", china, "2026-11-23 13:10", "2小时", "2026-11-23 16:00"},
		{"used up as the morning ends", china, "2026-11-23 10:00", "2小时", "2026-11-23 12:00"},
		{"over night", china, "2026-11-23 17:00", "4小时", "2026-11-24 11:00"},
		{"over a weekend", china, "2026-11-20 17:00", "2工作时", "2026-11-23 09:00"},
		{"begun on Sunday", china, "2026-11-22 10:00", "4工作时", "2026-11-23 12:00"},
		{"exactly when work ends", china, "2026-11-20 18:00", "1小时", "2026-11-23 09:00"},
		// Holidays and days worked instead.
		{"over the National Day week", china, "2026-09-30 17:00", "2小时", "2026-10-08 09:00"},
		{"a Saturday that is worked", china, "2026-10-10 08:00", "4小时", "2026-10-10 12:00"},
		{"a Sunday that is worked", china, "2026-09-19 12:00", "8小时", "2026-09-20 18:00"},
		{"the Spring Festival with worked Saturdays around it", china, "2026-02-14 16:00", "3天", "2026-02-26 16:00"},
		{"worked Saturday after the Spring Festival", china, "2026-02-27 10:00", "1天", "2026-02-28 10:00"},
		// Work days.
		{"to the same time of the next day", china, "2026-11-24 10:00", "1天", "2026-11-25 10:00"},
		{"five days are a week", china, "2026-11-24 15:20", "5工作日", "2026-12-01 15:20"},
		{"begun in the evening", china, "2026-11-20 19:00", "1天", "2026-11-23 18:00"},
		{"begun at lunch, one day", china, "2026-11-24 12:30", "1天", "2026-11-25 12:00"},
		// Natural days.
		{"urgent days", china, "2026-10-01 09:15", "2紧急工作日", "2026-10-03 09:15"},
		{"natural days", china, "2026-12-30 09:15", "5自然日", "2027-01-04 09:15"},
		// Another zone, other hours, and clocks that change.
		{"Berlin over Easter", berlin, "2026-04-02 16:00", "2小时", "2026-04-07 10:00"},
		{"Berlin, Monday after the clocks went forward", berlin, "2026-03-27 16:00", "1天", "2026-03-30 16:00"},
		{"Berlin, natural day of 23 hours", berlin, "2026-03-28 12:00", "1自然日", "2026-03-29 12:00"},
		{"Berlin, urgent hours are real hours", berlin, "2026-03-29 01:30", "1紧急工作时", "2026-03-29 03:30"},
		{"Berlin knows no Chinese holiday", berlin, "2026-10-01 09:00", "2小时", "2026-10-01 11:00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			parse := func(s string) time.Time {
				at, err := time.ParseInLocation("2006-01-02 15:04", s, tt.calendar.Zone())
				if err != nil {
					t.Fatal(err)
				}
				return at
			}
			l, err := cases.ParseLimit(tt.limit)
			if err != nil {
				t.Fatal(err)
			}
			got := tt.calendar.Deadline(parse(tt.start).UTC(), l)
			if want := parse(tt.want); !got.Equal(want) {
				t.Errorf("Deadline(%s, %s) = %s, want %s", tt.start, tt.limit, got.In(tt.calendar.Zone()).Format("2006-01-02 15:04"), tt.want)
			}
		})
	}
}

// However a limit is cut in pieces, the pieces end where the whole does.
func TestDeadlineAddsUp(t *testing.T) {
	c, err := cases.NewCalendar(cases.CalendarOptions{})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 9, 15, 0, 0, 0, 0, time.UTC)
	for i := range 2000 {
		from := start.Add(time.Duration(i) * 37 * time.Minute)
		whole := c.Deadline(from, cases.Limit{N: 20, Unit: cases.WorkHours})
		parts := from
		for range 20 {
			parts = c.Deadline(parts, cases.Limit{N: 1, Unit: cases.WorkHours})
		}
		if !whole.Equal(parts) {
			t.Fatalf("20 hours from %v end at %v, 20 times one hour at %v", from, whole, parts)
		}
		if days := c.Deadline(from, cases.Limit{N: 2, Unit: cases.WorkDays}); !days.Equal(c.Deadline(from, cases.Limit{N: 16, Unit: cases.WorkHours})) {
			t.Fatalf("2 work days from %v are not 16 work hours", from)
		}
	}
}

// 80 % of a limit in working time is 80 % of the work, not of the clock.
func TestYellow(t *testing.T) {
	c, err := cases.NewCalendar(cases.CalendarOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, start, limit, want string }{
		{"urgent", "2026-11-20 23:30", "2紧急工作时", "2026-11-21 01:06"},
		{"over lunch", "2026-11-23 11:00", "2小时", "2026-11-23 14:36"},
		{"over a weekend", "2026-11-20 17:00", "2工作时", "2026-11-23 08:36"},
		{"work days", "2026-11-20 08:00", "5天", "2026-11-25 18:00"},
		{"natural days", "2026-11-20 08:00", "5自然日", "2026-11-24 08:00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := cases.ParseLimit(tt.limit)
			if err != nil {
				t.Fatal(err)
			}
			start, err := time.ParseInLocation("2006-01-02 15:04", tt.start, c.Zone())
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Yellow(start, l).In(c.Zone()).Format("2006-01-02 15:04"); got != tt.want {
				t.Errorf("Yellow(%s, %s) = %s, want %s", tt.start, tt.limit, got, tt.want)
			}
		})
	}
	if got := c.Yellow(time.Now(), cases.Limit{}); !got.IsZero() {
		t.Errorf("Yellow of no limit = %v", got)
	}
}

func TestParseLimit(t *testing.T) {
	for s, want := range map[string]cases.Limit{
		"": {}, "1紧急工作时": {1, cases.UrgentHours}, "2紧急工作日": {2, cases.NaturalDays}, "4小时": {4, cases.WorkHours},
		"4工作时": {4, cases.WorkHours}, "15工作日": {15, cases.WorkDays}, "1天": {1, cases.WorkDays}, "3自然日": {3, cases.NaturalDays},
	} {
		if got, err := cases.ParseLimit(s); err != nil || got != want {
			t.Errorf("ParseLimit(%q) = %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"天", "0天", "-1天", "10000天", "2h", "二天", "2.5小时"} {
		if _, err := cases.ParseLimit(s); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("ParseLimit(%q) = %v, want an invalid error", s, err)
		}
	}
}

func TestCalendarMistakesNameTheLine(t *testing.T) {
	for in, want := range map[string]string{
		"date,kind,name\n2026-13-01,holiday,x\n":                        `days.csv:2: bad date "2026-13-01"; write 2026-10-01, or 2026-10-01/2026-10-07`,
		"date,kind,name\n2026-01-01,holiday,x\n2026-01-01,workday,y\n":  `days.csv:3: 2026-01-01 is a holiday and a workday`,
		"date,kind,name\n2026-01-01,feast,x\n":                          `days.csv:2: unknown kind "feast"; it is holiday or workday`,
		"day,kind,name\n":                                               `days.csv:1: the first line is "date,kind,name", not "day,kind,name"`,
		"date,kind,name\n2026-01-05/2026-01-01,holiday,the wrong way\n": `days.csv:2: bad date "2026-01-05/2026-01-01"; write 2026-10-01, or 2026-10-01/2026-10-07`,
	} {
		_, err := cases.NewCalendar(cases.CalendarOptions{Days: fstest.MapFS{"days.csv": {Data: []byte(in)}}})
		if err == nil || err.Error() != want {
			t.Errorf("days %q: got %v, want %s", in, err, want)
		}
	}
	if _, err := cases.NewCalendar(cases.CalendarOptions{Hours: []cases.Hours{{From: 9 * time.Hour, To: 8 * time.Hour}}}); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("hours that end before they begin: %v, want an invalid error", err)
	}
}

func TestClasses(t *testing.T) {
	c, err := cases.LoadClasses("", fstest.MapFS{"classes.csv": {Data: []byte(
		"code,name_zh,name_en,filing_condition,closing_condition,limit,department\n" +
			"event/0501,供水管道破裂,water main burst,漏水,止水,2紧急工作时,漳浦自来水公司\n")}})
	if err != nil {
		t.Fatal(err)
	}
	for code, want := range map[citywarden.ClassCode]string{
		"event/0501":     "2紧急工作时", // the city's own row
		"event/0496":     "2小时",
		"event/0595":     "2紧急工作时",
		"component/0101": "2紧急工作时",
		"component/0137": "2天",
	} {
		if k, ok := c.Class(code); !ok || k.Limit != want || k.Name.ZH == "" || k.Name.EN == "" || k.Department == "" {
			t.Errorf("class %s = %+v, %v; want the limit %s", code, k, ok, want)
		}
	}
	if all := c.All(); len(all) < 190 || all[0].Code != "component/0101" {
		t.Errorf("there are %d classes, the first %s", len(all), all[0].Code)
	}
	_, err = cases.LoadClasses("", fstest.MapFS{"classes.csv": {Data: []byte(
		"code,name_zh,name_en,filing_condition,closing_condition,limit,department\nevent/0501,a,b,,,2 hours,x\n")}})
	if citywarden.CodeOf(err) != citywarden.CodeInvalid || err == nil || err.Error()[:14] != "classes.csv:2:" {
		t.Errorf("a bad limit: %v, want classes.csv:2: …", err)
	}
}

// calendars are the two of the tables below.
func calendars(t *testing.T) (china, berlin *cases.Calendar) {
	t.Helper()
	china, err := cases.NewCalendar(cases.CalendarOptions{})
	if err != nil {
		t.Fatal(err)
	}
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skipf("no time zone database: %v", err)
	}
	berlin, err = cases.NewCalendar(cases.CalendarOptions{Zone: zone, Hours: []cases.Hours{{From: 9 * time.Hour, To: 17 * time.Hour}}, Days: fstest.MapFS{"days.csv": {Data: []byte("date,kind,name\n")}}})
	if err != nil {
		t.Fatal(err)
	}
	return china, berlin
}

func TestASuspensionStopsTheClock(t *testing.T) {
	china, berlin := calendars(t)
	for _, tt := range []struct {
		name              string
		calendar          *cases.Calendar
		start, limit      string
		from, until, want string
	}{
		{"hours of work", china, "2026-11-23 08:00", "4小时", "2026-11-23 09:00", "2026-11-25 10:00", "2026-11-25 15:00"},
		{"hours on the clock", china, "2026-11-23 23:00", "2紧急工作时", "2026-11-23 23:30", "2026-11-24 08:00", "2026-11-24 09:30"},
		{"over the National Day week", china, "2026-09-30 16:00", "4小时", "2026-09-30 17:00", "2026-10-09 09:00", "2026-10-09 12:00"},
		{"until a Sunday", china, "2026-11-20 10:00", "1天", "2026-11-20 16:00", "2026-11-22 09:00", "2026-11-23 12:00"},
		{"until a Saturday that is worked", china, "2026-10-09 10:00", "1天", "2026-10-09 16:00", "2026-10-10 08:00", "2026-10-10 12:00"},
		{"at lunch, which costs nothing", china, "2026-11-23 08:00", "1天", "2026-11-23 12:30", "2026-11-23 13:30", "2026-11-23 18:00"},
		{"natural days", china, "2026-12-30 09:00", "2自然日", "2026-12-31 09:00", "2027-01-10 12:00", "2027-01-11 12:00"},
		{"that began when the limit had passed", china, "2026-11-23 08:00", "1小时", "2026-11-23 10:00", "2026-11-25 10:00", "2026-11-23 09:00"},
		{"when the clocks go forward", berlin, "2026-03-28 12:00", "1自然日", "2026-03-28 18:00", "2026-03-28 20:00", "2026-03-29 14:00"},
		{"real hours when the clocks go back", berlin, "2026-10-24 20:00", "10紧急工作时", "2026-10-24 21:00", "2026-10-24 22:00", "2026-10-25 06:00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := in(t, tt.calendar)
			l, err := cases.ParseLimit(tt.limit)
			if err != nil {
				t.Fatal(err)
			}
			got := tt.calendar.Paused(l.Unit, at(tt.from), at(tt.until), tt.calendar.Deadline(at(tt.start), l))
			if !got.Equal(at(tt.want)) {
				t.Errorf("%s from %s, suspended from %s until %s, ends %s, want %s", tt.limit, tt.start, tt.from, tt.until, got.In(tt.calendar.Zone()), tt.want)
			}
		})
	}
}

func TestAnExtensionAddsTheLimitOnceMore(t *testing.T) {
	china, berlin := calendars(t)
	for _, tt := range []struct {
		name         string
		calendar     *cases.Calendar
		start, limit string
		n            int // limits so far
		yellow, want string
	}{
		{"hours of work", china, "2026-11-23 08:00", "4小时", 1, "2026-11-23 16:24", "2026-11-23 18:00"},
		{"a second time", china, "2026-11-23 08:00", "4小时", 2, "2026-11-24 09:36", "2026-11-24 12:00"},
		{"days over a weekend", china, "2026-11-19 10:00", "1天", 1, "2026-11-20 16:48", "2026-11-23 10:00"},
		{"hours on the clock", china, "2026-11-20 23:00", "2紧急工作时", 1, "2026-11-21 02:12", "2026-11-21 03:00"},
		{"when the clocks go forward", berlin, "2026-03-28 12:00", "1自然日", 1, "2026-03-30 02:24", "2026-03-30 12:00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := in(t, tt.calendar)
			l, err := cases.ParseLimit(tt.limit)
			if err != nil {
				t.Fatal(err)
			}
			deadline := tt.calendar.Deadline(at(tt.start), l)
			for range tt.n - 1 {
				deadline = tt.calendar.Deadline(deadline, l)
			}
			yellow, end := tt.calendar.Extended(deadline, l, tt.n)
			if !yellow.Equal(at(tt.yellow)) || !end.Equal(at(tt.want)) {
				t.Errorf("yellow at %s, ends %s; want %s and %s", yellow.In(tt.calendar.Zone()), end.In(tt.calendar.Zone()), tt.yellow, tt.want)
			}
		})
	}
}

// in reads local times of a calendar.
func in(t *testing.T, c *cases.Calendar) func(string) time.Time {
	return func(s string) time.Time {
		t.Helper()
		at, err := time.ParseInLocation("2006-01-02 15:04", s, c.Zone())
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
}
