package api

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(3, time.Minute)
		for i := range 3 {
			if wait := p.take("a"); wait != 0 {
				t.Errorf("try %d has to wait %s", i, wait)
			}
		}
		if wait := p.take("a"); wait != time.Minute {
			t.Errorf("the fourth has to wait %s, want 1m", wait)
		}
		if wait := p.take("b"); wait != 0 {
			t.Errorf("another key has to wait %s", wait)
		}
		time.Sleep(time.Minute)
		if wait := p.take("a"); wait != 0 {
			t.Errorf("after a minute it has to wait %s", wait)
		}
		if wait := p.take("a"); wait != time.Minute {
			t.Errorf("and then %s, want 1m", wait)
		}
		for i := range 2 * maxKeys {
			p.take(fmt.Sprint(i))
		}
		if len(p.free) > maxKeys {
			t.Errorf("it remembers %d keys", len(p.free))
		}
		time.Sleep(time.Hour)
		if wait := p.take("new"); wait != 0 || len(p.free) != 1 {
			t.Errorf("a new key has to wait %s among %d that had their rest", wait, len(p.free))
		}
	})
}
