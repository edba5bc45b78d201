package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/citywarden/citywarden"
)

// LoadSnapshot returns the newest snapshot of the rule engine and the position
// of the log that it stands for; nil when there is none.
func (d *DB) LoadSnapshot(ctx context.Context) (citywarden.Position, []byte, error) {
	var (
		pos  int64
		data []byte
	)
	err := d.sql.QueryRowContext(ctx, `SELECT position, data FROM rule_snapshot WHERE id = 1`).Scan(&pos, &data)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, nil, nil
	case err != nil:
		return 0, nil, fmt.Errorf("read snapshot of the rule engine: %w", err)
	}
	return citywarden.Position(pos), data, nil
}

// SaveSnapshot replaces the snapshot of the rule engine.
func (d *DB) SaveSnapshot(ctx context.Context, pos citywarden.Position, data []byte) error {
	_, err := d.exec(ctx, `INSERT INTO rule_snapshot (id, position, data) VALUES (1, $1, $2)
		ON CONFLICT (id) DO UPDATE SET position = excluded.position, data = excluded.data`, int64(pos), data)
	if err != nil {
		return fmt.Errorf("save snapshot of the rule engine: %w", err)
	}
	return nil
}
