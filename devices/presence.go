package devices

import (
	"context"
	"time"

	"github.com/citywarden/citywarden"
)

// aliveEvery is how often it is stored that the platform runs: after a crash it
// counts as down for up to so much longer.
const aliveEvery = time.Minute

// outage is a time in which the platform did not run, and so heard nobody.
type outage struct{ from, to time.Time }

// outagesOf returns what lies between times at which the platform ran, the newest
// last, and until now.
func outagesOf(ran []citywarden.Uptime, now time.Time) []outage {
	var out []outage
	for i, u := range ran {
		next := now
		if i+1 < len(ran) {
			next = ran[i+1].From
		}
		if next.After(u.To) {
			out = append(out, outage{u.To, next})
		}
	}
	return out
}

// deafened is how long after a RecordDeaf the next one is of the same time without room, and
// maxOutages how many outages are remembered.
const (
	deafened   = citywarden.Outage
	maxOutages = 64
)

// deafen notes that nobody was heard from since, zero for at or the outage just before, up to at, as messages could not be
// stored. It needs valuesMu.
func (r *Registry) deafen(since, at time.Time) {
	if since.IsZero() {
		since = at
	} else if r.deafSince.IsZero() {
		r.deafSince = since
	}
	r.deaf = at
	if n := len(r.outages); n > 0 && since.Sub(r.outages[n-1].to) < deafened {
		if at.After(r.outages[n-1].to) { // else it is from before a crash, and we were away for longer
			r.outages[n-1].to = at
		}
		return
	}
	r.outages = append(r.outages, outage{since, at})
	r.outages = r.outages[max(0, len(r.outages)-maxOutages):]
}

// noteEarly notes, once a minute, of which devices it was noted while our clock was ahead that they were heard: their time
// to be heard again begins now. It is measured from then on without the clock, so that one that is set forward again
// makes nobody silent.
func (r *Registry) noteEarly() {
	now := time.Now()
	if now.Sub(r.noted) < aliveEvery {
		return
	}
	r.noted = now
	r.mu.RLock()
	defer r.mu.RUnlock()
	r.valuesMu.Lock()
	defer r.valuesMu.Unlock()
	for _, e := range r.order {
		if e.early.IsZero() && tooEarly(e.lastSeen) {
			e.early = now
		}
	}
}

// silentAt returns when e counts as silent unless it is heard before: twice the
// heartbeat after it was heard. An outage of ours is no silence: all who were not silent when it
// began have that time again to come back. It needs valuesMu.
func (r *Registry) silentAt(e *entry) time.Time {
	wait, seen := 2*e.model.Heartbeat.Std(), e.lastSeen
	if !e.early.IsZero() {
		seen = e.early
	}
	at := seen.Add(wait)
	for _, o := range r.outages {
		if again := o.to.Add(wait); o.to.After(seen) && at.After(o.from) && again.After(at) {
			at = again
		}
	}
	return at
}

// status needs valuesMu.
func (r *Registry) status(e *entry, now time.Time) citywarden.Status {
	switch {
	case e.lastSeen.IsZero():
		return citywarden.StatusNever
	case e.device.Disabled, e.left, now.After(r.silentAt(e)):
		return citywarden.StatusSilent
	}
	return citywarden.StatusOnline
}

// presence needs mu and valuesMu.
func (r *Registry) presence(e *entry, now time.Time) citywarden.Presence {
	p := citywarden.Presence{
		Status: r.status(e, now), LastSeen: e.lastSeen, Left: e.left,
		Connected: len(r.listeners.of(e.device.ID, citywarden.DownlinkRevoked)) > 0, // whoever holds a connection listens for its end
	}
	if p.Status != citywarden.StatusSilent {
		return p
	}
	gateway := r.byID[e.device.Gateway()]
	switch {
	case e.device.Disabled:
		p.Reason = citywarden.SilentDisabled
	case e.left:
		p.Reason = citywarden.SilentLeft
	case gateway != nil && r.status(gateway, now) == citywarden.StatusSilent:
		p.Reason = citywarden.SilentGateway
	case p.Connected:
		p.Reason = citywarden.SilentMute
	default:
		p.Reason = citywarden.SilentGone
	}
	return p
}

// keepAlive stores that the platform runs, when that is due. One that has no room for messages, or whose log is not written,
// hears nobody, as if it did not run.
func (r *Registry) keepAlive(ctx context.Context, now bool) error {
	t := time.Now()
	r.valuesMu.Lock()
	deaf, since := r.deaf, r.deafSince
	r.deafSince = time.Time{}
	r.valuesMu.Unlock()
	if since.After(r.started) && since.Before(r.alive) { // it was not known yet that nobody was heard
		if err := r.store.SaveUptime(ctx, citywarden.Uptime{From: r.started, To: since}); err != nil {
			r.valuesMu.Lock()
			r.deafSince = since // before any that came meanwhile
			r.valuesMu.Unlock()
			return err
		}
		r.alive = since
	}
	if !now && t.Sub(r.alive) < aliveEvery || t.Sub(deaf) < deafened || r.opt.Ready != nil && r.opt.Ready() != nil {
		return nil
	}
	started := r.started
	if deaf.After(started) {
		started = deaf
	}
	if err := r.store.SaveUptime(ctx, citywarden.Uptime{From: started, To: t}); err != nil {
		return err
	}
	r.started, r.alive = started, t
	return nil
}
