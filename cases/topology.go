package cases

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/citywarden/citywarden"
)

// checker finds what is wrong with the grids in fresh, alone and against all
// others.
type checker struct {
	all   []citywarden.UnitGrid // by code
	fresh map[citywarden.GridCode]bool

	errors, warnings []citywarden.GridProblem
}

func (c *checker) fail(kind citywarden.GridFault, at *citywarden.Point, grids []citywarden.GridCode, format string, args ...any) {
	c.errors = append(c.errors, citywarden.GridProblem{Kind: kind, Grids: grids, At: at, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) warn(kind citywarden.GridFault, at *citywarden.Point, grids []citywarden.GridCode, format string, args ...any) {
	c.warnings = append(c.warnings, citywarden.GridProblem{Kind: kind, Grids: grids, At: at, Text: fmt.Sprintf(format, args...)})
}

// check looks at everything. What follows from a broken ring or an overlap is
// left out. Gaps are errors unless force is set.
func (c *checker) check(force bool) {
	for i := range c.all {
		if u := &c.all[i]; c.fresh[u.Code] {
			c.grid(u)
		}
	}
	if len(c.errors) == 0 {
		c.overlaps()
	}
	if len(c.errors) == 0 {
		c.seams(force)
		c.numbering()
	}
}

// grid checks one grid by itself.
func (c *checker) grid(u *citywarden.UnitGrid) {
	only := []citywarden.GridCode{u.Code}
	if err := u.Code.Check(); err != nil {
		c.fail(citywarden.FaultCode, nil, only, "grid %s: %v", u.Code, err)
		return
	}
	if u.Code[12:] == "000" {
		c.fail(citywarden.FaultCode, nil, only, "grid %s: serials run from 001 to 999 in each community", u.Code)
	}
	if len(u.Ring) < 3 {
		c.fail(citywarden.FaultRing, nil, only, "grid %s: its ring has %d different points; it needs 3", u.Code, len(u.Ring))
		return
	}
	for _, p := range u.Ring {
		if err := p.Check(); err != nil {
			c.fail(citywarden.FaultRing, nil, only, "grid %s: %v; GeoJSON has the longitude first", u.Code, err)
			return
		}
	}
	if at, what := badRing(u.Ring); what != "" {
		c.fail(citywarden.FaultRing, &at, only, "grid %s: its ring %s lat %.6f, lon %.6f; draw it again there", u.Code, what, at.Lat, at.Lon)
		return
	}
	area := ringArea(u.Ring)
	if area < 1 {
		c.fail(citywarden.FaultRing, &u.Ring[0], only, "grid %s: its area is below 1 m²; take it out or draw it again", u.Code)
	} else if math.Abs(u.Area/area-1) > 0.1 {
		c.warn(citywarden.FaultArea, &u.Ring[0], only, "grid %s: its area is said to be %.0f m², its ring encloses %.0f m²; correct one of them", u.Code, u.Area, area)
	}
}

// badRing returns where and how ring crosses or touches itself, "" when it
// doesn't.
func badRing(ring []citywarden.Point) (citywarden.Point, string) {
	n := len(ring)
	for i := range n {
		a, b := ring[i], ring[(i+1)%n]
		for j := i + 1; j < n; j++ {
			c, d := ring[j], ring[(j+1)%n]
			if a == c {
				return a, "comes twice through"
			}
			if crosses(a, b, c, d) {
				return crossing(a, b, c, d), "crosses itself at"
			}
		}
	}
	return citywarden.Point{}, ""
}

func (c *checker) overlaps() {
	index := newGridIndex(c.all)
	done := map[[2]int32]bool{}
	for _, cell := range index.cells {
		for x, i := range cell {
			for _, j := range cell[x+1:] {
				pair := [2]int32{i, j}
				a, b := &c.all[i], &c.all[j]
				if done[pair] || !c.fresh[a.Code] && !c.fresh[b.Code] {
					continue
				}
				done[pair] = true
				if at, yes := overlap(a, b); yes {
					c.fail(citywarden.FaultOverlap, &at, []citywarden.GridCode{a.Code, b.Code},
						"grids %s and %s overlap at lat %.6f, lon %.6f; give the ground to one of them", a.Code, b.Code, at.Lat, at.Lon)
				}
			}
		}
	}
	slices.SortFunc(c.errors, func(a, b citywarden.GridProblem) int { return slices.Compare(a.Grids, b.Grids) })
}

// seams looks for ground between grids that is in none, and for grids that lie
// apart from their community.
func (c *checker) seams(force bool) {
	s := newSeams(c.all)
	report := c.fail
	if force {
		report = c.warn
	}
	for _, gap := range s.gaps() {
		grids := gap.grids(c.all)
		if !slices.ContainsFunc(grids, func(g citywarden.GridCode) bool { return c.fresh[g] }) {
			continue
		}
		at := innerPoint(gap.ring)
		report(citywarden.FaultGap, &at, grids,
			"%.0f m² at lat %.6f, lon %.6f between grids %s are in none; move their edges together, or say force when nothing shall lie there",
			ringArea(gap.ring), at.Lat, at.Lon, join(grids))
	}
	size := map[string]int{}
	for i := range c.all {
		size[c.all[i].Code.In(citywarden.LevelVillage)]++
	}
	for i := range c.all {
		u, own := &c.all[i], c.all[i].Code.In(citywarden.LevelVillage)
		if !c.fresh[u.Code] || own == "" || size[own] < 2 || len(s.beside[int32(i)]) == 0 {
			continue
		}
		var others []citywarden.GridCode
		for j := range s.beside[int32(i)] {
			others = append(others, c.all[j].Code)
		}
		slices.Sort(others)
		if !slices.ContainsFunc(others, func(g citywarden.GridCode) bool { return g.In(citywarden.LevelVillage) == own }) {
			at := innerPoint(u.Ring)
			c.warn(citywarden.FaultCommunity, &at, []citywarden.GridCode{u.Code},
				"grid %s at lat %.6f, lon %.6f touches no other grid of its community %s, but %s; check its code", u.Code, at.Lat, at.Lon, own, join(others))
		}
	}
}

// numbering checks that the serials of each community that is touched run
// without leaps, from west to east and then from north to south: the next grid
// never lies to the north-west of the one before.
func (c *checker) numbering() {
	for lo := 0; lo < len(c.all); {
		own := c.all[lo].Code.In(citywarden.LevelVillage)
		hi, touched := lo, false
		for ; hi < len(c.all) && c.all[hi].Code.In(citywarden.LevelVillage) == own; hi++ {
			touched = touched || c.fresh[c.all[hi].Code]
		}
		if touched {
			c.community(c.all[lo:hi])
		}
		lo = hi
	}
}

func (c *checker) community(grids []citywarden.UnitGrid) {
	expected := 1
	for i := range grids {
		u := &grids[i]
		n, _ := strconv.Atoi(string(u.Code[12:])) // the code was checked
		if n != expected {
			c.warn(citywarden.FaultNumbering, nil, []citywarden.GridCode{u.Code},
				"community %s: serial %03d comes where %03d is expected; number without leaps unless grids have ended there", u.Code[:12], n, expected)
		}
		expected = n + 1
		if i == 0 {
			continue
		}
		p, q := boundsOf(grids[i-1].Ring), boundsOf(u.Ring)
		if q.max.Lon <= p.min.Lon+tolerance && q.min.Lat >= p.max.Lat-tolerance {
			c.warn(citywarden.FaultNumbering, nil, []citywarden.GridCode{grids[i-1].Code, u.Code},
				"grid %s lies to the north-west of %s; serials run from west to east, then from north to south", u.Code, grids[i-1].Code)
		}
	}
}

// join writes up to four codes.
func join(grids []citywarden.GridCode) string {
	var b strings.Builder
	for i, g := range grids {
		switch {
		case i == 4:
			fmt.Fprintf(&b, " and %d more", len(grids)-4)
			return b.String()
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(string(g))
	}
	return b.String()
}

// tolerance is about 1 cm in degrees: surveyed corners of neighbours differ by that.
const tolerance = 1e-7

// overlap returns a point in both of two simple rings, if there is one: an edge
// of one cuts through one of the other, or one has a point well inside the other.
func overlap(a, b *citywarden.UnitGrid) (citywarden.Point, bool) {
	ba, bb := boundsOf(a.Ring), boundsOf(b.Ring)
	if ba.min.Lat > bb.max.Lat || bb.min.Lat > ba.max.Lat || ba.min.Lon > bb.max.Lon || bb.min.Lon > ba.max.Lon {
		return citywarden.Point{}, false
	}
	for i := range a.Ring {
		p, q := a.Ring[i], a.Ring[(i+1)%len(a.Ring)]
		for j := range b.Ring {
			if r, s := b.Ring[j], b.Ring[(j+1)%len(b.Ring)]; crosses(p, q, r, s) {
				return crossing(p, q, r, s), true
			}
		}
	}
	if p, yes := reaches(a, b); yes {
		return p, true
	}
	return reaches(b, a)
}

// reaches returns a corner, the middle of an edge or an inner point of a that
// lies inside b, further from its boundary than the tolerance.
func reaches(a, b *citywarden.UnitGrid) (citywarden.Point, bool) {
	for i := range a.Ring {
		p, q := a.Ring[i], a.Ring[(i+1)%len(a.Ring)]
		if deepIn(p, b) {
			return p, true
		}
		if m := (citywarden.Point{Lat: (p.Lat + q.Lat) / 2, Lon: (p.Lon + q.Lon) / 2}); deepIn(m, b) {
			return m, true
		}
	}
	p := innerPoint(a.Ring)
	return p, deepIn(p, b)
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

// crossing returns where the segments ab and cd, which cross, do so.
func crossing(a, b, c, d citywarden.Point) citywarden.Point {
	x, y := sideDistance(c, d, a), sideDistance(c, d, b)
	t := x / (x - y)
	return citywarden.Point{Lat: a.Lat + t*(b.Lat-a.Lat), Lon: a.Lon + t*(b.Lon-a.Lon)}
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
