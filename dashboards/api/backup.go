package api

import (
	"context"
	"io"
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
		_, w := humago.Unwrap(hc)
		w.Header().Set("Content-Type", "application/zip")
		w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
		w.WriteHeader(http.StatusOK)
		if err := s.Backup(ctx, io.Writer(w)); err != nil {
			s.log.Error("backup failed", "user", callerOf(ctx).Name, "err", err)
		}
	}}, nil
}
