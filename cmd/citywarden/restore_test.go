//go:build linux

package main

import (
	"archive/zip"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRestoreOntoAnotherDisk restores into the folder where a disk is mounted,
// or that a link leads to; and where there is no room, or a file of that name,
// nothing is changed and the message says why.
func TestRestoreOntoAnotherDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, err := launch(dir, "data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p != nil {
			_ = p.stop(os.Kill)
		}
	})
	cli := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "citywarden", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CITYWARDEN_SERVER="+p.http, "CITYWARDEN_USER=admin", "CITYWARDEN_PASSWORD="+testPassword)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := cli("backup", "county.zip"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := p.stop(os.Interrupt); err != nil {
		t.Fatal(err)
	}

	writeFile(t, filepath.Join(dir, "notes"), "mine")
	if out, err := cli("restore", "county.zip", "--data", "notes"); err == nil || !strings.Contains(out, "notes: not a directory; name another folder") {
		t.Errorf("restoring onto a file = %v: %s", err, out)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "notes")); err != nil || string(b) != "mine" {
		t.Errorf("the file is %q, %v", b, err)
	}

	mounted := func(name, size string) string {
		t.Helper()
		disk := filepath.Join(dir, name)
		if err := os.Mkdir(disk, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size="+size); err != nil {
			t.Skipf("mounting a small file system needs root: %v", err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
		return disk
	}
	small := mounted("small", "300k")
	if out, err := cli("restore", "county.zip", "--data", "small"); err == nil || !strings.Contains(out, "and the disk of small has 0 MiB free; make room") {
		t.Errorf("restoring onto a disk without room = %v: %s", err, out)
	}
	if list, err := os.ReadDir(small); err != nil || len(list) > 0 {
		t.Errorf("on the disk without room: %v, %v", list, err)
	}

	large := mounted("large", "64m")
	if err := os.Mkdir(filepath.Join(large, "lost+found"), 0o700); err != nil { // as on a new ext4
		t.Fatal(err)
	}
	if err := os.Symlink("large", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if out, err := cli("restore", "county.zip", "--data", "link"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if at, err := os.Readlink(filepath.Join(dir, "link")); err != nil || at != "large" {
		t.Errorf("the link leads to %q, %v", at, err)
	}
	writeFile(t, filepath.Join(dir, "c.yaml"), "log:\n  reserve: 8388608\n")
	if p, err = launch(dir, "large", "--config", "c.yaml"); err != nil {
		t.Fatal(err)
	}
	if out, err := cli("audit"); err != nil {
		t.Errorf("%v: %s", err, out)
	}

	// A backup of a platform without room for it says so, and is none.
	fill := filepath.Join(large, "fill")
	var st syscall.Statfs_t
	if err := syscall.Statfs(large, &st); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fill, make([]byte, int64(st.Bavail)*st.Bsize-(8<<20)-4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := cli("backup", "second.zip"); err == nil || !strings.Contains(out, "needs a copy of the database") {
		t.Errorf("a backup without room = %v: %s", err, out)
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "second*")); len(found) > 0 {
		t.Errorf("there is %v", found)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}

	// What a killed backup left goes with the next start; a killed restore prevents it.
	if err := p.stop(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(large, ".copying-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if p, err = launch(dir, "large"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(large, ".copying-1")); !os.IsNotExist(err) {
		t.Errorf("what was left of a backup is still there: %v", err)
	}
	if !strings.Contains(p.stderr.String(), ".copying-1") {
		t.Errorf("the log does not say that it was removed:\n%s", p.stderr)
	}
	if err := p.stop(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(large, ".restoring"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := cli("serve", "--data", "large", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--coap", "127.0.0.1:0"); err == nil || !strings.Contains(out, "a restore into large has not come to its end") {
		t.Errorf("serve after a restore that was cut off = %v: %s", err, out)
	}
}

// TestWhatOperatorsKeepInTheDataFolder stays there, whatever its name, and is in a backup; also in one that is itself
// written into the folder.
func TestWhatOperatorsKeepInTheDataFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	mine := []string{"backup-2026.zip", "backup-old/citywarden.db", ".copying-notes", "partial-list.csv", "rules/partial-closure.txt"}
	for _, name := range mine {
		writeFile(t, filepath.Join(data, name), "mine")
	}
	writeFile(t, filepath.Join(data, "lost+found", "#12"), "what fsck found")
	film := make([]byte, 4<<20) // a backup is that far ahead of its own file, which comes behind it
	_, _ = rand.NewChaCha8([32]byte{}).Read(film)
	writeFile(t, filepath.Join(data, "a.film"), string(film))
	p, err := launch(dir, "data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	kept := func(folder string) {
		t.Helper()
		for _, name := range mine {
			if b, err := os.ReadFile(filepath.Join(folder, name)); err != nil || string(b) != "mine" {
				t.Errorf("%s in %s is %q, %v", name, folder, b, err)
			}
		}
	}
	kept(data)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(ctx, "citywarden", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CITYWARDEN_SERVER="+p.http, "CITYWARDEN_USER=admin", "CITYWARDEN_PASSWORD="+testPassword)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	run("backup", "data/county.zip")
	run("restore", "data/county.zip", "--data", "other")
	kept(filepath.Join(dir, "other"))
	if _, err := os.Stat(filepath.Join(dir, "other", "lost+found")); !os.IsNotExist(err) {
		t.Errorf("what fsck found is in the backup: %v", err)
	}

	// A restore that can't put all into its place leaves nothing that would start.
	disk := filepath.Join(dir, "disk")
	writeFile(t, filepath.Join(disk, "lost+found", "#7"), "mine")
	withFile(t, filepath.Join(data, "county.zip"), filepath.Join(dir, "old.zip"), "files/lost+found/#12")
	cmd := exec.CommandContext(ctx, "citywarden", "restore", "old.zip", "--data", "disk")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "/old.zip: rename ") || !strings.Contains(string(out), "disk/lost+found") {
		t.Errorf("a restore onto a folder in its way = %v: %s", err, out)
	}
	if list, err := os.ReadDir(disk); err != nil || len(list) != 1 {
		t.Errorf("after it there is %v, %v", list, err)
	}
	if b, err := os.ReadFile(filepath.Join(disk, "lost+found", "#7")); err != nil || string(b) != "mine" {
		t.Errorf("what was there is %q, %v", b, err)
	}
}

// withFile writes a copy of a zip file that has one more file.
func withFile(t *testing.T, from, to, name string) {
	t.Helper()
	z, err := zip.OpenReader(from)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	f, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	w := zip.NewWriter(f)
	for _, x := range z.File {
		if err := w.Copy(x); err != nil {
			t.Fatal(err)
		}
	}
	_, err = w.Create(name)
	if err := errors.Join(err, w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}
