package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/danielgtaylor/huma/v2"
)

// DeviceReader looks devices up; all of its methods answer from memory.
type DeviceReader interface {
	Get(id citywarden.DeviceID) (citywarden.DeviceView, error)
	Device(id citywarden.DeviceID) (*citywarden.Device, *citywarden.Model, error)
	AttributeStates(id citywarden.DeviceID) ([]citywarden.AttributeState, error)
	List(f citywarden.DeviceFilter) (page []citywarden.DeviceView, next string, err error)
	Summary(citywarden.AreaCode) map[citywarden.Status]int
}

// DeviceWriter changes devices.
type DeviceWriter interface {
	Create(ctx context.Context, d citywarden.Device) (citywarden.Device, error)
	Update(ctx context.Context, d citywarden.Device) (citywarden.Device, error)
	Delete(ctx context.Context, id citywarden.DeviceID) error
	// Alter changes a device as f says; nothing when f fails.
	Alter(ctx context.Context, id citywarden.DeviceID, f func(*citywarden.Device) error) (citywarden.Device, error)
}

// DeviceSecrets changes what devices are known by, and lists it without the secrets.
type DeviceSecrets interface {
	Issue(ctx context.Context, id citywarden.DeviceID, q citywarden.SecretRequest) (string, error)
	Revoke(ctx context.Context, id citywarden.DeviceID) error
	Credentials(id citywarden.DeviceID) ([]citywarden.DeviceCredential, error)
}

// DeviceClaims places devices that said that they may be claimed.
type DeviceClaims interface {
	// Claim places a device for who knows the secret that it announced: CodeUnauthenticated
	// when it is another, other codes for what else stands against it.
	Claim(ctx context.Context, id citywarden.DeviceID, q citywarden.Claim) (citywarden.Device, error)
}

// Devices are the registered devices.
type Devices interface {
	DeviceReader
	DeviceWriter
	DeviceSecrets
	DeviceClaims
}

// DeviceFiles reads and writes devices as CSV. Import returns an error only
// when nothing could be read; what is wrong with a line stands in the report.
type DeviceFiles interface {
	Import(ctx context.Context, r io.Reader) (ImportReport, error)
	Export(ctx context.Context, w io.Writer, area citywarden.AreaCode) error
}

// ImportReport says what became of each line of a CSV file.
type ImportReport struct {
	Created int          `json:"created"`
	Updated int          `json:"updated"`
	Failed  int          `json:"failed"`
	Lines   []ImportLine `json:"lines" nullable:"false"`
}

// ImportLine is one line of an ImportReport.
type ImportLine struct {
	Line    int                 `json:"line" doc:"Number of the line in the file, from 1"`
	ID      citywarden.DeviceID `json:"id"`
	OK      bool                `json:"ok"`
	Error   string              `json:"error,omitempty"`
	Warning string              `json:"warning,omitempty" doc:"It was taken, but perhaps is not what was meant"`
}

// Models are the device models.
type Models interface {
	All() []citywarden.Model
}

// deviceBody is a device as people write it. What the platform adds may stand
// there too and is ignored, so that a device that was read can be changed and
// written back.
type deviceBody struct {
	ID         citywarden.DeviceID    `json:"id,omitempty" doc:"1 to 64 letters, digits, '.', '_' and '-'"`
	Name       string                 `json:"name" maxLength:"200"`
	Model      citywarden.ModelName   `json:"model" maxLength:"64"`
	Attributes map[string]any         `json:"attributes,omitempty" doc:"Texts, numbers and bools, as the model declares them"`
	Location   *citywarden.Point      `json:"location,omitempty" doc:"Left out: that of the component"`
	CRS        string                 `json:"crs,omitempty" maxLength:"64" doc:"Of location: WGS84 (when left out), CGCS2000 or GCJ-02"`
	Adjacent   []citywarden.DeviceID  `json:"adjacent,omitempty" nullable:"false" maxItems:"64" doc:"Neighbours"`
	Component  citywarden.ComponentID `json:"component,omitempty" maxLength:"64" doc:"Code of the component that it is attached to"`
	Disabled   bool                   `json:"disabled,omitempty" doc:"Its messages are refused"`

	Grid      citywarden.GridCode                         `json:"grid,omitempty" readOnly:"true"`
	Created   time.Time                                   `json:"created,omitzero" readOnly:"true"`
	Updated   time.Time                                   `json:"updated,omitzero" readOnly:"true"`
	Status    citywarden.Status                           `json:"status,omitempty" readOnly:"true"`
	LastSeen  time.Time                                   `json:"last_seen,omitzero" readOnly:"true"`
	Left      bool                                        `json:"left,omitempty" readOnly:"true"`
	Reason    citywarden.SilentReason                     `json:"reason,omitempty" readOnly:"true"`
	Connected bool                                        `json:"connected,omitempty" readOnly:"true"`
	Latest    map[citywarden.MetricName]citywarden.Latest `json:"latest,omitempty" readOnly:"true"`
	Client    map[string]any                              `json:"client,omitempty" readOnly:"true"`
	Alarm     string                                      `json:"alarm,omitempty" readOnly:"true"`

	ClaimableUntil time.Time `json:"claimable_until,omitzero" readOnly:"true"`
}

func (b *deviceBody) device() (citywarden.Device, error) {
	d := citywarden.Device{
		ID: b.ID, Name: b.Name, Model: b.Model, Attributes: b.Attributes, Adjacent: b.Adjacent, Component: b.Component, Disabled: b.Disabled,
	}
	if b.Location == nil {
		return d, nil
	}
	p, err := citywarden.PointIn(b.CRS, *b.Location)
	d.Location = &p
	return d, err
}

// DevicePath holds the path parameter of one device.
type DevicePath struct {
	ID citywarden.DeviceID `path:"id" maxLength:"64"`
}

func (p DevicePath) state(_ context.Context, s *server) (any, error) {
	d, _, err := s.Devices.Device(p.ID)
	return d, err
}

func (s *server) deviceRoutes() {
	const tag = "devices"
	csv := map[string]*huma.MediaType{"text/csv": {Schema: &huma.Schema{Type: "string"}}}
	handle(s, route{method: "GET", path: "/api/v1/devices", id: "list-devices", tag: tag, may: citywarden.MayRead,
		summary: "Devices with presence, latest values and worst alarm"}, s.listDevices)
	handle(s, route{method: "POST", path: "/api/v1/devices", id: "create-device", tag: tag, may: citywarden.MayWriteDevices, status: http.StatusCreated,
		summary: "Register a device"}, s.createDevice)
	handle(s, route{method: "GET", path: "/api/v1/devices/{id}", id: "get-device", tag: tag, may: citywarden.MayRead,
		summary: "One device"}, s.getDevice)
	handle(s, route{method: "PUT", path: "/api/v1/devices/{id}", id: "update-device", tag: tag, may: citywarden.MayWriteDevices,
		summary: "Change a device: everything is replaced by what is sent"}, s.updateDevice)
	handle(s, route{method: "DELETE", path: "/api/v1/devices/{id}", id: "delete-device", tag: tag, may: citywarden.MayWriteDevices, status: http.StatusNoContent,
		summary: "Delete a device and its credentials"}, s.deleteDevice)
	handle(s, route{method: "POST", path: "/api/v1/devices/{id}/disable", id: "disable-device", tag: tag, may: citywarden.MayWriteDevices,
		summary: "Refuse what a device sends: its sessions end at once, and its credentials count no more until it is enabled"}, s.disableDevice(true))
	handle(s, route{method: "POST", path: "/api/v1/devices/{id}/enable", id: "enable-device", tag: tag, may: citywarden.MayWriteDevices,
		summary: "Let a device that was disabled send again"}, s.disableDevice(false))
	handle(s, route{method: "POST", path: "/api/v1/devices/{id}/claim", id: "claim-device", tag: tag, may: citywarden.MayClaimDevices, secret: true,
		summary: "Say where a device is that announced the secret which is given here: in the caller's area, and once"}, s.claimDevice)
	handle(s, route{method: "POST", path: "/api/v1/devices/{id}/credentials", id: "create-credentials", tag: tag, may: citywarden.MayWriteDevices, status: http.StatusCreated, secret: true,
		summary: "Give a device a new token, a user name and password of MQTT, a certificate, or a pre-shared key of DTLS; a secret is shown once, and what the device had before ends, at once or after the overlap"}, s.createCredentials)
	handle(s, route{method: "GET", path: "/api/v1/devices/{id}/credentials", id: "list-credentials", tag: tag, may: citywarden.MayWriteDevices,
		summary: "What a device is known by, without the secrets"}, s.listCredentials)
	handle(s, route{method: "DELETE", path: "/api/v1/devices/{id}/credentials", id: "revoke-credentials", tag: tag, may: citywarden.MayWriteDevices, status: http.StatusNoContent,
		summary: "Take away what a device is known by: its sessions end at once"}, s.revokeCredentials)
	handle(s, route{method: "POST", path: "/api/v1/devices/import", id: "import-devices", tag: tag, may: citywarden.MayWriteDevices, maxBody: 32 << 20,
		summary: "Register and change devices from CSV: id,name,model,lat,lon, optionally crs, component, token or x509, and attr.NAME"}, s.importDevices)
	handle(s, route{method: "GET", path: "/api/v1/devices/export", id: "export-devices", tag: tag, may: citywarden.MayRead,
		responses: map[string]*huma.Response{"200": {Description: "CSV that the import reads", Content: csv}},
		summary:   "All devices as CSV, without tokens"}, s.exportDevices)
	handle(s, route{method: "GET", path: "/api/v1/devices/{id}/latest", id: "get-latest", tag: tag, may: citywarden.MayRead,
		summary: "The newest reading of every metric"}, s.latest)
	handle(s, route{method: "GET", path: "/api/v1/devices/{id}/attributes", id: "list-attributes", tag: tag, may: citywarden.MayRead,
		summary: "All attributes of a device: what is set, what it reported, and whether the two agree"}, s.listAttributes)
	handle(s, route{method: "GET", path: "/api/v1/devices/{id}/series", id: "get-series", tag: tag, may: citywarden.MayRead,
		summary: "Readings of one metric over time; raw points when every is left out"}, s.series)
	handle(s, route{method: "GET", path: "/api/v1/models", id: "list-models", tag: tag, may: citywarden.MayRead,
		summary: "All device models"}, func(context.Context, *struct{}) (*listOutput[citywarden.Model], error) {
		return listOf(s.Models.All(), ""), nil
	})
}

func (s *server) listDevices(ctx context.Context, in *struct {
	Paging
	Model  citywarden.ModelName `query:"model"`
	Domain citywarden.Domain    `query:"domain"`
	Grid   citywarden.GridCode  `query:"grid"`
	Search string               `query:"q" maxLength:"100" doc:"Part of the id or name"`
	Status citywarden.Status    `query:"status"`

	Clock citywarden.ClockState `query:"clock" enum:"unset,ahead,behind,drifting,good" doc:"Only those whose clock is like that"`

	Component citywarden.ComponentID `query:"component" maxLength:"64" doc:"Only those that are attached to it"`
}) (*listOutput[citywarden.DeviceView], error) {
	ds, next, err := s.Devices.List(citywarden.DeviceFilter{Model: in.Model, Domain: in.Domain, Grid: in.Grid, Area: callerOf(ctx).Area, Search: in.Search, Status: in.Status, Clock: in.Clock, Component: in.Component, Page: in.page()})
	if err == nil && len(ds) == 0 && in.Model != "" {
		err = s.isModel(in.Model)
	}
	if err != nil {
		return nil, err
	}
	return listOf(ds, next), nil
}

// isModel returns CodeInvalid when there is no model of that name, nor a device
// of one.
func (s *server) isModel(name citywarden.ModelName) error {
	var names []string
	for _, m := range s.Models.All() {
		names = append(names, string(m.Name))
	}
	if slices.Contains(names, string(name)) {
		return nil
	}
	ds, _, err := s.Devices.List(citywarden.DeviceFilter{Model: name, Page: citywarden.Page{Limit: 1}})
	if err != nil || len(ds) > 0 {
		return err
	}
	return citywarden.Errorf(citywarden.CodeInvalid, "no model %q%s", name, citywarden.DidYouMean(string(name), names))
}

func (s *server) getDevice(ctx context.Context, in *DevicePath) (*output[citywarden.DeviceView], error) {
	if _, _, err := s.seenDevice(ctx, in.ID); err != nil {
		return nil, err
	}
	d, err := s.Devices.Get(in.ID)
	if err != nil {
		return nil, err
	}
	return outputOf(d), nil
}

func (s *server) createDevice(ctx context.Context, in *struct{ Body deviceBody }) (*created[citywarden.DeviceView], error) {
	d, err := in.Body.device()
	if err != nil {
		return nil, err
	}
	if d, err = s.Devices.Create(ctx, d); err != nil {
		return nil, err
	}
	v, err := s.Devices.Get(d.ID)
	if err != nil {
		return nil, err
	}
	return &created[citywarden.DeviceView]{Location: "/api/v1/devices/" + url.PathEscape(string(d.ID)), Body: v}, nil
}

func (s *server) updateDevice(ctx context.Context, in *struct {
	DevicePath
	Body deviceBody
}) (*output[citywarden.DeviceView], error) {
	d, err := in.Body.device()
	if err != nil {
		return nil, err
	}
	if d.ID != "" && d.ID != in.ID {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "the id of device %s can't be changed to %s", in.ID, d.ID)
	}
	d.ID = in.ID
	if _, err := s.Devices.Update(ctx, d); err != nil {
		return nil, err
	}
	return s.getDevice(ctx, &in.DevicePath)
}

func (s *server) disableDevice(disabled bool) func(context.Context, *DevicePath) (*output[citywarden.DeviceView], error) {
	return func(ctx context.Context, in *DevicePath) (*output[citywarden.DeviceView], error) {
		if _, err := s.Devices.Alter(ctx, in.ID, func(d *citywarden.Device) error { d.Disabled = disabled; return nil }); err != nil {
			return nil, err
		}
		return s.getDevice(ctx, in)
	}
}

func (s *server) deleteDevice(ctx context.Context, in *DevicePath) (*struct{}, error) {
	return nil, s.Devices.Delete(ctx, in.ID)
}

// The wrong secrets that may be tried in a minute, see limiter.
const (
	claimsOfUser   = 5
	claimsOfDevice = 20 // by several users: one alone keeps nobody out
)

func (s *server) claimDevice(ctx context.Context, in *struct {
	DevicePath
	Body struct {
		Secret    string                 `json:"secret,omitempty" maxLength:"128" doc:"That the device announced as secretKey; empty when it announced none"`
		Name      string                 `json:"name,omitempty" maxLength:"200" doc:"For people; left out: the one that it has"`
		Location  *citywarden.Point      `json:"location,omitempty" doc:"Left out: that of the component"`
		CRS       string                 `json:"crs,omitempty" maxLength:"64" doc:"Of location: WGS84 (when left out), CGCS2000 or GCJ-02"`
		Component citywarden.ComponentID `json:"component,omitempty" maxLength:"64" doc:"Code of the component that it is attached to"`
		Site      citywarden.SiteID      `json:"site,omitempty" maxLength:"64" doc:"That it is at"`
	}
}) (*output[citywarden.DeviceView], error) {
	u, b := callerOf(ctx), in.Body
	q := citywarden.Claim{Secret: b.Secret, Area: u.Area, Component: b.Component, Site: b.Site, Name: b.Name}
	if b.Location != nil {
		p, err := citywarden.PointIn(b.CRS, *b.Location)
		if err != nil {
			return nil, err
		}
		q.Location = &p
	}
	if _, _, err := s.Devices.Device(in.ID); err != nil {
		return nil, err // nothing to be counted
	}
	if u.Area != "" && b.Component != "" {
		if _, err := s.seenComponent(ctx, b.Component); err != nil {
			return nil, err
		}
	}
	user, device := u.Name, string(in.ID)
	wait := s.claims.users.try(user)
	if wait == 0 {
		if wait = s.claims.devices.try(device); wait > 0 {
			s.claims.users.forgive(user) // it was not looked at
		}
	}
	if wait > 0 {
		return nil, &waitError{
			error:  citywarden.Errorf(citywarden.CodeTransient, "too many wrong secrets; wait %s and try again", wait.Round(time.Second)),
			status: http.StatusTooManyRequests, after: wait,
		}
	}
	_, err := s.Devices.Claim(ctx, in.ID, q)
	if citywarden.CodeOf(err) == citywarden.CodeUnauthenticated {
		return nil, citywarden.Errorf(citywarden.CodeDenied, "%w", err) // the caller is known
	}
	s.claims.users.forgive(user)
	s.claims.devices.forgive(device)
	if err != nil {
		return nil, err
	}
	return s.getDevice(ctx, &in.DevicePath)
}

type newCredentials struct {
	Type     string `json:"type" enum:"token,mqtt,x509,psk"`
	User     string `json:"user,omitempty" maxLength:"128" doc:"Of mqtt: the user name; the device's id when left out"`
	ClientID string `json:"client_id,omitempty" maxLength:"128" doc:"Of mqtt: the only client id that may use it; any when left out"`
	Password string `json:"password,omitempty" maxLength:"128" doc:"Of mqtt: as agreed on, at least 8 bytes; random when left out"`

	Certificate string `json:"certificate,omitempty" maxLength:"16384" doc:"Of x509: in PEM, or its SHA-256 in hex digits"`
	Subject     string `json:"subject,omitempty" maxLength:"128" doc:"Of x509, instead of the certificate: the common name in those that the client CA of the configuration issues"`

	Identity string `json:"identity,omitempty" maxLength:"128" doc:"Of psk: what the device names itself in the handshake; its id when left out"`
	Key      string `json:"key,omitempty" maxLength:"130" doc:"Of psk: as agreed on, 16 to 64 bytes as text, or in hex digits after 0x; random when left out"`

	Overlap string `json:"overlap,omitempty" doc:"How long what the device had before stays good, like 24h or 7d, 90d at most; not at all when left out"`
}

type credentials struct {
	Token    string `json:"token,omitempty" doc:"User name in MQTT, path segment in HTTP and CoAP; it is not shown again"`
	User     string `json:"user,omitempty" doc:"User name in MQTT"`
	ClientID string `json:"client_id,omitempty" doc:"The only client id that may use it"`
	Password string `json:"password,omitempty" doc:"It is not shown again"`

	Certificate string `json:"certificate,omitempty" doc:"By which it is recognised: name and SHA-256"`

	Identity string `json:"identity,omitempty" doc:"Of the pre-shared key, for the handshake"`
	Key      string `json:"key,omitempty" doc:"The pre-shared key: the text itself, or the bytes that the hex digits after 0x are; it is not shown again"`
}

func (s *server) createCredentials(ctx context.Context, in *struct {
	DevicePath
	Body newCredentials
}) (*output[credentials], error) {
	b := in.Body
	q := citywarden.SecretRequest{User: b.User, ClientID: b.ClientID, Password: b.Password, Certificate: b.Certificate, Subject: b.Subject, PSK: b.Type == "psk", Identity: b.Identity, Key: b.Key}
	switch certificate := q.Certificate != "" || q.Subject != ""; {
	case b.Type == "mqtt" && q.User == "":
		q.User = string(in.ID)
	case b.Type == "token" && q.User != "":
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "a token has no user name; say type mqtt")
	case b.Type != "x509" && certificate:
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "a %s has no certificate; say type x509", b.Type)
	case b.Type == "x509" && !certificate:
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "give the certificate in PEM or its SHA-256, or the common name as subject")
	case b.Type != "psk" && (b.Identity != "" || b.Key != ""):
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "a %s has no identity and no key; say type psk", b.Type)
	}
	if b.Overlap != "" {
		overlap, err := citywarden.ParseDuration(b.Overlap)
		if err != nil {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "overlap: %w", err)
		}
		q.Overlap = overlap.Std()
	}
	secret, err := s.Devices.Issue(ctx, in.ID, q)
	if err != nil {
		return nil, err
	}
	switch b.Type {
	case "mqtt":
		return outputOf(credentials{User: q.User, ClientID: q.ClientID, Password: secret}), nil
	case "x509", "psk":
		all, err := s.Devices.Credentials(in.ID)
		if err != nil || len(all) == 0 { // it was deleted meanwhile
			return nil, err
		}
		if b.Type == "psk" {
			return outputOf(credentials{Identity: strings.TrimPrefix(all[0].Hint, "identity "), Key: secret}), nil
		}
		return outputOf(credentials{Certificate: all[0].Hint}), nil
	}
	return outputOf(credentials{Token: secret}), nil
}

func (s *server) listCredentials(_ context.Context, in *DevicePath) (*listOutput[citywarden.DeviceCredential], error) {
	all, err := s.Devices.Credentials(in.ID)
	if err != nil {
		return nil, err
	}
	return listOf(all, ""), nil
}

func (s *server) revokeCredentials(ctx context.Context, in *DevicePath) (*struct{}, error) {
	return nil, s.Devices.Revoke(ctx, in.ID)
}

func (s *server) importDevices(ctx context.Context, in *struct {
	RawBody []byte `contentType:"text/csv"`
}) (*output[ImportReport], error) {
	report, err := s.Files.Import(ctx, bytes.NewReader(in.RawBody))
	if err != nil {
		return nil, err
	}
	if report.Lines == nil {
		report.Lines = []ImportLine{}
	}
	return outputOf(report), nil
}

func (s *server) exportDevices(ctx context.Context, _ *struct{}) (*file, error) {
	var b bytes.Buffer
	if err := s.Files.Export(ctx, &b, callerOf(ctx).Area); err != nil {
		return nil, err
	}
	return &file{"text/csv; charset=utf-8", `attachment; filename="devices.csv"`, b.Bytes()}, nil
}

func (s *server) latest(ctx context.Context, in *DevicePath) (*output[map[citywarden.MetricName]citywarden.Latest], error) {
	if _, _, err := s.seenDevice(ctx, in.ID); err != nil {
		return nil, err
	}
	d, err := s.Devices.Get(in.ID)
	if err != nil {
		return nil, err
	}
	if d.Latest == nil {
		d.Latest = map[citywarden.MetricName]citywarden.Latest{}
	}
	return outputOf(d.Latest), nil
}

func (s *server) listAttributes(ctx context.Context, in *DevicePath) (*listOutput[citywarden.AttributeState], error) {
	if _, _, err := s.seenDevice(ctx, in.ID); err != nil {
		return nil, err
	}
	all, err := s.Devices.AttributeStates(in.ID)
	if err != nil {
		return nil, err
	}
	return listOf(all, ""), nil
}

const maxPoints = 10000

type seriesOutput struct {
	Points    []seriesPoint    `json:"points" nullable:"false"`
	Unit      string           `json:"unit" doc:"UCUM; empty when dimensionless"`
	Gaps      []citywarden.Gap `json:"gaps" nullable:"false" doc:"When the device was silent for longer than twice its heartbeat, messages are missing by its sequence numbers, or the platform itself heard nobody for half a minute or longer"`
	Truncated bool             `json:"truncated" doc:"There are more points; ask for a shorter time or a longer every"`
}

func (s *server) series(ctx context.Context, in *struct {
	DevicePath
	Metric  citywarden.MetricName `query:"metric" required:"true"`
	From    string                `query:"from" doc:"RFC 3339, inclusive; 24 hours before to when left out"`
	To      string                `query:"to" doc:"RFC 3339, exclusive; now when left out"`
	Every   string                `query:"every" doc:"Interval of the aggregate, like 1m, 1h or 1d"`
	Agg     string                `query:"agg" enum:"mean,min,max,sum,count,last,increase" doc:"mean when left out; increase is by how much a counter went up, whatever resets and rollovers"`
	Unknown bool                  `query:"unknown" doc:"Put a point whose value is null between two where gaps say that it is not known what was between them: a curve breaks off there"`
}) (*output[seriesOutput], error) {
	from, to, err := day(in.From, in.To)
	if err != nil {
		return nil, err
	}
	var every citywarden.Duration
	if in.Every != "" {
		if every, err = citywarden.ParseDuration(in.Every); err != nil {
			return nil, fmt.Errorf("every: %w", err)
		}
		if every.Std() < time.Second {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "every %s: it is at least 1s", in.Every)
		}
	} else if in.Agg != "" {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "agg %s needs every, the interval that it is taken over", in.Agg)
	}
	d, model, err := s.seenDevice(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	metric, ok := model.Metric(in.Metric)
	if !ok {
		return nil, unknownMetric(d, model, in.Metric)
	}
	points, err := s.Series.Query(ctx, citywarden.SeriesQuery{
		Device: d.ID, Domain: model.Domain, Metric: metric.Name, From: from, To: to, Every: every.Std(), Agg: in.Agg, Limit: maxPoints + 1,
	})
	if err != nil {
		return nil, err
	}
	out := seriesOutput{Unit: metric.Unit, Truncated: len(points) > maxPoints}
	if out.Truncated {
		points = points[:maxPoints]
		to = points[maxPoints-1].Time
	}
	if out.Gaps, err = s.Gaps.Gaps(ctx, d.ID, from, to); err != nil {
		return nil, err
	}
	if in.Unknown {
		points = withUnknown(points, out.Gaps, every.Std(), model.Heartbeat.Std())
	}
	out.Points = make([]seriesPoint, len(points))
	for i, p := range points {
		out.Points[i] = seriesPoint(p)
	}
	return outputOf(out), nil
}

func unknownMetric(d *citywarden.Device, m *citywarden.Model, name citywarden.MetricName) error {
	var names []string
	for _, metric := range m.Metrics {
		names = append(names, string(metric.Name))
	}
	return citywarden.Errorf(citywarden.CodeInvalid, "device %s, a %s, has no metric %q; it has %s", d.ID, m.Name, name, strings.Join(names, ", "))
}

// span parses two times in RFC 3339; "" gives the zero time. A space stands for
// a plus that was not escaped in the URL.
func span(from, to string) (f, t time.Time, err error) {
	for _, p := range []struct {
		name, text string
		to         *time.Time
	}{{"from", from, &f}, {"to", to, &t}} {
		if p.text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, strings.Replace(p.text, " ", "+", 1))
		if err != nil {
			return f, t, citywarden.Errorf(citywarden.CodeInvalid, "%s %q: write it like 2026-11-23T08:00:00Z or 2026-11-23T16:00:00+08:00", p.name, p.text)
		}
		*p.to = at.UTC()
	}
	return f, t, nil
}

// day is span, with now for to and 24 hours before it for from when they are
// left out.
func day(from, to string) (f, t time.Time, err error) {
	if f, t, err = span(from, to); err != nil {
		return f, t, err
	}
	if t.IsZero() {
		t = time.Now().UTC()
	}
	if f.IsZero() {
		f = t.Add(-24 * time.Hour)
	}
	if !f.Before(t) {
		return f, t, citywarden.Errorf(citywarden.CodeInvalid, "from %s is not before to %s", f.Format(time.RFC3339), t.Format(time.RFC3339))
	}
	return f, t, nil
}
