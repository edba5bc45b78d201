// Package journal is the durable log: a NATS JetStream stream, embedded or
// remote, behind a group commit that packs everything that waits into one
// message, written and synced at once.
//
//	j, err := journal.Open(ctx, journal.Options{Dir: dir, Logger: log})
//	defer j.Close()
//	go j.Run(ctx)
//	j.Append(rec, func(p citywarden.Position, err error) {
//		// err == nil: the record is on disk
//	})
//	recs, err := j.Read(ctx, cursor) // the first group after cursor
//
// The number of a message in the stream is the number of the commit group. A
// stream has one writer.
package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/time/rate"

	"github.com/citywarden/citywarden"
)

const (
	streamName = "citywarden"
	subject    = "citywarden.log"
	// directGet asks any server that has the stream for groups, leaderGet the one that leads for a group.
	directGet = "$JS.API.DIRECT.GET." + streamName
	leaderGet = "$JS.API.STREAM.MSG.GET." + streamName

	// maxQueue and maxQueueBytes bound what waits for its commit; Append blocks
	// when either is reached.
	maxQueue      = 16384
	maxQueueBytes = 16 << 20

	// maxGroup and maxGroupBytes bound one commit group.
	maxGroup      = 4096
	maxGroupBytes = 1 << 20

	// MaxPayload is the largest payload, in bytes, that a record may carry.
	MaxPayload = 1 << 20
	// maxPayload is the largest message on the wire: a group that was one byte
	// short of full and then got the largest record.
	maxPayload = maxGroupBytes + MaxPayload + 64<<10

	// An external NATS takes messages of 1 MiB unless it is told otherwise. A group has
	// groupMargin less, and at least the largest message that a device may send.
	groupMargin   = 64 << 10
	minGroupBytes = 320 << 10 // 256 KiB and what stands around it
	// clusterReplicas is on how many servers of a cluster the log is kept.
	clusterReplicas = 3

	// deafSize is more than what a record without content takes.
	deafSize = 24

	// minBytes is the smallest limit to the size of the log.
	minBytes = 16 << 20

	// commitTimeout is how long a group may take; after that its records are
	// reported as not stored, though they may be.
	commitTimeout = 15 * time.Second
	// askAgain is after what time without an answer an external NATS is asked again, leaderWait after what time when
	// it has no leader for the stream. An election takes 4 to 9 s when a server died.
	askAgain   = 3 * time.Second
	leaderWait = 100 * time.Millisecond
	// awayTimeout is for how long a group waits for a connection to an external NATS. In a cluster there is another server.
	awayTimeout = 5 * time.Second
	// slowCommit is how long a group may take until the log counts as not ready.
	slowCommit = 5 * time.Second
	// someAhead is by how much our clock is set back when messages tell; what is less makes no order of readings wrong.
	someAhead = time.Second
	// muchAhead is by how much our clock is set back when it is said, once a minute.
	muchAhead = 5 * time.Minute
	// electTimeout is how long Open waits for a cluster to have leaders.
	electTimeout = 30 * time.Second
	// drainTimeout is how long Run goes on committing after its context ended: less than the platform gives one of its parts to stop.
	drainTimeout = 3 * time.Second

	// maxRecent and maxRecentBytes bound the newest groups that Read serves
	// from memory.
	maxRecent      = 256
	maxRecentBytes = 8 << 20
)

// Options says where the log lies. Dir or URL must be set.
type Options struct {
	Dir      string        // of the embedded server's files; created when missing
	URL      string        // of an external NATS with JetStream, whose sync policy then applies; "" for the embedded server
	MaxAge   time.Duration // Trim removes what is older and consumed; 0 keeps everything
	MaxBytes int64         // at this size writes are refused until Trim made room; at least 16 MiB, 0 for no limit
	Logger   *slog.Logger  // nil for slog.Default
}

// Journal is the log. Its methods may be called by several goroutines.
type Journal struct {
	opts   Options
	log    *slog.Logger
	server atomic.Pointer[server.Server] // nil with an external NATS; the writer replaces it, see restart
	conn   *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream

	groupBytes int // of a commit group

	wake    chan struct{} // there is something in the queue
	plenty  chan struct{} // there is what the writer wants in the queue
	closing chan struct{} // Close was called

	mu      sync.Mutex // guards what follows
	room    *sync.Cond // the queue got shorter, or closed
	queue   []pending
	spare   []pending // empty: the array for the next queue, nil for a new one
	bytes   int       // of queue
	want    int       // records in it that the writer waits for, see gather
	lastAt  time.Time
	stamped time.Time // when that was, by the clock that nobody sets; zero when another process did
	stopped bool      // nothing is accepted any more

	saidAhead rate.Sometimes // that our clock was ahead

	crowd crowd // of the writer

	base uint64 // records in the log so far; used by one goroutine at a time: Open, then the writer
	buf  []byte // the array for the next group, nil for a new one; used by the writer

	abort atomic.Pointer[context.CancelCauseFunc] // ends the write under way, nil when there is none
	lost  atomic.Pointer[time.Time]               // since when there is no connection, nil while there is

	first atomic.Uint64 // number of the oldest group, 0 when there is none

	doing  atomic.Pointer[activity]
	failed atomic.Pointer[error] // why the newest group was not written, nil when it was

	unheard time.Time     // since when groups were not written, zero when the newest one was; as what follows only the writer's
	full    bool          // the newest group was refused with errFull
	off     error         // why the embedded server does not write any more, nil while it does
	retryAt time.Time     // when to look again
	backoff time.Duration // before the restart after the next one
	outage  outage

	ahead ahead

	asked struct {
		sync.Mutex
		last *question
	}

	tail struct {
		sync.Mutex
		last    citywarden.Position
		recent  []group // the newest groups, without gaps
		bytes   int     // of recent
		changed chan struct{}
	}
}

type pending struct {
	rec  citywarden.Record
	size int
	done func(citywarden.Position, error)
}

// writing is what the writer is at most of the time, as Doing says it.
const writing = "writing and syncing"

// activity is what the writer is at.
type activity struct {
	what  string
	since time.Time
}

// Doing returns what the writer is at and since when, "" when it waits for records.
func (j *Journal) Doing() (what string, since time.Time) {
	if a := j.doing.Load(); a != nil {
		return a.what, a.since
	}
	return "", time.Now()
}

// at notes what the writer is at now.
func (j *Journal) at(what string) {
	if what == "" {
		j.doing.Store(nil)
		return
	}
	j.doing.Store(&activity{what, time.Now()})
}

type group struct {
	seq  uint64
	recs []citywarden.Record
	size int
}

// Open opens the log and creates it when there is none. An embedded server
// first recovers its files.
func Open(ctx context.Context, o Options) (*Journal, error) {
	if o.Dir == "" && o.URL == "" {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "the durable log needs a directory or the URL of a NATS server")
	}
	if o.MaxBytes > 0 && o.MaxBytes < minBytes {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "the durable log needs at least %d bytes, not %d", minBytes, o.MaxBytes)
	}
	j := &Journal{opts: o, log: cmp.Or(o.Logger, slog.Default()), wake: make(chan struct{}, 1), plenty: make(chan struct{}, 1), closing: make(chan struct{}), saidAhead: rate.Sometimes{Interval: time.Minute}}
	j.room = sync.NewCond(&j.mu)
	if err := j.open(ctx); err != nil {
		j.disconnect()
		return nil, fmt.Errorf("open durable log: %w", err)
	}
	return j, nil
}

func (j *Journal) open(ctx context.Context) error {
	var err error
	opts := []nats.Option{nats.Name("citywarden journal"), nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectBufSize(-1), // without the server a write fails at once instead of being kept back
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			now := time.Now()
			j.lost.Store(&now)
			if cancel := j.abort.Load(); cancel != nil {
				(*cancel)(fmt.Errorf("%w: %w", errLost, cmp.Or(err, nats.ErrDisconnected)))
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { j.lost.Store(nil) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { j.log.Warn("nats connection", "err", err) })}
	if j.opts.URL == "" {
		s, err := startServer(j.opts.Dir, true, j.log)
		if err != nil {
			return err
		}
		j.server.Store(s)
		opts = append(opts, nats.InProcessServer(newest{&j.server}))
	}
	if j.conn, err = nats.Connect(j.opts.URL, opts...); err != nil {
		return fmt.Errorf("connect to NATS at log.url: %w", err) // not shown: it may hold a password
	}
	if j.js, err = jetstream.New(j.conn); err != nil {
		return err
	}
	maxBytes := j.opts.MaxBytes
	if maxBytes <= 0 {
		maxBytes = -1
	}
	j.groupBytes = min(maxGroupBytes, int(j.conn.MaxPayload())-groupMargin)
	if j.groupBytes < minGroupBytes {
		return citywarden.Errorf(citywarden.CodeInvalid, "NATS %s takes messages of at most %d bytes: set its max_payload to 512KB or more", j.conn.ConnectedUrlRedacted(), j.conn.MaxPayload())
	}
	for end := time.Now().Add(electTimeout); ; {
		err := j.attach(ctx, maxBytes)
		if err == nil || j.opts.URL == "" || ctx.Err() != nil || !leaderless(err) || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// leaderless reports whether err may come of a cluster that has not elected its leaders yet:
// then nobody answers.
func leaderless(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) ||
		errors.As(err, &api) && api.Code == http.StatusServiceUnavailable
}

// attach finds the stream, or makes it, and its end.
func (j *Journal) attach(ctx context.Context, maxBytes int64) error {
	replicas, err := j.replicas(ctx)
	if err != nil {
		return fmt.Errorf("stream %s: %w", streamName, err)
	}
	j.stream, err = j.js.CreateOrUpdateStream(ctx, streamConfig(maxBytes, replicas))
	switch {
	case err == nil:
		return j.recover(ctx)
	case strings.Contains(err.Error(), "insufficient storage"): // of one server and of a cluster, with codes of their own
		return fmt.Errorf("stream %s with %d replicas: %w: the servers don't have the %d MiB of log.max_bytes that each is to keep free for the log: lower log.max_bytes, or raise max_file_store of their jetstream (without it they take three quarters of what was free on their disk)",
			streamName, replicas, err, j.opts.MaxBytes>>20)
	}
	return fmt.Errorf("stream %s with %d replicas: %w", streamName, replicas, err)
}

// replicas returns on how many servers the log is kept: as many as it is already, else
// on three of a cluster, or on the one that there is.
func (j *Journal) replicas(ctx context.Context) (int, error) {
	s, err := j.js.Stream(ctx, streamName)
	switch {
	case err == nil:
		return s.CachedInfo().Config.Replicas, nil
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return 0, err
	case j.opts.URL != "" && j.conn.ConnectedClusterName() != "":
		return clusterReplicas, nil
	}
	return 1, nil
}

func streamConfig(maxBytes int64, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        streamName,
		Description: "every message of every device, in commit groups",
		Subjects:    []string{subject},
		Storage:     jetstream.FileStorage,
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew, // nothing leaves the log by itself: Trim looks at the consumers first
		MaxBytes:    maxBytes,
		MaxMsgs:     -1,
		MaxMsgSize:  maxPayload,
		Replicas:    replicas,
		AllowDirect: true, // of replicas any one answers: see fetch and getLeading
		DenyDelete:  true,
	}
}

// recover finds the end of the log.
func (j *Journal) recover(ctx context.Context) error {
	info, err := j.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("stream %s: %w", streamName, err)
	}
	st := info.State
	if st.Msgs == 0 {
		// A new log, or one whose groups were all removed by hand: go on after them.
		if st.LastSeq > 0 {
			j.tail.last = citywarden.PositionAt(st.LastSeq, citywarden.MaxGroup-1)
		}
		return nil
	}
	base, recs, err := j.get(ctx, st.LastSeq)
	if err != nil {
		return fmt.Errorf("read last commit group: %w", err)
	}
	last := recs[len(recs)-1]
	j.tail.last, j.lastAt = last.Position, last.At
	j.base = base + uint64(len(recs))
	j.first.Store(st.FirstSeq)
	return nil
}

// Append queues rec for the next commit and calls done once: with its position
// after the commit group it lies in was synced, or with a CodeTransient error
// when that failed (the record may be in the log nevertheless), or with
// CodeInvalid when rec can't be stored. Calls of done follow the order of Append and
// come from one goroutine: done must not block.
//
// Append stamps rec.At (UTC, never before the record before it) and owns rec,
// with its payload, from now on. It blocks while 16,384 records or 16 MB wait.
func (j *Journal) Append(rec citywarden.Record, done func(citywarden.Position, error)) {
	size, err := check(&rec)
	if err == nil && j.opts.URL != "" && size > j.groupBytes {
		err = citywarden.Errorf(citywarden.CodeInvalid, "message of %d bytes; NATS takes at most %d", size, j.groupBytes)
	}
	if err != nil {
		done(0, err)
		return
	}
	j.mu.Lock()
	for !j.stopped && (len(j.queue) >= maxQueue || j.bytes+size > maxQueueBytes) {
		j.room.Wait()
	}
	if j.stopped {
		j.mu.Unlock()
		done(0, errStopped())
		return
	}
	ahead := j.stamp(&rec)
	j.queue = append(j.queue, pending{rec, size, done})
	j.bytes += size
	if len(j.queue) == j.want {
		signal(j.plenty)
	}
	j.mu.Unlock()
	signal(j.wake)
	if ahead > muchAhead {
		j.saidAhead.Do(func() {
			j.log.Error("our clock was ahead and is set back: the time of the log goes on at half the pace until it has come there again, and alarms that wait for a time come late",
				"ahead", ahead.Round(time.Second))
		})
	}
}

// stamp sets At of rec and returns by how much that is ahead of our clock. When it was set back At goes on from the record before,
// at half the pace until our clock has come there again: what waits for a time waits longer, but not until then. The caller
// holds mu.
func (j *Journal) stamp(rec *citywarden.Record) (ahead time.Duration) {
	clock := time.Now()
	now := clock.Round(0).UTC()
	if ahead = j.lastAt.Sub(now); ahead > 0 {
		now = j.lastAt
		if !j.stamped.IsZero() {
			now = now.Add(clock.Sub(j.stamped) / 2)
		}
		if ahead = now.Sub(clock.Round(0)); ahead >= someAhead && rec.Kind == citywarden.RecordUplink {
			rec.Ahead = ahead
		}
	}
	rec.At, j.lastAt, j.stamped = now, now, clock
	return ahead
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func errStopped() error {
	return citywarden.Errorf(citywarden.CodeTransient, "the platform is stopping; send again")
}

// check returns about how many bytes rec takes, or why it can't be stored, and
// gives its times the form in which they are read back.
func check(rec *citywarden.Record) (size int, err error) {
	switch rec.Kind {
	case citywarden.RecordUplink:
		u := rec.Uplink
		if u == nil {
			return 0, citywarden.Errorf(citywarden.CodeInternal, "uplink record without its uplink")
		}
		if n := len(u.Payload); n > MaxPayload {
			return 0, citywarden.Errorf(citywarden.CodeInvalid, "payload of %d bytes; at most %d are taken", n, MaxPayload)
		}
		if n := len(u.Device) + len(u.Protocol) + len(u.Topic); n > 16<<10 {
			return 0, citywarden.Errorf(citywarden.CodeInvalid, "device id and topic of %d bytes; at most %d are taken", n, 16<<10)
		}
		u.Received = u.Received.Round(0).UTC()
		return len(u.Payload) + len(u.Device) + len(u.Protocol) + len(u.Topic) + 32, nil
	case citywarden.RecordTick, citywarden.RecordStart, citywarden.RecordDeaf:
		return deafSize, nil
	case citywarden.RecordOrder:
		if rec.Order == nil {
			return 0, citywarden.Errorf(citywarden.CodeInternal, "order record without its order")
		}
		o := *rec.Order
		o.Until = o.Until.Round(0).UTC()
		rec.Order = &o
		if n := len(o.Reason) + len(o.By) + len(o.Alarm); n > 16<<10 {
			return 0, citywarden.Errorf(citywarden.CodeInvalid, "order of %d bytes; at most %d are taken", n, 16<<10)
		}
		return len(o.Reason) + len(o.By) + len(o.Alarm) + 128, nil
	}
	return 0, citywarden.Errorf(citywarden.CodeInternal, "record of unknown kind %d", rec.Kind)
}

// Ready returns nil when the newest commit group was written, and the one under way takes no longer than
// slowCommit, else why not.
func (j *Journal) Ready() error {
	if err := j.failed.Load(); err != nil {
		return *err
	}
	if what, since := j.Doing(); what == writing {
		if d := time.Since(since); d >= slowCommit {
			where := "the disk of " + j.opts.Dir
			if j.opts.URL != "" {
				where = "NATS at log.url"
			}
			return citywarden.Errorf(citywarden.CodeTransient, "the durable log has been writing and syncing for %s: look at %s", d.Round(time.Second), where)
		}
	}
	return nil
}

// Last returns the position of the newest durable record, 0 when there is none.
func (j *Journal) Last() citywarden.Position {
	j.tail.Lock()
	defer j.tail.Unlock()
	return j.tail.last
}

// First returns the position of the oldest record that is kept, 0 when the log
// is empty.
func (j *Journal) First() citywarden.Position {
	if seq := j.first.Load(); seq > 0 {
		return citywarden.PositionAt(seq, 0)
	}
	return 0
}

// Close closes the log; what was not committed by then fails. Call it after
// Run returned.
func (j *Journal) Close() error {
	j.stop()
	j.mu.Lock()
	select {
	case <-j.closing:
		j.mu.Unlock()
		return nil
	default:
		close(j.closing)
	}
	j.mu.Unlock()
	for _, p := range j.take(maxQueue, maxQueueBytes) {
		p.done(0, errStopped())
	}
	j.disconnect()
	return nil
}

// stop makes Append refuse.
func (j *Journal) stop() {
	j.mu.Lock()
	j.stopped = true
	j.mu.Unlock()
	j.room.Broadcast()
}

func (j *Journal) disconnect() {
	if j.conn != nil {
		j.conn.Close()
	}
	if s := j.server.Load(); s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// take removes the oldest entries of the queue: at least one unless it is
// empty, at most n, and no more than size bytes unless the first alone is larger.
func (j *Journal) take(n, size int) []pending {
	j.mu.Lock()
	defer j.mu.Unlock()
	k, bytes := 0, 0
	for k < len(j.queue) && k < n && (k == 0 || bytes+j.queue[k].size <= size) {
		bytes += j.queue[k].size
		k++
	}
	if k == 0 {
		return nil
	}
	all := j.queue
	batch := all[:k:k]
	if j.queue = all[k:]; len(j.queue) == 0 {
		batch = all // which owns the array
		j.queue, j.spare = j.spare, nil
	}
	j.bytes -= bytes
	j.room.Broadcast()
	return batch
}

// waiting returns how many records are in the queue.
func (j *Journal) waiting() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.queue)
}

// messages returns how many messages of devices are in the queue, of more than maxFlying records all records.
func (j *Journal) messages() (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.queue) > maxFlying {
		return len(j.queue)
	}
	for i := range j.queue {
		if j.queue[i].rec.Uplink != nil {
			n++
		}
	}
	return n
}

// reuse keeps the array of a batch that is done with for the queue.
func (j *Journal) reuse(batch []pending) {
	clear(batch)
	j.mu.Lock()
	defer j.mu.Unlock()
	if cap(batch) > cap(j.spare) {
		j.spare = batch[:0]
	}
}

// errClosed is what a read gets when the log is closed under it.
var errClosed = errors.New("the durable log is closed")
