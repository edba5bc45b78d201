package boards

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/geomap"
)

// dutyDesk is what an operator on shift looks at: what is wrong, since when,
// and who works on it.
func dutyDesk() *dashboard.DashboardBuilder {
	alarms, open := query{QueryType: "alarms", State: "open"}, query{QueryType: "cases", Department: "$department"}
	return board("duty-desk", "值班台 Duty desk", "What is wrong now, since when, and who works on it.", "3h").
		WithVariable(choice("department", "部门 Department", "department")).
		WithVariable(filters()).
		Annotation(marks("")).
		WithPanel(number("待处理告警 Open alarms", "How many alarms need a person now?", alarms, "count", "/^id$/", 4)).
		WithPanel(number("未结案卷 Open cases", "How many cases are not closed yet?", open, "count", "/^case$/", 4)).
		WithPanel(number("失联设备 Silent devices", "How many devices are not heard any more?", query{QueryType: "states"}, "sum", "/^silent$/", 4)).
		WithPanel(number("10 分钟最多告警 Worst 10 minutes", "How many alarms did an operator get in the worst 10 minutes?", query{QueryType: "load"}, "lastNotNull", "/^worst 10 min$/", 4,
			step(nil, "text"), step(cog.ToPtr(10.0), "orange"))).
		WithPanel(number("超目标时间 Time over the goal", "In how much of this time did alarms come faster than an operator can follow?", query{QueryType: "load"}, "lastNotNull", "/^time over the goal$/", 4,
			step(nil, "text"), step(cog.ToPtr(0.01), "orange"))).
		WithPanel(number("长期未消 Stale alarms", "How many alarms are active for more than a day?", query{QueryType: "load"}, "lastNotNull", "/^stale$/", 4)).
		WithPanel(rows("按级别 By severity", "How bad are the alarms that need a person, and how old is the oldest of each?", alarms, 6, 8).WithTransformation(groupBy("severity", "id", "raised"))).
		WithPanel(rows("按时限灯 By light", "How many open cases are in time, near their limit, and late?", open, 6, 8).WithTransformation(groupBy("light", "case", "deadline"))).
		WithPanel(countyMap()).
		WithPanel(rows("告警 Alarms", "Which alarms are active or were raised in this time, and is somebody on them?", query{QueryType: "alarms"}, 24, 9)).
		WithPanel(rows("案卷 Cases", "Which cases are open, at which stage, and how much of their time is left?", open, 24, 8)).
		WithPanel(curves("告警负荷 Alarm load", "How many alarms came in every 10 minutes?", 24, 6, query{QueryType: "load"}))
}

// countyMap shows the devices where they are, those with an alarm in the colour
// of its severity.
func countyMap() *geomap.PanelBuilder {
	return geomap.NewPanelBuilder().
		Title("地图 Map").Description("Where are the devices, and which of them have an alarm?").
		Height(8).Span(12).
		Datasource(source()).WithTarget(query{QueryType: "latest"}).
		View(geomap.NewMapViewConfigBuilder().Id("fit").AllLayers(true).Padding(5).Zoom(14)).
		Layers([]cog.Builder[common.MapLayerOptions]{common.NewMapLayerOptionsBuilder().
			Type("markers").
			Name("devices").
			Tooltip(true).
			Config(map[string]any{"showLegend": true, "style": map[string]any{
				"size":    map[string]any{"fixed": 4, "min": 2, "max": 15},
				"color":   map[string]any{"field": "alarm", "fixed": "text"},
				"opacity": 0.7,
			}}).
			Location(common.NewFrameGeometrySourceBuilder().Mode(common.FrameGeometrySourceModeCoords).Latitude("latitude").Longitude("longitude"))}).
		OverrideByName("alarm", []dashboard.DynamicConfigValue{
			{Id: "mappings", Value: []any{map[string]any{"type": "value", "options": map[string]any{
				"": map[string]any{"color": "text", "text": "—"}, "critical": map[string]any{"color": "red"}, "major": map[string]any{"color": "orange"},
				"minor": map[string]any{"color": "yellow"}, "warning": map[string]any{"color": "blue"},
			}}}},
		})
}
