package rules

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/citywarden/citywarden"
)

// rerun compares, entity by entity, what the engine makes of the log between
// its snapshot and the desk's cursor with what the desk was told the first time.
// Both are the same unless rules, models or devices were changed since: the log
// does not hold those.
type rerun map[entity]*mark

// entity is what a rule has at most one open alarm on.
type entity struct {
	rule citywarden.RuleID
	name string
}

// mark is what the desk and the engine said about one entity.
type mark struct {
	sum     uint64 // of the transitions that only one of them has; 0 for none
	episode uint64 // the last
	n       uint64 // the highest number of a transition in an episode
}

// note enters a transition of the desk, or the same one of the engine.
func (p rerun) note(t *citywarden.Transition) {
	at, episode, n := splitKey(t.Key)
	m := p[at]
	if m == nil {
		m = &mark{}
		p[at] = m
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s %d", t.Key, t.Kind, t.Alarm.Severity)
	m.sum ^= h.Sum64()
	m.episode, m.n = max(m.episode, episode), max(m.n, n)
}

// key names a transition for ever: "rule/entity/episode/n".
func (at entity) key(episode, n uint64) string {
	return string(at.rule) + "/" + at.name + "/" + strconv.FormatUint(episode, 10) + "/" + strconv.FormatUint(n, 10)
}

// splitKey takes a key apart. An entity may contain slashes, a rule's id not.
func splitKey(key string) (at entity, episode, n uint64) {
	rule, rest, _ := strings.Cut(key, "/")
	for _, to := range []*uint64{&n, &episode} {
		i := max(strings.LastIndexByte(rest, '/'), 0)
		*to, _ = strconv.ParseUint(strings.TrimPrefix(rest[i:], "/"), 10, 64) // it is ours
		rest = rest[:i]
	}
	return entity{citywarden.RuleID(rule), rest}, episode, n
}

// changedMeanwhile is why an alarm is closed that the engine does not know.
const changedMeanwhile = "rules or devices changed while the platform was down"

// agree makes the engine go on from what the desk has for an entity of which
// both said different things; open is the desk's active alarm, nil for none. It
// returns what the desk has to be told with entry x, which is stepped next:
// an alarm that the engine does not hold any more is closed, one that the desk
// does not have begins as a new episode.
func (e *Engine) agree(x *citywarden.Entry, at entity, m *mark, open *citywarden.Alarm) []citywarden.Transition {
	e.out = nil
	e.pos, e.logged = x.Position, x.At
	now := max(ms(x.At), e.now)
	if open != nil {
		m.episode = max(m.episode, open.Episode)
	}
	run := e.runOf(at.rule)
	inst := run.insts[at.name]
	if inst == nil {
		run.episodes[at.name] = max(run.episodes[at.name], m.episode)
	}
	if inst != nil && inst.open && open != nil && inst.alarm.ID == open.ID {
		e.align(inst, now, m.n, open.Severity)
		return e.out
	}
	if open != nil {
		a := *open
		a.State, a.ClearedAt, a.Reason = citywarden.AlarmCleared, fromMS(now), changedMeanwhile
		a.Clearing, a.Latched, a.NoData = false, false, false
		a.Forsake()
		e.out = append(e.out, citywarden.Transition{
			Key: at.key(a.Episode, m.n+1), Position: e.pos, At: a.ClearedAt, Logged: e.logged,
			Kind: citywarden.Cleared, Alarm: a, Shadow: a.Shadow, Note: changedMeanwhile,
		})
	}
	if inst == nil {
		return e.out
	}
	inst.alarm.Episode = max(inst.alarm.Episode, m.episode)
	inst.touch()
	if !inst.open {
		return e.out
	}
	held := inst.inhibits()
	inst.open = false
	inst.tie()
	if parent := e.byAlarm[inst.under()]; parent != nil {
		delete(parent.children(), inst)
		inst.rare.under = ""
	}
	if sev, level, _ := inst.standing(); sev > 0 {
		e.raise(inst, inst.clock, sev, level)
	}
	if len(inst.children()) > 0 {
		e.erupt(inst, inst.clock, slices.SortedFunc(maps.Keys(inst.children()), byRuleAndEntity))
	}
	for _, x := range held {
		e.uninhibit(x, now)
	}
	return e.out
}

// runOf returns the run of a rule; of one that the engine has never seen, because
// it went while the platform was down, an empty one that is retired.
func (e *Engine) runOf(id citywarden.RuleID) *run {
	for _, x := range slices.Concat(e.runs, e.retired) {
		if x.rule.ID == id {
			return x
		}
	}
	x := retiredRun(id, "")
	e.retired = append(e.retired, x)
	return x
}

// retiredRun returns the run of a rule that is gone.
func retiredRun(id citywarden.RuleID, mode string) *run {
	return &run{rule: &rule{Rule: citywarden.Rule{ID: id, Mode: mode}, index: -1},
		insts: map[string]*instance{}, groups: map[string]*group{}, episodes: map[string]uint64{}}
}

// align goes on with an alarm that the desk has at another severity; n is the
// number of its last transition there.
func (e *Engine) align(inst *instance, now int64, n uint64, was citywarden.Severity) {
	inst.n = max(inst.n, n)
	inst.touch()
	kind := citywarden.Escalated
	switch {
	case inst.alarm.Severity == was:
		return
	case inst.alarm.Severity < was:
		kind = citywarden.Lowered
	}
	_, level, _ := inst.standing()
	e.emit(inst, now, kind, e.explain(inst, inst.clock, kind, level))
}
