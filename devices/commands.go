package devices

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
)

// CommandStore keeps the commands; store.DB is one.
type CommandStore interface {
	// OpenCommands returns those that are open, in the order of their ids, and the
	// highest id that there ever was.
	OpenCommands(context.Context) (open []citywarden.Command, last int64, err error)
	// SaveCommand inserts or replaces a command.
	SaveCommand(context.Context, citywarden.Command) error
	// PruneCommands deletes those that are not open and older, but for the last one.
	PruneCommands(ctx context.Context, before time.Time) error
	// Commands returns a page of commands, the newest first.
	Commands(context.Context, citywarden.CommandFilter) ([]citywarden.Command, string, error)
}

// The limits of commands.
const (
	maxOpen      = 32                  // open commands of a device
	maxParams    = 4096                // bytes
	maxAnswer    = 16 << 10            // bytes
	expiresUsual = 10 * time.Minute    // where nobody says
	expiresMost  = 30 * 24 * time.Hour // a device that sleeps longer is not told
	keepCommands = 90 * 24 * time.Hour // after that it is forgotten what was told
	pruneEvery   = time.Hour
	storeAgain   = 10 * time.Second // what could not be stored
)

// Commands tells devices what to do, over whatever carries messages to them. A
// command waits while its device is not there, also over restarts, until it
// expires. Several goroutines may use it.
type Commands struct {
	store    CommandStore
	registry *Registry
	log      *slog.Logger
	wake     chan struct{} // for Run: there is something that expires, or could not be stored

	// mu is held while the store writes, so that a command's states follow each
	// other there as here.
	mu   sync.Mutex
	last int64
	next time.Time                                     // when Run looks again, zero when nothing is open
	open map[citywarden.DeviceID][]*citywarden.Command // by id
	// behind are those of which the store does not know where they are. Run stores it once it can: after a restart what counts as
	// on its way is offered again.
	behind map[*citywarden.Command]bool
	tried  time.Time // when that was done last
}

// NewCommands returns the commands of the store.
func NewCommands(ctx context.Context, s CommandStore, r *Registry, log *slog.Logger) (*Commands, error) {
	c := &Commands{store: s, registry: r, log: log, wake: make(chan struct{}, 1), open: map[citywarden.DeviceID][]*citywarden.Command{}, behind: map[*citywarden.Command]bool{}}
	open, last, err := s.OpenCommands(ctx)
	if err != nil {
		return nil, fmt.Errorf("load commands: %w", err)
	}
	c.last = last
	for i := range open {
		x := &open[i]
		if x.State == citywarden.CommandSent { // it is not known whether it arrived
			x.State = citywarden.CommandQueued
		}
		c.open[x.Device] = append(c.open[x.Device], x)
	}
	for id := range c.open {
		if _, _, err := r.Device(id); err != nil { // deleted when we crashed
			c.Forget(id)
		}
	}
	return c, nil
}

// Tell tells a device to do something, now or when it is there. CodeInvalid when
// its model has no such command or params are not what it wants, CodeConflict when
// too many wait already. expires is how long it is of use, 0 for what the model says.
func (c *Commands) Tell(ctx context.Context, id citywarden.DeviceID, method string, params map[string]any, expires time.Duration, by string) (citywarden.Command, error) {
	d, m, err := c.registry.Device(id)
	if err != nil {
		return citywarden.Command{}, err
	}
	decl, ok := m.Command(method)
	if !ok {
		var names []string
		for i := range m.Commands {
			names = append(names, m.Commands[i].Name)
		}
		if len(names) == 0 {
			return citywarden.Command{}, citywarden.Errorf(citywarden.CodeInvalid, "device %s, a %s, takes no commands; its model file declares none", id, m.Name)
		}
		return citywarden.Command{}, citywarden.Errorf(citywarden.CodeInvalid, "device %s, a %s, has no command %q%s", id, m.Name, method, suggest(method, names))
	}
	if d.Disabled {
		return citywarden.Command{}, citywarden.Errorf(citywarden.CodeConflict, "device %s is disabled", id)
	}
	if err := decl.Check(params); err != nil {
		return citywarden.Command{}, err
	}
	if params == nil {
		params = map[string]any{}
	}
	body, err := json.Marshal(params)
	if err != nil || len(body) > maxParams {
		return citywarden.Command{}, citywarden.Errorf(citywarden.CodeInvalid, "the parameters have more than %d bytes", maxParams)
	}
	if expires == 0 {
		expires = decl.Expires.Std()
	}
	if expires == 0 {
		expires = expiresUsual
	}
	if expires < time.Second || expires > expiresMost {
		return citywarden.Command{}, citywarden.Errorf(citywarden.CodeInvalid, "a command expires after %s; it is 1s to 30d", expires)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open[id]) >= maxOpen {
		return citywarden.Command{}, citywarden.Errorf(citywarden.CodeConflict, "%d commands wait for device %s; wait until they are answered or expire", maxOpen, id)
	}
	x := &citywarden.Command{
		ID: c.last + 1, Device: id, Method: method, Params: body, OneWay: decl.OneWay, State: citywarden.CommandQueued, By: by,
		Created: now, Expires: now.Add(expires),
	}
	if err := c.store.SaveCommand(ctx, *x); err != nil {
		return citywarden.Command{}, fmt.Errorf("save command of device %s: %w", id, err)
	}
	c.last = x.ID
	c.open[id] = append(c.open[id], x)
	if c.next.IsZero() || x.Expires.Before(c.next) {
		c.next = x.Expires
		c.rouse()
	}
	c.offer(context.WithoutCancel(ctx), x, nil)
	return *x, nil
}

// Listen has send called with the messages of a kind for a device and, where none
// listens for those, for the devices behind it, until cancel is called; who listens
// for commands gets those that wait at once, and who listens for attributes those that
// the device has not taken over. send reports whether it took the
// message, and must not block.
func (c *Commands) Listen(id citywarden.DeviceID, kind citywarden.DownlinkKind, send func(citywarden.Downlink) bool) (cancel func()) {
	if kind == citywarden.DownlinkCommand {
		c.mu.Lock() // no new one comes before those that wait
		defer c.mu.Unlock()
	}
	l, cancel := c.registry.listen(id, kind, send)
	if kind == citywarden.DownlinkAttributes {
		c.registry.remind(id, l)
	}
	if kind != citywarden.DownlinkCommand {
		return cancel
	}
	ids := append([]citywarden.DeviceID{id}, c.registry.behindOf(id)...)
	for _, id := range ids {
		for _, x := range slices.Clone(c.open[id]) {
			if x.State == citywarden.CommandQueued {
				c.offer(context.Background(), x, l)
			}
		}
	}
	return cancel
}

// offer hands a queued command to l, or with nil to who listens. It needs mu.
func (c *Commands) offer(ctx context.Context, x *citywarden.Command, l *listener) {
	to := []*listener{l}
	if l == nil {
		to = c.registry.listenersFor(x.Device, citywarden.DownlinkCommand)
	}
	body, _ := json.Marshal(struct { // a string and JSON: no error
		Method string          `json:"method"`
		Params json.RawMessage `json:"params"`
	}{x.Method, x.Params})
	// The newest connection first, and only one: a valve must not move twice.
	for _, l := range slices.Backward(to) {
		m := citywarden.Downlink{Device: x.Device, Kind: citywarden.DownlinkCommand, ID: x.ID, Body: body}
		m.Done = func(err error) { c.done(x, err) }
		if l.send(m) {
			x.Sent = now()
			c.to(ctx, x, citywarden.CommandSent)
			return
		}
	}
}

// done notes whether the device has x. One that it has not is for whoever else
// listens, now or later, unless the device can't take it at all.
func (c *Commands) done(x *citywarden.Command, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x.State != citywarden.CommandSent {
		return
	}
	switch citywarden.CodeOf(err) {
	case "":
	case citywarden.CodeTooLarge:
		x.Reason = err.Error()
		if c.to(context.Background(), x, citywarden.CommandFailed) != nil {
			x.Reason = ""
			return
		}
		c.log.Warn("command can't be delivered", "device", x.Device, "command", x.ID, "err", err)
		return
	default:
		_ = c.to(context.Background(), x, citywarden.CommandQueued) // which says so itself
		c.offer(context.Background(), x, nil)
		return
	}
	x.Delivered = now()
	_ = c.to(context.Background(), x, citywarden.CommandDelivered) // which says so itself, and Run tries again
}

// Answer takes what a device answers. It is durable when the error is nil.
// CodeNotFound when no such command waits for an answer.
func (c *Commands) Answer(ctx context.Context, device citywarden.DeviceID, id int64, body []byte) error {
	body = bytes.TrimSpace(body)
	switch {
	case len(body) > maxAnswer:
		return citywarden.Errorf(citywarden.CodeInvalid, "the answer has more than %d bytes", maxAnswer)
	case len(body) == 0:
		body = []byte("{}")
	case !json.Valid(body):
		return citywarden.Errorf(citywarden.CodeInvalid, "the answer to command %d is not JSON", id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.open[device], func(x *citywarden.Command) bool { return x.ID == id })
	if i < 0 {
		return citywarden.Errorf(citywarden.CodeNotFound, "no command %d of device %s waits for an answer; it was answered, or expired", id, device)
	}
	x := c.open[device][i]
	before := *x
	x.Answer, x.Answered = slices.Clone(body), now()
	if x.Delivered.IsZero() {
		x.Delivered = x.Answered
	}
	if err := c.to(ctx, x, citywarden.CommandAnswered); err != nil {
		x.Answer, x.Answered, x.Delivered = nil, time.Time{}, before.Delivered
		return err
	}
	return nil
}

// to moves x on and stores it; on an error one that is over by it stays where it was, and where one is that is not
// counts although the store does not say so: after a restart it is offered again in any case. It needs mu.
func (c *Commands) to(ctx context.Context, x *citywarden.Command, s citywarden.CommandState) error {
	before := x.State
	x.State = s
	if err := c.store.SaveCommand(ctx, *x); err != nil {
		if x.Open() || s == citywarden.CommandDelivered {
			c.behind[x] = true
			c.rouse()
		}
		if !x.Open() {
			x.State = before
		}
		c.log.Error("command not stored", "device", x.Device, "command", x.ID, "state", s, "err", err)
		return fmt.Errorf("save command %d of device %s: %w", x.ID, x.Device, err)
	}
	delete(c.behind, x)
	if !x.Open() {
		c.drop(x)
	}
	return nil
}

// Forget ends what waits for a device that was deleted: another one may get its id.
func (c *Commands) Forget(id citywarden.DeviceID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range slices.Clone(c.open[id]) {
		if c.to(context.Background(), x, citywarden.CommandTimedOut) != nil {
			x.State = citywarden.CommandTimedOut // nothing that is heard of it later brings it back; NewCommands ends it in the store
			c.drop(x)
		}
	}
}

func (c *Commands) drop(x *citywarden.Command) {
	delete(c.behind, x)
	rest := slices.DeleteFunc(c.open[x.Device], func(o *citywarden.Command) bool { return o == x })
	if len(rest) == 0 {
		delete(c.open, x.Device)
		return
	}
	c.open[x.Device] = rest
}

// List returns a page of commands, the newest first.
func (c *Commands) List(ctx context.Context, f citywarden.CommandFilter) ([]citywarden.Command, string, error) {
	return c.store.Commands(ctx, f)
}

// rouse has Run look when it has to do something next.
func (c *Commands) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run ends commands that expire, stores what could not be stored, and forgets what is long over, until ctx is done;
// then it returns nil.
func (c *Commands) Run(ctx context.Context) error {
	var pruned time.Time
	for {
		if at := time.Now(); at.Sub(pruned) >= pruneEvery {
			pruned = at
			if err := c.store.PruneCommands(ctx, at.Add(-keepCommands)); err != nil && ctx.Err() == nil {
				c.log.Error("old commands not deleted", "err", err)
			}
		}
		next := c.expire(ctx)
		wait := pruneEvery
		if !next.IsZero() {
			wait = min(max(time.Until(next), time.Second), pruneEvery) // not faster, also while the store fails
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-c.wake:
		case <-ctx.Done():
			t.Stop()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			c.mu.Lock()
			defer c.mu.Unlock()
			c.catchUp(last)
			return nil
		}
		t.Stop()
	}
}

// catchUp stores where commands are of which the store does not know it, until one can't be stored. It needs mu.
func (c *Commands) catchUp(ctx context.Context) {
	for x := range c.behind {
		s := x.State
		if s == citywarden.CommandSent && !x.Delivered.IsZero() {
			s = citywarden.CommandDelivered // which ends one that needs no answer
		}
		if c.to(ctx, x, s) != nil {
			return
		}
	}
}

// expire ends what is over, when what could not be stored is, and returns when to look again, zero when none is open.
func (c *Commands) expire(ctx context.Context) (next time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := time.Now()
	if len(c.behind) > 0 && at.Sub(c.tried) >= storeAgain {
		c.catchUp(ctx)
		c.tried = at
	}
	if len(c.behind) > 0 {
		next = c.tried.Add(storeAgain)
	}
	for _, open := range c.open {
		for _, x := range slices.Clone(open) {
			has := x.OneWay && !x.Delivered.IsZero() // and it is only to be stored
			if !x.Expires.After(at) && (has || c.to(ctx, x, citywarden.CommandTimedOut) == nil) {
				continue
			}
			if next.IsZero() || x.Expires.Before(next) {
				next = x.Expires
			}
		}
	}
	c.next = next
	return next
}

func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
