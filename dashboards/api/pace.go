package api

import (
	"sync"
	"time"
)

// pace lets each key do something so many times at once, and then once in every
// interval. It remembers at most maxKeys keys; when there are more, it forgets
// all that have had their rest, and else refuses new ones.
type pace struct {
	burst    int
	interval time.Duration

	mu   sync.Mutex
	free map[string]time.Time // when the key has its whole burst again
}

func newPace(burst int, interval time.Duration) *pace {
	return &pace{burst: burst, interval: interval, free: map[string]time.Time{}}
}

// take returns 0 when key may do it now, else how long it has to wait.
func (p *pace) take(key string) time.Duration { return p.takeAt(key, p.burst, p.interval) }

// takeAt is take for a key that has a burst and an interval of its own.
func (p *pace) takeAt(key string, burst int, interval time.Duration) time.Duration {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	free, ok := p.free[key]
	if !ok && len(p.free) >= maxKeys {
		for k, t := range p.free {
			if !t.After(now) {
				delete(p.free, k)
			}
		}
		if len(p.free) >= maxKeys {
			return interval
		}
	}
	if free.Before(now) {
		free = now
	}
	free = free.Add(interval)
	if wait := free.Sub(now) - time.Duration(burst)*interval; wait > 0 {
		return wait
	}
	p.free[key] = free
	return 0
}
