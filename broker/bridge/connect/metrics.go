package connect

import "github.com/prometheus/client_golang/prometheus"

// metrics of one connector. Where it does not run they rest.
type metrics struct {
	carried prometheus.Counter
	bad     *prometheus.CounterVec
	gaps    prometheus.Counter
	expired prometheus.Counter
	lag     prometheus.Gauge
	held    prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, connector, direction string) *metrics {
	labels := prometheus.Labels{"connector": connector, "direction": direction}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "tidewire_connector_" + name, Help: help, ConstLabels: labels}
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "tidewire_connector_" + name, Help: help, ConstLabels: labels})
	}
	m := &metrics{
		carried: prometheus.NewCounter(counter("records_total", "Records that this node has carried for the connector, repeats after a take-over included.")),
		bad:     prometheus.NewCounterVec(counter("bad_total", "Records that cannot be carried, by the reason."), []string{"reason"}),
		gaps:    prometheus.NewCounter(counter("gaps_total", "How often retention had removed what the connector had not carried.")),
		expired: prometheus.NewCounter(counter("expired_total", "Messages that had expired and were not carried.")),
		lag:     gauge("lag_records", "How many records the connector has still to carry, on the node that runs it."),
		held:    gauge("running", "1 if the connector runs on this node."),
	}
	for _, reason := range Reasons() {
		m.bad.WithLabelValues(string(reason))
	}
	if r != nil {
		r.MustRegister(m.carried, m.bad, m.gaps, m.expired, m.lag, m.held)
	}
	return m
}

// DescribeMetrics registers the metrics of a connector with nothing counted, for
// tables of what there is.
func DescribeMetrics(r prometheus.Registerer) { newMetrics(r, "erp", "in") }
