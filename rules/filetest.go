package rules

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// testCase is one entry of tests: in a rule file.
type testCase struct {
	node    node
	name    string
	start   time.Time
	devices []*citywarden.Device
	where   map[citywarden.DeviceID]node
	input   []testInput
	orders  []testOrder
	restart []int64 // ms after start
	expect  []expectation
}

type testInput struct {
	node   node
	device citywarden.DeviceID
	metric citywarden.MetricName
	at     int64 // of the first value, ms after start
	every  int64
	values []string // "-" for none
	arrive int64    // how much later than measured a value arrives
	clock  int64    // how far the device's clock is ahead
}

type testOrder struct {
	node   node
	at     int64
	kind   citywarden.OrderKind
	rule   citywarden.RuleID
	on     string // entity
	by     string
	reason string
	until  int64
}

type expectation struct {
	node     node
	at       int64
	none     citywarden.RuleID
	alarm    citywarden.RuleID
	device   citywarden.DeviceID
	entity   string
	state    string
	severity citywarden.Severity
	order    string
	acked    *bool
	ackedBy  string
	audible  *bool
	hushed   citywarden.Suppression // how it is suppressed
	members  []citywarden.DeviceID
	why      string
}

// Result is the outcome of one test.
type Result struct {
	Name     string              `json:"name"`
	File     string              `json:"file"`
	Line     int                 `json:"line"`
	Problems citywarden.Problems `json:"problems,omitempty"` // expectations that were not met
	Took     time.Duration       `json:"took"`
}

// OK reports whether every expectation was met.
func (r Result) OK() bool { return len(r.Problems) == 0 }

// Err returns CodeInvalid with every expectation that was not met, or nil.
func (r Result) Err() error {
	if r.OK() {
		return nil
	}
	return citywarden.Errorf(citywarden.CodeInvalid, "test %q: %w", r.Name, r.Problems)
}

// testStart is when tests begin unless they say another start: a Monday, 08:00
// in Asia/Shanghai.
var testStart = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

// maxTestValues bounds the values of one test, maxAllValues those of all tests
// of a set.
const (
	maxTestValues = 100_000
	maxAllValues  = 1_000_000
)

func (s *Set) test(n node) {
	t := testCase{node: n, start: testStart, where: map[citywarden.DeviceID]node{}}
	for _, f := range n.fields(testShape) {
		switch f.name {
		case "name":
			t.name, _ = f.val.text("name")
		case "start":
			if v, ok := f.val.text("start"); ok {
				at, err := time.Parse(time.RFC3339, v)
				if err != nil {
					f.val.report("start %q; write it like 2026-01-05T08:00:00+08:00", v)
				}
				t.start = at.UTC()
			}
		case "devices":
			for _, d := range f.val.fields(devicesShape) {
				t.device(d)
			}
		case "input":
			for _, it := range f.val.items("input") {
				s.values += t.readInput(it, maxAllValues-s.values)
			}
		case "orders":
			for _, it := range f.val.items("orders") {
				t.readOrder(it)
			}
		case "restart_at":
			for _, it := range f.val.items("restart_at") {
				t.restart = append(t.restart, it.duration("restart_at").Std().Milliseconds())
			}
			slices.Sort(t.restart)
		case "expect":
			for _, it := range f.val.items("expect") {
				t.readExpectation(it)
			}
		}
	}
	if t.name == "" {
		n.report("a test needs a name")
	}
	if len(t.expect) == 0 {
		n.report("test %q expects nothing", t.name)
	}
	s.tests = append(s.tests, t)
}

func (t *testCase) device(f field) {
	d := &citywarden.Device{ID: citywarden.DeviceID(f.name), Name: f.name, Attributes: map[string]any{}}
	if err := d.ID.Check(); err != nil {
		f.key.report("%v", err)
	}
	for _, g := range f.val.fields(deviceShape) {
		switch g.name {
		case "model":
			v, _ := g.val.text("model")
			d.Model = citywarden.ModelName(v)
		case "attr":
			for _, a := range g.val.fields(attrsShape) {
				if v, ok := a.val.value("attr." + a.name); ok {
					d.Attributes[a.name] = v
				}
			}
		case "adjacent":
			for _, v := range g.val.strings("adjacent") {
				d.Adjacent = append(d.Adjacent, citywarden.DeviceID(v))
			}
		}
	}
	t.devices = append(t.devices, d)
	t.where[d.ID] = f.val
}

// readInput returns how many values the input has; left is how many it may have.
func (t *testCase) readInput(n node, left int) int {
	in := testInput{node: n}
	own := 0
	for i := range t.input {
		own += len(t.input[i].values)
	}
	for _, f := range n.fields(inputShape) {
		switch f.name {
		case "device":
			v, _ := f.val.text("device")
			in.device = citywarden.DeviceID(v)
		case "metric":
			v, _ := f.val.text("metric")
			in.metric = citywarden.MetricName(v)
		case "at":
			in.at = f.val.duration("at").Std().Milliseconds()
		case "every":
			in.every = f.val.duration("every").Std().Milliseconds()
		case "arrive":
			v, ok := f.val.text("arrive")
			d, err := citywarden.ParseDuration(strings.TrimPrefix(v, "+"))
			if ok && (err != nil || d < 0) {
				f.val.report("arrive is how much later the values arrive, like +90s")
			}
			in.arrive = d.Std().Milliseconds()
		case "clock":
			v, ok := f.val.text("clock")
			d, err := citywarden.ParseDuration(strings.TrimPrefix(v, "+"))
			if ok && err != nil {
				f.val.report("clock is how far the device's clock is ahead, like +10m, or -10m when it is behind")
			}
			in.clock = d.Std().Milliseconds()
		case "values":
			v, _ := f.val.scalar()
			for _, w := range strings.Fields(v) {
				word, times := w, 1
				if i := strings.LastIndexByte(w, 'x'); i > 0 {
					if k, err := strconv.Atoi(w[i+1:]); err == nil && k > 0 {
						word, times = w[:i], k
					}
				}
				if own+len(in.values)+times > maxTestValues {
					f.val.report("more than %d values in one test", maxTestValues)
					break
				}
				if len(in.values)+times > left {
					f.val.report("more than %d values in all tests", maxAllValues)
					break
				}
				for range times {
					in.values = append(in.values, word)
				}
			}
			if len(in.values) == 0 {
				f.val.report(`values are a text like "4.0x10 3.4 - 3.2x6"; x10 repeats, - leaves one out`)
			}
		}
	}
	if len(in.values) > 1 && in.every == 0 {
		n.report("an input with several values needs every")
	}
	t.input = append(t.input, in)
	return len(in.values)
}

func (t *testCase) readOrder(n node) {
	o := testOrder{node: n, by: "tester", reason: "test"}
	for _, f := range n.fields(testOrderShape) {
		switch f.name {
		case "at":
			o.at = f.val.duration("at").Std().Milliseconds()
		case "for":
			o.until = f.val.duration("for").Std().Milliseconds()
		case "by":
			o.by, _ = f.val.text("by")
		case "reason":
			o.reason, _ = f.val.text("reason")
		case "entity", "device":
			o.on, _ = f.val.text(f.name)
		default:
			if o.kind != "" {
				f.key.report("an order is one of %s and %s; write two", o.kind, f.name)
			}
			v, _ := f.val.text(f.name)
			o.kind, o.rule = citywarden.OrderKind(f.name), citywarden.RuleID(v)
		}
	}
	if o.kind == "" || o.on == "" {
		n.report("an order says what, of which rule and entity, like {at: 5m, ack: fire.zone-smoke, entity: Z1}")
	}
	if (o.kind == citywarden.OrderShelve) != (o.until > 0) {
		n.report("shelve, and only that, says for how long: {at: 5m, shelve: fire.zone-smoke, entity: Z1, for: 1h}")
	}
	t.orders = append(t.orders, o)
}

func (t *testCase) readExpectation(n node) {
	x := expectation{node: n}
	for _, f := range n.fields(expectationShape) {
		switch f.name {
		case "at":
			x.at = f.val.duration("at").Std().Milliseconds()
		case "none", "alarm":
			v, _ := f.val.text(f.name)
			if f.name == "none" {
				x.none = citywarden.RuleID(v)
			} else {
				x.alarm = citywarden.RuleID(v)
			}
		case "device":
			v, _ := f.val.text("device")
			x.device = citywarden.DeviceID(v)
		case "entity":
			x.entity, _ = f.val.text("entity")
		case "state":
			x.state, _ = f.val.text("state")
			if states := expectationShape.enum("state"); !slices.Contains(states, x.state) {
				f.val.report("no state %q%s", x.state, choices(x.state, states, "there are"))
			}
		case "severity":
			x.severity = f.val.severity()
		case "case":
			x.order, _ = f.val.text("case")
		case "acked":
			b := f.val.bool("acked")
			x.acked = &b
		case "acked_by":
			x.ackedBy, _ = f.val.text("acked_by")
		case "annunciated":
			b := f.val.bool("annunciated")
			x.audible = &b
		case "suppressed":
			v, _ := f.val.text("suppressed")
			x.hushed = citywarden.Suppression(v)
			if ways := expectationShape.enum("suppressed"); !slices.Contains(ways, v) {
				f.val.report("no suppression %q%s", v, choices(v, ways, "there are"))
			}
		case "members":
			for _, v := range f.val.strings("members") {
				x.members = append(x.members, citywarden.DeviceID(v))
			}
		case "why":
			x.why, _ = f.val.text("why")
		}
	}
	if (x.none == "") == (x.alarm == "") {
		n.report("an expectation says either none: RULE or alarm: RULE")
	}
	t.expect = append(t.expect, x)
}

// checkTest reports names in a test that do not exist.
func (s *Set) checkTest(t *testCase) {
	var ids []string
	models := map[citywarden.DeviceID]*citywarden.Model{}
	for _, d := range t.devices {
		ids = append(ids, string(d.ID))
		m, ok := s.schema.Model(d.Model)
		if !ok {
			t.where[d.ID].report("no model %q%s", d.Model, citywarden.DidYouMean(string(d.Model), s.modelNames()))
			continue
		}
		models[d.ID] = m
		for _, name := range slices.Sorted(maps.Keys(d.Attributes)) {
			a, ok := m.Attribute(name)
			if !ok {
				t.where[d.ID].report("model %s has no attribute %q%s", m.Name, name, citywarden.DidYouMean(name, attrNames(m)))
				continue
			}
			if v, _ := citywarden.ValueOf(d.Attributes[name]); v.Kind() != a.Kind {
				t.where[d.ID].report("attribute %s of model %s is a %s", name, m.Name, a.Kind)
			}
		}
	}
	for i := range t.input {
		in := &t.input[i]
		m := models[in.device]
		if m == nil {
			if !slices.Contains(ids, string(in.device)) {
				in.node.report("no device %q in this test%s", in.device, citywarden.DidYouMean(string(in.device), ids))
			}
			continue
		}
		decl, ok := m.Metric(in.metric)
		if !ok {
			var names []string
			for _, x := range m.Metrics {
				names = append(names, string(x.Name))
			}
			in.node.report("model %s has no metric %q%s", m.Name, in.metric, citywarden.DidYouMean(string(in.metric), names))
			continue
		}
		for _, w := range in.values {
			if _, ok := parseValue(w, decl.Kind); !ok && w != "-" {
				in.node.report("%q is not a %s, which metric %s is", w, decl.Kind, in.metric)
				break
			}
		}
	}
	known := func(n node, id citywarden.RuleID) {
		if s.byID[id] == nil {
			n.report("no rule %q%s", id, citywarden.DidYouMean(string(id), s.ruleNames()))
		}
	}
	for _, x := range t.expect {
		known(x.node, cmp.Or(x.none, x.alarm))
		if x.device != "" && !slices.Contains(ids, string(x.device)) {
			x.node.report("no device %q in this test%s", x.device, citywarden.DidYouMean(string(x.device), ids))
		}
	}
	for _, o := range t.orders {
		known(o.node, o.rule)
	}
}

func (s *Set) ruleNames() []string {
	out := make([]string, len(s.rules))
	for i, r := range s.rules {
		out[i] = string(r.ID)
	}
	return out
}

func parseValue(s string, k citywarden.Kind) (citywarden.Value, bool) {
	switch k {
	case citywarden.KindNumber:
		f, err := strconv.ParseFloat(s, 64)
		return citywarden.Number(f), err == nil
	case citywarden.KindBool:
		b, err := strconv.ParseBool(s)
		return citywarden.Bool(b), err == nil
	}
	return citywarden.TextValue(s), true
}

// Test runs the tests that the files of the set contain, in virtual time, with
// the Step that runs live. Restarts in a test take a snapshot, and everything
// since is stepped again by another engine.
func Test(set *Set) []Result { return test(context.Background(), set) }

// test is Test until ctx is done: what has not ended by then has failed.
func test(ctx context.Context, set *Set) []Result {
	out := make([]Result, len(set.tests))
	for i := range set.tests {
		began := time.Now()
		out[i] = set.tests[i].run(ctx, set)
		out[i].Took = time.Since(began)
	}
	return out
}

// fixed is Devices of a test.
type fixed struct {
	devices []*citywarden.Device
	schema  Schema
}

func (f fixed) Each(do func(*citywarden.Device, *citywarden.Model)) {
	for _, d := range f.devices {
		if m, ok := f.schema.Model(d.Model); ok {
			do(d, m)
		}
	}
}

// bench is a test that runs.
type bench struct {
	over func() bool // whether to give up
	set  *Set
	opt  Options
	e    *Engine
	log  []citywarden.Entry // since the snapshot
	snap []byte
	pos  citywarden.Position
	keys map[string]bool
	last map[string]citywarden.Transition // by rule and entity
}

func (b *bench) step(x citywarden.Entry) {
	b.pos++
	x.Position = b.pos
	b.log = append(b.log, x)
	for _, tr := range b.e.Step(&x) {
		b.keys[tr.Key] = true
		key := string(tr.Alarm.Rule) + "\x00" + tr.Alarm.Entity
		if tr.Why == nil && tr.Alarm.ID == b.last[key].Alarm.ID { // an acknowledgement explains nothing
			tr.Why = b.last[key].Why
		}
		b.last[key] = tr
	}
}

// tick fires the timers that are due before at.
func (b *bench) tick(at time.Time) {
	n := 0
	b.e.tickTo(at, func(x citywarden.Entry) bool {
		b.step(x)
		n++
		return n < 1_000_000 && !b.over()
	})
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// crash starts another engine from the snapshot and replays the log: it must
// give the transitions that were given.
func (b *bench) crash(n node) error {
	e := New(b.set, b.opt)
	if b.snap != nil {
		if err := e.Restore(b.snap); err != nil {
			return err
		}
	}
	for _, x := range b.log {
		for _, tr := range e.Step(&x) {
			if !b.keys[tr.Key] {
				n.report("after the restart there is a transition %s that was not there before", tr.Key)
			}
		}
	}
	snap, err := e.Snapshot()
	if err != nil {
		return err
	}
	b.e, b.snap, b.log = e, snap, nil
	return nil
}

func (t *testCase) run(ctx context.Context, set *Set) Result {
	var found citywarden.Problems
	line, _ := t.node.pos()
	src := *t.node.src
	src.found = &found
	at := func(n node) node { n.src = &src; return n }
	b := &bench{over: func() bool { return ctx.Err() != nil }, set: set, opt: Options{Devices: fixed{t.devices, set.schema}}, keys: map[string]bool{}, last: map[string]citywarden.Transition{}}
	b.e = New(set, b.opt)

	type moment struct {
		at    int64
		order int
		do    func() error
	}
	var plan []moment
	byID := map[citywarden.DeviceID]*citywarden.Device{}
	for _, d := range t.devices {
		byID[d.ID] = d
	}
	abs := func(ms int64) time.Time { return t.start.Add(time.Duration(ms) * time.Millisecond) }
	plan = append(plan, moment{0, -1, func() error {
		b.step(tickAt(t.start))
		return nil
	}})
	for _, in := range t.input {
		d := byID[in.device]
		m, _ := set.schema.Model(d.Model)
		decl, _ := m.Metric(in.metric)
		for i, w := range in.values {
			v, ok := parseValue(w, decl.Kind)
			if !ok || w == "-" {
				continue
			}
			ts := in.at + int64(i)*in.every
			x := citywarden.Entry{
				Record: citywarden.Record{Kind: citywarden.RecordUplink, At: abs(ts + in.arrive)}, Device: d, Model: m,
				Readings: []citywarden.Reading{{Metric: in.metric, Value: v, Time: abs(ts + in.clock)}}, Stated: abs(ts + in.clock),
			}
			plan = append(plan, moment{ts + in.arrive, 0, func() error { b.step(x); return nil }})
		}
	}
	for _, o := range t.orders {
		plan = append(plan, moment{o.at, 1, func() error {
			tr := b.last[string(o.rule)+"\x00"+o.on]
			order := &citywarden.AlarmOrder{Kind: o.kind, Alarm: tr.Alarm.ID, By: o.by, Reason: o.reason}
			switch {
			case o.kind == citywarden.OrderOutOfService || o.kind == citywarden.OrderInService:
				order.Alarm, order.Rule, order.Entity = "", o.rule, o.on
			case tr.Alarm.ID == "":
				at(o.node).report("at %s %s has had no alarm of %s to %s", time.Duration(o.at)*time.Millisecond, o.on, o.rule, o.kind)
				return nil
			}
			if o.until > 0 {
				order.Until = abs(o.at + o.until)
			}
			b.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordOrder, At: abs(o.at), Order: order}})
			return nil
		}})
	}
	for _, r := range t.restart {
		plan = append(plan, moment{r, 2, func() error { return b.crash(at(t.node)) }})
	}
	for i := range t.expect {
		x := &t.expect[i]
		plan = append(plan, moment{x.at, 3, func() error { x.check(at(x.node), b); return nil }})
	}
	slices.SortStableFunc(plan, func(a, c moment) int { return cmp.Or(cmp.Compare(a.at, c.at), cmp.Compare(a.order, c.order)) })
	for _, m := range plan {
		if b.over() {
			at(t.node).report("test %q did not end in time; it was given up at %s of its time", t.name, time.Duration(m.at)*time.Millisecond)
			break
		}
		if m.order >= 2 {
			b.tick(abs(m.at))
		} else {
			b.tick(abs(m.at - 1))
		}
		if err := m.do(); err != nil {
			at(t.node).report("%v", err)
			break
		}
	}
	sortProblems(found)
	return Result{Name: t.name, File: t.node.src.name, Line: line, Problems: found}
}

func (x *expectation) check(n node, b *bench) {
	r := b.set.byID[cmp.Or(x.none, x.alarm)]
	run := b.e.runs[r.index]
	var list []*instance
	for _, k := range slices.Sorted(maps.Keys(run.insts)) {
		inst := run.insts[k]
		if x.entity != "" && inst.entity != x.entity {
			continue
		}
		if x.device != "" && inst.entity != string(x.device) && inst.device() != x.device && !slices.Contains(inst.members(), x.device) {
			continue
		}
		list = append(list, inst)
	}
	at := time.Duration(x.at) * time.Millisecond
	if x.none != "" {
		for _, inst := range list {
			if inst.open {
				n.report("at %s alarm %s is %s; none was expected", at, inst.alarm.ID, inst.state())
			}
		}
		return
	}
	if x.state == "normal" { // and never was anything else
		for _, inst := range list {
			if got := inst.state(); got != x.state {
				n.report("at %s alarm %s of %s was expected to be normal; it is %s", at, x.alarm, inst.entity, got)
			}
		}
		return
	}
	var states []string
	for _, inst := range list {
		if x.state == "" && !inst.open {
			continue
		}
		if got := inst.state(); x.state != "" && got != x.state && !(x.state == "active" && got == "clearing") {
			states = append(states, inst.entity+" is "+got)
			continue
		}
		x.compare(n, inst, b, at)
		return
	}
	got := "there is none"
	if len(states) > 0 {
		got = strings.Join(states, ", ")
	}
	n.report("at %s an alarm of %s was expected%s; %s", at, x.alarm, stateSuffix(x.state), got)
}

func stateSuffix(s string) string {
	if s == "" {
		return ""
	}
	return " to be " + s
}

func (x *expectation) compare(n node, inst *instance, b *bench, at time.Duration) {
	a := inst.told()
	if x.severity != 0 && a.Severity != x.severity {
		n.report("at %s alarm %s has severity %s, not %s", at, a.ID, a.Severity, x.severity)
	}
	if x.order != "" && inst.key != x.order {
		n.report("at %s alarm %s belongs to case %q, not %q", at, a.ID, inst.key, x.order)
	}
	if x.acked != nil && a.Acked != *x.acked {
		n.report("at %s alarm %s has acked %t, not %t", at, a.ID, a.Acked, *x.acked)
	}
	if x.ackedBy != "" && a.AckedBy != x.ackedBy {
		n.report("at %s alarm %s is acknowledged by %q, not %q", at, a.ID, a.AckedBy, x.ackedBy)
	}
	if got := inst.audible(); x.audible != nil && got != *x.audible {
		n.report("at %s alarm %s has annunciated %t, not %t", at, a.ID, got, *x.audible)
	}
	if !suppressedAs(&a, x.hushed) {
		n.report("at %s alarm %s is suppressed as %v, not %s", at, a.ID, a.Suppressions(), x.hushed)
	}
	for _, m := range x.members {
		if !slices.Contains(a.Members, m) {
			n.report("at %s alarm %s has the members %v, without %s", at, a.ID, a.Members, m)
		}
	}
	if x.why != "" {
		why := ""
		if tr := b.last[string(a.Rule)+"\x00"+inst.entity]; tr.Why != nil {
			why = tr.Why.Summary.EN + " " + tr.Why.Summary.ZH + fmt.Sprint(tr.Why.Leaves)
		}
		if !strings.Contains(why, x.why) {
			n.report("at %s the explanation of alarm %s does not contain %q; it says %s", at, a.ID, x.why, why)
		}
	}
}

// suppressedAs reports whether a is suppressed in that way, among others; "" is
// whatever way.
func suppressedAs(a *citywarden.Alarm, way citywarden.Suppression) bool {
	switch way {
	case "":
		return true
	case citywarden.SuppressionNone:
		return !a.Suppressed()
	}
	return slices.Contains(a.Suppressions(), way)
}

// state names where the instance stands, as tests and people call it.
func (inst *instance) state() string {
	switch {
	case inst.open && inst.alarm.Latched:
		return "latched"
	case inst.open && inst.alarm.Clearing:
		return "clearing"
	case inst.open:
		return "active"
	case slices.ContainsFunc(inst.levels, func(l levelState) bool { return l.state == pending }):
		return "pending"
	case inst.alarm.ID != "":
		return "cleared"
	}
	return "normal"
}
