package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/citywarden/citywarden"
)

// OpenCommands returns the commands that are open, in the order of their ids, and
// the highest id that there ever was.
func (d *DB) OpenCommands(ctx context.Context) (open []citywarden.Command, last int64, err error) {
	if err := d.sql.QueryRowContext(ctx, `SELECT COALESCE(MAX(id), 0) FROM commands`).Scan(&last); err != nil {
		return nil, 0, fmt.Errorf("read the last command: %w", err)
	}
	open, err = list(ctx, d.sql, scanCommand, `SELECT data FROM commands WHERE open = 1 ORDER BY id`)
	if err != nil {
		return nil, 0, fmt.Errorf("read open commands: %w", err)
	}
	return open, last, nil
}

// SaveCommand inserts or replaces a command.
func (d *DB) SaveCommand(ctx context.Context, c citywarden.Command) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write command %d: %w", c.ID, err)
	}
	_, err = d.exec(ctx, `INSERT INTO commands (id, device, created, open, data) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (id) DO UPDATE SET open = excluded.open, data = excluded.data`, c.ID, string(c.Device), toMS(c.Created), toInt(c.Open()), string(b))
	return err
}

// PruneCommands deletes those from before that are not open. The last one stays, so
// that no id comes again.
func (d *DB) PruneCommands(ctx context.Context, before time.Time) error {
	_, err := d.exec(ctx, `DELETE FROM commands WHERE created < $1 AND open = 0 AND id < (SELECT MAX(id) FROM commands)`, toMS(before))
	return err
}

// Commands returns the commands that f selects, the newest first, and the cursor
// of the next page.
func (d *DB) Commands(ctx context.Context, f citywarden.CommandFilter) ([]citywarden.Command, string, error) {
	var w where
	if f.Device != "" {
		w.and("device = $", string(f.Device))
	}
	if f.Open {
		w.and("open = $", 1)
	}
	if err := w.before("id", f.After); err != nil {
		return nil, "", err
	}
	all, err := list(ctx, d.sql, scanCommand, `SELECT data FROM commands`+w.text()+` ORDER BY id DESC`+limit(f.Page), w.args...)
	if err != nil {
		return nil, "", fmt.Errorf("list commands: %w", err)
	}
	items, next := page(all, f.Page, func(c *citywarden.Command) string { return strconv.FormatInt(c.ID, 10) })
	return items, next, nil
}

func scanCommand(row scanner) (c citywarden.Command, err error) {
	var data string
	if err = row.Scan(&data); err == nil {
		err = json.Unmarshal([]byte(data), &c)
	}
	return c, err
}
