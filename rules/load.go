package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/citywarden/citywarden"
)

// Schema tells what the models of devices measure and can be configured with.
type Schema interface {
	Model(citywarden.ModelName) (*citywarden.Model, bool)
}

// Set is a checked and compiled collection of rules. It never changes; several
// engines may share it.
type Set struct {
	rules  []*rule // as written
	storms []*rule // of the alarms that their storms raise
	byID   map[citywarden.RuleID]*rule
	plans  map[citywarden.ModelName]*plan
	order  []*plan // by index
	tests  []testCase
	values int // in the inputs of the tests
	schema Schema
	warn   citywarden.Problems
}

// rule is a rule as loaded.
type rule struct {
	citywarden.Rule
	index      int
	where      expression
	groupBy    string // the attribute that members share; "" for a rule per device
	groupAt    node   // where that is said
	late       int64  // ms
	levels     []level
	clear      *clause // nil: a level ends when its own condition is false
	latch      bool
	schedule   *schedule
	flap       *flap
	storm      *storm
	of         *rule // the rule whose storms this one raises; nil for one that was written
	inhibitors []inhibitor
	order      *caseOrder
	node       node
	wrong      bool // does not compile
	silent     bool // uses silent()
	arrival    bool // uses silent() or skew(): runs on the arrival clock
}

// expression is a condition as written.
type expression struct {
	text string
	node node
}

// clause is a condition and how long it has to hold.
type clause struct {
	when expression
	hold int64 // ms
}

type level struct {
	severity citywarden.Severity
	clause
	clear *clause // nil: the rule's
}

type flap struct {
	changes int
	in      int64
}

type storm struct {
	node     node
	by       string
	over     int
	in       int64
	raise    citywarden.RuleID
	severity citywarden.Severity
	title    citywarden.Text
	parent   *rule // of its alarms
}

type inhibitor struct {
	rule  citywarden.RuleID
	at    node
	equal []string // attributes
	said  []node   // where
}

// caseOrder is the case or workorder of a rule, its templates not filled in.
type caseOrder struct {
	citywarden.CaseOrder // without Key and Parent
	classAt              node
	key                  template
	parent               template // of the case of the rule's storms
	receivers            []node   // that are named by Escalate
	hold, close          node     // where they were said
}

// Limits of one set.
const (
	maxFileSize = 1 << 20
	maxRules    = 20000
)

// Limits of one rule.
const (
	maxLevels      = 8
	maxFlaps       = 1000 // changes, whose times an instance remembers
	maxCount       = 1_000_000
	maxIntervals   = 32
	maxInhibitors  = 32
	maxEqual       = 8
	maxEscalations = 32
	maxTemplate    = 1000 // characters
)

var (
	ruleID    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	classCode = regexp.MustCompile(`^(component|event)/[0-9]{4}(@cjt214)?$`)
	attrName  = regexp.MustCompile(`^attr\.([A-Za-z_][A-Za-z0-9_]*)$`)
)

// Load reads all *.yaml files in fsys and its folders, checks them against the
// models and compiles them. Either every file is right, or the error is
// CodeInvalid and unwraps to citywarden.Problems, which lists every mistake with file,
// line, column and, where there is one, a suggestion; WarningsOf has what is doubtful
// besides. It does not run the tests in the files; see Test.
func Load(fsys fs.FS, schema Schema) (*Set, error) {
	s := &Set{byID: map[citywarden.RuleID]*rule{}, plans: map[citywarden.ModelName]*plan{}, schema: schema}
	var found citywarden.Problems
	files, err := Files(fsys)
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		text, err := readRuleFile(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("read rule file: %w", err)
		}
		src := newSource(name, text, &found)
		if len(text) > maxFileSize {
			src.report(1, 1, "the file is larger than %d bytes; split it", maxFileSize)
			continue
		}
		if root, ok := src.parse(text); ok {
			s.file(root)
		}
	}
	if len(s.rules) > maxRules {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "%d rules; at most %d can be loaded", len(s.rules), maxRules)
	}
	s.compile()
	doubts := len(s.warn) // those before may come of rules that are missing
	if len(found) < maxProblems {
		s.lint()
	}
	for i := range s.tests {
		s.checkTest(&s.tests[i])
	}
	sortProblems(found)
	if len(found) > 0 {
		sortProblems(s.warn[doubts:])
		return nil, &refusal{citywarden.Errorf(citywarden.CodeInvalid, "%w", found), s.warn[doubts:]}
	}
	sortProblems(s.warn)
	return s, nil
}

// refusal is the error of Load.
type refusal struct {
	error
	warnings citywarden.Problems
}

func (r *refusal) Unwrap() error { return r.error }

// WarningsOf returns what is doubtful in the rules without mistakes, of those that
// Load refused with err.
func WarningsOf(err error) citywarden.Problems {
	var r *refusal
	if errors.As(err, &r) {
		return r.warnings
	}
	return nil
}

// Files returns the names of the rule files in fsys and its folders, in order.
// Hidden files are none: editors keep their own there.
func Files(fsys fs.FS) ([]string, error) {
	var files []string
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && name != ".": // gone since its folder was listed
			return nil
		case err != nil:
			return err
		case strings.HasPrefix(d.Name(), ".") && name != ".":
			if d.IsDir() {
				return fs.SkipDir
			}
		case !d.IsDir() && (strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")):
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list rule files: %w", err)
	}
	slices.Sort(files)
	return files, nil
}

// readRuleFile returns the text of a file, not more of it than shows that it is
// too large.
func readRuleFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFileSize+1))
}

// Len returns how many rules were written.
func (s *Set) Len() int { return len(s.rules) }

// Rules returns the rules in the order of the files, then those of their storms.
func (s *Set) Rules() []citywarden.Rule {
	out := make([]citywarden.Rule, len(s.rules)+len(s.storms))
	for i, r := range slices.Concat(s.rules, s.storms) {
		out[i] = r.Rule
		out[i].Models = slices.Clone(r.Models)
	}
	return out
}

// Untested lists the rules that no test expects anything of.
func (s *Set) Untested() citywarden.Problems {
	tested := map[citywarden.RuleID]bool{}
	for i := range s.tests {
		for _, x := range s.tests[i].expect {
			tested[x.none], tested[x.alarm] = true, true
		}
	}
	var out citywarden.Problems
	for _, r := range s.rules {
		if !tested[r.ID] {
			r.node.into(&out).report("no test expects anything of rule %s", r.ID)
		}
	}
	return out
}

// Warnings are parts of rules that are right but that a rule engineer should
// look at: an inhibitor that does not exist, a rule that is never evaluated.
func (s *Set) Warnings() citywarden.Problems { return s.warn }

// CheckClasses asks check about the class of every case and work order. Its
// error is CodeInvalid and unwraps to citywarden.Problems, as Load's.
func (s *Set) CheckClasses(check func(citywarden.ClassCode) error) error {
	var found citywarden.Problems
	for _, r := range s.rules {
		if r.order == nil || r.order.Class == "" {
			continue
		}
		if err := check(r.order.Class); err != nil {
			r.order.classAt.into(&found).report("%v", err)
		}
	}
	if len(found) > 0 {
		return citywarden.Errorf(citywarden.CodeInvalid, "%w", found)
	}
	return nil
}

func (s *Set) warning(n node, format string, args ...any) {
	n.into(&s.warn).report(format, args...)
}

// into returns n with its reports going to found.
func (n node) into(found *citywarden.Problems) node {
	other := *n.src
	other.found = found
	n.src = &other
	return n
}

func (s *Set) file(root node) {
	for _, f := range root.fields(fileShape) {
		switch f.name {
		case "rules":
			for _, it := range f.val.items("rules") {
				if it.src.full() {
					return
				}
				s.rule(it)
			}
		case "tests":
			for _, it := range f.val.items("tests") {
				if it.src.full() {
					return
				}
				s.test(it)
			}
		}
	}
}

func (s *Set) rule(n node) {
	before := len(*n.src.found)
	r := &rule{node: n, Rule: citywarden.Rule{Mode: "live", File: n.src.name}}
	r.Line, _ = n.pos()
	r.Text = n.text0()
	sum := sha256.Sum256([]byte(r.Text))
	r.Version = hex.EncodeToString(sum[:6])
	var clear *clause
	for _, f := range n.fields(ruleShape) {
		switch f.name {
		case "id":
			id, ok := f.val.text("id")
			if ok && !ruleID.MatchString(id) {
				f.val.report("rule id %q: use 1 to 64 small letters, digits, '.', '_' or '-'", id)
			}
			r.ID = citywarden.RuleID(id)
			if old := s.byID[r.ID]; old != nil && ok {
				f.val.report("rule %s is there already, in %s:%d; each rule has an id of its own", id, old.File, old.Line)
			}
		case "title":
			r.Title = f.val.title("title")
		case "mode":
			r.Mode, _ = f.val.text("mode")
			if !slices.Contains(ruleShape.enum("mode"), r.Mode) {
				f.val.report("unknown mode %q%s", r.Mode, choices(r.Mode, ruleShape.enum("mode"), "it is one of"))
			}
		case "select":
			s.selection(r, f.val)
		case "group":
			for _, g := range f.val.fields(groupShape) {
				r.groupBy, r.groupAt = g.val.attribute("group.by"), g.val
			}
			if r.groupBy == "" && len(*n.src.found) == before {
				f.val.report("group needs by, like group: {by: attr.zone}")
			}
		case "late":
			r.late = f.val.duration("late").Std().Milliseconds()
		case "levels":
			s.levels(r, f.val)
		case "clear":
			clear = f.val.clause("clear")
		case "latch":
			r.latch = f.val.bool("latch")
		case "schedule":
			r.schedule = f.val.schedule()
		case "flap":
			r.flap = f.val.flap()
		case "storm":
			r.storm = f.val.storm()
		case "inhibit_by":
			for _, it := range f.val.items("inhibit_by") {
				r.inhibitors = append(r.inhibitors, it.inhibitor())
			}
		case "case", "workorder":
			if r.order != nil {
				f.key.report("a rule has a case or a workorder, not both")
			}
			r.order = s.caseOrder(f)
		}
	}
	r.clear = clear
	missing := func(what, hint string) { n.report("rule %s needs %s, like %s", orUnnamed(r.ID), what, hint) }
	switch {
	case r.ID == "":
		missing("an id", "id: fire.zone-smoke")
	case len(r.Models) == 0 && len(*n.src.found) == before:
		missing("select with a model", "select: {model: [smoke-detector]}")
	case len(r.levels) == 0 && len(*n.src.found) == before:
		missing("levels", `levels: [{severity: major, when: "pressure < 2"}]`)
	}
	if r.Title == (citywarden.Text{}) {
		r.Title = citywarden.Text{ZH: string(r.ID), EN: string(r.ID)}
	}
	if len(*n.src.found) > before {
		return
	}
	r.index = len(s.rules)
	s.rules = append(s.rules, r)
	s.byID[r.ID] = r
}

func orUnnamed(id citywarden.RuleID) string {
	if id == "" {
		return "without a name"
	}
	return string(id)
}

// text0 returns the YAML text of n: its lines down to the next item.
func (n node) text0() string {
	line, col := n.pos()
	if line > len(n.src.lines) {
		return ""
	}
	end := line
	for end < len(n.src.lines) {
		l := n.src.lines[end]
		t := strings.TrimLeft(l, " ")
		if t != "" && !strings.HasPrefix(t, "#") && len(l)-len(t) < col-1 {
			break
		}
		end++
	}
	for end > line { // blank lines and comments at the end belong to what follows
		t := strings.TrimSpace(n.src.lines[end-1])
		if t != "" && !strings.HasPrefix(t, "#") {
			break
		}
		end--
	}
	return strings.Join(n.src.lines[line-1:end], "\n") + "\n"
}

func (n node) title(what string) citywarden.Text {
	if t, ok := n.scalar(); ok {
		return citywarden.Text{ZH: t, EN: t}
	}
	var t citywarden.Text
	for _, f := range n.fields(titleShape.as(what)) {
		v, _ := f.val.text(what + "." + f.name)
		if f.name == "zh" {
			t.ZH = v
		} else {
			t.EN = v
		}
	}
	return t
}

// attribute reads "attr.name" and returns name.
func (n node) attribute(what string) string {
	v, ok := n.text(what)
	if !ok {
		return ""
	}
	m := attrName.FindStringSubmatch(v)
	if m == nil {
		n.report("%s names an attribute, like attr.zone", what)
		return ""
	}
	return m[1]
}

func (s *Set) selection(r *rule, n node) {
	for _, f := range n.fields(selectShape) {
		switch f.name {
		case "where":
			if t, ok := f.val.text("where"); ok {
				r.where = expression{t, f.val}
			}
		case "model":
			items := []node{f.val}
			if _, ok := f.val.scalar(); !ok {
				items = f.val.items("select.model")
			}
			for _, it := range items {
				v, ok := it.text("select.model")
				if !ok {
					continue
				}
				name := citywarden.ModelName(v)
				m, known := s.schema.Model(name)
				switch {
				case !known:
					it.report("no model %q%s", v, citywarden.DidYouMean(v, s.modelNames()))
				case slices.Contains(r.Models, name):
					it.report("model %s is selected twice", v)
				default:
					r.Models = append(r.Models, name)
					s.plan(m)
				}
			}
			if len(items) == 0 {
				f.val.report("select.model is empty")
			}
		}
	}
}

// models returns all models, or those that rules select if the schema doesn't tell them.
func (s *Set) models() []citywarden.Model {
	if l, ok := s.schema.(interface{ All() []citywarden.Model }); ok {
		return l.All()
	}
	var out []citywarden.Model
	for _, p := range s.order {
		out = append(out, *p.model)
	}
	return out
}

// modelNames returns the names of all models as far as the schema tells them.
func (s *Set) modelNames() []string {
	var out []string
	for _, m := range s.models() {
		out = append(out, string(m.Name))
	}
	return out
}

func (n node) clause(what string) *clause {
	if _, ok := n.scalar(); ok {
		n.report("%s is a mapping, like %s: {when: 'pressure > 3', for: 5m}", what, what)
		return nil
	}
	var c clause
	for _, f := range n.fields(clauseShape.as(what)) {
		switch f.name {
		case "when":
			if t, ok := f.val.text(what + ".when"); ok {
				c.when = expression{t, f.val}
			}
		case "for":
			c.hold = f.val.duration(what + ".for").Std().Milliseconds()
		}
	}
	if c.when.text == "" {
		n.report("%s needs when, the condition", what)
		return nil
	}
	return &c
}

func (s *Set) levels(r *rule, n node) {
	for _, it := range n.items("levels") {
		var l level
		before := len(*n.src.found)
		for _, f := range it.fields(levelShape) {
			switch f.name {
			case "severity":
				l.severity = f.val.severity()
				for _, o := range r.levels {
					if o.severity == l.severity && l.severity != 0 {
						f.val.report("severity %s has a level already; join the two conditions with or", l.severity)
					}
				}
			case "when":
				if t, ok := f.val.text("when"); ok {
					l.when = expression{t, f.val}
				}
			case "for":
				l.hold = f.val.duration("for").Std().Milliseconds()
			case "clear":
				l.clear = f.val.clause("clear")
			}
		}
		switch {
		case len(*n.src.found) > before:
		case l.when.text == "":
			it.report("a level needs when, the condition")
		case l.severity == 0:
			it.report("a level needs severity: critical, major, minor, warning or indeterminate")
		default:
			r.levels = append(r.levels, l)
			r.Severity = max(r.Severity, l.severity)
		}
	}
}

func (n node) severity() citywarden.Severity {
	t, ok := n.text("severity")
	if !ok {
		return 0
	}
	sev, err := citywarden.ParseSeverity(t)
	if err != nil {
		n.report("unknown severity %q%s", t, choices(t, levelShape.enum("severity"), "it is one of"))
	}
	return sev
}

func (n node) schedule() *schedule {
	s := &schedule{}
	tz, given := DefaultZone, false
	at := n
	for _, f := range n.fields(scheduleShape) {
		switch f.name {
		case "tz":
			tz, _ = f.val.text("tz")
			at = f.val
		case "active":
			given = !f.val.empty() // what else is wrong with it is reported here
			if t, ok := f.val.scalar(); ok {
				f.val.report("schedule.active is a list, like active: [%q]", t)
				continue
			}
			for _, it := range f.val.items("schedule.active") {
				if t, ok := it.text("an interval"); ok {
					iv, err := parseInterval(t)
					if err != nil {
						it.report("%v", err)
					}
					s.intervals = append(s.intervals, iv)
				}
			}
		case "holidays":
			s.holidays, _ = f.val.text("holidays")
			if !slices.Contains(scheduleShape.enum("holidays"), s.holidays) {
				f.val.report("unknown holidays %q%s", s.holidays, choices(s.holidays, scheduleShape.enum("holidays"), "it is one of"))
			}
		}
	}
	loc, err := time.LoadLocation(tz)
	if err != nil || tz == "" || tz == "Local" {
		at.report("no time zone %q; write it like Asia/Shanghai", tz)
		loc = time.UTC
	}
	s.loc = loc
	if len(s.intervals) == 0 && !given {
		n.report(`schedule needs active, like active: ["mon-fri 08:00-18:00"]`)
	}
	return s
}

func (n node) flap() *flap {
	var x flap
	for _, f := range n.fields(flapShape) {
		switch f.name {
		case "changes":
			x.changes = f.val.int("flap.changes", 2, maxFlaps)
		case "in":
			x.in = f.val.duration("flap.in").Std().Milliseconds()
		case "then":
			if t, ok := f.val.text("flap.then"); ok && t != "hold" {
				f.val.report("flap.then %q; it is hold", t)
			}
		}
	}
	if x.changes == 0 || x.in == 0 {
		n.report("flap needs changes and in, like {changes: 6, in: 10m, then: hold}")
	}
	return &x
}

func (n node) storm() *storm {
	x := storm{node: n}
	for _, f := range n.fields(stormShape) {
		switch f.name {
		case "title":
			x.title = f.val.title("storm.title")
		case "by":
			x.by = f.val.attribute("storm.by")
		case "over":
			x.over = f.val.int("storm.over", 1, maxCount)
		case "in":
			x.in = f.val.duration("storm.in").Std().Milliseconds()
		case "raise":
			id, ok := f.val.text("storm.raise")
			if ok && !ruleID.MatchString(id) {
				f.val.report("rule id %q: use 1 to 64 small letters, digits, '.', '_' or '-'", id)
			}
			x.raise = citywarden.RuleID(id)
		case "severity":
			x.severity = f.val.severity()
		}
	}
	if x.by == "" || x.over == 0 || x.in == 0 || x.raise == "" || x.severity == 0 {
		n.report("storm needs by, over, in, raise and severity, like {by: attr.district, over: 20, in: 2m, raise: power.district-outage, severity: critical}")
	}
	return &x
}

func (n node) inhibitor() inhibitor {
	var x inhibitor
	for _, f := range n.fields(inhibitorShape) {
		switch f.name {
		case "rule":
			id, _ := f.val.text("inhibit_by.rule")
			x.rule, x.at = citywarden.RuleID(id), f.val
		case "equal":
			for _, it := range f.val.items("inhibit_by.equal") {
				if a := it.attribute("inhibit_by.equal"); a != "" {
					x.equal, x.said = append(x.equal, a), append(x.said, it)
				}
			}
		}
	}
	if x.rule == "" {
		n.report("an inhibitor needs rule, like {rule: gateway.offline, equal: [attr.gateway]}")
	}
	return x
}

func (s *Set) caseOrder(f field) *caseOrder {
	o := &caseOrder{}
	o.WorkOrder = f.name == "workorder"
	for _, g := range f.val.fields(orderShape.as(f.name)) {
		switch g.name {
		case "class":
			v, ok := g.val.text("class")
			if ok && !classCode.MatchString(v) {
				g.val.report("class %q; write it like event/0595 or component/0101 (GB/T 30428.2)", v)
			}
			o.Class, o.classAt = citywarden.ClassCode(v), g.val
		case "key":
			o.key = s.template(g.val, f.name+".key")
		case "merge":
			o.Merge = g.val.duration("merge")
		case "parent":
			o.parent = s.template(g.val, f.name+".parent")
		case "hold":
			o.Hold, o.hold = g.val.duration("hold"), g.key
		case "close":
			for _, h := range g.val.fields(closeShape) {
				o.ClearedFor, o.close = h.val.duration("close.cleared_for"), g.key
			}
			if o.ClearedFor == 0 {
				g.val.report("close needs cleared_for, like close: {cleared_for: 30m}")
			}
		case "escalate":
			for _, it := range g.val.items("escalate") {
				o.escalation(it)
			}
		case "limit":
			for _, h := range g.val.fields(limitShape) {
				if h.name == "cases" {
					o.Limit.Cases = h.val.int("limit.cases", 1, maxCount)
				} else {
					o.Limit.In = h.val.duration("limit.in")
				}
			}
			if o.Limit.Cases == 0 || o.Limit.In == 0 {
				g.val.report("limit needs cases and in, like limit: {cases: 20, in: 10m}")
			}
		}
	}
	if o.key.text == "" {
		f.val.report("%s needs key, which names its one open case, like fire/{{zone}}", f.name)
	}
	return o
}

func (o *caseOrder) escalation(n node) {
	var x citywarden.Escalation
	for _, f := range n.fields(escalationShape) {
		switch f.name {
		case "after":
			x.After = f.val.duration("after")
		case "unless":
			if t, ok := f.val.text("unless"); ok && t != "acked" {
				f.val.report("unless %q; it is acked", t)
			}
			x.UnlessAcked = true
		case "to":
			x.To, _ = f.val.text("to")
			o.receivers = append(o.receivers, f.val)
		}
	}
	if x.After == 0 || x.To == "" {
		n.report("an escalation needs after and to, like {after: 15m, unless: acked, to: duty-chief}")
	}
	o.Escalate = append(o.Escalate, x)
}

// template is a text with {{attr.zone}}, {{zone}}, {{device}} and the like.
type template struct {
	text  string
	node  node
	parts []templatePart
}

type templatePart struct {
	text string
	name string // of what is filled in; "" for text only
	at   int    // offset in text
}

var placeholder = regexp.MustCompile(`\{\{\s*([A-Za-z_][A-Za-z0-9_.]*)\s*\}\}`)

func (s *Set) template(n node, what string) template {
	t, ok := n.text(what)
	if !ok {
		return template{}
	}
	if utf8.RuneCountInString(t) > maxTemplate {
		n.report("%s has more than %d characters", what, maxTemplate)
		return template{}
	}
	out := template{text: t, node: n}
	end := 0
	for _, m := range placeholder.FindAllStringSubmatchIndex(t, -1) {
		out.parts = append(out.parts, templatePart{text: t[end:m[0]]}, templatePart{name: t[m[2]:m[3]], at: len([]rune(t[:m[2]]))})
		end = m[1]
	}
	rest := t[end:]
	if i := strings.Index(rest, "{{"); i >= 0 {
		n.reportAt(len([]rune(t[:end+i])), "%s: write a placeholder like {{attr.zone}}", what)
	}
	out.parts = append(out.parts, templatePart{text: rest})
	return out
}
