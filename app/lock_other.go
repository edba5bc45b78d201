//go:build !unix

package app

// lockFolder does nothing where the system has no flock: starting two platforms
// on one folder is then up to the administrator to avoid.
func lockFolder(string) (func() error, error) { return func() error { return nil }, nil }
