package journal

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
)

// Scenarios in virtual time can run the real log, when the one global
// goroutine of the server, its clock, was started outside of the bubble: inside, its
// channel from outside would keep the time from passing.
func TestInVirtualTime(t *testing.T) {
	ats.Register()
	defer ats.Unregister()
	synctest.Test(t, func(t *testing.T) {
		j := open(t, Options{Dir: t.TempDir()})
		stop := run(t, j)
		for i := range 5 {
			if _, err := put(j, uplink(i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		recs := all(t, j, 0)
		if d := recs[4].At.Sub(recs[0].At); d != 4*time.Hour {
			t.Errorf("4 virtual hours took %s", d)
		}
		stop()
		j.Close()
	})
}
