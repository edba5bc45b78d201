package county

import (
	"fmt"

	"github.com/citywarden/citywarden"
)

// dmas are the district metered areas: which crossings of streets (by index of
// streetsX and streetsY) they supply, and the cells of the lattice they cover.
var dmas = [...]struct {
	code           string
	name           citywarden.Text
	color          string
	x0, x1, y0, y1 int // crossings, inclusive
	w, e, s, n     int // lines of the lattice
	inlet          int // index of streetsX where it hangs on the trunk main
	inletY         int // index of streetsY of its first junction
	loggers        [][2]int
	burst          [2][2]int // the old pipe, by its two crossings
	share          float64   // how far along it is weak
}{
	{"D1", citywarden.Text{ZH: "城北片区", EN: "North"}, "#2563eb", 0, 4, 3, 4, 0, cells, 10, cells, 1, 3,
		[][2]int{{1, 3}, {0, 4}, {2, 4}, {2, 3}, {4, 4}, {4, 3}}, [2][2]int{{4, 3}, {4, 4}}, 0.6},
	{"D2", citywarden.Text{ZH: "城西南片区", EN: "South-west"}, "#0d9488", 0, 1, 0, 1, 0, 8, 0, 10, 0, 1,
		[][2]int{{0, 1}, {1, 1}, {0, 0}, {1, 0}}, [2][2]int{{1, 0}, {1, 1}}, 0.3},
	{"D3", citywarden.Text{ZH: "城东南片区", EN: "South-east"}, "#c2410c", 2, 4, 0, 1, 8, cells, 0, 10, 3, 1,
		[][2]int{{3, 1}, {2, 1}, {4, 1}, {2, 0}, {3, 0}, {4, 0}}, [2][2]int{{2, 0}, {2, 1}}, 0.3},
}

func (l *lattice) crossing(x, y int) xy { return l.v[streetsX[x]][streetsY[y]] }

func (l *lattice) water() Water {
	var w Water
	var pos []xy
	at := map[[2]int]int{} // crossing -> node
	node := func(n Node, p xy) int {
		n.At = l.point(p)
		w.Nodes, pos = append(w.Nodes, n), append(pos, p)
		return len(w.Nodes) - 1
	}
	pipe := func(from, to int, dma string, dn, rough float64, inlet bool) {
		w.Pipes = append(w.Pipes, Pipe{
			Code: fmt.Sprintf("P%02d", len(w.Pipes)+1), From: from, To: to, DMA: dma,
			Length: pos[from].dist(pos[to]), Diameter: dn, Rough: rough, Inlet: inlet,
		})
	}

	// The trunk main, along Zhongshan Road.
	last := node(Node{Code: "R1", Head: 40}, l.v[0][streetsY[zhongshan]])
	for x := range streetsX {
		n := node(Node{Code: fmt.Sprintf("T%d", x+1), Demand: 6}, l.crossing(x, zhongshan))
		at[[2]int{x, zhongshan}] = n
		pipe(last, n, "", 500, 130, false)
		last = n
	}

	for _, d := range dmas {
		ring := []xy{}
		for i := d.w; i < d.e; i++ {
			ring = append(ring, l.v[i][d.s])
		}
		for j := d.s; j < d.n; j++ {
			ring = append(ring, l.v[d.e][j])
		}
		for i := d.e; i > d.w; i-- {
			ring = append(ring, l.v[i][d.n])
		}
		for j := d.n; j > d.s; j-- {
			ring = append(ring, l.v[d.w][j])
		}
		w.DMAs = append(w.DMAs, DMA{Code: d.code, Name: d.name, Color: d.color, Ring: l.points(ring)})

		for y := d.y0; y <= d.y1; y++ {
			for x := d.x0; x <= d.x1; x++ {
				n := Node{Code: fmt.Sprintf("%s-%d", d.code, 1+len(w.Nodes)), DMA: d.code, Demand: 13 + 4*spread(x, y, 5)}
				for i, at := range d.loggers {
					if at == [2]int{x, y} {
						n.Logger = citywarden.DeviceID(fmt.Sprintf("pl-%s-%02d", lower(d.code), i+1))
						n.FlowMeter = i == 0
					}
				}
				at[[2]int{x, y}] = node(n, l.crossing(x, y))
			}
		}
		pipe(at[[2]int{d.inlet, zhongshan}], at[[2]int{d.inlet, d.inletY}], d.code, 350, 125, true)
		for y := d.y0; y <= d.y1; y++ {
			for x := d.x0; x <= d.x1; x++ {
				for _, to := range [...][2]int{{x + 1, y}, {x, y + 1}} {
					if to[0] > d.x1 || to[1] > d.y1 {
						continue
					}
					from := [2]int{x, y}
					if d.burst == [2][2]int{from, to} {
						m := node(Node{Code: "V-" + d.code, DMA: d.code, Burst: true}, pos[at[from]].to(pos[at[to]], d.share))
						pipe(at[from], m, d.code, 200, 105, false)
						pipe(m, at[to], d.code, 200, 105, false)
						continue
					}
					dn := 200.0
					switch along := to[1] == y; {
					case along && y != d.inletY: // the far street has the smallest mains
						dn = 150
					case along && d.code == "D1": // the large area has a large one along Fuqian Street
						dn = 250
					}
					pipe(at[from], at[to], d.code, dn, 115, false)
				}
			}
		}
	}
	return w
}

// Adjacent returns the loggers that the one at node n has as neighbours: those
// that water reaches from it, inside its area, without passing another logger.
func (w *Water) Adjacent(n int) []citywarden.DeviceID {
	var out []citywarden.DeviceID
	seen := map[int]bool{n: true}
	for todo := []int{n}; len(todo) > 0; todo = todo[1:] {
		for _, p := range w.Pipes {
			to := -1
			switch todo[0] {
			case p.From:
				to = p.To
			case p.To:
				to = p.From
			}
			if to < 0 || seen[to] || w.Nodes[to].DMA != w.Nodes[n].DMA {
				continue
			}
			seen[to] = true
			if id := w.Nodes[to].Logger; id != "" {
				out = append(out, id)
				continue
			}
			todo = append(todo, to)
		}
	}
	return out
}
