package load

import (
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	client "github.com/eclipse/paho.mqtt.golang/packets"
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/citywarden/citywarden"
)

// platform is a broker that counts what it acknowledged, by device.
type platform struct {
	mochi.HookBase
	stall atomic.Int64 // until then (Unix ns) it acknowledges nothing

	mu   sync.Mutex
	have map[string]map[string]bool
}

func (p *platform) ID() string { return "platform" }

func (p *platform) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck || b == mochi.OnPublish
}

func (p *platform) OnConnectAuthenticate(c *mochi.Client, k packets.Packet) bool {
	return string(k.Connect.Username) == "token "+c.ID
}

func (p *platform) OnACLCheck(*mochi.Client, string, bool) bool { return true }

func (p *platform) OnPublish(c *mochi.Client, k packets.Packet) (packets.Packet, error) {
	time.Sleep(time.Until(time.Unix(0, p.stall.Load())))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.have[c.ID] == nil {
		p.have[c.ID] = map[string]bool{}
	}
	p.have[c.ID][string(k.Payload)] = true
	return k, nil
}

func start(t *testing.T) (*platform, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &platform{have: map[string]map[string]bool{}}
	s := mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := s.AddHook(p, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.AddListener(listeners.NewNet("t", ln)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve() }()
	t.Cleanup(func() { s.Close(); <-done })
	return p, ln.Addr().String()
}

func devices(n int) []Device {
	out := make([]Device, n)
	for i := range out {
		id := "d" + strconv.Itoa(i)
		out[i] = Device{ID: citywarden.DeviceID(id), Token: "token " + id}
	}
	return out
}

// TestLedger: what is in the ledger is what the platform has, also over storms.
func TestLedger(t *testing.T) {
	p, addr := start(t)
	r, err := Run(t.Context(), Options{
		Addr: addr, Devices: devices(50), Every: 100 * time.Millisecond, For: 3 * time.Second, Ramp: time.Second, Think: 0.5, QoS: 1, Storm: time.Second,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Acked == 0 || r.Acked != r.Planned || r.Acked != r.Sent || r.Connected != 50 || r.Refused != 0 {
		t.Errorf("%+v", r)
	}
	if r.Connects < 100 {
		t.Errorf("%d connections of 50 devices in two storms", r.Connects)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, n := range r.Ledger {
		if have := len(p.have[string(id)]); uint64(have) != n {
			t.Errorf("%s: %d acknowledged, the platform has %d", id, n, have)
		}
	}
}

// sink is a broker that acknowledges everything and keeps nothing.
func sink(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				for {
					p, err := client.ReadPacket(c)
					if err != nil {
						return
					}
					switch p := p.(type) {
					case *client.ConnectPacket:
						err = client.NewControlPacket(client.Connack).Write(c)
					case *client.PublishPacket:
						ack := client.NewControlPacket(client.Puback).(*client.PubackPacket)
						ack.MessageID = p.MessageID
						err = ack.Write(c)
					}
					if err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { ln.Close(); all.Wait() })
	return ln.Addr().String()
}

// inUse returns the bytes of heap and stacks that are in use.
func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// memory runs a load and returns what was in use each second with all connected,
// and how many messages were acknowledged by then.
func memory(t *testing.T, o Options) (bytes, acked []int64) {
	t.Helper()
	before := inUse()
	r, err := Run(t.Context(), o, func(p Progress) {
		if p.Connected == int64(len(o.Devices)) {
			bytes, acked = append(bytes, inUse()-before), append(acked, int64(p.Acked))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(bytes) < 2 || r.Acked != r.Planned {
		t.Fatalf("all were connected for %d seconds, %d of %d acknowledged", len(bytes), r.Acked, r.Planned)
	}
	return bytes, acked
}

// TestMemoryOfADevice compares loads of many and of few devices.
func TestMemoryOfADevice(t *testing.T) {
	const few, many = 50, 350
	addr := sink(t)
	of := func(n int) int64 {
		bytes, _ := memory(t, Options{Addr: addr, Devices: devices(n), Every: time.Second, For: 5 * time.Second, Ramp: 500 * time.Millisecond, QoS: 1})
		return slices.Max(bytes)
	}
	small, large := of(few), of(many)
	each := (large - small) / (many - few)
	t.Logf("%d bytes a device, both sides of its connection", each)
	if each > 24<<10 {
		t.Errorf("%d bytes a device, both sides of its connection", each)
	}
}

// TestMessagesLeaveNothing: what is in use does not grow with the messages, nor
// with storms; the ledger counts and keeps nothing else.
func TestMessagesLeaveNothing(t *testing.T) {
	bytes, acked := memory(t, Options{
		Addr: sink(t), Devices: devices(20), Every: 2 * time.Millisecond, For: 6 * time.Second, Ramp: 500 * time.Millisecond, QoS: 1, Storm: 2 * time.Second,
	})
	late := len(bytes) * 2 / 3 // the least of the end: a connection that is being made has buffers
	more, messages := slices.Min(bytes[late:])-bytes[0], acked[late]-acked[0]
	t.Logf("%+d bytes after %d messages", more, messages)
	// A ledger of the messages, a map, would have 40 bytes of each at the least; buffers come and go.
	if messages < 5000 || more > 20*messages+256<<10 {
		t.Errorf("%d bytes more are in use %d messages later", more, messages)
	}
}

// TestStallShows: a platform that stands still for a second is seen in the
// latencies of all messages that were due meanwhile, not of one per device only.
func TestStallShows(t *testing.T) {
	p, addr := start(t)
	time.AfterFunc(time.Second, func() { p.stall.Store(time.Now().Add(time.Second).UnixNano()) })
	r, err := Run(t.Context(), Options{Addr: addr, Devices: devices(4), Every: 10 * time.Millisecond, For: 3 * time.Second, QoS: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// A third of the time everything due has to wait, half a second on average; one
	// sample per device would be less than 1 %.
	if r.Latency.P90 < 200 || r.Latency.Max < 700 {
		t.Errorf("the latencies don't show the stall: %+v", r.Latency)
	}
	if r.Acked != r.Planned {
		t.Errorf("%d of %d acknowledged", r.Acked, r.Planned)
	}
}

func TestQoS0AndProgress(t *testing.T) {
	_, addr := start(t)
	ds := devices(2)
	r, err := Run(t.Context(), Options{Addr: addr, Devices: ds, Every: 50 * time.Millisecond, For: time.Second}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Acked != 0 || r.Sent != r.Planned || r.Sent < 20 {
		t.Errorf("QoS 0: %+v", r)
	}
	seen := false
	_, err = Run(t.Context(), Options{Addr: addr, Devices: ds[:1], Every: 50 * time.Millisecond, For: 1500 * time.Millisecond, QoS: 1}, func(p Progress) { seen = seen || p.Acked > 0 })
	if err != nil || !seen {
		t.Errorf("progress was seen: %t, %v", seen, err)
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	good := Options{Addr: "x", Devices: devices(1), Every: time.Second, For: time.Minute}
	for want, change := range map[string]func(*Options){
		"no devices": func(o *Options) { o.Devices = nil }, "at least 1ms": func(o *Options) { o.Every = 0 }, "must be longer": func(o *Options) { o.Ramp = time.Hour },
		"a share": func(o *Options) { o.Think = 2 }, "QoS 2": func(o *Options) { o.QoS = 2 }, "storm": func(o *Options) { o.Storm = 1 },
	} {
		o := good
		change(&o)
		if _, err := Run(t.Context(), o, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
