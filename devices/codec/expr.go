package codec

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"

	"github.com/citywarden/citywarden"
)

// program is a compiled expression.
type program struct {
	code     *vm.Program
	kind     citywarden.Kind // 0 when only running it tells
	relative bool            // it counts from the arrival
}

// builtins are expr's functions that an expression may call: what they return is
// not larger than what they are given.
var builtins = []string{"abs", "ceil", "floor", "round", "min", "max", "lower", "upper", "trim", "hasPrefix", "hasSuffix", "indexOf", "len"}

// functions are those that payloads need besides.
var functions = []struct {
	name  string
	f     func(...any) (any, error)
	types any
}{
	{"bit", func(a ...any) (any, error) {
		return uint64(number(a[0]))>>min(uint(max(number(a[1]), 0)), 63)&1 == 1, nil
	}, new(func(float64, float64) bool)},
	{"bits", func(a ...any) (any, error) {
		from, n := min(uint(max(number(a[1]), 0)), 63), min(uint(max(number(a[2]), 0)), 53)
		return float64(uint64(number(a[0])) >> from & (1<<n - 1)), nil
	}, new(func(float64, float64, float64) float64)},
	{"mod", func(a ...any) (any, error) {
		x, y := number(a[0]), number(a[1])
		return x - y*math.Floor(x/y), nil
	}, new(func(float64, float64) float64)},
	{"bcd", func(a ...any) (any, error) {
		v, ok := bcd(uint64(math.Max(number(a[0]), 0)), 8)
		if !ok {
			return nil, errors.New("not a byte of BCD")
		}
		return v, nil
	}, new(func(float64) float64)},
	{"date", func(a ...any) (any, error) {
		var n [6]int
		for i := range n {
			n[i] = int(math.Max(math.Min(number(a[i]), 9999), -1))
		}
		at := time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], 0, time.UTC)
		if at.Year() != n[0] || int(at.Month()) != n[1] || at.Day() != n[2] || at.Hour() != n[3] || at.Minute() != n[4] || at.Second() != n[5] {
			return 0.0, nil // no such date: no time
		}
		return float64(at.Unix()), nil
	}, new(func(float64, float64, float64, float64, float64, float64) float64)},
	{"sqrt", func(a ...any) (any, error) { return math.Sqrt(number(a[0])), nil }, new(func(float64) float64)},
	{"log", func(a ...any) (any, error) { return math.Log(number(a[0])), nil }, new(func(float64) float64)},
	{"exp", func(a ...any) (any, error) { return math.Exp(number(a[0])), nil }, new(func(float64) float64)},
}

// number returns what a function was given as the number that it is; expr hands
// whole constants over as int.
func number(x any) float64 {
	switch x := x.(type) {
	case float64:
		return x
	case int:
		return float64(x)
	}
	return math.NaN()
}

// reserved are the names that are there without a field: number of the LoRaWAN
// port, bytes of the payload, place of the next field, how many repetitions were
// before, the arrival in seconds since 1970.
var reserved = []string{"port", "size", "at", "index", "received"}

// exprError is a mistake at a character of an expression.
type exprError struct {
	at  int
	msg string
}

func (e *exprError) Error() string { return e.msg }

// compileExpr compiles text, which may use names of the given kinds.
func compileExpr(text string, names map[string]citywarden.Kind) (*program, error) {
	if len(text) > maxExpr {
		return nil, &exprError{0, "an expression has at most 1000 characters"}
	}
	if strings.Count(text, "(")+strings.Count(text, "[")+strings.Count(text, "{")+strings.Count(text, "?") > 64 ||
		strings.Contains(text, strings.Repeat("!", 16)) || strings.Contains(text, strings.Repeat("-", 16)) {
		return nil, &exprError{0, "nested too deep; compute a part of it in a field of its own"}
	}
	env := types.Map{"byte": types.TypeOf(func(float64) float64 { return 0 })}
	for _, n := range reserved {
		env[n] = types.Float64
	}
	for n, k := range names {
		switch k {
		case citywarden.KindNumber:
			env[n] = types.Float64
		case citywarden.KindBool:
			env[n] = types.Bool
		case citywarden.KindText:
			env[n] = types.String
		}
	}
	options := []expr.Option{expr.Env(env), expr.MaxNodes(maxNodes), expr.DisableAllBuiltins(), expr.Optimize(false)}
	for _, b := range builtins {
		options = append(options, expr.EnableBuiltin(b))
	}
	for _, f := range functions {
		options = append(options, expr.Function(f.name, f.f, f.types))
	}
	code, err := expr.Compile(text, options...)
	if err != nil {
		var at *file.Error
		if errors.As(err, &at) {
			return nil, &exprError{at.Column, at.Message}
		}
		return nil, &exprError{0, err.Error()}
	}
	w, node := &walker{}, code.Node()
	if ast.Walk(&node, w); w.err != nil {
		return nil, w.err
	}
	return &program{code, kindOf(node), w.relative}, nil
}

// kindOf returns what n is, 0 when only running it tells.
func kindOf(n ast.Node) citywarden.Kind {
	if t := n.Type(); t != nil {
		switch t.Kind() {
		case reflect.Bool:
			return citywarden.KindBool
		case reflect.String:
			return citywarden.KindText
		case reflect.Float64, reflect.Int:
			return citywarden.KindNumber
		}
	}
	return 0
}

// walker refuses what could take long or grow.
type walker struct {
	err      error
	relative bool // it reads the arrival
}

// Visit looks at one node.
func (w *walker) Visit(n *ast.Node) {
	fail := func(what string) {
		if w.err == nil {
			w.err = &exprError{(*n).Location().From, what + " is not part of the codec language"}
		}
	}
	switch n := (*n).(type) {
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.StringNode, *ast.UnaryNode, *ast.ConditionalNode, *ast.CallNode, *ast.BuiltinNode, *ast.ArrayNode:
	case *ast.IdentifierNode:
		w.relative = w.relative || n.Value == "received"
	case *ast.BinaryNode:
		switch {
		case n.Operator == ".." || n.Operator == "matches":
			fail(n.Operator)
		case n.Operator == "+" && kindOf(n) != citywarden.KindNumber:
			fail("+ of what may be a text")
		}
	default:
		fail("this")
	}
}

// run returns the value of p. The error says why there is none.
func (p *program) run(env map[string]any) (any, error) {
	x, err := vm.Run(p.code, env)
	if err != nil {
		var at *file.Error
		if errors.As(err, &at) {
			return nil, errors.New(at.Message)
		}
		return nil, err
	}
	switch v := x.(type) {
	case int:
		x = float64(v)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, errors.New("the expression has no value, like 1/0")
		}
	case bool, string:
	default:
		return nil, errors.New("the expression is no number, bool or text")
	}
	return x, nil
}

// holds returns whether the condition p is true; one that is nil is.
func (p *program) holds(env map[string]any) (bool, error) {
	if p == nil {
		return true, nil
	}
	x, err := p.run(env)
	b, _ := x.(bool)
	return b, err
}

// count returns the number that p is, 0 to most.
func (p *program) count(env map[string]any, most int) (int, error) {
	x, err := p.run(env)
	if err != nil {
		return 0, err
	}
	f, ok := x.(float64)
	if !ok || f != math.Trunc(f) || f < 0 || f > float64(most) {
		return 0, errors.New("it has to be a whole number of 0 or more that fits")
	}
	return int(f), nil
}
