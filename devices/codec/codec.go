package codec

import (
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/citywarden/citywarden"
)

// Codec is a compiled codec. Several goroutines may use it.
type Codec struct {
	json     bool
	time     *program // nil: the arrival
	fields   []field
	names    map[string]citywarden.Kind
	relative bool // an expression reads the arrival, and a time may come of it
}

// field is a compiled Field.
type field struct {
	Field
	kind   citywarden.Kind // of what it is in the end; 0 when only its expression tells
	bits   int             // 0: length says
	little bool
	length *program // in bytes
	rest   bool     // up to the end
	when   *program
	expr   *program
	time   *program
	repeat *program
	from   *program
	fields []field
}

// computed reports whether f takes nothing out of the payload.
func (f *field) computed() bool {
	return f.Expr != "" && f.bits == 0 && f.length == nil && !f.rest && f.Key == ""
}

var fieldName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,63}$`)

// words are the names that a field can't have.
var words = strings.Fields("and or not in let if else true false nil matches contains startsWith endsWith value byte")

// compiler holds what Compile hands down.
type compiler struct {
	model *citywarden.Model
	codec *Codec
	order string
	fail  Fail
	count int
}

// Compile returns the codec that s describes, for devices of model m. Mistakes
// go to fail; with one the codec is of no use.
func Compile(s *Spec, m *citywarden.Model, fail Fail) *Codec {
	c := &compiler{model: m, codec: &Codec{names: map[string]citywarden.Kind{}}, order: s.Order, fail: fail}
	switch s.Format {
	case "", "binary":
	case "json":
		c.codec.json = true
	default:
		fail("format", 0, "unknown format %q%s; it is binary or json", s.Format, citywarden.DidYouMean(s.Format, []string{"binary", "json"}))
	}
	c.checkOrder(s.Order, "order")
	if len(s.Fields) == 0 {
		fail("fields", 0, "a codec has at least one field")
	}
	c.codec.fields = c.fields(s.Fields, "fields", 1)
	if !c.says(c.codec.fields) {
		fail("fields", 0, "no field is a metric or an attribute, so nothing would come of a payload")
	}
	c.codec.time = c.expr(s.Time, "time", citywarden.KindNumber, nil)
	c.codec.relative = c.codec.relative || c.codec.time != nil && c.codec.time.relative
	return c.codec
}

// says reports whether one of list, or inside of them, is kept.
func (c *compiler) says(list []field) bool {
	return slices.ContainsFunc(list, func(f field) bool { return f.Metric != "" || f.Attribute != "" || c.says(f.fields) })
}

func (c *compiler) checkOrder(order, path string) {
	if order != "" && order != "big" && order != "little" {
		c.fail(path, 0, "unknown byte order %q%s; it is big or little", order, citywarden.DidYouMean(order, []string{"big", "little"}))
	}
}

// expr compiles text, "" to nil. want is the kind that it must have, 0 for any.
func (c *compiler) expr(text, path string, want citywarden.Kind, more map[string]citywarden.Kind) *program {
	if text == "" {
		return nil
	}
	names := c.codec.names
	if more != nil {
		names = map[string]citywarden.Kind{}
		for _, from := range []map[string]citywarden.Kind{c.codec.names, more} {
			for n, k := range from {
				names[n] = k
			}
		}
	}
	p, err := compileExpr(text, names)
	if err != nil {
		at := 0
		if e, ok := err.(*exprError); ok {
			at = e.at
		}
		c.fail(path, at, "%s", err)
		return nil
	}
	if want != 0 && p.kind != 0 && p.kind != want {
		c.fail(path, 0, "this has to be a %s, and is a %s", want, p.kind)
	}
	return p
}

func (c *compiler) fields(list []Field, path string, depth int) []field {
	out := make([]field, 0, len(list))
	if depth > maxDepth {
		c.fail(path, 0, "fields stand at most %d deep in each other", maxDepth)
		return nil
	}
	for i := range list {
		if c.count++; c.count == maxFields+1 {
			c.fail(path, 0, "a codec has at most %d fields", maxFields)
		}
		if c.count > maxFields {
			return out
		}
		out = append(out, c.field(list[i], pathOf(path, i), depth))
	}
	return out
}

func (c *compiler) field(x Field, path string, depth int) field {
	f := field{Field: x, little: x.Order == "little" || x.Order == "" && c.order == "little"}
	c.checkOrder(x.Order, path+".order")
	f.when = c.expr(x.When, path+".when", citywarden.KindBool, nil)
	c.shape(&f, path)
	if len(x.Fields) > 0 {
		c.group(&f, path, depth)
		return f
	}
	if x.Repeat != "" {
		c.fail(path+".repeat", 0, "what repeats are fields: put them into fields")
	}
	c.kind(&f, path)
	c.target(&f, path)
	c.name(&f, path)
	return f
}

// group compiles a field that consists of fields.
func (c *compiler) group(f *field, path string, depth int) {
	if f.Metric != "" || f.Attribute != "" || f.Expr != "" || f.bits != 0 || f.length != nil || f.rest || f.Enum != nil || f.Checksum != "" {
		c.fail(path, 0, "what has fields is only their frame: it has name, offset, key, when and repeat")
	}
	switch {
	case f.Repeat == "end":
	case c.codec.json && f.Repeat != "":
		c.fail(path+".repeat", 0, "in JSON an array says how long it is: repeat: end")
	default:
		f.repeat = c.expr(f.Repeat, path+".repeat", citywarden.KindNumber, nil)
	}
	f.fields = c.fields(f.Fields, path+".fields", depth+1)
}

// shape checks where the field is and how long.
func (c *compiler) shape(f *field, path string) {
	if f.Type == "" {
		f.Type = "uint"
	}
	if _, ok := kinds[f.Type]; !ok {
		types := []string{"uint", "int", "float", "bcd", "bool", "ascii", "bytes"}
		c.fail(path+".type", 0, "unknown type %q%s; it is one of %s", f.Type, citywarden.DidYouMean(f.Type, types), strings.Join(types, ", "))
		return
	}
	if c.codec.json {
		if f.Bits != 0 || f.Bytes != "" || f.Offset != nil || f.Bit != 0 || f.Order != "" || f.Checksum != "" || f.Type == "bytes" || f.Type == "bcd" {
			c.fail(path, 0, "bits, bytes, offset, order and checksum are of binary payloads; in JSON a field has a key")
		}
		if f.Key == "" && f.Expr == "" && len(f.Fields) == 0 {
			c.fail(path, 0, "the field has no key and no expr")
		}
		return
	}
	if f.Key != "" {
		c.fail(path+".key", 0, "a key is of JSON; the codec's format is binary")
	}
	f.bits = f.Bits
	switch {
	case f.Bytes == "end":
		f.rest = true
	case f.Bytes != "":
		f.length = c.expr(f.Bytes, path+".bytes", citywarden.KindNumber, nil)
	case f.Bits == 0 && f.Type == "bool" && f.Expr == "":
		f.bits = 1
	}
	switch {
	case f.Bits != 0 && f.Bytes != "":
		c.fail(path+".bytes", 0, "a field has bits or bytes, not both")
	case f.Bits < 0 || f.Bits > 8*maxText:
		c.fail(path+".bits", 0, "%d bits; a field has 1 to %d", f.Bits, 8*maxText)
	case f.Bit < 0 || f.Bit > 7:
		c.fail(path+".bit", 0, "bit %d; a byte has 0 to 7, in the order of the field", f.Bit)
	case f.Bit != 0 && f.Offset == nil:
		c.fail(path+".bit", 0, "bit is of the byte at offset, and there is no offset")
	case len(f.Fields) > 0:
	case f.bits == 0 && f.length == nil && !f.rest && f.Expr == "":
		c.fail(path, 0, "the field has no bits, bytes or expr")
	case f.rest && kinds[f.Type] != citywarden.KindText:
		c.fail(path+".bytes", 0, "bytes: end is of ascii and bytes; a number has 64 bits at most")
	case kinds[f.Type] == citywarden.KindText && f.bits%8 != 0:
		c.fail(path+".bits", 0, "%s has whole bytes", f.Type)
	case kinds[f.Type] != citywarden.KindText && f.bits > 64:
		c.fail(path+".bits", 0, "%d bits; a number has 64 at most", f.bits)
	case f.Type == "float" && f.bits != 0 && f.bits != 32 && f.bits != 64:
		c.fail(path+".bits", 0, "a float has 32 or 64 bits (IEEE 754), not %d", f.bits)
	case f.Type == "bcd" && f.bits%4 != 0:
		c.fail(path+".bits", 0, "a digit of BCD has 4 bits, %d is not a multiple", f.bits)
	}
	if f.Checksum != "" {
		k, ok := checksums[f.Checksum]
		switch {
		case !ok:
			c.fail(path+".checksum", 0, "unknown checksum %q%s; it is one of %s", f.Checksum, citywarden.DidYouMean(f.Checksum, checksumNames()), strings.Join(checksumNames(), ", "))
		case f.bits != k.bits:
			c.fail(path+".checksum", 0, "%s has %d bits, the field %d", f.Checksum, k.bits, f.bits)
		case f.Type != "uint" || f.Scale != nil || f.Add != nil:
			c.fail(path+".checksum", 0, "a checksum is a uint as it is")
		}
		f.from = c.expr(f.From, path+".from", citywarden.KindNumber, nil)
	} else if f.From != "" {
		c.fail(path+".from", 0, "from is where a checksum begins, and there is none")
	}
}

// kind finds out what the field is, and checks what makes it that.
func (c *compiler) kind(f *field, path string) {
	f.kind = kinds[f.Type]
	if f.kind != citywarden.KindNumber && (f.Scale != nil || f.Add != nil || f.Enum != nil || f.Equals != nil) {
		c.fail(path+".type", 0, "scale, add, enum and equals are of numbers, %s is none", f.Type)
	}
	if f.Scale != nil && *f.Scale == 0 {
		c.fail(path+".scale", 0, "a scale of 0 makes everything 0")
	}
	for i, e := range f.Enum {
		if e.Is == nil {
			continue
		}
		v, _ := citywarden.ValueOf(e.Is)
		if first := slices.IndexFunc(f.Enum, func(o Choice) bool { return o.Is != nil }); first == i {
			f.kind = v.Kind()
		} else if v.Kind() != f.kind {
			c.fail(path+".enum", 0, "%v is a %s, the one before a %s; they are all alike", e.Is, v.Kind(), f.kind)
		}
	}
	if f.Expr == "" {
		return
	}
	var value map[string]citywarden.Kind
	if !f.computed() {
		value = map[string]citywarden.Kind{"value": f.kind}
	}
	want := citywarden.Kind(0)
	if m, ok := c.model.Metric(citywarden.MetricName(f.Metric)); ok {
		want = m.Kind
	}
	f.kind = want
	if f.expr = c.expr(f.Expr, path+".expr", want, value); f.expr != nil && f.expr.kind != 0 {
		f.kind = f.expr.kind
	}
}

// target checks where the field goes.
func (c *compiler) target(f *field, path string) {
	switch {
	case f.Metric != "" && f.Attribute != "":
		c.fail(path+".attribute", 0, "a field is a metric or an attribute, not both")
	case f.Metric != "":
		names := make([]string, len(c.model.Metrics))
		for i := range names {
			names[i] = string(c.model.Metrics[i].Name)
		}
		m, ok := c.model.Metric(citywarden.MetricName(f.Metric))
		switch {
		case !ok:
			c.fail(path+".metric", 0, "the model has no metric %q%s", f.Metric, citywarden.DidYouMean(f.Metric, names))
		case f.kind != 0 && f.kind != m.Kind:
			c.fail(path+".metric", 0, "%s is a %s, the field a %s", f.Metric, m.Kind, f.kind)
		}
	case f.Attribute != "" && !fieldName.MatchString(f.Attribute):
		c.fail(path+".attribute", 0, "attribute name %q: use letters, digits and '_', beginning with a letter, at most 64", f.Attribute)
	}
	if f.Metric == "" && f.Time != "" {
		c.fail(path+".time", 0, "a time is of a metric, and the field is none")
	}
	f.time = c.expr(f.Time, path+".time", citywarden.KindNumber, nil)
	c.codec.relative = c.codec.relative || f.time != nil && f.time.relative
}

// name makes the field known to the expressions after it.
func (c *compiler) name(f *field, path string) {
	if f.Name == "" {
		return
	}
	switch before, twice := c.codec.names[f.Name]; {
	case !fieldName.MatchString(f.Name):
		c.fail(path+".name", 0, "field name %q: use letters, digits and '_', beginning with a letter, at most 64", f.Name)
	case slices.Contains(reserved, f.Name) || slices.Contains(words, f.Name) || isFunction(f.Name):
		c.fail(path+".name", 0, "a field can't be called %q: the word has a meaning of its own in expressions", f.Name)
	case twice && before != f.kind:
		c.fail(path+".name", 0, "field %s is there already, as a %s", f.Name, before)
	default:
		if f.kind == 0 {
			f.kind = citywarden.KindNumber
		}
		c.codec.names[f.Name] = f.kind
	}
}

func isFunction(name string) bool {
	if slices.Contains(builtins, name) {
		return true
	}
	for _, f := range functions {
		if f.name == name {
			return true
		}
	}
	return false
}

// scaled returns v times scale; 538 times 0.1 is 53.8, not 53.800000000000004.
func scaled(v float64, scale *float64) float64 {
	if scale == nil {
		return v
	}
	if inverse := math.Round(1 / *scale); math.Abs(*scale) < 1 && 1/inverse == *scale {
		return v / inverse
	}
	return v * *scale
}
