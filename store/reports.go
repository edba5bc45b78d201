package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/citywarden/citywarden"
)

// AddReport keeps r beside its case, with the hash of its secret.
func (t *DeskTx) AddReport(ctx context.Context, r citywarden.Report, secret string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write report of case %s: %w", r.Case, err)
	}
	_, err = t.q.ExecContext(ctx, `INSERT INTO reports (case_id, source, at, secret, by_app, data) VALUES ($1, $2, $3, $4, $5, $6)`,
		string(r.Case), string(r.Source), toMS(r.At), secret, toInt(r.App != ""), string(b))
	if err != nil {
		return fmt.Errorf("save report of case %s: %w", r.Case, err)
	}
	return nil
}

const selectReports = `SELECT r.data, r.secret, c.data, (SELECT MAX(s.at) FROM case_steps s WHERE s.case_id = r.case_id)
	FROM reports r JOIN cases c ON c.id = r.case_id`

func scanReport(row scanner) (x citywarden.ReportedCase, secret string, err error) {
	var report, now string
	var updated int64
	if err = row.Scan(&report, &secret, &now, &updated); err != nil {
		return x, "", err
	}
	if err = json.Unmarshal([]byte(report), &x.Report); err == nil {
		err = json.Unmarshal([]byte(now), &x.Now)
	}
	x.Updated = fromMS(updated)
	return x, secret, err
}

// Report returns the report that a case was opened for, with what became of it
// and the hash of its secret; CodeNotFound when there is none.
func (d *DB) Report(ctx context.Context, id citywarden.CaseID) (x citywarden.ReportedCase, secret string, err error) {
	x, secret, err = scanReport(d.sql.QueryRowContext(ctx, selectReports+` WHERE r.case_id = $1`, string(id)))
	if errors.Is(err, sql.ErrNoRows) {
		return x, "", citywarden.Errorf(citywarden.CodeNotFound, "nobody reported case %s", id)
	}
	if err != nil {
		return x, "", fmt.Errorf("read report of case %s: %w", id, err)
	}
	return x, secret, nil
}

// Reports returns the reports that f selects with what became of them, the
// newest first, at most f.Limit after f.Skip.
func (d *DB) Reports(ctx context.Context, f citywarden.ReportFilter) ([]citywarden.ReportedCase, error) {
	var w where
	if f.Cases != nil && len(f.Cases) == 0 {
		return []citywarden.ReportedCase{}, nil
	}
	if f.Source != "" {
		w.and("r.source = $", string(f.Source))
	}
	if f.ByApp {
		w.and("r.by_app = 1")
	}
	oneOf(&w, "r.case_id", f.Cases)
	oneOf(&w, "c.class", f.Classes)
	if f.Open != nil {
		w.and("c.is_open = $", toInt(*f.Open))
	}
	if !f.From.IsZero() {
		w.and("r.at >= $", toMS(f.From))
	}
	if !f.To.IsZero() {
		w.and("r.at < $", toMS(f.To))
	}
	scan := func(row scanner) (citywarden.ReportedCase, error) {
		x, _, err := scanReport(row)
		return x, err
	}
	query := fmt.Sprintf("%s%s ORDER BY r.at DESC, r.case_id DESC LIMIT %d OFFSET %d", selectReports, w.text(), f.Limit, f.Skip)
	out, err := list(ctx, d.sql, scan, query, w.args...)
	if err != nil {
		return nil, fmt.Errorf("list reports: %w", err)
	}
	return out, nil
}

// AddAPIKey stores a key of an app; CodeConflict when there is one of that name.
func (d *DB) AddAPIKey(ctx context.Context, k citywarden.APIKey) error {
	b, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("write API key of %s: %w", k.Name, err)
	}
	r, err := d.exec(ctx, `INSERT INTO api_keys (id, name, created, data) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		k.ID, k.Name, toMS(k.Created), string(b))
	if err != nil {
		return fmt.Errorf("add API key of %s: %w", k.Name, err)
	}
	if n, err := r.RowsAffected(); err != nil {
		return fmt.Errorf("add API key of %s: %w", k.Name, err)
	} else if n == 0 {
		return citywarden.Errorf(citywarden.CodeConflict, "there is an API key of %s already", k.Name)
	}
	return nil
}

// APIKeys returns all keys by name.
func (d *DB) APIKeys(ctx context.Context) ([]citywarden.APIKey, error) {
	keys, err := list(ctx, d.sql, scanAPIKey, `SELECT data FROM api_keys ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list API keys: %w", err)
	}
	return keys, nil
}

// APIKey returns the key with that id, the hash of the key; CodeNotFound.
func (d *DB) APIKey(ctx context.Context, id string) (citywarden.APIKey, error) {
	k, err := scanAPIKey(d.sql.QueryRowContext(ctx, `SELECT data FROM api_keys WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return k, citywarden.Errorf(citywarden.CodeNotFound, "no such API key")
	}
	if err != nil {
		return k, fmt.Errorf("read API key: %w", err)
	}
	return k, nil
}

// DeleteAPIKey deletes the key of that name; CodeNotFound.
func (d *DB) DeleteAPIKey(ctx context.Context, name string) error {
	r, err := d.exec(ctx, `DELETE FROM api_keys WHERE name = $1`, name)
	if err != nil {
		return fmt.Errorf("delete API key of %s: %w", name, err)
	}
	if n, err := r.RowsAffected(); err != nil {
		return fmt.Errorf("delete API key of %s: %w", name, err)
	} else if n == 0 {
		return citywarden.Errorf(citywarden.CodeNotFound, "no API key of %s", name)
	}
	return nil
}

func scanAPIKey(row scanner) (k citywarden.APIKey, err error) {
	var data string
	if err = row.Scan(&data); err == nil {
		err = json.Unmarshal([]byte(data), &k)
	}
	return k, err
}
