package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/app/certify"
	"github.com/citywarden/citywarden/broker/coap"
	"github.com/citywarden/citywarden/devices"
)

type certifyCmd struct {
	Model   string            `help:"Model of the device." required:"" placeholder:"NAME"`
	Models  string            `help:"Folder of device models of your own." type:"existingdir" placeholder:"DIR"`
	MQTT    string            `help:"Address of MQTT; empty for none." default:":1883" placeholder:"ADDR" name:"mqtt"`
	MQTTS   string            `help:"Address of MQTT over TLS, with --cert and --key." placeholder:"ADDR" name:"mqtts"`
	HTTP    string            `help:"Address of HTTP; empty for none." default:":8080" placeholder:"ADDR" name:"http"`
	CoAP    string            `help:"Address of CoAP, UDP; empty for none." default:":5683" placeholder:"ADDR" name:"coap"`
	CoAPS   string            `help:"Address of CoAP over DTLS, UDP: by a key, the identity being \"device\" and the key the token, or with --cert and --key." placeholder:"ADDR" name:"coaps"`
	CoAPTCP string            `help:"Address of CoAP over TCP." placeholder:"ADDR" name:"coap-tcp"`
	CoAPTLS string            `help:"Address of CoAP over TLS, with --cert and --key." placeholder:"ADDR" name:"coap-tls"`
	Child   string            `help:"The device is a gateway: model of the devices behind it." placeholder:"NAME"`
	Cert    string            `help:"PEM file of the certificate of --mqtts, --coaps and --coap-tls." type:"existingfile" placeholder:"FILE"`
	Key     string            `help:"PEM file of its key." type:"existingfile" placeholder:"FILE"`
	Token   string            `help:"Token that the device shows; a random one is printed when it is left out." placeholder:"TOKEN"`
	For     time.Duration     `help:"How long to look at it; Ctrl-C ends it earlier." default:"5m"`
	Outage  time.Duration     `help:"How long an outage to play once three messages came; 0s for none." default:"15s"`
	Command string            `help:"Command of the model to send." placeholder:"METHOD"`
	Param   map[string]string `help:"Parameters of the command: K=V." placeholder:"K=V"`
	HTML    string            `help:"File for the report as a page." type:"path" placeholder:"FILE.html" name:"html"`
	JSON    string            `help:"File for the report as JSON." type:"path" placeholder:"FILE.json" name:"json"`
	Lang    string            `help:"Language of what is printed: ${enum}." enum:"en,zh" default:"en"`
}

// Run listens for the device and reports what it saw.
func (c *certifyCmd) Run(ctx context.Context, o output) error {
	opts, err := c.options()
	if err != nil {
		return err
	}
	if err := c.listen(ctx, &opts, o.out); err != nil {
		return err
	}
	opts.Told = func(x certify.Check) { fmt.Fprintln(o.out, x.Text(c.Lang)) }
	ctx, cancel := context.WithTimeout(ctx, c.For)
	defer cancel()
	r, err := certify.Run(ctx, opts)
	if err != nil {
		return err
	}
	fmt.Fprintln(o.out)
	for i := range r.Checks {
		fmt.Fprintln(o.out, r.Checks[i].Text(c.Lang))
	}
	if c.HTML != "" {
		err = writeTo(c.HTML, r.WriteHTML)
	}
	if c.JSON != "" && err == nil {
		err = writeTo(c.JSON, func(w io.Writer) error { return toJSON(w, r) })
	}
	if n := r.Count(certify.Failed); err == nil && n > 0 {
		err = fmt.Errorf("%s failed", counted(n, "check"))
	} else if err == nil && r.Count(certify.Passed) == 0 {
		err = errors.New("no device came")
	}
	return err
}

func writeTo(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// options checks what was asked for.
func (c *certifyCmd) options() (certify.Options, error) {
	o := certify.Options{Token: c.Token, Outage: c.Outage, Command: c.Command}
	from := []fs.FS{devices.Builtin()}
	if c.Models != "" {
		from = append(from, os.DirFS(c.Models))
	}
	models, err := devices.LoadModels(from...)
	if err != nil {
		return o, err
	}
	if o.Model, err = modelOf(models, "--model", c.Model); err != nil {
		return o, err
	}
	if c.Child != "" {
		if o.Child, err = modelOf(models, "--child", c.Child); err != nil {
			return o, err
		}
	}
	if o.Token == "" {
		o.Token = rand.Text()
	}
	for name, addr := range map[string]string{"--mqtts": c.MQTTS, "--coap-tls": c.CoAPTLS} {
		if (c.Cert == "" || c.Key == "") && addr != "" {
			return o, &usageError{name + " needs --cert and --key"}
		}
	}
	const leastKey = 16 // as the platform takes
	if c.CoAPS != "" && len(o.Token) < leastKey {
		return o, &usageError{fmt.Sprintf("--token: as the key of --coaps it has at least %d characters", leastKey)}
	}
	if c.Cert != "" && c.Key != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return o, &usageError{fmt.Sprintf("--cert and --key: %v", err)}
		}
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	}
	if c.Command == "" {
		return o, nil
	}
	command, ok := o.Model.Command(c.Command)
	if !ok {
		return o, &usageError{fmt.Sprintf("--command: model %s has no command %q", c.Model, c.Command)}
	}
	params := map[string]any{}
	for k, v := range c.Param {
		params[k] = attribute(v)
	}
	if err := command.Check(params); err != nil {
		return o, &usageError{err.Error()}
	}
	o.Params, err = json.Marshal(params)
	return o, err
}

// modelOf returns the model that a flag names.
func modelOf(models *devices.Models, flag, name string) (*citywarden.Model, error) {
	if m, ok := models.Model(citywarden.ModelName(name)); ok {
		return m, nil
	}
	var known []string
	for _, m := range models.All() {
		known = append(known, string(m.Name))
	}
	hint := citywarden.DidYouMean(name, known)
	if hint == "" {
		hint = "; there are " + strings.Join(known, ", ")
	}
	return nil, &usageError{fmt.Sprintf("%s: no model %q%s", flag, name, hint)}
}

// listen opens the sockets and says where they are.
func (c *certifyCmd) listen(ctx context.Context, o *certify.Options, w io.Writer) error {
	var lc net.ListenConfig
	fmt.Fprintf(w, "token    %s\n", o.Token)
	for _, l := range []struct {
		name, flag, addr string
		to               *net.Listener
	}{{"MQTT", "mqtt", c.MQTT, &o.MQTT}, {"MQTTS", "mqtts", c.MQTTS, &o.MQTTS}, {"HTTP", "http", c.HTTP, &o.HTTP},
		{"CoAP/TCP", "coap-tcp", c.CoAPTCP, &o.CoAPTCP}, {"CoAP/TLS", "coap-tls", c.CoAPTLS, &o.CoAPTLS}} {
		if l.addr == "" {
			continue
		}
		x, err := lc.Listen(ctx, "tcp", l.addr)
		if err != nil {
			return fmt.Errorf("%s: %w; choose another address with --%s", l.name, err, l.flag)
		}
		*l.to = x
		fmt.Fprintf(w, "%-8s %s\n", l.name, reachable(x.Addr()))
	}
	for _, l := range []struct {
		name, flag, addr, what string
		to                     *coap.Conn
	}{{"CoAPS", "coaps", c.CoAPS, "UDP, identity " + string(certify.Device) + ", the token is the key", &o.CoAPS}, {"CoAP", "coap", c.CoAP, "UDP", &o.CoAP}} {
		if l.addr == "" {
			continue
		}
		x, err := lc.ListenPacket(ctx, "udp", l.addr)
		if err != nil {
			return fmt.Errorf("%s: %w; choose another address with --%s", l.name, err, l.flag)
		}
		*l.to = x.(*net.UDPConn)
		fmt.Fprintf(w, "%-8s %s (%s)\n", l.name, reachable(x.LocalAddr()), l.what)
	}
	return nil
}
