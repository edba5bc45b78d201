package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/citywarden/citywarden"
)

// Cursor returns the position that the consumer called name has reached, 0
// when it has not begun.
func (d *DB) Cursor(ctx context.Context, name string) (citywarden.Position, error) {
	return cursor(ctx, d.sql, name)
}

// SetCursor stores that the consumer called name has reached p.
func (d *DB) SetCursor(ctx context.Context, name string, p citywarden.Position) error {
	return d.tx(ctx, func(q querier) error { return setCursor(ctx, q, name, p) })
}

func cursor(ctx context.Context, q querier, name string) (citywarden.Position, error) {
	var p int64
	err := q.QueryRowContext(ctx, `SELECT position FROM cursors WHERE name = $1`, name).Scan(&p)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read cursor %s: %w", name, err)
	}
	return citywarden.Position(p), nil
}

func setCursor(ctx context.Context, q querier, name string, p citywarden.Position) error {
	_, err := q.ExecContext(ctx, `INSERT INTO cursors (name, position) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET position = excluded.position`, name, int64(p))
	if err != nil {
		return fmt.Errorf("save cursor %s: %w", name, err)
	}
	return nil
}
