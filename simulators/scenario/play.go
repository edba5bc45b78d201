package scenario

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/simulators"
)

// Platform is the HTTP API of a platform, below /api/v1, to somebody who may
// register devices.
type Platform interface {
	// Call sends in as JSON and decodes the answer into out; both may be nil.
	Call(ctx context.Context, method, path string, in, out any) error
}

// Options say where a scenario is played.
type Options struct {
	Dial     simulators.Dialer // required: the platform's MQTT
	CoAP     simulators.Dialer // the platform's CoAP; nil for none: all devices speak MQTT then
	Platform Platform          // required
	// Speed is how many times faster than in real time it is played, 0 for 1. It
	// then begins in the past and ends now, as if the devices had been away: what a
	// platform concludes from when messages arrive (silence, clocks that are off)
	// is not to be judged so.
	Speed  float64
	Logger *slog.Logger // nil discards
}

// settles is how long a platform gets for the last message.
const settles = 5 * time.Second

// idle is how long a device stays connected without anything to send.
const idle = 2 * time.Minute

// Play registers the devices, plays the scenario from now on and judges what the
// platform made of it. Its error is that something could not be done; what the
// platform got wrong is in the verdict.
func (s *Scenario) Play(ctx context.Context, o Options) (*Verdict, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	speed := o.Speed
	if speed == 0 {
		speed = 1
	}
	if !(speed >= 1) {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "speed %g: 1 is real time, more is faster", speed)
	}
	tokens := map[citywarden.DeviceID]string{}
	for i := range s.Devices {
		token, err := register(ctx, o.Platform, &s.Devices[i])
		if err != nil {
			return nil, fmt.Errorf("register device %s: %w", s.Devices[i].ID, err)
		}
		tokens[s.Devices[i].ID] = token
	}
	now := time.Now()
	start, wall := simulators.Faster(now, s.Lasts, speed)
	w, err := s.World(start)
	if err != nil {
		return nil, err
	}
	o.Logger.Info("scenario begins", "title", s.Title.EN, "start", start, "lasts", s.Lasts, "devices", len(s.Devices))
	p := &play{o: o, until: start.Add(s.Lasts), wall: wall}
	var all sync.WaitGroup
	for i := range s.Devices {
		id := s.Devices[i].ID
		src, err := w.Faulty(id, s.faultsOf(id, start)...)
		if err != nil {
			return nil, err
		}
		dial := func() (simulators.Link, error) { return simulators.DialMQTT(ctx, o.Dial, id, tokens[id]) }
		if s.coap[id] && o.CoAP != nil {
			dial = func() (simulators.Link, error) { return simulators.DialCoAP(ctx, o.CoAP, tokens[id]) }
		}
		all.Go(func() { p.device(ctx, id, dial, src) })
	}
	all.Wait()
	if !wait(ctx, time.Until(p.wall(p.until).Add(settles))) {
		return nil, ctx.Err()
	}
	v := s.verdict(start, w)
	v.Sent, v.Acked, v.Refused = p.sent.Load(), p.acked.Load(), p.refused.Load()
	alarms, err := alarmsOf(ctx, o.Platform, s.Devices, now)
	if err != nil {
		return nil, err
	}
	v.judge(s, start, alarms)
	return v, nil
}

// register makes sure that the platform knows the device, and returns a token.
func register(ctx context.Context, p Platform, d *citywarden.Device) (string, error) {
	in := map[string]any{"id": d.ID, "name": d.Name, "model": d.Model, "attributes": d.Attributes, "location": d.Location, "adjacent": d.Adjacent}
	path := "/devices/" + url.PathEscape(string(d.ID))
	err := p.Call(ctx, "POST", "/devices", in, nil)
	if citywarden.CodeOf(err) == citywarden.CodeConflict { // of an earlier time
		err = p.Call(ctx, "PUT", path, in, nil)
	}
	if err != nil {
		return "", err
	}
	var out struct{ Token string }
	err = p.Call(ctx, "POST", path+"/credentials", map[string]string{"type": "token"}, &out)
	return out.Token, err
}

// play is a scenario being played.
type play struct {
	o                    Options
	until                time.Time
	wall                 func(time.Time) time.Time // the real time of a moment of the scenario
	sent, acked, refused atomic.Uint64
}

// device sends what a device has to send until the scenario is over.
func (p *play) device(ctx context.Context, id citywarden.DeviceID, dial func() (simulators.Link, error), src *simulators.Faulty) {
	var link simulators.Link
	hangUp := func() {
		if link != nil {
			link.Close()
			link = nil
		}
	}
	defer hangUp()
	for m, ok := src.Next(p.until); ok; m, ok = src.Next(p.until) {
		due := time.Until(p.wall(m.At))
		if due > idle {
			hangUp()
		}
		if !wait(ctx, due) {
			return
		}
		p.sent.Add(1)
		for done := false; !done; {
			var err error
			if link == nil {
				link, err = dial()
			}
			if err == nil {
				err = link.Send(ctx, m.Payload)
			}
			switch {
			case err == nil:
				p.acked.Add(1)
				done = true
			case simulators.Refused(err):
				p.refused.Add(1)
				p.o.Logger.Warn("refused", "device", id, "err", err)
				hangUp()
				done = true
			default:
				p.o.Logger.Debug("not acknowledged", "device", id, "err", err)
				hangUp()
				done = !wait(ctx, time.Second) || time.Now().After(p.wall(p.until))
			}
		}
	}
}

// wait reports whether d passed before ctx was done.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
