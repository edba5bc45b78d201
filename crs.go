package citywarden

import (
	"math"
	"strings"
)

// CRS names the coordinate reference system of positions that come in. Kept are
// positions in WGS 84.
type CRS string

// The systems. CGCS2000 differs from WGS 84 by centimetres and is taken as
// equal. GCJ-02 is what Chinese web maps and phones show: some 500 m off.
const (
	WGS84    CRS = "WGS84"
	CGCS2000 CRS = "CGCS2000"
	GCJ02    CRS = "GCJ-02"
)

// ParseCRS reads the name of a system, by its usual spellings or its number at
// EPSG. Nothing said is WGS 84; CodeInvalid for one that is not known.
func ParseCRS(s string) (CRS, error) {
	name := strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToUpper(strings.TrimSpace(s)))
	switch name {
	case "", "WGS84", "EPSG:4326", "CRS84", "URN:OGC:DEF:CRS:OGC:1.3:CRS84", "URN:OGC:DEF:CRS:OGC::CRS84", "URN:OGC:DEF:CRS:EPSG::4326":
		return WGS84, nil
	case "CGCS2000", "EPSG:4490", "URN:OGC:DEF:CRS:EPSG::4490":
		return CGCS2000, nil
	case "GCJ02":
		return GCJ02, nil
	}
	return "", Errorf(CodeInvalid, "coordinate system %q: write WGS84, CGCS2000 or GCJ-02; convert all others, like BD-09 or a projection, before", s)
}

// PointIn returns p, given in the system that crs names as ParseCRS reads it, in
// WGS 84; CodeInvalid unless it lies on earth.
func PointIn(crs string, p Point) (Point, error) {
	c, err := ParseCRS(crs)
	if err != nil {
		return p, err
	}
	if err := p.Check(); err != nil {
		return p, err
	}
	return c.ToWGS84(p), nil
}

// ToWGS84 returns p, given in c, in WGS 84. It undoes FromWGS84 to a millimetre.
func (c CRS) ToWGS84(p Point) Point {
	if c != GCJ02 || !inChina(p) {
		return p
	}
	q := p
	for range 10 { // each round makes the error some thousand times smaller
		d := gcjShift(q)
		next := Point{p.Lat - d.Lat, p.Lon - d.Lon}
		done := math.Abs(next.Lat-q.Lat) < 1e-10 && math.Abs(next.Lon-q.Lon) < 1e-10
		if q = next; done {
			break
		}
	}
	return q
}

// FromWGS84 returns p in c. Points outside of China are not shifted.
func (c CRS) FromWGS84(p Point) Point {
	if c != GCJ02 || !inChina(p) {
		return p
	}
	d := gcjShift(p)
	return Point{p.Lat + d.Lat, p.Lon + d.Lon}
}

// inChina reports whether GCJ-02 shifts p. The system's own bounds are a box.
func inChina(p Point) bool {
	return p.Lon >= 72.004 && p.Lon <= 137.8347 && p.Lat >= 0.8293 && p.Lat <= 55.8271
}

// gcjShift returns how far GCJ-02 moves p, in degrees, on the Krasovsky 1940
// ellipsoid.
func gcjShift(p Point) Point {
	const a, ee = 6378245.0, 0.00669342162296594323
	sin := func(x float64) float64 { return math.Sin(x * math.Pi) }
	x, y := p.Lon-105, p.Lat-35
	both := (20*sin(6*x) + 20*sin(2*x)) * 2 / 3
	lat := -100 + 2*x + 3*y + 0.2*y*y + 0.1*x*y + 0.2*math.Sqrt(math.Abs(x)) + both +
		(20*sin(y)+40*sin(y/3)+160*sin(y/12)+320*sin(y/30))*2/3
	lon := 300 + x + 2*y + 0.1*x*x + 0.1*x*y + 0.1*math.Sqrt(math.Abs(x)) + both +
		(20*sin(x)+40*sin(x/3)+150*sin(x/12)+300*sin(x/30))*2/3
	s, c := math.Sincos(p.Lat * math.Pi / 180)
	m := 1 - ee*s*s
	return Point{
		Lat: lat * 180 / (a * (1 - ee) / (m * math.Sqrt(m)) * math.Pi),
		Lon: lon * 180 / (a / math.Sqrt(m) * c * math.Pi),
	}
}
