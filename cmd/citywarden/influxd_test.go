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
	f := newFleet(t, p, 4)
	var over atomic.Bool
	var wg sync.WaitGroup
	for i, token := range f.tokens {
		m, err := dial(p.mqtt, token)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer m.Close()
			if err := f.send(i, unhurried{m}, 4, &over); err != nil {
				t.Errorf("d%d: %v", i, err)
			}
		})
	}
	for _, m := range []string{"gone", "401", "500", "partial", "slow"} {
		mode.Store(m)
		if !f.flows(60*time.Second, 400) || !wait(60*time.Second, func() bool { _, seen := hit.Load(m); return seen }) {
			t.Errorf("%s: no write came, or messages are not acknowledged: %d so far", m, f.count.Load())
		}
	}
	mode.Store("")
	over.Store(true)
	wg.Wait()
	f.check(t, p, 90*time.Second)
}

// unhurried is a link with a load that the machine can bear.
type unhurried struct{ link }

func (u unhurried) publish(n int, ts *int64, acked func(int64)) error {
	time.Sleep(2 * time.Millisecond)
	return u.link.publish(n, ts, acked)
}

// TestSeriesThatCantBeWrittenAreTold: while an InfluxDB does not answer, messages are acknowledged, the platform is ready, and people are told
// why their charts lack the newest readings, until it answers.
func TestSeriesThatCantBeWrittenAreTold(t *testing.T) {
	t.Parallel()
	dir, addr := t.TempDir(), freeAddr(t)
	writeFile(t, filepath.Join(dir, "away.yaml"), fmt.Sprintf("series:\n  url: http://%s\n  database: citywarden\n", addr))
	p, err := launch(dir, "data", "--config", filepath.Join(dir, "away.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.stop(os.Interrupt) }()
	c := clientOf(t, p)
	told := func() (text string) {
		var info struct {
			Trouble struct{ ZH string } `json:"trouble"`
		}
		if err := c.call(t.Context(), "GET", "/info", nil, &info); err != nil {
			t.Fatal(err)
		}
		return info.Trouble.ZH
	}
	if text := told(); text != "" {
		t.Errorf("before there is anything to write: %q", text)
	}
	res, err := http.Post(p.http+"/api/v1/"+addDevices(t, p, 1)[0]+"/telemetry", "application/json", strings.NewReader(`{"smoke":0.01}`))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("the message is answered with %s", res.Status)
	}
	if !waitSlowly(2*time.Minute, func() bool { return strings.HasPrefix(told(), "时序库无法写入") }) {
		t.Fatalf("nobody is told: %q", told())
	}
	if res, err := http.Get(p.http + "/readyz"); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("readyz: %v, %v", res, err)
	}
	startInflux(t, dir, addr)
	if !waitSlowly(2*time.Minute, func() bool { return told() == "" }) {
		t.Errorf("told after it has come back: %q", told())
	}
}
