package store

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/citywarden/citywarden"
)

// LoadProvisioning returns which models' devices may provision themselves.
func (d *DB) LoadProvisioning(ctx context.Context) ([]citywarden.Provisioning, error) {
	all, err := list(ctx, d.sql, func(row scanner) (p citywarden.Provisioning, err error) {
		var secret string
		var createNew, since int64
		if err := row.Scan(&p.Model, &p.Key, &secret, &createNew, &since); err != nil {
			return p, err
		}
		p.CreateNew, p.Since = createNew != 0, fromMS(since)
		p.Secret, err = hex.DecodeString(secret)
		return p, err
	}, `SELECT model, key, secret, create_new, since FROM provisioning ORDER BY model`)
	if err != nil {
		return nil, fmt.Errorf("read provisioning: %w", err)
	}
	return all, nil
}

// SaveProvisioning inserts or replaces the provisioning of a model.
func (d *DB) SaveProvisioning(ctx context.Context, p citywarden.Provisioning) error {
	_, err := d.exec(ctx, `INSERT INTO provisioning (model, key, secret, create_new, since) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (model) DO UPDATE SET key = excluded.key, secret = excluded.secret, create_new = excluded.create_new, since = excluded.since`,
		p.Model, p.Key, hex.EncodeToString(p.Secret), toInt(p.CreateNew), toMS(p.Since))
	return err
}

// DeleteProvisioning deletes the provisioning of a model.
func (d *DB) DeleteProvisioning(ctx context.Context, model citywarden.ModelName) error {
	_, err := d.exec(ctx, `DELETE FROM provisioning WHERE model = $1`, model)
	return err
}
