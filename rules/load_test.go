package rules

import (
	"os"
	"testing"
)

func TestTheFileOfTheManualLoadsAndItsTestPasses(t *testing.T) {
	set, err := Load(os.DirFS("testdata/manual"), cityModels())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(set.Rules()); n != 6 {
		t.Errorf("%d rules, want 6", n)
	}
	for _, r := range Test(set) {
		if !r.OK() {
			t.Errorf("%s", r.Err())
		}
	}
	for _, w := range set.Warnings() {
		t.Log(w)
	}
}
