package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/citywarden/citywarden"
)

// TestFirmware has a device load a firmware as ThingsBoard's SDKs do, over MQTT with
// the platform killed in the middle, over HTTP and with libcoap's client over CoAP.
func TestFirmware(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := make([]byte, 40_000)
	for i := range file {
		file[i] = byte(rand.IntN(256))
	}
	writeFile(t, filepath.Join(dir, "fw.bin"), string(file))
	p, err := launch(dir, "data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Kill) })
	token := addDevices(t, p, 1)[0]
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("citywarden", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CITYWARDEN_SERVER="+p.http, "CITYWARDEN_PASSWORD="+testPassword)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	heard := make(chan paho.Message, 100)
	connect := func() paho.Client {
		t.Helper()
		c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + p.mqtt).SetClientID("d0").SetUsername(token).SetAutoReconnect(false))
		if tok := c.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
		for _, f := range []string{"v1/devices/me/attributes", "v1/devices/me/attributes/response/+", "v2/fw/response/+/chunk/+", "v2/fw/error"} {
			if tok := c.Subscribe(f, 1, func(_ paho.Client, m paho.Message) { heard <- m }); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
				t.Fatalf("%s: %v", f, tok.Error())
			}
		}
		return c
	}
	next := func(topic string) []byte {
		t.Helper()
		select {
		case m := <-heard:
			if m.Topic() != topic {
				t.Fatalf("%s came, want %s: %.100q", m.Topic(), topic, m.Payload())
			}
			return m.Payload()
		case <-time.After(20 * time.Second):
			t.Fatalf("nothing came at %s\n%s", topic, p.stderr)
			return nil
		}
	}
	say := func(c paho.Client, topic, body string) {
		t.Helper()
		if tok := c.Publish(topic, 1, false, body); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatalf("%s: %v", topic, tok.Error())
		}
	}
	c := connect()
	say(c, "v2/fw/request/1/chunk/0", "4096")
	if got := string(next("v2/fw/error")); got != "NOT_FOUND" /* ThingsBoard's word */ {
		t.Errorf("without a firmware: %s", got)
	}
	sum := sha256.Sum256(file)
	if out := run("firmware", "add", "fw.bin", "--title", "smoke", "--version", "1.1", "--model", "smoke-detector"); !strings.Contains(out, hex.EncodeToString(sum[:])) {
		t.Errorf("added: %s", out)
	}
	run("firmware", "assign", "smoke", "1.1", "--model", "smoke-detector")
	told := fmt.Sprintf(`{"fw_checksum":"%x","fw_checksum_algorithm":"SHA256","fw_size":40000,"fw_title":"smoke","fw_version":"1.1"}`, sum)
	if got := string(next("v1/devices/me/attributes")); got != told {
		t.Errorf("told %s, want %s", got, told)
	}
	say(c, "v1/devices/me/attributes/request/7", `{"sharedKeys":"fw_title,fw_version"}`)
	if got := string(next("v1/devices/me/attributes/response/7")); got != `{"shared":{"fw_title":"smoke","fw_version":"1.1"}}` {
		t.Errorf("asked for it: %s", got)
	}
	say(c, "v1/devices/me/telemetry", `{"current_fw_title":"smoke","current_fw_version":"1.0","fw_state":"DOWNLOADING"}`)

	var got []byte
	for n := 0; ; n++ {
		if n == 4 {
			_ = p.cmd.Process.Kill()
			<-p.done
			if p, err = launch(dir, "data"); err != nil {
				t.Fatal(err)
			}
			c = connect()
		}
		say(c, fmt.Sprintf("v2/fw/request/2/chunk/%d", n), "4096")
		chunk := next(fmt.Sprintf("v2/fw/response/2/chunk/%d", n))
		if len(chunk) == 0 {
			break
		}
		got = append(got, chunk...)
	}
	if !bytes.Equal(got, file) {
		t.Errorf("%d bytes over MQTT are not those of the file", len(got))
	}
	for _, state := range []string{"DOWNLOADED", "VERIFIED", "UPDATING", "UPDATED"} {
		say(c, "v1/devices/me/telemetry", fmt.Sprintf(`{"current_fw_title":"smoke","current_fw_version":"1.1","fw_state":%q}`, state))
	}
	admin := clientOf(t, p)
	if !wait(20*time.Second, func() bool {
		var v citywarden.DeviceView
		return admin.call(context.Background(), "GET", "/devices/d0", nil, &v) == nil && v.Client["fw_state"] == "UPDATED" && v.Client["current_fw_version"] == "1.1"
	}) {
		t.Error("the platform does not know that the device is updated")
	}

	fetch := func(query string) (int, []byte) {
		t.Helper()
		res, err := http.Get(p.http + "/api/v1/" + token + "/firmware" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, b
	}
	for query, want := range map[string][]byte{"?title=smoke&version=1.1": file, "?title=smoke&version=1.1&size=4096&chunk=9": file[9*4096:], "?size=4096&chunk=10": {}} {
		if status, b := fetch(query); status != http.StatusOK || !bytes.Equal(b, want) {
			t.Errorf("GET %s: %d, %d bytes, want %d", query, status, len(b), len(want))
		}
	}
	if status, b := fetch("?title=smoke&version=1.0"); status != http.StatusBadRequest || !strings.Contains(string(b), "is not to load firmware") {
		t.Errorf("another version: %d %s", status, b)
	}
	if status, b := fetch("?size=x"); status != http.StatusBadRequest {
		t.Errorf("size=x: %d %s", status, b)
	}
	if coap, err := exec.LookPath("coap-client-notls"); err == nil {
		out := filepath.Join(dir, "coap.bin")
		if b, err := exec.Command(coap, "-m", "get", "-B", "20", "-o", out, "coap://"+p.coap+"/fw/"+token+"?title=smoke&version=1.1").CombinedOutput(); err != nil {
			t.Errorf("coap-client: %v\n%s", err, b)
		}
		if b, err := os.ReadFile(out); err != nil || !bytes.Equal(b, file) {
			t.Errorf("%d bytes over CoAP are not those of the file: %v", len(b), err)
		}
	} else if os.Getenv("CI") != "" {
		t.Error("libcoap's client is not installed")
	}

	var list []citywarden.Firmware
	if err := json.Unmarshal([]byte(run("firmware", "list", "--json")), &list); err != nil || len(list) != 1 || len(list[0].Targets) != 1 || list[0].By != "admin" {
		t.Errorf("%+v, %v", list, err)
	}
	run("firmware", "delete", "smoke", "1.1")
	if got := string(next("v1/devices/me/attributes")); got != `{"deleted":["fw_checksum","fw_checksum_algorithm","fw_size","fw_title","fw_version"]}` {
		t.Errorf("told %s after the end", got)
	}
	if out := run("audit-log", "--action", "create-firmware"); !strings.Contains(out, "admin") {
		t.Errorf("audit: %s", out)
	}
}
