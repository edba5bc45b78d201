package influx_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/influxdata/influxdb/models"

	"github.com/citywarden/citywarden/ingest/influx"
)

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

// likeInfluxDB2 runs a server with the answers of InfluxDB 2 over a core, as they are recorded in testdata/influxdb2:
// buckets are made by an API of their own, InfluxQL only reads, what the engine refuses is a 422.
func likeInfluxDB2(t *testing.T, core *influx.Core) influxDB2 {
	var mu sync.Mutex
	tokens := map[string]string{} // what they may do
	writable := map[string]map[string]bool{}
	buckets := map[string]time.Duration{}
	const county = "00000000000000a1"
	refuse := func(w http.ResponseWriter, status int, code, words string) {
		w.Header().Set("X-Platform-Error-Code", code)
		say(w, status, map[string]any{"code": code, "message": words})
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("X-Influxdb-Build", "OSS")
		w.Header().Set("X-Influxdb-Version", "v2.8.0")
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Token ")
		may := tokens[token]
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		query := r.URL.Query()
		switch {
		case may == "" && r.URL.Path == "/query":
			refuse(w, http.StatusUnauthorized, "unauthorized", "Unauthorized")
		case may == "":
			refuse(w, http.StatusUnauthorized, "unauthorized", "unauthorized access")
		case r.URL.Path == "/query":
			likeInfluxDB2Query(w, r, core, may == "blind")
		case r.URL.Path == "/api/v2/write" && query.Get("org") == "":
			refuse(w, http.StatusBadRequest, "invalid", "Please provide either orgID or org")
		case (r.URL.Path == "/api/v2/write" || r.URL.Path == "/api/v2/orgs") && query.Get("org") != "county":
			refuse(w, http.StatusNotFound, "not found", fmt.Sprintf("organization name %q not found", query.Get("org")))
		case r.URL.Path == "/api/v2/orgs":
			say(w, http.StatusOK, map[string]any{"orgs": []any{map[string]any{"id": county, "name": "county"}}})
		case r.URL.Path == "/api/v2/buckets" && r.Method == http.MethodPost && may != "all":
			refuse(w, http.StatusUnauthorized, "unauthorized", "write:orgs/"+county+"/buckets is unauthorized")
		case r.URL.Path == "/api/v2/buckets" && r.Method == http.MethodPost:
			var b struct {
				OrgID, Name    string
				RetentionRules []struct {
					EverySeconds int64 `json:"everySeconds"`
				}
			}
			if err := json.Unmarshal(body, &b); err != nil || b.OrgID != county || len(b.RetentionRules) != 1 {
				t.Errorf("bucket %s: %v", body, err)
				return
			}
			buckets[b.Name] = time.Duration(b.RetentionRules[0].EverySeconds) * time.Second
			makeDatabase(t, core, b.Name)
			say(w, http.StatusCreated, map[string]any{"id": "00000000000000b1", "orgID": b.OrgID, "name": b.Name, "retentionRules": b.RetentionRules})
		case r.URL.Path == "/api/v2/write":
			name := query.Get("bucket")
			keep, ok := buckets[name]
			switch {
			case !ok:
				refuse(w, http.StatusNotFound, "not found", fmt.Sprintf("bucket %q not found", name))
			case may == "read" || may == "write" && !writable[token][name]:
				refuse(w, http.StatusForbidden, "forbidden", "insufficient permissions for write")
			default:
				kept, outside := within(body, keep)
				rec := ask(core, r, kept)
				switch {
				case rec.Code == http.StatusBadRequest && strings.HasPrefix(reason(rec), "partial write"):
					conflict, _, _ := strings.Cut(reason(rec), " for database: ")
					refuse(w, http.StatusUnprocessableEntity, "unprocessable entity", "failure writing points to database: "+conflict)
				case rec.Code == http.StatusBadRequest:
					refuse(w, http.StatusBadRequest, "invalid", reason(rec))
				case outside != "":
					refuse(w, http.StatusUnprocessableEntity, "unprocessable entity", "failure writing points to database: partial write: "+outside+" for database: 00000000000000b1 for retention policy: autogen")
				default:
					w.WriteHeader(http.StatusNoContent)
				}
			}
		default:
			refuse(w, http.StatusNotFound, "not found", "path not found")
		}
	}))
	t.Cleanup(srv.Close)
	return influxDB2{
		url: srv.URL,
		token: func(may string) string {
			mu.Lock()
			defer mu.Unlock()
			token := fmt.Sprintf("%s-%d", may, len(tokens))
			tokens[token], writable[token] = may, map[string]bool{}
			for name := range buckets {
				writable[token][name] = true
			}
			return token
		},
		bucket: func(name string, keep time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			buckets[name] = keep
			makeDatabase(t, core, name)
		},
		drop: func(name string) {
			mu.Lock()
			defer mu.Unlock()
			delete(buckets, name)
			q := fmt.Sprintf("DROP DATABASE %q", name)
			if db, policy, ok := strings.Cut(name, "/"); ok {
				q = fmt.Sprintf("DROP RETENTION POLICY %q ON %q", policy, db)
			}
			rec := httptest.NewRecorder()
			core.Handler().ServeHTTP(rec, httptest.NewRequest("POST", "/query?"+url.Values{"q": {q}}.Encode(), nil))
			if rec.Code != http.StatusOK || strings.Contains(rec.Body.String(), "error") {
				t.Errorf("drop %s: %d %s", name, rec.Code, rec.Body)
			}
		},
	}
}

// within leaves out the lines that are older than a bucket keeps, and says so as
// v1/coordinator/points_writer.go of InfluxDB 2 does.
func within(body []byte, keep time.Duration) (kept []byte, words string) {
	if keep == 0 {
		return body, ""
	}
	limit := time.Now().Add(-keep)
	var dropped []models.Point
	for line := range bytes.Lines(body) {
		if ps, err := models.ParsePoints(line); err == nil && len(ps) == 1 && ps[0].Time().Before(limit) {
			dropped = append(dropped, ps[0])
			continue
		}
		kept = append(kept, line...)
	}
	if len(dropped) == 0 {
		return kept, ""
	}
	at := func(p models.Point) string {
		return fmt.Sprintf("point %s at %s dropped because it violates a Retention Policy Lower Bound at %s",
			p.Key(), p.Time().UTC().Format(time.RFC3339Nano), limit.UTC().Format(time.RFC3339Nano))
	}
	return kept, fmt.Sprintf("dropped %d points outside retention policy of duration %s - oldest %s, newest %s dropped=%d",
		len(dropped), keep, at(dropped[0]), at(dropped[len(dropped)-1]), len(dropped))
}

// likeInfluxDB2Query answers a statement.
func likeInfluxDB2Query(w http.ResponseWriter, r *http.Request, core *influx.Core, blind bool) {
	words := strings.Fields(r.FormValue("q"))
	switch {
	case blind:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"results": []any{map[string]any{"statement_id": 0, "error": "database not found: " + r.FormValue("db")}}})
	case len(words) > 2 && (words[0] == "CREATE" || words[2] == "CARDINALITY"):
		w.Header().Set("Content-Type", "application/json")
		n := 2
		if words[2] == "CARDINALITY" || words[2] == "POLICY" {
			n = 3
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"results": []any{map[string]any{"statement_id": 0, "error": "not implemented: " + strings.Join(words[:n], " ")}}})
	default:
		rec := httptest.NewRecorder()
		core.Handler().ServeHTTP(rec, r)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	}
}

// release3 is how a release of InfluxDB 3 says things. What is said here was read in the source of InfluxDB 3 Core at
// those tags (github.com/influxdata/influxdb), as it can't be built here.
type release3 struct {
	name string
	// refused is the answer to a write with a line that can't be taken: none of its lines is then.
	refused func(line string, number int, words string) any
	empty   any    // the answer to a write without a line
	crowded string // influxdb3_write/src/write_buffer/mod.rs, get_table_chunks: the answer to a statement over more than fileLimit files
	// queries tells whether /query is that of core/iox_v1_query_api (3.7 and later), which answers 200 with an error in the
	// result; before it was influxdb3_server/src/http/v1.rs, which answers by status.
	queries bool
}

var (
	// influxdb3_server/src/http.rs, Error::into_response, WriteBufferError::ParseError, of v3.0.0.
	influxDB30 = release3{"3.0", func(line string, number int, words string) any {
		return map[string]any{"error": "parsing failed for write_lp endpoint",
			"data": map[string]any{"original_line": line, "line_number": number, "error_message": words}}
	}, "incoming write was empty", crowded, false}
	// influxdb3_server/src/http.rs, V2WriteApiError, with influxdb3_write/src/write_buffer/mod.rs, Error::ParseError, of v3.4.2:
	// the words of the line are left out.
	influxDB34 = release3{"3.4.2", func(string, int, string) any {
		return map[string]any{"code": "invalid", "message": "write buffer error: parsing for line protocol failed"}
	}, map[string]any{"code": "invalid", "message": "write buffer error: incoming write was empty"}, crowded, false}
	// The same of v3.10.1.
	influxDB310 = release3{"3.10", func(_ string, _ int, words string) any {
		return map[string]any{"code": "invalid", "message": "write buffer error: line protocol parse failed: " + words}
	}, map[string]any{"code": "invalid", "message": "write buffer error: incoming write was empty"},
		"Query would scan 432 Parquet files, exceeding the file limit. InfluxDB 3 Core caps file access to prevent performance degradation and memory issues.", true}
)

const (
	fileLimit = 432              // of the files that a statement may read
	fileSpan  = 10 * time.Minute // of the times in one file
	crowded   = "Query would exceed file limit of 432 parquet files. Please specify a smaller time range for your query."
)

var (
	// qualified finds the database and retention policy that a SELECT names.
	qualified = regexp.MustCompile(`^SELECT .* FROM "([^"]*)"\."([^"]*)"\."`)
	// table finds the table, since and until the times.
	table = regexp.MustCompile(` FROM (?:"[^"]*"\."[^"]*"\.)?"([^"]*)"`)
	since = regexp.MustCompile(` time >= (-?\d+)`)
	until = regexp.MustCompile(` time < (-?\d+)`)
)

// filesOf is how many of the files of a table, by the begin of their times, a statement reads.
func filesOf(q string, files map[int64]bool) (n int) {
	from, to := int64(math.MinInt64), int64(math.MaxInt64)
	if m := since.FindStringSubmatch(q); m != nil {
		from, _ = strconv.ParseInt(m[1], 10, 64)
	}
	if m := until.FindStringSubmatch(q); m != nil {
		to, _ = strconv.ParseInt(m[1], 10, 64)
	}
	for at := range files {
		if at+int64(fileSpan) > from && at < to {
			n++
		}
	}
	return n
}

// likeInfluxDB3 runs a server with the answers of a release of InfluxDB 3 Core over a core: a
// database is made by the first write, a write is taken whole or not at all.
func likeInfluxDB3(t *testing.T, core *influx.Core, release release3) string {
	var mu sync.Mutex
	columns := map[string]string{}       // by database, table and name: influxdb3_catalog/src/catalog/versions/v2/update.rs, column_or_create
	files := map[string]map[int64]bool{} // by database and table, the begins of their times
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
			likeInfluxDB3Query(w, r, core, release, columns, files, refuse)
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
				refuse(http.StatusBadRequest, release.empty)
				return
			}
			maps.Copy(columns, fresh)
			for _, p := range points {
				key := db + "\x00" + string(p.Name())
				if files[key] == nil {
					files[key] = map[int64]bool{}
				}
				files[key][p.Time().Truncate(fileSpan).UnixNano()] = true
			}
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
func likeInfluxDB3Query(w http.ResponseWriter, r *http.Request, core *influx.Core, release release3, columns map[string]string, files map[string]map[int64]bool, refuse func(int, any)) {
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
	if m := table.FindStringSubmatch(q); m != nil && filesOf(q, files[db+"\x00"+m[1]]) > fileLimit {
		words := "error while planning query: External error: " + release.crowded
		fail(http.StatusInternalServerError, "query error: "+words, "datafusion error: "+words)
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
