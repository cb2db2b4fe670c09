package disk_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// copyWorld is a copy of a log on a device, over many lives.
type copyWorld struct {
	*machine
	rng    *rand.Rand
	job    copyJob
	lie    func()
	synced uint64 // what a life said to be on disk
	cuts   int
	opened int
}

func newCopyWorld(t *testing.T, seed uint64) *copyWorld {
	t.Helper()
	m := newMachine(t, seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	pick := func(of ...int64) int64 { return of[rng.IntN(len(of))] }
	return &copyWorld{machine: m, rng: rng, lie: func() {}, job: copyJob{
		Dir: filepath.Join(m.dir, "data"), Seed: seed, Payload: int(pick(100, 1000)),
		Retention: pick(-1, 1<<20), Window: pick(1, 1<<20), Dedupe: int(pick(50, 2000)),
	}}
}

// round is one life that ends by a power cut, or only by a kill, in the middle of
// some operation.
func (w *copyWorld) round(cut bool) error {
	w.lie()
	w.job.Life, w.job.Check = w.rng.Uint64(), w.rng.IntN(4) == 0
	var reached <-chan struct{}
	if w.rng.IntN(5) == 0 {
		reached = w.StopAfter(1 + w.rng.IntN(80))
	}
	var mu sync.Mutex
	var damage error
	open := make(chan struct{})
	p, in := startTalking(w.t, "copy", func(line string) {
		mu.Lock()
		defer mu.Unlock()
		word, rest, _ := strings.Cut(line, " ")
		var offset uint64
		_, _ = fmt.Sscan(rest, &offset)
		switch {
		case word == "open" && offset < w.synced:
			damage = fmt.Errorf("it ends at %d, but %d was on disk", offset, w.synced)
		case word == "open":
			w.opened++
			close(open)
		case word == "synced":
			w.synced = max(w.synced, offset)
		case damage == nil:
			damage = errors.New(line)
		}
	})
	first, err := json.Marshal(w.job)
	must(w.t, err)
	_, _ = fmt.Fprintf(in, "%s\n", first) // its end tells if it is gone
	late := time.NewTimer(patience)
	defer late.Stop()
	if reached == nil {
		select {
		case <-open:
			reached = w.StopAfter(1 + w.rng.IntN(600))
		case <-p.closed:
		case <-late.C:
		}
	}
	select {
	case <-reached:
	case <-p.closed:
		err = errors.New("the process has ended by itself")
	case <-late.C:
		err = errors.New("nothing happens any more")
	}
	w.kill(p)
	mu.Lock()
	defer mu.Unlock()
	if damage != nil || err != nil {
		err = fmt.Errorf("after %d power cuts of %+v: %w: %.1000s", w.cuts, w.job, errors.Join(damage, err), p.errs.String())
	}
	if cut {
		w.powerCut()
		w.cuts++
	} else {
		w.reboot()
	}
	return err
}

// TestPowerCutOfReplica cuts the power while a copy runs ahead of its disk. It
// opens with everything that was on disk, with its ids and its note as of there, and
// what is applied again is judged as before.
func TestPowerCutOfReplica(t *testing.T) {
	cuts := 40
	if testing.Short() {
		cuts = 5
	}
	rng := rand.New(rand.NewPCG(seed(t), 0))
	end := time.Now().Add(soak(t))
	opened, synced := 0, uint64(0)
	for done := 0; done < cuts || time.Now().Before(end); {
		w := newCopyWorld(t, rng.Uint64())
		for range 4 + rng.IntN(8) {
			if err := w.round(rng.IntN(4) != 0); err != nil {
				t.Fatal(err)
			}
		}
		done, opened, synced = done+w.cuts, opened+w.opened, synced+w.synced
		w.unmount()
	}
	t.Logf("%d lives, %d offsets synced", opened, synced)
	if synced == 0 {
		t.Error("nothing was ever synced")
	}
}

// TestPowerCutOfReplicaWithoutSync is the proof that it would be noticed.
func TestPowerCutOfReplicaWithoutSync(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed(t), 0))
	for done := 0; done < 30; {
		w := newCopyWorld(t, rng.Uint64())
		w.lie = func() { w.Lie(true, false) }
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
}
