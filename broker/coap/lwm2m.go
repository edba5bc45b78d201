package coap

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/citywarden/citywarden"
)

// LwM2M 1.1, the interfaces of a server on CoAP:
//
//	POST   /rd?ep={token}&lt=86400&lwm2m=1.1&b=U   </1/0>,</3303/0>
//	POST   /rd/{id}
//	DELETE /rd/{id}
//	POST   /dp
//
// over UDP, DTLS, and TCP with TLS or without it. There is no bootstrap server. The endpoint name is the token of the device, unless its session over DTLS or TLS says who it is. A client that registered is asked
// to notify the platform of each resource that a metric of its model is, and gets its
// commands; one in queue mode while it is awake, after it said something. Registrations
// end with the process: a client that updates one that is not known registers anew.

const (
	lwm2mRegister = "rd"
	lwm2mSend     = "dp"

	maxLinks       = 256             // of a registration
	maxLifetime    = 366 * 24 * 3600 // seconds
	usualLifetime  = 86400           // LwM2M 1.1, 6.2.1.2
	lwm2mAwake     = 93 * time.Second
	lwm2mQuiet     = 5 * time.Minute  // a resource that says nothing for so long, and for two heartbeats, is observed anew; a client may be another
	lwm2mAnswers   = 60 * time.Second // in which a client answers a request that it acknowledged
	linkFormat     = 40
	sendFormats    = "SenML (110, 112)"
	maxClientToken = 8
)

// registration is a client of LwM2M that registered.
type registration struct {
	id     string
	device citywarden.DeviceID
	known  func() (citywarden.DeviceID, error) // whose client it is by now
	wake   chan struct{}
	ready  chan struct{} // closed once the client was told its location
	stop   chan struct{} // closed when it ends
	secure bool          // it began over DTLS or TCP

	// Guarded by loop.mu.
	peer     endpoint
	objects  []link
	lifetime time.Duration
	sleeps   bool // queue mode
	until    time.Time
	heard    time.Time               // when it last showed that it is the one at peer
	alone    time.Time               // until then another may be there
	spoke    bool                    // it said something since it registered or updated, unasked
	fresh    bool                    // the resources are to be observed
	observed map[string]*observation // by path
}

// observation is a resource of a client that it was asked to notify us of.
type observation struct {
	key expectID
	at  time.Time // when it was to be asked for, or notified us
}

// link is an object or an instance of one that a client has.
type link struct {
	object   uint16
	instance int // -1 for none
}

// is reports whether a client that has k has that instance of an object: one that names the object
// alone may have the first.
func (k link) is(object, instance string) bool {
	return strconv.Itoa(int(k.object)) == object && (strconv.Itoa(k.instance) == instance || k.instance < 0 && instance == "0")
}

// expecting is a request to a client that is not answered, or an observation.
type expecting struct {
	reg    *registration
	path   string               // that is observed, "" for none
	answer chan message.Message // nil when nobody waits
}

// expectID tells answers apart.
type expectID struct {
	peer  endpoint
	token string
}

// isLwM2M reports whether a request is one of LwM2M.
func isLwM2M(o message.Options) (path []string, ok bool) {
	first, last, err := o.Find(message.URIPath)
	if err != nil || last-first > 2 {
		return nil, false
	}
	for _, p := range o[first:last] {
		path = append(path, string(p.Value))
	}
	return path, path[0] == lwm2mRegister || path[0] == lwm2mSend && len(path) == 1
}

// isBootstrap tells whether a client of LwM2M takes us for a bootstrap server.
func isBootstrap(o message.Options) bool {
	path, err := o.Path()
	return err == nil && path == "/bs"
}

// lwm2m looks at a request of a client; it returns what request does.
func (l *loop) lwm2m(x *exchange, m *message.Message, path []string) ([]byte, answer) {
	query := map[string]string{}
	for _, o := range m.Options {
		if o.ID == message.URIQuery {
			name, value, _ := strings.Cut(string(o.Value), "=")
			query[name] = value
		}
	}
	format, err := m.Options.ContentFormat()
	switch {
	case path[0] == lwm2mSend && m.Code != codes.POST, m.Code != codes.POST && m.Code != codes.DELETE, m.Code == codes.DELETE && len(path) != 2:
		return nil, answer{code: codes.MethodNotAllowed, detail: "register with POST /rd, update with POST /rd/{id}, leave with DELETE /rd/{id}, send with POST /dp"}
	case path[0] == lwm2mSend:
		if err != nil || format != message.AppSenmlJSON && format != message.AppSenmlCbor {
			return nil, answer{code: codes.UnsupportedMediaType, detail: "send " + sendFormats}
		}
		reg := l.registeredAt(x.id.from)
		if reg == nil {
			return nil, answer{code: codes.NotFound, detail: "no client is registered from this address, or without DTLS none showed lately that it is still there; register or update first"}
		}
		x.up = citywarden.Uplink{Device: reg.device, Protocol: "coap", Topic: "v1/devices/me/telemetry", Received: x.at.UTC()}
		x.reg = reg
		return l.body(x, m)
	case err == nil && format != linkFormat:
		return nil, answer{code: codes.UnsupportedMediaType, detail: "register with application/link-format (40)"}
	}
	r := &entry{}
	if lt, ok := query["lt"]; ok {
		n, err := strconv.Atoi(lt)
		if err != nil || n < 1 || n > maxLifetime {
			return nil, answer{code: codes.BadRequest, detail: fmt.Sprintf("lt=%.32s is no lifetime in seconds", lt)}
		}
		r.lifetime = time.Duration(n) * time.Second
	}
	_, queue := query["Q"]
	r.sleeps = queue || strings.Contains(query["b"], "Q")
	r.mode = queue || query["b"] != ""
	if len(path) == 1 {
		if v := query["lwm2m"]; !strings.HasPrefix(v, "1.") {
			return nil, answer{code: codes.PreconditionFailed, detail: fmt.Sprintf("lwm2m=%.16s is not spoken here; 1.0 and 1.1 are", v)}
		}
		token := query["ep"]
		known := func() (citywarden.DeviceID, error) { return l.opts.Auth.Authenticate(token) }
		if s := x.id.from.session; s != nil && s.known != nil { // the endpoint name is of no consequence
			token, known = "", s.known
		}
		id, err := l.who(x, token)
		if err != nil {
			return nil, l.unauthenticated(x, token, err)
		}
		reg := &registration{id: rand.Text(), device: id, known: known, wake: make(chan struct{}, 1), ready: make(chan struct{}), stop: make(chan struct{}), observed: map[string]*observation{}, lifetime: usualLifetime * time.Second, secure: x.id.from.session != nil}
		x.reg, x.entry = reg, r
		r.register = true
	} else {
		l.mu.Lock()
		x.reg, x.entry = l.registrations[path[1]], r
		l.mu.Unlock()
		s := x.id.from.session
		switch {
		case x.reg == nil, s != nil && s.known == nil: // whoever shows nothing else shows its token when it registers
			return nil, answer{code: codes.NotFound, detail: "there is no such registration; register again"}
		case s != nil && s.device != x.reg.device:
			l.warn("registration of another device refused", "device", s.device, "remote", x.id.from, "of", x.reg.device)
			return nil, answer{code: codes.Forbidden, detail: "this registration is another device's"}
		case s == nil && x.reg.secure:
			return nil, answer{code: codes.Forbidden, detail: "this registration began over DTLS or TCP; go on there"}
		}
		if !l.valid(x.reg) {
			return nil, answer{code: codes.Unauthorized, detail: "the token of this registration is not valid any more"}
		}
	}
	r.leaves = m.Code == codes.DELETE
	x.up = citywarden.Uplink{Device: x.reg.device, Protocol: "coap", Topic: citywarden.DeviceConnected, Received: x.at.UTC()}
	if r.leaves {
		x.up.Topic = citywarden.DeviceDisconnected
	}
	body, a := l.body(x, m)
	if a.code == codes.Empty {
		var err error
		if r.objects, err = parseLinks(body); err != nil {
			return nil, answer{code: codes.BadRequest, detail: err.Error()}
		}
	}
	return body, a
}

// entry is what a client says when it registers, updates or leaves.
type entry struct {
	register, leaves bool
	lifetime         time.Duration // 0 when it says nothing
	objects          []link        // nil when it says nothing
	mode, sleeps     bool          // it says whether it sleeps
}

// entered takes an entry that is in the log, and answers it.
func (l *loop) entered(x *exchange) answer {
	reg, e := x.reg, x.entry
	if e.leaves {
		l.leave(reg)
		return answer{code: codes.Deleted}
	}
	quiet := l.quietOf(reg)
	l.mu.Lock()
	if e.register {
		if old := l.clients[reg.device]; old != nil {
			l.leaveLocked(old)
		}
		if len(l.registrations) >= maxObservers || l.over {
			l.mu.Unlock()
			return unavailable
		}
		l.registrations[reg.id], l.clients[reg.device] = reg, reg
		l.asking.Go(func() { l.attend(l.ctx, reg) })
	}
	if l.registrations[reg.id] != reg { // it left meanwhile
		l.mu.Unlock()
		return answer{code: codes.NotFound, detail: "there is no such registration; register again"}
	}
	if e.lifetime > 0 {
		reg.lifetime = e.lifetime
	}
	if len(e.objects) > 0 && !slices.Equal(e.objects, reg.objects) {
		reg.objects, reg.fresh = e.objects, true
	}
	if e.mode {
		reg.sleeps = e.sleeps
	}
	reg.until, reg.spoke = time.Now().Add(reg.lifetime), false
	l.awakeLocked(reg, x.id.from, quiet)
	l.mu.Unlock()
	if !e.register {
		return answer{code: codes.Changed}
	}
	return answer{code: codes.Created, location: []string{lwm2mRegister, reg.id}}
}

// registeredAt returns the client that is registered from an address. Without DTLS that says little:
// an address translator gives one that is not used to another device.
func (l *loop) registeredAt(peer endpoint) *registration {
	l.mu.Lock()
	reg := l.atPeer[peer]
	var heard, alone time.Time
	if reg != nil {
		heard, alone = reg.heard, reg.alone
	}
	l.mu.Unlock()
	if reg == nil || !l.valid(reg) {
		return nil
	}
	if peer.session == nil && (time.Since(heard) > l.quietOf(reg) || time.Now().Before(alone)) {
		return nil
	}
	return reg
}

// valid reports whether the token of a client is good, and ends its registration when it was revoked.
func (l *loop) valid(reg *registration) bool {
	id, err := reg.known()
	switch citywarden.CodeOf(err) {
	case "":
		if id == reg.device {
			return true
		}
	case citywarden.CodeUnauthenticated, citywarden.CodeNotFound, citywarden.CodeDenied:
	default:
		return true // it can't be checked: it stays as it is
	}
	l.leave(reg)
	return false
}

// quietOf returns for how long a client, or a resource of it, may say nothing before it is taken to be another, or to be forgotten.
func (l *loop) quietOf(reg *registration) time.Duration {
	if l.opts.Models == nil {
		return lwm2mQuiet
	}
	_, model, err := l.opts.Models.Device(reg.device)
	if err != nil {
		return lwm2mQuiet
	}
	return max(lwm2mQuiet, 2*model.Heartbeat.Std())
}

// awake notes that a client said something, and where it is.
func (l *loop) awake(reg *registration, peer endpoint) {
	quiet := l.quietOf(reg)
	l.mu.Lock()
	defer l.mu.Unlock()
	reg.spoke = true
	l.awakeLocked(reg, peer, quiet)
}

// awakeLocked has the client asked again for what it says nothing of: it may have forgotten that
// it is observed. It needs mu.
func (l *loop) awakeLocked(reg *registration, peer endpoint, quiet time.Duration) {
	for _, o := range reg.observed {
		if time.Since(o.at) > quiet {
			o.at, reg.fresh = time.Now(), true
		}
	}
	if reg.peer != peer {
		if l.atPeer[reg.peer] == reg {
			delete(l.atPeer, reg.peer)
		}
		reg.peer, reg.fresh = peer, len(reg.objects) > 0 // what it observes it knows by our address and its own
	}
	if other := l.atPeer[peer]; other != nil && other != reg {
		reg.alone = other.heard.Add(lwm2mAwake)
	}
	l.atPeer[peer], reg.heard = reg, time.Now()
	select {
	case reg.wake <- struct{}{}:
	default:
	}
}

// leave ends a registration.
func (l *loop) leave(reg *registration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaveLocked(reg)
}

// leaveLocked needs mu.
func (l *loop) leaveLocked(reg *registration) {
	if l.registrations[reg.id] != reg {
		return
	}
	delete(l.registrations, reg.id)
	if l.clients[reg.device] == reg {
		delete(l.clients, reg.device)
	}
	if l.atPeer[reg.peer] == reg {
		delete(l.atPeer, reg.peer)
	}
	for _, o := range reg.observed {
		delete(l.expects, o.key)
	}
	close(reg.stop)
}

// expired ends a registration whose lifetime is over, and reports whether the client is gone: one that
// forgot to update may still be there.
func (l *loop) expired(reg *registration) (over, gone bool) {
	if !l.valid(reg) {
		return false, false // it ended
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Now().Before(reg.until) || l.registrations[reg.id] != reg {
		return false, false // it was updated, or left
	}
	l.leaveLocked(reg)
	return true, !reg.spoke
}

// attend asks a client for what it measures and gives it its commands until it leaves
// or its lifetime is over.
func (l *loop) attend(ctx context.Context, reg *registration) {
	queue := make(chan citywarden.Downlink, maxTold)
	var cancel func()
	deaf := func() {
		if cancel == nil {
			return
		}
		cancel()
		cancel = nil
		for {
			select {
			case m := <-queue:
				settle(m, false)
			default:
				return
			}
		}
	}
	defer deaf()
	sleep := time.NewTimer(lwm2mAwake)
	defer sleep.Stop()
	missed := false // not all is observed
	select {
	case <-reg.ready:
	case <-ctx.Done():
	}
	for {
		l.mu.Lock()
		until, sleeps, fresh, objects := reg.until, reg.sleeps, reg.fresh, reg.objects
		reg.fresh = false
		l.mu.Unlock()
		if fresh && !l.observeAll(ctx, reg, objects) {
			missed = true
		}
		over := time.NewTimer(time.Until(until))
		var asleep <-chan time.Time
		if sleeps {
			asleep = sleep.C
		}
		select {
		case <-reg.wake:
			sleep.Reset(lwm2mAwake)
			if missed {
				missed = false
				l.mu.Lock()
				reg.fresh = true
				l.mu.Unlock()
			}
			if cancel == nil {
				cancel = l.opts.Down.Listen(reg.device, citywarden.DownlinkCommand, func(m citywarden.Downlink) bool {
					if m.Device != reg.device || l.resourceOf(m) == nil {
						return false
					}
					select {
					case queue <- m:
						return true
					default:
						return false
					}
				})
			}
		case m := <-queue:
			if !l.execute(ctx, reg, m) { // it is told nothing until it says something
				deaf()
				settle(m, false)
			}
		case <-asleep:
			deaf()
		case <-over.C:
			over, gone := l.expired(reg)
			if !over {
				continue
			}
			if !gone {
				return
			}
			l.opts.Accept.Accept(ctx, citywarden.Uplink{Device: reg.device, Protocol: "coap", Topic: citywarden.DeviceDisconnected, Received: time.Now().UTC()}, func(err error) {
				if err != nil {
					l.log.Error("end of a registration not stored", "device", reg.device, "err", err)
				}
			})
			return
		case <-reg.stop:
			over.Stop()
			return
		case <-ctx.Done():
			over.Stop()
			return
		}
		over.Stop()
	}
}

// observeAll has a client notify us of each resource that a metric of its model is,
// and reports whether the client was there.
func (l *loop) observeAll(ctx context.Context, reg *registration, objects []link) bool {
	if l.opts.Models == nil {
		return true
	}
	_, model, err := l.opts.Models.Device(reg.device)
	if err != nil {
		return true // it was deleted
	}
	for i := range model.Metrics {
		object, instance, resource := citywarden.SplitIPSO(model.Metrics[i].IPSO)
		if resource == "" || !slices.ContainsFunc(objects, func(k link) bool { return k.is(object, instance) }) {
			continue
		}
		answer, r := l.call(ctx, reg, codes.GET, []string{object, instance, resource}, nil, true)
		if r != gave {
			return false
		}
		if answer.Code != codes.Content {
			l.log.Debug("resource not observed", "device", reg.device, "path", model.Metrics[i].IPSO, "code", codeLabel(answer.Code))
		}
	}
	return true
}

// command is what a client is told to do.
type command struct {
	Method string         `json:"method"`
	Params map[string]any `json:"params"`
	decl   *citywarden.ModelCommand
}

// resourceOf returns the command of which a resource of LwM2M is known, nil of others.
func (l *loop) resourceOf(m citywarden.Downlink) *command {
	var c command
	if l.opts.Models == nil || json.Unmarshal(m.Body, &c) != nil {
		return nil
	}
	_, model, err := l.opts.Models.Device(m.Device)
	if err != nil {
		return nil
	}
	if c.decl, _ = model.Command(c.Method); c.decl == nil || c.decl.IPSO == "" {
		l.warn("command can't be sent over LwM2M", "device", m.Device, "command", c.Method, "do", "say in the model file which resource it is: ipso: 3/4")
		return nil
	}
	return &c
}

// execute gives a client a command, and reports whether the client has it: one that it acknowledged
// it does not get again, whether or not it answers.
func (l *loop) execute(ctx context.Context, reg *registration, m citywarden.Downlink) bool {
	c := l.resourceOf(m)
	if c == nil || !l.valid(reg) {
		return false // its model changed, or its token was revoked
	}
	decl := c.decl
	object, instance, resource := citywarden.SplitIPSO(decl.IPSO)
	code, body := codes.POST, []byte(nil) // executed
	if len(decl.Params) > 0 {
		code = codes.PUT
		v, _ := citywarden.ValueOf(c.Params[decl.Params[0].Name]) // of the kind that is declared
		switch v.Kind() {
		case citywarden.KindBool:
			body = strconv.AppendInt(nil, int64(v.Float()), 10)
		case citywarden.KindNumber:
			body = strconv.AppendFloat(nil, v.Float(), 'f', -1, 64)
		default:
			body = []byte(v.String())
		}
	}
	answer, r := l.call(ctx, reg, code, []string{object, instance, resource}, body, false)
	if r == absent {
		return false
	}
	settle(m, true)
	if r == took { // it may have done it, and is not told again
		return true
	}
	said := []byte("{}")
	if answer.Code != codes.Changed {
		said, _ = json.Marshal(map[string]string{"error": codeLabel(answer.Code)}) // a string: no error
	}
	if err := l.opts.Down.Answer(ctx, reg.device, m.ID, said); err != nil && citywarden.CodeOf(err) != citywarden.CodeNotFound {
		l.log.Error("answer not stored", "device", reg.device, "command", m.ID, "err", err)
	}
	return true
}

// response is what became of a request to a client.
type response uint8

const (
	absent response = iota // it is not there
	took                   // it acknowledged the request, and gave no answer
	gave                   // it answered
)

// call asks a client for something and returns its answer, if it gave one.
func (l *loop) call(ctx context.Context, reg *registration, code codes.Code, path []string, body []byte, observe bool) (message.Message, response) {
	e := &expecting{reg: reg, answer: make(chan message.Message, 1)}
	acked := make(chan bool, 1)
	token := make([]byte, maxClientToken)
	_, _ = rand.Read(token) // never fails; nobody else may guess it
	l.mu.Lock()
	peer := reg.peer
	l.nextID++
	var before *observation
	if observe {
		e.path = strings.Join(path, "/")
		before = reg.observed[e.path]
	}
	renewed := before != nil && before.key.peer == peer
	if renewed { // by the same token it is the same observation to the client, RFC 7641 §4.1
		token = []byte(before.key.token)
	}
	id, key := exchangeID{peer, l.nextID}, expectID{peer, string(token)}
	msg := message.Message{Type: message.Confirmable, Code: code, MessageID: int32(id.message), Token: token, Payload: body}
	if observe {
		if before != nil {
			delete(l.expects, before.key)
		}
		reg.observed[e.path] = &observation{key, time.Now()}
		msg.Options = append(msg.Options, message.Option{ID: message.Observe})
	}
	for _, p := range path {
		msg.Options = append(msg.Options, message.Option{ID: message.URIPath, Value: []byte(p)})
	}
	if body != nil {
		msg.Options = append(msg.Options, message.Option{ID: message.ContentFormat}) // text
	}
	l.told[id], l.expects[key] = acked, e
	l.mu.Unlock()
	answered, refused := false, false
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.told, id)
		if e.answer = nil; !observe || refused || !answered && !renewed || l.registrations[reg.id] != reg {
			delete(l.expects, key)
		}
	}()
	wait, reached, repeats := ackTimeout, absent, maxRepeats
	if peer.stream() { // as for a notification, see notify
		wait, repeats = pongWithin, 0
	}
	var ended <-chan struct{} // of the session
	if peer.session != nil {
		ended = peer.session.ended
	}
	for range repeats + 1 {
		l.put(id, msg)
		t := time.NewTimer(wait)
		for over := false; !over; {
			select {
			case r := <-e.answer:
				t.Stop()
				answered, refused = r.Code == codes.Content, r.Code != codes.Content
				return r, gave
			case ok := <-acked:
				if !ok {
					t.Stop()
					return message.Message{}, reached
				}
				t.Reset(lwm2mAnswers) // the answer comes by itself
				wait, reached = lwm2mAnswers, took
			case <-t.C:
				over = true
			case <-reg.stop:
				t.Stop()
				return message.Message{}, reached
			case <-ended:
				t.Stop()
				return message.Message{}, reached
			case <-ctx.Done():
				t.Stop()
				return message.Message{}, reached
			}
		}
		if wait *= 2; wait > lwm2mAnswers {
			break
		}
	}
	if peer.stream() && reached == absent {
		peer.session.end()
	}
	return message.Message{}, reached
}

// answered takes what a client answers or notifies us of, and reports whether
// somebody waits for it. A notification is acknowledged once it is in the log.
func (l *loop) answered(peer endpoint, m *message.Message) bool {
	if len(m.Token) == 0 || len(m.Token) > maxClientToken {
		return false
	}
	l.mu.Lock()
	e := l.expects[expectID{peer, string(m.Token)}]
	if id := (exchangeID{peer, uint16(m.MessageID)}); e != nil && m.Type == message.Acknowledgement {
		if l.told[id] == nil { // it repeats its answer
			l.mu.Unlock()
			return true
		}
		delete(l.told, id)
	}
	var path string
	if e != nil {
		path = e.path
		e.reg.heard, e.reg.spoke = time.Now(), e.reg.spoke || e.answer == nil
		if o := e.reg.observed[path]; o != nil {
			o.at = e.reg.heard
		}
		if other := l.atPeer[peer]; other != nil && other != e.reg {
			other.alone = e.reg.heard.Add(lwm2mAwake)
		}
		if e.answer != nil {
			r := *m
			r.Payload = nil
			select {
			case e.answer <- r:
			default: // said twice
			}
		}
	}
	l.mu.Unlock()
	if e == nil || !l.valid(e.reg) {
		return false
	}
	if path == "" || m.Code != codes.Content {
		if m.Type == message.Confirmable {
			l.send(peer, message.Message{Type: message.Acknowledgement, MessageID: m.MessageID})
		}
		return true
	}
	x := newExchange(peer, m)
	switch {
	case m.Type == message.Acknowledgement, peer.stream(): // it is not sent again
		x.confirmable = false
		x.id.message = 0
	case !l.first(x):
		return true
	}
	format := message.MediaType(0)
	if f, err := m.Options.ContentFormat(); err == nil {
		format = f
	}
	x.notified = true
	x.up = citywarden.Uplink{Device: e.reg.device, Protocol: "coap", Topic: citywarden.DeviceLwM2M + strconv.Itoa(int(format)) + "/" + path,
		Payload: bytes.Clone(m.Payload), Received: x.at.UTC()}
	switch {
	case peer.stream(): // it waits
		select {
		case l.slots <- struct{}{}:
			l.tick()
			l.queue <- x
		case <-l.ctx.Done():
		}
	case l.slot():
		l.queue <- x
	default:
		l.again(x) // it is sent again
	}
	return true
}

// again forgets a notification that was not stored, so that its repetition is taken.
func (l *loop) again(x *exchange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.exchanges.byID[x.id] == x {
		delete(l.exchanges.byID, x.id)
	}
}

// stored acknowledges a notification, or has it sent again.
func (l *loop) stored(x *exchange) {
	l.mu.Lock()
	err := x.err
	l.mu.Unlock()
	switch {
	case err != nil && citywarden.CodeOf(err) != citywarden.CodeInvalid:
		if n, ok := l.quiet.allow("store"); ok {
			l.log.Error("notification not stored; the client was not told that it was", "device", x.up.Device, "topic", x.up.Topic, "err", err, "suppressed", n)
		}
		if l.again(x); x.id.from.stream() { // nothing is sent again there, so it is to come back and be asked
			x.id.from.session.end()
		}
	case x.confirmable:
		reply, err := encode(message.Message{Type: message.Acknowledgement, MessageID: int32(x.id.message)})
		if err != nil {
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		x.reply = reply
		l.transmit(x.id.from, reply, true)
	}
}

// parseLinks reads which objects a client has from a body of CoRE link-format (RFC 6690):
// </lwm2m>;rt="oma.lwm2m",</lwm2m/3/0>,</lwm2m/3303>. What is none is left out.
func parseLinks(b []byte) ([]link, error) {
	var paths []string
	root := ""
	for rest := string(b); rest != ""; {
		rest = strings.TrimLeft(rest, " \r\n\t")
		if rest == "" {
			break
		}
		if rest[0] != '<' {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "byte %d: no link; they are like </3303/0>,</3/0>", len(b)-len(rest))
		}
		end := strings.IndexByte(rest, '>')
		if end < 0 {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "byte %d: the link has no end", len(b)-len(rest))
		}
		path := rest[1:end]
		rest = rest[end+1:]
		quoted, i := false, 0
		for i < len(rest) && (quoted || rest[i] != ',') {
			switch {
			case rest[i] == '"':
				quoted = !quoted
			case rest[i] == '\\' && quoted:
				i++
			}
			i++
		}
		i = min(i, len(rest))
		if strings.Contains(rest[:i], `rt="oma.lwm2m"`) || strings.Contains(rest[:i], "rt=oma.lwm2m") {
			root = strings.TrimSuffix(path, "/")
		}
		if len(paths) == maxLinks {
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "more than %d links", maxLinks)
		}
		paths = append(paths, path)
		rest = rest[min(i+1, len(rest)):]
	}
	var out []link
	for _, path := range paths {
		path, ok := strings.CutPrefix(path, root+"/")
		if !ok {
			continue
		}
		object, instance, both := strings.Cut(path, "/")
		n, err := strconv.ParseUint(object, 10, 16)
		k := link{uint16(n), -1}
		if both && err == nil {
			var i uint64
			i, err = strconv.ParseUint(instance, 10, 16)
			k.instance = int(i)
		}
		if err == nil && !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out, nil
}
