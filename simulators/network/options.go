package network

import (
	"math"
	"strings"
)

type formula string

const (
	hazenWilliams formula = "H-W"
	darcyWeisbach formula = "D-W"
	chezyManning  formula = "C-M"
)

// options are [OPTIONS] and [TIMES] with EPANET's defaults, in feet, cubic feet
// and seconds.
type options struct {
	formula    formula
	exponent   float64 // of the flow in the head loss
	viscosity  float64 // as written until setFactors has seen the units
	gravity    float64 // specific
	trials     int
	extra      int     // trials after trials, -1 to stop at once
	accuracy   float64 // sum of changes of flow over sum of flows
	headError  float64 // 0 for none
	flowChange float64 // 0 for none
	checkEvery int
	checkUntil int
	dampLimit  float64
	headTol    float64
	flowTol    float64
	gradTol    float64 // below this gradient a loss counts as linear

	pattern      int // of demands without one
	demandFactor float64
	emitter      float64 // exponent of the flow in the head loss: 1 over the file's
	backflow     bool    // into emitters
	byPressure   bool    // demands shrink when the pressure is low
	pressureMin  float64
	pressureFull float64
	pressureExp  float64

	duration, hydraulicStep, patternStep, patternStart int
	reportStep, ruleStep, startClock                   int
}

// minPressureRange is the least difference of the pressures at which a demand
// begins and is full, in the units of the file.
const minPressureRange = 0.1

func defaults() options {
	return options{
		formula: hazenWilliams, exponent: 1.852, viscosity: 1, gravity: 1,
		trials: 200, extra: -1, accuracy: 0.001, checkEvery: 2, checkUntil: 10,
		headTol: 0.0005, flowTol: 0.0001, gradTol: 1e-7,
		demandFactor: 1, emitter: 2, backflow: true, pressureExp: 0.5,
		hydraulicStep: 3600, patternStep: 3600, reportStep: 3600,
	}
}

func (r *reader) option(l line) error {
	o := &r.n.options
	word := func(i int) string { return strings.ToUpper(l.word(i)) }
	// EPANET takes an option without a value as not given.
	if len(l.words) == 1 {
		return nil
	}
	switch {
	case l.is(0, "UNIT"):
		if l.is(1, "SI") {
			r.n.Units.Flow, r.n.Units.Metric = "LPS", true
			return nil
		}
		var allowed []string
		for _, u := range flowUnits {
			allowed = append(allowed, u.name)
		}
		name, err := r.choose(l, 1, "unit of flow", allowed...)
		r.n.Units.Flow = name
		return err
	case l.is(0, "PRESSURE") && !l.is(1, "EXP"):
		name, err := r.choose(l, 1, "unit of pressure", "PSI", "KPA", "METERS", "BAR", "FEET")
		r.n.Units.Pressure = map[string]string{"PSI": "psi", "KPA": "kPa", "METERS": "m", "BAR": "bar", "FEET": "ft"}[name]
		return err
	case l.is(0, "HEADL"):
		name, err := r.choose(l, 1, "head loss formula", "H-W", "D-W", "C-M")
		o.formula, o.exponent = formula(name), 2
		if o.formula == hazenWilliams {
			o.exponent = 1.852
		}
		return err
	case l.is(0, "HYDR"):
		return r.fail(l, "files of hydraulics (USE, SAVE) are not supported; remove the line")
	case l.is(0, "QUAL"), l.is(0, "MAP"), l.is(0, "VERI"), l.is(0, "SEGM"), l.is(0, "DIFF"), l.is(0, "TOLER"):
		return nil // not of hydraulics
	case l.is(0, "UNBA"):
		name, err := r.choose(l, 1, "UNBALANCED", "STOP", "CONT")
		if err != nil {
			return err
		}
		o.extra = -1
		if name == "CONT" {
			v, err := r.optional(l, 2, "number of trials", 0, 0)
			o.extra = int(math.Min(v, maxTrials))
			return err
		}
		return nil
	case l.is(0, "PATT"):
		r.defaultPattern = l.words[1]
		return nil
	case l.is(0, "DEMAND") && l.is(1, "MODEL"):
		name, err := r.choose(l, 2, "demand model", "DDA", "PDA")
		o.byPressure = name == "PDA"
		return err
	case l.is(0, "BACK"):
		name, err := r.choose(l, 2, "BACKFLOW ALLOWED", "YES", "NO")
		o.backflow = name == "YES"
		return err
	}
	at := 1
	for _, two := range []string{"SPEC", "EMIT", "DEMAND", "MINI", "REQ", "PRESSURE"} {
		if l.is(0, two) {
			at = 2
		}
	}
	if l.word(at) == "" {
		return nil
	}
	y, err := r.number(l, at, "value of "+word(0), 0)
	if err != nil {
		return err
	}
	// These may be 0.
	switch {
	case l.is(0, "DAMPLIMIT"):
		o.dampLimit = y
		return nil
	case l.is(0, "FLOWCHANGE"):
		o.flowChange = y
		return nil
	case l.is(0, "HEADERROR"):
		o.headError = y
		return nil
	case l.is(0, "MINI"):
		if r.required[1] == minPressureRange {
			r.required[1] = y + minPressureRange
		}
		r.required[0] = y
		return r.checkRequired(l)
	case l.is(0, "REQ"):
		r.required[1] = y
		return r.checkRequired(l)
	}
	if y == 0 {
		return r.fail(l, "%s must be above 0", word(0))
	}
	switch {
	case l.is(0, "PRESSURE"):
		o.pressureExp = y
	case l.is(0, "VISC"):
		o.viscosity = y
	case l.is(0, "SPEC"):
		o.gravity = y
	case l.is(0, "TRIAL"):
		o.trials = int(math.Min(math.Max(y, 1), maxTrials))
	case l.is(0, "ACCU"):
		o.accuracy = math.Min(math.Max(y, 1e-5), 1e-1)
	case l.is(0, "HTOL"):
		o.headTol = y
	case l.is(0, "QTOL"):
		o.flowTol = y
	case l.is(0, "RQTOL"):
		if y >= 1 {
			return r.fail(l, "RQTOL must be below 1")
		}
		o.gradTol = y
	case l.is(0, "CHECKFREQ"):
		o.checkEvery = int(math.Min(math.Max(y, 1), maxTrials))
	case l.is(0, "MAXCHECK"):
		o.checkUntil = int(math.Min(y, maxTrials))
	case l.is(0, "EMIT"):
		o.emitter = 1 / y
	case l.is(0, "DEMAND"):
		o.demandFactor = y
	default:
		return r.fail(l, "there is no option %q%s", l.words[0], suggest(l.words[0], []string{
			"UNITS", "PRESSURE", "HEADLOSS", "QUALITY", "MAP", "UNBALANCED", "PATTERN", "DEMAND MODEL", "DEMAND MULTIPLIER", "EMITTER EXPONENT",
			"BACKFLOW ALLOWED", "VISCOSITY", "DIFFUSIVITY", "SPECIFIC GRAVITY", "TRIALS", "ACCURACY", "HEADERROR", "FLOWCHANGE",
			"MINIMUM PRESSURE", "REQUIRED PRESSURE", "PRESSURE EXPONENT", "TOLERANCE", "CHECKFREQ", "MAXCHECK", "DAMPLIMIT",
		}))
	}
	return nil
}

const maxTrials = 10000

func (r *reader) checkRequired(l line) error {
	if r.required[1]-r.required[0] < minPressureRange {
		return r.fail(l, "the required pressure %g must be at least %g above the minimum %g", r.required[1], minPressureRange, r.required[0])
	}
	return nil
}

func (r *reader) time(l line) error {
	o := &r.n.options
	last := len(l.words) - 1
	if last < 1 {
		return r.fail(l, "a time is: KEYWORD value, such as DURATION 24:00")
	}
	if l.is(0, "STAT") {
		return nil // of the report
	}
	hours, ok := clock(l.words[last], "")
	if !ok {
		hours, ok = clock(l.words[last-1], l.words[last])
	}
	t := int(math.Min(3600*hours+0.5, maxTime))
	if !ok || t < 0 {
		return r.fail(l, "%q is not a time; write hours, h:mm, h:mm:ss, a number with SEC, MIN, HOURS or DAYS, or a clock time with AM or PM", strings.Join(l.words[1:], " "))
	}
	step := func(v *int) error {
		if t > 0 {
			*v = t
		}
		return nil
	}
	switch {
	case l.is(0, "DURA"):
		o.duration = t
	case l.is(0, "HYDR"):
		return step(&o.hydraulicStep)
	case l.is(0, "RULE"):
		o.ruleStep = t
	case l.is(0, "QUAL"), l.is(0, "MINI"):
	case l.is(0, "PATT") && l.is(1, "TIME"):
		return step(&o.patternStep)
	case l.is(0, "PATT") && l.is(1, "STAR"):
		o.patternStart = t
	case l.is(0, "REPO") && l.is(1, "TIME"):
		return step(&o.reportStep)
	case l.is(0, "REPO") && l.is(1, "STAR"):
	case l.is(0, "STAR"):
		o.startClock = t % day
	default:
		return r.fail(l, "there is no time %q; allowed are DURATION, HYDRAULIC TIMESTEP, QUALITY TIMESTEP, RULE TIMESTEP, PATTERN TIMESTEP, "+
			"PATTERN START, REPORT TIMESTEP, REPORT START, START CLOCKTIME, STATISTIC", strings.Join(l.words[:min(2, len(l.words))], " "))
	}
	return nil
}

const (
	day     = 86400
	maxTime = 20 * 366 * day // s; in 32 bits with what is added
)

// clock returns the hours that value and unit say.
func clock(value, unit string) (float64, bool) {
	var y [3]float64
	parts := strings.Split(value, ":")
	if len(parts) > 3 {
		return 0, false
	}
	for i, p := range parts {
		v, err := parseNumber(p)
		if err != nil || v < 0 {
			return 0, false
		}
		y[i] = v
	}
	h := y[0] + y[1]/60 + y[2]/3600
	if len(parts) == 1 {
		for _, u := range []struct {
			name string
			per  float64
		}{{"SEC", 1. / 3600}, {"MIN", 1. / 60}, {"HOU", 1}, {"DAY", 24}} {
			if begins(unit, u.name) {
				return h * u.per, true
			}
		}
	}
	switch {
	case unit == "":
		return h, true
	case h >= 13:
		return 0, false
	case begins(unit, "AM"):
		if h >= 12 {
			h -= 12
		}
		return h, true
	case begins(unit, "PM"):
		if h < 12 {
			h += 12
		}
		return h, true
	}
	return 0, false
}
