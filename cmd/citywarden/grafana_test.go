package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend/grpcplugin"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
	hclog "github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/dashboards/api"
	"github.com/citywarden/citywarden/dashboards/grafana/boards"
)

// grafana is the plugin's process, started as Grafana starts it.
type grafana struct {
	diagnostics grpcplugin.DiagnosticsClient
	data        grpcplugin.DataClient
	resources   grpcplugin.ResourceClient
	streams     grpcplugin.StreamClient
	context     *pluginv2.PluginContext
}

func startPlugin(t *testing.T) *grafana {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "gpx_citywarden_datasource")
	if out, err := exec.Command("go", "build", "-o", bin, "../citywarden-datasource").CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, out)
	}
	c := goplugin.NewClient(&goplugin.ClientConfig{
		Cmd: exec.Command(bin),
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: grpcplugin.ProtocolVersion, MagicCookieKey: grpcplugin.MagicCookieKey, MagicCookieValue: grpcplugin.MagicCookieValue,
		},
		VersionedPlugins: map[int]goplugin.PluginSet{grpcplugin.ProtocolVersion: {
			"diagnostics": &grpcplugin.DiagnosticsGRPCPlugin{}, "data": &grpcplugin.DataGRPCPlugin{}, "resource": &grpcplugin.ResourceGRPCPlugin{},
			"stream": &grpcplugin.StreamGRPCPlugin{},
		}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Logger:           hclog.NewNullLogger(),
	})
	t.Cleanup(c.Kill)
	rpc, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	dispense := func(name string) any {
		x, err := rpc.Dispense(name)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	return &grafana{
		diagnostics: dispense("diagnostics").(grpcplugin.DiagnosticsClient),
		data:        dispense("data").(grpcplugin.DataClient),
		resources:   dispense("resource").(grpcplugin.ResourceClient),
		streams:     dispense("stream").(grpcplugin.StreamClient),
	}
}

// configure sets the datasource as its settings page would.
func (g *grafana) configure(url, token string) {
	g.context = &pluginv2.PluginContext{
		OrgId: 1, PluginId: "citywarden-datasource",
		DataSourceInstanceSettings: &pluginv2.DataSourceInstanceSettings{
			Uid: "citywarden", Name: "citywarden", Url: url, JsonData: []byte(`{}`),
			DecryptedSecureJsonData: map[string]string{"token": token}, LastUpdatedMS: time.Now().UnixNano(),
		},
	}
}

func (g *grafana) health(t *testing.T) (ok bool, message string) {
	t.Helper()
	res, err := g.diagnostics.CheckHealth(t.Context(), &pluginv2.CheckHealthRequest{PluginContext: g.context})
	if err != nil {
		t.Fatal(err)
	}
	return res.Status == pluginv2.CheckHealthResponse_OK, res.Message
}

// query asks for the last hour.
func (g *grafana) query(t *testing.T, body string) (data.Frames, *pluginv2.DataResponse) {
	t.Helper()
	return g.querySince(t, body, time.Hour)
}

func (g *grafana) querySince(t *testing.T, body string, since time.Duration) (data.Frames, *pluginv2.DataResponse) {
	t.Helper()
	now := time.Now()
	res, err := g.data.QueryData(t.Context(), &pluginv2.QueryDataRequest{PluginContext: g.context, Queries: []*pluginv2.DataQuery{{
		RefId: "A", Json: []byte(body), IntervalMS: max(since.Milliseconds()/500, 1000), MaxDataPoints: 500,
		TimeRange: &pluginv2.TimeRange{FromEpochMS: now.Add(-since).UnixMilli(), ToEpochMS: now.Add(time.Minute).UnixMilli()},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	r := res.Responses["A"]
	frames, err := data.UnmarshalArrowFrames(r.Frames)
	if err != nil {
		t.Fatal(err)
	}
	return frames, r
}

// resource asks for a picker's values.
func (g *grafana) resource(t *testing.T, path, query string, out any) {
	t.Helper()
	stream, err := g.resources.CallResource(t.Context(), &pluginv2.CallResourceRequest{PluginContext: g.context, Path: path, Method: "GET", Url: path + "?" + query})
	if err != nil {
		t.Fatal(err)
	}
	res, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(res.Body, out); err != nil || res.Code != http.StatusOK {
		t.Fatalf("%s?%s: %d %s", path, query, res.Code, res.Body)
	}
}

// tokenForGrafana makes the service user that docs/grafana.md tells to make.
func tokenForGrafana(t *testing.T, c *client) string {
	t.Helper()
	if err := c.call(t.Context(), "POST", "/users", map[string]string{"name": "grafana", "role": "service"}, nil); err != nil {
		t.Fatal(err)
	}
	var made struct{ Token string }
	if err := c.call(t.Context(), "POST", "/users/grafana/tokens", map[string]string{"label": "grafana"}, &made); err != nil {
		t.Fatal(err)
	}
	return made.Token
}

// TestGrafanaPlugin starts the plugin's process as Grafana does and asks it for
// what a real platform knows.
func TestGrafanaPlugin(t *testing.T) {
	t.Parallel()
	p, err := launch(t.TempDir(), "data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	token := addDevices(t, p, 1)[0]
	for _, body := range []string{`{"smoke":0.02,"mains":true}`, `{"smoke":0.05}`} {
		if err := publish(p.mqtt, token, body); err != nil {
			t.Fatal(err)
		}
	}
	c := clientOf(t, p)
	service := tokenForGrafana(t, c)
	if err := c.call(t.Context(), "POST", "/cases", map[string]string{"class": "event/0506", "title": "积水", "device": "d0"}, nil); err != nil {
		t.Fatal(err)
	}

	g := startPlugin(t)
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	older := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, map[string]string{"/api/v1/me": `{}`, "/api/v1/info": `{"version":"0.1"}`, "/api/openapi.json": `{"paths":{"/api/v1/devices":{}}}`}[r.URL.Path])
	}))
	defer older.Close()
	for _, tt := range []struct{ name, url, token, want string }{
		{"no url", "", service, "Write the URL"},
		{"no token", p.http, "", "Write the token"},
		{"wrong token", p.http, "nobody-has-this-token", "does not know this token"},
		{"another server", other.URL, service, "is not citywarden"},
		{"another version", older.URL, service, "citywarden 0.1 at " + older.URL + " is of another version than this plugin: it has no /api/v1/series"},
		{"nobody there", "http://127.0.0.1:9", service, "No answer from"},
		{"right", p.http, service, "Connected to citywarden"},
	} {
		g.configure(tt.url, tt.token)
		if ok, msg := g.health(t); !strings.Contains(msg, tt.want) || ok != (tt.name == "right") {
			t.Errorf("%s: health %v %q, want %q", tt.name, ok, msg, tt.want)
		}
	}

	var frames data.Frames
	if !wait(10*time.Second, func() bool {
		frames, _ = g.query(t, `{"queryType":"series","device":"d0","metric":"smoke"}`)
		return len(frames) == 1 && frames[0].Rows() == 2
	}) {
		t.Fatalf("series: %v", frames)
	}
	if f := frames[0].Fields[1]; f.Config.Unit != "suffix: dB/m" || f.Labels["device"] != "d0" || *f.At(1).(*float64) != 0.05 {
		t.Errorf("series field %+v %v", f.Config, f.Labels)
	}
	if frames, r := g.query(t, `{"queryType":"series","device":"d0","metric":"smoke","agg":"max"}`); len(frames) != 1 || frames[0].Rows() == 0 {
		t.Errorf("aggregated series: %v %s", frames, r.Error)
	}
	for body, field := range map[string]string{
		`{"queryType":"latest"}`: "smoke", `{"queryType":"cases","lang":"zh"}`: "stage", `{"queryType":"alarms"}`: "severity",
	} {
		frames, r := g.query(t, body)
		if len(frames) != 1 || r.Error != "" {
			t.Errorf("%s: %d frames, error %q", body, len(frames), r.Error)
			continue
		}
		if f, _ := frames[0].FieldByName(field); f == nil || f.Len() != map[string]int{"smoke": 1, "stage": 1}[field] {
			t.Errorf("%s: column %s in %v", body, field, frames[0])
		}
	}
	sumOf := func(f *data.Frame, column string) (sum float64) {
		field, _ := f.FieldByName(column)
		if field == nil {
			return math.NaN()
		}
		for i := range field.Len() {
			v, _ := field.FloatAt(i)
			sum += v
		}
		return sum
	}
	if !wait(10*time.Second, func() bool { // it counts on its own
		frames, _ := g.query(t, `{"queryType":"ledger"}`)
		return len(frames) == 1 && sumOf(frames[0], "messages") == 2
	}) {
		t.Error("the ledger does not come to 2 messages")
	}
	for _, tt := range []struct {
		body string
		rows int
		sums map[string]float64
	}{
		{`{"queryType":"ledger"}`, 1, map[string]float64{"messages": 2, "stored": 3, "rejected": 0}},
		{`{"queryType":"ledger","of":"device"}`, 1, map[string]float64{"messages": 2, "stored": 3}},
		{`{"queryType":"evaluation","of":"area","lang":"en"}`, 1, map[string]float64{"reports": 1}},
		{`{"queryType":"annotations","of":"cases"}`, 1, nil},
		{`{"queryType":"annotations"}`, 0, nil},
	} {
		frames, r := g.query(t, tt.body)
		if len(frames) != 1 || frames[0].Rows() != tt.rows || r.Error != "" {
			t.Errorf("%s: %v, error %q, want %d rows", tt.body, frames, r.Error, tt.rows)
			continue
		}
		for column, want := range tt.sums {
			if got := sumOf(frames[0], column); got != want {
				t.Errorf("%s: %s is %g in %v, want %g", tt.body, column, got, frames[0], want)
			}
		}
	}
	if frames, r := g.query(t, `{"queryType":"states"}`); len(frames) != 1 || frames[0].Meta.Type != data.FrameTypeNumericLong || frames[0].Rows() != 1 {
		t.Errorf("states, which alerts can be set on: %v %s", frames, r.Error)
	}
	// A dashboard's filters reach all of its panels; those that rows of alarms and cases
	// have say nothing of devices.
	for filter, rows := range map[string]int{
		`{"key":"model","operator":"=","value":"smoke-detector"}`:  1,
		`{"key":"model","operator":"!=","value":"smoke-detector"}`: 0,
		`{"key":"severity","operator":"=","value":"critical"}`:     1,
		`{"key":"department","operator":"=","value":"市政处"}`:        1,
	} {
		body := `{"queryType":"latest","filters":[` + filter + `]}`
		if frames, r := g.query(t, body); len(frames) != 1 || frames[0].Rows() != rows || r.Error != "" {
			t.Errorf("%s: %v, error %q, want %d rows", body, frames, r.Error, rows)
		}
	}
	for body, want := range map[string]string{
		`{"queryType":"latest","filters":[{"key":"colour","operator":"=","value":"red"}]}`: `filter by "colour": devices have`,
		`{"queryType":"series"}`:                                "choose a metric",
		`{"queryType":"series","device":"d9","metric":"smoke"}`: "d9",
		`{"queryType":"weather"}`:                               "unknown query type",
	} {
		if _, r := g.query(t, body); !strings.Contains(r.Error, want) || r.Status/100 != 4 {
			t.Errorf("%s: %d %q, want %q", body, r.Status, r.Error, want)
		}
	}

	var page struct{ Items []struct{ ID string } }
	if g.resource(t, "devices", "q=d0", &page); len(page.Items) != 1 || page.Items[0].ID != "d0" {
		t.Errorf("picker of devices: %v", page)
	}

	// Live: what comes in from now on, over the platform's events.
	frames, r := g.query(t, `{"queryType":"live","device":"d0","metric":"smoke"}`)
	if len(frames) != 1 || frames[0].Meta == nil || frames[0].Meta.Channel != "ds/citywarden/readings/d0/smoke" {
		t.Fatalf("live: %v %s", frames, r.Error)
	}
	if sub, err := g.streams.SubscribeStream(t.Context(), &pluginv2.SubscribeStreamRequest{PluginContext: g.context, Path: "elsewhere"}); err != nil || sub.Status != pluginv2.SubscribeStreamResponse_NOT_FOUND {
		t.Errorf("a stream that is none: %v, %v", sub, err)
	}
	stream, err := g.streams.RunStream(t.Context(), &pluginv2.RunStreamRequest{PluginContext: g.context, Path: "readings/d0/smoke"})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 100)
	go func() {
		for {
			packet, err := stream.Recv()
			if err != nil {
				return
			}
			got <- string(packet.Data)
		}
	}()
	came := ""
	if !wait(20*time.Second, func() bool {
		if err := publish(p.mqtt, token, `{"smoke":0.07}`); err != nil {
			t.Fatal(err)
		}
		select {
		case came = <-got:
			return true
		case <-time.After(500 * time.Millisecond):
			return false
		}
	}) || !strings.Contains(came, "0.07") {
		t.Errorf("live reading: %q", came)
	}

	if err := p.stop(os.Kill); err == nil {
		t.Fatal("the platform was not killed")
	}
	if _, r := g.query(t, `{"queryType":"latest"}`); r.Status != http.StatusBadGateway || r.Error == "" {
		t.Errorf("platform down: %d %q", r.Status, r.Error)
	}
}

// runBoards runs every panel of every dashboard, as Grafana would, on a platform
// with alarms and cases: each query has an answer, with units, and no panel is empty.
func runBoards(t *testing.T, p *process) {
	t.Helper()
	c := clientOf(t, p)
	prom := startPrometheus(t, p) // scrapes while the others are asked
	importHistory(t, c)
	g := startPlugin(t)
	g.configure(p.http, tokenForGrafana(t, c))
	all, err := boards.All()
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range all {
		var board struct {
			Time       struct{ From string }
			Templating struct {
				List []struct {
					Name, Type string
					Query      any
				}
			}
			Annotations struct {
				List []struct{ Target json.RawMessage }
			}
			Panels []struct {
				Title, TimeFrom string
				Targets         []json.RawMessage
				Options         struct{ ReduceOptions struct{ Fields string } }
			}
		}
		if err := json.Unmarshal(text, &board); err != nil {
			t.Fatal(err)
		}
		for _, v := range board.Templating.List {
			if v.Type != "query" {
				continue
			}
			of, rest, _ := strings.Cut(v.Query.(string), " ")
			var values []struct{ Text, Value string }
			if g.resource(t, "values", "of="+of+"&"+strings.ReplaceAll(rest, " ", "&"), &values); len(values) == 0 {
				t.Errorf("%s: nothing to choose for %s", file, v.Name)
			}
		}
		ask := func(what, since string, target json.RawMessage, fields string) {
			days, err := citywarden.ParseDuration(strings.TrimPrefix(since, "now-"))
			if err != nil {
				t.Fatal(err)
			}
			body := regexp.MustCompile(`"\$[a-z]+"`).ReplaceAllString(strings.ReplaceAll(string(target), `"$lang"`, `"zh"`), `"$$__all"`)
			frames, r := g.querySince(t, body, days.Std())
			if r.Error != "" {
				t.Errorf("%s, %s: %s\n%s", file, what, r.Error, body)
				return
			}
			values, matched := 0, fields == ""
			for _, f := range frames {
				for _, field := range f.Fields {
					if fields != "" {
						matched = matched || regexp.MustCompile(strings.Trim(fields, "/")).MatchString(field.Name)
					}
					numeric := field.Type().Numeric()
					for i := range field.Len() {
						if v, ok := field.ConcreteAt(i); ok && v != "" {
							values++
						}
					}
					if numeric && field.Type() != data.FieldTypeInt64 && field.Name != "score" && (field.Config == nil || field.Config.Unit == "") &&
						!slices.Contains([]string{"latitude", "longitude", "turnover per day"}, field.Name) {
						t.Errorf("%s, %s: %s has no unit", file, what, field.Name)
					}
				}
			}
			if values == 0 || !matched {
				t.Errorf("%s, %s is empty, or has no field %s: %d frames\n%s", file, what, fields, len(frames), body)
			}
		}
		for _, panel := range board.Panels {
			for _, target := range panel.Targets {
				if strings.Contains(string(target), `"queryType"`) {
					ask(panel.Title, cmp.Or(panel.TimeFrom, board.Time.From), target, panel.Options.ReduceOptions.Fields)
				} else {
					prom.run(t, panel.Title, target)
				}
			}
		}
		for _, a := range board.Annotations.List {
			if strings.Contains(string(a.Target), `"queryType"`) {
				ask("annotations", board.Time.From, a.Target, "")
			}
		}
	}
	shelvedIsNotOpen(t, c, g)
}

// shelvedIsNotOpen: an alarm that a person shelved is active, but none of the open
// ones, which are as many as the summary counts.
func shelvedIsNotOpen(t *testing.T, c *client, g *grafana) {
	t.Helper()
	ids := func(state string) (ids []string) {
		frames, r := g.query(t, `{"queryType":"alarms","state":"`+state+`"}`)
		if len(frames) != 1 {
			t.Fatalf("%s alarms: %s", state, r.Error)
		}
		f, _ := frames[0].FieldByName("id")
		for i := range f.Len() {
			ids = append(ids, f.At(i).(string))
		}
		return ids
	}
	open := ids("open")
	if len(open) == 0 {
		t.Fatal("no alarm is open")
	}
	path := "/alarms/" + url.PathEscape(open[0])
	if err := c.call(t.Context(), "POST", path+"/shelve", map[string]string{"for": "1h", "reason": "being looked at"}, nil); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(ids("open"), open[0]) || !slices.Contains(ids("active"), open[0]) {
		t.Errorf("%s is shelved; open: %v, active: %v", open[0], ids("open"), ids("active"))
	}
	var sum struct {
		Alarms struct{ Active, Suppressed int }
	}
	if !wait(10*time.Second, func() bool { // it may be a second old
		if err := c.call(t.Context(), "GET", "/summary", nil, &sum); err != nil {
			t.Fatal(err)
		}
		return sum.Alarms.Active == len(ids("open")) && sum.Alarms.Active+sum.Alarms.Suppressed == len(ids("active"))
	}) {
		t.Errorf("the summary counts %+v; open: %v, active: %v", sum.Alarms, ids("open"), ids("active"))
	}
	if err := c.call(t.Context(), "POST", path+"/unshelve", map[string]string{}, nil); err != nil {
		t.Fatal(err)
	}
}

// importHistory gives the demo four weeks that were before it, by hours.
func importHistory(t *testing.T, c *client) {
	t.Helper()
	var b strings.Builder
	b.WriteString("time,device,metric,value\n")
	now := time.Now().UTC().Truncate(time.Hour)
	for h := 2; h < 28*24; h++ {
		at := now.Add(-time.Duration(h) * time.Hour)
		day := math.Sin(float64(at.Hour()) / 24 * math.Pi) // high at noon UTC
		for _, m := range []string{"em-mall-00", "em-gov-00"} {
			fmt.Fprintf(&b, "%s,%s,power,%.2f\n", at.Format(time.RFC3339), m, 20+60*day)
		}
		for _, dma := range []string{"d1", "d2"} {
			fmt.Fprintf(&b, "%s,pl-%s-01,flow,%.2f\n", at.Format(time.RFC3339), dma, 8+20*day)
		}
		for i := range 4 {
			fmt.Fprintf(&b, "%s,pk-mall-%02d,occupied,%v\n", at.Format(time.RFC3339), i+1, (h+i)%3 != 0)
		}
	}
	var done api.SeriesImport
	if err := c.call(t.Context(), "POST", "/series/import", strings.NewReader(b.String()), &done); err != nil || len(done.Lines) > 0 {
		t.Fatalf("import of history: %v, %+v", err, done)
	}
}
