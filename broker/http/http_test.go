package http

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/citywarden/citywarden"
)

// platform is an acceptor, checker and authenticator in memory. It knows the
// token "token-of-" + id of every device, and understands what begins with '{'.
type platform struct {
	mu    sync.Mutex
	taken []citywarden.Uplink
	err   error
	hold  chan struct{}          // nil to hold nothing
	send  func(body string) bool // to the device that listens

	ends    []bool // of what was sent: whether it was delivered
	answers []string
}

func (p *platform) Accept(ctx context.Context, up citywarden.Uplink, done func(error)) {
	p.mu.Lock()
	p.taken = append(p.taken, up)
	p.mu.Unlock()
	if p.hold == nil {
		done(p.err)
		return
	}
	go func() {
		select {
		case <-p.hold:
			done(p.err)
		case <-ctx.Done():
			done(ctx.Err())
		}
	}()
}

func (*platform) Check(up citywarden.Uplink) error {
	if !bytes.HasPrefix(up.Payload, []byte("{")) {
		return citywarden.Errorf(citywarden.CodeInvalid, "byte 1: expected { or [")
	}
	return nil
}

func (*platform) Authenticate(token string) (citywarden.DeviceID, error) {
	id, ok := strings.CutPrefix(token, "token-of-")
	switch {
	case token == "broken-store":
		return "", errors.New("database is locked")
	case !ok:
		return "", citywarden.Errorf(citywarden.CodeUnauthenticated, "no device has this token")
	case id == "disabled":
		return "", citywarden.Errorf(citywarden.CodeDenied, "device disabled is disabled")
	}
	return citywarden.DeviceID(id), nil
}

func (*platform) Attributes(_ context.Context, _ citywarden.DeviceID, client, shared []string) (citywarden.DeviceAttributes, error) {
	return known(client, shared), nil
}

// known is what the platform knows of each device.
func known(client, shared []string) citywarden.DeviceAttributes {
	pick := func(all map[string]any, names []string) map[string]any {
		if names != nil {
			maps.DeleteFunc(all, func(k string, _ any) bool { return !slices.Contains(names, k) })
		}
		return all
	}
	return citywarden.DeviceAttributes{
		Client: pick(map[string]any{"firmware": "1.2", "uptime": 60.0}, client),
		Shared: pick(map[string]any{"report": 30.0, "led": true}, shared),
	}
}

func (p *platform) Listen(id citywarden.DeviceID, kind citywarden.DownlinkKind, send func(citywarden.Downlink) bool) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.send = func(body string) bool {
		return send(citywarden.Downlink{Device: id, Kind: kind, ID: 7, Body: json.RawMessage(body), Done: func(err error) { p.ends = append(p.ends, err == nil) }})
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.send = nil
	}
}

// sender returns what sends to the device that listens.
func (p *platform) sender() func(body string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.send
}

func (p *platform) Answer(_ context.Context, device citywarden.DeviceID, id int64, body []byte) error {
	switch {
	case id == 9:
		return citywarden.Errorf(citywarden.CodeNotFound, "no command 9 waits for an answer")
	case string(body) == "x":
		return citywarden.Errorf(citywarden.CodeInvalid, "the answer is not JSON")
	case p.err != nil:
		return p.err
	}
	p.answers = append(p.answers, fmt.Sprintf("%s %d %s", device, id, body))
	return nil
}

func (p *platform) got() []citywarden.Uplink {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.taken)
}

func newHandler(p *platform, log io.Writer) nethttp.Handler {
	next := nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) { w.WriteHeader(nethttp.StatusTeapot) })
	return New(Options{Accept: p, Check: p, Auth: p, Down: p, Next: next, Logger: slog.New(slog.NewTextHandler(log, nil))})
}

// TestClaim: what a device says of being claimed goes to who keeps it, not to the log.
func TestClaim(t *testing.T) {
	for _, c := range []struct {
		path   string
		err    error
		status int
	}{
		{"token-of-a/claim", nil, 200},
		{"12345678/claim", nil, 401},
		{"token-of-a/claim", citywarden.Errorf(citywarden.CodeInvalid, "secretKey is a text"), 400},
		{"token-of-a/claim", citywarden.Errorf(citywarden.CodeTransient, "the disk is full"), 503},
		{"token-of-a/claim", citywarden.Errorf(citywarden.CodeLimited, "%w", &citywarden.LimitError{Reason: "too often", After: 7 * time.Second}), 429},
		{"token-of-a/claim/x", nil, 418},
	} {
		p := &platform{}
		var said []string
		h := newHandler(p, io.Discard).(*handler)
		h.Announce = func(_ context.Context, id citywarden.DeviceID, body []byte) error {
			said = append(said, fmt.Sprintf("%s %s", id, body))
			return c.err
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/api/v1/"+c.path, strings.NewReader(`{"secretKey":"s"}`)))
		if w.Code != c.status || len(p.got()) > 0 || c.status == 200 && w.Body.Len() > 0 || (c.status == 429) != (w.Header().Get("Retry-After") == "7") {
			t.Errorf("%s: %d %s, want %d; %d in the log", c.path, w.Code, w.Body, c.status, len(p.got()))
		}
		if heard := c.status != 401 && c.status != 418; heard != slices.Equal(said, []string{`a {"secretKey":"s"}`}) {
			t.Errorf("%s: said was %q", c.path, said)
		}
	}
	w := httptest.NewRecorder()
	newHandler(&platform{}, io.Discard).ServeHTTP(w, httptest.NewRequest("POST", "/api/v1/token-of-a/claim", nil))
	if w.Code != nethttp.StatusTeapot {
		t.Errorf("where none may be claimed: %d", w.Code)
	}
}

func TestAnswers(t *testing.T) {
	const telemetry = "/api/v1/token-of-a/telemetry"
	stored := func(topic, payload string) []citywarden.Uplink {
		return []citywarden.Uplink{{Device: "a", Protocol: "http", Topic: topic, Payload: []byte(payload)}}
	}
	for _, c := range []struct {
		name   string
		method string
		path   string
		body   string
		err    error
		status int
		detail string
		want   []citywarden.Uplink
		logged string
	}{
		{"telemetry", "POST", telemetry, "{}", nil, 200, "", stored("v1/devices/me/telemetry", "{}"), ""},
		{"attributes", "POST", "/api/v1/token-of-a/attributes", "{}", nil, 200, "", stored("v1/devices/me/attributes", "{}"), ""},
		{"undecodable is stored too", "POST", telemetry, "x", nil, 400, "byte 1: expected { or [", stored("v1/devices/me/telemetry", "x"), ""},
		{"unknown token", "POST", "/api/v1/12345678/telemetry", "{}", nil, 401, "the access token in the path is unknown", nil, "POST /api/v1/devices/{id}/credentials"},
		{"disabled device", "POST", "/api/v1/token-of-disabled/telemetry", "{}", nil, 403, "device disabled is disabled", nil, "is disabled"},
		{"registry out of order", "POST", "/api/v1/broken-store/telemetry", "{}", nil, 503, "send it again", nil, "database is locked"},
		{"store out of order", "POST", telemetry, "{}", errors.New("disk is full"), 503, "send it again", stored("v1/devices/me/telemetry", "{}"), "disk is full"},
		{"refused by the pipeline", "POST", telemetry, "{}", citywarden.Errorf(citywarden.CodeNotFound, "no device a"), 403, "no device a",
			stored("v1/devices/me/telemetry", "{}"), "no device a"},
		{"as large as allowed", "POST", telemetry, "{" + strings.Repeat("x", maxBody-1), nil, 200, "", stored("v1/devices/me/telemetry", "{"+strings.Repeat("x", maxBody-1)), ""},
		{"too large", "POST", telemetry, strings.Repeat("x", maxBody+1), nil, 413, "send it in parts", nil, "body of more than"},
		{"token of a few characters", "POST", "/api/v1/nope/telemetry", "{}", nil, 401, "the access token in the path is unknown", nil, "token=\"of 4 characters\""},
		{"no token", "POST", "/api/v1//telemetry", "{}", nil, 401, "the access token in the path is unknown", nil, "of 0 characters"},
		{"other method", "GET", telemetry, "", nil, 418, "", nil, ""},
		{"longer path", "POST", telemetry + "/x", "", nil, 418, "", nil, ""},
		{"other path", "POST", "/api/v1/login", "", nil, 418, "", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &platform{err: c.err}
			var book bytes.Buffer
			w := httptest.NewRecorder()
			newHandler(p, &book).ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
			if w.Code != c.status {
				t.Errorf("status %d, want %d: %s", w.Code, c.status, w.Body)
			}
			if c.detail != "" {
				var problem struct {
					Status int
					Detail string
				}
				if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil || problem.Status != c.status || !strings.Contains(problem.Detail, c.detail) {
					t.Errorf("body %s, want status %d and %q", w.Body, c.status, c.detail)
				}
				if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
					t.Errorf("Content-Type %q", got)
				}
			} else if w.Body.Len() > 0 {
				t.Errorf("body %q, want none", w.Body)
			}
			if (w.Header().Get("Retry-After") != "") != (c.status == 503) {
				t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
			}
			if d := cmp.Diff(c.want, p.got(), cmpopts.IgnoreFields(citywarden.Uplink{}, "Received"), cmpopts.EquateEmpty(), cmp.Comparer(bytes.Equal)); d != "" {
				t.Error(d)
			}
			if !strings.Contains(book.String(), c.logged) {
				t.Errorf("the log does not say %q:\n%s", c.logged, &book)
			}
			if strings.Contains(book.String(), "12345678") {
				t.Errorf("the log shows the token:\n%s", &book)
			}
		})
	}
}

func TestAnsweredOnlyWhenDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{hold: make(chan struct{})}
		w := httptest.NewRecorder()
		done := make(chan struct{})
		go func() {
			defer close(done)
			newHandler(p, io.Discard).ServeHTTP(w, httptest.NewRequest("POST", "/api/v1/token-of-a/telemetry", strings.NewReader("{}")))
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("answered before the message is durable")
		default:
		}
		close(p.hold)
		<-done
		if w.Code != 200 {
			t.Errorf("status %d", w.Code)
		}
	})
}

func TestOverTheNetwork(t *testing.T) {
	p := &platform{}
	s := httptest.NewServer(newHandler(p, io.Discard))
	defer s.Close()
	for range 2 { // on one connection: deadlines are taken back
		r, err := nethttp.Post(s.URL+"/api/v1/token-of-a/telemetry", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
		if r.StatusCode != 200 {
			t.Errorf("status %d", r.StatusCode)
		}
	}
	if got := p.got(); len(got) != 2 {
		t.Errorf("%d messages were taken, want 2", len(got))
	}
}

// A device that promises a body and does not send it is not waited for.
func TestSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device, server := net.Pipe()
		p := &platform{}
		s := &nethttp.Server{Handler: newHandler(p, io.Discard)}
		ln := &oneConn{conn: server, closed: make(chan struct{})}
		served := make(chan struct{})
		go func() { defer close(served); _ = s.Serve(ln) }()
		start := time.Now()
		if _, err := fmt.Fprintf(device, "POST /api/v1/token-of-a/telemetry HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		r, err := nethttp.ReadResponse(bufio.NewReader(device), nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != 408 || time.Since(start) != bodyTimeout {
			t.Errorf("status %d after %v, want 408 after %v", r.StatusCode, time.Since(start), bodyTimeout)
		}
		_ = device.Close()
		_ = s.Close()
		<-served
		if got := p.got(); len(got) > 0 {
			t.Errorf("taken: %v", got)
		}
	})
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn   net.Conn
	once   sync.Once
	closed chan struct{}
	given  bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	if !l.given {
		l.given = true
		return l.conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

// TestDeviceAsks: attributes as ThingsBoard's HTTP API gives them.
func TestDeviceAsks(t *testing.T) {
	for query, want := range map[string]string{
		"":                                      `{"client":{"firmware":"1.2","uptime":60},"shared":{"led":true,"report":30}}`,
		"?clientKeys=firmware,x&sharedKeys=led": `{"client":{"firmware":"1.2"},"shared":{"led":true}}`,
		"?sharedKeys=report":                    `{"shared":{"report":30}}`,
		"?sharedKeys=x":                         `{}`,
	} {
		w := httptest.NewRecorder()
		newHandler(&platform{}, io.Discard).ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/token-of-a/attributes"+query, nil))
		if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != want || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s, want %s", query, w.Code, got, want)
		}
	}
	w := httptest.NewRecorder()
	newHandler(&platform{}, io.Discard).ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/nobody/attributes", nil))
	if w.Code != 401 {
		t.Errorf("unknown token: %d", w.Code)
	}
}

// TestDeviceWaits: a device is told of the first update, or that there was none.
func TestDeviceWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{}
		h := newHandler(p, io.Discard)
		w := httptest.NewRecorder()
		begin := time.Now()
		go func() {
			time.Sleep(3 * time.Second)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.send(`{"report":60}`)
		}()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/token-of-a/attributes/updates?timeout=20000", nil))
		if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != `{"report":60}` || time.Since(begin) != 3*time.Second {
			t.Errorf("%d %s after %s", w.Code, got, time.Since(begin))
		}
		for query, wait := range map[string]time.Duration{"": waitUsual, "?timeout=1500": 1500 * time.Millisecond, "?timeout=99999999": waitMost} {
			w, begin = httptest.NewRecorder(), time.Now()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/token-of-a/attributes/updates"+query, nil))
			if w.Code != 408 || time.Since(begin) != wait || p.send != nil {
				t.Errorf("%s: %d after %s, want 408 after %s", query, w.Code, time.Since(begin), wait)
			}
		}
		w = httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/token-of-a/attributes/updates?timeout=soon", nil))
		if w.Code != 400 {
			t.Errorf("timeout=soon: %d", w.Code)
		}
	})
}

// TestCommandsByPolling: a device that polls gets one command each time, and answers.
func TestCommandsByPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{}
		h := newHandler(p, io.Discard)
		go func() {
			time.Sleep(time.Second)
			send := p.sender()
			if !send(`{"method":"open","params":{}}`) || send(`{"method":"close","params":{}}`) {
				t.Error("a poll takes one command")
			}
		}()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/token-of-a/rpc?timeout=20000", nil))
		if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != `{"id":7,"method":"open","params":{}}` || !slices.Equal(p.ends, []bool{true}) {
			t.Errorf("%d %s, delivered %v", w.Code, got, p.ends)
		}
		gone, hangUp := context.WithCancel(t.Context())
		go func() {
			time.Sleep(time.Second)
			send := p.sender()
			hangUp()
			send(`{"method":"open","params":{}}`)
		}()
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(gone, "GET", "/api/v1/token-of-a/rpc", nil))
		if len(p.ends) > 1 && p.ends[1] {
			t.Error("a device that hung up has the command, says the platform")
		}
		for _, c := range []struct {
			id, body string
			err      error
			status   int
		}{{"7", `{"ok":true}`, nil, 200}, {"9", "{}", nil, 404}, {"7", "x", nil, 400}, {"x", "{}", nil, 400}, {"7", "{}", errors.New("disk is full"), 503}} {
			w, p.err = httptest.NewRecorder(), c.err
			h.ServeHTTP(w, httptest.NewRequest("POST", "/api/v1/token-of-a/rpc/"+c.id, strings.NewReader(c.body)))
			if w.Code != c.status {
				t.Errorf("answer %s to %s: %d %s, want %d", c.body, c.id, w.Code, w.Body, c.status)
			}
		}
		for _, c := range []struct {
			body, answer string
			status       int
		}{
			{`{"method":"getCurrentTime","params":{}}`, fmt.Sprint(time.Now().UnixMilli()), 200}, // the clock of the bubble stands still
			{`{"method":"open_door"}`, `{"error":"no method open_door; the platform answers getCurrentTime, getTime, getSessionLimits"}`, 200},
			{`{}`, "", 400},
		} {
			w = httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("POST", "/api/v1/token-of-a/rpc", strings.NewReader(c.body)))
			if w.Code != c.status || c.answer != "" && w.Body.String() != c.answer {
				t.Errorf("call %s: %d %s, want %d %s", c.body, w.Code, w.Body, c.status, c.answer)
			}
		}
		if d := cmp.Diff([]string{`a 7 {"ok":true}`}, p.answers); d != "" {
			t.Error(d)
		}
	})
}
