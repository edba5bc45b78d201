package rules

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
)

// Desk takes the transitions.
type Desk interface {
	Cursor(context.Context) (citywarden.Position, error)
	// Apply stores ts together with upTo in one transaction and ignores those
	// that it has.
	Apply(ctx context.Context, upTo citywarden.Position, ts []citywarden.Transition) error
	// Applied returns the transitions after a position that it has: their key,
	// kind and severity.
	Applied(ctx context.Context, after citywarden.Position) ([]citywarden.Transition, error)
	// Active returns the active alarm of a rule on an entity, CodeNotFound when
	// there is none.
	Active(ctx context.Context, rule citywarden.RuleID, entity string) (citywarden.Alarm, error)
}

// Snapshots keeps the newest snapshot of the engine. LoadSnapshot returns nil
// data when there is none; SaveSnapshot keeps a copy of what it is given.
type Snapshots interface {
	LoadSnapshot(context.Context) (citywarden.Position, []byte, error)
	SaveSnapshot(context.Context, citywarden.Position, []byte) error
}

// Ticker appends a RecordTick to the log.
type Ticker interface {
	Tick(context.Context) error
}

// RunnerOptions are the optional parts of a Runner; the zero value works, but
// then nothing fires timers while no message comes.
type RunnerOptions struct {
	Tick    Ticker
	History History // fills windows that are longer after a reload; nil: they begin with what the engine has
	Past    History // the same after a start with rules that were edited while the platform was down
	Logger  *slog.Logger
	Every   time.Duration // between two snapshots; 0 means 30 s
}

// Runner drives an engine as the consumer "alarms" of the log.
type Runner struct {
	desk  Desk
	snaps Snapshots
	opt   RunnerOptions
	moved chan struct{} // has a token when the engine moved on

	restored chan []citywarden.Rule // has those that ran before the start, once

	mu        sync.Mutex // held while the engine steps and the desk stores, so that both stay together
	e         *Engine
	begun     bool
	applied   citywarden.Position // cursor of the desk
	stepped   citywarden.Position // last entry the engine took
	kept      citywarden.Position // of the newest snapshot
	replay    rerun               // nil unless the engine is behind the desk
	recalling *recall             // nil unless a reload reads the history
	waiting   []citywarden.Transition
	saved     time.Time
}

// NewRunner returns a runner of e, which it owns from now on.
func NewRunner(e *Engine, desk Desk, snaps Snapshots, opt RunnerOptions) *Runner {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Every <= 0 {
		opt.Every = 30 * time.Second
	}
	return &Runner{e: e, desk: desk, snaps: snaps, opt: opt, moved: make(chan struct{}, 1), restored: make(chan []citywarden.Rule, 1)}
}

// Name returns "alarms".
func (r *Runner) Name() string { return "alarms" }

// HoldsBack makes the pipeline take no more messages than the alarms can
// keep up with.
func (r *Runner) HoldsBack() bool { return true }

// Cursor returns the position of the newest snapshot, and restores it the first
// time. What lies between it and the desk's cursor is stepped again: the desk has
// it, so it has no effect unless it comes out differently now, see rerun.
func (r *Runner) Cursor(ctx context.Context) (citywarden.Position, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun {
		return r.kept, nil
	}
	applied, err := r.desk.Cursor(ctx)
	if err != nil {
		return 0, fmt.Errorf("cursor of alarms: %w", err)
	}
	pos, data, err := r.snaps.LoadSnapshot(ctx)
	if err != nil {
		return 0, fmt.Errorf("load snapshot of the rule engine: %w", err)
	}
	if data != nil {
		err = r.e.Restore(data)
	}
	restored := false
	switch {
	case data == nil:
		pos = 0
	case errors.Is(err, errVersion):
		r.opt.Logger.Warn("the snapshot of the rule engine can't be read by this version of citywarden; it begins with what the log still has", "err", err)
		pos = 0
	case err != nil:
		return 0, fmt.Errorf("restore the rule engine at %d: %w", pos, err)
	default:
		if err := r.remindAtStart(ctx, pos); err != nil {
			return 0, err
		}
		restored = true
	}
	if pos < applied {
		ts, err := r.desk.Applied(ctx, pos)
		if err != nil {
			return 0, fmt.Errorf("transitions after the snapshot of the rule engine: %w", err)
		}
		r.replay = rerun{}
		for i := range ts {
			r.replay.note(&ts[i])
		}
	}
	r.begun, r.applied, r.stepped, r.kept, r.saved = true, applied, pos, pos, time.Now()
	r.move()
	if restored {
		r.restored <- r.e.ranBefore()
	}
	return pos, nil
}

// Restored returns a channel that has the rules which ran before this start, by id
// and version, as soon as that is known; nothing when there is no snapshot.
func (r *Runner) Restored() <-chan []citywarden.Rule { return r.restored }

// Consume steps the engine over the entries and gives the transitions to the
// desk. After an error it may be called again with the same entries.
func (r *Runner) Consume(ctx context.Context, entries []citywarden.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range entries {
		if entries[i].Position <= r.stepped {
			continue
		}
		if r.replay != nil && entries[i].Position > r.applied {
			if err := r.agree(ctx, &entries[i]); err != nil {
				return err
			}
		}
		ts := r.e.Step(&entries[i])
		r.stepped = entries[i].Position
		if r.recalling != nil {
			r.recalling.hear(&entries[i])
		}
		if r.stepped > r.applied {
			r.waiting = append(r.waiting, ts...)
			continue
		}
		for i := range ts {
			r.replay.note(&ts[i])
		}
	}
	r.move()
	if err := r.apply(ctx); err != nil {
		return err
	}
	if time.Since(r.saved) >= r.opt.Every {
		if err := r.save(ctx); err != nil && ctx.Err() == nil { // the alarms are with the desk, and those behind them must not wait
			r.opt.Logger.Error("alarms go on without a new snapshot, and the log is kept from the last one on; it is tried again", "again_in", r.opt.Every, "err", err)
			r.saved = time.Now()
		}
	}
	return nil
}

// agree ends the replay before entry x, the first that the desk has not seen.
func (r *Runner) agree(ctx context.Context, x *citywarden.Entry) error {
	type dispute struct {
		at   entity
		mark *mark
		open *citywarden.Alarm
	}
	var all []dispute
	for at, m := range r.replay {
		if m.sum == 0 {
			continue
		}
		d := dispute{at: at, mark: m}
		a, err := r.desk.Active(ctx, at.rule, at.name)
		switch {
		case err == nil:
			d.open = &a
		case citywarden.CodeOf(err) != citywarden.CodeNotFound:
			return fmt.Errorf("active alarm of %s on %s: %w", at.rule, at.name, err)
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b dispute) int {
		return cmp.Or(cmp.Compare(a.at.rule, b.at.rule), cmp.Compare(a.at.name, b.at.name))
	})
	for _, d := range all {
		r.opt.Logger.Warn("rules, models or devices changed around a crash; the engine takes over from the desk", "rule", d.at.rule, "entity", d.at.name)
		r.waiting = append(r.waiting, r.e.agree(x, d.at, d.mark, d.open)...)
	}
	r.replay = nil
	return nil
}

func (r *Runner) apply(ctx context.Context) error {
	if r.stepped <= r.applied && len(r.waiting) == 0 {
		return nil
	}
	if err := r.desk.Apply(ctx, r.stepped, r.waiting); err != nil {
		return fmt.Errorf("apply %d transitions: %w", len(r.waiting), err)
	}
	r.applied, r.waiting = max(r.applied, r.stepped), nil
	return nil
}

// save stores a snapshot, once everything before it is with the desk.
func (r *Runner) save(ctx context.Context) error {
	if !r.begun || len(r.waiting) > 0 || r.replay != nil {
		return nil
	}
	data, err := r.e.Snapshot()
	if err != nil {
		return fmt.Errorf("snapshot of the rule engine: %w", err)
	}
	if err := r.snaps.SaveSnapshot(ctx, r.stepped, data); err != nil {
		return fmt.Errorf("save snapshot of the rule engine: %w", err)
	}
	r.kept, r.saved = r.stepped, time.Now()
	return nil
}

// tickPause is the shortest time between two ticks; timers are as exact as that.
const tickPause = 50 * time.Millisecond

// tickPatience is how long to wait for the engine to see a tick.
const tickPatience = 5 * time.Second

// Run appends a tick to the log whenever a timer of the engine is due, or an
// alarm is to be closed, and no message comes to do it. It blocks until ctx is
// done; then it saves a last snapshot and returns nil.
func (r *Runner) Run(ctx context.Context) error {
	wait := time.NewTimer(0)
	defer wait.Stop()
	var ticked time.Time
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.save(last)
		case <-r.moved:
		case <-wait.C:
		}
		pause := time.Minute
		if due, now := r.deadline(); !due.IsZero() && r.opt.Tick != nil {
			pause = time.Until(due)
			// A tick that the engine has not seen yet lies in a backlog, which
			// must not be answered with more of them.
			if wait := tickPatience - time.Since(ticked); pause <= 0 && now.Before(ticked) && wait > 0 {
				pause = wait
			}
			if pause <= 0 {
				ticked, pause = time.Now(), tickPatience
				if err := r.opt.Tick.Tick(ctx); err != nil && ctx.Err() == nil {
					r.opt.Logger.Error("tick not logged; timers of rules are late", "err", err)
				}
			}
		}
		wait.Reset(max(pause, tickPause))
	}
}

// deadline returns when the engine needs a record, zero when it needs none, and
// the engine's clock.
func (r *Runner) deadline() (due, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.begun {
		return time.Time{}, time.Time{}
	}
	due, now = r.e.Deadline(), r.e.Now()
	if r.replay != nil || r.e.unsettled() {
		due = now
	}
	return due, now
}

// move wakes Run: the engine's deadline may be another one.
func (r *Runner) move() {
	select {
	case r.moved <- struct{}{}:
	default:
	}
}

// Rules returns the rules that run.
func (r *Runner) Rules() []citywarden.Rule {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.e.Rules()
}

// OutOfService returns what people have taken out of service: devices by their
// id, then what is by rule and entity.
func (r *Runner) OutOfService() []citywarden.OutOfService {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.e.OutOfService()
}

// DeviceChanged tells the engine about a change in the registry.
func (r *Runner) DeviceChanged(d citywarden.Device, deleted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.e.DeviceChanged(d, deleted)
	if r.recalling != nil {
		r.recalling.e.DeviceChanged(d, deleted)
	}
	r.move()
}

// Reload runs set from now on; alarms keep their state by rule id. What set looks
// back at and the rules before did not is read from the history first, while
// those go on. What changes by it, and a snapshot, follow with the next record
// of the log; a tick is appended so that there is one. One Reload at a time.
func (r *Runner) Reload(ctx context.Context, set *Set) error {
	past, err := r.remind(ctx, set)
	r.mu.Lock()
	r.recalling = nil
	if err == nil {
		err = r.e.SetRules(set)
	}
	if err == nil && past != nil {
		past.fill(r.e)
	}
	r.saved = time.Time{}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	if r.opt.Tick == nil {
		return nil
	}
	if err := r.opt.Tick.Tick(ctx); err != nil {
		return fmt.Errorf("log the change of rules: %w", err)
	}
	return nil
}
