package disk_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// seed returns the number that decides what a test does: the one in
// TIDEWIRE_SEED, or a new one. It is in the output if the test fails.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := rand.Uint64()
	if text := os.Getenv("TIDEWIRE_SEED"); text != "" {
		var err error
		n, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("TIDEWIRE_SEED=%d", n)
	return n
}

// soak returns how long the long version of a test runs, 0 for the normal one.
func soak(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("TIDEWIRE_SOAK")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	must(t, err)
	return d
}

// world is one log on one device over many lives.
type world struct {
	*machine
	rng     *rand.Rand
	job     job
	history *history
	cuts    int
	lie     func()
	faulty  bool // a fault may hit the first things that a life does
}

// newWorld makes a log with small segments; what else it is like is up to the
// seed.
func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	m := newMachine(t, seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	pick := func(of ...int64) int64 { return of[rng.IntN(len(of))] }
	w := &world{machine: m, rng: rng, job: job{
		Dir:       filepath.Join(m.dir, "data"),
		Workers:   1 + rng.IntN(12),
		Burst:     int(pick(1, 8, 40)),
		Payload:   int(pick(300, 3000, 30_000)),
		Segment:   pick(64<<10, 256<<10, 1<<20),
		Retention: pick(-1, -1, 512<<10, 2<<20),
		Age:       -1,
		Window:    pick(1, 1<<20),
		Reserve:   pick(-1, 1<<20),
		Dedupe:    int(pick(0, 4000)),
	}}
	if rng.IntN(2) == 0 { // else the broker makes it, and must see that it stays
		w.makeDir()
	}
	w.history = newHistory(w.job.Workers)
	w.history.trims = w.job.Retention > 0
	return w
}

// makeDir makes the data directory, durably, if it is not there.
func (w *world) makeDir() {
	w.t.Helper()
	must(w.t, os.MkdirAll(w.job.Dir, 0o700))
	syncDir(w.t, w.dir)
}

func (w *world) String() string {
	return fmt.Sprintf("after %d power cuts of %+v", w.cuts, w.job)
}

// begin starts the next life. It reads what is there, repeats some of what was
// answered, and if it may write begins to publish.
func (w *world) begin(write bool) *life {
	w.job.Next = append([]int(nil), w.history.next...)
	w.job.Seed = w.rng.Uint64()
	w.job.Check = w.rng.IntN(4) == 0 && !w.faulty
	l := w.live(w.t, w.job)
	l.say("read")
	for range 5 {
		worker := w.rng.IntN(w.job.Workers)
		if n := w.history.next[worker]; n > 0 {
			if m := (message{worker, w.rng.IntN(n)}); w.remembered(m) {
				l.say("repeat %d %d", m.worker, m.seq)
			}
		}
	}
	if write {
		l.say("write")
	}
	return l
}

// remembered reports whether the message is well within the dedupe window.
func (w *world) remembered(m message) bool {
	return w.job.Dedupe == 0 || offsetOf(w.history.stored[m])+uint64(w.job.Dedupe/2) > w.history.answered
}

// round is one life that ends by a power cut, or only by a kill, in the middle
// of some operation: while the log is being opened or later, under load.
func (w *world) round(cut bool) error {
	if w.lie != nil {
		w.lie()
	}
	var reached <-chan struct{}
	if w.rng.IntN(4) == 0 {
		reached = w.StopAfter(1 + w.rng.IntN(80))
	}
	l := w.begin(true)
	if reached == nil && l.awaitCount("end", 1) {
		reached = w.StopAfter(1 + w.rng.IntN(600))
	}
	var err error
	select {
	case <-reached:
	case <-l.proc.closed:
		err = errors.New("the process has ended by itself")
	case <-time.After(patience):
		err = errors.New("nothing happens any more")
	}
	w.kill(l.proc)
	if err != nil {
		err = l.verdict(fmt.Errorf("%w: %.2000s", err, l.proc.errs.String()))
	} else {
		err = w.history.absorb(l)
	}
	if cut {
		w.powerCut()
		w.cuts++
	} else {
		w.reboot()
	}
	return err
}

// finish looks at everything a last time.
func (w *world) finish() error {
	l := w.begin(false)
	l.say("stop")
	if err := l.proc.wait(); err != nil {
		return l.verdict(err)
	}
	return w.history.absorb(l)
}

// TestPowerCut cuts the power under load, again and again, on logs of several
// kinds. What was answered is there, once, at its position, in order; a repeat is
// a duplicate; and each log can be opened. Some lives end by a mere kill, so that
// the next one builds on what was never synced.
func TestPowerCut(t *testing.T) {
	cuts := 52
	if testing.Short() {
		cuts = 5
	}
	rng := rand.New(rand.NewPCG(seed(t), 0))
	end := time.Now().Add(soak(t))
	var stored, trimmed int
	for done := 0; done < cuts || time.Now().Before(end); {
		w := newWorld(t, rng.Uint64())
		for n := 3 + rng.IntN(8); n > 0; n-- {
			cut := rng.IntN(4) != 0
			if err := w.round(cut); err != nil {
				t.Fatalf("%v: %v", w, err)
			}
		}
		if err := w.finish(); err != nil {
			t.Fatalf("%v: %v", w, err)
		}
		done += w.cuts
		stored += len(w.history.stored)
		trimmed += int(w.history.earliest - 1)
		w.unmount()
	}
	t.Logf("%d messages were answered, %d offsets trimmed", stored, trimmed)
	if stored == 0 {
		t.Error("nothing was ever answered")
	}
}

// TestPowerCutWithoutSync is the proof that TestPowerCut would notice: on a disk
// that only pretends to sync files, or directories, something is lost.
func TestPowerCutWithoutSync(t *testing.T) {
	for what, lie := range map[string]func(*machine){
		"files":       func(m *machine) { m.Lie(true, false) },
		"directories": func(m *machine) { m.Lie(false, true) },
	} {
		t.Run(what, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed(t), 0))
			for done := 0; done < 30; {
				w := newWorld(t, rng.Uint64())
				w.lie = func() { lie(w.machine) }
				var err error
				for range 5 {
					if err = w.round(true); err != nil {
						break
					}
				}
				done += w.cuts
				w.unmount()
				if err != nil {
					t.Logf("noticed after %d power cuts: %.300v", done, err)
					return
				}
			}
			t.Error("30 power cuts on a disk that lies, and nothing was noticed")
		})
	}
}
