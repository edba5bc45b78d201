package citywarden

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func step(a Action, by string, role Role) CaseStep {
	return CaseStep{Action: a, By: by, Role: role, Note: "note", Department: "water", At: time.Unix(0, 0)}
}

// walk takes a new case through steps and stops at the first error.
func walk(steps ...CaseStep) (*Case, error) {
	c := &Case{ID: "E0501202611230001", Stage: PendingFiling}
	for _, s := range steps {
		if err := c.Do(s); err != nil {
			return c, err
		}
	}
	return c, nil
}

var toHandled = []CaseStep{
	step(File, "lin", RoleSupervisor), step(Dispatch, "chen", RoleDispatcher),
	step(Accept, "wu", RoleDepartment), step(Handle, "wu", RoleDepartment),
}

func TestCaseGoesWell(t *testing.T) {
	c, err := walk(append(slices.Clone(toHandled), step(Verify, "zhang", RoleOfficer), step(Close, "lin", RoleSupervisor))...)
	if err != nil {
		t.Fatal(err)
	}
	var stages []Stage
	for _, s := range c.Timeline {
		stages = append(stages, s.Stage)
	}
	want := []Stage{PendingDispatch, PendingHandling, Handling, Handled, PendingClose, Closed}
	if !slices.Equal(stages, want) || c.Revision != 6 || c.Department != "water" || c.HandledBy != "wu" {
		t.Errorf("stages %v (revision %d, department %q, handled by %q), want %v", stages, c.Revision, c.Department, c.HandledBy, want)
	}
}

func TestCaseRefusals(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps []CaseStep
		code  Code
		want  string
	}{
		{"unknown action", []CaseStep{step("dance", "lin", RoleSupervisor)}, CodeNotFound,
			`no action "dance"; there are register, send_verify, exists, not_exists, unable, file, reject, merge, dispatch, redispatch, send_back, ` +
				`approve_send_back, refuse_send_back, accept, handle, request_extension, approve_extension, refuse_extension, ` +
				`request_suspension, approve_suspension, refuse_suspension, resume, self_handle, send_check, verify, rework, refuse_self, close, ` +
				`force_close, request_void, void, refuse_void, appeal, endorse_appeal, approve_appeal, refuse_appeal, call_back, supervise, urge, comment`},
		{"close before the work", []CaseStep{step(File, "lin", RoleSupervisor), step(Dispatch, "chen", RoleDispatcher), step(Close, "lin", RoleSupervisor)}, CodeConflict,
			"cannot close a case that is pending handling"},
		{"dispatcher closes", append(slices.Clone(toHandled), step(Verify, "zhang", RoleOfficer), step(Close, "chen", RoleDispatcher)), CodeDenied,
			"dispatcher may not close a case; shift_leader or supervisor may"},
		{"handler verifies", append(slices.Clone(toHandled), step(Verify, "wu", RoleOfficer)), CodeDenied,
			"wu handled case E0501202611230001; another person must verify it"},
		{"reject without a reason", []CaseStep{{Action: Reject, By: "lin", Role: RoleSupervisor}}, CodeInvalid,
			"reject case E0501202611230001: say why in the note"},
		{"dispatch to nobody", []CaseStep{step(File, "lin", RoleSupervisor), {Action: Dispatch, By: "chen", Role: RoleDispatcher}}, CodeInvalid,
			"dispatch case E0501202611230001: name the department that shall handle it"},
		{"a person reopens", append(slices.Clone(toHandled), step(Verify, "zhang", RoleOfficer), step(Close, "lin", RoleSupervisor), step(Reopen, "boss", RoleAdmin)), CodeDenied,
			"admin may not reopen a case; nobody may"},
		{"somebody calls himself the platform", []CaseStep{step(File, Platform, RoleViewer)}, CodeDenied,
			"viewer may not file a case; shift_leader or supervisor may"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := walk(tt.steps...)
			if CodeOf(err) != tt.code || err.Error() != tt.want {
				t.Errorf("%s %v, want %s %s", CodeOf(err), err, tt.code, tt.want)
			}
			if len(c.Timeline) != len(tt.steps)-1 || int(c.Revision) != len(tt.steps)-1 {
				t.Errorf("the refused step left a trace: %d steps", len(c.Timeline))
			}
		})
	}
}

// One admin alone may work a case to its end, the small county's night shift.
func TestAdminMayDoAll(t *testing.T) {
	var steps []CaseStep
	for _, a := range []Action{File, Dispatch, Handle, Verify, Close} {
		steps = append(steps, step(a, "admin", RoleAdmin))
	}
	if c, err := walk(steps...); err != nil || c.Stage != Closed {
		t.Errorf("%s, %v; want closed", c.Stage, err)
	}
}

func TestNextActions(t *testing.T) {
	c, err := walk(toHandled...)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		by   string
		role Role
		want []Action
	}{
		{"zhang", RoleOfficer, []Action{Verify, Rework, Comment}},
		{"wu", RoleOfficer, []Action{Comment}}, // handled it
		{"chen", RoleDispatcher, []Action{Rework, Urge, Comment}},
		{"ma", RoleAcceptor, []Action{SendCheck, Verify, Rework, Urge, Comment}},
		{"x", RoleViewer, nil},
	} {
		if got := c.Next(CaseStep{By: tt.by, Role: tt.role, At: time.Unix(0, 0)}); !slices.Equal(got, tt.want) {
			t.Errorf("Next(%s, %s) = %v, want %v", tt.by, tt.role, got, tt.want)
		}
	}
}

// Each way a case can go stands in docs and standards as here (CJJ/T 106): from
// each stage, what people do and where that leads.
func TestWaysOfACase(t *testing.T) {
	for stage, want := range map[Stage]string{
		Reported:        "register>pending_filing send_verify>verifying reject>rejected merge>voided self_handle>handled",
		Verifying:       "exists>pending_filing not_exists>rejected unable>reported",
		PendingFiling:   "send_verify>verifying file>pending_dispatch reject>rejected merge>voided send_back>reported self_handle>handled",
		PendingDispatch: "dispatch>pending_handling send_back>reported void>voided",
		PendingHandling: "redispatch>pending_handling approve_send_back>pending_dispatch accept>handling handle>handled approve_suspension>suspended void>voided",
		Handling:        "redispatch>pending_handling approve_send_back>pending_dispatch handle>handled approve_suspension>suspended void>voided",
		Suspended:       "resume>handling force_close>closed void>voided",
		Handled:         "send_check>checking verify>pending_close rework>handling refuse_self>pending_filing force_close>closed",
		Checking:        "send_check>checking verify>pending_close rework>handling force_close>closed",
		PendingClose:    "rework>handling refuse_self>pending_filing close>closed force_close>closed",
		Closed:          "",
		Rejected:        "",
		Voided:          "",
	} {
		var ways []string
		for _, m := range Workflow {
			way := string(m.Action) + ">" + string(m.To)
			if m.Roles != nil && m.To != "" && slices.Contains(m.From, stage) && !slices.Contains(ways, way) {
				ways = append(ways, way)
			}
		}
		if got := strings.Join(ways, " "); got != want {
			t.Errorf("from %s:\n got %s\nwant %s", stage, got, want)
		}
	}
}

func TestWorkflowIsSound(t *testing.T) {
	reached := map[Stage]bool{Reported: true, PendingFiling: true}
	for _, m := range Workflow {
		if m.To != "" {
			reached[m.To] = true
		}
	}
	for _, m := range Workflow {
		for _, s := range m.From {
			if !reached[s] {
				t.Errorf("%s starts from %s, which nothing leads to", m.Action, s)
			}
		}
	}
	for _, s := range []Stage{Closed, Rejected, Voided} {
		if s.Open() {
			t.Errorf("%s counts as open", s)
		}
	}
}

func TestLight(t *testing.T) {
	start := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	end := start.Add(100 * time.Minute)
	for min, want := range map[int]Light{0: Green, 80: Green, 81: Yellow, 100: Yellow, 101: Red} {
		if got := LightAt(start.Add(80*time.Minute), end, start.Add(time.Duration(min)*time.Minute)); got != want {
			t.Errorf("after %d %% the light is %s, want %s", min, got, want)
		}
	}
	if got := LightAt(time.Time{}, time.Time{}, end); got != "" {
		t.Errorf("light without a deadline = %q", got)
	}
}

// In thousands of random walks no step is taken that the table of the workflow
// does not hold, a refused step leaves no trace, and the timeline rebuilds the case.
func TestRandomWalks(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	people := []CaseStep{
		{By: "ma", Role: RoleAcceptor}, {By: "lin", Role: RoleShiftLeader}, {By: "he", Role: RoleSupervisor}, {By: "chen", Role: RoleDispatcher},
		{By: "wu", Role: RoleDepartment, Department: "water"}, {By: "xu", Role: RoleDepartment, Department: "roads"},
		{By: "huang", Role: RoleOfficer}, {By: "zhang", Role: RoleOfficer}, {By: "root", Role: RoleAdmin}, {By: "guest", Role: RoleViewer},
		{By: "somebody", Role: RoleCitizen}, {By: Platform},
	}
	legal := func(before, after *Case, s CaseStep) bool {
		return slices.ContainsFunc(Workflow, func(m Move) bool {
			return m.Action == s.Action && slices.Contains(m.From, before.Stage) && (m.To == after.Stage || m.To == "" && before.Stage == after.Stage) &&
				(slices.Contains(m.Roles, s.Role) || s.Role == "" || s.Role == RoleAdmin && m.Roles != nil)
		})
	}
	done, refused := map[Action]int{}, 0
	for walk := range 800 {
		at := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
		c := &Case{ID: "E0501202611230001", Source: SourceCitizen, Opened: at}
		c.Begin(CaseStep{By: "somebody", Stage: Reported, At: at})
		for range 60 {
			at = at.Add(time.Duration(r.IntN(40)) * time.Minute)
			s := people[r.IntN(len(people))]
			s.At = at
			s.Action = Workflow[r.IntN(len(Workflow))].Action
			if next := c.Next(s); len(next) > 0 && r.IntN(4) > 0 {
				s.Action = next[r.IntN(len(next))]
			}
			if s.By == Platform && r.IntN(4) == 0 { // it is offered nothing
				s.Action = []Action{Reopen, Absorb, AutoClose}[min(r.IntN(30), 2)]
			}
			// The short cuts to the end would leave little to walk.
			if slices.Contains([]Action{Reject, NotExists, Merge, SelfHandle, Void, AutoClose, ForceClose}, s.Action) && r.IntN(8) > 0 {
				continue
			}
			if r.IntN(6) > 0 {
				s.Note, s.Officer, s.Case, s.Satisfaction = "because", []string{"huang", "zhang"}[r.IntN(2)], "E0501202611230002", Satisfied
				s.Until = at.Add(time.Duration(1+r.IntN(400*24)) * time.Hour)
				if s.Role != RoleDepartment {
					s.Department = []string{"water", "roads"}[r.IntN(2)]
				}
			}
			if s.Action == File || s.Action == Reopen {
				s.Yellow, s.Deadline = at.Add(4*time.Hour), at.Add(5*time.Hour)
			}
			if s.Action == AddPhoto && r.IntN(3) > 0 {
				s.Photo = &Attachment{Kind: PhotoNear, By: s.By, Role: s.Role, At: at}
			}
			before := *c
			before.Timeline = slices.Clone(c.Timeline)
			offered := slices.Contains(c.Next(s), s.Action)
			err := c.Do(s)
			switch {
			case err != nil:
				refused++
				if !reflect.DeepEqual(before, *c) {
					t.Fatalf("walk %d: the refused %s left a trace", walk, s.Action)
				}
				if offered && CodeOf(err) != CodeInvalid {
					t.Fatalf("walk %d: %s by %s was offered in %s, but: %v", walk, s.Action, s.Role, before.Stage, err)
				}
			case !legal(&before, c, s):
				t.Fatalf("walk %d: %s by %s led from %s to %s", walk, s.Action, s.Role, before.Stage, c.Stage)
			case s.Role != "" && !offered && s.Action != AddPhoto:
				t.Fatalf("walk %d: %s by %s in %s was done but not offered", walk, s.Action, s.Role, before.Stage)
			case s.Role == RoleDispatcher && (c.Stage == Closed && before.Stage != Closed):
				t.Fatalf("walk %d: a dispatcher closed the case", walk)
			case s.Role != RoleAdmin && s.Role != "" && s.Action == Verify && s.By == before.HandledBy:
				t.Fatalf("walk %d: %s verified their own work", walk, s.By)
			case c.Extensions > MaxExtensions || c.Suspensions > 1:
				t.Fatalf("walk %d: %d extensions, %d suspensions", walk, c.Extensions, c.Suspensions)
			default:
				done[s.Action]++
			}
		}
		again, err := ReplayCase(*c, c.Timeline)
		if err != nil || !reflect.DeepEqual(again, *c) {
			t.Fatalf("walk %d: the timeline leads to %+v, %v\nwant %+v", walk, again, err, *c)
		}
	}
	if len(done) < 35 {
		t.Errorf("only %d actions were ever done: %v", len(done), done)
	}
	if refused < 2000 {
		t.Errorf("only %d steps were refused", refused)
	}
}

// An appeal against an overdue mark is decided once; that it was late stays a fact.
func TestAppeal(t *testing.T) {
	c, err := walk(append(slices.Clone(toHandled), step(Verify, "zhang", RoleOfficer), step(Close, "lin", RoleSupervisor))...)
	if err != nil {
		t.Fatal(err)
	}
	c.Deadline = c.HandledAt.Add(-time.Minute)
	for _, tt := range []struct {
		step CaseStep
		code Code
	}{
		{step(ApproveAppeal, "ma", RoleAcceptor), CodeConflict},
		{step(Appeal, "wu", RoleDepartment), ""},
		{step(ApproveAppeal, "ma", RoleAcceptor), CodeConflict}, // the dispatcher comes first
		{step(EndorseAppeal, "chen", RoleDispatcher), ""},
		{step(ApproveAppeal, "ma", RoleAcceptor), ""},
		{step(Appeal, "wu", RoleDepartment), CodeConflict},
	} {
		if err := c.Do(tt.step); CodeOf(err) != tt.code {
			t.Errorf("%s: %v, want %q", tt.step.Action, err, tt.code)
		}
	}
	if !c.Exempt || !c.HandledLate() {
		t.Errorf("exempt %v, late %v; want both", c.Exempt, c.HandledLate())
	}
}

// A case belongs to the smallest area that has all that it concerns.
func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		grid GridCode
		to   []string
		want AreaCode
	}{
		{"350623100001001", []string{"350623100001001"}, ""},
		{"350623100001001", []string{"350623100001002"}, "350623100001"},
		{"350623100001001", []string{"350623100001002", "350623100002001"}, "350623100"},
		{"350623100001001", []string{"350623100002001", "350623100001001"}, "350623100"},
		{"350623100001001", []string{"350623101001001"}, "350623"},
		{"350623100001001", []string{"", "350681100001001"}, ""},
		{"", []string{"350623100001001"}, ""},
	} {
		c := Case{Grid: tt.grid}
		for _, code := range tt.to {
			c.Spread(code)
		}
		if c.Area != tt.want {
			t.Errorf("from %s to %v: %q, want %q", tt.grid, tt.to, c.Area, tt.want)
		}
	}
}
