package app

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// part is one long-lived part of the process. run blocks until its context is
// done, or returns an error.
type part struct {
	name string
	run  func(context.Context) error
}

// grace is how long one part may take to stop; all of them together stay
// within 10 s, because only a part that is stuck takes it.
const grace = 4 * time.Second

// runAll runs the parts, in their order, until ctx is done or one of them
// returns; then it stops them one by one, the last first, so that no part
// outlives what it needs. It returns every error, named after its part.
func runAll(ctx context.Context, parts []part) error {
	type running struct {
		stop context.CancelFunc
		done chan struct{}
		err  error
	}
	all := make([]*running, len(parts))
	ended := make(chan int, len(parts))
	for i, p := range parts {
		pctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		r := &running{stop: stop, done: make(chan struct{})}
		all[i] = r
		go func() {
			if err := p.run(pctx); err != nil {
				r.err = fmt.Errorf("%s: %w", p.name, err)
			} else if pctx.Err() == nil {
				r.err = fmt.Errorf("%s: stopped by itself", p.name)
			}
			close(r.done)
			ended <- i
		}()
	}
	select {
	case <-ctx.Done():
	case <-ended:
	}
	var errs []error
	for i := len(parts) - 1; i >= 0; i-- {
		all[i].stop()
		select {
		case <-all[i].done:
			errs = append(errs, all[i].err)
		case <-time.After(grace):
			errs = append(errs, fmt.Errorf("%s: did not stop within %s", parts[i].name, grace))
		}
	}
	return errors.Join(errs...)
}
