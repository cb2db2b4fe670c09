package server

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tidewire/tidewire/broker"
)

// metrics are what the edge counts.
type metrics struct {
	requests        *prometheus.CounterVec // by route and status
	open            prometheus.Gauge
	connections     prometheus.Gauge
	streams         prometheus.Gauge
	upgradesRefused *prometheus.CounterVec // by code
	bytesOut        prometheus.Counter
	closes          *prometheus.CounterVec // by code
	limits          *broker.LimitCounter
	receiving       prometheus.Gauge
	backups         *prometheus.CounterVec // by outcome
	lastBackup      prometheus.Gauge
}

func newMetrics(r *prometheus.Registry) *metrics {
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	f := promauto.With(r)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Namespace: "tidewire", Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: "tidewire", Name: name, Help: help})
	}
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Namespace: "tidewire", Name: name, Help: help}, labels)
	}
	return &metrics{
		requests:        vector("http_requests_total", "HTTP requests, by route and status.", "route", "status"),
		open:            gauge("connections", "Open connections of both listeners, of every kind."),
		connections:     gauge("websocket_connections", "Open WebSocket connections."),
		streams:         gauge("event_streams", "Open streams of server-sent events."),
		upgradesRefused: vector("websocket_refused_total", "WebSocket upgrades that were refused, by code.", "code"),
		bytesOut:        counter("sent_bytes_total", "Bytes written to WebSocket connections and event streams."),
		closes:          vector("websocket_closes_total", "WebSocket connections that the broker closed, by code.", "code"),
		limits:          broker.NewLimitCounter(r),
		receiving:       gauge("receiving_bytes", "Bytes held for frames and bodies that have arrived in part."),
		backups:         vector("backups_total", "Backups, by outcome: complete, failed or refused because one was being made.", "outcome"),
		lastBackup:      gauge("last_backup_timestamp_seconds", "When the last complete backup began, in seconds since 1970; 0 if there was none since the start."),
	}
}

// request counts an answered request. Paths that no route knows share a label:
// labels must not grow with what clients think of.
func (m *metrics) request(out *response) {
	route, status := out.route, out.status
	if route == "" {
		route = "none"
	}
	if status == 0 { // an upgrade, or nothing was written
		return
	}
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
}
