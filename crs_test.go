package citywarden

import (
	"math/rand/v2"
	"testing"
)

// The pairs are those that other implementations of GCJ-02 are tested with.
func TestKnownPositionsInGCJ02(t *testing.T) {
	for _, tt := range []struct{ wgs, gcj Point }{
		{Point{31.1774276, 121.5272106}, Point{31.17530398364597, 121.531541859215}}, // Shanghai
		{Point{22.543847, 113.912316}, Point{22.540796131694766, 113.9171764808363}}, // Shenzhen
		{Point{39.911954, 116.377817}, Point{39.91334545536069, 116.38404722455657}}, // Beijing
		{Point{48.8584, 2.2945}, Point{48.8584, 2.2945}},                             // Paris
		{Point{-33.8568, 151.2153}, Point{-33.8568, 151.2153}},                       // Sydney
	} {
		if got := GCJ02.FromWGS84(tt.wgs); got.Distance(tt.gcj) > 0.01 {
			t.Errorf("FromWGS84(%v) = %v, want %v", tt.wgs, got, tt.gcj)
		}
		if got := GCJ02.ToWGS84(tt.gcj); got.Distance(tt.wgs) > 0.01 {
			t.Errorf("ToWGS84(%v) = %v, want %v", tt.gcj, got, tt.wgs)
		}
		if got := CGCS2000.ToWGS84(tt.wgs); got != tt.wgs {
			t.Errorf("CGCS2000 moved %v to %v", tt.wgs, got)
		}
	}
}

func TestGCJ02ThereAndBack(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 20000 {
		p := Point{Lat: 3 + 50*r.Float64(), Lon: 73 + 62*r.Float64()}
		if far := GCJ02.ToWGS84(GCJ02.FromWGS84(p)).Distance(p); far > 0.001 {
			t.Fatalf("%v comes back %g m away", p, far)
		}
	}
	zhangpu := Point{24.117, 117.613}
	if d := GCJ02.FromWGS84(zhangpu).Distance(zhangpu); d < 300 || d > 800 {
		t.Errorf("GCJ-02 shifts %v by %g m", zhangpu, d)
	}
}

func TestNamesOfCoordinateSystems(t *testing.T) {
	for s, want := range map[string]CRS{
		"": WGS84, "wgs84": WGS84, "WGS 84": WGS84, "EPSG:4326": WGS84, "urn:ogc:def:crs:OGC:1.3:CRS84": WGS84,
		"cgcs2000": CGCS2000, "EPSG:4490": CGCS2000, "gcj02": GCJ02, "GCJ-02": GCJ02, "gcj_02": GCJ02,
	} {
		if got, err := ParseCRS(s); got != want || err != nil {
			t.Errorf("ParseCRS(%q) = %q, %v, want %q", s, got, err, want)
		}
	}
	for _, s := range []string{"BD-09", "EPSG:4549", "x"} {
		if _, err := ParseCRS(s); CodeOf(err) != CodeInvalid {
			t.Errorf("ParseCRS(%q): %v, want an invalid error", s, err)
		}
	}
}
