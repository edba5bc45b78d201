package ingest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// The time series are read where there are points to be looked for, in one go while they lie close, and an hour at most.
func TestWhereAnAuditLooks(t *testing.T) {
	begin := time.Date(2026, 11, 27, 4, 0, 0, 0, time.UTC)
	r := auditRun{points: map[auditPoint]bool{}}
	add := func(domain citywarden.Domain, device citywarden.DeviceID, after ...time.Duration) {
		for _, a := range after {
			r.points[auditPoint{domain, device, "energy", begin.Add(a).UnixNano()}] = true
		}
	}
	add(citywarden.Building, "a", time.Second, 4*time.Minute)
	add(citywarden.Building, "b", 7*time.Minute, 7*time.Minute+time.Nanosecond)
	add(citywarden.Building, "c", 30*time.Minute) // nothing for long
	add(citywarden.Fire, "d", 8*time.Minute)
	for i := range 100 {
		add(citywarden.Parking, "w", time.Duration(i)*time.Minute)
	}
	var got []string
	points := 0
	for _, s := range r.spans() {
		got = append(got, fmt.Sprintf("%s %s to %s, %d devices", s.domain, time.Unix(0, s.from).Sub(begin), time.Unix(0, s.to).Sub(begin), len(s.devices)))
		for p := range r.points {
			if p.domain == s.domain && s.from <= p.at && p.at <= s.to && s.devices[p.device] {
				points++
			}
		}
	}
	want := []string{
		"building 1s to 7m0.000000001s, 2 devices",
		"building 30m0s to 30m0s, 1 devices",
		"fire 8m0s to 8m0s, 1 devices",
		"parking 0s to 59m0s, 1 devices",
		"parking 1h0m0s to 1h39m0s, 1 devices",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spans:\n%s", diff)
	}
	if points != len(r.points) {
		t.Errorf("%d points lie in them, of %d", points, len(r.points))
	}
}
