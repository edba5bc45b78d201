package journal

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/citywarden/citywarden"
)

// Run is the writer: it packs whatever waits into a commit group, has it
// written and synced, and completes its records; what comes meanwhile makes the next group. A lone
// producer therefore waits for one sync and many share one, see pace. A group that can't be
// written fails alone; Run goes on with the next, which begins with a RecordDeaf that says since when nothing was stored, if that is an outage. When the embedded server has
// stopped writing, as it does on a full disk, groups fail at once until there is room and
// Run has started it again. When ctx is done Append
// refuses, what waits is still committed, for at most drainTimeout, and Run returns nil.
func (j *Journal) Run(ctx context.Context) error {
	hurry, cancel := context.WithCancelCause(context.WithoutCancel(ctx)) // ends when stopping takes too long
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() {
		select {
		case <-time.After(drainTimeout):
			cancel(errStopped())
		case <-hurry.Done():
		}
	})()
	for ctx.Err() == nil {
		var retry <-chan time.Time
		if j.off != nil {
			retry = time.After(time.Until(j.retryAt))
		}
		select {
		case <-ctx.Done():
		case <-j.wake:
			j.commitAll(hurry, ctx.Done())
		case <-retry:
			j.revive(hurry)
		}
	}
	j.stop()
	j.retryAt = time.Now().Add(drainTimeout) // a stop does not wait for a restart
	j.commitAll(hurry, nil)
	return nil
}

// commitAll commits until the queue is empty, or stop is closed.
func (j *Journal) commitAll(ctx context.Context, stop <-chan struct{}) {
	for {
		j.gather(stop)
		select {
		case <-stop:
			return
		default:
		}
		batch := j.take(maxGroup, j.groupBytes)
		if batch == nil {
			return
		}
		j.commit(ctx, batch)
	}
}

// errLost is why nobody knows what became of a write.
var errLost = errors.New("connection lost")

// errFull is why a log of MaxBytes takes nothing until Trim made room.
var errFull = errors.New("the log is full")

// commit writes one group and tells everyone.
func (j *Journal) commit(ctx context.Context, batch []pending) {
	recs := make([]citywarden.Record, 0, len(batch)+1)
	size := 0
	if lasted := batch[0].rec.At.Sub(j.unheard); !j.unheard.IsZero() && lasted >= citywarden.Outage { // before all others, so that they find nobody silent for it
		recs = append(recs, citywarden.Record{Kind: citywarden.RecordDeaf, At: batch[0].rec.At, Lasted: lasted})
		size += deafSize
	}
	first := len(recs)
	for i := range batch {
		recs = append(recs, batch[i].rec)
		size += batch[i].size
	}
	j.crowd.note(recs)
	off := j.off
	j.at(writing)
	seq, err := j.write(ctx, recs, size)
	j.at("completing")
	defer j.at("")
	j.crowd.noteEnd(recs, j.messages())
	if err != nil {
		err = citywarden.Errorf(citywarden.CodeTransient, "write %d records to the durable log: %w", len(batch), err)
		full := errors.Is(err, errFull)
		if (j.off == nil || j.off != off) && !(full && j.full) { // what is off or full is said once: groups then fail as fast as they come
			j.log.Error("commit group not written", "records", len(batch), "err", err)
		}
		j.full = full
		j.failed.Store(&err)
		if j.unheard.IsZero() {
			j.unheard = batch[0].rec.At
		}
		for i := range batch {
			batch[i].done(0, err)
		}
		return
	}
	j.failed.Store(nil)
	j.backoff, j.unheard = 0, time.Time{}
	if j.full {
		j.full = false
		j.log.Info("the log has room again")
	}
	for i := range recs {
		recs[i].Position = citywarden.PositionAt(seq, i)
	}
	j.first.CompareAndSwap(0, seq)
	j.publish(group{seq, recs, size})
	for i := range batch {
		batch[i].done(recs[first+i].Position, nil)
	}
	j.reuse(batch)
}

// write returns the number of the group once it is synced.
func (j *Journal) write(ctx context.Context, recs []citywarden.Record, size int) (seq uint64, err error) {
	if ctx.Err() != nil {
		return 0, errStopped()
	}
	if j.off != nil && !time.Now().Before(j.retryAt) {
		j.revive(ctx)
		j.at(writing)
	}
	if j.off != nil {
		return 0, j.off
	}
	b, err := appendGroup(slices.Grow(j.buf[:0], size+len(recs)*8+32), j.base, recs)
	if err != nil {
		return 0, err
	}
	j.buf = nil
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	began := time.Now()
	ack, err := j.send(ctx, b)
	took := time.Since(began).Round(time.Second)
	switch { // what it says is not about the caller's time
	case errors.Is(err, context.DeadlineExceeded) && j.opts.URL == "":
		err = fmt.Errorf("not on disk after %s: look at the disk of %s", took, j.opts.Dir)
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("not confirmed after %s: look at NATS at log.url", took)
	case errors.Is(err, jetstream.ErrNoStreamResponse) && j.opts.URL != "":
		err = fmt.Errorf("for %s no server at log.url led the stream %s: look at NATS with nats stream info %[2]s", took, streamName)
	case err != nil && strings.Contains(err.Error(), server.ErrMaxBytes.Error()): // JetStream has no code of its own for it
		err = fmt.Errorf("%w: it has reached log.max_bytes (%d MiB) and a consumer has not dealt with what is oldest in it; citywarden_consumer_lag tells which: bring back what it writes to, or raise log.max_bytes",
			errFull, j.opts.MaxBytes>>20)
	}
	if err != nil {
		if broken := j.broken(); broken != nil {
			return 0, j.turnedOff(broken)
		}
		return 0, err
	}
	j.base += uint64(len(recs))
	j.buf = b // acknowledged, so nobody reads it any more
	return ack.Sequence, nil
}

// send has a group written, and returns what the server says of it. External servers are asked again, until ctx ends: when nobody leads
// the stream, as while a cluster elects who does, when nobody answers, as when the one that had taken the group died, and when the
// connection was lost, if there is another one within awayTimeout. They know a group that they have by its id, and say where it is.
func (j *Journal) send(ctx context.Context, group []byte) (*jetstream.PubAck, error) {
	if j.opts.URL == "" {
		return j.sendOnce(ctx, group)
	}
	id := jetstream.WithMsgID(rand.Text())
	for {
		try, cancel := context.WithTimeout(ctx, askAgain)
		ack, err := j.sendOnce(try, group, id)
		cancel()
		if err == nil || ctx.Err() != nil || !unsure(err) {
			return ack, err
		}
		if lost := j.lost.Load(); lost != nil && time.Since(*lost) > awayTimeout {
			return nil, fmt.Errorf("for %s no connection to NATS at log.url", time.Since(*lost).Round(time.Second))
		}
		select {
		case <-time.After(leaderWait):
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
				err = cause
			}
			return nil, err
		}
	}
}

// unsure reports whether err leaves open who has what was sent, or whether anybody will.
func unsure(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, errLost) || errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, jetstream.ErrNoStreamResponse) ||
		errors.As(err, &api) && (api.ErrorCode == jetstream.ErrorCode(server.JSClusterNotAvailErr) || api.ErrorCode == jetstream.ErrorCode(server.JSStreamDuplicateMessageConflict))
}

// sendOnce has a group written, and ends when the connection is lost.
func (j *Journal) sendOnce(ctx context.Context, group []byte, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	j.abort.Store(&abort)
	defer j.watch(abort)()
	ack, err := j.js.Publish(ctx, subject, group, append(opts, jetstream.WithExpectStream(streamName), jetstream.WithRetryAttempts(0))...)
	j.abort.Store(nil)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause // says more than that the context ended
	}
	return ack, err
}

// publish makes g visible to Read.
func (j *Journal) publish(g group) {
	t := &j.tail
	t.Lock()
	defer t.Unlock()
	if n := len(t.recent); n > 0 && t.recent[n-1].seq+1 != g.seq {
		t.recent, t.bytes = nil, 0 // a group that was reported as failed lies between
	}
	t.last = g.recs[len(g.recs)-1].Position
	t.recent = append(t.recent, g)
	t.bytes += g.size
	for len(t.recent) > 1 && (len(t.recent) > maxRecent || t.bytes > maxRecentBytes) {
		t.bytes -= t.recent[0].size
		t.recent[0] = group{}
		t.recent = t.recent[1:]
	}
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}
