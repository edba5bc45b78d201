package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// SetWork replaces the work on the case called id, and corrects the sums of it.
func (t *DeskTx) SetWork(ctx context.Context, id citywarden.CaseID, work []citywarden.CaseWork) error {
	changed := sums{}
	old, err := list(ctx, t.q, func(s scanner) (w doneWork, err error) {
		return w, s.Scan(&w.kind, &w.month, &w.village, &w.department, &w.person, &w.marks)
	}, `DELETE FROM case_work WHERE case_id = $1 RETURNING kind, month, village, department, person, marks`, string(id))
	if err != nil {
		return fmt.Errorf("replace the work on case %s: %w", id, err)
	}
	for _, w := range old {
		changed.add(w, -1)
	}
	for n, w := range work {
		d := doneWork{string(w.Kind), month(w.Done), w.Grid.In(citywarden.LevelVillage), w.Department, w.Person, int(w.Marks)}
		_, err := t.q.ExecContext(ctx, `INSERT INTO case_work (case_id, n, kind, person, department, village, grid, began, due, done, month, marks)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
			string(id), n, d.kind, d.person, d.department, d.village, string(w.Grid), toMS(w.Began), toMS(w.Due), toMS(w.Done), d.month, d.marks)
		if err != nil {
			return fmt.Errorf("save the work on case %s: %w", id, err)
		}
		changed.add(d, 1)
	}
	return changed.save(ctx, t.q)
}

// doneWork is what a row of case_work is summed up by.
type doneWork struct {
	kind                        string
	month                       int
	village, department, person string
	marks                       int
}

// sums are by how much rows of case_work_sums change.
type sums map[sumKey]int

type sumKey struct {
	kind  string
	by    citywarden.WorkKey
	month int
	key   string
	marks int
}

// add counts n times w, unless it is not done.
func (s sums) add(w doneWork, n int) {
	if w.month == 0 {
		return
	}
	s[sumKey{w.kind, citywarden.WorkByVillage, w.month, w.village, w.marks}] += n
	s[sumKey{w.kind, citywarden.WorkByPerson, w.month, w.person, w.marks}] += n
	s[sumKey{w.kind, citywarden.WorkByDepartment, w.month, w.department, w.marks}] += n
}

func (s sums) save(ctx context.Context, q querier) error {
	var rows []string
	var args []any
	for k, n := range s {
		if n == 0 {
			continue
		}
		i := len(args)
		rows = append(rows, fmt.Sprintf("($%d, $%d, $%d, $%d, $%d, $%d)", i+1, i+2, i+3, i+4, i+5, i+6))
		args = append(args, k.kind, string(k.by), k.month, k.key, k.marks, n)
	}
	if rows == nil {
		return nil
	}
	_, err := q.ExecContext(ctx, `INSERT INTO case_work_sums (kind, by_what, month, key_value, marks, n) VALUES `+strings.Join(rows, ", ")+`
		ON CONFLICT (kind, by_what, month, key_value, marks) DO UPDATE SET n = case_work_sums.n + excluded.n`, args...)
	if err != nil {
		return fmt.Errorf("sum up the work on cases: %w", err)
	}
	return nil
}

// month returns what the column of that name holds for work done at t.
func month(t time.Time) int {
	if t.IsZero() {
		return 0
	}
	t = t.UTC()
	return 12*t.Year() + int(t.Month()) - 1
}

// CasesWithoutWork returns cases that no work is stored of, at most limit.
func (d *DB) CasesWithoutWork(ctx context.Context, limit int) ([]citywarden.CaseID, error) {
	ids, err := list(ctx, d.sql, func(s scanner) (id citywarden.CaseID, err error) { return id, s.Scan(&id) },
		`SELECT id FROM cases WHERE work_order = 0 AND NOT EXISTS (SELECT 1 FROM case_work WHERE case_id = cases.id) LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("cases without work: %w", err)
	}
	return ids, nil
}

// CountWork calls f with how much of the work that w selects has the same key,
// marks and state; the same may come several times.
func (d *DB) CountWork(ctx context.Context, w citywarden.WorkFilter, f func(citywarden.WorkCount)) error {
	undone := w
	w.States, undone.States = w.States&citywarden.WorkDone, w.States&^citywarden.WorkDone
	if w.States != 0 {
		query, args := countDone(&w)
		if err := d.countWork(ctx, f, query, args...); err != nil {
			return err
		}
	}
	if undone.States == 0 {
		return nil
	}
	var q where
	q.work(&undone)
	return d.countWork(ctx, f, `SELECT `+string(w.By)+`, marks, state, COUNT(*) FROM (SELECT `+string(w.By)+`, marks,
		CASE WHEN due > 0 AND due < `+fmt.Sprint(toMS(w.To))+` THEN 2 ELSE 4 END AS state FROM case_work`+q.text()+`) AS undone
		GROUP BY `+string(w.By)+`, marks, state`, q.args...)
}

// countDone returns the query that counts done work: the months that lie in the
// period as a whole by their sums, what is left of it piece by piece in the order of
// the index.
func countDone(w *citywarden.WorkFilter) (string, []any) {
	by := string(w.By)
	first, last := month(w.From), month(w.To)
	if monthBegin(first).Before(w.From) {
		first++
	}
	var q where
	var parts []string
	count := func(w citywarden.WorkFilter) {
		q.terms = nil
		q.work(&w)
		parts = append(parts, `SELECT `+by+` AS key_value, marks, COUNT(*) AS n FROM case_work`+q.text()+` GROUP BY month, `+by+`, marks`)
	}
	summed := first < last && w.By != citywarden.WorkByGrid
	if w.By == citywarden.WorkByVillage {
		summed = summed && (w.Key == nil || len(*w.Key) <= 12) // those of unit grids are not in the sums
	} else {
		summed = summed && w.Area == ""
	}
	if !summed {
		count(*w)
	} else {
		before, after := *w, *w
		before.To, after.From = monthBegin(first), monthBegin(last)
		if before.From.Before(before.To) {
			count(before)
		}
		if after.From.Before(after.To) {
			count(after)
		}
		q.terms = nil
		q.and("kind = $ AND by_what = $ AND month >= $ AND month < $ AND n > 0", string(w.Kind), by, first, last)
		q.marked(w, "key_value", "key_value")
		parts = append(parts, `SELECT key_value, marks, n FROM case_work_sums`+q.text())
	}
	return `SELECT key_value, marks, 1, CAST(SUM(n) AS BIGINT) FROM (` + strings.Join(parts, ` UNION ALL `) + `) AS done GROUP BY key_value, marks`, q.args
}

// monthBegin returns when a month begins, as month counts them.
func monthBegin(n int) time.Time { return time.Date(n/12, time.Month(n%12+1), 1, 0, 0, 0, 0, time.UTC) }

func (d *DB) countWork(ctx context.Context, f func(citywarden.WorkCount), query string, args ...any) error {
	rows, err := d.sql.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("count work: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var c citywarden.WorkCount
		if err := rows.Scan(&c.Key, &c.Marks, &c.State, &c.N); err != nil {
			return fmt.Errorf("count work: %w", err)
		}
		f(c)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("count work: %w", err)
	}
	return nil
}

// work adds that a row of case_work is what f selects.
func (w *where) work(f *citywarden.WorkFilter) {
	to := toMS(f.To)
	var states []string
	var args []any
	or := func(state string, more ...any) { states, args = append(states, "("+state+")"), append(args, more...) }
	if f.States&citywarden.WorkDone != 0 {
		months, which := months(f) // + keeps SQLite from looking for done in the index of what is not done
		or(months+" AND +done >= $ AND +done < $", append(which, toMS(f.From), to)...)
	}
	const undone = "(done = 0 OR done >= $) AND began < $"
	switch f.States &^ citywarden.WorkDone {
	case citywarden.WorkOverdue:
		or(undone+" AND due > 0 AND due < $", to, to, to)
	case citywarden.WorkPending:
		or(undone+" AND (due = 0 OR due >= $)", to, to, to)
	case citywarden.WorkOverdue | citywarden.WorkPending:
		or(undone, to, to)
	}
	w.and("kind = $", string(f.Kind))
	w.and("("+strings.Join(states, " OR ")+")", args...)
	w.marked(f, "village", string(f.By))
}

// maxMonths is how many months are looked up one by one.
const maxMonths = 120

// months returns the condition that done work is of the months of f. Of a few areas
// or a key, each month is looked up by itself in the index, where they come next.
func months(f *citywarden.WorkFilter) (string, []any) {
	first, last := month(f.From), month(f.To.Add(-time.Millisecond))
	if f.Area == "" && f.Key == nil || last < first || last-first >= maxMonths {
		return "month >= $ AND month <= $", []any{first, last}
	}
	var all []any
	for m := first; m <= last; m++ {
		all = append(all, m)
	}
	return "month IN (" + strings.Join(slices.Repeat([]string{"$"}, len(all)), ", ") + ")", all
}

// marked adds which marks, area and key f selects; village and by are the columns of
// the area and of the key.
func (w *where) marked(f *citywarden.WorkFilter, village, by string) {
	if f.Need|f.Not != 0 {
		w.and("(marks & $) = $", int(f.Need|f.Not), int(f.Need))
	}
	if len(f.Area) == 6 {
		w.in(f.Area, village)
	} else if f.Area != "" { // village is in an index
		w.and(village+" >= $ AND "+village+" < $", string(f.Area), string(f.Area)+":")
	}
	area := f.By == citywarden.WorkByVillage || f.By == citywarden.WorkByGrid
	switch {
	case f.Key == nil && f.By == citywarden.WorkByDepartment:
		w.and(by + " <> ''")
	case f.Key == nil:
	case area && *f.Key != "": // all that begin with it; village is in an index
		key := (*f.Key)[:min(len(*f.Key), 12)]
		w.and(village+" >= $ AND "+village+" < $", key, key+":")
		if len(*f.Key) > len(key) {
			w.and("grid >= $ AND grid < $", *f.Key, *f.Key+":")
		}
	default:
		w.and(by+" = $", *f.Key)
	}
}

// anyWork adds that a case has work that one of fs selects.
func (w *where) anyWork(fs []citywarden.WorkFilter) {
	all := where{args: w.args}
	var any []string
	for i := range fs {
		all.terms = nil
		all.work(&fs[i])
		any = append(any, "SELECT case_id FROM case_work"+all.text())
	}
	w.args = all.args
	w.terms = append(w.terms, "id IN ("+strings.Join(any, " UNION ")+")")
}
