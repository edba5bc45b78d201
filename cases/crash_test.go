package cases_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	return append(storm(f, rand.New(rand.NewPCG(7, 8)), 100), outage(f, 500)...)
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
		finished = runChild(t, path, 1+r.IntN(25))
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

// runChild starts the child, kills it after it has said n lines, and checks
// that what it said is there. It returns true when the child came to the end.
func runChild(t *testing.T, path string, n int) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestDeskChild$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said, finished := uint64(0), false
	lines := bufio.NewScanner(out)
	for n > 0 && lines.Scan() {
		var word, pos string
		fmt.Sscan(lines.Text(), &word, &pos)
		switch word {
		case "at":
			if said, err = strconv.ParseUint(pos, 10, 64); err != nil {
				t.Fatal(err)
			}
			n--
		case "done":
			finished = true
		}
	}
	if !finished {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for lines.Scan() { // what it said before it died
	}
	if err := cmd.Wait(); finished && err != nil {
		t.Fatalf("child: %v", err)
	}
	d, db := openDesk(t, path, cases.Options{})
	defer db.Close()
	if at, err := d.Cursor(t.Context()); err != nil || uint64(at) < said {
		t.Fatalf("the child said it was at %d, but its database is at %d, %v", said, at, err)
	}
	return finished
}
