package cases_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
)

// childEnv names the database of TestDeskChild's process.
const childEnv = "CITYWARDEN_TEST_DESK"

// crashStorm is random trouble, then a power cut with 500 meters.
func crashStorm() []citywarden.Transition {
	f := &feed{}
	return append(storm(f, rand.New(rand.NewPCG(7, 8)), 50), outage(f, 500)...)
}

// outage is what the engine makes of n meters that lose the mains, when more than
// 20 are a storm: 20 transitions at each position of the log.
func outage(f *feed, n int) []citywarden.Transition {
	const over = 20
	order := func(i int) *citywarden.CaseOrder {
		return &citywarden.CaseOrder{Class: "event/0501", Key: fmt.Sprintf("power/B%d", i/2), Hold: citywarden.Duration(2 * time.Minute)}
	}
	up := &citywarden.CaseOrder{Class: "event/0501", Key: "outage/D1", Storm: true}
	meter := func(i int) string { return fmt.Sprintf("m%03d", i) }
	var ts []citywarden.Transition
	for i := range over {
		ts = append(ts, f.next(citywarden.Raised, "mains", meter(i), 1, citywarden.Major, order(i)))
	}
	parent := f.next(citywarden.Raised, "outage", "D1", 1, citywarden.Critical, up)
	parent.Alarm.Device = citywarden.DeviceID(meter(over))
	for i := range over + 1 {
		parent.Alarm.Members = append(parent.Alarm.Members, citywarden.DeviceID(meter(i)))
	}
	ts = append(ts, parent)
	for i := range over {
		ts = append(ts, explained(f.next(citywarden.Suppressed, "mains", meter(i), 1, citywarden.Major, order(i)), parent.Alarm.ID, up.Key))
	}
	for i := over; i < n; i++ {
		ts = append(ts, explained(f.next(citywarden.Raised, "mains", meter(i), 1, citywarden.Major, order(i)), parent.Alarm.ID, up.Key))
	}
	joined := f.next(citywarden.Joined, "outage", "D1", 1, citywarden.Critical, up)
	joined.Annunciated, joined.Alarm.Device, joined.Alarm.Members = false, parent.Alarm.Device, nil
	for i := range n {
		joined.Alarm.Members = append(joined.Alarm.Members, citywarden.DeviceID(meter(i)))
	}
	ts = append(ts, joined)
	for i := range ts {
		ts[i].Position = ts[min(i/20*20+19, len(ts)-1)].Position
	}
	return ts
}

// mortal is a context that ends when it is asked for the nth time whether it has:
// the database asks before and after each statement.
type mortal struct {
	context.Context
	die  context.CancelFunc
	left *atomic.Int64
}

func newMortal(t *testing.T, n int) mortal {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	m := mortal{ctx, cancel, &atomic.Int64{}}
	m.left.Store(int64(n))
	return m
}

func (m mortal) Done() <-chan struct{} {
	if m.left.Add(-1) == 0 {
		m.die()
	}
	return m.Context.Done()
}

// Wherever between two statements a desk dies, from the first look at an alarm to
// the commit of its case, timers and notices: nothing of it is there, and the next
// desk, which gets it again, makes it once.
func TestACrashAtEachPoint(t *testing.T) {
	f := &feed{}
	hold, merge := burst("hold"), burst("merge")
	hold.Hold = citywarden.Duration(time.Minute)
	hold.Escalate = []citywarden.Escalation{{After: citywarden.Duration(time.Hour), To: "chief"}}
	up := &citywarden.CaseOrder{Class: "event/0501", Key: "outage/D1", Storm: true}
	ts := []citywarden.Transition{
		f.next(citywarden.Raised, "r", "a", 1, citywarden.Minor, hold), f.next(citywarden.Escalated, "r", "a", 1, citywarden.Critical, hold),
		f.next(citywarden.Raised, "r", "b", 1, citywarden.Major, merge), f.next(citywarden.Raised, "outage", "D1", 1, citywarden.Critical, up),
	}
	ts = append(ts, explained(f.next(citywarden.Suppressed, "r", "b", 1, citywarden.Major, merge), ts[3].Alarm.ID, up.Key), // the storm's case takes the other
		f.next(citywarden.Cleared, "r", "a", 1, citywarden.Critical, hold))
	ts[3].Position = ts[4].Position // both or none
	o := cases.Options{Notify: []cases.Receiver{{Name: "all", All: true}, {Name: "chief"}}}
	once, _ := openDesk(t, filepath.Join(t.TempDir(), "once.db"), o)
	d, db := openDesk(t, filepath.Join(t.TempDir(), "crashed.db"), o)
	crashes := 0
	for i, end := 0, 0; i < len(ts); i = end {
		for end = i + 1; end < len(ts) && ts[end].Position == ts[i].Position; {
			end++
		}
		before := dump(t, d)
		for n := 1; ; n++ {
			err := d.Apply(newMortal(t, n), ts[i].Position, ts[i:end])
			var derr error
			if d, derr = cases.New(db, o); derr != nil { // what was in memory is gone
				t.Fatal(derr)
			}
			if err == nil {
				break
			}
			crashes++
			if n%25 == 0 { // all of it takes long
				if diff := cmp.Diff(before, dump(t, d)); diff != "" {
					t.Fatalf("dead at point %d of %s: something is there (-before +now):\n%s", n, ts[i].Key, diff)
				}
			}
		}
		if err := once.Apply(t.Context(), ts[i].Position, ts[i:end]); err != nil {
			t.Fatal(err)
		}
	}
	if crashes < 200 {
		t.Errorf("only %d crashes", crashes)
	}
	t.Logf("%d crashes in %d transitions", crashes, len(ts))
	if diff := cmp.Diff(dump(t, once), dump(t, d)); diff != "" {
		t.Errorf("crashed at each point and never (-never +crashed):\n%s", diff)
	}
}

// leave is what a child waits for before each step: however late a loaded machine
// kills it, it gets no further than killChild lets it.
func leave() error {
	_, err := os.Stdin.Read(make([]byte, 1))
	return err
}

// TestDeskChild is the process that TestKilledDesk kills: it applies the storm
// from its cursor on, sometimes again what was before, and says how far it is.
func TestDeskChild(t *testing.T) {
	path := os.Getenv(childEnv)
	if path == "" {
		t.Skip("only as a child process")
	}
	d, _ := openDesk(t, path, cases.Options{})
	at, err := d.Cursor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ts := crashStorm()
	for i, end := 0, 0; i < len(ts); i = end {
		for end = i + 1; end < len(ts) && ts[end].Position == ts[i].Position; {
			end++
		}
		if ts[i].Position <= at {
			continue
		}
		if err := leave(); err != nil {
			t.Fatal(err)
		}
		if err := d.Apply(t.Context(), ts[i].Position, ts[max(0, i-2):end]); err != nil {
			t.Fatal(err)
		}
		fmt.Println("at", uint64(ts[i].Position))
	}
	fmt.Println("done", 0)
}

// A desk whose process is killed again and again, at any moment, ends with
// what one that was never killed has: the power cut is one case with 500 members
// and one notice.
func TestKilledDesk(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	ts := crashStorm()
	once := newDesk(t)
	apply(t, once, &feed{n: ts[len(ts)-1].Position.Group()}, ts...)

	path := filepath.Join(t.TempDir(), "killed.db")
	r := rand.New(rand.NewPCG(9, 10))
	kills := 0
	for finished := false; !finished; {
		finished = runChild(t, path, 1+r.IntN(35))
		if !finished {
			kills++
		}
	}
	if kills < 5 {
		t.Errorf("killed only %d times", kills)
	}
	t.Logf("killed %d times in %d transitions", kills, len(ts))
	killed, _ := openDesk(t, path, cases.Options{})
	if diff := cmp.Diff(dump(t, once), dump(t, killed)); diff != "" {
		t.Errorf("never killed and killed differ (-never +killed):\n%s", diff)
	}
	var open []citywarden.Case
	for _, c := range allCases(t, killed, citywarden.CaseFilter{Open: true, Page: citywarden.Page{Limit: 1000}}) {
		if c.Key == "outage/D1" || strings.HasPrefix(c.Key, "power/") {
			open = append(open, c)
		}
	}
	if len(open) != 1 || open[0].Members != 500 || len(open[0].Alarms) != 501 {
		t.Fatalf("the power cut is %d cases: %+v", len(open), open)
	}
	ns, _, err := killed.Notices(t.Context(), citywarden.NoticeFilter{Page: citywarden.Page{Limit: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	ns = slices.DeleteFunc(ns, func(n citywarden.Notice) bool {
		return !strings.HasPrefix(string(n.Alarm), "mains:") && !strings.HasPrefix(string(n.Alarm), "outage:")
	})
	if len(ns) != 1 || ns[0].Case != open[0].ID || ns[0].Kind != citywarden.NoticeOpened {
		t.Errorf("the power cut's notices: %+v", ns)
	}
}

// runChild starts the child of TestKilledDesk, kills it after it has said n lines,
// and checks that what it said is there. It returns true when the child came to
// the end.
func runChild(t *testing.T, path string, n int) bool {
	t.Helper()
	said := uint64(0)
	finished := killChild(t, "TestDeskChild", path, n, func(pos string) {
		var err error
		if said, err = strconv.ParseUint(pos, 10, 64); err != nil {
			t.Fatal(err)
		}
	})
	d, db := openDesk(t, path, cases.Options{})
	defer db.Close()
	if at, err := d.Cursor(t.Context()); err != nil || uint64(at) < said {
		t.Fatalf("the child said it was at %d, but its database is at %d, %v", said, at, err)
	}
	return finished
}

// killChild starts a test as a process of its own, kills it after it has said n
// lines "at …", in one of the three steps after that, and tells hear of each. It
// returns true when the child came to the end, which a line "done" says.
func killChild(t *testing.T, test, path string, n int, hear func(what string)) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.v")
	// What a killed child leaves behind goes with the parent's folder.
	cmd.Env = append(os.Environ(), childEnv+"="+path, "TMPDIR="+filepath.Dir(path))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(make([]byte, n+3)); err != nil {
		t.Fatal(err)
	}
	finished := false
	lines := bufio.NewScanner(out)
	hearing := func() bool {
		if !lines.Scan() {
			return false
		}
		var word, what string
		fmt.Sscan(lines.Text(), &word, &what)
		switch word {
		case "at":
			hear(what)
			n--
		case "done":
			finished = true
		}
		return true
	}
	for n > 0 && hearing() {
	}
	killed := n <= 0
	if killed {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for hearing() { // what it said before it died
	}
	if err := cmd.Wait(); !killed && (err != nil || !finished) {
		t.Fatalf("the child ended before it was killed: %v", err)
	}
	return !killed
}

// TestSenderChild is the process that TestKilledSender kills: it sends notices and
// says of each that it did, before that is noted.
func TestSenderChild(t *testing.T) {
	path := os.Getenv(childEnv)
	if path == "" {
		t.Skip("only as a child process")
	}
	d, _ := openDesk(t, path, toldOnce(sayer{}))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()
	for pending := true; pending; {
		ns, _, err := d.Notices(t.Context(), citywarden.NoticeFilter{State: citywarden.NoticePending})
		if err != nil {
			t.Fatal(err)
		}
		pending = len(ns) > 0
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	fmt.Println("done", 0)
}

// toldOnce are the options of a desk whose only notices are those of new cases.
func toldOnce(s cases.Sender) cases.Options {
	return cases.Options{Notify: []cases.Receiver{{Name: "all", All: true, Sender: s}}, Limits: map[citywarden.Stage]cases.Limit{}}
}

type sayer struct{}

func (sayer) Send(_ context.Context, n citywarden.Notice) error {
	if err := leave(); err != nil {
		return err
	}
	_, err := fmt.Println("at", n.Key)
	return err
}

// A process that is killed right after it has sent a notice, again and again:
// each notice arrives, under one key, and comes again only for a kill; each case
// says once that it was told.
func TestKilledSender(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	const notices = 40
	path := filepath.Join(t.TempDir(), "killed.db")
	d, db := openDesk(t, path, toldOnce(nil))
	f := &feed{}
	for i := range notices {
		apply(t, d, f, f.next(citywarden.Raised, "r", fmt.Sprint("m", i), 1, citywarden.Major, burst(fmt.Sprint("k", i))))
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(11, 12))
	came := map[string]int{}
	kills := 0
	for !killChild(t, "TestSenderChild", path, 1+r.IntN(10), func(key string) { came[key]++ }) {
		kills++
	}
	d, _ = openDesk(t, path, toldOnce(nil))
	ns, _, err := d.Notices(t.Context(), citywarden.NoticeFilter{State: citywarden.NoticeSent, Page: citywarden.Page{Limit: 1000}})
	if err != nil || len(ns) != notices || len(came) != notices {
		t.Fatalf("%d notices are sent, %d came, want %d; %v", len(ns), len(came), notices, err)
	}
	again := 0
	for _, n := range ns {
		again += came[n.Key] - 1
		told := slices.DeleteFunc(timeline(t, d, n.Case), func(s string) bool { return !strings.HasPrefix(s, "notify ") })
		if came[n.Key] == 0 || len(told) != 1 {
			t.Errorf("%s came %d times; the case says %q", n.Key, came[n.Key], told)
		}
	}
	if kills < 3 || again > kills {
		t.Errorf("%d notices came again, of %d kills", again, kills)
	}
	t.Logf("killed %d times; %d notices came again", kills, again)
}
