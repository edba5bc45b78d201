package coap

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/dtls/v3"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp/coder"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker/certtest"
)

// Device makes every device one that has a temperature, a battery and two commands.
func (*platform) Device(id citywarden.DeviceID) (*citywarden.Device, *citywarden.Model, error) {
	return &citywarden.Device{ID: id}, &citywarden.Model{
		Metrics: []citywarden.Metric{
			{Name: "temperature", Kind: citywarden.KindNumber, Unit: "Cel", IPSO: "3303/5700"}, {Name: "battery", Kind: citywarden.KindNumber, Unit: "%", IPSO: "3/9"},
			{Name: "humidity", Kind: citywarden.KindNumber, Unit: "%", IPSO: "3304/5700"}, {Name: "note", Kind: citywarden.KindText},
			{Name: "outside", Kind: citywarden.KindNumber, Unit: "Cel", IPSO: "3303/2/5700"},
		},
		Commands: []citywarden.ModelCommand{
			{Name: "reboot", IPSO: "3/4"}, {Name: "set", IPSO: "3306/5851", Params: []citywarden.Param{{Name: "level", Kind: citywarden.KindNumber}}}, {Name: "beep"},
			{Name: "light", IPSO: "3311/1/5850", Params: []citywarden.Param{{Name: "on", Kind: citywarden.KindBool}}},
		},
	}, nil
}

func path(m message.Message) string {
	p, _ := m.Options.Path()
	return strings.TrimPrefix(p, "/")
}

func query(q string) message.Option { return message.Option{ID: message.URIQuery, Value: []byte(q)} }

// register registers a client and returns its location.
func (p *peer) register(t *testing.T, links string, queries ...string) string {
	t.Helper()
	return register(t, p, links, queries...)
}

// client is a peer over any transport.
type client interface {
	send(message.Message)
	receive() message.Message
	ask(message.Message) message.Message
}

func register(t *testing.T, p client, links string, queries ...string) string {
	t.Helper()
	m := post(1, "rd", links)
	m.Options = append(m.Options, message.Option{ID: message.ContentFormat, Value: []byte{linkFormat}})
	for _, q := range queries {
		m.Options = append(m.Options, query(q))
	}
	a := p.ask(m)
	var location []string
	for _, o := range a.Options {
		if o.ID == message.LocationPath {
			location = append(location, string(o.Value))
		}
	}
	if a.Code != codes.Created || len(location) != 2 || location[0] != "rd" {
		t.Fatalf("registration is answered %s %v: %s", codeLabel(a.Code), a.Options, a.Payload)
	}
	return strings.Join(location, "/")
}

func (p *peer) reply(to message.Message, code codes.Code, payload string, opts ...message.Option) {
	p.send(message.Message{Type: message.Acknowledgement, Code: code, MessageID: to.MessageID, Token: to.Token, Payload: []byte(payload), Options: opts})
}

func taken(ups []citywarden.Uplink) (out []string) {
	for _, up := range ups {
		out = append(out, fmt.Sprintf("%s %s %s", up.Device, up.Topic, up.Payload))
	}
	return out
}

const links = `</>;rt="oma.lwm2m";ct=110,</1/0>,</3/0>,</3303>;ver=1.1`

// TestLwM2M is a client from its registration to its end: it is asked to notify the platform of what
// its model has, sends, gets commands, and leaves.
func TestLwM2M(t *testing.T) {
	p := newPlatform()
	addr, _, _ := serve(t, p)
	d := dial(t, addr)
	at := d.register(t, links, "ep=token-of-a", "lt=300", "lwm2m=1.1", "b=U")
	want := []string{"a v1/devices/me/connect " + links}

	// Both resources that it has are observed, one after the other.
	var tokens []message.Token
	for _, c := range []struct{ path, payload, log string }{
		{"3303/0/5700", "21.5", "a v1/devices/me/lwm2m/0/3303/0/5700 21.5"},
		{"3/0/9", "88", "a v1/devices/me/lwm2m/0/3/0/9 88"},
	} {
		q := d.receive()
		if v, err := q.Options.GetUint32(message.Observe); err != nil || v != 0 || q.Code != codes.GET || path(q) != c.path || q.Type != message.Confirmable {
			t.Fatalf("asked %v %s %v, want to observe %s", q.Code, path(q), q.Options, c.path)
		}
		d.reply(q, codes.Content, c.payload, message.Option{ID: message.Observe, Value: []byte{1}})
		tokens, want = append(tokens, q.Token), append(want, c.log)
		if diff := cmp.Diff(want, taken(p.wait(t, len(want)))); diff != "" {
			t.Fatal(diff)
		}
	}

	// A notification is acknowledged when it is in the log, and stored once.
	p.mu.Lock()
	p.hold = true
	p.mu.Unlock()
	n := message.Message{Type: message.Confirmable, Code: codes.Content, MessageID: 77, Token: tokens[0], Payload: []byte("\xe4\x16\x44\x41\xac\x00\x00"),
		Options: message.Options{{ID: message.Observe, Value: []byte{2}}, {ID: message.ContentFormat, Value: []byte{0x2d, 0x16}}}}
	d.send(n)
	want = append(want, "a v1/devices/me/lwm2m/11542/3303/0/5700 \xe4\x16\x44\x41\xac\x00\x00")
	if diff := cmp.Diff(want, taken(p.wait(t, len(want)))); diff != "" {
		t.Fatal(diff)
	}
	p.mu.Lock()
	p.hold = false
	p.mu.Unlock()
	p.release(nil)
	if a := d.receive(); a.Type != message.Acknowledgement || a.MessageID != 77 || a.Code != codes.Empty {
		t.Errorf("the notification is answered %v", a)
	}
	d.send(n)
	if a := d.receive(); a.MessageID != 77 {
		t.Errorf("its repetition is answered %v", a)
	}
	// One that nobody asked for is rejected.
	n.Token, n.MessageID = message.Token{9, 9, 9}, 78
	d.send(n)
	if a := d.receive(); a.Type != message.Reset || a.MessageID != 78 {
		t.Errorf("a notification of nothing is answered %v", a)
	}

	// Send, and an update from there.
	m := post(2, "dp", `{"pack":1}`)
	m.Options = append(m.Options, message.Option{ID: message.ContentFormat, Value: []byte{byte(message.AppSenmlJSON)}})
	if a := d.ask(m); a.Code != codes.Changed {
		t.Errorf("Send is answered %s %s", codeLabel(a.Code), a.Payload)
	}
	u := post(3, at, "")
	u.Options = append(u.Options, query("lt=600"))
	if a := d.ask(u); a.Code != codes.Changed {
		t.Errorf("the update is answered %s %s", codeLabel(a.Code), a.Payload)
	}
	want = append(want, `a v1/devices/me/telemetry {"pack":1}`, "a v1/devices/me/connect ")

	// Commands.
	give := p.listens(t, citywarden.DownlinkCommand, true)
	tell := func(id int64, body string) chan bool {
		done := make(chan bool, 1)
		if !give(citywarden.Downlink{Device: "a", Kind: citywarden.DownlinkCommand, ID: id, Body: json.RawMessage(body), Done: func(err error) { done <- err == nil }}) {
			return nil
		}
		return done
	}
	if tell(1, `{"method":"beep","params":{}}`) != nil {
		t.Error("a command that is no resource is taken")
	}
	for _, c := range []struct {
		body, want string
		code       codes.Code
	}{
		{`{"method":"reboot","params":{}}`, "POST 3/0/4 ", codes.Changed},
		{`{"method":"set","params":{"level":37.5}}`, "PUT 3306/0/5851 37.5", codes.Changed},
		{`{"method":"set","params":{"level":1}}`, "PUT 3306/0/5851 1", codes.MethodNotAllowed},
	} {
		done := tell(7, c.body)
		q := d.receive()
		if got := fmt.Sprintf("%s %s %s", q.Code, path(q), q.Payload); got != c.want {
			t.Errorf("%s comes as %s, want %s", c.body, got, c.want)
		}
		d.reply(q, c.code, "")
		if !<-done {
			t.Errorf("%s was not delivered", c.body)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		p.mu.Lock()
		got := slices.Clone(p.answers)
		p.mu.Unlock()
		if len(got) == 3 {
			if diff := cmp.Diff([]string{"a 7 {}", "a 7 {}", `a 7 {"error":"4.05"}`}, got); diff != "" {
				t.Error(diff)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("answers: %v", got)
		}
		<-time.After(time.Millisecond)
	}

	gone := post(4, at, "")
	gone.Code = codes.DELETE
	if a := d.ask(gone); a.Code != codes.Deleted {
		t.Errorf("the end is answered %s %s", codeLabel(a.Code), a.Payload)
	}
	want = append(want, "a v1/devices/me/disconnect ")
	if diff := cmp.Diff(want, taken(p.wait(t, len(want)))); diff != "" {
		t.Error(diff)
	}
	p.listens(t, citywarden.DownlinkCommand, false)
	for i, m := range []message.Message{post(5, at, ""), m} {
		m.MessageID = int32(50 + i)
		if a := d.ask(m); a.Code != codes.NotFound {
			t.Errorf("%s after the end is answered %s %s", path(m), codeLabel(a.Code), a.Payload)
		}
	}
}

// pongs is a device over TCP that answers each Ping.
type pongs struct{ *streamPeer }

func (p pongs) receive() message.Message {
	for {
		m := p.streamPeer.receive()
		if m.Code != codes.Ping {
			return m
		}
		p.send(message.Message{Code: codes.Pong, Token: m.Token})
	}
}

func (p pongs) ask(m message.Message) message.Message {
	p.send(m)
	return p.receive()
}

// TestLwM2MOverEachTransport: a client registers, is asked to notify the platform of two instances of
// an object, does, sends, is told to do something, and leaves: over UDP, DTLS, TCP and TLS.
func TestLwM2MOverEachTransport(t *testing.T) {
	ca := certtest.New(t)
	for name, as := range map[string]func(t *testing.T, p *platform) client{
		"udp": func(t *testing.T, p *platform) client {
			addr, _, _ := serve(t, p)
			return dial(t, addr)
		},
		"dtls": func(t *testing.T, p *platform) client {
			at, _, _ := serveSecure(t, p, ca)
			return mustDial(t, listenUDP(t), at.dtls, secret("identity-of-a", keyOfA)...)
		},
		"tcp": func(t *testing.T, p *platform) client {
			at, _, _ := serveSecure(t, p, ca)
			return pongs{dialStream(t, at.tcp)}
		},
		"tls": func(t *testing.T, p *platform) client {
			at, _, _ := serveSecure(t, p, ca)
			c, err := tls.Dial("tcp", at.tls, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{ca.Valid("token-of-a")}, NextProtos: []string{"coap"}})
			if err != nil {
				t.Fatal(err)
			}
			return pongs{newStreamPeer(t, c)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform()
			d := as(t, p)
			const objects = "</3303/0>,</3303/2>,</3311/1>"
			at := register(t, d, objects, "ep=token-of-a", "lt=300", "lwm2m=1.1")
			want := []string{"a v1/devices/me/connect " + objects}
			answer := func(to message.Message, code codes.Code, payload string, opts ...message.Option) {
				d.send(message.Message{Type: message.Acknowledgement, Code: code, MessageID: to.MessageID, Token: to.Token, Payload: []byte(payload), Options: opts})
			}
			var token message.Token
			for _, c := range []struct{ path, payload string }{{"3303/0/5700", "21.5"}, {"3303/2/5700", "-3"}} {
				q := d.receive()
				if q.Code != codes.GET || !q.Options.HasOption(message.Observe) || path(q) != c.path {
					t.Fatalf("asked %s %s, want to observe %s", q.Code, path(q), c.path)
				}
				answer(q, codes.Content, c.payload, message.Option{ID: message.Observe, Value: []byte{1}})
				token, want = q.Token, append(want, "a v1/devices/me/lwm2m/0/"+c.path+" "+c.payload)
				p.wait(t, len(want))
			}
			for i, payload := range []string{"-4", "-5"} {
				d.send(message.Message{Type: message.Confirmable, Code: codes.Content, MessageID: int32(90 + i), Token: token, Payload: []byte(payload), Options: message.Options{{ID: message.Observe, Value: []byte{byte(2 + i)}}}})
				if name == "udp" || name == "dtls" {
					if a := d.receive(); a.Type != message.Acknowledgement || a.MessageID != int32(90+i) {
						t.Errorf("the notification is answered %v", a)
					}
				}
				want = append(want, "a v1/devices/me/lwm2m/0/3303/2/5700 "+payload)
				p.wait(t, len(want))
			}
			if a := d.ask(post(2, "dp", `{"pack":1}`, message.Option{ID: message.ContentFormat, Value: []byte{byte(message.AppSenmlJSON)}})); a.Code != codes.Changed {
				t.Errorf("Send is answered %s %s", codeLabel(a.Code), a.Payload)
			}
			done := make(chan bool, 1)
			p.listens(t, citywarden.DownlinkCommand, true)(citywarden.Downlink{Device: "a", Kind: citywarden.DownlinkCommand, ID: 7, Body: json.RawMessage(`{"method":"light","params":{"on":true}}`), Done: func(err error) { done <- err == nil }})
			q := d.receive()
			if got := fmt.Sprintf("%s %s %s", q.Code, path(q), q.Payload); got != "PUT 3311/1/5850 1" {
				t.Errorf("the command comes as %s", got)
			}
			answer(q, codes.Changed, "")
			if !<-done {
				t.Error("the command was not delivered")
			}
			gone := post(4, at, "")
			gone.Code = codes.DELETE
			if a := d.ask(gone); a.Code != codes.Deleted {
				t.Errorf("the end is answered %s %s", codeLabel(a.Code), a.Payload)
			}
			want = append(want, `a v1/devices/me/telemetry {"pack":1}`, "a v1/devices/me/disconnect ")
			if diff := cmp.Diff(want, taken(p.wait(t, len(want)))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestLwM2MNotStoredOverTCP: a notification over TCP is not sent again, so one that was not stored ends
// the connection, and the client is asked anew when it comes back; one that takes nothing is ended too.
func TestLwM2MNotStoredOverTCP(t *testing.T) {
	p := newPlatform()
	at, _, _ := serveSecure(t, p, certtest.New(t))
	d := pongs{dialStream(t, at.tcp)}
	register(t, d, "</3303/0>", "ep=token-of-a", "lwm2m=1.1")
	q := d.receive()
	p.mu.Lock()
	p.err = errors.New("the disk is full")
	p.mu.Unlock()
	d.send(message.Message{Code: codes.Content, Token: q.Token, Payload: []byte("20"), Options: message.Options{{ID: message.Observe, Value: []byte{1}}}})
	d.ends()
	p.mu.Lock()
	p.err = nil
	p.mu.Unlock()
	d = pongs{dialStream(t, at.tcp)}
	register(t, d, "</3303/0>", "ep=token-of-a", "lwm2m=1.1")
	if q = d.receive(); path(q) != "3303/0/5700" {
		t.Errorf("asked for %s", path(q))
	}
}

// TestLwM2MMoves: a client that updates its registration from another address is asked and told
// there, and what comes from where it was is nobody's any more.
func TestLwM2MMoves(t *testing.T) {
	p := newPlatform()
	addr, _, _ := serve(t, p)
	before, after := dial(t, addr), dial(t, addr)
	at := before.register(t, "</3303/0>", "ep=token-of-a", "lwm2m=1.1")
	q := before.receive()
	before.reply(q, codes.Content, "20")
	p.wait(t, 2)
	if a := after.ask(post(2, at, "")); a.Code != codes.Changed {
		t.Fatalf("the update is answered %s %s", codeLabel(a.Code), a.Payload)
	}
	q = after.receive()
	if path(q) != "3303/0/5700" {
		t.Errorf("asked for %s", path(q))
	}
	after.reply(q, codes.Content, "21")
	want := []string{"a v1/devices/me/connect </3303/0>", "a v1/devices/me/lwm2m/0/3303/0/5700 20", "a v1/devices/me/connect ", "a v1/devices/me/lwm2m/0/3303/0/5700 21"}
	if diff := cmp.Diff(want, taken(p.wait(t, 4))); diff != "" {
		t.Error(diff)
	}
	m := post(3, "dp", "[]")
	m.Options = append(m.Options, message.Option{ID: message.ContentFormat, Value: []byte{byte(message.AppSenmlJSON)}})
	if a := before.ask(m); a.Code != codes.NotFound {
		t.Errorf("Send from the address before is answered %s", codeLabel(a.Code))
	}
}

func TestLwM2MRefused(t *testing.T) {
	p := newPlatform()
	addr, _, _ := serve(t, p)
	d := dial(t, addr)
	format := func(n byte) message.Option { return message.Option{ID: message.ContentFormat, Value: []byte{n}} }
	for i, c := range []struct {
		method codes.Code
		path   string
		opts   []message.Option
		body   string
		code   codes.Code
	}{
		{codes.POST, "rd", []message.Option{query("ep=nobody"), query("lwm2m=1.1")}, links, codes.Unauthorized},
		{codes.POST, "rd", []message.Option{query("lwm2m=1.1")}, links, codes.Unauthorized},
		{codes.POST, "rd", []message.Option{query("ep=token-of-disabled"), query("lwm2m=1.1")}, links, codes.Forbidden},
		{codes.POST, "rd", []message.Option{query("ep=token-of-a"), query("lwm2m=2.0")}, links, codes.PreconditionFailed},
		{codes.POST, "rd", []message.Option{query("ep=token-of-a")}, links, codes.PreconditionFailed},
		{codes.POST, "rd", []message.Option{query("ep=token-of-a"), query("lwm2m=1.0"), query("lt=-1")}, links, codes.BadRequest},
		{codes.POST, "rd", []message.Option{query("ep=token-of-a"), query("lwm2m=1.0")}, "3303/0", codes.BadRequest},
		{codes.POST, "rd", []message.Option{format(50), query("ep=token-of-a"), query("lwm2m=1.0")}, "{}", codes.UnsupportedMediaType},
		{codes.POST, "rd/abc", nil, "", codes.NotFound},
		{codes.DELETE, "rd/abc", nil, "", codes.NotFound},
		{codes.GET, "rd", nil, "", codes.MethodNotAllowed},
		{codes.DELETE, "rd", nil, "", codes.MethodNotAllowed},
		{codes.GET, "dp", nil, "", codes.MethodNotAllowed},
		{codes.POST, "dp", []message.Option{format(110)}, "[]", codes.NotFound},
		{codes.POST, "dp", []message.Option{format(50)}, "{}", codes.UnsupportedMediaType},
	} {
		m := post(int32(i+1), c.path, c.body)
		m.Code, m.Options = c.method, append(m.Options, c.opts...)
		if a := d.ask(m); a.Code != c.code {
			t.Errorf("%s %s %v is answered %s %s, want %s", c.method, c.path, c.opts, codeLabel(a.Code), a.Payload, codeLabel(c.code))
		}
	}
	if got := p.wait(t, 0); len(got) != 0 {
		t.Errorf("into the log went %v", taken(got))
	}
}

// TestLwM2MSleeps: a client in queue mode gets what it is told when it says something, and its
// registration ends with its lifetime.
func TestLwM2MSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, wire := newPlatform(), newWire()
		s, err := New(Options{Conn: wire, Accept: p, Check: p, Auth: p, Down: p, Models: p})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		m := post(1, "rd", "</1/0>")
		m.Options = append(m.Options, query("ep=token-of-a"), query("lt=3600"), query("lwm2m=1.1"), query("Q"))
		wire.say(t, m)
		synctest.Wait()
		at := ""
		for _, o := range wire.heard(t).Options {
			if o.ID == message.LocationPath {
				at = string(o.Value)
			}
		}
		if p.listens(t, citywarden.DownlinkCommand, true); at == "" {
			t.Fatal("no location")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		p.listens(t, citywarden.DownlinkCommand, false)
		wire.say(t, post(2, "rd/"+at, ""))
		synctest.Wait()
		p.listens(t, citywarden.DownlinkCommand, true)
		time.Sleep(50 * time.Minute)
		if got := taken(p.wait(t, 2)); len(got) != 2 {
			t.Errorf("the log has %v", got)
		}
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if diff := cmp.Diff([]string{"a v1/devices/me/connect </1/0>", "a v1/devices/me/connect ", "a v1/devices/me/disconnect "}, taken(p.wait(t, 3))); diff != "" {
			t.Error(diff)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestLwM2MIsAnothers: a registration that began over DTLS goes on in sessions of its device, and
// nowhere else.
func TestLwM2MIsAnothers(t *testing.T) {
	p, ca := newPlatform(), certtest.New(t)
	plain, conn, cert := listenUDP(t), listenUDP(t), ca.Valid("server")
	serveOptions(t, p, Options{Conn: plain, DTLS: &DTLS{Conn: conn, Certificate: func() *tls.Certificate { return &cert }}, Certified: certifiedBy(ca)})
	as := func(o ...dtls.ClientOption) *peer { return mustDial(t, listenUDP(t), conn.LocalAddr().String(), o...) }
	root := []dtls.ClientOption{dtls.WithRootCAs(ca.Pool()), dtls.WithServerName("localhost")}
	at := as(secret("identity-of-a", keyOfA)...).register(t, "</1/0>", "lwm2m=1.1")
	id := int32(1)
	for _, c := range []struct {
		name string
		from *peer
		want codes.Code
	}{
		{"another device", as(append(root, dtls.WithCertificates(ca.Valid("token-of-b")))...), codes.Forbidden},
		{"nobody", as(root...), codes.NotFound},
		{"without DTLS", dial(t, plain.LocalAddr().String()), codes.Forbidden},
		{"the device", as(append(root, dtls.WithCertificates(ca.Valid("token-of-a")))...), codes.Changed},
	} {
		for _, method := range []codes.Code{codes.DELETE, codes.POST} {
			m := post(id, at, "")
			m.Code = method
			if id++; method == codes.DELETE && c.want == codes.Changed {
				continue
			}
			if a := c.from.ask(m); a.Code != c.want {
				t.Errorf("%s of %s is answered %s %s, want %s", method, c.name, codeLabel(a.Code), a.Payload, codeLabel(c.want))
			}
		}
	}
}

// online serves a client of device a that registers on a wire, and returns its location.
func online(t *testing.T, p *platform, links string, queries ...string) (w *wire, at string, stop func()) {
	t.Helper()
	w = newWire()
	s, err := New(Options{Conn: w, Accept: p, Check: p, Auth: p, Down: p, Models: p, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	m := post(1, "rd", links)
	for _, q := range append([]string{"ep=token-of-a", "lwm2m=1.1"}, queries...) {
		m.Options = append(m.Options, query(q))
	}
	w.say(t, m)
	for _, o := range w.heard(t).Options {
		if o.ID == message.LocationPath {
			at = "rd/" + string(o.Value)
		}
	}
	return w, at, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestValveMovesOnce: a command that a client acknowledged is not given to it again when its answer
// does not come, or when it registers anew before.
func TestValveMovesOnce(t *testing.T) {
	for _, again := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newPlatform()
			w, _, stop := online(t, p, "</1/0>")
			defer stop()
			done := make(chan bool, 1)
			p.listens(t, citywarden.DownlinkCommand, true)(citywarden.Downlink{Device: "a", Kind: citywarden.DownlinkCommand, ID: 7, Body: json.RawMessage(`{"method":"reboot","params":{}}`), Done: func(err error) { done <- err == nil }})
			q := w.heard(t)
			w.say(t, message.Message{Type: message.Acknowledgement, MessageID: q.MessageID})
			synctest.Wait()
			if again {
				m := post(2, "rd", "</1/0>")
				m.Options = append(m.Options, query("ep=token-of-a"), query("lwm2m=1.1"))
				w.say(t, m)
				w.heard(t)
			} else {
				time.Sleep(lwm2mAnswers + time.Second)
			}
			if synctest.Wait(); !<-done {
				t.Error("it is to get the command again")
			}
			if len(w.out) > 0 || len(p.answers) > 0 {
				t.Errorf("told %d times more, answers %v", len(w.out), p.answers)
			}
		})
	}
}

// TestObservedAnew: a client that updates its registration and has notified nothing for long is asked
// again, by the same token, and keeps being observed when it does not answer.
func TestObservedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlatform()
		w, at, stop := online(t, p, "</3303/0>")
		defer stop()
		first := w.heard(t)
		content := func(to message.Message) message.Message {
			return message.Message{Type: message.Acknowledgement, Code: codes.Content, MessageID: to.MessageID, Token: to.Token, Payload: []byte("20")}
		}
		w.say(t, content(first))
		w.say(t, content(first)) // sent twice on the way
		if synctest.Wait(); len(p.wait(t, 2)) != 2 {
			t.Errorf("the log has %v", taken(p.wait(t, 2)))
		}
		update := func(id int32) {
			w.say(t, post(id, at, ""))
			if a := w.heard(t); a.Code != codes.Changed {
				t.Fatalf("the update is answered %s", codeLabel(a.Code))
			}
			synctest.Wait()
		}
		time.Sleep(lwm2mQuiet - time.Second)
		if update(2); len(w.out) != 0 {
			t.Error("observed anew too soon")
		}
		time.Sleep(2 * time.Second)
		update(3)
		for range maxRepeats + 1 {
			if q := w.heard(t); q.Code != codes.GET || string(q.Token) != string(first.Token) || path(q) != "3303/0/5700" {
				t.Fatalf("asked %s %s by %x, want the token %x", q.Code, path(q), q.Token, first.Token)
			}
		}
		time.Sleep(2 * time.Minute)
		w.say(t, message.Message{Type: message.Confirmable, Code: codes.Content, MessageID: 77, Token: first.Token, Payload: []byte("21"), Options: message.Options{{ID: message.Observe, Value: []byte{2}}}})
		if a := w.heard(t); a.Type != message.Acknowledgement {
			t.Errorf("a notification after that is answered %v", a)
		}
	})
}

// TestLwM2MSharesAnAddress: what is sent without DTLS is nobody's when the device at that address may
// be another by now.
func TestLwM2MSharesAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlatform()
		w, at, stop := online(t, p, "</1/0>")
		defer stop()
		id := int32(100)
		is := func(want codes.Code, m message.Message) message.Message {
			t.Helper()
			id++
			m.MessageID = id
			w.say(t, m)
			a := w.heard(t)
			if a.Code != want {
				t.Errorf("%s is answered %s %s, want %s", path(m), codeLabel(a.Code), a.Payload, codeLabel(want))
			}
			return a
		}
		send := post(0, "dp", "{}", option(message.ContentFormat, 110))
		is(codes.Changed, send)
		time.Sleep(lwm2mQuiet + time.Second)
		is(codes.NotFound, send)
		is(codes.Changed, post(0, at, ""))
		is(codes.Changed, send)
		is(codes.Created, post(0, "rd", "</1/0>", query("ep=token-of-b"), query("lwm2m=1.1")))
		is(codes.NotFound, send)
		time.Sleep(lwm2mAwake - time.Second)
		is(codes.NotFound, send)
		time.Sleep(2 * time.Second)
		is(codes.Changed, send)
		time.Sleep(lwm2mQuiet + time.Second)
		is(codes.NotFound, send) // b was not heard for long
		is(codes.Created, post(0, "rd", "</1/0>", query("ep=token-of-b"), query("lwm2m=1.1")))
		is(codes.Changed, send)
		if got := p.wait(t, 0); got[len(got)-1].Device != "b" {
			t.Errorf("the last is %s's", got[len(got)-1].Device)
		}
	})
}

// TestExpires: of a registration whose lifetime is over nothing is written when its device is not
// known any more, or goes on notifying.
func TestExpires(t *testing.T) {
	for name, want := range map[string]int{"gone": 3, "revoked": 2, "notifies": 3} {
		synctest.Test(t, func(t *testing.T) {
			p := newPlatform()
			w, _, stop := online(t, p, "</3303/0>", "lt=3600")
			defer stop()
			q := w.heard(t)
			w.say(t, message.Message{Type: message.Acknowledgement, Code: codes.Content, MessageID: q.MessageID, Token: q.Token, Payload: []byte("20")})
			p.wait(t, 2)
			time.Sleep(30 * time.Minute)
			switch name {
			case "revoked":
				p.mu.Lock()
				p.revoked = true
				p.mu.Unlock()
			case "notifies":
				w.say(t, message.Message{Type: message.NonConfirmable, Code: codes.Content, MessageID: 77, Token: q.Token, Payload: []byte("21")})
			}
			time.Sleep(31 * time.Minute)
			synctest.Wait()
			got := p.wait(t, 0)
			if last := got[len(got)-1].Topic; len(got) != want || name != "gone" && last == citywarden.DeviceDisconnected {
				t.Errorf("%s: the log has %v", name, taken(got))
			}
		})
	}
}

// TestSlowBesideNotification: a request that comes while a notification is being stored is
// acknowledged when it takes long.
func TestSlowBesideNotification(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlatform()
		w, _, stop := online(t, p, "</3303/0>")
		defer stop()
		q := w.heard(t)
		w.say(t, message.Message{Type: message.Acknowledgement, Code: codes.Content, MessageID: q.MessageID, Token: q.Token, Payload: []byte("20")})
		p.wait(t, 2)
		time.Sleep(time.Second) // nothing is under way
		p.mu.Lock()
		p.hold = true
		p.mu.Unlock()
		w.say(t, message.Message{Type: message.NonConfirmable, Code: codes.Content, MessageID: 77, Token: q.Token, Payload: []byte("21")})
		p.wait(t, 3)
		w.say(t, post(2, goodPath, "{}"))
		time.Sleep(2 * time.Second)
		if synctest.Wait(); len(w.out) != 1 {
			t.Fatalf("%d messages after 2 s, want an acknowledgement", len(w.out))
		}
		if a := w.heard(t); a.Type != message.Acknowledgement || a.Code != codes.Empty || a.MessageID != 2 {
			t.Errorf("told %v", a)
		}
		p.release(nil)
		synctest.Wait()
		w.heard(t)
	})
}

// wire is a UDP socket in memory with one peer.
type wire struct {
	in, out chan []byte
	end     chan struct{}
}

func newWire() *wire {
	return &wire{in: make(chan []byte, 16), out: make(chan []byte, 16), end: make(chan struct{}, 1)}
}

func (w *wire) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case p := <-w.in:
		return copy(b, p), netip.MustParseAddrPort("192.0.2.1:5683"), nil
	case <-w.end:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (w *wire) WriteToUDPAddrPort(b []byte, _ netip.AddrPort) (int, error) {
	w.out <- slices.Clone(b)
	return len(b), nil
}

func (w *wire) SetReadDeadline(time.Time) error { w.end <- struct{}{}; return nil }
func (w *wire) Close() error                    { return nil }

func (w *wire) say(t *testing.T, m message.Message) {
	t.Helper()
	b, err := encode(m)
	if err != nil {
		t.Fatal(err)
	}
	w.in <- b
}

func (w *wire) heard(t *testing.T) message.Message {
	t.Helper()
	m := message.Message{Options: make(message.Options, 0, 16)}
	if _, err := coder.DefaultCoder.Decode(<-w.out, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestParseLinks(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []link
		err  string
	}{
		{links, []link{{1, 0}, {3, 0}, {3303, -1}}, ""},
		{`</lwm2m>;rt="oma.lwm2m",</lwm2m/1/101>,</lwm2m/3/0>, </other/4>`, []link{{1, 101}, {3, 0}}, ""},
		{`</3/0>;title="a,b\"</9/0>",</4/0>`, []link{{3, 0}, {4, 0}}, ""},
		{"", nil, ""},
		{"</x>,</99999/0>,</3/0>,</3/0>", []link{{3, 0}}, ""},
		{"</3/0>,x", nil, "byte 7: no link"},
		{"</3/0", nil, "byte 0: the link has no end"},
		{strings.Repeat("</3/0>,", 257), nil, "more than 256 links"},
	} {
		got, err := parseLinks([]byte(c.in))
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", clip(c.in), err, c.err)
		}
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(link{})); diff != "" {
			t.Errorf("%s:\n%s", clip(c.in), diff)
		}
	}
}

func FuzzLinks(f *testing.F) {
	f.Add([]byte(links))
	f.Add([]byte(`</lwm2m>;rt="oma.lwm2m",</lwm2m/3/0>;title="a,b\"",</9>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := parseLinks(b); err != nil && got != nil || len(got) > maxLinks {
			t.Errorf("%d links, %v", len(got), err)
		}
	})
}

// FuzzDatagram: whatever comes as a datagram, the server goes on answering.
func FuzzDatagram(f *testing.F) {
	for _, m := range []message.Message{
		post(1, goodPath, "{}"), post(2, "rd", links, query("ep=token-of-a"), query("lwm2m=1.1"), query("Q")), post(3, "dp", "[]", option(message.ContentFormat, 110)),
		get(4, "api/v1/token-of-a/attributes", 0), get(5, "fw/token-of-a", 1), post(6, "api/v1/provision", "{}", option(message.Block1, 8)),
		{Type: message.Acknowledgement, Code: codes.Content, MessageID: 7, Token: message.Token{1}, Payload: []byte("1")},
	} {
		b, err := encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	p, wire := newPlatform(), newWire()
	s, err := New(Options{Conn: wire, Provision: p.provision, Accept: p, Check: p, Auth: p, Down: p, Models: p, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		for {
			select {
			case <-wire.out:
			case <-done:
				return
			}
		}
	})
	ping, err := encode(message.Message{Type: message.Confirmable, MessageID: 0xffff})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p.mu.Lock()
		p.taken = nil
		p.mu.Unlock()
		for _, b := range [][]byte{b, ping} {
			for sent := false; !sent; {
				select {
				case wire.in <- b:
					sent = true
				case <-wire.out:
				}
			}
		}
		for { // the Reset that answers a ping
			if a := <-wire.out; len(a) == 4 && a[0]>>4&3 == byte(message.Reset) && a[2] == 0xff && a[3] == 0xff {
				return
			}
		}
	})
}
