package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

// TestAReconnectStormStarvesNoFireDetector cuts the connections of thousands of devices at once, with messages on their way. All come
// back at once and send what was not acknowledged and what they kept as fast as it is taken, and have always more of it. Two fire
// detectors see a fire meanwhile, one that was cut off with the others and one that was not. Both are acknowledged and their
// alarms are raised, and the cases opened, within seconds, though the storm goes on. Of the storm, too, everything that was acknowledged is
// stored, once.
func TestAReconnectStormStarvesNoFireDetector(t *testing.T) {
	const (
		window = 16               // messages of one device that are not acknowledged
		soon   = 30 * time.Second // from the fire to its alarm: 1 s on 2 cores that do nothing else, and CI's do
	)
	storm := 2000
	if raced || testing.Short() {
		storm = 200
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "data", "rules", "fire.yaml"), strings.Replace(fireRule, "smoke >= 0", "smoke > 0.5", 1))
	p, err := launch(dir, "data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	f := newFleet(t, p, storm+2)
	c := clientOf(t, p)
	cut, steady := storm, storm+1 // the fire detectors
	kept, err := dial(p.mqtt, f.tokens[steady])
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()

	var up, devices sync.WaitGroup
	var over atomic.Bool // there has been enough of the storm
	var back atomic.Int64
	power := make(chan struct{})
	up.Add(storm)
	defer devices.Wait()
	defer over.Store(true)
	for i := range storm {
		devices.Go(func() {
			m, err := dial(p.mqtt, f.tokens[i])
			if err == nil {
				err = m.publish(1, &f.next[i], f.taken(i))
			}
			up.Done()
			if err != nil {
				t.Errorf("d%d before the storm: %v", i, err)
				return
			}
			<-power
			for ts := range int64(window) { // on their way when it is cut
				_ = m.send(reading(f.next[i] + ts))
			}
			_ = m.c.(*net.TCPConn).SetLinger(0)
			m.Close()
			for !over.Load() {
				m, err := dial(p.mqtt, f.tokens[i])
				if err != nil { // its time is over, or the platform is gone; it tries again
					time.Sleep(20 * time.Millisecond)
					continue
				}
				back.Add(1)
				_ = f.send(i, m, window, &over)
				m.Close()
				f.next[i] = f.acked[i][len(f.acked[i])-1] + 1 // what was not acknowledged is sent again
			}
		})
	}
	up.Wait()
	before := f.count.Load()
	close(power)

	burns := func(m *connection) error {
		if err := m.send([]byte(`{"smoke":0.9}`)); err != nil {
			return err
		}
		if head, _, err := m.read(); err != nil || head != 0x40 {
			return fmt.Errorf("PUBACK %x: %w", head, err)
		}
		return nil
	}
	type figures struct{ acked, raised time.Duration }
	fire := func(device int, say func() error) (took figures, err error) {
		began := time.Now()
		if err := say(); err != nil {
			return took, fmt.Errorf("its message: %w", err)
		}
		took.acked = time.Since(began)
		var raised []citywarden.Alarm
		if !wait(soon-took.acked, func() bool {
			raised = nil
			q := url.Values{"device": {fmt.Sprintf("d%d", device)}}
			err = list(t.Context(), c, "/alarms", q, func(a citywarden.Alarm) error { raised = append(raised, a); return nil })
			return err == nil && len(raised) > 0
		}) {
			return took, fmt.Errorf("no alarm %s after its message: %w", soon, err)
		}
		took.raised = time.Since(began)
		if len(raised) != 1 || raised[0].Case == "" {
			return took, fmt.Errorf("want one alarm with its case: %+v", raised)
		}
		return took, nil
	}
	told := func(name string, took figures, err error) {
		t.Helper()
		t.Logf("%s: acknowledged after %s, alarm after %s; the storm had %d messages acknowledged, %d devices were back", name,
			took.acked.Round(time.Millisecond), took.raised.Round(time.Millisecond), f.count.Load()-before, back.Load())
		if err != nil {
			t.Errorf("the detector that %s: %v\n%.4000s", name, err, p.stderr)
		}
	}
	took, err := fire(cut, func() error {
		var m *connection
		wait(soon, func() bool { m, err = dial(p.mqtt, f.tokens[cut]); return err == nil })
		if err != nil {
			return err
		}
		defer m.Close()
		return burns(m)
	})
	told("was cut off", took, err)
	if !f.flows(30*time.Second, int64(storm*window)) { // so that it is at its height
		t.Errorf("of the storm %d messages were acknowledged", f.count.Load()-before)
	}
	took, err = fire(steady, func() error { return burns(kept) })
	told("kept its connection", took, err)
	over.Store(true)
	devices.Wait()
	if n := back.Load(); n < int64(storm) {
		t.Errorf("%d of %d devices came back", n, storm)
	}
	f.check(t, p, 60*time.Second)
}
