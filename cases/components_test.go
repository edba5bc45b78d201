package cases_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

// newComponents returns the components of a mesh of 4 x 4 grids, none yet, and
// what loads them again.
func newComponents(t *testing.T) (*cases.Components, *cases.Grids, func() *cases.Components) {
	t.Helper()
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
	g, err := cases.LoadGrids(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Add(t.Context(), mesh(4)); err != nil {
		t.Fatal(err)
	}
	classes, err := cases.LoadClasses("")
	if err != nil {
		t.Fatal(err)
	}
	load := func() *cases.Components {
		c, err := cases.LoadComponents(t.Context(), db, classes, g)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return load(), g, load
}

const componentsCSV = `id,name,lat,lon,grid,authority,owner,maintainer,state,initial_date,address
3506230101000001,府前街1号上水井盖,24.1004,117.6005,,住建局,供水公司,供水公司,完好,2019-05-01,府前街
3506230137000001,,24.1013,117.6015,350623100001001,住建局,市政公用中心,路灯所,damaged,,
`

func TestComponentsFromCSV(t *testing.T) {
	c, _, load := newComponents(t)
	if r, err := c.Import(t.Context(), strings.NewReader(componentsCSV), citywarden.ComponentImport{Check: true}); err != nil || r.Added != 2 {
		t.Fatalf("check: %+v, %v", r, err)
	}
	if all, _ := c.List(citywarden.ComponentFilter{}); len(all) != 0 {
		t.Fatalf("a check took %v", all)
	}
	r, err := c.Import(t.Context(), strings.NewReader(componentsCSV), citywarden.ComponentImport{})
	if err != nil {
		t.Fatal(err)
	}
	want := citywarden.TableReport{Added: 2, Lines: []citywarden.TableLine{
		{Line: 3, ID: "3506230137000001", Warning: "the file says unit grid 350623100001001, but its position lies in 350623100001006, which counts"},
	}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	again := load()
	all, _ := again.List(citywarden.ComponentFilter{})
	if diff := cmp.Diff([]citywarden.Component{
		{ID: "3506230101000001", Class: "component/0101", Name: "府前街1号上水井盖", Location: citywarden.Point{Lat: 24.1004, Lon: 117.6005}, Grid: "350623100001001",
			Authority: "住建局", Owner: "供水公司", Maintainer: "供水公司", State: citywarden.Intact, Initial: "2019-05-01", Address: "府前街"},
		{ID: "3506230137000001", Class: "component/0137", Name: "路灯", Location: citywarden.Point{Lat: 24.1013, Lon: 117.6015}, Grid: "350623100001006",
			Authority: "住建局", Owner: "市政公用中心", Maintainer: "路灯所", State: citywarden.Damaged},
	}, all, cmpopts.IgnoreFields(citywarden.Component{}, "Updated")); diff != "" {
		t.Errorf("loaded (-want +got):\n%s", diff)
	}
	for _, file := range []func() []byte{
		func() []byte { return []byte(componentsCSV) },
		func() []byte {
			var b bytes.Buffer
			if err := again.Export(&b, citywarden.ComponentFilter{}); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		},
		func() []byte {
			b, err := again.GeoJSON(citywarden.ComponentFilter{})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
	} {
		b := file()
		if r, err := again.Import(t.Context(), bytes.NewReader(b), citywarden.ComponentImport{}); err != nil || r.Same != 2 || r.Added+r.Changed+r.Failed != 0 {
			t.Errorf("import again: %+v, %v\n%s", r, err, b)
		}
	}
	// What a file does not say stays, what it leaves empty goes.
	r, err = again.Import(t.Context(), strings.NewReader("ObjID;ObjState;DeptName3\n3506230101000001;丢失;\n"), citywarden.ComponentImport{})
	if err != nil || r.Changed != 1 {
		t.Fatalf("change: %+v, %v", r, err)
	}
	x, err := load().Component("3506230101000001")
	if err != nil || x.State != citywarden.Lost || x.Maintainer != "" || x.Owner != "供水公司" || x.Grid == "" {
		t.Errorf("changed to %+v, %v", x, err)
	}
}

func TestBadComponentsAreRefused(t *testing.T) {
	c, _, _ := newComponents(t)
	for name, tt := range map[string]struct{ line, want string }{
		"code":       {"350623010100001,,24.1004,117.6005,,", "use 16 digits"},
		"class":      {"3506230198000001,,24.1004,117.6005,,", "its code means component/0198, which is no class of GB/T 30428.2-2013"},
		"other":      {"3506230101000001,component/0102,24.1004,117.6005,,", `its class is said to be "component/0102", but its code means component/0101`},
		"position":   {"3506230101000001,,,,,", "it has no position"},
		"half":       {"3506230101000001,,24.1,,,", "write both in decimal degrees"},
		"projection": {"3506230101000001,,2666000,39500000,,", "lat is -90 to 90"},
		"crs":        {"3506230101000001,,24.1004,117.6005,BD-09,", "write WGS84, CGCS2000 or GCJ-02"},
		"state":      {"3506230101000001,,24.1004,117.6005,,坏", `state "坏": write intact (完好), damaged (破损)`},
		"cells":      {"3506230101000001,,24.1004,117.6005", "4 cells for 6 columns"},
	} {
		r, err := c.Import(t.Context(), strings.NewReader("id,class,lat,lon,crs,state\n3506230101000009,,24.1004,117.6005,,\n"+tt.line+"\n"), citywarden.ComponentImport{Check: true})
		if err != nil || r.Added != 1 || r.Failed != 1 || r.Lines[0].Line != 3 || !strings.Contains(r.Lines[0].Error, tt.want) {
			t.Errorf("%s: %+v, %v; want %q", name, r, err, tt.want)
		}
	}
	feature := func(geometry string) string {
		return `{"type":"FeatureCollection","features":[{"type":"Feature","properties":{"ID":"3506230101000001"},"geometry":` + geometry + `}]}`
	}
	for geometry, want := range map[string]string{
		"null": "it has no position",
		`{"type":"LineString","coordinates":[[1,2],[3,4]]}`: `its geometry is a "LineString"`,
		`{"type":"Point","coordinates":[1]}`:                "needs longitude and latitude",
		`{"type":"Point","coordinates":["a","b"]}`:          "coordinates",
	} {
		r, err := c.Import(t.Context(), strings.NewReader(feature(geometry)), citywarden.ComponentImport{})
		if err != nil || r.Failed != 1 || !strings.Contains(r.Lines[0].Error, want) {
			t.Errorf("%s: %+v, %v; want %q", geometry, r, err, want)
		}
	}
	for csv, want := range map[string]string{
		"name,lat,lon\n": `there is no column "id"`,
		"id,height\n":    `unknown column "height"`,
		`{"type":"FeatureCollection","crs":"BD-09","features":[]}`: "write WGS84",
	} {
		if _, err := c.Import(t.Context(), strings.NewReader(csv), citywarden.ComponentImport{}); citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", csv, err, want)
		}
	}
	if r, err := c.Import(t.Context(), strings.NewReader("id,lat,lon\n3506230101000001,24.1004,117.6005\n3506230101000001,24.1004,117.6005\n"), citywarden.ComponentImport{}); err != nil || r.Added != 1 || r.Lines[0].Error != "3506230101000001 is on line 2 already" {
		t.Errorf("twice: %+v, %v", r, err)
	}
}

// A position means the same place whatever it is given in: the line, else who
// imports, else the file says what.
func TestComponentsInOtherCoordinates(t *testing.T) {
	c, _, _ := newComponents(t)
	at := citywarden.Point{Lat: 24.1004, Lon: 117.6005}
	gcj := citywarden.GCJ02.FromWGS84(at)
	text := func(p citywarden.Point) string { return fmt.Sprintf("%.9f,%.9f", p.Lat, p.Lon) }
	for name, tt := range map[string]struct{ file, crs string }{
		"nothing":          {"id,lat,lon\n3506230101000001," + text(at) + "\n", ""},
		"the line":         {"id,lat,lon,crs\n3506230101000001," + text(gcj) + ",gcj02\n", "CGCS2000"},
		"who imports":      {"id,lat,lon,crs\n3506230101000001," + text(gcj) + ",\n", "GCJ-02"},
		"the file":         {fmt.Sprintf(`{"type":"FeatureCollection","crs":"GCJ-02","features":[{"type":"Feature","properties":{"id":"3506230101000001"},"geometry":{"type":"Point","coordinates":[%.9f,%.9f]}}]}`, gcj.Lon, gcj.Lat), ""},
		"not the file":     {fmt.Sprintf(`{"type":"FeatureCollection","crs":"GCJ-02","features":[{"type":"Feature","properties":{"id":"3506230101000001"},"geometry":{"type":"Point","coordinates":[%.9f,%.9f]}}]}`, at.Lon, at.Lat), "CGCS2000"},
		"a feature itself": {fmt.Sprintf(`{"type":"FeatureCollection","features":[{"type":"Feature","properties":{"id":"3506230101000001","crs":"GCJ-02"},"geometry":{"type":"Point","coordinates":[%.9f,%.9f]}}]}`, gcj.Lon, gcj.Lat), ""},
	} {
		if r, err := c.Import(t.Context(), strings.NewReader(tt.file), citywarden.ComponentImport{CRS: tt.crs}); err != nil || r.Failed != 0 {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		if x, err := c.Component("3506230101000001"); err != nil || x.Location.Distance(at) > 0.01 {
			t.Errorf("%s: at %v, %v; want %v", name, x.Location, err, at)
		}
	}
}

func TestComponentsOfTheOlderNumbering(t *testing.T) {
	c, _, _ := newComponents(t)
	x, err := c.Save(t.Context(), citywarden.Component{ID: "3506230118000001", Class: "component/0118@cjt214", Location: citywarden.Point{Lat: 24.1004, Lon: 117.6005}})
	if err != nil || x.Name != "路灯" || x.State != citywarden.Intact {
		t.Fatalf("saved %+v, %v", x, err)
	}
	near := c.Near(x.Location, "component/0137", "", 10, 5) // what a street lamp is called here
	if len(near) != 1 || near[0].ID != x.ID {
		t.Errorf("street lamps nearby: %v", near)
	}
}

func TestListComponents(t *testing.T) {
	c, _, _ := newComponents(t)
	var b strings.Builder
	b.WriteString("id,lat,lon,name,maintainer,state\n")
	for i := range 40 { // eastwards along the south edge of the mesh
		fmt.Fprintf(&b, "35062301%02d%06d,24.1004,%.5f,%d号,%s,%s\n", 1+i%2, i+1, 117.6001+0.0001*float64(i), i+1, []string{"供水公司", "市政公用中心"}[i%2], []string{"intact", "removed"}[i%5/4])
	}
	if r, err := c.Import(t.Context(), strings.NewReader(b.String()), citywarden.ComponentImport{}); err != nil || r.Added != 40 || len(r.Lines) != 1 {
		t.Fatalf("%+v, %v", r, err) // one lies on the edge to the east
	}
	for name, tt := range map[string]struct {
		f    citywarden.ComponentFilter
		want int
	}{
		"all":        {citywarden.ComponentFilter{}, 40},
		"class":      {citywarden.ComponentFilter{Class: "component/0102"}, 20},
		"grid":       {citywarden.ComponentFilter{Grid: "350623100001001"}, 9},
		"area":       {citywarden.ComponentFilter{Grid: "350623100"}, 39},
		"department": {citywarden.ComponentFilter{Department: "供水公司"}, 20},
		"state":      {citywarden.ComponentFilter{State: citywarden.Removed}, 8},
		"text":       {citywarden.ComponentFilter{Search: "12号"}, 1},
		"code":       {citywarden.ComponentFilter{Search: "0102000012"}, 1},
		"box":        {citywarden.ComponentFilter{In: &citywarden.Box{SouthWest: citywarden.Point{Lat: 24, Lon: 117.60005}, NorthEast: citywarden.Point{Lat: 25, Lon: 117.60035}}}, 3},
		"together":   {citywarden.ComponentFilter{Class: "component/0101", Department: "市政公用中心"}, 0},
	} {
		got, seen := 0, map[citywarden.ComponentID]bool{}
		tt.f.Limit = 7
		for {
			page, next := c.List(tt.f)
			for _, x := range page {
				seen[x.ID] = true
			}
			if got += len(page); next == "" {
				break
			}
			tt.f.After = next
		}
		if got != tt.want || len(seen) != got {
			t.Errorf("%s: %d, %d of them different; want %d", name, got, len(seen), tt.want)
		}
	}
	at := citywarden.Point{Lat: 24.1004, Lon: 117.60051} // the fifth is removed
	var near []citywarden.ComponentID
	for _, x := range c.Near(at, "event/0501", "", 25, 10) {
		near = append(near, x.ID)
	}
	if diff := cmp.Diff([]citywarden.ComponentID{"3506230102000006", "3506230102000004", "3506230101000007", "3506230101000003"}, near); diff != "" {
		t.Errorf("nearby (-want +got):\n%s", diff)
	}
	if x := c.Near(at, "component/0101", "", 5000, 2); len(x) != 2 || x[0].ID != "3506230101000007" || x[0].Distance < 10 || x[0].Distance > 25 {
		t.Errorf("the nearest two of a class: %v", x)
	}
	fc, err := c.GeoJSON(citywarden.ComponentFilter{Page: citywarden.Page{Limit: 3}})
	if err != nil || strings.Count(string(fc), `"Point"`) != 3 || !strings.Contains(string(fc), `"truncated":true`) {
		t.Errorf("three on the map: %s, %v", fc, err)
	}
}

func TestComponentsComeAndGo(t *testing.T) {
	c, g, load := newComponents(t)
	x := citywarden.Component{ID: "3506230101000001", Location: citywarden.Point{Lat: 24.1004, Lon: 117.6005}}
	if _, err := c.Save(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	x.Location.Lon += 0.01 // some cells further, outside of the grids
	if x, err := c.Save(t.Context(), x); err != nil || x.Grid != "" {
		t.Fatalf("moved: %+v, %v", x, err)
	}
	if n := c.Near(citywarden.Point{Lat: 24.1004, Lon: 117.6005}, "", "", 100, 9); len(n) != 0 {
		t.Errorf("it is still found where it was: %v", n)
	}
	if _, err := c.Save(t.Context(), citywarden.Component{ID: "3506230101000002", Name: "a\nb", Location: x.Location}); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("a name of two lines: %v", err)
	}
	if err := g.Add(t.Context(), []citywarden.UnitGrid{{Code: "350623100009001", Ring: []citywarden.Point{
		{Lat: 24.1, Lon: 117.61}, {Lat: 24.1, Lon: 117.611}, {Lat: 24.101, Lon: 117.611}, {Lat: 24.101, Lon: 117.61},
	}}}); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Regrid(t.Context()); err != nil || n != 1 {
		t.Errorf("%d lie in another grid, %v; want 1", n, err)
	}
	if x, err := load().Component(x.ID); err != nil || x.Grid != "350623100009001" {
		t.Errorf("after the grids changed: %+v, %v", x, err)
	}
	if err := c.Delete(t.Context(), x.ID); err != nil {
		t.Fatal(err)
	}
	if all, _ := load().List(citywarden.ComponentFilter{}); len(all) != 0 || len(c.Near(x.Location, "", "", 100, 9)) != 0 {
		t.Errorf("deleted, yet there: %v", all)
	}
	if err := c.Delete(t.Context(), x.ID); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Errorf("deleted twice: %v", err)
	}
}

// A case of a device's alarm is about the component that the device is attached
// to; who maintains that is proposed where the class names nobody.
func TestCaseAboutAComponent(t *testing.T) {
	classes, err := cases.LoadClasses("", fstest.MapFS{"classes.csv": {Data: []byte("code,filing_condition,limit,department\nevent/0501,漏水,1天,\nevent/0502,漏气,1天,燃气公司\n")}})
	if err != nil {
		t.Fatal(err)
	}
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
	c, err := cases.LoadComponents(t.Context(), db, classes, &cases.Grids{})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []citywarden.Component{
		{ID: "3506230101000001", Maintainer: "自来水维护队", Location: citywarden.Point{Lat: 24.1, Lon: 117.6}},
		{ID: "3506230137000001", Location: citywarden.Point{Lat: 24.2, Lon: 117.6}},
	} {
		if _, err := c.Save(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	attached := map[citywarden.DeviceID]citywarden.ComponentID{"p1": "3506230101000001", "p2": "3506230137000001", "p3": "3506230199000001"}
	d, err := cases.New(db, cases.Options{Classes: classes, Components: c, Attached: func(id citywarden.DeviceID) citywarden.ComponentID { return attached[id] }})
	if err != nil {
		t.Fatal(err)
	}
	f := &feed{}
	open := func(device string, class citywarden.ClassCode) citywarden.Case {
		apply(t, d, f, f.next(citywarden.Raised, "pipe.burst", device, uint64(f.n+1), citywarden.Major, &citywarden.CaseOrder{Class: class, Key: device + string(class)}))
		x, err := d.Case(t.Context(), allCases(t, d, citywarden.CaseFilter{})[0].ID, "x", citywarden.RoleViewer)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, tt := range []struct {
		device     string
		class      citywarden.ClassCode
		component  citywarden.ComponentID
		name       string
		department string
	}{
		{"p1", "event/0501", "3506230101000001", "上水井盖", "自来水维护队"},
		{"p1", "event/0502", "3506230101000001", "上水井盖", "燃气公司"},
		{"p2", "event/0501", "3506230137000001", "路灯", "市政公用中心"},
		{"p3", "event/0501", "", "", ""}, // its component is gone
		{"p4", "event/0501", "", "", ""},
	} {
		x := open(tt.device, tt.class)
		if x.Component != tt.component || x.ComponentName != tt.name || x.Proposed != tt.department {
			t.Errorf("%s: about %q %q, proposed %q; want %+v", tt.device, x.Component, x.ComponentName, x.Proposed, tt)
		}
		if tt.component != "" && (x.Location == nil || x.Location.Lon != 117.6) {
			t.Errorf("%s: the case lies at %v, not where its component is", tt.device, x.Location)
		}
	}
	found := allCases(t, d, citywarden.CaseFilter{Component: "3506230101000001"})
	if len(found) != 2 {
		t.Fatalf("%d cases about the cover, want 2", len(found))
	}
	x := do(t, d, found[1].ID, toClosed()[:2]...)
	if x.Department != "自来水维护队" || x.Proposed != "" {
		t.Errorf("dispatched to %q, still proposed %q", x.Department, x.Proposed)
	}

	// People name the component, or a device that is attached to one.
	gcj := citywarden.GCJ02.FromWGS84(citywarden.Point{Lat: 24.15, Lon: 117.65})
	for name, tt := range map[string]struct {
		n         citywarden.NewCase
		component citywarden.ComponentID
		at        float64 // latitude
		want      string  // in the error
	}{
		"named":         {citywarden.NewCase{Class: "component/0101", Component: "3506230101000001"}, "3506230101000001", 24.1, ""},
		"otherwise":     {citywarden.NewCase{Class: "component/0101@cjt214", Component: "3506230101000001"}, "3506230101000001", 24.1, ""},
		"an event":      {citywarden.NewCase{Class: "event/0502", Component: "3506230137000001", Location: &gcj, CRS: "GCJ-02"}, "3506230137000001", 24.15, ""},
		"by a device":   {citywarden.NewCase{Class: "event/0501", Device: "p2"}, "3506230137000001", 24.2, ""},
		"other class":   {citywarden.NewCase{Class: "component/0102", Component: "3506230101000001"}, "", 0, "component 3506230101000001 is of class component/0101, the case of class component/0102"},
		"none":          {citywarden.NewCase{Class: "component/0101", Component: "3506230101000009"}, "", 0, `no component "3506230101000009"`},
		"no such place": {citywarden.NewCase{Class: "component/0101", Location: &gcj, CRS: "BD-09"}, "", 0, "write WGS84"},
	} {
		tt.n.Title = name
		x, err := d.Create(t.Context(), tt.n, "shouli", citywarden.RoleAcceptor)
		switch {
		case tt.want != "":
			if citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", name, err, tt.want)
			}
		case err != nil || x.Component != tt.component || x.Location == nil || math.Abs(x.Location.Lat-tt.at) > 1e-6:
			t.Errorf("%s: about %q at %v, %v", name, x.Component, x.Location, err)
		default:
			if x = do(t, d, x.ID, toClosed()[:2]...); x.Device != tt.n.Device {
				t.Errorf("%s: of device %q after the dispatch, want %q", name, x.Device, tt.n.Device)
			}
		}
	}
	r := citywarden.Report{Source: citywarden.SourceCitizen, Class: "component/0137", Component: "3506230137000001", Description: "灯不亮"}
	if x, err := d.Report(t.Context(), r, nil, ""); err != nil || x.Component != r.Component || x.Location == nil {
		t.Errorf("reported: %+v, %v", x, err)
	}
	r.Class = "component/0101"
	if _, err := d.Report(t.Context(), r, nil, ""); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("reported as another class: %v", err)
	}
}

// heap returns how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkComponents loads 100,000 components in 33 x 30 km, lists them and looks
// around among them. p95-ms should stay below 50, B/component below 600.
func BenchmarkComponents(b *testing.B) {
	onBoth(b, func(b *testing.B, place string) {
		db, err := store.Open(b.Context(), place)
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		classes, err := cases.LoadClasses("")
		if err != nil {
			b.Fatal(err)
		}
		g, err := cases.LoadGrids(b.Context(), nil)
		if err != nil {
			b.Fatal(err)
		}
		c, err := cases.LoadComponents(b.Context(), db, classes, g)
		if err != nil {
			b.Fatal(err)
		}
		var file strings.Builder
		file.WriteString("id,lat,lon,name,maintainer,address\n")
		r := rand.New(rand.NewPCG(1, 2))
		for i := range 100_000 {
			fmt.Fprintf(&file, "35062301%02d%06d,%.6f,%.6f,%d号部件,部门%d,%d号路\n", 1+i%4, i, 24+0.3*r.Float64(), 117.5+0.3*r.Float64(), i, i%40, i%300)
		}
		began := time.Now()
		if report, err := c.Import(b.Context(), strings.NewReader(file.String()), citywarden.ComponentImport{}); err != nil || report.Added != 100_000 {
			b.Fatal(report.Failed, err)
		}
		b.Logf("import: %v", time.Since(began))
		b.Run("load", func(b *testing.B) {
			for b.Loop() {
				c = nil
				before := heap()
				if c, err = cases.LoadComponents(b.Context(), db, classes, g); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(heap()-before)/100_000, "B/component")
			}
		})
		for name, f := range map[string]citywarden.ComponentFilter{
			"list": {}, "class": {Class: "component/0102"}, "department": {Department: "部门17"}, "text": {Search: "99998号"}, "nothing": {Search: "无"},
		} {
			b.Run(name, func(b *testing.B) { measure(b, func() error { c.List(f); return nil }) })
		}
		for name, within := range map[string]float64{"near": 100, "far": cases.MaxNear} {
			b.Run(name, func(b *testing.B) {
				measure(b, func() error {
					c.Near(citywarden.Point{Lat: 24.15, Lon: 117.65}, "component/0101", "", within, 10)
					return nil
				})
			})
		}
	})
}
