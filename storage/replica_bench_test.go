package storage

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns the processor time that this process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkApply measures what a replica takes, beside a log that is given the same
// entries, as many at a time: until everything is on disk.
func BenchmarkApply(b *testing.B) {
	const messages, atOnce = 100_000, 250
	payload := make([]byte, 128)
	entries := func() [][]*Entry {
		var all [][]*Entry
		for from := 0; from < messages; from += atOnce {
			var part []*Entry
			for n := range atOnce {
				part = append(part, benchEntry("topic", from+n, payload))
			}
			all = append(all, part)
		}
		return all
	}
	var ratios, cpu []float64
	for b.Loop() {
		given := entries()
		used := cpuTime(b)
		replica := benchReplica(b, b.TempDir(), given)
		replicaCPU := cpuTime(b) - used
		given = entries()
		used = cpuTime(b)
		log := benchAppendAll(b, b.TempDir(), given)
		ratios = append(ratios, log.Seconds()/replica.Seconds())
		cpu = append(cpu, replicaCPU.Seconds()/(cpuTime(b)-used).Seconds())
		b.ReportMetric(messages/replica.Seconds(), "msgs/s")
		b.ReportMetric(float64(replicaCPU.Nanoseconds())/messages, "cpu-ns/msg")
	}
	b.ReportMetric(median(ratios), "of-append")
	b.ReportMetric(median(cpu), "cpu-of-append")
}

func benchReplica(b *testing.B, dir string, entries [][]*Entry) time.Duration {
	logger := slog.New(slog.DiscardHandler)
	s, err := Open(dir, Options{ReserveBytes: -1, Logger: logger})
	if err != nil {
		b.Fatal(err)
	}
	r, err := s.OpenReplica("main", ReplicaOptions{Term: replicaTerm, LogOptions: LogOptions{Logger: logger}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	start, offset := time.Now(), uint64(0)
	at := uint64(start.UnixMicro())
	for _, part := range entries {
		items := make([]Item, len(part))
		for i, e := range part {
			offset++
			items[i] = Item{Offset: offset, Time: at, Entry: e}
		}
		if _, err := r.Apply(ctx, items, nil); err != nil {
			b.Fatal(err)
		}
	}
	stop()
	if err := <-done; err != nil || r.Synced() != offset {
		b.Fatal(r.Synced(), err)
	}
	took := time.Since(start)
	_ = r.Close()
	_ = s.Close()
	return took
}

func benchAppendAll(b *testing.B, dir string, entries [][]*Entry) time.Duration {
	l, stop := benchLog(b, dir, LogOptions{})
	var answered sync.WaitGroup
	start := time.Now()
	for _, part := range entries {
		answered.Add(len(part))
		for _, e := range part {
			e.Done = func(Result) { answered.Done() }
		}
		if err := l.Append(context.Background(), part...); err != nil {
			b.Fatal(err)
		}
	}
	answered.Wait()
	took := time.Since(start)
	stop()
	return took
}
