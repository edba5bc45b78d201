package devices

import (
	"context"
	"crypto/cipher"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/citywarden/citywarden"
)

// Store keeps the devices; store.DB is one. Every method is one transaction
// and durable when it returns nil.
type Store interface {
	// LoadDevices calls each for every device with its presence and latest
	// values, and its secrets, the newest first, and returns the position of the log that the latest values reach.
	LoadDevices(ctx context.Context, each func(citywarden.DeviceView, []citywarden.Secret)) (citywarden.Position, error)
	// SaveDevices inserts or replaces devices, not their latest values, and
	// sets the secrets given.
	SaveDevices(ctx context.Context, ds []citywarden.Device, secrets map[citywarden.DeviceID][]citywarden.Secret) error
	// DeleteDevice deletes a device with its secrets and latest values.
	DeleteDevice(ctx context.Context, id citywarden.DeviceID) error
	// SaveLatest replaces presence and latest values of devices that still
	// exist, and the position of the log that they reach.
	SaveLatest(ctx context.Context, vs []citywarden.DeviceView, reached citywarden.Position) error
	// LoadUptimes returns when the platform ran last, the newest last, and SaveUptime
	// stores that it runs since u.From, and did until u.To.
	LoadUptimes(ctx context.Context) ([]citywarden.Uptime, error)
	SaveUptime(ctx context.Context, u citywarden.Uptime) error
	SiteStore
	ClaimStore
}

// Options are what a Registry can do without; the zero value works.
type Options struct {
	// Grid returns the unit grid that a point lies in, "" for none; nil keeps
	// the grid that a device came with.
	Grid func(citywarden.Point) citywarden.GridCode
	// Component returns where a component is that a device is attached to, or
	// CodeNotFound; nil takes no components.
	Component func(citywarden.ComponentID) (citywarden.Point, error)
	// Publish is told of new readings (Kind "reading", ReadingEvent) and of
	// changed devices (Kind "device", DeviceView or DeletedDevice). It must not block.
	Publish func(citywarden.Event)
	// OnChange is told of every created, changed or deleted device after it was
	// stored, one at a time and in order. It must not change the registry.
	OnChange func(d citywarden.Device, deleted bool)
	// Ready says why the log can't be written, nil when it can: while it can't, nobody is heard. nil for a log that always can.
	Ready func() error
	// Seal encrypts the pre-shared keys that are kept; nil keeps none.
	Seal   cipher.AEAD
	Logger *slog.Logger
}

// entry is one device in memory.
type entry struct {
	device *citywarden.Device // replaced as a whole when it changes: others hold it
	model  *citywarden.Model
	search string // id and name in lower case

	secrets []citywarden.Secret // the newest first, one or two; replaced as a whole
	offer   *offer              // what it said of being claimed; nil before it did

	// guarded by Registry.valuesMu
	lastSeen time.Time
	early    time.Time           // when it was noticed that lastSeen is too early, see noteEarly; zero while it is not
	left     bool                // it or its gateway said so, last
	latest   []citywarden.Latest // as model.Metrics; zero Time where there is none
	client   map[string]any      // attributes it reported; replaced as a whole when one changes
	reminder string              // the shared attributes that it was told last because it reported others
	reminded time.Time
	clock    *clock // nil while it gave no times
	unclock  bool   // clock changed since it was stored
	dirty    bool
}

// Registry holds all devices in memory and keeps them in the store. It is also
// the consumer "latest" of the log. Several goroutines may use it.
type Registry struct {
	store  Store
	models *Models
	opt    Options
	log    *slog.Logger

	// changeMu makes changes of devices one after the other. It is held while
	// the store writes, so that memory and store go the same way; reading and
	// authenticating need only mu.
	changeMu sync.Mutex

	// telling is held from when attributes change until all who listen were told, so that nobody is told of an older value
	// after a newer one. It is taken before mu, and after changeMu.
	telling sync.Mutex

	mu         sync.RWMutex
	byID       map[citywarden.DeviceID]*entry
	byHash     map[tokenHash]*entry
	byIdentity map[string]*entry                // of a pre-shared key
	order      []*entry                         // by id
	behind     map[citywarden.DeviceID][]*entry // by their gateway
	called     map[calling][]*entry             // by what that calls them
	named      map[citywarden.DeviceID]int      // how many devices have it as a neighbour
	sites      map[citywarden.SiteID]citywarden.Site

	firmware *Firmware // nil without any

	announcements *rate.Limiter // messages of all that say that they may be claimed

	noted   time.Time // when noteEarly was last; of Run
	started time.Time // or since when messages have room; of Run
	alive   time.Time // when it was stored last that we run; of Run

	// flushMu makes Flush calls, and deletions, one after the other; held while
	// the store writes.
	flushMu sync.Mutex

	valuesMu  sync.RWMutex // never taken before mu by whoever holds both
	reached   citywarden.Position
	saved     citywarden.Position
	dirty     []*entry
	outages   []outage  // of ours, the newest last
	deaf      time.Time // until when messages could not be stored last
	deafSince time.Time // and since when, of the first time that the stored uptime does not know of; zero for none

	listeners listeners
}

// New returns a Registry with all devices of the store. A device of a model
// that is not known any more is an error that names it: its messages could not
// be decoded.
func New(ctx context.Context, s Store, m *Models, o Options) (*Registry, error) {
	r := &Registry{store: s, models: m, opt: o, log: o.Logger, announcements: rate.NewLimiter(claimRate, claimRoom),
		byID: map[citywarden.DeviceID]*entry{}, byHash: map[tokenHash]*entry{}, byIdentity: map[string]*entry{}, behind: map[citywarden.DeviceID][]*entry{}, called: map[calling][]*entry{}, named: map[citywarden.DeviceID]int{}, sites: map[citywarden.SiteID]citywarden.Site{}}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.started = time.Now()
	ran, err := s.LoadUptimes(ctx)
	if err != nil {
		return nil, fmt.Errorf("load when the platform ran: %w", err)
	}
	r.outages = outagesOf(ran, r.started)
	sites, err := s.LoadSites(ctx)
	if err != nil {
		return nil, fmt.Errorf("load sites: %w", err)
	}
	for _, x := range sites {
		r.sites[x.ID] = x
	}
	var unknown error
	reached, err := s.LoadDevices(ctx, func(v citywarden.DeviceView, s []citywarden.Secret) {
		model, ok := m.Model(v.Model)
		if !ok {
			if unknown == nil {
				unknown = citywarden.Errorf(citywarden.CodeInvalid, "device %s is of model %s, which no model file declares%s",
					v.ID, v.Model, suggest(string(v.Model), m.names))
			}
			return
		}
		d := v.Device
		d.SiteAttributes = r.sites[d.Site()].Attributes
		e := newEntry(&d, model)
		e.lastSeen, e.left, e.client, e.clock = v.LastSeen, v.Left, v.Client, clockOf(v.ClockHistory)
		for i := range model.Metrics {
			e.latest[i] = v.Latest[model.Metrics[i].Name]
		}
		r.byID[d.ID] = e
		r.order = append(r.order, e)
		r.join(e)
		r.give(e, s)
	})
	if err != nil {
		return nil, fmt.Errorf("load devices: %w", err)
	}
	if unknown != nil {
		return nil, unknown
	}
	slices.SortFunc(r.order, func(a, b *entry) int { return strings.Compare(string(a.device.ID), string(b.device.ID)) })
	r.reached, r.saved = reached, reached
	claims, err := s.LoadClaims(ctx)
	if err != nil {
		return nil, fmt.Errorf("load claims: %w", err)
	}
	for _, o := range claims {
		if e := r.byID[o.Device]; e != nil {
			e.offer = newOffer()
			e.offer.ClaimOffer = o
		}
	}
	return r, nil
}

func newEntry(d *citywarden.Device, m *citywarden.Model) *entry {
	return &entry{device: d, model: m, search: searchText(d), latest: make([]citywarden.Latest, len(m.Metrics))}
}

func searchText(d *citywarden.Device) string {
	return strings.ToLower(string(d.ID) + "\n" + d.Name)
}

// Device returns a device and its model, or CodeNotFound. Neither may be
// changed; a later change of the device does not show in them.
func (r *Registry) Device(id citywarden.DeviceID) (*citywarden.Device, *citywarden.Model, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.byID[id]
	if e == nil {
		return nil, nil, notFound(id)
	}
	return e.device, e.model, nil
}

func notFound(id citywarden.DeviceID) error {
	return citywarden.Errorf(citywarden.CodeNotFound, "no device %s", id)
}

// Each calls f for every device in the order of their ids; f may call the
// registry. Devices that are created meanwhile are left out.
func (r *Registry) Each(f func(*citywarden.Device, *citywarden.Model)) {
	type pair struct {
		d *citywarden.Device
		m *citywarden.Model
	}
	r.mu.RLock()
	all := make([]pair, len(r.order))
	for i, e := range r.order {
		all[i] = pair{e.device, e.model}
	}
	r.mu.RUnlock()
	for _, p := range all {
		f(p.d, p.m)
	}
}

// Get returns a device with its presence and latest values, or CodeNotFound.
// Its Alarm is for the caller to fill in.
func (r *Registry) Get(id citywarden.DeviceID) (citywarden.DeviceView, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.byID[id]
	if e == nil {
		return citywarden.DeviceView{}, notFound(id)
	}
	return r.view(e, time.Now()), nil
}

// List returns a page of the devices that match, in the order of their ids, and
// the cursor of the next page, "" after the last.
func (r *Registry) List(f citywarden.DeviceFilter) ([]citywarden.DeviceView, string, error) {
	search, size, now := strings.ToLower(f.Search), f.Size(), time.Now()
	of := func(e *entry) bool {
		r.valuesMu.RLock()
		defer r.valuesMu.RUnlock()
		return r.status(e, now) == f.Status
	}
	ticks := func(e *entry) bool {
		r.valuesMu.RLock()
		defer r.valuesMu.RUnlock()
		v := e.clock.view()
		return v != nil && v.State == f.Clock
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	i := 0
	if f.After != "" {
		var found bool
		if i, found = r.find(citywarden.DeviceID(f.After)); found {
			i++
		}
	}
	views := []citywarden.DeviceView{}
	for ; i < len(r.order); i++ {
		e := r.order[i]
		if f.Model != "" && e.model.Name != f.Model || f.Domain != "" && e.model.Domain != f.Domain ||
			f.Grid != "" && e.device.Grid != f.Grid || f.Area != "" && !f.Area.Has(e.device.Grid) || // a look at device is what costs
			f.Component != "" && e.device.Component != f.Component || search != "" && !strings.Contains(e.search, search) ||
			f.Status != "" && !of(e) || f.Clock != "" && !ticks(e) {
			continue
		}
		if len(views) == size {
			return views, string(views[size-1].ID), nil
		}
		views = append(views, r.view(e, now))
	}
	return views, "", nil
}

// Summary counts the devices of an area by status.
func (r *Registry) Summary(area citywarden.AreaCode) map[citywarden.Status]int {
	now, n := time.Now(), map[citywarden.Status]int{}
	r.mu.RLock()
	defer r.mu.RUnlock()
	r.valuesMu.RLock()
	defer r.valuesMu.RUnlock()
	for _, e := range r.order {
		if area == "" || area.Has(e.device.Grid) {
			n[r.status(e, now)]++
		}
	}
	return n
}

// find returns where id is in order, or would be. It needs mu.
func (r *Registry) find(id citywarden.DeviceID) (int, bool) {
	return slices.BinarySearchFunc(r.order, id, func(e *entry, id citywarden.DeviceID) int {
		return strings.Compare(string(e.device.ID), string(id))
	})
}

// view needs mu.
func (r *Registry) view(e *entry, now time.Time) citywarden.DeviceView {
	v := citywarden.DeviceView{Device: *e.device}
	v.Attributes, v.SiteAttributes = maps.Clone(v.Attributes), maps.Clone(v.SiteAttributes)
	if e.offer.open(now) {
		v.ClaimableUntil = e.offer.Until
	}
	r.valuesMu.RLock()
	defer r.valuesMu.RUnlock()
	v.Presence = r.presence(e, now)
	v.Latest, v.Client, v.Clock = e.latestValues(), e.client, e.clock.view()
	return v
}

// latestValues needs valuesMu.
func (e *entry) latestValues() map[citywarden.MetricName]citywarden.Latest {
	m := make(map[citywarden.MetricName]citywarden.Latest, len(e.latest))
	for i, l := range e.latest {
		if !l.Time.IsZero() {
			m[e.model.Metrics[i].Name] = l
		}
	}
	return m
}

// Create registers a device and returns it as stored. CodeConflict when the id
// is taken; CodeInvalid for a bad id, an unknown model or component, an attribute
// of the wrong kind or a position that is not on earth. Created, Updated and, with
// Options.Grid, Grid are set here; one without a position has that of its component.
func (r *Registry) Create(ctx context.Context, d citywarden.Device) (citywarden.Device, error) {
	r.changeMu.Lock()
	defer r.changeMu.Unlock()
	if err := d.ID.Check(); err != nil {
		return citywarden.Device{}, err
	}
	if _, _, err := r.Device(d.ID); err == nil {
		return citywarden.Device{}, citywarden.Errorf(citywarden.CodeConflict, "device %s exists already", d.ID)
	}
	c, err := r.prepare(d, nil)
	if err != nil {
		return citywarden.Device{}, err
	}
	if err := r.save(ctx, []change{c}); err != nil {
		return citywarden.Device{}, err
	}
	return *c.device, nil
}

// Update replaces a device's name, model, attributes, location, neighbours,
// component and Disabled, and returns it as stored. CodeNotFound when there is none, CodeInvalid
// as Create. Its token stays, and so do the latest values that the model has.
func (r *Registry) Update(ctx context.Context, d citywarden.Device) (citywarden.Device, error) {
	return r.Alter(ctx, d.ID, func(x *citywarden.Device) error { *x = d; return nil })
}

// Alter changes a device as f says, and returns it as stored, as Update; f gets a copy whose
// Attributes are its own. When f fails nothing is changed.
func (r *Registry) Alter(ctx context.Context, id citywarden.DeviceID, f func(*citywarden.Device) error) (citywarden.Device, error) {
	r.changeMu.Lock()
	defer r.changeMu.Unlock()
	old, _, err := r.Device(id)
	if err != nil {
		return citywarden.Device{}, err
	}
	d := *old
	if d.Attributes = maps.Clone(d.Attributes); d.Attributes == nil {
		d.Attributes = map[string]any{}
	}
	if err := f(&d); err != nil {
		return citywarden.Device{}, err
	}
	c, err := r.prepare(d, old)
	if err != nil {
		return citywarden.Device{}, err
	}
	if err := r.save(ctx, []change{c}); err != nil {
		return citywarden.Device{}, err
	}
	return *c.device, nil
}

// Delete removes a device and its token, or returns CodeNotFound. Its series,
// alarms and cases stay.
func (r *Registry) Delete(ctx context.Context, id citywarden.DeviceID) error {
	r.changeMu.Lock()
	defer r.changeMu.Unlock()
	d, _, err := r.Device(id)
	if err != nil {
		return err
	}
	if err := r.remove(ctx, id); err != nil {
		return fmt.Errorf("delete device %s: %w", id, err)
	}
	if r.opt.OnChange != nil {
		r.opt.OnChange(*d, true)
	}
	r.tell(citywarden.Downlink{Device: id, Kind: citywarden.DownlinkRevoked})
	r.publish("device", time.Now(), citywarden.DeletedDevice{ID: id, Grid: d.Grid, Deleted: true})
	return nil
}

// remove takes a device out of the store and memory. It needs changeMu.
func (r *Registry) remove(ctx context.Context, id citywarden.DeviceID) error {
	// Nothing of it may be stored after it is gone: by then its id may be
	// another device's.
	r.flushMu.Lock()
	defer r.flushMu.Unlock()
	if err := r.store.DeleteDevice(ctx, id); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	i, found := r.find(id)
	if !found {
		return nil
	}
	gone := r.order[i]
	r.valuesMu.Lock()
	r.dirty = slices.DeleteFunc(r.dirty, func(e *entry) bool { return e == gone })
	r.valuesMu.Unlock()
	r.give(gone, nil)
	r.order = slices.Delete(r.order, i, i+1)
	delete(r.byID, id)
	r.part(gone)
	return nil
}

// Limits of one device.
const (
	maxAttributes = 64 // and of one site
	maxAdjacent   = 64
	maxNamed      = 256 // devices that have it as a neighbour: its readings concern them all
)

// change is a device about to be stored.
type change struct {
	device *citywarden.Device
	model  *citywarden.Model
	isNew  bool

	secrets []citywarden.Secret // nil leaves the old ones, an empty one takes them away
}

// prepare checks d and returns it as it will be stored; old is nil for a new
// device. It needs changeMu.
func (r *Registry) prepare(d citywarden.Device, old *citywarden.Device) (change, error) {
	if err := d.ID.Check(); err != nil {
		return change{}, err
	}
	model, ok := r.models.Model(d.Model)
	if !ok {
		return change{}, citywarden.Errorf(citywarden.CodeInvalid, "unknown model %q%s", d.Model, suggest(string(d.Model), r.models.names))
	}
	d.Name = strings.TrimSpace(d.Name)
	if err := citywarden.CheckText("name", d.Name, 200); err != nil {
		return change{}, err
	}
	if d.Name == "" {
		d.Name = string(d.ID)
	}
	if len(d.Attributes) > maxAttributes {
		return change{}, citywarden.Errorf(citywarden.CodeInvalid, "device %s has %d attributes; at most %d are kept", d.ID, len(d.Attributes), maxAttributes)
	}
	attrs := make(map[string]any, len(d.Attributes))
	for _, name := range sortedKeys(d.Attributes) {
		x, err := checkAttribute(model, name, d.Attributes[name])
		if err != nil {
			return change{}, err
		}
		attrs[name] = x
	}
	d.Attributes = attrs
	r.mu.RLock()
	d.SiteAttributes = r.sites[d.Site()].Attributes
	r.mu.RUnlock()
	if d.Component != "" {
		p, err := r.component(d.Component)
		if err != nil {
			return change{}, err
		}
		if d.Location == nil {
			d.Location = &p
		}
	}
	if d.Location != nil {
		p := *d.Location
		if err := p.Check(); err != nil {
			return change{}, err
		}
		d.Location = &p
	}
	if r.opt.Grid != nil {
		d.Grid = ""
		if d.Location != nil {
			d.Grid = r.opt.Grid(*d.Location)
		}
	}
	if d.Grid != "" {
		if err := d.Grid.Check(); err != nil {
			return change{}, err
		}
	}
	if len(d.Adjacent) > maxAdjacent {
		return change{}, citywarden.Errorf(citywarden.CodeInvalid, "device %s has %d neighbours; at most %d are kept", d.ID, len(d.Adjacent), maxAdjacent)
	}
	for i, n := range d.Adjacent {
		if err := n.Check(); err != nil {
			return change{}, fmt.Errorf("neighbour: %w", err)
		}
		if n == d.ID {
			return change{}, citywarden.Errorf(citywarden.CodeInvalid, "device %s can't be its own neighbour", d.ID)
		}
		if slices.Contains(d.Adjacent[:i], n) {
			return change{}, citywarden.Errorf(citywarden.CodeInvalid, "device %s has the neighbour %s twice", d.ID, n)
		}
	}
	if err := r.crowded(&d, old, nil); err != nil {
		return change{}, err
	}
	d.Adjacent = slices.Clone(d.Adjacent)
	if len(d.Adjacent) == 0 {
		d.Adjacent = nil
	}
	d.Updated = time.Now().UTC().Truncate(time.Millisecond)
	d.Created = d.Updated
	if old != nil {
		d.Created = old.Created
	}
	return change{device: &d, model: model, isNew: old == nil}, nil
}

// crowded returns an error when d names a neighbour, which old does not, that too
// many others name; more are those that are not stored yet.
func (r *Registry) crowded(d, old *citywarden.Device, more map[citywarden.DeviceID]int) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, n := range d.Adjacent {
		if named := r.named[n] + more[n]; named >= maxNamed && (old == nil || !slices.Contains(old.Adjacent, n)) {
			return citywarden.Errorf(citywarden.CodeInvalid, "%d devices have %s as a neighbour already, and no more can; for rules over larger sets give them an attribute in common and use a group with n_of", named, n)
		}
	}
	return nil
}

// component returns where a component is; CodeInvalid when there is none.
func (r *Registry) component(id citywarden.ComponentID) (p citywarden.Point, err error) {
	if err = id.Check(); err == nil && r.opt.Component == nil {
		err = citywarden.Errorf(citywarden.CodeNotFound, "no component %q", id)
	} else if err == nil {
		p, err = r.opt.Component(id)
	}
	if citywarden.CodeOf(err) == citywarden.CodeNotFound {
		err = citywarden.Errorf(citywarden.CodeInvalid, "%w; import the components first", err)
	}
	return p, err
}

// save stores changes in one transaction, then shows them. It needs changeMu.
func (r *Registry) save(ctx context.Context, cs []change) error {
	if len(cs) == 0 {
		return nil
	}
	ds := make([]citywarden.Device, len(cs))
	secrets := map[citywarden.DeviceID][]citywarden.Secret{}
	for i, c := range cs {
		ds[i] = *c.device
		if c.secrets != nil {
			secrets[c.device.ID] = c.secrets
		}
	}
	if err := r.store.SaveDevices(ctx, ds, secrets); err != nil {
		if len(cs) == 1 {
			return fmt.Errorf("save device %s: %w", ds[0].ID, err)
		}
		return fmt.Errorf("save %d devices: %w", len(cs), err)
	}
	r.show(cs)
	return nil
}

// show makes changes that are stored visible to everybody. It needs changeMu.
func (r *Registry) show(cs []change) {
	var views []citywarden.DeviceView
	var told []citywarden.Downlink
	now := time.Now()
	r.telling.Lock()
	r.mu.Lock()
	var added []*entry
	for _, c := range cs {
		e := r.byID[c.device.ID]
		if e == nil {
			e = newEntry(c.device, c.model)
			r.byID[c.device.ID] = e
			if i, _ := r.find(c.device.ID); len(cs) == 1 {
				r.order = slices.Insert(r.order, i, e)
			} else {
				added = append(added, e)
			}
		} else {
			told = append(told, r.sharedChanges(e.device, e.model, c.device, c.model))
			if c.secrets != nil && len(e.secrets) > 0 || c.device.Disabled {
				told = append(told, citywarden.Downlink{Device: c.device.ID, Kind: citywarden.DownlinkRevoked})
			}
			r.part(e)
			r.valuesMu.Lock()
			if e.model != c.model {
				was := e.latestValues()
				e.latest = make([]citywarden.Latest, len(c.model.Metrics))
				for i := range e.latest {
					e.latest[i] = was[c.model.Metrics[i].Name]
				}
			}
			e.device, e.model, e.search = c.device, c.model, searchText(c.device)
			r.valuesMu.Unlock()
		}
		r.join(e)
		if c.secrets != nil {
			r.give(e, c.secrets)
		}
	}
	if len(added) > 0 {
		r.order = append(r.order, added...)
		slices.SortFunc(r.order, func(a, b *entry) int { return strings.Compare(string(a.device.ID), string(b.device.ID)) })
	}
	if r.opt.Publish != nil {
		for _, c := range cs {
			views = append(views, r.view(r.byID[c.device.ID], now))
		}
	}
	r.mu.Unlock()
	for _, m := range told {
		r.tell(m)
	}
	r.telling.Unlock()
	for _, c := range cs {
		if r.opt.OnChange != nil {
			r.opt.OnChange(*c.device, false)
		}
	}
	for _, v := range views {
		r.publish("device", now, v)
	}
}

// Regrid looks up the unit grid of every device again, after the grids have
// changed, and returns how many devices lie in another one now.
func (r *Registry) Regrid(ctx context.Context) (int, error) {
	if r.opt.Grid == nil {
		return 0, nil
	}
	r.changeMu.Lock()
	defer r.changeMu.Unlock()
	var cs []change
	r.Each(func(d *citywarden.Device, m *citywarden.Model) {
		if d.Location == nil {
			return
		}
		if g := r.opt.Grid(*d.Location); g != d.Grid {
			moved := *d
			moved.Grid = g
			cs = append(cs, change{device: &moved, model: m})
		}
	})
	return len(cs), r.save(ctx, cs)
}

func (r *Registry) publish(kind string, at time.Time, data any) {
	if r.opt.Publish != nil {
		r.opt.Publish(citywarden.Event{Kind: kind, Time: at, Data: data})
	}
}
