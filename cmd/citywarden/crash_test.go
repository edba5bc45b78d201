package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// fireRule raises an alarm and a case for each smoke detector that reports anything.
const fireRule = `rules:
- id: fire.smoke
  select: {model: [smoke-detector]}
  levels: [{severity: critical, when: 'smoke >= 0'}]
  clear: {when: 'smoke < 0'}
  case: {class: event/0595, key: 'fire/{{device}}'}
`

// TestKillLosesNothing kills the platform at random moments under load over MQTT
// at QoS 1, HTTP and confirmable CoAP, and checks that every acknowledged reading is in the series, exactly once, and
// that the alarm and the case of each device are there once.
func TestKillLosesNothing(t *testing.T) {
	t.Parallel()
	const devices, atLeast = 9, int64(200)
	var never atomic.Bool // is the load over but by the crash
	rounds := 5
	if n, err := strconv.Atoi(os.Getenv("CRASH_ROUNDS")); err == nil {
		rounds = n
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "data", "rules", "fire.yaml"), fireRule)
	p, err := launch(dir, "data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	f := newFleet(t, p, devices)
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range rounds {
		var wg sync.WaitGroup
		for i := range devices {
			wg.Go(func() {
				l, err := protocols[i%len(protocols)](p, f.tokens[i])
				if err != nil {
					return // killed before it could connect
				}
				defer l.Close()
				_ = f.send(i, l, 16, &never)
			})
		}
		moment := atLeast + rnd.Int64N(10*atLeast) // of the crash, in messages, whatever the machine is busy with
		if !f.flows(30*time.Second, moment) {
			t.Fatalf("round %d: %d messages were not acknowledged in 30 s:\n%s", round, moment, p.stderr)
		}
		if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-p.done
		wg.Wait()
		if p, err = launch(dir, "data"); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}

	for i, acked := range f.acked {
		if len(acked) == 0 {
			t.Errorf("d%d: none of its messages was acknowledged", i)
		}
	}
	f.check(t, p, 30*time.Second)

	c := clientOf(t, p)
	var alarms, cases []string
	if err := list(t.Context(), c, "/alarms", url.Values{}, func(a citywarden.Alarm) error {
		alarms = append(alarms, string(a.ID))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := list(t.Context(), c, "/cases", url.Values{}, func(k citywarden.Case) error {
		cases = append(cases, k.Key)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(alarms) != devices || len(cases) != devices {
		t.Errorf("%d alarms and %d cases for %d devices: %v %v", len(alarms), len(cases), devices, alarms, cases)
	}
}

// TestKillLosesNoAnswer kills the platform right after it took the answer to a
// command: what was answered stays so, and what was not waits.
func TestKillLosesNoAnswer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, err := launch(dir, "data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	token := addDevices(t, p, 1)[0]
	ask := func(method, path, body string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, p.http+"/api/v1/"+token+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %s %s: %v", method, path, resp.Status, got, err)
		}
		return string(got)
	}
	const rounds, answered = 3, 4
	var want []string
	for round := range rounds {
		c := clientOf(t, p)
		for range answered + 1 {
			if err := c.call(t.Context(), "POST", "/devices/d0/commands", map[string]string{"method": "self_test"}, nil); err != nil {
				t.Fatal(err)
			}
		}
		for i := range answered {
			var m struct{ ID int64 }
			if err := json.Unmarshal([]byte(ask("GET", "/rpc?timeout=20000", "")), &m); err != nil {
				t.Fatal(err)
			}
			answer := fmt.Sprintf(`{"round":%d,"answer":%d}`, round, i)
			ask("POST", fmt.Sprintf("/rpc/%d", m.ID), answer)
			want = append(want, fmt.Sprintf("%d answered %s", m.ID, answer))
		}
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-p.done
		if p, err = launch(dir, "data"); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	waiting := 0
	if err := list(t.Context(), clientOf(t, p), "/devices/d0/commands", url.Values{}, func(c citywarden.Command) error {
		if c.State == citywarden.CommandQueued {
			waiting++
		} else {
			got = append(got, fmt.Sprintf("%d %s %s", c.ID, c.State, c.Answer))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(got)
	if d := cmp.Diff(want, got); d != "" || waiting != rounds {
		t.Errorf("%d wait, want %d (-want +got):\n%s", waiting, rounds, d)
	}
}

// A device without a clock sends faster than a millisecond: each reading that
// was acknowledged is a point of its own.
func TestBurstWithoutTimes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := startPlatform(t, filepath.Join(dir, "data"))
	token := addDevices(t, p, 1)[0]
	conn, err := dial(p.mqtt, token)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.c.Close()
	const n = 200
	from := time.Now()
	for i := range n {
		body := append(text("v1/devices/me/telemetry"), byte(i>>8), byte(i+1))
		if err := conn.write(0x32, fmt.Appendf(body, `{"temperature":%d}`, i%10)); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		if head, _, err := conn.read(); err != nil || head != 0x40 {
			t.Fatalf("PUBACK %x: %v", head, err)
		}
	}
	c := clientOf(t, p)
	var page struct {
		Points [][2]any `json:"points"`
	}
	q := url.Values{"metric": {"temperature"}, "from": {from.Add(-time.Minute).UTC().Format(time.RFC3339)}}
	if !wait(30*time.Second, func() bool {
		return c.call(t.Context(), "GET", "/devices/d0/series?"+q.Encode(), nil, &page) == nil && len(page.Points) == n
	}) {
		t.Fatalf("%d of %d acknowledged readings are in the series", len(page.Points), n)
	}
	for i, at := range page.Points {
		if at[1] != float64(i%10) {
			t.Fatalf("point %d is %v, want %d: the order is lost", i, at, i%10)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// clientOf signs in as admin.
func clientOf(t *testing.T, p *process) *client {
	t.Helper()
	r := remote{Server: p.http, User: "admin", Password: testPassword}
	c, err := r.client(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return c
}
