package api

import (
	"sync"
	"time"
)

// limiter counts wrong tries per key. After max of them within a minute from
// one to the next, the key is refused until a minute has passed. It remembers
// at most maxKeys keys and forgets the one that was quiet longest.
type limiter struct {
	max int

	mu   sync.Mutex
	keys map[string]tries
}

type tries struct {
	n     int
	until time.Time // when n is forgotten
}

const (
	coolDown = time.Minute
	maxKeys  = 4096
)

func newLimiter(max int) *limiter { return &limiter{max: max, keys: map[string]tries{}} }

// try counts one more try of key, as a wrong one until forgive or forget. It
// returns for how long key is refused, 0 when it is not.
func (l *limiter) try(key string) time.Duration {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.keys[key]
	if ok && now.Before(t.until) && t.n >= l.max {
		return t.until.Sub(now)
	}
	if !now.Before(t.until) {
		t.n = 0
	}
	if !ok && len(l.keys) >= maxKeys {
		l.makeRoom(now)
	}
	l.keys[key] = tries{n: t.n + 1, until: now.Add(coolDown)}
	return 0
}

// forgive takes back one try of key: it was a right one.
func (l *limiter) forgive(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t, ok := l.keys[key]; ok && t.n > 0 {
		if t.n--; t.n == 0 {
			delete(l.keys, key)
			return
		}
		l.keys[key] = t
	}
}

// forget forgets all tries of key.
func (l *limiter) forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.keys, key)
}

func (l *limiter) makeRoom(now time.Time) {
	var oldest string
	var until time.Time
	for k, t := range l.keys {
		if !now.Before(t.until) {
			delete(l.keys, k)
		} else if until.IsZero() || t.until.Before(until) {
			oldest, until = k, t.until
		}
	}
	if len(l.keys) >= maxKeys {
		delete(l.keys, oldest)
	}
}
