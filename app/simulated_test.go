package app

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"

	"github.com/citywarden/citywarden/rules"
	"github.com/citywarden/citywarden/simulators/scenario"
)

const simulated = "../simulators/scenarios"

// TestSimulated plays every scenario of the simulators against the whole
// platform with the rule library, in virtual time: devices speak MQTT or CoAP, as
// the scenario says, and what the platform made of it is judged over the HTTP
// API, as `citywarden simulate` does with any platform.
func TestSimulated(t *testing.T) {
	if testing.Short() {
		t.Skip("plays days of a county")
	}
	ats.Register() // see TestScenarios
	t.Cleanup(ats.Unregister)
	files, err := filepath.Glob(simulated + "/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d scenarios: %v", len(files), err)
	}
	if raced { // one of each kind
		for i, name := range []string{"fire-two-detectors", "pipe-gas", "parking-fire-lane", "building-shut", "device-noise"} {
			files[i] = filepath.Join(simulated, name+".yaml")
		}
		files = files[:5]
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { playSimulated(t, file) })
		})
	}
}

func playSimulated(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := scenario.Load(filepath.Base(file), text, func(path string) (io.ReadCloser, error) {
		return os.Open(filepath.Join(simulated, path))
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w := &world{t: t, dir: dir, data: filepath.Join(dir, "data"), tokens: map[string]string{}, devices: map[string]string{}}
	if err := os.CopyFS(filepath.Join(w.data, "rules"), rules.Library()); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, shanghai)
	if s.Start != nil {
		at = s.Start.Next(time.Date(2026, 11, 23, 0, 0, 0, 0, shanghai))
	}
	time.Sleep(time.Until(at))
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	defer w.end()
	v, err := s.Play(context.Background(), scenario.Options{Dial: w.mqtt.Dial, CoAP: w.coap.Dial, Platform: asAdmin{w}})
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	v.Write(&said)
	t.Log(said.String())
	if !v.Good {
		t.Error("the platform did not do what the scenario expects")
	}
}

// asAdmin is the platform's API as the admin.
type asAdmin struct{ w *world }

// Call implements scenario.Platform.
func (a asAdmin) Call(_ context.Context, method, path string, in, out any) error {
	return a.w.call("admin", method, path, in, out)
}
