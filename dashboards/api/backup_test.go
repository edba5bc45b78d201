package api

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/citywarden/citywarden"
)

// TestABackupThatFails is a problem when nothing was sent, and after that a
// connection that breaks off, so that nobody takes the beginning for the whole.
func TestABackupThatFails(t *testing.T) {
	p := newPlatform(t)
	admin := p.as(citywarden.RoleAdmin)
	full := citywarden.Errorf(citywarden.CodeTransient, "a backup needs room")
	p.server.Backup = func(context.Context, io.Writer) error { return full }
	if a := p.do(admin, "GET /api/v1/backup", ""); a.status != 503 || a.problem(t).Detail != "a backup needs room" || a.header.Get("Content-Disposition") != "" {
		t.Errorf("a backup without room = %d %v %s", a.status, a.header, a.body)
	}

	p.server.Backup = func(_ context.Context, w io.Writer) error {
		if _, err := w.Write(make([]byte, 1<<16)); err != nil {
			return err
		}
		return full
	}
	srv := httptest.NewServer(p.handler)
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/api/v1/backup", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+admin)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); err == nil || res.Header.Get("Content-Type") != "application/zip" {
		t.Errorf("a backup that fails on the way = %d bytes of %s and no error", n, res.Header.Get("Content-Type"))
	}
	if !strings.Contains(p.log.String(), "a backup needs room") {
		t.Errorf("log = %s", p.log.String())
	}
}
