package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"

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
	Name string `path:"name" maxLength:"64"`
	Shapes
}

// Shapes holds what a browser says when it asks for GeoJSON.
type Shapes struct {
	Known string `header:"If-None-Match"`
	Takes string `header:"Accept-Encoding"`
}

type shapesOutput struct {
	ContentType string `header:"Content-Type"`
	Encoding    string `header:"Content-Encoding"`
	Vary        string `header:"Vary"`
	CacheFor    string `header:"Cache-Control"`
	ETag        string `header:"ETag"`
	Status      int
	Body        []byte
}

// answer gives data: nothing when the browser has it, packed when it can unpack it.
func (in *Shapes) answer(data []byte) (*shapesOutput, error) {
	sum := sha256.Sum256(data)
	out := &shapesOutput{
		ContentType: "application/geo+json", Vary: "Accept-Encoding", CacheFor: "private, no-cache",
		ETag: `W/"` + hex.EncodeToString(sum[:8]) + `"`, Status: http.StatusOK,
	}
	switch {
	case in.Known == out.ETag:
		out.Status = http.StatusNotModified
	case strings.Contains(in.Takes, "gzip"):
		var b bytes.Buffer
		z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		if err != nil {
			return nil, err
		}
		if _, err := z.Write(data); err != nil {
			return nil, err
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
		out.Encoding, out.Body = "gzip", b.Bytes()
	default:
		out.Body = data
	}
	return out, nil
}

func (s *server) placeRoutes() {
	const tag = "map"
	handle(s, route{method: "GET", path: "/api/v1/map", id: "get-map", tag: tag, may: citywarden.MayRead,
		summary: "Where the map begins and which layers it has"}, s.mapView)
	handle(s, route{method: "GET", path: "/api/v1/map/layers/{name}", id: "get-layer", tag: tag, may: citywarden.MayRead,
		responses: layerResponses("FeatureCollection; properties kind, name and code"), summary: "One layer of the map as GeoJSON"}, s.layer)
	handle(s, route{method: "GET", path: "/api/v1/map/devices", id: "get-map-devices", tag: tag, may: citywarden.MayRead,
		responses: layerResponses("FeatureCollection of points; properties id, name, model, status and grid"), summary: "All devices that have a place as GeoJSON"}, s.mapDevices)
}

func layerResponses(doc string) map[string]*huma.Response {
	geo := map[string]*huma.MediaType{"application/geo+json": {Schema: &huma.Schema{Type: "object", AdditionalProperties: true}}}
	return map[string]*huma.Response{
		"200": {Description: doc, Content: geo},
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

func (s *server) layer(ctx context.Context, in *layerInput) (*shapesOutput, error) {
	data, err := s.Layers.Layer(ctx, in.Name, callerOf(ctx).Area)
	if err != nil {
		return nil, err
	}
	return in.answer(bytes.TrimSpace(data))
}

// mapDevice is a device as the map needs it.
type mapDevice struct {
	Type     string `json:"type"`
	Geometry struct {
		Type        string     `json:"type"`
		Coordinates [2]float64 `json:"coordinates"`
	} `json:"geometry"`
	Properties struct {
		ID     citywarden.DeviceID  `json:"id"`
		Name   string               `json:"name"`
		Model  citywarden.ModelName `json:"model"`
		Status citywarden.Status    `json:"status"`
		Grid   citywarden.GridCode  `json:"grid,omitempty"`
	} `json:"properties"`
}

func (s *server) mapDevices(ctx context.Context, in *Shapes) (*shapesOutput, error) {
	var b bytes.Buffer
	b.WriteString(`{"type":"FeatureCollection","features":[`)
	sep := ""
	err := pages(func(p citywarden.Page) (string, error) {
		ds, next, err := s.Devices.List(citywarden.DeviceFilter{Area: callerOf(ctx).Area, Page: p})
		for i := range ds {
			if ds[i].Location == nil {
				continue
			}
			f := mapDevice{Type: "Feature"}
			f.Geometry.Type, f.Geometry.Coordinates = "Point", [2]float64{ds[i].Location.Lon, ds[i].Location.Lat}
			f.Properties.ID, f.Properties.Name, f.Properties.Model = ds[i].ID, ds[i].Name, ds[i].Model
			f.Properties.Status, f.Properties.Grid = ds[i].Status, ds[i].Grid
			line, err := json.Marshal(f)
			if err != nil {
				return "", err
			}
			b.WriteString(sep)
			b.Write(line)
			sep = ","
		}
		return next, err
	})
	if err != nil {
		return nil, err
	}
	b.WriteString("]}")
	return in.answer(b.Bytes())
}
