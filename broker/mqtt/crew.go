package mqtt

import (
	"runtime"
	"sync"
)

// crew answers connections, a few goroutines for all: a commit of the log has messages of many connections answered
// at once, mostly one each, and waking a goroutine for each costs as much as half of the write, and it has to wait
// for its turn. What may wait for a device does not happen here, see conn.answerReady.
type crew struct {
	wg   sync.WaitGroup
	wake chan struct{}

	mu    sync.Mutex
	ready []*conn // to be answered, each once
	next  int     // in ready; what lies before is nil
	awake int     // of the crew, those who work or are called
}

// crewShare is how many connections one of the crew takes at once; for so many more another one is called.
const crewShare = 16

// start begins the work, which ends with dismiss. That waits for all that is being answered.
func (k *crew) start() (dismiss func()) {
	size := runtime.GOMAXPROCS(0)
	k.wake = make(chan struct{}, size)
	over := make(chan struct{})
	for range size {
		k.wg.Go(func() { k.work(over) })
	}
	return func() {
		close(over)
		k.wg.Wait()
	}
}

// add has c answered. It never blocks.
func (k *crew) add(c *conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ready = append(k.ready, c)
	if k.awake < cap(k.wake) && len(k.ready)-k.next > k.awake*crewShare {
		k.awake++
		k.wake <- struct{}{} // has room for each of them
	}
}

func (k *crew) work(over <-chan struct{}) {
	var s answers
	var mine []*conn
	for {
		select {
		case <-k.wake:
		case <-over:
			return
		}
		for {
			if mine = k.take(mine[:0]); len(mine) == 0 {
				break
			}
			for _, c := range mine {
				c.answerReady(&s)
			}
			clear(mine)
		}
	}
}

// take appends the next connections to mine; none when there are none, and then whoever asked is not awake any more.
func (k *crew) take(mine []*conn) []*conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := min(len(k.ready)-k.next, crewShare)
	if n == 0 {
		k.ready, k.next = k.ready[:0], 0
		k.awake--
		return mine
	}
	mine = append(mine, k.ready[k.next:k.next+n]...)
	clear(k.ready[k.next : k.next+n])
	if k.next += n; k.next > len(k.ready)/2 { // so that it does not grow while there is always one
		left := copy(k.ready, k.ready[k.next:])
		clear(k.ready[left:])
		k.ready, k.next = k.ready[:left], 0
	}
	return mine
}
