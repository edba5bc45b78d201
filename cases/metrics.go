package cases

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/citywarden/citywarden"
)

// metrics are the desk's numbers.
type metrics struct{ annunciated *prometheus.CounterVec }

// newMetrics registers them with r, which may be nil.
func newMetrics(r prometheus.Registerer, d *Desk) (*metrics, error) {
	m := &metrics{annunciated: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "citywarden_alarms_annunciated_total", Help: "Alarms that called for an operator, without maintenance work orders.",
	}, []string{"severity"})}
	for s := citywarden.Indeterminate; s <= citywarden.Critical; s++ {
		m.annunciated.WithLabelValues(s.String())
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.annunciated, &standing{d: d}} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// standing collects how many alarms there are now, and what they demanded of the
// operators in the last day. What can't be found out is logged and left out: the other
// metrics are wanted most when the database is busy.
type standing struct {
	d *Desk

	mu   sync.Mutex // held while load is computed: the next one waits and has it then
	at   time.Time  // of load
	load []prometheus.Metric
}

// loadEvery is how often at most the load of a day, which in a flood is much to read, is computed.
const loadEvery = time.Minute

var (
	activeDesc  = prometheus.NewDesc("citywarden_alarms_active", "Active alarms, suppressed ones included.", []string{"severity"}, nil)
	unackedDesc = prometheus.NewDesc("citywarden_alarms_unacked", "Active alarms that are neither acknowledged nor suppressed.", nil, nil)
	staleDesc   = prometheus.NewDesc("citywarden_alarms_stale", "Alarms that have been active for more than 24 h and are not suppressed.", nil, nil)

	meanDesc       = prometheus.NewDesc("citywarden_alarm_load_mean", "Alarms per operator in 10 minutes, on the average of the last 24 h.", nil, nil)
	peakDesc       = prometheus.NewDesc("citywarden_alarm_load_peak", "Alarms per operator in the worst 10 minutes of the last 24 h.", nil, nil)
	floodsDesc     = prometheus.NewDesc("citywarden_alarm_load_floods", "Floods in the last 24 h.", nil, nil)
	floodedDesc    = prometheus.NewDesc("citywarden_alarm_load_flooded", "1 while a flood lasts.", nil, nil)
	chatteringDesc = prometheus.NewDesc("citywarden_alarm_load_chattering", "Alarms that came three times or more within a minute, in the last 24 h.", nil, nil)
	priorityDesc   = prometheus.NewDesc("citywarden_alarm_load_share", "Share of the alarms of the last 24 h, 0 to 1.", []string{"priority"}, nil)
	topRulesDesc   = prometheus.NewDesc("citywarden_alarm_load_top_rules", "Alarms of the ten rules that had most in the last 24 h.", []string{"rule"}, nil)
)

// Describe implements prometheus.Collector.
func (s *standing) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{activeDesc, unackedDesc, staleDesc, meanDesc, peakDesc, floodsDesc, floodedDesc, chatteringDesc, priorityDesc, topRulesDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *standing) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s.collectAlarms(ctx, ch)
	for _, m := range s.loads(time.Now()) {
		ch <- m
	}
}

func (s *standing) collectAlarms(ctx context.Context, ch chan<- prometheus.Metric) {
	active, unacked, err := s.d.AlarmCounts(ctx)
	if err != nil {
		s.d.opt.Logger.Warn("alarms not counted for the metrics", "err", err)
		return
	}
	for v := citywarden.Indeterminate; v <= citywarden.Critical; v++ {
		ch <- prometheus.MustNewConstMetric(activeDesc, prometheus.GaugeValue, float64(active[v]), v.String())
	}
	ch <- prometheus.MustNewConstMetric(unackedDesc, prometheus.GaugeValue, float64(unacked))
	_, stale, err := s.d.read.StaleAlarms(ctx, "", time.Now().Add(-staleAfter), 0)
	if err != nil {
		s.d.opt.Logger.Warn("stale alarms not counted for the metrics", "err", err)
		return
	}
	ch <- prometheus.MustNewConstMetric(staleDesc, prometheus.GaugeValue, float64(stale))
}

// loads returns the KPIs of EEMUA 191 over the last day, as they were a minute ago at most.
func (s *standing) loads(now time.Time) []prometheus.Metric {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.at.IsZero() && now.Sub(s.at) < loadEvery {
		return s.load
	}
	s.at, s.load = now, nil
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	l, err := s.d.Load(ctx, "", now.Add(-24*time.Hour), now)
	if err != nil {
		s.d.opt.Logger.Warn("alarm load not computed for the metrics", "err", err)
		return nil
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		s.load = append(s.load, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
	}
	gauge(meanDesc, l.PerOperator.Mean)
	gauge(peakDesc, l.PerOperator.Peak)
	gauge(floodsDesc, float64(len(l.Floods)))
	flooded := 0.0
	if n := len(l.Floods); n > 0 && l.Floods[n-1].To.Equal(now) {
		flooded = 1
	}
	gauge(floodedDesc, flooded)
	gauge(chatteringDesc, float64(len(l.Chattering)))
	for p, share := range l.Priorities {
		gauge(priorityDesc, share.Share, string(p))
	}
	for _, r := range l.TopRules {
		gauge(topRulesDesc, float64(r.Alarms), string(r.Rule))
	}
	return s.load
}
