package cases

import (
	"context"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
)

// WorkReader reads the work on cases.
type WorkReader interface {
	// CountWork calls f with how much of the work that a filter selects is alike.
	// The same key, marks and state may come several times.
	CountWork(ctx context.Context, w citywarden.WorkFilter, f func(citywarden.WorkCount)) error
	// CasesWithoutWork returns cases that no work is stored of, at most limit.
	CasesWithoutWork(ctx context.Context, limit int) ([]citywarden.CaseID, error)
}

// nowhere is the key of what lies in no unit grid.
const nowhere = "-"

// Evaluate says what the work on cases was worth in a period.
//
// What was done counts in the period in which it was done. What was not done at
// its end, or is not done now, counts as it was then: as overdue when its limit had
// passed. How good the work was counts as it is known now. CodeInvalid when the
// query makes no sense.
func (d *Desk) Evaluate(ctx context.Context, q citywarden.EvaluationQuery) (citywarden.Evaluation, error) {
	q, err := settled(q)
	if err != nil {
		return citywarden.Evaluation{}, err
	}
	e := d.opt.Measures.evaluation(q)
	for _, s := range subjectsBy(q.By) {
		t, err := d.tally(ctx, q, e.AsOf, s)
		if err != nil {
			return e, err
		}
		total := d.opt.Measures.row(s, t.all)
		if q.By == citywarden.ByPost {
			total.Key, total.Name, total.Post = s.code, s.name, s.code
			e.Rows = append(e.Rows, total)
		} else {
			total.Name = text("合计", "total")
			e.Total = &total
		}
		for _, key := range slices.Sorted(maps.Keys(t.by)) {
			r := d.opt.Measures.row(s, t.by[key])
			r.Key, r.Name = key, text(key, key)
			if q.By == citywarden.ByPost {
				r.Key, r.Post, r.Person = s.code+"/"+key, s.code, key
			}
			e.Rows = append(e.Rows, r)
		}
	}
	switch q.By {
	case citywarden.ByArea:
		d.nameAreas(q.Level, e.Rows)
	case citywarden.ByPost:
		return e, d.namePeople(ctx, e.Rows)
	}
	return e, nil
}

// EvaluatedCases returns the cases behind a figure: those of part of the indicator
// called code, of the row that has key, "" for the total. CodeInvalid when there is
// no such figure.
func (d *Desk) EvaluatedCases(ctx context.Context, q citywarden.EvaluationQuery, code, key string, part citywarden.Part, p citywarden.Page) ([]citywarden.Case, string, error) {
	q, err := settled(q)
	if err != nil {
		return nil, "", err
	}
	s, key, err := subjectOf(q, key)
	if err != nil {
		return nil, "", err
	}
	i := slices.IndexFunc(indicators, func(x indicator) bool { return x.code == code && slices.Contains(x.subjects, s.code) })
	if i < 0 {
		return nil, "", citywarden.Errorf(citywarden.CodeInvalid, "indicator %q: %s has %s", code, s.code, strings.Join(codesFor(s.code), ", "))
	}
	f := filter(q, asOf(q), s)
	if key != "" {
		k := strings.TrimPrefix(key, nowhere)
		f.Key = &k
	}
	work := parts(f, d.opt.Measures.of[code], indicators[i].which, part)
	if len(work) == 0 { // the rest of a count
		return nil, "", nil
	}
	return d.Cases(ctx, citywarden.CaseFilter{Work: work, Page: p})
}

// settled returns q with its defaults, or what is wrong with it.
func settled(q citywarden.EvaluationQuery) (citywarden.EvaluationQuery, error) {
	switch {
	case !q.From.Before(q.To):
		return q, citywarden.Errorf(citywarden.CodeInvalid, "evaluation: from %s is not before to %s", q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	case len(subjectsBy(q.By)) == 0:
		return q, citywarden.Errorf(citywarden.CodeInvalid, "evaluation by %q: it is by area, department or post", q.By)
	case q.By != citywarden.ByArea && (q.Level != "" || q.Under != ""):
		return q, citywarden.Errorf(citywarden.CodeInvalid, "evaluation by %s has no level and nothing under it; areas have", q.By)
	case q.Only != "" && q.By != citywarden.ByDepartment:
		return q, citywarden.Errorf(citywarden.CodeDenied, "evaluation: %s sees its own by department only", q.Only)
	case q.By == citywarden.ByArea && q.Level == "":
		q.Level = citywarden.LevelTown
	}
	if q.Level == citywarden.LevelGrid && len(q.Under) < 9 {
		return q, citywarden.Errorf(citywarden.CodeInvalid, "evaluation of unit grids: say under which town or village, like 350623100")
	}
	return q, nil
}

// asOf returns the end of the period, or now, with what was done in this very
// millisecond.
func asOf(q citywarden.EvaluationQuery) time.Time {
	if now := time.Now().UTC().Truncate(time.Millisecond).Add(time.Millisecond); now.Before(q.To) {
		return now
	}
	return q.To
}

func subjectsBy(by citywarden.EvaluationBy) []subject {
	var out []subject
	for _, s := range subjects {
		if s.by == by {
			out = append(out, s)
		}
	}
	return out
}

// subjectOf returns what the row called key evaluates, and its key there.
func subjectOf(q citywarden.EvaluationQuery, key string) (subject, string, error) {
	all := subjectsBy(q.By)
	if q.By != citywarden.ByPost {
		if q.Only != "" && key != "" && key != q.Only {
			return subject{}, "", citywarden.Errorf(citywarden.CodeDenied, "evaluation: %s sees its own only", q.Only)
		}
		return all[0], key, nil
	}
	post, person, _ := strings.Cut(key, "/")
	i := slices.IndexFunc(all, func(s subject) bool { return s.code == post })
	if i < 0 {
		return subject{}, "", citywarden.Errorf(citywarden.CodeInvalid, "key %q: write a post, or a post and a person like acceptor/lin", key)
	}
	return all[i], person, nil
}

// filter selects all work that is evaluated, of any kind.
func filter(q citywarden.EvaluationQuery, until time.Time, s subject) citywarden.WorkFilter {
	f := citywarden.WorkFilter{From: q.From, To: until, By: s.key, Area: q.Area}
	if q.Level == citywarden.LevelGrid {
		f.By = citywarden.WorkByGrid
	}
	switch {
	case q.Under != "":
		f.Key = &q.Under
	case q.Only != "":
		f.Key = &q.Only
	}
	return f
}

// parts selects the work of p, of which w is in the numerator, that is in part.
func parts(f citywarden.WorkFilter, p population, w which, part citywarden.Part) []citywarden.WorkFilter {
	f.Kind, f.Need, f.Not, f.States = p.kind, p.need, p.not, p.states
	if part == citywarden.PartDenominator {
		return []citywarden.WorkFilter{f}
	}
	in := f
	if w.states != 0 {
		in.States &= w.states
	}
	if part == citywarden.PartNumerator {
		in.Need, in.Not = in.Need|w.need, in.Not|w.not
		return []citywarden.WorkFilter{in}
	}
	var out []citywarden.WorkFilter
	if f.States &^= in.States; f.States != 0 {
		out = append(out, f)
	}
	for m := citywarden.WorkMark(1); m <= w.need|w.not; m <<= 1 {
		x := in
		switch {
		case w.need&m != 0:
			x.Not |= m
		case w.not&m != 0:
			x.Need |= m
		default:
			continue
		}
		out = append(out, x)
	}
	return out
}

// tally is how much work there is.
type tally struct {
	by  map[string]counts
	all counts
}

// counts are how many pieces of work are alike.
type counts map[alike]int

type alike struct {
	kind  citywarden.WorkKind
	marks citywarden.WorkMark
	state citywarden.WorkStates
}

// atOnce is how many kinds of work are counted at the same time.
const atOnce = 4

func (d *Desk) tally(ctx context.Context, q citywarden.EvaluationQuery, until time.Time, s subject) (tally, error) {
	t := tally{by: map[string]counts{}, all: counts{}}
	states := map[citywarden.WorkKind]citywarden.WorkStates{}
	for _, x := range indicators {
		if slices.Contains(x.subjects, s.code) {
			p := d.opt.Measures.of[x.code]
			states[p.kind] |= p.states
		}
	}
	var mu sync.Mutex // guards t and failed
	var failed error
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for kind, states := range states {
		f := filter(q, until, s)
		f.Kind, f.States = kind, states
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			err := d.read.CountWork(ctx, f, func(c citywarden.WorkCount) {
				key := c.Key
				if q.By == citywarden.ByArea {
					key = areaOf(key, q.Level)
				}
				mu.Lock()
				defer mu.Unlock()
				t.add(key, alike{kind, c.Marks, c.State}, c.N)
			})
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = err
			}
		})
	}
	all.Wait()
	return t, failed
}

// add counts n more; of nobody in particular, in all only.
func (t *tally) add(key string, a alike, n int) {
	t.all[a] += n
	if key == "" {
		return
	}
	if t.by[key] == nil {
		t.by[key] = counts{}
	}
	t.by[key][a] += n
}

// areaOf returns the code of the area of level l that a village or a unit grid is
// in; nowhere for "".
func areaOf(code string, l citywarden.Level) string {
	n := map[citywarden.Level]int{citywarden.LevelCounty: 6, citywarden.LevelTown: 9, citywarden.LevelVillage: 12, citywarden.LevelGrid: len(code)}[l]
	if code == "" || len(code) < n {
		return nowhere
	}
	return code[:n]
}

func (d *Desk) nameAreas(l citywarden.Level, rows []citywarden.EvaluationRow) {
	names := map[string]string{}
	if l == citywarden.LevelGrid {
		for _, g := range d.opt.Grids.All() {
			names[string(g.Code)] = g.Name
		}
	}
	for _, a := range d.opt.Grids.Areas(l, "") {
		names[a.Code] = a.Name
	}
	for i := range rows {
		switch n := names[rows[i].Key]; {
		case rows[i].Key == nowhere:
			rows[i].Name = text("不在网格内", "in no unit grid")
		case n != "":
			rows[i].Name = text(n, n)
		}
	}
}

// namePeople names people as others call them, where there is such a name.
func (d *Desk) namePeople(ctx context.Context, rows []citywarden.EvaluationRow) error {
	users, err := d.read.Users(ctx)
	if err != nil {
		return err
	}
	titles := map[string]string{}
	for _, u := range users {
		titles[u.Name] = u.Title
	}
	for i := range rows {
		if title := titles[rows[i].Person]; title != "" {
			rows[i].Name = text(title, title)
		}
	}
	return nil
}

// evaluation returns the head of an evaluation.
func (m *Measures) evaluation(q citywarden.EvaluationQuery) citywarden.Evaluation {
	e := citywarden.Evaluation{
		From: q.From, To: q.To, AsOf: asOf(q), By: q.By, Level: q.Level, Under: q.Under,
		Volume: m.volume, Grades: grades, Rows: []citywarden.EvaluationRow{}, Scores: []citywarden.ScoreRule{}, Indicators: []citywarden.Indicator{},
	}
	for _, x := range indicators {
		if !slices.ContainsFunc(subjectsBy(q.By), func(s subject) bool { return slices.Contains(x.subjects, s.code) }) {
			continue
		}
		i := citywarden.Indicator{Code: x.code, Name: x.name, Numerator: x.numerator, Better: x.better, Clause: clause}
		if len(x.of) > 0 {
			p := m.of[x.code]
			i.Denominator = &citywarden.Denominator{Code: p.code, Name: p.name, Choices: x.of}
		}
		e.Indicators = append(e.Indicators, i)
	}
	for _, s := range subjectsBy(q.By) {
		r := citywarden.ScoreRule{Of: s.code, Name: s.name, Parts: []citywarden.ScorePart{}}
		for _, code := range codesFor(s.code) {
			if w := m.weights[s.code][code]; w > 0 {
				r.Parts = append(r.Parts, citywarden.ScorePart{Indicator: code, Weight: w})
			}
		}
		e.Scores = append(e.Scores, r)
	}
	return e
}

// row evaluates s by its work.
func (m *Measures) row(s subject, work counts) citywarden.EvaluationRow {
	r := citywarden.EvaluationRow{Figures: []citywarden.Figure{}}
	sum, weights := 0.0, 0.0
	for _, x := range indicators {
		if !slices.Contains(x.subjects, s.code) {
			continue
		}
		f := m.figure(x, work)
		r.Figures = append(r.Figures, f)
		if worth, ok := m.worth(x, f); ok {
			w := m.weights[s.code][x.code]
			sum, weights = sum+w*worth, weights+w
		}
	}
	if weights > 0 {
		score := math.Round(100*sum/weights) / 100
		r.Score = &score
		r.Grade = gradeOf(score)
	}
	return r
}

func (m *Measures) figure(x indicator, work counts) citywarden.Figure {
	f := citywarden.Figure{Indicator: x.code}
	p := m.of[x.code]
	for a, n := range work {
		c := citywarden.WorkCount{Marks: a.marks, State: a.state}
		if a.kind != p.kind || !p.holds(c) {
			continue
		}
		f.Of += n
		if x.which.holds(c) {
			f.Cases += n
		}
	}
	if len(x.of) == 0 {
		f.Of = 0
		return f
	}
	if f.Of > 0 {
		rate := float64(f.Cases) / float64(f.Of)
		f.Rate = &rate
	}
	return f
}

// worth returns what a figure is worth, 0 to 100; ok is false when there were no
// cases.
func (m *Measures) worth(x indicator, f citywarden.Figure) (worth float64, ok bool) {
	switch {
	case len(x.of) == 0:
		for _, s := range m.volume {
			if f.Cases >= s.From {
				worth = s.Score
			}
		}
		return worth, f.Cases > 0
	case f.Rate == nil:
		return 0, false
	case x.better == citywarden.Lower:
		return 100 * (1 - *f.Rate), true
	}
	return 100 * *f.Rate, true
}

func gradeOf(score float64) string {
	for _, g := range grades {
		if score >= g.From {
			return g.Grade
		}
	}
	return ""
}
