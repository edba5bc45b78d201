package devices

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices/codec"
)

// vector is a payload and what the codec has to make of it.
type vector struct {
	at         string // its path in the file
	payload    citywarden.RawPayload
	readings   []wanted
	attributes map[string]any
	fails      string // a part of the error, "" when there is none
}

// wanted is a reading of a vector.
type wanted struct {
	metric string
	value  any
	time   time.Time // zero: it has none
}

func (w wanted) String() string { return shownReading(w.metric, w.value, w.time) }

func shownReading(metric string, value any, at time.Time) string {
	s := fmt.Sprintf("%s = %v", metric, value)
	if !at.IsZero() {
		s += " at " + at.UTC().Format(time.RFC3339Nano)
	}
	return s
}

// codec reads a codec that is a list of fields.
func (r *reader) codec(n ast.Node, at string) (*codec.Spec, []vector) {
	var s codec.Spec
	var vectors []vector
	r.mapping(n, at, fields{
		{"format", false, text(&s.Format)},
		{"order", false, text(&s.Order)},
		{"time", false, expression(&s.Time)},
		{"fields", true, func(r *reader, n ast.Node, at string) { s.Fields = r.codecFields(n, at) }},
		{"vectors", true, func(r *reader, n ast.Node, at string) {
			r.list(n, at, func(n ast.Node, at string) { vectors = append(vectors, r.vector(n, at)) })
			if len(vectors) == 0 {
				r.fail(n.GetToken(), "a codec has at least one vector: a payload of the device, and what has to come of it")
			}
		}},
	})
	return &s, vectors
}

func (r *reader) codecFields(n ast.Node, at string) []codec.Field {
	var out []codec.Field
	r.list(n, at, func(n ast.Node, at string) {
		var f codec.Field
		var offset *int
		r.mapping(n, at, fields{
			{"name", false, text(&f.Name)},
			{"type", false, text(&f.Type)},
			{"bits", false, integer(&f.Bits)},
			{"bytes", false, expression(&f.Bytes)},
			{"offset", false, func(r *reader, n ast.Node, at string) {
				offset = new(int)
				integer(offset)(r, n, at)
			}},
			{"bit", false, integer(&f.Bit)},
			{"order", false, text(&f.Order)},
			{"key", false, text(&f.Key)},
			{"equals", false, number(&f.Equals)},
			{"scale", false, number(&f.Scale)},
			{"add", false, number(&f.Add)},
			{"enum", false, choices(&f.Enum)},
			{"when", false, expression(&f.When)},
			{"expr", false, expression(&f.Expr)},
			{"checksum", false, text(&f.Checksum)},
			{"from", false, expression(&f.From)},
			{"metric", false, text(&f.Metric)},
			{"attribute", false, text(&f.Attribute)},
			{"time", false, expression(&f.Time)},
			{"repeat", false, expression(&f.Repeat)},
			{"fields", false, func(r *reader, n ast.Node, at string) { f.Fields = r.codecFields(n, at) }},
		})
		f.Offset = offset
		out = append(out, f)
	})
	return out
}

func (r *reader) vector(n ast.Node, at string) vector {
	v := vector{at: at}
	var port int
	forms := 0
	bytes := func(decode func(string) ([]byte, error)) read {
		return func(r *reader, n ast.Node, at string) {
			var s string
			expression(&s)(r, n, at)
			var err error
			if v.payload.Bytes, err = decode(s); err != nil {
				r.fail(n.GetToken(), "%s: %v", at, err)
			}
			forms++
		}
	}
	clock := func(to *time.Time) read {
		return func(r *reader, n ast.Node, at string) {
			var s string
			text(&s)(r, n, at)
			t, err := time.Parse(time.RFC3339Nano, s)
			if err != nil && s != "" {
				r.fail(n.GetToken(), "%s is a time like 2026-01-31T08:00:00Z, not %q", at, s)
			}
			*to = t
		}
	}
	r.mapping(n, at, fields{
		{"name", false, text(new(string))},
		{"hex", false, bytes(func(s string) ([]byte, error) { return hex.DecodeString(strings.Join(strings.Fields(s), "")) })},
		{"base64", false, bytes(base64.StdEncoding.DecodeString)},
		{"json", false, bytes(func(s string) ([]byte, error) { return []byte(s), nil })},
		{"port", false, integer(&port)},
		{"received", false, clock(&v.payload.Received)},
		{"error", false, text(&v.fails)},
		{"attributes", false, func(r *reader, n ast.Node, at string) {
			v.attributes = map[string]any{}
			m, ok := n.(ast.MapNode)
			if !ok {
				r.fail(n.GetToken(), "%s is a mapping (name: value)%s", at, notA(n))
				return
			}
			for i := m.MapRange(); i.Next(); {
				var x any
				scalar(&x)(r, i.Value(), at)
				v.attributes[i.Key().GetToken().Value] = x
			}
		}},
		{"readings", false, func(r *reader, n ast.Node, at string) {
			r.list(n, at, func(n ast.Node, at string) {
				var w wanted
				r.mapping(n, at, fields{{"metric", true, text(&w.metric)}, {"value", true, scalar(&w.value)}, {"time", false, clock(&w.time)}})
				v.readings = append(v.readings, w)
			})
		}},
	})
	v.payload.Port = port
	if forms != 1 {
		r.fail(n.GetToken(), "a vector has its bytes in one of hex, base64 and json")
	}
	return v
}

// compile compiles the codec of m and runs its vectors.
func (r *reader) compile(m *citywarden.Model, s *codec.Spec, vectors []vector) {
	c := codec.Compile(s, m, func(path string, at int, format string, args ...any) {
		r.failIn(r.place("codec."+path), at, format, args...)
	})
	if len(r.problems) > 0 {
		return
	}
	m.Raw = c
	for i := range vectors {
		r.try(c, &vectors[i])
	}
}

// failIn notes a mistake at character at of the text t.
func (r *reader) failIn(t *token.Token, at int, format string, args ...any) {
	if t == nil || t.Position == nil || strings.Contains(t.Value, "\n") {
		r.fail(t, format, args...)
		return
	}
	if t.Type == token.SingleQuoteType || t.Type == token.DoubleQuoteType {
		at++
	}
	moved, place := *t, *t.Position
	place.Column += at
	moved.Position = &place
	r.fail(&moved, format, args...)
}

// try decodes a vector and notes what is not as it says.
func (r *reader) try(c *codec.Codec, v *vector) {
	got, err := c.Decode(v.payload)
	if err == nil && len(got.Rejected) > 0 {
		err = fmt.Errorf("%s", strings.Join(got.Rejected, "; "))
	}
	switch {
	case v.fails != "" && (err == nil || !strings.Contains(err.Error(), v.fails)):
		r.fail(r.place(v.at+".error"), "expected the error %q, got %v", v.fails, orNone(err))
		return
	case err != nil && v.fails == "":
		r.fail(r.place(v.at), "the codec can't read this vector: %v", err)
		return
	}
	for i, w := range v.readings {
		at := r.place(fmt.Sprintf("%s.readings[%d]", v.at, i))
		if i >= len(got.Readings) {
			r.fail(at, "expected %s, got no more readings", w)
			continue
		}
		g := got.Readings[i]
		if string(g.Metric) != w.metric || !same(g.Value.Any(), w.value) || !g.Time.Equal(w.time) {
			r.fail(at, "expected %s, got %s", w, shownReading(string(g.Metric), g.Value.Any(), g.Time))
		}
	}
	for _, g := range got.Readings[min(len(v.readings), len(got.Readings)):] {
		r.fail(r.place(v.at), "got %s, which the vector does not expect", shownReading(string(g.Metric), g.Value.Any(), g.Time))
	}
	for _, name := range slices.Compact(slices.Sorted(func(yield func(string) bool) {
		for _, from := range []map[string]any{v.attributes, got.Attrs} {
			for name := range from {
				if !yield(name) {
					return
				}
			}
		}
	})) {
		if !same(got.Attrs[name], v.attributes[name]) {
			r.fail(r.place(v.at+".attributes"), "expected the attribute %s = %v, got %v", name, orNone(v.attributes[name]), orNone(got.Attrs[name]))
		}
	}
}

func orNone(x any) any {
	if x == nil {
		return "none"
	}
	return x
}

// same compares values; numbers are as good as the digits that people write.
func same(a, b any) bool {
	x, xok := a.(float64)
	y, yok := b.(float64)
	return a == b || xok && yok && math.Abs(x-y) <= 1e-9*math.Max(math.Abs(x), math.Abs(y))
}

// expression reads a text or a whole number as it is written.
func expression(to *string) read {
	return func(r *reader, n ast.Node, at string) {
		if i, ok := n.(*ast.IntegerNode); ok {
			*to = i.GetToken().Value
			return
		}
		text(to)(r, n, at)
	}
}

func integer(to *int) read {
	return func(r *reader, n ast.Node, at string) {
		i, err := strconv.ParseInt(n.GetToken().Value, 0, 32)
		if _, ok := n.(*ast.IntegerNode); !ok || err != nil {
			r.fail(n.GetToken(), "%s is a whole number%s", at, notA(n))
			return
		}
		*to = int(i)
	}
}

// choices reads what numbers stand for, like {0: free, 1: occupied}.
func choices(to *[]codec.Choice) read {
	return func(r *reader, n ast.Node, at string) {
		m, ok := n.(ast.MapNode)
		if !ok {
			r.fail(n.GetToken(), "%s is a mapping (number: what it stands for)%s", at, notA(n))
			return
		}
		for i := m.MapRange(); i.Next(); {
			key := i.Key().GetToken()
			var c codec.Choice
			if x, err := strconv.ParseInt(key.Value, 0, 64); err == nil {
				c.Number = float64(x)
			} else if c.Number, err = strconv.ParseFloat(key.Value, 64); err != nil {
				r.fail(key, "%q is no number; an enum says what numbers stand for", key.Value)
			}
			if slices.ContainsFunc(*to, func(o codec.Choice) bool { return o.Number == c.Number }) {
				r.fail(key, "%v is there twice", c.Number)
			}
			if _, nothing := i.Value().(*ast.NullNode); !nothing {
				scalar(&c.Is)(r, i.Value(), at)
			}
			*to = append(*to, c)
		}
	}
}
