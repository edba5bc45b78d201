package ingest

import (
	"context"
	"fmt"
	"time"
)

const (
	// maxBehind is how many commit groups a consumer that holds back may be
	// behind before Accept waits for it; resumeBehind is when it goes on.
	maxBehind    = 256
	resumeBehind = maxBehind / 2

	// warnEvery is how often at most it is logged that Accept waits for a consumer.
	warnEvery = time.Minute
)

// admit blocks while a consumer that holds back is too far behind. It fails
// when ctx ends, and at once when there is no room.
func (p *Pipeline) admit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.full(); err != nil {
		return err
	}
	for _, c := range p.consumers {
		if !c.holdsBack || !c.running.Load() {
			continue
		}
		if !c.holding.Load() && c.behind(p.log.Last()) <= maxBehind {
			continue
		}
		if err := p.await(ctx, c); err != nil {
			return fmt.Errorf("wait for consumer %s: %w", c.Name(), err)
		}
	}
	return nil
}

// await returns when c has caught up, or is not fed any more.
func (p *Pipeline) await(ctx context.Context, c *consumer) error {
	again := time.NewTicker(warnEvery)
	defer again.Stop()
	for {
		released := c.released.wait()
		if !c.holding.Load() {
			c.held.Store(time.Now().UnixNano())
		}
		c.holding.Store(true) // before looking, so that no release is missed
		n := c.behind(p.log.Last())
		if n <= resumeBehind || !c.running.Load() {
			c.release()
			return nil
		}
		p.warn(c, n)
		select {
		case <-released:
			// Others may have been faster to fill the log again.
			if c.behind(p.log.Last()) <= maxBehind {
				return nil
			}
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// release lets everybody go on who waits for c.
func (c *consumer) release() {
	c.holding.Store(false)
	c.released.broadcast()
}

// warn says that messages wait for c.
func (p *Pipeline) warn(c *consumer, behind uint64) {
	now, before := time.Now().UnixNano(), c.warned.Load()
	if before != 0 && now-before < int64(warnEvery) || !c.warned.CompareAndSwap(before, now) {
		return
	}
	p.logger.Warn("messages are not acknowledged: a consumer is behind", "consumer", c.Name(), "groups", behind)
}
