package influx_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/influxdata/influxdb/models"

	"github.com/citywarden/citywarden/ingest/influx"
)

// secret checks the token as InfluxDB 2 does.
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

// release3 is how a release of InfluxDB 3 says things. What is said here was read in the source of InfluxDB 3 Core at
// those tags (github.com/influxdata/influxdb), as it can't be built here.
type release3 struct {
	name string
	// refused is the answer to a write with a line that can't be taken: none of its lines is then.
	refused func(line string, number int, words string) any
	// queries tells whether /query is that of core/iox_v1_query_api (3.7 and later), which answers 200 with an error in the
	// result; before it was influxdb3_server/src/http/v1.rs, which answers by status.
	queries bool
}

var (
	// influxdb3_server/src/http.rs, Error::into_response, WriteBufferError::ParseError, of v3.0.0.
	influxDB30 = release3{"3.0", func(line string, number int, words string) any {
		return map[string]any{"error": "parsing failed for write_lp endpoint",
			"data": map[string]any{"original_line": line, "line_number": number, "error_message": words}}
	}, false}
	// influxdb3_server/src/http.rs, V2WriteApiError, with influxdb3_write/src/write_buffer/mod.rs, Error::ParseError, of v3.4.2:
	// the words of the line are left out.
	influxDB34 = release3{"3.4.2", func(string, int, string) any {
		return map[string]any{"code": "invalid", "message": "write buffer error: parsing for line protocol failed"}
	}, false}
	// The same of v3.10.1.
	influxDB310 = release3{"3.10", func(_ string, _ int, words string) any {
		return map[string]any{"code": "invalid", "message": "write buffer error: line protocol parse failed: " + words}
	}, true}
)

// qualified finds the database and retention policy that a SELECT names.
var qualified = regexp.MustCompile(`^SELECT .* FROM "([^"]*)"\."([^"]*)"\."`)

// likeInfluxDB3 runs a server with the answers of a release of InfluxDB 3 Core over a core: a
// database is made by the first write, a write is taken whole or not at all.
func likeInfluxDB3(t *testing.T, core *influx.Core, release release3) string {
	var mu sync.Mutex
	columns := map[string]string{} // by database, table and name: influxdb3_catalog/src/catalog/versions/v2/update.rs, column_or_create
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		// No answer but that of a query names a type of content.
		refuse := func(status int, body any) {
			b, ok := body.(string)
			if !ok {
				j, _ := json.Marshal(body)
				b = string(j)
			}
			w.Header()["Content-Type"] = nil
			w.WriteHeader(status)
			_, _ = io.WriteString(w, b)
		}
		if r.Header.Get("Authorization") != "Token secret" { // influxdb3_server/src/http.rs, AuthenticationError
			refuse(http.StatusUnauthorized, `{"error": "the request was not authenticated"}`)
			return
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		switch r.URL.Path {
		case "/query":
			likeInfluxDB3Query(w, r, core, release, columns, refuse)
		case "/api/v2/write":
			db := r.URL.Query().Get("bucket")
			fresh := map[string]string{}
			points, err := models.ParsePoints(body)
			if err != nil {
				t.Errorf("lines %q: %v", body, err)
				return
			}
			for i, p := range points {
				for f := p.FieldIterator(); f.Next(); {
					kind := map[models.FieldType]string{models.Float: "float", models.Boolean: "boolean", models.String: "string"}[f.Type()]
					key := db + "\x00" + string(p.Name()) + "\x00" + string(f.FieldKey())
					if had := cmp.Or(columns[key], fresh[key]); had != "" && had != kind { // influxdb3_catalog/src/error.rs, InvalidColumnType
						refuse(http.StatusBadRequest, release.refused(p.String(), i+1, fmt.Sprintf(
							"invalid column type for column '%s', expected iox::column_type::field::%s, got iox::column_type::field::%s", f.FieldKey(), had, kind)))
						return
					}
					fresh[key] = kind
				}
			}
			if len(points) == 0 {
				refuse(http.StatusBadRequest, map[string]any{"code": "invalid", "message": "write buffer error: incoming write was empty"})
				return
			}
			maps.Copy(columns, fresh)
			makeDatabase(t, core, db)
			if rec := ask(core, r, body); rec.Code != http.StatusNoContent {
				t.Errorf("the core answers %d %s", rec.Code, rec.Body)
			}
			w.WriteHeader(http.StatusNoContent)
		default:
			refuse(http.StatusNotFound, "Not found") // influxdb3_server/src/http.rs, RoutingError::NotFound
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// likeInfluxDB3Query answers a statement.
func likeInfluxDB3Query(w http.ResponseWriter, r *http.Request, core *influx.Core, release release3, columns map[string]string, refuse func(int, any)) {
	q, db := r.FormValue("q"), r.FormValue("db")
	fail := func(status int, old any, words string) {
		if !release.queries {
			refuse(status, old)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"results": []any{map[string]any{"statement_id": 0, "error": words}}})
	}
	if !strings.HasPrefix(q, "SELECT ") { // core/iox_query_influxql_rewrite/src/lib.rs, Error::Parse
		words := "error in InfluxQL statement: parsing error: invalid SHOW statement, expected DATABASES, FIELD KEYS, MEASUREMENTS, TAG KEYS, TAG VALUES, or RETENTION POLICIES following SHOW at pos 5"
		if strings.HasPrefix(q, "CREATE ") {
			words = "error in InfluxQL statement: parsing error: invalid CREATE statement, expected DATABASE at pos 7"
		}
		fail(http.StatusInternalServerError, words, words)
		return
	}
	// core/iox_query_influxql_rewrite/src/lib.rs, resolve_dbrp: a policy beside the statement does not count (core/iox_v1_query_api/src/handler.rs,
	// execute_query), and 3.0 refuses another database than the statement names (influxdb3_server/src/http.rs, InfluxqlDatabaseMismatch).
	if m := qualified.FindStringSubmatch(q); m != nil {
		named := m[1] + "/" + m[2]
		if !release.queries && db != "" && db != named {
			words := fmt.Sprintf("provided a database in both the parameters (%s) and query string (%s) that do not match", db, named)
			refuse(http.StatusInternalServerError, words)
			return
		}
		db = named
	}
	if db == "" {
		words := "must specify a 'db' parameter, or provide the database in the InfluxQL query"
		fail(http.StatusInternalServerError, words, words)
		return
	}
	exists := false
	for column := range columns {
		exists = exists || strings.HasPrefix(column, db+"\x00")
	}
	if !exists { // core/iox_v1_query_api/src/error.rs, DatabaseNotFound; influxdb3_internal_api/src/query_executor.rs of v3.0.0
		fail(http.StatusNotFound, map[string]any{"error": "query error: database not found: " + db}, "Database "+db+" not found")
		return
	}
	args := r.URL.Query()
	args.Del("rp")
	again := r.Clone(r.Context())
	again.URL.RawQuery, again.Form = args.Encode(), nil
	rec := ask(core, again, nil)
	if strings.Contains(rec.Body.String(), "unsupported mean") {
		// core/iox_query_influxql/src/plan/snapshots/iox_query_influxql__plan__planner__tests__select__error_cases.snap
		words := `Error during planning: Execution error: Function 'avg' user-defined coercion failed with "Error during planning: Avg does not support inputs of type Boolean." ` +
			"No function matches the given name and argument types 'avg(Boolean)'. You might need to add explicit type casts."
		fail(http.StatusInternalServerError, "query error: error while planning query: "+words, "datafusion error: "+words)
		return
	}
	maps.Copy(w.Header(), rec.Header())
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}
