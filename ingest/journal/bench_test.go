package journal

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/citywarden/citywarden"
)

const benchPayload = 256

// BenchmarkAppend has each producer wait until its record is synced before it
// sends the next. Compare it with the baselines of the same run: the disk alone, and the same
// stream with one message for each record.
func BenchmarkAppend(b *testing.B) {
	for _, producers := range []int{1, 64, 512} {
		b.Run(fmt.Sprint(producers), func(b *testing.B) {
			j := open(b, Options{Dir: b.TempDir()})
			run(b, j)
			produce(b, producers, func() error {
				r := uplink(0)
				r.Uplink.Payload = make([]byte, benchPayload)
				_, err := put(j, r)
				return err
			})
			b.ReportMetric(float64(b.N)/float64(j.Last().Group()), "records/group")
		})
	}
}

// BenchmarkBaselineMessages publishes each record as a message of its own.
func BenchmarkBaselineMessages(b *testing.B) {
	for _, producers := range []int{1, 64} {
		b.Run(fmt.Sprint(producers), func(b *testing.B) {
			j := open(b, Options{Dir: b.TempDir()})
			data := make([]byte, benchPayload)
			js, err := jetstream.New(j.conn)
			if err != nil {
				b.Fatal(err)
			}
			produce(b, producers, func() error {
				_, err := js.Publish(b.Context(), subject, data)
				return err
			})
		})
	}
}

// BenchmarkBaselineSync writes and syncs a file for each record: what one
// producer can reach at best.
func BenchmarkBaselineSync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "x"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, benchPayload)
	produce(b, 1, func() error {
		if _, err := f.Write(data); err != nil {
			return err
		}
		return f.Sync()
	})
}

// BenchmarkReadBack reads groups that are not in memory, in batches as Read does, and the baseline one with each request. Groups of 2 records are those
// of a few devices, of 1,024 those of a flood. The external server is a process of its own, at hand and 1 ms away.
func BenchmarkReadBack(b *testing.B) {
	for _, records := range []int{2, 32, 1024} {
		group, groups := groupOf(b, records), min(5_000, 500_000/records)
		for _, where := range []struct {
			name string
			away time.Duration
		}{{"embedded", 0}, {"external", 0}, {"away", time.Millisecond}} {
			opts, pid := Options{Dir: b.TempDir()}, 0
			if where.name != "embedded" {
				opts = Options{}
				opts.URL, pid = process(b)
			}
			publishAll(b, open(b, opts), group, groups)
			if where.away > 0 {
				opts.URL = "nats://" + delay(b, opts.URL, where.away)
			}
			j := open(b, opts) // which has nothing in memory
			for _, way := range []struct {
				name string
				read func(context.Context, citywarden.Position) ([]citywarden.Record, error)
			}{{"one", func(ctx context.Context, after citywarden.Position) ([]citywarden.Record, error) {
				_, recs, err := j.get(ctx, after.Group()+1)
				return recs, err
			}}, {"batch", j.Read}} {
				b.Run(fmt.Sprintf("records=%d/%s/%s", records, where.name, way.name), func(b *testing.B) {
					ours, server := cpu(b, os.Getpid()), cpu(b, pid)
					after := citywarden.Position(0)
					for b.Loop() {
						if after >= j.Last() {
							after = 0
						}
						recs, err := way.read(b.Context(), after)
						if err != nil {
							b.Fatal(err)
						}
						if len(recs) != records {
							b.Fatalf("%d records, want %d", len(recs), records)
						}
						after = citywarden.PositionAt(recs[0].Position.Group(), citywarden.MaxGroup-1)
					}
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "groups/s")
					b.ReportMetric(float64((cpu(b, os.Getpid())-ours).Microseconds())/float64(b.N), "cpu-us/group")
					b.ReportMetric(float64((cpu(b, pid)-server).Microseconds())/float64(b.N), "server-us/group")
				})
			}
			j.Close()
		}
	}
}

// groupOf returns a group of so many records as the log holds it.
func groupOf(b *testing.B, records int) []byte {
	b.Helper()
	recs := make([]citywarden.Record, records)
	for i := range recs {
		recs[i] = uplink(i)
		recs[i].At = time.Now()
		recs[i].Uplink.Payload = make([]byte, benchPayload)
	}
	group, err := appendGroup(nil, 0, recs)
	if err != nil {
		b.Fatal(err)
	}
	return group
}

// publishAll writes the same group n times, without waiting for each, and closes j.
func publishAll(b *testing.B, j *Journal, group []byte, n int) {
	b.Helper()
	defer j.Close()
	js, err := jetstream.New(j.conn, jetstream.WithPublishAsyncMaxPending(64))
	if err != nil {
		b.Fatal(err)
	}
	for range n {
		if _, err := js.PublishAsync(subject, group, jetstream.WithStallWait(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(time.Minute):
		b.Fatal("the log is not filled")
	}
	info, err := j.stream.Info(b.Context())
	if err != nil || info.State.LastSeq != uint64(n) {
		b.Fatalf("the log is not filled: %+v, %v", info, err)
	}
}

// process starts a NATS server in a process of its own.
func process(b *testing.B) (url string, pid int) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childServer+"="+b.TempDir())
	in, err := cmd.StdinPipe() // ends with us
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line), cmd.Process.Pid
}

// serve is the process of a NATS server, until its input ends.
func serve(dir string) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true, MaxPayload: maxPayload})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	s.Start()
	if s.ReadyForConnections(10 * time.Second) {
		fmt.Println(s.ClientURL())
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	s.Shutdown()
	s.WaitForShutdown()
}

// delay is the network to a server: each direction takes so long, whatever is on its way.
func delay(b *testing.B, url string, by time.Duration) (addr string) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	type part struct {
		data []byte
		due  time.Time
	}
	send := func(from, to net.Conn) {
		parts := make(chan part, 4096)
		go func() {
			defer to.Close()
			for p := range parts {
				time.Sleep(time.Until(p.due))
				if _, err := to.Write(p.data); err != nil {
					break
				}
			}
			for range parts {
			}
		}()
		defer close(parts)
		for {
			buf := make([]byte, 64<<10)
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			parts <- part{buf[:n], time.Now().Add(by / 2)}
		}
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://"))
			if err != nil {
				client.Close()
				continue
			}
			go send(client, server)
			go send(server, client)
		}
	}()
	return l.Addr().String()
}

// cpu is what a process has used, 0 for process 0.
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	if pid == 0 {
		return 0
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Skip("needs Linux: ", err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// produce calls f b.N times from so many goroutines.
func produce(b *testing.B, producers int, f func() error) {
	b.Helper()
	work := make(chan struct{}, b.N)
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	b.ResetTimer()
	var done sync.WaitGroup
	for range producers {
		done.Go(func() {
			for range work {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	done.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
