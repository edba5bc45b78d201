package ingest

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/citywarden/citywarden"
)

// senML decodes a pack of Sensor Measurement Lists (RFC 8428), in JSON or CBOR.
//
// A name is that of a metric, alone or after the base name, or ends with one
// after ":" or "/", as in urn:dev:mac:0024befffe804ff1:temperature, or is the path of
// a resource of LwM2M that a metric is, as in /3303/0/5700. A unit that
// is not the metric's is converted where that goes (RFC 8428, 12.1, and RFC
// 8798); a pack can't say something in a wrong unit unnoticed.
type senML struct {
	model *citywarden.Model
	up    *citywarden.Uplink
	drop  *dropped
	out   message

	name, unit       string  // bn, bu
	time, value, sum float64 // bt, bv, bs
}

const (
	cborArray = 4 // the major type, the upper three bits of the first byte
	// senMLVersion is the newest that there is (RFC 8428, 4.4).
	senMLVersion = 10
	// senMLText bounds a name or a unit, in bytes: each base goes for all records that follow.
	senMLText = 1000
	// senMLRelative is below which a time counts from now (RFC 8428, 4.5.3).
	senMLRelative = 1 << 28
)

// senMLLabels are the integer labels of CBOR (RFC 8428, table 4).
var senMLLabels = map[int64]string{
	-1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs",
	0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}

// senMLUnits are the units that SenML (RFC 8428, 12.1, and RFC 8798) and UCUM write in
// different ways; a ratio, "/", is one of 1, "count" a number of things.
var senMLUnits = map[string]string{
	"%RH": "%", "%EL": "%", "/100": "%", "/": "1", "count": "1", "l": "L", "l/s": "L/s", "Wh": "W.h", "kWh": "kW.h",
	"lat": "deg", "lon": "deg", "pH": "[pH]", "dBm": "dB[mW]", "ppm": "[ppm]", "EL": "s",
}

// isSenML reports whether the first record of an array is one of SenML, and not
// telemetry of a model that names its metrics so.
func (d *jsonDecoder) isSenML(whole token) bool {
	in := scanner{b: d.scanner.b, i: whole.at + 1}
	if in.space(); in.peek() != '{' {
		return false
	}
	list, err := in.members(token{at: in.i}, d.outer)
	if err != nil {
		return false
	}
	d.outer = list
	has := func(names ...string) bool {
		return slices.ContainsFunc(list, func(m member) bool {
			_, metric := d.model.Metric(citywarden.MetricName(m.key))
			return !metric && slices.Contains(names, string(m.key))
		})
	}
	return has("bn", "bt", "bu", "bv", "bs", "bver") || has("n") && has("v", "vs", "vb", "vd", "s")
}

// json decodes the records of an array that was scanned before.
func (p *senML) json(s *scanner, whole token) (message, error) {
	in := scanner{b: s.b, i: whole.at}
	var failed error
	err := in.array(0, func(t token) {
		where := fmt.Sprintf("byte %d", t.at)
		if failed != nil {
			return
		}
		if t.kind() != '{' {
			p.drop.reject(1, "%s: expected a record in the SenML pack, found %s", where, t.describe())
			return
		}
		list, err := s.members(t, nil)
		if err != nil {
			failed = err
			return
		}
		fields := make(map[string]any, len(list))
		for _, m := range list {
			fields[string(m.key)] = plainValue(m.value)
		}
		failed = p.record(where, fields)
	})
	if err := errors.Join(failed, err); err != nil {
		return message{}, citywarden.Errorf(citywarden.CodeInvalid, "%w", err)
	}
	return p.out, nil
}

// plainValue returns a number, text or bool as Go has it, else the token.
func plainValue(t token) any {
	switch t.kind() {
	case '0':
		if f, err := parseNumber(t); err == nil {
			return f
		}
	case '"':
		if b, ok := t.text(); ok {
			return string(b)
		}
	case 't', 'f':
		return t.kind() == 't'
	}
	return t
}

// senMLMode bounds what a pack may hold; the rest is bounded by its size.
var senMLMode = func() cbor.DecMode {
	m, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IntDec: cbor.IntDecConvertSignedOrBigInt, MaxNestedLevels: 8, MaxMapPairs: 64}.DecMode()
	if err != nil { // the options are constants
		panic(err)
	}
	return m
}()

// cbor decodes the payload.
func (p *senML) cbor() (message, error) {
	var records []map[any]any
	if err := senMLMode.Unmarshal(p.up.Payload, &records); err != nil {
		return message{}, citywarden.Errorf(citywarden.CodeInvalid, "no SenML pack in CBOR (RFC 8428, 6): %w", err)
	}
	for i, r := range records {
		fields := make(map[string]any, len(r))
		for k, v := range r {
			name, ok := k.(string)
			if n, is := k.(int64); is {
				name, ok = senMLLabels[n]
			}
			if ok { // others are for somebody else
				fields[name] = cborNumber(v)
			}
		}
		if err := p.record(fmt.Sprintf("record %d", i+1), fields); err != nil {
			return message{}, citywarden.Errorf(citywarden.CodeInvalid, "%w", err)
		}
	}
	return p.out, nil
}

// cborNumber makes the numbers of CBOR float64, decimal fractions (RFC 8949, 3.4.4) too.
func cborNumber(v any) any {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case big.Int:
		f, _ := new(big.Float).SetInt(&v).Float64()
		return f
	case cbor.Tag:
		if parts, ok := v.Content.([]any); ok && v.Number == 4 && len(parts) == 2 {
			e, eok := parts[0].(int64)
			m, mok := cborNumber(parts[1]).(float64)
			switch {
			case !eok || !mok || e < -300 || e > 300:
			case e < 0:
				return m / math.Pow10(int(-e)) // exact where the decimal is
			default:
				return m * math.Pow10(int(e))
			}
		}
	}
	return v
}

// record takes one record. The error says why nothing of the pack can be used:
// a wrong base goes for all that follows.
func (p *senML) record(where string, f map[string]any) error {
	for _, b := range []struct {
		name string
		into any
	}{{"bn", &p.name}, {"bu", &p.unit}, {"bt", &p.time}, {"bv", &p.value}, {"bs", &p.sum}, {"bver", new(float64)}} {
		v, ok := f[b.name]
		if !ok {
			continue
		}
		good := false
		switch into := b.into.(type) {
		case *string:
			if *into, good = v.(string); len(*into) > senMLText {
				return fmt.Errorf("%s: %w", where, tooLong(b.name, *into))
			}
		case *float64:
			*into, good = v.(float64)
			good = good && !math.IsNaN(*into) && !math.IsInf(*into, 0) && (b.name != "bver" || *into > 0 && *into == math.Trunc(*into))
			if b.name == "bver" && good && *into > senMLVersion {
				return fmt.Errorf("%s: SenML version %v; send version %d", where, *into, senMLVersion)
			}
		}
		if !good {
			return fmt.Errorf("%s: %q can't be %s", where, b.name, found(v))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if strings.HasSuffix(name, "_") {
			return fmt.Errorf("%s: field %s has to be understood (RFC 8428, 4.4), and is not", where, quote(name))
		}
	}
	value, given := "", 0
	for _, k := range [...]string{"v", "vs", "vb", "vd"} {
		if _, ok := f[k]; ok {
			given++
			value = k
		}
	}
	if _, ok := f["s"]; ok && given == 0 { // a sum counts where there is no value
		value, given = "s", 1
	}
	_, named := f["n"]
	switch {
	case given == 0 && !named:
		return nil // bases only
	case given == 0:
		p.drop.reject(1, "%s: no value; send v, vs or vb", where)
		return nil
	case given > 1:
		p.drop.reject(1, "%s: more than one value", where)
		return nil
	}
	if err := p.reading(f, value); err != nil {
		p.drop.reject(1, "%s: %v", where, err)
	}
	return nil
}

// tooLong is the error of a name or a unit s in field key.
func tooLong(key, s string) error {
	return fmt.Errorf("%q has %d bytes; a name or a unit has at most %d", key, len(s), senMLText)
}

// reading takes the reading of a record whose value is in field key.
func (p *senML) reading(f map[string]any, key string) error {
	own, _ := f["n"].(string)
	if v, ok := f["n"]; ok && own == "" && v != "" {
		return fmt.Errorf("\"n\" can't be %s", found(v))
	}
	if len(own) > senMLText {
		return tooLong("n", own)
	}
	m, ok := p.metric(own)
	if !ok {
		return errors.New(unknownMetric(p.model, p.name+own))
	}
	r := citywarden.Reading{Metric: m.Name}
	var err error
	if r.Time, err = p.at(f["t"]); err != nil {
		return err
	}
	switch v := f[key].(type) {
	case float64:
		switch {
		case m.Kind != citywarden.KindNumber || key != "v" && key != "s":
			return p.mistaken(m, key, v)
		case key == "v":
			v += p.value
		default:
			v += p.sum
		}
		unit := p.unit
		if u, ok := f["u"]; ok {
			if unit, ok = u.(string); !ok {
				return fmt.Errorf("\"u\" can't be %s", found(u))
			}
			if len(unit) > senMLText {
				return tooLong("u", unit)
			}
		}
		if unit == "" && resource(p.name+own) != "" {
			unit = unitOfResource(m.IPSO)
		}
		if v, err = inUnit(m, v, unit); err != nil {
			return err
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("%s is %v; leave it out when there is no value", m.Name, v)
		}
		r.Value = citywarden.Number(v)
	case string:
		if m.Kind != citywarden.KindText || key != "vs" {
			return p.mistaken(m, key, v)
		}
		r.Value = citywarden.TextValue(v)
	case bool:
		if m.Kind != citywarden.KindBool || key != "vb" {
			return p.mistaken(m, key, v)
		}
		r.Value = citywarden.Bool(v)
	default:
		return p.mistaken(m, key, v)
	}
	p.out.readings = append(p.out.readings, r)
	return nil
}

// mistaken says how a value of m has to be sent.
func (p *senML) mistaken(m *citywarden.Metric, key string, v any) error {
	as := map[citywarden.Kind]string{citywarden.KindNumber: "a number in \"v\"", citywarden.KindText: "a text in \"vs\"", citywarden.KindBool: "a bool in \"vb\""}
	return fmt.Errorf("%s is %s, found %s in %q", m.Name, as[m.Kind], found(v), key)
}

// lwm2mPath is the path of a resource in LwM2M's SenML: object, instance and resource, of which the first
// instance counts where it has several.
var lwm2mPath = regexp.MustCompile(`(?:^|[:/])([0-9]{1,5})/(0|[1-9][0-9]{0,4})/([0-9]{1,5})(?:/0)?$`)

// resource returns the resource of LwM2M that name is the path of,
// as a metric has them, "" when it is no such path.
func resource(name string) string {
	const longest = len("/12345/12345/12345/0")
	path := lwm2mPath.FindStringSubmatch(name[max(0, len(name)-longest):])
	if path == nil {
		return ""
	}
	if path[2] == "0" {
		return path[1] + "/" + path[3]
	}
	return path[1] + "/" + path[2] + "/" + path[3]
}

// resourceUnits are in which units resources of LwM2M are that say nothing else;
// 5700 is in that of the metric.
var resourceUnits = map[string]string{
	"3/7": "mV", "4/2": "dBm", "3305/5800": "W", "3305/5805": "Wh", "3424/1": "m3", "3427/1": "Pa", "3429/1": "rad",
}

// unitOfResource returns in which unit a resource is when nothing else is said.
func unitOfResource(ipso string) string {
	object, _, resource := citywarden.SplitIPSO(ipso)
	return resourceUnits[object+"/"+resource]
}

// metric returns the metric that a record with that name of its own is about.
func (p *senML) metric(own string) (*citywarden.Metric, bool) {
	full := p.name + own
	for _, name := range [...]string{own, full, full[strings.LastIndexAny(full, ":/")+1:]} {
		if m, ok := p.model.Metric(citywarden.MetricName(name)); ok {
			return m, true
		}
	}
	if path := resource(full); path != "" {
		for i := range p.model.Metrics {
			if m := &p.model.Metrics[i]; m.IPSO == path {
				return m, true
			}
		}
	}
	return nil, false
}

// at returns the time of a record whose field t is own: zero when the pack gives
// none. Less than 2^28 seconds, also what is negative, count from the arrival.
func (p *senML) at(own any) (time.Time, error) {
	t, ok := own.(float64)
	if own != nil && !ok {
		return time.Time{}, fmt.Errorf("\"t\" can't be %s", found(own))
	}
	t += p.time
	switch {
	case t == 0:
		return time.Time{}, nil
	case t < senMLRelative && t > -4.1e9:
		p.out.relative = true
		return p.up.Received.Add(time.Duration(math.Round(t*1e3)) * time.Millisecond).UTC(), nil
	case t >= senMLRelative && t < 4.1e9:
		return time.UnixMilli(int64(math.Round(t * 1e3))).UTC(), nil
	case t >= senMLRelative && t < 4.1e18: // NaN is not
		if at, ok := citywarden.UnixTime(int64(t)); ok {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%v is no time; send seconds since 1970, or seconds from now", t)
}

// inUnit returns v, which is in a unit of SenML, in that of m.
func inUnit(m *citywarden.Metric, v float64, unit string) (float64, error) {
	ucum, ok := senMLUnits[unit]
	if !ok {
		ucum = unit
	}
	switch {
	case ucum == "" || ucum == m.Unit:
		return v, nil
	case ucum == "1" && (m.Unit == "" || strings.HasPrefix(m.Unit, "{")): // {…} names what is counted
		return v, nil
	case unit == "/" && m.Unit == "%":
		return v * 100, nil
	case ucum == "K" && m.Unit == "Cel":
		return v - 273.15, nil
	}
	factor, ok := citywarden.UnitFactor(ucum, m.Unit)
	if !ok {
		in := m.Unit
		if in == "" {
			in = "no unit"
		}
		return 0, fmt.Errorf("%s is in %s, found the unit %s", m.Name, in, quote(unit))
	}
	return v * factor, nil
}

// found names a value that should not be there.
func found(v any) string {
	switch v := v.(type) {
	case token:
		return v.describe()
	case string:
		return "the string " + quote(v)
	case float64:
		return fmt.Sprintf("the number %v", v)
	case []byte:
		return "bytes"
	case nil:
		return "null"
	}
	return clip(fmt.Sprintf("%v", v))
}
