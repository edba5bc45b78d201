package devices_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices"
)

// TestSiteAttributesReachItsDevices: they hold for the devices of the site, from
// when they are set until they are taken away, also after a restart.
func TestSiteAttributesReachItsDevices(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "x.db")
	var changed []string
	db := openStore(t, path)
	r := registryOn(t, db, devices.Options{OnChange: func(d citywarden.Device, _ bool) {
		m, _ := builtin(t).Model(d.Model)
		v, from := d.Attribute(m, "smoke_limit")
		changed = append(changed, fmt.Sprintln(d.ID, v, from))
	}})
	expect := func(when string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(strings.Join(want, "\n")+"\n", strings.Join(changed, "")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
		changed = nil
	}
	for id, attrs := range map[citywarden.DeviceID]map[string]any{
		"a": {"site": "hospital"}, "b": {"site": "hospital", "smoke_limit": 0.2}, "c": {"site": "mall"},
	} {
		if _, err := r.Create(ctx, citywarden.Device{ID: id, Model: "smoke-detector", Attributes: attrs}); err != nil {
			t.Fatal(err)
		}
	}
	changed = nil
	if _, err := r.SaveSite(ctx, citywarden.Site{ID: "hospital", Attributes: map[string]any{"smoke_limit": 0.1}}); err != nil {
		t.Fatal(err)
	}
	expect("after the site was saved", "a 0.1 site", "b 0.2 device")
	if _, err := r.Create(ctx, citywarden.Device{ID: "d", Model: "smoke-detector", Attributes: map[string]any{"site": "hospital"}}); err != nil {
		t.Fatal(err)
	}
	expect("a new device", "d 0.1 site")

	again := registryOn(t, db, devices.Options{})
	for id, want := range map[citywarden.DeviceID]any{"a": 0.1, "c": nil} {
		v, err := again.Get(id)
		if err != nil || v.SiteAttributes["smoke_limit"] != want {
			t.Errorf("%s after a restart has %v, %v; want %v", id, v.SiteAttributes, err, want)
		}
	}
	if got := again.Sites(); len(got) != 1 || got[0].Name != "hospital" {
		t.Errorf("Sites after a restart = %+v", got)
	}

	if err := r.DeleteSite(ctx, "hospital"); err != nil {
		t.Fatal(err)
	}
	expect("after the site was deleted", "a 0.12 model", "b 0.2 device", "d 0.12 model")
	for what, err := range map[string]error{"DeleteSite": r.DeleteSite(ctx, "hospital"), "Site": second(r.Site("hospital"))} {
		if citywarden.CodeOf(err) != citywarden.CodeNotFound {
			t.Errorf("%s of a site that is gone = %v", what, err)
		}
	}
}

func TestSaveSiteRefuses(t *testing.T) {
	r := newRegistry(t, devices.Options{})
	many := map[string]any{}
	for i := range 65 {
		many[fmt.Sprint("a", i)] = 1.0
	}
	for _, c := range []struct {
		id    citywarden.SiteID
		attrs map[string]any
		want  string
	}{
		{"", nil, `site id "": use 1 to 64 printable characters without a slash`},
		{"a/b", nil, "without a slash"},
		{"a\x00", nil, "printable"},
		{citywarden.SiteID(strings.Repeat("x", 65)), nil, "1 to 64"},
		{"s", map[string]any{"smoke_limt": 0.1}, `no model has an attribute "smoke_limt"; did you mean "smoke_limit"?`},
		{"s", map[string]any{"smoke_limit": "low"}, "attribute smoke_limit of smoke-detector is a number, not a text"},
		{"s", map[string]any{"smoke_limit": []any{1}}, "it may be a text, a number or a bool"},
		{"s", map[string]any{"site": "other"}, "a site can't have it"},
		{"s", many, "at most 64 are kept"},
	} {
		_, err := r.SaveSite(t.Context(), citywarden.Site{ID: c.id, Attributes: c.attrs})
		if citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("SaveSite(%q, %v) = %v, want %s", c.id, c.attrs, err, c.want)
		}
	}
	if got := r.Sites(); len(got) != 0 {
		t.Errorf("Sites = %v", got)
	}
}
