package api

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"math"
	"mime"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// Open311 GeoReport v2 (https://wiki.open311.org/GeoReport_v2). Apps like those
// in WeChat report cases with a key of their own and look up what became of
// them. A service is a class of components or events, a request a case that
// came in this way; no other case is shown.

// Open311 says how this endpoint describes itself.
type Open311 struct {
	Jurisdiction string // its id; "" takes every one
	Contact      string // who may be asked
	KeyService   string // how to get a key
}

const (
	open311Path  = "/open311/v2/"
	open311Spec  = "http://wiki.open311.org/GeoReport_v2"
	open311Body  = 64 << 10 // bytes of a POST
	open311Span  = 90 * 24 * time.Hour
	open311Most  = 1000 // requests in one answer
	xmlMedia     = "text/xml"
	jsonMedia    = "application/json"
	conditionKey = "condition" // attribute that holds the filing condition
)

// geoText is a text that is null in JSON, and an empty element in XML, when it
// is missing.
type geoText string

// MarshalJSON writes the text, or null.
func (t geoText) MarshalJSON() ([]byte, error) {
	if t == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(t))
}

// geoNumber is a number in degrees; nil is missing as in geoText.
type geoNumber struct{ v *float64 }

// MarshalJSON writes the number, or null.
func (n geoNumber) MarshalJSON() ([]byte, error) { return json.Marshal(n.v) }

// MarshalText writes the number, or nothing.
func (n geoNumber) MarshalText() ([]byte, error) {
	if n.v == nil {
		return nil, nil
	}
	return strconv.AppendFloat(nil, *n.v, 'f', -1, 64), nil
}

// geoAnswer is what is written: one document, whose root XML names. JSON leaves
// the names of roots and list elements out (the "Spark" convention).
type geoAnswer struct {
	root string
	xml  any // what stands in the root
	json any
}

type geoEndpoint struct {
	Specification string     `xml:"specification" json:"specification"`
	URL           string     `xml:"url" json:"url"`
	Changeset     string     `xml:"changeset" json:"changeset"`
	Type          string     `xml:"type" json:"type"`
	Formats       geoFormats `xml:"formats" json:"formats"`
}

type geoFormats []string

// MarshalXML writes each format as an element.
func (f geoFormats) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	return e.EncodeElement(struct {
		Format []string `xml:"format"`
	}{f}, start)
}

type geoDiscovery struct {
	Changeset  string        `xml:"changeset" json:"changeset"`
	Contact    string        `xml:"contact" json:"contact"`
	KeyService string        `xml:"key_service" json:"key_service"`
	Endpoints  []geoEndpoint `xml:"endpoints>endpoint" json:"endpoints"`
}

type geoService struct {
	Code        string `xml:"service_code" json:"service_code"`
	Name        string `xml:"service_name" json:"service_name"`
	Description string `xml:"description" json:"description"`
	Metadata    bool   `xml:"metadata" json:"metadata"`
	Type        string `xml:"type" json:"type"`
	Keywords    string `xml:"keywords" json:"keywords"`
	Group       string `xml:"group" json:"group"`
}

type geoDefinition struct {
	Code       string         `xml:"service_code" json:"service_code"`
	Attributes []geoAttribute `xml:"attributes>attribute" json:"attributes"`
}

type geoAttribute struct {
	Variable    bool       `xml:"variable" json:"variable"`
	Code        string     `xml:"code" json:"code"`
	Type        string     `xml:"datatype" json:"datatype"`
	Required    bool       `xml:"required" json:"required"`
	TypeText    geoText    `xml:"datatype_description" json:"datatype_description"`
	Order       int        `xml:"order" json:"order"`
	Description string     `xml:"description" json:"description"`
	Values      []geoValue `xml:"values>value" json:"values"`
}

type geoValue struct {
	Key  string `xml:"key" json:"key"`
	Name string `xml:"name" json:"name"`
}

type geoTaken struct {
	ID      string  `xml:"service_request_id" json:"service_request_id"`
	Notice  geoText `xml:"service_notice" json:"service_notice"`
	Account geoText `xml:"account_id" json:"account_id"`
}

type geoToken struct {
	ID    string `xml:"service_request_id" json:"service_request_id"`
	Token string `xml:"token" json:"token"`
}

type geoRequest struct {
	ID          string    `xml:"service_request_id" json:"service_request_id"`
	Status      string    `xml:"status" json:"status"`
	StatusNotes geoText   `xml:"status_notes" json:"status_notes"`
	Service     string    `xml:"service_name" json:"service_name"`
	Code        string    `xml:"service_code" json:"service_code"`
	Description geoText   `xml:"description" json:"description"`
	Agency      geoText   `xml:"agency_responsible" json:"agency_responsible"`
	Notice      geoText   `xml:"service_notice" json:"service_notice"`
	Requested   geoText   `xml:"requested_datetime" json:"requested_datetime"`
	Updated     geoText   `xml:"updated_datetime" json:"updated_datetime"`
	Expected    geoText   `xml:"expected_datetime" json:"expected_datetime"`
	Address     geoText   `xml:"address" json:"address"`
	AddressID   geoText   `xml:"address_id" json:"address_id"`
	Zipcode     geoText   `xml:"zipcode" json:"zipcode"`
	Lat         geoNumber `xml:"lat" json:"lat"`
	Long        geoNumber `xml:"long" json:"long"`
	Media       geoText   `xml:"media_url" json:"media_url"`
}

type geoError struct {
	Code        int    `xml:"code" json:"code"`
	Description string `xml:"description" json:"description"`
}

// geoErrors are answered together; the status is that of the first.
type geoErrors []geoError

// Error returns the descriptions.
func (e geoErrors) Error() string {
	var all []string
	for _, x := range e {
		all = append(all, x.Description)
	}
	return strings.Join(all, "; ")
}

func geoErrorf(status int, format string, args ...any) error {
	return geoErrors{{status, fmt.Sprintf(format, args...)}}
}

// open311 serves everything below /open311/.
func (s *server) open311(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/open311/"), "v2/")
	format := strings.TrimPrefix(path.Ext(name), ".")
	name = strings.TrimSuffix(name, "."+format)
	w.Header().Set("Cache-Control", "no-store")
	// What is shown is public: pages of other sites may read it.
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
	if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
		w.Header().Set("Access-Control-Allow-Methods", "GET, HEAD, POST")
		w.Header().Set("Access-Control-Allow-Headers", "*")
		w.Header().Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if format != "xml" && format != "json" {
		s.writeGeo(w, r, "xml", http.StatusNotFound, geoAnswer{}, geoErrorf(http.StatusNotFound, "there is nothing at %s; write paths like %sservices.xml or .json", r.URL.Path, open311Path))
		return
	}
	status := http.StatusOK
	a, err := s.open311Answer(w, r, name)
	if err == nil && r.Method == http.MethodPost {
		status = http.StatusCreated
	}
	s.writeGeo(w, r, format, status, a, err)
}

func (s *server) open311Answer(w http.ResponseWriter, r *http.Request, name string) (geoAnswer, error) {
	kind, id, one := strings.Cut(name, "/")
	allowed := []string{http.MethodGet, http.MethodHead}
	if name == "requests" {
		allowed = append(allowed, http.MethodPost)
	}
	if !slices.Contains(allowed, r.Method) {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		return geoAnswer{}, geoErrorf(http.StatusMethodNotAllowed, "%s can't be done here", r.Method)
	}
	if j := r.URL.Query().Get("jurisdiction_id"); j != "" && s.Open311.Jurisdiction != "" && j != s.Open311.Jurisdiction {
		return geoAnswer{}, geoErrorf(http.StatusNotFound, "jurisdiction_id %q was not found; this is %s", j, s.Open311.Jurisdiction)
	}
	switch {
	case name == "discovery":
		return s.geoDiscovery(r), nil
	case name == "services":
		return s.geoServices(r), nil
	case kind == "services" && one:
		return s.geoDefinition(id)
	case name == "requests" && r.Method == http.MethodPost:
		return s.geoPost(w, r)
	case name == "requests":
		return s.geoRequests(r)
	case kind == "requests" && one:
		all, err := s.geoFind(r, citywarden.ReportFilter{Cases: []citywarden.CaseID{citywarden.CaseID(id)}, Limit: 1})
		if err == nil && len(all) == 0 {
			err = geoErrorf(http.StatusNotFound, "service_request_id %q was not found", id)
		}
		return geoList("service_requests", "request", all), err
	case kind == "tokens" && one:
		// The number is known at once, and so is its own token.
		all, err := s.geoFind(r, citywarden.ReportFilter{Cases: []citywarden.CaseID{citywarden.CaseID(id)}, Limit: 1})
		if err == nil && len(all) == 0 {
			err = geoErrorf(http.StatusNotFound, "token %q was not found", id)
		}
		return geoList("service_requests", "request", []geoToken{{id, id}}), err
	}
	return geoAnswer{}, geoErrorf(http.StatusNotFound, "there is nothing at %s", r.URL.Path)
}

// geoList returns items, each in an element, as the content of root.
func geoList[T any](root, element string, items []T) geoAnswer {
	if items == nil {
		items = []T{}
	}
	return geoAnswer{root, elements[T]{element, items}, items}
}

type elements[T any] struct {
	name  string
	items []T
}

// MarshalXML writes each item as an element of that name.
func (l elements[T]) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	if err := e.EncodeToken(start); err != nil {
		return err
	}
	for _, x := range l.items {
		if err := e.EncodeElement(x, xml.StartElement{Name: xml.Name{Local: l.name}}); err != nil {
			return err
		}
	}
	return e.EncodeToken(start.End())
}

// writeGeo answers with a, or with err.
func (s *server) writeGeo(w http.ResponseWriter, r *http.Request, format string, status int, a geoAnswer, err error) {
	if err != nil {
		var list geoErrors
		var wait *waitError
		switch {
		case errors.As(err, &list):
		case errors.As(err, &wait):
			w.Header().Set("Retry-After", wait.seconds())
			list = geoErrors{{wait.status, err.Error()}}
		default:
			p := s.problem(r.Context(), err)
			list = geoErrors{{p.Status, p.Detail}}
		}
		status, a = list[0].Code, geoList("errors", "error", list)
	}
	var b []byte
	if format == "json" {
		b, err = json.Marshal(a.json)
		w.Header().Set("Content-Type", jsonMedia+"; charset=utf-8")
	} else {
		var out strings.Builder
		out.WriteString(xml.Header)
		err = xml.NewEncoder(&out).EncodeElement(a.xml, xml.StartElement{Name: xml.Name{Local: a.root}})
		b = []byte(out.String())
		w.Header().Set("Content-Type", xmlMedia+"; charset=utf-8")
	}
	if err != nil {
		s.log.Error("Open311 answer not written", "path", r.URL.Path, "err", err)
		status, b = http.StatusInternalServerError, nil
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(b) // an error means that the caller is gone
	}
}

func (s *server) geoDiscovery(r *http.Request) geoAnswer {
	scheme, kind := "http", "production"
	if requestOf(r.Context()).secure {
		scheme = "https"
	}
	if s.Demo {
		kind = "test"
	}
	since := s.started.Format(time.RFC3339)
	d := geoDiscovery{
		Changeset: since, Contact: s.Open311.Contact, KeyService: s.Open311.KeyService,
		Endpoints: []geoEndpoint{{open311Spec, scheme + "://" + r.Host + strings.TrimSuffix(open311Path, "/"), since, kind, geoFormats{xmlMedia, jsonMedia}}},
	}
	return geoAnswer{"discovery", d, d}
}

// serviceCode returns C0101 for component/0101 and E0501 for event/0501.
func serviceCode(c citywarden.ClassCode) string {
	kind, digits, _ := strings.Cut(string(c), "/")
	return strings.ToUpper(kind[:min(1, len(kind))]) + digits
}

func (s *server) classOf(serviceCodeWanted string) (citywarden.Class, error) {
	for _, k := range s.Classes.All() {
		if serviceCode(k.Code) == serviceCodeWanted {
			return k, nil
		}
	}
	return citywarden.Class{}, geoErrorf(http.StatusNotFound, "service_code %q was not found", serviceCodeWanted)
}

// langOf returns the language that the caller prefers: "en", or else "zh".
func langOf(r *http.Request) string {
	if strings.HasPrefix(strings.ToLower(r.Header.Get("Accept-Language")), "en") {
		return "en"
	}
	return "zh"
}

func (s *server) geoServices(r *http.Request) geoAnswer {
	lang := langOf(r)
	var all []geoService
	for _, k := range s.Classes.All() {
		_, group := k.Code.Group()
		all = append(all, geoService{
			Code: serviceCode(k.Code), Name: k.Name.In(lang), Description: k.Condition, Metadata: k.Condition != "", Type: "realtime",
			Keywords: strings.Join([]string{k.Name.ZH, k.Name.EN, k.Department}, ","), Group: group.In(lang),
		})
	}
	return geoList("services", "service", all)
}

func (s *server) geoDefinition(code string) (geoAnswer, error) {
	k, err := s.classOf(code)
	if err != nil {
		return geoAnswer{}, err
	}
	d := geoDefinition{Code: code, Attributes: []geoAttribute{}}
	var conditions []geoValue
	for _, r := range k.Rules {
		if r.Condition != "" {
			conditions = append(conditions, geoValue{r.ID, r.Condition})
		}
	}
	if conditions != nil {
		d.Attributes = append(d.Attributes, geoAttribute{
			Variable: true, Code: conditionKey, Type: "singlevaluelist", Order: 1,
			Description: "立案条件 · which condition of the class it meets", Values: conditions,
		})
	}
	return geoAnswer{"service_definition", d, d}, nil
}

// geoKey returns the app that the key belongs to, when it may report now.
func (s *server) geoKey(ctx context.Context, key string) (citywarden.APIKey, error) {
	k, err := s.APIKeys.APIKey(ctx, sessionID(key))
	if citywarden.CodeOf(err) == citywarden.CodeNotFound {
		return k, geoErrorf(http.StatusForbidden, "api_key is missing or wrong; %s", orElse(s.Open311.KeyService, "ask the city for one"))
	}
	if err != nil {
		return k, err
	}
	return k, slow(s.paces.apps.takeAt(k.ID, k.PerMinute, time.Minute/time.Duration(k.PerMinute)))
}

func orElse(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

func (s *server) geoPost(w http.ResponseWriter, r *http.Request) (geoAnswer, error) {
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" || params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8") {
		return geoAnswer{}, geoErrorf(http.StatusBadRequest, "send application/x-www-form-urlencoded; charset=utf-8")
	}
	r.Body = http.MaxBytesReader(w, r.Body, open311Body)
	if err := r.ParseForm(); err != nil {
		return geoAnswer{}, geoErrorf(http.StatusBadRequest, "the form can't be read: %v", err)
	}
	key, err := s.geoKey(r.Context(), r.Form.Get("api_key"))
	if err != nil {
		return geoAnswer{}, err
	}
	if j := r.PostForm.Get("jurisdiction_id"); j != "" && s.Open311.Jurisdiction != "" && j != s.Open311.Jurisdiction {
		return geoAnswer{}, geoErrorf(http.StatusNotFound, "jurisdiction_id %q was not found; this is %s", j, s.Open311.Jurisdiction)
	}
	code := strings.TrimSpace(r.PostForm.Get("service_code"))
	if code == "" {
		return geoAnswer{}, geoErrorf(http.StatusBadRequest, "service_code is missing")
	}
	k, err := s.classOf(code)
	if err != nil {
		return geoAnswer{}, err
	}
	report, err := geoReport(r.PostForm, k)
	if err != nil {
		return geoAnswer{}, err
	}
	report.App = key.Name
	return s.geoTake(r.Context(), report, langOf(r))
}

// geoTake opens a case for report, after it has written down that it will.
func (s *server) geoTake(ctx context.Context, report citywarden.Report, lang string) (geoAnswer, error) {
	e := entryOf(ctx, route{id: "open311-request"})
	e.User, e.Detail = report.App, "service_code="+serviceCode(report.Class)
	id, err := s.Audit.AppendAudit(ctx, e)
	if err != nil {
		return geoAnswer{}, err
	}
	c, err := s.Reports.Report(ctx, report, nil, "")
	if aerr := s.Audit.FinishAudit(context.WithoutCancel(ctx), id, statusAfter(http.StatusCreated, err), nil); aerr != nil {
		s.log.Error("audit entry not finished", "entry", id, "err", aerr)
	}
	if err != nil {
		return geoAnswer{}, err
	}
	notice := citywarden.ProgressReceived.Text().In(lang)
	return geoList("service_requests", "request", []geoTaken{{string(c.ID), geoText(notice), geoText(report.Account)}}), nil
}

var attributeName = regexp.MustCompile(`^attribute\[([^\[\]]*)\](\[\])?$`)

// geoReport reads the form of a POST for a request of class k. An empty
// parameter is one that is not there. All mistakes are told together.
func geoReport(f url.Values, k citywarden.Class) (citywarden.Report, error) {
	get := func(name string) string { return strings.TrimSpace(f.Get(name)) }
	r := citywarden.Report{
		Source: citywarden.SourceApp, Class: k.Code, Description: get("description"), Address: get("address_string"), AddressID: get("address_id"),
		Media: get("media_url"), Account: get("account_id"),
		Reporter: citywarden.Reporter{Name: strings.TrimSpace(get("first_name") + " " + get("last_name")), Phone: get("phone"), Email: get("email")},
	}
	var bad geoErrors
	wrong := func(format string, args ...any) {
		bad = append(bad, geoError{http.StatusBadRequest, fmt.Sprintf(format, args...)})
	}
	if lat, long := get("lat"), get("long"); lat != "" || long != "" {
		p, err := citywarden.ParsePoint(lat, long)
		if err != nil {
			wrong("lat, long: %v", err)
		} else if p, err = citywarden.PointIn(get("crs"), p); err != nil {
			wrong("crs: %v", err)
		}
		r.Location = &p
	}
	if u, err := url.Parse(r.Media); r.Media != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		wrong("media_url %q is no URL", r.Media)
	}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		m := attributeName.FindStringSubmatch(name)
		if m == nil {
			if strings.HasPrefix(name, "attribute") {
				wrong("%q is written wrongly; write attribute[code]=value", name)
			}
			continue
		}
		for _, v := range f[name] {
			rule, known := k.Rule(v)
			switch {
			case v == "":
			case m[1] != conditionKey || k.Condition == "":
				wrong("attribute %q is not in the definition of service %s", m[1], serviceCode(k.Code))
			case !known || rule.Condition == "" || r.Answers != nil:
				wrong("attribute %q takes one of the keys of its definition", m[1])
			default:
				r.Answers, r.FilingRule = map[string]string{conditionKey: rule.Condition}, rule.ID
			}
		}
	}
	if bad != nil {
		return r, bad
	}
	return r, r.Check()
}

func (s *server) geoRequests(r *http.Request) (geoAnswer, error) {
	f, err := s.geoFilter(r.URL.Query(), time.Now())
	if err != nil {
		return geoAnswer{}, err
	}
	all, err := s.geoFind(r, f)
	return geoList("service_requests", "request", all), err
}

// commas splits lists, which may be said several times; empty parts are not there.
func commas(lists []string) (out []string) {
	for p := range strings.SplitSeq(strings.Join(lists, ","), ",") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out
}

// geoFilter reads the parameters of GET requests. A list of numbers overrides
// all others. Without dates it asks for the last 90 days.
func (s *server) geoFilter(q url.Values, now time.Time) (citywarden.ReportFilter, error) {
	var f citywarden.ReportFilter
	for _, id := range commas(q["service_request_id"]) {
		f.Cases = append(f.Cases, citywarden.CaseID(id))
	}
	if len(f.Cases) > open311Most {
		return f, geoErrorf(http.StatusBadRequest, "service_request_id: ask for at most %d", open311Most)
	}
	f.Limit = open311Most
	if f.Cases != nil {
		return f, nil
	}
	for _, code := range commas(q["service_code"]) {
		k, err := s.classOf(code)
		if err != nil {
			return f, err
		}
		f.Classes = append(f.Classes, k.Code)
	}
	open, closed := false, false
	for _, st := range commas(q["status"]) {
		switch st {
		case "open":
			open = true
		case "closed":
			closed = true
		default:
			return f, geoErrorf(http.StatusBadRequest, "status %q: it is open, closed, or both with a comma", st)
		}
	}
	if open != closed {
		f.Open = &open
	}
	for name, to := range map[string]*time.Time{"start_date": &f.From, "end_date": &f.To} {
		v := strings.TrimSpace(q.Get(name))
		if v == "" {
			continue
		}
		t, err := parseGeoTime(v)
		if err != nil {
			return f, geoErrorf(http.StatusBadRequest, "%s %q: write it like 2026-11-23T08:00:00Z or …+08:00, with the zone", name, v)
		}
		*to = t
	}
	switch {
	case f.From.IsZero() && f.To.IsZero():
		f.From = now.Add(-open311Span)
	case f.From.IsZero():
		f.From = f.To.Add(-open311Span)
	case f.To.IsZero():
		f.To = f.From.Add(open311Span)
	case f.To.Before(f.From):
		return f, geoErrorf(http.StatusBadRequest, "end_date lies before start_date")
	case f.To.Sub(f.From) > open311Span:
		return f, geoErrorf(http.StatusBadRequest, "start_date to end_date: ask for at most 90 days")
	}
	if !f.To.IsZero() {
		f.To = f.To.Truncate(time.Second).Add(time.Second) // that second, which requested_datetime says, is in it
	}
	pages := 1
	for _, n := range []struct {
		name string
		to   *int
		most int
	}{{"page_size", &f.Limit, open311Most}, {"page", &pages, math.MaxInt32}} {
		v := strings.TrimSpace(q.Get(n.name))
		if v == "" {
			continue
		}
		i, err := strconv.Atoi(v)
		if err != nil || i < 1 || i > n.most {
			return f, geoErrorf(http.StatusBadRequest, "%s %q: write a number from 1 to %d", n.name, v, n.most)
		}
		*n.to = i
	}
	f.Skip = (pages - 1) * f.Limit
	return f, nil
}

// parseGeoTime reads a moment in the W3C's format, with or without seconds. A +
// that was not escaped in the URL has become a space.
func parseGeoTime(s string) (time.Time, error) {
	s = strings.Replace(s, " ", "+", 1)
	if t, err := time.Parse("2006-01-02T15:04Z07:00", s); err == nil {
		return t, nil
	}
	return time.Parse(time.RFC3339, s)
}

func (s *server) geoFind(r *http.Request, f citywarden.ReportFilter) ([]geoRequest, error) {
	f.ByApp = true
	found, err := s.Reports.Reports(r.Context(), f)
	if err != nil {
		return nil, err
	}
	lang := langOf(r)
	var all []geoRequest
	for _, x := range found {
		all = append(all, s.geoRequest(x, lang))
	}
	return all, nil
}

func (s *server) geoRequest(x citywarden.ReportedCase, lang string) geoRequest {
	c := x.Now
	out := geoRequest{
		ID: string(c.ID), Status: "closed", StatusNotes: geoText(c.Progress().Text().In(lang)), Service: c.ClassName.In(lang), Code: serviceCode(c.Class),
		Description: geoText(x.Description), Agency: geoText(c.Department), Requested: s.geoTime(x.At), Updated: s.geoTime(x.Updated), Expected: s.geoTime(c.Deadline),
		Address: geoText(x.Address), AddressID: geoText(x.AddressID), Media: geoText(x.Media),
	}
	if c.Stage.Open() {
		out.Status = "open"
	} else {
		out.Updated = s.geoTime(c.Finished)
	}
	if x.Location != nil {
		out.Lat, out.Long = geoNumber{&x.Location.Lat}, geoNumber{&x.Location.Lon}
	}
	return out
}

// geoTime returns t in the zone of the people here; missing for none.
func (s *server) geoTime(t time.Time) geoText {
	if t.IsZero() {
		return ""
	}
	return geoText(t.In(s.zone).Format(time.RFC3339))
}
