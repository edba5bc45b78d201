package app

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/citywarden/citywarden"
)

// The example is the documentation of every key: it has all of them, each with
// its default.
func TestExampleIsTheDefault(t *testing.T) {
	got, err := LoadConfig("../citywarden.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Default(), got); d != "" {
		t.Errorf("example differs from the defaults (-default +example):\n%s", d)
	}
	text, err := os.ReadFile("../citywarden.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range allKeys() {
		if !strings.Contains(string(text), key+":") {
			t.Errorf("the example does not mention %q", key)
		}
	}
}

func TestConfigMistakes(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", "http:\n  adr: :80\n", `c.yaml:2:3: unknown key "adr"; did you mean "addr"?` + "\n    adr: :80\n    ^"},
		{"unknown, nothing like it", "http:\n  listen_on: :80\n", `c.yaml:2:3: unknown key "listen_on"; allowed here: addr, tls, proxies`},
		{"unknown section", "mqqt: {}\n", `c.yaml:1:1: unknown key "mqqt"; did you mean "mqtt"?`},
		{"wrong type", "log:\n  max_bytes: lots\n", `c.yaml:2:14: log.max_bytes: "lots" is no whole number`},
		{"bad duration", "log:\n  max_age: 7 days\n", `c.yaml:2:12: log.max_age: bad duration "7 days"; write it like 90s, 15m, 24h or 7d`},
		{"duration without unit", "log:\n  max_age: 5\n", `c.yaml:2:12: log.max_age: bad duration "5"`},
		{"too short", "log:\n  max_age: 5m\n", `c.yaml:2:12: log.max_age: 5m is too short; at least 1h`},
		{"address", "mqtt:\n  addr: 1883\n", `c.yaml:2:9: mqtt.addr: "1883" is no address; write host:port`},
		{"port", "mqtt:\n  addr: :99999\n", `c.yaml:2:9: mqtt.addr: ":99999" has no port from 0 to 65535`},
		{"zone", "time_zone: Peking\n", `c.yaml:1:12: time_zone: "Peking" is not known; write an IANA name`},
		{"url", "series:\n  url: influx:8086\n", `c.yaml:2:8: series.url: "influx:8086" is no URL`},
		{"scheme of the series", "series:\n  url: nats://influx:8086\n", `c.yaml:2:8: series.url: "nats://influx:8086" is no URL; write it like http://influx.example:8086`},
		{"scheme of a server of the log", "log:\n  url: nats://a:4222,b:4222\n", `c.yaml:2:8: log.url: server 2 is no URL; write it like nats://nats.example:4222`},
		{"scheme of the log", "log:\n  url: http://nats:4222\n", `c.yaml:2:8: log.url: server 1 is no URL; write it like nats://nats.example:4222`},
		{"ledger too short", "log:\n  ledger: 31d\n", `c.yaml:2:11: log.ledger: 744h is too short; at least 32d and log.max_age`},
		{"ledger shorter than the log", "log:\n  max_age: 60d\n  ledger: 40d\n", `c.yaml:3:11: log.ledger: 960h is too short; at least 32d and log.max_age`},
		{"retention too short", "series:\n  retention: 10s\n", `c.yaml:2:14: series.retention: 10s is too short; at least 1h, or 0s to keep everything`},
		{"token and user", "series:\n  token: t\n  user: u\n", `c.yaml:3:9: series.user: there is a token, too`},
		{"twice", "data: a\ndata: b\n", `c.yaml:2:1: mapping key "data" already defined`},
		{"not closed", "data: [a\n", `c.yaml:1:7:`},
		{"text where keys belong", "http: yes please\n", `c.yaml:1:7: http: needs keys below it: addr`},
		{"list", "data: [a]\n", `c.yaml:1:7: data: write one text here`},
		{"a list as the file", "- a\n", `c.yaml:1:1: the file needs keys below it: data`},
		{"proxies", "http:\n  proxies: nginx\n", `c.yaml:2:12: http.proxies: "nginx" is no network; write networks like`},
		{"receivers are no list", "notices:\n  receivers: duty\n", `c.yaml:2:14: notices.receivers: write a list here`},
		{"key of a receiver", "notices:\n  receivers:\n  - {nmae: duty}\n", `c.yaml:3:6: unknown key "nmae"; did you mean "name"?`},
		{"receiver without a name", "notices:\n  receivers:\n  - {webhook: http://x}\n", `c.yaml:3:5: notices.receivers.0: give the receiver a name`},
		{"receiver twice", "notices:\n  receivers:\n  - {name: a, webhook: http://x}\n  - {name: a, webhook: http://y}\n", `c.yaml:4:12: notices.receivers.1.name: there is a receiver a already`},
		{"webhook", "notices:\n  receivers:\n  - {name: a, webhook: duty}\n", `c.yaml:3:24: notices.receivers.0.webhook: "duty" is no URL; write it like https://duty.example/citywarden`},
		{"no channel", "notices:\n  receivers:\n  - {name: a}\n", `c.yaml:3:5: notices.receivers.0: give the receiver one channel: webhook, mail, dingtalk, wecom or feishu`},
		{"two channels", "notices:\n  receivers:\n  - {name: a, webhook: http://x, wecom: http://x}\n", `c.yaml:3:5: notices.receivers.0: give the receiver one channel`},
		{"robot's URL", "notices:\n  receivers:\n  - {name: a, feishu: token-1}\n", `c.yaml:3:23: notices.receivers.0.feishu: that is no URL; copy the webhook address of the Feishu robot`},
		{"mail without a server", "notices:\n  mail:\n    user: x\n  receivers:\n  - {name: a, mail: [a@b.example]}\n", `c.yaml:3:9: notices.mail: server "" is no address; write host:port`},
		{"mail address", "notices:\n  mail: {server: 'x:25', from: a@b.example}\n  receivers:\n  - {name: a, mail: [duty]}\n", `c.yaml:4:21: notices.receivers.0.mail: "duty" is no mail address`},
		{"secret of mail", "notices:\n  receivers:\n  - {name: a, wecom: http://x, secret: y}\n", `c.yaml:3:40: notices.receivers.0.secret: wecom has no signature`},
		{"language", "notices:\n  receivers:\n  - {name: a, wecom: http://x, language: de}\n", `c.yaml:3:42: notices.receivers.0.language: "de" is not known; it is zh or en`},
		{"template", "notices:\n  receivers:\n  - {name: a, wecom: http://x, text: '{{.Titel}}'}\n", `c.yaml:3:38: notices.receivers.0.text: the template can't be filled in: text:1:2`},
		{"language of a webhook", "notices:\n  receivers:\n  - {name: a, webhook: http://x, language: en}\n", `c.yaml:3:24: notices.receivers.0.webhook: a webhook gets JSON in both languages`},
		{"quiet hours", "notices:\n  receivers:\n  - {name: a, wecom: http://x, quiet: night}\n", `c.yaml:3:39: notices.receivers.0.quiet: quiet hours "night": write them like 22:00-07:00`},
		{"working time", "cases:\n  hours: [8-12]\n", `c.yaml:2:10: cases.hours: "8-12" is no stretch of a day; write it like 08:00-12:00`},
		{"working time that overlaps", "cases:\n  hours: ['08:00-12:00', '11:00-18:00']\n", `c.yaml:2:10: cases.hours: working hours`},
		{"days that are not there", "cases: {days: nowhere.csv}\n", `c.yaml:1:15: cases.days: nowhere.csv: `},
		{"stage", "cases:\n  limits: {handling: 1天}\n", `c.yaml:2:11: cases.limits: the stage "handling" has no limit of its own; write those of checking, handled`},
		{"limit", "cases:\n  limits: {reported: soon}\n", `c.yaml:2:11: cases.limits: reported: handling limit "soon": write a number and`},
		{"who is told", "cases:\n  overdue:\n  - {after: 1h, to: chief}\n", `c.yaml:3:3: cases.overdue: after 1h, to "chief": name a receiver of notices.receivers`},
		{"distance", "cases: {duplicate_distance: -3}\n", `c.yaml:1:29: cases.duplicate_distance: -3 m can't be`},
		{"sender of CAP", "cap: {sender: 'a b'}\n", `c.yaml:1:15: cap.sender: "a b" can't be; write a name without spaces`},
		{"all", "notices:\n  receivers:\n  - {name: a, all: some, webhook: http://x}\n", `c.yaml:3:20: notices.receivers.0.all: "some" is neither true nor false`},
		{"name of an uplink", "uplinks:\n- {name: EMQX}\n", `c.yaml:2:3: uplinks.0: give the uplink a name of lower-case letters`},
		{"url of an uplink", "uplinks:\n- {name: a, url: emqx}\n", `c.yaml:2:18: uplinks.0.url: this is no URL of a broker`},
		{"client id of an uplink", "uplinks:\n- {name: a, url: 'tcp://x:1'}\n", `c.yaml:2:3: uplinks.0: give uplink a a client_id`},
		{"uplink without topics", "uplinks:\n- {name: a, url: 'tcp://x:1', client_id: c}\n", `c.yaml:2:3: uplinks.0: say which topics of a are taken`},
		{"topic of an uplink", "uplinks:\n- {name: a, url: 'tcp://x:1', client_id: c, topics: [{topic: 'a/+'}]}\n", `c.yaml:2:54: uplinks.0.topics.0: topic "a/+": one level is {device}`},
		{"QoS of an uplink", "uplinks:\n- {name: a, url: 'tcp://x:1', client_id: c, topics: [{topic: '{device}', qos: 2}]}\n", `c.yaml:2:54: uplinks.0.topics.0: QoS 2`},
		{"Sparkplug elsewhere", "uplinks:\n- {name: a, url: 'tcp://x:1', client_id: c, topics: [{topic: 'b/{device}', as: sparkplug}]}\n", `c.yaml:2:54: uplinks.0.topics.0: topic "b/{device}": nodes of Sparkplug B speak at spBv1.0/`},
		{"Sparkplug shared", "uplinks:\n- {name: a, url: 'tcp://x:1', client_id: c, group: g, topics: [{topic: 'spBv1.0/c/+/{device}/#', as: sparkplug}]}\n", `c.yaml:2:52: uplinks.0.group: group g: messages of Sparkplug B can't be shared`},
		{"QoS in words", "uplinks:\n- {topics: [{qos: one}]}\n", `c.yaml:2:19: uplinks.0.topics.0.qos: "one" is no whole number`},
		{"certificate of an uplink", "uplinks:\n- {name: a, url: 'ssl://x:1', client_id: c, ca: nowhere.pem, topics: [{topic: '{device}'}]}\n", `c.yaml:2:3: uplinks.0: ca: open nowhere.pem`},
		{"level", "log_level: loud\n", `c.yaml:1:12: log_level: "loud" is none`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "c.yaml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadConfig(path)
			if err == nil {
				t.Fatalf("no error, want %q", tt.want)
			}
			if got := strings.TrimPrefix(err.Error(), dir+"/"); !strings.HasPrefix(got, tt.want) {
				t.Errorf("error\n%s\nwant it to begin\n%s", got, tt.want)
			}
		})
	}
}

func TestEmptyConfigIsTheDefault(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "http:\n"} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := LoadConfig(path)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if d := cmp.Diff(Default(), got); d != "" {
			t.Errorf("%q: %s", text, d)
		}
	}
}

// TestLedgerAsLongAsTheLog: the ledger keeps its rows for as long as the log, when that is longer than usual and
// nothing is said of the ledger.
func TestLedgerAsLongAsTheLog(t *testing.T) {
	for text, want := range map[string]citywarden.Duration{
		"log:\n  max_age: 365d\n":               days(365),
		"log:\n  max_age: 30d\n":                days(90),
		"log:\n  max_age: 365d\n  ledger: 0s\n": 0,
	} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadConfig(path); err != nil || got.Log.Ledger != want {
			t.Errorf("%q: log.ledger %s, %v; want %s", text, got.Log.Ledger, err, want)
		}
	}
}

func TestSecretsFromEnvironment(t *testing.T) {
	c := Default()
	c.Series.Token = "from the file"
	c.Uplinks = []UplinkConfig{{Name: "city-emqx"}}
	c.ReadSecrets(func(k string) string {
		return map[string]string{"CITYWARDEN_SERIES_TOKEN": "from outside", "CITYWARDEN_UPLINK_CITY_EMQX_PASSWORD": "secret", "CITYWARDEN_SQL_URL": "postgres://db/x"}[k]
	})
	if c.Series.Token != "from outside" || c.Uplinks[0].Password != "secret" || c.SQL.URL != "postgres://db/x" {
		t.Errorf("token = %q, URL of the database = %q", c.Series.Token, c.SQL.URL)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("http:\n  addr: :80\n"))
	f.Add([]byte("log: {max_age: 1h}\n---\n- x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := Default()
		_ = decodeConfig("c.yaml", b, &c)
	})
}

func allKeys() []string {
	var out []string
	for f := range reflect.TypeFor[Config]().Fields() {
		if k := f.Tag.Get("yaml"); k != "-" {
			out = append(out, k)
			if f.Type.Kind() == reflect.TypeFor[Config]().Kind() {
				out = append(out, keysOf(f.Type)...)
			}
		}
	}
	return out
}
