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
	mostGarbage  = 256 << 20
	collectEvery = 2 * time.Second
)

// paceCollections has garbage collected so until ctx is done, unless the environment says how (GOGC).
// GOMEMLIMIT goes before it.
func paceCollections(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(basePercent)
	go func() {
		const every = time.Second
		seen := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
		metrics.Read(seen)
		before, percent := seen[0].Value.Uint64(), basePercent
		for t := time.NewTicker(every); ; {
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return
			}
			metrics.Read(seen)
			made := seen[0].Value.Uint64() - before
			before += made
			if p := collectPercent(made*uint64(collectEvery/every), seen[1].Value.Uint64()); p > percent*5/4 || p < percent*4/5 {
				percent = p
				debug.SetGCPercent(p)
			}
		}
	}()
}

// collectPercent returns how much garbage is left, in percent of what is held, when so much comes until a collection.
func collectPercent(garbage, held uint64) int {
	return int(max(basePercent, min(garbage, mostGarbage)*100/max(held, 1<<20)))
}
