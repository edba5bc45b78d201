package county

import (
	"fmt"
	"strings"

	"github.com/citywarden/citywarden"
)

func lower(s string) string { return strings.ToLower(s) }

// devices returns the devices of the county: parking bays, smoke detectors,
// pressure loggers, energy, heat and water meters.
func (l *lattice) devices(c *County) []citywarden.Device {
	var out []citywarden.Device
	add := func(id, name string, model citywarden.ModelName, at xy, attrs map[string]any) *citywarden.Device {
		p := l.point(at)
		attrs["heartbeat"] = "10m" // the demo's devices report often
		attrs["district"] = "suian"
		out = append(out, citywarden.Device{
			ID: citywarden.DeviceID(id), Name: name, Model: model, Attributes: attrs, Location: &p, Grid: c.GridAt(p),
		})
		return &out[len(out)-1]
	}
	l.bays(add)
	l.detectors(add)
	l.loggers(c, add)
	l.meters(add)
	return out
}

type addDevice func(id, name string, model citywarden.ModelName, at xy, attrs map[string]any) *citywarden.Device

func (l *lattice) bays(add addDevice) {
	kerb := func(prefix, zone string, k int, from float64, n int) {
		name := streetNames.y[k]
		for i := range n {
			p, dir := along(l.street(k), from+float64(i)*7)
			p = xy{p.x + dir.y*5, p.y - dir.x*5} // along the south kerb
			add(fmt.Sprintf("%s-%02d", prefix, i+1), fmt.Sprintf("%s%02d号泊位", name.ZH, i+1),
				"parking-bay", p, map[string]any{"kind": "bay", "zone": zone, "street": name.ZH, "site": zone, "gateway": "gw-" + zone})
		}
	}
	kerb("pk-fq", "fuqian", fuqian, 1180, 16)
	kerb("pk-zs", "zhongshan", zhongshan, 1640, 12)
	s := siteOf("mall")
	m := l.middle(s.i, s.j)
	for i := range 16 { // two rows in front of the mall
		p := xy{m.x - 24 + float64(i%8)*6, m.y - s.d/2 - 9 - float64(i/8)*8}
		add(fmt.Sprintf("pk-mall-%02d", i+1), fmt.Sprintf("%s%02d号车位", s.name.ZH, i+1),
			"parking-bay", p, map[string]any{"kind": "bay", "zone": "mall", "site": "mall", "gateway": "gw-mall"})
	}
	for _, code := range laneSites {
		s := siteOf(code)
		for i := range 2 {
			p, _ := along(l.laneLine(s), 20+float64(i)*30)
			add(fmt.Sprintf("fl-%s-%02d", code, i+1), fmt.Sprintf("%s消防通道%02d号地磁", s.name.ZH, i+1),
				"parking-bay", p, map[string]any{"kind": "fire_lane", "lane": code + "-east", "site": code, "gateway": "gw-" + code})
		}
	}
}

func (l *lattice) detectors(add addDevice) {
	for _, code := range [...]string{"gov", "mall"} {
		s := siteOf(code)
		m := l.middle(s.i, s.j)
		for floor := 1; floor <= s.floors; floor++ {
			for k := range 4 {
				// A corridor with a detector every 6 m, each floor a little aside for the map.
				p := xy{m.x - s.w/2 + 8 + float64(k)*6, m.y - s.d/2 + 4 + float64(floor)*5}
				add(fmt.Sprintf("sd-%s-%d%02d", code, floor, k+1),
					fmt.Sprintf("%s%d层%d号烟感", s.name.ZH, floor, k+1),
					"smoke-detector", p, map[string]any{
						"zone": fmt.Sprintf("%s-%df", code, floor), "building": code, "site": code, "floor": float64(floor),
						"gateway": "fire-" + code, "smoke_limit": 0.12,
					})
			}
		}
	}
}

func (l *lattice) loggers(c *County, add addDevice) {
	for _, d := range dmas {
		for n := range c.Water.Nodes {
			node := &c.Water.Nodes[n]
			if node.Logger == "" || node.DMA != d.code {
				continue
			}
			i := string(node.Logger[len(node.Logger)-2:])
			dev := add(string(node.Logger), d.name.ZH+i+"号压力监测点", "pressure-logger", xy{},
				map[string]any{"dma": d.code, "gateway": "nb-" + lower(d.code)})
			p := node.At
			dev.Location, dev.Grid, dev.Adjacent = &p, c.GridAt(p), c.Water.Adjacent(n)
		}
	}
}

// meter is an energy, heat or water meter of a site.
type meter struct {
	id, site, name string
	night          float64 // limit of its load at night, kW; 0 for none
}

var energyMeters = [...]meter{
	{"em-gov-00", "gov", "总电表", 26}, {"em-gov-01", "gov", "1层电表", 6}, {"em-gov-02", "gov", "2层电表", 5},
	{"em-gov-03", "gov", "3层电表", 5}, {"em-gov-04", "gov", "4层机房电表", 12},
	{"em-mall-00", "mall", "总电表", 70}, {"em-mall-01", "mall", "1层电表", 16}, {"em-mall-02", "mall", "2层电表", 14},
	{"em-mall-03", "mall", "3层电表", 14}, {"em-mall-04", "mall", "4层影院电表", 18},
	{"em-theatre-01", "theatre", "观众厅电表", 1}, {"em-theatre-02", "theatre", "后台电表", 1},
	{"em-school-00", "school", "总电表", 8}, {"em-homes-00", "homes", "公区电表", 0},
}

var heatMeters = [...]meter{
	{"hm-mall-00", "mall", "供暖热量表", 0}, {"hm-homes-00", "homes", "换热站热量表", 0},
}

var waterMeters = [...]meter{
	{"wm-gov-00", "gov", "总水表", 0}, {"wm-gov-01", "gov", "空调补水表", 0},
	{"wm-mall-00", "mall", "总水表", 0}, {"wm-mall-01", "mall", "餐饮水表", 0},
	{"wm-school-00", "school", "总水表", 0}, {"wm-theatre-00", "theatre", "总水表", 0},
	{"wm-homes-01", "homes", "1栋水表", 0}, {"wm-homes-02", "homes", "2栋水表", 0},
	{"wm-homes-03", "homes", "3栋水表", 0}, {"wm-homes-04", "homes", "4栋水表", 0},
}

func (l *lattice) meters(add addDevice) {
	place := func(k int, m meter, model citywarden.ModelName, row float64) {
		s := siteOf(m.site)
		mid := l.middle(s.i, s.j)
		attrs := map[string]any{"building": m.site, "site": m.site, "gateway": "meters-" + m.site}
		if m.night > 0 {
			attrs["night_limit"] = m.night
		}
		if s.use == "shut" && model == "energy-meter" {
			attrs["quiet"] = "all hours"
		}
		add(m.id, s.name.ZH+m.name, model, xy{mid.x - s.w/2 + 4 + float64(k%5)*3, mid.y - s.d/2 + row}, attrs)
	}
	for k, m := range energyMeters {
		place(k, m, "energy-meter", 3)
	}
	for k, m := range heatMeters {
		place(k, m, "heat-meter", 2)
	}
	for k, m := range waterMeters {
		place(k, m, "water-meter", 1)
	}
}
