package api

import (
	"context"
	"net/http"
	"time"

	"github.com/citywarden/citywarden"
)

type newUser struct {
	Name       string              `json:"name" doc:"1 to 32 small letters, digits, '.', '_' or '-'"`
	Title      string              `json:"title,omitempty" maxLength:"100" doc:"How people call them"`
	Role       citywarden.Role     `json:"role"`
	Department string              `json:"department,omitempty" maxLength:"100" doc:"Of a user with the role department"`
	Area       citywarden.AreaCode `json:"area,omitempty" maxLength:"12" doc:"Code of the county, town or village that they are confined to; left out: nothing"`
	Password   string              `json:"password,omitempty" maxLength:"1024" doc:"At least 8 characters; none for the role service"`
}

type changedUser struct {
	Name       string               `json:"name,omitempty" readOnly:"true"`
	Title      string               `json:"title,omitempty" maxLength:"100"`
	Role       citywarden.Role      `json:"role"`
	Department string               `json:"department,omitempty" maxLength:"100"`
	Area       *citywarden.AreaCode `json:"area,omitempty" maxLength:"12" doc:"Code of the county, town or village that they are confined to, empty for nothing; left out: as before"`
	Disabled   *bool                `json:"disabled,omitempty" doc:"Can't sign in; sign-ins and tokens end; left out: as before"`
	Created    time.Time            `json:"created,omitzero" readOnly:"true"`
}

type newPassword struct {
	Password string `json:"password" maxLength:"1024" doc:"At least 8 characters"`
}

type newToken struct {
	Label string              `json:"label" maxLength:"100" doc:"What the token is for"`
	Life  citywarden.Duration `json:"life,omitempty" doc:"How long it is valid; for ever when left out"`
}

// UserPath holds the path parameter of one user.
type UserPath struct {
	Name string `path:"name" maxLength:"64"`
}

func (p UserPath) state(ctx context.Context, s *server) (any, error) {
	u, _, err := s.Accounts.store.UserByName(ctx, p.Name)
	return u, err
}

func (s *server) userRoutes() {
	const tag = "users"
	handle(s, route{method: "GET", path: "/api/v1/users", id: "list-users", tag: tag, may: citywarden.MayWriteUsers,
		summary: "All users"}, s.listUsers)
	handle(s, route{method: "POST", path: "/api/v1/users", id: "create-user", tag: tag, may: citywarden.MayWriteUsers, secret: true, status: http.StatusCreated,
		summary: "Create a user"}, s.createUser)
	handle(s, route{method: "GET", path: "/api/v1/users/{name}", id: "get-user", tag: tag, may: citywarden.MayWriteUsers,
		summary: "One user"}, s.getUser)
	handle(s, route{method: "PUT", path: "/api/v1/users/{name}", id: "update-user", tag: tag, may: citywarden.MayWriteUsers,
		summary: "Change title, role, department and area of a user, or disable them"}, s.updateUser)
	handle(s, route{method: "DELETE", path: "/api/v1/users/{name}", id: "delete-user", tag: tag, may: citywarden.MayWriteUsers, status: http.StatusNoContent,
		summary: "Delete a user; sign-ins and tokens end"}, s.deleteUser)
	handle(s, route{method: "POST", path: "/api/v1/users/{name}/password", id: "set-password", tag: tag, may: citywarden.MayWriteUsers, secret: true, status: http.StatusNoContent,
		summary: "Set a user's password; their sign-ins end"}, s.setPassword)
	handle(s, route{method: "GET", path: "/api/v1/users/{name}/sessions", id: "list-sessions", tag: tag, may: citywarden.MayWriteUsers,
		summary: "Sign-ins and tokens of a user"}, s.listSessions)
	handle(s, route{method: "POST", path: "/api/v1/users/{name}/tokens", id: "create-token", tag: tag, may: citywarden.MayWriteUsers, status: http.StatusCreated,
		summary: "Make a token for a program (a user with the role service); it is shown once"}, s.createToken)
	handle(s, route{method: "DELETE", path: "/api/v1/users/{name}/sessions/{id}", id: "delete-session", tag: tag, may: citywarden.MayWriteUsers, status: http.StatusNoContent,
		summary: "End a sign-in or a token"}, s.deleteSession)
	handle(s, route{method: "GET", path: "/api/v1/officers", id: "list-officers", tag: tag, may: citywarden.MayRead,
		summary: "The grid officers, who may be sent to verify and to check"}, s.listOfficers)
	handle(s, route{method: "GET", path: "/api/v1/audit", id: "list-audit", tag: tag, may: citywarden.MayWriteUsers,
		summary: "Who changed what, when, from where, and how it was before and after; the newest first"}, s.listAudit)
}

func (s *server) listUsers(ctx context.Context, _ *struct{}) (*listOutput[citywarden.User], error) {
	us, err := s.Accounts.store.Users(ctx)
	if err != nil {
		return nil, err
	}
	return listOf(us, ""), nil
}

type officer struct {
	Name  string `json:"name"`
	Title string `json:"title,omitempty"`
}

func (s *server) listOfficers(ctx context.Context, _ *struct{}) (*listOutput[officer], error) {
	us, err := s.Accounts.store.Users(ctx)
	if err != nil {
		return nil, err
	}
	var out []officer
	for _, u := range us {
		if u.Role == citywarden.RoleOfficer && !u.Disabled && u.Area.Meets(callerOf(ctx).Area) {
			out = append(out, officer{u.Name, u.Title})
		}
	}
	return listOf(out, ""), nil
}

func (s *server) getUser(ctx context.Context, in *UserPath) (*output[citywarden.User], error) {
	u, _, err := s.Accounts.store.UserByName(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	return outputOf(u), nil
}

func (s *server) createUser(ctx context.Context, in *struct{ Body newUser }) (*created[citywarden.User], error) {
	b := in.Body
	if err := s.areaOfUser(b.Area); err != nil {
		return nil, err
	}
	u, err := s.Accounts.Create(ctx, citywarden.User{Name: b.Name, Title: b.Title, Role: b.Role, Department: b.Department, Area: b.Area}, b.Password)
	if err != nil {
		return nil, err
	}
	return &created[citywarden.User]{Location: "/api/v1/users/" + u.Name, Body: u}, nil
}

func (s *server) updateUser(ctx context.Context, in *struct {
	UserPath
	Body changedUser
}) (*output[citywarden.User], error) {
	old, _, err := s.Accounts.store.UserByName(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	b := in.Body
	u := citywarden.User{Name: in.Name, Title: b.Title, Role: b.Role, Department: b.Department, Area: old.Area, Disabled: old.Disabled}
	if b.Disabled != nil {
		u.Disabled = *b.Disabled
	}
	if b.Area != nil {
		u.Area = *b.Area
	}
	if err := s.areaOfUser(u.Area); err != nil {
		return nil, err
	}
	if err := s.keepsOfficer(in.Name, &u); err != nil {
		return nil, err
	}
	u, err = s.Accounts.Update(ctx, u)
	if err != nil {
		return nil, err
	}
	return outputOf(u), nil
}

func (s *server) deleteUser(ctx context.Context, in *UserPath) (*struct{}, error) {
	if err := s.keepsOfficer(in.Name, nil); err != nil {
		return nil, err
	}
	return nil, s.Accounts.store.DeleteUser(ctx, in.Name)
}

func (s *server) setPassword(ctx context.Context, in *struct {
	UserPath
	Body newPassword
}) (*struct{}, error) {
	return nil, s.Accounts.SetPassword(ctx, in.Name, in.Body.Password, "")
}

func (s *server) listSessions(ctx context.Context, in *UserPath) (*listOutput[citywarden.Session], error) {
	if _, _, err := s.Accounts.store.UserByName(ctx, in.Name); err != nil {
		return nil, err
	}
	all, err := s.Accounts.store.Sessions(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	return listOf(all, ""), nil
}

type issuedToken struct {
	Token   string             `json:"token" doc:"For Authorization: Bearer; it is not shown again"`
	Session citywarden.Session `json:"session"`
}

func (s *server) createToken(ctx context.Context, in *struct {
	UserPath
	Body newToken
}) (*created[issuedToken], error) {
	token, session, err := s.Accounts.IssueToken(ctx, in.Name, in.Body.Label, in.Body.Life.Std())
	if err != nil {
		return nil, err
	}
	return &created[issuedToken]{
		Location: "/api/v1/users/" + in.Name + "/sessions/" + session.ID,
		Body:     issuedToken{Token: token, Session: session},
	}, nil
}

func (s *server) deleteSession(ctx context.Context, in *struct {
	UserPath
	ID string `path:"id" maxLength:"64"`
}) (*struct{}, error) {
	return nil, s.Accounts.store.DeleteSession(ctx, in.Name, in.ID)
}

func (s *server) listAudit(ctx context.Context, in *struct {
	Paging
	User    string `query:"user" maxLength:"64"`
	Action  string `query:"action" maxLength:"64" doc:"Operation of the API, like act-on-case"`
	Target  string `query:"target" maxLength:"500" doc:"Path that was asked for; what begins so when it ends in *"`
	Address string `query:"address" maxLength:"64" doc:"IP address of the caller"`
	From    string `query:"from" doc:"RFC 3339, inclusive"`
	To      string `query:"to" doc:"RFC 3339, exclusive"`
}) (*listOutput[citywarden.AuditEntry], error) {
	from, to, err := span(in.From, in.To)
	if err != nil {
		return nil, err
	}
	es, next, err := s.Audit.Audit(ctx, citywarden.AuditFilter{
		User: in.User, Action: in.Action, Target: in.Target, Address: in.Address, From: from, To: to, Page: in.page(),
	})
	if err != nil {
		return nil, err
	}
	return listOf(es, next), nil
}
