package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

// connection is a bare MQTT 3.1.1 connection: it knows exactly which messages
// were acknowledged, which a client library with its own store does not.
type connection struct {
	c  net.Conn
	r  *bufio.Reader
	id uint16
}

func dial(addr, token string) (*connection, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	m := &connection{c: c, r: bufio.NewReader(c)}
	body := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 4, 0b1000_0010, 0, 60, 0, 0}, text(token)...)
	if err := m.write(0x10, body); err != nil {
		return nil, err
	}
	head, body, err := m.read()
	if err != nil || head != 0x20 || len(body) != 2 || body[1] != 0 {
		c.Close()
		return nil, fmt.Errorf("CONNACK %x %x: %w", head, body, err)
	}
	return m, nil
}

func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

func (m *connection) write(head byte, body []byte) error {
	_, err := m.c.Write(append(binary.AppendUvarint([]byte{head}, uint64(len(body))), body...))
	return err
}

func (m *connection) read() (head byte, body []byte, err error) {
	_ = m.c.SetReadDeadline(time.Now().Add(15 * time.Second))
	if head, err = m.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(m.r)
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, n)
	_, err = io.ReadFull(m.r, body)
	return head, body, err
}

// publish sends n messages that begin at *ts and calls acked for each that was
// acknowledged, in order.
func (m *connection) publish(n int, ts *int64, acked func(int64)) error {
	first := *ts
	for range n {
		m.id++
		body := append(text("v1/devices/me/telemetry"), byte(m.id>>8), byte(m.id))
		body = fmt.Appendf(body, `{"ts":%d,"values":{"smoke":%g}}`, *ts, float64(*ts%10)/100)
		*ts++
		if err := m.write(0x32, body); err != nil {
			return err
		}
	}
	for i := range n {
		head, _, err := m.read()
		if err != nil || head != 0x40 {
			return fmt.Errorf("PUBACK %x: %w", head, err)
		}
		acked(first + int64(i))
	}
	return nil
}

// TestKillLosesNothing kills the platform at random moments under load and
// checks that every acknowledged reading is in the series, exactly once, and
// that the alarm and the case of each device are there once.
func TestKillLosesNothing(t *testing.T) {
	t.Parallel()
	const devices, atLeast = 8, int64(200)
	rounds := 5
	if n, err := strconv.Atoi(os.Getenv("CRASH_ROUNDS")); err == nil {
		rounds = n
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "data", "rules", "fire.yaml"), `rules:
- id: fire.smoke
  select: {model: [smoke-detector]}
  levels: [{severity: critical, when: 'smoke >= 0'}]
  clear: {when: 'smoke < 0'}
  case: {class: event/0595, key: 'fire/{{device}}'}
`)
	p, err := launch(dir, "data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	tokens := addDevices(t, p, devices)

	start := time.Now().Add(-time.Hour).UnixMilli()
	next := make([]int64, devices) // the next time stamp of each device
	acked := make([][]int64, devices)
	for i := range next {
		next[i] = start
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range rounds {
		var wg sync.WaitGroup
		var count atomic.Int64
		for i := range devices {
			wg.Go(func() {
				c, err := dial(p.mqtt, tokens[i])
				if err != nil {
					return // killed before it could connect
				}
				defer c.c.Close()
				for c.publish(16, &next[i], func(ts int64) { acked[i] = append(acked[i], ts); count.Add(1) }) == nil {
				}
			})
		}
		moment := atLeast + rnd.Int64N(10*atLeast) // of the crash, in messages, whatever the machine is busy with
		if !wait(30*time.Second, func() bool { return count.Load() >= moment }) {
			t.Fatalf("round %d: only %d of %d messages were acknowledged in 30 s:\n%s", round, count.Load(), moment, p.stderr)
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

	c := clientOf(t, p)
	total := 0
	for i := range devices {
		want := map[int64]int{}
		for _, ts := range acked[i] {
			want[ts] = 0
		}
		total += len(want)
		missing := 0
		ok := wait(30*time.Second, func() bool {
			missing = 0
			seen := readSeries(t, c, fmt.Sprintf("d%d", i), start, next[i])
			for ts := range want {
				if seen[ts] != 1 {
					missing++
				}
			}
			return missing == 0
		})
		if !ok {
			t.Errorf("d%d: %d of %d acknowledged readings are not in the series exactly once", i, missing, len(want))
		}
	}
	t.Logf("%d acknowledged readings in %d rounds, all there", total, rounds)

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

func readSeries(t *testing.T, c *client, device string, from, to int64) map[int64]int {
	t.Helper()
	seen := map[int64]int{}
	for from < to {
		var page struct {
			Points [][2]any `json:"points"`
		}
		q := url.Values{"metric": {"smoke"}, "from": {time.UnixMilli(from).UTC().Format(time.RFC3339Nano)}, "to": {time.UnixMilli(min(from+5000, to)).UTC().Format(time.RFC3339Nano)}}
		if err := c.call(t.Context(), "GET", "/devices/"+device+"/series?"+q.Encode(), nil, &page); err != nil {
			t.Fatal(err)
		}
		for _, p := range page.Points {
			at, err := time.Parse(time.RFC3339Nano, p[0].(string))
			if err != nil {
				t.Fatal(err)
			}
			seen[at.UnixMilli()]++
		}
		from += 5000
	}
	return seen
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

// addDevices adds smoke detectors d0, d1, … and returns their tokens.
func addDevices(t *testing.T, p *process, n int) []string {
	t.Helper()
	c := clientOf(t, p)
	tokens := make([]string, n)
	csv := strings.Builder{}
	csv.WriteString("id,model,lat,lon,token\n")
	for i := range tokens {
		tokens[i] = fmt.Sprintf("token-of-device-%04d", i)
		fmt.Fprintf(&csv, "d%d,smoke-detector,24.11,117.61,%s\n", i, tokens[i])
	}
	if err := c.call(t.Context(), "POST", "/devices/import", strings.NewReader(csv.String()), nil); err != nil {
		t.Fatal(err)
	}
	return tokens
}
