package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/citywarden/citywarden"
	"github.com/danielgtaylor/huma/v2"
)

// Components are the managed components of the county.
type Components interface {
	ComponentReader
	Save(context.Context, citywarden.Component) (citywarden.Component, error)
	Delete(context.Context, citywarden.ComponentID) error
	Import(context.Context, io.Reader, citywarden.ComponentImport) (citywarden.TableReport, error)
}

// ComponentReader looks components up; all of its methods answer from memory.
type ComponentReader interface {
	Component(citywarden.ComponentID) (citywarden.Component, error)
	List(citywarden.ComponentFilter) (page []citywarden.Component, next string)
	Near(p citywarden.Point, class citywarden.ClassCode, area citywarden.AreaCode, within float64, limit int) []citywarden.Nearby
	// Export and GeoJSON return what a filter selects, at most its limit, all for 0.
	Export(io.Writer, citywarden.ComponentFilter) error
	GeoJSON(citywarden.ComponentFilter) (json.RawMessage, error)
}

// ComponentPath holds the path parameter of one component.
type ComponentPath struct {
	ID citywarden.ComponentID `path:"id" maxLength:"64"`
}

func (p ComponentPath) state(_ context.Context, s *server) (any, error) {
	return s.Components.Component(p.ID)
}

// ComponentQuery selects components.
type ComponentQuery struct {
	Class      citywarden.ClassCode      `query:"class" maxLength:"32"`
	Grid       citywarden.GridCode       `query:"grid" maxLength:"64" doc:"Unit grid, or the code of an area like 350623100"`
	Department string                    `query:"department" maxLength:"100" doc:"That is authority, owner or maintainer"`
	State      citywarden.ComponentState `query:"state"`
	Search     string                    `query:"q" maxLength:"100" doc:"Part of the code, name or address"`
}

// filter returns what q selects of what the caller sees.
func (q ComponentQuery) filter(ctx context.Context) citywarden.ComponentFilter {
	return citywarden.ComponentFilter{Area: callerOf(ctx).Area, Class: q.Class, Grid: q.Grid, Department: q.Department, State: q.State, Search: q.Search}
}

// PositionQuery is a position, in a coordinate system.
type PositionQuery struct {
	Lat float64 `query:"lat" required:"true" doc:"Latitude, degrees"`
	Lon float64 `query:"lon" required:"true" doc:"Longitude, degrees"`
	CRS string  `query:"crs" maxLength:"64" doc:"Of the position: WGS84 (when left out), CGCS2000 or GCJ-02"`
}

func (q PositionQuery) point() (citywarden.Point, error) {
	return citywarden.PointIn(q.CRS, citywarden.Point{Lat: q.Lat, Lon: q.Lon})
}

type componentBody struct {
	Class      citywarden.ClassCode      `json:"class,omitempty" maxLength:"32" doc:"Left out: what the code means in the numbering that is used here"`
	Name       string                    `json:"name,omitempty" maxLength:"200" doc:"Left out: that of the class"`
	Location   citywarden.Point          `json:"location"`
	CRS        string                    `json:"crs,omitempty" maxLength:"64" doc:"Of location: WGS84 (when left out), CGCS2000 or GCJ-02"`
	Authority  string                    `json:"authority,omitempty" maxLength:"100" doc:"主管部门"`
	Owner      string                    `json:"owner,omitempty" maxLength:"100" doc:"权属单位"`
	Maintainer string                    `json:"maintainer,omitempty" maxLength:"100" doc:"养护单位"`
	State      citywarden.ComponentState `json:"state,omitempty" doc:"Left out: intact"`
	Initial    string                    `json:"initial_date,omitempty" doc:"Like 2025-01-31"`
	Changed    string                    `json:"change_date,omitempty" doc:"Like 2025-01-31"`
	Address    string                    `json:"address,omitempty" maxLength:"300"`
	Survey     string                    `json:"data_source,omitempty" maxLength:"100" doc:"How its data came to be known"`
	Remark     string                    `json:"remark,omitempty" maxLength:"1000"`

	ID      citywarden.ComponentID `json:"id,omitempty" readOnly:"true"`
	Grid    citywarden.GridCode    `json:"grid,omitempty" readOnly:"true"`
	Updated string                 `json:"updated,omitempty" readOnly:"true"`
}

func (s *server) componentRoutes() {
	const tag = "components"
	csv := &huma.MediaType{Schema: &huma.Schema{Type: "string"}}
	geo := &huma.MediaType{Schema: &huma.Schema{Type: "object", AdditionalProperties: true}}
	handle(s, route{method: "GET", path: "/api/v1/components", id: "list-components", tag: tag, may: citywarden.MayRead,
		summary: "Managed components (部件, GB/T 30428.2), by code"}, func(ctx context.Context, in *struct {
		Paging
		ComponentQuery
	}) (*listOutput[citywarden.Component], error) {
		f := in.filter(ctx)
		f.Page = in.page()
		cs, next := s.Components.List(f)
		if len(cs) == 0 && in.Class != "" {
			if err := s.isClass(ctx, in.Class); err != nil {
				return nil, err
			}
		}
		return listOf(cs, next), nil
	})
	handle(s, route{method: "GET", path: "/api/v1/components/nearby", id: "list-nearby-components", tag: tag, may: citywarden.MayRead,
		summary: "Components around a position that are not removed, the nearest first"}, s.nearbyComponents)
	handle(s, route{method: "GET", path: "/api/v1/components/map", id: "get-component-map", tag: tag, may: citywarden.MayRead,
		responses: map[string]*huma.Response{"200": {Description: "FeatureCollection of Points; the properties are those of a component and kind", Content: map[string]*huma.MediaType{"application/geo+json": geo}}},
		summary:   "Components of a part of the map as GeoJSON; the member truncated says that there are more"}, s.componentMap)
	handle(s, route{method: "GET", path: "/api/v1/components/export", id: "export-components", tag: tag, may: citywarden.MayRead,
		responses: map[string]*huma.Response{"200": {Description: "What the import reads", Content: map[string]*huma.MediaType{"text/csv": csv, "application/geo+json": geo}}},
		summary:   "Components as CSV or GeoJSON"}, s.exportComponents)
	handle(s, route{method: "POST", path: "/api/v1/components/import", id: "import-components", tag: tag, may: citywarden.MayWriteComponents, maxBody: 64 << 20,
		summary: "Add and change components from CSV or GeoJSON; the answer says what is wrong with which line"}, s.importComponents)
	handle(s, route{method: "GET", path: "/api/v1/components/{id}", id: "get-component", tag: tag, may: citywarden.MayRead,
		summary: "One component"}, func(ctx context.Context, in *ComponentPath) (*output[citywarden.Component], error) {
		x, err := s.seenComponent(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return outputOf(x), nil
	})
	handle(s, route{method: "PUT", path: "/api/v1/components/{id}", id: "put-component", tag: tag, may: citywarden.MayWriteComponents,
		summary: "Add a component, or replace all that is said of it"}, s.putComponent)
	handle(s, route{method: "DELETE", path: "/api/v1/components/{id}", id: "delete-component", tag: tag, may: citywarden.MayWriteComponents, status: http.StatusNoContent,
		summary: "Delete a component that was a mistake; what is gone from the street has the state removed"}, func(ctx context.Context, in *ComponentPath) (*struct{}, error) {
		if _, err := s.seenComponent(ctx, in.ID); err != nil {
			return nil, err
		}
		ds, _, err := s.Devices.List(citywarden.DeviceFilter{Component: in.ID, Page: citywarden.Page{Limit: 1}})
		switch {
		case err != nil:
			return nil, err
		case len(ds) > 0 && !s.maySee(callerOf(ctx), ds[0].ID):
			return nil, citywarden.Errorf(citywarden.CodeConflict, "a device elsewhere is attached to component %s; ask who sees the whole county to detach it", in.ID)
		case len(ds) > 0:
			return nil, citywarden.Errorf(citywarden.CodeConflict, "device %s is attached to component %s; detach it first", ds[0].ID, in.ID)
		}
		return nil, s.Components.Delete(ctx, in.ID)
	})
}

func (s *server) nearbyComponents(ctx context.Context, in *struct {
	PositionQuery
	Class  citywarden.ClassCode `query:"class" maxLength:"32" doc:"Of components: only of it, and of what is the same in the other numbering; of events: all"`
	Within float64              `query:"within" exclusiveMinimum:"0" maximum:"5000" default:"100" doc:"Metres"`
	Limit  int                  `query:"limit" minimum:"1" maximum:"1000" default:"20"`
}) (*listOutput[citywarden.Nearby], error) {
	p, err := in.point()
	if err != nil {
		return nil, err
	}
	return listOf(s.Components.Near(p, in.Class, callerOf(ctx).Area, in.Within, in.Limit), ""), nil
}

func (s *server) componentMap(ctx context.Context, in *struct {
	ComponentQuery
	West  float64 `query:"west" required:"true" doc:"Degrees, WGS 84, like the others"`
	South float64 `query:"south" required:"true"`
	East  float64 `query:"east" required:"true"`
	North float64 `query:"north" required:"true"`
	Limit int     `query:"limit" minimum:"1" maximum:"10000" default:"5000"`
}) (*file, error) {
	f := in.filter(ctx)
	f.In = &citywarden.Box{SouthWest: citywarden.Point{Lat: in.South, Lon: in.West}, NorthEast: citywarden.Point{Lat: in.North, Lon: in.East}}
	f.Limit = in.Limit
	b, err := s.Components.GeoJSON(f)
	if err != nil {
		return nil, err
	}
	return &file{ContentType: "application/geo+json", Body: b}, nil
}

func (s *server) exportComponents(ctx context.Context, in *struct {
	ComponentQuery
	Format string `query:"format" enum:"csv,geojson" default:"csv"`
}) (*file, error) {
	if in.Format == "geojson" {
		b, err := s.Components.GeoJSON(in.filter(ctx))
		if err != nil {
			return nil, err
		}
		return &file{"application/geo+json", `attachment; filename="components.geojson"`, b}, nil
	}
	var b bytes.Buffer
	if err := s.Components.Export(&b, in.filter(ctx)); err != nil {
		return nil, err
	}
	return &file{"text/csv; charset=utf-8", `attachment; filename="components.csv"`, b.Bytes()}, nil
}

func (s *server) importComponents(ctx context.Context, in *struct {
	CRS     string `query:"crs" maxLength:"64" doc:"Of lines that don't say their own: WGS84, CGCS2000 or GCJ-02; left out: what the file says, else WGS84"`
	Check   bool   `query:"check" doc:"Look, and take nothing"`
	RawBody []byte `contentType:"text/csv"`
}) (*output[citywarden.TableReport], error) {
	if u := callerOf(ctx); u.Area != "" {
		return nil, citywarden.Errorf(citywarden.CodeDenied, "%s sees the area %s only, and a file may be of everywhere; add components one by one", u.Name, u.Area)
	}
	r, err := s.Components.Import(ctx, bytes.NewReader(in.RawBody), citywarden.ComponentImport{CRS: in.CRS, Check: in.Check})
	if err != nil {
		return nil, err
	}
	return outputOf(r), nil
}

func (s *server) putComponent(ctx context.Context, in *struct {
	ComponentPath
	Body componentBody
}) (*output[citywarden.Component], error) {
	if _, err := s.Components.Component(in.ID); err == nil { // one that is there
		if _, err := s.seenComponent(ctx, in.ID); err != nil {
			return nil, err
		}
	}
	b := in.Body
	at, err := citywarden.PointIn(b.CRS, b.Location)
	if err != nil {
		return nil, err
	}
	if u := callerOf(ctx); !u.Area.Has(s.Grids.At(at)) {
		return nil, citywarden.Errorf(citywarden.CodeDenied, "%s adds components in the area %s only", u.Name, u.Area)
	}
	x, err := s.Components.Save(ctx, citywarden.Component{
		ID: in.ID, Class: b.Class, Name: b.Name, Location: at, Authority: b.Authority, Owner: b.Owner, Maintainer: b.Maintainer, State: b.State,
		Initial: b.Initial, Changed: b.Changed, Address: b.Address, Survey: b.Survey, Remark: b.Remark,
	})
	if err != nil {
		return nil, err
	}
	return outputOf(x), nil
}

type componentStateSchema struct{}

func (componentStateSchema) Schema(huma.Registry) *huma.Schema {
	s := enum[citywarden.ComponentState]("How a component is")
	for _, x := range citywarden.ComponentStates {
		s.Enum = append(s.Enum, string(x.State))
	}
	return s
}
