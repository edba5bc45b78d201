package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// buffer is a bytes.Buffer that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends p.
func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns what was written so far.
func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// testPassword is the admin's in the platforms that tests start.
const testPassword = "a password for tests"

// process is a platform that a test started, with the addresses that it printed.
type process struct {
	cmd              *exec.Cmd
	done             chan struct{} // closed when it has ended, with err
	err              error
	stdout, stderr   *buffer
	http, mqtt, coap string
}

var greetingLine = regexp.MustCompile(`(?m)^  (console|MQTT|CoAP) +(\S+)`)

// launch starts `citywarden serve --data data ARG…` on free ports and waits
// until it has printed its greeting.
func launch(dir, data string, args ...string) (*process, error) {
	bin, err := exec.LookPath("citywarden") // put there by testscript.Main
	if err != nil {
		return nil, err
	}
	args = append([]string{"serve", "--data", data, "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--coap", "127.0.0.1:0"}, args...)
	p := &process{cmd: exec.Command(bin, args...), done: make(chan struct{}), stdout: &buffer{}, stderr: &buffer{}}
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), "CITYWARDEN_ADMIN_PASSWORD="+testPassword, "TZ=Asia/Shanghai")
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	ready := func() bool { return strings.Contains(p.stdout.String(), "  CoAP") || p.ended() }
	if !wait(30*time.Second, ready) || p.ended() {
		_ = p.cmd.Process.Kill()
		<-p.done
		return nil, fmt.Errorf("the platform did not become ready: %v\n%s%s", p.err, p.stdout, p.stderr)
	}
	for _, m := range greetingLine.FindAllStringSubmatch(p.stdout.String(), -1) {
		switch m[1] {
		case "console":
			p.http = m[2]
		case "MQTT":
			p.mqtt = m[2]
		case "CoAP":
			if p.coap == "" { // that of UDP comes first
				p.coap = m[2]
			}
		}
	}
	return p, nil
}

// metrics is what Prometheus gets; nil, and t has failed, when it gets nothing. Any goroutine may ask.
func (p *process) metrics(t *testing.T) []byte {
	t.Helper()
	res, err := http.Get(p.http + "/metrics")
	if err != nil {
		t.Error(err)
		return nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("/metrics: %s, %v", res.Status, err)
		return nil
	}
	return b
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop sends sig and waits for the end, at most the 10 s that a clean stop may
// take; it returns how the process ended.
func (p *process) stop(sig os.Signal) error {
	if p.ended() {
		return p.err
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("it did not stop within 10 s of %v", sig)
	}
}

// wait calls ok until it returns true, at most for limit.
func wait(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}
