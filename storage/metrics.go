package storage

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one log. They are counted whether anybody collects them or not.
type metrics struct {
	commits  prometheus.Counter
	seconds  prometheus.Histogram
	syncs    prometheus.Histogram
	batch    prometheus.Histogram
	messages prometheus.Counter
	bytes    prometheus.Counter
	repeats  prometheus.Counter
	full     prometheus.Counter
	trimmed  prometheus.Counter
	sealed   prometheus.Counter

	levels

	registerer prometheus.Registerer // nil if nobody collects
}

// levels are the metrics that show what a log holds now.
type levels struct {
	segments   prometheus.Gauge
	unsealed   prometheus.Gauge
	diskBytes  prometheus.Gauge
	window     prometheus.Gauge
	ahead      prometheus.Gauge
	dedupeRows prometheus.Gauge
	dedupeAge  prometheus.Gauge
	earliest   prometheus.Gauge
	head       prometheus.Gauge
	oldest     prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, stream string) *metrics {
	labels := prometheus.Labels{"stream": stream}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tidewire_storage_" + name, Help: help, ConstLabels: labels})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "tidewire_storage_" + name, Help: help, ConstLabels: labels})
	}
	histogram := func(name, help string, start, factor float64, n int) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tidewire_storage_" + name, Help: help, ConstLabels: labels, Buckets: prometheus.ExponentialBuckets(start, factor, n)})
	}
	m := &metrics{
		commits:    counter("commits_total", "Transactions that were synced."),
		seconds:    histogram("commit_seconds", "Time to write and sync one commit.", 0.00025, 2, 14),
		syncs:      histogram("sync_seconds", "The part of a commit that is the sync: how long the disk takes.", 0.00025, 2, 14),
		batch:      histogram("batch_entries", "Publishes in one commit.", 1, 4, 8),
		messages:   counter("stored_messages_total", "Messages that were stored."),
		bytes:      counter("stored_bytes_total", "Bytes of blocks that were stored."),
		repeats:    counter("repeats_total", "Publishes whose id was known: duplicates and conflicts."),
		full:       counter("storage_full_total", "Publishes that were refused because the disk was full."),
		trimmed:    counter("trimmed_messages_total", "Messages that retention removed."),
		sealed:     counter("sealed_segments_total", "Segments that were sealed."),
		registerer: r,
		levels: levels{
			segments:   gauge("segments", "Segments on disk."),
			unsealed:   gauge("unsealed_segments", "Full segments that wait to be sealed. At 4 publishing waits for them."),
			diskBytes:  gauge("segment_bytes", "Bytes of the segments on disk."),
			window:     gauge("window_bytes", "Bytes of recent blocks in memory; of a stream in memory, of all its messages."),
			ahead:      gauge("unsynced_bytes", "Bytes of blocks that can be read and are not synced yet; only a stream whose order Kafka decides has any."),
			dedupeRows: gauge("dedupe_rows", "Message ids in the dedupe window."),
			dedupeAge:  gauge("dedupe_window_seconds", "Age of the oldest message id in the dedupe window."),
			earliest:   gauge("earliest_offset", "The retention edge: the first offset that can be read."),
			head:       gauge("head_offset", "The last offset that was given."),
			oldest:     gauge("oldest_message_timestamp_seconds", "When the oldest message that can be read was stored, in seconds since 1970; 0 if there is none."),
		},
	}
	if r != nil {
		r.MustRegister(m.collectors()...)
	}
	return m
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		m.commits, m.seconds, m.syncs, m.batch, m.messages, m.bytes, m.repeats, m.full, m.trimmed, m.sealed,
		m.segments, m.unsealed, m.diskBytes, m.window, m.ahead, m.dedupeRows, m.dedupeAge, m.earliest, m.head, m.oldest,
	}
}

func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.collectors() {
		m.registerer.Unregister(c)
	}
}

// committed counts one commit, of batches that were synced together.
func (m *metrics) committed(took time.Duration, batches ...*batch) {
	entries, stored, bytes, repeats := 0, 0, 0, 0
	for _, b := range batches {
		entries += b.entries
		stored += len(b.stored)
		bytes += len(b.raw)
		repeats += b.repeats
	}
	m.commits.Inc()
	m.seconds.Observe(took.Seconds())
	m.syncs.Observe(batches[len(batches)-1].synced.Seconds())
	m.batch.Observe(float64(entries))
	m.messages.Add(float64(stored))
	m.bytes.Add(float64(bytes))
	m.repeats.Add(float64(repeats))
}

// dedupe shows how many ids are remembered, and since when.
func (m *metrics) dedupe(rows int, oldest, now uint64) {
	m.dedupeRows.Set(float64(rows))
	if oldest > 0 && now > oldest {
		m.dedupeAge.Set(float64(now-oldest) / 1e6)
	}
}

// edge shows what can be read: from an offset on, whose time is in microseconds.
func (m *metrics) edge(earliest, head, oldest uint64) {
	m.earliest.Set(float64(earliest))
	m.head.Set(float64(head))
	m.oldest.Set(float64(oldest) / 1e6)
}

// observe shows the state of the segments. Callers do not hold the state's lock.
func (m *metrics) observe(l *core) {
	unsealed := len(l.state.unsealed())
	l.state.mu.RLock()
	defer l.state.mu.RUnlock()
	var size, oldest uint64
	for _, s := range l.state.segs {
		size += s.info.size
		if oldest == 0 {
			oldest = s.info.firstTime
		}
	}
	m.segments.Set(float64(len(l.state.segs)))
	m.unsealed.Set(float64(unsealed))
	m.diskBytes.Set(float64(size))
	m.window.Set(float64(l.state.window.bytes))
	m.edge(l.state.segs[0].first, l.state.head, oldest)
}
