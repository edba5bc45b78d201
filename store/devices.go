package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/citywarden/citywarden"
)

// latestCursor is the cursor of the latest values, which the consumer of that
// name keeps.
const latestCursor = "latest"

// LoadDevices calls each for every device with its last-seen time and latest
// values and its secrets, the newest first, in the order of their ids, and returns the position of the log that the latest values reach.
func (d *DB) LoadDevices(ctx context.Context, each func(citywarden.DeviceView, []citywarden.Secret)) (citywarden.Position, error) {
	// The position first: values that are newer than it only come twice.
	p, err := cursor(ctx, d.sql, latestCursor)
	if err != nil {
		return 0, err
	}
	secrets, err := d.loadSecrets(ctx)
	if err != nil {
		return 0, err
	}
	rows, err := d.sql.QueryContext(ctx, `SELECT d.id, d.name, d.model, d.attributes, d.lat, d.lon, d.grid, d.adjacent,
			d.component, d.disabled, d.created, d.updated, l.last_seen, l.latest, l.client, l.gone, l.clock
		FROM devices d LEFT JOIN device_latest l ON l.device = d.id ORDER BY d.id`)
	if err != nil {
		return 0, fmt.Errorf("read devices: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var (
			v                citywarden.DeviceView
			attrs, adjacent  string
			lat, lon         sql.NullFloat64
			latest           sql.NullString
			client, clock    sql.NullString
			left             sql.NullBool
			created, updated int64
			seen             sql.NullInt64
		)
		if err := rows.Scan(&v.ID, &v.Name, &v.Model, &attrs, &lat, &lon, &v.Grid, &adjacent,
			&v.Component, &v.Disabled, &created, &updated, &seen, &latest, &client, &left, &clock); err != nil {
			return 0, fmt.Errorf("read devices: %w", err)
		}
		v.Created, v.Updated, v.LastSeen = fromMS(created), fromMS(updated), fromMS(seen.Int64)
		if lat.Valid && lon.Valid {
			v.Location = &citywarden.Point{Lat: lat.Float64, Lon: lon.Float64}
		}
		if err := json.Unmarshal([]byte(attrs), &v.Attributes); err != nil {
			return 0, fmt.Errorf("attributes of device %s: %w", v.ID, err)
		}
		if err := json.Unmarshal([]byte(adjacent), &v.Adjacent); err != nil {
			return 0, fmt.Errorf("neighbours of device %s: %w", v.ID, err)
		}
		if len(v.Adjacent) == 0 {
			v.Adjacent = nil
		}
		if latest.Valid {
			if err := json.Unmarshal([]byte(latest.String), &v.Latest); err != nil {
				return 0, fmt.Errorf("latest values of device %s: %w", v.ID, err)
			}
		}
		v.Left = left.Bool
		if client.Valid && client.String != "" {
			if err := json.Unmarshal([]byte(client.String), &v.Client); err != nil {
				return 0, fmt.Errorf("attributes that device %s reported: %w", v.ID, err)
			}
		}
		if clock.String != "" {
			if err := json.Unmarshal([]byte(clock.String), &v.ClockHistory); err != nil {
				return 0, fmt.Errorf("clock of device %s: %w", v.ID, err)
			}
		}
		each(v, secrets[v.ID])
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("read devices: %w", err)
	}
	return p, nil
}

// loadSecrets returns the secrets of all devices, the newest first.
func (d *DB) loadSecrets(ctx context.Context) (map[citywarden.DeviceID][]citywarden.Secret, error) {
	rows, err := d.sql.QueryContext(ctx, `SELECT device, kind, hash, hint, since, until, identity, sealed FROM device_secrets ORDER BY device, replaced`)
	if err != nil {
		return nil, fmt.Errorf("read secrets of devices: %w", err)
	}
	defer rows.Close()
	out := map[citywarden.DeviceID][]citywarden.Secret{}
	for rows.Next() {
		var (
			id           citywarden.DeviceID
			s            citywarden.Secret
			hash, sealed string
			since, until int64
		)
		if err = rows.Scan(&id, &s.Kind, &hash, &s.Hint, &since, &until, &s.Identity, &sealed); err == nil {
			s.Hash, err = hex.DecodeString(hash)
		}
		if err == nil && sealed != "" {
			s.Sealed, err = hex.DecodeString(sealed)
		}
		if err != nil {
			return nil, fmt.Errorf("read secrets of devices: %w", err)
		}
		s.Since, s.Until = fromMS(since), fromMS(until)
		out[id] = append(out[id], s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read secrets of devices: %w", err)
	}
	return out, nil
}

// HasSealed reports whether a secret of a device is sealed.
func (d *DB) HasSealed(ctx context.Context) (bool, error) {
	var has bool
	if err := d.sql.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM device_secrets WHERE sealed <> '')`).Scan(&has); err != nil {
		return false, fmt.Errorf("read secrets of devices: %w", err)
	}
	return has, nil
}

// SaveDevices inserts or replaces devices and sets the secrets given, in one
// transaction.
func (d *DB) SaveDevices(ctx context.Context, ds []citywarden.Device, secrets map[citywarden.DeviceID][]citywarden.Secret) error {
	return d.tx(ctx, func(q querier) error {
		for i := range ds {
			if err := saveDevice(ctx, q, &ds[i]); err != nil {
				return fmt.Errorf("device %s: %w", ds[i].ID, err)
			}
		}
		for id, all := range secrets {
			if err := saveSecrets(ctx, q, id, all); err != nil {
				return fmt.Errorf("secrets of device %s: %w", id, err)
			}
		}
		return nil
	})
}

func saveSecrets(ctx context.Context, q querier, id citywarden.DeviceID, all []citywarden.Secret) error {
	if _, err := q.ExecContext(ctx, `DELETE FROM device_secrets WHERE device = $1`, id); err != nil {
		return err
	}
	for i, s := range all {
		if _, err := q.ExecContext(ctx, `INSERT INTO device_secrets (hash, device, kind, hint, since, until, replaced, identity, sealed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			hex.EncodeToString(s.Hash), id, s.Kind, s.Hint, toMS(s.Since), toMS(s.Until), toInt(i > 0), s.Identity, hex.EncodeToString(s.Sealed)); err != nil {
			return err
		}
	}
	return nil
}

func saveDevice(ctx context.Context, q querier, x *citywarden.Device) error {
	attrs := x.Attributes
	if attrs == nil {
		attrs = map[string]any{}
	}
	a, err := json.Marshal(attrs)
	if err != nil {
		return err
	}
	adjacent := x.Adjacent
	if adjacent == nil {
		adjacent = []citywarden.DeviceID{}
	}
	n, err := json.Marshal(adjacent)
	if err != nil {
		return err
	}
	var lat, lon sql.NullFloat64
	if x.Location != nil {
		lat, lon = sql.NullFloat64{Float64: x.Location.Lat, Valid: true}, sql.NullFloat64{Float64: x.Location.Lon, Valid: true}
	}
	disabled := 0
	if x.Disabled {
		disabled = 1
	}
	_, err = q.ExecContext(ctx, `INSERT INTO devices (id, name, model, attributes, lat, lon, grid, adjacent, component, disabled, created, updated)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, model = excluded.model, attributes = excluded.attributes,
			lat = excluded.lat, lon = excluded.lon, grid = excluded.grid, adjacent = excluded.adjacent,
			component = excluded.component, disabled = excluded.disabled, updated = excluded.updated`,
		x.ID, x.Name, x.Model, string(a), lat, lon, x.Grid, string(n), x.Component, disabled, toMS(x.Created), toMS(x.Updated))
	return err
}

// DeleteDevice deletes a device with its secrets and latest values.
func (d *DB) DeleteDevice(ctx context.Context, id citywarden.DeviceID) error {
	_, err := d.exec(ctx, `DELETE FROM devices WHERE id = $1`, id)
	return err
}

// SaveLatest replaces last-seen times and latest values of those devices that
// still exist, and the position of the log that they reach, in one transaction.
func (d *DB) SaveLatest(ctx context.Context, vs []citywarden.DeviceView, reached citywarden.Position) error {
	return d.tx(ctx, func(q querier) error {
		for i := range vs {
			latest, err := json.Marshal(vs[i].Latest)
			if err != nil {
				return fmt.Errorf("device %s: %w", vs[i].ID, err)
			}
			client := []byte(nil)
			if len(vs[i].Client) > 0 {
				if client, err = json.Marshal(vs[i].Client); err != nil {
					return fmt.Errorf("device %s: %w", vs[i].ID, err)
				}
			}
			if _, err := q.ExecContext(ctx, `INSERT INTO device_latest (device, last_seen, latest, client, gone)
				SELECT id, CAST($2 AS BIGINT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS SMALLINT) FROM devices WHERE id = $1
				ON CONFLICT (device) DO UPDATE SET last_seen = excluded.last_seen, latest = excluded.latest,
					client = excluded.client, gone = excluded.gone`,
				vs[i].ID, toMS(vs[i].LastSeen), string(latest), string(client), toInt(vs[i].Left)); err != nil {
				return fmt.Errorf("device %s: %w", vs[i].ID, err)
			}
			if vs[i].ClockHistory == nil {
				continue
			}
			clock, err := json.Marshal(vs[i].ClockHistory)
			if err != nil {
				return fmt.Errorf("clock of device %s: %w", vs[i].ID, err)
			}
			if _, err := q.ExecContext(ctx, `UPDATE device_latest SET clock = $2 WHERE device = $1`, vs[i].ID, string(clock)); err != nil {
				return fmt.Errorf("clock of device %s: %w", vs[i].ID, err)
			}
		}
		return setCursor(ctx, q, latestCursor, reached)
	})
}

// keptUptimes is how many times at which the platform ran are kept.
const keptUptimes = 64

// LoadUptimes returns when the platform ran, the newest last.
func (d *DB) LoadUptimes(ctx context.Context) ([]citywarden.Uptime, error) {
	rows, err := d.sql.QueryContext(ctx, `SELECT began, ended FROM uptimes ORDER BY began`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []citywarden.Uptime
	for rows.Next() {
		var began, ended int64
		if err := rows.Scan(&began, &ended); err != nil {
			return nil, err
		}
		out = append(out, citywarden.Uptime{From: fromMS(began), To: fromMS(ended)})
	}
	return out, rows.Err()
}

// SaveUptime stores that the platform runs since u.From, and did until u.To, and
// forgets all but the newest of such times.
func (d *DB) SaveUptime(ctx context.Context, u citywarden.Uptime) error {
	return d.tx(ctx, func(q querier) error {
		if _, err := q.ExecContext(ctx, `INSERT INTO uptimes (began, ended) VALUES ($1, $2)
			ON CONFLICT (began) DO UPDATE SET ended = excluded.ended`, toMS(u.From), toMS(u.To)); err != nil {
			return err
		}
		_, err := q.ExecContext(ctx, `DELETE FROM uptimes WHERE began NOT IN (SELECT began FROM uptimes ORDER BY began DESC LIMIT $1)`, keptUptimes)
		return err
	})
}
