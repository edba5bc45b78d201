package devices

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices/codec"
)

// reader turns the syntax tree of one file into a model and notes every mistake
// with its place. at knows where each field stood, so that checks that come
// after reading can point there.
type reader struct {
	file     string
	lines    []string
	at       map[string]*token.Token // "metrics[2].unit"
	problems citywarden.Problems
}

func (r *reader) fail(t *token.Token, format string, args ...any) {
	line, col := 0, 0
	if t != nil && t.Position != nil {
		line, col = t.Position.Line, t.Position.Column
	}
	r.problems = append(r.problems, citywarden.ProblemAt(r.file, r.lines, line, col, fmt.Sprintf(format, args...)))
}

// model reads one file; the token is where the name stands.
func (r *reader) model(src []byte) (citywarden.Model, *token.Token) {
	r.at = map[string]*token.Token{}
	m := citywarden.Model{Codec: "json"}
	f, err := parser.ParseBytes(src, 0)
	var pos yaml.Error
	switch {
	case errors.As(err, &pos):
		r.fail(pos.GetToken(), "%s", pos.GetMessage())
		return m, nil
	case err != nil:
		r.fail(nil, "%s", err)
		return m, nil
	}
	if len(f.Docs) != 1 || f.Docs[0].Body == nil {
		r.fail(nil, "a model file holds one model, this one %d", len(f.Docs))
		return m, nil
	}
	var domain string
	var spec *codec.Spec
	var vectors []vector
	ok := r.mapping(f.Docs[0].Body, "", fields{
		{"name", true, text((*string)(&m.Name))},
		{"title", true, title(&m.Title)},
		{"domain", true, text(&domain)},
		{"codec", false, func(r *reader, n ast.Node, at string) {
			if _, own := n.(ast.MapNode); own {
				spec, vectors = r.codec(n, at)
				return
			}
			text(&m.Codec)(r, n, at)
		}},
		{"report", true, duration(&m.Report)},
		{"heartbeat", true, duration(&m.Heartbeat)},
		{"metrics", true, func(r *reader, n ast.Node, at string) {
			r.list(n, at, func(n ast.Node, at string) {
				var x citywarden.Metric
				r.mapping(n, at, fields{
					{"name", true, text((*string)(&x.Name))},
					{"title", true, title(&x.Title)},
					{"kind", true, kind(&x.Kind)},
					{"unit", false, text(&x.Unit)},
					{"min", false, number(&x.Min)},
					{"max", false, number(&x.Max)},
					{"resolution", false, func(r *reader, n ast.Node, at string) {
						var step *float64
						if number(&step)(r, n, at); step == nil {
							return
						}
						if *step <= 0 {
							r.fail(n.GetToken(), "%s is the smallest step of the values, more than 0", at)
							return
						}
						x.Resolution = *step
					}},
					{"counter", false, boolean(&x.Counter)},
					{"sequence", false, boolean(&x.Sequence)},
					{"stale_after", false, duration(&x.StaleAfter)},
					{"ipso", false, text(&x.IPSO)},
					{"fiware", false, text(&x.FIWARE)},
				})
				m.Metrics = append(m.Metrics, x)
			})
		}},
		{"events", false, func(r *reader, n ast.Node, at string) {
			r.list(n, at, func(n ast.Node, at string) {
				var x citywarden.ModelEvent
				r.mapping(n, at, fields{{"name", true, text(&x.Name)}, {"title", true, title(&x.Title)}})
				m.Events = append(m.Events, x)
			})
		}},
		{"attributes", false, func(r *reader, n ast.Node, at string) {
			r.list(n, at, func(n ast.Node, at string) {
				var x citywarden.Attribute
				r.mapping(n, at, fields{
					{"name", true, text(&x.Name)},
					{"title", true, title(&x.Title)},
					{"kind", true, kind(&x.Kind)},
					{"unit", false, text(&x.Unit)},
					{"default", false, scalar(&x.Default)},
					{"shared", false, boolean(&x.Shared)},
				})
				m.Attributes = append(m.Attributes, x)
			})
		}},
		{"limits", false, func(r *reader, n ast.Node, at string) {
			r.mapping(n, at, fields{
				{"messages", false, pace(&m.Limits.Messages)},
				{"all_messages", false, pace(&m.Limits.AllMessages)},
				{"connections", false, pace(&m.Limits.Connections)},
				{"payload", false, size(&m.Limits.Payload)},
			})
		}},
		{"commands", false, func(r *reader, n ast.Node, at string) {
			r.list(n, at, func(n ast.Node, at string) { m.Commands = append(m.Commands, r.command(n, at)) })
		}},
	})
	if !ok || len(r.problems) > 0 {
		return m, r.at["name"]
	}
	domains := []string{string(citywarden.Parking), string(citywarden.Fire), string(citywarden.Pipe), string(citywarden.Building)}
	for _, d := range domains {
		if d == domain {
			m.Domain = citywarden.Domain(d)
		}
	}
	if m.Domain == "" {
		r.fail(r.at["domain"], "unknown domain %q%s", domain, suggest(domain, domains))
	}
	if m.Codec != "json" {
		r.fail(r.at["codec"], "unknown codec %q%s; it is json, or a list of fields", m.Codec, suggest(m.Codec, []string{"json"}))
	}
	checkModel(&m, func(path, format string, args ...any) { r.fail(r.place(path), format, args...) })
	for i := range m.Metrics {
		if x := &m.Metrics[i]; x.StaleAfter == 0 {
			x.StaleAfter = 2 * m.Heartbeat
		}
	}
	if spec != nil {
		r.compile(&m, spec, vectors)
	}
	return m, r.at["name"]
}

func (r *reader) command(n ast.Node, at string) citywarden.ModelCommand {
	var c citywarden.ModelCommand
	r.mapping(n, at, fields{
		{"name", true, text(&c.Name)},
		{"title", true, title(&c.Title)},
		{"one_way", false, boolean(&c.OneWay)},
		{"expires", false, duration(&c.Expires)},
		{"ipso", false, text(&c.IPSO)},
		{"params", false, func(r *reader, n ast.Node, at string) {
			r.list(n, at, func(n ast.Node, at string) {
				var p citywarden.Param
				r.mapping(n, at, fields{
					{"name", true, text(&p.Name)},
					{"title", true, title(&p.Title)},
					{"kind", true, kind(&p.Kind)},
					{"unit", false, text(&p.Unit)},
					{"min", false, number(&p.Min)},
					{"max", false, number(&p.Max)},
					{"optional", false, boolean(&p.Optional)},
				})
				c.Params = append(c.Params, p)
			})
		}},
	})
	return c
}

// place returns where path stood, or the thing that it should be a part of.
func (r *reader) place(path string) *token.Token {
	for {
		if t := r.at[path]; t != nil {
			return t
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return r.at["name"]
		}
		path = path[:i]
	}
}

type (
	read   func(r *reader, n ast.Node, at string)
	fields []field
	field  struct {
		key      string
		required bool
		read     read
	}
)

// mapping reads the fields of n, each at most once and no others.
func (r *reader) mapping(n ast.Node, at string, fs fields) bool {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		r.fail(n.GetToken(), "%s is a mapping (key: value)%s", orFile(at), notA(n))
		return false
	}
	keys := make([]string, len(fs))
	for i, f := range fs {
		keys[i] = f.key
	}
	prefix := at
	if prefix != "" {
		prefix += "."
	}
	seen := map[string]bool{}
next:
	for _, v := range values {
		key := v.Key.GetToken()
		for _, f := range fs {
			if f.key != key.Value {
				continue
			}
			if seen[f.key] {
				r.fail(key, "%s is there twice", f.key)
				continue next
			}
			seen[f.key] = true
			r.at[prefix+f.key] = v.Value.GetToken()
			f.read(r, v.Value, prefix+f.key)
			continue next
		}
		r.fail(key, "unknown key %q%s", key.Value, suggest(key.Value, keys))
	}
	for _, f := range fs {
		if f.required && !seen[f.key] {
			t := n.GetToken()
			if len(values) > 0 {
				t = values[0].Key.GetToken()
			}
			r.fail(t, "%s has no %s", orFile(at), f.key)
		}
	}
	return true
}

func (r *reader) list(n ast.Node, at string, each func(ast.Node, string)) {
	l, ok := n.(*ast.SequenceNode)
	if !ok {
		r.fail(n.GetToken(), "%s is a list%s", at, notA(n))
		return
	}
	for i, v := range l.Values {
		path := fmt.Sprintf("%s[%d]", at, i)
		r.at[path] = v.GetToken()
		each(v, path)
	}
}

func text(to *string) read {
	return func(r *reader, n ast.Node, at string) {
		switch n := n.(type) {
		case *ast.StringNode:
			*to = n.Value
		case *ast.LiteralNode:
			*to = strings.TrimSpace(n.Value.Value)
		default:
			r.fail(n.GetToken(), "%s is a text%s; put it in quotes", at, notA(n))
		}
	}
}

func title(to *citywarden.Text) read {
	return func(r *reader, n ast.Node, at string) {
		r.mapping(n, at, fields{{"zh", true, text(&to.ZH)}, {"en", true, text(&to.EN)}})
	}
}

func duration(to *citywarden.Duration) read {
	return func(r *reader, n ast.Node, at string) {
		s, ok := n.(*ast.StringNode)
		if !ok {
			r.fail(n.GetToken(), "%s is a duration like 90s, 15m, 24h or 7d%s", at, notA(n))
			return
		}
		d, err := citywarden.ParseDuration(s.Value)
		if err != nil {
			r.fail(n.GetToken(), "%s: %s", at, err)
		} else if d < 0 {
			r.fail(n.GetToken(), "%s: a duration is not negative", at)
		}
		*to = d
	}
}

func pace(to *citywarden.Rate) read {
	return func(r *reader, n ast.Node, at string) {
		var s string
		text(&s)(r, n, at)
		if s == "" {
			return
		}
		x, err := citywarden.ParseRate(s)
		if err != nil {
			r.fail(n.GetToken(), "%s: %s", at, err)
		}
		*to = x
	}
}

// size reads how many bytes a message may have.
func size(to *int) read {
	return func(r *reader, n ast.Node, at string) {
		var x *float64
		number(&x)(r, n, at)
		if x == nil {
			return
		}
		if *x != math.Trunc(*x) || *x < 16 || *x > citywarden.MaxPayload {
			r.fail(n.GetToken(), "%s is %g; it is a whole number of bytes, 16 to %d", at, *x, citywarden.MaxPayload)
			return
		}
		*to = int(*x)
	}
}

func kind(to *citywarden.Kind) read {
	return func(r *reader, n ast.Node, at string) {
		var s string
		text(&s)(r, n, at)
		k, err := citywarden.ParseKind(s)
		if err != nil && s != "" {
			r.fail(n.GetToken(), "unknown kind %q%s", s, suggest(s, []string{"number", "bool", "text"}))
		}
		*to = k
	}
}

func number(to **float64) read {
	return func(r *reader, n ast.Node, at string) {
		var x any
		scalar(&x)(r, n, at)
		f, ok := x.(float64)
		if !ok {
			if x != nil {
				r.fail(n.GetToken(), "%s is a number%s", at, notA(n))
			}
			return
		}
		*to = &f
	}
}

func boolean(to *bool) read {
	return func(r *reader, n ast.Node, at string) {
		b, ok := n.(*ast.BoolNode)
		if !ok {
			r.fail(n.GetToken(), "%s is true or false%s", at, notA(n))
			return
		}
		*to = b.Value
	}
}

// scalar reads a text, a number or a bool as string, float64 or bool.
func scalar(to *any) read {
	return func(r *reader, n ast.Node, at string) {
		switch n := n.(type) {
		case *ast.StringNode:
			*to = n.Value
		case *ast.BoolNode:
			*to = n.Value
		case *ast.FloatNode:
			*to = n.Value
		case *ast.IntegerNode:
			if v, ok := citywarden.ValueOf(n.Value); ok {
				*to = v.Float()
			}
		default:
			r.fail(n.GetToken(), "%s is a text, a number or a bool%s", at, notA(n))
		}
		if f, ok := (*to).(float64); ok && (math.IsInf(f, 0) || math.IsNaN(f)) {
			r.fail(n.GetToken(), "%s is not a finite number", at)
			*to = nil
		}
	}
}

func orFile(at string) string {
	if at == "" {
		return "the model"
	}
	return at
}

// notA says what n is instead.
func notA(n ast.Node) string {
	switch n.(type) {
	case *ast.NullNode:
		return ", not empty"
	case *ast.StringNode, *ast.LiteralNode:
		return fmt.Sprintf(", not the text %q", n.GetToken().Value)
	case *ast.IntegerNode, *ast.FloatNode:
		return ", not the number " + n.GetToken().Value
	case *ast.BoolNode:
		return ", not the bool " + n.GetToken().Value
	case *ast.MappingNode, *ast.MappingValueNode:
		return ", not a mapping"
	case *ast.SequenceNode:
		return ", not a list"
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode, *ast.TagNode:
		return "; anchors, aliases and tags are not used in model files"
	}
	return ""
}
