//go:build !race

package influx

// coreIndex is the kind of index that new shards of the core get. This one
// lives on disk: a million series take 1 GB of heap and 2.5 s to open.
const coreIndex = "tsi1"
