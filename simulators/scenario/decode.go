package scenario

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/citywarden/citywarden"
)

// document is a YAML file that is being read; it keeps the first mistake.
type document struct {
	name  string
	lines []string
	err   error
}

// node is a place of a document.
type node struct {
	d *document
	n ast.Node
}

// parse returns the root of a YAML text.
func parse(name string, text []byte) (node, *document) {
	d := &document{name: name, lines: strings.Split(string(text), "\n")}
	f, err := parser.ParseBytes(text, 0)
	var y yaml.Error
	switch {
	case errors.As(err, &y) && y.GetToken() != nil:
		at := y.GetToken().Position
		d.err = citywarden.ProblemAt(name, d.lines, at.Line, at.Column, y.GetMessage())
	case err != nil:
		d.err = fmt.Errorf("%s: %w", name, err)
	case len(f.Docs) != 1 || f.Docs[0].Body == nil:
		d.err = citywarden.Errorf(citywarden.CodeInvalid, "%s: a scenario is one YAML document", name)
	default:
		return node{d, f.Docs[0].Body}, d
	}
	return node{d, nil}, d
}

// fail keeps a mistake at n, if it is the first.
func (n node) fail(format string, args ...any) {
	if n.d.err != nil {
		return
	}
	at := n.n.GetToken().Position
	n.d.err = citywarden.ProblemAt(n.d.name, n.d.lines, at.Line, at.Column, fmt.Sprintf(format, args...))
}

// check keeps what err says.
func (n node) check(err error) {
	if err != nil {
		n.fail("%v", err)
	}
}

// field reads what belongs to a key.
type field struct {
	key  string
	must bool
	read func(node)
}

// fields reads a mapping: keys that are not in the table are a mistake, and so
// is a key that must be there and is not.
func (n node) fields(what string, table ...field) {
	seen := map[string]bool{}
	n.pairs(what, func(key, value node) {
		name := key.n.GetToken().Value
		for _, f := range table {
			if f.key == name {
				seen[name] = true
				f.read(value)
				return
			}
		}
		var allowed []string
		for _, f := range table {
			allowed = append(allowed, f.key)
		}
		hint := citywarden.DidYouMean(name, allowed)
		if hint == "" {
			hint = "; allowed here: " + strings.Join(allowed, ", ")
		}
		key.fail("unknown key %q%s", name, hint)
	})
	for _, f := range table {
		if f.must && !seen[f.key] && n.n != nil {
			n.fail("%s needs the key %s", what, f.key)
		}
	}
}

// pairs calls f for each key of a mapping, in order.
func (n node) pairs(what string, f func(key, value node)) {
	if n.n == nil || n.d.err != nil {
		return
	}
	m, ok := n.n.(ast.MapNode)
	if !ok {
		n.fail("%s: write keys here", what)
		return
	}
	for it := m.MapRange(); it.Next(); {
		f(node{n.d, it.Key()}, node{n.d, it.Value()})
	}
}

// items calls f for each item of a list.
func (n node) items(what string, f func(node)) {
	list, ok := n.n.(*ast.SequenceNode)
	if !ok {
		n.fail("%s: write a list here", what)
		return
	}
	for _, v := range list.Values {
		f(node{n.d, v})
	}
}

// scalar returns the text of a single value.
func (n node) scalar(what string) string {
	switch v := n.n.(type) {
	case *ast.LiteralNode:
		return strings.TrimSpace(v.Value.Value)
	case ast.ScalarNode:
		if t := v.GetToken(); t != nil {
			return t.Value
		}
	}
	n.fail("%s: write one value here", what)
	return ""
}

// text reads a text into to.
func text(to *string) func(node) { return func(n node) { *to = n.scalar("text") } }

// number returns a number.
func (n node) number(what string) float64 {
	v, err := strconv.ParseFloat(n.scalar(what), 64)
	if err != nil {
		n.fail("%s: %q is no number", what, n.scalar(what))
	}
	return v
}

// whole returns a whole number from 0 on.
func (n node) whole(what string) uint64 {
	v, err := strconv.ParseUint(n.scalar(what), 10, 64)
	if err != nil {
		n.fail("%s: %q is no whole number from 0 on", what, n.scalar(what))
	}
	return v
}

// flag returns true or false.
func (n node) flag(what string) bool {
	v, ok := n.n.(*ast.BoolNode)
	if !ok {
		n.fail("%s: write true or false", what)
		return false
	}
	return v.Value
}

// duration returns a duration from 0 on.
func (n node) duration(what string) time.Duration {
	d, err := citywarden.ParseDuration(n.scalar(what))
	if err == nil && d < 0 {
		err = citywarden.Errorf(citywarden.CodeInvalid, "%s is before the beginning", d)
	}
	if err != nil {
		n.fail("%s: %v", what, err)
	}
	return d.Std()
}

// value returns what an attribute can hold: text, a number, or true or false.
func (n node) value(what string) any {
	switch v := n.n.(type) {
	case *ast.BoolNode:
		return v.Value
	case *ast.IntegerNode, *ast.FloatNode:
		return n.number(what)
	}
	return n.scalar(what)
}
