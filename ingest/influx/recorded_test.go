package influx_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/ingest/influx"
)

var update = flag.Bool("update", false, "record the answers of the InfluxDB 2 that INFLUXD2 names anew, in testdata")

// influxDB2 is an InfluxDB 2 with the organisation "county": a real one, a recording of one, or one that answers alike.
type influxDB2 struct {
	url    string
	token  func(may string) string               // a new token that may do "all", "read", read and "write" the buckets that there are, or write them "blind"
	bucket func(name string, keep time.Duration) // makes a bucket, or changes how long it keeps
	drop   func(name string)                     // deletes a bucket
}

// exchange is a request and the answer to it, for testdata. Times in nanoseconds are
// told from begin on, as <+60000000000>; of long bodies there is the hash.
type exchange struct {
	Request string // method and path
	Query   string `json:",omitempty"`
	Token   string `json:",omitempty"` // what it may do
	Body    string `json:",omitempty"`
	Status  int
	Header  map[string]string `json:",omitempty"`
	Answer  string            `json:",omitempty"`
}

// recordedHeaders are those of an answer that tell something.
var recordedHeaders = []string{"Content-Type", "X-Influxdb-Error", "X-Influxdb-Version", "X-Influxdb-Build", "X-Platform-Error-Code", "Retry-After"}

var (
	nanoseconds = regexp.MustCompile(`\b\d{19}\b`)
	placeholder = regexp.MustCompile(`<([+-]\d+)>`)
	many        = strings.Repeat("z", 69_000)
)

// placed has times told from begin on.
func placed(s string) string {
	return nanoseconds.ReplaceAllStringFunc(strings.ReplaceAll(s, many, "<many>"), func(n string) string {
		ns, err := strconv.ParseInt(n, 10, 64)
		if err != nil {
			return n
		}
		return fmt.Sprintf("<%+d>", ns-begin.UnixNano())
	})
}

// timed is placed the other way round.
func timed(s string) string {
	return placeholder.ReplaceAllStringFunc(strings.ReplaceAll(s, "<many>", many), func(p string) string {
		ns, _ := strconv.ParseInt(p[1:len(p)-1], 10, 64)
		return strconv.FormatInt(begin.UnixNano()+ns, 10)
	})
}

// asked is the first half of an exchange.
func asked(r *http.Request, body []byte, tokens map[string]string) exchange {
	x := exchange{Request: r.Method + " " + r.URL.Path, Body: placed(string(body))}
	q := r.URL.Query()
	for _, name := range slices.Sorted(maps.Keys(q)) {
		x.Query += fmt.Sprintf("%s=%s\n", name, strings.Join(q[name], ","))
	}
	x.Query = placed(strings.TrimSuffix(x.Query, "\n"))
	if r.Header.Get("Content-Type") == "application/x-www-form-urlencoded" {
		if form, err := url.QueryUnescape(x.Body); err == nil {
			x.Body = form
		}
	}
	if len(x.Body) > 1500 {
		x.Body = fmt.Sprintf("%d bytes, SHA-256 %x", len(x.Body), sha256.Sum256([]byte(x.Body)))
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Token "); ok {
		x.Token = "none"
		if may, ok := tokens[token]; ok {
			x.Token = may
		}
	}
	return x
}

// recorder passes requests on to a server and keeps what was said.
type recorder struct {
	mu        sync.Mutex
	tokens    map[string]string // what they may do
	exchanges []exchange
}

func (rec *recorder) pass(t *testing.T, to string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		again, err := http.NewRequestWithContext(r.Context(), r.Method, to+r.URL.RequestURI(), bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		again.Header = r.Header.Clone()
		again.Header.Del("Accept-Encoding") // what InfluxDB 1 packs is unpacked
		res, err := http.DefaultTransport.RoundTrip(again)
		if err != nil {
			t.Error(err)
			return
		}
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
		}
		x := asked(r, body, rec.tokens)
		x.Status, x.Answer = res.StatusCode, placed(string(answer))
		for _, h := range recordedHeaders {
			if v := res.Header.Get(h); v != "" {
				if x.Header == nil {
					x.Header = map[string]string{}
				}
				x.Header[h] = v
			}
		}
		rec.exchanges = append(rec.exchanges, x)
		maps.Copy(w.Header(), res.Header)
		w.WriteHeader(res.StatusCode)
		_, _ = w.Write(answer)
	})
}

// recordingFile is where what was said in a scenario, like influxdb2/refusals, is kept.
func recordingFile(scenario string) string {
	return filepath.Join("testdata", filepath.FromSlash(scenario)+".json")
}

func readRecording(t *testing.T, scenario string) (out []exchange) {
	t.Helper()
	b, err := os.ReadFile(recordingFile(scenario))
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func writeRecording(t *testing.T, scenario string, xs []exchange) {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(xs)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(recordingFile(scenario)), 0o755)
	}
	if err == nil {
		err = os.WriteFile(recordingFile(scenario), b.Bytes(), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// replayed answers as the recording does, as long as the same is asked.
func replayed(t *testing.T, scenario string) influxDB2 { return replay(t, readRecording(t, scenario)) }

// replay answers as xs do. How many series there are may be asked once more: that goes by the clock, and a run may be slower than what was recorded.
func replay(t *testing.T, xs []exchange) influxDB2 {
	var mu sync.Mutex
	next := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		got := asked(r, body, map[string]string{"all": "all", "read": "read", "write": "write", "blind": "blind"})
		again := slices.IndexFunc(xs[:next], func(x exchange) bool {
			return x.Query == got.Query && x.Token == got.Token && strings.Contains(x.Query, "SHOW SERIES CARDINALITY")
		})
		if again >= 0 && (next == len(xs) || xs[next].Query != got.Query) {
			xs[again].answer(w)
			return
		}
		if next == len(xs) {
			t.Errorf("after %d requests another one, that was not recorded: %+v", next, got)
			http.Error(w, "not recorded", http.StatusTeapot)
			return
		}
		x := xs[next]
		next++
		want := exchange{Request: x.Request, Query: x.Query, Token: x.Token, Body: x.Body}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("request %d is another than was recorded (-recorded +now); record anew with INFLUXD2 and -update:\n%s", next, diff)
			http.Error(w, "not recorded", http.StatusTeapot)
			return
		}
		x.answer(w)
	}))
	t.Cleanup(func() {
		srv.Close()
		if !t.Failed() && next < len(xs) {
			t.Errorf("%d of %d recorded requests came", next, len(xs))
		}
	})
	return influxDB2{srv.URL, func(may string) string { return may }, func(string, time.Duration) {}, func(string) {}}
}

// answer says what was recorded.
func (x *exchange) answer(w http.ResponseWriter) {
	for h, v := range x.Header {
		w.Header().Set(h, v)
	}
	w.WriteHeader(x.Status)
	_, _ = io.WriteString(w, timed(x.Answer))
}

// TestReplayOfASlowRun has the number of series asked once more than when it was recorded, as after a minute.
func TestReplayOfASlowRun(t *testing.T) {
	count := exchange{Request: "GET /query", Query: "epoch=ns\nq=SHOW SERIES CARDINALITY ON \"x\"", Token: "none", Status: http.StatusOK, Answer: "7"}
	write := exchange{Request: "POST /api/v2/write", Query: "bucket=x", Token: "none", Status: http.StatusNoContent}
	srv := replay(t, []exchange{count, write})
	for _, want := range []exchange{count, count, write, count} {
		method, path, _ := strings.Cut(want.Request, " ")
		args := url.Values{}
		for _, a := range strings.Split(want.Query, "\n") {
			k, v, _ := strings.Cut(a, "=")
			args.Set(k, v)
		}
		r, err := http.NewRequest(method, srv.url+path+"?"+args.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Token of nobody")
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != want.Status || string(body) != want.Answer {
			t.Errorf("%s: %d %q, want %d %q", want.Request, res.StatusCode, body, want.Status, want.Answer)
		}
	}
}

// realInfluxDB2 starts a real influxd 2 (INFLUXD2), and sets it up; the test is skipped when there is none.
func realInfluxDB2(t *testing.T) influxDB2 {
	t.Helper()
	bin := os.Getenv("INFLUXD2")
	if bin == "" {
		t.Skip("INFLUXD2 does not name an influxd of InfluxDB 2")
	}
	dir, port := t.TempDir(), freePort(t)
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	out, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--reporting-disabled", "--http-bind-address", strings.TrimPrefix(base, "http://"),
		"--bolt-path", dir+"/bolt", "--sqlite-path", dir+"/sqlite", "--engine-path", dir+"/engine")
	cmd.Env = []string{"HOME=" + dir}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		out.Close()
	})
	for deadline := time.Now().Add(60 * time.Second); ; {
		r, err := http.Get(base + "/ping")
		if err == nil {
			r.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(out.Name())
			t.Fatalf("influxd does not answer: %v\n%s", err, log)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
	operator := rand.Text()
	call := func(method, path string, body, answer any) {
		t.Helper()
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequest(method, base+path, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Token "+operator)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		said, _ := io.ReadAll(res.Body)
		if res.StatusCode >= 300 {
			t.Fatalf("%s %s: %s %s", method, path, res.Status, said)
		}
		if answer != nil {
			if err := json.Unmarshal(said, answer); err != nil {
				t.Fatal(err)
			}
		}
	}
	var setup struct{ Org struct{ ID string } }
	call("POST", "/api/v2/setup", map[string]any{"username": "admin", "password": rand.Text(), "org": "county", "bucket": "first", "token": operator}, &setup)
	bucketID := func(name string) string {
		var found struct{ Buckets []struct{ ID, Name string } }
		call("GET", "/api/v2/buckets?limit=100", nil, &found)
		for _, b := range found.Buckets {
			if b.Name == name {
				return b.ID
			}
		}
		return ""
	}
	return influxDB2{
		url: base,
		token: func(may string) string {
			if may == "all" {
				return operator
			}
			permissions := []any{map[string]any{"action": "read", "resource": map[string]any{"type": "orgs"}}}
			if may != "blind" {
				permissions = append(permissions, map[string]any{"action": "read", "resource": map[string]any{"type": "buckets"}})
			}
			if may != "read" {
				var found struct{ Buckets []struct{ ID string } }
				call("GET", "/api/v2/buckets?limit=100", nil, &found)
				for _, b := range found.Buckets {
					permissions = append(permissions, map[string]any{"action": "write", "resource": map[string]any{"type": "buckets", "id": b.ID}})
				}
			}
			var made struct{ Token string }
			call("POST", "/api/v2/authorizations", map[string]any{"orgID": setup.Org.ID, "permissions": permissions}, &made)
			return made.Token
		},
		bucket: func(name string, keep time.Duration) {
			shard := 7 * 24 * time.Hour
			if keep > 0 {
				shard = time.Hour
			}
			rules := []any{map[string]any{"type": "expire", "everySeconds": int64(keep / time.Second), "shardGroupDurationSeconds": int64(shard / time.Second)}}
			if id := bucketID(name); id != "" {
				call("PATCH", "/api/v2/buckets/"+id, map[string]any{"retentionRules": rules}, nil)
				return
			}
			call("POST", "/api/v2/buckets", map[string]any{"orgID": setup.Org.ID, "name": name, "retentionRules": rules}, nil)
		},
		drop: func(name string) { call("DELETE", "/api/v2/buckets/"+bucketID(name), nil, nil) },
	}
}

// recorded has what is said to a server kept, and how.
func recorded(t *testing.T, to influxDB2) (influxDB2, *recorder) {
	rec := &recorder{tokens: map[string]string{}}
	srv := httptest.NewServer(rec.pass(t, to.url))
	t.Cleanup(srv.Close)
	token := to.token
	to.url = srv.URL
	to.token = func(may string) string {
		s := token(may)
		rec.tokens[s] = may
		return s
	}
	return to, rec
}

// onInfluxDB2 runs a scenario with a real InfluxDB 2, with the recording of that, and with the
// one that the other tests take, which has to answer as was recorded.
func onInfluxDB2(t *testing.T, name string, scenario func(*testing.T, influxDB2)) {
	name = "influxdb2/" + name
	t.Run("InfluxDB 2", func(t *testing.T) {
		srv, rec := recorded(t, realInfluxDB2(t))
		scenario(t, srv)
		if *update && !t.Failed() {
			writeRecording(t, name, rec.exchanges)
		}
	})
	t.Run("recorded InfluxDB 2", func(t *testing.T) { scenario(t, replayed(t, name)) })
	t.Run("as InfluxDB 2 answers", func(t *testing.T) {
		srv, rec := recorded(t, likeInfluxDB2(t, openCore(t)))
		scenario(t, srv)
		if diff := cmp.Diff(settled(readRecording(t, name)), settled(rec.exchanges)); diff != "" && !t.Failed() {
			t.Errorf("it answers otherwise than InfluxDB 2 does (-recorded +like):\n%s", diff)
		}
	})
}

var (
	ids   = regexp.MustCompile(`\b[0-9a-f]{16}\b`)
	dates = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`)
)

// settled is without what is new each time, and what of an answer nobody looks at.
func settled(xs []exchange) []exchange {
	out := slices.Clone(xs)
	for i := range out {
		x := &out[i]
		var answer any
		if json.Unmarshal([]byte(x.Answer), &answer) == nil {
			b, _ := json.Marshal(plainly(answer))
			x.Answer = string(b)
		}
		for _, s := range []*string{&x.Query, &x.Body, &x.Answer} {
			*s = strings.TrimSpace(dates.ReplaceAllString(ids.ReplaceAllString(*s, "<id>"), "<date>"))
		}
	}
	return out
}

func plainly(x any) any {
	switch x := x.(type) {
	case []any:
		for i := range x {
			x[i] = plainly(x[i])
		}
	case map[string]any:
		for _, k := range []string{"links", "createdAt", "updatedAt", "description", "labels", "type", "shardGroupDurationSeconds"} {
			delete(x, k)
		}
		for k := range x {
			x[k] = plainly(x[k])
		}
	}
	return x
}

// TestRefusedByInfluxDB2 is what an InfluxDB 2 says when it does not take or give something, and what becomes of it.
func TestRefusedByInfluxDB2(t *testing.T) {
	onInfluxDB2(t, "refusals", func(t *testing.T, srv influxDB2) {
		ctx := t.Context()
		db := openStore(t)
		open := func(o influx.Options) *influx.Series {
			o.URL, o.Cursors = srv.url, db
			if o.Org == "" {
				o.Org = "county"
			}
			if o.Token == "" {
				o.Token = srv.token("all")
			}
			return newSeries(t, o)
		}
		pos := uint64(0)
		send := func(s *influx.Series, d *citywarden.Device, rs ...citywarden.Reading) error {
			pos++
			return s.Consume(ctx, []citywarden.Entry{entry(pos, d, smokeModel, rs...)})
		}
		count := func(s *influx.Series, metric citywarden.MetricName) int {
			t.Helper()
			ps, err := s.Query(ctx, citywarden.SeriesQuery{Device: "sd-1", Domain: citywarden.Fire, Metric: metric})
			if err != nil {
				t.Errorf("query %s: %v", metric, err)
			}
			return len(ps)
		}
		letters := func(want ...string) {
			t.Helper()
			ls, _, err := db.DeadLetters(ctx, citywarden.DeadLetterFilter{})
			if err != nil || len(ls) != len(want) {
				t.Fatalf("dead letters = %+v, %v; want %q", ls, err, want)
			}
			for i, l := range ls {
				if !strings.Contains(l.Reason, want[i]) {
					t.Errorf("reason = %q, want %q", l.Reason, want[i])
				}
			}
		}
		fails := func(what string, err error, code citywarden.Code, words ...string) {
			t.Helper()
			if citywarden.CodeOf(err) != code {
				t.Errorf("%s: %v (%s), want %s", what, err, citywarden.CodeOf(err), code)
			}
			for _, w := range words {
				if !strings.Contains(fmt.Sprint(err), w) {
					t.Errorf("%s: %v; it does not say %q", what, err, w)
				}
			}
		}
		d := device("sd-1", smokeModel)
		one := reading("smoke", citywarden.Number(1), 0)
		q := citywarden.SeriesQuery{Device: "sd-1", Domain: citywarden.Fire, Metric: "smoke"}

		// Tokens that may not.
		wrong := open(influx.Options{Token: "wrong"})
		fails("write with a wrong token", send(wrong, d, one), citywarden.CodeDenied, "unauthorized access", "check the token")
		_, err := wrong.Query(ctx, q)
		fails("query with a wrong token", err, citywarden.CodeDenied, "unauthorized")
		srv.bucket("citywarden", 0)
		reader := open(influx.Options{Token: srv.token("read")})
		fails("write with a token to read", send(reader, d, one), citywarden.CodeDenied, "check the token")
		writer := srv.token("write")
		fails("write to a bucket that the token may not make", send(open(influx.Options{Token: writer, Database: "other"}), d, one), citywarden.CodeTransient,
			`bucket "other" not found`, "it can't be created", `create the database or bucket "other"`)
		fails("write to an organisation that is not there", send(open(influx.Options{Org: "country"}), d, one), citywarden.CodeTransient, "organization name \"country\" not found")

		if err := send(open(influx.Options{Token: srv.token("blind"), Database: "citywarden"}), d, one); err != nil {
			t.Fatal(err)
		}
		_, err = open(influx.Options{Token: srv.token("blind")}).Query(ctx, q)
		fails("query with a token to write", err, citywarden.CodeDenied, "database not found", "the token may not read it")
		s := newSeries(t, influx.Options{URL: srv.url, Cursors: db, Token: srv.token("all")})
		fails("write without an organisation", send(s, d, one), citywarden.CodeTransient, "Please provide either orgID or org", "series.org")

		// A token that may write, to the bucket that is there.
		s = open(influx.Options{Token: writer})
		if err := send(s, d, one, reading("button", citywarden.Bool(true), 0)); err != nil {
			t.Fatal(err)
		}
		if n := count(s, "smoke"); n != 1 {
			t.Errorf("%d points of a writer", n)
		}
		if ps, err := s.Query(ctx, citywarden.SeriesQuery{Device: "sd-1", Domain: citywarden.Fire, Metric: "button", From: begin, To: begin.Add(time.Hour), Every: time.Hour}); err != nil ||
			len(ps) != 1 || !ps[0].Value.IsTrue() {
			t.Errorf("a bool by the hour: %v, %v", ps, err)
		}

		// What it does not take.
		if err := send(s, d, reading("smoke", citywarden.TextValue("much"), time.Minute), reading("co", citywarden.Number(1), time.Minute)); err != nil {
			t.Fatal(err)
		}
		letters("smoke: failure writing points to database: partial write: field type conflict: input field \"smoke\" on measurement \"fire\" is type string, already exists as type float")
		long := device("sd-1", smokeModel)
		long.Attributes = map[string]any{"zone": many}
		if err := send(s, long, one); err != nil {
			t.Fatal(err)
		}
		if n := count(s, "co"); n != 1 {
			t.Errorf("%d points beside one of another kind", n)
		}

		// A bucket that keeps two days: what is older is a dead letter. Then it keeps for ever.
		srv.bucket("citywarden", 48*time.Hour)
		if err := send(s, d, reading("heat", citywarden.Number(1), -100*24*time.Hour), reading("heat", citywarden.Number(2), time.Second)); err != nil {
			t.Fatal(err)
		}
		if n := count(s, "heat"); n != 1 {
			t.Errorf("%d points within the retention", n)
		}
		letters("heat: failure writing points to database: partial write: dropped 1 points outside retention policy of duration 48h0m0s", "smoke: ", "smoke: ")
		srv.bucket("citywarden", 0)
		if err := send(s, d, reading("heat", citywarden.Number(1), -100*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if n := count(s, "heat"); n != 2 {
			t.Errorf("%d points without a retention", n)
		}

		// Somebody deletes the bucket: it is made again, by a token that may.
		srv.drop("citywarden")
		fails("write to a bucket that was deleted", send(s, d, one), citywarden.CodeTransient, `bucket "citywarden" not found`)
		var log bytes.Buffer
		s = open(influx.Options{Retention: 400 * 24 * time.Hour, Rollups: [4]time.Duration{400 * 24 * time.Hour}, MaxSeries: 10,
			Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if n := count(s, "smoke"); n != 0 {
			t.Errorf("%d points of a bucket that was deleted", n)
		}
		if err := send(s, d, one); err != nil {
			t.Fatal(err)
		}
		if n := count(s, "smoke"); n != 1 {
			t.Errorf("%d points after the bucket was made again", n)
		}
		if !strings.Contains(log.String(), "made again") {
			t.Errorf("nothing is logged of a bucket that was gone: %s", &log)
		}

		// Rollups have buckets of their own, and rows are read back by page.
		if at, err := s.OldestRollup(ctx, time.Minute, citywarden.Fire); err != nil || !at.IsZero() {
			t.Errorf("oldest rollup before there are any: %s, %v", at, err)
		}
		rows := []citywarden.RollupRow{
			{Device: "sd-1", Time: begin, Metrics: map[citywarden.MetricName]citywarden.Rollup{"smoke": citywarden.RollupOf(3)}},
			{Device: "sd-1", Time: begin.Add(time.Minute), Metrics: map[citywarden.MetricName]citywarden.Rollup{"smoke": citywarden.RollupOf(4)}},
		}
		if _, err := s.WriteRollups(ctx, time.Minute, citywarden.Fire, rows); err != nil {
			t.Fatal(err)
		}
		if at, err := s.OldestRollup(ctx, time.Minute, citywarden.Fire); err != nil || !at.Equal(begin) {
			t.Errorf("oldest rollup = %s, %v; want %s", at, err, begin)
		}
		got, err := s.RollupRows(ctx, time.Minute, citywarden.Fire, citywarden.HistoryQuery{From: begin, To: begin.Add(time.Hour)})
		if diff := cmp.Diff(rows, got); err != nil || diff != "" {
			t.Errorf("rollups: %v (-want +got):\n%s", err, diff)
		}
		lines, _ := rowsOf(t, s, citywarden.Fire, citywarden.HistoryQuery{From: begin, To: begin.Add(time.Hour), Devices: map[citywarden.DeviceID]bool{"sd-1": true}})
		if diff := cmp.Diff([]string{"0s sd-1 smoke=1"}, lines); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
	})
}
