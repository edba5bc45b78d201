package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/citywarden/citywarden"
)

// AddNotices adds notices of one key; fresh is false, and nothing is changed,
// when one of that key is there already.
func (t *DeskTx) AddNotices(ctx context.Context, ns []citywarden.Notice) (fresh bool, err error) {
	for i := range ns {
		if i == 0 {
			var n int
			if err := t.q.QueryRowContext(ctx, `SELECT COUNT(*) FROM notices WHERE notice_key = $1`, ns[0].Key).Scan(&n); err != nil {
				return false, fmt.Errorf("look for notice %s: %w", ns[0].Key, err)
			}
			if n > 0 {
				return false, nil
			}
		}
		if err := t.SaveNotice(ctx, ns[i]); err != nil {
			return false, err
		}
	}
	return true, nil
}

// SaveNotice adds n or replaces the one of the same key and receiver.
func (t *DeskTx) SaveNotice(ctx context.Context, n citywarden.Notice) error {
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("write notice %s: %w", n.Key, err)
	}
	_, err = t.q.ExecContext(ctx, `INSERT INTO notices (id, notice_key, receiver, case_id, alarm, state, at, next, urgent, data)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (id) DO UPDATE SET state = excluded.state, next = excluded.next, data = excluded.data`,
		noticeID(&n), n.Key, n.Receiver, string(n.Case), string(n.Alarm), string(n.State), toMS(n.At), toMS(n.Next), toInt(n.Urgent), string(b))
	if err != nil {
		return fmt.Errorf("save notice %s: %w", n.Key, err)
	}
	return nil
}

// Notice returns the notice of that key to that receiver; CodeNotFound when there
// is none.
func (t *DeskTx) Notice(ctx context.Context, key, receiver string) (citywarden.Notice, error) {
	n, err := scanNotice(t.q.QueryRowContext(ctx, `SELECT data FROM notices WHERE id = $1`, noticeID(&citywarden.Notice{Key: key, Receiver: receiver})))
	if errors.Is(err, sql.ErrNoRows) {
		return n, citywarden.Errorf(citywarden.CodeNotFound, "no notice %s to %s", key, receiver)
	}
	if err != nil {
		return n, fmt.Errorf("read notice %s: %w", key, err)
	}
	return n, nil
}

func noticeID(n *citywarden.Notice) string { return n.Key + "@" + n.Receiver }

// PendingNotices returns the notices of a case that are not sent yet.
func (t *DeskTx) PendingNotices(ctx context.Context, id citywarden.CaseID) ([]citywarden.Notice, error) {
	ns, err := list(ctx, t.q, scanNotice, `SELECT data FROM notices WHERE case_id = $1 AND state = $2 ORDER BY at, id`,
		string(id), string(citywarden.NoticePending))
	if err != nil {
		return nil, fmt.Errorf("pending notices of case %s: %w", id, err)
	}
	return ns, nil
}

// Notices returns the notices that f selects, the newest first, and the cursor
// of the next page.
func (d *DB) Notices(ctx context.Context, f citywarden.NoticeFilter) ([]citywarden.Notice, string, error) {
	var w where
	if f.Case != "" {
		w.and("case_id = $", string(f.Case))
	}
	if f.Alarm != "" {
		w.and("alarm = $", string(f.Alarm))
	}
	if f.State != "" {
		w.and("state = $", string(f.State))
	}
	if f.Key != "" {
		w.and("notice_key = $", f.Key)
	}
	if f.Department != "" {
		w.and("(receiver = $ OR case_id IN (SELECT cases.id FROM cases WHERE cases.department = $))", f.Department, f.Department)
	}
	w.concerns(f.Area, "(SELECT cases.area FROM cases WHERE cases.id = notices.case_id)")
	if err := w.after("at", "id", f.After); err != nil {
		return nil, "", err
	}
	all, err := list(ctx, d.sql, scanNotice, `SELECT data FROM notices`+w.text()+` ORDER BY at DESC, id DESC`+limit(f.Page), w.args...)
	if err != nil {
		return nil, "", fmt.Errorf("list notices: %w", err)
	}
	items, next := page(all, f.Page, func(n *citywarden.Notice) string { return pageCursor(toMS(n.At), noticeID(n)) })
	return items, next, nil
}

// DueNotice returns the notice to a receiver that is to be sent first: of those
// that are due at now an urgent one before others. ok is false when none is pending.
func (d *DB) DueNotice(ctx context.Context, receiver string, now time.Time) (n citywarden.Notice, ok bool, err error) {
	ns, err := list(ctx, d.sql, scanNotice, `SELECT data FROM notices WHERE receiver = $1 AND next > 0 AND next <= $2 AND urgent = 1 ORDER BY next, id LIMIT 1`,
		receiver, toMS(now))
	if err == nil && len(ns) == 0 {
		ns, err = list(ctx, d.sql, scanNotice, `SELECT data FROM notices WHERE receiver = $1 AND next > 0 ORDER BY next, id LIMIT 1`, receiver)
	}
	if err != nil {
		return n, false, fmt.Errorf("look for the next notice to %s: %w", receiver, err)
	}
	if len(ns) == 0 {
		return n, false, nil
	}
	return ns[0], true, nil
}

func scanNotice(row scanner) (n citywarden.Notice, err error) {
	var data string
	if err = row.Scan(&data); err == nil {
		err = json.Unmarshal([]byte(data), &n)
	}
	return n, err
}

// SetTimer sets a timer of a case; one of that kind and number that is set
// already stays as it is.
func (t *DeskTx) SetTimer(ctx context.Context, x citywarden.CaseTimer) error {
	b, err := json.Marshal(x)
	if err != nil {
		return fmt.Errorf("write timer of case %s: %w", x.Case, err)
	}
	_, err = t.q.ExecContext(ctx, `INSERT INTO case_timers (case_id, kind, n, due, parked, data) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (case_id, kind, n) DO NOTHING`, string(x.Case), string(x.Kind), x.N, toMS(x.Due), toInt(x.Parked), string(b))
	if err != nil {
		return fmt.Errorf("save timer of case %s: %w", x.Case, err)
	}
	return nil
}

// DropTimers drops the timers of a case, those of one kind when it is not "",
// and reports whether there were any.
func (t *DeskTx) DropTimers(ctx context.Context, id citywarden.CaseID, kind citywarden.TimerKind) (bool, error) {
	r, err := t.q.ExecContext(ctx, `DELETE FROM case_timers WHERE case_id = $1 AND (kind = $2 OR $2 = '')`, string(id), string(kind))
	if err != nil {
		return false, fmt.Errorf("drop timers of case %s: %w", id, err)
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

// ParkTimers parks the timers of a case of that kind, or lets them go on.
func (t *DeskTx) ParkTimers(ctx context.Context, id citywarden.CaseID, kind citywarden.TimerKind, parked bool) error {
	_, err := t.q.ExecContext(ctx, `UPDATE case_timers SET parked = $3 WHERE case_id = $1 AND kind = $2`, string(id), string(kind), toInt(parked))
	if err != nil {
		return fmt.Errorf("park timers of case %s: %w", id, err)
	}
	return nil
}

// TakeTimer removes and returns the timer that was due first at now; ok is false
// when none is due.
func (t *DeskTx) TakeTimer(ctx context.Context, now time.Time) (x citywarden.CaseTimer, ok bool, err error) {
	xs, err := list(ctx, t.q, scanTimer, `SELECT data FROM case_timers WHERE parked = 0 AND due <= $1 ORDER BY due, case_id, kind, n LIMIT 1`, toMS(now))
	if err != nil || len(xs) == 0 {
		return x, false, err
	}
	x = xs[0]
	_, err = t.q.ExecContext(ctx, `DELETE FROM case_timers WHERE case_id = $1 AND kind = $2 AND n = $3`, string(x.Case), string(x.Kind), x.N)
	if err != nil {
		return x, false, fmt.Errorf("take timer of case %s: %w", x.Case, err)
	}
	return x, true, nil
}

// NextTimer returns when the next timer is due, zero for never.
func (d *DB) NextTimer(ctx context.Context) (time.Time, error) {
	var due int64
	if err := d.sql.QueryRowContext(ctx, `SELECT COALESCE(MIN(due), 0) FROM case_timers WHERE parked = 0`).Scan(&due); err != nil {
		return time.Time{}, fmt.Errorf("look for the next timer of a case: %w", err)
	}
	return fromMS(due), nil
}

func scanTimer(row scanner) (x citywarden.CaseTimer, err error) {
	var data string
	if err = row.Scan(&data); err == nil {
		err = json.Unmarshal([]byte(data), &x)
	}
	return x, err
}

// Tally counts the alarms of a case.
func (t *DeskTx) Tally(ctx context.Context, id citywarden.CaseID) (n citywarden.CaseTally, err error) {
	err = t.q.QueryRowContext(ctx, `SELECT COUNT(*),
		COALESCE(SUM(CASE WHEN state = 'active' AND latched = 0 THEN 1 ELSE 0 END), 0),
		COALESCE(SUM(CASE WHEN state = 'active' AND suppressed = 0 THEN 1 ELSE 0 END), 0),
		COALESCE(SUM(CASE WHEN state = 'active' AND suppressed = 0 AND acked = 0 THEN 1 ELSE 0 END), 0),
		COALESCE(SUM(CASE WHEN suppressed = 0 AND explained = 0 THEN 1 ELSE 0 END), 0),
		COALESCE(SUM(CASE WHEN state = 'active' OR acked = 0 AND severity > $2 THEN 1 ELSE 0 END), 0)
		FROM alarms WHERE case_id = $1 AND case_id <> ''`, string(id), int(citywarden.Minor)).
		Scan(&n.All, &n.Active, &n.Standing, &n.Unacked, &n.Unexplained, &n.Unsettled)
	if err != nil {
		return n, fmt.Errorf("count alarms of case %s: %w", id, err)
	}
	return n, nil
}

// Devices returns how many devices the alarms of a case concern.
func (t *DeskTx) Devices(ctx context.Context, id citywarden.CaseID) (n int, err error) {
	err = t.q.QueryRowContext(ctx, `SELECT COUNT(DISTINCT x.device) FROM alarms JOIN alarm_devices x ON x.alarm = alarms.id
		WHERE alarms.case_id = $1 AND alarms.case_id <> ''`, string(id)).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count devices of case %s: %w", id, err)
	}
	return n, nil
}

// MoveAlarms puts all alarms of one case into another.
func (t *DeskTx) MoveAlarms(ctx context.Context, from, to citywarden.CaseID) error {
	if _, err := t.q.ExecContext(ctx, `UPDATE alarms SET case_id = $2 WHERE case_id = $1 AND case_id <> ''`, string(from), string(to)); err != nil {
		return fmt.Errorf("move alarms of case %s to %s: %w", from, to, err)
	}
	return nil
}

// OpenedBy returns how many cases the alarms of a rule have opened since then.
func (t *DeskTx) OpenedBy(ctx context.Context, rule citywarden.RuleID, since time.Time) (n int, err error) {
	err = t.q.QueryRowContext(ctx, `SELECT COUNT(*) FROM cases WHERE rule <> '' AND rule = $1 AND opened > $2`, string(rule), toMS(since)).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count cases of rule %s: %w", rule, err)
	}
	return n, nil
}

// Held reports whether the first notice of a case waits.
func (t *DeskTx) Held(ctx context.Context, id citywarden.CaseID) (bool, error) {
	var n int
	err := t.q.QueryRowContext(ctx, `SELECT COUNT(*) FROM case_timers WHERE case_id = $1 AND kind = $2`, string(id), string(citywarden.TimerHold)).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("look for the hold of case %s: %w", id, err)
	}
	return n > 0, nil
}
