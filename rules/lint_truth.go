package rules

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"github.com/citywarden/citywarden"
)

// truth is a condition over one changing number, like avg(power, "15m"): limits
// of constants and attributes, joined by and, or and not. Between two of its
// limits its truth is the same, so that trying one value of each stretch is
// trying all of them.
type truth struct {
	m      *citywarden.Model
	n      ast.Node
	over   string // the changing number as written; "" for none
	lo, hi float64
	whole  bool // it has whole values only
	attrs  map[string]*ast.MemberNode
}

// truthOf returns the condition, ok false when it is of another form.
func truthOf(n ast.Node, m *citywarden.Model) (truth, bool) {
	t := truth{m: m, n: n, lo: math.Inf(-1), hi: math.Inf(1), attrs: map[string]*ast.MemberNode{}}
	return t, t.logic(n)
}

func (t *truth) logic(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BoolNode:
		return true
	case *ast.UnaryNode:
		return (n.Operator == "not" || n.Operator == "!") && t.logic(n.Node)
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&", "or", "||":
			return t.logic(n.Left) && t.logic(n.Right)
		case "<", "<=", ">", ">=", "==", "!=":
			return t.limit(n.Left) && t.limit(n.Right) || t.side(n.Left, n.Right) || t.side(n.Right, n.Left)
		}
	}
	return false
}

// side takes x as the changing number and its other side as a limit.
func (t *truth) side(x, other ast.Node) bool {
	if !t.changing(x) || t.over != "" && t.over != x.String() {
		return false
	}
	t.over = x.String()
	return t.limit(other)
}

// changing reports whether n is a number that changes, and notes its range.
func (t *truth) changing(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		switch n.Value {
		case "hour":
			t.lo, t.hi, t.whole = 0, 23, true
			return true
		case "weekday":
			t.lo, t.hi, t.whole = 1, 7, true
			return true
		}
		m, ok := t.m.Metric(citywarden.MetricName(n.Value))
		if !ok || m.Kind != citywarden.KindNumber {
			return false
		}
		if m.Min != nil {
			t.lo = *m.Min
		}
		if m.Max != nil {
			t.hi = *m.Max
		}
		return true
	case *ast.CallNode:
		id, ok := n.Callee.(*ast.IdentifierNode)
		if !ok || len(n.Arguments) == 0 {
			return false
		}
		switch id.Value {
		case "avg", "min", "max", "prev":
			return t.changing(n.Arguments[0])
		case "delta", "rate", "sum":
			return true
		case "stddev":
			t.lo = 0
			return true
		case "n_of", "n_adj", "count":
			t.lo, t.whole = 0, true
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
		if a := attributeOf(t.m, n); a == nil || a.Kind != citywarden.KindNumber {
			return false
		}
		t.attrs[n.String()] = n
		return true
	case *ast.UnaryNode:
		return n.Operator == "-" && t.limit(n.Node)
	case *ast.BinaryNode:
		return strings.Contains("+ - * / ??", n.Operator) && t.limit(n.Left) && t.limit(n.Right)
	}
	return false
}

// at is a value of the changing number, and one that all attributes have
// that have no default.
type at struct{ x, attr float64 }

func (t *truth) number(n ast.Node, v at) float64 {
	if n.String() == t.over {
		return v.x
	}
	switch n := n.(type) {
	case *ast.IntegerNode:
		return float64(n.Value)
	case *ast.FloatNode:
		return n.Value
	case *ast.MemberNode:
		if f, ok := attributeOf(t.m, n).Default.(float64); ok {
			return f
		}
		return v.attr
	case *ast.UnaryNode:
		return -t.number(n.Node, v)
	case *ast.BinaryNode:
		a, b := t.number(n.Left, v), t.number(n.Right, v)
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

func (t *truth) holds(n ast.Node, v at) bool {
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
		return numTest(n.Operator)(t.number(n.Left, v), t.number(n.Right, v))
	}
	return false
}

// limits returns the values at which the truth can change.
func (t *truth) limits(attr float64) []float64 {
	var out []float64
	for n := range nodes(t.n) {
		b, ok := n.(*ast.BinaryNode)
		if !ok {
			continue
		}
		switch b.Operator {
		case "<", "<=", ">", ">=", "==", "!=":
			for _, side := range []ast.Node{b.Left, b.Right} {
				if f := t.number(side, at{attr: attr}); side.String() != t.over && !math.IsNaN(f) && !math.IsInf(f, 0) {
					out = append(out, f)
				}
			}
		}
	}
	return out
}

// tries returns one value of each stretch between limits, and the limits.
func (t *truth) tries(limits []float64) []float64 {
	slices.Sort(limits)
	limits = slices.Compact(limits)
	var out []float64
	add := func(x float64) {
		if x >= t.lo && x <= t.hi {
			out = append(out, x)
		}
	}
	for i, x := range limits {
		add(x)
		if i > 0 {
			add((limits[i-1] + x) / 2)
		}
	}
	for _, x := range []float64{t.lo, t.hi} {
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
	if t.whole {
		var whole []float64
		for _, x := range out {
			for _, w := range []float64{math.Floor(x) - 1, math.Floor(x), math.Ceil(x), math.Ceil(x) + 1} {
				if w >= t.lo && w <= t.hi {
					whole = append(whole, w)
				}
			}
		}
		out = whole
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// attrValues are what attributes without a default are tried with: values in the
// range of the changing number, above zero where there are any, as most limits are.
func (t *truth) attrValues() []float64 {
	switch lo, hi := !math.IsInf(t.lo, 0), !math.IsInf(t.hi, 0); {
	case hi && t.lo < 0 && t.hi > 0:
		return []float64{t.hi / 4, t.hi / 2}
	case lo && hi:
		return []float64{t.lo + (t.hi-t.lo)/4, t.lo + (t.hi-t.lo)/2}
	case lo:
		return []float64{t.lo + 1, t.lo + 10}
	case hi:
		return []float64{t.hi - 1, t.hi - 10}
	}
	return []float64{1, 10}
}

// together returns a value at which each of ts is as wanted, when there is one
// for each value that attributes are tried with.
func together(ts []truth, want []bool) (at, bool) {
	var found at
	for i, attr := range ts[0].attrValues() {
		var limits []float64
		for k := range ts {
			limits = append(limits, ts[k].limits(attr)...)
		}
		k := slices.IndexFunc(ts[0].tries(limits), func(x float64) bool {
			for i := range ts {
				if ts[i].holds(ts[i].n, at{x, attr}) != want[i] {
					return false
				}
			}
			return true
		})
		if k < 0 {
			return at{}, false
		}
		if i == 0 {
			found = at{ts[0].tries(limits)[k], attr}
		}
	}
	return found, true
}

// lintTruth finds conditions that are never or always true, levels that are
// never the highest, a clear that holds together with the level and a level that
// has none.
func (s *Set) lintTruth(r *rule, p *plan) {
	type known struct {
		truth
		ok bool
	}
	levels := make([]known, len(r.levels))
	for i := range r.levels {
		l := &r.levels[i]
		t, ok := truthOf(p.parse(l.when), p.model)
		levels[i] = known{t, ok}
		if !ok {
			continue
		}
		if len(t.attrs) == 0 {
			if _, can := together([]truth{t}, []bool{true}); !can {
				s.warningAt(l.when, t.n, "the condition is never true%s", t.within())
				continue
			}
			if _, can := together([]truth{t}, []bool{false}); !can {
				s.warningAt(l.when, t.n, "the condition is always true%s", t.within())
				continue
			}
		}
		clear := r.clear
		if l.clear != nil {
			clear = l.clear
		}
		if clear == nil {
			s.lintNoClear(l, t)
			continue
		}
		if c, ok := truthOf(p.parse(clear.when), p.model); ok && c.over == t.over && t.over != "" {
			if v, both := together([]truth{t, c}, []bool{true, true}); both {
				s.warningAt(clear.when, c.n, "clear can be true together with level %s: at %s = %s%s both hold; the level wins, and the alarm stays",
					l.severity, t.over, number(v.x), attrNote(v, t, c))
			}
		}
	}
	for i := range r.levels {
		for k := range r.levels {
			low, high := &r.levels[i], &r.levels[k]
			if low.severity >= high.severity || high.hold > low.hold || low.clear != nil || high.clear != nil ||
				!levels[i].ok || !levels[k].ok || levels[i].over == "" || levels[i].over != levels[k].over {
				continue
			}
			apart := false // somewhere the lower level stands alone, for some value of attributes
			a, b := levels[i].truth, levels[k].truth
			for _, attr := range a.attrValues() {
				apart = apart || slices.ContainsFunc(a.tries(append(a.limits(attr), b.limits(attr)...)), func(x float64) bool {
					return a.holds(a.n, at{x, attr}) && !b.holds(b.n, at{x, attr})
				})
			}
			if !apart {
				s.warningAt(low.when, levels[i].n, "level %s is never the highest: level %s is true whenever it is, and as soon", low.severity, high.severity)
				break
			}
		}
	}
}

// attrNote says what attributes were tried with.
func attrNote(v at, ts ...truth) string {
	for _, t := range ts {
		for _, n := range t.attrs {
			if attributeOf(t.m, n).Default == nil {
				return fmt.Sprintf(" and %s = %s", n, number(v.attr))
			}
		}
	}
	return ""
}

// within tells the range that the changing number has.
func (t *truth) within() string {
	switch lo, hi := !math.IsInf(t.lo, 0), !math.IsInf(t.hi, 0); {
	case t.over == "":
		return ""
	case lo && hi:
		return fmt.Sprintf(": %s is from %s to %s", t.over, number(t.lo), number(t.hi))
	case lo:
		return fmt.Sprintf(": %s is at least %s", t.over, number(t.lo))
	case hi:
		return fmt.Sprintf(": %s is at most %s", t.over, number(t.hi))
	}
	return ""
}

// lintNoClear suggests a clear with a deadband for a level that is one limit.
func (s *Set) lintNoClear(l *level, t truth) {
	b, ok := t.n.(*ast.BinaryNode)
	if !ok || t.whole || b.Left.String() != t.over || strings.HasPrefix(t.over, "delta") || strings.HasPrefix(t.over, "rate") {
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
	if len(t.attrs) > 0 {
		limit = b.Right.String()
		if _, is := b.Right.(*ast.BinaryNode); is {
			limit = "(" + limit + ")"
		}
		limit = number(factor) + " * " + limit
	} else {
		x := t.number(b.Right, at{})
		band := math.Abs(x) * 0.1
		if x == 0 {
			band = 0.1
		}
		x += map[string]float64{"<": -band, ">": band}[op]
		if x <= t.lo || x >= t.hi { // no reading would clear it
			return
		}
		limit = number(x)
	}
	s.warningAt(l.when, t.n, "without clear the alarm flaps while %s is around the limit; add a deadband, like clear: {when: '%s %s %s', for: 1m}", t.over, t.over, op, limit)
}
