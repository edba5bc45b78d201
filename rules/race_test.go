//go:build race

package rules

// raced is whether the race detector looks on, which makes everything many
// times slower.
const raced = true
