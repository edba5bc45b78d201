package mqtt

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
)

// commits is an acceptor in memory that settles in groups from a goroutine of
// its own, as the log does.
type commits struct{ queue chan func(error) }

func (c *commits) Accept(ctx context.Context, _ citywarden.Uplink, done func(error)) {
	select {
	case c.queue <- done:
	case <-ctx.Done():
		done(ctx.Err())
	}
}

func (c *commits) run(ctx context.Context) {
	for {
		select {
		case done := <-c.queue:
			done(nil)
			for range len(c.queue) {
				(<-c.queue)(nil)
			}
		case <-ctx.Done():
			return
		}
	}
}

// allow is a hook of mochi that allows everything.
type allow struct{ mochi.HookBase }

func (*allow) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck
}
func (*allow) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }
func (*allow) OnACLCheck(*mochi.Client, string, bool) bool              { return true }

// BenchmarkAcked measures acknowledged QoS 1 messages, publishers included:
// ours against mochi with its own acknowledgement and nothing behind it.
func BenchmarkAcked(b *testing.B) {
	for _, load := range []struct{ conns, window int }{{100, 16}, {1, 64}} {
		name := fmt.Sprintf("conns=%d/window=%d", load.conns, load.window)
		b.Run("citywarden/"+name, func(b *testing.B) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			c := &commits{make(chan func(error), 8192)}
			go c.run(ctx)
			addr, _, _ := serveTCP(b, c)
			publishAll(b, addr, load.conns, load.window)
		})
		b.Run("mochi/"+name, func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			s := mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
			if err := s.AddHook(new(allow), nil); err != nil {
				b.Fatal(err)
			}
			if err := s.AddListener(listeners.NewNet("t", ln)); err != nil {
				b.Fatal(err)
			}
			if err := s.Serve(); err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			publishAll(b, ln.Addr().String(), load.conns, load.window)
		})
	}
}

// publishAll publishes b.N messages of 256 bytes over conns connections with at
// most window messages in flight on each, and waits for every PUBACK.
func publishAll(b *testing.B, addr string, conns, window int) {
	payload := bytes.Repeat([]byte("x"), 256)
	peers := make([]*peer, conns)
	for i := range peers {
		peers[i] = dial(b, addr, 4).login(fmt.Sprint(i), fmt.Sprintf("device-%d", i))
	}
	b.ResetTimer()
	var wg sync.WaitGroup
	for i, p := range peers {
		n := b.N / conns
		if i < b.N%conns {
			n++
		}
		wg.Go(func() {
			if err := publishWindow(p.conn, payload, n, window); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "acked/s")
}

func publishWindow(c net.Conn, payload []byte, n, window int) error {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, ProtocolVersion: 4,
		TopicName: telemetryTopic, Payload: payload, PacketID: 1}
	var b bytes.Buffer
	if err := pk.PublishEncode(&b); err != nil {
		return err
	}
	msg := b.Bytes()
	r := bufio.NewReader(c)
	var out []byte
	acks := make([]byte, 4*window)
	for sent, acked := 0, 0; acked < n; {
		out = out[:0]
		for ; sent < n && sent-acked < window; sent++ {
			at := len(out)
			out = append(out, msg...)
			out[at+4+len(telemetryTopic)+1], out[at+4+len(telemetryTopic)+2] = byte((sent%window+1)>>8), byte(sent%window+1)
		}
		if _, err := c.Write(out); err != nil {
			return err
		}
		if _, err := io.ReadFull(r, acks[:4]); err != nil {
			return err
		}
		acked++
		if more := r.Buffered() / 4 * 4; more > 0 {
			if _, err := io.ReadFull(r, acks[:more]); err != nil {
				return err
			}
			acked += more / 4
		}
	}
	return nil
}
