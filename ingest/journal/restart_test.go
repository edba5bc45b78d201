package journal

import (
	"testing"
	"time"
)

// comesBack waits until the embedded server writes again.
func comesBack(t *testing.T, j *Journal) {
	t.Helper()
	over, _ := j.outage.state()
	if over == nil {
		return
	}
	select {
	case <-over:
	case <-time.After(time.Minute):
		t.Fatalf("the log does not come back: %v", j.Ready())
	}
}
