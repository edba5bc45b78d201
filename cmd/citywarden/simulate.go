package main

import (
	"context"
	"crypto/rand"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/simulators"
	"github.com/citywarden/citywarden/simulators/county"
)

type simulateCmd struct {
	Devices  simulateDevicesCmd  `cmd:"" help:"Print the demo county's devices as CSV with fresh tokens, for citywarden devices import."`
	County   simulateCountyCmd   `cmd:"" help:"Run the demo county's devices against any platform, with the tokens of that CSV."`
	Scenario simulateScenarioCmd `cmd:"" default:"withargs" help:"Play a scenario against any platform and judge what it made of it: simulate FILE.yaml."`
	Device   simulateDeviceCmd   `cmd:"" help:"Print or draw what a virtual device of a model sends, for vendors to compare with."`
	Load     simulateLoadCmd     `cmd:"" help:"Put a platform under load with many devices, and check that nothing acknowledged is lost."`
	Network  simulateNetworkCmd  `cmd:"" help:"Compute pressures and flows of a water network that an EPANET input file describes."`
}

type simulateDevicesCmd struct{}

// Run prints the demo county's devices.
func (simulateDevicesCmd) Run(o output) error {
	c := county.Demo()
	var names []string
	for _, d := range c.Devices {
		for k := range d.Attributes {
			if !slices.Contains(names, k) {
				names = append(names, k)
			}
		}
	}
	slices.Sort(names)
	w := csv.NewWriter(o.out)
	head := []string{"id", "name", "model", "lat", "lon", "adjacent", "token"}
	for _, n := range names {
		head = append(head, "attr."+n)
	}
	if err := w.Write(head); err != nil {
		return err
	}
	for _, d := range c.Devices {
		adjacent := make([]string, len(d.Adjacent))
		for i, a := range d.Adjacent {
			adjacent[i] = string(a)
		}
		row := []string{string(d.ID), d.Name, string(d.Model), "", "", strings.Join(adjacent, " "), strings.ToLower(rand.Text()[:20])}
		if d.Location != nil {
			row[3], row[4] = strconv.FormatFloat(d.Location.Lat, 'f', -1, 64), strconv.FormatFloat(d.Location.Lon, 'f', -1, 64)
		}
		for _, n := range names {
			cell := ""
			if v, ok := d.Attributes[n]; ok {
				cell = fmt.Sprint(v)
			}
			row = append(row, cell)
		}
		if err := w.Write(row); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

type simulateCountyCmd struct {
	Devices *os.File      `arg:"" help:"CSV with the columns id and token, as citywarden simulate devices prints it."`
	MQTT    string        `help:"Address of the platform's MQTT." default:"127.0.0.1:1883" name:"mqtt"`
	CoAP    string        `help:"Address of the platform's CoAP, UDP." default:"127.0.0.1:5683" name:"coap"`
	Seed    uint64        `help:"Same seed, same county life." default:"350623"`
	For     time.Duration `help:"How long; 0 until it is interrupted." default:"0"`
	Speed   float64       `help:"Times faster than real: what happens in --for lies in the past then, up to now." default:"1"`
}

// Run runs the devices until it is interrupted, or --for is over.
func (s *simulateCountyCmd) Run(ctx context.Context, o output) error {
	defer s.Devices.Close()
	if !(s.Speed >= 1) || s.Speed > 1 && s.For <= 0 {
		return &usageError{fmt.Sprintf("--speed %g: 1 is real time, more is faster and needs --for", s.Speed)}
	}
	tokens, err := readTokens(s.Devices)
	if err != nil {
		return &usageError{fmt.Sprintf("%s: %v", s.Devices.Name(), err)}
	}
	c := county.Demo()
	c.Devices = slices.DeleteFunc(slices.Clone(c.Devices), func(d citywarden.Device) bool { return tokens[d.ID] == "" })
	if len(c.Devices) == 0 {
		return &usageError{fmt.Sprintf("%s names none of the demo county's devices", s.Devices.Name())}
	}
	fmt.Fprintf(o.out, "%d devices report to %s and %s; Ctrl-C stops them\n", len(c.Devices), s.MQTT, s.CoAP)
	return simulators.NewFleet(simulators.Options{
		County: c, MQTT: s.MQTT, CoAP: s.CoAP, Seed: s.Seed, Lasts: s.For, Speed: s.Speed,
		Token:  func(id citywarden.DeviceID) string { return tokens[id] },
		Logger: slog.New(slog.NewTextHandler(o.err, nil)),
	}).Run(ctx)
}

// readTokens reads the columns id and token of a CSV.
func readTokens(r io.Reader) (map[citywarden.DeviceID]string, error) {
	c := csv.NewReader(r)
	head, err := c.Read()
	if err != nil {
		return nil, fmt.Errorf("read the heading: %w", err)
	}
	id, token := slices.Index(head, "id"), slices.Index(head, "token")
	if id < 0 || token < 0 {
		return nil, errors.New("the heading must have the columns id and token")
	}
	out := map[citywarden.DeviceID]string{}
	for {
		row, err := c.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out[citywarden.DeviceID(row[id])] = row[token]
	}
}
