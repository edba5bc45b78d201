package app

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/citywarden/citywarden"
)

// keyError is a mistake in the value of one configuration key.
type keyError struct {
	key string // dotted: "log.max_age"
	msg string
}

func (e *keyError) Error() string { return e.key + ": " + e.msg }

func keyErrorf(key, format string, args ...any) error {
	return &keyError{key, fmt.Sprintf(format, args...)}
}

// decodeConfig decodes the YAML text b over c. It walks the text beside the
// Config type first, because the decoder's own messages speak of Go types and
// don't say what is allowed.
func decodeConfig(path string, b []byte, c *Config) error {
	f, err := parser.ParseBytes(b, 0)
	if err != nil {
		var y yaml.Error
		if errors.As(err, &y) && y.GetToken() != nil {
			p := y.GetToken().Position
			return located(path, b, p.Line, p.Column, y.GetMessage())
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	where := map[string]ast.Node{} // dotted key to its value
	for _, doc := range f.Docs {
		if doc.Body == nil {
			continue
		}
		if bad := check(doc.Body, reflect.TypeFor[Config](), "", where); bad != nil {
			p := bad.node.GetToken().Position
			return located(path, b, p.Line, p.Column, bad.msg)
		}
	}
	if len(where) > 0 {
		if err := yaml.Unmarshal(b, c); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	err = c.Check()
	var k *keyError
	if errors.As(err, &k) && where[k.key] != nil {
		p := where[k.key].GetToken().Position
		return located(path, b, p.Line, p.Column, err.Error())
	}
	return err
}

// located formats a mistake with its line and a caret below it.
func located(path string, text []byte, line, col int, msg string) error {
	lines := strings.Split(string(text), "\n")
	shown := ""
	if line >= 1 && line <= len(lines) {
		l := strings.ReplaceAll(strings.TrimRight(lines[line-1], "\r"), "\t", " ")
		shown = fmt.Sprintf("\n  %s\n  %s^", l, strings.Repeat(" ", max(col-1, 0)))
	}
	return fmt.Errorf("%s:%d:%d: %s%s", path, line, col, msg, shown)
}

type badNode struct {
	node ast.Node
	msg  string
}

// check walks n beside the struct type t and returns the first mistake.
func check(n ast.Node, t reflect.Type, prefix string, where map[string]ast.Node) *badNode {
	if _, empty := n.(*ast.NullNode); empty {
		return nil
	}
	if _, comment := n.(*ast.CommentGroupNode); comment {
		return nil
	}
	m, ok := n.(ast.MapNode)
	if !ok {
		return &badNode{n, fmt.Sprintf("%sneeds keys below it: %s", withColon(prefix), strings.Join(keysOf(t), ", "))}
	}
	for it := m.MapRange(); it.Next(); {
		kv := it.KeyValue()
		name := kv.Key.GetToken().Value
		field, ok := fieldOf(t, name)
		if !ok {
			msg := fmt.Sprintf("unknown key %q; ", name)
			if s := citywarden.Nearest(name, keysOf(t)); s != "" {
				msg += fmt.Sprintf("did you mean %q?", s)
			} else {
				msg += "allowed here: " + strings.Join(keysOf(t), ", ")
			}
			return &badNode{kv.Key, msg}
		}
		key := strings.TrimPrefix(prefix+"."+name, ".")
		where[key] = kv.Value
		if bad := checkValue(kv.Value, field.Type, key, where); bad != nil {
			return bad
		}
	}
	return nil
}

func checkValue(n ast.Node, t reflect.Type, key string, where map[string]ast.Node) *badNode {
	text := ""
	if tok := n.GetToken(); tok != nil {
		text = tok.Value
	}
	switch {
	case t == reflect.TypeFor[citywarden.Duration]():
		if _, err := citywarden.ParseDuration(text); err != nil {
			return &badNode{n, key + ": " + err.Error()}
		}
	case t.Kind() == reflect.Struct:
		return check(n, t, key, where)
	case t.Kind() == reflect.Int64:
		if _, ok := n.(*ast.IntegerNode); !ok {
			return &badNode{n, fmt.Sprintf("%s: %q is no whole number", key, text)}
		}
	case t.Kind() == reflect.String:
		if _, ok := n.(ast.ScalarNode); !ok {
			return &badNode{n, key + ": write one text here, not a list or keys"}
		}
	}
	return nil
}

func withColon(s string) string {
	if s == "" {
		return "the file "
	}
	return s + ": "
}

func fieldOf(t reflect.Type, key string) (reflect.StructField, bool) {
	for f := range t.Fields() {
		if f.Tag.Get("yaml") == key && key != "-" {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

func keysOf(t reflect.Type) []string {
	var out []string
	for f := range t.Fields() {
		if k := f.Tag.Get("yaml"); k != "-" {
			out = append(out, k)
		}
	}
	return out
}
