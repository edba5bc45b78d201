package api

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"math"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/citywarden/citywarden"
)

const boundary = "a-boundary"

// jpegFile is a small JPEG with a comment of the camera.
var jpegFile = func() string {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewRGBA(image.Rect(0, 0, 16, 8)), nil); err != nil {
		panic(err)
	}
	return b.String()[:2] + "\xff\xfe\x00\x0ataken by" + b.String()[2:]
}()

// form returns a multipart form of names and values; "file" and "photo" are files.
func form(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "--%s\r\nContent-Disposition: form-data; name=%q", boundary, pairs[i])
		if pairs[i] == "file" || pairs[i] == "photo" {
			b.WriteString(`; filename="../../x.php"` + "\r\nContent-Type: image/jpeg")
		}
		fmt.Fprintf(&b, "\r\n\r\n%s\r\n", pairs[i+1])
	}
	return b.String() + "--" + boundary + "--\r\n"
}

func TestPhotosOfACase(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	p := newPlatform(t)
	const path = "/api/v1/cases/E0501202611230001/attachments"
	officer := p.as(citywarden.RoleOfficer)
	a := p.do(officer, "POST "+path, form("kind", "handle_after", "file", jpegFile))
	var got citywarden.Attachment
	a.into(t, &got)
	if a.status != http.StatusCreated || got.Kind != citywarden.PhotoHandleAfter || got.Type != "image/jpeg" || got.Width != 16 || got.By != "officer" || a.header.Get("Location") != path+"/"+string(got.ID) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	photo := p.do(p.as(citywarden.RoleViewer), "GET "+a.header.Get("Location"), "")
	h := photo.header
	if photo.status != http.StatusOK || h.Get("Content-Type") != "image/jpeg" || h.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none'") ||
		!strings.HasPrefix(h.Get("Content-Disposition"), `inline; filename="E0501202611230001-handle_after-`) || strings.Contains(photo.body, "taken by") || !strings.HasPrefix(h.Get("Cache-Control"), "private") {
		t.Errorf("%d %v", photo.status, h)
	}
	if _, err := jpeg.Decode(strings.NewReader(photo.body)); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		body   string
		status int
		says   string
	}{
		"no kind":    {form("file", jpegFile), 400, "kind"},
		"wrong kind": {form("kind", "selfie", "file", jpegFile), 400, "kind"},
		"no file":    {form("kind", "near"), 400, "File required"},
		"no photo":   {form("kind", "near", "file", "<svg onload=alert(1)>"), 400, "JPEG, PNG or WebP"},
		"too large":  {form("kind", "near", "file", jpegFile+strings.Repeat("x", citywarden.MaxPhoto)), 400, "at most 8388608"},
		"far more":   {form("kind", "near", "file", strings.Repeat("x", citywarden.MaxPhoto+2*formRoom)), 400, "too large"},
		"no form":    {`{"kind":"near"}`, 400, "multipart"},
	} {
		a := p.do(officer, "POST "+path, c.body)
		if a.status != c.status || !strings.Contains(a.problem(t).Detail, c.says) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) != 0 {
		t.Errorf("files of forms are left: %v %v", left, err)
	}
	if a := p.do(officer, "GET "+path+"/"+strings.Repeat("0", 64), ""); a.status != http.StatusNotFound {
		t.Errorf("a photo that is not of the case: %d", a.status)
	}
	if a := p.do(p.as(citywarden.RoleDepartment), "POST "+path, form("kind", "near", "file", jpegFile)); a.status != http.StatusForbidden {
		t.Errorf("a department whose case it is not: %d %s", a.status, a.body)
	}
}

func TestCitizenReports(t *testing.T) {
	p := newPlatform(t)
	var choices reportChoices
	p.do("", "GET /api/v1/public/report", "").into(t, &choices)
	if len(choices.Groups) != 1 || choices.Groups[0].Name.ZH != "突发事件" || choices.Groups[0].Classes[0].Code != "event/0501" {
		t.Errorf("choices %+v", choices)
	}
	if strings.Join(choices.Map.Layers, " ") != "streets" {
		t.Errorf("a stranger sees the layers %v", choices.Map.Layers)
	}
	good := []string{"class", "event/0501", "description", "水管爆了", "lat", "24.117", "lon", "117.613", "phone", "13800000000", "photo", jpegFile, "photo", jpegFile}
	a := p.do("", "POST /api/v1/public/reports", form(good...))
	var got taken
	a.into(t, &got)
	if a.status != http.StatusCreated || got.Number == "" || len(got.Secret) != 16 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	r := p.city.reports[0]
	if r.Source != citywarden.SourceCitizen || *r.Location != (citywarden.Point{Lat: 24.117, Lon: 117.613}) || r.Reporter.Phone != "13800000000" || len(p.city.photos) != 2 {
		t.Errorf("report %+v", r)
	}
	shifted := citywarden.GCJ02.FromWGS84(*r.Location)
	p.do("", "POST /api/v1/public/reports", form("class", "event/0501", "description", "水", "lat", fmt.Sprint(shifted.Lat), "lon", fmt.Sprint(shifted.Lon), "crs", "gcj02"))
	if at := p.city.reports[1].Location; math.Abs(at.Lat-24.117) > 1e-8 || math.Abs(at.Lon-117.613) > 1e-8 {
		t.Errorf("from the map of a phone: %v", at)
	}
	path := "GET /api/v1/public/reports/" + string(got.Number)
	a = p.do("", path, "", "Report-Secret", got.Secret)
	var state reportState
	a.into(t, &state)
	if a.status != http.StatusOK || state.Progress != citywarden.ProgressReceived || state.ProgressText.ZH == "" || strings.Contains(a.body, "138") {
		t.Errorf("%d %s", a.status, a.body)
	}
	// Who doesn't know the secret learns nothing, not even whether there is a report.
	for _, try := range [][2]string{{path, ""}, {path, got.Secret + "x"}, {path + "9", got.Secret}, {"GET /api/v1/public/reports/E0501202611230001", ""}} {
		if a := p.do("", try[0], "", "Report-Secret", try[1]); a.status != http.StatusNotFound || a.problem(t).Detail != "no report with this number and secret" {
			t.Errorf("%v: %d %s", try, a.status, a.body)
		}
	}
	var report citywarden.Report
	p.do(p.as(citywarden.RoleSupervisor), "GET /api/v1/cases/"+string(got.Number)+"/report", "").into(t, &report)
	if report.Reporter.Phone != "13800000000" {
		t.Errorf("the supervisor sees %+v", report)
	}
	for name, c := range map[string]struct {
		form []string
		says string
	}{
		"no class":          {good[2:], "class"},
		"nothing":           {[]string{"class", "event/0501", "lat", "24.117", "lon", "117.613"}, "what is the matter"},
		"nowhere":           {good[:4], "say where"},
		"half a position":   {append([]string{"lat", "24.117"}, good[:4]...), "decimal degrees"},
		"no position":       {append([]string{"lat", "north", "lon", "0"}, good[:4]...), "decimal degrees"},
		"not on earth":      {append([]string{"lat", "117.6", "lon", "24.1"}, good[:4]...), "-90 to 90"},
		"NaN":               {append([]string{"lat", "NaN", "lon", "24.1"}, good[:4]...), "-90 to 90"},
		"0, 0":              {append([]string{"lat", "0", "lon", "0"}, good[:4]...), "0, 0"},
		"no such system":    {append([]string{"crs", "BD-09"}, good...), "GCJ-02"},
		"a page":            {[]string{"class", "event/0501", "address", "x", "description", "<img src=x onerror=alert(1)>"}, "HTML"},
		"too many photos":   {append([]string{"photo", jpegFile, "photo", jpegFile}, good...), "at most 3"},
		"a photo that isnt": {append([]string{"photo", "GIF89a"}, good[:10]...), "no photo"},
	} {
		if a := p.do("", "POST /api/v1/public/reports", form(c.form...)); a.status != 400 || !strings.Contains(a.problem(t).Detail, c.says) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	// What is refused for its form costs nothing; what comes through is counted per address.
	last := answer{}
	for range reportsAtOnce {
		last = p.do("", "POST /api/v1/public/reports", form("class", "event/0501", "address", "东门路口", "description", "水"))
	}
	if last.status != http.StatusTooManyRequests || last.header.Get("Retry-After") == "" {
		t.Errorf("after too many: %d %s", last.status, last.body)
	}
	if a := p.do("", "POST /api/v1/public/reports", form(good...), "Origin", "https://elsewhere.example", "Sec-Fetch-Site", "cross-site"); a.status != http.StatusForbidden {
		t.Errorf("from a page of another site: %d", a.status)
	}
	for name, status := range map[string]int{"streets": 200, "grids": 404, "pipes": 404} {
		if a := p.do("", "GET /api/v1/public/map/layers/"+name, ""); a.status != status {
			t.Errorf("a stranger asks for the layer %s: %d, want %d", name, a.status, status)
		}
	}
	p.server.Citizens = false
	for _, what := range []string{"GET /api/v1/public/report", "GET /api/v1/public/map/layers/streets", path} {
		if a := p.do("", what, ""); a.status != http.StatusNotFound || !strings.Contains(a.problem(t).Detail, "switched off") {
			t.Errorf("%s when it is off: %d %s", what, a.status, a.body)
		}
	}
	if a := p.do("", "POST /api/v1/public/reports", form(good...)); a.status != http.StatusNotFound {
		t.Errorf("a report when it is off: %d", a.status)
	}
}
