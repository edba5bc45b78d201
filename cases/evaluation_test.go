package cases_test

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
)

// deed is a step of a person, or how a case begins.
type deed struct {
	at     string // 11-02 08:00, in Shanghai
	action citywarden.Action
	by     string
	more   string // department, officer, or until when
}

// story is a case of the evaluation's test: how it is reported, at which place, and
// what people do.
type story struct {
	name   string
	source citywarden.Source
	town   int
	deeds  []deed // the first reports it
}

var posts = map[string]citywarden.Role{
	"xu": citywarden.RoleAcceptor, "lin": citywarden.RoleShiftLeader, "chen": citywarden.RoleDispatcher, "wu": citywarden.RoleDepartment,
	"qian": citywarden.RoleDepartment, "zhao": citywarden.RoleOfficer, "sun": citywarden.RoleOfficer, "huang": citywarden.RoleOfficer,
}

// november has a burst pipe in each story: one urgent hour for the handling and
// for each desk, two to check, 24 to verify.
var november = []story{
	{"all well", citywarden.SourceOfficer, 0, []deed{
		{"11-02 08:00", "", "zhao", ""}, {"11-02 08:30", citywarden.Register, "xu", ""}, {"11-02 09:00", citywarden.File, "lin", ""},
		{"11-02 09:10", citywarden.Dispatch, "chen", "water"}, {"11-02 09:20", citywarden.Handle, "wu", ""},
		{"11-02 09:30", citywarden.SendCheck, "xu", "sun"}, {"11-02 09:40", citywarden.Verify, "sun", ""}, {"11-02 09:50", citywarden.Close, "lin", ""},
	}},
	{"all late, done twice", citywarden.SourceHotline, 0, []deed{
		{"11-03 08:00", "", "xu", ""}, {"11-03 08:30", citywarden.SendVerify, "xu", "sun"}, {"11-04 09:30", citywarden.Exists, "sun", ""},
		{"11-04 12:00", citywarden.File, "lin", ""}, {"11-04 14:00", citywarden.Dispatch, "chen", "water"}, {"11-04 15:00", citywarden.Handle, "wu", ""},
		{"11-04 15:30", citywarden.SendCheck, "xu", "sun"}, {"11-04 15:40", citywarden.Rework, "sun", ""}, {"11-04 16:00", citywarden.Handle, "wu", ""},
		{"11-04 18:00", citywarden.SendCheck, "xu", "sun"}, {"11-04 18:10", citywarden.Verify, "sun", ""}, {"11-04 20:00", citywarden.Close, "lin", ""},
	}},
	{"went to another", citywarden.SourceSensor, 1, []deed{
		{"11-10 08:00", "", "", ""}, {"11-10 08:10", citywarden.File, "lin", ""}, {"11-10 08:20", citywarden.Dispatch, "chen", "roads"},
		{"11-10 08:30", citywarden.Redispatch, "chen", "water"}, {"11-10 08:50", citywarden.Handle, "wu", ""},
		{"11-10 09:00", citywarden.Verify, "huang", ""}, {"11-10 09:05", citywarden.Close, "lin", ""},
	}},
	{"voided", citywarden.SourceSensor, 1, []deed{
		{"11-11 08:00", "", "", ""}, {"11-11 08:10", citywarden.File, "lin", ""}, {"11-11 08:20", citywarden.Void, "lin", ""},
	}},
	{"rejected late", citywarden.SourceOfficer, 1, []deed{{"11-12 08:00", "", "zhao", ""}, {"11-12 10:00", citywarden.Reject, "xu", ""}}},
	{"over the beginning", citywarden.SourceOfficer, 0, []deed{
		{"10-31 23:30", "", "zhao", ""}, {"10-31 23:50", citywarden.Register, "xu", ""}, {"11-01 00:10", citywarden.File, "lin", ""},
		{"11-01 00:20", citywarden.Dispatch, "chen", "water"}, {"11-01 00:40", citywarden.Handle, "wu", ""},
		{"11-01 00:50", citywarden.SendCheck, "xu", "sun"}, {"11-01 00:55", citywarden.Verify, "sun", ""}, {"11-01 01:00", citywarden.Close, "lin", ""},
	}},
	{"overdue over the end", citywarden.SourceSensor, 0, []deed{
		{"11-30 22:00", "", "", ""}, {"11-30 22:10", citywarden.File, "lin", ""}, {"11-30 22:15", citywarden.Dispatch, "chen", "roads"},
		{"12-01 01:00", citywarden.Handle, "qian", ""}, {"12-01 01:10", citywarden.Verify, "huang", ""}, {"12-01 02:00", citywarden.Close, "lin", ""},
	}},
	{"suspended", citywarden.SourceSensor, 0, []deed{
		{"11-20 08:00", "", "", ""}, {"11-20 08:10", citywarden.File, "lin", ""}, {"11-20 08:20", citywarden.Dispatch, "chen", "roads"},
		{"11-20 08:30", citywarden.RequestSuspension, "qian", "2027-02-01"}, {"11-20 08:40", citywarden.ApproveSuspension, "chen", ""},
	}},
	{"got more time", citywarden.SourceHotline, 0, []deed{
		{"11-21 08:00", "", "xu", ""}, {"11-21 08:10", citywarden.File, "lin", ""}, {"11-21 08:20", citywarden.Dispatch, "chen", "water"},
		{"11-21 08:30", citywarden.RequestExtension, "wu", ""}, {"11-21 08:40", citywarden.ApproveExtension, "chen", ""},
		{"11-21 10:00", citywarden.Handle, "wu", ""}, {"11-21 10:05", citywarden.Verify, "huang", ""}, {"11-21 10:10", citywarden.Close, "lin", ""},
	}},
	{"late, and appealed", citywarden.SourceSensor, 1, []deed{
		{"11-22 08:00", "", "", ""}, {"11-22 08:10", citywarden.File, "lin", ""}, {"11-22 08:20", citywarden.Dispatch, "chen", "roads"},
		{"11-22 09:30", citywarden.Handle, "qian", ""}, {"11-22 09:40", citywarden.Verify, "huang", ""}, {"11-22 09:50", citywarden.Close, "lin", ""},
		{"11-22 10:00", citywarden.Appeal, "qian", ""}, {"11-22 10:10", citywarden.EndorseAppeal, "chen", ""}, {"11-22 10:20", citywarden.ApproveAppeal, "xu", ""},
	}},
	{"waits for a dispatch at the end", citywarden.SourceSensor, 1, []deed{
		{"11-30 23:50", "", "", ""}, {"11-30 23:55", citywarden.File, "lin", ""}, {"12-01 00:30", citywarden.Dispatch, "chen", "roads"},
	}},
	{"handled on the spot", citywarden.SourceOfficer, 0, []deed{
		{"11-23 08:00", "", "zhao", ""}, {"11-23 08:30", citywarden.SelfHandle, "zhao", ""}, {"11-23 08:40", citywarden.Verify, "xu", ""}, {"11-23 08:50", citywarden.Close, "lin", ""},
	}},
}

func onDay(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.ParseInLocation("2006-01-02 15:04", "2026-"+s, time.FixedZone("CST", 8*3600))
	if err != nil {
		t.Fatal(err)
	}
	return at.UTC()
}

// play lets all stories happen at their times, and returns the names of the cases.
func play(t *testing.T, d *cases.Desk, stories []story) map[citywarden.CaseID]string {
	t.Helper()
	type event struct {
		deed
		at    time.Time
		story int
		first bool
	}
	var all []event
	for i, s := range stories {
		for j, x := range s.deeds {
			all = append(all, event{x, onDay(t, x.at), i, j == 0})
		}
	}
	slices.SortStableFunc(all, func(a, b event) int { return a.at.Compare(b.at) })
	f, ids := &feed{}, make([]citywarden.CaseID, len(stories))
	for _, e := range all {
		time.Sleep(time.Until(e.at))
		s := stories[e.story]
		switch {
		case e.first && s.source == citywarden.SourceSensor:
			x := f.next(citywarden.Raised, "pipe.burst", fmt.Sprintf("d%d-%d", s.town, e.story), 1, citywarden.Major, burst(s.name))
			x.Logged = e.at
			apply(t, d, f, x)
			ids[e.story] = allCases(t, d, citywarden.CaseFilter{})[0].ID
		case e.first:
			c, err := d.Create(t.Context(), citywarden.NewCase{Class: "event/0501", Title: s.name, Location: townPoint(s.town), Source: s.source}, e.by, posts[e.by])
			if err != nil {
				t.Fatal(err)
			}
			ids[e.story] = c.ID
		default:
			step := citywarden.CaseStep{Action: e.action, By: e.by, Role: posts[e.by], Note: "so it is"}
			switch e.action {
			case citywarden.SendVerify, citywarden.SendCheck:
				step.Officer = e.more
			case citywarden.RequestSuspension:
				step.Until = time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC)
			default:
				step.Department = e.more
			}
			if _, err := d.Do(t.Context(), ids[e.story], step, 0); err != nil {
				t.Fatalf("%s, %s: %v", s.name, e.action, err)
			}
		}
	}
	names := map[citywarden.CaseID]string{}
	for i, id := range ids {
		names[id] = stories[i].name
	}
	return names
}

func townPoint(n int) *citywarden.Point {
	return &citywarden.Point{Lat: 24.1005, Lon: 117.6005 + float64(n)*0.001}
}

// towns are two towns of one unit grid each.
func towns(t *testing.T) *cases.Grids {
	t.Helper()
	g, err := cases.LoadGrids(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for n, code := range []citywarden.GridCode{"350623100001001", "350623101001001"} {
		west := 117.6 + float64(n)*0.001
		err := g.Add(t.Context(), []citywarden.UnitGrid{{Code: code, Town: []string{"绥安镇", "旧镇镇"}[n], Ring: []citywarden.Point{
			{Lat: 24.1, Lon: west}, {Lat: 24.1, Lon: west + 0.001}, {Lat: 24.101, Lon: west + 0.001}, {Lat: 24.101, Lon: west},
		}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// novemberDesk is where the stories of November happened; it is new year then.
func novemberDesk(t *testing.T, m *cases.Measures) (*cases.Desk, map[citywarden.CaseID]string) {
	t.Helper()
	time.Sleep(time.Until(onDay(t, "10-31 00:00")))
	d, db := openDesk(t, filepath.Join(t.TempDir(), "desk.db"), cases.Options{
		Grids: towns(t), Measures: m,
		Where:    func(id citywarden.DeviceID) (citywarden.Point, bool) { return *townPoint(int(id[1] - '0')), true },
		Officers: func(citywarden.GridCode) string { return "sun" },
	})
	if err := db.AddUser(t.Context(), citywarden.User{Name: "xu", Title: "受理员 许芳", Role: citywarden.RoleAcceptor}, ""); err != nil {
		t.Fatal(err)
	}
	names := play(t, d, november)
	time.Sleep(time.Until(onDay(t, "12-31 00:00")))
	return d, names
}

// figures prints the rows of an evaluation: each figure as numerator/denominator,
// the score and the grade.
func figures(e citywarden.Evaluation) string {
	var b strings.Builder
	rows := e.Rows
	if e.Total != nil {
		rows = append(slices.Clone(rows), *e.Total)
	}
	for _, r := range rows {
		fmt.Fprintf(&b, "%s:", cmp.Or(r.Key, "total"))
		for _, f := range r.Figures {
			switch {
			case f.Rate != nil:
				fmt.Fprintf(&b, " %s %d/%d", f.Indicator, f.Cases, f.Of)
			case slices.ContainsFunc(e.Indicators, func(i citywarden.Indicator) bool { return i.Code == f.Indicator && i.Denominator == nil }):
				fmt.Fprintf(&b, " %s %d", f.Indicator, f.Cases)
			default:
				fmt.Fprintf(&b, " %s none", f.Indicator)
			}
		}
		if r.Score != nil {
			fmt.Fprintf(&b, " = %.2f %s", *r.Score, r.Grade)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func evaluate(t testing.TB, d *cases.Desk, from, to string, q citywarden.EvaluationQuery) citywarden.Evaluation {
	t.Helper()
	q.From, q.To = onDay(t, from+" 00:00"), onDay(t, to+" 00:00")
	e, err := d.Evaluate(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// The figures are counted by hand, from the stories.
func TestEvaluation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := novemberDesk(t, nil)
		for _, tt := range []struct {
			name, from, to string
			q              citywarden.EvaluationQuery
			want           string
		}{
			{"departments", "11-01", "12-01", citywarden.EvaluationQuery{By: citywarden.ByDepartment}, `
roads: handled 1 handle_rate 1/2 handle_on_time_rate 1/2 overdue_rate 1/2 extension_rate 0/2 rework_rate 0/2 closed 1 close_rate 1/2 close_on_time_rate 1/2 = 60.00 C
water: handled 5 handle_rate 5/5 handle_on_time_rate 4/5 overdue_rate 0/5 extension_rate 1/5 rework_rate 1/5 closed 5 close_rate 5/5 close_on_time_rate 4/5 = 78.00 B
total: handled 6 handle_rate 6/7 handle_on_time_rate 5/7 overdue_rate 1/7 extension_rate 1/7 rework_rate 1/7 closed 6 close_rate 6/7 close_on_time_rate 5/7 = 72.86 C
`},
			// The one that was overdue over the end was handled, and closed, late; of
			// the one that waited the limit passed; the suspended one has time.
			{"departments in December", "12-01", "12-31", citywarden.EvaluationQuery{By: citywarden.ByDepartment}, `
roads: handled 1 handle_rate 1/2 handle_on_time_rate 0/2 overdue_rate 1/2 extension_rate 0/2 rework_rate 0/2 closed 1 close_rate 1/2 close_on_time_rate 0/2 = 45.00 D
total: handled 1 handle_rate 1/2 handle_on_time_rate 0/2 overdue_rate 1/2 extension_rate 0/2 rework_rate 0/2 closed 1 close_rate 1/2 close_on_time_rate 0/2 = 45.00 D
`},
			{"one department", "11-01", "12-01", citywarden.EvaluationQuery{By: citywarden.ByDepartment, Only: "roads"}, `
roads: handled 1 handle_rate 1/2 handle_on_time_rate 1/2 overdue_rate 1/2 extension_rate 0/2 rework_rate 0/2 closed 1 close_rate 1/2 close_on_time_rate 1/2 = 60.00 C
total: handled 1 handle_rate 1/2 handle_on_time_rate 1/2 overdue_rate 1/2 extension_rate 0/2 rework_rate 0/2 closed 1 close_rate 1/2 close_on_time_rate 1/2 = 60.00 C
`},
			// Citizens reported two of town 100, sensors none: theirs are a source of their own.
			{"towns", "11-01", "12-01", citywarden.EvaluationQuery{By: citywarden.ByArea}, `
350623100: reports 6 public_reports 2 sensor_reports 2 valid_report_rate 2/2 missed_rate 2/5 filing_rate 5/6 unclosed_rate 1/6 handled 4 handle_rate 4/5 handle_on_time_rate 3/5 overdue_rate 1/5 extension_rate 1/5 rework_rate 1/6 closed 5 close_rate 5/6 close_on_time_rate 4/6 = 73.67 C
350623101: reports 5 public_reports 0 sensor_reports 4 valid_report_rate 0/1 missed_rate 0/4 filing_rate 4/4 unclosed_rate 1/5 handled 2 handle_rate 2/2 handle_on_time_rate 2/2 overdue_rate 0/2 extension_rate 0/2 rework_rate 0/2 closed 2 close_rate 2/2 close_on_time_rate 2/2 = 100.00 A
total: reports 11 public_reports 2 sensor_reports 6 valid_report_rate 2/3 missed_rate 2/9 filing_rate 9/10 unclosed_rate 2/11 handled 6 handle_rate 6/7 handle_on_time_rate 5/7 overdue_rate 1/7 extension_rate 1/7 rework_rate 1/8 closed 7 close_rate 7/8 close_on_time_rate 6/8 = 81.81 B
`},
			{"unit grids of a village", "11-01", "12-01", citywarden.EvaluationQuery{By: citywarden.ByArea, Level: citywarden.LevelGrid, Under: "350623101001"}, `
350623101001001: reports 5 public_reports 0 sensor_reports 4 valid_report_rate 0/1 missed_rate 0/4 filing_rate 4/4 unclosed_rate 1/5 handled 2 handle_rate 2/2 handle_on_time_rate 2/2 overdue_rate 0/2 extension_rate 0/2 rework_rate 0/2 closed 2 close_rate 2/2 close_on_time_rate 2/2 = 100.00 A
total: reports 5 public_reports 0 sensor_reports 4 valid_report_rate 0/1 missed_rate 0/4 filing_rate 4/4 unclosed_rate 1/5 handled 2 handle_rate 2/2 handle_on_time_rate 2/2 overdue_rate 0/2 extension_rate 0/2 rework_rate 0/2 closed 2 close_rate 2/2 close_on_time_rate 2/2 = 100.00 A
`},
			{"posts", "11-01", "12-01", citywarden.EvaluationQuery{By: citywarden.ByPost}, `
acceptor: accepted 2 accept_on_time_rate 1/2 send_verify_on_time_rate 1/1 send_check_on_time_rate 3/4 = 66.25 C
acceptor/xu: accepted 2 accept_on_time_rate 1/2 send_verify_on_time_rate 1/1 send_check_on_time_rate 3/4 = 66.25 C
shift_leader: filed 10 file_on_time_rate 9/10 file_accuracy_rate 9/10 close_prompt_rate 6/7 = 88.50 B
shift_leader/lin: filed 10 file_on_time_rate 9/10 file_accuracy_rate 9/10 close_prompt_rate 6/7 = 88.50 B
dispatcher: dispatched 8 dispatch_on_time_rate 7/9 dispatch_accuracy_rate 7/9 dispatch_unreworked_rate 7/9 = 62.22 C
dispatcher/chen: dispatched 8 dispatch_on_time_rate 7/9 dispatch_accuracy_rate 7/9 dispatch_unreworked_rate 7/9 = 62.22 C
officer: officer_reports 3 valid_report_rate 2/3 missed_rate 2/9 verify_on_time_rate 0/1 check_on_time_rate 7/7 = 62.22 C
officer/huang: officer_reports 0 valid_report_rate none missed_rate none verify_on_time_rate none check_on_time_rate 3/3 = 100.00 A
officer/sun: officer_reports 0 valid_report_rate none missed_rate 2/8 verify_on_time_rate 0/1 check_on_time_rate 4/4 = 58.33 D
officer/zhao: officer_reports 3 valid_report_rate 2/3 missed_rate 0/1 verify_on_time_rate none check_on_time_rate none = 77.78 B
handler: handled 6 handle_on_time_rate 5/7 = 71.43 C
handler/qian: handled 1 handle_on_time_rate 1/2 = 50.00 D
handler/wu: handled 5 handle_on_time_rate 4/5 = 80.00 B
`},
			// Nothing happened: there are no rates, not 100 %, and no scores.
			{"before all", "03-01", "04-01", citywarden.EvaluationQuery{By: citywarden.ByDepartment}, `
total: handled 0 handle_rate none handle_on_time_rate none overdue_rate none extension_rate none rework_rate none closed 0 close_rate none close_on_time_rate none
`},
		} {
			e := evaluate(t, d, tt.from, tt.to, tt.q)
			if diff := gocmp.Diff(tt.want, "\n"+figures(e)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.name, diff)
			}
		}
		for key, want := range map[string]string{"350623100": "绥安镇", "water": "water", "acceptor": "受理员", "acceptor/xu": "受理员 许芳", "shift_leader/lin": "lin"} {
			q := citywarden.EvaluationQuery{By: citywarden.ByPost}
			switch key {
			case "350623100":
				q.By = citywarden.ByArea
			case "water":
				q.By = citywarden.ByDepartment
			}
			e := evaluate(t, d, "11-01", "12-01", q)
			i := slices.IndexFunc(e.Rows, func(r citywarden.EvaluationRow) bool { return r.Key == key })
			if got := e.Rows[i].Name.ZH; got != want {
				t.Errorf("%s is called %q, want %q", key, got, want)
			}
		}
	})
}

// What the dispatcher sent back counts as filed for nobody, wherever it waits before
// it is filed again.
func TestWhatCameBackIsNotFiled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := openDesk(t, filepath.Join(t.TempDir(), "desk.db"), cases.Options{})
		back := []deed{{"11-02 08:00", "", "", ""}, {"11-02 08:10", citywarden.File, "lin", ""}, {"11-02 08:20", citywarden.SendBack, "chen", ""}}
		time.Sleep(time.Until(onDay(t, "11-01 00:00")))
		play(t, d, []story{
			{"to be accepted", citywarden.SourceSensor, 0, back},
			{"to be verified", citywarden.SourceSensor, 0, append(slices.Clone(back), deed{"11-02 08:30", citywarden.SendVerify, "xu", "sun"})},
			{"filed again", citywarden.SourceSensor, 0, append(slices.Clone(back), deed{"11-02 08:30", citywarden.Register, "xu", ""}, deed{"11-02 08:40", citywarden.File, "lin", ""})},
		})
		e := evaluate(t, d, "11-01", "12-01", citywarden.EvaluationQuery{By: citywarden.ByPost})
		i := slices.IndexFunc(e.Rows, func(r citywarden.EvaluationRow) bool { return r.Key == "shift_leader" })
		if f := e.Rows[i].Figures[0]; f.Indicator != "filed" || f.Cases != 1 {
			t.Errorf("%s is %d, want 1: what came back to be accepted or verified is not filed", f.Indicator, f.Cases)
		}
	})
}

// Behind each figure are as many cases as it says, and those.
func TestCasesBehindAFigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, names := novemberDesk(t, nil)
		behind := func(q citywarden.EvaluationQuery, indicator, key string, part citywarden.Part) []string {
			t.Helper()
			q.From, q.To = onDay(t, "11-01 00:00"), onDay(t, "12-01 00:00")
			cs, _, err := d.EvaluatedCases(t.Context(), q, indicator, key, part, citywarden.Page{})
			if err != nil {
				t.Fatalf("%s of %q: %v", indicator, key, err)
			}
			var out []string
			for _, c := range cs {
				out = append(out, names[c.ID])
			}
			slices.Sort(out)
			return out
		}
		for _, tt := range []struct {
			by             citywarden.EvaluationBy
			indicator, key string
			part           citywarden.Part
			want           []string
		}{
			{citywarden.ByDepartment, "overdue_rate", "roads", citywarden.PartNumerator, []string{"overdue over the end"}},
			{citywarden.ByDepartment, "handle_on_time_rate", "water", citywarden.PartRest, []string{"all late, done twice"}},
			{citywarden.ByDepartment, "rework_rate", "", citywarden.PartNumerator, []string{"all late, done twice"}},
			{citywarden.ByDepartment, "handle_rate", "roads", citywarden.PartDenominator, []string{"late, and appealed", "overdue over the end"}},
			{citywarden.ByDepartment, "handle_rate", "roads", citywarden.PartRest, []string{"overdue over the end"}},
			{citywarden.ByArea, "missed_rate", "350623100", citywarden.PartNumerator, []string{"all late, done twice", "got more time"}},
			{citywarden.ByArea, "valid_report_rate", "350623101", citywarden.PartRest, []string{"rejected late"}},
			{citywarden.ByArea, "reports", "-", citywarden.PartNumerator, nil},
			{citywarden.ByPost, "file_accuracy_rate", "shift_leader/lin", citywarden.PartRest, []string{"voided"}},
			{citywarden.ByPost, "dispatch_accuracy_rate", "dispatcher", citywarden.PartRest, []string{"waits for a dispatch at the end", "went to another"}},
			{citywarden.ByPost, "dispatch_unreworked_rate", "dispatcher", citywarden.PartRest, []string{"waits for a dispatch at the end", "all late, done twice"}},
			{citywarden.ByPost, "check_on_time_rate", "officer/huang", citywarden.PartDenominator, []string{"got more time", "late, and appealed", "went to another"}},
			{citywarden.ByPost, "accepted", "acceptor/xu", citywarden.PartRest, nil},
		} {
			got := behind(citywarden.EvaluationQuery{By: tt.by}, tt.indicator, tt.key, tt.part)
			slices.Sort(tt.want)
			if diff := gocmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s, %s of %s (-want +got):\n%s", tt.indicator, tt.part, tt.key, diff)
			}
		}
		// The lists agree with the figures; a case with several checks is listed once.
		for _, q := range []citywarden.EvaluationQuery{{By: citywarden.ByArea}, {By: citywarden.ByDepartment}, {By: citywarden.ByPost}} {
			for _, r := range evaluate(t, d, "11-01", "12-01", q).Rows {
				for _, f := range r.Figures {
					if strings.HasPrefix(f.Indicator, "send_check") || strings.HasPrefix(f.Indicator, "check") {
						continue
					}
					if got := len(behind(q, f.Indicator, r.Key, citywarden.PartNumerator)); got != f.Cases {
						t.Errorf("%s of %s: %d cases are listed, %d counted", f.Indicator, r.Key, got, f.Cases)
					}
					if got := len(behind(q, f.Indicator, r.Key, citywarden.PartDenominator)); f.Of > 0 && got != f.Of {
						t.Errorf("denominator of %s of %s: %d cases are listed, %d counted", f.Indicator, r.Key, got, f.Of)
					}
				}
			}
		}
	})
}

// A city may count as its neighbour does.
func TestDenominatorsAndWeights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := cases.NewMeasures(cases.MeasureOptions{
			Denominators: map[string]string{"rework_rate": "to_handle", "close_on_time_rate": "closed", "handle_rate": "with_department"},
			Weights:      map[string]map[string]float64{"department": {"handled": 50, "handle_rate": 50}},
			Volume:       []citywarden.VolumeStep{{From: 1, Score: 10}, {From: 5, Score: 100}},
		})
		if err != nil {
			t.Fatal(err)
		}
		d, _ := novemberDesk(t, m)
		e := evaluate(t, d, "11-01", "12-01", citywarden.EvaluationQuery{By: citywarden.ByDepartment})
		const want = `
roads: handled 1 handle_rate 1/3 handle_on_time_rate 1/2 overdue_rate 1/2 extension_rate 0/2 rework_rate 0/2 closed 1 close_rate 1/2 close_on_time_rate 1/1 = 21.67 E
water: handled 5 handle_rate 5/5 handle_on_time_rate 4/5 overdue_rate 0/5 extension_rate 1/5 rework_rate 1/5 closed 5 close_rate 5/5 close_on_time_rate 4/5 = 100.00 A
total: handled 6 handle_rate 6/8 handle_on_time_rate 5/7 overdue_rate 1/7 extension_rate 1/7 rework_rate 1/7 closed 6 close_rate 6/7 close_on_time_rate 5/6 = 87.50 B
`
		if diff := gocmp.Diff(want, "\n"+figures(e)); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		for _, i := range e.Indicators {
			if i.Code == "handle_rate" && (i.Denominator.Code != "with_department" || i.Denominator.Name.ZH != "应处置数（已派遣未作废）") {
				t.Errorf("the evaluation does not say what it divides by: %+v", i.Denominator)
			}
		}
	})
}

func TestMeasureMistakes(t *testing.T) {
	for _, tt := range []struct {
		o    cases.MeasureOptions
		want string
	}{
		{cases.MeasureOptions{Denominators: map[string]string{"rework_rate": "reports"}}, "reports of rework_rate is not known; it may be to_close or to_handle or with_department"},
		{cases.MeasureOptions{Denominators: map[string]string{"rework_rate": "to_handle"}}, ""},
		{cases.MeasureOptions{Denominators: map[string]string{"beauty": "to_close"}}, `"beauty" has no choice; these have: accept_on_time_rate`},
		{cases.MeasureOptions{Weights: map[string]map[string]float64{"mayor": nil}}, `"mayor" is not evaluated; these are: area, department`},
		{cases.MeasureOptions{Weights: map[string]map[string]float64{"dispatcher": {"close_rate": 1}}}, `"close_rate" is none of its indicators: dispatched`},
		{cases.MeasureOptions{Weights: map[string]map[string]float64{"area": {"close_rate": -1}}}, "close_rate has -1; write 0 to 100"},
		{cases.MeasureOptions{Volume: []citywarden.VolumeStep{{From: 5, Score: 1}, {From: 5, Score: 2}}}, "write steps of 1 case or more, the least first"},
	} {
		_, err := cases.NewMeasures(tt.o)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%+v: %v", tt.o, err)
		case tt.want != "" && (citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%+v: %v, want %q", tt.o, err, tt.want)
		}
	}
}

func TestEvaluationMistakes(t *testing.T) {
	d := newDesk(t)
	from, to := monday(), monday().Add(time.Hour)
	for _, tt := range []struct {
		q    citywarden.EvaluationQuery
		want string
	}{
		{citywarden.EvaluationQuery{From: to, To: from, By: citywarden.ByArea}, "is not before"},
		{citywarden.EvaluationQuery{From: from, To: to, By: "colour"}, "it is by area, department or post"},
		{citywarden.EvaluationQuery{From: from, To: to, By: citywarden.ByPost, Under: "350623"}, "has no level"},
		{citywarden.EvaluationQuery{From: from, To: to, By: citywarden.ByArea, Level: citywarden.LevelGrid}, "say under which town"},
		{citywarden.EvaluationQuery{From: from, To: to, By: citywarden.ByPost, Only: "water"}, "by department only"},
	} {
		if _, err := d.Evaluate(t.Context(), tt.q); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.q, err, tt.want)
		}
	}
	for _, tt := range []struct {
		q              citywarden.EvaluationQuery
		indicator, key string
		code           citywarden.Code
	}{
		{citywarden.EvaluationQuery{From: from, To: to, By: citywarden.ByPost}, "accepted", "", citywarden.CodeInvalid},
		{citywarden.EvaluationQuery{From: from, To: to, By: citywarden.ByPost}, "handle_rate", "acceptor/xu", citywarden.CodeInvalid},
		{citywarden.EvaluationQuery{From: from, To: to, By: citywarden.ByDepartment, Only: "water"}, "handled", "roads", citywarden.CodeDenied},
	} {
		if _, _, err := d.EvaluatedCases(t.Context(), tt.q, tt.indicator, tt.key, citywarden.PartNumerator, citywarden.Page{}); citywarden.CodeOf(err) != tt.code {
			t.Errorf("%s of %q: %v, want %s", tt.indicator, tt.key, err, tt.code)
		}
	}
}
