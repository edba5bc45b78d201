package citywarden

import (
	"slices"
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
		{"chen", RoleDispatcher, []Action{Urge, Comment}},
		{"ma", RoleAcceptor, []Action{SendCheck, Verify, Rework, Urge, Comment}},
		{"x", RoleViewer, nil},
	} {
		if got := c.Next(CaseStep{By: tt.by, Role: tt.role, At: time.Unix(0, 0)}); !slices.Equal(got, tt.want) {
			t.Errorf("Next(%s, %s) = %v, want %v", tt.by, tt.role, got, tt.want)
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
