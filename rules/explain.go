package rules

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/citywarden/citywarden"
)

// explain says why the alarm of inst changed at event time t: it evaluates the
// parts of the condition once more, one by one. Only a transition pays for it.
func (e *Engine) explain(inst *instance, t int64, kind citywarden.TransitionKind, level int) *citywarden.Explanation {
	r := inst.run.rule
	if r.of != nil {
		return inst.explainStorm(t, kind)
	}
	cond, hold := &inst.prog.levels[level], r.levels[level].hold
	since := inst.levels[level].since
	if kind == citywarden.Clearing || kind == citywarden.Cleared || kind == citywarden.Latched {
		if c, h := inst.clearOf(level); c != nil {
			cond, hold = c, h
		} else {
			hold = 0
		}
	}
	x := &citywarden.Explanation{
		Rule: r.ID, Version: r.Version, At: fromMS(t), Severity: r.levels[level].severity,
		Condition: cond.text, Held: citywarden.Duration(time.Duration(hold) * time.Millisecond), Since: fromMS(since),
	}
	if kind == citywarden.Raised || kind == citywarden.Escalated {
		x.Since = fromMS(t - hold)
	}
	x.Severity = max(x.Severity, inst.alarm.Severity)
	e.evidence(x, inst, t, cond)
	x.Summary = e.sentence(inst, kind, x, cond, t)
	return x
}

// explainEnd explains the end of an episode.
func (e *Engine) explainEnd(inst *instance, t int64, reason string) *citywarden.Explanation {
	if reason == "" {
		level := 0
		for i := range inst.run.rule.levels {
			if inst.run.rule.levels[i].severity == inst.alarm.Severity {
				level = i
			}
		}
		return e.explain(inst, t, citywarden.Cleared, level)
	}
	r := inst.run.rule
	return &citywarden.Explanation{
		Rule: r.ID, Version: r.Version, At: fromMS(t), Severity: inst.alarm.Severity,
		Summary: citywarden.Text{EN: "Closed: " + reason + ".", ZH: "已关闭：" + reasonZH(reason) + "。"},
	}
}

func reasonZH(s string) string {
	switch s {
	case "schedule ended":
		return "已超出规则的生效时段"
	case "device removed":
		return "设备已删除"
	case "model changed":
		return "设备型号已变更"
	case "rule removed":
		return "规则已删除"
	case "not selected any more":
		return "规则不再适用于该设备"
	case "group has no members":
		return "分组内已无设备"
	}
	if by, ok := strings.CutPrefix(s, "reset by "); ok {
		by, why, said := strings.Cut(by, ": ")
		if said {
			why = "：" + why
		}
		return "由 " + by + " 复位" + why
	}
	return s
}

// evidence fills in what the condition saw.
func (e *Engine) evidence(x *citywarden.Explanation, inst *instance, t int64, cond *compiled) {
	r := inst.run.rule
	at := func(d *device, g *group) *env { return e.env(d, g, r, t) }
	e.collect(x, cond.uses, inst.d, inst.d, inst.g, at)
	places := map[citywarden.DeviceID]int{} // in x.Members
	for _, m := range cond.members {
		shown := map[citywarden.DeviceID]bool{}
		list := []*device(nil)
		if inst.d != nil {
			list = inst.d.adjacent
		} else {
			list = inst.g.members
		}
		for _, d := range list {
			if d.plan == nil || d.gone || len(x.Members) >= 1000 {
				continue
			}
			c := m.conds[d.plan.index]
			if c == nil {
				continue
			}
			v := at(d, inst.g)
			v.held = true
			res, newest := c.tri(v), d.newest(c.uses.metrics, t)
			if res == yes && len(c.uses.metrics) > 0 && newest < t-m.within {
				res = unknown
			}
			em := citywarden.ExplainMember{Device: d.id, Result: res.String()}
			if newest > math.MinInt64 {
				em.Time = fromMS(newest)
			}
			if i, listed := places[d.id]; !listed {
				places[d.id] = len(x.Members)
				x.Members = append(x.Members, em)
			} else if res == yes {
				x.Members[i] = em
			}
			if (res == yes || d.id == inst.device()) && len(shown) < 10 {
				shown[d.id] = true
				e.collect(x, c.uses, d, d, inst.g, at)
			}
		}
	}
}

// collect adds the leaves, inputs, attributes and windows of u as device d sees them.
func (e *Engine) collect(x *citywarden.Explanation, u *uses, d, of *device, g *group, at func(*device, *group) *env) {
	for i := range u.leaves {
		l := &u.leaves[i]
		el := citywarden.ExplainLeaf{Device: of.name(), Text: l.text, Op: l.op, Left: l.left.value(at(d, g)), Result: l.result(at(d, g)).String()}
		if l.op != "" {
			el.Right = l.right.value(at(d, g))
		}
		if len(x.Leaves) < 200 {
			x.Leaves = append(x.Leaves, el)
		}
	}
	if d == nil || d.plan == nil {
		return
	}
	v := at(d, g)
	t := v.at
	for _, i := range u.metrics {
		r := d.rings[i]
		k := r.holds(t, 0, true)
		if k < 0 || len(x.Inputs) >= 200 || slices.ContainsFunc(x.Inputs, func(in citywarden.ExplainInput) bool {
			return in.Device == d.id && in.Metric == d.plan.model.Metrics[i].Name
		}) {
			continue
		}
		m := &d.plan.model.Metrics[i]
		x.Inputs = append(x.Inputs, citywarden.ExplainInput{
			Device: d.id, Metric: m.Name, Value: r.as(k, m.Kind), Unit: m.Unit, Time: fromMS(r.s[k].ts), Arrived: fromMS(r.s[k].arrived()),
		})
	}
	for _, a := range u.attrs {
		decl := &d.plan.model.Attributes[a.index]
		ea := citywarden.ExplainAttr{Name: decl.Name, From: d.attrs[a.index].from, Value: attrCode(decl.Kind, a.index).value(at(d, g))}
		if ea.Value == nil && a.fallback != nil {
			ea.Value, ea.From = a.fallback, "rule"
		}
		if !slices.Contains(x.Attributes, ea) {
			x.Attributes = append(x.Attributes, ea)
		}
	}
	for _, w := range u.windows {
		ew := citywarden.ExplainWindow{Device: of.name(), Text: w.text, From: fromMS(t - w.within), To: fromMS(t), Result: w.value.value(at(d, g))}
		if r := d.rings[w.metric]; r != nil && w.window >= 0 {
			ew.Samples = int(r.over(countOf, w.window, w.within, t))
		} else {
			ew.Samples = len(r.between(t-w.within, t))
		}
		x.Windows = append(x.Windows, ew)
	}
}

// name returns the id of d; "" for none.
func (d *device) name() citywarden.DeviceID {
	if d == nil {
		return ""
	}
	return d.id
}

// as returns sample i as a value of kind k.
func (r *ring) as(i int, k citywarden.Kind) citywarden.Value {
	switch k {
	case citywarden.KindBool:
		return citywarden.Bool(r.s[i].v != 0)
	case citywarden.KindText:
		return citywarden.TextValue(r.texts[i])
	}
	return citywarden.Number(r.s[i].v)
}

var (
	opEN = map[string]string{">": "above", ">=": "at least", "<": "below", "<=": "at most", "==": "equal to", "!=": "different from",
		"in": "among", "matches": "matching", "contains": "containing", "startsWith": "beginning with", "endsWith": "ending with"}
	opZH = map[string]string{">": "高于", ">=": "不低于", "<": "低于", "<=": "不高于", "==": "等于", "!=": "不等于",
		"in": "属于", "matches": "匹配", "contains": "包含", "startsWith": "开头为", "endsWith": "结尾为"}

	// The same where the comparison is false.
	notEN = map[string]string{">": "not above", ">=": "below", "<": "not below", "<=": "above", "==": "not", "!=": "just",
		"in": "not among", "matches": "not matching", "contains": "not containing", "startsWith": "not beginning with", "endsWith": "not ending with"}
	notZH = map[string]string{">": "不高于", ">=": "低于", "<": "不低于", "<=": "高于", "==": "不等于", "!=": "等于",
		"in": "不属于", "matches": "不匹配", "contains": "不包含", "startsWith": "开头不为", "endsWith": "结尾不为"}
)

// sentence says in one plain sentence what happened.
func (e *Engine) sentence(inst *instance, kind citywarden.TransitionKind, x *citywarden.Explanation, cond *compiled, t int64) citywarden.Text {
	en, zh := e.fact(inst, cond, t, yes)
	held, heldZH := "", ""
	if x.Held > 0 {
		held, heldZH = x.Held.String(), spanZH(x.Held.Std())
	}
	place, ort := string(inst.device()), string(inst.device())
	if inst.g != nil {
		n := strconv.Itoa(len(inst.members()))
		place, ort = inst.entity+" ("+n+" of "+strconv.Itoa(len(inst.g.members))+" devices)", inst.entity+"（"+strconv.Itoa(len(inst.g.members))+" 台设备中的 "+n+" 台）"
	}
	var out citywarden.Text
	switch kind {
	case citywarden.Raised, citywarden.Escalated:
		out.EN, out.ZH = place+": "+en, ort+"："+zh
		if held != "" {
			out.EN += ", for " + held
			out.ZH += "，已持续 " + heldZH
		}
		if kind == citywarden.Escalated {
			out.EN, out.ZH = out.EN+"; now "+inst.alarm.Severity.String(), out.ZH+"；级别升高"
		}
	case citywarden.Joined:
		out.EN, out.ZH = place+": another device meets the condition", ort+"：又有设备满足告警条件"
	case citywarden.Lowered:
		out.EN, out.ZH = place+": less severe, now "+inst.alarm.Severity.String(), ort+"：告警级别降低"
	case citywarden.Clearing:
		out.EN, out.ZH = place+": returning to normal, "+en, ort+"：正在恢复，"+zh
	case citywarden.Resumed:
		out.EN, out.ZH = place+": not back to normal after all", ort+"：尚未恢复正常"
	case citywarden.Latched:
		out.EN, out.ZH = place+": the condition is gone; an operator has to reset the alarm", ort+"：告警条件已消失，须由人工复位"
	default:
		out.EN, out.ZH = place+": back to normal", ort+"：已恢复正常"
		if held != "" {
			out.EN += " for " + held
			out.ZH += "，已持续 " + heldZH
		}
	}
	out.EN += "."
	out.ZH += "。"
	return out
}

// fact states a comparison that made the condition what it is: yes or no.
func (e *Engine) fact(inst *instance, cond *compiled, t int64, want tri) (en, zh string) {
	r := inst.run.rule
	d := inst.d
	ls := cond.uses.leaves
	pick := func(u *uses, d *device) *leaf {
		var bare *leaf
		for i := range u.leaves {
			l := &u.leaves[i]
			if l.result(e.env(d, inst.g, r, t)) != want {
				continue
			}
			if l.op != "" && (l.left.count == nil || want == no) {
				return l
			}
			if l.op == "" && bare == nil {
				bare = l
			}
		}
		return bare
	}
	l := pick(cond.uses, d)
	if l == nil && inst.g != nil && want == yes {
		d = e.devices[inst.device()]
		for _, m := range cond.members {
			if d == nil || d.plan == nil || l != nil {
				break
			}
			if c := m.conds[d.plan.index]; c != nil {
				l = pick(c.uses, d)
			}
		}
	}
	switch {
	case l == nil && want == no:
		return "the condition is false", "不满足告警条件"
	case l == nil:
		for i := range ls {
			if ls[i].result(e.env(inst.d, inst.g, r, t)) == yes {
				return ls[i].text, ls[i].text
			}
		}
		return "the condition is true", "满足告警条件"
	}
	if strings.HasPrefix(l.text, "silent(") {
		quiet, _ := l.left.value(e.env(d, inst.g, r, t)).(float64)
		s := time.Duration(quiet) * time.Second
		if want == no {
			return "it was heard " + citywarden.Duration(s).String() + " before", spanZH(s) + "前还有数据上报"
		}
		return "nothing was heard for " + citywarden.Duration(s).String(), "已 " + spanZH(s) + " 未上报数据"
	}
	if leftText(l) == "skew()" {
		off, _ := l.left.value(e.env(d, inst.g, r, t)).(float64)
		return clockText(time.Duration(off) * time.Second)
	}
	name := citywarden.Text{EN: strings.TrimSpace(l.text), ZH: strings.TrimSpace(l.text)}
	unit := ""
	if d != nil && d.plan != nil && l.left.metric > 0 {
		m := &d.plan.model.Metrics[l.left.metric-1]
		unit = m.Unit
		name = citywarden.Text{EN: orText(m.Title.In("en"), string(m.Name)), ZH: orText(m.Title.In("zh"), string(m.Name))}
	}
	if l.op == "" && want == no {
		return name.EN + " is off", name.ZH + "为假"
	}
	if l.op == "" {
		return name.EN + " is on", name.ZH + "为真"
	}
	left, right := show(l.left.value(e.env(d, inst.g, r, t))), show(l.right.value(e.env(d, inst.g, r, t)))
	if l.left.metric == 0 {
		name = citywarden.Text{EN: leftText(l), ZH: leftText(l)}
		if d != nil && d.plan != nil {
			name, unit = callText(name, d.plan.model)
		}
	}
	if unit != "" {
		unit = " " + unit
	}
	is := "为 "
	if c, _ := utf8.DecodeLastRuneInString(name.ZH); c < utf8.RuneSelf {
		is = " 为 "
	}
	wordEN, wordZH := opEN[l.op], opZH[l.op]
	if want == no {
		wordEN, wordZH = notEN[l.op], notZH[l.op]
	}
	return name.EN + " is " + left + unit + ", " + wordEN + " " + right + unit,
		name.ZH + is + left + unit + "，" + wordZH + " " + right + unit
}

// clockText says how far the clock of a device is off.
func clockText(off time.Duration) (en, zh string) {
	switch {
	case off > 0:
		return "its clock is " + citywarden.Duration(off).String() + " fast", "设备时钟快 " + spanZH(off)
	case off < 0:
		return "its clock, or its reporting, is " + citywarden.Duration(-off).String() + " behind", "设备时钟或上报滞后 " + spanZH(-off)
	}
	return "its clock is right", "设备时钟正常"
}

// leftText is the left side of a comparison as written.
func leftText(l *leaf) string {
	s := l.text
	if i := strings.LastIndex(s, " "+l.op+" "); i > 0 {
		s = s[:i]
	}
	for s = strings.TrimSpace(s); wrapped(s); {
		s = strings.TrimSpace(s[1 : len(s)-1])
	}
	return s
}

// wrapped reports whether one pair of brackets holds all of s.
func wrapped(s string) bool {
	if !strings.HasPrefix(s, "(") || !strings.HasSuffix(s, ")") {
		return false
	}
	depth := 0
	for i, c := range s {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth == 0 && i < len(s)-1 {
			return false
		}
	}
	return true
}

// callText says a call over the window of one metric in words, with the unit of
// its result; everything else stays as written.
func callText(name citywarden.Text, model *citywarden.Model) (words citywarden.Text, unit string) {
	per := citywarden.Text{EN: "second", ZH: "每秒"}
	short := "/s"
	call := name.EN
	for times, p := range map[string][3]string{" * 60": {"minute", "每分钟", "/min"}, " * 3600": {"hour", "每小时", "/h"}} {
		if c, ok := strings.CutSuffix(call, times); ok && strings.HasPrefix(c, "rate(") {
			call, per, short = c, citywarden.Text{EN: p[0], ZH: p[1]}, p[2]
		}
	}
	fn, rest, _ := strings.Cut(strings.TrimSuffix(call, ")"), "(")
	metric, window, ok := strings.Cut(rest, ", ")
	i := slices.IndexFunc(model.Metrics, func(m citywarden.Metric) bool { return string(m.Name) == metric })
	window = strings.Trim(window, `"`)
	d, err := citywarden.ParseDuration(window)
	if !ok || i < 0 || err != nil {
		return name, ""
	}
	m := &model.Metrics[i]
	en, zh := orText(m.Title.In("en"), metric), orText(m.Title.In("zh"), metric)
	within := spanZH(d.Std()) + "内" + zh
	switch fn {
	case "delta":
		return citywarden.Text{EN: "change of " + en + " within " + window, ZH: within + "的变化"}, m.Unit
	case "avg":
		return citywarden.Text{EN: "mean of " + en + " over " + window, ZH: within + "的平均值"}, m.Unit
	case "min":
		return citywarden.Text{EN: "lowest " + en + " in " + window, ZH: within + "的最低值"}, m.Unit
	case "max":
		return citywarden.Text{EN: "highest " + en + " in " + window, ZH: within + "的最高值"}, m.Unit
	case "sum":
		return citywarden.Text{EN: "sum of " + en + " over " + window, ZH: within + "的累计值"}, m.Unit
	case "stddev":
		return citywarden.Text{EN: "standard deviation of " + en + " over " + window, ZH: within + "的标准差"}, m.Unit
	case "count":
		return citywarden.Text{EN: "number of readings of " + en + " in " + window, ZH: within + "的数据条数"}, ""
	case "rate":
		if m.Unit != "" {
			unit = m.Unit + short
		}
		return citywarden.Text{EN: "change of " + en + " per " + per.EN + " over " + window, ZH: within + per.ZH + "的变化"}, unit
	}
	return name, ""
}

// spanZH writes d in Chinese.
func spanZH(d time.Duration) string { return citywarden.Duration(d).Text().ZH }

func orText(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func show(v any) string {
	switch v := v.(type) {
	case nil:
		return "unknown"
	case float64:
		return strconv.FormatFloat(v, 'g', 5, 64)
	case bool:
		return strconv.FormatBool(v)
	case string:
		return v
	}
	return ""
}
