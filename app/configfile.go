package app

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

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
			return problem(path, b, y.GetToken(), y.GetMessage())
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	where := map[string]ast.Node{} // dotted key to its value
	for _, doc := range f.Docs {
		if doc.Body == nil {
			continue
		}
		if bad := check(doc.Body, reflect.TypeFor[Config](), "", where); bad != nil {
			return problem(path, b, bad.node.GetToken(), bad.msg)
		}
	}
	if len(where) > 0 {
		if err := yaml.Unmarshal(b, c); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if where["log.ledger"] == nil {
		c.Log.Ledger = max(c.Log.Ledger, c.Log.MaxAge)
	}
	err = c.Check()
	var k *keyError
	if errors.As(err, &k) && where[k.key] != nil {
		return problem(path, b, where[k.key].GetToken(), err.Error())
	}
	return err
}

func problem(path string, text []byte, at *token.Token, msg string) error {
	return citywarden.ProblemAt(path, strings.Split(string(text), "\n"), at.Position.Line, at.Position.Column, msg)
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
			hint := citywarden.DidYouMean(name, keysOf(t))
			if hint == "" {
				hint = "; allowed here: " + strings.Join(keysOf(t), ", ")
			}
			return &badNode{kv.Key, fmt.Sprintf("unknown key %q%s", name, hint)}
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
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
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
	case t.Kind() == reflect.Slice:
		items, ok := n.(*ast.SequenceNode)
		if _, empty := n.(*ast.NullNode); !ok && !empty {
			return &badNode{n, key + ": write a list here"}
		}
		for i := 0; ok && i < len(items.Values); i++ {
			item := fmt.Sprintf("%s.%d", key, i)
			where[item] = items.Values[i]
			if bad := checkValue(items.Values[i], t.Elem(), item, where); bad != nil {
				return bad
			}
		}
	case t.Kind() == reflect.Bool:
		if _, ok := n.(*ast.BoolNode); !ok {
			return &badNode{n, fmt.Sprintf("%s: %q is neither true nor false", key, text)}
		}
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
