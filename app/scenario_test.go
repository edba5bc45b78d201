package app

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/citywarden/citywarden"
)

// TestScenarios plays the scenarios of testdata/scenarios: the whole platform in
// virtual time, with devices that speak MQTT and people who use the HTTP API
// over connections in memory. Times are those of the county (Asia/Shanghai).
// Besides testscript's own commands there are:
//
//	start 'DATE TIME'             open the platform at that time, on the folder data
//	restart [DURATION]            stop it, wait that long, start it again
//	crash [DURATION]              the same, but what it does to stop is lost, as with kill -9
//	sleep DURATION                let the time pass
//	until 'DATE TIME' | TIME      let it pass until then
//	device ID MODEL [K=V…]        register a device, or many: m1..500
//	user NAME ROLE [DEPARTMENT]   register a person
//	publish DEVICE JSON           send telemetry with QoS 1 and wait for the PUBACK, or that of many
//	                              devices; in JSON, @09:30 stands for that time of today
//	unplug DEVICE                 end its connection, or those of many; publish makes a new one
//	latest DEVICE                 print the latest values
//	series DEVICE METRIC          print the time series of the last 24 hours
//	ledger DEVICE                 print what became of its messages in the last 24 hours
//	watch                         look at the live events, as the console does
//	heard                         print the alarms and cases that they told of since the last look
//	alarms                        print the alarms, the newest first
//	alarm ID ack|reset|why|…      act on an alarm; --as USER, or admin; --reason TEXT, --for DURATION, --text TEXT, --to USER
//	alarm ID history              print what happened to it
//	service [out-of-service|in-service device ID|rule ID ENTITY] [--as USER] [--reason TEXT] [--for DURATION]
//	                              take something out of service, return it, or print what is
//	summary                       print how many alarms are active and how many of them call for a person
//	backtest RULE                 backtest the rule as it runs over all so far: it must raise what was raised
//	why-not DEVICE RULE [--at T]  print why there was no alarm
//	cases [--work-orders]         print the cases, the newest first
//	case ID                       print a case with its timeline
//	api METHOD PATH [JSON|@FILE]  call the HTTP API --as USER, or admin, and print the answer
//	evaluation BY FROM TO         print what the work on cases was worth, by area, department or post
//	notices                       print what was told of cases, the newest first
//	case ID ACTION                act on a case: --as USER, --note TEXT, --department NAME, --officer USER, --until 'DATE TIME'
//
// A command that a person would see refused prints why to stderr and wants a "!".
func TestScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("opens the whole platform")
	}
	// The clock of the NATS server is one global goroutine: inside of a bubble
	// it would keep the time from passing.
	ats.Register()
	t.Cleanup(ats.Unregister)
	p := testscript.Params{
		Dir: "testdata/scenarios",
		Setup: func(e *testscript.Env) error {
			w := &world{t: e.T().(bubble).T, dir: e.WorkDir}
			e.Values["world"] = w
			e.Defer(w.end)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start": startCommand, "restart": restartCommand, "crash": crashCommand,
			"sleep": sleepCommand, "until": untilCommand, "device": deviceCommand, "user": userCommand,
			"publish": publishCommand, "unplug": unplugCommand, "latest": latestCommand, "series": seriesCommand,
			"ledger": ledgerCommand, "watch": watchCommand, "heard": heardCommand,
			"alarms": alarmsCommand, "summary": summaryCommand, "alarm": alarmCommand, "service": serviceCommand, "backtest": backtestCommand, "why-not": whyNotCommand,
			"cases": casesCommand, "case": caseCommand, "notices": noticesCommand, "evaluation": evaluationCommand, "api": apiCommand,
		},
	}
	if raced { // the others tell of rules and cases, in the same goroutines
		p.Dir = ""
		for _, name := range []string{"backlog", "case-long-way", "merge", "restart", "rules-changed-around-a-crash", "rules-reload", "silent"} {
			p.Files = append(p.Files, filepath.Join("testdata/scenarios", name+".txtar"))
		}
	}
	testscript.RunT(bubble{t}, p)
}

// bubble runs each script in a bubble of its own, beside the others.
type bubble struct{ *testing.T }

func (b bubble) Verbose() bool { return testing.Verbose() }
func (b bubble) Parallel()     {} // inside of a bubble it can't be said any more
func (b bubble) Run(name string, f func(testscript.T)) {
	b.T.Run(name, func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) { f(bubble{t}) })
	})
}

const adminPassword = "correct horse"

var shanghai = time.FixedZone("Asia/Shanghai", 8*3600)

// world is the platform of one script and what talks to it.
type world struct {
	t       *testing.T
	dir     string // the script's folder
	data    string // the platform's
	crashes int
	began   time.Time
	stop    context.CancelFunc // nil while the platform is down
	stopped chan error
	mqtt    *pipes
	coap    *datagrams
	http    *http.Client
	tokens  map[string]string // of people, by name
	devices map[string]string // access tokens
	clients map[string]paho.Client

	mu    sync.Mutex
	heard strings.Builder // of the live events
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value("world").(*world) }

// open opens the platform on w.data and runs it.
func (w *world) open() error {
	c := Default()
	c.Data = w.data
	web := newPipes()
	w.mqtt, w.coap = newPipes(), newDatagrams()
	log := slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	a, err := Open(context.Background(), c, Options{
		Logger: log, AdminPassword: adminPassword, Listeners: Listeners{HTTP: web, MQTT: w.mqtt, CoAP: w.coap},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop, w.stopped = cancel, make(chan error, 1)
	go func() { w.stopped <- a.Run(ctx) }()
	w.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return web.Dial(ctx) },
	}}
	w.clients = map[string]paho.Client{}
	synctest.Wait()
	return nil
}

// close stops the platform, the devices first.
func (w *world) close() error {
	if w.stop == nil {
		return nil
	}
	for _, c := range w.clients {
		c.Disconnect(0)
	}
	w.http.CloseIdleConnections()
	w.stop()
	w.stop = nil
	return <-w.stopped
}

func (w *world) end() {
	if err := w.close(); err != nil {
		w.t.Errorf("the platform ended with: %v", err)
	}
	synctest.Wait()
}

// call calls the HTTP API as user; refusals are errors with the words of the API.
func (w *world) call(user, method, path string, in, out any) error {
	if w.stop == nil {
		return errors.New("the platform does not run; begin with start")
	}
	status, body, err := w.send(w.tokens[user], method, path, in)
	if err == nil && status == http.StatusUnauthorized { // not signed in yet, or not any more
		var session struct{ Token string }
		login := map[string]string{"user": user, "password": adminPassword}
		if status, body, err = w.send("", "POST", "/login", login); err == nil && status == http.StatusOK {
			if err := json.Unmarshal(body, &session); err != nil {
				return err
			}
			w.tokens[user] = session.Token
			status, body, err = w.send(session.Token, method, path, in)
		}
	}
	if err != nil {
		return err
	}
	if status/100 != 2 {
		var problem struct{ Title, Detail string }
		if json.Unmarshal(body, &problem) == nil && problem.Detail != "" {
			return refusal(problem.Detail)
		}
		return refusal(fmt.Sprintf("%d %s", status, body))
	}
	if out == nil || len(body) == 0 {
		return nil
	}
	return json.Unmarshal(body, out)
}

// refusal is what the platform says when it does not do what it is asked for.
type refusal string

func (r refusal) Error() string { return string(r) }

// table is a body that is sent as it is.
type table []byte

func (w *world) send(token, method, path string, in any) (status int, body []byte, err error) {
	b, kind := []byte(nil), "application/json"
	switch in := in.(type) {
	case table:
		b, kind = in, "text/csv"
	default:
		if b, err = json.Marshal(in); err != nil {
			return 0, nil, err
		}
	}
	r, err := http.NewRequest(method, "http://citywarden/api/v1"+path, bytes.NewReader(b))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", kind)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := w.http.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

// outcome ends a command: a refusal is printed and must have been expected, any
// other error fails the script.
func outcome(ts *testscript.TestScript, neg bool, err error) {
	fmt.Fprint(ts.Stdout(), "") // or what the command before printed stays
	fmt.Fprint(ts.Stderr(), "")
	var r refusal
	if errors.As(err, &r) {
		fmt.Fprintln(ts.Stderr(), r)
		if !neg {
			ts.Fatalf("refused: %s", r)
		}
		return
	}
	ts.Check(err)
	if neg {
		ts.Fatalf("not refused")
	}
}

// expect takes the arguments of a command apart: at least least of them, and
// "--name value" for those of names.
func expect(ts *testscript.TestScript, args []string, usage string, least, most int, names ...string) (plain []string, flags map[string]string) {
	flags = map[string]string{}
	for i := 0; i < len(args); i++ {
		name, ok := strings.CutPrefix(args[i], "--")
		switch {
		case !ok:
			plain = append(plain, args[i])
		case slices.Contains(names, name) && i+1 < len(args):
			i++
			flags[name] = args[i]
		default:
			ts.Fatalf("usage: %s", usage)
		}
	}
	if len(plain) < least || len(plain) > most {
		ts.Fatalf("usage: %s", usage)
	}
	return plain, flags
}

func as(flags map[string]string) string {
	if u := flags["as"]; u != "" {
		return u
	}
	return "admin"
}

// clock prints a time of the county.
func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.In(shanghai).Format("2006-01-02T15:04:05")
}

// moment reads "2026-11-23 08:00", "08:00" or "08:00:30", today when no day is said.
func moment(s string) (time.Time, error) {
	if !strings.Contains(s, " ") {
		s = time.Now().In(shanghai).Format(time.DateOnly) + " " + s
	}
	t, err := time.ParseInLocation("2006-01-02 15:04:05", s, shanghai)
	if err != nil {
		t, err = time.ParseInLocation("2006-01-02 15:04", s, shanghai)
	}
	return t, err
}

func startCommand(ts *testscript.TestScript, neg bool, args []string) {
	args, _ = expect(ts, args, "start 'DATE TIME'", 1, 1)
	w := worldOf(ts)
	if neg || w.data != "" {
		ts.Fatalf("start comes once; later there are restart and crash")
	}
	at, err := moment(args[0])
	ts.Check(err)
	time.Sleep(time.Until(at))
	w.began = time.Now()
	w.data, w.tokens, w.devices = filepath.Join(w.dir, "data"), map[string]string{}, map[string]string{}
	ts.Check(w.open())
}

func pauseOf(ts *testscript.TestScript, args []string, usage string) time.Duration {
	args, _ = expect(ts, args, usage, 0, 1)
	if len(args) == 0 {
		return 0
	}
	d, err := citywarden.ParseDuration(args[0])
	ts.Check(err)
	return d.Std()
}

func restartCommand(ts *testscript.TestScript, _ bool, args []string) {
	pause, w := pauseOf(ts, args, "restart [DURATION]"), worldOf(ts)
	ts.Check(w.close())
	time.Sleep(pause)
	ts.Check(w.open())
}

// crashCommand copies the folder while everything stands still: it has then
// what the disk has after kill -9. The copy is opened.
func crashCommand(ts *testscript.TestScript, _ bool, args []string) {
	pause, w := pauseOf(ts, args, "crash [DURATION]"), worldOf(ts)
	w.crashes++
	left := filepath.Join(w.dir, "data-"+strconv.Itoa(w.crashes))
	synctest.Wait()
	ts.Check(os.CopyFS(left, os.DirFS(w.data)))
	ts.Check(w.close())
	w.data = left
	time.Sleep(pause)
	ts.Check(w.open())
}

func sleepCommand(ts *testscript.TestScript, _ bool, args []string) {
	time.Sleep(pauseOf(ts, args, "sleep DURATION"))
	synctest.Wait()
}

func untilCommand(ts *testscript.TestScript, _ bool, args []string) {
	args, _ = expect(ts, args, "until 'DATE TIME'", 1, 1)
	at, err := moment(args[0])
	ts.Check(err)
	if !at.After(time.Now()) {
		ts.Fatalf("it is %s already", clock(time.Now()))
	}
	time.Sleep(time.Until(at))
	synctest.Wait()
}

func deviceCommand(ts *testscript.TestScript, neg bool, args []string) {
	args, _ = expect(ts, args, "device ID MODEL [K=V…]", 2, 20)
	var err error
	for _, id := range many(ts, args[0]) {
		if err = worldOf(ts).add(id, args[1], args[2:]); err != nil {
			break
		}
	}
	outcome(ts, neg, err)
}

// add registers a device with attributes like "zone=lobby"; "adjacent=a,b" are
// its neighbours.
func (w *world) add(id, model string, words []string) error {
	attrs, adjacent := map[string]any{}, []string{}
	for _, a := range words {
		k, v, _ := strings.Cut(a, "=")
		if k == "adjacent" {
			adjacent = strings.Split(v, ",")
			continue
		}
		attrs[k] = v
		if f, err := strconv.ParseFloat(v, 64); err == nil {
			attrs[k] = f
		}
	}
	d := map[string]any{"id": id, "name": id, "model": model, "attributes": attrs, "adjacent": adjacent}
	err := w.call("admin", "POST", "/devices", d, nil)
	if err == nil {
		var c struct{ Token string }
		err = w.call("admin", "POST", "/devices/"+id+"/credentials", map[string]string{"type": "token"}, &c)
		w.devices[id] = c.Token
	}
	return err
}

var numbered = regexp.MustCompile(`^([a-z]+)(\d+)\.\.(\d+)$`)

// many returns the devices that s names: "m1..3" is m1, m2 and m3.
func many(ts *testscript.TestScript, s string) []string {
	m := numbered.FindStringSubmatch(s)
	if m == nil {
		return []string{s}
	}
	from, err := strconv.Atoi(m[2])
	ts.Check(err)
	to, err := strconv.Atoi(m[3])
	ts.Check(err)
	var out []string
	for i := from; i <= to; i++ {
		out = append(out, m[1]+strconv.Itoa(i))
	}
	return out
}

func userCommand(ts *testscript.TestScript, neg bool, args []string) {
	args, _ = expect(ts, args, "user NAME ROLE [DEPARTMENT]", 2, 3)
	u := map[string]string{"name": args[0], "role": args[1], "password": adminPassword}
	if len(args) > 2 {
		u["department"] = args[2]
	}
	outcome(ts, neg, worldOf(ts).call("admin", "POST", "/users", u, nil))
}

var timeOfDay = regexp.MustCompile(`@\d\d:\d\d(:\d\d)?`)

func publishCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: publish DEVICE JSON")
	}
	w := worldOf(ts)
	body := timeOfDay.ReplaceAllStringFunc(strings.Join(args[1:], " "), func(s string) string {
		at, err := moment(s[1:])
		ts.Check(err)
		return strconv.FormatInt(at.UnixMilli(), 10)
	})
	var err error
	for _, id := range many(ts, args[0]) {
		if err = w.publish(id, body); err != nil {
			err = refusal(err.Error())
			break
		}
	}
	synctest.Wait()
	outcome(ts, neg, err)
}

// publish sends body as the device called id, over the connection it has.
func (w *world) publish(id, body string) error {
	c := w.clients[id]
	if c == nil || !c.IsConnectionOpen() {
		dial := w.mqtt.Dial
		o := paho.NewClientOptions().AddBroker("pipe://citywarden").SetClientID(id).SetUsername(w.devices[id]).
			SetAutoReconnect(false).SetWriteTimeout(5 * time.Second).
			SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return dial(context.Background()) })
		c = paho.NewClient(o)
		if t := c.Connect(); t.Wait() && t.Error() != nil {
			return fmt.Errorf("connect: %w", t.Error())
		}
		w.clients[id] = c
	}
	t := c.Publish("v1/devices/me/telemetry", 1, false, body)
	if !t.WaitTimeout(10 * time.Second) {
		return errors.New("no acknowledgement within 10 s")
	}
	return t.Error()
}

func unplugCommand(ts *testscript.TestScript, _ bool, args []string) {
	args, _ = expect(ts, args, "unplug DEVICE", 1, 1)
	w := worldOf(ts)
	for _, id := range many(ts, args[0]) {
		if c := w.clients[id]; c != nil {
			c.Disconnect(0)
			delete(w.clients, id)
		}
	}
	synctest.Wait()
}

func latestCommand(ts *testscript.TestScript, neg bool, args []string) {
	args, _ = expect(ts, args, "latest DEVICE", 1, 1)
	var out map[string]struct {
		Value   any
		Time    time.Time
		Quality string
	}
	err := worldOf(ts).call("admin", "GET", "/devices/"+args[0]+"/latest", nil, &out)
	for _, m := range sorted(out) {
		fmt.Fprintf(ts.Stdout(), "%s %v at %s %s\n", m, out[m].Value, clock(out[m].Time), out[m].Quality)
	}
	outcome(ts, neg, err)
}

func seriesCommand(ts *testscript.TestScript, neg bool, args []string) {
	args, _ = expect(ts, args, "series DEVICE METRIC", 2, 2)
	var out struct{ Points [][2]any }
	q := url.Values{"metric": {args[1]}, "from": {time.Now().Add(-24 * time.Hour).UTC().Format(time.RFC3339)}}
	err := worldOf(ts).call("admin", "GET", "/devices/"+args[0]+"/series?"+q.Encode(), nil, &out)
	for _, p := range out.Points {
		at, terr := time.Parse(time.RFC3339, fmt.Sprint(p[0]))
		ts.Check(terr)
		fmt.Fprintf(ts.Stdout(), "%s %v\n", clock(at), p[1])
	}
	outcome(ts, neg, err)
}

func ledgerCommand(ts *testscript.TestScript, neg bool, args []string) {
	args, _ = expect(ts, args, "ledger DEVICE", 1, 1)
	var out struct{ Items []citywarden.LedgerRow }
	time.Sleep(time.Minute) // the ledger is kept by the minute
	synctest.Wait()
	q := url.Values{"device": {args[0]}, "to": {time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}}
	err := worldOf(ts).call("admin", "GET", "/ledger?"+q.Encode(), nil, &out)
	var sum citywarden.LedgerRow
	for _, r := range out.Items {
		sum.Received += r.Received
		sum.Stored += r.Stored
		sum.Rejected += r.Rejected
		sum.Duplicate += r.Duplicate
		sum.Quarantined += r.Quarantined
	}
	fmt.Fprintf(ts.Stdout(), "received %d stored %d rejected %d duplicate %d quarantined %d\n",
		sum.Received, sum.Stored, sum.Rejected, sum.Duplicate, sum.Quarantined)
	outcome(ts, neg, err)
}

func watchCommand(ts *testscript.TestScript, neg bool, args []string) {
	expect(ts, args, "watch", 0, 0)
	w := worldOf(ts)
	outcome(ts, neg, w.call("admin", "GET", "/me", nil, nil)) // signs in
	r, err := http.NewRequest("GET", "http://citywarden/api/v1/events?kinds=alarm,case", nil)
	ts.Check(err)
	r.Header.Set("Authorization", "Bearer "+w.tokens["admin"])
	res, err := w.http.Do(r)
	ts.Check(err)
	if res.StatusCode != http.StatusOK {
		ts.Fatalf("live events: %s", res.Status)
	}
	go func() { // ends with the platform
		defer res.Body.Close()
		var kind string
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if k, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				kind = k
			}
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				w.hear(kind, data)
			}
		}
	}()
	synctest.Wait()
}

// hear notes a live event.
func (w *world) hear(kind, data string) {
	var x struct{ ID, Severity, State, Stage string }
	if err := json.Unmarshal([]byte(data), &x); err != nil {
		w.t.Errorf("event %s %s: %v", kind, data, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintln(&w.heard, strings.Join(strings.Fields(kind+" "+x.ID+" "+x.Severity+" "+x.State+" "+x.Stage), " "))
}

func heardCommand(ts *testscript.TestScript, _ bool, args []string) {
	expect(ts, args, "heard", 0, 0)
	w := worldOf(ts)
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprint(ts.Stdout(), w.heard.String())
	w.heard.Reset()
}

func alarmsCommand(ts *testscript.TestScript, neg bool, args []string) {
	expect(ts, args, "alarms", 0, 0)
	var out struct{ Items []citywarden.Alarm }
	err := worldOf(ts).call("admin", "GET", "/alarms", nil, &out)
	for _, a := range out.Items {
		acked := "unacked"
		if a.Acked {
			acked = "acked"
		}
		fmt.Fprintf(ts.Stdout(), "%s %s %s %s", a.ID, a.Severity, a.State, acked)
		if a.Latched {
			fmt.Fprint(ts.Stdout(), " latched")
		}
		if a.NoData {
			fmt.Fprint(ts.Stdout(), " no-data")
		}
		for _, s := range a.Suppressions() {
			fmt.Fprint(ts.Stdout(), " ", s)
		}
		if a.SuppressedBy != "" {
			fmt.Fprint(ts.Stdout(), " by ", a.SuppressedBy)
		}
		fmt.Fprintf(ts.Stdout(), " raised %s cleared %s case %s\n", clock(a.RaisedAt), clock(a.ClearedAt), a.Case)
	}
	outcome(ts, neg, err)
}

func alarmCommand(ts *testscript.TestScript, neg bool, args []string) {
	args, flags := expect(ts, args, "alarm ID ack|reset|why|… [--as USER] [--reason TEXT] [--for DURATION] [--text TEXT] [--to USER]", 2, 2, "as", "reason", "for", "text", "to")
	path := "/alarms/" + url.PathEscape(args[0]) + "/" + args[1]
	if args[1] == "why" {
		var why citywarden.Explanation
		err := worldOf(ts).call(as(flags), "GET", path, nil, &why)
		fmt.Fprintf(ts.Stdout(), "%s\nheld %v since %s\n", why.Summary.In("en"), why.Held, clock(why.Since))
		for _, x := range why.Inputs {
			fmt.Fprintf(ts.Stdout(), "%s.%s = %s, measured %s, arrived %s\n", x.Device, x.Metric, x.Value, clock(x.Time), clock(x.Arrived))
		}
		outcome(ts, neg, err)
		return
	}
	if args[1] == "history" {
		var out struct{ Items []citywarden.AlarmStep }
		err := worldOf(ts).call(as(flags), "GET", path, nil, &out)
		for _, s := range out.Items {
			fmt.Fprintf(ts.Stdout(), "%s %s\n", clock(s.Logged), strings.Join(strings.Fields(fmt.Sprint(s.Kind, " ", s.Severity, " ", s.By, " ", s.Reason, s.Text, s.Assignee, s.SuppressedBy)), " "))
		}
		outcome(ts, neg, err)
		return
	}
	body := map[string]any{}
	for _, k := range []string{"reason", "for", "text", "to"} {
		if v, ok := flags[k]; ok {
			body[k] = v
		}
	}
	err := worldOf(ts).call(as(flags), "POST", path, body, nil)
	synctest.Wait()
	outcome(ts, neg, err)
}

// serviceCommand orders what is about a device, or a rule and entity, and prints
// what is out of service.
func serviceCommand(ts *testscript.TestScript, neg bool, args []string) {
	args, flags := expect(ts, args, "service [out-of-service|in-service device ID|rule ID ENTITY] [--as USER] [--reason TEXT] [--for DURATION]", 0, 4, "as", "reason", "for")
	if len(args) == 0 {
		var out struct{ Items []citywarden.OutOfService }
		err := worldOf(ts).call(as(flags), "GET", "/out-of-service", nil, &out)
		for _, x := range out.Items {
			fmt.Fprintf(ts.Stdout(), "%s since %s until %s by %s: %s\n", cmp.Or(string(x.Device), string(x.Rule)+" "+x.Entity), clock(x.Since), clock(x.Until), x.By, x.Reason)
		}
		outcome(ts, neg, err)
		return
	}
	body := map[string]any{}
	for _, k := range []string{"reason", "for"} {
		if v, ok := flags[k]; ok {
			body[k] = v
		}
	}
	if len(args) == 4 {
		body["entity"] = args[3]
	}
	err := worldOf(ts).call(as(flags), "POST", "/"+args[1]+"s/"+url.PathEscape(args[2])+"/"+args[0], body, nil)
	synctest.Wait()
	outcome(ts, neg, err)
}

// summaryCommand prints how many alarms call for a person, how many of them nobody
// has acknowledged, and how many others are active.
func summaryCommand(ts *testscript.TestScript, neg bool, args []string) {
	expect(ts, args, "summary", 0, 0)
	time.Sleep(time.Second) // it may be so old
	synctest.Wait()
	var out struct {
		Alarms struct{ Active, Unacked, Suppressed int }
	}
	err := worldOf(ts).call("admin", "GET", "/summary", nil, &out)
	fmt.Fprintf(ts.Stdout(), "alarms %d unacked %d suppressed %d\n", out.Alarms.Active, out.Alarms.Unacked, out.Alarms.Suppressed)
	outcome(ts, neg, err)
}

func backtestCommand(ts *testscript.TestScript, neg bool, args []string) {
	args, _ = expect(ts, args, "backtest RULE", 1, 1)
	w := worldOf(ts)
	time.Sleep(time.Second) // what comes now is before that
	synctest.Wait()
	var rule citywarden.Rule
	outcome(ts, neg, w.call("admin", "GET", "/rules/"+args[0], nil, &rule))
	var out citywarden.Backtest
	outcome(ts, neg, w.call("admin", "POST", "/rules/backtest", map[string]any{"text": "rules:\n" + rule.Text, "from": w.began}, &out))
	var alarms struct{ Items []citywarden.Alarm }
	outcome(ts, neg, w.call("admin", "GET", "/alarms?limit=1000&rule="+args[0], nil, &alarms))
	tell := func(in, entity string, sev citywarden.Severity, raised, cleared time.Time) string {
		return fmt.Sprintf("%s %s %s raised %s cleared %s\n", in, entity, sev, clock(raised), clock(cleared))
	}
	want, got := "", ""
	for _, a := range slices.Backward(alarms.Items) {
		want += tell("both", a.Entity, a.Severity, a.RaisedAt, a.ClearedAt)
	}
	for _, a := range out.Rules[0].Alarms {
		got += tell(a.In, a.Entity, a.Severity, a.Raised, a.Cleared)
		if !a.Raised.Equal(a.NowRaised) || !a.Cleared.Equal(a.NowCleared) {
			ts.Fatalf("the same rule, but not the same alarm: %+v", a)
		}
	}
	if got != want {
		ts.Fatalf("the backtest raises:\n%slive there were:\n%s", got, want)
	}
	fmt.Fprint(ts.Stdout(), got)
}

func whyNotCommand(ts *testscript.TestScript, neg bool, args []string) {
	args, flags := expect(ts, args, "why-not DEVICE RULE [--at T]", 2, 2, "at")
	q := url.Values{"device": {args[0]}}
	if at := flags["at"]; at != "" {
		t, err := moment(at)
		ts.Check(err)
		q.Set("at", t.Format(time.RFC3339))
	}
	var x citywarden.WhyNot
	err := worldOf(ts).call("admin", "GET", "/rules/"+args[1]+"/why-not?"+q.Encode(), nil, &x)
	fmt.Fprintf(ts.Stdout(), "%s: %s\n", x.Reason, x.Summary.EN)
	outcome(ts, neg, err)
}

func casesCommand(ts *testscript.TestScript, neg bool, args []string) {
	path := "/cases"
	if slices.Equal(args, []string{"--work-orders"}) {
		path += "?work_orders=true"
	} else {
		expect(ts, args, "cases [--work-orders]", 0, 0)
	}
	var out struct{ Items []citywarden.Case }
	err := worldOf(ts).call("admin", "GET", path, nil, &out)
	for _, c := range out.Items {
		printCase(ts, &c)
	}
	outcome(ts, neg, err)
}

func printCase(ts *testscript.TestScript, c *citywarden.Case) {
	normal := "not normal"
	if c.Normal {
		normal = "back to normal"
	}
	fmt.Fprintf(ts.Stdout(), "%s %s %s %s deadline %s %s", c.ID, c.Key, c.Stage, normal, clock(c.Deadline), c.Light)
	for _, a := range c.Alarms {
		fmt.Fprint(ts.Stdout(), " ", a)
	}
	fmt.Fprintln(ts.Stdout())
}

func caseCommand(ts *testscript.TestScript, neg bool, args []string) {
	args, flags := expect(ts, args, "case ID [ACTION] [--as USER] [--note TEXT] [--department NAME] [--officer USER] [--until 'DATE TIME']", 1, 2, "as", "note", "department", "officer", "until")
	w, path, method := worldOf(ts), "/cases/"+url.PathEscape(args[0]), "GET"
	body := map[string]string{}
	if len(args) > 1 {
		method, path = "POST", path+"/actions/"+url.PathEscape(args[1])
		for _, k := range []string{"note", "department", "officer"} {
			if v := flags[k]; v != "" {
				body[k] = v
			}
		}
		if v := flags["until"]; v != "" {
			at, err := time.ParseInLocation("2006-01-02 15:04", v, shanghai)
			ts.Check(err)
			body["until"] = at.Format(time.RFC3339)
		}
	}
	var c citywarden.Case
	err := w.call(as(flags), method, path, body, &c)
	if err == nil {
		printCase(ts, &c)
		for _, s := range c.Timeline {
			note := s.Note
			if s.Text != nil {
				note = s.Text.EN
			}
			fmt.Fprintf(ts.Stdout(), "  %s %s by %s: %s\n", clock(s.At), s.Action, s.By, note)
		}
	}
	synctest.Wait()
	outcome(ts, neg, err)
}

func apiCommand(ts *testscript.TestScript, neg bool, args []string) {
	args, flags := expect(ts, args, "api METHOD PATH [JSON|@FILE] [--as USER]", 2, 3, "as")
	var in any
	if len(args) == 3 {
		in = json.RawMessage(args[2])
		if name, ok := strings.CutPrefix(args[2], "@"); ok {
			in = table(ts.ReadFile(name))
		}
	}
	var out json.RawMessage
	err := worldOf(ts).call(as(flags), args[0], args[1], in, &out)
	fmt.Fprintf(ts.Stdout(), "%s\n", out)
	synctest.Wait()
	outcome(ts, neg, err)
}

func noticesCommand(ts *testscript.TestScript, neg bool, args []string) {
	expect(ts, args, "notices", 0, 0)
	var out struct{ Items []citywarden.Notice }
	err := worldOf(ts).call("admin", "GET", "/notices?limit=1000", nil, &out)
	for _, n := range out.Items {
		fmt.Fprintf(ts.Stdout(), "%s %s %s to %q %s %s: %s\n", clock(n.At), n.Kind, n.Case, n.Receiver, n.State, n.Severity, n.Text.EN)
	}
	outcome(ts, neg, err)
}

func evaluationCommand(ts *testscript.TestScript, neg bool, args []string) {
	args, _ = expect(ts, args, "evaluation BY FROM TO", 3, 3)
	var e citywarden.Evaluation
	err := worldOf(ts).call("admin", "GET", "/evaluation?"+url.Values{"by": {args[0]}, "from": {args[1]}, "to": {args[2]}}.Encode(), nil, &e)
	for _, r := range e.Rows {
		fmt.Fprintf(ts.Stdout(), "%s:", r.Key)
		for _, f := range r.Figures {
			fmt.Fprintf(ts.Stdout(), " %s %d/%d", f.Indicator, f.Cases, f.Of)
		}
		if r.Score != nil {
			fmt.Fprintf(ts.Stdout(), " = %.2f %s", *r.Score, r.Grade)
		}
		fmt.Fprintln(ts.Stdout())
	}
	outcome(ts, neg, err)
}

func sorted[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
