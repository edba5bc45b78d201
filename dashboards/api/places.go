package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"

	"github.com/citywarden/citywarden"
	"github.com/danielgtaylor/huma/v2"
)

// Layers are the layers of the map.
type Layers interface {
	// Names returns the layers there are, in the order of drawing.
	Names() []string
	// Layer returns what of a layer touches an area as GeoJSON FeatureCollection; CodeNotFound.
	Layer(ctx context.Context, name string, area citywarden.AreaCode) (json.RawMessage, error)
	// Bounds returns the corners of an area; ok is false when none is known.
	Bounds(area citywarden.AreaCode) (southWest, northEast citywarden.Point, ok bool)
}

type mapView struct {
	Center citywarden.Point `json:"center"`
	Bounds corners          `json:"bounds"`
	Layers []string         `json:"layers" nullable:"false"`
}

// corners are [[west, south], [east, north]] in degrees.
type corners [2][2]float64

// Schema tells huma that there are two of two.
func (corners) Schema(huma.Registry) *huma.Schema {
	pair := func(items *huma.Schema, doc string) *huma.Schema {
		two := 2
		return &huma.Schema{Type: "array", Description: doc, MinItems: &two, MaxItems: &two, Items: items, Extensions: map[string]any{"prefixItems": []*huma.Schema{items, items}}}
	}
	return pair(pair(&huma.Schema{Type: "number"}, ""), "[[west, south], [east, north]] in degrees")
}

type layerInput struct {
	Name  string `path:"name" maxLength:"64"`
	Known string `header:"If-None-Match"`
}

type layerOutput struct {
	ContentType string `header:"Content-Type"`
	CacheFor    string `header:"Cache-Control"`
	ETag        string `header:"ETag"`
	Status      int
	Body        []byte
}

func (s *server) placeRoutes() {
	const tag = "map"
	handle(s, route{method: "GET", path: "/api/v1/map", id: "get-map", tag: tag, may: citywarden.MayRead,
		summary: "Where the map begins and which layers it has"}, s.mapView)
	handle(s, route{method: "GET", path: "/api/v1/map/layers/{name}", id: "get-layer", tag: tag, may: citywarden.MayRead,
		responses: layerResponses(), summary: "One layer of the map as GeoJSON"}, s.layer)
}

func layerResponses() map[string]*huma.Response {
	geo := map[string]*huma.MediaType{"application/geo+json": {Schema: &huma.Schema{Type: "object", AdditionalProperties: true}}}
	return map[string]*huma.Response{
		"200": {Description: "FeatureCollection; properties kind, name and code", Content: geo},
		"304": {Description: "It is what If-None-Match names"},
	}
}

func (s *server) mapView(ctx context.Context, _ *struct{}) (*output[mapView], error) {
	return outputOf(s.area(callerOf(ctx).Area)), nil
}

// area returns where the map of an area begins and its layers.
func (s *server) area(a citywarden.AreaCode) mapView {
	sw, ne, ok := s.Layers.Bounds(a)
	if !ok {
		sw, ne = citywarden.Point{Lat: 18, Lon: 73}, citywarden.Point{Lat: 54, Lon: 135} // China
	}
	names := s.Layers.Names()
	if names == nil {
		names = []string{}
	}
	return mapView{
		Center: citywarden.Point{Lat: (sw.Lat + ne.Lat) / 2, Lon: (sw.Lon + ne.Lon) / 2},
		Bounds: corners{{sw.Lon, sw.Lat}, {ne.Lon, ne.Lat}},
		Layers: names,
	}
}

func (s *server) layer(ctx context.Context, in *layerInput) (*layerOutput, error) {
	data, err := s.Layers.Layer(ctx, in.Name, callerOf(ctx).Area)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	out := &layerOutput{
		ContentType: "application/geo+json", CacheFor: "private, no-cache",
		ETag: `"` + hex.EncodeToString(sum[:8]) + `"`, Status: http.StatusOK, Body: bytes.TrimSpace(data),
	}
	if in.Known == out.ETag {
		out.Status, out.Body = http.StatusNotModified, nil
	}
	return out, nil
}
