package county

import (
	"encoding/json"

	"github.com/citywarden/citywarden"
)

type feature struct {
	Type       string         `json:"type"`
	Properties map[string]any `json:"properties"`
	Geometry   geometry       `json:"geometry"`
}

type geometry struct {
	Type        string `json:"type"`
	Coordinates any    `json:"coordinates"`
}

// Layers returns the map layers as GeoJSON FeatureCollections (RFC 7946):
// "streets" (with the fire lanes, kind "fire_lane"), "buildings", "pipes" and
// "dmas". Each feature has the properties kind, name, name_zh, name_en and code
// as far as it has them; pipes and areas have color and dma as well.
func (c *County) Layers() map[string]json.RawMessage {
	var streets, buildings, pipes, dmas []feature
	for _, s := range c.Streets {
		kind := "street"
		if s.Main {
			kind = "avenue"
		}
		streets = append(streets, line(s.Line, props(kind, s.Code, s.Name)))
	}
	for _, s := range c.Lanes {
		streets = append(streets, line(s.Line, props("fire_lane", s.Code, s.Name)))
	}
	for _, b := range c.Buildings {
		p := props("building", b.Code, b.Name)
		p["floors"] = b.Floors
		if b.Use != "" {
			p["use"] = b.Use
		}
		buildings = append(buildings, polygon(b.Ring, p))
	}
	for _, d := range c.Water.DMAs {
		p := props("dma", d.Code, d.Name)
		p["dma"], p["color"] = d.Code, d.Color
		dmas = append(dmas, polygon(d.Ring, p))
	}
	for _, w := range c.Water.Pipes {
		name, color := citywarden.Text{ZH: "输水干管", EN: "Trunk main"}, "#475569"
		for _, d := range c.Water.DMAs {
			if d.Code == w.DMA {
				name, color = citywarden.Text{ZH: d.Name.ZH + "配水管", EN: d.Name.EN + " distribution main"}, d.Color
			}
		}
		p := props("pipe", w.Code, name)
		p["dma"], p["color"], p["diameter_mm"] = w.DMA, color, w.Diameter
		pipes = append(pipes, line([]citywarden.Point{c.Water.Nodes[w.From].At, c.Water.Nodes[w.To].At}, p))
	}
	return map[string]json.RawMessage{
		"streets": collection(streets), "buildings": collection(buildings), "pipes": collection(pipes), "dmas": collection(dmas),
	}
}

func props(kind, code string, name citywarden.Text) map[string]any {
	p := map[string]any{"kind": kind}
	if code != "" {
		p["code"] = code
	}
	if name != (citywarden.Text{}) {
		p["name"], p["name_zh"], p["name_en"] = name.ZH+" "+name.EN, name.ZH, name.EN
	}
	return p
}

func line(ps []citywarden.Point, properties map[string]any) feature {
	return feature{"Feature", properties, geometry{"LineString", positions(ps)}}
}

func polygon(ring []citywarden.Point, properties map[string]any) feature {
	return feature{"Feature", properties, geometry{"Polygon", [][][2]float64{append(positions(ring), [2]float64{ring[0].Lon, ring[0].Lat})}}}
}

func positions(ps []citywarden.Point) [][2]float64 {
	out := make([][2]float64, len(ps))
	for i, p := range ps {
		out[i] = [2]float64{p.Lon, p.Lat}
	}
	return out
}

func collection(fs []feature) json.RawMessage {
	b, err := json.Marshal(struct {
		Type     string    `json:"type"`
		Features []feature `json:"features"`
	}{"FeatureCollection", fs})
	if err != nil {
		panic("county: " + err.Error()) // unreachable: finite numbers and strings only
	}
	return b
}
