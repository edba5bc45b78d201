package rules

import (
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/citywarden/citywarden"
)

const s = time.Second

// probeRule is a rule for model probe with the given lines below select.
func probeRule(lines ...string) string {
	out := "rules:\n- id: r\n  select: {model: probe}\n"
	for _, l := range lines {
		out += "  " + l + "\n"
	}
	return out
}

func TestForIsADeadlineInEventTime(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: major, when: 'x > 5', for: 30s}]`), dev("d", "probe"))
	w.put("d", 10*s, "x", 6.0)
	w.put("d", 20*s, "x", 7.0)
	w.to(39 * s)
	w.expect("")
	w.to(40 * s)
	w.expect("40s raised d major")
	w.put("d", 70*s, "x", 5.0)
	w.expect("40s raised d major\n1m10s cleared d major")
	a := w.got[1].Alarm
	if a.State != citywarden.AlarmCleared || !a.ClearedAt.Equal(t0.Add(70*s)) || a.ID != "r:d:1" || w.got[1].Key != "r/d/1/2" {
		t.Errorf("alarm %+v, key %s", a, w.got[1].Key)
	}
}

func TestOneBufferedSampleNeverSatisfiesAFiveMinuteRule(t *testing.T) {
	// ThingsBoard #10590: a 5-minute rule fires on one sample that was buffered
	// longer than that, because event time and wall time are mixed.
	w := newWorld(t, probeRule(`levels: [{severity: major, when: 'x > 5', for: 5m}]`), dev("d", "probe"))
	w.send("d", 0, 600*s, "x", 6.0) // measured ten minutes ago
	w.send("d", 1*s, 601*s, "x", 4.0)
	w.to(1200 * s)
	w.expect("")
}

func TestPendingEndsWhenTheConditionDoes(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: major, when: 'x > 5', for: 30s}]`), dev("d", "probe"))
	w.put("d", 0, "x", 6.0)
	w.put("d", 20*s, "x", 1.0)
	w.put("d", 25*s, "x", 6.0)
	w.to(54 * s)
	w.expect("")
	w.to(55 * s)
	w.expect("55s raised d major")
}

func TestClearHasAConditionAndADelayOfItsOwn(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: major, when: 'x > 5'}]`, `clear: {when: 'x < 4', for: 20s}`), dev("d", "probe"))
	w.put("d", 0, "x", 6.0)
	w.put("d", 10*s, "x", 4.5) // neither
	w.put("d", 20*s, "x", 3.0)
	w.put("d", 30*s, "x", 4.2)
	w.put("d", 40*s, "x", 3.0)
	w.to(100 * s)
	w.expect(`
		0s raised d major
		20s clearing d major
		30s resumed d major
		40s clearing d major
		1m0s cleared d major`)
}

func TestClearThatIsTrueTogetherWithRaiseDoesNotClear(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: major, when: 'x > 5'}]`, `clear: {when: 'y < 4'}`), dev("d", "probe"))
	w.put("d", 0, "x", 6.0, "y", 1.0)
	w.put("d", 10*s, "x", 6.0, "y", 1.0)
	w.expect("0s raised d major")
	w.put("d", 20*s, "x", 2.0)
	w.expect("0s raised d major\n20s cleared d major")
}

func TestLevelsRunInParallel(t *testing.T) {
	w := newWorld(t, probeRule(
		`levels:`,
		`- {severity: minor, when: 'x > 5', for: 10s}`,
		`- {severity: critical, when: 'x > 9', for: 20s, clear: {when: 'x < 8', for: 5s}}`,
		`clear: {when: 'x < 4', for: 10s}`), dev("d", "probe"))
	w.put("d", 0, "x", 10.0)
	w.to(30 * s)
	w.order(30*s, citywarden.OrderAck, "r:d:1", 0)
	w.put("d", 40*s, "x", 7.0) // critical ends, minor goes on
	w.put("d", 60*s, "x", 10.0)
	w.to(80 * s) // goes up again at once, and is to be acknowledged again
	w.put("d", 90*s, "x", 3.0)
	w.to(120 * s)
	w.expect(`
		10s raised d minor
		20s escalated d critical
		30s acked d critical acked
		45s lowered d minor acked
		1m20s escalated d critical
		1m30s clearing d critical
		1m35s lowered d minor clearing
		1m40s cleared d minor`)
}

func TestUnknownChangesNothing(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: major, when: 'x > 5 and not (y > 3)'}]`), dev("d", "probe"))
	w.put("d", 0, "x", 6.0) // y never came: not (y > 3) is unknown, not true
	w.expect("")
	w.put("d", 1*s, "y", 1.0)
	w.expect("1s raised d major")
	w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordUplink, At: t0.Add(2 * s)}, Device: w.device("d"),
		Readings: []citywarden.Reading{{Metric: "x", Value: citywarden.Number(nan), Time: t0.Add(2 * s)}}})
	w.put("d", 3*s, "limit", 1.0) // no such metric
	w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordUplink, At: t0.Add(4 * s)}, Device: w.device("d"),
		Readings: []citywarden.Reading{{Metric: "x", Value: citywarden.Number(1), Time: t0.Add(4 * s), Quality: citywarden.OutOfRange},
			{Metric: "x", Value: citywarden.TextValue("1"), Time: t0.Add(4 * s)}}})
	w.expect("1s raised d major")
}

func TestSilenceKeepsAnAlarmActive(t *testing.T) {
	// Grafana's MissingSeries resolves after two evaluations; a burning detector
	// that falls silent must not.
	w := newWorld(t, probeRule(`levels: [{severity: critical, when: 'x > 5'}]`, `clear: {when: 'x < 4', for: 1m}`), dev("d", "probe"))
	w.put("d", 0, "x", 6.0)
	w.to(48 * time.Hour)
	w.expect("0s raised d critical\n20m0s no_data d critical nodata")
	w.put("d", 48*time.Hour, "y", 1.0) // it is back, but says nothing about x
	w.put("d", 48*time.Hour+s, "x", 3.0)
	w.to(49 * time.Hour)
	w.expect(`
		0s raised d critical
		20m0s no_data d critical nodata
		48h0m0s data_back d critical
		48h0m1s clearing d critical
		48h1m1s cleared d critical
	`)
}

func TestDelaysBeginAgainWhenDataReturn(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: major, when: 'x > 5', for: 30m}]`), dev("d", "probe"))
	w.put("d", 0, "x", 6.0) // stale after 20 minutes
	w.to(59 * time.Minute)
	w.put("d", 60*time.Minute, "x", 6.0)
	for m := 70; m <= 85; m += 5 {
		w.put("d", time.Duration(m)*time.Minute, "x", 6.0)
	}
	w.expect("")
	w.to(90 * time.Minute)
	w.expect("1h30m0s raised d major")
}

func TestLatchNeedsAReset(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: critical, when: 'x > 5'}]`, `latch: true`), dev("d", "probe"))
	w.put("d", 0, "x", 6.0)
	w.order(1*s, citywarden.OrderReset, "r:d:1", 0) // its condition still holds
	w.order(2*s, citywarden.OrderAck, "r:d:1", 0)
	w.put("d", 10*s, "x", 1.0)
	w.put("d", 20*s, "x", 6.0)
	w.put("d", 30*s, "x", 1.0)
	w.order(40*s, citywarden.OrderReset, "r:d:1", 0)
	w.put("d", 50*s, "x", 6.0)
	w.expect(`
		0s raised d critical
		2s acked d critical acked
		10s latched d critical latched acked
		20s resumed d critical
		30s latched d critical latched
		40s cleared d critical
		50s raised d critical`)
	if got := w.got[5].Alarm.Reason; got != "reset by li: why" {
		t.Errorf("reason %q", got)
	}
	if id := w.got[6].Alarm.ID; id != "r:d:2" {
		t.Errorf("second episode is %s", id)
	}
}

func TestClearedAlarmCanStillBeAcknowledged(t *testing.T) { // ISA-18.2 RTN-UNACK
	w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'x > 5'}]`), dev("d", "probe"))
	w.put("d", 0, "x", 6.0)
	w.put("d", 1*s, "x", 1.0)
	w.order(2*s, citywarden.OrderAck, "r:d:1", 0)
	w.order(3*s, citywarden.OrderAck, "r:d:1", 0) // twice is once
	w.order(3*s, citywarden.OrderAck, "r:d:7", 0) // no such alarm
	w.expect("0s raised d minor\n1s cleared d minor\n2s acked d minor acked")
	if got := w.got[2].Alarm; got.AckedBy != "li" || !got.AckedAt.Equal(t0.Add(2*s)) || got.State != citywarden.AlarmCleared {
		t.Errorf("alarm %+v", got)
	}
}

func TestShelving(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'x > 5'}]`), dev("d", "probe"))
	w.put("d", 0, "x", 6.0)
	w.order(1*s, citywarden.OrderAck, "r:d:1", 0)
	w.order(2*s, citywarden.OrderShelve, "r:d:1", 60*s)
	w.put("d", 10*s, "x", 1.0) // evaluation goes on
	w.put("d", 20*s, "x", 6.0) // the next episode is shelved as well
	w.to(70 * s)               // it ends while active: annunciated again
	w.order(80*s, citywarden.OrderShelve, "r:d:2", 200*s)
	w.order(90*s, citywarden.OrderUnshelve, "r:d:2", 0)
	w.order(95*s, citywarden.OrderShelve, "r:d:2", 95*s) // over already
	w.to(300 * s)
	w.expect(`
		0s raised d minor
		1s acked d minor acked
		2s shelved d minor acked shelved
		10s cleared d minor acked shelved
		20s raised d minor shelved
		1m0s unshelved d minor
		1m20s shelved d minor shelved
		1m30s unshelved d minor`)
}

// A shelf and being out of service are for the rule and entity, with who ordered
// them and why, whatever else happens to the alarm.
func TestWhatIsPutAsideStaysSo(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'x > 5'}]`, `latch: true`), dev("d", "probe"))
	w.put("d", 0, "x", 6.0)
	w.order(1*s, citywarden.OrderShelve, "r:d:1", 60*s)
	w.order(2*s, citywarden.OrderOutOfService, "r:d:1", 0)
	w.order(3*s, citywarden.OrderOutOfService, "r:d:1", 0) // twice is once
	w.put("d", 4*s, "x", 1.0)
	w.order(5*s, citywarden.OrderReset, "r:d:1", 0)
	w.put("d", 6*s, "x", 6.0)
	if tr := w.got[len(w.got)-1]; tr.Kind != citywarden.WentOutOfService || tr.By != "li" || tr.Note != "why" {
		t.Errorf("the history of the next episode does not say why nobody is told: %+v", tr)
	}
	if a := w.got[len(w.got)-1].Alarm; a.ID != "r:d:2" || a.Reason != "why" || a.ShelvedBy != "li" || !a.Shelved.Equal(t0.Add(60*s)) ||
		a.OutOfServiceReason != "why" || a.OutOfServiceBy != "li" || !a.OutOfService.Equal(t0.Add(2*s)) {
		t.Errorf("the next episode: %+v", a)
	}
	if tr := w.got[4]; tr.Kind != citywarden.Cleared || tr.Note != "reset by li: why" || tr.By != "li" || tr.Alarm.Reason != "why" {
		t.Errorf("the reset: %+v", tr)
	}
	w.order(10*s, citywarden.OrderAck, "r:d:2", 0)
	w.to(60 * s) // still out of service
	w.order(70*s, citywarden.OrderInService, "r:d:2", 0)
	w.order(71*s, citywarden.OrderInService, "r:d:2", 0)
	w.order(80*s, citywarden.OrderOutOfService, "r:d:2", 0)
	w.put("d", 90*s, "x", 1.0)
	w.order(91*s, citywarden.OrderReset, "r:d:2", 0)
	w.order(92*s, citywarden.OrderInService, "r:d:2", 0) // while there is no alarm
	w.order(93*s, citywarden.OrderOutOfService, "r:d:2", 0)
	w.put("d", 100*s, "x", 6.0)
	w.e.DeviceChanged(*w.device("d"), true)
	w.devices = nil
	w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordTick, At: t0.Add(110 * s)}})
	w.expect(`
		0s raised d minor
		1s shelved d minor shelved
		2s out_of_service d minor shelved out-of-service
		4s latched d minor latched shelved out-of-service
		5s cleared d minor shelved out-of-service
		6s raised d minor shelved out-of-service
		6s out_of_service d minor shelved out-of-service
		10s acked d minor acked shelved out-of-service
		1m0s unshelved d minor acked out-of-service
		1m10s in_service d minor
		1m20s out_of_service d minor out-of-service
		1m30s latched d minor latched out-of-service
		1m31s cleared d minor out-of-service
		1m32s in_service d minor
		1m33s out_of_service d minor out-of-service
		1m40s raised d minor out-of-service
		1m40s out_of_service d minor out-of-service
		1m50s cleared d minor out-of-service
		1m50s in_service d minor`)
	for _, tr := range w.got {
		if called := tr.At.Equal(t0) || tr.At.Equal(t0.Add(70*s)); tr.Annunciated != called {
			t.Errorf("%s %s annunciated %t", tr.At.Sub(t0), tr.Kind, tr.Annunciated)
		}
	}
}

func TestSilentDevice(t *testing.T) {
	rule := probeRule(`levels: [{severity: minor, when: 'silent(attr.wait ?? "15m")'}]`)
	w := newWorld(t, rule, dev("a", "probe"), dev("b", "probe", "wait", "5m"), dev("never", "probe"))
	for m := 1; m <= 10; m++ {
		w.put("a", time.Duration(m)*time.Minute, "x", 1.0)
		w.send("b", 0, time.Duration(m)*time.Minute+s, "x", 1.0) // old readings are signs of life too
	}
	w.to(30 * time.Minute)
	w.put("b", 31*time.Minute, "x", 1.0)
	w.expect(`
		15m0s raised never minor
		15m1s raised b minor
		25m0s raised a minor
		31m0s cleared b minor`)
	if got := w.got[1].Why.Summary.EN; got != "b: nothing was heard for 5m." {
		t.Errorf("summary %q", got)
	}
}

func TestAnOutageOfOursRaisesNobody(t *testing.T) {
	rule := probeRule(`levels: [{severity: minor, when: 'silent("15m")'}]`)
	w := newWorld(t, rule, dev("a", "probe"), dev("b", "probe"))
	w.put("a", 1*time.Minute, "x", 1.0)
	w.put("b", 2*time.Minute, "x", 1.0)
	w.noTicks = true // the platform is down
	w.put("b", 3*time.Hour, "x", 1.0)
	w.noTicks = false
	w.to(3*time.Hour + 14*time.Minute)
	w.expect("")
	w.to(3*time.Hour + 16*time.Minute)
	w.expect("3h15m0s raised a minor\n3h15m0s raised b minor")

	// One that was silent before stays so.
	w.noTicks = true
	w.put("b", 9*time.Hour, "x", 1.0)
	w.noTicks = false
	w.to(9*time.Hour + 20*time.Minute)
	w.expect(`
		3h15m0s raised a minor
		3h15m0s raised b minor
		9h0m0s cleared b minor
		9h15m0s raised b minor`)
}

// While there is no room for messages the clock goes on, and nobody is silent for it.
func TestNoRoomForMessagesRaisesNobody(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'silent("15m")'}]`), dev("a", "probe"), dev("b", "probe"))
	w.put("a", 1*time.Minute, "x", 1.0)
	w.put("b", 10*time.Minute, "x", 1.0)
	for at := 12 * time.Minute; at <= time.Hour; at += 10 * time.Second {
		w.to(at - time.Millisecond)
		w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordDeaf, At: t0.Add(at)}})
	}
	w.put("b", 61*time.Minute, "x", 1.0)
	w.to(74 * time.Minute)
	w.expect("")
	w.to(77 * time.Minute)
	w.expect("1h15m0s raised a minor\n1h16m0s raised b minor")
}

// While the log can't be written there is no tick either; what it says afterwards keeps everybody from being silent for that time,
// and nobody who was silent before.
func TestALogThatWasNotWrittenRaisesNobody(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'silent("15m")'}]`), dev("a", "probe"), dev("b", "probe"), dev("c", "probe"))
	w.put("c", 1*time.Minute, "x", 1.0)
	w.put("a", 10*time.Minute, "x", 1.0)
	w.put("b", 12*time.Minute, "x", 1.0)
	w.to(20 * time.Minute)
	w.noTicks = true
	w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordDeaf, Lasted: 5*time.Minute + 5*time.Second, At: t0.Add(25*time.Minute + 5*time.Second)}})
	w.noTicks = false
	w.put("b", 26*time.Minute, "x", 1.0)
	w.to(40 * time.Minute)
	w.expect("16m0s raised c minor")
	w.to(43 * time.Minute)
	w.expect("16m0s raised c minor\n40m5s raised a minor\n41m0s raised b minor")
}

// The first record after a time in which nothing ran tells of a log that was not written for a moment: nobody was heard
// long before that, and nobody is silent for it.
func TestALogThatWasNotWrittenAfterAnOutageRaisesNobody(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'silent("15m")'}]`), dev("a", "probe"), dev("b", "probe"))
	w.put("a", 10*time.Minute, "x", 1.0)
	w.put("b", 12*time.Minute, "x", 1.0)
	w.noTicks = true
	w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordDeaf, Lasted: 5 * time.Second, At: t0.Add(2*time.Hour + 5*time.Second)}})
	w.noTicks = false
	w.to(2*time.Hour + 10*time.Minute)
	w.expect("")
	w.put("b", 2*time.Hour+11*time.Minute, "x", 1.0)
	w.to(2*time.Hour + 20*time.Minute)
	w.expect("2h15m5s raised a minor")
}

// What the broker says for a device that has gone is taken, and no sign of its life.
func TestAWillIsNoSignOfLife(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'silent("15m")'}]`), dev("a", "probe"))
	w.put("a", 1*time.Minute, "x", 1.0)
	will := w.message("a", 10*time.Minute, 10*time.Minute, "x", 2.0)
	will.Uplink = &citywarden.Uplink{Device: "a", Protocol: citywarden.ProtocolWill}
	w.step(will)
	w.to(17 * time.Minute)
	w.expect("16m0s raised a minor")
}

func TestADeviceThatWasRegisteredWhileWeWereDownIsWatchedForSilence(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'silent("15m")'}]`), dev("a", "probe"))
	w.put("a", time.Minute, "x", 1.0)
	snap := snapshot(t, w.e)
	w.devices = append(w.devices, dev("b", "probe"))
	w.e = w.engine()
	if err := w.e.Restore(snap); err != nil {
		t.Fatal(err)
	}
	w.put("b", 2*time.Minute, "x", 1.0)
	w.to(20 * time.Minute)
	w.expect("16m0s raised a minor\n17m0s raised b minor")
}

func TestSkew(t *testing.T) {
	rule := probeRule(`levels: [{severity: minor, when: 'skew() > 60 or skew() < -600', for: 1m}]
  clear: {when: 'skew() < 30 and skew() > -300'}`)
	w := newWorld(t, rule, dev("a", "probe"), dev("b", "probe"), dev("c", "probe"))
	message := func(id string, at time.Duration, stated time.Time, readings ...citywarden.Reading) {
		w.to(at - time.Millisecond)
		w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordUplink, At: t0.Add(at)},
			Device: w.device(id), Readings: readings, Stated: stated})
	}
	say := func(id string, at, skew time.Duration, readings ...citywarden.Reading) {
		message(id, at, t0.Add(at+skew), readings...)
	}
	at := func(d time.Duration) citywarden.Reading {
		return citywarden.Reading{Metric: "x", Value: citywarden.Number(1), Time: t0.Add(d), Quality: citywarden.Clamped}
	}
	say("a", 10*s, time.Hour, at(10*s))
	say("b", 10*s, -time.Hour, at(10*s-time.Hour))
	say("c", 10*s, -500_000*time.Hour) // 1969: every reading was quarantined
	say("b", 20*s, -time.Minute, at(-40*s))
	message("a", 90*s, time.Time{}, at(90*s)) // without a time of its own it says nothing of the clock
	say("a", 100*s, 45*s, at(100*s))
	say("c", 110*s, 0, at(110*s))
	say("a", 120*s, 0, at(120*s))
	w.expect(`
		1m10s raised a minor
		1m10s raised c minor
		1m50s cleared c minor
		2m0s cleared a minor`)
	if got, want := w.got[0].Why.Summary, (citywarden.Text{EN: "a: its clock is 1h fast, for 1m.", ZH: "a：设备时钟快 1 小时，已持续 1 分钟。"}); got != want {
		t.Errorf("summary %+v, want %+v", got, want)
	}
	if en, zh := clockText(-90 * s); en != "its clock, or its reporting, is 1m30s behind" || zh != "设备时钟或上报滞后 1 分钟 30 秒" {
		t.Errorf("behind: %s, %s", en, zh)
	}
}

func TestGroup(t *testing.T) {
	w := newWorld(t, `
rules:
- id: fire
  select: {model: [smoke-detector]}
  group: {by: attr.zone}
  levels:
  - {severity: warning, when: 'n_of(smoke > (attr.smoke_limit ?? 0.5), "60s") >= 1', for: 10s}
  - {severity: critical, when: 'n_of(smoke > attr.smoke_limit, "60s") >= 2 or n_of(button, "60s") >= 1'}
  clear: {when: 'n_of(smoke > 0.06, "120s") == 0', for: 5m}
  case: {class: event/0595, key: 'fire/{{zone}}/{{attr.building}}'}
`, dev("s1", "smoke-detector", "zone", "Z", "building", "B"), dev("s2", "smoke-detector", "zone", "Z", "smoke_limit", 0.3),
		dev("s3", "smoke-detector", "zone", "Z"), dev("lone", "smoke-detector"))
	w.put("s2", 0, "smoke", 0.2, "button", false) // below its own limit
	w.put("s1", 1*s, "smoke", 0.2, "button", false)
	w.to(20 * s)
	w.put("s3", 21*s, "smoke", 0.2, "button", false)
	w.put("lone", 22*s, "smoke", 0.01, "button", true) // without a zone it is one of its own
	w.expect(`
		11s raised Z warning
		21s escalated Z critical
		22s raised lone critical`)
	a := w.got[1].Alarm
	if a.Device != "s1" || len(a.Members) != 2 || w.got[1].Case.Key != "fire/Z/B" || w.got[2].Case.Key != "fire/lone/lone" {
		t.Errorf("alarm %+v, case %+v, %+v", a, w.got[1].Case, w.got[2].Case)
	}
	w.put("s2", 30*s, "smoke", 0.4)
	if tr := w.got[len(w.got)-1]; tr.Kind != citywarden.Joined || len(tr.Alarm.Members) != 3 {
		t.Errorf("third member: %s %v", tr.Kind, tr.Alarm.Members)
	}
	// s1 burns and falls silent, the others are clean: that is not an all-clear.
	for m := 1; m < 60; m++ {
		w.put("s2", time.Duration(m)*time.Minute, "smoke", 0.01)
		w.put("s3", time.Duration(m)*time.Minute, "smoke", 0.01)
	}
	if tr := w.got[len(w.got)-1]; tr.Alarm.Entity == "Z" && tr.Alarm.State == citywarden.AlarmCleared {
		t.Errorf("cleared although s1 fell silent while burning:\n%s", w.story())
	}
	w.put("s1", time.Hour, "smoke", 0.01)
	w.to(2 * time.Hour)
	cleared := false
	for _, tr := range w.got {
		cleared = cleared || tr.Alarm.Entity == "Z" && tr.Kind == citywarden.Cleared && tr.At.Equal(t0.Add(time.Hour+5*time.Minute))
	}
	if !cleared {
		t.Errorf("did not clear 5 minutes after the last was clean:\n%s", w.story())
	}
}

func TestOneFastClockMakesNobodyLate(t *testing.T) { // eKuiper #530
	w := newWorld(t, `
rules:
- id: fire
  select: {model: smoke-detector}
  group: {by: attr.zone}
  levels: [{severity: critical, when: 'n_of(smoke > 0.1, "60s") >= 2'}]
`, dev("s1", "smoke-detector", "zone", "Z"), dev("s2", "smoke-detector", "zone", "Z"))
	w.send("s1", 280*s, 0, "smoke", 0.2) // its clock is 280 s ahead
	w.put("s2", 10*s, "smoke", 0.2)
	w.expect("10s raised Z critical")
}

func TestNeighbours(t *testing.T) {
	rule := probeRule(`late: 30s`, `levels: [{severity: major, when: 'x < 2 and n_adj(x < 3, "60s") >= 1'}]`)
	w := newWorld(t, rule, dev("a", "probe", "adjacent", "b c"), dev("b", "probe"), dev("c", "probe"))
	w.put("b", 0, "x", 2.5)
	w.put("a", 70*s, "x", 1.0) // b's reading is too old
	w.put("b", 75*s, "x", 5.0)
	w.to(150 * s)
	w.expect("")
	w.put("c", 160*s, "x", 2.0) // a holds its value; its neighbour decides
	w.to(400 * s)
	w.expect("2m40s raised a major")
	if tr := w.got[0]; tr.Logged.Before(t0.Add(190 * s)) {
		t.Errorf("raised at %s, before the readings of a up to then must have come", tr.Logged.Sub(t0))
	}
}

func TestLateReadings(t *testing.T) {
	rule := probeRule(`late: 60s`, `levels: [{severity: major, when: 'x > 5', for: 20s}]`)
	w := newWorld(t, rule, dev("d", "probe"))
	// In order it reads 6 (10s), 1 (20s), 6 (30s), 6 (40s), 1 (55s): true for 25 s from 30s.
	w.send("d", 40*s, 41*s, "x", 6.0)
	w.send("d", 10*s, 42*s, "x", 6.0)
	w.send("d", 55*s, 56*s, "x", 1.0)
	w.send("d", 30*s, 60*s, "x", 6.0)
	w.send("d", 20*s, 65*s, "x", 1.0)
	w.to(300 * s)
	w.expect("50s raised d major\n55s cleared d major")

	// What comes later than that is history only.
	w.send("d", 290*s, 300*s, "x", 1.0)
	w.send("d", 200*s, 301*s, "x", 9.0)
	w.send("d", 229*s, 302*s, "x", 9.0)
	w.send("d", 230*s, 303*s, "x", 1.0) // not too late
	w.to(1200 * s)
	if n := w.e.Stats().Late; n != 2 || len(w.got) != 2 {
		t.Errorf("%d late readings, want 2:\n%s", n, w.story())
	}
}

func TestLateOfOneRuleDelaysNoOther(t *testing.T) {
	w := newWorld(t, `
rules:
- {id: slow, select: {model: probe}, late: 10m, levels: [{severity: minor, when: 'x > 5'}]}
- {id: fast, select: {model: probe}, levels: [{severity: minor, when: 'x > 5'}]}
`, dev("d", "probe"))
	w.put("d", 0, "x", 6.0)
	if len(w.got) != 1 || w.got[0].Alarm.Rule != "fast" {
		t.Fatalf("transitions %s", w.story())
	}
	w.to(10 * time.Minute)
	if len(w.got) != 2 || w.got[1].Alarm.Rule != "slow" || !w.got[1].At.Equal(t0) {
		t.Fatalf("transitions %s", w.story())
	}
}

func TestAnOldSampleClearsNothing(t *testing.T) { // ThingsBoard #4207, #3119
	w := newWorld(t, probeRule(`levels: [{severity: major, when: 'x > 5'}]`), dev("d", "probe"))
	w.put("d", 100*s, "x", 6.0)
	w.send("d", 50*s, 110*s, "x", 1.0)
	w.expect("1m40s raised d major")
	if n := w.e.Stats().Late; n != 1 {
		t.Errorf("%d late readings counted, want 1", n)
	}
}

func TestSchedule(t *testing.T) {
	// t0 is Monday 08:00 in Asia/Shanghai.
	rule := probeRule(`schedule: {tz: Asia/Shanghai, active: ["mon-fri 22:00-06:00"]}`, `levels: [{severity: minor, when: 'x > 5', for: 10m}]`)
	w := newWorld(t, rule, dev("d", "probe"))
	day := func(h float64) time.Duration { return time.Duration((h - 8) * float64(time.Hour)) }
	for h := 8.0; h < 8+7*24; h += 0.25 { // it is always too much
		w.put("d", day(h), "x", 6.0)
	}
	var want []string
	for n := range 5 { // Monday to Friday; the night to Saturday belongs to Friday
		want = append(want, (day(22+10./60)+time.Duration(n)*24*time.Hour).Round(s).String()+" raised d minor",
			(day(30)+time.Duration(n)*24*time.Hour).String()+" cleared d minor")
	}
	w.expect(strings.Join(want, "\n"))
	if r := w.got[1].Alarm.Reason; r != "schedule ended" {
		t.Errorf("reason %q", r)
	}
}

// bytes returns how much memory the ring takes.
func (r *ring) bytes() int {
	size := int(unsafe.Sizeof(*r)) + cap(r.s)*int(unsafe.Sizeof(sample{})) + cap(r.panes)*int(unsafe.Sizeof([]pane{}))
	for _, ps := range r.panes {
		size += cap(ps) * int(unsafe.Sizeof(pane{}))
	}
	return size
}

func TestAWindowTakesTwoKilobytes(t *testing.T) {
	for _, c := range []struct {
		window string
		every  time.Duration
	}{{"24h", time.Minute}, {"5m", 2 * time.Second}} {
		w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'avg(x, "`+c.window+`") > 1e9'}]`), dev("d", "probe"))
		w.noTicks = true
		for i := range 3000 {
			w.put("d", time.Duration(i)*c.every, "x", float64(i))
		}
		size := w.e.devices["d"].rings[0].bytes()
		t.Logf("%s with a reading every %s: %d bytes", c.window, c.every, size)
		if size > 2048 {
			t.Errorf("%s with a reading every %s takes %d bytes", c.window, c.every, size)
		}
	}
}

func TestAScheduleThatBeginsRaisesOnlyWhatIsTrueThen(t *testing.T) {
	// One reading, then silence: the window empties while the schedule is off.
	// The entity that had an alarm before must not be raised at the beginning of
	// the schedule, when the next reading comes, while one that had none is not.
	rule := probeRule(`schedule: {active: ["mon-sun 08:00-08:05", "mon-sun 08:30-08:40"]}`, `levels: [{severity: minor, when: 'x > 5 or count(x, "10m") < 2'}]`)
	w := newWorld(t, rule, dev("a", "probe"), dev("b", "probe"))
	w.put("a", 10*s, "x", 9.0)
	w.put("a", 20*s, "x", 1.0)
	w.put("b", 15*s, "y", 1.0)
	for _, id := range []string{"a", "b"} {
		for m := 6; m <= 8; m++ {
			w.put(id, time.Duration(m)*time.Minute, "x", 1.0)
		}
	}
	w.put("a", 45*time.Minute, "y", 1.0)
	w.put("a", 46*time.Minute, "x", 1.0)
	w.put("b", 46*time.Minute, "x", 1.0)
	w.expect("10s raised a minor\n20s cleared a minor")
}

func TestScheduleHolidays(t *testing.T) {
	for mode, want := range map[string]string{"all-day": "-8h0m0s true, 16h0m0s false", "off": "14h0m0s false"} {
		s := &schedule{loc: defaultLocation(), holidays: mode}
		iv, err := parseInterval("mon-sun 22:00-06:00")
		if err != nil {
			t.Fatal(err)
		}
		s.intervals = []interval{iv}
		holiday := func(d time.Time) bool { return d.Day() == 6 } // Tuesday
		tuesday := t0.Add(24 * time.Hour)                         // 08:00
		in, _ := s.active(tuesday.UnixMilli(), holiday)
		night, _ := s.active(tuesday.Add(15*time.Hour).UnixMilli(), holiday) // 23:00
		before, _ := s.active(tuesday.Add(-3*time.Hour).UnixMilli(), holiday)
		if mode == "all-day" && (!in || !night || !before) || mode == "off" && (in || night || !before) {
			t.Errorf("%s: %t %t %t (%s)", mode, in, night, before, want)
		}
	}
}

func TestFlappingIsHeld(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: minor, when: 'on'}]`, `flap: {changes: 6, in: 10m, then: hold}`), dev("d", "probe"))
	for i := range 40 {
		w.put("d", time.Duration(i)*30*s, "on", i%2 == 0)
	}
	w.to(2 * time.Hour)
	if n := strings.Count(w.story(), "raised"); n > 4 {
		t.Errorf("raised %d times:\n%s", n, w.story())
	}
	if last := w.got[len(w.got)-1]; last.Kind != citywarden.Cleared {
		t.Errorf("never cleared:\n%s", w.story())
	}
}

func TestInhibitor(t *testing.T) {
	w := newWorld(t, `
rules:
- {id: gateway.offline, select: {model: parking-gateway}, levels: [{severity: major, when: 'not mains'}]}
- {id: child, select: {model: smoke-detector}, inhibit_by: [{rule: gateway.offline, equal: [attr.gateway]}], levels: [{severity: minor, when: 'smoke > 1', for: 10s}]}
`, dev("g1", "parking-gateway"), dev("a", "smoke-detector", "gateway", "g1"), dev("b", "smoke-detector", "gateway", "g2"))
	w.put("g1", 0, "mains", false)
	w.put("a", 1*s, "smoke", 2.0)
	w.put("b", 1*s, "smoke", 2.0)
	w.to(30 * s)
	w.expect("0s raised g1 major\n11s raised b minor")
	w.put("g1", 60*s, "mains", true)
	w.to(70 * s)
	w.expect("0s raised g1 major\n11s raised b minor\n1m0s cleared g1 major\n1m0s raised a minor")
}

func TestWhereSelects(t *testing.T) {
	w := newWorld(t, `
rules:
- {id: lane, select: {model: parking-bay, where: 'attr.kind == "fire_lane"'}, levels: [{severity: minor, when: occupied}]}
`, dev("bay", "parking-bay"), dev("lane", "parking-bay", "kind", "fire_lane"))
	w.put("bay", 0, "occupied", true)
	w.put("lane", 1*s, "occupied", true)
	w.expect("1s raised lane minor")
	changed := *w.device("lane")
	changed.Attributes = map[string]any{"kind": "bay"}
	w.e.DeviceChanged(changed, false)
	w.put("bay", 2*s, "occupied", true)
	w.expect("1s raised lane minor\n2s cleared lane minor")
	w.e.DeviceChanged(*w.device("lane"), false)
	w.devices[1].Updated = t0
	w.put("lane", 3*s, "occupied", true)
	if last := w.got[len(w.got)-1]; last.Alarm.ID != "lane:lane:2" {
		t.Errorf("after a removed instance the episode is %s, want lane:lane:2", last.Alarm.ID)
	}
}

func TestRemovedDeviceClosesItsAlarms(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: minor, when: on}]`, `workorder: {key: 'm/{{device}}'}`), dev("d", "probe"), dev("e", "probe"))
	w.put("d", 0, "on", true)
	w.e.DeviceChanged(*w.device("d"), true)
	w.put("e", 1*s, "on", false)
	w.expect("0s raised d minor\n1s cleared d minor")
	if tr := w.got[1]; tr.Alarm.Reason != "device removed" || tr.Case.Key != "m/d" || !tr.Case.WorkOrder {
		t.Errorf("transition %+v %+v", tr.Alarm, tr.Case)
	}
}

func TestShadowIsMarked(t *testing.T) {
	w := newWorld(t, probeRule(`mode: shadow`, `title: {zh: 高, en: High}`, `levels: [{severity: minor, when: on}]`), dev("d", "probe"))
	w.put("d", 0, "on", true)
	if tr := w.got[0]; !tr.Shadow || tr.Alarm.Title.ZH != "高" {
		t.Errorf("transition %+v", tr)
	}
}

func TestASummarySaysACallInWords(t *testing.T) {
	for _, c := range []struct{ when, en, zh string }{
		{`delta(x, "1m") >= 4`, "change of x within 1m is 5 bar, at least 4 bar", "1 分钟内x的变化为 5 bar，不低于 4 bar"},
		{`(max(x, "90s")) > 5`, "highest x in 90s is 6 bar, above 5 bar", "1 分钟 30 秒内x的最高值为 6 bar，高于 5 bar"},
		{`sum(x, "1m") >= 20`, "sum of x over 1m is 21 bar, at least 20 bar", "1 分钟内x的累计值为 21 bar，不低于 20 bar"},
		{`stddev(x, "1m") > 2`, "standard deviation of x over 1m is 2.357 bar, above 2 bar", "1 分钟内x的标准差为 2.357 bar，高于 2 bar"},
		{`count(x, "1m") >= 6 and x > 5`, "number of readings of x in 1m is 6, at least 6", "1 分钟内x的数据条数为 6，不低于 6"},
		{`rate(x, "1m") > 0.05`, "change of x per second over 1m is 0.083333 bar/s, above 0.05 bar/s", "1 分钟内x每秒的变化为 0.083333 bar/s，高于 0.05 bar/s"},
		{`rate(x, "1m") * 60 > 3`, "change of x per minute over 1m is 5 bar/min, above 3 bar/min", "1 分钟内x每分钟的变化为 5 bar/min，高于 3 bar/min"},
		{`(x + 1) * (x + 2) > 30`, "(x + 1) * (x + 2) is 56, above 30", "(x + 1) * (x + 2) 为 56，高于 30"},
	} {
		w := newWorld(t, probeRule("levels: [{severity: major, when: '"+c.when+"'}]"), dev("d", "probe"))
		for n := range 20 {
			w.put("d", time.Duration(n)*10*s, "x", float64(1+n/12*5))
		}
		w.to(200 * s)
		if len(w.got) == 0 {
			t.Fatalf("%s raised nothing", c.when)
		}
		if got, want := w.got[0].Why.Summary, (citywarden.Text{EN: "d: " + c.en + ".", ZH: "d：" + c.zh + "。"}); got != want {
			t.Errorf("%s: %+v, want %+v", c.when, got, want)
		}
	}
}

func TestExplanation(t *testing.T) {
	w := newWorld(t, probeRule(`levels: [{severity: major, when: 'x > (attr.limit ?? 5) and avg(y, "1m") >= 2', for: 10s}]`), dev("d", "probe"))
	w.put("d", 0, "x", 1.0, "y", 2.0)
	w.send("d", 30*s, 31*s, "x", 6.25, "y", 4.0)
	w.to(60 * s)
	why := w.got[0].Why
	if why.Condition != `x > (attr.limit ?? 5) and avg(y, "1m") >= 2` || why.Held.String() != "10s" || !why.Since.Equal(t0.Add(30*s)) {
		t.Errorf("why %+v", why)
	}
	if len(why.Leaves) != 2 || why.Leaves[0].Left != 6.25 || why.Leaves[0].Right != 5.0 || why.Leaves[1].Left != 3.0 || why.Leaves[1].Result != "true" {
		t.Errorf("leaves %+v", why.Leaves)
	}
	if len(why.Inputs) != 2 || why.Inputs[0].Unit != "bar" || !why.Inputs[0].Arrived.Equal(t0.Add(31*s)) || !why.Inputs[0].Time.Equal(t0.Add(30*s)) {
		t.Errorf("inputs %+v", why.Inputs)
	}
	if len(why.Attributes) != 1 || why.Attributes[0] != (citywarden.ExplainAttr{Name: "limit", Value: 5.0, From: "rule"}) {
		t.Errorf("attributes %+v", why.Attributes)
	}
	if len(why.Windows) != 1 || why.Windows[0].Samples != 2 || why.Windows[0].Result != 3.0 {
		t.Errorf("windows %+v", why.Windows)
	}
	if want := (citywarden.Text{EN: "d: x is 6.25 bar, above 5 bar, for 10s.", ZH: "d：x 为 6.25 bar，高于 5 bar，已持续 10 秒。"}); why.Summary != want {
		t.Errorf("summary %+v, want %+v", why.Summary, want)
	}
}

// A reading that is older than others of its device, which only other rules
// read, used to be evaluated as of those.
func TestARuleIsEvaluatedAsIfItWereAlone(t *testing.T) {
	alone := "rules:\n- {id: a, select: {model: probe}, levels: [{severity: major, when: 'x > 5'}]}\n"
	beside := alone + "- {id: b, select: {model: probe}, levels: [{severity: minor, when: 'y > 100'}]}\n" +
		"- {id: c, select: {model: probe}, levels: [{severity: minor, when: 'y > 100 and x > 100'}]}\n"
	both := alone + "- {id: b, select: {model: probe}, levels: [{severity: minor, when: 'y > 5 and x > 5'}]}\n"
	for _, tt := range []struct{ name, yaml, want string }{
		{"alone", alone, "10s raised d major"},
		{"beside others", beside, "10s raised d major"},
		{"beside one that reads both", both, "10s raised d major\n20s raised d minor"},
	} {
		w := newWorld(t, tt.yaml, dev("d", "probe"))
		w.put("d", 20*s, "y", 7.0)
		w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordUplink, At: t0.Add(21 * s)}, Device: w.device("d"),
			Readings: []citywarden.Reading{{Metric: "x", Value: citywarden.Number(6), Time: t0.Add(10 * s)}}})
		t.Run(tt.name, func(t *testing.T) { w.expect(tt.want) })
	}
}

// What waits for late readings used to wait on when the device's clock went on
// by a metric that no rule reads.
func TestAMetricThatNoRuleReadsMovesTheWatermark(t *testing.T) {
	w := newWorld(t, "rules:\n- {id: a, select: {model: probe}, late: 1m, levels: [{severity: major, when: 'x > 5'}]}\n", dev("d", "probe"))
	w.step(citywarden.Entry{Record: citywarden.Record{Kind: citywarden.RecordUplink, At: t0.Add(30 * s)}, Device: w.device("d"),
		Readings: []citywarden.Reading{{Metric: "x", Value: citywarden.Number(6), Time: t0.Add(10 * s)}}})
	w.put("d", 69*s, "y", 1.0)
	w.expect("")
	w.put("d", 70*s, "y", 1.0)
	w.expect("10s raised d major")
}

// TestOurClockWasAhead: devices that were heard while our clock was 8 hours ahead go on raising alarms at once when it is set back,
// and what waits for a time does so by the time of the log, which goes on at half the pace.
func TestOurClockWasAhead(t *testing.T) {
	w := newWorld(t, `
rules:
- id: fire
  select: {model: smoke-detector}
  levels: [{severity: critical, when: 'smoke > 0.1'}]
- id: slow
  select: {model: smoke-detector}
  levels: [{severity: major, when: 'smoke > 0.1', for: 10s}]
- id: silent
  select: {model: smoke-detector}
  levels: [{severity: minor, when: 'silent("15m")'}]
`, dev("s1", "smoke-detector"), dev("s2", "smoke-detector"))
	const h8 = 8 * 3600 * s
	w.put("s1", h8, "smoke", 0.0)
	for _, at := range []time.Duration{10 * s, 20 * s, 30 * s, 40 * s} { // by our clock since it was set back
		for _, id := range []string{"s1", "s2"} {
			logged := h8 + at/2
			x := w.message(id, at, logged, "smoke", 0.6)
			x.Ahead = logged - at
			w.to(logged - time.Millisecond)
			w.step(x)
		}
	}
	w.expect(`15m0s raised s1 minor
		15m0s raised s2 minor
		8h0m0s cleared s1 minor
		8h0m5s raised s1 critical
		8h0m5s raised s2 critical
		8h0m5s cleared s2 minor
		8h0m15s raised s1 major
		8h0m15s raised s2 major`)
}
