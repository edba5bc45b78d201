package coap

import (
	"context"
	"log/slog"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker/certtest"
)

func get(id int32, path string, observe uint32) message.Message {
	m := post(id, path, "", option(message.Observe, observe))
	m.Code, m.Payload = codes.GET, nil
	return m
}

// TestObserve: a device is told of changes, and gets commands, until it says no.
func TestObserve(t *testing.T) {
	for _, c := range []struct {
		what, first, body, told string
		kind                    citywarden.DownlinkKind
		code                    codes.Code
	}{
		{"attributes", `{"report":30}`, `{"report":60}`, `{"report":60}`, citywarden.DownlinkAttributes, codes.Content},
		{"rpc", ``, `{"method":"open","params":{}}`, `{"id":7,"method":"open","params":{}}`, citywarden.DownlinkCommand, codes.Valid},
	} {
		p := newPlatform()
		addr, _, _ := serve(t, p)
		d := dial(t, addr)
		request := get(1, "api/v1/token-of-a/"+c.what, 0)
		r := d.ask(request)
		if _, err := r.Options.GetUint32(message.Observe); err != nil || r.Code != c.code || string(r.Payload) != c.first {
			t.Fatalf("%s: answered %s %s with %v", c.what, codeLabel(r.Code), r.Payload, r.Options)
		}
		ends := make(chan bool, 1)
		send := func(device citywarden.DeviceID) bool {
			return p.listens(t, c.kind, true)(citywarden.Downlink{Device: device, Kind: c.kind, ID: 7, Body: []byte(c.body), Done: func(err error) { ends <- err == nil }})
		}
		if send("b") {
			t.Errorf("%s: takes what is for another device", c.what)
		}
		send("a")
		n := d.receive()
		if n.Type != message.Confirmable || string(n.Token) != string(request.Token) || string(n.Payload) != c.told {
			t.Errorf("%s: notified with %v %x %s", c.what, n.Type, n.Token, n.Payload)
		}
		again := d.receive() // not acknowledged, so it comes again
		if again.MessageID != n.MessageID || string(again.Payload) != c.told {
			t.Errorf("%s: then with %d %s, want %d again", c.what, again.MessageID, again.Payload, n.MessageID)
		}
		d.send(message.Message{Type: message.Acknowledgement, MessageID: n.MessageID})
		if !<-ends {
			t.Errorf("%s: acknowledged, but not delivered", c.what)
		}
		send("a")
		later := d.receive()
		before, _ := n.Options.GetUint32(message.Observe)
		if now, err := later.Options.GetUint32(message.Observe); err != nil || now <= before {
			t.Errorf("%s: notification %d follows %d", c.what, now, before)
		}
		d.send(message.Message{Type: message.Reset, MessageID: later.MessageID})
		if <-ends {
			t.Errorf("%s: rejected, but delivered", c.what)
		}
		p.listens(t, c.kind, false)

		d.ask(get(2, "api/v1/token-of-a/"+c.what, 0))
		p.listens(t, c.kind, true)
		if r := d.ask(func() message.Message {
			m := get(3, "api/v1/token-of-a/"+c.what, 1)
			m.Token = message.Token{1, 2}
			return m
		}()); r.Code != map[string]codes.Code{"attributes": codes.Content, "rpc": codes.Deleted}[c.what] {
			t.Errorf("%s: the end of it is answered %s", c.what, codeLabel(r.Code))
		}
		p.listens(t, c.kind, false)
	}
}

// TestLongNotification: the device gets what does not fit into one datagram in blocks
// of the size that it asked for.
func TestLongNotification(t *testing.T) {
	for what, kind := range map[string]citywarden.DownlinkKind{"attributes": citywarden.DownlinkAttributes, "rpc": citywarden.DownlinkCommand} {
		p := newPlatform()
		addr, _, _ := serve(t, p)
		d := dial(t, addr)
		request := get(1, "api/v1/token-of-a/"+what, 0)
		request.Options = request.Options.Add(message.Option{ID: message.Block2, Value: block{szx: 4}.value()})
		d.ask(request)
		m := citywarden.Downlink{Device: "a", Kind: kind, ID: 7, Body: []byte(`{"note":"` + strings.Repeat("x", 600) + `"}`)}
		p.listens(t, kind, true)(m)
		n := d.receive()
		d.send(message.Message{Type: message.Acknowledgement, MessageID: n.MessageID})
		if v, err := n.Options.GetUint32(message.Block2); err != nil || parseBlock(v) != (block{more: true, szx: 4}) {
			t.Errorf("%s: the notification has block %v %v", what, v, err)
		}
		got, want := string(n.Payload), string(m.Body)
		if kind == citywarden.DownlinkCommand {
			want = string(m.WithID())
		}
		for i := range uint32(2) {
			next := get(int32(i)+2, "api/v1/token-of-a/"+what, 0)
			next.Token = message.Token{9, byte(i)}
			next.Options = next.Options.Remove(message.Observe).Add(message.Option{ID: message.Block2, Value: block{number: i + 1, szx: 4}.value()})
			got += string(d.ask(next).Payload)
		}
		if got != want {
			t.Errorf("%s: got %s", what, got)
		}
		short := m
		short.Body = []byte(`{"every":1}`)
		p.listens(t, kind, true)(short)
		n = d.receive()
		d.send(message.Message{Type: message.Acknowledgement, MessageID: n.MessageID})
		next := get(9, "api/v1/token-of-a/"+what, 0)
		next.Options = next.Options.Remove(message.Observe).Add(message.Option{ID: message.Block2, Value: block{number: 9, szx: 4}.value()})
		if r := d.ask(next); r.Code != codes.BadOption {
			t.Errorf("%s: a block of what is over: %s %s", what, codeLabel(r.Code), r.Payload)
		}
	}
}

// TestCommandAnswered over CoAP.
func TestCommandAnswered(t *testing.T) {
	p := newPlatform()
	addr, _, _ := serve(t, p)
	d := dial(t, addr)
	for i, c := range []struct {
		path string
		code codes.Code
	}{{"rpc/7", codes.Changed}, {"rpc/9", codes.NotFound}, {"rpc/x", codes.BadRequest}, {"rpc", codes.BadRequest}, {"rpc/7/8", codes.NotFound}} {
		if r := d.ask(post(int32(i), "api/v1/token-of-a/"+c.path, `{"ok":true}`)); r.Code != c.code {
			t.Errorf("%s: %s %s, want %s", c.path, codeLabel(r.Code), r.Payload, codeLabel(c.code))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := cmp.Diff([]string{`a 7 {"ok":true}`}, p.answers); d != "" {
		t.Error(d)
	}
}

// TestClaim: a device says that it may be claimed, with its token or in a session of its own.
func TestClaim(t *testing.T) {
	p := newPlatform()
	at, _, _ := serveSecure(t, p, certtest.New(t))
	addr, _, _ := serve(t, p)
	plain, secured := dial(t, addr), mustDial(t, listenUDP(t), at.dtls, secret("identity-of-a", keyOfA)...)
	for i, c := range []struct {
		from       *peer
		path, body string
		code       codes.Code
	}{
		{plain, "api/v1/token-of-a/claim", `{"secretKey":"1"}`, codes.Changed}, {plain, "api/v1/token-of-a/claim", "", codes.Changed}, {secured, "api/v1/claim", `{"secretKey":"2"}`, codes.Changed},
		{plain, "api/v1/claim", "{}", codes.Unauthorized}, {plain, "api/v1/12345678/claim", "{}", codes.Unauthorized},
		{plain, "api/v1/token-of-a/claim", "too often", codes.ServiceUnavailable}, {plain, "api/v1/token-of-a/claim", "[]", codes.BadRequest}, {plain, "api/v1/token-of-a/claim/x", "{}", codes.NotFound},
	} {
		if r := c.from.ask(post(int32(i), c.path, c.body)); r.Code != c.code {
			t.Errorf("%s %s: %s %s, want %s", c.path, c.body, codeLabel(r.Code), r.Payload, codeLabel(c.code))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := cmp.Diff([]string{`a may be claimed {"secretKey":"1"}`, "a may be claimed ", `a may be claimed {"secretKey":"2"}`}, p.answers); d != "" || len(p.taken) > 0 {
		t.Errorf("%d in the log\n%s", len(p.taken), d)
	}
}

// TestCall: a device asks the platform for the time.
func TestCall(t *testing.T) {
	addr, _, _ := serve(t, newPlatform())
	r := dial(t, addr).ask(post(1, "api/v1/token-of-a/rpc", `{"method":"getCurrentTime","params":{}}`))
	ms, err := strconv.ParseInt(string(r.Payload), 10, 64)
	if at := time.UnixMilli(ms); r.Code != codes.Content || err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("%s %s", codeLabel(r.Code), r.Payload)
	}
}

// TestLibcoapObserves: libcoap's client is told.
func TestLibcoapObserves(t *testing.T) {
	client := libcoapClient(t)
	p := newPlatform()
	addr, _, _ := serve(t, p)
	out := make(chan string, 1)
	go func() {
		b, _ := exec.Command(client, "-m", "get", "-s", "3", "-B", "10", "-v", "4", "coap://"+addr+"/api/v1/token-of-a/attributes").CombinedOutput()
		out <- string(b)
	}()
	ends, long := make(chan bool, 1), strings.Repeat("x", 3000)
	p.listens(t, citywarden.DownlinkAttributes, true)(citywarden.Downlink{Device: "a", Body: []byte(`{"report":60,"note":"` + long + `"}`), Done: func(err error) { ends <- err == nil }})
	if got := <-out; !strings.Contains(got, `{"report":30}`) || !strings.Contains(got, `{"report":60,"note":"`) || strings.Count(got, "x") < len(long) {
		t.Errorf("coap-client says %q", got)
	}
	select {
	case ok := <-ends:
		if !ok {
			t.Error("not delivered")
		}
	case <-time.After(10 * time.Second):
		t.Error("it was not said whether it was delivered")
	}
	p.listens(t, citywarden.DownlinkAttributes, false) // libcoap ends it
}

// A device that departed while its request was looked at is not observing.
func TestObserveAfterDepart(t *testing.T) {
	l := &loop{Server: &Server{}, sessions: map[*session]bool{}, observers: map[observerID]*observer{}}
	s := &session{tokens: map[string]bool{}}
	if o := l.observe(t.Context(), &exchange{id: exchangeID{from: endpoint{session: s}}, ask: &ask{}}); o != nil || len(l.observers) > 0 || len(s.tokens) > 0 {
		t.Errorf("observes %v", s.tokens)
	}
}

// TestNotificationIsRepeated: one that is not acknowledged comes again after times that double (RFC 7252 §4.2), and
// datagrams that are no CoAP in between end nothing.
func TestNotificationIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, w := newPlatform(), newWire()
		s, err := New(Options{Conn: w, Accept: p, Check: p, Auth: p, Down: p, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		w.say(t, get(1, "api/v1/token-of-a/attributes", 0))
		w.heard(t)
		ends := make(chan bool, 1)
		tell := func() time.Time {
			p.listens(t, citywarden.DownlinkAttributes, true)(citywarden.Downlink{Device: "a", Kind: citywarden.DownlinkAttributes, Body: []byte(`{"report":60}`), Done: func(err error) { ends <- err == nil }})
			return time.Now()
		}
		first := tell()
		var at []time.Duration
		var id int32
		for range maxRepeats + 1 {
			n := w.heard(t)
			if id == 0 {
				id = n.MessageID
			}
			if string(n.Payload) != `{"report":60}` || n.MessageID != id {
				t.Fatalf("notified with %d %s", n.MessageID, n.Payload)
			}
			at = append(at, time.Since(first))
			w.in <- []byte{0x4f, 2, 0, 1} // confirmable, with a token that is too long
			if r := w.heard(t); r.Type != message.Reset {
				t.Errorf("what is malformed is answered %v", r)
			}
			w.in <- []byte("GET / HTTP/1.1\r\n\r\n")
			w.heard(t)
		}
		var want []time.Duration
		for i, sum := 0, time.Duration(0); i <= maxRepeats; i++ {
			want = append(want, sum)
			sum += ackTimeout << i
		}
		if d := cmp.Diff(want, at); d != "" {
			t.Errorf("repeated at\n%s", d)
		}
		w.say(t, message.Message{Type: message.Acknowledgement, MessageID: id}) // in the last moment
		if !<-ends {
			t.Error("not delivered")
		}
		tell()
		n := w.heard(t)
		w.say(t, message.Message{Type: message.Acknowledgement, MessageID: n.MessageID})
		if !<-ends {
			t.Error("the observation ended")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
