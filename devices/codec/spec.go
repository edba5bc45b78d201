// Package codec compiles the codec of a device model, a list of fields, and
// decodes payloads with it.
//
//	c := codec.Compile(spec, model, fail)
//	got, err := c.Decode(citywarden.RawPayload{Bytes: payload, Received: at})
//
// What a codec can do is bounded: the time that it takes and what comes out of
// it by the size of the payload, whatever the file says.
package codec

import "github.com/citywarden/citywarden"

// The limits of a codec and of what it makes of one payload.
const (
	maxFields   = 512
	maxDepth    = 4     // of fields inside of fields
	maxSteps    = 65536 // fields read of one payload
	maxReadings = 4096  // of one payload
	maxText     = 2000  // bytes of a text or of bytes that are written as hexadecimal digits
	maxExpr     = 1000  // characters of an expression
	maxNodes    = 200   // of an expression
	maxSummed   = 16    // times the payload, over which its checksums are
)

// Spec is a codec as a model file has it.
type Spec struct {
	Format string // "binary", "" for that, or "json"
	Order  string // "big", "" for that, or "little": of fields that don't say otherwise
	Time   string // expression: when the readings were taken that say nothing else; "" for their arrival
	Fields []Field
}

// Field is a part of a payload, or something that is computed.
type Field struct {
	Name      string
	Type      string // uint, "" for that, int, float, bcd, bool, ascii or bytes
	Bits      int
	Bytes     string // how many, an expression; "end" for the rest
	Offset    *int   // in bytes from the beginning of the payload or of the repeated part, negative from the end; nil: after the field before
	Bit       int    // of the byte at Offset
	Order     string
	Key       string // in JSON: the member, "a.b" for one inside of another
	Equals    *float64
	Scale     *float64
	Add       *float64
	Enum      []Choice
	When      string // expression: whether it is there
	Expr      string // what it is; value is what was read
	Checksum  string // what it is of the bytes from From to the field
	From      string // where that begins, an expression; "" for 0
	Metric    string
	Attribute string
	Time      string // of the reading, an expression
	Repeat    string // how often Fields come: an expression, or "end"
	Fields    []Field
}

// Choice is what a number stands for; a nil Is says nothing.
type Choice struct {
	Number float64
	Is     any // string, float64 or bool
}

// Fail is told of a mistake: which part of the spec, like "fields[2].when", and
// at which character of its text.
type Fail func(path string, at int, format string, args ...any)

// kinds are those of what the types of fields are read as.
var kinds = map[string]citywarden.Kind{
	"uint": citywarden.KindNumber, "int": citywarden.KindNumber, "float": citywarden.KindNumber, "bcd": citywarden.KindNumber,
	"bool": citywarden.KindBool, "ascii": citywarden.KindText, "bytes": citywarden.KindText,
}
