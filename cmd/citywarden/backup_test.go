package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestABackupUnderLoadIsWhole backs up a platform to which messages come all the time, and
// restores it: what was acknowledged before the backup began is in the series, once, and log, ledger
// and series agree.
func TestABackupUnderLoadIsWhole(t *testing.T) {
	t.Parallel()
	const devices = 4
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "data", "rules", "fire.yaml"), fireRule)
	p, err := launch(dir, "data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	f := newFleet(t, p, devices)
	var over atomic.Bool
	var wg sync.WaitGroup
	t.Cleanup(func() { over.Store(true); wg.Wait() })
	before := make([][]int64, devices) // what was acknowledged when the backup began
	var mu sync.Mutex                  // guards f.acked, which the devices extend
	for i, token := range f.tokens {
		m, err := dial(p.mqtt, token)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer m.Close()
			for !over.Load() {
				if err := m.publish(16, &f.next[i], func(ts int64) {
					mu.Lock()
					defer mu.Unlock()
					f.acked[i] = append(f.acked[i], ts)
					f.count.Add(1)
				}); err != nil {
					t.Errorf("d%d: %v", i, err)
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	cli := func(server string, args ...string) string {
		t.Helper()
		cmd := exec.Command("citywarden", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CITYWARDEN_SERVER="+server, "CITYWARDEN_USER=admin", "CITYWARDEN_PASSWORD="+testPassword)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("citywarden %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	if !f.flows(30*time.Second, 2000) {
		t.Fatalf("messages are not acknowledged\n%s", p.stderr)
	}
	mu.Lock()
	for i := range before {
		before[i] = slices.Clone(f.acked[i])
	}
	mu.Unlock()
	count := f.count.Load()
	cli(p.http, "backup", "county.zip")
	if !f.flows(30*time.Second, 500) {
		t.Fatal("messages are not acknowledged after the backup")
	}
	over.Store(true)
	wg.Wait()
	during := f.count.Load() - count
	if err := p.stop(os.Interrupt); err != nil {
		t.Fatal(err)
	}

	cli("", "restore", "county.zip", "--data", "other")
	q, err := launch(dir, "other")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.stop(os.Kill) })
	f.acked = before
	f.count.Store(count)
	f.check(t, q, 30*time.Second)
	var said string
	if !wait(30*time.Second, func() bool {
		said = cli(q.http, "audit", "--since", "2h")
		return !strings.Contains(said, "behind")
	}) || !strings.Contains(said, "log, ledger and time series agree") {
		t.Errorf("the audit of what was restored: %s", said)
	}
	t.Logf("%d messages were acknowledged before the backup, %d during it and after; %s", count, during, said)
}
