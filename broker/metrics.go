package broker

import (
	"time"

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
	fallbacks     *prometheus.CounterVec
	behind        prometheus.Gauge
	ephemeral     prometheus.Counter
	leftOut       *prometheus.CounterVec
	latency       prometheus.Histogram
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
	m := &metrics{
		sessions:      gauge("sessions", "Connected clients."),
		subscriptions: gauge("subscriptions", "Subscriptions of all connected clients."),
		stored:        counter("published_total", "Messages that were published and stored."),
		duplicates:    counter("published_duplicates_total", "Published messages whose id was stored before."),
		refusals:      vector("published_refused_total", "Published messages that were refused, by code.", "code"),
		delivered:     counter("delivered_total", "Messages queued for subscribers."),
		fallbacks:     vector("subscription_fallbacks_total", "Times that a live subscription could not keep up, by reason: outbound (too much waits for its connection) and credit (its credit is used up), after which it reads the log; disconnect (too much waits, and it asked to be disconnected then).", "reason"),
		limits:        NewLimitCounter(r),
		behind:        gauge("subscriptions_behind", "Subscriptions that are not live: they read the log, wait for credit, or rest until their next conflated round."),
		ephemeral:     counter("published_ephemeral_total", "Ephemeral messages that were published."),
		leftOut:       vector("left_out_total", "Messages that a subscription matches and did not get, by reason: expired, own (it wants no echo), ephemeral (it was behind). Superseded messages are not counted: a conflated subscription never sees them.", "reason"),
		latency: f.NewHistogram(prometheus.HistogramOpts{
			Namespace: "tidewire", Name: "delivery_seconds",
			Help:    "Time from the arrival of a commit's oldest message until it is queued for all its live subscriptions.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}),
		gaps: vector("gaps_total", "Ranges that a subscription could not get, by reason.", "reason"),
	}
	for _, reason := range []string{behindOutbound, behindCredit, behindDisconnect} {
		m.fallbacks.WithLabelValues(reason) // so that a rate of it is never missing
	}
	return m
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

// applied notes how long it took until everybody who is live had a commit.
func (m *metrics) applied(c *storage.Commit) {
	if len(c.Answers) > 0 && !c.Answers[0].Entry.Received.IsZero() {
		m.latency.Observe(time.Since(c.Answers[0].Entry.Received).Seconds())
	}
}
