package main

import (
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

// TestDemo waits for what a newcomer is promised: within three minutes a fire,
// a burst, a blocked fire lane and a load excess, each an alarm that says why
// and a case in a unit grid that can be closed. In the middle the platform is
// killed and started again; nothing may be there twice.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	started := time.Now()
	p, err := launch(dir, "data", "--demo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	t.Logf("ready after %s", time.Since(started).Round(time.Millisecond))

	wanted := []citywarden.RuleID{"fire.zone-smoke", "pipe.burst", "parking.fire-lane", "building.quiet-load"}
	var byRule map[citywarden.RuleID][]citywarden.Alarm
	raised := func(n int) func() bool {
		c := clientOf(t, p)
		return func() bool {
			byRule = map[citywarden.RuleID][]citywarden.Alarm{}
			if err := list(t.Context(), c, "/alarms", url.Values{}, func(a citywarden.Alarm) error {
				byRule[a.Rule] = append(byRule[a.Rule], a)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			found := 0
			for _, r := range wanted {
				if len(byRule[r]) > 0 {
					found++
				}
			}
			return found >= n
		}
	}
	if !waitSlowly(3*time.Minute, raised(2)) {
		t.Fatalf("fewer than two of the incidents became alarms: %v", byRule)
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.done
	if p, err = launch(dir, "data", "--demo"); err != nil {
		t.Fatal(err)
	}
	if !waitSlowly(time.Until(started.Add(3*time.Minute)), raised(len(wanted))) {
		t.Fatalf("after three minutes there are alarms of %v, want %v\n%s", byRule, wanted, p.stderr)
	}
	t.Logf("all four incidents were alarms after %s, a crash included", time.Since(started).Round(time.Second))
	for r, as := range byRule {
		episodes := map[string]bool{}
		for _, a := range as {
			key := a.Entity + "/" + string(a.ID)
			if episodes[key] || a.Episode != 1 {
				t.Errorf("alarm %s is there twice, or is episode %d within three minutes", a.ID, a.Episode)
			}
			episodes[key] = true
		}
		if !wantedRule(wanted, r) {
			t.Errorf("rule %s raised %d alarms though nothing it watches for happened: %+v", r, len(as), as)
		}
	}
	c := clientOf(t, p)
	for i, r := range wanted {
		if i == len(wanted)-1 { // some cases are closed, one is open
			runBoards(t, p)
		}
		closeCaseOf(t, c, byRule[r][0])
		backtestOf(t, c, r, started)
	}
}

// backtestOf compares what a backtest of a rule that runs raises with what the
// platform raised.
func backtestOf(t *testing.T, c *client, id citywarden.RuleID, since time.Time) {
	t.Helper()
	live := func() map[string]bool {
		raised := map[string]bool{}
		if err := list(t.Context(), c, "/alarms", url.Values{"rule": {string(id)}}, func(a citywarden.Alarm) error {
			raised[a.Entity+" at "+a.RaisedAt.Format(time.RFC3339Nano)] = true
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return raised
	}
	before := live()
	var rule citywarden.Rule
	if err := c.call(t.Context(), "GET", "/rules/"+string(id), nil, &rule); err != nil {
		t.Fatal(err)
	}
	var got citywarden.Backtest
	body := map[string]any{"text": "rules:\n" + rule.Text, "from": since.Add(-time.Minute), "to": time.Now()}
	if err := c.watch(t.Context(), "/rules/backtest", body, &got, func(citywarden.BacktestProgress) {}); err != nil {
		t.Fatalf("backtest of %s: %v", id, err)
	}
	tried := map[string]bool{}
	for _, a := range got.Rules[0].Alarms {
		tried[a.Entity+" at "+a.Raised.Format(time.RFC3339Nano)] = true
	}
	for x := range before {
		if !tried[x] {
			t.Errorf("the platform raised %s for %s, a backtest does not: %v", id, x, tried)
		}
	}
	for x := range tried {
		if !wait(10*time.Second, func() bool { return live()[x] }) {
			t.Errorf("a backtest raises %s for %s, the platform did not: %v", id, x, before)
		}
	}
	if len(before) == 0 {
		t.Errorf("the platform raised no %s", id)
	}
}

func wantedRule(rs []citywarden.RuleID, r citywarden.RuleID) bool {
	for _, x := range rs {
		if x == r {
			return true
		}
	}
	return false
}

// waitSlowly is wait with a second between two looks.
func waitSlowly(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(time.Second) {
		if ok() {
			return true
		}
	}
	return ok()
}

// closeCaseOf works the case of an alarm to its end.
func closeCaseOf(t *testing.T, c *client, a citywarden.Alarm) {
	t.Helper()
	var why citywarden.Explanation
	if err := c.call(t.Context(), "GET", "/alarms/"+url.PathEscape(string(a.ID))+"/why", nil, &why); err != nil {
		t.Fatal(err)
	}
	if len(why.Leaves) == 0 || len(why.Inputs) == 0 || why.Summary.ZH == "" || why.Summary.EN == "" {
		t.Errorf("%s explains little: %+v", a.ID, why)
	}
	var k citywarden.Case
	path := "/cases/" + url.PathEscape(string(a.Case))
	if err := c.call(t.Context(), "GET", path, nil, &k); err != nil {
		t.Fatalf("case of %s: %v", a.ID, err)
	}
	if k.Grid.Check() != nil || k.ClassName.ZH == "" || len(k.Timeline) == 0 || k.Source != citywarden.SourceSensor {
		t.Errorf("case of %s: %+v", a.ID, k)
	}
	for _, action := range []citywarden.Action{citywarden.File, citywarden.Dispatch, citywarden.Handle, citywarden.Verify, citywarden.Close} {
		if err := c.call(t.Context(), "POST", path+"/actions/"+string(action), map[string]string{"note": "done"}, &k); err != nil {
			t.Fatalf("%s case %s: %v", action, k.ID, err)
		}
	}
	if k.Stage != citywarden.Closed || k.Deadline.IsZero() {
		t.Errorf("case %s is %s, deadline %s", k.ID, k.Stage, k.Deadline)
	}
}
