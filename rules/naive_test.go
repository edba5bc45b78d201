package rules

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"
	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// naive is a second engine, by the text of the language: it keeps the whole
// history, knows it all beforehand in event time, and looks for everything with
// plain loops. There is nothing in it of rings, panes, guards, timers, lanes.
type naive struct {
	set     *Set
	devices []*citywarden.Device
	seen    map[citywarden.DeviceID]map[string][]seen // by metric, ascending in time
	heard   map[citywarden.DeviceID][]int64
	out     []string
	trees   map[string]ast.Node
}

// seen is one reading.
type seen struct {
	ts int64
	v  any
}

// scene is what a condition is evaluated with.
type scene struct {
	n    *naive
	r    *rule
	d    *citywarden.Device
	g    []*citywarden.Device
	at   int64
	held bool
}

func (n *naive) model(d *citywarden.Device) *citywarden.Model { return n.set.plans[d.Model].model }

func (n *naive) device(id citywarden.DeviceID) *citywarden.Device {
	i := slices.IndexFunc(n.devices, func(d *citywarden.Device) bool { return d.ID == id })
	if i < 0 {
		return nil
	}
	return n.devices[i]
}

// adjacent returns the registered neighbours of d.
func (n *naive) adjacent(d *citywarden.Device) []*citywarden.Device {
	var out []*citywarden.Device
	for _, id := range d.Adjacent {
		if o := n.device(id); o != nil {
			out = append(out, o)
		}
	}
	return out
}

// upTo returns the readings of a metric up to and with at.
func (s scene) upTo(metric string, at int64) []seen {
	var out []seen
	for _, x := range s.n.seen[s.d.ID][metric] {
		if x.ts <= at {
			out = append(out, x)
		}
	}
	return out
}

func (s scene) stale() int64 { return 2 * s.n.model(s.d).Heartbeat.Std().Milliseconds() }

// value returns what metric holds at that time, nil for unknown.
func (s scene) value(metric string, at int64) (seen, bool) {
	all := s.upTo(metric, at)
	if len(all) == 0 {
		return seen{}, false
	}
	x := all[len(all)-1]
	return x, s.held || s.stale() == 0 || at-x.ts <= s.stale()
}

// window returns the readings in (at-w, at], or, when there are more than 32,
// those since the sixteenth of the window began in which at-w lies.
func (s scene) window(metric string, w int64) []seen {
	pane := w / 16
	begin := (s.at - w) / pane * pane
	var all []seen
	for _, x := range s.upTo(metric, s.at) {
		if x.ts >= begin {
			all = append(all, x)
		}
	}
	if len(all) > 32 {
		return all
	}
	return slices.DeleteFunc(all, func(x seen) bool { return x.ts <= s.at-w })
}

func (s scene) attr(name string) any {
	if v, ok := s.d.Attributes[name]; ok {
		return v
	}
	if a, ok := s.n.model(s.d).Attribute(name); ok {
		return a.Default
	}
	return nil
}

func and3(a, b any) any {
	if a == false || b == false {
		return false
	}
	if a == nil || b == nil {
		return nil
	}
	return true
}

func not3(a any) any {
	if a == nil {
		return nil
	}
	return !a.(bool)
}

func text3(n ast.Node) string { return n.(*ast.StringNode).Value }

func span3(n ast.Node) int64 {
	d, err := citywarden.ParseDuration(text3(n))
	if err != nil {
		panic(err)
	}
	return d.Std().Milliseconds()
}

// eval returns a float64, bool, string, or nil for unknown.
func (s scene) eval(node ast.Node) any {
	switch n := node.(type) {
	case *ast.BoolNode:
		return n.Value
	case *ast.IntegerNode:
		return float64(n.Value)
	case *ast.FloatNode:
		return n.Value
	case *ast.StringNode:
		return n.Value
	case *ast.IdentifierNode:
		local := time.UnixMilli(s.at).In(defaultLocation())
		switch n.Value {
		case "hour":
			return float64(local.Hour())
		case "weekday":
			return float64((int(local.Weekday())+6)%7 + 1)
		}
		if x, ok := s.value(n.Value, s.at); ok {
			return x.v
		}
		return nil
	case *ast.MemberNode:
		if s.d == nil {
			s.d = s.g[0]
		}
		return s.attr(text3(n.Property))
	case *ast.UnaryNode:
		x := s.eval(n.Node)
		switch {
		case x == nil:
			return nil
		case n.Operator == "-":
			return -x.(float64)
		}
		return not3(x)
	case *ast.ConditionalNode:
		switch s.eval(n.Cond) {
		case true:
			return s.eval(n.Exp1)
		case false:
			return s.eval(n.Exp2)
		}
		return nil
	case *ast.BuiltinNode:
		x := s.eval(n.Arguments[0])
		if x == nil {
			return nil
		}
		switch n.Name {
		case "abs":
			return math.Abs(x.(float64))
		case "floor":
			return math.Floor(x.(float64))
		case "ceil":
			return math.Ceil(x.(float64))
		case "round":
			return math.Round(x.(float64))
		case "len":
			return float64(len(x.(string)))
		case "upper":
			return strings.ToUpper(x.(string))
		case "lower":
			return strings.ToLower(x.(string))
		case "trim":
			return strings.TrimSpace(x.(string))
		}
	case *ast.BinaryNode:
		return s.binary(n)
	case *ast.CallNode:
		return s.call(n)
	}
	panic(fmt.Sprintf("naive: %T %s", node, node))
}

func (s scene) binary(n *ast.BinaryNode) any {
	if c, ok := n.Left.(*ast.CallNode); ok && (c.Callee.String() == "n_of" || c.Callee.String() == "n_adj") {
		lo, hi := s.members(c)
		a, b := compare3(n.Operator, float64(lo), s.eval(n.Right)), compare3(n.Operator, float64(hi), s.eval(n.Right))
		if n.Operator == "==" && lo < hi { // any number between
			k := s.eval(n.Right).(float64)
			if k < float64(lo) || k > float64(hi) {
				return false
			}
			return nil
		}
		if a == b {
			return a
		}
		return nil
	}
	l := s.eval(n.Left)
	switch n.Operator {
	case "and", "&&":
		return and3(l, s.eval(n.Right))
	case "or", "||":
		return not3(and3(not3(l), not3(s.eval(n.Right))))
	case "??":
		if l != nil {
			return l
		}
		return s.eval(n.Right)
	case "in":
		if l == nil {
			return nil
		}
		return slices.ContainsFunc(n.Right.(*ast.ArrayNode).Nodes, func(x ast.Node) bool { return s.eval(x) == l })
	}
	r := s.eval(n.Right)
	if l == nil || r == nil {
		return nil
	}
	switch n.Operator {
	case "matches":
		return strings.HasPrefix(l.(string), "a") || strings.HasPrefix(l.(string), "n") // the only pattern here: ^[an]
	case "contains":
		return strings.Contains(l.(string), r.(string))
	case "startsWith":
		return strings.HasPrefix(l.(string), r.(string))
	case "endsWith":
		return strings.HasSuffix(l.(string), r.(string))
	}
	return compare3(n.Operator, l, r)
}

func compare3(op string, l, r any) any {
	if l == nil || r == nil {
		return nil
	}
	switch op {
	case "==":
		return l == r
	case "!=":
		return l != r
	}
	a, b := l.(float64), r.(float64)
	var f float64
	switch op {
	case "<":
		return a < b
	case "<=":
		return a <= b
	case ">":
		return a > b
	case ">=":
		return a >= b
	case "+":
		f = a + b
	case "-":
		f = a - b
	case "*":
		f = a * b
	case "/":
		if b == 0 {
			return nil
		}
		f = a / b
	case "**":
		f = math.Pow(a, b)
	default:
		panic("naive: " + op)
	}
	if math.IsNaN(f) {
		return nil
	}
	return f
}

func (s scene) call(n *ast.CallNode) any {
	name := n.Callee.String()
	switch name {
	case "silent":
		w := s.eval(n.Arguments[0])
		if w == nil {
			return nil
		}
		d, err := citywarden.ParseDuration(w.(string))
		if err != nil {
			return nil
		}
		last := max(t0.UnixMilli(), ms(s.d.Created))
		for _, ts := range s.n.heard[s.d.ID] {
			if ts <= s.at {
				last = ts
			}
		}
		return s.at-last >= d.Std().Milliseconds()
	case "event":
		look := slices.Clone(s.g)
		if s.d != nil {
			look = append(look, s.d)
			look = append(look, s.n.adjacent(s.d)...)
		}
		for _, d := range look {
			for _, x := range s.n.seen[d.ID]["event"] {
				if x.v == text3(n.Arguments[0]) && x.ts > s.at-span3(n.Arguments[1]) && x.ts <= s.at {
					return true
				}
			}
		}
		return false
	case "prev", "changed":
		all := s.upTo(n.Arguments[0].String(), s.at)
		if len(all) < 2 {
			return nil
		}
		a, b := all[len(all)-2].v, all[len(all)-1].v
		if name == "prev" {
			return a
		}
		return a != b
	}
	w := span3(n.Arguments[1])
	metric := n.Arguments[0].String()
	switch name {
	case "delta", "rate":
		b, ok := s.value(metric, s.at)
		then, pane := s.at-w, w/16
		begin := then / pane * pane
		since := 0
		for _, x := range s.upTo(metric, s.at) {
			if x.ts >= begin {
				since++
			}
		}
		if since > 32 {
			then = begin - 1
		}
		a, ok2 := s.value(metric, then)
		if !ok || !ok2 || metric == "c" && b.v.(float64) < a.v.(float64) {
			return nil
		}
		d := b.v.(float64) - a.v.(float64)
		if name == "delta" {
			return d
		}
		if b.ts == a.ts {
			return 0.0
		}
		return d / (float64(b.ts-a.ts) / 1000)
	case "count":
		if _, ok := n.Arguments[0].(*ast.IdentifierNode); ok && metric != "on" {
			if len(s.upTo(metric, s.at)) == 0 {
				return nil
			}
			return float64(len(s.window(metric, w)))
		}
		times := map[int64]bool{}
		any := false
		for m := range metricsOf(n.Arguments[0]) {
			for _, x := range s.upTo(m, s.at) {
				any = true
				if x.ts > s.at-w {
					times[x.ts] = true
				}
			}
		}
		if !any {
			return nil
		}
		hits := 0
		for ts := range times {
			then := s
			then.at, then.held = ts, false
			if then.eval(n.Arguments[0]) == true {
				hits++
			}
		}
		return float64(hits)
	}
	all := s.window(metric, w)
	if len(all) == 0 {
		return nil
	}
	sum, lo, hi := 0.0, math.Inf(1), math.Inf(-1)
	for _, x := range all {
		v := x.v.(float64)
		sum, lo, hi = sum+v, min(lo, v), max(hi, v)
	}
	mean := sum / float64(len(all))
	switch name {
	case "sum":
		return sum
	case "avg":
		return mean
	case "min":
		return lo
	case "max":
		return hi
	case "stddev":
		sq := 0.0
		for _, x := range all {
			sq += (x.v.(float64) - mean) * (x.v.(float64) - mean)
		}
		return math.Sqrt(sq / float64(len(all)))
	}
	panic("naive: " + name)
}

// members counts those that satisfy the call for sure, and perhaps.
func (s scene) members(n *ast.CallNode) (lo, hi int) {
	return s.satisfy(n, func(citywarden.DeviceID) {})
}

// satisfy is members and calls f for those that satisfy the call for sure.
func (s scene) satisfy(n *ast.CallNode, f func(citywarden.DeviceID)) (lo, hi int) {
	list := s.g
	if n.Callee.String() == "n_adj" {
		list = s.n.adjacent(s.d)
	}
	for _, d := range list {
		m := s
		m.d, m.held = d, true
		if m.eval(n.Arguments[0]) != true {
			continue
		}
		hi++
		newest, reads := int64(math.MinInt64), metricsOf(n.Arguments[0])
		for name := range reads {
			if all := m.upTo(name, s.at); len(all) > 0 {
				newest = max(newest, all[len(all)-1].ts)
			}
		}
		if len(reads) == 0 || newest >= s.at-span3(n.Arguments[1]) {
			lo++
			f(d.ID)
		}
	}
	return lo, hi
}

var probeModel = sync.OnceValue(func() *citywarden.Model { return cityModels()["probe"] })

// metricsOf returns the metrics that n reads.
func metricsOf(n ast.Node) map[string]bool {
	m := probeModel()
	out := map[string]bool{}
	ast.Walk(&n, visitor(func(n ast.Node) {
		if id, ok := n.(*ast.IdentifierNode); ok {
			if _, ok := m.Metric(citywarden.MetricName(id.Value)); ok && id.Value != "event" { // the function
				out[id.Value] = true
			}
		}
		if c, ok := n.(*ast.CallNode); ok && c.Callee.String() == "silent" {
			out["*"] = true
		}
	}))
	return out
}

// level of the naive engine.
type naiveLevel struct {
	when, clear ast.Node
	hold, calm  int64
	severity    citywarden.Severity
	state       string // "", pending, active, clearing
	since       int64
	stalled     bool
}

// watcher is the state of one rule on one entity.
type watcher struct {
	n       *naive
	r       *rule
	entity  string
	scene   scene
	levels  []*naiveLevel
	clock   int64
	was     any // some level's condition when it was last looked at
	open    bool
	sev     citywarden.Severity
	ending  bool
	latched bool
	flips   []int64

	stage     *stage // where others and people interfere; nil in a history of readings only
	inhibited bool   // a level waits for an inhibitor to clear
	wakes     []int64
	zone      string // attr.zone of the entity, "" for none
	gone      bool   // of a rule that is gone: about to be closed
	alarm     citywarden.Alarm
	met       map[citywarden.DeviceID]bool // members that satisfied the condition of the open alarm
}

func (n *naive) parse(x string) ast.Node {
	if tree := n.trees[x]; tree != nil {
		return tree
	}
	m, _ := cityModels().Model("probe")
	tree, err := parser.ParseWithConfig(x, language(m))
	if err != nil {
		panic(err)
	}
	if n.trees == nil {
		n.trees = map[string]ast.Node{}
	}
	n.trees[x] = tree.Node
	return tree.Node
}

func (n *naive) watch(r *rule, entity string, d *citywarden.Device, g []*citywarden.Device) *watcher {
	w := &watcher{n: n, r: r, entity: entity, scene: scene{n: n, r: r, d: d, g: g}, clock: math.MinInt64}
	for _, l := range r.levels {
		x := &naiveLevel{when: n.parse(l.when.text), hold: l.hold, severity: l.severity}
		c := l.clear
		if c == nil {
			c = r.clear
		}
		if c != nil {
			x.clear, x.calm = n.parse(c.when.text), c.hold
		}
		w.levels = append(w.levels, x)
	}
	return w
}

// inForce reports whether the schedule is on, and when that changes; the
// intervals here are daily and begin and end on a minute.
func (w *watcher) inForce(at int64) (bool, int64) {
	if w.r.schedule == nil {
		return true, math.MaxInt64
	}
	on := func(at int64) bool {
		t := time.UnixMilli(at).In(w.r.schedule.loc)
		m := t.Hour()*60 + t.Minute()
		return slices.ContainsFunc(w.r.schedule.intervals, func(iv interval) bool {
			if iv.from < iv.to {
				return m >= iv.from && m < iv.to
			}
			return m >= iv.from || m < iv.to
		})
	}
	now := on(at)
	for t := at - at%60_000 + 60_000; ; t += 60_000 {
		if on(t) != now {
			return now, t
		}
	}
}

func (w *watcher) held() int64 {
	if f := w.r.flap; f != nil && len(w.flips) >= f.changes {
		return w.flips[len(w.flips)-f.changes] + f.in
	}
	return 0
}

// next returns the event time of the next deadline.
func (w *watcher) next() int64 {
	due := int64(math.MaxInt64)
	quiet := !w.open
	for _, l := range w.levels {
		quiet = quiet && l.state == ""
		if l.stalled {
			continue
		}
		switch l.state {
		case "pending":
			if !w.inhibited {
				due = min(due, l.since+l.hold)
			}
		case "clearing":
			due = min(due, max(l.since+l.calm, w.held()))
		}
	}
	if w.clock > math.MinInt64 && (!quiet || w.was == true) {
		_, until := w.inForce(w.clock)
		due = min(due, until)
	}
	return due
}

// until fires the deadlines up to at.
func (w *watcher) until(at int64) {
	for due := w.next(); due <= at; due = w.next() {
		w.look(max(due, w.clock))
	}
}

// look evaluates as of t.
func (w *watcher) look(t int64) {
	w.clock, w.was = t, nil
	s := w.scene
	s.at = t
	in, _ := w.inForce(t)
	flipped, inhibited := false, false
	for _, l := range w.levels {
		when := s.eval(l.when)
		if when == true {
			w.was = true
		}
		if !in {
			l.state, l.stalled = "", false
			continue
		}
		if l.state == "" && when == true {
			l.state, l.since = "pending", t
		}
		if l.state == "pending" {
			switch {
			case when == false:
				l.state, l.stalled = "", false
			case when == nil:
				l.stalled = true
			default:
				if l.stalled {
					l.since, l.stalled = t, false
				}
				if t < l.since+l.hold {
					break
				}
				if w.stage != nil && !w.open && w.stage.inhibited(w) {
					inhibited = true
					break
				}
				l.state, l.since, flipped = "active", t, true
			}
			continue
		}
		if l.state == "" {
			continue
		}
		done := not3(when)
		if l.clear != nil {
			if done = s.eval(l.clear); when == true {
				done = false
			}
		}
		if l.state == "active" && done == true {
			l.state, l.since, l.stalled, flipped = "clearing", t, false, true
		}
		if l.state == "active" {
			continue
		}
		switch done {
		case false:
			l.state, l.since, l.stalled, flipped = "active", t, false, true
		case nil:
			l.stalled = true
		default:
			if l.stalled {
				l.since, l.stalled = t, false
			}
			if t >= max(l.since+l.calm, w.held()) {
				l.state, l.since = "", t
			}
		}
	}
	w.inhibited = inhibited
	if flipped && w.r.flap != nil {
		w.flips = append(w.flips, t)
	}
	w.settle(t, in)
	if w.stage != nil {
		w.stage.joined(w, t)
	}
}

func (w *watcher) settle(t int64, in bool) {
	say := func(kind citywarden.TransitionKind) {
		if w.stage != nil {
			w.stage.say(w, t, kind)
			return
		}
		w.n.out = append(w.n.out, fmt.Sprintf("%s %s %s %s %s", w.r.ID, w.entity, time.Duration(t-t0.UnixMilli())*time.Millisecond, kind, w.sev))
	}
	sev, ending := citywarden.Severity(0), true
	for _, l := range w.levels {
		if l.state == "active" || l.state == "clearing" {
			sev = max(sev, l.severity)
			ending = ending && l.state == "clearing"
		}
	}
	switch {
	case !w.open && sev == 0:
	case !w.open:
		w.open, w.sev, w.ending, w.latched = true, sev, false, false
		say(citywarden.Raised)
	case sev == 0 && in && w.r.latch:
		if !w.latched {
			w.latched, w.ending = true, false
			say(citywarden.Latched)
		}
	case sev == 0:
		w.open = false
		say(citywarden.Cleared)
	case sev > w.sev:
		w.sev, w.latched, w.ending = sev, false, ending
		say(citywarden.Escalated)
	case w.latched:
		w.sev, w.latched, w.ending = sev, false, ending
		say(citywarden.Resumed)
	default:
		if sev < w.sev {
			w.sev = sev
			say(citywarden.Lowered)
		}
		if ending != w.ending {
			w.ending = ending
			kind := citywarden.Resumed
			if ending {
				kind = citywarden.Clearing
			}
			say(kind)
		}
	}
}

// run plays the whole history, in event time, up to end.
func (n *naive) run(end int64) []string {
	for _, r := range n.set.rules {
		if r.groupBy == "" {
			for _, d := range n.devices {
				w := n.watch(r, string(d.ID), d, nil)
				w.play(n.triggers(r, d), end)
			}
			continue
		}
		groups := map[string][]*citywarden.Device{}
		for _, d := range n.devices {
			key := string(d.ID)
			if v, ok := d.Attributes[r.groupBy]; ok {
				key = v.(string)
			}
			groups[key] = append(groups[key], d)
		}
		for key, g := range groups {
			w := n.watch(r, key, nil, g)
			var times []int64
			for _, d := range g {
				times = append(times, n.triggers(r, d)...)
			}
			w.play(times, end)
		}
	}
	slices.Sort(n.out)
	return n.out
}

func (w *watcher) play(times []int64, end int64) {
	slices.Sort(times)
	for _, ts := range slices.Compact(times) {
		w.until(ts - 1)
		w.look(ts)
	}
	w.until(end)
}

// triggers returns the moments at which d makes the rule be evaluated: its
// readings of what the rule reads, its neighbours' for a rule with n_adj, and
// for a rule with silent all its messages and what its silences last.
func (n *naive) triggers(r *rule, d *citywarden.Device) []int64 {
	reads := map[string]bool{}
	adjacent := false
	look := func(text string) {
		if text == "" {
			return
		}
		for m := range metricsOf(n.parse(text)) {
			reads[m] = true
		}
		if strings.Contains(text, "event(") {
			reads["event"] = true
		}
		adjacent = adjacent || strings.Contains(text, "n_adj(")
	}
	for _, l := range r.levels {
		look(l.when.text)
		if l.clear != nil {
			look(l.clear.when.text)
		}
	}
	if r.clear != nil {
		look(r.clear.when.text)
	}
	var out []int64
	if reads["*"] {
		stale := 2 * n.model(d).Heartbeat.Std()
		waits := []int64{stale.Milliseconds()} // the model's, and those in the rules here
		for _, r := range n.set.rules {
			if strings.Contains(r.Text, `silent("1m")`) {
				waits = append(waits, 60_000)
			}
			if strings.Contains(r.Text, "silent(attr.wait") {
				x, _ := citywarden.ParseDuration("3m")
				if v, ok := d.Attributes["wait"]; ok {
					x, _ = citywarden.ParseDuration(v.(string))
				}
				waits = append(waits, x.Std().Milliseconds())
			}
		}
		last := t0.UnixMilli()
		for _, ts := range append(slices.Clone(n.heard[d.ID]), math.MaxInt64) {
			for _, w := range waits {
				if last+w < ts {
					out = append(out, last+w)
				}
			}
			if ts < math.MaxInt64 {
				out = append(out, ts)
			}
			last = ts
		}
		return out
	}
	sources := []*citywarden.Device{d}
	if adjacent {
		sources = append(sources, n.adjacent(d)...)
	}
	for _, s := range sources {
		for m := range reads {
			for _, x := range n.seen[s.ID][m] {
				out = append(out, x.ts)
			}
		}
	}
	if adjacent && len(n.heard[d.ID]) > 0 { // a device that never reported has no state
		first := n.heard[d.ID][0]
		out = slices.DeleteFunc(out, func(ts int64) bool { return ts < first })
	} else if adjacent {
		return nil
	}
	return out
}

// author writes random rules for probes.
type author struct{ generator }

func (a *author) span() string { return a.pick(`"20s"`, `"90s"`, `"10m"`) }

func (a *author) window() string {
	m := a.pick("x", "y", "c")
	switch a.r.IntN(7) {
	case 0:
		return "stddev(" + m + ", " + a.span() + ") > 1.37"
	case 1:
		return a.pick("delta(", "rate(") + m + ", " + a.span() + ")" + a.pick(" > ", " < ") + a.pick("0.5", "-1", "0.01")
	case 2:
		return "count(" + a.pick("x", "mode", "on", "x > 3", "changed(on)", `mode == "auto" and y > 2`, `avg(x, "20s") > 2`) + ", " + a.span() + ")" + a.pick(" >= ", " < ") + a.pick("2", "4")
	case 3:
		return "prev(" + m + ") < " + m
	case 4:
		return "changed(" + a.pick("x", "on", "mode") + ")"
	}
	return a.pick("avg(", "min(", "max(", "sum(") + m + ", " + a.span() + ")" + a.pick(" > ", " >= ", " < ", " <= ") + a.pick("1", "2.5", "7", "attr.limit", "(attr.limit ?? 4)", "attr.level * 0.5")
}

func (a *author) cond() string {
	switch a.r.IntN(8) {
	case 0, 1:
		return a.window()
	case 2:
		return a.pick("x", "y") + a.pick(" > ", " >= ", " < ", " <= ") + a.pick("1", "2.5", "4", "attr.limit", "(attr.limit ?? 3)")
	case 3:
		return "(" + a.cond() + " and " + a.cond() + ")"
	case 4:
		return "(" + a.cond() + " or " + a.cond() + ")"
	case 5:
		return "not (" + a.cond() + ")"
	case 6:
		return `event("boom", ` + a.span() + ")"
	}
	return a.bool(1 + a.r.IntN(2))
}

func (a *author) group() string {
	n := func() string {
		if a.r.IntN(5) == 0 {
			return "n_of(" + a.cond() + `, "60s") ` + a.pick("< 2", "== 0", "== 1")
		}
		return "n_of(" + a.pick("x > 2.5", "x > (attr.limit ?? 3)", "on and y < 3", a.cond()) + `, "60s") ` + a.pick(">= 1", ">= 2", "> 1", "> 0")
	}
	switch a.r.IntN(3) {
	case 0:
		return n() + a.pick(" and ", " or ") + n()
	}
	return n()
}

func (a *author) when(kind int) string {
	for {
		x := a.cond()
		switch kind {
		case 1:
			x = a.group()
		case 2:
			x = "(" + a.cond() + ") and n_adj(" + a.pick("x > 2.5", "y < 3", `max(x, "20s") > 4`) + ", " + a.span() + ") >= " + a.pick("1", "2")
		case 3:
			x = a.pick("", "not ") + "silent(" + a.pick(`attr.wait ?? "3m"`, `"1m"`) + ")" + a.pick("", " or "+a.cond())
		}
		if reads := metricsOf((&naive{}).parse(x)); len(reads) > 0 || strings.Contains(x, "event(") {
			return x
		}
	}
}

func (a *author) rule(i int, late bool) string {
	kind := []int{0, 0, 0, 1, 1, 2, 3}[a.r.IntN(7)]
	if late {
		kind = 0 // groups and neighbours look at several devices, whose readings wait for each other in arrival time
	}
	var b strings.Builder
	fmt.Fprintf(&b, "- id: r%d\n  select: {model: probe}\n", i)
	if kind == 1 {
		b.WriteString("  group: {by: attr.zone}\n")
	}
	if late {
		b.WriteString("  late: 60s\n")
	}
	hold := func() string { return a.pick("", "", ", for: 5s", ", for: 17s", ", for: 2m") }
	clause := func() string { return fmt.Sprintf("{when: '%s'%s}", a.when(kind), hold()) }
	b.WriteString("  levels:\n")
	for k, n := 0, 1+a.r.IntN(3); k < n; k++ {
		own := ""
		if a.r.IntN(4) == 0 {
			own = ", clear: " + clause()
		}
		fmt.Fprintf(&b, "  - {severity: %s, when: '%s'%s%s}\n", []string{"minor", "critical", "major"}[k], a.when(kind), hold(), own)
	}
	if a.r.IntN(3) == 0 {
		b.WriteString("  clear: " + clause() + "\n")
	}
	if a.r.IntN(5) == 0 {
		b.WriteString("  latch: true\n")
	}
	if a.r.IntN(5) == 0 {
		b.WriteString("  flap: {changes: 3, in: 90s, then: hold}\n")
	}
	if a.r.IntN(5) == 0 && kind != 3 {
		b.WriteString(`  schedule: {active: ["mon-sun 08:05-08:20", "mon-sun 08:30-08:31", "mon-sun 23:00-01:00"]}` + "\n")
	}
	return b.String()
}

// values writes a message.
func (a *author) values(at time.Duration) (pairs []any) {
	r := a.r
	for _, p := range []struct {
		name string
		v    any
		in   int
	}{{"x", float64(r.IntN(14)) / 2, 1}, {"y", float64(r.IntN(10)) / 2, 2}, {"on", r.IntN(3) == 0, 3}, {"mode", []string{"auto", "fault"}[r.IntN(2)], 4},
		{"c", float64(at / time.Minute), 3}, {"event", []string{"boom", "tick"}[r.IntN(2)], 40}} {
		if r.IntN(p.in+1) < 1 {
			pairs = append(pairs, p.name, p.v)
		}
	}
	return pairs
}

// random writes rules, a history, and plays it with the engine in the order in
// which it arrives and with the naive one in the order in which it happened.
func random(t testing.TB, seed uint64) (yaml string, got, want []string) {
	a := &author{generator{rand.New(rand.NewPCG(seed, 5))}}
	r := a.r
	late := seed%3 == 0
	again := rand.New(rand.NewPCG(seed, 8))
	yaml = "rules:\n"
	for i := range 1 + r.IntN(5) {
		yaml += a.rule(i, late)
	}
	set, err := Load(mapFS(yaml), cityModels())
	if err != nil {
		t.Fatalf("seed %d: %v\n%s", seed, err, yaml)
	}
	w := &world{t: t, set: set, devices: everyDevices()}
	w.devices[3].Attributes["armed"], w.devices[0].Attributes["site"] = true, "north"
	w.e = w.engine()
	w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordTick, At: t0}})
	n := &naive{set: set, devices: w.devices, seen: map[citywarden.DeviceID]map[string][]seen{}, heard: map[citywarden.DeviceID][]int64{}}

	type message struct {
		ts, at time.Duration
		id     string
		pairs  []any
	}
	var log []message
	at := time.Duration(1 + r.IntN(1000))
	for range 60 + r.IntN(160) {
		at += time.Duration(1+r.IntN(9000)) * time.Millisecond
		if r.IntN(70) == 0 {
			at += time.Duration(r.IntN(2400)) * time.Second
		}
		m := message{ts: at, at: at, id: fmt.Sprintf("p%d", 1+r.IntN(1+r.IntN(5)))}
		if late {
			m.at += time.Duration(r.IntN(60_000)) * time.Millisecond
		}
		m.pairs = a.values(at)
		if len(m.pairs) == 0 {
			continue
		}
		log = append(log, m)
		if late && again.IntN(8) == 0 { // it is sent once more
			m.at = max(m.at, m.ts+time.Duration(again.IntN(60_000))*time.Millisecond)
			log = append(log, m)
		}
		id := citywarden.DeviceID(m.id)
		ts := t0.Add(m.ts).UnixMilli()
		if n.seen[id] == nil {
			n.seen[id] = map[string][]seen{}
		}
		for i := 0; i < len(m.pairs); i += 2 {
			n.seen[id][m.pairs[i].(string)] = append(n.seen[id][m.pairs[i].(string)], seen{ts, m.pairs[i+1]})
		}
		n.heard[id] = append(n.heard[id], ts)
	}
	slices.SortStableFunc(log, func(a, b message) int { return int(a.at - b.at) })
	for i, m := range log {
		w.send(m.id, m.ts, m.at, m.pairs...)
		snap := snapshot(t, w.e)
		if i%37 == 36 { // and a crash now and then
			w.e = w.engine()
			if err := w.e.Restore(snap); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
	end := at + time.Hour
	w.to(end + 5*time.Minute)
	for _, tr := range w.got {
		switch tr.Kind {
		case citywarden.WentDark, citywarden.CameBack, citywarden.Joined, citywarden.Flapped, citywarden.Steadied:
			continue
		}
		if tr.At.Sub(t0) <= end {
			got = append(got, fmt.Sprintf("%s %s %s %s %s", tr.Alarm.Rule, tr.Alarm.Entity, tr.At.Sub(t0), tr.Kind, tr.Alarm.Severity))
		}
	}
	slices.Sort(got)
	return yaml, got, n.run(t0.Add(end).UnixMilli())
}

// times returns how many rounds a test of random inputs does: those of repeats,
// or what CITYWARDEN_ROUNDS says, from the seed after the usual ones.
func times(t testing.TB, n uint64) (from, to uint64) {
	if s := os.Getenv("CITYWARDEN_ROUNDS"); s != "" {
		more, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n, n + more
	}
	return 0, repeats(n, max(n/10, 1))
}

// repeats returns how often a test repeats itself: n times, or few times with
// -short and under the race detector, which finds nothing in one goroutine.
func repeats(n, few uint64) uint64 {
	if testing.Short() || raced {
		return few
	}
	return n
}

func TestTheEngineDoesWhatTheLanguageSays(t *testing.T) {
	from, to := times(t, 100)
	seeds := []uint64{918} // a reading that waited in its lane while the schedule's timer fired was passed over
	for seed := from; seed < to; seed++ {
		seeds = append(seeds, seed)
	}
	transitions := 0
	for _, seed := range seeds {
		yaml, got, want := random(t, seed)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d: the engine (+) differs from the naive one (-):\n%s\n%s", seed, diff, yaml)
		}
		transitions += len(got)
	}
	t.Logf("%d histories, %d transitions", len(seeds), transitions)
}
