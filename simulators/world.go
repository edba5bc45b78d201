// Package simulators is the hardware of a county as virtual devices: parking
// bays, smoke detectors, pressure loggers and meters that speak MQTT and CoAP
// over real sockets with credentials of their own. It knows the platform only
// as a device does.
//
//	c := county.Demo()
//	f := simulators.NewFleet(simulators.Options{
//		County: c, MQTT: "127.0.0.1:1883", CoAP: "127.0.0.1:5683",
//		Token: func(id citywarden.DeviceID) string { return tokens[id] },
//	})
//	err := f.Run(ctx) // until ctx is done
//
// What the devices measure is decided by a World: a pure function of the
// county, a seed, the start and the moment, so that the same seed gives the
// same bytes, and a fleet that starts again with the same start goes on as if
// it had never stopped.
package simulators

import (
	"hash/fnv"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/simulators/county"
	hydraulic "github.com/citywarden/citywarden/simulators/network"
)

// shanghai is the time that people in the county live by; China has had no
// other since 1991.
var shanghai = time.FixedZone("CST", 8*3600)

// World decides what every device of a county measures, at every moment. Its
// methods may be called from several goroutines.
type World struct {
	county *county.County
	seed   uint64
	start  time.Time
	net    *network
	run    *networkRun                 // in place of net: a network of an EPANET file, through time
	nodes  map[citywarden.DeviceID]int // pressure loggers and flow meters: index of Water.Nodes
	places map[string][]place          // where each kind of incident can happen by itself
	script map[string][]Incident       // by kind: what happens, nil when the county lives by itself
	every  map[citywarden.DeviceID]time.Duration

	mu     sync.Mutex
	solved map[int64]*hydraulics // of the last few sampling moments, by Unix milliseconds
	recent []int64               // the keys of solved, oldest first
}

// NewWorld returns the world of c from start on. Incidents are counted from
// start; the time of day, the day of the week and the registers of the meters
// follow the calendar.
func NewWorld(c *county.County, seed uint64, start time.Time) *World {
	w := &World{
		county: c, seed: seed, start: start.UTC().Truncate(time.Millisecond),
		net: newNetwork(&c.Water), nodes: map[citywarden.DeviceID]int{}, solved: map[int64]*hydraulics{},
	}
	for i := range c.Water.Nodes {
		if id := c.Water.Nodes[i].Logger; id != "" {
			w.nodes[id] = i
		}
	}
	w.places = findPlaces(c)
	return w
}

// What a script is made of; aliases, so that whoever writes one needs no other
// package.
type (
	County   = county.County
	Building = county.Building
	Network  = hydraulic.Network
)

// ReadNetwork reads an EPANET input file; name is what errors call it.
func ReadNetwork(name string, r io.Reader) (*Network, error) { return hydraulic.Read(name, r) }

// PointAt returns the position x metres east and y metres north of the
// south-west corner of the demo county, which is Size metres wide.
func PointAt(x, y float64) citywarden.Point { return county.PointAt(x, y) }

// Size is the length of each side of the demo county, in metres.
const Size = county.Size

// Script is what a world is made of in which only that happens which is written
// down.
type Script struct {
	County    *County // required; only its devices, buildings and water network count
	Seed      uint64
	Start     time.Time
	Incidents []Incident
	Every     map[citywarden.DeviceID]time.Duration // time between two reports, where it is not the usual
	// Network is the water network in place of the county's. The county's nodes
	// and pipes have the names of its nodes and links.
	Network *Network
	Lasts   time.Duration // of the run of Network
}

// NewScript returns the world of a script. Incidents that can't happen are a
// CodeInvalid error.
func NewScript(s Script) (*World, error) {
	w := &World{
		county: s.County, seed: s.Seed, start: s.Start.UTC().Truncate(time.Millisecond), every: s.Every,
		nodes: map[citywarden.DeviceID]int{}, solved: map[int64]*hydraulics{}, script: map[string][]Incident{},
	}
	for i := range s.County.Water.Nodes {
		if id := s.County.Water.Nodes[i].Logger; id != "" {
			w.nodes[id] = i
		}
	}
	for _, i := range s.Incidents {
		if err := i.check(s.County); err != nil {
			return nil, err
		}
		i.From, i.To = i.From.UTC(), i.To.UTC()
		w.script[i.Kind] = append(w.script[i.Kind], i)
	}
	for _, list := range w.script {
		slices.SortStableFunc(list, func(a, b Incident) int { return a.From.Compare(b.From) })
	}
	for i := range s.County.Devices {
		d := &s.County.Devices[i]
		_, placed := w.nodes[d.ID]
		switch {
		case (d.Model == "pressure-logger" || d.Model == "flow-meter") && !placed:
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "device %s: a %s needs a node of the water network", d.ID, d.Model)
		case (d.Model == "flow-meter" || d.Model == "valve" && s.Network != nil) && w.pipe(d) < 0:
			return nil, citywarden.Errorf(citywarden.CodeInvalid, "device %s: a %s needs the attribute pipe, a pipe of the water network", d.ID, d.Model)
		}
	}
	var err error
	switch {
	case s.Network != nil:
		w.run, err = newNetworkRun(w, s.Network, s.Lasts)
	case len(s.County.Water.Nodes) > 0:
		w.net = newNetwork(&s.County.Water)
	}
	return w, err
}

// Message is one message that a device sends.
type Message struct {
	Device   citywarden.DeviceID
	Measured time.Time // when it measured, whatever its clock says
	At       time.Time // when the device sends it, shortly after it measured
	Payload  []byte    // {"ts":ms,"values":{…}}, ThingsBoard's telemetry body
}

// Stream is what one device sends, in order. It is for one goroutine.
type Stream struct {
	w    *World
	dev  *citywarden.Device
	id   uint64
	src  source
	last time.Time // of the message before: when it measured
	sent time.Time // of the message before: when it was sent
	on   time.Time // when the device is switched on; nothing is sent before
}

// source is the hardware behind one device.
type source interface {
	// next returns when the device measures next after t.
	next(t time.Time) time.Time
	// read appends the values at t, in the order of its model. The calls of next
	// and read go forward in time.
	read(b *body, t time.Time)
}

// Stream returns what the device id sends from the start of the world on. An
// id that is not of the county, or a model that nobody simulates, is an error.
func (w *World) Stream(id citywarden.DeviceID) (*Stream, error) {
	dev := w.county.Device(id)
	if dev == nil {
		return nil, citywarden.Errorf(citywarden.CodeNotFound, "no device %s in the county", id)
	}
	s := &Stream{w: w, dev: dev, id: hash(string(id)), last: w.start, sent: w.start, on: w.start}
	make, ok := hardware[dev.Model]
	if !ok {
		return nil, citywarden.Errorf(citywarden.CodeInvalid, "device %s: nobody simulates a %s; simulated are %s", id, dev.Model, strings.Join(Models(), ", "))
	}
	s.src = make(w, dev, s.id)
	return s, nil
}

// hardware makes the source of each model.
var hardware = map[citywarden.ModelName]func(w *World, dev *citywarden.Device, id uint64) source{
	"parking-bay":     func(w *World, d *citywarden.Device, id uint64) source { return newBay(w, d, id) },
	"parking-lot":     newLot,
	"parking-gateway": newGateway,
	"iot-gateway":     newGateway,
	"smoke-detector":  newDetector,
	"heat-detector":   newHeatDetector,
	"call-point":      newCallPoint,
	"fire-panel":      newPanel,
	"hydrant":         newHydrant,
	"pressure-logger": newLogger,
	"flow-meter":      newLogger,
	"valve":           newValve,
	"drain-level":     newDrain,
	"road-flood":      newFlood,
	"manhole-cover":   newCover,
	"gas-detector":    newGasDetector,
	"energy-meter":    func(w *World, d *citywarden.Device, id uint64) source { return newMeter(w, d, id) },
	"heat-meter":      func(w *World, d *citywarden.Device, id uint64) source { return newMeter(w, d, id) },
	"water-meter":     func(w *World, d *citywarden.Device, id uint64) source { return newMeter(w, d, id) },
	"climate-sensor":  newClimate,
	"lift":            newLift,
}

// Models returns the names of the models that are simulated, sorted.
func Models() []string {
	var out []string
	for m := range hardware {
		out = append(out, string(m))
	}
	slices.Sort(out)
	return out
}

// boot is how long it takes after the start of the world until all devices have
// reported once.
const boot = 4 * time.Second

// Next returns the next message. There is always one.
func (s *Stream) Next() Message {
	for {
		t := s.src.next(s.last)
		if hello := s.on.Add(time.Millisecond + share(boot, s.w.unit(s.id, "boot", 0))); s.last.Before(hello) {
			t = earlier(t, hello) // a device reports when it is switched on
		}
		s.last = t
		at := t.Add(time.Duration(100+900*s.w.unit(s.id, "delay", t.UnixMilli())) * time.Millisecond)
		if !at.After(s.sent) {
			at = s.sent.Add(time.Millisecond)
		}
		s.sent = at
		if t.Before(s.on) {
			continue
		}
		b := body{buf: make([]byte, 0, 160)}
		b.buf = append(b.buf, stampKey...)
		b.buf = strconv.AppendInt(b.buf, t.UnixMilli(), 10)
		b.buf = append(b.buf, valuesKey+"{"...)
		s.src.read(&b, t)
		b.buf = append(b.buf, '}', '}')
		return Message{Device: s.dev.ID, Measured: t, At: at, Payload: b.buf}
	}
}

// SwitchOn makes Next go on at t, if that is later, as if the device had been
// switched off until then: it reports at once. Its register and its
// surroundings went on meanwhile.
func (s *Stream) SwitchOn(t time.Time) {
	if !t.After(s.on) {
		return
	}
	s.on = t
	// Everything is a function of the moment: begin a little before t.
	if near := t.Add(-2 * time.Minute); near.After(s.last) {
		s.last, s.sent = near, near
	}
}

// body writes the values of one message.
type body struct {
	buf  []byte
	some bool
}

func (b *body) key(name string) {
	if b.some {
		b.buf = append(b.buf, ',')
	}
	b.some = true
	b.buf = append(b.buf, '"')
	b.buf = append(b.buf, name...)
	b.buf = append(b.buf, '"', ':')
}

func (b *body) number(name string, v float64, decimals int) {
	b.key(name)
	b.buf = strconv.AppendFloat(b.buf, v, 'f', decimals, 64)
}

func (b *body) text(name, v string) {
	b.key(name)
	b.buf = strconv.AppendQuote(b.buf, v)
}

func (b *body) bool(name string, v bool) {
	b.key(name)
	b.buf = strconv.AppendBool(b.buf, v)
}

// battery writes the level of a battery that lasts five years and is then
// replaced.
func (w *World) battery(b *body, id uint64, t time.Time) {
	b.number("battery", math.Round(100*w.charge(id, t)), 0)
}

// charge is what is left of the battery of a device, from 1 down to 0.3.
func (w *World) charge(id uint64, t time.Time) float64 {
	const life = 5 * 365 * 24 * time.Hour
	used := math.Mod(float64(t.Unix())/life.Seconds()+w.unit(id, "battery", 0), 1)
	return 1 - 0.7*used
}

// signal writes how strong a device hears its base station: some stand better than
// others, it fades by some decibels, and what stands over its antenna takes loss of it.
func (w *World) signal(b *body, id uint64, t time.Time, loss float64) {
	b.number("rssi", math.Round(-65-30*w.unit(id, "place", 0)+3*w.noise(id, "fading", t)-loss), 0)
}

// unit returns a number in [0, 1) that depends on the seed, the device, what it
// is for and n only.
func (w *World) unit(id uint64, what string, n int64) float64 {
	return float64(mix(mix(mix(w.seed^id)^hash(what))^uint64(n))>>11) / (1 << 53)
}

// noise returns the noise of a sensor at t: mean 0, deviation 1, within ±3.5.
func (w *World) noise(id uint64, what string, t time.Time) float64 {
	n := t.UnixMilli()
	var sum float64
	for i := range int64(4) { // near enough to a normal distribution
		sum += w.unit(id+uint64(i), what, n)
	}
	return (sum - 2) * math.Sqrt(3)
}

func mix(x uint64) uint64 { // SplitMix64
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}

func share(d time.Duration, f float64) time.Duration {
	return time.Duration(float64(d) * f).Truncate(time.Millisecond)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// clock is the report timer of a device: every so often, at a moment of its own.
type clock struct{ every, offset time.Duration }

func (w *World) clock(id uint64, every time.Duration) clock {
	return clock{every, share(every, w.unit(id, "clock", 0))}
}

// beat returns the report timer of dev: every is the usual time between two reports.
func (w *World) beat(dev *citywarden.Device, id uint64, every time.Duration) clock {
	if own := w.every[dev.ID]; own > 0 {
		every = own
	}
	return w.clock(id, every)
}

// next returns the first tick after t.
func (c clock) next(t time.Time) time.Time {
	every, ms := c.every.Milliseconds(), t.UnixMilli()-c.offset.Milliseconds()
	k := ms / every
	if ms < 0 && ms%every != 0 {
		k--
	}
	return time.UnixMilli((k+1)*every + c.offset.Milliseconds()).UTC()
}

// hour returns the hour of the day with its fraction, and whether it is a
// working day (Monday to Friday; the simulators know no holidays).
func hour(t time.Time) (h float64, work bool) {
	l := t.In(shanghai)
	h = float64(l.Hour()) + float64(l.Minute())/60 + (float64(l.Second())+float64(l.Nanosecond())/1e9)/3600
	return h, l.Weekday() != time.Saturday && l.Weekday() != time.Sunday
}

func attr(d *citywarden.Device, name string) string {
	s, _ := d.Attributes[name].(string)
	return s
}

// number returns the attribute name of d, otherwise when it has none.
func number(d *citywarden.Device, name string, otherwise float64) float64 {
	if v, ok := d.Attributes[name].(float64); ok {
		return v
	}
	return otherwise
}
