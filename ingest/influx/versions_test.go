package influx_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/citywarden/citywarden/ingest/influx"
)

// secret checks the token as InfluxDB 2 and 3 do.
func secret(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Token secret" {
			say(w, http.StatusUnauthorized, map[string]any{"code": "unauthorized", "message": "unauthorized access"})
			return
		}
		next(w, r)
	}
}

func say(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

// ask has the core answer a request.
func ask(core *influx.Core, r *http.Request, body []byte) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	again := r.Clone(r.Context())
	again.Body, again.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	core.Handler().ServeHTTP(rec, again)
	return rec
}

// reason is the message of an error of the core.
func reason(rec *httptest.ResponseRecorder) string {
	var e struct{ Message string }
	_ = json.Unmarshal(rec.Body.Bytes(), &e)
	return e.Message
}

// makeDatabase makes a database of the core, or with "database/policy" a retention policy of it.
func makeDatabase(t *testing.T, core *influx.Core, name string) {
	t.Helper()
	db, policy, _ := strings.Cut(name, "/")
	q := fmt.Sprintf("CREATE DATABASE %q", db)
	if policy != "" {
		q += fmt.Sprintf("; CREATE RETENTION POLICY %q ON %q DURATION INF REPLICATION 1", policy, db)
	}
	rec := httptest.NewRecorder()
	core.Handler().ServeHTTP(rec, httptest.NewRequest("POST", "/query?"+url.Values{"q": {q}}.Encode(), nil))
	if rec.Code != http.StatusOK || strings.Contains(rec.Body.String(), "error") {
		t.Errorf("create %s: %d %s", name, rec.Code, rec.Body)
	}
}

// likeInfluxDB2 runs a server with the answers of InfluxDB 2.7 over a core: buckets are
// made by an API of their own, InfluxQL only reads, what the engine refuses is a 422
// (http/write_handler.go, PartialWriteError) that names the first reason.
func likeInfluxDB2(t *testing.T, core *influx.Core) string {
	srv := httptest.NewServer(secret(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/query" && r.Method == http.MethodGet:
			core.Handler().ServeHTTP(w, r)
		case r.URL.Path == "/query":
			say(w, http.StatusOK, map[string]any{"results": []any{map[string]any{"statement_id": 0, "error": "not implemented: CREATE DATABASE"}}})
		case r.URL.Path == "/api/v2/orgs" && r.URL.Query().Get("org") == "county":
			say(w, http.StatusOK, map[string]any{"orgs": []any{map[string]any{"id": "0a", "name": "county"}}})
		case r.URL.Path == "/api/v2/buckets" && r.Method == http.MethodPost:
			var b struct{ OrgID, Name string }
			if err := json.Unmarshal(body, &b); err != nil || b.OrgID != "0a" {
				say(w, http.StatusBadRequest, map[string]any{"code": "invalid", "message": "no such organization"})
				return
			}
			makeDatabase(t, core, b.Name)
			say(w, http.StatusCreated, map[string]any{"id": "0b", "orgID": b.OrgID, "name": b.Name, "retentionRules": []any{}})
		case r.URL.Path != "/api/v2/write" || r.URL.Query().Get("org") != "county":
			say(w, http.StatusNotFound, map[string]any{"code": "not found", "message": "path or organization not found"})
		default:
			rec := ask(core, r, body)
			switch {
			case rec.Code == http.StatusNotFound, strings.Contains(rec.Body.String(), "retention policy not found"):
				say(w, http.StatusNotFound, map[string]any{"code": "not found", "message": fmt.Sprintf("bucket %q not found", r.URL.Query().Get("bucket"))})
			case rec.Code == http.StatusBadRequest:
				say(w, http.StatusUnprocessableEntity, map[string]any{"code": "unprocessable entity", "message": "failure writing points to database: " + reason(rec)})
			default:
				w.WriteHeader(rec.Code)
			}
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// likeInfluxDB3 runs a server with the answers of InfluxDB 3 Core over a core: a
// database is made by the first write, the good lines of a write are kept and the others told of
// in a 400 without a type of content (docs.influxdata.com, influxdb3/core/write-data/troubleshoot).
func likeInfluxDB3(t *testing.T, core *influx.Core) string {
	var written atomic.Bool
	srv := httptest.NewServer(secret(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/query" && r.Method == http.MethodGet && !written.Load():
			http.Error(w, "database not found: citywarden", http.StatusNotFound)
		case r.URL.Path == "/query" && r.Method == http.MethodGet:
			core.Handler().ServeHTTP(w, r)
		case r.URL.Path != "/api/v2/write":
			w.WriteHeader(http.StatusNotFound)
		default:
			makeDatabase(t, core, r.URL.Query().Get("bucket"))
			written.Store(true)
			if rec := ask(core, r, body); rec.Code != http.StatusBadRequest {
				w.WriteHeader(rec.Code)
				return
			}
			var bad []map[string]any // the core has kept the others
			for i, line := range strings.Split(strings.TrimSuffix(string(body), "\n"), "\n") {
				rec := ask(core, r, []byte(line))
				if rec.Code == http.StatusBadRequest {
					bad = append(bad, map[string]any{"original_line": line, "line_number": i + 1,
						"error_message": "invalid column type for column 'flow', expected iox::column_type::field::float, got iox::column_type::field::string"})
				}
			}
			b, _ := json.Marshal(map[string]any{"error": "partial write of line protocol occurred", "data": bad})
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write(b)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}
