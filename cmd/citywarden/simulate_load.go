package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/citywarden/citywarden"
	"github.com/citywarden/citywarden/simulators/load"
)

type simulateLoadCmd struct {
	URL      string        `help:"The platform's MQTT." default:"mqtt://127.0.0.1:1883" name:"url" placeholder:"mqtt://HOST:PORT"`
	API      string        `help:"The platform's HTTP API: registers the devices and checks afterwards that nothing is lost." default:"http://127.0.0.1:8080" env:"CITYWARDEN_SERVER" name:"api" placeholder:"URL"`
	Tokens   *os.File      `help:"CSV with the columns id and token in place of registering devices; nothing is checked then." placeholder:"FILE"`
	User     string        `help:"User to sign in as." default:"admin" env:"CITYWARDEN_USER"`
	Password string        `help:"Password of the user; better said by the environment." env:"CITYWARDEN_PASSWORD"`
	Token    string        `help:"Token to sign in with, instead of a user and password." env:"CITYWARDEN_TOKEN"`
	Devices  int           `help:"How many devices." default:"1000"`
	Every    time.Duration `help:"Between two messages of a device." default:"1m"`
	For      time.Duration `help:"How long." default:"5m"`
	Ramp     time.Duration `help:"In which the devices connect." default:"30s"`
	Think    float64       `help:"Each pause is longer or shorter by up to that share." default:"0.1"`
	QoS      byte          `help:"0 or 1." default:"1" name:"qos"`
	Storm    time.Duration `help:"So often all connections are cut and come back at once; 0 for never." default:"0"`
	From     []string      `help:"Addresses of this machine to connect from, for more than 20,000 devices." placeholder:"IP"`
	Ledger   string        `help:"Write how many messages of each device were acknowledged, as CSV." type:"path" placeholder:"FILE"`
	Seed     uint64        `help:"Same seed, same messages." default:"1"`
}

// loadReport is the report of a load with what the platform says.
type loadReport struct {
	*load.Report
	Stored   *int64 `json:"stored,omitempty"` // messages that the platform's ledger has of the devices
	Lost     *int64 `json:"lost,omitempty"`   // acknowledged, and not in its ledger
	Memory   memory `json:"memory"`           // of this process
	Platform memory `json:"platform_memory,omitzero"`
}

// memory is what a process takes, in bytes.
type memory struct {
	Before    int64 `json:"before"`
	Most      int64 `json:"most"`
	PerDevice int64 `json:"per_device"`
}

func (m *memory) see(now int64, devices int) {
	m.Most = max(m.Most, now)
	m.PerDevice = (m.Most - m.Before) / int64(devices)
}

// Run puts the platform under load and prints a report as JSON.
func (s *simulateLoadCmd) Run(ctx context.Context, o output) error {
	addr, err := brokerAddr(s.URL)
	if err != nil {
		return err
	}
	l := load.Options{
		Addr: addr, Every: s.Every, For: s.For, Ramp: s.Ramp, Think: s.Think, QoS: s.QoS, Storm: s.Storm, Seed: s.Seed, From: s.From,
		Devices: make([]load.Device, max(0, s.Devices)),
	}
	var c *client
	if s.Tokens != nil {
		defer s.Tokens.Close()
		if l.Devices, err = s.read(); err != nil {
			return err
		}
	}
	if err := l.Check(); err != nil {
		return &usageError{err.Error()}
	}
	if most, need := openFiles(), len(l.Devices)+100; most > 0 && need > most {
		return &usageError{fmt.Sprintf("%d devices need %d open files, and this process may have %d; "+
			"raise that as root with `ulimit -n %[4]d`, or with LimitNOFILE=%[4]d in a systemd unit; the platform needs as many. %[5]d devices fit now",
			len(l.Devices), need, most, len(l.Devices)+1000, max(0, most-100))}
	}
	if s.Tokens == nil {
		if c, err = (&remote{Server: s.API, Token: s.Token, User: s.User, Password: s.Password}).client(ctx); err != nil {
			return err
		}
		if err := s.register(ctx, c, l.Devices); err != nil {
			return err
		}
	}
	before := int64(0)
	if c != nil {
		if before, err = s.messages(ctx, c, l.Devices); err != nil {
			return err
		}
	}
	out := loadReport{Memory: memory{Before: resident()}, Platform: memory{Before: s.platform(ctx)}}
	out.Report, err = load.Run(ctx, l, func(p load.Progress) {
		out.Memory.see(resident(), len(l.Devices))
		if int(p.Elapsed.Seconds())%5 == 0 {
			out.Platform.see(s.platform(ctx), len(l.Devices))
		}
		fmt.Fprintf(o.err, "\r%6s  %d connected  %d sent  %d acked  %d errors  p50 %s  p99 %s   ",
			p.Elapsed.Round(time.Second), p.Connected, p.Sent, p.Acked, p.Errors, p.P50.Round(10*time.Microsecond), p.P99.Round(10*time.Microsecond))
	})
	fmt.Fprintln(o.err)
	if err != nil {
		return err
	}
	out.Memory.see(resident(), len(l.Devices))
	out.Platform.see(s.platform(ctx), len(l.Devices))
	if out.Platform.Most == 0 {
		out.Platform = memory{}
	}
	if s.Ledger != "" {
		if err := writeLedger(s.Ledger, out.Report.Ledger); err != nil {
			return err
		}
	}
	if c != nil {
		if err := s.check(ctx, c, &out, l.Devices, before); err != nil {
			return err
		}
	}
	if err := toJSON(o.out, out); err != nil {
		return err
	}
	switch {
	case out.Lost != nil && *out.Lost > 0:
		return fmt.Errorf("%d messages were acknowledged and are not in the platform's ledger", *out.Lost)
	case s.QoS == 1 && out.Acked < out.Planned:
		return fmt.Errorf("%d of %d messages were not acknowledged", out.Planned-out.Acked, out.Planned)
	}
	return nil
}

// read reads the devices of --tokens.
func (s *simulateLoadCmd) read() ([]load.Device, error) {
	tokens, err := readTokens(s.Tokens)
	if err != nil {
		return nil, &usageError{fmt.Sprintf("%s: %v", s.Tokens.Name(), err)}
	}
	var out []load.Device
	for _, id := range slices.Sorted(maps.Keys(tokens)) {
		out = append(out, load.Device{ID: id, Token: tokens[id]})
	}
	return out, nil
}

// register makes the devices load-000001 and so on, with new tokens.
func (s *simulateLoadCmd) register(ctx context.Context, c *client, devices []load.Device) error {
	const batch = 5000
	for from := 0; from < len(devices); from += batch {
		to := min(from+batch, len(devices))
		var b bytes.Buffer
		w := csv.NewWriter(&b)
		if err := w.Write([]string{"id", "name", "model", "token"}); err != nil {
			return err
		}
		for i := from; i < to; i++ {
			id := fmt.Sprintf("load-%06d", i+1)
			devices[i] = load.Device{ID: citywarden.DeviceID(id), Token: strings.ToLower(rand.Text()[:20])}
			if err := w.Write([]string{id, id, string(load.Model), devices[i].Token}); err != nil {
				return err
			}
		}
		w.Flush()
		var report struct {
			Failed int
			Lines  []struct{ Error string }
		}
		if err := c.call(ctx, "POST", "/devices/import", io.Reader(&b), &report); err != nil {
			return fmt.Errorf("register the devices: %w", err)
		}
		if report.Failed > 0 {
			return fmt.Errorf("register the devices: %d failed; the first: %s", report.Failed, report.Lines[0].Error)
		}
	}
	return nil
}

// messages returns how many messages the platform's ledger has of the devices.
func (s *simulateLoadCmd) messages(ctx context.Context, c *client, devices []load.Device) (sum int64, err error) {
	ours := map[citywarden.DeviceID]bool{}
	for _, d := range devices {
		ours[d.ID] = true
	}
	q := url.Values{"limit": {"1000"}, "from": {time.Now().Add(-30 * 24 * time.Hour).UTC().Format(time.RFC3339)}, "to": {time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}}
	err = list(ctx, c, "/ledger", q, func(r citywarden.LedgerRow) error {
		if ours[r.Device] {
			sum += r.Messages
		}
		return nil
	})
	return sum, err
}

// check waits until the platform's ledger has what was acknowledged, for two
// minutes: it is kept apart from the acknowledgement.
func (s *simulateLoadCmd) check(ctx context.Context, c *client, out *loadReport, devices []load.Device, before int64) error {
	for wait := time.Now().Add(2 * time.Minute); ; {
		now, err := s.messages(ctx, c, devices)
		if err != nil {
			return fmt.Errorf("the platform's ledger: %w", err)
		}
		stored := now - before
		lost := max(0, int64(out.Acked)-stored)
		out.Stored, out.Lost = &stored, &lost
		if lost == 0 || time.Now().After(wait) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Second):
		}
	}
}

var residentLine = regexp.MustCompile(`(?m)^process_resident_memory_bytes (\S+)`)

// platform returns what the platform's process takes, 0 when it does not say.
func (s *simulateLoadCmd) platform(ctx context.Context) int64 {
	if s.Tokens != nil {
		return 0
	}
	req, err := http.NewRequestWithContext(ctx, "GET", strings.TrimRight(s.API, "/")+"/metrics", nil)
	if err != nil {
		return 0
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	m := residentLine.FindSubmatch(b)
	if err != nil || m == nil {
		return 0
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		return 0
	}
	return int64(v)
}

// resident returns what this process takes, 0 where the system does not say.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

func writeLedger(path string, ledger map[citywarden.DeviceID]uint64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := csv.NewWriter(f)
	if err := w.Write([]string{"id", "acknowledged"}); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(ledger)) {
		if err := w.Write([]string{string(id), strconv.FormatUint(ledger[id], 10)}); err != nil {
			return err
		}
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return err
	}
	return f.Close()
}
