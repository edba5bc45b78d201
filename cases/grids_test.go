package cases_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

// mesh returns n x n seamless, irregular grids of about one hectare.
func mesh(n int) []citywarden.UnitGrid {
	r := rand.New(rand.NewPCG(11, 12))
	corner := make([][]citywarden.Point, n+1)
	for i := range corner {
		for j := range n + 1 {
			p := citywarden.Point{Lat: 24.1 + 0.0009*float64(i), Lon: 117.6 + 0.001*float64(j)}
			if i > 0 && i < n && j > 0 && j < n {
				p.Lat += 0.0005 * (r.Float64() - 0.5)
				p.Lon += 0.0005 * (r.Float64() - 0.5)
			}
			corner[i] = append(corner[i], p)
		}
	}
	var out []citywarden.UnitGrid
	for i := range n {
		for j := range n {
			k := i*n + j
			out = append(out, citywarden.UnitGrid{
				Code: citywarden.GridCode(fmt.Sprintf("350623100%03d%03d", 1+k/999, 1+k%999)),
				Ring: []citywarden.Point{corner[i][j], corner[i][j+1], corner[i+1][j+1], corner[i+1][j]},
			})
		}
	}
	return out
}

func TestEveryPointLiesInOneGrid(t *testing.T) {
	g, err := cases.LoadGrids(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if g.At(citywarden.Point{Lat: 24.1, Lon: 117.6}) != "" {
		t.Error("a point lies in a grid though there is none")
	}
	grids := mesh(30)
	if err := g.Add(t.Context(), grids); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(13, 14))
	for range 20000 {
		p := citywarden.Point{Lat: 24.1 + 0.027*r.Float64(), Lon: 117.6 + 0.03*r.Float64()}
		var want []citywarden.GridCode
		for i := range grids {
			if grids[i].Contains(p) {
				want = append(want, grids[i].Code)
			}
		}
		if len(want) != 1 || g.At(p) != want[0] {
			t.Fatalf("At(%v) = %q, it lies in %v", p, g.At(p), want)
		}
	}
	if got := g.At(citywarden.Point{Lat: 25, Lon: 117.6}); got != "" {
		t.Errorf("outside: %q, want none", got)
	}
	sum := 0.0
	for _, u := range g.All() {
		sum += u.Area
	}
	if want := 0.027 * 111195 * 0.03 * 111195 * math.Cos(24.1*math.Pi/180); math.Abs(sum/want-1) > 0.002 {
		t.Errorf("the areas sum to %.0f m², want %.0f", sum, want)
	}
}

func TestGridsSurviveAndReadTheirOwnGeoJSON(t *testing.T) {
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
	g, err := cases.LoadGrids(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Add(t.Context(), mesh(5)); err != nil {
		t.Fatal(err)
	}
	text, err := g.GeoJSON("")
	if err != nil {
		t.Fatal(err)
	}
	again, err := cases.LoadGrids(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(g.All(), again.All()); diff != "" {
		t.Errorf("loaded again (-want +got):\n%s", diff)
	}
	r, err := again.Import(t.Context(), bytes.NewReader(text), citywarden.GridImport{})
	if err != nil || !r.Taken || r.Same != 25 || r.Added+r.Changed+r.Ended+len(r.Errors) != 0 {
		t.Fatalf("import its own export: %+v, %v", r, err)
	}
	if diff := cmp.Diff(g.All(), again.All()); diff != "" {
		t.Errorf("imported again (-want +got):\n%s", diff)
	}
}

func TestBadGridsAreRefused(t *testing.T) {
	polygon := func(code, rings string) string {
		return `{"type":"Feature","properties":{"code":"` + code + `"},"geometry":{"type":"Polygon","coordinates":` + rings + `}}`
	}
	const square = `[[[0,0],[0.001,0],[0.001,0.001],[0,0.001],[0,0]]]`
	for name, tt := range map[string]struct{ features, want string }{
		"overlap":        {polygon("350623100001001", square) + "," + polygon("350623100001002", `[[[0.0005,0.0005],[0.002,0.0005],[0.002,0.002],[0.0005,0.002],[0.0005,0.0005]]]`), "grids 350623100001001 and 350623100001002 overlap"},
		"the same":       {polygon("350623100001001", square) + "," + polygon("350623100001002", square), "overlap"},
		"inside":         {polygon("350623100001001", square) + "," + polygon("350623100001002", `[[[0.0004,0.0004],[0.0006,0.0004],[0.0006,0.0006],[0.0004,0.0004]]]`), "overlap"},
		"twice":          {polygon("350623100001001", square) + "," + polygon("350623100001001", square), "grid 350623100001001 is there twice"},
		"bow tie":        {polygon("350623100001001", `[[[0,0],[0.001,0.001],[0.001,0],[0,0.0015],[0,0]]]`), "crosses itself"},
		"bad code":       {polygon("35062310000100", square), "use 15 digits"},
		"not closed":     {polygon("350623100001001", `[[[0,0],[0.001,0],[0.001,0.001],[0,0.001]]]`), "not closed"},
		"hole":           {polygon("350623100001001", `[[[0,0],[0.001,0],[0.001,0.001],[0,0]],[[0,0],[0.001,0],[0.001,0.001],[0,0]]]`), "without holes"},
		"latitude first": {polygon("350623100001001", `[[[24,117],[24.001,117],[24.001,117.001],[24,117]]]`), "lat is -90 to 90"},
		"a line":         {`{"type":"Feature","properties":{"code":"350623100001001"},"geometry":{"type":"LineString","coordinates":[[0,0],[1,1]]}}`, `its geometry is a "LineString"`},
		"no area":        {polygon("350623100001001", `[[[0,0],[0.001,0.001],[0.002,0.002],[0,0]]]`), "below 1 m²"},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := cases.LoadGrids(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			r, err := g.Import(t.Context(), strings.NewReader(`{"type":"FeatureCollection","features":[`+tt.features+`]}`), citywarden.GridImport{})
			if err != nil || r.Taken || len(r.Errors) == 0 || !strings.Contains(r.Errors[0].Text, tt.want) {
				t.Errorf("got %+v, %v, want an error with %q", r, err, tt.want)
			}
			if len(g.All()) != 0 {
				t.Error("some were imported")
			}
		})
	}
}

// Neighbours may have corners in the middle of each other's edges, and differ
// by a centimetre.
func TestGoodNeighbours(t *testing.T) {
	g, err := cases.LoadGrids(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ring := func(xy ...float64) []citywarden.Point {
		var out []citywarden.Point
		for i := 0; i < len(xy); i += 2 {
			out = append(out, citywarden.Point{Lon: xy[i], Lat: xy[i+1]})
		}
		return out
	}
	err = g.Add(t.Context(), []citywarden.UnitGrid{
		{Code: "350623100001001", Ring: ring(0, 0, 0.002, 0, 0.002, 0.001, 0, 0.001)},
		{Code: "350623100001002", Ring: ring(0, 0.001, 0.001, 0.00099995, 0.001, 0.002, 0, 0.002)},
		{Code: "350623100001003", Ring: ring(0.001, 0.001, 0.002, 0.001, 0.002, 0.002, 0.001, 0.002)},
	})
	if err != nil {
		t.Error(err)
	}
}

func FuzzImport(f *testing.F) {
	f.Add(`{"type":"FeatureCollection","features":[{"type":"Feature","properties":{"code":"350623100001001"},"geometry":{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,0]]]}}]}`)
	f.Add(`{"type":"FeatureCollection","features":[{"geometry":{"type":"Polygon","coordinates":[[]]}}]}`)
	f.Fuzz(func(t *testing.T, s string) {
		g, err := cases.LoadGrids(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := g.Import(t.Context(), strings.NewReader(s), citywarden.GridImport{})
		want := 0
		if r.Taken {
			want = r.Added
		}
		if n := len(g.All()); n != want || err == nil && r.Taken != (len(r.Errors) == 0) {
			t.Errorf("%+v, %v, there are %d", r, err, n)
		}
		for _, u := range g.All() {
			g.At(u.Ring[0])
		}
	})
}
