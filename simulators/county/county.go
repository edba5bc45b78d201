// Package county is the demo county as data: a 3 x 3 km part of a county town
// with unit grids, streets, buildings, a water network in district metered
// areas, and the devices installed there.
//
// The frame is Zhangpu (漳浦, county code 350623); everything inside it, the
// streets and buildings included, is made up. It is a pure function: every call
// of Demo returns the same county.
//
//	c := county.Demo()
//	for _, g := range c.Grids {
//		fmt.Println(g.Code, g.Name)
//	}
//	streets := c.Layers()["streets"] // a GeoJSON FeatureCollection
package county

import (
	"math"

	"github.com/citywarden/citywarden"
)

// The frame of the demo county.
const (
	// Code is the county code of Zhangpu (GB/T 2260).
	Code = "350623"
	// Town is the code of its county seat, Sui'an (绥安镇, GB/T 10114).
	Town = "100"
	// Size is the length of each side of the county, in metres.
	Size = 3000
)

// County is a demo county. Callers share it and must not change it.
type County struct {
	Name      citywarden.Text
	Center    citywarden.Point
	SouthWest citywarden.Point // corner of its bounds
	NorthEast citywarden.Point // the opposite corner
	Grids     []citywarden.UnitGrid
	Streets   []Street
	Lanes     []Lane
	Buildings []Building
	Water     Water
	Devices   []citywarden.Device

	Components []citywarden.Component
}

// Street is a street by its centre line.
type Street struct {
	Code string
	Name citywarden.Text
	Main bool // an avenue
	Line []citywarden.Point
}

// Lane is a fire lane (消防通道): it must be free at all hours.
type Lane struct {
	Code string
	Name citywarden.Text
	Line []citywarden.Point
}

// Building is a building by its outline. Those with devices have a code and a
// name, the others are there for the map.
type Building struct {
	Code   string
	Name   citywarden.Text
	Floors int
	Use    string             // "office", "mall", "shut", "school", "homes", "" for the others
	Ring   []citywarden.Point // not closed
}

// Water is a water network. Water flows from the one reservoir along the trunk
// main; each district metered area hangs on the trunk by one inlet.
type Water struct {
	DMAs  []DMA
	Nodes []Node
	Pipes []Pipe
}

// DMA is a district metered area (独立计量区).
type DMA struct {
	Code  string
	Name  citywarden.Text
	Color string // "#rrggbb", for the map
	Ring  []citywarden.Point
}

// Node is a junction of pipes, or the reservoir.
type Node struct {
	Code      string
	At        citywarden.Point
	DMA       string              // "" on the trunk main
	Head      float64             // of the reservoir: metres above ground; 0 of a junction
	Demand    float64             // of a junction: mean demand in m³/h
	Logger    citywarden.DeviceID // the pressure logger there, "" for none
	Burst     bool                // the middle of a pipe that is old and may burst
	FlowMeter bool                // its logger also measures what flows into the area
}

// Pipe joins two nodes.
type Pipe struct {
	Code     string
	From, To int     // indexes of Water.Nodes
	DMA      string  // "" for the trunk main
	Length   float64 // m
	Diameter float64 // mm
	Rough    float64 // Hazen-Williams C
	Inlet    bool    // the only way into its area
}

// Demo returns the demo county.
func Demo() *County {
	l := newLattice()
	c := &County{
		Name:      citywarden.Text{ZH: "漳浦县城（演示）", EN: "Zhangpu county seat (demo)"},
		Center:    l.at(Size/2, Size/2),
		SouthWest: l.at(0, 0),
		NorthEast: l.at(Size, Size),
		Grids:     l.grids(),
		Streets:   l.streets(),
	}
	c.Buildings = l.buildings()
	c.Lanes = l.lanes(c.Buildings)
	c.Water = l.water()
	c.Devices = l.devices(c)
	c.Components = l.components(c)
	return c
}

// Building returns the building with that code, nil when there is none.
func (c *County) Building(code string) *Building {
	for i := range c.Buildings {
		if c.Buildings[i].Code == code {
			return &c.Buildings[i]
		}
	}
	return nil
}

// Device returns the device with that id, nil when there is none.
func (c *County) Device(id citywarden.DeviceID) *citywarden.Device {
	for i := range c.Devices {
		if c.Devices[i].ID == id {
			return &c.Devices[i]
		}
	}
	return nil
}

// GridAt returns the code of the unit grid that p lies in, "" outside.
func (c *County) GridAt(p citywarden.Point) citywarden.GridCode {
	for i := range c.Grids {
		if c.Grids[i].Contains(p) {
			return c.Grids[i].Code
		}
	}
	return ""
}

// The middle of the county, WGS 84, and the length of a degree there in metres.
const (
	midLat, midLon = 24.117, 117.613
	degLat         = 111195.08
)

var degLon = degLat * math.Cos(midLat*math.Pi/180)

// mix is SplitMix64: a well-mixed number for every x.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// spread returns a number in [-1, 1) that depends on the three keys only.
func spread(a, b, c int) float64 {
	h := mix(mix(mix(uint64(a))+uint64(b)) + uint64(c))
	return float64(h>>11)/(1<<52) - 1
}
