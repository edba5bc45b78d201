package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"

	"github.com/citywarden/citywarden"
	"github.com/danielgtaylor/huma/v2"
)

// Grids are the unit grids and the areas that they make up.
type Grids interface {
	At(citywarden.Point) citywarden.GridCode // "" for none
	// Versions returns all that a code has stood for, the oldest first; CodeNotFound.
	Versions(context.Context, citywarden.GridCode) ([]citywarden.UnitGrid, error)
	Areas(l citywarden.Level, under string) []citywarden.Area
	AreasGeoJSON(l citywarden.Level, under string) (json.RawMessage, error)
	Import(context.Context, io.Reader, citywarden.GridImport) (citywarden.GridReport, error)
}

// AreaQuery selects areas.
type AreaQuery struct {
	Level citywarden.Level `query:"level" enum:"county,town,village" default:"village"`
	Under string           `query:"under" pattern:"^[0-9]*$" maxLength:"15" doc:"Only in the area of that code, like 350623100"`
}

func (s *server) gridRoutes() {
	const tag = "map"
	geo := map[string]*huma.MediaType{"application/geo+json": {Schema: &huma.Schema{Type: "object", AdditionalProperties: true}}}
	handle(s, route{method: "POST", path: "/api/v1/grids/import", id: "import-grids", tag: tag, may: citywarden.MayWriteGrids, maxBody: 64 << 20,
		summary: "Check unit grids as GeoJSON and take them, all or none; the answer says what is wrong"}, s.importGrids)
	handle(s, route{method: "GET", path: "/api/v1/grids/{code}/versions", id: "list-grid-versions", tag: tag, may: citywarden.MayRead,
		summary: "All that the code of a unit grid has stood for, the oldest first"}, func(ctx context.Context, in *struct {
		Code citywarden.GridCode `path:"code" maxLength:"64"`
	}) (*listOutput[citywarden.UnitGrid], error) {
		if !callerOf(ctx).Area.Has(in.Code) {
			return nil, citywarden.Errorf(citywarden.CodeNotFound, "no unit grid %q", in.Code)
		}
		all, err := s.Grids.Versions(ctx, in.Code)
		if err != nil {
			return nil, err
		}
		return listOf(all, ""), nil
	})
	handle(s, route{method: "GET", path: "/api/v1/areas", id: "list-areas", tag: tag, may: citywarden.MayRead,
		summary: "Counties, towns or villages, as the unit grids make them up"}, func(ctx context.Context, in *AreaQuery) (*listOutput[citywarden.Area], error) {
		under, ok := within(callerOf(ctx), in.Under)
		if !ok {
			return listOf([]citywarden.Area{}, ""), nil
		}
		return listOf(s.Grids.Areas(in.Level, under), ""), nil
	})
	handle(s, route{method: "GET", path: "/api/v1/areas/outlines", id: "get-area-outlines", tag: tag, may: citywarden.MayRead,
		responses: map[string]*huma.Response{"200": {Description: "FeatureCollection of MultiPolygons", Content: geo}},
		summary:   "The outlines of counties, towns or villages as GeoJSON"}, func(ctx context.Context, in *AreaQuery) (*file, error) {
		under, ok := within(callerOf(ctx), in.Under)
		if !ok {
			return nil, citywarden.Errorf(citywarden.CodeNotFound, "no unit grid lies in %s", in.Under)
		}
		b, err := s.Grids.AreasGeoJSON(in.Level, under)
		if err != nil {
			return nil, err
		}
		return &file{ContentType: "application/geo+json", Body: b}, nil
	})
}

func (s *server) importGrids(ctx context.Context, in *struct {
	CRS     string `query:"crs" maxLength:"64" doc:"WGS84, CGCS2000 or GCJ-02; left out: what the file says, else WGS84"`
	Check   bool   `query:"check" doc:"Look, and take nothing"`
	Force   bool   `query:"force" doc:"Gaps are warnings"`
	Replace bool   `query:"replace" doc:"The file has all grids of its communities: those that it lacks end"`
	RawBody []byte `contentType:"application/geo+json"`
}) (*output[citywarden.GridReport], error) {
	r, err := s.Grids.Import(ctx, bytes.NewReader(in.RawBody), citywarden.GridImport{CRS: in.CRS, Check: in.Check, Force: in.Force, Replace: in.Replace})
	if err != nil {
		return nil, err
	}
	return outputOf(r), nil
}
