package api

import (
	"compress/gzip"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/store"
)

const (
	theAlarm = "fire.smoke:smoke-1:1"
	theCase  = "E0501202611230001"
)

func TestDevices(t *testing.T) {
	p := newPlatform(t)
	vendor := p.as(citywarden.RoleVendor)
	a := p.do(vendor, "POST /api/v1/devices", `{"id":"smoke-3","name":"Roof","model":"smoke-detector","attributes":{"zone":"R","height":12.5},"location":{"lat":24.1,"lon":117.6}}`)
	if a.status != 201 || a.header.Get("Location") != "/api/v1/devices/smoke-3" {
		t.Fatalf("create = %d %v %s", a.status, a.header, a.body)
	}
	var d citywarden.DeviceView
	a.into(t, &d)
	want := citywarden.Device{ID: "smoke-3", Name: "Roof", Model: "smoke-detector", Attributes: map[string]any{"zone": "R", "height": 12.5}, Location: &citywarden.Point{Lat: 24.1, Lon: 117.6}}
	if diff := cmp.Diff(want, d.Device); diff != "" {
		t.Errorf("created (-want +got)\n%s", diff)
	}
	if a := p.do(vendor, "POST /api/v1/devices", `{"id":"smoke-3","name":"x","model":"smoke-detector"}`); a.status != 409 || a.problem(t).Code != citywarden.CodeConflict {
		t.Errorf("create twice = %d %s", a.status, a.body)
	}
	if a := p.do(vendor, "POST /api/v1/devices", `{"id":"no spaces","name":"x","model":"smoke-detector"}`); a.status != 400 {
		t.Errorf("bad id = %d %s", a.status, a.body)
	}
	// What was read can be written back, with a change.
	read := p.do(vendor, "GET /api/v1/devices/smoke-1", "")
	if a := p.do(vendor, "PUT /api/v1/devices/smoke-1", strings.Replace(read.body, "Hall", "Entrance", 1)); a.status != 200 || !strings.Contains(a.body, "Entrance") {
		t.Errorf("write back %s = %d %s", read.body, a.status, a.body)
	}
	if a := p.do(vendor, "PUT /api/v1/devices/smoke-1", `{"id":"smoke-2","name":"x","model":"smoke-detector"}`); a.status != 400 {
		t.Errorf("change of id = %d %s", a.status, a.body)
	}
	var l list[citywarden.DeviceView]
	p.do(vendor, "GET /api/v1/devices?limit=2", "").into(t, &l)
	if len(l.Items) != 2 || l.Next == nil {
		t.Fatalf("first page = %+v", l)
	}
	p.do(vendor, "GET /api/v1/devices?limit=2&after="+*l.Next, "").into(t, &l)
	if len(l.Items) != 1 || l.Next != nil || l.Items[0].ID != "smoke-3" {
		t.Errorf("second page = %+v", l)
	}
	if a := p.do(vendor, "GET /api/v1/devices?q=nothing", ""); strings.TrimSpace(a.body) != `{"items":[],"next":null}` {
		t.Errorf("empty list = %s", a.body)
	}
	if a := p.do(vendor, "POST /api/v1/devices/smoke-1/credentials", `{"type":"token"}`); a.status != 201 || !strings.Contains(a.body, `"token":"token-of-smoke-1"`) {
		t.Errorf("credentials = %d %s", a.status, a.body)
	}
	if a := p.do(vendor, "POST /api/v1/devices/smoke-1/credentials", `{"type":"mqtt","overlap":"1d"}`); a.status != 201 || strings.TrimSpace(a.body) != `{"user":"smoke-1","password":"token-of-smoke-1"}` {
		t.Errorf("credentials of MQTT = %d %s", a.status, a.body)
	}
	for body, says := range map[string]string{`{"type":"token","user":"u"}`: "say type mqtt", `{"type":"token","overlap":"soon"}`: "overlap"} {
		if a := p.do(vendor, "POST /api/v1/devices/smoke-1/credentials", body); a.status != 400 || !strings.Contains(a.body, says) {
			t.Errorf("credentials %s = %d %s", body, a.status, a.body)
		}
	}
	for body, says := range map[string]string{
		`{"type":"x509"}`: "give the certificate in PEM", `{"type":"token","subject":"x"}`: "say type x509",
	} {
		if a := p.do(vendor, "POST /api/v1/devices/smoke-1/credentials", body); a.status != 400 || !strings.Contains(a.body, says) {
			t.Errorf("credentials %s = %d %s", body, a.status, a.body)
		}
	}
	if a := p.do(vendor, "GET /api/v1/devices/smoke-1/credentials", ""); a.status != 200 || !strings.Contains(a.body, `{"kind":"token","hint":"abcd…"}`) {
		t.Errorf("credentials = %d %s", a.status, a.body)
	}
	if a := p.do(vendor, "DELETE /api/v1/devices/smoke-1/credentials", ""); a.status != 204 {
		t.Errorf("credentials revoked = %d %s", a.status, a.body)
	}
	if a := p.do(vendor, "POST /api/v1/devices/smoke-1/credentials", `{"type":"lora"}`); a.status != 400 {
		t.Errorf("credentials of another type = %d %s", a.status, a.body)
	}
	if a := p.do(vendor, "GET /api/v1/devices/smoke-1/latest", ""); strings.TrimSpace(a.body) != `{"smoke":{"value":0.31,"time":"2026-11-23T04:00:00Z","quality":"good"}}` {
		t.Errorf("latest = %s", a.body)
	}
	if a := p.do(vendor, "GET /api/v1/devices/smoke-2/latest", ""); strings.TrimSpace(a.body) != `{}` {
		t.Errorf("latest of a silent one = %s", a.body)
	}
	if a := p.do(vendor, "DELETE /api/v1/devices/smoke-3", ""); a.status != 204 || a.body != "" {
		t.Errorf("delete = %d %s", a.status, a.body)
	}
	if a := p.do(vendor, "GET /api/v1/devices/smoke-3", ""); a.status != 404 {
		t.Errorf("after delete = %d", a.status)
	}
	a = p.do(vendor, "POST /api/v1/devices/import", "id,name\nsmoke-7,Shed\nsmoke-1,Hall\n", "Content-Type", "text/csv")
	var r ImportReport
	a.into(t, &r)
	wantReport := ImportReport{Created: 1, Failed: 1, Lines: []ImportLine{{Line: 2, ID: "smoke-7", OK: true}, {Line: 3, ID: "smoke-1", Error: "there is a device smoke-1 already"}}}
	if diff := cmp.Diff(wantReport, r); a.status != 200 || diff != "" {
		t.Errorf("import = %d (-want +got)\n%s", a.status, diff)
	}
	a = p.do(vendor, "GET /api/v1/devices/export", "")
	if !strings.HasPrefix(a.header.Get("Content-Type"), "text/csv") || !strings.HasPrefix(a.body, "id,name,model\nsmoke-1,") {
		t.Errorf("export = %d %v %s", a.status, a.header, a.body)
	}
}

func TestSeries(t *testing.T) {
	p := newPlatform(t)
	tok := p.as(citywarden.RoleService)
	a := p.do(tok, "GET /api/v1/devices/smoke-1/series?metric=smoke&from=2026-11-23T12:00:00+08:00&to=2026-11-23T05:00:00Z&every=1m&agg=max", "")
	if want := `{"points":[["2026-11-23T04:00:00Z",0.31],["2026-11-23T04:01:00Z",0.02]],"unit":"dB/m","gaps":[],"truncated":false}`; strings.TrimSpace(a.body) != want {
		t.Errorf("series = %d %s, want %s", a.status, a.body, want)
	}
	want := citywarden.SeriesQuery{Device: "smoke-1", Domain: citywarden.Fire, Metric: "smoke", From: noon, To: noon.Add(time.Hour), Every: time.Minute, Agg: "max", Limit: maxPoints + 1}
	if diff := cmp.Diff([]citywarden.SeriesQuery{want}, p.queries); diff != "" {
		t.Errorf("query (-want +got)\n%s", diff)
	}
	p.points = make([]citywarden.SeriesPoint, maxPoints+5)
	a = p.do(tok, "GET /api/v1/devices/smoke-1/series?metric=smoke", "")
	var s struct {
		Points    [][2]any
		Truncated bool
	}
	a.into(t, &s)
	if len(s.Points) != maxPoints || !s.Truncated {
		t.Errorf("%d points, truncated %v", len(s.Points), s.Truncated)
	}
	q := p.queries[len(p.queries)-1]
	if q.To.Sub(q.From) != 24*time.Hour || time.Since(q.To) > time.Minute || q.Every != 0 {
		t.Errorf("query without times = %+v", q)
	}
	p.points = nil
	if a := p.do(tok, "GET /api/v1/devices/smoke-1/series?metric=smoke", ""); !strings.Contains(a.body, `"points":[]`) {
		t.Errorf("no points = %s", a.body)
	}
}

func TestOrdersToAlarms(t *testing.T) {
	p := newPlatform(t)
	officer, dispatcher := p.as(citywarden.RoleOfficer), p.as(citywarden.RoleDispatcher)
	supervisor, vendor := p.as(citywarden.RoleSupervisor), p.as(citywarden.RoleVendor)
	path := "POST /api/v1/alarms/" + theAlarm
	var a citywarden.Alarm
	for _, c := range []struct {
		what, body, token string
		status            int
		says              string
	}{
		{path + "/unshelve", "", officer, 409, "is not shelved"},
		{path + "/reset", "", officer, 409, "is not latched"},
		{path + "/ack", "", officer, 200, `"acked_by":"officer"`},
		{path + "/ack", "", dispatcher, 409, "was acknowledged by officer at 2026-11-23T04:00:00Z"},
		{path + "/ack", "{}", officer, 409, "was acknowledged by officer"},
		{path + "/shelve", `{"for":"2h","reason":"works"}`, dispatcher, 200, `"shelved_until"`},
		{path + "/shelve", `{"for":"2h"}`, dispatcher, 400, "reason"},
		{path + "/shelve", `{"for":"2h","reason":""}`, dispatcher, 400, "body.reason"},
		{path + "/shelve", `{"reason":"works"}`, dispatcher, 400, "one of the two"},
		{path + "/shelve", `{"for":"2h","until":"2099-01-01T00:00:00Z","reason":"works"}`, dispatcher, 400, "one of the two"},
		{path + "/shelve", `{"until":"2020-01-01T00:00:00Z","reason":"works"}`, dispatcher, 400, "in the future"},
		{path + "/shelve", `{"for":"31d","reason":"works"}`, dispatcher, 400, "at most 30 days"},
		{path + "/shelve", `{"for":"-1h","reason":"works"}`, dispatcher, 400, "in the future"},
		{path + "/unshelve", `{"reason":"done"}`, officer, 200, `"acked":false`},
		{"POST /api/v1/alarms/nobody:x:1/ack", "", officer, 404, "no alarm"},
		{path + "/in-service", "", supervisor, 409, "is not out of service"},
		{path + "/out-of-service", `{}`, supervisor, 400, "reason"},
		{path + "/out-of-service", `{"reason":"new head"}`, officer, 403, "officer may not take alarms out of service; admin or supervisor or shift_leader or engineer may"},
		{path + "/out-of-service", `{"reason":"new head"}`, supervisor, 200, `"out_of_service_since":"2026-11-23T04:00:00Z","out_of_service_by":"supervisor","out_of_service_reason":"new head"`},
		{path + "/out-of-service", `{"reason":"again"}`, supervisor, 409, "was taken out of service by supervisor at 2026-11-23T04:00:00Z"},
		{"GET /api/v1/alarms?suppressed=out_of_service", "", officer, 200, theAlarm},
		{"GET /api/v1/alarms?suppressed=none", "", officer, 200, `{"items":[]`},
		{"GET /api/v1/alarms?suppressed=maybe", "", officer, 400, "query.suppressed"},
		{"GET /api/v1/summary", "", officer, 200, `"active":0,"unacked":0,"by_severity":{},"suppressed":1`},
		{path + "/in-service", `{"reason":"tested"}`, supervisor, 200, `"acked":false`},
		{path + "/comment", `{"text":" "}`, officer, 400, "the text is empty"},
		{path + "/comment", `{"text":" door was open "}`, officer, 200, theAlarm},
		{path + "/comment", `{"text":"x"}`, vendor, 403, "may not operate alarms"},
		{path + "/assign", `{"to":"nobody"}`, officer, 400, "no user nobody"},
		{path + "/assign", `{}`, officer, 400, "to"},
		{path + "/assign", `{"to":""}`, officer, 409, "is assigned to nobody"},
		{path + "/assign", `{"to":"dispatcher"}`, officer, 200, `"assignee":"dispatcher"`},
		{path + "/assign", `{"to":"dispatcher"}`, officer, 409, "is assigned to dispatcher already"},
		{"GET /api/v1/alarms?assignee=dispatcher&acked=false", "", officer, 200, theAlarm},
		{"GET /api/v1/alarms?acked=true", "", officer, 200, `{"items":[]`},
		{path + "/assign", `{"to":""}`, officer, 200, theAlarm},
	} {
		got := p.do(c.token, c.what, c.body)
		if got.status != c.status || !strings.Contains(got.body, c.says) {
			t.Errorf("%s %s = %d %s, want %d %s", c.what, c.body, got.status, got.body, c.status, c.says)
		}
	}
	p.do(officer, "GET /api/v1/alarms/"+theAlarm, "").into(t, &a)
	if a.ID != theAlarm || a.Acked || a.Assignee != "" { // unacknowledged since it is back in service
		t.Errorf("alarm = %+v", a)
	}
	var history list[citywarden.AlarmStep]
	p.do(officer, "GET /api/v1/alarms/"+theAlarm+"/history", "").into(t, &history)
	var steps []string
	for _, s := range history.Items {
		steps = append(steps, strings.TrimSpace(fmt.Sprintf("%s by %s %s%s%s", s.Kind, s.By, s.Reason, s.Text, s.Assignee)))
	}
	want := []string{"acked by officer", "shelved by dispatcher works", "unshelved by officer done", "out_of_service by supervisor new head",
		"in_service by supervisor tested", "commented by officer door was open", "assigned by officer dispatcher", "assigned by officer"}
	if diff := cmp.Diff(want, steps); diff != "" || history.Next != nil {
		t.Errorf("history (-want +got)\n%s", diff)
	}
	var kinds []string
	for _, o := range p.orders {
		kinds = append(kinds, string(o.Kind)+" "+o.By)
	}
	if diff := cmp.Diff([]string{"ack officer", "shelve dispatcher", "unshelve officer", "out_of_service supervisor", "in_service supervisor",
		"comment officer", "assign officer", "assign officer"}, kinds); diff != "" {
		t.Errorf("orders (-want +got)\n%s", diff)
	}
	latched, silent := a, a
	latched.Latched, silent.NoData = true, true
	for _, a := range []citywarden.Alarm{latched, silent} {
		p.alarms[theAlarm] = a
		if got := p.do(officer, path+"/reset", ""); got.status != 200 || !strings.Contains(got.body, `"state":"cleared"`) {
			t.Errorf("reset = %d %s", got.status, got.body)
		}
	}
}

func TestOutOfServiceWithoutAnAlarm(t *testing.T) {
	p := newPlatform(t)
	officer, supervisor, engineer := p.as(citywarden.RoleOfficer), p.as(citywarden.RoleSupervisor), p.as(citywarden.RoleEngineer)
	const device, rule = "POST /api/v1/devices/smoke-1", "POST /api/v1/rules/fire.smoke"
	for _, c := range []struct {
		token, what, body string
		status            int
		says              string
	}{
		{officer, "GET /api/v1/out-of-service", "", 200, `"items":[]`},
		{officer, device + "/out-of-service", `{"reason":"works"}`, 403, "officer may not take alarms out of service"},
		{supervisor, device + "/out-of-service", `{}`, 400, "reason"},
		{supervisor, device + "/out-of-service", `{"reason":"works","for":"-1h"}`, 400, "in the future"},
		{supervisor, device + "/out-of-service", `{"reason":"works","for":"1h","until":"2099-01-01T00:00:00Z"}`, 400, "one of the two"},
		{supervisor, "POST /api/v1/devices/nowhere/out-of-service", `{"reason":"works"}`, 404, "nowhere"},
		{supervisor, device + "/in-service", "", 409, "device smoke-1 is not out of service"},
		{supervisor, device + "/out-of-service", `{"reason":"works","until":"2099-01-01T00:00:00Z"}`, 200,
			`{"device":"smoke-1","since":"2026-11-23T04:00:00Z","until":"2099-01-01T00:00:00Z","by":"supervisor","reason":"works"}`},
		{engineer, device + "/out-of-service", `{"reason":"works","until":"2099-01-01T00:00:00Z"}`, 409, "was taken out of service by supervisor at 2026-11-23T04:00:00Z"},
		{engineer, device + "/out-of-service", `{"reason":"takes longer"}`, 200, `"reason":"takes longer"`},
		{supervisor, rule + "/out-of-service", `{"entity":"smoke-1","reason":"dust"}`, 200, `"rule":"fire.smoke","entity":"smoke-1"`},
		{supervisor, rule + "/out-of-service", `{"entity":"elsewhere","reason":"dust"}`, 404, `rule fire.smoke does not watch \"elsewhere\"`},
		{supervisor, "POST /api/v1/rules/nothing/out-of-service", `{"entity":"smoke-1","reason":"dust"}`, 404, "no rule nothing"},
		{officer, "GET /api/v1/out-of-service", "", 200, `"by":"engineer","reason":"takes longer"},{"rule":"fire.smoke"`},
		{supervisor, device + "/in-service", `{"reason":"done"}`, 200, `"reason":"takes longer"`},
		{supervisor, rule + "/in-service", `{"entity":"smoke-1"}`, 200, `"reason":"dust"`},
		{supervisor, rule + "/in-service", `{"entity":"smoke-1"}`, 409, "rule fire.smoke on smoke-1 is not out of service"},
		{officer, "GET /api/v1/out-of-service", "", 200, `"items":[]`},
	} {
		got := p.do(c.token, c.what, c.body)
		if got.status != c.status || !strings.Contains(got.body, c.says) {
			t.Errorf("%s %s = %d %s, want %d %s", c.what, c.body, got.status, got.body, c.status, c.says)
		}
	}
	with := p.alarms[theAlarm]
	with.TakeOut(citywarden.OutOfService{Device: "smoke-1", Since: noon, By: "li", Reason: "works"})
	p.alarms[theAlarm] = with
	if got := p.do(supervisor, "POST /api/v1/alarms/"+theAlarm+"/in-service", ""); got.status != 409 || !strings.Contains(got.body, "is out of service with device smoke-1; return the device") {
		t.Errorf("in service = %d %s", got.status, got.body)
	}
}

// Somebody else acknowledges between our look and our order.
func TestSomebodyElseWasFaster(t *testing.T) {
	p := newPlatform(t)
	p.between = func(c *city, o citywarden.AlarmOrder) {
		c.mu.Lock()
		defer c.mu.Unlock()
		a := c.alarms[o.Alarm]
		a.Acked, a.AckedBy, a.AckedAt = true, "chen", noon
		a.State = citywarden.AlarmCleared
		c.alarms[o.Alarm] = a
		c.past = true // and it is raised again
	}
	tok := p.as(citywarden.RoleSupervisor)
	for what, body := range map[string]string{
		"/ack": "", "/shelve": `{"for":"1h","reason":"x"}`, "/comment": `{"text":"x"}`, "/assign": `{"to":"supervisor"}`, "/out-of-service": `{"reason":"x"}`,
	} {
		p.city.reset()
		a := p.do(tok, "POST /api/v1/alarms/"+theAlarm+what, body)
		if a.status != 409 || a.problem(t).Code != citywarden.CodeConflict {
			t.Errorf("%s = %d %s, want 409", what, a.status, a.body)
		}
	}
}

func TestOrderThatIsNotAppliedInTime(t *testing.T) {
	p := newPlatform(t)
	p.stuck = true
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		a := p.do(p.as(citywarden.RoleOfficer), "POST /api/v1/alarms/"+theAlarm+"/ack", "")
		if got := a.problem(t); a.status != 503 || !strings.Contains(got.Detail, "is stored but not applied yet") || a.header.Get("Retry-After") == "" {
			t.Errorf("ack = %d %s", a.status, a.body)
		}
		if took := time.Since(began); took != orderWait {
			t.Errorf("took %s, want %s", took, orderWait)
		}
	})
}

func TestWhy(t *testing.T) {
	p := newPlatform(t)
	a := p.do(p.as(citywarden.RoleViewer), "GET /api/v1/alarms/"+theAlarm+"/why", "")
	for _, want := range []string{`"severity":"critical"`, `"held":"20s"`, `"condition":"smoke > 0.12"`, `"value":0.31`} {
		if !strings.Contains(a.body, want) {
			t.Errorf("why = %d %s, want %s", a.status, a.body, want)
		}
	}
}

func TestAlarmLoad(t *testing.T) {
	p := newPlatform(t)
	tok := p.as(citywarden.RoleViewer)
	for _, c := range []struct {
		query  string
		status int
		says   string
	}{
		{"?from=2026-11-23T12:00:00%2B08:00&to=2026-11-23T05:00:00Z", 200, `"from":"2026-11-23T04:00:00Z","to":"2026-11-23T05:00:00Z","operators":1,"alarms":1,`},
		{"?from=2026-11-23T04:00:01Z&to=2026-11-23T05:00:00Z", 200, `"alarms":0`},
		{"?from=2026-11-01T00:00:00Z&to=2026-12-02T00:00:00Z", 200, `"alarms":1`},
		{"?from=2026-11-01T00:00:00Z&to=2026-12-02T00:00:01Z", 400, "at most 31 days"},
		{"?from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z", 400, "from"},
		{"?from=yesterday", 400, "from"},
	} {
		if a := p.do(tok, "GET /api/v1/alarms/load"+c.query, ""); a.status != c.status || !strings.Contains(a.body, c.says) {
			t.Errorf("load%s = %d %s, want %d %s", c.query, a.status, a.body, c.status, c.says)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(7 * time.Minute)
		var l citywarden.AlarmLoad
		p.do(tok, "GET /api/v1/alarms/load", "").into(t, &l)
		if now := time.Now(); !l.To.Equal(now) || !l.From.Equal(now.Add(-24*time.Hour-7*time.Minute)) {
			t.Errorf("without times: %s to %s, at %s", l.From, l.To, now)
		}
	})
}

func TestAlarmFilters(t *testing.T) {
	p := newPlatform(t)
	tok := p.as(citywarden.RoleViewer)
	for q, want := range map[string]int{"": 1, "?state=active": 1, "?state=cleared": 0, "?severity=critical": 1, "?severity=minor": 0, "?device=smoke-1&rule=fire.smoke": 1, "?device=smoke-2": 0} {
		var l list[citywarden.Alarm]
		p.do(tok, "GET /api/v1/alarms"+q, "").into(t, &l)
		if len(l.Items) != want {
			t.Errorf("alarms%s = %d, want %d", q, len(l.Items), want)
		}
	}
}

// What a list is filtered by and no longer is, or never was: what is left of it is
// found, and a slip of the pen is no empty list.
func TestListsByWhatThereIsNot(t *testing.T) {
	p := newPlatform(t)
	tok := p.as(citywarden.RoleViewer)
	gone := p.city.alarms["fire.smoke:smoke-1:1"]
	gone.ID, gone.Rule = "fire.old:smoke-1:1", "fire.old"
	p.city.alarms[gone.ID] = gone
	for _, c := range []struct {
		query  string
		status int
		items  int
		says   string
	}{
		{"/alarms?rule=fire.smoke&state=cleared", 200, 0, ""},
		{"/alarms?rule=fire.old", 200, 1, ""},
		{"/alarms?rule=fire.old&severity=minor", 200, 0, ""},
		{"/alarms?rule=fire.smok", 400, 0, `no rule fire.smok; did you mean \"fire.smoke\"?`},
		{"/alarms?rule=parking.full", 400, 0, `no rule parking.full"`},
		{"/devices?model=smoke-detector&q=nothing", 200, 0, ""},
		{"/devices?model=smoke-detecter", 400, 0, `no model \"smoke-detecter\"; did you mean \"smoke-detector\"?`},
		{"/cases?class=event/0501&stage=closed", 200, 0, ""},
		{"/cases?class=event/9999", 400, 0, `no class \"event/9999\"; `},
		{"/components?class=event/9999", 400, 0, `no class \"event/9999\"; `},
	} {
		a := p.do(tok, "GET /api/v1"+c.query, "")
		if a.status != c.status || !strings.Contains(a.body, c.says) {
			t.Errorf("%s: %d %s, want %d %s", c.query, a.status, a.body, c.status, c.says)
			continue
		}
		var l list[any]
		if a.into(t, &l); len(l.Items) != c.items {
			t.Errorf("%s: %d, want %d", c.query, len(l.Items), c.items)
		}
	}
}

// A case is worked to its end, each step by the post that it belongs to.
func TestCaseFromFilingToClose(t *testing.T) {
	p := newPlatform(t)
	for i, c := range []struct {
		role         citywarden.Role
		action, body string
		status       int
		says         string
	}{
		{citywarden.RoleDispatcher, "dispatch", `{"department":"fire"}`, 409, "cannot dispatch a case that is pending filing"},
		{citywarden.RoleSupervisor, "file", `{"revision":7}`, 409, "has changed since"},
		{citywarden.RoleSupervisor, "file", "", 200, "pending_dispatch"},
		{citywarden.RoleDepartment, "handle", `{}`, 403, "not dispatched to a department yet"},
		{citywarden.RoleDispatcher, "dispatch", "", 400, "name the department"},
		{citywarden.RoleDispatcher, "dispatch", `{"department":"water"}`, 200, "pending_handling"},
		{citywarden.RoleDepartment, "accept", "", 403, "belongs to water, not to fire"},
		{citywarden.RoleDispatcher, "dispatch", `{"department":"fire"}`, 409, "cannot dispatch a case that is pending handling"},
		{citywarden.RoleDispatcher, "redispatch", `{"department":"fire"}`, 400, "say why in the note"},
		{citywarden.RoleDispatcher, "redispatch", `{"department":"fire","note":"it burns"}`, 200, `"department":"fire"`},
		{citywarden.RoleDepartment, "accept", "", 200, "handling"},
		{citywarden.RoleDepartment, "handle", `{"note":"put out","revision":2}`, 409, "has changed since"},
		{citywarden.RoleDepartment, "handle", `{"note":"put out"}`, 200, `"handled_by":"department"`},
		{citywarden.RoleOfficer, "verify", "", 200, "pending_close"},
		{citywarden.RoleSupervisor, "close", "", 200, `"stage":"closed"`},
		{citywarden.RoleSupervisor, "explode", "", 400, "path.action"},
		{citywarden.RoleSupervisor, "reopen", "", 403, "may not reopen"},
		{citywarden.RoleSupervisor, "close", `{"comment":"x"}`, 400, "body.comment: unknown field"},
	} {
		a := p.do(p.as(c.role), "POST /api/v1/cases/"+theCase+"/actions/"+c.action, c.body)
		if a.status != c.status || !strings.Contains(a.body, c.says) {
			t.Errorf("%d: %s %s %s = %d %s, want %d %s", i, c.role, c.action, c.body, a.status, a.body, c.status, c.says)
		}
	}
	var c citywarden.Case
	p.do(p.as(citywarden.RoleSupervisor), "GET /api/v1/cases/"+theCase, "").into(t, &c)
	var steps []string
	for _, s := range c.Timeline {
		steps = append(steps, fmt.Sprintf("%s by %s", s.Action, s.By))
	}
	want := []string{"file by supervisor", "dispatch by dispatcher", "redispatch by dispatcher", "accept by department", "handle by department", "verify by officer", "close by supervisor"}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Errorf("timeline (-want +got)\n%s", diff)
	}
}

func TestActionsAreThoseOfTheCaller(t *testing.T) {
	p := newPlatform(t)
	p.do(p.as(citywarden.RoleAdmin), "POST /api/v1/cases/"+theCase+"/actions/file", "")
	p.do(p.as(citywarden.RoleAdmin), "POST /api/v1/cases/"+theCase+"/actions/dispatch", `{"department":"water"}`)
	for role, want := range map[citywarden.Role][]citywarden.Action{
		citywarden.RoleSupervisor: {citywarden.Void, citywarden.Supervise, citywarden.Urge, citywarden.Comment},
		citywarden.RoleViewer:     nil,
	} {
		var c citywarden.Case
		p.do(p.as(role), "GET /api/v1/cases/"+theCase, "").into(t, &c)
		if diff := cmp.Diff(want, c.Actions); diff != "" {
			t.Errorf("actions of %s (-want +got)\n%s", role, diff)
		}
	}
}

func TestCasesByHandAndLists(t *testing.T) {
	p := newPlatform(t)
	tok := p.as(citywarden.RoleSupervisor)
	a := p.do(tok, "POST /api/v1/cases", `{"class":"event/0502","title":"hole in the road","location":{"lat":24.1,"lon":117.6}}`)
	if a.status != 201 || a.header.Get("Location") != "/api/v1/cases/E0502202611230002" {
		t.Errorf("create = %d %v %s", a.status, a.header, a.body)
	}
	for q, want := range map[string]int{"": 2, "?open=true": 2, "?stage=closed": 0, "?work_orders=true": 0} {
		var l list[citywarden.Case]
		p.do(tok, "GET /api/v1/cases"+q, "").into(t, &l)
		if len(l.Items) != want {
			t.Errorf("cases%s = %d, want %d", q, len(l.Items), want)
		}
	}
	for path, want := range map[string]string{
		"/classes": `"code":"event/0501"`, "/rules": `"severity":"critical"`, "/rules/fire.smoke": `"text":"id: fire.smoke"`, "/models": `"kind":"number"`,
		"/deadletters": `"payload":"ew=="`, "/ledger?from=2026-11-23T00:00:00Z&to=2026-11-24T00:00:00Z": `"rejected":1`, "/cases/" + theCase: `"actions":["send_verify","file"`,
	} {
		if a := p.do(tok, "GET /api/v1"+path, ""); a.status != 200 || !strings.Contains(a.body, want) {
			t.Errorf("%s = %d %s, want %s", path, a.status, a.body, want)
		}
	}
}

func TestSummaryIsCountedOnceASecond(t *testing.T) {
	p := newPlatform(t)
	synctest.Test(t, func(t *testing.T) {
		tok := p.as(citywarden.RoleViewer)
		const want = `{"devices":{"total":2,"online":1,"silent":0,"never":1},"alarms":{"active":1,"unacked":1,"by_severity":{"critical":1},"suppressed":0},"cases":{"open":1,"overdue":0,"by_stage":{"pending_filing":1}}}`
		if a := p.do(tok, "GET /api/v1/summary", ""); strings.TrimSpace(a.body) != want {
			t.Errorf("summary = %d %s, want %s", a.status, a.body, want)
		}
		if err := p.Delete(t.Context(), "smoke-2"); err != nil {
			t.Fatal(err)
		}
		if a := p.do(tok, "GET /api/v1/summary", ""); strings.TrimSpace(a.body) != want {
			t.Errorf("summary in the same second = %s", a.body)
		}
		time.Sleep(time.Second)
		if a := p.do(tok, "GET /api/v1/summary", ""); !strings.Contains(a.body, `"total":1`) {
			t.Errorf("summary a second later = %s", a.body)
		}
	})
}

func TestMap(t *testing.T) {
	p := newPlatform(t)
	tok := p.as(citywarden.RoleViewer)
	if a := p.do(tok, "GET /api/v1/map", ""); strings.TrimSpace(a.body) != `{"center":{"lat":24.15,"lon":117.69999999999999},"bounds":[[117.6,24.1],[117.8,24.2]],"layers":["grids","streets"]}` {
		t.Errorf("map = %d %s", a.status, a.body)
	}
	a := p.do(tok, "GET /api/v1/map/layers/grids", "")
	if a.status != 200 || a.header.Get("Content-Type") != "application/geo+json" || a.body != `{"type":"FeatureCollection","features":[]}` {
		t.Errorf("layer = %d %v %s", a.status, a.header, a.body)
	}
	if b := p.do(tok, "GET /api/v1/map/layers/grids", "", "If-None-Match", a.header.Get("ETag")); b.status != 304 || b.body != "" {
		t.Errorf("layer again = %d %s", b.status, b.body)
	}
	const what = "GET /api/v1/map/devices"
	p.do(p.as(citywarden.RoleVendor), "POST /api/v1/devices", `{"id":"smoke-3","name":"Roof","model":"smoke-detector","location":{"lat":24.1,"lon":117.6}}`)
	a = p.do(tok, what, "")
	if want := `"geometry":{"type":"Point","coordinates":[117.6,24.1]},"properties":{"id":"smoke-3","name":"Roof","model":"smoke-detector","status":"never"`; a.status != 200 || !strings.Contains(a.body, want) || a.header.Get("Content-Encoding") != "" {
		t.Errorf("devices = %d %v %s, want %s in it", a.status, a.header, a.body, want)
	}
	packed := p.do(tok, what, "", "Accept-Encoding", "br, gzip")
	z, err := gzip.NewReader(strings.NewReader(packed.body))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := io.ReadAll(z); err != nil || string(plain) != a.body || packed.header.Get("Content-Encoding") != "gzip" || packed.header.Get("ETag") != a.header.Get("ETag") {
		t.Errorf("devices packed = %v %s, %v", packed.header, plain, err)
	}
}

func TestInternalErrorsStayInside(t *testing.T) {
	p := newPlatform(t)
	p.server.Series = broken{}
	a := p.do(p.as(citywarden.RoleViewer), "GET /api/v1/devices/smoke-1/series?metric=smoke", "")
	got := a.problem(t)
	if a.status != 500 || got.Code != citywarden.CodeInternal || strings.Contains(a.body, "10.0.0.5") {
		t.Errorf("series = %d %s", a.status, a.body)
	}
	id := strings.TrimPrefix(got.Instance, "urn:citywarden:request:")
	if log := p.log.String(); !strings.Contains(log, "10.0.0.5") || !strings.Contains(log, id) || !strings.Contains(got.Detail, id) {
		t.Errorf("log = %s, answer %s", log, a.body)
	}
}

func TestADepartmentReadsItsNoticesOnly(t *testing.T) {
	p := newPlatform(t)
	err := p.db.UpdateDesk(t.Context(), func(tx *store.DeskTx) error {
		for id, department := range map[citywarden.CaseID]string{"E1": "fire", "E2": "gas"} {
			c := citywarden.Case{ID: id, Department: department}
			if err := tx.SaveCase(t.Context(), c, 0); err != nil {
				return err
			}
			n := citywarden.Notice{Key: string(id), Case: id, Receiver: "all", State: citywarden.NoticeSent, At: noon}
			if _, err := tx.AddNotices(t.Context(), []citywarden.Notice{n}); err != nil {
				return err
			}
		}
		taken := citywarden.Case{ID: "E3", Department: "gas", Dispatched: []string{"fire", "gas"}} // fire had it before
		if err := tx.SaveCase(t.Context(), taken, 0); err != nil {
			return err
		}
		for _, to := range []string{"fire", "gas"} {
			n := citywarden.Notice{Key: "E3/" + to, Case: "E3", Receiver: to, Department: to, State: citywarden.NoticeSent, At: noon}
			if _, err := tx.AddNotices(t.Context(), []citywarden.Notice{n}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for role, want := range map[citywarden.Role]string{citywarden.RoleDepartment: "[E1 E3/fire]", citywarden.RoleDispatcher: "[E1 E2 E3/fire E3/gas]"} {
		var got list[citywarden.Notice]
		p.do(p.as(role), "GET /api/v1/notices", "").into(t, &got)
		var ids []string
		for _, n := range got.Items {
			ids = append(ids, n.Key)
		}
		slices.Sort(ids)
		if fmt.Sprint(ids) != want {
			t.Errorf("%s reads the notices of %v, want %s", role, ids, want)
		}
	}
}
