package coap

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/citywarden/citywarden"
)

const requestTag message.OptionID = 292 // RFC 9175 §3.2

// formats are the content formats that are taken; the body itself says what it
// is, so that one that was left out or is general does no harm.
var formats = []message.MediaType{message.TextPlain, message.AppJSON, message.AppOctets, message.AppSenmlJSON, message.AppSenmlCbor}

// request looks at a request. It returns the whole body when there is something
// to store, else the answer.
func (l *loop) request(x *exchange, m *message.Message) ([]byte, answer) {
	for _, o := range m.Options {
		switch o.ID {
		case message.URIHost, message.URIPort, message.URIPath, message.URIQuery,
			message.Accept, message.Block1, message.Block2: // critical, and understood or of no consequence here
		case message.ProxyURI, message.ProxyScheme:
			return nil, answer{code: codes.ProxyingNotSupported}
		default:
			if o.ID&1 != 0 { // RFC 7252 §5.4.1
				return nil, answer{code: codes.BadOption, detail: fmt.Sprintf("option %d is not supported", o.ID)}
			}
		}
	}
	if l.opts.Provision != nil && m.Code == codes.POST && asksForCredential(m.Options) {
		x.ask = &ask{provision: true, block: block{szx: maxSZX}}
		return l.body(x, m)
	}
	if path, ok := isLwM2M(m.Options); ok {
		return l.lwm2m(x, m, path)
	}
	token, what, ok := target(m.Options)
	switch {
	case !ok && isBootstrap(m.Options):
		return nil, answer{code: codes.NotFound, detail: "there is no bootstrap server: write address, identity and key of the platform into objects 0 and 1, then register at /rd"}
	case !ok:
		return nil, answer{code: codes.NotFound, detail: "POST to /api/v1/{token}/telemetry, attributes, raw, claim or rpc; GET /api/v1/{token}/attributes or rpc, /fw/{token}"}
	case m.Code == codes.GET && what == "rpc" && !m.Options.HasOption(message.Observe) && !m.Options.HasOption(message.Block2): // as with ThingsBoard
		return nil, answer{code: codes.BadRequest, detail: "commands come as notifications: GET with Observe 0"}
	case m.Code == codes.GET && (what == "attributes" || what == "rpc" || what == firmware):
	case what == firmware:
		return nil, answer{code: codes.MethodNotAllowed, detail: "use GET"}
	case m.Code != codes.POST:
		return nil, answer{code: codes.MethodNotAllowed, detail: "use POST"}
	}
	if cf, err := m.Options.ContentFormat(); err == nil && !slices.Contains(formats, cf) {
		return nil, answer{code: codes.UnsupportedMediaType, detail: fmt.Sprintf("content format %d; send JSON (50) or SenML (110, 112)", cf)}
	}
	id, err := l.who(x, token)
	if err != nil {
		return nil, l.unauthenticated(x, token, err)
	}
	if m.Code == codes.GET {
		var a answer
		x.ask, a = newAsk(id, m.Options)
		if x.ask != nil {
			x.ask.access, x.ask.rpc, x.ask.firmware = token, what == "rpc", what == firmware
			if v, err := m.Options.GetUint32(message.Observe); err == nil && !x.ask.firmware {
				l.unobserve(observerID{x.id.from, string(x.token)})
				x.ask.observe = v == 0 // RFC 7641 §2: 1 ends it
			}
		}
		return nil, a
	}
	if what == "rpc" {
		x.ask = &ask{device: id, call: true, block: block{szx: maxSZX}}
	}
	if what == claim {
		if l.opts.Announce == nil {
			return nil, answer{code: codes.NotFound, detail: "no device can be claimed here"}
		}
		x.ask = &ask{device: id, post: true, announce: true}
	}
	if command, ok := strings.CutPrefix(what, "rpc/"); ok {
		n, err := strconv.ParseInt(command, 10, 64)
		if err != nil {
			return nil, answer{code: codes.BadRequest, detail: fmt.Sprintf("%.32q is not the number of a command", command)}
		}
		x.ask = &ask{device: id, post: true, command: n}
	}
	x.up = citywarden.Uplink{Device: id, Protocol: "coap", Topic: "v1/devices/me/" + what, Received: x.at.UTC()}
	return l.body(x, m)
}

// asksForCredential reports whether the path is api/v1/provision.
func asksForCredential(o message.Options) bool {
	path, err := o.Path()
	return err == nil && strings.TrimPrefix(path, "/") == "api/v1/provision"
}

// body returns the whole body once it is there, else the answer.
func (l *loop) body(x *exchange, m *message.Message) ([]byte, answer) {
	v, err := m.Options.GetUint32(message.Block1)
	if err != nil {
		return slices.Clone(m.Payload), answer{}
	}
	b := parseBlock(v)
	x.block = &b
	l.blocksMu.Lock()
	defer l.blocksMu.Unlock()
	t := &l.blocks
	if x.ask != nil && x.ask.provision {
		t = &l.strangers // anybody may ask: devices must have room left
	}
	return t.add(transferKey(x, m.Options), b, m.Payload, x.at)
}

// newAsk reads what a device wants to know of its attributes.
func newAsk(id citywarden.DeviceID, o message.Options) (*ask, answer) {
	keys := map[string]string{}
	for _, opt := range o {
		if name, list, ok := strings.Cut(string(opt.Value), "="); ok && opt.ID == message.URIQuery {
			keys[name] = list
		}
	}
	a := &ask{device: id, block: block{szx: maxSZX}}
	a.title, a.version, a.size, a.chunk = keys["title"], keys["version"], keys["size"], keys["chunk"]
	a.client, a.shared = citywarden.AttributeKeys(keys["clientKeys"], keys["sharedKeys"])
	if v, err := o.GetUint32(message.Block2); err == nil {
		if a.block = parseBlock(v); a.block.szx > maxSZX {
			return nil, answer{code: codes.BadOption, detail: "blocks of Block2 have at most 1024 bytes"}
		}
	}
	return a, answer{}
}

// part returns the block of body that the device asked for, and notes whether
// there are more (RFC 7959 §2.4).
func (a *ask) part(body []byte) ([]byte, bool) {
	from := a.block.offset()
	if from > 0 && from >= len(body) {
		return nil, false
	}
	to := min(from+a.block.size(), len(body))
	a.block.more = to < len(body)
	return body[from:to], true
}

// who returns whose request it is: the session's device, or that of the token in the path, which
// is the session's from then on.
func (l *loop) who(x *exchange, token string) (citywarden.DeviceID, error) {
	s := x.id.from.session
	if s != nil && s.known != nil {
		id, err := s.known()
		if err != nil || token == "" {
			return id, err
		}
		other, err := l.opts.Auth.Authenticate(token)
		if err == nil && other != id {
			err = citywarden.Errorf(citywarden.CodeDenied, "the token in the path is not one of device %s, whose session it is", id)
		}
		return other, err
	}
	if token == "" {
		if s != nil && s.refused != nil {
			return "", s.refused
		}
		return "", citywarden.Errorf(citywarden.CodeUnauthenticated, "there is none in the path; without one it takes DTLS or TLS with a key or a certificate of the device")
	}
	id, err := l.opts.Auth.Authenticate(token)
	if err == nil && s != nil {
		if err := l.opts.connect(id); err != nil {
			return "", err
		}
		s.device, s.known = id, func() (citywarden.DeviceID, error) { return l.opts.Auth.Authenticate(token) }
		l.watch(s)
	}
	return id, err
}

// stillIs returns whose request x is by now.
func (l *loop) stillIs(x *exchange) (citywarden.DeviceID, error) {
	if s := x.id.from.session; s != nil {
		return s.known()
	}
	return l.opts.Auth.Authenticate(x.ask.access)
}

func (l *loop) unauthenticated(x *exchange, token string, err error) answer {
	switch citywarden.CodeOf(err) {
	case citywarden.CodeUnauthenticated, citywarden.CodeNotFound:
		l.warn("uplink refused", "remote", x.id.from, "token", hint(token), "err", err,
			"do", "issue a token with POST /api/v1/devices/{id}/credentials and put it into the device's path")
		if token == "" {
			return answer{code: codes.Unauthorized, detail: err.Error()}
		}
		return answer{code: codes.Unauthorized, detail: "the access token in the path is unknown"}
	case citywarden.CodeDenied:
		l.warn("uplink refused", "remote", x.id.from, "token", hint(token), "err", err)
		return answer{code: codes.Forbidden, detail: err.Error()}
	case citywarden.CodeLimited:
		l.warn("connection refused", "remote", x.id.from, "err", err)
		return tooMany(err)
	}
	if n, ok := l.quiet.allow("token"); ok {
		l.log.Error("access token not checked", "remote", x.id.from, "err", err, "suppressed", n)
	}
	return unavailable
}

// hint shows as much of a token as a person needs to recognise it.
func hint(token string) string {
	if len(token) < 8 {
		return fmt.Sprintf("of %d characters", len(token))
	}
	return token[:4] + "…"
}

// firmware is the first part of ThingsBoard's path to a firmware.
const firmware = "fw"

// claim is where a device says that it may be claimed.
const claim = "claim"

// target takes the token out of the path, "" when there is none, and what follows it:
// telemetry, attributes, raw, claim, rpc, rpc/ID or fw.
func target(o message.Options) (token, what string, ok bool) {
	first, last, err := o.Find(message.URIPath)
	if err != nil {
		return "", "", false
	}
	p := o[first:last]
	if string(p[0].Value) == firmware && len(p) <= 2 {
		if len(p) == 2 {
			token = string(p[1].Value)
		}
		return token, firmware, true
	}
	if len(p) < 3 || string(p[0].Value) != "api" || string(p[1].Value) != "v1" {
		return "", "", false
	}
	if what, ok = feature(p[3:]); ok && len(p[2].Value) > 0 {
		return string(p[2].Value), what, true
	}
	what, ok = feature(p[2:]) // as ThingsBoard has it for a device with a certificate
	return "", what, ok
}

// feature is what a path without the token asks for.
func feature(p message.Options) (string, bool) {
	if len(p) == 0 {
		return "", false
	}
	what := string(p[0].Value)
	switch {
	case len(p) == 2 && what == "rpc":
		return what + "/" + string(p[1].Value), true
	case len(p) == 1:
		return what, what == "telemetry" || what == "attributes" || what == "raw" || what == "rpc" || what == claim
	}
	return "", false
}

const maxSZX = 6 // blocks of 1024 bytes

// block is a Block1 or Block2 option, RFC 7959 §2.2.
type block struct {
	number uint32
	more   bool
	szx    uint32
}

func parseBlock(v uint32) block { return block{number: v >> 4, more: v&8 != 0, szx: v & 7} }

func (b block) size() int   { return 1 << (b.szx + 4) }
func (b block) offset() int { return int(b.number) << (b.szx + 4) }

func (b block) value() []byte {
	v := b.number<<4 | b.szx
	if b.more {
		v |= 8
	}
	return uintValue(v)
}

// transfers puts bodies together that come in blocks. Blocks belong together by
// peer, target and Request-Tag; tokens may differ (RFC 7959 §2.5, RFC 9175 §3.3).
type transfers struct {
	most  int           // bodies at once
	size  int           // bytes of one at most
	idle  time.Duration // until one is forgotten
	byKey map[string]*transfer
}

func newTransfers(most, size int, idle time.Duration) transfers {
	return transfers{most, size, idle, make(map[string]*transfer)}
}

type transfer struct {
	body []byte
	at   time.Time // of the last block
}

func transferKey(x *exchange, o message.Options) string {
	var b strings.Builder
	b.WriteString(x.id.from.String())
	for _, opt := range o {
		switch opt.ID {
		case message.URIPath, message.URIQuery, message.ContentFormat, requestTag:
			fmt.Fprintf(&b, " %d:%d:%s", opt.ID, len(opt.Value), opt.Value)
		}
	}
	return b.String()
}

// add takes one block and returns the whole body with the last.
func (t *transfers) add(key string, b block, payload []byte, now time.Time) ([]byte, answer) {
	switch {
	case b.szx == 7, b.more && len(payload) != b.size(), len(payload) > b.size():
		return nil, answer{code: codes.BadRequest, detail: fmt.Sprintf("block %d has %d bytes, its option says %d", b.number, len(payload), b.size())}
	case b.offset()+len(payload) > t.size:
		delete(t.byKey, key)
		return nil, answer{code: codes.RequestEntityTooLarge, detail: fmt.Sprintf("a body may have %d bytes", t.size), size: uint32(t.size)}
	}
	if b.number == 0 {
		delete(t.byKey, key) // a new attempt
		if !b.more {
			return slices.Clone(payload), answer{}
		}
		if !t.room(now) {
			return nil, unavailable
		}
		t.byKey[key] = &transfer{body: slices.Clone(payload), at: now}
		return nil, answer{code: codes.Continue}
	}
	x := t.byKey[key]
	switch {
	case x == nil || now.Sub(x.at) > t.idle:
		delete(t.byKey, key)
		return nil, answer{code: codes.RequestEntityIncomplete, detail: "the blocks before this one are not here; begin with block 0"}
	case b.more && b.offset()+len(payload) <= len(x.body) && bytes.Equal(x.body[b.offset():b.offset()+len(payload)], payload):
		return nil, answer{code: codes.Continue} // sent again because our answer got lost
	case b.offset() != len(x.body):
		delete(t.byKey, key)
		return nil, answer{code: codes.RequestEntityIncomplete, detail: fmt.Sprintf("block at byte %d, expected %d; begin with block 0", b.offset(), len(x.body))}
	}
	x.body, x.at = append(x.body, payload...), now
	if b.more {
		return nil, answer{code: codes.Continue}
	}
	delete(t.byKey, key)
	return x.body, answer{}
}

// room makes room for one more transfer, at the cost of those that are idle.
func (t *transfers) room(now time.Time) bool {
	if len(t.byKey) < t.most {
		return true
	}
	for key, x := range t.byKey {
		if now.Sub(x.at) > t.idle {
			delete(t.byKey, key)
		}
	}
	return len(t.byKey) < t.most
}
