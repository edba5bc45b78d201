package store

import (
	"context"
	"fmt"

	"github.com/citywarden/citywarden"
)

// Components returns all components in the order of their codes.
func (d *DB) Components(ctx context.Context) ([]citywarden.Component, error) {
	all, err := documents[citywarden.Component](ctx, d.sql, `SELECT data FROM components ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("list components: %w", err)
	}
	return all, nil
}

// SaveComponents inserts or replaces components, all or none.
func (d *DB) SaveComponents(ctx context.Context, xs []citywarden.Component) error {
	return d.tx(ctx, func(q querier) error {
		return saveDocuments(ctx, q, "components", xs, func(x citywarden.Component) citywarden.ComponentID { return x.ID })
	})
}

// DeleteComponent deletes a component.
func (d *DB) DeleteComponent(ctx context.Context, id citywarden.ComponentID) error {
	_, err := d.exec(ctx, `DELETE FROM components WHERE id = $1`, string(id))
	return err
}
