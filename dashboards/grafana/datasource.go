// Package grafana is the backend of the Grafana datasource plugin: it answers
// Grafana's queries from citywarden's HTTP API.
//
//	err := datasource.Manage("citywarden-datasource", grafana.New, datasource.ManageOpts{})
//
// It knows the platform only by its API and a service token, so that Grafana
// may run anywhere.
package grafana

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/instancemgmt"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/citywarden/citywarden"
)

// Datasource answers the queries of one configured datasource.
type Datasource struct {
	api *client
}

// New returns the Datasource for settings: the URL of the platform, and the
// service token in secureJsonData.token. It is the factory that Grafana's
// instance manager wants.
func New(_ context.Context, settings backend.DataSourceInstanceSettings) (instancemgmt.Instance, error) {
	return &Datasource{api: &client{
		base:  strings.TrimRight(settings.URL, "/"),
		token: settings.DecryptedSecureJSONData["token"],
		http:  &http.Client{Timeout: 30 * time.Second},
	}}, nil
}

// Query is what the query editor writes and a dashboard's JSON holds.
type Query struct {
	Type   string `json:"queryType"` // series, latest, alarms, cases
	Device string `json:"device"`    // series: ids separated by commas
	Metric string `json:"metric"`    // series
	Agg    string `json:"agg"`       // series: mean, min, max, sum, count, last; "" for raw points
	Model  string `json:"model"`     // latest: only devices of that model
	State  string `json:"state"`     // alarms: active, cleared; "" for both
	All    bool   `json:"all"`       // cases: closed ones too
	Lang   string `json:"lang"`      // zh or en, of titles
}

// QueryData answers each query on its own: a mistake in one leaves the others
// their answers.
func (d *Datasource) QueryData(ctx context.Context, req *backend.QueryDataRequest) (*backend.QueryDataResponse, error) {
	out := backend.NewQueryDataResponse()
	for _, q := range req.Queries {
		frames, err := d.query(ctx, q)
		res := backend.DataResponse{Frames: frames}
		if err != nil {
			res = backend.DataResponse{Error: err, Status: statusOf(err)}
		}
		out.Responses[q.RefID] = res
	}
	return out, nil
}

func statusOf(err error) backend.Status {
	switch citywarden.CodeOf(err) {
	case citywarden.CodeInvalid, citywarden.CodeNotFound:
		return backend.StatusBadRequest
	case citywarden.CodeUnauthenticated:
		return backend.StatusUnauthorized
	case citywarden.CodeDenied:
		return backend.StatusForbidden
	}
	return backend.StatusBadGateway
}

func (d *Datasource) query(ctx context.Context, q backend.DataQuery) (data.Frames, error) {
	var m Query
	if err := json.Unmarshal(q.JSON, &m); err != nil {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "the query is no JSON of this datasource: %w; choose its type again in the query editor", err)
	}
	switch m.Type {
	case "series":
		return d.series(ctx, q, m)
	case "latest":
		return d.latest(ctx, m)
	case "alarms":
		return d.alarms(ctx, q, m)
	case "cases":
		return d.cases(ctx, m)
	}
	return nil, citywarden.Errorf(citywarden.CodeInvalid, "unknown query type %q; it is series, latest, alarms or cases", m.Type)
}

// series returns a frame per device. With an aggregate, intervals without a
// reading are null: unknown is not normal, and is drawn as a gap.
func (d *Datasource) series(ctx context.Context, q backend.DataQuery, m Query) (data.Frames, error) {
	if m.Device == "" || m.Metric == "" {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "choose a device and a metric")
	}
	every := interval(q)
	var frames data.Frames
	for id := range strings.SplitSeq(m.Device, ",") {
		if id = strings.TrimSpace(id); id == "" {
			continue
		}
		v := url.Values{"metric": {m.Metric}, "from": {q.TimeRange.From.Format(time.RFC3339Nano)}, "to": {q.TimeRange.To.Format(time.RFC3339Nano)}}
		if m.Agg != "" {
			v.Set("agg", m.Agg)
			v.Set("every", every.String())
		}
		var res struct {
			Points [][2]any `json:"points"`
			Unit   string   `json:"unit"`
		}
		if err := d.api.get(ctx, "/api/v1/devices/"+url.PathEscape(id)+"/series?"+v.Encode(), &res); err != nil {
			return nil, err
		}
		times, values, err := points(res.Points)
		if err != nil {
			return nil, err
		}
		if m.Agg != "" {
			times, values = withGaps(times, values, every)
		}
		f := data.NewFrame(id, data.NewField("time", nil, times),
			data.NewField(m.Metric, data.Labels{"device": id}, values).SetConfig(&data.FieldConfig{Unit: unitOf(res.Unit), DisplayNameFromDS: id + " " + m.Metric}))
		f.Meta = &data.FrameMeta{Type: data.FrameTypeTimeSeriesMulti, TypeVersion: data.FrameTypeVersion{0, 1}}
		frames = append(frames, f)
	}
	return frames, nil
}

// interval is the panel's, in whole seconds, at least one.
func interval(q backend.DataQuery) time.Duration {
	return max(q.Interval.Round(time.Second), time.Second)
}

func points(ps [][2]any) ([]time.Time, []*float64, error) {
	times, values := make([]time.Time, 0, len(ps)), make([]*float64, 0, len(ps))
	for _, p := range ps {
		s, _ := p[0].(string)
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return nil, nil, fmt.Errorf("the platform answered a time that is none: %v", p[0])
		}
		var v *float64
		switch x := p[1].(type) {
		case float64:
			v = &x
		case bool:
			n := 0.0
			if x {
				n = 1
			}
			v = &n
		}
		times, values = append(times, t), append(values, v)
	}
	return times, values, nil
}

// withGaps puts a null into every run of missing intervals.
func withGaps(times []time.Time, values []*float64, every time.Duration) ([]time.Time, []*float64) {
	var ts []time.Time
	var vs []*float64
	for i, t := range times {
		if i > 0 && t.Sub(times[i-1]) > every+every/2 {
			ts, vs = append(ts, times[i-1].Add(every)), append(vs, nil)
		}
		ts, vs = append(ts, t), append(vs, values[i])
	}
	return ts, vs
}

// latest returns one row per device with its latest values.
func (d *Datasource) latest(ctx context.Context, m Query) (data.Frames, error) {
	v := url.Values{}
	if m.Model != "" {
		v.Set("model", m.Model)
	}
	var ids, names, models, status, alarms []string
	var seen []*time.Time
	var latest []map[citywarden.MetricName]citywarden.Latest
	metrics := map[citywarden.MetricName]bool{}
	err := all(ctx, d.api, "/api/v1/devices", v, func(x citywarden.DeviceView) {
		ids, names, models = append(ids, string(x.ID)), append(names, x.Name), append(models, string(x.Model))
		status, alarms, latest = append(status, string(x.Status)), append(alarms, x.Alarm), append(latest, x.Latest)
		seen = append(seen, timePtr(x.LastSeen))
		for k := range x.Latest {
			metrics[k] = true
		}
	})
	if err != nil {
		return nil, err
	}
	f := data.NewFrame("devices", data.NewField("device", nil, ids), data.NewField("name", nil, names), data.NewField("model", nil, models),
		data.NewField("status", nil, status), data.NewField("last seen", nil, seen), data.NewField("alarm", nil, alarms))
	units, err := d.units(ctx)
	if err != nil {
		return nil, err
	}
	sorted := make([]string, 0, len(metrics))
	for k := range metrics {
		sorted = append(sorted, string(k))
	}
	sort.Strings(sorted)
	for _, k := range sorted {
		column := make([]*float64, len(ids))
		for i, l := range latest {
			if x, ok := l[citywarden.MetricName(k)]; ok && x.Value.Kind() != citywarden.KindText {
				n := x.Value.Float()
				column[i] = &n
			}
		}
		f.Fields = append(f.Fields, data.NewField(k, nil, column).SetConfig(&data.FieldConfig{Unit: unitOf(units[citywarden.MetricName(k)])}))
	}
	return table(f), nil
}

// units returns the UCUM unit of every metric of every model.
func (d *Datasource) units(ctx context.Context) (map[citywarden.MetricName]string, error) {
	var models struct {
		Items []citywarden.Model `json:"items"`
	}
	if err := d.api.get(ctx, "/api/v1/models", &models); err != nil {
		return nil, err
	}
	out := map[citywarden.MetricName]string{}
	for _, m := range models.Items {
		for _, x := range m.Metrics {
			out[x.Name] = x.Unit
		}
	}
	return out, nil
}

// alarms returns the alarms that were raised in the time range, or are active.
func (d *Datasource) alarms(ctx context.Context, q backend.DataQuery, m Query) (data.Frames, error) {
	v := url.Values{}
	if m.State != "" {
		v.Set("state", m.State)
	}
	var raised []time.Time
	var cleared []*time.Time
	var sev, title, state, dev, id, rule, kase []string
	var acked []bool
	err := all(ctx, d.api, "/api/v1/alarms", v, func(a citywarden.Alarm) {
		if a.State != citywarden.AlarmActive && (a.RaisedAt.Before(q.TimeRange.From) || a.RaisedAt.After(q.TimeRange.To)) {
			return
		}
		raised, cleared = append(raised, a.RaisedAt), append(cleared, timePtr(a.ClearedAt))
		sev, title, state = append(sev, a.Severity.String()), append(title, a.Title.In(m.Lang)), append(state, string(a.State))
		dev, id, rule, kase = append(dev, string(a.Device)), append(id, string(a.ID)), append(rule, string(a.Rule)), append(kase, string(a.Case))
		acked = append(acked, a.Acked)
	})
	if err != nil {
		return nil, err
	}
	return table(data.NewFrame("alarms", data.NewField("raised", nil, raised), data.NewField("severity", nil, sev), data.NewField("alarm", nil, title),
		data.NewField("device", nil, dev), data.NewField("state", nil, state), data.NewField("acknowledged", nil, acked), data.NewField("cleared", nil, cleared),
		data.NewField("rule", nil, rule), data.NewField("case", nil, kase), data.NewField("id", nil, id))), nil
}

// cases returns the cases that are open, or all.
func (d *Datasource) cases(ctx context.Context, m Query) (data.Frames, error) {
	v := url.Values{}
	if !m.All {
		v.Set("open", "true")
	}
	var opened []time.Time
	var deadline []*time.Time
	var id, title, stage, light, dept, grid []string
	var normal []bool
	err := all(ctx, d.api, "/api/v1/cases", v, func(c citywarden.Case) {
		opened, deadline = append(opened, c.Opened), append(deadline, timePtr(c.Deadline))
		id, title, stage = append(id, string(c.ID)), append(title, c.Title.In(m.Lang)), append(stage, string(c.Stage))
		light, dept, grid = append(light, string(c.Light)), append(dept, c.Department), append(grid, string(c.Grid))
		normal = append(normal, c.Normal)
	})
	if err != nil {
		return nil, err
	}
	return table(data.NewFrame("cases", data.NewField("opened", nil, opened), data.NewField("case", nil, id), data.NewField("title", nil, title),
		data.NewField("stage", nil, stage), data.NewField("light", nil, light), data.NewField("deadline", nil, deadline),
		data.NewField("department", nil, dept), data.NewField("grid", nil, grid), data.NewField("back to normal", nil, normal))), nil
}

func table(f *data.Frame) data.Frames {
	f.Meta = &data.FrameMeta{Type: data.FrameTypeTable, TypeVersion: data.FrameTypeVersion{0, 1}, PreferredVisualization: data.VisTypeTable}
	return data.Frames{f}
}

func timePtr(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// CheckHealth tells a wrong URL, a wrong token and another program apart.
func (d *Datasource) CheckHealth(ctx context.Context, _ *backend.CheckHealthRequest) (*backend.CheckHealthResult, error) {
	bad := func(format string, args ...any) (*backend.CheckHealthResult, error) {
		return &backend.CheckHealthResult{Status: backend.HealthStatusError, Message: fmt.Sprintf(format, args...)}, nil
	}
	if d.api.base == "" {
		return bad("Write the URL of the platform, like http://citywarden.example:8080.")
	}
	if d.api.token == "" {
		return bad("Write the token of a service user; an admin makes one under Users in the console.")
	}
	var info struct {
		Version string `json:"version"`
	}
	err := d.api.get(ctx, "/api/v1/me", &struct{}{})
	if err == nil {
		err = d.api.get(ctx, "/api/v1/info", &info)
	}
	switch {
	case citywarden.CodeOf(err) == citywarden.CodeUnauthenticated:
		return bad("The platform does not know this token, or it has ended: make a new one and write it here.")
	case citywarden.CodeOf(err) == citywarden.CodeNotFound || errors.Is(err, errNotOurs) || err == nil && info.Version == "":
		return bad("There is a server at %s, but it is not citywarden, or too old for this plugin: check the URL.", d.api.base)
	case err != nil:
		return bad("No answer from %s: %v", d.api.base, err)
	}
	return &backend.CheckHealthResult{Status: backend.HealthStatusOk, Message: "Connected to citywarden " + info.Version + "."}, nil
}

// CallResource serves the pickers of the query editor: devices and models, as
// the platform's API lists them.
func (d *Datasource) CallResource(ctx context.Context, req *backend.CallResourceRequest, sender backend.CallResourceResponseSender) error {
	if req.Path != "devices" && req.Path != "models" {
		return sender.Send(&backend.CallResourceResponse{Status: http.StatusNotFound, Body: []byte(`{"message":"there are devices and models"}`)})
	}
	var body json.RawMessage
	_, query, _ := strings.Cut(req.URL, "?")
	if err := d.api.get(ctx, "/api/v1/"+req.Path+"?"+query, &body); err != nil {
		msg, _ := json.Marshal(map[string]string{"message": err.Error()})
		return sender.Send(&backend.CallResourceResponse{Status: int(statusOf(err)), Body: msg})
	}
	return sender.Send(&backend.CallResourceResponse{Status: http.StatusOK, Headers: map[string][]string{"Content-Type": {"application/json"}}, Body: body})
}
