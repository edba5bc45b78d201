package api

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/parquet-go/parquet-go"

	"github.com/citywarden/citywarden"
)

func TestSeriesExportAndImport(t *testing.T) {
	p := newPlatform(t)
	reader, vendor := p.as(citywarden.RoleService), p.as(citywarden.RoleVendor)
	const span = "?from=2026-11-23T04:00:00Z&to=2026-11-23T05:00:00Z"
	a := p.do(reader, "GET /api/v1/series/export"+span, "")
	want := "time,device,metric,value\n2026-11-23T04:00:00Z,smoke-1,button,true\n2026-11-23T04:00:00Z,smoke-1,smoke,0.25\n2026-11-23T04:00:00Z,smoke-2,note,\"a, \"\"b\"\"\"\n"
	if a.status != 200 || a.body != want {
		t.Errorf("export = %d %q, want %q", a.status, a.body, want)
	}
	if a := p.do(reader, "GET /api/v1/series/export"+span+"&device=smoke-1&metric=smoke", ""); strings.Count(a.body, "\n") != 2 {
		t.Errorf("export of one metric = %q", a.body)
	}
	if a := p.do(reader, "GET /api/v1/series/export"+span+"&device=nobody", ""); a.status != 404 {
		t.Errorf("export of an unknown device = %d %s", a.status, a.body)
	}

	a = p.do(reader, "GET /api/v1/series/export"+span+"&format=parquet", "")
	r := parquet.NewGenericReader[parquetReading](strings.NewReader(a.body))
	rows := make([]parquetReading, 10)
	n, err := r.Read(rows)
	if err != io.EOF {
		t.Fatalf("parquet: %v", err)
	}
	yes, quarter, note := true, 0.25, `a, "b"`
	parquetWant := []parquetReading{
		{Time: noon, Device: "smoke-1", Metric: "button", Flag: &yes},
		{Time: noon, Device: "smoke-1", Metric: "smoke", Number: &quarter},
		{Time: noon, Device: "smoke-2", Metric: "note", Text: &note},
	}
	if diff := cmp.Diff(parquetWant, rows[:n]); diff != "" {
		t.Errorf("parquet (-want +got):\n%s", diff)
	}

	a = p.do(vendor, "POST /api/v1/series/import", "\ufefftime,device,metric,value\n"+
		"2026-11-22T08:00:00+08:00,smoke-1,smoke,0.5\n"+
		"2026-11-22T00:01:00Z,smoke-1,button,true\n"+
		"yesterday,smoke-1,smoke,1\n"+
		"2026-11-22T00:02:00Z,smoke-1,smoke,much\n"+
		"2026-11-22T00:03:00Z,smoke-1,button,perhaps\n"+
		"2026-11-22T00:04:00Z,smoke-1,haze,1\n"+
		"2026-11-22T00:05:00Z,nobody,smoke,1\n", "Content-Type", "text/csv")
	var report SeriesImport
	a.into(t, &report)
	var lines []int
	for _, l := range report.Lines {
		lines = append(lines, l.Line)
	}
	if a.status != 200 || report.Stored != 2 || report.Failed != 5 || !cmp.Equal(lines, []int{4, 5, 6, 7, 8}) {
		t.Errorf("import = %d %+v", a.status, report)
	}
	if len(p.imported) != 2 || p.imported[0].Time.Format("15:04") != "00:00" || p.imported[1].Value != citywarden.Bool(true) {
		t.Errorf("imported %+v", p.imported)
	}
	for _, bad := range []string{"", "device,time\n", "time,device,metric,value\na,b\n"} {
		if a := p.do(vendor, "POST /api/v1/series/import", bad, "Content-Type", "text/csv"); a.status != 400 && a.status != 422 {
			t.Errorf("import of %q = %d %s", bad, a.status, a.body)
		}
	}
}

func TestSeriesByGroup(t *testing.T) {
	p := newPlatform(t)
	tok := p.as(citywarden.RoleService)
	a := p.do(tok, "GET /api/v1/series?domain=fire&metric=smoke&by=zone&every=1m&from=2026-11-23T04:00:00Z&to=2026-11-23T05:00:00Z", "")
	if want := `{"groups":[{"name":"zone","points":[["2026-11-23T04:00:00Z",0.31],["2026-11-23T04:01:00Z",0.02]]}]}`; strings.TrimSpace(a.body) != want {
		t.Errorf("groups = %d %s, want %s", a.status, a.body, want)
	}
	for _, q := range []string{"domain=fire&metric=smoke", "domain=fire&metric=smoke&every=0s", "domain=fire&metric=smoke&every=1h&by=colour", "domain=fire&metric=smoke&every=1h&agg=last"} {
		if a := p.do(tok, "GET /api/v1/series?"+q, ""); a.status != 400 && a.status != 422 {
			t.Errorf("%s = %d %s", q, a.status, a.body)
		}
	}
}

// TestParquetOfManyReadings: more than one row group, and as many rows as were written.
func TestParquetOfManyReadings(t *testing.T) {
	var b bytes.Buffer
	w := newParquetReadings(&b)
	const n = 2*parquetGroup + 1234
	for i := range n {
		if err := w.write(noon.Add(1000*citywarden.Duration(i).Std()), "d", "m", citywarden.Number(float64(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if f.NumRows() != n || len(f.RowGroups()) != 3 {
		t.Errorf("%d rows in %d groups, want %d in 3", f.NumRows(), len(f.RowGroups()), n)
	}
}

// TestSeriesSaysWhatIsUnknown: the gaps of the ledger come with the points, and break a curve where
// they are between two points; not where a device sent later what it had kept, nor for a metric that is seldom reported.
func TestSeriesSaysWhatIsUnknown(t *testing.T) {
	at := func(minute float64) time.Time { return noon.Add(time.Duration(minute * float64(time.Minute))) }
	points := func(minutes ...float64) (out []citywarden.SeriesPoint) {
		for _, m := range minutes {
			out = append(out, citywarden.SeriesPoint{Time: at(m), Value: citywarden.Number(m)})
		}
		return out
	}
	gap := func(from, to float64) citywarden.Gap { return citywarden.Gap{From: at(from), To: at(to)} }
	outage := func(from, to float64) citywarden.Gap { return citywarden.Gap{From: at(from), To: at(to), Outage: true} }
	for _, c := range []struct {
		name   string
		points []citywarden.SeriesPoint
		gaps   []citywarden.Gap
		every  time.Duration
		want   []float64 // minutes of what is unknown
	}{
		{"no gaps", points(0, 1, 5), nil, 0, nil},
		{"silent", points(0, 1, 31, 32), []citywarden.Gap{gap(11, 31)}, 0, []float64{11}},
		{"a message is missing", points(0, 1, 3, 4), []citywarden.Gap{gap(1, 3)}, 0, []float64{1 + 1.0/60000}},
		{"two gaps", points(0, 2, 4, 6), []citywarden.Gap{gap(0, 2), gap(4, 6)}, 0, []float64{1.0 / 60000, 4 + 1.0/60000}},
		{"sent later", points(0, 10, 20, 30, 40), []citywarden.Gap{gap(10, 40)}, 0, nil},
		{"a part sent later", points(0, 10, 11, 40), []citywarden.Gap{gap(10, 40)}, 0, []float64{11 + 1.0/60000}},
		{"seldom reported", points(0, 1440), []citywarden.Gap{gap(100, 120)}, 0, nil},
		{"by interval", points(0, 5, 25, 30), []citywarden.Gap{gap(13, 26)}, 5 * time.Minute, []float64{15}},
		{"within an interval", points(0, 15, 30), []citywarden.Gap{gap(1, 14)}, 15 * time.Minute, nil},
		{"silent before and after an outage", points(0, 1, 66), []citywarden.Gap{gap(11, 31), outage(31, 51), gap(51, 66)}, 0, []float64{11}},
		{"silent before an outage, soon back", points(0, 1, 55), []citywarden.Gap{gap(11, 31), outage(31, 51)}, 0, []float64{11}},
		{"silent only after an outage", points(0, 1, 36), []citywarden.Gap{outage(2, 12), gap(22, 36)}, 0, []float64{2}},
		{"between outages, sent later", points(0, 1, 11, 16, 21, 26, 31, 36, 41, 46, 51, 56, 61, 66), []citywarden.Gap{gap(11, 31), outage(31, 51), gap(51, 66)}, 0, nil},
		{"an outage", points(0, 1, 31, 32), []citywarden.Gap{outage(2, 31)}, 0, []float64{2}},
		{"an outage in which it had nothing to say", points(0, 10), []citywarden.Gap{outage(1, 9)}, 0, nil},
		{"before and after", points(60, 61), []citywarden.Gap{gap(0, 60), gap(61, 90)}, 0, nil},
	} {
		var got []float64
		for _, p := range withUnknown(c.points, c.gaps, c.every, 10*time.Minute) {
			if p.Value.Kind() == 0 {
				got = append(got, p.Time.Sub(noon).Minutes())
			}
		}
		if diff := cmp.Diff(c.want, got, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}

	p := newPlatform(t)
	p.city.gaps = []citywarden.Gap{{From: p.city.points[0].Time, To: p.city.points[1].Time, Missing: 2}}
	tok := p.as(citywarden.RoleService)
	const of, gaps = "GET /api/v1/devices/smoke-1/series?metric=smoke", `"gaps":[{"from":"2026-11-23T04:00:00Z","to":"2026-11-23T04:01:00Z","missing":2}]`
	for query, want := range map[string]string{
		"":              `"points":[["2026-11-23T04:00:00Z",0.31],["2026-11-23T04:01:00Z",0.02]]`,
		"&unknown=true": `"points":[["2026-11-23T04:00:00Z",0.31],["2026-11-23T04:00:00.001Z",null],["2026-11-23T04:01:00Z",0.02]]`,
	} {
		if a := p.do(tok, of+query, ""); a.status != 200 || !strings.Contains(a.body, want) || !strings.Contains(a.body, gaps) {
			t.Errorf("series%s = %d %s, want %s and %s", query, a.status, a.body, want, gaps)
		}
	}
}
