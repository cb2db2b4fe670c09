package storage

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metric returns the value of a metric that is there once; of a histogram how
// much it has counted.
func metric(t *testing.T, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tidewire_storage_"+name && len(f.GetMetric()) == 1 {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Fatalf("there is no metric tidewire_storage_%s", name)
	return 0
}

// TestMetricsOfTheEdge follows what the metrics say of a log on disk and of one
// in memory: what can be read, what memory it takes, how many syncs there were.
func TestMetricsOfTheEdge(t *testing.T) {
	for _, kind := range []string{"disk", "memory"} {
		t.Run(kind, func(t *testing.T) {
			r, born := prometheus.NewRegistry(), time.Now()
			now := func() time.Time { return born }
			var l interface {
				administered
				Run(ctx context.Context, apply func(*Commit)) error
			}
			if kind == "memory" {
				l = NewMemoryLog("main", MemoryOptions{Registerer: r, Now: now})
			} else {
				l = openTest(t, t.TempDir(), LogOptions{Registerer: r, Now: now}).Log
			}
			if e, h, o := metric(t, r, "earliest_offset"), metric(t, r, "head_offset"), metric(t, r, "oldest_message_timestamp_seconds"); e != 1 || h != 0 || o != 0 {
				t.Errorf("an empty log has messages from %v to %v, the oldest at %v", e, h, o)
			}
			running(t, l)
			putAll(t, l, message("a", "", "1"), message("a", "", "2"))
			putAll(t, l, message("a", "", "3"))
			eventually(t, "what was stored", func() bool {
				return metric(t, r, "head_offset") == 3 && metric(t, r, "oldest_message_timestamp_seconds") == float64(born.UnixMicro())/1e6
			})
			if metric(t, r, "window_bytes") == 0 {
				t.Error("the window takes no memory")
			}
			if syncs, commits := metric(t, r, "sync_seconds"), metric(t, r, "commits_total"); kind == "disk" && (syncs == 0 || syncs != commits) {
				t.Errorf("%v commits took %v syncs", commits, syncs)
			}
			if _, err := l.Purge(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the purge", func() bool {
				return metric(t, r, "earliest_offset") == 4 && metric(t, r, "oldest_message_timestamp_seconds") == 0 && metric(t, r, "unsealed_segments") == 0
			})
		})
	}
}

// eventually polls, as a scraper does, until the metrics say it: some are shown
// in the keeper's rounds.
func eventually(t *testing.T, what string, shown func() bool) {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !shown() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the metrics do not show %s", what)
		}
	}
}
