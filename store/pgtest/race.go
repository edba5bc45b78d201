//go:build race

package pgtest

// raced is whether the race detector looks on.
const raced = true
