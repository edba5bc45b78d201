package network

import "math"

// rule is a rule of [RULES].
type rule struct {
	premises        []premise
	then, otherwise []action
	priority        float64
}

type premise struct {
	or       bool // joined to what is before by OR
	variable string
	index    int // of a node or link; -1 is the system
	relation string
	status   status // for a status
	byStatus bool
	value    float64 // in the units of the file; seconds for times
}

type action struct {
	link    int
	status  status // unset if the setting is to change
	setting float64
}

const unset status = -1

// ruleReader is where in a rule the reader is.
type ruleReader struct {
	state string // the clause: "", RULE, IF, THEN, ELSE or PRIO
	line  line   // where the rule begins
}

func (r *reader) rule(l line) error {
	word, err := r.choose(l, 0, "clause", "RULE", "IF", "AND", "OR", "THEN", "ELSE", "PRIO", "DISABLED")
	if err != nil {
		return err
	}
	n, s := r.n, &r.clause
	var current *rule
	if len(n.rules) > 0 {
		current = &n.rules[len(n.rules)-1]
	}
	misplaced := func() error {
		return r.fail(l, "%s has no place after %q; a rule is: RULE id, IF …, AND|OR …, THEN …, ELSE …, PRIORITY number", word, s.state)
	}
	switch word {
	case "RULE":
		if s.state == "RULE" || s.state == "IF" {
			return r.fail(s.line, "the rule has no THEN")
		}
		if len(l.words) != 2 {
			return r.fail(l, "a rule begins with: RULE id")
		}
		n.rules = append(n.rules, rule{})
		s.line, s.state = l, "RULE"
		return nil
	case "IF":
		if s.state != "RULE" {
			return misplaced()
		}
		s.state = "IF"
		return r.premise(l, current, false)
	case "AND", "OR":
		switch {
		case s.state == "IF":
			return r.premise(l, current, word == "OR")
		case word == "AND" && s.state == "THEN":
			return r.action(l, &current.then)
		case word == "AND" && s.state == "ELSE":
			return r.action(l, &current.otherwise)
		}
		return misplaced()
	case "THEN":
		if s.state != "IF" {
			return misplaced()
		}
		s.state = "THEN"
		return r.action(l, &current.then)
	case "ELSE":
		if s.state != "THEN" {
			return misplaced()
		}
		s.state = "ELSE"
		return r.action(l, &current.otherwise)
	case "PRIO":
		if s.state != "THEN" && s.state != "ELSE" {
			return misplaced()
		}
		s.state = "PRIO"
		current.priority, err = r.number(l, 1, "priority", anything)
		return err
	}
	// DISABLED
	if s.state != "THEN" && s.state != "ELSE" && s.state != "PRIO" {
		return misplaced()
	}
	n.rules = n.rules[:len(n.rules)-1]
	s.state = ""
	return nil
}

func (r *reader) premise(l line, to *rule, or bool) (err error) {
	if len(l.words) < 5 || len(l.words) > 6 {
		return r.fail(l, "a premise is: IF|AND|OR object id variable relation value, or IF SYSTEM variable relation value")
	}
	p := premise{or: or, index: -1}
	object, err := r.choose(l, 1, "object", "JUNC", "RESER", "TANK", "PIPE", "PUMP", "VALVE", "NODE", "LINK", "SYSTEM")
	if err != nil {
		return err
	}
	at := 3
	var allowed []string
	switch object {
	case "SYSTEM":
		at = 2
		allowed = []string{"DEMAND", "TIME", "CLOCKTIME"}
	case "JUNC", "RESER", "TANK", "NODE":
		if p.index, err = r.findNode(l, 2); err != nil {
			return err
		}
		allowed = []string{"DEMAND", "HEAD", "GRADE", "LEVEL", "PRESSURE", "FILLTIME", "DRAINTIME"}
	default:
		if p.index, err = r.findLink(l, 2); err != nil {
			return err
		}
		allowed = []string{"FLOW", "STATUS", "SETTING"}
	}
	if p.variable, err = r.choose(l, at, "variable", allowed...); err != nil {
		return err
	}
	if (p.variable == "FILLTIME" || p.variable == "DRAINTIME") && p.index < r.n.junctions {
		return r.fail(l, "node %s is not a tank, so it has no %s", l.words[2], p.variable)
	}
	if p.relation, err = r.choose(l, at+1, "relation", "=", "<>", "<=", ">=", "<", ">", "IS", "NOT", "BELOW", "ABOVE"); err != nil {
		return err
	}
	if same, ok := map[string]string{"IS": "=", "NOT": "<>", "BELOW": "<", "ABOVE": ">"}[p.relation]; ok {
		p.relation = same
	}
	last := len(l.words) - 1
	switch {
	case p.variable == "TIME" || p.variable == "CLOCKTIME":
		hours, ok := clock(l.word(at+2), l.word(at+3))
		if !ok {
			return r.fail(l, "%q is not a time; write hours, h:mm, or a clock time with AM or PM", l.word(at+2))
		}
		p.value = math.Floor(3600 * hours)
	case l.is(last, "OPEN"), l.is(last, "CLOSED"), l.is(last, "ACTIVE"):
		p.byStatus, p.status = true, r.statusWord(l, last)
	default:
		if p.value, err = r.number(l, last, "value", anything); err != nil {
			return err
		}
		if p.variable == "FILLTIME" || p.variable == "DRAINTIME" {
			p.value *= 3600
		}
	}
	to.premises = append(to.premises, p)
	return nil
}

func (r *reader) statusWord(l line, i int) status {
	switch {
	case l.is(i, "OPEN"):
		return open
	case l.is(i, "CLOSED"):
		return closed
	}
	return active
}

func (r *reader) action(l line, to *[]action) (err error) {
	if len(l.words) != 6 {
		return r.fail(l, "an action is: THEN|ELSE|AND object id STATUS|SETTING IS value")
	}
	a := action{status: unset, setting: missing}
	if a.link, err = r.findLink(l, 2); err != nil {
		return err
	}
	k := &r.n.links[a.link]
	if k.kind == CheckValve {
		return r.fail(l, "link %s is a check valve, which nothing controls", k.id)
	}
	if l.is(5, "OPEN") || l.is(5, "CLOSED") || l.is(5, "ACTIVE") {
		a.status = r.statusWord(l, 5)
	} else if a.setting, err = r.number(l, 5, "status or setting", 0); err != nil {
		return err
	} else if k.kind == GPV {
		return r.fail(l, "valve %s is a GPV, which can only be OPEN or CLOSED", k.id)
	} else if k.kind == Pipe {
		a.status = open
		if a.setting == 0 {
			a.status = closed
		}
		a.setting = missing
	} else {
		a.setting = r.n.settingIn(k, a.setting)
	}
	*to = append(*to, a)
	return nil
}

// ruleStep goes through the next step in steps of the rules, fills and drains
// the tanks, and returns after how long a rule acted, step if none did.
func (s *solver) ruleStep(step int) int {
	every := s.n.options.ruleStep
	start, end := s.now, s.now+step
	dt := min(every-start%every, step)
	for {
		s.now += dt
		s.fill(dt)
		if s.applyRules(dt) || s.now >= end {
			break
		}
		dt = min(every, end-s.now)
	}
	step, s.now = s.now-start, start
	return step
}

// applyRules evaluates all rules over the last dt seconds and reports whether
// any changed a link.
func (s *solver) applyRules(dt int) bool {
	type choice struct {
		action
		priority float64
	}
	var chosen []choice
	for i := range s.n.rules {
		u := &s.n.rules[i]
		actions := u.otherwise
		if s.holds(u, s.now-dt+1) {
			actions = u.then
		}
	next:
		for _, a := range actions {
			for c := range chosen { // one action per link: the first, unless a later one has priority
				if chosen[c].link == a.link {
					if u.priority > chosen[c].priority {
						chosen[c] = choice{a, u.priority}
					}
					continue next
				}
			}
			chosen = append(chosen, choice{a, u.priority})
		}
	}
	changed := false
	for _, c := range chosen {
		is := s.status[c.link]
		switch {
		case c.status == open && is <= closed, c.status == closed && is > closed:
			s.setStatus(c.link, c.status)
			changed = true
		case c.setting != missing && math.Abs(c.setting-s.setting[c.link]) > 1e-3:
			s.setSetting(c.link, c.setting)
			changed = true
		}
	}
	return changed
}

func (s *solver) holds(u *rule, since int) bool {
	result := true
	for i := range u.premises {
		p := &u.premises[i]
		switch {
		case p.or && result:
		case p.or || result:
			result = s.check(p, since)
		default:
			return false
		}
	}
	return result
}

func (s *solver) check(p *premise, since int) bool {
	switch {
	case p.variable == "TIME":
		return timeHolds(p, since, s.now)
	case p.variable == "CLOCKTIME":
		c := s.n.options.startClock + s.begin
		return timeHolds(p, (since+c)%day, (s.now+c)%day)
	case p.byStatus:
		if p.variable != "STATUS" {
			return false
		}
		is := s.status[p.index]
		switch {
		case is <= closed:
			is = closed
		case is != active:
			is = open
		}
		return (is == p.status) == (p.relation == "=") && (p.relation == "=" || p.relation == "<>")
	}
	f := s.n.factors
	var x float64
	switch p.variable {
	case "DEMAND":
		if p.index < 0 {
			x = s.total * f.flow
		} else {
			x = s.demand[p.index] * f.flow
		}
	case "HEAD", "GRADE":
		x = s.head[p.index] * f.length
	case "PRESSURE":
		x = (s.head[p.index] - s.n.nodes[p.index].elevation) * f.pressure
	case "LEVEL":
		x = (s.head[p.index] - s.n.nodes[p.index].elevation) * f.length
	case "FLOW":
		x = math.Abs(s.flow[p.index]) * f.flow
	case "SETTING":
		if s.setting[p.index] == missing {
			return false
		}
		x = s.setting[p.index] * s.n.settingFactor(&s.n.links[p.index])
	case "FILLTIME", "DRAINTIME":
		t, q := s.n.nodes[p.index].tank, s.demand[p.index]
		switch {
		case t != nil && p.variable == "FILLTIME" && q > tiny:
			x = (t.volumeMax - s.volume[p.index]) / q
		case t != nil && p.variable == "DRAINTIME" && q < -tiny:
			x = (t.volumeMin - s.volume[p.index]) / q
		default:
			return false
		}
	default:
		return false
	}
	const tolerance = 1e-3 // as in EPANET, on the generous side for < and >
	d := x - p.value
	switch p.relation {
	case "=":
		return math.Abs(d) <= tolerance
	case "<>":
		return math.Abs(d) >= tolerance
	case "<":
		return d <= tolerance
	case "<=":
		return d <= -tolerance
	case ">":
		return d >= -tolerance
	default:
		return d >= tolerance
	}
}

func timeHolds(p *premise, since, now int) bool {
	x := int(math.Min(p.value, maxTime))
	in := x >= since && x <= now
	if now < since { // over midnight
		in = x >= since || x <= now
	}
	switch p.relation {
	case "=":
		return in
	case "<>":
		return !in
	case "<":
		return now < x
	case "<=":
		return now <= x
	case ">":
		return now > x
	default:
		return now >= x
	}
}
