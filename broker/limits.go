package broker

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/protocol"
)

// LimitCounter counts how often clients met a limit. The parts of a program
// that count in one registry share one.
type LimitCounter struct{ vector *prometheus.CounterVec }

// NewLimitCounter returns the counter of a registry, which may be nil. Every
// limit is there from the start, so that a rate of it is never missing.
func NewLimitCounter(r prometheus.Registerer) *LimitCounter {
	c := &LimitCounter{vector: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "tidewire", Name: "limits_total",
		Help: "Times that a client met a limit, by the limit's name; see docs/limits.md.",
	}, []string{"limit"})}
	if r != nil {
		if before, ok := errors.AsType[prometheus.AlreadyRegisteredError](r.Register(c.vector)); ok {
			c.vector = before.ExistingCollector.(*prometheus.CounterVec)
		}
	}
	for _, info := range protocol.Limits() {
		c.vector.WithLabelValues(string(info.Limit))
	}
	return c
}

// Met counts a client that met a limit without a refusal.
func (c *LimitCounter) Met(l protocol.Limit) { c.vector.WithLabelValues(string(l)).Inc() }

// Refused counts a refusal, if it is about a limit and was not counted before.
func (c *LimitCounter) Refused(err *protocol.Error) {
	if l := err.TakeLimit(); l != "" {
		c.Met(l)
	}
}
