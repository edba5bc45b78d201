package influx

import (
	"strconv"
	"strings"

	"github.com/citywarden/citywarden"
)

// line is one line of the line protocol: readings of one device that have the
// same time.
type line struct {
	entry    *citywarden.Entry
	readings []citywarden.Reading // at least one
}

// lines splits the readings of e by time, so that each line has every metric
// once. Readings that the format can't carry (an infinite number) are left out.
func lines(dst []line, e *citywarden.Entry) []line {
	if e.Device == nil || e.Model == nil {
		return dst
	}
	for rest := e.Readings; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Time.Equal(rest[0].Time) && !has(rest[:n], rest[n].Metric) {
			n++
		}
		if l := (line{e, rest[:n]}); writable(l) > 0 {
			dst = append(dst, l)
		}
		rest = rest[n:]
	}
	return dst
}

func has(rs []citywarden.Reading, m citywarden.MetricName) bool {
	for i := range rs {
		if rs[i].Metric == m {
			return true
		}
	}
	return false
}

// writable counts the readings of l that the format can carry.
func writable(l line) int {
	n := 0
	for i := range l.readings {
		if finite(l.readings[i].Value) {
			n++
		}
	}
	return n
}

func finite(v citywarden.Value) bool {
	f := v.Float()
	return v.Kind() != 0 && f-f == 0 // NaN and infinities minus themselves are NaN
}

// tags are the names and values of l's tags, "" where it has none. They are in the order
// of their names, which spares the server sorting them.
func (l line) tags() [5][2]string {
	d := l.entry.Device
	site, _ := d.Attributes["site"].(string)
	zone, _ := d.Attributes["zone"].(string)
	return [...][2]string{{"device", string(d.ID)}, {"grid", string(d.Grid)}, {"model", string(d.Model)}, {"site", site}, {"zone", zone}}
}

// appendTags appends measurement,tag=value: what a series is known by.
func (l line) appendTags(b []byte) []byte {
	b = appendEscaped(b, string(l.entry.Model.Domain), `, `)
	for _, t := range l.tags() {
		b = appendTag(b, t[0], t[1])
	}
	return b
}

// appendTo appends l in the line protocol, with a timestamp in nanoseconds and
// a newline: measurement,tag=value field=value timestamp.
func (l line) appendTo(b []byte) []byte {
	b = l.appendTags(b)
	sep := byte(' ')
	for i := range l.readings {
		x := &l.readings[i]
		if !finite(x.Value) {
			continue
		}
		b = append(b, sep)
		sep = ','
		b = appendEscaped(b, string(x.Metric), `,= `)
		b = append(b, '=')
		switch x.Value.Kind() {
		case citywarden.KindNumber:
			b = strconv.AppendFloat(b, x.Value.Float(), 'g', -1, 64)
		case citywarden.KindBool:
			b = strconv.AppendBool(b, x.Value.IsTrue())
		case citywarden.KindText:
			b = appendString(b, x.Value.String())
		}
	}
	b = append(b, ' ')
	b = strconv.AppendInt(b, l.readings[0].Time.UnixNano(), 10)
	return append(b, '\n')
}

// appendTag appends ",name=value", or nothing for a value that is empty.
func appendTag(b []byte, name, value string) []byte {
	if value = tagValue(value); value == "" {
		return b
	}
	b = append(b, ',')
	b = append(b, name...)
	b = append(b, '=')
	return appendEscaped(b, value, `,= `)
}

// tagValue is s as a tag can hold it: a line break ends a line whatever stands
// before it, and a backslash at the end would escape what follows.
func tagValue(s string) string {
	if strings.ContainsAny(s, "\n\r\t\x00") {
		s = strings.NewReplacer("\n", " ", "\r", " ", "\t", " ", "\x00", " ").Replace(s)
	}
	return strings.TrimRight(s, `\`)
}

// appendEscaped appends s with a backslash before each of the special bytes.
func appendEscaped(b []byte, s, special string) []byte {
	for i := 0; i < len(s); i++ {
		if strings.IndexByte(special, s[i]) >= 0 {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return b
}

// appendString appends s as the quoted value of a field.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}
