package broker

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// metrics are what the broker counts.
type metrics struct {
	sessions      prometheus.Gauge
	subscriptions prometheus.Gauge
	stored        prometheus.Counter
	duplicates    prometheus.Counter
	refusals      *prometheus.CounterVec
	delivered     prometheus.Counter
	fallbacks     prometheus.Counter
	gaps          *prometheus.CounterVec
	limits        *LimitCounter
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Namespace: "tidewire", Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: "tidewire", Name: name, Help: help})
	}
	vector := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Namespace: "tidewire", Name: name, Help: help}, []string{label})
	}
	return &metrics{
		sessions:      gauge("sessions", "Connected clients."),
		subscriptions: gauge("subscriptions", "Subscriptions of all connected clients."),
		stored:        counter("published_total", "Messages that were published and stored."),
		duplicates:    counter("published_duplicates_total", "Published messages whose id was stored before."),
		refusals:      vector("published_refused_total", "Published messages that were refused, by code.", "code"),
		delivered:     counter("delivered_total", "Messages queued for subscribers."),
		fallbacks:     counter("subscription_fallbacks_total", "Times that a live subscription went back to reading the log because its client was slow."),
		gaps:          vector("gaps_total", "Ranges that a subscription could not get, by reason.", "reason"),
		limits:        NewLimitCounter(r),
	}
}

// answered counts the answer of a published message.
func (m *metrics) answered(r *storage.Result) {
	switch {
	case r.Err != nil:
		m.refused(r.Err)
	case r.Duplicate:
		m.duplicates.Inc()
	default:
		m.stored.Inc()
	}
}

func (m *metrics) refused(err *protocol.Error) {
	m.refusals.WithLabelValues(string(err.Code)).Inc()
	m.limits.Refused(err)
}
