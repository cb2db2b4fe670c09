package broker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
)

// consumerMetrics shows every consumer to Prometheus. Nothing is counted for it:
// it asks the dispatchers when it is asked.
type consumerMetrics struct {
	consumers *consumers

	inFlight, waiting, lag, dead, members           *prometheus.Desc
	delivered, redelivered, settled, died, redriven *prometheus.Desc
}

func newConsumerMetrics(c *consumers) *consumerMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tidewire_consumer_"+name, help, append([]string{"consumer"}, labels...), nil)
	}
	return &consumerMetrics{
		consumers:   c,
		inFlight:    desc("in_flight_messages", "Messages that are delivered and not settled."),
		waiting:     desc("waiting_messages", "Messages that wait for their next delivery, or behind another one with their key."),
		lag:         desc("lag_offsets", "Offsets between what a consumer has reached and the head of its stream; those of other topics count too."),
		dead:        desc("dead_letters", "Dead letters that were neither redriven nor purged."),
		members:     desc("members", "Members of a consumer."),
		delivered:   desc("delivered_messages_total", "Deliveries, repeated ones included."),
		redelivered: desc("redelivered_messages_total", "Deliveries after the first."),
		settled:     desc("settled_messages_total", "Messages that members have settled, by what they said.", "how"),
		died:        desc("died_messages_total", "Messages that became dead letters."),
		redriven:    desc("redriven_messages_total", "Dead letters that were given back."),
	}
}

// Describe implements [prometheus.Collector].
func (m *consumerMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.inFlight, m.waiting, m.lag, m.dead, m.members, m.delivered, m.redelivered, m.settled, m.died, m.redriven} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (m *consumerMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, p := range m.consumers.all() {
		name := p.about().name
		_, _, lag := p.place()
		staff, stats := p.staff()
		var inFlight, waiting, dead int
		p.look(func(m *consumer.Machine) {
			inFlight, _ = m.InFlight()
			waiting, dead = m.Waiting()+m.Held()+m.Dying(), m.DeadCount()
		})
		gauge := func(desc *prometheus.Desc, v int) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(v), name)
		}
		counter := func(desc *prometheus.Desc, v uint64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(v), append([]string{name}, labels...)...)
		}
		gauge(m.inFlight, inFlight)
		gauge(m.waiting, waiting)
		gauge(m.lag, int(lag))
		gauge(m.dead, dead)
		gauge(m.members, len(staff))
		counter(m.delivered, stats.delivered)
		counter(m.redelivered, stats.redelivered)
		counter(m.died, stats.died)
		counter(m.redriven, stats.redriven)
		for kind, n := range stats.settled {
			counter(m.settled, n, protocol.SettleKind(kind).String())
		}
	}
}
