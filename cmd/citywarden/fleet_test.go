package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"
	coapclient "github.com/plgd-dev/go-coap/v3/udp/client"
)

// fleet is the smoke detectors of a test, with the ledger of what each of them
// knows to be acknowledged. Each sends one reading per millisecond of its own time.
type fleet struct {
	tokens []string
	start  int64     // the first time stamp
	next   []int64   // the next time stamp of each device
	acked  [][]int64 // by device
	count  atomic.Int64
}

// newFleet adds n devices d0, d1, … to the platform.
func newFleet(t *testing.T, p *process, n int) *fleet {
	t.Helper()
	f := &fleet{tokens: addDevices(t, p, n), start: time.Now().Add(-time.Hour).UnixMilli(), next: make([]int64, n), acked: make([][]int64, n)}
	for i := range f.next {
		f.next[i] = f.start
	}
	return f
}

// a link is a device's connection, whatever the protocol.
type link interface {
	// publish sends n messages that begin at *ts and calls acked for each that
	// was acknowledged, in order.
	publish(n int, ts *int64, acked func(int64)) error
	Close() error
}

// send publishes as device i over l in groups of n until there is an error or
// over is true.
func (f *fleet) send(i int, l link, n int, over *atomic.Bool) error {
	for !over.Load() {
		if err := l.publish(n, &f.next[i], f.taken(i)); err != nil {
			return err
		}
	}
	return nil
}

// taken is told by a link what device i knows to be acknowledged.
func (f *fleet) taken(i int) func(int64) {
	return func(ts int64) { f.acked[i] = append(f.acked[i], ts); f.count.Add(1) }
}

// flows waits until n more messages are acknowledged.
func (f *fleet) flows(limit time.Duration, n int64) bool {
	goal := f.count.Load() + n
	return wait(limit, func() bool { return f.count.Load() >= goal })
}

// check fails the test unless each acknowledged reading comes to be in the
// series, exactly once, within limit.
func (f *fleet) check(t *testing.T, p *process, limit time.Duration) {
	t.Helper()
	c := clientOf(t, p)
	for i := range f.tokens {
		missing := 0
		if !wait(limit, func() bool {
			missing = 0
			seen := readSeries(t, c, fmt.Sprintf("d%d", i), f.start, f.next[i])
			for _, ts := range f.acked[i] {
				if seen[ts] != 1 {
					missing++
				}
			}
			return missing == 0
		}) {
			t.Errorf("d%d: %d of %d acknowledged readings are not in the series exactly once\n%s", i, missing, len(f.acked[i]), p.stderr)
		}
	}
	t.Logf("%d acknowledged readings, all there", f.count.Load())
}

// connection is a bare MQTT 3.1.1 connection: it knows exactly which messages
// were acknowledged, which a client library with its own store does not.
type connection struct {
	c     net.Conn
	r     *bufio.Reader
	id    uint16
	topic string
	out   []byte // the newest message of contender.send
}

func dial(addr, token string) (*connection, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	m := &connection{c: c, r: bufio.NewReader(c), topic: "v1/devices/me/telemetry"}
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

// Close ends the connection.
func (m *connection) Close() error { return m.c.Close() }

// publish sends all n, then waits for their acknowledgements.
func (m *connection) publish(n int, ts *int64, acked func(int64)) error {
	first := *ts
	for range n {
		at := *ts
		*ts++
		if err := m.send(reading(at)); err != nil {
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

// send sends one message and does not wait for its acknowledgement.
func (m *connection) send(message []byte) error {
	if m.id++; m.id == 0 {
		m.id = 1
	}
	body := append(text(m.topic), byte(m.id>>8), byte(m.id))
	return m.write(0x32, append(body, message...))
}

// poster is a device that speaks HTTP, one message after the other.
type poster struct{ url string }

// Close does nothing: the connections are the HTTP client's.
func (h poster) Close() error { return nil }

func (h poster) publish(n int, ts *int64, acked func(int64)) error {
	for range n {
		at := *ts
		*ts++
		res, err := http.Post(h.url, "application/json", bytes.NewReader(reading(at)))
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, res.Body) // so that the connection is used again
		if res.Body.Close(); res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", h.url, res.Status)
		}
		acked(at)
	}
	return nil
}

// coapPoster is a device that speaks CoAP, confirmable, one message after the other.
type coapPoster struct {
	*coapclient.Conn
	path string
}

func (o coapPoster) publish(n int, ts *int64, acked func(int64)) error {
	for range n {
		at := *ts
		*ts++
		ctx, cancel := context.WithTimeout(o.Context(), 5*time.Second)
		res, err := o.Post(ctx, o.path, message.AppJSON, bytes.NewReader(reading(at)))
		cancel()
		if err != nil {
			return err
		}
		if res.Code() != codes.Changed && res.Code() != codes.Created {
			return fmt.Errorf("%s: %v", o.path, res.Code())
		}
		acked(at)
	}
	return nil
}

// protocols are the ways in which a fleet's devices can speak.
var protocols = []func(p *process, token string) (link, error){
	func(p *process, token string) (link, error) { return dial(p.mqtt, token) },
	func(p *process, token string) (link, error) {
		return poster{p.http + "/api/v1/" + token + "/telemetry"}, nil
	},
	func(p *process, token string) (link, error) {
		c, err := udp.Dial(p.coap, options.WithErrors(func(error) {})) // that the platform was killed is no news
		return coapPoster{c, "/api/v1/" + token + "/telemetry"}, err
	},
}

// reading is the body of the reading at ts.
func reading(ts int64) []byte {
	return fmt.Appendf(nil, `{"ts":%d,"values":{"smoke":%g}}`, ts, float64(ts%10)/100)
}

// readSeries returns how often each time stamp from ≤ t < to is in a device's series.
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
