package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/citywarden/citywarden"
)

// Attach adds a photo to a case; one that the case has already stays as it is.
func (t *DeskTx) Attach(ctx context.Context, id citywarden.CaseID, a citywarden.Attachment) error {
	b, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("write photo of case %s: %w", id, err)
	}
	_, err = t.q.ExecContext(ctx, `INSERT INTO attachments (case_id, photo, at, data) VALUES ($1, $2, $3, $4)
		ON CONFLICT (case_id, photo) DO NOTHING`, string(id), string(a.ID), toMS(a.At), string(b))
	if err != nil {
		return fmt.Errorf("save photo of case %s: %w", id, err)
	}
	return nil
}

// Attachments returns the photos of a case, the oldest first.
func (t *DeskTx) Attachments(ctx context.Context, id citywarden.CaseID) ([]citywarden.Attachment, error) {
	return attachments(ctx, t.q, id)
}

// Attachments returns the photos of a case, the oldest first.
func (d *DB) Attachments(ctx context.Context, id citywarden.CaseID) ([]citywarden.Attachment, error) {
	return attachments(ctx, d.sql, id)
}

func attachments(ctx context.Context, q querier, id citywarden.CaseID) ([]citywarden.Attachment, error) {
	as, err := list(ctx, q, func(row scanner) (a citywarden.Attachment, err error) {
		var data string
		if err = row.Scan(&data); err == nil {
			err = json.Unmarshal([]byte(data), &a)
		}
		return a, err
	}, `SELECT data FROM attachments WHERE case_id = $1 ORDER BY at, photo`, string(id))
	if err != nil {
		return nil, fmt.Errorf("photos of case %s: %w", id, err)
	}
	return as, nil
}
