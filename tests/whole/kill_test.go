package whole_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidewire/tidewire/tests/judge"
)

// small makes a broker rotate, seal and read from disk within seconds.
var small = []string{
	"TIDEWIRE_STREAMS_MAIN_SEGMENT_BYTES=1MiB",
	"TIDEWIRE_STREAMS_MAIN_WINDOW_BYTES=1MiB",
	"TIDEWIRE_LIMITS_OUTBOUND_SOFT_BYTES=64KiB",
}

// startLoad sends load that lasts until Stop, and judges it in the returned
// function.
func startLoad(t *testing.T, b *broker) (l *judge.Load, verdict func() *judge.Report) {
	return startLoadOn(t, b, "")
}

// startLoadOn does so on topics whose first token is prefix, if that is given.
func startLoadOn(t *testing.T, b *broker, prefix string) (l *judge.Load, verdict func() *judge.Report) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	plan := judge.Plan{
		URLs: []string{b.url()}, Dir: filepath.Join(t.TempDir(), "run"), Prefix: prefix,
		Publishers: 4, Subscribers: 6, Topics: 12, PayloadBytes: 300, HTTPShare: 0.3, Rate: 1500, Seed: seed,
		Tuning: judge.Tuning{CutEvery: 3 * time.Second, PauseEvery: 3 * time.Second},
	}
	l, err := judge.Start(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	return l, func() *judge.Report {
		t.Helper()
		l.Stop()
		ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
		defer stop()
		if err := l.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		r, err := judge.Verdict(plan.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Err(); err != nil {
			t.Error(err)
		}
		t.Logf("%+v", r.Traffic)
		return r
	}
}

// Killed at any moment under load and started again at once, the broker loses,
// doubles and reorders nothing that was answered.
func TestKillUnderLoad(t *testing.T) {
	kills := 20
	if testing.Short() {
		kills = 2
	}
	soak, stop := context.WithTimeout(t.Context(), soakTime(t))
	defer stop()
	b := newBroker(t)
	b.env = small
	b.start()
	l, verdict := startLoad(t, b)
	killed, began := 0, time.Now()
	for ; killed < kills || soak.Err() == nil; killed++ {
		answered, received, began := l.Answered(), l.Received(), time.Now()
		alive := time.Duration(rand.Int64N(int64(2 * time.Second)))
		within(t, 60*time.Second, "the load goes on", func() bool {
			return l.Answered() > answered && l.Received() > received && time.Since(began) > alive
		})
		b.kill()
		if killed%4 == 3 { // once more while it recovers
			b.launch()
			began, alive := time.Now(), time.Duration(rand.Int64N(int64(100*time.Millisecond)))
			within(t, 10*time.Second, "the next kill", func() bool { return time.Since(began) > alive })
			b.kill()
		}
		b.start()
	}
	t.Logf("%d kills in %v", killed, time.Since(began).Round(time.Second))
	r := verdict()
	t.Logf("judged after %v", time.Since(began).Round(time.Second))
	if r.Traffic.Repeats == 0 || r.Traffic.Reconnects < killed {
		t.Errorf("%d repeats and %d connections: the kills did not hit", r.Traffic.Repeats, r.Traffic.Reconnects)
	}
}

// soakTime is how long `make soak` wants each test to go on; 0 otherwise.
func soakTime(t *testing.T) time.Duration {
	text := os.Getenv("TIDEWIRE_SOAK")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("TIDEWIRE_SOAK: %v", err)
	}
	return d
}

// SIGTERM tells the sessions to go away, answers what was sent, and ends with
// 0; the next start has everything.
func TestTermDrains(t *testing.T) {
	b := newBroker(t)
	b.env = append([]string{"TIDEWIRE_SHUTDOWN_SPREAD=1s"}, small...)
	b.start()
	l, verdict := startLoad(t, b)
	for range 2 {
		answered := l.Answered()
		within(t, 60*time.Second, "the load goes on", func() bool { return l.Answered() > answered+1000 })
		began := time.Now()
		if code := b.terminate(); code != 0 {
			t.Errorf("exit status %d after SIGTERM, want 0", code)
		}
		t.Logf("it ended %v after SIGTERM", time.Since(began).Round(time.Millisecond))
		b.start()
	}
	if r := verdict(); r.Traffic.GoAways == 0 {
		t.Error("no subscriber was told to go away")
	}
}
