package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/citywarden/citywarden"
)

// LoadClaims returns what devices said of being claimed, also what has ended.
func (d *DB) LoadClaims(ctx context.Context) ([]citywarden.ClaimOffer, error) {
	all, err := list(ctx, d.sql, func(row scanner) (o citywarden.ClaimOffer, err error) {
		var secret string
		var until int64
		if err := row.Scan(&o.Device, &secret, &until); err != nil {
			return o, err
		}
		o.Until = fromMS(until)
		o.Secret, err = hex.DecodeString(secret)
		return o, err
	}, `SELECT device, secret, until FROM claims ORDER BY device`)
	if err != nil {
		return nil, fmt.Errorf("read claims: %w", err)
	}
	return all, nil
}

// SaveClaims inserts or replaces what devices said of being claimed, and deletes what has
// ended, in one transaction.
func (d *DB) SaveClaims(ctx context.Context, all []citywarden.ClaimOffer) error {
	return d.tx(ctx, func(q querier) error {
		if _, err := q.ExecContext(ctx, `DELETE FROM claims WHERE until <= $1`, toMS(time.Now())); err != nil {
			return err
		}
		for _, o := range all {
			if _, err := q.ExecContext(ctx, `INSERT INTO claims (device, secret, until) VALUES ($1, $2, $3)
				ON CONFLICT (device) DO UPDATE SET secret = excluded.secret, until = excluded.until`,
				o.Device, hex.EncodeToString(o.Secret), toMS(o.Until)); err != nil {
				return fmt.Errorf("claim of device %s: %w", o.Device, err)
			}
		}
		return nil
	})
}

// SaveClaimed stores a device and deletes what it said of being claimed, in one transaction.
func (d *DB) SaveClaimed(ctx context.Context, x citywarden.Device) error {
	return d.tx(ctx, func(q querier) error {
		if err := saveDevice(ctx, q, &x); err != nil {
			return fmt.Errorf("device %s: %w", x.ID, err)
		}
		_, err := q.ExecContext(ctx, `DELETE FROM claims WHERE device = $1`, x.ID)
		return err
	})
}
