package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/citywarden/citywarden"
)

func (s *server) backupRoutes() {
	handle(s, route{method: "GET", path: "/api/v1/backup", id: "get-backup", tag: "platform", may: citywarden.MayBackup,
		responses: map[string]*huma.Response{"200": {
			Description: "A zip file with all that the platform keeps. When it can't be finished it lacks its end.",
			Content:     map[string]*huma.MediaType{"application/zip": {Schema: &huma.Schema{Type: "string", Format: "binary"}}},
		}},
		summary: "Back up the whole platform while it runs"}, s.backup)
}

func (s *server) backup(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
	name := "citywarden-" + time.Now().UTC().Format("20060102T150405Z") + ".zip"
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		out := &backupWriter{w: w, name: name}
		err := s.Backup(ctx, out)
		switch {
		case err == nil:
		case !out.begun:
			s.writeProblem(w, r, err)
		default:
			s.log.Error("backup failed", "user", callerOf(ctx).Name, "err", err)
			panic(http.ErrAbortHandler) // the client must not take what it has for all of it
		}
	}}, nil
}

// backupWriter answers with a file once there is something to write, so that
// what fails before that is answered as a problem.
type backupWriter struct {
	w     http.ResponseWriter
	name  string // of the file
	begun bool
}

func (b *backupWriter) Write(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		b.w.Header().Set("Content-Type", "application/zip")
		b.w.Header().Set("Content-Disposition", `attachment; filename="`+b.name+`"`)
		b.w.WriteHeader(http.StatusOK)
	}
	return b.w.Write(p)
}
