package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/citywarden/citywarden/app"
)

type serveCmd struct {
	Config   string  `help:"Configuration file; citywarden.example.yaml lists every key." type:"path" placeholder:"FILE"`
	Data     *string `help:"Folder that holds everything the platform keeps (default ./data)." placeholder:"DIR"`
	Demo     bool    `help:"Seed a demo county and run its simulated devices; listens on loopback."`
	HTTP     *string `help:"Address of console and API (default :8080)." placeholder:"ADDR" name:"http"`
	MQTT     *string `help:"Address of MQTT (default :1883)." placeholder:"ADDR" name:"mqtt"`
	CoAP     *string `help:"Address of CoAP, UDP (default :5683)." placeholder:"ADDR" name:"coap"`
	LogLevel *string `help:"What is printed: debug, info, warn or error." placeholder:"LEVEL"`
}

// Run runs the platform until it is told to stop.
func (s *serveCmd) Run(ctx context.Context, o output) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(200) // a message leaves garbage, the heap that stays is small
	}
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
	}{{s.Data, &c.Data}, {s.HTTP, &c.HTTP.Addr}, {s.MQTT, &c.MQTT.Addr}, {s.CoAP, &c.CoAP.Addr}, {s.LogLevel, &c.LogLevel}} {
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
	if h := a.HTTPAddr(); h != nil {
		s += fmt.Sprintf("  console  http://%s\n", reachable(h))
	}
	if m := a.MQTTAddr(); m != nil {
		s += fmt.Sprintf("  MQTT     %s\n", reachable(m))
	}
	if k := a.CoAPAddr(); k != nil {
		s += fmt.Sprintf("  CoAP     %s (UDP)\n", reachable(k))
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
