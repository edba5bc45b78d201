package cases_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/store"
	"github.com/citywarden/citywarden/store/pgtest"
)

func TestReports(t *testing.T) {
	ring := []citywarden.Point{{Lat: 24.1, Lon: 117.6}, {Lat: 24.1, Lon: 117.61}, {Lat: 24.11, Lon: 117.61}, {Lat: 24.11, Lon: 117.6}}
	grids, err := cases.LoadGrids(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := grids.Add(t.Context(), []citywarden.UnitGrid{{Code: "350623100001001", Ring: ring}}); err != nil {
		t.Fatal(err)
	}
	db := pgtest.Open(t, filepath.Join(t.TempDir(), "x.db"), store.Open)
	classes, err := cases.LoadClasses("")
	if err != nil {
		t.Fatal(err)
	}
	components, err := cases.LoadComponents(t.Context(), db, classes, grids)
	if err != nil {
		t.Fatal(err)
	}
	const far = "3506230101000001" // surveyed wrongly
	if _, err := components.Save(t.Context(), citywarden.Component{ID: far, Location: citywarden.Point{Lat: 24.105, Lon: 118.54}}); err != nil {
		t.Fatal(err)
	}
	const gone = "3506230101000002"
	if _, err := components.Save(t.Context(), citywarden.Component{ID: gone, State: citywarden.Removed, Location: citywarden.Point{Lat: 24.105, Lon: 117.605}}); err != nil {
		t.Fatal(err)
	}
	d, err := cases.New(db, cases.Options{Grids: grids, Classes: classes, Components: components})
	if err != nil {
		t.Fatal(err)
	}
	at := func(lat, lon float64) *citywarden.Point { return &citywarden.Point{Lat: lat, Lon: lon} }
	report := func(r citywarden.Report) (citywarden.Case, error) {
		if r.Class == "" {
			r.Class = "event/0506"
		}
		r.Source = citywarden.SourceCitizen
		return d.Report(t.Context(), r, []citywarden.Photo{photo(1), photo(2)}, "hash")
	}

	c, err := report(citywarden.Report{Description: "水很深", Address: "东门路口", Location: at(24.105, 117.605), Reporter: citywarden.Reporter{Phone: "138"}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Source != citywarden.SourceCitizen || c.Grid != "350623100001001" || c.Title.ZH != "道路积水" || !c.Filed.IsZero() || c.Progress() != citywarden.ProgressReceived {
		t.Errorf("case %+v", c)
	}
	if got := timeline(t, d, c.ID); len(got) != 3 || !strings.HasSuffix(got[0], "by citizen: 水很深\n地址：东门路口") {
		t.Errorf("timeline %q", got)
	}
	if as, err := d.Attachments(t.Context(), c.ID); err != nil || len(as) != 2 || as[0].By != "citizen" || as[0].Kind != citywarden.PhotoNear {
		t.Errorf("photos %+v, %v", as, err)
	}
	x, secret, err := d.Reported(t.Context(), c.ID)
	if err != nil || secret != "hash" || x.Reporter.Phone != "138" || x.Case != c.ID || !x.Updated.Equal(c.Opened) {
		t.Errorf("report %+v %q, %v", x, secret, err)
	}

	// Between two towns there is no grid: the timeline says so, and it stays the same after a restart.
	c, err = report(citywarden.Report{Location: at(24.2, 117.6)})
	if err != nil || c.Grid != "" {
		t.Fatalf("%+v, %v", c, err)
	}
	if got := timeline(t, d, c.ID); len(got) != 4 || !strings.Contains(got[1], "in no unit grid") {
		t.Errorf("timeline %q", got)
	}

	for name, r := range map[string]citywarden.Report{
		"lies 94 km from":    {Location: at(24.105, 118.54)},
		"was removed":        {Class: "component/0101", Component: gone},
		"118.54000 lies":     {Class: "component/0101", Component: far},
		"no class":           {Class: "event/9999", Address: "x"},
		"say where":          {Description: "x"},
		"0, 0":               {Location: at(0, 0)},
		"-90 to 90":          {Location: at(117.6, 24.1)},
		"holds HTML":         {Address: "x", Description: "see <a href='x'>this</a>"},
		"control characters": {Address: "x\x00"},
		"not UTF-8":          {Address: "x", Description: "\xff"},
		"4000 characters":    {Address: "x", Description: strings.Repeat("水", 4001)},
	} {
		if _, err := report(r); citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), name) {
			t.Errorf("want %q, got %v", name, err)
		}
	}
	if _, err := report(citywarden.Report{Address: "x", Description: "depth < 15 cm and > 5 cm\n" + strings.Repeat("水", 3000)}); err != nil {
		t.Error(err)
	}

	all, err := d.Reports(t.Context(), citywarden.ReportFilter{Limit: 10})
	if err != nil || len(all) != 3 {
		t.Fatalf("%d reports, %v", len(all), err)
	}
	yes, no := true, false
	for _, f := range []struct {
		name string
		f    citywarden.ReportFilter
		want int
	}{
		{"at most two", citywarden.ReportFilter{Limit: 2}, 2},
		{"after two", citywarden.ReportFilter{Skip: 2, Limit: 2}, 1},
		{"of an app", citywarden.ReportFilter{Source: citywarden.SourceApp, Limit: 10}, 0},
		{"open", citywarden.ReportFilter{Open: &yes, Limit: 10}, 3},
		{"closed", citywarden.ReportFilter{Open: &no, Limit: 10}, 0},
		{"of a class", citywarden.ReportFilter{Classes: []citywarden.ClassCode{"event/0506"}, Limit: 10}, 3},
		{"of two classes", citywarden.ReportFilter{Classes: []citywarden.ClassCode{"event/0501", "event/0506"}, Limit: 10}, 3},
		{"of another class", citywarden.ReportFilter{Classes: []citywarden.ClassCode{"event/0501"}, Limit: 10}, 0},
		{"two of them", citywarden.ReportFilter{Cases: []citywarden.CaseID{all[0].Case, all[2].Case, "E1"}, Limit: 10}, 2},
		{"none of them", citywarden.ReportFilter{Cases: []citywarden.CaseID{}, Limit: 10}, 0},
		{"before", citywarden.ReportFilter{To: all[2].At, Limit: 10}, 0},
		{"since", citywarden.ReportFilter{From: all[2].At, Limit: 10}, 3},
	} {
		if got, err := d.Reports(t.Context(), f.f); err != nil || len(got) != f.want {
			t.Errorf("%s: %d reports, %v; want %d", f.name, len(got), err, f.want)
		}
	}

	// What somebody here enters of what they heard from an app is not the app's own.
	if _, err := d.Create(t.Context(), citywarden.NewCase{
		Class: "event/0506", Title: "water", Description: `,"app":"`, Source: citywarden.SourceApp, Reporter: &citywarden.Reporter{Phone: "138"},
	}, "lin", citywarden.RoleSupervisor); err != nil {
		t.Fatal(err)
	}
	own, err := d.Report(t.Context(), citywarden.Report{Class: "event/0506", Source: citywarden.SourceApp, App: "wechat", Address: "x"}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.Reports(t.Context(), citywarden.ReportFilter{Source: citywarden.SourceApp, ByApp: true, Limit: 10}); err != nil || len(got) != 1 || got[0].Case != own.ID {
		t.Errorf("reports of apps: %+v, %v", got, err)
	}

	key := citywarden.APIKey{ID: "0a", Name: "wechat", PerMinute: 60, Created: monday()}
	if err := db.AddAPIKey(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := db.AddAPIKey(t.Context(), citywarden.APIKey{ID: "0b", Name: "wechat"}); citywarden.CodeOf(err) != citywarden.CodeConflict {
		t.Errorf("two keys of one name: %v", err)
	}
	if keys, err := db.APIKeys(t.Context()); err != nil || !cmp.Equal(keys, []citywarden.APIKey{key}) {
		t.Errorf("keys %v, %v", keys, err)
	}
	if got, err := db.APIKey(t.Context(), "0a"); err != nil || got != key {
		t.Errorf("key %v, %v", got, err)
	}
	if err := db.DeleteAPIKey(t.Context(), "wechat"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.APIKey(t.Context(), "0a"); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Errorf("a deleted key: %v", err)
	}
	if err := db.DeleteAPIKey(t.Context(), "wechat"); citywarden.CodeOf(err) != citywarden.CodeNotFound {
		t.Errorf("deleted twice: %v", err)
	}
}
