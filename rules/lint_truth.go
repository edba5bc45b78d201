package rules

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"github.com/citywarden/citywarden"
)

// space is what the conditions of one rule depend on, for devices of one model.
type space struct {
	m     *citywarden.Model
	vars  []variable
	index map[string]int // into vars, by text
}

// variable is a changing number, like avg(power, "15m"), or something that is true
// or false, like a metric of that kind or silent("15m"). Variables are taken to be
// independent of each other, so that what is impossible here is impossible.
type variable struct {
	text   string
	flag   bool
	opaque bool // a flag that other variables may decide, like pressure > avg(pressure, "1h")
	lo, hi float64
	whole  bool // it has whole values only
}

// truth is a condition over the variables of a space: limits of constants and
// attributes, and flags, joined by and, or and not. Between two limits of a variable its truth
// is the same, so that trying one value of each stretch is trying all of them.
type truth struct {
	*space
	n     ast.Node
	at    map[ast.Node]int // the variables in it
	attrs map[string]*ast.MemberNode
}

// truthOf returns the condition, ok false when it is of another form.
func (s *space) truthOf(n ast.Node) (truth, bool) {
	t := truth{space: s, n: n, at: map[ast.Node]int{}, attrs: map[string]*ast.MemberNode{}}
	return t, t.logic(n)
}

func (t *truth) logic(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BoolNode:
		return true
	case *ast.UnaryNode:
		return t.logic(n.Node)
	case *ast.IdentifierNode:
		t.add(n, variable{text: n.Value, flag: true})
		return true
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&", "or", "||":
			return t.logic(n.Left) && t.logic(n.Right)
		case "??":
			if id, ok := n.Left.(*ast.IdentifierNode); ok { // like test ?? false
				t.add(n, variable{text: id.Value, flag: true})
				return true
			}
		case "<", "<=", ">", ">=", "==", "!=":
			if t.limit(n.Left) && t.limit(n.Right) || t.side(n.Left, n.Right) || t.side(n.Right, n.Left) {
				t.note(n)
				return true
			}
		}
		t.add(n, variable{text: n.String(), flag: true, opaque: true})
		return true
	case *ast.MemberNode:
		t.add(n, variable{text: n.String(), flag: true})
		return true
	case *ast.CallNode:
		t.add(n, variable{text: n.String(), flag: true, opaque: true})
		return true
	}
	return false
}

func (t *truth) add(n ast.Node, v variable) {
	i, known := t.index[v.text]
	if !known {
		i = len(t.vars)
		t.vars = append(t.vars, v)
		t.index[v.text] = i
	}
	t.at[n] = i
}

// side takes x as a changing number and its other side as a limit.
func (t *truth) side(x, other ast.Node) bool {
	v := variable{text: x.String(), lo: math.Inf(-1), hi: math.Inf(1)}
	if !t.changing(x, &v) || !t.limit(other) {
		return false
	}
	t.add(x, v)
	return true
}

// changing reports whether n is a number that changes, and notes its range.
func (t *truth) changing(n ast.Node, v *variable) bool {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		switch n.Value {
		case "hour":
			v.lo, v.hi, v.whole = 0, 23, true
			return true
		case "weekday":
			v.lo, v.hi, v.whole = 1, 7, true
			return true
		}
		m, ok := t.m.Metric(citywarden.MetricName(n.Value))
		if !ok || m.Kind != citywarden.KindNumber {
			return false
		}
		if m.Min != nil {
			v.lo = *m.Min
		}
		if m.Max != nil {
			v.hi = *m.Max
		}
		return true
	case *ast.CallNode:
		id, ok := n.Callee.(*ast.IdentifierNode)
		if !ok || len(n.Arguments) == 0 {
			return false
		}
		switch id.Value {
		case "avg", "min", "max", "prev":
			return t.changing(n.Arguments[0], v)
		case "delta", "rate", "sum":
			return true
		case "stddev":
			v.lo = 0
			return true
		case "n_of", "n_adj", "count":
			v.lo, v.whole = 0, true
			return true
		}
	}
	return false
}

// limit reports whether n is made of constants and attributes only.
func (t *truth) limit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		return true
	case *ast.MemberNode:
		a := attributeOf(t.m, n)
		return a != nil && a.Kind == citywarden.KindNumber
	case *ast.UnaryNode:
		return n.Operator == "-" && t.limit(n.Node)
	case *ast.BinaryNode:
		return strings.Contains("+ - * / ??", n.Operator) && t.limit(n.Left) && t.limit(n.Right)
	}
	return false
}

// note keeps the attributes in n.
func (t *truth) note(n ast.Node) {
	for n := range nodes(n) {
		if m, ok := n.(*ast.MemberNode); ok && attributeOf(t.m, m) != nil {
			t.attrs[m.String()] = m
		}
	}
}

// number computes a limit, where attributes without a default are attr.
func (t *truth) number(n ast.Node, attr float64) float64 {
	switch n := n.(type) {
	case *ast.IntegerNode:
		return float64(n.Value)
	case *ast.FloatNode:
		return n.Value
	case *ast.MemberNode:
		if f, ok := attributeOf(t.m, n).Default.(float64); ok {
			return f
		}
		return attr
	case *ast.UnaryNode:
		return -t.number(n.Node, attr)
	case *ast.BinaryNode:
		a, b := t.number(n.Left, attr), t.number(n.Right, attr)
		switch n.Operator {
		case "+":
			return a + b
		case "-":
			return a - b
		case "*":
			return a * b
		case "/":
			return a / b
		case "??":
			return a
		}
	}
	return nan
}

// attempt is a value of each variable, 0 or 1 of a flag, and which of the values
// that they are tried with attributes without a default have.
type attempt struct {
	x    []float64
	attr int
}

func (t *truth) holds(n ast.Node, v attempt) bool {
	if i, ok := t.at[n]; ok {
		return v.x[i] != 0
	}
	switch n := n.(type) {
	case *ast.BoolNode:
		return n.Value
	case *ast.UnaryNode:
		return !t.holds(n.Node, v)
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&":
			return t.holds(n.Left, v) && t.holds(n.Right, v)
		case "or", "||":
			return t.holds(n.Left, v) || t.holds(n.Right, v)
		}
		l, left := t.at[n.Left]
		r, right := t.at[n.Right]
		test := numTest(n.Operator)
		switch {
		case left:
			return test(v.x[l], t.number(n.Right, t.attrValue(l, v.attr)))
		case right:
			return test(t.number(n.Left, t.attrValue(r, v.attr)), v.x[r])
		}
		return test(t.number(n.Left, attrTries[v.attr]), t.number(n.Right, attrTries[v.attr]))
	}
	return false
}

// limits adds the values of each variable at which the truth can change.
func (t *truth) limits(to [][]float64, attr int) {
	for n, i := range t.pairs() {
		if f := t.number(n, t.attrValue(i, attr)); !math.IsNaN(f) && !math.IsInf(f, 0) {
			to[i] = append(to[i], f)
		}
	}
}

// pairs yields each limit and the variable that it limits.
func (t *truth) pairs() func(func(ast.Node, int) bool) {
	return func(yield func(ast.Node, int) bool) {
		for n := range nodes(t.n) {
			b, ok := n.(*ast.BinaryNode)
			if !ok {
				continue
			}
			for _, side := range [][2]ast.Node{{b.Left, b.Right}, {b.Right, b.Left}} {
				if i, ok := t.at[side[0]]; ok && !t.vars[i].flag && !yield(side[1], i) {
					return
				}
			}
		}
	}
}

// tries returns one value of each stretch between limits, and the limits.
func (v *variable) tries(limits []float64) []float64 {
	if v.flag {
		return []float64{0, 1}
	}
	slices.Sort(limits)
	limits = slices.Compact(limits)
	var out []float64
	add := func(x float64) {
		if x >= v.lo && x <= v.hi {
			out = append(out, x)
		}
	}
	for i, x := range limits {
		add(x)
		if i > 0 {
			add((limits[i-1] + x) / 2)
		}
	}
	for _, x := range []float64{v.lo, v.hi} {
		if !math.IsInf(x, 0) {
			add(x)
			limits = append(limits, x)
		}
	}
	if len(limits) == 0 {
		limits = []float64{0}
	}
	slices.Sort(limits)
	least, most := limits[0], limits[len(limits)-1]
	add(least - math.Abs(least) - 1)
	add(most + math.Abs(most) + 1)
	for i := 1; i < len(limits); i++ { // between a limit and the range's end
		add((limits[i-1] + limits[i]) / 2)
	}
	if v.whole {
		var whole []float64
		for _, x := range out {
			for _, w := range []float64{math.Floor(x) - 1, math.Floor(x), math.Ceil(x), math.Ceil(x) + 1} {
				if w >= v.lo && w <= v.hi {
					whole = append(whole, w)
				}
			}
		}
		out = whole
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// attrTries are what attributes without a default are tried with where no
// changing number has a range that tells better.
var attrTries = []float64{1, 10}

// attrValue returns what attributes without a default are tried with as limits of
// variable i: values in its range, above zero where there are any, as most limits are.
func (s *space) attrValue(i, try int) float64 {
	v := &s.vars[i]
	switch lo, hi := !math.IsInf(v.lo, 0), !math.IsInf(v.hi, 0); {
	case hi && v.lo < 0 && v.hi > 0:
		return []float64{v.hi / 4, v.hi / 2}[try]
	case lo && hi:
		return []float64{v.lo + (v.hi-v.lo)/4, v.lo + (v.hi-v.lo)/2}[try]
	case lo:
		return v.lo + attrTries[try]
	case hi:
		return v.hi - attrTries[try]
	}
	return attrTries[try]
}

// maxTrials bounds what one condition is tried with; what would take more is
// not looked at.
const maxTrials = 10_000

// find returns an attempt at which each of ts is as wanted. It is sure when there
// is none otherwise.
func (s *space) find(attr int, ts []truth, want []bool) (v attempt, found, sure bool) {
	tries, limits := make([][]float64, len(s.vars)), make([][]float64, len(s.vars))
	for k := range ts {
		ts[k].limits(limits, attr)
	}
	all := 1
	for i := range s.vars {
		tries[i] = []float64{0}
		if slices.ContainsFunc(ts, func(t truth) bool { return t.reads(i) }) {
			tries[i] = s.vars[i].tries(limits[i])
		}
		if all *= len(tries[i]); all > maxTrials {
			return attempt{}, false, false
		}
	}
	v = attempt{make([]float64, len(s.vars)), attr}
	for k := range all {
		for i, xs := range tries {
			v.x[i] = xs[k%len(xs)]
			k /= len(xs)
		}
		ok := true
		for i := range ts {
			ok = ok && ts[i].holds(ts[i].n, v) == want[i]
		}
		if ok {
			return v, true, true
		}
	}
	return attempt{}, false, true
}

func (t *truth) reads(i int) bool {
	for _, k := range t.at {
		if k == i {
			return true
		}
	}
	return false
}

// together returns an attempt at which each of ts is as wanted, when there is one
// for each value that attributes are tried with.
func (s *space) together(ts []truth, want ...bool) (v attempt, can, sure bool) {
	for attr := range attrTries {
		at, found, known := s.find(attr, ts, want)
		if !found {
			return attempt{}, false, known
		}
		if attr == 0 {
			v = at
		}
	}
	return v, true, true
}

// lintTruth finds conditions that are never or always true, levels that are
// never the highest, a clear that holds together with the level and a level that
// has none.
func (s *Set) lintTruth(r *rule, p *plan) {
	sp := &space{m: p.model, index: map[string]int{}}
	levels := make([]truth, len(r.levels))
	known := make([]bool, len(r.levels))
	for i := range r.levels {
		l := &r.levels[i]
		t, ok := sp.truthOf(p.parse(l.when))
		if !ok {
			continue
		}
		if len(t.attrs) == 0 {
			if _, can, sure := sp.together([]truth{t}, true); !can && sure {
				s.warningAt(l.when, t.n, "the condition is never true%s", t.within())
				continue
			}
			if _, can, sure := sp.together([]truth{t}, false); !can && sure {
				s.warningAt(l.when, t.n, "the condition is always true%s", t.within())
				continue
			}
		}
		levels[i], known[i] = t, true
		clear := r.clear
		if l.clear != nil {
			clear = l.clear
		}
		if clear == nil {
			s.lintNoClear(l, t)
			continue
		}
		c, ok := sp.truthOf(p.parse(clear.when))
		if !ok {
			continue
		}
		for _, n := range joined(t.n, "or", "||") { // a clear is about one of them, and waits for the others by itself
			part, _ := sp.truthOf(n)
			if !c.about(part) {
				continue
			}
			if v, both, _ := sp.together([]truth{part, c}, true, true); both {
				s.warningAt(clear.when, c.n, "clear can be true together with level %s: at %s both hold; the level wins, and the alarm stays",
					l.severity, sp.values(v, part, c))
				break
			}
		}
	}
	for i := range r.levels {
		for k := range r.levels {
			low, high := &r.levels[i], &r.levels[k]
			if low.severity >= high.severity || high.hold > low.hold || low.clear != nil || high.clear != nil || !known[i] || !known[k] {
				continue
			}
			apart := false // somewhere the lower level stands alone, for some value of attributes
			for attr := range attrTries {
				_, found, sure := sp.find(attr, []truth{levels[i], levels[k]}, []bool{true, false})
				apart = apart || found || !sure
			}
			if !apart {
				s.warningAt(low.when, levels[i].n, "level %s is never the highest: level %s is true whenever it is, and as soon", low.severity, high.severity)
				break
			}
		}
	}
}

// about reports whether t is about nothing but what o is about, and none of it
// decides another part.
func (t *truth) about(o truth) bool {
	for _, i := range t.at {
		if !o.reads(i) {
			return false
		}
	}
	for _, i := range o.at {
		if o.vars[i].opaque {
			return false
		}
	}
	return len(t.at) > 0
}

// values says what v has tried ts with.
func (s *space) values(v attempt, ts ...truth) string {
	var out []string
	for i, x := range s.vars {
		if !slices.ContainsFunc(ts, func(t truth) bool { return t.reads(i) }) {
			continue
		}
		if x.flag {
			out = append(out, fmt.Sprintf("%s = %t", x.text, v.x[i] != 0))
			continue
		}
		out = append(out, x.text+" = "+number(v.x[i]))
	}
	for _, t := range ts {
		for limit, i := range t.pairs() {
			for n := range nodes(limit) {
				m, ok := n.(*ast.MemberNode)
				if !ok || attributeOf(t.m, m).Default != nil {
					continue
				}
				if text := fmt.Sprintf("%s = %s", m, number(s.attrValue(i, v.attr))); !slices.Contains(out, text) {
					out = append(out, text)
				}
			}
		}
	}
	return strings.Join(out, " and ")
}

// within tells the ranges that the changing numbers have.
func (t *truth) within() string {
	out := ""
	for i, v := range t.vars {
		if v.flag || !t.reads(i) {
			continue
		}
		switch lo, hi := !math.IsInf(v.lo, 0), !math.IsInf(v.hi, 0); {
		case lo && hi:
			out += fmt.Sprintf(", %s is from %s to %s", v.text, number(v.lo), number(v.hi))
		case lo:
			out += fmt.Sprintf(", %s is at least %s", v.text, number(v.lo))
		case hi:
			out += fmt.Sprintf(", %s is at most %s", v.text, number(v.hi))
		}
	}
	if out == "" {
		return ""
	}
	return ":" + out[1:]
}

// oneLimit returns the limit that t is, or the only one of the conditions that
// have to hold together; nil when there is none. Whole numbers don't linger at a limit.
func (t *truth) oneLimit() *ast.BinaryNode {
	var only *ast.BinaryNode
	for _, n := range joined(t.n, "and", "&&") {
		limits := false
		for n := range nodes(n) {
			i, ok := t.at[n]
			limits = limits || ok && !t.vars[i].flag && !t.vars[i].whole
		}
		if !limits {
			continue
		}
		b, _ := n.(*ast.BinaryNode)
		if b == nil || only != nil {
			return nil
		}
		if _, ok := t.at[b.Left]; !ok {
			return nil
		}
		only = b
	}
	return only
}

// joined returns what n joins by one of the operators.
func joined(n ast.Node, operators ...string) []ast.Node {
	if b, ok := n.(*ast.BinaryNode); ok && slices.Contains(operators, b.Operator) {
		return append(joined(b.Left, operators...), joined(b.Right, operators...)...)
	}
	return []ast.Node{n}
}

// lintNoClear suggests a clear with a deadband for a level that is one limit.
func (s *Set) lintNoClear(l *level, t truth) {
	b := t.oneLimit()
	if b == nil {
		return
	}
	v := t.vars[t.at[b.Left]]
	if strings.HasPrefix(v.text, "delta") || strings.HasPrefix(v.text, "rate") {
		return
	}
	op, factor := "<", 0.9
	switch b.Operator {
	case ">", ">=":
	case "<", "<=":
		op, factor = ">", 1.1
	default:
		return
	}
	limit := ""
	if slices.ContainsFunc(slices.Collect(nodes(b.Right)), func(n ast.Node) bool { _, is := n.(*ast.MemberNode); return is }) {
		limit = b.Right.String()
		if _, is := b.Right.(*ast.BinaryNode); is {
			limit = "(" + limit + ")"
		}
		limit = number(factor) + " * " + limit
	} else {
		x := t.number(b.Right, 0)
		band := math.Abs(x) * 0.1
		if x == 0 {
			band = 0.1
		}
		x += map[string]float64{"<": -band, ">": band}[op]
		if x <= v.lo || x >= v.hi { // no reading would clear it
			return
		}
		limit = number(x)
	}
	s.warningAt(l.when, b, "without clear the alarm flaps while %s is around the limit; add a deadband, like clear: {when: '%s %s %s', for: 1m}", v.text, v.text, op, limit)
}
