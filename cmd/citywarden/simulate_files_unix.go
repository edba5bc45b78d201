//go:build unix

package main

import "syscall"

// openFiles returns how many files this process may have open, 0 when the
// system does not say.
func openFiles() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	return int(min(l.Cur, 1<<30))
}
