package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/citywarden/citywarden/app"
)

// TestOutsideCommands holds the commands, flags, defaults and exit codes that people and programs elsewhere rely on to
// their names.
func TestOutsideCommands(t *testing.T) {
	t.Parallel()
	say := func(args ...string) (code int, out string) {
		var b bytes.Buffer
		code = run(t.Context(), args, output{&b, &b})
		return code, b.String()
	}
	for _, c := range []string{
		"serve", "simulate", "rules check", "rules test", "rules backtest", "rules why-not", "devices add", "devices list", "devices import",
		"devices export", "cases", "certify", "audit", "backup", "restore", "version",
	} {
		code, help := say(append(strings.Fields(c), "--help")...)
		if code != 0 || !strings.HasPrefix(help, "Usage: citywarden "+c+" ") && !strings.HasPrefix(help, "Usage: citywarden "+c+"\n") {
			t.Errorf("citywarden %s --help exits with %d:\n%s", c, code, help)
		}
		if c != "serve" {
			continue
		}
		for _, flag := range []string{"--config=FILE", "--data=DIR", "--demo", "--http=ADDR", "--mqtt=ADDR", "--coap=ADDR"} {
			if !strings.Contains(help, " "+flag+" ") {
				t.Errorf("serve has no %s:\n%s", flag, help)
			}
		}
	}
	d := app.Default()
	if filepath.Clean(d.Data) != "data" || d.HTTP.Addr != ":8080" || d.MQTT.Addr != ":1883" || d.CoAP.Addr != ":5683" {
		t.Errorf("defaults: data %q, HTTP %q, MQTT %q, CoAP %q", d.Data, d.HTTP.Addr, d.MQTT.Addr, d.CoAP.Addr)
	}
	d = d.Loopback()
	for _, a := range []string{d.HTTP.Addr, d.MQTT.Addr, d.CoAP.Addr} {
		if !strings.HasPrefix(a, "127.0.0.1:") {
			t.Errorf("the demo listens at %s", a)
		}
	}
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	writeFile(t, bad, "rules:\n- id: bad\n  select: {model: [smoke-detector]}\n  levels: [{severity: major, when: 'smok > 1'}]\n")
	for want, all := range [][]string{
		{"version", "rules check ../../rules/library"},
		{"rules check " + bad, "audit --server http://127.0.0.1:1 --password x"},
		{"dance", "serve --no-such-flag", "serve --mqtt 1883", "serve --config nowhere.yaml", "audit --since yesterday --password x"},
	} {
		for _, line := range all {
			if code, out := say(strings.Fields(line)...); code != want {
				t.Errorf("citywarden %s exits with %d, want %d:\n%s", line, code, want, out)
			}
		}
	}
}

// outsider speaks to the API of a platform with what stands in the contract and nothing of ours.
type outsider struct {
	t           *testing.T
	base, token string
}

// ask returns the answer, which must have that status, of JSON decoded.
func (o *outsider) ask(status int, method, path, body string) any {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), method, o.base+path, strings.NewReader(body))
	if err != nil {
		o.t.Fatal(err)
	}
	if o.token != "" {
		req.Header.Set("Authorization", "Bearer "+o.token)
	}
	switch {
	case strings.HasPrefix(body, "{"):
		req.Header.Set("Content-Type", "application/json")
	case body != "":
		req.Header.Set("Content-Type", "text/csv")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		o.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	if resp.StatusCode != status {
		o.t.Fatalf("%s %s %s = %s %s, want %d", method, path, body, resp.Status, b, status)
	}
	if status >= 400 && resp.Header.Get("Content-Type") != "application/problem+json" {
		o.t.Errorf("%s %s: the error is %s", method, path, resp.Header.Get("Content-Type"))
	}
	var out any
	if json.Unmarshal(b, &out) != nil {
		return string(b)
	}
	return out
}

// has says which of keys, separated by spaces, an object lacks.
func (o *outsider) has(what string, x any, keys string) map[string]any {
	o.t.Helper()
	m, _ := x.(map[string]any)
	for _, k := range strings.Fields(keys) {
		if _, ok := m[k]; !ok {
			o.t.Errorf("%s has no %q: %v", what, k, x)
		}
	}
	return m
}

// items returns those of a list that has no more.
func (o *outsider) items(path string) []any {
	o.t.Helper()
	m := o.has(path, o.ask(200, "GET", path, ""), "items next")
	if m["next"] != nil {
		o.t.Errorf("%s: next is %v", path, m["next"])
	}
	list, ok := m["items"].([]any)
	if !ok {
		o.t.Errorf("%s: items are %v", path, m["items"])
	}
	return list
}

// watch notes the kinds of the events that come.
func (o *outsider) watch() (kinds func() []string) {
	o.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", o.base+"/api/v1/events", nil)
	if err != nil {
		o.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+o.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		o.t.Fatal(resp, err)
	}
	var mu sync.Mutex
	seen := map[string]bool{}
	var reading sync.WaitGroup
	reading.Go(func() {
		defer resp.Body.Close()
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			if kind, ok := strings.CutPrefix(s.Text(), "event: "); ok {
				mu.Lock()
				seen[kind] = true
				mu.Unlock()
			}
		}
	})
	o.t.Cleanup(func() { cancel(); reading.Wait() })
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Sorted(maps.Keys(seen))
	}
}

// TestOutsideContract speaks to the platform as programs elsewhere do that were written to the names of the API: with
// paths, fields and forms as they were said, not as our code has them.
func TestOutsideContract(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "data", "rules", "fire.yaml"), `rules:
- id: fire.smoke
  select: {model: [smoke-detector]}
  levels: [{severity: critical, when: 'smoke > 0.12'}]
  clear: {when: 'smoke < 0.06'}
  case: {class: event/0595, key: 'fire/{{device}}'}
`)
	p, err := launch(dir, "data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(syscall.SIGKILL) })
	o := &outsider{t: t, base: p.http}

	// Without a word of who one is.
	o.ask(200, "GET", "/healthz", "")
	o.ask(200, "GET", "/readyz", "")
	if m, _ := o.ask(200, "GET", "/metrics", "").(string); !strings.Contains(m, "\ncitywarden_") {
		t.Errorf("/metrics = %.200s", m)
	}
	doc := o.has("/api/openapi.json", o.ask(200, "GET", "/api/openapi.json", ""), "openapi info paths")
	if v, _ := doc["openapi"].(string); !strings.HasPrefix(v, "3.1") {
		t.Errorf("OpenAPI %v", doc["openapi"])
	}
	o.has("an error", o.ask(401, "GET", "/api/v1/devices", ""), "title status detail")
	o.has("an error", o.ask(401, "POST", "/api/v1/login", `{"user":"admin","password":"wrong"}`), "title status detail")
	in := o.has("login", o.ask(200, "POST", "/api/v1/login", fmt.Sprintf(`{"user":"admin","password":%q}`, testPassword)), "token")
	o.token, _ = in["token"].(string)
	kinds := o.watch()

	// A device is registered and reports.
	const device = `{"id":"d1","name":"hall","model":"smoke-detector","attributes":{"zone":"B1"},"location":{"lat":24.11,"lon":117.61}}`
	o.ask(201, "POST", "/api/v1/devices", device)
	d := o.has("a device", o.ask(200, "GET", "/api/v1/devices/d1", ""), "id name model attributes location")
	o.has("its location", d["location"], "lat lon")
	o.ask(200, "PUT", "/api/v1/devices/d1", strings.Replace(device, "hall", "the hall", 1))
	o.ask(200, "POST", "/api/v1/devices/import", "id,model,lat,lon\nd2,smoke-detector,24.12,117.62\n")
	if got := o.items("/api/v1/devices?limit=100"); len(got) != 2 {
		t.Errorf("devices: %v", got)
	}
	page := o.has("a page", o.ask(200, "GET", "/api/v1/devices?limit=1", ""), "items next")
	if next, ok := page["next"].(string); !ok || len(o.items("/api/v1/devices?limit=1&after="+next)) != 1 {
		t.Errorf("a page of two: %v", page)
	}
	secret := o.has("a credential", o.ask(201, "POST", "/api/v1/devices/d1/credentials", `{"type":"token"}`), "token")
	send := func(body string) {
		t.Helper()
		o.ask(200, "POST", fmt.Sprintf("/api/v1/%s/telemetry", secret["token"]), body)
	}
	from := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	send(`{"smoke":0.4,"temperature":21}`)
	var latest map[string]any
	if !wait(time.Minute, func() bool {
		latest, _ = o.ask(200, "GET", "/api/v1/devices/d1/latest", "").(map[string]any)
		return latest["smoke"] != nil
	}) {
		t.Fatalf("latest: %v", latest)
	}
	if v := o.has("a latest value", latest["smoke"], "value time quality"); v["value"] != 0.4 || v["quality"] != "good" {
		t.Errorf("latest: %v", latest)
	}
	for _, query := range []string{"", "&every=1m&agg=max", "&to=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339)} {
		path := "/api/v1/devices/d1/series?metric=smoke&from=" + from + query
		var points []any
		if !wait(time.Minute, func() bool {
			points, _ = o.has("a series", o.ask(200, "GET", path, ""), "points")["points"].([]any)
			return len(points) > 0
		}) {
			t.Fatalf("%s has no points", path)
		}
		last, _ := points[len(points)-1].([]any)
		for _, x := range points {
			if p, _ := x.([]any); len(p) == 2 && p[1] != nil {
				last = p
			}
		}
		if len(last) != 2 || last[1] != 0.4 {
			t.Errorf("%s: %v", path, points)
			continue
		}
		if at, _ := last[0].(string); !parses(at) {
			t.Errorf("%s: time %v is none of RFC 3339", path, last[0])
		}
	}

	// It is an alarm and a case.
	var alarm map[string]any
	find := func(query string) bool {
		if got := o.items("/api/v1/alarms?device=d1&rule=fire.smoke&severity=critical" + query); len(got) == 1 {
			alarm, _ = got[0].(map[string]any)
			return true
		}
		return false
	}
	if !wait(time.Minute, func() bool { return find("&state=active") && alarm["case"] != nil }) {
		t.Fatalf("no alarm: %v", alarm)
	}
	o.has("an alarm", alarm, "id rule device severity state acked raised_at case")
	if alarm["state"] != "active" || alarm["acked"] != false || alarm["severity"] != "critical" || alarm["device"] != "d1" {
		t.Errorf("the alarm: %v", alarm)
	}
	path := fmt.Sprintf("/api/v1/alarms/%s", alarm["id"])
	o.ask(200, "GET", path+"/why", "")
	if a := o.has("an acknowledged alarm", o.ask(200, "POST", path+"/ack", ""), "acked"); a["acked"] != true {
		t.Errorf("acknowledged: %v", a)
	}
	o.ask(200, "POST", path+"/shelve", `{"for":"1h","reason":"a test"}`)
	o.ask(409, "POST", path+"/reset", "") // it is not latched
	send(`{"smoke":0.01}`)
	if !wait(time.Minute, func() bool { return find("&state=cleared") }) {
		t.Fatal("the alarm does not clear")
	}
	o.has("a cleared alarm", alarm, "cleared_at")
	one := fmt.Sprintf("/api/v1/cases/%s", alarm["case"])
	o.has("a case", o.ask(200, "GET", one, ""), "id stage timeline")
	o.ask(200, "POST", one+"/actions/file", `{"note":"seen"}`)
	o.ask(409, "POST", one+"/actions/close", `{}`)
	o.ask(201, "POST", "/api/v1/cases", `{"class":"event/0506","title":"water","location":{"lat":24.11,"lon":117.61}}`)
	if got := o.items("/api/v1/cases"); len(got) != 2 {
		t.Errorf("cases: %v", got)
	}

	// Rules, figures, and what there is for other programs.
	if got := o.items("/api/v1/rules"); len(got) != 1 {
		t.Errorf("rules: %v", got)
	}
	rule := o.has("a rule", o.ask(200, "GET", "/api/v1/rules/fire.smoke", ""), "id text")
	text, err := json.Marshal(fmt.Sprint("rules:\n", rule["text"]))
	if err != nil {
		t.Fatal(err)
	}
	o.ask(200, "POST", "/api/v1/rules/test", fmt.Sprintf(`{"text":%s}`, text))
	o.ask(200, "POST", "/api/v1/rules/backtest", fmt.Sprintf(`{"text":%s,"from":%q,"to":%q}`, text, from, time.Now().UTC().Format(time.RFC3339)))
	for _, by := range []string{"area", "department", "post"} {
		o.ask(200, "GET", "/api/v1/evaluation?by="+by+"&from="+from+"&to="+time.Now().UTC().Format(time.RFC3339), "")
	}
	o.ask(400, "POST", fmt.Sprintf("/api/v1/%s/telemetry", secret["token"]), `{"smoke":`)
	if !wait(time.Minute, func() bool { return len(o.items("/api/v1/deadletters")) == 1 }) {
		t.Error("no dead letter")
	}
	rows := o.items("/api/v1/ledger?device=d1&from=" + from)
	if len(rows) == 0 {
		t.Fatal("the ledger is empty")
	}
	o.has("a row of the ledger", rows[0], "received stored rejected duplicate quarantined")
	o.ask(200, "GET", "/open311/v2/services.json", "")
	if !wait(time.Minute, func() bool {
		return slices.Equal(kinds(), []string{"alarm", "case", "device", "reading"})
	}) {
		t.Errorf("events: %v", kinds())
	}
	o.ask(204, "DELETE", "/api/v1/devices/d2", "")
	o.has("an error", o.ask(404, "GET", "/api/v1/devices/d2", ""), "title status detail")

	// It stops within the 10 s that stop waits for.
	if err := p.stop(syscall.SIGTERM); err != nil {
		t.Errorf("stopped with %v:\n%s", err, p.stderr)
	}
}

func parses(at string) bool {
	_, err := time.Parse(time.RFC3339, at)
	return err == nil
}
