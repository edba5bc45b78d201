package boards

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// platform is what an administrator looks at: whether messages are taken, how
// long that takes, and who is behind. It asks a Prometheus that scrapes /metrics.
func platform() *dashboard.DashboardBuilder {
	return board("platform", "平台 Platform", "How citywarden itself is doing.", "3h").
		WithVariable(dashboard.NewDatasourceVariableBuilder("prometheus").
			Label("Prometheus").
			Type("prometheus")).
		WithPanel(graph("设备消息 Messages", "How many messages of devices are taken, and how many are not?", "reqps",
			promQuery(`sum by (protocol, result) (rate(citywarden_uplinks_total[$__rate_interval]))`, "{{protocol}} {{result}}"))).
		WithPanel(graph("确认时延 Acknowledgement", "How long does a device wait until its message is durable?", "s",
			promQuery(`histogram_quantile(0.5, sum by (le) (rate(citywarden_ack_seconds_bucket[$__rate_interval])))`, "p50"),
			promQuery(`histogram_quantile(0.99, sum by (le) (rate(citywarden_ack_seconds_bucket[$__rate_interval])))`, "p99"))).
		WithPanel(graph("MQTT 确认时延 Acknowledgement over MQTT", "How long does it take from reading a device's message from its socket to writing the PUBACK there, the network not counted?", "s",
			promQuery(`histogram_quantile(0.5, sum by (le) (rate(citywarden_mqtt_ack_seconds_bucket[$__rate_interval])))`, "p50"),
			promQuery(`histogram_quantile(0.99, sum by (le) (rate(citywarden_mqtt_ack_seconds_bucket[$__rate_interval])))`, "p99"))).
		WithPanel(graph("落后的提交组 Behind the log", "Who is behind the log, and by how many commit groups?", "short",
			promQuery(`citywarden_consumer_lag`, "{{consumer}}"))).
		WithPanel(graph("未落盘消息 Waiting for the log", "How many messages are taken and not durable yet?", "short",
			promQuery(`citywarden_log_depth`, "messages"))).
		WithPanel(graph("时序写入 Points written", "How many points go into the time series, and how many does it refuse?", "wps",
			promQuery(`sum by (result) (rate(citywarden_series_points_total[$__rate_interval]))`, "{{result}}"))).
		WithPanel(graph("死信 Dead letters", "How many messages could not be used?", "cpm",
			promQuery(`60 * rate(citywarden_dead_letters_total[$__rate_interval])`, "letters"))).
		WithPanel(graph("磁盘余量 Free space", "When will the disk be full, and nothing be acknowledged any more?", "bytes",
			promQuery(`citywarden_disk_free_bytes`, "free"),
			promQuery(`citywarden_disk_reserve_bytes`, "reserve"))).
		WithPanel(graph("MQTT 连接 MQTT connections", "How many devices are connected over MQTT, and how often is one refused?", "short",
			promQuery(`citywarden_mqtt_connections`, "connected"),
			promQuery(`sum by (what) (increase(citywarden_mqtt_refused_total[$__rate_interval]))`, "refused: {{what}}"))).
		WithPanel(graph("CoAP 请求 CoAP requests", "How are CoAP requests answered?", "reqps",
			promQuery(`sum by (code) (rate(citywarden_coap_requests_total[$__rate_interval]))`, "{{code}}"))).
		WithPanel(graph("告警 Alarms", "How many alarms are there, and how many wait for a person?", "short",
			promQuery(`sum(citywarden_alarms_active)`, "active"),
			promQuery(`citywarden_alarms_unacked`, "unacknowledged"))).
		WithPanel(graph("内存 Memory", "How much memory does the platform take, and does what is in use after a garbage collection grow for days, as a leak would?", "bytes",
			promQuery(`process_resident_memory_bytes and on (job, instance) citywarden_log_depth`, "resident"),
			promQuery(`go_gc_heap_live_bytes and on (job, instance) citywarden_log_depth`, "in use")))
}

// prom is the Prometheus that is chosen.
func prom() common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${prometheus}")}
}

func promQuery(expr, legend string) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().Datasource(prom()).Expr(expr).LegendFormat(legend).Range()
}

// graph draws queries, named A, B, … in their order.
func graph(title, question, unit string, queries ...*prometheus.DataqueryBuilder) *timeseries.PanelBuilder {
	p := timeseries.NewPanelBuilder().
		Title(title).Description(question).Height(8).Span(12).
		Datasource(prom()).
		LineWidth(1).
		SpanNulls(common.BoolOrFloat64{Bool: cog.ToPtr(false)}).
		Min(0).
		Unit(unit)
	for i, q := range queries {
		p.WithTarget(q.RefId(string(rune('A' + i))))
	}
	return p
}
