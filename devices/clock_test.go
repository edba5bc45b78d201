package devices

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// TestClock: skew and drift are measured from messages that were under way for a while, some for hours.
func TestClock(t *testing.T) {
	day := 24 * time.Hour
	for _, tt := range []struct {
		name   string
		ahead  func(since time.Duration) time.Duration // of the device's clock
		every  time.Duration
		during time.Duration
		late   float64 // share of messages that are hours under way
		state  citywarden.ClockState
		offset float64 // seconds, within 1
		drift  float64 // ppm, within 10; NaN for unknown
	}{
		{"a good one", func(time.Duration) time.Duration { return 0 }, time.Minute, 2 * day, 0, citywarden.ClockGood, 0, 0},
		{"with a backlog now and then", func(time.Duration) time.Duration { return 0 }, 10 * time.Minute, 5 * day, 0.3, citywarden.ClockGood, 0, 0},
		{"two minutes ahead", func(time.Duration) time.Duration { return 2 * time.Minute }, time.Minute, day, 0, citywarden.ClockAhead, 120, 0},
		{"two minutes behind", func(time.Duration) time.Duration { return -2 * time.Minute }, time.Minute, day, 0, citywarden.ClockBehind, -120, 0},
		{"gains 15 s a day", func(d time.Duration) time.Duration { return d * 174 / 1e6 }, time.Minute, 3 * day, 0, citywarden.ClockDrifting, 45, 174},
		{"loses 3 s a day, with a backlog", func(d time.Duration) time.Duration { return -d * 35 / 1e6 }, 15 * time.Minute, 10 * day, 0.2, citywarden.ClockGood, -30, -35},
		{"once a day, gains 15 s", func(d time.Duration) time.Duration { return d * 174 / 1e6 }, day, 20 * day, 0, citywarden.ClockAhead, 300, 174},
		{"too short to tell", func(time.Duration) time.Duration { return 0 }, time.Minute, 3 * time.Hour, 0, citywarden.ClockGood, 0, math.NaN()},
		{"set after two days, 90 s forward", func(d time.Duration) time.Duration {
			if d > 2*day {
				return 90 * time.Second
			}
			return 0
		}, time.Minute, 3 * day, 0, citywarden.ClockAhead, 90, 0},
		{"set right after two days, from 5 minutes ahead", func(d time.Duration) time.Duration {
			if d > 2*day {
				return 0
			}
			return 5 * time.Minute
		}, time.Minute, 10 * day, 0, citywarden.ClockGood, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			c := &clock{}
			began := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
			for since := time.Duration(0); since <= tt.during; since += tt.every {
				way := time.Duration(random.IntN(400)) * time.Millisecond
				if random.Float64() < tt.late {
					way = time.Duration(random.IntN(5)+1) * time.Hour
				}
				at := began.Add(since)
				c.observe(at, at, at.Add(-way).Add(tt.ahead(since-way)), false)
			}
			v := c.view()
			drift := math.NaN()
			if v.Drift != nil {
				drift = *v.Drift
			}
			if v.State != tt.state || math.Abs(v.Offset-tt.offset) > 1 || !(math.Abs(drift-tt.drift) < 10) && !(math.IsNaN(drift) && math.IsNaN(tt.drift)) {
				t.Errorf("%s, offset %.3f s, drift %.1f ppm; want %s, %.1f, %.1f\n%v", v.State, v.Offset, drift, tt.state, tt.offset, tt.drift, c.points)
			}
			if len(c.points) > clockPoints {
				t.Errorf("%d points", len(c.points))
			}
			if d := cmp.Diff(v, clockOf(c.history()).view()); d != "" {
				t.Errorf("stored and loaded (-was +now):\n%s", d)
			}
		})
	}
}

// TestClockUnset: a device in 1970 has no clock, until it gives a time that can be true.
func TestClockUnset(t *testing.T) {
	c := &clock{}
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	steps := []struct {
		stated time.Time
		untrue bool
		want   citywarden.ClockState
	}{
		{time.Unix(60, 0), true, citywarden.ClockUnset},
		{at.Add(time.Minute), false, citywarden.ClockGood},
		{at.AddDate(5, 0, 0), true, citywarden.ClockUnset},
		{at.Add(3 * time.Minute), false, citywarden.ClockGood},
	}
	for i, s := range steps {
		now := at.Add(time.Duration(i) * time.Minute)
		c.observe(now, now, s.stated, s.untrue)
		if got := c.view().State; got != s.want {
			t.Errorf("step %d: %s, want %s", i, got, s.want)
		}
	}
	if s := fmt.Sprint((*clock)(nil).view()); s != "<nil>" {
		t.Errorf("a device without times: %s", s)
	}
}

// TestOurClockWasAhead: what was seen by a clock of ours that was set back later says nothing of the devices'. A
// message of before that is brought in again takes nothing from what is known.
func TestOurClockWasAhead(t *testing.T) {
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for _, years := range []int{1, 20} {
		c := &clock{}
		for i := range 3 {
			now := at.Add(time.Duration(i) * time.Minute)
			ours := now.AddDate(years, 0, 0)
			c.observe(ours, ours, now, years > 11) // ours knows better than to believe it
		}
		c = clockOf(c.history())
		stored := false
		for since := 10 * time.Minute; since <= 24*time.Hour; since += time.Minute {
			now := at.Add(since)
			stored = c.observe(now, now, now, false) || stored
		}
		v := c.view()
		if !stored || v.State != citywarden.ClockGood || v.Drift == nil || v.Since.Before(at) || v.At.After(at.Add(24*time.Hour)) {
			t.Errorf("%d years ahead: %+v, stored: %v", years, v, stored)
		}
		now := at.Add(25 * time.Hour)
		c.observe(now, at.Add(time.Minute), at.Add(time.Minute), false)
		if d := cmp.Diff(v, c.view()); d != "" {
			t.Errorf("after an old message:\n%s", d)
		}
	}
}
