package api

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
)

// tale tells the desk of alarms, one transition after the other.
type tale struct {
	p *platform
	n uint64
}

// happens applies a transition of kind to the alarm of rule on entity, as change makes it.
func (l *tale) happens(kind citywarden.TransitionKind, a citywarden.Alarm, key, summary string) {
	l.p.t.Helper()
	l.n++
	a.Title, a.Episode = text("Burst"), 1
	a.ID = citywarden.NewAlarmID(a.Rule, a.Entity, 1)
	if a.State == "" {
		a.State = citywarden.AlarmActive
	}
	at := time.Now().UTC().Truncate(time.Millisecond)
	a.RaisedAt = at.Add(-time.Hour + time.Duration(l.n)*time.Second)
	pos := citywarden.PositionAt(1000+l.n, 0)
	t := citywarden.Transition{
		Key: fmt.Sprintf("%s/%s/1/%d", a.Rule, a.Entity, l.n), Position: pos, At: at, Logged: at, Kind: kind, Alarm: a, Annunciated: kind == citywarden.Raised,
		Case: &citywarden.CaseOrder{Class: "event/0501", Key: key}, Why: &citywarden.Explanation{Rule: a.Rule, Severity: a.Severity, Summary: text(summary)},
	}
	if kind == citywarden.Raised {
		t.Why.Inputs = []citywarden.ExplainInput{{Device: a.Device, Metric: "level"}, {Device: "mark-third", Metric: "level"}}
		t.Why.Members = []citywarden.ExplainMember{{Device: a.Device, Result: "true"}, {Device: "mark-third", Result: "false"}}
		t.Why.Leaves = []citywarden.ExplainLeaf{{Device: "mark-third", Text: "level > 1", Result: "true"}, {Text: "n > 1", Result: "true"}}
		t.Why.Windows = []citywarden.ExplainWindow{{Device: "mark-third", Text: "mean(level)"}}
	}
	if err := l.p.server.Cases.(*cases.Desk).Apply(l.p.t.Context(), pos, []citywarden.Transition{t}); err != nil {
		l.p.t.Fatal(err)
	}
}

// nosyLab says of a device why there was no alarm, with its neighbour at the third landmark.
type nosyLab struct{ deafLab }

func (nosyLab) WhyNot(_ context.Context, rule citywarden.RuleID, device citywarden.DeviceID, _ time.Time) (citywarden.WhyNot, error) {
	inputs := func() []citywarden.ExplainInput {
		return []citywarden.ExplainInput{{Device: device, Metric: "level"}, {Device: "mark-third", Metric: "level"}}
	}
	return citywarden.WhyNot{
		Rule: rule, Device: device, Reason: citywarden.WhyNotInhibited, Summary: text("no level of mark-third and " + string(device) + "; alarm burst:mark-third:1 holds it back"),
		Alarm:   &citywarden.Alarm{ID: "burst:mark-third:1", Device: "mark-third", Entity: "mark-third", Severity: citywarden.Major, State: citywarden.AlarmActive},
		Missing: []citywarden.WhyNotMetric{{Device: "mark-third", Metric: "level"}, {Device: device, Metric: "level"}},
		Late:    inputs(), After: inputs(), Notes: []citywarden.Text{text("mark-third is new")},
		Levels: []citywarden.WhyNotLevel{{
			Explanation: citywarden.Explanation{Severity: citywarden.Major, Summary: text("mark-third is silent"), Inputs: inputs()}, Result: "true", State: "pending",
		}},
	}, nil
}

// A case of several villages is each one's work, with what is to be done and where; of
// the devices of the others it tells nobody there anything, on no way.
func TestACaseTellsNothingOfDevicesElsewhere(t *testing.T) {
	p := newCounty(t, landmarks())
	p.server.Lab = nosyLab{}
	srv := newServerOf(t, p)
	const village, elsewhere = citywarden.AreaCode("350623100002"), "mark-third"
	here, everywhere := p.in(village), p.in("350623")
	watchers := map[string]*watcher{here: watch(t, srv, here, "", ""), everywhere: watch(t, srv, everywhere, "", "")}
	for _, w := range watchers {
		w.began()
	}

	l := &tale{p: p}
	third := citywarden.Alarm{Rule: "burst", Entity: elsewhere, Device: elsewhere, Severity: citywarden.Critical}
	second := citywarden.Alarm{Rule: "leak", Entity: "mark-second", Device: "mark-second", Severity: citywarden.Major}
	town := citywarden.Alarm{Rule: "many", Entity: "zone-7", Device: elsewhere, Members: []citywarden.DeviceID{"mark-second", elsewhere}, Severity: citywarden.Major}
	l.happens(citywarden.Raised, third, "burst/"+elsewhere, elsewhere+": pressure is 0.1 MPa, below 0.2 MPa")
	l.happens(citywarden.Raised, second, "burst/"+elsewhere, "mark-second: flow is 9 m³/h")
	l.happens(citywarden.Raised, town, "burst/"+elsewhere, "zone-7: at 2 devices")
	second.SuppressedBy = "burst:" + elsewhere + ":1"
	l.happens(citywarden.Suppressed, second, "burst/"+elsewhere, "")
	third.State = citywarden.AlarmCleared
	l.happens(citywarden.Cleared, third, "burst/"+elsewhere, elsewhere+": back to normal.")

	own, _, err := p.server.Cases.Cases(t.Context(), citywarden.CaseFilter{Alarm: "leak:mark-second:1"})
	if err != nil || len(own) != 1 || len(own[0].Alarms) != 3 || own[0].Device != elsewhere {
		t.Fatal(own, err)
	}
	c := own[0]
	if _, err := p.server.Cases.Do(t.Context(), c.ID, citywarden.CaseStep{Action: citywarden.File, By: "lin", Role: citywarden.RoleSupervisor}, 0); err != nil {
		t.Fatal(err)
	}
	// A second one, that the first is a duplicate of.
	other := third
	other.State, other.Rule = citywarden.AlarmActive, "smell"
	l.happens(citywarden.Raised, other, "smell/"+elsewhere, "smells at "+elsewhere)
	l.happens(citywarden.Raised, citywarden.Alarm{Rule: "smell", Entity: "mark-second", Device: "mark-second", Severity: citywarden.Minor}, "smell/"+elsewhere, "smells at mark-second")
	hub := p.server.Hub
	hub.Publish(citywarden.Event{Kind: "case", Data: citywarden.Case{ID: "last", Grid: "350623100002001"}})

	alarm := url.PathEscape("leak:mark-second:1")
	at := fmt.Sprintf("lat=%g&lon=%g", c.Location.Lat, c.Location.Lon)
	for _, q := range []struct {
		what, body string
		says       []string // that it says to both
		whole      string   // and to who sees everything only, with the device elsewhere
	}{
		{"GET /api/v1/cases/" + string(c.ID), "", []string{`"title":{"zh":"Burst","en":"Burst"}`, `"class_name"`, `"location"`, `"leak:mark-second:1"`, "pressure is 0.1 MPa, below 0.2 MPa", "flow is 9", "zone-7"}, `"burst:mark-third:1"`},
		{"GET /api/v1/cases?source=sensor", "", []string{string(c.ID), `"leak:mark-second:1"`, `"title":{"zh":"Burst","en":"Burst"}`}, `"key":"burst/mark-third"`},
		{"GET /api/v1/cases?alarm=" + alarm, "", []string{string(c.ID)}, `"many:zone-7:1"`},
		{"POST /api/v1/cases/" + string(c.ID) + "/actions/comment", `{"note":"seen"}`, []string{`"seen"`}, `"device":"mark-third","device_name":"mark-third"`},
		{"GET /api/v1/cases/" + string(c.ID) + "/duplicates", "", []string{`"smell:mark-second:1"`, `"distance_m":0`}, `"device":"mark-third","device_name":"mark-third"`},
		{"GET /api/v1/duplicates?class=event/0501&" + at, "", []string{`"smell:mark-second:1"`, `"leak:mark-second:1"`, `"distance_m":0`}, `"device":"mark-third","device_name":"mark-third"`},
		{"GET /api/v1/notices?case=" + string(c.ID), "", []string{`"title":{"zh":"Burst","en":"Burst"}`, "pressure is 0.1 MPa"}, `"alarm":"burst:mark-third:1"`},
		{"GET /api/v1/alarms/" + alarm, "", []string{`"suppressed_by":"burst`}, `"suppressed_by":"burst:mark-third:1"`},
		{"GET /api/v1/alarms?device=mark-second", "", []string{`"suppressed_by":"burst`}, `"suppressed_by":"burst:mark-third:1"`},
		{"GET /api/v1/alarms/" + alarm + "/history", "", []string{`"suppressed_by":"burst`, `"n > 1"`, `{"device":"mark-second","metric":"level"`}, `"suppressed_by":"burst:mark-third:1"`},
		{"GET /api/v1/alarms/" + alarm + "/why", "", []string{`"n > 1"`, `{"device":"mark-second","metric":"level"`, `{"device":"mark-second","result":"true"`}, `{"device":"mark-third","result":"false"`},
		{"GET /api/v1/rules/fire.smoke/why-not?device=mark-second", "", []string{"and mark-second", `{"device":"mark-second","metric":"level"`, "is silent"}, `"burst:mark-third:1"`},
	} {
		for token, all := range map[string]bool{here: false, everywhere: true} {
			a := p.do(token, q.what, q.body)
			if a.status != 200 {
				t.Fatal(q.what, a.status, a.body)
			}
			for _, s := range q.says {
				if !strings.Contains(a.body, s) {
					t.Errorf("%s (everything: %v) does not say %s: %s", q.what, all, s, a.body)
				}
			}
			if all && !strings.Contains(a.body, q.whole) {
				t.Errorf("%s does not say %s to who sees everything: %s", q.what, q.whole, a.body)
			}
			if !all && strings.Contains(a.body, elsewhere) {
				t.Errorf("%s tells of %s: %s", q.what, elsewhere, a.body)
			}
		}
	}

	// Who guesses the id of a device is not told whether there are alarms of it.
	for _, what := range []string{"cases", "notices"} {
		for _, id := range []string{"burst:mark-third:1", "burst:mark-nobody:1", "many:zone-7:1"} {
			if a := p.do(here, "GET /api/v1/"+what+"?alarm="+url.QueryEscape(id), ""); a.status != 200 || !strings.Contains(a.body, `"items":[]`) {
				t.Errorf("%s of alarm %s = %d %s", what, id, a.status, a.body)
			}
		}
	}

	// In an evaluation it is of the village where it lies, to which the other is foreign.
	a := p.do(p.in("350623101001"), "GET /api/v1/evaluation/cases?by=post&indicator=filed&key=shift_leader", "")
	if a.status != 200 || !strings.Contains(a.body, `"burst:mark-third:1"`) || strings.Contains(a.body, "mark-second") {
		t.Error(a.status, a.body)
	}

	for token, w := range watchers {
		var got []string
		for e := w.next(); !strings.Contains(e, `"last"`); e = w.next() {
			if e == "" {
				t.Fatal("the stream ended")
			}
			got = append(got, e)
		}
		all := strings.Join(got, "\n")
		if strings.Contains(all, elsewhere) != (token == everywhere) || !strings.Contains(all, `"leak:mark-second:1"`) || !strings.Contains(all, `"suppressed_by":"burst`) {
			t.Errorf("live, everything: %v:\n%s", token == everywhere, all)
		}
	}

	// Of a citizen's report that the case is merged into.
	citizen := p.as(citywarden.RoleCitizen)
	var report citywarden.Case
	p.do(citizen, "POST /api/v1/cases", `{"class":"event/0501","title":"water","location":{"lat":24.1005,"lon":117.6205}}`).into(t, &report)
	smells, _, err := p.server.Cases.Cases(t.Context(), citywarden.CaseFilter{Alarm: "smell:mark-second:1"})
	if err != nil || len(smells) != 1 {
		t.Fatal(smells, err)
	}
	if a := p.do(p.as(citywarden.RoleSupervisor), "POST /api/v1/cases/"+string(smells[0].ID)+"/actions/merge", `{"case":"`+string(report.ID)+`"}`); a.status != 200 {
		t.Fatal(a.status, a.body)
	}
	other.State = citywarden.AlarmCleared
	l.happens(citywarden.Cleared, other, "smell/"+elsewhere, "smells no more at "+elsewhere)
	whole := p.do(p.as(citywarden.RoleSupervisor), "GET /api/v1/cases/"+string(report.ID), "")
	if !strings.Contains(whole.body, `"smell:mark-third:1"`) || !strings.Contains(whole.body, "smells no more at mark-third") {
		t.Fatal(whole.body)
	}
	for _, what := range []string{"/cases/" + string(report.ID), "/cases", "/cases?alarm=smell:mark-third:1"} {
		a := p.do(citizen, "GET /api/v1"+what, "")
		if a.status != 200 || strings.Contains(a.body, "mark-") {
			t.Errorf("a citizen's %s = %d %s", what, a.status, a.body)
		}
		if listed := strings.Contains(a.body, string(report.ID)); listed == strings.Contains(what, "alarm") {
			t.Errorf("a citizen's %s has the report: %v", what, listed)
		}
	}
	if a := p.do(citizen, "GET /api/v1/cases/"+string(report.ID), ""); !strings.Contains(a.body, "smells no more at a device") || !strings.Contains(a.body, `"alarms":[]`) {
		t.Error(a.body)
	}
}

func TestReplaceWord(t *testing.T) {
	for _, c := range [][3]string{
		{"smoke-1: smoke-1 and smoke-10 (smoke-1)", "smoke-1", "a device: a device and smoke-10 (a device)"},
		{"smoke-1 smoke-1 smoke-1", "smoke-1", "a device a device a device"},
		{"告警：烟感（smoke-1），smoke-1：已恢复", "smoke-1", "告警：烟感（a device），a device：已恢复"},
		{"a.b and axb", "a.b", "a device and axb"},
		{"12 of 123", "12", "a device of 123"},
		{"nothing", "", "nothing"},
	} {
		if got := replaceWord(c[0], c[1], "a device"); got != c[2] {
			t.Errorf("replaceWord(%q, %q) = %q, want %q", c[0], c[1], got, c[2])
		}
	}
}
