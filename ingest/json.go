package ingest

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
)

// decodeJSON reads the bodies of ThingsBoard's device API, or a
// SenML pack, see senML.
//
// Telemetry is {"k":v, …}, {"ts":milliseconds, "values":{"k":v, …}}, or an
// array of such objects; client attributes are {"k":v, …}. A key is the name of a metric
// of the model. A number must be a number and a bool a bool, so that a typing mistake of a
// device shows on its first day. ts may also be in seconds or microseconds.
func decodeJSON(model *citywarden.Model, up *citywarden.Uplink, drop *dropped) (message, error) {
	d := jsonDecoder{model: model, scanner: scanner{b: up.Payload}, drop: drop, memberLists: lists.Get().(*memberLists)}
	defer d.memberLists.giveBack()
	s := &d.scanner
	attributes := strings.HasSuffix(up.Topic, "/attributes")
	if !attributes && len(s.b) > 0 && s.b[0]>>5 == cborArray { // no JSON begins like that
		p := senML{model: model, up: up, drop: drop}
		return p.cbor()
	}
	s.space()
	if s.i == len(s.b) {
		return message{}, citywarden.Errorf(citywarden.CodeInvalid, "empty message; send a JSON object like {\"%s\": …}", d.firstMetric())
	}
	if c := s.peek(); c != '{' && (c != '[' || attributes) { // attributes are no measurements, so they come in no pack
		what := "an object or an array of objects"
		if attributes {
			what = "an object"
		}
		err := s.errorf(s.i, "expected %s, found %s", what, s.found())
		return message{}, citywarden.Errorf(citywarden.CodeInvalid, "%w", err)
	}
	whole, err := s.value(0)
	if err == nil {
		err = s.end()
	}
	if err == nil {
		switch {
		case attributes:
			err = d.attributes(whole)
		case whole.kind() == '{':
			err = d.element(whole)
		case d.isSenML(whole):
			p := senML{model: model, up: up, drop: drop}
			return p.json(&d.scanner, whole)
		default:
			err = d.elements(whole)
		}
	}
	if err != nil {
		return message{}, citywarden.Errorf(citywarden.CodeInvalid, "%w", err)
	}
	return d.out, nil
}

type jsonDecoder struct {
	scanner scanner
	model   *citywarden.Model
	drop    *dropped
	out     message
	*memberLists
}

// memberLists are arrays that decoding a message needs and nobody afterwards.
type memberLists struct {
	outer []member // of the element that is being decoded
	inner []member // of its values
}

var lists = sync.Pool{New: func() any { return new(memberLists) }}

func (l *memberLists) giveBack() {
	if cap(l.outer)+cap(l.inner) > 1024 { // a rare message must not keep memory
		return
	}
	clear(l.outer)
	clear(l.inner)
	lists.Put(l)
}

func (d *jsonDecoder) firstMetric() citywarden.MetricName {
	if len(d.model.Metrics) > 0 {
		return d.model.Metrics[0].Name
	}
	return "metric"
}

func (d *jsonDecoder) elements(whole token) error {
	in := scanner{b: d.scanner.b, i: whole.at}
	var failed error
	err := in.array(0, func(t token) {
		if t.kind() != '{' {
			d.drop.reject(1, "byte %d: expected an object in the array, found %s", t.at, t.describe())
			return
		}
		if err := d.element(t); err != nil && failed == nil {
			failed = err
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// gatewayMetadata is what ThingsBoard's gateway puts beside ts and values when it is to
// measure how long messages take: nothing of the device.
const gatewayMetadata = "metadata"

// element takes one object: readings, or ts and values.
func (d *jsonDecoder) element(t token) error {
	list, err := d.scanner.members(t, d.outer)
	if err != nil {
		return err
	}
	d.outer = list
	ts := slices.IndexFunc(list, func(m member) bool { return string(m.key) == "ts" })
	values := slices.IndexFunc(list, func(m member) bool { return string(m.key) == "values" })
	if ts < 0 || values < 0 {
		d.readings(list, time.Time{})
		return nil
	}
	for i := range list {
		if i != ts && i != values && string(list[i].key) != gatewayMetadata {
			d.drop.reject(1, "%s stands beside \"ts\" and \"values\"; put it into \"values\"", quote(string(list[i].key)))
		}
	}
	v := list[values].value
	if v.kind() != '{' {
		d.drop.reject(1, "byte %d: \"values\" is an object, found %s", v.at, v.describe())
		return nil
	}
	inner, err := d.scanner.members(v, d.inner)
	if err != nil {
		return err
	}
	d.inner = inner
	when, err := parseTime(list[ts].value)
	if err != nil {
		d.drop.reject(max(len(inner), 1), "byte %d: %v", list[ts].value.at, err)
		return nil
	}
	d.readings(inner, when)
	return nil
}

// readings takes the members whose keys are metrics.
func (d *jsonDecoder) readings(list []member, when time.Time) {
	d.out.readings = slices.Grow(d.out.readings, len(list))
	for i, m := range list {
		metric, ok := d.model.Metric(citywarden.MetricName(m.key))
		if ok && m.value.kind() == 'n' {
			continue // no value, as with ThingsBoard
		}
		if !ok && m.value.kind() == '"' && slices.Contains(citywarden.FirmwareAttributes[:], string(m.key)) {
			if s, text := m.value.text(); text && len(s) <= maxAttribute {
				if d.out.attrs == nil {
					d.out.attrs = map[string]any{}
				}
				d.out.attrs[string(m.key)] = string(s)
				continue
			}
		}
		if !ok {
			d.drop.reject(1, "%s", d.unknown(string(m.key), when))
			continue
		}
		if slices.ContainsFunc(list[i+1:], func(o member) bool { return bytes.Equal(o.key, m.key) }) {
			d.drop.reject(1, "byte %d: %s stands in one object twice; the last one counts", m.at, quote(string(m.key)))
			continue
		}
		v, err := parseValue(metric, m.value)
		if err != nil {
			d.drop.reject(1, "byte %d: %s %v", m.value.at, metric.Name, err)
			continue
		}
		d.out.readings = append(d.out.readings, citywarden.Reading{Metric: metric.Name, Value: v, Time: when})
	}
}

// unknown says which metric may have been meant.
func (d *jsonDecoder) unknown(key string, when time.Time) string {
	switch {
	case key == "ts" && when.IsZero():
		return `"ts" without "values"; send {"ts": …, "values": {…}}`
	case key == "values" && when.IsZero():
		return `"values" without "ts"; send {"ts": …, "values": {…}}, or the readings alone`
	}
	return unknownMetric(d.model, key)
}

func unknownMetric(m *citywarden.Model, key string) string {
	var names []string
	for i := range m.Metrics {
		names = append(names, string(m.Metrics[i].Name))
	}
	s := fmt.Sprintf("unknown metric %s", quote(key))
	if hint := citywarden.DidYouMean(key, names); hint != "" {
		return s + hint
	}
	if len(names) > 12 {
		names = append(names[:12], "…")
	}
	return s + fmt.Sprintf("; %s has %s", m.Name, strings.Join(names, ", "))
}

func (d *jsonDecoder) attributes(t token) error {
	list, err := d.scanner.members(t, nil)
	if err != nil {
		return err
	}
	d.out.attrs = make(map[string]any, len(list))
	for _, m := range list {
		if len(m.key) > maxKey {
			d.drop.reject(1, "byte %d: the name of an attribute has at most %d bytes", m.at, maxKey)
			continue
		}
		switch m.value.kind() {
		case '"':
			s, ok := m.value.text()
			if len(s) > maxAttribute {
				d.drop.reject(1, "byte %d: attribute %s has more than %d bytes", m.value.at, quote(string(m.key)), maxAttribute)
				continue
			}
			if !ok {
				d.drop.reject(1, "byte %d: attribute %s is not UTF-8; is the device sending GBK?", m.value.at, quote(string(m.key)))
				continue
			}
			d.out.attrs[string(m.key)] = string(s)
		case '0':
			f, err := parseNumber(m.value)
			if err != nil {
				d.drop.reject(1, "byte %d: attribute %s %v", m.value.at, quote(string(m.key)), err)
				continue
			}
			d.out.attrs[string(m.key)] = f
		case 't', 'f':
			d.out.attrs[string(m.key)] = m.value.kind() == 't'
		case 'n': // no value, as with ThingsBoard
		case '{', '[': // ThingsBoard keeps JSON; here it is a text
			if len(m.value.raw) > maxAttribute {
				d.drop.reject(1, "byte %d: attribute %s has more than %d bytes", m.value.at, quote(string(m.key)), maxAttribute)
				continue
			}
			d.out.attrs[string(m.key)] = string(m.value.raw)
		default:
			d.drop.reject(1, "byte %d: attribute %s is a string, a number or a bool, found %s", m.value.at, quote(string(m.key)), m.value.describe())
		}
	}
	return nil
}

// The limits of an attribute that a device reports.
const (
	maxKey       = 64
	maxAttribute = 4000
)

func quote(s string) string { return strconv.Quote(clip(s)) }

// parseValue reads t as a value of metric m. The error continues a sentence
// that begins with the metric's name.
func parseValue(m *citywarden.Metric, t token) (citywarden.Value, error) {
	kind := t.kind()
	switch {
	case m.Kind == citywarden.KindNumber && kind == '0':
		f, err := parseNumber(t)
		return citywarden.Number(f), err
	case m.Kind == citywarden.KindBool && (kind == 't' || kind == 'f'):
		return citywarden.Bool(kind == 't'), nil
	case m.Kind == citywarden.KindText && kind == '"':
		s, ok := t.text()
		if !ok {
			return citywarden.Value{}, fmt.Errorf("is not UTF-8; is the device sending GBK?")
		}
		return citywarden.TextValue(string(s)), nil
	}
	found := t.describe()
	switch {
	case m.Kind == citywarden.KindNumber && kind == '"':
		return citywarden.Value{}, fmt.Errorf("is a number, found %s; send it without quotes", found)
	case m.Kind == citywarden.KindBool:
		return citywarden.Value{}, fmt.Errorf("is a bool, found %s; send true or false", found)
	case m.Kind == citywarden.KindText:
		return citywarden.Value{}, fmt.Errorf("is a text, found %s; send it in quotes", found)
	}
	return citywarden.Value{}, fmt.Errorf("is a number, found %s", found)
}

func parseNumber(t token) (float64, error) {
	f, err := strconv.ParseFloat(string(t.raw), 64)
	if err != nil || math.IsInf(f, 0) {
		return 0, fmt.Errorf("is too large a number: %s", clip(string(t.raw)))
	}
	return f, nil
}

// parseTime reads t as a time since 1970, in the unit that makes it a year
// before 2100: seconds, milliseconds, microseconds or nanoseconds.
func parseTime(t token) (time.Time, error) {
	switch t.kind() {
	case '0':
	case '"':
		return time.Time{}, fmt.Errorf("ts is a number of milliseconds, found %s; send it without quotes", t.describe())
	default:
		return time.Time{}, fmt.Errorf("ts is a number of milliseconds, found %s", t.describe())
	}
	n, err := strconv.ParseInt(string(t.raw), 10, 64)
	if err != nil {
		f, ferr := strconv.ParseFloat(string(t.raw), 64)
		if ferr != nil || math.Abs(f) > 4.1e18 {
			return time.Time{}, fmt.Errorf("ts %s is no time; send milliseconds since 1970", clip(string(t.raw)))
		}
		if f < 4.1e9 { // seconds with a fraction
			f *= 1000
			return time.UnixMilli(int64(f)).UTC(), nil
		}
		n = int64(f)
	}
	at, ok := citywarden.UnixTime(n)
	if !ok {
		return time.Time{}, fmt.Errorf("ts %d is no time; send milliseconds since 1970", n)
	}
	return at, nil
}
