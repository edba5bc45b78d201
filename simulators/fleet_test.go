package simulators

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/mux"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"
	"github.com/plgd-dev/go-coap/v3/udp/server"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/simulators/county"
)

func token(id citywarden.DeviceID) string { return "token-of-" + string(id) }

// platform is a fake of the device-facing side: a real MQTT broker and a real
// CoAP server that keep what they acknowledged.
type platform struct {
	t        *testing.T
	mqttAddr string
	coapAddr string
	mqtt     *mochi.Server
	coap     *server.Server
	coapConn *coapnet.UDPConn
	served   sync.WaitGroup

	mu     sync.Mutex
	deaf   bool                                    // takes messages, acknowledges nothing
	heard  int                                     // messages that were taken while deaf
	stored map[citywarden.DeviceID]map[string]bool // payloads that were acknowledged
	bad    []string
}

func newPlatform(t *testing.T) *platform {
	return &platform{t: t, mqttAddr: "127.0.0.1:0", coapAddr: "127.0.0.1:0", stored: map[citywarden.DeviceID]map[string]bool{}}
}

// start listens, the second time on the ports of the first.
func (p *platform) start() {
	p.t.Helper()
	ln, err := net.Listen("tcp", p.mqttAddr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mqttAddr = ln.Addr().String()
	p.mqtt = mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := p.mqtt.AddHook(&hook{p: p}, nil); err != nil {
		p.t.Fatal(err)
	}
	if err := p.mqtt.AddListener(listeners.NewNet("t", ln)); err != nil {
		p.t.Fatal(err)
	}
	p.served.Go(func() { _ = p.mqtt.Serve() })

	p.coapConn, err = coapnet.NewListenUDP("udp", p.coapAddr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.coapAddr = p.coapConn.LocalAddr().String()
	p.coap = udp.NewServer(options.WithMux(mux.HandlerFunc(p.post)), options.WithErrors(func(error) {}))
	p.served.Go(func() { _ = p.coap.Serve(p.coapConn) })
}

func (p *platform) stop() {
	p.mqtt.Close()
	p.coap.Stop()
	p.coapConn.Close()
	p.served.Wait()
}

// take stores a message; it reports whether it may be acknowledged.
func (p *platform) take(id citywarden.DeviceID, payload []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deaf {
		p.heard++
		return false
	}
	if p.stored[id] == nil {
		p.stored[id] = map[string]bool{}
	}
	p.stored[id][string(payload)] = true
	return true
}

func (p *platform) complain(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bad = append(p.bad, s)
}

func (p *platform) setDeaf(deaf bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = deaf
}

func (p *platform) has(m Message) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stored[m.Device][string(m.Payload)]
}

func (p *platform) devices() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.stored)
}

func (p *platform) post(w mux.ResponseWriter, r *mux.Message) {
	path, err := r.Path()
	name, ok := strings.CutPrefix(path, "/api/v1/token-of-")
	id, rest, _ := strings.Cut(name, "/")
	body, readErr := io.ReadAll(r.Body())
	if format, _ := r.ContentFormat(); err != nil || readErr != nil || !ok || rest != "telemetry" || r.Code() != codes.POST || format != message.AppJSON {
		p.complain("coap " + r.Code().String() + " " + path)
		_ = w.SetResponse(codes.Unauthorized, message.TextPlain, nil)
		return
	}
	if !p.take(citywarden.DeviceID(id), body) {
		_ = w.SetResponse(codes.ServiceUnavailable, message.TextPlain, nil)
		return
	}
	_ = w.SetResponse(codes.Changed, message.TextPlain, nil)
}

type hook struct {
	mochi.HookBase
	p *platform
}

func (h *hook) ID() string { return "platform" }

func (h *hook) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck || b == mochi.OnPublish
}

func (h *hook) OnConnectAuthenticate(c *mochi.Client, k packets.Packet) bool {
	return string(k.Connect.Username) == token(citywarden.DeviceID(c.ID))
}

func (h *hook) OnACLCheck(*mochi.Client, string, bool) bool { return true }

func (h *hook) OnPublish(c *mochi.Client, k packets.Packet) (packets.Packet, error) {
	if k.TopicName != "v1/devices/me/telemetry" || k.FixedHeader.Qos != 1 {
		h.p.complain("mqtt " + k.TopicName)
	}
	if !h.p.take(citywarden.DeviceID(c.ID), k.Payload) {
		return k, packets.ErrRejectPacket // no acknowledgement
	}
	return k, nil
}

// waitFor waits until ok, and fails after half a minute.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("waited for half a minute: %s", what)
		case <-tick.C:
		}
	}
}

// noLeak fails when more goroutines run at the end of the test than now.
func noLeak(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		waitFor(t, "for goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
	})
}

// run starts a fleet; stop ends it and returns once it has.
func run(t *testing.T, o Options) (f *Fleet, stop func()) {
	t.Helper()
	f = NewFleet(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return f, stop
}

// ledger keeps what a fleet took as acknowledged.
type ledger struct {
	mu    sync.Mutex
	acked []Message
}

func (l *ledger) add(m Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = append(l.acked, m)
}

func (l *ledger) check(t *testing.T, p *platform, f *Fleet) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.acked {
		if !p.has(m) {
			t.Errorf("%s took %s as acknowledged, it was not", m.Device, m.Payload)
		}
	}
	s := f.Stats()
	if s.Acked != uint64(len(l.acked)) || s.Sent < s.Acked || s.Sent > s.Acked+uint64(len(f.o.County.Devices)) {
		t.Errorf("stats %+v, %d messages acknowledged", s, len(l.acked))
	}
	if len(p.bad) > 0 {
		t.Errorf("the platform did not like: %v", p.bad)
	}
}

func TestFleetReports(t *testing.T) {
	noLeak(t)
	p := newPlatform(t)
	p.start()
	defer p.stop()
	var l ledger
	c := county.Demo()
	f, stop := run(t, Options{County: c, MQTT: p.mqttAddr, CoAP: p.coapAddr, Token: token, Seed: 1, Acked: l.add})
	waitFor(t, "for all devices to report", func() bool { return p.devices() == len(c.Devices) })
	stop()
	l.check(t, p, f)
	if s := f.Stats(); s.Retried != 0 || s.Skipped != 0 || s.Connects != uint64(len(c.Devices)) {
		t.Errorf("stats %+v; nothing went wrong, so nothing should be sent twice", s)
	}
}

// TestFleetSendsAgain: a platform that takes messages and is killed before it
// acknowledges gets every one of them again when it is back.
func TestFleetSendsAgain(t *testing.T) {
	noLeak(t)
	p := newPlatform(t)
	p.setDeaf(true)
	p.start()
	var l ledger
	start := time.Now()
	c := county.Demo()
	f, stop := run(t, Options{County: c, MQTT: p.mqttAddr, CoAP: p.coapAddr, Token: token, Seed: 2, Start: start, Acked: l.add})
	waitFor(t, "for messages that nobody acknowledges", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.heard >= len(c.Devices)/2
	})
	p.stop()
	if s := f.Stats(); s.Acked != 0 {
		t.Errorf("%d messages were taken as acknowledged", s.Acked)
	}
	p.setDeaf(false)
	p.start()
	defer p.stop()
	waitFor(t, "for all devices to come back", func() bool { return p.devices() == len(c.Devices) })
	waitFor(t, "for what was sent before the restart", func() bool { return f.Stats().Acked >= uint64(len(c.Devices)) })
	stop()
	l.check(t, p, f)
	s := f.Stats()
	if s.Retried < uint64(len(c.Devices)/2) || s.Skipped != 0 {
		t.Errorf("stats %+v, want half of the devices to have sent again", s)
	}
	// The first message of each device was on its way when the platform died.
	w := NewWorld(c, 2, start)
	for _, d := range c.Devices {
		stream, err := w.Stream(d.ID)
		if err != nil {
			t.Fatal(err)
		}
		if m := stream.Next(); !p.has(m) {
			t.Errorf("%s never delivered its first message %s", d.ID, m.Payload)
		}
	}
}

// TestFleetWaitsForThePlatform: no platform, no error, no busy loop.
func TestFleetWaitsForThePlatform(t *testing.T) {
	noLeak(t)
	p := newPlatform(t)
	p.start()
	p.stop() // now nobody listens there
	var l ledger
	f, stop := run(t, Options{County: county.Demo(), MQTT: p.mqttAddr, CoAP: p.coapAddr, Token: token, Seed: 3, Acked: l.add, Start: time.Now().Add(-time.Minute)})
	waitFor(t, "for CoAP devices to try", func() bool { return f.Stats().Sent > 0 })
	stop()
	l.check(t, p, f)
}

// TestFleetRefused: a device whose credential is unknown complains and waits,
// the others are not held up.
func TestFleetRefused(t *testing.T) {
	noLeak(t)
	p := newPlatform(t)
	p.start()
	defer p.stop()
	c := county.Demo()
	var log syncBuffer
	_, stop := run(t, Options{
		County: c, MQTT: p.mqttAddr, CoAP: p.coapAddr, Seed: 4, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Token: func(id citywarden.DeviceID) string {
			if id == "sd-gov-101" {
				return "stolen"
			}
			return token(id)
		},
	})
	waitFor(t, "for the others to report", func() bool { return p.devices() == len(c.Devices)-1 })
	waitFor(t, "for the complaint", func() bool {
		return strings.Contains(log.String(), "connection refused") && strings.Contains(log.String(), "sd-gov-101")
	})
	stop()
	if strings.Count(log.String(), "level=WARN") != 1 {
		t.Errorf("want one warning:\n%s", log.String())
	}
}

// TestLongOutage plays fifty minutes of one device in virtual time; the platform
// is away for forty of them.
func TestLongOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		down, up := start.Add(5*time.Minute), start.Add(45*time.Minute)
		away := func() bool { return time.Now().After(down) && time.Now().Before(up) }
		var l ledger
		f := NewFleet(Options{County: county.Demo(), Token: token, Acked: l.add})
		s, err := NewWorld(f.o.County, 1, start).Stream("pl-d1-01")
		if err != nil {
			t.Fatal(err)
		}
		dials := 0
		if _, err := f.devices(start); err != nil {
			t.Fatal(err)
		}
		d := &device{f: f, id: "pl-d1-01", stream: s, log: f.o.Logger, rnd: rand.New(rand.NewPCG(1, 2)), dial: func(context.Context) (Link, error) {
			dials++
			if away() {
				return nil, errors.New("nobody there")
			}
			return lineTo(away), nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Minute)
		defer cancel()
		d.run(ctx)

		for i := 1; i < len(l.acked); i++ {
			a, b := l.acked[i-1].At, l.acked[i].At
			if !b.After(a) {
				t.Errorf("what was measured at %s was delivered after %s", b.Sub(start), a.Sub(start))
			}
			if b.Sub(a) > 15*time.Second && (a.Before(down.Add(-15*time.Second)) || b.After(up.Add(-Backlog+30*time.Second))) {
				t.Errorf("nothing from %s to %s; only the first half hour of the outage may be missing", a.Sub(start), b.Sub(start))
			}
		}
		lost := uint64((up.Sub(down) - Backlog) / loggerReport)
		if st := f.Stats(); st.Skipped < lost-6 || st.Skipped > lost+6 || st.Acked < 115 {
			t.Errorf("stats %+v, want about %d skipped", st, lost)
		}
		if dials < 100 || dials > 260 {
			t.Errorf("%d attempts to connect in forty minutes", dials)
		}
	})
}

// lineTo is a link that works unless away.
type lineTo func() bool

func (away lineTo) Send(context.Context, []byte) error {
	if away() {
		return errors.New("line cut")
	}
	return nil
}

func (lineTo) Close() {}

// TestFleetJoinsAnOlderWorld: after a restart of everything, devices report at
// once, and the incidents of the first minutes don't come again.
func TestFleetJoinsAnOlderWorld(t *testing.T) {
	noLeak(t)
	p := newPlatform(t)
	p.start()
	defer p.stop()
	var l ledger
	c := county.Demo()
	began := time.Now()
	f, stop := run(t, Options{County: c, MQTT: p.mqttAddr, CoAP: p.coapAddr, Token: token, Seed: 1, Start: began.AddDate(0, 0, -40), Acked: l.add})
	waitFor(t, "for all devices to report", func() bool { return p.devices() == len(c.Devices) })
	stop()
	l.check(t, p, f)
	for _, m := range l.acked {
		if m.At.Before(began) {
			t.Errorf("%s reports what it measured at %s, before it was switched on", m.Device, m.At)
		}
	}
}

// TestCountyAtAnySpeed: the whole county sends the same at any speed, byte for
// byte and device by device: what its streams say, no more and no less.
func TestCountyAtAnySpeed(t *testing.T) {
	const lasts = 20 * time.Minute
	c := county.Demo()
	begins := monday.Add(9 * time.Hour)
	var want []byte
	w := NewWorld(c, 5, begins)
	for _, d := range c.Devices {
		s := mustStream(t, w, d.ID)
		for m := s.Next(); m.At.Before(begins.Add(lasts)); m = s.Next() {
			want = fmt.Appendf(want, "%s %s\n", m.Device, m.Payload)
		}
	}
	truth := fmt.Sprint(w.Incidents(begins, begins.Add(lasts)))
	for _, speed := range []float64{1, 7, 60, 600} {
		synctest.Test(t, func(t *testing.T) {
			// It is played so that it begins at the same time.
			time.Sleep(time.Until(begins.Add(time.Duration(float64(lasts) * (1 - 1/speed)))))
			started := time.Now()
			f := NewFleet(Options{County: c, MQTT: "-", CoAP: "-", Token: token, Seed: 5, Lasts: lasts, Speed: speed})
			ds, err := f.devices(started)
			if err != nil {
				t.Fatal(err)
			}
			sent := make([]recorder, len(ds))
			var all sync.WaitGroup
			for i, d := range ds {
				d.dial = func(context.Context) (Link, error) { return &sent[i], nil }
				all.Go(func() { d.run(t.Context()) })
			}
			all.Wait()
			if took := time.Since(started); took > time.Duration(float64(lasts)/speed)+boot {
				t.Errorf("at speed %g it took %s", speed, took)
			}
			var got []byte
			for i, d := range ds {
				for _, payload := range sent[i] {
					got = fmt.Appendf(got, "%s %s\n", d.id, payload)
				}
			}
			if !bytes.Equal(got, want) {
				t.Errorf("at speed %g the county sends %d bytes, its streams have %d", speed, len(got), len(want))
			}
			if happened := fmt.Sprint(ds[0].stream.w.Incidents(begins, begins.Add(lasts))); happened != truth {
				t.Errorf("at speed %g happens\n%s\nand at another\n%s", speed, happened, truth)
			}
		})
	}
}

// recorder is a link that keeps what is sent.
type recorder []string

func (r *recorder) Send(_ context.Context, payload []byte) error {
	*r = append(*r, string(payload))
	return nil
}

func (*recorder) Close() {}

func TestFleetsThatCannotBe(t *testing.T) {
	c := county.Demo()
	for _, o := range []Options{
		{}, {County: c}, {Token: token}, {County: c, Token: token, Speed: 0.5}, {County: c, Token: token, Speed: 60},
		{County: c, Token: token, Speed: 60, Lasts: time.Hour, Start: monday},
	} {
		if err := NewFleet(o).Run(t.Context()); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("Run with %+v = %v, want invalid", o, err)
		}
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
