package cases_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
)

// childEnv names the database of TestDeskChild's process.
const childEnv = "CITYWARDEN_TEST_DESK"

func crashStorm() []citywarden.Transition { return storm(&feed{}, rand.New(rand.NewPCG(7, 8)), 100) }

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
	for i := range ts {
		if ts[i].Position <= at {
			continue
		}
		if err := d.Apply(t.Context(), ts[i].Position, ts[max(0, i-2):i+1]); err != nil {
			t.Fatal(err)
		}
		fmt.Println("at", uint64(ts[i].Position))
	}
	fmt.Println("done", 0)
}

// A desk whose process is killed again and again, at any moment, ends with
// what one that was never killed has.
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
