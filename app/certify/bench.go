package certify

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/ingest"
)

const (
	maxMessages  = 500         // that a report shows
	maxKeepAlive = 20 * 60     // seconds
	maxSkew      = time.Minute // that a clock may be off
)

// bench is what is known of the device.
type bench struct {
	Options
	pipeline *ingest.Pipeline
	device   *citywarden.Device
	began    time.Time

	mu        sync.Mutex
	checks    []Check
	messages  []Message
	more      int // messages that the report does not show
	greeted   bool
	commanded bool

	conns    []net.Conn
	heard    time.Time     // when the newest sign of life of the device came
	gap      time.Duration // the longest between two
	last     time.Time     // when the newest telemetry came
	usual    time.Duration // the shortest between two
	count    int           // messages, until the outage
	metrics  map[measured]bool
	children map[citywarden.DeviceID]*citywarden.Device // behind the gateway that is looked at
	met      map[citywarden.DeviceID]bool               // those of them that it connected
	timed    int                                        // messages with a time of their own
	leastLag time.Duration

	withheld  []byte // the payload that was not acknowledged
	cut, back time.Time
	after     int    // messages since it is back
	attempts  int    // connections while nobody was let in
	protocol  string // over which the outage is played
}

// measured is a metric of the device, or of one behind it.
type measured struct {
	device citywarden.DeviceID
	metric citywarden.MetricName
}

// fact is what was seen, in both languages: two formats of the same arguments.
func fact(en, zh string, args ...any) citywarden.Text {
	return citywarden.Text{EN: fmt.Sprintf(en, args...), ZH: fmt.Sprintf(zh, args...)}
}

// same is a fact that reads the same in both languages, or that others have put in words.
func same(s string) citywarden.Text { return citywarden.Text{EN: s, ZH: s} }

// set says what became of a check; what failed once stays so. It needs mu.
func (b *bench) set(id string, state State, seen citywarden.Text, bytes string) {
	i := slices.IndexFunc(b.checks, func(c Check) bool { return c.ID == id })
	c := &b.checks[i]
	if c.State == Failed {
		return
	}
	news := c.State != state
	c.State, c.Seen, c.Bytes = state, seen, clip(bytes)
	if news && b.Told != nil && state != NotSeen {
		b.Told(*c)
	}
}

func (b *bench) pass(id string, seen citywarden.Text) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(id, Passed, seen, "")
}

func (b *bench) fail(id string, seen citywarden.Text, bytes string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(id, Failed, seen, bytes)
}

// refused is a connection that the broker did not take.
func (b *bench) refused(why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.greeted {
		b.set("auth", Failed, same(why), "")
	} else {
		b.set("connect", Failed, same(why), "")
	}
}

// lets reports whether a connection is let in.
func (b *bench) lets(c net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.out(time.Now()) {
		b.attempts++
		return false
	}
	b.conns = append(b.conns, c)
	return true
}

func (b *bench) left(c net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns = slices.DeleteFunc(b.conns, func(o net.Conn) bool { return o == c })
}

// out reports whether the outage lasts.
func (b *bench) out(now time.Time) bool { return !b.cut.IsZero() && now.Before(b.cut.Add(b.Outage)) }

// connected is a CONNECT.
func (b *bench) connected(what string, keepAlive uint16) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.greeted = true
	b.met = nil // the names of those behind a gateway are those of one connection
	b.set("connect", Passed, same(what), "")
	seen := fact("keep alive %d s", "心跳 %d 秒", keepAlive)
	switch {
	case keepAlive == 0, keepAlive > maxKeepAlive:
		b.set("keepalive", Failed, seen, "")
	default:
		b.set("keepalive", Passed, seen, "")
	}
	if b.protocol == "mqtt" {
		b.returned()
	}
}

// returned notes that the device is back after the outage. It needs mu.
func (b *bench) returned() {
	if b.cut.IsZero() || !b.back.IsZero() || b.out(time.Now()) {
		return
	}
	b.back = time.Now()
	seen := fact("%d attempts in an outage of %s, back %s after it", "尝试 %d 次（断线 %s），恢复后 %s 连上", b.attempts, b.Outage, b.back.Sub(b.cut.Add(b.Outage)).Round(100*time.Millisecond))
	if b.protocol != "coap" && b.attempts > int(b.Outage/time.Second)+2 { // over CoAP they are repetitions of one request
		b.set("reconnect", Failed, seen, "")
		return
	}
	b.set("reconnect", Passed, seen, "")
}

// published is a PUBLISH.
func (b *bench) published(topic string, qos byte, retain bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case qos == 0:
		b.set("qos", Failed, same("QoS 0"), topic)
	case retain:
		b.set("qos", Failed, fact("QoS %d, retained", "QoS %d，带 retain", qos), topic)
	default:
		b.set("qos", Passed, same(fmt.Sprintf("QoS %d", qos)), "")
	}
}

// Accept implements the listeners' Acceptor.
func (b *bench) Accept(ctx context.Context, up citywarden.Uplink, done func(error)) {
	if up.Protocol == citywarden.ProtocolWill { // the platform sends it, when the device is gone
		b.pipeline.Accept(ctx, up, done)
		return
	}
	now := time.Now()
	b.mu.Lock()
	b.set("topic", Passed, same(up.Topic), "")
	if up.Protocol != "mqtt" {
		b.set("connect", Passed, same(up.Protocol), "")
	}
	b.count++
	if b.Outage > 0 && b.cut.IsZero() && b.count > beforeOutage {
		b.cut, b.withheld, b.protocol = now, up.Payload, up.Protocol
	}
	out, conns := b.out(now) && up.Protocol == b.protocol, slices.Clone(b.conns)
	if out && up.Protocol == "http" {
		b.attempts++
	}
	if up.Protocol == b.protocol {
		b.returned()
	}
	if !b.back.IsZero() && b.withheld != nil && bytes.Equal(up.Payload, b.withheld) {
		b.set("resend", Passed, citywarden.Text{}, printable(up.Payload))
	}
	b.mu.Unlock()
	if !out {
		b.pipeline.Accept(ctx, up, done)
		return
	}
	done(citywarden.Errorf(citywarden.CodeTransient, "an outage is played")) // over CoAP the answer gets lost, see datagrams
	for _, c := range conns {
		_ = c.Close()
	}
}

// Name implements ingest.Consumer.
func (b *bench) Name() string { return "certify" }

// Cursor implements ingest.Consumer.
func (b *bench) Cursor(context.Context) (citywarden.Position, error) { return 0, nil }

// Consume implements ingest.Consumer: it looks at the messages as they were decoded.
func (b *bench) Consume(_ context.Context, entries []citywarden.Entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range entries {
		if entries[i].Uplink != nil {
			b.entry(&entries[i])
		}
	}
	return nil
}

func (b *bench) entry(e *citywarden.Entry) {
	up := e.Uplink
	m := Message{At: up.Received, Protocol: up.Protocol, Device: b.nameOf(up.Device), Topic: up.Topic, Payload: printable(up.Payload), Readings: map[citywarden.MetricName]citywarden.Value{}}
	for _, r := range e.Readings {
		m.Readings[r.Metric] = r.Value
	}
	if e.Reject != nil {
		m.Reject = e.Reject.Reason
	}
	if len(b.messages) < maxMessages {
		b.messages = append(b.messages, m)
	} else {
		b.more++
	}
	if up.Device == Device && up.Alive() {
		b.alive(up.Received)
	}
	if up.Device != Device && b.behind(e, &m) {
		return
	}
	if strings.HasSuffix(up.Topic, "/attributes") {
		if e.Reject != nil {
			b.set("payload", Failed, same(m.Reject), m.Payload)
		}
		return
	}
	b.readings(e, &m)
	if up.Protocol == citywarden.ProtocolWill {
		return // it tells no time, and is not sent again
	}
	b.times(e, &m)
	if !b.back.IsZero() {
		b.after++
		for _, r := range e.Readings {
			if r.Time.After(b.cut) && r.Time.Before(b.cut.Add(b.Outage)) {
				b.set("backlog", Passed, fact("measured at %s", "测量于 %s", r.Time.Local().Format("15:04:05Z07:00")), m.Payload)
			}
		}
	}
	if e.Duplicates > 0 && b.cut.IsZero() {
		b.set("duplicates", Failed, fact("%d readings came before, with the same time and value", "%d 个读数此前已经来过，时间和数值都相同", e.Duplicates), m.Payload)
	}
}

// nameOf is what a gateway calls a device behind it, "" for the device itself. It needs mu.
func (b *bench) nameOf(id citywarden.DeviceID) string {
	if d := b.children[id]; d != nil {
		return d.Name
	}
	return ""
}

// behind looks at a message of a device behind a gateway, and reports whether that was all.
func (b *bench) behind(e *citywarden.Entry, m *Message) bool {
	up := e.Uplink
	switch up.Topic {
	case citywarden.DeviceConnected:
		if b.met == nil {
			b.met = map[citywarden.DeviceID]bool{}
		}
		b.met[up.Device] = true
		return true
	case citywarden.DeviceDisconnected:
		delete(b.met, up.Device)
		return true
	}
	if !b.met[up.Device] {
		b.set("children", Failed, fact("it speaks for %q, which it did not connect", "没有报告 %q 已连接就代其上报", m.Device), m.Payload)
		return false
	}
	b.set("children", Passed, fact("%d devices", "%d 台设备", len(b.met)), "")
	return false
}

// readings looks at what was measured.
func (b *bench) readings(e *citywarden.Entry, m *Message) {
	if e.Rejected > 0 {
		b.set("payload", Failed, same(m.Reject), m.Payload)
		return
	}
	if len(e.Readings) > 0 {
		b.set("payload", Passed, fact("%d readings", "%d 个读数", len(e.Readings)), "")
	}
	ranged := 0
	for _, r := range e.Readings {
		if b.metrics == nil {
			b.metrics = map[measured]bool{}
		}
		b.metrics[measured{e.Uplink.Device, r.Metric}] = true
		def, _ := e.Model.Metric(r.Metric)
		if def.Min != nil || def.Max != nil {
			ranged++
		}
		if r.Quality == citywarden.OutOfRange {
			b.set("units", Failed, outside(r, def), m.Payload)
		}
	}
	if ranged > 0 {
		b.set("units", Passed, fact("%d values lie in the range of the model", "%d 个数值在型号的量程之内", ranged), "")
	}
	en := b.never(Device, b.Model)
	zh := slices.Clone(en)
	for _, id := range slices.Sorted(maps.Keys(b.children)) {
		for _, x := range b.never(id, b.Options.Child) {
			en, zh = append(en, fmt.Sprintf("%s of %s", x, b.children[id].Name)), append(zh, fmt.Sprintf("%s 的 %s", b.children[id].Name, x))
		}
	}
	if len(en) == 0 {
		b.set("metrics", Passed, citywarden.Text{}, "")
	} else {
		b.set("metrics", NotSeen, citywarden.Text{EN: "never came: " + strings.Join(en, ", "), ZH: "从未来过：" + strings.Join(zh, "、")}, "")
	}
}

// never returns the metrics of a device that never came.
func (b *bench) never(id citywarden.DeviceID, m *citywarden.Model) (out []string) {
	for _, x := range m.Metrics {
		if !b.metrics[measured{id, x.Name}] {
			out = append(out, string(x.Name))
		}
	}
	return out
}

// outside says that a reading is not in the range of its metric.
func outside(r citywarden.Reading, m *citywarden.Metric) citywarden.Text {
	switch {
	case m.Min == nil:
		return fact("%s is %s %s; it is at most %g", "%s 为 %s %s；最大为 %g", r.Metric, r.Value, m.Unit, *m.Max)
	case m.Max == nil:
		return fact("%s is %s %s; it is at least %g", "%s 为 %s %s；最小为 %g", r.Metric, r.Value, m.Unit, *m.Min)
	}
	return fact("%s is %s %s; it is %g to %g", "%s 为 %s %s；应在 %g 至 %g 之间", r.Metric, r.Value, m.Unit, *m.Min, *m.Max)
}

// alive looks at how long nothing came of the device until now. An outage is not its doing. It needs mu.
func (b *bench) alive(at time.Time) {
	if !b.heard.IsZero() && b.cut.IsZero() {
		b.gap = max(b.gap, at.Sub(b.heard))
		seen := fact("at most %s between two messages; the model says %s", "两条消息之间最长 %s；型号规定 %s", b.gap.Round(100*time.Millisecond), b.Model.Heartbeat)
		if b.gap > b.Model.Heartbeat.Std() {
			b.set("period", Failed, seen, "")
		} else {
			b.set("period", Passed, seen, "")
		}
	}
	b.heard = at
}

// times looks at when was measured and when it came.
func (b *bench) times(e *citywarden.Entry, m *Message) {
	at := e.Uplink.Received
	if e.Uplink.Device == Device && !b.last.IsZero() && b.cut.IsZero() {
		if gap := at.Sub(b.last); b.usual == 0 || gap < b.usual {
			b.usual = gap
		}
	}
	if e.Uplink.Device == Device || b.last.IsZero() {
		b.last = at
	}
	switch ahead := e.Stated.Sub(at); {
	case e.Quarantined > 0:
		b.set("time", Failed, same(m.Reject), m.Payload)
		return
	case e.Stated.IsZero():
		return
	case ahead > maxSkew:
		b.set("time", Failed, fact("ts is %s ahead", "ts 超前 %s", ahead.Round(time.Second)), m.Payload)
	default:
		if b.timed++; b.timed == 1 || -ahead < b.leastLag {
			b.leastLag = -ahead
		}
		if b.leastLag <= maxSkew {
			b.set("time", Passed, fact("off by at most %s", "偏差不超过 %s", b.leastLag.Abs().Round(time.Millisecond)), "")
		}
		if b.timed >= beforeOutage && e.Duplicates == 0 {
			b.set("duplicates", Passed, fact("%d messages with times of their own", "%d 条消息各有自己的时间", b.timed), "")
		}
	}
}

// report says what the end decides, and what was seen.
func (b *bench) report() *Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	state := func(id string) State {
		return b.checks[slices.IndexFunc(b.checks, func(c Check) bool { return c.ID == id })].State
	}
	if state("time") == NotSeen {
		switch {
		case b.timed > 0:
			b.set("time", Failed, fact("ts is at least %s old when it comes", "到达时 ts 已过去至少 %s", b.leastLag.Round(time.Second)), "")
		case !b.last.IsZero():
			b.set("time", NotSeen, fact("no message has a time (ts) of its own", "没有一条消息带有自己的时间 (ts)"), "")
		}
	}
	since := b.heard
	if b.back.After(since) {
		since = b.back
	}
	if silent := time.Since(since); !b.heard.IsZero() && (b.cut.IsZero() || !b.back.IsZero()) && silent > b.Model.Heartbeat.Std() {
		b.set("period", Failed, fact("nothing came for %s; the model says %s", "%s 没有消息；型号规定 %s", silent.Round(100*time.Millisecond), b.Model.Heartbeat), "")
	}
	switch {
	case b.cut.IsZero():
	case b.back.IsZero() && !b.out(time.Now()):
		b.set("reconnect", Failed, fact("it did not come back after an outage of %s", "断线 %s 后没有回来", b.Outage), "")
	case b.after > 0:
		if state("resend") == NotSeen {
			b.set("resend", Failed, fact("what was sent when the outage began did not come again", "断线开始时发出的消息没有再来"), printable(b.withheld))
		}
		if state("backlog") == NotSeen {
			if b.usual > b.Outage/2 {
				b.set("backlog", NotSeen, fact("an outage of %s is short for a device that reports every %s; say --outage", "断线 %s 对每 %s 上报一次的设备太短，请用 --outage 指定", b.Outage, b.usual.Round(time.Second)), "")
			} else {
				b.set("backlog", Failed, fact("nothing that came afterwards was measured in the %s of the outage", "恢复后来的消息没有一条是在断线的 %s 内测量的", b.Outage), "")
			}
		}
	}
	if b.Command != "" && state("command") == NotSeen && !b.heard.IsZero() {
		seen := fact("it did not answer %s", "没有应答 %s", b.Command)
		if !b.commanded {
			seen = fact("it does not listen for commands", "没有订阅命令")
		}
		b.set("command", Failed, seen, "")
	}
	return &Report{Model: b.Model.Name, Began: b.began.UTC(), Ended: time.Now().UTC(), Checks: b.checks, Messages: b.messages, More: b.more}
}

// clip shortens what a device sent.
func clip(s string) string {
	const most = 300
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// printable is a payload as people can read it: in hex unless it is text.
func printable(b []byte) string {
	if !utf8.Valid(b) || bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' && !strings.ContainsRune("\n\r\t", r) }) {
		return clip(fmt.Sprintf("% x", b))
	}
	return clip(string(b))
}
