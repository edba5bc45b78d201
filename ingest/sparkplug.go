package ingest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// sparkplugProperties begin the names of metrics that describe a device and measure
// nothing; they become client attributes.
const sparkplugProperties = "Properties/"

// decodeSparkplug reads a payload of Sparkplug B of which the broker has
// completed the metrics from the birth, so that each message can be understood alone.
//
// The name of a metric is one of the model's, or ends with one after "/", as
// Inputs/temperature does.
func decodeSparkplug(model *citywarden.Model, up *citywarden.Uplink, drop *dropped) (message, error) {
	p, err := citywarden.ParseSparkplug(up.Payload)
	if err != nil {
		return message{}, err
	}
	var out message
	taken := map[citywarden.MetricName]string{} // by which name of the device
	for i := range p.Metrics {
		m := &p.Metrics[i]
		switch {
		case m.Name == "" && m.HasAlias:
			drop.reject(1, "alias %d stands in no birth since the device connected, or there is no room for its name; the device was asked for its birth", m.Alias)
			continue
		case m.Name == "":
			drop.reject(1, "metric %d has no name", i+1)
			continue
		case citywarden.IsSparkplugControl(m.Name) || m.Null || isCommand(model, m.Name):
			continue
		case m.Quality == 0 || m.Quality == 500:
			drop.reject(1, "%s is of quality %d: the device itself does not trust it", quote(m.Name), m.Quality)
			continue
		}
		v, err := m.Value()
		if err != nil {
			drop.reject(1, "%s %v", quote(m.Name), err)
			continue
		}
		if name, ok := strings.CutPrefix(m.Name, sparkplugProperties); ok {
			if err := out.attribute(name, v); err != nil {
				drop.reject(1, "%v", err)
			}
			continue
		}
		metric, ok := model.Metric(citywarden.MetricName(m.Name))
		if !ok {
			metric, ok = model.Metric(citywarden.MetricName(lastPart(m.Name)))
		}
		if !ok {
			drop.reject(1, "%s", unknownMetric(model, m.Name))
			continue
		}
		if other := taken[metric.Name]; other != "" && other != m.Name {
			drop.reject(1, "%s and %s would both be metric %s; rename one of them", quote(other), quote(m.Name), metric.Name)
			continue
		}
		taken[metric.Name] = m.Name
		r := citywarden.Reading{Metric: metric.Name, Value: v}
		given := m.Time
		if given == 0 {
			given = p.Time
		}
		if r.Time, err = citywarden.SparkplugTime(given); err != nil {
			drop.reject(1, "%s: %v", quote(m.Name), err)
			continue
		}
		if m.Type == citywarden.SparkplugDateTime && metric.Kind == citywarden.KindText {
			r.Value = citywarden.TextValue(time.UnixMilli(int64(v.Float())).UTC().Format(time.RFC3339Nano))
		}
		if r.Value.Kind() != metric.Kind {
			drop.reject(1, "%s is a %s, found a %s", metric.Name, metric.Kind, m.Type)
			continue
		}
		out.readings = append(out.readings, r)
	}
	return out, nil
}

// attribute notes a client attribute.
func (m *message) attribute(name string, v citywarden.Value) error {
	switch {
	case name == "" || len(name) > maxKey:
		return fmt.Errorf("the name of an attribute has 1 to %d bytes", maxKey)
	case v.Kind() == citywarden.KindText && len(v.String()) > maxAttribute:
		return fmt.Errorf("attribute %s has more than %d bytes", quote(name), maxAttribute)
	}
	if m.attrs == nil {
		m.attrs = map[string]any{}
	}
	m.attrs[name] = v.Any()
	return nil
}

// isCommand reports whether a metric is how the device takes a command, of which the
// birth tells too.
func isCommand(model *citywarden.Model, name string) bool {
	if _, ok := model.Metric(citywarden.MetricName(lastPart(name))); ok {
		return false
	}
	if _, ok := model.Command(lastPart(name)); ok {
		return true
	}
	command, _ := strings.CutSuffix(name, "/"+lastPart(name)) // of a parameter
	_, ok := model.Command(lastPart(command))
	return ok
}

// lastPart returns what follows the last "/".
func lastPart(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// decodeMissing reads how many messages of a device got lost.
func decodeMissing(up *citywarden.Uplink) (message, error) {
	n, err := strconv.ParseUint(string(up.Payload), 10, 16)
	if err != nil {
		return message{}, citywarden.Errorf(citywarden.CodeInvalid, "no number of messages")
	}
	return message{missing: int(n)}, nil
}
