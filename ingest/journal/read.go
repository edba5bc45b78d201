package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/citywarden/citywarden"
)

// Read returns the records after position after that lie in the first commit
// group that has any, and blocks until there is one. A whole group may be skipped
// with PositionAt(group, MaxGroup-1), which saves reading it again. While the embedded
// server is off, Read waits for it. Records that
// were trimmed are passed over. The caller must not change what it gets.
func (j *Journal) Read(ctx context.Context, after citywarden.Position) ([]citywarden.Record, error) {
	for {
		seq := after.Group()
		if uint64(after)%citywarden.MaxGroup == citywarden.MaxGroup-1 || seq == 0 {
			seq++
		}
		seq = max(seq, j.first.Load())
		recs, oldest, changed := j.fromMemory(seq, after)
		if recs != nil {
			return recs, nil
		}
		if changed != nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-j.closing:
				return nil, errClosed
			}
		}
		_, ended := j.outage.state()
		data, at, err := j.next(ctx, seq, oldest-1)
		if err == nil {
			_, recs, err = unpack(at, data)
		}
		if err != nil {
			if j.sitOut(ctx, ended) {
				continue
			}
			return nil, fmt.Errorf("read log at group %d: %w", seq, err)
		}
		if recs = since(recs, after); len(recs) > 0 {
			return recs, nil
		}
		after = citywarden.PositionAt(seq, citywarden.MaxGroup-1)
	}
}

// fromMemory returns the records of group seq, or of the next one, that are
// after after; nil when they must be read from the stream, which has all before the oldest that is in memory; changed when
// there are none yet.
func (j *Journal) fromMemory(seq uint64, after citywarden.Position) (recs []citywarden.Record, oldest uint64, changed <-chan struct{}) {
	t := &j.tail
	t.Lock()
	defer t.Unlock()
	if after >= t.last || t.last.Group() < seq || j.first.Load() == 0 {
		if t.changed == nil {
			t.changed = make(chan struct{})
		}
		return nil, 0, t.changed
	}
	if len(t.recent) == 0 {
		return nil, t.last.Group() + 1, nil
	}
	if oldest = t.recent[0].seq; seq < oldest {
		return nil, oldest, nil
	}
	for i := int(seq - t.recent[0].seq); i < len(t.recent); i++ {
		if recs = since(t.recent[i].recs, after); len(recs) > 0 {
			return recs, 0, nil
		}
	}
	return nil, t.last.Group() + 1, nil
}

// since returns the part of recs after position after.
func since(recs []citywarden.Record, after citywarden.Position) []citywarden.Record {
	i := sort.Search(len(recs), func(i int) bool { return recs[i].Position > after })
	return recs[i:]
}

// get reads group seq, or the first that is left after it.
func (j *Journal) get(ctx context.Context, seq uint64) (base uint64, recs []citywarden.Record, err error) {
	data, seq, err := j.one(ctx, seq)
	if err != nil {
		return 0, nil, err
	}
	return unpack(seq, data)
}

// one reads group seq, or the first that is left after it, from the server that leads, and returns its number.
func (j *Journal) one(ctx context.Context, seq uint64) (group []byte, at uint64, err error) {
	var msg *jetstream.RawStreamMsg
	if j.stream.CachedInfo().Config.Replicas == 1 {
		msg, err = j.stream.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(subject))
	} else {
		msg, err = j.getLeading(ctx, seq)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
		return nil, 0, citywarden.Errorf(citywarden.CodeTransient, "%w", err)
	}
	return msg.Data, msg.Sequence, nil
}

// getLeading is GetMsg, which would ask any server: one that does not lead may not have the newest group yet.
func (j *Journal) getLeading(ctx context.Context, seq uint64) (*jetstream.RawStreamMsg, error) {
	ask, err := json.Marshal(server.JSApiMsgGetRequest{Seq: seq, NextFor: subject})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	msg, err := j.conn.RequestWithContext(ctx, leaderGet, ask)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message server.StoredMsg    `json:"message"`
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return nil, err
	}
	if answer.Error != nil {
		return nil, answer.Error
	}
	return &jetstream.RawStreamMsg{Sequence: answer.Message.Sequence, Data: answer.Message.Data}, nil
}

// unpack decodes group seq.
func unpack(seq uint64, data []byte) (base uint64, recs []citywarden.Record, err error) {
	if base, recs, err = decodeGroup(seq, data); err != nil {
		return 0, nil, fmt.Errorf("commit group %d is damaged: %w", seq, err)
	}
	return base, recs, nil
}

// Seek returns the position of the last record before t, 0 when none is kept,
// and when the oldest record that is kept was logged, zero in an empty log.
func (j *Journal) Seek(ctx context.Context, t time.Time) (before citywarden.Position, oldest time.Time, err error) {
	first, last := j.first.Load(), j.Last().Group()
	if first == 0 {
		return 0, time.Time{}, nil
	}
	_, recs, err := j.get(ctx, first)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("look for the beginning of the log: %w", err)
	}
	oldest, first = recs[0].At, recs[0].Position.Group()
	// The first group with a record at t or later; it may be trimmed meanwhile.
	var failed error
	i := sort.Search(int(last-first+1), func(i int) bool {
		_, recs, err := j.get(ctx, first+uint64(i))
		failed = errors.Join(failed, err)
		return err != nil || !recs[len(recs)-1].At.Before(t)
	})
	if failed != nil {
		return 0, time.Time{}, fmt.Errorf("look for %s in the log: %w", t.Format(time.RFC3339), failed)
	}
	if first+uint64(i) > last {
		return j.Last(), oldest, nil
	}
	if _, recs, err = j.get(ctx, first+uint64(i)); err != nil {
		return 0, time.Time{}, fmt.Errorf("look for %s in the log: %w", t.Format(time.RFC3339), err)
	}
	if k := sort.Search(len(recs), func(k int) bool { return !recs[k].At.Before(t) }); k > 0 {
		return recs[k-1].Position, oldest, nil
	}
	if i == 0 {
		return 0, oldest, nil
	}
	return citywarden.PositionAt(first+uint64(i)-1, citywarden.MaxGroup-1), oldest, nil
}

// Back returns a position that has at least n records between itself and p, 0
// when the log does not go back so far.
func (j *Journal) Back(ctx context.Context, p citywarden.Position, n uint64) (citywarden.Position, error) {
	first, seq := j.first.Load(), p.Group()
	if first == 0 || seq <= first {
		return 0, nil
	}
	base, _, err := j.get(ctx, min(seq, j.Last().Group()))
	if err != nil {
		return 0, fmt.Errorf("look back from group %d: %w", seq, err)
	}
	if base <= n {
		return 0, nil
	}
	// The last group that begins at or before the record that is wanted.
	var failed error
	i := sort.Search(int(seq-first), func(i int) bool {
		b, _, err := j.get(ctx, first+uint64(i))
		failed = errors.Join(failed, err)
		return err != nil || b > base-n
	})
	if failed != nil {
		return 0, fmt.Errorf("look back from group %d: %w", seq, failed)
	}
	if i < 2 {
		return 0, nil
	}
	return citywarden.PositionAt(first+uint64(i)-2, citywarden.MaxGroup-1), nil
}

// Trim removes commit groups that are older than Options.MaxAge, and the oldest
// ones when a tenth of Options.MaxBytes is not free, but never one with a record
// after consumed and never the last.
func (j *Journal) Trim(ctx context.Context, consumed citywarden.Position) error {
	info, err := j.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("trim log: %w", err)
	}
	st := info.State
	limit := min(consumed.Group(), st.LastSeq) // the first group that stays in any case
	if st.Msgs == 0 || limit <= st.FirstSeq {
		return nil
	}
	keep := st.FirstSeq
	if j.opts.MaxAge > 0 {
		cut := time.Now().Add(-j.opts.MaxAge)
		var failed error
		keep += uint64(sort.Search(int(limit-st.FirstSeq), func(i int) bool {
			_, recs, err := j.get(ctx, st.FirstSeq+uint64(i))
			failed = errors.Join(failed, err)
			return err != nil || recs[len(recs)-1].At.After(cut)
		}))
		if failed != nil {
			return fmt.Errorf("trim log: %w", failed)
		}
	}
	if full := j.opts.MaxBytes - max(j.opts.MaxBytes/10, 2*maxPayload); full > 0 && int64(st.Bytes) > full {
		// By the average size of a group: near enough, and Trim comes again.
		over := (st.Bytes - uint64(full)) / max(st.Bytes/st.Msgs, 1)
		keep = max(keep, st.FirstSeq+over+1)
	}
	keep = min(keep, limit)
	if keep <= st.FirstSeq {
		return nil
	}
	if err := j.stream.Purge(ctx, jetstream.WithPurgeSequence(keep)); err != nil {
		return fmt.Errorf("trim log before group %d: %w", keep, err)
	}
	j.first.Store(keep)
	j.log.Info("log trimmed", "first_group", keep, "groups", keep-st.FirstSeq)
	if failed := j.failed.Load(); failed != nil && errors.Is(*failed, errFull) {
		j.failed.CompareAndSwap(failed, nil) // ready again, also while nobody sends anything
	}
	return nil
}
