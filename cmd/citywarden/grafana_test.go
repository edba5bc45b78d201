package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend/grpcplugin"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
	hclog "github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
)

// grafana is the plugin's process, started as Grafana starts it.
type grafana struct {
	diagnostics grpcplugin.DiagnosticsClient
	data        grpcplugin.DataClient
	resources   grpcplugin.ResourceClient
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

func (g *grafana) query(t *testing.T, body string) (data.Frames, *pluginv2.DataResponse) {
	t.Helper()
	now := time.Now()
	res, err := g.data.QueryData(t.Context(), &pluginv2.QueryDataRequest{PluginContext: g.context, Queries: []*pluginv2.DataQuery{{
		RefId: "A", Json: []byte(body), IntervalMS: 1000, MaxDataPoints: 500,
		TimeRange: &pluginv2.TimeRange{FromEpochMS: now.Add(-time.Hour).UnixMilli(), ToEpochMS: now.Add(time.Minute).UnixMilli()},
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
	if err := c.call(t.Context(), "POST", "/users", map[string]string{"name": "grafana", "role": "service"}, nil); err != nil {
		t.Fatal(err)
	}
	var made struct{ Token string }
	if err := c.call(t.Context(), "POST", "/users/grafana/tokens", map[string]string{"label": "grafana"}, &made); err != nil {
		t.Fatal(err)
	}
	if err := c.call(t.Context(), "POST", "/cases", map[string]string{"class": "event/0506", "title": "积水", "device": "d0"}, nil); err != nil {
		t.Fatal(err)
	}

	g := startPlugin(t)
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	for _, tt := range []struct{ name, url, token, want string }{
		{"no url", "", made.Token, "Write the URL"},
		{"no token", p.http, "", "Write the token"},
		{"wrong token", p.http, "nobody-has-this-token", "does not know this token"},
		{"another server", other.URL, made.Token, "is not citywarden"},
		{"nobody there", "http://127.0.0.1:9", made.Token, "No answer from"},
		{"right", p.http, made.Token, "Connected to citywarden"},
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
	for body, want := range map[string]string{
		`{"queryType":"series"}`:                                "choose a device and a metric",
		`{"queryType":"series","device":"d9","metric":"smoke"}`: "d9",
		`{"queryType":"weather"}`:                               "unknown query type",
	} {
		if _, r := g.query(t, body); !strings.Contains(r.Error, want) || r.Status/100 != 4 {
			t.Errorf("%s: %d %q, want %q", body, r.Status, r.Error, want)
		}
	}

	stream, err := g.resources.CallResource(t.Context(), &pluginv2.CallResourceRequest{PluginContext: g.context, Path: "devices", Method: "GET", Url: "devices?q=d0"})
	if err != nil {
		t.Fatal(err)
	}
	res, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var page struct{ Items []struct{ ID string } }
	if err := json.Unmarshal(res.Body, &page); err != nil || len(page.Items) != 1 || page.Items[0].ID != "d0" {
		t.Errorf("picker of devices: %d %s", res.Code, res.Body)
	}

	if err := p.stop(os.Kill); err == nil {
		t.Fatal("the platform was not killed")
	}
	if _, r := g.query(t, `{"queryType":"latest"}`); r.Status != http.StatusBadGateway || r.Error == "" {
		t.Errorf("platform down: %d %q", r.Status, r.Error)
	}
}
