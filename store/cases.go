package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

// CaseByKey returns the open case with that key, or else the one that was
// opened last; CodeNotFound when there is none. Timeline and alarms are left out.
func (t *DeskTx) CaseByKey(ctx context.Context, key string) (citywarden.Case, error) {
	c, err := scanCase(t.q.QueryRowContext(ctx, `SELECT data FROM cases WHERE case_key = $1
		ORDER BY is_open DESC, opened DESC, id DESC LIMIT 1`, key))
	if errors.Is(err, sql.ErrNoRows) {
		return c, citywarden.Errorf(citywarden.CodeNotFound, "no case has the key %q", key)
	}
	return c, err
}

// Case returns the case called id without timeline and alarms; CodeNotFound
// when there is none.
func (t *DeskTx) Case(ctx context.Context, id citywarden.CaseID) (citywarden.Case, error) {
	return plainCase(ctx, t.q, id)
}

// StepsAfter returns the steps of a case after revision n, the oldest first.
func (t *DeskTx) StepsAfter(ctx context.Context, id citywarden.CaseID, n int64) ([]citywarden.CaseStep, error) {
	return stepsAfter(ctx, t.q, id, n)
}

// SaveCase adds c or, when was is not 0, replaces the case of that id; its
// Timeline holds the new steps only, c.Revision being that of the last. It
// fails with CodeConflict when the stored revision is not was, and when another
// open case has the key of c.
func (t *DeskTx) SaveCase(ctx context.Context, c citywarden.Case, was int64) error {
	steps := c.Timeline
	c.Timeline, c.Attachments, c.Alarms, c.Actions, c.Light, c.StageLight, c.DeviceName = nil, nil, nil, nil, "", "", ""
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write case %s: %w", c.ID, err)
	}
	args := []any{string(c.ID), c.Key, string(c.Stage), toInt(c.Stage.Open()), toInt(c.WorkOrder), c.Department, string(c.Grid),
		toMS(c.Opened), toMS(c.Deadline), c.Revision, string(b), string(c.Rule), string(c.Class), string(c.Source), c.Officer, c.OpenedBy, request(&c), string(c.Component),
		cmp.Or(string(c.Area), string(c.Grid))}
	query := `INSERT INTO cases (id, case_key, stage, is_open, work_order, department, grid, opened, deadline, revision, data, rule,
			class, source, officer, opened_by, request, component, area)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) ON CONFLICT (id) DO NOTHING`
	if was != 0 {
		query = `UPDATE cases SET case_key = $2, stage = $3, is_open = $4, work_order = $5, department = $6, grid = $7,
			opened = $8, deadline = $9, revision = $10, data = $11, rule = $12, class = $13, source = $14, officer = $15,
			opened_by = $16, request = $17, component = $18, area = $19 WHERE id = $1 AND revision = $20`
		args = append(args, was)
	}
	r, err := t.q.ExecContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("save case %s: %w", c.ID, err)
	}
	if n, err := r.RowsAffected(); err != nil || n != 1 {
		return citywarden.Errorf(citywarden.CodeConflict, "save case %s: somebody else was faster; look at it again", c.ID)
	}
	for i, s := range steps {
		zh, en := "", ""
		if s.Text != nil {
			zh, en = s.Text.ZH, s.Text.EN
		}
		b, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("write step of case %s: %w", c.ID, err)
		}
		_, err = t.q.ExecContext(ctx, `INSERT INTO case_steps (case_id, n, action, stage, actor, role, note, department, alarm, at, text_zh, text_en, data)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
			string(c.ID), c.Revision-int64(len(steps)-1-i), string(s.Action), string(s.Stage), s.By, string(s.Role), s.Note,
			s.Department, string(s.Alarm), toMS(s.At), zh, en, string(b))
		if err != nil {
			return fmt.Errorf("save step of case %s: %w", c.ID, err)
		}
	}
	return nil
}

// request returns what the column of that name holds.
func request(c *citywarden.Case) string {
	if c.Request == nil {
		return ""
	}
	return string(c.Request.Kind)
}

// CasesLike returns the cases of a class that were opened from a time to
// another, both included, without timelines, at most MaxPage.
func (d *DB) CasesLike(ctx context.Context, class citywarden.ClassCode, from, to time.Time) ([]citywarden.Case, error) {
	cs, err := list(ctx, d.sql, scanCase, `SELECT data FROM cases WHERE class = $1 AND work_order = 0 AND opened >= $2 AND opened <= $3
		ORDER BY opened, id LIMIT $4`, string(class), toMS(from), toMS(to), citywarden.MaxPage)
	if err != nil {
		return nil, fmt.Errorf("list cases of class %s: %w", class, err)
	}
	return cs, d.addAlarms(ctx, cs)
}

// NextSerial returns 1, 2, 3 … for each day.
func (t *DeskTx) NextSerial(ctx context.Context, day string) (int64, error) {
	var n int64
	err := t.q.QueryRowContext(ctx, `INSERT INTO case_serials (day, last) VALUES ($1, 1)
		ON CONFLICT (day) DO UPDATE SET last = case_serials.last + 1 RETURNING last`, day).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("number a case of %s: %w", day, err)
	}
	return n, nil
}

// Case returns the case called id with its timeline and alarms; CodeNotFound
// when there is none.
func (d *DB) Case(ctx context.Context, id citywarden.CaseID) (citywarden.Case, error) {
	c, err := plainCase(ctx, d.sql, id)
	if err != nil {
		return c, err
	}
	if c.Timeline, err = stepsAfter(ctx, d.sql, id, 0); err != nil {
		return c, err
	}
	one := []citywarden.Case{c}
	err = d.addAlarms(ctx, one)
	// A step may have come between the two reads: the case is as of its revision.
	if int64(len(one[0].Timeline)) > c.Revision {
		one[0].Timeline = one[0].Timeline[:c.Revision]
	}
	return one[0], err
}

// Cases returns the cases that f selects without their timelines, the newest
// first, and the cursor of the next page. f.WorkOrders does not matter when
// f.Alarm is given.
func (d *DB) Cases(ctx context.Context, f citywarden.CaseFilter) ([]citywarden.Case, string, error) {
	var w where
	if f.Alarm != "" {
		w.and("id = (SELECT case_id FROM alarms WHERE id = $)", string(f.Alarm))
	} else {
		w.and("work_order = $", toInt(f.WorkOrders))
	}
	w.concerns(f.Area, "area")
	if f.Stage != "" {
		w.and("stage = $", string(f.Stage))
	}
	if f.Open {
		w.and("is_open = 1")
	}
	if f.Department != "" {
		w.and("department = $", f.Department)
	}
	if f.Grid != "" {
		w.and("grid = $", string(f.Grid))
	}
	for _, x := range []struct{ column, value string }{
		{"source", string(f.Source)}, {"class", string(f.Class)}, {"officer", f.Officer}, {"opened_by", f.OpenedBy}, {"request", string(f.Request)},
		{"component", string(f.Component)},
	} {
		if x.value != "" { // the empty ones are in no index
			w.and(x.column+" <> '' AND "+x.column+" = $", x.value)
		}
	}
	if f.Work != nil {
		w.anyWork(f.Work)
	}
	if err := w.after("opened", "id", f.After); err != nil {
		return nil, "", err
	}
	all, err := list(ctx, d.sql, scanCase, `SELECT data FROM cases`+w.text()+` ORDER BY opened DESC, id DESC`+limit(f.Page), w.args...)
	if err != nil {
		return nil, "", fmt.Errorf("list cases: %w", err)
	}
	items, next := page(all, f.Page, func(c *citywarden.Case) string { return pageCursor(toMS(c.Opened), string(c.ID)) })
	return items, next, d.addAlarms(ctx, items)
}

// CaseCounts returns how many open cases, or work orders, are in each stage,
// and how many that wait for their handling are past the deadline at nowMS
// (milliseconds since 1970).
func (d *DB) CaseCounts(ctx context.Context, workOrders bool, nowMS int64) (byStage map[citywarden.Stage]int, overdue int, err error) {
	rows, err := d.sql.QueryContext(ctx, `SELECT stage, COUNT(*),
		COALESCE(SUM(CASE WHEN deadline > 0 AND deadline < $1 THEN 1 ELSE 0 END), 0)
		FROM cases WHERE work_order = $2 AND is_open = 1 GROUP BY stage`, nowMS, toInt(workOrders))
	if err != nil {
		return nil, 0, fmt.Errorf("count cases: %w", err)
	}
	defer rows.Close()
	byStage = map[citywarden.Stage]int{}
	for rows.Next() {
		var s citywarden.Stage
		var n, late int
		if err := rows.Scan(&s, &n, &late); err != nil {
			return nil, 0, fmt.Errorf("count cases: %w", err)
		}
		byStage[s] = n
		switch s {
		case citywarden.PendingDispatch, citywarden.PendingHandling, citywarden.Handling:
			overdue += late
		}
	}
	return byStage, overdue, rows.Err()
}

func scanCase(s scanner) (citywarden.Case, error) {
	var c citywarden.Case
	var data string
	if err := s.Scan(&data); err != nil {
		return c, err
	}
	if err := json.Unmarshal([]byte(data), &c); err != nil {
		return c, fmt.Errorf("read case: %w", err)
	}
	return c, nil
}

func plainCase(ctx context.Context, q querier, id citywarden.CaseID) (citywarden.Case, error) {
	c, err := scanCase(q.QueryRowContext(ctx, `SELECT data FROM cases WHERE id = $1`, string(id)))
	if errors.Is(err, sql.ErrNoRows) {
		return c, citywarden.Errorf(citywarden.CodeNotFound, "no case %s", id)
	}
	if err != nil {
		return c, fmt.Errorf("read case %s: %w", id, err)
	}
	return c, nil
}

func stepsAfter(ctx context.Context, q querier, id citywarden.CaseID, n int64) ([]citywarden.CaseStep, error) {
	steps, err := list(ctx, q, func(row scanner) (s citywarden.CaseStep, err error) {
		var at int64
		var text citywarden.Text
		var data string
		err = row.Scan(&s.Action, &s.Stage, &s.By, &s.Role, &s.Note, &s.Department, &s.Alarm, &at, &text.ZH, &text.EN, &data)
		if err != nil {
			return s, err
		}
		if data != "" {
			err = json.Unmarshal([]byte(data), &s)
			return s, err
		}
		s.At = fromMS(at)
		if text != (citywarden.Text{}) {
			s.Text = &text
		}
		return s, nil
	}, `SELECT action, stage, actor, role, note, department, alarm, at, text_zh, text_en, data
		FROM case_steps WHERE case_id = $1 AND n > $2 ORDER BY n`, string(id), n)
	if err != nil {
		return nil, fmt.Errorf("timeline of case %s: %w", id, err)
	}
	return steps, nil
}

// addAlarms fills in the alarms of cases, of which there are at most MaxPage, the
// device of the first of them for a case that was opened about none, and what the device is called.
func (d *DB) addAlarms(ctx context.Context, cases []citywarden.Case) error {
	of := map[string]*citywarden.Case{}
	for i := range cases {
		cases[i].Alarms = []citywarden.AlarmID{}
		of[string(cases[i].ID)] = &cases[i]
	}
	rows, err := pairs(ctx, d.sql, `SELECT case_id, id FROM alarms WHERE case_id <> '' AND `, "case_id", of, ` ORDER BY raised_at, id`)
	if err != nil {
		return fmt.Errorf("alarms of cases: %w", err)
	}
	first := map[string]*citywarden.Case{} // by its first alarm
	for _, r := range rows {
		c := of[r[0]]
		if len(c.Alarms) == 0 {
			first[r[1]] = c
		}
		c.Alarms = append(c.Alarms, citywarden.AlarmID(r[1]))
	}
	if rows, err = pairs(ctx, d.sql, `SELECT id, data FROM alarms WHERE `, "id", first, ""); err != nil {
		return fmt.Errorf("first alarms of cases: %w", err)
	}
	for _, r := range rows {
		var a struct{ Device citywarden.DeviceID }
		if err := json.Unmarshal([]byte(r[1]), &a); err != nil {
			return fmt.Errorf("read alarm %s: %w", r[0], err)
		}
		if c := first[r[0]]; c.Device == "" {
			c.Device = a.Device
		}
	}
	at := map[string][]*citywarden.Case{} // by the device
	for i := range cases {
		if id := string(cases[i].Device); id != "" {
			at[id] = append(at[id], &cases[i])
		}
	}
	if rows, err = pairs(ctx, d.sql, `SELECT id, name FROM devices WHERE `, "id", at, ""); err != nil {
		return fmt.Errorf("devices of cases: %w", err)
	}
	for _, r := range rows {
		for _, c := range at[r[0]] {
			c.DeviceName = r[1]
		}
	}
	return nil
}

// pairs returns the two columns of the rows that query selects, followed by that
// column is one of the keys of ids, and order.
func pairs[T any](ctx context.Context, q querier, query, column string, ids map[string]T, order string) ([][2]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var w where
	oneOf(&w, column, slices.Collect(maps.Keys(ids)))
	return list(ctx, q, func(row scanner) (p [2]string, err error) {
		err = row.Scan(&p[0], &p[1])
		return p, err
	}, query+w.terms[0]+order, w.args...)
}
