// Package ingest is the way of every message: into the durable log, then
// decoded and handed, in the order of the log, to everything that works with
// readings.
//
//	p, err := ingest.New(ingest.Options{Log: journal, Directory: registry, Logger: log})
//	p.Attach(ingest.NewLedger(db, 0, log))
//	p.Attach(series)
//	go p.Run(ctx)
//	p.Accept(ctx, uplink, func(err error) {
//		// err == nil: the uplink is durable, acknowledge it
//	})
//
// A commit group of the log is decoded once and kept for a while; each consumer
// takes it from there at its own pace. One that falls behind reads the log on
// its own and holds up no other. A consumer on which people wait, see Attach, holds up
// the devices then.
package ingest

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
)

// Log is the durable log.
type Log interface {
	// Append stores rec, which it owns from now on, and calls done once: in the order of
	// Append, with rec's position when it is durable. It blocks while the log
	// can't keep up.
	Append(rec citywarden.Record, done func(citywarden.Position, error))
	// Read returns the records after a position that are in the first commit
	// group that has any, and blocks until there is one.
	Read(ctx context.Context, after citywarden.Position) ([]citywarden.Record, error)
	// Last returns the position of the newest durable record, 0 for none.
	Last() citywarden.Position
	// Back returns a position at least n records before p, 0 when the log does
	// not go back so far.
	Back(ctx context.Context, p citywarden.Position, n uint64) (citywarden.Position, error)
}

// Directory knows the devices. It answers from memory.
type Directory interface {
	// Device returns a device and its model, or CodeNotFound. Nobody changes what it returned.
	Device(citywarden.DeviceID) (*citywarden.Device, *citywarden.Model, error)
	// Child returns the device that a gateway calls name: CodeNotFound when it is
	// none of those behind it, CodeDenied when it is disabled.
	Child(gateway citywarden.DeviceID, name string) (citywarden.DeviceID, error)
}

// Consumer works with the entries of the log. Each has a goroutine of its own
// in Pipeline.Run.
type Consumer interface {
	// Name is the consumer's name, a word that never changes: "series".
	Name() string
	// Cursor returns the position up to which its work is done for good. After
	// a restart it gets everything after that again.
	Cursor(context.Context) (citywarden.Position, error)
	// Consume takes entries in the order of the log, whole commit groups at a
	// time; it may not change them, but may keep them. It ignores those up to its Cursor.
	// An error means that none or some were taken: it is logged and the same
	// entries come again, after 1 s, then 2 s, at most 30 s.
	Consume(context.Context, []citywarden.Entry) error
}

// Tracer tells of the way of some records, by their position in the log.
type Tracer interface {
	// Follows reports whether it wants to hear of the record.
	Follows(citywarden.Position) bool
	// Root tells how a record came in, Span of a later stage and the error with which it ended.
	Root(at citywarden.Position, stage string, begin, end time.Time, attrs ...slog.Attr)
	Span(at citywarden.Position, stage string, begin, end time.Time, err error, attrs ...slog.Attr)
}

// Options are what a Pipeline needs: Log and Directory.
type Options struct {
	Log       Log
	Directory Directory
	// Trim is called every minute with the position that every consumer's
	// Cursor has passed: what lies before it may leave the log. Nil keeps everything.
	Trim func(context.Context, citywarden.Position) error
	// Full returns why no message can be taken at the time, nil when they can. It is
	// asked before each. Nil: they always can.
	Full func() error
	// Doing returns what the log's writer is at, and since when, for the message that says why
	// nothing is acknowledged. "" for nothing, nil when it is not known.
	Doing   func() (what string, since time.Time)
	Trace   Tracer                // nil for none
	Logger  *slog.Logger          // nil for slog.Default
	Metrics prometheus.Registerer // nil for none
}

// Pipeline is the way of every message. Its methods may be called by several
// goroutines.
type Pipeline struct {
	log       Log
	directory Directory
	trim      func(context.Context, citywarden.Position) error
	full      func() error
	doing     func() (string, time.Time)
	trace     Tracer
	logger    *slog.Logger
	metrics   *metrics
	consumers []*consumer
	ring      *ring
	decoders  decoders
	stamped   atomic.Int64 // when the newest message arrived, in nanoseconds since 1970
	limits    limits
	gateways  sync.Map // citywarden.DeviceID to when its sign of life was logged last
}

// New returns a Pipeline without consumers.
func New(o Options) (*Pipeline, error) {
	if o.Log == nil || o.Directory == nil {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "the pipeline needs a log and a directory of devices")
	}
	p := &Pipeline{
		log: o.Log, directory: o.Directory, trim: o.Trim, full: o.Full, doing: o.Doing, trace: o.Trace,
		logger: cmp.Or(o.Logger, slog.Default()),
		ring:   new(ring),
	}
	if p.full == nil {
		p.full = func() error { return nil }
	}
	if p.doing == nil {
		p.doing = func() (string, time.Time) { return "", time.Now() }
	}
	if p.trace == nil {
		p.trace = untraced{}
	}
	var err error
	p.metrics, err = newMetrics(o.Metrics, p.Lag)
	return p, err
}

// Attach adds a consumer. Call it before Run. What people wait for should not
// fall behind what devices were told: a consumer that also has the method
//
//	HoldsBack() bool
//
// and answers true makes Accept block while it is more than 256 commit groups
// behind, until it is not more than 128 behind. An outage of any other delays only itself.
// One for which it pays to get more at once has the method
//
//	Pace() time.Duration
//
// and when it has taken all there was, it gets the next entries that long after those at the earliest.
func (p *Pipeline) Attach(a Consumer) {
	c := &consumer{Consumer: a}
	if h, ok := a.(interface{ HoldsBack() bool }); ok {
		c.holdsBack = h.HoldsBack()
	}
	if s, ok := a.(interface{ Pace() time.Duration }); ok {
		c.pace = s.Pace()
	}
	p.consumers = append(p.consumers, c)
}

// Accept puts up into the log and calls done once: with nil when it is
// durable, with a CodeTransient error when that failed and the device should
// send it again, with CodeInvalid when it can never be stored. Calls of done for
// one device follow the order of Accept; done must not block. A message is durable before it is
// decoded, so whether it made sense is not known here: see Check.
//
// Accept owns up.Payload from now on. It blocks while the log, or a consumer that
// holds back, can't keep up, and for 5 s at most while the device sends more than its model's limits allow, then it fails with
// CodeLimited, or is a dead letter when up.Untold, of which a device has only so many; when ctx ends meanwhile, that is a CodeTransient error. While Options.Full
// says that there is no room it fails at once, with CodeTransient.
//
// A gateway's message is put into the log as one of each device that it speaks
// of, and twice a minute at most as a sign of life of its own; done tells of all of them.
func (p *Pipeline) Accept(ctx context.Context, up citywarden.Uplink, done func(error)) {
	if strings.HasPrefix(up.Topic, gatewayTopics) {
		p.acceptGateway(ctx, up, done)
		return
	}
	p.accept(ctx, up, true, done)
}

// accept is Accept for a message of one device, which itself brought it when direct.
func (p *Pipeline) accept(ctx context.Context, up citywarden.Uplink, direct bool, done func(error)) {
	begin := time.Now()
	up, err := p.limited(ctx, up, direct)
	if err != nil {
		p.metrics.began()
		p.metrics.ended(up.Protocol, begin, err)
		done(err)
		return
	}
	up.Untold = false // which nobody asks any more
	if up.Received.IsZero() {
		up.Received = begin
	}
	up.Received = p.stamp(up.Received)
	p.metrics.began()
	if err := p.admit(ctx); err != nil {
		err = citywarden.Errorf(citywarden.CodeTransient, "take message of device %s: %w", up.Device, err)
		p.metrics.ended(up.Protocol, begin, err)
		done(err)
		return
	}
	device, protocol, size := up.Device, up.Protocol, len(up.Payload)
	p.log.Append(citywarden.Record{Kind: citywarden.RecordUplink, Uplink: &up}, func(at citywarden.Position, err error) {
		if err == nil && p.trace.Follows(at) {
			p.trace.Root(at, "receive", begin, time.Now(),
				slog.String("device", string(device)), slog.String("protocol", protocol), slog.Int("bytes", size))
		}
		p.metrics.ended(protocol, begin, err)
		done(err)
	})
}

// stamp returns t, or a moment later, so that no two messages have arrived at
// the same time: a reading without a time of its own is dated by it, and two
// of one metric at one time would be one point of the series.
func (p *Pipeline) stamp(t time.Time) time.Time {
	for {
		last, n := p.stamped.Load(), t.UnixNano()
		if ahead := last - n; ahead >= 0 && ahead < int64(time.Millisecond) { // more is a clock that was set back
			n = last + 1
		}
		if p.stamped.CompareAndSwap(last, n) {
			return time.Unix(0, n).UTC()
		}
	}
}

// Check decodes up without storing it: a CodeInvalid error with the reason
// when it, or a part of it, could not be used; CodeNotFound when the device is not known.
func (p *Pipeline) Check(up citywarden.Uplink) error {
	if up.Received.IsZero() {
		up.Received = time.Now().UTC()
	}
	if _, m, err := p.directory.Device(up.Device); err == nil {
		if err := oversize(m, len(up.Payload)); err != nil {
			return err
		}
	}
	parts, reasons := split(p.directory, &up)
	if len(reasons) > 0 {
		var d dropped
		for _, r := range reasons {
			d.reject(1, "%s", r)
		}
		return citywarden.Errorf(citywarden.CodeInvalid, "%s", d.reason())
	}
	for i := range parts {
		device, model, err := p.directory.Device(parts[i].Device)
		if err != nil {
			return err
		}
		if err := oversize(model, len(parts[i].Payload)); err != nil {
			return err
		}
		_, _, dropped := decode(device, model, &parts[i])
		switch reason := dropped.reason(); {
		case reason != "" && device.ID != up.Device:
			return citywarden.Errorf(citywarden.CodeInvalid, "%s: %s", device.ID, reason)
		case reason != "":
			return citywarden.Errorf(citywarden.CodeInvalid, "%s", reason)
		}
	}
	return nil
}

// Order puts a person's order into the log and returns its position once it is durable.
func (p *Pipeline) Order(ctx context.Context, o citywarden.AlarmOrder) (citywarden.Position, error) {
	return p.append(ctx, citywarden.Record{Kind: citywarden.RecordOrder, Order: &o})
}

// Tick puts a record into the log that says only that time passed, and returns
// once it is durable.
func (p *Pipeline) Tick(ctx context.Context) error {
	_, err := p.append(ctx, citywarden.Record{Kind: citywarden.RecordTick})
	return err
}

// stages are the first stages of records that no device sent.
var stages = map[citywarden.RecordKind]string{citywarden.RecordOrder: "order", citywarden.RecordTick: "tick"}

func (p *Pipeline) append(ctx context.Context, rec citywarden.Record) (citywarden.Position, error) {
	type result struct {
		at  citywarden.Position
		err error
	}
	done := make(chan result, 1)
	stage, begin := stages[rec.Kind], time.Now()
	p.log.Append(rec, func(at citywarden.Position, err error) {
		if err == nil && p.trace.Follows(at) {
			p.trace.Root(at, stage, begin, time.Now())
		}
		done <- result{at, err}
	})
	select {
	case r := <-done:
		return r.at, r.err
	case <-ctx.Done():
		return 0, citywarden.Errorf(citywarden.CodeTransient, "write to the log: %w", ctx.Err())
	}
}

// Wait returns when the consumer called name has consumed everything up to
// pos. It returns CodeNotFound when there is no such consumer and CodeTransient when ctx ends first.
func (p *Pipeline) Wait(ctx context.Context, name string, pos citywarden.Position) error {
	for _, c := range p.consumers {
		if c.Name() != name {
			continue
		}
		for {
			moved := c.moved.wait() // before looking, so that no step is missed
			if c.passed() >= pos {
				return nil
			}
			select {
			case <-moved:
			case <-ctx.Done():
				return citywarden.Errorf(citywarden.CodeTransient, "wait for %s: %w", name, ctx.Err())
			}
		}
	}
	return citywarden.Errorf(citywarden.CodeNotFound, "no consumer %q of the log", name)
}

// Failing returns since when the consumer called name could consume nothing, the zero time while it can, and when there
// is none of that name.
func (p *Pipeline) Failing(name string) time.Time {
	for _, c := range p.consumers {
		if since := c.failing.Load(); c.Name() == name && since != 0 {
			return time.Unix(0, since)
		}
	}
	return time.Time{}
}

// Lag returns for each consumer how many commit groups lie between what it has
// consumed and the end of the log.
func (p *Pipeline) Lag() map[string]uint64 {
	last := p.log.Last()
	lag := make(map[string]uint64, len(p.consumers))
	for _, c := range p.consumers {
		lag[c.Name()] = c.behind(last)
	}
	return lag
}
