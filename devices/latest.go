package devices

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/citywarden/citywarden"
)

// Name returns "latest", the registry's name as a consumer of the log.
func (r *Registry) Name() string { return "latest" }

// HoldsBack makes the pipeline take no more messages than the latest values can
// keep up with.
func (r *Registry) HoldsBack() bool { return true }

// Cursor returns the position up to which the latest values are stored.
func (r *Registry) Cursor(context.Context) (citywarden.Position, error) {
	r.valuesMu.RLock()
	defer r.valuesMu.RUnlock()
	return r.saved, nil
}

// Consume takes the readings of entries as latest values where their event time
// is not older than what is known, and notes when each device was heard, by our
// clock. Every message counts as a sign of life, also one that could not be
// decoded, but not that it left, nor its will. It only changes memory (see Run) and never fails.
func (r *Registry) Consume(_ context.Context, entries []citywarden.Entry) error {
	now := time.Now()
	for i := range entries {
		e := &entries[i]
		if fresh := r.consume(e, now); len(fresh) > 0 {
			r.publish("reading", e.At, citywarden.ReadingEvent{Device: e.Device.ID, New: fresh})
		}
	}
	return nil
}

// consume takes an entry and returns its readings that are not older than what was
// there; of an upload of many only the newest of each metric, as they are held for a while.
func (r *Registry) consume(e *citywarden.Entry, now time.Time) (fresh []citywarden.Reading) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	r.valuesMu.Lock()
	defer r.valuesMu.Unlock()
	if e.Position <= r.reached {
		return nil
	}
	r.reached = e.Position
	if e.Kind == citywarden.RecordDeaf {
		r.deafen(e.Since(), e.At)
	}
	if e.Kind != citywarden.RecordUplink || e.Device == nil {
		return nil
	}
	d := r.byID[e.Device.ID]
	if d == nil {
		return nil // deleted since
	}
	heard := e.At
	if e.Uplink != nil && !e.Uplink.Received.IsZero() {
		heard = e.Uplink.Received
	}
	will := e.Uplink != nil && e.Uplink.Protocol == citywarden.ProtocolWill
	if (!heard.Before(d.lastSeen) || tooEarly(d.lastSeen)) && !will {
		if d.left = e.Uplink != nil && e.Uplink.Topic == citywarden.DeviceDisconnected; !d.left { // which others may say of it
			d.lastSeen, d.early = heard, time.Time{}
		}
	}
	if len(e.Attrs) > 0 {
		var rest int
		if d.client, rest = merged(d.client, e.Attrs); rest > 0 {
			r.log.Warn("attributes of a device not kept", "device", d.device.ID, "left_out", rest, "kept", maxAttributes)
		}
	}
	if !e.Stated.IsZero() && (e.Uplink == nil || e.Uplink.Alive()) { // else it is of when the device connected
		if d.clock == nil {
			d.clock = &clock{}
		}
		untrue := e.Quarantined > 0 && !trueTime(e.Stated, heard)
		d.unclock = d.clock.observe(now, heard, e.Stated, untrue) || d.unclock
	}
	if !d.dirty {
		d.dirty = true
		r.dirty = append(r.dirty, d)
	}
	fresh = e.Readings // nobody changes them
	all := true
	var newest []bool // by metric, of an upload of many
	if cap(e.Readings) > 2*len(d.model.Metrics) {
		newest = make([]bool, len(d.model.Metrics))
	}
	for i := range e.Readings {
		x := &e.Readings[i]
		k := slices.IndexFunc(d.model.Metrics, func(m citywarden.Metric) bool { return m.Name == x.Metric })
		if k < 0 || x.Time.Before(d.latest[k].Time) && !tooEarly(d.latest[k].Time) {
			if all && newest == nil {
				fresh, all = slices.Clone(fresh[:i]), false
			}
			continue
		}
		d.latest[k] = citywarden.Latest{Value: x.Value, Time: x.Time, Quality: x.Quality}
		switch {
		case newest != nil:
			newest[k] = true
		case !all:
			fresh = append(fresh, *x)
		}
	}
	if newest == nil {
		return fresh
	}
	fresh = nil
	for k, m := range d.model.Metrics {
		if l := &d.latest[k]; newest[k] {
			fresh = append(fresh, citywarden.Reading{Metric: m.Name, Value: l.Value, Time: l.Time, Quality: l.Quality})
		}
	}
	return fresh
}

const (
	flushEvery = time.Second
	flushChunk = 2000 // devices per transaction: a writer waits for at most so many
)

// Run stores the latest values every second, or less often so that it spends at
// most a tenth of its time on it, and once more when ctx is done; then it returns
// nil. What a crash leaves unstored comes again from the log.
func (r *Registry) Run(ctx context.Context) error {
	t := time.NewTimer(flushEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			begin := time.Now()
			if err := r.Flush(ctx); err != nil && ctx.Err() == nil {
				r.log.Error("latest values not stored; trying again", "err", err)
			}
			if err := r.keepAlive(ctx, false); err != nil && ctx.Err() == nil {
				r.log.Error("it is not stored that the platform runs; trying again", "err", err)
			}
			r.noteEarly()
			t.Reset(max(flushEvery, 9*time.Since(begin)))
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := r.Flush(last); err != nil {
				r.log.Warn("latest values not stored; they come again from the log", "err", err)
			}
			if err := r.keepAlive(last, true); err != nil {
				r.log.Warn("it is not stored until when the platform ran", "err", err)
			}
			return nil
		}
	}
}

// Flush stores the latest values that changed since the last time. Several
// transactions may be needed; the position is stored with the last one, and as a
// value by event time may be taken twice, a crash in between does no harm.
func (r *Registry) Flush(ctx context.Context) error {
	r.flushMu.Lock()
	defer r.flushMu.Unlock()
	r.valuesMu.Lock()
	dirty, reached, saved := r.dirty, r.reached, r.saved
	r.dirty = nil
	for _, e := range dirty {
		e.dirty = false
	}
	idle := reached == saved
	r.valuesMu.Unlock()
	if idle {
		return nil
	}
	todo := dirty
	for {
		n := min(len(todo), flushChunk)
		views := r.states(todo[:n])
		at := saved
		if n == len(todo) {
			at = reached
		}
		if err := r.store.SaveLatest(ctx, views, at); err != nil {
			r.valuesMu.Lock()
			for _, e := range todo {
				e.unclock = e.clock != nil
				if !e.dirty {
					e.dirty = true
					r.dirty = append(r.dirty, e)
				}
			}
			r.valuesMu.Unlock()
			return fmt.Errorf("save latest values: %w", err)
		}
		if todo = todo[n:]; len(todo) == 0 {
			break
		}
	}
	r.valuesMu.Lock()
	r.saved = reached
	r.valuesMu.Unlock()
	return nil
}

// trueTime reports whether a device may have measured then what arrived at that time: it is not of a clock that
// was never set.
func trueTime(stated, arrived time.Time) bool {
	return stated.Year() >= 2015 && stated.Sub(arrived) <= 24*time.Hour
}

// tooEarly reports whether what was noted of t was by a clock of ours that was ahead and set back since: it
// does not count any more.
func tooEarly(t time.Time) bool { return t.After(time.Now().Add(clockWidth)) }

// states returns what SaveLatest needs of each device, which is stored then.
func (r *Registry) states(es []*entry) []citywarden.DeviceView {
	r.mu.RLock()
	defer r.mu.RUnlock()
	r.valuesMu.Lock()
	defer r.valuesMu.Unlock()
	vs := make([]citywarden.DeviceView, len(es))
	for i, e := range es {
		vs[i].ID = e.device.ID
		vs[i].LastSeen, vs[i].Left, vs[i].Client = e.lastSeen, e.left, e.client
		vs[i].Latest = e.latestValues()
		if e.unclock {
			vs[i].ClockHistory = e.clock.history()
			e.unclock = false
		}
	}
	return vs
}
