package api

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/rules"
)

const smokeRule = `rules:
- {id: fire.smoke, select: {model: [smoke-detector]}, levels: [{severity: critical, when: 'smoke > 0.3'}], clear: {when: 'smoke < 0.06'}}
tests:
- {name: smoke, devices: {d: {model: smoke-detector}}, input: [{device: d, metric: smoke, values: "0.4"}], expect: [{at: 1s, alarm: fire.smoke}]}
`

// begin is when the history of these tests begins.
var begin = time.Now().UTC().Truncate(time.Hour).Add(-24 * time.Hour)

// past is what came in from begin on: 20 minutes of smoke at smoke-1, every
// second. Some tests wait between two messages.
type past struct {
	*city
	wait chan struct{} // nil: does not wait
}

func newLab(t testing.TB, c *city) *rules.Lab {
	t.Helper()
	return labOver(t, past{city: c})
}

func labOver(t testing.TB, p past) *rules.Lab {
	t.Helper()
	set, err := rules.Load(fstest.MapFS{"fire.yaml": {Data: []byte(smokeRule)}}, p)
	if err != nil {
		t.Fatal(err)
	}
	return rules.NewLab(rules.NewRunner(rules.New(set, rules.Options{Devices: p}), nil, nil, rules.RunnerOptions{}), p, p, func(citywarden.ClassCode) error { return nil }, time.UTC)
}

func (past) Model(name citywarden.ModelName) (*citywarden.Model, bool) {
	m := smokeModel()
	return &m, name == m.Name
}

func (p past) Each(f func(*citywarden.Device, *citywarden.Model)) {
	m := smokeModel()
	for _, id := range []citywarden.DeviceID{"smoke-1", "smoke-2"} {
		if d, _, err := p.Device(id); err == nil {
			d.Created, d.Updated = time.Time{}, time.Time{}
			f(d, &m)
		}
	}
}

func (p past) Entries(ctx context.Context, q citywarden.HistoryQuery, f func([]citywarden.Entry) error) (time.Time, error) {
	d, m, _ := p.Device("smoke-1")
	d.Created, d.Updated = time.Time{}, time.Time{}
	for i := range 1200 {
		at := begin.Add(time.Duration(i) * time.Second)
		if at.Before(q.From) || !at.Before(q.To) {
			continue
		}
		if p.wait != nil {
			select {
			case p.wait <- struct{}{}:
			case <-ctx.Done():
				return q.From, ctx.Err()
			}
		}
		x := citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordUplink, At: at}, Device: d, Model: m,
			Readings: []citywarden.Reading{{Metric: "smoke", Value: citywarden.Number(0.2), Time: at}}}
		if err := f([]citywarden.Entry{x}); err != nil {
			return q.From, err
		}
	}
	return q.From, nil
}

func (past) History(context.Context, citywarden.AlarmID) ([]citywarden.AlarmStep, error) {
	return nil, nil
}

func (past) Alarms(context.Context, citywarden.AlarmFilter) ([]citywarden.Alarm, string, error) {
	return nil, "", nil
}

// backtestOf is a request with that limit of smoke.
func backtestOf(limit string) string {
	b, _ := json.Marshal(map[string]any{"text": strings.Replace(smokeRule, "0.3", limit, 1), "from": begin, "to": begin.Add(time.Hour)})
	return string(b)
}

func TestBacktest(t *testing.T) {
	p := newPlatform(t)
	a := p.do(p.as(citywarden.RoleEngineer), "POST /api/v1/rules/backtest", backtestOf("0.1"))
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	var out citywarden.Backtest
	a.into(t, &out)
	if r := out.Rules[0]; len(out.Rules) != 1 || r.Tried.Raises != 1 || r.Now == nil || r.Now.Raises != 0 || r.OnlyTried != 1 || r.Alarms[0].Entity != "smoke-1" || !r.Alarms[0].Raised.Equal(begin) {
		t.Errorf("result %s", a.body)
	}
	if out.Readings != 1200 || len(out.Notes) == 0 {
		t.Errorf("result %s", a.body)
	}
}

// Every mistake in the text comes with its place.
func TestBacktestOfMistakes(t *testing.T) {
	p := newPlatform(t)
	body := strings.ReplaceAll(backtestOf("0.1"), "smoke \\u003e", "smok \\u003e")
	for _, accept := range []string{"application/json", "text/event-stream"} {
		a := p.do(p.as(citywarden.RoleAdmin), "POST /api/v1/rules/backtest", body, "Accept", accept)
		var pr Problem
		if accept == "application/json" {
			pr = a.problem(t)
		} else {
			data, ok := strings.CutPrefix(a.body, ": it began\n\nevent: problem\ndata: ")
			if !ok || json.Unmarshal([]byte(strings.TrimSpace(data)), &pr) != nil {
				t.Fatalf("%s: %q", accept, a.body)
			}
		}
		if pr.Status != 400 || pr.Code != citywarden.CodeInvalid || len(pr.Problems) != 1 || pr.Problems[0].Line != 2 || pr.Problems[0].Col != 92 || !strings.Contains(pr.Problems[0].Message, `did you mean "smoke"?`) {
			t.Errorf("%s: %+v", accept, pr)
		}
	}
}

// events reads server-sent events as "kind data".
func readEvents(r *bufio.Scanner) []string {
	var out []string
	kind := ""
	for r.Scan() {
		if v, ok := strings.CutPrefix(r.Text(), "event: "); ok {
			kind = v
		}
		if v, ok := strings.CutPrefix(r.Text(), "data: "); ok {
			out = append(out, kind+" "+v)
		}
	}
	return out
}

// A backtest that takes longer than a body may take to come goes on; it shows
// how far it is, and ends with its result.
func TestBacktestShowsProgress(t *testing.T) {
	p := newPlatform(t)
	wait := make(chan struct{})
	p.server.Lab = labOver(t, past{p.city, wait})
	srv := httptest.NewServer(p.handler)
	defer srv.Close()
	go func() {
		// As slow as needed for the read deadline of the body, 5 s, to pass.
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for range 1200 {
			<-tick.C
			<-wait
		}
	}()
	req, _ := http.NewRequestWithContext(t.Context(), "POST", srv.URL+"/api/v1/rules/backtest", strings.NewReader(backtestOf("0.1")))
	req.Header.Set("Authorization", "Bearer "+p.as(citywarden.RoleEngineer))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream")
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	sc := bufio.NewScanner(res.Body)
	sc.Buffer(nil, 1<<20)
	evs := readEvents(sc)
	last := evs[len(evs)-1]
	if n := len(evs); n < 5 || !strings.HasPrefix(evs[0], `progress {"done":0.`) || !strings.HasPrefix(last, "result {") {
		t.Fatalf("%d events: %.300q", n, evs)
	}
	var out citywarden.Backtest
	if err := json.Unmarshal([]byte(strings.TrimPrefix(last, "result ")), &out); err != nil || out.Rules[0].OnlyTried != 1 {
		t.Errorf("%v %s", err, last)
	}
}

// Who hangs up ends the backtest, and the next one finds a place.
func TestBacktestEndsWithItsCaller(t *testing.T) {
	p := newPlatform(t)
	wait := make(chan struct{})
	p.server.Lab = labOver(t, past{p.city, wait})
	srv := httptest.NewServer(p.handler)
	defer srv.Close()
	for range 5 { // more than there are places
		ctx, hangUp := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "POST", srv.URL+"/api/v1/rules/backtest", strings.NewReader(backtestOf("0.1")))
		req.Header.Set("Authorization", "Bearer "+p.as(citywarden.RoleEngineer))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "text/event-stream")
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-wait: // it works
		case <-time.After(10 * time.Second):
			t.Fatal("no backtest is under way")
		}
		hangUp()
		res.Body.Close()
	}
}

func TestRulesTest(t *testing.T) {
	p := newPlatform(t)
	text := func(s string) string {
		b, _ := json.Marshal(map[string]string{"text": s})
		return string(b)
	}
	for _, c := range []struct {
		name, body string
		ok         bool
		want       string
	}{
		{"the files that run", `{}`, true, `"name":"smoke","file":"fire.yaml","line":4,"ok":true,"problems":[]`},
		{"no body", "", true, `"name":"smoke"`},
		{"a red test", text(strings.Replace(smokeRule, `"0.4"`, `"0.1"`, 1)), false, `"ok":false,"problems":[{"file":"rules.yaml","line":4,`},
		{"a mistake", text("rules: [{id: x}]"), false, `"problems":[{"file":"rules.yaml","line":1,"col":`},
		{"a warning", text(strings.Replace(smokeRule, "levels", "inhibit_by: [{rule: nobody}], levels", 1)), true, `"warnings":[{"file":"rules.yaml"`},
		{"too large", text(strings.Repeat("# 很大\n", 120_000)), false, "larger than 1048576 bytes"},
	} {
		a := p.do(p.as(citywarden.RoleEngineer), "POST /api/v1/rules/test", c.body)
		var r citywarden.RuleReport
		if a.status != http.StatusOK {
			t.Errorf("%s: %d %s", c.name, a.status, a.body)
			continue
		}
		a.into(t, &r)
		if r.OK != c.ok || !strings.Contains(a.body, c.want) {
			t.Errorf("%s: %s, want %s", c.name, a.body, c.want)
		}
	}
	if rs := p.do(p.as(citywarden.RoleViewer), "GET /api/v1/rules", ""); strings.Count(rs.body, `"id"`) != 1 {
		t.Errorf("the rules that run changed: %s", rs.body)
	}
}

func TestWhyNot(t *testing.T) {
	p := newPlatform(t)
	at := begin.Add(time.Minute).Format(time.RFC3339)
	a := p.do(p.as(citywarden.RoleViewer), "GET /api/v1/rules/fire.smoke/why-not?device=smoke-1&at="+at, "")
	var x citywarden.WhyNot
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	a.into(t, &x)
	if x.Reason != citywarden.WhyNotCondition || x.Summary.EN != "smoke-1: smoke is 0.2 dB/m, not above 0.3 dB/m." || len(x.Levels) != 1 || len(x.Levels[0].Leaves) != 1 {
		t.Errorf("%s", a.body)
	}
	for path, status := range map[string]int{
		"nobody/why-not?device=smoke-1":                          404,
		"fire.smoke/why-not?device=nobody":                       404,
		"fire.smoke/why-not":                                     400,
		"fire.smoke/why-not?device=smoke-1&at=yesterday":         400,
		"fire.smoke/why-not?device=smoke-1&at=2100-01-01T00:00Z": 400,
		"fire.smoke/why-not?device=smoke-1":                      200,
	} {
		if a := p.do(p.as(citywarden.RoleViewer), "GET /api/v1/rules/"+path, ""); a.status != status {
			t.Errorf("%s: %d %s, want %d", path, a.status, a.body, status)
		}
	}
}
