package app

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestRunAllStopsLastFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var order []string
		p := func(name string) part {
			return part{name, func(ctx context.Context) error {
				<-ctx.Done()
				mu.Lock()
				defer mu.Unlock()
				order = append(order, name)
				return nil
			}}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- runAll(ctx, []part{p("log"), p("pipeline"), p("mqtt")}) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if want := []string{"mqtt", "pipeline", "log"}; !slices.Equal(order, want) {
			t.Errorf("stopped in the order %v, want %v", order, want)
		}
	})
}

func TestRunAllStopsTheRestWhenOneFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := func(ctx context.Context) error { <-ctx.Done(); return nil }
		err := runAll(t.Context(), []part{{"log", wait}, {"mqtt", func(context.Context) error { return errors.New("no more sockets") }}})
		if err == nil || err.Error() != "mqtt: no more sockets" {
			t.Errorf("error %v, want mqtt's", err)
		}
		err = runAll(t.Context(), []part{{"log", wait}, {"coap", func(context.Context) error { return nil }}})
		if err == nil || err.Error() != "coap: stopped by itself" {
			t.Errorf("error %v, want it to say that coap stopped", err)
		}
	})
}

func TestRunAllDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		release := make(chan struct{})
		stuck := func(context.Context) error { <-release; return nil }
		began := time.Now()
		err := runAll(ctx, []part{{"a", stuck}, {"b", stuck}, {"c", stuck}, {"d", stuck}})
		took := time.Since(began)
		close(release)
		if err == nil || !strings.Contains(err.Error(), "a: did not stop in time") || !strings.Contains(err.Error(), "d: did not stop in time") {
			t.Errorf("error %v, want it to name the stuck parts", err)
		}
		if took > 10*time.Second {
			t.Errorf("four stuck parts took %s to give up", took)
		}
	})
}
