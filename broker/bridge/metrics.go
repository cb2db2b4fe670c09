package bridge

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/protocol"
)

// metrics of one partition. They are counted whether anybody collects them or not.
type metrics struct {
	refused *prometheus.CounterVec
	left    prometheus.Counter
	foreign prometheus.Counter
	lost    *prometheus.CounterVec
	gaps    prometheus.Counter
	head    prometheus.Gauge
	behind  prometheus.Gauge
	halted  prometheus.Gauge

	registerer prometheus.Registerer // nil if nobody collects
}

func newMetrics(r prometheus.Registerer, stream string, partition int) *metrics {
	labels := prometheus.Labels{"stream": stream, "partition": strconv.Itoa(partition)}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "tidewire_kafka_" + name, Help: help, ConstLabels: labels}
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "tidewire_kafka_" + name, Help: help, ConstLabels: labels})
	}
	m := &metrics{
		refused: prometheus.NewCounterVec(counter("refused_total", "Records of Kafka that are no message, by the reason."), []string{"reason"}),
		left:    prometheus.NewCounter(counter("left_out_headers_total", "Headers of records that a message cannot have, and that were left out.")),
		foreign: prometheus.NewCounter(counter("foreign_messages_total", "Messages that were written by clients of Kafka, and not by a broker.")),
		lost:    prometheus.NewCounterVec(counter("unanswered_publishes_total", "Publishes that have not come back from Kafka, by what the publisher was told."), []string{"code"}),
		gaps:    prometheus.NewCounter(counter("retention_gaps_total", "How often Kafka's retention had removed what this node had not read.")),
		head:    gauge("applied_offset", "The last offset that is applied here."),
		behind:  gauge("behind_offsets", "How many offsets Kafka has that are not applied here."),
		halted:  gauge("halted", "1 if Kafka has other records than were read before, and nothing is applied any more."),

		registerer: r,
	}
	for _, reason := range Reasons() {
		m.refused.WithLabelValues(string(reason))
	}
	if r != nil {
		r.MustRegister(m.all()...)
	}
	return m
}

// DescribeMetrics registers the metrics of a partition with nothing counted, for
// tables of what there is.
func DescribeMetrics(r prometheus.Registerer) { newMetrics(r, "main", 0) }

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.refused, m.left, m.foreign, m.lost, m.gaps, m.head, m.behind, m.halted}
}

func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.all() {
		m.registerer.Unregister(c)
	}
}

// judged counts a record.
func (m *metrics) judged(v *verdict) {
	m.left.Add(float64(v.left))
	switch {
	case v.reason == Accepted && v.origin.Boot == 0:
		m.foreign.Inc()
	case v.reason != Accepted && v.reason != canary:
		m.refused.WithLabelValues(string(v.reason)).Inc()
	}
}

// unanswered counts an answer that no record has brought.
func (m *metrics) unanswered(err *protocol.Error) {
	if err != nil {
		m.lost.WithLabelValues(string(err.Code)).Inc()
	}
}

func (m *metrics) applied(head uint64, end int64) {
	m.head.Set(float64(head))
	m.behind.Set(float64(uint64(max(end, 0)) - min(head, uint64(max(end, 0)))))
}
