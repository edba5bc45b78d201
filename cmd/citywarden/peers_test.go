package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp/coder"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/citywarden/citywarden"
)

// edgeNode is a node of Sparkplug B, which keeps its connection from one command of the script to the next.
type edgeNode struct {
	client      paho.Client
	conn        net.Conn // of client
	group, name string
	mu          sync.Mutex
	heard       []string
}

// nodeCommand is the node of a script, see TestScripts.
func nodeCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	switch {
	case len(args) == 6 && args[0] == "connect":
		n := &edgeNode{group: args[3], name: args[4]}
		death := payloadOf(ts, -1, []string{"bdSeq:UInt64=" + args[5]})
		o := paho.NewClientOptions().AddBroker("tcp://"+args[1]).SetUsername(args[2]).SetClientID(args[4]).SetAutoReconnect(false).SetConnectTimeout(5*time.Second).
			SetBinaryWill("spBv1.0/"+n.group+"/NDEATH/"+n.name, death, 1, false)
		o.SetCustomOpenConnectionFn(func(at *url.URL, _ paho.ClientOptions) (c net.Conn, err error) {
			n.conn, err = net.Dial("tcp", at.Host)
			return n.conn, err
		})
		n.client = paho.NewClient(o)
		ts.Check(arrived(n.client.Connect()))
		space := "spBv1.0/" + n.group + "/"
		ts.Check(arrived(n.client.SubscribeMultiple(map[string]byte{space + "NCMD/" + n.name: 1, space + "DCMD/" + n.name + "/#": 1, "spBv1.0/STATE/citywarden": 1}, n.hear)))
		w.node = n
		ts.Defer(func() { n.client.Disconnect(0) })
	case w.node == nil:
		ts.Fatalf("usage: node connect ADDR TOKEN GROUP NODE BDSEQ")
	case len(args) >= 3 && args[0] == "says":
		seq, err := strconv.Atoi(args[2])
		ts.Check(err)
		what, device, _ := strings.Cut(args[1], "/")
		topic := "spBv1.0/" + w.node.group + "/" + what + "/" + w.node.name
		if device != "" {
			topic += "/" + device
		}
		ts.Check(arrived(w.node.client.Publish(topic, 0, false, payloadOf(ts, seq, args[3:]))))
	case len(args) == 2 && args[0] == "hears":
		re, err := regexp.Compile(args[1])
		ts.Check(err)
		heard := func() bool {
			w.node.mu.Lock()
			defer w.node.mu.Unlock()
			for i, h := range w.node.heard {
				if re.MatchString(h) {
					w.node.heard = w.node.heard[i+1:]
					return true
				}
			}
			return false
		}
		if !wait(30*time.Second, heard) {
			ts.Fatalf("the node does not hear %s, but %q; the platform said:\n%s", re, w.node.heard, w.stderr)
		}
	case len(args) == 1 && args[0] == "breaks": // without DISCONNECT: its will is published
		ts.Check(w.node.conn.Close())
	default:
		ts.Fatalf("usage: node connect|says|hears|breaks …")
	}
}

// arrived waits until what t stands for has arrived.
func arrived(t paho.Token) error {
	if !t.WaitTimeout(10 * time.Second) {
		return errors.New("no answer within 10 s")
	}
	return t.Error()
}

func (n *edgeNode) hear(_ paho.Client, m paho.Message) {
	text := string(m.Payload())
	if p, err := citywarden.ParseSparkplug(m.Payload()); err == nil {
		text = ""
		for i := range p.Metrics {
			v, _ := p.Metrics[i].Value()
			text += fmt.Sprintf(" %s:%d=%v", p.Metrics[i].Name, p.Metrics[i].Alias, v)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard = append(n.heard, m.Topic()+text)
}

var metricText = regexp.MustCompile(`^([^:=]*?)(?::(\d+))?(?::(UInt64|Boolean|String))?=(.*)$`)

// payloadOf writes metrics, each NAME:ALIAS:TYPE=VALUE, of which all but the value may be left out.
func payloadOf(ts *testscript.TestScript, seq int, metrics []string) []byte {
	p := citywarden.SparkplugPayload{Time: uint64(time.Now().UnixMilli()), Seq: uint64(max(seq, 0)), HasSeq: seq >= 0}
	for _, text := range metrics {
		part := metricText.FindStringSubmatch(text)
		if part == nil {
			ts.Fatalf("%q is no metric: write NAME:ALIAS:TYPE=VALUE", text)
		}
		m := citywarden.SparkplugMetric{Name: part[1], Type: citywarden.SparkplugDouble}
		m.Alias, _ = strconv.ParseUint(part[2], 10, 64)
		m.HasAlias = part[2] != ""
		f, _ := strconv.ParseFloat(part[4], 64)
		v := citywarden.Number(f)
		switch part[3] {
		case "UInt64":
			m.Type = citywarden.SparkplugUInt64
		case "Boolean":
			m.Type, v = citywarden.SparkplugBoolean, citywarden.Bool(part[4] == "true")
		case "String":
			m.Type, v = citywarden.SparkplugString, citywarden.TextValue(part[4])
		}
		ts.Check(m.Set(v))
		p.Metrics = append(p.Metrics, m)
	}
	return p.Append(nil)
}

// mosquittoCommand starts the broker of a script, see TestScripts.
func mosquittoCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: mosquitto FILE TOPICS")
	}
	addr, _, stop, err := mosquitto(ts.MkAbs("."))
	ts.Check(err)
	ts.Defer(stop)
	ts.Setenv("CITY", addr)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), fmt.Appendf(nil, "uplinks:\n- {name: city, url: 'tcp://%s', client_id: citywarden, topics: [%s]}\n", addr, args[1]), 0o600))
}

// mosquitto starts a broker that lets everybody in; it keeps what it writes in dir.
func mosquitto(dir string) (addr string, pid int, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", 0, nil, err
	}
	addr = l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	_ = l.Close()
	conf := "listener " + port + " 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
	if os.Getuid() == 0 {
		conf += "user root\n"
	}
	file := filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return "", 0, nil, err
	}
	cmd := exec.Command("mosquitto", "-c", file)
	if err := cmd.Start(); err != nil {
		return "", 0, nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	listens := func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}
	if !wait(10*time.Second, listens) {
		stop()
		return "", 0, nil, fmt.Errorf("mosquitto does not listen at %s", addr)
	}
	return addr, cmd.Process.Pid, stop, nil
}

// lwm2mClient is a client of LwM2M over UDP.
type lwm2mClient struct {
	conn     net.PacketConn
	location string
	id       int32
	tokens   map[string]message.Token // of what is observed, by path
}

// clientCommand is the client of LwM2M of a script, see TestScripts.
func clientCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	if len(args) >= 3 && args[0] == "registers" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		ts.Check(err)
		ts.Defer(func() { _ = conn.Close() })
		w.client = &lwm2mClient{conn: conn, id: rand.Int32N(10000), tokens: map[string]message.Token{}}
		a := w.client.ask(ts, codes.POST, "rd", 40, args[2], append([]string{"ep=" + args[1]}, args[3:]...)...)
		for _, o := range a.Options {
			if o.ID == message.LocationPath {
				w.client.location = strings.TrimPrefix(w.client.location+"/"+string(o.Value), "/")
			}
		}
		w.client.must(ts, a, neg)
		return
	}
	c := w.client
	switch {
	case c == nil || len(args) == 0:
		ts.Fatalf("usage: client registers TOKEN LINKS QUERY…")
	case len(args) == 3 && args[0] == "answers": // a request for a resource, which may observe it
		q := c.receive(ts)
		if got := fmt.Sprintf("%s %s %s", q.Code, pathOf(q), q.Payload); strings.TrimSpace(got) != args[1] {
			ts.Fatalf("asked for %q, want %q", got, args[1])
		}
		m := message.Message{Type: message.Acknowledgement, Code: codes.Changed, MessageID: q.MessageID, Token: q.Token}
		if q.Code == codes.GET {
			c.tokens[pathOf(q)] = q.Token
			m.Code, m.Payload, m.Options = codes.Content, []byte(args[2]), message.Options{{ID: message.Observe, Value: []byte{1}}}
		}
		c.send(ts, m)
	case len(args) == 3 && args[0] == "notifies":
		c.id++
		c.send(ts, message.Message{Type: message.Confirmable, Code: codes.Content, MessageID: c.id, Token: c.tokens[args[1]], Payload: []byte(args[2]), Options: message.Options{{ID: message.Observe, Value: []byte{byte(c.id)}}}})
		if a := c.receive(ts); (a.Type != message.Acknowledgement || a.MessageID != c.id) != neg {
			ts.Fatalf("the notification is answered %v", a)
		}
	case len(args) == 2 && args[0] == "sends":
		c.must(ts, c.ask(ts, codes.POST, "dp", byte(message.AppSenmlJSON), args[1]), neg)
	case len(args) == 1 && args[0] == "updates":
		c.must(ts, c.ask(ts, codes.POST, c.location, 40, ""), neg)
	case len(args) == 1 && args[0] == "leaves":
		c.must(ts, c.ask(ts, codes.DELETE, c.location, 40, ""), neg)
	default:
		ts.Fatalf("usage: client registers|answers|notifies|sends|updates|leaves …")
	}
}

func pathOf(m message.Message) string {
	p, _ := m.Options.Path()
	return strings.TrimPrefix(p, "/")
}

// must prints how a request was answered, and wants it granted, or refused.
func (c *lwm2mClient) must(ts *testscript.TestScript, a message.Message, neg bool) {
	fmt.Fprintf(ts.Stdout(), "%d.%02d %s\n", a.Code>>5, a.Code&31, a.Payload)
	if (a.Code>>5 != 2) != neg {
		ts.Fatalf("answered %d.%02d %s", a.Code>>5, a.Code&31, a.Payload)
	}
}

func (c *lwm2mClient) send(ts *testscript.TestScript, m message.Message) {
	size, err := coder.DefaultCoder.Size(m)
	ts.Check(err)
	b := make([]byte, size)
	_, err = coder.DefaultCoder.Encode(m, b)
	ts.Check(err)
	at, err := net.ResolveUDPAddr("udp", ts.Getenv("COAP")) // after a restart it is another
	ts.Check(err)
	_, err = c.conn.WriteTo(b, at)
	ts.Check(err)
}

func (c *lwm2mClient) receive(ts *testscript.TestScript) message.Message {
	_ = c.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, 2000)
	n, _, err := c.conn.ReadFrom(b)
	ts.Check(err)
	m := message.Message{Options: make(message.Options, 0, 16)}
	_, err = coder.DefaultCoder.Decode(b[:n], &m)
	ts.Check(err)
	return m
}

func (c *lwm2mClient) ask(ts *testscript.TestScript, code codes.Code, path string, format byte, body string, queries ...string) message.Message {
	c.id++
	m := message.Message{Type: message.Confirmable, Code: code, MessageID: c.id, Token: message.Token{byte(c.id), 7}, Payload: []byte(body)}
	for p := range strings.SplitSeq(path, "/") {
		m.Options = append(m.Options, message.Option{ID: message.URIPath, Value: []byte(p)})
	}
	m.Options = append(m.Options, message.Option{ID: message.ContentFormat, Value: []byte{format}})
	for _, q := range queries {
		m.Options = append(m.Options, message.Option{ID: message.URIQuery, Value: []byte(q)})
	}
	c.send(ts, m)
	return c.receive(ts)
}
