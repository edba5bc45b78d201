package store

import (
	"context"
	"fmt"

	"github.com/citywarden/citywarden"
)

// ResponsibilityGrids returns all responsibility grids in the order of their ids.
func (d *DB) ResponsibilityGrids(ctx context.Context) ([]citywarden.ResponsibilityGrid, error) {
	all, err := documents[citywarden.ResponsibilityGrid](ctx, d.sql, `SELECT data FROM responsibility_grids ORDER BY id`)
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
		return saveDocuments(ctx, q, "responsibility_grids", save, func(g citywarden.ResponsibilityGrid) citywarden.ResponsibilityGridID { return g.ID })
	})
}
