package network

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// sections are the sections of an input file, in the order in which one may name
// what another defines.
var sections = []struct {
	name string
	// read reads a line; nil passes over it.
	read func(*reader, line) error
	// with is a section whose lines are read with these, in the order of the file,
	// because that is the order of nodes and links.
	with string
}{
	{name: "OPTIONS", read: (*reader).option},
	{name: "PATTERNS", read: (*reader).pattern},
	{name: "CURVES", read: (*reader).curvePoint},
	{name: "JUNCTIONS", read: (*reader).junction},
	{name: "RESERVOIRS", read: (*reader).reservoir},
	{name: "TANKS", with: "RESERVOIRS"},
	{name: "PIPES", read: (*reader).link},
	{name: "PUMPS", with: "PIPES"},
	{name: "VALVES", with: "PIPES"},
	{name: "DEMANDS", read: (*reader).demand},
	{name: "EMITTERS", read: (*reader).emitter},
	{name: "STATUS", read: (*reader).status},
	{name: "TIMES", read: (*reader).time},
	{name: "CONTROLS", read: (*reader).control},
	{name: "RULES", read: (*reader).rule},
	{name: "COORDINATES", read: (*reader).coordinates},
	{name: "LEAKAGE", read: (*reader).leakage},
	{name: "TITLE"}, {name: "TAGS"}, {name: "ROUGHNESS"}, {name: "ENERGY"}, {name: "QUALITY"}, {name: "SOURCES"},
	{name: "REACTIONS"}, {name: "MIXING"}, {name: "REPORT"}, {name: "VERTICES"}, {name: "LABELS"}, {name: "BACKDROP"},
	{name: "END"},
}

// line is a line of the file without its comment.
type line struct {
	number  int
	section string
	words   []string
}

// word returns a word, "" if there are fewer.
func (l line) word(i int) string {
	if i < len(l.words) {
		return l.words[i]
	}
	return ""
}

// is reports whether word i begins with a keyword, in any case, as EPANET
// compares.
func (l line) is(i int, keyword string) bool { return begins(l.word(i), keyword) }

func begins(word, keyword string) bool {
	return len(word) >= len(keyword) && strings.EqualFold(word[:len(keyword)], keyword)
}

type reader struct {
	name  string
	n     *Network
	lines []line

	patternAt      map[string]int
	curves         map[string]curve
	defaultPattern string
	required       [2]float64 // pressure below which nothing, and from which all of a demand is served
	replaced       map[int]bool
	clause         ruleReader
}

// maxLine bounds a line of an input file; EPANET takes 1024.
const maxLine = 1 << 16

// Read reads an EPANET input file; name is what errors call it. What EPANET
// would refuse is an error that begins with name:line.
func Read(name string, f io.Reader) (*Network, error) {
	r := &reader{
		name: name,
		n: &Network{
			Units:    Units{Flow: "GPM"},
			Report:   time.Hour,
			nodeAt:   map[string]int{},
			linkAt:   map[string]int{},
			patterns: [][]float64{{1}},
			options:  defaults(),
		},
		patternAt: map[string]int{}, curves: map[string]curve{},
		defaultPattern: "1", required: [2]float64{0, minPressureRange},
		replaced: map[int]bool{},
	}
	if err := r.scan(f); err != nil {
		return nil, err
	}
	group := map[string]string{} // of each section, the one with which it is read
	for _, s := range sections {
		group[s.name] = cmp.Or(s.with, s.name)
	}
	for _, s := range sections {
		if s.name == "PATTERNS" { // the options are known, what follows needs their units
			r.n.setFactors()
		}
		for _, l := range r.lines {
			if s.read == nil || group[l.section] != s.name {
				continue
			}
			if err := s.read(r, l); err != nil {
				return nil, err
			}
		}
	}
	if err := r.finish(); err != nil {
		return nil, err
	}
	return r.n, nil
}

func (r *reader) fail(l line, format string, args ...any) error {
	return citywarden.Errorf(citywarden.CodeInvalid, "%s:%d: "+format, append([]any{r.name, l.number}, args...)...)
}

// scan splits the file into lines and words.
func (r *reader) scan(f io.Reader) error {
	in := bufio.NewScanner(f)
	in.Buffer(nil, maxLine)
	l := line{}
	var title []string
	for in.Scan() {
		l.number++
		text, _, _ := strings.Cut(in.Text(), ";")
		if l.number == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		l.words = words(text)
		switch {
		case len(l.words) == 0:
		case l.words[0][0] == '[':
			var err error
			if l.section, err = r.heading(l); err != nil {
				return err
			}
			if l.section == "END" {
				r.n.Title = strings.Join(title, "\n")
				return nil
			}
		case l.section == "TITLE":
			if len(title) < 3 {
				title = append(title, strings.TrimSpace(in.Text()))
			}
		case l.section == "":
			return r.fail(l, "this line is in no section; a file begins with one such as [JUNCTIONS]")
		default:
			r.lines = append(r.lines, l)
		}
	}
	r.n.Title = strings.Join(title, "\n")
	if err := in.Err(); errors.Is(err, bufio.ErrTooLong) {
		l.number++
		return r.fail(l, "the line is longer than %d bytes", maxLine)
	} else if err != nil {
		return citywarden.Errorf(citywarden.CodeInvalid, "read %s: %w", r.name, err)
	}
	return nil
}

// heading returns the section that begins with l. Its name stands in full, in
// any case and with anything after the bracket, as for EPANET 2.2 and later;
// before, the first four letters were enough.
func (r *reader) heading(l line) (string, error) {
	word := l.words[0]
	var names []string
	for _, s := range sections {
		if begins(word, "["+s.name+"]") {
			return s.name, nil
		}
		names = append(names, "["+s.name+"]")
	}
	for _, s := range sections {
		if begins(word, "["+s.name[:min(4, len(s.name))]) {
			return "", r.fail(l, "there is no section %q; did you mean \"[%s]\"? EPANET 2.3 wants the whole name", word, s.name)
		}
	}
	return "", r.fail(l, "there is no section %q%s", word, suggest(word, names))
}

// words splits at blanks; a word in quotes may hold some.
func words(s string) []string {
	if !strings.Contains(s, `"`) {
		return strings.Fields(s)
	}
	var out []string
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		if s[0] == '"' {
			word, rest, _ := strings.Cut(s[1:], `"`)
			if word != "" {
				out = append(out, word)
			}
			s = rest
			continue
		}
		end := strings.IndexAny(s, " \t\r\n\v\f")
		if end < 0 {
			end = len(s)
		}
		out, s = append(out, s[:end]), s[end:]
	}
	return out
}

// suggest returns what word was probably meant to be, or what is allowed.
func suggest(word string, allowed []string) string {
	if s := citywarden.DidYouMean(word, allowed); s != "" {
		return s
	}
	return "; allowed are " + strings.Join(allowed, ", ")
}

// choose returns the keyword with which word i begins.
func (r *reader) choose(l line, i int, what string, allowed ...string) (string, error) {
	for _, a := range allowed {
		if l.is(i, a) {
			return a, nil
		}
	}
	if l.word(i) == "" {
		return "", r.fail(l, "the %s is missing; allowed are %s", what, strings.Join(allowed, ", "))
	}
	return "", r.fail(l, "%s %q is not known%s", what, l.word(i), suggest(l.word(i), allowed))
}

// number returns word i as a number from least on.
func (r *reader) number(l line, i int, what string, least float64) (float64, error) {
	if l.word(i) == "" {
		return 0, r.fail(l, "the %s is missing", what)
	}
	v, err := parseNumber(l.word(i))
	if err != nil {
		return 0, r.fail(l, "%s %q is not a number", what, l.word(i))
	}
	if v < least {
		return 0, r.fail(l, "%s %s is below %g", what, l.word(i), least)
	}
	return v, nil
}

// optional is number with a default for a word that is not there.
func (r *reader) optional(l line, i int, what string, least, otherwise float64) (float64, error) {
	if l.word(i) == "" {
		return otherwise, nil
	}
	return r.number(l, i, what, least)
}

// positive is number for what must be above 0.
func (r *reader) positive(l line, i int, what string, otherwise float64) (float64, error) {
	v, err := r.optional(l, i, what, 0, otherwise)
	if err == nil && v <= 0 {
		return 0, r.fail(l, "%s %s must be above 0", what, l.word(i))
	}
	return v, err
}

// largest bounds numbers, so that sums and squares of them stay numbers.
const largest = 1e12

func parseNumber(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err == nil && !(math.Abs(v) <= largest) || strings.ContainsAny(s, "xX_") {
		err = strconv.ErrRange
	}
	return v, err
}

const (
	anything = -largest
	tiny     = 1e-6
)

func (r *reader) pattern(l line) error {
	if len(l.words) < 2 {
		return r.fail(l, "a pattern is: ID factor factor …")
	}
	at, ok := r.patternAt[l.words[0]]
	if !ok {
		at = len(r.n.patterns)
		r.patternAt[l.words[0]] = at
		r.n.patterns = append(r.n.patterns, nil)
	}
	for i := 1; i < len(l.words); i++ {
		v, err := r.number(l, i, "factor", anything)
		if err != nil {
			return err
		}
		r.n.patterns[at] = append(r.n.patterns[at], v)
	}
	return nil
}

// findPattern returns the pattern that word i names, 0 if there is no word.
func (r *reader) findPattern(l line, i int) (int, error) {
	if l.word(i) == "" {
		return 0, nil
	}
	at, ok := r.patternAt[l.words[i]]
	if !ok {
		return 0, r.fail(l, "there is no pattern %q in [PATTERNS]", l.words[i])
	}
	return at, nil
}

func (r *reader) curvePoint(l line) error {
	x, err := r.number(l, 1, "x of the curve", anything)
	if err != nil {
		return err
	}
	y, err := r.number(l, 2, "y of the curve", anything)
	if err != nil {
		return err
	}
	id := l.words[0]
	if c := r.curves[id]; len(c) > 0 && x <= c[len(c)-1][0] {
		return r.fail(l, "x of curve %s does not rise from %g to %g", id, c[len(c)-1][0], x)
	}
	r.curves[id] = append(r.curves[id], [2]float64{x, y})
	return nil
}

func (r *reader) findCurve(l line, i int, points int) (curve, error) {
	c, ok := r.curves[l.word(i)]
	if !ok {
		return nil, r.fail(l, "there is no curve %q in [CURVES]", l.word(i))
	}
	if len(c) < points {
		return nil, r.fail(l, "curve %s has %d point; at least %d are needed", l.word(i), len(c), points)
	}
	return c, nil
}

// addNode adds the node that l begins with.
func (r *reader) addNode(l line, kind Kind) (*node, error) {
	id := l.words[0]
	if _, ok := r.n.nodeAt[id]; ok {
		return nil, r.fail(l, "there are two nodes %s", id)
	}
	r.n.nodeAt[id] = len(r.n.nodes)
	r.n.nodes = append(r.n.nodes, node{id: id, kind: kind})
	return &r.n.nodes[len(r.n.nodes)-1], nil
}

func (r *reader) junction(l line) error {
	d, err := r.addNode(l, Junction)
	if err != nil {
		return err
	}
	r.n.junctions++
	if d.elevation, err = r.optional(l, 1, "elevation", anything, 0); err != nil {
		return err
	}
	d.elevation /= r.n.factors.length
	base, err := r.optional(l, 2, "demand", anything, 0)
	if err != nil {
		return err
	}
	pattern, err := r.findPattern(l, 3)
	d.demands = []demand{{base / r.n.factors.flow, pattern}}
	return err
}

func (r *reader) reservoir(l line) error {
	if len(l.words) > 3 { // which makes it a tank, wherever it stands
		return r.tank(l)
	}
	d, err := r.addNode(l, Reservoir)
	if err != nil {
		return err
	}
	if d.elevation, err = r.number(l, 1, "head", anything); err != nil {
		return err
	}
	d.elevation /= r.n.factors.length
	d.pattern, err = r.findPattern(l, 2)
	return err
}

func (r *reader) tank(l line) error {
	d, err := r.addNode(l, Tank)
	if err != nil {
		return err
	}
	if d.elevation, err = r.number(l, 1, "elevation", anything); err != nil {
		return err
	}
	var v [5]float64
	for i, what := range []string{"initial level", "minimum level", "maximum level", "diameter", "minimum volume"} {
		if i == 4 && l.word(6) == "" {
			break
		}
		if v[i], err = r.number(l, i+2, what, 0); err != nil {
			return err
		}
	}
	level, low, high, diameter, volume := v[0], v[1], v[2], v[3], v[4]
	if level < low || level > high {
		return r.fail(l, "tank %s begins at level %g, which is not between its minimum %g and maximum %g", d.id, level, low, high)
	}
	if diameter == 0 { // EPANET's way to write a reservoir here
		d.kind = Reservoir
		d.elevation /= r.n.factors.length
		return nil
	}
	f := r.n.factors.length
	// As headAt computes, so that a full tank is exactly as high as it can be.
	t := &tank{headMin: d.elevation/f + low/f, headMax: d.elevation/f + high/f, head: d.elevation/f + level/f}
	area := math.Pi * (diameter * diameter) / 4
	if volume == 0 {
		volume = area * low
	}
	volumes := [3]float64{volume, volume + area*(level-low), volume + area*(high-low)}
	if w := l.word(7); w != "" && w != "*" {
		if t.curve, err = r.findCurve(l, 7, 2); err != nil {
			return err
		}
		last := t.curve[len(t.curve)-1]
		if low < t.curve[0][0]-tiny || high > last[0]+tiny {
			return r.fail(l, "tank %s goes from %g to %g; curve %s only from %g to %g", d.id, low, high, w, t.curve[0][0], last[0])
		}
		for k := 1; k < len(t.curve); k++ {
			if t.curve[k][1] <= t.curve[k-1][1] {
				return r.fail(l, "the volume on curve %s of tank %s does not rise", w, d.id)
			}
		}
		volumes = [3]float64{t.curve.at(low), t.curve.at(level), t.curve.at(high)}
	}
	if l.word(8) != "" {
		yes, err := r.choose(l, 8, "overflow", "YES", "NO")
		if err != nil {
			return err
		}
		t.overflow = yes == "YES"
	}
	if t.curve == nil { // again as EPANET rounds
		t.area = math.Pi * ((diameter / f) * (diameter / f)) / 4
	}
	t.volumeMin, t.volume, t.volumeMax = volumes[0]/(f*f*f), volumes[1]/(f*f*f), volumes[2]/(f*f*f)
	d.elevation /= f
	d.tank = t
	return nil
}

// minor turns a loss coefficient of the velocity into one of the flow.
func minor(k, diameter float64) float64 {
	return 0.02517 * k / (diameter * diameter) / (diameter * diameter)
}

func (r *reader) link(l line) error {
	if len(l.words) < 3 {
		return r.fail(l, "a link is: ID node node …")
	}
	if _, ok := r.n.linkAt[l.words[0]]; ok {
		return r.fail(l, "there are two links %s", l.words[0])
	}
	k := link{id: l.words[0], status: open}
	for i, end := range []*int{&k.from, &k.to} {
		at, ok := r.n.nodeAt[l.words[i+1]]
		if !ok {
			return r.fail(l, "link %s: there is no node %q", k.id, l.words[i+1])
		}
		*end = at
	}
	if k.from == k.to {
		return r.fail(l, "link %s begins and ends at node %s", k.id, l.words[1])
	}
	read := map[string]func(line, *link) error{"PIPES": r.pipe, "PUMPS": r.pump, "VALVES": r.valve}[l.section]
	if err := read(l, &k); err != nil {
		return err
	}
	at := len(r.n.links)
	switch l.section {
	case "PUMPS":
		r.n.pumps = append(r.n.pumps, at)
	case "VALVES":
		r.n.valves = append(r.n.valves, at)
	}
	r.n.linkAt[k.id] = at
	r.n.links = append(r.n.links, k)
	return nil
}

func (r *reader) pipe(l line, k *link) (err error) {
	k.kind = Pipe
	length, diameter := 330.0, 10.0
	if r.n.Units.Metric {
		length, diameter = 100, 254
	}
	roughness := map[formula]float64{hazenWilliams: 130, darcyWeisbach: 0.0005, chezyManning: 0.01}[r.n.options.formula]
	if k.length, err = r.positive(l, 3, "length", length); err != nil {
		return err
	}
	if k.diameter, err = r.positive(l, 4, "diameter", diameter); err != nil {
		return err
	}
	if k.roughness, err = r.positive(l, 5, "roughness", roughness); err != nil {
		return err
	}
	loss, last := 0.0, 6
	if _, err := parseNumber(l.word(6)); err == nil || len(l.words) > 7 {
		if loss, err = r.number(l, 6, "minor loss", 0); err != nil {
			return err
		}
		last = 7
	}
	if l.word(last) != "" {
		s, err := r.choose(l, last, "status", "OPEN", "CLOSED", "CV")
		if err != nil {
			return err
		}
		switch s {
		case "CV":
			k.kind = CheckValve
		case "CLOSED":
			k.status = closed
		}
	}
	k.length /= r.n.factors.length
	k.diameter /= r.n.factors.diameter
	if r.n.options.formula == darcyWeisbach {
		k.roughness /= 1000 * r.n.factors.length
	}
	k.minor = minor(loss, k.diameter)
	k.friction = r.n.options.friction(k)
	k.setting = k.roughness
	return nil
}

func (r *reader) pump(l line, k *link) (err error) {
	k.kind, k.setting, k.pump = Pump, 1, &pump{}
	p := k.pump
	if len(l.words) == 3 || len(l.words)%2 == 0 {
		return r.fail(l, "a pump is: ID node node KEYWORD value …, with the keywords HEAD curve, POWER value, SPEED value, PATTERN id")
	}
	for i := 3; i < len(l.words); i += 2 {
		word, err := r.choose(l, i, "keyword", "HEAD", "POWER", "SPEE", "PATT")
		if err != nil {
			return err
		}
		switch word {
		case "HEAD":
			if p.curve, err = r.findCurve(l, i+1, 1); err != nil {
				return err
			}
		case "POWER":
			if p.power, err = r.positive(l, i+1, "power", 0); err != nil {
				return err
			}
		case "SPEE":
			if k.setting, err = r.number(l, i+1, "speed", 0); err != nil {
				return err
			}
		case "PATT":
			if p.pattern, err = r.findPattern(l, i+1); err != nil {
				return err
			}
		}
	}
	return r.shape(l, k.id, p)
}

// shape finds the curve of a pump.
func (r *reader) shape(l line, id string, p *pump) error {
	f := r.n.factors
	c := p.curve
	var q1, q2, h0, h1, h2 float64
	switch {
	case c == nil && p.power > 0:
		p.kind = constantPower
		// EPANET 2.3 turns kW into horsepower twice, so that in metric files the pump
		// is a third stronger than written. Its results are the measure here.
		p.r, p.n = 8.814*p.power/f.power/f.power, -1
		p.headMax, p.flowMax, p.flow = missing*missing, missing*missing, 1
		return nil
	case c == nil:
		return r.fail(l, "pump %s has no HEAD curve and no POWER", id)
	case len(c) == 1:
		q1, h1 = c[0][0], c[0][1]
		h0, q2, h2 = 1.33334*h1, 2*q1, 0
	case len(c) == 3 && c[0][0] == 0:
		h0, q1, h1, q2, h2 = c[0][1], c[1][0], c[1][1], c[2][0], c[2][1]
	default:
		for k := 1; k < len(c); k++ {
			if c[k][1] >= c[k-1][1] {
				return r.fail(l, "the head on the curve of pump %s does not fall", id)
			}
		}
		last := c[len(c)-1]
		p.kind = pointCurve
		p.flow, p.flowMax, p.headMax = (c[0][0]+last[0])/2/f.flow, last[0]/f.flow, c[0][1]/f.length
		return nil
	}
	bad := h0 < tiny || h0-h1 < tiny || h1-h2 < tiny || q1 < tiny || q2-q1 < tiny
	var b, n float64
	if !bad {
		n = math.Log((h0-h2)/(h0-h1)) / math.Log(q2/q1)
		b = (h0 - h1) / math.Pow(q1, n)
		bad = !(n > 0 && n <= 20 && b > 0)
	}
	if bad {
		return r.fail(l, "no pump has a curve as that of pump %s; the head must fall, and ever faster, as the flow rises", id)
	}
	p.kind = powerCurve
	p.shutoff, p.r, p.n = h0/f.length, b*math.Pow(f.flow, n)/f.length, n
	p.flow, p.flowMax, p.headMax = q1/f.flow, math.Pow(h0/b, 1/n)/f.flow, h0/f.length
	return nil
}

func (r *reader) valve(l line, k *link) error {
	k.status = active
	var err error
	if k.diameter, err = r.positive(l, 3, "diameter", 0); err != nil {
		return err
	}
	if l.is(4, "PCV") {
		return r.fail(l, "valve %s: valves of type PCV are not supported; use a TCV or a GPV", k.id)
	}
	kind, err := r.choose(l, 4, "type of valve", "PRV", "PSV", "PBV", "FCV", "TCV", "GPV")
	if err != nil {
		return err
	}
	k.kind = Kind(strings.ToLower(kind))
	if k.kind == GPV {
		k.status = open
		if k.curve, err = r.findCurve(l, 5, 2); err != nil {
			return err
		}
	} else if k.setting, err = r.optional(l, 5, "setting", anything, 0); err != nil {
		return err
	}
	loss, err := r.optional(l, 6, "minor loss", 0, 0)
	if err != nil {
		return err
	}
	k.diameter /= r.n.factors.diameter
	k.minor = minor(loss, k.diameter)
	k.setting = r.n.settingIn(k, k.setting)
	return r.checkValve(l, k)
}

// settingIn turns the setting of a link from the units of the file.
func (n *Network) settingIn(k *link, v float64) float64 { return v / n.settingFactor(k) }

func (n *Network) settingFactor(k *link) float64 {
	switch k.kind {
	case PRV, PSV, PBV:
		return n.factors.pressure
	case FCV:
		return n.factors.flow
	}
	return 1
}

// checkValve refuses the connections that have no solution.
func (r *reader) checkValve(l line, k *link) error {
	if k.kind != PRV && k.kind != PSV && k.kind != FCV {
		return nil
	}
	if k.from >= r.n.junctions || k.to >= r.n.junctions {
		return r.fail(l, "valve %s: a %s must not be connected to a tank or a reservoir; put a pipe between them", k.id, strings.ToUpper(string(k.kind)))
	}
	for _, i := range r.n.valves {
		v := &r.n.links[i]
		bad := false
		switch {
		case k.kind == PRV && v.kind == PRV:
			bad = v.to == k.to || v.to == k.from || v.from == k.to
		case k.kind == PSV && v.kind == PSV:
			bad = v.from == k.from || v.from == k.to || v.to == k.from
		case k.kind == PRV && v.kind == PSV:
			bad = v.from == k.to
		case k.kind == PSV && v.kind == PRV:
			bad = v.to == k.from
		case k.kind == FCV && v.kind == PSV:
			bad = v.from == k.to
		case k.kind == FCV && v.kind == PRV:
			bad = v.to == k.from
		case k.kind == PSV && v.kind == FCV:
			bad = v.to == k.from
		case k.kind == PRV && v.kind == FCV:
			bad = v.from == k.to
		}
		if bad {
			return r.fail(l, "valves %s and %s: a %s and a %s must not share this node; put a pipe between them",
				v.id, k.id, strings.ToUpper(string(v.kind)), strings.ToUpper(string(k.kind)))
		}
	}
	return nil
}

// findNode returns the node that word i names.
func (r *reader) findNode(l line, i int) (int, error) {
	at, ok := r.n.nodeAt[l.word(i)]
	if !ok {
		return 0, r.fail(l, "there is no node %q", l.word(i))
	}
	return at, nil
}

func (r *reader) findLink(l line, i int) (int, error) {
	at, ok := r.n.linkAt[l.word(i)]
	if !ok {
		return 0, r.fail(l, "there is no link %q", l.word(i))
	}
	return at, nil
}

func (r *reader) demand(l line) error {
	base, err := r.number(l, 1, "demand", anything)
	if err != nil {
		return err
	}
	at, err := r.findNode(l, 0)
	if err != nil || at >= r.n.junctions {
		return err
	}
	pattern, err := r.findPattern(l, 2)
	d := demand{base / r.n.factors.flow, pattern}
	if !r.replaced[at] { // the first replaces what [JUNCTIONS] said
		r.replaced[at] = true
		r.n.nodes[at].demands = nil
	}
	r.n.nodes[at].demands = append(r.n.nodes[at].demands, d)
	return err
}

func (r *reader) emitter(l line) error {
	at, err := r.findNode(l, 0)
	if err != nil || at >= r.n.junctions {
		return err
	}
	r.n.nodes[at].discharge, err = r.number(l, 1, "coefficient", 0)
	return err
}

func (r *reader) leakage(l line) error {
	return r.fail(l, "leakage by area and expansion is not supported; give the nodes a coefficient in [EMITTERS]")
}

func (r *reader) coordinates(l line) error {
	at, ok := r.n.nodeAt[l.word(0)]
	if !ok {
		return nil // for drawing only, EPANET does not mind either
	}
	x, errX := parseNumber(l.word(1))
	y, errY := parseNumber(l.word(2))
	if errX == nil && errY == nil {
		r.n.nodes[at].x, r.n.nodes[at].y = x, y
	}
	return nil
}

func (r *reader) status(l line) error {
	last := len(l.words) - 1
	if last < 1 {
		return r.fail(l, "a status is: link OPEN, link CLOSED or link setting")
	}
	s, value := active, 0.0
	switch {
	case l.is(last, "OPEN"):
		s = open
	case l.is(last, "CLOSED"):
		s = closed
	default:
		var err error
		if value, err = r.number(l, last, "status or setting", 0); err != nil {
			return err
		}
	}
	if last == 1 {
		at, err := r.findLink(l, 0)
		if err != nil {
			return err
		}
		k := &r.n.links[at]
		if k.kind == CheckValve || k.kind == GPV && s == active {
			return r.fail(l, "the status of %s %s cannot be set so", strings.ToUpper(string(k.kind)), k.id)
		}
		r.setStatus(k, s, value)
		return nil
	}
	// Of a range of links: by number if both ends are numbers, otherwise by letters.
	low, high := integer(l.words[0]), integer(l.words[1])
	for i := range r.n.links {
		k := &r.n.links[i]
		in := k.id >= l.words[0] && k.id <= l.words[1]
		if low > 0 && high > 0 {
			in = integer(k.id) >= low && integer(k.id) <= high
		}
		if in {
			r.setStatus(k, s, value)
		}
	}
	return nil
}

// integer returns the number that s begins with, 0 if none.
func integer(s string) int {
	end := strings.IndexFunc(s, func(c rune) bool { return c < '0' || c > '9' })
	if end < 0 {
		end = len(s)
	}
	v, _ := strconv.Atoi(s[:end])
	return v
}

func (r *reader) setStatus(k *link, s status, value float64) {
	switch {
	case k.kind == CheckValve:
	case k.kind == Pipe || k.kind == GPV:
		if s != active {
			k.status = s
		}
	case k.kind == Pump:
		k.setting = map[status]float64{open: 1, closed: 0, active: value}[s]
		k.status = open
		if s == closed || s == active && value == 0 {
			k.status = closed
		}
	default:
		if s == active {
			k.setting = r.n.settingIn(k, value)
		}
		k.status = s
	}
}

// finish completes what needs the whole file.
func (r *reader) finish() error {
	n := r.n
	end := line{number: 1}
	switch {
	case len(n.nodes) < 2:
		return r.fail(end, "the network has %d nodes; it needs at least 2", len(n.nodes))
	case n.junctions == len(n.nodes):
		return r.fail(end, "the network has no reservoir and no tank")
	case r.clause.state != "" && r.clause.state != "THEN" && r.clause.state != "ELSE" && r.clause.state != "PRIO":
		return r.fail(r.clause.line, "the rule has no THEN")
	}
	linked := make([]bool, len(n.nodes))
	edges := make([][2]int, len(n.links))
	for i := range n.links {
		k := &n.links[i]
		linked[k.from], linked[k.to] = true, true
		edges[i] = [2]int{k.from, k.to}
		for end := range edges[i] {
			if edges[i][end] >= n.junctions {
				edges[i][end] = -1
			}
		}
	}
	for _, l := range r.lines {
		if at, ok := n.nodeAt[l.words[0]]; ok && l.section == "JUNCTIONS" && !linked[at] {
			return r.fail(l, "junction %s has no link", l.words[0])
		}
	}
	o := &n.options
	o.pattern = r.patternAt[r.defaultPattern] // 0, always 1, if there is none
	o.pressureMin, o.pressureFull = r.required[0]/n.factors.pressure, r.required[1]/n.factors.pressure
	o.flowChange /= n.factors.flow
	o.headError /= n.factors.length
	// EPANET's order of corrections.
	if o.hydraulicStep > o.patternStep {
		o.hydraulicStep = o.patternStep
	}
	if o.hydraulicStep > o.reportStep {
		o.hydraulicStep = o.reportStep
	}
	if o.ruleStep == 0 {
		o.ruleStep = max(o.hydraulicStep/10, 1)
	}
	o.ruleStep = min(o.ruleStep, o.hydraulicStep)
	n.Duration = time.Duration(o.duration) * time.Second
	n.Report = time.Duration(o.reportStep) * time.Second
	n.matrix = analyse(n.junctions, edges)
	return nil
}
