package disk_test

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestKilledWhileSealing stops the machine at each operation of sealing a
// segment behind which nothing has been published, so that it is the newest one
// with messages. What comes next must be in the index of its topic all the same.
func TestKilledWhileSealing(t *testing.T) {
	steps := 30
	if testing.Short() {
		steps = 4
	}
	rng := rand.New(rand.NewPCG(seed(t), 0))
	for n := range steps {
		w := newWorld(t, rng.Uint64())
		w.job.Workers, w.job.Burst, w.job.Payload = 2, 4, 300
		w.job.Segment, w.job.Retention, w.job.Dedupe = 64<<10, -1, 0
		w.job.Age = 400 * time.Millisecond // of which an eighth makes a segment end
		w.history = newHistory(w.job.Workers)
		l := w.begin(false)
		for seq := range 10 {
			l.say("publish 0 %d", seq)
			l.say("publish 1 %d", seq)
		}
		if !l.awaitCount("stored", 20) {
			t.Fatal(l.verdict(nil))
		}
		<-w.StopAfter(1 + n)
		w.kill(l.proc)
		if err := w.history.absorb(l); err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
		if rng.IntN(2) == 0 {
			w.reboot()
		} else {
			w.powerCut()
		}
		w.job.Age = -1
		l = w.begin(true)
		if !l.awaitCount("stored", 800) {
			t.Fatalf("step %d: %v", n, l.verdict(nil))
		}
		w.kill(l.proc)
		if err := w.history.absorb(l); err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
		w.reboot()
		if err := w.finish(); err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
		w.unmount()
	}
}
