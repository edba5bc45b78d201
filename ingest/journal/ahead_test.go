package journal

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/citywarden/citywarden"
)

// written writes n groups of one record with size bytes and opens the log again, so that none is in memory.
func written(t testing.TB, o Options, n, size int) *Journal {
	t.Helper()
	j := open(t, o)
	stop := run(t, j)
	for i := range n {
		r := uplink(i)
		r.Uplink.Payload = append(r.Uplink.Payload, strings.Repeat(" ", max(size-len(r.Uplink.Payload), 0))...)
		if _, err := put(j, r); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	j.Close()
	return open(t, o)
}

// whole is the position behind all of a group, as consumers ask.
func whole(recs []citywarden.Record) citywarden.Position {
	return citywarden.PositionAt(recs[0].Position.Group(), citywarden.MaxGroup-1)
}

// groups reads group by group up to the end of the log.
func groups(t *testing.T, j *Journal, after citywarden.Position) (list []citywarden.Record) {
	t.Helper()
	for after < j.Last() {
		recs, err := j.Read(t.Context(), after)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, recs...)
		after = whole(recs)
	}
	return list
}

func TestTheLogIsReadBackWithFewRequests(t *testing.T) {
	j := written(t, Options{Dir: t.TempDir()}, 700, 0)
	before := j.conn.Stats().OutMsgs
	if diff := cmp.Diff(numbers(0, 700), payloads(groups(t, j, 0))); diff != "" {
		t.Errorf("records:\n%s", diff)
	}
	if n := j.conn.Stats().OutMsgs - before; n > 3 {
		t.Errorf("700 groups took %d requests, want 3", n)
	}
	if len(j.ahead.stretches) > 0 || j.ahead.bytes != 0 {
		t.Errorf("when all is read %d stretches are kept, with %d bytes", len(j.ahead.stretches), j.ahead.bytes)
	}
	before = j.conn.Stats().OutMsgs
	if first, last, err := j.Backup(t.Context(), new(strings.Builder)); err != nil || first != 1 || last != 700 {
		t.Errorf("Backup = groups %d to %d, %v", first, last, err)
	}
	if n := j.conn.Stats().OutMsgs - before; n > 3 {
		t.Errorf("a backup of 700 groups took %d requests, want 3", n)
	}
}

// TestManyReadersOfTheLog: each goes its own way, and what is read ahead for them all is bounded.
func TestManyReadersOfTheLog(t *testing.T) {
	const readers, between = 60, 7
	j := written(t, Options{Dir: t.TempDir()}, readers*between, 50<<10) // six in a stretch: the readers would keep 15 MB
	at := make([]citywarden.Position, readers)
	for i := range at {
		at[i] = citywarden.PositionAt(uint64(i*between), citywarden.MaxGroup-1)
	}
	most := 0
	for more := true; more; {
		more = false
		for i := range at {
			if at[i] >= j.Last() {
				continue
			}
			more = true
			recs, err := j.Read(t.Context(), at[i])
			if err != nil {
				t.Fatal(err)
			}
			if g := recs[0].Position.Group(); g != at[i].Group()+1 || strings.TrimSpace(string(recs[0].Uplink.Payload)) != numbers(int(g)-1, int(g))[0] {
				t.Fatalf("after group %d comes %d with %.10q", at[i].Group(), g, recs[0].Uplink.Payload)
			}
			at[i] = whole(recs)
			kept := 0
			for _, s := range j.ahead.stretches {
				kept += size(s.groups)
			}
			if kept != j.ahead.bytes {
				t.Fatalf("%d bytes are kept, counted as %d", kept, j.ahead.bytes)
			}
			most = max(most, kept)
		}
	}
	if most > maxAheadBytes || most < maxAheadBytes/2 {
		t.Errorf("at most %d bytes were kept, want up to %d", most, maxAheadBytes)
	}
}

// TestReadingBackWhileTheLogIsTrimmed: a reader goes on with what it has, and then with what is left.
func TestReadingBackWhileTheLogIsTrimmed(t *testing.T) {
	j := written(t, Options{Dir: t.TempDir(), MaxAge: time.Nanosecond}, 400, 0)
	recs, err := j.Read(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Trim(t.Context(), citywarden.PositionAt(300, 0)); err != nil || j.First().Group() != 300 {
		t.Fatalf("Trim = %v and the log begins at %d", err, j.First().Group())
	}
	want := append([]string{"0"}, numbers(299, 400)...)
	if diff := cmp.Diff(want, payloads(append(recs, groups(t, j, whole(recs))...))); diff != "" {
		t.Errorf("records:\n%s", diff)
	}
}

// TestReadingBackOverAHole: groups that are gone in the middle are passed over, as when each was asked for.
func TestReadingBackOverAHole(t *testing.T) {
	j := holed(t, 40, 0, []uint64{5, 6, 20})
	want := slices.DeleteFunc(numbers(0, 40), func(n string) bool { return n == "4" || n == "5" || n == "19" })
	if diff := cmp.Diff(want, payloads(groups(t, j, 0))); diff != "" {
		t.Errorf("records:\n%s", diff)
	}
}

// TestAReaderMeetsTheWriter: from what is on disk to what is only being written, without waiting for a batch to fill.
func TestAReaderMeetsTheWriter(t *testing.T) {
	const old, more = 400, 400
	j := written(t, Options{Dir: t.TempDir()}, old, 0)
	run(t, j)
	go func() {
		for i := range more {
			if _, err := put(j, uplink(old+i)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got []string
	for after := citywarden.Position(0); len(got) < old+more; {
		begin := time.Now()
		recs, err := j.Read(ctx, after)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d > answerTimeout/2 {
			t.Errorf("after %d it took %s", after.Group(), d)
		}
		got = append(got, payloads(recs)...)
		after = whole(recs)
	}
	if diff := cmp.Diff(numbers(0, old+more), got); diff != "" {
		t.Errorf("records:\n%s", diff)
	}
}

// TestABatchThatBreaksOnTheWay is no gap: the reader goes on behind what it got.
func TestABatchThatBreaksOnTheWay(t *testing.T) {
	t.Parallel()
	nats := external(t, t.TempDir(), server.RANDOM_PORT, maxPayload)
	written(t, Options{URL: nats.ClientURL()}, 250, 1000).Close()
	for _, breaks := range []bool{true, false} {
		s := &swallow{server: nats.Addr().String(), what: "Nats-Sequence: 200\r\n", breaks: breaks}
		j := open(t, Options{URL: "nats://" + s.listen(t)})
		s.mu.Lock()
		s.ready = true
		s.mu.Unlock()
		var got []string
		failed := 0
		for after := citywarden.Position(0); after < j.Last(); {
			recs, err := j.Read(t.Context(), after)
			if err != nil {
				if failed++; failed > 100 || citywarden.CodeOf(err) != citywarden.CodeTransient {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond)
				continue
			}
			got = append(got, strings.TrimSpace(payloads(recs)[0]))
			after = whole(recs)
		}
		if diff := cmp.Diff(numbers(0, 250), got); diff != "" {
			t.Errorf("breaks=%t: records:\n%s", breaks, diff)
		}
		if s.mu.Lock(); s.ready {
			t.Error("nothing was taken away")
		}
		s.mu.Unlock()
	}
}

// TestReadingBackFromAServerThatIsAway: what was read ahead is still there, then the reader is told, and after the server came back it goes on.
func TestReadingBackFromAServerThatIsAway(t *testing.T) {
	dir := t.TempDir()
	s := external(t, dir, server.RANDOM_PORT, maxPayload)
	port := s.Addr().(*net.TCPAddr).Port
	j := written(t, Options{URL: s.ClientURL()}, maxStretch+50, 0)
	recs, err := j.Read(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	got := payloads(recs)
	s.Shutdown()
	s.WaitForShutdown()
	after := whole(recs)
	for {
		recs, err := j.Read(t.Context(), after)
		if err != nil {
			if citywarden.CodeOf(err) != citywarden.CodeTransient {
				t.Fatal(err)
			}
			break
		}
		got = append(got, payloads(recs)...)
		after = whole(recs)
	}
	if len(got) != maxStretch {
		t.Errorf("%d groups without the server, want %d", len(got), maxStretch)
	}
	external(t, dir, port, maxPayload)
	eventually(t, func() error {
		_, err := j.Read(t.Context(), after)
		return err
	})
	if diff := cmp.Diff(numbers(0, maxStretch+50), append(got, payloads(groups(t, j, after))...)); diff != "" {
		t.Errorf("records:\n%s", diff)
	}
}

// TestReadingBackFromOtherServers: one before NATS 2.11 gives the first of a batch and no end, one may give no batches to us, and
// one may give nothing at all.
func TestReadingBackFromOtherServers(t *testing.T) {
	s := external(t, t.TempDir(), server.RANDOM_PORT, maxPayload)
	j := written(t, Options{URL: s.ClientURL()}, 20, 0)
	c := j.stream.CachedInfo().Config
	c.AllowDirect = false
	if _, err := j.js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if groups, err := j.fetch(t.Context(), 1, 20); len(groups) > 0 || err != nil {
		t.Errorf("%d groups from a server that gives no batches, %v", len(groups), err)
	}
	conn, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	asked := make(chan struct{}, 1)
	silent, err := conn.Subscribe(directGet, func(*nats.Msg) { asked <- struct{}{} })
	if err == nil {
		err = conn.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	begin := time.Now()
	if _, err := j.Read(ctx, 0); !errors.Is(err, context.Canceled) || time.Since(begin) > answerTimeout/2 {
		t.Errorf("Read = %v after %s, want it to end when it is cancelled", err, time.Since(begin))
	}
	if err := silent.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	group, err := appendGroup(nil, 0, all(t, written(t, Options{Dir: t.TempDir()}, 1, 0), 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Subscribe(directGet, func(m *nats.Msg) { // as 2.10.29 does
		h := nats.Header{"Nats-Stream": {streamName}, "Nats-Subject": {subject}, "Nats-Sequence": {"1"}, "Nats-Time-Stamp": {"2026-11-27T08:00:00Z"}}
		if err := m.RespondMsg(&nats.Msg{Header: h, Data: group}); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	if groups, err := j.fetch(t.Context(), 1, 20); len(groups) != 1 || err != nil || time.Since(begin) > answerTimeout/2 {
		t.Errorf("%d groups of a server that gives one at a time, %v, after %s", len(groups), err, time.Since(begin))
	}
}
