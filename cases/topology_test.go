package cases_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

// squares returns a file of grids, one of 0.001 by 0.001 degrees per code, at
// the column and row that places says.
func squares(crs citywarden.CRS, places map[string][2]float64) string {
	var features []map[string]any
	for code, at := range places {
		var ring [][2]float64
		for _, d := range [][2]float64{{0, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 0}} {
			p := crs.FromWGS84(citywarden.Point{Lon: 117.6 + (at[0]+d[0])*0.001, Lat: 24.1 + (at[1]+d[1])*0.001})
			ring = append(ring, [2]float64{p.Lon, p.Lat})
		}
		features = append(features, map[string]any{
			"type": "Feature", "properties": map[string]any{"code": code, "village": "村" + code[9:12]},
			"geometry": map[string]any{"type": "Polygon", "coordinates": [][][2]float64{ring}},
		})
	}
	b, _ := json.Marshal(map[string]any{"type": "FeatureCollection", "features": features}) // can't fail
	return string(b)
}

// frame are eight squares around an empty place in the middle.
func frame() map[string][2]float64 {
	return map[string][2]float64{
		"350623100001001": {0, 2}, "350623100001002": {1, 2}, "350623100001003": {2, 2}, "350623100001004": {0, 1},
		"350623100001005": {2, 1}, "350623100001006": {0, 0}, "350623100001007": {1, 0}, "350623100001008": {2, 0},
	}
}

func importInto(t *testing.T, g *cases.Grids, file string, o citywarden.GridImport) citywarden.GridReport {
	t.Helper()
	r, err := g.Import(t.Context(), strings.NewReader(file), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestGapsBetweenGridsAreFound(t *testing.T) {
	g, err := cases.LoadGrids(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := importInto(t, g, squares(citywarden.WGS84, frame()), citywarden.GridImport{})
	if r.Taken || len(r.Errors) != 1 || r.Errors[0].Kind != citywarden.FaultGap || len(r.Errors[0].Grids) != 4 ||
		r.Errors[0].At.Distance(citywarden.Point{Lat: 24.1015, Lon: 117.6015}) > 60 {
		t.Fatalf("a hole: %+v", r)
	}
	if r = importInto(t, g, squares(citywarden.WGS84, frame()), citywarden.GridImport{Force: true, Check: true}); r.Taken || len(r.Errors) != 0 || len(r.Warnings) != 1 {
		t.Fatalf("forced, but only checked: %+v", r)
	}
	slit := map[string][2]float64{"350623100001001": {0, 0}, "350623100001002": {1.05, 0}, "350623100001003": {0, -1}, "350623100001004": {1, -1}}
	if r = importInto(t, g, squares(citywarden.WGS84, slit), citywarden.GridImport{}); r.Taken || len(r.Errors) != 1 || r.Errors[0].Kind != citywarden.FaultGap {
		t.Errorf("a slit of 5 m that opens to the outside: %+v", r)
	}
	slit["350623100001002"] = [2]float64{1.003, 0}
	if r = importInto(t, g, squares(citywarden.WGS84, slit), citywarden.GridImport{}); !r.Taken {
		t.Errorf("30 cm between neighbours: %+v", r)
	}
}

func TestCodesThatDoNotFitAreSaid(t *testing.T) {
	g, err := cases.LoadGrids(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	f := frame()
	f["350623100002001"] = [2]float64{1, 1} // of a community that lies elsewhere
	f["350623100002003"] = [2]float64{9, 9}
	r := importInto(t, g, squares(citywarden.WGS84, f), citywarden.GridImport{})
	var kinds []citywarden.GridFault
	for _, w := range r.Warnings {
		kinds = append(kinds, w.Kind)
	}
	if !r.Taken || len(kinds) != 2 || kinds[0] != citywarden.FaultCommunity || kinds[1] != citywarden.FaultNumbering {
		t.Errorf("%+v", r)
	}
}

func TestGridsKeepWhatTheyWere(t *testing.T) {
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
	g, err := cases.LoadGrids(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	importInto(t, g, squares(citywarden.WGS84, map[string][2]float64{"350623100001001": {0, 0}, "350623100001002": {1, 0}}), citywarden.GridImport{})
	// Divided anew: one grid, elsewhere. The other ends.
	r := importInto(t, g, squares(citywarden.WGS84, map[string][2]float64{"350623100001001": {1, 0}}), citywarden.GridImport{Replace: true})
	if !r.Taken || r.Changed != 1 || r.Ended != 1 {
		t.Fatalf("%+v", r)
	}
	again, err := cases.LoadGrids(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if all := again.All(); len(all) != 1 || again.At(citywarden.Point{Lat: 24.1005, Lon: 117.6015}) != "350623100001001" {
		t.Errorf("after the change: %+v", all)
	}
	for code, n := range map[citywarden.GridCode]int{"350623100001001": 2, "350623100001002": 1} {
		v, err := again.Versions(t.Context(), code)
		if err != nil || len(v) != n || v[0].Until.IsZero() {
			t.Errorf("versions of %s: %+v, %v", code, v, err)
		}
	}
	if _, err := again.Versions(t.Context(), "350623100001009"); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Errorf("a code that never was: %v", err)
	}
}

func TestGridsInGCJ02(t *testing.T) {
	g, err := cases.LoadGrids(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	place := map[string][2]float64{"350623100001001": {0, 0}}
	if r := importInto(t, g, squares(citywarden.GCJ02, place), citywarden.GridImport{CRS: "gcj02"}); !r.Taken || r.CRS != citywarden.GCJ02 {
		t.Fatalf("%+v", r)
	}
	if g.At(citywarden.Point{Lat: 24.1005, Lon: 117.6005}) == "" {
		t.Error("it lies elsewhere")
	}
	r := importInto(t, g, squares(citywarden.GCJ02, place), citywarden.GridImport{Check: true})
	if len(r.Warnings) != 1 || r.Warnings[0].Kind != citywarden.FaultCRS {
		t.Errorf("the same again without saying what it is: %+v", r)
	}
}

func TestAreasOfGrids(t *testing.T) {
	g, err := cases.LoadGrids(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	importInto(t, g, squares(citywarden.WGS84, frame()), citywarden.GridImport{Force: true})
	if a := g.Areas(citywarden.LevelVillage, "350623"); len(a) != 1 || a[0].Code != "350623100001" || a[0].Name != "村001" || a[0].Grids != 8 {
		t.Errorf("villages: %+v", a)
	}
	if a := g.Areas(citywarden.LevelTown, "999"); len(a) != 0 {
		t.Errorf("towns of another county: %+v", a)
	}
	b, err := g.AreasGeoJSON(citywarden.LevelTown, "")
	if err != nil {
		t.Fatal(err)
	}
	var fc struct {
		Features []struct {
			Geometry struct {
				Coordinates [][][][2]float64 `json:"coordinates"`
			} `json:"geometry"`
		} `json:"features"`
	}
	if err := json.Unmarshal(b, &fc); err != nil {
		t.Fatal(err)
	}
	// One piece of ground, with the hole in its middle.
	if len(fc.Features) != 1 || len(fc.Features[0].Geometry.Coordinates) != 1 || len(fc.Features[0].Geometry.Coordinates[0]) != 2 {
		t.Errorf("outline: %s", b)
	}
}
