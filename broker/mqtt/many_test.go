package mqtt

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// many is as many devices as connect at once, each half in a process of its own:
// one may have 20,000 files here.
const many = 10_000

// maxIdle is what an idle connection may take, bytes of heap and stacks.
const maxIdle = 28 << 10

// dialEnv tells TestDialMany in the child where the broker is.
const dialEnv = "CITYWARDEN_TEST_DIAL"

// TestTenThousandConnections: that many devices connect at once, say something and stay, with little
// memory each, and one more is served as ever.
func TestTenThousandConnections(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("it needs as many files as there are connections, and memory as without the race detector")
	}
	j := newJournal()
	addr, book, _ := serveTCP(t, j)
	before := used()
	c := exec.Command(os.Args[0], "-test.run=^TestDialMany$", "-test.v")
	c.Env = append(os.Environ(), dialEnv+"="+addr)
	stay, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Wait() }()
	defer stay.Close()
	said := bufio.NewScanner(out)
	for said.Scan() && !strings.HasPrefix(said.Text(), "connected") {
		if strings.Contains(said.Text(), "FAIL") {
			t.Fatal(said.Text())
		}
	}
	if said.Text() != fmt.Sprintf("connected %d", many) {
		t.Fatalf("the devices say %q, %v\n%.2000s", said.Text(), said.Err(), book)
	}
	j.wait(t, many)
	j.mu.Lock()
	j.taken = nil
	j.mu.Unlock()
	each := (used() - before) / many
	t.Logf("%d bytes for each of %d idle connections", each, many)
	if each > maxIdle {
		t.Errorf("%d bytes for each idle connection, want at most %d", each, maxIdle)
	}
	p := dial(t, addr, 5).login("x", "one-more")
	p.publish(telemetryTopic, "{}", 1, 1)
	p.read(packets.Puback)
	j.wait(t, 1)
}

// used returns the bytes of heap and stacks that are in use.
func used() int64 {
	runtime.GC()
	runtime.GC() // what finalizers have let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// TestDialMany is the child of TestTenThousandConnections.
func TestDialMany(t *testing.T) {
	addr := os.Getenv(dialEnv)
	if addr == "" {
		t.Skip("the devices of TestTenThousandConnections")
	}
	conns := make([]net.Conn, many)
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
		user := fmt.Sprintf("token-of-d-%05d", i)
		packet := append([]byte{packets.Connect << 4, byte(12 + 2 + len(user)), 0, 4, 'M', 'Q', 'T', 'T', 4, 0x82, 0, 0, 0, 0, 0, byte(len(user))}, user...)
		if _, err := c.Write(packet); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range conns {
		ack := make([]byte, 4)
		if _, err := io.ReadFull(c, ack); err != nil || ack[3] != 0 {
			t.Fatalf("device %d is answered %x, %v", i, ack, err)
		}
	}
	message := append([]byte{packets.Publish<<4 | 1<<1, byte(2 + len(telemetryTopic) + 2 + 2), 0, byte(len(telemetryTopic))}, telemetryTopic+"\x00\x01{}"...)
	for i, c := range conns {
		if _, err := c.Write(message); err != nil {
			t.Fatalf("device %d: %v", i, err)
		}
	}
	for i, c := range conns {
		ack := make([]byte, 4)
		if _, err := io.ReadFull(c, ack); err != nil || ack[0] != packets.Puback<<4 {
			t.Fatalf("message of device %d is answered %x, %v", i, ack, err)
		}
	}
	fmt.Printf("connected %d\n", many)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent has seen enough
}
