package ingest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// TestWatch: who watches a device gets its messages from then on and nobody
// else's, and ends with the context or their own error.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(memLog)
		p, stop := start(t, l)
		defer stop()
		send(t, p, "d", `{"smoke": 0.01}`)
		l.seal()
		synctest.Wait()

		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		ended := make(chan error)
		watch := func(f func(citywarden.Entry) error) { go func() { ended <- p.Watch(ctx, "d", f) }() }
		watch(func(e citywarden.Entry) error {
			got = append(got, string(e.Uplink.Payload))
			return nil
		})
		synctest.Wait()
		for _, payload := range []string{`{"smoke": 0.02}`, `not JSON`} {
			send(t, p, "other", payload)
			send(t, p, "d", payload)
		}
		l.seal()
		synctest.Wait()
		if diff := cmp.Diff([]string{`{"smoke": 0.02}`, `not JSON`}, got); diff != "" {
			t.Errorf("watched (-want +got):\n%s", diff)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Watch = %v", err)
		}

		gone := errors.New("the caller is gone")
		ctx = t.Context()
		watch(func(citywarden.Entry) error { return gone })
		synctest.Wait()
		send(t, p, "d", `{"smoke": 0.03}`)
		l.seal()
		if err := <-ended; !errors.Is(err, gone) {
			t.Errorf("Watch = %v, want %v", err, gone)
		}
	})
}
