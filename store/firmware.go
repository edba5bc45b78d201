package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/citywarden/citywarden"
)

// LoadFirmware returns the firmware in the order of title and version, each with
// its targets.
func (d *DB) LoadFirmware(ctx context.Context) ([]citywarden.Firmware, error) {
	all, err := list(ctx, d.sql, func(row scanner) (f citywarden.Firmware, err error) {
		var data string
		if err := row.Scan(&data); err != nil {
			return f, err
		}
		return f, json.Unmarshal([]byte(data), &f)
	}, `SELECT data FROM firmware ORDER BY title, version`)
	if err != nil {
		return nil, fmt.Errorf("read firmware: %w", err)
	}
	type assigned struct {
		citywarden.FirmwareTarget
		title, version string
	}
	targets, err := list(ctx, d.sql, func(row scanner) (a assigned, err error) {
		return a, row.Scan(&a.Scope, &a.Name, &a.title, &a.version)
	}, `SELECT scope, name, title, version FROM firmware_targets ORDER BY scope, name`)
	if err != nil {
		return nil, fmt.Errorf("read targets of firmware: %w", err)
	}
	for _, a := range targets {
		for i := range all {
			if all[i].Title == a.title && all[i].Version == a.version {
				all[i].Targets = append(all[i].Targets, a.FirmwareTarget)
			}
		}
	}
	return all, nil
}

// FirmwareFile returns the file of a firmware, or CodeNotFound.
func (d *DB) FirmwareFile(ctx context.Context, title, version string) (file []byte, err error) {
	err = d.sql.QueryRowContext(ctx, `SELECT file FROM firmware_files WHERE title = $1 AND version = $2`, title, version).Scan(&file)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, citywarden.Errorf(citywarden.CodeNotFound, "no firmware %s %s", title, version)
	}
	return file, err
}

// AddFirmware inserts a firmware with its file.
func (d *DB) AddFirmware(ctx context.Context, f citywarden.Firmware, file []byte) error {
	f.Targets = nil
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return d.tx(ctx, func(q querier) error {
		if _, err := q.ExecContext(ctx, `INSERT INTO firmware (title, version, data) VALUES ($1, $2, $3)`, f.Title, f.Version, string(b)); err != nil {
			return err
		}
		_, err := q.ExecContext(ctx, `INSERT INTO firmware_files (title, version, file) VALUES ($1, $2, $3)`, f.Title, f.Version, file)
		return err
	})
}

// DeleteFirmware deletes a firmware, its file and its targets.
func (d *DB) DeleteFirmware(ctx context.Context, title, version string) error {
	return d.tx(ctx, func(q querier) error {
		for _, table := range []string{"firmware", "firmware_files", "firmware_targets"} {
			if _, err := q.ExecContext(ctx, `DELETE FROM `+table+` WHERE title = $1 AND version = $2`, title, version); err != nil {
				return err
			}
		}
		return nil
	})
}

// SetFirmware gives a target a firmware in place of the one before; with "" it
// has none any more.
func (d *DB) SetFirmware(ctx context.Context, t citywarden.FirmwareTarget, title, version string) error {
	if title == "" {
		_, err := d.exec(ctx, `DELETE FROM firmware_targets WHERE scope = $1 AND name = $2`, string(t.Scope), t.Name)
		return err
	}
	_, err := d.exec(ctx, `INSERT INTO firmware_targets (scope, name, title, version) VALUES ($1, $2, $3, $4)
		ON CONFLICT (scope, name) DO UPDATE SET title = excluded.title, version = excluded.version`, string(t.Scope), t.Name, title, version)
	return err
}
