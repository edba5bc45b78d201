package rules

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"testing/fstest"
	"time"

	"github.com/citywarden/citywarden"
)

const (
	maxEpisodes   = 200_000 // alarms that one backtest keeps in mind
	maxListed     = 500     // alarms of one rule in the result
	maxChattering = 100     // entities of one rule in the result
	progressEvery = 200 * time.Millisecond
	tenMinutes    = 10 * time.Minute
)

// Backtest steps the rules of q, and beside them those of the same ids that run,
// over the stored history with the Step that runs live. Mistakes in q.Text are
// CodeInvalid with citywarden.Problems. It ends early when ctx does, and calls
// progress a few times a second.
func (l *Lab) Backtest(ctx context.Context, q citywarden.BacktestRequest, progress func(citywarden.BacktestProgress)) (citywarden.Backtest, error) {
	leave, err := l.enter()
	if err != nil {
		return citywarden.Backtest{}, err
	}
	defer leave()
	began := time.Now()
	if now := began.UTC(); q.To.IsZero() || q.To.After(now) {
		q.To = now
	}
	q.From, q.To = q.From.UTC().Truncate(time.Millisecond), q.To.UTC().Truncate(time.Millisecond)
	switch {
	case q.From.IsZero():
		return citywarden.Backtest{}, citywarden.Errorf(citywarden.CodeInvalid, "say from when on: from")
	case !q.From.Before(q.To):
		return citywarden.Backtest{}, citywarden.Errorf(citywarden.CodeInvalid, "from %s to %s: from is not before to", q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	case q.To.Sub(q.From) > maxSpan:
		return citywarden.Backtest{}, citywarden.Errorf(citywarden.CodeInvalid, "from %s to %s: a backtest spans 31 days at most", q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	}
	t, err := l.trial(&q)
	if err != nil {
		return citywarden.Backtest{}, err
	}
	t.progress = progress
	if err := t.run(ctx, l.history); err != nil {
		return citywarden.Backtest{}, err
	}
	return t.result(time.Since(began)), nil
}

// trial is a backtest under way.
type trial struct {
	q        citywarden.BacktestRequest
	warmup   time.Time
	logged   time.Time
	zone     *time.Location
	rules    []*rule // that are tried
	tried    *side
	now      *side // nil when nothing is compared
	all      int   // episodes of both sides
	messages uint64
	readings uint64
	progress func(citywarden.BacktestProgress)
	shown    time.Time
	notes    []citywarden.Text
}

// side is one of the engines of a trial and what it raised.
type side struct {
	stepper
	tallies map[citywarden.RuleID]*tally
}

// trial compiles both sets of rules and makes the engines.
func (l *Lab) trial(q *citywarden.BacktestRequest) (*trial, error) {
	running, opt := l.runner.running()
	t := &trial{q: *q, zone: l.zone, shown: time.Now()}
	if q.Devices != nil {
		only := map[citywarden.DeviceID]bool{}
		for _, id := range q.Devices {
			only[id] = true
		}
		opt.Devices = some{opt.Devices, only}
	}
	pool, compare := running.rules, false
	switch {
	case (q.Text == "") == (q.Rule == ""):
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "say what to test: the text of a rule file, or the id of a rule that runs, one of the two")
	case q.Rule != "":
		r := running.byID[q.Rule]
		if r == nil {
			return nil, noRule(running, q.Rule)
		}
		if r.of != nil { // its storms come with the rule
			r = r.of
		}
		t.rules = []*rule{r}
	default:
		set, err := l.load(fstest.MapFS{fileName: {Data: []byte(q.Text)}}, running.schema)
		if err != nil {
			return nil, err
		}
		t.rules, compare = set.rules, true
		if len(t.rules) == 0 {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "there are no rules in the text")
		}
		pool = append(slices.DeleteFunc(slices.Clone(running.rules), func(r *rule) bool { return set.byID[r.ID] != nil }), set.rules...)
	}
	var ids []citywarden.RuleID
	for _, r := range t.rules {
		ids = append(ids, r.ID)
	}
	back, err := lookBack(pool, ids, running.schema, opt)
	if err != nil {
		return nil, err
	}
	if t.tried, err = t.side(pool, running.schema, opt); err != nil {
		return nil, err
	}
	if compare {
		old, err := lookBack(running.rules, ids, running.schema, opt)
		if err != nil {
			return nil, err
		}
		back = max(back, old)
		if t.now, err = t.side(running.rules, running.schema, opt); err != nil {
			return nil, err
		}
	}
	if back > maxSpan {
		back = maxSpan
		t.note("The rules look back further than 31 days; their windows were not full at the beginning.", "规则回溯的时间超过 31 天，回测开始时窗口尚未填满。")
	}
	t.warmup = q.From.Add(-back)
	for _, s := range t.sides() {
		s.step(tickAt(t.warmup))
	}
	return t, nil
}

func noRule(s *Set, id citywarden.RuleID) error {
	var names []string
	for _, r := range s.rules {
		names = append(names, string(r.ID))
	}
	return citywarden.Errorf(citywarden.CodeNotFound, "no rule %s%s", id, citywarden.DidYouMean(string(id), names))
}

func (t *trial) note(en, zh string) { t.notes = append(t.notes, citywarden.Text{EN: en, ZH: zh}) }

// side returns an engine of rules: all that would run, for the readings that one
// rule looks at decide at which moments others of the device are evaluated.
func (t *trial) side(rules []*rule, schema Schema, opt Options) (*side, error) {
	set, err := compileAgain(rules, schema)
	if err != nil {
		return nil, err
	}
	s := &side{tallies: map[citywarden.RuleID]*tally{}}
	for _, r := range t.rules {
		s.tallies[r.ID] = &tally{}
		if r.storm != nil { // what a storm raises is an alarm, but not a rule of its own
			s.tallies[r.storm.raise] = &tally{}
		}
	}
	s.stepper = stepper{e: New(set, opt), take: func(tr *citywarden.Transition) {
		if y := s.tallies[tr.Alarm.Rule]; y != nil {
			t.all += y.take(tr, t.q.From)
		}
	}}
	return s, nil
}

func (t *trial) sides() []*side {
	if t.now == nil {
		return []*side{t.tried}
	}
	return []*side{t.tried, t.now}
}

// errTooMany ends a backtest of a rule that raises all the time.
var errTooMany = errors.New("too many alarms")

// run steps both engines over the history in one pass.
func (t *trial) run(ctx context.Context, h History) error {
	q := citywarden.HistoryQuery{From: t.warmup, To: t.q.To}
	if o, ok := t.tried.e.opt.Devices.(some); ok {
		q.Devices = o.only
	}
	logged, err := h.Entries(ctx, q, func(entries []citywarden.Entry) error {
		for i := range entries {
			if err := t.step(ctx, &entries[i]); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	t.logged = logged
	for _, s := range t.sides() {
		if err == nil {
			err = s.to(ctx, t.q.To)
		}
	}
	if errors.Is(err, errTooMany) {
		at := t.tried.e.Now()
		return citywarden.Errorf(citywarden.CodeInvalid, "more than %d alarms by %s; ask for a shorter time or for some devices only, or look at the conditions", maxEpisodes, at.Format(time.RFC3339))
	}
	return err
}

func (t *trial) step(ctx context.Context, x *citywarden.Entry) error {
	if n := len(x.Readings); n > 0 {
		t.messages++
		t.readings += uint64(n)
	}
	for _, s := range t.sides() {
		if err := s.entry(ctx, x); err != nil {
			return err
		}
	}
	if t.all > maxEpisodes {
		return errTooMany
	}
	if t.messages%64 != 0 || time.Since(t.shown) < progressEvery {
		return nil
	}
	t.shown = time.Now()
	done := float64(x.At.Sub(t.warmup)) / float64(t.q.To.Sub(t.warmup))
	t.progress(citywarden.BacktestProgress{Done: min(max(done, 0), 1), At: x.At, Readings: t.readings})
	return ctx.Err()
}

// episode is one alarm of a rule; to is zero while it is active.
type episode struct {
	entity   string
	device   citywarden.DeviceID
	severity citywarden.Severity
	from, to time.Time
}

// overlap returns for how long both were active; ok is false when they never were,
// end is the time of those that are active still.
func (x *episode) overlap(y *episode, end time.Time) (d time.Duration, ok bool) {
	until := func(t time.Time) time.Time {
		if t.IsZero() {
			return end
		}
		return t
	}
	from, to := maxTime(x.from, y.from), until(x.to)
	if t := until(y.to); t.Before(to) {
		to = t
	}
	d = to.Sub(from)
	return d, d > 0 || x.from.Equal(y.from)
}

// tally is what one rule raised.
type tally struct {
	title       citywarden.Text
	episodes    []episode
	open        map[string]int // by entity: its active episode
	escalations int
	clears      int
}

// take notes a transition and returns how many episodes more there are.
func (y *tally) take(tr *citywarden.Transition, from time.Time) int {
	a := &tr.Alarm
	i, active := y.open[a.Entity]
	switch {
	case tr.Kind == citywarden.Raised:
		if y.open == nil {
			y.open = map[string]int{}
		}
		y.title = a.Title
		y.open[a.Entity] = len(y.episodes)
		y.episodes = append(y.episodes, episode{entity: a.Entity, device: a.Device, severity: a.Severity, from: tr.At})
		return 1
	case !active:
	case tr.Kind == citywarden.Escalated:
		y.episodes[i].severity = max(y.episodes[i].severity, a.Severity)
		if !tr.At.Before(from) {
			y.escalations++
		}
	case tr.Kind == citywarden.Cleared:
		delete(y.open, a.Entity)
		y.episodes[i].to = tr.At
		if !tr.At.Before(from) {
			y.clears++
		}
	}
	return 0
}

// counts sums up the episodes between from and to, and drops those before.
func (y *tally) counts(from, to time.Time) citywarden.BacktestCounts {
	c := citywarden.BacktestCounts{Clears: y.clears, Escalations: y.escalations, Chattering: []string{}}
	y.episodes = slices.DeleteFunc(y.episodes, func(x episode) bool { return !x.to.IsZero() && x.to.Before(from) || !x.from.Before(to) })
	slices.SortStableFunc(y.episodes, func(a, b episode) int {
		return cmp.Or(a.from.Compare(b.from), cmp.Compare(a.entity, b.entity))
	})
	byEntity := map[string][]time.Time{}
	var raises []time.Time
	some := false
	for i := range y.episodes {
		x := &y.episodes[i]
		begin, end := x.from, x.to
		whole := !end.IsZero()
		if end.IsZero() {
			end = to
			c.Open++
		}
		if begin.Before(from) {
			begin, whole = from, false
			c.Standing++
		} else {
			raises = append(raises, begin)
			byEntity[x.entity] = append(byEntity[x.entity], begin)
		}
		if byEntity[x.entity] == nil {
			byEntity[x.entity] = []time.Time{}
		}
		d := citywarden.Duration(end.Sub(begin))
		c.Active += d
		c.Longest = max(c.Longest, d)
		if whole && (!some || d < c.Shortest) {
			c.Shortest, some = d, true
		}
	}
	c.Raises, c.Entities = len(raises), len(byEntity)
	c.PerTenMin = float64(c.Raises) / (float64(to.Sub(from)) / float64(tenMinutes))
	for i, j := 0, 0; j < len(raises); j++ {
		for raises[j].Sub(raises[i]) >= tenMinutes {
			i++
		}
		if n := j - i + 1; n > c.Peak {
			c.Peak, c.PeakAt = n, raises[i]
		}
	}
	for entity, at := range byEntity {
		for i := 2; i < len(at); i++ {
			if at[i].Sub(at[i-2]) < time.Minute {
				c.Chattering = append(c.Chattering, entity)
				break
			}
		}
	}
	slices.Sort(c.Chattering)
	c.Chattering = c.Chattering[:min(len(c.Chattering), maxChattering)]
	return c
}

// result sums up and compares.
func (t *trial) result(took time.Duration) citywarden.Backtest {
	out := citywarden.Backtest{
		From: t.q.From, To: t.q.To, Warmup: t.warmup, Logged: t.logged, Messages: t.messages, Readings: t.readings,
		Took: citywarden.Duration(took.Round(time.Millisecond)), Rules: []citywarden.BacktestRule{},
	}
	seen := map[citywarden.RuleID]bool{}
	for _, r := range t.rules {
		out.Rules = append(out.Rules, t.compare(r.ID, r.Title, r.Version))
		seen[r.ID] = true
	}
	for _, r := range t.rules {
		if r.storm == nil || seen[r.storm.raise] {
			continue
		}
		seen[r.storm.raise] = true
		for _, s := range t.sides() {
			if y := s.tallies[r.storm.raise]; len(y.episodes) > 0 {
				out.Rules = append(out.Rules, t.compare(r.storm.raise, y.title, r.Version))
				break
			}
		}
	}
	t.note("Devices, attributes and models are those of now.", "设备、属性和型号均以当前登记的为准。")
	if t.logged.After(t.warmup) {
		t.note("What lies before "+stamp(t.logged, t.zone)+" comes from the time series: each reading arrives when it was measured, what people ordered and when the platform was down is not known there.",
			stamp(t.logged, t.zone)+" 之前的数据取自时序库：读数按测量时刻到达，人工操作和平台停机情况未知。")
	}
	if t.tried.orders > 0 || t.now != nil && t.now.orders > 0 {
		t.note("What people ordered (acknowledge, shelve, reset) went to the alarm of the same rule on the same entity, in both.",
			"人工操作（确认、搁置、复位）在两侧均作用于同一规则、同一对象的告警。")
	}
	out.Notes = t.notes
	return out
}

// compare puts the alarms of one rule on both sides beside each other.
func (t *trial) compare(id citywarden.RuleID, title citywarden.Text, version string) citywarden.BacktestRule {
	out := citywarden.BacktestRule{Rule: id, Title: title, Version: version}
	tried := t.tried.tallies[id]
	out.Tried = tried.counts(t.q.From, t.q.To)
	now := &tally{}
	if t.now != nil && t.now.e.set.has(id) {
		if r := t.now.e.set.byID[id]; r != nil {
			out.Running = r.Version
		}
		now = t.now.tallies[id]
		c := now.counts(t.q.From, t.q.To)
		out.Now = &c
	}
	byEntity := map[string][]*episode{}
	for i := range now.episodes {
		x := &now.episodes[i]
		byEntity[x.entity] = append(byEntity[x.entity], x)
	}
	matched := map[*episode]bool{}
	out.Alarms = []citywarden.BacktestAlarm{}
	for i := range tried.episodes {
		x := &tried.episodes[i]
		a := x.alarm("tried")
		longest := time.Duration(0)
		for _, y := range byEntity[x.entity] {
			d, ok := x.overlap(y, t.q.To)
			if !ok {
				continue
			}
			if a.In != "both" || d > longest {
				a.In, a.NowRaised, a.NowCleared, longest = "both", y.from, y.to, d
			}
			matched[y] = true
		}
		if a.In == "both" {
			out.Both++
		} else {
			out.OnlyTried++
		}
		out.Alarms = append(out.Alarms, a)
	}
	for i := range now.episodes {
		if x := &now.episodes[i]; !matched[x] {
			out.OnlyNow++
			out.Alarms = append(out.Alarms, x.alarm("now"))
		}
	}
	byTime := func(a, b citywarden.BacktestAlarm) int {
		return cmp.Or(a.Raised.Compare(b.Raised), cmp.Compare(a.Entity, b.Entity))
	}
	if out.More = max(len(out.Alarms)-maxListed, 0); out.More > 0 {
		slices.SortStableFunc(out.Alarms, func(a, b citywarden.BacktestAlarm) int {
			if same := a.In == "both"; same != (b.In == "both") {
				return map[bool]int{true: 1, false: -1}[same]
			}
			return byTime(a, b)
		})
		out.Alarms = out.Alarms[:maxListed]
	}
	slices.SortStableFunc(out.Alarms, byTime)
	return out
}

// has reports whether alarms of id come from a rule of the set.
func (s *Set) has(id citywarden.RuleID) bool { return s.byID[id] != nil }

func (x *episode) alarm(in string) citywarden.BacktestAlarm {
	return citywarden.BacktestAlarm{In: in, Entity: x.entity, Device: x.device, Severity: x.severity, Raised: x.from, Cleared: x.to}
}
