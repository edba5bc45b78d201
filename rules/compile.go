package rules

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"

	"github.com/citywarden/citywarden"
)

// tri is a truth value of Kleene's three-valued logic.
type tri uint8

const (
	no tri = iota
	yes
	unknown
)

var triNames = [...]string{"false", "true", "unknown"}

func (t tri) String() string { return triNames[t] }

func triOf(b bool) tri {
	if b {
		return yes
	}
	return no
}

func (t tri) not() tri {
	switch t {
	case no:
		return yes
	case yes:
		return no
	}
	return unknown
}

var nan = math.NaN()

// env is what a condition sees when it is evaluated.
type env struct {
	e    *Engine
	d    *device // whose metrics and attributes; nil outside the members of a group
	g    *group  // of a rule with group
	at   int64   // as of this event time, ms
	now  int64   // arrival clock, ms
	tz   *zone
	held bool // values count however old they are
}

// code is a compiled expression: exactly one of num, tri and text is set. An
// unknown number is NaN, an unknown text has ok false.
type code struct {
	kind   citywarden.Kind
	num    func(*env) float64
	tri    func(*env) tri
	text   func(*env) (string, bool)
	konst  any                         // float64, bool or string when the value never changes
	count  func(*env) (lo, hi float64) // of n_of and n_adj: certainly and possibly satisfied
	of     *memberCall                 // that count counts
	guards []guard                     // of a condition; nil: itself

	fallback *fallback // what it is made of, when it is a number like attr.limit ?? 5
	attr     int       // 1 + the attribute it is, else 0
	metric   int       // 1 + the metric it is, else 0
}

// value returns what the code evaluates to, nil for unknown.
func (c code) value(v *env) any {
	switch {
	case c.num != nil:
		if f := c.num(v); !math.IsNaN(f) {
			return f
		}
	case c.tri != nil:
		if t := c.tri(v); t != unknown {
			return t == yes
		}
	case c.text != nil:
		if s, ok := c.text(v); ok {
			return s
		}
	}
	return nil
}

// leaf is one comparison, or a bare bool, for explanations.
type leaf struct {
	text        string
	op          string
	left, right code
	result      func(*env) tri
}

// attrUse is an attribute that an expression reads.
type attrUse struct {
	index    int
	optional bool // a ?? stands behind it
	fallback any  // constant right side of ??, nil for none
}

// windowUse is a call that looks back in time.
type windowUse struct {
	text   string
	metric int
	window int // of memory.windows, -1 when single samples are looked at
	within int64
	value  code
}

// uses is what an expression reads, and what explains it.
type uses struct {
	metrics  []int              // own metrics, by index in the model
	back     map[int]int64      // how far back each is read, ms
	each     map[int]int64      // how far back single samples of it are read, ms
	adjacent bool               // looks at neighbours
	silent   []func(*env) int64 // the durations of silent(), ms, -1 unknown
	events   bool
	skew     bool
	moving   bool // the result can change without a new value
	cost     int  // of an evaluation, about as many values as it reads
	leaves   []leaf
	attrs    []attrUse
	windows  []windowUse
	members  []*memberCall
}

func (u *uses) metric(i int, back int64) {
	if !slices.Contains(u.metrics, i) {
		u.metrics = append(u.metrics, i)
	}
	u.back[i] = max(u.back[i], back)
}

func newUses() *uses {
	return &uses{back: map[int]int64{}, each: map[int]int64{}}
}

// memberCall is n_of or n_adj.
type memberCall struct {
	text     string
	adjacent bool
	within   int64
	conds    map[int]*memberCond // by model index
	cost     int                 // of one member
	steady   bool                // only a member's own new values, and their age, change whether it satisfies it
}

// memberCond is the condition of a memberCall for members of one model.
type memberCond struct {
	tri    func(*env) tri
	uses   *uses
	guards []guard
}

// Limits of one expression.
const (
	maxNodes      = 500
	maxText       = 4096 // characters
	maxCountBack  = 512  // samples that count(cond) looks at
	maxWindow     = int64(31 * 24 * 3600 * 1000)
	maxRegexp     = 256
	maxInt        = 1 << 53
	maxNestingAST = 60
	maxCost       = 200_000    // of evaluating one condition, for one device
	maxMemberCost = 100_000    // of the condition of n_of and n_adj, for one member
	maxGroupCost  = 20_000_000 // of looking at the members of a group; those beyond are unknown
	maxModelCost  = 40_000_000 // of all rules of a model
)

// where an expression stands decides what it may say.
type place uint8

const (
	inDevice place = iota // condition of a rule per device
	inGroup               // condition of a rule per group, outside n_of
	inMember              // inside n_of or n_adj
	inWhere               // select.where: attributes only
)

// exprError is a mistake at an offset (in characters) of an expression.
type exprError struct {
	at  int
	msg string
}

func (e *exprError) Error() string { return e.msg }

func errAt(n ast.Node, format string, args ...any) error {
	return &exprError{n.Location().From, fmt.Sprintf(format, args...)}
}

// language is expr's configuration: the grammar and the type rules.
func language(m *citywarden.Model) *conf.Config {
	names := types.Map{"hour": types.Int, "weekday": types.Int, "ts": types.Float64}
	attrs := types.Map{}
	for i := range m.Metrics {
		if name := string(m.Metrics[i].Name); !isFunction(name) {
			names[name] = exprType(m.Metrics[i].Kind)
		}
	}
	for _, a := range m.Attributes {
		attrs[a.Name] = exprType(a.Kind)
	}
	names["attr"] = attrs
	c := conf.CreateNew()
	expr.Env(names)(c)
	expr.MaxNodes(maxNodes)(c)
	expr.DisableAllBuiltins()(c)
	for _, f := range slices.Sorted(maps.Keys(pure)) {
		expr.EnableBuiltin(f)(c)
	}
	for _, f := range functions {
		expr.Function(f.name, nil, f.types...)(c)
	}
	for name := range c.Disabled {
		delete(c.Builtins, name)
	}
	return c
}

func exprType(k citywarden.Kind) types.Type {
	switch k {
	case citywarden.KindNumber:
		return types.Float64
	case citywarden.KindBool:
		return types.Bool
	}
	return types.String
}

type function struct {
	name  string
	form  string // how to write it
	types []any
}

// functions are those of the rule language that look beyond the present values.
var functions = []function{
	{"avg", `avg(metric, "5m")`, overWindow},
	{"min", `min(metric, "5m")`, overWindow},
	{"max", `max(metric, "5m")`, overWindow},
	{"sum", `sum(metric, "5m")`, overWindow},
	{"stddev", `stddev(metric, "5m")`, overWindow},
	{"count", `count(metric or condition, "5m")`, []any{new(func(float64, string) float64), new(func(bool, string) float64), new(func(string, string) float64)}},
	{"prev", `prev(metric)`, []any{new(func(float64) float64), new(func(bool) bool), new(func(string) string)}},
	{"delta", `delta(metric, "2m")`, overWindow},
	{"rate", `rate(metric, "2m")`, overWindow},
	{"changed", `changed(metric)`, []any{new(func(float64) bool), new(func(bool) bool), new(func(string) bool)}},
	{"silent", `silent("15m")`, []any{new(func(string) bool)}},
	{"skew", `skew()`, []any{new(func() float64)}},
	{"n_of", `n_of(condition, "60s")`, []any{new(func(bool, string) float64)}},
	{"n_adj", `n_adj(condition, "3m")`, []any{new(func(bool, string) float64)}},
	{"event", `event("name", "10m")`, []any{new(func(string, string) bool)}},
}

var overWindow = []any{new(func(float64, string) float64)}

func isFunction(name string) bool {
	return slices.ContainsFunc(functions, func(f function) bool { return f.name == name })
}

// pure are expr's own functions that the language keeps: they depend on their
// arguments only and their result is not larger than those. true: run by
// closures here, false: run by expr's virtual machine.
var pure = map[string]bool{
	"abs": true, "ceil": true, "floor": true, "round": true,
	"len": false, "lower": false, "upper": false, "trim": false,
	"hasPrefix": false, "hasSuffix": false, "indexOf": false,
}

// compiler turns one expression into code for devices of one model.
type compiler struct {
	set   *Set
	rule  *rule
	plan  *plan // nil outside the members of a group rule with several models
	where place
	uses  *uses
	depth int
}

// compileBool parses, checks and compiles the condition for devices of p.
func compileBool(c *compiler, x expression) (code, error) {
	got, err := c.compile(x)
	if err != nil {
		return code{}, err
	}
	if got.kind != citywarden.KindBool {
		return code{}, &exprError{0, fmt.Sprintf("a condition is true or false, but this is a %s; compare it with something", got.kind)}
	}
	return got, nil
}

func (c *compiler) compile(x expression) (code, error) {
	if len(x.text) > maxText {
		return code{}, &exprError{0, fmt.Sprintf("the condition has more than %d characters; split the rule", maxText)}
	}
	if at, ok := tooDeep(x.text); ok {
		return code{}, &exprError{at, fmt.Sprintf("nested deeper than %d levels; split the rule", maxNestingAST)}
	}
	if c.plan.language == nil {
		c.plan.language = language(c.plan.model)
	}
	config := c.plan.language
	tree, err := parser.ParseWithConfig(x.text, config)
	if err != nil {
		return code{}, syntaxError(x.text, err)
	}
	got, err := c.node(tree.Node)
	if err != nil {
		return code{}, err
	}
	// expr's own checker has the last word on types.
	if _, err := checker.Check(tree, config); err != nil {
		return code{}, parseError(err)
	}
	if c.uses.cost > maxCost {
		return code{}, &exprError{0, fmt.Sprintf("the condition takes too long to evaluate: it reads up to %d values, at most %d are allowed; shorten or leave out a count(condition, …)", c.uses.cost, maxCost)}
	}
	if got.kind == citywarden.KindBool {
		got.guards = got.guarded(tree.Node)
	}
	return got, nil
}

// tooDeep finds nesting that a recursive parser should not be given.
func tooDeep(s string) (int, bool) {
	depth := 0
	run := 0
	for i, r := range []rune(s) {
		switch r {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		case '!', '-', '+':
			run++
		default:
			if r != ' ' {
				run = 0
			}
		}
		if depth > maxNestingAST || run > maxNestingAST {
			return i, true
		}
	}
	return 0, false
}

func (c *compiler) node(n ast.Node) (code, error) {
	if c.depth++; c.depth > 4*maxNestingAST {
		return code{}, errAt(n, "nested too deep; split the rule")
	}
	defer func() { c.depth-- }()
	c.uses.cost++
	switch n := n.(type) {
	case *ast.BoolNode:
		return boolConst(n.Value), nil
	case *ast.IntegerNode:
		if n.Value > maxInt || n.Value < -maxInt {
			return code{}, errAt(n, "numbers are exact to 2^53 only")
		}
		return numConst(float64(n.Value)), nil
	case *ast.FloatNode:
		if math.IsNaN(n.Value) || math.IsInf(n.Value, 0) {
			return code{}, errAt(n, "not a finite number")
		}
		return numConst(n.Value), nil
	case *ast.StringNode:
		return textConst(n.Value), nil
	case *ast.IdentifierNode:
		return c.identifier(n)
	case *ast.MemberNode:
		return c.member(n)
	case *ast.UnaryNode:
		return c.unary(n)
	case *ast.BinaryNode:
		return c.binary(n)
	case *ast.ConditionalNode:
		return c.conditional(n)
	case *ast.CallNode:
		return c.call(n)
	case *ast.BuiltinNode:
		return c.builtin(n)
	case *ast.NilNode:
		return code{}, errAt(n, "nil is not part of the rule language; an unknown value is handled with ??, like attr.limit ?? 5")
	case *ast.ArrayNode:
		return code{}, errAt(n, "a list may stand only on the right of in, like weekday in [6, 7]")
	case *ast.ChainNode:
		return code{}, errAt(n, "?. is not part of the rule language; write attr.x ?? default")
	case *ast.PredicateNode, *ast.PointerNode:
		return code{}, errAt(n, "predicates are not part of the rule language")
	}
	return code{}, errAt(n, "%s is not part of the rule language", nodeName(n))
}

func nodeName(n ast.Node) string {
	switch n.(type) {
	case *ast.VariableDeclaratorNode:
		return "let"
	case *ast.SequenceNode:
		return "a sequence with ;"
	case *ast.MapNode, *ast.PairNode:
		return "a map"
	case *ast.SliceNode:
		return "a slice"
	case *ast.BytesNode:
		return "a byte text"
	}
	return strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", n), "*ast."), "Node")
}

func numConst(f float64) code {
	return code{kind: citywarden.KindNumber, num: func(*env) float64 { return f }, konst: f}
}

func boolConst(b bool) code {
	t := triOf(b)
	return code{kind: citywarden.KindBool, tri: func(*env) tri { return t }, konst: b}
}

func textConst(s string) code {
	return code{kind: citywarden.KindText, text: func(*env) (string, bool) { return s, true }, konst: s}
}

func numCode(f func(*env) float64) code { return code{kind: citywarden.KindNumber, num: f} }
func triCode(f func(*env) tri) code     { return code{kind: citywarden.KindBool, tri: f} }
func textCode(f func(*env) (string, bool)) code {
	return code{kind: citywarden.KindText, text: f}
}

func (c *compiler) identifier(n *ast.IdentifierNode) (code, error) {
	switch n.Value {
	case "hour", "weekday", "ts":
		c.uses.moving = true
	}
	switch n.Value {
	case "hour":
		return numCode(func(v *env) float64 { return float64(v.tz.at(v.at).hour) }), nil
	case "weekday":
		return numCode(func(v *env) float64 { return float64(v.tz.at(v.at).weekday) }), nil
	case "ts":
		return numCode(func(v *env) float64 { return float64(v.at) / 1000 }), nil
	case "attr":
		return code{}, errAt(n, "attr is not a value; write attr.name")
	}
	i, err := c.metric(n)
	if err != nil {
		return code{}, err
	}
	c.uses.metric(i, 0)
	got := c.readMetric(i)
	got.metric = i + 1
	if got.tri != nil {
		c.uses.leaves = append(c.uses.leaves, leaf{text: n.Value, left: got, result: got.tri})
	}
	return got, nil
}

// metric returns the index of the metric that n names.
func (c *compiler) metric(n ast.Node) (int, error) {
	id, ok := n.(*ast.IdentifierNode)
	if !ok {
		return 0, errAt(n, "a metric stands here, like %s", c.exampleMetric())
	}
	m := c.plan.model
	for i := range m.Metrics {
		if string(m.Metrics[i].Name) != id.Value {
			continue
		}
		switch c.where {
		case inWhere:
			return 0, errAt(n, "select.where can look at attributes only; use %s in a condition", id.Value)
		case inGroup:
			satisfied := id.Value
			if m.Metrics[i].Kind != citywarden.KindBool {
				satisfied += " > …"
			}
			return 0, errAt(n, "in a rule with group a metric stands inside n_of(…), which says of how many members: n_of(%s, \"60s\") >= 1", satisfied)
		}
		if isFunction(id.Value) {
			return 0, errAt(n, "metric %s has the name of a function, so it can't be read in a condition; give it another name in the model", id.Value)
		}
		return i, nil
	}
	names := []string{"hour", "weekday", "ts"}
	for i := range m.Metrics {
		names = append(names, string(m.Metrics[i].Name))
	}
	all := slices.Clone(names)
	for _, f := range functions {
		all = append(all, f.name)
	}
	for _, a := range m.Attributes {
		all = append(all, "attr."+a.Name)
		if a.Name == id.Value {
			return 0, errAt(n, "%s is an attribute of %s; write attr.%s", id.Value, m.Name, id.Value)
		}
	}
	hint := choices(id.Value, names[3:], "it has")
	if s := citywarden.DidYouMean(id.Value, names[3:]); s == "" { // perhaps it was meant to be something else
		hint = citywarden.DidYouMean(id.Value, all) + hint
	}
	return 0, errAt(n, "model %s has no metric %q%s", m.Name, id.Value, hint)
}

func (c *compiler) exampleMetric() string {
	if len(c.plan.model.Metrics) > 0 {
		return string(c.plan.model.Metrics[0].Name)
	}
	return "pressure"
}

// readMetric reads the value that metric i holds as of the evaluation.
func (c *compiler) readMetric(i int) code {
	stale := c.plan.stale[i]
	switch c.plan.model.Metrics[i].Kind {
	case citywarden.KindNumber:
		return numCode(func(v *env) float64 {
			if s := v.d.rings[i].value(v.at, stale, v.held); s != nil {
				return s.v
			}
			return nan
		})
	case citywarden.KindBool:
		return triCode(func(v *env) tri {
			if s := v.d.rings[i].value(v.at, stale, v.held); s != nil {
				return triOf(s.v != 0)
			}
			return unknown
		})
	}
	return textCode(func(v *env) (string, bool) {
		if r := v.d.rings[i]; r != nil {
			if k := r.holds(v.at, stale, v.held); k >= 0 {
				return r.texts[k], true
			}
		}
		return "", false
	})
}

func (c *compiler) member(n *ast.MemberNode) (code, error) {
	id, ok := n.Node.(*ast.IdentifierNode)
	prop, isText := n.Property.(*ast.StringNode)
	if !ok || id.Value != "attr" || !isText || n.Optional || n.Method {
		return code{}, errAt(n, "only attr has parts, like attr.%s", c.exampleAttr())
	}
	i, err := c.attribute(n, prop.Value)
	if err != nil {
		return code{}, err
	}
	c.uses.attrs = append(c.uses.attrs, attrUse{index: i})
	got := attrCode(c.plan.model.Attributes[i].Kind, i)
	if c.where == inGroup {
		inner := got
		got = onGroup(inner)
	}
	got.attr = i + 1
	if got.tri != nil {
		c.uses.leaves = append(c.uses.leaves, leaf{text: n.String(), left: got, result: got.tri})
	}
	return got, nil
}

// onGroup reads an attribute of a group: that of its first member.
func onGroup(inner code) code {
	with := func(v *env, f func()) bool {
		if v.g == nil || len(v.g.members) == 0 {
			return false
		}
		d := v.d
		v.d = v.g.members[0]
		f()
		v.d = d
		return true
	}
	switch inner.kind {
	case citywarden.KindNumber:
		return numCode(func(v *env) float64 {
			r := nan
			with(v, func() { r = inner.num(v) })
			return r
		})
	case citywarden.KindBool:
		return triCode(func(v *env) tri {
			r := unknown
			with(v, func() { r = inner.tri(v) })
			return r
		})
	}
	return textCode(func(v *env) (s string, ok bool) {
		with(v, func() { s, ok = inner.text(v) })
		return s, ok
	})
}

func attrCode(k citywarden.Kind, i int) code {
	switch k {
	case citywarden.KindNumber:
		return numCode(func(v *env) float64 { return v.d.attrs[i].num })
	case citywarden.KindBool:
		return triCode(func(v *env) tri { return v.d.attrs[i].tri })
	}
	return textCode(func(v *env) (string, bool) { a := &v.d.attrs[i]; return a.text, a.from != "" })
}

func (c *compiler) exampleAttr() string {
	if len(c.plan.model.Attributes) > 0 {
		return c.plan.model.Attributes[0].Name
	}
	return "zone"
}

func (c *compiler) attribute(n ast.Node, name string) (int, error) {
	m := c.plan.model
	names := make([]string, len(m.Attributes))
	for i, a := range m.Attributes {
		names[i] = a.Name
		if a.Name != name {
			continue
		}
		if c.where == inGroup && name != c.rule.groupBy {
			return 0, errAt(n, "the members of a group can differ in attr.%s; outside n_of(…) only attr.%s, which they share, can stand", name, c.rule.groupBy)
		}
		return i, nil
	}
	return 0, errAt(n, "model %s has no attribute %q%s", m.Name, name, choices(name, names, "it has"))
}

func (c *compiler) unary(n *ast.UnaryNode) (code, error) {
	x, err := c.node(n.Node)
	if err != nil {
		return code{}, err
	}
	switch n.Operator {
	case "not", "!":
		if x.kind != citywarden.KindBool {
			return code{}, errAt(n, "not needs a condition, but %s is a %s", n.Node, x.kind)
		}
		f := x.tri
		return triCode(func(v *env) tri { return f(v).not() }), nil
	case "-", "+":
		if x.kind != citywarden.KindNumber {
			return code{}, errAt(n, "%s needs a number, but %s is a %s", n.Operator, n.Node, x.kind)
		}
		if n.Operator == "+" {
			return numCode(x.num), nil
		}
		if k, ok := x.konst.(float64); ok {
			return numConst(-k), nil
		}
		f := x.num
		return numCode(func(v *env) float64 { return -f(v) }), nil
	}
	return code{}, errAt(n, "operator %s is not part of the rule language", n.Operator)
}

func (c *compiler) binary(n *ast.BinaryNode) (code, error) {
	switch n.Operator {
	case "..":
		return code{}, errAt(n, "ranges (..) are not part of the rule language; write hour >= 8 and hour < 18")
	case "in":
		return c.in(n)
	case "matches":
		return c.matches(n)
	}
	mark := len(c.uses.leaves)
	attrs := len(c.uses.attrs)
	l, err := c.node(n.Left)
	if err != nil {
		return code{}, err
	}
	r, err := c.node(n.Right)
	if err != nil {
		return code{}, err
	}
	mismatch := func(want string) error {
		return errAt(n, "%s needs %s, but %s is a %s and %s is a %s%s", n.Operator, want, n.Left, l.kind, n.Right, r.kind, sameKind(n, l, r))
	}
	switch op := n.Operator; op {
	case "and", "&&", "or", "||":
		if l.kind != citywarden.KindBool || r.kind != citywarden.KindBool {
			return code{}, mismatch("two conditions")
		}
		and := op == "and" || op == "&&"
		got := triCode(logic(and, l.tri, r.tri))
		got.guards = bothGuards(and, l.guarded(n.Left), r.guarded(n.Right))
		return got, nil
	case "??":
		if l.kind != r.kind {
			return code{}, mismatch("the same kind on both sides")
		}
		if l.attr > 0 && len(c.uses.attrs) > attrs {
			c.uses.attrs[attrs].optional, c.uses.attrs[attrs].fallback = true, r.konst
		}
		got := coalesce(l, r)
		if _, ok := r.konst.(float64); ok {
			got.fallback = &fallback{text: n.Left.String(), first: l, rest: r}
		}
		return got, nil
	case "+", "-", "*", "/", "%", "**", "^":
		if l.kind == citywarden.KindText && op == "+" {
			return code{}, errAt(n, "texts cannot be joined in a rule; + needs two numbers")
		}
		if l.kind != citywarden.KindNumber || r.kind != citywarden.KindNumber {
			return code{}, mismatch("two numbers")
		}
		return arith(op, l, r), nil
	case "<", "<=", ">", ">=", "==", "!=":
		if l.kind != r.kind {
			return code{}, mismatch("the same kind on both sides")
		}
		if l.kind != citywarden.KindNumber && op != "==" && op != "!=" {
			return code{}, mismatch("two numbers")
		}
		f := compare(op, l, r)
		c.uses.leaves = append(dropBare(c.uses.leaves, mark), leaf{text: n.String(), op: op, left: l, right: r, result: f})
		got := triCode(f)
		got.guards = compareGuard(n, l, r)
		return got, nil
	case "contains", "startsWith", "endsWith":
		if l.kind != citywarden.KindText || r.kind != citywarden.KindText {
			return code{}, mismatch("two texts")
		}
		test := map[string]func(string, string) bool{"contains": strings.Contains, "startsWith": strings.HasPrefix, "endsWith": strings.HasSuffix}[op]
		lt, rt := l.text, r.text
		f := func(v *env) tri {
			a, ok1 := lt(v)
			b, ok2 := rt(v)
			if !ok1 || !ok2 {
				return unknown
			}
			return triOf(test(a, b))
		}
		c.uses.leaves = append(c.uses.leaves, leaf{text: n.String(), op: op, left: l, right: r, result: f})
		return triCode(f), nil
	}
	return code{}, errAt(n, "operator %s is not part of the rule language", n.Operator)
}

// sameKind says how to compare what l or r is, "" where that is plain.
func sameKind(n *ast.BinaryNode, l, r code) string {
	name, other := n.Left.String(), r
	if l.konst != nil {
		name, other = n.Right.String(), l
	}
	switch {
	case n.Operator != "==" && n.Operator != "!=" || other.konst == nil:
	case name == "weekday":
		return "; 1 is Monday, 7 is Sunday"
	case l.kind == citywarden.KindBool || r.kind == citywarden.KindBool:
		return "; write " + name + " or not " + name
	}
	return ""
}

// dropBare removes the bare bools since mark: they are sides of a comparison
// that explains them.
func dropBare(ls []leaf, mark int) []leaf {
	out := ls[:mark:mark]
	for _, l := range ls[mark:] {
		if l.op != "" {
			out = append(out, l)
		}
	}
	return out
}

func logic(and bool, l, r func(*env) tri) func(*env) tri {
	if and {
		return func(v *env) tri {
			a := l(v)
			if a == no {
				return no
			}
			b := r(v)
			if b == no {
				return no
			}
			if a == yes && b == yes {
				return yes
			}
			return unknown
		}
	}
	return func(v *env) tri {
		a := l(v)
		if a == yes {
			return yes
		}
		b := r(v)
		if b == yes {
			return yes
		}
		if a == no && b == no {
			return no
		}
		return unknown
	}
}

func coalesce(l, r code) code {
	switch l.kind {
	case citywarden.KindNumber:
		a, b := l.num, r.num
		return numCode(func(v *env) float64 {
			if f := a(v); !math.IsNaN(f) {
				return f
			}
			return b(v)
		})
	case citywarden.KindBool:
		a, b := l.tri, r.tri
		return triCode(func(v *env) tri {
			if t := a(v); t != unknown {
				return t
			}
			return b(v)
		})
	}
	a, b := l.text, r.text
	return textCode(func(v *env) (string, bool) {
		if s, ok := a(v); ok {
			return s, true
		}
		return b(v)
	})
}

func arith(op string, l, r code) code {
	a, b := l.num, r.num
	var f func(*env) float64
	switch op {
	case "+":
		f = func(v *env) float64 { return a(v) + b(v) }
	case "-":
		f = func(v *env) float64 { return a(v) - b(v) }
	case "*":
		if k, ok := r.konst.(float64); ok {
			f = func(v *env) float64 { return a(v) * k }
		} else {
			f = func(v *env) float64 { return a(v) * b(v) }
		}
	case "/":
		f = func(v *env) float64 {
			y := b(v)
			if y == 0 {
				return nan
			}
			return a(v) / y
		}
	case "%":
		f = func(v *env) float64 { return math.Mod(a(v), b(v)) } // a whole number modulo 0 is NaN: unknown
	default:
		f = func(v *env) float64 {
			x, y := a(v), b(v)
			if math.IsNaN(x) || math.IsNaN(y) { // Pow(1, NaN) is 1
				return nan
			}
			return math.Pow(x, y)
		}
	}
	if l.konst != nil && r.konst != nil {
		return numConst(f(nil))
	}
	return numCode(f)
}

func compare(op string, l, r code) func(*env) tri {
	switch l.kind {
	case citywarden.KindBool:
		a, b, equal := l.tri, r.tri, op == "=="
		return func(v *env) tri {
			x, y := a(v), b(v)
			if x == unknown || y == unknown {
				return unknown
			}
			return triOf((x == y) == equal)
		}
	case citywarden.KindText:
		a, b, equal := l.text, r.text, op == "=="
		return func(v *env) tri {
			x, ok1 := a(v)
			y, ok2 := b(v)
			if !ok1 || !ok2 {
				return unknown
			}
			return triOf((x == y) == equal)
		}
	}
	if l.count != nil && r.count == nil {
		return compareCount(op, l.count, r.num)
	}
	if r.count != nil && l.count == nil {
		return compareCount(mirror(op), r.count, l.num)
	}
	if k, ok := r.konst.(float64); ok {
		return compareConst(op, l.num, k)
	}
	a, b, test := l.num, r.num, numTest(op)
	return func(v *env) tri {
		x, y := a(v), b(v)
		if x != x || y != y {
			return unknown
		}
		return triOf(test(x, y))
	}
}

// compareConst is compare for the commonest condition, a value against a limit.
func compareConst(op string, a func(*env) float64, k float64) func(*env) tri {
	if math.IsNaN(k) {
		return func(*env) tri { return unknown }
	}
	switch op {
	case ">":
		return func(v *env) tri {
			x := a(v)
			if x > k {
				return yes
			}
			if x != x {
				return unknown
			}
			return no
		}
	case "<":
		return func(v *env) tri {
			x := a(v)
			if x < k {
				return yes
			}
			if x != x {
				return unknown
			}
			return no
		}
	}
	test := numTest(op)
	return func(v *env) tri {
		x := a(v)
		if x != x {
			return unknown
		}
		return triOf(test(x, k))
	}
}

func numTest(op string) func(x, y float64) bool {
	switch op {
	case "<":
		return func(x, y float64) bool { return x < y }
	case "<=":
		return func(x, y float64) bool { return x <= y }
	case ">":
		return func(x, y float64) bool { return x > y }
	case ">=":
		return func(x, y float64) bool { return x >= y }
	case "==":
		return func(x, y float64) bool { return x == y }
	}
	return func(x, y float64) bool { return x != y }
}

func mirror(op string) string {
	switch op {
	case "<":
		return ">"
	case "<=":
		return ">="
	case ">":
		return "<"
	case ">=":
		return "<="
	}
	return op
}

// compareCount compares a number of members, some of which may be unknown:
// certain only when it holds for lo as for hi.
func compareCount(op string, count func(*env) (float64, float64), limit func(*env) float64) func(*env) tri {
	test := numTest(op)
	return func(v *env) tri {
		k := limit(v)
		lo, hi := count(v)
		if k != k || lo != lo {
			return unknown
		}
		switch op {
		case "==":
			if lo == hi {
				return triOf(lo == k)
			}
			if k < lo || k > hi {
				return no
			}
			return unknown
		case "!=":
			if lo == hi {
				return triOf(lo != k)
			}
			if k < lo || k > hi {
				return yes
			}
			return unknown
		}
		a, b := test(lo, k), test(hi, k)
		if a == b {
			return triOf(a)
		}
		return unknown
	}
}

func (c *compiler) in(n *ast.BinaryNode) (code, error) {
	l, err := c.node(n.Left)
	if err != nil {
		return code{}, err
	}
	list, ok := n.Right.(*ast.ArrayNode)
	if !ok {
		if b, is := n.Right.(*ast.BinaryNode); is && b.Operator == ".." {
			return code{}, errAt(b, "ranges (..) are not part of the rule language; write hour >= 8 and hour < 18")
		}
		return code{}, errAt(n.Right, "a list of constants stands on the right of in, like weekday in [6, 7]")
	}
	nums, texts := map[float64]bool{}, map[string]bool{}
	for _, it := range list.Nodes {
		x, err := c.node(it)
		if err != nil {
			return code{}, err
		}
		if x.konst == nil || x.kind != l.kind || x.kind == citywarden.KindBool {
			return code{}, errAt(it, "%s is compared with this list, so its elements are constants of the kind %s", n.Left, l.kind)
		}
		switch k := x.konst.(type) {
		case float64:
			nums[k] = true
		case string:
			texts[k] = true
		}
	}
	var f func(*env) tri
	switch l.kind {
	case citywarden.KindNumber:
		a := l.num
		f = func(v *env) tri {
			x := a(v)
			if x != x {
				return unknown
			}
			return triOf(nums[x])
		}
	case citywarden.KindText:
		a := l.text
		f = func(v *env) tri {
			x, ok := a(v)
			if !ok {
				return unknown
			}
			return triOf(texts[x])
		}
	default:
		return code{}, errAt(n, "in needs a number or a text on its left, but %s is a %s", n.Left, l.kind)
	}
	c.uses.leaves = append(c.uses.leaves, leaf{text: n.String(), op: "in", left: l, right: textConst(n.Right.String()), result: f})
	return triCode(f), nil
}

func (c *compiler) matches(n *ast.BinaryNode) (code, error) {
	l, err := c.node(n.Left)
	if err != nil {
		return code{}, err
	}
	pattern, ok := n.Right.(*ast.StringNode)
	if !ok {
		return code{}, errAt(n.Right, "the pattern of matches is a constant text")
	}
	if l.kind != citywarden.KindText {
		return code{}, errAt(n, "matches needs a text on its left, but %s is a %s", n.Left, l.kind)
	}
	if len(pattern.Value) > maxRegexp {
		return code{}, errAt(n.Right, "the pattern is longer than %d characters", maxRegexp)
	}
	re, err := regexp.Compile(pattern.Value)
	if err != nil {
		return code{}, errAt(n.Right, "bad pattern: %v", err)
	}
	c.uses.cost += steps(pattern.Value) * textBytes / 8
	a := l.text
	f := func(v *env) tri {
		s, ok := a(v)
		if !ok {
			return unknown
		}
		return triOf(re.MatchString(s))
	}
	c.uses.leaves = append(c.uses.leaves, leaf{text: n.String(), op: "matches", left: l, right: textConst(pattern.Value), result: f})
	return triCode(f), nil
}

// steps returns how large the program of a pattern is; each byte of a text may
// take as many steps.
func steps(pattern string) int {
	x, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0
	}
	prog, err := syntax.Compile(x.Simplify())
	if err != nil {
		return 0
	}
	return len(prog.Inst)
}

func (c *compiler) conditional(n *ast.ConditionalNode) (code, error) {
	cond, err := c.node(n.Cond)
	if err != nil {
		return code{}, err
	}
	a, err := c.node(n.Exp1)
	if err != nil {
		return code{}, err
	}
	b, err := c.node(n.Exp2)
	if err != nil {
		return code{}, err
	}
	if cond.kind != citywarden.KindBool {
		return code{}, errAt(n.Cond, "a condition stands before ?, but %s is a %s", n.Cond, cond.kind)
	}
	if a.kind != b.kind {
		return code{}, errAt(n.Exp2, "both results of ?: are of the same kind, but %s is a %s and %s is a %s", n.Exp1, a.kind, n.Exp2, b.kind)
	}
	test := cond.tri
	switch a.kind {
	case citywarden.KindNumber:
		x, y := a.num, b.num
		return numCode(func(v *env) float64 {
			switch test(v) {
			case yes:
				return x(v)
			case no:
				return y(v)
			}
			return nan
		}), nil
	case citywarden.KindBool:
		x, y := a.tri, b.tri
		return triCode(func(v *env) tri {
			switch test(v) {
			case yes:
				return x(v)
			case no:
				return y(v)
			}
			return unknown
		}), nil
	}
	x, y := a.text, b.text
	return textCode(func(v *env) (string, bool) {
		switch test(v) {
		case yes:
			return x(v)
		case no:
			return y(v)
		}
		return "", false
	}), nil
}

func (c *compiler) builtin(n *ast.BuiltinNode) (code, error) {
	closure, ok := pure[n.Name]
	if !ok {
		hint := ""
		switch n.Name {
		case "all", "any", "none", "one", "filter", "map", "reduce", "find", "findIndex", "findLast", "findLastIndex", "groupBy", "sortBy":
			hint = "; n_of(condition, \"60s\") counts the members of a group, count(condition, \"10m\") the samples in a window"
		}
		return code{}, errAt(n, "%s is not part of the rule language%s", n.Name, hint)
	}
	args := make([]code, len(n.Arguments))
	for i, a := range n.Arguments {
		x, err := c.node(a)
		if err != nil {
			return code{}, err
		}
		args[i] = x
	}
	if !closure {
		return c.machine(n, args)
	}
	if len(args) != 1 || args[0].kind != citywarden.KindNumber {
		return code{}, errAt(n, "%s needs one number", n.Name)
	}
	f := map[string]func(float64) float64{"abs": math.Abs, "ceil": math.Ceil, "floor": math.Floor, "round": math.Round}[n.Name]
	a := args[0].num
	return numCode(func(v *env) float64 { return f(a(v)) }), nil
}

// machine runs a function that closures don't cover on expr's virtual machine.
func (c *compiler) machine(n *ast.BuiltinNode, args []code) (code, error) {
	c.uses.cost += 20
	for i, a := range args {
		if a.kind != citywarden.KindText {
			return code{}, errAt(n.Arguments[i], "%s needs a text, but %s is a %s", n.Name, n.Arguments[i], a.kind)
		}
	}
	names := types.Map{}
	params := make([]string, len(args))
	for i := range args {
		params[i] = string(rune('a' + i%26))
		names[params[i]] = types.String
	}
	if len(args) > 2 {
		return code{}, errAt(n, "%s has too many arguments", n.Name)
	}
	prog, err := expr.Compile(n.Name+"("+strings.Join(params, ", ")+")", expr.Env(names))
	if err != nil {
		return code{}, errAt(n, "%s", parseError(err))
	}
	run := func(v *env) any {
		in := make(map[string]any, len(args))
		for i, a := range args {
			s, ok := a.text(v)
			if !ok {
				return nil
			}
			in[params[i]] = s
		}
		out, err := expr.Run(prog, in)
		if err != nil {
			return nil
		}
		return out
	}
	switch prog.Node().Type().Kind() {
	case reflect.Int:
		return numCode(func(v *env) float64 {
			if i, ok := run(v).(int); ok {
				return float64(i)
			}
			return nan
		}), nil
	case reflect.Bool:
		return triCode(func(v *env) tri {
			if b, ok := run(v).(bool); ok {
				return triOf(b)
			}
			return unknown
		}), nil
	case reflect.String:
		return textCode(func(v *env) (string, bool) { s, ok := run(v).(string); return s, ok }), nil
	}
	return code{}, errAt(n, "%s has no result that a rule can use", n.Name)
}
