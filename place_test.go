package citywarden

import "testing"

func TestAreaCodes(t *testing.T) {
	for code, valid := range map[AreaCode]bool{"": true, "350623": true, "350623100": true, "350623100001": true, "35": false, "3506231": false, "350623100001001": false, "35062x": false} {
		if err := code.Check(); (err == nil) != valid {
			t.Errorf("Check of %q = %v, want valid: %v", code, err, valid)
		}
	}
	for _, c := range []struct {
		area AreaCode
		grid GridCode
		has  bool
	}{
		{"", "350623100001001", true}, {"", "", true}, {"350623", "350623100001001", true}, {"350623", "", true}, {"350623", "350624100001001", false},
		{"350623100", "350623100001001", true}, {"350623100", "350623101001001", false}, {"350623100", "", false}, {"350623100", "350623", false},
		{"350623100001", "350623100001", true}, {"350623100001", "", false},
	} {
		if got := c.area.Has(c.grid); got != c.has {
			t.Errorf("%q has %q: %v", c.area, c.grid, got)
		}
	}
	if a := AreaCode("350623100"); !a.Meets("350623") || !a.Meets("350623100001") || !a.Meets("") || a.Meets("350623101") {
		t.Error("an area meets what it is a part of, and its parts")
	}
}
