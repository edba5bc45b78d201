//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestInfluxDBAway is a part of `make nightly`: a real influxd is stopped at full load, for as long as INFLUX_OUTAGE
// says. Messages go on being acknowledged, the platform keeps its memory, and once influxd is back the
// series catch up while the load goes on. What was acknowledged is in them in the end, once.
func TestInfluxDBAway(t *testing.T) {
	away, _ := time.ParseDuration(os.Getenv("INFLUX_OUTAGE"))
	if away == 0 {
		t.Skip("say for how long influxd is away: INFLUX_OUTAGE=3m, or make nightly")
	}
	dir, addr := t.TempDir(), freeAddr(t)
	influx := startInflux(t, filepath.Join(dir, "influx"), addr)
	writeFile(t, filepath.Join(dir, "c.yaml"), "series:\n  url: http://"+addr+"\n  database: county\n")
	t.Setenv("GOMEMLIMIT", "512MiB")
	p, err := launch(dir, "data", "--config", "c.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	f := newFleet(t, p, 20)
	var over atomic.Bool
	var wg sync.WaitGroup
	t.Cleanup(func() { over.Store(true); wg.Wait() })
	for i, token := range f.tokens {
		m, err := dial(p.mqtt, token)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer m.Close()
			if err := f.send(i, m, 64, &over); err != nil {
				t.Errorf("d%d: %v", i, err)
			}
		})
	}
	figures := func() (lag, own int) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return int(figure(t, p.metrics(t), `(?m)^citywarden_consumer_lag\{consumer="series"\} (\S+)$`)), int(figure(t, status, `RssAnon:\s+(\d+) kB`)) >> 10
	}
	phase := func(name string, end func() bool) {
		t.Helper()
		begin, before, most := time.Now(), f.count.Load(), 0
		if !waitSlowly(10*time.Minute+2*away, func() bool {
			_, own := figures()
			most = max(most, own)
			return end()
		}) {
			t.Errorf("%s: not over after %s\n%s", name, 10*time.Minute+2*away, p.stderr)
		}
		lag, _ := figures()
		took := time.Since(begin)
		t.Logf("%s: %s, %d messages acknowledged, %.0f/s; the series are %d commit groups behind; %d MiB at the most",
			name, took.Round(time.Second), f.count.Load()-before, float64(f.count.Load()-before)/took.Seconds(), lag, most)
		if most > 512+64 {
			t.Errorf("%s: %d MiB of memory with GOMEMLIMIT=512MiB", name, most)
		}
	}
	lasting := func(d time.Duration) func() bool {
		end := time.Now().Add(d)
		return func() bool { return time.Now().After(end) }
	}
	phase("influxd there", lasting(20*time.Second))
	_ = influx.Process.Kill()
	_ = influx.Wait()
	before := f.count.Load()
	phase("influxd away", lasting(away))
	if f.count.Load() == before {
		t.Error("nothing was acknowledged while influxd was away")
	}
	startInflux(t, filepath.Join(dir, "influx"), addr)
	phase("influxd back, load goes on", lasting(30*time.Second))
	over.Store(true)
	wg.Wait()
	phase("catching up", func() bool { lag, _ := figures(); return lag == 0 })
	f.check(t, p, 90*time.Second)
}
