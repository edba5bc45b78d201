package app

import (
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/cases"
	"github.com/citywarden/citywarden/store"
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
	TLS  TLSConfig  `yaml:"tls"`

	SecretKey string `yaml:"secret_key"` // file with the key that pre-shared keys are sealed with; "" for secret.key in the data folder

	Uplinks []UplinkConfig `yaml:"uplinks"` // brokers elsewhere, whose messages are taken

	Log    LogConfig    `yaml:"log"`
	Series SeriesConfig `yaml:"series"`
	SQL    SQLConfig    `yaml:"sql"`
	Rules  RulesConfig  `yaml:"rules"`
	Models ModelsConfig `yaml:"models"`

	Operators int           `yaml:"operators"` // who watch alarms at a time: the alarm load is counted for each of them
	Cases     CasesConfig   `yaml:"cases"`
	Notices   NoticesConfig `yaml:"notices"`
	Reports   ReportsConfig `yaml:"reports"`
	Open311   Open311Config `yaml:"open311"`
	CAP       CAPConfig     `yaml:"cap"`

	Traces   TracesConfig `yaml:"traces"`
	LogLevel string       `yaml:"log_level"` // of what is printed: debug, info, warn or error
}

// HTTPConfig is the listener for people and programs.
type HTTPConfig struct {
	Addr    string `yaml:"addr"`    // host:port; "" for none of it
	TLS     string `yaml:"tls"`     // the same over TLS
	Proxies string `yaml:"proxies"` // networks of reverse proxies, separated by commas, whose X-Forwarded-For and -Proto are believed
}

// MQTTConfig are the MQTT listeners for devices, each host:port or "".
type MQTTConfig struct {
	Addr string `yaml:"addr"`
	TLS  string `yaml:"tls"`
	WS   string `yaml:"ws"`  // WebSocket
	WSS  string `yaml:"wss"` // WebSocket over TLS
}

// CoAPConfig are the CoAP listeners for devices, each host:port or "".
type CoAPConfig struct {
	Addr string `yaml:"addr"` // UDP
	DTLS string `yaml:"dtls"` // UDP, with DTLS
	TCP  string `yaml:"tcp"`
	TLS  string `yaml:"tls"` // TCP, with TLS
}

// LogConfig is the durable log. Old entries go when either limit is reached,
// the oldest first, but never before every consumer has dealt with them.
type LogConfig struct {
	URL      string              `yaml:"url"` // of a NATS server with JetStream, or of several of a cluster, with commas; "" for the embedded one; CITYWARDEN_LOG_URL overrides it
	MaxAge   citywarden.Duration `yaml:"max_age"`
	MaxBytes int64               `yaml:"max_bytes"` // bytes on disk
	Ledger   citywarden.Duration `yaml:"ledger"`    // how long the rows of the ledger are kept; 0s for ever, without it 90d or MaxAge if that is longer
	Reserve  int64               `yaml:"reserve"`   // bytes that stay free on the disk of the data folder: with less, messages are not acknowledged
}

// SeriesConfig is where the time series go.
type SeriesConfig struct {
	URL       string              `yaml:"url"` // of InfluxDB 1.8+, 2.x or 3; "" for the embedded storage core
	Database  string              `yaml:"database"`
	Org       string              `yaml:"org"`        // InfluxDB 2.x
	Token     string              `yaml:"token"`      // InfluxDB 2.x and 3; CITYWARDEN_SERIES_TOKEN overrides it
	User      string              `yaml:"user"`       // InfluxDB 1.x
	Password  string              `yaml:"password"`   // InfluxDB 1.x; CITYWARDEN_SERIES_PASSWORD overrides it
	Retention citywarden.Duration `yaml:"retention"`  // of the embedded core; 0s keeps everything
	MaxSeries int                 `yaml:"max_series"` // sets of tags in the database; readings that would make one more are dead letters
	Rollups   RollupsConfig       `yaml:"rollups"`
}

// RollupsConfig is how long the rollups of readings are kept; 0s keeps them for
// ever. Each is kept at least as long as what it is made of.
type RollupsConfig struct {
	Minute  citywarden.Duration `yaml:"minute"`
	Quarter citywarden.Duration `yaml:"quarter"` // of an hour
	Hour    citywarden.Duration `yaml:"hour"`
	Day     citywarden.Duration `yaml:"day"`
}

// kept returns how long each level is kept.
func (s SeriesConfig) kept() [4]time.Duration {
	out := [...]time.Duration{s.Rollups.Minute.Std(), s.Rollups.Quarter.Std(), s.Rollups.Hour.Std(), s.Rollups.Day.Std()}
	least := s.Retention.Std()
	for i := range out {
		if least == 0 || out[i] != 0 && out[i] < least {
			out[i] = least
		}
		least = out[i]
	}
	return out
}

// SQLConfig is where devices, users, alarms and cases are kept.
type SQLConfig struct {
	URL string `yaml:"url"` // of a PostgreSQL database; "" for SQLite in the data folder; CITYWARDEN_SQL_URL overrides it
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

// CasesConfig is how cases are worked.
type CasesConfig struct {
	Hours    []string                                          `yaml:"hours"`    // working time of a day: "08:00-12:00"
	Classes  string                                            `yaml:"classes"`  // CSV file of classes that is put over the built-in table; "" for none
	Standard string                                            `yaml:"standard"` // the numbering of classes that people here use
	Days     string                                            `yaml:"days"`     // CSV file of holidays and shifted workdays; "" for the State Council's
	Limits   map[citywarden.Stage]string                       `yaml:"limits"`
	Overdue  []OverdueConfig                                   `yaml:"overdue"`
	Near     float64                                           `yaml:"duplicate_distance"` // metres
	Within   citywarden.Duration                               `yaml:"duplicate_time"`
	Photos   map[citywarden.Action][]citywarden.AttachmentKind `yaml:"photos"` // that actions demand

	Evaluation EvaluationConfig `yaml:"evaluation"`
}

// EvaluationConfig is how cases are evaluated; what is left out is as usual.
type EvaluationConfig struct {
	Denominators map[string]string             `yaml:"denominators"` // of indicators
	Weights      map[string]map[string]float64 `yaml:"weights"`      // of indicators in the scores of areas, departments and posts, per cent
	Volume       []citywarden.VolumeStep       `yaml:"volume"`       // what a count of cases is worth in a score
}

// measures returns the measures of evaluations.
func (c CasesConfig) measures() (*cases.Measures, error) {
	m, err := cases.NewMeasures(cases.MeasureOptions(c.Evaluation))
	if err != nil {
		return nil, keyErrorf("cases.evaluation", "%v", err)
	}
	return m, nil
}

// OverdueConfig says who else is told when a limit has passed for so long.
type OverdueConfig struct {
	After citywarden.Duration `yaml:"after"`
	To    string              `yaml:"to"` // a receiver of notices
}

// calendar returns the calendar of working time.
func (c CasesConfig) calendar(zone *time.Location) (*cases.Calendar, error) {
	o := cases.CalendarOptions{Zone: zone}
	for _, s := range c.Hours {
		from, to, ok := strings.Cut(s, "-")
		h, err := cases.Hours{}, error(nil)
		if h.From, err = sinceMidnight(from); err == nil {
			h.To, err = sinceMidnight(to)
		}
		if !ok || err != nil {
			return nil, keyErrorf("cases.hours", "%q is no stretch of a day; write it like 08:00-12:00", s)
		}
		o.Hours = append(o.Hours, h)
	}
	if len(o.Hours) == 0 {
		return nil, keyErrorf("cases.hours", "say when people work, like [08:00-12:00, 14:00-18:00]")
	}
	if c.Days != "" {
		o.Days = oneFile(c.Days)
	}
	cal, err := cases.NewCalendar(o)
	switch {
	case err != nil && c.Days != "":
		return nil, keyErrorf("cases.days", "%s: %v", c.Days, err)
	case err != nil:
		return nil, keyErrorf("cases.hours", "%v", err)
	}
	return cal, nil
}

// classes returns the table of classes.
func (c CasesConfig) classes() (*cases.Classes, error) {
	if !slices.Contains(citywarden.Standards, c.Standard) {
		return nil, keyErrorf("cases.standard", "%q is none; write %s", c.Standard, strings.Join(citywarden.Standards, " or "))
	}
	var own []fs.FS
	if c.Classes != "" {
		own = append(own, oneFile(c.Classes))
	}
	k, err := cases.LoadClasses(c.Standard, own...)
	if err != nil {
		return nil, keyErrorf("cases.classes", "%s: %v", c.Classes, err)
	}
	return k, nil
}

// oneFile is a file system that has one file, whatever its name.
type oneFile string

// Open opens the file.
func (o oneFile) Open(string) (fs.File, error) { return os.Open(string(o)) }

// sinceMidnight reads 08:00 to 24:00, since midnight.
func sinceMidnight(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if s == "24:00" {
		return 24 * time.Hour, nil
	}
	t, err := time.Parse("15:04", s)
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, err
}

// stageLimits returns how long each stage may take.
func (c CasesConfig) stageLimits() (map[citywarden.Stage]cases.Limit, error) {
	out := map[citywarden.Stage]cases.Limit{}
	for _, stage := range slices.Sorted(maps.Keys(c.Limits)) {
		if _, ok := cases.StageLimits()[stage]; !ok {
			return nil, keyErrorf("cases.limits", "the stage %q has no limit of its own; write those of %s", stage, stageNames())
		}
		l, err := cases.ParseLimit(c.Limits[stage])
		if err != nil {
			return nil, keyErrorf("cases.limits", "%s: %v", stage, err)
		}
		if l != (cases.Limit{}) {
			out[stage] = l
		}
	}
	return out, nil
}

func stageNames() string {
	var names []string
	for _, s := range slices.Sorted(maps.Keys(cases.StageLimits())) {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// overdue returns who else is told when a limit has passed.
func (c CasesConfig) overdue(receivers []string) ([]citywarden.Escalation, error) {
	var out []citywarden.Escalation
	for _, o := range c.Overdue {
		if o.After < 0 || !slices.Contains(receivers, o.To) {
			return nil, keyErrorf("cases.overdue", "after %s, to %q: name a receiver of notices.receivers and a time of 0s or more", o.After, o.To)
		}
		out = append(out, citywarden.Escalation{After: o.After, To: o.To})
	}
	return out, nil
}

// CAPConfig says who sends the alarms that others fetch as CAP messages.
type CAPConfig struct {
	Sender string `yaml:"sender"` // a name that no other sender in the world has, like the county's domain
}

// TracesConfig says which messages are followed through the platform.
type TracesConfig struct {
	URL     string  `yaml:"url"`     // of an OpenTelemetry collector, OTLP over HTTP; "" for none
	Ratio   float64 `yaml:"ratio"`   // of the messages: 0.01 is one in a hundred
	Service string  `yaml:"service"` // the name of this platform there
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
		Uplinks:   []UplinkConfig{},
		Log:       LogConfig{MaxAge: days(7), MaxBytes: 20 << 30, Ledger: days(90), Reserve: 512 << 20},
		Series:    SeriesConfig{Database: "citywarden", Retention: days(400), MaxSeries: 500_000, Rollups: RollupsConfig{Minute: days(400), Quarter: days(1100), Hour: days(3660)}},
		Operators: 1,
		Cases: CasesConfig{
			Hours: []string{"08:00-12:00", "14:00-18:00"}, Standard: citywarden.GBT30428,
			Limits: map[citywarden.Stage]string{
				citywarden.Reported: "1小时", citywarden.Verifying: "24紧急工作时", citywarden.PendingFiling: "1小时",
				citywarden.PendingDispatch: "1小时", citywarden.Handled: "1小时", citywarden.Checking: "2紧急工作时", citywarden.PendingClose: "1小时",
			},
			Overdue: []OverdueConfig{}, Near: 50, Within: citywarden.Duration(24 * time.Hour), Photos: map[citywarden.Action][]citywarden.AttachmentKind{},
			Evaluation: EvaluationConfig{Denominators: cases.Denominators(), Weights: cases.Weights(), Volume: cases.Volume()},
		},
		Notices:  NoticesConfig{Mail: MailConfig{Security: "starttls"}, Receivers: []ReceiverConfig{}},
		CAP:      CAPConfig{Sender: "citywarden"},
		Traces:   TracesConfig{Ratio: 0.01, Service: "citywarden"},
		LogLevel: "info",
	}
}

func days(n int) citywarden.Duration {
	return citywarden.Duration(n) * citywarden.Duration(24*time.Hour)
}

// Loopback returns c with every listener that has no host of its own moved to
// 127.0.0.1, as --demo wants it.
func (c Config) Loopback() Config {
	for _, a := range c.addresses() {
		if strings.HasPrefix(*a.addr, ":") {
			*a.addr = "127.0.0.1" + *a.addr
		}
	}
	return c
}

// address is where one listener is to be.
type address struct {
	key, flag string
	addr      *string
	tls       bool // it needs a certificate
}

// addresses are those of all listeners, in the order in which people are told of them.
func (c *Config) addresses() []address {
	return []address{
		{"http.addr", "http", &c.HTTP.Addr, false}, {"http.tls", "https", &c.HTTP.TLS, true},
		{"mqtt.addr", "mqtt", &c.MQTT.Addr, false}, {"mqtt.tls", "mqtts", &c.MQTT.TLS, true},
		{"mqtt.ws", "ws", &c.MQTT.WS, false}, {"mqtt.wss", "wss", &c.MQTT.WSS, true},
		{"coap.addr", "coap", &c.CoAP.Addr, false}, {"coap.dtls", "coaps", &c.CoAP.DTLS, false},
		{"coap.tcp", "coap-tcp", &c.CoAP.TCP, false}, {"coap.tls", "coaps-tcp", &c.CoAP.TLS, true},
	}
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
// file: CITYWARDEN_SERIES_TOKEN, CITYWARDEN_SERIES_PASSWORD,
// CITYWARDEN_MAIL_PASSWORD, CITYWARDEN_SQL_URL and CITYWARDEN_LOG_URL, which may hold a password, and
// CITYWARDEN_UPLINK_NAME_PASSWORD of each uplink.
func (c *Config) ReadSecrets(getenv func(string) string) {
	secrets := map[string]*string{
		"CITYWARDEN_SERIES_TOKEN":    &c.Series.Token,
		"CITYWARDEN_SERIES_PASSWORD": &c.Series.Password,
		"CITYWARDEN_MAIL_PASSWORD":   &c.Notices.Mail.Password,
		"CITYWARDEN_SQL_URL":         &c.SQL.URL,
		"CITYWARDEN_LOG_URL":         &c.Log.URL,
	}
	for i := range c.Uplinks {
		secrets[c.Uplinks[i].passwordName()] = &c.Uplinks[i].Password
	}
	for name, to := range secrets {
		if v := getenv(name); v != "" {
			*to = v
		}
	}
}

// Check returns an error that names the first key with a value that cannot be.
func (c *Config) Check() error {
	for _, a := range c.addresses() {
		if *a.addr == "" {
			continue
		}
		_, port, err := net.SplitHostPort(*a.addr)
		if err != nil {
			return keyErrorf(a.key, "%q is no address; write host:port, :port for all interfaces, or \"\" for no listener", *a.addr)
		}
		if _, err := net.LookupPort("ip", port); err != nil {
			return keyErrorf(a.key, "%q has no port from 0 to 65535", *a.addr)
		}
		if a.tls && (c.TLS.Cert == "" || c.TLS.Key == "") {
			return keyErrorf(a.key, "it needs a certificate; name its files in tls.cert and tls.key")
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
		{"traces.url", c.Traces.URL, "http://collector.example:4318", []string{"http", "https"}},
	} {
		if u.url == "" {
			continue
		}
		urls := []string{u.url}
		if u.key == "log.url" { // the servers of a cluster
			urls = strings.Split(u.url, ",")
		}
		for i, s := range urls {
			shown := fmt.Sprintf("%q", s)
			if u.key == "log.url" { // it may hold a password
				shown = fmt.Sprintf("server %d", i+1)
			}
			if p, err := url.Parse(s); err != nil || !slices.Contains(u.schemes, p.Scheme) || p.Host == "" {
				return keyErrorf(u.key, "%s is no URL; write it like %s", shown, u.like)
			}
		}
	}
	if c.SQL.URL != "" && !store.IsURL(c.SQL.URL) { // not shown: it may hold a password
		return keyErrorf("sql.url", "this is no URL of a PostgreSQL database; write it like postgres://USER:PASSWORD@HOST:5432/DATABASE")
	}
	if r := c.Traces.Ratio; !(r > 0 && r <= 1) {
		return keyErrorf("traces.ratio", "%v: write more than 0, up to 1 for every message; to follow none leave traces.url empty", r)
	}
	if _, err := c.brokers(); err != nil {
		return err
	}
	if _, err := c.Notices.receivers(zone); err != nil {
		return err
	}
	if _, err := c.Cases.calendar(zone); err != nil {
		return err
	}
	if _, err := c.Cases.stageLimits(); err != nil {
		return err
	}
	if _, err := c.Cases.classes(); err != nil {
		return err
	}
	if _, err := c.Cases.overdue(c.Notices.names()); err != nil {
		return err
	}
	if _, err := c.Cases.measures(); err != nil {
		return err
	}
	if c.Cases.Near <= 0 || c.Cases.Near > 10_000 {
		return keyErrorf("cases.duplicate_distance", "%g m can't be; write 1 to 10000", c.Cases.Near)
	}
	if c.Cases.Within.Std() <= 0 || c.Cases.Within.Std() > 366*24*time.Hour {
		return keyErrorf("cases.duplicate_time", "%s can't be; write more than 0s, at most 366d", c.Cases.Within)
	}
	if err := cases.CheckPhotos(c.Cases.Photos); err != nil {
		return keyErrorf("cases.photos", "%v", err)
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
	if least := max(days(32), c.Log.MaxAge); c.Log.Ledger != 0 && c.Log.Ledger < least {
		return keyErrorf("log.ledger", "%s is too short; at least 32d and log.max_age, so that an audit can compare what the log holds, or 0s to keep everything", c.Log.Ledger)
	}
	if c.Log.Reserve < 8<<20 {
		return keyErrorf("log.reserve", "%d is too small; at least 8388608 (8 MiB), so that what was acknowledged can be dealt with", c.Log.Reserve)
	}
	if c.Series.Retention != 0 && c.Series.Retention.Std() < time.Hour {
		return keyErrorf("series.retention", "%s is too short; at least 1h, or 0s to keep everything", c.Series.Retention)
	}
	if c.Series.MaxSeries < 0 {
		return keyErrorf("series.max_series", "%d can't be; write how many series the database may hold, or 0 for no limit", c.Series.MaxSeries)
	}
	for _, r := range []struct {
		key  string
		keep citywarden.Duration
	}{{"minute", c.Series.Rollups.Minute}, {"quarter", c.Series.Rollups.Quarter}, {"hour", c.Series.Rollups.Hour}, {"day", c.Series.Rollups.Day}} {
		if r.keep != 0 && r.keep.Std() < time.Hour {
			return keyErrorf("series.rollups."+r.key, "%s is too short; at least 1h, or 0s to keep everything", r.keep)
		}
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
