package ingest

import (
	"context"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

const (
	// stalledAfter is how long messages may wait while none is acknowledged until it is said
	// why; watchEvery is how often that is looked at, and sayEvery how often it is said again.
	stalledAfter = 5 * time.Second
	watchEvery   = 2 * time.Second
	sayEvery     = time.Minute
	// deafEvery is how often it is logged that no message is taken.
	deafEvery = 10 * time.Second
	// quietEvery is how often it is logged that messages would be taken while there are none: less than this and a
	// restart that takes as long is no outage.
	quietEvery = citywarden.Outage / 2
)

// What messages may wait for.
const (
	waitsForConsumer = "consumer" // one that holds back is behind
	waitsForLog      = "log"      // the log is writing, and does not get ready: the disk, or the NATS cluster
	waitsForCPU      = "cpu"      // this process gets no turn
	waitsForOther    = "other"
)

// waited returns for how long messages have waited of which none was acknowledged, 0 when none wait.
func (m *metrics) waited(now time.Time) time.Duration {
	if m.depth.Load() == 0 {
		return 0
	}
	return max(now.Sub(time.Unix(0, m.moved.Load())), 0)
}

// watch looks every two seconds whether messages are acknowledged, and can be taken at all.
func (p *Pipeline) watch(ctx context.Context) {
	var s stall
	var noted time.Time // when it was logged last that nobody is heard, zero while messages are taken
	for last := time.Now(); pause(ctx, watchEvery); {
		now := time.Now()
		p.look(&s, now, now.Sub(last)-watchEvery)
		noted = p.listen(ctx, noted)
		last = time.Now()
	}
}

// stall is a time in which messages wait and none is acknowledged.
type stall struct {
	said    time.Time // when it was said last, zero while it need not be
	longest time.Duration
	cause   string
}

// look says when messages wait for their acknowledgement for long, and why. late is by how
// much it was called too late.
func (p *Pipeline) look(s *stall, now time.Time, late time.Duration) {
	waited := p.metrics.waited(now)
	switch {
	case waited < stalledAfter && s.said.IsZero():
		return
	case waited < stalledAfter:
		p.logger.Warn("messages are acknowledged again", "waited", s.longest.Round(time.Millisecond), "cause", s.cause)
		*s = stall{}
		return
	case s.said.IsZero() || now.Sub(s.said) >= sayEvery:
		cause, args := p.cause(now, late)
		if s.said.IsZero() {
			p.metrics.stalls[cause].Inc()
		}
		p.logger.Warn("messages wait for their acknowledgement", append([]any{
			"cause", cause, "waited", waited.Round(time.Millisecond), "messages", p.metrics.depth.Load()}, args...)...)
		s.said, s.cause = now, cause
	}
	s.longest = waited
}

// cause finds out what messages wait for. late is by how much the one who asks was woken too late.
func (p *Pipeline) cause(now time.Time, late time.Duration) (cause string, args []any) {
	for _, c := range p.consumers {
		if c.holding.Load() {
			return waitsForConsumer, []any{"consumer", c.Name(), "groups", c.behind(p.log.Last())}
		}
	}
	doing, since := p.doing()
	args = []any{"log", doing, "for", now.Sub(since).Round(time.Millisecond), "woken_late", late.Round(time.Millisecond)}
	switch {
	case late >= stalledAfter/2:
		return waitsForCPU, args
	case doing != "" && now.Sub(since) >= stalledAfter/2:
		return waitsForLog, args
	}
	return waitsForOther, args
}

// held returns for how long no message was taken as a consumer that holds back was behind, 0 when that is no outage.
func (p *Pipeline) held(now time.Time) (lasted time.Duration) {
	for _, c := range p.consumers {
		if c.holding.Load() {
			lasted = max(lasted, now.Sub(time.Unix(0, c.held.Load())))
		}
	}
	if lasted < citywarden.Outage {
		return 0
	}
	return lasted
}

// listen puts into the log that nobody is heard, while there is no room for messages or a consumer holds them back for
// long: then nobody is silent for it. It takes and returns when it did so last, zero while messages are taken.
func (p *Pipeline) listen(ctx context.Context, noted time.Time) time.Time {
	full, lasted := p.full() != nil, p.held(time.Now())
	deaf := full || lasted > 0
	if !deaf && noted.IsZero() || deaf && time.Since(noted) < deafEvery {
		return noted
	}
	rec := citywarden.Record{Kind: citywarden.RecordDeaf}
	if noted.IsZero() && !full { // it was not told of from the beginning
		rec.Lasted = lasted
	}
	if _, err := p.append(ctx, rec); err != nil {
		return noted // and tried again
	}
	if !deaf {
		return time.Time{}
	}
	return time.Now()
}

// beat puts a RecordTick into the log when there was nothing to log for long although messages are taken: when the platform
// is started again, it heard until the newest record, and the time before in which nobody spoke is no outage of it.
func (p *Pipeline) beat(ctx context.Context) {
	newest, moved := p.log.Last(), time.Now()
	for pause(ctx, watchEvery) {
		if last := p.log.Last(); last != newest {
			newest, moved = last, time.Now()
		}
		if time.Since(moved) < quietEvery || p.full() != nil || slices.ContainsFunc(p.consumers, func(c *consumer) bool { return c.holding.Load() }) {
			continue
		}
		_ = p.Tick(ctx) // the log says itself why it can't be written
		moved = time.Now()
	}
}
