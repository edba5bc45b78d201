package rules

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestTheFileOfTheManualLoadsAndItsTestPasses(t *testing.T) {
	set, err := Load(os.DirFS("testdata/manual"), cityModels())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range set.Rules() {
		ids = append(ids, string(r.ID+" "+r.Of))
	}
	if want := []string{"fire.zone-smoke ", "fire.detector-silent ", "pipe.burst ", "parking.fire-lane ", "meter.night-base-load ", "power.mains-lost ",
		"power.district-outage power.mains-lost"}; !slices.Equal(ids, want) {
		t.Errorf("the rules are %q, want %q", ids, want)
	}
	for _, r := range Test(set) {
		if !r.OK() {
			t.Errorf("%s", r.Err())
		}
	}
	warnings := append(set.Warnings(), set.UnknownReceivers(nil)...)
	for i, want := range []string{"fire.detector-silent is inhibited by gateway.offline, which is not loaded", `fire.zone-smoke escalates to "duty-chief", which is no receiver`} {
		if len(warnings) != 2 || !strings.Contains(warnings[i].Message, want) {
			t.Fatalf("warnings:\n%v\nwant two, the one about %q", warnings, want)
		}
	}
	if w := set.UnknownReceivers([]string{"duty-chief"}); len(w) > 0 {
		t.Errorf("a known receiver: %v", w)
	}
}
