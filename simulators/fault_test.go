package simulators

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

// arrivals returns what arrives within a day of a smoke detector with faults,
// which go on from the sixth hour to the twelfth.
func arrivals(t *testing.T, list ...Fault) []Message {
	t.Helper()
	w := scripted(t, Script{County: town(dev("s", "smoke-detector", 0, nil)), Start: monday, Seed: 5})
	for i := range list {
		list[i].From, list[i].To = monday.Add(6*time.Hour), monday.Add(12*time.Hour)
	}
	d, err := w.Faulty("s", list...)
	if err != nil {
		t.Fatal(err)
	}
	var out []Message
	for m, ok := d.Next(monday.Add(24 * time.Hour)); ok; m, ok = d.Next(monday.Add(24 * time.Hour)) {
		if len(out) > 0 && m.At.Before(out[len(out)-1].At) {
			t.Fatalf("%v: a message at %s comes after one at %s", list, m.At, out[len(out)-1].At)
		}
		out = append(out, m)
	}
	return out
}

type telemetry struct {
	TS     int64
	Values map[string]any
}

// read returns the readings of a message, nil when it is malformed.
func read(m Message) []telemetry {
	var one telemetry
	var all []telemetry
	if json.Unmarshal(m.Payload, &all) == nil {
		return all
	}
	if json.Unmarshal(m.Payload, &one) != nil {
		return nil
	}
	return []telemetry{one}
}

func TestFaults(t *testing.T) {
	good := arrivals(t)
	const perDay = 24 * 3600 / 20
	if len(good) < perDay || len(good) > perDay+1 {
		t.Fatalf("%d messages in a day", len(good))
	}
	in := func(m Message) bool {
		return !m.Measured.Before(monday.Add(6*time.Hour)) && m.Measured.Before(monday.Add(12*time.Hour))
	}
	off := func(m Message) float64 { // s, of the time stamp
		return float64(read(m)[0].TS-m.Measured.UnixMilli()) / 1000
	}
	during := func(ms []Message) []Message {
		return slices.DeleteFunc(slices.Clone(ms), func(m Message) bool { return !in(m) })
	}
	few := perDay / 4
	near := func(a, b, by float64) bool { return math.Abs(a-b) <= by }

	for kind, check := range map[string]func(ms []Message) bool{
		StuckValues: func(ms []Message) bool {
			d := during(ms)
			return bytes.Equal(valuesOf(d[3].Payload), valuesOf(d[len(d)-2].Payload)) && off(d[9]) == 0
		},
		LowBattery: func(ms []Message) bool {
			d := during(ms)
			return read(d[len(d)-1])[0].Values["battery"] == 5.0 && read(d[0])[0].Values["battery"].(float64) > 20
		},
		Skew:  func(ms []Message) bool { return off(during(ms)[7]) == 300 },
		Drift: func(ms []Message) bool { d := during(ms); return near(off(d[len(d)-1]), 15, 0.1) && off(d[0]) < 0.1 },
		BrownOut: func(ms []Message) bool {
			lost, old := len(good)-len(ms), 0
			for _, m := range during(ms) {
				if read(m)[0].TS < 100_000 {
					old++
				}
			}
			return near(float64(lost), 9, 6) && near(float64(old), 36*3, 20)
		},
		WrongUnit: func(ms []Message) bool { m := during(ms)[5]; return read(m)[0].TS == m.Measured.Unix() },
		Malformed: func(ms []Message) bool {
			bad := 0
			for _, m := range ms {
				if !json.Valid(m.Payload) || bytes.ContainsFunc(m.Payload, func(r rune) bool { return r > 127 }) {
					if bad++; !in(m) {
						return false
					}
				}
			}
			return near(float64(bad), 0.1*float64(few), 35)
		},
		Lost:     func(ms []Message) bool { return near(float64(len(good)-len(ms)), 0.1*float64(few), 35) },
		Repeated: func(ms []Message) bool { return near(float64(len(ms)-len(good)), 0.1*float64(few), 35) },
		Disorder: func(ms []Message) bool {
			swapped := 0
			for i := 1; i < len(ms); i++ {
				if ms[i].Measured.Before(ms[i-1].Measured) {
					swapped++
				}
			}
			return swapped > few/10 && len(ms) == len(good)
		},
		Offline: func(ms []Message) bool {
			n, flushed := 0, 0
			for _, m := range ms {
				n += len(read(m))
				if in(m) && m.At.Before(monday.Add(12*time.Hour)) {
					return false
				}
				if len(read(m)) > 1 {
					flushed++
				}
			}
			return n == len(good) && flushed == few/backlog+1
		},
		Silent: func(ms []Message) bool { return len(during(ms)) <= 1 && len(ms) == len(good)-few },
	} {
		ms := arrivals(t, Fault{Kind: kind})
		if !check(ms) {
			t.Errorf("%s: %d messages where %d are sent, not as it should be", kind, len(ms), len(good))
		}
		if again := arrivals(t, Fault{Kind: kind}); !slices.EqualFunc(ms, again, func(a, b Message) bool { return a.At.Equal(b.At) && bytes.Equal(a.Payload, b.Payload) }) {
			t.Errorf("%s: the same seed, other messages", kind)
		}
		// Before and after it nothing is wrong.
		for _, i := range []int{3, -3} {
			if i < 0 {
				i += len(ms)
			}
			if m := ms[i]; len(read(m)) != 1 || off(m) != 0 {
				t.Errorf("%s: message %d is %s", kind, i, m.Payload)
			}
		}
	}
	lift := during(arrivals(t, Fault{Kind: WrongModel, As: "lift"}))[4]
	if v := read(lift)[0].Values; v["floor"] == nil || v["smoke"] != nil {
		t.Errorf("a detector that poses as a lift sends %s", lift.Payload)
	}
	both := during(arrivals(t, Fault{Kind: Skew, Size: -10}, Fault{Kind: StuckValues}, Fault{Kind: Lost, Size: 0.5}))
	if len(both) > few*6/10 || off(both[2]) != -10 || !bytes.Equal(valuesOf(both[1].Payload), valuesOf(both[5].Payload)) {
		t.Errorf("three faults at once: %d messages, %s", len(both), both[2].Payload)
	}
}

func TestFaultsThatCannotBe(t *testing.T) {
	w := scripted(t, Script{County: town(dev("s", "smoke-detector", 0, nil)), Start: monday})
	for _, f := range []Fault{
		{Kind: "tired"}, {Kind: Silent, Size: 1}, {Kind: Lost, Size: 2}, {Kind: Lost, Size: -1}, {Kind: WrongModel}, {Kind: WrongModel, As: "smoke-detector"}, {Kind: Lost, As: "lift"},
	} {
		f.From, f.To = monday, monday.Add(time.Hour)
		if _, err := w.Faulty("s", f); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if _, err := w.Faulty("s", Fault{Kind: Lost}); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("without a time: %v", err)
	}
	if _, err := w.Faulty("x"); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Errorf("of nobody: %v", err)
	}
}
