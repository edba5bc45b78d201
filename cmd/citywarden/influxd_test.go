package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// startInflux runs a real influxd 1.x until the test ends and returns its URL.
func startInflux(t *testing.T, dir, addr string) *exec.Cmd {
	t.Helper()
	bin, err := exec.LookPath("influxd")
	if err != nil {
		t.Skip("influxd is not installed; go install github.com/influxdata/influxdb/cmd/influxd@v1.8.10")
	}
	conf := filepath.Join(dir, "influxd.toml")
	writeFile(t, conf, fmt.Sprintf(`reporting-disabled = true
bind-address = "127.0.0.1:0"
[meta]
dir = %q
[data]
dir = %q
wal-dir = %q
[http]
bind-address = %q
log-enabled = false
`, filepath.Join(dir, "meta"), filepath.Join(dir, "data"), filepath.Join(dir, "wal"), addr))
	cmd := exec.Command(bin, "-config", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if !wait(20*time.Second, func() bool {
		res, err := http.Get("http://" + addr + "/ping")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusNoContent
	}) {
		t.Fatal("influxd did not start")
	}
	return cmd
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestRemoteInfluxDB sends the series to a real influxd, which is away when the
// platform starts and again in the middle: nothing is lost and the rest of the
// platform goes on.
func TestRemoteInfluxDB(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("influxd"); err != nil {
		t.Skip("influxd is not installed; go install github.com/influxdata/influxdb/cmd/influxd@v1.8.10")
	}
	dir, addr := t.TempDir(), freeAddr(t)
	writeFile(t, filepath.Join(dir, "c.yaml"), "series:\n  url: http://"+addr+"\n  database: county\n")
	p, err := launch(dir, "data", "--config", "c.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	token := addDevices(t, p, 1)[0]
	c := clientOf(t, p)
	send := func(n int) {
		t.Helper()
		if err := publish(p.mqtt, token, fmt.Sprintf(`{"smoke":%g}`, float64(n)/100)); err != nil {
			t.Fatal(err)
		}
	}
	stored := func() int {
		var res struct{ Points [][2]any }
		q := url.Values{"metric": {"smoke"}, "from": {time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)}}
		if err := c.call(t.Context(), "GET", "/devices/d0/series?"+q.Encode(), nil, &res); err != nil {
			return -1
		}
		return len(res.Points)
	}
	send(1) // nobody there yet
	if _, err := os.Stat(filepath.Join(dir, "data", "series")); err == nil {
		t.Error("the embedded core was opened beside a remote InfluxDB")
	}
	influx := startInflux(t, filepath.Join(dir, "influx"), addr)
	if !wait(60*time.Second, func() bool { return stored() == 1 }) {
		t.Fatalf("%d points after influxd came, want 1\n%s", stored(), p.stderr)
	}
	_ = influx.Process.Kill()
	_ = influx.Wait()
	send(2)
	send(3)
	var latest map[string]struct{ Value float64 }
	if !wait(10*time.Second, func() bool {
		return c.call(t.Context(), "GET", "/devices/d0/latest", nil, &latest) == nil && latest["smoke"].Value == 0.03
	}) {
		t.Errorf("latest value without InfluxDB: %v", latest)
	}
	res, err := http.Get(p.http + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	if res.Body.Close(); res.StatusCode != http.StatusOK {
		t.Errorf("/readyz is %s without InfluxDB, though messages are taken", res.Status)
	}
	startInflux(t, filepath.Join(dir, "influx"), addr)
	if !wait(60*time.Second, func() bool { return stored() == 3 }) {
		t.Fatalf("%d points after influxd came back, want 3\n%s", stored(), p.stderr)
	}
}

// TestInfluxDBMisbehaves puts between the platform and a real influxd what goes
// wrong with one, at load: it is gone, it knows the token no more, it fails, it takes half
// of a batch, it is slow. What was acknowledged meanwhile is in the series in the end, once.
func TestInfluxDBMisbehaves(t *testing.T) {
	t.Parallel()
	dir, addr := t.TempDir(), freeAddr(t)
	startInflux(t, filepath.Join(dir, "influx"), addr)
	server := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
	var mode atomic.Value
	mode.Store("")
	var hit sync.Map // the modes in which a write came
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/query" {
			server.ServeHTTP(w, r)
			return
		}
		now := mode.Load().(string)
		_, again := hit.LoadOrStore(now, true)
		fail := func(code int, message string) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			fmt.Fprintf(w, `{"code":"x","message":%q,"error":%q}`, message, message)
		}
		switch now {
		case "gone":
			panic(http.ErrAbortHandler)
		case "401":
			fail(http.StatusUnauthorized, "unauthorized access")
		case "500":
			fail(http.StatusInternalServerError, "engine: cache maximum memory size exceeded")
		case "slow":
			time.Sleep(2 * time.Second)
			server.ServeHTTP(w, r)
		case "partial":
			body, err := io.ReadAll(r.Body)
			lines := strings.SplitAfter(string(body), "\n")
			if err != nil || again || len(lines) < 4 {
				if !again {
					hit.Delete(now) // not yet: there is nothing to take a half of
				}
				r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
				server.ServeHTTP(w, r)
				return
			}
			half := strings.Join(lines[:len(lines)/2], "")
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(half)), int64(len(half))
			server.ServeHTTP(httptest.NewRecorder(), r)
			fail(http.StatusBadRequest, "partial write: shard 7 is not there dropped=1")
		default:
			server.ServeHTTP(w, r)
		}
	}))
	defer proxy.Close()
	writeFile(t, filepath.Join(dir, "c.yaml"), "series:\n  url: "+proxy.URL+"\n  database: county\n")
	p, err := launch(dir, "data", "--config", "c.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	const devices = 4
	tokens := addDevices(t, p, devices)
	start := time.Now().Add(-time.Hour).UnixMilli()
	next := make([]int64, devices)
	acked := make([][]int64, devices)
	var count atomic.Int64
	var over atomic.Bool
	var wg sync.WaitGroup
	for i := range devices {
		next[i] = start
		m, err := dial(p.mqtt, tokens[i])
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer m.c.Close()
			for !over.Load() {
				if err := m.publish(4, &next[i], func(ts int64) { acked[i] = append(acked[i], ts); count.Add(1) }); err != nil {
					t.Errorf("d%d: %v", i, err)
					return
				}
				time.Sleep(2 * time.Millisecond) // a load that the machine can bear
			}
		})
	}
	for _, m := range []string{"gone", "401", "500", "partial", "slow"} {
		mode.Store(m)
		goal := count.Load() + 400
		if !wait(60*time.Second, func() bool { _, seen := hit.Load(m); return seen && count.Load() >= goal }) {
			t.Errorf("%s: no write came, or messages are not acknowledged: %d of %d", m, count.Load(), goal)
		}
	}
	mode.Store("")
	over.Store(true)
	wg.Wait()
	c := clientOf(t, p)
	for i := range devices {
		missing := 0
		if !wait(90*time.Second, func() bool {
			missing = 0
			seen := readSeries(t, c, fmt.Sprintf("d%d", i), start, next[i])
			for _, ts := range acked[i] {
				if seen[ts] != 1 {
					missing++
				}
			}
			return missing == 0
		}) {
			t.Errorf("d%d: %d of %d acknowledged readings are not in the series exactly once\n%s", i, missing, len(acked[i]), p.stderr)
		}
	}
	t.Logf("%d acknowledged readings, all there", count.Load())
}
