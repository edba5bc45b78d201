package codec

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/citywarden/citywarden"
)

// run is the decoding of one payload.
type run struct {
	codec *Codec
	in    citywarden.RawPayload
	env   map[string]any
	out   citywarden.Decoded
	times []int // the readings that have no time of their own
	steps int
	again int // repetitions by a count
	sum   int // bytes of which checksums were made

	begin, at int // in bits: of the payload or the repeated part, and where the next field begins
	taken     int // in bytes: what fields have read at the most
}

// Decode reads p. The error says which byte is wrong and why.
func (c *Codec) Decode(p citywarden.RawPayload) (citywarden.Decoded, error) {
	r := &run{codec: c, in: p, env: make(map[string]any, len(c.names)+len(reserved)+1)}
	for n, k := range c.names {
		r.env[n] = zero(k)
	}
	r.env["port"], r.env["size"] = float64(p.Port), float64(len(p.Bytes))
	r.env["received"], r.env["at"], r.env["index"] = float64(p.Received.UnixMilli())/1e3, 0.0, 0.0
	r.env["byte"] = func(i float64) float64 {
		if i < 0 {
			i += float64(len(p.Bytes))
		}
		if i < 0 || i >= float64(len(p.Bytes)) {
			return 0
		}
		return float64(p.Bytes[int(i)])
	}
	r.out.Relative = c.relative
	var err error
	if c.json {
		err = r.json()
	} else if err = r.fields(c.fields); err == nil && r.taken < len(p.Bytes) {
		err = fmt.Errorf("byte %d: %d bytes follow the last field", r.taken, len(p.Bytes)-r.taken)
	}
	if err == nil {
		err = r.stamp()
	}
	if err != nil {
		return citywarden.Decoded{}, err
	}
	return r.out, nil
}

func zero(k citywarden.Kind) any {
	switch k {
	case citywarden.KindBool:
		return false
	case citywarden.KindText:
		return ""
	}
	return 0.0
}

// stamp gives the readings without a time of their own that of the payload.
func (r *run) stamp() error {
	if r.codec.time == nil {
		return nil
	}
	at, err := r.when(r.codec.time)
	if err != nil {
		return fmt.Errorf("time: %w", err)
	}
	for _, i := range r.times {
		r.out.Readings[i].Time = at
	}
	return nil
}

// when returns the time that p is, zero for 0.
func (r *run) when(p *program) (time.Time, error) {
	x, err := p.run(r.env)
	if err != nil {
		return time.Time{}, err
	}
	f, ok := x.(float64)
	if f == 0 && ok {
		return time.Time{}, nil
	}
	at, good := time.UnixMilli(int64(math.Round(f*1e3))).UTC(), true // seconds, with a fraction
	if math.Abs(f) >= 4.1e9 {
		at, good = citywarden.UnixTime(int64(math.Min(f, math.MaxInt64/2)))
	}
	if !ok || !good {
		return time.Time{}, fmt.Errorf("%v is no time; it is a number of seconds or milliseconds since 1970", x)
	}
	return at, nil
}

// step counts what is read, so that a payload can't keep us busy.
func (r *run) step() error {
	if r.steps++; r.steps > maxSteps {
		return fmt.Errorf("byte %d: more than %d fields; the payload repeats without end", r.at/8, maxSteps)
	}
	if len(r.out.Rejected) > maxReadings {
		return fmt.Errorf("%s, and %d more like that", r.out.Rejected[0], maxReadings)
	}
	return nil
}

func (r *run) fields(list []field) error {
	for i := range list {
		if err := r.field(&list[i]); err != nil {
			return err
		}
	}
	return nil
}

// where names a field in an error.
func (f *field) where(at int) string {
	if f.Key != "" {
		return f.Key
	}
	name := f.Name
	if name == "" {
		name = f.Metric + f.Attribute
	}
	if name == "" {
		name = "the " + f.Type
	}
	return fmt.Sprintf("byte %d: %s", at/8, name)
}

func (r *run) field(f *field) error {
	if err := r.step(); err != nil {
		return err
	}
	r.env["at"] = float64(r.at / 8)
	here, err := f.when.holds(r.env)
	if err != nil {
		return fmt.Errorf("%s: when: %w", f.where(r.at), err)
	}
	if !here {
		return nil
	}
	start := r.at
	if f.Offset != nil {
		start = r.begin + *f.Offset*8 + f.Bit
		if *f.Offset < 0 {
			start = (len(r.in.Bytes)+*f.Offset)*8 + f.Bit
		}
		if start < 0 || start > len(r.in.Bytes)*8 {
			return fmt.Errorf("%s is at byte %d, the payload has %d", f.where(len(r.in.Bytes)*8), *f.Offset, len(r.in.Bytes))
		}
	}
	if len(f.fields) > 0 {
		r.at = start
		return r.group(f)
	}
	if f.computed() {
		return r.set(f, nil, start)
	}
	n := f.bits
	switch {
	case f.rest:
		n = max(len(r.in.Bytes)*8-start, 0) / 8 * 8
	case f.length != nil:
		bytes, err := f.length.count(r.env, len(r.in.Bytes))
		if err != nil {
			return fmt.Errorf("%s: its length: %w", f.where(start), err)
		}
		n = bytes * 8
	}
	if start+n > len(r.in.Bytes)*8 {
		return fmt.Errorf("%s has %s, the payload ends after byte %d", f.where(start), size(n), len(r.in.Bytes))
	}
	x, err := r.read(f, start, n)
	if err != nil {
		return fmt.Errorf("%s %w", f.where(start), err)
	}
	r.at = start + n
	r.taken = max(r.taken, (r.at+7)/8)
	return r.set(f, x, start)
}

func size(n int) string {
	if n%8 == 0 {
		return fmt.Sprintf("%d bytes", n/8)
	}
	return fmt.Sprintf("%d bits", n)
}

// group reads the fields of f as often as they are there.
func (r *run) group(f *field) error {
	begin := r.begin
	defer func() { r.begin = begin }()
	times := 1
	switch {
	case f.Repeat == "end":
		times = maxSteps
	case f.repeat != nil:
		var err error
		if times, err = f.repeat.count(r.env, maxDepth*8*len(r.in.Bytes)-r.again); err != nil { // a bit of each depth
			return fmt.Errorf("%s: repeat: %w", f.where(r.at), err)
		}
		r.again += times
	}
	index := r.env["index"]
	for i := range times {
		if f.Repeat == "end" && r.at+7 >= len(r.in.Bytes)*8 {
			break
		}
		if f.Repeat != "" {
			r.env["index"] = float64(i)
			r.forget(f.fields)
		}
		r.begin = r.at
		if err := r.fields(f.fields); err != nil {
			return err
		}
		if f.Repeat == "end" && r.at <= r.begin {
			return fmt.Errorf("%s repeats to the end and takes no bytes", f.where(r.at))
		}
	}
	r.env["index"] = index
	return nil
}

// forget makes the names of list what they are where the fields are left out:
// one repetition knows nothing of the one before.
func (r *run) forget(list []field) {
	for i := range list {
		if n := list[i].Name; n != "" {
			r.env[n] = zero(r.codec.names[n])
		}
		r.forget(list[i].fields)
	}
}

// read returns what n bits from start are, before scale, enum and expr.
func (r *run) read(f *field, start, n int) (any, error) {
	p := r.in.Bytes
	if kinds[f.Type] == citywarden.KindText {
		if f.Name == "" && f.Metric == "" && f.Attribute == "" {
			return "", nil
		}
		if start%8 != 0 {
			return nil, errors.New("does not begin with a byte")
		}
		return text(f, p[start/8:(start+n)/8])
	}
	if n == 0 || n > 64 {
		return nil, fmt.Errorf("has %s; a number has 1 to 64 bits", size(n))
	}
	v := take(p, start, n, f.little)
	switch f.Type {
	case "bool":
		return v != 0, nil
	case "int":
		return float64(int64(v<<(64-n)) >> (64 - n)), nil
	case "float":
		x := math.Float64frombits(v)
		if n == 32 {
			x = float64(math.Float32frombits(uint32(v)))
		} else if n != 64 {
			return nil, fmt.Errorf("has %s; a float has 4 or 8 bytes", size(n))
		}
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, fmt.Errorf("is %v, which is no number", x)
		}
		return x, nil
	case "bcd":
		x, ok := bcd(v, n)
		if !ok {
			return nil, fmt.Errorf("is 0x%0*X, which is no BCD", (n+3)/4, v)
		}
		return x, nil
	}
	if f.Checksum != "" {
		from := 0
		if f.from != nil {
			var err error
			if from, err = f.from.count(r.env, start/8); err != nil {
				return nil, fmt.Errorf("is a checksum; from: %w", err)
			}
		}
		if r.sum > maxSummed*len(p) {
			return nil, fmt.Errorf("is a checksum; those before are of more than %d times the payload", maxSummed)
		}
		r.sum += start/8 - from
		if want := checksums[f.Checksum].of(p[from : start/8]); v != want {
			return nil, fmt.Errorf("is 0x%0*X, the %s of bytes %d to %d is 0x%0*X", n/4, v, f.Checksum, from, start/8-1, n/4, want)
		}
	}
	return float64(v), nil
}

func text(f *field, b []byte) (any, error) {
	if len(b) > maxText {
		return nil, fmt.Errorf("has %d bytes; a text has at most %d", len(b), maxText)
	}
	if f.Type == "bytes" {
		if f.little {
			b = slices.Clone(b)
			slices.Reverse(b)
		}
		return strings.ToUpper(hex.EncodeToString(b)), nil
	}
	s := strings.TrimRight(string(b), "\x00 ")
	if !utf8.ValidString(s) {
		return nil, errors.New("is not UTF-8")
	}
	return s, nil
}

// take returns n bits of p from bit start. big takes the most significant bit of
// a byte first, little the least.
func take(p []byte, start, n int, little bool) uint64 {
	var v uint64
	for got := 0; got < n; {
		b, from := p[(start+got)/8], (start+got)%8
		k := min(8-from, n-got)
		mask := byte(1<<k - 1)
		if little {
			v |= uint64(b>>from&mask) << got
		} else {
			v = v<<k | uint64(b>>(8-from-k)&mask)
		}
		got += k
	}
	return v
}

// bcd returns the decimal digits of n bits.
func bcd(v uint64, n int) (float64, bool) {
	x, unit := 0.0, 1.0
	for ; n > 0; n, v, unit = n-4, v>>4, unit*10 {
		if v&15 > 9 {
			return 0, false
		}
		x += float64(v&15) * unit
	}
	return x, true
}

// set makes of x what f is, and keeps it.
func (r *run) set(f *field, x any, start int) error {
	if n, ok := x.(float64); ok {
		if f.Equals != nil && n != *f.Equals {
			return fmt.Errorf("%s is %v (0x%X), and has to be %v (0x%X)", f.where(start), n, int64(n), *f.Equals, int64(*f.Equals))
		}
		n = scaled(n, f.Scale)
		if f.Add != nil {
			n += *f.Add
		}
		x = n
		if f.Enum != nil {
			is, known := f.choice(n)
			if !known {
				return r.refuse(f, "%s is %v, which the model does not know", f.where(start), n)
			}
			if x = is; is == nil {
				return nil
			}
		}
	}
	if f.expr != nil {
		r.env["value"] = x
		var err error
		if x, err = f.expr.run(r.env); err != nil {
			return r.refuse(f, "%s: %v", f.where(start), err)
		}
	}
	v, ok := citywarden.ValueOf(x)
	if !ok || f.kind != 0 && v.Kind() != f.kind {
		return r.refuse(f, "%s is %v, and has to be a %s", f.where(start), x, f.kind)
	}
	if f.Name != "" {
		r.env[f.Name] = x
	}
	if f.Attribute != "" {
		if r.out.Attrs == nil {
			r.out.Attrs = map[string]any{}
		}
		r.out.Attrs[f.Attribute] = x
	}
	if f.Metric == "" {
		return nil
	}
	if len(r.out.Readings) == maxReadings {
		return fmt.Errorf("%s: more than %d readings", f.where(start), maxReadings)
	}
	reading := citywarden.Reading{Metric: citywarden.MetricName(f.Metric), Value: v}
	if f.time != nil {
		var err error
		if reading.Time, err = r.when(f.time); err != nil {
			return r.refuse(f, "%s: time: %v", f.where(start), err)
		}
	} else {
		r.times = append(r.times, len(r.out.Readings))
	}
	r.out.Readings = append(r.out.Readings, reading)
	return nil
}

func (f *field) choice(n float64) (is any, known bool) {
	for _, e := range f.Enum {
		if e.Number == n {
			return e.Is, true
		}
	}
	return nil, false
}

// refuse leaves out what f is. The payload as a whole can't be read when others
// may be computed from it.
func (r *run) refuse(f *field, format string, args ...any) error {
	if f.Name != "" {
		return fmt.Errorf(format, args...)
	}
	r.out.Rejected = append(r.out.Rejected, fmt.Sprintf(format, args...))
	return nil
}

func pathOf(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
