package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker/certtest"
)

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		filter, topic, name string
		ok                  bool
	}{
		{"factory/{device}/telemetry", "factory/p-1/telemetry", "p-1", true},
		{"factory/{device}/telemetry", "factory/p-1/telemetry/x", "", false},
		{"factory/{device}/telemetry", "factory/p-1", "", false},
		{"{device}", "p-1", "p-1", true},
		{"a/+/device/{device}/event/up", "a/7/device/24e1/event/up", "24e1", true},
		{"a/{device}/#", "a/x", "x", true},
		{"a/{device}/#", "a/x/y/z", "x", true},
		{"a/{device}/#", "b/x/y", "", false},
		{"gw/#", "gw/telemetry", "", true},
		{"a/{device}", "a/", "", true},
	} {
		x := Topic{Filter: tt.filter}
		if name, ok := x.match(tt.topic); ok != tt.ok || ok && name != tt.name {
			t.Errorf("%s matches %s: %q, %t", tt.filter, tt.topic, name, ok)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		topic Topic
		want  string // "" for none
	}{
		{Topic{Filter: "a/{device}", As: "telemetry"}, ""},
		{Topic{Filter: "a/{device}", As: "connect", Device: "acme-{device}"}, ""},
		{Topic{Filter: "gw/#", As: "telemetry", Gateway: "gw-1"}, ""},
		{Topic{Filter: "spBv1.0/county/+/{device}/#", As: "sparkplug", Device: "acme-{device}"}, ""},
		{Topic{Filter: "spBv1.0/#", As: "sparkplug", Gateway: "gw-1"}, ""},
		{Topic{Filter: "spBv1.0/{device}/#", As: "sparkplug"}, "where {device} is the node"},
		{Topic{Filter: "spAv1.0/#", As: "sparkplug", Gateway: "gw-1"}, "spBv1.0/GROUP/#"},
		{Topic{Filter: "spBv1.0/#", As: "sparkplug"}, "one level is {device}"},
		{Topic{Filter: "a/+", As: "telemetry"}, "one level is {device}"},
		{Topic{Filter: "a/dev-{device}", As: "telemetry"}, "whole level"},
		{Topic{Filter: "a/#/{device}", As: "telemetry"}, "# the last one"},
		{Topic{Filter: "$share/g/{device}", As: "telemetry"}, "group is for shared"},
		{Topic{As: "telemetry"}, "write a topic filter"},
		{Topic{Filter: "{device}", As: "rpc"}, "messages are telemetry"},
		{Topic{Filter: "{device}", As: "telemetry", QoS: 2}, "QoS 2"},
		{Topic{Filter: "{device}", As: "telemetry", Gateway: "gw"}, "leave {device} and device out"},
		{Topic{Filter: "x", As: "telemetry", Gateway: "a b"}, "device id"},
		{Topic{Filter: "{device}", As: "telemetry", Device: "acme"}, "like acme-{device}"},
	} {
		err := tt.topic.Check()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v, want %q", tt.topic, err, tt.want)
		}
	}
}

// mosquitto is a real broker that keeps its sessions.
type mosquitto struct {
	t    *testing.T
	addr string
	dir  string
	cmd  *exec.Cmd
}

func newMosquitto(t *testing.T, more ...string) *mosquitto {
	t.Helper()
	if _, err := exec.LookPath("mosquitto"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("mosquitto is not installed")
		}
		t.Skip("mosquitto is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mosquitto{t: t, addr: l.Addr().String(), dir: t.TempDir()}
	_ = l.Close()
	_, port, _ := net.SplitHostPort(m.addr)
	conf := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\n", port, m.dir)
	if os.Getuid() == 0 {
		conf += "user root\n"
	}
	conf += strings.Join(more, "")
	if err := os.WriteFile(filepath.Join(m.dir, "mosquitto.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	t.Cleanup(m.stop)
	return m
}

func (m *mosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command("mosquitto", "-c", filepath.Join(m.dir, "mosquitto.conf"))
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	until(m.t, "mosquitto listens", func() bool {
		c, err := net.Dial("tcp", m.addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func (m *mosquitto) stop() {
	if m.cmd != nil {
		_ = m.cmd.Process.Signal(os.Interrupt) // it saves its sessions
		_ = m.cmd.Wait()
		m.cmd = nil
	}
}

// publish sends to the broker as a device does.
func (m *mosquitto) publish(retained bool, messages ...string) {
	m.t.Helper()
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + m.addr))
	if tok := c.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		m.t.Fatalf("connect: %v", tok.Error())
	}
	defer c.Disconnect(50)
	for _, s := range messages {
		topic, body, _ := strings.Cut(s, " ")
		if tok := c.Publish(topic, 1, retained, body); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			m.t.Fatalf("publish %s: %v", s, tok.Error())
		}
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in 30 s: %s", what)
		}
	}
}

// platform takes messages as the pipeline does.
type platform struct {
	mu   sync.Mutex
	full bool // nothing can be stored
	slow bool // what is taken is not durable before release
	got  []string
	held []func(error)
}

func (p *platform) Accept(_ context.Context, up citywarden.Uplink, done func(error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.full:
		done(citywarden.Errorf(citywarden.CodeTransient, "the disk is full"))
		return
	case len(up.Payload) > 256<<10:
		done(citywarden.Errorf(citywarden.CodeInvalid, "too large"))
		return
	}
	body := up.Payload
	p.got = append(p.got, fmt.Sprintf("%s %s %.64s", up.Device, up.Topic, body))
	if p.slow {
		p.held = append(p.held, done)
		return
	}
	done(nil)
}

func (p *platform) set(full, slow bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.full, p.slow = full, slow
}

// release makes durable what is held.
func (p *platform) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, done := range p.held {
		done(nil)
	}
	p.held = nil
}

func (p *platform) messages() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

// connected runs an uplink to m until the test ends, or the returned stop is called.
func connected(t *testing.T, m *mosquitto, p *platform, group string) (n numbers, stop func()) {
	t.Helper()
	n = numbers{t, prometheus.NewRegistry(), nil}
	u, err := New(Options{
		Brokers: []Broker{{Name: "city", URL: "tcp://" + m.addr, ClientID: "citywarden", Group: group, Topics: []Topic{
			{Filter: "factory/{device}/telemetry", QoS: 1, As: "telemetry", Device: "acme-{device}"},
			{Filter: "factory/{device}/gone", QoS: 1, As: "disconnect", Device: "acme-{device}"},
			{Filter: "tb/telemetry", QoS: 1, As: "telemetry", Gateway: "gw-1"},
		}}},
		Accept: p, Barred: func(id citywarden.DeviceID) bool { return id == "acme-barred" }, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Metrics: n.Registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	n.links = u.Links
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	n.await("connected", 1)
	return n, stop
}

// numbers are the metrics of an uplink.
type numbers struct {
	t *testing.T
	*prometheus.Registry
	links func() []citywarden.Link
}

// of returns connected, waiting, or how many messages had a result.
func (n numbers) of(what string) int {
	n.t.Helper()
	all, err := n.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range all {
		for _, m := range f.GetMetric() {
			switch {
			case f.GetName() == "citywarden_uplink_"+what:
				return int(m.GetGauge().GetValue())
			case m.GetCounter() != nil && m.GetLabel()[0].GetValue() == what:
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return 0
}

func (n numbers) await(what string, value int) {
	n.t.Helper()
	until(n.t, fmt.Sprintf("%s is %d", what, value), func() bool { return n.of(what) == value })
}

func want(t *testing.T, p *platform, want ...string) {
	t.Helper()
	until(t, fmt.Sprintf("%d messages", len(want)), func() bool { return len(p.messages()) >= len(want) })
	if d := cmp.Diff(want, p.messages()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestTakesWhatABrokerHas(t *testing.T) {
	for _, group := range []string{"", "platform"} {
		t.Run("group "+group, func(t *testing.T) {
			m, p := newMosquitto(t), &platform{}
			m.publish(true, `factory/old/telemetry {"level":9}`)
			u, _ := connected(t, m, p, group)
			m.publish(false, `factory/p1/telemetry {"level":1}`, `elsewhere {"level":2}`, `tb/telemetry {"Meter 1":[{"power":3}]}`,
				`factory/barred/telemetry {"level":1}`, `factory/p1/gone {}`, `factory/泵/telemetry {"level":3}`, `factory/big/telemetry `+strings.Repeat("x", 300<<10))
			want(t, p, `acme-p1 v1/devices/me/telemetry {"level":1}`, `gw-1 v1/gateway/telemetry {"Meter 1":[{"power":3}]}`,
				`acme-p1 v1/devices/me/disconnect {}`, `acme-泵 v1/devices/me/telemetry {"level":3}`,
				`acme-big oversized/307200/v1/devices/me/telemetry `+strings.Repeat("x", 64))
			u.await("refused", 1)
			if u.of("stored") != 3 || u.of("unmatched") != 1 || u.of("barred") != 1 || group == "" && u.of("retained") != 1 {
				t.Errorf("stored %d, unmatched %d, barred %d, retained %d", u.of("stored"), u.of("unmatched"), u.of("barred"), u.of("retained"))
			}
		})
	}
}

// free returns an address that nobody listens at.
func free(t *testing.T) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// TestEveryTransportAndKind: over TLS with a certificate of the platform's own, over
// WebSocket and over both, each kind of message becomes what a device or a gateway says.
func TestEveryTransportAndKind(t *testing.T) {
	dir, ca := t.TempDir(), certtest.New(t)
	cert, key := certtest.Write(t, dir, "broker", ca.Valid("broker"))
	authority := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(authority, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	secured := fmt.Sprintf("cafile %s\ncertfile %s\nkeyfile %s\nrequire_certificate true\n", authority, cert, key)
	own := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Valid("citywarden")}}
	var topics []Topic
	var sent, stored []string
	for _, kind := range Kinds {
		x := Topic{Filter: kind + "/{device}", QoS: 1, As: kind}
		name, topic := "d-1", "v1/devices/me/"+kind
		if kind == "lorawan" || kind == "ctwing" {
			x.Filter, x.Gateway = kind+"/+", "network"
			name, topic = "network", "v1/gateway/"+kind
		}
		if kind == asSparkplug {
			continue // see TestSparkplug
		}
		topics = append(topics, x)
		sent = append(sent, kind+"/d-1 body")
		stored = append(stored, name+" "+topic+" body")
	}
	ssl, ws, wss := free(t), free(t), free(t)
	m := newMosquitto(t, "listener "+ssl+" 127.0.0.1\n"+secured, "listener "+ws+" 127.0.0.1\nprotocol websockets\n", "listener "+wss+" 127.0.0.1\nprotocol websockets\n"+secured)
	for _, c := range []struct {
		url string
		tls *tls.Config
	}{{"ssl://127.0.0.1:" + ssl, own}, {"ws://127.0.0.1:" + ws + "/mqtt", nil}, {"wss://127.0.0.1:" + wss + "/mqtt", own}} {
		p, n := &platform{}, numbers{t, prometheus.NewRegistry(), nil}
		u, err := New(Options{
			Brokers: []Broker{{Name: "city", URL: c.url, ClientID: "citywarden", TLS: c.tls, Topics: topics}}, Accept: p,
			Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Metrics: n.Registry,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- u.Run(ctx) }()
		n.await("connected", 1)
		m.publish(false, sent...)
		want(t, p, stored...)
		n.await("waiting", 0)
		s := u.Links()[0]
		if !s.Connected || s.Error != "" || s.Since.IsZero() || s.Last.IsZero() || s.Waiting != 0 || s.Messages["stored"] != int64(len(sent)) || s.URL != c.url {
			t.Errorf("status %+v", s)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestNotAcknowledgedBeforeDurable: what came and is not durable stays at the
// broker, over its restart too, and is taken once.
func TestNotAcknowledgedBeforeDurable(t *testing.T) {
	m, p := newMosquitto(t), &platform{slow: true}
	u, _ := connected(t, m, p, "")
	m.publish(false, `factory/p1/telemetry {"level":1}`, `factory/p1/telemetry {"level":2}`)
	until(t, "both came", func() bool { return len(p.messages()) == 2 })
	m.stop()
	u.await("connected", 0)
	if s := u.links()[0]; s.Connected || s.Error == "" || s.Waiting != 2 {
		t.Errorf("status without the broker %+v", s)
	}
	m.start()
	u.await("connected", 1)
	u.await("waiting", 4)
	p.release()
	u.await("waiting", 0)
	if u.of("stored") != 2 || u.of("repeated") != 2 {
		t.Errorf("stored %d, repeated %d", u.of("stored"), u.of("repeated"))
	}
	p.set(false, false)
	m.publish(false, `factory/p1/telemetry {"level":3}`)
	want(t, p, `acme-p1 v1/devices/me/telemetry {"level":1}`, `acme-p1 v1/devices/me/telemetry {"level":2}`, `acme-p1 v1/devices/me/telemetry {"level":3}`)
}

// TestPlatformAway: the broker keeps what comes while the platform is away, and
// what the platform had taken and not stored when it ended.
func TestPlatformAway(t *testing.T) {
	m, p := newMosquitto(t), &platform{slow: true}
	_, stop := connected(t, m, p, "")
	m.publish(false, `factory/p1/telemetry {"level":1}`)
	until(t, "it came", func() bool { return len(p.messages()) == 1 })
	stop()
	m.publish(false, `factory/p2/telemetry {"level":2}`)
	next := &platform{}
	connected(t, m, next, "")
	want(t, next, `acme-p1 v1/devices/me/telemetry {"level":1}`, `acme-p2 v1/devices/me/telemetry {"level":2}`)
}

// TestStopAcknowledges: at a clean end what is durable is acknowledged, so that
// it does not come again.
func TestStopAcknowledges(t *testing.T) {
	m, p := newMosquitto(t), &platform{}
	_, stop := connected(t, m, p, "")
	m.publish(false, `factory/p1/telemetry {"level":1}`, `factory/p2/telemetry {"level":2}`)
	until(t, "both came", func() bool { return len(p.messages()) == 2 })
	stop()
	next := &platform{}
	connected(t, m, next, "")
	m.publish(false, `factory/p3/telemetry {"level":3}`)
	want(t, next, `acme-p3 v1/devices/me/telemetry {"level":3}`)
}

// TestFullLog: while nothing can be stored nothing is acknowledged: the broker
// keeps what the platform does not take, and all of it comes in the end.
func TestFullLog(t *testing.T) {
	m, p := newMosquitto(t), &platform{full: true}
	u, _ := connected(t, m, p, "")
	var sent, stored []string
	for i := range 100 {
		sent = append(sent, fmt.Sprintf(`factory/p%d/telemetry {"level":%d}`, i, i))
		stored = append(stored, fmt.Sprintf(`acme-p%d v1/devices/me/telemetry {"level":%d}`, i, i))
	}
	m.publish(false, sent...)
	until(t, "storing is tried again", func() bool { return u.of("retried") > 0 })
	if n := u.of("waiting"); n == 0 || n >= 100 {
		t.Errorf("%d messages wait here, not as many as the broker sends unacknowledged", n)
	}
	if u.of("stored") != 0 || len(p.messages()) != 0 {
		t.Error("something was stored")
	}
	p.set(false, false)
	u.await("stored", 100)
	slices.Sort(stored)
	got := p.messages()
	slices.Sort(got)
	if d := cmp.Diff(stored, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{}, {Accept: &platform{}}, {Accept: &platform{}, Brokers: []Broker{{Name: "x", URL: ":"}}},
		{Accept: &platform{}, Brokers: []Broker{{Name: "x", URL: "tcp://x", Topics: []Topic{{}}}}},
		{Accept: &platform{}, Brokers: []Broker{{Name: "x", URL: "tcp://x", Group: "g", Topics: []Topic{{Filter: "spBv1.0/#", As: "sparkplug", Gateway: "gw"}}}}}} {
		if u, err := New(o); err == nil || u != nil {
			t.Errorf("%+v: %v", o, errors.Join(err))
		}
	}
}
