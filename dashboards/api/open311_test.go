package api

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/citywarden/citywarden"
)

const (
	geoXML  = "text/xml; charset=utf-8"
	geoJSON = "application/json; charset=utf-8"
	geoForm = "application/x-www-form-urlencoded; charset=utf-8"
)

// geoPlatform is a platform with the key "demo" for the app "wechat".
func geoPlatform(t testing.TB) *platform {
	p := newPlatform(t)
	if err := p.db.AddAPIKey(t.Context(), NewAPIKey("demo", "wechat", "", 0)); err != nil {
		t.Fatal(err)
	}
	p.server.started = noon
	return p
}

func (p *platform) geo(what string) answer {
	return p.do("", strings.Replace(what, " ", " /open311/v2/", 1), "")
}

func (p *platform) post(format, body string) answer {
	return p.do("", "POST /open311/v2/requests."+format, body, "Content-Type", geoForm)
}

// report posts a good request and returns its number.
func (p *platform) report(more string) string {
	p.t.Helper()
	a := p.post("json", "api_key=demo&service_code=E0501&lat=24.117&long=117.613&description=水管爆了"+more)
	var got []geoTaken
	a.into(p.t, &got)
	if a.status != http.StatusCreated || len(got) != 1 {
		p.t.Fatalf("%d %s", a.status, a.body)
	}
	return got[0].ID
}

func TestOpen311Documents(t *testing.T) {
	p := geoPlatform(t)
	id := p.report("&address_string=东门路口&media_url=https://pictures.example/1.jpg&phone=138&attribute[condition]=1")
	const head = xml.Header
	for _, c := range []struct{ path, media, want string }{
		{"discovery.xml", geoXML, head + `<discovery><changeset>2026-11-23T04:00:00Z</changeset><contact>call 12345</contact><key_service>write to it@zhangpu.example</key_service>` +
			`<endpoints><endpoint><specification>http://wiki.open311.org/GeoReport_v2</specification><url>http://example.com/open311/v2</url><changeset>2026-11-23T04:00:00Z</changeset>` +
			`<type>production</type><formats><format>text/xml</format><format>application/json</format></formats></endpoint></endpoints></discovery>`},
		{"discovery.json", geoJSON, `{"changeset":"2026-11-23T04:00:00Z","contact":"call 12345","key_service":"write to it@zhangpu.example","endpoints":[{"specification":"http://wiki.open311.org/GeoReport_v2",` +
			`"url":"http://example.com/open311/v2","changeset":"2026-11-23T04:00:00Z","type":"production","formats":["text/xml","application/json"]}]}`},
		{"services.xml", geoXML, head + `<services><service><service_code>E0501</service_code><service_name>fire</service_name><description>a &gt; b &amp; c</description><metadata>true</metadata>` +
			`<type>realtime</type><keywords>fire,fire,fire</keywords><group>突发事件</group></service></services>`},
		{"services.json", geoJSON, `[{"service_code":"E0501","service_name":"fire","description":"a \u003e b \u0026 c","metadata":true,"type":"realtime","keywords":"fire,fire,fire","group":"突发事件"}]`},
		{"services/E0501.xml", geoXML, head + `<service_definition><service_code>E0501</service_code><attributes><attribute><variable>true</variable><code>condition</code><datatype>singlevaluelist</datatype>` +
			`<required>false</required><datatype_description></datatype_description><order>1</order><description>立案条件 · which condition of the class it meets</description>` +
			`<values><value><key>1</key><name>a &gt; b &amp; c</name></value><value><key>2</key><name>d</name></value></values></attribute></attributes></service_definition>`},
		{"services/E0501.json", geoJSON, `{"service_code":"E0501","attributes":[{"variable":true,"code":"condition","datatype":"singlevaluelist","required":false,"datatype_description":null,"order":1,` +
			`"description":"立案条件 · which condition of the class it meets","values":[{"key":"1","name":"a \u003e b \u0026 c"},{"key":"2","name":"d"}]}]}`},
		{"requests/" + id + ".xml", geoXML, head + `<service_requests><request><service_request_id>` + id + `</service_request_id><status>open</status><status_notes>已收到，待核实立案</status_notes>` +
			`<service_name>fire</service_name><service_code>E0501</service_code><description>水管爆了</description><agency_responsible></agency_responsible><service_notice></service_notice>` +
			`<requested_datetime>2026-11-23T12:00:00+08:00</requested_datetime><updated_datetime>2026-11-23T12:00:00+08:00</updated_datetime><expected_datetime></expected_datetime>` +
			`<address>东门路口</address><address_id></address_id><zipcode></zipcode><lat>24.117</lat><long>117.613</long><media_url>https://pictures.example/1.jpg</media_url></request></service_requests>`},
		{"requests/" + id + ".json", geoJSON, `[{"service_request_id":"` + id + `","status":"open","status_notes":"已收到，待核实立案","service_name":"fire","service_code":"E0501","description":"水管爆了",` +
			`"agency_responsible":null,"service_notice":null,"requested_datetime":"2026-11-23T12:00:00+08:00","updated_datetime":"2026-11-23T12:00:00+08:00","expected_datetime":null,` +
			`"address":"东门路口","address_id":null,"zipcode":null,"lat":24.117,"long":117.613,"media_url":"https://pictures.example/1.jpg"}]`},
		{"tokens/" + id + ".xml", geoXML, head + `<service_requests><request><service_request_id>` + id + `</service_request_id><token>` + id + `</token></request></service_requests>`},
		{"tokens/" + id + ".json", geoJSON, `[{"service_request_id":"` + id + `","token":"` + id + `"}]`},
	} {
		a := p.geo("GET " + c.path)
		if a.status != http.StatusOK || a.header.Get("Content-Type") != c.media || a.body != c.want || a.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d %s\n%s\nwant\n%s", c.path, a.status, a.header.Get("Content-Type"), a.body, c.want)
		}
		if a := p.geo("HEAD " + c.path); a.status != http.StatusOK || a.body != "" {
			t.Errorf("HEAD %s: %d %q", c.path, a.status, a.body)
		}
	}
	a := p.post("xml", "api_key=demo&service_code=E0501&address_id=7&account_id=9")
	want := head + `<service_requests><request><service_request_id>E0501202611230101</service_request_id><service_notice>已收到，待核实立案</service_notice><account_id>9</account_id></request></service_requests>`
	if a.status != http.StatusCreated || a.body != want || a.header.Get("Content-Type") != geoXML {
		t.Errorf("POST: %d %s", a.status, a.body)
	}
	a = p.post("json", "api_key=demo&service_code=E0501&address_id=7")
	if want := `[{"service_request_id":"E0501202611230102","service_notice":"已收到，待核实立案","account_id":null}]`; a.body != want {
		t.Errorf("POST: %d %s", a.status, a.body)
	}
	if a := p.do("", "GET /open311/v2/requests/"+id+".json", "", "Accept-Language", "en-GB,en"); !strings.Contains(a.body, "received, waits") {
		t.Errorf("in English: %s", a.body)
	}
	if r := p.city.reports[0]; r.App != "wechat" || r.Source != citywarden.SourceApp || r.Answers["condition"] != "a > b & c" || r.Reporter.Phone != "138" {
		t.Errorf("report %+v", r)
	}
	shifted := citywarden.GCJ02.FromWGS84(citywarden.Point{Lat: 24.117, Lon: 117.613})
	p.post("json", fmt.Sprintf("api_key=demo&service_code=E0501&lat=%.9f&long=%.9f&crs=GCJ-02", shifted.Lat, shifted.Lon))
	if at := p.city.reports[len(p.city.reports)-1].Location; at == nil || at.Distance(citywarden.Point{Lat: 24.117, Lon: 117.613}) > 0.01 {
		t.Errorf("from WeChat's map: %v", at)
	}
	// What is not a case of an app is not there for the public.
	if a := p.geo("GET requests/E0501202611230001.json"); a.status != http.StatusNotFound {
		t.Errorf("the case of a sensor: %d %s", a.status, a.body)
	}
}

func TestOpen311Refuses(t *testing.T) {
	p := geoPlatform(t)
	const good = "api_key=demo&service_code=E0501&address_string=x"
	for _, c := range []struct {
		form   string
		status int
		says   []string
	}{
		{"service_code=E0501&address_string=x", 403, []string{"api_key is missing or wrong; write to it@zhangpu.example"}},
		{"api_key=&service_code=E0501&address_string=x", 403, []string{"api_key"}},
		{good + "&lat=24.1&long=117.6&crs=BD-09", 400, []string{"write WGS84, CGCS2000 or GCJ-02"}},
		{"api_key=guess&service_code=E0501&address_string=x", 403, []string{"api_key"}},
		{"api_key=demo&address_string=x", 400, []string{"service_code is missing"}},
		{"api_key=demo&service_code=&address_string=x", 400, []string{"service_code is missing"}},
		{"api_key=demo&service_code=001&address_string=x", 404, []string{`service_code "001" was not found`}},
		{good + "&jurisdiction_id=elsewhere", 404, []string{"jurisdiction_id"}},
		{"api_key=demo&service_code=E0501", 400, []string{"say where"}},
		{"api_key=demo&service_code=E0501&address_string=&lat=&long=", 400, []string{"say where"}},
		{"api_key=demo&service_code=E0501&lat=24.1", 400, []string{"decimal degrees"}},
		{"api_key=demo&service_code=E0501&lat=117.6&long=24.1", 400, []string{"-90 to 90"}},
		{"api_key=demo&service_code=E0501&lat=NaN&long=24.1", 400, []string{"-90 to 90"}},
		{"api_key=demo&service_code=E0501&lat=0&long=0", 400, []string{"0, 0"}},
		{good + "&description=" + url.QueryEscape("<b>x</b>"), 400, []string{"HTML"}},
		{good + "&description=" + strings.Repeat("x", 4001), 400, []string{"4000"}},
		{good + "&description=%FF", 400, []string{"UTF-8"}},
		{good + "&media_url=javascript:alert(1)", 400, []string{"media_url"}},
		{good + "&attribute[colour]=red", 400, []string{`attribute "colour"`}},
		{good + "&attribute[condition]=3", 400, []string{`attribute "condition"`}},
		{good + "&attribute[condition][]=1&attribute[condition][]=1", 400, []string{`attribute "condition"`}},
		{good + "&attribute[=1", 400, []string{"written wrongly"}},
		{good + "&lat=x&long=y&media_url=z&attribute[q]=1", 400, []string{"decimal degrees", "media_url", `attribute "q"`}},
		{good + "&description=%zz", 400, []string{"can't be read"}},
		{good + "&description=" + strings.Repeat("x", open311Body), 400, []string{"too large"}},
	} {
		a := p.post("json", c.form)
		var list []geoError
		a.into(t, &list)
		if a.status != c.status || len(list) != len(c.says) || a.header.Get("Content-Type") != geoJSON {
			t.Errorf("%.80s: %d %s", c.form, a.status, a.body)
			continue
		}
		for i, e := range list {
			if e.Code != c.status || !strings.Contains(e.Description, c.says[i]) {
				t.Errorf("%.80s: error %+v, want %q", c.form, e, c.says[i])
			}
		}
		var doc struct {
			XMLName xml.Name   `xml:"errors"`
			Errors  []geoError `xml:"error"`
		}
		if a := p.post("xml", c.form); a.status != c.status || a.header.Get("Content-Type") != geoXML || xml.Unmarshal([]byte(a.body), &doc) != nil || len(doc.Errors) != len(list) || doc.Errors[0].Code != c.status {
			t.Errorf("%.80s in XML: %d %s", c.form, a.status, a.body)
		}
	}
	if n := len(p.city.reports); n != 0 {
		t.Fatalf("%d cases were opened", n)
	}
	// An empty parameter is one that is not there.
	if a := p.post("json", good+"&lat=&long=&email=&media_url=&attribute[condition]=&attribute[x]=&jurisdiction_id=&device_id=7"); a.status != http.StatusCreated {
		t.Errorf("empty parameters: %d %s", a.status, a.body)
	}
	for _, c := range []struct{ path, allow string }{{"requests.json", "GET, HEAD, POST"}, {"services.json", "GET, HEAD"}} {
		if a := p.geo("DELETE " + c.path); a.header.Get("Allow") != c.allow {
			t.Errorf("%s allows %q", c.path, a.header.Get("Allow"))
		}
	}
	// A page of another site asks before it posts with headers of its own.
	asks := p.do("", "OPTIONS /open311/v2/requests.json", "", "Origin", "https://app.example", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-requested-with")
	if h := asks.header; asks.status != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Methods") != "GET, HEAD, POST" || h.Get("Access-Control-Allow-Headers") != "*" {
		t.Errorf("preflight: %d %v", asks.status, h)
	}
	for _, c := range []struct {
		what, media string
		status      int
	}{
		{"POST /open311/v2/requests.json", "application/json", 400},
		{"POST /open311/v2/requests.json", "application/x-www-form-urlencoded; charset=gbk", 400},
		{"POST /open311/v2/services.json", geoForm, 405},
		{"DELETE /open311/v2/requests.json", geoForm, 405},
		{"GET /open311/v2/services", "", 404},
		{"GET /open311/v2/services.html", "", 404},
		{"GET /open311/v2/services/.json", "", 404},
		{"GET /open311/v2/services/E9999.json", "", 404},
		{"GET /open311/v2/requests/1.xml", "", 404},
		{"GET /open311/v2/tokens/1.json", "", 404},
		{"GET /open311/v2/nothing.json", "", 404},
		{"GET /open311/v2/services.json?jurisdiction_id=elsewhere", "", 404},
		{"GET /open311/v2/services.json?jurisdiction_id=zhangpu.gov.cn", "", 200},
		{"GET /open311/v2/services.json?jurisdiction_id=", "", 200},
		{"GET /open311/discovery.json", "", 200},
		{"OPTIONS /open311/v2/services.json", "", 405},
	} {
		if a := p.do("", c.what, "", "Content-Type", c.media); a.status != c.status {
			t.Errorf("%s %s: %d %s", c.what, c.media, a.status, a.body)
		}
	}
}

func TestOpen311Lists(t *testing.T) {
	p := geoPlatform(t)
	var ids []string
	now := time.Now().UTC().Truncate(time.Second)
	ages := []time.Duration{0, 24 * time.Hour, 89 * 24 * time.Hour, 91 * 24 * time.Hour}
	for i, age := range ages {
		ids = append(ids, p.report(""))
		p.city.reports[i].At = now.Add(-age - time.Minute)
	}
	p.city.cases[citywarden.CaseID(ids[1])].Stage = citywarden.Closed
	day := func(age int) string { return url.QueryEscape(now.AddDate(0, 0, -age).Format(time.RFC3339)) }
	for _, c := range []struct {
		query  string
		status int
		want   []int // index in ids, the newest first
	}{
		{"", 200, []int{0, 1, 2}},
		{"start_date=&status=&service_code=&service_request_id=", 200, []int{0, 1, 2}},
		{"status=open", 200, []int{0, 2}},
		{"status=closed", 200, []int{1}},
		{"status=open,closed", 200, []int{0, 1, 2}},
		{"status=open&status=closed", 200, []int{0, 1, 2}}, // may be said several times
		{"status=done", 400, nil},
		{"page_size=2", 200, []int{1, 2}},
		{"page_size=2&page=2", 200, []int{0}},
		{"page=2", 200, nil},
		{"page=0", 400, nil},
		{"page=99999999999999999999", 400, nil},
		{"page_size=1001", 400, nil},
		{"page_size=many", 400, nil},
		{"service_code=E0501", 200, []int{0, 1, 2}},
		{"service_code=E0501,E9999", 404, nil},
		{"service_code=E0501&service_code=E9999", 404, nil},
		{"end_date=" + url.QueryEscape(now.Add(-time.Minute).Format(time.RFC3339)), 200, []int{0, 1, 2}}, // that second is in it
		{"start_date=" + day(95), 200, []int{2, 3}},                                                      // 90 days from there
		{"end_date=" + day(1), 200, []int{1, 2}},                                                         // 90 days to there
		{"start_date=" + day(2) + "&end_date=" + day(1), 200, []int{1}},
		{"start_date=" + day(1) + "&end_date=" + day(2), 400, nil},
		{"start_date=" + day(95) + "&end_date=" + day(1), 400, nil},
		{"start_date=2026-11-23", 400, nil},
		{"start_date=2026-11-23T08:00:00", 400, nil}, // no zone
		{"start_date=2026-11-23T08:00:00%2B08:00", 200, nil},
		{"start_date=2026-11-23T08:00:00+08:00", 200, nil}, // the + is not escaped
		{"start_date=2026-11-23T08:00Z", 200, nil},
		{"service_request_id=" + ids[3] + ",%20" + ids[0] + ",1", 200, []int{0, 3}},
		{"service_request_id=" + ids[3] + "&status=closed&start_date=nonsense&service_code=E9999", 200, []int{3}}, // overrides all others
		{"service_request_id=" + strings.Repeat("1,", 1001), 400, nil},
	} {
		a := p.geo("GET requests.json?" + c.query)
		if a.status != c.status {
			t.Errorf("%.100s: %d %s", c.query, a.status, a.body)
			continue
		}
		if c.status != 200 || strings.HasPrefix(c.query, "start_date=2026-11-23") {
			continue
		}
		var got []geoTaken // the number is all that matters
		a.into(t, &got)
		var have, want []string
		for _, r := range got {
			have = append(have, r.ID)
		}
		for i := len(ids) - 1; i >= 0; i-- { // the fake lists what was added last first
			for _, j := range c.want {
				if i == j {
					want = append(want, ids[i])
				}
			}
		}
		if fmt.Sprint(have) != fmt.Sprint(want) {
			t.Errorf("%.100s: %v, want %v", c.query, have, want)
		}
	}
	if a := p.geo("GET requests.json?status=closed&service_code=E0501&end_date=" + day(80)); a.body != "[]" {
		t.Errorf("nothing found: %s", a.body)
	}
	if a := p.geo("GET requests.xml?status=closed&end_date=" + day(80)); a.body != xml.Header+"<service_requests></service_requests>" {
		t.Errorf("nothing found: %s", a.body)
	}
}

func TestOpen311Paces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := geoPlatform(t)
		if err := p.db.AddAPIKey(t.Context(), NewAPIKey("slow", "slow", "", 2)); err != nil {
			t.Fatal(err)
		}
		last := answer{}
		for range 3 {
			last = p.post("json", "api_key=slow&service_code=E0501&address_string=x")
		}
		if last.status != http.StatusTooManyRequests || last.header.Get("Retry-After") != "30" || !strings.Contains(last.body, `"code":429`) {
			t.Errorf("the third in a minute: %d %v %s", last.status, last.header, last.body)
		}
		p.report("") // another app has its own pace
		time.Sleep(30 * time.Second)
		if a := p.post("json", "api_key=slow&service_code=E0501&address_string=x"); a.status != http.StatusCreated {
			t.Errorf("later: %d %s", a.status, a.body)
		}
	})
}

func TestAPIKeys(t *testing.T) {
	p := newPlatform(t)
	admin := p.as(citywarden.RoleAdmin)
	a := p.do(admin, "POST /api/v1/api-keys", `{"name":"wechat","per_minute":5}`)
	var got issuedAPIKey
	a.into(t, &got)
	if a.status != http.StatusCreated || len(got.Key) != 32 || got.App.PerMinute != 5 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := p.do(admin, "POST /api/v1/api-keys", `{"name":"wechat"}`); a.status != http.StatusConflict {
		t.Errorf("again: %d %s", a.status, a.body)
	}
	if a := p.do(admin, "POST /api/v1/api-keys", `{"name":" "}`); a.status != http.StatusBadRequest {
		t.Errorf("without a name: %d %s", a.status, a.body)
	}
	if a := p.do(admin, "GET /api/v1/api-keys", ""); strings.Contains(a.body, got.Key) || !strings.Contains(a.body, `"wechat"`) {
		t.Errorf("list: %s", a.body)
	}
	form := "api_key=" + got.Key + "&service_code=E0501&address_string=x"
	if a := p.post("json", form); a.status != http.StatusCreated {
		t.Errorf("with the key: %d %s", a.status, a.body)
	}
	var log struct{ Items []citywarden.AuditEntry }
	p.do(admin, "GET /api/v1/audit?user=wechat", "").into(t, &log)
	if len(log.Items) != 1 || log.Items[0].Action != "open311-request" || log.Items[0].Status != http.StatusCreated || strings.Contains(log.Items[0].Detail, got.Key) {
		t.Errorf("audit %+v", log.Items)
	}
	if a := p.do(admin, "DELETE /api/v1/api-keys/wechat", ""); a.status != http.StatusNoContent {
		t.Errorf("revoke: %d %s", a.status, a.body)
	}
	if a := p.post("json", form); a.status != http.StatusForbidden {
		t.Errorf("with a revoked key: %d %s", a.status, a.body)
	}
}

func FuzzOpen311Form(f *testing.F) {
	f.Add("lat=24.117&long=117.613&description=x&attribute[condition]=1")
	f.Add("attribute[condition][]=1&media_url=https://x/y&first_name=a&last_name=b")
	f.Add("attribute[[=&lat=1e400&long=&address_string=%00")
	class := citywarden.Class{Code: "event/0501", Condition: "c"}
	f.Fuzz(func(t *testing.T, body string) {
		form, err := url.ParseQuery(body)
		if err != nil {
			return
		}
		r, err := geoReport(form, class)
		if err != nil {
			if citywarden.CodeOf(err) != citywarden.CodeInvalid {
				var list geoErrors
				if b, jerr := json.Marshal(err); jerr != nil || json.Unmarshal(b, &list) != nil || len(list) == 0 || list[0].Code != 400 {
					t.Errorf("%q: %v is no error of Open311", body, err)
				}
			}
			return
		}
		if r.Location == nil && r.Address == "" && r.AddressID == "" || r.Location != nil && r.Location.Check() != nil || !utf8.ValidString(r.Description) || len(r.Answers) > 1 {
			t.Errorf("%q was taken as %+v", body, r)
		}
	})
}
