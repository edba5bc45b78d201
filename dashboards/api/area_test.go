package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/devices"
	"github.com/citywarden/citywarden/store"
)

// landmark is a place with one of everything; the name of each begins with "mark-"
// and the landmark's.
type landmark struct {
	name string
	grid citywarden.GridCode // "" for none
	at   citywarden.Point
	made map[string]string // what the parts of paths in braces stand for
}

func (l *landmark) mark() string { return "mark-" + l.name }

// landmarks lie in two villages of one town, in another town, in no unit grid and
// in another county.
func landmarks() []*landmark {
	out := []*landmark{{name: "first", grid: "350623100001001"}, {name: "second", grid: "350623100002001"}, {name: "third", grid: "350623101001001"}, {name: "nowhere"}, {name: "abroad", grid: "350681100001001"}}
	for i, l := range out {
		l.at = citywarden.Point{Lat: 24.1005, Lon: 117.6005 + 0.01*float64(i)}
		l.made = map[string]string{}
	}
	return out
}

// parish is who is confined to an area, and the landmarks that they see.
type parish struct {
	area citywarden.AreaCode
	sees []string
}

var parishes = []parish{
	{"350623100001", []string{"first"}},
	{"350623100", []string{"first", "second"}},
	{"350623", []string{"first", "second", "third", "nowhere"}},
	{"", []string{"first", "second", "third", "nowhere", "abroad"}},
}

// newCounty is a platform with real devices, alarms and cases at the landmarks.
func newCounty(t *testing.T, marks []*landmark) *platform {
	p := newPlatform(t)
	ctx := t.Context()
	grids, err := cases.LoadGrids(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	var squares []citywarden.UnitGrid
	var streets []string
	for _, l := range marks {
		const half = 0.0005
		a, b, c, d := l.at, l.at, l.at, l.at
		a.Lat, a.Lon, b.Lat, b.Lon, c.Lat, c.Lon, d.Lat, d.Lon = a.Lat-half, a.Lon-half, b.Lat-half, b.Lon+half, c.Lat+half, c.Lon+half, d.Lat+half, d.Lon-half
		if l.grid != "" {
			squares = append(squares, citywarden.UnitGrid{Code: l.grid, Name: l.mark(), Village: l.mark(), Ring: []citywarden.Point{a, b, c, d}})
		}
		streets = append(streets, fmt.Sprintf(`{"type":"Feature","properties":{"name":%q},"geometry":{"type":"LineString","coordinates":[[%g,%g],[%[2]g,%[3]g]]}}`, l.mark(), l.at.Lon, l.at.Lat))
	}
	if err := grids.Add(ctx, squares); err != nil {
		t.Fatal(err)
	}
	models, err := devices.LoadModels(devices.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	var components *cases.Components
	registry, err := devices.New(ctx, p.db, models, devices.Options{Grid: grids.At, Publish: p.server.Hub.Publish, Component: func(id citywarden.ComponentID) (citywarden.Point, error) {
		x, err := components.Component(id)
		return x.Location, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	commands, err := devices.NewCommands(ctx, p.db, registry, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	table, err := cases.LoadClasses("")
	if err != nil {
		t.Fatal(err)
	}
	components, err = cases.LoadComponents(ctx, p.db, table, grids)
	if err != nil {
		t.Fatal(err)
	}
	desk, err := cases.New(p.db, cases.Options{Grids: grids, Components: components, Publish: p.server.Hub.Publish, Where: func(id citywarden.DeviceID) (citywarden.Point, bool) {
		d, _, err := registry.Device(id)
		if err != nil {
			return citywarden.Point{}, false
		}
		return *d.Location, true
	}})
	if err != nil {
		t.Fatal(err)
	}
	officers, err := cases.LoadResponsibility(ctx, p.db, grids, p.accounts.Officer)
	if err != nil {
		t.Fatal(err)
	}
	s := p.server
	s.Components, s.Commands = components, commands
	s.Devices, s.Sites, s.Files, s.Alarms, s.Load, s.Cases, s.Evaluations = registry, registry, registryFiles{registry}, desk, desk, desk, desk
	s.Attachments, s.Reports, s.Notices, s.Grids, s.Responsibility = desk, desk, desk, grids, officers
	s.Service = countyService(marks)
	s.Ledger, s.Lab, s.Series = countyBooks{db: p.db}, deafLab{}, countySeries{registry}
	s.Layers = countyLayers{grids, `{"type":"FeatureCollection","features":[` + strings.Join(streets, ",") + `]}`}

	began := time.Now().UTC().Add(-30 * time.Hour).Truncate(time.Second)
	var rows []citywarden.LedgerRow
	var dead []citywarden.DeadLetter
	for i, l := range marks {
		if _, err := registry.SaveSite(ctx, citywarden.Site{ID: citywarden.SiteID(l.mark()), Name: l.mark(), Attributes: map[string]any{}}); err != nil {
			t.Fatal(err)
		}
		id := citywarden.DeviceID(l.mark())
		if _, err := registry.Create(ctx, citywarden.Device{ID: id, Name: l.mark(), Model: "smoke-detector", Location: &l.at, Attributes: map[string]any{"site": l.mark()}}); err != nil {
			t.Fatal(err)
		}
		a := citywarden.Alarm{ID: citywarden.NewAlarmID("fire.smoke", l.mark(), 1), Rule: "fire.smoke", Title: text(l.mark()), Entity: l.mark(), Device: id, Episode: 1,
			Severity: citywarden.Critical, State: citywarden.AlarmActive, RaisedAt: began}
		at := citywarden.PositionAt(uint64(i+1), 0)
		if err := desk.Apply(ctx, at, []citywarden.Transition{{
			Key: "fire.smoke/" + l.mark() + "/1/1", Position: at, At: began, Logged: time.Now().UTC(), Kind: citywarden.Raised, Alarm: a, Annunciated: true,
			Case: &citywarden.CaseOrder{Class: "event/0501", Key: l.mark()}, Why: &citywarden.Explanation{Rule: "fire.smoke", Severity: citywarden.Critical, Summary: text(l.mark())},
		}}); err != nil {
			t.Fatal(err)
		}
		if a, err = desk.Alarm(ctx, a.ID); err != nil {
			t.Fatal(err)
		}
		c, err := desk.Do(ctx, a.Case, citywarden.CaseStep{Action: citywarden.File, By: "lin", Role: citywarden.RoleSupervisor}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if l.grid != c.Grid {
			t.Fatalf("case at %s lies in %q", l.name, c.Grid)
		}
		photo, err := s.Photos.Keep([]byte(jpegFile))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := desk.Attach(ctx, c.ID, photo, citywarden.PhotoNear, citywarden.CaseStep{By: "lin", Role: citywarden.RoleSupervisor}); err != nil {
			t.Fatal(err)
		}
		reported, err := desk.Report(ctx, citywarden.Report{Source: citywarden.SourceCitizen, Class: "event/0506", Description: l.mark(), Location: &l.at}, nil, "secret")
		if err != nil {
			t.Fatal(err)
		}
		err = p.db.UpdateDesk(ctx, func(tx *store.DeskTx) error {
			_, err := tx.AddNotices(ctx, []citywarden.Notice{{Key: l.mark(), Receiver: "duty", Case: c.ID, Title: text(l.mark()), At: began, State: citywarden.NoticeDead}})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		l.made = map[string]string{"device": l.mark(), "site": l.mark(), "alarm": string(a.ID), "case": string(c.ID), "photo": string(photo.ID), "report": string(reported.ID), "notice": l.mark()}
		if l.grid != "" {
			l.made["grid"], l.made["responsibility"] = string(l.grid), l.mark()
			u := citywarden.User{Name: l.mark(), Role: citywarden.RoleOfficer, Area: citywarden.AreaCode(l.grid[:12])}
			if _, err := p.accounts.Create(ctx, u, "of the officer"); err != nil {
				t.Fatal(err)
			}
			if _, err := officers.Save(ctx, citywarden.ResponsibilityGrid{ID: citywarden.ResponsibilityGridID(l.mark()), Officer: l.mark(), Grids: []citywarden.GridCode{l.grid}}); err != nil {
				t.Fatal(err)
			}
		}
		x, err := components.Save(ctx, citywarden.Component{ID: citywarden.ComponentID(fmt.Sprintf("3506230101%06d", i+1)), Name: l.mark(), Location: l.at})
		if err != nil {
			t.Fatal(err)
		}
		l.made["component"] = string(x.ID)
		rows = append(rows, citywarden.LedgerRow{Device: id, Hour: time.Now().UTC().Truncate(time.Hour), Messages: 1})
		dead = append(dead, citywarden.DeadLetter{Position: at, Stage: "decode", Device: id, Payload: []byte("{"), Reason: l.mark(), Received: began})
	}
	if err := p.db.SaveLedger(ctx, "ledger", 0, citywarden.PositionAt(9, 0), citywarden.LedgerAdd{Rows: rows, Dead: dead}); err != nil {
		t.Fatal(err)
	}
	return p
}

// storm raises an alarm of several devices, which has a case.
func (p *platform) storm(entity string, began time.Time, members ...citywarden.DeviceID) citywarden.Alarm {
	p.t.Helper()
	desk := p.server.Cases.(*cases.Desk)
	a := citywarden.Alarm{ID: citywarden.NewAlarmID("storm", entity, 1), Rule: "storm", Entity: entity, Device: members[0], Members: members, Episode: 1,
		Severity: citywarden.Major, State: citywarden.AlarmActive, RaisedAt: began}
	at := citywarden.PositionAt(100, len(entity))
	order := &citywarden.CaseOrder{Class: "event/0501", Key: entity, Storm: true}
	if err := desk.Apply(p.t.Context(), at, []citywarden.Transition{{Key: "storm/" + entity + "/1/1", Position: at, At: began, Logged: began, Kind: citywarden.Raised, Alarm: a, Annunciated: true, Case: order}}); err != nil {
		p.t.Fatal(err)
	}
	a, err := desk.Alarm(p.t.Context(), a.ID)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// in returns the token of a supervisor who is confined to an area.
func (p *platform) in(area citywarden.AreaCode) string {
	p.t.Helper()
	u := citywarden.User{Name: "of-" + string(area) + "-", Role: citywarden.RoleSupervisor, Area: area}
	if _, err := p.accounts.Create(p.t.Context(), u, "of the area"); err != nil {
		p.t.Fatal(err)
	}
	token, _, err := p.accounts.open(p.t.Context(), u.Name, "", SessionLife)
	if err != nil {
		p.t.Fatal(err)
	}
	return token
}

// TestEachAreaSeesItsOwn asks for every operation as somebody of a village, of a
// town, of a county and of everywhere: nothing of elsewhere comes out, and single
// things there are not found.
func TestEachAreaSeesItsOwn(t *testing.T) {
	const (
		one    = "one"    // a thing of a landmark
		lists  = "lists"  // has what is seen of all landmarks
		nobody = "nobody" // is for roles that can't be confined
		same   = "same"   // has nothing of landmarks
		whole  = "whole"  // of everything together: for who is not confined
	)
	type row struct {
		op, path, kind string
		body           string
		lacks          string // landmarks that a list does not have
	}
	rows := []row{
		{"get-me", "/me", same, "", ""},
		{"get-summary", "/summary", same, "", ""}, // see TestTheSummaryIsOfTheArea
		{"list-devices", "/devices", lists, "", ""},
		{"get-device", "/devices/{device}", one, "", ""},
		{"export-devices", "/devices/export", lists, "", ""},
		{"get-latest", "/devices/{device}/latest", one, "", ""},
		{"list-attributes", "/devices/{device}/attributes", one, "", ""},
		{"claim-device", "/devices/{device}/claim", one, `{"secret":"s"}`, ""}, // see TestClaiming
		{"send-command", "/devices/{device}/commands", one, `{"method":"silence"}`, ""},
		{"list-commands", "/devices/{device}/commands", one, "", ""},
		{"watch-messages", "/devices/{device}/messages", one, "", ""},
		{"get-series", "/devices/{device}/series?metric=smoke", one, "", ""},
		{"group-series", "/series?domain=fire&metric=smoke&by=device&every=1h", lists, "", ""},
		{"export-series", "/series/export", lists, "", ""},
		{"export-series", "/series/export?device={device}", one, "", ""},
		{"list-models", "/models", same, "", ""},
		{"list-sites", "/sites", lists, "", ""},
		{"get-site", "/sites/{site}", one, "", ""},
		{"list-classes", "/classes", same, "", ""},
		{"list-class-versions", "/classes/versions", same, "", ""},
		{"list-notices", "/notices", lists, "", ""},
		{"resend-notice", "/notices/resend", one, `{"key":"{notice}","receiver":"duty"}`, ""},
		{"list-rules", "/rules", same, "", ""},
		{"get-rule", "/rules/fire.smoke", same, "", ""},
		{"get-rule-status", "/rules/status", same, "", ""},
		{"explain-silence", "/rules/fire.smoke/why-not?device={device}", one, "", ""},
		{"get-ledger", "/ledger", lists, "", ""},
		{"audit-ledger", "/ledger/audit", whole, "", ""},
		{"list-dead-letters", "/deadletters", lists, "", ""},
		{"list-alarms", "/alarms", lists, "", ""},
		{"get-alarm", "/alarms/{alarm}", one, "", ""},
		{"explain-alarm", "/alarms/{alarm}/why", one, "", ""},
		{"get-alarm-history", "/alarms/{alarm}/history", one, "", ""},
		{"get-alarm-cap", "/alarms/{alarm}/cap", one, "", ""},
		{"list-alarm-caps", "/alarms/cap", lists, "", ""},
		{"get-alarm-load", "/alarms/load", lists, "", ""},
		{"ack-alarm", "/alarms/{alarm}/ack", one, "{}", ""},
		{"shelve-alarm", "/alarms/{alarm}/shelve", one, `{"for":"1h","reason":"works"}`, ""},
		{"unshelve-alarm", "/alarms/{alarm}/unshelve", one, "{}", ""},
		{"reset-alarm", "/alarms/{alarm}/reset", one, "{}", ""},
		{"comment-alarm", "/alarms/{alarm}/comment", one, `{"text":"x"}`, ""},
		{"assign-alarm", "/alarms/{alarm}/assign", one, `{"to":"admin"}`, ""},
		{"take-alarm-out-of-service", "/alarms/{alarm}/out-of-service", one, `{"reason":"works"}`, ""},
		{"return-alarm-to-service", "/alarms/{alarm}/in-service", one, "{}", ""},
		{"list-out-of-service", "/out-of-service", lists, "", ""},
		{"take-device-out-of-service", "/devices/{device}/out-of-service", one, `{"reason":"works"}`, ""},
		{"return-device-to-service", "/devices/{device}/in-service", one, "{}", ""},
		{"take-rule-out-of-service", "/rules/fire.smoke/out-of-service", one, `{"entity":"{device}","reason":"works"}`, ""},
		{"return-rule-to-service", "/rules/fire.smoke/in-service", one, `{"entity":"{device}"}`, ""},
		{"list-cases", "/cases", lists, "", ""},
		{"get-case", "/cases/{case}", one, "", ""},
		{"act-on-case", "/cases/{case}/actions/comment", one, `{"note":"seen"}`, ""},
		{"list-duplicates", "/cases/{case}/duplicates", one, "", ""},
		{"list-near-cases", "/duplicates?class=event/0501&lat=24.1005&lon=117.6205", lists, "", "first second nowhere abroad"}, // at the third
		{"create-case", "/cases", one, `{"class":"event/0501","title":"x","device":"{device}"}`, ""},
		{"list-attachments", "/cases/{case}/attachments", one, "", ""},
		{"attach-photo", "/cases/{case}/attachments", one, form("kind", "near", "file", jpegFile), ""},
		{"get-photo", "/cases/{case}/attachments/{photo}", one, "", ""},
		{"get-report", "/cases/{report}/report", one, "", ""},
		{"get-workflow", "/workflow", same, "", ""},
		{"get-evaluation", "/evaluation?by=area&level=village", lists, "", "nowhere"},
		{"get-evaluation", "/evaluation?by=area&level=village&format=csv", lists, "", "nowhere"},
		{"list-evaluated-cases", "/evaluation/cases?by=post&indicator=filed&key=shift_leader", lists, "", ""},
		{"get-map", "/map", same, "", ""},
		{"get-layer", "/map/layers/grids", lists, "", "nowhere"},
		{"get-layer", "/map/layers/streets", lists, "", ""},
		{"get-map-devices", "/map/devices", lists, "", ""},
		{"list-grid-versions", "/grids/{grid}/versions", one, "", ""},
		{"list-areas", "/areas", lists, "", "nowhere"},
		{"list-areas", "/areas?under=350623101", lists, "", "first second nowhere abroad"},
		{"get-area-outlines", "/areas/outlines", lists, "", "nowhere"},
		{"list-responsibility-grids", "/responsibility-grids", lists, "", "nowhere"},
		{"get-responsibility-grid", "/responsibility-grids/{responsibility}", one, "", ""},
		{"list-components", "/components", lists, "", ""},
		{"get-component", "/components/{component}", one, "", ""},
		{"put-component", "/components/{component}", one, `{"location":{"lat":91,"lon":0}}`, ""},
		{"import-components", "/components/import", whole, "id,lat,lon\n", ""},
		{"delete-component", "/components/{missing}", one, "", ""}, // see TestWhoIsConfinedWorksThere
		{"list-nearby-components", "/components/nearby?lat=24.1005&lon=117.6205&within=5000", lists, "", ""},
		{"get-component-map", "/components/map?west=117&south=24&east=118&north=25", lists, "", ""},
		{"export-components", "/components/export", lists, "", ""},
		{"list-officers", "/officers", lists, "", "nowhere"},
	}
	for _, op := range []string{
		"list-firmware", "create-firmware", "assign-firmware", "delete-firmware", "create-device", "update-device", "delete-device", "disable-device", "enable-device", "create-credentials", "list-credentials", "revoke-credentials", "list-uplinks", "list-provisioning", "set-provisioning", "end-provisioning", "import-devices", "import-series", "put-site", "delete-site", "reload-rules",
		"backtest-rules", "test-rules", "replay-dead-letters", "import-grids", "put-responsibility-grid", "delete-responsibility-grid",
		"import-responsibility-grids", "list-users", "create-user", "get-user", "update-user", "delete-user", "set-password", "list-sessions", "create-token",
		"delete-session", "list-audit", "get-backup", "list-receivers", "test-notice", "list-api-keys", "create-api-key", "delete-api-key",
	} {
		rows = append(rows, row{op: op, kind: nobody})
	}
	marks := landmarks()
	p := newCounty(t, marks)
	// A case of two towns is that of every village in there; its device is not.
	wide := p.storm("wide", time.Now().UTC().Add(-30*time.Hour).Truncate(time.Second), "mark-third", "mark-second").Case
	if _, err := p.server.Cases.Do(t.Context(), wide, citywarden.CaseStep{Action: citywarden.File, By: "lin", Role: citywarden.RoleSupervisor}, 0); err != nil {
		t.Fatal(err)
	}
	ops := p.operations()
	seen := []string{"login", "logout", "change-password", "get-info", "get-report-form", "report-case", "get-report-state", "get-public-layer", "list-public-components",
		"watch-events"} // see TestLiveEventsStayInTheirArea
	for _, r := range rows {
		seen = append(seen, r.op)
	}
	for op, what := range ops {
		if !slices.Contains(seen, op) {
			t.Errorf("no row for %s (%s): say what somebody of an area sees of it", op, what)
		}
	}
	for _, v := range parishes {
		token := p.in(v.area)
		for _, r := range rows {
			method, path, _ := strings.Cut(ops[r.op], " ")
			switch r.kind {
			case nobody:
				path = strings.NewReplacer("{id}", "x", "{name}", "x").Replace(path)
				if a := p.do(token, method+" "+path, "{}", "Content-Type", contentType(r.op)); a.status != http.StatusForbidden {
					t.Errorf("%s in %q = %d %s, want 403", r.op, v.area, a.status, a.body)
				}
			case one:
				for _, l := range marks {
					var with []string
					for name, value := range l.made {
						with = append(with, "{"+name+"}", value)
					}
					fill := strings.NewReplacer(with...)
					where := fill.Replace(r.path)
					if strings.Contains(where, "{") { // the landmark has no such thing
						continue
					}
					a := p.do(token, method+" /api/v1"+where, fill.Replace(r.body), "Content-Type", contentType(r.op))
					if sees := slices.Contains(v.sees, l.name); sees == (a.status == http.StatusNotFound) {
						t.Errorf("%s %s in %q = %d %s; sees it: %v", r.op, l.name, v.area, a.status, a.body, sees)
					} else if !sees && strings.Contains(a.body, l.made["case"]) && !strings.Contains(where, l.made["case"]) {
						t.Errorf("%s %s in %q tells of the case: %s", r.op, l.name, v.area, a.body)
					}
				}
			default:
				a := p.do(token, method+" /api/v1"+r.path, r.body, "Content-Type", contentType(r.op))
				if r.kind == whole && v.area != "" {
					if a.status != http.StatusForbidden {
						t.Errorf("%s in %q = %d %s, want 403", r.op, v.area, a.status, a.body)
					}
					continue
				}
				if a.status != http.StatusOK {
					t.Errorf("%s in %q = %d %s", r.op, v.area, a.status, a.body)
				}
				for _, l := range marks {
					want := r.kind == lists && slices.Contains(v.sees, l.name) && !strings.Contains(r.lacks, l.name)
					if got := strings.Contains(a.body, l.mark()); got != want {
						t.Errorf("%s in %q has %s: %v, want %v\n%s", r.op, v.area, l.name, got, want, a.body)
					}
				}
			}
		}
	}
}

func TestTheSummaryIsOfTheArea(t *testing.T) {
	marks := landmarks()
	p := newCounty(t, marks)
	for _, v := range parishes {
		var sum summary
		p.do(p.in(v.area), "GET /api/v1/summary", "").into(t, &sum)
		n := len(v.sees)
		if sum.Devices.Total != n || sum.Alarms.Active != n || sum.Cases.Open != 2*n {
			t.Errorf("summary in %q = %+v, want %d devices, as many alarms and twice as many cases", v.area, sum, n)
		}
	}
}

func TestLiveEventsStayInTheirArea(t *testing.T) {
	marks := landmarks()
	p := newCounty(t, marks)
	srv, hub := newServerOf(t, p), p.server.Hub
	watchers := map[citywarden.AreaCode]*watcher{}
	for _, v := range parishes {
		watchers[v.area] = watch(t, srv, p.in(v.area), "", "")
		watchers[v.area].began()
	}
	for _, l := range marks {
		id := citywarden.DeviceID(l.mark())
		d, err := p.server.Devices.Get(id)
		if err != nil {
			t.Fatal(err)
		}
		hub.Publish(citywarden.Event{Kind: "reading", Data: citywarden.ReadingEvent{Device: id}})
		hub.Publish(citywarden.Event{Kind: "alarm", Data: citywarden.Alarm{ID: "x", Device: id}})
		hub.Publish(citywarden.Event{Kind: "alarm", Data: citywarden.Alarm{ID: "group", Device: "mark-first", Members: []citywarden.DeviceID{id}}})
		hub.Publish(citywarden.Event{Kind: "case", Data: citywarden.Case{ID: citywarden.CaseID(l.mark()), Grid: l.grid}})
		hub.Publish(citywarden.Event{Kind: "case", Data: citywarden.Case{ID: "wide", Area: "350623", Device: id, DeviceName: l.mark()}})
		hub.Publish(citywarden.Event{Kind: "device", Data: d})
		hub.Publish(citywarden.Event{Kind: "device", Data: citywarden.DeletedDevice{ID: id, Grid: l.grid, Deleted: true}})
	}
	hub.Publish(citywarden.Event{Kind: "case", Data: citywarden.Case{ID: "last", Grid: "350623100001001"}})
	for _, v := range parishes {
		var got []string
		for e := watchers[v.area].next(); !strings.Contains(e, `"last"`); e = watchers[v.area].next() {
			if e == "" {
				t.Fatal("the stream ended")
			}
			got = append(got, e)
		}
		if len(got) != 6*len(v.sees)+len(marks) {
			t.Errorf("in %q %d events, want 6 of each of %v and %d of the county:\n%s", v.area, len(got), v.sees, len(marks), strings.Join(got, "\n"))
		}
		for _, l := range marks {
			if all := strings.Join(got, "\n"); strings.Contains(all, l.mark()) != slices.Contains(v.sees, l.name) {
				t.Errorf("in %q of %s:\n%s", v.area, l.name, all)
			}
		}
	}
}

// An alarm of devices in two villages is the town's, one of two towns the county's;
// its case is that of the villages in there, too, wherever its first device lies.
func TestAnAlarmOfSeveralAreasIsOfTheLevelAbove(t *testing.T) {
	p := newCounty(t, landmarks())
	desk := p.server.Cases.(*cases.Desk)
	raise := func(entity string, members ...citywarden.DeviceID) string {
		return url.PathEscape(string(p.storm(entity, noon, members...).ID))
	}
	town, county := raise("town", "mark-first", "mark-second"), raise("county", "mark-second", "mark-third")
	all, _, err := desk.Cases(t.Context(), citywarden.CaseFilter{Source: citywarden.SourceSensor})
	if err != nil {
		t.Fatal(err)
	}
	for area, want := range map[citywarden.AreaCode]struct {
		alarms [2]int
		cases  string
	}{
		"350623100001": {[2]int{404, 404}, "county town"}, "350623100002": {[2]int{404, 404}, "county town"}, "350623100": {[2]int{200, 404}, "county town"},
		"350623101001": {[2]int{404, 404}, "county"}, "350623101": {[2]int{404, 404}, "county"}, "350623": {[2]int{200, 200}, "county town"}, "350681": {[2]int{404, 404}, ""},
	} {
		token := p.in(area)
		if got := [2]int{p.do(token, "GET /api/v1/alarms/"+town, "").status, p.do(token, "GET /api/v1/alarms/"+county, "").status}; got != want.alarms {
			t.Errorf("in %s the alarms of a town and of a county are %v, want %v", area, got, want.alarms)
		}
		listed := p.do(token, "GET /api/v1/cases?source=sensor", "").body
		for _, c := range all {
			if c.Key != "town" && c.Key != "county" {
				continue
			}
			seen := strings.Contains(want.cases, c.Key)
			if got := p.do(token, "GET /api/v1/cases/"+string(c.ID), "").status == 200; got != seen || strings.Contains(listed, string(c.ID)) != seen {
				t.Errorf("in %s the case of the %s is seen: %v, in the list: %v; want %v", area, c.Key, got, strings.Contains(listed, string(c.ID)), seen)
			}
			if !seen {
				continue
			}
			device := p.do(token, "GET /api/v1/devices/"+string(c.Device), "").status == 200
			for _, what := range []string{"GET /api/v1/cases/" + string(c.ID), "POST /api/v1/cases/" + string(c.ID) + "/actions/comment", "GET /api/v1/cases?alarm=" + string(c.Alarms[0])} {
				a := p.do(token, what, `{"note":"seen"}`)
				if strings.Contains(what, "?alarm=") && p.do(token, "GET /api/v1/alarms/"+url.PathEscape(string(c.Alarms[0])), "").status == 404 {
					if a.status != 200 || !strings.Contains(a.body, `"items":[]`) {
						t.Errorf("in %s, where the alarm is not seen, %s = %d %s", area, what, a.status, a.body)
					}
					continue
				}
				if a.status != 200 || strings.Contains(a.body, `"device":"`+string(c.Device)+`","device_name":"`+c.DeviceName+`"`) != device || strings.Contains(a.body, `"device`) != device {
					t.Errorf("in %s, where device %s is seen: %v, %s = %d %s", area, c.Device, device, what, a.status, a.body)
				}
			}
		}
	}
}

// A citizen has no devices: neither those of alarms that were moved into their report,
// nor does a report tell them which there are.
func TestACitizenLearnsOfNoDevice(t *testing.T) {
	p := newCounty(t, landmarks())
	citizen := p.as(citywarden.RoleCitizen)
	var c citywarden.Case
	a := p.do(citizen, "POST /api/v1/cases", `{"class":"event/0501","title":"smoke","location":{"lat":24.1005,"lon":117.6005}}`)
	a.into(t, &c)
	storm := p.storm("town", noon, "mark-first", "mark-second")
	if a = p.do(p.as(citywarden.RoleSupervisor), "POST /api/v1/cases/"+string(storm.Case)+"/actions/merge", `{"case":"`+string(c.ID)+`"}`); a.status != 200 {
		t.Fatal(a.status, a.body)
	}
	for _, what := range []string{"/cases/" + string(c.ID), "/cases"} {
		for token, sees := range map[string]bool{citizen: false, p.as(citywarden.RoleSupervisor): true} {
			a := p.do(token, "GET /api/v1"+what, "")
			if a.status != 200 || !strings.Contains(a.body, string(c.ID)) || strings.Contains(a.body, `"device":"mark-first","device_name":"mark-first"`) != sees || strings.Contains(a.body, `"device`) != sees {
				t.Errorf("%s = %d %s; with the device: want %v", what, a.status, a.body, sees)
			}
		}
	}
	answer := func(token, device string) (int, string) {
		a := p.do(token, "POST /api/v1/cases", `{"class":"event/0501","title":"x","device":"`+device+`"}`)
		return a.status, a.body
	}
	for _, device := range []string{"mark-first", "mark-nobody"} {
		if status, body := answer(citizen, device); status != 403 || !strings.Contains(body, "citizen may not name a device; say where it is with location, or leave device out") {
			t.Errorf("a citizen's case about %s: %d %s", device, status, body)
		}
	}
	if status, body := answer(p.as(citywarden.RoleOfficer), "mark-first"); status != 201 {
		t.Errorf("an officer's case about a device: %d %s", status, body)
	}
	if status, body := answer(p.as(citywarden.RoleOfficer), "mark-nobody"); status != 404 || !strings.Contains(body, "mark-nobody") {
		t.Errorf("an officer's case about a device that is not there: %d %s", status, body)
	}
}

func TestWhoIsConfinedWorksThere(t *testing.T) {
	marks := landmarks()
	p := newCounty(t, marks)
	token := p.in("350623100")
	first, third := marks[0].made["case"], marks[2].made["case"]
	here, there := marks[0].made["component"], marks[2].made["component"]
	if _, err := p.server.Devices.(*devices.Registry).Create(t.Context(), citywarden.Device{
		ID: "across", Model: "smoke-detector", Location: &marks[2].at, Component: citywarden.ComponentID(here),
	}); err != nil {
		t.Fatal(err)
	}
	shifted := citywarden.GCJ02.FromWGS84(marks[0].at)
	gcj := fmt.Sprintf(`{"lat":%g,"lon":%g}`, shifted.Lat, shifted.Lon)
	for _, c := range []struct {
		what, body string
		status     int
		says       string
	}{
		{"POST /api/v1/cases", `{"class":"event/0501","title":"x","location":{"lat":24.1005,"lon":117.6005}}`, 201, ""},
		{"POST /api/v1/cases", `{"class":"event/0501","title":"x","location":{"lat":24.1005,"lon":117.6205}}`, 403, "in the area 350623100 only"},
		{"POST /api/v1/cases", `{"class":"event/0501","title":"x"}`, 403, "say a place there"},
		{"POST /api/v1/cases", `{"class":"event/0501","title":"x","component":"` + here + `"}`, 201, `"grid":"350623100001001"`},
		{"POST /api/v1/cases", `{"class":"event/0501","title":"x","component":"` + there + `"}`, 404, `no component \"` + there + `\"`},
		{"POST /api/v1/cases", `{"class":"event/0501","title":"x","component":"` + there + `","location":{"lat":24.1005,"lon":117.6005}}`, 404, `no component \"` + there + `\"`},
		{"POST /api/v1/cases", `{"class":"event/0501","title":"x","component":"` + there + `","device":"mark-first"}`, 404, `no component \"` + there + `\"`},
		{"POST /api/v1/cases", `{"class":"event/0501","title":"x","component":"3506230101000042"}`, 404, `no component \"3506230101000042\"`}, // as if there were none
		{"POST /api/v1/cases", `{"class":"event/0501","title":"x","component":"` + here + `","location":{"lat":24.1005,"lon":117.6205}}`, 403, "in the area 350623100 only"},
		{"POST /api/v1/cases", `{"class":"event/0501","title":"x","component":"` + here + `","device":"mark-third"}`, 404, "no device mark-third"},
		{"POST /api/v1/cases", `{"class":"event/0501","title":"x","crs":"GCJ-02","location":` + gcj + `}`, 201, `"grid":"350623100001001"`},
		{"POST /api/v1/cases", `{"class":"event/0501","title":"x","crs":"GCJ-02","location":{"lat":24.1005,"lon":117.6005}}`, 403, "in the area 350623100 only"}, // 500 m off
		{"POST /api/v1/cases", `{"class":"event/0501","title":"x","location":` + gcj + `}`, 403, "in the area 350623100 only"},
		{"POST /api/v1/cases", `{"class":"event/0501","title":"x","crs":"BD-09","location":{"lat":24.1005,"lon":117.6005}}`, 400, "coordinate system"},
		{"POST /api/v1/cases/" + marks[0].made["report"] + "/actions/merge", `{"case":"` + third + `"}`, 404, "no case " + third},
		{"POST /api/v1/cases/" + marks[0].made["report"] + "/actions/send_verify", `{"officer":"mark-third"}`, 400, "sees the area 350623101001 only"},
		{"POST /api/v1/cases/" + marks[0].made["report"] + "/actions/send_verify", `{"officer":"mark-first"}`, 200, ""},
		{"POST /api/v1/alarms/" + url.PathEscape(marks[0].made["alarm"]) + "/assign", `{"to":"mark-third"}`, 400, "mark-third sees the area 350623101001 only"},
		{"DELETE /api/v1/components/" + marks[2].made["component"], "", 404, "no component"},
		{"DELETE /api/v1/components/" + here, "", 409, "a device elsewhere is attached to component " + here},
		{"PUT /api/v1/components/" + marks[0].made["component"], `{"location":{"lat":24.1005,"lon":117.6205}}`, 403, "adds components in the area 350623100 only"},
		{"PUT /api/v1/components/3506230101000099", `{"location":{"lat":24.1005,"lon":117.6005}}`, 200, "350623100001001"},
		{"DELETE /api/v1/components/3506230101000099", "", 204, ""},
		{"GET /api/v1/cases?grid=350623101001001", "", 200, `"items":[]`},
		{"GET /api/v1/cases/" + first, "", 200, marks[0].mark()},
		{"GET /api/v1/areas/outlines?under=350623101", "", 404, "350623101"},
	} {
		if a := p.do(token, c.what, c.body); a.status != c.status || !strings.Contains(a.body, c.says) {
			t.Errorf("%s %s = %d %s, want %d %s", c.what, c.body, a.status, a.body, c.status, c.says)
		}
	}
}

// TestClaiming: who mounts a device places it in their own area, with the secret that it
// announced; each refusal says why, wrong secrets are counted, and the audit has no secret.
func TestClaiming(t *testing.T) {
	p := newCounty(t, landmarks())
	registry := p.server.Devices.(*devices.Registry)
	for _, id := range []citywarden.DeviceID{"box-1", "box-2", "box-3", "box-4", "box-5"} {
		if _, err := registry.Create(t.Context(), citywarden.Device{ID: id, Model: "smoke-detector"}); err != nil {
			t.Fatal(err)
		}
		if id == "box-3" {
			continue
		}
		if err := registry.Announce(t.Context(), id, []byte(`{"secretKey":"open sesame","durationMs":600000}`)); err != nil {
			t.Fatal(err)
		}
	}
	if err := registry.Announce(t.Context(), "mark-third", []byte(`{"secretKey":"open sesame"}`)); err != nil {
		t.Fatal(err)
	}
	const here, there = `"location":{"lat":24.1005,"lon":117.6005}`, `"location":{"lat":24.1005,"lon":117.6205}`
	town, viewer := p.in("350623100"), p.as(citywarden.RoleViewer)
	for _, c := range []struct {
		token, what, body string
		status            int
		says              string
	}{
		{viewer, "POST /api/v1/devices/box-1/claim", `{"secret":"open sesame",` + here + `}`, 403, "viewer may not claim devices"},
		{town, "POST /api/v1/devices/nobody/claim", `{"secret":"open sesame",` + here + `}`, 404, "no device nobody"},
		{town, "POST /api/v1/devices/mark-third/claim", `{"secret":"open sesame",` + here + `}`, 404, "no device mark-third"},
		{town, "POST /api/v1/devices/box-3/claim", `{"secret":"open sesame",` + here + `}`, 409, "has not said that it may be claimed"},
		{town, "POST /api/v1/devices/box-1/claim", `{"secret":"open sesame"}`, 400, "say where device box-1 is"},
		{town, "POST /api/v1/devices/box-1/claim", `{"secret":"open sesame",` + there + `}`, 403, "in the area 350623100 only"},
		{town, "POST /api/v1/devices/box-1/claim", `{"secret":"open sesame",` + here + `,"site":"mark-third"}`, 404, `no site \"mark-third\"`},
		{town, "POST /api/v1/devices/box-1/claim", `{"secret":"open sesame",` + here + `,"component":"3506230101000003"}`, 404, `no component \"3506230101000003\"`},
		{town, "POST /api/v1/devices/box-1/claim", `{"secret":"open sesame",` + here + `,"component":"3506230101000009"}`, 404, `no component \"3506230101000009\"`},
		{town, "POST /api/v1/devices/box-1/claim", `{"secret":"open barley",` + here + `,"site":"mark-third"}`, 403, "that is not the secret that device box-1 said"},
		{town, "POST /api/v1/devices/box-4/claim", `{"secret":"open sesame","component":"3506230101000001"}`, 200, `"grid":"350623100001001"`},
		{p.as(citywarden.RoleOfficer), "POST /api/v1/devices/box-1/claim", `{"secret":"open barley",` + here + `}`, 403, "that is not the secret that device box-1 said"},
		{p.as(citywarden.RoleAdmin), "GET /api/v1/devices/box-1", "", 200, `"claimable_until":"`},
		{town, "POST /api/v1/devices/box-1/claim", `{"secret":"open sesame",` + here + `,"site":"a new one","name":"Lobby"}`, 200, `"grid":"350623100001001"`},
		{town, "GET /api/v1/devices/box-1", "", 200, `"site":"a new one"`},
		{town, "POST /api/v1/devices/box-1/claim", `{"secret":"open sesame",` + here + `}`, 409, "or was claimed since"},
		{p.as(citywarden.RoleOfficer), "POST /api/v1/devices/box-5/claim", `{"secret":"open sesame","component":"mark-first"}`, 400, "use 16 digits"},
		{p.as(citywarden.RoleOfficer), "POST /api/v1/devices/box-5/claim", `{"secret":"open sesame","site":"a new one"}`, 200, `"site":"a new one"`},
	} {
		if a := p.do(c.token, c.what, c.body); a.status != c.status || !strings.Contains(a.body, c.says) {
			t.Errorf("%s %s = %d %s, want %d %s", c.what, c.body, a.status, a.body, c.status, c.says)
		}
	}
	// One was wrong before, and right ones don't count.
	for i := range 5 {
		want := 403
		if i == 4 {
			want = 429
		}
		if a := p.do(town, "POST /api/v1/devices/box-2/claim", `{"secret":"open barley",`+here+`}`); a.status != want {
			t.Errorf("wrong secret %d: %d %s", i, a.status, a.body)
		}
	}
	if a := p.do(town, "POST /api/v1/devices/box-2/claim", `{"secret":"open sesame",`+here+`}`); a.status != 429 || !strings.Contains(a.body, "too many wrong secrets") {
		t.Errorf("the right one then: %d %s", a.status, a.body)
	}
	if a := p.do(p.as(citywarden.RoleOfficer), "POST /api/v1/devices/box-2/claim", `{"secret":"open sesame",`+here+`}`); a.status != 200 {
		t.Errorf("somebody else: %d %s", a.status, a.body)
	}
	a := p.do(p.as(citywarden.RoleAdmin), "GET /api/v1/audit?action=claim-device&limit=1000", "")
	for _, says := range []string{`"target":"/api/v1/devices/box-1/claim"`, `"status":200`, `"status":403`, `"status":429`, `"before":{"id":"box-1"`, `"after":{"id":"box-1","name":"Lobby"`} {
		if !strings.Contains(a.body, says) {
			t.Errorf("the audit does not say %s: %.3000s", says, a.body)
		}
	}
	if strings.Contains(a.body, "sesame") || strings.Contains(a.body, "barley") {
		t.Error("the audit has the secret")
	}
	// Tries at what there is not, and right ones, don't drive out those that were wrong.
	for i := range maxKeys + 1 {
		p.server.claims.devices.try(fmt.Sprint(i))
		p.server.claims.devices.forgive(fmt.Sprint(i))
	}
	before := len(p.server.claims.devices.keys)
	p.do(p.as(citywarden.RoleOfficer), "POST /api/v1/devices/nobody/claim", `{"secret":"open barley",`+here+`}`)
	if got := p.server.claims.devices.keys; got["box-2"].n == 0 || len(got) != before || before > 10 {
		t.Errorf("wrong secrets of devices: %d, then %d, of box-2 %d", before, len(got), got["box-2"].n)
	}
}

func TestAreaOfAUser(t *testing.T) {
	p := newCounty(t, landmarks())
	admin := p.as(citywarden.RoleAdmin)
	for _, c := range []struct {
		what, body string
		status     int
		says       string
	}{
		{"POST /api/v1/users", `{"name":"li","role":"viewer","password":"li looks on","area":"350623100"}`, 201, `"area":"350623100"`},
		{"POST /api/v1/users", `{"name":"wu","role":"viewer","password":"wu looks on","area":"3506231"}`, 400, "a town (9)"},
		{"POST /api/v1/users", `{"name":"wu","role":"viewer","password":"wu looks on","area":"350623999"}`, 400, "no unit grid lies there"},
		{"POST /api/v1/users", `{"name":"wu","role":"engineer","password":"wu writes rules","area":"350623100"}`, 400, "leave the area out"},
		{"PUT /api/v1/users/li", `{"role":"viewer","title":"Li"}`, 200, `"area":"350623100"`}, // who does not speak of it changes nothing
		{"PUT /api/v1/users/li", `{"role":"viewer","area":"350623101"}`, 200, `"area":"350623101"`},
		{"PUT /api/v1/users/li", `{"role":"admin"}`, 400, "leave the area out"},
		{"PUT /api/v1/users/mark-first", `{"role":"officer","area":"350623101"}`, 409, "looks after the responsibility grid mark-first"},
		{"PUT /api/v1/responsibility-grids/mark-first", `{"officer":"mark-third","grids":["350623100001001"]}`, 400, "sees the area 350623101001 only"},
		{"GET /api/v1/audit?action=update-user", "", 200, `"after":{"name":"li","title":"","role":"viewer","area":"350623101"`},
		{"PUT /api/v1/users/li", `{"role":"viewer","area":""}`, 200, `"name":"li","role":"viewer","created"`},
	} {
		a := p.do(admin, c.what, c.body)
		if body := strings.ReplaceAll(a.body, `"name":"li","role":"viewer","area"`, `"name":"li","title":"","role":"viewer","area"`); a.status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s %s = %d %s, want %d %s", c.what, c.body, a.status, a.body, c.status, c.says)
		}
	}
}

type registryFiles struct{ *devices.Registry }

func (registryFiles) Import(context.Context, io.Reader) (ImportReport, error) {
	return ImportReport{}, nil
}

// countyBooks are the ledger of a database.
type countyBooks struct {
	books
	db *store.DB
}

func (b countyBooks) Rows(ctx context.Context, f citywarden.LedgerFilter) ([]citywarden.LedgerRow, string, error) {
	return b.db.LedgerPage(ctx, f)
}

func (b countyBooks) DeadLetters(ctx context.Context, f citywarden.DeadLetterFilter) ([]citywarden.DeadLetter, string, error) {
	return b.db.DeadLetters(ctx, f)
}

// countySeries has one reading of each device that is asked for.
type countySeries struct{ registry *devices.Registry }

func (countySeries) Query(context.Context, citywarden.SeriesQuery) ([]citywarden.SeriesPoint, error) {
	return nil, nil
}

func (s countySeries) Groups(_ context.Context, q citywarden.GroupQuery) (out []citywarden.SeriesGroup, err error) {
	s.registry.Each(func(d *citywarden.Device, _ *citywarden.Model) {
		if q.Area.Has(d.Grid) {
			out = append(out, citywarden.SeriesGroup{Name: q.Tag(d)})
		}
	})
	return out, nil
}

func (s countySeries) Export(_ context.Context, q citywarden.HistoryQuery, f func([]citywarden.SeriesRow) error) error {
	var rows []citywarden.SeriesRow
	s.registry.Each(func(d *citywarden.Device, _ *citywarden.Model) {
		if q.Devices == nil || q.Devices[d.ID] {
			rows = append(rows, citywarden.SeriesRow{Device: d.ID, Time: q.From, Values: map[citywarden.MetricName]citywarden.Value{"smoke": citywarden.Number(1)}})
		}
	})
	return f(rows)
}

func (countySeries) Import(context.Context, []citywarden.DeviceReading) ([]error, error) {
	return nil, nil
}

// deafLab knows no reason for anything.
// countyService has the device of each landmark, and what a rule says of it, out of service.
type countyService []*landmark

func (c countyService) OutOfService() (out []citywarden.OutOfService) {
	for _, l := range c {
		out = append(out, citywarden.OutOfService{Device: citywarden.DeviceID(l.mark()), By: "li"}, citywarden.OutOfService{Rule: "fire.smoke", Entity: l.mark(), By: "li"})
	}
	return out
}

type deafLab struct{ Lab }

func (deafLab) WhyNot(context.Context, citywarden.RuleID, citywarden.DeviceID, time.Time) (citywarden.WhyNot, error) {
	return citywarden.WhyNot{Reason: citywarden.WhyNotCondition}, nil
}

// countyLayers are the unit grids and the streets.
type countyLayers struct {
	grids   *cases.Grids
	streets string
}

func (countyLayers) Names() []string { return []string{"grids", "streets"} }

func (l countyLayers) Layer(_ context.Context, name string, area citywarden.AreaCode) (json.RawMessage, error) {
	if name == "grids" {
		return l.grids.GeoJSON(string(area))
	}
	return l.grids.Touching(bytes.TrimSpace([]byte(l.streets)), area)
}

func (countyLayers) Bounds(citywarden.AreaCode) (sw, ne citywarden.Point, ok bool) {
	return sw, ne, false
}
