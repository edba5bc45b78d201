package grafana

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/citywarden/citywarden"
)

// pass reports whether a row passes the dashboard's filters: each of them whose key is
// one of its columns. A dashboard's filters reach all of its panels; what a table
// doesn't have it isn't filtered by.
func (m *Query) pass(row map[string]string) (bool, error) {
	for _, f := range m.Filters {
		value, ok := row[f.Key]
		if !ok {
			continue
		}
		if ok, err := f.keep(value); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// links returns a link to a path of the console, where ${__value.text} stands for
// the value; none without an address of the console.
func (d *Datasource) links(what, path string) []data.DataLink {
	if d.console == "" {
		return nil
	}
	return []data.DataLink{{Title: "citywarden: " + what, URL: d.console + path, TargetBlank: true}}
}

func (d *Datasource) linked(what, path string) *data.FieldConfig {
	return &data.FieldConfig{Links: d.links(what, path+"${__value.text:percentencode}")}
}

// latest returns one row per device with its latest values; what is not current
// any more is null.
func (d *Datasource) latest(ctx context.Context, m *Query) (data.Frames, error) {
	ms, devices, err := d.chosen(ctx, m)
	if err != nil {
		return nil, err
	}
	var ids, names, ofModel, status, alarms, sites, zones []string
	var seen []*time.Time
	var lat, lon []*float64
	columns := map[citywarden.MetricName][]*float64{}
	units := map[citywarden.MetricName]*citywarden.Metric{}
	now := time.Now()
	for i, x := range devices {
		ids, names, ofModel = append(ids, string(x.ID)), append(names, cmp.Or(x.Name, string(x.ID))), append(ofModel, string(x.Model))
		status, alarms, seen = append(status, string(x.Status)), append(alarms, x.Alarm), append(seen, timePtr(x.LastSeen))
		sites, zones = append(sites, ms.tag(&x, "site")), append(zones, ms.tag(&x, "zone"))
		if p := x.Location; p != nil {
			lat, lon = append(lat, &p.Lat), append(lon, &p.Lon)
		} else {
			lat, lon = append(lat, nil), append(lon, nil)
		}
		mo := ms[x.Model]
		for name, l := range x.Latest {
			if mo == nil || l.Value.Kind() == citywarden.KindText {
				continue
			}
			metric, ok := mo.Metric(name)
			if !ok {
				continue
			}
			if columns[name] == nil {
				columns[name], units[name] = make([]*float64, len(devices)), metric
			}
			if fresh := cmp.Or(metric.StaleAfter, 2*mo.Heartbeat).Std(); fresh == 0 || now.Sub(l.Time) <= fresh {
				v := l.Value.Float()
				columns[name][i] = &v
			}
		}
	}
	f := data.NewFrame("devices", data.NewField("device", nil, ids).SetConfig(d.linked("device", "/devices/")), data.NewField("name", nil, names),
		data.NewField("model", nil, ofModel), data.NewField("site", nil, sites), data.NewField("zone", nil, zones),
		data.NewField("status", nil, status), data.NewField("last seen", nil, seen), data.NewField("alarm", nil, alarms),
		data.NewField("latitude", nil, lat), data.NewField("longitude", nil, lon))
	for _, name := range slices.Sorted(maps.Keys(columns)) {
		f.Fields = append(f.Fields, data.NewField(string(name), nil, columns[name]).SetConfig(&data.FieldConfig{Unit: unitOf(units[name])}))
	}
	return table(f), nil
}

// states returns how many devices of each model are in contact and how many are
// not.
func (d *Datasource) states(ctx context.Context, m *Query) (data.Frames, error) {
	ms, devices, err := d.chosen(ctx, m)
	if err != nil {
		return nil, err
	}
	counts := map[string]map[citywarden.Status]int64{}
	for i := range devices {
		name := string(devices[i].Model)
		if mo := ms[devices[i].Model]; mo != nil {
			name = cmp.Or(mo.Title.In(m.Lang), name)
		}
		if counts[name] == nil {
			counts[name] = map[citywarden.Status]int64{}
		}
		counts[name][devices[i].Status]++
	}
	names := slices.Sorted(maps.Keys(counts))
	f := data.NewFrame("states", data.NewField("model", nil, names))
	for _, s := range [...]citywarden.Status{citywarden.StatusOnline, citywarden.StatusSilent, citywarden.StatusNever} {
		column := make([]int64, len(names))
		for i, name := range names {
			column[i] = counts[name][s]
		}
		f.Fields = append(f.Fields, data.NewField(string(s), nil, column))
	}
	return table(f), nil
}

// eachAlarm calls f with the alarms that m asks for: those that were raised in
// the time range, and those that are active.
func (d *Datasource) eachAlarm(ctx context.Context, q backend.DataQuery, m *Query, f func(citywarden.Alarm)) error {
	v := url.Values{}
	switch m.State {
	case "":
	case "open":
		v.Set("state", string(citywarden.AlarmActive))
		v.Set("suppressed", string(citywarden.SuppressionNone))
	default:
		v.Set("state", m.State)
	}
	var bad error
	err := all(ctx, d.api, "/api/v1/alarms", v, func(a citywarden.Alarm) {
		if a.State != citywarden.AlarmActive && (a.RaisedAt.Before(q.TimeRange.From) || a.RaisedAt.After(q.TimeRange.To)) {
			return
		}
		domain, _, _ := strings.Cut(string(a.Rule), ".")
		if wanted := list(m.Domain); len(wanted) > 0 && !slices.Contains(wanted, domain) {
			return
		}
		if wanted := list(m.Device); len(wanted) > 0 && !slices.Contains(wanted, string(a.Device)) {
			return
		}
		ok, err := m.pass(map[string]string{"device": string(a.Device), "domain": domain, "rule": string(a.Rule),
			"severity": a.Severity.String(), "state": string(a.State)})
		if bad = cmp.Or(bad, err); ok {
			f(a)
		}
	})
	return cmp.Or(err, bad)
}

// alarms returns a row for each alarm, the newest first. The domain of an alarm
// is the first word of its rule.
func (d *Datasource) alarms(ctx context.Context, q backend.DataQuery, m *Query) (data.Frames, error) {
	var raised []time.Time
	var cleared []*time.Time
	var sev, title, state, dev, id, rule, kase []string
	var acked []bool
	err := d.eachAlarm(ctx, q, m, func(a citywarden.Alarm) {
		raised, cleared = append(raised, a.RaisedAt), append(cleared, timePtr(a.ClearedAt))
		sev, title, state = append(sev, a.Severity.String()), append(title, a.Title.In(m.Lang)), append(state, string(a.State))
		dev, id, rule, kase = append(dev, string(a.Device)), append(id, string(a.ID)), append(rule, string(a.Rule)), append(kase, string(a.Case))
		acked = append(acked, a.Acked)
	})
	if err != nil {
		return nil, err
	}
	return table(data.NewFrame("alarms", data.NewField("raised", nil, raised), data.NewField("severity", nil, sev), data.NewField("alarm", nil, title),
		data.NewField("device", nil, dev).SetConfig(d.linked("device", "/devices/")), data.NewField("state", nil, state),
		data.NewField("acknowledged", nil, acked), data.NewField("cleared", nil, cleared),
		data.NewField("rule", nil, rule).SetConfig(d.linked("rule", "/rules/")), data.NewField("case", nil, kase).SetConfig(d.linked("case", "/cases/")),
		data.NewField("id", nil, id).SetConfig(d.linked("why", "/alarms?why=")))), nil
}

// load returns how many alarms came in every 10 minutes, and what an operator got
// at the mean and at the worst, beside the goal.
func (d *Datasource) load(ctx context.Context, q backend.DataQuery, _ *Query) (data.Frames, error) {
	v := url.Values{"from": {q.TimeRange.From.Format(time.RFC3339)}, "to": {q.TimeRange.To.Format(time.RFC3339)}}
	var l citywarden.AlarmLoad
	if err := d.api.get(ctx, "/api/v1/alarms/load?"+v.Encode(), &l); err != nil {
		return nil, err
	}
	times, alarms := make([]time.Time, len(l.Series)), make([]int64, len(l.Series))
	for i, p := range l.Series {
		times[i], alarms[i] = p.At, int64(p.Alarms)
	}
	series := data.NewFrame("alarms", data.NewField("time", nil, times), data.NewField("alarms", nil, alarms))
	series.Meta = &data.FrameMeta{Type: data.FrameTypeTimeSeriesMulti, TypeVersion: data.FrameTypeVersion{0, 1}}
	one := func(name, unit string, x float64) *data.Field {
		return data.NewField(name, nil, []float64{x}).SetConfig(&data.FieldConfig{Unit: unit})
	}
	kpi := table(data.NewFrame("load", one("mean per operator in 10 min", "short", l.PerOperator.Mean), one("worst 10 min", "short", l.PerOperator.Peak),
		one("goal", "short", l.PerOperator.Goal), one("time over the goal", "percentunit", l.PerOperator.OverGoalShare),
		one("floods", "short", float64(len(l.Floods))), one("chattering", "short", float64(len(l.Chattering))), one("stale", "short", float64(len(l.Stale)))))
	return append(kpi, series), nil
}

// eachCase calls f with the cases that m asks for.
func (d *Datasource) eachCase(ctx context.Context, m *Query, f func(citywarden.Case)) error {
	v := url.Values{}
	if !m.All {
		v.Set("open", "true")
	}
	if one := list(m.Department); len(one) == 1 {
		v.Set("department", one[0])
	}
	var bad error
	err := all(ctx, d.api, "/api/v1/cases", v, func(c citywarden.Case) {
		if wanted := list(m.Department); len(wanted) > 0 && !slices.Contains(wanted, c.Department) {
			return
		}
		domain, _, _ := strings.Cut(string(c.Rule), ".")
		if wanted := list(m.Domain); len(wanted) > 0 && !slices.Contains(wanted, domain) {
			return
		}
		ok, err := m.pass(map[string]string{"stage": string(c.Stage), "light": string(c.Light), "department": c.Department,
			"grid": string(c.Grid), "source": string(c.Source), "domain": domain})
		if bad = cmp.Or(bad, err); ok {
			f(c)
		}
	})
	return cmp.Or(err, bad)
}

// cases returns the cases that are open, or all, the newest first.
func (d *Datasource) cases(ctx context.Context, m *Query) (data.Frames, error) {
	var opened []time.Time
	var deadline []*time.Time
	var id, title, stage, light, dept, grid, source []string
	var normal []bool
	err := d.eachCase(ctx, m, func(c citywarden.Case) {
		opened, deadline = append(opened, c.Opened), append(deadline, timePtr(c.Deadline))
		id, title, stage = append(id, string(c.ID)), append(title, c.Title.In(m.Lang)), append(stage, string(c.Stage))
		light, dept, grid = append(light, string(c.Light)), append(dept, c.Department), append(grid, string(c.Grid))
		normal, source = append(normal, c.Normal), append(source, string(c.Source))
	})
	if err != nil {
		return nil, err
	}
	return table(data.NewFrame("cases", data.NewField("opened", nil, opened), data.NewField("case", nil, id).SetConfig(d.linked("case", "/cases/")),
		data.NewField("title", nil, title), data.NewField("stage", nil, stage), data.NewField("light", nil, light), data.NewField("deadline", nil, deadline),
		data.NewField("department", nil, dept), data.NewField("grid", nil, grid), data.NewField("source", nil, source), data.NewField("back to normal", nil, normal))), nil
}

// evaluation returns a row for each area, department or person with a column for
// each indicator.
func (d *Datasource) evaluation(ctx context.Context, q backend.DataQuery, m *Query) (data.Frames, error) {
	v := url.Values{"by": {cmp.Or(m.Of, "department")}, "from": {q.TimeRange.From.Format(time.RFC3339)}, "to": {q.TimeRange.To.Format(time.RFC3339)}}
	if v.Get("by") == "area" && m.Level != "" {
		v.Set("level", m.Level)
	}
	var e citywarden.Evaluation
	if err := d.api.get(ctx, "/api/v1/evaluation?"+v.Encode(), &e); err != nil {
		return nil, err
	}
	var keys, names, grades []string
	var scores []*float64
	var rows []citywarden.EvaluationRow
	for _, r := range e.Rows {
		if wanted := list(m.Department); len(wanted) > 0 && v.Get("by") == "department" && !slices.Contains(wanted, r.Key) {
			continue
		}
		ok, err := m.pass(map[string]string{cmp.Or(m.Of, "department"): r.Key})
		if err != nil {
			return nil, err
		}
		if ok {
			rows = append(rows, r)
			keys, names = append(keys, r.Key), append(names, cmp.Or(r.Name.In(m.Lang), r.Key))
			scores, grades = append(scores, r.Score), append(grades, r.Grade)
		}
	}
	f := data.NewFrame("evaluation", data.NewField("key", nil, keys), data.NewField("name", nil, names),
		data.NewField("score", nil, scores).SetConfig(&data.FieldConfig{Unit: "short"}), data.NewField("grade", nil, grades))
	for _, in := range e.Indicators {
		column := make([]*float64, len(rows))
		cfg := &data.FieldConfig{Unit: "percentunit", Description: in.Numerator.In(m.Lang)}
		if in.Denominator == nil {
			cfg.Unit = "short"
		} else {
			cfg.Description += " / " + in.Denominator.Name.In(m.Lang)
		}
		for i := range rows {
			fig := rows[i].Figure(in.Code)
			if in.Denominator == nil {
				n := float64(fig.Cases)
				column[i] = &n
			} else {
				column[i] = fig.Rate
			}
		}
		f.Fields = append(f.Fields, data.NewField(in.Name.In(m.Lang), nil, column).SetConfig(cfg))
	}
	return table(f), nil
}

// ledger returns what became of the readings: by hour, or for each device.
func (d *Datasource) ledger(ctx context.Context, q backend.DataQuery, m *Query) (data.Frames, error) {
	if m.Of != "" && m.Of != "device" {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "ledger of %q: it is device, or nothing for hours", m.Of)
	}
	_, devices, err := d.chosen(ctx, m)
	if err != nil {
		return nil, err
	}
	chosen := map[citywarden.DeviceID]bool{}
	for i := range devices {
		chosen[devices[i].ID] = true
	}
	v := url.Values{"from": {q.TimeRange.From.Format(time.RFC3339)}, "to": {q.TimeRange.To.Format(time.RFC3339)}}
	sums := map[string]*citywarden.LedgerRow{}
	err = all(ctx, d.api, "/api/v1/ledger", v, func(r citywarden.LedgerRow) {
		if !chosen[r.Device] {
			return
		}
		key := r.Hour.Format(time.RFC3339)
		if m.Of == "device" {
			key = string(r.Device)
		}
		s := sums[key]
		if s == nil {
			s = &citywarden.LedgerRow{Device: r.Device, Hour: r.Hour}
			sums[key] = s
		}
		s.Messages, s.Stored, s.Rejected, s.Duplicate = s.Messages+r.Messages, s.Stored+r.Stored, s.Rejected+r.Rejected, s.Duplicate+r.Duplicate
		s.Quarantined, s.Missing, s.Silent = s.Quarantined+r.Quarantined, s.Missing+r.Missing, s.Silent+r.Silent
	})
	if err != nil {
		return nil, err
	}
	keys := slices.Sorted(maps.Keys(sums))
	var hours []time.Time
	for _, k := range keys {
		hours = append(hours, sums[k].Hour)
	}
	f := data.NewFrame("ledger", data.NewField("time", nil, hours))
	if m.Of == "device" {
		f = data.NewFrame("ledger", data.NewField("device", nil, keys).SetConfig(d.linked("device", "/devices/")))
	}
	for _, c := range []struct {
		name, unit string
		of         func(*citywarden.LedgerRow) int64
	}{
		{"messages", "short", func(r *citywarden.LedgerRow) int64 { return r.Messages }}, {"stored", "short", func(r *citywarden.LedgerRow) int64 { return r.Stored }},
		{"rejected", "short", func(r *citywarden.LedgerRow) int64 { return r.Rejected }}, {"duplicate", "short", func(r *citywarden.LedgerRow) int64 { return r.Duplicate }},
		{"quarantined", "short", func(r *citywarden.LedgerRow) int64 { return r.Quarantined }}, {"missing", "short", func(r *citywarden.LedgerRow) int64 { return r.Missing }},
		{"silent", "s", func(r *citywarden.LedgerRow) int64 { return r.Silent }},
	} {
		column := make([]int64, len(keys))
		for i, k := range keys {
			column[i] = c.of(sums[k])
		}
		f.Fields = append(f.Fields, data.NewField(c.name, nil, column).SetConfig(&data.FieldConfig{Unit: c.unit}))
	}
	if m.Of == "" {
		f.Meta = &data.FrameMeta{Type: data.FrameTypeTimeSeriesWide, TypeVersion: data.FrameTypeVersion{0, 1}}
		return data.Frames{f}, nil
	}
	return table(f), nil
}

// annotations returns the alarms or the cases as Grafana draws them over its
// charts: from when to when, and what.
func (d *Datasource) annotations(ctx context.Context, q backend.DataQuery, m *Query) (data.Frames, error) {
	var from []time.Time
	var to []*time.Time
	var titles, texts, tags, ids []string
	add := func(id string, begin, end time.Time, title, text string, tag ...string) {
		if begin.After(q.TimeRange.To) || !end.IsZero() && end.Before(q.TimeRange.From) {
			return
		}
		from, to, ids = append(from, begin), append(to, timePtr(end)), append(ids, id)
		titles, texts = append(titles, title), append(texts, text)
		tags = append(tags, strings.Join(slices.DeleteFunc(tag, func(s string) bool { return s == "" }), ","))
	}
	var err error
	switch m.Of {
	case "alarms", "":
		err = d.eachAlarm(ctx, q, m, func(a citywarden.Alarm) {
			add(string(a.ID), a.RaisedAt, a.ClearedAt, a.Title.In(m.Lang), fmt.Sprintf("%s · %s", a.Entity, a.Rule), "alarm", a.Severity.String())
		})
	case "cases":
		all := *m
		all.All = true
		err = d.eachCase(ctx, &all, func(c citywarden.Case) {
			add(string(c.ID), c.Opened, c.Finished, c.Title.In(m.Lang), fmt.Sprintf("%s · %s", c.ID, c.Department), "case", string(c.Stage))
		})
	default:
		err = citywarden.Errorf(citywarden.CodeInvalid, "annotations of %q: they are of alarms or of cases", m.Of)
	}
	if err != nil {
		return nil, err
	}
	return table(data.NewFrame("annotations", data.NewField("time", nil, from), data.NewField("timeEnd", nil, to), data.NewField("title", nil, titles),
		data.NewField("text", nil, texts), data.NewField("tags", nil, tags), data.NewField("id", nil, ids))), nil
}

// table is f as rows. Alerts can be set on it when it has nothing but numbers and
// what they are of.
func table(f *data.Frame) data.Frames {
	f.Meta = &data.FrameMeta{Type: data.FrameTypeNumericLong, TypeVersion: data.FrameTypeVersion{0, 1}, PreferredVisualization: data.VisTypeTable}
	if slices.ContainsFunc(f.Fields, func(x *data.Field) bool { return !x.Type().Numeric() && x.Type() != data.FieldTypeString }) {
		f.Meta.Type = data.FrameTypeTable
	}
	return data.Frames{f}
}

func timePtr(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
