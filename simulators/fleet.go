package simulators

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/simulators/county"
)

// Options say what a fleet consists of and where it reports to.
type Options struct {
	County *county.County                      // required
	MQTT   string                              // host:port; "" leaves out the devices that speak MQTT
	CoAP   string                              // host:port, UDP; "" leaves out the devices that speak CoAP
	Token  func(id citywarden.DeviceID) string // the credential of a device; required
	Seed   uint64                              // same seed, same county life
	Start  time.Time                           // when the world began, zero for the moment that Run is called; see NewWorld
	Lasts  time.Duration                       // how long the devices report, 0 until ctx is done
	Speed  float64                             // times faster than real, 0 for 1; more needs Lasts and no Start: the world ends when Run does
	Logger *slog.Logger                        // nil discards
	Acked  func(Message)                       // called after the platform acknowledged a message, by many goroutines; may be nil
}

// Fleet is the devices of a county, each with a connection of its own.
type Fleet struct {
	o     Options
	wall  func(time.Time) time.Time // the real time of a moment of the world
	until time.Time                 // of the world, zero for ever
	stats struct{ sent, acked, retried, skipped, connects atomic.Uint64 }
}

// Stats counts what a fleet has done so far.
type Stats struct {
	Sent     uint64 // messages handed to a connection, without the retries
	Acked    uint64 // messages that the platform acknowledged
	Retried  uint64 // times that a message was sent again, its acknowledgement not having come
	Skipped  uint64 // messages that a device had to forget because it could not report for longer than Backlog
	Connects uint64 // connections that came up
}

// Backlog is how long a device keeps a message that it could not deliver.
const Backlog = 10 * time.Minute

// Pauses between two attempts to reach the platform; each device adds a random
// share so that a county does not come back all at once.
const (
	retryFirst = 500 * time.Millisecond
	retryMost  = 10 * time.Second
	refusedFor = 30 * time.Second // after the platform did not accept the credential
)

// errRefused is what Refused looks for.
var errRefused = errors.New("refused")

// NewFleet returns a fleet that has not connected yet.
func NewFleet(o Options) *Fleet {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Fleet{o: o}
}

// Stats returns what the fleet has done so far.
func (f *Fleet) Stats() Stats {
	s := &f.stats
	return Stats{s.sent.Load(), s.acked.Load(), s.retried.Load(), s.skipped.Load(), s.connects.Load()}
}

// Run connects the devices and reports until ctx is done or Lasts is over; then
// it disconnects all of them and returns nil. It returns an error at once when
// the options make no sense. A platform that is away is waited for.
func (f *Fleet) Run(ctx context.Context) error {
	devices, err := f.devices(time.Now())
	if err != nil {
		return err
	}
	f.o.Logger.Info("simulators started", "devices", len(devices), "seed", f.o.Seed, "start", f.o.Start)
	var all sync.WaitGroup
	for _, d := range devices {
		all.Go(func() { d.run(ctx) })
	}
	all.Wait()
	s := f.Stats()
	f.o.Logger.Info("simulators stopped", "sent", s.Sent, "acked", s.Acked, "retried", s.Retried, "skipped", s.Skipped)
	return nil
}

// devices returns the devices of a fleet that begins now.
func (f *Fleet) devices(now time.Time) ([]*device, error) {
	o := &f.o
	if o.Speed == 0 {
		o.Speed = 1
	}
	switch {
	case o.County == nil || o.Token == nil:
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "a fleet needs a county and the tokens of its devices")
	case !(o.Speed >= 1):
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "speed %g: 1 is real time, more is faster", o.Speed)
	case o.Speed > 1 && (o.Lasts <= 0 || !o.Start.IsZero()):
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "speed %g: say how long the county is to last, and not when it begins", o.Speed)
	}
	begins, wall := Faster(now, o.Lasts, o.Speed)
	f.wall = wall
	if o.Start.IsZero() {
		o.Start = begins
	}
	if o.Lasts > 0 {
		f.until = begins.Add(o.Lasts)
	}
	w := NewWorld(o.County, o.Seed, o.Start)
	var out []*device
	for i := range o.County.Devices {
		id := o.County.Devices[i].ID
		s, err := w.Stream(id)
		if err != nil {
			return nil, err
		}
		if begins.Sub(o.Start) > boot { // the world is older than this fleet
			s.SwitchOn(begins)
		}
		d := &device{f: f, id: id, stream: s, log: o.Logger.With("device", string(id)), rnd: rand.New(rand.NewPCG(o.Seed, hash(string(id))))}
		switch coap := SpeaksCoAP(o.County.Devices[i].Model); {
		case coap && o.CoAP != "":
			d.dial = func(ctx context.Context) (Link, error) { return DialCoAP(ctx, UDP(o.CoAP), o.Token(id)) }
		case !coap && o.MQTT != "":
			d.dial = func(ctx context.Context) (Link, error) { return DialMQTT(ctx, TCP(o.MQTT), id, o.Token(id)) }
		default:
			continue
		}
		out = append(out, d)
	}
	return out, nil
}

// Faster returns when a world begins that lasts so long, is played from now on
// speed times faster than real, and ends when that is over; and the real time of
// each of its moments. At speed 1 it begins now.
func Faster(now time.Time, lasts time.Duration, speed float64) (start time.Time, wall func(time.Time) time.Time) {
	start = now.Add(-time.Duration(float64(lasts) * (1 - 1/speed))).UTC().Truncate(time.Millisecond)
	return start, func(t time.Time) time.Time { return now.Add(time.Duration(float64(t.Sub(start)) / speed)) }
}

// SpeaksCoAP reports whether devices of that model report over CoAP, as
// battery-powered loggers on NB-IoT do; the others speak MQTT.
func SpeaksCoAP(m citywarden.ModelName) bool { return m == "pressure-logger" }

// Link is one connection of one device.
type Link interface {
	// Send delivers a telemetry body and returns nil once it is acknowledged. The
	// link is of no use after any other error than one for which Refused is true.
	Send(ctx context.Context, payload []byte) error
	Close()
}

// Refused reports whether the platform did not accept the device's credential
// or message: sending it again would not help.
func Refused(err error) bool { return errors.Is(err, errRefused) }

// device is one device at work.
type device struct {
	f      *Fleet
	id     citywarden.DeviceID
	stream *Stream
	dial   func(context.Context) (Link, error)
	log    *slog.Logger
	rnd    *rand.Rand
	link   Link
	pause  time.Duration // before the next attempt
}

func (d *device) run(ctx context.Context) {
	defer func() {
		if d.link != nil {
			d.link.Close()
		}
	}()
	// The connections come up one after the other while the first reports are due.
	if !d.wait(ctx, share(boot/2, d.rnd.Float64())) {
		return
	}
	for ctx.Err() == nil {
		m := d.stream.Next()
		if !d.f.until.IsZero() && !m.At.Before(d.f.until) {
			return
		}
		due := d.f.wall(m.At)
		if time.Since(due) > Backlog {
			d.f.stats.skipped.Add(1)
			continue
		}
		if d.link == nil { // connect early, so that the report itself is in time
			d.connect(ctx)
		}
		if !d.wait(ctx, time.Until(due)) {
			return
		}
		d.deliver(ctx, m, due)
	}
}

// deliver sends m, which is due, until it is acknowledged, refused, or too old.
func (d *device) deliver(ctx context.Context, m Message, due time.Time) {
	stats := &d.f.stats
	for sent := false; ctx.Err() == nil; {
		if time.Since(due) > Backlog {
			stats.skipped.Add(1)
			return
		}
		if d.link == nil && !d.connect(ctx) {
			continue
		}
		if sent {
			stats.retried.Add(1)
		} else {
			stats.sent.Add(1)
			sent = true
		}
		err := d.link.Send(ctx, m.Payload)
		switch {
		case err == nil:
			stats.acked.Add(1)
			d.pause = 0
			if d.f.o.Acked != nil {
				d.f.o.Acked(m)
			}
			return
		case ctx.Err() != nil:
			return
		case Refused(err):
			d.log.Warn("report refused", "err", err)
			d.hangUp()
			d.wait(ctx, refusedFor)
			return
		}
		d.log.Debug("report not acknowledged", "err", err)
		d.hangUp()
	}
}

// connect tries once, after the pause that earlier failures call for.
func (d *device) connect(ctx context.Context) bool {
	if d.pause > 0 && !d.wait(ctx, d.pause+share(d.pause, d.rnd.Float64())) {
		return false
	}
	l, err := d.dial(ctx)
	switch {
	case err == nil:
		d.link = l
		d.f.stats.connects.Add(1)
		return true
	case ctx.Err() != nil:
	case Refused(err):
		d.log.Warn("connection refused", "err", err)
		d.pause = refusedFor
	default:
		d.log.Debug("no connection", "err", err)
		d.pause = min(max(2*d.pause, retryFirst), retryMost)
	}
	return false
}

func (d *device) hangUp() {
	d.link.Close()
	d.link = nil
	d.pause = min(max(2*d.pause, retryFirst), retryMost)
}

// wait reports whether the time passed before ctx was done.
func (d *device) wait(ctx context.Context, t time.Duration) bool {
	if t <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
