package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/citywarden/citywarden"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestOpenAPIIsAsWrittenDown(t *testing.T) {
	p := newPlatform(t)
	a := p.do("", "GET /api/openapi.json", "")
	if a.status != http.StatusOK {
		t.Fatalf("status %d", a.status)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(a.body), "", "  "); err != nil {
		t.Fatal(err)
	}
	b.WriteByte('\n')
	const golden = "testdata/openapi.json"
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("openapi.json differs from %s (go test -update writes it anew):\n%s", golden, diff)
	}
}

// operations returns the operations that the description names, by id.
func (p *platform) operations() map[string]string {
	p.t.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		}
	}
	p.do("", "GET /api/openapi.json", "").into(p.t, &doc)
	ops := map[string]string{}
	for path, methods := range doc.Paths {
		for m, op := range methods {
			ops[op.OperationID] = strings.ToUpper(m) + " " + path
		}
	}
	return ops
}

// TestEachRoleAtEachRoute asks for every operation of the description in every
// role and without one.
func TestEachRoleAtEachRoute(t *testing.T) {
	const (
		admin, supervisor, dispatcher = citywarden.RoleAdmin, citywarden.RoleSupervisor, citywarden.RoleDispatcher
		officer, vendor, engineer     = citywarden.RoleOfficer, citywarden.RoleVendor, citywarden.RoleEngineer
		acceptor, leader, citizen     = citywarden.RoleAcceptor, citywarden.RoleShiftLeader, citywarden.RoleCitizen
	)
	const alarm, aCase = "fire.smoke:smoke-1:1", "E0501202611230001"
	type row struct {
		op, path, body string
		roles          []citywarden.Role // nil: everybody who is signed in but citizens
	}
	public := []string{"login", "get-info", "get-report-form", "report-case", "list-public-components", "get-report-state", "get-public-layer"}
	engineers := []citywarden.Role{admin, citywarden.RoleEngineer}
	serve := []citywarden.Role{admin, supervisor, leader, engineer}
	claim := []citywarden.Role{admin, supervisor, citywarden.RoleDepartment, officer, vendor}
	tell := []citywarden.Role{admin, supervisor, leader, dispatcher, vendor}
	write, operate, admins := []citywarden.Role{admin, vendor}, []citywarden.Role{admin, supervisor, acceptor, leader, dispatcher, officer}, []citywarden.Role{admin}
	// The case is not dispatched yet, and no citizen reported it.
	see := slices.DeleteFunc(slices.Clone(citywarden.Roles), func(r citywarden.Role) bool { return r == citywarden.RoleDepartment || r == citizen })
	evaluate := []citywarden.Role{admin, supervisor, acceptor, leader, dispatcher, citywarden.RoleDepartment, citywarden.RoleViewer, citywarden.RoleService}
	survey := []citywarden.Role{admin, supervisor}
	rows := []row{
		{"get-me", "/me", "", citywarden.Roles},
		{"logout", "/logout", "", citywarden.Roles},
		{"change-password", "/me/password", `{"old":"x","new":"y"}`, citywarden.Roles},
		{"get-summary", "/summary", "", nil},
		{"list-devices", "/devices", "", nil},
		{"create-device", "/devices", `{"id":"d-9","name":"n","model":"smoke-detector"}`, write},
		{"get-device", "/devices/smoke-1", "", nil},
		{"update-device", "/devices/smoke-1", `{"name":"n","model":"smoke-detector"}`, write},
		{"delete-device", "/devices/smoke-2", "", write},
		{"disable-device", "/devices/smoke-1/disable", "", write},
		{"enable-device", "/devices/smoke-1/enable", "", write},
		{"claim-device", "/devices/smoke-1/claim", `{"secret":"sesame","location":{"lat":24.1,"lon":117.6}}`, claim},
		{"create-credentials", "/devices/smoke-1/credentials", `{"type":"token"}`, write},
		{"list-credentials", "/devices/smoke-1/credentials", "", write},
		{"revoke-credentials", "/devices/smoke-1/credentials", "", write},
		{"list-uplinks", "/uplinks", "", write},
		{"list-provisioning", "/provisioning", "", write},
		{"set-provisioning", "/provisioning/smoke-detector", `{"create_new":true}`, write},
		{"end-provisioning", "/provisioning/smoke-detector", "", write},
		{"send-command", "/devices/smoke-1/commands", `{"method":"silence"}`, tell},
		{"list-commands", "/devices/smoke-1/commands", "", nil},
		{"list-firmware", "/firmware", "", write},
		{"create-firmware", "/firmware", form("title", "a", "version", "2", "model", "smoke-detector", "file", "new"), write},
		{"assign-firmware", "/firmware/assign", `{"scope":"model","name":"smoke-detector","title":"a","version":"1"}`, write},
		{"delete-firmware", "/firmware/a/1", "", write},
		{"import-devices", "/devices/import", "id,name\n", write},
		{"export-devices", "/devices/export", "", nil},
		{"get-latest", "/devices/smoke-1/latest", "", nil},
		{"list-attributes", "/devices/smoke-1/attributes", "", nil},
		{"get-series", "/devices/smoke-1/series?metric=smoke", "", nil},
		{"group-series", "/series?domain=fire&metric=smoke&every=1h", "", nil},
		{"export-series", "/series/export", "", nil},
		{"import-series", "/series/import", "time,device,metric,value\n", write},
		{"list-models", "/models", "", nil},
		{"list-sites", "/sites", "", nil},
		{"get-site", "/sites/hospital", "", nil},
		{"put-site", "/sites/hospital", `{"name":"Hospital","attributes":{"smoke_limit":0.1}}`, engineers},
		{"delete-site", "/sites/hospital", "", engineers},
		{"list-classes", "/classes", "", citywarden.Roles},
		{"list-class-versions", "/classes/versions", "", nil},
		{"list-notices", "/notices", "", nil},
		{"resend-notice", "/notices/resend", `{"key":"k","receiver":"duty"}`, operate},
		{"list-receivers", "/receivers", "", engineers},
		{"test-notice", "/notices/test", `{"receiver":"duty"}`, engineers},
		{"list-rules", "/rules", "", nil},
		{"get-rule", "/rules/fire.smoke", "", nil},
		{"get-rule-status", "/rules/status", "", nil},
		{"reload-rules", "/rules/reload", "", engineers},
		{"backtest-rules", "/rules/backtest", backtestOf("0.1"), engineers},
		{"test-rules", "/rules/test", "", engineers},
		{"explain-silence", "/rules/fire.smoke/why-not?device=smoke-1", "", nil},
		{"get-ledger", "/ledger", "", nil},
		{"audit-ledger", "/ledger/audit", "", nil},
		{"list-dead-letters", "/deadletters", "", nil},
		{"replay-dead-letters", "/deadletters/replay", `{}`, write},
		{"list-alarms", "/alarms", "", nil},
		{"get-alarm", "/alarms/" + alarm, "", nil},
		{"explain-alarm", "/alarms/" + alarm + "/why", "", nil},
		{"ack-alarm", "/alarms/" + alarm + "/ack", "", operate},
		{"shelve-alarm", "/alarms/" + alarm + "/shelve", `{"for":"1h","reason":"works"}`, operate},
		{"unshelve-alarm", "/alarms/" + alarm + "/unshelve", "", operate},
		{"reset-alarm", "/alarms/" + alarm + "/reset", "", operate},
		{"comment-alarm", "/alarms/" + alarm + "/comment", `{"text":"x"}`, operate},
		{"assign-alarm", "/alarms/" + alarm + "/assign", `{"to":"admin"}`, operate},
		{"take-alarm-out-of-service", "/alarms/" + alarm + "/out-of-service", `{"reason":"works"}`, serve},
		{"return-alarm-to-service", "/alarms/" + alarm + "/in-service", "", serve},
		{"list-out-of-service", "/out-of-service", "", nil},
		{"take-device-out-of-service", "/devices/smoke-1/out-of-service", `{"reason":"works"}`, serve},
		{"return-device-to-service", "/devices/smoke-1/in-service", "", serve},
		{"take-rule-out-of-service", "/rules/fire.smoke/out-of-service", `{"entity":"smoke-1","reason":"works"}`, serve},
		{"return-rule-to-service", "/rules/fire.smoke/in-service", `{"entity":"smoke-1"}`, serve},
		{"get-alarm-load", "/alarms/load", "", nil},
		{"get-alarm-cap", "/alarms/" + alarm + "/cap", "", nil},
		{"list-alarm-caps", "/alarms/cap", "", nil},
		{"get-alarm-history", "/alarms/" + alarm + "/history", "", nil},
		{"list-cases", "/cases", "", citywarden.Roles},
		{"get-evaluation", "/evaluation?by=department", "", evaluate},
		{"list-evaluated-cases", "/evaluation/cases?by=department&indicator=handled", "", evaluate},
		{"get-workflow", "/workflow", "", citywarden.Roles},
		{"get-case", "/cases/" + aCase, "", see},
		{"list-duplicates", "/cases/" + aCase + "/duplicates", "", see},
		{"list-near-cases", "/duplicates?class=event/0501&lat=24.1&lon=117.6", "", []citywarden.Role{admin, supervisor, acceptor, leader, officer, citizen}},
		{"create-case", "/cases", `{"class":"event/0501","title":"x"}`, []citywarden.Role{admin, supervisor, acceptor, leader, officer, citizen}},
		{"act-on-case", "/cases/" + aCase + "/actions/file", "", []citywarden.Role{admin, supervisor, leader}},
		{"list-attachments", "/cases/" + aCase + "/attachments", "", see},
		{"attach-photo", "/cases/" + aCase + "/attachments", form("kind", "near", "file", jpegFile), operate},
		{"get-photo", "/cases/" + aCase + "/attachments/0", "", see},
		{"get-report", "/cases/" + aCase + "/report", "", []citywarden.Role{admin, supervisor, acceptor, officer}},
		{"get-map", "/map", "", nil},
		{"get-layer", "/map/layers/grids", "", nil},
		{"get-map-devices", "/map/devices", "", nil},
		{"import-grids", "/grids/import", `{"type":"FeatureCollection","features":[]}`, admins},
		{"list-grid-versions", "/grids/350623100001001/versions", "", nil},
		{"list-areas", "/areas", "", nil},
		{"get-area-outlines", "/areas/outlines", "", nil},
		{"list-responsibility-grids", "/responsibility-grids", "", nil},
		{"get-responsibility-grid", "/responsibility-grids/north", "", nil},
		{"put-responsibility-grid", "/responsibility-grids/north", `{"officer":"officer","grids":["350623100001001"]}`, admins},
		{"delete-responsibility-grid", "/responsibility-grids/north", "", admins},
		{"import-responsibility-grids", "/responsibility-grids/import", "id,officer,grids\n", admins},
		{"list-components", "/components", "", nil},
		{"list-nearby-components", "/components/nearby?lat=24.1&lon=117.6", "", nil},
		{"get-component-map", "/components/map?west=117&south=24&east=118&north=25", "", nil},
		{"export-components", "/components/export", "", nil},
		{"import-components", "/components/import", "id,lat,lon\n", survey},
		{"put-component", "/components/3506230101000001", `{"location":{"lat":24.1,"lon":117.6}}`, survey},
		{"get-component", "/components/3506230101000001", "", nil},
		{"delete-component", "/components/3506230101000001", "", survey},
		{"watch-events", "/events", "", nil},
		{"watch-messages", "/devices/smoke-1/messages", "", nil},
		{"list-users", "/users", "", admins},
		{"create-user", "/users", `{"name":"li","role":"viewer","password":"a good one"}`, admins},
		{"list-officers", "/officers", "", nil},
		{"get-user", "/users/admin", "", admins},
		{"update-user", "/users/admin", `{"role":"admin"}`, admins},
		{"delete-user", "/users/nobody", "", admins},
		{"set-password", "/users/nobody/password", `{"password":"a good one"}`, admins},
		{"list-sessions", "/users/admin/sessions", "", admins},
		{"create-token", "/users/nobody/tokens", `{"label":"x"}`, admins},
		{"delete-session", "/users/admin/sessions/0", "", admins},
		{"list-audit", "/audit", "", admins},
		{"get-backup", "/backup", "", admins},
		{"list-api-keys", "/api-keys", "", admins},
		{"create-api-key", "/api-keys", `{"name":"wechat"}`, admins},
		{"delete-api-key", "/api-keys/wechat", "", admins},
	}
	p := newPlatform(t)
	p.server.Hub.Close() // a stream would never end here
	ops := p.operations()
	seen := slices.Clone(public)
	for _, r := range rows {
		seen = append(seen, r.op)
	}
	for op, what := range ops {
		if !slices.Contains(seen, op) {
			t.Errorf("no row for %s (%s)", op, what)
		}
	}
	for _, r := range rows {
		method, _, _ := strings.Cut(ops[r.op], " ")
		for _, role := range append([]citywarden.Role{""}, citywarden.Roles...) {
			p.city.reset()
			a := p.do(p.as(role), method+" /api/v1"+r.path, r.body, "Content-Type", contentType(r.op))
			switch allowed := r.roles == nil && role != citizen || slices.Contains(r.roles, role); {
			case role == "" && a.status != http.StatusUnauthorized:
				t.Errorf("%s without a session = %d, want 401", r.op, a.status)
			case role == "":
				if p := a.problem(t); p.Code != citywarden.CodeUnauthenticated || a.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s without a session: %s, WWW-Authenticate %q", r.op, a.body, a.header.Get("WWW-Authenticate"))
				}
			case !allowed:
				if a.status != http.StatusForbidden || a.problem(t).Code != citywarden.CodeDenied {
					t.Errorf("%s as %s = %d %s, want 403", r.op, role, a.status, a.body)
				}
			case a.status == http.StatusUnauthorized, a.status == http.StatusForbidden && r.op != "change-password", a.status == 500:
				t.Errorf("%s as %s = %d %s", r.op, role, a.status, a.body)
			}
			if r.op == "logout" {
				delete(p.tokens, role)
				if role != "" && role != admin {
					if err := p.db.DeleteUser(t.Context(), string(role)); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}

func contentType(op string) string {
	switch op {
	case "import-devices", "import-responsibility-grids", "import-components":
		return "text/csv"
	case "attach-photo":
		return "multipart/form-data; boundary=" + boundary
	}
	return "application/json"
}

// reset brings the city back to its beginning.
func (c *city) reset() {
	fresh := newCity()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.devices, c.alarms, c.cases, c.photos = fresh.devices, fresh.alarms, fresh.cases, nil
}

func TestWhatIsNotThere(t *testing.T) {
	p := newPlatform(t)
	tok := p.as(citywarden.RoleAdmin)
	for _, c := range []struct {
		what   string
		status int
		code   citywarden.Code
		detail string
	}{
		{"GET /api/v1/nothing", 404, citywarden.CodeNotFound, "there is nothing at /api/v1/nothing; /api/openapi.json says what there is"},
		{"GET /api/v1/cases/7/nothing", 404, citywarden.CodeNotFound, "there is nothing at /api/v1/cases/7/nothing; /api/openapi.json says what there is"},
		{"GET /api/v1/TOKEN/telemetry", 404, citywarden.CodeNotFound, "there is nothing to GET at /api/v1/TOKEN/telemetry; devices POST to /api/v1/{token}/telemetry, attributes, raw, claim or rpc; "},
		{"DELETE /api/v1/rules", 405, citywarden.CodeInvalid, "it takes GET"},
		{"PATCH /api/v1/devices/smoke-1", 405, citywarden.CodeInvalid, "it takes GET, PUT, DELETE"},
		{"GET /api/v1/devices/nobody", 404, citywarden.CodeNotFound, "no device nobody"},
		{"GET /api/v1/rules/nobody", 404, citywarden.CodeNotFound, "no rule nobody"},
		{"GET /api/v1/map/layers/nobody", 404, citywarden.CodeNotFound, "no layer nobody"},
		{"GET /api/v1/users/nobody", 404, citywarden.CodeNotFound, "no user nobody"},
		{"GET /api/v1/users/nobody/sessions", 404, citywarden.CodeNotFound, "no user nobody"},
		{"GET /api/v1/devices?limit=0", 400, citywarden.CodeInvalid, "query.limit"},
		{"GET /api/v1/devices?limit=1001", 400, citywarden.CodeInvalid, "query.limit"},
		{"GET /api/v1/devices?sort=name", 400, citywarden.CodeInvalid, "query.sort: unknown parameter"},
		{"GET /api/v1/alarms?severity=high", 400, citywarden.CodeInvalid, "query.severity"},
		{"GET /api/v1/cases?stage=new", 400, citywarden.CodeInvalid, "query.stage"},
		{"GET /api/v1/devices/smoke-1/series", 400, citywarden.CodeInvalid, "query.metric"},
		{"GET /api/v1/devices/smoke-1/series?metric=heat", 400, citywarden.CodeInvalid, "it has smoke, button"},
		{"GET /api/v1/devices/smoke-1/series?metric=smoke&every=often", 400, citywarden.CodeInvalid, `every: bad duration "often"`},
		{"GET /api/v1/devices/smoke-1/series?metric=smoke&agg=max", 400, citywarden.CodeInvalid, "needs every"},
		{"GET /api/v1/devices/smoke-1/series?metric=smoke&from=yesterday", 400, citywarden.CodeInvalid, `from "yesterday"`},
		{"GET /api/v1/ledger?from=2025-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", 400, citywarden.CodeInvalid, "31 days"},
		{"POST /", 404, citywarden.CodeNotFound, "nothing"},
	} {
		a := p.do(tok, c.what, "")
		if a.status != c.status {
			t.Errorf("%s = %d %s, want %d", c.what, a.status, a.body, c.status)
			continue
		}
		if got := a.problem(t); got.Code != c.code || !strings.Contains(got.Detail, c.detail) {
			t.Errorf("%s: code %s, detail %q; want %s, %q", c.what, got.Code, got.Detail, c.code, c.detail)
		}
	}
	if a := p.do(tok, "PATCH /api/v1/devices/smoke-1", ""); a.header.Get("Allow") != "GET, PUT, DELETE" {
		t.Errorf("Allow = %q", a.header.Get("Allow"))
	}
}

func TestWrongFieldsAreNamedAndNotEchoed(t *testing.T) {
	p := newPlatform(t)
	tok := p.as(citywarden.RoleAdmin)
	for _, c := range []struct {
		what, body string
		status     int
		fields     []string
	}{
		{"POST /api/v1/login", `{"user":"admin","password":"hunter2hunter2","remember":true}`, 400, []string{"body.remember"}},
		{"POST /api/v1/devices", `{"id":"a","name":"n","model":"m","attribute":{},"hunter2":1}`, 400, []string{"body.attribute", "body.hunter2"}},
		{"POST /api/v1/devices", `{"id":"a","name":"n","model":"m","location":{"lat":"north","lon":1,"height":2}}`, 400, []string{"body.location.height", "body.location.lat"}},
		{"POST /api/v1/devices", `{"id":"a"}`, 400, []string{"body", "body"}},
		{"POST /api/v1/devices", `{"id":`, 400, []string{"body"}},
		{"POST /api/v1/alarms/fire.smoke:smoke-1:1/shelve", `{"for":2,"reason":"x"}`, 400, []string{"body.for"}},
		{"POST /api/v1/users", `{"name":"li","role":"boss"}`, 400, []string{"body.role"}},
	} {
		a := p.do(tok, c.what, c.body)
		if a.status != c.status {
			t.Errorf("%s %s = %d %s, want %d", c.what, c.body, a.status, a.body, c.status)
			continue
		}
		var got []string
		for _, f := range a.problem(t).Errors {
			got = append(got, f.Location)
		}
		if diff := cmp.Diff(c.fields, got); diff != "" {
			t.Errorf("%s %s: fields (-want +got)\n%s\n%s", c.what, c.body, diff, a.body)
		}
		if strings.Contains(a.body, "hunter2hunter2") {
			t.Errorf("%s echoes a password: %s", c.what, a.body)
		}
	}
	if a := p.do(tok, "POST /api/v1/login", "user=admin", "Content-Type", "application/x-www-form-urlencoded"); a.status != http.StatusUnsupportedMediaType {
		t.Errorf("form as JSON = %d, want 415", a.status)
	}
	if a := p.do(tok, "POST /api/v1/devices", `{"id":"`+strings.Repeat("x", 2<<20)+`"}`); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("2 MB = %d, want 413", a.status)
	}
}

func TestBrowsersAreToldToBeCareful(t *testing.T) {
	p := newPlatform(t)
	for path, want := range map[string]string{
		"/":                 "script-src 'self';",
		"/api/openapi.json": "default-src 'none'",
		"/api/v1/nothing":   "default-src 'none'",
	} {
		h := p.do("", "GET "+path, "").header
		csp := h.Get("Content-Security-Policy")
		if !strings.Contains(csp, want) || strings.Contains(csp, "unsafe") || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Frame-Options") != "DENY" || h.Get("X-Request-Id") == "" {
			t.Errorf("%s: headers %v", path, h)
		}
	}
}

func TestPlainRoutes(t *testing.T) {
	p := newPlatform(t)
	for path, want := range map[string]string{
		"/healthz": `{"status":"ok"}`, "/readyz": `{"status":"ready"}`, "/metrics": "citywarden_up 1", "/": "<!doctype html>", "/devices/smoke-1": "<!doctype html>",
	} {
		if a := p.do("", "GET "+path, ""); a.status != 200 || strings.TrimSpace(a.body) != want {
			t.Errorf("GET %s = %d %q, want %q", path, a.status, a.body, want)
		}
	}
	p.server.Ready = func() error { return citywarden.Errorf(citywarden.CodeInternal, "series: connection refused") }
	a := p.do("", "GET /readyz", "")
	if got := a.problem(t); a.status != 503 || got.Code != citywarden.CodeTransient || got.Detail != "not ready: series: connection refused" {
		t.Errorf("GET /readyz = %d %s", a.status, a.body)
	}
}

func TestPanicIsAnsweredAndLogged(t *testing.T) {
	p := newPlatform(t)
	h := p.server.guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("the floor is wet") }))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/me", nil))
	a := answer{w.Code, w.Result().Header, w.Body.String()}
	if got := a.problem(t); a.status != 500 || strings.Contains(got.Detail, "wet") {
		t.Errorf("answer = %d %s", a.status, a.body)
	}
	if !strings.Contains(p.log.String(), "the floor is wet") || !strings.Contains(p.log.String(), a.header.Get("X-Request-Id")) {
		t.Errorf("log = %s", p.log)
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	_, err := New(Options{})
	if err == nil || err.Error() != "api: Options.Devices is missing" {
		t.Errorf("New = %v", err)
	}
}
