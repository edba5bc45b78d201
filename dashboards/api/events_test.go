package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/google/go-cmp/cmp"
)

// watcher reads an event stream over a real connection.
type watcher struct {
	t      *testing.T
	cancel context.CancelFunc
	body   io.ReadCloser
	lines  *bufio.Scanner
	lastID string
}

func watch(t *testing.T, srv *httptest.Server, token, query, lastID string) *watcher {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+"/api/v1/events"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		b, _ := io.ReadAll(res.Body)
		t.Fatalf("events = %d %v %s", res.StatusCode, res.Header, b)
	}
	w := &watcher{t: t, cancel: cancel, body: res.Body, lines: bufio.NewScanner(res.Body)}
	t.Cleanup(w.close)
	return w
}

func (w *watcher) close() {
	w.cancel()
	w.body.Close()
}

// next returns "kind data" of the next event; "" at the end.
func (w *watcher) next() string {
	w.t.Helper()
	var kind, data string
	for w.lines.Scan() {
		switch field, value, _ := strings.Cut(w.lines.Text(), ": "); field {
		case "id":
			w.lastID = value
		case "event":
			kind = value
		case "data":
			data = value
		case "":
			if data != "" {
				return kind + " " + data
			}
		}
	}
	return ""
}

// began waits until the stream has begun: it says how far it is.
func (w *watcher) began() {
	w.t.Helper()
	for w.lines.Scan() {
		if id, ok := strings.CutPrefix(w.lines.Text(), "id: "); ok {
			w.lastID = id
			return
		}
	}
	w.t.Fatal("the stream ended before it began")
}

func alarmEvent(n int) citywarden.Event {
	return citywarden.Event{Kind: "alarm", Data: citywarden.Alarm{ID: citywarden.AlarmID("a-" + strconv.Itoa(n)), Device: "smoke-1"}}
}

func readingEvent(device citywarden.DeviceID) citywarden.Event {
	return citywarden.Event{Kind: "reading", Data: citywarden.ReadingEvent{Device: device, New: []citywarden.Reading{{Metric: "smoke", Value: citywarden.Number(1), Time: noon}}}}
}

func (w *watcher) wantAlarm(n int) {
	w.t.Helper()
	if got := w.next(); !strings.HasPrefix(got, fmt.Sprintf(`alarm {"id":"a-%d",`, n)) {
		w.t.Fatalf("event = %.80q, want alarm a-%d", got, n)
	}
}

func newServerOf(t *testing.T, p *platform) *httptest.Server {
	srv := httptest.NewServer(p.handler)
	t.Cleanup(srv.Close)
	t.Cleanup(p.server.Hub.Close)
	return srv
}

func TestEventsResumeWhereTheyBroke(t *testing.T) {
	p := newPlatform(t)
	srv, hub, tok := newServerOf(t, p), p.server.Hub, p.as(citywarden.RoleViewer)
	w := watch(t, srv, tok, "", "")
	w.began()
	hub.Publish(alarmEvent(1))
	hub.Publish(alarmEvent(2))
	w.wantAlarm(1)
	w.wantAlarm(2)
	w.close()
	for n := 3; n <= 5; n++ {
		hub.Publish(alarmEvent(n))
	}
	again := watch(t, srv, tok, "", w.lastID)
	for n := 3; n <= 5; n++ {
		again.wantAlarm(n)
	}
	hub.Publish(alarmEvent(6))
	again.wantAlarm(6)

	// By query, and with nothing missed.
	third := watch(t, srv, tok, "?last_event_id="+again.lastID, "")
	third.began()
	hub.Publish(alarmEvent(7))
	third.wantAlarm(7)
}

// A stream that saw no event must still know where to go on.
func TestResumeOfAStreamThatSawNothing(t *testing.T) {
	p := newPlatform(t)
	srv, hub, tok := newServerOf(t, p), p.server.Hub, p.as(citywarden.RoleViewer)
	w := watch(t, srv, tok, "", "")
	w.began()
	w.close()
	hub.Publish(alarmEvent(1))
	watch(t, srv, tok, "", w.lastID).wantAlarm(1)
}

func TestEventsResetWhenTooMuchWasMissed(t *testing.T) {
	p := newPlatform(t)
	srv, hub, tok := newServerOf(t, p), p.server.Hub, p.as(citywarden.RoleViewer)
	first := hub.last
	for n := range hubEvents + 1 {
		hub.Publish(alarmEvent(n))
	}
	for name, id := range map[string]uint64{"just forgotten": first, "before the restart": 12345, "zero": 0, "of the future": hub.last + 1000} {
		w := watch(t, srv, tok, "", strconv.FormatUint(id, 10))
		if got := w.next(); got != "reset {}" {
			t.Errorf("%s: first event = %.60q, want reset", name, got)
		}
		if want := strconv.FormatUint(hub.last, 10); w.lastID != want {
			t.Errorf("%s: id of the reset = %s, want %s", name, w.lastID, want)
		}
		hub.Publish(alarmEvent(-1))
		w.wantAlarm(-1)
	}
	oldest := watch(t, srv, tok, "", strconv.FormatUint(hub.last-hubEvents, 10))
	if got := oldest.next(); strings.HasPrefix(got, "reset") {
		t.Errorf("the oldest that is kept gives %q", got)
	}
}

func TestEventFilters(t *testing.T) {
	p := newPlatform(t)
	srv, hub, tok := newServerOf(t, p), p.server.Hub, p.as(citywarden.RoleViewer)
	alarms, one := watch(t, srv, tok, "?kinds=alarm,case", ""), watch(t, srv, tok, "?device=smoke-2", "")
	alarms.began()
	one.began()
	hub.Publish(readingEvent("smoke-1"))
	hub.Publish(readingEvent("smoke-2"))
	hub.Publish(alarmEvent(1))
	hub.Publish(citywarden.Event{Kind: "case", Data: citywarden.Case{ID: "E1"}})
	hub.Publish(citywarden.Event{Kind: "device", Data: citywarden.DeviceView{Device: citywarden.Device{ID: "smoke-2"}}})
	alarms.wantAlarm(1)
	if got := alarms.next(); !strings.HasPrefix(got, `case {"id":"E1"`) {
		t.Errorf("second event = %q", got)
	}
	if got := one.next(); got != `reading {"device":"smoke-2","latest":{"smoke":{"value":1,"time":"2026-11-23T04:00:00Z","quality":"good"}}}` {
		t.Errorf("event of smoke-2 = %q", got)
	}
	if got := one.next(); !strings.HasPrefix(got, `device {"id":"smoke-2"`) {
		t.Errorf("second event of smoke-2 = %q", got)
	}
	for _, q := range []string{"?kinds=weather", "?last_event_id=x", "?kind=alarm"} {
		if a := p.do(tok, "GET /api/v1/events"+q, ""); a.status != 400 {
			t.Errorf("%s = %d %s, want 400", q, a.status, a.body)
		}
	}
}

func TestSlowSubscriberIsCutOffAndCatchesUp(t *testing.T) {
	hub := NewHub(slog.New(slog.DiscardHandler))
	start := hub.last
	slow, _, _, _, err := hub.subscribe(0, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	fast, _, _, _, err := hub.subscribe(0, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	for n := range hubQueue + 10 {
		hub.Publish(alarmEvent(n))
		if e := <-fast.queue; e.id != start+uint64(n)+1 {
			t.Fatalf("fast one got %d as event %d", e.id, n)
		}
	}
	n, last := 0, start
	for e := range slow.queue { // ends: it was closed
		n, last = n+1, e.id
	}
	if n != hubQueue {
		t.Errorf("slow one got %d events, want %d", n, hubQueue)
	}
	_, missed, _, reset, err := hub.subscribe(last, nil, "")
	if err != nil || reset || len(missed) != 10 || missed[0].id != last+1 {
		t.Errorf("resume: %d missed, reset %v, %v", len(missed), reset, err)
	}
	hub.cancel(slow)
	hub.cancel(slow)
}

func TestHubHasRoomForSoMany(t *testing.T) {
	hub := NewHub(slog.New(slog.DiscardHandler))
	for range hubSubscribers {
		if _, _, _, _, err := hub.subscribe(0, nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, _, _, err := hub.subscribe(0, nil, ""); citywarden.CodeOf(err) != citywarden.CodeTransient {
		t.Errorf("one more: %v, want a transient error", err)
	}
	hub.Close()
	if _, _, _, _, err := hub.subscribe(0, nil, ""); citywarden.CodeOf(err) != citywarden.CodeTransient {
		t.Errorf("after Close: %v, want a transient error", err)
	}
	hub.Publish(alarmEvent(1))
}

func TestEventThatIsNoJSON(t *testing.T) {
	var log strings.Builder
	hub := NewHub(slog.New(slog.NewTextHandler(&log, nil)))
	before := hub.last
	hub.Publish(citywarden.Event{Kind: "alarm", Data: func() {}})
	if hub.last != before || !strings.Contains(log.String(), "event not published") {
		t.Errorf("last %d, log %s", hub.last-before, log.String())
	}
}

// sink is a ResponseWriter whose text can be looked at while it is written to.
type sink struct {
	mu     sync.Mutex
	text   strings.Builder
	header http.Header
	fail   bool
}

func (s *sink) Header() http.Header { return s.header }
func (s *sink) WriteHeader(int)     {}
func (s *sink) Flush()              {}

func (s *sink) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail {
		return 0, errors.New("broken pipe")
	}
	return s.text.Write(b)
}

// take returns what was written since the last time.
func (s *sink) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.text.String()
	s.text.Reset()
	return t
}

// open begins an event stream inside a synctest bubble; the returned channel is
// closed when it has ended.
func (p *platform) open(ctx context.Context, token string) (*sink, <-chan struct{}) {
	req := httptest.NewRequestWithContext(ctx, "GET", "/api/v1/events", nil)
	req.Header.Set("Authorization", "Bearer "+token)
	s, done := &sink{header: http.Header{}}, make(chan struct{})
	go func() {
		defer close(done)
		p.handler.ServeHTTP(s, req)
	}()
	return s, done
}

func TestHeartbeat(t *testing.T) {
	p := newPlatform(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		tok := p.as(citywarden.RoleViewer)
		s, done := p.open(ctx, tok)
		synctest.Wait()
		begin := fmt.Sprintf("retry: 2000\n\nid: %d\n\n", p.server.Hub.last)
		if got := s.take(); got != begin {
			t.Errorf("beginning = %q, want %q", got, begin)
		}
		time.Sleep(heartbeat + time.Millisecond)
		synctest.Wait()
		beat := fmt.Sprintf(": still here\nid: %d\n\n", p.server.Hub.last)
		if got := s.take(); got != beat {
			t.Errorf("heartbeat = %q, want %q", got, beat)
		}
		cancel()
		<-done
		if n := len(p.server.Hub.subs); n != 0 {
			t.Errorf("%d subscribers after the end", n)
		}
	})
}

func TestStreamEndsWithItsSession(t *testing.T) {
	p := newPlatform(t)
	synctest.Test(t, func(t *testing.T) {
		tok := p.as(citywarden.RoleViewer)
		_, done := p.open(t.Context(), tok)
		synctest.Wait()
		if err := p.db.DeleteUser(t.Context(), "viewer"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		<-done
		if took := time.Since(began); took > heartbeat {
			t.Errorf("the stream lasted %s after the user was deleted", took)
		}
	})
}

func TestStreamEndsWithItsReader(t *testing.T) {
	p := newPlatform(t)
	synctest.Test(t, func(t *testing.T) {
		s, done := p.open(t.Context(), p.as(citywarden.RoleViewer))
		synctest.Wait()
		s.mu.Lock()
		s.fail = true
		s.mu.Unlock()
		p.server.Hub.Publish(alarmEvent(1))
		<-done
	})
}

func TestCloseEndsStreamsAndLeavesNothingBehind(t *testing.T) {
	p := newPlatform(t)
	tok := p.as(citywarden.RoleViewer)
	before := runtime.NumGoroutine()
	srv := httptest.NewUnstartedServer(p.handler)
	srv.Config.RegisterOnShutdown(p.server.Hub.Close)
	srv.Start()
	var ws []*watcher
	for range 20 {
		w := watch(t, srv, tok, "", "")
		w.began()
		ws = append(ws, w)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := srv.Config.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown with open streams: %v", err)
	}
	for _, w := range ws {
		if got := w.next(); got != "" {
			t.Errorf("event after the end: %q", got)
		}
		w.close()
	}
	srv.Close()
	srv.Client().CloseIdleConnections()
	for wait := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(wait) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// A reader that takes nothing must not hold its goroutine for ever.
func TestStalledReaderIsGivenUp(t *testing.T) {
	p := newPlatform(t)
	tok := p.as(citywarden.RoleViewer)
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		l := &oneConn{conn: ours, closed: make(chan struct{})}
		srv := &http.Server{Handler: p.handler}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(l) }()
		if _, err := fmt.Fprintf(theirs, "GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", tok); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		synctest.Wait() // it writes, nobody reads
		time.Sleep(eventDeadline + time.Second)
		synctest.Wait()
		p.server.Hub.mu.Lock()
		n := len(p.server.Hub.subs)
		p.server.Hub.mu.Unlock()
		if n != 0 {
			t.Errorf("still subscribed after %s", time.Since(began))
		}
		theirs.Close()
		srv.Close()
		<-served
	})
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn   net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	var c net.Conn
	l.once.Do(func() { c = l.conn })
	if c != nil {
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

func TestEventIDsFitIntoAJavaScriptNumber(t *testing.T) {
	hub := NewHub(slog.New(slog.DiscardHandler))
	if hub.last >= 1<<53 {
		t.Errorf("first id %d", hub.last)
	}
	if diff := cmp.Diff(hub.first, hub.last+1); diff != "" {
		t.Error(diff)
	}
}

// TestMessagesOfADevice: the bytes of a message and what was made of them; the
// stream ends with the platform.
func TestMessagesOfADevice(t *testing.T) {
	p := newPlatform(t)
	a := p.do(p.as(citywarden.RoleViewer), "GET /api/v1/devices/smoke-1/messages", "")
	want := `event: message
data: {"received":"2026-11-23T04:00:00Z","protocol":"mqtt","topic":"v1/devices/me/telemetry","bytes":20,"payload":"eyJzbW9rZSI6MC4zMSwieCI6MX0=",` +
		`"readings":[{"metric":"smoke","value":0.31,"time":"2026-11-23T04:00:00Z","quality":"good"}],"duplicates":0,"rejected":1,"quarantined":0,"reason":"no metric x","missed":0}

`
	if a.status != 200 || a.header.Get("Content-Type") != "text/event-stream" || !strings.HasSuffix(a.body, want) {
		t.Errorf("messages = %d %v\n%s\nwant at its end\n%s", a.status, a.header, a.body, want)
	}
	if a := p.do(p.as(citywarden.RoleViewer), "GET /api/v1/devices/nobody/messages", ""); a.status != 404 {
		t.Errorf("messages of nobody = %d", a.status)
	}
	if n := p.server.watching.Load(); n != 0 {
		t.Errorf("%d watch when all are gone", n)
	}
}
