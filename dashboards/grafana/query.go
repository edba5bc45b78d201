package grafana

import (
	"context"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// Query is what the query editor writes and a dashboard's JSON holds. Lists are
// separated by commas; an empty one selects all.
type Query struct {
	Type string `json:"queryType"` // one of Types

	// Which devices.
	Device  string   `json:"device,omitempty"`
	Model   string   `json:"model,omitempty"`
	Domain  string   `json:"domain,omitempty"`
	Site    string   `json:"site,omitempty"`
	Zone    string   `json:"zone,omitempty"`
	Grid    string   `json:"grid,omitempty"`
	Filters []Filter `json:"filters,omitempty"` // of the dashboard; in tables they select rows

	Metric   string `json:"metric,omitempty"`   // series, week, live
	Agg      string `json:"agg,omitempty"`      // series, week: over time; mean, min, max, sum, count, last, increase; "" for raw points
	By       string `json:"by,omitempty"`       // series: a line for each device, model, site, zone or grid, or one for all; "" means device. parking: zone or site
	Across   string `json:"across,omitempty"`   // series, week: how devices are put together; mean, min, max or sum
	Every    string `json:"every,omitempty"`    // series: interval of the aggregate instead of the panel's, like 15m
	Hours    string `json:"hours,omitempty"`    // series: only these hours of the county's day, like 02:00-04:00, and one value a day
	Baseline int    `json:"baseline,omitempty"` // series: instead of now the mean of the same times so many weeks back; at most 8

	State      string `json:"state,omitempty"`      // alarms: open (active and not suppressed: they call for a person), active, cleared; "" for all
	All        bool   `json:"all,omitempty"`        // cases: closed ones too
	Department string `json:"department,omitempty"` // cases, evaluation
	Of         string `json:"of,omitempty"`         // evaluation: area, department or post. ledger: device, for a row each; "" by hour. annotations: alarms or cases
	Level      string `json:"level,omitempty"`      // evaluation by area: county, town or village; "" for towns
	Lang       string `json:"lang,omitempty"`       // zh or en, of titles; "" means en
}

// Types are the types of queries.
var Types = [...]string{"series", "week", "live", "latest", "states", "parking", "alarms", "load", "cases", "evaluation", "ledger", "annotations"}

// Filter is an ad-hoc filter of a dashboard.
type Filter struct {
	Key      string `json:"key"` // of a device: one of filterKeys; of a table: a column
	Operator string `json:"operator"`
	Value    string `json:"value"`
}

// keep reports whether value passes f.
func (f *Filter) keep(value string) (bool, error) {
	switch f.Operator {
	case "=", "":
		return value == f.Value, nil
	case "!=":
		return value != f.Value, nil
	case "=|": // one of, as newer Grafanas write it
		return slices.Contains(list(f.Value), value), nil
	case "!=|":
		return !slices.Contains(list(f.Value), value), nil
	case "=~", "!~":
		re, err := regexp.Compile("^(?:" + f.Value + ")$")
		if err != nil {
			return false, citywarden.Errorf(citywarden.CodeInvalid, "filter %s %s: %w", f.Key, f.Operator, err)
		}
		return re.MatchString(value) == (f.Operator == "=~"), nil
	}
	return false, citywarden.Errorf(citywarden.CodeInvalid, "filter %s: unknown operator %q; it is =, !=, =~, !~, =| or !=|", f.Key, f.Operator)
}

// list splits a list at its commas; Grafana's csv format of a variable is one.
func list(s string) []string {
	var out []string
	for x := range strings.SplitSeq(s, ",") {
		if x = strings.TrimSpace(x); x != "" && x != "$__all" {
			out = append(out, x)
		}
	}
	return out
}

// filterKeys are what devices are filtered by.
var filterKeys = [...]string{"device", "model", "domain", "site", "zone", "grid"}

// rowKeys are what only rows of alarms and cases are filtered by. A dashboard's
// filters reach all of its panels: those of devices leave them out.
var rowKeys = [...]string{"severity", "department"}

// models are the platform's device models by name.
type models map[citywarden.ModelName]*citywarden.Model

func (d *Datasource) models(ctx context.Context) (models, error) {
	var page struct {
		Items []citywarden.Model `json:"items"`
	}
	if err := d.api.get(ctx, "/api/v1/models", &page); err != nil {
		return nil, err
	}
	out := models{}
	for i := range page.Items {
		out[page.Items[i].Name] = &page.Items[i]
	}
	return out, nil
}

// tag returns what a device is filtered and grouped by.
func (ms models) tag(x *citywarden.DeviceView, key string) string {
	switch key {
	case "device":
		return string(x.ID)
	case "model":
		return string(x.Model)
	case "grid":
		return string(x.Grid)
	case "domain":
		if m := ms[x.Model]; m != nil {
			return string(m.Domain)
		}
		return ""
	}
	s, _ := x.Attributes[key].(string)
	return s
}

// devices returns the devices that m selects, by id.
func (d *Datasource) devices(ctx context.Context, ms models, m *Query) ([]citywarden.DeviceView, error) {
	wanted := map[string][]string{"device": list(m.Device), "model": list(m.Model), "domain": list(m.Domain),
		"site": list(m.Site), "zone": list(m.Zone), "grid": list(m.Grid)}
	v := url.Values{}
	for _, key := range [...]string{"model", "domain", "grid"} { // what the platform itself selects by
		if one := wanted[key]; len(one) == 1 {
			v.Set(key, one[0])
		}
	}
	var filters []Filter
	for _, f := range m.Filters {
		switch {
		case slices.Contains(filterKeys[:], f.Key):
			filters = append(filters, f)
		case !slices.Contains(rowKeys[:], f.Key):
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "filter by %q: devices have %s", f.Key, strings.Join(filterKeys[:], ", "))
		}
	}
	var out []citywarden.DeviceView
	var bad error
	err := all(ctx, d.api, "/api/v1/devices", v, func(x citywarden.DeviceView) {
		for key, values := range wanted {
			if len(values) > 0 && !slices.Contains(values, ms.tag(&x, key)) {
				return
			}
		}
		for _, f := range filters {
			ok, err := f.keep(ms.tag(&x, f.Key))
			if err != nil {
				bad = err
			}
			if !ok {
				return
			}
		}
		out = append(out, x)
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return nil, err
	}
	if m.Model == "" && m.Domain == "" && m.Site == "" && m.Zone == "" && m.Grid == "" && len(m.Filters) == 0 {
		for _, id := range wanted["device"] {
			if !slices.ContainsFunc(out, func(x citywarden.DeviceView) bool { return string(x.ID) == id }) {
				return nil, citywarden.Errorf(citywarden.CodeNotFound, "no device %s; choose one from the list, or look under Devices in the console", id)
			}
		}
	}
	slices.SortFunc(out, func(a, b citywarden.DeviceView) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out, nil
}

// chosen returns the models and the devices that m selects.
func (d *Datasource) chosen(ctx context.Context, m *Query) (models, []citywarden.DeviceView, error) {
	ms, err := d.models(ctx)
	if err != nil {
		return nil, nil, err
	}
	devices, err := d.devices(ctx, ms, m)
	return ms, devices, err
}

// hours is a part of the day.
type hours struct{ from, to time.Duration }

// parseHours reads "02:00-04:00"; the end is 24:00 at most, and after the beginning.
func parseHours(s string) (hours, error) {
	clock := func(s string) (time.Duration, bool) {
		if s == "24:00" {
			return 24 * time.Hour, true
		}
		t, err := time.Parse("15:04", s)
		return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, err == nil
	}
	a, b, _ := strings.Cut(s, "-")
	from, ok1 := clock(strings.TrimSpace(a))
	to, ok2 := clock(strings.TrimSpace(b))
	if !ok1 || !ok2 || from >= to {
		return hours{}, citywarden.Errorf(citywarden.CodeInvalid, "hours %q: write a part of the day like 02:00-04:00", s)
	}
	return hours{from, to}, nil
}

// day returns the midnight that t's day begins with, when t is in h.
func (h hours) day(t time.Time) (midnight time.Time, ok bool) {
	y, m, d := t.Date()
	of := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	return time.Date(y, m, d, 0, 0, 0, 0, t.Location()), of >= h.from && of < h.to
}

// zone returns the county's time zone.
func (d *Datasource) zone(ctx context.Context) (*time.Location, error) {
	var info struct {
		TimeZone string `json:"time_zone"`
	}
	if err := d.api.get(ctx, "/api/v1/info", &info); err != nil {
		return nil, err
	}
	z, err := time.LoadLocation(info.TimeZone)
	if err != nil {
		return nil, citywarden.Errorf(citywarden.CodeInternal, "the platform's time zone %q: %w", info.TimeZone, err)
	}
	return z, nil
}
