package devices_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

func openStore(t testing.TB, path string) *store.DB { return pgtest.Open(t, path, store.Open) }

func newRegistry(t testing.TB, o devices.Options) *devices.Registry {
	t.Helper()
	return registryOn(t, openStore(t, filepath.Join(t.TempDir(), "x.db")), o)
}

func registryOn(t testing.TB, s devices.Store, o devices.Options) *devices.Registry {
	t.Helper()
	r, err := devices.New(context.Background(), s, builtin(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLifeOfADevice(t *testing.T) {
	var changes []string
	var events []string
	grid := func(p citywarden.Point) citywarden.GridCode {
		if p.Lat > 24 {
			return "350623001001001"
		}
		return ""
	}
	path := filepath.Join(t.TempDir(), "x.db")
	db := openStore(t, path)
	r := registryOn(t, db, devices.Options{Grid: grid,
		OnChange: func(d citywarden.Device, deleted bool) { changes = append(changes, fmt.Sprint(d.ID, " ", deleted)) },
		Publish: func(e citywarden.Event) {
			b, err := json.Marshal(e.Data)
			if err != nil {
				t.Error(err)
			}
			events = append(events, e.Kind+" "+string(b)[:12])
		}})
	ctx := t.Context()
	in := citywarden.Device{ID: "sd-1", Model: "smoke-detector", Name: " 一号 ", Grid: "999999999999999", Location: &citywarden.Point{Lat: 24.1, Lon: 117.6},
		Attributes: map[string]any{"zone": "Z1", "smoke_limit": 1, "mine": true}, Adjacent: []citywarden.DeviceID{"sd-2"}}
	made, err := r.Create(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	if made.Name != "一号" || made.Grid != "350623001001001" || made.Created.IsZero() || made.Attributes["smoke_limit"] != 1.0 {
		t.Errorf("Create = %+v", made)
	}
	if _, err := r.Create(ctx, in); citywarden.CodeOf(err) != citywarden.CodeConflict {
		t.Errorf("Create again = %v", err)
	}
	token, err := r.IssueToken(ctx, "sd-1")
	if err != nil || len(token) != 20 {
		t.Fatalf("IssueToken = %q, %v", token, err)
	}
	if id, err := r.Authenticate(token); id != "sd-1" || err != nil {
		t.Errorf("Authenticate = %s, %v", id, err)
	}

	// What others hold does not change under them.
	held, model, err := r.Device("sd-1")
	if err != nil || model.Name != "smoke-detector" {
		t.Fatal(err)
	}
	next := made
	next.Name, next.Disabled, next.Location, next.Adjacent = "", true, &citywarden.Point{Lat: 1, Lon: 1}, nil
	changed, err := r.Update(ctx, next)
	if err != nil || changed.Name != "sd-1" || changed.Grid != "" || !changed.Created.Equal(made.Created) {
		t.Errorf("Update = %+v, %v", changed, err)
	}
	if held.Name != "一号" || held.Disabled || held.Location.Lat != 24.1 {
		t.Errorf("a device held by somebody changed: %+v", held)
	}
	if id, err := r.Authenticate(token); id != "" || citywarden.CodeOf(err) != citywarden.CodeDenied {
		t.Errorf("Authenticate of a disabled device = %s, %v", id, err)
	}

	// A new start gives the same.
	again := registryOn(t, db, devices.Options{Grid: grid})
	want, _ := r.Get("sd-1")
	got, err := again.Get("sd-1")
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("after a restart (-want +got), %v:\n%s", err, diff)
	}
	if _, err := again.Authenticate(token); citywarden.CodeOf(err) != citywarden.CodeDenied {
		t.Errorf("Authenticate after a restart = %v", err)
	}

	if err := r.Delete(ctx, "sd-1"); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"Delete":     r.Delete(ctx, "sd-1"),
		"Update":     second(r.Update(ctx, next)),
		"Get":        second(r.Get("sd-1")),
		"IssueToken": second(r.IssueToken(ctx, "sd-1")),
	} {
		if citywarden.CodeOf(err) != citywarden.CodeNotFound {
			t.Errorf("%s after Delete = %v, want %s", what, err, citywarden.CodeNotFound)
		}
	}
	if _, err := r.Authenticate(token); citywarden.CodeOf(err) != citywarden.CodeUnauthenticated {
		t.Errorf("Authenticate after Delete = %v", err)
	}
	if again := registryOn(t, db, devices.Options{}); len(list(t, again, citywarden.DeviceFilter{})) != 0 {
		t.Error("the deleted device is back after a restart")
	}
	if diff := cmp.Diff([]string{"sd-1 false", "sd-1 false", "sd-1 false", "sd-1 true"}, changes); diff != "" {
		t.Errorf("OnChange (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{`device {"id":"sd-1"`, `device {"id":"sd-1"`, `device {"id":"sd-1"`, `device {"id":"sd-1"`}, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func second[T any](_ T, err error) error { return err }

func TestCreateRefuses(t *testing.T) {
	r := newRegistry(t, devices.Options{})
	for _, c := range []struct {
		name   string
		change func(*citywarden.Device)
		want   string
	}{
		{"no id", func(d *citywarden.Device) { d.ID = "" }, "device id"},
		{"id with a slash", func(d *citywarden.Device) { d.ID = "a/b" }, "device id"},
		{"id with a quote", func(d *citywarden.Device) { d.ID = "x' OR '1'='1" }, "device id"},
		{"model mistyped", func(d *citywarden.Device) { d.Model = "smoke-detecter" }, `unknown model "smoke-detecter"; did you mean "smoke-detector"?`},
		{"model unknown", func(d *citywarden.Device) { d.Model = "zzz" }, "it is call-point, climate-sensor"},
		{"attribute of another kind", func(d *citywarden.Device) { d.Attributes = map[string]any{"smoke_limit": "high"} }, "smoke_limit of smoke-detector is a number, not a text"},
		{"attribute list", func(d *citywarden.Device) { d.Attributes = map[string]any{"zone": []any{1}} }, "may be a text, a number or a bool"},
		{"attribute null", func(d *citywarden.Device) { d.Attributes = map[string]any{"zone": nil} }, "may be a text, a number or a bool"},
		{"attribute NaN", func(d *citywarden.Device) { d.Attributes = map[string]any{"smoke_limit": math.NaN()} }, "finite"},
		{"attribute name", func(d *citywarden.Device) { d.Attributes = map[string]any{"a b": 1} }, "attribute name"},
		{"attribute line break", func(d *citywarden.Device) { d.Attributes = map[string]any{"zone": "a\nb"} }, "control characters"},
		{"attribute not UTF-8", func(d *citywarden.Device) { d.Attributes = map[string]any{"zone": "\xff"} }, "UTF-8"},
		{"long name", func(d *citywarden.Device) { d.Name = strings.Repeat("名", 201) }, "at most 200"},
		{"name with NUL", func(d *citywarden.Device) { d.Name = "a\x00b" }, "control characters"},
		{"off earth", func(d *citywarden.Device) { d.Location = &citywarden.Point{Lat: 117, Lon: 24} }, "lat is -90 to 90"},
		{"bad grid", func(d *citywarden.Device) { d.Grid = "12" }, "15 digits"},
		{"own neighbour", func(d *citywarden.Device) { d.Adjacent = []citywarden.DeviceID{"ok"} }, "its own neighbour"},
		{"same neighbour", func(d *citywarden.Device) { d.Adjacent = []citywarden.DeviceID{"a", "b", "a"} }, "has the neighbour a twice"},
		{"bad neighbour", func(d *citywarden.Device) { d.Adjacent = []citywarden.DeviceID{"a b"} }, "neighbour"},
	} {
		d := citywarden.Device{ID: "ok", Model: "smoke-detector"}
		c.change(&d)
		_, err := r.Create(t.Context(), d)
		if citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Create = %v, want %q", c.name, err, c.want)
		}
	}
	if n := len(list(t, r, citywarden.DeviceFilter{})); n != 0 {
		t.Errorf("%d devices were created", n)
	}
}

func TestTokens(t *testing.T) {
	ctx := t.Context()
	r := newRegistry(t, devices.Options{})
	for _, id := range []citywarden.DeviceID{"a", "b"} {
		if _, err := r.Create(ctx, citywarden.Device{ID: id, Model: "parking-bay"}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the same again changes nothing
		if err := r.SetToken(ctx, "a", "token-of-a"); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.SetToken(ctx, "b", "token-of-a"); citywarden.CodeOf(err) != citywarden.CodeConflict {
		t.Errorf("a token for two devices: %v", err)
	}
	for _, bad := range []string{"", "short", strings.Repeat("x", 65), "with space", "with/slash", "日本語日本語日本語"} {
		if err := r.SetToken(ctx, "b", bad); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("SetToken(%q) = %v", bad, err)
		}
	}
	fresh, err := r.IssueToken(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if id, err := r.Authenticate("token-of-a"); citywarden.CodeOf(err) != citywarden.CodeUnauthenticated {
		t.Errorf("the old token still is %s's, %v", id, err)
	}
	if id, _ := r.Authenticate(fresh); id != "a" {
		t.Errorf("the new token is %q's", id)
	}
	if err := r.SetToken(ctx, "b", "token-of-a"); err != nil {
		t.Errorf("a token that is free again: %v", err)
	}
	seen := map[string]bool{}
	for range 1000 {
		if fresh, err = r.IssueToken(ctx, "a"); err != nil || seen[fresh] || len(fresh) != 20 {
			t.Fatalf("token %q, %v", fresh, err)
		}
		seen[fresh] = true
	}
}

// TestSecretsOverlap: while a secret replaces another both are good, over a restart
// too, and never three.
func TestSecretsOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		db := openStore(t, filepath.Join(t.TempDir(), "x.db"))
		r := registryOn(t, db, devices.Options{})
		for _, id := range []citywarden.DeviceID{"a", "b"} {
			if _, err := r.Create(ctx, citywarden.Device{ID: id, Model: "parking-bay"}); err != nil {
				t.Fatal(err)
			}
		}
		issue := func(q citywarden.SecretRequest) string {
			t.Helper()
			s, err := r.Issue(ctx, "a", q)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		good := func(secret string, want bool) {
			t.Helper()
			id, err := r.Authenticate(secret)
			if want != (id == "a") || want != (err == nil) || !want && citywarden.CodeOf(err) != citywarden.CodeUnauthenticated {
				t.Errorf("%q: %q, %v; good %t", secret, id, err, want)
			}
		}
		first := issue(citywarden.SecretRequest{Overlap: time.Hour}) // in place of none
		second := citywarden.MQTTSecret("c", "u", issue(citywarden.SecretRequest{User: "u", ClientID: "c", Overlap: time.Hour}))
		good(first, true)
		good(second, true)
		time.Sleep(59 * time.Minute)
		r = registryOn(t, db, devices.Options{})
		good(first, true)
		time.Sleep(time.Minute)
		good(first, false)
		good(second, true)
		third := citywarden.MQTTSecret("", "u", issue(citywarden.SecretRequest{User: "u", Password: "open sesame", Overlap: time.Hour}))
		fourth := issue(citywarden.SecretRequest{Overlap: time.Hour})
		good(second, false)
		good(third, true)
		good(fourth, true)
		if _, err := r.Issue(ctx, "b", citywarden.SecretRequest{User: "u", Password: "open sesame"}); citywarden.CodeOf(err) != citywarden.CodeConflict {
			t.Errorf("a password of two devices: %v", err)
		}
		issue(citywarden.SecretRequest{User: "u", Password: "open sesame", Overlap: time.Minute}) // back again
		good(third, true)
		good(fourth, true)
		last := issue(citywarden.SecretRequest{}) // at once
		good(third, false)
		good(fourth, false)
		good(last, true)
		for _, q := range []citywarden.SecretRequest{
			{Overlap: -1}, {Overlap: 91 * 24 * time.Hour}, {Password: "open sesame"}, {ClientID: "c"}, {User: "u", Password: "1234567"},
			{User: "u\x00"}, {User: strings.Repeat("u", 129)},
		} {
			if _, err := r.Issue(ctx, "a", q); citywarden.CodeOf(err) != citywarden.CodeInvalid {
				t.Errorf("%+v: %v", q, err)
			}
		}
		if err := r.Delete(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		good(last, false)
	})
}

// failing is a store that fails from now on.
type failing struct{ devices.Store }

var errDisk = errors.New("disk full")

func (failing) SaveDevices(context.Context, []citywarden.Device, map[citywarden.DeviceID][]citywarden.Secret) error {
	return errDisk
}
func (failing) DeleteDevice(context.Context, citywarden.DeviceID) error { return errDisk }
func (failing) SaveSite(context.Context, citywarden.Site) error         { return errDisk }

// TestStoreFails: what was not stored is not there.
func TestStoreFails(t *testing.T) {
	ctx := t.Context()
	db := openStore(t, filepath.Join(t.TempDir(), "x.db"))
	r := registryOn(t, db, devices.Options{})
	if _, err := r.Create(ctx, citywarden.Device{ID: "a", Model: "parking-bay", Name: "old"}); err != nil {
		t.Fatal(err)
	}
	r = registryOn(t, failing{db}, devices.Options{OnChange: func(citywarden.Device, bool) { t.Error("OnChange of what was not stored") }})
	for what, err := range map[string]error{
		"Create":   second(r.Create(ctx, citywarden.Device{ID: "b", Model: "parking-bay"})),
		"Update":   second(r.Update(ctx, citywarden.Device{ID: "a", Model: "parking-bay", Name: "new"})),
		"Delete":   r.Delete(ctx, "a"),
		"SetToken": r.SetToken(ctx, "a", "token-of-a"),
		"SaveSite": second(r.SaveSite(ctx, citywarden.Site{ID: "s"})),
	} {
		if !errors.Is(err, errDisk) {
			t.Errorf("%s = %v, want %v", what, err, errDisk)
		}
	}
	report, err := r.Import(ctx, strings.NewReader("id,model\nc,parking-bay\n"))
	if !errors.Is(err, errDisk) || report.Failed != 1 || report.Created != 0 {
		t.Errorf("Import = %+v, %v", report, err)
	}
	if got := list(t, r, citywarden.DeviceFilter{}); len(got) != 1 || got[0].Name != "old" {
		t.Errorf("devices = %+v", got)
	}
	if _, err := r.Authenticate("token-of-a"); err == nil {
		t.Error("the token that was not stored works")
	}
}

func TestUnknownModelAtStart(t *testing.T) {
	db := openStore(t, filepath.Join(t.TempDir(), "x.db"))
	if err := db.SaveDevices(t.Context(), []citywarden.Device{{ID: "old", Model: "smoke-detektor"}}, nil); err != nil {
		t.Fatal(err)
	}
	_, err := devices.New(t.Context(), db, builtin(t), devices.Options{})
	if err == nil || !strings.Contains(err.Error(), `device old is of model smoke-detektor, which no model file declares; did you mean "smoke-detector"?`) {
		t.Errorf("New = %v", err)
	}
}

// list returns all pages.
func list(t testing.TB, r *devices.Registry, f citywarden.DeviceFilter) []citywarden.DeviceView {
	t.Helper()
	var all []citywarden.DeviceView
	for {
		page, next, err := r.List(f)
		if err != nil || len(page) > f.Size() {
			t.Fatalf("List = %d devices, %v", len(page), err)
		}
		all = append(all, page...)
		if next == "" {
			return all
		}
		f.After = next
	}
}

func TestList(t *testing.T) {
	r := newRegistry(t, devices.Options{})
	for i, m := range []citywarden.ModelName{"smoke-detector", "parking-bay", "water-meter", "energy-meter", "parking-gateway"} {
		for k := range 5 {
			d := citywarden.Device{ID: citywarden.DeviceID(fmt.Sprintf("%c-%d", 'e'-i, k)), Model: m, Name: fmt.Sprintf("设备 %s %d", strings.ToUpper(string(m)), k)}
			if k%2 == 1 {
				d.Grid = "350623001001001"
			}
			if _, err := r.Create(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		f    citywarden.DeviceFilter
		want string
	}{
		{citywarden.DeviceFilter{Model: "water-meter"}, "c-0 c-1 c-2 c-3 c-4"},
		{citywarden.DeviceFilter{Domain: citywarden.Parking, Grid: "350623001001001"}, "a-1 a-3 d-1 d-3"},
		{citywarden.DeviceFilter{Search: "Meter 3"}, "b-3 c-3"},
		{citywarden.DeviceFilter{Search: "E-4"}, "e-4"},
		{citywarden.DeviceFilter{Search: "设备 smoke"}, "e-0 e-1 e-2 e-3 e-4"},
		{citywarden.DeviceFilter{Search: "nothing"}, ""},
		{citywarden.DeviceFilter{Model: "energy-meter", Domain: citywarden.Fire}, ""},
		{citywarden.DeviceFilter{Grid: "350623001001001", Page: citywarden.Page{After: "c-2"}}, "c-3 d-1 d-3 e-1 e-3"},
		{citywarden.DeviceFilter{Grid: "350623001001001", Page: citywarden.Page{After: "c-zzz"}}, "d-1 d-3 e-1 e-3"},
	} {
		for _, limit := range []int{0, 1, 2, 3, 1000} {
			c.f.Limit = limit
			var ids []string
			for _, v := range list(t, r, c.f) {
				ids = append(ids, string(v.ID))
			}
			if got := strings.Join(ids, " "); got != c.want {
				t.Errorf("List(%+v) = %s, want %s", c.f, got, c.want)
			}
		}
	}
	if page, next, err := r.List(citywarden.DeviceFilter{Page: citywarden.Page{Limit: 25}}); len(page) != 25 || next != "" || err != nil {
		t.Errorf("a page that holds exactly all: %d, next %q, %v", len(page), next, err)
	}
	var each []string
	r.Each(func(d *citywarden.Device, m *citywarden.Model) {
		if _, err := r.Get(d.ID); err != nil || d.Model != m.Name {
			t.Error(err)
		}
		each = append(each, string(d.ID))
	})
	if len(each) != 25 || !slices.IsSorted(each) {
		t.Errorf("Each: %v", each)
	}
}

// TestRecreatedDeviceBeginsAnew: a device of the same id is another device; what
// was still to be stored of the one before is not its.
func TestRecreatedDeviceBeginsAnew(t *testing.T) {
	db := openStore(t, filepath.Join(t.TempDir(), "x.db"))
	r := registryOn(t, db, devices.Options{})
	d := citywarden.Device{ID: "sd-1", Model: "smoke-detector"}
	if _, err := r.Create(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := r.Consume(t.Context(), []citywarden.Entry{message(r, 1<<20, "sd-1", now, smoke(0.5, now))}); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), "sd-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for when, r := range map[string]*devices.Registry{"now": r, "after a restart": registryOn(t, db, devices.Options{})} {
		if v, err := r.Get("sd-1"); err != nil || len(v.Latest) != 0 || !v.LastSeen.IsZero() {
			t.Errorf("%s: latest %v, last seen %v, %v", when, v.Latest, v.LastSeen, err)
		}
	}
}

func TestRegrid(t *testing.T) {
	code := citywarden.GridCode("350623001001001")
	r := newRegistry(t, devices.Options{Grid: func(citywarden.Point) citywarden.GridCode { return code }})
	for i := range 3 {
		d := citywarden.Device{ID: citywarden.DeviceID(fmt.Sprint(i)), Model: "parking-bay"}
		if i > 0 {
			d.Location = &citywarden.Point{Lat: 24, Lon: 117}
		}
		if _, err := r.Create(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	code = "350623001001002"
	if n, err := r.Regrid(t.Context()); n != 2 || err != nil {
		t.Errorf("Regrid = %d, %v; want 2", n, err)
	}
	if n, err := r.Regrid(t.Context()); n != 0 || err != nil {
		t.Errorf("Regrid again = %d, %v; want 0", n, err)
	}
	if got := list(t, r, citywarden.DeviceFilter{Grid: code}); len(got) != 2 {
		t.Errorf("%d devices in the new grid, want 2", len(got))
	}
}

// message is a decoded message of d.
func message(r *devices.Registry, pos citywarden.Position, id citywarden.DeviceID, at time.Time, rs ...citywarden.Reading) citywarden.Entry {
	d, m, err := r.Device(id)
	e := citywarden.Entry{Record: citywarden.Record{Position: pos, Kind: citywarden.RecordUplink, At: at,
		Uplink: &citywarden.Uplink{Device: id, Received: at}}, Readings: rs}
	if err == nil {
		e.Device, e.Model = d, m
	}
	return e
}

func smoke(v float64, at time.Time) citywarden.Reading {
	return citywarden.Reading{Metric: "smoke", Value: citywarden.Number(v), Time: at}
}

// An upload of what a device stored is told as the newest of each metric: events are
// held for a while, and it may be large.
func TestAnUploadIsToldInShort(t *testing.T) {
	var told [][]citywarden.Reading
	r := registryOn(t, openStore(t, filepath.Join(t.TempDir(), "x.db")), devices.Options{Publish: func(e citywarden.Event) {
		if x, ok := e.Data.(citywarden.ReadingEvent); ok {
			told = append(told, x.New)
		}
	}})
	if _, err := r.Create(t.Context(), citywarden.Device{ID: "sd-1", Model: "smoke-detector"}); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	stored := []citywarden.Reading{{Metric: "button", Value: citywarden.Bool(true), Time: now}}
	for k := range 1000 {
		stored = append(stored, smoke(float64(k)/1000, now.Add(time.Duration(k-999)*time.Minute)))
	}
	if err := r.Consume(t.Context(), []citywarden.Entry{message(r, 1, "sd-1", now, stored...)}); err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || len(told[0]) != 2 || cap(told[0]) > 4 {
		t.Fatalf("told %d times, the first %+v", len(told), told)
	}
	for _, x := range told[0] {
		if x.Time != now || x.Metric == "smoke" && x.Value.Float() != 0.999 {
			t.Errorf("told %+v", x)
		}
	}
}

func TestLatestByEventTime(t *testing.T) {
	var events []citywarden.ReadingEvent
	path := filepath.Join(t.TempDir(), "x.db")
	db := openStore(t, path)
	r := registryOn(t, db, devices.Options{Publish: func(e citywarden.Event) {
		if x, ok := e.Data.(citywarden.ReadingEvent); ok {
			events = append(events, x)
		}
	}})
	ctx := t.Context()
	if _, err := r.Create(ctx, citywarden.Device{ID: "sd-1", Model: "smoke-detector"}); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	consume := func(es ...citywarden.Entry) {
		t.Helper()
		if err := r.Consume(ctx, es); err != nil {
			t.Fatal(err)
		}
	}
	value := func() (float64, time.Duration) {
		t.Helper()
		v, err := r.Get("sd-1")
		if err != nil {
			t.Fatal(err)
		}
		return v.Latest["smoke"].Value.Float(), v.Latest["smoke"].Time.Sub(now)
	}
	if v, _ := r.Get("sd-1"); v.Status != citywarden.StatusNever || len(v.Latest) != 0 {
		t.Errorf("before any message: %+v", v)
	}
	consume(message(r, 1, "sd-1", now, smoke(0.5, now)))
	consume(
		message(r, 2, "sd-1", now.Add(time.Second), smoke(0.1, now.Add(-time.Hour))), // older: does not count
		message(r, 3, "sd-1", now.Add(2*time.Second), smoke(0.2, now), // same time: the later one counts
			citywarden.Reading{Metric: "button", Value: citywarden.Bool(true), Time: now, Quality: citywarden.OutOfRange},
			citywarden.Reading{Metric: "no_metric_of_it", Value: citywarden.Bool(true), Time: now}),
		message(r, 4, "gone", now, smoke(9, now)),
		citywarden.Entry{Record: citywarden.Record{Position: 5, Kind: citywarden.RecordTick, At: now}},
	)
	consume(message(r, 1, "sd-1", now.Add(time.Hour), smoke(7, now.Add(time.Hour)))) // came before
	if v, at := value(); v != 0.2 || at != 0 {
		t.Errorf("smoke = %g at %s, want 0.2 at 0s", v, at)
	}
	// A message that can't be decoded is a sign of life.
	consume(message(r, 6, "sd-1", now.Add(5*time.Second)))
	v, _ := r.Get("sd-1")
	if !v.LastSeen.Equal(now.Add(5*time.Second)) || v.Status != citywarden.StatusOnline || v.Latest["button"].Quality != citywarden.OutOfRange || len(v.Latest) != 2 {
		t.Errorf("view = %+v", v)
	}
	if len(events) != 2 || len(events[1].Latest()) != 2 || events[1].Latest()["smoke"].Value.Float() != 0.2 {
		t.Errorf("events = %+v", events)
	}
	if p, _ := r.Cursor(ctx); p != 0 {
		t.Errorf("Cursor before Flush = %d, want 0", p)
	}
	if err := r.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if p, _ := r.Cursor(ctx); p != 6 || r.Name() != "latest" {
		t.Errorf("Cursor of %s = %d, want 6", r.Name(), p)
	}
	again := registryOn(t, db, devices.Options{})
	if p, _ := again.Cursor(ctx); p != 6 {
		t.Errorf("Cursor after a restart = %d, want 6", p)
	}
	got, _ := again.Get("sd-1")
	if diff := cmp.Diff(v, got, cmp.AllowUnexported(citywarden.Value{})); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}

	// A device that gets another model keeps the values that both have.
	d, _, _ := r.Device("sd-1")
	other := *d
	other.Model = "energy-meter"
	consume(message(r, 7, "sd-1", now, citywarden.Reading{Metric: "mains", Value: citywarden.Bool(true), Time: now}))
	if _, err := r.Update(ctx, other); err != nil {
		t.Fatal(err)
	}
	if v, _ := r.Get("sd-1"); len(v.Latest) != 1 || !v.Latest["mains"].Value.IsTrue() {
		t.Errorf("latest values after a change of model = %v", v.Latest)
	}
}

// TestRun stores every second and at the end, and goes on after a failure.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &states{saved: map[citywarden.DeviceID]citywarden.DeviceView{}}
		r := registryOn(t, s, devices.Options{})
		for _, id := range []citywarden.DeviceID{"a", "b"} {
			if _, err := r.Create(t.Context(), citywarden.Device{ID: id, Model: "smoke-detector"}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		say := func(pos citywarden.Position, id citywarden.DeviceID, v float64) {
			if err := r.Consume(ctx, []citywarden.Entry{message(r, pos, id, time.Now(), smoke(v, time.Now()))}); err != nil {
				t.Fatal(err)
			}
		}
		say(1, "a", 1)
		time.Sleep(1100 * time.Millisecond) // virtual
		if at, n := s.state(); at != 1 || n != 1 {
			t.Errorf("after a second: cursor %d, %d devices", at, n)
		}
		s.fail(true)
		say(2, "b", 2)
		time.Sleep(3 * time.Second)
		if at, _ := s.state(); at != 1 {
			t.Errorf("cursor %d although nothing was stored", at)
		}
		s.fail(false)
		time.Sleep(time.Second)
		if at, n := s.state(); at != 2 || n != 2 {
			t.Errorf("after the failure: cursor %d, %d devices", at, n)
		}
		say(3, "a", 3)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		if at, _ := s.state(); at != 3 || s.saved["a"].Latest["smoke"].Value.Float() != 3 {
			t.Errorf("at the end: cursor %d, %v", at, s.saved["a"])
		}
		// Silent after twice the heartbeat, of 15 minutes.
		if n := r.Summary(""); n[citywarden.StatusOnline] != 2 {
			t.Errorf("Summary = %v", n)
		}
		time.Sleep(30*time.Minute - time.Second)
		if n := r.Summary(""); n[citywarden.StatusOnline] != 1 || n[citywarden.StatusSilent] != 1 {
			t.Errorf("Summary after half an hour = %v", n)
		}
		time.Sleep(time.Minute)
		if v, _ := r.Get("a"); v.Status != citywarden.StatusSilent {
			t.Errorf("status = %s", v.Status)
		}
	})
}

// states is a store in memory that can be made to fail.
type states struct {
	devices.SiteStore
	mu     sync.Mutex
	broken bool
	at     citywarden.Position
	saved  map[citywarden.DeviceID]citywarden.DeviceView
}

func (s *states) fail(broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = broken
}

func (s *states) state() (citywarden.Position, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at, len(s.saved)
}

func (s *states) LoadDevices(context.Context, func(citywarden.DeviceView, []citywarden.Secret)) (citywarden.Position, error) {
	return 0, nil
}

func (s *states) LoadUptimes(context.Context) ([]citywarden.Uptime, error) { return nil, nil }

func (s *states) SaveUptime(context.Context, citywarden.Uptime) error { return nil }

func (s *states) LoadSites(context.Context) ([]citywarden.Site, error) { return nil, nil }

func (s *states) SaveDevices(context.Context, []citywarden.Device, map[citywarden.DeviceID][]citywarden.Secret) error {
	return nil
}

func (s *states) LoadClaims(context.Context) ([]citywarden.ClaimOffer, error) { return nil, nil }

func (s *states) SaveClaims(context.Context, []citywarden.ClaimOffer) error { return nil }

func (s *states) SaveClaimed(context.Context, citywarden.Device) error { return nil }

func (s *states) DeleteDevice(context.Context, citywarden.DeviceID) error { return nil }

func (s *states) SaveLatest(_ context.Context, vs []citywarden.DeviceView, p citywarden.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return errDisk
	}
	for _, v := range vs {
		s.saved[v.ID] = v
	}
	s.at = p
	return nil
}

// TestTogether has many goroutines use a registry at once.
func TestTogether(t *testing.T) {
	r := newRegistry(t, devices.Options{Publish: func(citywarden.Event) {}})
	ctx := t.Context()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 20 {
				id := citywarden.DeviceID(fmt.Sprintf("d-%d-%d", g, i))
				if _, err := r.Create(ctx, citywarden.Device{ID: id, Model: "smoke-detector"}); err != nil {
					t.Error(err)
					return
				}
				token, err := r.IssueToken(ctx, id)
				if err != nil {
					t.Error(err)
				}
				if got, err := r.Authenticate(token); got != id || err != nil {
					t.Errorf("Authenticate = %s, %v", got, err)
				}
				now := time.Now()
				if err := r.Consume(ctx, []citywarden.Entry{message(r, citywarden.Position(g*1000+i+1), id, now, smoke(1, now))}); err != nil {
					t.Error(err)
				}
				list(t, r, citywarden.DeviceFilter{Search: "d-1"})
				r.Each(func(d *citywarden.Device, _ *citywarden.Model) { _ = d.Attributes["zone"] })
				if i%3 == 0 {
					if err := r.Delete(ctx, id); err != nil {
						t.Error(err)
					}
				}
				if err := r.Flush(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(list(t, r, citywarden.DeviceFilter{})); n != 4*13 {
		t.Errorf("%d devices, want %d", n, 4*13)
	}
}

// large returns a registry of 100,000 devices and their tokens' prefix.
func large(b *testing.B) *devices.Registry {
	b.Helper()
	r := newRegistry(b, devices.Options{})
	var csv strings.Builder
	csv.WriteString("id,name,model,lat,lon,token,attr.zone\n")
	models := []string{"smoke-detector", "parking-bay", "energy-meter", "water-meter", "pressure-logger"}
	for i := range 100_000 {
		fmt.Fprintf(&csv, "dev-%06d,设备 %d,%s,24.1,117.6,token-%06d,zone-%d\n", i, i, models[i%5], i, i%500)
	}
	begin := time.Now()
	report, err := r.Import(context.Background(), strings.NewReader(csv.String()))
	if err != nil || report.Created != 100_000 {
		b.Fatalf("Import = %d created, %d failed, %v", report.Created, report.Failed, err)
	}
	b.Logf("import of 100,000 devices: %s", time.Since(begin).Round(time.Millisecond))
	return r
}

func BenchmarkRegistry100k(b *testing.B) {
	r := large(b)
	b.Run("Device", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := r.Device("dev-077777"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Authenticate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if id, err := r.Authenticate("token-077777"); err != nil || id != "dev-077777" {
				b.Fatal(id, err)
			}
		}
	})
	for name, f := range map[string]citywarden.DeviceFilter{
		"ListFirst":  {},
		"ListMiddle": {Page: citywarden.Page{After: "dev-050000"}},
		"ListModel":  {Model: "water-meter", Page: citywarden.Page{After: "dev-050000"}},
		"ListSearch": {Search: "设备 99999"},
		"ListDomain": {Domain: citywarden.Parking, Search: "设备 99996"},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if page, _, err := r.List(f); err != nil || len(page) == 0 {
					b.Fatal(len(page), err)
				}
			}
		})
	}
	b.Run("Summary", func(b *testing.B) {
		for b.Loop() {
			r.Summary("")
		}
	})
	b.Run("Create", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := r.Create(b.Context(), citywarden.Device{ID: citywarden.DeviceID(fmt.Sprintf("new-%d-%d", b.N, i)), Model: "parking-bay"}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Consume", func(b *testing.B) {
		b.ReportAllocs()
		e := []citywarden.Entry{message(r, 0, "dev-077775", time.Now(), smoke(1, time.Now()))}
		for b.Loop() {
			e[0].Position++
			if err := r.Consume(b.Context(), e); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("FlushAll", func(b *testing.B) {
		pos := citywarden.Position(1 << 40)
		for b.Loop() {
			r.Each(func(d *citywarden.Device, _ *citywarden.Model) {
				pos++
				r.Consume(b.Context(), []citywarden.Entry{message(r, pos, d.ID, time.Now())})
			})
			if err := r.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
