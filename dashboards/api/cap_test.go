package api

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/citywarden/citywarden"
)

// capRule is one element of CAP-v1.2.xsd: how often it may stand below its parent,
// and what it may hold.
type capRule struct {
	name  string
	least int
	many  bool
	holds string // pattern of the text; "" for elements
}

const capTimes = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[-+]\d\d:\d\d`

// The sequences of CAP-v1.2.xsd, in their order.
var capRules = map[string][]capRule{
	"alert": {
		{"identifier", 1, false, `[^ ,<&]+`}, {"sender", 1, false, `[^ ,<&]+`}, {"sent", 1, false, capTimes}, {"status", 1, false, "Actual|Exercise|System|Test|Draft"},
		{"msgType", 1, false, "Alert|Update|Cancel|Ack|Error"}, {"source", 0, false, ".+"}, {"scope", 1, false, "Public|Restricted|Private"}, {"restriction", 0, false, ".+"},
		{"addresses", 0, false, ".+"}, {"code", 0, true, ".+"}, {"note", 0, false, ".+"}, {"references", 0, false, `([^ ,]+,[^ ,]+,` + capTimes + `( |$))+`}, {"incidents", 0, false, ".+"}, {"info", 0, true, ""},
	},
	"info": {
		{"language", 0, false, "zh-CN|en-US"}, {"category", 1, true, "Geo|Met|Safety|Security|Rescue|Fire|Health|Env|Transport|Infra|CBRNE|Other"}, {"event", 1, false, ".+"},
		{"responseType", 0, true, "Shelter|Evacuate|Prepare|Execute|Avoid|Monitor|Assess|AllClear|None"}, {"urgency", 1, false, "Immediate|Expected|Future|Past|Unknown"},
		{"severity", 1, false, "Extreme|Severe|Moderate|Minor|Unknown"}, {"certainty", 1, false, "Observed|Likely|Possible|Unlikely|Unknown"}, {"audience", 0, false, ".+"}, {"eventCode", 0, true, ""},
		{"effective", 0, false, capTimes}, {"onset", 0, false, capTimes}, {"expires", 0, false, capTimes}, {"senderName", 0, false, ".+"}, {"headline", 0, false, ".+"}, {"description", 0, false, "(?s).+"},
		{"instruction", 0, false, ".+"}, {"web", 0, false, ".+"}, {"contact", 0, false, ".+"}, {"parameter", 0, true, ""}, {"resource", 0, true, ""}, {"area", 0, true, ""},
	},
	"parameter": {{"valueName", 1, false, ".+"}, {"value", 1, false, ".+"}},
	"eventCode": {{"valueName", 1, false, ".+"}, {"value", 1, false, ".+"}},
	"geocode":   {{"valueName", 1, false, ".+"}, {"value", 1, false, ".+"}},
	"area": {
		{"areaDesc", 1, false, ".+"}, {"polygon", 0, true, `(-?\d+\.\d+,-?\d+\.\d+ ){3,}-?\d+\.\d+,-?\d+\.\d+`}, {"circle", 0, true, `-?\d+\.\d+,-?\d+\.\d+ [\d.]+`}, {"geocode", 0, true, ""},
		{"altitude", 0, false, ".+"}, {"ceiling", 0, false, ".+"},
	},
}

type node struct {
	XMLName xml.Name
	Text    string `xml:",chardata"`
	Nodes   []node `xml:",any"`
}

// checkCAP says what of the document the schema does not allow. With
// CITYWARDEN_CAP_XSD naming OASIS' schema it asks xmllint, too.
func checkCAP(t *testing.T, doc string) *node {
	t.Helper()
	var root node
	if err := xml.Unmarshal([]byte(doc), &root); err != nil {
		t.Fatal(err)
	}
	if root.XMLName != (xml.Name{Space: "urn:oasis:names:tc:emergency:cap:1.2", Local: "alert"}) {
		t.Fatalf("root %v", root.XMLName)
	}
	var walk func(n *node)
	walk = func(n *node) {
		rules, at := capRules[n.XMLName.Local], 0
		count := map[string]int{}
		for i := range n.Nodes {
			c := &n.Nodes[i]
			k := slices.IndexFunc(rules, func(r capRule) bool { return r.name == c.XMLName.Local })
			if k < at || c.XMLName.Space != root.XMLName.Space {
				t.Fatalf("%s in %s is unknown or in the wrong place", c.XMLName.Local, n.XMLName.Local)
			}
			at = k
			count[rules[k].name]++
			if rules[k].holds == "" {
				walk(c)
			} else if !regexp.MustCompile(`^(?:` + rules[k].holds + `)$`).MatchString(c.Text) {
				t.Errorf("%s holds %q", c.XMLName.Local, c.Text)
			}
		}
		for _, r := range rules {
			if count[r.name] < r.least || count[r.name] > 1 && !r.many {
				t.Errorf("%s has %d %s", n.XMLName.Local, count[r.name], r.name)
			}
		}
	}
	walk(&root)
	if xsd := os.Getenv("CITYWARDEN_CAP_XSD"); xsd != "" {
		file := filepath.Join(t.TempDir(), "alert.xml")
		if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("xmllint", "--noout", "--schema", xsd, file).CombinedOutput(); err != nil {
			t.Errorf("xmllint: %v %s", err, out)
		}
	}
	return &root
}

// all returns the texts of the elements called name.
func (n *node) all(name string) (out []string) {
	for i := range n.Nodes {
		if n.Nodes[i].XMLName.Local == name {
			out = append(out, n.Nodes[i].Text)
		}
		out = append(out, n.Nodes[i].all(name)...)
	}
	return out
}

func TestCAP(t *testing.T) {
	const id = "fire.smoke:smoke-1:1"
	const path = "GET /api/v1/alarms/" + id + "/cap"
	p := newPlatform(t)
	viewer := p.as(citywarden.RoleViewer)
	step := func(kind citywarden.TransitionKind, after time.Duration, s citywarden.Severity) citywarden.AlarmStep {
		return citywarden.AlarmStep{Kind: kind, Severity: s, At: noon.Add(after), Logged: noon.Add(after), Why: &citywarden.Explanation{Severity: s, Summary: citywarden.Text{ZH: "烟雾 < 1 & 高", EN: "smoke < 1 & high"}}}
	}
	set := func(change func(a *citywarden.Alarm), steps ...citywarden.AlarmStep) {
		a := newCity().alarms[id]
		a.Case, a.Title = "", citywarden.Text{ZH: "烟雾", EN: "Smoke"}
		change(&a)
		p.city.alarms[id] = a
		p.city.steps = steps
	}
	get := func() *node {
		t.Helper()
		a := p.do(viewer, path, "")
		if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/cap+xml; charset=utf-8" {
			t.Fatalf("%d %v %s", a.status, a.header, a.body)
		}
		return checkCAP(t, a.body)
	}
	want := func(n *node, name string, want ...string) {
		t.Helper()
		if got := n.all(name); !slices.Equal(got, want) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}

	set(func(*citywarden.Alarm) {})
	if a := p.do(viewer, path, ""); a.status != http.StatusNotFound {
		t.Errorf("without a history: %d %s", a.status, a.body)
	}

	set(func(*citywarden.Alarm) {}, step(citywarden.Raised, 0, citywarden.Critical), step(citywarden.Acked, time.Minute, citywarden.Critical))
	n := get()
	want(n, "msgType", "Alert")
	want(n, "identifier", id+".1")
	want(n, "sender", "zhangpu.example")
	want(n, "sent", "2026-11-23T12:00:00+08:00")
	want(n, "status", "Actual")
	want(n, "references")
	want(n, "language", "zh-CN", "en-US")
	want(n, "category", "Fire", "Fire")
	want(n, "event", "烟雾", "Smoke")
	want(n, "description", "烟雾 < 1 & 高", "smoke < 1 & high")
	want(n, "urgency", "Immediate", "Immediate")
	want(n, "certainty", "Likely", "Likely") // one detector
	want(n, "expires", "2026-11-24T12:00:00+08:00", "2026-11-24T12:00:00+08:00")
	want(n, "areaDesc", "Hall", "Hall")
	want(n, "circle")

	// Where the devices are: circles, then a polygon; of a case the deadline and the number.
	for i, at := range []citywarden.Point{{Lat: 24.1, Lon: 117.6}, {Lat: 24.1, Lon: 117.61}, {Lat: 24.11, Lon: 117.605}, {Lat: 24.105, Lon: 117.605}} {
		d := p.city.devices["smoke-1"]
		d.ID, d.Location, d.Grid = citywarden.DeviceID(fmt.Sprintf("smoke-%d", i+1)), &at, "350623100001001"
		p.city.devices[d.ID] = d
	}
	p.city.cases["E0501202611230001"].Deadline = noon.Add(2 * time.Hour)
	chain := []citywarden.AlarmStep{step(citywarden.Raised, 0, citywarden.Minor), step(citywarden.Escalated, time.Minute, citywarden.Major)}
	set(func(a *citywarden.Alarm) {
		a.Case, a.Severity, a.Members = "E0501202611230001", citywarden.Major, []citywarden.DeviceID{"smoke-2"}
	}, chain...)
	n = get()
	want(n, "msgType", "Update")
	want(n, "references", "zhangpu.example,"+id+".1,2026-11-23T12:00:00+08:00")
	want(n, "incidents", "E0501202611230001")
	want(n, "expires", "2026-11-23T14:00:00+08:00", "2026-11-23T14:00:00+08:00")
	circles := []string{"24.100000,117.600000 0.05", "24.100000,117.610000 0.05"}
	want(n, "circle", append(circles, circles...)...)
	if codes := n.all("value"); !slices.Contains(codes, "350623100001001") || !slices.Contains(codes, "event/0501") {
		t.Errorf("values %q", codes)
	}

	p.server.zone = time.UTC // and a line of business that has no zone of its own
	set(func(a *citywarden.Alarm) {
		a.State, a.ClearedAt, a.Members = citywarden.AlarmCleared, noon.Add(time.Hour), []citywarden.DeviceID{"smoke-2", "smoke-3", "smoke-4", "gone"}
	}, append(chain, step(citywarden.Cleared, time.Hour, citywarden.Major))...)
	n = get()
	want(n, "msgType", "Cancel")
	want(n, "sent", "2026-11-23T05:00:00-00:00")
	want(n, "references", "zhangpu.example,"+id+".1,2026-11-23T04:00:00-00:00 zhangpu.example,"+id+".2,2026-11-23T04:01:00-00:00")
	want(n, "responseType", "AllClear", "AllClear")
	want(n, "urgency", "Past", "Past")
	want(n, "certainty", "Observed", "Observed")
	ring := "24.100000,117.600000 24.100000,117.610000 24.110000,117.605000 24.100000,117.600000"
	want(n, "polygon", ring, ring)

	p.server.Demo = true
	set(func(*citywarden.Alarm) {}, chain...)
	want(get(), "status", "Exercise")
	set(func(a *citywarden.Alarm) { a.Shadow = true }, chain...)
	want(get(), "status", "Test")
}

func TestCAPFeed(t *testing.T) {
	p := newPlatform(t)
	p.server.started = noon
	p.city.steps = []citywarden.AlarmStep{{Kind: citywarden.Raised, At: noon, Logged: noon.Add(time.Second)}}
	a := p.do(p.as(citywarden.RoleService), "GET /api/v1/alarms/cap", "")
	var feed atomFeed
	if err := xml.Unmarshal([]byte(a.body), &feed); err != nil {
		t.Fatal(err)
	}
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/atom+xml; charset=utf-8" || len(feed.Entries) != 1 || feed.Updated != "2026-11-23T04:00:01Z" {
		t.Fatalf("%d %v\n%s", a.status, a.header, a.body)
	}
	link := feed.Entries[0].Link
	if link.Type != "application/cap+xml" || p.do(p.as(citywarden.RoleService), "GET "+link.Href, "").status != http.StatusOK {
		t.Errorf("the entry leads to %+v", link)
	}
}

func TestHull(t *testing.T) {
	at := func(xy ...float64) (out []citywarden.Point) {
		for i := 0; i < len(xy); i += 2 {
			out = append(out, citywarden.Point{Lon: xy[i], Lat: xy[i+1]})
		}
		return out
	}
	for _, c := range []struct {
		points []citywarden.Point
		want   int
	}{
		{nil, 0}, {at(1, 1), 0}, {at(1, 1, 1, 1), 0}, {at(0, 0, 1, 1), 2}, {at(0, 0, 1, 1, 2, 2), 2}, {at(0, 0, 2, 0, 2, 2, 0, 2, 1, 1, 1, 0), 4}, {at(0, 0, 1, 0, 0, 1), 3},
	} {
		if got := hull(c.points); len(got) != c.want {
			t.Errorf("hull(%v) = %v", c.points, got)
		}
	}
}
