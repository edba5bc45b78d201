//go:build linux || darwin || freebsd

package journal

import "syscall"

// room returns how many bytes are free on the disk of dir, and how many should
// be before the log is started again.
func room(dir string) (free, reserve uint64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	size := uint64(st.Bsize)
	return uint64(st.Bavail) * size, min(maxReserve, uint64(st.Blocks)*size*reservePercent/100), nil
}
