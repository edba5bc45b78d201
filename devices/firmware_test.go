package devices_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices"
)

// TestFirmwareTargets: the device's own comes before that of its site, and that
// before its model's; only those for which it changes are told, and a restart changes nothing.
func TestFirmwareTargets(t *testing.T) {
	ctx := context.Background()
	db := openStore(t, t.TempDir()+"/db")
	models, err := devices.LoadModels(devices.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	open := func() (*devices.Registry, *devices.Firmware) {
		t.Helper()
		r, err := devices.New(ctx, db, models, devices.Options{})
		if err != nil {
			t.Fatal(err)
		}
		f, err := devices.NewFirmware(ctx, db, r)
		if err != nil {
			t.Fatal(err)
		}
		return r, f
	}
	r, f := open()
	downlinks, err := devices.NewCommands(ctx, db, r, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.SaveSite(ctx, citywarden.Site{ID: "hospital"}); err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, d := range []citywarden.Device{{ID: "a", Model: "smoke-detector"}, {ID: "b", Model: "smoke-detector", Attributes: map[string]any{"site": "hospital"}}, {ID: "v", Model: "valve"}} {
		if _, err := r.Create(ctx, d); err != nil {
			t.Fatal(err)
		}
		downlinks.Listen(d.ID, citywarden.DownlinkAttributes, func(m citywarden.Downlink) bool {
			told = append(told, fmt.Sprintf("%s %t", m.Device, bytes.Contains(m.Body, []byte("deleted"))))
			return true
		})
	}
	for _, version := range []string{"1", "2", "3"} {
		if _, err := f.Add(ctx, citywarden.Firmware{Title: "smoke", Version: version, Model: "smoke-detector"}, []byte("file "+version)); err != nil {
			t.Fatal(err)
		}
	}
	has := func(f *devices.Firmware, want ...string) {
		t.Helper()
		var got []string
		for _, id := range []citywarden.DeviceID{"a", "b", "v"} {
			b, err := f.Image(ctx, id, "", "")
			if citywarden.CodeOf(err) != "" && citywarden.CodeOf(err) != citywarden.CodeNotFound {
				t.Fatal(err)
			}
			got = append(got, string(b))
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	assign := func(scope citywarden.FirmwareScope, name, version string, want ...string) {
		t.Helper()
		told = nil
		title := "smoke"
		if version == "" {
			title = ""
		}
		if err := f.Assign(ctx, citywarden.FirmwareTarget{Scope: scope, Name: name}, title, version); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, told); d != "" {
			t.Errorf("told (-want +got):\n%s", d)
		}
	}
	has(f, "", "", "")
	assign(citywarden.FirmwareModel, "smoke-detector", "1", "a false", "b false")
	assign(citywarden.FirmwareSite, "hospital", "2", "b false")
	assign(citywarden.FirmwareDevice, "b", "3", "b false")
	has(f, "file 1", "file 3", "")
	assign(citywarden.FirmwareModel, "smoke-detector", "3", "a false")
	_, again := open()
	has(again, "file 3", "file 3", "")
	assign(citywarden.FirmwareDevice, "b", "", "b false")
	has(f, "file 3", "file 2", "")
	told = nil
	if err := f.Delete(ctx, "smoke", "3"); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a true"}, told); d != "" {
		t.Errorf("told (-want +got):\n%s", d)
	}
	has(f, "", "file 2", "")
	for want, err := range map[string]error{
		"is for smoke-detector, device v is not": f.Assign(ctx, citywarden.FirmwareTarget{Scope: citywarden.FirmwareDevice, Name: "v"}, "smoke", "1"),
		"no firmware smoke 9":                    f.Assign(ctx, citywarden.FirmwareTarget{Scope: citywarden.FirmwareModel, Name: "smoke-detector"}, "smoke", "9"),
		"no device x":                            f.Assign(ctx, citywarden.FirmwareTarget{Scope: citywarden.FirmwareDevice, Name: "x"}, "smoke", "1"),
		"it is device, site or model":            f.Assign(ctx, citywarden.FirmwareTarget{Scope: "city", Name: "x"}, "smoke", "1"),
		"a changed file is a new version":        second(f.Add(ctx, citywarden.Firmware{Title: "smoke", Version: "1", Model: "smoke-detector"}, []byte("x"))),
		"0 bytes":                                second(f.Add(ctx, citywarden.Firmware{Title: "smoke", Version: "4", Model: "smoke-detector"}, nil)),
		"without / ? # & and %":                  second(f.Add(ctx, citywarden.Firmware{Title: "a/b", Version: "4", Model: "smoke-detector"}, []byte("x"))),
		`did you mean "smoke-detector"`:          second(f.Add(ctx, citywarden.Firmware{Title: "smoke", Version: "4", Model: "smoke-detectr"}, []byte("x"))),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
