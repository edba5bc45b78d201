package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A collection of garbage marks all that is held, whose cost is the same however much garbage it
// finds, and the acknowledgements that come meanwhile take several times as long. What is held is small
// beside what many messages leave. So the more garbage is made, the more of it is left before a collection:
// twice what is held, or that of collectEvery, but no more than mostGarbage for that.
const (
	basePercent  = 200 // of what is held
	mostPercent  = 1000
	mostGarbage  = 256 << 20
	collectEvery = 2 * time.Second
	lookEvery    = time.Second
)

// paceCollections has garbage collected so until ctx is done, unless the environment says how (GOGC).
// GOMEMLIMIT goes before it.
func paceCollections(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(basePercent)
	seen := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(seen)
	before, percent := seen[0].Value.Uint64(), basePercent
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		metrics.Read(seen)
		made := seen[0].Value.Uint64() - before
		before += made
		held := seen[1].Value.Uint64() + seen[2].Value.Uint64() + seen[3].Value.Uint64() // of which Go takes the percentage
		if p := collectPercent(made*uint64(collectEvery/lookEvery), held); p > percent*5/4 || p < percent*4/5 {
			percent = p
			debug.SetGCPercent(p)
		}
	}
}

// collectPercent returns how much garbage is left, in percent of what is held, when so much comes until a collection. More
// than mostPercent is not asked for: what is held may grow until it is looked at again.
func collectPercent(garbage, held uint64) int {
	return int(min(max(basePercent, min(garbage, mostGarbage)*100/max(held, 1)), mostPercent))
}
