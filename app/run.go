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

// How long a stop may take.
const (
	grace     = 4 * time.Second // one part
	stopLimit = 9 * time.Second // all of them: a service manager waits for 10 s
)

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
	end := time.Now().Add(stopLimit)
	for i := len(parts) - 1; i >= 0; i-- {
		all[i].stop()
		select {
		case <-all[i].done:
			errs = append(errs, all[i].err)
		case <-time.After(min(grace, time.Until(end))):
			errs = append(errs, fmt.Errorf("%s: did not stop in time", parts[i].name))
		}
	}
	return errors.Join(errs...)
}
