//go:build linux

package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
)

// small mounts a file system of 32 MB.
func small(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=32m"); err != nil {
		t.Skipf("mounting a small file system needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill leaves no room in dir and returns what gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for b := make([]byte, 1<<20); len(b) > 0; {
		if _, err := f.Write(b); errors.Is(err, syscall.ENOSPC) {
			b = b[:len(b)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAFullDiskIsOverWhenThereIsRoomAgain: on a full disk the server gives up
// for good; the journal puts another in its place without being opened again.
func TestAFullDiskIsOverWhenThereIsRoomAgain(t *testing.T) {
	dir := small(t)
	log := filepath.Join(dir, "log")
	j := open(t, Options{Dir: log})
	stop := run(t, j)

	var acked []string
	n := 0
	try := func() error {
		r := uplink(n)
		r.Uplink.Payload = fmt.Appendf(nil, "%d%s", n, strings.Repeat(" ", 8<<10))
		n++
		_, err := put(j, r)
		if err == nil {
			acked = append(acked, string(r.Uplink.Payload))
		}
		return err
	}

	// A reader that goes through all of it, from disk.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var seen []string
	var read sync.WaitGroup
	read.Go(func() {
		for after := citywarden.Position(0); ; {
			recs, err := j.Read(ctx, after)
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("Read across the restart: %v", err)
				}
				return
			}
			mu.Lock()
			seen = append(seen, payloads(recs)...)
			mu.Unlock()
			after = recs[len(recs)-1].Position
		}
	})

	for range 2 {
		for range 50 {
			if err := try(); err != nil {
				t.Fatal(err)
			}
		}
		free := fill(t, dir)
		var err error
		begin := time.Now()
		for range 1000 {
			begin = time.Now()
			if err = try(); err != nil {
				break
			}
		}
		if citywarden.CodeOf(err) != citywarden.CodeTransient {
			t.Fatalf("append on a full disk = %v, want a transient error", err)
		}
		if d := time.Since(begin); d > commitTimeout/2 {
			t.Errorf("it took %s to say so", d)
		}
		begin = time.Now()
		for range 100 {
			if err := try(); citywarden.CodeOf(err) != citywarden.CodeTransient {
				t.Fatalf("append on a full disk = %v, want a transient error", err)
			}
		}
		if d := time.Since(begin); d > commitTimeout/2 {
			t.Errorf("100 further refusals took %s", d)
		}
		if err := j.Ready(); err == nil {
			t.Error("a log on a full disk says that it is ready")
		}
		free()
		comesBack(t, j)
		if err := j.Ready(); err != nil {
			t.Errorf("a log that came back is not ready: %v", err)
		}
	}
	for range 50 {
		if err := try(); err != nil {
			t.Fatalf("append when there is room again: %v", err)
		}
	}

	// What was refused may be in the log; what was acknowledged is in it once.
	check := func(what string, got []string) {
		t.Helper()
		want := map[string]bool{}
		for _, s := range acked {
			want[s] = true
		}
		var kept []string
		for _, s := range got {
			if want[s] {
				kept = append(kept, strings.TrimSpace(s))
			}
		}
		var all []string
		for _, s := range acked {
			all = append(all, strings.TrimSpace(s))
		}
		if diff := cmp.Diff(all, kept); diff != "" {
			t.Errorf("%s (-acknowledged +read):\n%s", what, diff)
		}
	}
	recs := all(t, j, 0)
	check("read afterwards", payloads(recs))
	for i, r := range recs {
		if r.Kind == citywarden.RecordDeaf && r.Lasted < citywarden.Outage {
			t.Errorf("record %d says that nobody was heard from %s to %s, which is too short to matter", i, r.Since(), r.At)
		}
	}
	for end := time.Now().Add(20 * time.Second); ; {
		mu.Lock()
		there := len(seen) > 0 && seen[len(seen)-1] == acked[len(acked)-1]
		mu.Unlock()
		if there {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the reader does not reach the end")
		}
		runtime.Gosched()
	}
	cancel()
	read.Wait()
	check("read meanwhile", seen)
	stop()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, Options{Dir: log})
	check("read after opening again", payloads(all(t, again, 0)))
	again.Close()
}

// TestSpaceIsKeptFree: what is left on the disk is noticed before it is full,
// and that there is room again, too.
func TestSpaceIsKeptFree(t *testing.T) {
	dir := small(t)
	reg := prometheus.NewRegistry()
	s, err := NewSpace(SpaceOptions{Dir: dir, Reserve: 8 << 20, Logger: slog.New(slog.DiscardHandler), Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	use := func(mib int64) { // makes the file that large, and looks
		t.Helper()
		b := make([]byte, mib<<20)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.look(); err != nil {
			t.Fatal(err)
		}
	}
	full := func() float64 {
		t.Helper()
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "citywarden_disk_full" {
				return f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		t.Fatal("no citywarden_disk_full")
		return 0
	}
	for _, step := range []struct {
		mib  int64
		full bool
	}{
		{20, false}, {25, true}, {31, true},
		{24, true}, // exactly the reserve is free: not yet
		{22, false}, {24, false}, {25, true}, {0, false},
	} {
		use(step.mib)
		err := s.Full()
		if (err != nil) != step.full || (full() == 1) != step.full {
			t.Errorf("with %d of 32 MiB used Full() = %v, metric %g; want full: %v", step.mib, err, full(), step.full)
		}
		if err != nil && citywarden.CodeOf(err) != citywarden.CodeTransient {
			t.Errorf("Full() = %v, want a transient error", err)
		}
	}
}

// freezable mounts a file system of 64 MB on which everything can be held up, as by a disk that
// does not answer.
func freezable(t *testing.T) (dir string, freeze, thaw func()) {
	t.Helper()
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("a file system to freeze needs root and loop devices: %s: %v: %s", args[0], err, out)
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	call := func(request uintptr) error {
		if _, _, err := syscall.Syscall(syscall.SYS_IOCTL, d.Fd(), request, 0); err != 0 {
			return err
		}
		return nil
	}
	const fifreeze, fithaw = 0xc0045877, 0xc0045878 // linux/fs.h
	t.Cleanup(func() {
		d.Close()
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	if err := errors.Join(call(fifreeze), call(fithaw)); err != nil {
		t.Skipf("freezing a file system is not allowed here: %v", err)
	}
	thaw = sync.OnceFunc(func() {
		if err := call(fithaw); err != nil {
			t.Errorf("thaw: %v", err)
		}
	})
	return dir, func() {
		if err := call(fifreeze); err != nil {
			t.Fatalf("freeze: %v", err)
		}
		time.AfterFunc(time.Minute, func() { _ = call(fithaw) }) // a test that is ended meanwhile leaves nothing that hangs
	}, thaw
}

// TestADiskThatDoesNotAnswer: what can't be written is refused in time, though the server can't even be asked how it is; the log says
// before that it is not ready, and goes on by itself.
func TestADiskThatDoesNotAnswer(t *testing.T) {
	dir, freeze, thaw := freezable(t)
	j := open(t, Options{Dir: filepath.Join(dir, "log")})
	run(t, j)
	if _, err := put(j, uplink(0)); err != nil {
		t.Fatal(err)
	}
	freeze()
	defer thaw() // before all that closes files there
	begin := time.Now()
	refused := make(chan error, 1)
	go func() {
		_, err := put(j, uplink(1))
		refused <- err
	}()
	for j.Ready() == nil {
		if time.Since(begin) > slowCommit+2*time.Second {
			t.Fatal("the log is ready and writes nothing")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := j.Ready().Error(); !strings.Contains(err, "look at the disk of "+dir) {
		t.Errorf("not ready: %s", err)
	}
	select {
	case err := <-refused:
		if citywarden.CodeOf(err) != citywarden.CodeTransient || !strings.Contains(err.Error(), "look at the disk of "+dir) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("refused with %v", err)
		}
	case <-time.After(commitTimeout + healthTimeout + 3*time.Second):
		t.Fatal("neither written nor refused")
	}
	thaw()
	end := time.Now().Add(2 * commitTimeout)
	for n := 2; ; n++ {
		if _, err := put(j, uplink(n)); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatalf("the log does not go on: %v", err)
		}
	}
	if err := j.Ready(); err != nil {
		t.Errorf("not ready once it goes on: %v", err)
	}
}
