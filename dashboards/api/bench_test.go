package api

import (
	"log/slog"
	"testing"

	"github.com/citywarden/citywarden"
)

// BenchmarkPublish hands one reading to the hub while nobody, or a hundred
// consoles that follow alarms only, watch.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{0, 100} {
		b.Run(map[int]string{0: "nobody", 100: "hundred"}[n], func(b *testing.B) {
			hub := NewHub(slog.New(slog.DiscardHandler))
			for range n {
				if _, _, _, _, err := hub.subscribe(0, []string{"alarm", "case", "device"}, ""); err != nil {
					b.Fatal(err)
				}
			}
			e := readingEvent("smoke-1")
			b.ReportAllocs()
			for b.Loop() {
				hub.Publish(e)
			}
		})
	}
}

// BenchmarkRequest asks for a page of devices with a session.
func BenchmarkRequest(b *testing.B) {
	p := newPlatform(b)
	tok := p.as(citywarden.RoleViewer)
	for b.Loop() {
		if a := p.do(tok, "GET /api/v1/devices", ""); a.status != 200 {
			b.Fatal(a.body)
		}
	}
}

// BenchmarkSignIn is the cost of one password.
func BenchmarkSignIn(b *testing.B) {
	a := NewAccounts(nil)
	for b.Loop() {
		if _, err := a.hash(b.Context(), "correct horse"); err != nil {
			b.Fatal(err)
		}
	}
}
