package influx

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/influxdata/influxdb/models"
	"github.com/influxdata/influxdb/query"
	"github.com/influxdata/influxdb/tsdb"
	"github.com/influxdata/influxql"
)

// maxBody is the largest write that the core takes, unpacked, in bytes.
const maxBody = 64 << 20

// Handler returns those parts of InfluxDB's HTTP API that clients need to write
// and to read: /write, /api/v2/write, /query, /ping and /health. It asks for no
// credentials: whoever serves it on a socket puts a check before it.
func (c *Core) Handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("POST /write", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		c.serveWrite(w, r, q.Get("db"), q.Get("rp"), q.Get("precision"))
	})
	m.HandleFunc("POST /api/v2/write", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		db, rp, _ := strings.Cut(q.Get("bucket"), "/") // "database/retention policy", as InfluxDB 1.8 does
		precision := q.Get("precision")
		switch precision {
		case "ns", "":
			precision = "n"
		case "us":
			precision = "u"
		}
		c.serveWrite(w, r, db, rp, precision)
	})
	m.HandleFunc("/query", c.serveQuery)
	m.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		status, code := "pass", http.StatusOK
		if c.use(func(*engine) error { return nil }) != nil {
			status, code = "fail", http.StatusServiceUnavailable
		}
		answer(w, code, map[string]any{"name": "influxdb", "message": "ready for queries and writes", "status": status, "checks": []string{}, "version": CoreVersion})
	})
	m.HandleFunc("GET /ping", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Influxdb-Version", CoreVersion)
		w.Header().Set("X-Influxdb-Build", "OSS")
		w.WriteHeader(http.StatusNoContent)
	})
	return m
}

func answer(w http.ResponseWriter, code int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		code, b = http.StatusInternalServerError, []byte(`{"error":"the answer can't be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Influxdb-Version", CoreVersion)
	w.WriteHeader(code)
	w.Write(b) // the client's loss when it is gone
}

// refuse answers with an error as both InfluxDB 1 and 2 write it.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Influxdb-Error", strings.ReplaceAll(message, "\n", " "))
	answer(w, status, map[string]string{"code": code, "message": message, "error": message})
}

func (c *Core) serveWrite(w http.ResponseWriter, r *http.Request, db, rp, precision string) {
	body, err := readBody(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid", err.Error())
		return
	}
	if len(body) > maxBody {
		refuse(w, http.StatusRequestEntityTooLarge, "request too large", "the write is larger than 64 MB")
		return
	}
	points, parseErr := models.ParsePointsWithPrecision(body, time.Now().UTC(), precision)
	if parseErr != nil && len(points) == 0 {
		refuse(w, http.StatusBadRequest, "invalid", parseErr.Error())
		return
	}
	err = c.write(db, rp, points)
	var partial tsdb.PartialWriteError
	switch {
	case errors.As(err, &partial):
		refuse(w, http.StatusBadRequest, "invalid", partial.Error())
	case errors.Is(err, errNoDatabase):
		refuse(w, http.StatusNotFound, "not found", "database not found: "+db)
	case errors.Is(err, errClosed):
		refuse(w, http.StatusServiceUnavailable, "unavailable", err.Error())
	case err != nil:
		refuse(w, http.StatusInternalServerError, "internal error", err.Error())
	case parseErr != nil:
		refuse(w, http.StatusBadRequest, "invalid", "partial write: "+parseErr.Error())
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// readBody reads at most one byte more than maxBody.
func readBody(r *http.Request) ([]byte, error) {
	var src io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, err
		}
		defer z.Close()
		src = z
	}
	var b bytes.Buffer
	if r.ContentLength > 0 && r.ContentLength <= maxBody {
		b.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	_, err := b.ReadFrom(io.LimitReader(src, maxBody+1))
	return b.Bytes(), err
}

// epochs are the units in which a client may ask for timestamps.
var epochs = map[string]int64{"n": 1, "ns": 1, "u": 1e3, "us": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}

func (c *Core) serveQuery(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		refuse(w, http.StatusMethodNotAllowed, "method not allowed", "use GET or POST")
		return
	}
	q, err := influxql.ParseQuery(r.FormValue("q"))
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid", "error parsing query: "+err.Error())
		return
	}
	var results []*query.Result
	err = c.use(func(e *engine) error {
		abort := make(chan struct{})
		late := time.AfterFunc(queryTimeout, func() { close(abort) })
		defer late.Stop()
		closing := make(chan struct{})
		defer close(closing)
		out := e.queries.ExecuteQuery(q, query.ExecutionOptions{
			Database:         r.FormValue("db"),
			RetentionPolicy:  r.FormValue("rp"),
			ChunkSize:        10_000,
			ReadOnly:         r.Method == http.MethodGet,
			Authorizer:       query.OpenAuthorizer,
			CoarseAuthorizer: query.OpenCoarseAuthorizer,
			AbortCh:          abort,
		}, closing)
		for x := range out {
			if x != nil {
				results = merge(results, x)
			}
		}
		return nil
	})
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, "unavailable", err.Error())
		return
	}
	if unit := epochs[r.FormValue("epoch")]; unit > 0 {
		for _, x := range results {
			for _, s := range x.Series {
				for _, v := range s.Values {
					if t, ok := v[0].(time.Time); ok {
						v[0] = t.UnixNano() / unit
					}
				}
			}
		}
	}
	answer(w, http.StatusOK, map[string]any{"results": results})
}

// merge appends the next chunk x to the results, to the series that it continues.
func merge(results []*query.Result, x *query.Result) []*query.Result {
	if len(results) == 0 || results[len(results)-1].StatementID != x.StatementID {
		return append(results, x)
	}
	last := results[len(results)-1]
	if n := len(last.Series); n > 0 && len(x.Series) > 0 && last.Series[n-1].SameSeries(x.Series[0]) {
		last.Series[n-1].Values = append(last.Series[n-1].Values, x.Series[0].Values...)
		last.Series[n-1].Partial = x.Series[0].Partial
		x.Series = x.Series[1:]
	}
	last.Series = append(last.Series, x.Series...)
	last.Messages = append(last.Messages, x.Messages...)
	last.Partial = x.Partial
	if x.Err != nil {
		last.Err = x.Err
	}
	return results
}

// transport serves requests by calling a handler.
type transport struct{ handler http.Handler }

// RoundTrip calls the handler and returns what it wrote. A request whose context
// is done is not begun; one that has begun runs to its end.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r = r.Clone(r.Context())
		r.Body = http.NoBody
	}
	defer r.Body.Close()
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := &recorder{header: http.Header{}, code: http.StatusOK}
	t.handler.ServeHTTP(w, r)
	return &http.Response{
		StatusCode: w.code, Status: http.StatusText(w.code),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()),
		Request: r,
	}, nil
}

// recorder keeps what a handler writes.
type recorder struct {
	header http.Header
	code   int
	wrote  bool
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(code int) {
	if !w.wrote {
		w.code, w.wrote = code, true
	}
}

func (w *recorder) Write(b []byte) (int, error) {
	w.wrote = true
	return w.body.Write(b)
}
