package cases

import (
	"context"
	"fmt"
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
	for _, c := range []prometheus.Collector{m.annunciated, standing{d}} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// standing collects how many alarms there are now.
type standing struct{ d *Desk }

var (
	activeDesc  = prometheus.NewDesc("citywarden_alarms_active", "Active alarms, suppressed ones included.", []string{"severity"}, nil)
	unackedDesc = prometheus.NewDesc("citywarden_alarms_unacked", "Active alarms that are neither acknowledged nor suppressed.", nil, nil)
	staleDesc   = prometheus.NewDesc("citywarden_alarms_stale", "Alarms that have been active for more than 24 h and are not suppressed.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s standing) Describe(ch chan<- *prometheus.Desc) {
	ch <- activeDesc
	ch <- unackedDesc
	ch <- staleDesc
}

// Collect implements prometheus.Collector.
func (s standing) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	active, unacked, err := s.d.AlarmCounts(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(activeDesc, err)
		return
	}
	for v := citywarden.Indeterminate; v <= citywarden.Critical; v++ {
		ch <- prometheus.MustNewConstMetric(activeDesc, prometheus.GaugeValue, float64(active[v]), v.String())
	}
	ch <- prometheus.MustNewConstMetric(unackedDesc, prometheus.GaugeValue, float64(unacked))
	_, stale, err := s.d.read.StaleAlarms(ctx, "", time.Now().Add(-staleAfter), 0)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(staleDesc, err)
		return
	}
	ch <- prometheus.MustNewConstMetric(staleDesc, prometheus.GaugeValue, float64(stale))
}
