package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

// A backtest goes from readings that were imported over to those that came in,
// also where a message brought what was measured before the platform began: each
// reading counts once, and what was raised live is raised at the same times.
func TestBacktestFromTheSeriesOverToTheLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rule := filepath.Join(dir, "data", "rules", "pipe.yaml")
	writeFile(t, rule, `rules:
- id: pipe.low
  select: {model: [pressure-logger]}
  levels: [{severity: major, when: 'pressure < 2'}]
  clear: {when: 'pressure > 2.5'}
`)
	p, err := launch(dir, "data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Interrupt) })
	c := clientOf(t, p)
	began := time.Now().UTC().Truncate(time.Second)
	ago := func(minutes int) time.Time { return began.Add(-time.Duration(minutes) * time.Minute) }
	const token = "token-of-a-logger"
	if err := c.call(t.Context(), "POST", "/devices/import", strings.NewReader("id,model,token\np1,pressure-logger,"+token+"\n"), nil); err != nil {
		t.Fatal(err)
	}
	post := func(body string) {
		t.Helper()
		res, err := http.Post(p.http+"/api/v1/"+token+"/telemetry", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if res.Body.Close(); res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", body, res.Status)
		}
	}

	// Two hours of the past, low for ten minutes; an upload that waited for an hour,
	// low for ten minutes; and the present, low for a moment.
	var csv strings.Builder
	csv.WriteString("time,device,metric,value\n")
	imported := 0
	for m := 180; m > 60; m -= 5 {
		v := 4.0
		if m == 120 || m == 115 {
			v = 1.5
		}
		fmt.Fprintf(&csv, "%s,p1,pressure,%g\n", ago(m).Format(time.RFC3339), v)
		imported++
	}
	file := filepath.Join(dir, "past.csv")
	writeFile(t, file, csv.String())
	cli := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := run(t.Context(), append(args, "--server", p.http, "--password", testPassword), output{&out, &errs}); code != 0 {
			t.Fatalf("%s: exit code %d\n%s", args, code, errs.String())
		}
		return out.String()
	}
	if out := cli("series", "import", file); !strings.Contains(out, fmt.Sprintf("%d readings stored, 0 not", imported)) {
		t.Fatal(out)
	}
	upload := []string{}
	for i, v := range []float64{4, 4, 1.5, 1.5, 4} {
		upload = append(upload, fmt.Sprintf(`{"ts":%d,"values":{"pressure":%g}}`, ago(50-5*i).UnixMilli(), v))
	}
	post("[" + strings.Join(upload, ",") + "]")
	post(`{"pressure":4}`)
	post(`{"pressure":1.5}`)
	post(`{"pressure":4}`)
	readings := imported + len(upload) + 3

	var live []citywarden.Alarm
	if !wait(30*time.Second, func() bool {
		live = nil
		err := list(t.Context(), c, "/alarms", url.Values{"state": {"cleared"}}, func(a citywarden.Alarm) error { live = append(live, a); return nil })
		var page struct{ Points []any }
		q := url.Values{"metric": {"pressure"}, "from": {ago(200).Format(time.RFC3339)}}
		return err == nil && len(live) == 2 && c.call(t.Context(), "GET", "/devices/p1/series?"+q.Encode(), nil, &page) == nil && len(page.Points) == readings
	}) {
		t.Fatalf("the platform raised %+v", live)
	}

	var got citywarden.Backtest
	shown := 0
	text, err := os.ReadFile(rule)
	if err != nil {
		t.Fatal(err)
	}
	body := map[string]any{"text": string(text), "from": ago(200)}
	if err := c.watch(t.Context(), "/rules/backtest", body, &got, func(citywarden.BacktestProgress) { shown++ }); err != nil {
		t.Fatal(err)
	}
	if shown == 0 {
		t.Error("no progress was shown")
	}
	if got.Readings != uint64(readings) || got.Logged.Before(ago(1)) || got.Logged.After(time.Now()) {
		t.Errorf("%d readings, from the log since %s; want %d, since the platform began", got.Readings, got.Logged, readings)
	}
	if len(got.Rules) != 1 || got.Rules[0].Tried.Raises != 3 || got.Rules[0].Both != 3 || got.Rules[0].Now.Raises != 3 {
		t.Fatalf("rules %+v, want three alarms in both", got.Rules)
	}
	raised := map[time.Time]time.Time{}
	for _, a := range got.Rules[0].Alarms {
		raised[a.Raised] = a.Cleared
	}
	if cleared, ok := raised[ago(120)]; !ok || !cleared.Equal(ago(110)) {
		t.Errorf("the alarm of the past is not among %v", raised)
	}
	for _, a := range live {
		if cleared, ok := raised[a.RaisedAt]; !ok || !cleared.Equal(a.ClearedAt) {
			t.Errorf("the platform raised %s at %s and cleared it at %s; the backtest has %v", a.ID, a.RaisedAt, a.ClearedAt, raised)
		}
	}

	out := strings.Join(strings.Fields(cli("rules", "backtest", rule, "--from", "200m")), " ")
	for _, want := range []string{fmt.Sprintf("%d readings in ", readings), "raised 3 3", "3 alarms in both, 0 only in tried, 0 only now"} {
		if !strings.Contains(out, want) {
			t.Errorf("the text lacks %q:\n%s", want, out)
		}
	}
	var again citywarden.Backtest
	if err := json.Unmarshal([]byte(cli("rules", "backtest", rule, "--from", "200m", "--json")), &again); err != nil || again.Rules[0].Tried.Raises != 3 || again.Readings != got.Readings {
		t.Errorf("as JSON: %v, %+v", err, again)
	}
}
