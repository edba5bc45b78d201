//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
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
	if c.last == nil {
		c.last = make([]int64, publishers)
	}
	poll, err := syscall.EpollCreate1(0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(poll)
	all := make([]*steadily, publishers)
	for i := range all {
		m, err := dial(c.mqtt, c.token(i))
		if err == nil {
			all[i], err = m.steadily()
		}
		if err == nil {
			defer syscall.Close(all[i].fd)
			err = syscall.EpollCtl(poll, syscall.EPOLL_CTL_ADD, all[i].fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)})
		}
		if err != nil {
			t.Fatalf("%s: publisher %d: %v", c.name, i, err)
		}
	}
	const pollEvery, patience = 100 * time.Microsecond, 15 * time.Second
	total := int(rate * long.Seconds())
	seen, between = make([]time.Duration, 0, total), make([]time.Duration, 0, total)
	send := func(i int) error {
		p := all[i]
		for len(p.due) > 0 && len(p.flying) < window {
			b, err := c.message(p.m, i)
			if err != nil {
				return err
			}
			if n, err := syscall.Write(p.fd, b); err != nil || n < len(b) {
				return fmt.Errorf("publisher %d: %d of %d bytes sent: %w", i, n, len(b), err)
			}
			p.flying, p.due = append(p.flying, p.due[0]), slices.Delete(p.due, 0, 1)
		}
		return nil
	}
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
			all[i].due = append(all[i].due, dueMessage{due, now})
			if err := send(i); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		n, err := syscall.EpollWait(poll, events, 0)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			t.Fatal(err)
		}
		for _, e := range events[:max(n, 0)] {
			p := all[e.Fd]
			acks, came, err := p.acknowledged()
			heard = time.Now()
			if err == nil && acks > len(p.flying) {
				err = fmt.Errorf("%d acknowledged of %d in flight", acks, len(p.flying))
			}
			if err != nil {
				t.Fatalf("%s: publisher %d: %v", c.name, e.Fd, err)
			}
			for _, m := range p.flying[:acks] {
				seen, between = append(seen, heard.Sub(m.at)), append(between, came.Sub(m.woken.Round(0)))
			}
			p.flying = slices.Delete(p.flying, 0, acks)
			if err := send(int(e.Fd)); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
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

// steadily is a publisher of steady: a connection that Go's poller knows nothing of.
type steadily struct {
	m           *connection
	fd          int
	due, flying []dueMessage // not sent, as too many are in flight; and sent
	in          []byte       // read, and not a whole PUBACK
}

// dueMessage is a message, when it was to be sent, and when that was seen.
type dueMessage struct{ at, woken time.Time }

// steadily takes m over.
func (m *connection) steadily() (*steadily, error) {
	defer m.c.Close()
	raw, err := m.c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &steadily{m: m}
	var set error
	err = raw.Control(func(fd uintptr) {
		if p.fd, set = syscall.Dup(int(fd)); set == nil {
			set = stampArrivals(p.fd)
		}
	})
	return p, errors.Join(err, set)
}

// acknowledged returns how many acknowledgements of MQTT 3.1.1 are there, and when the newest of them came to the machine.
func (p *steadily) acknowledged() (n int, came time.Time, err error) {
	var b [4096]byte
	size, came, err := readStamped(p.fd, b[:])
	if err == nil && size == 0 {
		err = io.EOF
	}
	if err != nil {
		return 0, came, err
	}
	for p.in = append(p.in, b[:size]...); len(p.in) >= 4; n++ {
		if p.in[0] != 0x40 || p.in[1] != 2 {
			return n, came, fmt.Errorf("PUBACK %x", p.in)
		}
		p.in = slices.Delete(p.in, 0, 4)
	}
	return n, came, nil
}

// stampArrivals has the kernel note when what a socket receives came to the machine.
func stampArrivals(fd int) error {
	return syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TIMESTAMPNS, 1)
}

// readStamped reads what is there of a socket, and when the newest of it came; zero when it was not noted.
func readStamped(fd int, p []byte) (n int, came time.Time, err error) {
	var notes [128]byte
	n, size, _, _, err := syscall.Recvmsg(fd, p, notes[:], syscall.MSG_DONTWAIT)
	if err != nil {
		return 0, came, err
	}
	parts, err := syscall.ParseSocketControlMessage(notes[:size])
	for _, m := range parts {
		if m.Header.Level == syscall.SOL_SOCKET && m.Header.Type == syscall.SO_TIMESTAMPNS {
			came = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return n, came, err
}
