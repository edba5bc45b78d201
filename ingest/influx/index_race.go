//go:build race

package influx

// coreIndex is the index in memory: the one on disk has a benign data race that
// the race detector would report.
const coreIndex = "inmem"
