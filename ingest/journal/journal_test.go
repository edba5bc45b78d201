package journal

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/citywarden/citywarden"
)

// childDir makes the test binary append to the log in that directory until it is killed.
const childDir = "CITYWARDEN_TEST_JOURNAL"

// childServer makes it a NATS server that keeps its streams in that directory.
const childServer = "CITYWARDEN_TEST_NATS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		appendForEver(dir)
	}
	if dir := os.Getenv(childServer); dir != "" {
		serve(dir)
		return
	}
	os.Exit(m.Run())
}

// appendForEver is the child process: it prints each number whose record was
// reported durable.
func appendForEver(dir string) {
	j, err := Open(context.Background(), Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	go j.Run(context.Background())
	out := bufio.NewWriterSize(os.Stdout, 64)
	for i := 0; ; i++ {
		j.Append(uplink(i), func(_ citywarden.Position, err error) {
			if err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
			fmt.Fprintln(out, i)
			out.Flush()
		})
	}
}

func uplink(i int) citywarden.Record {
	return citywarden.Record{Kind: citywarden.RecordUplink, Uplink: &citywarden.Uplink{
		Device: "d", Protocol: "mqtt", Topic: "v1/devices/me/telemetry",
		Payload: []byte(strconv.Itoa(i)), Received: time.Now(),
	}}
}

func open(t testing.TB, o Options) *Journal {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	j, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// run runs j until the function it returns is called.
func run(t testing.TB, j *Journal) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := j.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	t.Cleanup(stop)
	return stop
}

// put appends rec and waits for it.
func put(j *Journal, rec citywarden.Record) (citywarden.Position, error) {
	type result struct {
		p   citywarden.Position
		err error
	}
	ch := make(chan result, 1)
	j.Append(rec, func(p citywarden.Position, err error) { ch <- result{p, err} })
	r := <-ch
	return r.p, r.err
}

// all reads everything after a position up to the end of the log.
func all(t testing.TB, j *Journal, after citywarden.Position) []citywarden.Record {
	t.Helper()
	var list []citywarden.Record
	for after < j.Last() {
		recs, err := j.Read(t.Context(), after)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, recs...)
		after = recs[len(recs)-1].Position
	}
	return list
}

func payloads(recs []citywarden.Record) []string {
	var list []string
	for _, r := range recs {
		if r.Uplink != nil {
			list = append(list, string(r.Uplink.Payload))
		}
	}
	return list
}

func numbers(from, to int) []string {
	var list []string
	for i := from; i < to; i++ {
		list = append(list, strconv.Itoa(i))
	}
	return list
}

func TestRecordsSurviveReopeningInOrder(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	stop := run(t, j)
	if j.First() != 0 || j.Last() != 0 {
		t.Fatalf("an empty log reaches from %d to %d", j.First(), j.Last())
	}
	const n = 5000
	var reported []citywarden.Position // by one goroutine, as Append promises
	var done sync.WaitGroup
	done.Add(n)
	for i := range n {
		j.Append(uplink(i), func(p citywarden.Position, err error) {
			if err != nil {
				t.Errorf("record %d: %v", i, err)
			}
			reported = append(reported, p)
			done.Done()
		})
	}
	done.Wait()
	order := citywarden.AlarmOrder{Kind: citywarden.OrderShelve, Alarm: "r:d:1", By: "li", Until: time.Now().Add(time.Hour).Round(0).UTC(), Reason: "施工"}
	if _, err := put(j, citywarden.Record{Kind: citywarden.RecordOrder, Order: &order}); err != nil {
		t.Fatal(err)
	}
	if _, err := put(j, citywarden.Record{Kind: citywarden.RecordTick}); err != nil {
		t.Fatal(err)
	}
	before := all(t, j, 0)
	if !slices.IsSorted(reported) {
		t.Error("done was not called in the order of Append")
	}
	for i, p := range reported {
		if before[i].Position != p {
			t.Fatalf("record %d was reported at %d and lies at %d", i, p, before[i].Position)
		}
	}
	if !slices.IsSortedFunc(before, func(a, b citywarden.Record) int { return a.At.Compare(b.At) }) {
		t.Error("At goes back")
	}
	stop()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}

	j = open(t, Options{Dir: dir})
	run(t, j)
	after := all(t, j, 0)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("after reopening (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(numbers(0, n), payloads(after[:n])); diff != "" {
		t.Errorf("order:\n%s", diff)
	}
	if diff := cmp.Diff(&order, after[n].Order); diff != "" {
		t.Errorf("order record:\n%s", diff)
	}
	p, err := put(j, uplink(n))
	if err != nil || p.Group() <= after[n+1].Position.Group() {
		t.Errorf("the first record after reopening is at %d (%v), the last before at %d", p, err, after[n+1].Position)
	}
	if j.First() != after[0].Position || j.Last() != p {
		t.Errorf("log reaches from %d to %d, want %d to %d", j.First(), j.Last(), after[0].Position, p)
	}
	// From anywhere, in the middle of a group too.
	for i := 0; i < n; i += 487 {
		if diff := cmp.Diff(strconv.Itoa(i+1), payloads(all(t, j, after[i].Position)[:1])[0]); diff != "" {
			t.Errorf("read after record %d:\n%s", i, diff)
		}
	}
}

func TestAckedRecordsSurviveKill9(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	acked := -1
	for lines.Scan() {
		i, err := strconv.Atoi(lines.Text())
		if err != nil || i != acked+1 {
			cmd.Process.Kill()
			t.Fatalf("the child printed %q after %d", lines.Text(), acked)
		}
		if acked = i; acked == 2000 {
			cmd.Process.Kill() // SIGKILL; what it wrote before still comes
		}
	}
	cmd.Wait()
	if acked < 2000 {
		t.Fatalf("the child ended after %d records", acked)
	}
	j := open(t, Options{Dir: dir})
	run(t, j)
	got := payloads(all(t, j, 0))
	if len(got) <= acked {
		t.Fatalf("%d records were acked and %d are there", acked+1, len(got))
	}
	if diff := cmp.Diff(numbers(0, len(got)), got); diff != "" {
		t.Errorf("records:\n%s", diff)
	}
	t.Logf("%d acked, %d there", acked+1, len(got))
	if _, err := put(j, uplink(0)); err != nil {
		t.Errorf("append after the crash: %v", err)
	}
}

func TestTornTailKeepsWhatWasBefore(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	stop := run(t, j)
	for i := range 20 {
		if _, err := put(j, uplink(i)); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	j.Close()
	// A crash of the machine in the middle of a write: half a group at the end, and no index that
	// knows of it.
	var block string
	filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		switch filepath.Ext(path) {
		case ".blk":
			block = path
		case ".db":
			return os.Remove(path)
		}
		return err
	})
	f, err := os.OpenFile(block, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size - 10); err != nil {
		t.Fatal(err)
	}
	f.Close()

	j = open(t, Options{Dir: dir})
	run(t, j)
	if diff := cmp.Diff(numbers(0, 19), payloads(all(t, j, 0))); diff != "" {
		t.Errorf("records:\n%s", diff)
	}
	if _, err := put(j, uplink(99)); err != nil {
		t.Errorf("append after the crash: %v", err)
	}
}

// That a group is one write and one fsync before it is acknowledged was seen
// with strace; here it is held that nobody turns it off.
func TestTheServerSyncsEveryWrite(t *testing.T) {
	j := open(t, Options{Dir: t.TempDir()})
	if c := j.server.Load().JetStreamConfig(); c == nil || !c.SyncAlways {
		t.Errorf("JetStream runs with %+v", c)
	}
	info, err := j.stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c := info.Config; c.PersistMode != jetstream.DefaultPersistMode || c.Storage != jetstream.FileStorage || c.Discard != jetstream.DiscardNew || c.MaxAge != 0 {
		t.Errorf("the stream is %+v", c)
	}
	if j.server.Load().Addr() != nil {
		t.Errorf("the server listens on %s", j.server.Load().Addr())
	}
}

func TestAppendBlocksWhileTheQueueIsFull(t *testing.T) {
	j := open(t, Options{Dir: t.TempDir()})
	var done sync.WaitGroup
	var failed atomic.Int64
	add := func(i int) {
		done.Add(1)
		j.Append(uplink(i), func(_ citywarden.Position, err error) {
			if err != nil {
				failed.Add(1)
			}
			done.Done()
		})
	}
	for i := range maxQueue {
		add(i)
	}
	entered, returned := make(chan struct{}), make(chan struct{})
	go func() {
		close(entered)
		add(maxQueue)
		close(returned)
	}()
	<-entered
	for range 1000 {
		runtime.Gosched()
	}
	select {
	case <-returned:
		t.Fatal("Append did not block at a full queue")
	default:
	}
	run(t, j)
	<-returned
	done.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d records failed", failed.Load())
	}
	if diff := cmp.Diff(numbers(0, maxQueue+1), payloads(all(t, j, 0))); diff != "" {
		t.Errorf("records:\n%s", diff)
	}
}

// Many devices that send what they kept as fast as they can, with more of it than
// the log takes, do not starve one that has a single message now and then.
func TestAStormStarvesNobody(t *testing.T) {
	j := open(t, Options{Dir: t.TempDir()})
	run(t, j)
	var stop atomic.Bool
	var taken atomic.Int64 // of the storm
	var storm sync.WaitGroup
	for range 64 {
		storm.Go(func() {
			rec := func() citywarden.Record {
				r := uplink(0)
				r.Uplink.Payload = make([]byte, 4<<10)
				return r
			}
			for !stop.Load() {
				j.Append(rec(), func(citywarden.Position, error) {})
				taken.Add(1)
			}
		})
	}
	defer func() { stop.Store(true); storm.Wait() }()
	const full = maxQueueBytes / (4 << 10) // what waits when the log can't follow
	for taken.Load() < 2*full {
		runtime.Gosched()
	}
	for range 8 {
		before := taken.Load()
		if _, err := put(j, uplink(1)); err != nil {
			t.Fatal(err)
		}
		if n := taken.Load() - before; n > 4*full {
			t.Errorf("%d messages of the storm were taken before the one of a fire detector was durable, want at most about the %d that wait", n, full)
		}
	}
}

// TestOurClockWasAhead: the log goes on from the time that it had, at half the pace, says by how much that is ahead, and logs it once a minute.
func TestOurClockWasAhead(t *testing.T) {
	j := open(t, Options{Dir: t.TempDir()})
	var said bytes.Buffer
	j.log = slog.New(slog.NewTextHandler(&said, nil))
	run(t, j)
	for _, ahead := range []time.Duration{0, time.Minute, 8 * time.Hour, 8 * time.Hour} {
		j.mu.Lock()
		slept := time.Duration(0)
		if !j.stamped.IsZero() {
			slept = 10 * time.Second
			j.stamped = time.Now().Add(-slept)
		}
		if ahead > 0 {
			j.lastAt = time.Now().UTC().Round(0).Add(ahead)
		}
		last := j.lastAt
		j.mu.Unlock()
		p, err := put(j, uplink(0))
		if err != nil {
			t.Fatal(err)
		}
		recs := all(t, j, p-1)
		if len(recs) != 1 {
			t.Fatalf("%d records", len(recs))
		}
		r := recs[0]
		if _, disk, err := j.get(t.Context(), r.Position.Group()); err != nil || disk[len(disk)-1].Ahead != r.Ahead {
			t.Errorf("from disk: %+v, %v", disk, err)
		}
		if ahead == 0 {
			if r.Ahead != 0 {
				t.Errorf("ahead by %s, though nobody set our clock", r.Ahead)
			}
			continue
		}
		const much = 5 * time.Second // for the machine to be slow
		if went := r.At.Sub(last); went < slept/2 || went > slept/2+much {
			t.Errorf("set back by %s, the log went on by %s in %s", ahead, went, slept)
		}
		if r.Ahead > ahead+slept/2 || r.Ahead < ahead-much {
			t.Errorf("set back by %s: ahead by %s", ahead, r.Ahead)
		}
	}
	if n := strings.Count(said.String(), "our clock was ahead and is set back"); n != 1 || !strings.Contains(said.String(), "ahead=8h0m") {
		t.Errorf("said %d times: %s", n, &said)
	}
}

func TestAFailedWriteAcksNothingAndWedgesNothing(t *testing.T) {
	j := open(t, Options{Dir: t.TempDir()})
	run(t, j)
	if _, err := put(j, uplink(0)); err != nil {
		t.Fatal(err)
	}
	// What the server does by itself when the disk refuses a write.
	if err := j.server.Load().DisableJetStream(); err != nil {
		t.Fatal(err)
	}
	if p, err := put(j, uplink(1)); citywarden.CodeOf(err) != citywarden.CodeTransient || p != 0 {
		t.Fatalf("append to a broken log = %d, %v; want a transient error", p, err)
	}
	if err := j.Ready(); err == nil {
		t.Error("a broken log says that it is ready")
	}
	// There is room, so it comes back without anyone's doing.
	comesBack(t, j)
	if err := j.Ready(); err != nil {
		t.Errorf("a log that came back is not ready: %v", err)
	}
	if _, err := put(j, uplink(2)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"0", "2"}, payloads(all(t, j, 0))); diff != "" {
		t.Errorf("records:\n%s", diff)
	}
}

func TestAFullLogRefusesAndTrimMakesRoom(t *testing.T) {
	var log lockedBuffer
	j := open(t, Options{Dir: t.TempDir(), MaxBytes: minBytes, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	run(t, j)
	big := func(i int) citywarden.Record {
		r := uplink(i)
		r.Uplink.Payload = append([]byte(strconv.Itoa(i)), strings.Repeat(" ", MaxPayload/2)...)
		return r
	}
	var err error
	n := 0
	for ; n < 100 && err == nil; n++ {
		_, err = put(j, big(n))
	}
	if citywarden.CodeOf(err) != citywarden.CodeTransient || n < 5 {
		t.Fatalf("append %d to a full log = %v; want a transient error", n, err)
	}
	if !strings.Contains(err.Error(), "the log is full: it has reached log.max_bytes (16 MiB)") {
		t.Errorf("append to a full log = %v; it does not say what to do", err)
	}
	if _, err := put(j, big(n)); err == nil || strings.Count(log.String(), "commit group not written") != 1 {
		t.Errorf("the next append = %v; a full log is to be logged once:\n%s", err, log.String())
	}
	if err := j.Ready(); err == nil {
		t.Error("a log that refuses says that it is ready")
	}
	last := j.Last()
	if err := j.Trim(t.Context(), 0); err != nil || j.First().Group() != 1 {
		t.Fatalf("Trim(0) = %v and the log begins at %d; want nothing removed", err, j.First())
	}
	if err := j.Trim(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if j.First().Group() < 2 || j.First() > last {
		t.Fatalf("after Trim the log begins at %d and ends at %d", j.First(), last)
	}
	if err := j.Ready(); err != nil {
		t.Errorf("a log that has room again is not ready: %v", err)
	}
	p, err := put(j, big(n))
	if err != nil {
		t.Fatalf("append after Trim: %v", err)
	}
	if err := j.Ready(); err != nil {
		t.Errorf("a log that took a record is not ready: %v", err)
	}
	// A reader that stood before the beginning goes on at the beginning.
	recs, err := j.Read(t.Context(), 1)
	if err != nil || recs[0].Position != j.First() {
		t.Errorf("Read before the beginning = %v, %v; want group %d", recs, err, j.First().Group())
	}
	if got := all(t, j, last); len(got) != 1 || got[0].Position != p {
		t.Errorf("read after Trim = %d records", len(got))
	}
}

// What could not be written for a moment makes nobody deaf: silence would begin anew for everybody, each time. It lasts from the
// first message that was refused.
func TestOnlyAnOutageIsPutIntoTheLog(t *testing.T) {
	ats.Register()
	defer ats.Unregister()
	synctest.Test(t, func(t *testing.T) {
		j := open(t, Options{Dir: t.TempDir(), MaxBytes: minBytes})
		stop := run(t, j)
		n := 0
		send := func() error {
			n++
			r := uplink(n)
			r.Uplink.Payload = []byte(strings.Repeat(" ", MaxPayload/2))
			_, err := put(j, r)
			return err
		}
		var want, got []time.Duration
		for _, lasted := range []time.Duration{0, time.Second, citywarden.Outage - time.Second, citywarden.Outage, time.Hour} {
			for ; n < 1000; time.Sleep(time.Second) {
				if err := send(); err != nil {
					break
				}
			}
			time.Sleep(lasted / 2)
			if err := send(); citywarden.CodeOf(err) != citywarden.CodeTransient {
				t.Fatalf("message %d to a full log: %v", n, err)
			}
			time.Sleep(lasted - lasted/2)
			recs := all(t, j, 0)
			if err := j.Trim(t.Context(), j.Last()); err != nil {
				t.Fatal(err)
			}
			if err := send(); err != nil {
				t.Fatal(err)
			}
			if lasted >= citywarden.Outage {
				want = append(want, lasted)
			}
			for _, r := range all(t, j, recs[len(recs)-1].Position) {
				if r.Kind == citywarden.RecordDeaf {
					got = append(got, r.Lasted)
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("nobody was heard for (-want +said):\n%s", diff)
		}
		stop()
		j.Close()
	})
}

func TestTrimByAge(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Options{Dir: dir, MaxAge: time.Nanosecond})
	run(t, j)
	var at []citywarden.Position
	for i := range 10 {
		p, err := put(j, uplink(i))
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, p)
	}
	if err := j.Trim(t.Context(), at[6]); err != nil {
		t.Fatal(err)
	}
	if j.First() != at[6] {
		t.Errorf("the log begins at %d, want %d, what was consumed", j.First(), at[6])
	}
	if err := j.Trim(t.Context(), citywarden.PositionAt(1<<40, 0)); err != nil {
		t.Fatal(err)
	}
	if j.First() != at[9] {
		t.Errorf("the log begins at %d, want %d, its last group", j.First(), at[9])
	}
}

func TestBack(t *testing.T) {
	j := open(t, Options{Dir: t.TempDir()})
	run(t, j)
	var done sync.WaitGroup
	for i := range 3000 {
		done.Add(1)
		j.Append(uplink(i), func(citywarden.Position, error) { done.Done() })
		if i%100 == 0 {
			done.Wait() // groups of different sizes
		}
	}
	done.Wait()
	recs := all(t, j, 0)
	for _, n := range []int{1, 50, 700, 2999, 5000} {
		for _, i := range []int{0, 1, 99, 1500, 2999} {
			p, err := j.Back(t.Context(), recs[i].Position, uint64(n))
			if err != nil {
				t.Fatal(err)
			}
			between := 0
			for _, r := range recs {
				if r.Position > p && r.Position < recs[i].Position {
					between++
				}
			}
			if want := min(n, i); between < want {
				t.Errorf("Back(record %d, %d) has %d records between", i, n, between)
			}
			if p > 0 && between > n+2*maxGroup {
				t.Errorf("Back(record %d, %d) goes back %d records", i, n, between)
			}
		}
	}
}

func TestSeek(t *testing.T) {
	j := open(t, Options{Dir: t.TempDir(), MaxAge: time.Nanosecond})
	run(t, j)
	if p, oldest, err := j.Seek(t.Context(), time.Now()); p != 0 || !oldest.IsZero() || err != nil {
		t.Errorf("Seek in an empty log = %d, %s, %v", p, oldest, err)
	}
	var done sync.WaitGroup
	for i := range 2000 {
		done.Add(1)
		j.Append(uplink(i), func(citywarden.Position, error) { done.Done() })
		if i%50 == 0 {
			done.Wait() // groups of different sizes
		}
	}
	done.Wait()
	if _, err := put(j, citywarden.Record{Kind: citywarden.RecordStart}); err != nil {
		t.Fatal(err)
	}
	recs := all(t, j, 0)
	look := func(recs []citywarden.Record) {
		t.Helper()
		for _, i := range []int{0, 1, 49, 50, 51, 1000, len(recs) - 1} {
			i = min(i, len(recs)-1)
			for _, add := range []time.Duration{0, 1} {
				at := recs[i].At.Add(add)
				p, oldest, err := j.Seek(t.Context(), at)
				if err != nil || !oldest.Equal(recs[0].At) {
					t.Fatalf("Seek = oldest %s, %v, want %s", oldest, err, recs[0].At)
				}
				for k := range recs {
					if before := recs[k].At.Before(at); before != (recs[k].Position <= p) {
						t.Fatalf("Seek(record %d + %d ns) = %d, but record %d at %d is before: %t", i, add, p, k, recs[k].Position, before)
					}
				}
			}
		}
	}
	look(recs)
	if last := recs[len(recs)-1]; last.Kind != citywarden.RecordStart {
		t.Errorf("the newest record is of kind %d, want the start", last.Kind)
	}
	if err := j.Trim(t.Context(), recs[700].Position); err != nil {
		t.Fatal(err)
	}
	look(slices.DeleteFunc(recs, func(r citywarden.Record) bool { return r.Position < j.First() }))
}

// TestAPurgedLogGoesOn: a consumer that had seen all of it is not ahead of it,
// and one that had not waits for what comes.
func TestAPurgedLogGoesOn(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	stop := run(t, j)
	seen, err := put(j, uplink(0))
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if err := j.stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, Options{Dir: dir})
	run(t, j)
	if end := j.Last(); end < seen {
		t.Errorf("the log ends at %d, before %d that was in it", end, seen)
	}
	read := make(chan error, 1)
	go func() {
		_, err := j.Read(t.Context(), 0)
		read <- err
	}()
	if p, err := put(j, uplink(1)); err != nil || p <= seen {
		t.Errorf("the next record is at %d, %v", p, err)
	}
	if err := <-read; err != nil {
		t.Errorf("Read from the beginning: %v", err)
	}
}

func TestRefusedRecords(t *testing.T) {
	j := open(t, Options{Dir: t.TempDir()})
	run(t, j)
	huge := uplink(0)
	huge.Uplink.Payload = make([]byte, MaxPayload+1)
	long := uplink(0)
	long.Uplink.Topic = strings.Repeat("x", 17<<10)
	for name, rec := range map[string]citywarden.Record{"payload": huge, "topic": long} {
		if _, err := put(j, rec); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("too long a %s = %v, want CodeInvalid", name, err)
		}
	}
	huge.Uplink.Payload = huge.Uplink.Payload[1:]
	for range 4 { // together they are more than one group may hold
		if _, err := put(j, huge); err != nil {
			t.Errorf("the largest payload: %v", err)
		}
	}
}

func TestReadEndsWithItsContextAndWithTheLog(t *testing.T) {
	j := open(t, Options{Dir: t.TempDir()})
	stop := run(t, j)
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	go func() { _, err := j.Read(ctx, 0); errs <- err }()
	cancel()
	if err := <-errs; err != context.Canceled {
		t.Errorf("Read = %v, want context.Canceled", err)
	}
	go func() { _, err := j.Read(t.Context(), 0); errs <- err }()
	stop()
	j.Close()
	if err := <-errs; err != errClosed {
		t.Errorf("Read of a closed log = %v", err)
	}
	if _, err := put(j, uplink(1)); citywarden.CodeOf(err) != citywarden.CodeTransient {
		t.Errorf("append to a closed log = %v, want a transient error", err)
	}
}

func TestWhatWaitsIsCommittedBeforeRunReturns(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	var acked atomic.Int64
	for i := range 9000 {
		j.Append(uplink(i), func(_ citywarden.Position, err error) {
			if err == nil {
				acked.Add(1)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if acked.Load() != 9000 {
		t.Errorf("%d of 9000 records were acked before Run returned", acked.Load())
	}
}

func TestNoGoroutineIsLeft(t *testing.T) {
	cycle := func() {
		j := open(t, Options{Dir: t.TempDir()})
		stop := run(t, j)
		put(j, uplink(1))
		stop()
		j.Close()
	}
	cycle() // what the libraries start once and for all
	before := runtime.NumGoroutine()
	for range 3 {
		cycle()
	}
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

func FuzzDecodeGroup(f *testing.F) {
	at := time.Unix(1.8e9, 5).UTC()
	b, err := appendGroup(nil, 77, []citywarden.Record{
		{Kind: citywarden.RecordUplink, At: at, Uplink: &citywarden.Uplink{Device: "d-1", Protocol: "mqtt", Topic: "v1/devices/me/telemetry", Payload: []byte(`{"a":1}`), Received: at.Add(-time.Second)}},
		{Kind: citywarden.RecordUplink, At: at, Uplink: &citywarden.Uplink{Device: "设备", Protocol: "lora", Topic: "x", Received: at.Add(time.Second)}},
		{Kind: citywarden.RecordTick, At: at.Add(time.Minute)},
		{Kind: citywarden.RecordDeaf, At: at.Add(2 * time.Minute)},
		{Kind: citywarden.RecordDeaf, Lasted: time.Minute, At: at.Add(4 * time.Minute)},
		{Kind: citywarden.RecordOrder, At: at.Add(time.Hour), Order: &citywarden.AlarmOrder{Kind: citywarden.OrderAck, Alarm: "a:b:1", By: "li"}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Add([]byte{2})
	f.Add([]byte{1, 0, 255, 255, 255, 255, 15})
	for i := range b {
		f.Add(b[:i])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		base, recs, err := decodeGroup(3, b)
		if err != nil {
			return
		}
		again, err := appendGroup(nil, base, recs)
		if err != nil {
			t.Fatalf("decoded but not encoded: %v", err)
		}
		base2, recs2, err := decodeGroup(3, again)
		if err != nil || base2 != base {
			t.Fatalf("encoded but not decoded: %v", err)
		}
		if diff := cmp.Diff(recs, recs2); diff != "" {
			t.Fatal(diff)
		}
	})
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends p.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns what was written so far.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
