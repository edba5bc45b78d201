package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/citywarden/citywarden"
)

// ClassTable returns the class table of a version, the newest for 0;
// CodeNotFound when there is none.
func (d *DB) ClassTable(ctx context.Context, version int) (citywarden.ClassTable, error) {
	var t citywarden.ClassTable
	var from int64
	var data string
	err := d.sql.QueryRowContext(ctx, `SELECT version, valid_from, data FROM class_tables
		WHERE $1 = 0 OR version = $1 ORDER BY version DESC LIMIT 1`, version).Scan(&t.Version, &from, &data)
	if errors.Is(err, sql.ErrNoRows) {
		return t, citywarden.Errorf(citywarden.CodeNotFound, "no version %d of the class table", version)
	}
	if err != nil {
		return t, fmt.Errorf("read class table: %w", err)
	}
	t.From = fromMS(from)
	if err := json.Unmarshal([]byte(data), &t.Classes); err != nil {
		return t, fmt.Errorf("read class table %d: %w", t.Version, err)
	}
	return t, nil
}

// ClassTables returns the versions of the class table without their classes, the
// oldest first.
func (d *DB) ClassTables(ctx context.Context) ([]citywarden.ClassTable, error) {
	all, err := list(ctx, d.sql, func(row scanner) (t citywarden.ClassTable, err error) {
		var from int64
		err = row.Scan(&t.Version, &from)
		t.From = fromMS(from)
		return t, err
	}, `SELECT version, valid_from FROM class_tables ORDER BY version`)
	if err != nil {
		return nil, fmt.Errorf("list class tables: %w", err)
	}
	return all, nil
}

// AddClassTable keeps the next version of the class table.
func (d *DB) AddClassTable(ctx context.Context, t citywarden.ClassTable) error {
	b, err := json.Marshal(t.Classes)
	if err != nil {
		return fmt.Errorf("write class table: %w", err)
	}
	_, err = d.exec(ctx, `INSERT INTO class_tables (version, valid_from, data) VALUES ($1, $2, $3)`, t.Version, toMS(t.From), string(b))
	if err != nil {
		return fmt.Errorf("save class table %d: %w", t.Version, err)
	}
	return nil
}
