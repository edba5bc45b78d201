package cases

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
)

// GridStore keeps the unit grids and what they were before.
type GridStore interface {
	// UnitGrids returns the grids that hold now.
	UnitGrids(context.Context) ([]citywarden.UnitGrid, error)
	// ChangeUnitGrids ends those of the codes in end, and of the codes in add,
	// and adds the latter, all from at on, all or none.
	ChangeUnitGrids(ctx context.Context, at time.Time, add []citywarden.UnitGrid, end []citywarden.GridCode) error
	// UnitGridVersions returns all that a code has stood for, the oldest first.
	UnitGridVersions(context.Context, citywarden.GridCode) ([]citywarden.UnitGrid, error)
}

// Grids are the unit grids of the county. They may be used by several goroutines.
type Grids struct {
	store GridStore // nil: in memory only

	adding sync.Mutex // held by take from reading all to replacing it, the store included

	mu    sync.RWMutex
	all   []citywarden.UnitGrid // by code
	index gridIndex             // of all
}

// LoadGrids returns the grids that are in s; nil keeps them in memory only.
func LoadGrids(ctx context.Context, s GridStore) (*Grids, error) {
	g := &Grids{store: s}
	if s == nil {
		return g, nil
	}
	all, err := s.UnitGrids(ctx)
	if err != nil {
		return nil, fmt.Errorf("load unit grids: %w", err)
	}
	g.set(all)
	return g, nil
}

func (g *Grids) set(all []citywarden.UnitGrid) {
	slices.SortFunc(all, func(a, b citywarden.UnitGrid) int { return cmp.Compare(a.Code, b.Code) })
	index := newGridIndex(all)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all, g.index = all, index
}

// At returns the code of the grid that p lies in, "" when it lies in none.
func (g *Grids) At(p citywarden.Point) citywarden.GridCode {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, i := range g.index.at(p) {
		if g.all[i].Contains(p) {
			return g.all[i].Code
		}
	}
	return ""
}

// All returns the grids in the order of their codes; callers must not change
// their rings.
func (g *Grids) All() []citywarden.UnitGrid {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return slices.Clone(g.all)
}

// Grid returns the grid of a code, or CodeNotFound.
func (g *Grids) Grid(code citywarden.GridCode) (citywarden.UnitGrid, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	i, ok := slices.BinarySearchFunc(g.all, code, func(u citywarden.UnitGrid, c citywarden.GridCode) int { return cmp.Compare(u.Code, c) })
	if !ok {
		return citywarden.UnitGrid{}, citywarden.Errorf(citywarden.CodeNotFound, "no unit grid %q", code)
	}
	return g.all[i], nil
}

// Versions returns all that a code has stood for, the oldest first, or
// CodeNotFound.
func (g *Grids) Versions(ctx context.Context, code citywarden.GridCode) ([]citywarden.UnitGrid, error) {
	if g.store == nil {
		u, err := g.Grid(code)
		return []citywarden.UnitGrid{u}, err
	}
	all, err := g.store.UnitGridVersions(ctx, code)
	if err != nil {
		return nil, fmt.Errorf("unit grid %s: %w", code, err)
	}
	if len(all) == 0 {
		return nil, citywarden.Errorf(citywarden.CodeNotFound, "no unit grid %q", code)
	}
	return all, nil
}

// Under returns the grids of the area of a code, like 350623100 for a town, in
// the order of their codes; all for "".
func (g *Grids) Under(area string) []citywarden.UnitGrid {
	g.mu.RLock()
	defer g.mu.RUnlock()
	lo, _ := slices.BinarySearchFunc(g.all, area, func(u citywarden.UnitGrid, a string) int { return cmp.Compare(string(u.Code), a) })
	hi := lo
	for hi < len(g.all) && strings.HasPrefix(string(g.all[hi].Code), area) {
		hi++
	}
	return slices.Clone(g.all[lo:hi])
}

// Areas returns the counties, towns or villages that the grids under the area
// of a code make up, in the order of their codes.
func (g *Grids) Areas(l citywarden.Level, under string) []citywarden.Area {
	var out []citywarden.Area
	for _, u := range g.Under(under) {
		code := u.Code.In(l)
		if code == "" {
			continue
		}
		if n := len(out); n == 0 || out[n-1].Code != code {
			out = append(out, citywarden.Area{Code: code, Level: l})
		}
		a := &out[len(out)-1]
		a.Name = cmp.Or(a.Name, u.In(l))
		a.Grids++
		a.Area += u.Area
	}
	return out
}

// Add checks the grids in add together with those that are there (a grid of the
// same code is replaced) and keeps them, all or none. The rules checked are
// those of GB/T 30428.1 that geometry alone can tell: a 15-digit code, a closed
// simple ring, no overlap. A CodeInvalid error lists up to 20 mistakes.
func (g *Grids) Add(ctx context.Context, add []citywarden.UnitGrid) error {
	r, err := g.take(ctx, add, citywarden.GridImport{Force: true}, citywarden.GridReport{})
	if err != nil || len(r.Errors) == 0 {
		return err
	}
	var problems []string
	for _, p := range r.Errors[:min(len(r.Errors), 20)] {
		problems = append(problems, p.Text)
	}
	if n := len(r.Errors) - len(problems); n > 0 {
		problems = append(problems, fmt.Sprintf("and %d more", n))
	}
	return citywarden.Errorf(citywarden.CodeInvalid, "unit grids: nothing imported:\n%s", strings.Join(problems, "\n"))
}

// take checks add together with what is there and, unless something is wrong
// already, keeps it.
func (g *Grids) take(ctx context.Context, add []citywarden.UnitGrid, o citywarden.GridImport, r citywarden.GridReport) (citywarden.GridReport, error) {
	g.adding.Lock()
	defer g.adding.Unlock()
	now := time.Now().UTC().Truncate(time.Millisecond)
	merged := map[citywarden.GridCode]citywarden.UnitGrid{}
	for _, u := range g.All() {
		merged[u.Code] = u
	}
	c := checker{fresh: map[citywarden.GridCode]bool{}, errors: r.Errors, warnings: r.Warnings}
	touched := map[string]bool{}
	var save []citywarden.UnitGrid
	for _, u := range add {
		u.Ring = openRing(u.Ring)
		if u.Area <= 0 {
			u.Area = math.Round(ringArea(u.Ring))
		}
		u.From = now
		if c.fresh[u.Code] {
			c.fail(citywarden.FaultCode, nil, []citywarden.GridCode{u.Code}, "grid %s is there twice; give one of them another code", u.Code)
			continue
		}
		c.fresh[u.Code] = true
		touched[u.Code.In(citywarden.LevelVillage)] = true
		switch before, there := merged[u.Code]; {
		case !there:
			r.Added++
		case sameGrid(before, u):
			r.Same++
			continue
		default:
			r.Changed++
		}
		merged[u.Code] = u
		save = append(save, u)
	}
	var end []citywarden.GridCode
	if o.Replace {
		for _, u := range g.All() {
			if own := u.Code.In(citywarden.LevelVillage); own != "" && touched[own] && !c.fresh[u.Code] {
				delete(merged, u.Code)
				end = append(end, u.Code)
			}
		}
	}
	r.Grids, r.Ended = len(add), len(end)
	c.all = slices.SortedFunc(maps.Values(merged), func(a, b citywarden.UnitGrid) int { return cmp.Compare(a.Code, b.Code) })
	c.check(o.Force)
	r.Errors, r.Warnings = append([]citywarden.GridProblem{}, c.errors...), append([]citywarden.GridProblem{}, c.warnings...)
	if len(r.Errors) > 0 || o.Check {
		return r, nil
	}
	if g.store != nil && len(save)+len(end) > 0 {
		if err := g.store.ChangeUnitGrids(ctx, now, save, end); err != nil {
			return r, fmt.Errorf("save unit grids: %w", err)
		}
	}
	g.set(c.all)
	r.Taken = true
	return r, nil
}

// sameGrid reports whether two grids differ only in when they hold.
func sameGrid(a, b citywarden.UnitGrid) bool {
	ring := slices.Equal(a.Ring, b.Ring)
	a.Ring, a.From, a.Until = nil, time.Time{}, time.Time{}
	b.Ring, b.From, b.Until = nil, time.Time{}, time.Time{}
	return ring && reflect.DeepEqual(a, b)
}

// MaxImport is the largest GeoJSON file that Import reads, in bytes.
const MaxImport = 64 << 20

type feature struct {
	Type       string     `json:"type"`
	Properties properties `json:"properties"`
	Geometry   struct {
		Type        string          `json:"type"`
		Coordinates json.RawMessage `json:"coordinates"`
	} `json:"geometry"`
}

// properties are those of a unit grid, by our names and by those of the
// standard, which case doesn't matter for.
type properties struct {
	Kind      string  `json:"kind,omitempty"`
	Code      string  `json:"code"`
	BGID      string  `json:"bgid,omitempty"`
	Name      string  `json:"name,omitempty"`
	County    string  `json:"county,omitempty"`
	Town      string  `json:"town,omitempty"`
	Village   string  `json:"village,omitempty"`
	Community string  `json:"community,omitempty"` // its 12 digits, for checking
	Area      float64 `json:"area_m2,omitempty"`
	Initial   string  `json:"initial_date,omitempty"`
	ORDate    string  `json:"ordate,omitempty"`
	Changed   string  `json:"change_date,omitempty"`
	CHDate    string  `json:"chdate,omitempty"`
	Remark    string  `json:"remark,omitempty"`
	Note      string  `json:"note,omitempty"`
	Level     string  `json:"level,omitempty"` // of an area, not of a grid
	Grids     int     `json:"grids,omitempty"`
}

type featureCollection struct {
	Type     string          `json:"type"`
	CRS      json.RawMessage `json:"crs,omitempty"`
	Features []feature       `json:"features"`
}

// crs returns the coordinate system that the file declares, as "GCJ-02" or in
// the manner of GeoJSON 2008; "" when it doesn't.
func (fc *featureCollection) crs() string {
	var name string
	if json.Unmarshal(fc.CRS, &name) == nil {
		return name
	}
	var old struct {
		Properties struct {
			Name string `json:"name"`
		} `json:"properties"`
	}
	if json.Unmarshal(fc.CRS, &old) != nil {
		return ""
	}
	return old.Properties.Name
}

// Import adds the grids of a GeoJSON FeatureCollection (RFC 7946), all or none,
// and returns what is wrong with them. Every feature is a Polygon without holes
// and has the property code, perhaps name, county, town, village, community,
// area_m2 (else computed), initial_date, change_date and remark. An error says
// that the file can't be read at all, or that it could not be kept.
func (g *Grids) Import(ctx context.Context, r io.Reader, o citywarden.GridImport) (citywarden.GridReport, error) {
	report := citywarden.GridReport{}
	b, err := io.ReadAll(io.LimitReader(r, MaxImport+1))
	if err != nil {
		return report, fmt.Errorf("read GeoJSON: %w", err)
	}
	if len(b) > MaxImport {
		return report, citywarden.Errorf(citywarden.CodeInvalid, "GeoJSON: more than %d MB; import it in parts", MaxImport>>20)
	}
	var fc featureCollection
	if err := json.Unmarshal(b, &fc); err != nil {
		return report, citywarden.Errorf(citywarden.CodeInvalid, "GeoJSON: %w", err)
	}
	if fc.Type != "FeatureCollection" {
		return report, citywarden.Errorf(citywarden.CodeInvalid, "GeoJSON: type is %q, not FeatureCollection", fc.Type)
	}
	said := cmp.Or(o.CRS, fc.crs())
	if report.CRS, err = citywarden.ParseCRS(said); err != nil {
		return report, err
	}
	add := make([]citywarden.UnitGrid, 0, len(fc.Features))
	for i, f := range fc.Features {
		u, err := f.grid(report.CRS)
		if err != nil {
			report.Errors = append(report.Errors, citywarden.GridProblem{
				Kind: citywarden.FaultFeature, Grids: []citywarden.GridCode{u.Code}, Text: fmt.Sprintf("feature %d (code %q): %v", i+1, u.Code, err),
			})
			continue
		}
		add = append(add, u)
	}
	if said == "" && g.shifted(add) {
		report.Warnings = append(report.Warnings, citywarden.GridProblem{
			Kind: citywarden.FaultCRS, Grids: []citywarden.GridCode{},
			Text: "the grids lie off those of the same codes as GCJ-02 lies off WGS 84; if they are in GCJ-02, say crs GCJ-02",
		})
	}
	return g.take(ctx, add, o, report)
}

// shifted reports whether most of the grids that are there already come, taken
// as GCJ-02, much nearer to where they were.
func (g *Grids) shifted(add []citywarden.UnitGrid) bool {
	known, off := 0, 0
	for _, u := range add {
		before, err := g.Grid(u.Code)
		if err != nil {
			continue
		}
		known++
		p, was := boundsOf(u.Ring).min, boundsOf(before.Ring).min
		if 5*citywarden.GCJ02.ToWGS84(p).Distance(was) < p.Distance(was) {
			off++
		}
	}
	return off*2 > known
}

func (f *feature) grid(crs citywarden.CRS) (citywarden.UnitGrid, error) {
	p := f.Properties
	u := citywarden.UnitGrid{
		Code: citywarden.GridCode(cmp.Or(p.Code, p.BGID)), Name: p.Name, County: p.County, Town: p.Town, Village: p.Village, Area: p.Area,
		Initial: cmp.Or(p.Initial, p.ORDate), Changed: cmp.Or(p.Changed, p.CHDate), Remark: cmp.Or(p.Remark, p.Note),
	}
	if own := u.Code.In(citywarden.LevelVillage); p.Community != "" && p.Community != own {
		return u, fmt.Errorf("its community is %q, but its code begins with %q; correct one of them", p.Community, own)
	}
	if f.Geometry.Type != "Polygon" {
		return u, fmt.Errorf("its geometry is a %q; a unit grid is a Polygon", f.Geometry.Type)
	}
	var rings [][][]float64
	if err := json.Unmarshal(f.Geometry.Coordinates, &rings); err != nil {
		return u, fmt.Errorf("coordinates: %w", err)
	}
	if len(rings) != 1 {
		return u, fmt.Errorf("it has %d rings; a unit grid has one, without holes", len(rings))
	}
	for _, c := range rings[0] {
		if len(c) < 2 {
			return u, fmt.Errorf("a position needs longitude and latitude, got %v", c)
		}
		u.Ring = append(u.Ring, crs.ToWGS84(citywarden.Point{Lon: c[0], Lat: c[1]}))
	}
	if n := len(u.Ring); n < 4 || u.Ring[0] != u.Ring[n-1] {
		return u, fmt.Errorf("the ring is not closed: its last position must be its first again")
	}
	return u, nil
}

// GeoJSON returns the grids of the area of a code, "" for all, as a
// FeatureCollection, what Import reads; the property kind is "grid".
func (g *Grids) GeoJSON(area string) (json.RawMessage, error) {
	fc := featureCollection{Type: "FeatureCollection", Features: []feature{}}
	for _, u := range g.Under(area) {
		f := feature{Type: "Feature", Properties: properties{
			Kind: "grid", Code: string(u.Code), Name: u.Name, County: u.County, Town: u.Town, Village: u.Village, Area: u.Area,
			Initial: u.Initial, Changed: u.Changed, Remark: u.Remark,
		}}
		var err error
		f.Geometry.Type = "Polygon"
		if f.Geometry.Coordinates, err = json.Marshal([][][2]float64{closedRing(u.Ring)}); err != nil {
			return nil, fmt.Errorf("write grid %s: %w", u.Code, err)
		}
		fc.Features = append(fc.Features, f)
	}
	return json.Marshal(fc)
}

// Touching returns a GeoJSON FeatureCollection with those of its features that have
// a position in a, as they are.
func (g *Grids) Touching(collection json.RawMessage, a citywarden.AreaCode) (json.RawMessage, error) {
	if a == "" {
		return collection, nil
	}
	var fc map[string]json.RawMessage
	var features []json.RawMessage
	err := json.Unmarshal(collection, &fc)
	if err == nil {
		err = json.Unmarshal(fc["features"], &features)
	}
	kept := []json.RawMessage{}
	for _, f := range features {
		var x struct {
			Geometry struct {
				Coordinates any `json:"coordinates"`
			} `json:"geometry"`
		}
		if err == nil {
			err = json.Unmarshal(f, &x)
		}
		if g.touches(x.Geometry.Coordinates, a) {
			kept = append(kept, f)
		}
	}
	if err != nil {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "GeoJSON: %w", err)
	}
	if fc["features"], err = json.Marshal(kept); err != nil {
		return nil, err
	}
	return json.Marshal(fc)
}

// touches reports whether one of the positions in the coordinates of a geometry
// lies in a.
func (g *Grids) touches(coordinates any, a citywarden.AreaCode) bool {
	list, _ := coordinates.([]any)
	if len(list) >= 2 {
		lon, ok := list[0].(float64)
		lat, also := list[1].(float64)
		if ok && also {
			return a.Has(g.At(citywarden.Point{Lat: lat, Lon: lon}))
		}
	}
	return slices.ContainsFunc(list, func(c any) bool { return g.touches(c, a) })
}

// AreasGeoJSON returns the outlines of the areas that Areas returns as a
// FeatureCollection of MultiPolygons; the property kind is "area".
func (g *Grids) AreasGeoJSON(l citywarden.Level, under string) (json.RawMessage, error) {
	fc := featureCollection{Type: "FeatureCollection", Features: []feature{}}
	for _, a := range g.Areas(l, under) {
		f := feature{Type: "Feature", Properties: properties{Kind: "area", Code: a.Code, Name: a.Name, Area: a.Area, Level: string(l), Grids: a.Grids}}
		var err error
		f.Geometry.Type = "MultiPolygon"
		if f.Geometry.Coordinates, err = json.Marshal(outline(g.Under(a.Code))); err != nil {
			return nil, fmt.Errorf("write area %s: %w", a.Code, err)
		}
		fc.Features = append(fc.Features, f)
	}
	return json.Marshal(fc)
}

// outline returns what grids cover together, as the coordinates of a
// MultiPolygon: rings around ground, each with the holes in it.
func outline(grids []citywarden.UnitGrid) [][][][2]float64 {
	s := newSeams(grids)
	var out [][][][2]float64
	var outer []citywarden.UnitGrid
	var holes [][]citywarden.Point
	for _, loop := range s.loops() {
		n := corners(loop)
		ring := make([]citywarden.Point, len(n))
		for i, k := range n {
			ring[i] = s.points[k]
		}
		if s.area(n) < 0 {
			holes = append(holes, ring)
			continue
		}
		outer = append(outer, citywarden.UnitGrid{Ring: ring})
		out = append(out, [][][2]float64{closedRing(ring)})
	}
	for _, h := range holes {
		p := innerPoint(h)
		if i := slices.IndexFunc(outer, func(u citywarden.UnitGrid) bool { return u.Contains(p) }); i >= 0 {
			out[i] = append(out[i], closedRing(h))
		}
	}
	return out
}

// closedRing returns ring as GeoJSON has it: longitude first, the first position
// again at the end.
func closedRing(ring []citywarden.Point) [][2]float64 {
	out := make([][2]float64, 0, len(ring)+1)
	for _, p := range ring {
		out = append(out, [2]float64{p.Lon, p.Lat})
	}
	return append(out, out[0])
}

// openRing leaves out a last point that repeats the first.
func openRing(ring []citywarden.Point) []citywarden.Point {
	if n := len(ring); n > 1 && ring[0] == ring[n-1] {
		return ring[:n-1]
	}
	return ring
}

// gridIndex is a raster over the bounds of all grids, about one cell for each;
// a cell lists the grids whose bounds touch it.
type gridIndex struct {
	bounds bounds
	side   int // cells in each direction
	cells  [][]int32
}

func newGridIndex(all []citywarden.UnitGrid) gridIndex {
	var x gridIndex
	for i := range all {
		if len(all[i].Ring) == 0 {
			continue
		}
		b := boundsOf(all[i].Ring)
		if x.side == 0 {
			x.bounds, x.side = b, int(math.Ceil(math.Sqrt(float64(len(all)))))
		}
		x.bounds = boundsOf([]citywarden.Point{x.bounds.min, x.bounds.max, b.min, b.max})
	}
	x.cells = make([][]int32, x.side*x.side)
	for i := range all {
		if len(all[i].Ring) == 0 {
			continue
		}
		b := boundsOf(all[i].Ring)
		r0, c0 := x.cell(b.min)
		r1, c1 := x.cell(b.max)
		for r := r0; r <= r1; r++ {
			for c := c0; c <= c1; c++ {
				x.cells[r*x.side+c] = append(x.cells[r*x.side+c], int32(i))
			}
		}
	}
	return x
}

func (x *gridIndex) cell(p citywarden.Point) (row, col int) {
	part := func(v, lo, hi float64) int {
		if hi <= lo {
			return 0
		}
		return max(0, min(x.side-1, int((v-lo)/(hi-lo)*float64(x.side))))
	}
	return part(p.Lat, x.bounds.min.Lat, x.bounds.max.Lat), part(p.Lon, x.bounds.min.Lon, x.bounds.max.Lon)
}

// at returns the indices of the grids that may contain p.
func (x *gridIndex) at(p citywarden.Point) []int32 {
	if x.side == 0 || p.Lat < x.bounds.min.Lat || p.Lat > x.bounds.max.Lat || p.Lon < x.bounds.min.Lon || p.Lon > x.bounds.max.Lon {
		return nil
	}
	r, c := x.cell(p)
	return x.cells[r*x.side+c]
}
