package rules

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

const (
	maxLate      = 20        // readings of a kind in one answer
	maxMissing   = 100       // metrics in one answer
	lookAhead    = time.Hour // for readings that came in after the moment
	maxAlarmPage = 20        // pages of alarms to look through for the one of that moment
)

// WhyNot says why a rule had no alarm on a device at a moment, or that it had
// one: it steps the history up to there once more, with the Step that runs live,
// and looks at where the rule stood. CodeNotFound when there is no such rule or device.
func (l *Lab) WhyNot(ctx context.Context, id citywarden.RuleID, device citywarden.DeviceID, at time.Time) (citywarden.WhyNot, error) {
	at = at.UTC().Truncate(time.Millisecond)
	if now := time.Now(); at.After(now) {
		return citywarden.WhyNot{}, citywarden.Errorf(citywarden.CodeInvalid, "%s lies in the future; it is %s now", at.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	leave, err := l.enter()
	if err != nil {
		return citywarden.WhyNot{}, err
	}
	defer leave()
	running, opt := l.runner.running()
	switch r := running.byID[id]; {
	case r == nil:
		return citywarden.WhyNot{}, noRule(running, id)
	case r.of != nil:
		return citywarden.WhyNot{}, citywarden.Errorf(citywarden.CodeInvalid, "the alarms of %s are those of storms of rule %s; ask why that one raised none", id, r.of.ID)
	}
	set, err := compileAgain(running.rules, running.schema)
	if err != nil {
		return citywarden.WhyNot{}, err
	}
	back, err := lookBack(running.rules, []citywarden.RuleID{id}, running.schema, opt)
	if err != nil {
		return citywarden.WhyNot{}, err
	}
	q := &inquiry{at: at, t: ms(at), zone: l.zone, r: set.byID[id], s: stepper{e: New(set, opt), take: func(*citywarden.Transition) {}}}
	opt.Devices.Each(func(d *citywarden.Device, _ *citywarden.Model) {
		if d.ID == device {
			q.reg = d
		}
	})
	if q.reg == nil {
		return citywarden.WhyNot{}, citywarden.Errorf(citywarden.CodeNotFound, "no device %s", device)
	}
	q.d = q.s.e.devices[device]
	q.out = citywarden.WhyNot{Rule: id, Version: q.r.Version, Device: device, At: at, From: at.Add(-min(2*back, maxSpan))} // twice, so that it can be said when the last of what is stale came
	if q.notWatched() {
		return q.out, nil
	}
	for _, x := range l.runner.OutOfService() {
		if x.Device == device || x.Rule == id && (x.Entity == string(device) || q.g != nil && x.Entity == q.g.key) {
			q.out.OutOfService = append(q.out.OutOfService, x)
		}
	}
	if err := q.replay(ctx, l.history); err != nil {
		return citywarden.WhyNot{}, err
	}
	if err := q.judge(ctx, l.record); err != nil {
		return citywarden.WhyNot{}, err
	}
	return q.out, nil
}

// inquiry is a question why not.
type inquiry struct {
	at    time.Time
	t     int64          // at, ms
	zone  *time.Location // that people read times in
	r     *rule
	s     stepper
	reg   *citywarden.Device
	d     *device
	b     *binding
	g     *group
	inst  *instance // of the rule on the device or its group; one at rest when there is none
	late  []reading
	outOf *citywarden.AlarmStep // that took the alarm of the moment out of service
	last  time.Time             // of the last entry by then
	next  time.Time             // when the platform started, if that is what came next
	out   citywarden.WhyNot
}

// reading is one that came too late to be evaluated.
type reading struct {
	ts int64
	citywarden.ExplainInput
}

func (q *inquiry) say(reason citywarden.WhyNotReason, en, zh string) {
	q.out.Reason = reason
	q.out.Summary = citywarden.Text{EN: q.place() + ": " + en + ".", ZH: q.place() + "：" + zh + "。"}
}

// place names what the sentence is about.
func (q *inquiry) place() string {
	if q.g != nil && q.g.key != string(q.reg.ID) {
		return q.g.key + " (" + string(q.reg.ID) + ")"
	}
	return string(q.reg.ID)
}

// notWatched answers for a device that the rule does not select.
func (q *inquiry) notWatched() bool {
	e := q.s.e
	if !slices.Contains(q.r.Models, q.reg.Model) || q.d == nil || q.d.plan == nil {
		names := make([]string, len(q.r.Models))
		for i, m := range q.r.Models {
			names[i] = string(m)
		}
		list := strings.Join(names, ", ")
		q.say(citywarden.WhyNotModel, "the rule watches "+list+", and the device is of model "+string(q.reg.Model),
			"规则只适用于型号 "+list+"，该设备型号为 "+string(q.reg.Model))
		return true
	}
	q.b = q.d.plan.binding(q.r)
	if q.d.barred && q.r.silent {
		q.say(citywarden.WhyNotWhere, "the rule asks for silence, and nothing is to be heard of the device: it or its gateway is disabled",
			"规则判断设备是否失联，而该设备或其网关已被禁用，不会有消息")
		return true
	}
	if q.d.skips(q.b) {
		x := citywarden.Explanation{Rule: q.r.ID, Version: q.r.Version, At: q.at, Condition: strings.TrimSpace(q.r.where.text)}
		result := q.b.where(e.env(q.d, nil, q.r, q.t))
		e.collect(&x, q.b.about, q.d, q.d, nil, func(d *device, g *group) *env { return e.env(d, g, q.r, q.t) })
		q.out.Levels = []citywarden.WhyNotLevel{{Explanation: x, Result: result.String(), State: normal.String()}}
		q.say(citywarden.WhyNotWhere, "the rule leaves it out: select.where is "+result.String()+" for its attributes, "+x.Condition,
			"规则的适用条件 select.where（"+x.Condition+"）对该设备的属性不成立")
		return true
	}
	q.g = q.d.group(q.b)
	return false
}

// concerned returns the devices whose readings can matter.
func (q *inquiry) concerned() map[citywarden.DeviceID]bool {
	out := map[citywarden.DeviceID]bool{}
	for _, d := range q.own() {
		out[d.id] = true
		for _, n := range d.adjacent {
			out[n.id] = true
		}
	}
	for _, r := range family(q.s.e.set.rules, []citywarden.RuleID{q.r.ID}) {
		if r == q.r {
			continue
		}
		for id, d := range q.s.e.devices { // those of a rule that holds this one back
			if b := d.bindingOf(r); b != nil && !d.skips(b) {
				out[id] = true
			}
		}
	}
	return out
}

// bindingOf returns the binding of r to d, nil when r does not select its model.
func (d *device) bindingOf(r *rule) *binding {
	if d.plan == nil {
		return nil
	}
	return d.plan.binding(r)
}

// own returns the device, or the members of its group.
func (q *inquiry) own() []*device {
	if q.g != nil {
		return q.g.members
	}
	return []*device{q.d}
}

// replay steps the history up to the moment.
func (q *inquiry) replay(ctx context.Context, h History) error {
	q.s.step(tickAt(q.out.From))
	logged, err := h.Entries(ctx, citywarden.HistoryQuery{From: q.out.From, To: q.at.Add(time.Millisecond), Devices: q.concerned()}, func(entries []citywarden.Entry) error {
		for i := range entries {
			q.watch(&entries[i])
			q.last = entries[i].At
			if err := q.s.entry(ctx, &entries[i]); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	if logged.After(q.out.From) {
		q.out.Notes = append(q.out.Notes, citywarden.Text{
			EN: "What lies before " + q.stamp(logged) + " comes from the time series: when readings arrived and what people ordered is not known there.",
			ZH: q.stamp(logged) + " 之前的数据取自时序库，读数的到达时刻和人工操作未知。",
		})
	}
	if err := q.after(ctx, h); err != nil || !q.next.IsZero() {
		return err
	}
	if err := q.s.to(ctx, q.at); err != nil {
		return err
	}
	q.s.step(tickAt(q.at))
	return nil
}

// watch notes readings that come too late to be evaluated: older than the
// device's newest by more than late, and not the newest of their metric.
func (q *inquiry) watch(x *citywarden.Entry) {
	if x.Device == nil {
		return
	}
	d := q.s.e.devices[x.Device.ID]
	if d == nil || d.plan == nil || !slices.Contains(q.own(), d) {
		return
	}
	newest := d.newestTS
	for i := range x.Readings {
		newest = max(newest, ms(x.Readings[i].Time)+x.Ahead.Milliseconds())
	}
	for i := range x.Readings {
		r := &x.Readings[i]
		ts := ms(r.Time) + x.Ahead.Milliseconds()
		m := slices.IndexFunc(d.plan.model.Metrics, func(m citywarden.Metric) bool { return m.Name == r.Metric })
		if m < 0 || d.plan.memory[m].keep < 0 || ts >= d.newestTS-q.r.late || d.newest([]int{m}, newest) <= ts {
			continue
		}
		q.late = append(q.late, reading{ts, d.input(x, r)})
		if len(q.late) > maxLate {
			q.late = q.late[1:]
		}
	}
}

func (d *device) input(x *citywarden.Entry, r *citywarden.Reading) citywarden.ExplainInput {
	in := citywarden.ExplainInput{Device: d.id, Metric: r.Metric, Value: r.Value, Time: r.Time, Arrived: x.At}
	if m, ok := d.plan.model.Metric(r.Metric); ok {
		in.Unit = m.Unit
	}
	return in
}

// errEnough ends a reading of the history that has found what it looked for.
var errEnough = errors.New("enough")

// after notes readings that were measured by the moment but came in after it,
// and whether the platform was down.
func (q *inquiry) after(ctx context.Context, h History) error {
	ids := map[citywarden.DeviceID]bool{}
	for _, d := range q.own() {
		ids[d.id] = true
	}
	from, first := q.at.Add(time.Millisecond), true
	_, err := h.Entries(ctx, citywarden.HistoryQuery{From: from, To: time.Now().UTC(), Devices: ids}, func(entries []citywarden.Entry) error {
		for i := range entries {
			x := &entries[i]
			if first && x.Kind == citywarden.RecordStart {
				q.next = x.At
			}
			first = false
			for k := range x.Readings {
				if r := &x.Readings[k]; !r.Time.After(q.at) && q.reads(r.Metric) {
					q.out.After = append(q.out.After, q.s.e.devices[x.Device.ID].input(x, r))
				}
			}
			if len(q.out.After) >= maxLate || x.At.Sub(q.at) > lookAhead {
				return errEnough
			}
		}
		return ctx.Err()
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// reads reports whether the rule reads a metric.
func (q *inquiry) reads(name citywarden.MetricName) bool {
	p := q.d.plan
	i := slices.IndexFunc(p.model.Metrics, func(m citywarden.Metric) bool { return m.Name == name })
	return i >= 0 && q.b.reads&bit(i) != 0
}

// judge looks at where the rule stands and says what it means.
func (q *inquiry) judge(ctx context.Context, rec Record) error {
	e, run := q.s.e, q.s.e.runs[q.r.index]
	q.out.LastSeen = fromMS(max(q.d.arrived, q.d.alive))
	q.inst = q.d.instance(q.b)
	entity := string(q.d.id)
	if q.g != nil {
		q.inst, entity = q.g.inst, q.g.key
	}
	q.out.Entity = entity
	if q.inst == nil {
		q.inst = &instance{run: run, entity: entity, d: q.d, b: q.b, g: q.g, prog: q.b.prog, levels: make([]levelState, len(q.b.prog.levels))}
		if q.g != nil {
			q.inst.d, q.inst.b = nil, nil
		}
	}
	results := q.levels()
	a, err := q.recorded(ctx, rec, q.r.ID, entity)
	if err != nil {
		return err
	}
	if a != nil {
		q.alarmed(a)
		return nil
	}
	if !q.next.IsZero() {
		if q.last.IsZero() {
			q.last = q.out.From
		}
		q.out.Since, q.out.Until = q.last, q.next
		q.say(citywarden.WhyNotDown, "the platform did not run: it logged nothing from "+q.stamp(q.last)+" until it started at "+q.stamp(q.next),
			"平台未在运行：自 "+q.stamp(q.last)+" 起没有任何记录，直到 "+q.stamp(q.next)+" 启动")
		return nil
	}
	if q.inst.open {
		since := fromMS(q.inst.alarm.raised)
		q.out.Since = since
		q.say(citywarden.WhyNotChanged, "with rules, devices and models as they are now there would have been an alarm since "+q.stamp(since)+"; they were changed since then",
			"按当前的规则、设备和型号，自 "+q.stamp(since)+" 起应有告警；此后它们被修改过")
		return nil
	}
	if in, until := run.sched.active(q.t, e.opt.Holiday); !in {
		q.out.Until = fromMS(until)
		q.say(citywarden.WhyNotSchedule, "the rule was not in force; it is from "+q.stamp(q.out.Until)+" on", "规则当时不在生效时段，自 "+q.stamp(q.out.Until)+" 起生效")
		return nil
	}
	return q.quiet(ctx, rec, results)
}

func (q *inquiry) stamp(t time.Time) string { return stamp(t, q.zone) }

// stamp writes a time for a sentence.
func stamp(t time.Time, zone *time.Location) string {
	return t.In(zone).Format("2006-01-02 15:04:05Z07:00")
}

// levels evaluates every level as of the moment, the least severe first.
func (q *inquiry) levels() []tri {
	e := q.s.e
	look := *q.inst // with the device in question as the one to talk about
	if look.rare != nil {
		o := *look.rare
		look.rare = &o
	}
	look.comesFrom(q.d.id)
	order := make([]int, len(q.inst.prog.levels))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return int(q.r.levels[a].severity) - int(q.r.levels[b].severity) })
	results := make([]tri, len(order))
	for k, i := range order {
		cond, l := &q.inst.prog.levels[i], &q.inst.levels[i]
		hold := q.r.levels[i].hold
		x := citywarden.WhyNotLevel{State: l.state.String(), Explanation: citywarden.Explanation{
			Rule: q.r.ID, Version: q.r.Version, At: q.at, Severity: q.r.levels[i].severity,
			Condition: cond.text, Held: citywarden.Duration(time.Duration(hold) * time.Millisecond),
		}}
		results[k] = cond.when(e.env(q.inst.d, q.inst.g, q.r, q.t))
		x.Result = results[k].String()
		if l.state == pending {
			x.Since = fromMS(l.since)
			if !l.stalled && !q.inst.inhibited {
				x.Due = fromMS(max(l.since+hold+e.delay(q.inst), q.inst.due))
			}
		}
		e.evidence(&x.Explanation, &look, q.t, cond)
		x.Leaves, x.Inputs = orEmpty(x.Leaves), orEmpty(x.Inputs)
		switch results[k] {
		case unknown:
			x.Summary = citywarden.Text{EN: "the condition can't be computed", ZH: "条件无法计算"}
		case no:
			if negates(cond.text) { // a comparison that is false may be what would have had to be
				x.Summary = citywarden.Text{EN: "the condition is false: " + oneLine(cond.text), ZH: "不满足告警条件：" + oneLine(cond.text)}
				break
			}
			fallthrough
		default:
			x.Summary.EN, x.Summary.ZH = e.fact(&look, cond, q.t, results[k])
		}
		q.missing(cond)
		q.out.Levels = append(q.out.Levels, x)
	}
	return results
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// negates reports whether a condition turns the result of a comparison round.
func negates(text string) bool {
	return slices.Contains(strings.Fields(strings.ReplaceAll(text, "(", " ")), "not") || strings.Contains(strings.ReplaceAll(text, "!=", ""), "!") || strings.Contains(text, "?")
}

// missing notes the metrics that cond reads and that have no current value.
func (q *inquiry) missing(cond *compiled) {
	note := func(d *device, metrics []int) {
		for _, i := range metrics {
			m, stale := &d.plan.model.Metrics[i], d.plan.stale[i]
			x := citywarden.WhyNotMetric{Device: d.id, Metric: m.Name, Stale: citywarden.Duration(time.Duration(stale) * time.Millisecond)}
			if ts := d.newest([]int{i}, q.t); ts > math.MinInt64 {
				if stale == 0 || q.t-ts <= stale {
					continue
				}
				x.Last = fromMS(ts)
			}
			if len(q.out.Missing) < maxMissing && !slices.Contains(q.out.Missing, x) {
				q.out.Missing = append(q.out.Missing, x)
			}
		}
	}
	if q.inst.d != nil {
		note(q.inst.d, cond.uses.metrics)
	}
	for _, m := range cond.members {
		list := q.d.adjacent
		if q.g != nil {
			list = q.g.members
		}
		for _, d := range list {
			if d.plan != nil && !d.gone && m.conds[d.plan.index] != nil {
				note(d, m.conds[d.plan.index].uses.metrics)
			}
		}
	}
}

// recorded returns the alarm that a rule had on an entity at the moment, nil for
// none.
func (q *inquiry) recorded(ctx context.Context, rec Record, rule citywarden.RuleID, entity string) (*citywarden.Alarm, error) {
	f := citywarden.AlarmFilter{Rule: rule, Shadow: q.r.Mode == "shadow" && rule == q.r.ID, Page: citywarden.Page{Limit: citywarden.MaxPage}}
	for range maxAlarmPage {
		page, next, err := rec.Alarms(ctx, f)
		if err != nil {
			return nil, err
		}
		for i := range page {
			a := &page[i]
			if a.Entity != entity || a.RaisedAt.After(q.at) {
				continue
			}
			raised, cleared, out, err := q.known(ctx, rec, a.ID)
			switch {
			case err != nil:
				return nil, err
			case raised.After(q.at): // by then nobody knew of it
				continue
			case cleared.IsZero() || cleared.After(q.at):
				if rule == q.r.ID {
					q.outOf = out
				}
				return a, nil
			}
			return nil, nil
		}
		if next == "" {
			return nil, nil
		}
		f.After = next
	}
	return nil, nil
}

// known returns when an alarm was raised and cleared by our clock, which may be
// later than by the readings', and the step that took it out of service, nil when
// it was in service at the moment.
func (q *inquiry) known(ctx context.Context, rec Record, id citywarden.AlarmID) (raised, cleared time.Time, out *citywarden.AlarmStep, err error) {
	steps, err := rec.History(ctx, id)
	for i, s := range steps {
		switch s.Kind {
		case citywarden.Raised:
			raised = s.Logged.Truncate(time.Millisecond)
		case citywarden.Cleared:
			cleared = s.Logged
		case citywarden.WentOutOfService, citywarden.CameInService:
			if s.Logged.After(q.at) {
				continue
			}
			if out = nil; s.Kind == citywarden.WentOutOfService {
				out = &steps[i]
			}
		}
	}
	return raised, cleared, out, err
}

// alarmed answers when there was an alarm.
func (q *inquiry) alarmed(a *citywarden.Alarm) {
	q.out.Alarm, q.out.Since = a, a.RaisedAt
	id, since := string(a.ID), q.stamp(a.RaisedAt)
	// How it stood then is what the replay says; the record is of now.
	then := q.inst.told()
	switch {
	case a.Shadow:
		q.say(citywarden.WhyNotShadow, "there was an alarm, "+id+", since "+since+"; nobody was told, because the rule runs in mode shadow",
			"自 "+since+" 起有告警 "+id+"；规则处于 shadow 模式，只记录不通知")
	case q.inst.open && ms(then.Shelved) > q.t:
		q.out.Until = then.Shelved
		q.say(citywarden.WhyNotShelved, "there was an alarm, "+id+", since "+since+"; "+then.ShelvedBy+" had put it aside until "+q.stamp(then.Shelved)+": "+then.Reason,
			"自 "+since+" 起有告警 "+id+"；已被 "+then.ShelvedBy+" 搁置至 "+q.stamp(then.Shelved)+"："+then.Reason)
	case q.outOf != nil: // that may have been ordered long before the replay begins
		q.out.Until = then.OutOfServiceUntil
		from := q.outOf.At
		if !a.OutOfService.IsZero() && a.OutOfService.Before(from) {
			from = a.OutOfService
		}
		q.say(citywarden.WhyNotShelved, "there was an alarm, "+id+", since "+since+"; "+q.outOf.By+" had taken it out of service at "+q.stamp(from)+": "+q.outOf.Reason,
			"自 "+since+" 起有告警 "+id+"；"+q.outOf.By+" 已于 "+q.stamp(from)+" 将其停用："+q.outOf.Reason)
	case q.inst.open && then.SuppressedBy != "":
		q.say(citywarden.WhyNotInhibited, "there was an alarm, "+id+", since "+since+"; alarm "+string(then.SuppressedBy)+" explains it, so nobody was told",
			"自 "+since+" 起有告警 "+id+"；已由告警 "+string(then.SuppressedBy)+" 解释，未另行通知")
	case q.inst.open && then.Latched:
		q.say(citywarden.WhyNotLatched, "there was an alarm, "+id+", since "+since+"; its condition is gone and it waits for a reset, so nothing new is raised",
			"自 "+since+" 起有告警 "+id+"；告警条件已消失，等待人工复位，期间不会产生新告警")
	default:
		q.say(citywarden.WhyNotAlarm, "there was an alarm, "+id+", since "+since, "自 "+since+" 起有告警 "+id)
	}
}

// quiet answers when there was no alarm and the rule was in force.
func (q *inquiry) quiet(ctx context.Context, rec Record, results []tri) error {
	main := &q.out.Levels[0]
	for i := range q.out.Levels {
		if q.out.Levels[i].State == pending.String() {
			main = &q.out.Levels[i]
			break
		}
	}
	waits := q.waiting()
	late := q.tooLate()
	switch i := slices.Index(results, yes); {
	case main.State == pending.String() && q.inst.inhibited:
		return q.heldBack(ctx, rec, main)
	case main.State == pending.String() && !main.Due.IsZero():
		q.out.Since, q.out.Until = main.Since, main.Due
		q.say(citywarden.WhyNotHolding, main.Summary.EN+", since "+q.stamp(main.Since)+"; it has to hold for "+main.Held.String()+", the alarm would come at "+q.stamp(main.Due),
			main.Summary.ZH+"，自 "+q.stamp(main.Since)+" 起；须持续 "+spanZH(main.Held.Std())+"，最早于 "+q.stamp(main.Due)+" 告警")
	case main.State == pending.String():
		q.out.Since = main.Since
		q.say(citywarden.WhyNotNoData, "the condition was true since "+q.stamp(main.Since)+", but the holding time waits for data"+q.lacksEN(),
			"条件自 "+q.stamp(main.Since)+" 起成立，但持续时间因缺少数据而暂停计时"+q.lacksZH())
	case i >= 0 && waits > 0:
		q.out.Until = fromMS(waits)
		l := &q.out.Levels[i]
		q.say(citywarden.WhyNotHolding, l.Summary.EN+"; the rule waits "+span(q.r.late)+" (late) for readings out of order, until "+q.stamp(q.out.Until),
			l.Summary.ZH+"；规则为乱序读数等待 "+spanZH(time.Duration(q.r.late)*time.Millisecond)+"（late），到 "+q.stamp(q.out.Until))
	case late != nil:
		q.say(citywarden.WhyNotLate, q.text(late)+" met the condition, but came in at "+q.stamp(late.Arrived)+", when newer ones were there: more than late ("+span(q.r.late)+") behind, it is history only",
			q.text(late)+" 满足条件，但于 "+q.stamp(late.Arrived)+" 才到达，当时已有更新的读数；迟到超过 late（"+spanZH(time.Duration(q.r.late)*time.Millisecond)+"），只计入历史")
	case i >= 0 && q.inst.due > q.t:
		l := &q.out.Levels[i]
		q.out.Until = fromMS(q.inst.due)
		q.say(citywarden.WhyNotNotLooked, l.Summary.EN+"; but the rule is evaluated next at "+q.stamp(q.out.Until)+", when the readings up to now must have come",
			l.Summary.ZH+"；但规则将于 "+q.stamp(q.out.Until)+" 再次计算，届时此前的读数应已到齐")
	case i >= 0:
		l := &q.out.Levels[i]
		q.say(citywarden.WhyNotNotLooked, l.Summary.EN+"; but a rule is evaluated when a reading comes that it reads, and none has come since"+q.heardEN(),
			l.Summary.ZH+"；但规则只在收到其读取的读数时计算，此后没有新读数"+q.heardZH())
	case slices.Contains(results, unknown) && (len(q.out.Missing) > 0 || q.d.arrived == 0):
		q.say(citywarden.WhyNotNoData, "the condition can't be computed"+q.lacksEN(), "条件无法计算"+q.lacksZH())
	case slices.Contains(results, unknown):
		i := slices.Index(results, unknown)
		en, zh := "", ""
		for _, a := range q.out.Levels[i].Attributes {
			if a.Value == nil {
				en, zh = "; attribute "+a.Name+" has no value", "；属性 "+a.Name+" 没有值"
			}
		}
		q.say(citywarden.WhyNotUnknown, "the condition can't be computed"+en+": "+oneLine(q.out.Levels[i].Condition), "条件无法计算"+zh+"："+oneLine(q.out.Levels[i].Condition))
	default:
		q.say(citywarden.WhyNotCondition, main.Summary.EN+q.afterEN(), main.Summary.ZH+q.afterZH())
	}
	return nil
}

// heldBack answers when another alarm explains this one.
func (q *inquiry) heldBack(ctx context.Context, rec Record, main *citywarden.WhyNotLevel) error {
	q.out.Since = main.Since
	name := ""
	if other := q.inhibitor(); other != nil {
		a, err := q.recorded(ctx, rec, other.run.rule.ID, other.entity)
		if err != nil {
			return err
		}
		if a == nil {
			c := other.told()
			a = &c
		}
		q.out.Alarm, name = a, string(a.ID)
	}
	q.say(citywarden.WhyNotInhibited, main.Summary.EN+", since "+q.stamp(main.Since)+"; alarm "+name+" holds it back (inhibit_by)",
		main.Summary.ZH+"，自 "+q.stamp(main.Since)+" 起；被告警 "+name+" 抑制（inhibit_by）")
	return nil
}

// inhibitor returns an instance whose open alarm holds the one in question back.
func (q *inquiry) inhibitor() *instance {
	for _, t := range q.inst.ties {
		if t.parent {
			continue
		}
		for _, other := range slices.SortedFunc(maps.Keys(t.bond.open[t.key]), byRuleAndEntity) {
			if other != q.inst {
				return other
			}
		}
	}
	return nil
}

// waiting returns until when readings of the device wait for others that are
// out of order, ms, 0 when none do.
func (q *inquiry) waiting() int64 {
	due := int64(0)
	for _, d := range q.own() {
		if k := slices.Index(d.plan.lates, q.r.late); k >= 0 && q.r.late > 0 && len(d.lanes[k].wait) > 0 {
			due = max(due, d.lanes[k].due)
		}
	}
	return due
}

// tooLate fills in the readings that came too late, and returns the newest of
// them that would have made a condition true.
func (q *inquiry) tooLate() *reading {
	var found *reading
	for i := range q.late {
		x := &q.late[i]
		q.out.Late = append(q.out.Late, x.ExplainInput)
		for k := range q.inst.prog.levels {
			if q.inst.prog.levels[k].when(q.s.e.env(q.inst.d, q.inst.g, q.r, x.ts)) == yes {
				found = x
			}
		}
	}
	return found
}

func (q *inquiry) text(r *reading) string {
	s := string(r.Metric) + " = " + show(r.Value.Any())
	if r.Unit != "" {
		s += " " + r.Unit
	}
	return s + " @ " + q.stamp(r.Time)
}

func span(ms int64) string { return citywarden.Duration(time.Duration(ms) * time.Millisecond).String() }

// lacksEN says which value is missing.
func (q *inquiry) lacksEN() string {
	switch {
	case q.d.arrived == 0 && q.g == nil:
		return "; nothing came from the device since " + q.stamp(q.out.From) + q.disabledEN()
	case len(q.out.Missing) == 0:
		return ""
	}
	m := q.out.Missing[0]
	if m.Last.IsZero() {
		return "; no " + string(m.Metric) + " of " + string(m.Device) + " came since " + q.stamp(q.out.From) + q.disabledEN()
	}
	return "; the last " + string(m.Metric) + " of " + string(m.Device) + " is of " + q.stamp(m.Last) + ", and is not current after " + m.Stale.String() + q.disabledEN()
}

func (q *inquiry) lacksZH() string {
	switch {
	case q.d.arrived == 0 && q.g == nil:
		return "；自 " + q.stamp(q.out.From) + " 起未收到该设备的数据" + q.disabledZH()
	case len(q.out.Missing) == 0:
		return ""
	}
	m := q.out.Missing[0]
	if m.Last.IsZero() {
		return "；自 " + q.stamp(q.out.From) + " 起未收到 " + string(m.Device) + " 的 " + string(m.Metric) + q.disabledZH()
	}
	return "；" + string(m.Device) + " 的 " + string(m.Metric) + " 最后测量于 " + q.stamp(m.Last) + "，超过 " + spanZH(m.Stale.Std()) + " 即视为过期" + q.disabledZH()
}

func (q *inquiry) disabledEN() string {
	if q.reg.Disabled {
		return " (the device is disabled now: its messages are refused)"
	}
	return ""
}

func (q *inquiry) disabledZH() string {
	if q.reg.Disabled {
		return "（设备当前已停用，其消息被拒收）"
	}
	return ""
}

func (q *inquiry) heardEN() string {
	if q.out.LastSeen.IsZero() {
		return ""
	}
	return "; the newest message of the device came at " + q.stamp(q.out.LastSeen)
}

func (q *inquiry) heardZH() string {
	if q.out.LastSeen.IsZero() {
		return ""
	}
	return "；该设备最近一次上报于 " + q.stamp(q.out.LastSeen)
}

// afterEN points at readings that the moment did not know yet.
func (q *inquiry) afterEN() string {
	if len(q.out.After) == 0 {
		return ""
	}
	x := q.out.After[0]
	return "; " + string(x.Metric) + " = " + show(x.Value.Any()) + " of " + q.stamp(x.Time) + " came in only at " + q.stamp(x.Arrived) + ", after the moment you ask about"
}

func (q *inquiry) afterZH() string {
	if len(q.out.After) == 0 {
		return ""
	}
	x := q.out.After[0]
	return "；" + q.stamp(x.Time) + " 的 " + string(x.Metric) + " = " + show(x.Value.Any()) + " 于 " + q.stamp(x.Arrived) + " 才到达，晚于所问时刻"
}
