package devices_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices"
)

// crowd is as many devices as come back at once, behind as many gateways as fit.
const crowd = 2000

func deviceOf(i int) citywarden.DeviceID { return citywarden.DeviceID(fmt.Sprintf("m-%04d", i)) }

// register creates crowd meters; those that end with 0 are gateways of the nine after them.
func register(t *testing.T, r *devices.Registry) {
	t.Helper()
	csv := "id,name,model,attr.gateway\n"
	for i := range crowd {
		id := deviceOf(i)
		if i%10 == 0 {
			csv += fmt.Sprintf("%s,,iot-gateway,\n", id)
			continue
		}
		csv += fmt.Sprintf("%s,,smoke-detector,%s\n", id, deviceOf(i-i%10))
	}
	report, err := r.Import(t.Context(), strings.NewReader(csv))
	if err != nil || report.Created != crowd {
		t.Fatalf("%d devices were created, %v", report.Created, err)
	}
}

// statuses counts all devices by status.
func statuses(r *devices.Registry) string {
	n := r.Summary("")
	return fmt.Sprintf("%d online, %d silent, %d never", n[citywarden.StatusOnline], n[citywarden.StatusSilent], n[citywarden.StatusNever])
}

// TestThousandsComeBackAtOnce: the platform is away for hours, and no device is silent
// because of that, also when it goes away again before they are back; those that do not
// come back are, when their time is over.
func TestThousandsComeBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openStore(t, filepath.Join(t.TempDir(), "x.db"))
		var pos citywarden.Position
		run := func(f func(r *devices.Registry)) {
			t.Helper()
			r := registryOn(t, db, devices.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- r.Run(ctx) }()
			f(r)
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		hear := func(r *devices.Registry, from, to int) {
			t.Helper()
			var es []citywarden.Entry
			for i := from; i < to; i++ {
				pos++
				es = append(es, message(r, pos, deviceOf(i), time.Now()))
			}
			if err := r.Consume(t.Context(), es); err != nil {
				t.Fatal(err)
			}
		}
		is := func(r *devices.Registry, want string) {
			t.Helper()
			if got := statuses(r); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
		run(func(r *devices.Registry) {
			register(t, r)
			hear(r, 0, crowd)
			is(r, "2000 online, 0 silent, 0 never")
			time.Sleep(29 * time.Minute) // a gateway is silent after 10 minutes, a detector after 30
			hear(r, 0, crowd-100)
			is(r, "1990 online, 10 silent, 0 never")
			time.Sleep(2 * time.Minute) // the last 100 were not heard
			is(r, "1900 online, 100 silent, 0 never")
		})
		time.Sleep(5 * time.Hour)
		run(func(r *devices.Registry) {
			is(r, "1900 online, 100 silent, 0 never")
			time.Sleep(time.Minute)
		})
		time.Sleep(time.Hour) // away again, before anybody was back
		run(func(r *devices.Registry) {
			is(r, "1900 online, 100 silent, 0 never")
			hear(r, 0, 1000)
			time.Sleep(10*time.Minute + time.Second)
			is(r, "1710 online, 290 silent, 0 never") // now the other gateways are
			time.Sleep(20 * time.Minute)
			is(r, "0 online, 2000 silent, 0 never")
			hear(r, 0, crowd)
			is(r, "2000 online, 0 silent, 0 never")
		})
	})
}

// TestAFullDiskMakesNobodySilent: while messages have no room nobody can be heard, and
// afterwards all have their time again to come back, also across a restart.
func TestAFullDiskMakesNobodySilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openStore(t, filepath.Join(t.TempDir(), "x.db"))
		var pos citywarden.Position
		run := func(f func(r *devices.Registry, is func(string))) {
			t.Helper()
			r := registryOn(t, db, devices.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- r.Run(ctx) }()
			f(r, func(want string) {
				t.Helper()
				if got := statuses(r); got != want {
					t.Errorf("%s, want %s", got, want)
				}
			})
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		take := func(r *devices.Registry, es ...citywarden.Entry) {
			t.Helper()
			if err := r.Consume(t.Context(), es); err != nil {
				t.Fatal(err)
			}
		}
		deaf := func(r *devices.Registry, long time.Duration) {
			t.Helper()
			for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(10 * time.Second) {
				pos++
				take(r, citywarden.Entry{Record: citywarden.Record{Position: pos, Kind: citywarden.RecordDeaf, At: time.Now()}})
			}
		}
		run(func(r *devices.Registry, is func(string)) {
			for _, id := range []citywarden.DeviceID{"a", "b"} {
				if _, err := r.Create(t.Context(), citywarden.Device{ID: id, Model: "iot-gateway"}); err != nil { // silent after 10 minutes
					t.Fatal(err)
				}
				pos++
				take(r, message(r, pos, id, time.Now()))
			}
			time.Sleep(5 * time.Minute)
			deaf(r, time.Hour)
			is("2 online, 0 silent, 0 never")
		})
		time.Sleep(time.Second)
		run(func(r *devices.Registry, is func(string)) {
			is("2 online, 0 silent, 0 never")
			deaf(r, time.Hour)
			is("2 online, 0 silent, 0 never")
			time.Sleep(4 * time.Minute)
		})
		run(func(r *devices.Registry, is func(string)) { // that there was no room is known after a restart
			is("2 online, 0 silent, 0 never")
			time.Sleep(time.Minute)
			pos++
			will := message(r, pos, "b", time.Now())
			will.Uplink.Protocol = citywarden.ProtocolWill
			take(r, will)
			pos++
			take(r, message(r, pos, "a", time.Now()))
			time.Sleep(6 * time.Minute)
			is("1 online, 1 silent, 0 never")
			pos++
			take(r, message(r, pos, "b", time.Now()))
			is("2 online, 0 silent, 0 never")
		})
		run(func(r *devices.Registry, is func(string)) { // nor was the log written
			time.Sleep(3 * time.Minute)
			time.Sleep(20 * time.Minute)
			pos++
			take(r, citywarden.Entry{Record: citywarden.Record{Position: pos, Kind: citywarden.RecordDeaf, Lasted: 20 * time.Minute, At: time.Now()}})
			is("2 online, 0 silent, 0 never")
			time.Sleep(2 * time.Minute)
			is("2 online, 0 silent, 0 never")
		})
		run(func(r *devices.Registry, is func(string)) {
			is("2 online, 0 silent, 0 never")
			for _, id := range []citywarden.DeviceID{"a", "b"} {
				pos++
				take(r, message(r, pos, id, time.Now()))
			}
		})
		crashed := time.Now()
		time.Sleep(time.Hour)
		run(func(r *devices.Registry, is func(string)) { // what it put into the log before the crash it takes now
			for range 2 {
				pos++
				take(r, citywarden.Entry{Record: citywarden.Record{Position: pos, Kind: citywarden.RecordDeaf, At: crashed.Add(time.Minute)}})
				is("2 online, 0 silent, 0 never")
			}
		})
	})
}

// TestStoppedWhenTheLogWasNotWritten: a platform that is stopped while its log can't be written, or just when it can again, knows
// after the start that it heard nobody, and who was silent before.
func TestStoppedWhenTheLogWasNotWritten(t *testing.T) {
	for _, c := range []struct {
		name    string
		unready bool          // the log says so
		back    time.Duration // before the stop the log was written again, 0 for not
	}{
		{"stopped while it is not written", true, 0},
		{"stopped at once", true, time.Millisecond},
		{"stopped at once, and nobody said so meanwhile", false, time.Millisecond},
		{"stopped a moment later", false, 10 * time.Second},
		{"stopped after a while", false, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := openStore(t, filepath.Join(t.TempDir(), "x.db"))
				var unready atomic.Bool
				run := func(f func(r *devices.Registry)) {
					t.Helper()
					r := registryOn(t, db, devices.Options{Ready: func() error {
						if unready.Load() {
							return citywarden.Errorf(citywarden.CodeTransient, "the log is not written")
						}
						return nil
					}})
					ctx, cancel := context.WithCancel(t.Context())
					done := make(chan error)
					go func() { done <- r.Run(ctx) }()
					f(r)
					cancel()
					if err := <-done; err != nil {
						t.Fatal(err)
					}
				}
				is := func(r *devices.Registry, want string) {
					t.Helper()
					if got := statuses(r); got != want {
						t.Errorf("%s, want %s", got, want)
					}
				}
				run(func(r *devices.Registry) {
					for i, id := range []citywarden.DeviceID{"c", "a", "b"} {
						if _, err := r.Create(t.Context(), citywarden.Device{ID: id, Model: "iot-gateway"}); err != nil { // silent after 10 minutes
							t.Fatal(err)
						}
						if err := r.Consume(t.Context(), []citywarden.Entry{message(r, citywarden.Position(i+1), id, time.Now())}); err != nil {
							t.Fatal(err)
						}
						time.Sleep(4 * time.Minute)
					}
					is(r, "2 online, 1 silent, 0 never")
					unready.Store(c.unready)
					time.Sleep(time.Hour)
					if c.back == 0 {
						return
					}
					unready.Store(false)
					if err := r.Consume(t.Context(), []citywarden.Entry{{Record: citywarden.Record{Position: 4, Kind: citywarden.RecordDeaf, Lasted: time.Hour, At: time.Now()}}}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(c.back)
					is(r, "2 online, 1 silent, 0 never")
				})
				unready.Store(false)
				time.Sleep(time.Second)
				run(func(r *devices.Registry) {
					is(r, "2 online, 1 silent, 0 never")
					time.Sleep(8 * time.Minute)
					is(r, "2 online, 1 silent, 0 never")
					time.Sleep(3 * time.Minute)
					is(r, "0 online, 3 silent, 0 never")
				})
			})
		})
	}
}

// TestSeenWhileOurClockWasAhead: what was noted by a clock of ours that was set back later does not hide what comes
// then, neither that the device was heard nor its values.
func TestSeenWhileOurClockWasAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		r := registryOn(t, openStore(t, path), devices.Options{})
		if _, err := r.Create(t.Context(), citywarden.Device{ID: "a", Model: "smoke-detector"}); err != nil {
			t.Fatal(err)
		}
		hear := func(pos citywarden.Position, at time.Time, v float64) {
			t.Helper()
			if err := r.Consume(t.Context(), []citywarden.Entry{message(r, pos, "a", at, smoke(v, at))}); err != nil {
				t.Fatal(err)
			}
		}
		is := func(seen time.Time, v float64) {
			t.Helper()
			d, err := r.Get("a")
			if err != nil || !d.LastSeen.Equal(seen) || d.Latest["smoke"].Value != citywarden.Number(v) {
				t.Errorf("seen %s, smoke %v, %v; want %s, %v", d.LastSeen, d.Latest["smoke"].Value, err, seen, v)
			}
		}
		hear(1, time.Now().AddDate(0, 0, 2), 1)
		hear(2, time.Now(), 2)
		is(time.Now(), 2)
		hear(3, time.Now().Add(-time.Minute), 3) // one that is only late does
		is(time.Now(), 2)
	})
}

// TestSilentSinceOurClockWasAhead: one that was heard while our clock was ahead, and never again, is silent in its time
// from when that is noticed, and not when the time comes that the clock showed.
func TestSilentSinceOurClockWasAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openStore(t, filepath.Join(t.TempDir(), "x.db"))
		run := func(f func(r *devices.Registry)) {
			t.Helper()
			r := registryOn(t, db, devices.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- r.Run(ctx) }()
			f(r)
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		after := func(r *devices.Registry, d time.Duration, want string) {
			t.Helper()
			time.Sleep(d)
			if got := statuses(r); got != want {
				t.Errorf("after %s: %s, want %s", d, got, want)
			}
		}
		run(func(r *devices.Registry) {
			for pos, id := range []citywarden.DeviceID{"a", "b"} {
				if _, err := r.Create(t.Context(), citywarden.Device{ID: id, Model: "smoke-detector"}); err != nil {
					t.Fatal(err)
				}
				if err := r.Consume(t.Context(), []citywarden.Entry{message(r, citywarden.Position(pos+1), id, time.Now().AddDate(0, 0, 2))}); err != nil {
					t.Fatal(err)
				}
			}
			after(r, 29*time.Minute, "2 online, 0 silent, 0 never")
			if err := r.Consume(t.Context(), []citywarden.Entry{message(r, 3, "b", time.Now())}); err != nil {
				t.Fatal(err)
			}
			after(r, 3*time.Minute, "1 online, 1 silent, 0 never")
			after(r, 28*time.Minute, "0 online, 2 silent, 0 never")
			after(r, 48*time.Hour, "0 online, 2 silent, 0 never")
			if err := r.Consume(t.Context(), []citywarden.Entry{message(r, 4, "a", time.Now().AddDate(0, 0, 2))}); err != nil {
				t.Fatal(err)
			}
		})
		run(func(r *devices.Registry) { // which does not know since when
			after(r, 29*time.Minute, "1 online, 1 silent, 0 never")
			after(r, 3*time.Minute, "0 online, 2 silent, 0 never")
		})
	})
}

// TestAWillSaysNothingOfAClock: its time is that of when the device connected.
func TestAWillSaysNothingOfAClock(t *testing.T) {
	r := registryOn(t, openStore(t, filepath.Join(t.TempDir(), "x.db")), devices.Options{})
	if _, err := r.Create(t.Context(), citywarden.Device{ID: "a", Model: "smoke-detector"}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for pos, of := range []func(*citywarden.Uplink){
		func(u *citywarden.Uplink) { u.Protocol = citywarden.ProtocolWill },
		func(u *citywarden.Uplink) { u.Topic = citywarden.DeviceDisconnected },
	} {
		will := message(r, citywarden.Position(pos+1), "a", now)
		of(will.Uplink)
		will.Stated = now.Add(-time.Hour)
		if err := r.Consume(t.Context(), []citywarden.Entry{will}); err != nil {
			t.Fatal(err)
		}
		if d, err := r.Get("a"); err != nil || d.Clock != nil {
			t.Errorf("%+v: the clock is %+v, %v", will.Uplink, d.Clock, err)
		}
	}
}

// TestWhySilent is a device: the nearest reason that is known.
func TestWhySilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		r := valves(t, path)
		c := commandsOn(t, path, r)
		valve := citywarden.Device{ID: "v1", Model: "test-valve", Attributes: map[string]any{"gateway": "gw"}}
		for _, d := range []citywarden.Device{{ID: "gw", Model: "iot-gateway"}, valve} {
			if _, err := r.Create(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
		is := func(status citywarden.Status, reason citywarden.SilentReason, connected bool) {
			t.Helper()
			v, err := r.Get("v1")
			if err != nil || v.Status != status || v.Reason != reason || v.Connected != connected {
				t.Errorf("%+v, %v; want %s %q, connected %t", v.Presence, err, status, reason, connected)
			}
		}
		is(citywarden.StatusNever, "", false)
		heardOf(r, "gw", 1, "v1/devices/me/telemetry", nil)
		heardOf(r, "v1", 2, citywarden.DeviceConnected, nil)
		is(citywarden.StatusOnline, "", false)
		seen := time.Now()
		time.Sleep(time.Minute)
		heardOf(r, "v1", 3, citywarden.DeviceDisconnected, nil)
		is(citywarden.StatusSilent, citywarden.SilentLeft, false)
		if v, err := r.Get("v1"); err != nil || v.LastSeen.After(seen) {
			t.Errorf("seen %s, %v, want %s", v.LastSeen, err, seen)
		}
		heardOf(r, "v1", 4, "v1/devices/me/telemetry", nil)
		end := c.Listen("v1", citywarden.DownlinkRevoked, func(citywarden.Downlink) bool { return true })
		is(citywarden.StatusOnline, "", true)
		time.Sleep(10*time.Minute + time.Second)
		is(citywarden.StatusSilent, citywarden.SilentGateway, true)
		heardOf(r, "gw", 5, "v1/devices/me/telemetry", nil)
		is(citywarden.StatusSilent, citywarden.SilentMute, true)
		end()
		is(citywarden.StatusSilent, citywarden.SilentGone, false)
		doubts := 0 // a session over DTLS goes on without the device
		defer c.Listen("v1", citywarden.DownlinkRevokedDTLS, func(citywarden.Downlink) bool { doubts++; return true })()
		is(citywarden.StatusSilent, citywarden.SilentGone, false)
		for status, n := range map[citywarden.Status]int{citywarden.StatusSilent: 1, citywarden.StatusOnline: 1, citywarden.StatusNever: 0} {
			if got := list(t, r, citywarden.DeviceFilter{Status: status}); len(got) != n {
				t.Errorf("%s are %v, want %d", status, got, n)
			}
		}
		valve.Disabled = true
		if _, err := r.Update(t.Context(), valve); err != nil {
			t.Fatal(err)
		}
		is(citywarden.StatusSilent, citywarden.SilentDisabled, false)
		if doubts == 0 {
			t.Error("a session over DTLS is not told that its device is disabled")
		}
		// One that was heard just now is so at once, and what it was when it may send again.
		able := func(yes bool) {
			t.Helper()
			valve.Disabled = !yes
			if _, err := r.Update(t.Context(), valve); err != nil {
				t.Fatal(err)
			}
		}
		able(true)
		heardOf(r, "v1", 6, "v1/devices/me/telemetry", nil)
		is(citywarden.StatusOnline, "", false)
		able(false)
		is(citywarden.StatusSilent, citywarden.SilentDisabled, false)
		if n := r.Summary(""); n[citywarden.StatusSilent] != 1 || n[citywarden.StatusOnline] != 1 {
			t.Errorf("counted %v, want one silent and one online", n)
		}
		if got := list(t, r, citywarden.DeviceFilter{Status: citywarden.StatusSilent}); len(got) != 1 || got[0].ID != "v1" {
			t.Errorf("silent are %v, want v1", got)
		}
		able(true)
		is(citywarden.StatusOnline, "", false)
	})
}
