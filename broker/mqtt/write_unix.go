//go:build unix

package mqtt

import "syscall"

// writeAtOnce writes as much of p as the socket has room for and returns how much that is.
func writeAtOnce(raw syscall.RawConn, p []byte) (n int) {
	_ = raw.Write(func(fd uintptr) bool {
		n, _ = syscall.Write(int(fd), p)
		return true
	})
	return max(n, 0)
}
