package county

import (
	"fmt"

	"github.com/citywarden/citywarden"
)

// row is a kind of component that stands along the streets.
type row struct {
	class, name       string // 4 digits of the class, what it is called
	every, begin, off float64
	owner, maintainer string
}

// rows are the components along each street, in metres along it and to its right.
var rows = [...]row{
	{"0101", "上水井盖", 300, 60, 2, "供水公司", "供水公司"},
	{"0103", "雨水井盖", 250, 110, -4, "市政公用中心", "市政公用中心"},
	{"0137", "路灯", 120, 20, 8, "市政公用中心", "市政公用中心"},
	{"0212", "路名牌", 1400, 40, 9, "市政公用中心", "市政公用中心"},
}

// components returns those along the streets that lie in a unit grid, and a water
// manhole cover over each pressure logger, which is attached to it.
func (l *lattice) components(c *County) []citywarden.Component {
	var out []citywarden.Component
	serial := map[string]int{}
	add := func(r row, name string, at citywarden.Point) citywarden.ComponentID {
		grid := c.GridAt(at)
		if grid == "" {
			return ""
		}
		serial[r.class]++
		id := citywarden.ComponentID(fmt.Sprintf("%s%s%06d", Code, r.class, serial[r.class]))
		out = append(out, citywarden.Component{
			ID: id, Class: citywarden.ClassCode("component/" + r.class), Name: name, Location: at, Grid: grid, Authority: "住房和城乡建设局",
			Owner: r.owner, Maintainer: r.maintainer, State: citywarden.Intact, Initial: "2024-05-01", Survey: "演示",
		})
		return id
	}
	for i := range c.Devices {
		d := &c.Devices[i]
		if d.Model == "pressure-logger" {
			d.Component = add(rows[0], d.Name+"井盖", *d.Location)
		}
	}
	for k := range streetsY {
		line := l.street(k)
		for _, r := range rows {
			for n, d := 1, r.begin; d < Size; n, d = n+1, d+r.every {
				p, dir := along(line, d)
				add(r, fmt.Sprintf("%s%d号%s", streetNames.y[k].ZH, n, r.name), l.point(xy{p.x + dir.y*r.off, p.y - dir.x*r.off}))
			}
		}
	}
	return out
}
