package mqtt

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// narrow is a listener whose connections hold few acknowledgements that are not read.
type narrow struct{ net.Listener }

func (l narrow) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		err = c.(*net.TCPConn).SetWriteBuffer(1)
	}
	return c, err
}

// TestOneThatDoesNotReadHoldsUpNobody: while a device takes no acknowledgements, others get theirs; and when it
// reads again they all come, each once and in the order of its messages, in part written by the crew and in part by another.
func TestOneThatDoesNotReadHoldsUpNobody(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	j := newJournal()
	_, _ = serve(t, narrow{ln}, j)
	deaf := dial(t, ln.Addr().String(), 4).login("deaf", "a")
	_ = deaf.conn.(*net.TCPConn).SetReadBuffer(1)
	sent := make(chan error, 1)
	const n = 20_000
	go func() {
		var err error
		for i := 1; i <= n && err == nil; i++ {
			_, err = deaf.conn.Write(numbered(uint16(i)))
		}
		sent <- err
	}()
	full := time.Now()
	for last := -1; ; { // until the broker takes no more of it
		j.mu.Lock()
		now := len(j.taken)
		j.mu.Unlock()
		if now == last && now > 0 {
			t.Logf("%d messages were taken before it was full", now)
			break
		}
		if last = now; time.Since(full) > 3*time.Second || now == n {
			t.Fatalf("%d of %d messages were taken: it is never full, the test proves nothing", now, n)
		}
		time.Sleep(100 * time.Millisecond)
	}
	other := dial(t, ln.Addr().String(), 4).login("other", "b")
	begin := time.Now()
	for range 100 {
		other.publish(telemetryTopic, "1", 1, 1)
	}
	for range 100 {
		other.read(packets.Puback)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the other one waited for %s", took)
	}
	_ = deaf.conn.(*net.TCPConn).SetReadBuffer(1 << 20)
	ack := make([]byte, 4)
	for i := 1; i <= n; i++ {
		_ = deaf.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(deaf.r, ack); err != nil {
			t.Fatalf("acknowledgement %d: %v", i, err)
		}
		if id := binary.BigEndian.Uint16(ack[2:]); ack[0] != packets.Puback<<4 || ack[1] != 2 || id != uint16(i) {
			t.Fatalf("%x came as acknowledgement %d", ack, i)
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// numbered is a message with an id, of MQTT 3.1.1.
func numbered(id uint16) []byte {
	b := append([]byte{packets.Publish<<4 | 1<<1, byte(2 + len(telemetryTopic) + 2 + 1), 0, byte(len(telemetryTopic))}, telemetryTopic...)
	return append(b, byte(id>>8), byte(id), '1')
}

// TestNothingComesIntoAnAcknowledgement: when there is room for a part of one, the rest follows before anything else is
// said to the device.
func TestNothingComesIntoAnAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		b, err := New(Options{Listeners: []Listener{{Listener: ln}}, Accept: newJournal(), Check: reader{}, Auth: registry{}, Down: &shelf{}})
		if err != nil {
			t.Fatal(err)
		}
		device, ours := net.Pipe()
		c := newConn(newListener(t.Context(), b, Listener{Listener: ln}, nil), ours)
		const room = 6
		c.atOnce = func(p []byte) int {
			n, _ := ours.Write(p[:room])
			return n
		}
		got := make(chan []byte)
		go func() {
			all, _ := io.ReadAll(device)
			got <- all
		}()
		w := answers{batch: []pending{{id: 1, qos: 1, settled: true}, {id: 2, qos: 1, settled: true}}}
		n, rest := c.answerAtOnce(&w)
		if n != 2 || len(rest) != 8-room {
			t.Fatalf("%d answered, % x left", n, rest)
		}
		go func() { _, _ = c.Write([]byte{packets.Pingresp << 4, 0}) }()
		synctest.Wait()
		c.answerSlowly(&answers{batch: w.batch}, n, rest)
		synctest.Wait()
		_ = ours.Close()
		if all := <-got; string(all) != "\x40\x02\x00\x01\x40\x02\x00\x02\xd0\x00" {
			t.Errorf("the device reads % x", all)
		}
	})
}

// TestTheCrewKeepsNoMoreThanWaits: also while there is always one that waits.
func TestTheCrewKeepsNoMoreThanWaits(t *testing.T) {
	k := crew{wake: make(chan struct{}, 1)}
	for range 10_000 {
		for range crewShare {
			k.add(new(conn))
		}
		if len(k.ready)-k.next > crewShare {
			k.take(nil)
		}
	}
	if len(k.ready)-k.next > crewShare || cap(k.ready) > 8*crewShare {
		t.Errorf("%d wait, in room for %d", len(k.ready)-k.next, cap(k.ready))
	}
}
