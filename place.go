package citywarden

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Point is a position, WGS 84, in degrees.
type Point struct {
	Lat float64 `json:"lat"`
	Lon float64 `json:"lon"`
}

// Check returns a CodeInvalid error unless p lies on earth.
func (p Point) Check() error {
	if math.IsNaN(p.Lat) || math.IsNaN(p.Lon) || math.Abs(p.Lat) > 90 || math.Abs(p.Lon) > 180 {
		return Errorf(CodeInvalid, "position lat %g, lon %g: lat is -90 to 90 and lon -180 to 180 degrees", p.Lat, p.Lon)
	}
	return nil
}

// ParsePoint reads a position from decimal degrees; CodeInvalid unless it lies on
// earth.
func ParsePoint(lat, lon string) (Point, error) {
	var p Point
	var err error
	if p.Lat, err = strconv.ParseFloat(strings.TrimSpace(lat), 64); err == nil {
		p.Lon, err = strconv.ParseFloat(strings.TrimSpace(lon), 64)
	}
	if err != nil {
		return Point{}, Errorf(CodeInvalid, "position lat %q, lon %q: write both in decimal degrees, like 24.117 and 117.613", lat, lon)
	}
	return p, p.Check()
}

// Distance returns the distance to q in metres (haversine, mean earth radius
// 6,371,009 m: within 0.5 %).
func (p Point) Distance(q Point) float64 {
	const r, rad = 6371009, math.Pi / 180
	sLat, sLon := math.Sin((q.Lat-p.Lat)*rad/2), math.Sin((q.Lon-p.Lon)*rad/2)
	h := sLat*sLat + math.Cos(p.Lat*rad)*math.Cos(q.Lat*rad)*sLon*sLon
	return 2 * r * math.Asin(math.Min(1, math.Sqrt(h)))
}

// GridCode is the 15-digit code of a unit grid (单元网格): 6-digit county
// (GB/T 2260), 3 street or town (GB/T 10114), 3 community or village, 3 serial
// inside the community (GB/T 30428.1).
type GridCode string

var gridCode = regexp.MustCompile(`^[0-9]{15}$`)

// Check returns a CodeInvalid error unless g has 15 digits.
func (g GridCode) Check() error {
	if !gridCode.MatchString(string(g)) {
		return Errorf(CodeInvalid, "unit grid code %q: use 15 digits, county 6 + street 3 + community 3 + serial 3", g)
	}
	return nil
}

// UnitGrid is one unit grid: the smallest area that city management is
// responsible for, about one hectare (GB/T 30428.1).
type UnitGrid struct {
	Code GridCode `json:"code"`
	Name string   `json:"name,omitempty"`
	Ring []Point  `json:"ring"`    // outer boundary, not closed (the last point is not the first again)
	Area float64  `json:"area_m2"` // m²
}

// Contains reports whether p lies in g; a point on an edge belongs to exactly
// one of the two grids that share it.
func (g *UnitGrid) Contains(p Point) bool {
	in := false
	for i, j := 0, len(g.Ring)-1; i < len(g.Ring); j, i = i, i+1 {
		a, b := g.Ring[i], g.Ring[j]
		if a.Lat > b.Lat { // both neighbours of an edge must round alike
			a, b = b, a
		}
		if (a.Lat > p.Lat) != (b.Lat > p.Lat) && p.Lon < (b.Lon-a.Lon)*(p.Lat-a.Lat)/(b.Lat-a.Lat)+a.Lon {
			in = !in
		}
	}
	return in
}
