package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// TestMemoryOfAControlGroup runs the platform in a control group as a container has one: it knows how much it may use.
func TestMemoryOfAControlGroup(t *testing.T) {
	const most = 1 << 30
	group, err := controlGroup(most)
	if err != nil {
		t.Skip("no control group for memory can be made here:", err)
	}
	t.Cleanup(func() { _ = os.Remove(group) })
	bin, err := exec.LookPath("citywarden")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "citywarden"), fmt.Sprintf("#!/bin/sh\necho $$ > '%s/cgroup.procs' && exec '%s' \"$@\"\n", group, bin))
	if err := os.Chmod(filepath.Join(dir, "citywarden"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("GOMEMLIMIT", "")
	p, err := launch(dir, "data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	if got := figure(t, p.metrics(t), `(?m)^go_gc_gomemlimit_bytes (\S+)$`); got < most*0.89 || got > most*0.9 {
		t.Errorf("memory is bound to %.0f bytes, want nine tenths of %d", got, most)
	}
}

// controlGroup makes a group below the root of cgroup v2 or v1 that may use so many bytes.
func controlGroup(most int) (group string, err error) {
	for _, at := range []struct{ root, limit string }{{"/sys/fs/cgroup", "memory.max"}, {"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}} {
		if _, err = os.Stat(filepath.Join(at.root, "cgroup.procs")); err != nil {
			continue
		}
		if group, err = os.MkdirTemp(at.root, "citywarden-test-"); err != nil {
			continue
		}
		limit := filepath.Join(group, at.limit)
		if _, err = os.Stat(limit); err == nil { // else the controller is not on
			err = os.WriteFile(limit, []byte(strconv.Itoa(most)), 0)
		}
		if err == nil {
			return group, nil
		}
		err = errors.Join(err, os.Remove(group))
	}
	return "", err
}
