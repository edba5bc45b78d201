package cases

import (
	"context"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

// AttachmentTx is what a transaction does with the photos of cases.
type AttachmentTx interface {
	// Attach adds a photo to a case; a photo that the case has already stays as it is.
	Attach(context.Context, citywarden.CaseID, citywarden.Attachment) error
	Attachments(context.Context, citywarden.CaseID) ([]citywarden.Attachment, error) // the oldest first
}

// AttachmentReader reads attachments outside of a transaction.
type AttachmentReader interface {
	Attachments(context.Context, citywarden.CaseID) ([]citywarden.Attachment, error) // the oldest first
}

// Attach adds a photo, which is kept already, to the case called id. Who may
// comment on the case may attach: step names who it is, with the department of a
// department's person. CodeNotFound, CodeDenied and CodeConflict are as in Do;
// CodeInvalid for an unknown kind, CodeConflict when the case has MaxAttachments.
func (d *Desk) Attach(ctx context.Context, id citywarden.CaseID, p citywarden.Photo, kind citywarden.AttachmentKind, step citywarden.CaseStep) (citywarden.Attachment, error) {
	a := citywarden.Attachment{Photo: p, Kind: kind, By: step.By, Role: step.Role, At: time.Now().UTC().Truncate(time.Millisecond)}
	if !slices.Contains(citywarden.AttachmentKinds, kind) {
		return a, citywarden.Errorf(citywarden.CodeInvalid, "photo of case %s: there is no kind %q; there are %v", id, kind, citywarden.AttachmentKinds)
	}
	err := d.once(ctx, func(ctx context.Context, tx Tx, out *changes) error {
		c, err := tx.Case(ctx, id)
		if err != nil {
			return err
		}
		step.Action, step.Note, step.At = citywarden.Comment, "photo", a.At
		if err := d.step(&c, step); err != nil { // the case is not saved: only whether it is allowed matters
			return err
		}
		if a, err = attach(ctx, tx, id, a); err != nil {
			return err
		}
		out.inCase(id)
		return nil
	})
	return a, err
}

// attach adds a to a case that has room for it, and returns it as it is there.
func attach(ctx context.Context, tx Tx, id citywarden.CaseID, a citywarden.Attachment) (citywarden.Attachment, error) {
	have, err := tx.Attachments(ctx, id)
	if err != nil {
		return a, err
	}
	if i := slices.IndexFunc(have, func(o citywarden.Attachment) bool { return o.ID == a.ID }); i >= 0 {
		return have[i], nil
	}
	if len(have) >= citywarden.MaxAttachments {
		return a, citywarden.Errorf(citywarden.CodeConflict, "case %s has %d photos already", id, len(have))
	}
	return a, tx.Attach(ctx, id, a)
}

// Attachments returns the photos of the case called id, the oldest first;
// CodeNotFound when there is no such case.
func (d *Desk) Attachments(ctx context.Context, id citywarden.CaseID) ([]citywarden.Attachment, error) {
	if _, err := d.read.Case(ctx, id); err != nil {
		return nil, err
	}
	return d.read.Attachments(ctx, id)
}
