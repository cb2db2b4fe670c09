package disk_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// TestFailedSyncEndsTheProcess makes one sync fail, any of the first few hundred:
// of a commit, of a new segment, of sealing, of opening the log. The process
// must end: everything that was pending is answered with outcome_unknown, nothing
// is answered as stored from then on, and after a power cut all that was answered
// is there, although the kernel takes the lost pages for written.
func TestFailedSyncEndsTheProcess(t *testing.T) {
	rounds := 14
	if testing.Short() {
		rounds = 3
	}
	rng := rand.New(rand.NewPCG(seed(t), 0))
	var w *world
	unknown := 0
	for round := range rounds {
		if round%5 == 0 {
			if w != nil {
				w.unmount()
			}
			w = newWorld(t, rng.Uint64())
			w.faulty = true
		}
		l, err := w.failingSync(round > 0 && rng.IntN(3) == 0) // at least one has publishers
		if err != nil {
			t.Fatalf("%v: %v", w, err)
		}
		unknown += l.refused["outcome_unknown"]
	}
	if err := w.finish(); err != nil {
		t.Fatalf("%v: %v", w, err)
	}
	if unknown == 0 {
		t.Error("nobody was ever told outcome_unknown")
	}
}

// failingSync is a life that ends by itself because of a sync, one of opening the
// log or a later one.
func (w *world) failingSync(opening bool) (*life, error) {
	if opening {
		w.FailSync(1+w.rng.IntN(10), syscall.EIO)
	}
	l := w.begin(true)
	if !opening && l.awaitCount("end", 1) {
		w.FailSync(1+w.rng.IntN(300), syscall.EIO)
	}
	if !l.await(func() bool { return l.failed != "" }) {
		w.kill(l.proc)
		return l, l.verdict(fmt.Errorf("a sync has failed (%d), and the process goes on", w.Stats().SyncsFailed))
	}
	if l.proc.wait() == nil {
		return l, errors.New("the process has ended as if nothing had happened")
	}
	if err := l.afterFailure(); err != nil {
		return l, err
	}
	err := w.history.absorb(l)
	w.powerCut()
	w.cuts++
	return l, err
}

// afterFailure judges how the process behaved once the sync had failed.
func (l *life) afterFailure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.late > 0:
		return fmt.Errorf("%d messages were answered as stored after others were answered with outcome_unknown", l.late)
	case l.left != "0":
		return fmt.Errorf("%s entries were never answered", l.left)
	}
	return nil
}

// TestDiskFull fills the disk again and again, in the middle of whatever was
// going on: commits, new segments, sealing, trimming. Publishes are refused with
// storage_full, nothing that was answered is lost, reading goes on, and
// publishing too once there is space.
func TestDiskFull(t *testing.T) {
	worlds, squeezes := 4, 5
	if testing.Short() {
		worlds, squeezes = 1, 3
	}
	rng := rand.New(rand.NewPCG(seed(t), 0))
	for range worlds {
		w := newWorld(t, rng.Uint64())
		if err := w.squeeze(squeezes); err != nil {
			t.Fatalf("%v: %v", w, err)
		}
		w.powerCut()
		if err := w.finish(); err != nil {
			t.Fatalf("%v: %v", w, err)
		}
		w.unmount()
	}
}

const plenty = 1 << 40

// squeeze is a life in which the disk is full at times.
func (w *world) squeeze(times int) error {
	l := w.begin(true)
	defer w.kill(l.proc)
	for range times {
		if !l.awaitMore("stored", 200) {
			return l.verdict(errors.New("publishing does not go on"))
		}
		// Whoever else uses the disk takes what the broker gives up in its need.
		room := int64(w.rng.IntN(300 << 10))
		for range 1 + w.rng.IntN(4) {
			w.SetCapacity(w.Used() + room)
			if room = 0; !l.awaitFull() {
				return l.verdict(errors.New("the disk is full, and nobody was told"))
			}
		}
		if w.history.trims {
			// Reading all of it would be a race with retention.
		} else if err := l.read(); err != nil {
			return fmt.Errorf("while the disk is full: %w", err)
		}
		w.SetCapacity(plenty)
	}
	if !l.awaitMore("stored", 200) {
		return l.verdict(errors.New("publishing does not go on"))
	}
	w.kill(l.proc)
	return w.history.absorb(l)
}

// awaitFull waits until some publishes were refused for want of space; or many
// were not, for retention may find some.
func (l *life) awaitFull() bool {
	enough := l.count("stored") + 1000
	const full = "storage_full"
	l.mu.Lock()
	n := l.refused[full] + 20
	l.mu.Unlock()
	return l.await(func() bool { return l.refused[full] >= n || l.counts["stored"] >= enough })
}

// awaitMore waits for so many more lines with the word.
func (l *life) awaitMore(word string, n int) bool { return l.awaitCount(word, l.count(word)+n) }

// TestTrimmingOnAFullDisk has a disk that is too small for what is published in
// the retention age. Publishing must go on whenever the oldest messages go.
func TestTrimmingOnAFullDisk(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed(t), 0))
	w := newWorld(t, rng.Uint64())
	w.job.Workers, w.job.Burst, w.job.Segment = 4, 8, 128<<10
	w.job.Retention, w.job.Reserve, w.job.Age = -1, 512<<10, time.Second
	w.history = newHistory(w.job.Workers)
	w.history.trims = true
	w.SetCapacity(2 << 20)
	l := w.begin(true)
	defer w.kill(l.proc)
	for round := range 2 {
		full := func() bool { return l.refused["storage_full"] > 50*round }
		if !l.await(full) {
			t.Fatal(l.verdict(errors.New("the disk is full, and nobody was told")))
		}
		if !l.awaitMore("stored", 1000) {
			t.Fatal(l.verdict(errors.New("retention has made no space")))
		}
	}
	w.kill(l.proc)
	must(t, w.history.absorb(l))
	w.powerCut()
	if err := w.finish(); err != nil {
		t.Fatalf("%v: %v", w, err)
	}
}
