package rules

import (
	"fmt"
	"math"
	"testing"
)

// What is told from the value alone is told as by the conditions.
func TestACalmValueRaisesNothing(t *testing.T) {
	for _, op := range []string{">", ">=", "<", "<="} {
		for _, limit := range []float64{-3, 0, 0.1, 7} {
			w := newWorld(t, fmt.Sprintf(`rules: [{id: r, select: {model: probe}, levels: [{severity: minor, when: 'x %s %v'}]}]`, op, limit), dev("d", "probe"))
			now := 0 * s
			for _, x := range []float64{math.Nextafter(limit, -1e9), limit, math.Nextafter(limit, 1e9)} {
				raised := map[string]bool{">": x > limit, ">=": x >= limit, "<": x < limit, "<=": x <= limit}[op]
				watch := &w.set.plans["probe"].watches[0][0]
				if calm := watch.low <= x && x <= watch.high; calm == raised {
					t.Errorf("x %s %v: calm at %v: %v", op, limit, x, calm)
				}
				w.put("d", now, "x", x)
				if open := w.e.Stats().Active == 1; open != raised {
					t.Errorf("x %s %v: an alarm at %v: %v", op, limit, x, open)
				}
				now += s
			}
		}
	}
	for _, when := range []string{`x > 5 and on`, `x + y > 5`, `x > (attr.limit ?? 5)`, `avg(x, "5m") > 5`, `changed(x)`, `x > 5 or hour > 7`} {
		w := newWorld(t, fmt.Sprintf(`rules: [{id: r, select: {model: probe}, levels: [{severity: minor, when: '%s'}]}]`, when), dev("d", "probe"))
		for i := range w.set.plans["probe"].watches[0] {
			watch := &w.set.plans["probe"].watches[0][i]
			if one := i == 0 && when == `x > 5 and on`; len(watch.ladders)+len(watch.others)+len(watch.always) > 0 && watch.low <= watch.high != one {
				t.Errorf("%s: metric %d is calm from %v to %v", when, i, watch.low, watch.high)
			}
		}
	}
}
