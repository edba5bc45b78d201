package cases

import (
	"cmp"
	"math"
	"slices"

	"github.com/citywarden/citywarden"
)

// How neighbours may differ, in metres.
const (
	seamWidth = 0.5 // edges that are no further apart are the same edge; a gap is wider, on average
	mouth     = 10  // a gap that opens to the outside by no more than this is a gap still
)

// seams are grids whose common edges are found: where neighbours meet, their
// edges cancel each other, and those that stay open enclose all of them, or
// gaps between them.
type seams struct {
	points []citywarden.Point
	xy     [][2]float64 // of points, in metres
	open   []seam
	beside map[int32]map[int32]bool // grids that share an edge
}

// seam is an edge from one point to another, its grid to the left.
type seam struct{ a, b, grid int32 }

// gap is ground that no grid has.
type gap struct {
	ring  []citywarden.Point
	edges []seam
}

// grids returns the codes of the grids around the gap, in their order.
func (g *gap) grids(all []citywarden.UnitGrid) []citywarden.GridCode {
	var out []citywarden.GridCode
	for _, e := range g.edges {
		out = append(out, all[e.grid].Code)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func newSeams(all []citywarden.UnitGrid) *seams {
	s := &seams{beside: map[int32]map[int32]bool{}}
	rings := s.snap(all)
	near := map[[2]int][]int32{}
	for i, p := range s.xy {
		near[cellOf(p)] = append(near[cellOf(p)], int32(i))
	}
	edges := map[[2]int32]int32{}
	for g, ring := range rings {
		for i, a := range ring {
			b := ring[(i+1)%len(ring)]
			if a == b {
				continue // too small to have edges
			}
			for _, c := range append(s.between(a, b, near), b) {
				edges[[2]int32{a, c}] = int32(g)
				a = c
			}
		}
	}
	for e, g := range edges {
		other, shared := edges[[2]int32{e[1], e[0]}]
		switch {
		case !shared:
			s.open = append(s.open, seam{e[0], e[1], g})
		case other != g:
			if s.beside[g] == nil {
				s.beside[g] = map[int32]bool{}
			}
			s.beside[g][other] = true
		}
	}
	slices.SortFunc(s.open, func(x, y seam) int { return cmp.Or(cmp.Compare(x.a, y.a), cmp.Compare(x.b, y.b)) })
	return s
}

// snap gives corners that are no further apart than seamWidth one number, and
// returns the rings by them, counter-clockwise.
func (s *seams) snap(all []citywarden.UnitGrid) [][]int32 {
	if len(all) == 0 {
		return nil
	}
	const metres = 6371009 * math.Pi / 180
	origin := all[0].Ring[0]
	kx := metres * math.Cos(origin.Lat*math.Pi/180)
	seen := map[[2]int][]int32{}
	number := func(p citywarden.Point) int32 {
		q := [2]float64{(p.Lon - origin.Lon) * kx, (p.Lat - origin.Lat) * metres}
		x, y := int(math.Floor(q[0]/seamWidth)), int(math.Floor(q[1]/seamWidth))
		for i := x - 1; i <= x+1; i++ {
			for j := y - 1; j <= y+1; j++ {
				for _, n := range seen[[2]int{i, j}] {
					if math.Hypot(s.xy[n][0]-q[0], s.xy[n][1]-q[1]) <= seamWidth {
						return n
					}
				}
			}
		}
		n := int32(len(s.points))
		s.points, s.xy = append(s.points, p), append(s.xy, q)
		seen[[2]int{x, y}] = append(seen[[2]int{x, y}], n)
		return n
	}
	rings := make([][]int32, len(all))
	for i := range all {
		for _, p := range all[i].Ring {
			rings[i] = append(rings[i], number(p))
		}
		rings[i] = slices.Compact(rings[i])
		if n := len(rings[i]); n > 1 && rings[i][0] == rings[i][n-1] {
			rings[i] = rings[i][:n-1]
		}
		if s.area(rings[i]) < 0 {
			slices.Reverse(rings[i])
		}
	}
	return rings
}

// cellOf returns the place of p in a lattice of 20 m.
func cellOf(p [2]float64) [2]int {
	return [2]int{int(math.Floor(p[0] / 20)), int(math.Floor(p[1] / 20))}
}

// between returns the points that lie on the edge from a to b, in their order.
func (s *seams) between(a, b int32, near map[[2]int][]int32) []int32 {
	p, q := s.xy[a], s.xy[b]
	dx, dy := q[0]-p[0], q[1]-p[1]
	l := math.Hypot(dx, dy)
	along := map[int32]float64{}
	for d := 0.0; ; d += 20 {
		t := min(d/l, 1)
		at := cellOf([2]float64{p[0] + t*dx, p[1] + t*dy})
		for x := at[0] - 1; x <= at[0]+1; x++ {
			for y := at[1] - 1; y <= at[1]+1; y++ {
				for _, n := range near[[2]int{x, y}] {
					ex, ey := s.xy[n][0]-p[0], s.xy[n][1]-p[1]
					u := (ex*dx + ey*dy) / (l * l)
					if n != a && n != b && u > 0 && u < 1 && math.Abs(dx*ey-dy*ex)/l <= seamWidth {
						along[n] = u
					}
				}
			}
		}
		if d >= l {
			break
		}
	}
	out := make([]int32, 0, len(along)+1)
	for n := range along {
		out = append(out, n)
	}
	slices.SortFunc(out, func(x, y int32) int { return cmp.Or(cmp.Compare(along[x], along[y]), cmp.Compare(x, y)) })
	return out
}

// area returns the area of a ring in m², below zero when it runs clockwise.
func (s *seams) area(ring []int32) float64 {
	sum := 0.0
	for i, a := range ring {
		p, q := s.xy[a], s.xy[ring[(i+1)%len(ring)]]
		sum += p[0]*q[1] - q[0]*p[1]
	}
	return sum / 2
}

// loops returns the rings that the open edges make. Those around grids run
// counter-clockwise, those around gaps clockwise.
func (s *seams) loops() [][]seam {
	out := map[int32][]int{}
	for i, e := range s.open {
		out[e.a] = append(out[e.a], i)
	}
	used := make([]bool, len(s.open))
	var loops [][]seam
	for first := range s.open {
		if used[first] {
			continue
		}
		var loop []seam
		for i := first; i >= 0; {
			used[i] = true
			loop = append(loop, s.open[i])
			if i = s.next(s.open[i], out, used); i < 0 && loop[0].a == loop[len(loop)-1].b {
				loops = append(loops, loop)
			}
		}
	}
	return loops
}

// next returns the edge that goes on from e with the sharpest turn to the right,
// so that ground that only meets in a point stays apart; -1 for none left.
func (s *seams) next(e seam, out map[int32][]int, used []bool) int {
	p, q := s.xy[e.a], s.xy[e.b]
	best, turn := -1, math.Inf(1)
	for _, i := range out[e.b] {
		r := s.xy[s.open[i].b]
		x1, y1, x2, y2 := q[0]-p[0], q[1]-p[1], r[0]-q[0], r[1]-q[1]
		if t := math.Atan2(x1*y2-y1*x2, x1*x2+y1*y2); !used[i] && t < turn {
			best, turn = i, t
		}
	}
	return best
}

// gaps returns the ground that the grids enclose but for a mouth, and that none
// of them has.
func (s *seams) gaps() []gap {
	var out []gap
	add := func(edges []seam) bool {
		ring := corners(edges)
		around := 0.0
		for i, a := range ring {
			p, q := s.xy[a], s.xy[ring[(i+1)%len(ring)]]
			around += math.Hypot(p[0]-q[0], p[1]-q[1])
		}
		if area := s.area(ring); area >= 0 || -2*area/around <= seamWidth {
			return false
		}
		g := gap{edges: edges}
		for _, n := range ring {
			g.ring = append(g.ring, s.points[n])
		}
		out = append(out, g)
		return true
	}
	for _, loop := range s.loops() {
		if add(loop) {
			continue
		}
		for i, end := range s.pockets(loop) {
			if end > 0 {
				add(loop[i:end])
			}
		}
	}
	return out
}

// pockets returns for each edge of an outer loop where the ground ends that
// opens to the outside there by no more than the mouth, 0 for none. The loop is
// turned so that it begins at its westernmost point, which is in no pocket.
func (s *seams) pockets(loop []seam) []int {
	west := 0
	for i, e := range loop {
		if s.xy[e.a][0] < s.xy[loop[west].a][0] {
			west = i
		}
	}
	copy(loop, slices.Concat(loop[west:], loop[:west]))
	near := map[[2]int][]int{}
	for i, e := range loop {
		near[cellOf(s.xy[e.a])] = append(near[cellOf(s.xy[e.a])], i)
	}
	ends := make([]int, len(loop))
	for i := 0; i < len(loop); i++ {
		p := s.xy[loop[i].a]
		at := cellOf(p)
		for x := at[0] - 1; x <= at[0]+1; x++ {
			for y := at[1] - 1; y <= at[1]+1; y++ {
				for _, j := range near[[2]int{x, y}] {
					q := s.xy[loop[j].a]
					if j > i+1 && j > ends[i] && math.Hypot(p[0]-q[0], p[1]-q[1]) <= mouth && s.area(corners(loop[i:j])) < 0 {
						ends[i] = j
					}
				}
			}
		}
		if ends[i] > 0 {
			i = ends[i] - 1
		}
	}
	return ends
}

// corners returns where the edges begin, and where the last ends unless that is
// where the first begins.
func corners(edges []seam) []int32 {
	out := make([]int32, 0, len(edges)+1)
	for _, e := range edges {
		out = append(out, e.a)
	}
	if last := edges[len(edges)-1].b; last != out[0] {
		out = append(out, last)
	}
	return out
}
