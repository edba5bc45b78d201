package journal

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/citywarden/citywarden"
)

const (
	// maxStretch and maxStretchBytes bound what is asked for at once when the log is read back. The group that reaches the second
	// is the last one.
	maxStretch      = 256
	maxStretchBytes = 256 << 10
	// maxAheadBytes bounds what was read ahead, of all readers together; the stretch that was used last may be larger.
	maxAheadBytes = 8 << 20
	// aheadOverhead is what a group takes besides its content: the headers in front of it.
	aheadOverhead = 256
	// answerTimeout is how long the server may say nothing when it is asked for groups.
	answerTimeout = 5 * time.Second
)

// ahead holds the groups that follow those which readers of the log took. A reader that goes on from there takes
// the next one without asking the server.
type ahead struct {
	sync.Mutex
	stretches []stretch // the one that was used last is the last
	bytes     int
}

// stretch is groups that follow each other, as they are in the stream; never empty.
type stretch struct {
	next   uint64 // number of the first
	groups [][]byte
}

// take returns group seq and forgets it, nil when it was not read ahead.
func (a *ahead) take(seq uint64) []byte {
	a.Lock()
	defer a.Unlock()
	i := slices.IndexFunc(a.stretches, func(s stretch) bool { return s.next == seq })
	if i < 0 {
		return nil
	}
	r := a.stretches[i]
	a.stretches = slices.Delete(a.stretches, i, i+1)
	group := r.groups[0]
	a.bytes -= len(group) + aheadOverhead
	r.groups[0] = nil
	if r.groups = r.groups[1:]; len(r.groups) > 0 {
		r.next++
		a.stretches = append(a.stretches, r)
	}
	return group
}

// keep keeps groups from next on. What nobody used for longest goes when there is too much.
func (a *ahead) keep(next uint64, groups [][]byte) {
	if len(groups) == 0 {
		return
	}
	a.Lock()
	defer a.Unlock()
	a.stretches = append(a.stretches, stretch{next, groups})
	a.bytes += size(groups)
	n := 0
	for ; a.bytes > maxAheadBytes && n < len(a.stretches)-1; n++ {
		a.bytes -= size(a.stretches[n].groups)
	}
	a.stretches = slices.Delete(a.stretches, 0, n)
}

func size(groups [][]byte) (n int) {
	for _, g := range groups {
		n += len(g) + aheadOverhead
	}
	return n
}

// next returns group seq, or the first that is left after it, and its number. Of those that follow it keeps some for who
// goes on from there, but none after last, which must be in the log.
func (j *Journal) next(ctx context.Context, seq, last uint64) (group []byte, at uint64, err error) {
	if group = j.ahead.take(seq); group != nil {
		return group, seq, nil
	}
	if seq < last {
		groups, err := j.fetch(ctx, seq, last)
		if err != nil {
			return nil, 0, err
		}
		if len(groups) > 0 {
			j.ahead.keep(seq+1, groups[1:])
			return groups[0], seq, nil
		}
	}
	return j.one(ctx, seq) // the last, one that is gone, or the server that was asked can't tell
}

// fetch asks for the groups from seq to last and returns some that follow each other from seq on: as many as fit in a
// stretch, fewer when the server that answers lacks the others, or is one before NATS 2.11; none when it has not got seq.
func (j *Journal) fetch(ctx context.Context, seq, last uint64) (groups [][]byte, err error) {
	n := int(min(last-seq+1, maxStretch))
	ask, err := json.Marshal(server.JSApiMsgGetRequest{Seq: seq, Batch: n, MaxBytes: maxStretchBytes})
	if err != nil {
		return nil, err
	}
	answers := make(chan *nats.Msg, n+1) // and the end
	sub, err := j.conn.ChanSubscribe(j.conn.NewInbox(), answers)
	if err == nil {
		defer func() { _ = sub.Unsubscribe() }() // fails without a connection, which ends it too
		err = j.conn.PublishRequest(directGet, sub.Subject, ask)
	}
	if err != nil {
		return nil, citywarden.Errorf(citywarden.CodeTransient, "%w", err)
	}
	late := time.NewTimer(answerTimeout)
	defer late.Stop()
	for len(groups) < n {
		select {
		case m := <-answers:
			at, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
			if err != nil || at != seq+uint64(len(groups)) {
				return groups, nil // the end, nobody to ask, or one is missing
			}
			groups = append(groups, m.Data)
			if m.Header.Get("Nats-Num-Pending") == "" {
				return groups, nil // this server gives one at a time
			}
			late.Reset(answerTimeout)
		case <-late.C:
			if len(groups) == 0 { // else the connection broke on the way
				return nil, citywarden.Errorf(citywarden.CodeTransient, "%w", nats.ErrTimeout)
			}
			return groups, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-j.closing:
			return nil, errClosed
		}
	}
	return groups, nil
}
