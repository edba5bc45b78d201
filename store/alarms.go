package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// DeskTx is one transaction of the alarm and case desk. It is valid until the
// function it was given to returns.
type DeskTx struct {
	q querier
}

// UpdateDesk runs f in one transaction, which is committed when f returns nil.
// Transactions of one database run one after the other.
func (d *DB) UpdateDesk(ctx context.Context, f func(*DeskTx) error) error {
	return d.tx(ctx, func(q querier) error { return f(&DeskTx{q}) })
}

// SetCursor stores that the consumer called name has reached p.
func (t *DeskTx) SetCursor(ctx context.Context, name string, p citywarden.Position) error {
	return setCursor(ctx, t.q, name, p)
}

// AddTransition records tr; fresh is false, and nothing is changed, when one of
// the same key is there already.
func (t *DeskTx) AddTransition(ctx context.Context, tr citywarden.Transition) (fresh bool, err error) {
	why, subject, annunciated := "", "", 0
	if tr.Why != nil {
		b, err := json.Marshal(tr.Why)
		if err != nil {
			return false, fmt.Errorf("write explanation of transition %s: %w", tr.Key, err)
		}
		why = string(b)
	}
	switch tr.Kind {
	case citywarden.Assigned:
		subject = tr.Alarm.Assignee
	case citywarden.Suppressed:
		subject = string(tr.Alarm.SuppressedBy)
	}
	switch {
	case tr.Annunciated && tr.Case != nil && tr.Case.WorkOrder:
		annunciated = 2
	case tr.Annunciated:
		annunciated = 1
	}
	r, err := t.q.ExecContext(ctx, `INSERT INTO transitions
		(key, alarm, n, position, kind, at, logged, severity, actor, reason, subject, annunciated, why)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT (key) DO NOTHING`,
		tr.Key, string(tr.Alarm.ID), transitionNumber(tr.Key), int64(tr.Position), string(tr.Kind), toMS(tr.At), toMS(tr.Logged),
		int(tr.Alarm.Severity), tr.By, tr.Note, subject, annunciated, why)
	if err != nil {
		return false, fmt.Errorf("save transition %s: %w", tr.Key, err)
	}
	n, err := r.RowsAffected()
	if err != nil {
		return false, fmt.Errorf("save transition %s: %w", tr.Key, err)
	}
	return n == 1, nil
}

// transitionNumber returns n of a key "rule/entity/episode/n", 0 when there is none.
func transitionNumber(key string) int64 {
	n, err := strconv.ParseInt(key[strings.LastIndexByte(key, '/')+1:], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// SaveAlarm adds a or replaces the alarm of the same id, but never takes the
// case away from it. It fails when another alarm of the same rule and entity is
// active and a is, too. A suppressed episode takes over from the ones before
// it what is shelved or out of service.
func (t *DeskTx) SaveAlarm(ctx context.Context, a citywarden.Alarm) error {
	b, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("write alarm %s: %w", a.ID, err)
	}
	_, err = t.q.ExecContext(ctx, `INSERT INTO alarms
		(id, rule, entity, severity, state, acked, latched, shadow, raised_at, case_id, data, suppressed, assignee, explained)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
		ON CONFLICT (id) DO UPDATE SET severity = excluded.severity, state = excluded.state, acked = excluded.acked,
			latched = excluded.latched, shadow = excluded.shadow, raised_at = excluded.raised_at, data = excluded.data,
			suppressed = excluded.suppressed, assignee = excluded.assignee, explained = excluded.explained,
			case_id = CASE WHEN excluded.case_id = '' THEN alarms.case_id ELSE excluded.case_id END`,
		string(a.ID), string(a.Rule), a.Entity, int(a.Severity), string(a.State), toInt(a.Acked), toInt(a.Latched), toInt(a.Shadow),
		toMS(a.RaisedAt), string(a.Case), string(b), suppressionBits(a.Suppressions()...), a.Assignee, toInt(a.SuppressedBy != "" || a.Flapping))
	if err != nil {
		return fmt.Errorf("save alarm %s: %w", a.ID, err)
	}
	if a.Suppressed() && a.State == citywarden.AlarmActive {
		_, err := t.q.ExecContext(ctx, `UPDATE alarms SET suppressed = 0 WHERE suppressed <> 0 AND rule = $1 AND entity = $2 AND id <> $3`,
			string(a.Rule), a.Entity, string(a.ID))
		if err != nil {
			return fmt.Errorf("save alarm %s over earlier ones: %w", a.ID, err)
		}
	}
	for _, dev := range append([]citywarden.DeviceID{a.Device}, a.Members...) {
		if dev == "" {
			continue
		}
		_, err := t.q.ExecContext(ctx, `INSERT INTO alarm_devices (device, alarm, raised_at) VALUES ($1, $2, $3)
			ON CONFLICT (device, alarm) DO UPDATE SET raised_at = excluded.raised_at`, string(dev), string(a.ID), toMS(a.RaisedAt))
		if err != nil {
			return fmt.Errorf("save device %s of alarm %s: %w", dev, a.ID, err)
		}
	}
	return nil
}

// Alarm returns the alarm called id; CodeNotFound when there is none.
func (t *DeskTx) Alarm(ctx context.Context, id citywarden.AlarmID) (citywarden.Alarm, error) {
	return alarm(ctx, t.q, id)
}

// ActiveAlarm returns the active alarm of a rule on an entity; CodeNotFound
// when there is none.
func (t *DeskTx) ActiveAlarm(ctx context.Context, rule citywarden.RuleID, entity string) (citywarden.Alarm, error) {
	return activeAlarm(ctx, t.q, rule, entity)
}

// Alarm returns the alarm called id; CodeNotFound when there is none.
func (d *DB) Alarm(ctx context.Context, id citywarden.AlarmID) (citywarden.Alarm, error) {
	return alarm(ctx, d.sql, id)
}

// Alarms returns the alarms that f selects, the newest raised first, and the
// cursor of the next page.
func (d *DB) Alarms(ctx context.Context, f citywarden.AlarmFilter) ([]citywarden.Alarm, string, error) {
	var w where
	from, at, id := "alarms", "alarms.raised_at", "alarms.id"
	if f.Device != "" { // few of many alarms: let the device lead
		from, at, id = "alarm_devices x JOIN alarms ON alarms.id = x.alarm", "x.raised_at", "x.alarm"
		w.and("x.device = $", string(f.Device))
	}
	// Few of many alarms, too; the plus keeps the index over shadow out.
	plus := ""
	if f.IDs != nil {
		plus = "+"
		oneOf(&w, "alarms.id", f.IDs)
	}
	if f.Rule != "" {
		plus = "+"
		w.and("rule = $", string(f.Rule))
	}
	if f.Assignee != "" {
		plus = "+"
		w.and("assignee <> '' AND assignee = $", f.Assignee)
	}
	switch f.Suppressed {
	case "":
	case citywarden.SuppressionNone:
		w.and("suppressed = 0")
	case citywarden.SuppressionAny:
		plus = "+"
		w.and("suppressed <> 0")
	default:
		plus = "+"
		w.and("suppressed <> 0 AND suppressed & $ <> 0", suppressionBits(f.Suppressed))
	}
	w.and(plus+"shadow = $", toInt(f.Shadow))
	w.alarmIn(f.Area, "alarms.id")
	if f.State != "" {
		w.and("state = $", string(f.State))
	}
	if f.Severity != 0 {
		w.and("severity = $", int(f.Severity))
	}
	if f.Acked != nil {
		w.and("acked = $", toInt(*f.Acked))
	}
	if err := w.after(at, id, f.After); err != nil {
		return nil, "", err
	}
	all, err := list(ctx, d.sql, scanAlarm, `SELECT case_id, data FROM `+from+w.text()+
		` ORDER BY `+at+` DESC, `+id+` DESC`+limit(f.Page), w.args...)
	if err != nil {
		return nil, "", fmt.Errorf("list alarms: %w", err)
	}
	items, next := page(all, f.Page, func(a *citywarden.Alarm) string { return pageCursor(toMS(a.RaisedAt), string(a.ID)) })
	return items, next, nil
}

// AlarmSteps returns the history of an alarm, the oldest step first; nothing
// for an alarm that does not exist.
func (d *DB) AlarmSteps(ctx context.Context, id citywarden.AlarmID) ([]citywarden.AlarmStep, error) {
	steps, err := list(ctx, d.sql, scanAlarmStep, `SELECT kind, at, logged, severity, actor, reason, subject, why
		FROM transitions WHERE alarm = $1 ORDER BY n`, string(id))
	if err != nil {
		return nil, fmt.Errorf("history of alarm %s: %w", id, err)
	}
	return steps, nil
}

func scanAlarmStep(row scanner) (citywarden.AlarmStep, error) {
	var s citywarden.AlarmStep
	var at, logged int64
	var subject, why string
	if err := row.Scan(&s.Kind, &at, &logged, &s.Severity, &s.By, &s.Reason, &subject, &why); err != nil {
		return s, err
	}
	switch s.Kind {
	case citywarden.Commented:
		s.Text, s.Reason = s.Reason, ""
	case citywarden.Assigned:
		s.Assignee = subject
	case citywarden.Suppressed:
		s.SuppressedBy = citywarden.AlarmID(subject)
	}
	s.At, s.Logged = fromMS(at), fromMS(logged)
	if why != "" {
		if err := json.Unmarshal([]byte(why), &s.Why); err != nil {
			return s, fmt.Errorf("read explanation: %w", err)
		}
	}
	return s, nil
}

// ActiveAlarm returns the active alarm of a rule on an entity; CodeNotFound
// when there is none.
func (d *DB) ActiveAlarm(ctx context.Context, rule citywarden.RuleID, entity string) (citywarden.Alarm, error) {
	return activeAlarm(ctx, d.sql, rule, entity)
}

// TransitionsAfter returns key, kind, severity and position of the transitions
// of the log after p, in its order.
func (d *DB) TransitionsAfter(ctx context.Context, p citywarden.Position) ([]citywarden.Transition, error) {
	ts, err := list(ctx, d.sql, func(row scanner) (t citywarden.Transition, err error) {
		var at int64
		err = row.Scan(&t.Key, &t.Kind, &t.Alarm.Severity, &at)
		t.Position = citywarden.Position(at)
		return t, err
	}, `SELECT key, kind, severity, position FROM transitions WHERE position > $1 ORDER BY position`, int64(p))
	if err != nil {
		return nil, fmt.Errorf("list transitions: %w", err)
	}
	return ts, nil
}

// AlarmCounts returns how many alarms are active, leaving out those of shadow
// rules, by severity, and how many of them are unacknowledged and not
// suppressed, so that they call for a person.
func (d *DB) AlarmCounts(ctx context.Context) (bySeverity map[citywarden.Severity]int, unacked int, err error) {
	rows, err := d.sql.QueryContext(ctx, `SELECT severity, CASE WHEN acked = 0 AND suppressed = 0 THEN 1 ELSE 0 END AS calls, COUNT(*) FROM alarms
		WHERE shadow = 0 AND state = 'active' GROUP BY severity, calls`)
	if err != nil {
		return nil, 0, fmt.Errorf("count alarms: %w", err)
	}
	defer rows.Close()
	bySeverity = map[citywarden.Severity]int{}
	for rows.Next() {
		var s citywarden.Severity
		var calls, n int
		if err := rows.Scan(&s, &calls, &n); err != nil {
			return nil, 0, fmt.Errorf("count alarms: %w", err)
		}
		bySeverity[s] += n
		if calls == 1 {
			unacked += n
		}
	}
	return bySeverity, unacked, rows.Err()
}

// Annunciations returns the annunciations of alarms in an area logged from a time
// (inclusive) to another (exclusive), ordered by time.
func (d *DB) Annunciations(ctx context.Context, area citywarden.AreaCode, from, to time.Time) ([]citywarden.Annunciation, error) {
	var w where
	w.and("annunciated <> 0 AND logged >= $ AND logged < $", toMS(from), toMS(to))
	w.alarmIn(area, "transitions.alarm")
	all, err := list(ctx, d.sql, func(row scanner) (a citywarden.Annunciation, err error) {
		var logged, kind int64
		err = row.Scan(&logged, &a.Alarm, &a.Severity, &kind)
		a.At, a.WorkOrder = fromMS(logged), kind == 2
		return a, err
	}, `SELECT logged, alarm, severity, annunciated FROM transitions`+w.text()+` ORDER BY logged`, w.args...)
	if err != nil {
		return nil, fmt.Errorf("list annunciations: %w", err)
	}
	return all, nil
}

// StaleAlarms returns the live alarms of an area that are active, not suppressed
// and were raised before that time, the oldest first, at most limit, and how many
// there are.
func (d *DB) StaleAlarms(ctx context.Context, area citywarden.AreaCode, before time.Time, limit int) (items []citywarden.Alarm, count int, err error) {
	var w where
	w.and("shadow = 0 AND state = 'active' AND suppressed = 0 AND raised_at < $", toMS(before))
	w.alarmIn(area, "alarms.id")
	if err := d.sql.QueryRowContext(ctx, `SELECT COUNT(*) FROM alarms`+w.text(), w.args...).Scan(&count); err != nil {
		return nil, 0, fmt.Errorf("count stale alarms: %w", err)
	}
	items, err = list(ctx, d.sql, scanAlarm, `SELECT case_id, data FROM alarms`+w.text()+` ORDER BY raised_at, id LIMIT `+strconv.Itoa(limit), w.args...)
	if err != nil {
		return nil, 0, fmt.Errorf("list stale alarms: %w", err)
	}
	return items, count, nil
}

func scanAlarm(s scanner) (citywarden.Alarm, error) {
	var a citywarden.Alarm
	var data, inCase string
	if err := s.Scan(&inCase, &data); err != nil {
		return a, err
	}
	if err := json.Unmarshal([]byte(data), &a); err != nil {
		return a, fmt.Errorf("read alarm: %w", err)
	}
	a.Case = citywarden.CaseID(inCase)
	return a, nil
}

func alarm(ctx context.Context, q querier, id citywarden.AlarmID) (citywarden.Alarm, error) {
	a, err := scanAlarm(q.QueryRowContext(ctx, `SELECT case_id, data FROM alarms WHERE id = $1`, string(id)))
	if errors.Is(err, sql.ErrNoRows) {
		return a, citywarden.Errorf(citywarden.CodeNotFound, "no alarm %s", id)
	}
	if err != nil {
		return a, fmt.Errorf("read alarm %s: %w", id, err)
	}
	return a, nil
}

func activeAlarm(ctx context.Context, q querier, rule citywarden.RuleID, entity string) (citywarden.Alarm, error) {
	a, err := scanAlarm(q.QueryRowContext(ctx,
		`SELECT case_id, data FROM alarms WHERE rule = $1 AND entity = $2 AND state = 'active'`, string(rule), entity))
	if errors.Is(err, sql.ErrNoRows) {
		return a, citywarden.Errorf(citywarden.CodeNotFound, "no active alarm of %s on %s", rule, entity)
	}
	return a, err
}

// suppressionBits returns the value of the column suppressed.
func suppressionBits(all ...citywarden.Suppression) int {
	bits := 0
	for _, s := range all {
		switch s {
		case citywarden.SuppressionShelved:
			bits |= 1
		case citywarden.SuppressionByDesign:
			bits |= 2
		case citywarden.SuppressionOutOfService:
			bits |= 4
		}
	}
	return bits
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
