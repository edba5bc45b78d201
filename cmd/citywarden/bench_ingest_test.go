//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestIngestBesidePeers is `make bench-ingest`: in one run the same messages of 100
// publishers with QoS 1 into this platform, and into mosquitto, telegraf and influxd.
// It says for each how much CPU time a million messages take until they are in the
// time series, and how long an acknowledgement takes at half of the load (with as many in flight as at full load), at half of
// that of the prototype, and at a steady 5,000 messages a second, beside one of mochi that drops them, and at half of the load
// with a core each; what mochi alone makes of them; and what few publishers get from this platform. This platform's
// acknowledgement means that the message is synced to disk, mosquitto's that it is in memory.
func TestIngestBesidePeers(t *testing.T) {
	messages, _ := strconv.Atoi(os.Getenv("BENCH_INGEST"))
	if messages == 0 {
		t.Skip("say how many messages: BENCH_INGEST=400000, or make bench-ingest")
	}
	dir := t.TempDir()
	ours := oursForBench(t, dir)
	contenders := []*contender{ours}
	if peers := peersForBench(t, dir); peers != nil {
		contenders = append(contenders, peers)
	}
	const publishers = 100
	each := messages / publishers
	t.Logf("%d messages of %d publishers, QoS 1, 16 in flight each", each*publishers, publishers)
	rate := 0.0
	for _, c := range contenders {
		cpu, begin := c.cpu(t), time.Now()
		c.flood(t, publishers, each, 16)
		acked := time.Since(begin)
		if !wait(5*time.Minute, func() bool { return c.stored(t) >= each*publishers }) {
			t.Fatalf("%s: %d of %d messages are in the time series", c.name, c.stored(t), each*publishers)
		}
		c.perMillion = (c.cpu(t) - cpu) / float64(each*publishers) * 1e6
		t.Logf("%s: acknowledged %.0f/s, in the series after %.1f s (%.0f/s), %.1f CPU-s per million",
			c.name, float64(each*publishers)/acked.Seconds(), time.Since(begin).Seconds(), float64(each*publishers)/time.Since(begin).Seconds(), c.perMillion)
		if c == ours {
			rate = float64(each*publishers) / time.Since(begin).Seconds() / 2
		}
	}
	for _, c := range contenders { // what the flood left to be sorted on disk is of no publisher's concern here
		last := c.cpu(t)
		waitSlowly(time.Minute, func() bool {
			now := c.cpu(t)
			used := now - last
			last = now
			return used < 0.05
		})
	}
	sink := startForBench(t, dir, "mochi-sink") // how long an acknowledgement takes on this machine of a broker that does nothing but that
	for _, rate := range []float64{rate, prototypeRate / 2, 5000} {
		for _, c := range append(contenders, sink) {
			c.paced(t, publishers, rate, "")
		}
	}
	_ = syscall.Kill(sink.pids[0], syscall.SIGTERM)
	if taskset, err := exec.LookPath("taskset"); err == nil && runtime.NumCPU() > 1 { // publishers and platform don't wait for each other
		pin := func(pid int, cpus string) {
			if out, err := exec.Command(taskset, "-a", "-c", "-p", cpus, strconv.Itoa(pid)).CombinedOutput(); err != nil {
				t.Fatalf("taskset: %v: %s", err, out)
			}
		}
		pin(os.Getpid(), "1")
		for _, c := range contenders {
			for _, pid := range c.pids {
				pin(pid, "0")
			}
			c.paced(t, publishers, rate, ", with a core for it and one for the publishers,")
		}
		for _, pid := range append([]int{os.Getpid()}, ours.pids...) {
			pin(pid, fmt.Sprintf("0-%d", runtime.NumCPU()-1))
		}
	}
	besideMochi(t, dir, publishers, each, ours.perMillion)
	ours.few(t, dir, each)
	if len(contenders) == 2 {
		t.Logf("messages per CPU-second: %.2f times those of the peers", contenders[1].perMillion/ours.perMillion)
	}
}

// prototypeRate is how many messages a second the prototype of this platform took until they were in the series, on a machine
// like the one where it is measured: what the goals were set by.
const prototypeRate = 80_000

// contender is a chain from MQTT to a time series.
type contender struct {
	name       string
	mqtt       string
	topic      string
	token      func(i int) string
	payload    func(b []byte, i int, ts int64) []byte // appends it to b
	pids       []int
	stored     func(t *testing.T) int
	acks       func(t *testing.T) map[float64]float64 // how many acknowledgements took at most so many seconds; nil when it does not tell
	metrics    func(t *testing.T) []byte              // what Prometheus gets of it
	perMillion float64

	last []int64 // the newest time of each publisher, in milliseconds
}

// cpu returns the CPU seconds that its processes took.
func (c *contender) cpu(t *testing.T) float64 {
	t.Helper()
	total := 0.0
	for _, pid := range c.pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		for _, ticks := range f[11:13] { // utime, stime
			n, err := strconv.ParseFloat(ticks, 64)
			if err != nil {
				t.Fatal(err)
			}
			total += n / 100
		}
	}
	return total
}

// each runs f with a connection for each publisher.
func (c *contender) each(t *testing.T, publishers int, f func(i int, m *connection) error) {
	t.Helper()
	for len(c.last) < publishers {
		c.last = append(c.last, 0)
	}
	var wg sync.WaitGroup
	for i := range publishers {
		m, err := dial(c.mqtt, c.token(i))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		wg.Go(func() {
			defer m.c.Close()
			if err := f(i, m); err != nil {
				t.Errorf("%s: publisher %d: %v", c.name, i, err)
			}
		})
	}
	wg.Wait()
}

// message returns the next message of publisher i, which has a time of its own; it is good until the next.
func (c *contender) message(m *connection, i int) ([]byte, error) {
	c.last[i] = max(c.last[i]+1, time.Now().UnixMilli())
	m.id = m.id%65535 + 1
	const head = 2 // packets of less than 128 bytes
	b := append(m.out[:0], 0x32, 0, byte(len(c.topic)>>8), byte(len(c.topic)))
	b = append(append(b, c.topic...), byte(m.id>>8), byte(m.id))
	b = c.payload(b, i, c.last[i])
	if len(b)-head > 127 {
		return nil, fmt.Errorf("a message of %d bytes; these are short ones", len(b))
	}
	b[1] = byte(len(b) - head)
	m.out = b
	return b, nil
}

// send writes a message of publisher i.
func (c *contender) send(m *connection, i int) error {
	b, err := c.message(m, i)
	if err != nil {
		return err
	}
	_, err = m.c.Write(b)
	return err
}

// smoke is a reading of a smoke detector at ts as the platform takes it.
func smoke(b []byte, _ int, ts int64) []byte {
	b = strconv.AppendInt(append(b, `{"ts":`...), ts, 10)
	return append(append(b, `,"values":{"smoke":0.`...), '0'+byte(ts%10), '}', '}')
}

// acknowledged takes a PUBACK of MQTT 3.1.1.
func (m *connection) acknowledged() error {
	if m.r.Buffered() == 0 {
		_ = m.c.SetReadDeadline(time.Now().Add(15 * time.Second))
	}
	b, err := m.r.Peek(4)
	if err != nil || b[0] != 0x40 || b[1] != 2 {
		return fmt.Errorf("PUBACK %x: %w", b, err)
	}
	_, err = m.r.Discard(4)
	return err
}

// flood has every publisher send n messages as fast as it goes, window in flight.
func (c *contender) flood(t *testing.T, publishers, n, window int) {
	c.each(t, publishers, func(i int, m *connection) error {
		for k := range n + window {
			if k < n {
				if err := c.send(m, i); err != nil {
					return err
				}
			}
			if k >= window {
				if err := m.acknowledged(); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// paced says what acknowledgements cost at a rate and how long they take: as publishers see it who share the machine,
// between the machines, and, when it tells, from the socket and back to it.
func (c *contender) paced(t *testing.T, publishers int, rate float64, how string) {
	cpu := c.cpu(t)
	var before map[float64]float64
	if c.acks != nil {
		before = c.acks(t)
	}
	seen, between := c.steady(t, publishers, 16, rate, 10*time.Second)
	used := (c.cpu(t) - cpu) / float64(len(seen)) * 1e6
	own := ""
	if c.acks != nil {
		after := c.acks(t)
		total := after[math.Inf(1)] - before[math.Inf(1)]
		for _, le := range slices.Sorted(maps.Keys(after)) {
			if share := (after[le] - before[le]) / total; share >= 0.99 {
				own = fmt.Sprintf("; from socket to socket %.1f %% within 10 ms and 99 %% within %.1f ms", (after[0.01]-before[0.01])/total*100, le*1000)
				break
			}
		}
	}
	t.Logf("%s at %.0f/s%s acknowledged within %s (p50), %s (p99) as the publishers see it, %s (p50), %s (p99) between the machines%s; %.1f CPU-s per million", c.name, rate, how,
		seen[len(seen)/2], seen[len(seen)*99/100], between[len(between)/2], between[len(between)*99/100], own, used)
}

// few says what few publishers get: three with a message in flight each beside one
// sync of the disk, and one with 64 in flight beside 64 with one.
func (c *contender) few(t *testing.T, dir string, n int) {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var acks, between, syncs []time.Duration
	for range 10 { // in turns, as the disk is not always as fast
		for range 50 {
			if _, err := f.Write(make([]byte, 4096)); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if err := syscall.Fdatasync(int(f.Fd())); err != nil {
				t.Fatal(err)
			}
			syncs = append(syncs, time.Since(begin))
		}
		seen, wire := c.hurried(t, 3, 50)
		acks, between = append(acks, seen...), append(between, wire...)
	}
	slices.Sort(syncs)
	slices.Sort(acks)
	slices.Sort(between)
	of := func(l []time.Duration) float64 { return float64(l[len(l)/2]) / float64(syncs[len(syncs)/2]) }
	t.Logf("3 publishers: acknowledged within %s (p50) as they see it, %s between the machines, %.2f and %.2f times a sync of 4 KiB, %s",
		acks[len(acks)/2], between[len(between)/2], of(acks), of(between), syncs[len(syncs)/2])
	one := func(publishers, each, window int) (wall, cpu float64) {
		began, used := time.Now(), c.cpu(t)
		c.flood(t, publishers, each, window)
		count := float64(publishers * each)
		return time.Since(began).Seconds() / count * 1e6, (c.cpu(t) - used) / count * 1e6
	}
	wall64, cpu64 := one(64, n/2, 1)
	wall1, cpu1 := one(1, 32*n, 64)
	t.Logf("one publisher with 64 in flight: %.1f us and %.1f CPU-us a message, %.2f and %.2f times those of 64 publishers", wall1, cpu1, wall1/wall64, cpu1/cpu64)
}

// besideMochi says how many messages a CPU-second acknowledges: of mochi alone, of the
// platform's way to the acknowledgement alone, and of the platform with all that comes after it. The goal, 0.7 of mochi,
// is read as one for the second, which does what mochi does (take a message, acknowledge it) and syncs it besides; the third decodes
// each message, keeps it in series, rollups and ledger, and has the rules look at it too, for which mochi has no like. Both are told.
func besideMochi(t *testing.T, dir string, publishers, each int, whole float64) {
	perMillion := map[string]float64{}
	for range 3 { // in turns; the best of each counts
		for _, name := range []string{"mochi-sink", "ack-path"} {
			c := startForBench(t, dir, name)
			cpu, begin := c.cpu(t), time.Now()
			c.flood(t, publishers, each, 16)
			used := (c.cpu(t) - cpu) / float64(publishers*each) * 1e6
			t.Logf("%s: acknowledged %.0f/s, %.1f CPU-s per million", name, float64(publishers*each)/time.Since(begin).Seconds(), used)
			if best, ok := perMillion[name]; !ok || used < best {
				perMillion[name] = used
			}
			_ = syscall.Kill(c.pids[0], syscall.SIGTERM)
		}
	}
	t.Logf("acknowledged messages per CPU-second, beside mochi that drops them: %.2f for the synced log alone, %.2f for the whole platform until they are in the series",
		perMillion["mochi-sink"]/perMillion["ack-path"], perMillion["mochi-sink"]/whole)
}

// TestAckedBesideMosquitto is the first part of `make bench-devices`: how many messages with QoS 1 a
// CPU-second acknowledges, in turns of a mosquitto that has no subscriber and keeps nothing, of the platform's way
// to the acknowledgement, which means that the message is synced to disk, and of the whole platform, which
// decodes, stores and looks at them besides.
func TestAckedBesideMosquitto(t *testing.T) {
	messages, _ := strconv.Atoi(os.Getenv("BENCH_DEVICES"))
	if messages == 0 {
		t.Skip("say how many messages: BENCH_DEVICES=300000, or make bench-devices")
	}
	if _, err := exec.LookPath("mosquitto"); err != nil {
		t.Skip("mosquitto is not installed")
	}
	const rounds = 3
	dir := t.TempDir()
	whole := oursForBench(t, dir)
	whole.name = "citywarden, all of it"
	ours := startForBench(t, dir, "ack-path")
	ours.name = "citywarden, durable"
	broker := t.TempDir()
	addr, pid, stop, err := mosquitto(broker)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	bare := *ours
	bare.name, bare.mqtt, bare.pids = "mosquitto, in memory", addr, []int{pid}
	for _, load := range []struct{ publishers, window int }{{100, 16}, {1, 64}} {
		perSecond := map[*contender][]float64{}
		contenders := []*contender{&bare, ours, whole}
		if load.publishers == 1 { // its messages, of which each has a time of its own, would be too far ahead for the series
			contenders = contenders[:2]
		}
		for range rounds { // in turns, as the machine is not always as fast
			for _, c := range contenders {
				n := messages / load.publishers
				stored := 0
				if c.stored != nil {
					stored = c.stored(t)
				}
				cpu, begin := c.cpu(t), time.Now()
				c.flood(t, load.publishers, n, load.window)
				acked := float64(load.publishers*n) / time.Since(begin).Seconds()
				if c.stored != nil && !wait(5*time.Minute, func() bool { return c.stored(t)-stored >= load.publishers*n }) {
					t.Fatalf("%s: %d of %d messages are in the time series", c.name, c.stored(t)-stored, load.publishers*n)
				}
				perSecond[c] = append(perSecond[c], float64(load.publishers*n)/(c.cpu(t)-cpu))
				t.Logf("%s, %d publishers x %d: %.0f acknowledged/s, %.0f per CPU-second", c.name, load.publishers, load.window, acked, perSecond[c][len(perSecond[c])-1])
			}
		}
		of := func(c *contender) float64 { return slices.Max(perSecond[c]) }
		for _, c := range contenders[1:] {
			t.Logf("%d publishers x %d, the best of %d: %s: %.2f times the acknowledged messages per CPU-second of mosquitto", load.publishers, load.window, rounds, c.name, of(c)/of(&bare))
		}
	}
}

func startForBench(t *testing.T, dir, name string) *contender {
	bin, err := exec.LookPath(name) // put there by testscript.Main
	if err != nil {
		t.Fatal(err)
	}
	out := &buffer{}
	cmd := exec.Command(bin)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if !wait(10*time.Second, func() bool { return strings.Contains(out.String(), "\n") }) {
		t.Fatalf("%s does not listen", name)
	}
	return &contender{
		name: name, mqtt: strings.TrimSpace(out.String()), topic: "v1/devices/me/telemetry", pids: []int{cmd.Process.Pid},
		token:   func(i int) string { return fmt.Sprintf("d%d", i) },
		payload: smoke,
	}
}

// TestOverload is `make bench-overload`: 100 publishers send as fast as they are let, for as long
// as BENCH_OVERLOAD says, to a platform that may use 512 MiB. It must hold them back and keep its
// memory: what it has for itself stays about that limit, which Go fills before it collects garbage
// more often, and what a collection leaves does not grow from the second quarter to the last.
func TestOverload(t *testing.T) {
	long, _ := time.ParseDuration(os.Getenv("BENCH_OVERLOAD"))
	if long == 0 {
		t.Skip("say how long: BENCH_OVERLOAD=10m, or make bench-overload")
	}
	t.Setenv("GOMEMLIMIT", "512MiB")
	c := oursForBench(t, t.TempDir())
	end := time.Now().Add(long)
	var own, mapped, live []int // MiB, one every 5 s
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for time.Now().Before(end) {
			time.Sleep(5 * time.Second)
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pids[0]))
			if err != nil {
				t.Error(err)
				return
			}
			own = append(own, int(figure(t, status, `RssAnon:\s+(\d+) kB`))>>10)
			mapped = append(mapped, int(figure(t, status, `RssFile:\s+(\d+) kB`))>>10)
			live = append(live, int(figure(t, c.metrics(t), `(?m)^go_gc_heap_live_bytes (\S+)$`))>>20)
		}
	}()
	var sent atomic.Int64
	c.each(t, 100, func(i int, m *connection) error {
		const window = 64
		flying := 0
		for time.Now().Before(end) {
			if err := c.send(m, i); err != nil {
				return err
			}
			sent.Add(1)
			if flying++; flying == window {
				if err := m.acknowledged(); err != nil {
					return err
				}
				flying--
			}
		}
		for ; flying > 0; flying-- {
			if err := m.acknowledged(); err != nil {
				return err
			}
		}
		return nil
	})
	<-watched
	if !waitSlowly(5*time.Minute+2*long, func() bool { return c.stored(t) >= int(sent.Load()) }) { // the series hold nobody back
		t.Errorf("%d of %d messages are in the time series", c.stored(t), sent.Load())
	}
	t.Logf("%d messages in %s, all in the series; MiB of its own: %v; of files: %v; in use after a collection: %v", sent.Load(), long, own, mapped, live)
	if len(own) == 0 {
		t.Fatal("the memory of the platform was never read")
	}
	if most := slices.Max(own); most > 512+64 {
		t.Errorf("%d MiB of its own at the most; with GOMEMLIMIT=512MiB it is to stay about that", most)
	}
	if n := len(live); n >= 8 {
		early, late := median(live[n/4:n/2]), median(live[n-n/4:])
		t.Logf("in use after a collection: %d MiB in the second quarter, %d in the last", early, late)
		if late > early*5/4 {
			t.Error("what is in use grows")
		}
	}
}

func median(xs []int) int {
	xs = slices.Sorted(slices.Values(xs))
	return xs[len(xs)/2]
}

// figure returns the number that pattern finds in text, 0 when it finds none.
func figure(t *testing.T, text []byte, pattern string) float64 {
	m := regexp.MustCompile(pattern).FindSubmatch(text)
	if m == nil {
		return 0
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Error(err)
	}
	return n
}

func oursForBench(t *testing.T, dir string) *contender {
	p, err := launch(dir, "data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.stop(os.Interrupt)
		if t.Failed() {
			t.Logf("what the platform said:\n%s", p.stderr)
		}
	})
	tokens := addDevices(t, p, 100)
	took := regexp.MustCompile(`(?m)^citywarden_mqtt_ack_seconds_bucket\{le="([^"]+)"\} (\S+)$`)
	return &contender{
		name: "citywarden", mqtt: p.mqtt, topic: "v1/devices/me/telemetry", pids: []int{p.cmd.Process.Pid},
		token:   func(i int) string { return tokens[i] },
		payload: smoke,
		metrics: p.metrics,
		stored: func(t *testing.T) int {
			return int(figure(t, p.metrics(t), `(?m)^citywarden_series_points_total\{result="written"\} (\S+)$`))
		},
		acks: func(t *testing.T) map[float64]float64 {
			counts := map[float64]float64{}
			for _, m := range took.FindAllSubmatch(p.metrics(t), -1) {
				le, err := strconv.ParseFloat(string(m[1]), 64)
				if err != nil {
					t.Fatal(err)
				}
				if counts[le], err = strconv.ParseFloat(string(m[2]), 64); err != nil {
					t.Fatal(err)
				}
			}
			return counts
		},
	}
}

// peersForBench starts mosquitto, telegraf and influxd; nil when one is not installed.
func peersForBench(t *testing.T, dir string) *contender {
	for tool, how := range map[string]string{
		"mosquitto": "apt-get install mosquitto", "influxd": "go install github.com/influxdata/influxdb/cmd/influxd@v1.8.10",
		"telegraf": "go install -tags custom,inputs.mqtt_consumer,outputs.influxdb,parsers.json,serializers.influx github.com/influxdata/telegraf/cmd/telegraf@v1.37.2",
	} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Logf("without the peers: %s is not installed: %s", tool, how)
			return nil
		}
	}
	db, broker := freeAddr(t), freeAddr(t)
	influx := startInflux(t, filepath.Join(dir, "influx"), db)
	_, port, err := net.SplitHostPort(broker)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "mosquitto.conf"), fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nuser root\n", port))
	writeFile(t, filepath.Join(dir, "telegraf.conf"), fmt.Sprintf(`[agent]
  omit_hostname = true
  flush_interval = "1s"
  metric_batch_size = 5000
  metric_buffer_limit = 2000000
[[inputs.mqtt_consumer]]
  servers = ["tcp://%s"]
  topics = ["+/telemetry"]
  qos = 1
  max_undelivered_messages = 20000
  name_override = "fire"
  data_format = "json"
  json_time_key = "ts"
  json_time_format = "unix_ms"
  tag_keys = ["device"]
[[outputs.influxdb]]
  urls = ["http://%s"]
  database = "peers"
`, broker, db))
	start := func(name string, args ...string) int {
		cmd := exec.Command(name, args...)
		log, err := os.Create(filepath.Join(dir, name+".log"))
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); log.Close() })
		return cmd.Process.Pid
	}
	pids := []int{influx.Process.Pid, start("mosquitto", "-c", filepath.Join(dir, "mosquitto.conf"))}
	if !wait(10*time.Second, func() bool {
		c, err := net.Dial("tcp", broker)
		if err == nil {
			c.Close()
		}
		return err == nil
	}) {
		t.Fatal("mosquitto did not start")
	}
	pids = append(pids, start("telegraf", "--config", filepath.Join(dir, "telegraf.conf")))
	c := &contender{
		name: "mosquitto, telegraf, influxd", mqtt: broker, topic: "smoke/telemetry", pids: pids,
		token: func(i int) string { return fmt.Sprintf("d%d", i) },
	}
	c.payload = func(b []byte, i int, ts int64) []byte {
		b = strconv.AppendInt(append(b, `{"ts":`...), ts, 10)
		b = strconv.AppendInt(append(b, `,"device":"d`...), int64(i), 10)
		return append(append(b, `","smoke":0.`...), '0'+byte(ts%10), '}')
	}
	c.stored = func(t *testing.T) int {
		res, err := http.Get("http://" + db + "/query?" + url.Values{"db": {"peers"}, "q": {"SELECT count(smoke) FROM fire"}}.Encode())
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var out struct {
			Results []struct{ Series []struct{ Values [][]any } }
		}
		if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
			t.Fatal(err)
		}
		if len(out.Results) == 0 || len(out.Results[0].Series) == 0 {
			return 0
		}
		return int(out.Results[0].Series[0].Values[0][1].(float64))
	}
	// telegraf has subscribed once a message comes through.
	one := func() bool {
		m, err := dial(broker, "probe")
		if err != nil {
			return false
		}
		defer m.c.Close()
		body := append(text(c.topic), 0, 1)
		if m.write(0x32, fmt.Appendf(body, `{"ts":1600000000000,"device":"probe","other":1}`)) != nil || m.acknowledged() != nil {
			return false
		}
		time.Sleep(time.Second)
		res, err := http.Get("http://" + db + "/query?" + url.Values{"db": {"peers"}, "q": {"SELECT count(other) FROM fire"}}.Encode())
		if err != nil {
			return false
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return bytes.Contains(b, []byte("values"))
	}
	if !wait(30*time.Second, one) {
		t.Fatal("nothing comes through mosquitto, telegraf and influxd")
	}
	return c
}
