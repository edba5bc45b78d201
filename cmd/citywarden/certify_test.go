package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden/app/certify"
	"github.com/citywarden/citywarden/broker/certtest"
)

// certifying is a `citywarden certify` that runs.
type certifying struct {
	t          *testing.T
	cmd        *exec.Cmd
	out        *buffer
	dir        string
	mqtt, http string
}

// startCertify starts it on free ports for a smoke detector with the token "token-of-it".
func startCertify(t *testing.T, args ...string) *certifying {
	t.Helper()
	bin, err := exec.LookPath("citywarden")
	if err != nil {
		t.Fatal(err)
	}
	c := &certifying{t: t, dir: t.TempDir(), out: &buffer{}}
	c.cmd = exec.Command(bin, append([]string{"certify", "--model", "smoke-detector", "--token", "token-of-it", "--html", "report.html", "--json", "report.json",
		"--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--coap", "127.0.0.1:0"}, args...)...)
	c.cmd.Dir, c.cmd.Stdout, c.cmd.Stderr = c.dir, c.out, c.out
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	address := regexp.MustCompile(`(?m)^(MQTT|HTTP) +(\S+)`)
	if !wait(30*time.Second, func() bool { return strings.Contains(c.out.String(), "CoAP ") }) {
		t.Fatalf("it did not start:\n%s", c.out)
	}
	for _, m := range address.FindAllStringSubmatch(c.out.String(), -1) {
		if m[1] == "MQTT" {
			c.mqtt = m[2]
		} else {
			c.http = m[2]
		}
	}
	return c
}

// said waits until it prints what.
func (c *certifying) said(what string) {
	c.t.Helper()
	if !wait(30*time.Second, func() bool { return strings.Contains(c.out.String(), what) }) {
		c.t.Fatalf("it does not say %q:\n%s", what, c.out)
	}
}

// end ends it, and returns its exit code and the checks that came out in a state, by their ids.
func (c *certifying) end() (code int, by map[certify.State][]string) {
	c.t.Helper()
	_ = c.cmd.Process.Signal(os.Interrupt)
	_ = c.cmd.Wait()
	b, err := os.ReadFile(filepath.Join(c.dir, "report.json"))
	if err != nil {
		c.t.Fatalf("%v\n%s", err, c.out)
	}
	var r certify.Report
	if err := json.Unmarshal(b, &r); err != nil {
		c.t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(c.dir, "report.html"))
	if err != nil || !strings.Contains(string(page), "设备接入检测报告") || strings.Contains(string(page), "http://") {
		c.t.Errorf("%v: the page is not whole or not self-contained:\n%s", err, page)
	}
	by = map[certify.State][]string{}
	for _, x := range r.Checks {
		by[x.State] = append(by[x.State], x.ID)
	}
	return c.cmd.ProcessState.ExitCode(), by
}

// TestCertifyGoodDevice: one that does all as it should passes all that can be seen. That it loses its connection
// before the outage, and so has a will sent, takes nothing from that.
func TestCertifyGoodDevice(t *testing.T) {
	t.Parallel()
	c := startCertify(t, "--outage", "1500ms", "--command", "self_test")
	var n atomic.Int64
	var waiting []string // not acknowledged yet
	answer := func(d paho.Client, m paho.Message) {
		d.Publish(strings.Replace(m.Topic(), "request", "response", 1), 1, false, `{"ok":true}`)
	}
	var conn net.Conn
	connect := func() paho.Client {
		d := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://"+c.mqtt).SetClientID("d").SetUsername("token-of-it").
			SetAutoReconnect(false).SetKeepAlive(60*time.Second).SetWill("v1/devices/me/attributes", `{"online":false}`, 1, false).
			SetCustomOpenConnectionFn(func(u *url.URL, _ paho.ClientOptions) (_ net.Conn, err error) {
				conn, err = net.Dial("tcp", u.Host)
				return conn, err
			}))
		if tok := d.Connect(); !tok.WaitTimeout(5*time.Second) || tok.Error() != nil {
			return nil
		}
		d.Subscribe("v1/devices/me/rpc/request/+", 1, answer)
		return d
	}
	d := connect()
	if d == nil {
		t.Fatalf("not connected:\n%s", c.out)
	}
	for end := time.Now().Add(30 * time.Second); !strings.Contains(c.out.String(), "Backlog") || !strings.Contains(c.out.String(), "Answers"); time.Sleep(300 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no backlog and answer:\n%s", c.out)
		}
		waiting = append(waiting, fmt.Sprintf(`{"ts":%d,"values":{"smoke":0.0%d,"temperature":21,"button":false,"mains":true,"battery":96}}`, time.Now().UnixMilli(), n.Add(1)%10))
		if d == nil || !d.IsConnectionOpen() {
			time.Sleep(time.Second)
			d = connect()
		}
		for d != nil && len(waiting) > 0 {
			if tok := d.Publish("v1/devices/me/telemetry", 1, false, waiting[0]); !tok.WaitTimeout(2*time.Second) || tok.Error() != nil || !d.IsConnectionOpen() {
				break
			}
			waiting = waiting[1:]
		}
		if n.Load() == 3 {
			_ = conn.(*net.TCPConn).CloseWrite() // paho does not notice that somebody else closes it
		}
	}
	code, by := c.end()
	if code != 0 || len(by[certify.Failed]) > 0 {
		t.Errorf("exit code %d:\n%s", code, c.out)
	}
	if d := cmp.Diff([]string{"tls"}, slices.DeleteFunc(by[certify.NotSeen], func(id string) bool { return id == "metrics" })); d != "" {
		t.Errorf("not seen: %s\n%s", d, c.out)
	}
}

// TestCertifyWrongDevices: each mistake is found, with the bytes and what to do.
func TestCertifyWrongDevices(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("mosquitto_pub"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("mosquitto_pub is not installed")
		}
		t.Skip("mosquitto_pub is not installed")
	}
	c := startCertify(t, "--outage", "0s", "--lang", "zh")
	host, port, _ := strings.Cut(c.mqtt, ":")
	publish := func(args ...string) {
		t.Helper()
		_ = exec.Command("mosquitto_pub", append([]string{"-h", host, "-p", port}, args...)...).Run() // it is refused
	}
	telemetry := []string{"-u", "token-of-it", "-t", "v1/devices/me/telemetry", "-q", "1", "-m"}
	publish("-u", "wrong", "-t", "v1/devices/me/telemetry", "-m", "{}")
	c.said("[不通过] 认证: 它出示的令牌是 \"wrong\"")
	publish("-u", "token-of-it", "-t", "factory/1", "-q", "1", "-m", "{}")
	c.said("[不通过] 主题")
	publish("-u", "token-of-it", "-t", "v1/devices/me/telemetry", "-q", "0", "-m", `{"smoke":0.01}`)
	c.said("[不通过] 服务质量 (QoS): QoS 0")
	publish(append(telemetry, `{"smoke":"0.01"}`)...)
	c.said("[不通过] 报文符合型号: byte 9: smoke is a number")
	publish(append(telemetry, `{"temperature":700}`)...)
	c.said("[不通过] 单位与量程: temperature 为 700")
	publish(append(telemetry, `{"ts":1000,"values":{"smoke":0.01}}`)...)
	c.said("[不通过] 时间戳")
	again := fmt.Sprintf(`{"ts":%d,"values":{"smoke":0.02}}`, time.Now().UnixMilli())
	publish(append(telemetry, again)...)
	publish(append(telemetry, again)...)
	c.said("[不通过] 无重复")
	if res, err := http.Get("http://" + c.http + "/telemetry"); err != nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("GET: %v %v", res, err)
	}
	code, by := c.end()
	if code != 1 || !slices.Contains(by[certify.Failed], "duplicates") {
		t.Errorf("exit code %d, %v\n%s", code, by, c.out)
	}
	if out := c.out.String(); !strings.Contains(out, `{"smoke":"0.01"}`) || !strings.Contains(out, "数字不加引号") {
		t.Errorf("the bytes and what to do are missing:\n%s", out)
	}
}

// TestCertifyTLS: which version a device speaks, and that an old one is refused.
func TestCertifyTLS(t *testing.T) {
	t.Parallel()
	cert, key := certtest.Write(t, t.TempDir(), "server", certtest.New(t).Valid("server"))
	for _, tt := range []struct {
		most uint16
		want string
	}{{tls.VersionTLS13, "[passed] TLS version: TLS 1.3"}, {tls.VersionTLS12, "[passed] TLS version: TLS 1.2"}, {tls.VersionTLS11, "[failed] TLS version: tls: client offered only unsupported versions"}} {
		c := startCertify(t, "--mqtts", "127.0.0.1:0", "--cert", cert, "--key", key)
		addr := regexp.MustCompile(`MQTTS +(\S+)`).FindStringSubmatch(c.out.String())[1]
		d := paho.NewClient(paho.NewClientOptions().AddBroker("ssl://" + addr).SetUsername("token-of-it").SetAutoReconnect(false).
			SetTLSConfig(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tt.most}))
		d.Connect().WaitTimeout(5 * time.Second)
		c.said(tt.want)
		d.Disconnect(0)
		c.end()
	}
	for most, want := range map[uint16]string{tls.VersionTLS12: "[passed] TLS version: TLS 1.2", tls.VersionTLS11: "[failed] TLS version: TLS: tls: client offered only unsupported versions"} {
		c := startCertify(t, "--coap-tls", "127.0.0.1:0", "--cert", cert, "--key", key)
		d, err := tls.Dial("tcp", c.address("CoAP/TLS"), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: most, NextProtos: []string{"coap"}})
		if err == nil {
			defer d.Close()
		}
		c.said(want)
		c.end()
	}
}

// TestCertifyMistakes of whoever starts it.
func TestCertifyMistakes(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		`did you mean "smoke-detector"?`:   {"--model", "smoke-detectr"},
		"--mqtts needs --cert and --key":   {"--model", "valve", "--mqtts", ":0"},
		`has no command "self_tset"`:       {"--model", "smoke-detector", "--command", "self_tset"},
		"choose another address with --mq": {"--model", "valve", "--mqtt", "256.0.0.1:0"},
		"no device came":                   {"--model", "valve", "--mqtt", "127.0.0.1:0", "--http", "", "--coap", "", "--for", "10ms"},
	} {
		out, err := exec.Command("citywarden", append([]string{"certify"}, args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%v: %v, want %q:\n%s", args, err, want, out)
		}
	}
}

// address is where a listener of it is, by the name that it prints.
func (c *certifying) address(name string) string {
	c.t.Helper()
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` +(\S+)`).FindStringSubmatch(c.out.String())
	if m == nil {
		c.t.Fatalf("no address of %s:\n%s", name, c.out)
	}
	return m[1]
}

// coapClient runs libcoap's client.
func coapClient(t *testing.T, kind string, args ...string) {
	t.Helper()
	bin := "coap-client-" + kind
	if _, err := exec.LookPath(bin); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(bin + " is not installed")
		}
		t.Skip(bin + " is not installed")
	}
	_ = exec.Command(bin, append([]string{"-m", "post", "-t", "json"}, args...)...).Run() // it is refused, or not answered
}

// TestCertifyCoAP: over UDP an outage is played, too; over DTLS and TCP the device is looked at as well.
func TestCertifyCoAP(t *testing.T) {
	t.Parallel()
	body := func(n int, at time.Time) string {
		return fmt.Sprintf(`{"ts":%d,"values":{"smoke":0.0%d,"temperature":21,"button":false,"test":false,"mains":true,"battery":96}}`, at.UnixMilli(), n)
	}
	c := startCertify(t, "--token", "token-of-it-0123456", "--outage", "2s", "--coaps", "127.0.0.1:0", "--coap-tcp", "127.0.0.1:0")
	url := "coap://" + c.address("CoAP") + "/api/v1/token-of-it-0123456/telemetry"
	for n := range 3 {
		coapClient(t, "notls", "-B", "5", "-e", body(n, time.Now()), url)
		time.Sleep(100 * time.Millisecond)
	}
	lost := body(3, time.Now())
	coapClient(t, "notls", "-B", "1", "-e", lost, url) // nothing is answered
	missed := body(4, time.Now())
	time.Sleep(1500 * time.Millisecond)
	coapClient(t, "notls", "-B", "5", "-e", lost, url)
	c.said("[passed] Reconnects")
	c.said("[passed] Sends again")
	coapClient(t, "notls", "-B", "5", "-e", missed, url)
	c.said("[passed] Backlog")
	coapClient(t, "openssl", "-B", "5", "-u", "device", "-k", "token-of-it-0123456", "-e", body(5, time.Now()), "coaps://"+c.address("CoAPS")+"/api/v1/telemetry")
	c.said("[passed] TLS version: DTLS 1.2, pre-shared key")
	coapClient(t, "notls", "-B", "5", "-e", body(6, time.Now()), "coap+tcp://"+c.address("CoAP/TCP")+"/api/v1/token-of-it-0123456/telemetry")
	code, by := c.end()
	if code != 0 || !slices.Contains(by[certify.Passed], "qos") || !slices.Contains(by[certify.Passed], "metrics") {
		t.Errorf("exit code %d, %v:\n%s", code, by, c.out)
	}

	c = startCertify(t, "--token", "token-of-it-0123456", "--outage", "1s", "--coaps", "127.0.0.1:0")
	url = "coap://" + c.address("CoAP") + "/api/v1/token-of-it-0123456/telemetry"
	coapClient(t, "openssl", "-B", "3", "-u", "somebody", "-k", "token-of-it-0123456", "-e", "{}", "coaps://"+c.address("CoAPS")+"/api/v1/telemetry")
	c.said(`[failed] Authenticates: it shows the identity "somebody" in the handshake; expected "device"`)
	coapClient(t, "notls", "-N", "-B", "1", "-e", body(0, time.Now()), url)
	c.said("[failed] QoS: NON")
	for n := range 3 { // the fourth is not answered, and never sent again
		coapClient(t, "notls", "-B", "1", "-e", body(n+1, time.Now()), url)
	}
	time.Sleep(time.Second)
	coapClient(t, "notls", "-B", "5", "-e", body(9, time.Now()), url)
	time.Sleep(200 * time.Millisecond)
	if _, by := c.end(); !slices.Contains(by[certify.Failed], "resend") || !slices.Contains(by[certify.Failed], "backlog") {
		t.Errorf("%v\n%s", by, c.out)
	}
}

// TestCertifyHTTP: an outage is played over HTTP, too; one that sends again and brings what it measured meanwhile passes,
// one that forgets, or asks without end, does not.
func TestCertifyHTTP(t *testing.T) {
	t.Parallel()
	body := func(n int) string {
		return fmt.Sprintf(`{"ts":%d,"values":{"smoke":0.0%d,"temperature":21,"button":false,"test":false,"mains":true,"battery":96}}`, time.Now().UnixMilli(), n)
	}
	post := func(c *certifying, body string) bool {
		t.Helper()
		res, err := http.Post("http://"+c.http+"/api/v1/token-of-it/telemetry", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	}
	begin := func(outage string) (c *certifying, lost string) {
		t.Helper()
		c = startCertify(t, "--outage", outage)
		for n := range 3 {
			if !post(c, body(n)) {
				t.Fatalf("message %d is refused:\n%s", n, c.out)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if lost = body(3); post(c, lost) {
			t.Fatalf("there is no outage:\n%s", c.out)
		}
		return c, lost
	}
	c, lost := begin("1s")
	time.Sleep(300 * time.Millisecond)
	missed := body(4)
	for end := time.Now().Add(30 * time.Second); !post(c, lost); time.Sleep(500 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the outage has no end:\n%s", c.out)
		}
	}
	c.said("[passed] Reconnects")
	c.said("[passed] Sends again")
	post(c, missed)
	c.said("[passed] Backlog")
	code, by := c.end()
	if code != 0 || len(by[certify.Failed]) > 0 {
		t.Errorf("exit code %d, failed are %v\n%s", code, by[certify.Failed], c.out)
	}

	c, _ = begin("3s")
	for end := time.Now().Add(30 * time.Second); !post(c, body(9)); {
		if time.Now().After(end) {
			t.Fatalf("the outage has no end:\n%s", c.out)
		}
	}
	c.said("[failed] Reconnects")
	post(c, body(8))
	time.Sleep(200 * time.Millisecond)
	if code, by := c.end(); code != 1 || !slices.Contains(by[certify.Failed], "reconnect") || !slices.Contains(by[certify.Failed], "resend") {
		t.Errorf("exit code %d, %v\n%s", code, by, c.out)
	}
}

// TestCertifyPeriod: how often a device reports is held against the heartbeat of its model, also when it falls silent.
func TestCertifyPeriod(t *testing.T) {
	t.Parallel()
	models := t.TempDir()
	for name, heartbeat := range map[string]string{"quick": "2s", "slow": "1m"} {
		model := "name: " + name + "\ntitle: {zh: 快, en: Quick}\ndomain: fire\nreport: 1s\nheartbeat: " + heartbeat + "\nmetrics:\n- {name: level, title: {zh: 位, en: Level}, kind: number}\n"
		if err := os.WriteFile(filepath.Join(models, name+".yaml"), []byte(model), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, model string
		messages    int
		pause       time.Duration // before each but the first, and until the end
		state       certify.State
		says        string
	}{
		{"often", "slow", 3, 100 * time.Millisecond, certify.Passed, "[passed] Reports often enough: at most "},
		{"with a gap", "quick", 2, 2500 * time.Millisecond, certify.Failed, "[failed] Reports often enough: at most "},
		{"once, and then nothing", "quick", 1, 2500 * time.Millisecond, certify.Failed, "nothing came for "},
		{"once, a moment ago", "slow", 1, 0, certify.NotSeen, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := startCertify(t, "--models", models, "--model", tt.model, "--outage", "0s")
			for n := range tt.messages {
				if n > 0 {
					time.Sleep(tt.pause)
				}
				res, err := http.Post("http://"+c.http+"/api/v1/token-of-it/telemetry", "application/json", strings.NewReader(fmt.Sprintf(`{"level":%d}`, n)))
				if err != nil || res.StatusCode != http.StatusOK {
					t.Fatalf("%v %+v", err, res)
				}
				_ = res.Body.Close()
			}
			time.Sleep(tt.pause)
			if _, by := c.end(); !slices.Contains(by[tt.state], "period") || !strings.Contains(c.out.String(), tt.says) {
				t.Errorf("%v\n%s", by, c.out)
			}
		})
	}
}

// TestCertifyGateway: devices behind a gateway are looked at by their own model.
func TestCertifyGateway(t *testing.T) {
	t.Parallel()
	c := startCertify(t, "--model", "iot-gateway", "--child", "energy-meter", "--outage", "0s")
	connect := func() paho.Client {
		d := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + c.mqtt).SetClientID("g").SetUsername("token-of-it").SetAutoReconnect(false))
		if tok := d.Connect(); !tok.WaitTimeout(5*time.Second) || tok.Error() != nil {
			t.Fatalf("not connected: %v\n%s", tok.Error(), c.out)
		}
		return d
	}
	d := connect()
	publish := func(topic, body string) {
		t.Helper()
		if tok := d.Publish(topic, 1, false, body); !tok.WaitTimeout(5 * time.Second) {
			t.Fatal(topic)
		}
	}
	publish("v1/gateway/connect", `{"device":"Meter 1","type":"default"}`)
	publish("v1/gateway/telemetry", `{"Meter 1":[{"power":3.2}]}`)
	c.said("[passed] Devices behind it: 1 devices")
	publish("v1/gateway/telemetry", `{"Meter 1":[{"powre":3.2}]}`)
	c.said(`unknown metric "powre"; did you mean "power"?`)
	publish("v1/gateway/telemetry", `{"Meter 2":[{"power":3.2}]}`)
	c.said(`[failed] Devices behind it: it speaks for "Meter 2", which it did not connect`)
	if code, by := c.end(); code != 1 || !slices.Contains(by[certify.Failed], "payload") || !slices.Contains(by[certify.Failed], "children") {
		t.Errorf("exit code %d, %v\n%s", code, by, c.out)
	}
}

// TestCertifyAfterOutage: a device that does not keep alive, does not come back, storms, sends nothing again and
// answers no command, each is found.
func TestCertifyAfterOutage(t *testing.T) {
	t.Parallel()
	dial := func(c *certifying, keepAlive time.Duration) paho.Client {
		return paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + c.mqtt).SetClientID("d").SetUsername("token-of-it").SetAutoReconnect(false).SetKeepAlive(keepAlive).SetConnectTimeout(time.Second))
	}
	first := func(c *certifying, keepAlive time.Duration) paho.Client {
		t.Helper()
		d := dial(c, keepAlive)
		if tok := d.Connect(); !tok.WaitTimeout(5*time.Second) || tok.Error() != nil {
			t.Fatalf("not connected: %v\n%s", tok.Error(), c.out)
		}
		for n := range 4 { // the fourth begins the outage
			d.Publish("v1/devices/me/telemetry", 1, false, fmt.Sprintf(`{"ts":%d,"values":{"smoke":0.0%d}}`, time.Now().UnixMilli(), n)).WaitTimeout(time.Second)
			time.Sleep(50 * time.Millisecond)
		}
		return d
	}
	has := func(c *certifying, want ...string) {
		t.Helper()
		code, by := c.end()
		for _, id := range want {
			if !slices.Contains(by[certify.Failed], id) || code != 1 {
				t.Errorf("exit code %d, %s is not among the failed, %v\n%s", code, id, by, c.out)
			}
		}
	}
	c := startCertify(t, "--outage", "500ms", "--command", "self_test")
	first(c, 0)
	c.said("[failed] Keep alive: keep alive 0 s")
	time.Sleep(time.Second)
	has(c, "keepalive", "reconnect", "command")

	c = startCertify(t, "--outage", "1s")
	first(c, time.Minute)
	for end := time.Now().Add(30 * time.Second); !strings.Contains(c.out.String(), "Reconnects"); {
		if d := dial(c, time.Minute); d.Connect().WaitTimeout(time.Second) && d.IsConnectionOpen() {
			d.Publish("v1/devices/me/telemetry", 1, false, fmt.Sprintf(`{"ts":%d,"values":{"smoke":0.09}}`, time.Now().Add(time.Second).UnixMilli())).WaitTimeout(time.Second)
		}
		if time.Now().After(end) {
			t.Fatalf("it does not say how it reconnects:\n%s", c.out)
		}
	}
	time.Sleep(200 * time.Millisecond)
	has(c, "reconnect", "resend", "backlog")
}
