package ingest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/citywarden/citywarden"
)

const (
	// ringEntries and ringBytes bound the decoded groups that are kept; the
	// newest is kept in any case.
	ringEntries = 32768
	ringBytes   = 32 << 20

	// batchEntries and batchBytes are how much at most is put together for a consumer
	// that has several groups waiting; a single group may be larger.
	batchEntries = 2048
	batchBytes   = 2 << 20

	// tailPace is the time from one decoding of what has come in to the next while messages
	// come all the time: then the consumers are woken for several groups at once. What
	// comes now and then, tailBurst groups in a row, does not wait.
	tailPace  = 20 * time.Millisecond
	tailBurst = 256

	minBackoff = time.Second
	maxBackoff = 30 * time.Second
	trimEvery  = time.Minute
)

// consumer is a Consumer and how far it is.
type consumer struct {
	Consumer
	at    atomic.Uint64
	moved notice

	failing   atomic.Int64 // since when it could consume nothing, in nanoseconds since 1970; 0 while it can
	holdsBack bool
	pace      time.Duration
	running   atomic.Bool  // at is its cursor, and it is being fed
	holding   atomic.Bool  // Accept waits for it, and takes nothing
	held      atomic.Int64 // since when that is so, in nanoseconds since 1970
	released  notice       // it does not any more
	warned    atomic.Int64 // when that was logged, in nanoseconds since 1970

	begins *logDecoder // with which it begins; nil when it begins with the ring, and once it has
}

func (c *consumer) passed() citywarden.Position { return citywarden.Position(c.at.Load()) }

func (c *consumer) pass(p citywarden.Position) {
	c.at.Store(uint64(p))
	c.moved.broadcast()
}

// behind returns how many commit groups lie between c and the end of the log.
func (c *consumer) behind(last citywarden.Position) uint64 {
	if at := c.passed(); at < last {
		return max(last.Group()-at.Group(), 1)
	}
	return 0
}

// notice wakes whoever waits for something to happen.
type notice struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that is closed at the next broadcast.
func (n *notice) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch == nil {
		n.ch = make(chan struct{})
	}
	return n.ch
}

func (n *notice) broadcast() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch != nil {
		close(n.ch)
		n.ch = nil
	}
}

// ring keeps the newest decoded groups.
type ring struct {
	grown notice

	mu      sync.Mutex
	groups  [][]citywarden.Entry
	base    citywarden.Position // everything decoded after base is in groups
	entries int
	bytes   int
}

// start empties the ring; the next group pushed follows base.
func (r *ring) start(base citywarden.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.groups, r.base, r.entries, r.bytes = nil, base, 0, 0
}

func (r *ring) push(g []citywarden.Entry) {
	r.mu.Lock()
	r.groups = append(r.groups, g)
	r.entries += len(g)
	r.bytes += weight(g)
	for len(r.groups) > 1 && (r.entries > ringEntries || r.bytes > ringBytes) {
		old := r.groups[0]
		r.groups[0] = nil
		r.groups = r.groups[1:]
		r.base = old[len(old)-1].Position
		r.entries -= len(old)
		r.bytes -= weight(old)
	}
	r.mu.Unlock()
}

// weight is about how many bytes g takes.
func weight(g []citywarden.Entry) int {
	n := 0
	for i := range g {
		n += 256 + 96*len(g[i].Readings)
		if u := g[i].Uplink; u != nil {
			n += len(u.Payload)
		}
	}
	return n
}

// after returns entries after position p: a whole group, or several that lie behind each other, nil when
// there is none yet. ok is false when the ring does not go back to p. Groups that were
// put together stay so, for the consumers that come after.
func (r *ring) after(p citywarden.Position) (entries []citywarden.Entry, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p < r.base {
		return nil, false
	}
	i := len(r.groups) // find the oldest group that ends after p; most of the time it is the newest
	for i > 0 && last(r.groups[i-1]) > p {
		i--
	}
	if i == len(r.groups) {
		return nil, true
	}
	all, end := r.groups[i], i+1
	for size := weight(all); end < len(r.groups); end++ {
		g := r.groups[end]
		more, ok := joined(all, g)
		if size += weight(g); !ok || len(more) > batchEntries || size > batchBytes { // the ring drops what was put together as one
			break
		}
		all = more
	}
	r.groups = slices.Replace(r.groups, i, end, all)
	return slices.Clip(since(all, p)), true
}

// joined returns all entries of two groups when b lies behind a, as decoder.group leaves most of them.
func joined(a, b []citywarden.Entry) (all []citywarden.Entry, ok bool) {
	if n := len(a); n == cap(a) || &a[:n+1][n] != &b[0] {
		return nil, false
	}
	return a[:len(a)+len(b)], true
}

// newest returns the position of what was pushed last.
func (r *ring) newest() citywarden.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.groups) == 0 {
		return r.base
	}
	return last(r.groups[len(r.groups)-1])
}

func (r *ring) reaches(p citywarden.Position) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return p >= r.base
}

func last(g []citywarden.Entry) citywarden.Position { return g[len(g)-1].Position }

// since returns the part of entries after p.
func since(entries []citywarden.Entry, p citywarden.Position) []citywarden.Entry {
	for len(entries) > 0 && entries[0].Position <= p {
		entries = entries[1:]
	}
	return entries
}

// groupEnd returns a position after everything in p's commit group.
func groupEnd(p citywarden.Position) citywarden.Position {
	return citywarden.PositionAt(p.Group(), citywarden.MaxGroup-1)
}

// Run feeds the consumers until ctx is done, then returns nil. It returns an
// error when a consumer's cursor can't be read, or lies after the end of the log: then log and
// database are not of the same time and nothing would ever reach that consumer.
func (p *Pipeline) Run(ctx context.Context) error {
	var start citywarden.Position
	for _, c := range p.consumers {
		at, err := c.Cursor(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("begin consumer %s: %w", c.Name(), err)
		}
		if end := p.log.Last(); at > end {
			return citywarden.Errorf(citywarden.CodeConflict,
				"consumer %s has consumed up to commit group %d but the durable log ends at %d: log and database are not from the same time; restore both from one backup",
				c.Name(), at.Group(), end.Group())
		}
		c.pass(at)
		start = max(start, at)
	}
	for _, c := range p.consumers {
		c.running.Store(true)
		defer c.release() // nobody waits for what moves no more
		defer c.running.Store(false)
	}
	if len(p.consumers) == 0 {
		start = p.log.Last()
	}
	p.ring.start(start)
	for _, c := range p.consumers {
		if at := c.passed(); at < start {
			c.begins = p.decoders.add(p, at)
		}
	}
	tail := p.decoders.add(p, start)

	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { p.tail(ctx, tail) })
	for _, c := range p.consumers {
		running.Go(func() { p.feed(ctx, c) })
	}
	running.Go(func() { p.watch(ctx) })
	running.Go(func() { p.beat(ctx) })
	if p.trim != nil && len(p.consumers) > 0 {
		running.Go(func() { p.trimmer(ctx) })
	}
	<-ctx.Done()
	return nil
}

// tail decodes everything with d, as it comes.
func (p *Pipeline) tail(ctx context.Context, d *logDecoder) {
	d.open(ctx)
	defer d.close()
	d.waiting = p.ring.grown.broadcast
	pace := rate.NewLimiter(rate.Every(tailPace), tailBurst)
	n, size := 0, 0 // entries that the consumers were not woken for, and their bytes
	more := false   // is there for certain
	for {
		if n == 0 && !more && pace.Wait(ctx) != nil {
			return
		}
		entries, ok := d.next(ctx)
		if !ok {
			return
		}
		p.traceDecoding(entries, d.decoding)
		for i := range entries {
			if entries[i].Reject != nil {
				p.metrics.dead.Inc()
			}
		}
		p.ring.push(entries)
		runtime.Gosched() // to those who take and acknowledge messages, as feed
		n, size = n+len(entries), size+weight(entries)
		if more = last(entries).Group() < p.log.Last().Group(); more && n < batchEntries && size < batchBytes {
			continue
		}
		n, size = 0, 0
		p.ring.grown.broadcast()
	}
}

// feed hands c everything after its cursor.
func (p *Pipeline) feed(ctx context.Context, c *consumer) {
	var delivered time.Time // when c got something last
	for ctx.Err() == nil {
		grown := p.ring.grown.wait() // before looking, so that no group is missed
		entries, ok := p.ring.after(c.passed())
		switch {
		case !ok:
			p.catchUp(ctx, c)
		case len(entries) > 0:
			delivered = time.Now()
			p.deliver(ctx, c, entries)
			if !c.holdsBack { // one that may be late goes behind those who take and acknowledge messages, alarms do not
				runtime.Gosched()
			}
		default:
			select {
			case <-grown:
				pause(ctx, c.pace-time.Since(delivered))
			case <-ctx.Done():
			}
		}
	}
}

// catchUp feeds c from the log until the ring reaches back to where it is.
func (p *Pipeline) catchUp(ctx context.Context, c *consumer) {
	from := c.passed()
	p.logger.Info("consumer reads from the log", "consumer", c.Name(), "group", from.Group(), "behind", p.log.Last().Group()-from.Group())
	d := c.begins
	if c.begins = nil; d == nil {
		d = p.decoders.add(p, from)
	}
	d.open(ctx)
	defer d.close()
	var batch []citywarden.Entry
	size := 0
	deliver := func() (goOn bool) {
		p.deliver(ctx, c, slices.Clip(batch))
		batch, size = nil, 0
		return ctx.Err() == nil && !p.ring.reaches(c.passed())
	}
	for {
		entries, ok := d.next(ctx)
		if !ok {
			return
		}
		if all, ok := joined(batch, entries); ok {
			batch = all
		} else {
			if len(batch) > 0 && !deliver() {
				return
			}
			batch = entries
		}
		size += weight(entries)
		// Go on collecting while more is there for certain.
		if len(batch) < batchEntries && size < batchBytes && !p.ring.reaches(last(entries)) {
			continue
		}
		if !deliver() {
			return
		}
	}
}

// deliver has c consume entries, however often it takes.
func (p *Pipeline) deliver(ctx context.Context, c *consumer, entries []citywarden.Entry) {
	for wait := minBackoff; ; wait = min(2*wait, maxBackoff) {
		begin := time.Now()
		err := c.Consume(ctx, entries)
		p.traceConsuming(c.Name(), entries, begin, err)
		if err == nil {
			c.failing.Store(0)
			c.pass(last(entries))
			if c.holding.Load() && c.behind(p.log.Last()) <= resumeBehind {
				c.release()
			}
			return
		}
		if ctx.Err() != nil {
			return
		}
		c.failing.CompareAndSwap(0, begin.UnixNano())
		p.logger.Warn("consumer failed; it will get the same entries again", "consumer", c.Name(),
			"group", entries[0].Position.Group(), "entries", len(entries), "again_in", wait, "err", err)
		if !pause(ctx, wait) {
			return
		}
	}
}

// pause waits for d; false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// trimmer lets the log drop what every consumer is done with.
func (p *Pipeline) trimmer(ctx context.Context) {
	for pause(ctx, trimEvery) {
		p.limits.forget(p.directory)
		done := p.log.Last()
		var err error
		for _, c := range p.consumers {
			var at citywarden.Position
			if at, err = c.Cursor(ctx); err != nil {
				err = fmt.Errorf("cursor of %s: %w", c.Name(), err)
				break
			}
			done = min(done, at)
		}
		if err == nil {
			err = p.trim(ctx, done)
		}
		if err != nil && ctx.Err() == nil {
			p.logger.Warn("log not trimmed", "err", err)
		}
	}
}
