package app

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
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
		var book auditBook
		r, err := newRuleFiles(dir, models, classes, nil, &book, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
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
		third := version()
		write(fmt.Sprintf(oneRule, "3") + "# nothing else\n")
		hup <- syscall.SIGHUP
		synctest.Wait()
		write(fmt.Sprintf(oneRule, "3") + strings.ReplaceAll(strings.TrimPrefix(fmt.Sprintf(oneRule, "9"), "rules:\n"), "id: a", "id: b"))
		hup <- syscall.SIGHUP
		synctest.Wait()
		write("rules: []\n")
		if err := r.ReloadRules(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := []string{
			`400 files changed; rules in `,
			`200 files changed; 1 changed, 0 new, 0 gone {"a":"` + first + `"} {"a":"` + second + `"}`,
			`200 SIGHUP; 1 changed, 0 new, 0 gone {"a":"` + second + `"} {"a":"` + third + `"}`,
			`200 SIGHUP; 0 changed, 1 new, 0 gone {} {"b":"`,
			`200 somebody asked for it; 0 changed, 0 new, 2 gone {"a":"` + third + `","b":"`,
		}
		got := book.lines()
		if len(got) != len(want) {
			t.Fatalf("the audit says:\n%s", strings.Join(got, "\n"))
		}
		for i, w := range want {
			if !strings.HasPrefix(got[i], citywarden.Platform+" take-rules /api/v1/rules "+w) {
				t.Errorf("the audit says %q, want %q", got[i], w)
			}
		}
	})
}

func TestRulesEditedWhileItWasStoppedAreInTheAudit(t *testing.T) {
	dir := t.TempDir()
	models, err := devices.LoadModels(devices.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	classes, err := cases.LoadClasses("")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var book auditBook
		start := func(limit string, snap *snapshotShelf) (*ruleFiles, context.CancelFunc) {
			if err := os.WriteFile(filepath.Join(dir, "a.yaml"), fmt.Appendf(nil, oneRule, limit), 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := newRuleFiles(dir, models, classes, nil, &book, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			set, err := r.load()
			if err != nil {
				t.Fatal(err)
			}
			r.engine = rules.NewRunner(rules.New(set, rules.Options{}), newDesk{}, snap, rules.RunnerOptions{})
			ctx, stop := context.WithCancel(t.Context())
			var parts sync.WaitGroup
			parts.Go(func() { _ = r.Run(ctx) })
			if _, err := r.engine.Cursor(ctx); err != nil {
				t.Fatal(err)
			}
			parts.Go(func() { _ = r.engine.Run(ctx) })
			synctest.Wait()
			return r, func() { stop(); parts.Wait() }
		}
		var snap snapshotShelf
		first, stop := start("1", &snap)
		was := first.engine.Rules()[0].Version
		stop()
		second, stop := start("2", &snap)
		is := second.engine.Rules()[0].Version
		stop()
		_, stop = start("2", &snap)
		stop()
		want := []string{citywarden.Platform + " take-rules /api/v1/rules 200 files changed while citywarden was stopped; 1 changed, 0 new, 0 gone {\"a\":\"" + was + "\"} {\"a\":\"" + is + "\"}"}
		if diff := cmp.Diff(want, book.lines()); diff != "" {
			t.Errorf("the audit (-want +got):\n%s", diff)
		}
	})
}

// newDesk is a desk that has seen nothing.
type newDesk struct{ rules.Desk }

// Cursor returns the beginning.
func (newDesk) Cursor(context.Context) (citywarden.Position, error) { return 0, nil }

// snapshotShelf keeps a snapshot in memory.
type snapshotShelf struct{ data []byte }

// LoadSnapshot returns it.
func (s *snapshotShelf) LoadSnapshot(context.Context) (citywarden.Position, []byte, error) {
	return 0, s.data, nil
}

// SaveSnapshot replaces it.
func (s *snapshotShelf) SaveSnapshot(_ context.Context, _ citywarden.Position, data []byte) error {
	s.data = slices.Clone(data)
	return nil
}

// auditBook is an audit in memory.
type auditBook struct {
	mu      sync.Mutex
	entries []citywarden.AuditEntry
}

// AppendAudit adds e.
func (b *auditBook) AppendAudit(_ context.Context, e citywarden.AuditEntry) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries = append(b.entries, e)
	return int64(len(b.entries)), nil
}

// FinishAudit completes an entry.
func (b *auditBook) FinishAudit(_ context.Context, id int64, status int, after json.RawMessage) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries[id-1].Status, b.entries[id-1].After = status, after
	return nil
}

func (b *auditBook) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, e := range b.entries {
		out = append(out, fmt.Sprintf("%s %s %s %d %s %s %s", e.User, e.Action, e.Target, e.Status, e.Detail, e.Before, e.After))
	}
	return out
}
