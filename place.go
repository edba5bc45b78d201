package citywarden

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
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

// Level is a level of the administration; each has its part of a grid's code.
type Level string

// The levels.
const (
	LevelCounty  Level = "county"
	LevelTown    Level = "town"    // or street 街道
	LevelVillage Level = "village" // or community 社区
)

// In returns the code of the area of level l that g belongs to, "" when g is
// too short to say.
func (g GridCode) In(l Level) string {
	n := map[Level]int{LevelCounty: 6, LevelTown: 9, LevelVillage: 12}[l]
	if n == 0 || len(g) <= n {
		return ""
	}
	return string(g[:n])
}

// AreaCode is the code of a county (6 digits), a town (9) or a village (12): what
// the codes of all unit grids in it begin with. "" is everywhere.
type AreaCode string

var areaCode = regexp.MustCompile(`^[0-9]{6}(?:[0-9]{3}){0,2}$`)

// Check returns a CodeInvalid error unless a is "" or has 6, 9 or 12 digits.
func (a AreaCode) Check() error {
	if a != "" && !areaCode.MatchString(string(a)) {
		return Errorf(CodeInvalid, "area %q: use the code of a county (6 digits), a town (9) or a village (12), like 350623100", a)
	}
	return nil
}

// Has reports whether the unit grid g, or all unit grids whose codes begin with
// it, lie in a. What lies in no unit grid, "", belongs to the county level.
func (a AreaCode) Has(g GridCode) bool {
	return strings.HasPrefix(string(g), string(a)) || g == "" && len(a) == 6
}

// Meets reports whether a has b, or is a part of it.
func (a AreaCode) Meets(b AreaCode) bool {
	return strings.HasPrefix(string(a), string(b)) || strings.HasPrefix(string(b), string(a))
}

// UnitGrid is one unit grid: the smallest area that city management is
// responsible for, about one hectare (GB/T 30428.1).
type UnitGrid struct {
	Code    GridCode  `json:"code"`
	Name    string    `json:"name,omitempty"`
	County  string    `json:"county,omitempty"` // names of the areas that it belongs to
	Town    string    `json:"town,omitempty"`
	Village string    `json:"village,omitempty"`
	Ring    []Point   `json:"ring"`                   // outer boundary, not closed (the last point is not the first again)
	Area    float64   `json:"area_m2"`                // m²
	Initial string    `json:"initial_date,omitempty"` // 初始日期, 2025-01-31
	Changed string    `json:"change_date,omitempty"`  // 变更日期
	Remark  string    `json:"remark,omitempty"`
	From    time.Time `json:"valid_from,omitzero"`  // since when it holds; set by the platform
	Until   time.Time `json:"valid_until,omitzero"` // zero: it holds now
}

// In returns the name of the area of level l that g belongs to, "" for none.
func (g *UnitGrid) In(l Level) string {
	return map[Level]string{LevelCounty: g.County, LevelTown: g.Town, LevelVillage: g.Village}[l]
}

// Area is a county, town or village, as the codes of its unit grids tell.
type Area struct {
	Code  string  `json:"code"`
	Level Level   `json:"level"`
	Name  string  `json:"name,omitempty"`
	Grids int     `json:"grids"`
	Area  float64 `json:"area_m2"`
}

// GridImport says how a file of unit grids is taken.
type GridImport struct {
	CRS     string // of the file, as ParseCRS reads it; "": what the file says, else WGS 84
	Check   bool   // look, and take nothing
	Force   bool   // gaps are warnings
	Replace bool   // the file has all grids of its communities: those that it lacks end
}

// GridReport says what is wrong with a file of unit grids, and what was taken.
type GridReport struct {
	CRS      CRS           `json:"crs"`
	Taken    bool          `json:"taken"` // false: nothing was changed
	Grids    int           `json:"grids"` // in the file
	Added    int           `json:"added"`
	Changed  int           `json:"changed"`
	Same     int           `json:"same"`
	Ended    int           `json:"ended"`
	Errors   []GridProblem `json:"errors" nullable:"false"`
	Warnings []GridProblem `json:"warnings" nullable:"false"`
}

// GridProblem is one thing that is wrong with unit grids, and what to do.
type GridProblem struct {
	Kind  GridFault  `json:"kind"`
	Grids []GridCode `json:"grids" nullable:"false"`
	At    *Point     `json:"at,omitempty"`
	Text  string     `json:"text"`
}

// GridFault is a kind of problem of unit grids.
type GridFault string

// The kinds.
const (
	FaultFeature   GridFault = "feature"   // not a unit grid at all
	FaultCode      GridFault = "code"      // not of the pattern, or there twice
	FaultRing      GridFault = "ring"      // not closed, crossing itself, no area
	FaultOverlap   GridFault = "overlap"   // shares ground with another
	FaultGap       GridFault = "gap"       // ground between grids that is in none
	FaultCommunity GridFault = "community" // not of the community that its code says
	FaultNumbering GridFault = "numbering" // serials leap, or don't run west to east and north to south
	FaultArea      GridFault = "area"      // not what the ring encloses
	FaultCRS       GridFault = "crs"       // looks like GCJ-02
)

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

// Box is an area between two corners.
type Box struct{ SouthWest, NorthEast Point }

// Contains reports whether p lies in b or on its edge.
func (b *Box) Contains(p Point) bool {
	return p.Lat >= b.SouthWest.Lat && p.Lat <= b.NorthEast.Lat && p.Lon >= b.SouthWest.Lon && p.Lon <= b.NorthEast.Lon
}
