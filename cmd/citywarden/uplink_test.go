package main

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

// TestKillLosesNothingOfABroker kills the platform while it takes what devices
// publish to a mosquitto: each reading that mosquitto acknowledged is in the series, exactly
// once, and the books balance.
func TestKillLosesNothingOfABroker(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("mosquitto"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("mosquitto is not installed")
		}
		t.Skip("mosquitto is not installed")
	}
	const devices, rounds, atLeast = 3, 3, int64(200)
	dir := t.TempDir()
	addr, _, stop, err := mosquitto(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)

	writeFile(t, filepath.Join(dir, "config.yaml"), fmt.Sprintf(
		"uplinks:\n- {name: city, url: 'tcp://%s', client_id: citywarden, topics: [{topic: 'factory/{device}/telemetry'}]}\n", addr))
	p, err := launch(dir, "data", "--config", "config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	if !wait(30*time.Second, func() bool { return strings.Contains(p.stderr.String(), "broker connected") }) {
		t.Fatalf("the broker is not connected:\n%s", p.stderr)
	}
	f := newFleet(t, p, devices)
	var over atomic.Bool
	var wg sync.WaitGroup
	for i := range devices {
		m, err := dial(addr, "")
		if err != nil {
			t.Fatal(err)
		}
		m.topic = fmt.Sprintf("factory/d%d/telemetry", i)
		wg.Go(func() {
			defer m.Close()
			if err := f.send(i, m, 4, &over); err != nil {
				t.Errorf("device %d: %v", i, err)
			}
		})
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for range rounds {
		if !f.flows(30*time.Second, atLeast+rnd.Int64N(5*atLeast)) {
			t.Fatal("the broker does not take messages")
		}
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-p.done
		if p, err = launch(dir, "data", "--config", "config.yaml"); err != nil {
			t.Fatal(err)
		}
	}
	over.Store(true)
	wg.Wait()
	f.check(t, p, time.Minute)

	var sum citywarden.LedgerRow
	if err := list(t.Context(), clientOf(t, p), "/ledger", url.Values{}, func(r citywarden.LedgerRow) error {
		sum.Received, sum.Stored, sum.Duplicate, sum.Rejected = sum.Received+r.Received, sum.Stored+r.Stored, sum.Duplicate+r.Duplicate, sum.Rejected+r.Rejected
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if sum.Stored != f.count.Load() || sum.Received != sum.Stored+sum.Duplicate {
		t.Errorf("%d acknowledged by the broker; the ledger has %+v", f.count.Load(), sum)
	}
	t.Logf("%d came again after a kill and count once", sum.Duplicate)
}
