package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/citywarden/citywarden"
	"github.com/danielgtaylor/huma/v2"
)

// Attachments keeps which photos belong to which case.
type Attachments interface {
	Attach(ctx context.Context, id citywarden.CaseID, p citywarden.Photo, kind citywarden.AttachmentKind, step citywarden.CaseStep) (citywarden.Attachment, error)
	Attachments(ctx context.Context, id citywarden.CaseID) ([]citywarden.Attachment, error)
}

// Photos keeps the photos themselves.
type Photos interface {
	Keep(b []byte) (citywarden.Photo, error) // durable when it returns
	Read(id citywarden.PhotoID) ([]byte, error)
}

const formRoom = 256 << 10 // bytes of what else is in a form

type photoForm struct {
	Kind citywarden.AttachmentKind `form:"kind" required:"true"`
	File huma.FormFile             `form:"file" contentType:"image/jpeg,image/png,image/webp" required:"true" doc:"At most 8 MiB; what the camera wrote besides the picture is taken out"`
}

type photoOutput struct {
	ContentType string `header:"Content-Type"`
	CacheFor    string `header:"Cache-Control"`
	Disposition string `header:"Content-Disposition"`
	Body        []byte
}

func (s *server) attachmentRoutes() {
	const tag = "cases"
	pictures := map[string]*huma.MediaType{}
	for _, t := range []string{"image/jpeg", "image/png", "image/webp"} {
		pictures[t] = &huma.MediaType{Schema: &huma.Schema{Type: "string", Format: "binary"}}
	}
	handle(s, route{method: "GET", path: "/api/v1/cases/{id}/attachments", id: "list-attachments", tag: tag, may: citywarden.MayReadCases,
		summary: "Photos of a case, the oldest first"}, s.listAttachments)
	handle(s, route{method: "POST", path: "/api/v1/cases/{id}/attachments", id: "attach-photo", tag: tag, may: citywarden.MayRead,
		status: http.StatusCreated, maxBody: citywarden.MaxPhoto + formRoom,
		summary: "Add a photo to a case; who may comment on the case may"}, s.attach)
	handle(s, route{method: "GET", path: "/api/v1/cases/{id}/attachments/{photo}", id: "get-photo", tag: tag, may: citywarden.MayReadCases,
		responses: map[string]*huma.Response{"200": {Description: "The photo", Content: pictures}},
		summary:   "A photo of a case"}, s.photo)
}

func (s *server) listAttachments(ctx context.Context, in *CasePath) (*listOutput[citywarden.Attachment], error) {
	if _, err := s.seenCase(ctx, in.ID); err != nil {
		return nil, err
	}
	as, err := s.Attachments.Attachments(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return listOf(as, ""), nil
}

func (s *server) attach(ctx context.Context, in *struct {
	CasePath
	RawBody huma.MultipartFormFiles[photoForm]
}) (*created[citywarden.Attachment], error) {
	u := callerOf(ctx)
	if _, err := s.seenCase(ctx, in.ID); err != nil {
		return nil, err
	}
	form := in.RawBody.Data()
	p, err := s.keep(form.File)
	if err != nil {
		return nil, err
	}
	a, err := s.Attachments.Attach(ctx, in.ID, p, form.Kind, citywarden.CaseStep{By: u.Name, Role: u.Role, Department: u.Department})
	if err != nil {
		return nil, err
	}
	return &created[citywarden.Attachment]{Location: fmt.Sprintf("/api/v1/cases/%s/attachments/%s", in.ID, a.ID), Body: a}, nil
}

// keep keeps the photo that a form holds.
func (s *server) keep(f huma.FormFile) (citywarden.Photo, error) {
	b, err := io.ReadAll(io.LimitReader(f, citywarden.MaxPhoto+1))
	if err != nil {
		return citywarden.Photo{}, citywarden.Errorf(citywarden.CodeInvalid, "read the photo: %w", err)
	}
	return s.Photos.Keep(b)
}

func (s *server) photo(ctx context.Context, in *struct {
	CasePath
	Photo citywarden.PhotoID `path:"photo" maxLength:"64"`
}) (*photoOutput, error) {
	if _, err := s.seenCase(ctx, in.ID); err != nil {
		return nil, err
	}
	as, err := s.Attachments.Attachments(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	for _, a := range as {
		if a.ID != in.Photo {
			continue
		}
		b, err := s.Photos.Read(a.ID)
		if err != nil {
			return nil, err
		}
		return &photoOutput{
			ContentType: a.Type, CacheFor: "private, max-age=31536000, immutable", // the id is the hash of what it holds
			Disposition: fmt.Sprintf("inline; filename=%q", fmt.Sprintf("%s-%s-%.8s.%s", in.ID, a.Kind, a.ID, strings.TrimPrefix(a.Type, "image/"))),
			Body:        b,
		}, nil
	}
	return nil, citywarden.Errorf(citywarden.CodeNotFound, "case %s has no photo %s", in.ID, in.Photo)
}
