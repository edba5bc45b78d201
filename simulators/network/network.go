// Package network computes pressures and flows of a water distribution network
// that an EPANET input file describes, at one moment or over days.
//
//	n, err := network.Read("Net3.inp", file)
//	run, err := network.NewRun(n, network.Options{})
//	for {
//		state, err := run.Next() // io.EOF after the last
//		…
//	}
//
// It follows EPANET 2.3: the same laws of head loss, the same global gradient
// algorithm (Todini and Pilati) with the same rules for the status of pumps,
// valves and tanks, the same time steps. Heads and flows agree with EPANET's to
// the digits that it prints. Water quality, energy and the reports of EPANET
// are not computed; their sections of a file are passed over.
package network

import (
	"slices"
	"time"
)

// Kind says what a node or a link is, in EPANET's word.
type Kind string

// The kinds of nodes and links.
const (
	Junction  Kind = "junction"
	Reservoir Kind = "reservoir"
	Tank      Kind = "tank"

	Pipe       Kind = "pipe"
	CheckValve Kind = "cv" // a pipe with a check valve
	Pump       Kind = "pump"
	PRV        Kind = "prv" // keeps the pressure downstream from rising
	PSV        Kind = "psv" // keeps the pressure upstream from falling
	PBV        Kind = "pbv" // breaks a fixed pressure
	FCV        Kind = "fcv" // limits the flow
	TCV        Kind = "tcv" // throttles with a loss coefficient
	GPV        Kind = "gpv" // follows a curve of head loss over flow
)

// Node is a place of the network, in the units of its file.
type Node struct {
	ID        string
	Kind      Kind
	Elevation float64 // of a reservoir: its head
	X, Y      float64 // from [COORDINATES]; 0, 0 if it has none
}

// Link joins two nodes, in the units of the file.
type Link struct {
	ID       string
	Kind     Kind
	From, To int // indexes of Network.Nodes
	Length   float64
	Diameter float64
}

// Units names the units of a network, which are those of its file.
type Units struct {
	Flow     string // "GPM", "LPS", …
	Length   string // "ft" or "m": heads, elevations, levels
	Pressure string // "psi", "m", "kPa", "bar" or "ft"
	Metric   bool
}

// Network is a network as its file describes it. It does not change, so any
// number of runs may share it.
type Network struct {
	Title string
	Units Units

	Duration time.Duration // of a run; 0 for one moment
	Report   time.Duration // between the moments that the file wants reported

	nodes     []node // junctions first, then reservoirs and tanks
	junctions int
	links     []link
	valves    []int // indexes of links
	pumps     []int
	patterns  [][]float64
	controls  []control
	rules     []rule
	options   options
	factors   factors
	nodeAt    map[string]int
	linkAt    map[string]int
	matrix    *symbolic
}

// Nodes returns the nodes in EPANET's order: junctions, then reservoirs and
// tanks.
func (n *Network) Nodes() []Node {
	out := make([]Node, len(n.nodes))
	for i := range n.nodes {
		d := &n.nodes[i]
		out[i] = Node{ID: d.id, Kind: d.kind, Elevation: d.elevation * n.factors.length, X: d.x, Y: d.y}
	}
	return out
}

// Links returns the links in the order of the file.
func (n *Network) Links() []Link {
	out := make([]Link, len(n.links))
	for i := range n.links {
		l := &n.links[i]
		out[i] = Link{
			ID: l.id, Kind: l.kind, From: l.from, To: l.to,
			Length: l.length * n.factors.length, Diameter: l.diameter * n.factors.diameter,
		}
	}
	return out
}

// Node returns the index of a node in Nodes, -1 if there is none.
func (n *Network) Node(id string) int { return indexOf(n.nodeAt, id) }

// Link returns the index of a link in Links, -1 if there is none.
func (n *Network) Link(id string) int { return indexOf(n.linkAt, id) }

func indexOf(at map[string]int, id string) int {
	if i, ok := at[id]; ok {
		return i
	}
	return -1
}

// node is a node in feet and cubic feet per second, the units in which EPANET's
// constants are stated and therefore everything is computed.
type node struct {
	id        string
	kind      Kind
	elevation float64 // of a reservoir: its head
	x, y      float64
	demands   []demand
	pattern   int     // of a reservoir's head, 0 for none
	discharge float64 // of an emitter: coefficient in the units of the file
	tank      *tank
}

// demand is one category of the demand of a junction.
type demand struct {
	base    float64
	pattern int // 0 is the default pattern
}

type tank struct {
	area                 float64
	head, headMin        float64 // at the start, and when empty
	headMax              float64
	volume               float64 // at the start
	volumeMin, volumeMax float64
	curve                curve // of volume over level, in the units of the file
	overflow             bool
}

// link is a link in feet and cubic feet per second.
type link struct {
	id        string
	kind      Kind
	from, to  int
	length    float64
	diameter  float64
	roughness float64
	minor     float64 // head loss per square of the flow
	friction  float64 // head loss per power of the flow
	status    status  // at the start
	setting   float64 // of a pump its speed, of a valve what it keeps; fixed for none
	pump      *pump
	curve     curve // of a GPV: head loss over flow, in the units of the file
}

type pumpKind int

const (
	powerCurve pumpKind = iota // head = shutoff - r·flow^n
	pointCurve                 // straight between the points of a curve
	constantPower
)

type pump struct {
	kind    pumpKind
	curve   curve // in the units of the file
	power   float64
	shutoff float64 // head at no flow
	r, n    float64
	flow    float64 // where it is designed to work
	flowMax float64
	headMax float64
	pattern int // of its speed, 0 for none
}

// curve is a list of points with rising x.
type curve [][2]float64

// at interpolates and keeps to the end points outside.
func (c curve) at(x float64) float64 { return c.interpolate(x, 0, 1) }

// inverse returns the x at which the curve reaches y.
func (c curve) inverse(y float64) float64 { return c.interpolate(y, 1, 0) }

func (c curve) interpolate(v float64, in, out int) float64 {
	if v <= c[0][in] {
		return c[0][out]
	}
	for k := 1; k < len(c); k++ {
		if c[k][in] < v {
			continue
		}
		dx, dy := c[k][in]-c[k-1][in], c[k][out]-c[k-1][out]
		if dx < tiny && dx > -tiny {
			return c[k][out]
		}
		return c[k][out] - (c[k][in]-v)*dy/dx
	}
	return c[len(c)-1][out]
}

// line returns the straight line y = intercept + slope·x through the two points
// between which x lies, or the nearest two.
func (c curve) line(x float64) (intercept, slope float64) {
	k := slices.IndexFunc(c, func(p [2]float64) bool { return p[0] >= x })
	switch k {
	case -1:
		k = len(c) - 1
	case 0:
		k = 1
	}
	a, b := c[k-1], c[k]
	slope = (b[1] - a[1]) / (b[0] - a[0])
	return a[1] - slope*a[0], slope
}

// volumeAt returns the volume of the water in a tank when its surface is at
// head.
func (n *Network) volumeAt(d *node, head float64) float64 {
	t := d.tank
	if t.curve == nil {
		return t.volumeMin + (head-t.headMin)*t.area
	}
	f := n.factors.length
	return t.curve.at((head-d.elevation)*f) / (f * f * f)
}

// headAt returns where the surface of a tank is when it holds volume.
func (n *Network) headAt(d *node, volume float64) float64 {
	t := d.tank
	if t.curve == nil {
		return t.headMin + (volume-t.volumeMin)/t.area
	}
	f := n.factors.length
	return d.elevation + t.curve.inverse(volume*f*f*f)/f
}

// State is the network at one moment, in the units of its file. It belongs to
// the caller.
type State struct {
	Time  time.Duration // since the start
	Nodes []NodeState   // in the order of Network.Nodes
	Links []LinkState   // in the order of Network.Links
	// Warnings say what is odd, such as negative pressures or a pump beyond its
	// curve. Heads and flows are the best there are.
	Warnings []string
}

// NodeState is what holds at a node.
type NodeState struct {
	Head     float64
	Pressure float64
	// Demand is what leaves the network here: demand, emitter and leak. Of a
	// tank or a reservoir it is what flows in.
	Demand float64
}

// LinkState is what holds in a link.
type LinkState struct {
	Flow   float64 // from From to To
	Open   bool
	Active bool // a valve that is neither just open nor closed: it keeps its setting, or cannot
}
