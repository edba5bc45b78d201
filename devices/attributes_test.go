package devices_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices"
)

// valveModel shares two attributes with its devices.
const valveModel = `name: test-valve
title: {zh: 阀, en: Valve}
domain: pipe
report: 1m
heartbeat: 5m
metrics:
- {name: level, title: {zh: 位, en: Level}, kind: number}
attributes:
- {name: every, title: {zh: 间隔, en: Interval}, kind: number, default: 60, shared: true}
- {name: led, title: {zh: 灯, en: Light}, kind: bool, shared: true}
- {name: secret, title: {zh: 内, en: Secret}, kind: text}
- {name: gateway, title: {zh: 网关, en: Gateway}, kind: text}
commands:
- name: open
  title: {zh: 开, en: Open}
  params:
  - {name: pct, title: {zh: 开度, en: Opening}, kind: number, unit: "%", min: 0, max: 100}
  - {name: slowly, title: {zh: 慢, en: Slowly}, kind: bool, optional: true}
- {name: beep, title: {zh: 响, en: Beep}, one_way: true, expires: 1m}
`

func valves(t *testing.T, path string) *devices.Registry {
	t.Helper()
	models, err := devices.LoadModels(devices.Builtin(), fstest.MapFS{"valve.yaml": {Data: []byte(valveModel)}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := devices.New(t.Context(), openStore(t, path), models, devices.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func commandsOn(t *testing.T, path string, r *devices.Registry) *devices.Commands {
	t.Helper()
	c, err := devices.NewCommands(t.Context(), openStore(t, path), r, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func heardOf(r *devices.Registry, id citywarden.DeviceID, p citywarden.Position, topic string, attrs map[string]any) {
	d, m, err := r.Device(id)
	if err != nil {
		panic(err)
	}
	_ = r.Consume(context.Background(), []citywarden.Entry{{
		Record: citywarden.Record{Position: p, Kind: citywarden.RecordUplink, At: time.Now(), Uplink: &citywarden.Uplink{Device: id, Topic: topic}},
		Device: d, Model: m, Attrs: attrs,
	}})
}

func TestAttributesOfADevice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	r := valves(t, path)
	ctx := t.Context()
	if _, err := r.Create(ctx, citywarden.Device{ID: "v1", Model: "test-valve", Attributes: map[string]any{"secret": "x", "led": true}}); err != nil {
		t.Fatal(err)
	}
	heardOf(r, "v1", 1, "v1/devices/me/attributes", map[string]any{"firmware": "1", "uptime": 5.0})
	heardOf(r, "v1", 2, "v1/devices/me/attributes", map[string]any{"uptime": 6.0})
	check := func(r *devices.Registry) {
		t.Helper()
		for _, c := range []struct {
			client, shared []string
			want           citywarden.DeviceAttributes
		}{
			{nil, nil, citywarden.DeviceAttributes{Client: map[string]any{"firmware": "1", "uptime": 6.0}, Shared: map[string]any{"every": 60.0, "led": true}}},
			{[]string{"firmware", "x"}, []string{"led", "secret"}, citywarden.DeviceAttributes{Client: map[string]any{"firmware": "1"}, Shared: map[string]any{"led": true}}},
			{[]string{}, []string{"every"}, citywarden.DeviceAttributes{Client: map[string]any{}, Shared: map[string]any{"every": 60.0}}},
		} {
			got, err := r.Attributes("v1", c.client, c.shared)
			if d := cmp.Diff(c.want, got); d != "" || err != nil {
				t.Errorf("%v %v: %v\n%s", c.client, c.shared, err, d)
			}
		}
	}
	check(r)
	if _, err := r.Attributes("v2", nil, nil); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Errorf("of no device: %v", err)
	}
	if err := r.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	again := valves(t, path)
	check(again)
	many := map[string]any{}
	for i := range 100 {
		many[fmt.Sprint("a", i)] = "x"
	}
	heardOf(again, "v1", 3, "v1/devices/me/attributes", many)
	if got, _ := again.Attributes("v1", nil, nil); len(got.Client) != 64 || got.Client["firmware"] != "1" {
		t.Errorf("%d attributes are kept, firmware %v", len(got.Client), got.Client["firmware"])
	}
}

// TestSharedAttributesArePushed to the device, or to its gateway.
func TestSharedAttributesArePushed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	r := valves(t, path)
	c := commandsOn(t, path, r)
	ctx := t.Context()
	v := citywarden.Device{ID: "v1", Model: "test-valve", Attributes: map[string]any{"gateway": "gw"}}
	if _, err := r.Create(ctx, v); err != nil {
		t.Fatal(err)
	}
	var got []string
	listen := func(id citywarden.DeviceID) func() {
		return c.Listen(id, citywarden.DownlinkAttributes, func(m citywarden.Downlink) bool {
			got = append(got, fmt.Sprintf("%s: %s %s", id, m.Device, m.Body))
			return true
		})
	}
	set := func(attrs map[string]any) {
		t.Helper()
		attrs["gateway"], v.Attributes = "gw", attrs
		if _, err := r.Update(ctx, v); err != nil {
			t.Fatal(err)
		}
	}
	set(map[string]any{"led": true}) // nobody listens
	end := listen("gw")
	set(map[string]any{"led": true, "secret": "y"}) // nothing shared changed
	set(map[string]any{"led": false, "every": 30})
	self := listen("v1")
	set(map[string]any{"every": 30})
	set(map[string]any{})
	self()
	set(map[string]any{"every": 10})
	end()
	set(map[string]any{"every": 20})
	if _, err := r.SaveSite(ctx, citywarden.Site{ID: "s", Attributes: map[string]any{"every": 5.0}}); err != nil {
		t.Fatal(err)
	}
	listen("v1")
	set(map[string]any{"site": "s"})
	if _, err := r.SaveSite(ctx, citywarden.Site{ID: "s", Attributes: map[string]any{"every": 6.0}}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`gw: v1 {"every":30,"led":false}`, `v1: v1 {"deleted":["led"]}`, `v1: v1 {"every":60}`, `gw: v1 {"every":10}`,
		`v1: v1 {"every":5}`, `v1: v1 {"every":6}`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestDesiredAndReported: a shared attribute is what is desired, what the device reports
// under its name is what it has taken over; when it comes back it is told what it has not.
func TestDesiredAndReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		r := valves(t, path)
		c := commandsOn(t, path, r)
		v := citywarden.Device{ID: "v1", Model: "test-valve", Attributes: map[string]any{"secret": "x", "led": true}}
		if _, err := r.Create(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		is := func(want string) {
			t.Helper()
			all, err := r.AttributeStates("v1")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, x := range all {
				got = append(got, fmt.Sprintf("%s %s %v/%s %v %s", x.Name, x.Scope, x.Value, x.From, x.Reported, x.State))
			}
			if d := cmp.Diff(strings.Split(want, "; "), got); d != "" {
				t.Error(d)
			}
		}
		var told []string
		listen := func() {
			c.Listen("v1", citywarden.DownlinkAttributes, func(m citywarden.Downlink) bool {
				told = append(told, string(m.Body))
				return true
			})()
		}
		is("every shared 60/model <nil> unreported; led shared true/device <nil> unreported; secret server x/device <nil> ")
		heardOf(r, "v1", 1, "v1/devices/me/attributes", map[string]any{"every": 60.0, "led": true, "firmware": "1"})
		is("every shared 60/model 60 agreed; firmware client <nil>/ 1 ; led shared true/device true agreed; secret server x/device <nil> ")
		listen() // nothing to tell
		v.Attributes = map[string]any{"secret": "x", "led": true, "every": 30.0}
		if _, err := r.Update(t.Context(), v); err != nil { // it is away
			t.Fatal(err)
		}
		is("every shared 30/device 60 differs; firmware client <nil>/ 1 ; led shared true/device true agreed; secret server x/device <nil> ")
		c.Listen("v1", citywarden.DownlinkAttributes, func(citywarden.Downlink) bool { return false })() // who does not take it has not been told
		listen()
		listen() // it polls: not again at once
		time.Sleep(10 * time.Minute)
		listen()
		heardOf(r, "v1", 2, "v1/devices/me/attributes", map[string]any{"every": 30.0})
		time.Sleep(10 * time.Minute)
		listen()
		if d := cmp.Diff([]string{`{"every":30}`, `{"every":30}`}, told); d != "" {
			t.Error(d)
		}
		if _, err := r.AttributeStates("v2"); citywarden.CodeOf(err) != citywarden.CodeNotFound {
			t.Errorf("of no device: %v", err)
		}
	})
}

// TestAReminderIsNotOlder: who is reminded of what its device has not taken over while it is changed, with many others, is never told an
// older value after a newer one.
func TestAReminderIsNotOlder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	r := valves(t, path)
	c := commandsOn(t, path, r)
	const many, rounds = 300, 40
	table := func(every int) string {
		var b strings.Builder
		b.WriteString("id,model,attr.every\n")
		for i := range many {
			fmt.Fprintf(&b, "v%03d,test-valve,%d\n", i, every)
		}
		return b.String()
	}
	change := func(every int) {
		if _, err := r.Import(t.Context(), strings.NewReader(table(every))); err != nil {
			t.Error(err)
		}
	}
	change(1)
	heardOf(r, "v000", 1, "v1/devices/me/attributes", map[string]any{"every": 0.0})
	done := make(chan struct{})
	var listening sync.WaitGroup
	for range 8 {
		listening.Go(func() {
			for {
				var mu sync.Mutex
				told := []float64{}
				cancel := c.Listen("v000", citywarden.DownlinkAttributes, func(m citywarden.Downlink) bool {
					var body struct{ Every float64 }
					if err := json.Unmarshal(m.Body, &body); err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					told = append(told, body.Every)
					return true
				})
				cancel()
				mu.Lock()
				if !slices.IsSorted(told) {
					t.Errorf("told %v in this order", told)
				}
				mu.Unlock()
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range rounds {
		change(i + 2)
	}
	close(done)
	listening.Wait()
}

func TestChild(t *testing.T) {
	r := valves(t, filepath.Join(t.TempDir(), "x.db"))
	ctx := t.Context()
	for _, d := range []citywarden.Device{
		{ID: "v1", Name: "Valve One", Model: "test-valve", Attributes: map[string]any{"gateway": "gw", "dev_eui": "00-80-E1-15-00-0A-12-34", "imei": "0123"}},
		{ID: "v2", Name: "Valve Two", Model: "test-valve", Attributes: map[string]any{"gateway": "other"}},
		{ID: "v3", Model: "test-valve", Attributes: map[string]any{"gateway": "gw"}, Disabled: true},
		{ID: "gw", Model: "iot-gateway"},
	} {
		if _, err := r.Create(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"v1": "v1", "Valve One": "v1", "0080e115000a1234": "v1", "0080E115000A1234": "v1", "0123": "v1", "123": "no device", "v2": `no device "v2" behind gateway gw; register it and set its attribute gateway to "gw"`,
		"Valve Two": "no device", "v3": "device v3 is disabled", "gw": "no device", "": "no device",
	} {
		id, err := r.Child("gw", name)
		if got := fmt.Sprint(id, err); !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	if _, err := r.Update(ctx, citywarden.Device{ID: "v1", Name: "Valve One", Model: "test-valve"}); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(ctx, "v2"); err != nil {
		t.Fatal(err)
	}
	for gateway, name := range map[citywarden.DeviceID]string{"gw": "Valve One", "other": "Valve Two"} {
		if id, err := r.Child(gateway, name); err == nil {
			t.Errorf("%s still has %s, %s", gateway, name, id)
		}
	}
}

// TestGatewaySaysThatADeviceLeft: it counts as silent until it is heard again.
func TestGatewaySaysThatADeviceLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	r := valves(t, path)
	if _, err := r.Create(t.Context(), citywarden.Device{ID: "v1", Model: "test-valve", Attributes: map[string]any{"gateway": "gw"}}); err != nil {
		t.Fatal(err)
	}
	must := func(r *devices.Registry, status citywarden.Status, left bool) {
		t.Helper()
		v, err := r.Get("v1")
		if err != nil || v.Status != status || v.Left != left {
			t.Errorf("%s, left %t (%v); want %s, %t", v.Status, v.Left, err, status, left)
		}
	}
	must(r, citywarden.StatusNever, false)
	heardOf(r, "v1", 1, citywarden.DeviceConnected, nil)
	must(r, citywarden.StatusOnline, false)
	heardOf(r, "v1", 2, citywarden.DeviceDisconnected, nil)
	must(r, citywarden.StatusSilent, true)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = valves(t, path)
	must(r, citywarden.StatusSilent, true)
	heardOf(r, "v1", 3, "v1/devices/me/telemetry", nil)
	must(r, citywarden.StatusOnline, false)
}
