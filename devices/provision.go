package devices

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/citywarden/citywarden"
)

// ProvisioningStore keeps which models' devices may provision themselves; store.DB
// is one.
type ProvisioningStore interface {
	LoadProvisioning(context.Context) ([]citywarden.Provisioning, error)
	SaveProvisioning(context.Context, citywarden.Provisioning) error
	DeleteProvisioning(context.Context, citywarden.ModelName) error
	AuditStore
}

// AuditStore keeps who changed what; store.DB is one.
type AuditStore interface {
	AppendAudit(ctx context.Context, e citywarden.AuditEntry) (int64, error)
	FinishAudit(ctx context.Context, id int64, status int, after json.RawMessage) error
}

// Devices with a key that ask: so many at once, and then so many a second. A city that is
// switched on takes minutes.
const (
	provisionBurst = 200
	provisionRate  = 20
	maxProvision   = 16 << 10 // bytes of a request
)

// refusedEvery is how often at most it is logged that a stranger was refused, or that too many ask.
const refusedEvery = 10 * time.Second

// Provisioner gives devices a credential that ask for one with the key and the
// secret of their model. Several goroutines may use it.
type Provisioner struct {
	store    ProvisioningStore
	registry *Registry
	log      *slog.Logger
	pace     *rate.Limiter

	strangers, busy rate.Sometimes // pace what is logged of who has no key, and of too many who have one

	changeMu sync.Mutex // held while the store writes

	mu      sync.RWMutex
	byModel map[citywarden.ModelName]citywarden.Provisioning
}

// NewProvisioner returns a Provisioner with what the store has.
func NewProvisioner(ctx context.Context, s ProvisioningStore, r *Registry, log *slog.Logger) (*Provisioner, error) {
	all, err := s.LoadProvisioning(ctx)
	if err != nil {
		return nil, fmt.Errorf("load provisioning: %w", err)
	}
	p := &Provisioner{
		store: s, registry: r, log: log, pace: rate.NewLimiter(provisionRate, provisionBurst),
		strangers: rate.Sometimes{Interval: refusedEvery}, busy: rate.Sometimes{Interval: refusedEvery},
		byModel: map[citywarden.ModelName]citywarden.Provisioning{},
	}
	for _, x := range all {
		p.byModel[x.Model] = x
	}
	return p, nil
}

// Provisioning returns the models whose devices may provision themselves.
func (p *Provisioner) Provisioning() []citywarden.Provisioning {
	p.mu.RLock()
	defer p.mu.RUnlock()
	out := []citywarden.Provisioning{}
	for _, name := range slices.Sorted(maps.Keys(p.byModel)) {
		out = append(out, p.byModel[name])
	}
	return out
}

// SetProvisioning gives a model a new key and secret, in place of those that it had, and
// returns the secret, which is not kept. CodeNotFound when there is no such model.
func (p *Provisioner) SetProvisioning(ctx context.Context, model citywarden.ModelName, createNew bool) (citywarden.Provisioning, string, error) {
	if _, ok := p.registry.models.Model(model); !ok {
		return citywarden.Provisioning{}, "", citywarden.Errorf(citywarden.CodeNotFound, "no model %q%s", model, suggest(string(model), p.registry.models.names))
	}
	secret := newToken()
	h := sha256.Sum256([]byte(secret))
	x := citywarden.Provisioning{Model: model, Key: newToken(), CreateNew: createNew, Since: time.Now().UTC().Truncate(time.Millisecond), Secret: h[:]}
	p.changeMu.Lock()
	defer p.changeMu.Unlock()
	if err := p.store.SaveProvisioning(ctx, x); err != nil {
		return citywarden.Provisioning{}, "", fmt.Errorf("save provisioning of %s: %w", model, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.byModel[model] = x
	return x, secret, nil
}

// EndProvisioning takes key and secret of a model away, or returns CodeNotFound.
func (p *Provisioner) EndProvisioning(ctx context.Context, model citywarden.ModelName) error {
	p.changeMu.Lock()
	defer p.changeMu.Unlock()
	p.mu.RLock()
	_, ok := p.byModel[model]
	p.mu.RUnlock()
	if !ok {
		return citywarden.Errorf(citywarden.CodeNotFound, "devices of model %q can't provision themselves", model)
	}
	if err := p.store.DeleteProvisioning(ctx, model); err != nil {
		return fmt.Errorf("end provisioning of %s: %w", model, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byModel, model)
	return nil
}

// provisionRequest is what a device sends.
type provisionRequest struct {
	Device string `json:"deviceName"`
	Key    string `json:"provisionDeviceKey"`
	Secret string `json:"provisionDeviceSecret"`
	Type   string `json:"credentialsType"`

	Token    string `json:"token"`
	User     string `json:"username"`
	Password string `json:"password"`
	ClientID string `json:"clientId"`
	Hash     string `json:"hash"` // the certificate
}

// The types of credentials, ThingsBoard's.
const (
	accessToken = "ACCESS_TOKEN"
	mqttBasic   = "MQTT_BASIC"
	certificate = "X509_CERTIFICATE"
)

// provisioned is what it is answered with.
type provisioned struct {
	Error  string `json:"errorMsg,omitempty"`
	Value  any    `json:"credentialsValue,omitempty"`
	Type   string `json:"credentialsType,omitempty"`
	Status string `json:"status"`
}

type basicCredentials struct {
	ClientID string `json:"clientId,omitempty"`
	User     string `json:"userName"`
	Password string `json:"password"`
}

// Provision answers a device's request with SUCCESS and its credential, NOT_FOUND for
// a key and secret that no model has, or FAILURE; the log says why. What it gives is in the
// audit: with which key, what, and where from.
func (p *Provisioner) Provision(ctx context.Context, from citywarden.Asker, body []byte) []byte {
	answer := p.answer(ctx, from, body)
	b, _ := json.Marshal(answer) // texts: no error
	return b
}

func (p *Provisioner) answer(ctx context.Context, from citywarden.Asker, body []byte) provisioned {
	failure := provisioned{Error: "Failed to provision device!", Status: "FAILURE"}
	var q provisionRequest
	err := fmt.Errorf("it has more than %d", maxProvision)
	if len(body) <= maxProvision {
		err = json.Unmarshal(body, &q)
	}
	if err != nil {
		p.strangers.Do(func() {
			p.log.Warn("device not provisioned", "err", fmt.Sprintf(`the request of %d bytes is not {"deviceName": …, "provisionDeviceKey": …, "provisionDeviceSecret": …}: %v`, len(body), err))
		})
		return failure
	}
	x, ok := p.known(q.Key, q.Secret)
	if !ok {
		p.strangers.Do(func() {
			p.log.Warn("device not provisioned", "device", fmt.Sprintf("%.64s", q.Device), "err", "no model has this key and secret; make some with: citywarden provisioning set MODEL")
		})
		return provisioned{Error: "Provision data was not found!", Status: "NOT_FOUND"}
	}
	if !p.pace.Allow() {
		p.busy.Do(func() {
			p.log.Warn("device not provisioned", "device", fmt.Sprintf("%.64s", q.Device), "model", x.Model, "err", fmt.Sprintf("more than %d devices a second ask; it may ask again", provisionRate))
		})
		return failure
	}
	answer, err := p.enroll(ctx, from, x, q)
	if err != nil {
		p.log.Warn("device not provisioned", "device", fmt.Sprintf("%.64s", q.Device), "model", x.Model, "err", err)
		return failure
	}
	p.log.Info("device provisioned", "device", fmt.Sprintf("%.64s", q.Device), "model", x.Model, "credential", answer.Type)
	return answer
}

// known returns the model's provisioning that key and secret belong to.
func (p *Provisioner) known(key, secret string) (citywarden.Provisioning, bool) {
	h := sha256.Sum256([]byte(secret))
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, x := range p.byModel {
		if subtle.ConstantTimeCompare([]byte(x.Key), []byte(key)) == 1 && subtle.ConstantTimeCompare(x.Secret, h[:]) == 1 {
			return x, true
		}
	}
	return citywarden.Provisioning{}, false
}

func (p *Provisioner) enroll(ctx context.Context, from citywarden.Asker, x citywarden.Provisioning, q provisionRequest) (provisioned, error) {
	if q.Device == "" && x.CreateNew {
		q.Device = newToken()
	}
	out := provisioned{Type: q.Type, Status: "SUCCESS"}
	var r citywarden.SecretRequest
	switch q.Type {
	case "":
		out.Type = accessToken
	case accessToken:
		if r.Token = q.Token; q.Token != "" && !unguessable(q.Token) {
			r.Token = "" // a new one
		}
	case mqttBasic:
		if r = (citywarden.SecretRequest{User: q.User, ClientID: q.ClientID, Password: q.Password}); r.User == "" {
			r.User = q.Device
		}
	case certificate:
		if _, ok := fingerprintOf(q.Hash); ok || q.Hash == "" {
			return provisioned{}, citywarden.Errorf(citywarden.CodeInvalid, "hash is the whole certificate, in PEM or its base64")
		}
		if err := shows(from.Certificate, q.Hash); err != nil {
			return provisioned{}, err
		}
		r.Certificate = q.Hash
	default:
		return provisioned{}, citywarden.Errorf(citywarden.CodeInvalid, "credentialsType %.32q: it is %s, %s or %s", q.Type, accessToken, mqttBasic, certificate)
	}
	// Nothing stands against it: it is written down, then done.
	var entry int64
	entered := func() (err error) {
		entry, err = p.store.AppendAudit(ctx, provisionEntry(from, x, q.Device, out.Type))
		return err
	}
	text, err := p.registry.enroll(ctx, citywarden.DeviceID(q.Device), x, r, entered)
	if entry != 0 {
		p.finish(context.WithoutCancel(ctx), entry, citywarden.DeviceID(q.Device), err)
	}
	switch out.Value = text; out.Type {
	case mqttBasic:
		out.Value = basicCredentials{ClientID: r.ClientID, User: r.User, Password: text}
	case certificate:
		out.Value = q.Hash
	}
	return out, err
}

// shows returns CodeDenied unless c, which an asker showed in a handshake, is the certificate
// of that text: certificates are public, and who knows a model's key could have a device of
// its choice be what another is known by.
func shows(c *x509.Certificate, text string) error {
	s, err := certificateSecret(text)
	switch {
	case err != nil:
		return err
	case c == nil:
		return citywarden.Errorf(citywarden.CodeDenied, "it asks to be known by %s, and has not shown it: a certificate is taken from who shows it in the handshake of TLS or DTLS, with its key", s.Hint)
	}
	if shown := newSecret(citywarden.SecretX509, citywarden.CertificateSecret(sha256.Sum256(c.Raw)), ""); !bytes.Equal(shown.Hash, s.Hash) {
		return citywarden.Errorf(citywarden.CodeDenied, "it asks to be known by %s, and showed CN=%s", s.Hint, c.Subject.CommonName)
	}
	return nil
}

// unguessable reports whether a token that a device brings along may be taken: who has the key
// of a model could find out by others which tokens there are.
func unguessable(token string) bool {
	different := map[rune]bool{}
	for _, c := range token {
		different[c] = true
	}
	return len(token) >= tokenLength && len(different) >= tokenLength/2
}

// provisionEntry is what the audit says of a device that gets a credential by itself.
func provisionEntry(from citywarden.Asker, x citywarden.Provisioning, device, credential string) citywarden.AuditEntry {
	address := from.Address
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	detail, _ := json.Marshal(map[string]any{"model": x.Model, "protocol": from.Protocol, "credential": credential, "create_new": x.CreateNew}) // texts and a bool: no error
	return citywarden.AuditEntry{
		At: time.Now().UTC(), User: "provisioning key " + x.Key, Address: address, Action: "provision-device",
		Target: "/api/v1/devices/" + device, Detail: string(detail),
	}
}

// finish writes down what became of a device that got a credential by itself.
func (p *Provisioner) finish(ctx context.Context, entry int64, id citywarden.DeviceID, err error) {
	status, after := http.StatusCreated, json.RawMessage(nil)
	if err != nil {
		status = http.StatusInternalServerError // nothing stood against it but the store
	} else if d, _, err := p.registry.Device(id); err == nil {
		after, _ = json.Marshal(d) // as the store took it
	}
	if err := p.store.FinishAudit(ctx, entry, status, after); err != nil {
		p.log.Error("audit entry not finished", "entry", entry, "status", status, "err", err)
	}
}

// enroll gives a device its first credential and returns the secret in it. The device is
// registered with it, or, unless x.CreateNew, was registered and has none. entered is called
// when nothing stands against it, and stops it with an error.
func (r *Registry) enroll(ctx context.Context, id citywarden.DeviceID, x citywarden.Provisioning, q citywarden.SecretRequest, entered func() error) (string, error) {
	text, s, err := r.secretOf(q)
	if err != nil {
		return "", err
	}
	r.changeMu.Lock()
	defer r.changeMu.Unlock()
	// The answer is the same whether somebody else has that token, or that password of
	// a user name, or not: devices with one firmware may bring the same along.
	switch owner := r.owner(s); {
	case owner != "" && s.Kind == citywarden.SecretToken:
		text = newToken()
		if s, err = agreedToken(text); err != nil {
			return "", err
		}
	case owner != "":
		return "", citywarden.Errorf(citywarden.CodeConflict, "that credential belongs to device %s", owner)
	case s.Kind == citywarden.SecretMQTT:
		if owner = r.namesake(s); owner != "" {
			return "", citywarden.Errorf(citywarden.CodeConflict, "device %s has the %s", owner, s.Hint)
		}
	}
	d := citywarden.Device{ID: id, Model: x.Model}
	old, _, err := r.Device(id)
	switch {
	case x.CreateNew && err == nil:
		return "", citywarden.Errorf(citywarden.CodeConflict, "device %s exists already", id)
	case x.CreateNew:
	case err != nil:
		return "", citywarden.Errorf(citywarden.CodeNotFound, "no device %s; register it, or let devices of model %s register themselves", id, x.Model)
	case old.Model != x.Model:
		return "", citywarden.Errorf(citywarden.CodeConflict, "device %s is of model %s; the key is that of %s", id, old.Model, x.Model)
	case old.Disabled:
		return "", citywarden.Errorf(citywarden.CodeDenied, "device %s is disabled", id)
	case len(r.secretsOf(id)) > 0:
		return "", citywarden.Errorf(citywarden.CodeConflict, "device %s has a credential; revoke it to let the device ask again", id)
	default:
		d = *old
	}
	c, err := r.prepare(d, old)
	if err != nil {
		return "", err
	}
	c.secrets = []citywarden.Secret{s}
	if err := entered(); err != nil {
		return "", err
	}
	return text, r.save(ctx, []change{c})
}

// namesake returns which device has the user name and client id of s, with whatever password,
// "" when none has.
func (r *Registry) namesake(s citywarden.Secret) citywarden.DeviceID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, e := range r.order {
		for i := range e.secrets {
			if e.secrets[i].Kind == citywarden.SecretMQTT && e.secrets[i].Hint == s.Hint {
				return e.device.ID
			}
		}
	}
	return ""
}
