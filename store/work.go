package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// SetWork replaces the work on the case called id.
func (t *DeskTx) SetWork(ctx context.Context, id citywarden.CaseID, work []citywarden.CaseWork) error {
	if _, err := t.q.ExecContext(ctx, `DELETE FROM case_work WHERE case_id = $1`, string(id)); err != nil {
		return fmt.Errorf("replace the work on case %s: %w", id, err)
	}
	for n, w := range work {
		_, err := t.q.ExecContext(ctx, `INSERT INTO case_work (case_id, n, kind, person, department, village, grid, began, due, done, month, marks)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
			string(id), n, string(w.Kind), w.Person, w.Department, w.Grid.In(citywarden.LevelVillage), string(w.Grid),
			toMS(w.Began), toMS(w.Due), toMS(w.Done), month(w.Done), int(w.Marks))
		if err != nil {
			return fmt.Errorf("save the work on case %s: %w", id, err)
		}
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
	if w.States != 0 { // grouped in the order of the index
		var q where
		q.work(&w)
		if err := d.countWork(ctx, f, `SELECT `+string(w.By)+`, marks, 1, COUNT(*) FROM case_work`+q.text()+
			` GROUP BY month, `+string(w.By)+`, marks`, q.args...); err != nil {
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
		or("month >= $ AND month <= $ AND done >= $ AND done < $", month(f.From), month(f.To), toMS(f.From), to)
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
	if f.Need|f.Not != 0 {
		w.and("(marks & $) = $", int(f.Need|f.Not), int(f.Need))
	}
	if len(f.Area) == 6 {
		w.in(f.Area, "village")
	} else if f.Area != "" { // village is in an index
		w.and("village >= $ AND village < $", string(f.Area), string(f.Area)+":")
	}
	area := f.By == citywarden.WorkByVillage || f.By == citywarden.WorkByGrid
	switch {
	case f.Key == nil && f.By == citywarden.WorkByDepartment:
		w.and("department <> ''")
	case f.Key == nil:
	case area && *f.Key != "": // all that begin with it; village is in an index
		village := (*f.Key)[:min(len(*f.Key), 12)]
		w.and("village >= $ AND village < $", village, village+":")
		if len(*f.Key) > len(village) {
			w.and("grid >= $ AND grid < $", *f.Key, *f.Key+":")
		}
	default:
		w.and(string(f.By)+" = $", *f.Key)
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
