package cases_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

func photo(n int) citywarden.Photo {
	return citywarden.Photo{ID: citywarden.PhotoID(fmt.Sprintf("%064x", n)), Type: "image/jpeg", Bytes: 1000, Width: 40, Height: 24}
}

func TestPhotosOfACase(t *testing.T) {
	d := newDesk(t)
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
	for n := 2; n <= citywarden.MaxAttachments; n++ {
		if _, err := d.Attach(t.Context(), c.ID, photo(n), citywarden.PhotoHandleAfter, lin); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Attach(t.Context(), c.ID, photo(100), citywarden.PhotoFar, lin); citywarden.CodeOf(err) != citywarden.CodeConflict || !strings.Contains(err.Error(), "40 photos") {
		t.Errorf("one too many: %v", err)
	}
	all, err := d.Attachments(t.Context(), c.ID)
	if err != nil || len(all) != citywarden.MaxAttachments || !cmp.Equal(all[0], first) {
		t.Errorf("%d photos, %v", len(all), err)
	}
	// The photos are no steps: who saw the case may act on it.
	after, err := d.Case(t.Context(), c.ID, "lin", citywarden.RoleSupervisor)
	if err != nil || after.Revision != c.Revision || !cmp.Equal(after.Attachments, all) {
		t.Errorf("revision %d, %d photos, %v; want %d", after.Revision, len(after.Attachments), err, c.Revision)
	}
}
