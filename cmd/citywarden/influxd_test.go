package main

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
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
