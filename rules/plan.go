package rules

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/conf"

	"github.com/citywarden/citywarden"
)

// plan is what the rules want from the devices of one model.
type plan struct {
	index    int
	model    *citywarden.Model
	language *conf.Config        // of its conditions; nil until the first
	trees    map[string]ast.Node // of the conditions of the rule that lint looks at
	stale    []int64             // by metric: a value older than that is unknown, ms; 0 never
	quiet    int64               // a device that was not heard for that long has no data, ms; 0 never
	names    []citywarden.MetricName
	memory   []memory // by metric
	bindings []*binding
	watches  [][]watch // by lates and bit of a metric: which bindings a value concerns
	onAny    []int     // bindings that look at every message (silent, skew)
	byRule   map[*rule]*binding
	cost     int     // of evaluating all bindings
	wheres   int     // bindings with a where
	grouped  int     // bindings with a group
	lates    []int64 // the different lates of bindings, ascending
	event    int     // index of the text metric "event", -1 when there is none
}

// binding is a rule for the devices of one model.
type binding struct {
	rule   *rule
	plan   *plan
	index  int    // in plan.bindings
	lane   int    // index of the rule's late in plan.lates
	reads  uint64 // bits of the metrics it reads; 0 when it looks at every message
	where  func(*env) tri
	about  *uses // what where reads, nil without it
	skip   int   // of a rule with where: its place in device.skip
	group  int   // of a rule with group: its place in device.groups
	prog   *program
	silent []func(*env) int64 // durations of silent() that concern a device of this model
}

// program is a compiled rule: for devices of one model, or for groups.
type program struct {
	levels []compiled
	clear  *compiled
	adj    bool // looks at neighbours
	each   int  // of a group: about as many values as looking at one member reads, where all of them have to be
}

// raises reports whether the condition of a level is true.
func (p *program) raises(v *env) bool {
	for i := range p.levels {
		if p.levels[i].when(v) == yes {
			return true
		}
	}
	return false
}

// compiled is one level, or a clear condition.
type compiled struct {
	when    func(*env) tri
	guards  []guard
	uses    *uses
	text    string
	clear   *compiled // of a level of its own
	members []*memberCall
}

// plan returns the plan of model m, and begins one.
func (s *Set) plan(m *citywarden.Model) *plan {
	if p := s.plans[m.Name]; p != nil {
		return p
	}
	p := &plan{index: len(s.order), model: m, event: -1}
	alive := 2 * m.Heartbeat.Std().Milliseconds()
	p.quiet = alive
	for i := range m.Metrics {
		stale := m.Metrics[i].StaleAfter.Std().Milliseconds()
		if stale == 0 {
			stale = alive
		}
		p.stale = append(p.stale, stale)
		p.names = append(p.names, m.Metrics[i].Name)
		p.memory = append(p.memory, memory{bit: bit(i), kind: m.Metrics[i].Kind, keep: -1})
		if m.Metrics[i].Name == "event" && m.Metrics[i].Kind == citywarden.KindText {
			p.event = i
		}
	}
	p.byRule = map[*rule]*binding{}
	s.plans[m.Name] = p
	s.order = append(s.order, p)
	return p
}

// metric returns the index of a metric, -1 when the model has none of that name.
func (p *plan) metric(name citywarden.MetricName) int { return slices.Index(p.names, name) }

// compile turns the conditions of all rules into code.
func (s *Set) compile() {
	for _, r := range s.rules {
		s.orders(r)
	}
	for _, r := range s.rules {
		before := len(*r.node.src.found)
		s.compileRule(r)
		r.wrong = len(*r.node.src.found) > before
	}
	for _, p := range s.order {
		for _, b := range p.bindings {
			if !slices.Contains(p.lates, b.rule.late) {
				p.lates = append(p.lates, b.rule.late)
			}
		}
		slices.Sort(p.lates)
		for _, b := range p.bindings {
			b.lane = slices.Index(p.lates, b.rule.late)
		}
		p.watchOver()
	}
	s.sharedKeys()
}

// sharedKeys warns of a case and a work order with one key: whichever is opened
// first takes the alarms of both, so that what concerns the city may stay a work order.
func (s *Set) sharedKeys() {
	cases := map[string][]*rule{}
	for _, r := range s.rules {
		if r.order != nil && !r.order.WorkOrder {
			cases[r.order.key.shared()] = append(cases[r.order.key.shared()], r)
		}
	}
	for _, r := range s.rules {
		if r.order == nil || !r.order.WorkOrder {
			continue
		}
		for _, other := range cases[r.order.key.shared()] {
			if r.order.key.ofDevice() && !slices.ContainsFunc(r.Models, func(m citywarden.ModelName) bool { return slices.Contains(other.Models, m) }) {
				continue
			}
			s.warning(r.order.key.node, "the case of rule %s has the same key; whichever is opened first takes the alarms of both, so give the work order a key of its own", other.ID)
			break
		}
	}
}

// shared returns the key in the same words as others that come out the same.
func (t template) shared() string {
	var b strings.Builder
	for _, part := range t.parts {
		b.WriteString(part.text)
		if part.name != "" {
			b.WriteString("{{" + strings.TrimPrefix(part.name, "attr.") + "}}")
		}
	}
	return b.String()
}

// ofDevice reports whether the key is of one device alone.
func (t template) ofDevice() bool {
	return slices.ContainsFunc(t.parts, func(p templatePart) bool { return p.name == "device" })
}

func (s *Set) compileRule(r *rule) {
	var group *program
	for k, name := range r.Models {
		p := s.plans[name]
		b := &binding{rule: r, plan: p, index: len(p.bindings)}
		if r.groupBy != "" && !hasAttr(p.model, r.groupBy) {
			r.groupAt.report("rule %s groups by attr.%s, but model %s has no such attribute%s", r.ID, r.groupBy, name, citywarden.DidYouMean(r.groupBy, attrNames(p.model)))
			return
		}
		if r.where.text != "" {
			b.about = newUses()
			where, err := compileBool(&compiler{set: s, rule: r, plan: p, where: inWhere, uses: b.about}, r.where)
			if err != nil {
				r.where.report(err)
				return
			}
			b.where = where.tri
			b.skip, p.wheres = p.wheres, p.wheres+1
		}
		prog, ok := s.program(r, p)
		if !ok {
			return
		}
		if r.groupBy != "" {
			if group == nil {
				group = prog
			}
			prog = group // the same for every model: what differs stands inside its member calls
		}
		b.prog = prog
		if before := p.cost; before <= maxModelCost {
			for _, c := range prog.all() {
				p.cost += c.uses.cost
			}
			if p.cost > maxModelCost {
				r.node.report("the rules of model %s up to %s take too long to evaluate: they read up to %d values for one message, at most %d are allowed; shorten or leave out a count(condition, …)", name, r.ID, p.cost, maxModelCost)
			}
		}
		if r.groupBy != "" {
			b.group, p.grouped = p.grouped, p.grouped+1
		}
		p.bindings = append(p.bindings, b)
		p.byRule[r] = b
		if k == 0 && r.order != nil && !s.checkTemplate(r, &r.order.key) {
			return
		}
	}
	for _, name := range r.Models {
		s.index(s.plans[name], r)
	}
	for _, in := range r.inhibitors {
		if s.byID[in.rule] == nil {
			s.warning(in.at, "rule %s is inhibited by %s, which is not loaded%s", r.ID, in.rule, s.meant(in.rule))
		}
		for i, attr := range in.equal {
			if !slices.ContainsFunc(r.Models, func(m citywarden.ModelName) bool { return hasAttr(s.plans[m].model, attr) }) {
				in.said[i].report("no model of rule %s has the attribute %s%s", r.ID, attr, citywarden.DidYouMean(attr, attrNames(s.plans[r.Models[0]].model)))
			}
		}
	}
}

// meant suggests a rule that is loaded instead of id.
func (s *Set) meant(id citywarden.RuleID) string {
	var ids []string
	for _, r := range slices.Concat(s.rules, s.storms) {
		ids = append(ids, string(r.ID))
	}
	return citywarden.DidYouMean(string(id), ids)
}

// orders checks and completes what r says about storms and cases, and adds the
// rule of the alarms that its storms raise.
func (s *Set) orders(r *rule) {
	o, st := r.order, r.storm
	if o != nil {
		o.LifeSafety = !o.WorkOrder && !slices.ContainsFunc(r.Models, func(m citywarden.ModelName) bool {
			return s.plans[m].model.Domain != citywarden.Fire
		})
		if o.LifeSafety && o.Hold > 0 {
			o.hold.report("the notice of fire devices' cases never waits; leave hold out, or make it a workorder")
		}
		if o.ClearedFor > 0 && (o.LifeSafety || r.latch) {
			o.close.report("people close the cases of fire devices and of latched alarms; leave close out, or make it a workorder without latch")
		}
		if o.parent.text != "" && st == nil {
			o.parent.node.report("parent is the key of the case of a storm, but rule %s has no storm", r.ID)
		}
		s.checkTemplate(r, &o.parent)
	}
	if st == nil {
		return
	}
	if old := s.byID[st.raise]; old != nil {
		st.node.report("rule %s is there already, in %s:%d; a storm raises the alarms of a rule of its own", st.raise, old.File, old.Line)
		return
	}
	for _, name := range r.Models {
		if m := s.plans[name].model; !hasAttr(m, st.by) {
			st.node.report("storms of rule %s are counted by attr.%s, but model %s has no such attribute%s", r.ID, st.by, name, citywarden.DidYouMean(st.by, attrNames(m)))
			return
		}
	}
	x := &rule{Rule: r.Rule, of: r, node: r.node, index: len(s.rules) + len(s.storms)}
	x.ID, x.Of, x.Severity, x.Title = st.raise, r.ID, st.severity, st.title
	if x.Title == (citywarden.Text{}) {
		x.Title = citywarden.Text{ZH: r.Title.ZH + "（大面积发生）", EN: r.Title.EN + ": many at once"}
	}
	if o != nil {
		if o.hold.src == nil && !o.LifeSafety { // a storm needs that long to show
			o.Hold = citywarden.Duration(time.Duration(st.in) * time.Millisecond)
		}
		up := *o
		up.Storm, up.Hold, up.key, up.parent = true, 0, o.parent, template{}
		if up.key.text == "" {
			up.key = template{text: string(st.raise), parts: []templatePart{{text: string(st.raise) + "/"}, {name: "entity"}}}
		}
		x.order = &up
	}
	st.parent = x
	s.storms = append(s.storms, x)
	s.byID[x.ID] = x
}

// UnknownReceivers returns the escalations to receivers other than those.
func (s *Set) UnknownReceivers(known []string) citywarden.Problems {
	var found citywarden.Problems
	for _, r := range s.rules {
		if r.order == nil {
			continue
		}
		for _, n := range r.order.receivers {
			if name, _ := n.scalar(); !slices.Contains(known, name) {
				n.into(&found).report("rule %s escalates to %q, which is no receiver in the configuration (notices.receivers)%s", r.ID, name, citywarden.DidYouMean(name, known))
			}
		}
	}
	sortProblems(found)
	return found
}

func (x expression) report(err error) {
	if e, ok := err.(*exprError); ok {
		x.node.reportAt(e.at, "%s", e.msg)
		return
	}
	x.node.report("%v", err)
}

// program compiles the conditions of r for devices of p, or reports why not.
func (s *Set) program(r *rule, p *plan) (*program, bool) {
	prog := &program{}
	where := inDevice
	if r.groupBy != "" {
		where = inGroup
	}
	one := func(x expression) (*compiled, bool) {
		c := &compiler{set: s, rule: r, plan: p, where: where, uses: newUses()}
		when, err := compileBool(c, x)
		if err != nil {
			x.report(err)
			return nil, false
		}
		prog.adj = prog.adj || c.uses.adjacent
		return &compiled{when: when.tri, guards: when.guards, uses: c.uses, text: strings.TrimSpace(x.text), members: c.uses.members}, true
	}
	ok := true
	for i := range r.levels {
		l := &r.levels[i]
		c, good := one(l.when)
		ok = ok && good
		if !good {
			continue
		}
		if l.clear != nil {
			c.clear, good = one(l.clear.when)
			ok = ok && good
		}
		prog.levels = append(prog.levels, *c)
	}
	if r.clear != nil {
		c, good := one(r.clear.when)
		ok = ok && good
		prog.clear = c
	}
	return prog, ok
}

// all returns every condition of the program.
func (p *program) all() []*compiled {
	var out []*compiled
	for i := range p.levels {
		out = append(out, &p.levels[i])
		if c := p.levels[i].clear; c != nil {
			out = append(out, c)
		}
	}
	if p.clear != nil {
		out = append(out, p.clear)
	}
	return out
}

// index enters which metrics of p the rule reads, and how far back.
func (s *Set) index(p *plan, r *rule) {
	b := p.byRule[r]
	read := map[int]int64{}
	skew := false
	each := map[int]int64{}
	look := func(u *uses) {
		skew = skew || u.skew
		for _, i := range u.metrics {
			read[i] = max(read[i], u.back[i])
			each[i] = max(each[i], u.each[i])
		}
	}
	longest := int64(0)
	for _, c := range b.prog.all() {
		if r.groupBy == "" {
			look(c.uses)
			b.silent = append(b.silent, c.uses.silent...)
		}
		if c.uses.events && p.event >= 0 {
			read[p.event] = max(read[p.event], 0)
		}
		for _, m := range c.members {
			longest = max(longest, m.within)
			if mc := m.conds[p.index]; mc != nil {
				look(mc.uses)
				b.silent = append(b.silent, mc.uses.silent...)
			}
		}
	}
	hold := r.late
	for _, l := range r.levels {
		hold = max(hold, r.late+l.hold)
	}
	r.silent = r.silent || len(b.silent) > 0
	r.arrival = r.arrival || len(b.silent) > 0 || skew
	for i, back := range read {
		if !r.arrival {
			b.reads |= bit(i)
		}
		// Deadlines look back from a time that can be late + for behind the newest.
		m := &p.memory[i]
		m.keep = max(m.keep, back+hold+longest)
		if b.prog.adj { // evaluated when a neighbour has news, who may be that much behind
			each[i] += r.late + longest
		}
		m.each = max(m.each, each[i])
	}
	if r.arrival {
		p.onAny = append(p.onAny, b.index)
	}
	b.prog.each = 0
	for _, c := range b.prog.all() {
		for _, m := range c.members {
			if r.groupBy != "" && (!m.steady || r.arrival) {
				b.prog.each += m.cost
			}
		}
	}
	if len(read) == 0 && !r.arrival {
		s.warning(r.node, "rule %s reads no metric of model %s and is never evaluated for it", r.ID, p.model.Name)
	}
}

func hasAttr(m *citywarden.Model, name string) bool {
	_, ok := m.Attribute(name)
	return ok
}

func attrNames(m *citywarden.Model) []string {
	var out []string
	for _, a := range m.Attributes {
		out = append(out, a.Name)
	}
	return out
}

// checkTemplate reports placeholders that the models of r cannot fill in.
func (s *Set) checkTemplate(r *rule, t *template) bool {
	ok := true
	for _, part := range t.parts {
		if part.name == "" || slices.Contains([]string{"device", "entity", "rule", "model"}, part.name) {
			continue
		}
		name := strings.TrimPrefix(part.name, "attr.")
		for _, mn := range r.Models {
			m := s.plans[mn].model
			if !hasAttr(m, name) {
				t.node.reportAt(part.at, "model %s has no attribute %q; a placeholder is attr.NAME, device, entity, model or rule%s", mn, name, citywarden.DidYouMean(name, attrNames(m)))
				ok = false
				break
			}
		}
	}
	return ok
}

// fill renders the template for an alarm of rule r on device d.
func (t template) fill(r *rule, entity string, d *device) string {
	if len(t.parts) == 1 {
		return t.text
	}
	var b strings.Builder
	for _, p := range t.parts {
		b.WriteString(p.text)
		if p.name == "" {
			continue
		}
		switch p.name {
		case "rule":
			b.WriteString(string(r.ID))
		case "entity":
			b.WriteString(entity)
		case "device":
			b.WriteString(deviceName(d, entity))
		case "model":
			if d != nil && d.plan != nil {
				b.WriteString(string(d.plan.model.Name))
			}
		default:
			name := strings.TrimPrefix(p.name, "attr.")
			switch v, ok := d.attribute(name); {
			case ok:
				fmt.Fprint(&b, plain(v))
			case name == r.groupBy:
				b.WriteString(entity)
			default: // a case of its own rather than one for all that lack it
				b.WriteString(deviceName(d, entity))
			}
		}
	}
	return b.String()
}

func deviceName(d *device, entity string) string {
	if d == nil {
		return entity
	}
	return string(d.id)
}

// plain returns v in the form that people write.
func plain(v any) any {
	if f, ok := v.(float64); ok {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return v
}
