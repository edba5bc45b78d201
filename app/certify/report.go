package certify

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// State says what came of a check.
type State string

// The states.
const (
	Passed  State = "passed"
	Failed  State = "failed"
	NotSeen State = "not_seen"
)

var stateTexts = map[State]citywarden.Text{
	Passed: {ZH: "通过", EN: "passed"}, Failed: {ZH: "不通过", EN: "failed"}, NotSeen: {ZH: "未见", EN: "not seen"},
}

// Text is the state in words.
func (s State) Text() citywarden.Text { return stateTexts[s] }

// Check is one thing that was looked at.
type Check struct {
	ID    string          `json:"id"`
	Title citywarden.Text `json:"title"`
	State State           `json:"state"`
	Seen  citywarden.Text `json:"seen,omitzero"`   // the facts; what others say of them, as a decoder, is as they say it
	Bytes string          `json:"bytes,omitempty"` // of the message that failed, in hex unless they are text
	Do    citywarden.Text `json:"do"`              // what to change when it failed, or how to have it seen
}

// Message is one message of the device.
type Message struct {
	At       time.Time                                  `json:"at"`
	Protocol string                                     `json:"protocol"`
	Device   string                                     `json:"device,omitempty"` // behind the gateway; "" for itself
	Topic    string                                     `json:"topic"`
	Payload  string                                     `json:"payload"`
	Readings map[citywarden.MetricName]citywarden.Value `json:"readings"`
	Reject   string                                     `json:"reject,omitempty"` // why it can't be used, or not as a whole
}

// Report is what was found.
type Report struct {
	Model    citywarden.ModelName `json:"model"`
	Began    time.Time            `json:"began"`
	Ended    time.Time            `json:"ended"`
	Checks   []Check              `json:"checks"`
	Messages []Message            `json:"messages"`
	More     int                  `json:"more"` // messages that are left out
}

// Count returns how many checks are in a state.
func (r *Report) Count(s State) int {
	n := 0
	for _, c := range r.Checks {
		if c.State == s {
			n++
		}
	}
	return n
}

// newChecks returns all checks, in the order in which a device meets them; those of devices
// behind it for a gateway only.
func newChecks(gateway bool) []Check {
	all := []Check{
		{ID: "connect", Title: citywarden.Text{ZH: "连接", EN: "Connects"},
			Do: citywarden.Text{ZH: "检查地址、端口与协议：1883 为不加密的 MQTT 3.1.1 或 5。", EN: "Check address, port and protocol: 1883 is plain MQTT 3.1.1 or 5."}},
		{ID: "auth", Title: citywarden.Text{ZH: "认证", EN: "Authenticates"},
			Do: citywarden.Text{ZH: "把令牌设为 MQTT 用户名，密码留空；HTTP 与 CoAP 中令牌在路径里。", EN: "Set the token as the MQTT user name, without a password; in HTTP and CoAP it is part of the path."}},
		{ID: "tls", Title: citywarden.Text{ZH: "TLS 版本", EN: "TLS version"},
			Do: citywarden.Text{ZH: "用 --mqtts、--coaps 或 --coap-tls 与证书启动本命令，设备连到该端口；须 TLS 1.2 或 1.3、DTLS 1.2，并信任该证书。", EN: "Start this command with --mqtts, --coaps or --coap-tls and a certificate and let the device connect there, with TLS 1.2 or 1.3, or DTLS 1.2; it has to trust the certificate."}},
		{ID: "keepalive", Title: citywarden.Text{ZH: "心跳 (keep alive)", EN: "Keep alive"},
			Do: citywarden.Text{ZH: "在 CONNECT 中设 keep alive 为 30 至 1200 秒；为 0 时断线无法发现。", EN: "Set a keep alive of 30 to 1200 s in CONNECT; with 0 a dead connection is never noticed."}},
		{ID: "qos", Title: citywarden.Text{ZH: "服务质量 (QoS)", EN: "QoS"},
			Do: citywarden.Text{ZH: "以 QoS 1 发布，不设 retain；QoS 0 的消息断线时会丢失。CoAP 用可确认消息 (CON)。", EN: "Publish with QoS 1 and without retain; a message with QoS 0 is lost when the connection breaks. Over CoAP send confirmable messages (CON)."}},
		{ID: "topic", Title: citywarden.Text{ZH: "主题", EN: "Topics"},
			Do: citywarden.Text{ZH: "遥测发布到 v1/devices/me/telemetry，属性发布到 v1/devices/me/attributes；只订阅自己的主题。", EN: "Publish telemetry to v1/devices/me/telemetry and attributes to v1/devices/me/attributes; subscribe to topics of the device only."}},
		{ID: "payload", Title: citywarden.Text{ZH: "报文符合型号", EN: "Payload as the model has it"},
			Do: citywarden.Text{ZH: "按型号的指标名与类型发送 JSON，例如数字不加引号。", EN: "Send JSON with the names and types of the model: numbers without quotes, for instance."}},
		{ID: "metrics", Title: citywarden.Text{ZH: "指标齐全", EN: "All metrics"},
			Do: citywarden.Text{ZH: "型号的每个指标都应出现过。", EN: "Each metric of the model should come at some time."}},
		{ID: "units", Title: citywarden.Text{ZH: "单位与量程", EN: "Units and range"},
			Do: citywarden.Text{ZH: "换算成型号的单位再发送。", EN: "Convert to the unit of the model before sending."}},
		{ID: "time", Title: citywarden.Text{ZH: "时间戳", EN: "Time stamps"},
			Do: citywarden.Text{ZH: `以 {"ts": 1970 年以来的毫秒数 (UTC), "values": {…}} 发送测量时刻，并校准时钟；没有时钟的设备可以不发 ts。`, EN: `Send when it was measured, {"ts": milliseconds since 1970 (UTC), "values": {…}}, and set the clock; a device without one leaves ts out.`}},
		{ID: "period", Title: citywarden.Text{ZH: "上报间隔", EN: "Reports often enough"},
			Do: citywarden.Text{ZH: "两次上报之间不超过型号的 heartbeat，否则视为离线。", EN: "Report within the heartbeat of the model; a device that does not counts as silent."}},
		{ID: "reconnect", Title: citywarden.Text{ZH: "断线重连", EN: "Reconnects"},
			Do: citywarden.Text{ZH: "断线后自动重连，间隔 1 秒起逐次加倍并加随机量，不要每秒多次。", EN: "Reconnect by itself, after 1 s and then twice that each time, with some chance in it; not several times a second."}},
		{ID: "resend", Title: citywarden.Text{ZH: "未确认的消息重发", EN: "Sends again what was not acknowledged"},
			Do: citywarden.Text{ZH: "没有收到确认（PUBACK、2.04、200）的消息要保存，重连后原样（同一 ts）再发。", EN: "Keep a message until its acknowledgement (PUBACK, 2.04, 200), and send it again, with the same ts, after the reconnect."}},
		{ID: "backlog", Title: citywarden.Text{ZH: "断线期间的数据补传", EN: "Backlog after an outage"},
			Do: citywarden.Text{ZH: "断线期间继续测量并保存，重连后带 ts 补传。", EN: "Go on measuring while there is no connection, and send what was measured, with its ts, afterwards."}},
		{ID: "duplicates", Title: citywarden.Text{ZH: "无重复", EN: "No duplicates"},
			Do: citywarden.Text{ZH: "已确认的消息不要再发。", EN: "Don't send again what was acknowledged."}},
		{ID: "children", Title: citywarden.Text{ZH: "下挂设备", EN: "Devices behind it"},
			Do: citywarden.Text{ZH: `用 --child 型号 检测网关；先向 v1/gateway/connect 发布 {"device": "名称"}，再代其上报；重连后须再次报告。`, EN: `Have a gateway looked at with --child MODEL; it publishes {"device": "NAME"} to v1/gateway/connect before it speaks for a device, and again after a reconnect.`}},
		{ID: "command", Title: citywarden.Text{ZH: "命令应答", EN: "Answers a command"},
			Do: citywarden.Text{ZH: "用 --command 指定命令；设备订阅 v1/devices/me/rpc/request/+，把 JSON 应答发布到 v1/devices/me/rpc/response/编号。", EN: "Name one with --command; the device subscribes to v1/devices/me/rpc/request/+ and publishes JSON to v1/devices/me/rpc/response/ID."}},
	}
	if !gateway {
		all = slices.DeleteFunc(all, func(c Check) bool { return c.ID == "children" })
	}
	for i := range all {
		all[i].State = NotSeen
	}
	return all
}

// Text prints a check in a language: what came of it, the facts, and what to change.
func (c *Check) Text(lang string) string {
	s := fmt.Sprintf("[%s] %s", c.State.Text().In(lang), c.Title.In(lang))
	if seen := c.Seen.In(lang); seen != "" {
		s += ": " + seen
	}
	if c.State == Failed {
		if c.Bytes != "" {
			s += "\n    " + strings.ReplaceAll(c.Bytes, "\n", "\n    ")
		}
		s += "\n    " + c.Do.In(lang)
	}
	return s
}

//go:embed report.html
var page string

// WriteHTML writes the report as a page that needs nothing else, in both languages.
func (r *Report) WriteHTML(w io.Writer) error {
	t, err := template.New("report").Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, r)
}
