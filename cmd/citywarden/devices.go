package main

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/citywarden/citywarden"
)

type devicesCmd struct {
	Add        deviceAddCmd        `cmd:"" help:"Add a device and print its token."`
	List       deviceListCmd       `cmd:"" help:"List devices with their latest values."`
	Import     deviceImportCmd     `cmd:"" help:"Add the devices of a CSV file, or change those that are there."`
	Export     deviceExportCmd     `cmd:"" help:"Print all devices as CSV."`
	Secret     deviceSecretCmd     `cmd:"" help:"Give a device a new token, a user name and password of MQTT, a certificate, or a pre-shared key of DTLS."`
	Known      deviceKnownCmd      `cmd:"" name:"credentials" help:"List what a device is known by, without the secrets."`
	Revoke     deviceRevokeCmd     `cmd:"" help:"Take away what a device is known by: its sessions end at once. While its model provisions, disable it to keep it out."`
	Disable    deviceDisableCmd    `cmd:"" help:"Refuse what a device sends: its sessions end at once."`
	Enable     deviceEnableCmd     `cmd:"" help:"Let a device that was disabled send again."`
	Claim      deviceClaimCmd      `cmd:"" help:"Say where a device is that announced the secret which is given."`
	Tell       deviceTellCmd       `cmd:"" help:"Tell a device to do something that its model declares."`
	Attributes deviceAttributesCmd `cmd:"" help:"List attributes: what is set, what the device reported, and whether they agree."`
	Clocks     deviceClocksCmd     `cmd:"" help:"List how far the clocks of devices are off, and how fast they drift."`
	Commands   deviceCommandsCmd   `cmd:"" help:"List what a device was told to do, and how far that is."`
}

type deviceAddCmd struct {
	remote
	ID    string            `arg:"" help:"The device's id."`
	Model string            `required:"" help:"Its model, like smoke-detector."`
	Name  string            `help:"Its name for people."`
	Lat   *float64          `help:"Latitude, degrees."`
	Lon   *float64          `help:"Longitude, degrees."`
	CRS   string            `help:"Of the position: WGS84, CGCS2000 or GCJ-02." name:"crs"`
	Attr  map[string]string `help:"Attributes, like zone=B1-3F." placeholder:"K=V"`

	Component string `help:"Code of the component that it is attached to; it takes its position unless it has one."`
}

// Run adds the device and issues a token for it.
func (d *deviceAddCmd) Run(ctx context.Context, o output) error {
	dev := map[string]any{"id": d.ID, "name": d.Name, "model": d.Model, "component": d.Component, "crs": d.CRS}
	if (d.Lat == nil) != (d.Lon == nil) {
		return &usageError{"say both --lat and --lon, or neither"}
	}
	if d.Lat != nil {
		dev["location"] = citywarden.Point{Lat: *d.Lat, Lon: *d.Lon}
	}
	attrs := map[string]any{}
	for k, v := range d.Attr {
		if attrs[k] = attribute(v); citywarden.IsIdentity(k) {
			attrs[k] = v
		}
	}
	dev["attributes"] = attrs
	c, err := d.client(ctx)
	if err != nil {
		return err
	}
	var added citywarden.Device
	if err := c.call(ctx, "POST", "/devices", dev, &added); err != nil {
		return err
	}
	var cred struct {
		Token string `json:"token"`
	}
	if err := c.call(ctx, "POST", "/devices/"+url.PathEscape(d.ID)+"/credentials", map[string]string{"type": "token"}, &cred); err != nil {
		return fmt.Errorf("the device was added, but got no token: %w", err)
	}
	if d.JSON {
		return toJSON(o.out, map[string]any{"device": added, "token": cred.Token})
	}
	fmt.Fprintf(o.out, "device %s added\ntoken %s\n", added.ID, cred.Token)
	return nil
}

type deviceSecretCmd struct {
	remote
	ID       string `arg:"" help:"The device's id."`
	MQTT     bool   `help:"A user name and password of MQTT, not a token." name:"mqtt" xor:"kind"`
	MQTTUser string `help:"With --mqtt: the user name; the device's id when left out." name:"mqtt-user"`
	ClientID string `help:"With --mqtt: the only client id that may use it; any when left out."`
	PSK      bool   `help:"A pre-shared key of DTLS, for CoAP." name:"psk" xor:"kind"`
	Identity string `help:"With --psk: what the device names itself in the handshake; its id when left out."`
	Agreed   string `help:"The password of --mqtt or the key of --psk that was agreed on; a random one when left out."`
	X509     string `help:"PEM file of the device's certificate, or the SHA-256 of it in hex digits." name:"x509" placeholder:"FILE" xor:"kind"`
	X509Name string `help:"The common name in certificates that tls.client_ca issues." name:"x509-name" xor:"kind"`
	Overlap  string `help:"How long what the device had before stays good, like 24h or 7d; not at all when left out."`
}

// Run issues the secret and prints it.
func (d *deviceSecretCmd) Run(ctx context.Context, o output) error {
	kind := "token"
	switch {
	case d.MQTT:
		kind = "mqtt"
	case d.X509 != "" || d.X509Name != "":
		kind = "x509"
	case d.PSK:
		kind = "psk"
	}
	certificate := d.X509
	if text, err := os.ReadFile(d.X509); err == nil {
		certificate = string(text)
	}
	c, err := d.client(ctx)
	if err != nil {
		return err
	}
	body := map[string]string{"type": kind, "user": d.MQTTUser, "client_id": d.ClientID, "overlap": d.Overlap,
		"certificate": certificate, "subject": d.X509Name, "identity": d.Identity}
	if body["password"] = d.Agreed; d.PSK {
		body["key"], body["password"] = d.Agreed, ""
	}
	var got struct {
		Token    string `json:"token,omitempty"`
		User     string `json:"user,omitempty"`
		ClientID string `json:"client_id,omitempty"`
		Password string `json:"password,omitempty"`

		Certificate string `json:"certificate,omitempty"`

		Identity string `json:"identity,omitempty"`
		Key      string `json:"key,omitempty"`
	}
	if err := c.call(ctx, "POST", "/devices/"+url.PathEscape(d.ID)+"/credentials", body, &got); err != nil {
		return err
	}
	switch {
	case d.JSON:
		return toJSON(o.out, got)
	case kind == "token":
		fmt.Fprintf(o.out, "token %s\n", got.Token)
	case kind == "x509":
		fmt.Fprintf(o.out, "certificate %s\n", got.Certificate)
	case kind == "psk":
		fmt.Fprintf(o.out, "identity %s\nkey %s\n", got.Identity, got.Key)
	default:
		fmt.Fprintf(o.out, "user %s\npassword %s\n", got.User, got.Password)
	}
	return nil
}

type deviceKnownCmd struct {
	remote
	ID string `arg:"" help:"The device's id."`
}

// Run lists the credentials.
func (d *deviceKnownCmd) Run(ctx context.Context, o output) error {
	return printList(ctx, o, &d.remote, "/devices/"+url.PathEscape(d.ID)+"/credentials", nil, []string{"KIND", "SINCE", "UNTIL", "REPLACED", "HINT"},
		func(at stamp, c citywarden.DeviceCredential) []string {
			replaced := "no"
			if c.Replaced {
				replaced = "yes"
			}
			return []string{dash(string(c.Kind)), at(c.Since), at(c.Until), replaced, c.Hint}
		})
}

type deviceRevokeCmd struct {
	remote
	ID string `arg:"" help:"The device's id."`
}

// Run revokes the credentials.
func (d *deviceRevokeCmd) Run(ctx context.Context, o output) error {
	c, err := d.client(ctx)
	if err != nil {
		return err
	}
	if err := c.call(ctx, "DELETE", "/devices/"+url.PathEscape(d.ID)+"/credentials", nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "device %s is known by nothing any more; issue it something new with: citywarden devices secret %s\nwhile its model provisions, disable it to keep it out\n", d.ID, d.ID)
	return nil
}

type deviceClaimCmd struct {
	remote
	ID        string   `arg:"" help:"The device's id."`
	Secret    string   `help:"That the device announced."`
	Lat       *float64 `help:"Latitude, degrees."`
	Lon       *float64 `help:"Longitude, degrees."`
	CRS       string   `help:"Of the position: WGS84, CGCS2000 or GCJ-02." name:"crs"`
	Component string   `help:"Code of the component that it is attached to; it takes its position unless it has one."`
	Site      string   `help:"The site that it is at."`
	Name      string   `help:"Its name for people."`
}

// Run claims the device.
func (d *deviceClaimCmd) Run(ctx context.Context, o output) error {
	if (d.Lat == nil) != (d.Lon == nil) {
		return &usageError{"say both --lat and --lon, or neither"}
	}
	body := map[string]any{"secret": d.Secret, "crs": d.CRS, "component": d.Component, "site": d.Site, "name": d.Name}
	if d.Lat != nil {
		body["location"] = citywarden.Point{Lat: *d.Lat, Lon: *d.Lon}
	}
	c, err := d.client(ctx)
	if err != nil {
		return err
	}
	var v citywarden.DeviceView
	if err := c.call(ctx, "POST", "/devices/"+url.PathEscape(d.ID)+"/claim", body, &v); err != nil {
		return err
	}
	if d.JSON {
		return toJSON(o.out, v)
	}
	where := "without a unit grid"
	if v.Grid != "" {
		where = "in unit grid " + string(v.Grid)
	}
	if site := v.Site(); site != "" {
		where += ", at " + string(site)
	}
	fmt.Fprintf(o.out, "device %s is claimed, %s\n", v.ID, where)
	return nil
}

type deviceDisableCmd struct {
	remote
	ID string `arg:"" help:"The device's id."`
}

// Run disables a device.
func (d *deviceDisableCmd) Run(ctx context.Context, o output) error {
	return d.switchDevice(ctx, o, d.ID, "disable", "is disabled: its sessions have ended, and nothing of it is taken")
}

type deviceEnableCmd struct {
	remote
	ID string `arg:"" help:"The device's id."`
}

// Run enables a device.
func (d *deviceEnableCmd) Run(ctx context.Context, o output) error {
	return d.switchDevice(ctx, o, d.ID, "enable", "may send again, with what it was known by")
}

// switchDevice disables or enables a device and prints what became of it.
func (r *remote) switchDevice(ctx context.Context, o output, id, action, said string) error {
	c, err := r.client(ctx)
	if err != nil {
		return err
	}
	var v citywarden.DeviceView
	if err := c.call(ctx, "POST", "/devices/"+url.PathEscape(id)+"/"+action, nil, &v); err != nil {
		return err
	}
	if r.JSON {
		return toJSON(o.out, v)
	}
	fmt.Fprintf(o.out, "device %s %s\n", id, said)
	return nil
}

// attribute reads a number or true and false as such, all else as text.
func attribute(s string) any {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return f
	}
	switch s {
	case "true":
		return true
	case "false":
		return false
	}
	return s
}

type deviceListCmd struct {
	remote
	Model  string `help:"Only of that model."`
	Search string `help:"Only with that in the id or name." short:"s"`
	Status string `help:"Only those that are online, silent, or have never been heard." enum:",online,silent,never" default:""`

	Component string `help:"Only those that are attached to it."`
}

// Run lists devices.
func (d *deviceListCmd) Run(ctx context.Context, o output) error {
	q := url.Values{"limit": {"1000"}}
	if d.Model != "" {
		q.Set("model", d.Model)
	}
	if d.Search != "" {
		q.Set("q", d.Search)
	}
	if d.Status != "" {
		q.Set("status", d.Status)
	}
	if d.Component != "" {
		q.Set("component", d.Component)
	}
	return printList(ctx, o, &d.remote, "/devices", q, []string{"ID", "NAME", "MODEL", "STATUS", "LAST SEEN", "ALARM", "LATEST"}, func(at stamp, v citywarden.DeviceView) []string {
		return []string{string(v.ID), v.Name, string(v.Model), presence(v.Presence), at(v.LastSeen), dash(v.Alarm), latest(v.Latest)}
	})
}

type deviceClocksCmd struct {
	remote
	State  string `help:"Only those that are: ${enum}." enum:",unset,ahead,behind,drifting,good" default:""`
	Model  string `help:"Only of that model."`
	Search string `help:"Only with that in the id or name." short:"s"`
}

// Run lists the clocks of devices that give times.
func (d *deviceClocksCmd) Run(ctx context.Context, o output) error {
	q := url.Values{"limit": {"1000"}}
	for name, value := range map[string]string{"clock": d.State, "model": d.Model, "q": d.Search} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return printList(ctx, o, &d.remote, "/devices", q, []string{"ID", "MODEL", "CLOCK", "OFFSET", "DRIFT", "SINCE", "AT"}, func(at stamp, v citywarden.DeviceView) []string {
		c := v.Clock
		if c == nil {
			return []string{string(v.ID), string(v.Model), "-", "-", "-", "-", "-"}
		}
		offset, drift := "-", "-"
		if c.State != citywarden.ClockUnset { // else it is off by decades
			offset = fmt.Sprintf("%+.3f s", c.Offset)
		}
		if c.Drift != nil {
			drift = fmt.Sprintf("%+.1f ppm", *c.Drift)
		}
		return []string{string(v.ID), string(v.Model), string(c.State), offset, drift, at(c.Since), at(c.At)}
	})
}

type deviceAttributesCmd struct {
	remote
	ID string `arg:"" help:"The device's id."`
}

// Run lists attributes by name.
func (d *deviceAttributesCmd) Run(ctx context.Context, o output) error {
	value := func(v any) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprint(v)
	}
	return printList(ctx, o, &d.remote, "/devices/"+url.PathEscape(d.ID)+"/attributes", nil, []string{"NAME", "SCOPE", "VALUE", "FROM", "REPORTED", "STATE"},
		func(_ stamp, x citywarden.AttributeState) []string {
			return []string{x.Name, x.Scope, value(x.Value), dash(x.From), value(x.Reported), dash(x.State)}
		})
}

// presence prints the status and, of a silent device, why.
func presence(p citywarden.Presence) string {
	if p.Reason != "" {
		return fmt.Sprintf("%s: %s", p.Status, p.Reason)
	}
	return string(p.Status)
}

// latest prints values by the names of their metrics.
func latest(m map[citywarden.MetricName]citywarden.Latest) string {
	parts := make([]string, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, string(name)+" "+m[name].Value.String())
	}
	return dash(strings.Join(parts, ", "))
}

type deviceImportCmd struct {
	remote
	File *os.File `arg:"" help:"CSV: id,name,model,lat,lon,crs,component,token,x509,psk,psk_identity,attr.NAME…; - reads the standard input."`
}

// Run imports the file and reports each line that could not be taken.
func (d *deviceImportCmd) Run(ctx context.Context, o output) error {
	defer d.File.Close()
	c, err := d.client(ctx)
	if err != nil {
		return err
	}
	var rep struct {
		Created int `json:"created"`
		Updated int `json:"updated"`
		Failed  int `json:"failed"`
		Lines   []struct {
			Line  int    `json:"line"`
			ID    string `json:"id"`
			OK    bool   `json:"ok"`
			Error string `json:"error,omitempty"`
		} `json:"lines"`
	}
	c.http.Timeout = 0 // 100,000 take a minute on a busy machine
	if err := c.call(ctx, "POST", "/devices/import", d.File, &rep); err != nil {
		return err
	}
	if d.JSON {
		if err := toJSON(o.out, rep); err != nil {
			return err
		}
	} else {
		for _, l := range rep.Lines {
			if !l.OK {
				fmt.Fprintf(o.err, "%s:%d: %s\n", d.File.Name(), l.Line, l.Error)
			}
		}
		fmt.Fprintf(o.out, "%d added, %d changed, %d refused\n", rep.Created, rep.Updated, rep.Failed)
	}
	if rep.Failed > 0 {
		return fmt.Errorf("%d lines were refused; correct them and import the file again", rep.Failed)
	}
	return nil
}

type deviceExportCmd struct{ remote }

// Run prints all devices as CSV.
func (d *deviceExportCmd) Run(ctx context.Context, o output) error {
	c, err := d.client(ctx)
	if err != nil {
		return err
	}
	return c.call(ctx, "GET", "/devices/export", nil, o.out)
}
