package trace

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/citywarden/citywarden"
)

// collect runs a collector and returns its address and what it took.
func collect(t *testing.T) (url string, spans func() []*otlp.Span) {
	t.Helper()
	var all []*otlp.Span
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(b, &req) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		for _, rs := range req.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				all = append(all, ss.Spans...)
			}
		}
	}))
	return s.URL, func() []*otlp.Span { s.Close(); return all } // all is complete when it is closed
}

func TestSpansOfOneRecordAreOneTrace(t *testing.T) {
	url, spans := collect(t)
	begin := time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)
	pos := citywarden.PositionAt(7, 3)
	// Two platforms, as before and after a restart.
	for i, tell := range []func(*Tracer){
		func(o *Tracer) {
			o.Root(pos, "receive", begin, begin.Add(time.Millisecond), slog.String("device", "d1"), slog.Int("bytes", 20))
			o.Root(pos+1, "receive", begin, begin.Add(time.Millisecond))
		},
		func(o *Tracer) {
			o.Span(pos, "series", begin.Add(time.Second), begin.Add(2*time.Second), errors.New("no such host"))
		},
	} {
		o, err := New(t.Context(), Options{URL: url, Ratio: 1})
		if err != nil {
			t.Fatal(err)
		}
		tell(o)
		if err := o.Close(); err != nil {
			t.Errorf("tracer %d: Close = %v", i, err)
		}
	}
	got := spans()
	if len(got) != 3 {
		t.Fatalf("%d spans, want 3: %v", len(got), got)
	}
	first, other, later := got[0], got[1], got[2]
	if !bytes.Equal(first.TraceId, later.TraceId) || !bytes.Equal(first.SpanId, later.ParentSpanId) || len(first.ParentSpanId) != 0 {
		t.Errorf("the second platform's span is not of the first one's trace:\n%v\n%v", first, later)
	}
	if bytes.Equal(first.TraceId, other.TraceId) {
		t.Error("two records are one trace")
	}
	if want := begin.Add(time.Millisecond).UnixNano(); int64(first.StartTimeUnixNano) != begin.UnixNano() || int64(first.EndTimeUnixNano) != want {
		t.Errorf("times %d to %d", first.StartTimeUnixNano, first.EndTimeUnixNano)
	}
	attrs := map[string]string{}
	for _, a := range first.Attributes {
		attrs[a.Key] = strings.TrimSpace(a.Value.String())
	}
	if !strings.Contains(attrs["citywarden.device"], "d1") || !strings.Contains(attrs["citywarden.bytes"], "20") || attrs["citywarden.position"] == "" {
		t.Errorf("attributes %v", attrs)
	}
	if later.Status.GetCode() != otlp.Status_STATUS_CODE_ERROR || later.Status.Message != "no such host" {
		t.Errorf("status %v", later.Status)
	}
}

func TestRatio(t *testing.T) {
	o, err := New(t.Context(), Options{URL: "http://127.0.0.1:1", Ratio: 0.1})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	const all = 100_000
	for i := range all {
		if o.Follows(citywarden.PositionAt(uint64(i/8), i%8)) {
			n++
		}
	}
	if n < all/10*9/10 || n > all/10*11/10 {
		t.Errorf("%d of %d records are followed, want a tenth", n, all)
	}
}

func TestBadOptions(t *testing.T) {
	for _, o := range []Options{{URL: "collector:4318", Ratio: 1}, {URL: "http://collector:4318"}, {URL: "http://collector:4318", Ratio: 1.1}} {
		if _, err := New(t.Context(), o); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("New(%+v) = %v", o, err)
		}
	}
}

// A collector that refuses costs spans, and says so once.
func TestACollectorThatRefuses(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	var log bytes.Buffer
	o, err := New(t.Context(), Options{URL: s.URL, Ratio: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2000 { // several batches
		o.Root(citywarden.Position(i), "receive", time.Now(), time.Now())
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "does not take traces"); n != 1 {
		t.Errorf("it was said %d times:\n%s", n, &log)
	}
}
