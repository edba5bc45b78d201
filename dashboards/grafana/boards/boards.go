// Package boards writes the Grafana dashboards as code; the JSON that Grafana
// is provisioned with lies in ../provisioning/dashboards and is rendered from
// here:
//
//	go test ./dashboards/grafana/boards -update
//
// Every panel answers the question that stands in its description.
package boards

import (
	"encoding/json"
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/barchart"
	"github.com/grafana/grafana-foundation-sdk/go/bargauge"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// UID is the datasource that the dashboards ask; provisioning gives it this id.
const UID = "citywarden"

const pluginID = "citywarden-datasource"

// All returns every dashboard as JSON, by file name.
func All() (map[string][]byte, error) {
	out := map[string][]byte{}
	for name, b := range map[string]*dashboard.DashboardBuilder{
		"duty-desk.json": dutyDesk(), "fire.json": fire(), "water.json": water(), "parking.json": parking(),
		"buildings.json": buildings(), "cases.json": evaluation(), "devices.json": devices(), "platform.json": platform(),
	} {
		d, err := b.Build()
		if err != nil {
			return nil, fmt.Errorf("dashboard %s: %w", name, err)
		}
		b, err := json.MarshalIndent(d, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("dashboard %s: %w", name, err)
		}
		out[name] = append(b, '\n')
	}
	return out, nil
}

// query is a query of the citywarden datasource, as grafana.Query reads it.
type query struct {
	RefID      string               `json:"refId"`
	Datasource common.DataSourceRef `json:"datasource"`
	QueryType  string               `json:"queryType"`
	Device     string               `json:"device,omitempty"`
	Model      string               `json:"model,omitempty"`
	Domain     string               `json:"domain,omitempty"`
	Site       string               `json:"site,omitempty"`
	Zone       string               `json:"zone,omitempty"`
	Metric     string               `json:"metric,omitempty"`
	Agg        string               `json:"agg,omitempty"`
	By         string               `json:"by,omitempty"`
	Across     string               `json:"across,omitempty"`
	Every      string               `json:"every,omitempty"`
	Hours      string               `json:"hours,omitempty"`
	Baseline   int                  `json:"baseline,omitempty"`
	State      string               `json:"state,omitempty"`
	All        bool                 `json:"all,omitempty"`
	Department string               `json:"department,omitempty"`
	Of         string               `json:"of,omitempty"`
	Level      string               `json:"level,omitempty"`
	Lang       string               `json:"lang,omitempty"`
}

// ImplementsDataqueryVariant marks query as a query for the SDK.
func (query) ImplementsDataqueryVariant() {}

// DataqueryType is the plugin's id.
func (query) DataqueryType() string { return pluginID }

// Validate finds nothing wrong; the backend says what is.
func (query) Validate() error { return nil }

// Equals compares by value.
func (q query) Equals(o variants.Dataquery) bool { p, ok := o.(query); return ok && p == q }

// Build makes query its own builder.
func (q query) Build() (variants.Dataquery, error) {
	if q.RefID == "" {
		q.RefID = "A"
	}
	q.Datasource, q.Lang = source(), "$lang"
	return q, nil
}

func source() common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr(pluginID), Uid: cog.ToPtr(UID)}
}

// tag marks the dashboards, which are linked with each other by it.
const tag = "citywarden"

// board begins a dashboard. Its queries are in the language that is chosen at its top.
func board(uid, title, description, since string) *dashboard.DashboardBuilder {
	return dashboard.NewDashboardBuilder(title).
		Uid("citywarden-"+uid).
		Description(description).
		Tags([]string{tag}).
		Timezone("browser").
		Time("now-"+since, "now").
		Refresh("30s").
		Readonly().
		Link(dashboard.NewDashboardLinkBuilder("citywarden").Type(dashboard.DashboardLinkTypeDashboards).Tags([]string{tag}).AsDropdown(true).IncludeVars(false).KeepTime(true)).
		WithVariable(dashboard.NewCustomVariableBuilder("lang").
			Label("语言 Language").
			Values(dashboard.StringOrMap{String: cog.ToPtr("中文 : zh,English : en")}).
			Current(dashboard.VariableOption{Selected: cog.ToPtr(true), Text: text("中文"), Value: text("zh")}))
}

func text(s string) dashboard.StringOrArrayOfString {
	return dashboard.StringOrArrayOfString{String: cog.ToPtr(s)}
}

// choice is a variable whose values the platform knows; values is like "zone domain=fire".
// All of them are chosen at first.
func choice(name, label, values string) *dashboard.QueryVariableBuilder {
	return dashboard.NewQueryVariableBuilder(name).
		Label(label).
		Datasource(source()).
		Query(dashboard.StringOrMap{String: cog.ToPtr(values)}).
		Refresh(dashboard.VariableRefreshOnDashboardLoad).
		Sort(dashboard.VariableSortAlphabeticalAsc).
		Multi(true).
		IncludeAll(true).
		AllValue("$__all").
		Current(dashboard.VariableOption{Selected: cog.ToPtr(true), Text: text("All"), Value: text("$__all")})
}

// filters lets people filter all panels by what devices and rows have.
func filters() *dashboard.AdHocVariableBuilder {
	return dashboard.NewAdHocVariableBuilder("filters").Label("筛选 Filters").Datasource(source())
}

// marks draws the alarms of a domain over the curves.
func marks(domain string) *dashboard.AnnotationQueryBuilder {
	return dashboard.NewAnnotationQueryBuilder().
		Name("告警 Alarms").
		Datasource(source()).
		Enable(true).
		IconColor("red").
		Target(query{RefID: "Anno", QueryType: "annotations", Of: "alarms", Domain: domain})
}

// number shows one figure of a query: grey while it is 0.
func number(title, question string, q query, calc, field string, width uint32, s ...dashboard.Threshold) *stat.PanelBuilder {
	if s == nil {
		s = []dashboard.Threshold{step(nil, "text"), step(cog.ToPtr(1.0), "orange")}
	}
	return stat.NewPanelBuilder().
		Title(title).Description(question).Height(4).Span(width).
		Datasource(source()).WithTarget(q).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{calc}).Fields(field).Values(false)).
		TextMode(common.BigValueTextModeValue).
		GraphMode(common.BigValueGraphModeNone).
		ColorMode(common.BigValueColorModeValue).
		NoValue("0").
		Thresholds(steps(s...))
}

// rows shows the rows of a query, those of alarms and cases with their words in colour.
func rows(title, question string, q query, width, height uint32) *table.PanelBuilder {
	return table.NewPanelBuilder().
		Title(title).Description(question).
		Height(height).Span(width).
		Datasource(source()).WithTarget(q).
		NoValue("无 none").
		OverrideByName("severity", colours(map[string]string{"critical": "red", "major": "orange", "minor": "yellow", "warning": "blue"})).
		OverrideByName("light", colours(map[string]string{"green": "green", "yellow": "yellow", "red": "red"})).
		OverrideByName("status", colours(map[string]string{"silent": "orange", "never": "text"}))
}

// curves draws queries over time; what is unknown is a gap.
func curves(title, question string, width, height uint32, qs ...query) *timeseries.PanelBuilder {
	p := timeseries.NewPanelBuilder().
		Title(title).Description(question).
		Height(height).Span(width).
		Datasource(source()).
		LineWidth(1).
		SpanNulls(common.BoolOrFloat64{Bool: cog.ToPtr(false)}).
		NoValue("无数据 no readings in this time")
	for i, q := range qs {
		q.RefID = string(rune('A' + i))
		p.WithTarget(q)
	}
	return p
}

// profile draws a bar for each row of a query, as along a pipe.
func profile(title, question string, q query, x, y string, width, height uint32) *barchart.PanelBuilder {
	return barchart.NewPanelBuilder().
		Title(title).Description(question).
		Height(height).Span(width).
		Datasource(source()).WithTarget(q).
		WithTransformation(only(x, y)).
		XField(x).
		XTickLabelRotation(-45).
		ShowValue(common.VisibilityModeNever).
		NoValue("无数据 no readings")
}

// gauges draws a bar from 0 for each line of a query, the value standing beside it.
func gauges(title, question string, q query, calc string, width, height uint32, s ...dashboard.Threshold) *bargauge.PanelBuilder {
	return bargauge.NewPanelBuilder().
		Title(title).Description(question).
		Height(height).Span(width).
		Datasource(source()).WithTarget(q).
		DisplayMode(common.BarGaugeDisplayModeBasic).
		Orientation(common.VizOrientationHorizontal).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{calc}).Values(false)).
		Min(0).
		NoValue("无数据 no readings").
		Thresholds(steps(s...))
}

// groupBy counts the rows by a column, with the oldest of each.
func groupBy(by, count, oldest string) dashboard.DataTransformerConfig {
	return dashboard.DataTransformerConfig{Id: "groupBy", Options: map[string]any{"fields": map[string]any{
		by:     map[string]any{"operation": "groupby", "aggregations": []string{}},
		count:  map[string]any{"operation": "aggregate", "aggregations": []string{"count"}},
		oldest: map[string]any{"operation": "aggregate", "aggregations": []string{"min"}},
	}}}
}

// only leaves the columns that are named.
func only(columns ...string) dashboard.DataTransformerConfig {
	return dashboard.DataTransformerConfig{Id: "filterFieldsByName", Options: map[string]any{"include": map[string]any{"names": columns}}}
}

// where leaves the rows whose column matches a pattern.
func where(column, pattern string) dashboard.DataTransformerConfig {
	return dashboard.DataTransformerConfig{Id: "filterByValue", Options: map[string]any{
		"type": "include", "match": "any",
		"filters": []any{map[string]any{"fieldName": column, "config": map[string]any{"id": "regex", "options": map[string]any{"value": pattern}}}},
	}}
}

// sortBy sorts the rows.
func sortBy(column string, falling bool) dashboard.DataTransformerConfig {
	return dashboard.DataTransformerConfig{Id: "sortBy", Options: map[string]any{"fields": map[string]any{}, "sort": []any{map[string]any{"field": column, "desc": falling}}}}
}

func steps(s ...dashboard.Threshold) *dashboard.ThresholdsConfigBuilder {
	return dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(s)
}

func step(from *float64, colour string) dashboard.Threshold {
	return dashboard.Threshold{Value: from, Color: colour}
}

// colours colours the text of a column by its value; the word stays, so that
// colour never stands alone.
func colours(by map[string]string) []dashboard.DynamicConfigValue {
	options := map[string]any{}
	for value, colour := range by {
		options[value] = map[string]any{"color": colour}
	}
	return []dashboard.DynamicConfigValue{
		{Id: "mappings", Value: []any{map[string]any{"type": "value", "options": options}}},
		{Id: "custom.displayMode", Value: "color-text"},
		{Id: "custom.cellOptions", Value: map[string]any{"type": "color-text"}}, // as Grafana 10 and newer read it
	}
}

// shades colours the cells of columns by their value, from white to blue.
func shades() []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{
		{Id: "custom.displayMode", Value: "color-background-solid"},
		{Id: "custom.cellOptions", Value: map[string]any{"type": "color-background", "mode": "basic"}},
		{Id: "color", Value: map[string]any{"mode": "continuous-blues"}},
		{Id: "min", Value: 0},
		{Id: "decimals", Value: 0},
	}
}

func hidden() []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{{Id: "custom.hideFrom", Value: map[string]any{"viz": true, "legend": true, "tooltip": false}}}
}
