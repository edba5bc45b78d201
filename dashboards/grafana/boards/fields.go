package boards

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// fire is fire protection: what burns, what would not be noticed, and whether
// there is water.
func fire() *dashboard.DashboardBuilder {
	const domain = "fire"
	return board("fire", "消防 Fire protection", "What burns, what would not be noticed, and whether there is water.", "6h").
		WithVariable(choice("site", "单位 Site", "site domain=fire")).
		WithVariable(choice("zone", "防火分区 Fire zone", "zone domain=fire")).
		WithVariable(filters()).
		Annotation(marks(domain)).
		WithPanel(number("火灾类告警 Open alarms", "Does anything burn, or is fire protection impaired?", query{QueryType: "alarms", State: "open", Domain: domain}, "count", "/^id$/", 6)).
		WithPanel(number("失联 Silent devices", "How many devices would not report a fire now?", query{QueryType: "states", Domain: domain, Site: "$site", Zone: "$zone"}, "sum", "/^silent$/", 6)).
		WithPanel(number("最高烟浓度 Most smoke", "How much smoke does any detector measure?", query{QueryType: "latest", Domain: domain, Model: "smoke-detector", Site: "$site", Zone: "$zone"}, "max", "/^smoke$/", 6,
			step(nil, "text"), step(cog.ToPtr(0.1), "orange"))).
		WithPanel(number("最低电量 Lowest battery", "Which is the lowest battery of a detector?", query{QueryType: "latest", Domain: domain, Site: "$site", Zone: "$zone"}, "min", "/^battery$/", 6,
			step(nil, "orange"), step(cog.ToPtr(15.0), "text"))).
		WithPanel(rows("告警 Alarms", "Which fire alarms and faults are there, or were in this time?", query{QueryType: "alarms", Domain: domain}, 24, 8)).
		WithPanel(curves("各分区烟浓度 Smoke by zone", "Where does smoke rise, and how fast?", 24, 8, query{QueryType: "series", Domain: domain, Model: "smoke-detector", Site: "$site", Zone: "$zone", Metric: "smoke", Agg: "max", By: "zone", Across: "max"})).
		WithPanel(rows("设备状态 States", "Which kinds of devices are in contact?", query{QueryType: "states", Domain: domain, Site: "$site", Zone: "$zone"}, 8, 9)).
		WithPanel(rows("设备 Devices", "What did each device measure last, and which values are not current any more?", query{QueryType: "latest", Domain: domain, Site: "$site", Zone: "$zone"}, 16, 9).WithTransformation(only(
			"device", "name", "zone", "status", "last seen", "alarm", "smoke", "temperature", "battery", "pressure", "mains")))
}

// water is the water network: pressure, what is lost at night, and bursts.
func water() *dashboard.DashboardBuilder {
	const domain = "pipe"
	const loggers = "pressure-logger"
	return board("water", "管网 Water network", "Pressure along the network, what flows at night, and bursts.", "24h").
		WithVariable(choice("device", "监测点 Logger", "device model=pressure-logger")).
		WithVariable(filters()).
		Annotation(marks(domain)).
		WithPanel(number("管网告警 Open alarms", "Is a pipe burst, or pressure where it may not be?", query{QueryType: "alarms", State: "open", Domain: domain}, "count", "/^id$/", 8)).
		WithPanel(number("最低压力 Lowest pressure", "Is there enough pressure for fire fighting everywhere?", query{QueryType: "latest", Model: loggers, Device: "$device"}, "min", "/^pressure$/", 8,
			step(nil, "red"), step(cog.ToPtr(1.0), "orange"), step(cog.ToPtr(1.4), "text"))).
		WithPanel(number("失联 Silent loggers", "How many places of the network are unknown now?", query{QueryType: "states", Domain: domain}, "sum", "/^silent$/", 8)).
		WithPanel(profile("压力分布 Pressure profile", "How does the pressure fall along the network now?", query{QueryType: "latest", Model: loggers, Device: "$device"}, "name", "pressure", 24, 9)).
		WithPanel(curves("压力 Pressure", "How did the pressure run, and where is it unknown?", 24, 9, query{QueryType: "series", Model: loggers, Device: "$device", Metric: "pressure", Agg: "mean"})).
		WithPanel(curves("进水流量 Inflow", "How much water flows in, beside what is usual at that time?", 12, 8,
			query{QueryType: "series", Domain: domain, Metric: "flow", Agg: "mean", By: "all", Across: "sum"},
			query{QueryType: "series", Domain: domain, Metric: "flow", Agg: "mean", By: "all", Across: "sum", Baseline: 2}).Min(0)).
		WithPanel(curves("夜间最小流量 Night minimum flow", "How much flows at the quietest time of each night, so: how much leaks?", 12, 8,
			query{QueryType: "series", Domain: domain, Metric: "flow", Agg: "min", Hours: "02:00-04:00"}).Min(0).TimeFrom("14d")).
		WithPanel(rows("爆管与告警 Bursts and alarms", "Which bursts, leaks and floods were there in this time?", query{QueryType: "alarms", Domain: domain}, 24, 8))
}

// parking is how the bays are used, and where a fire lane is blocked.
func parking() *dashboard.DashboardBuilder {
	const domain = "parking"
	bays := query{QueryType: "series", Domain: domain, Model: "parking-bay", Zone: "$zone", Metric: "occupied", Agg: "mean", By: "zone", Across: "mean"}
	week := query{QueryType: "week", Domain: domain, Model: "parking-bay", Zone: "$zone", Metric: "occupied", Agg: "mean"}
	return board("parking", "停车 Parking", "How the bays are used, and where a fire lane is blocked.", "24h").
		WithVariable(choice("zone", "停车区 Parking zone", "zone model=parking-bay")).
		WithVariable(filters()).
		Annotation(marks(domain)).
		WithPanel(gauges("当前占用 Occupied now", "How full is each zone?", query{QueryType: "parking", Zone: "$zone"}, "lastNotNull", 12, 7, step(nil, "text"), step(cog.ToPtr(0.9), "orange")).
			WithTransformation(dashboard.DataTransformerConfig{Id: "rowsToFields", Options: map[string]any{"mappings": []any{
				map[string]any{"fieldName": "zone", "handlerKey": "field.name"}, map[string]any{"fieldName": "occupancy", "handlerKey": "field.value"},
			}}}).Max(1).Unit("percentunit")).
		WithPanel(rows("周转 Turnover", "How often does a bay change hands in a day, and how long does a car stay?", query{QueryType: "parking", Zone: "$zone"}, 12, 7)).
		WithPanel(curves("占用率 Occupancy", "How full was each zone?", 24, 8, bays).Min(0).Max(1)).
		WithPanel(rows("一周占用 Occupancy over the week", "When is it usually full, by hour and weekday?", week, 24, 8).OverrideByRegexp("^\\d\\d$", shades()).TimeFrom("28d")).
		WithPanel(rows("超时与占道 Overstays and blocked lanes", "Which cars stay too long, and which fire lanes are blocked?", query{QueryType: "alarms", Domain: domain}, 24, 8))
}

// buildings is the energy that buildings take, beside what they usually take.
func buildings() *dashboard.DashboardBuilder {
	const domain = "building"
	power := query{QueryType: "series", Model: "energy-meter", Site: "$site", Metric: "power", Agg: "mean"}
	load, usual, night, peak := power, power, power, power
	load.By, load.Across = "site", "sum"
	usual.By, usual.Across, usual.Baseline = "site", "sum", 2
	night.Hours, night.Agg = "01:00-05:00", "min"
	peak.Hours, peak.Agg = "00:00-24:00", "max"
	return board("buildings", "建筑 Buildings", "The energy that buildings take, beside what they usually take.", "24h").
		WithVariable(choice("site", "单位 Site", "site model=energy-meter")).
		WithVariable(filters()).
		Annotation(marks(domain)).
		WithPanel(number("建筑告警 Open alarms", "Does a building need a person?", query{QueryType: "alarms", State: "open", Domain: domain}, "count", "/^id$/", 8)).
		WithPanel(number("当前总功率 Power now", "How much power do the meters measure together?", query{QueryType: "latest", Model: "energy-meter", Site: "$site"}, "sum", "/^power$/", 8, step(nil, "text"))).
		WithPanel(number("停电 Mains lost", "At how many meters is the mains there?", query{QueryType: "latest", Model: "energy-meter", Site: "$site"}, "sum", "/^mains$/", 8, step(nil, "text")).Unit("short")).
		WithPanel(curves("负荷与基线 Load and baseline", "Is the load what it usually is at this time of the week?", 24, 9, load, usual)).
		WithPanel(curves("夜间基荷 Night base load", "How much do the meters take while nobody is there?", 12, 8, night).Min(0).TimeFrom("14d")).
		WithPanel(curves("日最大需量 Daily peaks", "How high was the highest quarter of an hour of each day?", 12, 8, peak).Min(0).TimeFrom("14d")).
		WithPanel(rows("告警 Alarms", "Which alarms of buildings were there in this time?", query{QueryType: "alarms", Domain: domain}, 24, 8))
}

// evaluation is what the work on cases was worth.
func evaluation() *dashboard.DashboardBuilder {
	return board("cases", "考核 Case evaluation", "What the work on cases was worth (GB/T 30428.4).", "30d").
		WithVariable(choice("department", "部门 Department", "department")).
		Annotation(dashboard.NewAnnotationQueryBuilder().Name("案卷 Cases").Datasource(source()).Enable(false).IconColor("blue").
			Target(query{RefID: "Anno", QueryType: "annotations", Of: "cases"})).
		WithPanel(number("本期案卷 Cases", "How many cases were there?", query{QueryType: "cases", All: true, Department: "$department"}, "count", "/^case$/", 12, step(nil, "text"))).
		WithPanel(number("超时未结 Late cases", "How many open cases are over their limit?", query{QueryType: "cases", Department: "$department"}, "count", "/^case$/", 12).
			WithTransformation(where("light", "red"))).
		WithPanel(rows("部门 Departments", "Which departments handle their cases in time, and which again?", query{QueryType: "evaluation", Of: "department", Department: "$department"}, 24, 9)).
		WithPanel(rows("区域 Areas", "Where do cases come from, and where are they closed in time?", query{QueryType: "evaluation", Of: "area"}, 24, 9)).
		WithPanel(rows("岗位 Posts", "How well does each post of the workflow work?", query{QueryType: "evaluation", Of: "post"}, 24, 9))
}

// devices is the hardware itself: what is silent, empty, or tells nonsense.
func devices() *dashboard.DashboardBuilder {
	return board("devices", "设备 Devices", "The hardware itself: what is silent, empty, or tells nonsense.", "24h").
		WithVariable(choice("domain", "领域 Domain", "domain")).
		WithVariable(choice("model", "型号 Model", "model")).
		WithVariable(filters()).
		WithPanel(number("失联 Silent", "How many devices are not heard any more?", query{QueryType: "states", Domain: "$domain", Model: "$model"}, "sum", "/^silent$/", 6)).
		WithPanel(number("从未上报 Never heard", "How many devices never reported?", query{QueryType: "states", Domain: "$domain", Model: "$model"}, "sum", "/^never$/", 6)).
		WithPanel(number("最低电量 Lowest battery", "Which is the lowest battery?", query{QueryType: "latest", Domain: "$domain", Model: "$model"}, "min", "/^battery$/", 6,
			step(nil, "orange"), step(cog.ToPtr(20.0), "text"))).
		WithPanel(number("缺失消息 Missing messages", "How many messages never came, by the devices' own numbers?", query{QueryType: "ledger", Domain: "$domain", Model: "$model"}, "sum", "/^missing$/", 6)).
		WithPanel(rows("状态 States", "Which kinds of devices are in contact?", query{QueryType: "states", Domain: "$domain", Model: "$model"}, 12, 9)).
		WithPanel(curves("台账 Ledger", "What became of the readings, and how much is quarantined for its clock or out of range?", 12, 9, query{QueryType: "ledger", Domain: "$domain", Model: "$model"}).
			OverrideByName("silent", hidden())).
		WithPanel(rows("空档 Gaps", "Which devices were silent for longest, or lost, repeated or misdated their messages?", query{QueryType: "ledger", Of: "device", Domain: "$domain", Model: "$model"}, 12, 10).WithTransformation(sortBy("silent", true))).
		WithPanel(rows("电量 Batteries", "Which batteries must be changed next?", query{QueryType: "latest", Domain: "$domain", Model: "$model"}, 12, 10).
			WithTransformation(only("device", "name", "status", "last seen", "battery")).WithTransformation(sortBy("battery", false)))
}
