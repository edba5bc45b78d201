package cases

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// AttachmentTx is what a transaction does with the photos of cases.
type AttachmentTx interface {
	// Attach adds a photo to a case; a photo that the case has already stays as it is.
	Attach(context.Context, citywarden.CaseID, citywarden.Attachment) error
	AttachmentReader
}

// AttachmentReader reads attachments.
type AttachmentReader interface {
	Attachments(context.Context, citywarden.CaseID) ([]citywarden.Attachment, error) // the oldest first
}

// Attach adds a photo, which is kept already, to the case called id, as a step of
// its timeline. Who may comment on the case may attach: step names who it is, with
// the department of a department's person. A photo that the case has already is
// returned as it is there. CodeNotFound, CodeDenied and CodeConflict are as in Do;
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
		was := c.Revision
		if a, err = attach(ctx, tx, &c, a, step); err != nil || c.Revision == was {
			return err
		}
		out.inCase(id)
		return tx.SaveCase(ctx, c, was)
	})
	return a, err
}

// attach adds a to c, which has room for it, by a step, and returns it as it is
// there. The caller saves c.
func attach(ctx context.Context, tx Tx, c *citywarden.Case, a citywarden.Attachment, step citywarden.CaseStep) (citywarden.Attachment, error) {
	name := a.Kind.Text()
	text := citywarden.Text{ZH: "照片：" + name.ZH, EN: "photo: " + name.EN}
	step.Action, step.Photo, step.Text, step.At = citywarden.AddPhoto, &a, &text, a.At
	with := *c
	if err := with.Do(step); err != nil {
		return a, err
	}
	have, err := tx.Attachments(ctx, c.ID)
	if err != nil {
		return a, err
	}
	if i := slices.IndexFunc(have, func(o citywarden.Attachment) bool { return o.ID == a.ID }); i >= 0 {
		return have[i], nil
	}
	if len(have) >= citywarden.MaxAttachments {
		return a, citywarden.Errorf(citywarden.CodeConflict, "case %s has %d photos already", c.ID, len(have))
	}
	*c = with
	return a, tx.Attach(ctx, c.ID, a)
}

// Attachments returns the photos of the case called id, the oldest first;
// CodeNotFound when there is no such case.
func (d *Desk) Attachments(ctx context.Context, id citywarden.CaseID) ([]citywarden.Attachment, error) {
	if _, err := d.read.Case(ctx, id); err != nil {
		return nil, err
	}
	return d.read.Attachments(ctx, id)
}

// seen are the actions by which people say what they saw or did on the spot, so
// that a photo can be demanded.
var seen = []citywarden.Action{
	citywarden.Exists, citywarden.NotExists, citywarden.Unable, citywarden.SelfHandle, citywarden.Handle, citywarden.Verify, citywarden.Rework,
}

// CheckPhotos returns CodeInvalid when photos can't be demanded so: of an action
// that says nothing about the spot, or of a kind that there is not.
func CheckPhotos(demanded map[citywarden.Action][]citywarden.AttachmentKind) error {
	for _, action := range slices.Sorted(maps.Keys(demanded)) {
		if !slices.Contains(seen, action) {
			return citywarden.Errorf(citywarden.CodeInvalid, "photos: none can be demanded for %q; they can for %s", action, list(seen))
		}
		for _, kind := range demanded[action] {
			if !slices.Contains(citywarden.AttachmentKinds, kind) {
				return citywarden.Errorf(citywarden.CodeInvalid, "photos for %s: there is no kind %q; there are %s", action, kind, list(citywarden.AttachmentKinds))
			}
		}
	}
	return nil
}

func list[T ~string](all []T) string {
	names := make([]string, len(all))
	for i, x := range all {
		names[i] = string(x)
	}
	return strings.Join(names, ", ")
}

// missing returns the kinds of photos that an action demands and that nobody has
// added since somebody was sent to do it.
func (d *Desk) missing(c *citywarden.Case, action citywarden.Action, have []citywarden.Attachment) []citywarden.AttachmentKind {
	var out []citywarden.AttachmentKind
	for _, kind := range d.opt.Photos[action] {
		if !slices.ContainsFunc(have, func(a citywarden.Attachment) bool { return a.Kind == kind && !a.At.Before(c.TaskSince) }) {
			out = append(out, kind)
		}
	}
	return out
}

// shown returns CodeInvalid when photos are missing that an action on c demands.
func (d *Desk) shown(ctx context.Context, tx Tx, c *citywarden.Case, action citywarden.Action) error {
	if len(d.opt.Photos[action]) == 0 {
		return nil
	}
	have, err := tx.Attachments(ctx, c.ID)
	if err != nil {
		return err
	}
	missing := d.missing(c, action, have)
	if len(missing) == 0 {
		return nil
	}
	since := ""
	if !c.TaskSince.IsZero() {
		since = " taken since " + c.TaskSince.In(d.opt.Calendar.Zone()).Format("2006-01-02 15:04Z07:00")
	}
	return citywarden.Errorf(citywarden.CodeInvalid, "%s case %s: a photo%s is missing, %s (%s); add it to the case first", action, c.ID, since, missing[0], missing[0].Text().ZH)
}
