package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/citywarden/citywarden"
)

// LoadSites returns all sites in the order of their ids.
func (d *DB) LoadSites(ctx context.Context) ([]citywarden.Site, error) {
	sites, err := list(ctx, d.sql, func(row scanner) (s citywarden.Site, err error) {
		var attrs string
		var updated int64
		if err := row.Scan(&s.ID, &s.Name, &attrs, &updated); err != nil {
			return s, err
		}
		s.Updated = fromMS(updated)
		if err := json.Unmarshal([]byte(attrs), &s.Attributes); err != nil {
			return s, fmt.Errorf("attributes of site %s: %w", s.ID, err)
		}
		return s, nil
	}, `SELECT id, name, attributes, updated FROM sites ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("read sites: %w", err)
	}
	return sites, nil
}

// SaveSite inserts or replaces a site.
func (d *DB) SaveSite(ctx context.Context, s citywarden.Site) error {
	attrs, err := json.Marshal(s.Attributes)
	if err != nil {
		return err
	}
	_, err = d.exec(ctx, `INSERT INTO sites (id, name, attributes, updated) VALUES ($1, $2, $3, $4)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, attributes = excluded.attributes, updated = excluded.updated`,
		s.ID, s.Name, string(attrs), toMS(s.Updated))
	return err
}

// DeleteSite deletes a site.
func (d *DB) DeleteSite(ctx context.Context, id citywarden.SiteID) error {
	_, err := d.exec(ctx, `DELETE FROM sites WHERE id = $1`, id)
	return err
}
