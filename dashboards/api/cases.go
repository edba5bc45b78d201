package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/citywarden/citywarden"
)

// Cases looks cases up and moves them on.
type Cases interface {
	Cases(ctx context.Context, f citywarden.CaseFilter) (page []citywarden.Case, next string, err error)
	Case(ctx context.Context, id citywarden.CaseID, by string, role citywarden.Role) (citywarden.Case, error)
	Do(ctx context.Context, id citywarden.CaseID, step citywarden.CaseStep, revision int64) (citywarden.Case, error)
	Create(ctx context.Context, c citywarden.NewCase, by string, role citywarden.Role) (citywarden.Case, error)
}

// Notices looks up what was told of cases.
type Notices interface {
	Notices(ctx context.Context, f citywarden.NoticeFilter) (page []citywarden.Notice, next string, err error)
	Resend(ctx context.Context, key, receiver string) (citywarden.Notice, error)
}

// Classes are the classes of components and events.
type Classes interface {
	All() []citywarden.Class
}

// CasePath holds the path parameter of one case.
type CasePath struct {
	ID citywarden.CaseID `path:"id" maxLength:"64"`
}

type actionBody struct {
	Note       string `json:"note,omitempty" maxLength:"2000"`
	Department string `json:"department,omitempty" maxLength:"100" doc:"That shall handle the case; when dispatching"`
	Revision   int64  `json:"revision,omitempty" minimum:"0" doc:"Of the case as you saw it: 409 when it has changed since; left out: act on the case as it is"`
}

type resendBody struct {
	Key      string `json:"key" maxLength:"500"`
	Receiver string `json:"receiver" maxLength:"200"`
}

func (s *server) caseRoutes() {
	const tag = "cases"
	handle(s, route{method: "GET", path: "/api/v1/cases", id: "list-cases", tag: tag, may: citywarden.MayRead,
		summary: "Cases, the newest first"}, s.listCases)
	handle(s, route{method: "POST", path: "/api/v1/cases", id: "create-case", tag: tag, may: citywarden.MayOpenCases, status: http.StatusCreated,
		summary: "Open a case by hand"}, s.createCase)
	handle(s, route{method: "GET", path: "/api/v1/cases/{id}", id: "get-case", tag: tag, may: citywarden.MayRead,
		summary: "One case with its timeline and the actions that the caller may take"}, s.getCase)
	handle(s, route{method: "POST", path: "/api/v1/cases/{id}/actions/{action}", id: "act-on-case", tag: tag, may: citywarden.MayRead,
		summary: "Take an action; the workflow says which role may take which"}, s.act)
	handle(s, route{method: "GET", path: "/api/v1/notices", id: "list-notices", tag: tag, may: citywarden.MayRead,
		summary: "What was told of cases, and to whom, the newest first"}, s.listNotices)
	handle(s, route{method: "POST", path: "/api/v1/notices/resend", id: "resend-notice", tag: tag, may: citywarden.MayOperateAlarms,
		summary: "Send a notice once more that was given up (dead); its key stays"}, s.resend)
	handle(s, route{method: "GET", path: "/api/v1/classes", id: "list-classes", tag: tag, may: citywarden.MayRead,
		summary: "Classes of components and events (GB/T 30428.2)"}, func(context.Context, *struct{}) (*listOutput[citywarden.Class], error) {
		return listOf(s.Classes.All(), ""), nil
	})
}

func (s *server) listCases(ctx context.Context, in *struct {
	Paging
	Stage      citywarden.Stage    `query:"stage"`
	Open       bool                `query:"open" doc:"Only those that people have something to do with"`
	Department string              `query:"department"`
	Grid       citywarden.GridCode `query:"grid"`
	Alarm      citywarden.AlarmID  `query:"alarm"`
	WorkOrders bool                `query:"work_orders" doc:"Maintenance work orders instead of cases"`
}) (*listOutput[citywarden.Case], error) {
	cs, next, err := s.Cases.Cases(ctx, citywarden.CaseFilter{
		Stage: in.Stage, Open: in.Open, Department: in.Department, Grid: in.Grid, Alarm: in.Alarm, WorkOrders: in.WorkOrders, Page: in.page(),
	})
	if err != nil {
		return nil, err
	}
	return listOf(cs, next), nil
}

func (s *server) listNotices(ctx context.Context, in *struct {
	Paging
	Case  citywarden.CaseID      `query:"case" maxLength:"64"`
	Alarm citywarden.AlarmID     `query:"alarm" maxLength:"300"`
	State citywarden.NoticeState `query:"state" enum:"pending,sent,dropped,dead,kept"`
}) (*listOutput[citywarden.Notice], error) {
	ns, next, err := s.Notices.Notices(ctx, citywarden.NoticeFilter{Case: in.Case, Alarm: in.Alarm, State: in.State, Page: in.page()})
	if err != nil {
		return nil, err
	}
	return listOf(ns, next), nil
}

func (s *server) resend(ctx context.Context, in *struct{ Body resendBody }) (*output[citywarden.Notice], error) {
	n, err := s.Notices.Resend(ctx, in.Body.Key, in.Body.Receiver)
	if err != nil {
		return nil, err
	}
	return outputOf(n), nil
}

func (s *server) createCase(ctx context.Context, in *struct{ Body citywarden.NewCase }) (*created[citywarden.Case], error) {
	u := callerOf(ctx)
	c, err := s.Cases.Create(ctx, in.Body, u.Name, u.Role)
	if err != nil {
		return nil, err
	}
	return &created[citywarden.Case]{Location: "/api/v1/cases/" + url.PathEscape(string(c.ID)), Body: c}, nil
}

func (s *server) getCase(ctx context.Context, in *CasePath) (*output[citywarden.Case], error) {
	u := callerOf(ctx)
	c, err := s.Cases.Case(ctx, in.ID, u.Name, u.Role)
	if err != nil {
		return nil, err
	}
	if theirs(u, &c) != nil {
		c.Actions = nil
	}
	return outputOf(c), nil
}

func (s *server) act(ctx context.Context, in *struct {
	CasePath
	Action citywarden.Action `path:"action"`
	Body   *actionBody
}) (*output[citywarden.Case], error) {
	var b actionBody
	if in.Body != nil {
		b = *in.Body
	}
	u := callerOf(ctx)
	if u.Role == citywarden.RoleDepartment {
		c, err := s.Cases.Case(ctx, in.ID, u.Name, u.Role)
		if err != nil {
			return nil, err
		}
		if err := theirs(u, &c); err != nil {
			return nil, err
		}
		if b.Revision == 0 {
			b.Revision = c.Revision // what was looked at is what is acted on
		}
	}
	c, err := s.Cases.Do(ctx, in.ID, citywarden.CaseStep{
		Action: in.Action, By: u.Name, Role: u.Role, Note: b.Note, Department: b.Department, At: time.Now().UTC(),
	}, b.Revision)
	if err != nil {
		return nil, err
	}
	return outputOf(c), nil
}

// theirs returns CodeDenied when the case belongs to another department than
// that of u.
func theirs(u citywarden.User, c *citywarden.Case) error {
	if u.Role != citywarden.RoleDepartment || c.Department == u.Department {
		return nil
	}
	if c.Department == "" {
		return citywarden.Errorf(citywarden.CodeDenied, "case %s is not dispatched to a department yet", c.ID)
	}
	return citywarden.Errorf(citywarden.CodeDenied, "case %s belongs to %s, not to %s", c.ID, c.Department, u.Department)
}
