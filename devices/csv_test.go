package devices_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/encoding/simplifiedchinese"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices"
)

func TestImportReport(t *testing.T) {
	r := newRegistry(t, devices.Options{})
	if _, err := r.Create(t.Context(), citywarden.Device{ID: "old", Model: "parking-bay", Name: "before",
		Attributes: map[string]any{"lane": "L1", "kind": "bay"}, Location: &citywarden.Point{Lat: 1, Lon: 2}}); err != nil {
		t.Fatal(err)
	}
	if err := r.SetToken(t.Context(), "old", "token-of-old"); err != nil {
		t.Fatal(err)
	}
	report, err := r.Import(t.Context(), strings.NewReader(strings.TrimLeft(`
id,name,model,lat,lon,token,disabled,adjacent,attr.zone,attr.smoke_limit,attr.smoke_limt
sd-1,"一号, ""东""",smoke-detector,24.1,117.6,token-of-1,,sd-2 sd-3,Z1,0.2,
sd-2,,smoke-detektor,,,,,,,,
sd-3,,smoke-detector,117.6,24.1,,,,,,
sd-4,,smoke-detector,24.1,,,,,,,
sd-5,,smoke-detector,,,short,,,,,
sd-6,,smoke-detector,,,token-of-1,,,,,
sd-7,,smoke-detector,,,token-of-old,,,,,
sd 8,,smoke-detector,,,,,,,,
sd-9,,smoke-detector,,,,,,,high,
sd-1,,smoke-detector,,,,,,,,
old,,parking-bay,,,,yes,,,,
sd-10,"two
lines",smoke-detector,,,,,,,,

sd-11,,smoke-detector,,,,,,,,0.3
sd-12,,smoke-detector
sd-13,,smoke-detector,,,,perhaps,,,,
sd-14,"un"closed,smoke-detector,,,,,,,,
sd-15,=HYPERLINK(),smoke-detector,,,,,,,,
`, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	want := devices.ImportReport{Created: 3, Updated: 1, Failed: 13, Lines: []devices.ImportLine{
		{Line: 2, ID: "sd-1", OK: true},
		{Line: 3, ID: "sd-2", Error: `unknown model "smoke-detektor"; did you mean "smoke-detector"?`},
		{Line: 4, ID: "sd-3", Error: "position lat 117.6, lon 24.1: lat is -90 to 90 and lon -180 to 180 degrees"},
		{Line: 5, ID: "sd-4", Error: `position lat "24.1", lon "": write both in decimal degrees, like 24.117 and 117.613`},
		{Line: 6, ID: "sd-5", Error: "a token has 8 to 64 letters, digits, '.', '_', '~' or '-'"},
		{Line: 7, ID: "sd-6", Error: "the token belongs to device sd-1"},
		{Line: 8, ID: "sd-7", Error: "the token belongs to device old"},
		{Line: 9, ID: "sd 8", Error: `device id "sd 8": use 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit`},
		{Line: 10, ID: "sd-9", Error: `attribute smoke_limit: "high" is not a number`},
		{Line: 11, ID: "sd-1", Error: "device sd-1 is on line 2 already"},
		{Line: 12, ID: "old", OK: true},
		{Line: 13, ID: "sd-10", Error: `name "two\nlines" has control characters in it`},
		{Line: 16, ID: "sd-11", OK: true, Warning: `model smoke-detector declares no attribute "smoke_limt"; did you mean "smoke_limit"? (kept as text)`},
		{Line: 17, ID: "sd-12", Error: "3 cells for 11 columns"},
		{Line: 18, ID: "sd-13", Error: `disabled: "perhaps" is neither true nor false`},
		{Line: 19, Error: `parse error on line 19, column 10: extraneous or missing " in quoted-field`},
		{Line: 20, ID: "sd-15", OK: true},
	}}
	if diff := cmp.Diff(want, report); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	d, _, err := r.Device("sd-1")
	if err != nil || d.Name != `一号, "东"` || d.Attributes["smoke_limit"] != 0.2 || d.Attributes["zone"] != "Z1" || len(d.Adjacent) != 2 || d.Location.Lon != 117.6 {
		t.Errorf("sd-1 = %+v, %v", d, err)
	}
	if id, _ := r.Authenticate("token-of-1"); id != "sd-1" {
		t.Errorf("token-of-1 is %q's", id)
	}
	// Empty cells of columns that are there remove, columns that are not leave.
	d, _, _ = r.Device("old")
	if d.Name != "old" || !d.Disabled || d.Location != nil || d.Attributes["lane"] != "L1" {
		t.Errorf("old = %+v", d)
	}
	if _, err := r.Authenticate("token-of-old"); citywarden.CodeOf(err) != citywarden.CodeDenied {
		t.Errorf("an empty token cell took the token away: %v", err)
	}
}

func TestNotEverybodyHasOneNeighbour(t *testing.T) {
	r := newRegistry(t, devices.Options{})
	rows := strings.Builder{}
	rows.WriteString("id,model,adjacent\n")
	for i := range 257 {
		fmt.Fprintf(&rows, "p%d,pressure-logger,hub\n", i)
	}
	last := func(want string) {
		t.Helper()
		report, err := r.Import(t.Context(), strings.NewReader(rows.String()))
		if err != nil {
			t.Fatal(err)
		}
		if l := report.Lines[256]; !strings.HasPrefix(l.Error, want) || l.OK != (want == "") || report.Created+report.Updated+report.Failed != 257 {
			t.Errorf("line 257 = %+v of %d, %d, %d", l, report.Created, report.Updated, report.Failed)
		}
	}
	last("256 devices have hub as a neighbour already")
	last("256 devices have hub as a neighbour already") // those that do have it still
	one := citywarden.Device{ID: "p256", Model: "pressure-logger", Adjacent: []citywarden.DeviceID{"hub"}}
	if _, err := r.Create(t.Context(), one); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("Create: %v", err)
	}
	if err := r.Delete(t.Context(), "p7"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(t.Context(), one); err != nil {
		t.Error(err)
	}
	if _, err := r.Update(t.Context(), citywarden.Device{ID: "p8", Model: "pressure-logger"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(t.Context(), citywarden.Device{ID: "p7", Model: "pressure-logger", Adjacent: []citywarden.DeviceID{"hub"}}); err != nil {
		t.Error(err)
	}
}

func TestImportForms(t *testing.T) {
	text := "id;model;name\r\nsd-1;smoke-detector;一号烟感\r\n"
	gb, err := simplifiedchinese.GB18030.NewEncoder().String(text)
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string]string{
		"byte order mark": "\ufeff" + text,
		"GB 18030":        gb,
		"tabs":            strings.ReplaceAll(text, ";", "\t"),
		"no last newline": strings.TrimRight(text, "\r\n"),
		"spaces":          strings.ReplaceAll(text, ";", " ; "),
	} {
		r := newRegistry(t, devices.Options{})
		report, err := r.Import(t.Context(), strings.NewReader(in))
		if err != nil || report.Created != 1 {
			t.Errorf("%s: Import = %+v, %v", name, report, err)
			continue
		}
		if d, _, _ := r.Device("sd-1"); d.Name != "一号烟感" {
			t.Errorf("%s: name %q", name, d.Name)
		}
	}
	for in, want := range map[string]string{
		"":                                 "line 1: no column names",
		"id,name\n":                        `line 1: there is no column "model"`,
		"id,model,modle\n":                 `line 1: unknown column "modle"; did you mean "model"?`,
		"id,model,id\n":                    `line 1: column "id" is there twice`,
		"id,model,attr.a b\n":              `line 1: column "attr.a b"`,
		"id,model\n\xff\xff\xff,\xff\n":    "neither UTF-8 nor GB 18030",
		"id,model,zone\na,parking-bay,Z\n": `attributes are written attr.NAME`,
	} {
		r := newRegistry(t, devices.Options{})
		if report, err := r.Import(t.Context(), strings.NewReader(in)); citywarden.CodeOf(err) != citywarden.CodeInvalid || !strings.Contains(err.Error(), want) || len(report.Lines) != 0 {
			t.Errorf("Import(%q) = %+v, %v; want %q", in, report, err, want)
		}
	}
}

// TestExportImport carries devices through CSV into another registry and back.
func TestExportImport(t *testing.T) {
	a, b := newRegistry(t, devices.Options{}), newRegistry(t, devices.Options{})
	for i, name := range []string{"plain", `with "quotes", commas; and tabs`, "=1+1", "'=1+1", "''", "@x", "-5", "+86 596", "'", "汉字 😀", "=", "'@'"} {
		d := citywarden.Device{ID: citywarden.DeviceID(fmt.Sprintf("d-%02d", i)), Model: "smoke-detector", Name: name,
			Attributes: map[string]any{"zone": name, "smoke_limit": -0.5, "own": name}, Disabled: i == 3}
		if i%2 == 0 {
			d.Location = &citywarden.Point{Lat: 24.123456789, Lon: -117.000001}
			d.Adjacent = []citywarden.DeviceID{"x", "y"}
		}
		if _, err := a.Create(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := a.Export(t.Context(), &out, ""); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if strings.ContainsAny(line[strings.Index(line, ",")+1:][:1], "=@+") {
			t.Errorf("a spreadsheet would execute %s", line)
		}
	}
	report, err := b.Import(t.Context(), bytes.NewReader(out.Bytes()))
	if err != nil || report.Failed > 0 {
		t.Fatalf("Import = %+v, %v", report, err)
	}
	want, got := list(t, a, citywarden.DeviceFilter{}), list(t, b, citywarden.DeviceFilter{})
	for i := range got {
		got[i].Created, got[i].Updated = want[i].Created, want[i].Updated
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("through CSV (-want +got):\n%s", diff)
	}
	var again bytes.Buffer
	if err := b.Export(t.Context(), &again, ""); err != nil || again.String() != out.String() {
		t.Errorf("a second export differs: %v\n%s", err, cmp.Diff(out.String(), again.String()))
	}
}
