package rules

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

// recall fills what new rules look back at and the running ones did not: a
// longer window, another metric. Its engine has the memory of the new rules and
// evaluates nothing. It hears the stored history and, meanwhile, what comes in.
type recall struct {
	e     *Engine
	wants map[citywarden.ModelName][]int // metrics
	begun map[citywarden.DeviceID]int64  // of those that were of another model before, as device.begun
	back  time.Duration                  // how far
	upTo  citywarden.Position            // the rest of the log it hears as it comes in
}

// recallPatience bounds how long a reload waits for the history; then the
// windows begin with what the engine has.
const recallPatience = 5 * time.Minute

// startPatience is recallPatience for a start, with which everything waits.
const startPatience = 30 * time.Second

// recall returns what has to be read before the engine runs set, nil for nothing.
func (e *Engine) recall(set *Set) *recall {
	return e.recallBeyond(set, func(p *plan, i int) memory {
		if old := e.set.plans[p.model.Name]; old != nil {
			if k := old.metric(p.names[i]); k >= 0 {
				return old.memory[k]
			}
		}
		return memory{keep: -1}
	})
}

// recallEdited is recall for an engine that was restored with rules that were
// edited since: what the old ones remembered is not known any more.
func (e *Engine) recallEdited() *recall {
	edited := map[citywarden.ModelName]bool{}
	for _, r := range e.changed {
		for _, m := range r.Models {
			edited[m] = true
		}
	}
	return e.recallBeyond(e.set, func(p *plan, i int) memory {
		if edited[p.model.Name] {
			return memory{keep: -1}
		}
		return p.memory[i]
	})
}

// recallBeyond returns what set remembers and had does not.
func (e *Engine) recallBeyond(set *Set, had func(*plan, int) memory) *recall {
	x := &recall{wants: map[citywarden.ModelName][]int{}, begun: map[citywarden.DeviceID]int64{}}
	for id, d := range e.devices {
		if d.begun > 0 {
			x.begun[id] = d.begun
		}
	}
	for _, p := range set.order {
		for i := range p.memory {
			m, had := &p.memory[i], had(p, i)
			longer := slices.ContainsFunc(m.windows, func(w int64) bool { return !slices.Contains(had.windows, w) })
			if m.keep <= had.keep && m.each <= had.each && !longer {
				continue
			}
			back := m.keep
			if had.keep < 0 {
				back = max(back, p.stale[i])
			}
			x.wants[p.model.Name] = append(x.wants[p.model.Name], i)
			x.back = max(x.back, time.Duration(back)*time.Millisecond)
		}
	}
	if x.back == 0 {
		return nil
	}
	x.back = min(x.back, maxSpan)
	x.e = New(set, e.opt)
	return x
}

// devices returns those whose history is wanted.
func (x *recall) devices() map[citywarden.DeviceID]bool {
	out := map[citywarden.DeviceID]bool{}
	for id, d := range x.e.devices {
		if d.plan != nil && len(x.wants[d.model]) > 0 {
			out[id] = true
		}
	}
	return out
}

// hear remembers the readings of a message.
func (x *recall) hear(entry *citywarden.Entry) {
	if entry.Device == nil || len(entry.Readings) == 0 {
		return
	}
	d := x.e.devices[entry.Device.ID]
	if d == nil || d.plan == nil || entry.At.Before(d.reg.Created) || x.begun[d.id] > 0 && ms(entry.At) <= x.begun[d.id] { // of another device of that name, or another model
		return
	}
	x.e.now = ms(entry.At)
	full := uint64(0)
	for i := range entry.Readings {
		r := &entry.Readings[i]
		ts := min(ms(r.Time)+entry.Ahead.Milliseconds(), x.e.now)
		f := x.e.remember(d, r, ts).full
		full |= f
		d.newestTS = max(d.newestTS, ts)
	}
	d.trim(full)
}

// fill gives e, which runs the rules that x was made for, what was remembered.
func (x *recall) fill(e *Engine) {
	for _, id := range slices.Sorted(maps.Keys(x.e.devices)) {
		from, to := x.e.devices[id], e.devices[id]
		if to == nil || to.plan == nil || from.plan == nil || to.model != from.model {
			continue
		}
		for _, i := range x.wants[to.model] {
			old, r := to.rings[i], from.rings[i]
			if r == nil {
				continue
			}
			if old != nil { // what the history does not have
				for k := range old.s {
					var text *string
					if old.texts != nil {
						text = &old.texts[k]
					}
					r.insert(old.s[k], text, &to.plan.memory[i])
				}
			}
			to.rings[i] = r
			e.recalled = append(e.recalled, recalled{to, i})
		}
	}
}

// recalled is a metric of a device whose readings come from the history.
type recalled struct {
	d      *device
	metric int
}

// await has the newest readings of what was recalled wait for the rules with
// late, as if these had been there when they came. Those that would not wait any
// more are past, as what was before them.
func (e *Engine) await() {
	for _, x := range e.recalled {
		if x.d.plan != nil && x.metric < len(x.d.rings) && x.d.rings[x.metric] != nil {
			e.awaitMetric(x.d, x.metric)
		}
	}
	e.recalled = nil
}

func (e *Engine) awaitMetric(d *device, i int) {
	for k, late := range d.plan.lates {
		if late == 0 {
			continue
		}
		l, waits := &d.lanes[k], false
		for _, s := range d.rings[i].between(max(l.done, d.newestTS-late), d.newestTS) {
			if s.arrived()+late > e.now {
				l.add(point{ts: s.ts, arr: s.arrived(), mask: bit(i)})
				waits = true
			}
		}
		if waits {
			e.anew = append(e.anew, d)
		}
	}
}

// errRecalled ends the reading of a history.
var errRecalled = errors.New("all that was wanted has been read")

// remind reads the history for set and returns what came of it, nil when
// nothing was wanted or could be read. Until it is stopped by Reload, Consume
// tells it what comes in.
func (r *Runner) remind(ctx context.Context, set *Set) (*recall, error) {
	if r.opt.History == nil {
		return nil, nil
	}
	r.mu.Lock()
	x := r.e.recall(set)
	if x == nil {
		r.mu.Unlock()
		return nil, nil
	}
	x.upTo, r.recalling = r.stepped, x
	q := x.query(maxTime(r.e.Now(), time.Now()))
	r.mu.Unlock()
	return r.read(ctx, x, r.opt.History, q, recallPatience, func(entries []citywarden.Entry) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		return x.listen(entries)
	})
}

// remindAtStart has the engine, just restored, remember what rules look back at
// that were edited while the platform was down. Nothing else runs yet.
func (r *Runner) remindAtStart(ctx context.Context, upTo citywarden.Position) error {
	if r.opt.Past == nil || len(r.e.changed) == 0 {
		return nil
	}
	x := r.e.recallEdited()
	if x == nil {
		return nil
	}
	x.upTo = upTo
	x, err := r.read(ctx, x, r.opt.Past, x.query(r.e.Now()), startPatience, x.listen)
	if err == nil && x != nil {
		x.fill(r.e)
	}
	return err
}

// query asks for what x wants, back from now.
func (x *recall) query(now time.Time) citywarden.HistoryQuery {
	return citywarden.HistoryQuery{From: now.Add(-x.back), To: now.Add(time.Millisecond), Devices: x.devices()}
}

// listen hears entries of the history as far as x wants it.
func (x *recall) listen(entries []citywarden.Entry) error {
	for i := range entries {
		if entries[i].Position > x.upTo {
			return errRecalled
		}
		x.hear(&entries[i])
	}
	return nil
}

// read has listen hear the history, and returns x, nil when it can't be read.
func (r *Runner) read(ctx context.Context, x *recall, from History, q citywarden.HistoryQuery, patience time.Duration, listen func([]citywarden.Entry) error) (*recall, error) {
	begun := time.Now()
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := from.Entries(limited, q, listen)
	switch {
	case err == nil || errors.Is(err, errRecalled):
		r.opt.Logger.Info("history read for windows that are longer now", "back", x.back, "took", time.Since(begun))
		return x, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("history for the new rules: %w", ctx.Err())
	}
	r.opt.Logger.Warn("no history for the new rules; their windows begin with what the engine has", "back", x.back, "err", err)
	return nil, nil
}
