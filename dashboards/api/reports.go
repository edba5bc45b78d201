package api

import (
	"context"
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/danielgtaylor/huma/v2"
)

// Reports takes what people outside of the administration report.
type Reports interface {
	// Report opens a case; secret is the hash of what it may be looked up with.
	Report(ctx context.Context, r citywarden.Report, photos []citywarden.Photo, secret string) (citywarden.Case, error)
	Reported(ctx context.Context, id citywarden.CaseID) (r citywarden.ReportedCase, secret string, err error)
	Reports(ctx context.Context, f citywarden.ReportFilter) ([]citywarden.ReportedCase, error) // the newest first
}

// What one address, and all together, may report on the public page. Behind the
// addresses of mobile networks are many people.
const (
	reportsAtOnce    = 10
	reportsEach      = time.Minute // and then one in that time
	allReportsAtOnce = 200
	allReportsEach   = 5 * time.Second
	lookupsAtOnce    = 60
	lookupsEach      = time.Second
	maxReportPhotos  = 3
)

// paces bound what strangers may do.
type paces struct{ reports, allReports, lookups, apps *pace }

func newPaces() paces {
	return paces{newPace(reportsAtOnce, reportsEach), newPace(allReportsAtOnce, allReportsEach), newPace(lookupsAtOnce, lookupsEach), newPace(usualPerMinute, time.Second)}
}

// slow returns an error that says how long to wait, nil for not at all.
func slow(wait time.Duration) error {
	if wait == 0 {
		return nil
	}
	return &waitError{
		error:  citywarden.Errorf(citywarden.CodeTransient, "too many at once; wait %s and try again", wait.Round(time.Second)),
		status: http.StatusTooManyRequests, after: wait,
	}
}

type reportForm struct {
	Class       citywarden.ClassCode `form:"class" required:"true" maxLength:"32" doc:"One of the classes of GET /api/v1/public/report"`
	Description string               `form:"description" required:"false" maxLength:"4000" doc:"What is the matter; plain text"`
	Lat         string               `form:"lat" required:"false" maxLength:"32" doc:"Latitude, degrees"`
	Lon         string               `form:"lon" required:"false" maxLength:"32" doc:"Longitude, degrees"`
	CRS         string               `form:"crs" required:"false" maxLength:"64" doc:"Coordinate system of the position: WGS84 when missing, CGCS2000 or GCJ-02"`
	Component   string               `form:"component" required:"false" maxLength:"64" doc:"Code of the component that it is about; GET /api/v1/public/components lists those nearby"`
	Address     string               `form:"address" required:"false" maxLength:"300" doc:"Where it is, in words; needed without a position"`
	Name        string               `form:"name" required:"false" maxLength:"100"`
	Phone       string               `form:"phone" required:"false" maxLength:"40" doc:"For questions and the call-back; only who verifies sees it"`
	Photo       []huma.FormFile      `form:"photo" required:"false" contentType:"image/jpeg,image/png,image/webp" doc:"At most 3, of 8 MiB each"`
}

type reportChoices struct {
	Groups    []reportGroup `json:"groups" nullable:"false"`
	MaxPhotos int           `json:"max_photos"`
	MaxPhoto  int           `json:"max_photo_bytes"`
	Map       mapView       `json:"map" doc:"To point at the place; its layers are below /api/v1/public/map/layers/"`
}

// publicLayers are the layers of the map that everybody may see: what anybody
// sees who walks there.
var publicLayers = []string{"streets", "buildings"}

type reportGroup struct {
	Code    string          `json:"code"`
	Name    citywarden.Text `json:"name"`
	Classes []reportClass   `json:"classes" nullable:"false"`
}

type reportClass struct {
	Code citywarden.ClassCode `json:"code"`
	Name citywarden.Text      `json:"name"`
}

type taken struct {
	Number citywarden.CaseID `json:"number" doc:"Of the case"`
	Secret string            `json:"secret" doc:"With which the reporter, and nobody else, can see how far it is; it is not shown again"`
}

type reportState struct {
	Number       citywarden.CaseID   `json:"number"`
	Class        citywarden.Text     `json:"class"`
	Progress     citywarden.Progress `json:"progress"`
	ProgressText citywarden.Text     `json:"progress_text"`
	Department   string              `json:"department,omitempty" doc:"That handles it"`
	Reported     time.Time           `json:"reported"`
	Updated      time.Time           `json:"updated"`
	Deadline     time.Time           `json:"deadline,omitzero" doc:"Until when it shall be handled"`
	Closed       time.Time           `json:"closed,omitzero"`
}

func (s *server) reportRoutes() {
	const tag = "reports"
	handle(s, route{method: "GET", path: "/api/v1/public/report", id: "get-report-form", tag: tag, public: true,
		summary: "What a citizen may report"}, s.reportForm)
	handle(s, route{method: "GET", path: "/api/v1/public/components", id: "list-public-components", tag: tag, public: true,
		summary: "The nearest components of a class, for a report to name one"}, s.publicComponents)
	handle(s, route{method: "POST", path: "/api/v1/public/reports", id: "report-case", tag: tag, public: true, secret: true,
		status: http.StatusCreated, maxBody: maxReportPhotos*citywarden.MaxPhoto + formRoom,
		summary: "Report something, as a citizen (随手拍); a case is opened, which waits to be verified"}, s.report)
	handle(s, route{method: "GET", path: "/api/v1/public/reports/{id}", id: "get-report-state", tag: tag, public: true,
		summary: "How far a reported case is"}, s.reportState)
	handle(s, route{method: "GET", path: "/api/v1/public/map/layers/{name}", id: "get-public-layer", tag: tag, public: true,
		responses: layerResponses("FeatureCollection; properties kind, name and code"), summary: "A layer of the map for citizens as GeoJSON: streets, buildings"}, s.publicLayer)
	handle(s, route{method: "GET", path: "/api/v1/cases/{id}/report", id: "get-report", tag: tag, may: citywarden.MaySeeReporters,
		summary: "What was reported of a case, and by whom"}, s.getReport)
}

func (s *server) citizens() error {
	if s.Citizens {
		return nil
	}
	return citywarden.Errorf(citywarden.CodeNotFound, "reports of citizens are switched off here; reports.citizens in the configuration switches them on")
}

func (s *server) reportForm(context.Context, *struct{}) (*output[reportChoices], error) {
	if err := s.citizens(); err != nil {
		return nil, err
	}
	out := reportChoices{Groups: []reportGroup{}, MaxPhotos: maxReportPhotos, MaxPhoto: citywarden.MaxPhoto, Map: s.area("")}
	out.Map.Layers = slices.DeleteFunc(out.Map.Layers, func(name string) bool { return !slices.Contains(publicLayers, name) })
	at := map[string]int{}
	for _, k := range s.Classes.All() {
		code, name := k.Code.Group()
		i, ok := at[code]
		if !ok {
			i = len(out.Groups)
			at[code] = i
			out.Groups = append(out.Groups, reportGroup{Code: code, Name: name})
		}
		out.Groups[i].Classes = append(out.Groups[i].Classes, reportClass{k.Code, k.Name})
	}
	return outputOf(out), nil
}

func (s *server) publicLayer(ctx context.Context, in *layerInput) (*shapesOutput, error) {
	if err := s.citizens(); err != nil {
		return nil, err
	}
	if !slices.Contains(publicLayers, in.Name) {
		return nil, citywarden.Errorf(citywarden.CodeNotFound, "no layer %q of the map is public; there are %s", in.Name, strings.Join(publicLayers, ", "))
	}
	if err := slow(s.paces.lookups.take(placeOf(requestOf(ctx).address))); err != nil {
		return nil, err
	}
	return s.layer(ctx, in)
}

// publicComponent is what everybody can see of a component.
type publicComponent struct {
	ID       citywarden.ComponentID `json:"id"`
	Name     string                 `json:"name"`
	Distance float64                `json:"distance_m"`
}

func (s *server) publicComponents(ctx context.Context, in *struct {
	PositionQuery
	Class citywarden.ClassCode `query:"class" required:"true" maxLength:"32"`
}) (*listOutput[publicComponent], error) {
	if err := s.citizens(); err != nil {
		return nil, err
	}
	if err := slow(s.paces.lookups.take(placeOf(requestOf(ctx).address))); err != nil {
		return nil, err
	}
	p, err := in.point()
	if err != nil {
		return nil, err
	}
	var out []publicComponent
	if in.Class.Kind() == "component" {
		for _, x := range s.Components.Near(p, in.Class, "", 50, 5) {
			out = append(out, publicComponent{x.ID, x.Name, x.Distance})
		}
	}
	return listOf(out, ""), nil
}

func (s *server) report(ctx context.Context, in *struct {
	RawBody huma.MultipartFormFiles[reportForm]
}) (*created[taken], error) {
	if err := s.citizens(); err != nil {
		return nil, err
	}
	f := in.RawBody.Data()
	r := citywarden.Report{
		Source: citywarden.SourceCitizen, Class: f.Class, Component: citywarden.ComponentID(strings.TrimSpace(f.Component)), Description: strings.TrimSpace(f.Description), Address: strings.TrimSpace(f.Address),
		Reporter: citywarden.Reporter{Name: strings.TrimSpace(f.Name), Phone: strings.TrimSpace(f.Phone)},
	}
	if f.Lat != "" || f.Lon != "" {
		p, err := citywarden.ParsePoint(f.Lat, f.Lon)
		if err != nil {
			return nil, err
		}
		if p, err = citywarden.PointIn(f.CRS, p); err != nil {
			return nil, err
		}
		r.Location = &p
	}
	switch err := r.Check(); {
	case err != nil:
		return nil, err
	case r.Description == "" && len(f.Photo) == 0:
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "say what is the matter, or send a photo")
	case len(f.Photo) > maxReportPhotos:
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "send at most %d photos", maxReportPhotos)
	}
	if err := slow(s.paces.reports.take(placeOf(requestOf(ctx).address))); err != nil {
		return nil, err
	}
	if err := slow(s.paces.allReports.take("")); err != nil {
		return nil, err
	}
	var photos []citywarden.Photo
	for _, file := range f.Photo {
		p, err := s.keep(file)
		if err != nil {
			return nil, err
		}
		photos = append(photos, p)
	}
	secret := newSecret(12)
	c, err := s.Reports.Report(ctx, r, photos, sessionID(secret))
	if err != nil {
		return nil, err
	}
	return &created[taken]{Location: "/api/v1/public/reports/" + string(c.ID), Body: taken{Number: c.ID, Secret: secret}}, nil
}

func (s *server) reportState(ctx context.Context, in *struct {
	CasePath
	Secret string `header:"Report-Secret" maxLength:"64" doc:"The secret that came with the number"`
}) (*output[reportState], error) {
	if err := s.citizens(); err != nil {
		return nil, err
	}
	if err := slow(s.paces.lookups.take(placeOf(requestOf(ctx).address))); err != nil {
		return nil, err
	}
	x, secret, err := s.Reports.Reported(ctx, in.ID)
	if err != nil && citywarden.CodeOf(err) != citywarden.CodeNotFound {
		return nil, err
	}
	// Who does not know the secret shall not learn which numbers there are.
	if subtle.ConstantTimeCompare([]byte(sessionID(in.Secret)), []byte(secret)) != 1 {
		return nil, citywarden.Errorf(citywarden.CodeNotFound, "no report with this number and secret")
	}
	c := x.Now
	return outputOf(reportState{
		Number: c.ID, Class: c.ClassName, Progress: c.Progress(), ProgressText: c.Progress().Text(), Department: c.Department,
		Reported: x.At, Updated: x.Updated, Deadline: c.Deadline, Closed: c.Finished,
	}), nil
}

func (s *server) getReport(ctx context.Context, in *CasePath) (*output[citywarden.Report], error) {
	if _, err := s.seenCase(ctx, in.ID); err != nil {
		return nil, err
	}
	x, _, err := s.Reports.Reported(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return outputOf(x.Report), nil
}
