package cases_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/store"
)

func photo(n int) citywarden.Photo {
	return citywarden.Photo{ID: citywarden.PhotoID(fmt.Sprintf("%064x", n)), Type: "image/jpeg", Bytes: 1000, Width: 40, Height: 24}
}

func TestPhotosOfACase(t *testing.T) {
	d, db := openDesk(t, filepath.Join(t.TempDir(), "desk.db"), cases.Options{})
	c, err := d.Create(t.Context(), citywarden.NewCase{Class: "event/0506", Title: "x"}, "lin", citywarden.RoleSupervisor)
	if err != nil {
		t.Fatal(err)
	}
	lin := citywarden.CaseStep{By: "lin", Role: citywarden.RoleSupervisor}
	first, err := d.Attach(t.Context(), c.ID, photo(1), citywarden.PhotoNear, lin)
	if err != nil {
		t.Fatal(err)
	}
	// The same photo again is the one that is there, whoever sends it as what.
	again, err := d.Attach(t.Context(), c.ID, photo(1), citywarden.PhotoFar, citywarden.CaseStep{By: "huang", Role: citywarden.RoleOfficer})
	if err != nil || !cmp.Equal(again, first) {
		t.Errorf("again: %+v, %v; want %+v", again, err, first)
	}
	for _, x := range []struct {
		what string
		id   citywarden.CaseID
		kind citywarden.AttachmentKind
		step citywarden.CaseStep
		code citywarden.Code
	}{
		{"no such case", "E1", citywarden.PhotoNear, lin, citywarden.CodeNotFound},
		{"no such kind", c.ID, "selfie", lin, citywarden.CodeInvalid},
		{"who may not comment", c.ID, citywarden.PhotoNear, citywarden.CaseStep{By: "wang", Role: citywarden.RoleViewer}, citywarden.CodeDenied},
	} {
		if _, err := d.Attach(t.Context(), x.id, photo(2), x.kind, x.step); citywarden.CodeOf(err) != x.code {
			t.Errorf("%s: %v, want %s", x.what, err, x.code)
		}
	}
	err = db.UpdateDesk(t.Context(), func(tx *store.DeskTx) error { // as if by Attach, but quicker
		for n := 2; n < citywarden.MaxAttachments; n++ {
			if err := tx.Attach(t.Context(), c.ID, citywarden.Attachment{Photo: photo(n), Kind: citywarden.PhotoHandleAfter, By: "lin", At: first.At}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Attach(t.Context(), c.ID, photo(citywarden.MaxAttachments), citywarden.PhotoHandleAfter, lin); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Attach(t.Context(), c.ID, photo(100), citywarden.PhotoFar, lin); citywarden.CodeOf(err) != citywarden.CodeConflict || !strings.Contains(err.Error(), "40 photos") {
		t.Errorf("one too many: %v", err)
	}
	all, err := d.Attachments(t.Context(), c.ID)
	if err != nil || len(all) != citywarden.MaxAttachments || !cmp.Equal(all[0], first) {
		t.Errorf("%d photos, %v", len(all), err)
	}
	// They are steps that move nothing: who saw the case before may act on it.
	after, err := d.Do(t.Context(), c.ID, citywarden.CaseStep{Action: citywarden.File, By: "lin", Role: citywarden.RoleSupervisor}, c.Revision)
	if err != nil || after.Revision != c.Revision+3 || !cmp.Equal(after.Attachments, all) {
		t.Errorf("revision %d after %d, %d photos, %v", after.Revision, c.Revision, len(after.Attachments), err)
	}
	if s := after.Timeline[1]; s.Action != citywarden.AddPhoto || !cmp.Equal(*s.Photo, first) || s.Said("zh") != "照片：近景" {
		t.Errorf("the step of the first photo: %+v", s)
	}
	if _, err := d.Do(t.Context(), c.ID, citywarden.CaseStep{Action: citywarden.AddPhoto, By: "lin", Role: citywarden.RoleSupervisor}, 0); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("a photo without the photo: %v", err)
	}
}

// What is demanded must be there, taken since somebody was sent to do it; the case
// says what is missing.
func TestDemandedPhotos(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := openDesk(t, filepath.Join(t.TempDir(), "desk.db"), cases.Options{Photos: map[citywarden.Action][]citywarden.AttachmentKind{
			citywarden.Handle: {citywarden.PhotoHandleBefore, citywarden.PhotoHandleAfter}, citywarden.Verify: {citywarden.PhotoNear},
		}})
		time.Sleep(time.Until(monday()))
		c, err := d.Create(t.Context(), citywarden.NewCase{Class: "event/0506", Title: "x"}, "lin", citywarden.RoleSupervisor)
		if err != nil {
			t.Fatal(err)
		}
		wu := citywarden.CaseStep{Action: citywarden.Handle, By: "wu", Role: citywarden.RoleDepartment}
		zhang := citywarden.CaseStep{Action: citywarden.Verify, By: "zhang", Role: citywarden.RoleOfficer}
		n := 0
		add := func(kind citywarden.AttachmentKind, who citywarden.CaseStep) {
			t.Helper()
			n++
			time.Sleep(time.Minute)
			if _, err := d.Attach(t.Context(), c.ID, photo(n), kind, who); err != nil {
				t.Fatal(err)
			}
		}
		lacks := func(step citywarden.CaseStep, want string) {
			t.Helper()
			if _, err := d.Do(t.Context(), c.ID, step, 0); citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", step.Action, err, want)
			}
			now, err := d.Case(t.Context(), c.ID, step.By, step.Role)
			if err != nil || len(now.MissingPhotos[step.Action]) == 0 {
				t.Errorf("%s: missing %v, %v", step.Action, now.MissingPhotos, err)
			}
		}
		add(citywarden.PhotoNear, zhang)
		add(citywarden.PhotoHandleAfter, zhang) // before anybody was sent
		time.Sleep(time.Minute)
		do(t, d, c.ID, toClosed()[:2]...)
		add(citywarden.PhotoHandleBefore, wu)
		lacks(wu, "handle case "+string(c.ID)+": a photo taken since 2026-11-23 10:03+08:00 is missing, handle_after (处置后); add it to the case first")
		do(t, d, c.ID, toClosed()[2]) // accepting it makes no photo old
		add(citywarden.PhotoHandleAfter, wu)
		do(t, d, c.ID, wu)
		lacks(zhang, "missing, near")
		do(t, d, c.ID, citywarden.CaseStep{Action: citywarden.Rework, By: "zhang", Role: citywarden.RoleOfficer, Note: "not done"})
		lacks(wu, "handle_before") // nor does what was there before the rework count
		add(citywarden.PhotoHandleBefore, wu)
		add(citywarden.PhotoHandleAfter, wu)
		do(t, d, c.ID, wu)
		add(citywarden.PhotoNear, zhang)
		if c := do(t, d, c.ID, zhang); c.Stage != citywarden.PendingClose {
			t.Errorf("with all photos the case is %s", c.Stage)
		}
	})
}

func TestPhotosThatCantBeDemanded(t *testing.T) {
	for _, tt := range []struct {
		action citywarden.Action
		kind   citywarden.AttachmentKind
		want   string
	}{
		{citywarden.Close, citywarden.PhotoNear, `photos: none can be demanded for "close"; they can for exists, not_exists, unable, self_handle, handle, verify, rework`},
		{citywarden.Handle, "selfie", `photos for handle: there is no kind "selfie"; there are near, far, reference, handle_before, handle_after`},
	} {
		err := cases.CheckPhotos(map[citywarden.Action][]citywarden.AttachmentKind{tt.action: {tt.kind}})
		if citywarden.CodeOf(err) != citywarden.CodeInvalid || err.Error() != tt.want {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}
