package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/citywarden/citywarden/simulators"
	"github.com/citywarden/citywarden/simulators/scenario"
)

type simulateScenarioCmd struct {
	File     string  `arg:"" help:"Scenario (YAML)." type:"path"`
	URL      string  `help:"The platform's MQTT." default:"mqtt://127.0.0.1:1883" name:"url" placeholder:"mqtt://HOST:PORT"`
	CoAP     string  `help:"The platform's CoAP; empty where it has none: all devices speak MQTT then." default:"coap://127.0.0.1:5683" name:"coap" placeholder:"coap://HOST:PORT"`
	API      string  `help:"The platform's HTTP API." default:"http://127.0.0.1:8080" env:"CITYWARDEN_SERVER" name:"api" placeholder:"URL"`
	Token    string  `help:"Token to sign in with, instead of a user and password." env:"CITYWARDEN_TOKEN"`
	User     string  `help:"User to sign in as." default:"admin" env:"CITYWARDEN_USER"`
	Password string  `help:"Password of the user; better said by the environment." env:"CITYWARDEN_PASSWORD"`
	Speed    float64 `help:"Times faster than real: what happens lies in the past then, up to now." default:"1"`
	Now      bool    `help:"Begin now, also where the scenario wants another time of the week."`
	JSON     bool    `help:"Print the verdict as JSON." name:"json"`
	Verbose  bool    `help:"Print what the devices do." short:"v"`
}

// Run plays the scenario and judges the platform.
func (s *simulateScenarioCmd) Run(ctx context.Context, o output) error {
	text, err := os.ReadFile(s.File)
	if err != nil {
		return &usageError{err.Error()}
	}
	story, err := scenario.Load(filepath.Base(s.File), text, func(path string) (io.ReadCloser, error) {
		return os.Open(filepath.Join(filepath.Dir(s.File), path))
	})
	if err != nil {
		return &usageError{err.Error()}
	}
	addr, err := brokerAddr(s.URL)
	if err != nil {
		return err
	}
	var coap simulators.Dialer
	if s.CoAP != "" {
		addr, err := hostPort("--coap", s.CoAP, "coap", "5683")
		if err != nil {
			return err
		}
		coap = simulators.UDP(addr)
	}
	if !(s.Speed >= 1) {
		return &usageError{fmt.Sprintf("--speed %g: 1 is real time, more is faster", s.Speed)}
	}
	c, err := (&remote{Server: s.API, Token: s.Token, User: s.User, Password: s.Password}).client(ctx)
	if err != nil {
		return err
	}
	level := slog.LevelWarn
	if s.Verbose {
		level = slog.LevelDebug
	}
	if story.Start != nil && !s.Now {
		at, err := c.stamp(ctx)
		if err != nil {
			return err
		}
		begin := story.Start.Next(time.Now())
		fmt.Fprintf(o.err, "begins at %s; --now begins at once\n", at(begin))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(begin)):
		}
	}
	v, err := story.Play(ctx, scenario.Options{
		Dial: simulators.TCP(addr), CoAP: coap, Platform: caller{c}, Speed: s.Speed,
		Logger: slog.New(slog.NewTextHandler(o.err, &slog.HandlerOptions{Level: level})),
	})
	if err != nil {
		return err
	}
	if s.JSON {
		err = toJSON(o.out, v)
	} else {
		v.Write(o.out)
	}
	if err == nil && !v.Good {
		err = errors.New("the platform did not do what the scenario expects")
	}
	return err
}

// brokerAddr returns host:port of mqtt://host:port, or of host:port.
func brokerAddr(s string) (string, error) { return hostPort("--url", s, "mqtt", "1883") }

// hostPort returns host:port of scheme://host:port, or of host:port; without a
// port it is the usual one.
func hostPort(flag, s, scheme, port string) (string, error) {
	if u, err := url.Parse(s); err == nil && u.Scheme == scheme && u.Host != "" {
		if u.Port() == "" {
			return net.JoinHostPort(u.Hostname(), port), nil
		}
		return u.Host, nil
	}
	if _, _, err := net.SplitHostPort(s); err != nil {
		return "", &usageError{fmt.Sprintf("%s %q: write %s://HOST:PORT", flag, s, scheme)}
	}
	return s, nil
}

// caller is the API as scenarios call it.
type caller struct{ c *client }

// Call implements scenario.Platform.
func (c caller) Call(ctx context.Context, method, path string, in, out any) error {
	return c.c.call(ctx, method, path, in, out)
}
