package county

import (
	"fmt"
	"slices"

	"github.com/citywarden/citywarden"
)

var streetNames = struct{ x, y [5]citywarden.Text }{
	x: [5]citywarden.Text{{ZH: "鹿溪路", EN: "Luxi Road"}, {ZH: "龙湖路", EN: "Longhu Road"}, {ZH: "绥安大道", EN: "Sui'an Avenue"}, {ZH: "金浦路", EN: "Jinpu Road"}, {ZH: "印石路", EN: "Yinshi Road"}},
	y: [5]citywarden.Text{{ZH: "南门路", EN: "Nanmen Road"}, {ZH: "麦市街", EN: "Maishi Street"}, {ZH: "中山路", EN: "Zhongshan Road"}, {ZH: "府前街", EN: "Fuqian Street"}, {ZH: "朝阳路", EN: "Chaoyang Road"}},
}

// The places of the two streets with parking bays in streetsY.
const (
	zhongshan = 2
	fuqian    = 3
)

func (l *lattice) streets() []Street {
	var out []Street
	for k, i := range streetsX {
		line := make([]xy, cells+1)
		for j := range line {
			line[j] = l.v[i][j]
		}
		out = append(out, Street{Code: fmt.Sprintf("S%02d", k+1), Name: streetNames.x[k], Main: k == 2, Line: l.points(line)})
	}
	for k := range streetsY {
		out = append(out, Street{Code: fmt.Sprintf("S%02d", k+6), Name: streetNames.y[k], Main: k == zhongshan, Line: l.points(l.street(k))})
	}
	return out
}

// street returns the centre line of street k of streetsY, from the west.
func (l *lattice) street(k int) []xy {
	line := make([]xy, cells+1)
	for i := range line {
		line[i] = l.v[i][streetsY[k]]
	}
	return line
}

// along returns the point that lies d metres from the beginning of line, and
// the direction there.
func along(line []xy, d float64) (p, dir xy) {
	for i := 1; i < len(line); i++ {
		a, b := line[i-1], line[i]
		n := a.dist(b)
		if d <= n || i == len(line)-1 {
			return a.to(b, d/n), xy{(b.x - a.x) / n, (b.y - a.y) / n}
		}
		d -= n
	}
	return line[0], xy{1, 0}
}

// site is a named building in the middle of a cell.
type site struct {
	code   string
	name   citywarden.Text
	use    string
	floors int
	i, j   int
	w, d   float64 // metres west to east, south to north
	notch  float64 // share of the north-east quarter that is a yard
}

var sites = [...]site{
	{"gov", citywarden.Text{ZH: "县政务服务中心", EN: "County Service Centre"}, "office", 4, 8, 12, 78, 56, 0.5},
	{"mall", citywarden.Text{ZH: "龙湖广场", EN: "Longhu Plaza"}, "mall", 4, 11, 7, 84, 60, 0},
	{"theatre", citywarden.Text{ZH: "旧影剧院（停用）", EN: "Old Theatre (shut)"}, "shut", 2, 15, 11, 44, 34, 0},
	{"school", citywarden.Text{ZH: "第一实验小学", EN: "First Primary School"}, "school", 3, 5, 8, 70, 30, 0},
	{"homes", citywarden.Text{ZH: "鹿溪花园", EN: "Luxi Gardens"}, "homes", 11, 16, 4, 60, 44, 0},
}

func siteOf(code string) *site {
	i := slices.IndexFunc(sites[:], func(s site) bool { return s.code == code })
	return &sites[i]
}

// outline returns the outline of s, counter-clockwise.
func (l *lattice) outline(s *site) []xy {
	m := l.middle(s.i, s.j)
	w, d := s.w/2, s.d/2
	if s.notch == 0 {
		return []xy{{m.x - w, m.y - d}, {m.x + w, m.y - d}, {m.x + w, m.y + d}, {m.x - w, m.y + d}}
	}
	nx, ny := m.x+w-s.notch*s.w, m.y+d-s.notch*s.d
	return []xy{{m.x - w, m.y - d}, {m.x + w, m.y - d}, {m.x + w, ny}, {nx, ny}, {nx, m.y + d}, {m.x - w, m.y + d}}
}

func (l *lattice) buildings() []Building {
	var out []Building
	taken := map[[2]int]bool{}
	for i := range sites {
		s := &sites[i]
		taken[[2]int{s.i, s.j}] = true
		out = append(out, Building{Code: s.code, Name: s.name, Floors: s.floors, Use: s.use, Ring: l.points(l.outline(s))})
	}
	for j := range cells {
		for i := range cells {
			if taken[[2]int{i, j}] || spread(i, j, 4) > 0.8 { // a site, or a park
				continue
			}
			m := l.middle(i, j)
			for q := range 4 {
				if spread(i, j, 10+q) > 0.6 {
					continue
				}
				w, d := 13+5*spread(i, j, 20+q), 10+4*spread(i, j, 30+q)
				c := xy{m.x + float64(q%2*2-1)*24, m.y + float64(q/2*2-1)*22}
				out = append(out, Building{
					Floors: 3 + int(3*(1+spread(i, j, 40+q))),
					Ring:   l.points([]xy{{c.x - w, c.y - d}, {c.x + w, c.y - d}, {c.x + w, c.y + d}, {c.x - w, c.y + d}}),
				})
			}
		}
	}
	return out
}

// laneSites are the buildings with a fire lane along their east side.
var laneSites = [...]string{"mall", "gov"}

// laneLine returns the fire lane along the east side of s, from the south.
func (l *lattice) laneLine(s *site) []xy {
	m := l.middle(s.i, s.j)
	x := m.x + s.w/2 + 6
	return []xy{{x, m.y - s.d/2 - 6}, {x, m.y + s.d/2 + 6}}
}

func (l *lattice) lanes([]Building) []Lane {
	var out []Lane
	for _, code := range laneSites {
		s := siteOf(code)
		out = append(out, Lane{
			Code: code + "-east",
			Name: citywarden.Text{ZH: s.name.ZH + "东侧消防通道", EN: s.name.EN + ", east fire lane"},
			Line: l.points(l.laneLine(s)),
		})
	}
	return out
}
