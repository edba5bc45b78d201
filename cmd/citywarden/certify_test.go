package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
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

// TestCertifyGoodDevice: one that does all as it should passes all that can be seen.
func TestCertifyGoodDevice(t *testing.T) {
	t.Parallel()
	c := startCertify(t, "--outage", "1500ms", "--command", "self_test")
	var n atomic.Int64
	var waiting []string // not acknowledged yet
	answer := func(d paho.Client, m paho.Message) {
		d.Publish(strings.Replace(m.Topic(), "request", "response", 1), 1, false, `{"ok":true}`)
	}
	connect := func() paho.Client {
		d := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + c.mqtt).SetClientID("d").SetUsername("token-of-it").
			SetAutoReconnect(false).SetKeepAlive(60 * time.Second))
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
	c.said("[不通过] 认证: it shows \"wrong\" as its token")
	publish("-u", "token-of-it", "-t", "factory/1", "-q", "1", "-m", "{}")
	c.said("[不通过] 主题")
	publish("-u", "token-of-it", "-t", "v1/devices/me/telemetry", "-q", "0", "-m", `{"smoke":0.01}`)
	c.said("[不通过] 服务质量 (QoS): QoS 0")
	publish(append(telemetry, `{"smoke":"0.01"}`)...)
	c.said("[不通过] 报文符合型号: byte 9: smoke is a number")
	publish(append(telemetry, `{"temperature":700}`)...)
	c.said("[不通过] 单位与量程: temperature is 700")
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
