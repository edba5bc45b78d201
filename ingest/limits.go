package ingest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/citywarden/citywarden"
)

// maxDelay is how long a message of a device that sends more than its model allows is
// held up; one that would have to wait for longer is refused. It is well below the
// keep alive of a device.
const maxDelay = 5 * time.Second

// Of a device that sends more with QoS 0 than its model allows, and so can't be told, maxLetters messages
// are dead letters at first, and then one each letterEvery: a flood is not stored. More end its connection.
const (
	maxLetters  = 12
	letterEvery = time.Minute
)

// limits hold devices to what their models allow. A device without limits takes no
// memory; one with them about 300 bytes, from its first message on.
type limits struct {
	mu      sync.Mutex
	devices map[citywarden.DeviceID]*paces
	models  map[citywarden.ModelName]*rate.Limiter
}

// paces are those of one device.
type paces struct {
	limits                citywarden.Limits // that they were made of
	messages, connections *rate.Limiter     // nil for none
	letters               *rate.Limiter     // see maxLetters; nil before the first, by limits.mu
}

func limiterOf(r citywarden.Rate) *rate.Limiter {
	if r.IsZero() {
		return nil
	}
	return rate.NewLimiter(rate.Every(r.Every()), r.Count)
}

// of returns what holds for a device of a model, and for all of the model; nil for nothing.
func (l *limits) of(id citywarden.DeviceID, m *citywarden.Model) (*paces, *rate.Limiter) {
	if m.Limits.Messages.IsZero() && m.Limits.AllMessages.IsZero() && m.Limits.Connections.IsZero() {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.devices[id]
	if p == nil || p.limits != m.Limits {
		if l.devices == nil {
			l.devices, l.models = map[citywarden.DeviceID]*paces{}, map[citywarden.ModelName]*rate.Limiter{}
		}
		p = &paces{m.Limits, limiterOf(m.Limits.Messages), limiterOf(m.Limits.Connections), nil}
		l.devices[id] = p
	}
	all := l.models[m.Name]
	if all == nil && !m.Limits.AllMessages.IsZero() {
		all = limiterOf(m.Limits.AllMessages)
		l.models[m.Name] = all
	}
	return p, all
}

// forget drops devices that are not registered any more.
func (l *limits) forget(dir Directory) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.devices {
		if _, _, err := dir.Device(id); err != nil {
			delete(l.devices, id)
		}
	}
}

// take takes one from each of the limiters, and returns for how long the caller has to wait
// first. When that is longer than most it takes none, and returns which of them says so.
func take(now time.Time, most time.Duration, from ...*rate.Limiter) (wait time.Duration, full int) {
	var taken []*rate.Reservation
	for i, l := range from {
		if l == nil {
			continue
		}
		r := l.ReserveN(now, 1)
		taken = append(taken, r)
		if d := r.DelayFrom(now); d > most {
			for _, r := range taken {
				r.CancelAt(now)
			}
			return d, i
		} else if d > wait {
			wait = d
		}
	}
	return wait, -1
}

// pace holds up a message of a device that sends more than its model allows, for most at
// longest, and fails with CodeLimited when it would have to wait for longer; over MQTT after most.
func (p *Pipeline) pace(ctx context.Context, id citywarden.DeviceID, m *citywarden.Model, protocol string, most time.Duration) error {
	own, all := p.limits.of(id, m)
	if own == nil {
		return nil
	}
	wait, full := take(time.Now(), most, own.messages, all)
	if full >= 0 && protocol == "mqtt" && most > 0 { // or it would be told so again and again, as fast as it can send
		if err := hold(ctx, id, min(wait, most)); err != nil {
			return err
		}
		wait -= most
	}
	if full >= 0 {
		p.metrics.limit(protocol, "messages")
		reason := fmt.Sprintf("device %s sends more than the %s messages of model %s", id, m.Limits.Messages, m.Name)
		if full == 1 {
			reason = fmt.Sprintf("the devices of model %s send more than its %s messages together", m.Name, m.Limits.AllMessages)
		}
		return citywarden.Errorf(citywarden.CodeLimited, "%w", &citywarden.LimitError{Reason: reason, After: wait})
	}
	if wait <= 0 {
		return nil
	}
	p.metrics.limit(protocol, "delayed")
	return hold(ctx, id, wait)
}

// hold waits.
func hold(ctx context.Context, id citywarden.DeviceID, wait time.Duration) error {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return citywarden.Errorf(citywarden.CodeTransient, "take message of device %s: %w", id, ctx.Err())
	}
}

// Connect says whether a device may connect once more: CodeLimited when it does so more
// often than its model allows.
func (p *Pipeline) Connect(id citywarden.DeviceID, protocol string) error {
	_, m, err := p.directory.Device(id)
	if err != nil {
		return nil // whoever let it in knows better
	}
	own, _ := p.limits.of(id, m)
	if own == nil {
		return nil
	}
	wait, full := take(time.Now(), 0, own.connections)
	if full < 0 {
		return nil
	}
	p.metrics.limit(protocol, "connections")
	reason := fmt.Sprintf("device %s connects more often than the %s of model %s", id, m.Limits.Connections, m.Name)
	return citywarden.Errorf(citywarden.CodeLimited, "%w", &citywarden.LimitError{Reason: reason, After: wait})
}

// Limits returns what a device may send; the zero value when it is not known.
func (p *Pipeline) Limits(id citywarden.DeviceID) citywarden.Limits {
	_, m, err := p.directory.Device(id)
	if err != nil {
		return citywarden.Limits{}
	}
	return m.Limits
}

// oversize returns what is wrong with the size of a payload, nil when nothing is.
func oversize(m *citywarden.Model, bytes int) error {
	if most := m.Limits.Payload; most > 0 && bytes > most {
		return citywarden.Errorf(citywarden.CodeTooLarge, "a message of %d bytes; model %s takes %d at most: send less at once, it lies in the dead letters", bytes, m.Name, most)
	}
	return nil
}

// held says how long a message of a protocol may be held up: its connection is the
// device's own, or it is not.
func held(protocol string) time.Duration {
	switch protocol {
	case "mqtt", "http":
		return maxDelay
	}
	return 0
}

// keeps reports whether a message that came too fast is a dead letter, as who sent it can't be told: it came over
// MQTT with QoS 0, see maxLetters, a broker elsewhere brought it, or it is a notification of LwM2M, which its client
// would not send again.
func (p *Pipeline) keeps(up *citywarden.Uplink, m *citywarden.Model) bool {
	if up.Untold {
		return p.limits.letter(up.Device, m)
	}
	return up.Protocol == "uplink" || strings.HasPrefix(up.Topic, citywarden.DeviceLwM2M)
}

// letter takes one of the dead letters that a device may have, and reports whether there was one.
func (l *limits) letter(id citywarden.DeviceID, m *citywarden.Model) bool {
	own, _ := l.of(id, m)
	if own == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if own.letters == nil {
		own.letters = rate.NewLimiter(rate.Every(letterEvery), maxLetters)
	}
	return own.letters.Allow()
}

// limited holds the message to the limits of its device's model. It returns the message as it
// goes into the log: a dead letter when it is too long, or when it came too fast and the device can't be
// told, as somebody else brings it, or see keeps.
func (p *Pipeline) limited(ctx context.Context, up citywarden.Uplink, direct bool) (citywarden.Uplink, error) {
	_, m, err := p.directory.Device(up.Device)
	if err != nil || m.Limits == (citywarden.Limits{}) {
		return up, nil
	}
	if _, late := citywarden.Overrated(up.Topic); late || strings.HasPrefix(up.Topic, gatewayTopics) {
		return up, nil // judged before, see acceptGateway
	}
	if up.Topic == citywarden.DeviceConnected || up.Topic == citywarden.DeviceDisconnected || up.Topic == citywarden.DeviceMissing {
		return up, nil // not of the device's making
	}
	if _, _, cut := citywarden.Oversized(up.Topic); !cut && oversize(m, len(up.Payload)) != nil {
		p.metrics.limit(up.Protocol, "payload")
		up = citywarden.Overlong(up)
	}
	if up.Protocol == citywarden.ProtocolWill {
		return up, nil // its device is gone: nobody to be held up or told, and one for each connection
	}
	most := held(up.Protocol)
	if !direct {
		most = 0
	}
	err = p.pace(ctx, up.Device, m, up.Protocol, most)
	if citywarden.CodeOf(err) == citywarden.CodeLimited && (!direct || p.keeps(&up, m)) {
		return citywarden.Overrate(up), nil
	}
	return up, err
}
