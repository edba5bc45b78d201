package rules

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"github.com/expr-lang/expr/ast"
)

// guard is a part of a condition without which the condition is not true. A rule
// that is at rest is looked at only when one of its guards is true, so a message
// costs what it may raise, not how many rules there are.
type guard struct {
	text   string // what num or tri computes, as written
	op     string // < <= > >= between num and limit; "" for tri
	num    func(*env) float64
	limit  float64
	unless *code // the limit where it is known, as in "x > (attr.limit ?? 5)"; nil for none
	tri    func(*env) tri
	metric int         // 1 + the metric that num reads, else 0
	member *memberCall // n_of(…) >= k, k > 0: only a member that satisfies it makes it truer
}

// guards returns the guards of the condition that n was compiled to.
func (c code) guarded(n ast.Node) []guard {
	if c.guards != nil {
		return c.guards
	}
	return []guard{{text: n.String(), tri: c.tri}}
}

// bothGuards returns the guards of "l and r", or of "l or r".
func bothGuards(and bool, l, r []guard) []guard {
	members := func(g guard) bool { return g.member != nil }
	if !and || slices.ContainsFunc(l, members) || slices.ContainsFunc(r, members) {
		// What makes n_of truer may come long before the rest is true.
		return slices.Concat(l, r)
	}
	unordered := func(gs []guard) int {
		n := 0
		for i := range gs {
			if gs[i].op == "" {
				n++
			}
		}
		return n
	}
	if cmp.Or(cmp.Compare(unordered(r), unordered(l)), cmp.Compare(len(r), len(l))) < 0 {
		return r
	}
	return l
}

// compareGuard returns the guard of a comparison, nil when it is of no kind
// that can be kept sorted.
func compareGuard(n *ast.BinaryNode, l, r code) []guard {
	op, left := n.Operator, n.Left
	if l.konst != nil {
		l, r, op, left = r, l, mirror(op), n.Right
	}
	var unless *code
	key := left.String()
	if f := r.fallback; f != nil {
		unless, key = &f.first, key+" ? "+f.text
		r = f.rest
	}
	limit, ok := r.konst.(float64)
	if !ok || l.konst != nil || l.num == nil || math.IsNaN(limit) {
		return nil
	}
	if l.count != nil {
		if unless != nil {
			return nil
		}
		if m := l.of; !m.adjacent && (op == ">" && limit >= 0 || op == ">=" && limit > 0) {
			return []guard{{member: m}}
		}
		return nil
	}
	switch op {
	case "<", "<=", ">", ">=":
		return []guard{{text: key, op: op, num: l.num, limit: limit, unless: unless, metric: l.metric}}
	}
	return nil
}

// watch finds the rules of one lane that a new value of one metric may raise.
type watch struct {
	always []int // bindings that are looked at whatever the values are
	wide   []int // bindings that read other metrics as well

	// A value from low to high raises no rule at rest. Where more than the
	// value has to be looked at, there is none such.
	low, high float64
	ladders   []*ladder
	others    []*watched
	index     map[watchKey]int // into ladders and others, while the plan is built
}

// ladder is a number and the limits that rules compare it with, those that are
// true of the most values first.
type ladder struct {
	watched
	op     string
	num    func(*env) float64
	limits []float64 // of watched.bindings
	unless *code
	metric int // 1 + the metric that num reads, else 0
}

// fallback is a number with a constant in case that it is unknown.
type fallback struct {
	text        string // first
	first, rest code
}

// watched is a condition that guards bindings.
type watched struct {
	key      watchKey
	rule     *rule // whose time zone it runs in
	tri      func(*env) tri
	bindings []int
}

// watchKey tells conditions apart: two rules with the same one share a watched.
type watchKey struct {
	text, op, zone string
	held           bool
}

// guard enters binding b of plan p.
func (w *watch) guard(p *plan, b *binding) {
	gs := b.guards(p)
	if gs == nil {
		w.always = append(w.always, b.index)
		return
	}
	for _, g := range gs {
		x := watched{key: watchKey{text: g.text, op: g.op, held: b.rule.groupBy != ""}, rule: b.rule, tri: g.tri}
		if s := b.rule.schedule; s != nil {
			x.key.zone = s.loc.String()
		}
		i, known := w.index[x.key]
		switch {
		case known:
		case g.op == "":
			i, w.others = len(w.others), append(w.others, &x)
		default:
			i, w.ladders = len(w.ladders), append(w.ladders, &ladder{watched: x, op: g.op, num: g.num, unless: g.unless, metric: g.metric})
		}
		w.index[x.key] = i
		if g.op == "" {
			w.others[i].bindings = append(w.others[i].bindings, b.index)
			continue
		}
		w.ladders[i].bindings = append(w.ladders[i].bindings, b.index)
		w.ladders[i].limits = append(w.ladders[i].limits, g.limit)
	}
}

// guards returns what guards the rule for devices of p, nil for a rule that has
// to be looked at with every value.
func (b *binding) guards(p *plan) []guard {
	if b.prog.adj {
		return nil // it is the neighbours' rule that may be raised
	}
	var out []guard
	for i := range b.prog.levels {
		for _, g := range b.prog.levels[i].guards {
			if b.rule.groupBy == "" {
				out = append(out, g)
				continue
			}
			// Of a group, only what members hold up can be told from one of them.
			if g.member == nil || b.rule.late > 0 {
				return nil
			}
			cond := g.member.conds[p.index]
			if cond.uses.moving {
				return nil
			}
			out = append(out, cond.guards...)
		}
	}
	return out
}

func (l *ladder) sort() {
	type step struct {
		limit   float64
		binding int
	}
	steps := make([]step, len(l.limits))
	for i := range steps {
		steps[i] = step{l.limits[i], l.bindings[i]}
	}
	slices.SortStableFunc(steps, func(a, b step) int {
		if l.op[0] == '<' {
			a, b = b, a
		}
		return cmp.Compare(a.limit, b.limit)
	})
	for i, s := range steps {
		l.limits[i], l.bindings[i] = s.limit, s.binding
	}
}

// holding returns the bindings whose comparison is true.
func (l *ladder) holding(v *env) []int {
	x := l.num(v)
	if l.unless != nil {
		if limit := l.unless.num(v); limit == limit {
			if l.met(x, limit) {
				return l.bindings
			}
			return nil
		}
	}
	n := 0
	for n < len(l.limits) && l.met(x, l.limits[n]) {
		n++
	}
	return l.bindings[:n]
}

func (l *ladder) met(x, limit float64) bool {
	switch l.op {
	case ">":
		return x > limit
	case ">=":
		return x >= limit
	case "<":
		return x < limit
	}
	return x <= limit
}

// watchOver builds the plan's index, once all its bindings are there.
func (p *plan) watchOver() {
	p.watches = make([][]watch, len(p.lates))
	for k := range p.watches {
		p.watches[k] = make([]watch, min(len(p.model.Metrics), 64))
		for i := range p.watches[k] {
			p.watches[k][i].index = map[watchKey]int{}
		}
	}
	for _, b := range p.bindings {
		for m := b.reads; m != 0; m &= m - 1 {
			w := &p.watches[b.lane][bits.TrailingZeros64(m)]
			w.guard(p, b)
			if b.reads&(b.reads-1) != 0 || bits.TrailingZeros64(m) == 63 { // metrics beyond 63 share a bit
				w.wide = append(w.wide, b.index)
			}
		}
	}
	for k := range p.watches {
		for i := range p.watches[k] {
			w := &p.watches[k][i]
			w.index = nil
			for _, l := range w.ladders {
				l.sort()
			}
			w.low, w.high = w.calm(i)
		}
	}
	for i := range p.memory {
		m := &p.memory[i]
		if m.low, m.high = 1, 0; len(p.lates) > 0 && p.lates[0] == 0 {
			w := &p.watches[0][min(i, 63)]
			m.low, m.high = w.low, w.high
		}
	}
}

// calm returns between which values of metric i no rule at rest is raised; none
// when it takes more to tell.
func (w *watch) calm(i int) (low, high float64) {
	low, high = math.Inf(-1), math.Inf(1)
	if len(w.always)+len(w.others) > 0 || i == 63 { // metrics beyond 63 share a watch
		return 1, 0
	}
	for _, l := range w.ladders {
		if l.metric != i+1 || l.unless != nil {
			return 1, 0
		}
		switch first := l.limits[0]; l.op {
		case ">":
			high = min(high, first)
		case ">=":
			high = min(high, math.Nextafter(first, math.Inf(-1)))
		case "<":
			low = max(low, first)
		case "<=":
			low = max(low, math.Nextafter(first, math.Inf(1)))
		}
	}
	return low, high
}

// candidates appends the bindings of lane k that the new values of d at p.ts
// may concern, in the order of the rules: those that may be raised, and those
// that are not at rest.
func (e *Engine) candidates(list []int, d *device, k int, p point) []int {
	begin := len(list)
	if len(d.awake) > 0 {
		list = e.awake(list, d, k, p.mask)
	}
	for m := p.mask; m != 0; m &= m - 1 {
		i := bits.TrailingZeros64(m)
		w := &d.plan.watches[k][i]
		if s := d.rings[i].at(p.ts); s != nil && w.low <= s.v && s.v <= w.high { // as most of the time
			continue
		}
		e.scratch = env{e: e, d: d, at: p.ts, now: e.now}
		v := &e.scratch
		list = append(list, w.always...)
		for _, l := range w.ladders {
			v.see(e, &l.watched)
			list = append(list, l.holding(v)...)
		}
		for _, o := range w.others {
			v.see(e, o)
			if o.tri(v) == yes {
				list = append(list, o.bindings...)
			}
		}
	}
	if len(list)-begin > 1 {
		slices.Sort(list[begin:])
		list = list[:begin+len(slices.Compact(list[begin:]))]
	}
	return list
}

// see makes v what w is evaluated with.
func (v *env) see(e *Engine, w *watched) {
	v.held, v.tz = w.key.held, &e.runs[w.rule.index].zone
}

// awake appends the bindings of lane k that read metrics of mask and are not at
// rest, and strikes those that are from the device's list.
func (e *Engine) awake(list []int, d *device, k int, mask uint64) []int {
	keep := d.awake[:0]
	for _, j := range d.awake {
		b := d.plan.bindings[j]
		if b.lane != k || b.reads&mask == 0 {
			keep = append(keep, j)
			continue
		}
		inst, fresh := (*instance)(nil), false
		g := d.group(b)
		if g != nil {
			inst, fresh = g.inst, g.fresh
			if g.census != nil {
				g.census.hear(d, b)
			}
		} else {
			inst = d.instance(b)
		}
		if !fresh && inst.resting() {
			if inst != nil {
				inst.roused = false
			}
			if g != nil && g.attended() {
				keep = append(keep, j)
			}
			continue
		}
		keep = append(keep, j)
		list = append(list, j)
	}
	d.awake = keep
	return list
}

// rouse puts binding b on the list of those that every value concerns, until it
// is found at rest.
func (d *device) rouse(b *binding) {
	if i, found := slices.BinarySearch(d.awake, b.index); !found {
		d.awake = slices.Insert(d.awake, i, b.index)
	}
}

// rouse puts an instance that is not at rest on the lists of its devices.
func (inst *instance) rouse() {
	if inst.roused {
		return
	}
	inst.roused = true
	if inst.d != nil {
		inst.d.rouse(inst.b)
		return
	}
	if inst.g == nil { // of a storm: its children move it
		return
	}
	for _, m := range inst.g.members {
		m.rouse(m.plan.binding(inst.run.rule))
	}
}

// resting reports that the next value matters only if it raises the rule; true
// of no instance as well. One that its schedule holds back is not at rest.
func (inst *instance) resting() bool { return inst == nil || !inst.raising && inst.idle() }

// untouched reports that the instance was never evaluated nor waits to be; true of
// no instance as well.
func (inst *instance) untouched() bool {
	return inst == nil || inst.clock == math.MinInt64 && len(inst.wakes()) == 0
}

// idle reports that no timer is needed.
func (inst *instance) idle() bool {
	return inst.quiet() && (inst.rare == nil || len(inst.rare.wakes) == 0 && inst.rare.shelved == 0)
}

// quiet reports that nothing is going on.
func (inst *instance) quiet() bool {
	return !inst.open && !slices.ContainsFunc(inst.levels, func(l levelState) bool { return l.state != normal })
}
