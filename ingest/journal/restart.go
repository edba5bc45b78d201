package journal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/citywarden/citywarden"
)

// A write that fails for want of room makes the embedded server give up: it
// turns JetStream off, or keeps it on and never answers again for the stream. Only a new
// server writes again.

const (
	// watchEvery is how long a write may take before the server is asked
	// whether it gave up.
	watchEvery = 200 * time.Millisecond
	// healthTimeout is how long the server may take to say so.
	healthTimeout = time.Second
	// minRetry is the time between two looks at the disk, and before the first
	// restart; every restart that helped nothing doubles it, up to maxRetry.
	minRetry = time.Second
	maxRetry = 30 * time.Second
	// maxReserve and reservePercent of the disk: the smaller must be free before the
	// server is started again.
	maxReserve     = 64 << 20
	reservePercent = 5
	// returnTimeout is how long the connection to a new server may take.
	returnTimeout = 10 * time.Second
)

// newest connects to the server that runs at the time, so that the connection
// and the stream's handle outlive a restart.
type newest struct{ *atomic.Pointer[server.Server] }

// InProcessConn implements nats.InProcessConnProvider.
func (n newest) InProcessConn() (net.Conn, error) { return n.Load().InProcessConn() }

// outage lets readers wait until the server is back.
type outage struct {
	mu    sync.Mutex
	over  chan struct{} // closed when it is over; nil when there is none
	ended uint64        // how many are over
}

func (o *outage) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over == nil {
		o.over = make(chan struct{})
	}
}

func (o *outage) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over != nil {
		close(o.over)
		o.over = nil
		o.ended++
	}
}

func (o *outage) state() (over <-chan struct{}, ended uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.over, o.ended
}

// sitOut waits until there is no outage. It returns false when reading again has no
// point: ended, from before the read that failed, says that there was none, or the log was closed.
func (j *Journal) sitOut(ctx context.Context, ended uint64) bool {
	over, now := j.outage.state()
	if over == nil {
		return now != ended
	}
	select {
	case <-over:
		return true
	case <-ctx.Done():
		return true // and the next read says so
	case <-j.closing:
		return false
	}
}

// question is one to the server, how it is.
type question struct {
	to       *server.Server
	answered chan struct{}
	err      error // the answer, once there is one
}

// broken returns why the embedded server does not write any more, nil when it
// does, is not ours, or gives no answer within healthTimeout: it waits for the disk then, as what it is asked about does.
// It is not asked again before it has answered.
func (j *Journal) broken() error {
	s := j.server.Load()
	if s == nil {
		return nil
	}
	q := j.ask(s)
	late := time.NewTimer(healthTimeout)
	defer late.Stop()
	select {
	case <-q.answered:
		return q.err
	case <-late.C:
		return nil
	}
}

// ask returns the question that s has not answered yet, or a new one.
func (j *Journal) ask(s *server.Server) *question {
	j.asked.Lock()
	defer j.asked.Unlock()
	if q := j.asked.last; q != nil && q.to == s {
		select {
		case <-q.answered:
		default:
			return q
		}
	}
	q := &question{to: s, answered: make(chan struct{})}
	j.asked.last = q
	go func() {
		q.err = unhealthy(s)
		close(q.answered)
	}()
	return q
}

// unhealthy asks the server why it does not write any more.
func unhealthy(s *server.Server) error {
	if !s.JetStreamEnabled() {
		return errors.New("JetStream turned itself off")
	}
	h := s.Healthz(&server.HealthzOptions{Account: server.DEFAULT_GLOBAL_ACCOUNT, Stream: streamName, Details: true})
	for _, e := range h.Errors {
		if e.Type == server.HealthzErrorStream || e.Type == server.HealthzErrorJetStream {
			return errors.New(e.Error)
		}
	}
	return nil
}

// watch ends the write under way when the server has given up, which it tells
// nobody. Call what it returns when the write is over.
func (j *Journal) watch(abort context.CancelCauseFunc) (stop func()) {
	if j.opts.URL != "" {
		return func() {}
	}
	var mu sync.Mutex // the timer may fire before it is assigned
	var timer *time.Timer
	over := false
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(watchEvery, func() {
		if err := j.broken(); err != nil {
			abort(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if !over {
			timer.Reset(watchEvery)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		timer.Stop()
	}
}

// turnedOff notes that the server has given up and returns what to tell.
func (j *Journal) turnedOff(cause error) error {
	wait := max(j.backoff, minRetry)
	j.retryAt, j.backoff = time.Now().Add(wait), min(2*wait, maxRetry)
	j.off = fmt.Errorf("the durable log does not write (%w); it goes on by itself when there is room on the disk of %s", cause, j.opts.Dir)
	j.outage.begin()
	return j.off
}

// revive starts a new server in the place of one that has given up, when there
// is room. It does nothing but set the time of the next attempt when there is none.
func (j *Journal) revive(ctx context.Context) {
	free, reserve, err := room(j.opts.Dir)
	if err == nil && free <= reserve {
		j.retryAt = time.Now().Add(minRetry)
		return
	}
	j.at("starting again")
	defer j.at("")
	// A disk that can't be asked is no reason to stay off.
	if err := j.restart(ctx); err != nil {
		wait := max(j.backoff, minRetry)
		j.retryAt, j.backoff = time.Now().Add(wait), min(2*wait, maxRetry)
		j.log.Error("durable log not started again", "again_in", wait, "err", err)
		return
	}
	j.off = nil
	j.failed.Store(nil)
	j.outage.end()
	j.log.Warn("durable log is back", "group", j.Last().Group())
}

// restart replaces the server and finds the end of the log.
func (j *Journal) restart(ctx context.Context) error {
	old := j.server.Load()
	old.Shutdown()
	old.WaitForShutdown()
	s, err := startServer(j.opts.Dir, true, j.log)
	if err != nil {
		return err
	}
	j.server.Store(s)
	ctx, cancel := context.WithTimeout(ctx, returnTimeout)
	defer cancel()
	for {
		err := j.resume(ctx)
		if err == nil || citywarden.CodeOf(err) == citywarden.CodeConflict {
			return err
		}
		select { // the connection comes back by itself
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// resume finds the end of the log after a restart. Groups that were reported
// as not written may be in it; those that were acknowledged must be.
func (j *Journal) resume(ctx context.Context) error {
	info, err := j.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("stream %s: %w", streamName, err)
	}
	st, end := info.State, j.Last()
	if st.LastSeq < end.Group() {
		return citywarden.Errorf(citywarden.CodeConflict,
			"the durable log ends at commit group %d, but group %d was acknowledged: restore %s from a backup", st.LastSeq, end.Group(), j.opts.Dir)
	}
	if st.LastSeq == end.Group() || st.Msgs == 0 {
		return nil
	}
	base, recs, err := j.get(ctx, st.LastSeq)
	if err != nil {
		return fmt.Errorf("read last commit group: %w", err)
	}
	last := recs[len(recs)-1]
	j.base = base + uint64(len(recs))
	j.first.CompareAndSwap(0, st.FirstSeq)
	j.mu.Lock()
	if last.At.After(j.lastAt) {
		j.lastAt = last.At
	}
	j.mu.Unlock()
	t := &j.tail
	t.Lock()
	defer t.Unlock()
	t.last, t.recent, t.bytes = last.Position, nil, 0
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
	return nil
}
