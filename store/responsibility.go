package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/citywarden/citywarden"
)

// ResponsibilityGrids returns all responsibility grids in the order of their ids.
func (d *DB) ResponsibilityGrids(ctx context.Context) ([]citywarden.ResponsibilityGrid, error) {
	all, err := list(ctx, d.sql, func(row scanner) (g citywarden.ResponsibilityGrid, err error) {
		var data string
		if err := row.Scan(&data); err != nil {
			return g, err
		}
		return g, json.Unmarshal([]byte(data), &g)
	}, `SELECT data FROM responsibility_grids ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("list responsibility grids: %w", err)
	}
	return all, nil
}

// ChangeResponsibilityGrids saves and deletes responsibility grids, all or none.
func (d *DB) ChangeResponsibilityGrids(ctx context.Context, save []citywarden.ResponsibilityGrid, remove []citywarden.ResponsibilityGridID) error {
	return d.tx(ctx, func(q querier) error {
		for _, id := range remove {
			if _, err := q.ExecContext(ctx, `DELETE FROM responsibility_grids WHERE id = $1`, id); err != nil {
				return fmt.Errorf("delete responsibility grid %s: %w", id, err)
			}
		}
		for _, g := range save {
			b, err := json.Marshal(g)
			if err != nil {
				return fmt.Errorf("write responsibility grid %s: %w", g.ID, err)
			}
			_, err = q.ExecContext(ctx, `INSERT INTO responsibility_grids (id, data) VALUES ($1, $2)
				ON CONFLICT (id) DO UPDATE SET data = excluded.data`, g.ID, string(b))
			if err != nil {
				return fmt.Errorf("save responsibility grid %s: %w", g.ID, err)
			}
		}
		return nil
	})
}
