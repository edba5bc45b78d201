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
