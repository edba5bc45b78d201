package store

import (
	"context"
	"fmt"
)

// Backup writes the database as of one moment to a new file at path, while
// others go on reading and writing. Only SQLite can: pg_dump backs up a PostgreSQL.
func (d *DB) Backup(ctx context.Context, path string) error {
	if _, err := d.sql.ExecContext(ctx, `VACUUM INTO $1`, path); err != nil {
		return fmt.Errorf("back up the database: %w", err)
	}
	return nil
}
