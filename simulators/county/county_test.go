package county

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

func TestDemoIsAlwaysTheSame(t *testing.T) {
	if diff := cmp.Diff(Demo(), Demo()); diff != "" {
		t.Errorf("two calls differ (-first +second):\n%s", diff)
	}
}

func TestGridCodes(t *testing.T) {
	c := Demo()
	if n := len(c.Grids); n < 300 || n > 500 {
		t.Errorf("%d unit grids; 9 km² in grids of about 2 ha are 300 to 500", n)
	}
	seen := map[citywarden.GridCode]bool{}
	next := map[string]int{}
	for _, g := range c.Grids {
		if err := g.Code.Check(); err != nil {
			t.Error(err)
		}
		if seen[g.Code] {
			t.Errorf("code %s twice", g.Code)
		}
		seen[g.Code] = true
		if !strings.HasPrefix(string(g.Code), "350623100") || g.Name == "" {
			t.Errorf("grid %s %q: want the county and town codes, and a name", g.Code, g.Name)
		}
		com := string(g.Code[:12])
		next[com]++
		if want := next[com]; string(g.Code[12:]) != leadingZeros(want) {
			t.Errorf("grid %s: want serial %03d, serials of a community have no gap", g.Code, want)
		}
	}
	if len(next) != 6 {
		t.Errorf("%d communities, want 6", len(next))
	}
}

func leadingZeros(n int) string {
	return string([]byte{byte('0' + n/100), byte('0' + n/10%10), byte('0' + n%10)})
}

// TestGridOrder looks at neighbours: two grids of a community that share an
// edge are numbered from west to east and from north to south.
func TestGridOrder(t *testing.T) {
	c := Demo()
	type edge [2]citywarden.Point
	owner := map[edge]int{}
	pairs := 0
	for i, g := range c.Grids {
		for k, a := range g.Ring {
			b := g.Ring[(k+1)%len(g.Ring)]
			j, shared := owner[edge{b, a}]
			if !shared {
				owner[edge{a, b}] = i
				continue
			}
			if g.Code[:12] != c.Grids[j].Code[:12] {
				continue
			}
			pairs++
			dLat, dLon := math.Abs(a.Lat-b.Lat), math.Abs(a.Lon-b.Lon)
			p, q := middleOf(c.Grids[j].Ring), middleOf(g.Ring) // j was listed first
			if dLat > dLon && p.Lon >= q.Lon {
				t.Errorf("grid %s lies east of %s and comes first", c.Grids[j].Code, g.Code)
			}
			if dLon > dLat && p.Lat <= q.Lat {
				t.Errorf("grid %s lies south of %s and comes first", c.Grids[j].Code, g.Code)
			}
		}
	}
	if pairs < 400 {
		t.Errorf("only %d pairs of neighbours were compared", pairs)
	}
}

func middleOf(ring []citywarden.Point) (m citywarden.Point) {
	for _, p := range ring {
		m.Lat += p.Lat / float64(len(ring))
		m.Lon += p.Lon / float64(len(ring))
	}
	return m
}

// TestEveryPointInOneGrid tries points anywhere, then the worst ones: a
// millimetre beside the edges, all along them, where grids meet.
func TestEveryPointInOneGrid(t *testing.T) {
	c := Demo()
	var points []citywarden.Point
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 5_000 {
		points = append(points, between(c.SouthWest, c.NorthEast, rnd.Float64(), rnd.Float64()))
	}
	for _, g := range c.Grids {
		for k, a := range g.Ring {
			b := g.Ring[(k+1)%len(g.Ring)]
			for _, share := range [...]float64{0, 0.25, 0.5, 0.7} {
				p := between(a, b, share, share)
				points = append(points, citywarden.Point{Lat: p.Lat + 2e-8*(rnd.Float64()-0.5), Lon: p.Lon + 2e-8*(rnd.Float64()-0.5)})
			}
		}
	}
	for _, p := range points {
		if p.Lat >= c.NorthEast.Lat || p.Lon >= c.NorthEast.Lon || p.Lat <= c.SouthWest.Lat || p.Lon <= c.SouthWest.Lon {
			continue // outside
		}
		var in []citywarden.GridCode
		for i := range c.Grids {
			if c.Grids[i].Contains(p) {
				in = append(in, c.Grids[i].Code)
			}
		}
		if len(in) != 1 {
			t.Errorf("point %v lies in %v, want exactly one grid", p, in)
		}
	}
}

func between(a, b citywarden.Point, lat, lon float64) citywarden.Point {
	return citywarden.Point{Lat: a.Lat + lat*(b.Lat-a.Lat), Lon: a.Lon + lon*(b.Lon-a.Lon)}
}

func TestGridsAreIrregularAndFillTheCounty(t *testing.T) {
	c := Demo()
	total, least, most := 0.0, math.Inf(1), 0.0
	for _, g := range c.Grids {
		total += g.Area
		least, most = min(least, g.Area), max(most, g.Area)
	}
	if math.Abs(total-Size*Size) > 0.001*Size*Size {
		t.Errorf("the grids cover %.0f m², want %d", total, Size*Size)
	}
	if least < 8_000 || most > 60_000 || most < 2*least {
		t.Errorf("grids have %.0f to %.0f m², want different sizes of about 1 to 5 ha", least, most)
	}
	if d := c.SouthWest.Distance(citywarden.Point{Lat: c.SouthWest.Lat, Lon: c.NorthEast.Lon}); math.Abs(d-Size) > 10 {
		t.Errorf("the county is %.0f m wide, want %d", d, Size)
	}
	if d := c.SouthWest.Distance(citywarden.Point{Lat: c.NorthEast.Lat, Lon: c.SouthWest.Lon}); math.Abs(d-Size) > 10 {
		t.Errorf("the county is %.0f m high, want %d", d, Size)
	}
}

// TestNoBuildingIsCut: a unit grid does not cut a building (GB/T 30428.1).
func TestNoBuildingIsCut(t *testing.T) {
	c := Demo()
	for _, b := range c.Buildings {
		home := c.GridAt(middleOf(b.Ring))
		for _, p := range b.Ring {
			if g := c.GridAt(p); g != home || g == "" {
				t.Errorf("building %q at %v: its corners lie in %q and %q", b.Code, b.Ring[0], home, g)
			}
		}
		i := slices.IndexFunc(c.Grids, func(g citywarden.UnitGrid) bool { return g.Code == home })
		for k, p := range b.Ring {
			q := b.Ring[(k+1)%len(b.Ring)]
			for m, v := range c.Grids[i].Ring {
				if crosses(p, q, v, c.Grids[i].Ring[(m+1)%len(c.Grids[i].Ring)]) {
					t.Errorf("an edge of grid %s cuts building %q at %v", home, b.Code, b.Ring[0])
				}
			}
		}
	}
}

func crosses(a, b, c, d citywarden.Point) bool {
	side := func(p, q, r citywarden.Point) bool {
		return (q.Lon-p.Lon)*(r.Lat-p.Lat)-(q.Lat-p.Lat)*(r.Lon-p.Lon) > 0
	}
	return side(a, b, c) != side(a, b, d) && side(c, d, a) != side(c, d, b)
}

func TestDevices(t *testing.T) {
	c := Demo()
	count := map[citywarden.ModelName]int{}
	kind, dma, zones := map[any]int{}, map[any]int{}, map[any]int{}
	seen := map[citywarden.DeviceID]bool{}
	for _, d := range c.Devices {
		if err := d.ID.Check(); err != nil || seen[d.ID] {
			t.Errorf("device %s twice, or its id is bad: %v", d.ID, err)
		}
		seen[d.ID] = true
		count[d.Model]++
		switch d.Model {
		case "parking-bay":
			kind[d.Attributes["kind"]]++
		case "pressure-logger":
			dma[d.Attributes["dma"]]++
		case "smoke-detector":
			zones[d.Attributes["zone"]]++
		}
		if d.Name == "" || d.Location == nil || d.Grid == "" || d.Grid != c.GridAt(*d.Location) {
			t.Errorf("device %s: name %q, location %v, grid %q", d.ID, d.Name, d.Location, d.Grid)
		}
		for name, v := range d.Attributes {
			if _, ok := citywarden.ValueOf(v); !ok {
				t.Errorf("device %s: attribute %s is a %T", d.ID, name, v)
			}
		}
		for _, n := range d.Adjacent {
			o := c.Device(n)
			if o == nil || n == d.ID || o.Attributes["dma"] != d.Attributes["dma"] || !slices.Contains(o.Adjacent, d.ID) {
				t.Errorf("device %s has the neighbour %s; neighbours are of one area and of each other", d.ID, n)
			}
		}
		if d.Model == "pressure-logger" && len(d.Adjacent) == 0 {
			t.Errorf("logger %s has no neighbour", d.ID)
		}
	}
	want := map[citywarden.ModelName]int{"parking-bay": 48, "smoke-detector": 32, "pressure-logger": 16, "energy-meter": 14, "heat-meter": 2, "water-meter": 10}
	if diff := cmp.Diff(want, count); diff != "" {
		t.Errorf("devices by model (-want +got):\n%s", diff)
	}
	if kind["fire_lane"] != 4 || kind["bay"] != 44 {
		t.Errorf("bays by kind: %v", kind)
	}
	if len(dma) != 3 || len(zones) != 8 {
		t.Errorf("areas %v, fire zones %v; want 3 and 8", dma, zones)
	}
	if b := c.Building("theatre"); b == nil || b.Use != "shut" || c.Device("em-theatre-01").Attributes["quiet"] != "all hours" {
		t.Error("the old theatre is not shut at all hours")
	}
}

func TestComponents(t *testing.T) {
	c := Demo()
	count := map[citywarden.ClassCode]int{}
	at := map[citywarden.ComponentID]citywarden.Point{}
	for _, x := range c.Components {
		if err := x.Check(); err != nil {
			t.Error(err)
		}
		if _, twice := at[x.ID]; twice || x.Class != x.ID.Class(citywarden.GBT30428) || x.Grid == "" || x.Grid != c.GridAt(x.Location) {
			t.Errorf("component %s twice, or its class %s or grid %q is not that of its code and position", x.ID, x.Class, x.Grid)
		}
		at[x.ID] = x.Location
		count[x.Class]++
	}
	if len(at) < 200 || len(at) > 500 || len(count) != 4 {
		t.Errorf("%d components: %v; want some hundred of four classes", len(at), count)
	}
	attached := 0
	for _, d := range c.Devices {
		if d.Component == "" {
			continue
		}
		attached++
		if p, ok := at[d.Component]; !ok || p != *d.Location {
			t.Errorf("device %s is attached to %s, which lies at %v", d.ID, d.Component, p)
		}
	}
	if attached != 16 {
		t.Errorf("%d devices are attached, want the 16 pressure loggers", attached)
	}
}

func TestDetectorsAndMetersLieInTheirBuilding(t *testing.T) {
	c := Demo()
	for _, d := range c.Devices {
		code, _ := d.Attributes["building"].(string)
		if code == "" {
			continue
		}
		outline := citywarden.UnitGrid{Ring: c.Building(code).Ring}
		if !outline.Contains(*d.Location) {
			t.Errorf("device %s lies outside of %s", d.ID, code)
		}
	}
}

func TestLayers(t *testing.T) {
	layers := Demo().Layers()
	var total int
	for _, name := range []string{"streets", "buildings", "pipes", "dmas"} {
		var fc struct {
			Type     string
			Features []struct {
				Type       string
				Properties map[string]any
				Geometry   struct {
					Type        string
					Coordinates json.RawMessage
				}
			}
		}
		if err := json.Unmarshal(layers[name], &fc); err != nil || fc.Type != "FeatureCollection" || len(fc.Features) == 0 {
			t.Fatalf("layer %s: %v, type %q, %d features", name, err, fc.Type, len(fc.Features))
		}
		total += len(layers[name])
		for _, f := range fc.Features {
			if f.Type != "Feature" || f.Properties["kind"] == "" {
				t.Errorf("layer %s: a feature of type %q and kind %v", name, f.Type, f.Properties["kind"])
			}
			var ring [][2]float64
			switch f.Geometry.Type {
			case "LineString":
				if err := json.Unmarshal(f.Geometry.Coordinates, &ring); err != nil || len(ring) < 2 {
					t.Errorf("layer %s: line of %d points, %v", name, len(ring), err)
				}
			case "Polygon":
				var rings [][][2]float64
				if err := json.Unmarshal(f.Geometry.Coordinates, &rings); err != nil || len(rings) != 1 {
					t.Fatalf("layer %s: %d rings, %v", name, len(rings), err)
				}
				if ring = rings[0]; ring[0] != ring[len(ring)-1] || signed(ring) <= 0 {
					t.Errorf("layer %s: the ring of %v is not closed, or clockwise (RFC 7946 3.1.6)", name, f.Properties["code"])
				}
			}
			for _, p := range ring {
				if p[0] < 117 || p[0] > 118 || p[1] < 24 || p[1] > 25 {
					t.Errorf("layer %s: position %v is longitude, latitude the wrong way round or far away", name, p)
				}
			}
			if name == "pipes" && f.Properties["color"] == nil {
				t.Errorf("pipe %v has no color", f.Properties["code"])
			}
		}
	}
	if total > 1<<20 {
		t.Errorf("the layers have %d bytes, too much for a map that opens at once", total)
	}
}

func signed(ring [][2]float64) (s float64) {
	for i := 1; i < len(ring); i++ {
		s += ring[i-1][0]*ring[i][1] - ring[i][0]*ring[i-1][1]
	}
	return s
}

// TestWaterHangsTogether: every junction gets water, and each area by one inlet.
func TestWaterHangsTogether(t *testing.T) {
	w := Demo().Water
	wet := map[int]bool{}
	for i, n := range w.Nodes {
		if n.Head > 0 {
			wet[i] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, p := range w.Pipes {
			if wet[p.From] != wet[p.To] {
				wet[p.From], wet[p.To], grown = true, true, true
			}
		}
	}
	if len(wet) != len(w.Nodes) {
		t.Errorf("%d of %d nodes get water", len(wet), len(w.Nodes))
	}
	into := map[string]int{}
	for _, p := range w.Pipes {
		if from, to := w.Nodes[p.From].DMA, w.Nodes[p.To].DMA; from != to {
			into[from+">"+to]++
		}
		if p.Length < 20 || p.Diameter < 100 {
			t.Errorf("pipe %s: %.0f m, DN %.0f", p.Code, p.Length, p.Diameter)
		}
	}
	if diff := cmp.Diff(map[string]int{">D1": 1, ">D2": 1, ">D3": 1}, into); diff != "" {
		t.Errorf("pipes between areas (-want +got):\n%s", diff)
	}
}
