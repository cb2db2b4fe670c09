package storage

import (
	"fmt"
	"math"
	"runtime"
	"testing"
	"time"
)

// BenchmarkKept measures what retention by count costs, beside the same without:
// publishes in batches of 256 that nobody syncs for, reading everything from the
// files, reading one topic, and opening the log again. The memory is what the log
// holds for it.
func BenchmarkKept(b *testing.B) {
	for _, topics := range []int{100, 10_000} {
		for _, keep := range []int{0, 1, 10, 1000} {
			b.Run(fmt.Sprintf("topics=%d/keep=%d", topics, keep), func(b *testing.B) {
				for b.Loop() {
					benchKept(b, topics, keep)
				}
			})
		}
	}
}

func benchKept(b *testing.B, topics, keep int) {
	const stored, batch = 400_000, 256
	dir := b.TempDir()
	opts := LogOptions{PerTopic: keep, SegmentBytes: 16 << 20, WindowBytes: 1, DedupeWindow: 1000}
	payload := make([]byte, 128)

	m := NewMemoryLog("x", MemoryOptions{PerTopic: keep, DedupeWindow: 1000})
	took := time.Duration(0)
	for n := 0; n < stored; n += batch {
		entries := make([]*Entry, batch)
		for i := range entries {
			entries[i] = benchEntry(fmt.Sprintf("topic.%d", (n+i)*7919%topics), n+i, payload)
		}
		start := time.Now()
		m.commit(entries)
		took += time.Since(start)
	}
	b.ReportMetric(float64(took.Nanoseconds())/stored, "append-ns/msg")
	_ = m.Close()

	l, stop := benchLog(b, dir, opts)
	fill(b, l, stored, topics, "none")
	before := heap()
	if l.state.kept != nil {
		l.state.kept = nil
		b.ReportMetric(float64(before-heap())/float64(topics), "bytes/topic")
	}
	stop()

	start := time.Now()
	l, stop = benchLog(b, dir, opts)
	defer stop()
	b.ReportMetric(float64(time.Since(start).Milliseconds()), "open-ms")
	b.ReportMetric(readRate(b, l, ">", stored), "all-ns/msg")
	b.ReportMetric(readRate(b, l, "topic.7", stored/topics), "topic-ns/msg")
}

// readRate reads everything that a filter matches, of so many stored messages.
func readRate(b *testing.B, l *Log, filter string, stored int) float64 {
	best := math.MaxFloat64
	for range 3 {
		start := time.Now()
		_, head := l.Bounds()
		seen := 0
		for after := uint64(0); after < head; {
			c, err := l.Read(Query{Filter: protocolFilter(b, filter), After: after})
			if err != nil {
				b.Fatal(err)
			}
			after, seen = c.Through, seen+c.Count+len(c.Hidden)
		}
		if seen < stored {
			b.Fatalf("%d of %d", seen, stored)
		}
		best = min(best, float64(time.Since(start).Nanoseconds())/float64(seen))
	}
	return best
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
