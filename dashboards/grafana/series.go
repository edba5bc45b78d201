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

// Limits of a series query.
const (
	maxAsked = 500 // devices that are asked one by one: for raw points, last, and states like occupied
	maxLines = 200 // lines of a panel
	maxWeeks = 8   // of a baseline
)

// line is a series that is drawn.
type line struct {
	name   string // a device's id, or the value of the tag
	device string // the name of the device; "" of a group
	times  []time.Time
	values []*float64
}

// window is the time of a query, with the interval of its aggregate.
type window struct {
	from, to time.Time
	every    time.Duration
}

// series returns a frame per line. With an aggregate, intervals without a
// reading are null: unknown is not normal, and is drawn as a gap.
func (d *Datasource) series(ctx context.Context, q backend.DataQuery, m *Query) (data.Frames, error) {
	if m.Metric == "" {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "choose a metric")
	}
	if m.Baseline < 0 || m.Baseline > maxWeeks {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "baseline of %d weeks: it is 1 to %d", m.Baseline, maxWeeks)
	}
	ms, err := d.models(ctx)
	if err != nil {
		return nil, err
	}
	metric, devices, err := d.measured(ctx, ms, m)
	if err != nil {
		return nil, err
	}
	w := window{q.TimeRange.From, q.TimeRange.To, max(q.Interval.Round(time.Second), time.Second)}
	if m.Every != "" {
		every, err := citywarden.ParseDuration(m.Every)
		if err != nil {
			return nil, fmt.Errorf("every: %w", err)
		}
		w.every = every.Std()
	}
	lines, err := d.lines(ctx, ms, m, metric, devices, w)
	if err != nil {
		return nil, err
	}
	if len(lines) > maxLines {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "%d lines: a panel draws at most %d; choose fewer devices, or one line per site or zone", len(lines), maxLines)
	}
	label := m.By
	if label == "" {
		label = "device"
	}
	frames := make(data.Frames, len(lines))
	for i, l := range lines {
		display := cmp.Or(l.device, l.name, metric.Title.In(m.Lang))
		if m.Baseline > 0 {
			display = fmt.Sprintf(citywarden.Text{ZH: "%s 近 %d 周同期均值", EN: "%s, mean of %d weeks before"}.In(m.Lang), display, m.Baseline)
		}
		labels := data.Labels{label: l.name}
		if label == "all" {
			labels = nil
		}
		cfg := &data.FieldConfig{Unit: unitOf(metric), DisplayNameFromDS: display}
		if l.device != "" {
			cfg.Links = d.links("device", "/devices/"+url.PathEscape(l.name))
		}
		f := data.NewFrame(cmp.Or(l.name, m.Metric), data.NewField("time", nil, l.times), data.NewField(m.Metric, labels, l.values).SetConfig(cfg))
		f.Meta = &data.FrameMeta{Type: data.FrameTypeTimeSeriesMulti, TypeVersion: data.FrameTypeVersion{0, 1}}
		frames[i] = f
	}
	return frames, nil
}

// measured returns what m's metric is, and those of the chosen devices whose
// model has it.
func (d *Datasource) measured(ctx context.Context, ms models, m *Query) (*citywarden.Metric, []citywarden.DeviceView, error) {
	var metric *citywarden.Metric
	known := map[citywarden.MetricName]bool{}
	for _, name := range slices.Sorted(maps.Keys(ms)) {
		for i := range ms[name].Metrics {
			known[ms[name].Metrics[i].Name] = true
		}
	}
	if !known[citywarden.MetricName(m.Metric)] {
		return nil, nil, citywarden.Errorf(citywarden.CodeInvalid, "no device model has the metric %q; choose one from the list", m.Metric)
	}
	devices, err := d.devices(ctx, ms, m)
	if err != nil {
		return nil, nil, err
	}
	units := map[string]bool{}
	kept := devices[:0]
	for _, x := range devices {
		mo := ms[x.Model]
		if mo == nil {
			continue
		}
		if has, ok := mo.Metric(citywarden.MetricName(m.Metric)); ok {
			kept, metric, units[has.Unit] = append(kept, x), has, true
		}
	}
	if len(units) > 1 {
		return nil, nil, citywarden.Errorf(citywarden.CodeInvalid, "the chosen devices measure %s in %s; choose a model or a domain", m.Metric, strings.Join(slices.Sorted(maps.Keys(units)), " and "))
	}
	if metric == nil {
		return nil, nil, citywarden.Errorf(citywarden.CodeNotFound, "none of the %d chosen devices has the metric %s", len(devices), m.Metric)
	}
	return metric, kept, nil
}

// lines returns what m asks for in w, moved back and averaged when m has a baseline.
func (d *Datasource) lines(ctx context.Context, ms models, m *Query, metric *citywarden.Metric, devices []citywarden.DeviceView, w window) ([]line, error) {
	if m.Baseline == 0 {
		return d.once(ctx, ms, m, metric, devices, w)
	}
	if m.Agg == "" {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "a baseline needs an aggregate, like mean")
	}
	sums, order := map[string]map[int64][]float64{}, []line(nil)
	for k := 1; k <= m.Baseline; k++ {
		back := time.Duration(k) * 7 * 24 * time.Hour
		ls, err := d.once(ctx, ms, m, metric, devices, window{w.from.Add(-back), w.to.Add(-back), w.every})
		if err != nil {
			return nil, err
		}
		for _, l := range ls {
			if sums[l.name] == nil {
				sums[l.name], order = map[int64][]float64{}, append(order, line{name: l.name, device: l.device})
			}
			for i, t := range l.times {
				if l.values[i] != nil {
					at := t.Add(back).UnixMilli()
					sums[l.name][at] = append(sums[l.name][at], *l.values[i])
				}
			}
		}
	}
	for i := range order {
		order[i].fill(sums[order[i].name], "mean")
		order[i].withGaps(w.every)
	}
	return order, nil
}

// once returns the lines of m in w.
func (d *Datasource) once(ctx context.Context, ms models, m *Query, metric *citywarden.Metric, devices []citywarden.DeviceView, w window) ([]line, error) {
	by := cmp.Or(m.By, "device")
	if by != "all" && !slices.Contains(citywarden.GroupTags[:], by) {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "a line per %q: it is %s or all", by, strings.Join(citywarden.GroupTags[:], ", "))
	}
	every := w.every
	if m.Hours != "" {
		if m.Agg == "" {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "hours of the day need an aggregate, like min")
		}
		if m.Every == "" {
			every = 15 * time.Minute // a day's lowest quarter of an hour, not its lowest reading
		}
	}
	asked := *m
	if m.Hours != "" && (m.Agg == "min" || m.Agg == "max") {
		asked.Agg = "mean"
	}
	ls, err := d.each(ctx, ms, &asked, metric, devices, window{w.from, w.to, every})
	if err != nil {
		return nil, err
	}
	if by != "device" {
		if m.Agg == "" {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "devices are put together by intervals: choose an aggregate, like mean")
		}
		if ls, err = across(ls, devices, func(x *citywarden.DeviceView) string { return ms.tag(x, by) }, m.Across); err != nil {
			return nil, err
		}
	}
	if m.Hours == "" {
		if m.Agg != "" {
			for i := range ls {
				ls[i].withGaps(w.every)
			}
		}
		return ls, nil
	}
	h, err := parseHours(m.Hours)
	if err != nil {
		return nil, err
	}
	zone, err := d.zone(ctx)
	if err != nil {
		return nil, err
	}
	for i := range ls {
		days := map[int64][]float64{}
		for k, t := range ls[i].times {
			if day, ok := h.day(t.In(zone)); ok && ls[i].values[k] != nil {
				days[day.UnixMilli()] = append(days[day.UnixMilli()], *ls[i].values[k])
			}
		}
		ls[i].fill(days, m.Agg)
		ls[i].withGaps(24 * time.Hour)
	}
	return ls, nil
}

// each returns a line for each device, by id.
func (d *Datasource) each(ctx context.Context, ms models, m *Query, metric *citywarden.Metric, devices []citywarden.DeviceView, w window) ([]line, error) {
	span := url.Values{"metric": {m.Metric}, "from": {w.from.Format(time.RFC3339Nano)}, "to": {w.to.Format(time.RFC3339Nano)}}
	if m.Agg != "" {
		span.Set("agg", m.Agg)
		span.Set("every", w.every.String())
	}
	state := metric.Kind == citywarden.KindBool && slices.Contains([]string{"mean", "min", "max", "last"}, m.Agg)
	if state {
		span.Set("agg", "last")
	}
	got := map[string][][2]any{}
	span.Set("unknown", "true")
	if m.Agg == "" || m.Agg == "last" || metric.Kind == citywarden.KindBool || len(devices) <= 3 {
		if len(devices) > maxAsked {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "%d devices: for raw points, for last, and for states like occupied at most %d are asked; choose fewer, by zone or site", len(devices), maxAsked)
		}
		for _, x := range devices {
			var res struct {
				Points [][2]any `json:"points"`
			}
			if err := d.api.get(ctx, "/api/v1/devices/"+url.PathEscape(string(x.ID))+"/series?"+span.Encode(), &res); err != nil {
				return nil, err
			}
			got[string(x.ID)] = res.Points
		}
		return linesOf(ms, devices, got, w, state)
	}
	for _, domain := range domainsOf(ms, devices) {
		var res struct {
			Groups []struct {
				Name   string   `json:"name"`
				Points [][2]any `json:"points"`
			} `json:"groups"`
		}
		span.Del("unknown") // a device's interval without readings is null already
		span.Set("domain", domain)
		span.Set("by", "device")
		if err := d.api.get(ctx, "/api/v1/series?"+span.Encode(), &res); err != nil {
			return nil, err
		}
		for _, g := range res.Groups {
			got[g.Name] = g.Points
		}
	}
	return linesOf(ms, devices, got, w, state)
}

// linesOf returns the lines of devices from their points; a state is held.
func linesOf(ms models, devices []citywarden.DeviceView, got map[string][][2]any, w window, state bool) ([]line, error) {
	ls := make([]line, len(devices))
	for i, x := range devices {
		ls[i] = line{name: string(x.ID), device: cmp.Or(x.Name, string(x.ID))}
		if err := ls[i].read(got[string(x.ID)]); err != nil {
			return nil, err
		}
		if state {
			ls[i].hold(w, 2*ms[x.Model].Heartbeat.Std())
		}
	}
	return ls, nil
}

func domainsOf(ms models, devices []citywarden.DeviceView) []string {
	found := map[string]bool{}
	for i := range devices {
		found[string(ms[devices[i].Model].Domain)] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// across puts the devices' lines together, one line for each tag.
func across(ls []line, devices []citywarden.DeviceView, tag func(*citywarden.DeviceView) string, how string) ([]line, error) {
	how = cmp.Or(how, "mean")
	if !slices.Contains([]string{"mean", "min", "max", "sum"}, how) {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "devices put together by %q: it is mean, min, max or sum", how)
	}
	groups := map[string]map[int64][]float64{}
	for i, l := range ls {
		name := tag(&devices[i])
		if groups[name] == nil {
			groups[name] = map[int64][]float64{}
		}
		for k, t := range l.times {
			if l.values[k] != nil {
				groups[name][t.UnixMilli()] = append(groups[name][t.UnixMilli()], *l.values[k])
			}
		}
	}
	out := make([]line, 0, len(groups))
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		l := line{name: name}
		l.fill(groups[name], how)
		out = append(out, l)
	}
	return out, nil
}

// read sets l's points to those of an answer. true is 1, false 0, and text nothing.
func (l *line) read(ps [][2]any) error {
	for _, p := range ps {
		s, _ := p[0].(string)
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return fmt.Errorf("the platform answered a time that is none: %v", p[0])
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
		l.times, l.values = append(l.times, t), append(l.values, v)
	}
	return nil
}

// fill sets l's points to the values at each time (Unix ms), put together.
func (l *line) fill(at map[int64][]float64, how string) {
	times := slices.Sorted(maps.Keys(at))
	l.times, l.values = make([]time.Time, len(times)), make([]*float64, len(times))
	for i, t := range times {
		v := together(at[t], how)
		l.times[i], l.values[i] = time.UnixMilli(t).UTC(), &v
	}
}

// together puts values, at least one, together.
func together(vs []float64, how string) float64 {
	switch how {
	case "min":
		return slices.Min(vs)
	case "max":
		return slices.Max(vs)
	case "count":
		return float64(len(vs))
	case "last":
		return vs[len(vs)-1]
	}
	sum := 0.0
	for _, v := range vs {
		sum += v
	}
	if how == "mean" {
		return sum / float64(len(vs))
	}
	return sum
}

// withGaps puts a null into every run of missing intervals.
func (l *line) withGaps(every time.Duration) {
	var ts []time.Time
	var vs []*float64
	for i, t := range l.times {
		if i > 0 && t.Sub(l.times[i-1]) > every+every/2 {
			ts, vs = append(ts, l.times[i-1].Add(every)), append(vs, nil)
		}
		ts, vs = append(ts, t), append(vs, l.values[i])
	}
	l.times, l.values = ts, vs
}

// hold lets a state stand until the device reports again, for at most so long:
// a bay is taken between two reports, not only in the minutes of the reports.
func (l *line) hold(w window, longest time.Duration) {
	var ts []time.Time
	var vs []*float64
	for i, t := range l.times {
		ts, vs = append(ts, t), append(vs, l.values[i])
		if l.values[i] == nil {
			continue
		}
		end := w.to
		if i+1 < len(l.times) {
			end = l.times[i+1]
		}
		for next := t.Add(w.every); next.Before(end) && next.Sub(t) <= longest; next = next.Add(w.every) {
			ts, vs = append(ts, next), append(vs, l.values[i])
		}
	}
	l.times, l.values = ts, vs
}

// week returns a row for each day of the week and a column for each hour: what
// is usual then.
func (d *Datasource) week(ctx context.Context, q backend.DataQuery, m *Query) (data.Frames, error) {
	asked := *m
	asked.By, asked.Baseline, asked.Hours, asked.Agg = "all", 0, "", cmp.Or(m.Agg, "mean")
	ms, err := d.models(ctx)
	if err != nil {
		return nil, err
	}
	metric, devices, err := d.measured(ctx, ms, &asked)
	if err != nil {
		return nil, err
	}
	ls, err := d.once(ctx, ms, &asked, metric, devices, window{q.TimeRange.From, q.TimeRange.To, time.Hour})
	if err != nil {
		return nil, err
	}
	zone, err := d.zone(ctx)
	if err != nil {
		return nil, err
	}
	var cells [7][24][]float64 // from Monday
	for _, l := range ls {
		for i, t := range l.times {
			if l.values[i] != nil {
				t = t.In(zone)
				cell := &cells[(int(t.Weekday())+6)%7][t.Hour()]
				*cell = append(*cell, *l.values[i])
			}
		}
	}
	names := [...]citywarden.Text{{ZH: "周一", EN: "Mon"}, {ZH: "周二", EN: "Tue"}, {ZH: "周三", EN: "Wed"}, {ZH: "周四", EN: "Thu"}, {ZH: "周五", EN: "Fri"}, {ZH: "周六", EN: "Sat"}, {ZH: "周日", EN: "Sun"}}
	days := make([]string, 7)
	for i, n := range names {
		days[i] = n.In(m.Lang)
	}
	f := data.NewFrame("week", data.NewField("day", nil, days))
	for h := range 24 {
		column := make([]*float64, 7)
		for i := range column {
			if vs := cells[i][h]; len(vs) > 0 {
				v := together(vs, "mean")
				column[i] = &v
			}
		}
		f.Fields = append(f.Fields, data.NewField(fmt.Sprintf("%02d", h), nil, column).SetConfig(&data.FieldConfig{Unit: unitOf(metric)}))
	}
	return table(f), nil
}

// parking returns a row for each zone or site: its bays, how many are taken now,
// and how often and long they were taken in the time range.
func (d *Datasource) parking(ctx context.Context, q backend.DataQuery, m *Query) (data.Frames, error) {
	asked := *m
	asked.Metric, asked.Domain, asked.Agg = "occupied", "parking", ""
	by := cmp.Or(m.By, "zone")
	ms, err := d.models(ctx)
	if err != nil {
		return nil, err
	}
	metric, devices, err := d.measured(ctx, ms, &asked)
	if err != nil {
		return nil, err
	}
	devices = slices.DeleteFunc(devices, func(x citywarden.DeviceView) bool { return x.Attributes["kind"] == "fire_lane" })
	ls, err := d.each(ctx, ms, &asked, metric, devices, window{from: q.TimeRange.From, to: q.TimeRange.To})
	if err != nil {
		return nil, err
	}
	type lot struct {
		bays, taken, unknown, arrivals int64
		stays                          []float64 // s
	}
	lots := map[string]*lot{}
	for i := range devices {
		x := &devices[i]
		name := ms.tag(x, by)
		if lots[name] == nil {
			lots[name] = &lot{}
		}
		o := lots[name]
		o.bays++
		switch now, ok := x.Latest["occupied"]; {
		case !ok || x.Status != citywarden.StatusOnline:
			o.unknown++
		case now.Value.IsTrue():
			o.taken++
		}
		var since time.Time
		for k, v := range ls[i].values {
			switch t := ls[i].times[k]; {
			case v == nil:
			case *v == 1 && k > 0 && ls[i].values[k-1] != nil && *ls[i].values[k-1] == 0:
				o.arrivals++
				since = t
			case *v == 0 && !since.IsZero():
				o.stays = append(o.stays, t.Sub(since).Seconds())
				since = time.Time{}
			}
		}
	}
	names := slices.Sorted(maps.Keys(lots))
	n := len(names)
	bays, taken, unknown, arrivals := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	share, turnover, stay := make([]*float64, n), make([]float64, n), make([]*float64, n)
	days := q.TimeRange.To.Sub(q.TimeRange.From).Hours() / 24
	for i, name := range names {
		o := lots[name]
		bays[i], taken[i], unknown[i], arrivals[i] = o.bays, o.taken, o.unknown, o.arrivals
		turnover[i] = float64(o.arrivals) / float64(o.bays) / days
		if known := o.bays - o.unknown; known > 0 {
			v := float64(o.taken) / float64(known)
			share[i] = &v
		}
		if len(o.stays) > 0 {
			slices.Sort(o.stays)
			stay[i] = &o.stays[len(o.stays)/2]
		}
	}
	unit := func(u string) *data.FieldConfig { return &data.FieldConfig{Unit: u} }
	return table(data.NewFrame("parking", data.NewField(by, nil, names), data.NewField("bays", nil, bays), data.NewField("occupied", nil, taken),
		data.NewField("unknown", nil, unknown), data.NewField("occupancy", nil, share).SetConfig(unit("percentunit")),
		data.NewField("arrivals", nil, arrivals), data.NewField("turnover per day", nil, turnover),
		data.NewField("median stay", nil, stay).SetConfig(unit("s")))), nil
}
