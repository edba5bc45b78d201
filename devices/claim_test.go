package devices_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices"
	"github.com/citywarden/citywarden/store/pgtest"
)

// north and south are two towns, by latitude.
const north, south = citywarden.AreaCode("350623100"), citywarden.AreaCode("350623101")

func townOf(p citywarden.Point) citywarden.GridCode {
	if p.Lat > 24 {
		return citywarden.GridCode(north + "001001")
	}
	return citywarden.GridCode(south + "001001")
}

// claims opens a registry with a device nowhere, one in each town and a gateway with a meter.
func claims(t *testing.T, path string) *devices.Registry {
	t.Helper()
	r := registryOn(t, openStore(t, path), devices.Options{Grid: townOf})
	for _, d := range []citywarden.Device{
		{ID: "box", Model: "smoke-detector"}, {ID: "other", Model: "smoke-detector"}, {ID: "off", Model: "smoke-detector", Disabled: true},
		{ID: "in-north", Model: "smoke-detector", Location: &citywarden.Point{Lat: 24.1, Lon: 117.6}},
		{ID: "in-south", Model: "smoke-detector", Location: &citywarden.Point{Lat: 23.9, Lon: 117.6}, Attributes: map[string]any{"site": "in the south"}},
		{ID: "gw", Model: "iot-gateway"}, {ID: "meter", Name: "Meter 1", Model: "energy-meter", Attributes: map[string]any{"gateway": "gw"}},
	} {
		if _, err := r.Create(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// A device says that it may be claimed; who knows the secret places it, once, also after a restart.
func TestLifeOfAClaim(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "x.db")
	db := openStore(t, path)
	var events []string
	o := devices.Options{Grid: townOf, Publish: func(e citywarden.Event) {
		if v, ok := e.Data.(citywarden.DeviceView); ok && !v.ClaimableUntil.IsZero() {
			events = append(events, string(v.ID))
		}
	}}
	r := registryOn(t, db, o)
	if _, err := r.Create(ctx, citywarden.Device{ID: "box", Model: "smoke-detector"}); err != nil {
		t.Fatal(err)
	}
	if err := r.Announce(ctx, "box", []byte(`{"secretKey":"open sesame","durationMs":600000}`)); err != nil {
		t.Fatal(err)
	}
	r = registryOn(t, db, o) // a restart changes nothing
	v, err := r.Get("box")
	if left := time.Until(v.ClaimableUntil); err != nil || left < 9*time.Minute || left > 10*time.Minute {
		t.Errorf("it may be claimed for %s more, %v", left, err)
	}
	if d := cmp.Diff([]string{"box"}, events); d != "" {
		t.Error(d)
	}
	kept, err := db.LoadClaims(ctx)
	if err != nil || len(kept) != 1 || len(kept[0].Secret) != 32 || strings.Contains(string(kept[0].Secret), "sesame") {
		t.Errorf("kept is %+v, %v", kept, err)
	}
	q := citywarden.Claim{Secret: "open sesame", Area: north, Location: &citywarden.Point{Lat: 24.1, Lon: 117.6}, Site: "hospital", Name: "Lobby"}
	d, err := r.Claim(ctx, "box", q)
	if err != nil || d.Grid != "350623100001001" || d.Site() != "hospital" || d.Name != "Lobby" {
		t.Errorf("%+v, %v", d, err)
	}
	for range 2 { // after a restart, too
		if v, err := r.Get("box"); err != nil || !v.ClaimableUntil.IsZero() || v.Name != "Lobby" {
			t.Errorf("claimed it is %+v, %v", v, err)
		}
		if _, err := r.Claim(ctx, "box", q); citywarden.CodeOf(err) != citywarden.CodeConflict || !strings.Contains(err.Error(), "or was claimed since") {
			t.Errorf("once more: %v", err)
		}
		r = registryOn(t, db, o)
	}
	// It may be said again: then it can be moved, in the area.
	if err := r.Announce(ctx, "box", nil); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Claim(ctx, "box", citywarden.Claim{Area: north, Location: &citywarden.Point{Lat: 24.2, Lon: 117.6}}); err != nil || d.Location.Lat != 24.2 || d.Site() != "hospital" || d.Name != "Lobby" {
		t.Errorf("moved: %+v, %v", d, err)
	}
}

// Each refusal says what is wrong, and leaves everything as it was.
func TestClaimRefused(t *testing.T) {
	ctx := t.Context()
	r := claims(t, filepath.Join(t.TempDir(), "x.db"))
	for _, id := range []citywarden.DeviceID{"box", "off", "in-north", "in-south", "meter"} {
		if err := r.Announce(ctx, id, []byte(`{"secretKey":"s"}`)); err != nil {
			t.Fatal(err)
		}
	}
	up, down := &citywarden.Point{Lat: 24.1, Lon: 117.6}, &citywarden.Point{Lat: 23.9, Lon: 117.6}
	for _, c := range []struct {
		name string
		id   citywarden.DeviceID
		q    citywarden.Claim
		code citywarden.Code
		says string
	}{
		{"no device", "nobody", citywarden.Claim{Secret: "s", Location: up}, citywarden.CodeNotFound, "no device nobody"},
		{"elsewhere", "in-south", citywarden.Claim{Secret: "s", Area: north, Location: up}, citywarden.CodeNotFound, "no device in-south"},
		{"disabled", "off", citywarden.Claim{Secret: "s", Location: up}, citywarden.CodeConflict, "enable it first"},
		{"never said", "other", citywarden.Claim{Secret: "s", Location: up}, citywarden.CodeConflict, `have it send {"secretKey": "…"} to v1/devices/me/claim`},
		{"wrong secret", "box", citywarden.Claim{Secret: "t", Location: up}, citywarden.CodeUnauthenticated, "that is not the secret that device box said"},
		{"no secret", "box", citywarden.Claim{Location: up}, citywarden.CodeUnauthenticated, "that is not the secret"},
		{"no place", "box", citywarden.Claim{Secret: "s"}, citywarden.CodeInvalid, "say where device box is"},
		{"place elsewhere", "box", citywarden.Claim{Secret: "s", Area: north, Location: down}, citywarden.CodeDenied, "in the area 350623100 only"},
		{"a site that may be anywhere", "box", citywarden.Claim{Secret: "s", Area: north, Site: "hospital"}, citywarden.CodeDenied, "say a location"},
		{"a site that is none", "box", citywarden.Claim{Secret: "s", Site: "a/b"}, citywarden.CodeInvalid, "without a slash"},
		{"no component", "box", citywarden.Claim{Secret: "s", Component: "3506230101000001"}, citywarden.CodeInvalid, "import the components first"},
		{"a site elsewhere", "box", citywarden.Claim{Secret: "s", Area: north, Location: up, Site: "in the south"}, citywarden.CodeNotFound, `no site "in the south"`},
		{"a site elsewhere, which only who knows the secret is told", "box", citywarden.Claim{Secret: "t", Area: north, Location: up, Site: "in the south"}, citywarden.CodeUnauthenticated, "that is not the secret"},
		{"another name for one behind a gateway", "meter", citywarden.Claim{Secret: "s", Location: up, Name: "Lobby"}, citywarden.CodeConflict, `gateway gw calls device meter by its name "Meter 1"; leave the name out`},
		{"moved out of the area", "in-north", citywarden.Claim{Secret: "s", Area: north, Location: down}, citywarden.CodeDenied, "in the area 350623100 only"},
	} {
		if _, err := r.Claim(ctx, c.id, c.q); citywarden.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %s; want %s and %q", c.name, err, citywarden.CodeOf(err), c.code, c.says)
		}
	}
	for _, id := range []citywarden.DeviceID{"box", "in-north", "meter"} { // what was refused used nothing up
		if d, err := r.Claim(ctx, id, citywarden.Claim{Secret: "s", Area: north, Location: up, Name: map[citywarden.DeviceID]string{"meter": "Meter 1"}[id]}); err != nil || d.Grid != "350623100001001" {
			t.Errorf("%s: %+v, %v", id, d, err)
		}
	}
}

// What a device says ends by itself; it is read as ThingsBoard reads it.
func TestAnnouncements(t *testing.T) {
	r := claims(t, filepath.Join(t.TempDir(), "x.db"))
	for body, want := range map[string]time.Duration{
		"": 24 * time.Hour, "{}": 24 * time.Hour, `{"secretKey":"a"}`: 24 * time.Hour, `{"secretKey":7,"durationMs":"60000"}`: time.Minute,
		`{"secretKey":"a","durationMs":60000,"more":1}`: time.Minute, `{"durationMs":-1}`: 24 * time.Hour, `{"durationMs":2592000000}`: 30 * 24 * time.Hour,
		`{"durationMs":2592000001}`: 0, `{"durationMs":true}`: 0, `{"durationMs":"soon"}`: 0, `{"secretKey":{}}`: 0, `["a"]`: 0, `{`: 0, `"a"`: 0, `null`: 0, `{} {}`: 0,
		`{"secretKey":"` + strings.Repeat("x", 129) + `"}`: 0, `{"secretKey":"a\u0000"}`: 0,
	} {
		id := citywarden.DeviceID(fmt.Sprintf("d-%d", len(body)*1000+int(want/time.Minute)%1000))
		if _, err := r.Create(t.Context(), citywarden.Device{ID: id, Model: "smoke-detector"}); err != nil && citywarden.CodeOf(err) != citywarden.CodeConflict {
			t.Fatal(err)
		}
		err := r.Announce(t.Context(), id, []byte(body))
		v, _ := r.Get(id)
		if left := time.Until(v.ClaimableUntil); want > 0 && (err != nil || left > want || left < want-10*time.Second) || want == 0 && citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("%.60s: for %s, %v; want %s", body, left, err, want)
		}
	}
	if err := r.Announce(t.Context(), "nobody", nil); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Error(err)
	}
}

func TestClaimEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	synctest.Test(t, func(t *testing.T) {
		db := openStore(t, path)
		defer db.Close()
		r := registryOn(t, db, devices.Options{Grid: townOf})
		ctx := context.Background()
		for _, id := range []citywarden.DeviceID{"box", "other"} {
			if _, err := r.Create(ctx, citywarden.Device{ID: id, Model: "smoke-detector"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Announce(ctx, "box", []byte(`{"secretKey":"s","durationMs":60000}`)); err != nil {
			t.Fatal(err)
		}
		q := citywarden.Claim{Secret: "s", Location: &citywarden.Point{Lat: 24.1, Lon: 117.6}}
		time.Sleep(time.Minute)
		if _, err := r.Claim(ctx, "box", q); citywarden.CodeOf(err) != citywarden.CodeConflict || !strings.Contains(err.Error(), "could be claimed until") {
			t.Errorf("after a minute: %v", err)
		}
		if v, err := r.Get("box"); err != nil || !v.ClaimableUntil.IsZero() {
			t.Errorf("%+v, %v", v, err)
		}
		if err := r.Announce(ctx, "other", nil); err != nil { // what has ended is kept no longer
			t.Fatal(err)
		}
		if kept, err := db.LoadClaims(ctx); err != nil || len(kept) != 1 || kept[0].Device != "other" {
			t.Errorf("%+v, %v", kept, err)
		}
		// A device that says it all the time does not keep the store busy.
		said := 0
		for range 100 {
			err := r.Announce(ctx, "box", nil)
			if err == nil {
				said++
			} else if limit := (*citywarden.LimitError)(nil); citywarden.CodeOf(err) != citywarden.CodeLimited || !errors.As(err, &limit) || limit.After != time.Second {
				t.Fatal(err)
			}
		}
		if said != 5 {
			t.Errorf("it said so %d times at once", said)
		}
		time.Sleep(time.Second)
		if err := r.Announce(ctx, "box", nil); err != nil {
			t.Error(err)
		}
	})
}

// A gateway says it for those behind it, and for nobody else.
func TestClaimBehindAGateway(t *testing.T) {
	ctx := t.Context()
	r := claims(t, filepath.Join(t.TempDir(), "x.db"))
	err := r.AnnounceBehind(ctx, "gw", []byte(`{"Meter 1":{"secretKey":"m","durationMs":60000},"other":{"secretKey":"m"}}`))
	if citywarden.CodeOf(err) != citywarden.CodeNotFound || !strings.Contains(err.Error(), `no device "other" behind gateway gw`) {
		t.Errorf("%v", err)
	}
	for id, want := range map[citywarden.DeviceID]bool{"meter": true, "other": false, "gw": false} {
		if v, err := r.Get(id); err != nil || v.ClaimableUntil.IsZero() == want {
			t.Errorf("%s may be claimed until %s, %v", id, v.ClaimableUntil, err)
		}
	}
	if d, err := r.Claim(ctx, "meter", citywarden.Claim{Secret: "m", Location: &citywarden.Point{Lat: 24.1, Lon: 117.6}}); err != nil || d.Grid == "" || d.Gateway() != "gw" {
		t.Errorf("%+v, %v", d, err)
	}
	many := map[string]struct{}{}
	for i := range 1001 {
		many[fmt.Sprint(i)] = struct{}{}
	}
	long, _ := json.Marshal(many)
	for _, body := range []string{"", "[]", "null", `{"Meter 1":7}`, string(long)} {
		if err := r.AnnounceBehind(ctx, "gw", []byte(body)); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("%.40s: %v", body, err)
		}
	}
}

// Of many who claim a device at the same time one gets it, and it is where that one says.
func TestClaimersAtTheSameTime(t *testing.T) {
	ctx := t.Context()
	r := claims(t, filepath.Join(t.TempDir(), "x.db"))
	if err := r.Announce(ctx, "box", []byte(`{"secretKey":"s"}`)); err != nil {
		t.Fatal(err)
	}
	const claimers = 8
	var all sync.WaitGroup
	won, begin := make(chan string, claimers), make(chan struct{})
	for i := range claimers {
		all.Go(func() {
			name := fmt.Sprint("claimer ", i)
			<-begin
			_, err := r.Claim(ctx, "box", citywarden.Claim{Secret: "s", Location: &citywarden.Point{Lat: 24.1 + float64(i)/1000, Lon: 117.6}, Name: name})
			if err == nil {
				won <- name
			} else if citywarden.CodeOf(err) != citywarden.CodeConflict || !strings.Contains(err.Error(), "or was claimed since") {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	close(begin)
	all.Wait()
	close(won)
	name, more := <-won, len(won)
	if v, err := r.Get("box"); err != nil || name == "" || more > 0 || v.Name != name || name != fmt.Sprint("claimer ", int((v.Location.Lat-24.1)*1000+.5)) {
		t.Errorf("%q has it, %d more were told so; it is %+v, %v", name, more, v.Device, err)
	}
}

// A claim that could not be stored used nothing up.
func TestClaimNotStored(t *testing.T) {
	if pgtest.Rerunning() {
		return // the trigger is SQLite's
	}
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "x.db")
	r := claims(t, path)
	if err := r.Announce(ctx, "box", []byte(`{"secretKey":"s"}`)); err != nil {
		t.Fatal(err)
	}
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for _, c := range []struct{ statement, says string }{
		{`CREATE TRIGGER broken BEFORE UPDATE ON devices BEGIN SELECT RAISE(ABORT, 'the disk is broken'); END`, "claim device box: device box: "},
		{`DROP TRIGGER broken`, ""},
	} {
		if _, err := raw.ExecContext(ctx, c.statement); err != nil {
			t.Fatal(err)
		}
		_, err := r.Claim(ctx, "box", citywarden.Claim{Secret: "s", Location: &citywarden.Point{Lat: 24.1, Lon: 117.6}})
		if v, _ := r.Get("box"); (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) || v.ClaimableUntil.IsZero() == (err != nil) {
			t.Errorf("%s: %v; it may be claimed until %s", c.statement, err, v.ClaimableUntil)
		}
	}
}

// Many who announce themselves at once do not keep the store busy, and a gateway is told of a few mistakes only.
func TestManyAnnouncements(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	synctest.Test(t, func(t *testing.T) {
		db := openStore(t, path)
		defer db.Close()
		r := registryOn(t, db, devices.Options{Grid: townOf})
		ctx := context.Background()
		var all []citywarden.Device
		for i := range 300 {
			all = append(all, citywarden.Device{ID: citywarden.DeviceID(fmt.Sprint("d-", i)), Model: "smoke-detector"})
		}
		for _, d := range all {
			if _, err := r.Create(ctx, d); err != nil {
				t.Fatal(err)
			}
		}
		said := 0
		for _, d := range all {
			limit := (*citywarden.LimitError)(nil)
			if err := r.Announce(ctx, d.ID, nil); err == nil {
				said++
			} else if citywarden.CodeOf(err) != citywarden.CodeLimited || !errors.As(err, &limit) || limit.After != time.Second {
				t.Fatal(err)
			}
		}
		if said != 200 {
			t.Errorf("%d said so at once", said)
		}
		time.Sleep(time.Second)
		if err := r.Announce(ctx, "d-299", nil); err != nil {
			t.Error(err)
		}
		many := map[string]struct{}{}
		for i := range 1000 {
			many[fmt.Sprint("stranger ", i)] = struct{}{}
		}
		body, _ := json.Marshal(many)
		if err := r.AnnounceBehind(ctx, "d-1", body); citywarden.CodeOf(err) != citywarden.CodeNotFound || len(err.Error()) > 2000 || !strings.Contains(err.Error(), `"stranger 0"`) || !strings.HasSuffix(err.Error(), "and 994 more") {
			t.Errorf("of %d bytes: %.3000v", len(err.Error()), err)
		}
	})
}
