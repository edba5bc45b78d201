package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/udp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/citywarden/citywarden/store/pgtest"
)

func TestMain(m *testing.M) {
	// Most of these tests wait for a platform more than they work: twice as many run at once as there are processors, unless
	// -parallel says how many, or the platforms are slow.
	if !raced {
		if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))); err != nil { // before the arguments are parsed
			panic(err)
		}
	}
	testscript.Main(m, map[string]func(){"citywarden": main, "mochi-sink": sinkProgram, "ack-path": ackProgram})
}

// TestScripts plays the scripts of testdata/script with the real binary on free
// ports. Besides testscript's own commands there are:
//
//	serve [ARG…]              start `citywarden serve ARG…` and wait until it is ready; sets
//	                          CITYWARDEN_SERVER, HTTP, MQTT, COAP
//	halt [SIGNAL]             TERM (the default), INT or KILL; waits for the end; ! halt wants exit code ≠ 0
//	publish TOKEN JSON        one MQTT QoS 1 message to v1/devices/me/telemetry; ! publish wants it refused
//	post TOKEN JSON           the same over HTTP; prints the answer, ! post wants a 4xx or 5xx
//	coap TOKEN JSON           the same over CoAP; prints the code, ! coap wants a 4.xx or 5.xx
//	raw PROTOCOL TOKEN HEX    a payload in the model's own format over mqtt, http or coap, as those do
//	push TOKEN/WHAT FILE      a file to /api/v1/TOKEN/WHAT over HTTP; push TOKEN mqtt TOPIC FILE over MQTT
//	api METHOD PATH [JSON]    call the HTTP API as admin and print the answer; ! api wants a 4xx or 5xx
//	await REGEXP CMD…         run a citywarden command, or "api-get PATH", until its output matches, at most 30 s
//	node connect ADDR TOKEN GROUP NODE BDSEQ   an edge node of Sparkplug B; then node says NBIRTH SEQ METRIC… (DDATA/pump for a
//	                          device; a metric is NAME:ALIAS:TYPE=VALUE), node hears REGEXP (TOPIC NAME:ALIAS=VALUE…), node breaks
//	client registers TOKEN LINKS QUERY…   a client of LwM2M; then client answers 'GET 3303/0/5700' VALUE (what it is asked), client
//	                          notifies PATH VALUE, sends SENML, updates and leaves
//	mosquitto FILE TOPICS     start a mosquitto at $CITY and write a configuration to FILE that takes these topics from it
//	postgres FILE             start a PostgreSQL and write a configuration to FILE that uses it; the
//	                          condition [postgres] says whether there is one to start
//	grab VAR REGEXP           set VAR to the first group of REGEXP in what was printed last; grab-error: in the errors
//	everywhere CMD…           run a citywarden command in UTC, Shanghai and New York: it prints the same, all times with the
//	                          county's offset, +08:00, and one at least; the errors too
func TestScripts(t *testing.T) {
	t.Parallel() // else all other tests wait for the slowest script
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			w := &world{}
			e.Values["world"] = w
			e.Defer(w.kill)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("TZ", "Asia/Shanghai")
			e.Setenv("CITYWARDEN_ADMIN_PASSWORD", testPassword)
			e.Setenv("CITYWARDEN_PASSWORD", testPassword)
			return nil
		},
		// One that is called like a command of testscript, as stop is, would never run.
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": serveCommand, "halt": haltCommand, "publish": publishCommand, "post": postCommand,
			"coap": coapCommand, "raw": rawCommand, "push": pushCommand, "api": apiCommand, "await": awaitCommand, "grab": grabCommand("stdout"), "grab-error": grabCommand("stderr"), "everywhere": everywhereCommand,
			"postgres": postgresCommand, "node": nodeCommand, "client": clientCommand, "mosquitto": mosquittoCommand,
		},
		Condition: func(name string) (bool, error) {
			if name == "postgres" {
				return pgtest.Installed(), nil
			}
			return false, fmt.Errorf("unknown condition %s", name)
		},
	})
}

// world is the one platform process of a script.
type world struct {
	*process
	node   *edgeNode
	client *lwm2mClient
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value("world").(*world) }

func (w *world) kill() {
	if w.process != nil {
		_ = w.cmd.Process.Kill()
		<-w.done
		w.process = nil
	}
}

func serveCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	if neg || w.process != nil {
		ts.Fatalf("the platform runs already, or ! serve was said")
	}
	data := "data"
	if len(args) > 1 && args[0] == "--data" {
		data, args = args[1], args[2:]
	}
	p, err := launch(ts.MkAbs("."), data, args...)
	ts.Check(err)
	w.process = p
	ts.Setenv("CITYWARDEN_SERVER", p.http)
	ts.Setenv("HTTP", strings.TrimPrefix(p.http, "http://"))
	ts.Setenv("MQTT", p.mqtt)
	ts.Setenv("COAP", p.coap)
	fmt.Fprint(ts.Stdout(), p.stdout)
}

func haltCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	if w.process == nil {
		ts.Fatalf("the platform does not run")
	}
	sig := syscall.SIGTERM
	if len(args) > 0 {
		known := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}
		var ok bool
		if sig, ok = known[args[0]]; !ok {
			ts.Fatalf("signal TERM, INT or KILL, not %s", args[0])
		}
	}
	err := w.stop(sig)
	fmt.Fprint(ts.Stderr(), w.stderr)
	if sig != syscall.SIGKILL && (err != nil) != neg {
		ts.Fatalf("stopped with %v:\n%s", err, w.stderr)
	}
	w.process = nil
}

func postgresCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: postgres FILE")
	}
	s, err := pgtest.Start()
	ts.Check(err)
	ts.Defer(func() { ts.Check(s.Stop()) })
	url, err := s.Create("citywarden")
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte("sql: {url: \""+url+"\"}\n"), 0o600))
}

func publishCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: publish TOKEN JSON")
	}
	err := publish(ts.Getenv("MQTT"), args[0], args[1])
	if (err != nil) != neg {
		ts.Fatalf("publish: %v", err)
	}
	fmt.Fprintln(ts.Stderr(), err)
}

// publish sends one telemetry message and waits for its acknowledgement.
func publish(addr, token, body string) error {
	return publishTo(addr, token, "v1/devices/me/telemetry", []byte(body))
}

func publishTo(addr, token, topic string, body []byte) error {
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + addr).SetUsername(token).
		SetAutoReconnect(false).SetConnectTimeout(5 * time.Second))
	if t := c.Connect(); !t.WaitTimeout(10*time.Second) || t.Error() != nil {
		return fmt.Errorf("connect: %w", errors.Join(t.Error(), context.DeadlineExceeded))
	}
	defer c.Disconnect(50)
	t := c.Publish(topic, 1, false, body)
	if !t.WaitTimeout(10 * time.Second) {
		return errors.New("no acknowledgement within 10 s")
	}
	return t.Error()
}

func postCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: post TOKEN JSON")
	}
	request(ts, neg, "POST", ts.Getenv("CITYWARDEN_SERVER")+"/api/v1/"+args[0]+"/telemetry", args[1], "")
}

func apiCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: api METHOD PATH [JSON]")
	}
	c, err := adminOf(ts).client(context.Background())
	ts.Check(err)
	request(ts, neg, args[0], c.base+args[1], strings.Join(args[2:], " "), c.token)
}

func request(ts *testscript.TestScript, neg bool, method, url, body, token string) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	ts.Check(err)
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%d %s\n", res.StatusCode, b)
	if (res.StatusCode/100 != 2) != neg {
		ts.Fatalf("%s %s: %d %s", method, url, res.StatusCode, b)
	}
}

func coapCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: coap TOKEN JSON")
	}
	coapPost(ts, neg, args[0]+"/telemetry", message.AppJSON, []byte(args[1]))
}

// rawCommand sends bytes that are no JSON.
func rawCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: raw mqtt|http|coap TOKEN HEX")
	}
	body, err := hex.DecodeString(args[2])
	ts.Check(err)
	switch args[0] {
	case "mqtt":
		if err := publishTo(ts.Getenv("MQTT"), args[1], "v1/devices/me/raw", body); (err != nil) != neg {
			ts.Fatalf("raw: %v", err)
		}
	case "http":
		request(ts, neg, "POST", ts.Getenv("CITYWARDEN_SERVER")+"/api/v1/"+args[1]+"/raw", string(body), "")
	default:
		coapPost(ts, neg, args[1]+"/raw", message.AppOctets, body)
	}
}

// pushCommand is a network server.
func pushCommand(ts *testscript.TestScript, neg bool, args []string) {
	body := []byte(ts.ReadFile(args[len(args)-1]))
	if len(args) == 4 {
		if err := publishTo(ts.Getenv("MQTT"), args[0], args[2], body); (err != nil) != neg {
			ts.Fatalf("push: %v", err)
		}
		return
	}
	request(ts, neg, "POST", ts.Getenv("CITYWARDEN_SERVER")+"/api/v1/"+args[0], string(body), "")
}

func coapPost(ts *testscript.TestScript, neg bool, path string, format message.MediaType, body []byte) {
	c, err := udp.Dial(ts.Getenv("COAP"))
	ts.Check(err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	res, err := c.Post(ctx, "/api/v1/"+path, format, bytes.NewReader(body))
	ts.Check(err)
	b, _ := res.ReadBody()
	fmt.Fprintf(ts.Stdout(), "%v %s\n", res.Code(), b)
	if (byte(res.Code())>>5 != 2) != neg {
		ts.Fatalf("coap: %v %s", res.Code(), b)
	}
}

func awaitCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: await REGEXP citywarden ARG… or await REGEXP api-get PATH")
	}
	re, err := regexp.Compile(`(?m)` + args[0])
	ts.Check(err)
	admin, err := adminOf(ts).client(context.Background()) // once: each time costs as much as 50 ms of a processor
	ts.Check(err)
	var out string
	look := func() bool {
		if args[1] == "api-get" {
			out = get(admin, args[2])
		} else {
			cmd := exec.Command(args[1], args[2:]...)
			cmd.Dir = ts.MkAbs(".")
			cmd.Env = append(os.Environ(), "CITYWARDEN_SERVER="+ts.Getenv("CITYWARDEN_SERVER"), "CITYWARDEN_TOKEN="+admin.token, "TZ="+ts.Getenv("TZ"))
			b, err := cmd.CombinedOutput()
			if out = string(b); err != nil {
				return false
			}
		}
		return re.MatchString(out)
	}
	if !wait(30*time.Second, look) {
		ts.Fatalf("nothing matched %s; last:\n%s\nthe platform said:\n%s", re, out, worldOf(ts).stderr)
	}
	fmt.Fprint(ts.Stdout(), out)
}

// adminOf is the admin of a script's platform.
func adminOf(ts *testscript.TestScript) *remote {
	return &remote{Server: ts.Getenv("CITYWARDEN_SERVER"), User: "admin", Password: ts.Getenv("CITYWARDEN_PASSWORD")}
}

// get returns what the API answers to c.
func get(c *client, path string) string {
	var b strings.Builder
	if err := c.call(context.Background(), "GET", path, nil, io.Writer(&b)); err != nil {
		return err.Error()
	}
	return b.String()
}

func grabCommand(from string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 2 {
			ts.Fatalf("usage: grab VAR REGEXP")
		}
		text := ts.ReadFile(from)
		re, err := regexp.Compile(`(?m)` + args[1])
		ts.Check(err)
		m := re.FindStringSubmatch(text)
		if len(m) < 2 {
			ts.Fatalf("no match for %s in:\n%s", re, text)
		}
		ts.Setenv(args[0], m[1])
	}
}

var (
	anyTime    = regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d\S*`)
	countyTime = regexp.MustCompile(`^\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?\+08:00\W?$`)
)

func everywhereCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: everywhere citywarden ARG…")
	}
	home, first := ts.Getenv("TZ"), ""
	for _, zone := range []string{"UTC", "Asia/Shanghai", "America/New_York"} {
		ts.Setenv("TZ", zone)
		ts.Check(ts.Exec(args[0], args[1:]...))
		out := ts.ReadFile("stdout") + ts.ReadFile("stderr")
		times := anyTime.FindAllString(out, -1)
		if times == nil {
			ts.Fatalf("no time in:\n%s", out)
		}
		for _, at := range times {
			if !countyTime.MatchString(at) {
				ts.Fatalf("with TZ=%s there is %q, which is not the county's time:\n%s", zone, at, out)
			}
		}
		if first == "" {
			first = out
		}
		if out != first {
			ts.Fatalf("in UTC:\n%s\nwith TZ=%s:\n%s", first, zone, out)
		}
	}
	ts.Setenv("TZ", home)
}
