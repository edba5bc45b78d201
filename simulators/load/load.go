// Package load puts a platform under load with many MQTT devices from one
// process, and keeps a ledger of what was acknowledged.
//
//	report, err := load.Run(ctx, load.Options{Addr: "127.0.0.1:1883", Devices: devices, Every: time.Minute, For: 10 * time.Minute})
//
// Each device has a plan: when it means to send. A latency is counted from that
// moment to the acknowledgement, also when the device could not send in time
// because the one before was not acknowledged yet; so a platform that stalls
// shows all who had to wait, not only those that it had already taken
// (coordinated omission).
package load

import (
	"context"
	"errors"
	"fmt"

	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/citywarden/citywarden"
)

// Device is one device that takes part.
type Device struct {
	ID    citywarden.DeviceID
	Token string
}

// Options say what the load is like.
type Options struct {
	Addr    string        // host:port of the platform's MQTT
	Devices []Device      // each has a connection of its own
	Every   time.Duration // between two messages of a device
	For     time.Duration // from the first connection to the last message
	Ramp    time.Duration // in which the devices connect, one after the other
	Think   float64       // each pause is longer or shorter by up to that share, 0 to 1
	QoS     byte          // 0 or 1
	Storm   time.Duration // so often all connections are cut and come back at once; 0 for never
	Seed    uint64
	// From are addresses of this machine to connect from. One address has some
	// 28,000 ports; none: 127.0.0.1 and those after it for a platform on loopback,
	// else what the system takes.
	From []string
}

// Deadlines.
const (
	connectWithin = 30 * time.Second
	ackWithin     = 30 * time.Second
	grace         = 30 * time.Second // after the end, for what is on its way
	pauseMost     = 5 * time.Second  // between two attempts to connect
)

// perAddress is how many connections one source address gets.
const perAddress = 20_000

// Check returns a CodeInvalid error when the options make no sense.
func (o *Options) Check() error {
	fail := func(format string, args ...any) error {
		return citywarden.Errorf(citywarden.CodeInvalid, format, args...)
	}
	switch {
	case len(o.Devices) == 0:
		return fail("no devices")
	case o.Every < time.Millisecond:
		return fail("a message every %s: at least 1ms", o.Every)
	case o.For <= 0 || o.Ramp < 0 || o.Ramp >= o.For:
		return fail("connecting for %s in a run of %s: the run must be longer", o.Ramp, o.For)
	case !(o.Think >= 0 && o.Think <= 1):
		return fail("think %g: a share, 0 to 1", o.Think)
	case o.QoS > 1:
		return fail("QoS %d: 0 or 1", o.QoS)
	case o.Storm < 0 || o.Storm > 0 && o.Storm < time.Second:
		return fail("a storm every %s: at least 1s, or 0 for none", o.Storm)
	}
	return nil
}

// Progress is how far a run has come.
type Progress struct {
	Elapsed   time.Duration
	Connected int64
	Sent      uint64
	Acked     uint64
	Errors    uint64 // connections that failed or were lost
	P50, P99  time.Duration
}

// Report is what a run came to.
type Report struct {
	Devices   int     `json:"devices"`
	QoS       byte    `json:"qos"`
	EveryS    float64 `json:"every_s"`
	ForS      float64 `json:"for_s"`
	Connected int64   `json:"connected_most"` // at one moment
	Connects  uint64  `json:"connects"`
	Errors    uint64  `json:"errors"`
	Refused   uint64  `json:"refused"` // connections that the platform did not accept
	Planned   uint64  `json:"planned"` // messages that were due
	Sent      uint64  `json:"sent"`    // of them sent, without what was sent again
	Again     uint64  `json:"sent_again"`
	Acked     uint64  `json:"acked"` // of them acknowledged; of QoS 0 none
	PerSecond float64 `json:"acked_per_s"`
	// From when a message was due to its acknowledgement (QoS 0: to when it was
	// written), in ms.
	Latency Latency `json:"latency_ms"`
	Connect Latency `json:"connect_ms"` // from dialling to CONNACK

	// Ledger has the acknowledged messages of every device.
	Ledger map[citywarden.DeviceID]uint64 `json:"-"`
}

// Latency is a distribution in milliseconds.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// histogram is a distribution of durations that many goroutines fill. 1 µs to 10
// minutes, three digits.
type histogram struct {
	shards [16]struct {
		mu sync.Mutex
		h  *hdrhistogram.Histogram
	}
}

func newHistogram() *histogram {
	h := new(histogram)
	for i := range h.shards {
		h.shards[i].h = hdrhistogram.New(1, int64(10*time.Minute/time.Microsecond), 3)
	}
	return h
}

func (h *histogram) add(i int, d time.Duration) {
	s := &h.shards[i%len(h.shards)]
	us := min(max(1, d.Microseconds()), int64(10*time.Minute/time.Microsecond))
	s.mu.Lock()
	_ = s.h.RecordValue(us) // it is in the range
	s.mu.Unlock()
}

func (h *histogram) sum() *hdrhistogram.Histogram {
	out := hdrhistogram.New(1, int64(10*time.Minute/time.Microsecond), 3)
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		out.Merge(s.h)
		s.mu.Unlock()
	}
	return out
}

func (h *histogram) latency() Latency {
	s := h.sum()
	ms := func(us int64) float64 { return float64(us) / 1000 }
	return Latency{s.Mean() / 1000, ms(s.ValueAtQuantile(50)), ms(s.ValueAtQuantile(90)), ms(s.ValueAtQuantile(99)), ms(s.ValueAtQuantile(99.9)), ms(s.Max())}
}

// run is a load at work.
type run struct {
	o       Options
	start   time.Time
	end     time.Time
	from    []string
	latency *histogram
	connect *histogram

	connected, most                                          atomic.Int64
	connects, errors, refused, planned, sent, again, ackedAt atomic.Uint64
	acked                                                    []uint64 // by device
}

// Run connects the devices and sends until the end, or until ctx is done. It
// calls progress once a second; nil for nobody.
func Run(ctx context.Context, o Options, progress func(Progress)) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	now := time.Now()
	r := &run{o: o, start: now, end: now.Add(o.For), latency: newHistogram(), connect: newHistogram(), acked: make([]uint64, len(o.Devices))}
	r.from = o.From
	if host, _, err := net.SplitHostPort(o.Addr); err == nil && len(r.from) == 0 {
		if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() && ip.To4() != nil {
			for i := range (len(o.Devices)-1)/perAddress + 1 {
				r.from = append(r.from, "127.0.0."+strconv.Itoa(1+i))
			}
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var all sync.WaitGroup
		for i := range o.Devices {
			all.Go(func() { r.device(ctx, i) })
		}
		all.Wait()
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-tick.C:
			if progress != nil {
				h := r.latency.sum()
				progress(Progress{
					Elapsed: time.Since(r.start), Connected: r.connected.Load(), Sent: r.sent.Load(), Acked: r.ackedAt.Load(), Errors: r.errors.Load(),
					P50: time.Duration(h.ValueAtQuantile(50)) * time.Microsecond, P99: time.Duration(h.ValueAtQuantile(99)) * time.Microsecond,
				})
			}
		}
	}
	out := &Report{
		Devices: len(o.Devices), QoS: o.QoS, EveryS: o.Every.Seconds(), ForS: o.For.Seconds(), Connected: r.most.Load(), Connects: r.connects.Load(),
		Errors: r.errors.Load(), Refused: r.refused.Load(), Planned: r.planned.Load(), Sent: r.sent.Load(), Again: r.again.Load(), Acked: r.ackedAt.Load(),
		Latency: r.latency.latency(), Connect: r.connect.latency(), Ledger: map[citywarden.DeviceID]uint64{},
	}
	out.PerSecond = float64(out.Acked) / o.For.Seconds()
	for i, n := range r.acked {
		out.Ledger[o.Devices[i].ID] = n
	}
	return out, nil
}

var errRefused = errors.New("refused")

// device is one device from its connection to the end.
func (r *run) device(ctx context.Context, i int) {
	rnd := rand.New(rand.NewPCG(r.o.Seed, uint64(i)))
	n := len(r.o.Devices)
	begin := r.start.Add(time.Duration(float64(r.o.Ramp) * float64(i) / float64(n)))
	if !sleep(ctx, begin) {
		return
	}
	d := conn{run: r, i: i, rnd: rnd}
	defer d.close()
	d.open(ctx, begin)
	storm := r.nextStorm(begin)
	// The devices' messages are spread over the time between two of them.
	due := begin.Add(time.Duration(rnd.Float64() * float64(r.o.Every)))
	for due.Before(r.end) {
		for storm.Before(due) && storm.Before(r.end) {
			if !sleep(ctx, storm) {
				return
			}
			d.close()
			d.open(ctx, storm)
			storm = r.nextStorm(storm)
		}
		if !sleep(ctx, due) {
			return
		}
		r.planned.Add(1)
		if !d.publish(ctx, due) {
			return
		}
		due = due.Add(time.Duration(float64(r.o.Every) * (1 + r.o.Think*(2*rnd.Float64()-1))))
	}
	sleep(ctx, r.end) // connected to the end
}

// nextStorm returns the first storm after t, the end when there are none.
func (r *run) nextStorm(t time.Time) time.Time {
	if r.o.Storm == 0 {
		return r.end
	}
	return r.start.Add((t.Sub(r.start)/r.o.Storm + 1) * r.o.Storm)
}

// conn is the connection of a device. It has a goroutine, and no buffers while
// nothing is sent.
type conn struct {
	run    *run
	i      int
	rnd    *rand.Rand
	c      net.Conn
	packet uint16
	pause  time.Duration
}

// open connects, and tries again until the grace is over.
func (d *conn) open(ctx context.Context, since time.Time) bool {
	for d.c == nil {
		if ctx.Err() != nil || time.Now().After(d.run.end.Add(grace)) {
			return false
		}
		if d.pause > 0 && !sleep(ctx, time.Now().Add(d.pause/2+time.Duration(d.rnd.Float64()*float64(d.pause)))) {
			return false
		}
		err := d.dial(ctx)
		if err == nil {
			d.pause = 0
			d.run.connect.add(d.i, time.Since(since))
			d.run.connects.Add(1)
			if now := d.run.connected.Add(1); now > d.run.most.Load() {
				d.run.most.Store(now)
			}
			return true
		}
		d.run.errors.Add(1)
		if errors.Is(err, errRefused) {
			d.run.refused.Add(1)
		}
		d.pause = min(max(2*d.pause, 100*time.Millisecond), pauseMost)
	}
	return true
}

func (d *conn) dial(ctx context.Context) error {
	r, dev := d.run, d.run.o.Devices[d.i]
	dialer := net.Dialer{Timeout: connectWithin}
	if len(r.from) > 0 {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(r.from[d.i%len(r.from)])}
	}
	c, err := dialer.DialContext(ctx, "tcp", r.o.Addr)
	if err != nil {
		return err
	}
	hello := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	hello.ProtocolName, hello.ProtocolVersion, hello.CleanSession = "MQTT", 4, true
	hello.ClientIdentifier, hello.UsernameFlag, hello.Username = string(dev.ID), true, dev.Token
	// No pings: a device that sends often enough is known to be there.
	hello.Keepalive = uint16(min(65535, int(3*r.o.Every/time.Second)+60))
	_ = c.SetDeadline(time.Now().Add(connectWithin))
	if err = hello.Write(c); err == nil {
		var p packets.ControlPacket
		if p, err = packets.ReadPacket(c); err == nil {
			if ack, ok := p.(*packets.ConnackPacket); !ok || ack.ReturnCode != packets.Accepted {
				err = fmt.Errorf("%w: %v", errRefused, p)
			}
		}
	}
	if err != nil {
		c.Close()
		return err
	}
	d.c = c
	return nil
}

func (d *conn) close() {
	if d.c != nil {
		_ = packets.NewControlPacket(packets.Disconnect).Write(d.c)
		d.lost()
	}
}

func (d *conn) lost() {
	d.c.Close()
	d.c = nil
	d.run.connected.Add(-1)
}

// publish sends the message that was due, again when it has to, and reports
// whether it has arrived before the grace was over.
func (d *conn) publish(ctx context.Context, due time.Time) bool {
	r := d.run
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Qos = "v1/devices/me/telemetry", r.o.QoS
	if d.packet++; d.packet == 0 {
		d.packet = 1
	}
	p.MessageID = d.packet
	p.Payload = d.body(due)
	for again := false; ; again = true {
		if !d.open(ctx, time.Now()) {
			return false
		}
		p.Dup = again && r.o.QoS > 0
		if !again {
			r.sent.Add(1)
		} else {
			r.again.Add(1)
		}
		_ = d.c.SetDeadline(time.Now().Add(ackWithin))
		err := p.Write(d.c)
		if err == nil && r.o.QoS > 0 {
			err = d.puback(p.MessageID)
		}
		if err == nil {
			r.latency.add(d.i, time.Since(due))
			if r.o.QoS > 0 {
				r.acked[d.i]++
				r.ackedAt.Add(1)
			}
			return true
		}
		r.errors.Add(1)
		d.lost()
		if ctx.Err() != nil {
			return false
		}
	}
}

// puback waits for the acknowledgement of a message.
func (d *conn) puback(id uint16) error {
	p, err := packets.ReadPacket(d.c)
	if err != nil {
		return err
	}
	if ack, ok := p.(*packets.PubackPacket); !ok || ack.MessageID != id {
		return fmt.Errorf("%v in place of the PUBACK of %d", p, id)
	}
	return nil
}

// body is what an energy meter measures.
func (d *conn) body(due time.Time) []byte {
	kW := 20 + 5*d.rnd.Float64()
	b := make([]byte, 0, 96)
	b = append(b, `{"ts":`...)
	b = strconv.AppendInt(b, due.UnixMilli(), 10)
	b = append(b, `,"values":{"power":`...)
	b = strconv.AppendFloat(b, kW, 'f', 3, 64)
	b = append(b, `,"voltage":`...)
	b = strconv.AppendFloat(b, 228+6*d.rnd.Float64(), 'f', 1, 64)
	return append(b, `,"mains":true}}`...)
}

// Model is what the devices of a load are.
const Model = citywarden.ModelName("energy-meter")

// sleep waits until t and reports whether ctx is not done.
func sleep(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
