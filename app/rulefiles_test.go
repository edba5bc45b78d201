package app

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/devices"
	"github.com/citywarden/citywarden/rules"
)

const oneRule = "rules:\n- {id: a, select: {model: [pressure-logger]}, levels: [{severity: minor, when: 'pressure < %s'}]}\n"

// TestRuleFilesAreTakenWhenTheyAreWhole: a file that an editor is still writing
// is left alone, one with a mistake changes nothing, a signal needs no patience.
func TestRuleFilesAreTakenWhenTheyAreWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(fmt.Sprintf(oneRule, "1"))
	models, err := devices.LoadModels(devices.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	classes, err := cases.LoadClasses("")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r, err := newRuleFiles(dir, models, classes, nil, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		set, err := r.load()
		if err != nil {
			t.Fatal(err)
		}
		r.engine = rules.NewRunner(rules.New(set, rules.Options{}), nil, nil, rules.RunnerOptions{})
		hup := make(chan os.Signal)
		r.asked = hup
		done := make(chan error, 1)
		go func() { done <- r.Run(t.Context()) }()
		version := func() string { return r.engine.Rules()[0].Version }
		first := version()

		for i := range 5 { // written for 20 s
			write(fmt.Sprintf(oneRule, "1") + fmt.Sprintf("# %d\n", i))
			time.Sleep(pollRules - time.Second)
			synctest.Wait()
			if got := r.RuleStatus(); got.Problems != nil || version() != first {
				t.Fatalf("taken while it was written: %+v", got)
			}
			write(fmt.Sprintf(oneRule, "2 and")) // half of a condition
			time.Sleep(time.Second)
		}
		time.Sleep(2 * pollRules)
		synctest.Wait()
		if got := r.RuleStatus(); len(got.Problems) != 1 || got.Refused.IsZero() || got.Rules != 1 || version() != first {
			t.Errorf("after half a condition: %+v", got)
		}

		write(fmt.Sprintf(oneRule, "2"))
		time.Sleep(2 * pollRules)
		synctest.Wait()
		second := version()
		if got := r.RuleStatus(); got.Problems != nil || !got.Refused.IsZero() || second == first {
			t.Errorf("after the correction: %+v, version %s", got, second)
		}

		write(fmt.Sprintf(oneRule, "3"))
		hup <- syscall.SIGHUP
		synctest.Wait()
		if version() == second {
			t.Error("not taken at the signal")
		}
	})
}
