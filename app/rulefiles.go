package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/devices"
	"github.com/citywarden/citywarden/rules"
)

// ruleFiles are the files of the rules folder, and what became of them. When
// they change, the engine runs them instead, but only if all of them are right
// and their tests pass; else the rules that run stay.
type ruleFiles struct {
	dir     string
	models  *devices.Models
	classes *cases.Classes
	known   []string // receivers that rules can escalate to
	engine  *rules.Runner
	audit   audit
	log     *slog.Logger
	loads   *prometheus.CounterVec
	current prometheus.Gauge
	asked   <-chan os.Signal // to read the files at once

	reloading sync.Mutex // makes reloads one after the other: held while tests run

	mu     sync.Mutex
	status citywarden.RuleStatus
	seen   string // fingerprint of what was read last, good or not
}

// audit keeps who changed what; its methods are those of store.DB.
type audit interface {
	AppendAudit(ctx context.Context, e citywarden.AuditEntry) (int64, error)
	FinishAudit(ctx context.Context, id int64, status int, after json.RawMessage) error
}

// pollRules is how often the folder is looked at. What changed is read when it
// has stayed the same from one look to the next: an editor may be writing.
const pollRules = 5 * time.Second

func newRuleFiles(dir string, models *devices.Models, classes *cases.Classes, receivers []string, audit audit, reg prometheus.Registerer, log *slog.Logger) (*ruleFiles, error) {
	r := &ruleFiles{dir: dir, models: models, classes: classes, known: receivers, audit: audit, log: log,
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "citywarden_rule_loads_total", Help: "How often the rule files were read, by what became of it: good or refused.",
		}, []string{"result"}),
		current: prometheus.NewGauge(prometheus.GaugeOpts{Name: "citywarden_rules", Help: "Rules that run."}),
	}
	for _, c := range []prometheus.Collector{r.loads, r.current} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("metrics of rules: %w", err)
		}
	}
	return r, nil
}

// load reads the folder and runs the tests in it. Its error has CodeInvalid and
// lists every mistake, or every expectation that is not met.
func (r *ruleFiles) load() (*rules.Set, error) {
	print, err := fingerprint(r.dir)
	if err != nil {
		return nil, fmt.Errorf("rules folder: %w", err)
	}
	r.mu.Lock()
	r.seen = print
	r.mu.Unlock()
	set, err := rules.Load(os.DirFS(r.dir), r.models)
	if err == nil {
		err = set.CheckClasses(r.classes.Check)
	}
	if err != nil {
		return nil, r.refuse(fmt.Errorf("rules in %s:\n%w", r.dir, err))
	}
	results := rules.Test(set)
	var red citywarden.Problems
	var errs []error
	for _, t := range results {
		red = append(red, t.Problems...)
		errs = append(errs, t.Err())
	}
	if len(red) > 0 {
		return nil, r.refuse(fmt.Errorf("rules in %s: a test in them fails:\n%w", r.dir, errors.Join(errs...)), red...)
	}
	warnings := slices.Concat(set.Warnings(), set.UnknownReceivers(r.known))
	for _, w := range warnings {
		r.log.Warn("look at this rule", "file", w.File, "line", w.Line, "problem", w.Message)
	}
	r.loads.WithLabelValues("good").Inc()
	r.current.Set(float64(set.Len()))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = citywarden.RuleStatus{
		Loaded: time.Now().UTC().Truncate(time.Millisecond), Rules: set.Len(), Tests: len(results),
		Warnings: warnings,
	}
	return set, nil
}

// refuse notes that the files can't be used, and what is wrong with them.
func (r *ruleFiles) refuse(err error, problems ...citywarden.Problem) error {
	var listed citywarden.Problems
	if len(problems) == 0 && errors.As(err, &listed) {
		problems = listed
	}
	if len(problems) == 0 {
		problems = []citywarden.Problem{{Message: err.Error()}}
	}
	r.loads.WithLabelValues("refused").Inc()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Refused, r.status.Problems = time.Now().UTC().Truncate(time.Millisecond), problems
	return citywarden.Errorf(citywarden.CodeInvalid, "%w", err)
}

// ReloadRules reads the files again and lets the engine run them. After an
// error, which lists every mistake, the rules that ran before go on.
func (r *ruleFiles) ReloadRules(ctx context.Context) error {
	return r.reload(ctx, "somebody asked for it")
}

// reload is ReloadRules, because of why.
func (r *ruleFiles) reload(ctx context.Context, why string) error {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	set, err := r.load()
	if err != nil {
		if citywarden.CodeOf(err) == citywarden.CodeInvalid {
			r.log.Warn("rules were not taken; those that run stay", "err", err)
			if _, aerr := r.audit.AppendAudit(context.WithoutCancel(ctx), entryOfRules(why+"; "+err.Error(), http.StatusBadRequest)); aerr != nil {
				return aerr
			}
		}
		return err
	}
	d := differenceOf(r.engine.Rules(), set.Rules())
	if d.text == "" {
		return r.engine.Reload(ctx, set)
	}
	e := entryOfRules(why+"; "+d.text, 0)
	e.Before = d.before
	id, err := r.audit.AppendAudit(ctx, e)
	if err != nil {
		r.mu.Lock()
		r.seen = "" // they are read again
		r.mu.Unlock()
		return err
	}
	status := http.StatusOK
	if err = r.engine.Reload(ctx, set); err != nil {
		status = http.StatusInternalServerError
	}
	// What was done is done, even when the caller is gone by now.
	if aerr := r.audit.FinishAudit(context.WithoutCancel(ctx), id, status, d.after); aerr != nil {
		r.log.Error("audit entry not finished", "entry", id, "status", status, "err", aerr)
	}
	if err != nil {
		return err
	}
	r.log.Info("rules taken", "rules", set.Len(), "changed", d.text)
	return nil
}

// recordStart keeps how the rules differ from those that ran before this start.
func (r *ruleFiles) recordStart(ctx context.Context, before []citywarden.Rule) {
	d := differenceOf(before, r.engine.Rules())
	if d.text == "" {
		return
	}
	e := entryOfRules("files changed while citywarden was stopped; "+d.text, 0)
	e.Before = d.before
	ctx = context.WithoutCancel(ctx)
	id, err := r.audit.AppendAudit(ctx, e)
	if err == nil {
		err = r.audit.FinishAudit(ctx, id, http.StatusOK, d.after)
	}
	if err != nil {
		r.log.Error("rules that were edited while citywarden was stopped are not in the audit trail", "changed", d.text, "err", err)
		return
	}
	r.log.Info("rules were edited while citywarden was stopped", "changed", d.text)
}

func entryOfRules(detail string, status int) citywarden.AuditEntry {
	const most = 2000 // as of what people do
	return citywarden.AuditEntry{
		At: time.Now().UTC(), User: citywarden.Platform, Action: "take-rules", Target: "/api/v1/rules",
		Detail: strings.ToValidUTF8(detail[:min(len(detail), most)], ""), Status: status,
	}
}

// difference is how rules differ: in words, "" when they don't, and the versions
// of those that differ, by id.
type difference struct {
	text          string
	before, after json.RawMessage
}

// maxNamed bounds how many rules a difference names.
const maxNamed = 500

func differenceOf(before, after []citywarden.Rule) difference {
	versions := func(list []citywarden.Rule) map[citywarden.RuleID]string {
		m := map[citywarden.RuleID]string{}
		for _, r := range list {
			m[r.ID] = r.Version
		}
		return m
	}
	was, is := versions(before), versions(after)
	old, now := map[citywarden.RuleID]string{}, map[citywarden.RuleID]string{}
	var added, changed, removed int
	named := 0
	for _, r := range slices.Concat(before, after) {
		a, b := was[r.ID], is[r.ID]
		if a == b {
			continue
		}
		switch {
		case a == "":
			added++
		case b == "":
			removed++
		default:
			changed++
		}
		delete(was, r.ID) // the same rule does not count again
		delete(is, r.ID)
		if named++; named > maxNamed {
			continue
		}
		if a != "" {
			old[r.ID] = a
		}
		if b != "" {
			now[r.ID] = b
		}
	}
	if added+changed+removed == 0 {
		return difference{}
	}
	d := difference{text: fmt.Sprintf("%d changed, %d new, %d gone", changed, added, removed)}
	d.before, _ = json.Marshal(old)
	d.after, _ = json.Marshal(now)
	return d
}

// RuleStatus says which rules run, and what is wrong with the files if they were
// changed since and could not be used.
func (r *ruleFiles) RuleStatus() citywarden.RuleStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Run reads the files again when they have changed or somebody asks, until ctx
// is done.
func (r *ruleFiles) Run(ctx context.Context) error {
	tick := time.NewTicker(pollRules)
	defer tick.Stop()
	before := ""
	for {
		var due bool
		why := "files changed"
		select {
		case <-ctx.Done():
			return nil
		case before := <-r.engine.Restored():
			r.recordStart(ctx, before)
		case <-r.asked:
			due, why = true, "SIGHUP"
		case <-tick.C:
			now, err := fingerprint(r.dir)
			r.mu.Lock()
			due = err == nil && now != r.seen && now == before
			r.mu.Unlock()
			before = now
		}
		if !due {
			continue
		}
		if err := r.reload(ctx, why); err != nil && citywarden.CodeOf(err) != citywarden.CodeInvalid && ctx.Err() == nil {
			r.log.Error("rules could not be read again", "err", err)
		}
	}
}

// fingerprint tells whether a rule file was added, changed or removed.
func fingerprint(dir string) (string, error) {
	fsys := os.DirFS(dir)
	names, err := rules.Files(fsys)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, name := range names {
		info, err := fs.Stat(fsys, name)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(&b, name, info.Size(), info.ModTime().UnixNano())
	}
	return b.String(), nil
}
