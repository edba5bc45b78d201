package ingest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// maxDepth is how deep JSON may be nested; a reading needs three levels.
const maxDepth = 64

// scanner reads JSON (RFC 8259) and knows where in the bytes it is, so that a
// vendor is told which byte is wrong.
type scanner struct {
	b []byte
	i int
}

// syntaxError is a place in a payload that is not JSON.
type syntaxError struct {
	offset int // in bytes, from 0
	text   string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("byte %d: %s", e.offset, e.text) }

func (s *scanner) errorf(at int, format string, args ...any) error {
	return &syntaxError{at, fmt.Sprintf(format, args...)}
}

// found names what stands at the current place.
func (s *scanner) found() string {
	if s.i >= len(s.b) {
		return "the end"
	}
	rest := s.b[s.i:]
	for _, word := range [...]string{"NaN", "nan", "Infinity", "-Infinity", "Inf", "-Inf", "inf", "None", "undefined", "True", "False"} {
		if bytes.HasPrefix(rest, []byte(word)) {
			return word + ", which is not JSON (leave a metric out when there is no value)"
		}
	}
	if rest[0] == '\'' {
		return "a single quote; JSON uses double quotes"
	}
	r, _ := utf8.DecodeRune(rest)
	if r == utf8.RuneError {
		return fmt.Sprintf("byte 0x%02x", rest[0])
	}
	return strconv.QuoteRune(r)
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// peek returns the byte at the current place, 0 at the end.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// end checks that nothing but space follows.
func (s *scanner) end() error {
	if s.space(); s.i < len(s.b) {
		return s.errorf(s.i, "something follows the end of the JSON value: %s", s.found())
	}
	return nil
}

// token is one JSON value: its bytes, and by the first of them its kind.
type token struct {
	at  int // offset
	raw []byte
}

// kind returns '{', '[', '"', 't', 'f', 'n', or '0' for a number.
func (t token) kind() byte {
	switch c := t.raw[0]; c {
	case '{', '[', '"', 't', 'f', 'n':
		return c
	}
	return '0'
}

func (t token) describe() string {
	switch t.kind() {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "the string " + clip(string(t.raw))
	case '0':
		return "the number " + clip(string(t.raw))
	}
	return string(t.raw)
}

// text decodes a string token; ok is false when it holds bytes that are not
// UTF-8. Without escapes the result is a part of the payload.
func (t token) text() (b []byte, ok bool) {
	inner := t.raw[1 : len(t.raw)-1]
	if !utf8.Valid(inner) {
		return nil, false
	}
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner, true
	}
	var s string
	if err := json.Unmarshal(t.raw, &s); err != nil { // can't fail: the scanner checked it
		return nil, false
	}
	return []byte(s), true
}

// clip shortens s for a message.
func clip(s string) string {
	const n = 40
	if len(s) <= n {
		return s
	}
	i := n
	for i > 0 && !utf8.RuneStart(s[i]) {
		i--
	}
	return s[:i] + "…"
}

// value reads one value; depth counts the levels around it.
func (s *scanner) value(depth int) (token, error) {
	s.space()
	begin := s.i
	if depth > maxDepth {
		return token{}, s.errorf(begin, "nested deeper than %d levels", maxDepth)
	}
	var err error
	switch c := s.peek(); {
	case c == '{':
		err = s.object(depth, nil)
	case c == '[':
		err = s.array(depth, nil)
	case c == '"':
		err = s.str()
	case c == 't':
		err = s.word("true")
	case c == 'f':
		err = s.word("false")
	case c == 'n':
		err = s.word("null")
	case c == '-' || '0' <= c && c <= '9':
		err = s.number()
	default:
		err = s.errorf(begin, "expected a value, found %s", s.found())
	}
	if err != nil {
		return token{}, err
	}
	return token{begin, s.b[begin:s.i]}, nil
}

func (s *scanner) word(w string) error {
	if !bytes.HasPrefix(s.b[s.i:], []byte(w)) {
		return s.errorf(s.i, "expected a value, found %s", s.found())
	}
	s.i += len(w)
	return nil
}

func (s *scanner) number() error {
	begin := s.i
	if s.peek() == '-' {
		s.i++
	}
	switch c := s.peek(); {
	case c == '0':
		s.i++
		if c := s.peek(); '0' <= c && c <= '9' {
			return s.errorf(begin, "a number may not begin with 0")
		}
	case '1' <= c && c <= '9':
		s.digits()
	default:
		s.i = begin
		return s.errorf(begin, "expected a value, found %s", s.found())
	}
	if s.peek() == '.' {
		s.i++
		if !s.digits() {
			return s.errorf(s.i, "expected a digit after the decimal point, found %s", s.found())
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		if !s.digits() {
			return s.errorf(s.i, "expected a digit in the exponent, found %s", s.found())
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	begin := s.i
	for c := s.peek(); '0' <= c && c <= '9'; c = s.peek() {
		s.i++
	}
	return s.i > begin
}

func (s *scanner) str() error {
	begin := s.i
	for s.i++; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return nil
		case c < ' ':
			return s.errorf(s.i, "control character 0x%02x in a string; write it as \\u%04x", c, c)
		case c == '\\':
			s.i++
			switch s.peek() {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for k := 1; k <= 4; k++ {
					if s.i+k >= len(s.b) || !hex(s.b[s.i+k]) {
						return s.errorf(s.i-1, "\\u needs four hexadecimal digits")
					}
				}
				s.i += 4
			default:
				if s.i < len(s.b) {
					return s.errorf(s.i-1, "unknown escape in a string")
				}
			}
		}
	}
	s.i = len(s.b)
	return s.errorf(begin, "the string that begins here does not end")
}

func hex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// member is one key of an object and its value.
type member struct {
	key   []byte
	at    int // offset of the key
	value token
}

// object reads an object and adds its members to into, which may be nil.
func (s *scanner) object(depth int, into *[]member) error {
	s.i++ // {
	for n := 0; ; n++ {
		s.space()
		if n == 0 && s.peek() == '}' {
			s.i++
			return nil
		}
		at := s.i
		if s.peek() != '"' {
			return s.errorf(at, "expected a key in double quotes, found %s", s.found())
		}
		if err := s.str(); err != nil {
			return err
		}
		quoted := token{at, s.b[at:s.i]}
		if s.space(); s.peek() != ':' {
			return s.errorf(s.i, "expected ':' after the key %s, found %s", clip(string(quoted.raw)), s.found())
		}
		s.i++
		v, err := s.value(depth + 1)
		if err != nil {
			return err
		}
		if into != nil {
			key, ok := quoted.text()
			if !ok {
				return s.errorf(at, "a key is not UTF-8; is the device sending GBK?")
			}
			*into = append(*into, member{key, at, v})
		}
		s.space()
		switch s.peek() {
		case ',':
			s.i++
		case '}':
			s.i++
			return nil
		default:
			return s.errorf(s.i, "expected ',' or '}' in an object, found %s", s.found())
		}
	}
}

// array reads an array and calls each, which may be nil, for its elements.
func (s *scanner) array(depth int, each func(token)) error {
	s.i++ // [
	for n := 0; ; n++ {
		if s.space(); n == 0 && s.peek() == ']' {
			s.i++
			return nil
		}
		v, err := s.value(depth + 1)
		if err != nil {
			return err
		}
		if each != nil {
			each(v)
		}
		s.space()
		switch s.peek() {
		case ',':
			s.i++
		case ']':
			s.i++
			return nil
		default:
			return s.errorf(s.i, "expected ',' or ']' in an array, found %s", s.found())
		}
	}
}

// members returns the members of an object that was scanned before, in the
// memory of into.
func (s *scanner) members(t token, into []member) ([]member, error) {
	in := scanner{b: s.b, i: t.at} // offsets stay those of the payload
	list := into[:0]
	err := in.object(0, &list)
	return list, err
}
