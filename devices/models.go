package devices

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

//go:embed models/*.yaml
var builtin embed.FS

// Builtin returns the model files that come with the platform, one for each kind
// of device that the rule library watches.
func Builtin() fs.FS {
	sub, err := fs.Sub(builtin, "models")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}

// Models are the device models that the platform knows. They never change
// after LoadModels, so several goroutines may use them.
type Models struct {
	byName map[citywarden.ModelName]*citywarden.Model
	names  []string // sorted
}

// LoadModels reads every .yaml and .yml file at the root of each file system,
// one model per file. A model replaces one of the same name from an earlier
// file system, so that an operator's folder can correct a built-in one; the same
// name twice in one file system is a mistake.
//
// Reading is strict: an unknown key, a wrong type or a contradiction fails. The
// error has CodeInvalid and wraps citywarden.Problems, all mistakes of all files.
func LoadModels(fsys ...fs.FS) (*Models, error) {
	m := &Models{byName: map[citywarden.ModelName]*citywarden.Model{}}
	var problems citywarden.Problems
	for _, f := range fsys {
		files, err := modelFiles(f)
		if err != nil {
			return nil, err
		}
		from := map[citywarden.ModelName]string{}
		for _, name := range files {
			src, err := fs.ReadFile(f, name)
			if err != nil {
				return nil, fmt.Errorf("read model %s: %w", name, err)
			}
			r := &reader{file: name, lines: strings.Split(string(src), "\n")}
			model, at := r.model(src)
			if other, twice := from[model.Name]; twice && model.Name != "" {
				r.fail(at, "model %s is in %s already", model.Name, other)
			}
			from[model.Name] = name
			problems = append(problems, r.problems...)
			m.byName[model.Name] = &model
		}
	}
	if len(problems) > 0 {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "%w", problems)
	}
	m.names = sortedKeys(m.byName)
	return m, m.checkKinds()
}

func modelFiles(f fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(f, ".")
	if err != nil {
		return nil, fmt.Errorf("read models: %w", err)
	}
	var files []string
	for _, e := range entries {
		if ext := path.Ext(e.Name()); !e.IsDir() && (ext == ".yaml" || ext == ".yml") {
			files = append(files, e.Name())
		}
	}
	return files, nil
}

// checkKinds fails when two models of a domain give one metric different
// kinds: their readings would share a column of the time series.
func (m *Models) checkKinds() error {
	type column struct {
		domain citywarden.Domain
		metric citywarden.MetricName
	}
	first := map[column]*citywarden.Model{}
	var errs []error
	for _, name := range m.names {
		model := m.byName[citywarden.ModelName(name)]
		for _, metric := range model.Metrics {
			c := column{model.Domain, metric.Name}
			other := first[c]
			if other == nil {
				first[c] = model
				continue
			}
			if o, _ := other.Metric(metric.Name); o.Kind != metric.Kind {
				errs = append(errs, citywarden.Errorf(citywarden.CodeInvalid,
					"metric %s is a %s in model %s and a %s in %s, both of domain %s: rename one of them",
					metric.Name, o.Kind, other.Name, metric.Kind, model.Name, model.Domain))
			}
		}
	}
	return errors.Join(errs...)
}

// Model returns the model called name. The caller must not change it.
func (m *Models) Model(name citywarden.ModelName) (*citywarden.Model, bool) {
	model, ok := m.byName[name]
	return model, ok
}

// All returns the models in the order of their names.
func (m *Models) All() []citywarden.Model {
	all := make([]citywarden.Model, len(m.names))
	for i, n := range m.names {
		all[i] = *m.byName[citywarden.ModelName(n)]
	}
	return all
}

var (
	modelName     = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)
	metricName    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,63}$`)
	eventName     = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,63}$`)
	attributeName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,63}$`)
)

// reservedMetrics are names that mean something else in a rule's expression or
// are tags of the series.
var reservedMetrics = strings.Fields(`attr hour weekday ts time device model grid site zone
	and or not in let if else true false nil matches contains startsWith endsWith
	avg min max sum count stddev prev delta rate changed silent skew n_of n_adj`)

// checkModel looks for what a field on its own can't show.
func checkModel(m *citywarden.Model, fail func(path, format string, args ...any)) {
	if !modelName.MatchString(string(m.Name)) {
		fail("name", "model name %q: use lower-case letters, digits and '-', beginning with a letter, at most 64", m.Name)
	}
	if m.Report <= 0 {
		fail("report", "report is how often a device reports; it must be more than 0")
	}
	if m.Heartbeat < m.Report {
		fail("heartbeat", "heartbeat %s is shorter than report %s: every device would count as silent", m.Heartbeat, m.Report)
	}
	if len(m.Metrics) == 0 {
		fail("metrics", "a model has at least one metric")
	}
	for i := range m.Metrics {
		x, at := &m.Metrics[i], fmt.Sprintf("metrics[%d]", i)
		switch {
		case !metricName.MatchString(string(x.Name)):
			fail(at+".name", "metric name %q: use letters, digits and '_', beginning with a letter, at most 64", x.Name)
		case slices.Contains(reservedMetrics, string(x.Name)):
			fail(at+".name", "a metric can't be called %q: the word has a meaning of its own in rules or series", x.Name)
		case slices.ContainsFunc(m.Metrics[:i], func(o citywarden.Metric) bool { return o.Name == x.Name }):
			fail(at+".name", "metric %s is there twice", x.Name)
		case x.Name == "event" && x.Kind != citywarden.KindText:
			fail(at+".kind", "event is a text, the name of what happened: event(\"valve.operated\", \"10m\") in rules looks for it")
		}
		if x.Kind != citywarden.KindNumber && (x.Unit != "" || x.Min != nil || x.Max != nil || x.Counter || x.Sequence || x.Resolution != 0) {
			fail(at+".kind", "unit, min, max, resolution, counter and sequence belong to a number, %s is a %s", x.Name, x.Kind)
		}
		if x.IPSO != "" {
			checkIPSO(m, i, at+".ipso", fail)
		}
		if x.FIWARE != "" && !fiwareAttribute.MatchString(x.FIWARE) && !slices.Contains(controlledProperties, x.FIWARE) {
			fail(at+".fiware", "fiware %q: write a controlledProperty of FIWARE's Device, like waterLevel, or an attribute of an entity, like ParkingSpot.status%s", x.FIWARE, suggest(x.FIWARE, controlledProperties))
		}
		if x.Sequence && slices.ContainsFunc(m.Metrics[:i], func(o citywarden.Metric) bool { return o.Sequence }) {
			fail(at+".sequence", "one metric numbers the messages, and one before %s does already", x.Name)
		}
		if x.Min != nil && x.Max != nil && x.Resolution > *x.Max-*x.Min && *x.Min < *x.Max {
			fail(at+".resolution", "a step of %g is more than all of the range from %g to %g", x.Resolution, *x.Min, *x.Max)
		}
		if x.Min != nil && x.Max != nil && *x.Min >= *x.Max {
			fail(at+".min", "min %g is not below max %g", *x.Min, *x.Max)
		}
	}
	for i := range m.Events {
		x, at := &m.Events[i], fmt.Sprintf("events[%d]", i)
		switch {
		case !eventName.MatchString(x.Name):
			fail(at+".name", "event name %q: use letters, digits, '.', '_' and '-', beginning with a letter, at most 64", x.Name)
		case slices.ContainsFunc(m.Events[:i], func(o citywarden.ModelEvent) bool { return o.Name == x.Name }):
			fail(at+".name", "event %s is there twice", x.Name)
		}
	}
	if _, ok := m.Metric(citywarden.EventMetric); !ok && len(m.Events) > 0 {
		fail("events", "events come as values of the metric event, a text; the model has no such metric")
	}
	for i := range m.Attributes {
		x, at := &m.Attributes[i], fmt.Sprintf("attributes[%d]", i)
		switch {
		case !attributeName.MatchString(x.Name):
			fail(at+".name", "attribute name %q: use letters, digits and '_', beginning with a letter, at most 64", x.Name)
		case slices.ContainsFunc(m.Attributes[:i], func(o citywarden.Attribute) bool { return o.Name == x.Name }):
			fail(at+".name", "attribute %s is there twice", x.Name)
		}
		if x.Default != nil {
			if v, _ := citywarden.ValueOf(x.Default); v.Kind() != x.Kind {
				fail(at+".default", "default of %s is a %s, not a %s", x.Name, v.Kind(), x.Kind)
			}
		}
		if x.Unit != "" && x.Kind != citywarden.KindNumber {
			fail(at+".unit", "a unit belongs to a number, %s is a %s", x.Name, x.Kind)
		}
	}
	if one, all := m.Limits.Messages, m.Limits.AllMessages; !one.IsZero() {
		if most := one.Every(); most > m.Report.Std() {
			fail("limits.messages", "%s is one message in %s, and the model reports every %s: every device would be held up", one, citywarden.Duration(most), m.Report)
		}
		if !all.IsZero() && all.Every() > one.Every() {
			fail("limits.all_messages", "%s for all devices is less than %s for each", all, one)
		}
	}
	for i := range m.Commands {
		checkCommand(&m.Commands[i], m.Commands[:i], fmt.Sprintf("commands[%d]", i), fail)
	}
}

// ipsoPath is an object, perhaps an instance of it that is not the first, and a resource.
var ipsoPath = regexp.MustCompile(`^[0-9]{1,5}/([1-9][0-9]{0,4}/)?[0-9]{1,5}$`)

// fiwareAttribute is an attribute of an entity of FIWARE's Smart Data Models.
var fiwareAttribute = regexp.MustCompile(`^[A-Z][A-Za-z0-9]*\.[a-z][A-Za-z0-9]*$`)

// controlledProperties are what a Device of FIWARE's Smart Data Models can measure.
var controlledProperties = strings.Fields(`airPollution atmosphericPressure averageVelocity batteryLife batterySupply cdom conductance
	conductivity depth eatingActivity electricityConsumption energy fillingLevel freeChlorine gasConsumption gateOpening heading humidity light
	location milking motion movementActivity noiseLevel occupancy orp pH power precipitation pressure refractiveIndex salinity smoke soilMoisture
	solarRadiation speed tds temperature trafficFlow tss turbidity uvLampIntensity uvOrganicLoad waterConsumption waterFlow waterLevel
	waterPollution weatherConditions weight windDirection windSpeed`)

// checkIPSO checks which resource of LwM2M metric i of m is.
func checkIPSO(m *citywarden.Model, i int, at string, fail func(path, format string, args ...any)) {
	x := &m.Metrics[i]
	_, _, resource := citywarden.SplitIPSO(x.IPSO)
	is := citywarden.KindNumber
	if resource == "5500" { // digital input state
		is = citywarden.KindBool
	}
	reusable := len(resource) == 4 && resource >= "5500" && resource <= "5899" // those that mean the same in every object
	switch {
	case !ipsoPath.MatchString(x.IPSO):
		fail(at, "ipso %q: write object and resource, like 3303/5700, with an instance between them when it is not 0, like 3303/1/5700", x.IPSO)
	case reusable && x.Kind != is:
		fail(at, "resource %s of LwM2M is a %s, %s is a %s", resource, is, x.Name, x.Kind)
	case slices.ContainsFunc(m.Metrics[:i], func(o citywarden.Metric) bool { return o.IPSO == x.IPSO }):
		fail(at, "another metric is %s already", x.IPSO)
	}
}

func checkCommand(c *citywarden.ModelCommand, before []citywarden.ModelCommand, at string, fail func(path, format string, args ...any)) {
	switch {
	case !metricName.MatchString(c.Name):
		fail(at+".name", "command name %q: use letters, digits and '_', beginning with a letter, at most 64", c.Name)
	case slices.ContainsFunc(before, func(o citywarden.ModelCommand) bool { return o.Name == c.Name }):
		fail(at+".name", "command %s is there twice", c.Name)
	}
	if c.Expires != 0 && (c.Expires.Std() < time.Second || c.Expires.Std() > expiresMost) {
		fail(at+".expires", "a command expires after 1s to 30d, not %s", c.Expires)
	}
	switch {
	case c.IPSO == "":
	case !ipsoPath.MatchString(c.IPSO):
		fail(at+".ipso", "ipso %q: write object and resource, like 3/4, with an instance between them when it is not 0, like 3306/1/5850", c.IPSO)
	case len(c.Params) > 1:
		fail(at+".ipso", "a resource of LwM2M is executed, or written with one value; command %s has %d parameters", c.Name, len(c.Params))
	}
	for i, p := range c.Params {
		at := fmt.Sprintf("%s.params[%d]", at, i)
		switch {
		case !metricName.MatchString(p.Name):
			fail(at+".name", "parameter name %q: use letters, digits and '_', beginning with a letter, at most 64", p.Name)
		case slices.ContainsFunc(c.Params[:i], func(o citywarden.Param) bool { return o.Name == p.Name }):
			fail(at+".name", "parameter %s is there twice", p.Name)
		}
		if p.Kind != citywarden.KindNumber && (p.Unit != "" || p.Min != nil || p.Max != nil) {
			fail(at+".kind", "unit, min and max belong to a number, %s is a %s", p.Name, p.Kind)
		}
		if p.Min != nil && p.Max != nil && *p.Min > *p.Max {
			fail(at+".min", "min %g is above max %g", *p.Min, *p.Max)
		}
	}
}

// checkAttribute returns x as a device of model m may keep it under name:
// string, float64 or bool. A declared attribute must have the declared kind; one
// that the model does not declare is kept for people to read, rules can't use it.
func checkAttribute(m *citywarden.Model, name string, x any) (any, error) {
	if !attributeName.MatchString(name) {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "attribute name %q: use letters, digits and '_', beginning with a letter, at most 64", name)
	}
	v, ok := citywarden.ValueOf(x)
	if !ok {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "attribute %s is a %T: it may be a text, a number or a bool", name, x)
	}
	if decl, known := m.Attribute(name); known && decl.Kind != v.Kind() {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "attribute %s of %s is a %s, not a %s", name, m.Name, decl.Kind, v.Kind())
	}
	if citywarden.IsIdentity(name) && v.Kind() != citywarden.KindText {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "attribute %s is a text, not a %s: zeros at its beginning count", name, v.Kind())
	}
	switch v.Kind() {
	case citywarden.KindNumber:
		if math.IsNaN(v.Float()) || math.IsInf(v.Float(), 0) {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "attribute %s is not a finite number", name)
		}
	case citywarden.KindText:
		if err := citywarden.CheckText("attribute "+name, v.String(), 1000); err != nil {
			return nil, err
		}
	}
	return v.Any(), nil
}
