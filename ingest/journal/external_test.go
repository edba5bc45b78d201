package journal

import (
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/citywarden/citywarden"
)

// external starts a NATS server that listens, as an operator would.
func external(t *testing.T, dir string, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true, MaxPayload: maxPayload})
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

func TestAnExternalServerMayGoAwayAndComeBack(t *testing.T) {
	dir := t.TempDir()
	s := external(t, dir, server.RANDOM_PORT)
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
	external(t, dir, port)
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
