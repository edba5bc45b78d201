package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/citywarden/citywarden"
)

// UnitGrids returns the unit grids that hold now, in the order of their codes.
func (d *DB) UnitGrids(ctx context.Context) ([]citywarden.UnitGrid, error) {
	grids, err := list(ctx, d.sql, scanGrid, `SELECT data, valid_from, valid_until FROM unit_grids WHERE valid_until = 0 ORDER BY code`)
	if err != nil {
		return nil, fmt.Errorf("list unit grids: %w", err)
	}
	return grids, nil
}

// UnitGridVersions returns all that a code has stood for, the oldest first.
func (d *DB) UnitGridVersions(ctx context.Context, code citywarden.GridCode) ([]citywarden.UnitGrid, error) {
	return list(ctx, d.sql, scanGrid, `SELECT data, valid_from, valid_until FROM unit_grids WHERE code = $1 ORDER BY valid_from`, code)
}

func scanGrid(row scanner) (g citywarden.UnitGrid, err error) {
	var data string
	var from, until int64
	if err := row.Scan(&data, &from, &until); err != nil {
		return g, err
	}
	if err := json.Unmarshal([]byte(data), &g); err != nil {
		return g, fmt.Errorf("read unit grid: %w", err)
	}
	g.From, g.Until = fromMS(from), fromMS(until)
	return g, nil
}

// ChangeUnitGrids ends the grids of the codes in end, and of the codes in add,
// and adds the latter, all from at on, all or none.
func (d *DB) ChangeUnitGrids(ctx context.Context, at time.Time, add []citywarden.UnitGrid, end []citywarden.GridCode) error {
	return d.tx(ctx, func(q querier) error {
		for _, g := range add {
			end = append(end, g.Code)
		}
		for _, code := range end {
			if _, err := q.ExecContext(ctx, `UPDATE unit_grids SET valid_until = $1 WHERE code = $2 AND valid_until = 0`, toMS(at), code); err != nil {
				return fmt.Errorf("end unit grid %s: %w", code, err)
			}
		}
		for _, g := range add {
			b, err := json.Marshal(g)
			if err != nil {
				return fmt.Errorf("write unit grid %s: %w", g.Code, err)
			}
			// Two changes in one millisecond are one.
			_, err = q.ExecContext(ctx, `INSERT INTO unit_grids (code, valid_from, valid_until, data) VALUES ($1, $2, 0, $3)
				ON CONFLICT (code, valid_from) DO UPDATE SET valid_until = 0, data = excluded.data`, g.Code, toMS(at), string(b))
			if err != nil {
				return fmt.Errorf("save unit grid %s: %w", g.Code, err)
			}
		}
		return nil
	})
}
