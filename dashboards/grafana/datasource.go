// Package grafana is the backend of the Grafana datasource plugin: it answers
// Grafana's queries from citywarden's HTTP API.
//
//	err := datasource.Manage("citywarden-datasource", grafana.New, datasource.ManageOpts{})
//
// It knows the platform only by its API and a service token, so that Grafana
// may run anywhere.
package grafana

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/instancemgmt"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/citywarden/citywarden"
)

// Datasource answers the queries of one configured datasource.
type Datasource struct {
	api     *client
	uid     string // that Grafana knows the datasource by
	console string // address of the console as a browser reaches it; "" for no links
}

// New returns the Datasource for settings: the URL of the platform, the service
// token in secureJsonData.token, and in jsonData.console the address of the console as a
// browser reaches it, when that is another. It is the factory that Grafana's instance
// manager wants.
func New(_ context.Context, settings backend.DataSourceInstanceSettings) (instancemgmt.Instance, error) {
	var options struct {
		Console string `json:"console"`
	}
	if len(settings.JSONData) > 0 {
		if err := json.Unmarshal(settings.JSONData, &options); err != nil {
			return nil, fmt.Errorf("settings of the datasource: %w", err)
		}
	}
	base := strings.TrimRight(settings.URL, "/")
	return &Datasource{
		api:     &client{base: base, token: settings.DecryptedSecureJSONData["token"], http: &http.Client{}},
		uid:     settings.UID,
		console: cmp.Or(strings.TrimRight(options.Console, "/"), base),
	}, nil
}

// QueryData answers each query on its own: a mistake in one leaves the others
// their answers.
func (d *Datasource) QueryData(ctx context.Context, req *backend.QueryDataRequest) (*backend.QueryDataResponse, error) {
	out := backend.NewQueryDataResponse()
	for _, q := range req.Queries {
		frames, err := d.query(ctx, q)
		if req.Headers[backend.FromAlertHeaderName] == "true" {
			frames = forAlert(frames)
		}
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
		return d.series(ctx, q, &m)
	case "week":
		return d.week(ctx, q, &m)
	case "live":
		return d.live(&m)
	case "latest":
		return d.latest(ctx, &m)
	case "states":
		return d.states(ctx, &m)
	case "parking":
		return d.parking(ctx, q, &m)
	case "alarms":
		return d.alarms(ctx, q, &m)
	case "load":
		return d.load(ctx, q, &m)
	case "cases":
		return d.cases(ctx, &m)
	case "evaluation":
		return d.evaluation(ctx, q, &m)
	case "ledger":
		return d.ledger(ctx, q, &m)
	case "annotations":
		return d.annotations(ctx, q, &m)
	}
	return nil, citywarden.Errorf(citywarden.CodeInvalid, "unknown query type %q; it is %s", m.Type, strings.Join(Types[:], ", "))
}

// CheckHealth tells a wrong URL, a wrong token, another program and another
// version apart.
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
	var has struct {
		Paths map[string]json.RawMessage `json:"paths"`
	}
	if err := d.api.get(ctx, "/api/openapi.json", &has); err != nil {
		return bad("No answer from %s: %v", d.api.base, err)
	}
	for _, path := range [...]string{"/api/v1/devices", "/api/v1/series", "/api/v1/alarms/load", "/api/v1/cases", "/api/v1/evaluation", "/api/v1/ledger", "/api/v1/events"} {
		if has.Paths[path] == nil {
			return bad("citywarden %s at %s is of another version than this plugin: it has no %s. Use the plugin that comes with it.", info.Version, d.api.base, path)
		}
	}
	return &backend.CheckHealthResult{Status: backend.HealthStatusOk, Message: "Connected to citywarden " + info.Version + "."}, nil
}

// CallResource serves the pickers of the query editor: devices and models, as
// the platform's API lists them, and the values that a dashboard's variable may have:
// values?of=KIND, of the devices that domain, model, site and zone select.
func (d *Datasource) CallResource(ctx context.Context, req *backend.CallResourceRequest, sender backend.CallResourceResponseSender) error {
	_, query, _ := strings.Cut(req.URL, "?")
	var answer any
	var err error
	switch req.Path {
	case "devices", "models":
		var body json.RawMessage
		err = d.api.get(ctx, "/api/v1/"+req.Path+"?"+query, &body)
		answer = body
	case "values":
		var v url.Values
		if v, err = url.ParseQuery(query); err == nil {
			answer, err = d.values(ctx, v)
		}
	default:
		err = citywarden.Errorf(citywarden.CodeNotFound, "there is no %s; there are devices, models and values", req.Path)
	}
	status := http.StatusOK
	if err != nil {
		status, answer = int(statusOf(err)), map[string]string{"message": err.Error()}
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return sender.Send(&backend.CallResourceResponse{Status: status, Headers: map[string][]string{"Content-Type": {"application/json"}}, Body: body})
}

// value is one that a variable may have.
type value struct {
	Text  string `json:"text"`
	Value string `json:"value"`
}

// Values are the kinds of values that a variable may have.
var Values = [...]string{"device", "model", "domain", "site", "zone", "grid", "metric", "department", "severity"}

func (d *Datasource) values(ctx context.Context, v url.Values) ([]value, error) {
	of := v.Get("of")
	found := map[string]string{}
	switch of {
	case "severity":
		for s := citywarden.Indeterminate; s <= citywarden.Critical; s++ {
			found[s.String()] = s.String()
		}
	case "department":
		var table struct {
			Items []citywarden.Class `json:"items"`
		}
		if err := d.api.get(ctx, "/api/v1/classes", &table); err != nil {
			return nil, err
		}
		for _, c := range table.Items {
			for _, r := range c.Rules {
				if r.Department != "" {
					found[r.Department] = r.Department
				}
			}
		}
	case "device", "model", "domain", "site", "zone", "grid", "metric":
		ms, devices, err := d.chosen(ctx, &Query{Domain: v.Get("domain"), Model: v.Get("model"), Site: v.Get("site"), Zone: v.Get("zone")})
		if err != nil {
			return nil, err
		}
		for i := range devices {
			x := &devices[i]
			mo := ms[x.Model]
			switch {
			case of == "device":
				found[string(x.ID)] = cmp.Or(x.Name, string(x.ID))
			case of == "metric" && mo != nil:
				for _, metric := range mo.Metrics {
					found[string(metric.Name)] = string(metric.Name)
				}
			case ms.tag(x, of) != "":
				found[ms.tag(x, of)] = ms.tag(x, of)
			}
		}
	default:
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "values of %q: they are of %s; write device, or device model=pressure-logger", of, strings.Join(Values[:], ", "))
	}
	out := make([]value, 0, len(found))
	for _, id := range slices.Sorted(maps.Keys(found)) {
		out = append(out, value{found[id], id})
	}
	return out, nil
}
