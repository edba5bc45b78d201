package cases_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

// newResponsibility returns the responsibility for a mesh of 4 x 4 grids, whose
// officers are zhang and sun.
func newResponsibility(t *testing.T) (*cases.Responsibility, func() *cases.Responsibility) {
	t.Helper()
	db, err := store.Open(t.Context(), pgtest.Place(t, filepath.Join(t.TempDir(), "x.db")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	g, err := cases.LoadGrids(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Add(t.Context(), mesh(4)); err != nil {
		t.Fatal(err)
	}
	officer := func(_ context.Context, name string, _ ...citywarden.GridCode) error {
		if name != "zhang" && name != "sun" {
			return citywarden.Errorf(citywarden.CodeInvalid, "%s is no officer", name)
		}
		return nil
	}
	load := func() *cases.Responsibility {
		r, err := cases.LoadResponsibility(t.Context(), db, g, officer)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	return load(), load
}

func TestResponsibilityFromGeoJSON(t *testing.T) {
	r, load := newResponsibility(t)
	polygon := func(properties, coordinates string) string {
		return `{"type":"Feature","properties":{` + properties + `},"geometry":{"type":"Polygon","coordinates":` + coordinates + `}}`
	}
	// The mesh has rows of four from south to north, each 0.0009 by 0.001 degrees.
	west := polygon(`"ID":"west","officer":"zhang"`, `[[[117.599,24.099],[117.602,24.099],[117.602,24.2],[117.599,24.2],[117.599,24.099]]]`)
	sea := polygon(`"id":"sea","officer":"sun"`, `[[[118,24],[118.1,24],[118.1,24.1],[118,24]]]`)
	named := `{"type":"Feature","properties":{"id":"named","officer":null,"grids":["350623100001004"]},"geometry":null}`
	report, err := r.Import(t.Context(), strings.NewReader(`{"type":"FeatureCollection","features":[`+west+","+sea+","+named+`]}`), true)
	if err != nil {
		t.Fatal(err)
	}
	want := citywarden.TableReport{Added: 2, Failed: 1, Lines: []citywarden.TableLine{{Line: 2, ID: "sea", Error: "the middle of no unit grid lies in it"}}}
	if diff := cmp.Diff(want, report); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	again := load()
	if diff := cmp.Diff([]citywarden.ResponsibilityGrid{
		{ID: "named", Grids: []citywarden.GridCode{"350623100001004"}},
		{ID: "west", Officer: "zhang", Grids: []citywarden.GridCode{
			"350623100001001", "350623100001002", "350623100001005", "350623100001006", "350623100001009", "350623100001010", "350623100001013", "350623100001014",
		}},
	}, again.All(), cmpopts.IgnoreFields(citywarden.ResponsibilityGrid{}, "Updated")); diff != "" {
		t.Errorf("loaded (-want +got):\n%s", diff)
	}
	for code, want := range map[citywarden.GridCode]string{"350623100001006": "zhang", "350623100001004": "", "350623100001003": "", "": ""} {
		if got := again.Officer(code); got != want {
			t.Errorf("officer of %q is %q, want %q", code, got, want)
		}
	}
}

func TestResponsibilityImportReplacesOnlyWhenAllIsRight(t *testing.T) {
	r, _ := newResponsibility(t)
	ids := func() (out []citywarden.ResponsibilityGridID) {
		for _, x := range r.All() {
			out = append(out, x.ID)
		}
		return out
	}
	for _, tt := range []struct {
		csv    string
		report citywarden.TableReport
		want   []citywarden.ResponsibilityGridID
	}{
		{"id,officer,grids\na,zhang,350623100001001 350623100001002\nb,sun,350623100001\n", citywarden.TableReport{Added: 2}, []citywarden.ResponsibilityGridID{"a", "b"}},
		{"ID\tOFFICER\tGRIDS\na\twu\t350623100001001\n", citywarden.TableReport{Failed: 1}, []citywarden.ResponsibilityGridID{"a", "b"}},
		{"id,officer,grids\na,zhang\nc,sun,350623100001003\n", citywarden.TableReport{Added: 1, Failed: 1}, []citywarden.ResponsibilityGridID{"a", "b", "c"}},
		{"id,officer,grids\na,zhang,350623100001002 350623100001001\na,sun,350623100001003\n", citywarden.TableReport{Same: 1, Failed: 1}, []citywarden.ResponsibilityGridID{"a", "b", "c"}},
		{"id,officer,grids\na,sun,350623100001001\n", citywarden.TableReport{Changed: 1, Removed: 2}, []citywarden.ResponsibilityGridID{"a"}},
	} {
		got, err := r.Import(t.Context(), strings.NewReader(tt.csv), true)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.report, got, cmpopts.IgnoreFields(citywarden.TableReport{}, "Lines")); diff != "" || len(got.Lines) != tt.report.Failed {
			t.Errorf("%q: report (-want +got):\n%s%v", tt.csv, diff, got.Lines)
		}
		if diff := cmp.Diff(tt.want, ids()); diff != "" {
			t.Errorf("%q: there are (-want +got):\n%s", tt.csv, diff)
		}
	}
	for csv, want := range map[string]string{
		"":                        "no column names",
		"id,officer\n":            `there is no column "grids"`,
		"id,officer,grids,area\n": `unknown column "area"`,
		"id,officer,grids,id\n":   "twice",
		"\xff\xff\xff,officer\n":  "neither UTF-8 nor GB 18030",
		`{"type":"Feature"}`:      "not FeatureCollection",
		`{"type":"FeatureCollection","crs":"BD-09","features":[]}`: "write WGS84",
	} {
		if _, err := r.Import(t.Context(), strings.NewReader(csv), true); citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", csv, err, want)
		}
	}
	if diff := cmp.Diff([]citywarden.ResponsibilityGridID{"a"}, ids()); diff != "" {
		t.Errorf("what can't be read changed something (-want +got):\n%s", diff)
	}
}
