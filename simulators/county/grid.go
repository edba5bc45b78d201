package county

import (
	"fmt"
	"math"
	"slices"

	"github.com/citywarden/citywarden"
)

// The lattice that the county is drawn on: cells x cells of about 150 m, whose
// shared vertices are moved, so that no cell is a square and none leaves a gap.
const (
	cells = 20
	cell  = Size / cells
)

// Streets run along these lines of the lattice; unit grids are drawn along them.
var (
	streetsX = [...]int{3, 7, 10, 14, 17} // running south to north
	streetsY = [...]int{3, 6, 10, 13, 17} // running west to east
)

// xy is a position in metres east and north of the south-west corner.
type xy struct{ x, y float64 }

func (p xy) to(q xy, share float64) xy { return xy{p.x + (q.x-p.x)*share, p.y + (q.y-p.y)*share} }

func (p xy) dist(q xy) float64 { return math.Hypot(q.x-p.x, q.y-p.y) }

type lattice struct {
	v [cells + 1][cells + 1]xy // v[i][j]: i lines from the west, j from the south
}

func newLattice() *lattice {
	l := new(lattice)
	for i := range l.v {
		for j := range l.v[i] {
			x, y := float64(i)*cell, float64(j)*cell
			jx, jy := 30*spread(i, j, 1), 30*spread(i, j, 2)
			if slices.Contains(streetsX[:], i) {
				jx /= 8
			}
			if slices.Contains(streetsY[:], j) {
				jy /= 8
			}
			// The whole town is bent a little; its outer border stays straight.
			jx += 40 * math.Sin(2*math.Pi*y/Size+1)
			jy += 35 * math.Sin(2*math.Pi*x/Size+0.5)
			l.v[i][j] = xy{x + jx*math.Sin(math.Pi*x/Size), y + jy*math.Sin(math.Pi*y/Size)}
			if i == 0 || i == cells {
				l.v[i][j].x = x
			}
			if j == 0 || j == cells {
				l.v[i][j].y = y
			}
		}
	}
	return l
}

// at is PointAt.
func (l *lattice) at(x, y float64) citywarden.Point { return PointAt(x, y) }

// PointAt returns the position x metres east and y metres north of the
// county's south-west corner, rounded to 1e-7 degrees (about 1 cm).
func PointAt(x, y float64) citywarden.Point {
	round := func(f float64) float64 { return math.Round(f*1e7) / 1e7 }
	return citywarden.Point{Lat: round(midLat + (y-Size/2)/degLat), Lon: round(midLon + (x-Size/2)/degLon)}
}

func (l *lattice) point(p xy) citywarden.Point { return l.at(p.x, p.y) }

func (l *lattice) points(ps []xy) []citywarden.Point {
	out := make([]citywarden.Point, len(ps))
	for i, p := range ps {
		out[i] = l.point(p)
	}
	return out
}

// communities by column (split by Longhu Road and Jinpu Road) and row (split by
// Zhongshan Road), the northern row first.
var communities = [2][3]struct {
	code string
	name citywarden.Text
}{
	{{"001", citywarden.Text{ZH: "城西社区", EN: "Chengxi"}}, {"002", citywarden.Text{ZH: "府前社区", EN: "Fuqian"}}, {"003", citywarden.Text{ZH: "朝阳社区", EN: "Chaoyang"}}},
	{{"004", citywarden.Text{ZH: "麦市社区", EN: "Maishi"}}, {"005", citywarden.Text{ZH: "龙湖社区", EN: "Longhu"}}, {"006", citywarden.Text{ZH: "鹿溪社区", EN: "Luxi"}}},
}

func communityOf(i, j int) (row, col int) {
	if j < streetsY[2] {
		row = 1
	}
	switch {
	case i >= streetsX[3]:
		col = 2
	case i >= streetsX[1]:
		col = 1
	}
	return row, col
}

// joined reports whether cell i, j and the one to the east of it are one unit
// grid: a school, a park, a compound that nothing cuts through.
func joined(i, j int) bool {
	if i < 0 || i+1 >= cells || slices.Contains(streetsX[:], i+1) {
		return false
	}
	return spread(i, j, 3) > 0.72 && !joined(i-1, j)
}

// grids numbers the unit grids of each community from west to east, then from
// north to south (GB/T 30428.1).
func (l *lattice) grids() []citywarden.UnitGrid {
	var out []citywarden.UnitGrid
	for row := range communities {
		for col := range communities[row] {
			com, n := communities[row][col], 0
			for j := cells - 1; j >= 0; j-- {
				for i := range cells {
					if r, c := communityOf(i, j); r != row || c != col || joined(i-1, j) {
						continue
					}
					n++
					ring := l.ring(i, j)
					out = append(out, citywarden.UnitGrid{
						Code:   citywarden.GridCode(fmt.Sprintf("%s%s%s%03d", Code, Town, com.code, n)),
						Name:   fmt.Sprintf("%s%03d", com.name.ZH, n),
						County: "漳浦县", Town: "绥安镇", Village: com.name.ZH,
						Ring: l.points(ring),
						Area: math.Round(area(ring)),
					})
				}
			}
		}
	}
	return out
}

// ring returns the outline of the unit grid that begins with cell i, j,
// counter-clockwise.
func (l *lattice) ring(i, j int) []xy {
	if joined(i, j) {
		return []xy{l.v[i][j], l.v[i+1][j], l.v[i+2][j], l.v[i+2][j+1], l.v[i+1][j+1], l.v[i][j+1]}
	}
	return []xy{l.v[i][j], l.v[i+1][j], l.v[i+1][j+1], l.v[i][j+1]}
}

// middle returns the middle of cell i, j.
func (l *lattice) middle(i, j int) xy {
	var m xy
	for _, p := range [...]xy{l.v[i][j], l.v[i+1][j], l.v[i+1][j+1], l.v[i][j+1]} {
		m.x, m.y = m.x+p.x/4, m.y+p.y/4
	}
	return m
}

// area returns the area of a ring in m².
func area(ring []xy) float64 {
	var s float64
	for i, p := range ring {
		q := ring[(i+1)%len(ring)]
		s += p.x*q.y - q.x*p.y
	}
	return math.Abs(s) / 2
}
