package devices

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
)

// merged returns a copy of old with the attributes of more, and how many are
// left out: a device keeps maxAttributes at most, of what is new the first by name.
func merged(old, more map[string]any) (out map[string]any, rest int) {
	out = make(map[string]any, len(old)+len(more))
	maps.Copy(out, old)
	for _, k := range slices.Sorted(maps.Keys(more)) {
		if _, known := out[k]; known || len(out) < maxAttributes {
			out[k] = more[k]
		} else {
			rest++
		}
	}
	return out, rest
}

// Attributes returns what a device may read of itself: those of the client and
// shared attributes that are named, all of a scope for nil. CodeNotFound when
// there is no such device.
func (r *Registry) Attributes(id citywarden.DeviceID, client, shared []string) (citywarden.DeviceAttributes, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.byID[id]
	if e == nil {
		return citywarden.DeviceAttributes{}, notFound(id)
	}
	r.valuesMu.RLock()
	reported := e.client
	r.valuesMu.RUnlock()
	return citywarden.DeviceAttributes{Client: chosen(reported, client), Shared: chosen(r.sharedOf(e.device, e.model), shared)}, nil
}

// AttributeStates returns all attributes of a device, by name. CodeNotFound when there
// is no such device.
func (r *Registry) AttributeStates(id citywarden.DeviceID) ([]citywarden.AttributeState, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.byID[id]
	if e == nil {
		return nil, notFound(id)
	}
	r.valuesMu.RLock()
	reported := e.client
	r.valuesMu.RUnlock()
	shared := r.sharedOf(e.device, e.model)
	names := map[string]bool{}
	for _, m := range []map[string]any{reported, shared, e.device.Attributes, e.device.SiteAttributes} {
		for name := range m {
			names[name] = true
		}
	}
	for i := range e.model.Attributes {
		names[e.model.Attributes[i].Name] = true
	}
	out := []citywarden.AttributeState{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		x := citywarden.AttributeState{Name: name, Scope: "server", Reported: reported[name]}
		x.Value, x.From = e.device.Attribute(e.model, name)
		want, told := shared[name]
		switch {
		case told && x.Value != want:
			x.Value, x.From = want, "firmware"
			fallthrough
		case told:
			x.Scope, x.State = "shared", agreement(want, x.Reported)
		case x.Value == nil && x.Reported == nil:
			continue // declared, and set nowhere
		case x.Value == nil:
			x.Scope = "client"
		}
		out = append(out, x)
	}
	return out, nil
}

// agreement says whether what a device reported is what it was to be.
func agreement(desired, reported any) string {
	switch reported {
	case nil:
		return "unreported"
	case desired:
		return "agreed"
	}
	return "differs"
}

// remindEvery is how often at most a device is told again what it has not taken over.
const remindEvery = 10 * time.Minute

// remind tells who begins to listen for the attributes of a device what was desired
// while it was away: those shared ones of which it reports another value.
func (r *Registry) remind(id citywarden.DeviceID, l *listener) {
	if len(r.untaken(id)) == 0 { // as of most: they wait for nobody
		return
	}
	r.telling.Lock() // what is read here is told before what is changed meanwhile
	defer r.telling.Unlock()
	desired := r.untaken(id)
	if len(desired) == 0 {
		return
	}
	r.mu.RLock()
	e := r.byID[id]
	r.mu.RUnlock()
	if e == nil {
		return
	}
	m := changes(nil, desired)
	m.Device = id
	now := time.Now()
	r.valuesMu.RLock()
	again := e.reminder == string(m.Body) && now.Sub(e.reminded) < remindEvery // one that polls would be told without end
	r.valuesMu.RUnlock()
	if again || !l.send(m) {
		return
	}
	r.valuesMu.Lock()
	e.reminder, e.reminded = string(m.Body), now
	r.valuesMu.Unlock()
}

// untaken returns the shared attributes of which a device reports another value.
func (r *Registry) untaken(id citywarden.DeviceID) map[string]any {
	states, err := r.AttributeStates(id)
	if err != nil {
		return nil
	}
	out := map[string]any{}
	for _, x := range states {
		if x.State == "differs" {
			out[x.Name] = x.Value
		}
	}
	return out
}

func chosen(all map[string]any, names []string) map[string]any {
	if names == nil {
		return all
	}
	out := map[string]any{}
	for _, n := range names {
		if v, ok := all[n]; ok {
			out[n] = v
		}
	}
	return out
}

// sharedOf returns the attributes that d is told: its own, its site's or the
// defaults of those that its model shares, and which firmware it is to load.
func (r *Registry) sharedOf(d *citywarden.Device, m *citywarden.Model) map[string]any {
	var out map[string]any
	for i := range m.Attributes {
		if !m.Attributes[i].Shared {
			continue
		}
		if v, _ := d.Attribute(m, m.Attributes[i].Name); v != nil {
			if out == nil {
				out = map[string]any{}
			}
			out[m.Attributes[i].Name] = v
		}
	}
	return attributesOf(r.firmware.of(d), out)
}

// sharedChanges returns what to tell a device whose attributes changed; its Body
// is nil when that is nothing.
func (r *Registry) sharedChanges(was *citywarden.Device, wasModel *citywarden.Model, now *citywarden.Device, model *citywarden.Model) citywarden.Downlink {
	m := changes(r.sharedOf(was, wasModel), r.sharedOf(now, model))
	m.Device = now.ID
	return m
}

// Child returns the device that a gateway calls name, by its id, its name or one
// of its identities: one whose attribute gateway is the gateway's id. CodeNotFound when there is
// none, CodeDenied when it is disabled.
func (r *Registry) Child(gateway citywarden.DeviceID, name string) (citywarden.DeviceID, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.byID[citywarden.DeviceID(name)]
	if e == nil || e.device.Gateway() != gateway {
		known := r.called[calling{gateway, name}]
		if len(known) == 0 {
			known = r.called[calling{gateway, citywarden.Identity(name)}]
		}
		if len(known) == 0 {
			return "", citywarden.Errorf(citywarden.CodeNotFound,
				"no device %q behind gateway %s; register it and set its attribute gateway to %q", name, gateway, gateway)
		}
		e = known[0]
	}
	if e.device.Disabled {
		return "", citywarden.Errorf(citywarden.CodeDenied, "device %s is disabled", e.device.ID)
	}
	return e.device.ID, nil
}

// calling is what a gateway calls a device.
type calling struct {
	gateway citywarden.DeviceID
	name    string
}

// callings are what its gateway may call e, beside its id.
func (e *entry) callings() []calling {
	g := e.device.Gateway()
	out := []calling{{g, e.device.Name}}
	for _, name := range e.device.Identities() {
		out = append(out, calling{g, name})
	}
	return out
}

// join and part keep behind and called. They need mu.
func (r *Registry) join(e *entry) {
	for _, n := range e.device.Adjacent {
		r.named[n]++
	}
	g := e.device.Gateway()
	if g == "" {
		return
	}
	r.behind[g] = append(r.behind[g], e)
	for _, c := range e.callings() {
		r.called[c] = append(r.called[c], e)
	}
}

func (r *Registry) part(e *entry) {
	for _, n := range e.device.Adjacent {
		if r.named[n]--; r.named[n] == 0 {
			delete(r.named, n)
		}
	}
	g := e.device.Gateway()
	if g == "" {
		return
	}
	leave(r.behind, g, e)
	for _, c := range e.callings() {
		leave(r.called, c, e)
	}
}

// leave takes e out of the list at key.
func leave[K comparable](m map[K][]*entry, key K, e *entry) {
	if m[key] = slices.DeleteFunc(m[key], func(o *entry) bool { return o == e }); len(m[key]) == 0 {
		delete(m, key)
	}
}

// listeners are those who carry messages to devices.
type listeners struct {
	mu       sync.Mutex
	byDevice map[citywarden.DeviceID][]*listener
}

type listener struct {
	kind citywarden.DownlinkKind
	send func(citywarden.Downlink) bool
}

// listen has send called with the messages of a kind for a device and, where none
// listens for those, for the devices behind it, until cancel is called.
func (r *Registry) listen(id citywarden.DeviceID, kind citywarden.DownlinkKind, send func(citywarden.Downlink) bool) (x *listener, cancel func()) {
	l := &r.listeners
	x = &listener{kind, send}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byDevice == nil {
		l.byDevice = map[citywarden.DeviceID][]*listener{}
	}
	l.byDevice[id] = append(l.byDevice[id], x)
	return x, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		rest := slices.DeleteFunc(slices.Clone(l.byDevice[id]), func(o *listener) bool { return o == x })
		if len(rest) == 0 {
			delete(l.byDevice, id)
			return
		}
		l.byDevice[id] = rest
	}
}

func (l *listeners) of(id citywarden.DeviceID, kind citywarden.DownlinkKind) []*listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*listener
	for _, x := range l.byDevice[id] {
		if x.kind == kind {
			out = append(out, x)
		}
	}
	return out
}

// listenersFor returns who listens for messages of that kind for a device, or
// else for those of its gateway; the newest last.
func (r *Registry) listenersFor(id citywarden.DeviceID, kind citywarden.DownlinkKind) []*listener {
	to := r.listeners.of(id, kind)
	if len(to) == 0 {
		if d, _, err := r.Device(id); err == nil && d.Gateway() != "" {
			to = r.listeners.of(d.Gateway(), kind)
		}
	}
	return to
}

// behindOf returns the devices behind a gateway.
func (r *Registry) behindOf(gateway citywarden.DeviceID) []citywarden.DeviceID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []citywarden.DeviceID
	for _, e := range r.behind[gateway] {
		out = append(out, e.device.ID)
	}
	return out
}

// tell hands m to all who listen for its device, or else for its gateway. One that
// nobody listens for, or without a Body, is gone: devices ask for their attributes
// when they connect.
func (r *Registry) tell(m citywarden.Downlink) {
	if m.Body == nil && m.Kind != citywarden.DownlinkRevoked {
		return
	}
	to := r.listenersFor(m.Device, m.Kind)
	if m.Kind == citywarden.DownlinkRevoked {
		to = append(to, r.listeners.of(m.Device, citywarden.DownlinkRevokedDTLS)...)
	}
	for _, x := range to {
		x.send(m)
	}
}
