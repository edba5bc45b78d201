package cases

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/citywarden/citywarden"
)

// The populations: the work that a share may be a share of. In the words of
// GB/T 30428.4 they are the numbers (数); 应 means that it was done in the period,
// or that its limit had passed at the end and it was not.
var populations = []population{
	{"reports", text("上报数", "reports"), citywarden.WorkReport, 0, 0, done},
	{"officer_reports", text("监督员上报数", "reports of officers"), citywarden.WorkReport, citywarden.MarkOfficer, 0, done},
	{"public_reports", text("公众举报数", "reports of citizens"), citywarden.WorkReport, citywarden.MarkPublic, 0, done},
	{"sensor_reports", text("物联感知上报数", "reports of sensors"), citywarden.WorkReport, citywarden.MarkSensor, 0, done},
	{"valid_reports", text("有效上报数", "accepted reports"), citywarden.WorkReport, citywarden.MarkValid, 0, done},
	{"filed_reports", text("上报后立案数", "reports that were filed"), citywarden.WorkReport, citywarden.MarkFiled, 0, done},
	{"filed_by_people", text("上报后立案数（不含物联感知）", "reports that were filed, without those of sensors"), citywarden.WorkReport, citywarden.MarkFiled, citywarden.MarkSensor, done},
	{"accepted", text("受理数", "taken up"), citywarden.WorkAccept, 0, 0, done},
	{"to_accept", text("应受理数", "to be taken up"), citywarden.WorkAccept, 0, 0, done | overdue},
	{"verifications_sent", text("发核实数", "sent to verify"), citywarden.WorkSendVerify, 0, 0, done},
	{"to_verify", text("应核实数", "to be verified"), citywarden.WorkVerify, 0, 0, done | overdue},
	{"filed", text("立案数", "filed"), citywarden.WorkFile, 0, 0, done},
	{"to_file", text("应立案数", "to be filed"), citywarden.WorkFile, 0, 0, done | overdue},
	{"dispatched", text("派遣数", "dispatched"), citywarden.WorkDispatch, 0, 0, done},
	{"to_dispatch", text("应派遣数（已派遣+待派遣）", "dispatched or waiting for it"), citywarden.WorkDispatch, 0, 0, done | overdue | pending},
	{"due_to_dispatch", text("应派遣数（已派遣+超时待派遣）", "dispatched or overdue for it"), citywarden.WorkDispatch, 0, 0, done | overdue},
	{"handled", text("处置数", "handled"), citywarden.WorkHandle, 0, 0, done},
	{"to_handle", text("应处置数（处置+超时未处置）", "handled or overdue for it"), citywarden.WorkHandle, 0, 0, done | overdue},
	{"with_department", text("应处置数（已派遣未作废）", "dispatched and not voided"), citywarden.WorkHandle, 0, 0, done | overdue | pending},
	{"checks_to_send", text("应发核查数", "to be sent to check"), citywarden.WorkSendCheck, 0, 0, done | overdue},
	{"to_check", text("应核查数", "to be checked"), citywarden.WorkCheck, 0, 0, done | overdue},
	{"closed", text("结案数", "closed"), citywarden.WorkClose, 0, 0, done},
	{"to_close", text("应结案数（处置+超时未处置）", "handled, or overdue for it"), citywarden.WorkClose, 0, 0, done | overdue},
}

// The indicators (GB/T 30428.4-2016, before it CJ/T 292-2008). Where deployed
// systems differ in the denominator there are several: the first unless
// cases.evaluation.denominators says otherwise. One without denominators is a
// count, of the population of its code.
var indicators = []indicator{
	// code, name, numerator, which of the denominator, the denominators, better, whose
	{"reports", text("上报数", "reports"), text("上报数", "reports"), which{}, nil, "", of("area")},
	{"public_reports", text("公众举报数", "reports of citizens"), text("公众举报数", "reports of citizens"), which{}, nil, "", of("area")},
	{"sensor_reports", text("物联感知上报数", "reports of sensors"), text("物联感知上报数", "reports of sensors"), which{}, nil, "", of("area")},
	{"officer_reports", text("监督员上报数", "reports of officers"), text("监督员上报数", "reports of officers"), which{}, nil, "", of("officer")},
	{"valid_report_rate", text("有效上报率", "valid reports"), text("监督员有效上报数", "accepted ones"), which{need: citywarden.MarkValid}, of("officer_reports"), citywarden.Higher, of("area", "officer")},
	{"missed_rate", text("漏报率", "missed by officers"), text("漏报数（有效公众举报）", "reported by citizens"), which{need: citywarden.MarkPublic}, of("filed_reports", "filed_by_people"), citywarden.Lower, of("area", "officer")},
	{"filing_rate", text("立案率", "filed"), text("立案数", "filed ones"), which{need: citywarden.MarkFiled}, of("valid_reports"), citywarden.Higher, of("area")},
	{"unclosed_rate", text("未结案率", "not closed"), text("未结案数", "open still"), which{need: citywarden.MarkOpen}, of("reports"), citywarden.Lower, of("area")},

	{"accepted", text("受理数", "taken up"), text("受理数", "taken up"), which{}, nil, "", of("acceptor")},
	{"accept_on_time_rate", text("按时受理率", "taken up on time"), text("按时受理数", "on time"), which{not: citywarden.MarkLate, states: done}, of("accepted", "to_accept"), citywarden.Higher, of("acceptor")},
	{"send_verify_on_time_rate", text("按时发核实率", "sent to verify on time"), text("按时发核实数", "on time"), which{not: citywarden.MarkLate}, of("verifications_sent"), citywarden.Higher, of("acceptor")},
	{"send_check_on_time_rate", text("按时发核查率", "sent to check on time"), text("按时发核查数", "on time"), which{not: citywarden.MarkLate, states: done}, of("checks_to_send"), citywarden.Higher, of("acceptor")},
	{"verify_on_time_rate", text("按时核实率", "verified on time"), text("按时核实数", "on time"), which{not: citywarden.MarkLate, states: done}, of("to_verify"), citywarden.Higher, of("officer")},
	{"check_on_time_rate", text("按时核查率", "checked on time"), text("按时核查数", "on time"), which{not: citywarden.MarkLate, states: done}, of("to_check"), citywarden.Higher, of("officer")},

	{"filed", text("立案数", "filed"), text("立案数", "filed"), which{}, nil, "", of("shift_leader")},
	{"file_on_time_rate", text("按时立案率", "filed on time"), text("按时立案数", "on time"), which{not: citywarden.MarkLate, states: done}, of("filed", "to_file"), citywarden.Higher, of("shift_leader")},
	{"file_accuracy_rate", text("准确立案率", "filed rightly"), text("立案后未作废数", "not voided later"), which{not: citywarden.MarkVoided}, of("filed"), citywarden.Higher, of("shift_leader")},
	{"close_prompt_rate", text("按时结案率", "closed promptly"), text("按时结案数", "within the limit of the stage"), which{not: citywarden.MarkTardy}, of("closed"), citywarden.Higher, of("shift_leader")},

	{"dispatched", text("派遣数", "dispatched"), text("派遣数", "dispatched"), which{}, nil, "", of("dispatcher")},
	{"dispatch_on_time_rate", text("按时派遣率", "dispatched on time"), text("按时派遣数", "on time"), which{not: citywarden.MarkLate, states: done}, of("to_dispatch", "due_to_dispatch"), citywarden.Higher, of("dispatcher")},
	{"dispatch_accuracy_rate", text("准确派遣率", "dispatched rightly"), text("准确派遣数", "not to another department later"), which{not: citywarden.MarkWrong, states: done}, of("to_dispatch", "due_to_dispatch", "dispatched"), citywarden.Higher, of("dispatcher")},
	// The other reading of 准确派遣率; it has weight where a city's rules of scoring give it some.
	{"dispatch_unreworked_rate", text("派遣未返工率", "dispatched, not done again"), text("派遣后未返工数", "not done again"), which{not: citywarden.MarkReworked, states: done}, of("to_dispatch", "due_to_dispatch", "dispatched"), citywarden.Higher, of("dispatcher")},

	{"handled", text("处置数", "handled"), text("处置数", "handled"), which{}, nil, "", of("area", "department", "handler")},
	{"handle_rate", text("处置率", "share handled"), text("处置数", "handled"), which{states: done}, of("to_handle", "with_department"), citywarden.Higher, of("area", "department")},
	{"handle_on_time_rate", text("按期处置率", "handled on time"), text("按期处置数", "on time"), which{not: citywarden.MarkLate, states: done}, of("to_handle", "with_department"), citywarden.Higher, of("area", "department", "handler")},
	{"overdue_rate", text("超期未处置率", "overdue"), text("超期待处置数", "not handled, overdue"), which{states: overdue}, of("to_handle", "with_department"), citywarden.Lower, of("area", "department")},
	{"extension_rate", text("延期率", "given more time"), text("延期数", "given more time"), which{need: citywarden.MarkExtended}, of("to_handle", "with_department"), citywarden.Lower, of("area", "department")},
	{"rework_rate", text("返工率", "reworked"), text("返工数", "done again"), which{need: citywarden.MarkReworked}, of("to_close", "to_handle", "with_department"), citywarden.Lower, of("area", "department")},

	{"closed", text("结案数", "closed"), text("结案数", "closed"), which{}, nil, "", of("area", "department")},
	{"close_rate", text("结案率", "share closed"), text("结案数", "closed"), which{states: done}, of("to_close"), citywarden.Higher, of("area", "department")},
	{"close_on_time_rate", text("按期结案率", "closed on time"), text("按期结案数", "within the handling limit"), which{not: citywarden.MarkLate, states: done}, of("to_close", "closed"), citywarden.Higher, of("area", "department")},
}

// Those that are evaluated, each with the column that its work is counted by.
var subjects = []subject{
	{"area", text("区域", "area"), citywarden.ByArea, citywarden.WorkByVillage},
	{"department", text("部门", "department"), citywarden.ByDepartment, citywarden.WorkByDepartment},
	{"acceptor", text("受理员", "acceptor"), citywarden.ByPost, citywarden.WorkByPerson},
	{"shift_leader", text("值班长", "shift leader"), citywarden.ByPost, citywarden.WorkByPerson},
	{"dispatcher", text("派遣员", "dispatcher"), citywarden.ByPost, citywarden.WorkByPerson},
	{"officer", text("网格监督员", "grid officer"), citywarden.ByPost, citywarden.WorkByPerson},
	{"handler", text("处置人员", "handler in a department"), citywarden.ByPost, citywarden.WorkByPerson},
}

// Weights returns the weights of composite scores, per cent, unless the
// configuration says otherwise. Those of the posts and of departments are in use
// in deployed systems; that of areas is ours.
func Weights() map[string]map[string]float64 {
	return map[string]map[string]float64{
		"area":         {"close_rate": 30, "close_on_time_rate": 30, "rework_rate": 20, "missed_rate": 20},
		"department":   {"handled": 10, "close_rate": 30, "handle_on_time_rate": 30, "rework_rate": 30},
		"acceptor":     {"accepted": 25, "send_verify_on_time_rate": 40, "send_check_on_time_rate": 35},
		"shift_leader": {"file_on_time_rate": 25, "file_accuracy_rate": 40, "close_prompt_rate": 35},
		"dispatcher":   {"dispatched": 20, "dispatch_on_time_rate": 40, "dispatch_accuracy_rate": 40},
		"officer":      {"valid_report_rate": 40, "missed_rate": 20, "verify_on_time_rate": 20, "check_on_time_rate": 20},
		"handler":      {"handle_on_time_rate": 100},
	}
}

// Volume returns what a count of cases is worth in a composite score unless the
// configuration says otherwise.
func Volume() []citywarden.VolumeStep {
	return []citywarden.VolumeStep{{From: 301, Score: 60}, {From: 501, Score: 75}, {From: 1201, Score: 90}, {From: 2001, Score: 100}}
}

// Denominators returns the denominator of each share that has a choice unless the
// configuration says otherwise.
func Denominators() map[string]string {
	out := map[string]string{}
	for _, x := range indicators {
		if len(x.of) > 1 {
			out[x.code] = x.of[0]
		}
	}
	return out
}

// grades are the grades of composite scores, the best first.
var grades = []citywarden.GradeRule{{Grade: "A", From: 90}, {Grade: "B", From: 75}, {Grade: "C", From: 60}, {Grade: "D", From: 40}, {Grade: "E", From: 0}}

// clause is where the indicators stand. Their formulas are those of deployed
// systems that name it; its text is not open.
const clause = "GB/T 30428.4-2016"

const (
	done    = citywarden.WorkDone
	overdue = citywarden.WorkOverdue
	pending = citywarden.WorkPending
)

// population is work of one kind, with marks and in states that it must have.
type population struct {
	code      string
	name      citywarden.Text
	kind      citywarden.WorkKind
	need, not citywarden.WorkMark
	states    citywarden.WorkStates
}

// which says which work of a denominator is in the numerator; no states for all.
type which struct {
	need, not citywarden.WorkMark
	states    citywarden.WorkStates
}

type indicator struct {
	code      string
	name      citywarden.Text
	numerator citywarden.Text
	which     which
	of        []string // denominators, the usual one first
	better    citywarden.Better
	subjects  []string // who is evaluated by it
}

type subject struct {
	code string
	name citywarden.Text
	by   citywarden.EvaluationBy
	key  citywarden.WorkKey
}

func text(zh, en string) citywarden.Text { return citywarden.Text{ZH: zh, EN: en} }

func of(codes ...string) []string { return codes }

func populationOf(code string) population {
	return populations[slices.IndexFunc(populations, func(p population) bool { return p.code == code })]
}

func (w which) holds(c citywarden.WorkCount) bool {
	return c.Marks&w.need == w.need && c.Marks&w.not == 0 && (w.states == 0 || w.states&c.State != 0)
}

func (p population) holds(c citywarden.WorkCount) bool {
	return which{p.need, p.not, p.states}.holds(c)
}

// Measures is how cases are evaluated.
type Measures struct {
	of      map[string]population // of each indicator
	weights map[string]map[string]float64
	volume  []citywarden.VolumeStep // the least first
}

// MeasureOptions are what may be chosen; what is left out is as usual.
type MeasureOptions struct {
	Denominators map[string]string             // of indicators, by code
	Weights      map[string]map[string]float64 // of indicators, by who is evaluated
	Volume       []citywarden.VolumeStep
}

// NewMeasures returns the measures that o chooses, or CodeInvalid.
func NewMeasures(o MeasureOptions) (*Measures, error) {
	m := &Measures{of: map[string]population{}, weights: Weights(), volume: Volume()}
	for _, x := range indicators {
		code := x.code
		if len(x.of) > 0 {
			code = x.of[0]
		}
		if chosen, ok := o.Denominators[x.code]; ok {
			if !slices.Contains(x.of, chosen) {
				return nil, citywarden.Errorf(citywarden.CodeInvalid, "denominators: %s of %s is not known; it may be %s", chosen, x.code, strings.Join(x.of, " or "))
			}
			code = chosen
		}
		m.of[x.code] = populationOf(code)
	}
	for _, code := range slices.Sorted(maps.Keys(o.Denominators)) {
		if usual := Denominators(); usual[code] == "" {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "denominators: %q has no choice; these have: %s", code, strings.Join(slices.Sorted(maps.Keys(usual)), ", "))
		}
	}
	for _, who := range slices.Sorted(maps.Keys(o.Weights)) {
		if err := checkWeights(who, o.Weights[who]); err != nil {
			return nil, err
		}
		m.weights[who] = o.Weights[who]
	}
	if o.Volume != nil {
		m.volume = o.Volume
	}
	for i, s := range m.volume {
		if s.From < 1 || s.Score < 0 || s.Score > 100 || i > 0 && s.From <= m.volume[i-1].From {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "volume: from %d, score %g: write steps of 1 case or more, the least first, with scores of 0 to 100", s.From, s.Score)
		}
	}
	return m, nil
}

func checkWeights(who string, weights map[string]float64) error {
	if !slices.ContainsFunc(subjects, func(s subject) bool { return s.code == who }) {
		var names []string
		for _, s := range subjects {
			names = append(names, s.code)
		}
		return citywarden.Errorf(citywarden.CodeInvalid, "weights: %q is not evaluated; these are: %s", who, strings.Join(names, ", "))
	}
	for _, code := range slices.Sorted(maps.Keys(weights)) {
		i := slices.IndexFunc(indicators, func(x indicator) bool { return x.code == code && slices.Contains(x.subjects, who) })
		if i < 0 {
			return citywarden.Errorf(citywarden.CodeInvalid, "weights of %s: %q is none of its indicators: %s", who, code, strings.Join(codesFor(who), ", "))
		}
		if w := weights[code]; !(w >= 0 && w <= 100) {
			return citywarden.Errorf(citywarden.CodeInvalid, "weights of %s: %s has %s; write 0 to 100", who, code, fmt.Sprint(w))
		}
	}
	return nil
}

// codesFor returns the indicators that somebody is evaluated by and that can be
// in a score: all.
func codesFor(who string) []string {
	var out []string
	for _, x := range indicators {
		if slices.Contains(x.subjects, who) {
			out = append(out, x.code)
		}
	}
	return out
}
