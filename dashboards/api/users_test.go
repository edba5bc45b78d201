package api

import (
	"strings"
	"testing"

	"github.com/citywarden/citywarden"
	"github.com/google/go-cmp/cmp"
)

func TestUsersAreManaged(t *testing.T) {
	p := newPlatform(t)
	admin := p.as(citywarden.RoleAdmin)
	for _, c := range []struct {
		what, body string
		status     int
		says       string
	}{
		{"POST /api/v1/users", `{"name":"li","title":"派遣员 李","role":"dispatcher","password":"li dispatches"}`, 201, `"role":"dispatcher"`},
		{"POST /api/v1/users", `{"name":"li","role":"viewer","password":"li dispatches"}`, 409, "there is a user li already"},
		{"POST /api/v1/users", `{"name":"Li Na","role":"viewer","password":"li dispatches"}`, 400, "small letters"},
		{"POST /api/v1/users", `{"name":"citywarden","role":"viewer","password":"li dispatches"}`, 400, "not citywarden"},
		{"POST /api/v1/users", `{"name":"wu","role":"viewer","password":"1234567"}`, 400, "at least 8"},
		{"POST /api/v1/users", `{"name":"wu","role":"viewer"}`, 400, "at least 8"},
		{"POST /api/v1/users", `{"name":"wu","role":"viewer","password":"11111111"}`, 400, "too easy"},
		{"POST /api/v1/users", `{"name":"longname","role":"viewer","password":"LongName"}`, 400, "too easy"},
		{"POST /api/v1/users", `{"name":"wu","role":"department","password":"wu handles"}`, 400, "names the department"},
		{"POST /api/v1/users", `{"name":"wu","role":"viewer","department":"fire","password":"wu handles"}`, 400, "names the department"},
		{"POST /api/v1/users", `{"name":"wu","role":"department","department":"fire","password":"wu handles"}`, 201, `"department":"fire"`},
		{"POST /api/v1/users", `{"name":"grafana","role":"service","password":"long enough"}`, 400, "no password"},
		{"POST /api/v1/users", `{"name":"grafana","role":"service"}`, 201, `"role":"service"`},
		{"GET /api/v1/users/li", "", 200, "派遣员 李"},
		{"PUT /api/v1/users/li", `{"name":"li","title":"李","role":"supervisor","created":"2026-01-01T00:00:00Z"}`, 200, `"role":"supervisor"`},
		{"PUT /api/v1/users/li", `{"role":"service"}`, 400, "can't be a service"},
		{"PUT /api/v1/users/grafana", `{"role":"viewer"}`, 400, "stays a service"},
		{"PUT /api/v1/users/nobody", `{"role":"viewer"}`, 404, "no user nobody"},
		{"PUT /api/v1/users/admin", `{"role":"viewer"}`, 409, "last admin"},
		{"DELETE /api/v1/users/admin", "", 409, "last admin"},
		{"POST /api/v1/users/li/password", `{"password":"forgotten it"}`, 204, ""},
		{"POST /api/v1/users/grafana/password", `{"password":"forgotten it"}`, 409, "tokens, no password"},
		{"POST /api/v1/users/nobody/password", `{"password":"forgotten it"}`, 404, "no user"},
		{"POST /api/v1/users/li/tokens", `{"label":"x"}`, 409, "is a person"},
		{"POST /api/v1/users/grafana/tokens", `{"label":" "}`, 400, "what it is for"},
		{"POST /api/v1/users/grafana/tokens", `{"label":"x","life":"-1h"}`, 400, "negative"},
		{"POST /api/v1/users/grafana/tokens", `{"label":"x","life":"soon"}`, 400, "bad duration"},
		{"DELETE /api/v1/users/wu", "", 204, ""},
		{"DELETE /api/v1/users/wu", "", 404, "no user wu"},
	} {
		a := p.do(admin, c.what, c.body)
		if a.status != c.status || !strings.Contains(a.body, c.says) {
			t.Errorf("%s %s = %d %s, want %d %s", c.what, c.body, a.status, a.body, c.status, c.says)
		}
	}
	var us list[citywarden.User]
	p.do(admin, "GET /api/v1/users", "").into(t, &us)
	var got []string
	for _, u := range us.Items {
		got = append(got, u.Name+" "+string(u.Role))
	}
	if diff := cmp.Diff([]string{"admin admin", "grafana service", "li supervisor"}, got); diff != "" {
		t.Errorf("users (-want +got)\n%s", diff)
	}
}

func TestTokenOfAProgram(t *testing.T) {
	p := newPlatform(t)
	admin := p.as(citywarden.RoleAdmin)
	p.do(admin, "POST /api/v1/users", `{"name":"grafana","role":"service"}`)
	a := p.do(admin, "POST /api/v1/users/grafana/tokens", `{"label":"dashboards","life":"365d"}`)
	var tok issuedToken
	a.into(t, &tok)
	if a.status != 201 || tok.Session.Label != "dashboards" || tok.Session.Expires.Sub(tok.Session.Created).Hours() != 365*24 {
		t.Fatalf("create token = %d %s", a.status, a.body)
	}
	if a := p.do(tok.Token, "GET /api/v1/devices", ""); a.status != 200 {
		t.Errorf("read with the token = %d", a.status)
	}
	if a := p.do(tok.Token, "DELETE /api/v1/devices/smoke-1", ""); a.status != 403 {
		t.Errorf("write with the token = %d", a.status)
	}
	if a := p.do("", "POST /api/v1/login", `{"user":"grafana","password":""}`); a.status != 401 {
		t.Errorf("sign in as a program = %d", a.status)
	}
	if a := p.do(admin, "GET /api/v1/users/grafana/sessions", ""); !strings.Contains(a.body, tok.Session.ID) || strings.Contains(a.body, tok.Token) {
		t.Errorf("sessions = %s", a.body)
	}
	if a := p.do(admin, "DELETE /api/v1/users/grafana/sessions/"+tok.Session.ID, ""); a.status != 204 {
		t.Errorf("delete = %d %s", a.status, a.body)
	}
	if a := p.do(tok.Token, "GET /api/v1/devices", ""); a.status != 401 {
		t.Errorf("read with the ended token = %d", a.status)
	}
}

func TestDeletedUserIsOutAtOnce(t *testing.T) {
	p := newPlatform(t)
	tok := p.as(citywarden.RoleViewer)
	if a := p.do(p.as(citywarden.RoleAdmin), "DELETE /api/v1/users/viewer", ""); a.status != 204 {
		t.Fatalf("delete = %d %s", a.status, a.body)
	}
	if a := p.do(tok, "GET /api/v1/devices", ""); a.status != 401 {
		t.Errorf("after the user was deleted = %d, want 401", a.status)
	}
}

func TestEveryChangeIsAudited(t *testing.T) {
	p := newPlatform(t)
	admin, viewer := p.as(citywarden.RoleAdmin), p.as(citywarden.RoleViewer)
	p.do(admin, "PUT /api/v1/devices/smoke-1", `{"name":"Hall","model":"smoke-detector"}`)
	p.do(viewer, "DELETE /api/v1/devices/smoke-1", "")
	p.do(admin, "DELETE /api/v1/devices/nobody", "")
	p.do(admin, "POST /api/v1/users", `{"name":"li","role":"viewer","password":"a secret one"}`)
	p.do("", "POST /api/v1/login", `{"user":"li","password":"a wrong one"}`)
	p.do(admin, "GET /api/v1/devices", "")

	a := p.do(admin, "GET /api/v1/audit", "")
	if strings.Contains(a.body, "secret") || strings.Contains(a.body, "wrong") {
		t.Errorf("audit holds a password: %s", a.body)
	}
	var es list[citywarden.AuditEntry]
	a.into(t, &es)
	type line struct {
		User, Role, Action, Target, Detail string
		Status                             int
	}
	var got []line
	for _, e := range es.Items {
		got = append(got, line{e.User, string(e.Role), e.Action, e.Target, e.Detail, e.Status})
	}
	want := []line{
		{"li", "", "login", "/api/v1/login", "", 401},
		{"admin", "admin", "create-user", "/api/v1/users", "", 201},
		{"admin", "admin", "delete-device", "/api/v1/devices/nobody", "", 404},
		{"viewer", "viewer", "delete-device", "/api/v1/devices/smoke-1", "", 403},
		{"admin", "admin", "update-device", "/api/v1/devices/smoke-1", `{"name":"Hall","model":"smoke-detector"}`, 200},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("audit (-want +got)\n%s", diff)
	}

	var page list[citywarden.AuditEntry]
	p.do(admin, "GET /api/v1/audit?user=admin&limit=2", "").into(t, &page)
	if len(page.Items) != 2 || page.Next == nil {
		t.Fatalf("first page = %+v", page)
	}
	p.do(admin, "GET /api/v1/audit?user=admin&limit=2&after="+*page.Next, "").into(t, &page)
	if len(page.Items) != 1 || page.Next != nil || page.Items[0].Action != "update-device" {
		t.Errorf("second page = %+v", page)
	}
	if a := p.do(admin, "GET /api/v1/audit?after=x", ""); a.status != 400 {
		t.Errorf("wrong cursor = %d %s", a.status, a.body)
	}
	if a := p.do(admin, "GET /api/v1/audit?from=2999-01-01T00:00:00Z", ""); !strings.Contains(a.body, `"items":[]`) {
		t.Errorf("audit of the future = %s", a.body)
	}
}

// A change that can't be written down is not made.
func TestNoAuditNoChange(t *testing.T) {
	p := newPlatform(t)
	admin := p.as(citywarden.RoleAdmin)
	p.server.Audit = fullDisk{p.db}
	a := p.do(admin, "DELETE /api/v1/devices/smoke-1", "")
	if got := a.problem(t); a.status != 500 || strings.Contains(got.Detail, "disk") {
		t.Errorf("delete = %d %s", a.status, a.body)
	}
	if _, err := p.Get("smoke-1"); err != nil {
		t.Errorf("the device was deleted all the same: %v", err)
	}
	if !strings.Contains(p.log.String(), "disk full") {
		t.Errorf("log = %s", p.log)
	}
}
