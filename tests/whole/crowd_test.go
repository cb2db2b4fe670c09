package whole_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidewire/tidewire/tests/judge"
)

// TestCrowd: of a thousand subscribers one in twenty stops reading again and
// again. Nothing is lost, doubled or reordered, neither for these nor for the
// others, although the broker is killed once on the way.
func TestCrowd(t *testing.T) {
	subscribers, duration := 1000, 8*time.Second
	if testing.Short() {
		subscribers, duration = 100, 4*time.Second
	}
	if soak := soakTime(t); soak > 0 {
		subscribers, duration = 4000, soak
	}
	b := newBroker(t)
	b.env = small
	b.start()
	dir := filepath.Join(t.TempDir(), "run")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	began := time.Now()
	load := startJudge(t, "-url", b.url(), "-dir", dir, "-seed", fmt.Sprint(seed), "-subscribers", fmt.Sprint(subscribers),
		"-topics", "12", "-payload", "1500", "-rate", "30", "-http", "0.3", "-duration", duration.String(),
		"-slow", "0.05", "-pause", "1s", "-pause-for", "6s", "-patience", "60s")
	delivered, fallbacks := 0.0, 0.0
	within(t, time.Minute+duration, "half of the time is over", func() bool {
		m := b.scrape(t)
		delivered, fallbacks = m["tidewire_delivered_total"], m[outboundFallbacks]
		return time.Since(began) > duration/2 && delivered > 0
	})
	b.kill()
	b.start()
	select {
	case err := <-load:
		if err != nil {
			t.Errorf("the judge: %v", err) // the verdict below says what it found
		}
	case <-time.After(3*time.Minute + duration):
		t.Fatal("the judge does not end")
	}
	t.Logf("everybody has everything after %v", time.Since(began).Round(time.Millisecond))
	fallbacks += b.scrape(t)[outboundFallbacks]
	r, err := judge.Verdict(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if r.Traffic.Subscriptions < subscribers || r.Traffic.Reconnects < subscribers*3/2 {
		t.Errorf("%d subscriptions, %d connections: where is the crowd?", r.Traffic.Subscriptions, r.Traffic.Reconnects)
	}
	if fallbacks == 0 {
		t.Error("nobody was too slow: the pauses did not hit")
	}
	t.Logf("judged after %v; %v fall-backs; %+v", time.Since(began).Round(time.Millisecond), fallbacks, r.Traffic)
}

const outboundFallbacks = `tidewire_subscription_fallbacks_total{reason="outbound"}`

// startJudge runs the judge's load as a process of its own, built without the
// race detector: with it a thousand subscribers are the bottleneck themselves.
// The channel gets the outcome.
func startJudge(t *testing.T, args ...string) <-chan error {
	t.Helper()
	program := filepath.Join(t.TempDir(), "judge")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/tidewire/tidewire/tests/judge/cmd/judge").CombinedOutput(); err != nil {
		t.Fatalf("build the judge: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), program, append([]string{"run"}, args...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return ended
}
