package journal

import (
	"bufio"
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/citywarden/citywarden"
)

// backedUp returns a log of n groups of which the first are trimmed, and its backup.
func backedUp(t *testing.T, n, trimmed int) (recs []citywarden.Record, backup []byte) {
	t.Helper()
	j := open(t, Options{Dir: t.TempDir(), MaxAge: time.Nanosecond})
	stop := run(t, j)
	for i := range n {
		p, err := put(j, uplink(i))
		if err != nil {
			t.Fatal(err)
		}
		if i+1 == trimmed {
			if err := j.Trim(t.Context(), p+1); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop()
	var b bytes.Buffer
	first, last, err := j.Backup(t.Context(), &b)
	if err != nil || first != j.First().Group() || last != j.Last().Group() {
		t.Fatalf("Backup = groups %d to %d, %v; want %d to %d", first, last, err, j.First().Group(), j.Last().Group())
	}
	return all(t, j, 0), b.Bytes()
}

func TestALogIsRestoredWithTheSamePositions(t *testing.T) {
	for _, tt := range []struct {
		name       string
		n, trimmed int
	}{{"whole", 7, 0}, {"trimmed", 7, 4}, {"empty", 0, 0}} {
		t.Run(tt.name, func(t *testing.T) {
			want, backup := backedUp(t, tt.n, tt.trimmed)
			if n := tt.n - max(tt.trimmed-1, 0); len(want) != n {
				t.Fatalf("%d groups, want %d", len(want), n)
			}
			dir := filepath.Join(t.TempDir(), "log")
			if err := Restore(t.Context(), dir, bytes.NewReader(backup), slog.New(slog.DiscardHandler)); err != nil {
				t.Fatal(err)
			}
			j := open(t, Options{Dir: dir})
			if diff := cmp.Diff(want, all(t, j, 0)); diff != "" {
				t.Errorf("the records (-before +after):\n%s", diff)
			}
			// It goes on behind the last.
			stop := run(t, j)
			defer stop()
			last := j.Last()
			if p, err := put(j, uplink(99)); err != nil || p.Group() != last.Group()+1 {
				t.Errorf("the next group is %d, %v, after %d", p.Group(), err, last.Group())
			}
		})
	}
}

func TestADamagedBackupIsNotRestored(t *testing.T) {
	_, good := backedUp(t, 3, 0)
	for _, tt := range []struct {
		name   string
		backup []byte
		want   string
	}{
		{"nothing", nil, "version 0"},
		{"another version", append([]byte{9}, good[1:]...), "version 9"},
		{"its end is missing", good[:len(good)-3], "unexpected EOF"},
		{"a group is missing", append([]byte{good[0], good[1]}, good[1+2+int(good[2]):]...), "damaged"},
		{"a byte fell over", append(append([]byte{}, good[:3]...), append([]byte{77}, good[4:]...)...), "damaged"},
	} {
		dir := filepath.Join(t.TempDir(), "log")
		err := Restore(t.Context(), dir, bytes.NewReader(tt.backup), slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Restore = %v, want %q", tt.name, err, tt.want)
		}
	}
}

func FuzzNextGroup(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4})
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bufio.NewReader(bytes.NewReader(b))
		for {
			_, data, err := nextGroup(in)
			if err != nil {
				return
			}
			if len(data) > len(b) {
				t.Fatalf("%d bytes of %d", len(data), len(b))
			}
		}
	})
}

// trimming trims the log when it is written to.
type trimming struct {
	bytes.Buffer
	trim func()
}

func (w *trimming) Write(b []byte) (int, error) {
	if w.trim != nil {
		w.trim()
		w.trim = nil
	}
	return w.Buffer.Write(b)
}

// TestABackupWhileTheLogIsTrimmed: of a log that was trimmed further than the backup had come, what is behind is restored.
func TestABackupWhileTheLogIsTrimmed(t *testing.T) {
	j := written(t, Options{Dir: t.TempDir(), MaxAge: time.Nanosecond}, 20, 50<<10)
	w := &trimming{trim: func() {
		if err := j.Trim(t.Context(), citywarden.PositionAt(15, 0)); err != nil {
			t.Error(err)
		}
	}}
	first, last, err := j.Backup(t.Context(), w)
	if err != nil || last != 20 {
		t.Fatalf("Backup = groups %d to %d, %v", first, last, err)
	}
	if first != 15 {
		t.Errorf("the backup says that it begins with group %d, want 15", first)
	}
	dir := filepath.Join(t.TempDir(), "log")
	if err := Restore(t.Context(), dir, &w.Buffer, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	restored := open(t, Options{Dir: dir})
	if diff := cmp.Diff(groups(t, j, 0), groups(t, restored, 0)); diff != "" {
		t.Errorf("the records (-before +after):\n%s", diff)
	}
	run(t, restored)
	if p, err := put(restored, uplink(20)); err != nil || p != citywarden.PositionAt(21, 0) {
		t.Errorf("the next is at %d, %v", p, err)
	}
}

// holed is written, of a log that then lost groups on its disk.
func holed(t *testing.T, n, size int, missing []uint64) *Journal {
	t.Helper()
	from := written(t, Options{Dir: t.TempDir()}, n, size)
	dir := t.TempDir()
	s, err := startServer(dir, false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	c := streamConfig(-1, 1)
	c.DenyDelete = false
	stream, err := js.CreateStream(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= uint64(n); seq++ {
		data, _, err := from.one(t.Context(), seq)
		if err == nil {
			_, err = js.Publish(t.Context(), subject, data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, seq := range missing {
		if err := stream.DeleteMsg(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
	s.Shutdown()
	s.WaitForShutdown()
	return open(t, Options{Dir: dir, MaxAge: time.Nanosecond})
}

// TestABackupOfADamagedLog: groups that are missing in the middle of the log were not trimmed, and consumers may need those before.
func TestABackupOfADamagedLog(t *testing.T) {
	for _, tt := range []struct {
		name    string
		missing []uint64
		trimmed uint64 // before the backup
		want    string
	}{
		{"in the middle", []uint64{8}, 0, "group 8 of the log is missing between groups 1 and 20"},
		{"some, of a log that was trimmed", []uint64{8, 9, 10}, 5, "groups 8 to 10 of the log are missing between groups 5 and 20"},
		{"in what is trimmed", []uint64{3}, 5, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := holed(t, 20, 50<<10, tt.missing)
			if tt.trimmed > 0 {
				if err := j.Trim(t.Context(), citywarden.PositionAt(tt.trimmed, 0)); err != nil {
					t.Fatal(err)
				}
			}
			var b bytes.Buffer
			first, last, err := j.Backup(t.Context(), &b)
			if tt.want == "" {
				if err != nil || first != tt.trimmed || last != 20 {
					t.Errorf("Backup = groups %d to %d, %v", first, last, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || citywarden.CodeOf(err) != citywarden.CodeInternal {
				t.Errorf("Backup = groups %d to %d, %v; want %q", first, last, err, tt.want)
			}
		})
	}
}
