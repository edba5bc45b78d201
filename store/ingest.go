package store

import (
	"context"
	"database/sql"
	"encoding/base64"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// SaveLedger adds the rows of add to what is stored for their device and hour, adds its dead
// letters, remembers who was heard and the outages, of which one that begins when another does takes its place, and moves the
// cursor called name from one position to the next, in one transaction. It does nothing when the cursor is at to already (an earlier call was
// committed without its caller knowing), and returns CodeConflict when it is
// neither there nor at from.
func (d *DB) SaveLedger(ctx context.Context, name string, from, to citywarden.Position, add citywarden.LedgerAdd) error {
	return d.tx(ctx, func(q querier) error {
		at, err := cursor(ctx, q, name)
		if err != nil {
			return err
		}
		switch at {
		case to:
			return nil
		case from:
		default:
			return citywarden.Errorf(citywarden.CodeConflict, "cursor %s is at %d, not at %d; is another citywarden using this database?", name, at, from)
		}
		for _, r := range add.Rows {
			if err := addLedger(ctx, q, &r); err != nil {
				return err
			}
			if err := addGaps(ctx, q, r.Device, r.Gaps); err != nil {
				return err
			}
		}
		for _, l := range add.Dead {
			if _, err := saveDeadLetter(ctx, q, &l); err != nil {
				return err
			}
		}
		for _, h := range add.Heard {
			var sequence, numbered sql.NullInt64
			if h.Sequenced {
				sequence = sql.NullInt64{Int64: h.Sequence, Valid: true}
				numbered = sql.NullInt64{Int64: toMS(h.Numbered), Valid: true}
			}
			_, err := q.ExecContext(ctx, `INSERT INTO last_heard (device, at, sequence, numbered) VALUES ($1, $2, $3, $4)
				ON CONFLICT (device) DO UPDATE SET at = excluded.at, sequence = excluded.sequence, numbered = excluded.numbered`, h.Device, toMS(h.At), sequence, numbered)
			if err != nil {
				return fmt.Errorf("remember when device %s was heard: %w", h.Device, err)
			}
		}
		for _, o := range add.Outages {
			_, err := q.ExecContext(ctx, `INSERT INTO outages (began, ended) VALUES ($1, $2)
				ON CONFLICT (began) DO UPDATE SET ended = excluded.ended`, toMS(o.From), toMS(o.To))
			if err != nil {
				return fmt.Errorf("save an outage: %w", err)
			}
		}
		return setCursor(ctx, q, name, to)
	})
}

// LastHeard returns what SaveLedger was given last of each device, that of "" first.
func (d *DB) LastHeard(ctx context.Context) ([]citywarden.LastHeard, error) {
	all, err := list(ctx, d.sql, func(row scanner) (h citywarden.LastHeard, err error) {
		var at int64
		var sequence, numbered sql.NullInt64
		err = row.Scan(&h.Device, &at, &sequence, &numbered)
		h.At, h.Sequence, h.Sequenced, h.Numbered = fromMS(at), sequence.Int64, sequence.Valid, fromMS(numbered.Int64)
		return h, err
	}, `SELECT device, at, sequence, numbered FROM last_heard ORDER BY device`)
	if err != nil {
		return nil, fmt.Errorf("read when devices were heard: %w", err)
	}
	return all, nil
}

// addLedger adds r to what is stored for its device and hour.
func addLedger(ctx context.Context, q querier, r *citywarden.LedgerRow) error {
	_, err := q.ExecContext(ctx, `INSERT INTO ledger
		(device, hour, messages, received, stored, rejected, duplicate, quarantined, missing, silent) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (hour, device) DO UPDATE SET
			messages = ledger.messages + excluded.messages, received = ledger.received + excluded.received,
			stored = ledger.stored + excluded.stored, rejected = ledger.rejected + excluded.rejected,
			duplicate = ledger.duplicate + excluded.duplicate, quarantined = ledger.quarantined + excluded.quarantined,
			missing = ledger.missing + excluded.missing, silent = ledger.silent + excluded.silent`,
		r.Device, toMS(r.Hour), r.Messages, r.Received, r.Stored, r.Rejected, r.Duplicate, r.Quarantined, r.Missing, r.Silent)
	if err != nil {
		return fmt.Errorf("save ledger of device %s: %w", r.Device, err)
	}
	return nil
}

// addGaps adds gaps of a device; a late message is one less in the newest that misses any.
func addGaps(ctx context.Context, q querier, device citywarden.DeviceID, gaps []citywarden.Gap) error {
	for _, g := range gaps {
		var err error
		if g == citywarden.LateMessage {
			err = fillGap(ctx, q, device)
		} else {
			_, err = q.ExecContext(ctx, `INSERT INTO gaps (device, since, until, missing) VALUES ($1, $2, $3, $4)
				ON CONFLICT (device, until, since) DO UPDATE SET missing = gaps.missing + excluded.missing`, device, toMS(g.From), toMS(g.To), g.Missing)
		}
		if err != nil {
			return fmt.Errorf("save gaps of device %s: %w", device, err)
		}
	}
	return nil
}

// fillGap takes a message that is missing from the newest gap that misses any, and the gap when it was the last.
func fillGap(ctx context.Context, q querier, device citywarden.DeviceID) error {
	const newest = `device = $1 AND until = (SELECT MAX(until) FROM gaps WHERE device = $1 AND missing > 0)`
	res, err := q.ExecContext(ctx, `DELETE FROM gaps WHERE missing = 1 AND `+newest, device)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return err
	}
	_, err = q.ExecContext(ctx, `UPDATE gaps SET missing = missing - 1 WHERE missing > 1 AND `+newest, device)
	return err
}

// Gaps returns those of a device that end after from and begin before to, by when they end; at most 10,000.
func (d *DB) Gaps(ctx context.Context, device citywarden.DeviceID, from, to time.Time) ([]citywarden.Gap, error) {
	all, err := list(ctx, d.sql, func(row scanner) (g citywarden.Gap, err error) {
		var since, until int64
		err = row.Scan(&since, &until, &g.Missing)
		g.From, g.To = fromMS(since), fromMS(until)
		return g, err
	}, `SELECT since, until, missing FROM gaps WHERE device = $1 AND until > $2 AND since < $3 ORDER BY until, since LIMIT 10000`, device, toMS(from), toMS(to))
	if err != nil {
		return nil, fmt.Errorf("read gaps of device %s: %w", device, err)
	}
	return all, nil
}

// Outages returns those that end after from and, unless to is zero, begin before it, by when they begin.
func (d *DB) Outages(ctx context.Context, from, to time.Time) ([]citywarden.Gap, error) {
	end := int64(math.MaxInt64)
	if !to.IsZero() {
		end = toMS(to)
	}
	all, err := list(ctx, d.sql, func(row scanner) (citywarden.Gap, error) {
		var began, ended int64
		err := row.Scan(&began, &ended)
		return citywarden.Gap{From: fromMS(began), To: fromMS(ended), Outage: true}, err
	}, `SELECT began, ended FROM outages WHERE ended > $1 AND began < $2 ORDER BY began`, toMS(from), end)
	if err != nil {
		return nil, fmt.Errorf("read outages: %w", err)
	}
	return all, nil
}

// TrimGaps removes all but the newest keep gaps, and as many outages.
func (d *DB) TrimGaps(ctx context.Context, keep int) error {
	_, err := d.exec(ctx, `DELETE FROM gaps WHERE until < (SELECT until FROM gaps ORDER BY until DESC LIMIT 1 OFFSET $1)`, max(keep-1, 0))
	if err != nil {
		return fmt.Errorf("trim gaps: %w", err)
	}
	_, err = d.exec(ctx, `DELETE FROM outages WHERE began < (SELECT began FROM outages ORDER BY began DESC LIMIT 1 OFFSET $1)`, max(keep-1, 0))
	if err != nil {
		return fmt.Errorf("trim outages: %w", err)
	}
	return nil
}

// saveDeadLetter adds l; isNew is false when it is there already.
func saveDeadLetter(ctx context.Context, q querier, l *citywarden.DeadLetter) (isNew bool, err error) {
	res, err := q.ExecContext(ctx, `INSERT INTO dead_letters (position, stage, device, protocol, topic, payload, received, reason, replayed)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0) ON CONFLICT (position, stage) DO NOTHING`,
		int64(l.Position), l.Stage, l.Device, l.Protocol, l.Topic, base64.StdEncoding.EncodeToString(l.Payload), l.Received.UnixNano(), l.Reason)
	if err != nil {
		return false, fmt.Errorf("save dead letter of device %s: %w", l.Device, err)
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// SaveRefused adds dead letters of readings that the time series refused, and
// counts those as rejected instead of stored, once: letters that are there already change nothing.
func (d *DB) SaveRefused(ctx context.Context, refused []citywarden.Refused) error {
	return d.tx(ctx, func(q querier) error {
		for _, r := range refused {
			isNew, err := saveDeadLetter(ctx, q, &r.DeadLetter)
			if err != nil {
				return err
			}
			if !isNew {
				continue
			}
			err = addLedger(ctx, q, &citywarden.LedgerRow{
				Device: r.Device, Hour: r.Logged.UTC().Truncate(time.Hour), Stored: -r.Readings, Rejected: r.Readings,
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// SetReplayed notes that dead letters were brought in again at that time.
func (d *DB) SetReplayed(ctx context.Context, letters []citywarden.DeadLetter, at time.Time) error {
	return d.tx(ctx, func(q querier) error {
		for i := range letters {
			l := &letters[i]
			_, err := q.ExecContext(ctx, `UPDATE dead_letters SET replayed = $1 WHERE position = $2 AND stage = $3`, toMS(at), int64(l.Position), l.Stage)
			if err != nil {
				return fmt.Errorf("note that a dead letter of device %s was replayed: %w", l.Device, err)
			}
		}
		return nil
	})
}

// Amended returns, of the messages behind after, those of which the time series refused something and those of
// which a dead letter of the decoding was brought in again, each by position.
func (d *DB) Amended(ctx context.Context, after citywarden.Position) (refused, again []citywarden.Position, err error) {
	_, err = list(ctx, d.sql, func(row scanner) (none struct{}, err error) {
		var position int64
		var stage citywarden.Failed
		if err := row.Scan(&position, &stage); err != nil {
			return none, err
		}
		to := &again
		if stage == citywarden.FailedSeries {
			to = &refused
		}
		*to = append(*to, citywarden.Position(position))
		return none, nil
	}, `SELECT position, stage FROM dead_letters WHERE position > $1 AND (stage = $2 OR replayed > 0) ORDER BY position, stage`,
		int64(after), citywarden.FailedSeries)
	if err != nil {
		return nil, nil, fmt.Errorf("read which messages were brought in again or refused: %w", err)
	}
	return refused, again, nil
}

// TrimDeadLetters removes all but the newest keep and returns how many.
func (d *DB) TrimDeadLetters(ctx context.Context, keep int) (removed int64, err error) {
	res, err := d.exec(ctx, `DELETE FROM dead_letters WHERE position <
		(SELECT position FROM dead_letters ORDER BY position DESC LIMIT 1 OFFSET $1)`, max(keep-1, 0))
	if err != nil {
		return 0, fmt.Errorf("trim dead letters: %w", err)
	}
	return res.RowsAffected()
}

// TrimLedger removes the rows of the oldest hour, if that began before before, and returns
// how many those were: one hour at a time, so that others who write need not wait.
func (d *DB) TrimLedger(ctx context.Context, before time.Time) (removed int64, err error) {
	res, err := d.exec(ctx, `DELETE FROM ledger WHERE hour < $1 AND hour = (SELECT MIN(hour) FROM ledger)`, toMS(before))
	if err != nil {
		return 0, fmt.Errorf("trim ledger: %w", err)
	}
	return res.RowsAffected()
}

// LedgerRows returns the rows of the hours that begin in [from, to), of one
// device or with "" of all, by hour and device. A zero to is the end of time.
func (d *DB) LedgerRows(ctx context.Context, from, to time.Time, device citywarden.DeviceID) ([]citywarden.LedgerRow, error) {
	w := ledgerWhere(from, to, device)
	return d.ledger(ctx, &w, "")
}

// LedgerPage returns the rows that f selects by hour and device, and the cursor of the
// next page, "" when there is none. It returns CodeInvalid for a cursor that it did not give.
func (d *DB) LedgerPage(ctx context.Context, f citywarden.LedgerFilter) ([]citywarden.LedgerRow, string, error) {
	w := ledgerWhere(f.From, f.To, f.Device)
	if f.Uneven {
		w.and("(rejected + duplicate + quarantined + missing + silent > 0 OR received <> stored + rejected + duplicate + quarantined)")
	}
	w.in(f.Area, "COALESCE((SELECT devices.grid FROM devices WHERE devices.id = ledger.device), '')")
	if f.ByHour {
		rows, err := d.ledgerRows(ctx, `SELECT '', hour, `+sumOf("messages", "received", "stored", "rejected", "duplicate", "quarantined", "missing", "silent")+
			` FROM ledger`+w.text()+` GROUP BY hour ORDER BY hour`, w.args)
		return rows, "", err
	}
	if err := w.beyond("ASC", "hour", "device", f.After); err != nil {
		return nil, "", err
	}
	all, err := d.ledger(ctx, &w, limit(f.Page))
	if err != nil {
		return nil, "", err
	}
	rows, next := page(all, f.Page, func(r *citywarden.LedgerRow) string { return pageCursor(toMS(r.Hour), string(r.Device)) })
	return rows, next, nil
}

func ledgerWhere(from, to time.Time, device citywarden.DeviceID) (w where) {
	w.and("hour >= $", toMS(from))
	if !to.IsZero() {
		w.and("hour < $", toMS(to))
	}
	if device != "" {
		w.and("device = $", device)
	}
	return w
}

// sumOf is a list of sums of columns, each as an integer.
func sumOf(columns ...string) string {
	for i, c := range columns {
		columns[i] = "CAST(SUM(" + c + ") AS BIGINT)"
	}
	return strings.Join(columns, ", ")
}

func (d *DB) ledger(ctx context.Context, w *where, limit string) ([]citywarden.LedgerRow, error) {
	return d.ledgerRows(ctx, `SELECT device, hour, messages, received, stored, rejected, duplicate, quarantined, missing, silent FROM ledger`+
		w.text()+` ORDER BY hour, device`+limit, w.args)
}

func (d *DB) ledgerRows(ctx context.Context, query string, args []any) ([]citywarden.LedgerRow, error) {
	rows, err := list(ctx, d.sql, func(row scanner) (r citywarden.LedgerRow, err error) {
		var hour int64
		err = row.Scan(&r.Device, &hour, &r.Messages, &r.Received, &r.Stored, &r.Rejected, &r.Duplicate, &r.Quarantined, &r.Missing, &r.Silent)
		r.Hour = fromMS(hour)
		return r, err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	return rows, nil
}

// DeadLetters returns dead letters, the newest first unless f says otherwise, and
// the cursor of the next page, "" when there is none. It returns CodeInvalid for a cursor that it did not give.
func (d *DB) DeadLetters(ctx context.Context, f citywarden.DeadLetterFilter) ([]citywarden.DeadLetter, string, error) {
	var w where
	if f.Device != "" {
		w.and("device = $", f.Device)
	}
	w.in(f.Area, "COALESCE((SELECT devices.grid FROM devices WHERE devices.id = dead_letters.device), '')")
	if f.Stage != "" {
		w.and("stage = $", f.Stage)
	}
	if f.Open {
		w.and("replayed = 0")
	}
	order := "DESC"
	if f.Oldest {
		order = "ASC"
	}
	if err := w.beyond(order, "position", "stage", f.After); err != nil {
		return nil, "", err
	}
	all, err := list(ctx, d.sql, func(row scanner) (l citywarden.DeadLetter, err error) {
		var received, replayed, position int64
		var payload string
		if err = row.Scan(&position, &l.Stage, &l.Device, &l.Protocol, &l.Topic, &payload, &received, &l.Reason, &replayed); err != nil {
			return l, err
		}
		l.Position, l.Received, l.Replayed = citywarden.Position(position), time.Unix(0, received).UTC(), fromMS(replayed)
		l.Payload, err = base64.StdEncoding.DecodeString(payload)
		return l, err
	}, `SELECT position, stage, device, protocol, topic, payload, received, reason, replayed FROM dead_letters`+
		w.text()+fmt.Sprintf(" ORDER BY position %s, stage %[1]s", order)+limit(f.Page), w.args...)
	if err != nil {
		return nil, "", fmt.Errorf("read dead letters: %w", err)
	}
	items, next := page(all, f.Page, func(l *citywarden.DeadLetter) string { return pageCursor(int64(l.Position), string(l.Stage)) })
	return items, next, nil
}
