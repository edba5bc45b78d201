package api

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/photos"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
	"github.com/danielgtaylor/huma/v2"
)

// city is a platform in memory: it keeps devices, alarms and cases, and applies
// orders like the engine does.
type city struct {
	mu       sync.Mutex
	devices  map[citywarden.DeviceID]citywarden.DeviceView
	sites    map[citywarden.SiteID]citywarden.Site
	alarms   map[citywarden.AlarmID]citywarden.Alarm
	cases    map[citywarden.CaseID]*citywarden.Case
	queries  []citywarden.SeriesQuery
	points   []citywarden.SeriesPoint
	gaps     []citywarden.Gap
	imported []citywarden.DeviceReading
	orders   []citywarden.AlarmOrder
	steps    []citywarden.AlarmStep
	outs     []citywarden.OutOfService
	stuck    bool                               // orders are taken but not applied
	past     bool                               // later alarms have taken the place of all: orders have no effect
	between  func(*city, citywarden.AlarmOrder) // runs before an order is applied
	photos   []citywarden.Attachment            // of every case
	reports  []citywarden.ReportedCase
	secrets  []string // of the reports
}

func text(s string) citywarden.Text { return citywarden.Text{ZH: s, EN: s} }

func smokeModel() citywarden.Model {
	low, high := 0.0, 2.0
	return citywarden.Model{
		Name: "smoke-detector", Title: text("smoke detector"), Domain: citywarden.Fire, Codec: "json",
		Report: citywarden.Duration(time.Minute), Heartbeat: citywarden.Duration(time.Hour),
		Metrics: []citywarden.Metric{
			{Name: "smoke", Title: text("smoke"), Kind: citywarden.KindNumber, Unit: "dB/m", Min: &low, Max: &high},
			{Name: "button", Title: text("button"), Kind: citywarden.KindBool},
		},
		Attributes: []citywarden.Attribute{{Name: "zone", Title: text("zone"), Kind: citywarden.KindText}},
	}
}

var noon = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)

func newCity() *city {
	c := &city{
		devices: map[citywarden.DeviceID]citywarden.DeviceView{},
		sites:   map[citywarden.SiteID]citywarden.Site{"hospital": {ID: "hospital", Name: "Hospital", Attributes: map[string]any{"smoke_limit": 0.1}, Updated: noon}},
		alarms:  map[citywarden.AlarmID]citywarden.Alarm{},
		cases:   map[citywarden.CaseID]*citywarden.Case{},
		points:  []citywarden.SeriesPoint{{Time: noon, Value: citywarden.Number(0.31)}, {Time: noon.Add(time.Minute), Value: citywarden.Number(0.02)}},
	}
	c.devices["smoke-1"] = citywarden.DeviceView{
		Device:   citywarden.Device{ID: "smoke-1", Name: "Hall", Model: "smoke-detector", Attributes: map[string]any{"zone": "1F"}, Created: noon, Updated: noon},
		Presence: citywarden.Presence{Status: citywarden.StatusOnline, LastSeen: noon},
		Latest:   map[citywarden.MetricName]citywarden.Latest{"smoke": {Value: citywarden.Number(0.31), Time: noon}},
		Alarm:    "critical",
	}
	c.devices["smoke-2"] = citywarden.DeviceView{
		Device:   citywarden.Device{ID: "smoke-2", Name: "Cellar", Model: "smoke-detector", Created: noon, Updated: noon},
		Presence: citywarden.Presence{Status: citywarden.StatusNever},
	}
	c.alarms["fire.smoke:smoke-1:1"] = citywarden.Alarm{
		ID: "fire.smoke:smoke-1:1", Rule: "fire.smoke", Title: text("fire"), Entity: "smoke-1", Device: "smoke-1", Episode: 1,
		Severity: citywarden.Critical, State: citywarden.AlarmActive, RaisedAt: noon, Case: "E0501202611230001",
	}
	c.cases["E0501202611230001"] = &citywarden.Case{
		ID: "E0501202611230001", Class: "event/0501", ClassName: text("fire"), Title: text("fire in the hall"), Source: citywarden.SourceSensor,
		Stage: citywarden.PendingFiling, Opened: noon, Alarms: []citywarden.AlarmID{"fire.smoke:smoke-1:1"}, Revision: 1,
	}
	return c
}

func missing(what string, id any) error {
	return citywarden.Errorf(citywarden.CodeNotFound, "no %s %v", what, id)
}

func (c *city) Get(id citywarden.DeviceID) (citywarden.DeviceView, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, ok := c.devices[id]
	if !ok {
		return d, missing("device", id)
	}
	return d, nil
}

func (c *city) Device(id citywarden.DeviceID) (*citywarden.Device, *citywarden.Model, error) {
	d, err := c.Get(id)
	m := smokeModel()
	return &d.Device, &m, err
}

func (c *city) List(f citywarden.DeviceFilter) (out []citywarden.DeviceView, next string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.devices {
		if string(d.ID) > f.After && (f.Model == "" || d.Model == f.Model) && strings.Contains(string(d.ID)+d.Name, f.Search) {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b citywarden.DeviceView) int { return strings.Compare(string(a.ID), string(b.ID)) })
	if n := f.Size(); len(out) > n {
		out, next = out[:n], string(out[n-1].ID)
	}
	return out, next, nil
}

func (c *city) Sites() []citywarden.Site {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.sites))
}

func (c *city) Site(id citywarden.SiteID) (citywarden.Site, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.sites[id]
	if !ok {
		return s, missing("site", id)
	}
	return s, nil
}

func (c *city) SaveSite(_ context.Context, s citywarden.Site) (citywarden.Site, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sites[s.ID] = s
	return s, nil
}

func (c *city) DeleteSite(_ context.Context, id citywarden.SiteID) error {
	if _, err := c.Site(id); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sites, id)
	return nil
}

func (c *city) AttributeStates(citywarden.DeviceID) ([]citywarden.AttributeState, error) {
	return []citywarden.AttributeState{}, nil
}

func (c *city) Summary(citywarden.AreaCode) map[citywarden.Status]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := map[citywarden.Status]int{}
	for _, d := range c.devices {
		n[d.Status]++
	}
	return n
}

func (c *city) Create(_ context.Context, d citywarden.Device) (citywarden.Device, error) {
	if err := d.ID.Check(); err != nil {
		return d, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.devices[d.ID]; ok {
		return d, citywarden.Errorf(citywarden.CodeConflict, "there is a device %s already", d.ID)
	}
	c.devices[d.ID] = citywarden.DeviceView{Device: d, Presence: citywarden.Presence{Status: citywarden.StatusNever}}
	return d, nil
}

func (c *city) Update(_ context.Context, d citywarden.Device) (citywarden.Device, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.devices[d.ID]
	if !ok {
		return d, missing("device", d.ID)
	}
	v.Device = d
	c.devices[d.ID] = v
	return d, nil
}

func (c *city) Alter(ctx context.Context, id citywarden.DeviceID, f func(*citywarden.Device) error) (citywarden.Device, error) {
	v, err := c.Get(id)
	if err == nil {
		err = f(&v.Device)
	}
	if err != nil {
		return citywarden.Device{}, err
	}
	return c.Update(ctx, v.Device)
}

func (c *city) Delete(_ context.Context, id citywarden.DeviceID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.devices[id]; !ok {
		return missing("device", id)
	}
	delete(c.devices, id)
	return nil
}

func (c *city) Provisioning() []citywarden.Provisioning {
	return []citywarden.Provisioning{{Model: "smoke-detector", Key: "key"}}
}

func (c *city) SetProvisioning(_ context.Context, model citywarden.ModelName, createNew bool) (citywarden.Provisioning, string, error) {
	return citywarden.Provisioning{Model: model, Key: "key", CreateNew: createNew}, "secret", nil
}

func (c *city) EndProvisioning(context.Context, citywarden.ModelName) error { return nil }

// Claim takes the secret "sesame" of every device.
func (c *city) Claim(ctx context.Context, id citywarden.DeviceID, q citywarden.Claim) (citywarden.Device, error) {
	if q.Secret != "sesame" {
		return citywarden.Device{}, citywarden.Errorf(citywarden.CodeUnauthenticated, "that is not the secret that device %s said", id)
	}
	return c.Alter(ctx, id, func(d *citywarden.Device) error { d.Location = q.Location; return nil })
}

func (c *city) Revoke(_ context.Context, id citywarden.DeviceID) error {
	_, err := c.Get(id)
	return err
}

func (c *city) Credentials(id citywarden.DeviceID) ([]citywarden.DeviceCredential, error) {
	_, err := c.Get(id)
	return []citywarden.DeviceCredential{{Kind: citywarden.SecretToken, Hint: "abcd…"}}, err
}

func (c *city) Issue(_ context.Context, id citywarden.DeviceID, _ citywarden.SecretRequest) (string, error) {
	_, err := c.Get(id)
	return "token-of-" + string(id), err
}

// told takes every command.
type told struct{ *city }

func (c told) Tell(_ context.Context, id citywarden.DeviceID, method string, params map[string]any, expires time.Duration, by string) (citywarden.Command, error) {
	if _, err := c.Get(id); err != nil {
		return citywarden.Command{}, err
	}
	body, err := json.Marshal(params)
	at := time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)
	return citywarden.Command{ID: 1, Device: id, Method: method, Params: body, State: citywarden.CommandQueued, By: by, Created: at, Expires: at.Add(expires)}, err
}

func (c told) List(ctx context.Context, f citywarden.CommandFilter) ([]citywarden.Command, string, error) {
	x, err := c.Tell(ctx, f.Device, "silence", nil, 0, "admin")
	return []citywarden.Command{x}, "", err
}

func (c *city) Query(_ context.Context, q citywarden.SeriesQuery) ([]citywarden.SeriesPoint, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queries = append(c.queries, q)
	return c.points[:min(len(c.points), q.Limit)], nil
}

func (c *city) Gaps(context.Context, citywarden.DeviceID, time.Time, time.Time) ([]citywarden.Gap, error) {
	return append([]citywarden.Gap{}, c.gaps...), nil
}

func (c *city) Groups(_ context.Context, q citywarden.GroupQuery) ([]citywarden.SeriesGroup, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	return []citywarden.SeriesGroup{{Name: q.By, Points: c.points}}, nil
}

func (c *city) Export(_ context.Context, q citywarden.HistoryQuery, f func([]citywarden.SeriesRow) error) error {
	rows := []citywarden.SeriesRow{
		{Device: "smoke-1", Time: q.From, Values: map[citywarden.MetricName]citywarden.Value{"smoke": citywarden.Number(0.25), "button": citywarden.Bool(true)}},
		{Device: "smoke-2", Time: q.From, Values: map[citywarden.MetricName]citywarden.Value{"note": citywarden.TextValue("a, \"b\"")}},
	}
	return f(slices.DeleteFunc(rows, func(r citywarden.SeriesRow) bool { return q.Devices != nil && !q.Devices[r.Device] }))
}

func (c *city) Import(_ context.Context, readings []citywarden.DeviceReading) ([]error, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.imported = append(c.imported, readings...)
	return make([]error, len(readings)), nil
}

func (c *city) Alarms(_ context.Context, f citywarden.AlarmFilter) (out []citywarden.Alarm, next string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.alarms {
		suppressed := f.Suppressed == "" || f.Suppressed == citywarden.SuppressionAny && a.Suppressed() ||
			f.Suppressed == citywarden.SuppressionNone && !a.Suppressed() || slices.Contains(a.Suppressions(), f.Suppressed)
		if (f.IDs == nil || slices.Contains(f.IDs, a.ID)) && (f.State == "" || a.State == f.State) && (f.Severity == 0 || a.Severity == f.Severity) && (f.Device == "" || a.Device == f.Device) && (f.Rule == "" || a.Rule == f.Rule) &&
			suppressed && (f.Assignee == "" || a.Assignee == f.Assignee) && (f.Acked == nil || a.Acked == *f.Acked) {
			out = append(out, a)
		}
	}
	return out, "", nil
}

func (c *city) Alarm(_ context.Context, id citywarden.AlarmID) (citywarden.Alarm, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.alarms[id]
	if !ok {
		return a, missing("alarm", id)
	}
	return a, nil
}

func (c *city) Why(ctx context.Context, id citywarden.AlarmID) (*citywarden.Explanation, error) {
	a, err := c.Alarm(ctx, id)
	if err != nil {
		return nil, err
	}
	return &citywarden.Explanation{
		Rule: a.Rule, Version: "0123456789ab", At: a.RaisedAt, Severity: a.Severity, Condition: "smoke > 0.12", Held: citywarden.Duration(20 * time.Second),
		Summary: text("smoke 0.31"), Leaves: []citywarden.ExplainLeaf{{Text: "smoke > 0.12", Left: 0.31, Op: ">", Right: 0.12, Result: "true"}},
		Inputs: []citywarden.ExplainInput{{Device: a.Device, Metric: "smoke", Value: citywarden.Number(0.31), Time: noon, Arrived: noon}},
	}, nil
}

func (c *city) History(ctx context.Context, id citywarden.AlarmID) ([]citywarden.AlarmStep, error) {
	if _, err := c.Alarm(ctx, id); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.steps), nil
}

// Load counts the alarms raised in the time.
func (c *city) Load(_ context.Context, _ citywarden.AreaCode, from, to time.Time) (citywarden.AlarmLoad, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := citywarden.AlarmLoad{From: from, To: to, Operators: 1, PerOperator: citywarden.OperatorLoad{Goal: 1}, Priorities: map[citywarden.Priority]citywarden.Share{citywarden.PriorityCritical: {}, citywarden.PriorityMajor: {}, citywarden.PriorityMinor: {}}}
	for _, a := range c.alarms {
		if !a.RaisedAt.Before(from) && a.RaisedAt.Before(to) {
			l.Alarms++
		}
	}
	return l, nil
}

func (c *city) Order(_ context.Context, o citywarden.AlarmOrder) (citywarden.Position, error) {
	c.mu.Lock()
	between := c.between
	c.mu.Unlock()
	if between != nil {
		between(c, o)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.orders = append(c.orders, o)
	if o.Alarm == "" {
		c.serve(&o)
		return citywarden.PositionAt(uint64(len(c.orders)), 0), nil
	}
	a := c.alarms[o.Alarm]
	if c.past {
		return citywarden.PositionAt(uint64(len(c.orders)), 0), nil
	}
	if kind, ok := a.Do(&o, noon); ok {
		c.steps = append(c.steps, citywarden.AlarmStep{Kind: kind, Severity: a.Severity, At: noon, Logged: noon, By: o.By, Reason: o.Reason, Text: o.Text, Assignee: o.To})
	}
	if o.Kind == citywarden.OrderReset {
		a.Latched, a.NoData, a.State = false, false, citywarden.AlarmCleared
	}
	c.alarms[o.Alarm] = a
	return citywarden.PositionAt(uint64(len(c.orders)), 0), nil
}

// serve applies an order about a device of the city, or about the rule on one.
func (c *city) serve(o *citywarden.AlarmOrder) {
	c.outs = slices.DeleteFunc(c.outs, func(x citywarden.OutOfService) bool {
		return x.Device == o.Device && x.Rule == o.Rule && x.Entity == o.Entity
	})
	_, known := c.devices[cmp.Or(o.Device, citywarden.DeviceID(o.Entity))]
	if x, ok := o.OutOfService(noon); ok && known && o.Kind == citywarden.OrderOutOfService {
		c.outs = append(c.outs, x)
	}
}

func (c *city) OutOfService() []citywarden.OutOfService {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.outs)
}

func (c *city) Wait(ctx context.Context, consumer string, _ citywarden.Position) error {
	c.mu.Lock()
	stuck := c.stuck
	c.mu.Unlock()
	if consumer != "alarms" {
		return fmt.Errorf("no consumer %s", consumer)
	}
	if stuck {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// desk is the part of the city with the cases.
type desk struct{ *city }

func (d desk) Cases(_ context.Context, f citywarden.CaseFilter) (out []citywarden.Case, next string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.cases {
		if (f.Class == "" || c.Class == f.Class) && (!f.Open || c.Stage.Open()) && (f.Stage == "" || c.Stage == f.Stage) && c.WorkOrder == f.WorkOrders {
			out = append(out, *c)
		}
	}
	return out, "", nil
}

func (d desk) Case(_ context.Context, id citywarden.CaseID, by string, role citywarden.Role) (citywarden.Case, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.cases[id]
	if !ok {
		return citywarden.Case{}, missing("case", id)
	}
	out := *c
	out.Actions = out.Next(citywarden.CaseStep{By: by, Role: role, At: noon})
	return out, nil
}

func (d desk) Do(_ context.Context, id citywarden.CaseID, step citywarden.CaseStep, revision int64) (citywarden.Case, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.cases[id]
	if !ok {
		return citywarden.Case{}, missing("case", id)
	}
	if revision != 0 && revision != c.Revision {
		return citywarden.Case{}, citywarden.Errorf(citywarden.CodeConflict, "case %s has changed since", id)
	}
	err := c.Do(step)
	return *c, err
}

func (d desk) Duplicates(_ context.Context, id citywarden.CaseID) ([]citywarden.Duplicate, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []citywarden.Duplicate
	for _, c := range d.cases {
		if c.ID != id {
			out = append(out, citywarden.Duplicate{Case: *c, Distance: 12.5})
		}
	}
	return out, nil
}

func (d desk) Near(_ context.Context, class citywarden.ClassCode, _ citywarden.Point) ([]citywarden.Duplicate, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []citywarden.Duplicate
	for _, c := range d.cases {
		if c.Class == class {
			out = append(out, citywarden.Duplicate{Case: *c, Distance: 12.5})
		}
	}
	return out, nil
}

func (d desk) Create(_ context.Context, n citywarden.NewCase, by string, role citywarden.Role) (citywarden.Case, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &citywarden.Case{ID: "E0502202611230002", Class: n.Class, Title: text(n.Title), Source: citywarden.SourceOperator, Stage: citywarden.PendingFiling, Opened: noon, Revision: 1, Alarms: []citywarden.AlarmID{}}
	d.cases[c.ID] = c
	return *c, nil
}

func (d desk) Attach(ctx context.Context, id citywarden.CaseID, p citywarden.Photo, kind citywarden.AttachmentKind, step citywarden.CaseStep) (citywarden.Attachment, error) {
	c, err := d.Case(ctx, id, step.By, step.Role)
	if err != nil {
		return citywarden.Attachment{}, err
	}
	step.Action, step.Note = citywarden.Comment, "photo"
	if err := c.Do(step); err != nil {
		return citywarden.Attachment{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a := citywarden.Attachment{Photo: p, Kind: kind, By: step.By, Role: step.Role, At: noon}
	d.photos = append(d.photos, a)
	return a, nil
}

func (d desk) Attachments(ctx context.Context, id citywarden.CaseID) ([]citywarden.Attachment, error) {
	if _, err := d.Case(ctx, id, "", ""); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.photos), nil
}

func (d desk) Report(_ context.Context, r citywarden.Report, photos []citywarden.Photo, secret string) (citywarden.Case, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := citywarden.Case{ID: citywarden.CaseID(fmt.Sprintf("E050120261123%04d", 100+len(d.reports))), Class: r.Class, ClassName: text("fire"), Source: r.Source, Stage: citywarden.PendingFiling, Opened: noon, Revision: 1}
	d.cases[c.ID] = &c
	r.Case, r.At = c.ID, noon
	d.reports = append(d.reports, citywarden.ReportedCase{Report: r, Now: c, Updated: noon})
	d.secrets = append(d.secrets, secret)
	for _, p := range photos {
		d.photos = append(d.photos, citywarden.Attachment{Photo: p, Kind: citywarden.PhotoNear, By: "citizen", At: noon})
	}
	return c, nil
}

func (d desk) Reported(_ context.Context, id citywarden.CaseID) (citywarden.ReportedCase, string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, r := range d.reports {
		if r.Case == id {
			return r, d.secrets[i], nil
		}
	}
	return citywarden.ReportedCase{}, "", missing("report of case", id)
}

func (d desk) Reports(_ context.Context, f citywarden.ReportFilter) ([]citywarden.ReportedCase, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []citywarden.ReportedCase
	for _, r := range slices.Backward(d.reports) {
		r.Now = *d.cases[r.Case]
		switch {
		case f.ByApp != (r.App != ""), f.Cases != nil && !slices.Contains(f.Cases, r.Case), f.Classes != nil && !slices.Contains(f.Classes, r.Now.Class):
		case f.Open != nil && *f.Open != r.Now.Stage.Open(), r.At.Before(f.From) && f.Cases == nil, !f.To.IsZero() && !r.At.Before(f.To):
		default:
			out = append(out, r)
		}
	}
	out = out[min(f.Skip, len(out)):]
	return out[:min(f.Limit, len(out))], nil
}

// telegraph is the notices of a database, of which none is dead.
type telegraph struct{ *store.DB }

func (telegraph) Resend(_ context.Context, key, receiver string) (citywarden.Notice, error) {
	return citywarden.Notice{}, missing("notice", key+" to "+receiver)
}

func (telegraph) Receivers() []citywarden.Receiver {
	return []citywarden.Receiver{{Name: "duty", Channel: "mail", All: true, Quiet: "22:00-07:00"}}
}

func (telegraph) TestReceiver(_ context.Context, name, by string) error {
	if name == "duty" && by != "" {
		return nil
	}
	return missing("receiver", name)
}

type files struct{ *city }

func (f files) Import(ctx context.Context, r io.Reader) (ImportReport, error) {
	var out ImportReport
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		if n == 1 {
			continue
		}
		id, rest, _ := strings.Cut(sc.Text(), ",")
		l := ImportLine{Line: n, ID: citywarden.DeviceID(id), OK: true}
		if _, err := f.Create(ctx, citywarden.Device{ID: l.ID, Name: rest, Model: "smoke-detector"}); err != nil {
			l.OK, l.Error = false, err.Error()
			out.Failed++
		} else {
			out.Created++
		}
		out.Lines = append(out.Lines, l)
	}
	return out, sc.Err()
}

func (f files) Export(_ context.Context, w io.Writer, _ citywarden.AreaCode) error {
	ds, _, err := f.List(citywarden.DeviceFilter{})
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "id,name,model")
	for _, d := range ds {
		fmt.Fprintf(w, "%s,%s,%s\n", d.ID, d.Name, d.Model)
	}
	return nil
}

type models []citywarden.Model

func (m models) All() []citywarden.Model { return m }

type classes []citywarden.Class

func (c classes) All() []citywarden.Class { return c }
func (c classes) Of(standard string) []citywarden.Class {
	return slices.DeleteFunc(slices.Clone(c), func(k citywarden.Class) bool { return k.Standard != standard })
}
func (c classes) Table(_ context.Context, version int) (citywarden.ClassTable, error) {
	if version != 1 {
		return citywarden.ClassTable{}, citywarden.Errorf(citywarden.CodeNotFound, "no version %d of the class table", version)
	}
	return citywarden.ClassTable{Version: 1, From: noon, Classes: slices.Clone(c)}, nil
}
func (c classes) Tables(context.Context) ([]citywarden.ClassTable, error) {
	return []citywarden.ClassTable{{Version: 1, From: noon}}, nil
}

type ruleSet []citywarden.Rule

func (r ruleSet) Rules() []citywarden.Rule { return r }

func (r ruleSet) RuleStatus() citywarden.RuleStatus {
	return citywarden.RuleStatus{Loaded: noon, Rules: len(r), Tests: 1}
}

func (r ruleSet) ReloadRules(context.Context) error { return nil }

type books struct{ rows []citywarden.LedgerRow }

func (b books) Rows(_ context.Context, f citywarden.LedgerFilter) (out []citywarden.LedgerRow, next string, err error) {
	for _, r := range b.rows {
		if !r.Hour.Before(f.From) && r.Hour.Before(f.To) {
			out = append(out, r)
		}
	}
	return out, "", nil
}

func (b books) Replay(_ context.Context, device citywarden.DeviceID) (citywarden.Replay, error) {
	return citywarden.Replay{Replayed: 2, Failing: 1, First: []citywarden.DeadLetter{{Position: 7, Device: device, Payload: []byte("{"), Reason: "not JSON"}}}, nil
}

func (b books) Audit(_ context.Context, from time.Time) (citywarden.Audit, error) {
	return citywarden.Audit{From: from, To: noon, Messages: 2, Differences: []citywarden.Difference{}, Notes: []string{}}, nil
}

func (b books) DeadLetters(context.Context, citywarden.DeadLetterFilter) ([]citywarden.DeadLetter, string, error) {
	return []citywarden.DeadLetter{{Position: 7, Device: "smoke-1", Protocol: "mqtt", Topic: "v1/devices/me/telemetry", Payload: []byte("{"), Received: noon, Reason: "not JSON"}}, "7", nil
}

const noFeatures = `{"type":"FeatureCollection","features":[]}`

type sheets map[string]string

func (s sheets) Names() []string { return []string{"grids", "streets"} }

func (s sheets) Layer(_ context.Context, name string, _ citywarden.AreaCode) (json.RawMessage, error) {
	if l, ok := s[name]; ok {
		return json.RawMessage(l), nil
	}
	return nil, missing("layer", name)
}

func (s sheets) Bounds(citywarden.AreaCode) (sw, ne citywarden.Point, ok bool) {
	return citywarden.Point{Lat: 24.1, Lon: 117.6}, citywarden.Point{Lat: 24.2, Lon: 117.8}, true
}

// platform is an API over a city, with real accounts on a real database.
type platform struct {
	*city
	t        testing.TB
	db       *store.DB
	server   *server
	handler  http.Handler
	accounts *Accounts
	tokens   map[citywarden.Role]string
	log      *bytes.Buffer // behind logMu
}

const adminPassword = "correct horse"

// syncWriter lets several goroutines write to one buffer.
type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *syncWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}

func newPlatform(t testing.TB) *platform {
	t.Helper()
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
	c := newCity()
	p := &platform{city: c, t: t, db: db, tokens: map[citywarden.Role]string{}, log: &bytes.Buffer{}}
	log := slog.New(slog.NewTextHandler(&syncWriter{w: p.log}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	pictures, err := photos.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p.accounts = newAccounts(db, hashing{time: 1, memoryKiB: 8, threads: 1})
	grids, err := cases.LoadGrids(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	officers, err := cases.LoadResponsibility(t.Context(), db, grids, p.accounts.Officer)
	if err != nil {
		t.Fatal(err)
	}
	table, err := cases.LoadClasses("")
	if err != nil {
		t.Fatal(err)
	}
	components, err := cases.LoadComponents(t.Context(), db, table, grids)
	if err != nil {
		t.Fatal(err)
	}
	evaluated, err := cases.New(db, cases.Options{})
	if err != nil {
		t.Fatal(err)
	}
	rules := ruleSet{{ID: "fire.smoke", Title: text("fire"), Version: "0123456789ab", Mode: "live", Models: []citywarden.ModelName{"smoke-detector"}, Severity: citywarden.Critical, File: "fire.yaml", Line: 3, Text: "id: fire.smoke"}}
	p.server, err = newServer(Options{
		Devices: c, Commands: told{c}, Provisioner: c, Firmware: shelf{}, Sites: c, Files: files{c}, Models: models{smokeModel()}, Series: c, Gaps: c, Alarms: c, Load: c, Orders: c, Service: c, Messages: talk{}, Cases: desk{c}, Evaluations: evaluated, Attachments: desk{c}, Photos: pictures, Reports: desk{c}, APIKeys: db, Open311: Open311{Jurisdiction: "zhangpu.gov.cn", Contact: "call 12345", KeyService: "write to it@zhangpu.example"}, Citizens: true, CAPSender: "zhangpu.example", Notices: telegraph{db},
		Classes: classes{{Code: "event/0501", Standard: "GB/T 30428.2-2013", Name: text("fire"), Condition: "a > b & c", Limit: "2紧急工作时", Department: "fire",
			Rules: []citywarden.FilingRule{{ID: "1", Condition: "a > b & c", Limit: "2紧急工作时", Department: "fire"}, {ID: "2", Condition: "d", Limit: "5天", Department: "fire"}}}},
		Rules: rules, RuleFiles: rules, Lab: newLab(t, c),
		Backup: func(_ context.Context, w io.Writer) error { _, err := io.WriteString(w, "PK"); return err },
		Ledger: books{[]citywarden.LedgerRow{{Device: "smoke-1", Hour: noon, Messages: 2, Received: 3, Stored: 2, Rejected: 1}}},
		Layers: sheets{"grids": noFeatures, "streets": noFeatures}, Grids: grids, Responsibility: officers, Components: components, Accounts: p.accounts, Audit: db, Hub: NewHub(log), Logger: log,
		Console: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<!doctype html>") }),
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "citywarden_up 1\n") }),
		Version: "test", MQTT: "[::]:11883",
	})
	if err != nil {
		t.Fatal(err)
	}
	p.handler = p.server.guard(p.server.mux)
	if _, err := p.accounts.EnsureAdmin(t.Context(), adminPassword); err != nil {
		t.Fatal(err)
	}
	return p
}

// as returns a token of a user with the role, who is created at need. The
// user's name is the role, their department "fire".
func (p *platform) as(role citywarden.Role) string {
	p.t.Helper()
	if role == "" {
		return ""
	}
	if tok, ok := p.tokens[role]; ok {
		return tok
	}
	u := citywarden.User{Name: string(role), Role: role}
	if role == citywarden.RoleDepartment {
		u.Department = "fire"
	}
	password := "of the " + string(role)
	if role == citywarden.RoleService {
		password = ""
	}
	if role != citywarden.RoleAdmin {
		if _, err := p.accounts.Create(p.t.Context(), u, password); err != nil {
			p.t.Fatal(err)
		}
	}
	label := ""
	if role == citywarden.RoleService {
		label = "grafana"
	}
	tok, _, err := p.accounts.open(p.t.Context(), u.Name, label, SessionLife)
	if err != nil {
		p.t.Fatal(err)
	}
	p.tokens[role] = tok
	return tok
}

// answer is what the API said.
type answer struct {
	status int
	header http.Header
	body   string
}

// do asks for "METHOD /path" with a body (JSON unless it looks otherwise).
func (p *platform) do(token, what, body string, header ...string) answer {
	p.t.Helper()
	method, path, _ := strings.Cut(what, " ")
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req := httptest.NewRequestWithContext(p.t.Context(), method, path, r)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if strings.HasPrefix(body, "--"+boundary) {
		req.Header.Set("Content-Type", "multipart/form-data; boundary="+boundary)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, req)
	a := answer{w.Code, w.Result().Header, w.Body.String()}
	p.described(req, a)
	return a
}

// described fails the test when an answer is not what the description of the API says.
func (p *platform) described(r *http.Request, a answer) {
	p.t.Helper()
	_, pattern := p.server.mux.Handler(r)
	_, path, _ := strings.Cut(pattern, " ")
	api := p.server.api.OpenAPI()
	item := api.Paths[path]
	if item == nil || a.status > 299 || a.header.Get("Content-Type") != "application/json" {
		return
	}
	op := map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PUT": item.Put, "PATCH": item.Patch, "DELETE": item.Delete}[r.Method]
	said := op.Responses[strconv.Itoa(a.status)]
	if said == nil || said.Content["application/json"] == nil {
		p.t.Errorf("%s %s answers %d with JSON, which its description does not know", r.Method, path, a.status)
		return
	}
	var v any
	a.into(p.t, &v)
	var found huma.ValidateResult
	huma.Validate(api.Components.Schemas, said.Content["application/json"].Schema, huma.NewPathBuffer([]byte("answer"), 0), huma.ModeReadFromServer, v, &found)
	for _, err := range found.Errors {
		p.t.Errorf("%s %s: %v", r.Method, path, err)
	}
}

// talk says one thing of a device and falls silent.
type talk struct{}

func (talk) Watch(ctx context.Context, id citywarden.DeviceID, f func(citywarden.Entry) error) error {
	return f(citywarden.Entry{
		Record:   citywarden.Record{Uplink: &citywarden.Uplink{Device: id, Protocol: "mqtt", Topic: "v1/devices/me/telemetry", Payload: []byte(`{"smoke":0.31,"x":1}`), Received: noon}},
		Readings: []citywarden.Reading{{Metric: "smoke", Value: citywarden.Number(0.31), Time: noon}},
		Rejected: 1, Reject: &citywarden.DeadLetter{Reason: "no metric x"},
	})
}

// into decodes the body.
func (a answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("decode %q: %v", a.body, err)
	}
}

// problem decodes the body as a problem and checks its form.
func (a answer) problem(t testing.TB) Problem {
	t.Helper()
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Fatalf("Content-Type of %d %s = %q, want application/problem+json", a.status, a.body, ct)
	}
	var p Problem
	a.into(t, &p)
	if p.Status != a.status || p.Title != http.StatusText(a.status) || p.Type != "about:blank" || p.Detail == "" || p.Code == "" || !strings.HasPrefix(p.Instance, "urn:citywarden:request:") {
		t.Errorf("problem %s does not fit status %d", a.body, a.status)
	}
	return p
}

// fullDisk is an audit log that nothing can be added to.
type fullDisk struct{ *store.DB }

func (fullDisk) AppendAudit(context.Context, citywarden.AuditEntry) (int64, error) {
	return 0, fmt.Errorf("write audit entry: disk full")
}

// broken is a series that can't be reached.
type broken struct{}

func (broken) Groups(context.Context, citywarden.GroupQuery) ([]citywarden.SeriesGroup, error) {
	return nil, errUnreachable
}

func (broken) Export(context.Context, citywarden.HistoryQuery, func([]citywarden.SeriesRow) error) error {
	return errUnreachable
}

func (broken) Import(context.Context, []citywarden.DeviceReading) ([]error, error) {
	return nil, errUnreachable
}

func (broken) Query(context.Context, citywarden.SeriesQuery) ([]citywarden.SeriesPoint, error) {
	return nil, errUnreachable
}

var errUnreachable = errors.New("query series: dial tcp 10.0.0.5:8086: connection refused")

// shelf holds the firmware a 1 for whoever asks.
type shelf struct{}

func (shelf) List() []citywarden.Firmware {
	return []citywarden.Firmware{{Title: "a", Version: "1", Model: "smoke-detector", Size: 3, Checksum: strings.Repeat("0", 64), Created: noon}}
}

func (shelf) Add(_ context.Context, f citywarden.Firmware, file []byte) (citywarden.Firmware, error) {
	f.Size = int64(len(file))
	return f, f.Check()
}

func (s shelf) Delete(_ context.Context, title, version string) error {
	if f := s.List()[0]; title != f.Title || version != f.Version {
		return citywarden.Errorf(citywarden.CodeNotFound, "no firmware %s %s", title, version)
	}
	return nil
}

func (s shelf) Assign(ctx context.Context, _ citywarden.FirmwareTarget, title, version string) error {
	return s.Delete(ctx, title, version)
}
