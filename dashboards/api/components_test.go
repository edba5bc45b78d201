package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/citywarden/citywarden"
)

func TestComponentsByAPI(t *testing.T) {
	p := newPlatform(t)
	tok := p.as(citywarden.RoleSupervisor)
	at := citywarden.Point{Lat: 24.117, Lon: 117.613}
	gcj := citywarden.GCJ02.FromWGS84(at)
	for i, body := range []string{
		`{"name":"一号井盖","location":{"lat":24.117,"lon":117.613},"owner":"供水公司","grid":"ignored"}`,
		fmt.Sprintf(`{"name":"二号井盖","location":{"lat":%.9f,"lon":%.9f},"crs":"GCJ-02","state":"lost"}`, gcj.Lat, gcj.Lon),
		`{"location":{"lat":24.1171,"lon":117.613},"state":"removed"}`,
	} {
		if a := p.do(tok, fmt.Sprintf("PUT /api/v1/components/350623010100000%d", i+1), body); a.status != http.StatusOK {
			t.Fatalf("put: %d %s", a.status, a.body)
		}
	}
	var x citywarden.Component
	p.do(tok, "GET /api/v1/components/3506230101000002", "").into(t, &x)
	if x.Location.Distance(at) > 0.01 || x.State != citywarden.Lost || x.Class != "component/0101" {
		t.Errorf("the second: %+v", x)
	}
	for path, want := range map[string]int{
		"/components?q=%E4%BA%8C%E5%8F%B7":          1,
		"/components?department=供水公司":               1,
		"/components?state=removed":                 1,
		"/components?limit=2":                       2,
		"/components/nearby?lat=24.117&lon=117.613": 2,
		fmt.Sprintf("/components/nearby?lat=%.7f&lon=%.7f&crs=gcj02&class=component/0101", gcj.Lat, gcj.Lon): 2,
		"/components/nearby?lat=24.117&lon=117.613&class=component/0137":                                     0,
		"/public/components?lat=24.117&lon=117.613&class=component/0101":                                     2,
		"/public/components?lat=24.117&lon=117.613&class=event/0501":                                         0,
	} {
		var l struct{ Items []citywarden.Nearby }
		if p.do(tok, "GET /api/v1"+path, "").into(t, &l); len(l.Items) != want {
			t.Errorf("%s: %d, want %d", path, len(l.Items), want)
		}
	}
	if a := p.do("", "GET /api/v1/public/components?lat=24.117&lon=117.613&class=component/0101", ""); strings.Contains(a.body, "供水公司") {
		t.Errorf("the public learns whose it is: %s", a.body)
	}
	a := p.do(tok, "GET /api/v1/components/map?west=117.6&south=24.1&east=117.7&north=24.11705&limit=1", "")
	if a.header.Get("Content-Type") != "application/geo+json" || strings.Count(a.body, `"Point"`) != 1 || !strings.Contains(a.body, `"truncated":true`) {
		t.Errorf("the map: %s", a.body)
	}
	for what, says := range map[string]string{
		"GET /api/v1/components/nearby?lat=24.117&lon=117.613&crs=BD-09":        "write WGS84, CGCS2000 or GCJ-02",
		"GET /api/v1/components/nearby?lat=24.117&lon=117.613&within=6000":      "query.within",
		"GET /api/v1/components?state=broken":                                   "query.state",
		"GET /api/v1/duplicates?lat=24.117&lon=217.613&class=event/0501":        "lat is -90 to 90",
		"GET /api/v1/public/components?lat=24.117&lon=1&crs=x&class=event/0501": "write WGS84",
	} {
		if a := p.do(tok, what, ""); a.status != http.StatusBadRequest || !strings.Contains(a.problem(t).Detail, says) {
			t.Errorf("%s: %d %s, want %q", what, a.status, a.body, says)
		}
	}
	if a := p.do(tok, "PUT /api/v1/components/3506230198000001", `{"location":{"lat":24.117,"lon":117.613}}`); a.status != http.StatusBadRequest {
		t.Errorf("a class that there is not: %d %s", a.status, a.body)
	}
	admin := p.as(citywarden.RoleAdmin)
	if a := p.do(admin, "POST /api/v1/devices", `{"id":"d-9","name":"n","model":"smoke-detector","location":{"lat":1,"lon":1},"crs":"BD-09"}`); a.status != http.StatusBadRequest {
		t.Errorf("a device in an unknown system: %d %s", a.status, a.body)
	}
}
