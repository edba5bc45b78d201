package devices_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices"
	"github.com/citywarden/citywarden/store"
)

// bench has a valve v1 and one, v2, behind the gateway gw.
type bench struct {
	t    *testing.T
	path string
	r    *devices.Registry
	c    *devices.Commands
	got  []citywarden.Downlink
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, path: filepath.Join(t.TempDir(), "x.db")}
	b.r = valves(t, b.path)
	for _, d := range []citywarden.Device{
		{ID: "v1", Model: "test-valve"}, {ID: "v2", Model: "test-valve", Attributes: map[string]any{"gateway": "gw"}},
		{ID: "gw", Model: "iot-gateway"}, {ID: "mh", Model: "manhole-cover"}, {ID: "off", Model: "test-valve", Disabled: true},
	} {
		if _, err := b.r.Create(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	b.c = commandsOn(t, b.path, b.r)
	return b
}

// brokenStore fails to save commands while broken.
type brokenStore struct {
	*store.DB
	broken atomic.Bool
}

func (s *brokenStore) SaveCommand(ctx context.Context, c citywarden.Command) error {
	if s.broken.Load() {
		return errors.New("disk is full")
	}
	return s.DB.SaveCommand(ctx, c)
}

// breaks puts the commands onto a store that can break.
func (b *bench) breaks() *brokenStore {
	b.t.Helper()
	s := &brokenStore{DB: openStore(b.t, b.path)}
	c, err := devices.NewCommands(b.t.Context(), s, b.r, slog.New(slog.DiscardHandler))
	if err != nil {
		b.t.Fatal(err)
	}
	b.c = c
	return s
}

// run runs the commands until stop.
func (b *bench) run() (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	c, done := b.c, make(chan error)
	go func() { done <- c.Run(ctx) }()
	return func() {
		b.t.Helper()
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	}
}

func (b *bench) tell(id citywarden.DeviceID, method string, params map[string]any) int64 {
	b.t.Helper()
	x, err := b.c.Tell(b.t.Context(), id, method, params, 0, "li")
	if err != nil {
		b.t.Fatal(err)
	}
	return x.ID
}

func (b *bench) listen(id citywarden.DeviceID) (cancel func()) {
	return b.c.Listen(id, citywarden.DownlinkCommand, func(m citywarden.Downlink) bool { b.got = append(b.got, m); return true })
}

// must compares the states of all commands of a device, the oldest first.
func (b *bench) must(id citywarden.DeviceID, want ...string) {
	b.t.Helper()
	cs, _, err := b.c.List(b.t.Context(), citywarden.CommandFilter{Device: id})
	if err != nil {
		b.t.Fatal(err)
	}
	got := make([]string, len(cs))
	for i, c := range cs {
		got[len(cs)-1-i] = strings.TrimSpace(fmt.Sprintf("%d %s %s %s %s", c.ID, c.Method, c.Params, c.State, c.Answer))
	}
	if d := cmp.Diff(want, got); d != "" {
		b.t.Errorf("commands of %s (-want +got):\n%s", id, d)
	}
}

// TestLifeOfACommand from the queue to the answer, of a device that sleeps.
func TestLifeOfACommand(t *testing.T) {
	b := newBench(t)
	b.tell("v1", "open", map[string]any{"pct": 50.0})
	b.tell("v1", "beep", nil)
	b.must("v1", `1 open {"pct":50} queued`, `2 beep {} queued`)
	end := b.listen("v1")
	b.must("v1", `1 open {"pct":50} sent`, `2 beep {} sent`)
	if len(b.got) != 2 || string(b.got[0].Body) != `{"method":"open","params":{"pct":50}}` || string(b.got[1].WithID()) != `{"id":2,"method":"beep","params":{}}` {
		t.Fatalf("sent %d", len(b.got))
	}
	b.got[0].Done(nil)
	b.got[1].Done(nil)
	b.must("v1", `1 open {"pct":50} delivered`, `2 beep {} delivered`)
	if err := b.c.Answer(t.Context(), "v2", 1, []byte("{}")); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Errorf("another device answers: %v", err)
	}
	if err := b.c.Answer(t.Context(), "v1", 1, []byte("ja")); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("an answer that is not JSON: %v", err)
	}
	if err := b.c.Answer(t.Context(), "v1", 1, []byte(` {"ok":true} `)); err != nil {
		t.Error(err)
	}
	for _, id := range []int64{1, 2, 3} { // answered, one-way, none
		if err := b.c.Answer(t.Context(), "v1", id, []byte("{}")); citywarden.CodeOf(err) != citywarden.CodeNotFound {
			t.Errorf("answer to %d: %v", id, err)
		}
	}
	b.must("v1", `1 open {"pct":50} answered {"ok":true}`, `2 beep {} delivered`)
	end()
	b.tell("v1", "beep", nil)
	b.must("v1", `1 open {"pct":50} answered {"ok":true}`, `2 beep {} delivered`, `3 beep {} queued`)
}

// TestCommandNotDelivered goes to who else listens, or waits.
func TestCommandNotDelivered(t *testing.T) {
	b := newBench(t)
	old := b.listen("v1")
	b.tell("v1", "beep", nil)
	old()
	b.got[0].Done(errAway)
	b.must("v1", `1 beep {} queued`)
	b.listen("v1")
	b.must("v1", `1 beep {} sent`)
	again := b.got[1]
	b.listen("v1") // a second connection, while the first has it
	again.Done(errAway)
	if len(b.got) != 3 || b.got[2].ID != 1 {
		t.Fatalf("sent %d times", len(b.got))
	}
	b.got[2].Done(nil)
	b.must("v1", `1 beep {} delivered`)
}

// errAway is why a device does not have a command yet.
var errAway = errors.New("the connection ended")

// TestCommandThatIsTooLarge for the device fails at once, says why, and is not offered again.
func TestCommandThatIsTooLarge(t *testing.T) {
	b := newBench(t)
	b.listen("v1")
	b.tell("v1", "beep", nil)
	why := citywarden.Errorf(citywarden.CodeTooLarge, "the device takes 64 bytes")
	b.got[0].Done(why)
	b.must("v1", `1 beep {} failed`)
	b.listen("v1")
	if len(b.got) != 1 {
		t.Errorf("sent %d times", len(b.got))
	}
	cs, _, err := b.c.List(t.Context(), citywarden.CommandFilter{Device: "v1"})
	if err != nil || cs[0].Reason != why.Error() {
		t.Errorf("the reason is %q, %v", cs[0].Reason, err)
	}
	if cs, _, err = b.c.List(t.Context(), citywarden.CommandFilter{Device: "v1", Open: true}); err != nil || len(cs) != 0 {
		t.Errorf("%d are open, %v", len(cs), err)
	}
}

// TestOnlyOneGetsACommand: a valve with two connections moves once.
func TestOnlyOneGetsACommand(t *testing.T) {
	b := newBench(t)
	b.listen("v1")
	b.listen("v1")
	b.tell("v1", "beep", nil)
	if len(b.got) != 1 {
		t.Errorf("sent %d times", len(b.got))
	}
}

func TestCommandBehindAGateway(t *testing.T) {
	b := newBench(t)
	b.tell("v2", "beep", nil)
	b.tell("v1", "beep", nil)
	end := b.listen("gw")
	b.must("v2", `1 beep {} sent`)
	b.must("v1", `2 beep {} queued`)
	b.tell("v2", "beep", nil)
	end()
	if len(b.got) != 2 || b.got[0].Device != "v2" {
		t.Errorf("the gateway got %d", len(b.got))
	}
}

// TestCommandsSurviveARestart: one that was on its way is sent again, and answers
// to what was delivered before count.
func TestCommandsSurviveARestart(t *testing.T) {
	b := newBench(t)
	b.listen("v1")
	b.tell("v1", "open", map[string]any{"pct": 1.0})
	b.tell("v1", "open", map[string]any{"pct": 2.0})
	b.got[0].Done(nil)
	b.got, b.r = nil, valves(t, b.path)
	b.c = commandsOn(t, b.path, b.r)
	b.listen("v1")
	if len(b.got) != 1 || b.got[0].ID != 2 {
		t.Errorf("sent again: %d", len(b.got))
	}
	if err := b.c.Answer(t.Context(), "v1", 1, nil); err != nil {
		t.Error(err)
	}
	b.must("v1", `1 open {"pct":1} answered {}`, `2 open {"pct":2} sent`)
	if id := b.tell("v1", "beep", nil); id != 3 {
		t.Errorf("the next command is %d", id)
	}
}

func TestCommandsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		stop := b.run()
		b.tell("v1", "beep", nil) // after a minute, says the model
		b.tell("v1", "open", map[string]any{"pct": 1.0})
		time.Sleep(59 * time.Second)
		b.must("v1", `1 beep {} queued`, `2 open {"pct":1} queued`)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		b.must("v1", `1 beep {} timed_out`, `2 open {"pct":1} queued`)
		b.listen("v1")
		b.got[0].Done(nil)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		b.must("v1", `1 beep {} timed_out`, `2 open {"pct":1} timed_out`)
		if err := b.c.Answer(t.Context(), "v1", 2, nil); citywarden.CodeOf(err) != citywarden.CodeNotFound {
			t.Errorf("an answer after its time: %v", err)
		}
		stop()
	})
}

// TestCommandsOfADeletedDevice do not go to the next one with its id.
func TestCommandsOfADeletedDevice(t *testing.T) {
	b := newBench(t)
	again := func() {
		t.Helper()
		if _, err := b.r.Create(t.Context(), citywarden.Device{ID: "v1", Model: "test-valve"}); err != nil {
			t.Fatal(err)
		}
		b.listen("v1")
		if len(b.got) > 0 {
			t.Errorf("another device got %s", b.got[0].Body)
		}
	}
	for range 2 {
		b.tell("v1", "beep", nil)
	}
	if err := b.r.Delete(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	b.c.Forget("v1")
	again()
	b.must("v1", `1 beep {} timed_out`, `2 beep {} timed_out`)

	b.tell("v1", "beep", nil)
	b.got = nil
	if err := b.r.Delete(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	b.c = commandsOn(t, b.path, b.r) // after a crash at this point
	again()
	b.must("v1", `1 beep {} timed_out`, `2 beep {} timed_out`, `3 beep {} timed_out`)
}

// TestAForgottenCommandStaysForgotten also where its end could not be stored, and its device's connection says only after it
// that the device has the command.
func TestAForgottenCommandStaysForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		s := b.breaks()
		stop := b.run()
		b.listen("v1")
		b.tell("v1", "open", map[string]any{"pct": 1.0})
		if err := b.r.Delete(t.Context(), "v1"); err != nil {
			t.Fatal(err)
		}
		s.broken.Store(true)
		b.c.Forget("v1")
		b.got[0].Done(nil)
		s.broken.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		b.must("v1", `1 open {"pct":1} sent`)
		stop()
		b.c = commandsOn(t, b.path, b.r)
		b.must("v1", `1 open {"pct":1} timed_out`)
	})
}

// TestOldCommandsAreForgotten after 90 days, but for the last: no id comes again.
func TestOldCommandsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		stop := b.run()
		b.tell("v1", "beep", nil)
		b.tell("v1", "beep", nil)
		time.Sleep(time.Hour)
		b.tell("v1", "beep", nil)
		time.Sleep(90*24*time.Hour - time.Minute)
		synctest.Wait()
		b.must("v1", `3 beep {} timed_out`)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		b.must("v1", `3 beep {} timed_out`)
		stop()
	})
}

func TestCommandsThatCannotBe(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		id      citywarden.DeviceID
		method  string
		params  map[string]any
		expires time.Duration
		code    citywarden.Code
		says    string
	}{
		{"nobody", "open", nil, 0, citywarden.CodeNotFound, "no device nobody"},
		{"mh", "open", nil, 0, citywarden.CodeInvalid, "takes no commands; its model file declares none"},
		{"v1", "oepn", nil, 0, citywarden.CodeInvalid, `no command "oepn"; did you mean "open"?`},
		{"v1", "open", nil, 0, citywarden.CodeInvalid, "command open needs the parameter pct, a number"},
		{"v1", "open", map[string]any{"pcd": 40.0}, 0, citywarden.CodeInvalid, `no parameter "pcd"; did you mean "pct"?`},
		{"v1", "open", map[string]any{"pct": "x"}, 0, citywarden.CodeInvalid, "parameter pct of command open is a number, not x"},
		{"v1", "open", map[string]any{"pct": 101.0}, 0, citywarden.CodeInvalid, "is 101; it is 0 to 100"},
		{"v1", "open", map[string]any{"pct": 1.0, "slow": true}, 0, citywarden.CodeInvalid, `no parameter "slow"; did you mean "slowly"?`},
		{"v1", "beep", map[string]any{"x": true}, 0, citywarden.CodeInvalid, "command beep has no parameters"},
		{"v1", "beep", nil, time.Millisecond, citywarden.CodeInvalid, "it is 1s to 30d"},
		{"v1", "beep", nil, 1000 * time.Hour, citywarden.CodeInvalid, "it is 1s to 30d"},
		{"off", "beep", nil, 0, citywarden.CodeConflict, "device off is disabled"},
	} {
		_, err := b.c.Tell(t.Context(), c.id, c.method, c.params, c.expires, "li")
		if citywarden.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s %s %v: %v, want %s", c.id, c.method, c.params, err, c.says)
		}
	}
	for range 32 {
		b.tell("v1", "beep", nil)
	}
	if _, err := b.c.Tell(t.Context(), "v1", "beep", nil, 0, "li"); citywarden.CodeOf(err) != citywarden.CodeConflict {
		t.Errorf("the 33rd that waits: %v", err)
	}
}

// TestAnswerThatIsNotStored is not taken: the device sends it again.
func TestAnswerThatIsNotStored(t *testing.T) {
	b := newBench(t)
	s := b.breaks()
	b.listen("v1")
	b.tell("v1", "open", map[string]any{"pct": 1.0})
	s.broken.Store(true)
	if err := b.c.Answer(t.Context(), "v1", 1, nil); err == nil || citywarden.CodeOf(err) == citywarden.CodeNotFound {
		t.Errorf("taken: %v", err)
	}
	if _, err := b.c.Tell(t.Context(), "v1", "beep", nil, 0, "li"); err == nil {
		t.Error("a command that is not stored was taken")
	}
	s.broken.Store(false)
	if err := b.c.Answer(t.Context(), "v1", 1, nil); err != nil {
		t.Error(err)
	}
	b.must("v1", `1 open {"pct":1} answered {}`)
}

// TestFailureThatIsNotStored leaves the command as it was, and nothing of the failure with it.
func TestFailureThatIsNotStored(t *testing.T) {
	b := newBench(t)
	s := b.breaks()
	b.listen("v1")
	b.tell("v1", "open", map[string]any{"pct": 1.0})
	s.broken.Store(true)
	b.got[0].Done(citywarden.Errorf(citywarden.CodeTooLarge, "the device takes 64 bytes"))
	s.broken.Store(false)
	b.must("v1", `1 open {"pct":1} sent`)
	b.c.Forget("v1")
	b.must("v1", `1 open {"pct":1} timed_out`)
	if cs, _, err := b.c.List(t.Context(), citywarden.CommandFilter{Device: "v1"}); err != nil || cs[0].Reason != "" {
		t.Errorf("it ended for the reason %q, %v", cs[0].Reason, err)
	}
}

// TestWhereACommandIsThatIsNotStored: while the database can't be written a command that is on its way is so all the same. One
// that its device has is not offered to the next connection as well, as a valve must not move twice, and one that it has not is.
func TestWhereACommandIsThatIsNotStored(t *testing.T) {
	for _, gone := range []error{nil, errors.New("the connection ended before the device had it")} {
		b := newBench(t)
		s := b.breaks()
		b.tell("v1", "open", map[string]any{"pct": 1.0})
		s.broken.Store(gone == nil)
		end := b.listen("v1")
		s.broken.Store(true)
		end()
		b.got[0].Done(gone)
		end = b.listen("v1")
		want := 1
		if gone != nil {
			want = 2
		}
		if len(b.got) != want {
			t.Errorf("the first connection ends with %v: offered %d times, want %d", gone, len(b.got), want)
		}
		end()
		s.broken.Store(false)
		if err := b.c.Answer(t.Context(), "v1", 1, nil); err != nil {
			t.Error(err)
		}
		b.must("v1", `1 open {"pct":1} answered {}`)
	}
}

// TestDeliveryThatIsNotStored is stored once it can be: the command that a device has does not time out, nor is it offered again after
// a restart.
func TestDeliveryThatIsNotStored(t *testing.T) {
	for _, leaves := range []bool{false, true} { // Run ends before the database is back
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			s := b.breaks()
			stop := b.run()
			b.listen("v1")
			b.tell("v1", "open", map[string]any{"pct": 1.0})
			b.tell("v1", "beep", nil)
			s.broken.Store(true)
			b.got[0].Done(nil)
			b.got[1].Done(nil)
			time.Sleep(30 * time.Second)
			synctest.Wait()
			b.must("v1", `1 open {"pct":1} sent`, `2 beep {} sent`)
			s.broken.Store(false)
			if !leaves {
				time.Sleep(11 * time.Second)
				synctest.Wait()
				b.must("v1", `1 open {"pct":1} delivered`, `2 beep {} delivered`)
				time.Sleep(time.Hour)
				synctest.Wait()
				b.must("v1", `1 open {"pct":1} timed_out`, `2 beep {} delivered`) // the one that it did not answer
			}
			stop()
			if !leaves {
				return
			}
			b.must("v1", `1 open {"pct":1} delivered`, `2 beep {} delivered`)
			b.c = commandsOn(t, b.path, b.r)
			b.got = nil
			b.listen("v1")
			if len(b.got) > 0 {
				t.Errorf("%d commands offered again", len(b.got))
			}
		})
	}
}

// TestRevocationIsTold to who holds a session of the device.
func TestRevocationIsTold(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	told := 0
	b.c.Listen("v1", citywarden.DownlinkRevoked, func(m citywarden.Downlink) bool { told++; return true })
	must := func(what string, want int) {
		t.Helper()
		if told != want {
			t.Errorf("%s: told %d times, want %d", what, told, want)
		}
		told = 0
	}
	issue := func() {
		t.Helper()
		if _, err := b.r.IssueToken(ctx, "v1"); err != nil {
			t.Fatal(err)
		}
	}
	issue()
	must("the first token", 0)
	issue()
	must("another token", 1)
	if _, err := b.r.Update(ctx, citywarden.Device{ID: "v1", Model: "test-valve", Name: "x"}); err != nil {
		t.Fatal(err)
	}
	must("another name", 0)
	if _, err := b.r.Update(ctx, citywarden.Device{ID: "v1", Model: "test-valve", Disabled: true}); err != nil {
		t.Fatal(err)
	}
	must("disabled", 1)
	if err := b.r.Delete(ctx, "v1"); err != nil {
		t.Fatal(err)
	}
	must("deleted", 1)
}
