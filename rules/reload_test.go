package rules

import (
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

// reload runs yaml from now on, as Runner.Reload does: with a record at once.
func (w *world) reload(at time.Duration, yaml string) {
	w.t.Helper()
	w.to(at - time.Millisecond)
	w.set = load(w.t, yaml)
	if err := w.e.SetRules(w.set); err != nil {
		w.t.Fatal(err)
	}
	w.tick(at)
}

func (w *world) tick(at time.Duration) {
	w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordTick, At: t0.Add(at)}})
}

func TestReloadWhileANeighboursReadingWaits(t *testing.T) {
	rule := func(limit string) string {
		return probeRule(`levels: [{severity: major, when: 'avg(x, "1m") > ` + limit + ` and n_adj(x > 5, "90s") >= 1'}]`)
	}
	w := newWorld(t, rule("5"), dev("p1", "probe", "adjacent", "p2"), dev("p2", "probe", "adjacent", "p1"))
	w.send("p1", 1*s, 11*s, "x", 6.0) // it is 10 s behind, so what a neighbour says waits for it
	w.put("p2", 12*s, "x", 6.0)
	w.reload(15*s, rule("4"))
	w.to(60 * s)
	w.expect("12s raised p2 major\n12s raised p1 major")
}

func TestTwoReloadsWithoutARecordBetweenThem(t *testing.T) {
	rule := func(f string) string {
		return probeRule(`levels: [{severity: major, when: 'x > 5', for: ` + f + `}]`)
	}
	w := newWorld(t, rule("60s"), dev("d", "probe"))
	w.put("d", 0, "x", 6.0)
	w.to(10 * s)
	for range 2 {
		w.set = load(t, rule("90s"))
		if err := w.e.SetRules(w.set); err != nil {
			t.Fatal(err)
		}
	}
	w.tick(20 * s)
	w.to(200 * s)
	w.expect("1m30s raised d major")
}

func TestASilentDeviceIsSeenByARuleThatComesLater(t *testing.T) {
	silent := func(w string) string {
		return probeRule(`levels: [{severity: minor, when: 'silent("` + w + `")'}]`)
	}
	t.Run("shorter", func(t *testing.T) {
		w := newWorld(t, silent("15m"), dev("d", "probe"))
		w.put("d", 10*s, "x", 1.0)
		w.reload(20*s, silent("1m"))
		w.to(2 * time.Minute)
		w.expect("1m10s raised d minor")
	})
	t.Run("shorter than it is silent", func(t *testing.T) {
		w := newWorld(t, silent("15m"), dev("d", "probe"))
		w.put("d", 10*s, "x", 1.0)
		w.reload(5*time.Minute, silent("1m"))
		w.expect("5m0s raised d minor")
	})
	t.Run("new", func(t *testing.T) {
		w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'x > 5'}]`), dev("d", "probe"))
		w.put("d", 10*s, "x", 1.0)
		w.reload(5*time.Hour, silent("15m"))
		w.expect("5h0m0s raised d minor")
	})
	t.Run("attribute", func(t *testing.T) {
		w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'silent(attr.wait ?? "15m")'}]`), dev("d", "probe"))
		w.put("d", 10*s, "x", 1.0)
		w.to(5 * time.Minute)
		w.devices = []*citywarden.Device{dev("d", "probe", "wait", "1m")}
		w.e.DeviceChanged(*w.devices[0], false)
		w.tick(5 * time.Minute)
		w.expect("5m0s raised d minor")
	})
}

func TestALaneThatChangesItsLateKeepsWhatWaits(t *testing.T) {
	rule := func(late string) string {
		return probeRule(`late: `+late, `levels: [{severity: major, when: 'x > 5'}]`, `clear: {when: 'x < 1'}`)
	}
	for _, late := range []string{"0s", "30s", "90s"} {
		w := newWorld(t, rule("60s"), dev("d", "probe"))
		w.put("d", 10*s, "x", 9.0)
		w.put("d", 20*s, "x", 4.0)
		w.reload(25*s, rule(late))
		w.to(5 * time.Minute)
		w.put("d", 6*time.Minute, "x", 4.0)
		if len(w.got) == 0 {
			t.Errorf("late %s: what waited under 60s was never evaluated", late)
			continue
		}
		w.expect("10s raised d major")
	}
}
