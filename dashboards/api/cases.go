package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// Cases looks cases up and moves them on.
type Cases interface {
	Cases(ctx context.Context, f citywarden.CaseFilter) (page []citywarden.Case, next string, err error)
	Case(ctx context.Context, id citywarden.CaseID, by string, role citywarden.Role) (citywarden.Case, error)
	Do(ctx context.Context, id citywarden.CaseID, step citywarden.CaseStep, revision int64) (citywarden.Case, error)
	Create(ctx context.Context, c citywarden.NewCase, by string, role citywarden.Role) (citywarden.Case, error)
	Duplicates(ctx context.Context, id citywarden.CaseID) ([]citywarden.Duplicate, error)
	Near(ctx context.Context, class citywarden.ClassCode, p citywarden.Point) ([]citywarden.Duplicate, error)
}

// Notices looks up what was told of cases.
type Notices interface {
	Notices(ctx context.Context, f citywarden.NoticeFilter) (page []citywarden.Notice, next string, err error)
	Resend(ctx context.Context, key, receiver string) (citywarden.Notice, error)
	Receivers() []citywarden.Receiver
	TestReceiver(ctx context.Context, name, by string) error
}

// Classes are the classes of components and events.
type Classes interface {
	All() []citywarden.Class // of the numbering that people here use
	Of(standard string) []citywarden.Class
	Table(ctx context.Context, version int) (citywarden.ClassTable, error)
	Tables(context.Context) ([]citywarden.ClassTable, error) // the oldest first, without their classes
}

// CasePath holds the path parameter of one case.
type CasePath struct {
	ID citywarden.CaseID `path:"id" maxLength:"64"`
}

func (p CasePath) state(ctx context.Context, s *server) (any, error) {
	c, err := s.Cases.Case(ctx, p.ID, "", "")
	c.Timeline, c.Actions = nil, nil
	return c, err
}

type actionBody struct {
	Note         string                  `json:"note,omitempty" maxLength:"4000"`
	Department   string                  `json:"department,omitempty" maxLength:"100" doc:"That shall handle the case; dispatching without one takes that of the class"`
	Officer      string                  `json:"officer,omitempty" maxLength:"64" doc:"User name of the grid officer who shall verify or check; left out: that of the unit grid"`
	Class        citywarden.ClassCode    `json:"class,omitempty" maxLength:"32" doc:"When it is registered or filed as another class than it was reported"`
	FilingRule   string                  `json:"filing_rule,omitempty" maxLength:"8" doc:"When it is registered or filed by another filing rule of its class: 1, 2, 3 …"`
	Until        time.Time               `json:"until,omitzero" doc:"When the suspension shall end, at most a year from now"`
	Case         citywarden.CaseID       `json:"case,omitempty" maxLength:"64" doc:"That it is a duplicate of, when merging"`
	Satisfaction citywarden.Satisfaction `json:"satisfaction,omitempty" doc:"Of the person who reported it, when calling back"`
	Revision     int64                   `json:"revision,omitempty" minimum:"0" doc:"Of the case as you saw it, like the header If-Match: 409 when somebody has moved it since; left out: act on the case as it is"`
}

// caseOutput is a case with its revision as the entity tag.
type caseOutput struct {
	ETag string `header:"ETag"`
	Body citywarden.Case
}

func caseOutputOf(c citywarden.Case) *caseOutput {
	return &caseOutput{ETag: strconv.Quote(strconv.FormatInt(c.Revision, 10)), Body: c}
}

// revisionOf returns the revision that the header If-Match names, 0 for any.
func revisionOf(match string) (int64, error) {
	tag := strings.TrimPrefix(strings.TrimSpace(match), "W/")
	if tag == "" || tag == "*" {
		return 0, nil
	}
	n, err := strconv.ParseInt(strings.Trim(tag, `"`), 10, 64)
	if err != nil || n < 1 {
		return 0, citywarden.Errorf(citywarden.CodeInvalid, "If-Match %s: write the ETag of the case as you saw it, like \"7\"", match)
	}
	return n, nil
}

type workflow struct {
	Stages  []namedStage      `json:"stages" nullable:"false" doc:"In the order of a case that goes well, then the ends"`
	Actions []namedAction     `json:"actions" nullable:"false"`
	Moves   []citywarden.Move `json:"moves" nullable:"false" doc:"The lines of the workflow: who may take a case by which action from which stages to which, what they have to say, and what must hold. Without roles: the platform itself only"`
}

type namedStage struct {
	Stage citywarden.Stage `json:"stage"`
	Name  citywarden.Text  `json:"name"`
	Open  bool             `json:"open" doc:"People have something to do with it"`
}

type namedAction struct {
	Action citywarden.Action `json:"action"`
	Name   citywarden.Text   `json:"name"`
	Needs  []citywarden.Need `json:"needs" nullable:"false" doc:"What has to be said for it"`
}

type testBody struct {
	Receiver string `json:"receiver" maxLength:"200" doc:"One of GET /api/v1/receivers"`
}

type resendBody struct {
	Key      string `json:"key" maxLength:"500"`
	Receiver string `json:"receiver" maxLength:"200"`
}

func (s *server) caseRoutes() {
	const tag = "cases"
	handle(s, route{method: "GET", path: "/api/v1/cases", id: "list-cases", tag: tag, may: citywarden.MayReadCases,
		summary: "Cases, the newest first; a department sees those that it has, a citizen those that they reported"}, s.listCases)
	handle(s, route{method: "POST", path: "/api/v1/cases", id: "create-case", tag: tag, may: citywarden.MayOpenCases, status: http.StatusCreated,
		summary: "Open a case by hand"}, s.createCase)
	handle(s, route{method: "GET", path: "/api/v1/cases/{id}", id: "get-case", tag: tag, may: citywarden.MayReadCases,
		summary: "One case with its timeline and the actions that the caller may take"}, s.getCase)
	handle(s, route{method: "POST", path: "/api/v1/cases/{id}/actions/{action}", id: "act-on-case", tag: tag, may: citywarden.MayRead,
		summary: "Take an action; the workflow says which role may take which"}, s.act)
	handle(s, route{method: "GET", path: "/api/v1/cases/{id}/duplicates", id: "list-duplicates", tag: tag, may: citywarden.MayRead,
		summary: "Cases of the same class, near in place and time, that it may be a duplicate of; the nearest first"}, s.duplicates)
	handle(s, route{method: "GET", path: "/api/v1/duplicates", id: "list-near-cases", tag: tag, may: citywarden.MayOpenCases,
		summary: "Cases that a new one of that class and place may be a duplicate of; the nearest first"}, s.nearCases)
	handle(s, route{method: "GET", path: "/api/v1/workflow", id: "get-workflow", tag: tag, may: citywarden.MayReadCases,
		summary: "The workflow of cases as a table"}, s.workflow)
	handle(s, route{method: "GET", path: "/api/v1/notices", id: "list-notices", tag: tag, may: citywarden.MayRead,
		summary: "What was told of cases, and to whom, the newest first; a department sees those of the cases that it has, and what it was told of others"}, s.listNotices)
	handle(s, route{method: "POST", path: "/api/v1/notices/resend", id: "resend-notice", tag: tag, may: citywarden.MayOperateAlarms,
		summary: "Send a notice once more that was given up (dead); its key stays"}, s.resend)
	handle(s, route{method: "GET", path: "/api/v1/receivers", id: "list-receivers", tag: tag, may: citywarden.MayWriteRules,
		summary: "Who can be told of cases; rules escalate to them by name"}, func(context.Context, *struct{}) (*listOutput[citywarden.Receiver], error) {
		return listOf(s.Notices.Receivers(), ""), nil
	})
	handle(s, route{method: "POST", path: "/api/v1/notices/test", id: "test-notice", tag: tag, may: citywarden.MayWriteRules, status: http.StatusNoContent,
		summary: "Send a test to one receiver, now, in the wording of its notices; the answer says what its channel says"}, func(ctx context.Context, in *struct{ Body testBody }) (*struct{}, error) {
		return nil, s.Notices.TestReceiver(ctx, in.Body.Receiver, callerOf(ctx).Name)
	})
	handle(s, route{method: "GET", path: "/api/v1/classes", id: "list-classes", tag: tag, may: citywarden.MayReadCases,
		summary: "Classes of components and events with their filing rules (GB/T 30428.2, CJ/T 214)"}, s.listClasses)
	handle(s, route{method: "GET", path: "/api/v1/classes/versions", id: "list-class-versions", tag: tag, may: citywarden.MayRead,
		summary: "Since when which version of the class table holds, the oldest first"}, func(ctx context.Context, _ *struct{}) (*listOutput[citywarden.ClassTable], error) {
		all, err := s.Classes.Tables(ctx)
		if err != nil {
			return nil, err
		}
		return listOf(all, ""), nil
	})
}

func (s *server) listCases(ctx context.Context, in *struct {
	Paging
	Stage      citywarden.Stage       `query:"stage"`
	Open       bool                   `query:"open" doc:"Only those that people have something to do with"`
	Department string                 `query:"department"`
	Grid       citywarden.GridCode    `query:"grid"`
	Alarm      citywarden.AlarmID     `query:"alarm"`
	Officer    string                 `query:"officer" maxLength:"64" doc:"Only those that this officer was sent to verify or check"`
	OpenedBy   string                 `query:"opened_by" maxLength:"64" doc:"Only those that this user opened"`
	Source     citywarden.Source      `query:"source"`
	Class      citywarden.ClassCode   `query:"class" maxLength:"32"`
	Component  citywarden.ComponentID `query:"component" maxLength:"64"`
	Request    citywarden.RequestKind `query:"request" doc:"Only those with a request of that kind that waits for a decision"`
	WorkOrders bool                   `query:"work_orders" doc:"Maintenance work orders instead of cases"`
}) (*listOutput[citywarden.Case], error) {
	f := citywarden.CaseFilter{
		Stage: in.Stage, Open: in.Open, Department: in.Department, Grid: in.Grid, Alarm: in.Alarm, Officer: in.Officer, OpenedBy: in.OpenedBy,
		Source: in.Source, Class: in.Class, Component: in.Component, Request: in.Request, WorkOrders: in.WorkOrders, Page: in.page(),
	}
	if err := f.SeenBy(callerOf(ctx)); err != nil {
		return nil, err
	}
	if f.Alarm != "" {
		if seen, err := s.seesAlarm(ctx, callerOf(ctx), f.Alarm); err != nil || !seen {
			return listOf[citywarden.Case](nil, ""), err
		}
	}
	cs, next, err := s.Cases.Cases(ctx, f)
	if err == nil && len(cs) == 0 && in.Class != "" {
		err = s.isClass(ctx, in.Class)
	}
	if err != nil {
		return nil, err
	}
	if cs, err = s.casesFor(ctx, callerOf(ctx), cs); err != nil {
		return nil, err
	}
	return listOf(cs, next), nil
}

// isClass returns CodeInvalid when there is no class of that code in either
// numbering, nor a case or component of one that there was.
func (s *server) isClass(ctx context.Context, code citywarden.ClassCode) error {
	for _, all := range [][]citywarden.Class{s.Classes.All(), s.Classes.Of(citywarden.GBT30428), s.Classes.Of(citywarden.CJT214)} {
		if slices.ContainsFunc(all, func(k citywarden.Class) bool { return k.Code == code }) {
			return nil
		}
	}
	one := citywarden.Page{Limit: 1}
	if cs, _ := s.Components.List(citywarden.ComponentFilter{Class: code, Page: one}); len(cs) > 0 {
		return nil
	}
	for _, orders := range []bool{false, true} {
		cs, _, err := s.Cases.Cases(ctx, citywarden.CaseFilter{Class: code, WorkOrders: orders, Page: one})
		if err != nil || len(cs) > 0 {
			return err
		}
	}
	return citywarden.Errorf(citywarden.CodeInvalid, "no class %q; citywarden classes and GET /api/v1/classes list them", code)
}

func (s *server) listClasses(ctx context.Context, in *struct {
	Standard string `query:"standard" enum:"GB/T 30428.2-2013,CJ/T 214-2007" doc:"Numbering; left out: the one that is used here"`
	Version  int    `query:"version" minimum:"1" doc:"Of the table, in both numberings; left out: as it is now"`
}) (*listOutput[citywarden.Class], error) {
	all := s.Classes.All()
	switch {
	case in.Version != 0:
		t, err := s.Classes.Table(ctx, in.Version)
		if err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(t.Classes, func(k citywarden.Class) bool { return in.Standard != "" && k.Standard != in.Standard })
	case in.Standard != "":
		all = s.Classes.Of(in.Standard)
	}
	return listOf(all, ""), nil
}

func (s *server) listNotices(ctx context.Context, in *struct {
	Paging
	Case  citywarden.CaseID      `query:"case" maxLength:"64"`
	Alarm citywarden.AlarmID     `query:"alarm" maxLength:"300"`
	State citywarden.NoticeState `query:"state" enum:"pending,sent,dropped,dead,kept"`
}) (*listOutput[citywarden.Notice], error) {
	f := citywarden.NoticeFilter{Case: in.Case, Alarm: in.Alarm, State: in.State, Page: in.page()}
	u := callerOf(ctx)
	f.Area = u.Area
	if u.Role == citywarden.RoleDepartment {
		f.Department = u.Department
	}
	if f.Alarm != "" {
		if seen, err := s.seesAlarm(ctx, u, f.Alarm); err != nil || !seen {
			return listOf[citywarden.Notice](nil, ""), err
		}
	}
	ns, next, err := s.Notices.Notices(ctx, f)
	if err != nil {
		return nil, err
	}
	if ns, err = s.noticesFor(ctx, u, ns); err != nil {
		return nil, err
	}
	return listOf(ns, next), nil
}

func (s *server) resend(ctx context.Context, in *struct{ Body resendBody }) (*output[citywarden.Notice], error) {
	if u := callerOf(ctx); u.Area != "" {
		there, _, err := s.Notices.Notices(ctx, citywarden.NoticeFilter{Key: in.Body.Key, Area: u.Area})
		if err != nil {
			return nil, err
		}
		if len(there) == 0 {
			return nil, citywarden.Errorf(citywarden.CodeNotFound, "no notice %s to %s", in.Body.Key, in.Body.Receiver)
		}
	}
	n, err := s.Notices.Resend(ctx, in.Body.Key, in.Body.Receiver)
	if err != nil {
		return nil, err
	}
	ns, err := s.noticesFor(ctx, callerOf(ctx), []citywarden.Notice{n})
	if err != nil {
		return nil, err
	}
	return outputOf(ns[0]), nil
}

func (s *server) createCase(ctx context.Context, in *struct{ Body citywarden.NewCase }) (*created[citywarden.Case], error) {
	if err := s.mayOpen(ctx, in.Body); err != nil {
		return nil, err
	}
	u := callerOf(ctx)
	c, err := s.Cases.Create(ctx, in.Body, u.Name, u.Role)
	if err != nil {
		return nil, err
	}
	if c, err = s.caseFor(ctx, u, c); err != nil {
		return nil, err
	}
	return &created[citywarden.Case]{Location: "/api/v1/cases/" + url.PathEscape(string(c.ID)), Body: c}, nil
}

func (s *server) getCase(ctx context.Context, in *CasePath) (*caseOutput, error) {
	c, err := s.seenCase(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return caseOutputOf(c), nil
}

// seenCase returns a case as the caller may see it.
func (s *server) seenCase(ctx context.Context, id citywarden.CaseID) (citywarden.Case, error) {
	u := callerOf(ctx)
	c, err := s.Cases.Case(ctx, id, u.Name, u.Role)
	if err != nil {
		return c, err
	}
	if err := c.SeenBy(u); err != nil {
		return citywarden.Case{}, err
	}
	if u.Role == citywarden.RoleDepartment && c.Department != u.Department {
		c.Actions = nil // it had the case before
	}
	return s.caseFor(ctx, u, c)
}

func (s *server) duplicates(ctx context.Context, in *CasePath) (*listOutput[citywarden.Duplicate], error) {
	if _, err := s.seenCase(ctx, in.ID); err != nil {
		return nil, err
	}
	ds, err := s.Cases.Duplicates(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return s.seenDuplicates(ctx, ds)
}

func (s *server) nearCases(ctx context.Context, in *struct {
	PositionQuery
	Class citywarden.ClassCode `query:"class" required:"true" maxLength:"32"`
}) (*listOutput[citywarden.Duplicate], error) {
	p, err := in.point()
	if err != nil {
		return nil, err
	}
	ds, err := s.Cases.Near(ctx, in.Class, p)
	if err != nil {
		return nil, err
	}
	return s.seenDuplicates(ctx, ds)
}

// seenDuplicates leaves out what the caller may not see.
func (s *server) seenDuplicates(ctx context.Context, ds []citywarden.Duplicate) (_ *listOutput[citywarden.Duplicate], err error) {
	u := callerOf(ctx)
	ds = slices.DeleteFunc(ds, func(d citywarden.Duplicate) bool { return d.Case.SeenBy(u) != nil })
	for i := range ds {
		if ds[i].Case, err = s.caseFor(ctx, u, ds[i].Case); err != nil {
			return nil, err
		}
	}
	return listOf(ds, ""), nil
}

func (s *server) workflow(context.Context, *struct{}) (*output[workflow], error) {
	out := workflow{Moves: citywarden.Workflow}
	for _, x := range citywarden.Stages {
		out.Stages = append(out.Stages, namedStage{x.Stage, x.Name, x.Stage.Open()})
	}
	for _, m := range citywarden.Workflow {
		known := slices.ContainsFunc(out.Actions, func(a namedAction) bool { return a.Action == m.Action })
		if !known {
			out.Actions = append(out.Actions, namedAction{m.Action, m.Action.Text(), append([]citywarden.Need{}, m.Needs...)})
		}
	}
	return outputOf(out), nil
}

func (s *server) act(ctx context.Context, in *struct {
	CasePath
	Action  citywarden.Action `path:"action"`
	IfMatch string            `header:"If-Match" maxLength:"64" doc:"ETag of the case as you saw it: 409 when somebody has moved it since"`
	Body    *actionBody
}) (*caseOutput, error) {
	var b actionBody
	if in.Body != nil {
		b = *in.Body
	}
	seen, err := revisionOf(in.IfMatch)
	if err != nil {
		return nil, err
	}
	if b.Revision == 0 {
		b.Revision = seen
	}
	c, err := s.seenCase(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if b.Case != "" {
		if _, err := s.seenCase(ctx, b.Case); err != nil {
			return nil, err
		}
	}
	u := callerOf(ctx)
	if u.Role == citywarden.RoleDepartment {
		b.Department = u.Department
	}
	if b.Officer != "" {
		if err := s.Accounts.Officer(ctx, b.Officer, c.Grid); err != nil {
			return nil, err
		}
	}
	c, err = s.Cases.Do(ctx, in.ID, citywarden.CaseStep{
		Action: in.Action, By: u.Name, Role: u.Role, Note: b.Note, Department: b.Department, Officer: b.Officer, Class: b.Class, FilingRule: b.FilingRule,
		Until: b.Until.UTC(), Case: b.Case, Satisfaction: b.Satisfaction, At: time.Now().UTC(),
	}, b.Revision)
	if err != nil {
		return nil, err
	}
	if c, err = s.caseFor(ctx, u, c); err != nil {
		return nil, err
	}
	return caseOutputOf(c), nil
}
