package api

import (
	"cmp"
	"context"
	"encoding/xml"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/danielgtaylor/huma/v2"
)

// Alarms as CAP 1.2, the Common Alerting Protocol of OASIS. An alarm is a chain of
// messages: an Alert when it is raised, an Update for each change that people
// should know of, a Cancel when it is cleared. Each names those before it.

const (
	capMedia  = "application/cap+xml"
	atomMedia = "application/atom+xml"
	capAround = 0.05           // km around a device
	capLife   = 24 * time.Hour // of a message whose alarm has no deadline
	capMost   = 200            // alarms in the feed
	capScope  = "for the city's own services"
)

type capAlert struct {
	XMLName     xml.Name  `xml:"urn:oasis:names:tc:emergency:cap:1.2 alert"`
	Identifier  string    `xml:"identifier"`
	Sender      string    `xml:"sender"`
	Sent        string    `xml:"sent"`
	Status      string    `xml:"status"`
	Type        string    `xml:"msgType"`
	Scope       string    `xml:"scope"`
	Restriction string    `xml:"restriction"`
	References  string    `xml:"references,omitempty"`
	Incidents   string    `xml:"incidents,omitempty"`
	Info        []capInfo `xml:"info"`
}

type capInfo struct {
	Language    string     `xml:"language"`
	Category    []string   `xml:"category"`
	Event       string     `xml:"event"`
	Response    string     `xml:"responseType"`
	Urgency     string     `xml:"urgency"`
	Severity    string     `xml:"severity"`
	Certainty   string     `xml:"certainty"`
	Codes       []capValue `xml:"eventCode"`
	Effective   string     `xml:"effective"`
	Onset       string     `xml:"onset"`
	Expires     string     `xml:"expires"`
	SenderName  string     `xml:"senderName"`
	Headline    string     `xml:"headline"`
	Description string     `xml:"description,omitempty"`
	Parameters  []capValue `xml:"parameter"`
	Area        capArea    `xml:"area"`
}

type capValue struct {
	Name  string `xml:"valueName"`
	Value string `xml:"value"`
}

type capArea struct {
	Text    string     `xml:"areaDesc"`
	Polygon []string   `xml:"polygon"`
	Circles []string   `xml:"circle"`
	Codes   []capValue `xml:"geocode"`
}

// capMessage is one message of the chain.
type capMessage struct {
	id   string
	kind string // msgType
	sent time.Time
	step citywarden.AlarmStep
}

// capChain returns the messages of an alarm, the oldest first.
func capChain(id citywarden.AlarmID, steps []citywarden.AlarmStep) (out []capMessage) {
	plain := strings.NewReplacer(" ", "_", ",", "_", "<", "_", "&", "_").Replace(string(id))
	for _, s := range steps {
		kind := ""
		switch s.Kind {
		case citywarden.Raised:
			kind = "Alert"
		case citywarden.Escalated, citywarden.Lowered, citywarden.Latched:
			kind = "Update"
		case citywarden.Cleared:
			kind = "Cancel"
		default:
			continue
		}
		sent := s.Logged
		if sent.IsZero() {
			sent = s.At
		}
		out = append(out, capMessage{fmt.Sprintf("%s.%d", plain, len(out)+1), kind, sent, s})
	}
	return out
}

type xmlOutput struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

func xmlBody(media string, v any) (*xmlOutput, error) {
	b, err := xml.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", media, err)
	}
	return &xmlOutput{ContentType: media + "; charset=utf-8", Body: append([]byte(xml.Header), b...)}, nil
}

func (s *server) capRoutes() {
	const tag = "alarms"
	document := func(media string) map[string]*huma.Response {
		return map[string]*huma.Response{"200": {Description: "The document", Content: map[string]*huma.MediaType{media: {Schema: &huma.Schema{Type: "string"}}}}}
	}
	handle(s, route{method: "GET", path: "/api/v1/alarms/{id}/cap", id: "get-alarm-cap", tag: tag, may: citywarden.MayRead, responses: document(capMedia),
		summary: "The newest message of an alarm in CAP 1.2, in Chinese and English"}, s.alarmCAP)
	handle(s, route{method: "GET", path: "/api/v1/alarms/cap", id: "list-alarm-caps", tag: tag, may: citywarden.MayRead, responses: document(atomMedia),
		summary: "Atom feed of the active alarms that are not suppressed, each with its CAP message"}, s.capFeed)
}

func (s *server) alarmCAP(ctx context.Context, in *AlarmPath) (*xmlOutput, error) {
	a, err := s.seenAlarm(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	steps, err := s.Alarms.History(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	chain := capChain(a.ID, steps)
	if len(chain) == 0 {
		return nil, citywarden.Errorf(citywarden.CodeNotFound, "nothing is recorded of how alarm %s was raised", a.ID)
	}
	alert, err := s.capAlert(ctx, a, chain)
	if err != nil {
		return nil, err
	}
	return xmlBody(capMedia, alert)
}

// capTime writes t as CAP wants it: with seconds and a zone, UTC as -00:00.
func (s *server) capTime(t time.Time) string {
	out := t.In(s.zone).Format("2006-01-02T15:04:05-07:00")
	return strings.Replace(out, "+00:00", "-00:00", 1)
}

func (s *server) capAlert(ctx context.Context, a citywarden.Alarm, chain []capMessage) (*capAlert, error) {
	m := chain[len(chain)-1]
	var refs []string
	for _, o := range chain[:len(chain)-1] {
		refs = append(refs, fmt.Sprintf("%s,%s,%s", s.CAPSender, o.id, s.capTime(o.sent)))
	}
	status := "Actual"
	switch {
	case a.Shadow:
		status = "Test"
	case s.Demo:
		status = "Exercise"
	}
	out := &capAlert{
		Identifier: m.id, Sender: s.CAPSender, Sent: s.capTime(m.sent), Status: status, Type: m.kind, Scope: "Restricted", Restriction: capScope,
		References: strings.Join(refs, " "), Incidents: string(a.Case),
	}
	info := capInfo{
		Urgency: "Unknown", Severity: "Unknown", Certainty: "Observed", Response: "Monitor",
		Effective: s.capTime(m.sent), Onset: s.capTime(a.RaisedAt), Expires: s.capTime(m.sent.Add(capLife)), SenderName: "citywarden",
		Parameters: []capValue{{"alarm", string(a.ID)}, {"rule", string(a.Rule)}, {"device", string(a.Device)}},
	}
	switch a.Severity {
	case citywarden.Critical:
		info.Urgency, info.Severity, info.Response = "Immediate", "Severe", "Assess"
	case citywarden.Major:
		info.Urgency, info.Severity, info.Response = "Expected", "Moderate", "Assess"
	case citywarden.Minor, citywarden.Warning:
		info.Urgency, info.Severity = "Future", "Minor"
	}
	if m.kind == "Cancel" {
		info.Urgency, info.Response = "Past", "AllClear"
	}
	var class citywarden.ClassCode
	if a.Case != "" {
		c, err := s.Cases.Case(ctx, a.Case, "", "")
		if err != nil {
			return nil, err
		}
		if class = c.Class; class != "" {
			info.Codes = []capValue{{class.Standard(), string(class)}}
		}
		if c.Deadline.After(m.sent) {
			info.Expires = s.capTime(c.Deadline)
		}
	}
	devices := s.located(a)
	info.Category = categories(s.domain(a.Device), class)
	if info.Category[0] == "Fire" && len(a.Members) < 2 {
		info.Certainty = "Likely" // one detector may err
	}
	info.Area = areaOf(a, devices)
	for _, lang := range []string{"zh", "en"} {
		i := info
		i.Language = map[string]string{"zh": "zh-CN", "en": "en-US"}[lang]
		i.Event = cmp.Or(a.Title.In(lang), string(a.Rule))
		i.Headline = fmt.Sprintf("%s: %s (%s)", a.Severity.Text().In(lang), i.Event, a.Entity)
		for _, o := range slices.Backward(chain) {
			if o.step.Why != nil {
				i.Description = o.step.Why.Summary.In(lang)
				break
			}
		}
		out.Info = append(out.Info, i)
	}
	return out, nil
}

// domain returns the line of business of a device; "" when it is gone.
func (s *server) domain(id citywarden.DeviceID) citywarden.Domain {
	d, err := s.Devices.Get(id)
	if err != nil {
		return ""
	}
	for _, m := range s.Models.All() {
		if m.Name == d.Model {
			return m.Domain
		}
	}
	return ""
}

func categories(d citywarden.Domain, class citywarden.ClassCode) []string {
	switch {
	case d == citywarden.Fire:
		return []string{"Fire"}
	case class == "event/0502": // 燃气管道破裂
		return []string{"Safety", "Infra"}
	case class == "event/0506": // 道路积水
		return []string{"Met", "Infra"}
	case d == citywarden.Parking:
		return []string{"Transport"}
	case d == citywarden.Pipe, d == citywarden.Building:
		return []string{"Infra"}
	}
	return []string{"Other"}
}

// located returns the devices of an alarm that are registered.
func (s *server) located(a citywarden.Alarm) (out []citywarden.Device) {
	ids := append([]citywarden.DeviceID{a.Device}, a.Members...)
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		if d, err := s.Devices.Get(id); err == nil {
			out = append(out, d.Device)
		}
	}
	return out
}

// areaOf returns where the devices are: the polygon around three or more, else a
// circle around each.
func areaOf(a citywarden.Alarm, devices []citywarden.Device) capArea {
	area := capArea{Text: a.Entity}
	var names []string
	var points []citywarden.Point
	for _, d := range devices {
		names = append(names, cmp.Or(d.Name, string(d.ID)))
		if d.Location != nil {
			points = append(points, *d.Location)
		}
		if v := (capValue{"GB/T 30428.1", string(d.Grid)}); d.Grid != "" && !slices.Contains(area.Codes, v) {
			area.Codes = append(area.Codes, v)
		}
	}
	if len(names) > 5 {
		names = append(names[:5], "…")
	}
	if len(names) > 0 {
		area.Text = strings.Join(names, ", ")
	}
	if ring := hull(points); len(ring) > 2 {
		var out []string
		for _, p := range append(ring, ring[0]) {
			out = append(out, fmt.Sprintf("%.6f,%.6f", p.Lat, p.Lon))
		}
		area.Polygon = []string{strings.Join(out, " ")}
		return area
	}
	for _, p := range points {
		area.Circles = append(area.Circles, fmt.Sprintf("%.6f,%.6f %g", p.Lat, p.Lon, capAround))
	}
	return area
}

// hull returns the corners of the smallest convex polygon around points (Andrew's
// monotone chain); fewer than three when they lie in a line.
func hull(points []citywarden.Point) []citywarden.Point {
	points = slices.Clone(points)
	slices.SortFunc(points, func(a, b citywarden.Point) int { return cmp.Or(cmp.Compare(a.Lon, b.Lon), cmp.Compare(a.Lat, b.Lat)) })
	points = slices.Compact(points)
	half := func(in []citywarden.Point) (out []citywarden.Point) {
		for _, p := range in {
			for n := len(out); n > 1 && (out[n-1].Lon-out[n-2].Lon)*(p.Lat-out[n-2].Lat) <= (out[n-1].Lat-out[n-2].Lat)*(p.Lon-out[n-2].Lon); n = len(out) {
				out = out[:n-1]
			}
			out = append(out, p)
		}
		return out[:max(len(out)-1, 0)]
	}
	lower := half(points)
	slices.Reverse(points)
	return append(lower, half(points)...)
}

type atomFeed struct {
	XMLName xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
	ID      string      `xml:"id"`
	Title   string      `xml:"title"`
	Updated string      `xml:"updated"`
	Author  string      `xml:"author>name"`
	Entries []atomEntry `xml:"entry"`
}

type atomEntry struct {
	ID      string   `xml:"id"`
	Title   string   `xml:"title"`
	Updated string   `xml:"updated"`
	Link    atomLink `xml:"link"`
}

type atomLink struct {
	Rel  string `xml:"rel,attr"`
	Type string `xml:"type,attr"`
	Href string `xml:"href,attr"`
}

func (s *server) capFeed(ctx context.Context, _ *struct{}) (*xmlOutput, error) {
	as, _, err := s.Alarms.Alarms(ctx, citywarden.AlarmFilter{
		Area: callerOf(ctx).Area, State: citywarden.AlarmActive, Suppressed: citywarden.SuppressionNone, Page: citywarden.Page{Limit: capMost},
	})
	if err != nil {
		return nil, err
	}
	feed := atomFeed{ID: "urn:citywarden:" + url.PathEscape(s.CAPSender) + ":alarms", Title: "citywarden", Author: s.CAPSender}
	updated := s.started
	for _, a := range as {
		steps, err := s.Alarms.History(ctx, a.ID)
		if err != nil {
			return nil, err
		}
		chain := capChain(a.ID, steps)
		if len(chain) == 0 || a.Shadow {
			continue
		}
		m := chain[len(chain)-1]
		if m.sent.After(updated) {
			updated = m.sent
		}
		feed.Entries = append(feed.Entries, atomEntry{
			ID: "urn:citywarden:" + url.PathEscape(m.id), Title: fmt.Sprintf("%s: %s (%s)", a.Severity.Text(), a.Title, a.Entity), Updated: m.sent.UTC().Format(time.RFC3339),
			Link: atomLink{"alternate", capMedia, "/api/v1/alarms/" + url.PathEscape(string(a.ID)) + "/cap"},
		})
	}
	feed.Updated = updated.UTC().Format(time.RFC3339)
	return xmlBody(atomMedia, feed)
}
