package cases

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/citywarden/citywarden"
)

// GridStore keeps the unit grids.
type GridStore interface {
	UnitGrids(context.Context) ([]citywarden.UnitGrid, error)
	SaveUnitGrids(context.Context, []citywarden.UnitGrid) error // adds them, or replaces those of the same code, all or none
}

// Grids are the unit grids of the county. They may be used by several goroutines.
type Grids struct {
	store GridStore // nil: in memory only

	adding sync.Mutex // held by Add from reading all to replacing it, the store included

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

// Add checks the grids in add together with those that are there (a grid of the
// same code is replaced) and keeps them, all or none. The rules checked are
// those of GB/T 30428.1 that geometry alone can tell: a 15-digit code, a closed
// simple ring, no overlap. A CodeInvalid error lists up to 20 mistakes.
func (g *Grids) Add(ctx context.Context, add []citywarden.UnitGrid) error {
	g.adding.Lock()
	defer g.adding.Unlock()
	merged := map[citywarden.GridCode]citywarden.UnitGrid{}
	for _, u := range g.All() {
		merged[u.Code] = u
	}
	var problems []string
	fresh := map[citywarden.GridCode]bool{}
	add = slices.Clone(add)
	for i := range add {
		add[i].Ring = openRing(add[i].Ring)
		if fresh[add[i].Code] {
			problems = append(problems, fmt.Sprintf("grid %s is there twice", add[i].Code))
		}
		if add[i].Area <= 0 {
			add[i].Area = math.Round(ringArea(add[i].Ring))
		}
		fresh[add[i].Code] = true
		merged[add[i].Code] = add[i]
	}
	all := make([]citywarden.UnitGrid, 0, len(merged))
	for _, u := range merged {
		all = append(all, u)
	}
	slices.SortFunc(all, func(a, b citywarden.UnitGrid) int { return cmp.Compare(a.Code, b.Code) })
	problems = append(problems, checkTopology(all, fresh)...)
	if len(problems) > 0 {
		more := ""
		if len(problems) > 20 {
			more = fmt.Sprintf("\nand %d more", len(problems)-20)
			problems = problems[:20]
		}
		return citywarden.Errorf(citywarden.CodeInvalid, "unit grids: nothing imported:\n%s%s", strings.Join(problems, "\n"), more)
	}
	if g.store != nil {
		if err := g.store.SaveUnitGrids(ctx, add); err != nil {
			return fmt.Errorf("save unit grids: %w", err)
		}
	}
	g.set(all)
	return nil
}

// MaxImport is the largest GeoJSON file that Import reads, in bytes.
const MaxImport = 64 << 20

type feature struct {
	Type       string `json:"type"`
	Properties struct {
		Code string  `json:"code"`
		Name string  `json:"name,omitempty"`
		Area float64 `json:"area_m2,omitempty"`
		Kind string  `json:"kind,omitempty"`
	} `json:"properties"`
	Geometry struct {
		Type        string          `json:"type"`
		Coordinates json.RawMessage `json:"coordinates"`
	} `json:"geometry"`
}

type featureCollection struct {
	Type     string    `json:"type"`
	Features []feature `json:"features"`
}

// Import adds the grids of a GeoJSON FeatureCollection (RFC 7946, WGS 84) as
// Add does, and returns how many there were. Every feature is a Polygon without
// holes and has the property code, perhaps name and area_m2 (else computed).
func (g *Grids) Import(ctx context.Context, r io.Reader) (int, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxImport+1))
	if err != nil {
		return 0, fmt.Errorf("read GeoJSON: %w", err)
	}
	if len(b) > MaxImport {
		return 0, citywarden.Errorf(citywarden.CodeInvalid, "GeoJSON: more than %d MB; import it in parts", MaxImport>>20)
	}
	var fc featureCollection
	if err := json.Unmarshal(b, &fc); err != nil {
		return 0, citywarden.Errorf(citywarden.CodeInvalid, "GeoJSON: %w", err)
	}
	if fc.Type != "FeatureCollection" {
		return 0, citywarden.Errorf(citywarden.CodeInvalid, "GeoJSON: type is %q, not FeatureCollection", fc.Type)
	}
	add := make([]citywarden.UnitGrid, len(fc.Features))
	for i, f := range fc.Features {
		if add[i], err = f.grid(); err != nil {
			return 0, citywarden.Errorf(citywarden.CodeInvalid, "GeoJSON: feature %d (code %q): %w", i+1, f.Properties.Code, err)
		}
	}
	return len(add), g.Add(ctx, add)
}

func (f *feature) grid() (citywarden.UnitGrid, error) {
	u := citywarden.UnitGrid{Code: citywarden.GridCode(f.Properties.Code), Name: f.Properties.Name, Area: f.Properties.Area}
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
		u.Ring = append(u.Ring, citywarden.Point{Lon: c[0], Lat: c[1]})
	}
	if n := len(u.Ring); n < 4 || u.Ring[0] != u.Ring[n-1] {
		return u, fmt.Errorf("the ring is not closed: its last position must be its first again")
	}
	return u, nil
}

// GeoJSON returns all grids as a FeatureCollection, what Import reads; the
// property kind is "grid".
func (g *Grids) GeoJSON() (json.RawMessage, error) {
	fc := featureCollection{Type: "FeatureCollection", Features: []feature{}}
	for _, u := range g.All() {
		ring := make([][2]float64, 0, len(u.Ring)+1)
		for _, p := range append(slices.Clone(u.Ring), u.Ring[0]) {
			ring = append(ring, [2]float64{p.Lon, p.Lat})
		}
		coordinates, err := json.Marshal([][][2]float64{ring})
		if err != nil {
			return nil, fmt.Errorf("write grid %s: %w", u.Code, err)
		}
		f := feature{Type: "Feature"}
		f.Properties.Code, f.Properties.Name, f.Properties.Area, f.Properties.Kind = string(u.Code), u.Name, u.Area, "grid"
		f.Geometry.Type, f.Geometry.Coordinates = "Polygon", coordinates
		fc.Features = append(fc.Features, f)
	}
	return json.Marshal(fc)
}

// openRing leaves out a last point that repeats the first.
func openRing(ring []citywarden.Point) []citywarden.Point {
	if n := len(ring); n > 1 && ring[0] == ring[n-1] {
		return ring[:n-1]
	}
	return ring
}

// checkTopology returns what is wrong with the grids in fresh, alone and
// against all others.
func checkTopology(all []citywarden.UnitGrid, fresh map[citywarden.GridCode]bool) []string {
	var problems []string
	bad := map[citywarden.GridCode]bool{}
	for i := range all {
		u := &all[i]
		if !fresh[u.Code] {
			continue
		}
		if p := checkGrid(u); p != "" {
			problems = append(problems, fmt.Sprintf("grid %s: %s", u.Code, p))
			bad[u.Code] = true
		}
	}
	if len(bad) > 0 {
		return problems // a broken ring would only cause mistakes that follow from it
	}
	index := newGridIndex(all)
	done := map[[2]int]bool{}
	for _, cell := range index.cells {
		for x, i := range cell {
			for _, j := range cell[x+1:] {
				pair := [2]int{int(i), int(j)}
				if done[pair] || !fresh[all[i].Code] && !fresh[all[j].Code] {
					continue
				}
				done[pair] = true
				if overlap(&all[i], &all[j]) {
					problems = append(problems, fmt.Sprintf("grids %s and %s overlap", all[i].Code, all[j].Code))
				}
			}
		}
	}
	slices.Sort(problems)
	return problems
}

func checkGrid(u *citywarden.UnitGrid) string {
	if err := u.Code.Check(); err != nil {
		return err.Error()
	}
	if len(u.Ring) < 3 {
		return fmt.Sprintf("its ring has %d different points; it needs 3", len(u.Ring))
	}
	for _, p := range u.Ring {
		if err := p.Check(); err != nil {
			return err.Error()
		}
	}
	if ringArea(u.Ring) < 1 {
		return "its area is below 1 m²"
	}
	n := len(u.Ring)
	for i := range n {
		a, b := u.Ring[i], u.Ring[(i+1)%n]
		for j := i + 1; j < n; j++ {
			c, d := u.Ring[j], u.Ring[(j+1)%n]
			if a == c {
				return fmt.Sprintf("its ring comes twice through lat %g, lon %g", a.Lat, a.Lon)
			}
			if crosses(a, b, c, d) {
				return fmt.Sprintf("its ring crosses itself near lat %g, lon %g", a.Lat, a.Lon)
			}
		}
	}
	return ""
}

// tolerance is about 1 cm in degrees: surveyed corners of neighbours differ by that.
const tolerance = 1e-7

// overlap reports whether the insides of two simple rings meet: an edge of one
// cuts through one of the other, or one has a point well inside the other.
func overlap(a, b *citywarden.UnitGrid) bool {
	ba, bb := boundsOf(a.Ring), boundsOf(b.Ring)
	if ba.min.Lat > bb.max.Lat || bb.min.Lat > ba.max.Lat || ba.min.Lon > bb.max.Lon || bb.min.Lon > ba.max.Lon {
		return false
	}
	for i := range a.Ring {
		p, q := a.Ring[i], a.Ring[(i+1)%len(a.Ring)]
		for j := range b.Ring {
			if crosses(p, q, b.Ring[j], b.Ring[(j+1)%len(b.Ring)]) {
				return true
			}
		}
	}
	return reaches(a, b) || reaches(b, a)
}

// reaches reports whether a corner, the middle of an edge or an inner point of
// a lies inside b, further from its boundary than the tolerance.
func reaches(a, b *citywarden.UnitGrid) bool {
	for i := range a.Ring {
		p, q := a.Ring[i], a.Ring[(i+1)%len(a.Ring)]
		if deepIn(p, b) || deepIn(citywarden.Point{Lat: (p.Lat + q.Lat) / 2, Lon: (p.Lon + q.Lon) / 2}, b) {
			return true
		}
	}
	return deepIn(innerPoint(a.Ring), b)
}

func deepIn(p citywarden.Point, u *citywarden.UnitGrid) bool {
	if !u.Contains(p) {
		return false
	}
	for i := range u.Ring {
		if segmentDistance(p, u.Ring[i], u.Ring[(i+1)%len(u.Ring)]) <= tolerance {
			return false
		}
	}
	return true
}

// innerPoint returns a point inside ring: lines of latitude halfway between its
// corners cut stretches out of it; it is the middle of the one with most room.
func innerPoint(ring []citywarden.Point) citywarden.Point {
	lats := make([]float64, len(ring))
	for i, p := range ring {
		lats[i] = p.Lat
	}
	slices.Sort(lats)
	best, room := ring[0], 0.0
	for i := 1; i < len(lats); i++ {
		lat := (lats[i-1] + lats[i]) / 2
		var cuts []float64
		for j := range ring {
			p, q := ring[j], ring[(j+1)%len(ring)]
			if (p.Lat > lat) != (q.Lat > lat) {
				cuts = append(cuts, p.Lon+(q.Lon-p.Lon)*(lat-p.Lat)/(q.Lat-p.Lat))
			}
		}
		slices.Sort(cuts)
		for j := 1; j < len(cuts); j += 2 {
			if r := min(cuts[j]-cuts[j-1], lats[i]-lats[i-1]); r > room {
				best, room = citywarden.Point{Lat: lat, Lon: (cuts[j-1] + cuts[j]) / 2}, r
			}
		}
	}
	return best
}

// crosses reports whether the segments ab and cd cut through each other: each
// one's ends lie on both sides of the other, by more than the tolerance.
func crosses(a, b, c, d citywarden.Point) bool {
	return straddles(a, b, c, d) && straddles(c, d, a, b)
}

func straddles(a, b, c, d citywarden.Point) bool {
	x, y := sideDistance(a, b, c), sideDistance(a, b, d)
	return x > tolerance && y < -tolerance || x < -tolerance && y > tolerance
}

// sideDistance is the signed distance of p from the line through a and b, in degrees.
func sideDistance(a, b, p citywarden.Point) float64 {
	dx, dy := b.Lon-a.Lon, b.Lat-a.Lat
	l := math.Hypot(dx, dy)
	if l == 0 {
		return 0
	}
	return (dx*(p.Lat-a.Lat) - dy*(p.Lon-a.Lon)) / l
}

func segmentDistance(p, a, b citywarden.Point) float64 {
	dx, dy := b.Lon-a.Lon, b.Lat-a.Lat
	t := 0.0
	if l := dx*dx + dy*dy; l > 0 {
		t = max(0, min(1, ((p.Lon-a.Lon)*dx+(p.Lat-a.Lat)*dy)/l))
	}
	return math.Hypot(p.Lon-a.Lon-t*dx, p.Lat-a.Lat-t*dy)
}

// ringArea returns the area in m², on a plane that touches the earth at the
// ring's first point: good to 0.1 % for a few kilometres.
func ringArea(ring []citywarden.Point) float64 {
	if len(ring) < 3 {
		return 0
	}
	const metres = 6371009 * math.Pi / 180
	kx := metres * math.Cos(ring[0].Lat*math.Pi/180)
	sum := 0.0
	for i, p := range ring {
		q := ring[(i+1)%len(ring)]
		sum += (p.Lon-ring[0].Lon)*(q.Lat-ring[0].Lat) - (q.Lon-ring[0].Lon)*(p.Lat-ring[0].Lat)
	}
	return math.Abs(sum) / 2 * kx * metres
}

type bounds struct{ min, max citywarden.Point }

func boundsOf(ring []citywarden.Point) bounds {
	b := bounds{ring[0], ring[0]}
	for _, p := range ring[1:] {
		b.min.Lat, b.min.Lon = min(b.min.Lat, p.Lat), min(b.min.Lon, p.Lon)
		b.max.Lat, b.max.Lon = max(b.max.Lat, p.Lat), max(b.max.Lon, p.Lon)
	}
	return b
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
