package citywarden

import "math"

// unitFactor is how much of the base unit of its quantity a unit is.
type unitFactor struct {
	of string
	is float64
}

// unitFactors are the units, in UCUM, that can be converted by a factor.
var unitFactors = map[string]unitFactor{
	"Pa": {"pressure", 1}, "hPa": {"pressure", 100}, "kPa": {"pressure", 1e3}, "MPa": {"pressure", 1e6}, "mbar": {"pressure", 100}, "bar": {"pressure", 1e5},
	"mW": {"power", 1e-3}, "W": {"power", 1}, "kW": {"power", 1e3}, "MW": {"power", 1e6},
	"J": {"energy", 1}, "kJ": {"energy", 1e3}, "MJ": {"energy", 1e6}, "W.h": {"energy", 3600}, "kW.h": {"energy", 3.6e6}, "MW.h": {"energy", 3.6e9},
	"um": {"length", 1e-6}, "mm": {"length", 1e-3}, "cm": {"length", 1e-2}, "m": {"length", 1}, "km": {"length", 1e3},
	"mL": {"volume", 1e-6}, "L": {"volume", 1e-3}, "l": {"volume", 1e-3}, "m3": {"volume", 1},
	"L/s": {"flow", 1e-3}, "l/s": {"flow", 1e-3}, "L/min": {"flow", 1e-3 / 60}, "l/min": {"flow", 1e-3 / 60}, "L/h": {"flow", 1e-3 / 3600},
	"m3/s": {"flow", 1}, "m3/h": {"flow", 1. / 3600}, "m3/d": {"flow", 1. / 86400},
	"ms": {"time", 1e-3}, "s": {"time", 1}, "min": {"time", 60}, "h": {"time", 3600}, "d": {"time", 86400},
	"mV": {"voltage", 1e-3}, "V": {"voltage", 1}, "kV": {"voltage", 1e3}, "mA": {"current", 1e-3}, "A": {"current", 1}, "kA": {"current", 1e3},
	"mg": {"mass", 1e-6}, "g": {"mass", 1e-3}, "kg": {"mass", 1}, "t": {"mass", 1e3},
	"rad": {"angle", 1}, "deg": {"angle", math.Pi / 180}, "T": {"magnetic", 1}, "mT": {"magnetic", 1e-3}, "uT": {"magnetic", 1e-6},
	"m/s": {"speed", 1}, "km/h": {"speed", 1 / 3.6}, "mm/s": {"speed", 1e-3},
}

// UnitFactor returns what a number in the UCUM unit from is to be multiplied by
// to be one in the unit to. ok is false when the two measure different things,
// or when either is not known.
func UnitFactor(from, to string) (factor float64, ok bool) {
	if from == to {
		return 1, true
	}
	f, t := unitFactors[from], unitFactors[to]
	if f.of == "" || f.of != t.of {
		return 0, false
	}
	return f.is / t.is, true
}
