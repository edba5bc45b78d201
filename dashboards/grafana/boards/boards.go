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
	for name, build := range map[string]func() (dashboard.Dashboard, error){"duty-desk.json": dutyDesk, "platform.json": platform} {
		d, err := build()
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
	Metric     string               `json:"metric,omitempty"`
	Agg        string               `json:"agg,omitempty"`
	Model      string               `json:"model,omitempty"`
	State      string               `json:"state,omitempty"`
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
	q.RefID, q.Datasource = "A", source()
	return q, nil
}

func source() common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr(pluginID), Uid: cog.ToPtr(UID)}
}

// dutyDesk is what an operator on shift looks at: what is wrong, since when,
// and who works on it.
func dutyDesk() (dashboard.Dashboard, error) {
	return dashboard.NewDashboardBuilder("值班台 Duty desk").
		Uid("citywarden-duty-desk").
		Description("Open alarms and cases, and the latest values of the devices.").
		Tags([]string{"citywarden"}).
		Timezone("browser").
		Time("now-3h", "now").
		Refresh("10s").
		Readonly().
		WithVariable(dashboard.NewQueryVariableBuilder("device").
			Label("设备 Device").
			Datasource(source()).
			Query(dashboard.StringOrMap{String: cog.ToPtr("devices:pressure-logger")}).
			Refresh(dashboard.VariableRefreshOnDashboardLoad).
			Sort(dashboard.VariableSortAlphabeticalAsc).
			Multi(true)).
		WithPanel(count("未恢复告警 Active alarms", "How many alarms need a person now?", query{QueryType: "alarms", State: "active", Lang: "zh"})).
		WithPanel(count("未结案卷 Open cases", "How many cases are not closed yet?", query{QueryType: "cases", Lang: "zh"})).
		WithPanel(alarms()).
		WithPanel(cases()).
		WithPanel(pressure()).
		WithPanel(devices()).
		Build()
}

// count shows how many rows q returns: grey while there are none.
func count(title, question string, q query) *stat.PanelBuilder {
	return stat.NewPanelBuilder().
		Title(title).Description(question).Height(4).Span(12).
		Datasource(source()).WithTarget(q).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"count"}).Fields("/^(id|case)$/").Values(false)).
		TextMode(common.BigValueTextModeValue).
		GraphMode(common.BigValueGraphModeNone).
		ColorMode(common.BigValueColorModeValue).
		Unit("short").
		NoValue("0").
		Thresholds(steps(step(nil, "text"), step(cog.ToPtr(1.0), "orange")))
}

func alarms() *table.PanelBuilder {
	return table.NewPanelBuilder().
		Title("告警 Alarms").Description("Which alarms are active or were raised in this time, how bad are they, and is somebody on it?").
		Height(9).Span(24).
		Datasource(source()).WithTarget(query{QueryType: "alarms", Lang: "zh"}).
		NoValue("无告警 no alarms").
		OverrideByName("severity", colours(map[string]string{"critical": "red", "major": "orange", "minor": "yellow", "warning": "blue"})).
		OverrideByName("id", hidden())
}

func cases() *table.PanelBuilder {
	return table.NewPanelBuilder().
		Title("案卷 Cases").Description("Which cases are open, at which stage, and how much of their time is left?").
		Height(8).Span(24).
		Datasource(source()).WithTarget(query{QueryType: "cases", Lang: "zh"}).
		NoValue("无案卷 no cases").
		OverrideByName("light", colours(map[string]string{"green": "green", "yellow": "yellow", "red": "red"}))
}

func pressure() *timeseries.PanelBuilder {
	return timeseries.NewPanelBuilder().
		Title("压力 Pressure").Description("How did the pressure at the chosen loggers run, and where is it unknown?").
		Height(9).Span(24).
		Datasource(source()).WithTarget(query{QueryType: "series", Device: "$device", Metric: "pressure", Agg: "mean"}).
		LineWidth(1).
		SpanNulls(common.BoolOrFloat64{Bool: cog.ToPtr(false)}).
		Unit("pressurebar").
		NoValue("no readings in this time")
}

func devices() *table.PanelBuilder {
	return table.NewPanelBuilder().
		Title("设备 Devices").Description("Which devices are silent, and what did each measure last?").
		Height(10).Span(24).
		Datasource(source()).WithTarget(query{QueryType: "latest"}).
		OverrideByName("status", colours(map[string]string{"silent": "orange", "never": "text"}))
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
	}
}

func hidden() []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{{Id: "custom.hidden", Value: true}}
}
