package app

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/broker/uplink"
)

// UplinkConfig is an MQTT broker elsewhere, whose messages are taken.
type UplinkConfig struct {
	Name     string              `yaml:"name"`      // a word, for people and metrics
	URL      string              `yaml:"url"`       // tcp, ssl, ws or wss
	ClientID string              `yaml:"client_id"` // the name of the session there
	User     string              `yaml:"user"`      // "" for none
	Password string              `yaml:"password"`  // CITYWARDEN_UPLINK_NAME_PASSWORD overrides it
	CA       string              `yaml:"ca"`        // PEM file of the authorities that sign the broker's certificate; "" for the system's
	Cert     string              `yaml:"cert"`      // PEM file of a certificate to sign in with; "" for none
	Key      string              `yaml:"key"`       // and of its key
	Group    string              `yaml:"group"`     // of a shared subscription; "" for none
	Topics   []UplinkTopicConfig `yaml:"topics"`
}

// UplinkTopicConfig is what is subscribed to there.
type UplinkTopicConfig struct {
	Topic   string              `yaml:"topic"`   // a filter, with {device} for the level that names the device
	QoS     *int64              `yaml:"qos"`     // 1 unless it says 0
	As      string              `yaml:"as"`      // one of uplink.Kinds; "" means telemetry
	Device  string              `yaml:"device"`  // the id, like acme-{device}; "" for what stands in the topic
	Gateway citywarden.DeviceID `yaml:"gateway"` // who says a body of ThingsBoard's gateway topics; "" for a device's own
}

var uplinkName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// passwordName is the name of the environment variable that holds the password.
func (c *UplinkConfig) passwordName() string {
	return "CITYWARDEN_UPLINK_" + strings.ToUpper(strings.ReplaceAll(c.Name, "-", "_")) + "_PASSWORD"
}

// brokers returns the brokers of the uplinks; a keyError names what is wrong.
func (c *Config) brokers() ([]uplink.Broker, error) {
	var out []uplink.Broker
	for i := range c.Uplinks {
		u, key := &c.Uplinks[i], fmt.Sprintf("uplinks.%d", i)
		at, err := url.Parse(u.URL)
		switch {
		case !uplinkName.MatchString(u.Name):
			return nil, keyErrorf(key, "give the uplink a name of lower-case letters, digits and '-', not %q", u.Name)
		case slices.ContainsFunc(out, func(o uplink.Broker) bool { return o.Name == u.Name }):
			return nil, keyErrorf(key+".name", "there is an uplink %s already", u.Name)
		case err != nil || at.Host == "" || !slices.Contains([]string{"tcp", "ssl", "ws", "wss"}, at.Scheme):
			return nil, keyErrorf(key+".url", "this is no URL of a broker; write it like tcp://emqx.example:1883, ssl://emqx.example:8883 or wss://emqx.example/mqtt")
		case at.User != nil:
			return nil, keyErrorf(key+".url", "write user and password under keys of their own")
		case u.ClientID == "":
			return nil, keyErrorf(key, "give uplink %s a client_id, which nobody else uses at that broker: it keeps the messages under it while the platform is away", u.Name)
		case strings.ContainsAny(u.Group, "/+#"):
			return nil, keyErrorf(key+".group", "%q: a group is a word without /, + and #", u.Group)
		case len(u.Topics) == 0:
			return nil, keyErrorf(key, "say which topics of %s are taken: topics: [{topic: 'factory/{device}/telemetry'}]", u.Name)
		}
		b := uplink.Broker{Name: u.Name, URL: u.URL, ClientID: u.ClientID, User: u.User, Password: u.Password, Group: u.Group}
		if b.TLS, err = u.tls(); err != nil {
			return nil, keyErrorf(key, "%v", err)
		}
		for k, t := range u.Topics {
			x := uplink.Topic{Filter: t.Topic, QoS: 1, As: cmp.Or(t.As, "telemetry"), Device: t.Device, Gateway: t.Gateway}
			if t.QoS != nil {
				x.QoS = byte(min(max(*t.QoS, 0), 255))
			}
			if err := x.Check(); err != nil {
				return nil, keyErrorf(fmt.Sprintf("%s.topics.%d", key, k), "%v", err)
			}
			b.Topics = append(b.Topics, x)
		}
		if err := b.Check(); err != nil {
			return nil, keyErrorf(key+".group", "%v", err)
		}
		out = append(out, b)
	}
	return out, nil
}

// tls reads the certificates; nil when none are named.
func (c *UplinkConfig) tls() (*tls.Config, error) {
	if c.CA == "" && c.Cert == "" && c.Key == "" {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: there is no certificate in %s", c.CA)
		}
	}
	if c.Cert != "" || c.Key != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("cert and key: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
