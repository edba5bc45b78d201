package ingest

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
)

// metrics are the pipeline's numbers.
type metrics struct {
	results map[string]map[string]prometheus.Counter // by protocol and result
	ack     prometheus.Histogram
	dead    prometheus.Counter
	limits  map[string]map[string]prometheus.Counter // by protocol and limit
	stalls  map[string]prometheus.Counter            // by cause
	depth   atomic.Int64
	moved   atomic.Int64 // when a message was acknowledged last, or the first began to wait, in nanoseconds since 1970
}

// newMetrics registers them with r, which may be nil.
func newMetrics(r prometheus.Registerer, lag func() map[string]uint64) (*metrics, error) {
	uplinks := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "citywarden_uplinks_total", Help: "Messages of devices by protocol and result: stored, refused or failed.",
	}, []string{"protocol", "result"})
	m := &metrics{
		results: map[string]map[string]prometheus.Counter{},
		ack: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "citywarden_ack_seconds", Help: "Time from taking a message to its being durable.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 14),
		}),
		dead: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "citywarden_dead_letters_total", Help: "Messages that could not be used, or not as a whole.",
		}),
	}
	limited := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "citywarden_limited_total", Help: "What reached a limit of its model, by protocol and limit: messages that were delayed, messages and connections that were refused or are dead letters, and payloads that were too long.",
	}, []string{"protocol", "limit"})
	m.limits = map[string]map[string]prometheus.Counter{}
	stalls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "citywarden_ack_stalls_total", Help: "How often messages waited for 5 s of which none was acknowledged, by what they waited for: consumer, log, cpu or other.",
	}, []string{"cause"})
	m.stalls = map[string]prometheus.Counter{}
	for _, cause := range []string{waitsForConsumer, waitsForLog, waitsForCPU, waitsForOther} {
		m.stalls[cause] = stalls.WithLabelValues(cause)
	}
	for _, protocol := range []string{"mqtt", "coap", "http", "uplink", "other"} {
		m.results[protocol] = map[string]prometheus.Counter{}
		for _, result := range []string{"stored", "refused", "failed"} {
			m.results[protocol][result] = uplinks.WithLabelValues(protocol, result)
		}
		m.limits[protocol] = map[string]prometheus.Counter{}
		for _, limit := range []string{"delayed", "messages", "connections", "payload"} {
			m.limits[protocol][limit] = limited.WithLabelValues(protocol, limit)
		}
	}
	if r == nil {
		return m, nil
	}
	depth := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "citywarden_log_depth", Help: "Messages taken that are not durable yet.",
	}, func() float64 { return float64(m.depth.Load()) })
	waited := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "citywarden_ack_waited_seconds", Help: "For how long messages have waited of which none was acknowledged, 0 when none wait.",
	}, func() float64 { return m.waited(time.Now()).Seconds() })
	for _, c := range []prometheus.Collector{uplinks, limited, m.ack, m.dead, depth, waited, stalls, lags(lag)} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// began counts a message in.
func (m *metrics) began() {
	if m.depth.Load() == 0 { // before it counts, or whoever looks in between takes it for one that has waited since then
		m.moved.Store(time.Now().UnixNano())
	}
	if m.depth.Add(1) == 1 {
		m.moved.Store(time.Now().UnixNano())
	}
}

// ended counts a message out that came at begin, and what became of it.
func (m *metrics) ended(protocol string, begin time.Time, err error) {
	if protocol == citywarden.ProtocolWill {
		protocol = "mqtt"
	}
	results, ok := m.results[protocol]
	if !ok { // labels are bounded
		results = m.results["other"]
	}
	m.depth.Add(-1)
	result := "stored"
	switch citywarden.CodeOf(err) {
	case "":
		now := time.Now()
		m.moved.Store(now.UnixNano())
		m.ack.Observe(now.Sub(begin).Seconds())
	case citywarden.CodeInvalid, citywarden.CodeLimited:
		result = "refused"
	default:
		result = "failed"
	}
	results[result].Inc()
}

// limit counts what reached a limit of its model.
func (m *metrics) limit(protocol, limit string) {
	limits, ok := m.limits[protocol]
	if !ok {
		limits = m.limits["other"]
	}
	limits[limit].Inc()
}

// lags collects how far each consumer is behind.
type lags func() map[string]uint64

func (l lags) desc() *prometheus.Desc {
	return prometheus.NewDesc("citywarden_consumer_lag", "Commit groups between a consumer and the end of the log.", []string{"consumer"}, nil)
}

// Describe implements prometheus.Collector.
func (l lags) Describe(ch chan<- *prometheus.Desc) { ch <- l.desc() }

// Collect implements prometheus.Collector.
func (l lags) Collect(ch chan<- prometheus.Metric) {
	for name, n := range l() {
		ch <- prometheus.MustNewConstMetric(l.desc(), prometheus.GaugeValue, float64(n), name)
	}
}
