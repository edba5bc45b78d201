//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"testing"
	"time"
)

// steady sends at a rate, each publisher up to window in flight, and returns how long the
// acknowledgements took, sorted: as publishers see it who share the machine, from when a message was due to when they have read
// the acknowledgement; and between the machines, from when it was sent to when the acknowledgement had come, as the kernel notes.
// A publisher whose window is full sends later than it should: that counts in both.
//
// All publishers are one thread, which looks every pollEvery what is due and what has come: as a goroutine and timers
// for each they took half as much CPU as what is measured, and what is measured has to wait for that.
func (c *contender) steady(t *testing.T, publishers, window int, rate float64, long time.Duration) (seen, between []time.Duration) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // what is measured would wait for the collections of who measures
	poll, err := syscall.EpollCreate1(0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(poll)
	all, end := c.bare(t, publishers)
	defer end()
	for i, p := range all {
		if err := syscall.EpollCtl(poll, syscall.EPOLL_CTL_ADD, p.fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)}); err != nil {
			t.Fatal(err)
		}
	}
	const pollEvery = 100 * time.Microsecond
	total := int(rate * long.Seconds())
	seen, between = make([]time.Duration, 0, total), make([]time.Duration, 0, total)
	events := make([]syscall.EpollEvent, publishers)
	begin := time.Now()
	heard := begin
	for next := 0; len(seen) < total; {
		now := time.Now()
		for ; next < total; next++ {
			due := begin.Add(time.Duration(float64(next) / rate * float64(time.Second)))
			if due.After(now) {
				break
			}
			i := next % publishers
			all[i].due = append(all[i].due, dueMessage{at: due, woken: now})
			c.sendDue(t, all[i], window)
		}
		n, err := syscall.EpollWait(poll, events, 0)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			t.Fatal(err)
		}
		for _, e := range events[:max(n, 0)] {
			p := all[e.Fd]
			heard = time.Now()
			for _, m := range c.acknowledgedTo(t, p) {
				seen, between = append(seen, heard.Sub(m.at)), append(between, m.acked.Sub(m.woken.Round(0)))
			}
			c.sendDue(t, p, window)
		}
		if time.Since(heard) > patience {
			t.Fatalf("%s: nothing acknowledged for %s, %d messages of %d were", c.name, patience, len(seen), total)
		}
		nap := syscall.NsecToTimespec(int64(pollEvery))
		_ = syscall.Nanosleep(&nap, nil)
	}
	slices.Sort(seen)
	slices.Sort(between)
	return seen, between
}

// hurried has each of a few publishers send its next message as soon as the last one is acknowledged, n of them, and returns how
// long each took, as steady does. One thread plays them and never sleeps: the platform waits for a publisher that it knows to be quick, and
// waking one takes as long on some machines as a sync.
func (c *contender) hurried(t *testing.T, publishers, n int) (seen, between []time.Duration) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // as in steady
	all, end := c.bare(t, publishers)
	defer end()
	sent := 0
	for heard := time.Now(); len(seen) < publishers*n; {
		now := time.Now()
		for _, p := range all {
			for _, m := range c.acknowledgedTo(t, p) {
				heard = now
				seen, between = append(seen, now.Sub(m.at)), append(between, m.acked.Sub(m.woken.Round(0)))
			}
			if len(p.flying) == 0 && sent < publishers*n {
				sent++
				now = time.Now()
				p.due = append(p.due, dueMessage{at: now, woken: now})
				c.sendDue(t, p, 1)
			}
		}
		if now.Sub(heard) > patience {
			t.Fatalf("%s: nothing acknowledged for %s", c.name, patience)
		}
	}
	return seen, between
}

// patience is for how long a publisher waits for an acknowledgement.
const patience = 15 * time.Second

// bare is a connection of a publisher that Go's poller knows nothing of.
type bare struct {
	i           int
	m           *connection
	fd          int
	due, flying []dueMessage // not sent, as too many are in flight; and sent
	in          []byte       // read, and not a whole PUBACK
}

// dueMessage is a message: when it was to be sent, when that was seen, and when its acknowledgement came to the machine.
type dueMessage struct{ at, woken, acked time.Time }

// bare connects publishers.
func (c *contender) bare(t *testing.T, publishers int) (all []*bare, end func()) {
	t.Helper()
	for len(c.last) < publishers {
		c.last = append(c.last, 0)
	}
	for i := range publishers {
		m, err := dial(c.mqtt, c.token(i))
		if err != nil {
			t.Fatalf("%s: publisher %d: %v", c.name, i, err)
		}
		p := &bare{i: i, m: m}
		raw, err := m.c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var set error
		err = raw.Control(func(fd uintptr) {
			if p.fd, set = syscall.Dup(int(fd)); set == nil {
				set = syscall.SetsockoptInt(p.fd, syscall.SOL_SOCKET, syscall.SO_TIMESTAMPNS, 1)
			}
		})
		if err := errors.Join(err, set, m.c.Close()); err != nil { // the connection lives on in what it was copied to
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all, func() {
		for _, p := range all {
			_ = syscall.Close(p.fd)
		}
	}
}

// sendDue sends what is due to p, up to window in flight.
func (c *contender) sendDue(t *testing.T, p *bare, window int) {
	t.Helper()
	for len(p.due) > 0 && len(p.flying) < window {
		b, err := c.message(p.m, p.i)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := syscall.Write(p.fd, b); err != nil || n < len(b) {
			t.Fatalf("%s: publisher %d: %d of %d bytes sent: %v", c.name, p.i, n, len(b), err)
		}
		p.flying, p.due = append(p.flying, p.due[0]), slices.Delete(p.due, 0, 1)
	}
}

// acknowledgedTo returns the messages of p whose acknowledgement of MQTT 3.1.1 is there.
func (c *contender) acknowledgedTo(t *testing.T, p *bare) []dueMessage {
	t.Helper()
	var b [4096]byte
	var notes [128]byte
	n, size, _, _, err := syscall.Recvmsg(p.fd, b[:], notes[:], syscall.MSG_DONTWAIT)
	switch {
	case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR):
		return nil
	case err != nil || n == 0:
		t.Fatalf("%s: publisher %d: %d bytes read: %v", c.name, p.i, n, err)
	}
	var came time.Time
	parts, err := syscall.ParseSocketControlMessage(notes[:size])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range parts {
		if m.Header.Level == syscall.SOL_SOCKET && m.Header.Type == syscall.SO_TIMESTAMPNS {
			came = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	acks := 0
	for p.in = append(p.in, b[:n]...); len(p.in) >= 4; acks++ {
		if p.in[0] != 0x40 || p.in[1] != 2 || acks == len(p.flying) {
			t.Fatalf("%s: publisher %d: PUBACK %x with %d in flight", c.name, p.i, p.in, len(p.flying)-acks)
		}
		p.in = slices.Delete(p.in, 0, 4)
	}
	done := slices.Clone(p.flying[:acks])
	for i := range done {
		done[i].acked = came
	}
	p.flying = slices.Delete(p.flying, 0, acks)
	return done
}
