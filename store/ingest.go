package store

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"github.com/citywarden/citywarden"
)

// SaveLedger adds rows to what is stored for their device and hour, adds dead
// letters and moves the cursor called name from one position to the next, in
// one transaction. It does nothing when the cursor is at to already (an earlier call was
// committed without its caller knowing), and returns CodeConflict when it is
// neither there nor at from.
func (d *DB) SaveLedger(ctx context.Context, name string, from, to citywarden.Position, rows []citywarden.LedgerRow, dead []citywarden.DeadLetter) error {
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
		for _, r := range rows {
			_, err := q.ExecContext(ctx, `INSERT INTO ledger
				(device, hour, messages, received, stored, rejected, duplicate, quarantined) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
				ON CONFLICT (hour, device) DO UPDATE SET
					messages = ledger.messages + excluded.messages, received = ledger.received + excluded.received,
					stored = ledger.stored + excluded.stored, rejected = ledger.rejected + excluded.rejected,
					duplicate = ledger.duplicate + excluded.duplicate, quarantined = ledger.quarantined + excluded.quarantined`,
				r.Device, toMS(r.Hour), r.Messages, r.Received, r.Stored, r.Rejected, r.Duplicate, r.Quarantined)
			if err != nil {
				return fmt.Errorf("save ledger of device %s: %w", r.Device, err)
			}
		}
		for _, l := range dead {
			_, err := q.ExecContext(ctx, `INSERT INTO dead_letters (position, device, protocol, topic, payload, received, reason)
				VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (position) DO NOTHING`,
				int64(l.Position), l.Device, l.Protocol, l.Topic, base64.StdEncoding.EncodeToString(l.Payload), toMS(l.Received), l.Reason)
			if err != nil {
				return fmt.Errorf("save dead letter of device %s: %w", l.Device, err)
			}
		}
		return setCursor(ctx, q, name, to)
	})
}

// LedgerRows returns the rows of the hours that begin in [from, to), of one
// device or with "" of all, by hour and device. A zero to means no end.
func (d *DB) LedgerRows(ctx context.Context, from, to time.Time, device citywarden.DeviceID) ([]citywarden.LedgerRow, error) {
	var w where
	w.and("hour >= $", toMS(from))
	if !to.IsZero() {
		w.and("hour < $", toMS(to))
	}
	if device != "" {
		w.and("device = $", device)
	}
	rows, err := list(ctx, d.sql, func(row scanner) (r citywarden.LedgerRow, err error) {
		var hour int64
		err = row.Scan(&r.Device, &hour, &r.Messages, &r.Received, &r.Stored, &r.Rejected, &r.Duplicate, &r.Quarantined)
		r.Hour = fromMS(hour)
		return r, err
	}, `SELECT device, hour, messages, received, stored, rejected, duplicate, quarantined FROM ledger`+
		w.text()+` ORDER BY hour, device`, w.args...)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	return rows, nil
}

// DeadLetters returns dead letters, the newest first, of one device or with ""
// of all, and the cursor of the next page, "" when there is none. It returns CodeInvalid
// for a cursor that it did not give.
func (d *DB) DeadLetters(ctx context.Context, device citywarden.DeviceID, p citywarden.Page) ([]citywarden.DeadLetter, string, error) {
	var w where
	if device != "" {
		w.and("device = $", device)
	}
	if err := w.before("position", p.After); err != nil {
		return nil, "", err
	}
	all, err := list(ctx, d.sql, func(row scanner) (l citywarden.DeadLetter, err error) {
		var received, position int64
		var payload string
		if err = row.Scan(&position, &l.Device, &l.Protocol, &l.Topic, &payload, &received, &l.Reason); err != nil {
			return l, err
		}
		l.Position, l.Received = citywarden.Position(position), fromMS(received)
		l.Payload, err = base64.StdEncoding.DecodeString(payload)
		return l, err
	}, `SELECT position, device, protocol, topic, payload, received, reason FROM dead_letters`+
		w.text()+` ORDER BY position DESC`+limit(p), w.args...)
	if err != nil {
		return nil, "", fmt.Errorf("read dead letters: %w", err)
	}
	items, next := page(all, p, func(l *citywarden.DeadLetter) string { return strconv.FormatInt(int64(l.Position), 10) })
	return items, next, nil
}
