package app

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
)

// Config is everything that can be set. A key has one name, one default in
// Default and one commented line in citywarden.example.yaml.
type Config struct {
	Data     string `yaml:"data"`      // folder that holds everything the platform keeps
	TimeZone string `yaml:"time_zone"` // the county's zone (IANA name): case numbers, working time, what people see
	Demo     bool   `yaml:"-"`         // seed the demo county and run its simulators; only by --demo

	HTTP HTTPConfig `yaml:"http"`
	MQTT MQTTConfig `yaml:"mqtt"`
	CoAP CoAPConfig `yaml:"coap"`

	Log    LogConfig    `yaml:"log"`
	Series SeriesConfig `yaml:"series"`
	Rules  RulesConfig  `yaml:"rules"`
	Models ModelsConfig `yaml:"models"`

	Operators int           `yaml:"operators"` // who watch alarms at a time: the alarm load is counted for each of them
	Notices   NoticesConfig `yaml:"notices"`
	Reports   ReportsConfig `yaml:"reports"`
	Open311   Open311Config `yaml:"open311"`
	CAP       CAPConfig     `yaml:"cap"`

	LogLevel string `yaml:"log_level"` // of what is printed: debug, info, warn or error
}

// HTTPConfig is the listener for people and programs.
type HTTPConfig struct {
	Addr    string `yaml:"addr"`    // host:port; "" for none of it
	Proxies string `yaml:"proxies"` // networks of reverse proxies, separated by commas, whose X-Forwarded-For and -Proto are believed
}

// MQTTConfig is the MQTT listener for devices.
type MQTTConfig struct {
	Addr string `yaml:"addr"`
}

// CoAPConfig is the CoAP listener for devices (UDP).
type CoAPConfig struct {
	Addr string `yaml:"addr"`
}

// LogConfig is the durable log. Old entries go when either limit is reached,
// the oldest first, but never before every consumer has dealt with them.
type LogConfig struct {
	URL      string              `yaml:"url"` // of a NATS cluster with JetStream; "" for the embedded one
	MaxAge   citywarden.Duration `yaml:"max_age"`
	MaxBytes int64               `yaml:"max_bytes"` // bytes on disk
}

// SeriesConfig is where the time series go.
type SeriesConfig struct {
	URL       string              `yaml:"url"` // of InfluxDB 1.8+, 2.x or 3; "" for the embedded storage core
	Database  string              `yaml:"database"`
	Org       string              `yaml:"org"`       // InfluxDB 2.x
	Token     string              `yaml:"token"`     // InfluxDB 2.x and 3; CITYWARDEN_SERIES_TOKEN overrides it
	User      string              `yaml:"user"`      // InfluxDB 1.x
	Password  string              `yaml:"password"`  // InfluxDB 1.x; CITYWARDEN_SERIES_PASSWORD overrides it
	Retention citywarden.Duration `yaml:"retention"` // of the embedded core; 0s keeps everything
}

// RulesConfig is where the rule files are.
type RulesConfig struct {
	Dir string `yaml:"dir"` // "" for DATA/rules
}

// ModelsConfig is where device models of one's own are; the built-in ones are
// always there.
type ModelsConfig struct {
	Dir string `yaml:"dir"` // "" for DATA/models
}

// ReportsConfig is what people outside of the administration may report.
type ReportsConfig struct {
	Citizens bool `yaml:"citizens"` // anybody may report a case on the public page (随手拍)
}

// Open311Config says how the endpoint for apps describes itself (Open311
// GeoReport v2). Without a key nobody can report by it.
type Open311Config struct {
	Jurisdiction string `yaml:"jurisdiction"` // its jurisdiction_id; "" takes every one
	Contact      string `yaml:"contact"`      // who may be asked
	KeyService   string `yaml:"key_service"`  // how to get a key
}

// CAPConfig says who sends the alarms that others fetch as CAP messages.
type CAPConfig struct {
	Sender string `yaml:"sender"` // a name that no other sender in the world has, like the county's domain
}

// Default returns the configuration of a platform that is started with nothing
// said.
func Default() Config {
	return Config{
		Data:      "data",
		TimeZone:  "Asia/Shanghai",
		HTTP:      HTTPConfig{Addr: ":8080"},
		MQTT:      MQTTConfig{Addr: ":1883"},
		CoAP:      CoAPConfig{Addr: ":5683"},
		Log:       LogConfig{MaxAge: days(7), MaxBytes: 20 << 30},
		Series:    SeriesConfig{Database: "citywarden", Retention: days(400)},
		Operators: 1,
		Notices:   NoticesConfig{Mail: MailConfig{Security: "starttls"}, Receivers: []ReceiverConfig{}},
		CAP:       CAPConfig{Sender: "citywarden"},
		LogLevel:  "info",
	}
}

func days(n int) citywarden.Duration {
	return citywarden.Duration(n) * citywarden.Duration(24*time.Hour)
}

// Loopback returns c with every listener that has no host of its own moved to
// 127.0.0.1, as --demo wants it.
func (c Config) Loopback() Config {
	for _, a := range []*string{&c.HTTP.Addr, &c.MQTT.Addr, &c.CoAP.Addr} {
		if strings.HasPrefix(*a, ":") {
			*a = "127.0.0.1" + *a
		}
	}
	return c
}

// LoadConfig reads the YAML file at path over the defaults. Errors read
// "file:line:col: what, and what is allowed", with the line shown. Secrets may
// come from the environment instead, see ReadSecrets.
func LoadConfig(path string) (Config, error) {
	c := Default()
	b, err := os.ReadFile(path)
	if err != nil {
		return c, citywarden.Errorf(citywarden.CodeInvalid, "config: %w; name an existing file, or leave --config out to run with the defaults", err)
	}
	if err := decodeConfig(path, b, &c); err != nil {
		return c, citywarden.Errorf(citywarden.CodeInvalid, "%w", err)
	}
	return c, nil
}

// ReadSecrets takes the secrets that the environment names over those of the
// file: CITYWARDEN_SERIES_TOKEN, CITYWARDEN_SERIES_PASSWORD and
// CITYWARDEN_MAIL_PASSWORD.
func (c *Config) ReadSecrets(getenv func(string) string) {
	for name, to := range map[string]*string{
		"CITYWARDEN_SERIES_TOKEN":    &c.Series.Token,
		"CITYWARDEN_SERIES_PASSWORD": &c.Series.Password,
		"CITYWARDEN_MAIL_PASSWORD":   &c.Notices.Mail.Password,
	} {
		if v := getenv(name); v != "" {
			*to = v
		}
	}
}

// Check returns an error that names the first key with a value that cannot be.
func (c *Config) Check() error {
	for _, a := range []struct{ key, addr string }{
		{"http.addr", c.HTTP.Addr}, {"mqtt.addr", c.MQTT.Addr}, {"coap.addr", c.CoAP.Addr},
	} {
		if a.addr == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			return keyErrorf(a.key, "%q is no address; write host:port, :port for all interfaces, or \"\" for no listener", a.addr)
		}
	}
	if _, err := c.HTTP.proxies(); err != nil {
		return keyErrorf("http.proxies", "%v; write networks like 10.0.0.0/8, 192.0.2.7/32", err)
	}
	zone, err := time.LoadLocation(c.TimeZone)
	if err != nil || c.TimeZone == "" {
		return keyErrorf("time_zone", "%q is not known; write an IANA name like Asia/Shanghai", c.TimeZone)
	}
	for _, u := range []struct {
		key, url, like string
		schemes        []string
	}{
		{"series.url", c.Series.URL, "http://influx.example:8086", []string{"http", "https"}},
		{"log.url", c.Log.URL, "nats://nats.example:4222", []string{"nats", "tls", "ws", "wss"}},
	} {
		if u.url == "" {
			continue
		}
		if p, err := url.Parse(u.url); err != nil || !slices.Contains(u.schemes, p.Scheme) || p.Host == "" {
			return keyErrorf(u.key, "%q is no URL; write it like %s", u.url, u.like)
		}
	}
	if _, err := c.Notices.receivers(zone); err != nil {
		return err
	}
	if c.CAP.Sender == "" || strings.ContainsAny(c.CAP.Sender, " ,<&\t\n") {
		return keyErrorf("cap.sender", "%q can't be; write a name without spaces, commas, < and &, like zhangpu.example", c.CAP.Sender)
	}
	if c.Series.Token != "" && c.Series.User != "" {
		return keyErrorf("series.user", "there is a token, too; a token is for InfluxDB 2 and 3, a user with a password for InfluxDB 1")
	}
	if c.Operators < 1 || c.Operators > 1000 {
		return keyErrorf("operators", "%d can't be; write how many people watch alarms at a time, 1 to 1000", c.Operators)
	}
	if c.Data == "" {
		return keyErrorf("data", "name the folder that the platform keeps its data in")
	}
	if c.Series.Database == "" {
		return keyErrorf("series.database", "name the database (InfluxDB 1.x, 3) or bucket (2.x)")
	}
	if c.Log.MaxAge.Std() < time.Hour {
		return keyErrorf("log.max_age", "%s is too short; at least 1h, so that an outage of the series can be made up", c.Log.MaxAge)
	}
	if c.Log.MaxBytes < 64<<20 {
		return keyErrorf("log.max_bytes", "%d is too small; at least 67108864 (64 MiB)", c.Log.MaxBytes)
	}
	if c.Series.Retention != 0 && c.Series.Retention.Std() < time.Hour {
		return keyErrorf("series.retention", "%s is too short; at least 1h, or 0s to keep everything", c.Series.Retention)
	}
	if err := new(slog.Level).UnmarshalText([]byte(c.LogLevel)); err != nil {
		return keyErrorf("log_level", "%q is none; it is debug, info, warn or error", c.LogLevel)
	}
	return nil
}

// proxies returns the networks that Proxies names.
func (c HTTPConfig) proxies() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for s := range strings.SplitSeq(c.Proxies, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%q is no network", s)
		}
		out = append(out, p)
	}
	return out, nil
}

func (c *Config) rulesDir() string  { return orDefault(c.Rules.Dir, filepath.Join(c.Data, "rules")) }
func (c *Config) modelsDir() string { return orDefault(c.Models.Dir, filepath.Join(c.Data, "models")) }

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}
