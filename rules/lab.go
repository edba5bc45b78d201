package rules

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing/fstest"
	"time"

	"github.com/citywarden/citywarden"
)

// History reads again what came in.
type History interface {
	// Entries calls f with the entries of q's time in the order in which they came
	// in, and returns since when they are from the log: before that they are made
	// of the time series, each reading arriving when it was measured. f's error
	// ends the reading and is returned.
	Entries(ctx context.Context, q citywarden.HistoryQuery, f func([]citywarden.Entry) error) (logged time.Time, err error)
}

// Record tells which alarms there were.
type Record interface {
	// Alarms returns alarms, the newest first.
	Alarms(ctx context.Context, f citywarden.AlarmFilter) ([]citywarden.Alarm, string, error)
	History(ctx context.Context, id citywarden.AlarmID) ([]citywarden.AlarmStep, error)
}

// Lab tries rules beside those that run: over the stored history, and with their
// tests. It never touches the engine of its Runner. At most two runs are under
// way at a time; its methods may be called by several goroutines.
type Lab struct {
	runner  *Runner
	history History
	record  Record
	class   func(citywarden.ClassCode) error
	zone    *time.Location // that people read times in
	slots   chan struct{}  // one token for each run under way
}

// Limits of a Lab.
const (
	maxRuns  = 2
	maxSpan  = 31 * 24 * time.Hour // of a backtest, and of its warm-up
	maxTests = 20 * time.Second    // for the tests of one text
)

// NewLab returns a lab beside the engine of r; class says of a case class whether
// there is one. Sentences have their times in zone.
func NewLab(r *Runner, h History, rec Record, class func(citywarden.ClassCode) error, zone *time.Location) *Lab {
	return &Lab{runner: r, history: h, record: rec, class: class, zone: zone, slots: make(chan struct{}, maxRuns)}
}

// load is Load, and checks the classes of cases.
func (l *Lab) load(files fstest.MapFS, schema Schema) (*Set, error) {
	set, err := Load(files, schema)
	if err == nil {
		err = set.CheckClasses(l.class)
	}
	return set, err
}

// enter takes a place in the lab; leave gives it back.
func (l *Lab) enter() (leave func(), err error) {
	select {
	case l.slots <- struct{}{}:
		return func() { <-l.slots }, nil
	default:
		return nil, citywarden.Errorf(citywarden.CodeTransient, "%d backtests or questions why not are under way, more would slow down the live rules; try again when one has ended", maxRuns)
	}
}

// running returns the rules that run and the surroundings of their engine.
func (r *Runner) running() (*Set, Options) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.e.set, r.e.opt
}

// fileName is what a text without a file is called in problems.
const fileName = "rules.yaml"

// Test checks text as a rule file with the models that there are, and runs the tests in
// it; without a text, the files that run. The report has all that is wrong; an error
// means that ctx ended. The running rules stay as they are.
func (l *Lab) Test(ctx context.Context, text string) (citywarden.RuleReport, error) {
	leave, err := l.enter()
	if err != nil {
		return citywarden.RuleReport{}, err
	}
	defer leave()
	running, _ := l.runner.running()
	files := fstest.MapFS{fileName: {Data: []byte(text)}}
	if strings.TrimSpace(text) == "" {
		files = running.files()
	}
	out := citywarden.RuleReport{Problems: citywarden.Problems{}, Warnings: citywarden.Problems{}, Results: []citywarden.RuleResult{}}
	set, err := l.load(files, running.schema)
	if err != nil {
		out.Problems = problemsOf(err)
		return out, nil
	}
	out.OK = true
	out.Warnings = append(out.Warnings, set.Warnings()...)
	tctx, cancel := context.WithTimeout(ctx, maxTests)
	defer cancel()
	for _, r := range test(tctx, set) {
		out.OK = out.OK && r.OK()
		out.Results = append(out.Results, citywarden.RuleResult{
			Name: r.Name, File: r.File, Line: r.Line, OK: r.OK(), Problems: append(citywarden.Problems{}, r.Problems...), TookMS: r.Took.Milliseconds(),
		})
	}
	return out, ctx.Err()
}

// files returns the files of the set as they were loaded.
func (s *Set) files() fstest.MapFS {
	out := fstest.MapFS{}
	add := func(src *source) { out[src.name] = &fstest.MapFile{Data: []byte(strings.Join(src.lines, "\n"))} }
	for _, r := range s.rules {
		add(r.node.src)
	}
	for i := range s.tests {
		add(s.tests[i].node.src)
	}
	return out
}

// family returns the rules with these ids, and the rules whose alarms hold
// theirs back, out of those in from.
func family(from []*rule, ids []citywarden.RuleID) []*rule {
	wanted := map[citywarden.RuleID]bool{}
	for todo := ids; len(todo) > 0; {
		id := todo[0]
		todo = todo[1:]
		if wanted[id] {
			continue
		}
		wanted[id] = true
		for _, r := range from {
			switch {
			case r.ID == id:
				for _, in := range r.inhibitors {
					todo = append(todo, in.rule)
				}
			case r.storm != nil && r.storm.raise == id:
				todo = append(todo, r.ID)
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(from), func(r *rule) bool { return !wanted[r.ID] })
}

// compileAgain returns a set of its own of some rules of loaded sets.
func compileAgain(rules []*rule, schema Schema) (*Set, error) {
	var found citywarden.Problems
	s := &Set{byID: map[citywarden.RuleID]*rule{}, plans: map[citywarden.ModelName]*plan{}, schema: schema}
	for _, r := range rules {
		s.rule(r.node.into(&found))
	}
	s.compile()
	if len(found) > 0 {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "%w", found)
	}
	return s, nil
}

// lookBack returns how much history an engine has to see before its rules with
// these ids stand where they do in one that has been running for ever, but for
// alarms that were raised before: the longest window with the longest holding
// time, and for how long a value or a silence counts.
func lookBack(rules []*rule, ids []citywarden.RuleID, schema Schema, opt Options) (time.Duration, error) {
	set, err := compileAgain(family(rules, ids), schema)
	if err != nil {
		return 0, err
	}
	e := New(set, opt)
	window, hold := int64(0), int64(0)
	for _, p := range e.set.order {
		for i := range p.memory {
			if keep := p.memory[i].keep; keep >= 0 {
				window = max(window, keep+p.stale[i])
			}
		}
	}
	for _, d := range e.devices {
		if n := len(d.quiet); n > 0 {
			window = max(window, d.quiet[n-1])
		}
	}
	longer := func(c *clause) {
		if c != nil {
			hold = max(hold, c.hold)
		}
	}
	for _, r := range e.set.rules {
		longer(r.clear)
		for i := range r.levels {
			longer(r.levels[i].clear)
		}
		if r.flap != nil {
			hold = max(hold, r.flap.in)
		}
		if r.storm != nil {
			hold = max(hold, r.storm.in)
		}
	}
	return max(time.Duration(window+hold)*time.Millisecond, minLookBack), nil
}

// minLookBack lets at least some readings be there.
const minLookBack = 10 * time.Minute

// tickTo steps a tick at every deadline of e up to at; step says whether to go on.
func (e *Engine) tickTo(at time.Time, step func(citywarden.Entry) bool) bool {
	for {
		due := e.Deadline()
		if due.IsZero() || due.After(at) {
			return true
		}
		if !step(tickAt(maxTime(due, e.Now()))) {
			return false
		}
	}
}

func tickAt(at time.Time) citywarden.Entry {
	return citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordTick, At: at}}
}

// stepper is an engine that steps through stored history. Its first step is a
// tick, at the time at which the history begins.
type stepper struct {
	e      *Engine
	take   func(*citywarden.Transition) // gets every transition
	ticks  int
	orders int // that had an alarm to go to
}

func (s *stepper) step(x citywarden.Entry) {
	ts := s.e.Step(&x)
	for i := range ts {
		s.take(&ts[i])
	}
}

// to lets time pass: the deadlines up to at fire one by one, as they did live.
func (s *stepper) to(ctx context.Context, at time.Time) error {
	if !s.e.tickTo(at, func(x citywarden.Entry) bool {
		s.step(x)
		s.ticks++
		return s.ticks%1024 != 0 || ctx.Err() == nil
	}) {
		return ctx.Err()
	}
	return nil
}

// entry steps an entry of the history and what fell due before it. While the
// platform was down nothing fell due: the engine finds that out from the
// deadlines that have passed, as it did live.
func (s *stepper) entry(ctx context.Context, x *citywarden.Entry) error {
	if x.Kind != citywarden.RecordStart {
		until := x.At
		if x.Lasted > 0 { // as there
			until = x.Since()
		}
		if err := s.to(ctx, until.Add(-time.Millisecond)); err != nil {
			return err
		}
	}
	if x.Kind != citywarden.RecordOrder || x.Order == nil {
		s.step(*x)
		return nil
	}
	// The episodes of a replay are numbered from one: a person's order goes to
	// the alarm that the same rule has on the same entity.
	y := *x
	o := *x.Order
	if inst := s.e.addressee(o.Alarm); inst != nil {
		o.Alarm = inst.alarm.ID
		s.orders++
	}
	y.Order = &o
	s.step(y)
	return nil
}

// addressee returns the instance of the rule and entity that an alarm's id
// names, whatever its episode; nil when there is none.
func (e *Engine) addressee(id citywarden.AlarmID) *instance {
	name, rest, _ := strings.Cut(string(id), ":")
	i := strings.LastIndexByte(rest, ':')
	rule := e.set.byID[citywarden.RuleID(name)]
	if rule == nil || i < 0 {
		return nil
	}
	insts := e.runs[rule.index].insts
	if inst := insts[rest[:i]]; inst != nil {
		return inst
	}
	prefix := string(id[:len(name)+1+i+1]) // the entity may be a hash in it
	for _, k := range slices.Sorted(maps.Keys(insts)) {
		if strings.HasPrefix(string(citywarden.NewAlarmID(rule.ID, k, 1)), prefix) {
			return insts[k]
		}
	}
	return nil
}

// some is Devices of which only some are there.
type some struct {
	Devices
	only map[citywarden.DeviceID]bool
}

func (s some) Each(f func(*citywarden.Device, *citywarden.Model)) {
	s.Devices.Each(func(d *citywarden.Device, m *citywarden.Model) {
		if s.only[d.ID] {
			f(d, m)
		}
	})
}

// problemsOf returns the mistakes that err lists.
func problemsOf(err error) citywarden.Problems {
	var ps citywarden.Problems
	if errors.As(err, &ps) {
		return ps
	}
	return citywarden.Problems{{File: fileName, Message: err.Error()}}
}
