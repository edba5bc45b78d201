//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp"
)

// TestAFullDiskLosesNothing fills the disk under load, twice: below the reserve
// no message is acknowledged on any protocol, and the platform says so; with room
// it goes on by itself, and everything that was acknowledged is in the series.
func TestAFullDiskLosesNothing(t *testing.T) {
	t.Parallel()
	const devices = 4
	dir := t.TempDir()
	disk := filepath.Join(dir, "data")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=128m"); err != nil {
		t.Skipf("mounting a small file system needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, 0) })
	const reserve = 32 << 20
	writeFile(t, filepath.Join(dir, "c.yaml"), fmt.Sprintf("log:\n  reserve: %d\n", reserve))
	p, err := launch(dir, "data", "--config", "c.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	f := newFleet(t, p, devices)
	c := clientOf(t, p)
	var over atomic.Bool
	var wg sync.WaitGroup
	for i, token := range f.tokens {
		wg.Go(func() {
			for !over.Load() {
				m, err := dial(p.mqtt, token)
				if err != nil {
					continue
				}
				_ = f.send(i, m, 16, &over)
				m.Close()
				time.Sleep(50 * time.Millisecond) // as a device waits before it connects again
			}
		})
	}
	t.Cleanup(func() { over.Store(true); wg.Wait() })
	flow := func(round int) {
		t.Helper()
		if !f.flows(30*time.Second, 500) {
			t.Fatalf("round %d: messages are not acknowledged\n%s", round, p.stderr)
		}
	}
	ready := func() int {
		res, err := http.Get(p.http + "/readyz")
		if err != nil {
			return 0
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	for round := range 2 {
		flow(round)
		filler := filepath.Join(disk, "filler")
		var st syscall.Statfs_t
		if err := syscall.Statfs(disk, &st); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filler, make([]byte, int64(st.Bavail)*int64(st.Bsize)-reserve+1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		if !wait(10*time.Second, func() bool { return ready() == http.StatusServiceUnavailable }) {
			t.Fatalf("round %d: /readyz is %d on a full disk", round, ready())
		}
		refusesAll(t, p, c, f.tokens[0])
		if f.flows(2*time.Second, 1) {
			t.Errorf("round %d: messages were acknowledged on a full disk", round)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		if !wait(10*time.Second, func() bool { return ready() == http.StatusOK }) {
			t.Fatalf("round %d: /readyz is %d with room on the disk", round, ready())
		}
	}
	flow(2)
	over.Store(true)
	wg.Wait()
	f.check(t, p, 30*time.Second)
}

// refusesAll checks what HTTP, CoAP, the metrics and the API say on a full disk.
func refusesAll(t *testing.T, p *process, c *client, token string) {
	t.Helper()
	res, err := http.Post(p.http+"/api/v1/"+token+"/telemetry", "application/json", strings.NewReader(`{"smoke":0.5}`))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("HTTP on a full disk: %s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
	}
	conn, err := udp.Dial(p.coap)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, err := conn.Post(t.Context(), "/api/v1/"+token+"/telemetry", message.AppJSON, bytes.NewReader([]byte(`{"smoke":0.5}`)))
	if err != nil {
		t.Fatal(err)
	}
	if answer.Code() != codes.ServiceUnavailable || !answer.Options().HasOption(message.MaxAge) {
		t.Errorf("CoAP on a full disk: %v, %v", answer.Code(), answer.Options())
	}
	if !strings.Contains(string(p.metrics(t)), "\ncitywarden_disk_full 1\n") {
		t.Error("the metrics don't say that the disk is full")
	}
	var info struct {
		Trouble *struct{ ZH, EN string }
	}
	if err := c.call(t.Context(), "GET", "/info", nil, &info); err != nil {
		t.Fatal(err)
	}
	if info.Trouble == nil || info.Trouble.ZH == "" || !strings.Contains(info.Trouble.EN, "nearly full") {
		t.Errorf("/info on a full disk says %+v", info.Trouble)
	}
}
