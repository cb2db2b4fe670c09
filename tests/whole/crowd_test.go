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
	b.program = buildPlain(t, "cmd/tidewire")
	b.start()
	dir := filepath.Join(t.TempDir(), "run")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	began := time.Now()
	load := startJudge(t, "-url", b.url(), "-dir", dir, "-seed", fmt.Sprint(seed), "-subscribers", fmt.Sprint(subscribers),
		"-topics", "12", "-payload", "3000", "-rate", "30", "-http", "0.3", "-duration", duration.String(),
		"-slow", "0.05", "-pause", "500ms", "-pause-for", "8s", "-patience", "60s")
	fallbacks := 0.0
	within(t, time.Minute+duration, "half of the time is over, and half of the crowd is there", func() bool {
		m := b.scrape(t)
		fallbacks = m[outboundFallbacks]
		return time.Since(began) > duration/2 && m["tidewire_delivered_total"] > 0 && m["tidewire_sessions"] >= float64(subscribers/2)
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
	// Half of the crowd was there when the broker was killed; some of it had not
	// been told so yet.
	if r.Traffic.Subscriptions < subscribers || r.Traffic.Reconnects < subscribers*5/4 {
		t.Errorf("%d subscriptions, %d connections: where is the crowd?", r.Traffic.Subscriptions, r.Traffic.Reconnects)
	}
	if fallbacks == 0 && !testing.Short() {
		t.Error("nobody was too slow: the pauses did not hit")
	}
	t.Logf("judged after %v; %v fall-backs; %+v", time.Since(began).Round(time.Millisecond), fallbacks, r.Traffic)
}

const outboundFallbacks = `tidewire_subscription_fallbacks_total{reason="outbound"}`

// buildPlain builds a program without the race detector, as it is in life: with
// it a thousand connections are too much for a small machine.
func buildPlain(t *testing.T, program string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(program))
	if out, err := exec.Command("go", "build", "-o", path, "github.com/tidewire/tidewire/"+program).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, out)
	}
	return path
}

// startJudge runs the judge's load as a process of its own. The channel gets the
// outcome.
func startJudge(t *testing.T, args ...string) <-chan error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), buildPlain(t, "tests/judge/cmd/judge"), append([]string{"run"}, args...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return ended
}
