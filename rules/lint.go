package rules

import (
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"

	"github.com/citywarden/citywarden"
)

// lint looks for conditions that compile but don't say what was meant. Units
// that don't match are mistakes; the rest are warnings. It runs over rules
// that are right, in time that is linear in their text but for the pairs of
// at most maxLevels levels.
func (s *Set) lint() {
	for _, r := range s.rules {
		if r.wrong {
			continue
		}
		before := len(*r.node.src.found)
		for _, name := range r.Models {
			p := s.plans[name]
			clear(p.trees)
			for _, x := range r.conditions() {
				(&units{m: p.model, at: x}).of(p.parse(x))
			}
			s.lintEvents(r, p)
			if len(*r.node.src.found) > before {
				break // the other models would say the same
			}
		}
		if len(*r.node.src.found) > before {
			continue
		}
		warned := len(s.warn)
		for _, name := range r.Models {
			s.lintZero(r, s.plans[name])
			s.lintTimes(r, s.plans[name])
			s.lintTruth(r, s.plans[name])
			if len(s.warn) > warned {
				break
			}
		}
	}
}

// conditions returns every condition of r.
func (r *rule) conditions() []expression {
	var out []expression
	for i := range r.levels {
		out = append(out, r.levels[i].when)
		if c := r.levels[i].clear; c != nil {
			out = append(out, c.when)
		}
	}
	if r.clear != nil {
		out = append(out, r.clear.when)
	}
	return out
}

// parse returns the tree of a condition that has compiled. It keeps those of the
// rule that is looked at.
func (p *plan) parse(x expression) ast.Node {
	if n := p.trees[x.text]; n != nil {
		return n
	}
	tree, err := parser.ParseWithConfig(x.text, p.language)
	if err != nil {
		return &ast.NilNode{}
	}
	if p.trees == nil {
		p.trees = map[string]ast.Node{}
	}
	p.trees[x.text] = tree.Node
	return tree.Node
}

func (s *Set) warningAt(x expression, n ast.Node, format string, args ...any) {
	x.node.into(&s.warn).reportAt(n.Location().From, format, args...)
}

// units finds the unit of each part of a condition, "" where it isn't known, and
// reports two that don't match.
type units struct {
	m  *citywarden.Model
	at expression
}

func (u *units) of(n ast.Node) string {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		if m, ok := u.m.Metric(citywarden.MetricName(n.Value)); ok {
			return m.Unit
		}
	case *ast.MemberNode:
		if a := attributeOf(u.m, n); a != nil {
			return a.Unit
		}
	case *ast.UnaryNode:
		return u.of(n.Node)
	case *ast.BuiltinNode:
		for _, a := range n.Arguments {
			if unit := u.of(a); unit != "" {
				return unit
			}
		}
	case *ast.CallNode:
		return u.call(n)
	case *ast.ConditionalNode:
		u.of(n.Cond)
		a, b := u.of(n.Exp1), u.of(n.Exp2)
		if a == b {
			return a
		}
	case *ast.BinaryNode:
		a, b := u.of(n.Left), u.of(n.Right)
		switch n.Operator {
		case "<", "<=", ">", ">=", "==", "!=":
			u.same(n, a, b)
		case "+", "-", "??":
			u.same(n, a, b)
			if a == "" {
				return b
			}
			return a
		}
	}
	return ""
}

func (u *units) call(n *ast.CallNode) string {
	units := make([]string, len(n.Arguments))
	for i, a := range n.Arguments {
		units[i] = u.of(a)
	}
	switch id, _ := n.Callee.(*ast.IdentifierNode); {
	case id == nil || len(units) == 0:
	case id.Value == "rate" && units[0] != "":
		return units[0] + "/s"
	case slices.Contains([]string{"avg", "min", "max", "sum", "stddev", "prev", "delta"}, id.Value):
		return units[0]
	}
	return ""
}

func (u *units) same(n *ast.BinaryNode, a, b string) {
	if a == "" || b == "" || a == b {
		return
	}
	factor, ok := citywarden.UnitFactor(a, b)
	if !ok {
		u.at.node.reportAt(n.Location().From, "%s is in %s, but %s in %s; the two don't go together", n.Left, a, n.Right, b)
		return
	}
	if factor == 1 {
		return
	}
	u.at.node.reportAt(n.Location().From, "%s is in %s, but %s in %s; multiply %s by %s", n.Left, a, n.Right, b, n.Left, number(factor))
}

// number writes f with at most six digits.
func number(f float64) string { return strconv.FormatFloat(f, 'g', 6, 64) }

func attributeOf(m *citywarden.Model, n *ast.MemberNode) *citywarden.Attribute {
	id, ok := n.Node.(*ast.IdentifierNode)
	name, is := n.Property.(*ast.StringNode)
	if !ok || !is || id.Value != "attr" {
		return nil
	}
	a, _ := m.Attribute(name.Value)
	return a
}

// lintEvents finds events that nobody can say happened: a group hears its members, a
// device itself and its neighbours, which may be of any model.
func (s *Set) lintEvents(r *rule, p *plan) {
	for _, x := range r.conditions() {
		tree := p.parse(x)
		ofMembers := map[ast.Node]bool{}
		for n := range nodes(tree) {
			if c, ok := calls(n, "n_of", "n_adj"); ok && len(c.Arguments) > 0 {
				for e := range nodes(c.Arguments[0]) {
					ofMembers[e] = true
				}
			}
		}
		for n := range nodes(tree) {
			c, ok := calls(n, "event")
			if !ok || len(c.Arguments) == 0 {
				continue
			}
			name, ok := c.Arguments[0].(*ast.StringNode)
			if !ok {
				continue
			}
			if r.groupBy != "" && !ofMembers[n] {
				v := s.voices(func(m citywarden.ModelName) bool { return slices.Contains(r.Models, m) })
				if !v.mayHave(name.Value) {
					x.node.reportAt(name.Location().From, "no member of the groups of rule %s says the event %q%s", r.ID, name.Value, v.hint(name.Value))
				}
				continue
			}
			own := s.voices(func(m citywarden.ModelName) bool { return m == p.model.Name })
			if own.mayHave(name.Value) {
				continue
			}
			switch v := s.voices(func(citywarden.ModelName) bool { return true }); {
			case !v.mayHave(name.Value):
				x.node.reportAt(name.Location().From, "no model has the event %q%s", name.Value, v.hint(name.Value))
			case !slices.Contains(v.names, name.Value):
				s.warningAt(x, name, "model %s doesn't have the event %q; only a neighbour of model %s, which doesn't declare its events, may say it%s",
					p.model.Name, name.Value, v.free[0], v.hint(name.Value))
			}
		}
	}
}

// calls returns n as a call of one of those functions.
func calls(n ast.Node, names ...string) (*ast.CallNode, bool) {
	c, ok := n.(*ast.CallNode)
	if !ok {
		return nil, false
	}
	id, ok := c.Callee.(*ast.IdentifierNode)
	return c, ok && slices.Contains(names, id.Value)
}

// voices is what devices of some models may say happened.
type voices struct {
	names []string               // that their models declare
	free  []citywarden.ModelName // of models that declare none, so that it is anything
}

// voices returns those of the models that of picks, as far as the schema tells them.
func (s *Set) voices(of func(citywarden.ModelName) bool) voices {
	var v voices
	for _, m := range s.models() {
		e, ok := m.Metric(citywarden.EventMetric)
		switch {
		case !of(m.Name) || !ok || e.Kind != citywarden.KindText:
		case len(m.Events) == 0:
			v.free = append(v.free, m.Name)
		default:
			for _, x := range m.Events {
				v.names = append(v.names, x.Name)
			}
		}
	}
	return v
}

func (v voices) mayHave(name string) bool { return len(v.free) > 0 || slices.Contains(v.names, name) }

// hint says what else name may have been meant to be.
func (v voices) hint(name string) string {
	if h := citywarden.DidYouMean(name, v.names); h != "" || len(v.names) == 0 {
		return h
	}
	slices.Sort(v.names)
	return "; there are " + strings.Join(slices.Compact(v.names), ", ")
}

// lintZero finds divisions by a 0 that is written there.
func (s *Set) lintZero(r *rule, p *plan) {
	for _, x := range r.conditions() {
		for n := range nodes(p.parse(x)) {
			b, ok := n.(*ast.BinaryNode)
			if ok && (b.Operator == "/" || b.Operator == "%") && (b.Right.String() == "0" || b.Right.String() == "0.0") {
				s.warningAt(x, b, "%s is always unknown: it divides by 0", b)
			}
		}
	}
}

// lintTimes compares the times of r with how often devices of p report.
func (s *Set) lintTimes(r *rule, p *plan) {
	report := p.model.Report.Std().Milliseconds()
	if report == 0 {
		return
	}
	inspect := func(x expression, hold int64) {
		for n := range nodes(p.parse(x)) {
			switch n := n.(type) {
			case *ast.CallNode:
				w, ok := windowOf(n)
				if ok && w < report {
					s.warningAt(x, n, "a %s reports each %s, so that a window of %s is mostly empty and %s unknown; make it longer",
						p.model.Name, span(report), span(w), n)
				}
			case *ast.IdentifierNode:
				i := slices.IndexFunc(p.model.Metrics, func(m citywarden.Metric) bool { return string(m.Name) == n.Value })
				if i >= 0 && p.stale[i] > 0 && p.stale[i] < report && p.stale[i] < hold {
					s.warningAt(x, n, "for %s can't elapse: %s is unknown after %s, but a %s reports each %s", span(hold), n.Value, span(p.stale[i]), p.model.Name, span(report))
				}
			}
		}
	}
	for i := range r.levels {
		inspect(r.levels[i].when, r.levels[i].hold)
		if c := r.levels[i].clear; c != nil {
			inspect(c.when, c.hold)
		}
	}
	if r.clear != nil {
		inspect(r.clear.when, r.clear.hold)
	}
}

// windowOf returns how far back a call looks that needs a sample there, ms.
func windowOf(n *ast.CallNode) (int64, bool) {
	id, ok := n.Callee.(*ast.IdentifierNode)
	if !ok || len(n.Arguments) != 2 || !slices.Contains([]string{"avg", "min", "max", "sum", "stddev"}, id.Value) {
		return 0, false
	}
	text, ok := n.Arguments[1].(*ast.StringNode)
	if !ok {
		return 0, false
	}
	d, err := citywarden.ParseDuration(text.Value)
	return d.Std().Milliseconds(), err == nil
}

// nodes yields the parts of a condition.
func nodes(n ast.Node) func(func(ast.Node) bool) {
	return func(yield func(ast.Node) bool) {
		more := true
		ast.Walk(&n, visitor(func(n ast.Node) { more = more && yield(n) }))
	}
}

type visitor func(ast.Node)

func (v visitor) Visit(n *ast.Node) { v(*n) }
