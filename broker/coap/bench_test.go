package coap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/citywarden/citywarden"
)

// benchEnv tells TestServeBench that it is the server of BenchmarkPost.
const benchEnv = "CITYWARDEN_TEST_SERVE"

// forgetful takes everything and keeps nothing.
type forgetful struct{ platform }

func (*forgetful) Accept(_ context.Context, _ citywarden.Uplink, done func(error)) { done(nil) }

// BenchmarkPost measures confirmable requests that are answered, of 64 peers and of one
// with as many under way, by the CPU time of the server, which is a process of its own:
// ours stores nothing here, libcoap's example server takes a PUT.
func BenchmarkPost(b *testing.B) {
	for _, load := range []struct{ peers, window int }{{64, 1}, {1, 64}} {
		name := fmt.Sprintf("peers=%d/window=%d", load.peers, load.window)
		b.Run("citywarden/"+name, func(b *testing.B) {
			c := exec.Command(os.Args[0], "-test.run=^TestServeBench$", "-test.v")
			c.Env = append(os.Environ(), benchEnv+"=1")
			measure(b, c, "", load.peers, load.window, post(1, goodPath, `{"level":2.6}`))
		})
		b.Run("libcoap/"+name, func(b *testing.B) {
			server, err := exec.LookPath("coap-server-notls")
			if err != nil {
				b.Skip("coap-server-notls is not installed (Debian: libcoap3-bin)")
			}
			free, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			addr := free.LocalAddr().String()
			_, port, _ := net.SplitHostPort(addr)
			if err := free.Close(); err != nil {
				b.Fatal(err)
			}
			put := post(1, "example_data", `{"level":2.6}`)
			put.Code = codes.PUT
			measure(b, exec.Command(server, "-A", "127.0.0.1", "-p", port), addr, load.peers, load.window, put)
		})
	}
}

// measure sends b.N requests to the server that c starts, which says where it is
// when addr is empty.
func measure(b *testing.B, c *exec.Cmd, addr string, peers, window int, m message.Message) {
	stay, err := c.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	for said := bufio.NewScanner(out); addr == "" && said.Scan(); {
		addr, _ = strings.CutPrefix(said.Text(), "serves ")
		if addr == said.Text() {
			addr = "" // what the test binary prints
		}
	}
	request, err := encode(m)
	if err != nil {
		b.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); postAll(addr, request, 1, 1) != nil; <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("%s does not answer at %s", c.Path, addr)
		}
	}
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range peers {
		n := b.N / peers
		if i < b.N%peers {
			n++
		}
		wg.Go(func() {
			if err := postAll(addr, request, n, window); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	_ = stay.Close()
	if c.Args[0] != os.Args[0] {
		_ = c.Process.Kill()
	}
	_ = c.Wait()
	cpu := c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	b.ReportMetric(float64(b.N)/cpu.Seconds(), "answered/CPU-s")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answered/s")
}

// postAll sends n requests with at most window of them under way, each again when it
// is not answered in time.
func postAll(addr string, request []byte, n, window int) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	request, buf := append([]byte(nil), request...), make([]byte, 2000)
	send := func(id int) error {
		request[2], request[3] = byte(id>>8), byte(id)
		_, err := c.Write(request)
		return err
	}
	open := map[uint16]bool{}
	for sent, tries := 0, 0; sent < n || len(open) > 0; {
		for ; sent < n && len(open) < window; sent++ {
			open[uint16(sent)] = true
			if err := send(sent); err != nil {
				return err
			}
		}
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		got, err := c.Read(buf)
		switch {
		case err == nil && got >= 4 && buf[1]>>5 == 2:
			delete(open, uint16(buf[2])<<8|uint16(buf[3]))
		case err == nil:
			return fmt.Errorf("answered %x", buf[:got])
		case !errors.Is(err, os.ErrDeadlineExceeded): // nobody is there
			return err
		default:
			if tries++; tries > 10 {
				return fmt.Errorf("%d requests are not answered", len(open))
			}
			for id := range open {
				if err := send(int(id)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// TestServeBench is the server of BenchmarkPost.
func TestServeBench(t *testing.T) {
	if os.Getenv(benchEnv) == "" {
		t.Skip("the server of BenchmarkPost")
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	p := &forgetful{}
	s, err := New(Options{Conn: conn, Accept: p, Check: p, Auth: p, Down: p, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	fmt.Printf("serves %s\n", conn.LocalAddr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
