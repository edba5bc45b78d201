package main

import "testing"

// TestCollectPercent has collections rarer while much garbage is made, and never more often than by basePercent.
func TestCollectPercent(t *testing.T) {
	for name, c := range map[string]struct {
		garbage, held uint64
		want          int
	}{
		"just started":      {0, 0, 200},
		"idle":              {1 << 20, 40 << 20, 200},
		"busy":              {200 << 20, 50 << 20, 400},
		"holds much":        {512 << 20, 1 << 30, 200},
		"holds little yet":  {512 << 20, 5 << 20, 1000},
		"holds nothing yet": {512 << 20, 0, 1000},
	} {
		if got := collectPercent(c.garbage, c.held); got != c.want {
			t.Errorf("%s: %d %%, want %d", name, got, c.want)
		}
	}
}

func TestGarbageRoom(t *testing.T) {
	for memory, want := range map[uint64]uint64{0: 0, 1 << 30: 64 << 20, 4 << 30: 256 << 20, 64 << 30: 512 << 20} {
		if got := garbageRoom(memory); got != want {
			t.Errorf("of %d MiB: %d MiB, want %d", memory>>20, got>>20, want>>20)
		}
	}
}
