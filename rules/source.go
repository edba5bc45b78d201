package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/citywarden/citywarden"
)

func sortProblems(ps citywarden.Problems) {
	slices.SortStableFunc(ps, func(a, b citywarden.Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
}

// Limits of reading one file.
const (
	maxProblems    = 100 // that are reported
	maxLine        = 1 << 16
	maxNestingYAML = 32 // the parser takes the square of it
)

// source is the text of one rule file.
type source struct {
	name  string
	lines []string
	found *citywarden.Problems
}

func newSource(name string, text []byte, found *citywarden.Problems) *source {
	return &source{name: name, lines: strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n"), found: found}
}

// report adds a problem at line and col, both from 1, col in characters.
func (s *source) report(line, col int, format string, args ...any) {
	if s.full() {
		return
	}
	*s.found = append(*s.found, citywarden.ProblemAt(s.name, s.lines, line, max(col, 1), fmt.Sprintf(format, args...)))
}

// full reports that more problems would not be reported.
func (s *source) full() bool { return len(*s.found) >= maxProblems }

// node is a YAML value and where it stands.
type node struct {
	src  *source
	n    ast.Node
	tok  *token.Token
	most int // items that a list may have here; 0 any number
}

// field is one key of a mapping.
type field struct {
	name string
	key  node
	val  node
}

// parse returns the only document of the file; ok is false when it is broken or
// empty, which has been reported.
func (s *source) parse(text []byte) (root node, ok bool) {
	for i, l := range s.lines {
		if len(l) > maxLine {
			s.report(i+1, 1, "the line is longer than %d bytes; break it", maxLine)
			return node{}, false
		}
	}
	tokens := lexer.Tokenize(string(text))
	if !s.harmless(tokens) {
		return node{}, false
	}
	f, err := parser.Parse(tokens, 0)
	if err != nil {
		line, col, msg := 1, 1, err.Error()
		if se, is := err.(interface {
			GetMessage() string
			GetToken() *token.Token
		}); is {
			msg = se.GetMessage()
			if t := se.GetToken(); t != nil && t.Position != nil {
				line, col = t.Position.Line, t.Position.Column
			}
		}
		if strings.Contains(msg, "\t") {
			msg = "a tab can't stand here; indent with blanks"
		}
		s.report(line, col, "not valid YAML: %s", msg)
		return node{}, false
	}
	var docs []ast.Node
	for _, d := range f.Docs {
		if d.Body != nil {
			docs = append(docs, d.Body)
		}
	}
	switch len(docs) {
	case 0:
		return node{}, false
	case 1:
		return s.node(docs[0]), true
	}
	n := s.node(docs[1])
	n.report("a rule file is one YAML document; put the second one into its own file")
	return node{}, false
}

// harmless reports what the parser should not be given: deep nesting, and what no
// rule file needs.
func (s *source) harmless(tokens token.Tokens) bool {
	depth, dashes, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, dashes = t.Position.Line, 0
		}
		what := ""
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType:
			dashes++
		case token.AnchorType, token.AliasType:
			what = "anchors and aliases (& and *) are"
		case token.TagType:
			what = "tags (!) are"
		case token.MappingKeyType:
			what = "a key behind ? is"
		}
		if depth > maxNestingYAML || dashes > maxNestingYAML {
			what = fmt.Sprintf("nesting deeper than %d levels is", maxNestingYAML)
		}
		if what != "" {
			s.report(line, t.Position.Column, "%s not part of a rule file", what)
			return false
		}
	}
	return true
}

func (s *source) node(n ast.Node) node { return node{src: s, n: n, tok: n.GetToken()} }

// pos returns where the value begins.
func (n node) pos() (line, col int) {
	switch v := n.n.(type) {
	case *ast.MappingNode:
		if !v.IsFlowStyle && len(v.Values) > 0 {
			t := v.Values[0].Key.GetToken()
			return t.Position.Line, t.Position.Column
		}
	case *ast.MappingValueNode:
		t := v.Key.GetToken()
		return t.Position.Line, t.Position.Column
	}
	return n.tok.Position.Line, n.tok.Position.Column
}

func (n node) report(format string, args ...any) {
	line, col := n.pos()
	n.src.report(line, col, format, args...)
}

// fields returns the keys of a mapping in order; it reports anything else,
// keys given twice and keys that s does not have.
func (n node) fields(s shape) []field {
	what := s.what
	var values []*ast.MappingValueNode
	switch v := n.n.(type) {
	case *ast.MappingNode:
		values = v.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{v}
	default:
		_, isList := n.n.(*ast.SequenceNode)
		if isList && what == fileShape.what {
			n.report("a list can't stand here; begin the file with rules: and put the list under it")
			return nil
		}
		if len(s.keys) == 0 {
			n.report("%s is a mapping", what)
		} else {
			n.report("%s is a mapping with the keys %s", what, strings.Join(s.names(), ", "))
		}
		return nil
	}
	out := make([]field, 0, len(values))
	var seen map[string]bool // names of one's own: there may be many
	if len(s.keys) == 0 {
		seen = make(map[string]bool, len(values))
	}
	for _, v := range values {
		key := n.src.node(v.Key)
		name, ok := key.scalar()
		known := s.index(name)
		switch {
		case !ok:
			key.report("a key is a plain word")
			continue
		case seen[name] || known >= 0 && slices.ContainsFunc(out, func(f field) bool { return f.name == name }):
			key.report("key %q of %s is given twice", name, what)
			continue
		case len(s.keys) > 0 && known < 0:
			hint := choices(name, s.names(), "it has")
			if what == ruleShape.what && slices.Contains(levelShape.names(), name) {
				hint = "; it stands in a level, like levels: [{severity: major, when: 'pressure < 2', for: 5m}]"
			}
			key.report("unknown key %q of %s%s", name, what, hint)
			continue
		}
		val := n.src.node(v.Value)
		if known >= 0 {
			val.most = s.keys[known].val.most
		} else {
			seen[name] = true
		}
		out = append(out, field{name, key, val})
	}
	return out
}

// items returns the elements of a sequence, or reports that n is none.
func (n node) items(what string) []node {
	s, ok := n.n.(*ast.SequenceNode)
	if !ok {
		n.report("%s is a list", what)
		return nil
	}
	if n.most > 0 && len(s.Values) > n.most {
		n.report("%s has %d entries; at most %d", what, len(s.Values), n.most)
		return nil
	}
	out := make([]node, len(s.Values))
	for i, v := range s.Values {
		out[i] = n.src.node(v)
	}
	return out
}

// empty is whether n is a list of nothing.
func (n node) empty() bool {
	s, ok := n.n.(*ast.SequenceNode)
	return ok && len(s.Values) == 0
}

// strings returns the texts of a list; a single text counts as a list of one.
func (n node) strings(what string) []string {
	if s, ok := n.scalar(); ok {
		return []string{s}
	}
	var out []string
	for _, it := range n.items(what) {
		if s, ok := it.text(what); ok {
			out = append(out, s)
		}
	}
	return out
}

// scalar returns the text of a scalar as written, without its quotes.
func (n node) scalar() (string, bool) {
	switch v := n.n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.tok.Value, true
	}
	return "", false
}

// text returns the text of a scalar, or reports that n is none.
func (n node) text(what string) (string, bool) {
	s, ok := n.scalar()
	switch {
	case !ok:
		n.report("%s is a text", what)
	case strings.TrimSpace(s) == "":
		n.report("%s is empty", what)
		ok = false
	}
	return s, ok
}

// value returns a bool, float64 or string.
func (n node) value(what string) (any, bool) {
	switch v := n.n.(type) {
	case *ast.BoolNode:
		return v.Value, true
	case *ast.IntegerNode:
		switch i := v.Value.(type) {
		case int64:
			return float64(i), true
		case uint64:
			return float64(i), true
		}
	case *ast.FloatNode:
		return v.Value, true
	}
	s, ok := n.text(what)
	return s, ok
}

func (n node) bool(what string) bool {
	b, ok := n.n.(*ast.BoolNode)
	if !ok {
		n.report("%s is true or false", what)
		return false
	}
	return b.Value
}

// int returns a whole number from least, which is not below 0, to most.
func (n node) int(what string, least, most int) int {
	if v, ok := n.n.(*ast.IntegerNode); ok {
		switch i := v.Value.(type) {
		case int64:
			if i >= int64(least) && i <= int64(most) {
				return int(i)
			}
		case uint64:
			if i >= uint64(least) && i <= uint64(most) {
				return int(i)
			}
		}
	}
	n.report("%s is a whole number from %d to %d", what, least, most)
	return least
}

// maxDuration bounds every duration of a rule.
const maxDuration = citywarden.Duration(366 * 24 * 3600 * 1e9)

func (n node) duration(what string) citywarden.Duration {
	s, ok := n.text(what)
	if !ok {
		return 0
	}
	d, err := citywarden.ParseDuration(s)
	switch {
	case err != nil:
		n.report("%s: %v", what, err)
	case d < 0 || d > maxDuration:
		n.report("%s is %s; it can be 0s to 366d", what, s)
	default:
		return d
	}
	return 0
}

// reportAt reports a problem inside the text of a scalar, at the offset
// (in characters, from 0) of its value.
func (n node) reportAt(offset int, format string, args ...any) {
	line, col := n.at(offset)
	n.src.report(line, col, format, args...)
}

// at returns where the character at offset of a scalar's value stands in the
// file, for plain, quoted and block scalars.
func (n node) at(offset int) (line, col int) {
	line, col = n.tok.Position.Line, n.tok.Position.Column
	if lit, ok := n.n.(*ast.LiteralNode); ok {
		return n.src.blockAt(line, lit.Value.Value, offset)
	}
	value, _ := n.scalar()
	rest := []rune(value)
	quote := n.tok.Type
	cur := cursor{src: n.src, line: line, col: col}
	if quote == token.SingleQuoteType || quote == token.DoubleQuoteType {
		cur.col++
	}
	for i := 0; i < offset && i < len(rest); i++ {
		cur.step(quote, rest[i])
	}
	cur.fold()
	return cur.line, cur.col
}

// blockAt is at for a literal or folded block whose indicator stands on line.
func (s *source) blockAt(line int, value string, offset int) (int, int) {
	cur := cursor{src: s, line: line + 1, col: 1}
	indent := 0
	for l := line; l < len(s.lines); l++ {
		if t := strings.TrimLeft(s.lines[l], " "); t != "" {
			indent = len(s.lines[l]) - len(t)
			break
		}
	}
	cur.col += indent
	for i, r := range []rune(value) {
		if i >= offset {
			break
		}
		if cur.peek() == '\n' { // the end of a line: "\n", or folded to " "
			cur.line++
			cur.col = 1 + indent
			for cur.line <= len(s.lines) && strings.TrimSpace(s.lines[cur.line-1]) == "" && r != '\n' {
				cur.line++
			}
			continue
		}
		cur.col++
	}
	return cur.line, cur.col
}

// cursor walks over the source of a flow scalar.
type cursor struct {
	src       *source
	line, col int
}

func (c *cursor) peek() rune {
	if c.line > len(c.src.lines) {
		return -1
	}
	text := c.src.lines[c.line-1]
	for i := 1; i < c.col; i++ {
		_, n := utf8.DecodeRuneInString(text)
		text = text[n:]
	}
	if text == "" {
		return '\n'
	}
	r, _ := utf8.DecodeRuneInString(text)
	return r
}

// fold moves from the end of a line to the first character of the next.
func (c *cursor) fold() {
	for c.peek() == '\n' && c.line < len(c.src.lines) {
		c.line++
		c.col = 1
		for c.peek() == ' ' {
			c.col++
		}
	}
}

// step moves over the source of one character of the value.
func (c *cursor) step(quote token.Type, r rune) {
	s := c.peek()
	switch {
	case s == '\n':
		c.fold()
		if r != ' ' && r != '\n' {
			c.col++
		}
	case quote == token.SingleQuoteType && s == '\'':
		c.col += 2
	case quote == token.DoubleQuoteType && s == '\\':
		c.col++
		switch c.peek() {
		case 'x':
			c.col += 3
		case 'u':
			c.col += 5
		case 'U':
			c.col += 9
		default:
			c.col++
		}
	default:
		c.col++
	}
}

// choices tells what can stand instead of name: "; did you mean …? It has …".
func choices(name string, names []string, lead string) string {
	all := strings.Join(names, ", ")
	if s := citywarden.DidYouMean(name, names); s != "" {
		return s + " " + strings.ToUpper(lead[:1]) + lead[1:] + " " + all
	}
	return "; " + lead + " " + all
}
