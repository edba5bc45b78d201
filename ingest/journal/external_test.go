package journal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/citywarden/citywarden"
)

// external starts a NATS server that listens, as an operator would.
func external(t *testing.T, dir string, port, payload int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true, MaxPayload: int32(payload)})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

// cluster starts three servers that know each other.
func cluster(t *testing.T) []*server.Server {
	t.Helper()
	var all []*server.Server
	var ports []net.Listener
	var routes []*url.URL
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, l)
		routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
	}
	for _, l := range ports {
		l.Close()
	}
	for i := range routes {
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true,
			JetStream: true, StoreDir: t.TempDir(), SyncAlways: true,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[i].Addr().(*net.TCPAddr).Port}, Routes: routes,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		all = append(all, s)
	}
	for _, s := range all {
		if !s.ReadyForConnections(20 * time.Second) {
			t.Fatal("a server does not start")
		}
	}
	eventually(t, func() error {
		for _, s := range all {
			if len(s.JetStreamClusterPeers()) == len(all) { // the leader knows
				return nil
			}
		}
		return errors.New("the servers have not found each other")
	})
	return all
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestAClusterKeepsTheLogOnThree: what was acknowledged is there when any one of the servers
// has gone, and the log goes on.
func TestAClusterKeepsTheLogOnThree(t *testing.T) {
	servers := cluster(t)
	j := open(t, Options{URL: servers[0].ClientURL()})
	stop := run(t, j)
	info, err := j.stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Config.Replicas != 3 {
		t.Errorf("%d replicas, want 3", info.Config.Replicas)
	}
	if j.groupBytes >= 1<<20 {
		t.Errorf("commit groups of %d bytes, but the servers take 1 MiB", j.groupBytes)
	}
	for i := range 20 {
		if _, err := put(j, uplink(i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range servers { // the one that leads, and to which nobody is connected then
		if s.Name() == info.Cluster.Leader {
			s.Shutdown()
			s.WaitForShutdown()
		}
	}
	if _, err := put(j, uplink(20)); err != nil { // it waits for the new leader
		t.Error(err)
	}
	stop()
	j.Close()
	for _, s := range servers {
		if s.Name() == info.Cluster.Leader {
			continue
		}
		j = open(t, Options{URL: s.ClientURL()})
		got := payloads(all(t, j, 0))
		if diff := cmp.Diff(numbers(0, 21), got); diff != "" {
			t.Errorf("records at %s:\n%s", s.Name(), diff)
		}
		if info, err := j.stream.Info(t.Context()); err != nil || info.Config.Replicas != 3 {
			t.Errorf("replicas after opening again: %+v, %v", info, err)
		}
		eventually(t, func() error { // a server that follows answers when it has caught up
			if groups, err := j.fetch(t.Context(), 1, j.Last().Group()); err != nil || len(groups) != 21 {
				return fmt.Errorf("of 21 groups %d came at once: %w", len(groups), err)
			}
			return nil
		})
		// What the server that is asked has not got yet is not waited for.
		if groups, err := j.fetch(t.Context(), j.Last().Group()+1, j.Last().Group()+9); err != nil || len(groups) > 0 {
			t.Errorf("%d groups after the last, %v", len(groups), err)
		}
		j.Close()
	}
}

// TestAWriteWaitsForALeader: while a cluster elects, nobody takes a group; that refuses no device.
func TestAWriteWaitsForALeader(t *testing.T) {
	s := external(t, t.TempDir(), server.RANDOM_PORT, maxPayload)
	j := open(t, Options{URL: s.ClientURL()})
	run(t, j)
	config := j.stream.CachedInfo().Config
	if err := j.js.DeleteStream(t.Context(), streamName); err != nil { // now nobody listens to its subject
		t.Fatal(err)
	}
	time.AfterFunc(500*time.Millisecond, func() {
		if _, err := j.js.CreateStream(context.Background(), config); err != nil {
			t.Error(err)
		}
	})
	if _, err := put(j, uplink(0)); err != nil {
		t.Fatal(err)
	}
	if got := payloads(all(t, j, 0)); !slices.Equal(got, []string{"0"}) {
		t.Errorf("records %q, want one", got)
	}
}

// TestAStopDoesNotWaitForALeader: what nobody takes is refused when the platform stops, so that devices send it again.
func TestAStopDoesNotWaitForALeader(t *testing.T) {
	s := external(t, t.TempDir(), server.RANDOM_PORT, maxPayload)
	j := open(t, Options{URL: s.ClientURL()})
	stop := run(t, j)
	if err := j.js.DeleteStream(t.Context(), streamName); err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 2)
	j.Append(uplink(0), func(_ citywarden.Position, err error) { refused <- err })
	eventually(t, func() error {
		if what, _ := j.Doing(); what != writing {
			return errors.New("the first is not being written")
		}
		return nil
	})
	j.Append(uplink(1), func(_ citywarden.Position, err error) { refused <- err })
	begin := time.Now()
	stop()
	if d := time.Since(begin); d > drainTimeout+2*time.Second {
		t.Errorf("it took %s to stop", d)
	}
	for range 2 {
		if err := <-refused; citywarden.CodeOf(err) != citywarden.CodeTransient || !strings.Contains(err.Error(), "the platform is stopping; send again") {
			t.Errorf("refused with %v", err)
		}
	}
}

// swallow stands between the log and its server, and takes an answer away.
type swallow struct {
	server string
	what   string // is in the answer
	breaks bool   // the connection, too
	mu     sync.Mutex
	conns  []net.Conn
	ready  bool // for the next one
}

func (s *swallow) listen(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var copies sync.WaitGroup
	t.Cleanup(func() { l.Close(); s.cut(); copies.Wait() })
	copies.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", s.server)
			if err != nil {
				client.Close()
				continue
			}
			s.mu.Lock()
			s.conns = append(s.conns, client, server)
			s.mu.Unlock()
			copies.Go(func() { _, _ = io.Copy(server, client); server.Close() })
			copies.Go(func() {
				defer client.Close()
				in := bufio.NewReader(server)
				for {
					b, err := message(in)
					if err != nil {
						return
					}
					s.mu.Lock()
					it := s.ready && bytes.Contains(b, []byte(s.what))
					s.ready = s.ready && !it
					s.mu.Unlock()
					switch {
					case it && s.breaks:
						return
					case it:
						continue
					}
					if _, err = client.Write(b); err != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}

// message reads what a server of NATS says next.
func message(in *bufio.Reader) ([]byte, error) {
	b, err := in.ReadBytes('\n')
	f := strings.Fields(string(b))
	if err != nil || len(f) == 0 || f[0] != "MSG" && f[0] != "HMSG" {
		return b, err
	}
	size, err := strconv.Atoi(f[len(f)-1])
	if err != nil {
		return nil, err
	}
	body := make([]byte, size+len("\r\n"))
	_, err = io.ReadFull(in, body)
	return append(b, body...), err
}

func (s *swallow) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

// TestAWriteOfWhichNobodyHeard is in the log once, and refuses no device, when the server that took it could not say so: it died, or the
// connection to it did.
func TestAWriteOfWhichNobodyHeard(t *testing.T) {
	for _, breaks := range []bool{true, false} {
		t.Run(fmt.Sprintf("breaks=%t", breaks), func(t *testing.T) {
			t.Parallel()
			nats := external(t, t.TempDir(), server.RANDOM_PORT, maxPayload)
			s := &swallow{server: nats.Addr().String(), what: `"seq":`, breaks: breaks}
			j := open(t, Options{URL: "nats://" + s.listen(t)})
			run(t, j)
			if _, err := put(j, uplink(0)); err != nil {
				t.Fatal(err)
			}
			s.mu.Lock()
			s.ready = true
			s.mu.Unlock()
			for i := 1; i < 3; i++ {
				if p, err := put(j, uplink(i)); err != nil || p != citywarden.PositionAt(uint64(i+1), 0) {
					t.Errorf("record %d is at %d, %v", i, p, err)
				}
			}
			s.mu.Lock()
			kept := s.ready
			s.mu.Unlock()
			if kept {
				t.Error("no acknowledgement was taken away")
			}
			if got := payloads(all(t, j, 0)); !slices.Equal(got, []string{"0", "1", "2"}) {
				t.Errorf("records %q, want each once", got)
			}
		})
	}
}

func TestAnExternalServerMayGoAwayAndComeBack(t *testing.T) {
	dir := t.TempDir()
	s := external(t, dir, server.RANDOM_PORT, maxPayload)
	port := s.Addr().(*net.TCPAddr).Port
	j := open(t, Options{URL: s.ClientURL()})
	run(t, j)
	for i := range 10 {
		if _, err := put(j, uplink(i)); err != nil {
			t.Fatal(err)
		}
	}
	s.Shutdown()
	s.WaitForShutdown()
	begin := time.Now()
	if _, err := put(j, uplink(10)); citywarden.CodeOf(err) != citywarden.CodeTransient {
		t.Errorf("append without a server = %v, want a transient error", err)
	}
	if d := time.Since(begin); d > commitTimeout/2 {
		t.Errorf("it took %s to say so", d)
	}
	external(t, dir, port, maxPayload)
	for end := time.Now().Add(20 * time.Second); ; {
		_, err := put(j, uplink(11))
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("append after the server came back = %v", err)
		}
	}
	want := append(numbers(0, 10), "11")
	if diff := cmp.Diff(want, payloads(all(t, j, 0))); diff != "" {
		t.Errorf("records:\n%s", diff)
	}
}

func TestWhatAnExternalServerDoesNotTake(t *testing.T) {
	small := external(t, t.TempDir(), server.RANDOM_PORT, 256<<10)
	if _, err := Open(t.Context(), Options{URL: small.ClientURL()}); citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), "max_payload") {
		t.Errorf("Open = %v, want to be told of max_payload", err)
	}
	usual := external(t, t.TempDir(), server.RANDOM_PORT, server.MAX_PAYLOAD_SIZE)
	j := open(t, Options{URL: usual.ClientURL()})
	run(t, j)
	r := uplink(0)
	r.Uplink.Payload = make([]byte, MaxPayload)
	if _, err := put(j, r); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("append of a message that the server does not take = %v, want an invalid one", err)
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() { // more than one message of NATS can hold
			r := uplink(i)
			r.Uplink.Payload = make([]byte, 256<<10)
			if _, err := put(j, r); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// TestServersWithoutRoom: what NATS says of a log that is larger than it may store does not tell which setting is meant.
func TestServersWithoutRoom(t *testing.T) {
	one, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, JetStreamMaxStore: 10 << 20})
	if err != nil {
		t.Fatal(err)
	}
	one.Start()
	t.Cleanup(func() { one.Shutdown(); one.WaitForShutdown() })
	for name, url := range map[string]string{"one server": one.ClientURL(), "a cluster": cluster(t)[0].ClientURL()} {
		_, err := Open(t.Context(), Options{URL: url, MaxBytes: 1 << 50})
		if err == nil || !strings.Contains(err.Error(), "lower log.max_bytes, or raise max_file_store") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
