package network

import "math"

// EPANET's constants; other digits would be other results.
const (
	metresPerFoot  = 0.3048
	psiPerFoot     = 0.4333
	kPaPerPSI      = 6.895
	barPerPSI      = 0.068948
	kWPerHP        = 0.7457
	waterViscosity = 1.1e-5 // ft²/s
)

// flowUnits are the units of flow per cubic foot per second.
var flowUnits = []struct {
	name   string
	per    float64
	metric bool
}{
	{"CFS", 1, false}, {"GPM", 448.831, false}, {"MGD", 0.64632, false}, {"IMGD", 0.5382, false}, {"AFD", 1.9837, false},
	{"LPS", 28.317, true}, {"LPM", 1699, true}, {"MLD", 2.4466, true}, {"CMH", 101.94, true}, {"CMD", 2446.6, true}, {"CMS", 0.028317, true},
}

// factors turn what is computed into the units of the file.
type factors struct {
	flow, length, diameter, pressure, power float64
	emitter                                 float64 // pressure units of an emitter's coefficient per foot
}

// setFactors finds the factors of the units and names the defaults.
func (n *Network) setFactors() {
	f := factors{length: 1, diameter: 12, power: 1}
	for _, u := range flowUnits {
		if u.name == n.Units.Flow {
			f.flow, n.Units.Metric = u.per, u.metric
		}
	}
	n.Units.Length = "ft"
	f.emitter = psiPerFoot * n.options.gravity
	if n.Units.Metric {
		n.Units.Length = "m"
		f.length, f.diameter, f.power, f.emitter = metresPerFoot, 1000*metresPerFoot, kWPerHP, metresPerFoot
	}
	if n.Units.Pressure == "" {
		n.Units.Pressure = "psi"
		if n.Units.Metric {
			n.Units.Pressure = "m"
		}
	}
	switch v := &n.options.viscosity; {
	case *v > 1e-3: // relative to water
		*v *= waterViscosity
	case n.Units.Metric:
		*v /= metresPerFoot * metresPerFoot
	}
	psi := psiPerFoot * n.options.gravity
	f.pressure = map[string]float64{"psi": psi, "m": metresPerFoot, "kPa": kPaPerPSI * psi, "bar": barPerPSI * psi, "ft": 1}[n.Units.Pressure]
	n.factors = f
}

// resistance turns the discharge coefficient of an emitter, flow units per
// pressure to the exponent, into head loss per power of the flow; 0 for none.
func (n *Network) resistance(coefficient float64) float64 {
	if coefficient <= 0 {
		return 0
	}
	e := n.options.emitter
	return math.Pow(n.factors.flow, e) / n.factors.emitter / math.Pow(coefficient, e)
}
