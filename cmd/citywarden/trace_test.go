package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// TestAMessageIsTraced follows a message that raises an alarm from its socket to
// the case, at a collector of traces.
func TestAMessageIsTraced(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	stages := map[string][]string{} // by trace, those whose parent is right
	roots := map[string]string{}    // trace to its first span
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err != nil || proto.Unmarshal(b, &req) != nil {
			t.Errorf("what came to %s is no request to take traces", r.URL)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range req.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, span := range ss.Spans {
					id := hex.EncodeToString(span.TraceId)
					if span.Name == "receive" {
						roots[id] = hex.EncodeToString(span.SpanId)
					}
					stages[id] = append(stages[id], span.Name+" "+hex.EncodeToString(span.ParentSpanId))
				}
			}
		}
	}))
	defer s.Close()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "data", "rules", "fire.yaml"), fireRule)
	writeFile(t, filepath.Join(dir, "c.yaml"), fmt.Sprintf("traces: {url: %q, ratio: 1}\n", s.URL))
	p, err := launch(dir, "data", "--config", "c.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	token := addDevices(t, p, 1)[0]
	res, err := http.Post(p.http+"/api/v1/"+token+"/telemetry", "application/json", strings.NewReader(`{"smoke":0.5}`))
	if err != nil {
		t.Fatal(err)
	}
	if res.Body.Close(); res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	want := []string{"alarms", "decode", "desk", "latest", "ledger", "receive", "rollups", "series"}
	got := func() []string {
		mu.Lock()
		defer mu.Unlock()
		var names []string
		for id, first := range roots {
			for _, stage := range stages[id] {
				name, parent, _ := strings.Cut(stage, " ")
				if name == "receive" && parent == "" || parent == first {
					names = append(names, name)
				}
			}
		}
		slices.Sort(names)
		return names
	}
	if !wait(30*time.Second, func() bool { return slices.Equal(got(), want) }) {
		t.Errorf("the trace of the message has the stages %v, want %v\n%s", got(), want, p.stderr)
	}
}
