package rules

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

// whyNotRules has a rule for each reason.
const whyNotRules = `
rules:
- {id: limit, select: {model: probe}, levels: [{severity: major, when: 'x > 8'}, {severity: minor, when: 'x > 5 and y < 3', for: 60s}], clear: {when: 'x < 4'}, late: 30s}
- {id: fire, select: {model: probe}, levels: [{severity: critical, when: 'on'}], latch: true}
- {id: armed, select: {model: probe, where: 'attr.armed'}, levels: [{severity: minor, when: 'x > 5'}]}
- {id: night, select: {model: probe}, schedule: {active: ["mon-sun 22:00-23:00"]}, levels: [{severity: minor, when: 'x > 5'}]}
- {id: own, select: {model: probe}, levels: [{severity: minor, when: 'x > attr.limit'}]}
- {id: shadow, mode: shadow, select: {model: probe}, levels: [{severity: minor, when: 'x > 5'}]}
- {id: held, select: {model: probe}, levels: [{severity: minor, when: 'y > 5'}], inhibit_by: [{rule: fire, equal: [attr.zone]}]}
- {id: evening, select: {model: probe}, levels: [{severity: minor, when: 'hour >= 9 and x > 3'}]}
- {id: mains, select: {model: probe}, levels: [{severity: minor, when: 'not on and x > 0'}]}
- {id: two, select: {model: probe}, group: {by: attr.zone}, levels: [{severity: major, when: 'n_of(x > 6, "60s") >= 2'}]}
- {id: offline, select: {model: probe}, levels: [{severity: minor, when: 'silent("10m")'}]}
- {id: long, select: {model: probe}, levels: [{severity: minor, when: 'x > 5 and y < 3', for: 40m}]}
- {id: mean, select: {model: probe}, levels: [{severity: minor, when: 'avg(x, "5m") > 7'}]}
`

func TestWhyNot(t *testing.T) {
	for _, c := range []struct {
		name   string
		rule   citywarden.RuleID
		play   func(w *world)
		at     time.Duration
		reason citywarden.WhyNotReason
		en, zh string // parts of the summary
		look   func(t *testing.T, x *citywarden.WhyNot)
	}{
		{"another model", "limit", nil, 0, citywarden.WhyNotModel, "g: the rule watches probe, and the device is of model parking-gateway.", "型号 probe", nil},
		{"left out by where", "armed", nil, 0, citywarden.WhyNotWhere, "select.where is false for its attributes, attr.armed", "attr.armed", func(t *testing.T, x *citywarden.WhyNot) {
			if l := x.Levels[0]; len(l.Attributes) != 1 || l.Attributes[0].Value != false {
				t.Errorf("attributes %+v", l.Attributes)
			}
		}},
		{"out of schedule", "night", func(w *world) { w.put("p", s, "x", 9.0) }, 10 * s, citywarden.WhyNotSchedule, "not in force; it is from 2026-01-05 22:00:00+08:00 on", "不在生效时段", nil},
		{"no message at all", "limit", nil, time.Minute, citywarden.WhyNotNoData, "nothing came from the device since 2026-01-05", "未收到该设备的数据", func(t *testing.T, x *citywarden.WhyNot) {
			if !x.LastSeen.IsZero() || len(x.Missing) != 2 {
				t.Errorf("last seen %s, missing %+v", x.LastSeen, x.Missing)
			}
		}},
		{"a metric that never came", "limit", func(w *world) { w.put("p", s, "x", 6.0) }, time.Minute, citywarden.WhyNotNoData, "no y of p came since", "的 y", nil},
		{"stale", "limit", func(w *world) { w.put("p", s, "x", 1.0, "y", 1.0) }, 25 * time.Minute, citywarden.WhyNotNoData,
			"the last x of p is of 2026-01-05 08:00:01+08:00, and is not current after 20m", "超过 20 分钟 即视为过期", nil},
		{"an attribute without a value", "own", func(w *world) { w.put("p", s, "x", 6.0) }, time.Minute, citywarden.WhyNotUnknown, "attribute limit has no value: x > attr.limit", "属性 limit 没有值", nil},
		{"condition false", "limit", func(w *world) { w.put("p", s, "x", 2.0, "y", 1.0) }, time.Minute, citywarden.WhyNotCondition, "p: x is 2 bar, not above 5 bar.", "p：x 为 2 bar，不高于 5 bar。", func(t *testing.T, x *citywarden.WhyNot) {
			if len(x.Levels) != 2 || x.Levels[0].Severity != citywarden.Minor || x.Levels[0].Result != "false" || len(x.Levels[0].Leaves) != 2 ||
				x.Levels[0].Leaves[0].Left != 2.0 || x.Levels[0].Leaves[0].Op != ">" || x.Levels[0].Leaves[0].Right != 5.0 || x.Levels[0].Leaves[0].Result != "false" || x.Levels[0].Leaves[1].Result != "true" {
				t.Errorf("levels %+v", x.Levels)
			}
		}},
		{"the other half of the condition is false", "limit", func(w *world) { w.put("p", s, "x", 6.0, "y", 4.0); w.put("p", 40*s, "x", 6.0, "y", 4.0) }, time.Minute, citywarden.WhyNotCondition, "y is 4, not below 3", "y 为 4，不低于 3", nil},
		{"false because of a not", "mains", func(w *world) { w.put("p", s, "on", true, "x", 1.0) }, time.Minute, citywarden.WhyNotCondition, "the condition is false: not on and x > 0", "不满足告警条件：not on", nil},
		{"a window", "mean", func(w *world) { w.put("p", s, "x", 2.0); w.put("p", 61*s, "x", 9.0) }, 2 * time.Minute, citywarden.WhyNotCondition, "mean of x over 5m is 5.5 bar, not above 7 bar", "5 分钟内x的平均值", nil},
		{"heard lately", "offline", func(w *world) { w.put("p", 20*time.Minute, "x", 2.0) }, 25 * time.Minute, citywarden.WhyNotCondition, "it was heard 5m before", "5 分钟前还有数据上报", nil},
		{"not long enough yet", "limit", func(w *world) {
			for i := range 4 {
				w.put("p", s+time.Duration(i)*20*s, "x", 6.0, "y", 1.0)
			}
		}, 50 * s, citywarden.WhyNotHolding, "x is 6 bar, above 5 bar, since 2026-01-05 08:00:01+08:00; it has to hold for 1m, the alarm would come at 2026-01-05 08:01:31+08:00", "须持续 1 分钟", func(t *testing.T, x *citywarden.WhyNot) {
			if !x.Until.Equal(t0.Add(91*s)) || !x.Levels[0].Due.Equal(x.Until) || x.Levels[0].State != "pending" {
				t.Errorf("until %s, %+v", x.Until, x.Levels[0])
			}
		}},
		{"waits for readings out of order", "limit", func(w *world) { w.put("p", s, "x", 9.0, "y", 1.0) }, 5 * s, citywarden.WhyNotHolding, "the rule waits 30s (late) for readings out of order, until 2026-01-05 08:00:31+08:00", "乱序", nil},
		{"the holding time waits for data", "long", func(w *world) {
			w.put("p", s, "x", 6.0, "y", 1.0)
			w.put("p", 15*time.Minute, "x", 6.0)
			w.put("p", 30*time.Minute, "x", 6.0)
		}, 31 * time.Minute, citywarden.WhyNotNoData, "the last y of p is of 2026-01-05 08:00:01+08:00", "y 最后测量于", nil},
		{"held back", "held", func(w *world) { w.put("q", s, "on", true); w.put("p", 2*s, "y", 9.0) }, time.Minute, citywarden.WhyNotInhibited, "alarm fire:q:1 holds it back", "被告警 fire:q:1 抑制", func(t *testing.T, x *citywarden.WhyNot) {
			if x.Alarm == nil || x.Alarm.ID != "fire:q:1" {
				t.Errorf("alarm %+v", x.Alarm)
			}
		}},
		{"came too late", "limit", func(w *world) {
			w.put("p", s, "x", 1.0, "y", 1.0)
			w.put("p", 3*time.Minute, "x", 1.0, "y", 1.0)
			w.send("p", 90*s, 4*time.Minute, "x", 9.0)
		}, 5 * time.Minute, citywarden.WhyNotLate, "x = 9 bar @ 2026-01-05 08:01:30+08:00 met the condition, but came in at 2026-01-05 08:04:00+08:00, when newer ones were there: more than late (30s) behind", "只计入历史", func(t *testing.T, x *citywarden.WhyNot) {
			if len(x.Late) != 1 || x.Late[0].Value != citywarden.Number(9) {
				t.Errorf("late %+v", x.Late)
			}
		}},
		{"came after the moment", "limit", func(w *world) { w.put("p", s, "x", 1.0, "y", 1.0); w.send("p", time.Minute, 2*time.Minute, "x", 9.0) }, 90 * s, citywarden.WhyNotCondition, "x = 9 of 2026-01-05 08:01:00+08:00 came in only at 2026-01-05 08:02:00+08:00, after the moment", "晚于所问时刻", func(t *testing.T, x *citywarden.WhyNot) {
			if len(x.After) != 1 {
				t.Errorf("after %+v", x.After)
			}
		}},
		{"nobody looked", "evening", func(w *world) { w.put("p", 55*time.Minute, "x", 4.0) }, 62 * time.Minute, citywarden.WhyNotNotLooked, "the newest message of the device came at 2026-01-05 08:55:00+08:00", "此后没有新读数", nil},
		{"the platform was down", "limit", func(w *world) {
			w.put("p", s, "x", 6.0, "y", 1.0)
			w.noTicks = true
			w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordStart, At: t0.Add(time.Hour)}})
			w.put("p", time.Hour+s, "x", 6.0)
			w.noTicks = false
		}, 30 * time.Minute, citywarden.WhyNotDown, "it logged nothing from 2026-01-05 08:00:01+08:00 until it started at 2026-01-05 09:00:00+08:00", "平台未在运行", nil},
		{"there was one", "limit", func(w *world) { w.put("p", s, "x", 9.0, "y", 1.0); w.put("p", 50*s, "x", 9.0) }, time.Minute, citywarden.WhyNotAlarm, "there was an alarm, limit:p:1, since 2026-01-05 08:00:01+08:00", "起有告警 limit:p:1", func(t *testing.T, x *citywarden.WhyNot) {
			if x.Alarm == nil || x.Alarm.ID != "limit:p:1" || x.Levels[1].State != "active" {
				t.Errorf("alarm %+v, levels %+v", x.Alarm, x.Levels)
			}
		}},
		{"it is over since", "limit", func(w *world) {
			w.put("p", s, "x", 9.0, "y", 1.0)
			w.put("p", 50*s, "x", 1.0, "y", 1.0)
			w.put("p", 100*s, "x", 1.0, "y", 1.0)
		}, 2 * time.Minute, citywarden.WhyNotCondition, "x is 1 bar, not above 5 bar", "不高于", nil},
		{"shelved", "fire", func(w *world) {
			w.put("p", s, "on", true)
			w.order(10*s, citywarden.OrderShelve, "fire:p:1", time.Hour)
		}, time.Minute, citywarden.WhyNotShelved, "li had put it aside until 2026-01-05 09:00:00+08:00: why", "已被 li 搁置", func(t *testing.T, x *citywarden.WhyNot) {
			if !x.Until.Equal(t0.Add(time.Hour)) {
				t.Errorf("until %s", x.Until)
			}
		}},
		{"out of service", "fire", func(w *world) { w.put("p", s, "on", true); w.order(10*s, citywarden.OrderOutOfService, "fire:p:1", 0) }, time.Minute, citywarden.WhyNotShelved, "li had taken it out of service at 2026-01-05 08:00:10+08:00: why", "将其停用", nil},
		{"out of service long before", "fire", func(w *world) {
			w.serve(s, outOf(citywarden.AlarmOrder{Device: "p"}, 0))
			w.put("p", 100*time.Minute, "on", true)
		}, 101 * time.Minute, citywarden.WhyNotShelved, "there was an alarm, fire:p:1, since 2026-01-05 09:40:00+08:00; li had taken it out of service at 2026-01-05 08:00:01+08:00: works", "将其停用", nil},
		{"suppressed by design", "held", func(w *world) { w.put("p", s, "y", 9.0); w.put("q", 2*s, "on", true) }, time.Minute, citywarden.WhyNotInhibited, "alarm fire:q:1 explains it, so nobody was told", "已由告警 fire:q:1 解释", nil},
		{"latched", "fire", func(w *world) { w.put("p", s, "on", true); w.put("p", 10*s, "on", false) }, time.Minute, citywarden.WhyNotLatched, "its condition is gone and it waits for a reset", "等待人工复位", nil},
		{"shadow", "shadow", func(w *world) { w.put("p", s, "x", 6.0) }, time.Minute, citywarden.WhyNotShadow, "nobody was told, because the rule runs in mode shadow", "shadow 模式", nil},
		{"one of two members", "two", func(w *world) { w.put("p", s, "x", 9.0); w.put("q", 2*s, "x", 1.0) }, 30 * s, citywarden.WhyNotCondition, `Z (p): n_of(x > 6, "60s") is 1, below 2`, "低于 2", func(t *testing.T, x *citywarden.WhyNot) {
			if x.Entity != "Z" || len(x.Levels[0].Members) != 2 || x.Levels[0].Members[0].Result != "true" || x.Levels[0].Members[1].Result != "false" {
				t.Errorf("entity %q, members %+v", x.Entity, x.Levels[0].Members)
			}
		}},
		{"the alarm of the group", "two", func(w *world) { w.put("p", s, "x", 9.0); w.put("q", 2*s, "x", 9.0) }, 30 * s, citywarden.WhyNotAlarm, "there was an alarm, two:Z:1", "two:Z:1", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			inJanuary(t, func(t *testing.T) {
				w := newWorld(t, whyNotRules, dev("p", "probe", "zone", "Z", "armed", false), dev("q", "probe", "zone", "Z"), dev("g", "parking-gateway"))
				if c.play != nil {
					c.play(w)
				}
				w.to(2 * time.Hour)
				d := w.diary()
				over := slices.ContainsFunc(d.alarms, func(a citywarden.Alarm) bool { return a.Rule == "limit" && !a.ClearedAt.IsZero() })
				if c.name == "it is over since" && !over {
					t.Fatalf("alarms %+v", d.alarms)
				}
				device := citywarden.DeviceID("p")
				if c.reason == citywarden.WhyNotModel {
					device = "g"
				}
				x, err := w.lab(d).WhyNot(t.Context(), c.rule, device, t0.Add(c.at))
				if err != nil {
					t.Fatal(err)
				}
				if x.Reason != c.reason || !strings.Contains(x.Summary.EN, c.en) || !strings.Contains(x.Summary.ZH, c.zh) {
					t.Errorf("%s\n%s\n%s\nwant %s with %q and %q", x.Reason, x.Summary.EN, x.Summary.ZH, c.reason, c.en, c.zh)
				}
				if c.look != nil {
					c.look(t, &x)
				}
			})
		})
	}
}

// Also without an alarm it is said that nobody would be told of one.
func TestWhyNotOfWhatIsOutOfService(t *testing.T) {
	inJanuary(t, func(t *testing.T) {
		w := newWorld(t, whyNotRules, dev("p", "probe", "zone", "Z"), dev("q", "probe", "zone", "Z"))
		w.serve(1*s, outOf(citywarden.AlarmOrder{Device: "p"}, 0))
		w.serve(2*s, outOf(citywarden.AlarmOrder{Device: "q"}, 0))
		w.serve(3*s, outOf(citywarden.AlarmOrder{Rule: "two", Entity: "Z"}, 0))
		d := w.diary()
		l := NewLab(NewRunner(w.e, nil, nil, RunnerOptions{}), d, d, anyClass, time.UTC)
		for rule, want := range map[citywarden.RuleID]int{"two": 2, "fire": 1} {
			x, err := l.WhyNot(t.Context(), rule, "p", t0.Add(time.Minute))
			if err != nil || len(x.OutOfService) != want || x.OutOfService[0].Device != "p" {
				t.Errorf("%s: %+v %v, want %d", rule, x.OutOfService, err, want)
			}
		}
	})
}

// What was changed since then is said, instead of a reason that was none.
func TestWhyNotOfARuleThatWasChanged(t *testing.T) {
	inJanuary(t, func(t *testing.T) {
		w := newWorld(t, limitRule, dev("p", "probe"))
		w.put("p", s, "x", 4.5)
		d := w.diary()
		w.set = load(t, strings.Replace(limitRule, "x > 8", "x > 4", 1))
		l := w.lab(d)
		l.zone = time.FixedZone("", 5*3600+1800)
		x, err := l.WhyNot(t.Context(), "limit", "p", t0.Add(time.Minute))
		if err != nil || x.Reason != citywarden.WhyNotChanged || !strings.Contains(x.Summary.EN, "as they are now there would have been an alarm since 2026-01-05 05:30:01+05:30") {
			t.Errorf("%s %s %v", x.Reason, x.Summary, err)
		}
	})
}

func TestWhyNotIsRefused(t *testing.T) {
	inJanuary(t, func(t *testing.T) {
		w := newWorld(t, limitRule, dev("p", "probe"))
		l := w.lab(w.diary())
		for _, c := range []struct {
			rule   citywarden.RuleID
			device citywarden.DeviceID
			at     time.Time
			code   citywarden.Code
			want   string
		}{
			{"limits", "p", t0, citywarden.CodeNotFound, `did you mean "limit"?`},
			{"limit", "x", t0, citywarden.CodeNotFound, "no device x"},
			{"limit", "p", time.Now().Add(time.Second), citywarden.CodeInvalid, "lies in the future"},
		} {
			if _, err := l.WhyNot(t.Context(), c.rule, c.device, c.at); citywarden.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("%s on %s: %v, want %s with %q", c.rule, c.device, err, c.code, c.want)
			}
		}
		if len(l.slots) != 0 {
			t.Error("a refused question keeps its place")
		}
	})
}

// For every alarm of a random history why-not says that there was one, and a
// moment before its raise it does not.
func TestWhyNotAgreesWithTheAlarms(t *testing.T) {
	inJanuary(t, func(t *testing.T) {
		w := history(t, 900, 250)
		d := w.diary()
		l := w.lab(d)
		asked := map[citywarden.RuleID]int{}
		for _, a := range slices.Backward(d.alarms) {
			if asked[a.Rule]++; asked[a.Rule] > 5 {
				continue
			}
			if of := w.set.byID[a.Rule].of; of != nil {
				if _, err := l.WhyNot(t.Context(), a.Rule, a.Device, a.RaisedAt); citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), string(of.ID)) {
					t.Errorf("why not a storm: %v, want to be sent to %s", err, of.ID)
				}
				continue
			}
			raised, _, _, _ := (&inquiry{}).known(t.Context(), d, a.ID)
			for _, c := range []struct {
				at    time.Time
				alarm bool
			}{{raised, true}, {raised.Add(-time.Millisecond), false}} {
				x, err := l.WhyNot(t.Context(), a.Rule, a.Device, c.at)
				if err != nil {
					t.Fatal(err)
				}
				if got := x.Alarm != nil && x.Alarm.ID == a.ID; got != c.alarm || x.Summary.EN == "" || x.Summary.ZH == "" || x.Reason == citywarden.WhyNotChanged {
					t.Errorf("%s at %s: %s %s", a.ID, c.at.Sub(t0), x.Reason, x.Summary.EN)
				}
			}
		}
		if len(asked) < 6 {
			t.Errorf("alarms of %d rules only", len(asked))
		}
	})
}
