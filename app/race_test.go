//go:build race

package app

// raced is whether the race detector looks on, which makes everything many
// times slower.
const raced = true
