package disk_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

// TestKilledWhileSealing stops the machine at each operation of sealing a
// segment behind which nothing has been published, so that it is the newest one
// with messages. What comes next must be in the index of its topic all the same.
func TestKilledWhileSealing(t *testing.T) {
	steps := 24
	if testing.Short() {
		steps = 4
	}
	rng := rand.New(rand.NewPCG(seed(t), 0))
	for n := range steps {
		w := newWorld(t, rng.Uint64())
		w.makeDir()
		w.job.Workers, w.job.Burst, w.job.Payload = 2, 40, 300
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

// TestCutAfterKill lets a process die between writing and syncing, starts the
// next one on what was written, and then cuts the power. The next one must not
// build on what the disk does not hold: it has to sync what it finds, for bbolt
// writes over the pages that only the state before needs.
func TestCutAfterKill(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	rng := rand.New(rand.NewPCG(seed(t), 0))
	for n := range rounds {
		w := newWorld(t, rng.Uint64())
		w.makeDir()
		w.job.Workers, w.job.Burst, w.job.Payload = 3, 20, 30_000
		w.job.Segment, w.job.Retention, w.job.Dedupe = 64<<10, -1, 0
		w.history = newHistory(w.job.Workers)
		w.history.trims = false
		stops := []func() <-chan struct{}{
			func() <-chan struct{} { return w.StopAtSync(8 + rng.IntN(20)) },
			func() <-chan struct{} { return w.StopAtSync(1) },
		}
		for i, stop := range stops {
			if err := w.until(stop); err != nil {
				t.Fatalf("round %d: %v: %v", n, w, err)
			}
			if i == 0 {
				w.reboot()
			} else {
				w.powerCut()
			}
		}
		if err := w.finish(); err != nil {
			t.Fatalf("round %d: %v: %v", n, w, err)
		}
		w.unmount()
	}
}

// until is a life that reads what is there and then goes on up to a stop.
func (w *world) until(stop func() <-chan struct{}) error {
	l := w.begin(true)
	defer w.kill(l.proc)
	if !l.awaitCount("end", 1) {
		return l.verdict(errors.New("the log cannot be read"))
	}
	select {
	case <-stop():
	case <-l.proc.closed:
		return l.verdict(errors.New("the process has ended by itself"))
	case <-time.After(patience):
		return errors.New("nothing happens any more")
	}
	w.kill(l.proc)
	return w.history.absorb(l)
}
