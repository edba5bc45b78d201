package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/citywarden/citywarden/app"
	"github.com/citywarden/citywarden/broker/mqtt"
)

type serveCmd struct {
	Config   string  `help:"Configuration file; citywarden.example.yaml lists every key." type:"path" placeholder:"FILE"`
	Data     *string `help:"Folder that holds everything the platform keeps (default ./data)." placeholder:"DIR"`
	Demo     bool    `help:"Seed a demo county and run its simulated devices; listens on loopback."`
	HTTP     *string `help:"Address of console and API (default :8080)." placeholder:"ADDR" name:"http"`
	MQTT     *string `help:"Address of MQTT (default :1883)." placeholder:"ADDR" name:"mqtt"`
	CoAP     *string `help:"Address of CoAP, UDP (default :5683)." placeholder:"ADDR" name:"coap"`
	HTTPS    *string `help:"Address of console and API over TLS; off unless it is said." placeholder:"ADDR" name:"https"`
	MQTTS    *string `help:"Address of MQTT over TLS; off unless it is said." placeholder:"ADDR" name:"mqtts"`
	WS       *string `help:"Address of MQTT over WebSocket; off unless it is said." placeholder:"ADDR" name:"ws"`
	WSS      *string `help:"Address of MQTT over WebSocket and TLS; off unless it is said." placeholder:"ADDR" name:"wss"`
	CoAPS    *string `help:"Address of CoAP with DTLS, UDP; off unless it is said." placeholder:"ADDR" name:"coaps"`
	CoAPTCP  *string `help:"Address of CoAP over TCP; off unless it is said." placeholder:"ADDR" name:"coap-tcp"`
	CoAPSTCP *string `help:"Address of CoAP over TCP and TLS; off unless it is said." placeholder:"ADDR" name:"coaps-tcp"`
	Cert     *string `help:"PEM file of the certificate that is shown over TLS." placeholder:"FILE" name:"tls-cert"`
	Key      *string `help:"PEM file of its key." placeholder:"FILE" name:"tls-key"`
	ClientCA *string `help:"PEM file of who certifies devices by name." placeholder:"FILE" name:"tls-client-ca"`
	LogLevel *string `help:"What is printed: debug, info, warn or error." placeholder:"LEVEL"`
}

// Run runs the platform until it is told to stop.
func (s *serveCmd) Run(ctx context.Context, o output) error {
	ctx, stop := context.WithCancel(ctx)
	var pacing sync.WaitGroup
	boundMemory()
	pacing.Go(func() { paceCollections(ctx) })
	defer pacing.Wait()
	defer stop()
	c := app.Default()
	if s.Config != "" {
		var err error
		if c, err = app.LoadConfig(s.Config); err != nil {
			return err
		}
	}
	c.ReadSecrets(os.Getenv)
	for _, f := range []struct {
		flag *string
		to   *string
	}{{s.Data, &c.Data}, {s.HTTP, &c.HTTP.Addr}, {s.MQTT, &c.MQTT.Addr}, {s.CoAP, &c.CoAP.Addr}, {s.HTTPS, &c.HTTP.TLS}, {s.MQTTS, &c.MQTT.TLS}, {s.WS, &c.MQTT.WS}, {s.WSS, &c.MQTT.WSS},
		{s.CoAPS, &c.CoAP.DTLS}, {s.CoAPTCP, &c.CoAP.TCP}, {s.CoAPSTCP, &c.CoAP.TLS},
		{s.Cert, &c.TLS.Cert}, {s.Key, &c.TLS.Key}, {s.ClientCA, &c.TLS.ClientCA}, {s.LogLevel, &c.LogLevel}} {
		if f.flag != nil {
			*f.to = *f.flag
		}
	}
	if s.Demo {
		c.Demo = true
		c = c.Loopback()
	}
	var level slog.Level
	if err := c.Check(); err != nil {
		return &usageError{err.Error()}
	}
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(o.err, &slog.HandlerOptions{Level: level}))
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	a, err := app.Open(ctx, c, app.Options{
		Logger: log, Version: version, AdminPassword: os.Getenv("CITYWARDEN_ADMIN_PASSWORD"), ReloadRules: reload,
	})
	if err != nil {
		return err
	}
	fmt.Fprint(o.out, greeting(a, c.Demo))
	err = a.Run(ctx)
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// greeting tells whoever started the platform where it is and how to sign in.
func greeting(a *app.App, demo bool) string {
	s := "citywarden " + version + " is ready\n"
	for _, l := range []struct{ key, line string }{
		{"http.addr", "console  http://%s"}, {"http.tls", "console  https://%s"},
		{"mqtt.addr", "MQTT     %s"}, {"mqtt.tls", "MQTT     %s (TLS)"},
		{"mqtt.ws", "MQTT     ws://%s" + mqtt.WebSocketPath}, {"mqtt.wss", "MQTT     wss://%s" + mqtt.WebSocketPath},
		{"coap.addr", "CoAP     %s (UDP)"}, {"coap.dtls", "CoAP     %s (UDP, DTLS)"}, {"coap.tcp", "CoAP     %s (TCP)"}, {"coap.tls", "CoAP     %s (TCP, TLS)"},
	} {
		if addr := a.Addr(l.key); addr != nil {
			s += fmt.Sprintf("  "+l.line+"\n", reachable(addr))
		}
	}
	posts := ""
	for i, u := range app.Posts() {
		switch {
		case i == 0:
		case i%6 == 0:
			posts += ",\n           "
		default:
			posts += ", "
		}
		posts += u.Name
	}
	switch p := a.AdminPassword(); {
	case p != "" && demo:
		s += fmt.Sprintf("  sign in  admin, password %s\n", p)
		s += "           the posts of the demo have the same password:\n           " + posts + "\n"
	case demo:
		s += "  sign in  admin, with the password from CITYWARDEN_ADMIN_PASSWORD\n"
		s += fmt.Sprintf("           the posts of the demo have the password %s:\n           %s\n", a.PostsPassword(), posts)
	case p != "":
		s += fmt.Sprintf("  sign in  admin, password %s (shown this once; change it in the console)\n", p)
	}
	return s
}

// reachable returns addr with the host that a browser on this machine can use.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
