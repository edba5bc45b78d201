//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestIngestBesidePeers is `make bench-ingest`: in one run the same messages of 100
// publishers with QoS 1 into this platform, and into mosquitto, telegraf and influxd.
// It says for each how much CPU time a million messages take until they are in the
// time series, and how long an acknowledgement takes at half of the load. This platform's
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
		c.flood(t, publishers, each)
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
	for _, c := range contenders {
		l := c.steady(t, publishers, rate, 10*time.Second)
		t.Logf("%s at %.0f/s: acknowledged within %s (p50), %s (p99)", c.name, rate, l[len(l)/2], l[len(l)*99/100])
	}
	if len(contenders) == 2 {
		t.Logf("messages per CPU-second: %.2f times those of the peers", contenders[1].perMillion/ours.perMillion)
	}
}

// contender is a chain from MQTT to a time series.
type contender struct {
	name       string
	mqtt       string
	topic      string
	token      func(i int) string
	payload    func(i int, ts int64) string
	pids       []int
	stored     func(t *testing.T) int
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
	if c.last == nil {
		c.last = make([]int64, publishers)
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

// send writes a message of publisher i, which has a time of its own.
func (c *contender) send(m *connection, i int) error {
	c.last[i] = max(c.last[i]+1, time.Now().UnixMilli())
	m.id = m.id%65535 + 1
	body := append(text(c.topic), byte(m.id>>8), byte(m.id))
	return m.write(0x32, append(body, c.payload(i, c.last[i])...))
}

func (m *connection) acknowledged() error {
	head, _, err := m.read()
	if err != nil || head != 0x40 {
		return fmt.Errorf("PUBACK %x: %w", head, err)
	}
	return nil
}

// flood has every publisher send n messages as fast as it goes, 16 in flight.
func (c *contender) flood(t *testing.T, publishers, n int) {
	c.each(t, publishers, func(i int, m *connection) error {
		const window = 16
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

// steady sends at a rate and returns how long the acknowledgements took, from
// when a message was due, sorted.
func (c *contender) steady(t *testing.T, publishers int, rate float64, long time.Duration) []time.Duration {
	every := time.Duration(float64(publishers) / rate * float64(time.Second))
	begin := time.Now()
	var mu sync.Mutex
	var all []time.Duration
	c.each(t, publishers, func(i int, m *connection) error {
		var mine []time.Duration
		for due := begin.Add(every * time.Duration(i) / time.Duration(publishers)); due.Before(begin.Add(long)); due = due.Add(every) {
			time.Sleep(time.Until(due))
			if err := c.send(m, i); err != nil {
				return err
			}
			if err := m.acknowledged(); err != nil {
				return err
			}
			mine = append(mine, time.Since(due))
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, mine...)
		return nil
	})
	slices.Sort(all)
	return all
}

func oursForBench(t *testing.T, dir string) *contender {
	p, err := launch(dir, "data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.stop(os.Interrupt) })
	tokens := addDevices(t, p, 100)
	written := regexp.MustCompile(`(?m)^citywarden_series_points_total\{result="written"\} (\S+)$`)
	return &contender{
		name: "citywarden", mqtt: p.mqtt, topic: "v1/devices/me/telemetry", pids: []int{p.cmd.Process.Pid},
		token:   func(i int) string { return tokens[i] },
		payload: func(_ int, ts int64) string { return fmt.Sprintf(`{"ts":%d,"values":{"smoke":0.%d}}`, ts, ts%10) },
		stored: func(t *testing.T) int {
			res, err := http.Get(p.http + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			m := written.FindSubmatch(b)
			if m == nil {
				return 0
			}
			n, err := strconv.ParseFloat(string(m[1]), 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
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
	c.payload = func(i int, ts int64) string {
		return fmt.Sprintf(`{"ts":%d,"device":"d%d","smoke":0.%d}`, ts, i, ts%10)
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
