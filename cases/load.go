package cases

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// The limits of EEMUA 191 and ANSI/ISA-18.2.
const (
	goalPerInterval = 1  // alarms per operator in 10 minutes
	floodBegins     = 10 // more than that per operator in 10 minutes
	floodEnds       = 5  // fewer than that
	chatterCount    = 3  // within chatterWithin
	chatterWithin   = time.Minute
	staleAfter      = 24 * time.Hour
	maxChattering   = 100
	maxTopRules     = 10
)

// LoadReader reads what the alarm load is made of.
type LoadReader interface {
	// Annunciations returns those of alarms in an area logged in [from, to), ordered by time.
	Annunciations(ctx context.Context, area citywarden.AreaCode, from, to time.Time) ([]citywarden.Annunciation, error)
	// StaleAlarms returns the live alarms of an area that are active, not suppressed
	// and were raised before that time, the oldest first, at most limit; count is how
	// many there are.
	StaleAlarms(ctx context.Context, area citywarden.AreaCode, before time.Time, limit int) (items []citywarden.Alarm, count int, err error)
}

// Load measures the load by the alarms of an area from a time (inclusive) to
// another (exclusive). Stale alarms are those of now.
func (d *Desk) Load(ctx context.Context, area citywarden.AreaCode, from, to time.Time) (citywarden.AlarmLoad, error) {
	l := citywarden.AlarmLoad{From: from, To: to, Operators: d.opt.Operators}
	all, err := d.read.Annunciations(ctx, area, from, to)
	if err != nil {
		return l, err
	}
	alarms := slices.DeleteFunc(all, func(a citywarden.Annunciation) bool { return a.WorkOrder })
	l.Alarms, l.WorkOrders = len(alarms), len(all)-len(alarms)
	l.Series, l.PerOperator = intervals(alarms, from, to, d.opt.Operators)
	l.Floods = floods(alarms, to, d.opt.Operators)
	l.Priorities = priorities(alarms)
	if l.TopRules, err = d.topRules(ctx, alarms); err != nil {
		return l, err
	}
	if l.Chattering, err = d.chattering(ctx, alarms); err != nil {
		return l, err
	}
	l.Stale, _, err = d.read.StaleAlarms(ctx, area, time.Now().Add(-staleAfter), citywarden.MaxPage)
	return l, err
}

// intervals counts the alarms of each 10 minutes; the last interval may be shorter.
func intervals(alarms []citywarden.Annunciation, from, to time.Time, operators int) ([]citywarden.LoadPoint, citywarden.OperatorLoad) {
	points := []citywarden.LoadPoint{}
	for at := from; at.Before(to); at = at.Add(citywarden.LoadInterval) {
		points = append(points, citywarden.LoadPoint{At: at})
	}
	o := citywarden.OperatorLoad{Goal: goalPerInterval}
	for _, a := range alarms {
		points[a.At.Sub(from)/citywarden.LoadInterval].Alarms++
	}
	over := 0
	for _, p := range points {
		n := float64(p.Alarms) / float64(operators)
		if n > o.Peak {
			o.Peak, o.PeakAt = n, p.At
		}
		if n > goalPerInterval {
			over++
		}
	}
	if len(points) > 0 {
		o.Mean = float64(len(alarms)) / float64(operators) / (float64(to.Sub(from)) / float64(citywarden.LoadInterval))
		o.OverGoalShare = float64(over) / float64(len(points))
	}
	return points, o
}

// floods finds the floods. A window holds the alarms of the last 10 minutes;
// one that is exactly 10 minutes old has left it.
func floods(alarms []citywarden.Annunciation, to time.Time, operators int) []citywarden.AlarmFlood {
	out := []citywarden.AlarmFlood{}
	first := -1 // alarm that the flood began with; -1: there is none
	oldest := 0 // alarm in the window
	// leave lets alarms leave the window up to a time, and ends the flood when too few are left.
	leave := func(now time.Time, n int) {
		for oldest < n {
			gone := alarms[oldest].At.Add(citywarden.LoadInterval)
			if gone.After(now) {
				return
			}
			if oldest++; first >= 0 && n-oldest < floodEnds*operators {
				out = append(out, citywarden.AlarmFlood{From: alarms[first].At, To: gone, Alarms: n - first})
				first = -1
			}
		}
	}
	for i, a := range alarms {
		leave(a.At, i)
		if first < 0 && i+1-oldest > floodBegins*operators {
			first = oldest
		}
	}
	leave(to, len(alarms))
	if first >= 0 {
		out = append(out, citywarden.AlarmFlood{From: alarms[first].At, To: to, Alarms: len(alarms) - first})
	}
	return out
}

func priorities(alarms []citywarden.Annunciation) map[citywarden.Priority]citywarden.Share {
	out := map[citywarden.Priority]citywarden.Share{
		citywarden.PriorityCritical: {Target: 0.05}, citywarden.PriorityMajor: {Target: 0.15}, citywarden.PriorityMinor: {Target: 0.80},
	}
	for _, a := range alarms {
		s := out[a.Severity.Priority()]
		s.Alarms++
		s.Share = float64(s.Alarms) / float64(len(alarms))
		out[a.Severity.Priority()] = s
	}
	return out
}

func (d *Desk) topRules(ctx context.Context, alarms []citywarden.Annunciation) ([]citywarden.RuleLoad, error) {
	count := map[string]int{}
	newest := map[string]citywarden.AlarmID{}
	for _, a := range alarms {
		rule, _, _ := strings.Cut(string(a.Alarm), ":")
		count[rule]++
		newest[rule] = a.Alarm
	}
	rules := slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b))
	})
	out := []citywarden.RuleLoad{}
	for _, rule := range rules[:min(len(rules), maxTopRules)] {
		a, err := d.read.Alarm(ctx, newest[rule])
		if err != nil {
			return nil, err
		}
		out = append(out, citywarden.RuleLoad{
			Rule: a.Rule, Title: a.Title, Alarms: count[rule], Share: float64(count[rule]) / float64(len(alarms)),
		})
	}
	return out, nil
}

func (d *Desk) chattering(ctx context.Context, alarms []citywarden.Annunciation) ([]citywarden.ChatteringAlarm, error) {
	type calls struct {
		recent      []time.Time // within the last minute
		most, count int
		newest      citywarden.AlarmID
		highest     citywarden.Severity // of newest
	}
	by := map[string]*calls{} // by rule and entity
	for _, a := range alarms {
		who := string(a.Alarm[:strings.LastIndexByte(string(a.Alarm), ':')])
		c := by[who]
		if c == nil {
			c = &calls{}
			by[who] = c
		}
		if a.Alarm == c.newest && a.Severity > c.highest {
			c.highest = a.Severity // it gets worse, and does not come again
			continue
		}
		c.recent = append(c.recent, a.At)
		for !c.recent[0].After(a.At.Add(-chatterWithin)) {
			c.recent = c.recent[1:]
		}
		c.most, c.count = max(c.most, len(c.recent)), c.count+1
		if a.Alarm != c.newest {
			c.newest, c.highest = a.Alarm, a.Severity
		}
	}
	maps.DeleteFunc(by, func(_ string, c *calls) bool { return c.most < chatterCount })
	whos := slices.SortedFunc(maps.Keys(by), func(a, b string) int {
		return cmp.Or(cmp.Compare(by[b].most, by[a].most), cmp.Compare(by[b].count, by[a].count), cmp.Compare(a, b))
	})
	out := []citywarden.ChatteringAlarm{}
	for _, who := range whos[:min(len(whos), maxChattering)] {
		a, err := d.read.Alarm(ctx, by[who].newest)
		if err != nil {
			return nil, err
		}
		out = append(out, citywarden.ChatteringAlarm{
			Rule: a.Rule, Title: a.Title, Entity: a.Entity, Device: a.Device, MostPerMinute: by[who].most, Count: by[who].count,
		})
	}
	return out, nil
}
