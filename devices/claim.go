package devices

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"github.com/citywarden/citywarden"
)

// ClaimStore keeps what devices said of being claimed; store.DB is one.
type ClaimStore interface {
	LoadClaims(context.Context) ([]citywarden.ClaimOffer, error)
	SaveClaims(context.Context, []citywarden.ClaimOffer) error
	// SaveClaimed stores a device and deletes what it said of being claimed, or does neither.
	SaveClaimed(context.Context, citywarden.Device) error
}

// The limits of claims.
const (
	claimUsual = 24 * time.Hour      // as ThingsBoard has it, when the device does not say
	claimMost  = 30 * 24 * time.Hour // what is printed on a device is not to be good for ever
	claimEvery = time.Second         // that a device says so, after claimBurst at once
	claimBurst = 5
	maxClaims  = 1000 // devices in one message of a gateway
	claimRate  = 20   // messages a second of all devices together, after claimRoom at once
	claimRoom  = 200
	claimWrong = 6 // mistakes in one message that are told
)

// offer is what a device said of being claimed.
type offer struct {
	citywarden.ClaimOffer               // zero Until: nothing any more
	pace                  *rate.Limiter // of what the device says
}

func newOffer() *offer { return &offer{pace: rate.NewLimiter(rate.Every(claimEvery), claimBurst)} }

// open reports whether the device may be claimed now.
func (o *offer) open(now time.Time) bool { return o != nil && now.Before(o.Until) }

// Announce notes that a device may be claimed, as its message says:
// {"secretKey": "…", "durationMs": 60000}, where each may be left out, as may all of it. It replaces
// what the device said before, and is durable when it returns nil. CodeInvalid when the message
// can't be used, CodeLimited with a LimitError when it, or all devices together, say so too often.
func (r *Registry) Announce(ctx context.Context, id citywarden.DeviceID, body []byte) error {
	o, err := readOffer(id, body)
	if err != nil {
		return err
	}
	return r.announce(ctx, []citywarden.ClaimOffer{o})
}

// AnnounceBehind is Announce for devices behind a gateway: {"NAME": {"secretKey": "…", "durationMs": 60000}}.
// Of those that it can't be done for the error says why; the others may be claimed.
func (r *Registry) AnnounceBehind(ctx context.Context, gateway citywarden.DeviceID, body []byte) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(body, &all); err != nil || all == nil {
		return citywarden.Errorf(citywarden.CodeInvalid, `say {"NAME": {"secretKey": "…", "durationMs": 60000}} of the devices that may be claimed`)
	}
	if len(all) > maxClaims {
		return citywarden.Errorf(citywarden.CodeInvalid, "%d devices in one message; at most %d are taken", len(all), maxClaims)
	}
	var offers []citywarden.ClaimOffer
	var wrong []error
	for _, name := range sortedKeys(all) {
		id, err := r.Child(gateway, name)
		if err == nil {
			var o citywarden.ClaimOffer
			if o, err = readOffer(id, all[name]); err == nil {
				offers = append(offers, o)
				continue
			}
			err = fmt.Errorf("%.64q: %w", name, err)
		}
		wrong = append(wrong, err)
	}
	if err := r.announce(ctx, offers); err != nil {
		return err
	}
	if n := len(wrong) - claimWrong; n > 0 {
		wrong = append(wrong[:claimWrong], fmt.Errorf("and %d more", n))
	}
	return errors.Join(wrong...)
}

// readOffer reads what a device says of being claimed, as leniently as ThingsBoard does: either value
// may be a number or a text.
func readOffer(id citywarden.DeviceID, body []byte) (citywarden.ClaimOffer, error) {
	var said struct {
		Secret   any `json:"secretKey"`
		Duration any `json:"durationMs"`
	}
	if body = bytes.TrimSpace(body); len(body) > 0 {
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		if err := d.Decode(&said); err != nil || body[0] != '{' || d.More() {
			return citywarden.ClaimOffer{}, citywarden.Errorf(citywarden.CodeInvalid, `say {"secretKey": "…", "durationMs": 60000} of a device that may be claimed`)
		}
	}
	secret, ok := plainText(said.Secret)
	if !ok {
		return citywarden.ClaimOffer{}, citywarden.Errorf(citywarden.CodeInvalid, "secretKey is a text")
	}
	if err := citywarden.CheckText("secretKey", secret, maxSecret); err != nil {
		return citywarden.ClaimOffer{}, err
	}
	lasts := claimUsual
	if text, ok := plainText(said.Duration); !ok || text != "" {
		ms, err := strconv.ParseInt(text, 10, 64)
		if !ok || err != nil || ms > claimMost.Milliseconds() {
			return citywarden.ClaimOffer{}, citywarden.Errorf(citywarden.CodeInvalid, "durationMs is a number of milliseconds, at most %d (%s)", claimMost.Milliseconds(), claimMost)
		}
		if ms > 0 {
			lasts = time.Duration(ms) * time.Millisecond
		}
	}
	h := sha256.Sum256([]byte(citywarden.ClaimSecret(id, secret)))
	return citywarden.ClaimOffer{Device: id, Secret: h[:], Until: time.Now().UTC().Add(lasts).Truncate(time.Millisecond)}, nil
}

// plainText returns a text, or a number as it is written; "" for what is left out.
func plainText(v any) (string, bool) {
	switch x := v.(type) {
	case nil:
		return "", true
	case string:
		return x, true
	case json.Number:
		return x.String(), true
	}
	return "", false
}

func (r *Registry) announce(ctx context.Context, all []citywarden.ClaimOffer) error {
	if len(all) == 0 {
		return nil
	}
	r.changeMu.Lock()
	defer r.changeMu.Unlock()
	r.mu.Lock()
	for _, o := range all {
		e := r.byID[o.Device]
		if e == nil {
			r.mu.Unlock()
			return notFound(o.Device)
		}
		if e.offer == nil {
			e.offer = newOffer()
		}
		if !e.offer.pace.Allow() {
			r.mu.Unlock()
			return saidTooOften(fmt.Sprintf("device %s says more often than once in %s that it may be claimed", o.Device, claimEvery))
		}
	}
	r.mu.Unlock()
	if !r.announcements.Allow() {
		return saidTooOften(fmt.Sprintf("devices say more often than %d times a second that they may be claimed", claimRate))
	}
	if err := r.store.SaveClaims(ctx, all); err != nil {
		return fmt.Errorf("save claims: %w", err)
	}
	now := time.Now()
	var views []citywarden.DeviceView
	r.mu.Lock()
	for _, o := range all {
		e := r.byID[o.Device] // changeMu keeps it
		e.offer.ClaimOffer = o
		views = append(views, r.view(e, now))
	}
	r.mu.Unlock()
	for _, v := range views {
		r.publish("device", now, v)
	}
	return nil
}

func saidTooOften(reason string) error {
	return citywarden.Errorf(citywarden.CodeLimited, "%w", &citywarden.LimitError{Reason: reason, After: claimEvery})
}

// placed reports whether it was said where d is.
func placed(d *citywarden.Device) bool {
	return d.Location != nil || d.Component != "" || d.Site() != ""
}

// Claim places a device that said that it may be claimed by who knows the secret, and returns it as
// stored; what it said counts no more. Refused are, with codes of their own, what there is not, or
// lies outside the claimer's area, which is told of a site to who knows the secret only (CodeNotFound), a place that is none (CodeInvalid) or lies outside (CodeDenied),
// a device that is disabled or did not say so, or another name for one that its gateway calls by it (CodeConflict), and a wrong secret (CodeUnauthenticated).
func (r *Registry) Claim(ctx context.Context, id citywarden.DeviceID, q citywarden.Claim) (citywarden.Device, error) {
	r.changeMu.Lock()
	defer r.changeMu.Unlock()
	old, _, err := r.Device(id)
	if err != nil {
		return citywarden.Device{}, err
	}
	if placed(old) && !q.Area.Has(old.Grid) {
		return citywarden.Device{}, notFound(id)
	}
	c, err := r.claimed(old, q)
	if err != nil {
		return citywarden.Device{}, err
	}
	if err := r.mayClaim(old, q.Secret); err != nil {
		return citywarden.Device{}, err
	}
	if r.elsewhere(q.Site, q.Area) {
		return citywarden.Device{}, citywarden.Errorf(citywarden.CodeNotFound, "no site %q", q.Site)
	}
	if err := r.store.SaveClaimed(ctx, *c.device); err != nil {
		return citywarden.Device{}, fmt.Errorf("claim device %s: %w", id, err)
	}
	r.mu.Lock()
	r.byID[id].offer.ClaimOffer = citywarden.ClaimOffer{}
	r.mu.Unlock()
	r.show([]change{c})
	return *c.device, nil
}

// elsewhere reports whether a site has devices, and none of them in the area.
func (r *Registry) elsewhere(site citywarden.SiteID, area citywarden.AreaCode) (known bool) {
	if site == "" || area == "" {
		return false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, e := range r.order {
		if e.device.Site() == site {
			if known = true; area.Has(e.device.Grid) {
				return false
			}
		}
	}
	return known
}

// claimed is old in the place that the claim says. It needs changeMu.
func (r *Registry) claimed(old *citywarden.Device, q citywarden.Claim) (change, error) {
	d := *old
	d.Attributes = make(map[string]any, len(old.Attributes)+1)
	for k, v := range old.Attributes {
		d.Attributes[k] = v
	}
	if q.Location == nil && q.Component == "" && q.Site == "" {
		return change{}, citywarden.Errorf(citywarden.CodeInvalid, "say where device %s is: a location, a component or a site", d.ID)
	}
	if q.Location != nil || q.Component != "" {
		d.Location, d.Component = q.Location, q.Component
	}
	if q.Site != "" {
		if err := q.Site.Check(); err != nil {
			return change{}, err
		}
		d.Attributes[citywarden.SiteAttribute] = string(q.Site)
	}
	if q.Name != "" && q.Name != d.Name {
		if g := d.Gateway(); g != "" { // it would not be known any more, or as another
			return change{}, citywarden.Errorf(citywarden.CodeConflict, "gateway %s calls device %s by its name %q; leave the name out", g, d.ID, d.Name)
		}
		d.Name = q.Name
	}
	c, err := r.prepare(d, old)
	if err == nil && !q.Area.Has(c.device.Grid) {
		err = citywarden.Errorf(citywarden.CodeDenied, "device %s can't be placed there: devices are claimed in the area %s only; say a location or a component in it", d.ID, q.Area)
	}
	return c, err
}

// mayClaim returns why who knows that secret may not claim d.
func (r *Registry) mayClaim(d *citywarden.Device, secret string) error {
	h := sha256.Sum256([]byte(citywarden.ClaimSecret(d.ID, secret)))
	r.mu.RLock()
	defer r.mu.RUnlock()
	const again = `have it send {"secretKey": "…"} to ` + citywarden.DeviceClaim
	switch o := r.byID[d.ID].offer; {
	case d.Disabled:
		return citywarden.Errorf(citywarden.CodeConflict, "device %s is disabled; enable it first", d.ID)
	case o == nil || o.Until.IsZero():
		return citywarden.Errorf(citywarden.CodeConflict, "device %s has not said that it may be claimed, or was claimed since; %s", d.ID, again)
	case !o.open(time.Now()):
		return citywarden.Errorf(citywarden.CodeConflict, "device %s could be claimed until %s; %s again", d.ID, o.Until.Format(time.RFC3339), again)
	case subtle.ConstantTimeCompare(o.Secret, h[:]) != 1:
		return citywarden.Errorf(citywarden.CodeUnauthenticated, "that is not the secret that device %s said", d.ID)
	}
	return nil
}
