package main

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// A collection of garbage marks all that is held, whose cost is the same however much garbage it
// finds, and the acknowledgements that come meanwhile take several times as long. What is held is small
// beside what many messages leave. So the more garbage is made, the more of it is left before a collection:
// twice what is held, or that of collectEvery, but for that no more than garbageRoom of the memory there is.
const (
	basePercent  = 200 // of what is held
	mostPercent  = 1000
	collectEvery = 4 * time.Second
	lookEvery    = time.Second

	mostGarbage = 512 << 20
	garbagePart = 16 // of the memory
)

// boundMemory has garbage collected more often before nine tenths of what the control group of the process may use are
// taken, as in a container, unless the environment says how much there is (GOMEMLIMIT).
func boundMemory() {
	if memory, err := memlimit.FromCgroup(); err == nil && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(min(memory/10*9, math.MaxInt64)))
	}
}

// garbageRoom returns how many bytes of garbage may wait for a collection while much of it is made.
func garbageRoom(memory uint64) uint64 { return min(memory/garbagePart, mostGarbage) }

// paceCollections has garbage collected so until ctx is done, unless the environment says how (GOGC).
// GOMEMLIMIT goes before it.
func paceCollections(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	memory, err := memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)()
	if err != nil {
		memory = 0 // not known: as if there were little
	}
	room := garbageRoom(memory)
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
		if p := collectPercent(min(made*uint64(collectEvery/lookEvery), room), held); p > percent*5/4 || p < percent*4/5 {
			percent = p
			debug.SetGCPercent(p)
		}
	}
}

// collectPercent returns how much garbage is left, in percent of what is held, when so much comes until a collection. More
// than mostPercent is not asked for: what is held may grow until it is looked at again.
func collectPercent(garbage, held uint64) int {
	return int(min(max(basePercent, garbage*100/max(held, 1)), mostPercent))
}
