package rules

import (
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"github.com/citywarden/citywarden"
)

// otherNames are what functions are called elsewhere.
var otherNames = map[string]string{
	"average": "avg", "mean": "avg", "minimum": "min", "maximum": "max", "total": "sum", "stdev": "stddev", "std": "stddev",
	"last": "prev", "previous": "prev", "diff": "delta", "derivative": "rate", "offline": "silent", "absent": "silent", "nodata": "silent",
}

// call compiles a function of the rule language.
func (c *compiler) call(n *ast.CallNode) (code, error) {
	id, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		return code{}, errAt(n, "methods are not part of the rule language")
	}
	i := slices.IndexFunc(functions, func(f function) bool { return f.name == id.Value })
	if i < 0 {
		names := make([]string, 0, len(functions)+len(pure))
		for _, f := range functions {
			names = append(names, f.name)
		}
		for f := range pure {
			names = append(names, f)
		}
		slices.Sort(names)
		if id.Value == "now" {
			return code{}, errAt(n, "now() is not part of the rule language: rules run on event time; use ts, hour and weekday")
		}
		if known := otherNames[id.Value]; known != "" {
			return code{}, errAt(n, "no function %q; did you mean %q?", id.Value, known)
		}
		return code{}, errAt(n, "no function %q%s", id.Value, choices(id.Value, names, "there are"))
	}
	f := functions[i]
	want := strings.Count(f.form, ",") + 1
	if strings.HasSuffix(f.form, "()") {
		want = 0
	}
	if len(n.Arguments) != want {
		return code{}, errAt(n, "write it like %s", f.form)
	}
	if c.where == inWhere {
		return code{}, errAt(n, "select.where can look at attributes only; use %s in a condition", f.name)
	}
	switch f.name {
	case "n_of", "n_adj":
		return c.memberCall(n, f)
	case "silent":
		return c.silent(n, f)
	case "skew":
		return c.skew(n)
	case "event":
		return c.event(n)
	case "count":
		return c.countCall(n)
	case "prev", "changed":
		return c.previous(n, f)
	}
	return c.window(n, f)
}

// within returns the constant duration that an argument gives, ms.
func (c *compiler) within(n ast.Node, f string) (int64, error) {
	s, ok := n.(*ast.StringNode)
	if !ok {
		return 0, errAt(n, "the time of %s is a constant text, like %q", f, "5m")
	}
	d, err := citywarden.ParseDuration(s.Value)
	switch {
	case err != nil:
		return 0, errAt(n, "%v", err)
	case d <= 0:
		return 0, errAt(n, "the time of %s is more than 0", f)
	case d.Std().Milliseconds() > maxWindow:
		return 0, errAt(n, "the time of %s is at most 31d", f)
	}
	return max(d.Std().Milliseconds(), 1), nil
}

func (c *compiler) window(n *ast.CallNode, f function) (code, error) {
	i, err := c.metric(n.Arguments[0])
	if err != nil {
		return code{}, err
	}
	if k := c.plan.model.Metrics[i].Kind; k != citywarden.KindNumber {
		return code{}, errAt(n.Arguments[0], "%s needs a number, but %s is a %s", f.name, n.Arguments[0], k)
	}
	w, err := c.within(n.Arguments[1], f.name)
	if err != nil {
		return code{}, err
	}
	c.uses.metric(i, w)
	c.uses.moving = true
	c.uses.cost += exactSamples + panesPer
	stale, counter := c.plan.stale[i], c.plan.model.Metrics[i].Counter
	win, err := c.windowOf(n.Arguments[1], i, w)
	if err != nil {
		return code{}, err
	}
	var got code
	switch f.name {
	case "delta", "rate":
		perSecond := f.name == "rate"
		got = numCode(func(v *env) float64 {
			r := v.d.rings[i]
			b := r.value(v.at, stale, v.held)
			ts, was, ok := r.ago(win, w, v.at, stale, v.held)
			if !ok || b == nil || counter && b.v < was { // a counter that was reset
				return nan
			}
			if !perSecond {
				return b.v - was
			}
			if b.ts == ts {
				return 0 // the same reading is held all the time
			}
			return (b.v - was) / (float64(b.ts-ts) / 1000)
		})
	default:
		agg := aggregates[f.name]
		got = numCode(func(v *env) float64 { return v.d.rings[i].over(agg, win, w, v.at) })
	}
	c.uses.windows = append(c.uses.windows, windowUse{text: n.String(), metric: i, window: win, within: w, value: got})
	return got, nil
}

// windowOf returns the index of a window over metric i whose length n gives.
func (c *compiler) windowOf(n ast.Node, i int, within int64) (int, error) {
	win := c.plan.memory[i].window(within)
	if win >= maxWindows {
		return 0, errAt(n, "the rules look at %s through windows of %d different lengths already, each of which takes memory for every device; use one of those", c.plan.names[i], maxWindows)
	}
	return win, nil
}

// aggregates are functions over a window; none of them has a value without samples.
var aggregates = map[string]aggregate{"avg": avgOf, "sum": sumOf, "min": minOf, "max": maxOf, "stddev": stddevOf}

// countCall counts samples, or the samples at which a condition was true.
func (c *compiler) countCall(n *ast.CallNode) (code, error) {
	w, err := c.within(n.Arguments[1], "count")
	if err != nil {
		return code{}, err
	}
	c.uses.moving = true
	if id, ok := n.Arguments[0].(*ast.IdentifierNode); ok {
		if m, ok := c.plan.model.Metric(citywarden.MetricName(id.Value)); ok && m.Kind != citywarden.KindBool {
			i, err := c.metric(id)
			if err != nil {
				return code{}, err
			}
			c.uses.metric(i, w)
			win, err := c.windowOf(n.Arguments[1], i, w)
			if err != nil {
				return code{}, err
			}
			got := numCode(func(v *env) float64 {
				r := v.d.rings[i]
				if r.holds(v.at, 0, true) < 0 {
					return nan
				}
				return r.over(countOf, win, w, v.at)
			})
			c.uses.windows = append(c.uses.windows, windowUse{text: n.String(), metric: i, window: win, within: w, value: got})
			return got, nil
		}
	}
	inner := newUses()
	sub := *c
	sub.uses = inner
	x, err := sub.node(n.Arguments[0])
	if err != nil {
		return code{}, err
	}
	switch {
	case x.kind != citywarden.KindBool:
		return code{}, errAt(n.Arguments[0], "count needs a metric or a condition, but %s is a %s", n.Arguments[0], x.kind)
	case len(inner.members) > 0 || len(inner.silent) > 0 || inner.events || inner.skew:
		return code{}, errAt(n.Arguments[0], "count looks at each sample of its device; n_of, n_adj, silent, skew and event cannot stand inside it")
	case slices.ContainsFunc(inner.windows, func(u windowUse) bool { return strings.HasPrefix(u.text, "count(") }):
		return code{}, errAt(n.Arguments[0], "count cannot stand inside count")
	case len(inner.metrics) == 0:
		return code{}, errAt(n.Arguments[0], "the condition of count reads no metric")
	}
	for _, i := range inner.metrics {
		c.uses.metric(i, inner.back[i]+w)
		c.uses.each[i] = max(c.uses.each[i], w)
	}
	c.uses.attrs = append(c.uses.attrs, inner.attrs...)
	c.uses.cost += maxCountBack * len(inner.metrics) * inner.cost
	metrics, cond := inner.metrics, x.tri
	got := numCode(func(v *env) float64 {
		any := false
		hits := 0
		at, held := v.at, v.held
		for k, i := range metrics {
			r := v.d.rings[i]
			if r.holds(at, 0, true) < 0 {
				continue
			}
			any = true
			ss := r.between(at-w, at)
			if len(ss) > maxCountBack {
				ss = ss[len(ss)-maxCountBack:]
			}
			for j := range ss {
				if seenBefore(v.d, metrics[:k], ss[j].ts) {
					continue
				}
				v.at, v.held = ss[j].ts, false
				if cond(v) == yes {
					hits++
				}
			}
			v.at, v.held = at, held
		}
		if !any {
			return nan
		}
		return float64(hits)
	})
	c.uses.windows = append(c.uses.windows, windowUse{text: n.String(), metric: metrics[0], window: -1, within: w, value: got})
	return got, nil
}

// seenBefore reports whether one of metrics has a sample at exactly ts.
func seenBefore(d *device, metrics []int, ts int64) bool {
	for _, i := range metrics {
		if d.rings[i].at(ts) != nil {
			return true
		}
	}
	return false
}

func (c *compiler) previous(n *ast.CallNode, f function) (code, error) {
	i, err := c.metric(n.Arguments[0])
	if err != nil {
		return code{}, err
	}
	c.uses.metric(i, 0)
	c.uses.moving = true // a late value can become the one before
	// pair returns the ring and the index of the present value, 0 when there is
	// none before it.
	pair := func(v *env) (*ring, int) {
		r := v.d.rings[i]
		return r, max(r.holds(v.at, 0, true), 0)
	}
	kind := c.plan.model.Metrics[i].Kind
	if f.name == "changed" {
		res := func(v *env) tri {
			r, k := pair(v)
			if k == 0 {
				return unknown
			}
			if kind == citywarden.KindText {
				return triOf(r.texts[k-1] != r.texts[k])
			}
			return triOf(r.s[k-1].v != r.s[k].v)
		}
		c.uses.leaves = append(c.uses.leaves, leaf{text: n.String(), left: triCode(res), result: res})
		return triCode(res), nil
	}
	var got code
	switch kind {
	case citywarden.KindNumber:
		got = numCode(func(v *env) float64 {
			if r, k := pair(v); k > 0 {
				return r.s[k-1].v
			}
			return nan
		})
	case citywarden.KindBool:
		got = triCode(func(v *env) tri {
			if r, k := pair(v); k > 0 {
				return triOf(r.s[k-1].v != 0)
			}
			return unknown
		})
	default:
		got = textCode(func(v *env) (string, bool) {
			if r, k := pair(v); k > 0 {
				return r.texts[k-1], true
			}
			return "", false
		})
	}
	return got, nil
}

// silent is true when nothing arrived from the device for that long. After the
// platform itself was down it is unknown for that long: an outage of ours
// raises nobody.
func (c *compiler) silent(n *ast.CallNode, f function) (code, error) {
	if c.where == inGroup {
		return code{}, errAt(n, "in a rule with group, silent(…) stands inside n_of(…): n_of(silent(\"15m\"), \"1h\") >= 2")
	}
	var dur func(*env) int64
	if s, ok := n.Arguments[0].(*ast.StringNode); ok {
		w, err := c.within(s, f.name)
		if err != nil {
			return code{}, err
		}
		dur = func(*env) int64 { return w }
	} else {
		x, err := c.node(n.Arguments[0])
		if err != nil {
			return code{}, err
		}
		if x.kind != citywarden.KindText {
			return code{}, errAt(n.Arguments[0], "silent needs a time, like %q, but %s is a %s", "15m", n.Arguments[0], x.kind)
		}
		text := x.text
		dur = func(v *env) int64 {
			s, ok := text(v)
			if !ok {
				return -1
			}
			return v.e.parseDuration(s)
		}
	}
	c.uses.silent = append(c.uses.silent, dur)
	c.uses.moving = true
	res := func(v *env) tri {
		w := dur(v)
		since := v.d.heard()
		switch {
		case w < 0 || since == 0:
			return unknown
		case v.now-since < w:
			return no
		case v.now-v.e.up < w:
			return unknown
		}
		return yes
	}
	quiet := numCode(func(v *env) float64 {
		if since := v.d.heard(); since > 0 {
			return float64(v.now-since) / 1000
		}
		return nan
	})
	limit := numCode(func(v *env) float64 {
		if w := dur(v); w >= 0 {
			return float64(w) / 1000
		}
		return nan
	})
	c.uses.leaves = append(c.uses.leaves, leaf{text: n.String(), op: ">=", left: quiet, right: limit, result: res})
	return triCode(res), nil
}

// skew is how far the clock of the device was ahead of ours, in seconds: the
// newest time that its newest message gave, before any clamping, less the
// arrival. It is below zero for a clock that is behind, and for readings that
// waited somewhere; 0 as long as the device gives no times.
func (c *compiler) skew(n *ast.CallNode) (code, error) {
	if c.where == inGroup {
		return code{}, errAt(n, "in a rule with group, skew() stands inside n_of(…): n_of(skew() > 60, \"1h\") >= 2")
	}
	c.uses.skew = true
	return numCode(func(v *env) float64 { return float64(v.d.skew) / 1000 }), nil
}

// event is true when a text metric called "event" of the device, of one of its
// neighbours or of a member of its group had that value in the window.
func (c *compiler) event(n *ast.CallNode) (code, error) {
	name, ok := n.Arguments[0].(*ast.StringNode)
	if !ok || name.Value == "" {
		return code{}, errAt(n.Arguments[0], "the name of an event is a constant text, like %q", "valve.operated")
	}
	w, err := c.within(n.Arguments[1], "event")
	if err != nil {
		return code{}, err
	}
	c.uses.events, c.uses.moving = true, true
	res := func(v *env) tri {
		if v.d != nil {
			if v.d.hadEvent(name.Value, v.at-w, v.at) {
				return yes
			}
			for _, a := range v.d.adjacent {
				if a.hadEvent(name.Value, v.at-w, v.at) {
					return yes
				}
			}
		}
		if v.g != nil {
			for _, m := range v.g.members {
				if m.hadEvent(name.Value, v.at-w, v.at) {
					return yes
				}
			}
		}
		return no
	}
	c.uses.leaves = append(c.uses.leaves, leaf{text: n.String(), left: triCode(res), result: res})
	return triCode(res), nil
}

// memberCall compiles n_of and n_adj: the condition once for every model that
// the rule selects.
func (c *compiler) memberCall(n *ast.CallNode, f function) (code, error) {
	adjacent := f.name == "n_adj"
	switch {
	case c.where == inMember:
		return code{}, errAt(n, "%s cannot stand inside n_of or n_adj", f.name)
	case adjacent && c.where == inGroup:
		return code{}, errAt(n, "n_adj looks at the neighbours of one device; this rule has a group, use n_of")
	case !adjacent && c.where == inDevice:
		return code{}, errAt(n, "n_of counts the members of a group; give the rule a group, like group: {by: attr.zone}, or use n_adj for neighbours")
	}
	w, err := c.within(n.Arguments[1], f.name)
	if err != nil {
		return code{}, err
	}
	m := &memberCall{text: n.String(), adjacent: adjacent, within: w, conds: map[int]*memberCond{}, steady: !adjacent && c.rule.late == 0}
	for _, name := range c.rule.Models {
		p := c.set.plans[name]
		sub := &compiler{set: c.set, rule: c.rule, plan: p, where: inMember, uses: newUses(), depth: c.depth}
		x, err := sub.node(n.Arguments[0])
		if err != nil {
			return code{}, err
		}
		if x.kind != citywarden.KindBool {
			return code{}, errAt(n.Arguments[0], "%s needs a condition, but %s is a %s", f.name, n.Arguments[0], x.kind)
		}
		m.cost = max(m.cost, sub.uses.cost)
		m.conds[p.index] = &memberCond{tri: x.tri, uses: sub.uses, guards: x.guarded(n.Arguments[0])}
		c.uses.events = c.uses.events || sub.uses.events
		m.steady = m.steady && !sub.uses.moving && !sub.uses.skew
		if adjacent && (len(sub.uses.silent) > 0 || sub.uses.skew) {
			return code{}, errAt(n.Arguments[0], "silent and skew cannot stand inside n_adj")
		}
	}
	if m.cost > maxMemberCost {
		return code{}, errAt(n.Arguments[0], "the condition takes too long to evaluate for each member: it reads up to %d values, at most %d are allowed; shorten or leave out a count(condition, …)", m.cost, maxMemberCost)
	}
	c.uses.cost += m.cost
	c.uses.members = append(c.uses.members, m)
	c.uses.adjacent = c.uses.adjacent || adjacent
	count := func(v *env) (lo, hi float64) {
		if h := v.headcount(m); h != nil {
			return float64(h.sure), float64(h.all)
		}
		left := v.members(m, func(_ *device, sure bool) {
			hi++
			if sure {
				lo++
			}
		})
		return lo, hi + float64(left)
	}
	got := numCode(func(v *env) float64 {
		lo, hi := count(v)
		if lo != hi {
			return nan
		}
		return lo
	})
	got.count, got.of = count, m
	return got, nil
}

// members calls f for every member or neighbour that satisfies m, on a reading
// no older than m.within (sure), or when it last reported and fell silent since
// (not sure). A member that never satisfied it, or never reported, is left out.
// left is how many more there are than can be looked at.
func (v *env) members(m *memberCall, f func(d *device, sure bool)) (left int) {
	var list []*device
	if m.adjacent {
		list = v.d.adjacent
	} else if v.g != nil {
		list = v.g.members
	}
	if most := maxGroupCost / m.cost; len(list) > most {
		left, list = len(list)-most, list[:most]
	}
	own, held := v.d, v.held
	v.held = true
	for _, d := range list {
		if d.plan == nil || d.gone {
			continue
		}
		cond := m.conds[d.plan.index]
		if cond == nil {
			continue
		}
		v.d = d
		if cond.tri(v) != yes {
			continue
		}
		f(d, len(cond.uses.metrics) == 0 || d.newest(cond.uses.metrics, v.at) >= v.at-m.within)
	}
	v.d, v.held = own, held
	return left
}
