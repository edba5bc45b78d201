package main

import "testing"

// TestCollectPercent has collections rarer while much garbage is made, and never more often than by basePercent.
func TestCollectPercent(t *testing.T) {
	for name, c := range map[string]struct {
		garbage, held uint64
		want          int
	}{
		"just started":            {0, 0, 200},
		"idle":                    {1 << 20, 40 << 20, 200},
		"busy":                    {200 << 20, 50 << 20, 400},
		"as much as there may be": {2 << 30, 64 << 20, 400},
		"holds much":              {2 << 30, 1 << 30, 200},
		"holds little yet":        {2 << 30, 5 << 20, 1000},
		"holds nothing yet":       {2 << 30, 0, 1000},
	} {
		if got := collectPercent(c.garbage, c.held); got != c.want {
			t.Errorf("%s: %d %%, want %d", name, got, c.want)
		}
	}
}
