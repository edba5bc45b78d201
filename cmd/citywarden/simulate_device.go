package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/devices"
	"github.com/citywarden/citywarden/simulators"
	"github.com/citywarden/citywarden/simulators/chart"
	"github.com/citywarden/citywarden/simulators/county"
	"github.com/citywarden/citywarden/simulators/scenario"
)

type simulateDeviceCmd struct {
	Model   string            `help:"Model of the device." required:"" placeholder:"NAME"`
	Print   bool              `help:"Print its messages: when, topic, payload. So it is without --plot, too."`
	Plot    string            `help:"Draw what it measures, as SVG or PNG." type:"path" placeholder:"FILE.svg"`
	For     time.Duration     `help:"How long." default:"10m"`
	Start   string            `help:"When it begins, in the week of Monday 23 November 2026." default:"Mon 09:00"`
	Every   time.Duration     `help:"Between two reports; 0 for what is usual." default:"0"`
	Attr    map[string]string `help:"Attributes of the device: K=V." placeholder:"K=V"`
	Happens []string          `help:"What happens to it: WHAT:AT:FOR[:SIZE], like fire:2m:5m." placeholder:"WHAT:AT:FOR"`
	Fault   []string          `help:"What is wrong with it, in the same form, like lost:0s:10m:0.2." placeholder:"WHAT:AT:FOR"`
	Seed    uint64            `help:"Same seed, same bytes." default:"1"`
}

// simulatedWeek is the Monday that --start counts from: the same command prints
// the same bytes.
var simulatedWeek = time.Date(2026, 11, 23, 0, 0, 0, 0, time.FixedZone("CST", 8*3600))

// Run prints or draws what a virtual device sends.
func (s *simulateDeviceCmd) Run(o output) error {
	write := (*chart.Chart).WriteSVG
	switch ext := strings.ToLower(filepath.Ext(s.Plot)); {
	case ext == ".png":
		write = (*chart.Chart).WritePNG
	case s.Plot != "" && ext != ".svg":
		return &usageError{fmt.Sprintf("--plot %s: name a file that ends in .svg or .png", s.Plot)}
	}
	models, err := devices.LoadModels(devices.Builtin())
	if err != nil {
		return err
	}
	model, ok := models.Model(citywarden.ModelName(s.Model))
	if !ok {
		known := simulators.Models()
		hint := citywarden.DidYouMean(s.Model, known)
		if hint == "" {
			hint = "; there are " + strings.Join(known, ", ")
		}
		return &usageError{fmt.Sprintf("--model: no model %q%s", s.Model, hint)}
	}
	clock, err := scenario.ParseClock(s.Start)
	if err != nil {
		return &usageError{"--start: " + err.Error()}
	}
	start := clock.Next(simulatedWeek)
	dev := citywarden.Device{ID: citywarden.DeviceID(s.Model + "-1"), Model: model.Name, Attributes: map[string]any{"zone": "a", "building": "b"}}
	town := &simulators.County{Buildings: []simulators.Building{{Code: "b", Use: "office", Floors: 8}}, Water: county.Demo().Water}
	// A place in the demo's water network.
	for i := range town.Water.Nodes {
		if n := &town.Water.Nodes[i]; n.FlowMeter {
			n.Logger = dev.ID
			break
		}
	}
	if s.Model == "flow-meter" || s.Model == "valve" {
		dev.Attributes["pipe"] = town.Water.Pipes[slices.IndexFunc(town.Water.Pipes, func(p county.Pipe) bool { return p.Inlet })].Code
	}
	for k, v := range s.Attr {
		dev.Attributes[k] = v
		if f, err := strconv.ParseFloat(v, 64); err == nil {
			dev.Attributes[k] = f
		}
	}
	town.Devices = []citywarden.Device{dev}
	script := simulators.Script{County: town, Seed: s.Seed, Start: start, Every: map[citywarden.DeviceID]time.Duration{dev.ID: s.Every}}
	for _, text := range s.Happens {
		h, err := parseHappening(text)
		if err != nil {
			return &usageError{"--happens: " + err.Error()}
		}
		i := simulators.Incident{Kind: h.what, From: start.Add(h.at), To: start.Add(h.at + h.lasts), Size: h.size, Device: dev.ID}
		if h.what == simulators.Rain {
			i.Device = ""
		}
		script.Incidents = append(script.Incidents, i)
	}
	var faults []simulators.Fault
	for _, text := range s.Fault {
		h, err := parseHappening(text)
		if err != nil {
			return &usageError{"--fault: " + err.Error()}
		}
		faults = append(faults, simulators.Fault{Kind: h.what, From: start.Add(h.at), To: start.Add(h.at + h.lasts), Size: h.size})
	}
	w, err := simulators.NewScript(script)
	if err != nil {
		return &usageError{err.Error()}
	}
	src, err := w.Faulty(dev.ID, faults...)
	if err != nil {
		return &usageError{err.Error()}
	}
	picture := chart.Chart{Title: fmt.Sprintf("%s (%s), %s", model.Title.EN, model.Name, start.Format("Mon 15:04"))}
	for _, m := range model.Metrics {
		picture.Curves = append(picture.Curves, chart.Curve{Name: string(m.Name), Unit: m.Unit, Step: m.Kind == citywarden.KindBool})
	}
	for m, ok := src.Next(start.Add(s.For)); ok; m, ok = src.Next(start.Add(s.For)) {
		if s.Print || s.Plot == "" {
			if _, err := fmt.Fprintf(o.out, "%s v1/devices/me/telemetry %s\n", m.At.In(simulatedWeek.Location()).Format("2006-01-02T15:04:05.000Z07:00"), m.Payload); err != nil {
				return err
			}
		}
		collect(&picture, m)
	}
	if s.Plot == "" {
		return nil
	}
	picture.Curves = slices.DeleteFunc(picture.Curves, func(c chart.Curve) bool { return len(c.Points) == 0 })
	for _, i := range script.Incidents {
		picture.Spans = append(picture.Spans, chart.Span{Name: i.Kind, From: i.From, To: i.To})
	}
	for _, f := range faults {
		picture.Spans = append(picture.Spans, chart.Span{Name: f.Kind, From: f.From, To: f.To})
	}
	f, err := os.Create(s.Plot)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := write(&picture, f); err != nil {
		return err
	}
	return f.Close()
}

// collect adds what a message measured to the curves, at the moment at which it
// was measured. What can't be read is left out: its frame may be malformed.
func collect(c *chart.Chart, m simulators.Message) {
	var body struct{ Values map[string]citywarden.Value }
	if json.Unmarshal(m.Payload, &body) != nil {
		return
	}
	for i := range c.Curves {
		k := &c.Curves[i]
		v, ok := body.Values[k.Name]
		if !ok {
			continue
		}
		if v.Kind() == citywarden.KindText {
			continue
		}
		k.Points = append(k.Points, chart.Point{At: m.Measured.In(simulatedWeek.Location()), Y: v.Float()})
	}
}

// happening is WHAT:AT:FOR[:SIZE].
type happening struct {
	what      string
	at, lasts time.Duration
	size      float64
}

func parseHappening(s string) (h happening, err error) {
	f := strings.Split(s, ":")
	if len(f) != 3 && len(f) != 4 {
		return h, fmt.Errorf("%q: write WHAT:AT:FOR or WHAT:AT:FOR:SIZE, like fire:2m:5m", s)
	}
	h.what = f[0]
	for i, to := range []*time.Duration{&h.at, &h.lasts} {
		d, err := citywarden.ParseDuration(f[i+1])
		if err != nil {
			return h, err
		}
		*to = d.Std()
	}
	if len(f) == 4 {
		if h.size, err = strconv.ParseFloat(f[3], 64); err != nil {
			return h, fmt.Errorf("%q: the size %q is no number", s, f[3])
		}
	}
	return h, nil
}
